"""What people say counts at once, is changeable, and stays on record; whose word counts, and what it changes."""

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from app.audit import verify
from app.db import transaction
from app.desk import UseCaseError
from app.feedback import Given, give, given, similar
from app.knowledge.search import PostgresPast
from app.opinions import Feedback
from app.runner import Runner
from app.security import Caller
from app.store import incidents, track_records
from app.store.knowledge import take_turn
from graph.llms.base import Counted, TrackRecord
from graph.llms.scripted import ScriptedAnalyst
from graph.memory import remembering
from graph.state import Evidence, Execution, PastIncident, Plan, RootCause, StepResult, Verification
from graph.track_record import OPINION
from tests.app.deciding import ANN, CAUSE, KIM, OPTIONS, VERA, Office, offices, option
from tests.app.doors import autopilot, client_of, key_of, product_of, served

LEAK = CAUSE.model_copy(update={"component": "shop", "category": "memory_exhaustion"})


class Rememberers:
    """An office whose incidents end, and what it remembers of them."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.opened = 0

    @property
    def past(self) -> PostgresPast:
        """What a worker of the office asks."""
        return PostgresPast(self.office.pool, self.office.desk.clock)

    async def ended(
        self, verdict: str = "resolved", *, credit: str = "remedy", cause: RootCause = LEAK, choice: str = "1"
    ) -> str:
        """An incident of that cause, whose option 1 or 2 was run, and that is over."""
        self.opened += 1
        incident = await self.office.open(f"c{self.opened}")
        analyst = ScriptedAnalyst(cause, OPTIONS)
        await Runner(self.office.pool, replace(self.office.deps, analyst=analyst)).advance(incident)
        revision = await self.office.revision(incident)
        await self.office.decide(incident, choice)
        execution = Execution(
            plan_revision=revision,
            choice=choice,
            title=OPTIONS[int(choice) - 1].title,
            results=(StepResult(ordinal=1, operation="turn_dial", status="succeeded", made=True),),
            verification=Verification.model_validate({"verdict": verdict, "credit": credit}),
        )
        async with transaction(self.office.pool) as connection:
            body = execution.model_dump(mode="json", by_alias=True)
            await incidents.save_execution(connection, incident, revision, body)
            await incidents.set_status(connection, incident, "resolved")
        return incident

    async def say(self, incident: str, verdict: str = "wrong", by: Caller = KIM, **more: Any) -> Given:
        """Of the report, unless it is said of what."""
        feedback = Feedback.model_validate({"about": "report", "verdict": verdict, **more})
        return await give(self.office.desk, incident, feedback, by)

    async def refused(self, incident: str, by: Caller = KIM, **more: Any) -> tuple[str, str]:
        """The reason and the text of a refusal; an AssertionError if it was none."""
        try:
            stored = await self.say(incident, by=by, **more)
        except UseCaseError as error:
            return error.reason, str(error)
        raise AssertionError(f"not refused: {stored}")

    async def counted(self, category: str = "memory_exhaustion", component: str = "shop") -> dict[str, Counted]:
        """By operation what was counted on the component."""
        return {name: one.here for name, one in (await self.record(category, component)).items()}

    async def record(
        self, category: str = "memory_exhaustion", component: str = "shop", environment: str = "production"
    ) -> Mapping[str, TrackRecord]:
        """By operation, as the planner is told."""
        return await self.past.track_record(category, component, environment)


@pytest.fixture
async def known(database_url: str) -> AsyncIterator[Rememberers]:
    async with offices(database_url) as office:
        yield Rememberers(office)


# --- what it changes ---


async def test_an_option_that_is_called_wrong_is_no_success_any_more_at_once(known: Rememberers) -> None:
    incident = await known.ended("resolved")
    await known.say(incident, "right")
    assert await known.counted() == {"turn_dial": Counted(1, 1)}
    await known.say(incident, "wrong", about="option", option=1)
    assert await known.counted() == {"turn_dial": Counted(1, 0)}
    await known.say(incident, "partly", about="option", option=1)
    assert await known.counted() == {"turn_dial": Counted(1, 0.5)}


async def test_a_verification_that_is_called_wrong_is_turned_round(known: Rememberers) -> None:
    incident = await known.ended("unchanged")
    await known.say(incident, "right", about="verification")
    assert await known.counted() == {"turn_dial": Counted(1, 0)}
    await known.say(incident, "wrong", about="verification")
    assert await known.counted() == {"turn_dial": Counted(1, 1)}


async def test_a_recovery_by_itself_is_no_success_unless_people_say_so(known: Rememberers) -> None:
    incident = await known.ended("resolved", credit="by_itself")
    await known.say(incident, "right", about="verification")
    assert await known.counted() == {"turn_dial": Counted(1, 0)}
    await known.say(incident, "right", about="option", option=1)
    assert await known.counted() == {"turn_dial": Counted(1, 1)}


async def test_what_really_helped_counts_for_the_operation_that_helped(known: Rememberers) -> None:
    incident = await known.ended("resolved")
    await known.say(incident, "partly", helped="restart_ecs_task")
    assert await known.counted() == {"turn_dial": Counted(1, 0.5), "restart_ecs_task": Counted()}
    named = (await known.record())["restart_ecs_task"]
    assert (named.runs, named.resolved) == pytest.approx((OPINION, OPINION), abs=0.01)
    await known.say(incident, "partly", helped="somebody restarted the router")
    assert await known.counted() == {"turn_dial": Counted(1, 1)}


@pytest.mark.parametrize(
    ("credit", "by", "resolved"), [("remedy", KIM, 0.5), ("remedy", ANN, 0), ("unclear", KIM, 0), ("unclear", ANN, 0)]
)
async def test_what_is_proven_is_not_undone_by_a_responder_who_names_something_else(
    known: Rememberers, credit: str, by: Caller, resolved: float
) -> None:
    incident = await known.ended("resolved", credit=credit)
    await known.say(incident, by=by, helped="restart_ecs_task")
    assert (await known.counted())["turn_dial"] == Counted(1, resolved)


async def test_a_corrected_cause_moves_the_remedy_to_where_it_belongs(known: Rememberers) -> None:
    incident = await known.ended("unchanged")
    await known.say(incident, component="db", category="database_degradation", helped="reboot_db_instance")
    assert await known.counted() == {}
    assert await known.counted("database_degradation", "db") == {
        "turn_dial": Counted(1, 0),
        "reboot_db_instance": Counted(),
    }
    here = (await known.record("database_degradation", "db"))["reboot_db_instance"]
    there = (await known.record("database_degradation", "shop"))["reboot_db_instance"]
    assert here.resolved > there.resolved > 0
    overview = await given(known.office.desk, incident)
    assert (overview.component, overview.category, overview.helped) == (
        "db",
        "database_degradation",
        "reboot_db_instance",
    )


async def test_a_rejected_option_that_is_called_wrong_counts_a_little_against_it(known: Rememberers) -> None:
    incident = await known.ended("resolved", choice="1")
    await known.say(incident, "wrong", about="option", option=2)
    record = (await known.record())["force_dial"]
    assert record.here == Counted()
    assert 0 < record.runs < 1
    assert record.resolved == 0


async def test_retrieval_knows_a_wrong_analysis(known: Rememberers) -> None:
    first, second = await known.ended(), await known.ended()
    await known.say(first, "wrong", component="db", category="database_degradation", helped="rebooted by hand")
    await known.say(second, "right")
    now = await known.office.open("c1")
    found = {past.incident_id: past for past in await similar(known.office.desk, known.past, now)}
    assert found[first].component == "db"
    assert found[first].helped == "rebooted by hand"
    assert found[first].reasons
    assert found[second].component == "shop"


async def test_several_people_disagree_and_the_most_trusted_counts(known: Rememberers) -> None:
    incident = await known.ended("unchanged")
    bob = Caller("bob", "responder")
    assert (await known.say(incident, "right", KIM, about="option", option=1)).stands.by == "kim"
    assert (await known.say(incident, "wrong", bob, about="option", option=1)).stands.by == "bob"
    assert (await known.say(incident, "partly", ANN, about="option", option=1)).stands.by == "ann"
    stored = await known.say(incident, "right", KIM, about="option", option=1)
    assert stored.stands.by == "ann"
    assert stored.replaced
    assert stored.counts == {"right": 1, "wrong": 1, "partly": 1}
    assert await known.counted() == {"turn_dial": Counted(1, 0.5)}


async def test_feedback_on_an_open_incident_counts_once_it_is_over(known: Rememberers) -> None:
    incident = await known.office.planned()
    await known.say(incident, component="cache", category="cache_failure", helped="turn_dial")
    assert await known.record("cache_failure", "cache") == {}
    async with transaction(known.office.pool) as connection:
        await incidents.set_status(connection, incident, "closed")
    await known.say(incident, "partly", KIM, about="option", option=2)
    [record] = (await known.record("cache_failure", "cache")).values()
    assert record.resolved == record.runs > 0


async def test_feedback_on_an_incident_that_was_reopened_counts_at_once(known: Rememberers) -> None:
    incident = await known.ended("unchanged")
    await known.say(incident, "right")
    await known.office.sql("update incident set closed_at = null, status = 'awaiting_decision' where id = %s", incident)
    await known.say(incident, component="db", category="database_degradation")
    assert await known.counted() == {}
    assert await known.counted("database_degradation", "db") == {"turn_dial": Counted(1, 0)}


async def test_what_is_said_is_kept_where_the_case_cannot_be_written(known: Rememberers) -> None:
    """The alert as an older version stored it."""
    incident = await known.ended("resolved")
    await known.say(incident, "right")
    before = await known.office.sql("select * from remedy order by ordinal")
    await known.office.sql("update incident set alert = alert - 'title' where id = %s", incident)
    await known.say(incident, "wrong", about="option", option=1)
    assert [s.verdict for s in (await given(known.office.desk, incident)).feedback] == ["right", "wrong"]
    assert await known.office.sql("select * from remedy order by ordinal") == before
    assert await known.office.sql("select learned_at from incident where id = %s", incident) == [{"learned_at": None}]


async def test_what_is_said_is_kept_where_others_keep_the_memory_to_themselves(known: Rememberers) -> None:
    incident = await known.ended("resolved")
    async with transaction(known.office.pool) as others:
        await take_turn(others)
        await known.say(incident, "wrong")
    assert [s.verdict for s in (await given(known.office.desk, incident)).feedback] == ["wrong"]
    assert await known.office.sql("select learned_at from incident where id = %s", incident) == [{"learned_at": None}]


@pytest.mark.parametrize(("written", "here"), [("prod", True), ("production", True), ("", True), ("staging", False)])
async def test_runs_count_in_full_in_the_environment_of_the_incident(
    known: Rememberers, written: str, here: bool
) -> None:
    incident = await known.ended("resolved")
    await known.office.sql("update incident set environment = 'PROD' where id = %s", incident)
    await known.say(incident, "right")
    record = (await known.record(environment=written))["turn_dial"]
    assert (record.here == Counted(1, 1), record.elsewhere == Counted(1, 1)) == (here, not here)


# --- the record ---


async def test_the_newest_of_an_author_stands_and_the_older_is_in_the_audit_log(known: Rememberers) -> None:
    incident = await known.office.planned()
    await known.say(incident, "right")
    changed = await known.say(incident, "wrong", component="db", note="it was the disk")
    assert changed.replaced
    overview = await given(known.office.desk, incident)
    assert [(s.verdict, s.component, s.note) for s in overview.feedback] == [("wrong", "db", "it was the disk")]
    first, second = await known.office.audited("feedback", incident)
    assert (first["actor"], first["verdict"], "before" in first) == ("kim", "right", False)
    assert (second["verdict"], second["before"]["verdict"]) == ("wrong", "right")
    lines = await known.office.sql("select message from event where kind = 'feedback' order by id")
    assert [line["message"] for line in lines] == [
        "kim called the report right",
        "kim called the report wrong (before: right); the cause was db: it was the disk",
    ]
    async with known.office.pool.connection() as connection:
        assert (await verify(connection)).findings == []


async def test_a_refused_feedback_changes_nothing(known: Rememberers) -> None:
    incident = await known.ended()
    assert (await known.refused(incident, component="nowhere"))[0] == "catalogue"
    assert await known.office.sql("select 1 from feedback") == []
    assert await known.office.audited("feedback", incident) == []


# --- what is refused ---


@pytest.mark.parametrize(
    ("said", "reason", "part"),
    [
        (
            {"component": "nowhere"},
            "catalogue",
            "'nowhere' is in neither the service catalogue nor the evidence (cache",
        ),
        ({"category": "gremlins"}, "", "There is no category 'gremlins'; there are: bad_configuration"),
        ({"verdict": "right", "component": "db"}, "", "call the report right and name another cause"),
        ({"verdict": "right", "category": "disk_full"}, "", "call the report right and name another cause"),
        ({"helped": "restart_esc_task"}, "not_registered", "There is no operation 'restart_esc_task'"),
        ({"about": "option"}, "no_such_option", "Say which option"),
        ({"about": "option", "option": 1, "plan_revision": "other"}, "stale_plan", "no plan other; it has: "),
        ({"about": "verification", "plan_revision": "other"}, "stale_plan", "No option of plan other was run"),
    ],
)
async def test_what_cannot_be_meant_is_refused_with_what_could(
    known: Rememberers, said: dict[str, Any], reason: str, part: str
) -> None:
    found, text = await known.refused(await known.ended(), **said)
    assert (found, part in text) == (reason, True), text


async def test_what_only_an_earlier_incident_names_is_no_cause(known: Rememberers) -> None:
    incident = await known.ended()
    past = PastIncident(
        incident_id="imported_1", at="2024-11-29", component="mainframe", category="", title="It stopped"
    )
    at = known.office.desk.clock.now()
    evidence = remembering(Evidence(digest="", findings=(), suspects=()), [past], at).model_dump(mode="json")
    await known.office.sql("update analysis set evidence = %s where incident_id = %s", Jsonb(evidence), incident)
    assert "mainframe" not in (await given(known.office.desk, incident)).nameable
    assert (await known.refused(incident, component="mainframe"))[0] == "catalogue"


async def test_options_of_a_plan_that_was_made_anew_can_be_judged(known: Rememberers) -> None:
    incident = await known.office.planned()
    first = await known.office.revision(incident)
    anew = Plan.of(OPTIONS[:1], "", salt="anew").model_dump(mode="json")
    async with transaction(known.office.pool) as connection:
        for _ in range(2):  # a worker that died in between projects it again
            await incidents.save_analysis(connection, incident, 1, plan=anew)
    judged = await known.say(incident, "wrong", about="option", option=3, plan_revision=first)
    assert (judged.said.plan_revision, judged.said.option) == (first, 3)
    assert (await known.say(incident, about="option", option=1)).said.plan_revision == anew["revision"]
    assert (await known.refused(incident, about="option", option=2))[0] == "no_such_option"


async def test_who_only_looks_may_not_judge_and_nothing_is_judged_that_is_not_there(known: Rememberers) -> None:
    incident = await known.office.open()
    assert (await known.refused(incident, VERA))[0] == "not_allowed"
    assert (await known.refused("inc_\x00"))[0] == "not_found"
    for about, part in (("report", "no analysis yet"), ("option", "no plan yet"), ("verification", "Nothing was run")):
        reason, text = await known.refused(incident, about=about, option=1)
        assert (reason, part in text) == ("not_awaited", True), text


async def test_an_option_that_was_run_and_is_shown_again_is_judged_where_it_ran(known: Rememberers) -> None:
    incident = await known.office.planned(options=[option("Turn one", ("turn_dial", "shop", 5)), OPTIONS[1]])
    ran = await known.office.revision(incident)
    await known.office.decide(incident, "1")
    await known.office.runner.advance(incident)
    again = await known.office.revision(incident)
    assert again != ran
    judged = await known.say(incident, about="option", option=1)
    assert (judged.said.plan_revision, judged.said.option) == (ran, 1)
    assert (await known.say(incident, about="option", option=2)).said.plan_revision == again
    named = await known.say(incident, about="option", option=1, plan_revision=again)
    assert named.said.plan_revision == again


# --- doors ---


async def test_rest(known: Rememberers) -> None:
    incident = await known.ended()
    async with client_of(known.office) as client:
        path, kim = f"/incidents/{incident}/feedback", await key_of(known.office, KIM)
        body = {"about": "report", "verdict": "wrong", "component": "db", "helped": "reboot_db_instance"}
        stored = await client.post(path, json=body, headers=kim)
        assert (stored.status_code, stored.json()["said"]["by"]) == (200, "kim")
        overview = (await client.get(path, headers=kim)).json()
        assert (overview["component"], overview["counts"]) == ("db", {"report": {"wrong": 1}})
        viewer = await client.post(path, json=body, headers=await key_of(known.office, VERA))
        assert (viewer.status_code, viewer.json()["reason"]) == (403, "not_allowed")
        assert (await client.post(path, json=body)).status_code == 401
        assert (await client.post(path, json=body | {"verdict": "good"}, headers=kim)).status_code == 422
        assert (await client.post(path, json=body | {"note": "\x00"}, headers=kim)).status_code == 422
        assert (await client.get("/incidents/inc_0/feedback", headers=kim)).status_code == 404
        assert (await client.get("/incidents/inc_0/similar", headers=kim)).status_code == 404
    [kept] = await known.office.audited("feedback", incident)
    assert kept["via"] == "rest"


async def test_rest_tells_track_records_and_similar_incidents(known: Rememberers) -> None:
    incident = await known.ended()
    await known.say(incident, "right")
    now = await known.office.open("c1")
    office = replace(known.office, deps=replace(known.office.deps, past=known.past))
    async with client_of(office) as client:
        kim = await key_of(office, KIM)
        asked = {"category": "memory_exhaustion", "component": "shop"}
        [record] = (await client.get("/knowledge/track-record", params=asked, headers=kim)).json()
        assert (record["operation"], record["here"]) == ("turn_dial", {"runs": 1, "resolved": 1, "worse": 0})
        assert 0.2 < record["low"] < record["high"] <= 1
        [there] = (
            await client.get("/knowledge/track-record", params=asked | {"environment": "lab"}, headers=kim)
        ).json()
        assert (there["here"]["runs"], there["elsewhere"]["runs"]) == (0, 1)
        refused = await client.get("/knowledge/track-record", params={"category": "leak"}, headers=kim)
        assert (refused.status_code, "there are: bad_configuration" in refused.json()["detail"]) == (422, True)
        [alike] = (await client.get(f"/incidents/{now}/similar", headers=kim)).json()
        assert (alike["id"], alike["component"], alike["verdict"]) == (incident, "shop", "resolved")
        assert alike["reasons"]


async def test_the_command_line(known: Rememberers) -> None:
    incident = await known.ended()
    async with served(product_of(known.office)) as url:

        async def run(*arguments: str, caller: Caller = KIM) -> str:
            return (await autopilot(known.office, url, caller, "feedback", incident, *arguments)).output

        assert "Nobody said anything yet" in await run()
        said = ("--verdict", "wrong", "--component", "db", "--helped", "reboot_db_instance", "--note", "the disk")
        assert "Stored. All in all: 1 wrong." in await run(*said)
        assert "Stored. All in all" in await run("--verdict", "partly", caller=ANN)
        outvoted = await run("--verdict", "right")
        assert "in place of what you said before" in outvoted
        assert "What counts is ann's word (admin): partly." in outvoted
        assert "no category" in await run("--verdict", "wrong", "--category", "gremlins")
        assert json.loads(await run("--json"))["counts"] == {"report": {"right": 1, "partly": 1}}
        shown = await run()
        assert "ann (admin)" in shown
    kept = await known.office.audited("feedback", incident)
    assert {one["via"] for one in kept} == {"cli"}


# --- what the memory holds ---


async def test_only_what_tells_something_is_counted(known: Rememberers) -> None:
    """Straight from the table: rehearsals, rejections, what nobody measured, other environments."""
    now = known.office.desk.clock.now()
    rows: list[tuple[str, str, str, str, str, str, str]] = [
        # operation, environment, component, fate, verdict, credit, helped
        ("run_well", "", "shop", "run", "resolved", "remedy", ""),
        ("run_badly", "", "shop", "run", "worse", "unclear", ""),
        ("unmeasured", "", "shop", "run", "not_measurable", "", ""),
        ("judged", "", "shop", "run", "not_measurable", "", "partly"),
        ("rehearsed", "", "shop", "rehearsed", "resolved", "remedy", "yes"),
        ("rejected", "", "shop", "rejected", "", "", ""),
        ("elsewhere", "staging", "shop", "run", "resolved", "remedy", ""),
        ("nobody_knows", "", "", "run", "resolved", "remedy", ""),
    ]
    await known.office.sql(
        "insert into knowledge (id, kind, title, occurred_at, fold, sha256) values ('k', 'incident', 't', %s, 'k', '')",
        now,
    )
    for ordinal, row in enumerate(rows):
        await known.office.sql(
            """insert into remedy (knowledge_id, ordinal, plan_revision, operation, environment, component, fate,
                   verdict, credit, helped, category, at)
               values ('k', %s, %s, %s, %s, nullif(%s, ''), %s, %s, %s, %s, 'leak', %s)""",
            ordinal,
            f"r{ordinal}",
            *row,
            now - timedelta(days=1),
        )
    async with known.office.pool.connection() as connection:
        found = await track_records.outcomes(connection, "leak", "shop", "production")
    assert {one: (o.here, resolved, o.worse) for o in found for one, resolved in o.resolved.items()} == {
        "run_well": (True, 1.0, False),
        "run_badly": (True, 0.0, True),
        "judged": (True, 0.5, False),
        "elsewhere": (False, 1.0, False),
        "nobody_knows": (False, 1.0, False),
    }


async def test_an_operation_counts_once_for_each_run_and_a_rejection_not_beside_a_run(known: Rememberers) -> None:
    now = known.office.desk.clock.now()
    for case in ("k1", "k2"):
        await known.office.sql(
            """insert into knowledge (id, kind, title, occurred_at, fold, sha256)
               values (%s, 'incident', 't', %s, %s, '')""",
            case,
            now,
            case,
        )
    for ordinal, (case, plan, fate, verdict, helped) in enumerate(
        [
            ("k1", "r1", "run", "unchanged", ""),
            ("k1", "r1", "run", "unchanged", ""),
            ("k1", "r2", "run", "resolved", ""),
            ("k1", "r2", "rejected", "", "no"),
            ("k2", "r3", "rejected", "", "no"),
        ]
    ):
        await known.office.sql(
            """insert into remedy (knowledge_id, ordinal, plan_revision, operation, fate, verdict, helped, category, at)
               values (%s, %s, %s, 'restart', %s, %s, %s, 'leak', %s)""",
            case,
            ordinal,
            plan,
            fate,
            verdict,
            helped,
            now,
        )
    async with known.office.pool.connection() as connection:
        found = await track_records.outcomes(connection, "leak", None, "")
    assert sorted((o.done, o.resolved["restart"]) for o in found) == [(False, 0.0), (True, 0.0), (True, 1.0)]


async def stored(
    known: Rememberers, case: str, kind: str, component: str, *operations: str, days_ago: float = 1
) -> None:
    """A case with runs that resolved it, each of an option of its own."""
    at = known.office.desk.clock.now() - timedelta(days=days_ago)
    await known.office.sql(
        """insert into knowledge (id, kind, title, occurred_at, fold, sha256)
           values (%s, %s, 't', %s, %s, '')""",
        case,
        kind,
        at,
        case,
    )
    await known.office.sql(
        """insert into remedy (knowledge_id, ordinal, plan_revision, operation, environment, component, fate, verdict,
               credit, category, at)
           select %s, n, 'r' || n, operation, 'production', %s, 'run', 'resolved', 'remedy', 'leak', %s
           from unnest(%s::text[]) with ordinality as done (operation, n)""",
        case,
        component,
        at,
        list(operations),
    )


async def test_what_was_imported_was_not_run_here(known: Rememberers) -> None:
    """A file may say of our own component that anything resolved it, however often."""
    await stored(known, "k", "imported", "shop", *["restart"] * 30)
    record = (await known.record("leak"))["restart"]
    assert (record.here, record.elsewhere) == (Counted(), Counted())
    assert 0 < record.runs < 1


async def test_what_happens_often_elsewhere_pushes_nothing_out_of_the_record(known: Rememberers) -> None:
    await stored(known, "k1", "incident", "shop", "restart", "restart", days_ago=30)
    await stored(known, "k2", "incident", "web", *["restart"] * 2 * track_records.REMEMBERED)
    await stored(known, "k3", "imported", "shop", *["restart"] * 2 * track_records.REMEMBERED)
    assert (await known.record("leak"))["restart"].here == Counted(2, 2)
    assert (await known.record("leak", "db"))["restart"].elsewhere.runs <= track_records.REMEMBERED


async def test_an_option_is_in_the_record_with_all_its_operations(known: Rememberers) -> None:
    """Also where the record ends in the midst of it."""
    await stored(known, "k", "incident", "shop", *["restart"] * (track_records.REMEMBERED - 1), days_ago=1)
    await stored(known, "k2", "incident", "shop", "reduce", "scale", days_ago=2)
    await known.office.sql("update remedy set plan_revision = 'both' where knowledge_id = 'k2'")
    assert "reduce + scale" in await known.record("leak")
