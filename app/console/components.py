"""How the page's components and listeners are made."""

from collections.abc import Callable
from typing import Any

import gradio as gr


def html(js_on_load: str | None = None) -> Any:
    """A block of our own HTML."""
    return gr.HTML(elem_classes="ap", js_on_load=js_on_load, apply_default_css=False)


def on(event: Callable[..., Any], act: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> Any:
    """One listener: no spinner over what is being read, no entry in an API listing, any number at once."""
    return event(
        act,
        inputs,
        outputs,
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )
