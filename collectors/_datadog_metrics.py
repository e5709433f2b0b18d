"""Metrics from Datadog: which a service reports, and their points over windows."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from time import monotonic
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, JsonValue, ValidationError

from collectors._datadog_api import METRICS, POINTS, Session, metric_tag, ms, not_understood, tags
from collectors._http import parsed
from collectors._jobs import Part
from collectors._windows import joined, whole_periods
from collectors.base import Clock, GapReason, Refused, Scope, Series, SeriesRef, Target, Window

INTERVAL_S = 30  # the same when an effect is measured, so that sums stay comparable
MAX_POINTS = 1400  # per series; Datadog returns about 1500
METRICS_PER_SERVICE = 60
QUERIES_PER_REQUEST = 20
SEASONAL_HOPS = 1  # neighbours farther away are compared with the minutes before alone
LONGEST_LOOK_BACK_S = 30 * 86400


class _Metric(BaseModel):
    id: str


class _MetricList(BaseModel):
    data: list[JsonValue] | None = None


class _Unit(BaseModel):
    name: str = ""
    short_name: str | None = None


class _Head(BaseModel):
    query_index: int
    unit: list[_Unit | None] | None = None


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


_Value = Annotated[float | None, AfterValidator(_finite)]


class _Points(BaseModel):
    series: list[JsonValue] = Field(default_factory=list)
    times: list[float] = Field(default_factory=list, description="Epoch milliseconds")
    values: list[list[_Value]] = Field(default_factory=list)


class _PointsData(BaseModel):
    attributes: _Points = Field(default_factory=_Points)


class _Timeseries(BaseModel):
    data: _PointsData = Field(default_factory=_PointsData)


class MetricReader:
    """Reads metrics by the tags of a service, or by a query."""

    def __init__(self, session: Session, clock: Clock) -> None:
        self._session, self._clock = session, clock

    async def collect(self, scope: Scope, target: Target, part: Part) -> None:
        """A job: all that the target reports, over the incident and the time before, then the hours to compare with."""
        names = await self._names(scope, target, part)
        if len(names) > METRICS_PER_SERVICE:
            part.gap(
                GapReason.TRUNCATED,
                f"{target.service} reports {len(names)} metrics; {METRICS_PER_SERVICE} were read",
            )
        refs = [_ref(target, name) for name in names[:METRICS_PER_SERVICE]]
        seasonal = scope.seasonal if target.hops <= SEASONAL_HOPS else ()
        await self.read(refs, [*joined((scope.incident, *scope.baseline)), *seasonal], part)

    async def read(self, refs: Sequence[SeriesRef], windows: Iterable[Window], part: Part) -> None:
        """The refs' points in each of the windows, as series of their own."""
        wanted = list(refs)
        for window in windows:
            for batch in _batches(list(wanted)):
                for bad in await self._batch(batch, window, part):
                    wanted.remove(bad)

    async def points(self, refs: Sequence[SeriesRef], window: Window, part: Part) -> list[Series]:
        """The refs' points, whole intervals only. Raises CollectorError."""
        found: list[Series] = []
        for batch in _batches(refs):
            found += await self._points(batch, window, part)
        return found

    async def _names(self, scope: Scope, target: Target, part: Part) -> list[str]:
        """What the service reports, its own metrics before those of its machine."""
        first = min(w.start for w in (scope.incident, *scope.baseline))
        age_s = (self._clock.now() - first).total_seconds()
        selected = " AND ".join(metric_tag(tag) for tag in tags(target))
        params = {
            "filter[tags]": selected,
            "window[seconds]": str(int(min(max(age_s, 3600), LONGEST_LOOK_BACK_S))),
        }
        started = monotonic()
        listed = (await self._session.read(part, METRICS, _MetricList, params=params)).data or []
        names = {name for name in map(_name, listed) if name}
        whole = Window(start=first, end=scope.incident.end)
        part.queries.append(self._session.query(METRICS, f"metrics {selected}", whole, started, len(names)))
        if not names:
            part.gap(GapReason.EMPTY, f"no metric is tagged {selected}", "set datadog_tags in the catalogue")
        return sorted(names, key=lambda name: (name.startswith(_MACHINE), name))

    async def _batch(self, refs: Sequence[SeriesRef], window: Window, part: Part) -> list[SeriesRef]:
        """Read some refs; those that Datadog refuses are told, and must not cost the others."""
        started = monotonic()
        try:
            found = await self._points(refs, window, part)
        except Refused as error:
            if len(refs) == 1:
                part.fail(Refused(f"{refs[0].query}: {error.detail}"))
                return list(refs)
            middle = len(refs) // 2
            return [
                *await self._batch(refs[:middle], window, part),
                *await self._batch(refs[middle:], window, part),
            ]
        rows = {series.ref.query: len(series.epoch_s) for series in found}
        for ref in refs:
            row_count = rows.get(ref.query, 0)
            part.queries.append(self._session.query(POINTS, ref.query, window, started, row_count, metric=ref.metric))
        part.keep(found)
        return []

    async def _points(self, refs: Sequence[SeriesRef], window: Window, part: Part) -> list[Series]:
        interval_s = interval_for(window, INTERVAL_S)
        whole = whole_periods(window, interval_s)
        asked = _Request()
        formulas: list[JsonValue] = [{"formula": asked.formula(ref.query)} for ref in refs]
        attributes: dict[str, JsonValue] = {
            "from": ms(whole.start),
            "to": ms(whole.end),
            "interval": interval_s * 1000,
            "queries": asked.queries(),
            "formulas": formulas,
        }
        body: JsonValue = {"data": {"type": "timeseries_request", "attributes": attributes}}
        answer = await self._session.read(part, POINTS, _Timeseries, body=body)
        return list(_series(refs, answer.data.attributes, whole, part))


