"""Spans from Datadog: of the services in play, and whole traces of requests that failed."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic

from pydantic import AwareDatetime, BaseModel, Field, JsonValue, ValidationError

from collectors._callees import by_attributes, by_span_type
from collectors._datadog_api import SPANS, TRACE, Dated, Names, Question, Search, Session, not_understood, text_of
from collectors._jobs import Part
from collectors._otlp import kind_of
from collectors._questions import NotHere
from collectors.base import (
    Change,
    CollectorError,
    Edge,
    GapReason,
    NotFound,
    Refused,
    Scope,
    Span,
    SpanKind,
    Window,
    utc,
)

PROBLEM_ROWS, SAMPLE_ROWS = 300, 500  # of the alerted service; its neighbours share as many of theirs
TRACES = 5  # read whole, of all services; Datadog allows 60 a minute to the whole organisation
SPANS_PER_TRACE = 1000
_PROBLEMS = "status:error"
_ID = re.compile(r"[0-9a-fA-F]{16,32}|\d{1,39}")
_PEER = ("peer.service", "peer.db.name", "peer.messaging.destination", "messaging.destination.name", "out.host")
_SYSTEMS = ("db.system", "messaging.system")
_ERROR = ("error.type", "error.message")


class _Span(Dated):
    trace_id: str
    span_id: str
    parent_id: str | None = None
    service: str | None = None
    resource_name: str | None = None
    start_timestamp: AwareDatetime
    end_timestamp: AwareDatetime | None = None
    host: str | None = None
    type: str | None = None
    status: str | None = None
    tags: list[str] | None = None
    custom: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def at(self) -> datetime:
        """When it began."""
        return self.start_timestamp


class _TraceSpan(BaseModel):
    """A span of a whole trace. Times in nanoseconds, ids as unsigned numbers."""

    span_id: int = Field(alias="spanID")
    parent_id: int = Field(default=0, alias="parentID")
    service: str
    name: str = ""
    resource: str = ""
    start_ns: int = Field(alias="startTime", gt=0)
    duration_ns: int = Field(alias="duration", ge=0)
    error: int = 0
    type: str = ""
    meta: dict[str, JsonValue] = Field(default_factory=dict)


class _TraceAttributes(BaseModel):
    is_truncated: bool = False
    spans: list[JsonValue] = Field(default_factory=list)


class _TraceData(BaseModel):
    attributes: _TraceAttributes


class _Trace(BaseModel):
    data: _TraceData


@dataclass
class Traces:
    """Which traces were asked for: the jobs of a collection share their number."""

    asked: set[str] = field(default_factory=set)

    def chosen(self, failed: Iterable[Span]) -> Iterator[Span]:
        """One failing span of each trace that is worth reading, those that differ most first."""
        kinds: defaultdict[tuple[str, str, str], list[Span]] = defaultdict(list)
        for span in failed:
            kinds[span.component, span.operation, span.error].append(span)
        for nth in range(TRACES):
            for alike in kinds.values():
                if nth < len(alike) and len(self.asked) < TRACES and alike[nth].trace_id not in self.asked:
                    self.asked.add(alike[nth].trace_id)
                    yield alike[nth]


class SpanReader:
    """Reads spans and traces."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def collect(self, scope: Scope, question: Question, names: Names, traces: Traces, part: Part) -> None:
        """A job: failing spans, whole traces of some of them, then spans of all kinds, now and before."""
        problems = f"{question.query} {_PROBLEMS}"
        failing = await self._spans(problems, scope.incident, PROBLEM_ROWS, question, part, failed=True)
        await self._traces(list(traces.chosen(span for span, _ in failing)), scope, names, part)
        now = await self._spans(question.query, scope.incident, SAMPLE_ROWS, question, part)
        for window in scope.baseline[:1]:
            before = await self._spans(question.query, window, SAMPLE_ROWS, question, part)
            part.keep(_new_versions(failing + now, before))

    async def _spans(
        self, query: str, window: Window, rows: int, question: Question, part: Part, *, failed: bool = False
    ) -> list[tuple[Span, str]]:
        """Spans and their versions. ``failed``: the query selects failed ones only; the rows may not say so."""
        found: list[tuple[Span, str]] = []
        edges: list[Edge] = []
        known = {(span.trace_id, span.span_id) for span in part.spans}
        async for row in self._session.search(Search(SPANS, query, window, rows), part, _Span):
            target = question.target(row.service or "")
            if target is not None:
                span = _span(target.service, row, failed=failed)
                found.append((span, _version(row)))
                part.keep([span] if (span.trace_id, span.span_id) not in known else [])
                edges += _edge(span, row.type or "", *(text_of(row.custom, name) for name in _SYSTEMS))
        part.keep(dict.fromkeys(edges))
        return found

    async def _traces(self, failed: Sequence[Span], scope: Scope, names: Names, part: Part) -> None:
        missing = 0
        for span in failed:
            try:
                await self._trace(span.trace_id, scope, names, part, span_id=span.span_id)
            except Refused:
                missing += 1
            except CollectorError as error:  # as will the next one
                part.fail(error)
                break
        if missing:
            part.gap(
                GapReason.EMPTY,
                f"{missing} of {len(failed)} traces of failing requests could not be read whole",
                "keep traces with errors by a retention filter; the trace API is not open on every site",
            )

    async def find(self, trace_id: str, scope: Scope, names: Names, part: Part) -> None:
        """A job: all spans of a trace. Raises CollectorError."""
        if not _ID.fullmatch(trace_id):
            raise NotHere(f"{trace_id}: Datadog's trace ids are 32 hexadecimal digits, or a decimal number")
        try:
            await self._trace(trace_id, scope, names, part)
        except NotFound:
            raise NotHere(f"Datadog has no trace {trace_id}, or did not keep it") from None

    async def _trace(self, trace_id: str, scope: Scope, names: Names, part: Part, *, span_id: str = "") -> None:
        """``span_id``: one of its spans as a search wrote it."""
        started = monotonic()
        attributes = (await self._session.read(part, TRACE, _Trace, of=trace_id)).data.attributes
        rows = [_trace_row(row) for row in attributes.spans]
        sound = [row for row in rows if row is not None][:SPANS_PER_TRACE]
        query = self._session.query(TRACE, f"trace_id:{trace_id}", scope.incident, started, len(rows), of=trace_id)
        truncated = attributes.is_truncated or len(rows) > SPANS_PER_TRACE
        part.queries.append(query.model_copy(update={"truncated": truncated}))
        not_understood(part, sum(row is None for row in rows), query.text)
        decimal = _decimal(span_id, sound)
        spans = [_of_trace(trace_id, row, names, decimal=decimal) for row in sound]
        part.keep(spans)
        edges: list[Edge] = []
        for told, row in zip(spans, sound, strict=True):
            edges += _edge(told, row.type, *(text_of(row.meta, name) for name in _SYSTEMS))
        part.keep(dict.fromkeys(edges))


