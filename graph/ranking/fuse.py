"""From deviations to suspects: explain away what callees account for, then add up the channels."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log1p, sqrt

from collectors.base import Series
from graph.ranking.added_work import BORNE, AddedWork, added_work
from graph.ranking.deviation import Deviation, noisy_or
from graph.ranking.metrics import Load, component_loads, mean_seconds
from graph.ranking.terms import whole
from graph.ranking.topology import Topology
from graph.ranking.windows import Windows

MIN_SCORE = 0.05
"""Below it nobody is accused: a twentieth is what chance shifts of a few signals add up to."""
EXPLAINED = 0.9
"""How much of what it inherits a callee's failure can explain: never all, a component may fail beside its callee."""
REFUSED = 0.5
"""The same for what fails in the component itself: its own code, or its workers all waiting for the callee."""
UNREACHED = 0.3
"""What is left of a suspect the alerted service does not depend on, directly or not: edges may be missing."""
ASYNCHRONOUS = 0.5
"""What is left of one that is only reached by messages: nobody waits for it, but what it does not do may be missed."""
UPSTREAM = 0.6
"""What is left of a caller of the alerted service: it may flood it, but does not make it fail otherwise."""
CERTAIN = 0.999  # a score never claims certainty
_SYMPTOMS = ("error", "latency")
_REFUSALS = ("error_span", "transition")
_CALLS_LESS = ("drop", "calls", "error", "error_span", "silence")  # what makes a caller call less
_NO_REASON = ("traffic", "drop", "unknown", "loss", "change", "knowledge")  # what of a callee makes no caller fail


@dataclass(frozen=True)
class Ranked:
    """A component with its score and what speaks for it, strongest first."""

    component: str
    score: float
    evidence: tuple[Deviation, ...]
    weight: float  # unbounded: orders what the score rounds to the same
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True)
class Part:
    """What one channel adds to a component's score: the product of its factors."""

    channel: str
    strongest: Deviation
    residual: float  # strength that no callee explains
    share: float  # of all such trouble in the channel
    coverage: float  # of the alerted component's symptom
    reach: float

    @property
    def value(self) -> float:
        """0..1."""
        return self.residual * self.share * self.coverage * self.reach

    def told(self) -> str:
        """How the value came about, as a line."""
        return (
            f"{self.channel} {self.value:.2f} = {self.strongest.strength:.2f} strong"
            f" × {_part_of(self.residual, self.strongest.strength):.2f} not explained by callees"
            f" × {self.share:.2f} of such trouble × {self.coverage:.2f} of the symptom × {self.reach:.2f} in reach"
            f" ({self.strongest.signal[:80]})"
        )


@dataclass(frozen=True)
class Symptom:
    """What the alerted component shows, to be explained."""

    alerted: str
    calls: float = 0.0  # requests in the incident window; 0 if not known
    seconds: float = 0.0  # that these took in all; 0 if not known

    @classmethod
    def of(cls, alerted: str, series: Iterable[Series], windows: Windows) -> "Symptom":
        """From the alerted component's own series."""
        mine = list(series)
        load = component_loads(mine, windows).get(alerted, Load())
        return cls(alerted, load.calls, load.calls * mean_seconds(mine, windows))


def rank_components(deviations: Sequence[Deviation], topology: Topology, symptom: Symptom) -> list[Ranked]:
    """Components in a total order: weight, then name. Components below MIN_SCORE are left out."""
    strongest = strongest_by_channel(deviations)
    residual = residuals(deviations, topology)
    shares = _shares(residual, strongest)
    reach = _Reach(topology, symptom.alerted, called_less=_called_less(strongest.get(symptom.alerted, {})))
    ranked = []
    for component, channels in residual.items():
        parts = tuple(
            Part(
                channel=channel,
                strongest=strongest[component][channel],
                residual=left,
                share=shares[component, channel],
                coverage=_coverage(strongest[component][channel], strongest.get(symptom.alerted, {}), symptom),
                reach=reach.factor(component),
            )
            for channel, left in channels.items()
        )
        values = sorted(part.value for part in parts)
        score = noisy_or(values)
        if score >= MIN_SCORE:
            weight = -sum(log1p(-min(value, CERTAIN)) for value in values)
            evidence = tuple(sorted((d for d in deviations if d.component == component), key=order))
            ranked.append(Ranked(component, min(score, CERTAIN), evidence, weight, parts))
    return sorted(ranked, key=lambda r: (-round(r.weight, 9), r.component))


