"""Spans as OpenTelemetry has them: OTLP's JSON made Spans and Edges, and how traces are searched for.

Tempo and Jaeger answer with it, each in its own wrapping, and with liberties: ids in hex or base64, numbers as
strings, enumerations by number or by name.
"""

import base64
import re
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from math import ceil
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

from collectors._budget import SourceSettings
from collectors._callees import CalleeKind, by_attributes
from collectors._jobs import Job, Part
from collectors._questions import NotHere
from collectors._source import HttpSource
from collectors._windows import around
from collectors.base import (
    Change,
    Edge,
    Gap,
    GapReason,
    LogsRead,
    NotFound,
    Refused,
    Scope,
    Span,
    SpanKind,
    Target,
    Telemetry,
    TraceRead,
    Window,
    utc,
)

MAX_ATTRIBUTES = 128  # of one span, OpenTelemetry's own default
MAX_TEXT = 200  # characters of a name, an attribute or an error
MAX_SPANS = 500  # of one trace: the largest have tens of thousands
EARLY = timedelta(hours=1)  # how long before the windows a trace may have begun
LATE = timedelta(minutes=5)  # how far a machine's clock may be ahead
SLOW = 0.9  # of the usual spans are faster than those searched for as slow

_S = TypeVar("_S", bound=SourceSettings)
_TRACE_ID = re.compile(
    r"[0-9a-fA-F]{1,32}"
    r"|1-[0-9a-fA-F]{8}-[0-9a-fA-F]{24}"  # as X-Ray writes it
    r"|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"  # as a UUID
)
_KINDS: Mapping[str, SpanKind] = {
    "2": "server",
    "3": "client",
    "4": "producer",
    "5": "consumer",
    "server": "server",
    "client": "client",
    "producer": "producer",
    "consumer": "consumer",
}


def kind_of(told: str) -> SpanKind:
    """By OTLP's number or name (``SPAN_KIND_CLIENT``) or Jaeger's (``client``)."""
    return _KINDS.get(told.lower().removeprefix("span_kind_"), "internal")


@dataclass(frozen=True)
class RawSpan:
    """One span as its source tells it, before its names are ours. Ids are hex."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start_s: float
    duration_ms: float
    kind: SpanKind
    failed: bool
    exception: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    resource: Mapping[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """Its ``service.name``, or what OpenTelemetry calls a service that has none."""
        return self.resource.get("service.name") or "unknown_service"


@dataclass(frozen=True)
class Read:
    """The spans of an answer, and how many more there were that nobody could understand."""

    spans: list[RawSpan]
    malformed: int = 0


# --- OTLP's JSON --------------------------------------------------------------------------------------------------


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Status(_Wire):
    code: int | str = 0
    message: str = ""


class _Event(_Wire):
    name: str = ""
    attributes: JsonValue = None


class _Span(_Wire):
    trace_id: str = Field(min_length=1)
    span_id: str = Field(min_length=1)
    parent_span_id: str = ""
    name: str = ""
    kind: int | str = 0
    start_time_unix_nano: int = Field(gt=0, lt=2**63)
    end_time_unix_nano: int = Field(gt=0, lt=2**63)
    attributes: JsonValue = None
    events: list[_Event] = Field(default_factory=list)
    status: _Status = _Status()


def read(answer: JsonValue) -> Read:
    """The spans of ``{"resourceSpans": […]}``, ``{"batches": […]}``, or either inside ``trace`` or ``result``."""
    found = Read([])
    malformed = 0
    for batch in _objects(_under(answer, "resourceSpans", "batches")):
        resource = attributes(_under(batch.get("resource"), "attributes"))
        for scope in _objects(_under(batch, "scopeSpans", "instrumentationLibrarySpans")):
            for row in _list(_under(scope, "spans")):
                try:
                    found.spans.append(_raw(_Span.model_validate(row), resource))
                except ValueError:  # pydantic's ValidationError, and an id that is none
                    malformed += 1
    return Read(found.spans, malformed)


def _under(value: JsonValue, *names: str) -> JsonValue:
    """What the object holds under the first of the names it has, wherever the source has wrapped it."""
    if not isinstance(value, dict):
        return None
    for name in names:
        if name in value:
            return value[name]
    inner = value.get("trace") or value.get("result")
    return _under(inner, *names) if isinstance(inner, dict) else None


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _objects(value: JsonValue) -> Iterator[dict[str, JsonValue]]:
    return (one for one in _list(value) if isinstance(one, dict))


def attributes(pairs: JsonValue) -> dict[str, str]:
    """OTLP's list of key and typed value as texts; lists and maps are left out."""
    found: dict[str, str] = {}
    for pair in _objects(_list(pairs)[:MAX_ATTRIBUTES]):
        key, value = pair.get("key"), pair.get("value")
        if isinstance(key, str) and isinstance(value, dict):
            plain = next((v for v in value.values() if isinstance(v, str | int | float)), None)
            if plain is not None:
                found[key] = text_of(plain)
    return found


