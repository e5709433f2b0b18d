"""Reads Langfuse: latency, errors, tokens, cost and scores of LLM calls, failed and usual calls, new models, prompts.

Which traces are a service's, the catalogue says (``langfuse:`` with environment, trace_name, tags); of other services
nothing is asked. Two APIs: version 2 (Langfuse Cloud, self-hosted from v4 on) and the older one, with latencies in
seconds in rows and in milliseconds in metrics. What people wrote and models answered is not read.

But for current SDKs over OpenTelemetry, data may come up to ten minutes late.
"""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from math import isfinite
from typing import Literal, cast

import httpx
from pydantic import (
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic.alias_generators import to_camel

from collectors._budget import SourceSettings, env
from collectors._http import Api, Params, checked, clock_check, parsed
from collectors._jobs import Job, Part
from collectors._queries import asked
from collectors._questions import NotDeclared, NotHere
from collectors._source import HttpSource
from collectors._urls import base_url as checked_url
from collectors._windows import around, concatenated, joined, whole_periods
from collectors.base import (
    Change,
    Check,
    Clock,
    Declared,
    GapReason,
    LangfuseTraces,
    LogLine,
    LogsRead,
    Measures,
    NotFound,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Span,
    Target,
    Telemetry,
    TraceRead,
    Window,
)

SIDE_BY_SIDE = 4
PAGE = {True: 500, False: 100}  # rows at once, by whether version 2 of the API is known
MAX_METRIC_ROWS = 1000  # of one answer; the most there are
SETTLED = timedelta(minutes=10)  # of a window: what is first seen later is new
LATE = timedelta(minutes=10)  # how long the older API may take to know of a call
EARLY = timedelta(hours=1)  # how long before its observations a trace may have begun
MAX_TEXT = 2000  # characters of a status message
TRACE_ID = re.compile(r"[0-9a-fA-F]{8,32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")  # new SDKs', old ones'
FIELDS = "core,basic,model,usage,prompt,metrics"  # neither io nor metadata: what people wrote
NEEDS = "set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY of the project, and LANGFUSE_HOST of its region"

# Scores that are worse the higher they are; of all others a fall is bad.
_WORSE_UP = ("toxic", "hallucinat", "bias", "harm", "refus", "leak", "pii", "jailbreak", "injection", "risk", "error")
_VENDORS = (
    ("claude", "anthropic"),
    ("gpt-", "openai"),
    ("o1", "openai"),
    ("o3", "openai"),
    ("o4", "openai"),
    ("text-embedding", "openai"),
    ("gemini", "google"),
    ("mistral", "mistral"),
    ("mixtral", "mistral"),
    ("llama", "meta"),
    ("command", "cohere"),
    ("deepseek", "deepseek"),
)


class Settings(SourceSettings):
    """``LANGFUSE_*``: where it is, the project's keys, and how much of it is read."""

    model_config = env("LANGFUSE_")

    host: str | None = Field(default=None, description="e.g. https://cloud.langfuse.com, https://us.cloud.langfuse.com")
    base_url: str | None = Field(default=None, description="The same, by its newer name")
    public_key: SecretStr | None = Field(default=None, description="Public key of the project, pk-lf-…")
    secret_key: SecretStr | None = Field(default=None, description="Secret key of the project, sk-lf-…")
    project_id: str | None = Field(default=None, description="ID of the project: queries link to it")
    rows_per_search: int = Field(default=300, ge=10, le=10_000, description="Observations that one search may read")

    @field_validator("host", "base_url")
    @classmethod
    def _usable(cls, url: str | None) -> str | None:
        return checked_url(url) if url else None

    @property
    def url(self) -> str | None:
        """Where Langfuse is."""
        return self.base_url or self.host


def create(clock: Clock, declared: Declared) -> "LangfuseCollector":
    """The collector of the project that the settings name. Raises ValueError naming a missing setting."""
    settings = Settings()
    if not settings.url:
        raise ValueError("The collector 'langfuse' needs LANGFUSE_HOST: e.g. https://cloud.langfuse.com.")
    if settings.public_key is None:
        raise ValueError("The collector 'langfuse' needs LANGFUSE_PUBLIC_KEY: the project's public key.")
    if settings.secret_key is None:
        raise ValueError("The collector 'langfuse' needs LANGFUSE_SECRET_KEY: the project's secret key.")
    return LangfuseCollector(clock, settings)


# --- what Langfuse answers ----------------------------------------------------------------------------------


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)


