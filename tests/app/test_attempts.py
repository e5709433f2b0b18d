"""Attempts to act without right: each refused with its reason, audited, and without anything run, at every door."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.db import transaction
from app.security import Caller
from app.store import freeze
from graph.policy import Policy
from graph.state import Plan
from tests.app.deciding import ANN, KIM, OPTIONS, VERA, Office, offices, option
from tests.app.doors import DOORS


@dataclass(frozen=True)
class Attempt:
    """What is tried, and why it must be refused."""

    reason: str
    office: Office
    incident: str
    plan_revision: str
    choice: str = "1"
    caller: Caller = KIM
    steps: tuple[int, ...] = ()


Prepare = Callable[[Office], Awaitable[Attempt]]


async def on_the_plan(reason: str, office: Office, incident: str, **more: Any) -> Attempt:
    """On the plan that waits."""
    return Attempt(reason, office, incident, await office.revision(incident), **more)


async def no_decision_is_awaited(office: Office) -> Attempt:
    return Attempt("not_awaited", office, await office.open(), "3f0c8e2b91a74d65")


async def unknown_incident(office: Office) -> Attempt:
    return Attempt("not_found", office, "inc_0", "3f0c8e2b91a74d65")


async def plan_of_another_incident(office: Office) -> Attempt:
    mine, other = await office.planned("a"), await office.planned("b")
    return Attempt("stale_plan", office, mine, await office.revision(other))


async def expired(office: Office) -> Attempt:
    incident = await office.planned()
    await office.sql("update incident set planned_at = planned_at - interval '30 minutes'")
    return await on_the_plan("expired", office, incident)


async def used_already(office: Office) -> Attempt:
    incident = await office.planned()
    revision = await office.revision(incident)
    await office.decide(incident, "1")
    await office.runner.advance(incident)
    return Attempt("already_decided", office, incident, revision)


async def edited_parameters(office: Office) -> Attempt:
    incident = await office.planned()
    await office.sql("update analysis set plan = jsonb_set(plan, '{options,0,steps,0,params,to}', '98')")
    return await on_the_plan("tampered", office, incident)


async def forged_plan(office: Office) -> Attempt:
    incident = await office.planned()
    forged = Plan.of([option("Forged", ("turn_dial", "shop", 98))])
    await office.sql("update analysis set plan = %s::text::jsonb", forged.model_dump_json())
    return await on_the_plan("tampered", office, incident)


async def forged_plan_and_revision(office: Office) -> Attempt:
    incident = await office.planned()
    shown = await office.revision(incident)
    forged = Plan.of([option("Forged", ("turn_dial", "shop", 98))])
    await office.sql("update analysis set plan = %s::text::jsonb", forged.model_dump_json())
    await office.sql("update incident set plan_revision = %s", forged.revision)
    return Attempt("stale_plan", office, incident, shown)


async def a_viewer(office: Office) -> Attempt:
    return await on_the_plan("not_allowed", office, await office.planned(), caller=VERA)


async def too_low_a_role_for_the_risk(office: Office) -> Attempt:
    return await on_the_plan("not_allowed", office, await office.planned(), choice="2")


async def the_same_person_twice(office: Office) -> Attempt:
    incident = await office.planned()
    await office.decide(incident, "2", ANN, "slack")
    return await on_the_plan("same_person", office, incident, choice="2", caller=ANN)


async def the_requester(office: Office) -> Attempt:
    strict = office.under(Policy(requester_may_approve=False))
    return await on_the_plan("requester", strict, await strict.planned())


async def out_of_the_catalogue(office: Office) -> Attempt:
    incident = await office.planned()
    operation: Any = office.desk.operations["turn_dial"]
    operation.resources = {}
    return await on_the_plan("catalogue", office, incident)


async def not_registered(office: Office) -> Attempt:
    incident = await office.planned()
    return await on_the_plan("not_registered", office.without("turn_dial"), incident)


async def during_the_freeze(office: Office) -> Attempt:
    incident = await office.planned()
    async with transaction(office.pool) as connection:
        await freeze.pull(connection, "ann", "the bank calls")
    return await on_the_plan("frozen", office, incident)


async def in_a_freeze_window(office: Office) -> Attempt:
    now, hour = datetime.now(UTC), timedelta(hours=1)
    window = {"name": "Black Friday", "from": now - hour, "until": now + hour}
    frozen = office.under(Policy.model_validate({"freeze_windows": [window]}))
    return await on_the_plan("policy", frozen, await frozen.planned(options=OPTIONS[:1]))


async def drifted(office: Office) -> Attempt:
    incident = await office.planned()
    office.dials.stand["db"] = 77
    return await on_the_plan("drift", office, incident)


async def under_another_policy(office: Office) -> Attempt:
    incident = await office.planned()
    return await on_the_plan("drift", office.under(Policy(actions_per_service_hour=3)), incident)


async def no_such_option(office: Office) -> Attempt:
    return await on_the_plan("no_such_option", office, await office.planned(options=OPTIONS[:1]), choice="3")


async def no_such_step(office: Office) -> Attempt:
    return await on_the_plan("no_such_option", office, await office.planned(), steps=(1, 9))


async def nothing_to_undo(office: Office) -> Attempt:
    return await on_the_plan("nothing_to_undo", office, await office.planned(), choice="undo")


ATTEMPTS: tuple[Prepare, ...] = (
    no_decision_is_awaited,
    unknown_incident,
    plan_of_another_incident,
    expired,
    used_already,
    edited_parameters,
    forged_plan,
    forged_plan_and_revision,
    a_viewer,
    too_low_a_role_for_the_risk,
    the_same_person_twice,
    the_requester,
    out_of_the_catalogue,
    not_registered,
    during_the_freeze,
    in_a_freeze_window,
    drifted,
    under_another_policy,
    no_such_option,
    no_such_step,
    nothing_to_undo,
)


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    async with offices(database_url) as made:
        yield made


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("prepare", ATTEMPTS, ids=lambda prepare: prepare.__name__)
async def test_it_is_refused_and_audited_and_nothing_runs(office: Office, prepare: Prepare, door: str) -> None:
    attempt = await prepare(office)
    called, steps = list(office.dials.calls), await office.sql("select id from step")
    async with DOORS[door](attempt.office) as entered:
        answer = await entered.decide(
            attempt.incident, attempt.plan_revision, attempt.choice, attempt.caller, attempt.steps
        )
    assert (answer.accepted, answer.reason) == (False, attempt.reason)
    [refusal] = await office.audited("refusal")
    assert (refusal["actor"], refusal["reason"], refusal["via"]) == (attempt.caller.name, attempt.reason, door)
    assert refusal["incident_id"] == (attempt.incident if attempt.reason != "not_found" else None)
    assert (refusal["choice"], refusal["plan_revision"]) == (attempt.choice, attempt.plan_revision)
    await attempt.office.runner.advance(attempt.incident)  # what a worker would do now
    assert office.dials.calls == called
    assert await office.sql("select id from step") == steps


@pytest.mark.parametrize("door", DOORS)
async def test_the_same_attempt_with_right_is_accepted(office: Office, door: str) -> None:
    incident = await office.planned()
    async with DOORS[door](office) as entered:
        answer = await entered.decide(incident, await office.revision(incident), "1", KIM)
    assert answer.accepted
    [decision] = await office.audited("decision")
    assert (decision["actor"], decision["via"]) == ("kim", door)
    await office.runner.advance(incident)
    assert office.dials.calls == ["turn_dial shop 5", "turn_dial db 6"]