def text_of(value: str | float) -> str:
    """A plain value as a bounded text; true and false as JSON has them."""
    return (str(value).lower() if isinstance(value, bool) else str(value))[:MAX_TEXT]


def hex_id(told: str, digits: int) -> str:
    """A trace's (32 digits) or span's (16) id in hex, from hex with or without leading zeros, or from base64.

    Raises ValueError if it is neither. An id of zeros only is none, and empty.
    """
    if re.fullmatch(rf"[0-9a-fA-F]{{1,{digits}}}", told):
        found = told.lower().zfill(digits)
    else:
        try:
            found = base64.b64decode(told + "=" * (-len(told) % 4), validate=True).hex().zfill(digits)
        except ValueError:
            raise ValueError(f"no id: {told[:40]}") from None
    if len(found) != digits:
        raise ValueError(f"no id: {told[:40]}")
    return found if found.strip("0") else ""


def asked_id(told: str) -> str:
    """The id of a trace that somebody asked for, in 32 digits of hex. Raises NotHere: it is none."""
    found = told.removeprefix("1-").replace("-", "") if _TRACE_ID.fullmatch(told) else ""
    if not found.strip("0"):
        raise NotHere(f"{told}: OpenTelemetry's trace ids are 32 hexadecimal digits, not all of them 0")
    return found.lower().zfill(32)


def _raw(span: _Span, resource: Mapping[str, str]) -> RawSpan:
    duration_ns = span.end_time_unix_nano - span.start_time_unix_nano
    trace_id, span_id = hex_id(span.trace_id, 32), hex_id(span.span_id, 16)
    if duration_ns < 0 or not trace_id or not span_id:
        raise ValueError("a span without an id, or that ends before it starts")
    events = (attributes(event.attributes) for event in span.events if event.name == "exception")
    failed = str(span.status.code).removeprefix("STATUS_CODE_") in ("2", "ERROR")
    return RawSpan(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=hex_id(span.parent_span_id, 16) if span.parent_span_id else "",
        name=span.name[:MAX_TEXT],
        start_s=span.start_time_unix_nano / 1e9,
        duration_ms=duration_ns / 1e6,
        kind=kind_of(str(span.kind)),
        failed=failed,
        exception=next(filter(None, map(exception, events)), "") or span.status.message,
        attributes=attributes(span.attributes),
        resource=resource,
    )


def exception(attributes: Mapping[str, str]) -> str:
    """``Type: message`` of an exception event."""
    told = (attributes.get("exception.type", ""), attributes.get("exception.message", "").partition("\n")[0])
    return ": ".join(filter(None, told))


# --- our names ----------------------------------------------------------------------------------------------------


class Names:
    """Which component a name in the traces means: the target's service where it is one, else the name itself."""

    def __init__(self, targets: Iterable[Target]) -> None:
        targets = list(targets)
        self._services = {t.service: t.service for t in targets} | {service_name(t): t.service for t in targets}

    def component(self, name: str) -> str:
        """Of a ``service.name``."""
        return self._services.get(name, name)

    def knows(self, name: str) -> bool:
        """Whether the name is a target's."""
        return name in self._services

    def host(self, name: str) -> str:
        """Of an address: ``payment.shop.svc.cluster.local`` is payment; an IP address says nothing, and is empty."""
        try:
            ip_address(name.strip("[]"))
        except ValueError:
            first = name.partition(".")[0]
            return self.component(first if self.knows(first) else name)
        return ""


