"""The runner, the jobs and the sweep: what a dead, a stuck or a failing process leaves behind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import procrastinate
import pytest
from psycopg.errors import RaiseException
from pydantic import SecretStr

from app.clock import SystemClock
from app.db import Pool, create_pool, transaction
from app.decision_checks import Verdict
from app.decisions import decide
from app.desk import Desk
from app.incidents import open_by_hand
from app.intake.base import Directory
from app.jobs import MAX_FAILURES, register_jobs, run_worker, sweep
from app.queue import create_queue
from app.reception import Reception
from app.runner import Busy, Runner
from app.security import Caller
from app.settings import Settings
from app.store import incidents
from app.store.ledger import PostgresLedger, PostgresSnapshots
from app.wiring import Product
from collectors.base import LogLine, LogsRead, Scope, Telemetry, TraceRead
from executors.base import Refused
from graph.catalogue import Catalogue, Service
from graph.deps import Claim, Deps, ResourceBusy, StepKey
from graph.flow import NODES, Node
from graph.llms.rules import RulesAnalyst
from graph.state import Alert, Decision, Evidence, RootCause, State
from tests.graph.sources import Source, errors

KIM = Caller("kim", "responder")


@dataclass
class Office:
    """The product without web and sources."""

    pool: Pool
    queue: procrastinate.App
    desk: Desk
    deps: Deps

    @property
    def product(self) -> Product:
        """What a worker needs."""
        d = self.desk
        return Product(
            d.settings, SystemClock(), self.pool, self.queue, d, self.deps, {}, Directory(d.catalogue), Reception(d)
        )

    async def open(self, key: str = "c") -> str:
        """A new incident."""
        alert = Alert(
            source="t", title="t", service="shop", occurred_at=datetime.now(UTC), fingerprint="f", cycle_key=key
        )
        opened = await open_by_hand(self.desk, alert, KIM, None)
        assert opened.incident_id
        return opened.incident_id

    async def get(self, incident_id: str) -> dict[str, Any]:
        """Its row."""
        async with self.pool.connection() as connection:
            row = await incidents.get(connection, incident_id)
        assert row is not None
        return row

    async def execute(self, statement: str, *values: object) -> list[dict[str, Any]]:
        """SQL."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(statement.encode(), values or None, prepare=False)
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def working(self, runner: Runner) -> AsyncIterator[None]:
        """A worker in the background."""
        stop = asyncio.Event()
        register_jobs(self.product, runner)
        task = asyncio.create_task(run_worker(self.product, runner, stop))
        try:
            yield
        finally:
            stop.set()
            await task

    async def await_status(self, incident_id: str, status: str) -> dict[str, Any]:
        """The row, once it has this status."""
        async with asyncio.timeout(30):
            while (row := await self.get(incident_id))["status"] != status:  # noqa: ASYNC110  it changes in Postgres
                await asyncio.sleep(0.05)
        return row


@asynccontextmanager
async def at_work(database_url: str, *, audit_keys: Sequence[SecretStr] = (), **more: Any) -> AsyncIterator[Office]:
    """An office with a pool of its own, as every process has; ``more`` are settings."""
    pool, queue, clock = create_pool(database_url, audit_keys=audit_keys), create_queue(database_url), SystemClock()
    catalogue = Catalogue(services={"shop": Service()})
    async with pool, queue.open_async():
        deps = Deps(
            catalogue=catalogue,
            collectors=(),
            snapshots=PostgresSnapshots(pool),
            analyst=RulesAnalyst(),
            operations={},
            ledger=PostgresLedger(pool),
            clock=clock,
        )
        settings = Settings(worker_concurrency=2, stalled_after_s=2, **more)
        yield Office(pool, queue, Desk(pool, queue, catalogue, clock, settings), deps)


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """An office on a database of its own."""
    async with at_work(database_url) as one:
        yield one


def failing(error: Exception) -> dict[str, Node]:
    """The graph with an analyzer that always fails."""

    async def fails(_deps: Deps, _state: State) -> dict[str, Any]:
        raise error

    return {**NODES, "RootCauseAnalyzer": fails}


async def test_death_between_the_first_two_checkpoints_is_survived(office: Office) -> None:
    incident, runner = await office.open(), Runner(office.pool, office.deps)
    await runner.advance(incident)
    # What the process leaves that dies right after LangGraph stored its input.
    await office.execute("delete from checkpoints where (metadata->>'step')::int > -1")
    await office.execute("update incident set status = 'received', plan_revision = null")
    await runner.advance(incident)
    assert (await office.get(incident))["status"] == "awaiting_decision"


BOOM = """
create sequence boom;
create function boom() returns trigger language plpgsql as $$
begin
    if new.key like 'status:{status}:%' and nextval('boom') = 1 then
        raise exception 'the projection fails once';
    end if;
    return new;
end $$;
create trigger boom before insert on event for each row execute function boom();
"""