# --- spans of a search --------------------------------------------------------------------------------------


def _span(service: str, span: _Span, *, failed: bool) -> Span:
    extra = span.custom
    return Span(
        component=service,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id="" if span.parent_id in (None, "0") else span.parent_id or "",
        operation=span.resource_name or text_of(extra, "operation_name"),
        start_s=span.start_timestamp.timestamp(),
        duration_ms=_duration_ms(span),
        kind=_kind(text_of(extra, "span.kind"), span.type or ""),
        peer=text_of(extra, *_PEER),
        error=_error(span) or ("error" if failed else ""),
        instance=span.host or "",
    )


def _duration_ms(span: _Span) -> float:
    if span.end_timestamp:
        return max((span.end_timestamp - span.start_timestamp).total_seconds() * 1000, 0.0)
    duration_ns = span.custom.get("duration")
    return max(float(duration_ns) / 1e6, 0.0) if isinstance(duration_ns, int | float) else 0.0


def _kind(kind: str, span_type: str) -> SpanKind:
    """By ``span.kind``, else by ``span.type``."""
    if kind:
        return kind_of(kind)
    if span_type == "http" or by_span_type(span_type) in ("database", "cache"):
        return "client"
    return {"web": "server", "worker": "consumer"}.get(span_type, "internal")  # type: ignore[return-value]


def _edge(span: Span, span_type: str, db_system: str, messaging_system: str) -> Iterator[Edge]:
    """Of a call to what is no service, which no list of services knows."""
    kind = by_span_type(span_type) or by_attributes(db_system, messaging_system)
    if kind and span.peer and span.peer != span.component and span.kind in ("client", "producer"):
        yield Edge(
            caller=span.component,
            callee=span.peer,
            source="datadog",
            asynchronous=span.kind == "producer",
            callee_kind=kind,
        )


def _error(span: _Span) -> str:
    named = text_of(span.custom, *_ERROR)
    flagged = span.status == "error" or span.custom.get("error") in (1, True)
    return named or ("error" if flagged else "")


def _version(span: _Span) -> str:
    tagged = (tag.partition(":")[2] for tag in span.tags or () if tag.startswith("version:"))
    return text_of(span.custom, "version") or next(tagged, "")


def _new_versions(now: Sequence[tuple[Span, str]], before: Sequence[tuple[Span, str]]) -> Iterator[Change]:
    """A version whose first spans came with the incident was deployed then, whether or not anybody told."""
    known = {(span.component, version) for span, version in before}
    versioned = {component for component, version in known if version}
    first: dict[tuple[str, str], float] = {}
    for span, version in now:
        key = span.component, version
        if version and span.component in versioned and key not in known:
            first[key] = min(first.get(key, span.start_s), span.start_s)
    for (component, version), at in first.items():
        title = f"{component} {version} answers requests that an earlier version answered before"
        yield Change(component=component, at=utc(at), kind="deploy", title=title, version=version)


# --- spans of a whole trace ---------------------------------------------------------------------------------


def _trace_row(row: JsonValue) -> _TraceSpan | None:
    try:
        return _TraceSpan.model_validate(row)
    except ValidationError:
        return None


def _decimal(span_id: str, rows: Sequence[_TraceSpan]) -> bool:
    """Whether the search wrote its ids as numbers; else they are 16 hexadecimal digits."""
    return span_id.isdecimal() and int(span_id) in {row.span_id for row in rows}


def _of_trace(trace_id: str, span: _TraceSpan, names: Names, *, decimal: bool) -> Span:
    """The span, its ids written as those of the search: the same span must be the same."""
    meta = span.meta

    def written(number: int) -> str:
        return str(number) if decimal else f"{number:016x}"

    return Span(
        component=names.ours(span.service),
        trace_id=trace_id,
        span_id=written(span.span_id),
        parent_id=written(span.parent_id) if span.parent_id else "",
        operation=span.resource or span.name,
        start_s=span.start_ns / 1e9,
        duration_ms=span.duration_ns / 1e6,
        kind=_kind(text_of(meta, "span.kind"), span.type),
        peer=names.ours(text_of(meta, *_PEER)),
        error=(text_of(meta, *_ERROR) or "error") if span.error else "",
        instance=text_of(meta, "host", "pod_name"),
    )
