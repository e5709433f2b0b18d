"""Reads Grafana Tempo: failed, slow and usual traces, and request rates, errors and durations by TraceQL metrics.

A search without both ends of its window looks at recent data only, and finds «the first N», not the same ones twice:
traces are a sample. Rates and durations are counted by Tempo itself over all spans, where it can: TraceQL metrics need
the local-blocks processor of its metrics-generator, or Tempo 3.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from math import ceil, floor, isfinite
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, Field, JsonValue

from collectors import _otlp as otlp
from collectors._budget import env
from collectors._http import Api, Params, checked, clock_check, parsed
from collectors._jobs import Job, Part, on_thread
from collectors._prometheus_family import FamilySettings, client, complete, literal, not_understood
from collectors._queries import asked
from collectors._windows import concatenated, joined, whole_periods
from collectors.base import (
    Check,
    Clock,
    CollectorError,
    Declared,
    GapReason,
    NotFound,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Target,
    Telemetry,
    TooMuch,
    Window,
)

SIDE_BY_SIDE = 6
STEP_S = 60  # of metrics; the same when an effect is measured
NEARBY = timedelta(hours=1)  # how far beyond the window a trace's other spans are looked for
NEEDS = "set TEMPO_TOKEN or TEMPO_USERNAME and TEMPO_PASSWORD with the right to read traces; and TEMPO_ORG_ID"
METRICS_NEED = "turn on the local-blocks processor of Tempo's metrics-generator, or set TEMPO_METRICS=false"
MAX_DURATION = "raise query_frontend.metrics.max_duration in Tempo's configuration"


class Settings(FamilySettings):
    """``TEMPO_*``: where it is, credentials, and how much of it is read."""

    model_config = env("TEMPO_")

    metrics: bool = Field(default=True, description="Read rates, errors and durations by TraceQL metrics")
    traces_per_search: int = Field(default=15, ge=1, le=200, description="Traces that one search may find")
    max_traces: int = Field(default=150, ge=1, description="Traces that a collection may read")
    grafana_url: str | None = Field(default=None, description="Where people open Grafana: queries link to it")
    grafana_datasource: str | None = Field(default=None, description="UID of Tempo's data source in Grafana")


def create(clock: Clock, declared: Declared) -> "TempoCollector":
    """The collector of the server that the settings name. Raises ValueError naming a missing setting."""
    return TempoCollector(clock, complete(Settings(), "tempo"))


# --- what Tempo answers -------------------------------------------------------------------------------------


class _Found(BaseModel):
    traces: list[JsonValue] | None = None
    metrics: dict[str, JsonValue] = Field(default_factory=dict)


class _Sample(BaseModel):
    timestampMs: int = Field(gt=0, lt=2**53)  # noqa: N815
    value: float = 0.0  # left out where it is nought


class _Series(BaseModel):
    labels: JsonValue = None
    samples: list[JsonValue] = Field(default_factory=list)


class _Metrics(BaseModel):
    series: list[_Series] | None = None
    status: str | int = ""
    message: str = ""


_Points = dict[float, float]  # by epoch seconds


class TempoCollector(otlp.TraceSource[Settings]):
    """One tenant of one Tempo, read-only."""

    name = "tempo"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold the URL."""
        super().__init__(settings)
        self._clock = clock
        self._api = Api(
            "Tempo",
            client(settings, auth=None, transport=transport),
            base_setting="TEMPO_URL",
            per_second=60.0,
            at_once=8,
        )
        self._trace_v2: bool | None = None  # whether traces are read by version 2 of the API; None: not known yet
        self._metrics = settings.metrics  # whether Tempo counts

    async def collect(self, scope: Scope) -> Telemetry:
        """Rates and traces of every target, the alerted service first. Raises CollectorError."""
        traces = otlp.Traces(self.name, scope)
        return traces.completed(await self._gathered(scope, self._jobs(scope, traces), side_by_side=SIDE_BY_SIDE))

    def _jobs(self, scope: Scope, traces: otlp.Traces) -> Iterator[tuple[str, Job]]:
        for target in scope.targets:
            if self._metrics:
                yield f"TraceQL metrics of {target.service}", partial(self._rates, scope, target)
            yield f"traces of {target.service}", partial(self._traces, target, traces)

    # --- traces ---

    async def _by_id(self, part: Part, trace_id: str, window: Window) -> otlp.Read:
        link = _link(self._settings, trace_id, window)
        with asked(part, f"/api/v2/traces/{trace_id}", window, link, kind="traces") as tally:
            body = await self._trace_body(part, trace_id, window)
            found = await on_thread(otlp.read, body)
            tally.rows, tally.truncated = len(found.spans), _tell_partial(part, body)
        return found

    async def _traces(self, target: Target, traces: otlp.Traces, part: Part) -> None:
        await traces.search(target, part, partial(self._search, target, traces, part))

    async def _search(self, target: Target, traces: otlp.Traces, part: Part, search: otlp.Search) -> None:
        query = _spans_of(target, search)
        found = await self._found(part, query, search.window, self._settings.traces_per_search)
        ids, beyond = traces.new(found, self._settings.max_traces)
        if beyond:
            part.gap(
                GapReason.TRUNCATED,
                f"not all traces that were found were read: {self._settings.max_traces} is the limit",
                "raise TEMPO_MAX_TRACES",
            )
        await self._read(part, traces, ids, search.window)

    async def _found(self, part: Part, query: str, window: Window, limit: int) -> list[str]:
        """Ids of the traces that a search finds, in hex."""
        start, end = floor(window.start.timestamp()), ceil(window.end.timestamp())
        params: Params = {"q": query, "start": start, "end": end, "limit": limit, "spss": 1}
        with asked(part, query, window, _link(self._settings, query, window), kind="traces") as tally:
            answer = parsed(_Found, await self._api.json(part, "/api/search", needs=NEEDS, params=params))
            ids = [_trace_id(row) for row in answer.traces or ()]
            not_understood(part, query, ids.count(""))
            tally.rows, tally.truncated = len(ids), len(ids) >= limit or _unfinished(answer.metrics)
        return [one for one in ids if one]

    async def _read(self, part: Part, traces: otlp.Traces, ids: Sequence[str], window: Window) -> None:
        """The traces side by side; what came is kept, what failed is told once."""
        failures = [f for f in await asyncio.gather(*(self._trace(part, traces, i, window) for i in ids)) if f]
        for failure in failures:
            if isinstance(failure, TooMuch):
                raise failure
        if failures:
            first = failures[0]
            part.gap(first.reason, f"{len(failures)} of {len(ids)} traces: {first.detail}", first.mend)

    async def _trace(self, part: Part, traces: otlp.Traces, trace_id: str, window: Window) -> CollectorError | None:
        try:
            body = await self._trace_body(part, trace_id, window)
            traces.keep(part, await on_thread(otlp.read, body))
        except CollectorError as error:
            return error
        _tell_partial(part, body)
        return None

    async def _trace_body(self, part: Part, trace_id: str, window: Window) -> JsonValue:
        """By version 2 of the API, or by the first where an older Tempo does not know it."""
        params = {
            "start": floor((window.start - NEARBY).timestamp()),
            "end": ceil((window.end + NEARBY).timestamp()),
        }
        if self._trace_v2 is not False:
            try:
                body = await self._api.json(part, f"/api/v2/traces/{trace_id}", needs=NEEDS, params=params)
            except NotFound:
                if self._trace_v2:
                    raise
            else:
                self._trace_v2 = True
                return body
        body = await self._api.json(part, f"/api/traces/{trace_id}", needs=NEEDS, params=params)
        if self._trace_v2 is None:
            self._trace_v2 = False
        return body

    # --- metrics ---

    async def _rates(self, scope: Scope, target: Target, part: Part) -> None:
        if not self._metrics:
            return
        refs = _refs(target)
        windows = joined((scope.incident, *scope.baseline, *scope.seasonal))
        pieces: defaultdict[SeriesRef, list[Series]] = defaultdict(list)
        try:
            for window in reversed(windows):  # the incident first
                for query in dict.fromkeys(ref.query for ref in refs):
                    for series in await self._series(part, query, refs, window):
                        pieces[series.ref].append(series)
        except NotFound as error:
            self._metrics = False
            part.gap(GapReason.NOT_CONFIGURED, f"no TraceQL metrics: {error.detail}", METRICS_NEED)
        except Refused as error:
            too_long = "duration" in error.detail
            part.gap(error.reason, f"TraceQL metrics: {error.detail}", MAX_DURATION if too_long else METRICS_NEED)
        finally:  # also if time is up
            part.keep(concatenated(found) for found in pieces.values())

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' queries over another window. Raises CollectorError."""
        mine = [ref for ref in refs if ref.source == self.name]
        part = self._part("effect")
        found: list[Series] = []
        for query in dict.fromkeys(ref.query for ref in mine):
            found += await self._series(part, query, mine, window)
        return found

    async def _series(self, part: Part, query: str, refs: Iterable[SeriesRef], window: Window) -> list[Series]:
        """The metrics that a query gives: those of the refs that have it. Raises CollectorError."""
        whole = whole_periods(window, STEP_S)
        params: Params = {
            "q": query,
            "start": int(whole.start.timestamp()),
            "end": int(whole.end.timestamp()),
            "step": f"{STEP_S}s",
        }
        with asked(part, query, window, _link(self._settings, query, window), kind="metrics") as tally:
            body = await self._api.json(part, "/api/metrics/query_range", needs=NEEDS, params=params)
            answer = parsed(_Metrics, body)
            rows = [(_labels(row), _points(part, query, row, whole)) for row in answer.series or ()]
            tally.rows = sum(len(points) for _, points in rows)
            tally.truncated = str(answer.status).upper() in ("PARTIAL", "1")
        if tally.truncated:
            told = f"metrics came in part: {answer.message}"[:300]
            part.gap(GapReason.TRUNCATED, told, "raise the limit of Tempo's that it names")
        found = ((ref, _measured(ref, rows)) for ref in refs if ref.query == query)
        return [_one_series(ref, points) for ref, points in found if points]

    # --- doctor ---

    async def check(self) -> list[Check]:
        """See collectors.base.Collector."""
        look = partial(checked, self.name, self._settings)
        now = self._clock.now()
        window = Window(start=now - timedelta(minutes=10), end=now)

        async def echo(part: Part) -> str:
            await self._api.content(part, "/api/echo", needs=NEEDS)
            return "Tempo's query-frontend answers"

        async def search(part: Part) -> str:
            return f"{{}}: {len(await self._found(part, '{}', window, 1))} trace"

        async def metrics(part: Part) -> str:
            await self._series(part, "{} | rate()", [], window)
            return "{} | rate()"

        checks = [await look("reachable", echo), await look("search traces", search)]
        if self._settings.metrics:
            checks.append(await look("TraceQL metrics", metrics, METRICS_NEED))
        return [*checks, clock_check(self._api.skew_s)]


