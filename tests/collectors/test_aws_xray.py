"""X-Ray on a small stand-in behind boto3's own wire format; segments on moto, which stores what it is given."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from collectors._budget import Budget, SourceSettings
from collectors._jobs import Part, gather
from collectors.aws import xray
from collectors.base import (
    AwsResources,
    EcsService,
    Edge,
    Forbidden,
    GapReason,
    RateLimited,
    Scope,
    Span,
    Target,
    Telemetry,
    Window,
)
from tests.collectors.test_aws_logs_insights import Body, Reply, answer_with, clients_at, refusal

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
AT = T0.timestamp()
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=10))
BASELINE = Window(start=T0 - timedelta(minutes=30), end=T0)
CHECKOUT = Target(service="checkout", ecs=EcsService(cluster="shop", service="checkout"))
PAYMENT = Target(service="payment", hops=1, aws=AwsResources(xray_name="payment-api"))
Json = dict[str, Any]


class FrozenClock:
    """Stands still."""

    def now(self) -> datetime:
        """The end of the incident."""
        return INCIDENT.end


def trace_id(number: int, at: float = AT) -> str:
    """An id as X-Ray makes it: when the trace began, in hex, and 96 bits."""
    return f"1-{int(at):08x}-{number:024x}"


def segment(name: str = "checkout", **more: Any) -> Json:
    return {"id": "70de5b6f19ff9a0a", "name": name, "start_time": AT + 1, "end_time": AT + 1.5, **more}


def trace(number: int, *segments: Json, **more: Any) -> Json:
    documents = [{"Id": one["id"], "Document": json.dumps(one)} for one in segments]
    return {"Id": trace_id(number), "Duration": 0.5, "Segments": documents, **more}


def scope(*targets: Target, **more: Any) -> Scope:
    wanted = {"incident": INCIDENT, "baseline": (), **more}
    return Scope(service="checkout", occurred_at=T0, targets=targets or (CHECKOUT,), **wanted)


class XRay:
    """Answers by the last part of the request's path; keeps what it was asked."""

    def __init__(self) -> None:
        self.clients = clients_at()
        self.asked: list[tuple[str, Body]] = []
        self.summaries: dict[str, list[Json]] = {}
        self.traces: dict[str, Json] = {}
        self.graphs: list[Json] = [{"Services": []}]
        self.retrieved: list[Json] = []
        self.unprocessed_once: set[str] = set()
        self.refused: dict[str, Reply] = {}
        answer_with(self.clients.xray, self.reply)

    def reply(self, action: str, request: Body) -> Reply:
        """One request."""
        self.asked.append((action, request))
        if action in self.refused:
            return self.refused[action]
        if action == "TraceSummaries":
            return 200, self._summaries(request)
        if action == "Traces":
            return 200, self._traces(request)
        if action == "ServiceGraph":
            return 200, self.graphs.pop(0) if len(self.graphs) > 1 else self.graphs[0]
        if action == "StartTraceRetrieval":
            return 200, {"RetrievalToken": "token"}
        return 200, self.retrieved.pop(0) if len(self.retrieved) > 1 else self.retrieved[0]

    def _summaries(self, request: Body) -> Json:
        known = self.summaries.get(request.get("FilterExpression", ""), [])
        start = int(request.get("NextToken", "0"))
        more = {"NextToken": str(start + 10)} if start + 10 < len(known) else {}
        return {"TraceSummaries": known[start : start + 10], **more}

    def _traces(self, request: Body) -> Json:
        assert len(request["TraceIds"]) <= 5  # as X-Ray demands
        late = [one for one in request["TraceIds"] if one in self.unprocessed_once]
        self.unprocessed_once.difference_update(late)
        found = [self.traces[one] for one in request["TraceIds"] if one in self.traces and one not in late]
        return {"Traces": found, "UnprocessedTraceIds": late}

    def requests(self, action: str) -> list[Body]:
        """What was asked of one action."""
        return [request for name, request in self.asked if name == action]

    def has(self, *traces: Json, expression: str = 'service("checkout")') -> None:
        """Traces, and their summaries."""
        self.traces.update({one["Id"]: one for one in traces})
        self.summaries[expression] = [{"Id": one["Id"], "ResponseTime": one["Duration"]} for one in traces]

    async def collect(self, about: Scope | None = None, budget_s: float = 10) -> Telemetry:
        """All jobs."""
        budget = Budget("aws", SourceSettings(budget_s=budget_s))
        return await gather(xray.jobs(self.clients, FrozenClock(), about or scope()), side_by_side=2, budget=budget)


