"""Plans that nobody decides on: a reminder, an escalation, the end. Nothing is ever run by itself."""

import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from app.db import Connection, Row, transaction
from app.desk import Desk
from app.notifiers._http import ANSWERS_WITHIN, post
from app.notifiers.base import TryAgain, Undeliverable
from app.queue import enqueue_escalation
from app.routing import Routes
from app.store import incidents, waiting
from app.store.waiting import Stage

log = logging.getLogger(__name__)


async def look(desk: Desk) -> None:
    """Remind, escalate and expire what is due, each once for each plan, whoever looks.

    Where teams have a ``next`` one, it goes on from team to team, as long after each as after the plan. The mark, the
    line in the timeline and the job are of one transaction: a worker that dies has done all or nothing.
    """
    wait = desk.policy.waiting
    longest = max((len(desk.catalogue.in_line(team)) for team in desk.catalogue.teams), default=1)
    stages: tuple[tuple[Stage, float, int, Tell], ...] = (
        ("reminded_at", wait.remind_after_minutes, 1, _remind),
        ("escalated_at", wait.escalate_after_minutes, longest, _escalate),
        ("expired_at", wait.ttl_minutes, 1, _expire),
    )
    for stage, minutes, times, tell in stages:
        async with transaction(desk.pool) as connection:
            for row in await waiting.take_due(connection, stage, minutes, times):
                await tell(desk, connection, row)


Tell = Callable[[Desk, Connection, Row], Coroutine[Any, Any, None]]


async def _remind(desk: Desk, connection: Connection, row: Row) -> None:
    left = desk.policy.waiting.ttl_minutes - row["minutes"]
    until = f"its options can be approved for {_minutes(left)} more" if left > 0 else "its options are too old"
    await _say(desk, connection, row, "reminder", f"the plan has waited {_minutes(row['minutes'])}; {until}")


async def _escalate(desk: Desk, connection: Connection, row: Row) -> None:
    """Tell the next in line; the first time also whatever is set for all, even where no team is next."""
    first, team = row["first"], _next_in_line(desk, row)
    hook = desk.settings.escalation_url if first else None
    if hook:
        await enqueue_escalation(desk.queue, connection, row["id"], row["plan_revision"])
    if first or team:
        told = [*([_host(hook)] if hook else []), *([team] if team else [])]
        said = f"nobody has decided for {_minutes(row['minutes'])}" + "".join(f"; {one} is told" for one in told)
        await _say(desk, connection, row, "escalation", said, team, "" if first else f":{row['escalations']}")


def _next_in_line(desk: Desk, row: Row) -> str:
    """The team that this escalation tells; empty: there is none."""
    routes = Routes(desk.catalogue, desk.policy.messages, ())
    line = desk.catalogue.in_line(routes.responsible(row["service"], row["component"]))
    return line[row["escalations"] - 1] if row["escalations"] <= len(line) else ""


async def _expire(desk: Desk, connection: Connection, row: Row) -> None:
    said = (
        f"nobody decided within {_minutes(row['minutes'])}: the options are too old to be approved, and nothing was"
        " run. Ask for new ones (re_plan), or choose re_analyze or manual"
    )
    await _say(desk, connection, row, "expired", said)


async def _say(
    desk: Desk, connection: Connection, row: Row, kind: str, said: str, team: str = "", again: str = ""
) -> None:
    """``team``: that is next in line; ``again``: tells one escalation of a plan from another."""
    key = f"{kind}:{row['plan_revision']}{again}"
    data = {"plan_revision": row["plan_revision"], "owner": desk.catalogue.owner(row["service"]), "team": team}
    await incidents.add_event(connection, row["id"], key, desk.clock.now(), kind, said, data=data)


# --- the hook ---


async def escalate(desk: Desk, incident_id: str, plan_revision: str, *, last_time: bool) -> None:
    """Post a plan that nobody decides on, unless somebody did meanwhile. Raises TryAgain.

    A worker that dies after the answer posts it again: the receiver knows it by its ``Idempotency-Key``.
    """
    hook = desk.settings.escalation_url
    async with desk.pool.connection() as connection:
        row = await waiting.still_waits(connection, incident_id, plan_revision)
    if hook is None or row is None:
        return
    try:
        await _post(hook, desk, row)
    except (TryAgain, Undeliverable) as error:
        if isinstance(error, TryAgain) and not last_time:
            raise
        said = f"{_host(hook)} could not be told that nobody decides: {error}. Tell the one on call yourself."
        log.error("incident %s: %s", incident_id, said)
    else:
        said = f"{_host(hook)} was told that nobody decides"
    async with transaction(desk.pool) as connection:
        await _say(desk, connection, row, "escalated", said)


async def _post(hook: SecretStr, desk: Desk, row: Row) -> None:
    """Raises TryAgain, Undeliverable; no text of theirs holds the address."""
    body = {
        "incident": row["id"],
        "service": row["service"],
        "owner": desk.catalogue.owner(row["service"]),
        "title": row["title"],
        "severity": row["severity"],
        "waits_since": row["planned_at"].isoformat(),
        "plan_revision": row["plan_revision"],
        "url": desk.settings.incident_url(row["id"]),
    }
    headers = {"content-type": "application/json", "idempotency-key": f"{row['id']}:{row['plan_revision']}"}
    async with httpx.AsyncClient(timeout=ANSWERS_WITHIN) as client:
        status, _ = await post(client, hook.get_secret_value(), json.dumps(body).encode(), headers, "it")
    if not 200 <= status < 300:
        raise Undeliverable(f"it answers {status}")


def _host(hook: SecretStr) -> str:
    """What people may read of the address: the rest of it may be a secret."""
    return urlsplit(hook.get_secret_value()).hostname or "the escalation hook"


def _minutes(count: float) -> str:
    if 0 < count < 1:
        return "less than a minute"
    return "1 minute" if round(count) == 1 else f"{round(count)} minutes"
