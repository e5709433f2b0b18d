"""The kill switch: while it is pulled, nothing is claimed. Functions never commit.

Whoever claims takes ``FREEZE_LOCK`` shared and then reads ``current``; whoever pulls takes it exclusively and holds it
to the commit. So a claim either committed before the pull did, or sees it.
"""

from datetime import datetime

from app.db import Connection, Row

FREEZE_LOCK = 8675309
COLUMNS = "id, pulled_at, pulled_by, reason, lifted_at, lifted_by"


async def current(connection: Connection) -> Row | None:
    """The one that is pulled: id, pulled_at, pulled_by, reason."""
    return await (
        await connection.execute(f"select {COLUMNS} from kill_switch where lifted_at is null".encode())  # noqa: S608  ours
    ).fetchone()


async def pull(connection: Connection, by: str, reason: str) -> Row:
    """Pull it, once all claims that are under way have committed; the one that stands if it is pulled already.

    ``fresh``: this call pulled it.
    """
    await connection.execute("select pg_advisory_xact_lock(%s)", (FREEZE_LOCK,))
    row = await (
        await connection.execute(
            f"""insert into kill_switch (pulled_by, reason) values (%s, %s)
                on conflict ((true)) where lifted_at is null do nothing returning {COLUMNS}""".encode(),  # noqa: S608
            (by, reason),
        )
    ).fetchone()
    stands = row or await current(connection)
    assert stands is not None  # nobody can lift it while we hold the lock
    return {**stands, "fresh": row is not None}


async def lift(connection: Connection, by: str) -> Row | None:
    """Let steps be claimed again; None if it is not pulled."""
    await connection.execute("select pg_advisory_xact_lock(%s)", (FREEZE_LOCK,))
    return await (
        await connection.execute(
            f"""update kill_switch set lifted_at = clock_timestamp(), lifted_by = %s
                where lifted_at is null returning {COLUMNS}""".encode(),  # noqa: S608
            (by,),
        )
    ).fetchone()


def said(row: Row) -> str:
    """One sentence: who froze everything, when, why, and how that ends."""
    why = f" ({row['reason']})" if row["reason"] else ""
    return (
        f"{row['pulled_by']} froze all actions at {row['pulled_at']:%Y-%m-%d %H:%M:%S} UTC{why}:"
        " nothing new is run until an admin runs `autopilot thaw`."
    )


async def tell(connection: Connection, at: datetime) -> None:
    """In the timeline of every open incident: that all is frozen, and later that it goes on. Each once.

    One that somebody holds is passed over: it is told the next time.
    """
    await connection.execute(
        """insert into event (incident_id, key, at, kind, message, data)
           select i.id, 'freeze:' || f.id, %s, 'freeze',
                  f.pulled_by || ' froze all actions' || case when f.reason = '' then '' else ': ' || f.reason end,
                  jsonb_build_object('by', f.pulled_by, 'reason', f.reason)
           from incident i, kill_switch f where i.closed_at is null and f.lifted_at is null
           order by i.id for key share of i skip locked
           on conflict do nothing""",
        (at,),
    )
    await connection.execute(
        """insert into event (incident_id, key, at, kind, message, data)
           select i.id, 'thaw:' || f.id, %s, 'freeze', f.lifted_by || ' lifted the freeze: actions may be run again',
                  jsonb_build_object('by', f.lifted_by)
           from kill_switch f join incident i on i.closed_at is null
           join event e on e.incident_id = i.id and e.key = 'freeze:' || f.id
           where f.lifted_at > clock_timestamp() - interval '1 day'
           order by i.id for key share of i skip locked
           on conflict do nothing""",
        (at,),
    )
