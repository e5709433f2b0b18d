"""An office where decisions are made: the real graph, ledger and Postgres, with dials as the outside world."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import procrastinate

from app.clock import SystemClock
from app.db import Pool, create_pool
from app.decision_checks import Verdict
from app.decisions import Outcome, decide
from app.desk import Desk, UseCaseError
from app.incidents import open_by_hand
from app.queue import create_queue
from app.runner import Runner
from app.security import Caller
from app.settings import Settings
from app.store import incidents
from app.store.facts import PostgresFacts
from app.store.ledger import PostgresLedger, PostgresSnapshots
from executors.base import AnyOperation
from executors.rehearsal import Rehearsed
from graph.catalogue import Catalogue, Service
from graph.deps import Deps
from graph.llms.scripted import ScriptedAnalyst
from graph.policy import Policy
from graph.state import ActionOption, Alert, Door, PlanStep, RootCause
from tests.app.dials import Dials, ForceDial, TurnDial

KIM, ANN, BOB = Caller("kim", "responder"), Caller("ann", "admin"), Caller("bob", "admin")
VERA = Caller("vera", "viewer")
CATALOGUE = Catalogue(
    services={"shop": Service(owner="storefront", slo_percent=99.0), "db": Service(owner="data"), "cache": Service()}
)
CAUSE = RootCause(component="shop", category="unknown", title="t", mechanism="m", confidence="low")


class RehearsedTurn(Rehearsed, TurnDial):
    """As ``executors.rehearsal`` mirrors it."""

    name = "rehearse_dial"

    def __init__(self, dials: Dials, resources: Any) -> None:
        TurnDial.__init__(self, dials, resources)


def option(title: str, *steps: tuple[str, str, int]) -> ActionOption:
    """Steps of operation, service and setting."""
    planned = tuple(PlanStep(operation=name, params={"service": service, "to": to}) for name, service, to in steps)
    risk = "high" if any(name == "force_dial" for name, _, _ in steps) else "low"
    return ActionOption(title=title, description="", risk=risk, minutes=1, steps=planned)


OPTIONS = (
    option("Turn two", ("turn_dial", "shop", 5), ("turn_dial", "db", 6)),
    option("Use force", ("force_dial", "shop", 9)),
    option("Rehearse", ("rehearse_dial", "cache", 7)),
)


@dataclass
class Office:
    """The product without web and sources. Frozen parts are replaced, not patched."""

    pool: Pool
    queue: procrastinate.App
    desk: Desk
    deps: Deps
    dials: Dials

    @property
    def runner(self) -> Runner:
        """Moves incidents on, as a worker's does."""
        return Runner(self.pool, self.deps)

    def under(self, policy: Policy) -> "Office":
        """The same office with another policy, as after a restart."""
        facts = PostgresFacts(self.pool, self.desk.catalogue, policy, self.desk.clock)
        ledger = PostgresLedger(self.pool, policy)
        return replace(
            self,
            desk=replace(self.desk, policy=policy),
            deps=replace(self.deps, policy=policy, facts=facts, ledger=ledger),
        )

    def without(self, operation: str) -> "Office":
        """The same office where an operation is not turned on."""
        left = {name: one for name, one in self.desk.operations.items() if name != operation}
        return replace(self, desk=replace(self.desk, operations=left), deps=replace(self.deps, operations=left))

    async def open(self, key: str = "c", *, by: Caller = KIM) -> str:
        """A new incident; nothing is known of it yet."""
        alert = Alert(
            source="t", title="t", service="shop", occurred_at=datetime.now(UTC), fingerprint=key, cycle_key=key
        )
        opened = await open_by_hand(self.desk, alert, by, None)
        assert opened.incident_id
        return opened.incident_id

    async def planned(self, key: str = "c", options: Sequence[ActionOption] = OPTIONS) -> str:
        """An incident whose plan waits for a decision."""
        analyst = ScriptedAnalyst(CAUSE, options)
        incident = await self.open(key)
        await Runner(self.pool, replace(self.deps, analyst=analyst)).advance(incident)
        assert (await self.get(incident))["status"] == "awaiting_decision"
        return incident

    async def get(self, incident: str) -> dict[str, Any]:
        """Its row."""
        async with self.pool.connection() as connection:
            row = await incidents.get(connection, incident)
        assert row is not None
        return row

    async def revision(self, incident: str) -> str:
        """Of the plan that waits."""
        revision = (await self.get(incident))["plan_revision"]
        assert isinstance(revision, str)
        return revision

    async def decide(
        self, incident: str, choice: str, caller: Caller = KIM, via: Door = "rest", **more: Any
    ) -> Outcome:
        """On the plan that waits, unless another is named."""
        revision = more.pop("plan_revision", None) or await self.revision(incident)
        verdict = Verdict.model_validate({"plan_revision": revision, "choice": choice, **more})
        return await decide(self.desk, incident, verdict, caller, via)

    async def refused(self, incident: str, choice: str, caller: Caller = KIM, **more: Any) -> tuple[str, str]:
        """Reason and text; an AssertionError if it was not refused."""
        try:
            outcome = await self.decide(incident, choice, caller, **more)
        except UseCaseError as error:
            return error.reason, str(error)
        raise AssertionError(f"not refused: {outcome}")

    async def sql(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """Rows, where there are any."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(statement.encode(), values or None, prepare=False)
            return await cursor.fetchall() if cursor.description else []

    async def audited(self, kind: str, incident: str | None = None) -> list[dict[str, Any]]:
        """Bodies with their actor, oldest first."""
        rows = await self.sql(
            "select actor, incident_id, body from audit where kind = %s and (%s::text is null or incident_id = %s)"
            " order by seq",
            kind,
            incident,
            incident,
        )
        return [{"actor": r["actor"], "incident_id": r["incident_id"], **_read(r["body"])} for r in rows]


def _read(body: Any) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(body) if isinstance(body, str) else body
    return read


@asynccontextmanager
async def offices(database_url: str, policy: Policy | None = None) -> AsyncIterator[Office]:
    """One office at a database."""
    pool, queue, clock = create_pool(database_url), create_queue(database_url), SystemClock()
    dials = Dials({"shop": 1, "db": 2, "cache": 3})
    resources = CATALOGUE.resources()
    made: list[AnyOperation] = [kind(dials, resources) for kind in (TurnDial, ForceDial, RehearsedTurn)]
    operations = {operation.name: operation for operation in made}
    async with pool, queue.open_async():
        desk = Desk(pool, queue, CATALOGUE, clock, Settings(), operations=operations)
        deps = Deps(
            catalogue=CATALOGUE,
            collectors=(),
            snapshots=PostgresSnapshots(pool),
            analyst=ScriptedAnalyst(CAUSE, OPTIONS),
            operations=operations,
            ledger=PostgresLedger(pool),
            clock=clock,
        )
        yield Office(pool, queue, desk, deps, dials).under(policy or Policy())
