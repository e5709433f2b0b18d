"""Would it have recovered without the remedy? What was measured against what the remedy did not touch. Pure.

Two comparisons. Before: the metric's own trend until the first call, drawn on to the moment the target was met (an
interrupted time series; slope after Theil and Sen, its direction after Mann and Kendall). Beside: the same kind of
metric in components with the same trouble that the remedy did not reach (difference in differences).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import median
from typing import Literal, NamedTuple

from collectors.base import Edge, Series, SeriesRef
from graph.ranking.semantics import meaning_of
from graph.state import Evidence, ExpectedEffect, Finding
from graph.verification import inside, key

Credit = Literal["remedy", "unclear", "by_itself"]
TREND_MINUTES = 15.0
LEAST_MINUTES = 5  # with points in them; fewer show no trend
STEADY = 0.5  # Kendall's tau: three of four pairs of minutes move the same way
MOST_CONTROLS = 3
STILL_OFF = 0.5  # of its deviation: what had recovered before the remedy is no control
AS_MUCH = 0.7  # of the remedy's share of the way back
SOME = 0.3


class Twin(NamedTuple):
    """A component that had the same trouble and that the remedy does not reach: how far back it came meanwhile."""

    component: str
    metric: str
    recovered: float  # share of its way back to normal


# --- before ---


def recovers_alone(series: Sequence[Series], effect: ExpectedEffect, first_s: float, met_s: float) -> bool | None:
    """Whether the trend until ``first_s`` reaches the target by ``met_s`` with no help; None: too few points to tell.

    Times are epoch seconds.
    """
    minutes = _by_minute(series, effect.ref, first_s)
    if len(minutes) < LEAST_MINUTES:
        return None
    slopes = [(b - a) / (t - s) for (s, a), (t, b) in combinations(minutes, 2)]
    tau = (sum(x > 0 for x in slopes) - sum(x < 0 for x in slopes)) / len(slopes)
    downwards = effect.comparator == "<="
    if (tau > -STEADY) if downwards else (tau < STEADY):
        return False
    slope = median(slopes)
    projected = median(value - slope * at for at, value in minutes) + slope * met_s
    return projected <= effect.value if downwards else projected >= effect.value


def _by_minute(series: Sequence[Series], ref: SeriesRef, until_s: float) -> list[tuple[float, float]]:
    """(epoch seconds, median) of each minute that has points."""
    minutes: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for at, value in inside(series, ref, until_s - 60 * TREND_MINUTES, until_s):
        minutes[int((until_s - at) // 60)].append((at, value))
    return sorted((median(t for t, _ in points), median(v for _, v in points)) for points in minutes.values())


# --- beside ---


def reached(changed: Iterable[str], edges: Sequence[Edge]) -> frozenset[str]:
    """The changed services, and all that they call or that call them, over any number of hops."""
    callers, callees = defaultdict(set), defaultdict(set)
    for edge in edges:
        callers[edge.callee].add(edge.caller)
        callees[edge.caller].add(edge.callee)
    changed = frozenset(changed)
    return changed | _closure(changed, callers) | _closure(changed, callees)


def _closure(start: Iterable[str], following: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(start)
    while waiting:
        for name in following.get(waiting.pop(), set()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def controls(evidence: Evidence, effects: Sequence[ExpectedEffect], touched: frozenset[str]) -> tuple[Finding, ...]:
    """The strongest findings of the same kind on components that the remedy does not reach; at most three."""
    roles = {meaning_of(effect.ref).role for effect in effects}
    found = [
        f
        for f in evidence.findings
        if f.ref
        and f.component not in touched
        and f.worse != "neutral"
        and meaning_of(f.ref).role in roles
        and f.observed is not None
        and f.baseline is not None
        and f.observed != f.baseline
    ]
    return tuple(sorted(found, key=lambda f: (-f.effect, f.id))[:MOST_CONTROLS])


def twin(finding: Finding, before: float | None, after: float | None) -> Twin | None:
    """How far a control came back; None if it was not measured, or had come back before the remedy began."""
    if finding.ref is None or finding.observed is None or finding.baseline is None or before is None or after is None:
        return None
    off = finding.observed - finding.baseline
    if (before - finding.baseline) / off < STILL_OFF:
        return None
    return Twin(finding.component, finding.ref.metric, (before - after) / (before - finding.baseline))


# --- together ---


def credit(alone: Sequence[bool | None], recovered: float | None, twins: Sequence[Twin]) -> tuple[Credit, str]:
    """Whose merit it was, and what it was compared with.

    ``alone``: of each metric that came back, at least in part, what ``recovers_alone`` says. ``recovered``: the share
    of the way back to normal that the effects made, their median.
    """
    trend, trend_said = _trend(alone)
    if not twins or recovered is None:
        beside = "Nothing that shows the same trouble was out of the remedy's reach, to compare it with."
        by_trend: dict[bool | None, Credit] = {True: "by_itself", False: "remedy", None: "unclear"}
        return by_trend[trend], f"{trend_said} {beside}"
    share = median(t.recovered for t in twins)
    names = ", ".join(f"{t.component} {t.metric} by {_percent(t.recovered)}" for t in twins)
    said = (
        f"{trend_said} Meanwhile, out of the remedy's reach, the way back to normal was made by {names};"
        f" with the remedy by {_percent(recovered)} (difference {_percent(recovered - share)})."
    )
    if share >= AS_MUCH * recovered:
        return "by_itself", said
    if share >= SOME * recovered or trend:
        return "unclear", said
    return "remedy", said


def _trend(alone: Sequence[bool | None]) -> tuple[bool | None, str]:
    known = [one for one in alone if one is not None]
    if not known:
        return None, "There are too few readings from before the first call to see a trend."
    yes = sum(known)
    if 2 * yes > len(known):
        return True, f"{yes} of {len(known)} metrics were on their way there before the first call."
    return False, f"Before the first call {len(known) - yes} of {len(known)} metrics were not on their way there."


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def refs_of(findings: Iterable[Finding]) -> tuple[SeriesRef, ...]:
    """Each metric once."""
    return tuple({key(f.ref): f.ref for f in findings if f.ref}.values())
