"""The web application."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import (
    alerts,
    audit,
    decisions,
    feedback,
    freeze,
    health,
    incidents,
    knowledge,
    messages,
    model_calls,
    problems,
    tools,
    webhooks,
)
from app.api.access import SESSION_COOKIE, CallerDep, ProductDep
from app.audit import record_configuration
from app.db import transaction
from app.security import authenticate, issue
from app.settings import Settings
from app.wiring import Product, assembled

DESCRIPTION = """From an alert to a verified remedy.

`POST /webhooks/datadog` or `POST /incidents` starts; `GET /incidents/{id}/events` follows;
`GET /incidents/{id}/report` explains; `GET /incidents/{id}/actions` proposes;
`POST /incidents/{id}/decision` resumes the paused graph.
"""
ASSETS = "/docs/assets"


def create_app(settings: Settings, database_url: str, *, worker: bool = True, console: bool = False) -> FastAPI:
    """The API; with ``worker`` jobs run in this process too, with ``console`` Gradio is mounted at /ui."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with assembled(settings, database_url) as product:
            app.state.product = product
            async with transaction(product.pool) as connection:
                await record_configuration(connection, product)
            gc.collect()
            gc.freeze()  # what was imported stays for ever: looking through it again and again costs 50 ms a time
            async with _working(product) if worker else contextlib.nullcontext():
                yield

    # The OpenAPI document and its page are for those who are signed in: their routes are below.
    app = FastAPI(title="AIOps Auto Pilot", version="1", description=DESCRIPTION, lifespan=lifespan, openapi_url=None)
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.include_router(webhooks.router)
    for router in (incidents.router, decisions.router, alerts.router, model_calls.router, freeze.router, audit.router):
        app.include_router(router, responses=problems.responses(422, 503))
    app.include_router(feedback.router, responses=problems.responses(422, 503))
    app.include_router(knowledge.router, responses=problems.responses(422, 503))  # its paths end in an id: after others
    app.include_router(messages.router, responses=problems.responses(422, 503))
    app.include_router(tools.router)
    app.include_router(health.router)
    _add_pages(app)
    if console:
        from app.console import mount

        mount(app)
    return app


class BodyLimit:
    """Stops reading a request body that is too large, whatever its Content-Length says."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or _surely_small(scope, self.max_bytes):
            await self.app(scope, receive, send)
            return
        size = 0

        async def bounded() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.max_bytes:
                raise HTTPException(413, f"The body is larger than {self.max_bytes} bytes.")
            return message

        await self.app(scope, bounded, send)


def _surely_small(scope: Scope, max_bytes: int) -> bool:
    """Whether the request says how long it is, and the server sees to it that this is true."""
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return False
        if name == b"content-length":
            return bool(value.isdigit() and int(value) <= max_bytes)
    return False


@asynccontextmanager
async def _working(product: Product) -> AsyncIterator[None]:
    from app.worker import work  # LangGraph is imported only where jobs run

    stop = asyncio.Event()
    worker = asyncio.create_task(work(product, stop))
    try:
        yield
    finally:
        stop.set()
        await worker


def _add_pages(app: FastAPI) -> None:
    spec = find_spec("fastapi_offline")  # the page's scripts, so that it works without the internet
    assert spec is not None
    assert spec.origin is not None
    app.mount(ASSETS, StaticFiles(directory=Path(spec.origin).parent / "static"))

    @app.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/ui/" if any(getattr(r, "path", "") == "/ui" for r in app.routes) else "/docs")

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(_: CallerDep) -> JSONResponse:
        return JSONResponse(app.openapi())

    @app.get("/docs", include_in_schema=False)
    async def docs(_: CallerDep) -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="AIOps Auto Pilot",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )

    @app.get("/sign-in", include_in_schema=False)
    async def sign_in(
        product: ProductDep, token: Annotated[str, Query(max_length=200)], then: str = "/"
    ) -> RedirectResponse:
        async with transaction(product.pool) as connection:
            who = await authenticate(connection, token, "sign_in")
            if who is None:
                raise HTTPException(401, "This sign-in link was used already, or is too old: `autopilot sign-in`.")
            session = await issue(connection, "session", who.name, who.role, by=who.name)
        here = then if then.startswith("/") and not then.startswith(("//", "/\\")) else "/"
        answer = RedirectResponse(here, 303)
        answer.set_cookie(
            SESSION_COOKIE,
            session,
            httponly=True,
            samesite="lax",
            secure=product.settings.public_url.startswith("https:"),
            max_age=43_200,
        )
        return answer
