"""The Datadog collector against answers of the documented shapes."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import JsonValue, SecretStr

from collectors.base import CollectorError, Declared, Forbidden, GapReason, RateLimited, Scope, Target, Window
from collectors.datadog import DatadogCollector, Settings, create

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=15))
BASELINE = Window(start=T0 - timedelta(hours=1), end=T0)
LOGS, SPANS = "/api/v2/logs/events/search", "/api/v2/spans/events/search"
METRICS, POINTS = "/api/v2/metrics", "/api/v2/query/timeseries"
EVENTS, DEPENDENCIES = "/api/v2/events/search", "/api/v1/service_dependencies"
COUNTS, RELATIONS, MONITORS = "/api/v2/logs/analytics/aggregate", "/api/v2/catalog/relation", "/api/v1/monitor"
EVERYTHING = (LOGS, COUNTS, SPANS, METRICS, EVENTS, DEPENDENCIES, RELATIONS, MONITORS)

Answer = Callable[[httpx.Request], httpx.Response]


class FrozenClock:
    """Stands still."""

    def now(self) -> datetime:
        """Quarter past nine."""
        return INCIDENT.end


def scope(*targets: Target) -> Scope:
    return Scope(
        service="payment",
        occurred_at=T0,
        incident=INCIDENT,
        baseline=(BASELINE,),
        targets=targets or (Target(service="payment"),),
    )


def body(request: httpx.Request) -> dict[str, JsonValue]:
    content: dict[str, JsonValue] = json.loads(request.content)
    return content


class Datadog:
    """Answers per path; what is not told is answered with nothing."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, Answer] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(request.url.path)
        return answer(request) if answer else httpx.Response(200, json={})

    def to(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path == path]

    def collector(self, site: str = "datadoghq.com", base_url: str | None = None) -> DatadogCollector:
        keys = Settings(api_key=SecretStr("a"), app_key=SecretStr("b"), site=site, base_url=base_url)
        return DatadogCollector(FrozenClock(), keys, httpx.MockTransport(self))


@pytest.fixture
def datadog() -> Datadog:
    return Datadog()


def log(message: str, status: str = "error", at: datetime = T0) -> dict[str, JsonValue]:
    attributes: dict[str, JsonValue] = {
        "timestamp": at.isoformat(),
        "service": "payment",
        "status": status,
        "message": message,
        "host": "ip-10-0-0-1",
        "attributes": {"dd": {"trace_id": "77", "span_id": "8"}, "logger": {"name": "HikariPool"}},
    }
    return {"id": message, "type": "log", "attributes": attributes}


def always(status: int, content: JsonValue = None, headers: dict[str, str] | None = None) -> Answer:
    return lambda _: httpx.Response(status, json=content, headers=headers)


async def test_logs_are_paged_and_normalised(datadog: Datadog) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        asked = body(request)
        page, wanted = asked["page"], asked["filter"]
        assert isinstance(page, dict)
        assert isinstance(wanted, dict)
        if wanted["from"] != INCIDENT.start.isoformat() or str(wanted["query"]).count("-status"):
            return httpx.Response(200, json={"data": []})
        if page.get("cursor") == "next":
            return httpx.Response(200, json={"data": [log("second", "warn")]})
        return httpx.Response(200, json={"data": [log("first")], "meta": {"page": {"after": "next"}}})

    datadog.answers[LOGS] = answer
    found = await datadog.collector().collect(scope())
    assert [(line.message, line.level) for line in found.logs] == [("first", "error"), ("second", "warning")]
    first = found.logs[0]
    assert (first.component, first.logger, first.trace_id, first.span_id) == ("payment", "HikariPool", "77", "8")
    query = next(q for q in found.queries if q.rows == 2)
    assert not query.truncated
    assert query.link == (
        "https://app.datadoghq.com/logs?query=service%3Apayment+status%3A%28warn+OR+error+OR+critical+OR+alert"
        "+OR+emergency%29&from_ts=1734685200000&to_ts=1734686100000&live=false"
    )


def begins(request: httpx.Request) -> datetime:
    """Where the window of a search begins."""
    wanted = body(request)["filter"]
    assert isinstance(wanted, dict)
    return datetime.fromisoformat(str(wanted["from"]))


