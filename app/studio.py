"""The graph for LangGraph Studio (``langgraph dev``): the same nodes on the same sources, but nothing is written.

Studio brings its own checkpoints. What the product keeps in Postgres is kept in memory here, and every operation
is rehearsed, whatever ``AUTOPILOT_EXECUTORS`` says.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import sha256

from pydantic import JsonValue

from app.catalogue import load
from app.clock import parse_clock
from app.settings import Settings
from app.wiring import create_analyst, create_collectors, create_executors, operations_by_name, windows
from collectors.base import Telemetry
from graph import flow
from graph.deps import ClaimedStep, Deps
from graph.state import StepResult

Key = tuple[str, str, int, bool]


class MemorySnapshots:
    """``graph.deps.Snapshots`` for one run."""

    def __init__(self) -> None:
        self.stored: dict[tuple[str, int, str], tuple[Telemetry, str]] = {}

    async def get(self, incident_id: str, round_: int, source: str) -> tuple[Telemetry, str] | None:
        """See graph.deps.Snapshots."""
        return self.stored.get((incident_id, round_, source))

    async def put(self, incident_id: str, round_: int, telemetry: Telemetry) -> str:
        """See graph.deps.Snapshots."""
        digest = sha256(telemetry.model_dump_json().encode()).hexdigest()
        return self.stored.setdefault((incident_id, round_, telemetry.source), (telemetry, digest))[1]


class MemoryLedger:
    """``graph.deps.Ledger`` for rehearsals: nobody else can hold a resource."""

    def __init__(self) -> None:
        self.steps: dict[Key, ClaimedStep] = {}

    async def find(
        self, incident_id: str, plan_revision: str, ordinal: int, *, undo: bool = False
    ) -> ClaimedStep | None:
        """See graph.deps.Ledger."""
        return self.steps.get((incident_id, plan_revision, ordinal, undo))

    async def claim(
        self,
        incident_id: str,
        plan_revision: str,
        ordinal: int,
        operation: str,
        params: Mapping[str, JsonValue],
        resource: str,
        before: Mapping[str, JsonValue],
        at: datetime,
        *,
        undo: bool = False,
    ) -> ClaimedStep:
        """See graph.deps.Ledger."""
        step = ClaimedStep(f"{incident_id}:{plan_revision}:{ordinal}", True, 1, at, dict(before), None)
        self.steps[incident_id, plan_revision, ordinal, undo] = step
        return step

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
    catalogue = load(settings.config).catalogue()
    collectors = create_collectors(settings.collectors, clock)
    analyst, close_analyst = create_analyst()
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
            )
        )
    finally:
        await close_analyst()
        for collector in collectors:
            await collector.aclose()