class _Observation(_Wire):
    """A row of either API; those of the older one hold more, which is not kept."""

    id: str = Field(min_length=1)
    trace_id: str | None = None
    type: str = ""
    name: str | None = None
    start_time: AwareDatetime
    end_time: AwareDatetime | None = None
    level: str = "DEFAULT"
    status_message: str | None = None
    parent_observation_id: str | None = None
    model: str | None = Field(default=None, validation_alias=AliasChoices("providedModelName", "model"))
    prompt_name: str | None = None
    prompt_version: int | None = None
    latency: float | None = Field(default=None, description="Seconds")
    cost_usd: float | None = Field(default=None, validation_alias=AliasChoices("totalCost", "calculatedTotalCost"))
    usage: JsonValue = Field(default=None, validation_alias=AliasChoices("usageDetails", "usage"))

    @property
    def latency_ms(self) -> float:
        """From start to end; 0 if it has not ended."""
        if self.end_time:
            return max((self.end_time - self.start_time).total_seconds() * 1000, 0.0)
        return max((self.latency or 0.0) * 1000, 0.0)

    def tokens(self, side: Literal["input", "output"]) -> float:
        """Of the prompt, or of the answer."""
        return (_number(self.usage.get(side)) or 0.0) if isinstance(self.usage, dict) else 0.0

    @property
    def failed(self) -> bool:
        """Whether its level is ERROR."""
        return self.level == "ERROR"


class _Meta(_Wire):
    cursor: str | None = None
    total_pages: int | None = None


class _Page(_Wire):
    data: list[JsonValue] = Field(default_factory=list)
    meta: _Meta = Field(default_factory=_Meta)


class _Score(_Wire):
    name: str
    timestamp: AwareDatetime
    value: float
    data_type: str = "NUMERIC"


class _Project(_Wire):
    name: str = ""


# --- queries ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Measure:
    """A column of an answer, and the metric that it becomes."""

    metric: str
    statistic: str
    unit: str
    measures: Measures = ""


_COLUMNS: Mapping[str, _Measure] = {
    "p95_latency": _Measure("llm.latency_ms", "p95", "ms"),
    "sum_totalCost": _Measure("llm.cost_usd", "sum", "USD", "traffic"),
    "sum_inputTokens": _Measure("llm.tokens.input", "sum", "", "traffic"),
    "sum_outputTokens": _Measure("llm.tokens.output", "sum", "", "traffic"),
}
_CALLS, _ERRORS = _Measure("llm.calls", "count", "", "traffic"), _Measure("llm.errors", "count", "")
_Points = dict[tuple[_Measure, str], dict[float, float]]  # by metric and model: epoch seconds and value
_Row = dict[str, JsonValue]


def _filters(traces: LangfuseTraces) -> list[JsonValue]:
    """The service's traces, as the filters of both the rows and the metrics have it."""
    found: list[JsonValue] = []
    for column, value in (("environment", traces.environment), ("traceName", traces.trace_name)):
        if value:
            found.append({"type": "string", "column": column, "operator": "=", "value": value})
    if traces.tags:
        tags: list[JsonValue] = list(traces.tags)
        found.append({"type": "arrayOptions", "column": "tags", "operator": "all of", "value": tags})
    return found


