"""Reads AWS X-Ray: who calls whom and how often that fails, then traces: failing ones, slow ones, and a sample.

The role needs ``xray:GetServiceGraph``, ``xray:GetTraceSummaries`` and ``xray:BatchGetTraces``. Where Transaction
Search is on, X-Ray knows a trace's summary but not its spans: these come from ``xray:StartTraceRetrieval`` and
``xray:ListRetrievedTraces``, or else from the log group ``aws/spans``, with the permissions of Logs Insights.

The service graph has one number per window and service, which is no series: it becomes edges, and the share of
requests that failed becomes a Status, with what it was before as what is expected.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple, TypedDict
from urllib.parse import urlencode, urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

from collectors._budget import SourceSettings
from collectors._callees import by_aws_type
from collectors._jobs import Job, Part
from collectors._otlp import attributes, exception, kind_of
from collectors._questions import NotHere
from collectors.aws._calls import Asked, Clients, allowed, call, console
from collectors.aws.logs_insights import Insights, Search, UnknownGroup, quoted, w3c_trace_id
from collectors.base import (
    AwsResources,
    Check,
    Clock,
    CollectorError,
    Edge,
    GapReason,
    NotFound,
    Scope,
    Span,
    SpanKind,
    Status,
    Target,
    TimedOut,
    Window,
)

if TYPE_CHECKING:
    from mypy_boto3_xray.type_defs import (
        ListRetrievedTracesResultTypeDef,
        ServiceTypeDef,
        TraceSummaryTypeDef,
        TraceTypeDef,
    )

LONGEST = timedelta(hours=6)  # of a window X-Ray answers
PER_CALL = 5  # traces
PER_RETRIEVAL = 100
PAGES = {"graph": 10, "summaries": 3, "traces": 5, "retrieved": 40}
MARGIN = timedelta(minutes=1)  # clocks differ; spans come after their trace began
POLL_S = 0.7
RETRIEVAL_S = 5.0  # then the log group is read instead
RESERVE_S = 0.5  # before time is up, for the last answer to arrive
SPANS_GROUP = "aws/spans"
MOST_ROWS = 5000  # of the log group
ERROR_LENGTH = 200
NOTICEABLE = 0.01  # more requests failing than before
FEW = 3  # failed requests: fewer may be chance
_FAILED = {"FAILED", "CANCELLED", "TIMEOUT"}
_TRACE_ID = re.compile(r"(?:1-)?([0-9a-f]{8})-?([0-9a-f]{24})")


class _Plan(NamedTuple):
    """Traces to read of a service in each window: the same of both, or failing ones would look like a rise."""

    problems: int
    slow: int
    sample: int


_PLANS = {True: _Plan(25, 10, 15), False: _Plan(10, 5, 5)}  # the alerted service; a neighbour


# --- what X-Ray answers -------------------------------------------------------------------------------------


class _Segment(BaseModel):
    """A segment or a subsegment. Times are epoch seconds."""

    id: str
    name: str = ""
    trace_id: str = ""
    parent_id: str = ""
    type: str = ""
    namespace: str = ""
    start_time: float
    end_time: float | None = None
    fault: bool = False
    error: bool = False
    throttle: bool = False
    cause: JsonValue = None
    http: JsonValue = None
    aws: JsonValue = None
    subsegments: list[JsonValue] = Field(default_factory=list)


class _OtelSpan(BaseModel):
    """A line of the log group that Transaction Search fills."""

    model_config = ConfigDict(alias_generator=to_camel)

    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    name: str = ""
    kind: str | int | None = None
    start_time_unix_nano: int
    end_time_unix_nano: int | None = None
    duration_nano: int | None = None
    status: dict[str, JsonValue] = Field(default_factory=dict)
    attributes: JsonValue = None
    resource: dict[str, JsonValue] = Field(default_factory=dict)
    events: list[JsonValue] = Field(default_factory=list)


@dataclass
class _Piece:
    """A segment or subsegment, its parent, and the name of the segment it is part of, where that is known."""

    segment: _Segment
    parent_id: str
    owner: str
    whole: bool  # a segment, not a part of one


@dataclass
class _Tally:
    """What was not as it should be in the traces that were read."""

    malformed: int = 0
    unfinished: int = 0
    cut: int = 0
    unprocessed: int = 0

    def tell(self, part: Part, service: str) -> None:
        """Record it as gaps."""
        if self.malformed:
            part.gap(GapReason.FAILED, f"{self.malformed} spans of X-Ray were not understood: traces of {service}")
        if self.unfinished:
            part.gap(
                GapReason.TRUNCATED,
                f"{self.unfinished} spans of {service}'s traces had not ended: they are shown as long as is known",
            )
        if self.cut:
            part.gap(GapReason.TRUNCATED, f"{self.cut} traces of {service} are too large: X-Ray has a part of each")
        if self.unprocessed:
            part.gap(GapReason.RATE_LIMITED, f"X-Ray left out {self.unprocessed} traces of {service}, twice")


# --- jobs ---------------------------------------------------------------------------------------------------


def jobs(clients: Clients, clock: Clock, scope: Scope) -> Iterator[tuple[str, Job]]:
    """The service graph, then the traces of each target that the catalogue ties to AWS."""
    ours = [target for target in scope.targets if _of_aws(target)]
    reading = _Reading(clients, clock, scope)
    if ours:
        yield "X-Ray service graph", reading.graph
    for target in ours:
        yield f"X-Ray traces of {target.service}", partial(reading.traces, target)


def find(clients: Clients, clock: Clock, scope: Scope, trace_id: str) -> tuple[str, Job]:
    """The job that reads one trace, whose id X-Ray or OpenTelemetry wrote. Raises NotHere: the id is neither's."""
    found = _TRACE_ID.fullmatch(trace_id)
    if found is None:
        raise NotHere(f"{trace_id}: X-Ray's trace ids are 32 hexadecimal digits, the first 8 of them a time")
    return f"X-Ray trace {trace_id}", partial(_Reading(clients, clock, scope).trace, f"1-{found[1]}-{found[2]}")


