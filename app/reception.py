"""Group commit: deliveries that arrive while a transaction commits share the next one.

A commit costs as much for fifty deliveries as for one, and alerts must be placed one after the other anyway. Each
answer still leaves only after the commit that holds its own delivery.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

from psycopg.errors import ProgramLimitExceeded

from app.alerts import Delivery, Outcome, accept
from app.db import DATABASE_AWAY
from app.desk import Desk

MOST_AT_ONCE = 100  # deliveries in a transaction
MOST_WAITING = 2_000  # deliveries; those beyond are answered 503, and their senders try again
MOST_WAITING_BYTES = 64_000_000


class Overloaded(Exception):
    """More deliveries wait for the database than can be held."""


class Reception:
    """Takes deliveries in; one per process."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self._waiting: deque[tuple[Delivery, asyncio.Future[Outcome]]] = deque()
        self._bytes = 0
        self._working: asyncio.Task[None] | None = None

    async def accept(self, delivery: Delivery) -> Outcome:
        """What became of it, once it is committed. Raises Overloaded, and what the database raises."""
        if len(self._waiting) >= MOST_WAITING or self._bytes + len(delivery.body) > MOST_WAITING_BYTES:
            raise Overloaded(f"{len(self._waiting)} deliveries wait for the database")
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, answer))
        self._bytes += len(delivery.body)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            self._bytes -= sum(len(delivery.body) for delivery, _ in batch)
            await self._commit(batch)

    async def _commit(self, batch: Sequence[tuple[Delivery, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await accept(self.desk, [delivery for delivery, _ in batch])
        except Exception as error:  # noqa: BLE001  whatever it is, its sender is told
            if len(batch) > 1 and _one_is_at_fault(error):
                for one in batch:  # the others must not pay for it
                    await self._commit([one])
                return
            for _, answer in batch:
                _settle(answer, error)
        else:
            for (_, answer), outcome in zip(batch, outcomes, strict=True):
                _settle(answer, outcome)


def _one_is_at_fault(error: Exception) -> bool:
    """Whether it is something in a delivery, and not the database as a whole."""
    return isinstance(error, ProgramLimitExceeded) or not isinstance(error, DATABASE_AWAY)


def _settle(answer: "asyncio.Future[Outcome]", said: Outcome | Exception) -> None:
    if answer.done():  # the sender has hung up
        return
    if isinstance(said, Exception):
        answer.set_exception(said)
    else:
        answer.set_result(said)
