"""The use cases that open incidents. One transaction each; REST, console, Slack and command line all come here."""

import json

from app import alerts
from app.alerts import Delivery, Outcome
from app.db import transaction
from app.desk import ANSWER_WITHIN_S, Conflict, Desk, NotFound, Unusable, require
from app.intake.base import Parsed
from app.queue import enqueue_advance
from app.security import Caller
from app.store import incidents
from graph.state import Alert, Language


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