def half_each(request: httpx.Request) -> httpx.Response:
    """As many rows as are asked for, half of them as the window begins, half nine minutes later; and a next page."""
    asked = body(request)
    page = asked["page"]
    assert isinstance(page, dict)
    minutes = (0, 0) if asked["sort"] == "timestamp" else (0, 9)
    limit = int(str(page["limit"]))
    rows = [log(str(asked["sort"]), at=begins(request) + timedelta(minutes=minutes[i % 2])) for i in range(limit)]
    return httpx.Response(200, json={"data": rows, "meta": {"page": {"after": "more"}}})


async def test_an_endless_log_stops_at_the_budget_and_is_read_beyond_its_onset(datadog: Datadog) -> None:
    datadog.answers[LOGS] = half_each
    found = await datadog.collector().collect(scope())
    assert [line.message for line in found.logs].count("timestamp") == 1000
    # the rest of the incident is searched in two halves of less than nine minutes each: half of their rows lie outside
    assert len(found.logs) == (1000 + 125 + 125 + 500) + (1000 + 500)
    assert [q.truncated for q in found.queries if q.rows in (250, 500, 1000)] == [True] * 6
    assert sum("125 rows were not understood" in gap.detail for gap in found.gaps) == 1


async def test_a_search_that_timed_out_is_a_gap_and_its_rows_are_kept(datadog: Datadog) -> None:
    datadog.answers[LOGS] = lambda request: httpx.Response(
        200, json={"data": [log("x", at=begins(request))], "meta": {"status": "timeout"}}
    )
    found = await datadog.collector().collect(scope())
    assert len(found.logs) == 4
    assert {gap.reason for gap in found.gaps} >= {GapReason.TRUNCATED}


async def test_malformed_rows_do_not_cost_the_others(datadog: Datadog) -> None:
    datadog.answers[LOGS] = always(200, {"data": [{"attributes": {"message": "no time"}}, log("good")]})
    found = await datadog.collector().collect(scope())
    assert {line.message for line in found.logs} == {"good"}
    assert any("1 rows were not understood" in gap.detail for gap in found.gaps)


async def test_user_text_in_tags_is_quoted(datadog: Datadog) -> None:
    await datadog.collector().collect(scope(Target(service='pay" OR *:* \\')))
    query = body(datadog.to(LOGS)[0])["filter"]
    assert isinstance(query, dict)
    assert str(query["query"]).startswith('service:"pay\\" OR *:* \\\\" status:(')


HALF_MINUTE = timedelta(seconds=30)


def points(
    series: list[dict[str, JsonValue]], values: list[list[float | None]], at: datetime = T0
) -> dict[str, JsonValue]:
    times: list[JsonValue] = [int(at.timestamp()) * 1000 + 30000 * i for i in range(len(values[0]))]
    rows: list[JsonValue] = [list(row) for row in values]
    heads: list[JsonValue] = list(series)
    return {"data": {"type": "timeseries_response", "attributes": {"series": heads, "times": times, "values": rows}}}


async def test_metrics_of_one_service(datadog: Datadog) -> None:
    names: list[JsonValue] = [
        {"id": "system.cpu.user", "type": "metrics"},
        {"id": "trace.http.request.errors", "type": "metrics"},
        {"id": "payment.latency_p95_ms", "type": "metrics"},
        {"id": "bad}name", "type": "metrics"},
    ]
    datadog.answers[METRICS] = always(200, {"data": names})
    datadog.answers[POINTS] = always(
        200,
        points(
            [
                {"query_index": 0, "unit": None},
                {"query_index": 1, "unit": None},
                {"query_index": 2, "unit": [{"name": "percent", "short_name": "%"}, None]},
            ],
            [[1.0, None, 3.0], [None, None, None], [0.5, 0.6, 0.7]],
        ),
    )
    found = await datadog.collector().collect(scope())
    assert datadog.to(METRICS)[0].url.params["filter[tags]"] == "service:payment"
    latency, cpu = found.series
    assert latency.ref.query == "max:payment.latency_p95_ms{service:payment}"
    assert (latency.ref.statistic, latency.ref.unit) == ("p95", "ms")
    assert (latency.epoch_s, latency.values) == ((1734685200.0, 1734685260.0), (1.0, 3.0))
    assert (cpu.ref.metric, cpu.ref.unit) == ("system.cpu.user", "%")
    [request] = datadog.to(POINTS)  # baseline and incident touch: one range
    data = body(request)["data"]
    assert isinstance(data, dict)
    asked = data["attributes"]
    assert isinstance(asked, dict)
    assert (asked["from"], asked["to"]) == (1734681600000, 1734686100000)
    assert "sum:trace.http.request.errors{service:payment}.as_count()" in json.dumps(asked["queries"])
    errors = next(q for q in found.queries if "request.errors" in q.text)
    assert errors.rows == 0


