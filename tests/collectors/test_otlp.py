"""OTLP's JSON made spans, and what all spans together show."""

import base64
from datetime import UTC, datetime, timedelta
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from collectors._budget import Budget, SourceSettings
from collectors._jobs import Part
from collectors._otlp import MAX_SPANS, Names, Read, Search, Traces, _Span, edges_of, hex_id, normalised, read
from collectors.base import Edge, GapReason, Refused, Scope, Span, Target, Telemetry, Window

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=15))
BASELINE = Window(start=T0 - timedelta(hours=1), end=T0)
TRACE, SERVER, CLIENT = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "eee19b7ec3c1b173"
PAYMENT = Target(service="payment", otel_service="payment-svc")
FIELDS = (*_Span.model_fields, "traceId", "spanId", "parentSpanId", "startTimeUnixNano", "endTimeUnixNano", "spans")
ORDERS = Target(service="orders", hops=1)


def scope(*targets: Target) -> Scope:
    return Scope(
        service="payment",
        occurred_at=T0,
        incident=INCIDENT,
        baseline=(BASELINE,),
        targets=targets or (PAYMENT, ORDERS),
    )


def part() -> Part:
    return Part("tempo", "traces", Budget("tempo", SourceSettings()))


def ns(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000_000


def pairs(values: dict[str, str]) -> list[JsonValue]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


def span(at: datetime = T0, **fields: JsonValue) -> dict[str, JsonValue]:
    plain: dict[str, JsonValue] = {
        "traceId": TRACE,
        "spanId": SERVER,
        "name": "POST /pay",
        "kind": 2,
        "startTimeUnixNano": str(ns(at)),
        "endTimeUnixNano": str(ns(at) + 250_000_000),
    }
    return plain | fields


def resource(service: str, *spans: JsonValue, **attributes: str) -> dict[str, JsonValue]:
    named = {"service.name": service, **{key.replace("_", "."): value for key, value in attributes.items()}}
    return {"resource": {"attributes": pairs(named)}, "scopeSpans": [{"spans": list(spans)}]}


def spans_of(*resources: JsonValue) -> list[Span]:
    return [normalised(raw, Names((PAYMENT, ORDERS))) for raw in read({"resourceSpans": list(resources)}).spans]


def only(*resources: JsonValue) -> Span:
    [found] = spans_of(*resources)
    return found


def b64(digits: str) -> str:
    return base64.b64encode(bytes.fromhex(digits)).decode()


@given(st.binary(min_size=16, max_size=16).filter(any))
def test_an_id_is_the_same_in_hex_base64_and_without_leading_zeros(raw: bytes) -> None:
    digits = raw.hex()
    assert hex_id(digits, 32) == hex_id(digits.upper(), 32) == hex_id(b64(digits), 32) == digits
    assert hex_id(digits.lstrip("0"), 32) == digits


def test_an_id_of_zeros_is_none_and_rubbish_is_refused() -> None:
    assert hex_id("0" * 16, 16) == ""
    for rubbish in ("../../etc/passwd", "é", "not an id"):
        with pytest.raises(ValueError, match="no id"):
            hex_id(rubbish, 32)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda rows: {"resourceSpans": rows},
        lambda rows: {"batches": rows},
        lambda rows: {"trace": {"resourceSpans": rows}},
        lambda rows: {"result": {"resourceSpans": rows}},
    ],
)
def test_every_wrapping_and_both_kinds_of_ids_are_understood(wrapped: type) -> None:
    row = span(traceId=b64(TRACE), spanId=b64(SERVER), parentSpanId=b64(CLIENT), startTimeUnixNano=ns(T0))
    [raw] = read(wrapped([resource("payment-svc", row)])).spans
    assert (raw.trace_id, raw.span_id, raw.parent_id) == (TRACE, SERVER, CLIENT)
    assert raw.start_s == T0.timestamp()
    assert raw.duration_ms == 250.0


def test_older_libraries_and_names_of_enumerations() -> None:
    row = span(kind="SPAN_KIND_PRODUCER", status={"code": "STATUS_CODE_ERROR", "message": "broker down"})
    older: JsonValue = {"resource": {}, "instrumentationLibrarySpans": [{"spans": [row]}]}
    found = only(older)
    assert (found.component, found.kind, found.error) == ("unknown_service", "producer", "broker down")


def test_a_failed_span_tells_its_exception_and_a_handled_one_is_no_failure() -> None:
    thrown: JsonValue = {
        "name": "exception",
        "attributes": pairs({"exception.type": "PoolTimeout", "exception.message": "40/40 in use\n  at line 1"}),
    }
    failed = only(resource("payment-svc", span(status={"code": 2}, events=[thrown])))
    assert failed.error == "PoolTimeout: 40/40 in use"
    assert only(resource("payment-svc", span(events=[thrown]))).error == ""
    by_status = span(
        status={"code": 2}, attributes=[{"key": "http.response.status_code", "value": {"intValue": "503"}}]
    )
    assert only(resource("payment-svc", by_status)).error == "HTTP 503"


