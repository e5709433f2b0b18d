"""The operations of all other executors, with nothing behind them.

For a laptop with recorded data, and until somebody turns the real executors on: a plan can be made, decided and run,
resources are looked up in the catalogue, but no credentials are needed and nothing is called.
"""

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import BaseModel

import executors
from executors.base import (
    AnyOperation,
    Capacity,
    Change,
    Check,
    Clock,
    Executor,
    Grant,
    Operation,
    Outcome,
    PreflightCheck,
    Probe,
    Resource,
    State,
)


class Rehearsed(Operation[BaseModel]):
    """Mixed in before a real operation, whose name, parameters, risk, services and resource key it keeps.

    What a real one tells from the state that it read, is left out: none is read.
    """

    dry_run = True
    permissions = ()

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self.resources = resources

    async def concrete(self, params: BaseModel) -> BaseModel:
        """As they are: nothing is looked up."""
        return params

    async def inspect(self, params: BaseModel) -> State:
        """There is nothing to read."""
        return {"rehearsal": True}

    def preview(self, params: BaseModel, before: State) -> str:
        """The call that would be made."""
        return self._would("run", params)

    def pinned(self, params: BaseModel, before: State) -> State:
        """Nothing was read that an approval could be bound to."""
        return {}

    def changes(self, params: BaseModel, before: State) -> tuple[Change, ...]:
        """None: what it is now is not known."""
        return ()

    async def preflight(self, params: BaseModel, before: State) -> tuple[PreflightCheck, ...]:
        """Nobody is asked."""
        detail = "a rehearsal: nothing is called, so nothing of the target is known"
        return (PreflightCheck(name="dry_run", status="skipped", detail=detail),)

    def capacity(self, params: BaseModel, before: State) -> Capacity | None:
        """Not known."""
        return None

    def grants(self, params: BaseModel, before: State) -> tuple[Grant, ...]:
        """None are needed."""
        return ()

    async def execute(self, params: BaseModel, before: State) -> Outcome:
        """Says what would be called."""
        return Outcome(detail=self._would("run", params), data={"rehearsal": True})

    async def settle(self, params: BaseModel, before: State) -> State:
        """There is nothing to wait for."""
        return {"rehearsal": True}

    async def probe(self, params: BaseModel, before: State) -> Probe:
        """Nothing is left half done."""
        return "done"

    async def undo(self, params: BaseModel, before: State) -> Outcome:
        """Says what would be undone; refused like the real one if that cannot be."""
        if not self.reversible:
            return await Operation.undo(self, params, before)
        return Outcome(detail=self._would("undo", params), data={"rehearsal": True})

    def _would(self, verb: str, params: BaseModel) -> str:
        arguments = ", ".join(f"{k}={v!r}" for k, v in params.model_dump(mode="json").items())
        return f"Rehearsal: would {verb} {self.name}({arguments}) on {self.resource(params)}"


class RehearsalExecutor:
    """Every operation there is, rehearsed."""

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        self.operations: Sequence[AnyOperation] = [_rehearsed(kind, resources) for kind in _kinds()]

    async def check(self) -> list[Check]:
        """Nothing is needed: it touches nothing."""
        return [Check(name="credentials", status="ok", detail="none needed: it only says what it would do")]

    async def aclose(self) -> None:
        """Nothing to release."""


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``rehearsal``; it has no settings."""
    return RehearsalExecutor(resources)


def _kinds() -> Iterator[type[Operation[Any]]]:
    """The operation classes that each executor file lists in ``OPERATIONS``."""
    for module in iter_modules(executors.__path__):
        if module.name != "rehearsal":
            yield from getattr(import_module(f"executors.{module.name}"), "OPERATIONS", ())


def _rehearsed(kind: type[Operation[Any]], resources: Mapping[str, Resource]) -> AnyOperation:
    mirrored: type[Rehearsed] = type(f"Rehearsed{kind.__name__}", (Rehearsed, kind), {"__doc__": kind.__doc__})
    return mirrored(resources)
