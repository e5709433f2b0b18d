"""Reads Prometheus and what speaks its API: Mimir, Cortex, Thanos, VictoriaMetrics, Amazon Managed Prometheus.

A service's series are those with the catalogue's ``prometheus`` matchers, without any ``service="<name>"``; no other
label is guessed. What there is of them is asked first, then one aggregated query for each metric. Amazon's wants
``aps:QueryMetrics``, ``aps:GetLabels``, ``aps:GetMetricMetadata`` and ``aps:ListAlerts``.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from math import ceil
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session
from pydantic import AwareDatetime, BaseModel, Field, JsonValue

from collectors._budget import env
from collectors._http import COMPLAINT, Api, Params, checked, clock_check, parsed
from collectors._jobs import Job, Part
from collectors._prometheus_family import (
    FamilySettings,
    Row,
    client,
    complete,
    data_of,
    literal,
    matchers,
    readable,
    rows_of,
)
from collectors._promql import (
    FAILURES,
    Metrics,
    equalities,
    lowest_is_worst,
    references,
    restricted,
    selector,
    without_threshold,
)
from collectors._queries import asked
from collectors._source import HttpSource
from collectors._windows import concatenated, joined, whole_periods
from collectors.base import (
    Change,
    Check,
    Clock,
    CollectorError,
    Declared,
    Forbidden,
    GapReason,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Status,
    Target,
    Telemetry,
    Window,
    utc,
)

SIDE_BY_SIDE = 8  # jobs at once
AT_ONCE = 8  # requests
PER_SECOND = 60.0
MAX_POINTS = 1400  # per series; Prometheus refuses 11,000
METRICS_PER_SERVICE = {0: 60, 1: 30}  # queries by hops; of what is further away
METRICS_FAR_AWAY = 15
SEASONAL_METRICS = 12  # of the alerted service that are read on other days too
MAX_NAMES = 5000  # metric names of one service
MAX_BUILDS = 5  # metrics of one service that tell a version
MAX_EXPRESSION = 4000  # characters
QUERY_TIMEOUT_S = 10
REWRITE = "narrow prometheus of the service in the catalogue, or raise the limit that the answer names"
_NAME = re.compile(r"[a-zA-Z_:][\w:.]*", re.ASCII)


class Settings(FamilySettings):
    """``PROMETHEUS_*``: where it is, credentials, and how finely it is read."""

    model_config = env("PROMETHEUS_")

    sigv4_region: str | None = Field(
        default=None, description="Region of Amazon Managed Prometheus: signs with AWS's default credentials"
    )
    ui_url: str | None = Field(default=None, description="Where people open Prometheus, if not at the URL")
    step_s: int = Field(default=30, ge=1, le=3600, description="Seconds between two points")
    rate_s: int = Field(default=120, ge=1, le=3600, description="Seconds of rate(); four scrape intervals at least")
    max_calls: int = Field(default=600, ge=1, description="Requests a collection may make")


def create(clock: Clock, declared: Declared) -> "PrometheusCollector":
    """The collector of the server that the settings name. Raises ValueError naming a missing setting."""
    return PrometheusCollector(clock, complete(Settings(), "prometheus"))


class SigV4(httpx.Auth):
    """Signs requests to Amazon Managed Prometheus with the credentials of AWS's default chain."""

    def __init__(self, region: str, session: Session | None = None) -> None:
        self._region, self._session = region, session or Session()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """See httpx.Auth. Credentials may have to be fetched, so it happens on a thread."""
        request.headers.update(await asyncio.to_thread(self._signature, request))
        yield request

    def _signature(self, request: httpx.Request) -> dict[str, str]:
        mend = "give this process AWS credentials: environment, profile or role"
        try:
            credentials = self._session.get_credentials()
            if credentials is None:
                raise Forbidden("there are no AWS credentials", mend)
            frozen = credentials.get_frozen_credentials()  # which may have to be fetched again
        except (BotoCoreError, ClientError, RuntimeError) as error:
            raise Forbidden(f"no AWS credentials: {error}"[:COMPLAINT], mend) from None
        url = request.url.copy_with(query=_as_signed(request.url.query))
        request.url = url
        kept = {name: request.headers[name] for name in ("host", "content-type") if name in request.headers}
        signed = AWSRequest(method=request.method, url=str(url), data=request.content, headers=kept)
        SigV4Auth(frozen, "aps", self._region).add_auth(signed)
        return {name: str(signed.headers[name]) for name in signed.headers}


