"""How far an answer can be believed: computed from ranking and grounding, never taken from who wrote it. Pure.

A likelihood-ratio form: the chance that ranking gives the component, then odds for what grounding found. Each constant
is a shift of log-odds, with its reason beside it; ``python -m benchmarks confidence`` measures what comes of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Literal

from collectors.base import Gap, GapReason
from graph import hops
from graph.state import Evidence, Hop, Language, RootCause, Suspect

HIGH, MEDIUM = 0.8, 0.5
"""Right in four of five cases, and rather right than wrong."""
UNSUSPECTED = 0.05
"""What a component that ranking does not suspect gets of what ranking's certainty leaves: it is one of many, and of the
made-up incidents few have their cause outside of the suspects."""
NEARLY = 0.5
"""What a suspect that is just as suspect as the first gets of ranking's certainty, if the analyst prefers it: ranking
has no reason against it. By the fourth power of the ratio of scores: with four fifths of the score it is a fifth."""
UNFORESEEN = 0.1
"""One answer in ten is wrong for a reason that neither ranking nor its made-up incidents foresee. Of the first 17
scenarios, written without sight of the ranking, 13 were right where it was sure to 87 %."""
UNVERIFIED = 4.0
"""If no claim holds: even where ranking is sure to 98 %, nothing that the analyst says for it may be shown as more than
low. By the square of the share: one claim of five is a slip, most of them are a guess."""
UNPROVEN = 0.35
"""If no hop of the path holds: first suspects without a proven path are right three times in four, those with one
nineteen times in twenty, and ranking's certainty accounts for most of that."""
TIE = 0.25
"""If the next suspect is as suspect: ranking's certainty holds the lead already, but the lead itself is measured."""
UNSEEN = 0.25
"""For each gap that hides the component, and of these not more than three: many mostly have one reason."""
MAX_UNSEEN = 3
DOUBTED = 0.7
"""If the analyst calls its own confidence low: halves the odds. What it says for itself counts for nothing."""
_HIDING = frozenset(GapReason) - {GapReason.EMPTY, GapReason.NOT_CONFIGURED}
_NEVER_SURE = 0.001  # keeps log-odds finite

_WHY: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "first": "ranking's first suspect, with a certainty of {prior:.0%}",
        "other": "ranking suspects {first} first; {prior:.0%} is left for {component}",
        "nobody": "ranking does not suspect {component}: {prior:.0%}",
        "lead": "the lead over the next suspect is {lead:.0%}",
        "claims": "{held} of {all} claims verified",
        "path": "{held} of {all} hops of the path pass all three checks",
        "gaps": "{count} gaps hide what concerns {component}",
        "said": "the analyst itself calls its confidence low",
        "unforeseen": "a tenth less, for what nobody foresaw",
    },
    "ko": {
        "first": "랭킹의 1순위 후보이며 확실도는 {prior:.0%}",
        "other": "랭킹의 1순위 후보는 {first}이고, {component}에 남는 확률은 {prior:.0%}",
        "nobody": "랭킹의 후보에 {component} 없음: {prior:.0%}",
        "lead": "다음 후보와의 격차 {lead:.0%}",
        "claims": "주장 {all}개 중 {held}개 검증됨",
        "path": "경로의 홉 {all}개 중 {held}개가 세 가지 검사를 모두 통과",
        "gaps": "{component} 관련 정보를 가리는 공백 {count}개",
        "said": "분석 엔진 스스로 확신이 낮다고 답함",
        "unforeseen": "예상하지 못한 원인에 대비해 10분의 1을 낮춤",
    },
}


@dataclass(frozen=True)
class Inputs:
    """What a certainty is computed from; it never falls where one of the first four rises, or of the others falls.

    ``prior``: the chance that ranking leaves for the component, 0..1. ``lead``: of ranking's first suspect over the
    next, 0..1. ``verified``: share of the claims. ``path``: share of the hops that pass all three checks.
    ``unseen``: gaps that hide the component. ``doubted``: the analyst says so.
    """

    prior: float
    lead: float = 1.0
    verified: float = 1.0
    path: float = 1.0
    unseen: int = 0
    doubted: bool = False


def percent(chance: float) -> str:
    """A chance in whole percent; none that was computed is certain, or excluded."""
    return f"{min(max(chance, 0.01), 0.99):.0%}"


def confident(root_cause: RootCause, evidence: Evidence) -> RootCause:
    """The grounded answer with certainty, what it was computed from, and the word for it.

    An answer without a component is inconclusive and has no certainty. One computed before is not exceeded.
    """
    if root_cause.component is None:
        return root_cause.model_copy(update={"confidence": "inconclusive", "certainty": None, "certainty_why": ()})
    computed = root_cause.certainty is not None  # the word is ours then, not the analyst's
    inputs = inputs_of(root_cause, evidence, doubted=root_cause.confidence == "low" and not computed)
    found = round(certainty(inputs), 4)
    if root_cause.certainty is not None and root_cause.certainty <= found:
        return root_cause.model_copy(update={"confidence": word(root_cause.certainty)})
    why = _why(root_cause, evidence, inputs)
    return root_cause.model_copy(update={"certainty": found, "certainty_why": why, "confidence": word(found)})