def _question(traces: LangfuseTraces, view: str, dimensions: Sequence[str], measures: Sequence[str]) -> str:
    """A query of the metrics API without its window. A measure is ``<aggregation>_<measure>``, as in the answer."""
    pairs = [one.split("_", 1) for one in measures]
    query: _Row = {
        "view": view,
        "dimensions": [{"field": name} for name in dimensions],
        "metrics": [{"measure": measure, "aggregation": aggregation} for aggregation, measure in pairs],
        "filters": _filters(traces),
        "timeDimension": {"granularity": "minute"},
    }
    return json.dumps(query, ensure_ascii=False)


def _performance(traces: LangfuseTraces) -> str:
    return _question(traces, "observations", ["providedModelName"], list(_COLUMNS))


def _levels(traces: LangfuseTraces) -> str:
    """Calls and errors in one, so that no error is known from no answer."""
    return _question(traces, "observations", ["providedModelName", "level"], ["count_count"])


def _versions(traces: LangfuseTraces) -> str:
    return _question(traces, "observations", ["providedModelName", "promptName", "promptVersion"], ["count_count"])


def _scores(traces: LangfuseTraces) -> str:
    return _question(traces, "scores-numeric", ["name"], ["avg_value"])


def _rows_question(traces: LangfuseTraces, of: Literal["observations", "scores"]) -> str:
    """What is counted here, row by row, where there is no metrics API."""
    return json.dumps({"rows": of, **traces.model_dump(mode="json")}, ensure_ascii=False)


