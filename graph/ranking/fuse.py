"""From deviations to suspects: explain away what callees account for, then add up the channels."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log1p

from graph.ranking.deviation import Deviation, noisy_or
from graph.ranking.topology import Topology

MIN_SCORE = 0.05
"""Below it nobody is accused: a twentieth is what chance shifts of a few signals add up to."""
EXPLAINED = 0.9
"""How much of what it inherits a callee's failure can explain: never all, a component may fail beside its callee."""
UNREACHED = 0.3
"""What is left of a suspect the alerted service does not depend on, directly or not: edges may be missing."""
UPSTREAM = 0.6
"""What is left of a caller of the alerted service: it may flood it, but does not make it fail otherwise."""
CERTAIN = 0.999  # a score never claims certainty


@dataclass(frozen=True)
class Ranked:
    """A component with its score and what speaks for it, strongest first."""

    component: str
    score: float
    evidence: tuple[Deviation, ...]
    weight: float  # unbounded: orders what the score rounds to the same


def rank_components(deviations: Sequence[Deviation], topology: Topology, alerted: str) -> list[Ranked]:
    """Components in a total order: weight, then name. Components below MIN_SCORE are left out."""
    residual = residuals(deviations, topology)
    shares = _shares(residual)
    reach = _Reach(topology, alerted)
    ranked = []
    for component, channels in residual.items():
        parts = [s * shares[component, channel] * reach.factor(component) for channel, s in channels.items()]
        score = noisy_or(parts)
        if score >= MIN_SCORE:
            weight = -sum(log1p(-min(p, CERTAIN)) for p in sorted(parts))
            evidence = tuple(sorted((d for d in deviations if d.component == component), key=order))
            ranked.append(Ranked(component, min(score, CERTAIN), evidence, weight))
    return sorted(ranked, key=lambda r: (-round(r.weight, 9), r.component))


def order(deviation: Deviation) -> tuple[float, tuple[str, ...], float, tuple[tuple[float, float], ...]]:
    """Strongest first, ties by name and then by all that tells two apart: a total order."""
    d = deviation
    names = (d.component, d.kind, d.signal, d.summary, d.source, d.ref.query if d.ref else "", d.excerpt)
    return -d.strength, names, d.at_s, d.points


def residuals(deviations: Sequence[Deviation], topology: Topology) -> dict[str, dict[str, float]]:
    """By component and channel the strongest deviation, less what the component's callees explain."""
    symptom = _symptoms(deviations)
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for d in deviations:
        callees = topology.callees.get(d.component, ()) if d.inherited else ()
        explained = EXPLAINED * max((symptom.get(c, 0.0) for c in callees), default=0.0)
        left = d.strength * (1.0 - explained)
        found[d.component][d.channel] = max(found[d.component].get(d.channel, 0.0), left)
    return dict(sorted(found.items()))


def _symptoms(deviations: Iterable[Deviation]) -> dict[str, float]:
    """How much each component deviates in all, whatever the reason."""
    strongest: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for d in deviations:
        channels = strongest[d.component]
        channels[d.channel] = max(channels.get(d.channel, 0.0), d.strength)
    return {component: noisy_or(channels.values()) for component, channels in strongest.items()}


def _shares(residual: Mapping[str, Mapping[str, float]]) -> dict[tuple[str, str], float]:
    """By component and channel: its part of all the trouble that channel shows.

    Squared, so that many faint ones do not drown a clear one.
    """
    total: defaultdict[str, float] = defaultdict(float)
    for channels in residual.values():
        for channel, strength in channels.items():
            total[channel] += strength**2
    return {
        (component, channel): strength**2 / total[channel] if total[channel] else 0.0
        for component, channels in residual.items()
        for channel, strength in channels.items()
    }


class _Reach:
    """How plausible it is that a component makes the alerted one fail, by where it stands."""

    def __init__(self, topology: Topology, alerted: str) -> None:
        self._known = topology.knows(alerted)
        self._below = topology.distances(alerted)
        self._topology = topology
        self._alerted = alerted

    def factor(self, component: str) -> float:
        if not self._known or component in self._below:
            return 1.0
        return UPSTREAM if self._alerted in self._topology.distances(component) else UNREACHED
