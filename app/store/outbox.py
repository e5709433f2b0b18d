"""The outbox, the messages made of it and their conversations. Functions never commit."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg.types.json import Jsonb
from pydantic import JsonValue

from app.db import Connection, Row

CHANNEL = "autopilot_outbox"  # pg_notify: something was written
DISPATCH_LOCK = 4_242_006  # held by whoever decides who hears: events go through it in their order
SENDING_S = 60.0  # an attempt that has not ended by then was broken off; well above what one may take
TOLD = (
    *("opened", "severity", "recovered", "reopened", "note"),
    *("decision", "approval", "withdrawal", "step_finished", "verification"),
    *("reminder", "escalation", "expired", "not_delivered"),
)
"""Kinds of events that people hear of, besides ``status``."""
TOLD_STATUSES = ("awaiting_decision", "executing", "resolved", "closed", "needs_attention")
ENDINGS = ("resolved", "closed")

TELL_WRITTEN = f"""insert into outbox (event_id, incident_id) select id, incident_id from written
    where kind = any('{{{",".join(TOLD)}}}')
        or (kind = 'status' and data->>'status' = any('{{{",".join(TOLD_STATUSES)}}}'))"""  # noqa: S608  no outside text
"""What follows ``with written as (insert into event … returning id, incident_id, kind, data)``."""
UNSENT = "sent_at is null and failed_at is null"
PATIENT = """exists (select 1 from patience p where p.notifier = m.notifier and p.target = m.target
    and p.until > clock_timestamp())"""
"""Whether the target of a message m asked to be told nothing for now."""
UNCLEAR = """(exists (select 1 from message o
        where (o.incident_id, o.notifier, o.target) = (m.incident_id, m.notifier, m.target)
          and o.failed_at is not null and o.attempts > 0)
    and not exists (select 1 from conversation c
        where (c.incident_id, c.notifier, c.target) = (m.incident_id, m.notifier, m.target)))"""
"""Whether an earlier message of its conversation was given up, of which something may have arrived all the same."""


class NewMessage(NamedTuple):
    """An event for a target."""

    incident_id: str
    event_id: int
    notifier: str
    target: str
    team: str
    why: str
    hold_until: datetime | None  # quiet hours, or until a recovery has lasted


# --- who hears ---


async def take_turn(connection: Connection) -> bool:
    """Whether this transaction is the only one that decides who hears; if not, another does it."""
    row = await _one(connection, "select pg_try_advisory_xact_lock(%s) as mine", DISPATCH_LOCK)
    return bool(row and row["mine"])


async def take(connection: Connection, limit: int, older_than_s: float) -> list[Row]:
    """Events that wait in the outbox, oldest first, taken out of it; each with what decides who hears of it.

    What a silence holds back stays there as long. Rows: id, key, at, kind, data, incident_id, service, severity,
    language, flaps, held (it ended while it was), and ``component``, the newest analysis' cause (null: not known).
    """
    return await _all(
        connection,
        """with taken as (
               delete from outbox where event_id in (
                   select o.event_id from outbox o join incident i on i.id = o.incident_id
                   where (i.held_by is null or i.closed_at is not null)
                       and o.written_at <= clock_timestamp() - make_interval(secs => %s)
                   order by o.event_id limit %s)
               returning event_id)
           select e.id, e.key, e.at, e.kind, e.data, e.incident_id, i.service, i.severity, i.language, i.flaps,
               i.held_by is not null as held, last.component
           from taken join event e on e.id = taken.event_id join incident i on i.id = e.incident_id
           left join lateral (
               select root_cause->>'component' as component from analysis a
               where a.incident_id = i.id and root_cause is not null order by round desc limit 1) last on true
           order by e.id""",
        older_than_s,
        limit,
    )


async def hearers(connection: Connection, incident_ids: Sequence[str]) -> list[Row]:
    """Who heard of these incidents before, in the order they joined: incident_id, notifier, target, team, why."""
    return await _all(
        connection,
        """select incident_id, notifier, target, team, why from (
               select distinct on (incident_id, notifier, target) incident_id, notifier, target, team, why, event_id
               from message where incident_id = any(%s) order by incident_id, notifier, target, event_id) first
           order by event_id, notifier, target""",
        list(incident_ids),
    )


async def insert(connection: Connection, messages: Sequence[NewMessage]) -> None:
    """New messages. One that may go now takes with it those before it that are only held back."""
    await connection.execute(
        """insert into message (incident_id, event_id, notifier, target, team, why, ready_at, due_at)
           select incident_id, event_id, notifier, target, team, why, at, at
           from json_to_recordset(%s::json) as new (incident_id text, event_id bigint, notifier text, target text,
               team text, why text, hold_until timestamptz),
           lateral (select coalesce(hold_until, clock_timestamp()) as at) due
           on conflict do nothing""",
        (json.dumps([m._asdict() for m in messages], default=str),),
    )
    await connection.execute(
        """update message m set due_at = clock_timestamp(), ready_at = clock_timestamp()
            where m.sent_at is null and m.failed_at is null and m.attempts = 0 and m.ready_at > clock_timestamp()
              and m.incident_id = any(%s) and exists (
                select 1 from message n where n.incident_id = m.incident_id and n.notifier = m.notifier
                  and n.target = m.target and n.event_id > m.event_id and n.attempts = 0
                  and n.due_at <= clock_timestamp() and n.sent_at is null and n.failed_at is null)""",
        (sorted({m.incident_id for m in messages}),),
    )


async def take_back(connection: Connection, incident_id: str, kind: str) -> list[Row]:
    """Drop what is still held back of that kind of event; rows: notifier, target, of those that will not hear of it."""
    return await _all(
        connection,
        """delete from message m using event e
           where e.id = m.event_id and m.incident_id = %s and e.kind = %s and m.attempts = 0
             and m.sent_at is null and m.failed_at is null and m.ready_at > clock_timestamp()
           returning m.notifier, m.target""",
        incident_id,
        kind,
    )


async def due(
    connection: Connection, notifiers: Sequence[str], of_a_target: int, of_a_notifier: int, others_after_s: float
) -> list[Row]:
    """Conversations to give a job: with something to send now, the longest due first.

    Rows: incident_id, notifier, target. No more jobs at once than these of each target, and of each notifier: whoever
    does not answer takes no more places. Of other notifiers only what nobody sent for so long.
    """
    return await _all(
        connection,
        f"""with busy as (
               select args->>'notifier' as notifier, args->>'target' as target, args->>'incident_id' as incident_id
               from procrastinate_jobs where task_name = 'send' and status in ('todo', 'doing')),
           first as (
               select distinct on (notifier, target, incident_id) notifier, target, incident_id, due_at, ready_at
               from message m where {UNSENT} and not {PATIENT} order by notifier, target, incident_id, event_id),
           due as (
               select f.*, row_number() over (partition by notifier, target order by due_at, incident_id) as place
               from first f
               where due_at <= clock_timestamp() and not exists (
                       select 1 from busy b where (b.notifier, b.target, b.incident_id)
                           = (f.notifier, f.target, f.incident_id))
                   and (notifier = any(%s) or ready_at <= clock_timestamp() - make_interval(secs => %s))),
           free as (
               select d.*, row_number() over (partition by notifier order by place, due_at, target) as place_there
               from due d
               where place <= %s - (select count(*) from busy b where b.notifier = d.notifier and b.target = d.target))
           select incident_id, notifier, target from free f
           where place_there <= %s - (select count(*) from busy b where b.notifier = f.notifier)
           order by place_there""",  # noqa: S608  no outside text in it
        list(notifiers),
        others_after_s,
        of_a_target,
        of_a_notifier,
    )


# --- sending ---


async def due_of(connection: Connection, notifier: str, target: str, limit: int) -> list[str]:
    """Incidents of which a target is to be told now, the longest due first."""
    rows = await _all(
        connection,
        f"""select incident_id from (
               select distinct on (incident_id) incident_id, due_at from message m
               where notifier = %s and target = %s and {UNSENT} and not {PATIENT} order by incident_id, event_id) first
           where due_at <= clock_timestamp() order by due_at, incident_id limit %s""",  # noqa: S608
        notifier,
        target,
        limit,
    )
    return [row["incident_id"] for row in rows]


async def claim(connection: Connection, incident_id: str, notifier: str, target: str) -> Row | None:
    """The first unsent message of a conversation, if it is due: nobody else gets it for SENDING_S.

    ``was_maybe_sent``: an earlier attempt's end is unknown, or one before it was given up and nobody knows what of it
    arrived; ``tried_for_s``: since the first attempt.
    """
    return await _one(
        connection,
        f"""with first as (
               select id, maybe_sent from message
               where incident_id = %s and notifier = %s and target = %s and {UNSENT}
               order by event_id limit 1 for update)
           update message m set attempts = attempts + 1, attempted_at = clock_timestamp(), maybe_sent = true,
               tried_since = coalesce(tried_since, clock_timestamp()),
               due_at = clock_timestamp() + make_interval(secs => {SENDING_S})
           from first where first.id = m.id and m.due_at <= clock_timestamp() and m.sent_at is null
               and m.failed_at is null and not {PATIENT}
           returning m.id, m.incident_id, m.event_id, m.notifier, m.target, m.team, m.why, m.attempts,
               extract(epoch from clock_timestamp() - m.tried_since)::float8 as tried_for_s,
               first.maybe_sent or {UNCLEAR} as was_maybe_sent""",  # noqa: S608
        incident_id,
        notifier,
        target,
    )


async def sent(connection: Connection, message: Row, reference: Mapping[str, JsonValue], detail: str) -> None:
    """It arrived; what the notifier must know again goes to the conversation. Nothing if another attempt began."""
    values = "sent_at = clock_timestamp(), maybe_sent = false, detail = %s, receipt = %s"
    if await _end(connection, message, values, detail, Jsonb(dict(reference))):
        await _keep(connection, message, reference)


async def try_later(
    connection: Connection,
    message: Row,
    after_s: float,
    detail: str,
    reference: Mapping[str, JsonValue],
    *,
    maybe_sent: bool,
) -> bool:
    """It did not arrive, or nobody knows. False: another attempt began meanwhile, and nothing is changed."""
    values = "due_at = clock_timestamp() + make_interval(secs => %s), attempted_at = null, detail = %s, maybe_sent = %s"
    ended = await _end(connection, message, values, after_s, detail, maybe_sent)
    if ended:
        await _keep(connection, message, reference)
    return ended


async def failed(connection: Connection, message: Row, detail: str, reference: Mapping[str, JsonValue]) -> bool:
    """It will not arrive. False: another attempt began meanwhile, and nothing is changed."""
    ended = await _end(connection, message, "failed_at = clock_timestamp(), detail = %s", detail)
    if ended:
        await _keep(connection, message, reference)
    return ended


async def _end(connection: Connection, message: Row, values: str, *arguments: object) -> bool:
    """End the attempt that was claimed, unless it was taken for broken off and the next one began."""
    query = f"update message set {values} where id = %s and attempts = %s and {UNSENT} returning id"  # noqa: S608
    return await _one(connection, query, *arguments, message["id"], message["attempts"]) is not None


async def _keep(connection: Connection, message: Row, reference: Mapping[str, JsonValue]) -> None:
    """What a notifier must know again of a conversation, besides what it knows."""
    if reference:
        await connection.execute(
            """insert into conversation as c (incident_id, notifier, target, reference) values (%s, %s, %s, %s)
               on conflict (incident_id, notifier, target) do update set
                   reference = c.reference || excluded.reference, updated_at = clock_timestamp()""",
            (message["incident_id"], message["notifier"], message["target"], Jsonb(dict(reference))),
        )


async def spare(connection: Connection, notifier: str, target: str, for_s: float) -> None:
    """Tell a target nothing for so long: it asked for that."""
    await connection.execute(
        """insert into patience values (%s, %s, clock_timestamp() + make_interval(secs => %s))
           on conflict (notifier, target) do update set until = greatest(patience.until, excluded.until)""",
        (notifier, target, for_s),
    )


async def has_arrived(connection: Connection, message_id: str) -> bool:
    """Whether that message was sent by now."""
    return bool(await _one(connection, "select 1 from message where id = %s and sent_at is not null", message_id))


async def event(connection: Connection, event_id: int) -> Row:
    """The event of a message."""
    row = await _one(connection, "select id, key, at, kind, node, message, data from event where id = %s", event_id)
    assert row is not None
    return row


async def conversation(connection: Connection, incident_id: str, notifier: str, target: str) -> dict[str, JsonValue]:
    """What is known of it; empty if it has not begun."""
    row = await _one(
        connection,
        "select reference from conversation where incident_id = %s and notifier = %s and target = %s",
        incident_id,
        notifier,
        target,
    )
    return dict(row["reference"]) if row else {}


async def first_written(connection: Connection, incident_id: str, notifier: str, target: str) -> datetime | None:
    """When its first message was, by the database's clock: none was sent before."""
    row = await _one(
        connection,
        "select min(written_at) as at from message where incident_id = %s and notifier = %s and target = %s",
        incident_id,
        notifier,
        target,
    )
    return row["at"] if row else None