class LangfuseCollector(HttpSource[Settings]):
    """One Langfuse project, read-only."""

    name = "langfuse"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold where it is, and both keys."""
        super().__init__(settings)
        self._clock = clock
        keys = [key.get_secret_value() if key else "" for key in (settings.public_key, settings.secret_key)]
        self._api = Api(
            "Langfuse",
            httpx.AsyncClient(
                base_url=settings.url or "",
                auth=httpx.BasicAuth(*keys),
                timeout=httpx.Timeout(12.0, connect=3.0),
                transport=transport,
            ),
            base_setting="LANGFUSE_HOST",
            at_once=4,
        )
        self._v2: bool | None = None  # whether the server knows version 2 of the API; None: not known yet
        self._probe = asyncio.Lock()

    async def collect(self, scope: Scope) -> Telemetry:
        """LLM calls of every target that the catalogue gives traces; of others nothing. Raises CollectorError."""
        return await self._gathered(scope, self._jobs(scope), side_by_side=SIDE_BY_SIDE)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' queries over another window. Raises CollectorError."""
        mine = {ref for ref in refs if ref.source == self.name}
        part = self._part("effect")
        found: list[Series] = []
        for component, query in dict.fromkeys((ref.component, ref.query) for ref in refs if ref in mine):
            points = await self._points(part, query, whole_periods(window, 60))
            found += [series for series in _series(component, query, points) if series.ref in mine]
        return found

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        for target in scope.targets:
            if target.langfuse is not None:
                yield f"LLM metrics of {target.service}", partial(self._numbers, scope, target, target.langfuse)
                yield f"LLM calls of {target.service}", partial(self._calls, scope, target, target.langfuse)
                yield f"LLM scores of {target.service}", partial(self._judgements, scope, target, target.langfuse)

    # --- one trace ---

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Traces: observations are their spans."""
        return frozenset(("trace",))

    def _answer(self, question: LogsRead | TraceRead, scope: Scope) -> tuple[str, Job]:
        assert isinstance(question, TraceRead)
        trace_id = question.trace_id
        if not TRACE_ID.fullmatch(trace_id):
            raise NotHere(f"{trace_id}: Langfuse's trace ids are 32 hexadecimal digits, or a UUID")
        if not any(target.langfuse for target in scope.targets):
            raise NotDeclared("the catalogue gives no service traces of Langfuse")
        return f"trace {trace_id}", partial(self._trace, trace_id, scope)

    async def _trace(self, trace_id: str, scope: Scope, part: Part) -> None:
        """Of the first service that has it: a trace of none of them is somebody else's. Raises CollectorError."""
        window = around((scope.incident, *scope.baseline))
        for target in scope.targets:
            if target.langfuse is not None:
                rows = self._observations(part, target.langfuse, window, trace_id=trace_id)
                found = [one async for one in rows if one.trace_id == trace_id]
                if part.queries[-1].truncated:
                    told = f"only {len(found)} observations of trace {trace_id} were read"
                    part.gap(GapReason.TRUNCATED, told, "raise LANGFUSE_ROWS_PER_SEARCH")
                if found:
                    part.keep(_span(target.service, one) for one in found)
                    return
        raise NotHere(f"Langfuse has no observation of trace {trace_id} in the services' traces")

    # --- numbers ---

    async def _numbers(self, scope: Scope, target: Target, traces: LangfuseTraces, part: Part) -> None:
        windows = joined((scope.incident, *scope.baseline, *scope.seasonal))
        if not await self._knows_v2(part) and self._clock.now() - scope.incident.end < LATE:
            part.gap(
                GapReason.TRUNCATED, "Langfuse's older API may not know the last ten minutes yet", "update Langfuse"
            )
        try:
            for query in (_performance(traces), _levels(traces)):
                await self._keep_series(part, target, query, windows)
        except Refused as error:
            part.gap(
                GapReason.NOT_CONFIGURED,
                f"no metrics API, so that calls are counted from rows: {error.detail}",
                "update Langfuse, for series of other days too",
            )
            windows = joined((scope.incident, *scope.baseline))
            await self._keep_series(part, target, _rows_question(traces, "observations"), windows)
            return
        await self._new_versions(part, target, _versions(traces), joined((scope.incident, *scope.baseline)))

    async def _judgements(self, scope: Scope, target: Target, traces: LangfuseTraces, part: Part) -> None:
        windows = joined((scope.incident, *scope.baseline))
        try:
            await self._keep_series(part, target, _scores(traces), windows)
        except Refused:
            if traces.trace_name:
                mend = "update Langfuse, or select the service's traces by environment or tags"
                part.gap(GapReason.NOT_CONFIGURED, "scores cannot be told apart by the name of their trace", mend)
                return
            await self._keep_series(part, target, _rows_question(traces, "scores"), windows)

    async def _keep_series(self, part: Part, target: Target, query: str, windows: Sequence[Window]) -> None:
        pieces: defaultdict[SeriesRef, list[Series]] = defaultdict(list)
        try:
            for window in reversed(windows):  # the incident first
                points = await self._points(part, query, whole_periods(window, 60))
                for series in _series(target.service, query, points):
                    pieces[series.ref].append(series)
        finally:  # also if the source fails, or time is up
            part.keep(concatenated(found) for found in pieces.values())

    async def _points(self, part: Part, query: str, window: Window) -> _Points:
        """What a query of the metrics API, or a count of rows, gives over a window. Raises CollectorError."""
        question = cast("_Row", json.loads(query))
        of = question.pop("rows", None)
        if of is None:
            return _tabled(await self._metrics(part, query, window), window)
        traces = LangfuseTraces.model_validate(question)
        if of == "scores":
            return _averaged([score async for score in self._score_rows(part, traces, window)])
        observations = [one async for one in self._observations(part, traces, window)]
        if part.queries[-1].truncated and observations:  # the oldest are missing: of their minutes nothing is known
            oldest = min(one.start_time for one in observations)
            observations = [one for one in observations if _minute(one.start_time) > _minute(oldest)]
        return _counted(observations)

    async def _metrics(self, part: Part, query: str, window: Window) -> list[_Row]:
        path = "/api/public/v2/metrics" if await self._knows_v2(part) else "/api/public/metrics"
        bounds = {"fromTimestamp": _iso(window.start), "toTimestamp": _iso(window.end)}
        question = json.loads(query) | bounds | {"config": {"row_limit": MAX_METRIC_ROWS}}
        params = {"query": json.dumps(question, ensure_ascii=False)}
        with asked(part, f"{path}?query={query}", window, _link(self._settings)) as tally:
            page = parsed(_Page, await self._api.json(part, path, needs=NEEDS, params=params))
            rows = [row for row in page.data if isinstance(row, dict)]
            tally.rows, tally.truncated = len(rows), len(rows) >= MAX_METRIC_ROWS
        if tally.truncated:
            told = f"only {MAX_METRIC_ROWS} rows of metrics came: {query}"[:300]
            part.gap(
                GapReason.TRUNCATED, told, "name a trace or an environment in langfuse of the service, in the catalogue"
            )
        return rows

    async def _new_versions(self, part: Part, target: Target, query: str, windows: Iterable[Window]) -> None:
        for window in windows:
            rows = await self._metrics(part, query, whole_periods(window, 60))
            part.keep(_changes(target.service, rows, window))

    # --- rows ---

    async def _calls(self, scope: Scope, target: Target, traces: LangfuseTraces, part: Part) -> None:
        """Failed calls, then any, of the incident and of the time before: one window alone would look like a rise."""
        seen: set[str] = set()
        for level in ("ERROR", ""):
            for window in (scope.incident, *scope.baseline[:1]):
                async for one in self._observations(part, traces, window, level):
                    if one.id not in seen:
                        seen.add(one.id)
                        self._keep_call(part, target.service, one)

    def _keep_call(self, part: Part, service: str, one: _Observation) -> None:
        part.keep([_span(service, one)])
        if one.failed:
            part.logs.add(_log_line(service, one))

    async def _observations(
        self, part: Part, traces: LangfuseTraces, window: Window, level: str = "", trace_id: str = ""
    ) -> AsyncIterator[_Observation]:
        """The newest first. Raises CollectorError."""
        malformed = 0
        v2 = await self._knows_v2(part)
        path = "/api/public/v2/observations" if v2 else "/api/public/observations"
        wanted = None if v2 else await self._trace_ids(part, traces, window)
        about = " ".join(filter(None, (path, level, trace_id, json.dumps(_filters(traces), ensure_ascii=False))))
        rows = self._pages(part, path, _row_params(traces, window, level, trace_id, v2=v2), v2=v2)
        with asked(part, about, window, _link(self._settings)) as tally:
            async with aclosing(rows) as pages:
                async for row, last in pages:
                    tally.rows += 1
                    tally.truncated = not last and tally.rows >= self._settings.rows_per_search
                    try:
                        one = _Observation.model_validate(row)
                    except ValidationError:
                        malformed += 1
                    else:
                        if window.start <= one.start_time < window.end and (wanted is None or one.trace_id in wanted):
                            yield one
                    if tally.truncated:
                        break
        if malformed:
            part.gap(GapReason.FAILED, f"{malformed} rows were not understood: {about}")

    async def _pages(
        self, part: Part, path: str, params: dict[str, str | int | float | list[str]], *, v2: bool
    ) -> AsyncGenerator[tuple[JsonValue, bool], None]:
        """Rows page by page, each with whether it is the last there is. It always ends: pages are counted."""
        size = min(PAGE[v2], self._settings.rows_per_search)
        for number in range(1, self._settings.rows_per_search // size + 2):
            place: Params = {"limit": size} if v2 else {"limit": size, "page": number}
            page = parsed(_Page, await self._api.json(part, path, needs=NEEDS, params={**params, **place}))
            more = bool(page.meta.cursor) if v2 else bool(page.data) and number < (page.meta.total_pages or 0)
            for index, row in enumerate(page.data, start=1):
                yield row, not more and index == len(page.data)
            if not more or page.meta.cursor == params.get("cursor", ""):
                return
            if page.meta.cursor:
                params["cursor"] = page.meta.cursor

    async def _trace_ids(self, part: Part, traces: LangfuseTraces, window: Window) -> set[str] | None:
        """Ids of the service's traces, where the older API cannot select observations by them; None: it can."""
        if not traces.trace_name and not traces.tags:
            return None
        params: dict[str, str | int | float | list[str]] = {
            "fromTimestamp": _iso(window.start - EARLY),
            "toTimestamp": _iso(window.end),
            "name": traces.trace_name,
            "environment": traces.environment,
            "fields": "core",
        }
        if traces.tags:
            params["tags"] = list(traces.tags)
        rows = [pair async for pair in self._pages(part, "/api/public/traces", params, v2=False)]
        if rows and not rows[-1][1]:
            part.gap(GapReason.TRUNCATED, "not all traces of the service were read", "raise LANGFUSE_ROWS_PER_SEARCH")
        return {str(row.get("id")) for row, _ in rows if isinstance(row, dict)}

    async def _score_rows(self, part: Part, traces: LangfuseTraces, window: Window) -> AsyncIterator[_Score]:
        """Numeric and boolean scores. Raises CollectorError."""
        params: dict[str, str | int | float | list[str]] = {
            "fromTimestamp": _iso(window.start),
            "toTimestamp": _iso(window.end),
            "environment": traces.environment,
        }
        if traces.tags:
            params["traceTags"] = list(traces.tags)
        malformed, path = 0, "/api/public/v2/scores"
        with asked(part, path, window, _link(self._settings), kind="metrics") as tally:
            async for row, _ in self._pages(part, path, params, v2=False):
                tally.rows += 1
                try:
                    score = _Score.model_validate(row)
                except ValidationError:
                    malformed += _is_number(row)
                    continue
                if score.data_type in ("NUMERIC", "BOOLEAN") and window.start <= score.timestamp < window.end:
                    yield score
        if malformed:
            part.gap(GapReason.FAILED, f"{malformed} rows were not understood: {path}")

    async def _knows_v2(self, part: Part) -> bool:
        """Asked once; 404 or 501 says no. Raises CollectorError."""
        async with self._probe:
            if self._v2 is None:
                now = self._clock.now()
                bounds = {"fromStartTime": _iso(now - timedelta(minutes=1)), "toStartTime": _iso(now)}
                try:
                    await self._api.json(
                        part, "/api/public/v2/observations", needs=NEEDS, params={"limit": 1, **bounds}
                    )
                    self._v2 = True
                except NotFound:
                    self._v2 = False
            return self._v2

    # --- doctor ---

    async def check(self) -> list[Check]:
        """See collectors.base.Collector."""
        look = partial(checked, self.name, self._settings)
        now = self._clock.now()
        window = Window(start=now - timedelta(minutes=10), end=now)

        async def health(part: Part) -> str:
            body = await self._api.json(part, "/api/public/health", needs=NEEDS)
            version = body.get("version") if isinstance(body, dict) else None
            return f"Langfuse {version or 'of unknown version'}"

        async def project(part: Part) -> str:
            page = parsed(_Page, await self._api.json(part, "/api/public/projects", needs=NEEDS))
            return f"project {', '.join(parsed(_Project, row).name for row in page.data)}"

        async def rows(part: Part) -> str:
            version = 2 if await self._knows_v2(part) else 1
            return f"observations are read by version {version} of the API"

        async def metrics(part: Part) -> str:
            whole_project = LangfuseTraces.model_construct()
            rows = await self._metrics(part, _levels(whole_project), window)
            return f"{len(rows)} rows of the last 10 minutes"

        return [
            await look("reachable", health, "check LANGFUSE_HOST"),
            await look("credentials", project),
            await look("observations", rows),
            await look("metrics", metrics, "update Langfuse; until then calls are counted from rows"),
            clock_check(self._api.skew_s),
        ]


def _link(settings: Settings) -> str | None:
    """The project's observations in Langfuse."""
    return f"{settings.url}/project/{settings.project_id}/observations" if settings.project_id else None


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row_params(
    traces: LangfuseTraces, window: Window, level: str, trace_id: str, *, v2: bool
) -> dict[str, str | int | float | list[str]]:
    """Of a search for observations. With a filter, version 2 looks at nothing else: it says all there."""
    start, end = _iso(window.start), _iso(window.end)
    told = {"level": level, "traceId": trace_id}
    plain: dict[str, str | int | float | list[str]] = {"fromStartTime": start, "toStartTime": end, **told}
    if not v2:
        return plain | {"environment": traces.environment}
    conditions = [
        {"type": "datetime", "column": "startTime", "operator": ">=", "value": start},
        {"type": "datetime", "column": "startTime", "operator": "<", "value": end},
        *_filters(traces),
    ]
    for column, value in told.items():
        if value:
            conditions.append({"type": "string", "column": column, "operator": "=", "value": value})
    return plain | {"fields": FIELDS, "filter": json.dumps(conditions, ensure_ascii=False)}


# --- answers to series and changes --------------------------------------------------------------------------


def _is_number(row: JsonValue) -> bool:
    """Whether it should have been understood: the value of a category or a text is none."""
    return not (isinstance(row, dict) and row.get("dataType") in ("CATEGORICAL", "TEXT", "CORRECTION"))


def _number(value: JsonValue) -> float | None:
    """Counts come as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def _time(row: _Row) -> float | None:
    """Epoch seconds of a row's minute; without a zone it is UTC."""
    told = row.get("time_dimension")
    try:
        at = datetime.fromisoformat(told) if isinstance(told, str) else None
    except ValueError:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() if at else None


def _minute(at: datetime) -> float:
    return at.timestamp() // 60 * 60


def _tabled(rows: Iterable[_Row], window: Window) -> _Points:
    """The points of an answer of the metrics API that lie in the window."""
    points: _Points = defaultdict(dict)
    for row in rows:
        at = _time(row)
        if at is not None and window.start.timestamp() <= at < window.end.timestamp():
            _put(points, row, at)
    return points


def _put(points: _Points, row: _Row, at: float) -> None:
    score, model = row.get("name"), row.get("providedModelName")
    if isinstance(score, str) and (value := _number(row.get("avg_value"))) is not None:
        points[_score_metric(score), ""][at] = value
    if not isinstance(model, str) or not model:  # spans and events, which no model answered
        return
    model = _short(model)
    for column, measure in _COLUMNS.items():
        number = _number(row.get(column))
        if number is not None:
            known = points[measure, model]
            known[at] = max(known.get(at, 0.0), number) if measure.statistic == "p95" else known.get(at, 0.0) + number
    count = _number(row.get("count_count"))
    if count is not None:
        _add(points[_CALLS, model], at, count)
        _add(points[_ERRORS, model], at, count if row.get("level") == "ERROR" else 0.0)


def _add(points: dict[float, float], at: float, value: float) -> None:
    points[at] = points.get(at, 0.0) + value


def _counted(observations: Iterable[_Observation]) -> _Points:
    """The same points from rows."""
    calls: defaultdict[tuple[str, float], list[_Observation]] = defaultdict(list)
    for one in observations:
        if one.model:
            calls[_short(one.model), _minute(one.start_time)].append(one)
    points: _Points = defaultdict(dict)
    for (model, at), found in calls.items():
        numbers = {
            "p95_latency": _p95([one.latency_ms for one in found]),
            "sum_totalCost": sum(one.cost_usd or 0.0 for one in found),
            "sum_inputTokens": sum(one.tokens("input") for one in found),
            "sum_outputTokens": sum(one.tokens("output") for one in found),
        }
        for column, number in numbers.items():
            points[_COLUMNS[column], model][at] = number
        points[_CALLS, model][at] = float(len(found))
        points[_ERRORS, model][at] = float(sum(one.failed for one in found))
    return points


def _p95(values: Sequence[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1) + 0.5)]