async def test_one_bad_metric_does_not_cost_its_batch(datadog: Datadog) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        queries = [q for q in ("a.bad", "b.good", "c.good") if q in request.content.decode()]
        if "a.bad" in queries:
            return httpx.Response(400, json={"errors": ["no such aggregation"]})
        return httpx.Response(
            200, json=points([{"query_index": i} for i in range(len(queries))], [[1.0]] * len(queries))
        )

    datadog.answers[METRICS] = always(200, {"data": [{"id": "a.bad"}, {"id": "b.good"}, {"id": "c.good"}]})
    datadog.answers[POINTS] = answer
    found = await datadog.collector().collect(scope())
    assert [series.ref.metric for series in found.series] == ["b.good", "c.good"]
    assert any("a.bad" in gap.detail for gap in found.gaps)


async def test_errors_that_come_as_200_are_errors(datadog: Datadog) -> None:
    datadog.answers[DEPENDENCIES] = always(200, {"status": "error", "error": "bad env"})
    found = await datadog.collector().collect(scope())
    assert any("bad env" in gap.detail for gap in found.gaps)


async def test_measuring_repeats_the_query_and_keeps_the_ref(datadog: Datadog) -> None:
    datadog.answers[METRICS] = always(200, {"data": [{"id": "pool.active"}, {"id": "pool.idle"}]})
    datadog.answers[POINTS] = always(200, points([{"query_index": 0}, {"query_index": 1}], [[9.0], [1.0]]))
    collector = datadog.collector()
    found = await collector.collect(scope())
    refs = [series.ref for series in found.series]
    datadog.answers[POINTS] = always(200, points([{"query_index": 1}], [[5.0]], at=INCIDENT.end + 2 * HALF_MINUTE))
    window = Window(start=INCIDENT.end + timedelta(seconds=10), end=INCIDENT.end + timedelta(seconds=130))
    [again] = await collector.measure(refs, window)
    assert (again.ref, again.values) == (refs[1], (5.0,))
    asked = json.loads(datadog.to(POINTS)[-1].content)["data"]["attributes"]
    assert (asked["from"], asked["to"]) == (1734686130000, 1734686220000)  # whole intervals only


async def test_spans_and_their_errors(datadog: Datadog) -> None:
    attributes: dict[str, JsonValue] = {
        "trace_id": "1",
        "span_id": "2",
        "parent_id": "0",
        "resource_name": "POST /charge",
        "start_timestamp": "2024-12-20T09:01:00Z",
        "end_timestamp": "2024-12-20T09:01:01.5Z",
        "type": "http",
        "custom": {"error": {"type": "PoolTimeout"}, "peer.service": "postgres"},
    }
    datadog.answers[SPANS] = always(200, {"data": [{"id": "x", "type": "spans", "attributes": attributes}]})
    found = await datadog.collector().collect(scope())
    [span] = found.spans  # the searches overlap; a span is taken once
    assert (span.error, span.peer, span.kind, span.parent_id) == ("PoolTimeout", "postgres", "client", "")
    assert span.duration_ms == 1500
    data = body(datadog.to(SPANS)[0])["data"]
    assert isinstance(data, dict)
    assert data["type"] == "search_request"


async def test_events_become_changes_of_their_service(datadog: Datadog) -> None:
    event: JsonValue = {
        "id": "e",
        "attributes": {
            "timestamp": "2024-12-20T08:40:00Z",
            "message": "x",
            "tags": ["service:payment", "version:1.4.2", "author:kim"],
            "attributes": {"title": "Deployed payment 1.4.2", "source_type_name": "ecs"},
        },
    }
    other: JsonValue = {"attributes": {"timestamp": "2024-12-20T08:40:00Z", "tags": ["service:search"]}}
    datadog.answers[EVENTS] = always(200, {"data": [event, other]})
    found = await datadog.collector().collect(scope())
    [change] = found.changes
    assert (change.component, change.kind, change.version, change.author) == ("payment", "deploy", "1.4.2", "kim")


