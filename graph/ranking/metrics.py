"""Which metrics departed from their baseline: level against history and against the moments just before, and trend."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from collectors.base import Series, SeriesRef
from graph.ranking import samples
from graph.ranking.deviation import MIN_STRENGTH, Deviation, Worse, clock_time, quantity
from graph.ranking.samples import MAD_TO_SIGMA, MIN_DEVIATION, Floats, Samples, Silence
from graph.ranking.semantics import IMPORTANCE, SECONDS, Meaning, meaning_of, words
from graph.ranking.windows import Windows

RELATIVE_FLOOR = 0.05
"""Scale is at least this share of the level: a metric that never moved before may still move by a twentieth."""
FEW_SAMPLES = 0.5
"""Added to the floor, divided by the number of baseline samples: one sample says nothing about the spread."""
ONE_BASELINE = 0.7
"""What is left if one baseline of several has no sample: nothing contradicts the other, and nothing confirms it."""
UNLIMITED = 0.3  # a resource in absolute units: nobody knows how close its limit is
DROP = 0.5
"""What fewer requests say: more than that there are more of them, as a fault somewhere above is a usual reason."""
SILENT = 0.3  # a component whose metrics all stop is gone, or its agent is
MAX_POINTS = 60
EXACT = 2.0**53  # beyond it all floats are whole numbers
ROUNDING = 1e-9  # of a value that was divided by a thousand
USUAL = (0.05, 0.95)  # quantiles between which values are called usual in pictures
_EXTREME = re.compile(r"p\d+(?:\.\d+)?|max", re.IGNORECASE)  # statistics that speak of the worst, not of the usual
_FALLS = ("success", "requests")  # symptoms when they do
_SYMPTOMS = ("error", "success", "latency", "requests")


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests a component gets."""

    calls: float = 0.0  # in the incident window, at least as many as just before; 0 if not known
    each: float = 0.0  # per sample
    growth: float = 1.0  # against the baseline, at least 1


def deviations(series: Iterable[tuple[str, Series]], windows: Windows, alerted: str = "") -> list[Deviation]:
    """All metrics that departed; ``series`` come with the name of their source.

    What matters is the time in which the ``alerted`` component was in trouble: a cause that ends with its symptom
    has not recovered before it.
    """
    known = list(series)
    windows = focused([pair for pair in known if pair[1].ref.component == alerted], windows)
    loads = component_loads((one for _, one in known), windows)
    kept, silent = samples.screened(known, windows)
    found = [_deviation(one, loads.get(one.ref.component, Load()), windows) for one in kept]
    found += _gone(silent, known, windows)
    return [d for d in found if d.strength >= MIN_STRENGTH]


def focused(mine: Sequence[tuple[str, Series]], windows: Windows) -> Windows:
    """The windows, with the incident ending where the clearest symptom of the alerted component was over."""
    over: list[tuple[float, float]] = []
    loads = component_loads((one for _, one in mine), windows)
    for one in samples.screened(mine, windows)[0]:
        if one.means.role in _SYMPTOMS and _direction(one) == (-1.0 if one.means.role in _FALLS else 1.0):
            verdict = _Judged.of(one, loads.get(one.ref.component, Load()))
            bad = np.flatnonzero(verdict.beyond)
            if bad.size and bad[-1] + 1 < one.incident_t.size:
                over.append((verdict.worst, float(one.incident_t[bad[-1] + 1])))
            elif bad.size:
                over.append((verdict.worst, windows.incident[1]))
    if not over:
        return windows
    return replace(windows, incident=(windows.incident[0], max(over)[1]))


def component_loads(series: Iterable[Series], windows: Windows) -> dict[str, Load]:
    """By component how many requests it gets, from the series that count the most."""
    loads: dict[str, Load] = {}
    for one in series:
        if meaning_of(one.ref).role == "requests":
            load = _load(one, windows)
            if load and load.calls > loads.get(one.ref.component, Load()).calls:
                loads[one.ref.component] = load
    return loads


