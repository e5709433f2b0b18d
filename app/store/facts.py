"""What the policy must know of the world, from our own tables."""

from collections.abc import Sequence

from app.db import Connection, Pool
from app.store import freeze
from app.store.ledger import changes_within_hour
from executors.base import Clock
from graph.catalogue import Catalogue
from graph.policy import Facts, Policy


class PostgresFacts:
    """``graph.deps.PolicyFacts``."""

    def __init__(self, pool: Pool, catalogue: Catalogue, policy: Policy, clock: Clock) -> None:
        self.pool, self.catalogue, self.policy, self.clock = pool, catalogue, policy, clock

    async def at_present(self, services: Sequence[str], *, incident_id: str = "") -> Facts:
        """See graph.deps.PolicyFacts."""
        async with self.pool.connection() as connection:
            return await self.read(connection, services, incident_id=incident_id)

    async def read(self, connection: Connection, services: Sequence[str], *, incident_id: str = "") -> Facts:
        """The same inside a transaction."""
        frozen = await freeze.current(connection)
        return Facts(
            now=self.clock.now(),
            requester=await _requester(connection, incident_id),
            frozen=freeze.said(frozen) if frozen else "",
            actions=await changes_within_hour(connection, services, self.clock.now()),
            budget_spent=await self._budget_spent(connection, services),
        )

    async def _budget_spent(self, connection: Connection, services: Sequence[str]) -> dict[str, float]:
        """Of each service with an objective: how much of what may fail in the window did, in critical incidents.

        Time in which several were open counts once.
        """
        objectives = {
            name: service.slo_percent
            for name in services
            if (service := self.catalogue.services.get(name)) and service.slo_percent
        }
        budget = self.policy.error_budget
        if budget is None or not objectives:
            return {}
        query = """select service, extract(epoch from sum(upper(spell) - lower(spell)))::float8 / 60 as minutes
                   from (select service, unnest(range_agg(tstzrange(opened_at, coalesce(closed_at, clock_timestamp()))
                                * tstzrange(clock_timestamp() - make_interval(days => %s), null))) as spell
                         from incident where service = any(%s) and severity = 'critical' group by service) spells
                   group by service"""
        rows = await (await connection.execute(query, (budget.window_days, list(objectives)))).fetchall()
        whole_minutes = budget.window_days * 24 * 60
        return {row["service"]: row["minutes"] / _may_fail(whole_minutes, objectives[row["service"]]) for row in rows}


def _may_fail(minutes: float, slo_percent: float) -> float:
    """So many of these minutes may fail."""
    return minutes * (1 - slo_percent / 100)


async def _requester(connection: Connection, incident_id: str) -> str:
    cursor = await connection.execute("select opened_by from incident where id = %s", (incident_id,))
    row = await cursor.fetchone()
    return row["opened_by"] if row else ""