def _averaged(scores: Iterable[_Score]) -> _Points:
    found: defaultdict[tuple[str, float], list[float]] = defaultdict(list)
    for score in scores:
        found[score.name, _minute(score.timestamp)].append(score.value)
    points: _Points = defaultdict(dict)
    for (name, at), values in found.items():
        points[_score_metric(name), ""][at] = sum(values) / len(values)
    return points


def _score_metric(name: str) -> _Measure:
    """Named so that its bad direction is known: a success falls, a fault rises."""
    bad = any(word in name.lower() for word in _WORSE_UP)
    return _Measure(f"llm.score.{'fault' if bad else 'success'}.{name[:80]}", "avg", "")


def _series(component: str, query: str, points: _Points) -> Iterator[Series]:
    for (measure, model), found in points.items():
        ref = SeriesRef(
            source=LangfuseCollector.name,
            component=component,
            metric=f"{measure.metric}{{{model}}}" if model else measure.metric,
            statistic=measure.statistic,
            unit=measure.unit,
            query=query,
            measures=measure.measures,
        )
        epoch_s = tuple(sorted(found))
        yield Series(ref=ref, epoch_s=epoch_s, values=tuple(found[at] for at in epoch_s))


def _short(model: str) -> str:
    """Without a router's variant: in ``llama-3:free`` it would read as a word of the metric."""
    return model.partition(":")[0][:80]


