"""Which metrics must move, and how far, for a remedy to have worked. Pure."""

from collections import Counter
from collections.abc import Iterable
from math import isfinite

from collectors.base import Scope
from graph.per_request import grows_with_requests
from graph.ranking.semantics import Meaning, meaning_of
from graph.state import Evidence, ExpectedEffect, Finding, RootCause
from graph.verification import FELT

MAX_EFFECTS = 5
CLOSED = 0.7  # a metric counts as recovered once 70 % of its distance to the baseline is closed
DANGER = 0.8
"""Of a capacity: from there on waiting grows without bound. Below it a resource is busy, and nobody feels it."""
WITHIN_MINUTES = 15.0
SETTLE_MINUTES = 10.0
"""What metrics get after the last step of an option: a step may take until then, and its effect shows only later."""


def expected_effects(
    evidence: Evidence, root_cause: RootCause, scope: Scope, minutes: float = 0.0
) -> tuple[ExpectedEffect, ...]:
    """The strongest metric findings on the cause and on the alerted service, turned round.

    What users feel comes first: errors, slowness, work that waits; of each component and kind the strongest before
    the next strongest, as three readings of one thing prove no more than one. A resource need not get back to where it
    was, as there may be more to do now, but out of danger; it counts in full only where nothing else is known. Load
    itself (requests, traffic) proves nothing about health and is left out.

    ``minutes`` are what the remedy itself takes.
    """
    concerned = {root_cause.component, scope.service}
    findings = [f for f in evidence.findings if f.kind == "metric" and f.component in concerned and f.ref]
    within = max(WITHIN_MINUTES, minutes + SETTLE_MINUTES)
    found = [(f, effect) for f in findings if (effect := _effect(f, within))]
    felt = [(f, effect) for f, effect in found if meaning_of(effect.ref).role in FELT]
    used = [(f, effect) for f, effect in found if meaning_of(effect.ref).role not in FELT]
    if felt:
        used = [(f, effect) for f, effect in used if _used_up(meaning_of(effect.ref), effect.observed or 0.0)]
    return (*_most_telling(felt), *_most_telling(used))[:MAX_EFFECTS]


def _most_telling(found: Iterable[tuple[Finding, ExpectedEffect]]) -> list[ExpectedEffect]:
    """Of each component and kind a first one, then the second ones. Shares of the requests go before counts."""
    taken: Counter[tuple[str, str]] = Counter()
    ranked = []
    for finding, effect in sorted(found, key=lambda f: (grows_with_requests(f[1].ref), -f[0].effect, f[0].id)):
        same = effect.ref.component, meaning_of(effect.ref).role
        ranked.append((taken[same], -finding.effect, finding.id, effect))
        taken[same] += 1
    return [effect for *_, effect in sorted(ranked, key=lambda r: r[:3])]


def _effect(finding: Finding, within_minutes: float) -> ExpectedEffect | None:
    ref, observed, baseline = finding.ref, finding.observed, finding.baseline
    if ref is None or observed is None or baseline is None or finding.worse == "neutral":
        return None
    up = finding.worse == "up"
    value = _back(meaning_of(ref), observed, observed + CLOSED * (baseline - observed))
    if (observed > baseline) != up or not isfinite(value):
        return None
    return ExpectedEffect(
        ref=ref,
        comparator="<=" if up else ">=",
        value=round(value, 4),
        within_minutes=within_minutes,
        baseline=baseline,
        observed=observed,
    )


def _back(means: Meaning, observed: float, closed: float) -> float:
    """``closed``; for what was nearly used up, out of danger is enough."""
    if not _used_up(means, observed):
        return closed
    full = 100.0 if means.percent else 1.0
    return max(closed, DANGER * full) if means.worse == "up" else min(closed, (1.0 - DANGER) * full)


def _used_up(means: Meaning, observed: float) -> bool:
    """Whether it is a share of a capacity, and hardly any of that was left."""
    share = observed / (100.0 if means.percent else 1.0)
    return means.limited and (share if means.worse == "up" else 1.0 - share) >= DANGER
