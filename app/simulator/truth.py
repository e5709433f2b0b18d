"""Whether the shop's users are served well, told by its own state and not by its telemetry.

Requests that the load balancer turns away by a rule are counted apart: that is what shedding is meant to do, and those
that are let through are judged by themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from app.simulator.loads import Load
from app.simulator.shop import TICK_S, Tick
from app.simulator.topology import SERVICES

SLOW = 2.0  # times the ordinary 95th percentile
TOLERATED = 0.02  # share of requests served badly beyond what is ordinary
TURNED_AWAY = 0.005


@dataclass(frozen=True)
class Served:
    """One service's requests: shares from 0 to 1. Without any fault ``bad_ratio`` is ``ordinary_ratio``."""

    failed_ratio: float
    slow_ratio: float
    bad_ratio: float
    ordinary_ratio: float
    turned_away_ratio: float
    well: bool
    since: datetime | None

    @property
    def excess(self) -> float:
        """Share served badly that would not be without the fault."""
        return max(self.bad_ratio - self.ordinary_ratio, 0.0)


@dataclass(frozen=True)
class Truth:
    """The shop over a while. ``harm``: the services' shares of badly served requests, beyond the ordinary, summed."""

    start: datetime
    end: datetime
    well: bool
    harm: float
    services: dict[str, Served]


def truth(ticks: Sequence[Tick], start: float, end: float) -> Truth:
    """Means over the ticks in ``[start, end)``; ``since``: how long a service is as it was at the end."""
    chosen = [tick for tick in ticks if start <= tick.at < end] or list(ticks[-1:])
    services = {name: _served(name, chosen, [t for t in ticks if t.at < end]) for name in SERVICES if _serves(name)}
    return Truth(
        start=datetime.fromtimestamp(chosen[0].at, UTC),
        end=datetime.fromtimestamp(chosen[-1].at + TICK_S, UTC),
        well=all(served.well for served in services.values()),
        harm=sum(served.excess for served in services.values()),
        services=services,
    )


def _serves(name: str) -> bool:
    """It has tasks whose requests can fail; datastores are felt in them, and a nightly job has no users."""
    return bool(SERVICES[name].tasks) and name != "reporting"


def _served(name: str, chosen: Sequence[Tick], all_: Sequence[Tick]) -> Served:
    loads = [tick.loads[name] for tick in chosen]
    failed, slow = _mean(load.error_ratio for load in loads), _mean(_slow(name, load) for load in loads)
    bad, away = _mean(_bad(name, load) for load in loads), _mean(load.turned_away_ratio for load in loads)
    ordinary = SERVICES[name].error_ratio + _slow_share(1.0)
    well = bad - ordinary <= TOLERATED and away <= TURNED_AWAY
    return Served(failed, slow, bad, ordinary, away, well, _since(name, all_))


def _since(name: str, ticks: Sequence[Tick]) -> datetime | None:
    """When the state that the last tick is in began."""
    began: Tick | None = None
    for tick in reversed(ticks):
        if began is not None and _well(name, tick.loads[name]) != _well(name, began.loads[name]):
            break
        began = tick
    return datetime.fromtimestamp(began.at, UTC) if began else None


def _well(name: str, load: Load) -> bool:
    ordinary = SERVICES[name].error_ratio + _slow_share(1.0)
    return _bad(name, load) - ordinary <= TOLERATED and load.turned_away_ratio <= TURNED_AWAY


def _bad(name: str, load: Load) -> float:
    return 1.0 - (1.0 - min(load.error_ratio, 1.0)) * (1.0 - _slow(name, load))


def _slow(name: str, load: Load) -> float:
    return _slow_share(load.p95_ms / SERVICES[name].p95_ms)


def _slow_share(stretched: float) -> float:
    """Share that takes more than SLOW times the ordinary 95th percentile; durations have an exponential tail."""
    return float(0.05 ** (SLOW / stretched)) if stretched > 0 else 0.0


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
