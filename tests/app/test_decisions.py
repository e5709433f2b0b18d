"""One service for every door: who may decide what, when, and what is refused and why."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.audit import verify
from app.catalogue import Operator
from app.db import transaction
from app.decisions import actions_for, figures, note, refuse_stranger, shown, withdraw
from app.desk import STRANGERS_PER_MINUTE, Conflict, NotAllowed, NotFound, UseCaseError
from app.runner import Runner
from app.security import Caller
from app.store import freeze
from executors.base import Refused
from graph.deps import Claim, Deps, StepKey
from graph.flow import NODES
from graph.nodes.remediation_decision import StaleDecision
from graph.policy import Policy
from graph.state import Plan, State
from tests.app.deciding import ANN, BOB, CATALOGUE, KIM, OPTIONS, VERA, Office, offices, option


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    async with offices(database_url) as made:
        yield made


# --- what a decision does ---


async def test_a_decision_runs_what_was_shown_and_names_the_plan(office: Office) -> None:
    incident = await office.planned()
    outcome = await office.decide(incident, "1", note="it is late")
    assert outcome.status == "decided"
    assert outcome.decision is not None
    [body] = await office.audited("decision", incident)
    assert (body["actor"], body["choice"], body["via"]) == ("kim", "1", "rest")
    assert len(body["plan_digest"]) == 64
    assert body["plan_digest"].startswith(outcome.decision.plan_revision)
    await office.runner.advance(incident)
    assert office.dials.stand == {"shop": 5, "db": 6, "cache": 3}


async def test_a_part_of_an_option_can_be_approved(office: Office) -> None:
    incident = await office.planned()
    assert (await office.refused(incident, "1", steps=[3]))[0] == "no_such_option"
    assert (await office.refused(incident, "manual", steps=[1]))[0] == "steps"
    outcome = await office.decide(incident, "1", steps=[2, 2])
    assert outcome.decision is not None
    assert outcome.decision.steps == (2,)
    await office.runner.advance(incident)
    assert office.dials.stand == {"shop": 1, "db": 6, "cache": 3}


async def test_a_step_is_not_approved_without_the_one_that_it_was_planned_on(office: Office) -> None:
    twice = option("Turn twice", ("turn_dial", "shop", 5), ("turn_dial", "shop", 6))
    incident = await office.planned(options=[twice])
    reason, said = await office.refused(incident, "1", steps=[2])
    assert (reason, said) == ("steps", "Step 2 was planned on what step 1 leaves: approve both, or neither.")
    await office.decide(incident, "1", steps=[1])


async def test_the_first_decision_wins_and_is_named(office: Office) -> None:
    incident = await office.planned()
    revision = await office.revision(incident)
    await office.decide(incident, "manual", ANN)
    for caller, choice in ((ANN, "manual"), (KIM, "1")):
        reason, said = await office.refused(incident, choice, caller, plan_revision=revision)
        assert reason == "already_decided"
        assert said.startswith("Already decided: ann chose manual at ")


async def test_every_refusal_is_in_the_timeline_and_the_audit_log(office: Office) -> None:
    incident = await office.planned()
    reason, said = await office.refused(incident, "1", plan_revision="another")
    assert reason == "stale_plan"
    [body] = await office.audited("refusal", incident)
    assert body == {
        "actor": "kim",
        "incident_id": incident,
        "choice": "1",
        "plan_revision": "another",
        "steps": [],
        "via": "rest",
        "reason": "stale_plan",
        "detail": said,
    }
    [line] = await office.sql("select message, data from event where kind = 'refusal'")
    assert line["message"] == f"kim was refused 1: {said}"


async def test_a_refusal_on_an_unknown_incident_is_audited_without_it(office: Office) -> None:
    assert (await office.refused("inc_\x00", "1", plan_revision="r"))[0] == "not_found"
    [body] = await office.audited("refusal")
    assert (body["incident_id"], body["asked_for"]) == (None, "inc_")


async def test_strangers_are_recorded_but_not_each_of_a_flood(office: Office) -> None:
    incident = await office.planned()
    for _ in range(STRANGERS_PER_MINUTE + 5):
        await refuse_stranger(office.desk, incident, "rest")
    bodies = await office.audited("refusal", incident)
    assert len(bodies) == STRANGERS_PER_MINUTE
    assert (bodies[0]["actor"], bodies[0]["reason"]) == ("nobody known", "not_authenticated")


# --- drift ---


async def test_a_target_that_was_changed_meanwhile_refuses_and_says_what_changed(office: Office) -> None:
    incident = await office.planned()
    office.dials.stand["db"] = 4
    reason, said = await office.refused(incident, "1")
    assert reason == "drift"
    assert said == (
        "db is not as you were shown: setting 2 -> 4 since the plan was made."
        " Choose re_plan: it makes the options anew, against the present state."
    )
    await office.decide(incident, "re_plan")
    await office.runner.advance(incident)
    await office.decide(incident, "1")
    await office.runner.advance(incident)
    assert office.dials.calls == ["turn_dial shop 5", "turn_dial db 6"]


async def test_only_approved_steps_are_read_again(office: Office) -> None:
    incident = await office.planned()
    office.dials.stand["db"] = 4
    assert (await office.decide(incident, "1", steps=[1])).status == "decided"


async def test_a_target_that_cannot_be_read_refuses_and_says_what_to_do(office: Office) -> None:
    incident = await office.planned()
    office.dials.dark.add("shop")
    reason, said = await office.refused(incident, "1")
    assert reason == "unreadable"
    assert "the lamp above it is out" in said
    assert "Try again in a minute" in said
    assert (await office.decide(incident, "manual")).status == "decided"


async def test_another_policy_than_the_one_shown_refuses(office: Office) -> None:
    incident = await office.planned()
    stricter = office.under(Policy(actions_per_service_hour=1))
    reason, said = await stricter.refused(incident, "1")
    assert reason == "drift"
    assert said.startswith("The policy changed since this plan was made.")


# --- time ---


async def test_a_plan_gets_too_old_to_run_but_not_to_be_made_anew(office: Office) -> None:
    incident = await office.planned()
    await office.sql("update incident set planned_at = planned_at - interval '31 minutes'")
    for choice in ("1", "undo"):
        assert (await office.refused(incident, choice))[0] == "expired"
    offers = await actions_for(office.desk, incident, KIM)
    assert offers.expired
    assert offers.choices == ("manual", "re_analyze", "re_plan")
    await office.decide(incident, "re_plan")
    await office.runner.advance(incident)
    assert not (await actions_for(office.desk, incident, KIM)).expired
    assert (await office.decide(incident, "1")).status == "decided"


async def test_a_plan_that_waits_again_is_as_old_as_it_is(office: Office) -> None:
    incident = await office.planned()
    first = await office.get(incident)
    await office.sql("update incident set status = 'closed', plan_revision = null, closed_at = now()")
    await office.sql("update incident set closed_at = null")
    await office.runner.advance(incident)
    again = await office.get(incident)
    assert (again["plan_revision"], again["planned_at"]) == (first["plan_revision"], first["planned_at"])


# --- what is stored ---


@pytest.mark.parametrize(
    "edit",
    [
        """jsonb_set(plan, '{options,0,steps,0,params,to}', '98')""",
        """jsonb_set(plan, '{options,0,steps,0,pinned}', '{}')""",
        """jsonb_set(plan, '{policy_version}', '"mine"')""",
        """jsonb_set(plan, '{options,0,risk}', '"none"')""",
        """'{"options": 7}'""",
        """jsonb_set(plan, '{revision}', '"another"')""",
    ],
)
async def test_a_plan_that_was_edited_in_the_database_does_not_run(office: Office, edit: str) -> None:
    incident = await office.planned()
    await office.sql(f"update analysis set plan = {edit}")
    reason, said = await office.refused(incident, "1")
    assert (reason, said[:15]) == ("tampered", "The stored plan")
    assert (await office.decide(incident, "re_plan")).status == "decided"


async def test_a_consistent_forgery_of_a_plan_is_not_the_plan_that_was_shown(office: Office) -> None:
    incident = await office.planned()
    [row] = await office.sql("select plan from analysis")
    forged = Plan.of([option("Forged", ("turn_dial", "shop", 98))], salt=row["plan"]["salt"])
    assert forged.intact
    await office.sql("update analysis set plan = %s::text::jsonb", forged.model_dump_json())
    assert (await office.refused(incident, "1"))[0] == "tampered"


async def test_a_checkpoint_that_holds_another_plan_than_was_approved_does_not_run(office: Office) -> None:
    planned: list[Plan] = []

    async def forging(deps: Deps, state: State) -> dict[str, Any]:
        planned.append((await NODES["ActionPlanner"](deps, state))["plan"])
        forged = option("Forged", ("turn_dial", "shop", 98))
        return {"plan": planned[0].model_copy(update={"options": (forged,)})}

    incident = await office.open()
    await Runner(office.pool, office.deps, {**NODES, "ActionPlanner": forging}).advance(incident)
    await office.sql("update analysis set plan = %s::text::jsonb", planned[0].model_dump_json())
    await office.decide(incident, "1")
    with pytest.raises(StaleDecision, match="its checkpoint was changed"):
        await office.runner.advance(incident)
    assert office.dials.calls == []


# --- people ---


async def test_roles_and_two_people(office: Office) -> None:
    incident = await office.planned()
    assert (await office.refused(incident, "manual", VERA))[0] == "not_allowed"
    assert (await office.refused(incident, "2", KIM))[0] == "not_allowed"
    first = await office.decide(incident, "2", ANN, "slack")
    assert (first.status, first.missing, first.decision) == ("waiting_for_approval", 1, None)
    assert (await office.refused(incident, "2", ANN))[0] == "same_person"
    assert (await office.refused(incident, "2", Caller("Ann ", "admin")))[0] == "same_person"
    offers = await actions_for(office.desk, incident, BOB)
    assert [(a.by, a.via, a.choice) for a in offers.approvals] == [("ann", "slack", "2")]
    assert next(o for o in offers.offers if o.choice == "2").missing == 0
    second = await office.decide(incident, "2", BOB)
    assert second.decision is not None
    assert [(a.by, a.via) for a in second.decision.approvals] == [("ann", "slack"), ("bob", "rest")]
    await office.runner.advance(incident)
    assert office.dials.calls == ["force_dial shop 9"]


async def test_two_people_must_approve_the_same(office: Office) -> None:
    both = option("Force two", ("force_dial", "shop", 9), ("force_dial", "db", 9))
    incident = await office.planned(options=[both, option("Force one", ("force_dial", "shop", 8))])
    await office.decide(incident, "1", ANN)
    assert (await office.decide(incident, "1", BOB, steps=[1])).status == "waiting_for_approval"
    third = await office.decide(incident, "1", Caller("eve", "admin"), steps=[1])
    assert third.decision is not None
    assert [a.by for a in third.decision.approvals] == ["bob", "eve"]


async def test_whoever_waits_for_a_second_person_may_still_hand_over(office: Office) -> None:
    incident = await office.planned()
    await office.decide(incident, "2", ANN)
    assert (await office.decide(incident, "manual", ANN)).status == "decided"


async def test_approvals_end_with_their_plan(office: Office) -> None:
    incident = await office.planned()
    await office.decide(incident, "2", ANN)
    await office.decide(incident, "re_plan", KIM)
    await office.runner.advance(incident)
    assert (await office.decide(incident, "2", BOB)).status == "waiting_for_approval"


async def test_the_requester_does_not_approve_where_the_policy_says_so(office: Office) -> None:
    strict = office.under(Policy(requester_may_approve=False))
    incident = await strict.planned()
    assert (await strict.refused(incident, "1", KIM))[0] == "requester"
    assert (await strict.decide(incident, "1", ANN)).status == "decided"


# --- policy ---


async def test_the_kill_switch_stops_what_runs_and_nothing_else(office: Office) -> None:
    incident = await office.planned()
    async with transaction(office.pool) as connection:
        await freeze.pull(connection, "ann", "the bank calls")
    reason, said = await office.refused(incident, "1")
    assert reason == "frozen"
    assert "ann" in said
    assert "the bank calls" in said
    async with transaction(office.pool) as connection:
        await freeze.lift(connection, "ann")
    assert (await office.decide(incident, "1")).status == "decided"


async def test_a_window_a_rate_and_a_protected_service_refuse(office: Office) -> None:
    hour = datetime.now(UTC)
    window = {"name": "Black Friday", "from": hour - timedelta(hours=1), "until": hour + timedelta(hours=1)}
    for policy, words in (
        ({"freeze_windows": [window]}, "Black Friday"),
        ({"protected_services": ["db"]}, "db is protected"),
        ({"operations": {"turn_dial": {"allowed": False}}}, "does not allow turn_dial"),
    ):
        strict = office.under(Policy.model_validate(policy))
        incident = await strict.planned(words, OPTIONS[:1])
        reason, said = await strict.refused(incident, "1")
        assert reason == "policy"
        assert words in said


async def test_a_service_is_changed_so_often_an_hour(office: Office) -> None:
    strict = office.under(Policy(actions_per_service_hour=1))
    first = await strict.planned("a", OPTIONS[:1])
    await strict.decide(first, "1", steps=[1])
    await strict.runner.advance(first)
    second = await strict.planned("b", OPTIONS[:1])
    reason, said = await strict.refused(second, "1")
    assert reason == "policy"
    assert "shop was changed" in said
    assert (await strict.decide(second, "1", steps=[2])).status == "decided"


async def test_a_spent_error_budget_takes_an_admin(office: Office) -> None:
    strict = office.under(Policy.model_validate({"error_budget": {"window_days": 1, "risks": ["low"]}}))
    incident = await strict.planned("a")
    await strict.sql("update incident set opened_at = now() - interval '10 minutes'")  # of 14.4 that may fail
    assert next(o for o in (await actions_for(strict.desk, incident, KIM)).offers if o.choice == "1").refused is None
    await strict.sql("update incident set opened_at = now() - interval '15 minutes'")
    reason, said = await strict.refused(incident, "1")
    assert reason == "not_allowed"
    assert "the error budget of shop is spent" in said
    assert (await strict.decide(incident, "1", ANN)).status == "decided"


async def test_minutes_in_which_two_incidents_were_open_count_once(office: Office) -> None:
    policy = Policy.model_validate({"error_budget": {"window_days": 1}})
    strict = office.under(policy)
    for key in ("a", "b"):
        await strict.open(key)
    await strict.sql("update incident set opened_at = now() - interval '144 minutes', closed_at = now()")
    facts = await strict.deps.facts.at_present(["shop", "db"])
    assert facts.budget_spent == {"shop": pytest.approx(10.0, rel=1e-3)}


async def test_what_is_turned_off_or_out_of_the_catalogue_does_not_run(office: Office) -> None:
    incident = await office.planned()
    assert (await office.without("turn_dial").refused(incident, "1"))[0] == "not_registered"
    operation: Any = office.desk.operations["turn_dial"]
    operation.resources = {"shop": operation.resources["shop"]}
    assert (await office.refused(incident, "1"))[0] == "catalogue"


# --- undo ---


async def test_undo_puts_back_what_the_last_option_changed_and_only_once(office: Office) -> None:
    incident = await office.planned()
    assert (await office.refused(incident, "undo"))[0] == "nothing_to_undo"
    await office.decide(incident, "1")
    await office.runner.advance(incident)
    assert (await office.get(incident))["status"] == "awaiting_decision"
    assert "undo" in (await actions_for(office.desk, incident, KIM)).choices
    await office.decide(incident, "undo")
    await office.runner.advance(incident)
    assert office.dials.stand == {"shop": 1, "db": 2, "cache": 3}
    assert (await office.refused(incident, "undo"))[0] == "nothing_to_undo"


async def test_undo_stops_at_the_kill_switch_but_not_at_a_freeze_window(office: Office) -> None:
    incident = await office.planned()
    await office.decide(incident, "1")
    await office.runner.advance(incident)
    hour = datetime.now(UTC)
    window = {"name": "w", "from": hour - timedelta(hours=1), "until": hour + timedelta(hours=1)}
    frozen = office.under(Policy.model_validate({"freeze_windows": [window]}))
    async with transaction(office.pool) as connection:
        await freeze.pull(connection, "ann", "")
    assert (await frozen.refused(incident, "undo"))[0] == "frozen"
    async with transaction(office.pool) as connection:
        await freeze.lift(connection, "ann")
    assert (await frozen.decide(incident, "undo")).status == "decided"


# --- rehearsal ---


async def test_what_is_rehearsed_is_decided_like_the_real_thing_and_calls_nothing(office: Office) -> None:
    incident = await office.planned()
    await office.decide(incident, "3")
    await office.runner.advance(incident)
    assert office.dials.calls == []
    [body] = await office.sql("select body->'results'->0->>'status' as status from execution")
    assert body["status"] == "dry_run"


# --- environments that are dry-run only ---


async def test_in_an_environment_that_is_dry_run_only_everything_is_told_and_nothing_is_called(office: Office) -> None:
    there = office.under(Policy(dry_run_environments=(CATALOGUE.environment,)))
    incident = await there.planned()
    offers = await actions_for(there.desk, incident, ANN)
    assert {o.choice: o.needs.dry_run for o in offers.offers if o.needs and o.choice in "123"} == dict.fromkeys(
        "123", True
    )
    await there.decide(incident, "1")
    await there.runner.advance(incident)
    [told] = await there.sql("select body from execution")
    assert [(r["status"], r["made"]) for r in told["body"]["results"]] == [("dry_run", False)] * 2
    assert told["body"]["results"][1]["detail"] == "setting of db: 2 -> 6"
    assert told["body"]["verification"]["verdict"] == "not_measurable"
    assert (await there.get(incident))["status"] == "awaiting_decision"  # nothing was mended
    assert (await there.refused(incident, "undo", ANN))[0] == "nothing_to_undo"
    assert there.dials.calls == []
    assert there.dials.stand == {"shop": 1, "db": 2, "cache": 3}
    assert await there.sql("select id from step") == []
    assert await there.audited("claim") == []


# --- withdraw ---


async def test_a_decision_is_withdrawn_before_it_begins_and_nothing_runs(office: Office) -> None:
    incident = await office.planned()
    revision = await office.revision(incident)
    await office.decide(incident, "1")
    with pytest.raises(NotAllowed):
        await withdraw(office.desk, incident, Caller("max", "responder"))
    assert (await withdraw(office.desk, incident, KIM)).what == "decision"
    with pytest.raises(Conflict, match="kim withdrew it already"):
        await withdraw(office.desk, incident, ANN)
    await office.runner.advance(incident)
    assert office.dials.calls == []
    row = await office.get(incident)
    assert row["status"] == "awaiting_decision"
    assert row["plan_revision"] != revision
    reason, said = await office.refused(incident, "1", plan_revision=revision)
    assert reason == "already_decided"
    assert "kim withdrew that" in said
    assert [b["actor"] for b in await office.audited("withdrawal", incident)] == ["kim"]


async def test_what_has_begun_is_not_withdrawn(office: Office) -> None:
    incident = await office.planned()
    revision = await office.revision(incident)
    await office.decide(incident, "1")
    claim = Claim(StepKey(incident, revision, 1), "turn_dial", {}, "dial:shop", {}, datetime.now(UTC))
    await office.deps.ledger.claim(claim)
    with pytest.raises(Conflict, match="It has begun") as refused:
        await withdraw(office.desk, incident, KIM)
    assert refused.value.reason == "already_started"
    known = (await actions_for(office.desk, incident, KIM)).decision
    assert known is not None
    assert (known.started, known.may_withdraw) == (True, False)


async def test_a_yes_that_waits_is_withdrawn(office: Office) -> None:
    incident = await office.planned()
    with pytest.raises(Conflict, match="nothing to withdraw"):
        await withdraw(office.desk, incident, KIM)
    await office.decide(incident, "2", ANN)
    with pytest.raises(NotAllowed):
        await withdraw(office.desk, incident, KIM)
    assert (await withdraw(office.desk, incident, ANN)).what == "approval"
    assert (await office.decide(incident, "2", BOB)).status == "waiting_for_approval"


async def test_withdraw_against_claim_has_one_winner(office: Office) -> None:
    for number in range(6):
        incident = await office.planned(f"c{number}")
        revision = await office.revision(incident)
        await office.decide(incident, "1")
        claim = Claim(StepKey(incident, revision, 1), "turn_dial", {}, f"dial:{number}", {}, datetime.now(UTC))
        claimed, withdrawn = await asyncio.gather(
            office.deps.ledger.claim(claim), withdraw(office.desk, incident, KIM), return_exceptions=True
        )
        assert isinstance(claimed, Refused) != isinstance(withdrawn, Conflict), (claimed, withdrawn)


# --- notes, shown, figures ---


async def test_a_note_is_kept_also_after_closing(office: Office) -> None:
    incident = await office.planned()
    await office.decide(incident, "manual")
    await office.runner.advance(incident)
    assert (await office.get(incident))["closed_at"]
    await note(office.desk, incident, KIM, "raised the pool to 80")
    assert [b["text"] for b in await office.audited("note", incident)] == ["raised the pool to 80"]
    with pytest.raises(NotFound):
        await note(office.desk, "inc_0", KIM, "x")
    with pytest.raises(NotAllowed):
        await note(office.desk, incident, VERA, "x")


async def test_how_people_decide_is_counted(office: Office) -> None:
    careful, hasty = await office.planned("a"), await office.planned("b")
    for incident, caller in ((careful, KIM), (hasty, ANN)):
        await actions_for(office.desk, incident, caller)
    await shown(office.desk, careful, KIM, "evidence:E1")
    await office.sql("update shown set at = at - interval '100 seconds' where who = 'kim'")
    await office.decide(careful, "manual")
    await office.refused(hasty, "1", VERA)
    await office.decide(hasty, "1", ANN)
    await office.sql(
        "update decision set decided_at = date_trunc('day', decided_at) + interval '23 hours', "
        "first_shown_at = date_trunc('day', decided_at) + interval '22 hours 59 minutes 58 seconds'"
        " where decided_by = 'ann'"
    )
    rows = {(f.of, f.name): f for f in await figures(office.desk, 7, "UTC")}
    kim, ann = rows["person", "kim"], rows["person", "ann"]
    assert (kim.decisions, kim.under_10s, kim.without_evidence, kim.approved) == (1, 0, 0, 0)
    assert kim.median_s == pytest.approx(100, abs=30)
    assert (ann.under_10s, ann.without_evidence, ann.approved, ann.at_night) == (1, 1, 1, 1)
    assert rows["person", "vera"].refusals == 1
    team = rows["team", "storefront"]
    assert (team.decisions, team.per_week, team.under_10s, team.refusals) == (2, 2.0, 0.5, 1)
    desk = replace(
        office.desk, operators={"ann": Operator(team="sre"), "vera": Operator(team="sre"), "kim": Operator()}
    )
    teams = {f.name: f for f in await figures(desk, 7, "UTC") if f.of == "team"}
    assert {name: (f.decisions, f.refusals) for name, f in teams.items()} == {"sre": (1, 1), "storefront": (1, 0)}
    tokyo = {(f.of, f.name): f for f in await figures(office.desk, 7, "Asia/Tokyo")}
    assert tokyo["person", "ann"].at_night == 0  # 08:00 there


async def test_what_is_offered_is_what_is_taken(office: Office) -> None:
    """For every caller and choice: a refusal that was announced is made, and what was offered is not refused."""
    incident = await office.planned()
    for caller in (VERA, KIM, ANN):
        offers = await actions_for(office.desk, incident, caller)
        for offer in offers.offers:
            if offer.refused:
                assert await office.refused(incident, offer.choice, caller) == (
                    offer.refused.reason,
                    offer.refused.detail,
                )
    assert (await actions_for(office.desk, incident, VERA)).choices == ()
    assert (await actions_for(office.desk, incident, KIM)).choices == ("1", "3", "manual", "re_analyze", "re_plan")
    assert "2" in (await actions_for(office.desk, incident, ANN)).choices
    await office.decide(incident, "2", ANN)
    await office.decide(incident, "2", BOB)


async def test_the_audit_log_tells_what_the_tables_tell(office: Office) -> None:
    incident = await office.planned()
    await office.decide(incident, "2", ANN)
    await withdraw(office.desk, incident, ANN)
    await office.decide(incident, "2", BOB)
    await office.decide(incident, "1", KIM)
    await withdraw(office.desk, incident, KIM)
    await office.runner.advance(incident)
    await office.refused(incident, "2", VERA)
    await office.decide(incident, "1", KIM)
    await office.runner.advance(incident)
    await office.decide(incident, "undo", KIM)
    await office.runner.advance(incident)
    await note(office.desk, incident, KIM, "looked at it")
    async with office.pool.connection() as connection, connection.transaction():
        assert (await verify(connection)).findings == []
    await office.sql("update decision set decided_by = 'ann' where choice = 'undo'")
    async with office.pool.connection() as connection, connection.transaction():
        assert (await verify(connection)).findings != []


# --- at once ---

PEOPLE = (KIM, ANN, BOB, Caller("eve", "admin"))
CLICKS = st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(("1", "2", "manual"))), min_size=2, max_size=7)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clicks=CLICKS)
async def test_of_decisions_at_once_exactly_one_is_stored(office: Office, clicks: list[tuple[Caller, str]]) -> None:
    incident = await office.planned(f"c{datetime.now(UTC).timestamp()}")
    revision = await office.revision(incident)
    answers = await asyncio.gather(
        *(office.decide(incident, choice, caller, plan_revision=revision) for caller, choice in clicks),
        return_exceptions=True,
    )
    for answer in answers:
        assert not isinstance(answer, BaseException) or isinstance(answer, UseCaseError), answer
    decided = [a for a in answers if not isinstance(a, BaseException) and a.decision]
    stored = await office.sql("select choice, approvals from decision where incident_id = %s", incident)
    assert len(stored) == len(decided) <= 1
    if any(choice in ("1", "manual") for _, choice in clicks):
        assert len(stored) == 1
    for row in stored:
        if row["choice"] == "2":
            assert len({a["by"] for a in row["approvals"]}) == 2
    assert len(answers) == len(await office.audited("refusal", incident)) + len(
        await office.audited("approval", incident)
    ) + len(stored)
    await office.sql("update incident set closed_at = now(), status = 'closed' where id = %s", incident)


async def test_the_kill_switch_against_decisions_and_claims(office: Office) -> None:
    """Whatever the order: once it is pulled, nothing is claimed any more."""

    async def pull() -> None:
        async with transaction(office.pool) as connection:
            await freeze.pull(connection, "ann", "now")

    incident = await office.planned()
    answers = await asyncio.gather(office.decide(incident, "1"), pull(), return_exceptions=True)
    if isinstance(answers[0], UseCaseError):
        assert answers[0].reason == "frozen"
    else:
        await office.runner.advance(incident)
    assert office.dials.calls == []


async def test_facts_do_not_count_what_was_undone_or_read(office: Office) -> None:
    incident = await office.planned()
    await office.decide(incident, "1")
    await office.runner.advance(incident)
    await office.decide(incident, "undo")
    await office.runner.advance(incident)
    facts = await office.deps.facts.at_present(["shop", "db", "cache"], incident_id=incident)
    assert {name: n for name, n in facts.actions.items() if n} == {"shop": 1, "db": 1}
    assert facts.requester == "kim"