def _of_aws(target: Target) -> bool:
    return bool(target.ecs or target.load_balancer or target.target_group or target.aws != AwsResources())


class _Reading:
    """One scope; each trace is read once, though several services are part of it."""

    def __init__(self, clients: Clients, clock: Clock, scope: Scope) -> None:
        self._xray, self._clock, self._scope = clients.xray, clock, scope
        self._insights = Insights(clients.logs)
        self._services = {_xray_name(target): target.service for target in scope.targets}
        self._seen: set[str] = set()
        self._graph_read, self._in_use = asyncio.Event(), True

    # --- service graph ---

    async def graph(self, part: Part) -> None:
        """Who calls whom, and which share of the requests failed. Raises CollectorError."""
        try:
            services = await self._graph(part, self._scope.incident)
            self._in_use = bool(services)
        finally:
            self._graph_read.set()
        part.keep(self._edges(services))
        before: Mapping[str, _Requests] = {}
        if self._scope.baseline:
            try:
                before = self._requests(await self._graph(part, self._scope.baseline[0]))
            except CollectorError as error:
                part.fail(error)
        now = self._requests(services)
        part.keep(_status(service, now[service], before.get(service), self._scope.incident) for service in sorted(now))

    async def _graph(self, part: Part, window: Window) -> list["ServiceTypeDef"]:
        window = self._allowed(part, window)
        asked = Asked("GetServiceGraph", window, self._link("service-map", "", window))
        found: list[ServiceTypeDef] = []
        token = ""
        for _ in range(PAGES["graph"]):
            ask = partial(self._xray.get_service_graph, StartTime=window.start, EndTime=window.end, **_next(token))
            answer = await call(part, "xray:GetServiceGraph", ask)
            found += answer.get("Services", [])
            token = answer.get("NextToken") or ""
            if not token:
                break
        asked.note(part, len(found), truncated=bool(token))
        return found

    def _edges(self, services: Sequence["ServiceTypeDef"]) -> Iterator[Edge]:
        """Those of our services; a client is a person or a browser, and no service."""
        ours = set(self._services.values())
        by_id = {service.get("ReferenceId"): service for service in services if _is_service(service)}
        for service in by_id.values():
            for edge in service.get("Edges", []):
                callee = by_id.get(edge.get("ReferenceId"))
                if callee is None:
                    continue
                names = self._node(service), self._node(callee)
                if names[0] != names[1] and ours.intersection(names):
                    kind = by_aws_type(callee.get("Type", ""))
                    yield Edge(
                        caller=names[0],
                        callee=names[1],
                        source="xray",
                        asynchronous=edge.get("EdgeType") == "link"
                        or "queue" in (kind, by_aws_type(service.get("Type", ""))),
                        callee_kind=kind,
                    )

    def _node(self, service: "ServiceTypeDef") -> str:
        name = service.get("Name", "")
        known = (self._services[n] for n in (name, *service.get("Names", [])) if n in self._services)
        return next(known, name)

    def _requests(self, services: Sequence["ServiceTypeDef"]) -> dict[str, "_Requests"]:
        """By service of ours. A Lambda function is two nodes that count the same requests."""
        found: dict[str, _Requests] = {}
        for service in services:
            name, told = self._node(service), service.get("SummaryStatistics", {})
            failed = told.get("FaultStatistics", {}).get("TotalCount", 0)
            throttled = told.get("ErrorStatistics", {}).get("ThrottleCount", 0)
            requests = _Requests(told.get("TotalCount", 0), failed + throttled, told.get("TotalResponseTime", 0.0))
            if not _is_service(service) or name not in self._services.values() or not requests.total:
                continue
            if name not in found or found[name].total < requests.total:
                found[name] = requests
        return found

    # --- traces ---

    async def traces(self, target: Target, part: Part) -> None:
        """Failing traces, the slowest, and a sample of all, now and before. Raises CollectorError."""
        if await self._window(part, target, self._allowed(part, self._scope.incident)):
            for window in self._scope.baseline[:1]:
                await self._window(part, target, self._allowed(part, window))
        elif target.aws.xray_name or (target.hops == 0 and await self._knows_any_service()):
            mend = f"set aws.xray_name of {target.service} in the catalogue, if X-Ray knows it by another name"
            part.gap(GapReason.EMPTY, f"X-Ray has no trace of {_xray_name(target)}", mend)

    async def _knows_any_service(self) -> bool:
        """Whether X-Ray is used at all, as far as its graph, which is asked for first, could be read."""
        await self._graph_read.wait()
        return self._in_use

    async def trace(self, trace_id: str, part: Part) -> None:
        """The spans of one trace, wherever AWS keeps them. Raises CollectorError: NotHere if it has none."""
        windows = (self._scope.incident, *self._scope.baseline)
        whole = Window(start=min(w.start for w in windows), end=max(w.end for w in windows))
        asked, tally = Asked(f"BatchGetTraces {trace_id}", whole, kind="traces"), _Tally()
        for read in (self._batch, self._retrieved, self._logged):
            try:
                await read(part, whole, [trace_id], tally)
            except NotFound:
                continue  # no such retrieval, no such log group: Transaction Search is off
            except CollectorError as error:
                part.fail(error)
            if part.spans:
                break
        else:
            raise NotHere(f"X-Ray has no spans of trace {trace_id}")
        asked.note(part, len(part.spans), truncated=bool(tally.cut))
        tally.tell(part, self._scope.service)

    async def _window(self, part: Part, target: Target, window: Window) -> bool:
        """Whether X-Ray has any trace of the service."""
        plan, ours = _PLANS[target.hops == 0], f'service("{_plain(_xray_name(target))}")'
        problems = await self._summaries(part, window, f"{ours} AND (fault OR error OR throttle)")
        every = await self._summaries(part, window, ours)
        slowest = sorted(every, key=lambda one: -one.seconds)[: plan.slow]
        wanted = [*problems[: plan.problems], *slowest, *_spread(every, plan.sample)]
        await self._fetch(part, target, window, wanted)
        return bool(wanted)

    async def _summaries(self, part: Part, window: Window, expression: str) -> list["_Summary"]:
        """Oldest first."""
        asked = Asked(expression, window, self._link("traces", expression, window), kind="traces")
        found: dict[str, _Summary] = {}
        token = ""
        for _ in range(PAGES["summaries"]):
            ask = partial(
                self._xray.get_trace_summaries,
                StartTime=window.start,
                EndTime=window.end,
                FilterExpression=expression,
                **_next(token),
            )
            answer = await call(part, "xray:GetTraceSummaries", ask)
            found.update({one["Id"]: _Summary.of(one) for one in answer.get("TraceSummaries", []) if one.get("Id")})
            token = answer.get("NextToken") or ""
            if not token:
                break
        asked.note(part, len(found), truncated=bool(token))
        return sorted(found.values(), key=lambda one: (one.start_s, one.id))

    async def _fetch(self, part: Part, target: Target, window: Window, wanted: Iterable["_Summary"]) -> None:
        """Keep the spans of the traces that were not read yet."""
        ids = [one for one in dict.fromkeys(summary.id for summary in wanted) if one not in self._seen]
        self._seen.update(ids)
        if not ids:
            return
        asked = Asked(f"BatchGetTraces {' '.join(ids)}", window, kind="traces")
        tally, before = _Tally(), len(part.spans)
        batches = [ids[start : start + PER_CALL] for start in range(0, len(ids), PER_CALL)]
        found = await asyncio.gather(*(self._told(part, self._batch(part, window, batch, tally)) for batch in batches))
        asked.note(part, len(part.spans) - before, truncated=bool(tally.cut or tally.unprocessed))
        missing = [one for batch in found for one in batch]
        if missing and len(missing) + tally.unprocessed == len(ids):
            await self._from_transaction_search(part, window, missing, tally)
        elif missing:
            part.gap(GapReason.EMPTY, f"{len(missing)} traces of {target.service} have no segments, or not yet")
        tally.tell(part, target.service)

    async def _told(self, part: Part, batch: Awaitable[list[str]]) -> list[str]:
        """A batch that fails does not cost the other ones."""
        try:
            return await batch
        except CollectorError as error:
            part.fail(error)
            return []

    async def _batch(self, part: Part, window: Window, ids: Sequence[str], tally: _Tally) -> list[str]:
        """Keep the spans of at most PER_CALL traces. Returns the ids of those that have none."""
        found: set[str] = set()
        left: Sequence[str] = ids
        for _ in range(2):
            traces, unprocessed = await self._traces(part, left)
            for trace in traces:
                documents = [one.get("Document", "") for one in trace.get("Segments", [])]
                if documents:
                    found.add(trace.get("Id", ""))
                    tally.cut += bool(trace.get("LimitExceeded"))
                    part.keep(self._spans(trace.get("Id", ""), documents, window, tally))
            left = [one for one in unprocessed if one not in found]
            if not left:
                break
        tally.unprocessed += len(left)
        return [one for one in ids if one not in found and one not in left]

    async def _traces(self, part: Part, ids: Sequence[str]) -> tuple[list["TraceTypeDef"], list[str]]:
        traces: list[TraceTypeDef] = []
        unprocessed: list[str] = []
        token = ""
        for _ in range(PAGES["traces"]):
            ask = partial(self._xray.batch_get_traces, TraceIds=ids, **_next(token))
            answer = await call(part, "xray:BatchGetTraces", ask)
            traces += answer.get("Traces", [])
            unprocessed += answer.get("UnprocessedTraceIds", [])
            token = answer.get("NextToken") or ""
            if not token:
                break
        return traces, unprocessed

    # --- Transaction Search ---

    async def _from_transaction_search(self, part: Part, window: Window, ids: Sequence[str], tally: _Tally) -> None:
        """Spans of traces of which X-Ray has only the summary: by a retrieval, or else from the log group."""
        before, ids = len(part.spans), ids[:PER_RETRIEVAL]
        try:
            await self._retrieved(part, window, ids, tally)
        except CollectorError as error:
            part.fail(error)
            await self._instead_from_logs(part, window, ids, tally)
        if len(part.spans) == before:
            part.gap(GapReason.EMPTY, f"X-Ray has summaries of {len(ids)} traces, but no spans")

    async def _instead_from_logs(self, part: Part, window: Window, ids: Sequence[str], tally: _Tally) -> None:
        try:
            await self._logged(part, window, ids, tally)
        except UnknownGroup:
            mend = "turn Transaction Search on, or send segments to X-Ray"
            part.fail(NotFound(f"there is no log group {SPANS_GROUP}: Transaction Search is off", mend))
        except CollectorError as error:
            part.fail(error)
        else:
            part.gap(GapReason.TRUNCATED, f"the spans of {len(ids)} traces come from the log group {SPANS_GROUP}")

    async def _retrieved(self, part: Part, window: Window, ids: Sequence[str], tally: _Tally) -> None:
        asked = Asked(f"StartTraceRetrieval {' '.join(ids)}", window, kind="traces")
        before = len(part.spans)
        start = partial(
            self._xray.start_trace_retrieval, TraceIds=ids, StartTime=window.start, EndTime=window.end + MARGIN
        )
        token = (await call(part, "xray:StartTraceRetrieval", start))["RetrievalToken"]
        page, until_left_s = "", max(part.budget.left_s - RETRIEVAL_S, RESERVE_S)
        for _ in range(PAGES["retrieved"]):
            answer = await self._page(part, token, page, until_left_s)
            for trace in answer.get("Traces", []):
                documents = [one.get("Document", "") for one in trace.get("Spans", [])]
                part.keep(self._spans(trace.get("Id", ""), documents, window, tally))
            page = answer.get("NextToken") or ""
            if not page:
                break
        asked.note(part, len(part.spans) - before, truncated=bool(page))

    async def _page(self, part: Part, token: str, page: str, until_left_s: float) -> "ListRetrievedTracesResultTypeDef":
        """A page, once the retrieval is complete; ``until_left_s`` of the budget are left. Raises CollectorError."""
        ask = partial(self._xray.list_retrieved_traces, RetrievalToken=token, TraceFormat="XRAY", **_next(page))
        while part.budget.left_s > until_left_s:
            answer = await call(part, "xray:ListRetrievedTraces", ask)
            status = answer.get("RetrievalStatus", "COMPLETE")
            if status in _FAILED:
                raise CollectorError(f"xray:ListRetrievedTraces: the retrieval ended as {status}")
            if status == "COMPLETE":
                return answer
            await asyncio.sleep(POLL_S)
        raise TimedOut("xray:ListRetrievedTraces: the retrieval was not complete in time")

    async def _logged(self, part: Part, window: Window, ids: Sequence[str], tally: _Tally) -> None:
        """Raises CollectorError."""
        wanted = ", ".join(quoted(w3c_trace_id(one)) for one in ids)
        text = f"fields @message\n| filter traceId in [{wanted}]\n| limit {MOST_ROWS}"
        whole = Window(start=window.start - MARGIN, end=window.end + MARGIN)
        answer = await self._insights.ask(part, Search((SPANS_GROUP,), text, whole, MOST_ROWS))
        part.keep(self._spans("", [row.get("@message", "") for row in answer.rows], window, tally))

    # --- documents to spans ---

    def _spans(self, trace_id: str, documents: Iterable[str], window: Window, tally: _Tally) -> Iterator[Span]:
        """Spans of segment documents, or of OpenTelemetry's; what is neither, or of another time, is counted."""
        objects = [_object(text) for text in documents]
        found = [*self._otel_spans(objects, tally), *self._segment_spans(trace_id, objects, tally)]
        earliest = (window.start - LONGEST).timestamp()
        latest = max(self._clock.now(), window.end).timestamp() + MARGIN.total_seconds()
        for span in found:
            if earliest <= span.start_s <= latest:
                yield span
            else:
                tally.malformed += 1

    def _segment_spans(self, trace_id: str, objects: Iterable[Mapping[str, JsonValue]], tally: _Tally) -> list[Span]:
        pieces = [piece for one in objects if "spanId" not in one for piece in _pieces(one, tally)]
        by_id = {piece.segment.id: piece for piece in pieces}
        last = max((piece.segment.end_time or 0.0 for piece in pieces), default=0.0)
        found: list[Span] = []
        for piece in pieces:
            end = piece.segment.end_time
            if end is None:
                tally.unfinished += 1
                end = max(last, piece.segment.start_time)
            if not (isfinite(end) and end >= piece.segment.start_time):
                tally.malformed += 1
                continue
            found.append(self._segment_span(trace_id, piece, by_id, end))
        return found

    def _segment_span(self, trace_id: str, piece: _Piece, by_id: Mapping[str, _Piece], end: float) -> Span:
        segment, owner = piece.segment, _owner(piece, by_id)
        client = segment.namespace in ("remote", "aws")
        return Span(
            component=self._services.get(owner, owner),
            trace_id=w3c_trace_id(trace_id or segment.trace_id),
            span_id=segment.id,
            parent_id=piece.parent_id,
            operation=_operation(segment),
            start_s=segment.start_time,
            duration_ms=(end - segment.start_time) * 1000,
            kind=_call_kind(segment) if client else "server" if piece.whole else "internal",
            peer=self._callee(segment.name) if client else "",
            error=_segment_error(segment),
            instance=_text(segment.aws, "ecs", "container_id")
            or _text(segment.aws, "ecs", "container")
            or _text(segment.aws, "ec2", "instance_id"),
        )

    def _otel_spans(self, objects: Iterable[Mapping[str, JsonValue]], tally: _Tally) -> Iterator[Span]:
        for one in objects:
            if "spanId" not in one:
                continue
            try:
                yield self._otel_span(_OtelSpan.model_validate(one))
            except ValidationError:
                tally.malformed += 1

    def _otel_span(self, span: _OtelSpan) -> Span:
        told = {**_attributes(span.resource.get("attributes")), **_attributes(span.attributes)}
        service = told.get("aws.local.service") or told.get("service.name") or "unknown"
        peer = told.get("aws.remote.service") or told.get("peer.service") or ""
        kind = kind_of(str(span.kind))
        end_ns = span.end_time_unix_nano or span.start_time_unix_nano + (span.duration_nano or 0)
        return Span(
            component=self._services.get(service, service),
            trace_id=w3c_trace_id(span.trace_id),
            span_id=span.span_id,
            parent_id=span.parent_span_id or "",
            operation=span.name,
            start_s=span.start_time_unix_nano / 1e9,
            duration_ms=max(end_ns - span.start_time_unix_nano, 0) / 1e6,
            kind=kind,
            peer=self._callee(peer) if kind in ("client", "producer") else "",
            error=_otel_error(span, told),
            instance=told.get("service.instance.id") or told.get("host.name") or "",
        )

    def _callee(self, name: str) -> str:
        """A called service; ``payment.shop.local`` is payment, if that is one of ours."""
        return self._services.get(name) or self._services.get(name.partition(".")[0], name)

    # --- questions ---

    def _allowed(self, part: Part, window: Window) -> Window:
        """The window up to now, and no longer than X-Ray answers: the onset tells most."""
        end = min(window.end, max(self._clock.now(), window.start + timedelta(seconds=1)))
        if end - window.start <= LONGEST:
            return Window(start=window.start, end=end)
        part.gap(
            GapReason.TRUNCATED, f"X-Ray was read for {LONGEST} from {window.start:%H:%M}: it answers no longer one"
        )
        return Window(start=window.start, end=window.start + LONGEST)

    def _link(self, page: str, expression: str, window: Window) -> str | None:
        span = f"{window.start:%Y-%m-%dT%H:%M:%S}~{window.end:%Y-%m-%dT%H:%M:%S}"
        query = urlencode({"filter": expression, "timeRange": span} if expression else {"timeRange": span})
        return console(self._xray, f"xray/home?region={self._xray.meta.region_name}#/{page}?{query}")