def certainty(inputs: Inputs) -> float:
    """The chance that the component is right, 0..1; at most the prior."""
    prior = min(max(inputs.prior, _NEVER_SURE), 1.0 - _NEVER_SURE)
    against = (
        TIE * (1.0 - inputs.lead)
        + UNVERIFIED * (1.0 - inputs.verified) ** 2
        + UNPROVEN * (1.0 - inputs.path)
        + UNSEEN * min(inputs.unseen, MAX_UNSEEN)
        + DOUBTED * inputs.doubted
    )
    return (1.0 - UNFORESEEN) / (1.0 + exp(against - log(prior / (1.0 - prior))))


def word(chance: float) -> Literal["high", "medium", "low"]:
    """What to call it."""
    if chance >= HIGH:
        return "high"
    return "medium" if chance >= MEDIUM else "low"


def inputs_of(root_cause: RootCause, evidence: Evidence, *, doubted: bool) -> Inputs:
    """The inputs for an answer that names a component and is grounded."""
    component = str(root_cause.component)
    path = _path(root_cause, evidence)
    claims = root_cause.claims
    first = bool(evidence.suspects) and evidence.suspects[0].component == component
    return Inputs(
        prior=_prior(component, evidence),
        lead=_lead(evidence.suspects) if first else 1.0,
        verified=sum(claim.verified for claim in claims) / len(claims) if claims else 0.0,
        path=sum(map(hops.holds, path)) / len(path) if path else 1.0,
        unseen=sum(_hides(gap, component) for gap in evidence.gaps),
        doubted=doubted,
    )


def _prior(component: str, evidence: Evidence) -> float:
    """Ranking's certainty for its first suspect; to the others their shares of what that leaves, by score."""
    suspects = evidence.suspects
    sure = _ranking_certainty(evidence)
    if not suspects or all(suspect.component != component for suspect in suspects):
        return UNSUSPECTED * (1.0 - sure)
    if suspects[0].component == component:
        return sure * _wrong_at_all(evidence)
    others = sum(suspect.score for suspect in suspects[1:])
    own = sum(suspect.score for suspect in suspects if suspect.component == component)
    left = (1.0 - sure) * own / others if others else 0.0
    nearly = NEARLY * sure * min(own / suspects[0].score, 1.0) ** 4 if suspects[0].score else 0.0
    # more than the first suspect it cannot be: it is behind it
    return min(sure, max(left, nearly)) * _wrong_at_all(evidence)


def _ranking_certainty(evidence: Evidence) -> float:
    if evidence.assessment is not None:
        return evidence.assessment.certainty
    return evidence.suspects[0].score if evidence.suspects else 0.0


def _wrong_at_all(evidence: Evidence) -> float:
    """The chance that there is anything to explain, where ranking sees nothing."""
    assessment = evidence.assessment
    return assessment.trouble if assessment is not None and assessment.state == "no_incident" else 1.0


def _lead(suspects: Sequence[Suspect]) -> float:
    if len(suspects) < 2 or not suspects[0].score:
        return 1.0
    return min(max(1.0 - suspects[1].score / suspects[0].score, 0.0), 1.0)


def _path(root_cause: RootCause, evidence: Evidence) -> tuple[Hop, ...]:
    """The answer's own path, or ranking's for that component; the alerted component itself needs none."""
    ranked = next((s.path for s in evidence.suspects if s.component == root_cause.component), ())
    return root_cause.path or ranked


def _hides(gap: Gap, component: str) -> bool:
    return gap.reason in _HIDING and component.casefold() in gap.detail.casefold()


def _why(root_cause: RootCause, evidence: Evidence, inputs: Inputs) -> tuple[str, ...]:
    """One line for each input that says something."""
    component, suspects = str(root_cause.component), [suspect.component for suspect in evidence.suspects]
    path = _path(root_cause, evidence)
    words = _WHY[root_cause.language]
    place = "nobody" if component not in suspects else "first" if suspects[0] == component else "other"
    told = {
        place: True,
        "lead": place == "first" and len(suspects) > 1,
        "claims": True,
        "path": bool(path),
        "gaps": inputs.unseen > 0,
        "said": inputs.doubted,
        "unforeseen": True,
    }
    counted = {
        "claims": (sum(claim.verified for claim in root_cause.claims), len(root_cause.claims)),
        "path": (sum(map(hops.holds, path)), len(path)),
    }
    return tuple(
        words[name].format(
            component=component,
            first=suspects[0] if suspects else "",
            prior=inputs.prior,
            lead=inputs.lead,
            count=inputs.unseen,
            held=counted.get(name, (0, 0))[0],
            all=counted.get(name, (0, 0))[1],
        )
        for name, there in told.items()
        if there
    )
