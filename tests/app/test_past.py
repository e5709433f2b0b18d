"""What earlier incidents teach: which were like this one, and how often each remedy worked."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from app.db import transaction
from app.store import incidents
from app.store.past import REMEMBERED, SIMILAR, TRACK_RECORD, PostgresPast
from graph.llms.base import TrackRecord
from graph.state import Decision, Execution, RootCause, StepResult, Verdict, Verification
from tests.app.test_alerts import Office, alert, at_work

NOW = datetime.now(UTC)


@dataclass
class Archive:
    """An office whose incidents are over."""

    office: Office
    past: PostgresPast
    opened: int = 0

    async def open(self, fingerprint: str = "f", service: str = "shop") -> str:
        """An incident of an alert with that fingerprint; of ``alert``'s rule for the service."""
        self.opened += 1
        one = alert(f"{fingerprint}.{self.opened}", fingerprint=fingerprint, service=service)
        (incident,) = await self.office.accept(one)
        return str(incident)

    async def found(self, incident: str, component: str | None, category: str, round_: int = 1) -> None:
        """What an analysis found."""
        cause = RootCause(
            component=component, category=category, title=f"{component}: {category}", mechanism="", confidence="high"
        )
        async with transaction(self.office.pool) as connection:
            await incidents.save_analysis(connection, incident, round_, root_cause=cause.model_dump(mode="json"))

    async def ran(
        self, incident: str, operations: Sequence[str], verdict: Verdict, plan: str = "r1", *, made: bool = True
    ) -> None:
        """A remedy, and what came of it."""
        results = tuple(
            StepResult(ordinal=n, operation=operation, status="succeeded" if made else "dry_run", made=made)
            for n, operation in enumerate(operations)
        )
        execution = Execution(
            plan_revision=plan,
            choice="1",
            title="Do something",
            results=results,
            verification=Verification(verdict=verdict),
        )
        async with transaction(self.office.pool) as connection:
            await self._decide(incident, plan, "1")
            await incidents.save_execution(connection, incident, plan, execution.model_dump(mode="json", by_alias=True))

    async def taken_by_hand(self, incident: str, note: str) -> None:
        """A person did it."""
        await self._decide(incident, "by-hand", "manual", note)

    async def _decide(self, incident: str, plan: str, choice: str, note: str = "") -> None:
        decision = Decision.model_validate(
            {"plan_revision": plan, "choice": choice, "note": note, "by": "kim", "at": NOW}
        )
        async with transaction(self.office.pool) as connection:
            await incidents.insert_decision(connection, incident, decision)

    async def close(self, incident: str, days_ago: float = 1) -> None:
        """So many days ago."""
        await self.office.set_status(incident, "closed")
        closed_at = NOW - timedelta(days=days_ago)
        await self.office.rows("update incident set closed_at = %s where id = %s", closed_at, incident)

    async def similar(self, fingerprint: str = "f", *components: str, service: str = "shop") -> list[str]:
        """Ids of what is like an alert of now."""
        now = alert("now", fingerprint=fingerprint, service=service)
        return [past.incident_id for past in await self.past.similar("inc_now", now, components)]


@pytest.fixture
async def archive(database_url: str) -> AsyncIterator[Archive]:
    """An empty one."""
    async with at_work(database_url) as office:
        yield Archive(office, PostgresPast(office.pool))


async def test_what_was_run_and_what_came_of_it_is_remembered(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "db", "slow_queries")
    await archive.found(incident, "shop", "connection_pool_exhaustion", 2)
    await archive.ran(incident, ["restart_ecs_task", "reduce_traffic"], "resolved")
    await archive.close(incident)
    (past,) = await archive.past.similar("inc_now", alert("now", fingerprint="f"), ["shop"])
    assert (past.incident_id, past.component, past.category) == (incident, "shop", "connection_pool_exhaustion")
    assert past.title == "shop: connection_pool_exhaustion"
    assert past.remedy == "Do something (restart_ecs_task, reduce_traffic)"
    assert past.verdict == "resolved"
    assert past.at == f"{alert().occurred_at:%Y-%m-%d}"


async def test_what_a_person_did_by_hand_is_remembered_too(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "shop", "certificate_expired")
    await archive.taken_by_hand(incident, "renewed the certificate")
    await archive.close(incident)
    (past,) = await archive.past.similar("inc_now", alert("now", fingerprint="f"), [])
    assert (past.remedy, past.verdict) == ("by hand: renewed the certificate", "")