# --- queries ------------------------------------------------------------------------------------------------


def _service(target: Target) -> str:
    return f"resource.service.name={literal(otlp.service_name(target))}"


def _spans_of(target: Target, search: otlp.Search) -> str:
    """TraceQL that selects the target's spans of that kind."""
    match search.kind:
        case "failed":
            return f"{{{_service(target)} && status=error}}"
        case "slow":
            return f"{{{_service(target)} && duration>{search.slower_than_ms}ms}}"
        case "any":
            return f"{{{_service(target)}}}"


def _refs(target: Target) -> list[SeriesRef]:
    """What Tempo counts of a service. Requests and errors are one query, so that no error is known from no answer."""
    served = f"{{{_service(target)} && (kind=server || kind=consumer)}}"
    rate = f"{served} | rate() by (status)"
    duration = f"{served} | quantile_over_time(duration, .95)"
    ref = partial(SeriesRef, source=TempoCollector.name, component=target.service)
    return [
        ref(metric="traces.requests", statistic="rate", unit="/s", query=rate),
        ref(metric="traces.errors", statistic="rate", unit="/s", query=rate),
        ref(metric="traces.duration", statistic="p95", unit="ms", query=duration),
    ]


def _link(settings: Settings, query: str, window: Window) -> str | None:
    """Grafana's Explore with the query."""
    uid = settings.grafana_datasource
    if not settings.grafana_url or not uid:
        return None
    source = {"type": "tempo", "uid": uid}
    pane = {
        "datasource": uid,
        "queries": [{"refId": "A", "datasource": source, "queryType": "traceql", "query": query}],
        "range": {side: str(int(at.timestamp() * 1000)) for side, at in (("from", window.start), ("to", window.end))},
    }
    panes = json.dumps({"tempo": pane}, ensure_ascii=False, separators=(",", ":"))
    return f"{settings.grafana_url.rstrip('/')}/explore?{urlencode({'schemaVersion': 1, 'panes': panes})}"