async def test_dependencies_that_touch_the_scope(datadog: Datadog) -> None:
    datadog.answers[DEPENDENCIES] = always(
        200, {"checkout": {"calls": ["payment"]}, "payment": {"calls": ["db"]}, "a": {"calls": ["b"]}}
    )
    found = await datadog.collector().collect(scope())
    assert [(e.caller, e.callee) for e in found.edges] == [("checkout", "payment"), ("payment", "db")]


async def test_a_missing_scope_is_a_gap_that_names_it(datadog: Datadog) -> None:
    datadog.answers[LOGS] = always(403, {"errors": ["Forbidden"]})
    datadog.answers[DEPENDENCIES] = always(200, {"payment": {"calls": ["db"]}})
    found = await datadog.collector().collect(scope(Target(service="payment"), Target(service="cart", hops=1)))
    [gap] = [gap for gap in found.gaps if gap.reason == GapReason.FORBIDDEN]
    assert "logs_read_data" in gap.mend
    assert "wrong site" in gap.mend
    assert found.edges


async def test_nothing_readable_raises(datadog: Datadog) -> None:
    for path in EVERYTHING:
        datadog.answers[path] = always(403)
    with pytest.raises(Forbidden):
        await datadog.collector().collect(scope())


async def test_a_short_rate_limit_is_waited_for(datadog: Datadog) -> None:
    replies = [httpx.Response(429, headers={"X-RateLimit-Reset": "0"})]
    datadog.answers[DEPENDENCIES] = lambda _: (
        replies.pop() if replies else httpx.Response(200, json={"payment": {"calls": ["db"]}})
    )
    found = await datadog.collector().collect(scope())
    assert found.edges
    assert not [gap for gap in found.gaps if gap.reason == GapReason.RATE_LIMITED]


async def test_a_long_rate_limit_is_a_gap(datadog: Datadog) -> None:
    datadog.answers[EVENTS] = always(429, {}, {"X-RateLimit-Reset": "3000", "X-RateLimit-Name": "events"})
    found = await datadog.collector().collect(scope())
    [gap] = [gap for gap in found.gaps if gap.reason == GapReason.RATE_LIMITED]
    assert "3000 s" in gap.detail
    assert len(datadog.to(EVENTS)) == 1


async def test_a_rate_limited_measurement_raises(datadog: Datadog) -> None:
    datadog.answers[METRICS] = always(200, {"data": [{"id": "pool.active"}]})
    datadog.answers[POINTS] = always(200, points([{"query_index": 0}], [[9.0]]))
    collector = datadog.collector()
    [series] = (await collector.collect(scope())).series
    datadog.answers[POINTS] = always(429, {})
    with pytest.raises(RateLimited):
        await collector.measure([series.ref], INCIDENT)


async def test_a_server_error_is_tried_once_more(datadog: Datadog) -> None:
    replies = [httpx.Response(502)]
    datadog.answers[DEPENDENCIES] = lambda _: (
        replies.pop() if replies else httpx.Response(200, json={"payment": {"calls": ["db"]}})
    )
    assert (await datadog.collector().collect(scope())).edges


async def test_a_server_that_stays_down_is_a_gap(datadog: Datadog) -> None:
    datadog.answers[EVENTS] = always(503)
    found = await datadog.collector().collect(scope())
    assert [gap.reason for gap in found.gaps if "events" in gap.detail] == [GapReason.UNREACHABLE]
    assert len(datadog.to(EVENTS)) == 2


async def test_html_instead_of_json_is_a_gap_not_a_crash(datadog: Datadog) -> None:
    for path in EVERYTHING:
        datadog.answers[path] = lambda _: httpx.Response(200, text="<html>login</html>")
    with pytest.raises(CollectorError, match="no JSON"):
        await datadog.collector().collect(scope())


@pytest.mark.parametrize(
    ("settings", "link"),
    [
        ({"site": "us3.datadoghq.com"}, "https://us3.datadoghq.com/"),
        ({"site": "datadoghq.eu"}, "https://app.datadoghq.eu/"),
        ({"base_url": "http://127.0.0.1:9"}, None),
    ],
)
async def test_links_lead_to_the_site(datadog: Datadog, settings: dict[str, str], link: str | None) -> None:
    found = await datadog.collector(**settings).collect(scope())
    shown = next(query.link for query in found.queries if "status:" in query.text)
    assert shown is None if link is None else str(shown).startswith(link)


def test_missing_keys_are_named() -> None:
    with pytest.raises(ValueError, match="DATADOG_API_KEY"):
        create(FrozenClock(), Declared())
