"""Feedback: each author's newest on each thing; what it replaced is in the audit log. Functions never commit."""

from app.db import Connection
from app.opinions import Opinions, Said
from graph.state import Door


async def put(connection: Connection, incident_id: str, said: Said, via: Door) -> None:
    """Store it in place of what the same author said of the same thing."""
    await connection.execute(
        """insert into feedback (incident_id, about, plan_revision, option, verdict, component, category, helped, note,
               by, role, via, at)
           values (%(incident_id)s, %(about)s, %(plan_revision)s, %(option)s, %(verdict)s, %(component)s, %(category)s,
               %(helped)s, %(note)s, %(by)s, %(role)s, %(via)s, %(at)s)
           on conflict (incident_id, about, plan_revision, option, by) do update set
               verdict = excluded.verdict, component = excluded.component, category = excluded.category,
               helped = excluded.helped, note = excluded.note, role = excluded.role, via = excluded.via,
               at = excluded.at""",
        {"incident_id": incident_id, "via": via, **said.model_dump()},
    )


async def opinions(connection: Connection, incident_id: str) -> Opinions:
    """All that people say of an incident, oldest first."""
    rows = await (
        await connection.execute(
            """select about, plan_revision, option, verdict, component, category, helped, note, by, role, at
               from feedback where incident_id = %s order by at, by""",
            (incident_id,),
        )
    ).fetchall()
    return Opinions(tuple(Said.model_validate(row) for row in rows))
