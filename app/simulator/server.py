"""The shop behind HTTP: the vendors' protocols on one port, and a back door."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.simulator.aws import AwsApi
from app.simulator.backdoor import BackDoor, Fail
from app.simulator.datadog import DatadogApi
from app.simulator.datadog_monitors import Monitors
from app.simulator.datadog_webhooks import Webhooks
from app.simulator.jira import Jira
from app.simulator.jira import failed as jira_failed
from app.simulator.pagerduty import PagerDuty
from app.simulator.pagerduty import failed as pagerduty_failed
from app.simulator.shop import Shop
from app.simulator.slack import SlackApi
from app.simulator.slack import failed as slack_failed
from app.simulator.slack_page import SlackPages
from app.simulator.slack_workspace import Workspace
from app.simulator.webhook_sink import WebhookSink

RATE_LIMIT_RESET_S = 1
FAILURES = {"/slack/": slack_failed, "/jira/": jira_failed, "/pagerduty/": pagerduty_failed}


def create_app(shop: Shop) -> FastAPI:
    """The shop's HTTP side; as long as it lives, its monitors' webhooks are delivered."""
    back_door, monitors = BackDoor(shop), Monitors(shop)
    webhooks = Webhooks(shop, monitors, back_door)

    @asynccontextmanager
    async def delivering(_app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(webhooks.deliver())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(openapi_url=None, lifespan=delivering)
    app.include_router(AwsApi(shop, back_door).router())
    app.include_router(DatadogApi(shop, monitors, webhooks).router())
    app.include_router(back_door.router())
    workspace = Workspace(shop.clock)
    for part in (SlackApi(workspace), SlackPages(workspace), Jira(shop.clock), PagerDuty(shop.clock), WebhookSink()):
        app.include_router(part.router())
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)

    app.add_middleware(Trouble, back_door=back_door)
    return app


class Trouble:
    """Holds or fails calls, where the back door was asked to for their path."""

    def __init__(self, app: ASGIApp, back_door: BackDoor) -> None:
        self._app, self._back_door = app, back_door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        path = str(scope.get("path", ""))
        fail = self._back_door.failure("", path)
        if fail is not None:
            await _failed(fail, path)(scope, receive, send)
            return
        hold = self._back_door.hold("", path)
        if hold is not None and hold.when == "before":
            await asyncio.sleep(hold.seconds)

        async def send_late(message: Message) -> None:
            if hold is not None and hold.when == "after" and message["type"] == "http.response.start":
                await asyncio.sleep(hold.seconds)
            await send(message)

        await self._app(scope, receive, send_late)


def _failed(fail: Fail, path: str) -> Response:
    """In the words of whom the path belongs to."""
    for prefix, failed in FAILURES.items():
        if path.startswith(prefix):
            return failed(fail)
    return _datadog_failed(fail)


def _datadog_failed(fail: Fail) -> Response:
    headers = {}
    if fail.status == 429:
        headers = {
            "X-RateLimit-Limit": "300",
            "X-RateLimit-Period": "3600",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(RATE_LIMIT_RESET_S),
            "X-RateLimit-Name": "shop",
        }
    return JSONResponse({"errors": ["The service is in trouble."]}, fail.status, headers)


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"errors": [error.detail]}, error.status_code)


async def _malformed(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
    return JSONResponse({"errors": details}, 400)
