"""The ledger on a real Postgres: who may claim, what stops a claim, and two at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db import Connection, Pool, create_pool, transaction
from app.store import freeze, ledger
from app.store.ledger import PostgresLedger
from app.store.witnesses import disagreements
from executors.base import Refused
from graph.deps import Claim, ClaimedStep, ResourceBusy, StepKey
from graph.policy import Policy
from graph.state import StepResult

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
OUTCOMES = {"Refused": "refused", "ResourceBusy": "busy"}


@dataclass
class Archive:
    """A database with decided incidents, and ledgers on it."""

    pool: Pool
    policy: Policy = field(default_factory=Policy)
    incidents: int = 0

    @property
    def ledger(self) -> PostgresLedger:
        """As another process would have it."""
        return PostgresLedger(self.pool, self.policy)

    async def decided(self, choice: str = "1", steps: tuple[int, ...] = ()) -> str:
        """An open incident whose plan ``r`` was decided on."""
        self.incidents += 1
        incident = f"inc_{self.incidents}"
        async with transaction(self.pool) as connection:
            await connection.execute(
                """insert into incident (id, service, title, severity, source, environment, occurred_at, alert,
                       opened_by) values (%s, 'shop', '', 'info', 'test', '', now(), '{}', 'test')""",
                (incident,),
            )
            await connection.execute(
                """insert into decision (incident_id, plan_revision, choice, decided_by, at, steps)
                   values (%s, 'r', %s, 'kim', now(), %s)""",
                (incident, choice, list(steps)),
            )
        return incident

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """SQL."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(query.encode(), values or None)
            return await cursor.fetchall() if cursor.description else []

    async def withdraw(self, incident: str) -> bool:
        """As the decision service does it; False if a step is claimed already."""
        async with transaction(self.pool) as connection:
            await connection.execute("select 1 from incident where id = %s for update", (incident,))
            found = await (
                await connection.execute(
                    """update decision d set withdrawn_at = now(), withdrawn_by = 'kim' where incident_id = %s
                       and not exists (select 1 from step s where s.incident_id = d.incident_id) returning 1""",
                    (incident,),
                )
            ).fetchall()
        return bool(found)

    async def close(self, incident: str) -> bool:
        """As recovery does it; False if a step is under way."""
        async with transaction(self.pool) as connection:
            await connection.execute("select 1 from incident where id = %s for no key update", (incident,))
            found = await (
                await connection.execute(
                    """update incident i set closed_at = now(), status = 'closed' where id = %s
                       and not exists (select 1 from step s where s.incident_id = i.id) returning 1""",
                    (incident,),
                )
            ).fetchall()
        return bool(found)

    async def freeze(self) -> bool:
        """True if no step was claimed before it."""
        async with transaction(self.pool) as connection:
            await freeze.pull(connection, "sre", "bad day")
            row = await (await connection.execute("select count(*) as n from step")).fetchone()
        return bool(row and row["n"] == 0)

    async def untold(self) -> list[str]:
        """Steps that the audit log does not know as they are."""
        async with self.pool.connection() as connection:
            return [said for said in await disagreements(connection) if said.startswith("step ")]

    async def empty(self) -> None:
        """As it was at first, but for the audit log, which knows no way back."""
        for table in ("lease", "execution", "step", "decision", "incident", "kill_switch"):
            await self.rows(f"delete from {table}")


@pytest.fixture
async def archive(database_url: str) -> AsyncIterator[Archive]:
    """An empty one."""
    async with create_pool(database_url) as pool:
        yield Archive(pool)


def claim(
    incident: str, ordinal: int = 1, resource: str = "ecs:shop", *, undo: bool = False, at: datetime = NOON
) -> Claim:
    key = StepKey(incident, "r", ordinal, undo)
    return Claim(key, "restart", {"service": "shop"}, resource, {"desired": 3}, at, services=("shop",))


def result(status: str = "succeeded", *, made: bool = True) -> StepResult:
    return StepResult.model_validate(
        {
            "ordinal": 1,
            "operation": "restart",
            "params": {"service": "shop"},
            "status": status,
            "made": made,
            "request_ids": ("req-1",),
            "finished_at": NOON,
        }
    )


