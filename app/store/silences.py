"""Maintenance windows and snoozes. Functions never commit."""

from collections.abc import Sequence
from datetime import datetime

from app.db import Connection, Row

COLUMNS = "id, service, rule, fingerprint, starts_at, ends_at, reason, created_by, created_at, ended_by"


async def insert(connection: Connection, new: Sequence[Row]) -> None:
    """New ones."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """insert into silence (id, service, rule, fingerprint, starts_at, ends_at, reason, created_by)
               values (%(id)s, %(service)s, %(rule)s, %(fingerprint)s, %(starts_at)s, %(ends_at)s, %(reason)s,
                       %(created_by)s)""",
            new,
        )


async def heard_of(connection: Connection, service: str) -> bool:
    """Whether an alert of this service ever came."""
    return bool(await _all(connection, "select 1 from alert_cycle where service = %s limit 1", service))


async def current(connection: Connection, now: datetime) -> list[Row]:
    """Those in force and those to come."""
    query = f"select {COLUMNS} from silence where ends_at > %s order by starts_at, id limit 1000"  # noqa: S608
    return await _all(connection, query, now)


async def settle(connection: Connection, now: datetime, incident_ids: Sequence[str] | None = None) -> None:
    """Let each incident that waits, or each of these, be held while every alert of it that fires is silenced, and no
    longer.
    """
    await connection.execute(
        """with in_force as materialized (
               select * from silence where starts_at <= %(now)s and ends_at > %(now)s),
           waiting as materialized (
               select id from incident where closed_at is null and admitted_at is null and asked_by = ''
                   and (held_until is not null or exists (select 1 from in_force))
                   and (%(ids)s::text[] is null or id = any(%(ids)s::text[]))),
           silenced as (  -- each alert that fires, with the silence of it that lasts longest
               select distinct on (c.incident_id, c.cycle_key) c.incident_id, s.*
               from waiting w join alert_cycle c on c.incident_id = w.id and c.state = 'firing'
               left join in_force s on coalesce(s.service, c.service) = c.service
                   and coalesce(s.rule, c.rule) = c.rule and coalesce(s.fingerprint, c.fingerprint) = c.fingerprint
               order by c.incident_id, c.cycle_key, s.ends_at desc nulls last),
           held as (  -- where all are silenced, until the first of these silences ends
               select distinct on (incident_id) incident_id, id, ends_at,
                   'silenced until ' || to_char(ends_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC by '
                   || created_by || ': ' || reason as reason
               from silenced s
               where not exists (select 1 from silenced o where o.incident_id = s.incident_id and o.id is null)
               order by incident_id, ends_at)
           update incident i
           set held_by = held.id, held_until = held.ends_at, status_reason = coalesce(held.reason, '')
           from waiting w left join held on held.incident_id = w.id
           where i.id = w.id and (i.held_by, i.held_until) is distinct from (held.id, held.ends_at)""",
        {"now": now, "ids": incident_ids},
    )


async def end(connection: Connection, silence_id: str, now: datetime, by: str) -> bool:
    """End it now; False if there is none in force or to come."""
    rows = await _all(
        connection,
        """update silence set ends_at = greatest(%s, starts_at + interval '1 microsecond'), ended_by = %s
           where id = %s and ends_at > %s returning id""",
        now,
        by,
        silence_id,
        now,
    )
    return bool(rows)


async def _all(connection: Connection, query: str, *values: object) -> list[Row]:
    return await (await connection.execute(query.encode(), values)).fetchall()