@pytest.mark.parametrize(
    "status", ["collecting", "analyzing", "planning:ActionPlanner", "planning:RemediationDecision"]
)
async def test_a_failure_between_a_nodes_writes_and_the_next_checkpoint_is_survived(
    office: Office, status: str
) -> None:
    incident, runner = await office.open(), Runner(office.pool, office.deps)
    await office.execute(BOOM.format(status=status))
    with pytest.raises(RaiseException, match="fails once"):
        await runner.advance(incident)
    assert (await office.get(incident))["status"] != "awaiting_decision"
    await runner.advance(incident)
    assert (await office.get(incident))["status"] == "awaiting_decision"


async def test_a_decision_is_not_lost_where_its_projection_fails(office: Office) -> None:
    incident, runner = await office.open(), Runner(office.pool, office.deps)
    await runner.advance(incident)
    revision = (await office.get(incident))["plan_revision"]
    await decide(office.desk, incident, Verdict(plan_revision=revision, choice="re_analyze", hint="again"), KIM)
    await office.execute(BOOM.format(status="collecting"))
    with pytest.raises(RaiseException, match="fails once"):
        await runner.advance(incident)
    await runner.advance(incident)
    row = await office.get(incident)
    assert (row["status"], row["round"]) == ("awaiting_decision", 2)


async def test_a_hint_steers_windows_and_questions_and_the_answer_says_what_changed(office: Office) -> None:
    incident, source = await office.open(), Answering("meter", shop_fails)
    catalogue = Catalogue(services={"shop": Service(), "orders-db": Service()})
    runner = Runner(office.pool, replace(office.deps, collectors=(source,), catalogue=catalogue))
    await runner.advance(incident)
    row = await office.get(incident)
    hint = 'It began 30 minutes ago: look for "too many clients" in the orders database'
    again = Verdict(plan_revision=row["plan_revision"], choice="re_analyze", hint=hint)
    await decide(office.desk, incident, again, KIM)
    await runner.advance(incident)
    async with office.pool.connection() as connection:
        first, second = await incidents.analyses(connection, incident)
        events = [event["message"] for event in await incidents.events(connection, incident)]
    evidence, root_cause = Evidence.model_validate(second["evidence"]), RootCause.model_validate(second["root_cause"])
    assert not any(f["asked"] for f in first["evidence"]["findings"])
    # windows
    assert evidence.looked_at is not None
    assert source.scopes[-1].occurred_at - evidence.looked_at.incident.start == timedelta(minutes=35)
    assert any("UTC on: the hint says «30 minutes ago», " in message for message in events)
    # scope and questions
    assert source.questions == [LogsRead(component="orders-db", contains="too many clients")]
    [asked] = [f for f in evidence.findings if f.asked]
    assert asked.component == "orders-db"
    [claim] = [c for c in root_cause.claims if asked.id in c.evidence]
    assert claim.verified, claim.complaint
    # what changed
    assert hint in root_cause.changed[0]
    assert f"New: «{claim.text}»" in root_cause.changed


class Answering(Source):
    """A source that answers questions about logs."""

    reads = frozenset({"logs"})

    def __init__(self, name: str, answer: Callable[[Scope], Telemetry]) -> None:
        super().__init__(name, answer)
        self.questions: list[LogsRead | TraceRead] = []

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """Three refusals."""
        self.questions.append(question)
        times = [scope.occurred_at - timedelta(minutes=n) for n in (5, 6, 7)]
        lines = (
            LogLine(component="orders-db", at=at, level="error", message="sorry, too many clients") for at in times
        )
        return Telemetry(source=self.name, logs=tuple(lines))


def shop_fails(scope: Scope) -> Telemetry:
    return errors(scope, since=scope.occurred_at - timedelta(minutes=8), source="meter")


async def test_a_decision_that_comes_while_a_worker_looks_is_not_taken_back(office: Office) -> None:
    """The worker has read that nobody decided, and is about to write that a decision is awaited."""
    incident = await office.open()
    runner = Runner(office.pool, office.deps)
    await runner.advance(incident)
    revision = (await office.get(incident))["plan_revision"]
    async with asyncio.timeout(30), transaction(office.pool) as deciding:
        await incidents.lock(deciding, incident)
        looking = asyncio.create_task(runner.advance(incident))
        waits = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        while not await office.execute(waits):  # noqa: ASYNC110  it changes in Postgres
            await asyncio.sleep(0.01)
        decision = Decision(plan_revision=revision, choice="1", by="kim", at=datetime.now(UTC))
        await incidents.insert_decision(deciding, incident, decision)
        await incidents.set_status(deciding, incident, "executing")
    await looking
    row = await office.get(incident)
    assert (row["status"], row["plan_revision"]) == ("executing", None)


