"""kill -9 of a worker at every point that matters: another worker ends the incident, and nothing runs twice."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from app.jobs import register_jobs, run_worker
from app.runner import Runner
from app.settings import Settings
from app.wiring import assembled
from collectors.base import (
    Check,
    Collector,
    LogsRead,
    Scope,
    Series,
    SeriesRef,
    Telemetry,
    TraceRead,
    Window,
)
from graph import flow
from graph.deps import Claim, ClaimedStep, Deps, Ledger, Patience, SnapshotKey, Snapshots, StepKey
from graph.state import State, StepResult
from tests.conftest import Worlds

POINTS = [
    *(f"node:{name}" for name in flow.NODES),
    "collected:1",  # one collector's telemetry is stored, the others are still reading
    "claimed:1",  # between claim and call
    "claimed:2",
    "called:1",  # between call and result
    "called:2",
    "finished:1",  # between steps
    "finished:2",  # after the last step, before verification
]


@pytest.mark.parametrize("point", POINTS)
def test_killed_there_another_worker_ends_it(worlds: Worlds, point: str) -> None:
    world = worlds("bad-deploy", speed=240.0)
    client = world.start_api()
    doomed = world.start(run_dying_worker, world.database_url, point, str(world.folder / "reads"))
    incident = world.send_alert(client).json()["incident_id"]
    dies_before_decision = point.startswith(("node:", "collected")) and not point.endswith(
        ("RemediationDecision", "ActionExecutor")
    )
    if dies_before_decision:
        doomed.join(30)
        world.start(run_dying_worker, world.database_url, "", str(world.folder / "reads"))
    world.await_status(client, incident, "awaiting_decision")
    assert world.decide(client, incident, "1").status_code == 202
    if not dies_before_decision:
        doomed.join(60)
        world.start(run_dying_worker, world.database_url, "", str(world.folder / "reads"))
    world.await_status(client, incident, "resolved")

    assert doomed.exitcode == -signal.SIGKILL, "the worker was to die there"
    assert [c["operation"] for c in world.changes()] == ["UpdateService"], "the rollback is one call"
    steps = client.get(f"/incidents/{incident}/executions").json()["steps"]
    assert [s["result"]["status"] for s in steps] == ["succeeded", "succeeded"]
    lines = (world.folder / "reads").read_text().split()
    for source in ("datadog", "aws"):
        after = lines[lines.index(f"stored:{source}") + 1 :]
        assert f"read:{source}" not in after, f"{source} had finished and was read again"


def run_dying_worker(database_url: str, point: str, reads: str) -> None:
    """A worker that kills itself with SIGKILL at a point; with no point, a worker."""

    async def until_told() -> None:
        stop = asyncio.Event()
        settings = Settings()
        async with assembled(settings, database_url) as product:
            deps = _mortal(product.deps, point, Path(reads))
            runner = Runner(product.pool, deps, _mortal_nodes(point))
            register_jobs(product, runner)
            await run_worker(product, runner, stop)

    asyncio.run(until_told())


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _mortal_nodes(point: str) -> Mapping[str, flow.Node]:
    nodes = dict(flow.NODES)
    kind, _, name = point.partition(":")
    if kind == "node":
        node = nodes[name]

        async def dies_at_its_end(deps: Deps, state: State) -> dict[str, Any]:
            await node(deps, state)
            _die()
            raise AssertionError

        nodes[name] = dies_at_its_end
    return nodes


def _mortal(deps: Deps, point: str, reads: Path) -> Deps:
    return replace(
        deps,
        collectors=[CountingCollector(c, reads) for c in deps.collectors],
        snapshots=MortalSnapshots(deps.snapshots, point, reads),
        ledger=MortalLedger(deps.ledger, point),
        patience=Patience(poll_s=20, hold_s=60, worse_after_s=60, call_s=4),
    )


class CountingCollector:
    """Writes down each reading."""

    def __init__(self, inner: Collector, reads: Path) -> None:
        self.inner, self.log = inner, reads
        self.name, self.timeout_s = inner.name, inner.timeout_s

    async def collect(self, scope: Scope) -> Telemetry:
        """Reads, and says so."""
        telemetry = await self.inner.collect(scope)
        _write(self.log, f"read:{self.name}")
        return telemetry

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """As the real one."""
        return await self.inner.measure(refs, window)

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """As the real one."""
        return self.inner.reads

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """As the real one."""
        return await self.inner.read(question, scope)

    async def check(self) -> list[Check]:
        """As the real one."""
        return await self.inner.check()

    async def aclose(self) -> None:
        """As the real one."""
        await self.inner.aclose()


class MortalSnapshots:
    """Dies after a number of snapshots were stored."""

    def __init__(self, inner: Snapshots, point: str, reads: Path) -> None:
        self.inner, self.point, self.reads, self.stored = inner, point, reads, 0

    async def get(self, key: SnapshotKey) -> tuple[Telemetry, str] | None:
        """As the real one."""
        return await self.inner.get(key)

    async def put(self, key: SnapshotKey, telemetry: Telemetry) -> str:
        """Store, say so, perhaps die."""
        digest = await self.inner.put(key, telemetry)
        self.stored += 1
        _write(self.reads, f"stored:{telemetry.source}")
        if self.point == f"collected:{self.stored}":
            _die()
        return digest


class MortalLedger:
    """Dies after a claim, before a result is stored, or after it."""

    def __init__(self, inner: Ledger, point: str) -> None:
        self.inner, self.point, self.claims, self.results = inner, point, 0, 0

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """As the real one."""
        return await self.inner.find(key)

    async def claim(self, claim: Claim) -> ClaimedStep:
        """Claim, perhaps die."""
        claimed = await self.inner.claim(claim)
        self.claims += 1
        if self.point == f"claimed:{self.claims}":
            _die()
        return claimed

    async def refuse(self, claim: Claim, result: StepResult) -> StepResult:
        """As the real one."""
        return await self.inner.refuse(claim, result)

    async def retake(self, step: ClaimedStep) -> bool:
        """As the real one."""
        return await self.inner.retake(step)

    async def finish(self, step_id: str, result: StepResult) -> None:
        """Perhaps die, finish, perhaps die."""
        self.results += 1
        if self.point == f"called:{self.results}":
            _die()
        await self.inner.finish(step_id, result)
        if self.point == f"finished:{self.results}":
            _die()


def _write(file: Path, line: str) -> None:
    with file.open("a") as out:
        out.write(line + "\n")
        out.flush()
        os.fsync(out.fileno())
