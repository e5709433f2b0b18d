"""Deliveries through ``accept`` on a real Postgres: many at once, doubled, out of order, merged, split and moved."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import procrastinate
import pytest
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.alerts import Delivery, Outcome, accept, move, replay_alert, split
from app.clock import SystemClock
from app.db import MIGRATIONS, Pool, create_pool, transaction
from app.decision_checks import Verdict
from app.decisions import decide
from app.desk import Conflict, Desk, NotFound, Unusable
from app.incidents import open_by_hand
from app.intake.base import Parsed
from app.intake.correlate import Correlation, Subject, Topology
from app.intake.triage import COMPARED, Board, Cycle, Placement
from app.queue import create_queue
from app.runner import Runner
from app.security import Caller
from app.settings import Settings
from app.store import alerts as store
from app.store import incidents
from app.store.ledger import PostgresLedger, PostgresSnapshots
from graph.catalogue import Catalogue, Service
from graph.deps import Deps
from graph.llms.rules import RulesAnalyst
from graph.state import Alert, Severity, Transition

KIM = Caller("kim", "responder")
T0 = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=30)
CATALOGUE = Catalogue(
    services={
        "web": Service(depends_on=("shop",)),
        "shop": Service(depends_on=("db",)),
        "db": Service(),
        "mail": Service(),
    }
)


def alert(
    key: str = "a",
    transition: Transition = "firing",
    minute: float = 0,
    *,
    fingerprint: str | None = None,
    service: str = "shop",
    severity: Severity = "critical",
) -> Alert:
    """An alert of a cycle; cycles ``a``, ``a.1`` … are of one rule and resource."""
    at = T0 + timedelta(minutes=minute)
    return Alert(
        source="test",
        rule=f"rule:{service}",
        title=f"errors of {service}",
        severity=severity,
        service=service,
        occurred_at=at,
        changed_at=at,
        fingerprint=fingerprint or key.partition(".")[0],
        cycle_key=key,
        transition=transition,
    )


def delivery(*alerts: Alert, key: str | None = None) -> Delivery:
    """As the route makes one."""
    return Delivery("test", {"content-type": "application/json"}, b"{}", Parsed(alerts, delivery_key=key))


@dataclass
class Office:
    """A desk on a database, and a look into its tables."""

    pool: Pool
    queue: procrastinate.App
    desk: Desk

    async def accept(self, *alerts: Alert) -> list[str | None]:
        """Every alert in a delivery of its own, all in one batch; their incidents."""
        outcomes = await accept(self.desk, [delivery(one) for one in alerts])
        return [outcome.incident_id for outcome in outcomes]

    async def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """SQL."""
        async with self.pool.connection() as connection:
            cursor = await connection.execute(query.encode(), values or None)
            return await cursor.fetchall() if cursor.description else []

    async def incident(self, incident_id: str | None) -> dict[str, Any]:
        """Its row."""
        (row,) = await self.rows("select * from incident where id = %s", incident_id)
        return row

    async def alert_ids(self, cycle_key: str) -> list[UUID]:
        """The alerts of a cycle, oldest first."""
        return [
            r["id"]
            for r in await self.rows("select id from alert where cycle_key = %s order by received_at", cycle_key)
        ]

    async def set_status(self, incident_id: str | None, status: str) -> None:
        """As the runner does."""
        async with transaction(self.pool) as connection:
            assert await incidents.set_status(connection, str(incident_id), status)

    async def is_consistent(self) -> None:
        """Every alert is in one incident; only reminders and recoveries of unknown alerts may be in none."""
        assert not await self.rows(
            "select * from alert where incident_id is null and transition in ('firing','no_data')"
        )
        assert not await self.rows("select * from alert_cycle where incident_id is null and state = 'firing'")
        assert not await self.rows(
            """select a.id from alert a join alert_cycle c using (cycle_key)
               where a.incident_id is null and c.incident_id is not null and a.transition in ('firing', 'no_data')"""
        )
        assert not await self.rows(
            """select c.fingerprint from alert_cycle c join incident i on i.id = c.incident_id
               where i.closed_at is null and i.asked_by = '' and c.state = 'firing'
               group by c.fingerprint having count(distinct i.id) > 1"""
        )
        assert not await self.rows(
            """select i.id from incident i where admitted_at is not null
               and not exists (select 1 from procrastinate_jobs j where j.lock = 'incident:' || i.id)"""
        )


@asynccontextmanager
async def at_work(url: str, **more: Any) -> AsyncIterator[Office]:
    """An office with a pool of its own, as every process has."""
    pool, queue = create_pool(url), create_queue(url)
    async with pool, queue.open_async():
        yield Office(pool, queue, Desk(pool, queue, CATALOGUE, SystemClock(), Settings(**more)))


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """An office on a database of its own."""
    async with at_work(database_url, investigations_at_once=1000, investigations_per_service_hour=1000) as one:
        yield one


# --- many at once ---


async def test_one_incident_of_a_cycle_however_many_processes_hear_of_it(office: Office, database_url: str) -> None:
    async with at_work(database_url) as second, at_work(database_url) as third:
        outcomes = await asyncio.gather(
            *(accept(o.desk, [delivery(alert("a", minute=n % 3))]) for n in range(8) for o in (office, second, third))
        )
    assert len({o[0].incident_id for o in outcomes}) == 1
    assert sum(o[0].created for o in outcomes) == 1
    await office.is_consistent()


async def test_related_services_at_once_are_one_incident_unrelated_ones_are_not(
    office: Office, database_url: str
) -> None:
    async with at_work(database_url) as second:
        await asyncio.gather(
            *(
                accept(o.desk, [delivery(alert(f"{service}{n}", service=service))])
                for n in range(3)
                for service in ("db", "shop", "web", "mail")
                for o in (office, second)
            )
        )
    rows = await office.rows("select incident_id, array_agg(distinct service) as s from alert_cycle group by 1")
    assert sorted(sorted(row["s"]) for row in rows) == [["db", "shop", "web"], ["mail"]]
    await office.is_consistent()


async def test_batches_with_the_same_deliveries_in_opposite_order_do_not_stop_each_other(
    office: Office, database_url: str
) -> None:
    def batch(order: Iterable[int]) -> list[Delivery]:
        return [delivery(key=f"k{n}") for n in order]

    async with at_work(database_url) as second:
        for _ in range(3):
            await office.rows("truncate raw_delivery cascade")
            first, other = await asyncio.gather(
                accept(office.desk, batch(range(1500))), accept(second.desk, batch(reversed(range(1500))))
            )
            assert [o.delivery_id for o in first] == [o.delivery_id for o in reversed(other)]
            assert sum(o.duplicate for o in (*first, *other)) == 1500


# --- doubles ---


async def test_the_same_delivery_again_is_answered_with_the_first_ones_incident(office: Office) -> None:
    first, twin = await accept(office.desk, [delivery(alert("a"), key="k"), delivery(alert("a"), key="k")])
    (later,) = await accept(office.desk, [delivery(alert("a"), key="k")])
    assert (first.duplicate, twin.duplicate, later.duplicate) == (False, True, True)
    assert first.incident_id
    assert {(o.delivery_id, o.incident_id) for o in (twin, later)} == {(first.delivery_id, first.incident_id)}
    assert len(await office.rows("select 1 from alert")) == 1
    assert len(await office.rows("select 1 from raw_delivery")) == 1


async def test_a_double_of_several_alerts_is_answered_like_the_first(office: Office) -> None:
    for n in range(6):  # ids of incidents are random
        several = (alert(f"x{n}", service="mail"), alert(f"y{n}", service="db"), alert(f"z{n}", service="none"))
        first, twin = await accept(office.desk, [delivery(*several, key=f"k{n}"), delivery(*several, key=f"k{n}")])
        assert twin.incident_id == first.incident_id
        await office.rows("update incident set status = 'closed', closed_at = now()")


# --- cycles ---


async def test_a_recovery_before_its_trigger_is_one_closed_incident_of_both(office: Office) -> None:
    assert await office.accept(alert("a", "resolved", 5)) == [None]
    (incident,) = await office.accept(alert("a", "firing", 1))
    row = await office.incident(incident)
    assert (row["status"], row["status_reason"], row["recovered"]) == ("closed", "recovered by itself", True)
    assert row["admitted_at"] is None
    alerts = await office.rows("select incident_id, merge_reason from alert order by received_at")
    assert [a["incident_id"] for a in alerts] == [incident, incident]
    assert alerts[0]["merge_reason"] == "it was here before its trigger"
    assert await office.rows("select 1 from procrastinate_jobs") == []


async def test_two_feeds_are_one_incident_and_one_recovery_closes_it(office: Office) -> None:
    first, second = await office.accept(alert("a"), alert("a.slack", minute=0.2))
    assert first == second
    assert await office.accept(alert("a.slack", "resolved", 4)) == [first]
    assert (await office.incident(first))["recovered"]
    assert await office.accept(alert("a", "resolved", 4)) == [first]
    await office.is_consistent()


@pytest.mark.parametrize("together", [False, True])
async def test_back_within_the_window_reopens(office: Office, together: bool) -> None:
    story = [alert("a"), alert("a", "resolved", 3), alert("a", minute=6)]
    for batch in [story] if together else [[one] for one in story]:
        (incident, *_) = await office.accept(*batch)
    row = await office.incident(incident)
    assert (row["status"], row["closed_at"], row["flaps"], row["recovered"]) == ("received", None, 1, False)
    assert len(await office.rows("select 1 from incident")) == 1
    await office.is_consistent()


async def test_back_after_the_window_is_a_new_one_that_follows(office: Office) -> None:
    await office.accept(alert("a", minute=-90), alert("a", "resolved", -80))
    (again,) = await office.accept(alert("a"))
    (first,) = [r["id"] for r in await office.rows("select id from incident where id <> %s", again)]
    assert (await office.incident(again))["follows"] == first


async def test_a_reopened_incident_shows_its_plan_again(office: Office) -> None:
    deps = Deps(
        catalogue=CATALOGUE,
        collectors=(),
        snapshots=PostgresSnapshots(office.pool),
        analyst=RulesAnalyst(),
        operations={},
        ledger=PostgresLedger(office.pool),
        clock=SystemClock(),
    )
    runner = Runner(office.pool, deps)
    (incident,) = await office.accept(alert("a"))
    await runner.advance(str(incident))
    before = await office.incident(incident)
    assert before["status"] == "awaiting_decision"
    await office.accept(alert("a", "resolved", 3))
    closed = await office.incident(incident)
    assert (closed["status"], closed["plan_revision"]) == ("closed", None)
    with pytest.raises(Conflict, match="closed"):
        await decide(office.desk, str(incident), Verdict(plan_revision=before["plan_revision"], choice="manual"), KIM)
    await office.accept(alert("a", minute=6))
    await runner.advance(str(incident))
    again = await office.incident(incident)
    assert (again["status"], again["plan_revision"]) == ("awaiting_decision", before["plan_revision"])
    await decide(office.desk, str(incident), Verdict(plan_revision=again["plan_revision"], choice="manual"), KIM)
    await runner.advance(str(incident))
    assert (await office.incident(incident))["status"] == "closed"


async def test_a_recovery_during_a_remedy_is_noted_only(office: Office) -> None:
    (incident,) = await office.accept(alert("a"))
    await office.set_status(incident, "executing")
    assert await office.accept(alert("a", "resolved", 3)) == [incident]
    assert (await office.incident(incident))["status"] == "executing"
    (line,) = await office.rows("select message from event where kind = 'resolved'")
    assert line["message"] == "The monitor says it recovered: errors of shop"


# --- taken apart and put together ---


async def test_a_split_is_not_merged_again(office: Office) -> None:
    (one, *_) = await office.accept(alert("a"), alert("b", service="db"))
    new = await split(office.desk, str(one), await office.alert_ids("b"), KIM)
    assert await office.accept(alert("a", "renotify", 1), alert("b", "renotify", 1, service="db")) == [one, new]
    for cycle, service in (("a", "shop"), ("b", "db")):
        await office.accept(alert(cycle, "resolved", 2, service=service))
    await office.rows("update incident set recovered = false")  # as if a person had closed both
    first, second = await office.accept(alert("a", minute=3), alert("b", service="db", minute=3))
    assert len({one, new, first, second}) == 4
    await office.is_consistent()


async def test_a_split_off_incident_is_investigated(office: Office) -> None:
    (one, *_) = await office.accept(alert("a"), alert("b", service="db", severity="warning"))
    new = await split(office.desk, str(one), await office.alert_ids("b"), KIM)
    row = await office.incident(new)
    assert (row["service"], row["severity"], row["status"]) == ("db", "warning", "received")
    assert row["admitted_at"]
    moved = await office.rows("select incident_id, merge_reason from alert where cycle_key = 'b'")
    assert moved == [{"incident_id": new, "merge_reason": "split off by kim"}]
    await office.is_consistent()


async def test_a_split_off_incident_speaks_as_the_one_it_was_in(office: Office) -> None:
    (one, *_) = await office.accept(alert("a"), alert("b", service="db"))
    assert office.desk.settings.language == "en"
    await office.rows("update incident set language = 'ko'")
    new = await split(office.desk, str(one), await office.alert_ids("b"), KIM)
    assert (await office.incident(new))["language"] == "ko"


async def test_what_a_person_puts_together_again_may_be_merged_again(office: Office) -> None:
    (one, *_) = await office.accept(alert("a"), alert("b", service="db"))
    new = await split(office.desk, str(one), await office.alert_ids("b"), KIM)
    await move(office.desk, new, await office.alert_ids("b"), str(one), KIM)
    assert await office.rows("select 1 from split_pair") == []
    row = await office.incident(new)
    assert (row["status"], row["status_reason"]) == ("closed", f"all its alerts were moved to {one}")
    assert {r["incident_id"] for r in await office.rows("select incident_id from alert")} == {one}
    await office.is_consistent()


async def test_what_cannot_be_split_or_moved_is_refused(office: Office) -> None:
    (one, *_) = await office.accept(alert("a"), alert("b", service="db"))
    (far,) = await office.accept(alert("m", service="mail"))
    a, b, m = [(await office.alert_ids(key))[0] for key in "abm"]
    with pytest.raises(Unusable, match="These are all the alerts"):
        await split(office.desk, str(one), [a, b], KIM)
    with pytest.raises(Unusable, match="None of these alerts"):
        await split(office.desk, str(one), [m], KIM)
    with pytest.raises(NotFound):
        await split(office.desk, "inc_none", [m], KIM)
    with pytest.raises(NotFound):
        await move(office.desk, str(one), [a], "inc_none", KIM)
    with pytest.raises(NotFound):
        await move(office.desk, "inc_none", [a], str(one), KIM)
    with pytest.raises(Unusable, match="already"):
        await move(office.desk, str(one), [a], str(one), KIM)
    await office.set_status(far, "executing")
    with pytest.raises(Conflict, match="under way"):
        await move(office.desk, str(far), [m], str(one), KIM)
    await office.set_status(far, "closed")
    with pytest.raises(Conflict, match="is closed"):
        await move(office.desk, str(one), [a], str(far), KIM)
    await office.is_consistent()


async def test_a_replayed_alert_is_an_incident_of_its_own(office: Office) -> None:
    (one,) = await office.accept(alert("a"))
    again: Outcome = await replay_alert(office.desk, (await office.alert_ids("a"))[0])
    assert again.created
    assert again.incident_id != one


async def test_asked_for_by_a_person_it_is_not_merged(office: Office) -> None:
    (one,) = await office.accept(alert("a"))
    asked = await open_by_hand(office.desk, alert("byhand"), KIM, "key")
    twice = await open_by_hand(office.desk, alert("byhand"), KIM, "key")
    assert asked.incident_id == twice.incident_id != one
    assert await office.accept(alert("b", minute=1)) == [one]


# --- the tables agree with a board that forgets nothing ---

NAMES = {"disk": "db", "errors": "shop", "slow": "shop", "mails": "mail"}


def _random(name: str, cycle: int, transition: Transition, minute: int) -> Alert:
    return alert(f"{name}.{cycle}", transition, minute, service=NAMES[name])


BATCHES = st.lists(
    st.lists(
        st.builds(
            _random,
            st.sampled_from(list(NAMES)),
            st.integers(0, 1),
            st.sampled_from(("firing", "firing", "resolved", "no_data", "renotify", "insufficient_data")),
            st.integers(0, 14),
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_the_tables_agree_with_a_board_in_memory(database_url: str, batches: list[list[Alert]]) -> None:
    asyncio.run(_compare(database_url, batches))


async def _compare(url: str, batches: list[list[Alert]]) -> None:
    async with at_work(url) as office:
        await office.rows("truncate raw_delivery, alert, alert_cycle, incident, event, procrastinate_jobs cascade")
        board = Board(topology=Topology(CATALOGUE.edges()), rules=office.desk.correlation)
        expected: list[Placement] = []
        got: list[tuple[str | None, str]] = []
        for batch in batches:
            expected += [board.place(one) for one in batch]
            outcomes = await accept(office.desk, [delivery(one) for one in batch])
            got += [(o.alerts[0].incident_id, o.alerts[0].became) for o in outcomes]
        assert [became for _, became in got] == [p.became for p in expected]
        assert _first_seen(i for i, _ in got) == _first_seen(p.incident_id for p in expected)
        cycles = await office.rows("select cycle_key, state, changed_at, flaps from alert_cycle")
        assert {(c["cycle_key"], c["state"], c["changed_at"], c["flaps"]) for c in cycles} == {
            (c.key, c.state, c.changed_at, c.flaps) for c in board.cycles.values()
        }
        rows = await office.rows("select closed_at is not null as closed, recovered, severity, flaps from incident")
        facts = [(c.closed, c.recovered, c.severity, c.flaps) for c in board.cases.values()]
        assert sorted(tuple(row.values()) for row in rows) == sorted(facts)
        await office.is_consistent()


def _first_seen(names: Iterable[str | None]) -> list[int | None]:
    """Which are the same, whatever they are called."""
    numbers: dict[str, int] = defaultdict(lambda: len(numbers))
    return [None if name is None else numbers[name] for name in names]


@pytest.mark.parametrize("transition", ["resolved", "firing"])
async def test_a_cycle_is_known_by_its_key_though_its_fingerprint_changed(
    office: Office, transition: Transition
) -> None:
    """Datadog leaves the scope out of some transitions, and another release may make another fingerprint."""
    (one,) = await office.accept(alert("a", fingerprint="with its scope"))
    again = await office.accept(
        alert("a", transition, 2, fingerprint="without", service="mail"), alert("m", service="x")
    )
    assert again[0] == one
    assert (await office.incident(one))["status"] == ("closed" if transition == "resolved" else "received")
    assert len(await office.rows("select 1 from incident")) == 2
    await office.is_consistent()


async def test_what_is_left_after_a_split_is_closed_if_it_had_recovered(office: Office) -> None:
    (one, *_) = await office.accept(alert("a"), alert("b", service="db"))
    await office.accept(alert("a", "resolved", 1))
    new = await split(office.desk, str(one), await office.alert_ids("b"), KIM)
    assert (await office.incident(one))["status_reason"] == "recovered by itself"
    assert (await office.incident(new))["status"] == "received"


async def test_what_had_recovered_is_split_off_without_an_investigation(office: Office) -> None:
    (one, *_) = await office.accept(alert("a"), alert("b", service="db"))
    await office.accept(alert("b", "resolved", 1, service="db"))
    new = await split(office.desk, str(one), await office.alert_ids("b"), KIM)
    row = await office.incident(new)
    assert (row["status"], row["recovered"], row["admitted_at"]) == ("closed", True, None)
    assert (await office.incident(one))["status"] == "received"


async def test_a_pull_finds_what_fires_again_after_a_recovery_that_was_lost(office: Office) -> None:
    (old,) = await office.accept(alert("a", minute=-9000, fingerprint="f"))
    now = alert("b", fingerprint="f")
    async with office.pool.connection() as connection:
        assert await store.unheard(connection, [now]) == []
    await office.rows("update incident set status = 'resolved', closed_at = now() where id = %s", old)
    async with office.pool.connection() as connection:
        assert await store.unheard(connection, [now]) == [now]


async def test_a_thousand_alerts_of_one_service_are_one_incident_and_take_no_time(office: Office) -> None:
    """The work for each alert must not grow with the alerts that its incident has."""
    compared: list[int] = []

    class Counting(Board):
        def _comparable(self, incident_id: str, subject: Subject) -> list[Cycle]:
            found = super()._comparable(incident_id, subject)
            compared.append(len(found))
            return found

    board = Counting(topology=Topology(CATALOGUE.edges()), rules=Correlation())
    for n in range(1000):
        board.place(alert(f"a{n}", minute=n / 100))
    assert len(board.opened) == 1
    assert max(compared) <= COMPARED * len(CATALOGUE.services)


async def test_the_database_goes_back_to_the_first_schema_and_forth(office: Office, database_url: str) -> None:
    (one, other) = await office.accept(alert("a"), alert("m", service="mail"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = database_url
    await asyncio.to_thread(command.downgrade, config, "0001")
    await asyncio.to_thread(command.upgrade, config, "head")
    assert await office.accept(alert("a", "resolved", 1), alert("m", "resolved", 1, service="mail")) == [one, other]
    assert {r["status"] for r in await office.rows("select status from incident")} == {"closed"}