def _load(series: Series, windows: Windows) -> Load | None:
    t, v = samples.finite(series)
    inside = samples.within(t, [windows.incident])
    before = samples.within(t, windows.baselines) & ~inside
    if not inside.any():
        return None
    usual = float(samples.median(v[before])) if before.any() else 0.0
    just_before = samples.within(t, windows.baselines[:1]) & ~inside
    calm = float(samples.median(v[just_before])) if just_before.any() else usual
    each = float(v[inside].mean()) * per_sample(series.ref, t)
    wanted = max(each, calm * per_sample(series.ref, t))  # who gives up calls less, and is harmed all the same
    growth = _level(v[inside]) / usual if usual > 0 else 1.0
    return Load(calls=wanted * int(inside.sum()), each=each, growth=max(growth, 1.0))


def per_sample(ref: SeriesRef, t: Floats) -> float:
    """What a sample's value is to be multiplied with, to count: a rate by its time, a count by one."""
    unit = ref.unit.lower().replace("per", "/")
    period = 1.0 if {"rps", "qps"} & words(ref.unit) else SECONDS.get(unit.partition("/")[2].strip(), 0.0)
    if not period or t.size < 2:
        return 1.0
    return float(samples.median(np.diff(t))) / period


def mean_seconds(series: Iterable[Series], windows: Windows) -> float:
    """How long a request takes in the incident window, by the series that says least; 0 if none says it."""
    found = []
    for one in series:
        means = meaning_of(one.ref)
        t, v = samples.finite(one)
        inside = samples.within(t, [windows.incident])
        if means.seconds and inside.any():
            found.append(float(v[inside].mean()) * means.seconds)
    return max(min(found, default=0.0), 0.0)


# --- one series ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judged:
    """One series against what is expected of it."""

    sign: float  # +1 or -1: the way that is bad; of a metric that has none, the way it went
    baseline: float  # the one that speaks least for a shift
    center: float  # what is expected now
    scale: float  # one robust standard deviation
    beyond: np.ndarray  # which samples of the incident deviate

    @classmethod
    def of(cls, one: Samples, load: Load) -> "_Judged":
        sign = _direction(one)
        center = baseline = sign * max(sign * c for c in one.centers)
        if one.seasonal:
            # what is so at this hour on every earlier day is normal; one bad day alone excuses nothing
            center = sign * max(sign * center, min(sign * s for s in one.seasonal))
        if one.means.role == "error" and not one.means.percent:  # twice the requests make twice the errors
            center *= load.growth
        scale = _scale(one, center, load)
        return cls(sign, baseline, center, scale, sign * (one.incident_v - center) > MIN_DEVIATION * scale)

    @property
    def worst(self) -> float:
        """How many samples deviate, of all."""
        return float(self.beyond.mean())

    @property
    def onset(self) -> int:
        """Index of the first incident sample from which at least half of the rest deviate; 0 if there is none."""
        rest = np.cumsum(self.beyond[::-1])[::-1]
        held = self.beyond & (2 * rest >= np.arange(len(self.beyond), 0, -1))
        return int(held.argmax())


def _deviation(one: Samples, load: Load, windows: Windows) -> Deviation:
    judged = _Judged.of(one, load)
    start = judged.onset
    observed = _level(one.incident_v[start:])
    strength = _strength(one, judged, observed)
    at_s, baseline = float(one.incident_t[start]), judged.baseline
    if one.trend and (leak := _trend_strength(one, observed)) > strength:
        strength, at_s, baseline = leak, one.rising_s, one.trend[0]
    means = one.means
    return _described(
        Deviation(
            component=one.ref.component,
            kind="metric",
            channel=_channel(means, judged.sign),
            signal=signal_of(one.ref),
            strength=strength * _confirmed(one, windows),
            at_s=at_s,
            summary="",
            inherited=means.role not in ("saturation", "host"),  # a pool fills up with calls that wait
            observed=observed,
            baseline=baseline,
            unit=one.ref.unit or ("%" if means.percent else ""),
            effect=max(judged.sign * (observed - judged.center) / judged.scale, 0.0),
            source=one.source,
            ref=one.ref,
            worse=means.worse,
            points=thinned(one.t, one.v),
            band=_band(one),
            query=one.ref.query,
            harm=_harm(one, abs(observed - judged.center), load),
        )
    )


def _confirmed(one: Samples, windows: Windows) -> float:
    held = [bool(samples.within(one.t, [w]).any()) for w in windows.baselines]
    return 1.0 if all(held) else ONE_BASELINE


