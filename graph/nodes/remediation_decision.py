"""RemediationDecision: the graph waits here for a person."""

from typing import Any

from langgraph.types import interrupt

from graph.deps import Deps
from graph.state import Decision, State


class StaleDecision(Exception):
    """The decision was made on another plan than the one that is waiting."""


async def remediation_decision(_deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``decision``, ``hints``, and ``language`` where the decision names one.

    Everything before ``interrupt()`` runs again on resume: there is nothing.
    """
    plan = state["plan"]
    answer = interrupt({"plan_revision": plan.revision, "options": [o.title for o in plan.options]})
    decision = Decision.model_validate(answer)
    if decision.plan_revision != plan.revision:
        raise StaleDecision(f"decided on plan {decision.plan_revision}, waiting is {plan.revision}")
    if decision.plan_digest and not (plan.intact and plan.digest == decision.plan_digest):
        raise StaleDecision(f"plan {plan.revision} is not the approved one: its checkpoint was changed; nothing runs")
    hints = state.get("hints", ())
    if decision.choice == "re_analyze" and decision.hint:
        hints = (*hints, decision.hint)
    spoken = {"language": decision.language} if decision.language else {}
    return {"decision": decision, "hints": hints, **spoken}
