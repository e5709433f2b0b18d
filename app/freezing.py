"""The kill switch: stop everything that has not begun, and let it go on. REST, console and command line come here."""

from typing import Literal

from app.db import Connection, Pool, Row, transaction
from app.desk import ANSWER_WITHIN_S, Conflict, NotAllowed, require
from app.security import Caller
from app.store import audit, freeze
from executors.base import Clock
from graph.state import Role

MAX_REASON = 500  # characters


async def pull(pool: Pool, clock: Clock, caller: Caller, reason: str) -> Row:
    """Once this returns, nothing new is claimed; a step that was claimed before runs to its end.

    Returns what stands: the second of two pulls changes nothing and names the first. Raises NotAllowed.
    """
    await _require(pool, clock, caller, "responder", "freeze all actions")
    async with transaction(pool, within_s=ANSWER_WITHIN_S) as connection:
        row = await freeze.pull(connection, caller.name, reason.strip()[:MAX_REASON])
        if row["fresh"]:
            await _record(connection, clock, caller, row, "pulled")
    await tell(pool, clock)
    return row


async def lift(pool: Pool, clock: Clock, caller: Caller) -> Row:
    """Steps may be claimed again; what was refused meanwhile is not run by itself. Raises NotAllowed, Conflict."""
    await _require(pool, clock, caller, "admin", "lift the freeze")
    async with transaction(pool, within_s=ANSWER_WITHIN_S) as connection:
        row = await freeze.lift(connection, caller.name)
        if row is None:
            raise Conflict("Nothing is frozen.")
        await _record(connection, clock, caller, row, "lifted")
    await tell(pool, clock)
    return row


async def tell(pool: Pool, clock: Clock) -> None:
    """In every open incident's timeline, once each; those that somebody holds are told by the next sweep."""
    async with transaction(pool) as connection:
        await freeze.tell(connection, clock.now())


async def _record(
    connection: Connection, clock: Clock, caller: Caller, row: Row, state: Literal["pulled", "lifted"]
) -> None:
    body = {"id": row["id"], "state": state, "reason": row["reason"]}
    await audit.append(connection, "freeze", caller.name, clock.now(), body)


async def _require(pool: Pool, clock: Clock, caller: Caller, role: Role, what: str) -> None:
    """Raises NotAllowed; that somebody tried is on record."""
    try:
        require(caller, role, what)
    except NotAllowed as refusal:
        async with transaction(pool, within_s=ANSWER_WITHIN_S) as connection:
            await audit.append(connection, "refusal", caller.name, clock.now(), {"tried": what, "why": str(refusal)})
        raise
