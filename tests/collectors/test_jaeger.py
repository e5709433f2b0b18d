"""The Jaeger collector against answers of the documented shapes of both APIs."""

import json
from datetime import datetime, timedelta

import httpx
import pytest
from pydantic import JsonValue

from collectors.base import Declared, Edge, Forbidden, GapReason, LogsRead, Refused, Target, TraceRead, Unreachable
from collectors.jaeger import JaegerCollector, Settings, create
from tests.collectors.test_otlp import INCIDENT, T0
from tests.collectors.test_tempo import NO_IDS, Answer, FrozenClock, scope

V3, V1, SERVICES, DEPENDENCIES = "/api/v3/traces", "/api/traces", "/api/v3/services", "/api/dependencies"
PAGE = "<!doctype html><title>Jaeger UI</title>"
NONE = {"error": {"httpCode": 404, "message": "No traces found"}}


def otlp(trace_id: str, at: datetime, *, failed: bool = False, span_id: int = 2) -> JsonValue:
    span: dict[str, JsonValue] = {
        "traceId": trace_id.zfill(32),
        "spanId": f"{span_id:016x}",
        "name": "foobar",
        "kind": 2,
        "startTimeUnixNano": str(int(at.timestamp()) * 1_000_000_000),
        "endTimeUnixNano": str(int(at.timestamp()) * 1_000_000_000 + 80_000_000),
        "status": {"code": 2} if failed else {},
    }
    named: JsonValue = [{"key": "service.name", "value": {"stringValue": "payment-svc"}}]
    batch: JsonValue = {"resource": {"attributes": named}, "scopeSpans": [{"spans": [span]}]}
    return {"result": {"resourceSpans": [batch]}}


def tag(key: str, value: JsonValue) -> JsonValue:
    return {"key": key, "type": "string", "value": value}


def older(trace_id: str, at: datetime) -> dict[str, JsonValue]:
    """A trace of two spans: orders calls payment, which fails."""
    start_us = int(at.timestamp()) * 1_000_000
    client: JsonValue = {
        "traceID": trace_id,
        "spanID": "a1",
        "operationName": "charge",
        "references": [],
        "startTime": start_us,
        "duration": 90_000,
        "tags": [tag("span.kind", "client"), tag("peer.service", "mesh")],
        "processID": "p1",
    }
    logged: JsonValue = {
        "timestamp": start_us,
        "fields": [tag("event", "exception"), tag("exception.type", "PoolTimeout"), tag("exception.message", "40/40")],
    }
    server: JsonValue = {
        "traceID": trace_id,
        "spanID": "b2",
        "operationName": "POST /pay",
        "references": [{"refType": "CHILD_OF", "traceID": trace_id, "spanID": "a1"}],
        "startTime": start_us + 1_000,
        "duration": 80_500,
        "tags": [tag("span.kind", "server"), tag("error", True)],
        "logs": [logged],
        "processID": "p2",
        "warnings": None,
    }
    return {
        "traceID": trace_id,
        "spans": [client, server],
        "processes": {
            "p1": {"serviceName": "orders", "tags": []},
            "p2": {"serviceName": "payment-svc", "tags": [tag("host.name", "ip-10-0-0-1")]},
        },
    }