@pytest.fixture
def aws() -> XRay:
    return XRay()


def by_id(found: Telemetry) -> Mapping[str, Span]:
    return {span.span_id: span for span in found.spans}


# --- traces ---


async def test_segments_and_subsegments_become_spans(aws: XRay) -> None:
    query = {
        "id": "53995c3f42cd8ad8",
        "name": "payment-api.internal",
        "namespace": "remote",
        "start_time": AT + 1.1,
        "end_time": AT + 1.4,
        "fault": True,
        "http": {"request": {"method": "POST", "url": "https://payment.internal/charges/4711?x=1"}},
        "cause": {"exceptions": [{"id": "1", "type": "TimeoutException", "message": "read timed out", "remote": True}]},
    }
    inner = {"id": "1111111111111111", "name": "## handler", "start_time": AT + 1, "end_time": AT + 1.5}
    callee = segment("payment-api", id="2222222222222222", parent_id="53995c3f42cd8ad8", fault=True)
    callee["http"] = {"request": {"method": "POST", "url": "/charges/4711"}, "response": {"status": 503}}
    root = segment(subsegments=[{**inner, "subsegments": [query]}], aws={"ecs": {"container": "task-1"}})
    aws.has(trace(1, root, callee))
    found = await aws.collect(scope(CHECKOUT, PAYMENT))
    spans = by_id(found)
    assert spans["70de5b6f19ff9a0a"] == Span(
        component="checkout",
        trace_id=trace_id(1).replace("-", "")[1:],
        span_id="70de5b6f19ff9a0a",
        operation="checkout",
        start_s=AT + 1,
        duration_ms=500.0,
        kind="server",
        instance="task-1",
    )
    assert (spans["1111111111111111"].kind, spans["1111111111111111"].component) == ("internal", "checkout")
    call = spans["53995c3f42cd8ad8"]
    assert (call.kind, call.component, call.peer, call.parent_id) == ("client", "checkout", "payment", inner["id"])
    assert call.operation == "POST /charges/*"
    assert call.error == "TimeoutException: read timed out"
    assert call.duration_ms == pytest.approx(300)
    answer = spans["2222222222222222"]
    assert (answer.component, answer.kind, answer.error) == ("payment", "server", "HTTP 503")
    assert answer.parent_id == call.span_id
    assert [gap.detail for gap in found.gaps] == ["X-Ray has no trace of payment-api"]


async def test_a_subsegment_that_came_alone_belongs_to_the_segment_above_it(aws: XRay) -> None:
    alone = segment("DynamoDB", id="3333333333333333", type="subsegment", parent_id="4444444444444444")
    alone |= {"namespace": "aws", "throttle": True, "error": True, "aws": {"operation": "PutItem"}}
    between = segment("handler", id="4444444444444444", type="subsegment", parent_id="70de5b6f19ff9a0a")
    aws.has(trace(1, alone, between, segment()))
    spans = by_id(await aws.collect())
    span = spans["3333333333333333"]
    assert (span.component, span.kind, span.peer) == ("checkout", "client", "DynamoDB")
    assert (span.operation, span.error) == ("PutItem", "throttled")
    assert spans["4444444444444444"].component == "checkout"


