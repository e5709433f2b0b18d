"""What people were shown, what they approved, what they took back, and how they decide. Functions never commit."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from app.db import Connection, Row
from graph.state import Approval, Choice, Door


async def expiry(connection: Connection, incident_id: str, ttl_minutes: float) -> Row:
    """``expires_at`` of the plan that waits, null where none was made, and whether it is ``expired`` by our clock."""
    row = await _one(
        connection,
        """select at as expires_at, coalesce(at <= clock_timestamp(), false) or expired_at is not null as expired
           from (select expired_at, planned_at + make_interval(secs => %s) as at from incident where id = %s) waits""",
        ttl_minutes * 60.0,
        incident_id,
    )
    assert row is not None
    return row


# --- approvals ---


async def approvals(connection: Connection, incident_id: str, plan_revision: str | None) -> list[Row]:
    """Those that wait for another person's: choice, steps and the parts of ``graph.state.Approval``, oldest first."""
    return await _all(
        connection,
        """select choice, steps, approved_by as by, role, via, at from approval
           where incident_id = %s and plan_revision = %s order by approved_at""",
        incident_id,
        plan_revision,
    )


async def insert_approval(
    connection: Connection,
    incident_id: str,
    plan_revision: str,
    choice: Choice,
    steps: Sequence[int],
    approval: Approval,
) -> None:
    """A yes that waits for another person's."""
    await connection.execute(
        """insert into approval (incident_id, plan_revision, choice, steps, approved_by, role, via, at)
           values (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (
            incident_id,
            plan_revision,
            choice,
            list(steps),
            approval.by,
            approval.role,
            approval.via,
            approval.at,
        ),
    )


async def delete_approvals(connection: Connection, incident_id: str, plan_revision: str, by: Sequence[str]) -> None:
    """Take back what these people approved."""
    await connection.execute(
        "delete from approval where incident_id = %s and plan_revision = %s and approved_by = any(%s)",
        (incident_id, plan_revision, list(by)),
    )


# --- the decision ---


async def newest(connection: Connection, incident_id: str, *, lock: bool = False) -> Row | None:
    """The last decision of an incident and whether anything of it was ``started``: claimed in the ledger.

    ``lock``: no step can be claimed until the transaction ends.
    """
    query = """select plan_revision, choice, steps, decided_by as by, via, at, approvals, withdrawn_at, withdrawn_by
               from decision where incident_id = %s order by decided_at desc limit 1"""
    row = await _one(connection, query + (" for update" if lock else ""), incident_id)
    if row is None:
        return None
    claimed = await _one(  # a statement of its own: after the lock it sees what was claimed while we waited for it
        connection,
        "select exists (select from step where incident_id = %s and plan_revision = %s) as started",
        incident_id,
        row["plan_revision"],
    )
    return {**row, "started": bool(claimed and claimed["started"])}


async def withdrawn(connection: Connection, incident_id: str, plan_revision: str) -> Row | None:
    """Who took a decision back, and when; None if nobody did."""
    return await _one(
        connection,
        """select withdrawn_by, withdrawn_at from decision
           where incident_id = %s and plan_revision = %s and withdrawn_at is not null""",
        incident_id,
        plan_revision,
    )


async def withdraw(connection: Connection, incident_id: str, plan_revision: str, by: str) -> None:
    """Take a decision back; the caller holds its lock."""
    await connection.execute(
        """update decision set withdrawn_at = clock_timestamp(), withdrawn_by = %s
           where incident_id = %s and plan_revision = %s""",
        (by, incident_id, plan_revision),
    )


# --- shown ---


async def withdrawal(connection: Connection, incident_id: str, key: str) -> Row | None:
    """What was taken back under this key of the timeline: what, choice, by, at and plan_revision."""
    return await _one(
        connection,
        """select data->>'what' as what, data->>'choice' as choice, data->>'by' as by, at,
               data->>'plan_revision' as plan_revision
           from event where incident_id = %s and key = %s""",
        incident_id,
        key,
    )


async def show(connection: Connection, incident_id: str, who: str, what: str, via: Door) -> None:
    """Note what a person was shown, the first time; ``what``: ``plan:<revision>``, ``report`` or ``evidence:<id>``."""
    await connection.execute(
        "insert into shown (incident_id, who, what, via) values (%s, %s, %s, %s) on conflict do nothing",
        (incident_id, who, what, via),
    )


# --- figures ---

FIGURES = """
with owned as (select * from unnest(%(services)s::text[], %(owners)s::text[]) as o (service, team)),
member as (select * from unnest(%(people)s::text[], %(teams)s::text[]) as m (person, team)),
acts as (
    select incident_id, plan_revision, choice, decided_by as person, decided_at as at, first_shown_at as shown_at
    from decision where decided_at >= clock_timestamp() - make_interval(days => %(days)s)
    union all
    select a.incident_id, a.plan_revision, a.choice, a.approved_by, a.approved_at, s.at
    from approval a left join shown s
        on s.incident_id = a.incident_id and s.who = a.approved_by and s.what = 'plan:' || a.plan_revision
    where a.approved_at >= clock_timestamp() - make_interval(days => %(days)s)),
measured as (
    select a.person, coalesce(m.team, o.team, '') as team, a.choice,
           extract(epoch from a.at - a.shown_at)::float8 as seconds,
           extract(hour from a.at at time zone %(timezone)s) as hour,
           exists (select from shown s where s.incident_id = a.incident_id and s.who = a.person and s.at <= a.at
                   and s.what like 'evidence:%%') as looked
    from acts a join incident i on i.id = a.incident_id left join owned o on o.service = i.service
        left join member m on m.person = a.person)
select case when grouping(team) = 0 then 'team' else 'person' end as of, coalesce(team, person) as name,
       count(*) as decisions,
       percentile_cont(0.5) within group (order by seconds) as median_s,
       percentile_cont(0.9) within group (order by seconds) as p90_s,
       avg((seconds < 10)::int) filter (where seconds is not null) as under_10s,
       avg((not looked)::int) as without_evidence,
       avg((choice in ('1', '2', '3', 'undo'))::int) as approved,
       avg((hour >= 22 or hour < 6)::int) as at_night
from measured group by grouping sets ((team), (person)) order by 1, 2
"""

REFUSALS = """
with owned as (select * from unnest(%(services)s::text[], %(owners)s::text[]) as o (service, team)),
member as (select * from unnest(%(people)s::text[], %(teams)s::text[]) as m (person, team)),
refused as (
    select a.actor as person, coalesce(m.team, o.team, '') as team
    from audit a left join incident i on i.id = a.incident_id left join owned o on o.service = i.service
        left join member m on m.person = a.actor
    where a.kind = 'refusal' and a.at >= %(since)s)
select case when grouping(team) = 0 then 'team' else 'person' end as of, coalesce(team, person) as name,
       count(*) as refusals
from refused group by grouping sets ((team), (person))
"""


async def figures(
    connection: Connection,
    owners: Mapping[str, str],
    members: Mapping[str, str],
    days: int,
    timezone: str,
    since: datetime,
) -> list[Row]:
    """How each team and person decided in the last ``days``; ``since``: the same by the clock of the audit log.

    ``owners`` are the teams of services, ``members`` those of people; of people without one, the service's counts.
    ``of`` is team or person; shares are 0 to 1, null where nothing is known. Night is 22 to 6 o'clock in ``timezone``.
    """
    teams = {
        "services": list(owners),
        "owners": list(owners.values()),
        "people": list(members),
        "teams": list(members.values()),
    }
    named = {**teams, "days": days, "timezone": timezone}
    decided = await (await connection.execute(FIGURES.encode(), named)).fetchall()
    refused = await (await connection.execute(REFUSALS.encode(), named | {"since": since})).fetchall()
    counts = {(row["of"], row["name"]): row["refusals"] for row in refused}
    known = [{**row, "refusals": counts.pop((row["of"], row["name"]), 0)} for row in decided]
    nothing = {"decisions": 0, "refusals": 0}
    return known + [{**nothing, "of": of, "name": name, "refusals": n} for (of, name), n in sorted(counts.items())]


async def _one(connection: Connection, query: str, *values: object) -> Row | None:
    return await (await connection.execute(query.encode(), values)).fetchone()


async def _all(connection: Connection, query: str, *values: object) -> list[Row]:
    return await (await connection.execute(query.encode(), values)).fetchall()
