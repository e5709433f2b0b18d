"""Every statement on incidents, alerts, analyses, decisions and the timeline. Functions never commit."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import sql
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from app.db import Connection, Row
from app.store.outbox import TELL_WRITTEN
from graph.state import Decision

CLOSED = ("resolved", "closed", "needs_attention")
SUMMARY = (
    "id, service, title, severity, source, environment, occurred_at, status, status_reason, round,"
    " opened_by, opened_at, updated_at, closed_at, flaps, follows, admitted_at, held_until, language"
)


async def get(connection: Connection, incident_id: str) -> Row | None:
    """The whole incident row."""
    if "\x00" in incident_id:  # which Postgres cannot even be asked for
        return None
    return await _one(connection, "select * from incident where id = %s", incident_id)


async def lock(connection: Connection, incident_id: str, *, against_claims: bool = True) -> Row | None:
    """The incident row, locked until the transaction ends; the ledger's claims wait for it too, unless told not to."""
    if "\x00" in incident_id:
        return None
    query = "select * from incident where id = %s for "
    return await _one(connection, query + ("update" if against_claims else "no key update"), incident_id)


class Filter(NamedTuple):
    """What a page of incidents is narrowed by; None means any."""

    status: str | None = None
    service: str | None = None
    severity: str | None = None
    source: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page(
    connection: Connection, wanted: Filter, limit: int, before: tuple[datetime, str] | None = None
) -> list[Row]:
    """Newest first; ``before`` is (opened_at, id) of the last row seen."""
    conditions: list[sql.Composable] = [sql.SQL("true")]
    values: list[object] = []
    for column in ("status", "service", "severity", "source"):
        if (value := getattr(wanted, column)) is not None:
            conditions.append(sql.SQL("{} = %s").format(sql.Identifier(column)))
            values.append(value)
    for condition, value in (
        ("(title ilike %s or service ilike %s)", wanted.text and f"%{_escape_like(wanted.text)}%"),
        ("opened_at >= %s", wanted.since),
        ("opened_at < %s", wanted.until),
    ):
        if value is not None:
            conditions.append(sql.SQL(condition))
            values += [value] * condition.count("%s")
    if before:
        conditions.append(sql.SQL("(opened_at, id) < (%s, %s)"))
        values += before
    query = sql.SQL("select {} from incident where {} order by opened_at desc, id desc limit %s").format(
        sql.SQL(SUMMARY), sql.SQL(" and ").join(conditions)
    )
    return await (await connection.execute(query, [*values, limit])).fetchall()


