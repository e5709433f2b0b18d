"""Who calls whom, and the checked causal path from a suspect to the alerted service."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise

from collectors.base import Edge, Span
from graph.state import Hop

ONSET_SLACK_S = 90.0
"""How much later a cause may seem to start than its effect: one and a half of the usual one-minute metric rows."""
SILENT_STEP = 3
"""What a step through a component that shows nothing costs, in steps: failures seldom pass unseen; edges may lie."""
Pair = tuple[str, str]  # caller, callee
SpanId = tuple[str, str]  # trace id, span id


@dataclass(frozen=True)
class Topology:
    """The call graph: callees and callers by component, each sorted by name."""

    callees: Mapping[str, tuple[str, ...]]
    callers: Mapping[str, tuple[str, ...]]
    asynchronous: frozenset[Pair] = frozenset()
    kinds: Mapping[str, str] = field(default_factory=dict)  # what a component is, where a source knows

    @classmethod
    def of(cls, edges: Iterable[Edge], spans: Sequence[Span]) -> "Topology":
        """The declared edges and those the spans show."""
        declared = list(edges)
        observed = _observed(spans)
        pairs = {(e.caller, e.callee) for e in declared} | observed.keys()
        callees: dict[str, set[str]] = {}
        callers: dict[str, set[str]] = {}
        for caller, callee in pairs:
            if caller != callee:
                callees.setdefault(caller, set()).add(callee)
                callers.setdefault(callee, set()).add(caller)
        return cls(
            callees={name: tuple(sorted(others)) for name, others in callees.items()},
            callers={name: tuple(sorted(others)) for name, others in callers.items()},
            asynchronous=frozenset((e.caller, e.callee) for e in declared if e.asynchronous)
            | {pair for pair, waited in observed.items() if not waited and pair[0] != pair[1]},
            kinds=dict(sorted((e.callee, e.callee_kind) for e in declared if e.callee_kind)),
        )

    def awaited(self, component: str) -> tuple[str, ...]:
        """The callees whose answer the component waits for."""
        return tuple(c for c in self.callees.get(component, ()) if (component, c) not in self.asynchronous)

    def knows(self, component: str) -> bool:
        """Whether any edge touches the component."""
        return component in self.callees or component in self.callers

    def waited_for_by(self, component: str) -> tuple[str, ...]:
        """The callers that wait for the component's answer."""
        return tuple(c for c in self.callers.get(component, ()) if (c, component) not in self.asynchronous)

    def below(self, component: str) -> dict[str, int]:
        """Everything the component calls, directly or not, with the number of calls between."""
        return _reach(component, self.callees)

    def above(self, component: str) -> dict[str, int]:
        """Everything that calls the component, directly or not, with the number of calls between."""
        return _reach(component, self.callers)

    def waits_for(self, component: str) -> frozenset[str]:
        """Everything whose answer the component waits for, directly or not, itself included."""
        return frozenset(_reach(component, {caller: self.awaited(caller) for caller in self.callees}))

    def route(self, suspect: str, alerted: str, deviating: Mapping[str, float]) -> tuple[str, ...]:
        """The likeliest way from ``suspect`` up its callers to ``alerted``: few steps, through what deviates.

        Empty if there is none.
        """
        known = self.below(alerted)
        queue: list[tuple[float, float, tuple[str, ...]]] = [(0.0, 0.0, (suspect,))]
        done: set[str] = set()
        while queue and suspect in known:
            cost, weakness, way = heappop(queue)
            here = way[-1]
            if here == alerted:
                return way
            if here in done:
                continue
            done.add(here)
            for caller in self.callers.get(here, ()):
                if caller in known and caller not in done:
                    step = 1 if caller in deviating or caller == alerted else SILENT_STEP
                    heappush(queue, (cost + step, weakness - deviating.get(caller, 0.0), (*way, caller)))
        return ()


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
            asynchronous=(effect, cause) in topology.asynchronous,
        )
        for cause, effect in pairwise(way or (suspect, alerted))
    )


def _not_later(cause: str, effect: str, onset_s: Mapping[str, float]) -> bool:
    if cause not in onset_s or effect not in onset_s:
        return False
    return onset_s[cause] <= onset_s[effect] + ONSET_SLACK_S


def by_id(spans: Iterable[Span]) -> dict[SpanId, Span]:
    """Of spans with the same id the first by name, in whatever order they come."""
    known: dict[SpanId, Span] = {}
    for span in spans:
        first = known.setdefault((span.trace_id, span.span_id), span)
        if first is not span and _names(span) < _names(first):
            known[span.trace_id, span.span_id] = span
    return known


def _names(span: Span) -> tuple[str, str, str, str]:
    return span.component, span.operation, span.parent_id, span.kind


def _observed(spans: Sequence[Span]) -> dict[Pair, bool]:
    """Who calls whom, and whether the caller waits for the answer in any of the calls."""
    owner = by_id(spans)
    waited: dict[Pair, bool] = {}
    for span in spans:
        if span.kind in ("client", "producer") and span.peer:
            pair = span.component, span.peer
            waited[pair] = waited.get(pair, False) or span.kind == "client"
        if span.kind == "consumer" and span.peer:  # the queue it took its message from
            waited.setdefault((span.peer, span.component), False)
        caller = owner.get((span.trace_id, span.parent_id)) if span.parent_id else None
        if caller is not None:
            pair = caller.component, span.component
            message = caller.kind == "producer" or span.kind == "consumer"
            waited[pair] = waited.get(pair, False) or not message
    return waited


def _reach(start: str, adjacent: Mapping[str, Sequence[str]]) -> dict[str, int]:
    distance, queue = {start: 0}, deque([start])
    while queue:
        here = queue.popleft()
        for name in adjacent.get(here, ()):
            if name not in distance:
                distance[name] = distance[here] + 1
                queue.append(name)
    return distance
