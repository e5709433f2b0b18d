"""Which investigations may run now. The rest wait, the most urgent first, and say why.

None waits for the model's money: where a cap is reached, the rules engine answers (``graph/llms/accounted.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import procrastinate

from app.db import Connection, Row
from app.queue import enqueue_advance_all
from app.settings import Settings
from app.store import admission, alerts, incidents, silences
from executors.base import Clock

WORTH_TELLING_S = 5.0
BEGINS_NOW = "POST /incidents/{id}/investigate begins it now"


@dataclass(frozen=True)
class Budget:
    """How much may be investigated. Each limit has its setting."""

    at_once: int
    per_service_hour: int

    @classmethod
    def of(cls, settings: Settings) -> "Budget":
        """As the settings say."""
        return cls(settings.investigations_at_once, settings.investigations_per_service_hour)

    @property
    def exhausted(self) -> str:
        """Why an incident waits whose service had its share; to be put after the service's name."""
        return (
            f" has used its {self.per_service_hour} investigations an hour"
            f" (AUTOPILOT_INVESTIGATIONS_PER_SERVICE_HOUR): this one waits; {BEGINS_NOW}"
        )

    @property
    def crowded(self) -> str:
        """Why an incident waits when all places are taken."""
        return f"waits: {self.at_once} investigations run at once (AUTOPILOT_INVESTIGATIONS_AT_ONCE); {BEGINS_NOW}"


async def admit(
    connection: Connection,
    queue: procrastinate.App,
    clock: Clock,
    budget: Budget,
    *,
    state: admission.State | None = None,
    touched: Sequence[str] | None = None,
) -> list[str]:
    """Start what the budget allows, in the caller's transaction; the ids that were started.

    Others that do the same wait for this transaction: two at once would spend the budget twice. ``state`` if it was
    read already; ``touched`` if only of these it has to be found out whether a silence holds them, and why they wait.
    """
    now = clock.now()
    if state is None:
        await alerts.take_turns(connection)
        state = await admission.state(connection, now, budget.at_once)
    if state.silences and (touched is None or touched):
        await silences.settle(connection, now, touched)
    started: list[str] = []
    if state.running < budget.at_once:
        places = budget.at_once - state.running
        rows = await admission.admit(connection, now, places, budget.per_service_hour)
        started = [row["id"] for row in rows]
        if started:
            await enqueue_advance_all(queue, connection, started)
            await _tell_waited(connection, rows, now)
    left = touched if touched is None else sorted(set(touched) - set(started))
    if left is None or left:
        await admission.say_why(connection, now, budget.per_service_hour, budget.exhausted, budget.crowded, left)
    return started


async def _tell_waited(connection: Connection, started: list[Row], now: datetime) -> None:
    for row in started:
        waited = datetime.now(UTC) - row["opened_at"]
        if waited > timedelta(seconds=WORTH_TELLING_S):
            await incidents.add_event(
                connection,
                row["id"],
                "admitted",
                now,
                "admitted",
                f"The investigation begins, after {waited.total_seconds():.0f} s of waiting",
            )