def _escape_like(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def set_status(
    connection: Connection,
    incident_id: str,
    status: str,
    *,
    reason: str = "",
    round_: int | None = None,
    plan_revision: str | None = None,
) -> bool:
    """Move an open incident on; False if it is closed. ``plan_revision`` is what a decision may name now.

    A plan's age counts from when it first waits, and goes on where it waits again after a recovery that did not last.
    """
    row = await _one(
        connection,
        """with now as (select %(plan)s::text as plan, clock_timestamp() as at)
           update incident i set status = %(status)s, status_reason = %(reason)s, round = coalesce(%(round)s, round),
               plan_revision = now.plan,
               planned_revision = coalesce(now.plan, planned_revision),
               planned_at = case when now.plan <> coalesce(planned_revision, '') then now.at else planned_at end,
               reminded_at = case when now.plan <> coalesce(planned_revision, '') then null else reminded_at end,
               escalated_at = case when now.plan <> coalesce(planned_revision, '') then null else escalated_at end,
               expired_at = case when now.plan <> coalesce(planned_revision, '') then null else expired_at end,
               escalations = case when now.plan <> coalesce(planned_revision, '') then 0 else escalations end,
               failures = case when now.plan is not null then 0 else failures end, -- it came as far as a decision
               updated_at = now.at, closed_at = case when %(closed)s then now.at end
           from now where i.id = %(id)s and i.closed_at is null returning i.id""",
        plan=plan_revision,
        status=status,
        reason=reason,
        round=round_,
        closed=status in CLOSED,
        id=incident_id,
    )
    return row is not None


async def begin(connection: Connection, incident_id: str) -> None:
    """Let an incident's investigation in that waits."""
    await connection.execute(
        """update incident set admitted_at = clock_timestamp(), held_by = null, held_until = null, status_reason = '',
               updated_at = clock_timestamp() where id = %s""",
        (incident_id,),
    )


async def count_failure(connection: Connection, incident_id: str) -> int:
    """One more failed attempt since the last decision was awaited; how many there were."""
    row = await _one(
        connection, "update incident set failures = failures + 1 where id = %s returning failures", incident_id
    )
    return row["failures"] if row else 0


async def add_event(
    connection: Connection,
    incident_id: str,
    key: str,
    at: datetime,
    kind: str,
    message: str,
    *,
    node: str = "",
    data: Mapping[str, JsonValue] | None = None,
) -> None:
    """One line of the timeline, and of the outbox if people hear of its kind; the same key twice is one."""
    await connection.execute(
        f"""with written as (
                insert into event (incident_id, key, at, kind, node, message, data) values (%s, %s, %s, %s, %s, %s, %s)
                on conflict do nothing returning id, incident_id, kind, data)
            {TELL_WRITTEN}""".encode(),  # noqa: S608  no outside text in it
        (incident_id, key, at, kind, node, message, Jsonb(dict(data or {}))),
    )


async def events(connection: Connection, incident_id: str, after: int = 0, limit: int = 2000) -> list[Row]:
    """The timeline, oldest first, after an event id."""
    return await _all(
        connection,
        """select id, at, kind, node, message, data from event where incident_id = %s and id > %s
           order by id limit %s""",
        incident_id,
        after,
        limit,
    )


async def newest_events(connection: Connection, incident_id: str, limit: int = 2000) -> list[Row]:
    """The end of the timeline, oldest first."""
    rows = await _all(
        connection,
        "select id, at, kind, node, message, data from event where incident_id = %s order by id desc limit %s",
        incident_id,
        limit,
    )
    return rows[::-1]


async def alerts(connection: Connection, incident_id: str, limit: int = 500) -> list[Row]:
    """The first alerts of an incident, oldest first; ``store.alerts.page`` has all of them."""
    return await _all(
        connection,
        """select id, transition, merge_reason, score, received_at, body from alert where incident_id = %s
           order by received_at limit %s""",
        incident_id,
        limit,
    )


async def alert_cycles(connection: Connection, incident_id: str, limit: int = 50) -> list[Row]:
    """The first alert cycles of an incident, oldest first, each as its first trigger told it; ``total``: of how many.

    The cycle's own row knows best whether it fires: deliveries come late, and another feed may tell the recovery.
    A cycle that went on to a later incident is told by the newest transition that this one saw.
    """
    return await _all(
        connection,
        """select a.body->>'title' as title, a.body->>'service' as service, a.body->>'source' as source,
               a.body->>'url' as url, a.merge_reason, a.score, f.total,
               coalesce(c.state, newest.transition, '') = 'resolved' as recovered,
               coalesce(c.changed_at, newest.at, a.received_at) as since
           from (select *, count(*) over () as total from (
                   select distinct on (cycle_key) id, cycle_key, received_at from alert where incident_id = %s
                   order by cycle_key, (transition in ('firing', 'no_data')) desc, received_at) every
               order by received_at, id limit %s) f
           join alert a on a.id = f.id
           left join alert_cycle c on c.cycle_key = f.cycle_key and c.incident_id = %s
           left join lateral (
               select transition, coalesce(body->>'changed_at', body->>'occurred_at')::timestamptz as at from alert t
               where c.cycle_key is null and t.cycle_key = f.cycle_key and t.incident_id = %s
                 and transition in ('firing', 'no_data', 'resolved')
               order by at desc, received_at desc limit 1) newest on true
           order by f.received_at, f.id""",
        incident_id,
        limit,
        incident_id,
        incident_id,
    )


async def count_alerts(connection: Connection, incident_ids: Sequence[str]) -> dict[str, int]:
    """How many alert cycles each of these incidents has."""
    rows = await _all(
        connection,
        """select incident_id, count(distinct cycle_key) as n from alert where incident_id = any(%s)
           group by incident_id""",
        list(incident_ids),
    )
    return {row["incident_id"]: row["n"] for row in rows}


async def alerts_changed(connection: Connection, incident_id: str) -> str:
    """A word that changes whenever an alert of the incident fires, recovers, comes or goes."""
    row = await _one(
        connection, "select count(*) as n, max(changed_at) as at from alert_cycle where incident_id = %s", incident_id
    )
    return f"{row['n']} {row['at']}" if row else ""


async def save_analysis(
    connection: Connection, incident_id: str, round_: int, **parts: Mapping[str, Any] | None
) -> None:
    """Store what a round found out so far; a part that is None stays as it is. Earlier plans of it are kept."""
    await connection.execute(
        """insert into analysis (incident_id, round, scope, evidence, root_cause, plan)
           values (%s, %s, %s, %s, %s, %s)
           on conflict (incident_id, round) do update set
               scope = coalesce(excluded.scope, analysis.scope),
               evidence = coalesce(excluded.evidence, analysis.evidence),
               root_cause = coalesce(excluded.root_cause, analysis.root_cause),
               plan = coalesce(excluded.plan, analysis.plan),
               earlier_plans = case when excluded.plan->>'revision' <> analysis.plan->>'revision'
                   then analysis.earlier_plans || jsonb_build_array(analysis.plan) else analysis.earlier_plans end""",
        (
            incident_id,
            round_,
            *(Jsonb(parts[k]) if parts.get(k) else None for k in ("scope", "evidence", "root_cause", "plan")),
        ),
    )


async def analyses(connection: Connection, incident_id: str) -> list[Row]:
    """All rounds, oldest first; ``plans``: all of a round, ``plan`` the newest of them."""
    return await _all(
        connection,
        """select round, scope, evidence, root_cause, plan,
               earlier_plans || case when plan is null then '[]' else jsonb_build_array(plan) end as plans
           from analysis where incident_id = %s order by round""",
        incident_id,
    )


async def newest_plan(connection: Connection, incident_id: str) -> Mapping[str, Any] | None:
    """The plan of the last round, as it is stored."""
    row = await _one(
        connection, "select plan from analysis where incident_id = %s order by round desc limit 1", incident_id
    )
    return row["plan"] if row else None


async def insert_decision(connection: Connection, incident_id: str, decision: Decision) -> bool:
    """The first decision on a plan revision; False if there is one already. Its language is the incident's from now."""
    row = await _one(
        connection,
        """with made as (
               insert into decision (incident_id, plan_revision, choice, steps, hint, note, decided_by, via, at,
                   language, approvals, plan_digest, first_shown_at)
               values (%(id)s, %(plan_revision)s, %(choice)s, %(steps)s::int[], %(hint)s, %(note)s, %(by)s, %(via)s,
                   %(at)s, %(language)s, %(approvals)s, %(plan_digest)s,
                   (select s.at from shown s where s.incident_id = %(id)s and s.who = %(by)s
                    and s.what = 'plan:' || %(plan_revision)s::text))
               on conflict do nothing returning incident_id, language),
           spoken as (
               update incident set language = made.language from made
               where incident.id = made.incident_id and made.language is not null)
           select incident_id from made""",
        **decision.model_dump(exclude={"steps", "approvals"}),
        id=incident_id,
        steps=list(decision.steps),
        approvals=Jsonb([approval.model_dump(mode="json") for approval in decision.approvals]),
    )
    return row is not None


async def decisions(connection: Connection, incident_id: str) -> list[Row]:
    """All decisions, oldest first."""
    return await _all(
        connection,
        """select plan_revision, choice, steps, hint, note, decided_by as by, via, at, approvals, plan_digest, language
           from decision where incident_id = %s order by at""",
        incident_id,
    )


async def save_execution(connection: Connection, incident_id: str, plan_revision: str, body: Mapping[str, Any]) -> None:
    """The result of a decision; the first one stays."""
    await connection.execute(
        "insert into execution (incident_id, plan_revision, body) values (%s, %s, %s) on conflict do nothing",
        (incident_id, plan_revision, Jsonb(body)),
    )


async def executions(connection: Connection, incident_id: str) -> list[Row]:
    """All finished executions, oldest first."""
    return await _all(
        connection,
        "select plan_revision, body, at from execution where incident_id = %s order by at",
        incident_id,
    )


async def count_by_status(connection: Connection) -> Sequence[Row]:
    """How many incidents are in which status."""
    return await _all(connection, "select status, count(*) as incidents from incident group by status")


async def count_waiting(connection: Connection) -> int:
    """Open incidents whose investigation has not begun."""
    query = "select count(*) as n from incident where closed_at is null and admitted_at is null"
    row = await _one(connection, query)
    return int(row["n"]) if row else 0


async def _one(connection: Connection, query: str, *values: object, **named: object) -> Row | None:
    return await (await connection.execute(query.encode(), values or named)).fetchone()


async def _all(connection: Connection, query: str, *values: object) -> list[Row]:
    return await (await connection.execute(query.encode(), values)).fetchall()
