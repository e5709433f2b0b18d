"""The use cases: open, decide. One transaction each; REST, console, Slack and command line all come here."""

import json

from app import alerts
from app.alerts import Delivery, Outcome
from app.db import Connection, Row, transaction
from app.desk import ANSWER_WITHIN_S, Conflict, Desk, NotFound, Unusable, require
from app.intake.base import Parsed
from app.queue import enqueue_advance
from app.security import Caller, Role
from app.store import incidents
from executors.base import Risk
from graph.state import MAX_ROUNDS, Alert, Choice, Decision, Language, Plan

# --- open ---


async def open_by_hand(
    desk: Desk, alert: Alert, caller: Caller, idempotency_key: str | None, language: Language | None = None
) -> Outcome:
    """A person or program asks for an investigation; ``language``: of its report, else the setting's.

    Raises Unusable, NotAllowed.
    """
    require(caller, "responder", "open an incident")
    if alert.service not in desk.catalogue.services:
        known = ", ".join(sorted(desk.catalogue.services)) or "it is empty"
        raise Unusable(f"{alert.service!r} is not in the service catalogue ({known})")
    body = json.dumps({"service": alert.service, "occurred_at": alert.occurred_at.isoformat(), "title": alert.title})
    delivery_key = f"rest:{caller.name}:{idempotency_key}" if idempotency_key else None
    asked = Parsed(alerts=(alert,), asked_by=caller.name, delivery_key=delivery_key, language=language)
    outcomes = await alerts.accept(desk, [Delivery("rest", {}, body.encode(), asked)])
    return outcomes[0]


async def investigate_now(desk: Desk, incident_id: str, caller: Caller) -> None:
    """Begin an investigation that waits, whatever the budget or a silence says.

    Raises NotFound, NotAllowed, Conflict.
    """
    require(caller, "responder", "begin an investigation")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        row = await incidents.lock(connection, incident_id)
        if row is None:
            raise NotFound(incident_id)
        if row["closed_at"] or row["admitted_at"]:
            raise Conflict(f"The incident does not wait: it is {row['status'].replace('_', ' ')}.")
        await incidents.begin(connection, incident_id)
        said = f"{caller.name} began the investigation; it waited: {row['status_reason'] or 'for its turn'}"
        await incidents.add_event(connection, incident_id, "admitted", desk.clock.now(), "admitted", said)
        await enqueue_advance(desk.queue, connection, incident_id)


# --- decide ---


def chosen_risk(plan: Plan, choice: Choice) -> Risk:
    """The risk a decision takes; ``manual`` and ``re_analyze`` take none."""
    return plan.options[int(choice) - 1].risk if choice in ("1", "2", "3") else "none"


def required_role(desk: Desk, plan: Plan, choice: Choice) -> Role:
    """The role the policy asks for."""
    return desk.roles.get(chosen_risk(plan, choice), "responder")


async def decide(
    desk: Desk,
    incident_id: str,
    plan_revision: str,
    choice: Choice,
    caller: Caller,
    *,
    hint: str = "",
    note: str = "",
    language: Language | None = None,
) -> Decision:
    """Store the decision and enqueue the resumption. The first one wins. ``language``: what re_analyze writes in.

    Raises NotFound, NotAllowed, Conflict (late, double, stale), Unusable (no such option, cannot run, no rounds left,
    a language for what is not analysed again).
    """
    require(caller, "responder", "decide")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        row = await incidents.lock(connection, incident_id)
        if row is None:
            raise NotFound(incident_id)
        await _refuse_late(connection, row, plan_revision)
        analyses = await incidents.analyses(connection, incident_id)
        plan = Plan.model_validate(analyses[-1]["plan"])
        _refuse_unusable(plan, choice, row["round"], language)
        require(caller, required_role(desk, plan, choice), f"approve a {chosen_risk(plan, choice)}-risk option")
        decision = Decision(
            plan_revision=plan_revision,
            choice=choice,
            hint=hint,
            note=note,
            by=caller.name,
            at=desk.clock.now(),
            language=language,
        )
        if not await incidents.insert_decision(connection, incident_id, decision):
            raise Conflict(await _winner(connection, incident_id, plan_revision))
        await incidents.set_status(connection, incident_id, "executing" if choice in ("1", "2", "3") else row["status"])
        await incidents.add_event(
            connection,
            incident_id,
            f"decision:{plan_revision}",
            decision.at,
            "decision",
            f"{caller.name} chose {choice}" + (f": {hint or note}" if hint or note else ""),
            data={"choice": choice, "by": caller.name},
        )
        await enqueue_advance(desk.queue, connection, incident_id)
    return decision


async def _refuse_late(connection: Connection, row: Row, plan_revision: str) -> None:
    if winner := await _winner(connection, row["id"], plan_revision):
        raise Conflict(winner)
    if row["status"] != "awaiting_decision":
        raise Conflict(f"No decision is awaited: the incident is {row['status'].replace('_', ' ')}.")
    if row["plan_revision"] != plan_revision:
        raise Conflict(
            f"The plan has changed since it was shown to you: it is at revision {row['plan_revision']} now,"
            f" you decided on {plan_revision}. Look at /incidents/{row['id']}/actions again."
        )


async def _winner(connection: Connection, incident_id: str, plan_revision: str) -> str:
    for earlier in await incidents.decisions(connection, incident_id):
        if earlier["plan_revision"] == plan_revision:
            return (
                f"Already decided: {earlier['by']} chose {earlier['choice']} at {earlier['at']:%Y-%m-%d %H:%M:%S} UTC."
            )
    return ""


def _refuse_unusable(plan: Plan, choice: Choice, round_: int, language: Language | None) -> None:
    if choice in ("1", "2", "3"):
        if int(choice) > len(plan.options):
            raise Unusable(f"There is no option {choice}: this plan has {len(plan.options)}.")
        if broken := next((s for s in plan.options[int(choice) - 1].steps if s.infeasible), None):
            raise Unusable(f"Option {choice} cannot run now: {broken.operation}: {broken.infeasible}")
    if choice == "re_analyze" and round_ >= MAX_ROUNDS:
        raise Unusable(f"This incident was analysed {round_} times already; choose an option, or manual.")
    if language and choice != "re_analyze":
        raise Unusable("A language is chosen with re_analyze only: nothing is written anew otherwise.")
