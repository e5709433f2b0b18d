"""PagerDuty's Events API in the shop, and the sink of our outgoing webhook."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from standardwebhooks.webhooks import Webhook

from app.simulator.notified import routing_key
from app.simulator.webhook_sink import SECRET
from tests.simulator.conftest import Served

KEY = routing_key("payments")


def _event(action: str, **more: Any) -> dict[str, Any]:
    payload = {"summary": "checkout 5xx", "source": "production/checkout", "severity": "critical"}
    return {"routing_key": KEY, "event_action": action, "dedup_key": "aiops:inc_1", "payload": payload, **more}


@pytest.fixture
def shop(serve: Callable[[str, float], Served]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serve("bad-deploy", 5).url, timeout=10) as client:
        yield client


def test_one_incident_for_each_key_until_it_is_resolved(shop: httpx.Client) -> None:
    for action in ("acknowledge", "trigger", "trigger", "acknowledge", "resolve", "acknowledge", "trigger"):
        answer = shop.post("/pagerduty/v2/enqueue", json=_event(action))
        assert answer.status_code == 202
        assert answer.json()["dedup_key"] == "aiops:inc_1"
    newest, oldest = shop.get("/_shop/pagerduty/state").json()
    assert (newest["state"], oldest["state"]) == ("triggered", "resolved")
    assert [e["event_action"] for e in oldest["events"]] == ["trigger", "trigger", "acknowledge", "resolve"]
    assert KEY not in str([newest["events"], oldest["events"]])
    assert "checkout 5xx" in shop.get("/_shop/pagerduty").text


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (_event("trigger", routing_key="short"), "routing_key"),
        (_event("shout"), "event_action"),
        (_event("resolve", dedup_key=""), "dedup_key"),
        (_event("trigger", dedup_key="a" * 256), "dedup_key"),
        (_event("trigger", payload={"summary": "a", "source": "b"}), "payload.severity"),
        (_event("trigger", payload={"summary": "a" * 1025, "source": "b", "severity": "info"}), "payload.summary"),
        (_event("trigger", payload={"summary": "a", "source": "b", "severity": "loud"}), "payload.severity"),
    ],
)
def test_events_that_are_refused(shop: httpx.Client, event: dict[str, Any], said: str) -> None:
    answer = shop.post("/pagerduty/v2/enqueue", json=event)
    assert (answer.status_code, answer.json()["status"]) == (400, "invalid event")
    assert said in answer.json()["errors"][0]
    assert shop.get("/_shop/pagerduty/state").json() == []


def test_the_dynamic_limit(shop: httpx.Client) -> None:
    fail = {"path": "/pagerduty/v2/enqueue", "status": 429, "retry_after_s": 30}
    shop.post("/_shop/fail", json=fail).raise_for_status()
    answer = shop.post("/pagerduty/v2/enqueue", json=_event("trigger"))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "30")


def test_the_sink_believes_signatures_only(shop: httpx.Client) -> None:
    body, now = '{"kind": "opened"}', datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", now, body),
    }
    assert shop.post("/_shop/webhook", content=body, headers=headers).status_code == 204
    assert shop.post("/_shop/webhook", content=body + " ", headers=headers).status_code == 401
    assert shop.post("/_shop/webhook", content=body).status_code == 401
    seen = [(r["id"], r["verified"], r["body"]) for r in shop.get("/_shop/webhook").json()]
    assert seen == [("msg_1", True, {"kind": "opened"}), ("msg_1", False, None), ("", False, None)]