async def test_what_has_not_ended_is_as_long_as_is_known(aws: XRay) -> None:
    hanging = segment(in_progress=True)
    del hanging["end_time"]
    done = segment("payment-api", id="2222222222222222", end_time=AT + 9)
    aws.has(trace(1, hanging, done))
    found = await aws.collect()
    assert by_id(found)["70de5b6f19ff9a0a"].duration_ms == pytest.approx(8000)
    [gap] = found.gaps
    assert "1 spans of checkout's traces had not ended" in gap.detail


async def test_what_is_no_span_is_counted(aws: XRay) -> None:
    aws.has(
        trace(
            1,
            segment(),
            {"id": "a", "name": "no start"},
            segment(id="b", start_time="NaN"),
            segment(id="c", end_time=AT - 5),
            segment(id="d", start_time=AT + 86_400, end_time=AT + 86_401),
            segment(id="e", subsegments=["nonsense"]),
            segment(id="f", subsegments="nonsense"),
        )
    )
    aws.traces[trace_id(1)]["Segments"].append({"Id": "g", "Document": "{"})
    found = await aws.collect()
    assert set(by_id(found)) == {"70de5b6f19ff9a0a", "e"}
    assert "7 spans of X-Ray were not understood" in found.gaps[0].detail


async def test_failing_traces_then_the_slowest_then_a_sample(aws: XRay) -> None:
    failing = [trace(number, segment(id=f"{number:016x}", fault=True)) for number in range(100, 112)]
    every = [trace(number, segment(id=f"{number:016x}"), Duration=0.1) for number in range(28)]
    every[13]["Duration"] = 9.0
    aws.has(*every)
    aws.has(*failing, expression='service("checkout") AND (fault OR error OR throttle)')
    found = await aws.collect()
    first, *_ = aws.requests("TraceSummaries")
    assert first["FilterExpression"] == 'service("checkout") AND (fault OR error OR throttle)'
    assert (first["StartTime"], first["EndTime"]) == (AT, INCIDENT.end.timestamp())
    asked = [one for request in aws.requests("Traces") for one in request["TraceIds"]]
    assert len(asked) == len(set(asked)) < 40
    assert {trace_id(number) for number in range(100, 112)} < set(asked)
    assert trace_id(13) in asked
    assert len(found.spans) == len(asked)
    problems, plain, batch = found.queries[1:]
    assert (problems.rows, plain.rows, plain.truncated) == (12, 28, False)
    assert batch.rows == len(found.spans)
    assert plain.link == (
        "https://eu-west-1.console.aws.amazon.com/xray/home?region=eu-west-1#/traces?"
        "filter=service%28%22checkout%22%29&timeRange=2024-12-20T09%3A00%3A00~2024-12-20T09%3A10%3A00"
    )


async def test_pages_of_summaries_end(aws: XRay) -> None:
    aws.has(*(trace(number, segment(id=f"{number:016x}")) for number in range(500)))
    found = await aws.collect()
    assert len(aws.requests("TraceSummaries")) == 4  # one of failing traces, and three pages
    assert [query.truncated for query in found.queries if query.text == 'service("checkout")'] == [True]


async def test_traces_left_out_are_asked_for_once_more(aws: XRay) -> None:
    aws.has(*(trace(number, segment(id=f"{number:016x}")) for number in range(3)))
    aws.unprocessed_once = {trace_id(1)}
    found = await aws.collect()
    assert len(found.spans) == 3
    assert aws.requests("Traces")[1]["TraceIds"] == [trace_id(1)]
    assert not found.gaps


async def test_a_trace_that_several_services_share_is_read_once(aws: XRay) -> None:
    aws.has(trace(1, segment(), LimitExceeded=True))
    aws.has(trace(1, segment(), LimitExceeded=True), expression='service("payment-api")')
    found = await aws.collect(scope(CHECKOUT, PAYMENT))
    assert len(aws.requests("Traces")) == 1
    assert "too large" in found.gaps[0].detail


