"""Causal hops between components: ranking's own, or checked here in the same three ways. Pure."""

from collections import deque
from datetime import datetime, timedelta

from collectors.base import Edge
from graph.state import Evidence, Finding, Hop

SLACK = timedelta(minutes=1)  # onsets are known to the minute: a cause may seem to begin that much later
_TROUBLE = ("metric", "log", "trace", "status")  # what a component shows of itself; a change or a runbook is none


def checked(cause: str, effect: str, evidence: Evidence) -> Hop:
    """The hop as ranking has it; one that ranking does not have is held against edges, onsets and deviations."""
    for hop in ranked(evidence):
        if (hop.cause, hop.effect) == (cause, effect):
            return hop
    edge = _edge(cause, effect, evidence)
    onsets = _onset(cause, evidence), _onset(effect, evidence)
    return Hop(
        cause=cause,
        effect=effect,
        structural=edge is not None,
        statistical=all(any(deviates(f) for f in evidence.findings if f.component == end) for end in (cause, effect)),
        temporal=onsets[0] is not None and onsets[1] is not None and onsets[0] <= onsets[1] + SLACK,
        asynchronous=edge is not None and edge.asynchronous,
    )


def ranked(evidence: Evidence) -> list[Hop]:
    """All hops of ranking's paths."""
    return [hop for suspect in evidence.suspects for hop in suspect.path]


def holds(hop: Hop) -> bool:
    """All three checks."""
    return hop.structural and hop.statistical and hop.temporal


def lacks(hop: Hop) -> str:
    """Which of the checks fail, in words; empty if none does."""
    reasons = {
        "the topology has no such edge": hop.structural,
        "not both of them deviate": hop.statistical,
        f"{hop.cause} does not begin first": hop.temporal,
    }
    return ", ".join(reason for reason, there in reasons.items() if not there)


def joined(cause: str, effect: str, evidence: Evidence) -> bool:
    """Whether hops that hold lead from the one to the other."""
    seen, queue = {cause}, deque([cause])
    while queue:
        here = queue.popleft()
        for end in _ends(here, evidence):
            if end not in seen and holds(checked(here, end, evidence)):
                if end == effect:
                    return True
                seen.add(end)
                queue.append(end)
    return False


def deviates(finding: Finding) -> bool:
    """Whether the finding shows trouble: a state as expected, or a read that found nothing, does not."""
    if finding.kind not in _TROUBLE or (finding.asked and not finding.effect):
        return False
    return finding.observed is None or finding.observed != finding.baseline


def _ends(cause: str, evidence: Evidence) -> list[str]:
    """Whom a failure of the component may reach in one hop."""
    ways = [hop.effect for hop in ranked(evidence) if hop.cause == cause]
    ways += [edge.caller for edge in evidence.edges if edge.callee == cause]
    ways += [edge.callee for edge in evidence.edges if edge.caller == cause and edge.asynchronous]
    return list(dict.fromkeys(ways))


def _edge(cause: str, effect: str, evidence: Evidence) -> Edge | None:
    """A failure goes from a callee to its caller; a message may carry it either way."""
    for edge in evidence.edges:
        if (edge.caller, edge.callee) == (effect, cause):
            return edge
        if edge.asynchronous and (edge.caller, edge.callee) == (cause, effect):
            return edge
    return None


def _onset(component: str, evidence: Evidence) -> datetime | None:
    return min((f.at for f in evidence.findings if f.component == component and deviates(f)), default=None)
