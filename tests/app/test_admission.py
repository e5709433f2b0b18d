"""Which investigations begin, which wait, in which order, and what they say meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from app import silences
from app.admission import BEGINS_NOW, admit
from app.clock import SystemClock
from app.db import transaction
from app.desk import NotAllowed, NotFound, Unusable
from app.incidents import open_by_hand
from app.security import Caller
from app.store import jobs
from tests.app.test_alerts import KIM, Office, alert, at_work

HOUR = timedelta(hours=1)
ANYTHING: Mapping[str, str] = {}


@dataclass
class Hand(SystemClock):
    """A clock that is set by hand."""

    time: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        """As it was set."""
        return self.time


@pytest.fixture
async def small(database_url: str) -> AsyncIterator[Office]:
    """Two investigations at once."""
    async with at_work(database_url, investigations_at_once=2) as office:
        yield office


@pytest.fixture
async def timed(database_url: str) -> AsyncIterator[tuple[Office, Hand]]:
    """An office with a clock set by hand."""
    async with at_work(database_url) as office:
        hand = Hand()
        office.desk = replace(office.desk, clock=hand)
        yield office, hand


async def admit_now(office: Office) -> list[str]:
    """As a worker does after a job, and the sweep now and then."""
    async with transaction(office.pool) as connection:
        return await admit(connection, office.queue, office.desk.clock, office.desk.budget)


async def reason(office: Office, incident: str | None) -> str:
    """What an incident that waits says; a failed assertion if it does not wait."""
    row = await office.incident(incident)
    assert row["admitted_at"] is None
    said: str = row["status_reason"]
    return said


async def enqueued(office: Office) -> set[str]:
    """Incidents that have a job."""
    return {row["id"] for row in await office.rows("select args->>'incident_id' as id from procrastinate_jobs")}


# --- budgets ---


async def test_only_so_many_run_at_once_and_the_next_one_follows(small: Office) -> None:
    ids = [(await small.accept(alert(f"a{n}", service=f"s{n}")))[0] for n in range(4)]
    assert await enqueued(small) == set(ids[:2])
    for waiting in ids[2:]:
        assert (
            await reason(small, waiting)
            == f"waits: 2 investigations run at once (AUTOPILOT_INVESTIGATIONS_AT_ONCE); {BEGINS_NOW}"
        )
    assert await admit_now(small) == []
    await small.set_status(ids[0], "analyzing")
    assert await admit_now(small) == []
    await small.set_status(ids[0], "awaiting_decision")
    assert await admit_now(small) == [ids[2]]
    await small.set_status(ids[1], "closed")
    assert await admit_now(small) == [ids[3]]
    assert (await small.incident(ids[3]))["status_reason"] == ""
    assert await enqueued(small) == set(ids)


async def test_the_most_severe_first_then_the_oldest_and_persons_before_all(small: Office) -> None:
    blocking: Sequence[str | None] = await small.accept(alert("x", service="x"), alert("y", service="y"))
    warning = await small.accept(alert("w", service="w", severity="warning"))
    info = await small.accept(alert("i", service="i", severity="info"))
    first = await small.accept(alert("c1", service="c1"))
    second = await small.accept(alert("c2", service="c2"))
    asked = await open_by_hand(small.desk, alert("byhand", severity="info"), KIM, None)
    order = []
    for _ in range(5):
        await small.set_status(blocking[0], "closed")
        blocking = await admit_now(small)
        order += blocking
    assert order == [asked.incident_id, *first, *second, *warning, *info]


async def test_a_service_has_its_share_of_an_hour(database_url: str) -> None:
    async with at_work(database_url, investigations_per_service_hour=1) as office:
        both = []
        for n in range(2):
            both += await office.accept(alert(f"a{n}", minute=20 * n))
        other = await office.accept(alert("m", service="mail"))
        asked = await open_by_hand(office.desk, alert("byhand"), KIM, None)
        assert await enqueued(office) == {both[0], *other, asked.incident_id}
        expected = (
            "shop has used its 1 investigations an hour (AUTOPILOT_INVESTIGATIONS_PER_SERVICE_HOUR):"
            f" this one waits; {BEGINS_NOW}"
        )
        assert await reason(office, both[1]) == expected
        await office.rows("update incident set admitted_at = admitted_at - interval '61 minutes'")
        assert await admit_now(office) == [both[1]]


async def test_the_share_is_kept_also_where_all_come_at_once_and_the_reason_is_right(database_url: str) -> None:
    async with at_work(database_url, investigations_per_service_hour=1) as office:
        both = await office.accept(alert("a", minute=0), alert("b", minute=20))
        assert len(await enqueued(office)) == 1
        (waiting,) = set(both) - await enqueued(office)
        assert (await reason(office, waiting)).startswith("shop has used its 1 investigations an hour")


async def test_a_recovery_ends_the_waiting(small: Office) -> None:
    await small.accept(alert("x", service="x"), alert("y", service="y"))
    (waiting,) = await small.accept(alert("a"))
    await small.accept(alert("a", "resolved", 3))
    assert (await small.incident(waiting))["status_reason"] == "recovered by itself"
    assert waiting not in await enqueued(small)
    assert await small.accept(alert("a", minute=6)) == [waiting]
    assert waiting not in await enqueued(small)
    assert "run at once" in await reason(small, waiting)


async def test_the_sweep_leaves_those_that_wait_alone(small: Office) -> None:
    *_, waiting = [(await small.accept(alert(f"a{n}", service=f"s{n}")))[0] for n in range(3)]
    await small.rows("delete from procrastinate_jobs")
    async with small.pool.connection() as connection:
        forgotten = await jobs.forgotten(connection, 0.0)
    assert len(forgotten) == 2
    assert waiting not in forgotten


# --- silences ---


async def silence(office: Office, about: Mapping[str, str] = ANYTHING, *, minutes: float = 60) -> str:
    """A maintenance window from now on."""
    now = office.desk.clock.now()
    ends_at = now + timedelta(minutes=minutes)
    row = await silences.create(office.desk, KIM, starts_at=now, ends_at=ends_at, reason="maintenance", **about)
    silence_id: str = row["id"]
    return silence_id


@pytest.mark.parametrize("about", [{"service": "shop"}, {"rule": "rule:shop"}, {"fingerprint": "a"}, {}])
async def test_a_silenced_alert_waits_and_is_investigated_afterwards(
    timed: tuple[Office, Hand], about: dict[str, str]
) -> None:
    office, hand = timed
    await silence(office, about)
    (held,) = await office.accept(alert("a"))
    said = f"silenced until {hand.time + HOUR:%Y-%m-%d %H:%M} UTC by kim: maintenance"
    assert await reason(office, held) == said
    hand.time += HOUR - timedelta(seconds=1)
    assert await admit_now(office) == []
    assert await reason(office, held) == said
    hand.time += timedelta(seconds=1)
    assert await admit_now(office) == [held]
    assert await enqueued(office) == {held}


@pytest.mark.parametrize("about", [{"service": "mail"}, {"rule": "rule:mail"}, {"fingerprint": "b"}])
async def test_other_alerts_are_not_silenced(timed: tuple[Office, Hand], about: dict[str, str]) -> None:
    office, _ = timed
    await silence(office, about)
    (free,) = await office.accept(alert("a"))
    assert await enqueued(office) == {free}


async def test_a_silence_to_come_silences_nothing_yet(timed: tuple[Office, Hand]) -> None:
    office, hand = timed
    await silences.create(office.desk, KIM, starts_at=hand.time + HOUR, ends_at=hand.time + 2 * HOUR, reason="later")
    now = await office.accept(alert("a"))
    hand.time += HOUR
    (held,) = await office.accept(alert("b", service="mail"))
    assert await enqueued(office) == set(now)
    assert "silenced" in await reason(office, held)


async def test_a_recovery_closes_what_is_silenced(timed: tuple[Office, Hand]) -> None:
    office, hand = timed
    await silence(office)
    (held,) = await office.accept(alert("a"))
    await office.accept(alert("a", "resolved", 3))
    assert (await office.incident(held))["status"] == "closed"
    hand.time += 2 * HOUR
    assert await admit_now(office) == []


async def test_a_silence_that_is_ended_releases_at_once(timed: tuple[Office, Hand]) -> None:
    office, hand = timed
    silence_id = await silence(office)
    (held,) = await office.accept(alert("a"))
    hand.time += HOUR / 2
    await silences.end(office.desk, silence_id, KIM)
    assert await enqueued(office) == {held}
    assert (await office.incident(held))["status_reason"] == ""
    with pytest.raises(NotFound, match="There is no silence"):
        await silences.end(office.desk, silence_id, KIM)


async def test_what_recovered_during_a_silence_is_investigated_when_it_is_back_after_its_end(
    timed: tuple[Office, Hand],
) -> None:
    office, hand = timed
    silence_id = await silence(office)
    (held,) = await office.accept(alert("a"))
    await office.accept(alert("a", "resolved", 3))
    hand.time += HOUR / 2
    await silences.end(office.desk, silence_id, KIM)
    assert await office.accept(alert("a", minute=6)) == [held]
    assert await enqueued(office) == {held}


async def test_of_two_silences_the_other_one_still_holds(timed: tuple[Office, Hand]) -> None:
    office, hand = timed
    longer, shorter = await silence(office, minutes=90), await silence(office, {"service": "shop"})
    (held,) = await office.accept(alert("a"))
    hand.time += HOUR / 2
    await silences.end(office.desk, longer, KIM)
    assert f"{hand.time + HOUR / 2:%H:%M} UTC" in await reason(office, held)
    await silences.end(office.desk, shorter, KIM)
    assert await enqueued(office) == {held}


async def test_what_is_back_during_a_silence_still_says_why_it_waits(timed: tuple[Office, Hand]) -> None:
    office, _ = timed
    await silence(office)
    (held,) = await office.accept(alert("a"))
    await office.accept(alert("a", "resolved", 3))
    await office.accept(alert("a", minute=6))
    assert "silenced until" in await reason(office, held)
    assert await enqueued(office) == set()


async def test_a_silence_holds_what_waits_for_its_turn_already(small: Office) -> None:
    running = await small.accept(alert("x", service="x"), alert("y", service="y"))
    (waiting,) = await small.accept(alert("a"))
    await silence(small, {"service": "shop"})
    assert "silenced until" in await reason(small, waiting)
    await small.set_status(running[0], "closed")
    assert await admit_now(small) == []


async def test_a_silence_never_holds_what_a_person_asked_for(small: Office) -> None:
    await small.accept(alert("x", service="x"), alert("y", service="y"))
    asked = await open_by_hand(small.desk, alert("byhand"), KIM, None)
    await silence(small, {"service": "shop"})
    assert "run at once" in await reason(small, asked.incident_id)
    second = await open_by_hand(small.desk, alert("byhand2"), KIM, None)
    assert "run at once" in await reason(small, second.incident_id)


async def test_a_snooze_silences_every_alert_of_an_incident(timed: tuple[Office, Hand]) -> None:
    office, hand = timed
    (incident, _) = await office.accept(alert("a"), alert("b"))
    rows = await silences.snooze(office.desk, str(incident), HOUR, "known", KIM)
    assert sorted(row["fingerprint"] for row in rows) == ["a", "b"]
    await office.set_status(incident, "closed")
    (again,) = await office.accept(alert("b", minute=5))
    assert again != incident
    assert "silenced until" in await reason(office, again)
    with pytest.raises(NotFound):
        await silences.snooze(office.desk, "inc_none", HOUR, "known", KIM)
    hand.time += HOUR
    assert await admit_now(office) == [again]


async def test_a_silence_that_makes_no_sense_is_refused(timed: tuple[Office, Hand]) -> None:
    office, hand = timed
    now = hand.time
    for starts_at, ends_at in ((now, now), (now - 2 * HOUR, now - HOUR), (now, now + timedelta(days=91))):
        with pytest.raises(Unusable):
            await silences.create(office.desk, KIM, starts_at=starts_at, ends_at=ends_at, reason="")
    with pytest.raises(NotAllowed):
        await silences.create(office.desk, Caller("eve", "viewer"), starts_at=now, ends_at=now + HOUR, reason="")


async def test_two_processes_do_not_spend_the_budget_twice(small: Office, database_url: str) -> None:
    async with at_work(database_url, investigations_at_once=2) as other:
        await asyncio.gather(
            *(
                o.accept(alert(f"a{n}{o is other}", service=f"s{n}{o is other}"))
                for n in range(5)
                for o in (small, other)
            ),
            *(admit_now(o) for _ in range(5) for o in (small, other)),
        )
    assert len(await enqueued(small)) == 2
    assert len(await small.rows("select 1 from incident where status_reason like 'waits: 2 %'")) == 8