class Jaeger:
    """Knows version 3 of the API, and no traces."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, Answer] = {
            SERVICES: lambda _: httpx.Response(200, json={"services": ["payment-svc"]}),
            V3: lambda _: httpx.Response(404, json=NONE),
            DEPENDENCIES: lambda _: httpx.Response(200, json={"data": [], "errors": None}),
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(request.url.path)
        return answer(request) if answer else httpx.Response(200, text=PAGE)

    def to(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path == path]

    def collector(self, **settings: object) -> JaegerCollector:
        plain: dict[str, object] = {"url": "http://jaeger:16686"}
        return JaegerCollector(FrozenClock(), Settings.model_validate(plain | settings), httpx.MockTransport(self))


@pytest.fixture
def jaeger() -> Jaeger:
    return Jaeger()


@pytest.fixture
def old() -> Jaeger:
    """A server that answers version 3 with the page of its user interface."""
    server = Jaeger()
    del server.answers[SERVICES], server.answers[V3]
    server.answers[V1] = lambda _: httpx.Response(200, json={"data": [], "total": 0, "errors": None})
    return server


def by_window(request: httpx.Request) -> httpx.Response:
    """One failed trace in the incident, one usual before."""
    if request.url.params["query.start_time_min"] == "2024-12-20T09:00:00Z":
        return httpx.Response(200, json=otlp("f1", T0, failed=True))
    return httpx.Response(200, json=otlp("a1", T0 - timedelta(minutes=5)))


# --- version 3 ----------------------------------------------------------------------------------------------------


async def test_version_3_is_asked_with_both_times_and_both_names_of_the_limit(jaeger: Jaeger) -> None:
    jaeger.answers[V3] = by_window
    seen = await jaeger.collector(traces_per_search=7).collect(scope())
    assert {(s.component, s.trace_id[-2:], s.error, s.duration_ms) for s in seen.spans} == {
        ("payment", "f1", "error", 80.0),
        ("payment", "a1", "", 80.0),
    }
    first = jaeger.to(V3)[0].url.params
    assert first["query.service_name"] == "payment-svc"
    assert first["query.start_time_max"] == "2024-12-20T09:15:00Z"
    assert (first["query.search_depth"], first["query.num_traces"]) == ("7", "7")
    assert json.loads(first["query.attributes"]) == {"error": "true"}
    assert jaeger.to(V3)[2].url.params["query.duration_min"] == "80ms"
    assert len(jaeger.to(SERVICES)) == 1
    assert not jaeger.to(V1)
    assert seen.gaps == ()


async def test_no_traces_is_an_answer(jaeger: Jaeger) -> None:
    seen = await jaeger.collector().collect(scope())
    assert (seen.spans, seen.gaps) == ((), ())
    assert [q.rows for q in seen.queries if V3 in q.text] == [0, 0, 0, 0]


async def test_a_streamed_answer_is_read_line_by_line(jaeger: Jaeger) -> None:
    lines = "\n".join(json.dumps(otlp(f"{i}", T0)) for i in range(1, 4))
    jaeger.answers[V3] = lambda _: httpx.Response(200, text=lines + "\n")
    seen = await jaeger.collector().collect(scope())
    assert len(seen.spans) == 3


async def test_an_answer_that_is_too_large_is_asked_again_with_fewer_traces(jaeger: Jaeger) -> None:
    def large(request: httpx.Request) -> httpx.Response:
        few = request.url.params["query.search_depth"] == "4"
        return httpx.Response(200, json=otlp("f1", T0)) if few else httpx.Response(200, content=b" " * 8_000_001)

    jaeger.answers[V3] = large
    seen = await jaeger.collector().collect(scope())
    assert len(seen.spans) == 1
    assert GapReason.TRUNCATED in {gap.reason for gap in seen.gaps}


# --- the older API ------------------------------------------------------------------------------------------------


async def test_the_older_api_is_asked_in_microseconds_and_probed_once(old: Jaeger) -> None:
    old.answers[V1] = lambda _: httpx.Response(200, json={"data": [older("f1", T0)], "errors": None})
    collector = old.collector()
    seen = await collector.collect(scope())
    client, server = sorted(seen.spans, key=lambda s: s.span_id)
    assert (client.component, client.kind, client.peer) == ("orders", "client", "payment")
    assert (server.component, server.kind, server.error) == ("payment", "server", "PoolTimeout: 40/40")
    assert (server.parent_id, server.instance) == (client.span_id, "ip-10-0-0-1")
    assert (server.start_s, server.duration_ms) == (T0.timestamp() + 0.001, 80.5)
    assert seen.edges == (Edge(caller="orders", callee="payment", source="jaeger"),)
    first = old.to(V1)[0].url.params
    assert (int(first["start"]), int(first["end"])) == (T0.timestamp() * 1e6, INCIDENT.end.timestamp() * 1e6)
    assert json.loads(first["tags"]) == {"error": "true"}
    await collector.collect(scope())
    assert len(old.to(SERVICES)) == 1


async def test_malformed_rows_and_partial_answers_are_told(old: Jaeger) -> None:
    trace = older("f1", T0)
    trace["spans"] = [{"traceID": "f1"}, 7, {"traceID": "f1", "spanID": "x y", "startTime": 1, "duration": 1}]
    body: JsonValue = {"data": [trace, "nonsense"], "errors": [{"code": 500, "msg": "shard lost"}]}
    old.answers[V1] = lambda _: httpx.Response(200, json=body)
    seen = await old.collector().collect(scope())
    told = " | ".join(gap.detail for gap in seen.gaps)
    assert "spans were not understood" in told
    assert "1 rows were not understood" in told
    assert "shard lost" in told


async def test_a_service_name_of_strangers_stays_a_parameter(old: Jaeger) -> None:
    await old.collector().collect(scope(Target(service="a&limit=9999#")))
    assert old.to(V1)[0].url.params["service"] == "a&limit=9999#"
    assert old.to(V1)[0].url.params["limit"] == "15"


# --- dependencies -------------------------------------------------------------------------------------------------


async def test_dependencies_are_asked_in_milliseconds_and_kept_where_they_touch_us(jaeger: Jaeger) -> None:
    rows: JsonValue = [
        {"parent": "checkout", "child": "payment-svc", "callCount": 12},
        {"parent": "a", "child": "b", "callCount": 1},
        {"parent": "broken"},
    ]
    jaeger.answers[DEPENDENCIES] = lambda _: httpx.Response(200, json={"data": rows})
    seen = await jaeger.collector().collect(scope())
    assert seen.edges == (Edge(caller="checkout", callee="payment", source="jaeger"),)
    params = jaeger.to(DEPENDENCIES)[0].url.params
    assert int(params["endTs"]) == INCIDENT.end.timestamp() * 1000
    assert int(params["lookback"]) == 75 * 60 * 1000
    assert any("1 rows were not understood" in gap.detail for gap in seen.gaps)


async def test_without_dependencies_there_are_still_traces(jaeger: Jaeger) -> None:
    jaeger.answers[V3] = by_window
    jaeger.answers[DEPENDENCIES] = lambda _: httpx.Response(501)
    seen = await jaeger.collector().collect(scope())
    assert len(seen.spans) == 2
    assert [gap.detail for gap in seen.gaps] == ["/api/dependencies: Jaeger answered 501: "]
    assert len(jaeger.to(DEPENDENCIES)) == 1  # what a server cannot do is not tried again


# --- failures and doctor ------------------------------------------------------------------------------------------


async def test_refused_credentials_say_what_to_set(jaeger: Jaeger) -> None:
    jaeger.answers = dict.fromkeys((SERVICES, V3, DEPENDENCIES), lambda _: httpx.Response(403))
    with pytest.raises(Forbidden) as refused:
        await jaeger.collector().collect(scope())
    assert "JAEGER_TOKEN" in refused.value.mend


async def test_a_server_that_fails_is_asked_for_its_version_again(jaeger: Jaeger) -> None:
    jaeger.answers = dict.fromkeys((SERVICES, V3, DEPENDENCIES), lambda _: httpx.Response(502))
    collector = jaeger.collector()
    with pytest.raises(Unreachable):
        await collector.collect(scope())
    jaeger.answers = Jaeger().answers | {V3: by_window}
    assert len((await collector.collect(scope())).spans) == 2


async def test_the_budget_of_rows_keeps_what_came(jaeger: Jaeger) -> None:
    rows = [json.dumps(otlp(f"{i:x}", T0)) for i in range(1, 151)]
    jaeger.answers[V3] = lambda _: httpx.Response(200, text="\n".join(rows))
    seen = await jaeger.collector(max_rows=100).collect(scope())
    assert len(seen.spans) == 100
    assert "raise JAEGER_MAX_ROWS, or narrow what is read" in {gap.mend for gap in seen.gaps}


async def test_nothing_can_be_measured(jaeger: Jaeger) -> None:
    assert await jaeger.collector().measure([], INCIDENT) == []


async def test_queries_link_to_the_user_interface(jaeger: Jaeger) -> None:
    seen = await jaeger.collector(ui_url="https://jaeger.shop/").collect(scope())
    link = next(q.link for q in seen.queries if V3 in q.text) or ""
    assert link.startswith("https://jaeger.shop/search?service=payment-svc&start=1734685200000000&")


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"JAEGER_{name}", raising=False)
    with pytest.raises(ValueError, match="JAEGER_URL"):
        create(FrozenClock(), Declared())


async def test_the_doctor_tells_the_version_and_looks_at_a_service(jaeger: Jaeger, old: Jaeger) -> None:
    found = await jaeger.collector().check()
    assert [(c.name, c.status) for c in found] == [("reachable", "ok"), ("sample query", "ok"), ("clock", "skipped")]
    assert SERVICES in found[0].detail
    old.answers["/api/services"] = lambda _: httpx.Response(200, json={"data": ["payment-svc"], "total": 1})
    assert "/api/services" in (await old.collector().check())[0].detail


async def test_the_doctor_knows_a_server_that_is_no_jaeger(old: Jaeger) -> None:
    [reached, _] = await old.collector().check()
    assert (reached.status, reached.mend) == ("failed", "check JAEGER_URL")


# --- one trace ----------------------------------------------------------------------------------------------------

F1 = "f1".zfill(32)


async def test_a_trace_is_read_by_its_id_alone(jaeger: Jaeger) -> None:
    jaeger.answers[f"{V3}/{F1}"] = lambda _: httpx.Response(200, json=otlp("f1", T0, failed=True))
    seen = await jaeger.collector(ui_url="http://traces.shop").read(TraceRead(trace_id="f1"), scope())
    assert [(s.component, s.trace_id, s.error) for s in seen.spans] == [("payment", F1, "error")]
    assert seen.gaps == ()
    [query] = seen.queries
    assert (query.text, query.link, query.rows) == (f"{V3}/{F1}", f"http://traces.shop/trace/{F1}", 1)
    assert [request.url.path for request in jaeger.requests] == [SERVICES, f"{V3}/{F1}"]


async def test_the_older_api_gives_a_trace_too(old: Jaeger) -> None:
    old.answers[f"{V1}/{F1}"] = lambda _: httpx.Response(200, json={"data": [older("f1", T0)], "errors": None})
    seen = await old.collector().read(TraceRead(trace_id=F1), scope())
    assert [s.component for s in seen.spans] == ["orders", "payment"]
    assert seen.edges == (Edge(caller="orders", callee="payment", source="jaeger"),)


@pytest.mark.parametrize("api", ["jaeger", "old"])
async def test_a_trace_that_jaeger_does_not_have_is_an_answer(api: str, request: pytest.FixtureRequest) -> None:
    server: Jaeger = request.getfixturevalue(api)
    body: JsonValue = {"data": None, "errors": [{"code": 404, "msg": "trace not found"}]}
    for path in (f"{V1}/{F1}", f"{V3}/{F1}"):
        server.answers[path] = lambda _: httpx.Response(404, json=body)
    seen = await server.collector().read(TraceRead(trace_id=F1), scope())
    assert not seen.spans
    assert [(gap.reason, gap.detail) for gap in seen.gaps] == [
        (GapReason.EMPTY, f"jaeger has no spans of trace {F1}, or did not keep them")
    ]


async def test_the_spans_of_a_huge_trace_are_bounded_and_the_failed_ones_kept(jaeger: Jaeger) -> None:
    answer = "\n".join(json.dumps(otlp("f1", T0, failed=n == 900, span_id=n)) for n in range(1, 1001))
    jaeger.answers[f"{V3}/{F1}"] = lambda _: httpx.Response(200, text=answer)
    seen = await jaeger.collector().read(TraceRead(trace_id=F1), scope())
    assert len(seen.spans) == 500
    assert sum(bool(s.error) for s in seen.spans) == 1
    assert "500 spans were left out" in seen.gaps[0].detail


@pytest.mark.parametrize("told", NO_IDS)
async def test_what_is_no_trace_id_is_not_asked(jaeger: Jaeger, told: str) -> None:
    with pytest.raises(Refused, match="trace ids are"):
        await jaeger.collector().read(TraceRead(trace_id=told), scope())
    assert not jaeger.requests


async def test_refused_credentials_are_raised(jaeger: Jaeger) -> None:
    jaeger.answers[SERVICES] = lambda _: httpx.Response(403)
    with pytest.raises(Forbidden, match="403"):
        await jaeger.collector().read(TraceRead(trace_id=F1), scope())


async def test_jaeger_knows_no_logs(jaeger: Jaeger) -> None:
    with pytest.raises(Refused, match="no questions about logs"):
        await jaeger.collector().read(LogsRead(component="payment", contains="exhausted"), scope())
