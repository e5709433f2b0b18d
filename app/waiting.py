"""Plans that nobody decides on: a reminder, an escalation, the end. Nothing is ever run by itself."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from app.db import Connection, Row, transaction
from app.desk import Desk
from app.queue import enqueue_escalation
from app.store import incidents, waiting
from app.store.waiting import Stage

log = logging.getLogger(__name__)

ANSWERS_WITHIN = httpx.Timeout(10.0, connect=3.0)
PASSES = (408, 425, 429)  # what a 4xx may say and still be worth asking again


class EscalationFailed(Exception):
    """The hook did not take it; it is tried again."""


class EscalationRefused(Exception):
    """The hook will never take it: trying again is of no use."""


async def look(desk: Desk) -> None:
    """Remind, escalate and expire what is due, each once for each plan, whoever looks.

    The mark, the line in the timeline and the job are of one transaction: a worker that dies has done all or nothing.
    """
    wait = desk.policy.waiting
    stages: tuple[tuple[Stage, float, Tell], ...] = (
        ("reminded_at", wait.remind_after_minutes, _remind),
        ("escalated_at", wait.escalate_after_minutes, _escalate),
        ("expired_at", wait.ttl_minutes, _expire),
    )
    for stage, minutes, tell in stages:
        async with transaction(desk.pool) as connection:
            for row in await waiting.take_due(connection, stage, minutes):
                await tell(desk, connection, row)


Tell = Callable[[Desk, Connection, Row], Coroutine[Any, Any, None]]


async def _remind(desk: Desk, connection: Connection, row: Row) -> None:
    left = desk.policy.waiting.ttl_minutes - row["minutes"]
    until = f"its options can be approved for {_minutes(left)} more" if left > 0 else "its options are too old"
    await _say(desk, connection, row, "reminder", f"the plan has waited {_minutes(row['minutes'])}; {until}")


async def _escalate(desk: Desk, connection: Connection, row: Row) -> None:
    said = f"nobody has decided for {_minutes(row['minutes'])}"
    hook = desk.settings.escalation_url
    if hook:
        said += f"; {_host(hook)} is told"
        await enqueue_escalation(desk.queue, connection, row["id"], row["plan_revision"])
    await _say(desk, connection, row, "escalation", said)


async def _expire(desk: Desk, connection: Connection, row: Row) -> None:
    said = (
        f"nobody decided within {_minutes(row['minutes'])}: the options are too old to be approved, and nothing was"
        " run. Ask for new ones (re_plan), or choose re_analyze or manual"
    )
    await _say(desk, connection, row, "expired", said)


async def _say(desk: Desk, connection: Connection, row: Row, kind: str, said: str) -> None:
    key = f"{kind}:{row['plan_revision']}"
    data = {"plan_revision": row["plan_revision"], "owner": _owner(desk, row["service"])}
    await incidents.add_event(connection, row["id"], key, desk.clock.now(), kind, said, data=data)


# --- the hook ---


async def escalate(desk: Desk, incident_id: str, plan_revision: str, *, last_time: bool) -> None:
    """Post a plan that nobody decides on, unless somebody did meanwhile. Raises EscalationFailed: try again.

    A worker that dies after the answer posts it again: the receiver knows it by its ``Idempotency-Key``.
    """
    hook = desk.settings.escalation_url
    async with desk.pool.connection() as connection:
        row = await waiting.still_waits(connection, incident_id, plan_revision)
    if hook is None or row is None:
        return
    try:
        await _post(hook, desk, row)
    except (EscalationFailed, EscalationRefused) as error:
        if isinstance(error, EscalationFailed) and not last_time:
            raise
        said = f"{_host(hook)} could not be told that nobody decides: {error}. Tell the one on call yourself."
        log.error("incident %s: %s", incident_id, said)
    else:
        said = f"{_host(hook)} was told that nobody decides"
    async with transaction(desk.pool) as connection:
        await _say(desk, connection, row, "escalated", said)


async def _post(hook: SecretStr, desk: Desk, row: Row) -> None:
    """Raises EscalationFailed, EscalationRefused; no text of theirs holds the address."""
    body = {
        "incident": row["id"],
        "service": row["service"],
        "owner": _owner(desk, row["service"]),
        "title": row["title"],
        "severity": row["severity"],
        "waits_since": row["planned_at"].isoformat(),
        "plan_revision": row["plan_revision"],
        "url": f"{desk.settings.public_url.rstrip('/')}/ui/?incident={row['id']}",
    }
    headers = {"Idempotency-Key": f"{row['id']}:{row['plan_revision']}"}
    try:
        async with httpx.AsyncClient(timeout=ANSWERS_WITHIN) as client:
            answer = await client.post(hook.get_secret_value(), json=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EscalationFailed(type(error).__name__) from None
    if answer.is_success:
        return
    if answer.is_server_error or answer.status_code in PASSES:
        raise EscalationFailed(f"it answers {answer.status_code}")
    raise EscalationRefused(f"it answers {answer.status_code}")


def _owner(desk: Desk, service: str) -> str:
    """By the catalogue; empty where it names none."""
    found = desk.catalogue.services.get(service)
    return found.owner if found else ""


def _host(hook: SecretStr) -> str:
    """What people may read of the address: the rest of it may be a secret."""
    return urlsplit(hook.get_secret_value()).hostname or "the escalation hook"


def _minutes(count: float) -> str:
    if 0 < count < 1:
        return "less than a minute"
    return "1 minute" if round(count) == 1 else f"{round(count)} minutes"
