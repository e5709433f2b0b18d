"""Incidents that never were, with their truth: a random system, a fault in it, and what the sources would have told.

The truth comes from running the same system twice, with and without the fault: what differs was caused by it. Nothing
here knows how the ranking works. Seeds below 10,000 are for developing the engine; the benchmark reports those above.
"""

import math
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_dynamics import Array, Capacity, Effects, Run, capacity, patient, run
from benchmarks.synthetic_faults import QUIET, Fault, Injection, Injector, Quiet
from benchmarks.synthetic_recording import Disturbances, Recording, Segment
from benchmarks.synthetic_system import System, grow
from benchmarks.synthetic_telemetry import Recorder
from collectors.base import Edge, Scope, Symptom, Target, Telemetry, Window
from graph.state import Alert

HELD_OUT = 10_000
TRIES = 12  # places and strengths, until a fault is felt
SYSTEMS = 10  # then another one
DAY_S = 86_400.0
ProfileName = Literal["standard", "coarse", "fine", "sparse"]


@dataclass(frozen=True)
class Profile:
    """How the sources see the system: minutes a row, and whether there is anything but golden metrics."""

    step_min: float
    sparse: bool = False


PROFILES: Mapping[ProfileName, Profile] = {
    "standard": Profile(1.0),
    "coarse": Profile(5.0),
    "fine": Profile(1 / 6),
    "sparse": Profile(5.0, sparse=True),
}
CALM = Disturbances()


@dataclass(frozen=True)
class Truth:
    """What really happened.

    ``causes``: for each cause the components that are a right answer, the best first; empty where nothing happened.
    ``path``: (cause, effect) pairs of the ways from a cause to the alerted component. ``shortest``: hops of the
    shortest of these ways. ``affected``: every component that the fault changed. ``change``: the title of the change
    that brought it.
    """

    fault: Fault
    causes: tuple[tuple[str, ...], ...]
    path: frozenset[tuple[str, str]]
    shortest: int
    affected: frozenset[str]
    onset: datetime
    change: str | None = None
    quiet: Quiet | None = None


@dataclass(frozen=True)
class Case:
    """An alert, what was seen around it, and the truth."""

    telemetry: Telemetry
    scope: Scope
    alert: Alert
    truth: Truth = field(repr=False)


def incident(
    seed: int,
    *,
    fault: Fault = "latency",
    services: int = 30,
    profile: ProfileName = "standard",
    disturbances: Disturbances = CALM,
) -> Case:
    """The same arguments make the same case, in every process. Raises ValueError where no system feels the fault."""
    for system in range(SYSTEMS):
        rng = np.random.default_rng([seed, zlib.crc32(fault.encode()), services, system])
        story = _Story(rng, grow(rng, services), fault, PROFILES[profile], disturbances)
        if (case := story.case()) is not None:
            return case
    raise ValueError(f"{fault} is not felt in any of {SYSTEMS} systems of {services} services")


def recurring(system: int, run: int, *, fault: Fault, services: int = 20) -> Case | None:
    """The same system in every run, with the fault at another place and time; None where it is not felt."""
    grown = grow(np.random.default_rng([HELD_OUT + system, services]), services)
    rng = np.random.default_rng([HELD_OUT + system, zlib.crc32(fault.encode()), services, run])
    return _Story(rng, grown, fault, PROFILES["standard"], CALM).case()