def _direction(one: Samples) -> float:
    if one.means.worse != "neutral":
        return 1.0 if one.means.worse == "up" else -1.0
    return 1.0 if _level(one.incident_v) >= float(np.median(one.centers)) else -1.0


def _scale(one: Samples, center: float, load: Load) -> float:
    """One robust standard deviation, with floors for metrics that are constant or seldom sampled."""
    level = max(abs(center), float(np.abs(one.incident_v).max()))
    if one.means.role == "success" and one.means.percent:  # 100 % to 97 % is a shift from 0 to 3 % failures
        level = max(100.0 - float(one.incident_v.min()), 0.0)
    floor = level * (RELATIVE_FLOOR + FEW_SAMPLES / one.count)
    return max(MAD_TO_SIGMA * one.spread, floor, _resolution(one, center, load))


def _resolution(one: Samples, center: float, load: Load) -> float:
    """The smallest step worth talking of: what chance makes of so many calls, one percentage point, one event."""
    if one.means.percent:
        return _chance(center, load.each) if load.each and one.means.role in ("error", "success") else 1.0
    if one.means.role in ("error", "requests"):
        events = per_sample(one.ref, one.t)
        return sqrt(max(abs(center) * events, 1.0)) / events  # Poisson: the spread of a count is its root
    return _written_step(np.append(one.incident_v, center), one.means.seconds)


def _written_step(values: Floats, seconds: float) -> float:
    """The unit of which all values are whole numbers; of times the second, or its thousandth or millionth part.

    A latency in whole milliseconds stays one if it is written in seconds.
    """
    exact = np.clip(values, -EXACT, EXACT)
    for unit in (1.0 / seconds, 1e-3 / seconds, 1e-6 / seconds) if seconds else (1.0,):
        whole = exact / unit
        if (np.abs(whole - np.round(whole)) <= ROUNDING * np.abs(whole)).all():
            return unit
    return 1e-9


def _chance(percent: float, calls: float) -> float:
    """Standard deviation of a percentage of so many calls, at least half a call: what a binomial share does."""
    share = min(max(percent / 100.0, 0.0), 1.0)
    return 100.0 * max(sqrt(share * (1.0 - share) / calls), 0.5 / calls)