async def test_one_runner_at_a_time(office: Office) -> None:
    incident, runner = await office.open(), Runner(office.pool, office.deps)
    outcomes = await asyncio.gather(*(runner.advance(incident) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(o, Busy) for o in outcomes) == 3
    assert (await office.get(incident))["status"] == "awaiting_decision"


async def test_a_lost_lock_stops_the_run(office: Office) -> None:
    started = asyncio.Event()

    async def hangs(_deps: Deps, _state: State) -> dict[str, Any]:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    incident = await office.open()
    runner = Runner(office.pool, office.deps, {**NODES, "RootCauseAnalyzer": hangs})
    run = asyncio.create_task(runner.advance(incident))
    await started.wait()
    await office.execute(
        "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and pid <> pg_backend_pid()"
        " and ((classid::bigint << 32) | objid::bigint) = hashtextextended(%s, 7)",
        incident,
    )
    with pytest.raises(Busy, match="was lost"):
        await asyncio.wait_for(run, 10)


async def test_an_analysis_that_always_fails_goes_to_a_person(office: Office) -> None:
    incident = await office.open()
    runner = Runner(office.pool, office.deps, failing(ValueError("no such thing\x00")))
    for _ in range(MAX_FAILURES):
        with pytest.raises(ValueError, match="no such thing"):
            await runner.advance(incident)
        if await runner.count_failure(incident) >= MAX_FAILURES:
            await runner.give_up(incident, "ValueError: no such thing\x00")
    row = await office.get(incident)
    assert (row["status"], row["status_reason"]) == ("needs_attention", "ValueError: no such thing")
    assert row["closed_at"]


async def test_giving_up_frees_the_resources_and_says_unknown(office: Office) -> None:
    first, second = await office.open("1"), await office.open("2")
    runner = Runner(office.pool, office.deps)
    now = datetime.now(UTC)
    for incident in (first, second):
        decision = Decision(plan_revision="r", choice="1", by="kim", at=now)
        async with transaction(office.pool) as connection:
            await incidents.insert_decision(connection, incident, decision)
    ledger = office.deps.ledger

    def claim(incident: str, resource: str) -> Claim:
        return Claim(StepKey(incident, "r", 1), "restart", {}, resource, {}, now)

    await ledger.claim(claim(first, "ecs:c/a,ecs:c/b"))
    with pytest.raises(ResourceBusy):
        await ledger.claim(claim(second, "ecs:c/b"))
    await runner.give_up(first, "KeyError")
    abandoned = await ledger.find(StepKey(first, "r", 1))
    assert abandoned is not None
    assert abandoned.result is not None
    assert abandoned.result.status == "unknown"
    assert (await ledger.claim(claim(second, "ecs:c/b"))).fresh


async def test_a_step_without_a_decision_cannot_be_claimed(office: Office) -> None:
    incident = await office.open()
    claim = Claim(StepKey(incident, "never decided", 1), "restart", {}, "x", {}, datetime.now(UTC))
    with pytest.raises(Refused, match="nobody has decided"):
        await office.deps.ledger.claim(claim)


async def test_the_sweep_finds_an_incident_that_lost_its_job(office: Office) -> None:
    incident, runner = await office.open(), Runner(office.pool, office.deps)
    await office.execute("delete from procrastinate_jobs")
    async with office.working(runner):
        await sweep(office.queue, runner, 2, forgotten_after_s=0)
        await office.await_status(incident, "awaiting_decision")
        async with asyncio.timeout(30):
            while await office.execute("select 1 from procrastinate_jobs"):  # noqa: ASYNC110  its end is recorded
                await asyncio.sleep(0.05)
        await sweep(office.queue, runner, 2, forgotten_after_s=0)
    assert await office.execute("select 1 from procrastinate_jobs where status = 'todo'") == []


async def test_the_sweep_finds_a_job_whose_end_was_never_recorded(office: Office) -> None:
    incident, runner = await office.open(), Runner(office.pool, office.deps)
    await office.execute("update procrastinate_jobs set status = 'doing'")
    await office.execute(
        "insert into procrastinate_events (job_id, type, at) select id, 'started', now() - interval '1 minute'"
        " from procrastinate_jobs"
    )
    async with office.working(runner):
        await sweep(office.queue, runner, 2)
        await office.await_status(incident, "awaiting_decision")


async def test_nobody_gives_up_an_incident_that_is_being_run(office: Office) -> None:
    incident, runner = await office.open(), Runner(office.pool, office.deps)
    async with office.pool.connection() as other:
        await other.execute("select pg_advisory_lock(hashtextextended(%s, 7))", (incident,))
        assert not await runner.give_up(incident, "it seemed dead")
        await other.execute("select pg_advisory_unlock_all()")
    assert (await office.get(incident))["status"] == "received"
    assert await runner.give_up(incident, "it is dead")
    assert not await runner.give_up(incident, "once is enough")
