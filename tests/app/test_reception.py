"""Group commit: many share one, each answer leaves after its own, and nobody pays for another's fault."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import DataError

from app import reception
from app.alerts import Delivery, Outcome
from app.db import create_pool
from app.embedded_postgres import EmbeddedPostgres
from app.intake.base import Parsed
from app.reception import Overloaded, Reception
from graph.state import Alert
from tests.app.test_alerts import Office, alert, at_work, delivery


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """An office on a database of its own."""
    async with at_work(database_url) as one:
        yield one


def poisoned(key: str = "poison") -> Delivery:
    """A delivery that no database takes; a parser that is in order makes none."""
    sound = alert(key).model_dump()
    return replace(delivery(), parsed=Parsed((Alert.model_construct(**sound | {"title": "a\x00b"}),)))


async def transactions_of(office: Office) -> int:
    """How many transactions stored what is in the raw table."""
    (row,) = await office.rows("select count(distinct xmin::text) as n from raw_delivery")
    return int(row["n"])


async def test_many_share_a_few_commits_and_each_is_answered_after_its_own(office: Office, database_url: str) -> None:
    intake = Reception(office.desk)
    async with create_pool(database_url) as others:
        lost: list[Delivery] = []

        async def tell(one: Delivery) -> Outcome:
            outcome = await intake.accept(one)
            async with others.connection() as connection:
                found = await connection.execute(
                    """select a.incident_id from raw_delivery r join alert a on a.raw_id = r.id
                       join incident i on i.id = a.incident_id where r.id = %s""",
                    (one.id,),
                )
                if await found.fetchone() is None:
                    lost.append(one)
            return outcome

        outcomes = await asyncio.gather(*(tell(delivery(alert(f"a{n % 40}"))) for n in range(250)))
    assert not lost
    assert len({o.delivery_id for o in outcomes}) == 250
    assert all(o.incident_id for o in outcomes)
    assert await transactions_of(office) <= 10
    await office.is_consistent()


async def test_each_gets_its_own_answer(office: Office) -> None:
    intake = Reception(office.desk)
    sent = [delivery(alert(f"k{n}", service=f"s{n}"), key=f"k{n % 20}") for n in range(40)]
    outcomes = await asyncio.gather(*(intake.accept(one) for one in sent))
    for n, (first, twin) in enumerate(zip(outcomes[:20], outcomes[20:], strict=True)):
        assert (first.delivery_id, first.duplicate) == (sent[n].id, False)
        assert (twin.delivery_id, twin.duplicate) == (sent[n].id, True)
        assert first.incident_id == twin.incident_id
    assert len({o.incident_id for o in outcomes}) == 20


async def test_one_that_cannot_be_stored_fails_alone(office: Office) -> None:
    intake = Reception(office.desk)
    sent = [delivery(alert(f"a{n}", service=f"s{n}")) for n in range(12)]
    sent.insert(5, poisoned())
    outcomes = await asyncio.gather(*(intake.accept(one) for one in sent), return_exceptions=True)
    assert [n for n, o in enumerate(outcomes) if isinstance(o, BaseException)] == [5]
    assert isinstance(outcomes[5], DataError)
    assert len(await office.rows("select 1 from raw_delivery")) == 12
    assert len(await office.rows("select 1 from incident")) == 12
    assert (await intake.accept(delivery(alert("later")))).incident_id
    await office.is_consistent()


async def test_a_sender_that_hangs_up_costs_nobody_anything(office: Office) -> None:
    intake = Reception(office.desk)
    waiting = [asyncio.create_task(intake.accept(delivery(alert(f"a{n}")))) for n in range(6)]
    await asyncio.sleep(0)
    waiting[2].cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(outcomes[2], asyncio.CancelledError)
    assert sum(isinstance(o, Outcome) for o in outcomes) == 5
    assert len(await office.rows("select 1 from raw_delivery")) == 6  # stored all the same: it may have been heard


async def test_without_a_database_everyone_is_told_and_afterwards_all_goes_on(own_postgres: EmbeddedPostgres) -> None:
    async with at_work(own_postgres.url) as office:
        intake = Reception(office.desk)
        assert (await intake.accept(delivery(alert("before")))).incident_id
        own_postgres.stop()
        sent = [intake.accept(delivery(alert(f"a{n}"))) for n in range(5)]
        outcomes = await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), 30)
        assert all(isinstance(o, psycopg.Error | TimeoutError) for o in outcomes), outcomes
        own_postgres.start()
        async with asyncio.timeout(30):
            while not await _taken(intake):  # noqa: ASYNC110  it is Postgres that comes back
                await asyncio.sleep(0.2)


async def _taken(intake: Reception) -> bool:
    try:
        return (await intake.accept(delivery(alert("after")))).incident_id is not None
    except (psycopg.Error, TimeoutError):
        return False


async def _held(office: Office, intake: Reception, sent: list[Delivery]) -> list[Any]:
    """Send while somebody else has the turn; what became of them once it is free."""
    async with office.pool.connection() as other, other.transaction():
        await other.execute("lock table raw_delivery in access exclusive mode")
        first = asyncio.create_task(intake.accept(delivery(alert("first"))))
        await asyncio.sleep(0.2)  # its transaction waits for the lock
        rest = [asyncio.create_task(intake.accept(one)) for one in sent]
        await asyncio.sleep(0.1)
    return await asyncio.gather(first, *rest, return_exceptions=True)


async def test_more_than_can_wait_are_refused(office: Office) -> None:
    one = delivery(alert("a"))
    sent = [replace(one, id=delivery().id, parsed=None, error="unread") for _ in range(reception.MOST_WAITING + 3)]
    outcomes = await _held(office, Reception(office.desk), sent)
    refused = [n for n, o in enumerate(outcomes) if isinstance(o, Overloaded)]
    assert refused == [reception.MOST_WAITING + 1 + n for n in range(3)]
    assert len(await office.rows("select 1 from raw_delivery")) == reception.MOST_WAITING + 1


async def test_more_bytes_than_can_wait_are_refused_and_the_room_is_given_back(office: Office) -> None:
    intake = Reception(office.desk)
    half = bytes(reception.MOST_WAITING_BYTES // 2)
    big, second, small = (
        replace(delivery(alert(k)), body=b) for k, b in (("b", half), ("c", half + b"."), ("d", b"."))
    )
    outcomes = await _held(office, intake, [big, second, small])
    assert [isinstance(o, Overloaded) for o in outcomes] == [False, False, True, False]
    assert (await intake.accept(second)).incident_id
    assert intake._bytes == 0