def _level(values: Floats) -> float:
    """Where the metric is now: the median of the later half. What has recovered is no symptom."""
    return float(samples.median(values[len(values) // 2 :]))


def _strength(one: Samples, judged: _Judged, observed: float) -> float:
    means, center = one.means, judged.center
    if means.limited:
        limit = _limit(one)
        closer = _closeness(observed, limit, means.worse) - _closeness(center, limit, means.worse)
        return max(closer, 0.0) * IMPORTANCE[means.role]
    distance = judged.sign * (observed - center) / judged.scale
    significance = max(0.0, 1.0 - MIN_DEVIATION / distance) if distance > 0 else 0.0
    return significance * _relative(means, observed, center) * _importance(means, judged.sign)


def _importance(means: Meaning, sign: float) -> float:
    if means.role == "requests" and sign < 0:
        return DROP
    return UNLIMITED if means.role in ("saturation", "pool") and not means.limited else IMPORTANCE[means.role]


def _trend_strength(one: Samples, observed: float) -> float:
    """Of a steady rise: how much closer to the limit it came, or how much larger it is than at its start."""
    begin = one.trend[0]
    if one.means.limited:
        limit = _limit(one)
        closer = _closeness(observed, limit, one.means.worse) - _closeness(begin, limit, one.means.worse)
        return max(closer, 0.0) * IMPORTANCE[one.means.role]
    return _relative(one.means, observed, begin) * _importance(one.means, 1.0)


def _closeness(value: float, limit: float, worse: Worse) -> float:
    """Queues grow with 1/(1-u): half full is harmless, the last tenth is not. The cube follows that without a pole."""
    used = min(max((value if worse == "up" else limit - value) / limit, 0.0), 1.0)
    return used * used * used


def _limit(one: Samples) -> float:
    """100 for percent, 1 for a ratio. A utilization that stays within 1.5 is a ratio: bursts go a little above 1."""
    return 100.0 if one.means.percent or float(one.v.max()) > 1.5 else 1.0


def _relative(means: Meaning, observed: float, center: float) -> float:
    """The change as a share of the larger of both levels, 0..1; of success, what is counted is failure."""
    if means.role == "success" and means.percent:
        observed, center = 100.0 - observed, 100.0 - center
    larger = max(abs(observed), abs(center))
    return min(abs(observed - center) / larger, 1.0) if larger else 0.0


def _harm(one: Samples, excess: float, load: Load) -> float:
    """Failed requests, or seconds lost, beyond what is expected, in the incident window."""
    means = one.means
    if means.role == "fault" or (means.role == "success" and not means.percent):
        return 0.0  # hosts and restarts are no requests
    if means.role not in ("error", "success"):
        return min(excess * means.seconds * load.calls, samples.LARGEST)
    counted = excess * per_sample(one.ref, one.t) * one.incident_v.size
    return min(excess / 100.0 * load.calls if means.percent else counted, samples.LARGEST)


def _channel(means: Meaning, sign: float) -> str:
    if means.role == "requests" and sign < 0:
        return "drop"
    same = {
        "success": "error",
        "fault": "error",
        "host": "saturation",
        "pool": "saturation",
        "earnings": "loss",
        "requests": "traffic",
    }
    return same.get(means.role, means.role)


def _band(one: Samples) -> tuple[float, float]:
    before = one.v[one.t < one.incident_t[0]]
    return band(before if before.size else one.v)


def band(values: Floats) -> tuple[float, float]:
    """Between which values nearly all of them lie; there is at least one."""
    ordered = np.sort(values)
    low, high = (ordered[round(share * (ordered.size - 1))] for share in USUAL)
    return float(low), float(high)


# --- series that stop ---------------------------------------------------------------------------------------------


def _gone(silent: Sequence[Silence], known: Iterable[tuple[str, Series]], windows: Windows) -> list[Deviation]:
    """Components of which a source sees no metric any more, though it sees others."""
    stopped: defaultdict[tuple[str, str], list[Silence]] = defaultdict(list)
    for one in silent:
        stopped[one.source, one.ref.component].append(one)
    if not stopped:
        return []
    speaking = {
        (source, one.ref.component)
        for source, one in known
        if len(one.epoch_s) and max(one.epoch_s) >= windows.incident[0]
    }
    alive = {source for source, _ in speaking}
    return [
        _silent(source, component, found, windows)
        for (source, component), found in sorted(stopped.items())
        if source in alive and (source, component) not in speaking
    ]


def _silent(source: str, component: str, found: Sequence[Silence], windows: Windows) -> Deviation:
    last = max(found, key=lambda one: (one.last_s, one.ref.metric, one.ref.query))
    return Deviation(
        component=component,
        kind="metric",
        channel="silence",
        signal=last.ref.metric,
        strength=SILENT,
        at_s=windows.clamped(last.last_s),
        summary=f"All {len(found)} metrics of {component} stopped; the last was at {clock_time(last.last_s)}.",
        inherited=True,
        effect=float(len(found)),
        source=source,
        query=last.ref.query,
        worse="down",
    )


# --- words --------------------------------------------------------------------------------------------------------


def signal_of(ref: SeriesRef) -> str:
    """The metric's name, with its statistic if that is a percentile or the maximum and the name does not tell it."""
    told = words(ref.statistic) <= words(ref.metric.replace("percentile", "p"))  # «95percentile» is p95
    return ref.metric if told or not _EXTREME.fullmatch(ref.statistic) else f"{ref.metric} {ref.statistic}"


def _described(deviation: Deviation) -> Deviation:
    observed, baseline = deviation.observed or 0.0, deviation.baseline or 0.0
    verb = "rose" if observed > baseline else "fell"
    text = (
        f"{deviation.component} {deviation.signal} {verb} from {quantity(baseline, deviation.unit)} "
        f"to {quantity(observed, deviation.unit)} from {clock_time(deviation.at_s)} on."
    )
    return replace(deviation, summary=text)


def thinned(t: Floats, v: Floats) -> tuple[tuple[float, float], ...]:
    """At most MAX_POINTS of them, evenly spread, first and last included."""
    if t.size > MAX_POINTS:
        kept = np.round(np.linspace(0, t.size - 1, MAX_POINTS)).astype(int)
        t, v = t[kept], v[kept]
    return tuple(zip(t.tolist(), v.tolist(), strict=True))