def order(deviation: Deviation) -> tuple[float, tuple[str, ...], float, tuple[tuple[float, float], ...]]:
    """Strongest first, ties by name and then by all that tells two apart: a total order."""
    d = deviation
    measured = (d.ref.metric, d.ref.statistic, d.ref.unit, d.ref.query) if d.ref else ()
    said = (d.component, d.kind, d.channel, d.signal, d.summary, d.source, d.query, d.excerpt, d.instance, d.link or "")
    names = said + measured
    return -d.strength, names, d.at_s, d.points


Channels = Mapping[str, Deviation]


def strongest_by_channel(deviations: Iterable[Deviation]) -> dict[str, dict[str, Deviation]]:
    """By component and channel the strongest deviation."""
    strongest: defaultdict[str, dict[str, Deviation]] = defaultdict(dict)
    for d in sorted(deviations, key=order):
        strongest[d.component].setdefault(d.channel, d)
    return strongest


def passed_on(
    deviations: Sequence[Deviation], topology: Topology, alerted: str, seen: Collection[str] | None = None
) -> list[Deviation]:
    """What a component shows that another one does: a queue does not consume itself, nobody calls himself.

    Work that piles up in a queue is held against who takes it from there; what too much work does to a component,
    against who makes it. If the alerted component is called less, that is held against its callers, or against theirs
    if they are called less themselves. What callers log of a component that is not among those ``seen`` in any
    telemetry is held against it; where ``seen`` is not known, nothing is.
    """
    strongest = strongest_by_channel(deviations)
    found = []
    for queue, channels in sorted(strongest.items()):
        if "backlog" in channels:
            takers = [c for c in topology.callees.get(queue, ()) if (queue, c) in topology.asynchronous]
            found += _charged(channels["backlog"], takers, "backlog", f"work waits for it in {queue}")
    found += [] if seen is None else _testified(deviations, topology, seen)
    found += _borne([*deviations, *found], topology)
    if not _called_less(strongest.get(alerted, {})):
        return found
    for called in topology.above(alerted):
        drop = strongest.get(called, {}).get("drop")
        senders = topology.waited_for_by(called)
        if drop and not any(_stops_calling(strongest.get(c, {})) >= drop.strength / 2.0 for c in senders):
            found += _charged(drop, senders, "calls", f"it may call {called} no more")
    return found


def _testified(deviations: Sequence[Deviation], topology: Topology, seen: Collection[str]) -> list[Deviation]:
    """What callers log of components of which nothing is measured, logged or traced: nobody else tells of them."""
    found = []
    for d in deviations:
        if d.channel != "log" or d.worse != "up":
            continue
        silent = (name for name in topology.awaited(d.component) if name not in seen)
        named = [name for name in silent if whole(name).search(d.excerpt)]
        found += _charged(d, named, "log", f"{d.component} names it in what it logs")
    return found


def _borne(deviations: Sequence[Deviation], topology: Topology) -> list[Deviation]:
    """The worst that too much work does to a component, held against who makes it, as far as that one does."""
    strongest = strongest_by_channel(deviations)
    found = []
    for work in added_work(deviations, topology):
        suffered = (d for channel, d in strongest[work.bearer].items() if channel in BORNE)
        for worst in sorted(suffered, key=order)[:1]:
            found += _charged(replace(worst, strength=worst.strength * work.share), [work.maker], "load", work.told)
    return found


def _charged(d: Deviation, components: Sequence[str], channel: str, why: str) -> list[Deviation]:
    """The deviation held against others, in equal parts: from here nobody can tell which of them it is."""
    return [
        replace(
            d,
            component=component,
            kind="topology",
            channel=channel,
            strength=d.strength / len(components),
            summary=f"{component}: {why}. {d.summary}",
            inherited=channel == "backlog",
            harm=0.0,
            ref=None,
        )
        for component in components
    ]


def residuals(deviations: Sequence[Deviation], topology: Topology) -> dict[str, dict[str, float]]:
    """By component and channel the strongest deviation, less what its neighbours explain."""
    strongest = strongest_by_channel(deviations)
    given = _given(added_work(deviations, topology))
    found: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for d in deviations:
        most = EXPLAINED if d.inherited else REFUSED if d.channel in _REFUSALS else 0.0
        left = d.strength * (1.0 - most * _explained(d, strongest, topology)) if most else d.strength
        if d.channel in BORNE:
            left *= 1.0 - EXPLAINED * given.get(d.component, 0.0)
        found[d.component][d.channel] = max(found[d.component].get(d.channel, 0.0), left)
    return dict(sorted(found.items()))


def _given(found: Sequence[AddedWork]) -> dict[str, float]:
    """By component the part of its work that others add, 0..1."""
    given: dict[str, float] = {}
    for work in found:
        given[work.bearer] = max(given.get(work.bearer, 0.0), work.share)
    return given