def _as_signed(query: bytes) -> bytes:
    """AWS reads a plus sign as a plus sign: a blank must be %20 where the query is signed."""
    return query.replace(b"+", b"%20")


# --- what Prometheus answers --------------------------------------------------------------------------------


class _Metadata(BaseModel):
    type: str


class _Alert(BaseModel):
    labels: dict[str, str]
    annotations: dict[str, str] = Field(default_factory=dict)
    state: str
    activeAt: AwareDatetime  # noqa: N815  its name


class _Alerts(BaseModel):
    alerts: list[JsonValue]


class _Types:
    """The metrics' types, asked for once per collection by whoever needs them first."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.known: dict[str, str] | None = None


class PrometheusCollector(HttpSource[Settings]):
    """One Prometheus, read-only."""

    name = "prometheus"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold the URL."""
        super().__init__(settings)
        self._clock = clock
        auth = SigV4(settings.sigv4_region) if settings.sigv4_region else None
        self._api = Api(
            "Prometheus",
            client(settings, auth=auth, transport=transport),
            base_setting="PROMETHEUS_URL",
            per_second=PER_SECOND,
            at_once=AT_ONCE,
        )
        self._ui = settings.ui_url or (None if settings.sigv4_region else settings.url)

    async def collect(self, scope: Scope) -> Telemetry:
        """The alert's own expression; metrics, restarts and new versions of every target; alerts that fire.

        Raises CollectorError.
        """
        return await self._gathered(scope, self._jobs(scope), side_by_side=SIDE_BY_SIDE)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' queries over another window. Raises CollectorError if none of them could be read."""
        part = self._part("measure")
        async with asyncio.TaskGroup() as group:
            for ref in refs:
                if ref.source == self.name:
                    group.create_task(self._read(part, ref, [window]))
        if part.failures and not part.series:
            raise part.failures[0]
        return part.series

    # --- jobs ---

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        types = _Types()
        if expression := alert_expression(scope):
            yield "the alert's expression", partial(self._expression, scope, expression)
        for target in scope.targets:
            yield f"metrics of {target.service}", partial(self._metrics, scope, target, types)
        for target in scope.targets:
            yield f"restarts of {target.service}", partial(self._restarts, scope, target)
        if scope.targets:
            yield "alerts", partial(self._alerts, scope)

    async def _expression(self, scope: Scope, expression: str, part: Part) -> None:
        """What the alert is about, below its threshold too.

        An expression over several services is narrowed down to the alerted one.
        """
        plain = without_threshold(expression)
        worst = "min" if lowest_is_worst(expression) else "max"
        rule = scope.symptom.rule.rpartition(":")[2]
        ref = SeriesRef(source=self.name, component=scope.service, metric=rule or plain[:100], query="")
        labels = equalities(_matchers(scope.targets[0])) if scope.targets else {}
        windows = joined((scope.incident, *scope.baseline))
        if labels:
            own = f"{worst}({restricted(plain, labels)})"
            await self._read(part, ref.model_copy(update={"statistic": worst, "query": own}), windows)
        if part.series:
            return
        rows = await self._rows(part, plain, scope.incident)
        if len(rows) > 1:
            part.gap(
                GapReason.EMPTY,
                f"the alert's expression gives {len(rows)} series, and none has the labels of {scope.service}",
                f"set prometheus of {scope.service} in the catalogue to labels that the expression keeps",
            )
        elif rows:
            await self._read(part, ref.model_copy(update={"statistic": "value", "query": plain}), windows)

    async def _metrics(self, scope: Scope, target: Target, types: _Types, part: Part) -> None:
        known = await self._known(scope, target, types, part)
        refs = references(known)
        most = METRICS_PER_SERVICE.get(target.hops, METRICS_FAR_AWAY)
        if len(refs) > most:
            told = f"{target.service}: {most} of {len(refs)} metric queries were asked, the most telling"
            part.gap(GapReason.TRUNCATED, told, f"narrow prometheus of {target.service} in the catalogue")
        await self._versions(scope, known, part)
        windows = joined((scope.incident, *scope.baseline))
        async with asyncio.TaskGroup() as group:
            for ref in refs[:most]:
                group.create_task(self._read(part, ref, windows))
        part.series.sort(key=lambda one: refs.index(one.ref))  # most telling first, not the fastest
        if target.hops == 0:
            await self._other_days(scope, part)

    async def _known(self, scope: Scope, target: Target, types: _Types, part: Part) -> Metrics:
        """Which metrics the service has in the windows, and how each is to be asked for."""
        window = _whole(scope)
        chosen = _matchers(target)
        names = await self._names(part, f"{{{chosen}}}", window)
        if not names:
            mend = f"set prometheus of {target.service} in the catalogue to its label matchers"
            part.gap(
                GapReason.EMPTY,
                f"{target.service}: no series has the labels {chosen}",
                f'{mend}, e.g. job="{target.service}"',
            )
        return Metrics(
            component=target.service,
            matchers=chosen,
            names=frozenset(names),
            types=await self._typed(part, types) if names else {},
            failing=await self._failing(part, chosen, window) if names else {},
            rate_s=self._settings.rate_s,
        )

    async def _names(self, part: Part, chosen: str, window: Window) -> list[str]:
        found = await self._values(part, "label/__name__/values", chosen, window)
        names = [name for name in found if _NAME.fullmatch(name)]
        if len(found) > MAX_NAMES:
            told = f"{chosen}: {MAX_NAMES} of {len(found)} metric names were looked at"
            part.gap(GapReason.TRUNCATED, told, "narrow prometheus of the service in the catalogue")
        return sorted(names)[:MAX_NAMES]

    async def _failing(self, part: Part, chosen: str, window: Window) -> dict[str, tuple[str, str]]:
        """By metric the label, and its values, that tell failures apart. Without it there are only totals."""
        failing: dict[str, tuple[str, str]] = {}
        try:
            labels = await self._values(part, "labels", f"{{{chosen}}}", window)
            for label in (one for one in FAILURES if one in labels):  # in this order: a metric may have several
                failed = f"{{{chosen},{label}=~{literal(FAILURES[label])}}}"
                for name in await self._names(part, failed, window):
                    failing.setdefault(name, (label, FAILURES[label]))
        except CollectorError as error:
            part.fail(error)
        return failing

    async def _values(self, part: Part, what: str, chosen: str, window: Window) -> list[str]:
        params: Params = {"match[]": chosen, "start": _s(window.start), "end": _s(window.end)}
        about = f"{what} of {chosen}"
        with asked(part, about, window) as tally:
            body = await self._api.json(part, f"/api/v1/{what}", needs=self._needs("aps:GetLabels"), params=params)
            data = data_of(part, about, body)
            values = [value for value in data if isinstance(value, str)] if isinstance(data, list) else []
            tally.rows = len(values)
        return values

    async def _typed(self, part: Part, types: _Types) -> dict[str, str]:
        """Without metadata the names have to tell: not every server that speaks the API has it."""
        async with types.lock:
            if types.known is None:
                types.known = {}
                try:
                    types.known = await self._metadata(part)
                except CollectorError as error:
                    part.fail(error)
            return types.known

    async def _metadata(self, part: Part) -> dict[str, str]:
        body = await self._api.json(
            part,
            "/api/v1/metadata",
            needs=self._needs("aps:GetMetricMetadata"),
            params={"limit_per_metric": 1},
        )
        data = data_of(part, "metadata", body)
        known: dict[str, str] = {}
        for name, entries in (data if isinstance(data, dict) else {}).items():
            for entry in readable(part, "metadata", entries if isinstance(entries, list) else [], _Metadata):
                known[name] = entry.type
        return known

    async def _other_days(self, scope: Scope, part: Part) -> None:
        """The same hours of other days, of the most telling metrics."""
        for index, series in enumerate(part.series[:SEASONAL_METRICS]):
            for window in scope.seasonal:
                try:
                    more = await self._points(part, series.ref, window)
                except CollectorError as error:
                    part.fail(error)
                    return
                if more:
                    part.series[index] = concatenated([part.series[index], more])

    async def _versions(self, scope: Scope, known: Metrics, part: Part) -> None:
        """A version that was not there before is a deployment."""
        told = sorted(name for name in known.names if name.endswith("_build_info") or name == "target_info")
        for name in told[:MAX_BUILDS]:
            query = f"group by (version, revision, service_version) ({selector(name, known.matchers)})"
            try:
                part.keep(_deployments(known.component, await self._rows(part, query, _whole(scope))))
            except CollectorError as error:
                part.fail(error)

    async def _restarts(self, scope: Scope, target: Target, part: Part) -> None:
        """Processes that started since the time before the incident."""
        window = _whole(scope)
        query = f"{selector('process_start_time_seconds', _matchers(target))} > {window.start.timestamp():.0f}"
        end = min(window.end, self._clock.now())
        fields: Params = {"query": query, "time": _s(end), "timeout": f"{QUERY_TIMEOUT_S}s"}
        with asked(part, query, window, _link(self._ui, query, window), kind="changes") as tally:
            body = await self._api.form(part, "/api/v1/query", fields, needs=self._needs("aps:QueryMetrics"))
            rows = rows_of(part, query, data_of(part, query, body))
            tally.rows = len(rows)
        starts = sorted(value for row in rows for _, value in row.points if value < end.timestamp())
        if starts:
            what = "a process was started" if len(starts) == 1 else f"{len(starts)} processes were started"
            part.keep([Change(component=target.service, at=utc(starts[0]), kind="other", title=what)])

    async def _alerts(self, scope: Scope, part: Part) -> None:
        link = f"{self._ui.rstrip('/')}/alerts" if self._ui else None
        with asked(part, "alerts", scope.incident, link, kind="statuses") as tally:
            body = await self._api.json(part, "/api/v1/alerts", needs=self._needs("aps:ListAlerts"))
            found = parsed(_Alerts, data_of(part, "alerts", body)).alerts
            firing = [alert for alert in readable(part, "alerts", found, _Alert) if alert.state == "firing"]
            tally.rows = len(firing)
        for target in scope.targets:
            part.keep(_statuses(scope, target, firing))

    # --- requests ---

    async def _read(self, part: Part, ref: SeriesRef, windows: Sequence[Window]) -> None:
        """One metric; what is refused costs only itself."""
        try:
            part.keep(await self._pieces(part, ref, windows))
        except CollectorError as error:
            part.fail(error)

    async def _pieces(self, part: Part, ref: SeriesRef, windows: Sequence[Window]) -> list[Series]:
        """One series of all windows, if there are points; the incident is read first, and kept if the rest fails."""
        pieces: list[Series] = []
        for window in reversed(windows):
            try:
                piece = await self._points(part, ref, window)
            except Refused as error:
                part.fail(Refused(f"{ref.query}: {error.detail}"[:1000], error.mend or REWRITE))
                break
            except CollectorError as error:
                part.fail(error)
                break
            pieces += [piece] if piece else []
        return [concatenated(pieces)] if pieces else []

    async def _points(self, part: Part, ref: SeriesRef, window: Window) -> Series | None:
        """The one series that the ref's query gives, if it has points. Raises CollectorError."""
        rows = [row for row in await self._rows(part, ref.query, window) if row.points]
        if not rows:
            return None
        epoch_s, values = zip(*sorted(dict(rows[0].points).items()), strict=True)
        return Series(ref=ref, epoch_s=epoch_s, values=values)

    async def _rows(self, part: Part, query: str, window: Window) -> list[Row]:
        """The query over the window, at moments that are the same whoever asks. Raises CollectorError."""
        step_s = self._settings.step_s * ceil(
            (window.end - window.start).total_seconds() / MAX_POINTS / self._settings.step_s
        )
        end = min(window.end, self._clock.now())  # beyond it Prometheus would repeat the last value
        if end <= window.start:
            return []
        whole = whole_periods(Window(start=window.start, end=end), step_s)
        fields: Params = {
            "query": query,
            "start": _s(whole.start),
            "end": _s(whole.end - timedelta(seconds=step_s)),  # which it would include
            "step": step_s,
            "timeout": f"{QUERY_TIMEOUT_S}s",
        }
        with asked(part, query, window, _link(self._ui, query, window), kind="metrics") as tally:
            body = await self._api.form(part, "/api/v1/query_range", fields, needs=self._needs("aps:QueryMetrics"))
            told = rows_of(part, query, data_of(part, query, body))
            rows = [_within(row, whole) for row in told]
            tally.rows = sum(len(row.points) for row in rows)
        outside = sum(len(row.points) for row in told) - tally.rows
        if outside:
            part.gap(GapReason.FAILED, f"{outside} points outside of the window were dropped: {query}")
        return rows

    def _needs(self, permission: str) -> str:
        if self._settings.sigv4_region:
            return f"allow {permission} on the workspace in IAM"
        tenant = "" if self._settings.org_id else ", and PROMETHEUS_ORG_ID if it has several tenants"
        return f"set PROMETHEUS_TOKEN, or PROMETHEUS_USERNAME and PROMETHEUS_PASSWORD{tenant}"

    # --- doctor ---

    async def check(self) -> list[Check]:
        """See collectors.base.Collector."""
        look = partial(checked, self.name, self._settings)
        now = self._clock.now()
        window = Window(start=now - timedelta(minutes=5), end=now)

        async def query(text: str, part: Part) -> str:
            rows = await self._rows(part, text, window)
            return f"{text}: {rows[0].points[-1][1]:g}" if rows and rows[0].points else f"{text}: nothing"

        async def labels(part: Part) -> str:
            found = await self._values(part, "labels", '{__name__="up"}', window)
            return f"{len(found)} labels"

        async def metadata(part: Part) -> str:
            return f"{len(await self._metadata(part))} metrics have a type"

        reached = await look("reachable", partial(query, "vector(1)"))
        if reached.status == "failed":
            return [reached, clock_check(self._api.skew_s)]
        return [
            reached,
            await look("aps:GetLabels" if self._settings.sigv4_region else "labels", labels),
            await look("aps:GetMetricMetadata" if self._settings.sigv4_region else "metadata", metadata),
            await look("sample query", partial(query, "count(up)")),
            clock_check(self._api.skew_s),
        ]


