"""The use cases of silences: maintenance windows and snoozes. Alerts are stored and linked, and nobody is called."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches

from app import admission
from app.db import Connection, Row, transaction
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
    made = await _create(desk, caller, starts_at, ends_at, reason, [(service, rule, fingerprint)])
    return made[0]


async def snooze(desk: Desk, incident_id: str, duration: timedelta, reason: str, caller: Caller) -> list[Row]:
    """One silence for each rule and resource of an incident. Raises NotFound, NotAllowed, Unusable."""
    async with desk.pool.connection() as connection:
        if await incidents.get(connection, incident_id) is None:
            raise NotFound(incident_id)
        fingerprints = sorted({c.fingerprint for c in await alerts.members(connection, [incident_id])})
    now = desk.clock.now()
    return await _create(desk, caller, now, now + duration, reason, [(None, None, f) for f in fingerprints])


async def _create(
    desk: Desk,
    caller: Caller,
    starts_at: datetime,
    ends_at: datetime,
    reason: str,
    matchers: Sequence[tuple[str | None, str | None, str | None]],
) -> list[Row]:
    """For each service, rule and fingerprint one silence; None matches any."""
    require(caller, "responder", "silence alerts")
    if ends_at <= max(starts_at, desk.clock.now()):
        raise Unusable("ends_at is not after starts_at, or is over already.")
    if ends_at - starts_at > LONGEST:
        raise Unusable(f"A silence lasts {LONGEST.days} days at most; for longer, turn the monitor off.")
    made: list[Row] = [
        {
            "id": f"sil_{secrets.token_hex(8)}",
            "service": service,
            "rule": rule,
            "fingerprint": fingerprint,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "reason": reason,
            "created_by": caller.name,
        }
        for service, rule, fingerprint in matchers
    ]
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        await alerts.take_turns(connection)
        for service in sorted({s for s, _, _ in matchers if s}):
            await _refuse_unheard_of(desk, connection, service)
        await silences.insert(connection, made)
        await silences.settle(connection, desk.clock.now())
    return made


async def _refuse_unheard_of(desk: Desk, connection: Connection, service: str) -> None:
    """A name mistyped would silence nothing, and nobody would know before the night is spoilt."""
    if service in desk.catalogue.services or await silences.heard_of(connection, service):
        return
    near = get_close_matches(service, desk.catalogue.services, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else " Add it to the catalogue first."
    raise Unusable(f"{service!r} is not in the service catalogue, and no alert of it ever came.{meant}")


async def end(desk: Desk, silence_id: str, caller: Caller) -> None:
    """End a silence now; what waits for it is investigated. Raises NotAllowed, NotFound."""
    require(caller, "responder", "end a silence")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        await alerts.take_turns(connection)
        if not await silences.end(connection, silence_id, desk.clock.now(), caller.name):
            raise NotFound(silence_id, "silence in force or to come, called")
        await admission.admit(connection, desk.queue, desk.clock, desk.budget)
