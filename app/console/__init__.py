"""The Gradio console at /ui."""

import os
from importlib.resources import files

from fastapi import FastAPI

PATH = "/ui"


def mount(app: FastAPI) -> None:
    """Mount the console. Gradio is imported here: it takes seconds, and only this process needs it."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read by Gradio when it is imported
    import gradio as gr

    from app.console.gate import Gate, answer_for_people
    from app.console.page import Page
    from graph.pictures import STYLE

    here = files("app.console")
    css, script = ((here / name).read_text(encoding="utf-8") for name in ("theme.css", "console.js"))
    gr.mount_gradio_app(
        app,
        Page(app).blocks,
        path=PATH,
        auth_dependency=Gate(app),
        footer_links=[],
        run_history=False,
        max_file_size=1,  # nothing is uploaded here
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        show_error=False,  # no stack trace's words on the page; the log has them
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        head=f"<style>{STYLE}{css}</style><script>{script}</script>",
    )
    answer_for_people(_mounted(app))


def _mounted(app: FastAPI) -> FastAPI:
    console = next(route.app for route in reversed(app.routes) if getattr(route, "path", "") == PATH)  # type: ignore[attr-defined]
    assert isinstance(console, FastAPI)
    return console