# --- rows to telemetry --------------------------------------------------------------------------------------


def _trace_id(row: JsonValue) -> str:
    """In hex; empty if there is none."""
    told = row.get("traceID") if isinstance(row, dict) else None
    try:
        return otlp.hex_id(told, 32) if isinstance(told, str) else ""
    except ValueError:
        return ""


def _tell_partial(part: Part, body: JsonValue) -> bool:
    """Whether the trace came in part; then a gap says so."""
    if not isinstance(body, dict) or str(body.get("status", "")).upper() != "PARTIAL":
        return False
    told = f"traces came in part: {body.get('message', '')}"[:300]
    part.gap(GapReason.TRUNCATED, told, "raise the limit of Tempo's that it names")
    return True


def _unfinished(metrics: Mapping[str, JsonValue]) -> bool:
    """Whether Tempo answered before it had looked everywhere."""
    done, total = metrics.get("completedJobs", 0), metrics.get("totalJobs", 0)
    return isinstance(done, int) and isinstance(total, int) and done < total


def _labels(row: _Series) -> frozenset[str]:
    return frozenset(otlp.attributes(row.labels).values())


def _points(part: Part, query: str, row: _Series, window: Window) -> _Points:
    """The points inside the window; NaN is none, and what is not understood is told."""
    points: _Points = {}
    malformed = 0
    for sample in row.samples:
        try:
            point = _Sample.model_validate(sample)
        except ValueError:
            malformed += 1
            continue
        at_s = point.timestampMs / 1000
        if isfinite(point.value) and window.start.timestamp() <= at_s < window.end.timestamp():
            points[at_s] = point.value
    not_understood(part, query, malformed)
    return points


def _measured(ref: SeriesRef, rows: Sequence[tuple[frozenset[str], _Points]]) -> _Points:
    """A ref's points. No error among requests is nought errors; a duration of nought is that of no request."""
    total: defaultdict[float, float] = defaultdict(float)
    for labels, points in rows:
        for at, value in points.items():
            total[at] += value if ref.metric != "traces.errors" or "error" in labels else 0.0
    if ref.metric != "traces.duration":
        return dict(total)
    return {at: seconds * 1000 for at, seconds in total.items() if seconds > 0}


def _one_series(ref: SeriesRef, points: _Points) -> Series:
    epoch_s = tuple(sorted(points))
    return Series(ref=ref, epoch_s=epoch_s, values=tuple(points[at] for at in epoch_s))
