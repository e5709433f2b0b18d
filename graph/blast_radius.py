"""Whom an option touches, and what is left to serve requests meanwhile. Pure."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Literal

from collectors.base import Edge
from executors.base import Capacity, PreflightCheck
from graph.observed_load import ObservedLoad
from graph.queueing import response_time
from graph.state import AffectedService, BlastRadius, CapacityEstimate

CALLERS = 3
"""Calls up the way to users: further away a fault of one service is rarely told from noise."""
CALLEES = 1  # what it calls gets more or less of its requests; their callees share that with others


@dataclass(frozen=True)
class Surroundings:
    """What is known of the services around: who calls whom, which are in the incident's scope, how busy they were."""

    edges: Sequence[Edge] = ()
    scope: frozenset[str] = frozenset()
    load: ObservedLoad = field(default_factory=ObservedLoad)


def blast_radius(
    changed: Sequence[str], capacities: Iterable[Capacity], reversible: Sequence[bool], around: Surroundings
) -> BlastRadius:
    """Of an option that changes these services, by operations that are ``reversible`` or not."""
    return BlastRadius(
        services=affected(changed, around.edges),
        request_share=request_share(changed, around),
        capacity=estimates(capacities, around.load),
        reversible=_reversible(reversible),
    )


def affected(changed: Sequence[str], edges: Iterable[Edge]) -> tuple[AffectedService, ...]:
    """What is changed, then the callers that wait for it, nearest first, then what it calls itself.

    Asynchronous calls are left out: who sends a message does not wait for its reader.
    """
    callers, callees = _adjacent(edges)
    above, below = _reach(changed, callers, CALLERS), _reach(changed, callees, CALLEES)
    named: dict[str, AffectedService] = {}
    reached: list[tuple[Literal["caller", "callee"], dict[str, int]]] = [("caller", above), ("callee", below)]
    for name in dict.fromkeys(changed):
        named[name] = AffectedService(service=name, how="changed")
    for how, distance in reached:
        for name, hops in sorted(distance.items(), key=lambda found: (found[1], found[0])):
            named.setdefault(name, AffectedService(service=name, how=how, hops=hops))
    return tuple(named.values())


def request_share(changed: Sequence[str], around: Surroundings) -> float | None:
    """The changed services' requests against all that enter the scope, at services that nobody in it calls.

    None where either is not measured. One request may pass several of the services: more than all is all.
    """
    requests = around.load.requests
    if not changed:
        return 0.0
    called = {e.callee for e in around.edges if e.caller in around.scope and e.caller != e.callee}
    entering = sum(requests.get(name, 0.0) for name in around.scope - called)
    if entering <= 0.0 or any(name not in requests for name in changed):
        return None
    return round(min(sum(requests[name] for name in dict.fromkeys(changed)) / entering, 1.0), 4)


def estimates(capacities: Iterable[Capacity], load: ObservedLoad) -> tuple[CapacityEstimate, ...]:
    """One for each step that leaves another capacity; a step gets the load that the steps before leave it."""
    factors: dict[str, float] = {}
    found = []
    for capacity in capacities:
        factor = factors.get(capacity.service, 1.0) * capacity.load_then
        factors[capacity.service] = factor
        found.append(_estimate(capacity, factor, load))
    return tuple(found)


def _estimate(capacity: Capacity, load_factor: float, load: ObservedLoad) -> CapacityEstimate:
    estimate = CapacityEstimate(
        service=capacity.service, servers_now=capacity.servers_now, servers_then=capacity.servers_then
    )
    measured = load.utilisation.get(capacity.service)
    if measured is None:
        return estimate.model_copy(update={"basis": f"how busy {capacity.service} is was not measured"})
    marks: dict[str, object] = {"utilisation_now": round(measured.share, 4), "basis": measured.basis}
    if capacity.servers_then > 0:
        then = measured.share * load_factor * capacity.servers_now / capacity.servers_then
        now_takes = response_time(_whole(capacity.servers_now), measured.share)
        wait = response_time(_whole(capacity.servers_then), then) / now_takes
        marks |= {"utilisation_then": round(then, 4)}
        marks |= {"wait_then": round(wait, 2)} if isfinite(now_takes) and isfinite(wait) else {}
    return estimate.model_copy(update=marks)


def _whole(servers: float) -> int:
    """A part of a server serves nobody, but there is at least one where anything is served."""
    return max(int(servers), 1)


def capacity_check(estimate: CapacityEstimate) -> PreflightCheck:
    """What is left, in a sentence; a warning where that is too little for the load, and less than now.

    It is not refused: to shed what cannot be served may be what a person wants.
    """
    left, busy = _left(estimate.servers_now, estimate.servers_then), estimate.utilisation_then
    share = "" if busy is None else f" for {100 * busy:.0f} % of what they can serve"
    if overloads(estimate):
        detail = f"{estimate.service}: would leave {left}{share or ' for a while'}"
        return PreflightCheck(name="capacity", status="warning", detail=detail)
    if busy is None:
        return PreflightCheck(name="capacity", status="skipped", detail=f"{left}; {estimate.basis}")
    return PreflightCheck(name="capacity", status="ok", detail=f"{estimate.service}: {left}{share}")


def _left(now: float, then: float) -> str:
    if then == now:
        return f"{now:g} instance{'s' if now != 1 else ''}"
    return f"{then:g} of {now:g} instances" if then < now else f"{now:g} -> {then:g} instances"


def overloads(estimate: CapacityEstimate) -> bool:
    """Whether it leaves less than the load takes, where there is more now."""
    if estimate.servers_then <= 0.0 < estimate.servers_now:
        return True
    now, then = estimate.utilisation_now, estimate.utilisation_then
    return now is not None and then is not None and then >= 1.0 and then > now


def _reversible(each: Sequence[bool]) -> Literal["all", "partly", "no"]:
    """What changes nothing leaves nothing to put back."""
    if all(each):
        return "all"
    return "partly" if any(each) else "no"


def _adjacent(edges: Iterable[Edge]) -> tuple[Mapping[str, set[str]], Mapping[str, set[str]]]:
    """Callers by callee, and callees by caller, of calls that are waited for.

    Of a pair that one source calls asynchronous and another does not, somebody waits.
    """
    callers: dict[str, set[str]] = {}
    callees: dict[str, set[str]] = {}
    for edge in edges:
        if not edge.asynchronous:
            callers.setdefault(edge.callee, set()).add(edge.caller)
            callees.setdefault(edge.caller, set()).add(edge.callee)
    return callers, callees


def _reach(start: Iterable[str], adjacent: Mapping[str, set[str]], hops: int) -> dict[str, int]:
    """What is at most so many calls away, without the start."""
    distance = dict.fromkeys(start, 0)
    queue = deque(distance)
    while queue:
        here = queue.popleft()
        if distance[here] < hops:
            new = sorted(adjacent.get(here, set()) - distance.keys())
            distance.update(dict.fromkeys(new, distance[here] + 1))
            queue.extend(new)
    return {name: calls for name, calls in distance.items() if calls}