async def outcome(work: Awaitable[ClaimedStep | bool]) -> str:
    """What became of it: claimed, refused, busy; True or False of others."""
    try:
        done = await work
    except (Refused, ResourceBusy) as error:
        return OUTCOMES[type(error).__name__]
    return "claimed" if isinstance(done, ClaimedStep) else str(done)


# --- who may claim ---


async def test_a_step_is_claimed_finished_and_both_are_audited(archive: Archive) -> None:
    incident = await archive.decided()
    claimed = await archive.ledger.claim(claim(incident))
    assert (claimed.fresh, claimed.attempt, claimed.before) == (True, 1, {"desired": 3})
    again = await archive.ledger.find(StepKey(incident, "r", 1))
    assert again is not None
    assert (again.fresh, again.result) == (False, None)
    await archive.ledger.finish(claimed.step_id, result())
    found = await archive.ledger.find(StepKey(incident, "r", 1))
    assert found is not None
    assert found.result == result()
    rows = await archive.rows("select kind, actor, incident_id, body from audit order by seq")
    assert [(r["kind"], r["actor"], r["incident_id"]) for r in rows] == [
        ("claim", "ActionExecutor", incident),
        ("step", "ActionExecutor", incident),
    ]
    assert rows[0]["body"]["resource"] == "ecs:shop"
    assert (rows[1]["body"]["status"], rows[1]["body"]["request_ids"]) == ("succeeded", ["req-1"])


async def test_nothing_is_claimed_without_a_decision_that_approves_it(archive: Archive) -> None:
    incident = await archive.decided(steps=(1, 3))
    with pytest.raises(Refused, match="step 2 was not approved, only 1, 3"):
        await archive.ledger.claim(claim(incident, 2))
    await archive.ledger.claim(claim(incident, 3))
    manual = await archive.decided("manual")
    with pytest.raises(Refused, match="is manual: it approves no step"):
        await archive.ledger.claim(claim(manual))
    undo = await archive.decided("undo")
    with pytest.raises(Refused, match="is undo: it approves no step"):
        await archive.ledger.claim(claim(undo, resource="b"))
    await archive.ledger.claim(claim(undo, resource="b", undo=True))
    undecided = Claim(StepKey(incident, "another", 1), "restart", {}, "c", {}, NOON)
    with pytest.raises(Refused, match="nobody has decided on plan another"):
        await archive.ledger.claim(undecided)
    nowhere = Claim(StepKey("inc_none", "r", 1), "restart", {}, "c", {}, NOON)
    with pytest.raises(Refused, match="closed"):
        await archive.ledger.claim(nowhere)


async def test_closed_withdrawn_and_frozen_are_refused_with_a_sentence(archive: Archive) -> None:
    closed, withdrawn, frozen = [await archive.decided() for _ in range(3)]
    assert await archive.close(closed)
    with pytest.raises(Refused, match="the incident was closed meanwhile"):
        await archive.ledger.claim(claim(closed))
    assert await archive.withdraw(withdrawn)
    with pytest.raises(Refused, match="kim withdrew the decision before this step began"):
        await archive.ledger.claim(claim(withdrawn))
    began = await archive.ledger.claim(claim(frozen))
    await archive.freeze()
    for undo in (False, True):
        with pytest.raises(Refused, match=r"sre froze all actions .*bad day.*autopilot"):
            await archive.ledger.claim(claim(frozen, 2, "b", undo=undo))
    with pytest.raises(Refused, match="sre froze all actions"):
        await archive.ledger.retake(began)
    await archive.ledger.finish(began.step_id, result())  # what began before goes on
    async with transaction(archive.pool) as connection:
        await freeze.lift(connection, "sre")
    await archive.ledger.claim(claim(frozen, 2, "b"))