def service_name(target: Target) -> str:
    """The target's ``service.name``."""
    return target.otel_service or target.service


def normalised(raw: RawSpan, names: Names) -> Span:
    """The span under our names."""
    return Span(
        component=names.component(raw.service),
        trace_id=raw.trace_id,
        span_id=raw.span_id,
        parent_id=raw.parent_id,
        operation=raw.name,
        start_s=raw.start_s,
        duration_ms=raw.duration_ms,
        kind=raw.kind,
        peer=_peer(raw, names),
        error=_error(raw) if raw.failed else "",
        instance=_first(raw.resource, "service.instance.id", "k8s.pod.name", "host.name"),
    )


def _first(attributes: Mapping[str, str], *names: str) -> str:
    return next((attributes[name] for name in names if attributes.get(name)), "")


def _peer(raw: RawSpan, names: Names) -> str:
    """The callee by the semantic conventions, present and past; of messages the queue, not the broker's host."""
    attributes = raw.attributes
    queue = _first(attributes, "messaging.destination.name", "messaging.destination")
    if raw.kind == "consumer" or (raw.kind == "producer" and queue):
        return queue
    if raw.kind not in ("client", "producer"):
        return ""
    service = _first(attributes, "peer.service")
    host = names.host(_first(attributes, "server.address", "net.peer.name"))
    database = "/".join(
        filter(
            None,
            (
                _first(attributes, "db.system.name", "db.system"),
                _first(attributes, "db.namespace", "db.name"),
            ),
        )
    )
    return names.component(service) or host or database or queue


def _callee_kind(raw: RawSpan) -> CalleeKind:
    return by_attributes(
        _first(raw.attributes, "db.system.name", "db.system"), _first(raw.attributes, "messaging.system")
    )


def _error(raw: RawSpan) -> str:
    status = _first(raw.attributes, "http.response.status_code", "http.status_code")
    told = raw.exception.partition("\n")[0] or _first(raw.attributes, "error.type")
    return (told or (f"HTTP {status}" if status else "error"))[:MAX_TEXT]


# --- one collection -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """Traces to look for. ``slower_than_ms`` is set for slow ones."""

    kind: Literal["failed", "slow", "any"]
    window: Window
    slower_than_ms: int = 0


@dataclass
class _Version:
    component: str
    version: str
    first_s: float


