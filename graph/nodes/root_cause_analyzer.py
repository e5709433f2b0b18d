"""RootCauseAnalyzer: a model or the rules engine explains; code checks every claim against the evidence."""

from typing import Any

from collectors._jobs import on_thread
from graph.comparison import changed
from graph.confidence import confident
from graph.deps import Deps
from graph.grounding import extended, ground, known_components
from graph.llms.base import Analysis, AnalysisRequest
from graph.nodes.context_collector import hinted_scope
from graph.progress import report
from graph.reads import EvidenceReader
from graph.state import Evidence, RootCause, State


async def root_cause_analyzer(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``root_cause``, and ``evidence`` with what the analyst asked for."""
    analysis = await deps.analyst.analyze(await _request(deps, state))
    evidence = extended(state["evidence"], analysis.findings)
    root_cause = await on_thread(_checked, analysis, evidence, state)
    report(
        "RootCauseAnalyzer",
        "root_cause",
        f"root_cause:{state['round']}",
        f"{root_cause.title} ({root_cause.confidence} confidence, by {root_cause.engine})",
        {"component": root_cause.component, "confidence": root_cause.confidence},
    )
    return {"root_cause": root_cause, "evidence": evidence}


async def _request(deps: Deps, state: State) -> AnalysisRequest:
    scope, evidence = await hinted_scope(deps, state), state["evidence"]
    suspected = [suspect.component for suspect in evidence.suspects[:3]]
    return AnalysisRequest(
        alert=state["alert"],
        scope=scope,
        evidence=evidence,
        hints=state.get("hints", ()),
        previous=state.get("root_cause"),
        past=tuple(await deps.past.similar(state["incident_id"], state["alert"], suspected)),
        reads=EvidenceReader(
            deps.collectors,
            deps.snapshots,
            deps.masker,
            scope=scope,
            evidence=evidence,
            incident_id=state["incident_id"],
            round_=state["round"],
            within_s=deps.reads_s,
        ),
        language=state.get("language", "en"),
        incident_id=state["incident_id"],
        round_=state["round"],
    )


def _checked(analysis: Analysis, evidence: Evidence, state: State) -> RootCause:
    """What of the answer holds, how far it can be believed, and what is new in it."""
    components = known_components(state["scope"], evidence)
    grounded = ground(analysis.root_cause, evidence, components, first=analysis.first)
    root_cause = confident(grounded, evidence)
    before = state.get("root_cause")
    if before is None:
        return root_cause
    differences = changed(before, root_cause, state.get("hints", ()))
    return root_cause.model_copy(update={"changed": differences})
