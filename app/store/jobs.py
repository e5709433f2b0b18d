"""What the sweep needs to know of the queue's own tables. Functions never commit."""

from app.db import Connection, Row

# An advisory lock's 64-bit key stands in pg_locks as two 32-bit halves.
HELD = """exists (
    select 1 from pg_locks l
    where l.locktype = 'advisory' and l.granted
      and ((l.classid::bigint << 32) | l.objid::bigint) = hashtextextended({incident_id}, %(space)s))"""


async def held(connection: Connection, space: int, incident_id: str) -> bool:
    """Whether somebody is running this incident right now."""
    query = f"select {HELD.format(incident_id='%(incident_id)s')} as held"
    values = {"space": space, "incident_id": incident_id}
    row = await (await connection.execute(query.encode(), values)).fetchone()
    return bool(row and row["held"])


async def orphaned(connection: Connection, space: int, after_s: float) -> list[Row]:
    """Jobs that count as running while nobody has held their incident for a while: their end was not recorded."""
    query = f"""select j.id, j.args->>'incident_id' as incident_id from procrastinate_jobs j
        where j.status = 'doing' and j.task_name = 'advance' and not {HELD.format(incident_id="j.args->>'incident_id'")}
          and (select max(e.at) from procrastinate_events e where e.job_id = j.id and e.type = 'started')
              < clock_timestamp() - make_interval(secs => %(after_s)s)"""  # noqa: S608  no outside text in it
    return await (await connection.execute(query.encode(), {"space": space, "after_s": after_s})).fetchall()


async def stuck(connection: Connection, task: str, after_s: float) -> list[int]:
    """Jobs of that task that count as running for so long: their end was not recorded."""
    rows = await (
        await connection.execute(
            """select j.id from procrastinate_jobs j where j.status = 'doing' and j.task_name = %s
                 and (select max(e.at) from procrastinate_events e where e.job_id = j.id and e.type = 'started')
                     < clock_timestamp() - make_interval(secs => %s)""",
            (task, after_s),
        )
    ).fetchall()
    return [row["id"] for row in rows]


async def drop_failed(connection: Connection, queue: str) -> None:
    """Forget jobs that a worker did not know what to do with: an older one, while a newer version starts."""
    await connection.execute("delete from procrastinate_jobs where status = 'failed' and queue_name = %s", (queue,))


async def forgotten(connection: Connection, after_s: float) -> list[str]:
    """Open incidents that neither wait for a person nor have a job."""
    rows = await (
        await connection.execute(
            """select i.id from incident i
               where i.closed_at is null and i.admitted_at is not null
                 and i.updated_at < clock_timestamp() - make_interval(secs => %s)
                 and (i.status <> 'awaiting_decision' or exists (
                     select 1 from decision d where d.incident_id = i.id and d.plan_revision = i.plan_revision))
                 and not exists (
                     select 1 from procrastinate_jobs j
                     where j.lock = 'incident:' || i.id and j.status in ('todo', 'doing'))
               limit 100""",
            (after_s,),
        )
    ).fetchall()
    return [row["id"] for row in rows]
