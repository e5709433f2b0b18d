"""Whole traces, versions and the software catalogue by the Datadog collector; its budget; what doctor asks."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from pydantic import JsonValue, SecretStr

from collectors.base import Change, Edge, GapReason, Scope, Span, Target
from collectors.datadog import DatadogCollector, Settings

from .test_datadog import (
    BASELINE,
    COUNTS,
    EVENTS,
    EVERYTHING,
    INCIDENT,
    LOGS,
    METRICS,
    MONITORS,
    POINTS,
    RELATIONS,
    SPANS,
    T0,
    Answer,
    Datadog,
    FrozenClock,
    always,
    begins,
    body,
    log,
    points,
    scope,
)

HEX = "67e2d8000000000036cd54e8e8d3d56d"
TWO = (Target(service="payment", datadog_tags=("service:pay-api",)), Target(service="cart", hops=1))


@pytest.fixture
def datadog() -> Datadog:
    return Datadog()


def span(
    trace: str, identity: str, error: str = "", at: datetime = T0, service: str = "pay-api", version: str = ""
) -> JsonValue:
    """As POST /api/v2/spans/events/search answers."""
    custom: dict[str, JsonValue] = {"error": {"type": error}} if error else {}
    attributes: dict[str, JsonValue] = {
        "trace_id": trace,
        "span_id": identity,
        "parent_id": "0",
        "service": service,
        "resource_name": "POST /charge",
        "start_timestamp": at.isoformat(),
        "end_timestamp": (at + timedelta(seconds=1)).isoformat(),
        "status": "error" if error else "ok",
        "type": "web",
        "tags": [f"version:{version}"] if version else [],
        "custom": custom,
    }
    return {"id": "x", "type": "spans", "attributes": attributes}


def trace_span(identity: int, parent: int, service: str, error: int = 0, **meta: str) -> dict[str, JsonValue]:
    """As GET /api/v2/trace/{id} answers: nanoseconds, unsigned numbers."""
    start = int(T0.timestamp()) * 10**9
    told: dict[str, JsonValue] = dict(meta)
    return {
        "name": "http.request",
        "resource": f"GET /{service}",
        "service": service,
        "type": "web",
        "traceID": int(HEX[16:], 16),
        "traceIDFull": HEX,
        "spanID": identity,
        "parentID": parent,
        "startTime": start,
        "endTime": start + 1_500_000,
        "duration": 1_500_000,
        "error": error,
        "meta": told,
        "metrics": {},
    }


def trace(*spans: JsonValue, truncated: bool = False) -> Answer:
    attributes: dict[str, JsonValue] = {"is_truncated": truncated, "spans": list(spans)}
    return always(200, {"data": {"id": HEX, "type": "trace", "attributes": attributes}})


def failing(*spans: JsonValue) -> Answer:
    """The spans, to the search for failing ones only."""

    def answer(request: httpx.Request) -> httpx.Response:
        problems = "status:error" in request.content.decode() and "pay-api" in request.content.decode()
        return httpx.Response(200, json={"data": list(spans) if problems else []})

    return answer


# --- traces -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "other", "parent"), [("00000000000000ff", "0000000000000010", ""), ("255", "16", "")]
)
async def test_a_failing_request_is_read_whole_and_merged(
    datadog: Datadog, known: str, other: str, parent: str
) -> None:
    datadog.answers[SPANS] = failing(span(HEX, known, "PoolTimeout"))
    datadog.answers[f"/api/v2/trace/{HEX}"] = trace(
        trace_span(16, 0, "web-gateway"),
        trace_span(
            255, 16, "pay-api", 1, **{"error.type": "PoolTimeout", "span.kind": "client", "peer.service": "cart"}
        ),
        {"spanID": "no number"},
    )
    found = await datadog.collector().collect(scope(*TWO))
    spans: dict[str, Span] = {one.span_id: one for one in found.spans if one.operation.startswith("GET")}
    assert set(spans) == {known, other}  # ids as the search writes them
    mine = spans[known]
    assert (mine.component, mine.parent_id, mine.error) == ("payment", other, "PoolTimeout")
    assert (mine.kind, mine.peer) == ("client", "cart")
    assert (mine.start_s, mine.duration_ms) == (T0.timestamp(), 1.5)
    assert (spans[other].component, spans[other].parent_id, spans[other].error) == ("web-gateway", parent, "")
    assert any(gap.detail == f"1 rows were not understood: trace_id:{HEX}" for gap in found.gaps)
    [query] = [query for query in found.queries if query.text == f"trace_id:{HEX}"]
    assert query.link == f"https://app.datadoghq.com/apm/trace/{HEX}"


async def test_a_truncated_trace_says_so(datadog: Datadog) -> None:
    datadog.answers[SPANS] = failing(span(HEX, "1", "x"))
    datadog.answers[f"/api/v2/trace/{HEX}"] = trace(trace_span(1, 0, "pay-api"), truncated=True)
    found = await datadog.collector().collect(scope(*TWO))
    assert [query.truncated for query in found.queries if query.text.startswith("trace_id")] == [True]


async def test_few_traces_are_read_those_that_differ_first(datadog: Datadog) -> None:
    alike = [span(f"{n:032x}", str(n), "Timeout") for n in range(40)]
    datadog.answers[SPANS] = failing(*alike, span("f" * 32, "77", "Refused"))
    for identity in (*(f"{n:032x}" for n in range(40)), "f" * 32):
        datadog.answers[f"/api/v2/trace/{identity}"] = trace(trace_span(1, 0, "pay-api"))
    await datadog.collector().collect(scope(*TWO))
    asked = [request.url.path for request in datadog.requests if "/trace/" in request.url.path]
    assert asked[:2] == [f"/api/v2/trace/{0:032x}", f"/api/v2/trace/{'f' * 32}"]
    assert len(asked) == len(set(asked)) == 5


@pytest.mark.parametrize(("code", "requests", "reason"), [(403, 1, GapReason.FORBIDDEN), (404, 3, GapReason.EMPTY)])
async def test_traces_that_are_not_to_be_had_are_one_gap(
    datadog: Datadog, code: int, requests: int, reason: GapReason
) -> None:
    datadog.answers[SPANS] = failing(*(span(f"{n:032x}", str(n), "Timeout") for n in range(3)))
    for n in range(3):
        datadog.answers[f"/api/v2/trace/{n:032x}"] = always(code, {"errors": ["no"]})
    found = await datadog.collector().collect(scope(*TWO))
    assert len([request for request in datadog.requests if "/trace/" in request.url.path]) == requests
    [gap] = [gap for gap in found.gaps if "trace" in gap.detail]
    assert gap.reason == reason
    assert gap.mend
    assert len(datadog.to(SPANS)) == 2 * 3  # spans before and now are read all the same


async def test_a_trace_id_is_no_path(datadog: Datadog) -> None:
    datadog.answers[SPANS] = failing(span("../../v1/validate?x=", "1", "Timeout"))
    await datadog.collector().collect(scope(*TWO))
    assert b"/api/v2/trace/..%2F..%2Fv1%2Fvalidate%3Fx%3D" in {request.url.raw_path for request in datadog.requests}


async def test_neighbours_share_their_span_searches(datadog: Datadog) -> None:
    datadog.answers[SPANS] = lambda request: httpx.Response(
        200,
        json={"data": [span("1", "1", service="cart", at=begins_of_spans(request)), span("1", "2", service="else")]},
    )
    several = (Target(service="payment"), *(Target(service=name, hops=1) for name in ("cart", "db", "mail")))
    found = await datadog.collector().collect(scope(*several))
    assert len(datadog.to(SPANS)) == 2 * 3  # failing ones; all, now and before
    assert "cart" in {one.component for one in found.spans}
    assert "else" not in {one.component for one in found.spans}


def begins_of_spans(request: httpx.Request) -> datetime:
    data = body(request)["data"]
    assert isinstance(data, dict)
    return begins(httpx.Request("POST", request.url, json=data["attributes"]))


# --- versions, catalogue ------------------------------------------------------------------------------------


def deployed(*, told: bool) -> Datadog:
    """Spans of v2 in the incident where there was v1 before; and perhaps an event that tells who did it."""
    datadog = Datadog()

    def answer(request: httpx.Request) -> httpx.Response:
        at = begins_of_spans(request)
        rows = [span("1", "1", at=at, version="v1")] if at == BASELINE.start else [span("2", "2", at=at, version="v2")]
        return httpx.Response(200, json={"data": rows})

    datadog.answers[SPANS] = answer
    tags: JsonValue = ["service:pay-api", "version:v2", "author:kim", "deployment"]
    event: JsonValue = {"attributes": {"timestamp": (T0 - timedelta(minutes=2)).isoformat(), "tags": tags}}
    datadog.answers[EVENTS] = always(200, {"data": [event] if told else []})
    return datadog


async def test_a_version_that_came_with_the_incident_is_a_deployment() -> None:
    found = await deployed(told=False).collector().collect(scope(TWO[0]))
    [change] = found.changes
    assert (change.component, change.kind, change.version, change.at) == ("payment", "deploy", "v2", T0)


async def test_an_event_tells_more_of_a_deployment_than_spans_do() -> None:
    found = await deployed(told=True).collector().collect(scope(TWO[0]))
    [change] = found.changes
    assert isinstance(change, Change)
    assert change.author == "kim"


def relation(caller: str, callee: str) -> JsonValue:
    ends: dict[str, JsonValue] = {
        "from": {"kind": "service", "name": caller, "namespace": "default"},
        "to": {"kind": "service", "name": callee, "namespace": "default"},
        "type": "RelationTypeDependsOn",
    }
    return {"id": f"{caller}-{callee}", "type": "relation", "attributes": ends}


async def test_the_catalogues_dependencies_are_read_page_by_page(datadog: Datadog) -> None:
    def page(request: httpx.Request) -> httpx.Response:
        first = int(request.url.params["page[offset]"]) == 0
        rows = [relation("a", "b")] * 100 if first else [relation("web", "pay-api"), {"id": "?"}]
        return httpx.Response(200, json={"data": rows, "meta": {"count": 102}})

    datadog.answers[RELATIONS] = page
    found = await datadog.collector().collect(scope(*TWO))
    assert found.edges == (Edge(caller="web", callee="payment", source="datadog catalogue"),)
    assert datadog.to(RELATIONS)[0].url.params["filter[type]"] == "RelationTypeDependsOn"
    assert any("1 rows were not understood: RelationTypeDependsOn" in gap.detail for gap in found.gaps)


async def test_no_software_catalogue_is_a_gap_only(datadog: Datadog) -> None:
    datadog.answers[RELATIONS] = always(403, {"errors": ["Forbidden"]})
    found = await datadog.collector().collect(scope(*TWO))
    [gap] = [gap for gap in found.gaps if gap.reason == GapReason.FORBIDDEN]
    assert "apm_service_catalog_read" in gap.mend


async def test_a_catalogue_without_end_is_left(datadog: Datadog) -> None:
    datadog.answers[RELATIONS] = always(200, {"data": [relation("a", "b")] * 100})
    found = await datadog.collector().collect(scope(*TWO))
    assert len(datadog.to(RELATIONS)) == 20
    assert [query.truncated for query in found.queries if "DependsOn" in query.text][-1]


# --- limits -------------------------------------------------------------------------------------------------


def small(datadog: Datadog, **limits: float) -> DatadogCollector:
    settings = Settings(api_key=SecretStr("a"), app_key=SecretStr("b"), **limits)  # type: ignore[arg-type]
    return DatadogCollector(FrozenClock(), settings, httpx.MockTransport(datadog))


async def test_the_budget_of_calls_ends_a_collection_and_keeps_what_was_read(datadog: Datadog) -> None:
    datadog.answers[EVENTS] = always(200, {"data": []})
    found = await small(datadog, max_calls=4).collect(scope(*TWO))
    assert len(datadog.requests) == found.cost.calls == 4
    assert {gap.mend for gap in found.gaps if gap.reason == GapReason.TRUNCATED} == {
        "raise DATADOG_MAX_CALLS, or narrow what is read"
    }


async def test_an_empty_page_with_a_next_one_is_the_last(datadog: Datadog) -> None:
    datadog.answers[EVENTS] = always(200, {"data": [], "meta": {"page": {"after": "again"}}})
    await datadog.collector().collect(scope())
    assert len(datadog.to(EVENTS)) == 1


async def test_rows_before_a_page_that_failed_are_kept(datadog: Datadog) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        page = body(request)["page"]
        assert isinstance(page, dict)
        if "cursor" in page:
            return httpx.Response(429, headers={"X-RateLimit-Reset": "3000", "X-RateLimit-Name": "logs_search"})
        rows = [log("first", at=begins(request))]
        return httpx.Response(200, json={"data": rows, "meta": {"page": {"after": "next"}}})

    datadog.answers[LOGS] = answer
    found = await datadog.collector().collect(scope())
    assert [line.message for line in found.logs] == ["first"]
    assert len(datadog.to(LOGS)) == 2
    assert {gap.reason for gap in found.gaps} >= {GapReason.RATE_LIMITED}
    assert datadog.to(MONITORS)  # another limit than that of logs


async def test_a_slow_kind_of_request_costs_only_itself(datadog: Datadog) -> None:
    async def transport(request: httpx.Request) -> httpx.Response:
        if request.url.path == LOGS:
            await asyncio.sleep(30)
        return datadog(request)

    datadog.answers[METRICS] = always(200, {"data": [{"id": "pool.active"}]})
    odd = json.dumps(points([{"query_index": 0}], [[9.0, float("nan"), 1e300]]))
    datadog.answers[POINTS] = lambda _: httpx.Response(200, text=odd)
    settings = Settings(api_key=SecretStr("a"), app_key=SecretStr("b"), budget_s=1.0)
    collector = DatadogCollector(FrozenClock(), settings, httpx.MockTransport(transport))
    found = await collector.collect(scope())
    assert any(gap.reason == GapReason.TIMEOUT and "logs of payment" in gap.detail for gap in found.gaps)
    assert [series.values for series in found.series] == [(9.0, 1e300)]  # NaN is no number


async def test_points_that_were_not_asked_for_are_not_believed(datadog: Datadog) -> None:
    datadog.answers[METRICS] = always(200, {"data": [{"id": "pool.active"}]})
    datadog.answers[POINTS] = always(
        200, points([{"query_index": 0}], [[1.0] * 32], at=INCIDENT.end - timedelta(minutes=1))
    )
    found = await datadog.collector().collect(scope())
    assert [len(series.values) for series in found.series] == [2]
    assert any("29 rows were not understood: points outside" in gap.detail for gap in found.gaps)


async def test_nothing_in_play_is_nothing_to_ask(datadog: Datadog) -> None:
    empty: Scope = scope().model_copy(update={"targets": ()})
    assert (await datadog.collector().collect(empty)).queries == ()
    assert not datadog.requests


# --- doctor -------------------------------------------------------------------------------------------------

SCOPES = {
    "logs_read_data": LOGS,
    "apm_read": SPANS,
    "events_read": EVENTS,
    "timeseries_query": POINTS,
    "metrics_read": METRICS,
    "monitors_read": MONITORS,
    "apm_service_catalog_read": RELATIONS,
}


def well(datadog: Datadog) -> None:
    datadog.answers["/api/v1/validate"] = always(
        200, {"valid": True}, {"Date": format_datetime(datetime.now(UTC), usegmt=True)}
    )
    datadog.answers[MONITORS] = always(200, [])
    total: JsonValue = {"buckets": [{"by": {}, "computes": {"c0": 1234}}]}
    datadog.answers[COUNTS] = always(200, {"data": total})


async def test_all_is_well(datadog: Datadog) -> None:
    well(datadog)
    checks = {check.name: check for check in await datadog.collector().check()}
    assert set(checks) == {"credentials", "clock", *SCOPES, "sample query"}
    assert {check.status for check in checks.values()} == {"ok"}
    assert "api.datadoghq.com" in checks["credentials"].detail
    assert checks["sample query"].detail == "1,234 log lines in the last 15 minutes"
    assert len(datadog.requests) == len(checks) - 1


@pytest.mark.parametrize("missing", sorted(SCOPES))
async def test_each_missing_scope_is_named(datadog: Datadog, missing: str) -> None:
    well(datadog)
    datadog.answers[SCOPES[missing]] = always(403, {"errors": ["Forbidden", "Failed permission authorization checks"]})
    failed = [check for check in await datadog.collector().check() if check.status == "failed"]
    assert [(check.name, check.mend) for check in failed] == [
        (missing, f"give the application key the scope {missing}")
    ]


async def test_a_key_of_another_site_is_told_from_missing_scopes(datadog: Datadog) -> None:
    for path in (*EVERYTHING, "/api/v1/validate"):
        datadog.answers[path] = always(403, {"errors": ["Forbidden"]})
    checks = await datadog.collector("us5.datadoghq.com").check()
    assert (checks[0].name, checks[0].status) == ("credentials", "failed")
    assert "DATADOG_SITE" in checks[0].mend
    assert {check.status for check in checks[1:]} == {"skipped"}
    assert len(datadog.requests) == 1


async def test_an_application_key_without_any_scope_is_told(datadog: Datadog) -> None:
    for path in (*EVERYTHING, POINTS):
        datadog.answers[path] = always(403, {"errors": ["Forbidden"]})
    checks = await datadog.collector().check()
    assert checks[0].status == "ok"
    assert {check.mend.partition(":")[0] for check in checks[2:]} == {"check DATADOG_APP_KEY"}


async def test_a_wrong_clock_is_told(datadog: Datadog) -> None:
    well(datadog)
    late = format_datetime(datetime.now(UTC) - timedelta(minutes=10), usegmt=True)
    datadog.answers["/api/v1/validate"] = always(200, {"valid": True}, {"Date": late})
    clock = next(check for check in await datadog.collector().check() if check.name == "clock")
    assert (clock.status, clock.mend) == ("failed", "set this machine's clock (NTP)")
