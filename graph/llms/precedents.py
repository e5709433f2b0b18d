"""What an option's operations did in an earlier incident like this one: told with it, and weighed a little. Pure.

Only incidents that had the same cause count: which cause that is, telemetry decides. Whatever memory holds, it moves
the benefit of an option by ``NUDGE`` at most, so that a wrong or planted case can turn the order of near equals and no
more; how often an operation helped at all is the track record's to weigh.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from graph.llms.base import PlanRequest
from graph.llms.playbooks import Text
from graph.memory import cause_stands, named_operations
from graph.state import ActionOption, PastIncident

NUDGE = 0.05
"""Of a benefit of 0..1: what a low risk costs. A case tells more than one run of the track record, which holds it too,
for it looked like this one; but it is one case."""
Outcome = Literal["resolved", "failed", "worse"]
_OUTCOMES: dict[str, Outcome] = {
    "resolved": "resolved",
    "unchanged": "failed",
    "unresolved": "failed",
    "worse": "worse",
}
_OPERATIONS = re.compile(r"\(([^()]+)\)$")
_TOLD: dict[Outcome, Text] = {
    "resolved": Text(
        en="It resolved {id} of {at}, which was alike.", ko="유사했던 {at}의 {id} 사례를 해결한 조치입니다."
    ),
    "failed": Text(
        en="Beware: it did not help in {id} of {at}, which was alike.",
        ko="주의: 유사했던 {at}의 {id} 사례에서는 도움이 되지 않았습니다.",
    ),
    "worse": Text(
        en="Beware: it made {id} of {at} worse, which was alike.",
        ko="주의: 유사했던 {at}의 {id} 사례에서는 상황을 더 나빠지게 했습니다.",
    ),
}


def with_precedents(options: Iterable[ActionOption], request: PlanRequest) -> list[ActionOption]:
    """Each with what its operations did then, as a last sentence, and with the findings that tell of it."""
    alike = [past for past in request.evidence.similar if _same_cause(past, request)]
    return [_with(option, alike, request) for option in options]


def _same_cause(past: PastIncident, request: PlanRequest) -> bool:
    root_cause = request.root_cause
    return (past.component, past.category) == (root_cause.component, root_cause.category)


def _with(option: ActionOption, alike: Sequence[PastIncident], request: PlanRequest) -> ActionOption:
    writing = frozenset(entry.name for entry in request.menu if not entry.read_only)
    does = writing.intersection(step.operation for step in option.steps)
    seen = [(past, outcome) for past in alike if (outcome := _outcome(past, does, writing))]
    if not seen:
        return option
    told = (_TOLD[outcome].filled(request.language, id=past.incident_id, at=past.at) for past, outcome in seen)
    good = sum(1 if outcome == "resolved" else -1 for _, outcome in seen)
    return option.model_copy(
        update={
            "description": " ".join((option.description, *told)),
            "why": tuple(dict.fromkeys((*option.why, *(past.evidence for past, _ in seen)))),
            "benefit": min(max(option.benefit + NUDGE * ((good > 0) - (good < 0)), 0.0), 1.0),
        }
    )


def _outcome(past: PastIncident, does: frozenset[str], writing: frozenset[str]) -> Outcome | None:
    """What exactly these operations did then; a person's word on what helped goes before what was measured."""
    helped, ran = writing.intersection(named_operations(past.helped)), writing.intersection(_ran(past.remedy))
    if does and helped == does:
        return "resolved"
    outcome = _OUTCOMES.get(past.verdict)
    if not does or ran != does or not cause_stands(past) or (past.helped and outcome == "resolved"):
        return None
    return outcome


def _ran(remedy: str) -> tuple[str, ...]:
    """The operations in brackets behind its title; what was done by hand is told in free words, and names none."""
    match = None if remedy.lower().startswith("by hand:") else _OPERATIONS.search(remedy)
    return named_operations(match[1]) if match else ()
