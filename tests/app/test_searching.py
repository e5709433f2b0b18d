"""What is found in a memory that is larger than what a search looks at."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.db import create_pool
from app.knowledge.cases import Case, case_id
from app.knowledge.runbooks import KnownRunbooks
from app.store import knowledge as store
from collectors.base import Scope, Symptom, Target, Window
from graph.signature import Signature
from tests.app.archive import NOW, Archive, evidence
from tests.app.test_alerts import at_work
from tests.app.test_knowledge import imported, save


@pytest.fixture
async def archive(database_url: str) -> AsyncIterator[Archive]:
    """An empty one."""
    async with at_work(database_url) as office:
        yield Archive(office)


def many(text: str, service: str, count: int) -> list[Case]:
    """The same text at another time each, the newest last."""
    return [
        imported(text, f"{text} {n}", service=service, occurred_at=NOW - timedelta(days=count - n))
        for n in range(count)
    ]


async def test_of_many_that_share_common_words_the_newest_are_looked_at(archive: Archive) -> None:
    cases = many("checkout timeout pool", "web", 205)
    await save(archive, *cases)
    assert (await archive.search("checkout timeout pool"))[0].id == cases[-1].id


async def test_where_the_rarest_words_are_another_services_the_next_ones_find(archive: Archive) -> None:
    apart = [*many("connection timeout", "payment", 3), *many("pool", "payment", 3)]
    await save(archive, *many("checkout timeout pool", "web", 205), *apart, *many("pool timeout", "stock", 3))
    assert {hit.service for hit in await archive.search("checkout timeout pool", service="stock")} == {"stock"}
    found = await archive.search("checkout timeout pool", service="payment")
    assert {hit.id for hit in found} == {case.id for case in apart}


async def test_the_newest_texts_are_asked_alone_for_words_that_are_everywhere(archive: Archive) -> None:
    cases = [*many("pool timeout", "web", 3), imported("pool", service="web"), imported("pool timeout", "2")]
    await save(archive, *cases)
    narrow, weights = store.Narrow(["imported"], None, service="web"), {"pool": 1.0, "timeout": 1.0}
    async with archive.office.pool.connection() as connection:
        found = await store.by_words(connection, "'pool' & 'timeout'", weights, narrow, lately=True)
    assert [one.id for one in found] == [case.id for case in cases[2::-1]]


async def test_a_services_runbook_is_found_among_many_of_its_cases(archive: Archive) -> None:
    known = Signature(services=("shop",))
    book = Case(
        id=case_id("runbook", "shop.md", "1"),
        kind="runbook",
        title="Zahlungen",
        report="Mehr Instanzen.",
        service="shop",
        signature=known,
        occurred_at=NOW - timedelta(days=9_000),
    )
    cases = (case.model_copy(update={"signature": known}) for case in many("trouble", "shop", 110))
    await save(archive, book, *cases)
    span = Window(start=NOW - timedelta(minutes=10), end=NOW)
    symptom = Symptom(title="Connection pool exhausted", text="")
    targets = (Target(service="shop"),)
    scope = Scope(service="shop", occurred_at=NOW, incident=span, baseline=(span,), targets=targets, symptom=symptom)
    [document] = (await KnownRunbooks(archive.office.pool).collect(scope)).documents
    assert (document.title, document.why) == ("Zahlungen", "alerted service shop")


async def test_cases_that_are_alike_by_terms_are_taken_newest_first(archive: Archive) -> None:
    known = Signature(components=("db",), alerts=("f",))
    alike = [case.model_copy(update={"signature": known}) for case in many("trouble", "shop", 60)]
    await save(archive, *alike)
    assert await archive.similar(evidence("db")) == [case.id for case in alike[:-4:-1]]


async def test_an_incident_of_no_environment_is_shown_cases_of_none(archive: Archive) -> None:
    known = Signature(components=("db",), alerts=("f",))
    there, anywhere = imported("a", "1", environment="production"), imported("b", "2")
    await save(archive, *(case.model_copy(update={"signature": known}) for case in (there, anywhere)))
    assert await archive.similar(evidence("db"), environment="") == [anywhere.id]


async def test_who_reads_all_of_it_slowly_holds_no_connection(archive: Archive, database_url: str) -> None:
    await save(archive, imported("a", "1"), imported("b", "2"))
    seen = []
    async with create_pool(database_url, min_size=1, max_size=1) as pool:
        async for row in store.every(pool, batch=1):
            async with pool.connection() as connection:
                seen.append(await store.get(connection, row["id"]))
    assert len(seen) == 2