# --- service graph to statuses ------------------------------------------------------------------------------


class _Requests(NamedTuple):
    """What a service was asked in one window."""

    total: int
    failed: int  # faults (5xx) and throttled ones; what a caller did wrong (4xx) is not the service's failure
    response_s: float  # of all together

    @property
    def told(self) -> str:
        return f"{self.failed} of {self.total} requests failed, {self.response_s / self.total * 1000:.0f} ms on average"

    @property
    def ratio(self) -> float:
        return self.failed / self.total


def _status(service: str, now: _Requests, before: _Requests | None, window: Window) -> Status:
    """Something is expected only where more fail than before, and more than chance may: else it is told, not judged."""
    worse = before is not None and now.failed >= FEW and now.ratio - before.ratio > NOTICEABLE
    return Status(
        component=service,
        name="xray.fault_ratio",
        at=window.end,
        observed=now.ratio,
        expected=before.ratio if before and worse else None,
        detail=f"{now.told}; before: {before.told}" if before else now.told,
    )


def _is_service(service: "ServiceTypeDef") -> bool:
    return bool(service.get("Name")) and service.get("Type") != "client"


# --- which traces -------------------------------------------------------------------------------------------


class _Summary(NamedTuple):
    """A trace that can be read."""

    id: str
    start_s: float
    seconds: float

    @classmethod
    def of(cls, told: "TraceSummaryTypeDef") -> "_Summary":
        seconds = told.get("ResponseTime", told.get("Duration", 0.0))
        return cls(told["Id"], _began_s(told["Id"]), seconds if isfinite(seconds) else 0.0)


