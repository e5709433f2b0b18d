"""Plans that nobody decides on: which are due for a reminder, an escalation, the end. Functions never commit."""

from typing import Literal

from app.db import Connection, Row

Stage = Literal["reminded_at", "escalated_at", "expired_at"]
AT_ONCE = 50
UNDECIDED = """i.status = 'awaiting_decision' and i.closed_at is null and not exists (
    select 1 from decision d where d.incident_id = i.id and d.plan_revision = i.plan_revision)"""


async def take_due(connection: Connection, stage: Stage, after_minutes: float, times: int = 1) -> list[Row]:
    """Mark those that reached a stage now, oldest first; nobody else gets them, and they get there once for each plan.

    An escalation may come several ``times``, each so long after the one before; ``escalations`` counts it. Rows: id,
    service, component (that the newest analysis blames; null: not known), title, severity, plan_revision, planned_at,
    escalations, whether it is the ``first``, and how many ``minutes`` it has waited, by our clock. One that somebody is
    just deciding on is left for the next time.
    """
    escalates = stage == "escalated_at"
    again = f"i.escalations < {times:d} and i.escalated_at <= clock_timestamp() - make_interval(secs => %(after_s)s)"
    query = f"""with due as (
            select i.id, i.{stage} is null as first from incident i
            where i.plan_revision is not null and (i.{stage} is null or ({again if escalates else "false"}))
              and {UNDECIDED} and i.planned_at <= clock_timestamp() - make_interval(secs => %(after_s)s)
            order by i.planned_at limit {AT_ONCE} for update skip locked)
        update incident i set {stage} = clock_timestamp(), escalations = escalations + {escalates:d}
        from due where i.id = due.id
        returning i.id, i.service, i.title, i.severity, i.plan_revision, i.planned_at, i.escalations, due.first,
            extract(epoch from clock_timestamp() - i.planned_at)::float8 / 60 as minutes,
            (select root_cause->>'component' from analysis a where a.incident_id = i.id and root_cause is not null
             order by round desc limit 1) as component"""  # noqa: S608  our own columns
    rows = await (await connection.execute(query.encode(), {"after_s": after_minutes * 60})).fetchall()
    return sorted(rows, key=lambda row: (row["planned_at"], row["id"]))


async def still_waits(connection: Connection, incident_id: str, plan_revision: str) -> Row | None:
    """The incident, if that plan still waits for somebody."""
    query = f"""select i.id, i.service, i.title, i.severity, i.plan_revision, i.planned_at from incident i
        where i.id = %s and i.plan_revision = %s and {UNDECIDED}"""  # noqa: S608
    return await (await connection.execute(query.encode(), (incident_id, plan_revision))).fetchone()