async def test_the_baseline_is_sampled(aws: XRay) -> None:
    aws.has(trace(1, segment()))
    found = await aws.collect(scope(CHECKOUT, baseline=(BASELINE,)))
    windows = {(request["StartTime"], request["EndTime"]) for request in aws.requests("TraceSummaries")}
    assert windows == {(AT, INCIDENT.end.timestamp()), (BASELINE.start.timestamp(), AT)}
    assert found.spans


async def test_a_window_is_no_longer_than_x_ray_answers(aws: XRay) -> None:
    long = Window(start=INCIDENT.end - timedelta(hours=9), end=INCIDENT.end)
    found = await aws.collect(scope(CHECKOUT, incident=long))
    for _, request in aws.asked:
        assert request["EndTime"] - request["StartTime"] == 6 * 3600
    assert any(gap.reason == GapReason.TRUNCATED and "6:00:00" in gap.detail for gap in found.gaps)


async def test_an_unknown_name_is_told(aws: XRay) -> None:
    aws.graphs = [{"Services": [node(1, "check-out", ())]}]
    found = await aws.collect()
    [gap] = found.gaps
    assert gap.reason == GapReason.EMPTY
    assert "aws.xray_name of checkout" in gap.mend


async def test_that_nobody_uses_x_ray_is_not_told_at_every_incident(aws: XRay) -> None:
    found = await aws.collect()
    assert found.gaps == ()
    named = Target(service="checkout", aws=AwsResources(xray_name="check-out"))
    [gap] = (await aws.collect(scope(named))).gaps  # but who named it expects it there
    assert gap.reason == GapReason.EMPTY


async def test_a_name_cannot_leave_its_quotes(aws: XRay) -> None:
    name = 'checkout") OR service("x\\'
    await aws.collect(scope(Target(service="checkout", aws=AwsResources(xray_name=name))))
    assert aws.requests("TraceSummaries")[1]["FilterExpression"] == 'service("checkout OR servicex")'


async def test_services_without_anything_in_aws_are_not_asked_for(aws: XRay) -> None:
    assert list(xray.jobs(aws.clients, FrozenClock(), scope(Target(service="checkout")))) == []


async def test_a_missing_permission_is_named_and_costs_only_itself(aws: XRay) -> None:
    aws.has(trace(1, segment()))
    aws.refused = {"ServiceGraph": refusal("AccessDeniedException", 403)}
    found = await aws.collect()
    assert found.spans
    assert [gap.mend for gap in found.gaps] == ["allow the role the action xray:GetServiceGraph"]
    aws.refused["TraceSummaries"] = refusal("AccessDeniedException", 403)
    with pytest.raises(Forbidden):
        await aws.collect()


async def test_throttling_is_told(aws: XRay) -> None:
    aws.refused = dict.fromkeys(("ServiceGraph", "TraceSummaries"), refusal("ThrottledException", 429))
    with pytest.raises(RateLimited):
        await aws.collect(budget_s=1)


# --- Transaction Search ---

OTEL = {
    "resource": {"attributes": {"service.name": "payment-api", "host.name": "ip-10-0-0-1"}},
    "traceId": trace_id(1).replace("-", "")[1:],
    "spanId": "5555555555555555",
    "parentSpanId": "70de5b6f19ff9a0a",
    "name": "POST /charge",
    "kind": "CLIENT",
    "startTimeUnixNano": int((AT + 1) * 1e9),
    "endTimeUnixNano": str(int((AT + 3) * 1e9)),
    "attributes": {"aws.local.service": "payment-api", "aws.remote.service": "checkout"},
    "status": {"code": "ERROR", "message": "no answer"},
    "events": [{"name": "exception", "attributes": {"exception.type": "ReadTimeout"}}],
}