def _explained(d: Deviation, strongest: Mapping[str, Channels], topology: Topology) -> float:
    if d.channel == "drop":  # calls come from others: nobody makes fewer of them come to himself
        if topology.waited_for_by(d.component):
            return 1.0
        senders = topology.callers.get(d.component, ())  # … but who takes work from a queue may take less
        return max((_stops_calling(strongest.get(c, {})) for c in senders), default=0.0)
    callees = topology.callees.get(d.component, ()) if d.channel == "backlog" else topology.awaited(d.component)
    return max((_explains(strongest.get(c, {}), d) for c in callees), default=0.0)


def _stops_calling(caller: Channels) -> float:
    return noisy_or(other.strength for channel, other in caller.items() if channel in _CALLS_LESS)


def _explains(callee: Channels, d: Deviation) -> float:
    """How far a callee that deviates so is the reason of the caller's deviation, 0..1."""
    return noisy_or(_reason(other, d, callee) for channel, other in callee.items() if channel not in _NO_REASON)


def _reason(other: Deviation, d: Deviation, callee: Channels) -> float:
    if other.channel == d.channel and other.harm and d.harm:
        return other.strength * sqrt(min(1.0, other.harm / d.harm))  # ten lost seconds do not explain a thousand
    if {other.channel, d.channel} == set(_SYMPTOMS) and d.channel not in callee:
        return other.strength * _far_off(other) ** 2
    return other.strength


def _far_off(d: Deviation) -> float:
    """The part of what is seen that is not usual, 0..1: calls that take twice as long seldom time out, ten times do."""
    observed, usual = abs(d.observed or 0.0), abs(d.baseline or 0.0)
    return abs(observed - usual) / max(observed, usual) if observed or usual else 0.0


def _shares(
    residual: Mapping[str, Mapping[str, float]], strongest: Mapping[str, Channels]
) -> dict[tuple[str, str], float]:
    """By component and channel: its part of all the trouble that channel shows.

    Squared, so that many faint ones do not drown a clear one; and weighed by the requests that are harmed, where
    these are known: a high share of a handful of requests is less than a small one of thousands.
    """
    most: defaultdict[str, float] = defaultdict(float)
    for component, channels in residual.items():
        for channel, left in channels.items():
            most[channel] = max(most[channel], strongest[component][channel].harm if left else 0.0)
    weight = {
        (component, channel): left**2 * _part_of(strongest[component][channel].harm, most[channel])
        for component, channels in residual.items()
        for channel, left in channels.items()
    }
    total: defaultdict[str, float] = defaultdict(float)
    for (_, channel), value in sorted(weight.items()):
        total[channel] += value
    return {key: value / total[key[1]] if total[key[1]] else 0.0 for key, value in weight.items()}


def _part_of(harm: float, most: float) -> float:
    return harm / most if harm and most else 1.0


def _coverage(d: Deviation, alerted: Channels, symptom: Symptom) -> float:
    """How much of the alerted component's trouble this can account for, 0..1; 1 where it is not known.

    Where the alerted component shows the same kind of trouble, what is compared is harm; where it does not, all its
    requests: five failures of a callee are nothing to a service that answers ten thousand and does not fail.
    """
    own = alerted.get(d.channel)
    if not d.harm or d.component == symptom.alerted or d.channel not in _SYMPTOMS:
        return 1.0
    if own is not None and own.harm:
        return sqrt(min(1.0, d.harm / own.harm))
    whole = symptom.calls if d.channel == "error" else symptom.seconds
    return sqrt(min(1.0, d.harm / whole)) if whole and own is None else 1.0


def _called_less(alerted: Channels) -> bool:
    """Whether that it is called less is the clearest symptom of the alerted component."""
    drop = alerted["drop"].strength if "drop" in alerted else 0.0
    return drop > max((d.strength for c, d in alerted.items() if c in _SYMPTOMS), default=0.0)


class _Reach:
    """How plausible it is that a component makes the alerted one fail, by where it stands.

    Failures and slowness come from below; if the alerted component is called less, from above.
    """

    def __init__(self, topology: Topology, alerted: str, *, called_less: bool) -> None:
        self._known = topology.knows(alerted)
        self._waited = topology.waits_for(alerted)
        self._below = topology.below(alerted)
        self._above = topology.above(alerted)
        self._called_less = called_less

    def factor(self, component: str) -> float:
        if self._called_less and component in self._above:
            return 1.0
        if not self._known or component in self._waited:
            return 1.0
        if component in self._below:
            return ASYNCHRONOUS
        return UPSTREAM if component in self._above else UNREACHED
