"""What the Datadog collector asks before it reads rows: log counts, monitors; and what it compares with."""

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import JsonValue

from collectors.base import Edge, GapReason, Scope, SeriesRef, Status, Symptom, Target, Window

from .test_datadog import (
    BASELINE,
    COUNTS,
    EVENTS,
    INCIDENT,
    LOGS,
    METRICS,
    MONITORS,
    POINTS,
    RELATIONS,
    SPANS,
    T0,
    Datadog,
    always,
    begins,
    body,
    log,
    points,
    scope,
)

MINUTE = timedelta(minutes=1)
RULE = "/api/v1/monitor/77"
LAST_WEEK = Window(start=INCIDENT.start - timedelta(days=7), end=INCIDENT.end - timedelta(days=7))


@pytest.fixture
def datadog() -> Datadog:
    return Datadog()


def bucket(status: str, *lines: tuple[datetime, float], service: str | None = None) -> JsonValue:
    """As POST /api/v2/logs/analytics/aggregate answers for compute.type timeseries."""
    by: dict[str, JsonValue] = {"status": status}
    by |= {"service": service} if service else {}
    told: list[JsonValue] = [
        {"time": at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"), "value": value} for at, value in lines
    ]
    return {"by": by, "computes": {"c0": told}}


def counted(*buckets: JsonValue) -> JsonValue:
    return {"data": {"buckets": list(buckets)}, "meta": {"status": "done", "elapsed": 12}}


def by_metric(found: list[SeriesRef], component: str) -> dict[str, SeriesRef]:
    return {ref.metric: ref for ref in found if ref.component == component}


async def test_lines_are_counted_by_status_and_minute_for_all_services_at_once(datadog: Datadog) -> None:
    datadog.answers[COUNTS] = always(
        200,
        counted(
            bucket("error", (T0, 7.0), (T0 + 2 * MINUTE, 3.0), service="payment"),
            bucket("critical", (T0, 1.0), service="payment"),
            bucket("info", (T0 - 5 * MINUTE, 40.0), service="cart-api"),
        ),
    )
    found = await datadog.collector().collect(
        scope(Target(service="payment"), Target(service="cart", datadog_tags=("service:cart-api",), hops=1))
    )
    [request] = datadog.to(COUNTS)  # the baseline ends where the incident begins: one question
    asked = body(request)
    assert asked["filter"] == {
        "query": "((service:payment) OR (service:cart-api))",
        "from": BASELINE.start.isoformat(),
        "to": INCIDENT.end.isoformat(),
    }
    assert asked["group_by"] == [{"facet": "status", "limit": 10}, {"facet": "service", "limit": 2}]
    assert asked["compute"] == [{"aggregation": "count", "type": "timeseries", "interval": "1m"}]
    series = {(one.ref.component, one.ref.metric): one for one in found.series}
    errors = series["payment", "logs.error"]
    assert (len(errors.values), errors.epoch_s[0]) == (75, BASELINE.start.timestamp())
    assert errors.values[60:64] == (8.0, 0.0, 3.0, 0.0)  # a minute without lines counts 0
    assert sum(series["cart", "logs.info"].values) == 40.0
    [query] = [query for query in found.queries if query.text.startswith("count by status: ")]
    assert str(query.link).startswith("https://app.datadoghq.com/logs/analytics?query=%28%28service%3Apayment%29+OR")


async def test_what_was_not_logged_is_not_searched_for(datadog: Datadog) -> None:
    datadog.answers[COUNTS] = always(200, counted(bucket("info", (T0, 5.0))))
    await datadog.collector().collect(scope())
    [request] = datadog.to(LOGS)
    assert " -status:" in str(body(request)["filter"])
    assert begins(request) == T0


async def test_a_service_that_logs_nothing_is_a_gap(datadog: Datadog) -> None:
    datadog.answers[COUNTS] = always(200, counted())
    found = await datadog.collector().collect(scope())
    assert not datadog.to(LOGS)
    assert not found.series
    [gap] = [gap for gap in found.gaps if "log line" in gap.detail]
    assert (gap.reason, gap.mend) == (GapReason.EMPTY, "set datadog_tags in the catalogue")


async def test_many_lines_are_sampled_from_all_over_the_window_and_the_rest_is_told(datadog: Datadog) -> None:
    datadog.answers[COUNTS] = always(200, counted(bucket("error", (T0, 90_000.0)), bucket("info", (T0, 9_000.0))))

    def full(request: httpx.Request) -> httpx.Response:
        page = body(request)["page"]
        assert isinstance(page, dict)
        rows = [log("x", at=begins(request)) for _ in range(int(str(page["limit"])))]
        return httpx.Response(200, json={"data": rows, "meta": {"page": {"after": "more"}}})

    datadog.answers[LOGS] = full
    found = await datadog.collector().collect(scope())
    assert sum(line.count for line in found.logs) == 1000 + 2 * 250 + 3 * 166
    assert any("about 90,000 warnings and errors; 1,500 of them were read" in gap.detail for gap in found.gaps)
    others = [begins(request) for request in datadog.to(LOGS) if " -status:" in str(body(request)["filter"])]
    assert others == [T0, T0 + 5 * MINUTE, T0 + 10 * MINUTE]


async def test_counts_that_cannot_be_true_are_dropped_and_counted(datadog: Datadog) -> None:
    odd: JsonValue = {
        "by": {"status": "error"},
        "computes": {"c0": [{"time": "soon", "value": 1}, {"time": "2031-01-01T00:00:00Z", "value": 4}, {"value": -1}]},
    }
    datadog.answers[COUNTS] = always(
        200, counted(odd, bucket("error", (T0, 2.0)), {"by": [], "computes": {}}, {"computes": {"c0": 5}})
    )
    found = await datadog.collector().collect(scope())
    [errors] = [one for one in found.series if one.ref.metric == "logs.error"]
    assert sum(errors.values) == 2.0
    assert any("5 rows were not understood: count by status: service:payment" in gap.detail for gap in found.gaps)


async def test_uncountable_logs_are_read_all_the_same(datadog: Datadog) -> None:
    datadog.answers[COUNTS] = always(500)
    datadog.answers[LOGS] = lambda request: httpx.Response(200, json={"data": [log("x", at=begins(request))]})
    found = await datadog.collector().collect(scope())
    assert sum(line.count for line in found.logs) == 4
    assert any(COUNTS in gap.detail for gap in found.gaps)


async def test_lines_counted_in_part_are_not_taken_for_silence(datadog: Datadog) -> None:
    partly: JsonValue = {"data": {"buckets": [bucket("info", (T0, 5.0))]}, "meta": {"status": "timeout"}}
    datadog.answers[COUNTS] = always(200, partly)
    found = await datadog.collector().collect(scope())
    assert not found.series  # a minute that was not counted is no minute without lines
    assert any("-status" not in str(body(request)["filter"]) for request in datadog.to(LOGS))
    assert [gap.reason for gap in found.gaps if "count" in gap.detail] == [GapReason.TRUNCATED]
    assert not any("no log line" in gap.detail for gap in found.gaps)


async def test_what_was_counted_before_the_incident_only_says_nothing_of_it(datadog: Datadog) -> None:
    def then_refused(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if begins(request) < T0 else 400, json=counted())

    datadog.answers[COUNTS] = then_refused
    long_before = Window(start=BASELINE.start - timedelta(hours=9), end=BASELINE.start - timedelta(hours=8))
    await datadog.collector().collect(scope().model_copy(update={"baseline": (long_before,)}))
    assert {begins(request) for request in datadog.to(LOGS)} >= {T0}


async def test_services_that_log_nothing_are_one_gap(datadog: Datadog) -> None:
    datadog.answers[COUNTS] = always(200, counted(bucket("info", (T0, 5.0), service="payment")))
    names = ("payment", "redis", "orders-db")
    found = await datadog.collector().collect(scope(*(Target(service=name) for name in names)))
    [gap] = [gap for gap in found.gaps if "log line" in gap.detail]
    assert gap.detail == "no log line is tagged service:redis, service:orders-db"


async def test_more_events_monitors_or_relations_than_are_read_is_told(datadog: Datadog) -> None:
    event: JsonValue = {"attributes": {"timestamp": T0.isoformat(), "tags": []}}
    datadog.answers[EVENTS] = always(200, {"data": [event] * 1000, "meta": {"page": {"after": "more"}}})
    datadog.answers[MONITORS] = always(200, [{"id": 1}] * 100)
    relation: JsonValue = {"attributes": {"from": {"name": "a"}, "to": {"name": "b"}}}
    datadog.answers[RELATIONS] = always(200, {"data": [relation] * 100})
    found = await datadog.collector().collect(scope())
    told = {gap.detail for gap in found.gaps if gap.reason == GapReason.TRUNCATED}
    assert told == {
        "Datadog has more than 1,000 events of the last day; older ones were not read",
        "only 300 monitors tagged service:payment were read",
        "the software catalogue has more than 2,000 relations",
    }


async def test_a_service_without_a_tag_of_its_own_is_counted_by_itself(datadog: Datadog) -> None:
    datadog.answers[COUNTS] = always(200, counted(bucket("info", (T0, 5.0))))
    await datadog.collector().collect(
        scope(Target(service="payment"), Target(service="mainframe", datadog_tags=("team:host", "env:prod"), hops=1))
    )
    queries = [str(body(request)["filter"]) for request in datadog.to(COUNTS)]
    assert [("service:payment" in query, "team:host env:prod" in query) for query in queries] == [
        (True, False),
        (False, True),
    ]


async def test_counts_are_measured_again_by_the_same_question(datadog: Datadog) -> None:
    name = 'pay" OR *:* \\'
    datadog.answers[COUNTS] = always(200, counted(bucket("error", (T0, 2.0))))
    collector = datadog.collector()
    found = await collector.collect(scope(Target(service=name)))
    refs = by_metric([one.ref for one in found.series], name)
    asked = body(datadog.to(COUNTS)[0])["filter"]
    later = Window(start=INCIDENT.end + timedelta(seconds=10), end=INCIDENT.end + timedelta(seconds=190))
    datadog.answers[COUNTS] = always(200, counted(bucket("warn", (INCIDENT.end + MINUTE, 4.0))))
    again = await collector.measure([refs["logs.error"], refs["logs.warn"]], later)
    assert [(one.ref, one.values) for one in again] == [
        (refs["logs.error"], (0.0, 0.0)),
        (refs["logs.warn"], (4.0, 0.0)),
    ]
    again_asked = body(datadog.to(COUNTS)[-1])["filter"]
    assert isinstance(asked, dict)
    assert isinstance(again_asked, dict)
    assert again_asked["query"] == asked["query"] == 'service:"pay\\" OR *:* \\\\"'
    datadog.answers[COUNTS] = always(200, counted())
    assert await collector.measure([refs["logs.error"]], later) == []  # silence is no recovery


async def test_other_days_are_read_for_metrics_and_counts_only(datadog: Datadog) -> None:
    datadog.answers[METRICS] = always(200, {"data": [{"id": "pool.active"}]})

    def read(request: httpx.Request) -> httpx.Response:
        start = json.loads(request.content)["data"]["attributes"]["from"] / 1000
        return httpx.Response(200, json=points([{"query_index": 0}], [[9.0]], at=datetime.fromtimestamp(start, UTC)))

    datadog.answers[POINTS] = read
    datadog.answers[COUNTS] = lambda request: httpx.Response(200, json=counted(bucket("error", (begins(request), 2.0))))
    compared = scope().model_copy(update={"seasonal": (LAST_WEEK,)})
    found = await datadog.collector().collect(compared)
    first = LAST_WEEK.start.timestamp()
    pool, errors = (next(s for s in found.series if s.ref.metric == name) for name in ("pool.active", "logs.error"))
    assert pool.epoch_s == (first, BASELINE.start.timestamp())  # one series of all windows
    assert (len(errors.values), errors.values[0], errors.values[15]) == (15 + 75, 2.0, 2.0)
    rows_of = [request.content.decode() for path in (LOGS, SPANS) for request in datadog.to(path)]
    assert rows_of
    assert not [asked for asked in rows_of if LAST_WEEK.start.isoformat() in asked]


# --- monitors -----------------------------------------------------------------------------------------------


def monitor(
    identity: int, state: str, query: str = "", groups: dict[str, JsonValue] | None = None, **more: JsonValue
) -> dict[str, JsonValue]:
    """As GET /api/v1/monitor answers, null where nothing is set."""
    return {
        "id": identity,
        "name": f"monitor {identity}",
        "type": "query alert",
        "query": query or "avg(last_5m):avg:latency{service:payment} > 2",
        "overall_state": state,
        "options": {"silenced": {}, "thresholds": {"critical": 2.0}},
        "state": {"groups": groups or {}},
        "tags": ["service:payment"],
        "deleted": None,
        "priority": None,
        **more,
    }


def alerted(resources: dict[str, str] | None = None, rule: str = "datadog:monitor:77") -> Scope:
    symptom = Symptom(source="datadog", rule=rule, resources=resources or {})
    return scope().model_copy(update={"symptom": symptom})


async def asked_for(datadog: Datadog, query: str, resources: dict[str, str] | None = None) -> tuple[JsonValue, ...]:
    """The queries and the formula that a monitor's query becomes."""
    datadog.answers[RULE] = always(200, monitor(77, "Alert", query))
    datadog.answers[POINTS] = always(200, points([{"query_index": 0}], [[3.0, 4.0]]))
    await datadog.collector().collect(alerted(resources))
    attributes = json.loads(datadog.to(POINTS)[-1].content)["data"]["attributes"]
    return (*(asked["query"] for asked in attributes["queries"]), attributes["formulas"][0]["formula"])


async def test_the_alerts_own_metric_is_read_and_its_monitors_state(datadog: Datadog) -> None:
    triggered: JsonValue = {"status": "Alert", "last_triggered_ts": int(T0.timestamp()), "name": "*"}
    datadog.answers[RULE] = always(200, monitor(77, "Alert", groups={"*": triggered}))
    datadog.answers[POINTS] = always(200, points([{"query_index": 0}], [[3.0, 4.0]]))
    found = await datadog.collector().collect(alerted())
    [series] = found.series
    assert (series.ref.component, series.ref.metric, series.ref.query) == (
        "payment",
        "latency",
        "avg:latency{service:payment}",
    )
    [status] = found.statuses
    assert (status.name, status.observed, status.expected) == ("datadog.monitor:monitor 77", 1.0, None)
    assert status.detail.startswith("Alert, since 2024-12-20 09:00 UTC")
    assert datadog.to(RULE)[0].url.params["group_states"] == "all"
    [query] = [query for query in found.queries if query.text.startswith("monitor 77")]
    assert query.link == "https://app.datadoghq.com/monitors/77"


async def test_of_a_monitors_groups_the_one_that_alerted_is_read(datadog: Datadog) -> None:
    query = "avg(last_5m):avg:cpu{service:payment} by {host} > 90"
    assert await asked_for(datadog, query, {"host": "ip-10-0-1-7}"}) == (
        "avg:cpu{service:payment,host:ip-10-0-1-7_}",
        "q0",
    )
    query = "max(last_5m):max:cpu{service:payment OR team:pay} by {host,az} >= 90"
    assert await asked_for(datadog, query, {"host": "h"}) == ("max:cpu{(service:payment OR team:pay) AND host:h}", "q0")


async def test_a_monitor_of_several_metrics_is_read_by_its_formula(datadog: Datadog) -> None:
    query = "sum(last_10m):sum:errors{service:pay}.as_count() / sum:hits{service:pay}.as_count() * 100 > 5.5"
    assert await asked_for(datadog, query) == (
        "sum:errors{service:pay}.as_count()",
        "sum:hits{service:pay}.as_count()",
        "q0 / q1 * 100",
    )
    query = "avg(last_4h):anomalies(avg:latency{*}, 'basic', 2, direction='both') >= 1"
    assert await asked_for(datadog, query) == ("avg:latency{*}", "anomalies(q0, 'basic', 2, direction='both')")
    query = "change(avg(last_5m),last_1h):avg:latency{*} > 1e3"
    assert await asked_for(datadog, query) == ("avg:latency{*}", "q0")


async def test_a_monitor_that_watches_no_metric_is_told(datadog: Datadog) -> None:
    datadog.answers[RULE] = always(
        200, monitor(77, "Alert", 'logs("status:error service:x").index("*").rollup("count").last("5m") > 10')
    )
    found = await datadog.collector().collect(alerted())
    assert not datadog.to(POINTS)
    assert any(gap.detail.startswith("monitor 77 watches no metric") for gap in found.gaps)


@pytest.mark.parametrize("rule", ["", "alarm", "datadog:monitor:../../api/v1/user", "datadog:monitor:77?x=1"])
async def test_only_a_monitor_of_datadog_is_asked_for(datadog: Datadog, rule: str) -> None:
    await datadog.collector().collect(alerted(rule=rule))
    assert not [request for request in datadog.requests if request.url.path.startswith(f"{MONITORS}/")]


async def test_what_else_alerts_on_the_services(datadog: Datadog) -> None:
    long_ago: dict[str, JsonValue] = {"status": "Alert", "last_triggered_ts": int((T0 - timedelta(days=9)).timestamp())}
    just_now: JsonValue = {"status": "Alert", "last_triggered_ts": int((T0 + MINUTE).timestamp())}
    rows: list[JsonValue] = [
        monitor(1, "Alert", groups={"host:a": just_now, "host:b": long_ago | {"status": "OK"}}),
        monitor(2, "Alert", groups={"*": long_ago}),
        monitor(3, "Warn", options={"silenced": {"*": None}}),
        monitor(4, "OK") | {"state": None},
        monitor(5, "No Data"),
        {"id": "none"},
    ]
    datadog.answers[MONITORS] = always(200, rows)
    needed = Target(service="ledger", hops=1, datadog_tags=("env:prod", "service:pay-api"))
    found = await datadog.collector().collect(scope(needed))
    said: dict[str, Status] = {
        status.name.removeprefix("datadog.monitor:monitor "): status for status in found.statuses
    }
    assert {name: (status.observed, status.expected) for name, status in said.items()} == {
        "1": (1.0, 0.0),
        "2": (1.0, None),  # it has alerted for days: no news
        "3": (0.5, None),  # somebody said that it does not matter
        "4": (0.0, 0.0),
        "5": (0.0, None),
    }
    assert {status.component for status in said.values()} == {"ledger"}
    params = datadog.to(MONITORS)[0].url.params
    assert (params["monitor_tags"], params["group_states"]) == ("service:pay-api", "alert,warn,no data")
    assert any(gap.detail == "1 rows were not understood: tag:(service:pay-api)" for gap in found.gaps)


async def test_that_the_alerted_service_and_its_callers_alert_is_the_symptom_again(datadog: Datadog) -> None:
    datadog.answers[MONITORS] = always(200, [monitor(1, "Alert")])
    for service in ("payment", "cart"):
        asked = scope(Target(service=service)).model_copy(
            update={"edges": (Edge(caller="cart", callee="payment", source="catalogue"),)}
        )
        found = await datadog.collector().collect(asked)
        assert [(s.observed, s.expected) for s in found.statuses] == [(1.0, None)]


async def test_monitors_come_page_by_page_and_are_told_once(datadog: Datadog) -> None:
    def page(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        rows = [monitor(number * 1000 + n, "OK") for n in range(100 if number == 0 else 3)]
        return httpx.Response(200, json=rows)

    datadog.answers[MONITORS] = page
    found = await datadog.collector().collect(scope(Target(service="payment"), Target(service="cart", hops=1)))
    assert len(found.statuses) == 103  # the second service's are the same
    assert [request.url.params["page"] for request in datadog.to(MONITORS)] == ["0", "1", "0", "1"]