async def test_what_is_claimed_is_what_was_decided(archive: Archive) -> None:
    """The executor goes by its checkpoint; the decision that counts is the stored one."""
    incident = await archive.decided("2")
    await archive.rows("update decision set plan_digest = 'sha'")
    for choice, digest in (("1", "sha"), ("2", "another"), ("2", "")):
        with pytest.raises(Refused, match=r"is not what was decided on plan r: .*autopilot audit verify"):
            await archive.ledger.claim(replace(claim(incident), choice=choice, plan_digest=digest))
    await archive.ledger.claim(replace(claim(incident), choice="2", plan_digest="sha"))


async def test_an_approval_of_hours_ago_is_not_carried_out_once_the_workers_are_back(archive: Archive) -> None:
    late, begun, undo = await archive.decided(), await archive.decided(), await archive.decided("undo")
    await archive.ledger.claim(claim(begun))
    await archive.rows("update decision set decided_at = decided_at - interval '31 minutes'")
    with pytest.raises(Refused, match=r"approved 31 minutes ago, and nothing of it had begun: .*30 minutes"):
        await archive.ledger.claim(claim(late, resource="b"))
    await archive.ledger.refuse(claim(late, resource="b"), result("failed", made=False))  # is no beginning
    with pytest.raises(Refused, match="approved 31 minutes ago"):
        await archive.ledger.claim(claim(late, 2, resource="b"))
    with pytest.raises(Refused, match="approved 31 minutes ago"):
        await archive.ledger.claim(claim(undo, resource="b", undo=True))
    await archive.ledger.claim(claim(begun, 2, resource="b"))
    await archive.ledger.claim(claim(begun, resource="c", undo=True))


async def test_a_freeze_window_that_opened_after_the_decision_stops_what_has_not_begun(archive: Archive) -> None:
    late, begun = await archive.decided(), await archive.decided()
    await archive.ledger.claim(claim(begun))
    window = {"name": "Black Friday", "from": NOON, "services": ["shop"], "allow": ["scale"]}
    archive.policy = Policy.model_validate({"freeze_windows": [window]})
    await archive.ledger.claim(claim(begun, 2, "b"))
    with pytest.raises(Refused, match="'Black Friday' began after it was approved"):
        await archive.ledger.claim(claim(late, resource="c"))
    await archive.ledger.refuse(claim(late, resource="c"), result("failed", made=False))
    elsewhere, looking = replace(claim(late, 2, "c"), services=("db",)), replace(claim(late, 3, ""), services=())
    for allowed in (replace(claim(late, 4, "d"), operation="scale"), elsewhere, looking):
        await archive.rows("delete from lease")
        await archive.rows("delete from step where incident_id = %s", late)
        await archive.ledger.claim(allowed)


async def test_an_incident_that_is_held_does_not_hold_up_the_kill_switch(archive: Archive) -> None:
    """Not through a claim either, which waits for that incident."""
    incident = await archive.decided()
    async with asyncio.timeout(20), transaction(archive.pool) as holding:
        await holding.execute("select 1 from incident where id = %s for update", (incident,))
        claiming = asyncio.create_task(outcome(archive.ledger.claim(claim(incident))))
        await _until_somebody_waits(archive)
        assert await archive.freeze()
    assert await claiming == "refused"


async def test_a_service_is_changed_so_often_within_an_hour(archive: Archive) -> None:
    archive.policy = Policy(actions_per_service_hour=2)
    incidents = [await archive.decided() for _ in range(5)]
    for n, status in enumerate(("succeeded", "unknown")):
        made = await archive.ledger.claim(claim(incidents[n], at=NOON + timedelta(minutes=n)))
        await archive.ledger.finish(made.step_id, result(status, made=status == "succeeded"))
    with pytest.raises(Refused, match="shop was changed 2 times within the hour; the policy allows 2"):
        await archive.ledger.claim(claim(incidents[2], at=NOON + timedelta(minutes=59)))
    await archive.ledger.claim(claim(incidents[0], undo=True, at=NOON + timedelta(minutes=59)))
    await archive.ledger.claim(claim(incidents[3], resource="b", at=NOON + timedelta(minutes=60)))


