"""Which metrics must move, and how far, for a remedy to have worked. Pure."""

from math import isfinite

from collectors.base import Scope
from graph.state import Evidence, ExpectedEffect, Finding, RootCause

MAX_EFFECTS = 5
CLOSED = 0.7  # a metric counts as recovered once 70 % of its distance to the baseline is closed
WITHIN_MINUTES = 15.0
SETTLE_MINUTES = 10.0
"""What metrics get after the last step of an option: a step may take until then, and its effect shows only later."""


def expected_effects(
    evidence: Evidence, root_cause: RootCause, scope: Scope, minutes: float = 0.0
) -> tuple[ExpectedEffect, ...]:
    """The strongest metric findings on the cause and on the alerted service, turned round.

    ``minutes`` are what the remedy itself takes. Load itself (requests, traffic) proves nothing about health and is
    left out.
    """
    concerned = {root_cause.component, scope.service}
    findings = [f for f in evidence.findings if f.kind == "metric" and f.component in concerned]
    ranked = sorted(findings, key=lambda f: (-f.effect, f.id))
    within = max(WITHIN_MINUTES, minutes + SETTLE_MINUTES)
    effects = [effect for finding in ranked if (effect := _effect(finding, within))]
    return tuple(effects[:MAX_EFFECTS])


def _effect(finding: Finding, within_minutes: float) -> ExpectedEffect | None:
    ref, observed, baseline = finding.ref, finding.observed, finding.baseline
    if ref is None or observed is None or baseline is None or finding.worse == "neutral":
        return None
    up = finding.worse == "up"
    value = observed + CLOSED * (baseline - observed)
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