def interval_for(window: Window, interval_s: int) -> int:
    """Doubled until the window has no more points than Datadog returns."""
    while (window.end - window.start).total_seconds() / interval_s > MAX_POINTS:
        interval_s *= 2
    return interval_s


def _batches(refs: Sequence[SeriesRef]) -> Iterator[Sequence[SeriesRef]]:
    for start in range(0, len(refs), QUERIES_PER_REQUEST):
        yield refs[start : start + QUERIES_PER_REQUEST]


def _name(row: JsonValue) -> str:
    """Empty for what is no metric's name: it would not survive being put into a query."""
    try:
        name = _Metric.model_validate(row).id
    except ValidationError:
        return ""
    return name if re.fullmatch(r"[A-Za-z][\w.]*", name) else ""


# --- queries ------------------------------------------------------------------------------------------------

METRIC_TERM = re.compile(
    r"(?:(?P<space>avg|sum|min|max|count|p\d{2,3}):)?(?P<metric>[A-Za-z][\w.]*)\s*\{(?P<scope>[^{}]*)\}"
    r"(?:\s*by\s*\{(?P<by>[^{}]*)\})?(?P<functions>(?:\.\w+\([^()]*\))*)"
)
"""``sum:trace.http.request.hits{service:pay} by {host}.as_count()``, the only part of a query that names a metric."""


class _Request:
    """The queries of one request; an expression of several metrics becomes a formula of theirs."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def formula(self, expression: str) -> str:
        """``sum:a{x} / sum:b{x} * 100`` as ``q0 / q1 * 100``."""
        return METRIC_TERM.sub(lambda term: self._names.setdefault(term[0], f"q{len(self._names)}"), expression)

    def queries(self) -> list[JsonValue]:
        """All that the formulas name."""
        return [{"data_source": "metrics", "query": text, "name": name} for text, name in self._names.items()]


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


def _ref(target: Target, metric: str) -> SeriesRef:
    statistic, query = _aggregated(metric, ",".join(metric_tag(tag) for tag in tags(target)))
    return metric_ref(target.service, metric, statistic, query)


def metric_ref(component: str, metric: str, statistic: str, query: str) -> SeriesRef:
    """A metric's ref; its unit as far as its name tells."""
    unit = next((unit for pattern, unit in _UNITS if pattern.search(metric)), "")
    return SeriesRef(source="datadog", component=component, metric=metric, statistic=statistic, unit=unit, query=query)


def _aggregated(metric: str, selected: str) -> tuple[str, str]:
    """Statistic and query: counts are added up, a percentile or maximum is judged by its worst instance."""
    if _COUNTS.search(metric):
        return "sum", f"sum:{metric}{{{selected}}}.as_count()"
    percentile = _PERCENTILE.search(metric)
    if percentile:
        return f"p{percentile[1] or percentile[2]}", f"max:{metric}{{{selected}}}"
    if re.search(r"[._]max$", metric):
        return "max", f"max:{metric}{{{selected}}}"
    return "avg", f"avg:{metric}{{{selected}}}"


# --- answers ------------------------------------------------------------------------------------------------


def _series(refs: Sequence[SeriesRef], points: _Points, window: Window, part: Part) -> Iterator[Series]:
    """The series that have points; a null is no point, nor is what lies outside of the window."""
    start, end = window.start.timestamp(), window.end.timestamp()
    outside = 0
    for row, values in zip(points.series, points.values, strict=False):
        head = parsed(_Head, row)
        known = {at / 1000: v for at, v in zip(points.times, values, strict=False) if v is not None}
        inside = {at: value for at, value in known.items() if start <= at < end}
        outside += sum(not start <= at <= end for at in known)
        if inside and 0 <= head.query_index < len(refs):
            yield _one(refs[head.query_index], head, inside)
    not_understood(part, outside, "points outside of the window that was asked for")


def _one(ref: SeriesRef, head: _Head, points: Mapping[float, float]) -> Series:
    # added up over an interval, what was per second is no rate any more
    unit = _unit(head.unit[:1] if head.unit and ref.statistic == "sum" else head.unit) or ref.unit
    epoch_s = tuple(sorted(points))
    return Series(
        ref=ref.model_copy(update={"unit": unit}), epoch_s=epoch_s, values=tuple(points[at] for at in epoch_s)
    )


def _unit(units: Sequence[_Unit | None] | None) -> str:
    """``[second, None]`` is s; ``[byte, second]`` is B/s."""
    names = [unit.short_name or unit.name for unit in units or () if unit]
    return "/".join(name for name in names if name)