async def test_what_failed_or_was_refused_or_undone_changed_nothing(archive: Archive) -> None:
    archive.policy = Policy(actions_per_service_hour=1)
    incident = await archive.decided()
    failed = await archive.ledger.claim(claim(incident))
    await archive.ledger.finish(failed.step_id, result("failed", made=False))
    await archive.ledger.refuse(claim(incident, 2), result("failed", made=False))
    put_back = await archive.ledger.claim(claim(incident, undo=True))
    await archive.ledger.finish(put_back.step_id, result(made=True))
    async with archive.pool.connection() as connection:
        assert await ledger.changes_within_hour(connection, ("shop", "db"), NOON) == {}
    await archive.ledger.claim(claim(incident, 3))


async def test_a_refusal_stands_when_its_reason_is_gone(archive: Archive) -> None:
    incident = await archive.decided()
    await archive.freeze()
    refused = result("failed", made=False)
    assert await archive.ledger.refuse(claim(incident), refused) == refused
    async with transaction(archive.pool) as connection:
        await freeze.lift(connection, "sre")
    found = await archive.ledger.find(StepKey(incident, "r", 1))
    assert found is not None
    assert found.result == refused
    assert await archive.ledger.refuse(claim(incident), result("failed", made=True)) == refused
    assert [r["kind"] for r in await archive.rows("select kind from audit order by seq")] == ["step"]
    assert await archive.untold() == []


async def test_the_first_result_stays_unless_it_was_unknown(archive: Archive) -> None:
    incident = await archive.decided()
    step = (await archive.ledger.claim(claim(incident))).step_id
    for status, stands in (
        ("unknown", "unknown"),
        ("unknown", "unknown"),
        ("succeeded", "succeeded"),
        ("failed", "succeeded"),
    ):
        await archive.ledger.finish(step, result(status))
        found = await archive.ledger.find(StepKey(incident, "r", 1))
        assert found is not None
        assert found.result is not None
        assert found.result.status == stands
    kinds = [r["kind"] for r in await archive.rows("select kind from audit order by seq")]
    assert kinds == ["claim", "step", "step"]  # what changed nothing is not told again
    assert await archive.untold() == []
    await archive.rows('update step set result = result || \'{"detail": "all was well"}\'')
    assert await archive.untold() == [f"step {incident} r 1 f: this step has been changed since the log told of it"]


async def test_what_is_abandoned_is_unknown_free_and_audited(archive: Archive) -> None:
    incident = await archive.decided()
    await archive.ledger.claim(claim(incident, 1, "a"))
    await archive.ledger.claim(claim(incident, 2, "b", undo=True))
    async with transaction(archive.pool) as connection:
        await ledger.abandon(connection, incident, NOON, "given up")
    rows = await archive.rows("select result->>'status' as status from step")
    assert [r["status"] for r in rows] == ["unknown", "unknown"]
    assert await archive.rows("select 1 from lease") == []
    assert [r["body"]["undo"] for r in await archive.rows("select body from audit where kind = 'step'")] == [
        False,
        True,
    ]
    assert await archive.untold() == []
    retaken = await archive.ledger.find(StepKey(incident, "r", 1))
    assert retaken is not None
    assert not await archive.ledger.retake(retaken)


# --- two at once ---


async def test_two_incidents_on_one_resource_at_once(archive: Archive) -> None:
    incidents = [await archive.decided() for _ in range(8)]
    wanted = ["a,b", "b,a", "b,c", "c,b", "a", "b", "c", "c,a"]
    outcomes = await asyncio.gather(
        *(outcome(archive.ledger.claim(claim(i, resource=r))) for i, r in zip(incidents, wanted, strict=True))
    )
    held = [set(r.split(",")) for r, o in zip(wanted, outcomes, strict=True) if o == "claimed"]
    assert held
    assert sum(map(len, held)) == len(set().union(*held)), (wanted, outcomes)
    assert set(outcomes) <= {"claimed", "busy"}
    assert len(await archive.rows("select 1 from lease")) == sum(map(len, held))


async def test_the_same_step_by_two_processes_at_once(archive: Archive) -> None:
    incident = await archive.decided()
    outcomes = await asyncio.gather(*(outcome(archive.ledger.claim(claim(incident, resource=""))) for _ in range(5)))
    assert sorted(outcomes) == ["busy"] * 4 + ["claimed"]
    found = await archive.ledger.find(StepKey(incident, "r", 1))
    assert found is not None
    assert sorted(await asyncio.gather(*(archive.ledger.retake(found) for _ in range(5)))) == [False] * 4 + [True]


