"""Deployments, configuration changes and Health events that were told to us, as a collector reads them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Literal

from app.db import Pool
from app.store import alerts
from collectors.base import Check, LogsRead, Refused, Scope, Series, SeriesRef, Telemetry, TraceRead, Window

BEFORE = timedelta(hours=24)  # a deployment of last night may show its fault in the morning's load


class ReceivedChanges:
    """``collectors.base.Collector`` on our own table: always there, and needs no credentials."""

    name = "received"
    timeout_s = 5.0
    reads: frozenset[Literal["logs", "trace"]] = frozenset()

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def collect(self, scope: Scope) -> Telemetry:
        """The changes of the services in play."""
        components = [target.service for target in scope.targets]
        async with self.pool.connection() as connection:
            found = await alerts.changes_between(
                connection, components, scope.incident.start - BEFORE, scope.incident.end
            )
        return Telemetry(source=self.name, changes=tuple(found))

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """Changes are not measured."""
        return []

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """Raises Refused: changes are given whole."""
        raise Refused(f"{self.name} answers no questions about {question.kind}")

    async def check(self) -> list[Check]:
        """Nothing: it is our own table, and needs no permission."""
        return []

    async def aclose(self) -> None:
        """The pool is not ours."""
