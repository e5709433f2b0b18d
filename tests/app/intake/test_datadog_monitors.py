"""What alerts at Datadog, asked of its API."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.intake._datadog_monitors import MOST_PAGES, PAGE, MonitorReader
from app.intake.base import Directory, Incoming, IntakeUnavailable, UnreadablePayload
from app.intake.datadog import Datadog, Settings
from collectors.datadog import Settings as Account
from graph.catalogue import Catalogue, Service

ACCOUNT = Account(api_key=SecretStr("a"), app_key=SecretStr("b"), site="datadoghq.eu")
DIRECTORY = Directory(Catalogue(services={name: Service() for name in ("payment-service", "checkout")}))
TRIGGERED = 1734686160
Answer = Callable[[httpx.Request], httpx.Response]


def group(status: str = "Alert", triggered: int = TRIGGERED, nodata: int = 0) -> dict[str, object]:
    """As ``state.groups`` has it."""
    return {
        "status": status,
        "last_triggered_ts": triggered,
        "last_resolved_ts": None,
        "last_nodata_ts": nodata,
        "last_notified_ts": triggered,
    }


def monitor(**changes: Any) -> dict[str, Any]:
    """A multi alert with one group that alerts and one that does not."""
    return {
        "id": 141878267,
        "name": "payment-service: error rate above 5 %",
        "type": "query alert",
        "query": "avg(last_5m):avg:error_rate_percent{*} by {service,env} > 5",
        "message": "More than 5 % of payments fail. @webhook-autopilot",
        "tags": ["team:payments", "monitor"],
        "priority": 1,
        "multi": True,
        "overall_state": "Alert",
        "options": {
            "thresholds": {"critical": 5.0},
            "notify_no_data": False,
            "silenced": {},
            "min_failure_duration": 0,
        },
        "state": {
            "groups": {"service:payment-service,env:production": group(), "service:checkout,env:qa": group("OK")}
        },
        "matching_downtimes": [],
        "deleted": None,
        "restricted_roles": None,
    } | changes


def simple(query: str, **changes: Any) -> dict[str, Any]:
    """A monitor without groups."""
    return monitor(query=query, multi=False, tags=[], state={"groups": {"*": group()}}, **changes)


def sender(answer: Answer) -> Datadog:
    return Datadog(Settings(), MonitorReader(ACCOUNT, httpx.MockTransport(answer)))


def having(*monitors: object) -> Datadog:
    """An organisation with these monitors, which gives them in pages and by id."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.headers["DD-API-KEY"], request.headers["DD-APPLICATION-KEY"]) == ("a", "b")
        assert (request.url.host, request.url.params["with_downtimes"]) == ("api.datadoghq.eu", "true")
        if request.url.path != "/api/v1/monitor":
            assert request.url.params["group_states"] == "all"
            wanted = int(request.url.path.rpartition("/")[2])
            found = [m for m in monitors if isinstance(m, dict) and m.get("id") == wanted]
            return httpx.Response(200, json=found[0]) if found else httpx.Response(404, json={"errors": ["Not found"]})
        assert request.url.params["group_states"] == "alert,warn,no data"
        page, size = int(request.url.params["page"]), int(request.url.params["page_size"])
        return httpx.Response(200, content=json.dumps(monitors[page * size : (page + 1) * size]))

    return sender(answer)


async def alerts(*monitors: object) -> list[Any]:
    """What is missed of an organisation with these monitors."""
    found = await having(*monitors).missed(DIRECTORY)
    assert found is not None
    return list(found.alerts)


async def test_an_alert_for_every_group_that_alerts() -> None:
    (alert,) = await alerts(monitor())
    at = datetime.fromtimestamp(TRIGGERED, UTC)
    assert (alert.source, alert.service, alert.environment) == ("datadog", "payment-service", "production")
    assert (alert.transition, alert.severity) == ("firing", "critical")
    assert (alert.occurred_at, alert.changed_at) == (at, at)
    assert alert.rule == "datadog:monitor:141878267"
    assert alert.fingerprint == "datadog:monitor:141878267:env:production,service:payment-service"
    assert alert.cycle_key == f"datadog:pull:141878267:env:production,service:payment-service:{TRIGGERED}"
    assert alert.resources == {"service": "payment-service", "env": "production"}
    assert alert.url == "https://app.datadoghq.eu/monitors/141878267"
    assert alert.title == "payment-service: error rate above 5 %"


