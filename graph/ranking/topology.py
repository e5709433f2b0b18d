"""Who calls whom, and the checked causal path from a suspect to the alerted service."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from collectors.base import Edge, Span
from graph.state import Hop

ONSET_SLACK_S = 90.0
"""How much later a cause may seem to start than its effect: one and a half of the usual one-minute metric rows."""


@dataclass(frozen=True)
class Topology:
    """The call graph: callees and callers by component, each sorted by name."""

    callees: Mapping[str, tuple[str, ...]]
    callers: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, edges: Iterable[Edge], spans: Sequence[Span]) -> "Topology":
        """The declared edges and those the spans show."""
        pairs = {(e.caller, e.callee) for e in edges} | _observed(spans)
        callees: dict[str, set[str]] = {}
        callers: dict[str, set[str]] = {}
        for caller, callee in pairs:
            if caller != callee:
                callees.setdefault(caller, set()).add(callee)
                callers.setdefault(callee, set()).add(caller)
        return cls(
            callees={name: tuple(sorted(others)) for name, others in callees.items()},
            callers={name: tuple(sorted(others)) for name, others in callers.items()},
        )

    def knows(self, component: str) -> bool:
        """Whether any edge touches the component."""
        return component in self.callees or component in self.callers

    def distances(self, component: str) -> dict[str, int]:
        """Everything the component calls, directly or not, with the number of calls between."""
        return _reach(component, self.callees)

    def route(self, suspect: str, alerted: str, weight: Mapping[str, float]) -> tuple[str, ...]:
        """The shortest way from ``suspect`` up its callers to ``alerted``; of equals the one that deviates most.

        Empty if there is none.
        """
        distance = self.distances(alerted)
        if suspect not in distance:
            return ()
        way = [suspect]
        while way[-1] != alerted:
            nearer = [c for c in self.callers.get(way[-1], ()) if distance.get(c, -1) == distance[way[-1]] - 1]
            way.append(min(nearer, key=lambda name: (-weight.get(name, 0.0), name)))
        return tuple(way)


def causal_path(
    topology: Topology,
    suspect: str,
    alerted: str,
    strength: Mapping[str, float],
    onset_s: Mapping[str, float],
) -> tuple[Hop, ...]:
    """Hops from the suspect to the alerted service, each with what was checked.

    ``strength`` and ``onset_s`` hold the components that deviate. A suspect with no way up to the alerted service
    gets one hop whose ``structural`` check fails: it is shown, and shown as unproven.
    """
    if suspect == alerted:
        return ()
    way = topology.route(suspect, alerted, strength)
    structural = bool(way)
    return tuple(
        Hop(
            cause=cause,
            effect=effect,
            structural=structural,
            statistical=cause in strength and effect in strength,
            temporal=_not_later(cause, effect, onset_s),
        )
        for cause, effect in pairwise(way or (suspect, alerted))
    )


def _not_later(cause: str, effect: str, onset_s: Mapping[str, float]) -> bool:
    if cause not in onset_s or effect not in onset_s:
        return False
    return onset_s[cause] <= onset_s[effect] + ONSET_SLACK_S


def _observed(spans: Sequence[Span]) -> set[tuple[str, str]]:
    owner = {(s.trace_id, s.span_id): s.component for s in spans}
    pairs = {(s.component, s.peer) for s in spans if s.kind == "client" and s.peer}
    for span in spans:
        caller = owner.get((span.trace_id, span.parent_id))
        if span.parent_id and caller is not None:
            pairs.add((caller, span.component))
    return pairs


def _reach(start: str, adjacent: Mapping[str, Sequence[str]]) -> dict[str, int]:
    distance, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for name in adjacent.get(here, ()):
            if name not in distance:
                distance[name] = distance[here] + 1
                queue.append(name)
    return distance