def _began_s(trace_id: str) -> float:
    """When the trace began: its id says it, in hex."""
    told = trace_id.split("-")[1:2]
    return float(int(told[0], 16)) if told and re.fullmatch("[0-9a-fA-F]{8}", told[0]) else 0.0


def _spread(summaries: Sequence[_Summary], count: int) -> list[_Summary]:
    """So many of them, evenly over time."""
    every = max(len(summaries) / count, 1.0)
    return [summaries[int(index * every)] for index in range(min(count, len(summaries)))]


def _xray_name(target: Target) -> str:
    return target.aws.xray_name or target.service


def _plain(name: str) -> str:
    """The name as X-Ray allows it: what else there is could only end the quotes."""
    return re.sub(r"[^\w\s.:/%&#=+\-@]", "", name)


class _Token(TypedDict, total=False):
    NextToken: str


def _next(token: str) -> _Token:
    return {"NextToken": token} if token else {}


# --- documents ----------------------------------------------------------------------------------------------

_JSON: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def _object(text: str) -> dict[str, JsonValue]:
    """Empty if it is no JSON object."""
    try:
        return _JSON.validate_json(text)
    except ValidationError:
        return {}


def _pieces(document: Mapping[str, JsonValue], tally: _Tally) -> Iterator[_Piece]:
    """A segment and all its subsegments; of a subsegment that came alone the owner is not known yet."""
    left: list[tuple[JsonValue, str, str]] = [(dict(document), "", "")]
    while left:
        told, parent_id, owner = left.pop()
        try:
            segment = _Segment.model_validate(told)
        except ValidationError:
            tally.malformed += 1
            continue
        whole = not parent_id and segment.type != "subsegment"
        owner = segment.name if whole else owner
        yield _Piece(segment, parent_id or segment.parent_id, owner, whole)
        left += [(one, segment.id, owner) for one in segment.subsegments]