async def earlier(connection: Connection, incident_id: str, notifier: str, target: str) -> dict[str, JsonValue]:
    """The conversation there of the newest incident before this one that had the same alert; empty: none."""
    row = await _one(
        connection,
        """select c.reference from incident now, lateral (
               select id, opened_at from incident where id = now.follows
               union
               (select id, opened_at from incident
                where closed_at is not null and left(alert->>'fingerprint', 500) = left(now.alert->>'fingerprint', 500)
                order by closed_at desc limit 20)) before
           join conversation c on c.incident_id = before.id and c.notifier = %s and c.target = %s
           where now.id = %s and before.id <> now.id and before.opened_at < now.opened_at
           order by before.opened_at desc limit 1""",
        notifier,
        target,
        incident_id,
    )
    return dict(row["reference"]) if row else {}


# --- what people see of it ---


async def page(connection: Connection, incident_id: str, limit: int = 500) -> list[Row]:
    """An incident's newest messages, oldest first, each with its event."""
    rows = await _all(
        connection,
        """select m.id, m.event_id, e.kind, e.message, m.notifier, m.target, m.team, m.why, m.written_at,
               greatest(m.due_at, p.until) as due_at, m.attempts, m.sent_at, m.failed_at, m.detail,
               m.attempted_at is not null as under_way, m.attempts = 0 and m.ready_at > clock_timestamp() as held
           from message m join event e on e.id = m.event_id left join patience p using (notifier, target)
           where m.incident_id = %s
           order by m.event_id desc, m.notifier desc, m.target desc limit %s""",
        incident_id,
        limit,
    )
    return rows[::-1]


