"""How busy services were when they were last looked at: requests a second, and how much of their capacity they used.

Read from the telemetry that ContextCollector stored for this round; nothing is asked of a source anew.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import mean, median

from collectors._jobs import on_thread
from collectors.base import Series, SeriesRef
from graph.deps import Deps, SnapshotKey
from graph.ranking.semantics import meaning_of, words
from graph.state import State

RECENT_S = 300.0  # the last minutes of the incident window: what is now, and enough points for a median
READ_S = 8.0  # wall time to load the telemetry; without it the blast radius has no numbers
_PER_TIME = frozenset({"second", "seconds", "s", "minute", "minutes", "min", "rps", "rpm", "qps"})
_COUNTED = frozenset({"sum", "count", "samplecount", "increase", "rate"})
_NOT_OF_LOAD = frozenset({"memory", "mem", "heap", "disk", "storage", "filesystem", "volume", "credit", "balance"})


@dataclass(frozen=True)
class Utilisation:
    """The busy share of a service's capacity, 0 to 1, and the metric that says so."""

    share: float
    basis: str


@dataclass(frozen=True)
class ObservedLoad:
    """``requests``: by service, all of one metric of one source, so that they can be compared with each other."""

    requests: Mapping[str, float] = field(default_factory=dict)
    utilisation: Mapping[str, Utilisation] = field(default_factory=dict)


async def observed_load(deps: Deps, state: State) -> ObservedLoad:
    """Of all services that were looked at; empty where nothing was stored, or it takes too long to load."""
    looked_at = state["evidence"].looked_at
    if looked_at is None:
        return ObservedLoad()
    return await on_thread(load_of, await stored_series(deps, state), looked_at.incident.end)


async def stored_series(deps: Deps, state: State) -> list[Series]:
    """All that ContextCollector stored for this round; none where it takes too long to load."""
    try:
        async with asyncio.timeout(READ_S):
            return [s for c in deps.collectors for s in await _series(deps, state, c.name)]
    except TimeoutError:
        return []


async def _series(deps: Deps, state: State, source: str) -> Sequence[Series]:
    """Of the second look, further back, where there was one that saw something."""
    for widened in (True, False):
        stored = await deps.snapshots.get(SnapshotKey(state["incident_id"], state.get("round", 1), source, widened))
        if stored and stored[0].series:
            return stored[0].series
    return ()


def load_of(series: Iterable[Series], until: datetime) -> ObservedLoad:
    """From raw series, of their last minutes before ``until``. Pure."""
    levels: dict[SeriesRef, list[float]] = defaultdict(list)
    for one in series:
        means = meaning_of(one.ref)
        if (means.limited or means.role == "requests") and (level := _level(one, until.timestamp())) is not None:
            levels[one.ref].append(level)
    return ObservedLoad(requests=_requests(levels), utilisation=_utilisations(levels, until))


def _level(series: Series, until: float) -> float | None:
    """The median of the last minutes; None if it has no points there."""
    points = zip(series.epoch_s, series.values, strict=True)
    recent = [value for at, value in points if until - RECENT_S <= at < until]
    return median(recent) if recent else None


def _requests(levels: Mapping[SeriesRef, Sequence[float]]) -> dict[str, float]:
    """Of the metric that is known of most services.

    A service may have it more than once, of each load balancer or zone: the largest is the one that holds all.
    """
    groups: dict[tuple[str, str, str, str], dict[str, float]] = defaultdict(dict)
    for ref, values in levels.items():
        if meaning_of(ref).role == "requests" and _adds_up(ref):
            of_service = groups[ref.source, ref.metric, ref.statistic, ref.unit]
            of_service[ref.component] = max(sum(values), of_service.get(ref.component, 0.0))
    return min(((-len(of), key, of) for key, of in groups.items()), default=(0, None, {}), key=lambda g: g[:2])[2]


def _adds_up(ref: SeriesRef) -> bool:
    """Counts and rates do; the average of a count says nothing of how many there were."""
    return ref.statistic.lower() in _COUNTED or bool((words(ref.metric) | words(ref.unit)) & _PER_TIME)


def _utilisations(levels: Mapping[SeriesRef, Sequence[float]], until: datetime) -> dict[str, Utilisation]:
    """Of processors, or of what requests hold while they are served: the fullest, for that one is full first.

    Where neither is measured, of another resource with a limit; memory and disks fill up whatever the load.
    """
    best: dict[str, tuple[tuple[int, float, str], Utilisation]] = {}
    for ref, values in levels.items():
        means, named = meaning_of(ref), words(ref.metric)
        if not means.limited or means.worse != "up" or means.role == "host" or named & _NOT_OF_LOAD:
            continue
        share = max(mean(values) / (100.0 if means.percent else 1.0), 0.0)
        rank = (0 if "cpu" in named or means.role == "pool" else 1, -share, ref.query)
        basis = f"{ref.metric} of {ref.source}, {100 * share:.0f} % at {until:%H:%M} UTC"
        if ref.component not in best or rank < best[ref.component][0]:
            best[ref.component] = rank, Utilisation(share, basis)
    return {service: found for service, (_, found) in best.items()}
