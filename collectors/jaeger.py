"""Reads Jaeger: failed, slow and usual traces, and who calls whom.

Two APIs: version 3 (OTLP), and the older one of Jaeger's own user interface. A server that knows no version 3 may
answer it with the page of that interface. Version 3 says 404 where it finds no traces, and some servers ignore its
attribute filter: what was asked for as failed is then a further sample.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel
from pydantic_core import from_json

from collectors import _otlp as otlp
from collectors._budget import env
from collectors._http import Api, Params, checked, clock_check, parsed
from collectors._jobs import Job, Part, on_thread
from collectors._prometheus_family import FamilySettings, client, complete, readable
from collectors._queries import asked
from collectors.base import (
    Check,
    Clock,
    CollectorError,
    Declared,
    Edge,
    Forbidden,
    GapReason,
    NotFound,
    RateLimited,
    Scope,
    Target,
    Telemetry,
    TooMuch,
    Unreachable,
    Window,
    utc,
)

SIDE_BY_SIDE = 4
FEW = 4  # traces asked for where the usual number makes too large an answer
LOOK_BACK = timedelta(hours=1)  # of dependencies, before the incident
NEEDS = "set JAEGER_TOKEN, or JAEGER_USERNAME and JAEGER_PASSWORD, with the right to read traces"
COMPLAINT = 300  # characters


class Settings(FamilySettings):
    """``JAEGER_*``: where it is, credentials, and how much of it is read."""

    model_config = env("JAEGER_")

    url: str | None = Field(default=None, description="Base URL of Jaeger's query service, without /api")
    ui_url: str | None = Field(default=None, description="Where people open Jaeger, if not at the URL")
    traces_per_search: int = Field(default=15, ge=1, le=200, description="Traces that one search may find")


def create(clock: Clock, declared: Declared) -> "JaegerCollector":
    """The collector of the server that the settings name. Raises ValueError naming a missing setting."""
    return JaegerCollector(clock, complete(Settings(), "jaeger"))


# --- what the older API answers -----------------------------------------------------------------------------


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Process(_Wire):
    service_name: str = ""
    tags: JsonValue = None


class _Reference(_Wire):
    ref_type: str = ""
    span_id: str = Field(default="", alias="spanID")


class _Log(_Wire):
    fields_: JsonValue = Field(default=None, alias="fields")


class _Span(_Wire):
    trace_id: str = Field(min_length=1, alias="traceID")
    span_id: str = Field(min_length=1, alias="spanID")
    operation_name: str = ""
    references: list[_Reference] | None = None
    start_time: int = Field(gt=0, lt=2**53, description="Epoch microseconds")
    duration: int = Field(ge=0, lt=2**53, description="Microseconds")
    tags: JsonValue = None
    logs: list[_Log] | None = None
    process_id: str = Field(default="", alias="processID")


class _Trace(_Wire):
    spans: list[JsonValue] = Field(default_factory=list)
    processes: dict[str, _Process] = Field(default_factory=dict)


class _Answer(_Wire):
    data: list[JsonValue] | None = None
    errors: JsonValue = None


class _Dependency(_Wire):
    parent: str
    child: str


_Ask = Callable[[Part, str, Params], Awaitable[otlp.Read]]
"""Asks a path of the API with parameters."""


class JaegerCollector(otlp.TraceSource[Settings]):
    """One Jaeger, read-only."""

    name = "jaeger"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold the URL."""
        super().__init__(settings)
        self._clock = clock
        self._api = Api(
            "Jaeger",
            client(settings, auth=None, transport=transport),
            base_setting="JAEGER_URL",
            per_second=30.0,
        )
        self._v3: bool | None = None  # whether the server knows version 3 of the API; None: not known yet
        self._probe = asyncio.Lock()

    async def collect(self, scope: Scope) -> Telemetry:
        """Traces of every target, the alerted service first, and dependencies. Raises CollectorError."""
        traces = otlp.Traces(self.name, scope)
        return traces.completed(await self._gathered(scope, self._jobs(scope, traces), side_by_side=SIDE_BY_SIDE))

    def _jobs(self, scope: Scope, traces: otlp.Traces) -> Iterator[tuple[str, Job]]:
        for index, target in enumerate(scope.targets):
            yield f"traces of {target.service}", partial(self._traces, target, traces)
            if index == 0:
                yield "service dependencies", partial(self._dependencies, scope, traces)

    # --- traces ---

    async def _by_id(self, part: Part, trace_id: str, window: Window) -> otlp.Read:
        searches, ask = self._api_of(v3=await self._knows_v3(part))
        path = f"{searches}/{trace_id}"
        with asked(part, path, window, f"{self._ui}/trace/{trace_id}", kind="traces") as tally:
            found = await ask(part, path, {})
            tally.rows = len(found.spans)
        return found

    async def _traces(self, target: Target, traces: otlp.Traces, part: Part) -> None:
        await traces.search(target, part, partial(self._search, otlp.service_name(target), traces, part))

    async def _search(self, service: str, traces: otlp.Traces, part: Part, search: otlp.Search) -> None:
        try:
            await self._searched(service, traces, part, search, self._settings.traces_per_search)
        except TooMuch as error:
            if self._settings.traces_per_search <= FEW:
                raise
            part.gap(GapReason.TRUNCATED, error.detail, f"it is read again with {FEW} traces")
            await self._searched(service, traces, part, search, FEW)

    async def _searched(self, service: str, traces: otlp.Traces, part: Part, search: otlp.Search, limit: int) -> None:
        path, params, ask = self._question(service, search, limit, v3=await self._knows_v3(part))
        link = self._link(service, search, limit)
        with asked(part, _told(path, params), search.window, link, kind="traces") as tally:
            found = await ask(part, path, params)
            tally.rows = len({raw.trace_id for raw in found.spans})
            tally.truncated = tally.rows >= limit
        traces.keep(part, found)

    async def _knows_v3(self, part: Part) -> bool:
        """Asked once. Raises Forbidden, Unreachable, RateLimited, TooMuch."""
        async with self._probe:
            if self._v3 is None:
                self._v3 = await self._services(part, "/api/v3/services", "services") is not None
            return self._v3

    async def _services(self, part: Part, path: str, field: str) -> list[str] | None:
        """The names of all services; None if the server does not know the path."""
        try:
            body = await self._api.json(part, path, needs=NEEDS)
        except (Forbidden, Unreachable, RateLimited, TooMuch):
            raise
        except CollectorError:  # refused, or answered with the page of the user interface
            return None
        names = body.get(field) if isinstance(body, dict) else None
        return [name for name in names or () if isinstance(name, str)] if isinstance(names, list | None) else None

    def _question(self, service: str, search: otlp.Search, limit: int, *, v3: bool) -> tuple[str, Params, _Ask]:
        """Its path and parameters, and how it is asked."""
        path, ask = self._api_of(v3=v3)
        return path, (_params_v3 if v3 else _params_v1)(service, search, limit), ask

    def _api_of(self, *, v3: bool) -> tuple[str, _Ask]:
        """Where that version of the API has traces, and how it is asked."""
        return ("/api/v3/traces", self._by_v3) if v3 else ("/api/traces", self._by_v1)

    async def _by_v3(self, part: Part, path: str, params: Params) -> otlp.Read:
        try:
            content = await self._api.content(part, path, needs=NEEDS, params=params)
        except NotFound:  # so it says that there are no such traces
            content = b""
        part.answered = True
        return await on_thread(_streamed, content)

    async def _by_v1(self, part: Part, path: str, params: Params) -> otlp.Read:
        text = _told(path, params)
        answer = parsed(_Answer, await self._api.json(part, path, needs=NEEDS, params=params))
        if answer.errors:
            part.gap(GapReason.TRUNCATED, f"{text}: {json.dumps(answer.errors)}"[:COMPLAINT])
        traces = list(readable(part, text, answer.data or (), _Trace))
        return await on_thread(_older, traces)

    # --- dependencies ---

    async def _dependencies(self, scope: Scope, traces: otlp.Traces, part: Part) -> None:
        window = Window(start=scope.incident.start - LOOK_BACK, end=scope.incident.end)
        params: Params = {
            "endTs": int(window.end.timestamp() * 1000),
            "lookback": int((window.end - window.start).total_seconds() * 1000),
        }
        text = _told("/api/dependencies", params)
        with asked(part, text, window, f"{self._ui}/dependencies") as tally:
            answer = parsed(_Answer, await self._api.json(part, "/api/dependencies", needs=NEEDS, params=params))
            rows = list(readable(part, text, answer.data or (), _Dependency))
            tally.rows = len(rows)
        ours = {target.service for target in scope.targets}
        name = traces.names.component
        edges = (Edge(caller=name(row.parent), callee=name(row.child), source=self.name) for row in rows)
        part.keep(edge for edge in edges if {edge.caller, edge.callee} & ours)

    # --- doctor ---

    async def check(self) -> list[Check]:
        """See collectors.base.Collector."""
        look = partial(checked, self.name, self._settings)
        now = self._clock.now()
        known: list[str] = []

        async def services(part: Part) -> str:
            v3 = await self._knows_v3(part)
            path, field = ("/api/v3/services", "services") if v3 else ("/api/services", "data")
            found = await self._services(part, path, field)
            if found is None:
                raise CollectorError(f"{path}: this is no Jaeger query service", "check JAEGER_URL")
            known.extend(found)
            return f"{len(known)} services, by {path}"

        async def sample(part: Part) -> str:
            search = otlp.Search("any", Window(start=now - timedelta(hours=1), end=now))
            path, params, ask = self._question(known[0], search, 1, v3=await self._knows_v3(part))
            found = await ask(part, path, params)
            return f"{_told(path, params)}: {len(found.spans)} spans"

        reached = await look("reachable", services, "check JAEGER_URL")
        if known:
            return [reached, await look("sample query", sample), clock_check(self._api.skew_s)]
        return [reached, clock_check(self._api.skew_s)]

    @property
    def _ui(self) -> str:
        return (self._settings.ui_url or self._settings.url or "").rstrip("/")

    def _link(self, service: str, search: otlp.Search, limit: int) -> str:
        """The search in Jaeger's own user interface."""
        args = {
            "service": service,
            "start": int(search.window.start.timestamp() * 1e6),
            "end": int(search.window.end.timestamp() * 1e6),
            "lookback": "custom",
            "limit": limit,
            **_filters(search),
        }
        return f"{self._ui}/search?{urlencode(args)}"


