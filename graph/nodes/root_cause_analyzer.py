"""RootCauseAnalyzer: a model or the rules engine explains; code checks every claim against the evidence."""

from typing import Any

from graph.deps import Deps
from graph.grounding import ground, known_components
from graph.llms.base import AnalysisRequest
from graph.progress import report
from graph.state import State


async def root_cause_analyzer(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``root_cause``."""
    evidence, scope = state["evidence"], state["scope"]
    request = AnalysisRequest(
        alert=state["alert"],
        scope=scope,
        evidence=evidence,
        hints=state.get("hints", ()),
        previous=state.get("root_cause"),
    )
    root_cause = ground(await deps.analyst.analyze(request), evidence, known_components(scope, evidence))
    report(
        "RootCauseAnalyzer",
        "root_cause",
        f"root_cause:{state['round']}",
        f"{root_cause.title} ({root_cause.confidence} confidence, by {root_cause.engine})",
        {"component": root_cause.component, "confidence": root_cause.confidence},
    )
    return {"root_cause": root_cause}
