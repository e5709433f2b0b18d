"""What people do to the memory: put cases in, write them out, let it forget; on a real Postgres, and audited."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.db import transaction
from app.desk import NotAllowed
from app.embedded_postgres import EmbeddedPostgres
from app.knowledge.cases import Case, Query
from app.knowledge.fields import Complaint, Reading
from app.knowledge.files import Found, read, uploaded
from app.knowledge.runbooks import KnownRunbooks
from app.knowledge.search import search
from app.knowledge.upkeep import Taken, forget, lines, take
from app.security import Caller
from app.store import knowledge as store
from app.store.knowledge import Which
from collectors.base import LogsRead, Refused, Scope, Symptom, Target, Window
from tests.app.deciding import ANN, CATALOGUE, KIM, VERA, Office, offices
from tests.conftest import _execute, _named

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
ROWS = """\
title,date,service,component,cause,resolution
Shop answers slowly,2023-11-24T09:10:00Z,shop,db,All connections of the pool were taken,Doubled the tasks
Shop is down,2024-02-01T00:00:00Z,shop,cache,Evictions,
Without a time,,shop,,,
"""
RUNBOOK = """\
---
services: [shop]
---
# Shop
## Pool exhausted
Double the tasks of shop when its connection pool is exhausted.
"""
ELSEWHERE = RUNBOOK.replace("[shop]", "[reporting]").replace("of shop", "of it")
GENERAL = "# Anything\n## Certificates\nRenew the expired certificate by hand, then restart the gateway.\n"


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    async with offices(database_url) as made:
        yield made


def found(name: str, content: str) -> list[Found]:
    return list(read(uploaded(name, content.encode()), Reading(CATALOGUE, datetime.now(UTC))))


async def taken(office: Office, name: str, content: str, caller: Caller = KIM, *, dry_run: bool = False) -> Taken:
    return await take(office.pool, office.desk.clock, caller, found(name, content), dry_run=dry_run)


async def ids(office: Office) -> set[str]:
    return {row["id"] for row in await office.sql("select id from knowledge")}


async def written_out(office: Office) -> str:
    return "\n".join([line async for line in lines(office.pool)])


# --- import ---


async def test_good_rows_are_taken_and_found_and_bad_ones_named(office: Office) -> None:
    done = await taken(office, "a.csv", ROWS)
    assert (done.written, done.unchanged, done.left_out) == (2, 0, 1)
    assert str(done.complaints[0]).startswith("a.csv:4: it has no time")
    [hit, *_] = await search(office.pool, Query(text="connection pool taken", at=AT))
    assert (hit.title, hit.kind, hit.component, hit.source) == ("Shop answers slowly", "imported", "db", "a.csv")
    assert hit.reasons


async def test_the_same_again_changes_nothing_and_a_changed_row_changes_its_case(office: Office) -> None:
    await taken(office, "a.csv", ROWS)
    before = await office.sql("select id, sha256, learned_at from knowledge order by id")
    again = await taken(office, "a.csv", ROWS)
    assert (again.written, again.unchanged) == (0, 2)
    assert await office.sql("select id, sha256, learned_at from knowledge order by id") == before
    changed = await taken(office, "a.csv", ROWS.replace("Evictions", "No memory left"))
    assert (changed.written, changed.unchanged) == (1, 1)
    assert len(await ids(office)) == 2


async def test_a_dry_run_writes_nothing(office: Office) -> None:
    done = await taken(office, "a.csv", ROWS, dry_run=True)
    assert (done.written, done.left_out) == (2, 1)
    assert await ids(office) == set()
    assert await office.audited("knowledge") == []


async def test_who_imported_what_is_audited(office: Office) -> None:
    await taken(office, "a.csv", ROWS)
    await taken(office, "a.csv", ROWS)
    [entry] = await office.audited("knowledge")
    assert (entry["actor"], entry["subject"], entry["sources"]) == ("kim", "import", ["a.csv"])
    assert set(entry["cases"]) == await ids(office)


async def test_a_viewer_imports_nothing(office: Office) -> None:
    with pytest.raises(NotAllowed, match="vera is viewer; to import into the memory takes responder"):
        await taken(office, "a.csv", ROWS, VERA)


async def test_a_large_import_is_written_batch_by_batch(office: Office) -> None:
    rows = "".join(f"{n},Case {n},2024-01-01T00:00:00Z,word{n} pool\n" for n in range(250))
    seen: list[int] = []
    each = found("many.csv", f"id,title,date,summary\n{rows}")
    done = await take(office.pool, office.desk.clock, KIM, each, tell=seen.append)
    assert done.written == 250
    assert seen == [100, 100, 50]
    assert len(await office.audited("knowledge")) == 3


async def test_complaints_are_bounded(office: Office) -> None:
    told = (Complaint("a.csv", n, "bad") for n in range(1000))
    done = await take(office.pool, office.desk.clock, KIM, told)
    assert (done.left_out, len(done.complaints), done.unlisted) == (1000, 200, 800)


# --- export ---


async def test_what_was_written_out_is_read_in_again_elsewhere(office: Office, postgres: EmbeddedPostgres) -> None:
    await taken(office, "a.csv", ROWS)
    await taken(office, "runbook.md", RUNBOOK)
    out = await written_out(office)
    assert (await taken(office, "cases.jsonl", out)).unchanged == 3
    _execute(postgres.url, "create database elsewhere template template_autopilot")
    try:
        async with offices(_named(postgres.url, "elsewhere")) as other:
            assert (await taken(other, "cases.jsonl", out)).written == 3
            assert await written_out(other) == out
            [hit, *_] = await search(other.pool, Query(text="connection pool", at=AT, kinds=("imported",)))
            assert hit.title == "Shop answers slowly"
    finally:
        _execute(postgres.url, "drop database elsewhere with (force)")


async def test_an_incident_of_elsewhere_becomes_one_that_was_imported(office: Office) -> None:
    case = Case(id="inc_elsewhere", kind="incident", incident_id="inc_elsewhere", title="t", occurred_at=AT, fold="f")
    for written, unchanged in ((1, 0), (0, 1)):
        done = await taken(office, "cases.jsonl", case.model_dump_json())
        assert (done.written, done.unchanged) == (written, unchanged)
    [row] = await office.sql("select id, kind, incident_id, source, fold from knowledge")
    assert (row["kind"], row["incident_id"], row["source"]) == ("imported", None, "exported")
    assert row["fold"] == "exported:f"
    assert row["id"].startswith("imported_")


async def test_an_incident_of_elsewhere_is_found_by_the_same_words_however_often_it_travels(office: Office) -> None:
    incident = await office.open()
    ours = Case(
        id=incident,
        kind="incident",
        incident_id=incident,
        title="t",
        report=" ".join(f"word{n}" for n in range(3_000)),
        keywords="iOS17beta 8.2 could not connect, PoolTimeout, 커넥션이 없습니다",
        occurred_at=AT,
        fold="incident:f",
    )
    async with transaction(office.pool) as connection:
        await store.save(connection, ours)
    out = await written_out(office)
    assert (await taken(office, "cases.jsonl", out, ANN)).unchanged == 1  # it is ours
    assert (await taken(office, "cases.jsonl", out.replace(incident, "inc_elsewhere"), ANN)).written == 1
    told = "select id, searchable, sha256, learned_at from knowledge order by id"
    before = await office.sql(told)
    for row in before:
        assert {"ios17beta", "pooltimeout", "커넥"} <= set(row["searchable"].split())
        assert "word1" not in row["searchable"].split()
    assert (await taken(office, "backup.jsonl", await written_out(office), ANN)).unchanged == 2
    assert await office.sql(told) == before


async def test_nothing_that_is_imported_hides_an_incident_of_ours(office: Office) -> None:
    incident = await office.open()
    ours = Case(id=incident, kind="incident", incident_id=incident, title="ours", occurred_at=AT, fold="incident:f")
    async with transaction(office.pool) as connection:
        await store.save(connection, ours)
    newer = {"id": "imported_x", "kind": "imported", "title": "forged", "occurred_at": datetime.now(UTC)}
    await taken(office, "cases.jsonl", ours.model_copy(update=newer).model_dump_json(), ANN)
    found = await search(office.pool, Query(at=AT))
    assert {(hit.title, hit.incident_id) for hit in found} == {("ours", incident), ("forged", None)}


async def test_cases_of_an_environment_are_found_whichever_of_its_names_is_asked_for(office: Office) -> None:
    await taken(office, "a.csv", ROWS.replace("date,", "date,env,").replace("Z,", "Z,prod,"))
    for name in ("prod", "Production", "prd"):
        assert len(await search(office.pool, Query(environment=name, at=AT))) == 2
    assert await search(office.pool, Query(environment="stg", at=AT)) == []


async def test_whatever_took_the_place_of_another_is_named(office: Office) -> None:
    rows = "id,title,date\n1,Shop is down,2024-01-01T00:00:00Z\n2,Slow,2024-01-02T00:00:00Z\n"
    await taken(office, "a.csv", rows)
    done = await taken(office, "a.csv", rows.replace("Slow", "Slower"))
    assert (done.written, done.complaints) == (1, [])  # the same one, told better
    done = await taken(office, "a.csv", "id,title,date\n1,Disk full,2025-03-01T00:00:00Z\n")
    assert (done.written, done.left_out) == (1, 0)
    assert [str(one) for one in done.complaints] == [
        "a.csv: 'Shop is down' of 2024-01-01 was known by the same name, and was replaced by 'Disk full';"
        " if it was another, rename one"
    ]


async def test_a_page_that_took_the_place_of_another_is_named_once(office: Office) -> None:
    page = "# Shop\nRead.\n## Pool\nMore tasks.\n"
    await taken(office, "readme.md", f"---\ntitle: Shop\n---\n{page}")
    done = await taken(office, "readme.md", f"---\ntitle: Till\n---\n{page}")
    assert done.written == 2
    assert [str(one) for one in done.complaints] == [
        "readme.md: 'Shop' was known by the same name, and was replaced by 'Till'; if it was another, rename one"
    ]


# --- forget ---


async def test_what_is_forgotten_is_found_no_more_and_its_terms_are_gone(office: Office) -> None:
    await taken(office, "a.csv", ROWS)
    await taken(office, "runbook.md", RUNBOOK)
    assert await forget(office.pool, office.desk.clock, ANN, Which(source="a.csv")) == 2
    [left] = await search(office.pool, Query(text="shop connection pool", at=AT))
    assert left.kind == "runbook"
    assert await office.sql("select * from remedy") == []
    assert {r["knowledge_id"] for r in await office.sql("select knowledge_id from knowledge_term")} == {left.id}
    entry = (await office.audited("knowledge"))[-1]
    assert (entry["subject"], entry["asked"], entry["actor"]) == ("forget", {"source": "a.csv"}, "ann")
    assert await forget(office.pool, office.desk.clock, ANN, Which(source="a.csv")) == 0


async def test_by_age(office: Office) -> None:
    await taken(office, "a.csv", ROWS)
    assert await forget(office.pool, office.desk.clock, ANN, Which(before=datetime(2024, 1, 1, tzinfo=UTC))) == 1
    [row] = await office.sql("select title from knowledge")
    assert row["title"] == "Shop is down"


async def test_only_an_admin_lets_it_forget(office: Office) -> None:
    with pytest.raises(NotAllowed, match="kim is responder; to let the memory forget takes admin"):
        await forget(office.pool, office.desk.clock, KIM, Which(id="x"))


# --- imported runbooks, as a source of an investigation ---


def scope(title: str) -> Scope:
    span = Window(start=AT - timedelta(minutes=10), end=AT)
    targets = (Target(service="shop"), Target(service="db", hops=1))
    symptom = Symptom(title=title, text="HikariPool exhausted")
    return Scope(service="shop", occurred_at=AT, incident=span, baseline=(span,), targets=targets, symptom=symptom)


async def test_sections_that_fit_are_quoted_with_why(office: Office) -> None:
    for name, content in (("a.md", RUNBOOK), ("b.md", ELSEWHERE), ("runbook-c.md", GENERAL)):
        await taken(office, name, content)
    collector = KnownRunbooks(office.pool)
    [document] = (await collector.collect(scope("shop: connection pool exhausted"))).documents
    assert (document.title, document.section) == ("Shop", "Shop > Pool exhausted")
    assert document.text == "Double the tasks of shop when its connection pool is exhausted."
    assert document.services == ("shop",)
    assert "pool" in document.why
    told = (await collector.collect(scope("certificate expired at the gateway"))).documents
    assert "Anything" in [document.title for document in told]
    assert (await collector.check(), await collector.measure([], scope("x").incident)) == ([], [])


async def test_an_empty_memory_has_nothing_to_quote_and_answers_no_questions(office: Office) -> None:
    collector = KnownRunbooks(office.pool)
    assert (await collector.collect(scope("x"))).documents == ()
    with pytest.raises(Refused, match="answers no questions about logs"):
        await collector.read(LogsRead(component="shop", contains="pool"), scope("x"))


async def test_long_sections_are_cut_and_say_so(office: Office) -> None:
    await taken(office, "runbook-a.md", RUNBOOK + "word " * 2_000)
    [document] = (await KnownRunbooks(office.pool).collect(scope("shop: connection pool exhausted"))).documents
    assert document.text.endswith("\n[…]")
    assert len(document.text) < 4_100


async def test_an_investigation_is_told_of_them(office: Office) -> None:
    await taken(office, "a.md", RUNBOOK)
    deps = replace(office.deps, collectors=[KnownRunbooks(office.pool)])
    incident = await replace(office, deps=deps).planned()
    [row] = await office.sql("select evidence from analysis where incident_id = %s", incident)
    assert [d["section"] for d in row["evidence"]["documents"]] == ["Shop > Pool exhausted"]
