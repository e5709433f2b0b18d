"""Did it work? From measured values to a verdict. Pure."""

from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import median

from collectors.base import Series, SeriesRef, Window
from graph.state import EffectCheck, ExpectedEffect, Verdict

WORSE_BY = 0.3  # of the distance between observed and baseline: more than the usual jitter of a metric at its worst
IMPROVED_BY = 0.3
Key = tuple[str, str, str]


def key(ref: SeriesRef) -> Key:
    """What makes two readings the same metric."""
    return ref.source, ref.component, ref.query


def level(series: Sequence[Series], ref: SeriesRef, window: Window) -> float | None:
    """The median of a metric over a window; None if it has no points there."""
    start, end = window.start.timestamp(), window.end.timestamp()
    values = [
        value
        for s in series
        if key(s.ref) == key(ref)
        for at, value in zip(s.epoch_s, s.values, strict=True)
        if start <= at < end
    ]
    return median(values) if values else None


def check(effect: ExpectedEffect, before: float | None, after: float | None) -> EffectCheck:
    """One effect against its measured values."""
    before = effect.observed if before is None else before
    name = f"{effect.ref.component} {effect.ref.metric}"
    if after is None:
        return EffectCheck(
            effect=effect,
            status="not_measurable",
            before=before,
            detail=f"{name}: no fresh values from {effect.ref.source}",
        )
    met = after <= effect.value if effect.comparator == "<=" else after >= effect.value
    return EffectCheck(
        effect=effect,
        status="met" if met else "not_met",
        before=before,
        after=after,
        detail=f"{name}: {_number(before)} -> {_number(after)}, expected {effect.comparator} {effect.value:g}",
    )


def progress(c: EffectCheck) -> float | None:
    """How much of the way from bad to normal was made: 1 is all of it, below 0 it got worse.

    Counts move by chance, by about their square root: twice that is no progress either way.
    """
    if c.after is None or c.before is None or c.effect.baseline is None:
        return None
    if c.effect.ref.statistic == "sum" and abs(c.after - c.before) <= 2.0 * sqrt(max(c.before, c.after, 0.0)):
        return 0.0
    way = c.effect.baseline - c.before
    scale = max(abs(way), abs((c.effect.observed or c.before) - c.effect.baseline), 1e-9)
    sign = -1.0 if c.effect.comparator == "<=" else 1.0
    return sign * (c.after - c.before) / scale


def verdict(checks: Sequence[EffectCheck]) -> Verdict:
    """All met: resolved. More effects worse than better: worse. Some way made: improved. Else unchanged.

    Silence is no recovery (a dead service reports no errors either): at least half of the effects must be measured.
    """
    measured = [(c, p) for c in checks if (p := progress(c)) is not None]
    if not measured or 2 * len(measured) < len(checks):
        return "not_measurable"
    if all(c.status == "met" for c, _ in measured):
        return "resolved"
    worse = sum(p <= -WORSE_BY for _, p in measured)
    better = sum(p >= IMPROVED_BY for _, p in measured)
    if worse > better:
        return "worse"
    return "improved" if better > worse else "unchanged"


def checks(
    effects: Sequence[ExpectedEffect], before: Mapping[Key, float | None], after: Mapping[Key, float | None]
) -> tuple[EffectCheck, ...]:
    """Every expected effect against its values."""
    return tuple(check(e, before.get(key(e.ref)), after.get(key(e.ref))) for e in effects)


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