def retrieved(status: str, *documents: Json, token: str = "") -> Json:
    spans = [{"Id": f"{index}", "Document": json.dumps(one)} for index, one in enumerate(documents)]
    more = {"NextToken": token} if token else {}
    return {"RetrievalStatus": status, "TraceFormat": "XRAY", "Traces": [{"Id": trace_id(1), "Spans": spans}], **more}


async def test_spans_that_only_transaction_search_has_are_retrieved(aws: XRay) -> None:
    aws.summaries = {'service("checkout")': [{"Id": trace_id(1)}]}
    aws.retrieved = [
        retrieved("RUNNING"),
        retrieved("COMPLETE", segment(), token="2"),
        retrieved("COMPLETE", OTEL),
    ]
    found = await aws.collect(scope(CHECKOUT, PAYMENT))
    assert set(by_id(found)) == {"70de5b6f19ff9a0a", "5555555555555555"}
    [start] = aws.requests("StartTraceRetrieval")
    assert start["TraceIds"] == [trace_id(1)]
    assert start["StartTime"] == AT
    span = by_id(found)["5555555555555555"]
    assert (span.component, span.peer, span.kind) == ("payment", "checkout", "client")
    assert (span.error, span.duration_ms, span.instance) == ("ReadTimeout", 2000.0, "ip-10-0-0-1")
    assert len({one.trace_id for one in found.spans}) == 1


async def test_a_retrieval_that_fails_or_never_ends(aws: XRay) -> None:
    aws.summaries = {'service("checkout")': [{"Id": trace_id(1)}]}
    answer_with(aws.clients.logs, lambda action, request: refusal("ResourceNotFoundException"))
    aws.retrieved = [retrieved("FAILED")]
    found = await aws.collect()
    assert any("FAILED" in gap.detail for gap in found.gaps)
    assert any("Transaction Search is off" in gap.detail for gap in found.gaps)
    aws.retrieved = [retrieved("RUNNING")]
    found = await aws.collect(budget_s=2)
    assert GapReason.TIMEOUT in {gap.reason for gap in found.gaps}


async def test_without_retrieval_the_log_group_is_read(aws: XRay) -> None:
    aws.summaries = {'service("checkout")': [{"Id": trace_id(1)}]}
    aws.refused = {"StartTraceRetrieval": refusal("AccessDeniedException", 403)}
    asked: list[Body] = []

    def logs(action: str, request: Body) -> Reply:
        asked.append(request)
        if action == "StartQuery":
            return 200, {"queryId": "1"}
        return 200, {"status": "Complete", "results": [[{"field": "@message", "value": json.dumps(OTEL)}]]}

    answer_with(aws.clients.logs, logs)
    found = await aws.collect(scope(CHECKOUT, PAYMENT))
    assert set(by_id(found)) == {"5555555555555555"}
    assert asked[0]["logGroupNames"] == ["aws/spans"]
    assert f'traceId in ["{OTEL["traceId"]}"]' in asked[0]["queryString"]
    assert "allow the role the action xray:StartTraceRetrieval" in [gap.mend for gap in found.gaps]
    assert any("aws/spans" in gap.detail for gap in found.gaps)


# --- service graph ---


def node(number: int, name: str, calls: tuple[int, ...] = (), **more: Any) -> Json:
    edges = [{"ReferenceId": callee, "StartTime": AT, "EndTime": AT} for callee in calls]
    return {"ReferenceId": number, "Name": name, "Names": [name], "Edges": edges, **more}


def requests(total: int, faults: int, throttles: int = 0) -> Json:
    told = {
        "OkCount": total - faults - throttles,
        "ErrorStatistics": {"ThrottleCount": throttles, "OtherCount": 0, "TotalCount": throttles},
        "FaultStatistics": {"OtherCount": faults, "TotalCount": faults},
        "TotalCount": total,
        "TotalResponseTime": total * 0.25,
    }
    return {"SummaryStatistics": told}


