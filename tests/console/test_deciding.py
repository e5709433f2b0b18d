"""Deciding on the page, over real HTTP: parts, second approvals, expiry, withdrawal, undo, notes, the kill switch."""

import json
from typing import Any

from psycopg.types.json import Jsonb

from app.db import transaction
from app.store import incidents
from graph.state import (
    ActionOption,
    Decision,
    Evidence,
    Execution,
    Finding,
    Plan,
    PlanStep,
    StepResult,
    Verification,
)
from tests.console.browsing import AT, PLAN, Browser, Console

TWO = Plan.of(
    [
        ActionOption(
            title="Scale both",
            description="",
            risk="low",
            minutes=3,
            steps=tuple(
                PlanStep(
                    operation="scale_ecs_service", params={"service": service, "desired_count": 8}, preview=preview
                )
                for service, preview in (("payment-service", "4 -> 8 tasks"), ("payment-service", "8 -> 9 tasks"))
            ),
        )
    ],
    salt="two",
)


async def rows(console: Console, query: str, *values: object) -> list[dict[str, Any]]:
    async with console.pool.connection() as connection:
        cursor = await connection.execute(query.encode(), values)
        return await cursor.fetchall() if cursor.description else []


async def decided(console: Console, incident_id: str) -> list[tuple[str, list[int], str, str]]:
    async with console.pool.connection() as connection:
        made = await incidents.decisions(connection, incident_id)
    return [(d["choice"], d["steps"], d["by"], d["via"]) for d in made]


def offers(seen: str, button: str) -> bool:
    """Whether a button of that name is visible now; an AssertionError if nothing is said of it."""
    output = json.loads(seen)["data"]
    [told] = [update for update in output if isinstance(update, dict) and update.get("value") == button]
    return bool(told["visible"])


async def confirm(browser: Browser, incident_id: str, choice: str, steps: list[int], note: str = "") -> str:
    """Review and confirm; what is said in the end."""
    await browser.fire("on_load", incident=incident_id)
    await browser.fire("on_execute", choice, steps, note, None, incident=incident_id)
    return await browser.fire("on_confirm", None, incident=incident_id)


async def test_only_the_steps_that_were_chosen_are_confirmed_and_decided(console: Console) -> None:
    incident_id, kim = await console.incident(plan=TWO), await console.browser("responder")
    await kim.fire("on_load", incident=incident_id)
    offered = await kim.fire("on_choose", "1", None, incident=incident_id)
    assert "1. scale_ecs_service: 4 -> 8 tasks" in offered
    assert '"value": [1, 2]' in offered
    assert "at least one step" in await kim.fire("on_execute", "1", [], "", None, incident=incident_id)
    review = await kim.fire("on_execute", "1", [1], "", None, incident=incident_id)
    assert "4 -&gt; 8 tasks" in review
    assert "8 -&gt; 9 tasks" not in review
    assert "Not run" in review
    assert TWO.revision in review
    assert "is stored" in await kim.fire("on_confirm", None, incident=incident_id)
    assert await decided(console, incident_id) == [("1", [1], "kim the responder", "console")]


async def test_a_part_that_cannot_stand_alone_is_refused_before_it_is_confirmed(console: Console) -> None:
    incident_id, kim = await console.incident(plan=TWO), await console.browser("responder")
    await kim.fire("on_load", incident=incident_id)
    await kim.fire("on_choose", "1", None, incident=incident_id)
    refused = await kim.fire("on_execute", "1", [2], "", None, incident=incident_id)
    assert 'data-reason=\\"steps\\"' in refused
    assert "approve both, or neither" in refused
    assert await decided(console, incident_id) == []