class Traces:
    """What one collection reads of traces: each once, whole or in bounds, under our names."""

    def __init__(self, source: str, scope: Scope) -> None:
        self.names = Names(scope.targets)
        self._source, self._scope = source, scope
        windows = (scope.incident, *scope.baseline)
        self._earliest_s = (min(w.start for w in windows) - EARLY).timestamp()
        self._latest_s = (max(w.end for w in windows) + LATE).timestamp()
        self._incident_s = scope.incident.start.timestamp()
        self._settled_s = (min(w.start for w in windows).timestamp() + self._incident_s) / 2
        self._seen: set[str] = set()  # ids of traces that were asked for, or came
        self._kept: set[str] = set()
        self._lost = self._cut = 0  # spans that were not understood or are of another time; and of traces too large
        self._usual_ms: defaultdict[str, list[float]] = defaultdict(list)
        self._versions: dict[tuple[str, str], _Version] = {}
        self._callees: dict[tuple[str, str], CalleeKind] = {}  # by caller and callee

    async def search(self, target: Target, part: Part, ask: Callable[[Search], Awaitable[None]]) -> None:
        """Failed traces, then slow ones, then any, of the incident and of the time before.

        All kinds of both windows: failed traces read of the incident alone would look like a rise.
        """
        before, incident = self._scope.baseline[:1], self._scope.incident
        await _tried(part, ask, Search("failed", incident))
        for window in before:
            await _tried(part, ask, Search("any", window))
        limit_ms = self._slow_ms(target.service)
        if limit_ms:
            await _tried(part, ask, Search("slow", incident, limit_ms))
        await _tried(part, ask, Search("any", incident))
        for window in before:
            await _tried(part, ask, Search("failed", window))
            if limit_ms:
                await _tried(part, ask, Search("slow", window, limit_ms))

    def _slow_ms(self, component: str) -> int:
        """Slower than nearly all that the component did before the incident; 0 if that is not known."""
        usual = sorted(self._usual_ms[component])
        return max(ceil(usual[int(SLOW * len(usual))]), 1) if usual else 0

    def new(self, trace_ids: Iterable[str], most: int) -> tuple[list[str], int]:
        """Those not read yet, at most so many in the whole collection, and how many are beyond that."""
        fresh = [one for one in dict.fromkeys(trace_ids) if one not in self._seen]
        kept = fresh[: max(most - len(self._seen), 0)]
        self._seen.update(kept)
        return kept, len(fresh) - len(kept)

    def keep(self, part: Part, found: Read) -> None:
        """Keep an answer's spans; a trace that comes twice is kept once. Raises TooMuch."""
        sound = [raw for raw in found.spans if self._earliest_s <= raw.start_s < self._latest_s]
        self._lost += found.malformed + len(found.spans) - len(sound)
        traces: defaultdict[str, list[RawSpan]] = defaultdict(list)
        for raw in sound:
            if raw.trace_id not in self._kept:
                traces[raw.trace_id].append(raw)
        for trace_id, raws in traces.items():
            self._kept.add(trace_id)
            self._note_versions(raws)
            self._note_usual(raws)
            answered = {raw.parent_id: self.names.component(raw.service) for raw in raws if raw.kind == "server"}
            if len(raws) > MAX_SPANS:  # before they become Spans: that of a whole large trace holds up the event loop
                self._cut += len(raws) - MAX_SPANS
                raws = sorted(raws, key=self._dull)[:MAX_SPANS]
            spans = [_with_peer(normalised(raw, self.names), answered) for raw in raws]
            self._note_callees(raws, spans)
            part.keep(spans)

    def keep_asked(self, part: Part, trace_id: str, found: Read) -> None:
        """Keep the one trace that was asked for by its id, with who calls whom in it. Raises NotHere, TooMuch."""
        self.keep(part, replace(found, spans=[raw for raw in found.spans if raw.trace_id == trace_id]))
        part.gaps.extend(self._gaps())
        if not part.spans:
            raise NotHere(f"{self._source} has no spans of trace {trace_id}, or did not keep them")
        part.keep(edges_of(part.spans, self._source, self._callees))

    def _dull(self, raw: RawSpan) -> tuple[bool, bool, float]:
        return not raw.failed, not self.names.knows(raw.service), raw.start_s

    def _note_usual(self, raws: Iterable[RawSpan]) -> None:
        for raw in raws:
            if raw.start_s < self._incident_s and raw.kind in ("server", "consumer"):
                self._usual_ms[self.names.component(raw.service)].append(raw.duration_ms)

    def _note_callees(self, raws: Iterable[RawSpan], spans: Iterable[Span]) -> None:
        for raw, span in zip(raws, spans, strict=True):
            kind = _callee_kind(raw)
            if kind and span.peer and span.kind in ("client", "producer"):
                self._callees.setdefault((span.component, span.peer), kind)

    def _note_versions(self, raws: Iterable[RawSpan]) -> None:
        for raw in raws:
            version = raw.resource.get("service.version", "")
            if version:
                component = self.names.component(raw.service)
                seen = self._versions.setdefault((component, version), _Version(component, version, raw.start_s))
                seen.first_s = min(seen.first_s, raw.start_s)

    def completed(self, telemetry: Telemetry) -> Telemetry:
        """With what only all spans together show: who calls whom, versions that are new, and what is missing."""
        edges = (*telemetry.edges, *edges_of(telemetry.spans, self._source, self._callees))
        return telemetry.model_copy(
            update={
                "edges": tuple(dict.fromkeys(edges)),
                "changes": (*telemetry.changes, *self._deploys()),
                "gaps": (*telemetry.gaps, *self._gaps()),
            }
        )

    def _gaps(self) -> Iterator[Gap]:
        """Once for all traces: there are hundreds."""
        gap = partial(Gap, source=self._source)
        if self._lost:
            told = f"{self._lost:,} spans were not understood, or are of another time"
            yield gap(reason=GapReason.FAILED, detail=told, mend="check the clocks, and what reports the spans")
        if self._cut:
            told = f"{self._cut:,} spans were left out, as their traces have more than {MAX_SPANS} each"
            yield gap(reason=GapReason.TRUNCATED, detail=told, mend=f"look at the largest traces in {self._source}")

    def _deploys(self) -> Iterator[Change]:
        """Versions that are new in the incident, or in the later half of the time before: others were there before."""
        for new in self._versions.values():
            until_s = self._incident_s if new.first_s >= self._incident_s else self._settled_s
            alike = (v for v in self._versions.values() if v.component == new.component)
            old = sorted(v.version for v in alike if v.first_s < until_s)
            if old and new.version not in old:
                yield Change(
                    component=new.component,
                    at=utc(new.first_s),
                    kind="deploy",
                    title=f"service.version {new.version} first seen in traces, before: {', '.join(old)}"[:300],
                    version=new.version,
                )