async def test_the_service_graph_becomes_edges_and_shares_of_failed_requests(aws: XRay) -> None:
    before = [node(1, "checkout", **requests(1000, 1)), node(2, "payment-api", **requests(1000, 0))]
    aws.graphs = [
        {
            "Services": [
                node(0, "user", (1,), Type="client"),
                node(1, "checkout", (2, 1, 99), **requests(1000, 2), Type="AWS::ECS::Container"),
                node(2, "payment-api", (3,), **requests(100, 20, 5)),
                node(2, "payment-api", (), **requests(90, 0)),
            ],
            "NextToken": "more",
        },
        {"Services": [node(3, "postgres", (), Type="remote", **requests(10, 10)), node(4, "other", (3,))]},
        {"Services": before},
    ]
    found = await aws.collect(scope(CHECKOUT, PAYMENT, baseline=(BASELINE,)))
    statuses = {status.component: status for status in found.statuses}
    assert set(statuses) == {"checkout", "payment"}
    assert statuses["payment"].observed == 0.25
    assert statuses["payment"].expected == 0.0
    assert statuses["payment"].detail == (
        "25 of 100 requests failed, 250 ms on average; before: 0 of 1000 requests failed, 250 ms on average"
    )
    assert statuses["checkout"].expected is None  # 2 of 1,000 rather than 1 is no news


async def test_edges_leave_out_people_loops_and_strangers(aws: XRay) -> None:
    services = [
        node(0, "user", (1,), Type="client"),
        node(1, "checkout", (2, 1, 99)),
        node(2, "payment-api", (3,)),
        node(3, "postgres", (), Type="remote"),
        node(4, "other", (3,)),
        {"ReferenceId": 5},
    ]
    aws.graphs = [{"Services": services}]
    found = await aws.collect(scope(CHECKOUT, PAYMENT))
    assert set(found.edges) == {
        Edge(caller="checkout", callee="payment", source="xray"),
        Edge(caller="payment", callee="postgres", source="xray", callee_kind="external"),
    }


# --- checks, and another implementation ---


async def test_checks_name_the_missing_action(aws: XRay) -> None:
    aws.refused = {
        "TraceSummaries": refusal("AccessDeniedException", 403),
        "ListRetrievedTraces": refusal("ResourceNotFoundException", 404),
    }
    found = await xray.checks(aws.clients, SourceSettings(), FrozenClock())
    assert {check.name: check.status for check in found} == {
        "xray:GetServiceGraph": "ok",
        "xray:GetTraceSummaries": "failed",
        "xray:BatchGetTraces": "ok",
        "xray:StartTraceRetrieval": "ok",
        "xray:ListRetrievedTraces": "ok",
    }
    assert found[1].mend == "allow the role the action xray:GetTraceSummaries"


async def test_against_another_implementation_of_the_api(moto: str) -> None:
    clients, ids = clients_at(moto), [trace_id(number) for number in range(7)]
    for number, one in enumerate(ids):
        told = segment(id=f"{number:016x}", trace_id=one, fault=True)
        clients.xray.put_trace_segments(TraceSegmentDocuments=[json.dumps(told)])

    def summaries(action: str, _: Body) -> Reply | None:
        """Moto knows no filter expression, and no service graph."""
        replies = {"TraceSummaries": {"TraceSummaries": [{"Id": one} for one in ids]}, "ServiceGraph": {"Services": []}}
        return (200, replies[action]) if action in replies else None

    answer_with(clients.xray, summaries)
    part = Part("aws", "test", Budget("aws", SourceSettings()))
    jobs = dict(xray.jobs(clients, FrozenClock(), scope()))
    await jobs["X-Ray traces of checkout"](part)
    assert {span.span_id for span in part.spans} == {f"{number:016x}" for number in range(7)}
    assert {(span.component, span.error) for span in part.spans} == {("checkout", "fault")}
    assert not part.gaps