async def test_the_last_change_within_the_hour_is_claimed_once(archive: Archive) -> None:
    archive.policy = Policy(actions_per_service_hour=1)
    incidents = [await archive.decided() for _ in range(6)]
    outcomes = await asyncio.gather(*(outcome(archive.ledger.claim(claim(i, resource=i))) for i in incidents))
    assert sorted(outcomes) == ["claimed"] + ["refused"] * 5


Rival = Callable[[Archive, str], Awaitable[bool]]
RIVALS: dict[str, Rival] = {
    "freeze": lambda archive, _: archive.freeze(),
    "withdraw": lambda archive, incident: archive.withdraw(incident),
    "close": lambda archive, incident: archive.close(incident),
}


@pytest.mark.parametrize("rival", RIVALS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
@given(ahead=st.integers(0, 4), claims=st.integers(1, 3))
def test_a_claim_against_what_stops_it(database_url: str, rival: str, ahead: int, claims: int) -> None:
    """Whatever commits first wins, and both are told: never a claim after it, never both refused.

    ``ahead``: how many turns of the event loop the one that stops it comes later.
    """

    async def race() -> tuple[list[str], str]:
        async with create_pool(database_url) as pool:
            archive = Archive(pool)
            await archive.empty()
            incident = await archive.decided()

            async def stop() -> bool:
                for _ in range(ahead):
                    await asyncio.sleep(0)
                return await RIVALS[rival](archive, incident)

            *claimed, stopped = await asyncio.gather(
                *(outcome(archive.ledger.claim(claim(incident, n, f"r{n}"))) for n in range(claims)), outcome(stop())
            )
            return claimed, stopped

    claimed, first = asyncio.run(race())
    assert set(claimed) <= {"claimed", "refused"}
    if first == "True":
        assert set(claimed) == {"refused"}
    else:
        assert "claimed" in claimed


@pytest.mark.parametrize("rival", RIVALS)
async def test_a_claim_waits_for_the_one_that_came_first(archive: Archive, rival: str) -> None:
    """Both orders, each held open until the other waits: no luck needed."""
    incident = await archive.decided()
    async with transaction(archive.pool) as connection:  # the rival has done its work and not committed
        await STOPS[rival](connection, incident)
        claiming = asyncio.create_task(outcome(archive.ledger.claim(claim(incident))))
        await _until_somebody_waits(archive)
        assert not claiming.done()
    assert await claiming == "refused"


async def _freeze(connection: Connection, _: str) -> None:
    await freeze.pull(connection, "sre", "")


async def _withdraw(connection: Connection, incident: str) -> None:
    await connection.execute("select 1 from incident where id = %s for update", (incident,))
    await connection.execute("update decision set withdrawn_at = now(), withdrawn_by = 'kim'")


async def _close(connection: Connection, incident: str) -> None:
    await connection.execute("update incident set closed_at = now() where id = %s", (incident,))


STOPS: dict[str, Callable[[Connection, str], Awaitable[None]]] = {
    "freeze": _freeze,
    "withdraw": _withdraw,
    "close": _close,
}


async def _until_somebody_waits(archive: Archive) -> None:
    query = """select 1 from pg_locks l join pg_stat_activity a using (pid)
               where not l.granted and a.datname = current_database()"""
    async with asyncio.timeout(10):
        while not await archive.rows(query):  # noqa: ASYNC110  what we wait for is in another process
            await asyncio.sleep(0.01)


async def test_params_that_postgres_cannot_store_are_claimed_all_the_same(archive: Archive) -> None:
    incident = await archive.decided()
    odd = Claim(StepKey(incident, "r", 1), "restart", {"x": "a\x00b"}, "", {"y": float("inf")}, NOON)
    claimed = await archive.ledger.claim(odd)
    assert claimed.before == {"y": "inf"}
    assert [r["params"] for r in await archive.rows("select params from step")] == [{"x": "ab"}]