# --- queries ------------------------------------------------------------------------------------------------


def _matchers(target: Target) -> str:
    return matchers(target.prometheus, "service", target.service)


def alert_expression(scope: Scope) -> str:
    """The expression of the rule that fired, which Prometheus puts into the alert's link; empty if it is not there."""
    try:
        query = urlsplit(scope.symptom.url or "").query
        expression = parse_qs(query).get("g0.expr", [""])[0]
    except ValueError:
        return ""
    return expression if len(expression) <= MAX_EXPRESSION else ""


def _whole(scope: Scope) -> Window:
    """From the time before the incident to its end."""
    windows = (scope.incident, *scope.baseline)
    return Window(start=min(w.start for w in windows), end=scope.incident.end)


def _within(row: Row, window: Window) -> Row:
    start, end = window.start.timestamp(), window.end.timestamp()
    return Row(row.labels, tuple(point for point in row.points if start <= point[0] < end))


def _s(moment: AwareDatetime) -> str:
    """Epoch seconds."""
    return f"{moment.timestamp():.3f}"


def _link(ui: str | None, text: str, window: Window) -> str | None:
    if ui is None:
        return None
    minutes = max(ceil((window.end - window.start).total_seconds() / 60), 1)
    args = {
        "g0.expr": text,
        "g0.tab": 0,
        "g0.range_input": f"{minutes}m",
        "g0.end_input": f"{window.end:%Y-%m-%d %H:%M:%S}",
    }
    return f"{ui.rstrip('/')}/graph?{urlencode(args)}"