def _owner(piece: _Piece, by_id: Mapping[str, _Piece]) -> str:
    """The name of the segment that it is part of; its own if that segment is missing."""
    above: _Piece | None = piece
    for _ in by_id:
        if above is None or above.owner:
            break
        above = by_id.get(above.parent_id)
    return above.owner if above and above.owner else piece.segment.name


_ID_IN_PATH = re.compile(r"/(?:\d+|[0-9a-fA-F-]{8,})(?=/|$)")


def _operation(segment: _Segment) -> str:
    """Method and path of a request, less what differs from one to the next; else AWS's operation, or the name."""
    url = _text(segment.http, "request", "url")
    if url:
        path = _ID_IN_PATH.sub("/*", urlsplit(url).path) or "/"
        return f"{_text(segment.http, 'request', 'method')} {path}".strip()
    return _text(segment.aws, "operation") or segment.name


def _call_kind(segment: _Segment) -> SpanKind:
    """Whether it sends a message: to SQS, SNS or a stream."""
    sends = _text(segment.aws, "operation").startswith(("Send", "Publish", "Put"))
    return "producer" if sends and by_aws_type(segment.name) == "queue" else "client"


def _segment_error(segment: _Segment) -> str:
    """What went wrong; empty if nothing did."""
    if not (segment.fault or segment.error or segment.throttle):
        return ""
    exceptions = segment.cause.get("exceptions") if isinstance(segment.cause, dict) else None
    first = exceptions[0] if isinstance(exceptions, list) and exceptions else None
    told = ": ".join(filter(None, (_text(first, "type"), _text(first, "message"))))
    status = _text(segment.http, "response", "status")
    flag = "throttled" if segment.throttle else "fault" if segment.fault else "error"
    return told[:ERROR_LENGTH] or (f"HTTP {status}" if status else flag)


