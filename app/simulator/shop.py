"""The shop itself: its state, advanced in fixed ticks of simulated time, and what it remembers.

It does not run by itself: whoever asks catches it up with the clock first (:meth:`Shop.live`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from random import Random
from threading import RLock
from typing import Protocol

from app.simulator.autoscaling import AutoScaling
from app.simulator.balancer import Balancer
from app.simulator.cluster import Cluster, EcsService
from app.simulator.flags import Flags
from app.simulator.loads import Load, loads
from app.simulator.metrics import Metrics, metrics
from app.simulator.payment import Flow, Payments
from app.simulator.requests import Sample, sample
from app.simulator.scenarios import Scenario
from app.simulator.topology import SERVICES
from app.simulator.world import World

TICK_S = 10.0
SUBSTEP_S = 2.0
HISTORY_S = 3600.0  # before the onset, kept for ever together with
AFTERMATH_S = 900.0  # as much after it
RING_TICKS = int(3 * 3600 / TICK_S)
SETTLING_S = 300.0  # before the history begins; the model finds its steady state
LONGEST_CATCH_UP = 2 * RING_TICKS
FARTHEST_S = 7 * 86400.0


class Clock(Protocol):
    """Where the shop's time comes from."""

    def now(self) -> datetime:
        """UTC."""


@dataclass(slots=True)
class Host:
    """A running task, as telemetry names it."""

    name: str
    version: str
    healthy: bool


@dataclass(slots=True)
class Tick:
    """The shop during ``[at, at + TICK_S)``, epoch seconds."""

    index: int
    at: float
    loads: dict[str, Load]
    flow: Flow
    hosts: dict[str, list[Host]]
    other_connections: float  # to orders-db, of all clients but payment-service
    metrics: Metrics = field(default_factory=dict)
    sample: Sample | None = None


class Shop:
    """A shop that lives through ``scenario`` by ``clock``. Safe for use by many threads.

    Raises ValueError if the clock is more than a week past the scenario's onset.
    """

    def __init__(self, scenario: Scenario, clock: Clock, seed: int = 1) -> None:
        self.scenario, self.clock, self.seed = scenario, clock, seed
        self.onset = scenario.occurred_at.timestamp()
        self._lock = RLock()
        self._begin = self.onset - HISTORY_S - SETTLING_S
        if clock.now().timestamp() - self.onset > FARTHEST_S:
            raise ValueError(
                f"the clock says {clock.now():%Y-%m-%d %H:%M}, but this story is of "
                f"{scenario.occurred_at:%Y-%m-%d %H:%M}: give a clock with an origin near that"
            )
        self.balancer = Balancer()
        self.cluster = Cluster(self._random(0), self._begin, scenario.defects)
        self.payments = Payments(warm_level=1.0)
        self.world = World(
            self.balancer,
            self.cluster,
            self.payments,
            AutoScaling(self.cluster, self._begin),
            Flags.found(self._begin),
            scenario.defects,
        )
        self._events = sorted(scenario.events, key=lambda event: event.at)
        self._ticks: dict[int, Tick] = {}  # ascending
        self._next = 0
        self._warm_pools()

    @contextmanager
    def live(self) -> Iterator[float]:
        """The shop at this moment, caught up and locked; yields now as epoch seconds."""
        with self._lock:
            now = self.clock.now().timestamp()
            self._catch_up(now)
            yield now

    def ticks(self, start: float, end: float) -> list[Tick]:
        """Remembered ticks that begin in ``[start, end)``; call it inside :meth:`live`."""
        return [tick for tick in self._ticks.values() if start <= tick.at < end]

    def latest(self, count: int) -> list[Tick]:
        """The last few ticks, oldest first; call it inside :meth:`live`."""
        newest = list(islice(reversed(self._ticks.values()), count))
        return newest[::-1]

    def sampled(self, tick: Tick) -> Sample:
        """Logs and spans of a tick: made when first asked for, the same every time."""
        if tick.sample is None:
            tick.sample = sample(tick, TICK_S, self.scenario.defects, self._random(2 * tick.index + 1))
        return tick.sample

    # --- time -------------------------------------------------------------------------------------------------

    def _catch_up(self, now: float) -> None:
        due = int((now - self._begin) / TICK_S)
        if due - self._next > LONGEST_CATCH_UP:
            story_ends = int((self.onset + AFTERMATH_S - self._begin) / TICK_S)
            self._run_until(max(self._next + RING_TICKS // 4, story_ends))
            self._next = max(due - RING_TICKS, self._next)  # it has settled: nothing happens in the hours left out
        self._run_until(due)

    def _run_until(self, index: int) -> None:
        while self._next < index:
            tick = self._advance(self._next, self._begin + self._next * TICK_S)
            if tick.at >= self.onset - HISTORY_S:
                self._ticks[tick.index] = tick
            self._forget(tick.index - RING_TICKS)
            self._next += 1

    def _forget(self, before: int) -> None:
        """Drop what is older than the ring, save the hour before the onset and what followed."""
        for index in list(islice(self._ticks, 2 + int((HISTORY_S + AFTERMATH_S) / TICK_S))):
            if index >= before:
                return
            if self._ticks[index].at >= self.onset + AFTERMATH_S:
                del self._ticks[index]

    def _advance(self, index: int, at: float) -> Tick:
        while self._events and self._events[0].at.timestamp() <= at:
            self._events.pop(0).apply(self.world, at)
        self.cluster.step(at)
        flow = self._pay(at)
        self._report_health()
        load = loads(self.world, flow, lambda service: self._surge(service, at), at)
        self.world.autoscaling.step(at, {name: one.cpu_percent for name, one in load.items()})
        hosts = {name: _hosts(service, at) for name, service in self.cluster.services.items()}
        tick = Tick(index, at, load, flow, hosts, self.world.connections(at))
        tick.metrics = metrics(tick, self._random(2 * index + 2))
        return tick

    def _surge(self, service: str, at: float) -> float:
        surging = self.scenario.surging
        return self.scenario.surge(at - self.onset) if not surging or service in surging else 0.0

    def _pay(self, at: float) -> Flow:
        spec = SERVICES["payment-service"]
        kept = self.balancer.kept(("web-gateway", "checkout", "payment-service"))
        arrivals = spec.requests_per_s * (1.0 + (spec.surge - 1.0) * self._surge(spec.name, at)) * kept
        running = [task.id for task in self.cluster.services[spec.name].running(at)]
        met = self.world.conditions(at)
        for _ in range(int(TICK_S / SUBSTEP_S)):
            flow = self.payments.step(SUBSTEP_S, arrivals, running, met)
        return flow

    def _report_health(self) -> None:
        for task in self.cluster.services["payment-service"].tasks:
            pool = self.payments.pools.get(task.id)
            task.unhealthy = pool is not None and pool.wedged

    def _random(self, purpose: int) -> Random:
        return Random(self.seed * 1_000_003 + purpose)  # noqa: S311 - noise, not secrets

    def _warm_pools(self) -> None:
        for task in self.cluster.services["payment-service"].tasks:
            self.payments.found(task.id)


def _hosts(service: EcsService, at: float) -> list[Host]:
    return [Host(t.host, t.definition.version, not t.unhealthy) for t in service.running(at)]