@pytest.mark.parametrize(
    ("attributes", "peer"),
    [
        ({"peer.service": "payment-svc", "server.address": "10.0.0.7"}, "payment"),
        ({"server.address": "payment-svc.shop.svc.cluster.local"}, "payment"),
        ({"net.peer.name": "api.stripe.com"}, "api.stripe.com"),
        ({"server.address": "10.0.0.7", "db.system": "postgresql", "db.name": "orders"}, "postgresql/orders"),
        ({"server.address": "[::1]", "db.system.name": "redis"}, "redis"),
        ({"messaging.destination.name": "refunds"}, "refunds"),
        ({}, ""),
    ],
)
def test_the_callee_is_named_by_what_is_known_of_it(attributes: dict[str, str], peer: str) -> None:
    assert only(resource("orders", span(kind=3, attributes=pairs(attributes)))).peer == peer


def test_component_and_instance_are_ours() -> None:
    found = only(resource("payment-svc", span(), k8s_pod_name="payment-7f-x2"))
    assert (found.component, found.instance) == ("payment", "payment-7f-x2")


def test_malformed_spans_and_attributes_are_counted_and_dropped() -> None:
    rows: list[JsonValue] = [
        span(),
        span(startTimeUnixNano="soon"),
        span(endTimeUnixNano=ns(T0) - 1),
        span(spanId="0" * 16),
        span(traceId=7),
        "nonsense",
        None,
        span(attributes=[7, {"key": "a", "value": None}, {"key": "b", "value": {"arrayValue": {}}}]),
    ]
    found = read({"resourceSpans": [resource("payment-svc", *rows), 3, {"scopeSpans": 4}]})
    assert (len(found.spans), found.malformed) == (2, 6)
    assert read(None).spans == read({"trace": None}).spans == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=9), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_no_span_is_too_strange(fields: dict[str, JsonValue]) -> None:
    found = read({"resourceSpans": [resource("payment-svc", span() | fields)]})
    assert len(found.spans) + found.malformed == 1
    assert all(normalised(raw, Names(())) for raw in found.spans)


@given(JSON)
def test_no_answer_is_too_strange(answer: JsonValue) -> None:
    assert isinstance(read({"resourceSpans": answer}), Read)
    assert isinstance(read(answer), Read)


def test_spans_of_another_time_are_not_believed() -> None:
    traces, kept = Traces("tempo", scope()), part()
    rows = [span(), span(at=T0 + timedelta(days=1), spanId=CLIENT), span(at=T0 - timedelta(days=9), spanId="a1")]
    traces.keep(kept, read({"resourceSpans": [resource("payment-svc", *rows)]}))
    assert [s.span_id for s in kept.spans] == [SERVER]
    traces.keep(kept, read({"resourceSpans": [resource("payment-svc", span(traceId="b2") | {"name": 7})]}))
    [gap] = traces.completed(Telemetry(source="tempo")).gaps  # once, however many traces there are
    assert (gap.reason, gap.detail) == (GapReason.FAILED, "3 spans were not understood, or are of another time")
    assert gap.mend


def test_a_trace_is_kept_once_and_in_bounds_its_failures_first() -> None:
    traces, kept = Traces("tempo", scope()), part()
    rows = [span(spanId=f"{i:016x}") for i in range(1, MAX_SPANS + 2)]
    rows[-1]["status"] = {"code": 2}
    found = read({"resourceSpans": [resource("payment-svc", *rows)]})
    traces.keep(kept, found)
    traces.keep(kept, found)
    assert len(kept.spans) == MAX_SPANS
    assert kept.spans[0].error == "error"
    other = [row | {"traceId": "b2"} for row in rows]
    traces.keep(kept, read({"resourceSpans": [resource("payment-svc", *other)]}))
    [gap] = traces.completed(Telemetry(source="tempo")).gaps
    assert (gap.reason, gap.detail.split()[0]) == (GapReason.TRUNCATED, "2")


def test_a_trace_too_large_is_cut_before_it_holds_up_the_event_loop() -> None:
    rows = [span(spanId=f"{i:016x}") for i in range(1, 20_000)]
    started = process_time()
    found = read({"resourceSpans": [resource("payment-svc", *rows)]})  # on a thread
    was_read, traces, kept = process_time(), Traces("tempo", scope()), part()
    traces.keep(kept, found)
    assert process_time() - was_read < (was_read - started) / 3
    assert len(kept.spans) == MAX_SPANS


