"""RootCauseAnalyzer: a model or the rules engine explains; code checks every claim against the evidence."""

import asyncio
import logging
from typing import Any

from collectors._jobs import on_thread
from collectors.base import Gap, GapReason
from graph.comparison import changed
from graph.confidence import confident
from graph.deps import Deps
from graph.grounding import extended, ground, known_components
from graph.llms.base import Analysis, AnalysisRequest
from graph.memory import SOURCE, of_now, remembering
from graph.nodes.context_collector import hinted_scope
from graph.progress import report
from graph.reads import EvidenceReader
from graph.state import Evidence, RootCause, State

log = logging.getLogger(__name__)


async def root_cause_analyzer(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``root_cause``, and ``evidence`` with what is remembered and what the analyst asked for."""
    remembered = await _remembered(deps, state)
    analysis = await deps.analyst.analyze(await _request(deps, state, remembered))
    evidence = extended(remembered, analysis.findings)
    root_cause = await on_thread(_checked, analysis, evidence, state)
    report(
        "RootCauseAnalyzer",
        "root_cause",
        f"root_cause:{state['round']}",
        f"{root_cause.title} ({root_cause.confidence} confidence, by {root_cause.engine})",
        {"component": root_cause.component, "confidence": root_cause.confidence},
    )
    return {"root_cause": root_cause, "evidence": evidence}


async def _remembered(deps: Deps, state: State) -> Evidence:
    """The evidence with earlier incidents like this one; a gap where memory does not answer, or not in time."""
    evidence, alert = of_now(state["evidence"]), state["alert"]
    try:
        async with asyncio.timeout(deps.past_s):
            past = await deps.past.similar(state["incident_id"], alert, evidence)
    except TimeoutError:
        return _forgetful(evidence, GapReason.TIMEOUT, f"No earlier incidents after {deps.past_s:g} s.")
    except Exception as error:  # memory helps to read the evidence; no analysis fails for the lack of it
        log.exception("an analysis goes without earlier incidents")
        return _forgetful(evidence, GapReason.FAILED, f"No earlier incidents: {type(error).__name__}.")
    # masked: an imported case was never read by a collector
    masked = await on_thread(
        deps.masker.masked_evidence, Evidence(digest="", findings=(), suspects=(), similar=tuple(past))
    )
    return remembering(evidence, masked.similar, alert.occurred_at)


def _forgetful(evidence: Evidence, reason: GapReason, detail: str) -> Evidence:
    gap = Gap(source=SOURCE, reason=reason, detail=detail)
    return evidence.model_copy(update={"gaps": (*evidence.gaps, gap)})


async def _request(deps: Deps, state: State, evidence: Evidence) -> AnalysisRequest:
    scope = await hinted_scope(deps, state)
    return AnalysisRequest(
        alert=state["alert"],
        scope=scope,
        evidence=evidence,
        hints=state.get("hints", ()),
        previous=state.get("root_cause"),
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
