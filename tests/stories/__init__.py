"""Incidents that are told, not recorded: each module that has ``build`` tells one, of which ``tests/scenarios`` keeps
the telemetry.

A story is written from what real systems emit, and says apart from it what the answer is. Each can be made again:
``python -m tests.stories 003 007`` writes these folders, without numbers all of them.
"""

import pkgutil
from collections.abc import Callable
from importlib import import_module

from tests.stories.telling import Story

Build = Callable[[], Story]


def builders() -> dict[str, Build]:
    """How to tell each story, by the name of its module."""
    modules = {module.name: import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)}
    return {name: module.build for name, module in modules.items() if hasattr(module, "build")}
