"""The product in a process that can be made to die, by SIGKILL, at any boundary between it and the world.

A boundary is crossed before and after everything that others can see: each transaction of the database, each call of
an operation, a collector, the ledger; and at the end of each node. Nobody lists them: they are found by what the
process does. A label names the code that crosses, what it crosses, and the how manieth time.
"""

import asyncio
import inspect
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from psycopg import AsyncConnection, AsyncPipeline, AsyncTransaction
from psycopg.rows import DictRow

from app import decisions, incidents
from app.db import Pool, Row, create_pool
from app.decision_checks import Verdict
from app.desk import Conflict
from app.jobs import register_jobs, run_worker
from app.runner import Runner
from app.security import Caller
from app.settings import Settings
from app.simulator.scenarios import SCENARIOS
from app.store import incidents as store
from app.store.facts import PostgresFacts
from app.store.ledger import PostgresLedger, PostgresSnapshots
from app.wiring import Product, assembled
from graph import flow
from graph.deps import Deps, Patience
from graph.llms.base import Analyst
from graph.llms.scripted import ScriptedAnalyst
from graph.state import ActionOption, Alert, Choice, Execution, RootCause, State

PATIENCE = Patience(poll_s=60, hold_s=60, worse_after_s=60, busy_s=60, call_s=0.5)
KIM = Caller(name="kim", role="admin")
ENDED = ("resolved", "closed", "needs_attention")
OURS = ("app.", "graph.", "langgraph.checkpoint")


class Crossings:
    """Counts what is crossed, writes it down, and dies where it is told to."""

    def __init__(self, die_at: str, log: Path) -> None:
        self.die_at, self.seen = die_at, Counter[str]()
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def __call__(self, name: str) -> None:
        """One boundary."""
        self.seen[name] += 1
        label = f"{name} #{self.seen[name]}"
        os.write(self.log, f"{label}\n".encode())
        if label == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Port:
    """Stands before a port of the product; crosses before and after each of its coroutines."""

    def __init__(self, inner: object, name: str, crossings: Crossings) -> None:
        self._inner, self._name, self._crossings = inner, name, crossings

    def __getattr__(self, attribute: str) -> Any:
        """The port's own, or a coroutine around it."""
        found = getattr(self._inner, attribute)
        if not inspect.iscoroutinefunction(found):
            return found
        name = f"{self._name}.{attribute}"

        async def crossed(*arguments: Any, **named: Any) -> Any:
            self._crossings(f"{name}: before")
            result = await found(*arguments, **named)
            self._crossings(f"{name}: after")
            return result

        return crossed


class MortalConnection(AsyncConnection[DictRow]):
    """Crosses before and after each commit."""

    crossings: ClassVar[Crossings]

    @asynccontextmanager
    async def transaction(self, *arguments: Any, **named: Any) -> AsyncIterator[AsyncTransaction]:
        """As the real one."""
        who = _caller()
        async with super().transaction(*arguments, **named) as transaction:
            yield transaction
            self.crossings(f"{who}: before its commit")
        self.crossings(f"{who}: after its commit")

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[AsyncPipeline]:
        """As the real one; LangGraph's checkpoints are written so."""
        who = _caller()
        async with super().pipeline() as pipeline:
            yield pipeline
            self.crossings(f"{who}: before its commit")
        self.crossings(f"{who}: after its commit")