async def test_two_people_approve_high_risk_and_the_first_may_take_it_back(console: Console) -> None:
    incident_id = await console.incident()
    kim, ann = await console.browser("admin", "kim"), await console.browser("admin", "ann")
    shown = await kim.fire("on_load", incident=incident_id)
    assert "2 different people" in shown
    await kim.fire("on_execute", "2", [], "", None, incident=incident_id)
    said = await kim.fire("on_confirm", None, incident=incident_id)
    assert "nothing is run yet: 1 more person must approve the same" in said
    assert await decided(console, incident_id) == []
    seen = await kim.fire("on_tick", None, incident=incident_id)
    assert "<b>kim the admin</b> approved (console, " in seen
    assert 'data-reason=\\"same_person\\"' in seen
    assert "is withdrawn" in await kim.fire("on_withdraw", incident=incident_id)
    assert "approved (console" not in await kim.fire("on_load", incident=incident_id)
    await confirm(kim, incident_id, "2", [])
    await ann.fire("on_load", incident=incident_id)
    review = await ann.fire("on_execute", "2", [], "", None, incident=incident_id)
    assert "approved by kim the admin too" in review
    assert "is stored" in await ann.fire("on_confirm", None, incident=incident_id)
    assert await decided(console, incident_id) == [("2", [], "ann the admin", "console")]


async def test_a_decision_is_withdrawn_before_it_begins(console: Console) -> None:
    incident_id, kim = await console.incident(), await console.browser("responder")
    assert "is stored" in await confirm(kim, incident_id, "1", [])
    seen = await kim.fire("on_tick", None, incident=incident_id)
    assert offers(seen, "Withdraw what was approved")
    assert "nothing of it was run" in await kim.fire("on_withdraw", incident=incident_id)
    assert "withdrawn by kim the responder" in await kim.fire("on_tick", None, incident=incident_id)
    assert 'data-reason=\\"nothing_to_withdraw\\"' in await kim.fire("on_withdraw", incident=incident_id)


async def test_a_plan_that_is_too_old_says_so_and_is_made_anew_by_one_click(console: Console) -> None:
    incident_id, kim = await console.incident(), await console.browser("responder")
    await kim.fire("on_load", incident=incident_id)
    assert "too old" not in await kim.fire("on_execute", "1", [], "", None, incident=incident_id)
    await rows(console, "update incident set planned_at = planned_at - interval '1 day'")
    refused = await kim.fire("on_confirm", None, incident=incident_id)
    assert 'data-reason=\\"expired\\"' in refused
    assert "nothing was run" in refused
    seen = await kim.fire("on_tick", None, incident=incident_id)
    assert "too old to be approved" in seen
    assert offers(seen, "Make the plan anew")
    assert "is stored" in await kim.fire("on_anew", None, incident=incident_id)
    assert await decided(console, incident_id) == [("re_plan", [], "kim the responder", "console")]


async def test_undo_shows_what_is_put_back_before_it_is(console: Console) -> None:
    incident_id, kim = await console.incident(), await console.browser("responder")
    assert not offers(await kim.fire("on_load", incident=incident_id), "Undo the last option …")
    assert "nothing_to_undo" in await kim.fire("on_undo", None, incident=incident_id)
    scaled = StepResult(
        ordinal=1,
        operation="scale_ecs_service",
        params={"service": "payment-service", "desired_count": 8},
        status="succeeded",
        made=True,
        before={"desired": 4},
    )
    done = Execution(
        plan_revision="earlier",
        choice="1",
        title="Scale out",
        results=(scaled,),
        verification=Verification(verdict="unchanged"),
    )
    async with transaction(console.pool) as connection:
        earlier = Decision(plan_revision="earlier", choice="1", by="kim the responder", at=AT)
        await incidents.insert_decision(connection, incident_id, earlier)
        await incidents.save_execution(connection, incident_id, "earlier", done.model_dump(mode="json"))
    assert offers(await kim.fire("on_load", incident=incident_id), "Undo the last option …")
    review = await kim.fire("on_undo", None, incident=incident_id)
    assert "These steps are put back" in review
    assert "scale_ecs_service" in review
    assert "is stored" in await kim.fire("on_confirm", None, incident=incident_id)
    assert (await decided(console, incident_id))[-1] == ("undo", [], "kim the responder", "console")


async def test_what_was_done_by_hand_is_noted_also_after_closing(console: Console) -> None:
    incident_id = await console.incident()
    kim, viewer = await console.browser("responder"), await console.browser("viewer")
    await kim.fire("on_load", incident=incident_id)
    assert "Write what was done" in await kim.fire("on_note", " ", incident=incident_id)
    async with transaction(console.pool) as connection:
        await incidents.set_status(connection, incident_id, "closed")
    assert "in the timeline" in await kim.fire("on_note", "raised the <pool>", incident=incident_id)
    assert "takes responder" in await viewer.fire("on_note", "me too", incident=incident_id)
    seen = await kim.fire("on_load", incident=incident_id)
    assert "raised the &lt;pool&gt;" in seen
    [note] = await rows(console, "select actor, body::text as body from audit where kind = 'note'")
    assert (note["actor"], json.loads(note["body"])["via"]) == ("kim the responder", "console")


