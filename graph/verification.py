"""Did it work? From measured values to a verdict. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from statistics import median

import numpy as np

from collectors.base import Measures, Series, SeriesRef, Window
from graph.per_request import GONE, Load, at_the_load_before, grows_with_requests
from graph.ranking.metrics import per_sample
from graph.ranking.semantics import meaning_of
from graph.state import EffectCheck, ExpectedEffect, Verdict

WORSE_BY = 0.3  # of the distance between observed and baseline: more than the usual jitter of a metric at its worst
IMPROVED_BY = 0.3
FELT: frozenset[Measures] = frozenset({"error", "fault", "success", "latency", "backlog", "loss", "earnings"})
"""What users feel, or will: all but what is used of resources, which may be much as long as it is enough."""
Key = tuple[str, str, str]


def key(ref: SeriesRef) -> Key:
    """What makes two readings the same metric."""
    return ref.source, ref.component, ref.query


def inside(series: Sequence[Series], ref: SeriesRef, start_s: float, end_s: float) -> list[tuple[float, float]]:
    """(epoch seconds, value) of a metric in a half-open span."""
    return [
        (at, value)
        for s in series
        if key(s.ref) == key(ref)
        for at, value in zip(s.epoch_s, s.values, strict=True)
        if start_s <= at < end_s
    ]


def level(series: Sequence[Series], ref: SeriesRef, window: Window) -> float | None:
    """The median of a metric over a window; None if it has no points there."""
    points = inside(series, ref, window.start.timestamp(), window.end.timestamp())
    return median(value for _, value in points) if points else None


def check(effect: ExpectedEffect, before: float | None, after: float | None, load: Load | None = None) -> EffectCheck:
    """One effect against its measured values; a count at the load of before, where ``load`` tells what that was."""
    before = effect.observed if before is None else before
    name = f"{effect.ref.component} {effect.ref.metric}"
    if after is None:
        return EffectCheck(
            effect=effect,
            status="not_measurable",
            before=before,
            detail=f"{name}: no fresh values from {effect.ref.source}",
        )
    same_load, remark = _at_the_same_load(effect.ref, before, after, load)
    if same_load is None:
        return EffectCheck(effect=effect, status="not_measurable", before=before, detail=f"{name}: {remark}")
    met = same_load <= effect.value if effect.comparator == "<=" else same_load >= effect.value
    target = f"expected {effect.comparator} {effect.value:g}"
    return EffectCheck(
        effect=effect,
        status="met" if met else "not_met",
        before=before,
        after=same_load,
        detail=f"{name}: {_number(before)} -> {_number(same_load)}, {target}{remark}",
    )


def _at_the_same_load(
    ref: SeriesRef, before: float | None, after: float, load: Load | None
) -> tuple[float | None, str]:
    """``after`` of as many requests as before, and what to know of it; None where too few requests come."""
    if before is None or not grows_with_requests(ref):
        return after, ""
    if load is None or not load.before or load.now is None:
        return after, " (a count; of how many requests is not measured)"
    same = at_the_load_before(before, after, load, events=ref.statistic == "sum")
    requests = f"requests {_number(load.before)} -> {_number(load.now)}"
    if same is None:
        return None, f"hardly anything asks it any more ({requests}), so its count says nothing"
    return same, f" (counted {_number(after)}, {requests})" if same != after else ""


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
    """All met: resolved. More effects worse than better: worse. Half of them better: improved. Else unchanged.

    Better and worse go by what users feel, where any of that is measured: a resource that is less used proves nothing.
    Silence is no recovery (a dead service reports no errors either): at least half of the effects must be measured.
    """
    measured = [c for c in checks if c.after is not None]
    if not measured or 2 * len(measured) < len(checks):
        return "not_measurable"
    if all(c.status == "met" for c in measured):
        return "resolved"
    shares = recovered(measured)
    worse = sum(share <= -WORSE_BY for share in shares)
    better = sum(share >= IMPROVED_BY for share in shares)
    if worse > better:
        return "worse"
    return "improved" if better > worse and 2 * better >= len(shares) else "unchanged"


def recovered(checks: Sequence[EffectCheck]) -> list[float]:
    """The progress of each effect that users feel; of all where none of those is measured."""
    shares = [(c, share) for c in checks if (share := progress(c)) is not None]
    felt = [share for c, share in shares if meaning_of(c.effect.ref).role in FELT]
    return felt or [share for _, share in shares]


def worsened(checks: Iterable[EffectCheck]) -> dict[Key, float]:
    """How far from normal each metric is that got worse."""
    return {
        key(c.effect.ref): abs(c.after - c.effect.baseline)
        for c in checks
        if c.after is not None and c.effect.baseline is not None and (progress(c) or 0.0) <= -WORSE_BY
    }


def checks(
    effects: Sequence[ExpectedEffect],
    before: Mapping[Key, float | None],
    after: Mapping[Key, float | None],
    loads: Mapping[Key, Load],
) -> tuple[EffectCheck, ...]:
    """Every expected effect against its values."""
    measured = ((e, key(e.ref)) for e in effects)
    return tuple(check(e, before.get(k), after.get(k), loads.get(k)) for e, k in measured)


def reached(checks: Sequence[EffectCheck]) -> tuple[ExpectedEffect, ...]:
    """What came true: the effects that were met; those that moved towards it, with the level they came to."""
    return tuple(
        c.effect if c.status == "met" else c.effect.model_copy(update={"value": c.after})
        for c in checks
        if c.status == "met" or (progress(c) or 0.0) >= IMPROVED_BY
    )


# --- harm that the expected effects do not cover ---

GUARDED: Mapping[Measures, int] = {"error": 0, "fault": 0, "success": 0, "latency": 1, "requests": 2}
"""What is watched besides, the most telling first."""
MOST_GUARDS = 8
EACH = 2  # of one component and role
TWICE = 2.0
LOST = 0.3  # of what was still served well: where half fails already, it cannot become twice as much
POINTS = 2.0  # percentage points that matter
SLOWER_S = 0.02  # that anybody notices


def guards(
    refs: Sequence[SeriesRef], changed: Iterable[str], callers: Iterable[str], effects: Sequence[ExpectedEffect]
) -> tuple[SeriesRef, ...]:
    """Errors, latency and requests of what is changed, errors and latency of its callers; few, the most telling first.

    What the expected effects measure is left out.
    """
    changed, callers = tuple(changed), tuple(callers)
    covered = {key(effect.ref) for effect in effects}
    found = {key(ref): ref for ref in refs if key(ref) not in covered and _guards(ref, changed, callers)}
    taken: Counter[tuple[str, Measures]] = Counter()
    chosen: list[SeriesRef] = []
    for ref in sorted(found.values(), key=lambda r: (*_telling(r), r.component in callers, key(r))):
        same = ref.component, meaning_of(ref).role
        taken[same] += 1
        if taken[same] <= EACH:
            chosen.append(ref)
    return tuple(chosen[:MOST_GUARDS])


def _telling(ref: SeriesRef) -> tuple[int, bool]:
    """Shares of the requests before counts: they say what is left."""
    return GUARDED[meaning_of(ref).role], grows_with_requests(ref)


def _guards(ref: SeriesRef, changed: Sequence[str], callers: Sequence[str]) -> bool:
    role = meaning_of(ref).role
    return role in GUARDED and (ref.component in changed or (ref.component in callers and role != "requests"))


def harm(ref: SeriesRef, before: Sequence[tuple[float, float]], after: float | None, load: Load | None = None) -> str:
    """What got worse, in a sentence; empty: nothing did, or it was not measured.

    ``before``: (epoch seconds, value) until the first call. Harm is beyond all of them, at least twice as bad as
    usual or takes much of what was still served well, and more than chance makes of so few events.
    """
    if after is None or not before:
        return ""
    values = [value for _, value in before]
    usual, role = median(values), meaning_of(ref).role
    after, _ = _at_the_same_load(ref, usual, after, load)
    if after is None:
        return ""
    if role == "requests":
        bad = usual > 0.0 and after < GONE * usual and after < min(values)
    elif meaning_of(ref).worse == "down":
        whole = _whole(ref) or 0.0
        bad = after < min(values) and _matters(ref, before, whole - usual, whole - after)
    else:
        bad = after > max(values) and _matters(ref, before, usual, after)
    return f"{ref.component} {ref.metric}: {_number(usual)} -> {_number(after)}" if bad else ""


def _matters(ref: SeriesRef, before: Sequence[tuple[float, float]], usual: float, after: float) -> bool:
    """Both as «more is worse»."""
    means = meaning_of(ref)
    if whole := _whole(ref):
        much = after >= TWICE * usual or whole - after <= (1.0 - LOST) * (whole - usual)
        return much and after - usual >= POINTS / 100.0 * whole
    if after < TWICE * usual:
        return False
    if means.role == "latency":
        return not means.seconds or (after - usual) * means.seconds >= SLOWER_S
    if means.role == "success":
        return False  # no percentage: how many may fail is not known
    events = per_sample(ref, np.array([at for at, _ in before]))
    return (after - usual) * events > 3.0 * sqrt(max(after * events, 1.0))  # Poisson: the spread of a count is its root


def _whole(ref: SeriesRef) -> float | None:
    """What all requests are, in the unit of a share of them; None for anything else."""
    if meaning_of(ref).percent:
        return 100.0
    return 1.0 if "ratio" in ref.unit or "ratio" in ref.metric else None


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"
