"""The memory on a real Postgres: what is remembered, what is found again, and why."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.db import transaction
from app.knowledge import remember
from app.knowledge.cases import Case, Remedy, case_id
from app.store import incidents
from app.store import knowledge as store
from graph.signature import Signature
from graph.state import StepResult, Verdict
from tests.app.archive import NOW, Archive, evidence, now, plan_of
from tests.app.test_alerts import at_work


@pytest.fixture
async def archive(database_url: str) -> AsyncIterator[Archive]:
    """An empty one."""
    async with at_work(database_url) as office:
        yield Archive(office)


async def save(archive: Archive, *cases: Case) -> None:
    """As an import does."""
    async with transaction(archive.office.pool) as connection:
        for case in cases:
            await store.save(connection, case)


def imported(title: str, key: str = "1", **changes: Any) -> Case:
    """A case of a file."""
    known = {
        "id": case_id("imported", "old.csv", key),
        "kind": "imported",
        "title": title,
        "occurred_at": NOW,
        "source": "old.csv",
    }
    return Case.model_validate(known | changes)


async def counted(archive: Archive) -> dict[str, int]:
    """Rows of what cases are found by, and what was done."""
    (row,) = await archive.office.rows(
        """select (select count(*) from knowledge) as cases, (select count(*) from knowledge_term) as terms,
               (select count(*) from remedy) as remedies, (select count(*) from knowledge_frequency) as frequencies"""
    )
    return row


# --- remember -----------------------------------------------------------------------------------------------------


async def test_what_was_run_and_what_came_of_it_is_remembered(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "db", "slow_queries")
    await archive.found(incident, "shop", "connection_pool_exhaustion", seen=evidence("shop", "PoolTimeoutError"))
    await archive.ran(incident, ["restart_ecs_task", "reduce_traffic"], "resolved")
    await archive.close(incident)
    (past,) = await archive.past.similar("inc_now", now(), evidence("shop"))
    assert (past.incident_id, past.component, past.category) == (incident, "shop", "connection_pool_exhaustion")
    assert (past.title, past.remedy) == (
        "shop: connection_pool_exhaustion",
        "Do something (restart_ecs_task, reduce_traffic)",
    )
    assert (past.verdict, past.wrong, past.at) == ("resolved", False, f"{NOW:%Y-%m-%d}")
    assert past.reasons[:2] == ("the same alert", "component shop")
    case = await archive.case(incident)
    assert case["signature"]["error_types"] == ["PoolTimeoutError"]
    assert incident in case["report"]


async def test_remembered_twice_is_once(archive: Archive) -> None:
    incident = await archive.ended(verdict="resolved")
    before = await counted(archive)
    assert not await archive.learn(incident)
    assert await counted(archive) == before
    assert [hit.seen for hit in await archive.search("leak")] == [1]


async def test_many_at_once_are_each_remembered_once(archive: Archive) -> None:
    made = [await archive.open(f"f{n % 3}") for n in range(6)]
    for incident in made:
        await archive.found(incident, "db", "leak")
    for incident in dict.fromkeys(made):
        await archive.close(incident, learn=False)
    await asyncio.gather(*(archive.learn(incident) for incident in made for _ in range(3)))
    assert sum(hit.seen for hit in await archive.search("leak", limit=50)) == len(set(made))


async def test_an_incident_that_is_open_is_no_case(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "db", "leak")
    assert not await archive.learn(incident)
    assert not await remember.remember(archive.office.pool, "inc_of_nobody")
    assert await archive.search("leak") == []


async def test_failures_and_rejected_options_are_kept_as_such(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "db", "leak", plan=plan_of("restart_ecs_task", "reduce_traffic"))
    await archive.ran(incident, ["restart_ecs_task"], "worse")
    await archive.decide(incident, "r2", "manual", "renewed the certificate")
    await archive.close(incident)
    rows = await archive.office.rows("select * from remedy order by ordinal")
    assert [(r["operation"], r["fate"], r["verdict"], r["option"]) for r in rows] == [
        ("restart_ecs_task", "run", "worse", 1),
        ("reduce_traffic", "rejected", "", 2),
        ("", "by_hand", "", 0),
    ]
    assert {(r["category"], r["component"], r["service"]) for r in rows} == {("leak", "db", "shop")}
    (hit,) = await archive.search("leak")
    assert hit.outcome == "by_hand"


async def test_options_of_a_plan_that_was_made_anew_are_kept_as_rejected(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "db", "leak", plan=plan_of("restart_ecs_task", "reduce_traffic"))
    await archive.ran(incident, ["restart_ecs_task"], "unchanged")
    async with transaction(archive.office.pool) as connection:
        anew = plan_of("rollback_ecs_service", revision="r2").model_dump(mode="json")
        await incidents.save_analysis(connection, incident, 1, plan=anew)
    await archive.ran(incident, ["rollback_ecs_service"], "resolved", "r2")
    await archive.close(incident)
    rows = await archive.office.rows("select operation, fate from remedy order by ordinal")
    assert [tuple(row.values()) for row in rows] == [
        ("restart_ecs_task", "run"),
        ("reduce_traffic", "rejected"),
        ("rollback_ecs_service", "run"),
    ]


@pytest.mark.parametrize(
    ("verdict", "status", "kept"),
    [
        ("improved", "failed", "not_measurable"),
        ("unchanged", "unknown", "not_measurable"),
        ("worse", "failed", "worse"),
        ("unchanged", "skipped", "unchanged"),  # nobody approved that step: the rest was all that was to be done
    ],
)
async def test_an_option_that_stopped_half_way_was_not_tried(
    archive: Archive, verdict: Verdict, status: Any, kept: str
) -> None:
    incident = await archive.open()
    await archive.found(incident, "db", "leak")
    await archive.ran(incident, ["reduce_traffic"], verdict, then=StepResult(ordinal=2, operation="o", status=status))
    await archive.close(incident)
    assert await archive.office.rows("select operation, verdict from remedy") == [
        {"operation": "reduce_traffic", "verdict": kept}
    ]
    assert bool(await archive.past.track_record("leak", "db", "production")) == (kept != "not_measurable")


@pytest.mark.parametrize(
    ("ran", "outcome", "fate"),
    [
        ({"verdict": "resolved"}, "resolved", "run"),
        ({"verdict": "resolved", "credit": "by_itself"}, "recovered", "run"),
        ({"verdict": "improved"}, "improved", "run"),
        ({"verdict": "not_measurable"}, "unresolved", "run"),
        ({"verdict": "resolved", "made": False}, "unresolved", "rehearsed"),
    ],
)
async def test_how_it_ended(archive: Archive, ran: Any, outcome: str, fate: str) -> None:
    incident = await archive.open()
    await archive.found(incident, "db", "leak")
    await archive.ran(incident, ["restart_ecs_task"], **ran)
    await archive.close(incident)
    assert (await archive.case(incident))["outcome"] == outcome
    assert [r["fate"] for r in await archive.office.rows("select fate from remedy")] == [fate]


async def test_what_a_person_did_by_hand_is_remembered_too(archive: Archive) -> None:
    incident = await archive.open()
    await archive.found(incident, "shop", "expired_certificate")
    await archive.decide(incident, "r1", "manual", "renewed the certificate")
    await archive.close(incident)
    (past,) = await archive.past.similar("inc_now", now(), evidence())
    assert (past.remedy, past.verdict) == ("by hand: renewed the certificate", "by_hand")


# --- who is to be learned ------------------------------------------------------------------------------------------


async def unlearned(archive: Archive) -> list[str]:
    """As the sweep asks."""
    async with transaction(archive.office.pool) as connection:
        return await store.unlearned(connection, 100)


async def test_what_ended_is_to_be_learned_until_it_is(archive: Archive) -> None:
    incident = await archive.open()
    assert await unlearned(archive) == []
    await archive.close(incident, learn=False)
    assert await unlearned(archive) == [incident]  # killed between: nothing but its end says so
    await archive.learn(incident)
    assert await unlearned(archive) == []


async def test_an_incident_that_was_reopened_is_learned_again_when_it_ends(archive: Archive) -> None:
    incident = await archive.ended()
    await archive.office.rows("update incident set closed_at = null, status = 'received' where id = %s", incident)
    assert await unlearned(archive) == []
    await archive.close(incident, learn=False)
    assert await unlearned(archive) == [incident]


async def test_a_case_that_is_half_written_is_not_written(archive: Archive) -> None:
    incident = await archive.ended(verdict="resolved")
    before, case = await counted(archive), await archive.case(incident)

    async def broken_off() -> None:
        async with transaction(archive.office.pool) as connection:
            await connection.execute("delete from analysis where incident_id = %s", (incident,))
            assert await remember.remember_in(connection, incident)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken_off()
    assert (await counted(archive), await archive.case(incident)) == (before, case)


async def test_the_memory_can_be_made_again(archive: Archive) -> None:
    made = [await archive.ended(fingerprint="f", verdict="resolved"), await archive.ended("web", fingerprint="g")]
    before = await counted(archive)
    async with transaction(archive.office.pool) as connection:
        assert await store.forget(connection, made) == 2
    assert await counted(archive) == {"cases": 0, "terms": 0, "remedies": 0, "frequencies": 0}
    for incident in made:
        await archive.learn(incident)
    assert await counted(archive) == before


# --- folds --------------------------------------------------------------------------------------------------------


async def test_one_flapping_alert_is_one_case(archive: Archive) -> None:
    made = [await archive.ended(verdict="resolved", days_ago=days) for days in (3, 1, 2)]
    other = await archive.ended("web", "leak")
    hits = await archive.search("leak")
    assert {(hit.id, hit.seen) for hit in hits} == {(made[1], 3), (other, 1)}
    assert len(await archive.office.rows("select * from remedy")) == 3
    async with transaction(archive.office.pool) as connection:
        assert await store.folded_into(connection, made[1]) == [made[1], made[2], made[0]]


async def test_what_helped_is_not_lost_in_a_fold(archive: Archive) -> None:
    made = [await archive.ended(verdict="resolved", days_ago=days) for days in (3, 2, 1)]
    told = {"about": "option", "verdict": "right", "option": 1, "plan_revision": f"plan-of-{made[1]}"}
    await archive.say(made[1], **told, helped="restart_ecs_task")
    (hit,) = await archive.search("leak")
    assert (hit.id, hit.seen, hit.helped) == (made[1], 3, "restart_ecs_task")
    newer = await archive.ended(verdict="resolved")
    await archive.say(newer, **(told | {"plan_revision": f"plan-of-{newer}"}), helped="restart_ecs_task")
    (hit,) = await archive.search("leak")
    assert (hit.id, hit.seen) == (newer, 4)


async def test_a_case_leaves_its_fold_when_its_cause_is_corrected(archive: Archive) -> None:
    made = [await archive.ended(days_ago=days) for days in (1, 2)]
    await archive.say(made[0], component="cache", category="cache_failure")
    found = {hit.id: hit for hit in await archive.search("shop")}
    assert {id_: (hit.component, hit.seen) for id_, hit in found.items()} == {made[0]: ("cache", 1), made[1]: ("db", 1)}
    await archive.say(made[0], verdict="right", component="db", category="leak")
    await archive.say(made[1], verdict="right")
    (hit,) = await archive.search("shop")
    assert (hit.id, hit.seen, hit.trust) == (made[0], 2, "right")


async def test_the_case_that_stood_for_others_is_forgotten(archive: Archive) -> None:
    made = [await archive.ended(days_ago=days) for days in (1, 2)]
    async with transaction(archive.office.pool) as connection:
        await store.forget(connection, [made[0]])
    (hit,) = await archive.search("leak")
    assert (hit.id, hit.seen) == (made[1], 1)
    assert await archive.similar(evidence("db")) == [made[1]]


# --- what people said ---------------------------------------------------------------------------------------------


async def test_a_wrong_analysis_comes_after_others_and_says_so(archive: Archive) -> None:
    wrong = await archive.ended("db", "leak", days_ago=1)
    plain = await archive.ended("web", "leak", days_ago=400, service="web")
    assert [hit.id for hit in await archive.search("leak")] == [wrong, plain]
    await archive.say(wrong)
    hits = await archive.search("leak")
    assert [hit.id for hit in hits] == [plain, wrong]
    assert hits[1].wrong
    assert "its analysis was called wrong" in hits[1].reasons
    found = {past.incident_id: past for past in await archive.past.similar("inc_now", now(), evidence("db"))}
    assert (found[wrong].wrong, found[plain].wrong) == (True, False)


async def test_a_corrected_cause_is_what_is_found(archive: Archive) -> None:
    incident = await archive.ended("db", "leak", verdict="unchanged")
    await archive.say(incident, component="cache", category="cache_failure", helped="flush_cache", note="캐시가 죽었다")
    (past,) = await archive.past.similar("inc_now", now(fingerprint="other", rule=""), evidence("cache"))
    assert (past.component, past.category, past.helped, past.wrong) == ("cache", "cache_failure", "flush_cache", True)
    assert past.title == "cache: cache failure"
    assert "a person corrected its cause" in past.reasons
    rows = await archive.office.rows("select operation, category, fate, helped from remedy order by ordinal")
    assert [tuple(r.values()) for r in rows] == [
        ("restart_ecs_task", "cache_failure", "run", "no"),
        ("flush_cache", "cache_failure", "by_hand", "yes"),
    ]
    assert [hit.id for hit in await archive.search("캐시")] == [incident]


# --- search -------------------------------------------------------------------------------------------------------


async def test_an_empty_memory_finds_nothing(archive: Archive) -> None:
    assert await archive.search("anything") == await archive.search() == []
    assert await archive.similar(evidence("db", "Timeout")) == []
    assert await archive.past.track_record("leak", "db", "production") == {}


async def test_another_environment_is_not_searched(archive: Archive) -> None:
    here, there = [imported(f"the pool of {e} ran dry", e, environment=e) for e in ("production", "staging")]
    anywhere = imported("the pool ran dry somewhere", "3")
    await save(archive, here, there, anywhere)
    asked = Signature(components=("db",), alerts=("f",))
    await save(archive, *(c.model_copy(update={"signature": asked}) for c in (here, there, anywhere)))
    for query in ({"text": "pool"}, {"signature": asked}, {}):
        found = await archive.search(environment="production", **query)
        assert {hit.id for hit in found} == {here.id, anywhere.id}, query
        assert len(await archive.search(**query)) == 3
    assert set(await archive.similar(evidence("db"), environment="staging")) == {anywhere.id, there.id}


async def test_only_of_a_service_or_a_kind(archive: Archive) -> None:
    one, two = imported("pool", "1", service="shop"), imported("a pool", "2", component="shop", service="web")
    book = imported("pools and how to mend them", "3", kind="runbook", id="runbook_1", service="shop")
    await save(archive, one, two, book, imported("the pool", "4", service="web"))
    assert {hit.id for hit in await archive.search("pool", service="shop")} == {one.id, two.id, book.id}
    assert {hit.id for hit in await archive.search("pool", kinds=("runbook",))} == {"runbook_1"}
    assert [hit.id for hit in await archive.search(kinds=("runbook",))] == ["runbook_1"]


async def test_a_hit_says_why(archive: Archive) -> None:
    seen = evidence("db", "HikariPool PoolTimeoutException after 30 ms")
    incident = await archive.ended("db", "leak", seen=seen)
    (past,) = await archive.past.similar("inc_now", now(fingerprint="x", rule="", service="web"), seen)
    assert past.incident_id == incident
    assert "component db" in past.reasons
    assert "error pooltimeoutexception" in past.reasons
    assert any(reason.startswith("words ") and "hikari" in reason for reason in past.reasons)


async def test_what_is_unlike_is_not_similar(archive: Archive) -> None:
    await archive.ended("db", "leak", fingerprint="f", service="mail", seen=evidence("db", "OutOfMemoryError"))
    for n in range(5):
        await archive.ended(f"c{n}", "other", fingerprint=f"g{n}", service="mail")
    assert await archive.similar(evidence("frontend", "NullPointerException"), fingerprint="z") == []


async def test_the_newest_of_equals_come_first_and_few_are_enough(archive: Archive) -> None:
    made = [await archive.ended("db", f"c{days}", days_ago=days) for days in (30, 3, 300, 200)]
    assert await archive.similar(evidence("db")) == [made[1], made[0], made[3]]
    hits = await archive.search(signature=Signature(components=("db",)))
    ages = {hit.id: hit.score for hit in hits}
    assert ages[made[1]] > ages[made[0]] > ages[made[3]] > ages[made[2]]


async def test_an_incident_is_not_like_itself(archive: Archive) -> None:
    incident = await archive.ended()
    assert await archive.similar(evidence("db"), but=incident) == []


async def test_an_earlier_belief_does_not_count(archive: Archive) -> None:
    incident = await archive.open("other", "mail")
    await archive.found(incident, "db", "slow_queries")
    await archive.found(incident, "cache", "eviction")
    await archive.close(incident)
    (hit,) = await archive.search("eviction")
    assert (hit.component, hit.category) == ("cache", "eviction")
    assert await archive.search(signature=Signature(components=("db",))) == []


@pytest.mark.parametrize("word", ["결제", "결제가", "실패", "결제 서비스"])
async def test_korean_is_found_whatever_particle_follows(archive: Archive, word: str) -> None:
    await save(archive, imported("결제서비스에서 결제를 실패했습니다"), imported("로그인이 느립니다", "2"))
    assert [hit.title for hit in await archive.search(word)] == ["결제서비스에서 결제를 실패했습니다"]


@pytest.mark.parametrize("word", ["timeout", "Timeouts", "POOL", "pool_timeout", "PoolTimeoutError", "503"])
async def test_names_are_found_whole_and_in_parts(archive: Archive, word: str) -> None:
    await save(archive, imported("PoolTimeoutError with 503"), imported("disk full 42", "2"))
    assert [hit.title for hit in await archive.search(word)] == ["PoolTimeoutError with 503"]


HOSTILE = (
    "'; drop table knowledge; --",
    "\x00\ud800 nul and half a pair",
    "a & b | !c <-> :* ' \\ ''",
    "%s %(id)s {0}",
    "x" * 3_000_000,
    " ".join(f"word{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}{n}" for n in range(60_000)),
)


@pytest.mark.parametrize("text", HOSTILE)
async def test_hostile_text_is_inert_in_a_case_and_in_a_question(archive: Archive, text: str) -> None:
    names = Signature(components=(text,), rules=(text,), templates=(text,))
    case = imported(
        text[:1000], summary=text, report=text, keywords=text, service=text[:200], component=text[:200], signature=names
    )
    done = Remedy(operation=text[:200], title=text, fate="run", at=NOW, params={"a": text})
    await save(archive, case.model_copy(update={"remedies": (done,)}), imported("something else", "2"))
    hits = await archive.search(text, signature=names)
    assert case.id in {hit.id for hit in hits}
    assert len(await archive.search()) == 2
    (row,) = [row async for row in _every(archive) if row["id"] == case.id]
    assert row["remedies"][0]["operation"] == text[:200].replace("\x00", "").encode("utf-8", "replace").decode()


def _every(archive: Archive) -> AsyncIterator[dict[str, Any]]:
    return store.every(archive.office.pool, batch=1)


async def test_an_import_again_changes_nothing_and_a_new_text_replaces_the_old(archive: Archive) -> None:
    await save(archive, imported("the pool ran dry"))
    before = await counted(archive)
    async with transaction(archive.office.pool) as connection:
        assert not await store.save(connection, imported("the pool ran dry"))
        assert await store.save(connection, imported("the disk ran full"))
    assert [hit.title for hit in await archive.search("pool")] == []
    assert [hit.title for hit in await archive.search("disk")] == ["the disk ran full"]
    assert (await counted(archive))["cases"] == before["cases"]


async def test_the_same_text_from_two_files_is_one_case(archive: Archive) -> None:
    await save(
        archive, imported("pool"), imported("pool", "2", id=case_id("imported", "new.csv", "1"), source="new.csv")
    )
    (hit,) = await archive.search("pool")
    assert hit.seen == 2


async def test_forgetting_leaves_nothing_to_be_found_by(archive: Archive) -> None:
    done = Remedy(operation="restart_ecs_task", fate="run", verdict="resolved", at=NOW)
    gone = imported("the pool ran dry", signature=Signature(components=("db",)), category="leak", remedies=(done,))
    await save(archive, gone, imported("another", "2"))
    assert await archive.past.track_record("leak", "db", "production")
    async with transaction(archive.office.pool) as connection:
        which = store.Which(source="old.csv", before=datetime.now(UTC) + timedelta(days=1))
        assert await store.forget(connection, await store.ids(connection, which)) == 2
        assert await store.forget(connection, [gone.id]) == 0
    assert await counted(archive) == {"cases": 0, "terms": 0, "remedies": 0, "frequencies": 0}
    assert await archive.past.track_record("leak", "db", "production") == {}