# --- queries ------------------------------------------------------------------------------------------------


def _params_v3(service: str, search: otlp.Search, limit: int) -> Params:
    params: dict[str, str | int | float | list[str]] = {
        "query.service_name": service,
        "query.start_time_min": _rfc3339(search.window.start.timestamp()),
        "query.start_time_max": _rfc3339(search.window.end.timestamp()),
        "query.search_depth": limit,
        "query.num_traces": limit,  # its name on older servers
    }
    if search.kind == "slow":
        params["query.duration_min"] = f"{search.slower_than_ms}ms"
    if search.kind == "failed":
        params["query.attributes"] = '{"error":"true"}'
    return params


def _params_v1(service: str, search: otlp.Search, limit: int) -> Params:
    return {
        "service": service,
        "start": int(search.window.start.timestamp() * 1e6),
        "end": int(search.window.end.timestamp() * 1e6),
        "limit": limit,
        **_filters(search),
    }


def _filters(search: otlp.Search) -> dict[str, str]:
    """What makes a search one for failed or slow traces, as the older API and the user interface say it."""
    match search.kind:
        case "failed":
            return {"tags": '{"error":"true"}'}
        case "slow":
            return {"minDuration": f"{search.slower_than_ms}ms"}
        case "any":
            return {}


def _told(path: str, params: Params) -> str:
    return f"{path}?{urlencode(params, doseq=True)}" if params else path