async def test_evidence_that_is_opened_is_recorded_once_and_only_if_it_exists(console: Console) -> None:
    incident_id, kim = await console.incident(), await console.browser("viewer")
    drawn = Finding(id="E1", kind="log", component="db", signal="errors", at=AT, summary="s", excerpt="line")
    evidence = Evidence(digest="d", findings=(drawn,), suspects=())
    await rows(console, "update analysis set evidence = %s", Jsonb(evidence.model_dump(mode="json")))
    await kim.fire("on_load", incident=incident_id)
    for opened in ("E1", "E1", "E9"):
        await kim.fire("on_evidence", event_data={"id": opened}, incident=incident_id)
    seen = await rows(console, "select who, what, via from shown order by what")
    assert [(s["who"], s["what"], s["via"]) for s in seen] == [
        ("kim the viewer", "evidence:E1", "console"),
        ("kim the viewer", f"plan:{PLAN.revision}", "console"),
    ]


async def test_the_kill_switch_is_pulled_by_a_responder_and_lifted_by_an_admin(console: Console) -> None:
    incident_id = await console.incident()
    viewer, kim, ann = [await console.browser(role) for role in ("viewer", "responder", "admin")]
    for browser in (viewer, kim):
        await browser.fire("on_load", incident=incident_id)
    assert not offers(await viewer.fire("on_load"), "Stop all actions …")
    asked = await kim.fire("on_switch", incident=incident_id)
    assert "A step that has begun runs to its end" in asked
    assert "All actions are stopped" not in await kim.fire("on_tick", None, incident=incident_id)
    assert "All actions are stopped" in await kim.fire("on_switch_confirm", None, "a <b>drill", incident=incident_id)
    for browser, query in ((viewer, {"incident": incident_id}), (ann, {})):
        seen = await browser.fire("on_load", **query)
        assert "<b>kim the responder</b>" in seen
        assert "a &lt;b&gt;drill" in seen
    assert 'data-reason=\\"frozen\\"' in await kim.fire("on_load", incident=incident_id)
    await kim.fire("on_switch", incident=incident_id)
    assert "takes admin" in await kim.fire("on_switch_confirm", None, "", incident=incident_id)
    assert "planned and decided anew" in await ann.fire("on_switch")
    assert "may be run again" in await ann.fire("on_switch_confirm", None, "")
    assert "All actions are stopped" not in await viewer.fire("on_load", incident=incident_id)


async def test_a_viewer_who_pulls_is_refused_and_a_second_pull_names_the_first(console: Console) -> None:
    viewer = await console.browser("viewer")
    kim, ann = await console.browser("responder", "kim"), await console.browser("responder", "ann")
    for browser in (viewer, kim, ann):
        await browser.fire("on_load")
        await browser.fire("on_switch")
    assert 'data-reason=\\"not_allowed\\"' in await viewer.fire("on_switch_confirm", None, "me")
    assert await rows(console, "select id from kill_switch") == []
    await kim.fire("on_switch_confirm", None, "first")
    assert "kim the responder" in await ann.fire("on_switch_confirm", None, "second")
    [pulled] = await rows(console, "select pulled_by, reason from kill_switch")
    assert (pulled["pulled_by"], pulled["reason"]) == ("kim the responder", "first")


async def test_admins_see_how_people_decide_and_the_audit_log(console: Console) -> None:
    incident_id, kim, ann = await console.incident(), await console.browser("responder"), await console.browser("admin")
    assert "Nobody decided anything yet" in await ann.fire("on_load", view="oversight")
    await confirm(kim, incident_id, "1", [], "go <b>")
    assert "takes admin" in await kim.fire("on_load", view="oversight")
    seen = await ann.fire("on_load", view="oversight", lang="ko")
    assert "결정 현황" in seen
    assert "<b>kim the responder</b>" in seen
    assert "100% <svg" in seen  # decided without opening any evidence
    assert "go &lt;b&gt;" in seen
    assert incident_id in seen
