"""The shop and the product in one process, on a clock on which waiting takes no time.

The shop is behind a real port, and the product's own collectors and executors talk to it; what they wait for is there
at once, for a sleep of theirs moves the clock that the shop lives by. So an hour of the shop takes some seconds.
"""

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import cast

import procrastinate
import uvicorn

from app.catalogue import load
from app.clock import VirtualClock
from app.db import Pool, create_pool
from app.decision_checks import Verdict
from app.decisions import decide
from app.desk import Desk
from app.incidents import open_by_hand
from app.queue import create_queue
from app.runner import Runner
from app.security import Caller
from app.settings import Settings
from app.simulator.scenarios import SCENARIOS
from app.simulator.server import create_app
from app.simulator.shop import Shop
from app.simulator.truth import Truth, truth
from app.store import incidents
from app.store.facts import PostgresFacts
from app.store.ledger import PostgresLedger, PostgresSnapshots
from app.wiring import create_collectors, create_executors, operations_by_name
from graph import flow
from graph.deps import Deps, NoPast, PastIncidents
from graph.llms.base import Analyst
from graph.llms.rules import RulesAnalyst
from graph.state import Alert, Choice, Execution, Plan, RootCause
from tests.conftest import ROOT

SEED = 7  # of the shop, so that the same remedy does the same every time
COLLECTORS = ("datadog", "aws")
EXECUTORS = ("ecs", "traffic", "rds", "elasticache", "appconfig")
ADA = Caller("ada", "admin")
_KEYS = {
    "DATADOG_API_KEY": "test",
    "DATADOG_APP_KEY": "test",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class SteppingClock:
    """Stands still while somebody works; a sleep moves it on and takes no time."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        """UTC."""
        return self.at

    async def sleep(self, seconds: float) -> None:
        """So much later, at once."""
        self.at += timedelta(seconds=max(seconds, 0.0))
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Floor:
    """One shop with one fault, and the product that looks after it."""

    fault: str
    shop: Shop
    clock: SteppingClock
    desk: Desk
    deps: Deps
    nodes: Mapping[str, flow.Node] = field(default_factory=lambda: flow.NODES)

    def alert(self, cycle: str) -> Alert:
        """As Datadog tells it; the same rule every time the fault comes back."""
        scenario = SCENARIOS[self.fault]
        rule = f"datadog:monitor:{scenario.monitor.id}"
        return Alert(
            source="datadog",
            rule=rule,
            title=scenario.monitor.name,
            text=scenario.monitor.message,
            service=scenario.service,
            occurred_at=scenario.occurred_at,
            fingerprint=rule,
            cycle_key=f"{rule}:{cycle}",
        )

    def before(self, floors: "Floors", past: PastIncidents) -> "Floor":
        """The same shop in front of another database, with what is remembered there."""
        pool = floors.pool
        ledger = PostgresLedger(pool, self.deps.policy)
        facts = PostgresFacts(pool, self.deps.catalogue, self.deps.policy, self.clock)
        deps = replace(self.deps, snapshots=PostgresSnapshots(pool), ledger=ledger, facts=facts, past=past)
        return replace(self, desk=replace(self.desk, pool=pool, queue=floors.queue), deps=deps)

    async def planned(self, cycle: str, analyst: Analyst | None = None) -> tuple[str, RootCause, Plan]:
        """An incident of its alert, analysed: its id, what was found, and the plan that waits."""
        opened = await open_by_hand(self.desk, self.alert(cycle), ADA, None)
        incident = str(opened.incident_id)
        deps = replace(self.deps, analyst=analyst or self.deps.analyst)
        await Runner(self.desk.pool, deps, self.nodes).advance(incident)
        async with self.desk.pool.connection() as connection:
            found = (await incidents.analyses(connection, incident))[-1]
        return incident, RootCause.model_validate(found["root_cause"]), Plan.model_validate(found["plan"])

    async def carried_out(self, incident: str, plan: Plan, choice: Choice) -> Execution | None:
        """Decided, run and verified; None where nothing came of it. Raises UseCaseError."""
        await decide(self.desk, incident, Verdict(plan_revision=plan.revision, choice=choice), ADA)
        await Runner(self.desk.pool, self.deps).advance(incident)
        async with self.desk.pool.connection() as connection:
            rows = await incidents.executions(connection, incident)
        return Execution.model_validate(rows[-1]["body"]) if rows else None

    def truth(self, start: datetime, end: datetime) -> Truth:
        """By the shop's own state."""
        with self.shop.live() as now:
            return truth(self.shop.ticks(start.timestamp(), now), start.timestamp(), end.timestamp())


@asynccontextmanager
async def floors(database_url: str) -> AsyncIterator["Floors"]:
    """Shops in front of one database."""
    pool, queue = create_pool(database_url), create_queue(database_url)
    async with pool, queue.open_async():
        yield Floors(pool, queue)


@dataclass(frozen=True)
class Floors:
    """Where shops are opened."""

    pool: Pool
    queue: procrastinate.App

    @asynccontextmanager
    async def open(self, fault: str, past: PastIncidents | None = None) -> AsyncIterator[Floor]:
        """A new shop in which that fault began a few minutes ago."""
        clock = SteppingClock(SCENARIOS[fault].origin)
        shop = Shop(SCENARIOS[fault], clock, seed=SEED)
        file = load(ROOT / "app" / "simulator" / "autopilot.yaml")
        catalogue, ours = file.catalogue(), cast("VirtualClock", clock)  # it has the same methods
        async with AsyncExitStack() as stack:
            url = stack.enter_context(_served(shop))
            with _environment(url):
                collectors = create_collectors(COLLECTORS, file.declared(), ours)
                executors = create_executors(EXECUTORS, catalogue, ours)
            for closing in (*(c.aclose for c in collectors), *(e.aclose for e in executors)):
                stack.push_async_callback(closing)
            operations = operations_by_name(executors)
            desk = Desk(self.pool, self.queue, catalogue, clock, Settings(), policy=file.policy, operations=operations)
            deps = Deps(
                catalogue=catalogue,
                collectors=collectors,
                snapshots=PostgresSnapshots(self.pool),
                analyst=RulesAnalyst(),
                operations=operations,
                ledger=PostgresLedger(self.pool, file.policy),
                facts=PostgresFacts(self.pool, catalogue, file.policy, clock),
                policy=file.policy,
                clock=clock,
                past=past or NoPast(),
            )
            yield Floor(fault, shop, clock, desk, deps)


@contextmanager
def _served(shop: Shop) -> Iterator[str]:
    """The shop behind a port of this machine."""
    with shop.live():
        pass  # simulate the history before anybody can ask
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(shop), log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@contextmanager
def _environment(url: str) -> Iterator[None]:
    """What the plug-ins read as they are created; put back afterwards."""
    told = {**_KEYS, "DATADOG_BASE_URL": url}
    for name in ("AWS", *(executor.upper() for executor in EXECUTORS)):
        told |= {f"AUTOPILOT_{name}_ENDPOINT_URL": url, f"AUTOPILOT_{name}_REGION": "us-east-1"}
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in told}
    os.environ.update(told)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
