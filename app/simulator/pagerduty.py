"""PagerDuty's Events API v2: incidents by dedup key, what the API refuses, and a list of them for people."""

import html
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from app.simulator.backdoor import Fail
from app.simulator.pages import page, table
from app.simulator.shop import Clock

Json = dict[str, Any]
State = Literal["triggered", "acknowledged", "resolved"]

MOST_BYTES = 512 * 1024
_ACTIONS: dict[str, State] = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}
_SEVERITIES = ("critical", "error", "warning", "info")
_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")


@dataclass
class Page:
    """An incident at PagerDuty: who carries a pager hears of it while it is triggered."""

    dedup_key: str
    routing_key: str
    opened_at: datetime
    payload: Json
    state: State = "triggered"
    events: list[Json] = field(default_factory=list)


class PagerDuty:
    """Any routing key of 32 letters and digits is a service's."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pages: list[Page] = []

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter()
        router.add_api_route("/pagerduty/v2/enqueue", self._enqueue, methods=["POST"])
        router.add_api_route("/_shop/pagerduty", self._page, methods=["GET"])
        router.add_api_route("/_shop/pagerduty/state", self._state, methods=["GET"])
        return router

    async def _enqueue(self, request: Request) -> Response:
        body = await request.body()
        if len(body) > MOST_BYTES:
            return JSONResponse({"status": "invalid event", "message": "Event object is too large"}, 413)
        try:
            event = await request.json()
        except ValueError:
            return _refused(["Event is not valid JSON"])
        if wrong := _complaints(event):
            return _refused(wrong)
        key = str(event.get("dedup_key") or f"made-up-{len(self._pages)}")
        self._take(event, key)
        return JSONResponse({"status": "success", "message": "Event processed", "dedup_key": key}, 202)

    def _take(self, event: Json, key: str) -> None:
        """Trigger opens an incident, or adds to the open one; the others change an open one, or do nothing."""
        routing, action = event["routing_key"], event["event_action"]
        found = next((p for p in self._pages if (p.dedup_key, p.routing_key) == (key, routing)), None)
        opened = found if found and found.state != "resolved" else None
        if opened is None:
            if action != "trigger":
                return
            opened = Page(key, routing, self._clock.now(), event["payload"])
            self._pages.insert(0, opened)
        elif action != "trigger":
            opened.state = _ACTIONS[action]
        told = {name: value for name, value in event.items() if name != "routing_key"}
        opened.events.append({"at": self._clock.now().isoformat(), **told})

    async def _state(self) -> list[Page]:
        """Newest first."""
        return self._pages

    async def _page(self) -> Response:
        rows = [
            (
                f"{p.opened_at:%H:%M:%S}",
                p.state,
                html.escape(str(p.payload["severity"])),
                html.escape(str(p.payload["summary"])),
                html.escape(p.dedup_key),
                "<br>".join(html.escape(f"{event['at'][11:19]} {event['event_action']}") for event in p.events),
            )
            for p in self._pages
        ]
        head = ("opened", "state", "severity", "summary", "dedup key", "events")
        return HTMLResponse(page("PagerDuty", table(head, rows)))


def failed(fail: Fail) -> Response:
    """How PagerDuty tells of trouble of its own."""
    if fail.status == 429:
        told = {"status": "throttle exceeded", "message": "Requests for this service are arriving too quickly."}
        return JSONResponse(told, 429, {"Retry-After": str(fail.retry_after_s)})
    return JSONResponse({"status": "error", "message": "Internal Server Error"}, fail.status)


def _refused(errors: list[str]) -> Response:
    return JSONResponse({"status": "invalid event", "message": "Event object is invalid", "errors": errors}, 400)


def _complaints(event: object) -> list[str]:
    if not isinstance(event, dict):
        return ["Event object is not a hash"]
    wrong = []
    if not _ROUTING_KEY.fullmatch(str(event.get("routing_key", ""))):
        wrong.append("Length of 'routing_key' is incorrect (should be 32 characters)")
    action = event.get("event_action")
    if action not in _ACTIONS:
        wrong.append("'event_action' is missing or not one of: trigger, acknowledge, resolve")
    if len(str(event.get("dedup_key", ""))) > 255:
        wrong.append("Length of 'dedup_key' is incorrect (should be 255 characters or less)")
    if action in ("acknowledge", "resolve") and not event.get("dedup_key"):
        wrong.append("'dedup_key' is missing or blank")
    return wrong + (_payload_complaints(event.get("payload")) if action == "trigger" else [])


def _payload_complaints(payload: object) -> list[str]:
    if not isinstance(payload, dict):
        return ["'payload' is missing or blank"]
    wrong = [
        f"'payload.{name}' is missing or blank" for name in ("summary", "source", "severity") if not payload.get(name)
    ]
    if payload.get("severity") not in (None, "", *_SEVERITIES):
        wrong.append(f"'payload.severity' is invalid (must be one of: {', '.join(_SEVERITIES)})")
    if len(str(payload.get("summary", ""))) > 1024:
        wrong.append("Length of 'payload.summary' is incorrect (should be 1024 characters or less)")
    return wrong
