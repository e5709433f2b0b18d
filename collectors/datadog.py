"""Reads Datadog: logs, metrics, spans, events and service dependencies.

The application key needs the scopes ``logs_read_data``, ``metrics_read``, ``timeseries_query``, ``apm_read``
and ``events_read``. Datadog answers 403 for a missing scope and for the wrong site alike. Limits are per
organisation and mostly unpublished: budgets of rows and requests are small, ``X-RateLimit-Reset`` is obeyed.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Literal, TypeVar
from urllib.parse import urlencode

import httpx
from pydantic import AwareDatetime, BaseModel, Field, JsonValue, SecretStr, TypeAdapter, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from collectors._budget import Budget, SourceSettings, env
from collectors._jobs import Job, Part, gather
from collectors._windows import concatenated, joined, whole_periods
from collectors.base import (
    Change,
    Clock,
    CollectorError,
    Declared,
    Edge,
    Forbidden,
    GapReason,
    Level,
    LogLine,
    Query,
    RateLimited,
    Scope,
    Series,
    SeriesRef,
    Span,
    Target,
    Telemetry,
    Unreachable,
    Window,
)

SIDE_BY_SIDE = 8  # jobs at once
INTERVAL_S = 30  # of metrics; the same when an effect is measured, so that sums stay comparable
MAX_POINTS = 1400  # per series; Datadog returns about 1500
METRICS_PER_SERVICE = 60
QUERIES_PER_REQUEST = 20
PAGE = 1000  # rows; the most Datadog gives at once. Log searches are limited to some hundreds an hour
LOG_BUDGET = {"problems": 1000, "sample": 500}  # rows per service and window
SPAN_BUDGET = {"problems": 300, "sample": 500}
LOOK_BACK = timedelta(hours=24)  # how old a change may be
LONGEST_PAUSE_S = 8.0  # that a rate limit may ask for
MESSAGE_LENGTH = 8000

_PROBLEM_LOGS = "status:(warn OR error OR critical OR alert OR emergency)"
_PROBLEM_SPANS = "status:error"
_LEVELS: dict[str, Level] = {
    "debug": "debug",
    "trace": "debug",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
    "critical": "critical",
    "alert": "critical",
    "emergency": "critical",
    "fatal": "critical",
}
_M = TypeVar("_M", bound=BaseModel)
_JSON_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class Settings(SourceSettings):
    """``DATADOG_*``: keys, site, and a base URL that replaces ``https://api.<site>``."""

    model_config = env("DATADOG_")

    api_key: SecretStr | None = Field(default=None, description="An API key of the organisation")
    app_key: SecretStr | None = Field(default=None, description="An application key with the read scopes")
    site: str = Field(default="datadoghq.com", description="e.g. datadoghq.eu, us3.datadoghq.com")
    base_url: str | None = Field(default=None, description="Replaces https://api.<site>")


def create(clock: Clock, declared: Declared) -> "DatadogCollector":
    """The collector of the account that the settings name. Raises ValueError naming a missing setting."""
    settings = Settings()
    if settings.api_key is None:
        raise ValueError("The collector 'datadog' needs DATADOG_API_KEY: an API key of the organisation.")
    if settings.app_key is None:
        raise ValueError("The collector 'datadog' needs DATADOG_APP_KEY: an application key, read scopes suffice.")
    return DatadogCollector(clock, settings)


# --- what Datadog answers -----------------------------------------------------------------------------------


class _Row(BaseModel):
    attributes: dict[str, JsonValue] = Field(default_factory=dict)


class _PageMeta(BaseModel):
    after: str | None = None


class _Meta(BaseModel):
    status: str | None = None
    page: _PageMeta | None = None


class _Page(BaseModel):
    data: list[_Row] = Field(default_factory=list)
    meta: _Meta = Field(default_factory=_Meta)


class _Log(BaseModel):
    timestamp: AwareDatetime
    host: str | None = None
    status: str | None = None
    message: str | None = None
    attributes: dict[str, JsonValue] = Field(default_factory=dict)


class _Span(BaseModel):
    trace_id: str
    span_id: str
    parent_id: str | None = None
    resource_name: str | None = None
    start_timestamp: AwareDatetime
    end_timestamp: AwareDatetime | None = None
    host: str | None = None
    type: str | None = None
    status: str | None = None
    custom: dict[str, JsonValue] = Field(default_factory=dict)