async def changed(connection: Connection, incident_id: str) -> str:
    """A word that changes whenever a message of the incident is written, sent, tried or given up."""
    row = await _one(
        connection,
        """select count(*) as n, count(sent_at) as sent, count(failed_at) as failed, sum(attempts) as attempts
           from message where incident_id = %s""",
        incident_id,
    )
    return " ".join(str(value) for value in row.values()) if row else ""


async def counts(connection: Connection) -> list[Row]:
    """Messages that wait, and those given up in the last day, by notifier; ``late_s``: how long the oldest waits."""
    return await _all(
        connection,
        f"""select notifier, count(*) filter (where failed_at is null) as waiting,
               count(*) filter (where failed_at is not null) as failed,
               greatest(coalesce(extract(epoch from clock_timestamp()
                   - min(ready_at) filter (where failed_at is null)), 0), 0) as late_s
           from message where {UNSENT} or failed_at > clock_timestamp() - interval '1 day'
           group by notifier order by notifier""",  # noqa: S608
    )


async def _one(connection: Connection, query: str, *values: object) -> Row | None:
    return await (await connection.execute(query.encode(), values)).fetchone()


async def _all(connection: Connection, query: str, *values: object) -> list[Row]:
    return await (await connection.execute(query.encode(), values)).fetchall()
