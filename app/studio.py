"""The graph for LangGraph Studio (``langgraph dev``): the same nodes on the same sources, but nothing is written.

Studio brings its own checkpoints. What the product keeps in Postgres is kept in memory here, and every operation
is rehearsed, whatever ``AUTOPILOT_EXECUTORS`` says.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from secrets import token_bytes

from app.catalogue import load
from app.clock import parse_clock
from app.settings import Settings
from app.wiring import (
    create_analyst,
    create_collectors,
    create_executors,
    create_masker,
    operations_by_name,
    windows,
)
from collectors.base import Telemetry
from graph import flow
from graph.deps import Claim, ClaimedStep, Deps, SnapshotKey, StepKey
from graph.state import StepResult


class MemorySnapshots:
    """``graph.deps.Snapshots`` for one run."""

    def __init__(self) -> None:
        self.stored: dict[SnapshotKey, tuple[Telemetry, str]] = {}

    async def get(self, key: SnapshotKey) -> tuple[Telemetry, str] | None:
        """See graph.deps.Snapshots."""
        return self.stored.get(key)

    async def put(self, key: SnapshotKey, telemetry: Telemetry) -> str:
        """See graph.deps.Snapshots."""
        digest = sha256(telemetry.model_dump_json().encode()).hexdigest()
        return self.stored.setdefault(key, (telemetry, digest))[1]


class MemoryLedger:
    """``graph.deps.Ledger`` for rehearsals: nobody else can hold a resource."""

    def __init__(self) -> None:
        self.steps: dict[StepKey, ClaimedStep] = {}

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """See graph.deps.Ledger."""
        return self.steps.get(key)

    async def claim(self, claim: Claim) -> ClaimedStep:
        """See graph.deps.Ledger."""
        self.steps[claim.key] = ClaimedStep(str(claim.key), True, 1, 0.0, claim.at, dict(claim.before), None)
        return self.steps[claim.key]

    async def refuse(self, claim: Claim, result: StepResult) -> StepResult:
        """See graph.deps.Ledger."""
        return result

    async def retake(self, step: ClaimedStep) -> bool:
        """See graph.deps.Ledger."""
        return True

    async def finish(self, step_id: str, result: StepResult) -> None:
        """See graph.deps.Ledger."""


@asynccontextmanager
async def graph() -> AsyncIterator[flow.Graph]:
    """What ``langgraph.json`` names."""
    settings = Settings()
    clock = parse_clock(settings.clock)
    file = load(settings.config)
    catalogue = file.catalogue()
    collectors = create_collectors(settings.collectors, file.declared(), clock)
    masker = create_masker(settings, file, token_bytes())
    analyst, close_analyst = create_analyst(masker, settings)
    try:
        yield flow.build(
            Deps(
                catalogue=catalogue,
                collectors=collectors,
                snapshots=MemorySnapshots(),
                analyst=analyst,
                operations=operations_by_name(create_executors(("rehearsal",), catalogue, clock)),
                ledger=MemoryLedger(),
                clock=clock,
                windows=windows(collectors),
                collect_s=settings.collect_s,
                masker=masker,
            )
        )
    finally:
        await close_analyst()
        for collector in collectors:
            await collector.aclose()