class _Event(BaseModel):
    timestamp: AwareDatetime
    message: str | None = None
    tags: list[str] = Field(default_factory=list)
    attributes: dict[str, JsonValue] = Field(default_factory=dict)


class _Metric(BaseModel):
    id: str


class _MetricList(BaseModel):
    data: list[_Metric] = Field(default_factory=list)


class _Unit(BaseModel):
    name: str = ""
    short_name: str | None = None


class _SeriesHead(BaseModel):
    query_index: int
    unit: list[_Unit | None] | None = None


class _Points(BaseModel):
    series: list[_SeriesHead] = Field(default_factory=list)
    times: list[float] = Field(default_factory=list, description="Epoch milliseconds")
    values: list[list[float | None]] = Field(default_factory=list)


class _PointsData(BaseModel):
    attributes: _Points = Field(default_factory=_Points)


class _Timeseries(BaseModel):
    data: _PointsData = Field(default_factory=_PointsData)


# --- the collector ------------------------------------------------------------------------------------------


class _BadRequestError(CollectorError):
    """Datadog could not understand the query."""


class _Transient(Unreachable):
    """Worth one more try."""


@dataclass(frozen=True)
class _Search:
    """One search over events of a kind, in one window."""

    path: str
    permission: str
    ui: str
    query: str
    window: Window
    budget: int
    oldest_first: bool = False
    wrapped: bool = False  # spans want a JSON:API document


@dataclass
class _Tally:
    """How far a search has come."""

    rows: int = 0
    malformed: int = 0
    cursor: str | None = None
    timed_out: bool = False
    begun: bool = False

    def more(self, budget: int) -> bool:
        """Whether there is a next page, and room for it."""
        return not self.begun or (self.cursor is not None and self.rows < budget)

    def count(self, page: _Page) -> None:
        """Take a page in."""
        self.begun = True
        self.rows += len(page.data)
        self.cursor = page.meta.page.after if page.meta.page and page.data else None
        self.timed_out = self.timed_out or page.meta.status == "timeout"

    @property
    def truncated(self) -> bool:
        """Whether Datadog has, or may have, more than was read."""
        return self.cursor is not None or self.timed_out


