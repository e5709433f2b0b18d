"""The use cases of silences: maintenance windows and snoozes. Alerts are stored and linked, and nobody is called."""

import secrets
from datetime import datetime, timedelta

from app import admission
from app.db import Row, transaction
from app.desk import ANSWER_WITHIN_S, Desk, NotFound, Unusable, require
from app.security import Caller
from app.store import alerts, incidents, silences

LONGEST = timedelta(days=90)


async def create(
    desk: Desk,
    caller: Caller,
    *,
    starts_at: datetime,
    ends_at: datetime,
    reason: str,
    service: str | None = None,
    rule: str | None = None,
    fingerprint: str | None = None,
) -> Row:
    """A window in which matching alerts start no investigation. Raises NotAllowed, Unusable."""
    require(caller, "responder", "silence alerts")
    if ends_at <= max(starts_at, desk.clock.now()):
        raise Unusable("ends_at is not after starts_at, or is over already.")
    if ends_at - starts_at > LONGEST:
        raise Unusable(f"A silence lasts {LONGEST.days} days at most; for longer, turn the monitor off.")
    silence: Row = {
        "id": f"sil_{secrets.token_hex(8)}",
        "service": service,
        "rule": rule,
        "fingerprint": fingerprint,
        "starts_at": starts_at,
        "ends_at": ends_at,
        "reason": reason,
        "created_by": caller.name,
    }
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        await alerts.take_turns(connection)
        await silences.insert(connection, silence)
        await silences.settle(connection, desk.clock.now())
    return silence


async def snooze(desk: Desk, incident_id: str, duration: timedelta, reason: str, caller: Caller) -> list[Row]:
    """One silence for each rule and resource of an incident. Raises NotFound, Unusable."""
    async with desk.pool.connection() as connection:
        if await incidents.get(connection, incident_id) is None:
            raise NotFound(incident_id)
        fingerprints = sorted({c.fingerprint for c in await alerts.members(connection, [incident_id])})
    now = desk.clock.now()
    return [
        await create(desk, caller, starts_at=now, ends_at=now + duration, reason=reason, fingerprint=fingerprint)
        for fingerprint in fingerprints[:100]
    ]


async def end(desk: Desk, silence_id: str, caller: Caller) -> None:
    """End a silence now; what waits for it is investigated. Raises NotAllowed, NotFound."""
    require(caller, "responder", "end a silence")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        await alerts.take_turns(connection)
        if not await silences.end(connection, silence_id, desk.clock.now(), caller.name):
            raise NotFound(silence_id, "silence in force or to come, called")
        await admission.admit(connection, desk.queue, desk.clock, desk.budget)