@pytest.mark.parametrize(
    ("monitor_has", "scope", "title"),
    [
        (monitor(), "env:production, service:payment-service", "{env:production,service:payment-service}"),
        (monitor(state={"groups": {"host:db-1": group()}}, tags=["service:checkout"]), "host:db-1", "{host:db-1}"),
        (simple("avg(last_1m):avg:e{service:checkout} > 5"), "service:checkout", "{service:checkout}"),
        (simple("avg(last_1m):avg:e{service:checkout,env:qa} > 5"), "service:checkout,env:qa", ""),
        (simple("avg(last_1m):avg:a{service:checkout} / avg:b{service:checkout} > 5"), "service:checkout", ""),
        (simple("avg(last_1m):avg:e{*} > 5"), "*", ""),
        (simple("avg(last_1m):avg:e{!service:checkout} > 5"), "*", ""),
        (simple("avg(last_1m):avg:e{service:check* AND env:qa} > 5"), "*", ""),
        (simple('logs("status:error").index("*").rollup("count").last("5m") > 5'), "*", ""),
    ],
)
async def test_asked_or_told_the_fingerprint_is_the_same(monitor_has: dict[str, Any], scope: str, title: str) -> None:
    (asked,) = await alerts(monitor_has)
    payload = {
        "title": f"[Triggered{' on ' if title else ''}{title}] {monitor_has['name']}",
        "monitor_id": str(monitor_has["id"]),
        "scope": scope,
        "tags": ",".join(monitor_has["tags"]),
        "message": monitor_has["message"],
        "date": str(TRIGGERED * 1000),
    }
    (told,) = Datadog(Settings()).parse(Incoming({}, json.dumps(payload).encode()), DIRECTORY).alerts
    assert (asked.fingerprint, asked.rule, asked.service) == (told.fingerprint, told.rule, told.service)
    assert (asked.resources, asked.title, asked.text) == (told.resources, told.title, told.text)
    assert asked.changed_at == told.changed_at


@pytest.mark.parametrize(
    ("status", "priority", "severity"),
    [
        ("Alert", 1, "critical"),
        ("Alert", 3, "warning"),
        ("Alert", 5, "info"),
        ("Alert", None, "critical"),
        ("Warn", 1, "warning"),
    ],
)
async def test_severities(status: str, priority: int | None, severity: str) -> None:
    groups = {"groups": {"service:checkout": group(status)}}
    (alert,) = await alerts(monitor(overall_state=status, state=groups, priority=priority))
    assert (alert.transition, alert.severity) == ("firing", severity)


@pytest.mark.parametrize("options", [{"notify_no_data": True}, {"on_missing_data": "show_and_notify_no_data"}])
async def test_missing_data_is_an_alert_where_somebody_asked_to_be_told(options: dict[str, object]) -> None:
    lost = {"groups": {"service:checkout": group("No Data", triggered=0, nodata=TRIGGERED)}}
    (alert,) = await alerts(monitor(overall_state="No Data", state=lost, options=options))
    assert (alert.transition, alert.changed_at) == ("no_data", datetime.fromtimestamp(TRIGGERED, UTC))
    assert not await alerts(monitor(overall_state="No Data", state=lost))


@pytest.mark.parametrize(
    "muted",
    [
        {"options": {"silenced": {"*": None}}},
        {"options": {"silenced": {"service:payment-service,env:production": 1734690000}}},
        {"matching_downtimes": [{"id": 1, "scope": ["*"]}]},
        {"matching_downtimes": [{"id": 1, "scope": ["env:production", "team:payments"]}]},
        {"matching_downtimes": [{"id": 1, "scope": ["env:production, service:payment-service"], "end": None}]},
        {"draft_status": "draft"},
        {"overall_state": "OK"},
    ],
)
async def test_what_is_muted_is_left_out(muted: dict[str, Any]) -> None:
    assert not await alerts(monitor(**muted))


async def test_a_downtime_or_mute_of_other_groups_mutes_nothing_here() -> None:
    others = [{"id": 1, "scope": ["env:qa"]}, {"id": 2, "scope": ["env:production", "service:cart"]}]
    silenced = {"silenced": {"service:checkout,env:qa": None}}
    assert await alerts(monitor(matching_downtimes=others, options=silenced))


async def test_a_monitor_that_is_not_understood_does_not_cost_the_others() -> None:
    odd = [None, 7, {}, {"id": "x"}, monitor(state=[]), monitor(state={"groups": {"a:b": {"status": 7}}})]
    assert len(await alerts(*odd, monitor(), monitor(id=2, priority=None, options=None, state=None))) == 1


