"""ContextCollector's step against its slowest source, and what the sources of a real incident cost.

The first is measured with sources whose answers take a known time; so little is left for the machine to add that a
ratio near one says the sources are read side by side. The second reads the simulated shop on Black Friday, through the
Datadog and AWS collectors, and counts what they asked and received.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

import httpx
from pydantic import JsonValue

from benchmarks.results import Table, duration, ratio, summary
from benchmarks.setting import Setting, await_worker, query
from tests.conftest import World
from tests.graph.sources import collect, deps
from tests.graph.vendors import Vendor, opened, run_vendors
from tests.processes import answers, free_port, kill, spawn, wait_until

LATENCIES_S = (0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.6, 2.0)
RUNS = 10
SCENARIO = "black-friday"
SECONDS = 60.0


@dataclass(frozen=True)
class Step:
    """One run of the step; seconds."""

    whole: float
    slowest: float  # source, by its own cost
    sum_of_all: float


@dataclass(frozen=True)
class Cost:
    """Of one source, in one incident."""

    source: str
    calls: int
    received_bytes: int
    took_s: float
    gaps: int


def measure(setting: Setting) -> list[Table]:
    """Time first, while nothing else runs on the machine."""
    return [_times(asyncio.run(_steps(setting))), _costs(_incident(setting))]


# --- time ---


async def _steps(setting: Setting) -> list[Step]:
    port, folder = free_port(), setting.subfolder("collection")
    served = spawn(run_vendors, folder / "vendors.log", {}, port)
    url = f"http://127.0.0.1:{port}"
    try:
        await asyncio.to_thread(wait_until, lambda: answers(f"{url}/good/0?start=0&end=60"), "the sources")
        found = []
        for number in range(RUNS + 1):
            setting.tell(f"collection: step {number} of {RUNS}")
            found.append(await _step(url))
        return found[1:]  # the first one imports what the others have
    finally:
        kill(served)


async def _step(url: str) -> Step:
    async with opened([Vendor(f"source-{s:g}", url, f"good/{s:g}") for s in LATENCIES_S]) as sources:
        made = deps(sources)
        started = time.perf_counter()
        await collect(made)
        whole = time.perf_counter() - started
        took_s = [t.cost.took_ms / 1000 for t, _ in made.snapshots.stored.values()]  # type: ignore[attr-defined]
    return Step(whole, max(took_s), sum(took_s))


def _times(steps: Sequence[Step]) -> Table:
    reference = median(step.slowest for step in steps)
    columns = {
        "slowest source (reference)": [step.slowest for step in steps],
        "the whole step, ranking included": [step.whole for step in steps],
        "one source after the other would be": [step.sum_of_all for step in steps],
    }
    worst = max(step.whole / step.slowest for step in steps)
    return Table(
        f"Collection time, {len(LATENCIES_S)} sources at once",
        ("", "median", "p95", "n", "of the slowest"),
        [(name, *summary(values), ratio(median(values), reference)) for name, values in columns.items()],
        f"Sources on 127.0.0.1 that answer after {', '.join(f'{s:g}' for s in LATENCIES_S)} s, read through the"
        f" collectors' own HTTP client and budgets. Worst single run: {worst:.2f} x its slowest source.",
    )


# --- cost ---


def _incident(setting: Setting) -> list[Cost]:
    setting.tell(f"collection: {SCENARIO}")
    with ExitStack() as stack:
        world = World(SCENARIO, setting.database(), setting.subfolder("collection"), speed=1.0, stack=stack)
        world.start_shop()
        client = world.start_api()
        world.start_worker()
        await_worker(world.database_url)
        return _analysed(world, client)


def _analysed(world: World, client: httpx.Client) -> list[Cost]:
    incident = world.send_alert(client).raise_for_status().json()["incident_id"]
    world.await_status(client, incident, "awaiting_decision", seconds=SECONDS)
    rows = query(
        world.database_url,
        "select data from event where incident_id = %s and kind = 'collector_finished' order by key",
        incident,
    )
    return [_cost(data) for (data,) in rows]


def _cost(data: dict[str, JsonValue]) -> Cost:
    gaps = data["gaps"]
    return Cost(
        source=str(data["source"]),
        calls=int(str(data["calls"])),
        received_bytes=int(str(data["received_bytes"])),
        took_s=float(str(data["took_ms"])) / 1000,
        gaps=len(gaps) if isinstance(gaps, list) else 0,
    )


def _costs(costs: Sequence[Cost]) -> Table:
    return Table(
        f"What reading the sources costs, {SCENARIO}",
        ("source", "requests", "received", "took", "gaps"),
        [
            (c.source, f"{c.calls:,}", f"{c.received_bytes / 1000:,.0f} kB", duration(c.took_s), str(c.gaps))
            for c in costs
        ],
        "One incident on the simulated shop; a source may be read twice, the second time further back. Bytes are"
        " counted once unpacked.",
    )