async def test_the_most_telling_come_first_and_few_are_enough(archive: Archive) -> None:
    made = []
    for n, (fingerprint, service, component, verdict) in enumerate(
        (
            ("other", "mail", "db", None),  # the same culprit
            ("other", "shop", "db", None),  # the same culprit, by the same rule
            ("f", "shop", "cache", None),  # the same alert, another culprit
            ("f", "shop", "db", None),  # the same alert and culprit
            ("f", "shop", "db", "unchanged"),
            ("f", "shop", "db", "resolved"),
        )
    ):
        incident = await archive.open(fingerprint, service)
        await archive.found(incident, component, "c")
        if verdict:
            await archive.ran(incident, ["restart_ecs_task"], "resolved" if verdict == "resolved" else "unchanged")
        await archive.close(incident, days_ago=n + 1)
        made.append(incident)
    assert await archive.similar("f", "db") == [made[5], made[4], made[3]]
    await archive.office.rows("delete from execution")
    await archive.office.rows("delete from analysis where incident_id = any(%s)", made[3:])
    assert await archive.similar("f", "db") == [made[2], made[1], made[0]]
    assert await archive.similar("g", "db", service="web") == [made[0], made[1]]
    assert await archive.similar("g", "nothing", service="web") == []


async def test_the_newest_of_equals_come_first(archive: Archive) -> None:
    made = []
    for days in (30, 3, 300, 200):
        incident = await archive.open()
        await archive.found(incident, "db", "c")
        await archive.close(incident, days)
        made.append(incident)
    assert await archive.similar("f", "db") == [made[1], made[0], made[3]]


async def test_what_is_open_inconclusive_or_this_very_incident_is_left_out(archive: Archive) -> None:
    unknown = await archive.open()
    await archive.found(unknown, None, "unknown")
    await archive.close(unknown)
    nothing = await archive.open()
    await archive.close(nothing)
    closed = await archive.open()
    await archive.found(closed, "db", "c")
    await archive.close(closed)
    still_open = await archive.open()
    await archive.found(still_open, "db", "c")
    assert await archive.similar("f", "db") == [closed]
    assert await archive.past.similar(closed, alert("now", fingerprint="f"), ["db"]) == []


async def test_an_earlier_belief_does_not_count(archive: Archive) -> None:
    incident = await archive.open("other", "mail")
    await archive.found(incident, "db", "slow_queries")
    await archive.found(incident, "cache", "eviction", 2)
    await archive.close(incident)
    assert await archive.similar("f", "db") == []
    assert await archive.similar("f", "cache") == [incident]


async def test_a_track_record_counts_runs_and_what_they_did(archive: Archive) -> None:
    for n, (category, operation, verdict) in enumerate(
        (
            ("leak", "restart_ecs_task", "resolved"),
            ("leak", "restart_ecs_task", "worse"),
            ("leak", "restart_ecs_task", "unchanged"),
            ("leak", "scale_ecs_service", "improved"),
            ("deploy", "restart_ecs_task", "worse"),
        )
    ):
        incident = await archive.open(f"f{n}")
        await archive.found(incident, "shop", category)
        await archive.ran(incident, [operation, operation], Verification.model_validate({"verdict": verdict}).verdict)
        await archive.close(incident)  # or the next alert would be merged into it
    assert await archive.past.track_record("leak") == {
        "restart_ecs_task": TrackRecord(runs=3, resolved=1, worse=1),
        "scale_ecs_service": TrackRecord(runs=1),
    }
    assert await archive.past.track_record("nothing") == {}


async def test_what_would_have_recovered_by_itself_is_no_success(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "shop", "leak")
    await archive.ran(incident, ["restart_ecs_task"], "resolved", "r1")
    await archive.ran(incident, ["restart_ecs_task"], "resolved", "r2")
    await archive.office.rows(
        """update execution set body = jsonb_set(body, '{verification,credit}', '"by_itself"')
           where plan_revision = 'r2'"""
    )
    assert await archive.past.track_record("leak") == {"restart_ecs_task": TrackRecord(runs=2, resolved=1)}


