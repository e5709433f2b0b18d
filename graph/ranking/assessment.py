"""Is anything wrong at all, how far can the first suspect be believed, and are there several causes?"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import exp, log
from typing import Literal

from collectors.base import Gap, Telemetry
from graph.ranking.deviation import Deviation, noisy_or
from graph.ranking.fuse import CERTAIN, Ranked
from graph.ranking.topology import Topology
from graph.ranking.windows import Windows
from graph.state import Assessment

NOTHING = 0.2
"""Below this trouble nothing is wrong: nine of ten quiet hours of the synthetic development cases stay below it."""
ABSTAIN = 0.5
"""Below this certainty no cause is named: the first suspect would be wrong more often than right."""
SCORE_WEIGHT, LEAD_WEIGHT, OFFSET = 1.25, 1.75, 0.25
"""Logistic regression of «the first suspect is right» on the logit of its score and on its lead, over the synthetic
development cases (Platt's scaling), rounded to quarters: not on any recorded data set."""
SEPARATE = 0.4
"""A second cause has at least this share of the first one's score: less is what chance leaves of a good explanation."""
GAP = 0.95
"""What a gap leaves of the certainty: what could not be seen is one reason to doubt in twenty; not more than three."""
MAX_GAPS = 3  # many gaps mostly have one reason, such as one credential
State = Literal["incident", "recovered", "no_incident", "not_enough_data"]
_CONTEXT = ("traffic", "unknown", "change", "knowledge", "loss")  # moves for harmless reasons too


def causes_among(ranked: Sequence[Ranked], topology: Topology) -> tuple[str, ...]:
    """The first suspect and those that neither explain it nor are explained by it, and are nearly as suspect."""
    causes: list[Ranked] = []
    for one in ranked:
        related = {*topology.above(one.component), *topology.below(one.component)}
        apart = all(other.component not in related for other in causes)
        if apart and (not causes or one.score >= SEPARATE * causes[0].score):
            causes.append(one)
    return tuple(one.component for one in causes)


def assess(
    own: Sequence[Deviation], ranked: Sequence[Ranked], gaps: Sequence[Gap], *, comparable: bool, over: bool
) -> Assessment:
    """The state of the incident.

    ``own`` is what the alerted component shows; ``comparable`` whether anything was seen both in the incident and
    before it; ``over`` whether the alerted component's metrics are back where they were.
    """
    symptom = max((d for d in own if d.channel not in _CONTEXT), key=lambda d: d.strength, default=None)
    trouble = noisy_or([symptom.strength if symptom else 0.0, ranked[0].score if ranked else 0.0])
    certainty = _certainty(ranked) * GAP ** min(len(gaps), MAX_GAPS) if comparable else 0.0
    state: State = "incident"
    why = _why(ranked, certainty)
    if not comparable:
        state, why = "not_enough_data", "No metric, log or span was seen both in the incident and before it."
    elif trouble < NOTHING:
        state, why = "no_incident", "Neither the alerted service nor what it depends on departs clearly from normal."
    elif over and symptom is not None and symptom.kind == "metric":
        state, why = "recovered", f"The symptom is over. {why}"
    return Assessment(
        state=state,
        trouble=round(trouble, 4),
        certainty=round(certainty, 4),
        abstains=certainty < ABSTAIN or trouble < NOTHING,
        why=why,
    )


def comparable(telemetry: Iterable[Telemetry], windows: Windows) -> bool:
    """Whether there are moments both in the incident and in a baseline."""
    now = before = False
    for moment in chain.from_iterable(map(_moments, telemetry)):
        now, before = now or windows.in_incident(moment), before or windows.in_baseline(moment)
        if now and before:
            return True
    return False


def _moments(telemetry: Telemetry) -> Iterator[float]:
    yield from chain.from_iterable(one.epoch_s for one in telemetry.series)
    yield from (line.at.timestamp() for line in telemetry.logs)
    yield from (span.start_s for span in telemetry.spans)


def _certainty(ranked: Sequence[Ranked]) -> float:
    """The chance that the first suspect is right."""
    if not ranked:
        return 0.0
    first = min(ranked[0].score, CERTAIN)
    lead = 1.0 - ranked[1].score / ranked[0].score if len(ranked) > 1 else 1.0
    return 1.0 / (1.0 + exp(-(SCORE_WEIGHT * log(first / (1.0 - first)) + LEAD_WEIGHT * lead + OFFSET)))


def _why(ranked: Sequence[Ranked], certainty: float) -> str:
    if not ranked:
        return "Something departs from normal, but nothing that would explain it was seen."
    rivals = f", {ranked[1].component} is next with {ranked[1].score:.2f}" if len(ranked) > 1 else ""
    sure = "likely the cause" if certainty >= ABSTAIN else "a lead, not more"
    return f"{ranked[0].component} is {sure}: score {ranked[0].score:.2f}{rivals}."
