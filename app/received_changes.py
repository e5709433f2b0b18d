"""Deployments, configuration changes and Health events that were told to us, as a collector reads them."""

from datetime import timedelta

from app.own_table import OwnTable
from app.store import alerts
from collectors.base import Scope, Telemetry

BEFORE = timedelta(hours=24)  # a deployment of last night may show its fault in the morning's load


class ReceivedChanges(OwnTable):
    """``collectors.base.Collector`` on our own table: always there, and needs no credentials."""

    name = "received"

    async def collect(self, scope: Scope) -> Telemetry:
        """The changes of the services in play."""
        components = [target.service for target in scope.targets]
        async with self.pool.connection() as connection:
            found = await alerts.changes_between(
                connection, components, scope.incident.start - BEFORE, scope.incident.end
            )
        return Telemetry(source=self.name, changes=tuple(found))