def _caller() -> str:
    """The function of the product that the connection works for."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(OURS) and module != "app.db":
            return f"{module}.{frame.f_code.co_qualname}"
        frame = frame.f_back
    return "?"


@asynccontextmanager
async def mortal(database_url: str, crossings: Crossings, analyst: Analyst) -> AsyncIterator[tuple[Product, Runner]]:
    """The product with a boundary before each port, and what moves its incidents."""
    connection_class = type("Connection", (MortalConnection,), {"crossings": crossings})
    async with (
        assembled(Settings(), database_url) as product,
        create_pool(database_url, connection_class=connection_class) as pool,
    ):
        deps = _deps(product, pool, crossings, analyst)
        desk = replace(product.desk, pool=pool, operations=deps.operations)
        yield replace(product, pool=pool, desk=desk, deps=deps), Runner(pool, deps, _nodes(crossings))


def _deps(product: Product, pool: Pool, crossings: Crossings, analyst: Analyst) -> Deps:
    def port(inner: object, name: str) -> Any:
        return Port(inner, name, crossings)

    deps = product.deps
    return replace(
        deps,
        analyst=analyst,
        collectors=[port(c, f"collector {c.name}") for c in deps.collectors],
        operations={name: port(o, f"operation {name}") for name, o in deps.operations.items()},
        ledger=port(PostgresLedger(pool), "ledger"),
        snapshots=port(PostgresSnapshots(pool), "snapshots"),
        facts=PostgresFacts(pool, deps.catalogue, deps.policy, deps.clock),
        patience=PATIENCE,
    )


def _nodes(crossings: Crossings) -> Mapping[str, flow.Node]:
    def ending(name: str, node: flow.Node) -> flow.Node:
        async def crossed(deps: Deps, state: State) -> dict[str, Any]:
            update = await node(deps, state)
            crossings(f"node {name}: after")
            return update

        return crossed

    return {name: ending(name, node) for name, node in flow.NODES.items()}


# --- what the processes do -----------------------------------------------------------------------------------


def analyse(database_url: str, scenario: str, log: str, option: str) -> None:
    """Open an incident of the scenario, bring it to its decision with this one option, and end."""
    cause = RootCause(
        title="Scripted", component=None, category="unknown", mechanism="Scripted.", confidence="inconclusive"
    )
    analyst = ScriptedAnalyst(cause, [ActionOption.model_validate_json(option)])

    async def until_decision(product: Product) -> None:
        outcome = await incidents.open_by_hand(product.desk, _alert(scenario), KIM, None)
        assert outcome.incident_id is not None
        while (await _row(product, outcome.incident_id))["status"] not in ("awaiting_decision", *ENDED):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # no event tells it: it is another process that works as a rule

    asyncio.run(_worked(database_url, Crossings("", Path(log)), analyst, until_decision))


def act(database_url: str, incident: str, die_at: str, log: str) -> None:
    """Decide on option 1, carry it out, undo it where that can be, and end; what was decided stays decided."""

    async def until_nothing_is_left(product: Product) -> None:
        while (row := await _row(product, incident))["status"] not in ENDED:
            if row["status"] == "awaiting_decision" and not await _decided_next(product, row):
                return
            await asyncio.sleep(0.05)

    asyncio.run(_worked(database_url, Crossings(die_at, Path(log)), ScriptedAnalyst(), until_nothing_is_left))


async def _worked(
    database_url: str, crossings: Crossings, analyst: Analyst, story: Callable[[Product], Awaitable[None]]
) -> None:
    """A worker, until the story has ended."""
    stop = asyncio.Event()
    async with mortal(database_url, crossings, analyst) as (product, runner):
        register_jobs(product, runner)
        working = asyncio.create_task(run_worker(product, runner, stop))
        try:
            await story(product)
        finally:
            stop.set()
            await working


async def _decided_next(product: Product, row: Row) -> bool:
    """Decide what the story says is next; False where it has ended."""
    async with product.pool.connection() as connection:
        made = await store.decisions(connection, row["id"])
        executed = [Execution.model_validate(e["body"]) for e in await store.executions(connection, row["id"])]
    if any(d["plan_revision"] == row["plan_revision"] for d in made):
        return True  # it is being carried out
    choices = [d["choice"] for d in made]
    changed = any(r.made or r.status == "unknown" for e in executed for r in e.results)
    reversible = any(product.deps.operations[r.operation].reversible for e in executed for r in e.results)
    choice: Choice | None = "1" if "1" not in choices else None
    if choice is None and changed and reversible and "undo" not in choices and not any(e.undone for e in executed):
        choice = "undo"
    if choice is None:
        return False
    with suppress(Conflict):  # the process that died had decided
        verdict = Verdict(plan_revision=row["plan_revision"], choice=choice)
        await decisions.decide(product.desk, row["id"], verdict, KIM)
    return True


async def _row(product: Product, incident: str) -> Row:
    async with product.pool.connection() as connection:
        row = await store.get(connection, incident)
    assert row is not None
    return row


def _alert(scenario: str) -> Alert:
    told = SCENARIOS[scenario]
    return Alert(
        source="rest",
        title=told.monitor.name,
        service=told.service,
        occurred_at=told.occurred_at,
        fingerprint=scenario,
        cycle_key=scenario,
    )