def test_who_answered_names_the_callee_and_edges_follow_spans_and_peers() -> None:
    calls = span(spanId=CLIENT, kind=3, attributes=pairs({"server.address": "mesh-gateway"}))
    queries = span(spanId="a1", kind=3, attributes=pairs({"db.system": "postgresql"}), parentSpanId=CLIENT)
    answers = span(parentSpanId=CLIENT)
    traces, kept = Traces("tempo", scope()), part()
    body: JsonValue = {"resourceSpans": [resource("orders", calls, queries), resource("payment-svc", answers)]}
    traces.keep(kept, read(body))
    assert {s.peer for s in kept.spans if s.span_id == CLIENT} == {"payment"}
    assert set(edges_of(kept.spans, "tempo", {})) == {
        Edge(caller="orders", callee="payment", source="tempo"),
        Edge(caller="orders", callee="postgresql", source="tempo"),
    }


def seen(traces: Traces, trace_id: str, at: datetime, version: str) -> None:
    found = read({"resourceSpans": [resource("payment-svc", span(at=at, traceId=trace_id), service_version=version)]})
    traces.keep(part(), found)


def test_a_version_first_seen_in_the_incident_is_a_deploy() -> None:
    traces = Traces("tempo", scope())
    seen(traces, "a1", T0 + timedelta(minutes=4), "2.0")
    seen(traces, "a2", T0 + timedelta(minutes=2), "2.0")
    seen(traces, "a3", T0 - timedelta(minutes=9), "1.9")
    seen(traces, "a4", T0 + timedelta(minutes=1), "1.9")
    [change] = traces.completed(Telemetry(source="tempo")).changes
    assert (change.component, change.kind, change.version) == ("payment", "deploy", "2.0")
    assert change.at == T0 + timedelta(minutes=2)
    assert "1.9" in change.title


def test_a_deploy_shortly_before_the_incident_is_seen_and_a_canary_of_long_ago_is_none() -> None:
    traces = Traces("tempo", scope())
    seen(traces, "a1", T0 - timedelta(minutes=55), "1.9")
    seen(traces, "a2", T0 - timedelta(minutes=40), "canary")
    seen(traces, "a3", T0 - timedelta(minutes=5), "2.0")
    assert [c.version for c in traces.completed(Telemetry(source="tempo")).changes] == ["2.0"]


def test_without_an_older_version_nothing_was_deployed() -> None:
    traces = Traces("tempo", scope())
    seen(traces, "a1", T0 + timedelta(minutes=4), "2.0")
    assert traces.completed(Telemetry(source="tempo")).changes == ()


async def test_all_kinds_are_searched_in_both_windows_and_slow_is_what_was_unusual_before() -> None:
    traces, asked = Traces("tempo", scope()), list[Search]()
    trace_ids = iter("abcdef")

    async def ask(search: Search) -> None:
        asked.append(search)
        if search.kind == "any":
            row = span(at=search.window.start, traceId=next(trace_ids))
            traces.keep(part(), read({"resourceSpans": [resource("payment-svc", row)]}))

    await traces.search(PAYMENT, part(), ask)
    assert [(s.kind, s.window == INCIDENT, s.slower_than_ms) for s in asked] == [
        ("failed", True, 0),
        ("any", False, 0),
        ("slow", True, 250),
        ("any", True, 0),
        ("failed", False, 0),
        ("slow", False, 250),
    ]


async def test_a_search_that_is_refused_does_not_stop_the_others() -> None:
    asked: list[str] = []

    async def ask(search: Search) -> None:
        asked.append(search.kind)
        raise Refused("no such field")

    kept = part()
    await Traces("tempo", scope()).search(PAYMENT, kept, ask)
    assert asked == ["failed", "any", "any", "failed"]
    assert {gap.detail for gap in kept.gaps} == {"no such field"}


def test_no_more_traces_than_allowed_are_taken_up() -> None:
    traces = Traces("tempo", scope())
    assert traces.new(["a", "b", "a", "c"], most=2) == (["a", "b"], 1)
    assert traces.new(["a", "d"], most=2) == ([], 1)
    traces.keep(part(), Read([]))


def test_messages_make_asynchronous_edges_and_a_database_is_called_one() -> None:
    def one(number: str, kind: int, parent: str = "", **told: str) -> dict[str, JsonValue]:
        return span(spanId=number * 16, parentSpanId=parent * 16, kind=kind, attributes=pairs(told))

    refunds = {"messaging.system": "kafka", "messaging.destination.name": "refunds", "server.address": "broker-7"}
    kept, traces = part(), Traces("tempo", scope())
    orders = resource("orders", one("1", 2), one("2", 4, "1", **refunds), one("3", 3, "1", **{"db.system": "redis"}))
    traces.keep(kept, read({"resourceSpans": [orders, resource("billing", one("4", 5, "2", **refunds))]}))
    told = traces.completed(Telemetry(source="tempo", spans=tuple(kept.spans))).edges
    edges = {(edge.caller, edge.callee): edge for edge in told}
    assert edges["orders", "refunds"].asynchronous
    assert edges["orders", "refunds"].callee_kind == "queue"
    assert edges["refunds", "billing"].asynchronous
    assert edges["orders", "billing"].asynchronous
    assert not edges["orders", "redis"].asynchronous
    assert edges["orders", "redis"].callee_kind == "cache"
