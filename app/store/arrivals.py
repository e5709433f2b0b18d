"""What has come in since a moment: for those who set a sender up and wait for its first delivery."""

from collections.abc import Sequence
from datetime import datetime

from app.db import Connection, Row


async def now(connection: Connection) -> datetime:
    """The database's time, by which deliveries are stamped."""
    rows = await (await connection.execute("select clock_timestamp() as now")).fetchall()
    moment: datetime = rows[0]["now"]
    return moment


async def first(
    connection: Connection,
    senders: Sequence[str],
    since: datetime,
    *,
    holding: Sequence[str] = (),
    answered: bool = False,
) -> Row | None:
    """The first delivery of these senders whose body holds all these words, with its first alert's title and incident.

    ``answered``: what a vendor answered to a job instead of what it sent.
    """
    found = await connection.execute(
        """select r.id, r.sender, r.received_at, r.note, r.parse_error, r.body, a.title, a.incident_id
           from raw_delivery r left join lateral (
               select body->>'title' as title, incident_id from alert where raw_id = r.id order by received_at limit 1
           ) a on true
           where r.sender = any(%s) and r.received_at >= %s
             and case when %s then r.part = 'read' else r.part not in ('read', 'pull', 'replay') end
             and not exists (
                 select 1 from unnest(%s::text[]) word where position(convert_to(word, 'UTF8') in r.body) = 0
             )
           order by r.received_at limit 1""",
        (list(senders), since, answered, list(holding)),
    )
    return await found.fetchone()


async def asks(connection: Connection, raw_id: object) -> bool:
    """Whether a worker still has to ask a vendor what this delivery is about."""
    found = await connection.execute(
        """select 1 from procrastinate_jobs where task_name = 'sender_job' and args->>'raw_id' = %s
             and status in ('todo', 'doing') limit 1""",
        (str(raw_id),),
    )
    return await found.fetchone() is not None
