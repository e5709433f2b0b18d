"""``autopilot replay``: read dead letters again, or take a stored alert for a new one."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app import alerts
from app.alerts import Outcome
from app.db import transaction
from app.desk import NotFound
from app.intake.base import UnreadablePayload, iso_time
from app.settings import Settings
from app.store import alerts as store
from app.store import arrivals
from app.wiring import Product, assembled

LONGEST = 300  # characters of a line
_AGO = re.compile(r"(?P<count>\d{1,6})(?P<unit>[smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Say = Callable[[str], None]


def moment(text: str, now: datetime) -> datetime:
    """``2h`` before now, or a time in ISO 8601. Raises ValueError."""
    if ago := _AGO.fullmatch(text.strip()):
        try:
            return now - timedelta(**{_UNITS[ago["unit"]]: int(ago["count"])})
        except OverflowError:
            raise ValueError(f"{text} is too long ago") from None
    found = iso_time(text)
    if found is None:
        raise ValueError(f"{text!r} is no time: write 30m, 2h, 7d, or 2026-11-22T09:15:00Z")
    return found


async def replay_dead_letters(settings: Settings, url: str, since: datetime | None, say: Say) -> bool:
    """Read them again, oldest first, a line for each; whether all could be read."""
    async with assembled(settings, url) as product:
        async with transaction(product.pool) as connection:
            ids = await store.dead_letter_ids(connection, since)
        read = [await _replay(product, delivery_id, say) for delivery_id in ids]
    remain = read.count(False)
    say(f"{len(read)} dead letters: {len(read) - remain} read, {remain} remain." if read else "No dead letters.")
    return not remain


async def replay_alert(settings: Settings, url: str, alert_id: UUID) -> str:
    """The incident of the replayed alert. Raises NotFound."""
    async with assembled(settings, url) as product:
        outcome = await alerts.replay_alert(product.desk, alert_id)
    assert outcome.incident_id is not None  # it fires, in a cycle of its own
    return outcome.incident_id


async def _replay(product: Product, delivery_id: UUID, say: Say) -> bool:
    async with transaction(product.pool) as connection:
        row = await store.raw(connection, delivery_id)
    sender = row["sender"] if row else ""
    try:
        outcome = await alerts.replay_dead_letter(product.desk, product.senders, product.directory, delivery_id)
    except UnreadablePayload as error:
        say(_line(delivery_id, sender, f"still cannot be read: {error}"))
        return False
    except NotFound:
        say(_line(delivery_id, sender, "somebody else read it meanwhile"))
        return True
    say(_line(delivery_id, sender, await _became(product, outcome)))
    return True


async def _became(product: Product, outcome: Outcome) -> str:
    """In words."""
    if outcome.incident_id:
        return f"incident {outcome.incident_id}, {'opened' if outcome.created else 'known before'}"
    if outcome.alerts:
        return f"no incident: {outcome.alerts[0].became}"
    async with transaction(product.pool) as connection:
        if await arrivals.asks(connection, outcome.delivery_id):
            return "a worker asks its source again"
        row = await store.raw(connection, outcome.delivery_id)
    return (row["note"] if row else "") or "read; it holds no alert"


def _line(delivery_id: UUID, sender: str, became: str) -> str:
    return f"{delivery_id}  {sender:<12}  {' '.join(became.split())[:LONGEST]}"


def wall_clock() -> datetime:
    """Deliveries are stamped with the real time, whatever time the operated world has."""
    return datetime.now(UTC)