async def _tried(part: Part, ask: Callable[[Search], Awaitable[None]], search: Search) -> None:
    """A search that is refused says nothing of the others."""
    try:
        await ask(search)
    except Refused as error:
        part.fail(error)


def _with_peer(span: Span, answered: Mapping[str, str]) -> Span:
    """Who answered a call knows its own name better than its caller does. ``answered``: who, by the call's span."""
    callee = answered.get(span.span_id, span.component)
    return replace(span, peer=callee) if span.kind == "client" and callee != span.component else span


def edges_of(spans: Sequence[Span], source: str, callees: Mapping[tuple[str, str], CalleeKind]) -> Iterator[Edge]:
    """Who calls whom: a span and its parent of another component, or a call's peer.

    An edge is asynchronous if only messages go over it. ``callees``: what a caller's callee is, where that is known.
    """
    owner = {(s.trace_id, s.span_id): s for s in spans}
    awaited: dict[tuple[str, str], bool] = {}

    def note(caller: str, callee: str, *, message: bool) -> None:
        if caller != callee:
            awaited[caller, callee] = awaited.get((caller, callee), False) or not message

    for span in spans:
        parent = owner.get((span.trace_id, span.parent_id))
        if parent is not None:
            note(parent.component, span.component, message=parent.kind == "producer" or span.kind == "consumer")
        if span.peer and span.kind in ("client", "producer"):
            note(span.component, span.peer, message=span.kind == "producer")
        if span.peer and span.kind == "consumer":
            note(span.peer, span.component, message=True)
    for (caller, callee), waits in awaited.items():
        kind = callees.get((caller, callee), "")
        yield Edge(caller=caller, callee=callee, source=source, asynchronous=not waits, callee_kind=kind)


# --- one question -------------------------------------------------------------------------------------------------


class TraceSource(HttpSource[_S]):
    """A source that gives a trace by its id."""

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Traces."""
        return frozenset(("trace",))

    def _answer(self, question: LogsRead | TraceRead, scope: Scope) -> tuple[str, Job]:
        assert isinstance(question, TraceRead)
        trace_id = asked_id(question.trace_id)
        return f"trace {trace_id}", partial(self._find, trace_id, scope)

    async def _find(self, trace_id: str, scope: Scope, part: Part) -> None:
        try:
            found = await self._by_id(part, trace_id, around((scope.incident, *scope.baseline)))
        except NotFound:
            part.answered, found = True, Read([])
        Traces(self.name, scope).keep_asked(part, trace_id, found)

    async def _by_id(self, part: Part, trace_id: str, window: Window) -> Read:
        """The spans of the trace, which is looked for in and around the window. Raises CollectorError."""
        raise NotImplementedError
