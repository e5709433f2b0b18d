"""What waits to be investigated, and what runs. Functions never commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.db import Connection, Row

INVESTIGATING = ("received", "collecting", "analyzing", "planning")
WAITING = "closed_at is null and admitted_at is null and (held_until is null or held_until <= %(now)s)"
BEGUN = """(select count(*) from incident b where b.service = i.service and b.asked_by = ''
            and b.admitted_at > now() - interval '1 hour')"""  # now() is stable: an index can be used
# As in the index incident_waiting, which keeps those that wait in this order.
TURN = "asked_by = '', case severity when 'critical' then 1 when 'warning' then 2 else 3 end, opened_at, id"


@dataclass(frozen=True)
class State:
    """What admission looks at first."""

    running: int  # investigations under way; no more than were asked for are counted
    silences: bool  # whether any is in force, or holds an incident


NOTHING_RUNS = State(0, False)


async def state(connection: Connection, now: datetime, at_once: int) -> State:
    """How things stand."""
    rows = await _all(
        connection,
        """select
            (select count(*) from (
                select 1 from incident
                where status = any(%(investigating)s) and closed_at is null and admitted_at is not null
                limit %(at_once)s) r) as running,
            exists (select 1 from silence where starts_at <= %(now)s and ends_at > %(now)s)
                or exists (select 1 from incident where held_by is not null and closed_at is null) as silences
        """,
        {"investigating": list(INVESTIGATING), "now": now, "at_once": at_once},
    )
    return State(**rows[0])


async def admit(connection: Connection, now: datetime, places: int, per_service_hour: int) -> list[Row]:
    """Let so many begin, the most urgent first: those that were let in. Of a service with too few left of its hour's
    share, some that had a place may be left out: there may be more to let in.

    What a person asked for goes first, and does not count for its service's hour.
    """
    return await _all(
        connection,
        f"""with waiting as materialized (
               select id, service, asked_by, severity, opened_at, {BEGUN} as n
               from incident i where {WAITING} and (asked_by <> '' or {BEGUN} < %(per_service_hour)s)
               order by {TURN} limit %(places)s),
           turns as (
               select id, asked_by, n,
                   row_number() over (partition by service, asked_by = '' order by {TURN}) as nth from waiting)
           update incident i
           set admitted_at = clock_timestamp(), held_by = null, held_until = null, status_reason = '',
               updated_at = clock_timestamp()
           from turns t where i.id = t.id and (t.asked_by <> '' or t.n + t.nth <= %(per_service_hour)s)
           returning i.id, i.opened_at""",  # noqa: S608  no outside text in it
        {"now": now, "places": places, "per_service_hour": per_service_hour},
    )


async def say_why(
    connection: Connection,
    now: datetime,
    per_service_hour: int,
    exhausted: str,
    crowded: str,
    incident_ids: Sequence[str] | None,
) -> None:
    """Why these wait, or all of them: their service had its hour's share, or all places are taken."""
    await connection.execute(
        f"""with said as (
               select id, case when asked_by = '' and {BEGUN} >= %(per_service_hour)s then service || %(exhausted)s
                          else %(crowded)s end as reason
               from incident i where {WAITING} and (%(ids)s::text[] is null or id = any(%(ids)s::text[])))
           update incident i set status_reason = said.reason from said
           where i.id = said.id and i.status_reason <> said.reason""".encode(),  # noqa: S608  the same
        {
            "now": now,
            "ids": incident_ids,
            "per_service_hour": per_service_hour,
            "exhausted": exhausted,
            "crowded": crowded,
        },
    )


async def _all(connection: Connection, query: str, values: Mapping[str, object]) -> list[Row]:
    return await (await connection.execute(query.encode(), values)).fetchall()
