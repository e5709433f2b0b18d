"""Maintenance windows and snoozes. Functions never commit."""

from datetime import datetime

from app.db import Connection, Row

COLUMNS = "id, service, rule, fingerprint, starts_at, ends_at, reason, created_by, created_at, ended_by"


async def insert(connection: Connection, silence: Row) -> None:
    """A new one."""
    await connection.execute(
        """insert into silence (id, service, rule, fingerprint, starts_at, ends_at, reason, created_by)
           values (%(id)s, %(service)s, %(rule)s, %(fingerprint)s, %(starts_at)s, %(ends_at)s, %(reason)s,
                   %(created_by)s)""",
        silence,
    )


async def current(connection: Connection, now: datetime) -> list[Row]:
    """Those in force and those to come."""
    query = f"select {COLUMNS} from silence where ends_at > %s order by starts_at, id limit 1000"  # noqa: S608
    return await _all(connection, query, now)


async def settle(connection: Connection, now: datetime) -> None:
    """Let each incident that waits be held while every alert of it that fires is silenced, and no longer."""
    await connection.execute(
        """with in_force as materialized (
               select * from silence where starts_at <= %(now)s and ends_at > %(now)s),
           waiting as materialized (
               select id from incident where closed_at is null and admitted_at is null and asked_by = ''
                   and (held_until is not null or exists (select 1 from in_force))),
           silenced as (
               select c.incident_id, c.cycle_key, max(s.ends_at) as until
               from waiting w join alert_cycle c on c.incident_id = w.id and c.state = 'firing'
               left join in_force s on coalesce(s.service, c.service) = c.service
                   and coalesce(s.rule, c.rule) = c.rule and coalesce(s.fingerprint, c.fingerprint) = c.fingerprint
               group by c.incident_id, c.cycle_key),
           held as (
               select incident_id, min(until) as until from silenced group by incident_id
               having bool_and(until is not null)),
           said as (
               select h.incident_id, h.until, s.id,
                   'silenced until ' || to_char(h.until at time zone 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC by '
                   || s.created_by || ': ' || s.reason as reason
               from held h cross join lateral (select * from in_force f where f.ends_at = h.until limit 1) s)
           update incident i
           set held_by = said.id, held_until = said.until, status_reason = coalesce(said.reason, '')
           from waiting w left join said on said.incident_id = w.id
           where i.id = w.id and i.held_until is distinct from said.until""",
        {"now": now},
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