class _Story:
    """One incident: its time, its load, its fault, and who was alerted."""

    def __init__(
        self, rng: np.random.Generator, system: System, fault: Fault, profile: Profile, disturbances: Disturbances
    ) -> None:
        self.rng, self.system, self.fault = rng, system, fault
        self.profile, self.disturbances = profile, disturbances
        day = datetime(2025, 3, 3, tzinfo=UTC) + timedelta(days=int(rng.integers(300)))
        minute = 5 * int(rng.integers(288)) + (0 if profile.sparse else float(rng.uniform(0, 5)))
        self.alert_s = round((day + timedelta(minutes=minute)).timestamp())
        self.lag_min = 5.0 if profile.sparse else float(rng.uniform(2, 6)) + (10 if disturbances.late else 0)
        self.tail_min = 15.0 if profile.sparse else float(rng.integers(3, 6))
        self.level = self._entry_level()
        self.system, self.built = self._built()

    def _entry_level(self) -> Array:
        """Requests a minute that come in from outside on average, by component."""
        level = np.zeros((len(self.system.components), 1))
        typical = 6.0 if self.disturbances.few_calls else 1500.0
        for entry in self.system.entries:
            level[entry] = typical * self.rng.lognormal(0, 0.7)
        return level

    def _built(self) -> tuple[System, Capacity]:
        """Capacities and timeouts as people choose them: from a usual peak, with some room."""
        headroom = self.rng.uniform(0.15, 0.5, (len(self.system.components), 1))
        peak = self.level * 1.5
        built = capacity(self.system, peak, headroom)
        usual = run(self.system, peak, Effects.none(self.system, 1), built, 1.0)
        return patient(self.system, usual, self.rng.uniform(8, 40, len(self.system.calls))), built

    def _segments(self) -> list[Segment]:
        """The incident with the time before it comes first; then the earlier days, whose metrics were read."""
        step_s = self.profile.step_min * 60
        if self.profile.sparse:
            history = Segment(self.alert_s - 60 * DAY_S, 300, step_s)
            return [Segment(self.alert_s - 2 * step_s, 5, step_s), history]
        start, end = self.alert_s - 3600.0, self.alert_s + 60 * self.tail_min
        main = Segment(start, math.ceil((end - start) / step_s), step_s)
        seasonal = math.ceil((end - self.alert_s + 600) / step_s)
        return [main, *(Segment(self.alert_s - 600 - days * DAY_S, seasonal, step_s) for days in (1, 7))]

    def case(self) -> Case | None:
        """Try places until the fault is felt somewhere: an incident that nobody feels alerts nobody, and is None."""
        main, *earlier = self._segments()
        loads = [self._load(segment) for segment in (main, *earlier)]
        onset_s = self.alert_s - 60 * self.lag_min
        minutes = (main.times() - onset_s) / 60
        calm = [
            self._run(segment, load, self._none(segment)) for segment, load in zip((main, *earlier), loads, strict=True)
        ]
        usual = calm[0].requests.mean(axis=1)
        strength = 1.0
        for _ in range(TRIES):
            effects = self._none(main)
            injector = Injector(self.rng, self.system, usual, minutes, effects, strength)
            injections = self._inject(injector)
            happened = self._run(main, loads[0], effects)
            felt = _Felt(self.system, calm[0], happened, minutes)
            alerted = self._alerted(felt, injections)
            if alerted is not None:
                break
            strength *= 1.3
        else:
            return None
        runs = [happened, *self._earlier(earlier, loads[1:], calm[1:], injections, effects)]
        return self._told([main, *earlier], runs, calm, injections, felt, alerted, onset_s)

    def _none(self, segment: Segment) -> Effects:
        return Effects.none(self.system, segment.steps)

    def _run(self, segment: Segment, load: Array, effects: Effects) -> Run:
        return run(self.system, load, effects, self.built, segment.step_s / 60)

    def _load(self, segment: Segment) -> Array:
        """A daily and a weekly curve, and fluctuation that lasts for some minutes."""
        times = segment.times()
        hour = (times / 3600) % 24
        weekend = ((times // DAY_S + 3) % 7 >= 5).astype(float)
        curve = (1 - 0.45 * np.cos((hour - 3) / 24 * 2 * np.pi)) * (1 - 0.3 * weekend)
        shocks = self.rng.normal(0, 0.03, len(times))
        wander = np.zeros(len(times))
        for i in range(1, len(times)):
            wander[i] = 0.8 * wander[i - 1] + shocks[i]
        load: Array = self.level * curve * np.exp(wander)
        return load

    def _inject(self, injector: Injector) -> tuple[Injection, ...]:
        if self.fault == "nothing":
            return (injector.quiet(QUIET[int(self.rng.integers(len(QUIET)))]),)
        if self.fault == "two_causes":
            kinds: tuple[Fault, ...] = ("latency", "errors", "bad_deploy", "slow_database")
            return tuple(injector.inject(kinds[int(k)]) for k in self.rng.choice(len(kinds), 2, replace=False))
        return (injector.inject(self.fault),)

    def _earlier(
        self,
        segments: Sequence[Segment],
        loads: Sequence[Array],
        calm: Sequence[Run],
        injections: Sequence[Injection],
        effects: Effects,
    ) -> list[Run]:
        """As calm as ever, but for what happens at this hour every day."""
        if all(injection.quiet != "nightly" for injection in injections) or self.profile.sparse:
            return list(calm)
        runs = []
        for segment, load in zip(segments, loads, strict=True):
            nightly = self._none(segment)
            nightly.costlier = effects.costlier[:, -segment.steps :]
            nightly.slower = effects.slower[:, -segment.steps :]
            runs.append(self._run(segment, load, nightly))
        return runs

    def _alerted(self, felt: "_Felt", injections: Sequence[Injection]) -> int | None:
        """Somebody whose monitor would have fired: near or far from the cause; None where nobody's would."""
        if self.fault == "nothing":
            return (
                int(self.rng.choice(self.system.entries))
                if self.rng.random() < 0.5
                else _first_service(self.rng, self.system)
            )
        reached = [felt.reached(injection) for injection in injections]
        common = set.intersection(*(set(hops) for hops in reached))
        if self.fault == "two_causes" and not _independent(felt, injections, common):
            return None
        candidates = sorted(c for c in common if felt.alarming(c))
        if not candidates:
            return None
        distance = {c: max(hops[c] for hops in reached) for c in candidates}
        return self._drawn(candidates, distance)

    def _drawn(self, candidates: list[int], distance: Mapping[int, int]) -> int:
        if self.disturbances.far:
            return max(candidates, key=lambda c: (distance[c], -c))
        kinds = [c for c in candidates if self.system.components[c].kind in {"service", "queue"}] or candidates
        weights = np.array([3.0 if c in self.system.entries else 1.0 for c in kinds])
        return int(self.rng.choice(kinds, p=weights / weights.sum()))

    def _told(
        self,
        segments: Sequence[Segment],
        runs: Sequence[Run],
        calm: Sequence[Run],
        injections: Sequence[Injection],
        felt: "_Felt",
        alerted: int,
        onset_s: float,
    ) -> Case:
        names = [c.name for c in self.system.components]
        truth = self._truth(names, injections, felt, alerted, onset_s)
        recording = Recording(
            system=self.system,
            segments=tuple(segments),
            runs=tuple(runs),
            calm=calm[0],
            injections=tuple(injections),
            onset_s=onset_s,
            alert_s=self.alert_s,
            sparse=self.profile.sparse,
            views=self._views(),
        )
        telemetry = Recorder(self.rng, recording, self.disturbances).telemetry()
        return Case(
            telemetry,
            self._scope(segments, telemetry.edges, names[alerted]),
            self._alert(names[alerted], felt, alerted),
            truth,
        )

    def _views(self) -> tuple[int, ...]:
        """In the sparse profile a third of the calls are also seen from the caller's side, as a node of its own."""
        drawn = self.rng.random(len(self.system.calls)) < 1 / 3
        return tuple(np.flatnonzero(drawn).tolist()) if self.profile.sparse else ()

    def _truth(
        self, names: Sequence[str], injections: Sequence[Injection], felt: "_Felt", alerted: int, onset_s: float
    ) -> Truth:
        ways = [felt.way(injection, alerted) for injection in injections if injection.causes]
        shortest = min((felt.reached(i).get(alerted, 0) for i in injections if i.causes), default=0)
        caused = [i.caused.title for i in injections if i.caused and i.causes]
        return Truth(
            fault=self.fault,
            causes=tuple(tuple(names[c] for c in felt.right(right, i)) for i in injections for right in i.causes),
            path=frozenset((names[a], names[b]) for way in ways for a, b in way),
            shortest=shortest,
            affected=frozenset(names[c] for c in felt.affected) if self.fault != "nothing" else frozenset(),
            onset=datetime.fromtimestamp(onset_s, UTC),
            change=caused[0] if caused else None,
            quiet=injections[0].quiet,
        )

    def _scope(self, segments: Sequence[Segment], edges: Sequence[Edge], service: str) -> Scope:
        main, *earlier = segments
        start = main.start_s + main.step_s if self.profile.sparse else self.alert_s - 600.0
        before = [_window(main.start_s, start)]
        seasonal = [_window(s.start_s, s.end_s) for s in earlier]
        return Scope(
            service=service,
            occurred_at=datetime.fromtimestamp(self.alert_s, UTC),
            incident=_window(start, main.end_s),
            baseline=tuple(before + seasonal) if self.profile.sparse else tuple(before),
            seasonal=() if self.profile.sparse else tuple(seasonal),
            symptom=Symptom(source="datadog", title=f"{service} is unhealthy"),
            targets=_targets(service, edges),
            edges=tuple(e for e in edges if e.source == "catalogue"),
        )

    def _alert(self, service: str, felt: "_Felt", alerted: int) -> Alert:
        return Alert(
            source="datadog",
            title=f"{felt.symptom(alerted)} of {service}",
            service=service,
            occurred_at=datetime.fromtimestamp(self.alert_s, UTC),
            fingerprint=service,
            cycle_key=f"{service}:{self.alert_s}",
        )


class _Felt:
    """What the fault changed: the difference between what happened and what would have happened without it."""

    def __init__(self, system: System, calm: Run, happened: Run, minutes: Array) -> None:
        self.system = system
        after = minutes >= 0
        self.slower = _peak_ratio(happened.latency_ms, calm.latency_ms, after)
        self.more = _peak_ratio(happened.requests, calm.requests, after)
        self.fewer = _peak_ratio(calm.requests, np.maximum(happened.requests, 1e-3), after)
        self.failing = (happened.failed - calm.failed)[:, after].max(axis=1)
        self.waiting = _peak_ratio(happened.backlog + 1, calm.backlog + 1, after)
        self.heavier = _peak_ratio(happened.calls + 1e-3, calm.calls + 1e-3, after)
        self.lighter = _peak_ratio(calm.calls + 1e-3, happened.calls + 1e-3, after)
        self.call_slower = (happened.call_ms - calm.call_ms)[:, after].max(axis=1)
        self.call_failing = (happened.call_failed - calm.call_failed)[:, after].max(axis=1)
        self.own_ms = calm.latency_ms.mean(axis=1)
        self.affected = {c for c in range(len(system.components)) if self._changed(c)}
        self.fullness = np.maximum(happened.used, happened.pooled)[:, after].max(axis=1)

    def _changed(self, c: int) -> bool:
        return bool(
            self.slower[c] > 1.3
            or self.failing[c] > 0.01
            or self.more[c] > 1.3
            or self.fewer[c] > 1.3
            or self.waiting[c] > 3
        )

    def alarming(self, c: int) -> bool:
        """Whether a usual monitor would fire: twice as slow, 3 % more errors, half the work, work that piles up."""
        return bool(self.slower[c] > 2 or self.failing[c] > 0.03 or self.fewer[c] > 2 or self.waiting[c] > 5)

    def right(self, causes: Sequence[int], injection: Injection) -> Sequence[int]:
        """The components that are a right answer: of too much load also the one that it overloads the most.

        Where the requests come in one can shed them; where they wait one can add capacity. Both end it.
        """
        if not injection.floods or not self.affected:
            return causes
        fullest = max(sorted(self.affected), key=lambda c: self.fullness[c])
        return list(dict.fromkeys([*causes, fullest]))

    def symptom(self, c: int) -> str:
        """What its alert would say."""
        if self.failing[c] > 0.03:
            return "High error rate"
        if self.waiting[c] > 5:
            return "Growing backlog"
        return "Few requests" if self.fewer[c] > 2 and self.slower[c] < 2 else "High latency"

    def influences(self, injection: Injection) -> list[tuple[int, int]]:
        """(cause, effect) pairs through which trouble can have passed: calls that changed, between changed parts."""
        pairs = []
        hit = self.affected.union(*injection.causes)
        for k, call in enumerate(self.system.calls):
            ends = call.caller, call.callee
            if not hit.issuperset(ends):
                continue
            upward = self.call_failing[k] > 0.01 or self.call_slower[k] > 0.1 * self.own_ms[call.caller]
            if call.synchronous and upward:
                pairs.append((call.callee, call.caller))
            stuck = self.system.components[call.caller].kind == "queue" and self.waiting[call.caller] > 3
            if stuck:
                pairs.append((call.callee, call.caller))
            if injection.downward and max(self.heavier[k], self.lighter[k]) > 1.3:
                pairs.append(ends)
        return pairs

    def reached(self, injection: Injection) -> dict[int, int]:
        """Every component the trouble came to, with its distance in hops from the cause."""
        after: dict[int, list[int]] = {}
        for a, b in self.influences(injection):
            after.setdefault(a, []).append(b)
        return _hops(after, [right[0] for right in injection.causes])

    def way(self, injection: Injection, alerted: int) -> set[tuple[int, int]]:
        """The pairs that lie on a way from the cause to the alerted component and lead nearer to it."""
        distance = self.reached(injection)
        pairs = [(a, b) for a, b in self.influences(injection) if distance.get(a, 99) < distance.get(b, -1)]
        before: dict[int, list[int]] = {}
        for a, b in pairs:
            before.setdefault(b, []).append(a)
        leads = _hops(before, [alerted])
        return {(a, b) for a, b in pairs if a in leads and b in leads}


def _peak_ratio(up: Array, down: Array, after: NDArray[np.bool_]) -> Array:
    """The largest ratio that lasts for more than a moment."""
    ratio = (up / np.maximum(down, 1e-9))[:, after]
    result: Array = np.quantile(ratio, 0.7, axis=1) if ratio.shape[1] else np.ones(len(up))
    return result


def _hops(after: Mapping[int, Iterable[int]], start: Iterable[int]) -> dict[int, int]:
    distance = dict.fromkeys(start, 0)
    waiting = deque(distance)
    while waiting:
        here = waiting.popleft()
        for there in after.get(here, ()):
            if there not in distance:
                distance[there] = distance[here] + 1
                waiting.append(there)
    return distance


def _independent(felt: _Felt, injections: Sequence[Injection], common: set[int]) -> bool:
    """Neither cause is reached by the other, and each makes a real difference of its own."""
    first, second = (injection.causes[0][0] for injection in injections)
    apart = first not in felt.reached(injections[1]) and second not in felt.reached(injections[0])
    return apart and first != second and bool(common) and felt.alarming(first) and felt.alarming(second)


def _first_service(rng: np.random.Generator, system: System) -> int:
    return int(rng.choice([i for i, c in enumerate(system.components) if c.kind == "service"]))


def _window(start_s: float, end_s: float) -> Window:
    return Window(start=datetime.fromtimestamp(start_s, UTC), end=datetime.fromtimestamp(end_s, UTC))


def _targets(service: str, edges: Sequence[Edge]) -> tuple[Target, ...]:
    near: dict[str, list[str]] = {}
    for edge in edges:
        near.setdefault(edge.caller, []).append(edge.callee)
        near.setdefault(edge.callee, []).append(edge.caller)
    names = {name: i for i, name in enumerate(sorted({service, *near}))}
    by_index = {names[a]: [names[b] for b in sorted(others)] for a, others in near.items()}
    hops = _hops(by_index, [names[service]])
    label = {i: name for name, i in names.items()}
    return tuple(Target(service=label[i], hops=h) for i, h in sorted(hops.items(), key=lambda e: (e[1], e[0])))