def _text(value: JsonValue, *path: str) -> str:
    """What is nested there, as text; empty if nothing is."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return str(value) if isinstance(value, str | int | float) else ""


def _attributes(told: JsonValue) -> dict[str, str]:
    """Attributes of OpenTelemetry: a mapping, or a list of keys with typed values."""
    if isinstance(told, list):
        return attributes(told)
    return {key: _text(value) for key, value in told.items()} if isinstance(told, dict) else {}


def _otel_error(span: _OtelSpan, known: Mapping[str, str]) -> str:
    if _text(span.status.get("code")).upper().removeprefix("STATUS_CODE_") not in ("ERROR", "2"):
        return ""
    thrown = (exception(_attributes(_inside(event, "attributes"))) for event in span.events)
    told = next(filter(None, thrown), "") or _text(span.status.get("message"))
    status = known.get("http.response.status_code") or known.get("http.status_code")
    return told[:ERROR_LENGTH] or (f"HTTP {status}" if status else "error")


def _inside(value: JsonValue, key: str) -> JsonValue:
    return value.get(key) if isinstance(value, dict) else None


# --- checks -------------------------------------------------------------------------------------------------


async def checks(clients: Clients, settings: SourceSettings, clock: Clock) -> list[Check]:
    """Each permission, asked for a trace that does not exist."""
    xray, end = clients.xray, clock.now()
    start, nothing = end - timedelta(minutes=1), ["1-00000000-000000000000000000000000"]
    asked: tuple[tuple[str, Callable[[], object]], ...] = (
        ("xray:GetServiceGraph", partial(xray.get_service_graph, StartTime=start, EndTime=end)),
        ("xray:GetTraceSummaries", partial(xray.get_trace_summaries, StartTime=start, EndTime=end)),
        ("xray:BatchGetTraces", partial(xray.batch_get_traces, TraceIds=nothing)),
        (
            "xray:StartTraceRetrieval",
            partial(xray.start_trace_retrieval, TraceIds=nothing, StartTime=start, EndTime=end),
        ),
        ("xray:ListRetrievedTraces", partial(xray.list_retrieved_traces, RetrievalToken="autopilot-doctor")),
    )
    return [await allowed(settings, action, ask) for action, ask in asked]
