"""The report of an incident, read from the store as of now."""

from app.db import Connection, Pool, Row
from app.desk import NotFound
from app.report import Report, build
from app.store import decisions, incidents, llm_calls
from graph.state import Language


async def load_report(pool: Pool, incident_id: str, language: Language | None = None) -> Report:
    """``language``: None for the incident's. Raises NotFound."""
    async with pool.connection() as connection:
        row = await incidents.get(connection, incident_id)
        if row is None:
            raise NotFound(incident_id)
        return await stored_report(connection, row, language)


async def stored_report(connection: Connection, row: Row, language: Language | None = None) -> Report:
    """The same of an incident's row, in the caller's transaction."""
    incident_id = row["id"]
    return build(
        row,
        await incidents.analyses(connection, incident_id),
        await incidents.decisions(connection, incident_id),
        await incidents.executions(connection, incident_id),
        await incidents.newest_events(connection, incident_id),
        await incidents.alert_cycles(connection, incident_id),
        await llm_calls.page(connection, incident_id),
        await decisions.approvals(connection, incident_id, row["plan_revision"]),
        language=language,
    )
