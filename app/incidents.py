"""The use cases: open, decide. One transaction each; REST, console, Slack and command line all come here."""

import secrets
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import procrastinate

from app.db import Connection, Pool, Row, transaction
from app.queue import enqueue_advance
from app.security import Caller, Role
from app.settings import Settings
from app.store import deliveries, incidents
from executors.base import Clock, Risk
from graph.catalogue import Catalogue
from graph.state import MAX_ROUNDS, Alert, Choice, Decision, Plan


@dataclass(frozen=True)
class Desk:
    """What the use cases need."""

    pool: Pool
    queue: procrastinate.App
    catalogue: Catalogue
    clock: Clock
    settings: Settings
    roles: dict[Risk, Role] = field(default_factory=dict)


class Conflict(Exception):
    """The incident is not in the state this needs; the text says which, and who was first."""


class NotFound(Exception):
    """There is no such incident."""

    def __init__(self, incident_id: str) -> None:
        super().__init__(f"There is no incident {incident_id!r}.")


class NotAllowed(Exception):
    """The caller's role does not allow this."""


class Unusable(Exception):
    """What was sent cannot be used; the text says why."""


@dataclass(frozen=True)
class Opened:
    """What became of an alert."""

    incident_id: str | None
    created: bool
    duplicate: bool = False


ANSWER_WITHIN_S = 8.0  # Datadog waits 15 s, SNS too: a database that hangs is a 503 well before
OLDEST = timedelta(days=3650)  # no source keeps telemetry for so long: an older time is a mistake
UNDECIDED = ("received", "collecting", "analyzing", "planning", "awaiting_decision")

# --- open ---


async def open_from_delivery(
    desk: Desk, sender: str, headers: dict[str, str], body: bytes, alert: Alert, delivery_key: str | None
) -> Opened:
    """Raw delivery, alert, incident and job in one transaction; the answer leaves after the commit."""
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        raw_id = await deliveries.insert_raw(connection, sender, headers, body, delivery_key=delivery_key)
        if raw_id is None:
            known = await deliveries.incident_of_delivery(connection, delivery_key or "")
            return Opened(known, created=False, duplicate=True)
        if alert.transition in ("resolved", "renotify"):
            return await _follow_up(desk, connection, alert, raw_id)
        incident_id, created = await _open_or_join(desk, connection, alert, sender, f"Alert from {sender}")
        await deliveries.insert_alert(
            connection,
            alert,
            raw_id=raw_id,
            incident_id=incident_id,
            merge_reason="" if created else "same alert cycle",
        )
        return Opened(incident_id, created=created)


async def keep_dead_letter(desk: Desk, sender: str, headers: dict[str, str], body: bytes, error: str) -> str:
    """Keep what an authentic sender sent and we do not understand; the dead letter's id."""
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        raw_id = await deliveries.insert_raw(connection, sender, headers, body, parse_error=error)
    return str(raw_id)


async def open_by_hand(desk: Desk, alert: Alert, caller: Caller, idempotency_key: str | None) -> Opened:
    """A person or program asks for an investigation. Raises Unusable, NotAllowed."""
    _require(caller, "responder", "open an incident")
    if alert.service not in desk.catalogue.services:
        known = ", ".join(sorted(desk.catalogue.services)) or "it is empty"
        raise Unusable(f"{alert.service!r} is not in the service catalogue ({known})")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        incident_id, created = await _open_or_join(
            desk, connection, alert, caller.name, f"Opened by {caller.name}", idempotency_key
        )
        if created:
            await deliveries.insert_alert(connection, alert, raw_id=None, incident_id=incident_id)
        return Opened(incident_id, created=created, duplicate=not created)


async def _open_or_join(
    desk: Desk, connection: Connection, alert: Alert, opened_by: str, how: str, idempotency_key: str | None = None
) -> tuple[str, bool]:
    """The incident of this alert, and whether it is new."""
    while True:
        incident_id = _new_id()
        if await incidents.insert(
            connection,
            incident_id,
            alert,
            environment=desk.catalogue.environment,
            opened_by=opened_by,
            idempotency_key=idempotency_key,
        ):
            message = f"{how}: {alert.title}"
            await incidents.add_event(
                connection, incident_id, "opened", desk.clock.now(), "opened", message, data={"url": alert.url}
            )
            await enqueue_advance(desk.queue, connection, incident_id)
            return incident_id, True
        # The unique index made us wait for the other transaction: its incident is visible now.
        existing = None
        if idempotency_key:
            existing = await incidents.by_idempotency_key(connection, idempotency_key)
        existing = existing or await incidents.open_by_cycle(connection, alert.cycle_key)
        if existing:
            return str(existing["id"]), False
        # It was closed between the two statements: this alert opens the next one.


async def _follow_up(desk: Desk, connection: Connection, alert: Alert, raw_id: UUID) -> Opened:
    """A recovery or a reminder: never starts an investigation, and ends one that waits for nobody's decision yet."""
    existing = await incidents.open_by_cycle(connection, alert.cycle_key)
    incident_id = existing["id"] if existing else None
    alert_id = await deliveries.insert_alert(
        connection,
        alert,
        raw_id=raw_id,
        incident_id=incident_id,
        merge_reason="same alert cycle" if existing else "",
    )
    if existing is None:
        return Opened(None, created=False)
    locked = await incidents.lock(connection, existing["id"])
    assert locked is not None
    recovered = alert.transition == "resolved"
    if recovered and locked["status"] in UNDECIDED:
        await incidents.set_status(connection, locked["id"], "closed", reason="recovered by itself")
    await incidents.add_event(
        connection,
        locked["id"],
        f"{alert.transition}:{alert_id}",
        desk.clock.now(),
        alert.transition,
        f"The monitor says: {alert.transition.replace('_', ' ')}",
    )
    return Opened(locked["id"], created=False)


def _new_id() -> str:
    return f"inc_{secrets.token_hex(8)}"


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
) -> Decision:
    """Store the decision and enqueue the resumption. The first one wins.

    Raises NotFound, NotAllowed, Conflict (late, double, stale), Unusable (no such option, cannot run, no rounds left).
    """
    _require(caller, "responder", "decide")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        row = await incidents.lock(connection, incident_id)
        if row is None:
            raise NotFound(incident_id)
        await _refuse_late(connection, row, plan_revision)
        analyses = await incidents.analyses(connection, incident_id)
        plan = Plan.model_validate(analyses[-1]["plan"])
        _refuse_unusable(plan, choice, row["round"])
        _require(caller, required_role(desk, plan, choice), f"approve a {chosen_risk(plan, choice)}-risk option")
        decision = Decision(
            plan_revision=plan_revision,
            choice=choice,
            hint=hint,
            note=note,
            by=caller.name,
            at=desk.clock.now(),
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


def _refuse_unusable(plan: Plan, choice: Choice, round_: int) -> None:
    if choice in ("1", "2", "3"):
        if int(choice) > len(plan.options):
            raise Unusable(f"There is no option {choice}: this plan has {len(plan.options)}.")
        if broken := next((s for s in plan.options[int(choice) - 1].steps if s.infeasible), None):
            raise Unusable(f"Option {choice} cannot run now: {broken.operation}: {broken.infeasible}")
    if choice == "re_analyze" and round_ >= MAX_ROUNDS:
        raise Unusable(f"This incident was analysed {round_} times already; choose an option, or manual.")


def _require(caller: Caller, role: Role, what: str) -> None:
    if not caller.may(role):
        raise NotAllowed(f"{caller.name} is {caller.role}; to {what} takes {role}.")
