"""Which metrics departed from their baseline: level against history and against the moments just before."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite

from collectors.base import Series, SeriesRef
from graph.ranking.deviation import Deviation, Worse, quantity
from graph.ranking.semantics import IMPORTANCE, REQUESTS, Meaning, meaning, words
from graph.ranking.windows import Windows

MIN_STRENGTH = 0.02  # below it a deviation is noise that only costs time
MIN_DEVIATION = 3.0  # robust standard deviations: the usual three-sigma rule
MAD_TO_SIGMA = 1.4826  # of a normal distribution
RELATIVE_FLOOR = 0.05
"""Scale is at least this share of the level: a metric that never moved before may still move by a twentieth."""
FEW_SAMPLES = 0.5
"""Added to the floor, divided by the number of baseline samples: one sample says nothing about the spread."""
MIN_HISTORY = 12  # baseline samples from which its last quarter is a baseline of its own
MAX_POINTS = 60
UNLIMITED = 0.3  # a resource in absolute units: nobody knows how close its limit is
HOST_SHARE = 0.3  # a machine's load belongs to all that run on it
_EXTREME = re.compile(r"p\d+(?:\.\d+)?|max", re.IGNORECASE)  # statistics that speak of the worst, not of the usual


@dataclass(frozen=True, slots=True)
class _Samples:
    """One series cut by the windows."""

    points: tuple[tuple[float, float], ...]
    incident: tuple[tuple[float, float], ...]
    centers: tuple[float, ...]  # median of each baseline that has samples
    spread: float  # median absolute deviation within baselines
    count: int  # baseline samples


def deviations(series: Iterable[tuple[str, Series]], windows: Windows) -> list[Deviation]:
    """All metrics that departed; ``series`` come with the name of their source."""
    known = list(series)
    growth = _traffic_growth((one for _, one in known), windows)
    found = (_deviation(source, one, windows, growth) for source, one in known)
    return [d for d in found if d is not None and d.strength >= MIN_STRENGTH]


def _traffic_growth(series: Iterable[Series], windows: Windows) -> dict[str, float]:
    """By component how many times as many requests it gets, at least 1; 1 where it is not known."""
    growth: dict[str, float] = {}
    for one in series:
        if meaning(one.ref.metric, one.ref.unit).role != "traffic" or not words(one.ref.metric) & REQUESTS:
            continue
        samples = _cut(one, windows)
        before = median(samples.centers) if samples else 0.0
        if samples and before > 0:
            growth[one.ref.component] = max(growth.get(one.ref.component, 1.0), _level(samples.incident) / before)
    return growth


def _deviation(source: str, series: Series, windows: Windows, growth: Mapping[str, float]) -> Deviation | None:
    samples = _cut(series, windows)
    if samples is None:
        return None
    means = meaning(series.ref.metric, series.ref.unit)
    sign = _direction(means.worse, samples)
    baseline = max(samples.centers, key=lambda c: sign * c)  # the one that speaks least for a shift
    center = baseline  # what is expected now
    if means.role == "error" and not means.percent:  # twice the requests make twice the errors
        center *= growth.get(series.ref.component, 1.0)
    scale = _scale(means, samples, center)
    start = _onset(samples, center, sign, scale)
    observed = _level(samples.incident[start:])
    distance = sign * (observed - center) / scale
    strength = _strength(means, observed, center, distance, _limit(series, samples))
    return _described(
        Deviation(
            component=series.ref.component,
            kind="metric",
            channel=_channel(means),
            signal=_signal(series.ref),
            strength=strength,
            at_s=samples.incident[start][0],
            summary="",
            inherited=means.role != "saturation",
            observed=observed,
            baseline=baseline,
            unit=series.ref.unit or ("%" if means.percent else ""),
            effect=max(distance, 0.0),
            source=source,
            ref=series.ref,
            worse=means.worse,
            points=thinned(samples.points),
        )
    )


def _signal(ref: SeriesRef) -> str:
    """The metric's name, with its statistic if that is a percentile or the maximum and the name does not tell it."""
    told = words(ref.statistic) <= words(ref.metric.replace("percentile", "p"))  # «95percentile» is p95
    return ref.metric if told or not _EXTREME.fullmatch(ref.statistic) else f"{ref.metric} {ref.statistic}"


