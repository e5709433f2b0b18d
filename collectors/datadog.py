"""Reads Datadog: logs, metrics, spans and traces, events, monitors, service dependencies and the software catalogue.

The application key needs the scopes ``logs_read_data``, ``metrics_read``, ``timeseries_query``, ``apm_read``,
``events_read``, ``monitors_read`` and ``apm_service_catalog_read``. Datadog answers 403 for a missing scope and for
the wrong site alike. Limits are per organisation and mostly unpublished: budgets of rows and requests are small,
``X-RateLimit-Reset`` is obeyed.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from typing import Literal

import httpx
from pydantic import Field, JsonValue, SecretStr

from collectors._budget import SourceSettings, env
from collectors._datadog_api import (
    EVENTS,
    LOGS,
    METRICS,
    MONITORS,
    POINTS,
    RELATIONS,
    SPANS,
    VALIDATE,
    Endpoint,
    Names,
    Question,
    Search,
    Session,
    ms,
    questions,
)
from collectors._datadog_logs import LogCounts, LogReader, is_count
from collectors._datadog_metrics import MetricReader
from collectors._datadog_monitors import MonitorReader, rule_of
from collectors._datadog_spans import SpanReader, Traces
from collectors._datadog_topology import TopologyReader
from collectors._http import Params, checked, clock_check
from collectors._jobs import Job, Part
from collectors._limits import LONGEST_PAUSE_S
from collectors._questions import target_of, words_of
from collectors._source import Source
from collectors._windows import concatenated
from collectors.base import (
    Change,
    Check,
    Clock,
    Declared,
    LogsRead,
    Scope,
    Series,
    SeriesRef,
    Target,
    Telemetry,
    TraceRead,
    Window,
)

__all__ = ["LONGEST_PAUSE_S", "DatadogCollector", "Settings", "client", "create", "ui_host"]

SIDE_BY_SIDE = 8  # jobs at once
SAME_DEPLOYMENT = timedelta(minutes=30)  # between its event and its first spans
CHECKED_WITHIN = timedelta(minutes=15)


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


class DatadogCollector(Source[Settings]):
    """One Datadog organisation, read-only."""

    name = "datadog"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold both keys."""
        super().__init__(settings)
        self._clock = clock
        self._session = Session(client(settings, read_s=10.0, transport=transport), ui_host(settings))
        self._metrics = MetricReader(self._session, clock)
        self._logs = LogReader(self._session)
        self._spans = SpanReader(self._session)
        self._monitors = MonitorReader(self._session, self._metrics, clock)
        self._topology = TopologyReader(self._session)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.aclose()

    async def collect(self, scope: Scope) -> Telemetry:
        """Counts, logs, metrics and spans of every target, nearest first; events, monitors and dependencies of all.

        Raises CollectorError.
        """
        found = await self._gathered(scope, self._jobs(scope), side_by_side=SIDE_BY_SIDE)
        merged = {"series": tuple(_merged(found.series)), "changes": tuple(_told_once(found.changes))}
        return found.model_copy(update=merged)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' queries over another window. Raises CollectorError."""
        part = self._part("measurement")
        mine = [ref for ref in refs if ref.source == self.name]
        counts = [ref for ref in mine if is_count(ref)]
        metrics = [ref for ref in mine if not is_count(ref)]
        return [
            *await self._metrics.points(metrics, window, part),
            *await self._logs.measure(counts, window, part),
        ]

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Logs and traces."""
        return frozenset(("logs", "trace"))

    def _answer(self, question: LogsRead | TraceRead, scope: Scope) -> tuple[str, Job]:
        if isinstance(question, TraceRead):
            names = Names(scope.targets)
            return f"trace {question.trace_id}", partial(self._spans.find, question.trace_id, scope, names)
        target = target_of(question.component, scope)
        return f"logs of {target.service}", partial(self._logs.find, scope, target, words_of(question))

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        targets, counts, traces = sorted(scope.targets, key=lambda t: t.hops), LogCounts(), Traces()
        names = Names(targets)
        for index, target in enumerate(targets):
            if index == 0:  # samples wait for the counts, which must therefore have begun before
                yield "log counts", partial(self._logs.count, scope, targets, counts)
            yield f"metrics of {target.service}", partial(self._metrics.collect, scope, target)
            if index == 0 and rule_of(scope):
                yield "the monitor that alerted", partial(self._monitors.alerted, scope)
            yield f"logs of {target.service}", partial(self._logs.sample, scope, target, counts)
            for question in _span_questions(targets, index):
                yield f"spans of {question.about}", partial(self._spans.collect, scope, question, names, traces)
        if targets:
            yield "events", partial(self._topology.events, scope, targets)
            yield "monitors", partial(self._monitors.others, scope, targets)
            yield "service dependencies", partial(self._topology.dependencies, scope, names)
            yield "software catalogue", partial(self._topology.relations, scope, names)
        if targets and scope.seasonal:
            yield "log counts of other days", partial(self._logs.count_seasonal, scope, targets)

    # --- doctor ---

    async def check(self) -> list[Check]:
        """See collectors.base.Collector. Only a valid API key tells a missing scope from the wrong site."""
        key = await self._check("credentials", self._validate)
        clock = clock_check(self._session.skew_s)
        scopes = {endpoint.scope: (endpoint, params, body) for endpoint, params, body in self._cheapest_reads()}
        if key.status == "failed":
            skipped = [Check(name=scope, status="skipped", detail="the API key is not accepted") for scope in scopes]
            return [key, clock, *skipped, Check(name="sample query", status="skipped", detail="not asked")]
        asked = [self._check(name, partial(self._read_once, *read)) for name, read in scopes.items()]
        checks = await asyncio.gather(*asked, self._check("sample query", self._sample_query))
        return [key, clock, *_one_reason(checks)]

    async def _check(self, name: str, read: Callable[[Part], Awaitable[str]]) -> Check:
        return await checked(self.name, self._settings, name, read)

    async def _validate(self, part: Part) -> str:
        needs = "check DATADOG_API_KEY, and that DATADOG_SITE is the organisation's site"
        await self._session.ask(part, VALIDATE, needs=needs)
        return f"the API key is valid at {self._session.client.base_url.host}"

    async def _read_once(self, endpoint: Endpoint, params: Params, body: JsonValue, part: Part) -> str:
        needs = f"give the application key the scope {endpoint.scope}"
        await self._session.ask(part, endpoint, params=params, body=body, needs=needs)
        return f"{endpoint.path} answers"

    async def _sample_query(self, part: Part) -> str:
        lines = await self._logs.total(self._lately, part)
        return f"{lines:,} log lines in the last {CHECKED_WITHIN.total_seconds() / 60:.0f} minutes"

    @property
    def _lately(self) -> Window:
        now = self._clock.now()
        return Window(start=now - CHECKED_WITHIN, end=now)

    def _cheapest_reads(self) -> Iterator[tuple[Endpoint, Params, JsonValue]]:
        """One for each scope."""
        window = self._lately
        for searched in (LOGS, SPANS, EVENTS):
            yield searched, {}, Search(searched, "*", window, 1).body(None, 0)
        attributes: dict[str, JsonValue] = {
            "from": ms(window.start),
            "to": ms(window.end),
            "queries": [{"data_source": "metrics", "query": "avg:datadog.agent.running{*}", "name": "q0"}],
            "formulas": [{"formula": "q0"}],
        }
        yield POINTS, {}, {"data": {"type": "timeseries_request", "attributes": attributes}}
        yield METRICS, {"window[seconds]": "3600", "page[size]": "1"}, None
        yield MONITORS, {"page": "0", "page_size": "1"}, None
        yield RELATIONS, {"page[limit]": "1"}, None


def _span_questions(targets: Sequence[Target], index: int) -> Iterator[Question]:
    """The alerted service by itself, its neighbours together: Datadog allows 300 span searches an hour."""
    if index == 0:
        yield from questions(targets[:1])
    elif index == 1:
        yield from questions(targets[1:])


def _merged(series: Iterable[Series]) -> Iterator[Series]:
    """One series of each metric, whatever job or window its pieces came from."""
    pieces: defaultdict[tuple[str, str], list[Series]] = defaultdict(list)
    for one in series:
        pieces[one.ref.component, one.ref.query].append(one)
    for found in pieces.values():
        yield concatenated(sorted(found, key=lambda one: one.ref.unit, reverse=True))


def _told_once(changes: Sequence[Change]) -> Iterator[Change]:
    """A deployment that an event tells of needs not be concluded from spans as well: the event knows its author."""
    for change in changes:
        if not any(_same_deployment(change, other) for other in changes):
            yield change


def _same_deployment(change: Change, other: Change) -> bool:
    """Whether ``other`` tells more of it."""
    same = (change.component, change.kind, change.version) == (other.component, "deploy", other.version)
    return bool(
        same and not change.author and other.author and abs(change.at - other.at) <= SAME_DEPLOYMENT and change.version
    )


def _one_reason(checks: Sequence[Check]) -> list[Check]:
    """If no scope at all is granted, it is not the scopes."""
    refused = [check for check in checks if check.mend.startswith("give the application key")]
    if len(refused) < len(checks):
        return list(checks)
    mend = "check DATADOG_APP_KEY: it is no application key of this organisation, or it has none of the scopes"
    return [check.model_copy(update={"mend": mend}) for check in checks]
