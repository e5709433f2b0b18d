"""Plans that nobody decides on: which are due for a reminder, an escalation, the end. Functions never commit."""

from typing import Literal

from app.db import Connection, Row

Stage = Literal["reminded_at", "escalated_at", "expired_at"]
AT_ONCE = 50
UNDECIDED = """i.status = 'awaiting_decision' and i.closed_at is null and not exists (
    select 1 from decision d where d.incident_id = i.id and d.plan_revision = i.plan_revision)"""


async def take_due(connection: Connection, stage: Stage, after_minutes: float) -> list[Row]:
    """Mark those that reached a stage now, oldest first; nobody else gets them, and they get there once for each plan.

    Rows: id, service, title, severity, plan_revision, planned_at, and how many ``minutes`` it has waited, by our clock.
    One that somebody is just deciding on is left for the next time.
    """
    query = f"""with due as (
            select i.id from incident i
            where i.plan_revision is not null and i.{stage} is null and {UNDECIDED}
              and i.planned_at <= clock_timestamp() - make_interval(secs => %s)
            order by i.planned_at limit {AT_ONCE} for update skip locked)
        update incident i set {stage} = clock_timestamp() from due where i.id = due.id
        returning i.id, i.service, i.title, i.severity, i.plan_revision, i.planned_at,
            extract(epoch from clock_timestamp() - i.planned_at)::float8 / 60 as minutes"""  # noqa: S608  our own columns
    rows = await (await connection.execute(query.encode(), (after_minutes * 60,))).fetchall()
    return sorted(rows, key=lambda row: (row["planned_at"], row["id"]))


async def still_waits(connection: Connection, incident_id: str, plan_revision: str) -> Row | None:
    """The incident, if that plan still waits for somebody."""
    query = f"""select i.id, i.service, i.title, i.severity, i.plan_revision, i.planned_at from incident i
        where i.id = %s and i.plan_revision = %s and {UNDECIDED}"""  # noqa: S608
    return await (await connection.execute(query.encode(), (incident_id, plan_revision))).fetchone()