async def test_times_that_cannot_be_true() -> None:
    strange = {"groups": {"service:checkout": group(triggered=10**20), "service:cart": group(triggered=-5)}}
    for alert in await alerts(monitor(state=strange)):
        assert abs((alert.occurred_at - datetime.now(UTC)).total_seconds()) < 60
        assert alert.cycle_key.endswith(":0")


async def test_groups_without_a_service_are_left_out_and_told_of() -> None:
    nameless = monitor(name="x", message="y", state={"groups": {"*": group()}}, id=9)
    found = await having(nameless, monitor()).missed(DIRECTORY)
    assert found
    assert len(found.alerts) == 1
    assert found.note.startswith("1 groups of monitors left out: no service")
    with pytest.raises(UnreadablePayload, match="tag service:<name>"):
        await having(nameless).perform({"monitor_id": "9"}, DIRECTORY)


async def test_all_pages_are_read_and_no_more_than_enough() -> None:
    quiet = [monitor(id=n, overall_state="OK", state={"groups": {}}) for n in range(PAGE)]
    assert len(await alerts(*quiet, monitor())) == 1
    pages: list[str] = []

    def endless(request: httpx.Request) -> httpx.Response:
        pages.append(request.url.params["page"])
        return httpx.Response(200, json=quiet)

    found = await sender(endless).missed(DIRECTORY)
    assert found
    assert pages == [str(n) for n in range(MOST_PAGES)]


async def test_of_very_many_alerts_the_newest_are_taken() -> None:
    groups = {f"service:s{n}": group(triggered=TRIGGERED + n) for n in range(600)}
    found = await having(monitor(state={"groups": groups})).missed(DIRECTORY)
    assert found
    assert (len(found.alerts), found.alerts[-1].service) == (500, "s599")
    assert found.note == "600 groups alert; the 500 that began last are taken"


# --- one monitor ---


async def test_one_monitor_is_asked_for() -> None:
    parsed = await having(monitor()).perform({"monitor_id": "141878267"}, DIRECTORY)
    assert [alert.service for alert in parsed.alerts] == ["payment-service"]
    fine = having(monitor(overall_state="OK", state={"groups": {"*": group("OK")}}))
    parsed = await fine.perform({"monitor_id": "141878267"}, DIRECTORY)
    assert (parsed.alerts, parsed.note) == ((), "monitor 141878267 is OK at Datadog: nothing to do")
    muted = having(monitor(options={"silenced": {"*": None}}))
    assert "muted" in (await muted.perform({"monitor_id": "141878267"}, DIRECTORY)).note


def always(status: int, headers: dict[str, str] | None = None, content: bytes = b"{}") -> Datadog:
    return sender(lambda _: httpx.Response(status, headers=headers, content=content))


@pytest.mark.parametrize(
    ("status", "says"),
    [(404, "no such monitor"), (403, "monitors_read.*DATADOG_SITE is the wrong site"), (401, "401"), (400, "400")],
)
async def test_for_good(status: int, says: str) -> None:
    with pytest.raises(UnreadablePayload, match=says):
        await always(status).perform({"monitor_id": "1"}, DIRECTORY)
    with pytest.raises(UnreadablePayload):
        await always(status).missed(DIRECTORY)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_for_now(status: int) -> None:
    for headers in ({"X-RateLimit-Reset": "0"}, {"X-RateLimit-Reset": "3600"}, {"X-RateLimit-Reset": "soon"}, None):
        with pytest.raises(IntakeUnavailable):
            await always(status, headers).perform({"monitor_id": "1"}, DIRECTORY)


async def test_no_answer_is_for_now_too() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(IntakeUnavailable, match="ConnectError: check DATADOG_SITE"):
        await sender(lost).perform({"monitor_id": "1"}, DIRECTORY)


async def test_a_short_rate_limit_is_waited_for() -> None:
    answers = [httpx.Response(429, headers={"X-RateLimit-Reset": "0"}), httpx.Response(200, json=monitor())]
    parsed = await sender(lambda _: answers.pop(0)).perform({"monitor_id": "1"}, DIRECTORY)
    assert parsed.alerts


@pytest.mark.parametrize("content", [b"", b"<html>", b"[", b'{"errors":["x"]}', b"7"])
async def test_what_is_no_answer(content: bytes) -> None:
    with pytest.raises(UnreadablePayload, match="unexpected answer"):
        await always(200, content=content).missed(DIRECTORY)
    with pytest.raises(UnreadablePayload, match="unexpected answer"):
        await always(200, content=content).perform({"monitor_id": "1"}, DIRECTORY)