# --- rows to telemetry --------------------------------------------------------------------------------------


def _deployments(service: str, rows: Sequence[Row]) -> Iterator[Change]:
    """Of the versions that ran, those that came after another one."""
    begun: dict[str, float] = {}
    for row in rows:
        version = next((row.labels[n] for n in ("version", "service_version", "revision") if row.labels.get(n)), "")
        if version and row.points:
            begun[version] = min(begun.get(version, row.points[0][0]), row.points[0][0])
    first = min(begun.values(), default=0.0)
    for version, at in sorted(begun.items(), key=lambda item: item[1]):
        if at > first:
            yield Change(
                component=service,
                at=utc(at),
                kind="deploy",
                title=f"version {version[:100]} runs",
                version=version[:100],
            )


def _statuses(scope: Scope, target: Target, firing: Sequence[_Alert]) -> Iterator[Status]:
    """The target's alerts, by name.

    An old one is nothing new, and one that is no lead is the symptom again: a state, no more.
    """
    lead = scope.alarm_is_lead(target.service)
    for name, alerts in _by_name(target, firing).items():
        since = min(alert.activeAt for alert in alerts)
        told = alerts[0].annotations
        yield Status(
            component=target.service,
            name=f"unhealthy by the alert rule {name}",
            at=since,
            observed=float(len(alerts)),
            expected=0.0 if lead and since >= _whole(scope).start else None,
            detail=(told.get("summary") or told.get("description") or "")[:500],
        )


def _by_name(target: Target, firing: Sequence[_Alert]) -> Mapping[str, list[_Alert]]:
    labels = equalities(_matchers(target)).items()
    found: dict[str, list[_Alert]] = {}
    for alert in firing:
        if labels and labels <= alert.labels.items() and alert.activeAt.year > 1:
            found.setdefault(alert.labels.get("alertname", "without a name"), []).append(alert)
    return found