def _cut(series: Series, windows: Windows) -> _Samples | None:
    # other days' points are for comparing, not for drawing
    points = sorted(
        p for p in zip(series.epoch_s, series.values, strict=False) if isfinite(p[1]) and windows.hold(p[0])
    )
    incident = tuple((t, v) for t, v in points if windows.in_incident(t))
    groups = [[v for t, v in points if a <= t < b and not windows.in_incident(t)] for a, b in windows.baselines]
    groups = [g for g in groups if g]
    if not incident or not groups:
        return None
    centers = [median(g) for g in groups]
    spread = median([abs(v - c) for g, c in zip(groups, centers, strict=True) for v in g])
    before = [v for t, v in points if windows.in_baseline(t) and t < incident[0][0]]
    if len(before) >= MIN_HISTORY:
        centers.append(median(before[-(len(before) // 4) :]))
    return _Samples(tuple(points), incident, tuple(centers), spread, sum(map(len, groups)))


def _direction(worse: Worse, samples: _Samples) -> float:
    """+1 or -1: the way that is bad; of a metric that has none, the way it went."""
    if worse != "neutral":
        return 1.0 if worse == "up" else -1.0
    return 1.0 if _level(samples.incident) >= median(list(samples.centers)) else -1.0


def _scale(means: Meaning, samples: _Samples, center: float) -> float:
    """One robust standard deviation, with floors for metrics that are constant or seldom sampled."""
    values = [v for _, v in samples.incident]
    level = max(abs(center), max(abs(v) for v in values))
    if means.role == "success" and means.percent:  # 100 % to 97 % is a shift from 0 to 3 % failures
        level = max(100.0 - min(values), 0.0)
    floor = level * (RELATIVE_FLOOR + FEW_SAMPLES / samples.count)
    return max(MAD_TO_SIGMA * samples.spread, floor, _resolution(means, values, center))


def _resolution(means: Meaning, values: Sequence[float], center: float) -> float:
    """The smallest step worth talking of: one percentage point, one of something counted."""
    if means.percent:
        return 1.0
    counted = all(v.is_integer() for v in (*values, center))
    return 1.0 if counted else 1e-9


def _onset(samples: _Samples, center: float, sign: float, scale: float) -> int:
    """Index of the first incident sample from which at least half of the rest deviate; 0 if there is none."""
    beyond = [sign * (v - center) > MIN_DEVIATION * scale for _, v in samples.incident]
    rest = sum(beyond)
    for index, deviates in enumerate(beyond):
        if deviates and 2 * rest >= len(beyond) - index:
            return index
        rest -= deviates
    return 0


def _level(points: Sequence[tuple[float, float]]) -> float:
    """Where the metric is now: the median of the later half. What has recovered is no symptom."""
    return median([v for _, v in points[len(points) // 2 :]])


def _strength(means: Meaning, observed: float, center: float, distance: float, limit: float) -> float:
    importance = IMPORTANCE[means.role]
    if means.limited:
        # Queues grow with 1/(1-u): half full is harmless, the last tenth is not. The cube follows that without a pole.
        closer = _closeness(observed, limit) - _closeness(center, limit)
        return max(closer, 0.0) * importance * (HOST_SHARE if means.host else 1.0)
    significance = max(0.0, 1.0 - MIN_DEVIATION / distance) if distance > 0 else 0.0
    if means.role == "saturation":
        importance = UNLIMITED
    return significance * _relative(means, observed, center) * importance


def _closeness(value: float, limit: float) -> float:
    used: float = min(max(value / limit, 0.0), 1.0)
    return used * used * used


def _limit(series: Series, samples: _Samples) -> float:
    """100 for percent, 1 for a ratio. A utilization that stays within 1.5 is a ratio: bursts go a little above 1."""
    if "%" in series.ref.unit + series.ref.metric or "percent" in (series.ref.unit + series.ref.metric).lower():
        return 100.0
    return 1.0 if max(v for _, v in samples.points) <= 1.5 else 100.0


def _relative(means: Meaning, observed: float, center: float) -> float:
    """The change as a share of the larger of both levels, 0..1; of success, what is counted is failure."""
    if means.role == "success" and means.percent:
        observed, center = 100.0 - observed, 100.0 - center
    larger = max(abs(observed), abs(center))
    return min(abs(observed - center) / larger, 1.0) if larger else 0.0


def _channel(means: Meaning) -> str:
    return "error" if means.role == "success" else means.role


def _described(deviation: Deviation) -> Deviation:
    observed, baseline = deviation.observed or 0.0, deviation.baseline or 0.0
    verb = "rose" if observed > baseline else "fell"
    text = (
        f"{deviation.component} {deviation.signal} {verb} from {quantity(baseline, deviation.unit)} "
        f"to {quantity(observed, deviation.unit)} from {clock_time(deviation.at_s)} on."
    )
    return replace(deviation, summary=text)


def clock_time(epoch_s: float) -> str:
    """Time of day in UTC."""
    return f"{datetime.fromtimestamp(epoch_s, UTC):%H:%M:%S} UTC"


def median(values: Sequence[float]) -> float:
    """The middle value. Plain sorting: series are short, and numpy costs more than it saves on them."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else ordered[half - 1] / 2.0 + ordered[half] / 2.0


def thinned(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """At most MAX_POINTS of them, evenly spread, first and last included."""
    if len(points) <= MAX_POINTS:
        return tuple(points)
    step = (len(points) - 1) / (MAX_POINTS - 1)
    return tuple(points[round(i * step)] for i in range(MAX_POINTS))