def _rfc3339(epoch_s: float) -> str:
    return utc(epoch_s).isoformat().replace("+00:00", "Z")


# --- rows to telemetry --------------------------------------------------------------------------------------


def _streamed(content: bytes) -> otlp.Read:
    """The spans of one JSON document, or of several, one a line. Raises CollectorError."""
    try:
        documents: list[JsonValue] = [from_json(content)] if content else []
    except ValueError:
        try:
            documents = [from_json(line) for line in content.splitlines() if line.strip()]
        except ValueError:
            raise CollectorError("/api/v3/traces: the answer is no JSON", "check JAEGER_URL") from None
    found = [otlp.read(document) for document in documents]
    return otlp.Read([raw for one in found for raw in one.spans], sum(one.malformed for one in found))


def _older(traces: Sequence[_Trace]) -> otlp.Read:
    """The spans of the older API's traces."""
    found = otlp.Read([])
    malformed = 0
    for trace in traces:
        resources = {process_id: _resource(process) for process_id, process in trace.processes.items()}
        for row in trace.spans:
            try:
                span = _Span.model_validate(row)
                found.spans.append(_raw(span, resources.get(span.process_id, {})))
            except ValueError:  # pydantic's ValidationError, and an id that is none
                malformed += 1
    return otlp.Read(found.spans, malformed)


def _resource(process: _Process) -> dict[str, str]:
    return _tags(process.tags) | {"service.name": process.service_name}


def _tags(pairs: JsonValue) -> dict[str, str]:
    """Jaeger's list of key, type and value as texts."""
    found: dict[str, str] = {}
    for pair in pairs[: otlp.MAX_ATTRIBUTES] if isinstance(pairs, list) else ():
        if isinstance(pair, dict):
            key, value = pair.get("key"), pair.get("value")
            if isinstance(key, str) and isinstance(value, str | int | float):
                found[key] = otlp.text_of(value)
    return found


def _raw(span: _Span, resource: Mapping[str, str]) -> otlp.RawSpan:
    tags = _tags(span.tags)
    parent = next((r.span_id for r in span.references or () if r.ref_type == "CHILD_OF"), "")
    trace_id, span_id = otlp.hex_id(span.trace_id, 32), otlp.hex_id(span.span_id, 16)
    if not trace_id or not span_id:
        raise ValueError("a span without an id")
    return otlp.RawSpan(
        trace_id=trace_id,
        span_id=span_id,
        parent_id=otlp.hex_id(parent, 16) if parent else "",
        name=span.operation_name[: otlp.MAX_TEXT],
        start_s=span.start_time / 1e6,
        duration_ms=span.duration / 1e3,
        kind=otlp.kind_of(tags.get("span.kind", "")),
        failed=tags.get("error") == "true" or tags.get("otel.status_code") == "ERROR",
        exception=_exception(span) or tags.get("otel.status_description", ""),
        attributes=tags,
        resource=resource,
    )


def _exception(span: _Span) -> str:
    """What the first log of an exception says: OpenTelemetry's fields, or OpenTracing's."""
    for log in span.logs or ():
        fields = _tags(log.fields_)
        told = otlp.exception(fields)
        if fields.get("event") == "error" and not told:
            told = ": ".join(filter(None, (fields.get("error.kind", ""), fields.get("message", ""))))
        if told:
            return told
    return ""