def _changes(service: str, rows: Iterable[_Row], window: Window) -> Iterator[Change]:
    """Models, and versions of a prompt, that are new in the window: others were used before them."""
    first: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        at, count = _time(row), _number(row.get("count_count"))
        if at is not None and count:
            for slot, value in _configured(row):
                first[slot][value] = min(first[slot].get(value, at), at)
    settled = (window.start + SETTLED).timestamp()
    for slot, values in sorted(first.items()):
        for value, at in sorted(values.items(), key=lambda pair: pair[1]):
            before = [other for other, when in values.items() if when < at]
            if before and at >= settled:
                yield Change(
                    component=service,
                    at=datetime.fromtimestamp(at, UTC),
                    kind="configuration",
                    title=f"{slot} {value} first used, before: {', '.join(sorted(before))}"[:300],
                    version=value,
                )


def _configured(row: _Row) -> Iterator[tuple[str, str]]:
    model, prompt, version = row.get("providedModelName"), row.get("promptName"), _number(row.get("promptVersion"))
    if isinstance(model, str) and model:
        yield "LLM model", model
    if isinstance(prompt, str) and prompt and version is not None:
        yield f"prompt “{prompt}” version", f"{version:g}"


# --- rows to telemetry --------------------------------------------------------------------------------------


def _span(service: str, one: _Observation) -> Span:
    return Span(
        component=service,
        trace_id=one.trace_id or one.id,
        span_id=one.id,
        parent_id=one.parent_observation_id or "",
        operation=" ".join(filter(None, (one.prompt_name or one.name or one.type, one.model)))[:200],
        start_s=one.start_time.timestamp(),
        duration_ms=one.latency_ms,
        kind="client" if one.model else "internal",
        peer=_vendor(one.model) if one.model else "",
        error=((one.status_message or "").partition("\n")[0][:200] or "error") if one.failed else "",
    )


def _vendor(model: str) -> str:
    """Who runs a model, by its name; a name that nobody knows stands for itself."""
    name = model.lower()
    if "/" in name:
        return name.partition("/")[0]
    return next((vendor for part, vendor in _VENDORS if name.startswith(part) or f".{part}" in name), model)


def _log_line(service: str, one: _Observation) -> LogLine:
    told = one.status_message or "failed, and says no reason"
    return LogLine(
        component=service,
        at=one.end_time or one.start_time,
        level="error",
        message=": ".join(filter(None, (one.model, told)))[:MAX_TEXT],
        logger=(one.name or one.type)[:200],
        trace_id=one.trace_id or "",
        span_id=one.id,
    )