class DatadogCollector:
    """One Datadog organisation, read-only."""

    name = "datadog"
    timeout_s = 20.0

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold both keys."""
        self._clock, self._settings = clock, settings
        self._ui = ui_host(settings)
        self._client = client(settings, read_s=10.0, transport=transport)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def collect(self, scope: Scope) -> Telemetry:
        """Logs, metrics and spans of every target, nearest first; events and dependencies of all.

        Raises CollectorError.
        """
        budget = Budget(self.name, self._settings, scope.within_s)
        return await gather(self._jobs(scope), side_by_side=SIDE_BY_SIDE, budget=budget)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' queries over another window. Raises CollectorError."""
        mine = [ref for ref in refs if ref.source == self.name]
        found: list[Series] = []
        for batch in _batches(mine, QUERIES_PER_REQUEST):
            found += await self._timeseries(batch, window)
        return found

    # --- jobs ---

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        targets = sorted(scope.targets, key=lambda t: t.hops)
        for target in targets:
            yield f"metrics of {target.service}", partial(self._metrics, scope, target)
            yield f"logs of {target.service}", partial(self._logs, scope, target)
            yield f"spans of {target.service}", partial(self._spans, scope, target)
        if targets:
            yield "events", partial(self._events, scope, targets)
            yield "service dependencies", partial(self._dependencies, scope)

    async def _logs(self, scope: Scope, target: Target, part: Part) -> None:
        tags = _search_terms(target)
        problems, others = f"{tags} {_PROBLEM_LOGS}", f"{tags} -{_PROBLEM_LOGS}"
        # the onset tells most: the incident's problems are read from their start; if they are too many, its end too
        onset = await self._log_lines(
            target, _log_search(problems, scope.incident, "problems", oldest_first=True), part
        )
        if onset and part.queries[-1].truncated:
            await self._log_lines(target, _log_search(problems, scope.incident, "sample"), part, after=onset[-1].at)
        await self._log_lines(target, _log_search(others, scope.incident, "sample"), part)
        for window in scope.baseline[:1]:
            await self._log_lines(target, _log_search(problems, window, "problems"), part)
            await self._log_lines(target, _log_search(others, window, "sample"), part)

    async def _log_lines(
        self, target: Target, search: _Search, part: Part, after: datetime | None = None
    ) -> list[LogLine]:
        found: list[LogLine] = []
        async for log in self._search(search, part, _Log):
            if after is None or log.timestamp > after:
                found.append(_log_line(target.service, log))
                part.logs.add(found[-1])
        return found

    async def _spans(self, scope: Scope, target: Target, part: Part) -> None:
        tags = _search_terms(target)
        wanted = [(scope.incident, "problems", f"{tags} {_PROBLEM_SPANS}")]
        wanted += [(window, "sample", tags) for window in (scope.incident, *scope.baseline[:1])]
        seen: set[str] = set()
        for window, kind, query in wanted:
            search = _Search(
                path="/api/v2/spans/events/search",
                permission="apm_read",
                ui="/apm/traces",
                query=query,
                window=window,
                budget=SPAN_BUDGET[kind],
                wrapped=True,
            )
            async for row in self._search(search, part, _Span):
                span = _span(target.service, row)
                if span.span_id not in seen:
                    seen.add(span.span_id)
                    part.spans.append(span)

    async def _events(self, scope: Scope, targets: Sequence[Target], part: Part) -> None:
        services = " OR ".join(f"({_search_terms(t)})" for t in targets)
        search = _Search(
            path="/api/v2/events/search",
            permission="events_read",
            ui="/event/explorer",
            query=f"({services}) -source:alert",
            window=Window(start=scope.incident.start - LOOK_BACK, end=scope.incident.end),
            budget=PAGE,
        )
        async for event in self._search(search, part, _Event):
            part.changes.extend(_changes(event, targets))

    async def _dependencies(self, scope: Scope, part: Part) -> None:
        window = Window(start=scope.incident.start - timedelta(hours=1), end=scope.incident.end)
        params = {
            "env": scope.environment,
            "start": str(int(window.start.timestamp())),
            "end": str(int(window.end.timestamp())),
        }
        started = asyncio.get_running_loop().time()
        body = await self._send("GET", "/api/v1/service_dependencies", "apm_read", params=params)
        part.answered = True
        ours = {target.service for target in scope.targets}
        part.edges.extend(edge for edge in _edges(body) if {edge.caller, edge.callee} & ours)
        part.queries.append(
            self._query(f"service_dependencies env:{scope.environment}", window, started, len(part.edges))
        )

    async def _metrics(self, scope: Scope, target: Target, part: Part) -> None:
        names = await self._metric_names(scope, target, part)
        if len(names) > METRICS_PER_SERVICE:
            part.gap(
                GapReason.TRUNCATED,
                f"{target.service} reports {len(names)} metrics; {METRICS_PER_SERVICE} were read",
            )
        refs = [_ref(target, name) for name in names[:METRICS_PER_SERVICE]]
        for batch in _batches(refs, QUERIES_PER_REQUEST):
            await self._metric_batch(batch, joined((scope.incident, *scope.baseline)), part)

    async def _metric_names(self, scope: Scope, target: Target, part: Part) -> list[str]:
        """What the service reports, its own metrics before those of its machine."""
        first = min(w.start for w in (scope.incident, *scope.baseline))
        age_s = (self._clock.now() - first).total_seconds()
        tags = " AND ".join(_metric_tags(target))
        params = {"filter[tags]": tags, "window[seconds]": str(int(min(max(age_s, 3600), 30 * 86400)))}
        started = asyncio.get_running_loop().time()
        body = await self._send("GET", "/api/v2/metrics", "metrics_read", params=params)
        part.answered = True
        names = {m.id for m in _parse(_MetricList, body).data if re.fullmatch(r"[A-Za-z][\w.]*", m.id)}
        whole = Window(start=first, end=scope.incident.end)
        part.queries.append(self._query(f"metrics {tags}", whole, started, len(names)))
        if not names:
            part.gap(GapReason.EMPTY, f"no metric is tagged {tags}", "set datadog_tags in the catalogue")
        return sorted(names, key=lambda name: (_of_machine(name), name))

    async def _metric_batch(self, refs: Sequence[SeriesRef], ranges: Sequence[Window], part: Part) -> None:
        points: dict[SeriesRef, list[Series]] = {}
        for window in ranges:
            started = asyncio.get_running_loop().time()
            try:
                found = await self._timeseries(refs, window)
            except _BadRequestError as error:
                await self._halves(refs, ranges, part, error)
                return
            rows = {series.ref.query: len(series.epoch_s) for series in found}
            for ref in refs:
                part.queries.append(self._query(ref.query, window, started, rows.get(ref.query, 0), ref.metric))
            for series in found:
                points.setdefault(series.ref.model_copy(update={"unit": ""}), []).append(series)
        part.series.extend(concatenated(pieces) for pieces in points.values())

    async def _halves(
        self, refs: Sequence[SeriesRef], ranges: Sequence[Window], part: Part, error: _BadRequestError
    ) -> None:
        """One query that Datadog refuses must not cost the other ones of its batch."""
        if len(refs) == 1:
            part.fail(_BadRequestError(f"{refs[0].query}: {error.detail}"))
            return
        middle = len(refs) // 2
        await self._metric_batch(refs[:middle], ranges, part)
        await self._metric_batch(refs[middle:], ranges, part)

    async def _timeseries(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        span_s = (window.end - window.start).total_seconds()
        interval_s = INTERVAL_S
        while span_s / interval_s > MAX_POINTS:
            interval_s *= 2
        whole = whole_periods(window, interval_s)
        names = [f"q{index}" for index in range(len(refs))]
        queries: list[JsonValue] = [
            {"data_source": "metrics", "query": ref.query, "name": name} for ref, name in zip(refs, names, strict=True)
        ]
        attributes: dict[str, JsonValue] = {
            "from": _ms(whole.start),
            "to": _ms(whole.end),
            "interval": interval_s * 1000,
            "queries": queries,
            "formulas": [{"formula": name} for name in names],
        }
        body = await self._send(
            "POST",
            "/api/v2/query/timeseries",
            "timeseries_query",
            body={"data": {"type": "timeseries_request", "attributes": attributes}},
        )
        return list(_series(refs, _parse(_Timeseries, body).data.attributes))

    # --- requests ---

    async def _search(self, search: _Search, part: Part, model: type[_M]) -> AsyncIterator[_M]:
        """The rows, page by page, until the budget is used up; then the Query is recorded."""
        started = asyncio.get_running_loop().time()
        tally = _Tally()
        try:
            while tally.more(search.budget):
                body = await self._send("POST", search.path, search.permission, body=_search_body(search, tally))
                part.answered = True
                page = _parse(_Page, body)
                tally.count(page)
                for row in page.data:
                    try:
                        yield model.model_validate(row.attributes)
                    except ValidationError:
                        tally.malformed += 1
        finally:
            query = self._query(search.query, search.window, started, tally.rows, ui=search.ui)
            part.queries.append(query.model_copy(update={"truncated": tally.truncated}))
        if tally.timed_out:
            part.gap(GapReason.TRUNCATED, f"Datadog timed out and answered in part: {search.query}")
        if tally.malformed:
            part.gap(GapReason.FAILED, f"{tally.malformed} rows were not understood: {search.query}")

    async def _send(
        self,
        method: str,
        path: str,
        permission: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, JsonValue] | None = None,
    ) -> dict[str, JsonValue]:
        """One request; one more if the network or the server failed, or after a rate limit's pause."""
        attempts = AsyncRetrying(
            stop=stop_after_attempt(2),
            wait=wait_fixed(0.3),
            retry=retry_if_exception_type(_Transient),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                response = await self._once(method, path, params, body)
                if response.status_code == 429:
                    await _wait_for_reset(response, path)
                    response = await self._once(method, path, params, body)
                return _answer(response, path, permission)
        raise AssertionError("unreachable: the last attempt answers or raises")

    async def _once(
        self, method: str, path: str, params: Mapping[str, str] | None, body: Mapping[str, JsonValue] | None
    ) -> httpx.Response:
        try:
            response = await self._client.request(method, path, params=params, json=body)
        except httpx.HTTPError as error:
            raise _Transient(f"{path}: {type(error).__name__}", "check DATADOG_SITE and the network") from None
        if response.status_code >= 500:
            raise _Transient(f"{path}: Datadog answered {response.status_code}")
        return response

    def _query(self, text: str, window: Window, started: float, rows: int, metric: str = "", ui: str = "") -> Query:
        return Query(
            source=self.name,
            text=text,
            link=_link(self._ui, text, window, metric, ui),
            start=window.start,
            end=window.end,
            took_ms=round((asyncio.get_running_loop().time() - started) * 1000, 1),
            rows=rows,
        )


def _batches(refs: Sequence[SeriesRef], size: int) -> Iterator[Sequence[SeriesRef]]:
    for start in range(0, len(refs), size):
        yield refs[start : start + size]


# --- answers and errors -------------------------------------------------------------------------------------


async def _wait_for_reset(response: httpx.Response, path: str) -> None:
    """Raises RateLimited if the pause would be too long, or is not told."""
    name = response.headers.get("X-RateLimit-Name", path)
    try:
        pause_s = float(response.headers.get("X-RateLimit-Reset", ""))
    except ValueError:
        raise RateLimited(f"{path}: rate limit {name} reached", "ask Datadog support to raise it") from None
    if pause_s > LONGEST_PAUSE_S:
        raise RateLimited(f"{path}: rate limit {name} reached, reset in {pause_s:g} s", "try again later")
    await asyncio.sleep(max(pause_s, 0.0))


def _answer(response: httpx.Response, path: str, permission: str) -> dict[str, JsonValue]:
    """The body of a good answer. Raises CollectorError; some errors come as 200 with a status inside."""
    code = response.status_code
    if code in (401, 403):
        raise Forbidden(
            f"{path}: Datadog answered {code}",
            f"give the application key the scope {permission}; or DATADOG_SITE is the wrong site",
        )
    if code == 429:
        raise RateLimited(f"{path}: rate limited again after the pause it asked for", "try again later")
    if code == 400:
        raise _BadRequestError(f"{path}: Datadog refused the query: {response.text[:300]}")
    if code >= 300:
        raise CollectorError(f"{path}: Datadog answered {code}: {response.text[:300]}")
    try:
        body = _JSON_OBJECT.validate_json(response.content)
    except ValidationError:
        raise CollectorError(f"{path}: the answer is no JSON object", "check DATADOG_SITE") from None
    complaint = body.get("errors") or body.get("error")
    if body.get("status") == "error" or (complaint and not body.get("data")):
        raise _BadRequestError(f"{path}: Datadog refused the query: {complaint}")
    return body


def _parse(model: type[_M], body: Mapping[str, JsonValue]) -> _M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise CollectorError(f"unexpected answer: {error.errors(include_url=False)[0]['msg']}") from None


# --- queries ------------------------------------------------------------------------------------------------


def _log_search(query: str, window: Window, kind: str, *, oldest_first: bool = False) -> _Search:
    return _Search(
        path="/api/v2/logs/events/search",
        permission="logs_read_data",
        ui="/logs",
        query=query,
        window=window,
        budget=LOG_BUDGET[kind],
        oldest_first=oldest_first,
    )


def _search_body(search: _Search, tally: _Tally) -> dict[str, JsonValue]:
    page: dict[str, JsonValue] = {"limit": min(PAGE, search.budget - tally.rows)}
    if tally.cursor:
        page["cursor"] = tally.cursor
    bounds = {"from": search.window.start.isoformat(), "to": search.window.end.isoformat()}
    body: dict[str, JsonValue] = {
        "filter": {"query": search.query, **bounds},
        "sort": "timestamp" if search.oldest_first else "-timestamp",
        "page": page,
    }
    return {"data": {"type": "search_request", "attributes": body}} if search.wrapped else body


def _tags(target: Target) -> tuple[str, ...]:
    return target.datadog_tags or (f"service:{target.service}",)


def _search_terms(target: Target) -> str:
    """The target's tags in the language of searches; what is no plain word is quoted."""
    return " ".join(_term(tag) for tag in _tags(target))


def _term(tag: str) -> str:
    key, colon, value = tag.partition(":")
    if not colon:
        return _quoted(key)
    return re.sub(r"[^\w.@-]", "_", key) + ":" + _quoted(value)


def _quoted(text: str) -> str:
    if re.fullmatch(r"\w[\w.-]*", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _metric_tags(target: Target) -> list[str]:
    """The target's tags as Datadog normalises the tags of metrics."""
    return [re.sub(r"[^\w\-:./]", "_", tag.lower()) for tag in _tags(target)]


# surely counts; anything else may be a gauge, for which as_count() gives numbers that no unit fits
_COUNTS = re.compile(r"^trace\..*\.(hits|errors)$|[._](count|total)$")
_PERCENTILE = re.compile(r"(?:^|[._])(?:p(\d{2,3})|(\d{2})percentile)(?:$|[._])")
_UNITS = (
    (re.compile(r"[._](percent|pct)$"), "%"),
    (re.compile(r"[._](ms|millis|milliseconds)$"), "ms"),
    (re.compile(r"[._](s|seconds)$"), "s"),
    (re.compile(r"[._](bytes)$"), "B"),
    (re.compile(r"[._](ratio)$"), "ratio"),
    (re.compile(r"[._](rps|qps|per_second)$"), "/s"),
)
_MACHINE = ("system.", "docker.", "container.", "containerd.", "kubernetes.", "jvm.", "runtime.", "datadog.")


def _of_machine(name: str) -> bool:
    return name.startswith(_MACHINE)


def _ref(target: Target, metric: str) -> SeriesRef:
    statistic, query = _aggregated(metric, ",".join(_metric_tags(target)))
    unit = next((unit for pattern, unit in _UNITS if pattern.search(metric)), "")
    return SeriesRef(
        source="datadog",
        component=target.service,
        metric=metric,
        statistic=statistic,
        unit=unit,
        query=query,
    )


def _aggregated(metric: str, tags: str) -> tuple[str, str]:
    """Statistic and query: counts are added up, a percentile or maximum is judged by its worst instance."""
    if _COUNTS.search(metric):
        return "sum", f"sum:{metric}{{{tags}}}.as_count()"
    percentile = _PERCENTILE.search(metric)
    if percentile:
        return f"p{percentile[1] or percentile[2]}", f"max:{metric}{{{tags}}}"
    if re.search(r"[._]max$", metric):
        return "max", f"max:{metric}{{{tags}}}"
    return "avg", f"avg:{metric}{{{tags}}}"


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def client(settings: Settings, *, read_s: float, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """Datadog's API with the credentials of ``settings``, which must hold both keys."""
    return httpx.AsyncClient(
        base_url=settings.base_url or f"https://api.{settings.site}",
        headers={
            "DD-API-KEY": settings.api_key.get_secret_value() if settings.api_key else "",
            "DD-APPLICATION-KEY": settings.app_key.get_secret_value() if settings.app_key else "",
        },
        timeout=httpx.Timeout(read_s, connect=3.0),
        transport=transport,
    )


def ui_host(settings: Settings) -> str | None:
    """The UI lives at ``app.datadoghq.com``, but at ``us3.datadoghq.com`` without ``app.``; another server has none."""
    site = settings.site
    return None if settings.base_url else f"app.{site}" if site.count(".") == 1 else site


def _link(host: str | None, text: str, window: Window, metric: str, ui: str) -> str | None:
    start, end = _ms(window.start), _ms(window.end)
    if host is None:
        return None
    if metric:
        scope = text.partition("{")[2].partition("}")[0]
        args = {"exp_metric": metric, "exp_scope": scope, "from_ts": start, "to_ts": end, "live": "false"}
        return f"https://{host}/metric/explorer?{urlencode(args)}"
    if ui == "/apm/traces":
        return f"https://{host}{ui}?{urlencode({'query': text, 'start': start, 'end': end, 'paused': 'true'})}"
    if ui:
        args = {"query": text, "from_ts": start, "to_ts": end, "live": "false"}
        return f"https://{host}{ui}?{urlencode(args)}"
    return None


# --- rows to telemetry --------------------------------------------------------------------------------------


def _series(refs: Sequence[SeriesRef], points: _Points) -> Iterator[Series]:
    """The series that have points; a null is no point."""
    for head, values in zip(points.series, points.values, strict=False):
        known = {ms / 1000: value for ms, value in zip(points.times, values, strict=False) if value is not None}
        if known and 0 <= head.query_index < len(refs):
            ref = refs[head.query_index]
            # added up over an interval, what was per second is no rate any more
            unit = _unit(head.unit[:1] if head.unit and ref.statistic == "sum" else head.unit) or ref.unit
            epoch_s = tuple(sorted(known))
            yield Series(
                ref=ref.model_copy(update={"unit": unit}),
                epoch_s=epoch_s,
                values=tuple(known[at] for at in epoch_s),
            )


def _unit(units: Sequence[_Unit | None] | None) -> str:
    """``[second, None]`` is s; ``[byte, second]`` is B/s."""
    names = [unit.short_name or unit.name for unit in units or () if unit]
    return "/".join(name for name in names if name)


def _log_line(service: str, log: _Log) -> LogLine:
    extra = log.attributes
    return LogLine(
        component=service,
        at=log.timestamp,
        level=_LEVELS.get((log.status or "").lower(), "info"),
        message=(log.message or _text(extra, "error.message"))[:MESSAGE_LENGTH],
        logger=_text(extra, "logger.name", "logger"),
        instance=_text(extra, "pod_name", "task_id", "container_id") or log.host or "",
        trace_id=_text(extra, "dd.trace_id", "trace_id"),
        span_id=_text(extra, "dd.span_id", "span_id"),
    )


def _span(service: str, span: _Span) -> Span:
    extra = span.custom
    return Span(
        component=service,
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_id="" if span.parent_id in (None, "0") else span.parent_id or "",
        operation=span.resource_name or _text(extra, "operation_name"),
        start_s=span.start_timestamp.timestamp(),
        duration_ms=_duration_ms(span),
        kind=_kind(_text(extra, "span.kind"), span.type or ""),
        peer=_text(extra, "peer.service", "peer.db.name", "out.host"),
        error=_span_error(span),
        instance=span.host or "",
    )


def _duration_ms(span: _Span) -> float:
    if span.end_timestamp:
        return max((span.end_timestamp - span.start_timestamp).total_seconds() * 1000, 0.0)
    duration_ns = span.custom.get("duration")
    return float(duration_ns) / 1e6 if isinstance(duration_ns, int | float) else 0.0


def _kind(kind: str, span_type: str) -> Literal["server", "client", "internal"]:
    if kind in ("server", "consumer") or (not kind and span_type == "web"):
        return "server"
    if kind in ("client", "producer") or (not kind and span_type in ("http", "sql", "db", "cache", "redis")):
        return "client"
    return "internal"


def _span_error(span: _Span) -> str:
    named = _text(span.custom, "error.type", "error.message")
    flagged = span.status == "error" or span.custom.get("error") in (1, True)
    return named or ("error" if flagged else "")


def _text(attributes: Mapping[str, JsonValue], *paths: str) -> str:
    """The first of the attributes that is there: under its dotted name, or nested."""
    for path in paths:
        value = attributes.get(path)
        if value is None:
            value = _nested(attributes, path.split("."))
        if isinstance(value, str | int | float) and value != "":
            return str(value)
    return ""


def _nested(attributes: Mapping[str, JsonValue], keys: Sequence[str]) -> JsonValue:
    value: JsonValue = dict(attributes)
    for key in keys:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


_CHANGE_KINDS: tuple[tuple[re.Pattern[str], Literal["deploy", "configuration", "scaling", "feature_flag"]], ...] = (
    (re.compile(r"feature.?flag|launchdarkly", re.IGNORECASE), "feature_flag"),
    (re.compile(r"deploy|roll(ed)?.?(out|back)|release", re.IGNORECASE), "deploy"),
    (re.compile(r"scal(e|ed|ing)\b|desired.?count", re.IGNORECASE), "scaling"),
    (re.compile(r"config", re.IGNORECASE), "configuration"),
)


def _changes(event: _Event, targets: Sequence[Target]) -> Iterator[Change]:
    """One Change per target that the event is about."""
    title = _text(event.attributes, "title", "evt.name") or (event.message or "").partition("\n")[0]
    tags = dict(tag.split(":", 1) for tag in event.tags if ":" in tag)
    told = " ".join([title, _text(event.attributes, "source_type_name"), *event.tags])
    kind = next((kind for pattern, kind in _CHANGE_KINDS if pattern.search(told)), "other")
    services = {tag.removeprefix("service:") for tag in event.tags if tag.startswith("service:")}
    services.add(_text(event.attributes, "service"))
    for target in targets:
        if services & {target.service, *(t.removeprefix("service:") for t in _tags(target))}:
            yield Change(
                component=target.service,
                at=event.timestamp,
                kind=kind,
                title=title[:300],
                version=tags.get("version", ""),
                author=tags.get("author", "") or tags.get("user", ""),
                link=None,
            )


def _edges(body: Mapping[str, JsonValue]) -> Iterator[Edge]:
    """``{"checkout": {"calls": ["payment"]}}``."""
    for caller, entry in sorted(body.items()):
        calls = entry.get("calls") if isinstance(entry, dict) else None
        for callee in calls if isinstance(calls, list) else ():
            if isinstance(callee, str):
                yield Edge(caller=caller, callee=callee, source="datadog")