async def test_the_remedy_of_an_incident_is_not_its_undo(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "shop", "leak")
    await archive.ran(incident, ["scale_ecs_service"], "worse", "r1")
    await archive.ran(incident, [], "not_measurable", "r2")
    await archive.office.rows("update execution set body = body || '{\"choice\": \"undo\"}' where plan_revision = 'r2'")
    await archive.close(incident)
    (past,) = await archive.past.similar("inc_now", alert("now", fingerprint="f"), [])
    assert (past.remedy, past.verdict) == ("Do something (scale_ecs_service)", "worse")


async def test_rehearsals_and_what_nobody_could_measure_teach_nothing(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "shop", "leak")
    await archive.ran(incident, ["restart_ecs_task"], "resolved", "r1", made=False)
    await archive.ran(incident, ["restart_ecs_task"], "not_measurable", "r2")
    assert await archive.past.track_record("leak") == {}


async def test_a_remedy_counts_for_the_cause_that_was_found_in_the_end(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "shop", "leak")
    await archive.ran(incident, ["restart_ecs_task"], "unchanged", "r1")
    await archive.found(incident, "db", "slow_queries", 2)
    await archive.ran(incident, ["reboot_db"], "resolved", "r2")
    assert await archive.past.track_record("leak") == {}
    assert await archive.past.track_record("slow_queries") == {
        "restart_ecs_task": TrackRecord(runs=1),
        "reboot_db": TrackRecord(runs=1, resolved=1),
    }


async def test_names_that_no_index_can_hold_are_found_all_the_same(archive: Archive) -> None:
    name = "".join(chr(0x4E00 + n) for n in range(4_000))
    incident = await archive.open("other", "mail")
    await archive.found(incident, name, name)
    await archive.ran(incident, ["restart_ecs_task"], "resolved")
    await archive.close(incident)
    assert await archive.similar("f", name) == [incident]
    assert (await archive.past.track_record(name))["restart_ecs_task"].resolved == 1


async def test_thirty_thousand_incidents_are_not_read_through(archive: Archive) -> None:
    template = await archive.open()
    (row,) = await archive.office.rows("select alert from incident where id = %s", template)
    await archive.office.rows(
        """insert into incident (id, service, title, severity, source, environment, occurred_at, alert, opened_by,
               status, closed_at)
           select 'inc_' || n, 'shop', '', 'info', 'test', '', now(),
               %s::jsonb || jsonb_build_object('fingerprint', 'f' || n %% 10, 'rule', 'r' || n %% 7), 'test', 'closed',
               now() - n * interval '1 minute'
           from generate_series(1, 30000) n""",
        Jsonb(row["alert"]),
    )
    await archive.office.rows(
        """insert into analysis (incident_id, round, root_cause)
           select id, 1, jsonb_build_object('component', 'c' || right(id, 1), 'category', 'k' || right(id, 1))
           from incident where closed_at is not null"""
    )
    await archive.office.rows(
        """insert into decision (incident_id, plan_revision, choice, decided_by, at)
           select id, 'r', '1', 'kim', now() from incident where closed_at is not null"""
    )
    result, verification = [{"operation": "restart_ecs_task", "made": True}], {"verdict": "resolved"}
    await archive.office.rows(
        "insert into execution (incident_id, plan_revision, body) select incident_id, plan_revision, %s from decision",
        Jsonb({"title": "", "results": result, "verification": verification}),
    )
    await archive.office.rows("vacuum analyze incident, analysis, execution, decision")
    similar = {"incident_id": "x", "fingerprint": "f1", "rule": "r1", "components": ["c1", "c2"]}
    for query, values in ((SIMILAR, similar), (TRACK_RECORD, {"category": "k1"})):
        async with archive.office.pool.connection() as connection:
            rows = await (
                await connection.execute(f"explain (analyze, buffers, format json) {query}".encode(), values)
            ).fetchall()
        plan = rows[0]["QUERY PLAN"][0]["Plan"]
        assert '"Seq Scan"' not in json.dumps(_large(plan)), json.dumps(plan)
        # A dozen pages for each of a thousand candidates at most: the same for a million incidents.
        assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 12_000
    assert (await archive.past.track_record("k1"))["restart_ecs_task"] == TrackRecord(REMEMBERED, REMEMBERED)


def _large(plan: dict[str, object]) -> list[object]:
    """Scans of the tables that grow."""
    below = plan.get("Plans", [])
    assert isinstance(below, list)
    mine = [plan["Node Type"]] if plan.get("Relation Name") in ("incident", "analysis", "execution", "decision") else []
    return mine + [node for inner in below for node in _large(inner)]
