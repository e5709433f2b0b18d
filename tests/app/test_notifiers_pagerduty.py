"""PagerDuty: who is paged when, until when, and what its answers mean."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from app.catalogue import AutopilotYaml
from app.clock import SystemClock
from app.notifiers import pagerduty
from app.notifiers.base import Telling, TryAgain, Undeliverable
from app.notifiers.pagerduty import PagerDuty, Settings, action_for
from graph.catalogue import Team
from graph.state import ActionOption
from tests.app.telling import CAUSE, NOON, telling

KEY = "R0UT1NGKEY0000000000000000000000"
TRIGGERED, ACKNOWLEDGED, RESOLVED = ({"state": s} for s in ("triggered", "acknowledged", "resolved"))
OPTION = ActionOption(title="Restart it", description="", risk="low", minutes=2, steps=())


def events(status: int = 202, body: Any = None, **headers: str) -> tuple[list[dict[str, Any]], PagerDuty]:
    """What came to PagerDuty, which answers that, and the notifier."""
    came: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://events.pagerduty.com/v2/enqueue"
        assert len(request.content) <= 512_000
        came.append(json.loads(request.content))
        return httpx.Response(status, json=body or {"status": "success"}, headers=headers)

    settings = Settings(routing_keys={"payments": SecretStr(KEY)})
    return came, PagerDuty(settings, httpx.MockTransport(answer))


def to(kind: str, data: dict[str, Any] | None = None, **more: Any) -> Telling:
    """For the payments key."""
    return telling(kind, data, of_target="payments", **more)


def status(word: str, **more: Any) -> Telling:
    """A change of status."""
    return to("status", {"status": word}, status=word, **more)


async def test_triggered_acknowledged_resolved_under_one_key() -> None:
    came, one = events()
    conversation: dict[str, Any] = {}
    story: list[Callable[[], Telling]] = [
        lambda: to("opened", of_conversation=conversation, root_cause=CAUSE, plan_revision="r", options=(OPTION,)),
        lambda: status("awaiting_decision", of_conversation=conversation),
        lambda: to("decision", {"choice": "1"}, of_conversation=conversation, status="executing"),
        lambda: status("executing", of_conversation=conversation),
        lambda: status("resolved", of_conversation=conversation),
        lambda: to("note", of_conversation=conversation, status="resolved"),
    ]
    details = []
    for tell in story:
        receipt = await one.deliver(tell())
        conversation |= receipt.reference
        details.append(receipt.detail)
    await one.aclose()
    assert [c["event_action"] for c in came] == ["trigger", "acknowledge", "resolve"]
    assert {(c["dedup_key"], c["routing_key"]) for c in came} == {("aiops:inc_1", KEY)}
    assert details.count("nothing to say of it") == 3
    assert conversation == {"state": "resolved", "dedup_key": "aiops:inc_1"}
    trigger = came[0]
    assert trigger["payload"] == {
        "summary": "checkout: p95 latency of checkout",
        "source": "production/checkout",
        "severity": "critical",
        "timestamp": NOON.isoformat(),
        "component": "payment-service",
        "group": "production",
        "class": "connection_pool_exhaustion",
        "custom_details": {
            "why you": "payments owns checkout, which alerted",
            "what happened": "what happened: opened",
            "cause": "The connection pool is exhausted",
            "confidence": "high",
            "options": ["1. Restart it"],
            "status": "received",
            "incident": "inc_1",
        },
    }
    assert trigger["links"] == [
        {"href": "https://autopilot.example/ui/?incident=inc_1", "text": "Evidence, options, decision"}
    ]


@pytest.mark.parametrize(
    ("told", "action"),
    [
        (to("opened"), "trigger"),
        (to("reopened", of_conversation=RESOLVED), "trigger"),
        (to("severity", {"severity": "critical"}), "trigger"),
        (status("awaiting_decision"), "trigger"),  # the owner of the cause, who hears of it only now
        (status("awaiting_decision", of_conversation=TRIGGERED), None),
        (status("awaiting_decision", of_conversation=ACKNOWLEDGED), None),
        (to("escalation", status="awaiting_decision"), "trigger"),
        (to("escalation", status="awaiting_decision", of_conversation=TRIGGERED), "trigger"),
        (status("needs_attention", of_conversation=ACKNOWLEDGED), "trigger"),
        (to("decision", {"choice": "1"}, of_conversation=TRIGGERED), "acknowledge"),
        (to("decision", {"choice": "1"}), None),
        (to("approval", of_conversation=TRIGGERED), None),  # it waits for another person
        (to("recovered", status="closed", of_conversation=TRIGGERED), "resolve"),
        (to("recovered", status="closed"), None),
        (status("resolved", of_conversation=ACKNOWLEDGED), "resolve"),
        (status("resolved", of_conversation=RESOLVED), None),
        (to("opened", status="closed"), None),  # held until the morning, and over by then
        (to("opened", status="closed", of_maybe_sent=True), "resolve"),  # that attempt may have paged
        (to("recovered", status="closed", of_maybe_sent=True), "resolve"),
        (to("opened", of_maybe_sent=True), "trigger"),
        (to("escalation", status="resolved"), None),
        (to("escalation", status="resolved", of_conversation=TRIGGERED), "resolve"),
        (to("note", status="resolved", of_conversation=RESOLVED), None),
        (to("reminder", status="awaiting_decision"), None),
        (to("step_finished", status="executing"), None),
    ],
)
def test_what_each_event_says(told: Telling, action: str | None) -> None:
    assert action_for(told) == action


def test_whoever_takes_it_by_hand_ends_the_page() -> None:
    taken = {"plan_revision": "r", "choice": "manual", "by": "kim", "at": NOON}
    told = status("closed", of_conversation=ACKNOWLEDGED, decisions=[taken])
    assert action_for(told) is None
    assert action_for(status("closed", of_maybe_sent=True, decisions=[taken])) is None
    chosen = to("decision", {"choice": "manual"}, status="closed", of_conversation=TRIGGERED, decisions=[taken])
    assert action_for(chosen) == "acknowledge"
    assert action_for(status("closed", of_conversation=ACKNOWLEDGED)) == "resolve"


async def test_texts_of_others_are_cut_to_one_line() -> None:
    came, one = events()
    await one.deliver(to("opened", title="a\nb\t" + "x" * 5000))
    await one.aclose()
    summary = came[0]["payload"]["summary"]
    assert len(summary) == 1024
    assert summary.startswith("checkout: a b x")
    assert summary.endswith("…")


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (400, {"errors": ["'payload.severity' is invalid"]}, "refuses it \\(400\\): 'payload.severity' is invalid"),
        (400, ["nonsense"], "refuses it \\(400\\): without a reason"),
        (400, {"errors": 3}, "refuses it \\(400\\): without a reason"),
        (413, {}, "refuses it \\(413\\): without a reason"),
    ],
)
async def test_what_it_refuses(code: int, body: Any, said: str) -> None:
    _, one = events(code, body)
    with pytest.raises(Undeliverable, match=said) as raised:
        await one.deliver(to("opened"))
    await one.aclose()
    assert KEY not in raised.value.detail


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (401, {}),
        (403, {}),
        (404, {}),
        (400, {"errors": ["Length of 'routing_key' is incorrect (should be 32 characters)"]}),
        (400, {"errors": ["Invalid routing key"]}),
    ],
)
async def test_a_key_that_somebody_can_set_right_is_tried_again(code: int, body: Any) -> None:
    _, one = events(code, body)
    said = rf"refuses the key 'payments' of AUTOPILOT_PAGERDUTY_ROUTING_KEYS \({code}\): set a valid one"
    with pytest.raises(TryAgain, match=said) as raised:
        await one.deliver(to("opened"))
    await one.aclose()
    assert (raised.value.after_s, raised.value.ambiguous) == (300.0, False)
    assert KEY not in raised.value.detail


@pytest.mark.parametrize(("code", "ambiguous"), [(429, False), (500, True), (503, True)])
async def test_what_may_pass(code: int, ambiguous: bool) -> None:
    _, one = events(code, None, **{"Retry-After": "30"})
    with pytest.raises(TryAgain, match=f"PagerDuty answers {code}") as raised:
        await one.deliver(to("opened"))
    await one.aclose()
    assert (raised.value.after_s, raised.value.ambiguous) == (30.0, ambiguous)


async def test_a_key_that_was_taken_away() -> None:
    came, one = events()
    with pytest.raises(TryAgain, match="has no 'web': add web=<integration key>") as raised:
        await one.deliver(telling("opened", of_target="web"))
    await one.aclose()
    assert raised.value.after_s == 300.0
    assert came == []


def test_keys_are_read_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPILOT_PAGERDUTY_ROUTING_KEYS", f"payments={KEY}, web=R2=")
    settings = Settings()
    assert {name: key.get_secret_value() for name, key in settings.routing_keys.items()} == {
        "payments": KEY,
        "web": "R2=",
    }
    assert KEY not in repr(settings)
    monkeypatch.setenv("AUTOPILOT_PAGERDUTY_ROUTING_KEYS", f"payments {KEY}")
    with pytest.raises(ValidationError, match="write name=key") as raised:
        Settings()
    assert KEY not in str(raised.value)


def test_it_asks_for_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"no team of autopilot\.yaml has `pagerduty:`"):
        pagerduty.create(SystemClock(), AutopilotYaml())
    file = AutopilotYaml(teams={"payments": Team(pagerduty="payments"), "web": Team(pagerduty="web")})
    monkeypatch.setenv("AUTOPILOT_PAGERDUTY_ROUTING_KEYS", f"payments={KEY}")
    with pytest.raises(ValueError, match=r"has no web, which teams: of autopilot\.yaml names"):
        pagerduty.create(SystemClock(), file)
    monkeypatch.setenv("AUTOPILOT_PAGERDUTY_BASE_URL", "http://pagerduty.example")
    with pytest.raises(ValidationError, match="must begin with https://"):
        Settings()
