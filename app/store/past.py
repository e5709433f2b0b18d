"""What this installation learned from incidents that are over: ``graph.deps.PastIncidents`` on our own tables."""

from collections.abc import Mapping, Sequence

from app.db import Pool, Row
from graph.llms.base import PastIncident, TrackRecord
from graph.state import Alert

FEW = 3
EACH = 20  # candidates by each likeness: the newest ones
REMEMBERED = 1000  # root causes of a category: the newest ones

# As in the indexes incident_past_fingerprint, incident_past_rule and analysis_component. One more than is wanted, for
# an incident may be among its own candidates.
SIMILAR = f"""
with candidate as (
    (select id from incident
     where closed_at is not null and left(alert->>'fingerprint', 500) = left(%(fingerprint)s, 500)
     order by closed_at desc limit {EACH + 1})
    union
    (select id from incident
     where closed_at is not null and left(alert->>'rule', 500) = left(%(rule)s, 500) and %(rule)s <> ''
     order by closed_at desc limit {EACH + 1})
    union
    (select found.incident_id from unnest(%(components)s::text[]) c (name),
     lateral (select incident_id from analysis
              where root_cause is not null and left(root_cause->>'component', 200) = left(c.name, 200)
              order by at desc limit {EACH + 1}) found))
select i.id, i.occurred_at, i.closed_at, i.recovered, i.alert->>'fingerprint' as fingerprint, i.alert->>'rule' as rule,
    last.root_cause->>'component' as component, last.root_cause->>'category' as category,
    last.root_cause->>'title' as title, done.body as execution, decided.note
from candidate
join incident i on i.id = candidate.id and i.closed_at is not null and i.id <> %(incident_id)s
join lateral (select root_cause from analysis a where a.incident_id = i.id and root_cause is not null
              order by round desc limit 1) last on last.root_cause->>'component' is not null
left join lateral (select body from execution e where e.incident_id = i.id and body->>'choice' is distinct from 'undo'
                   order by at desc limit 1) done on true
left join lateral (select note from decision d where d.incident_id = i.id and choice = 'manual'
                   order by at desc limit 1) decided on true
"""  # noqa: S608  no outside text in it

# The last root cause counts, also for what was run while an earlier one was believed: it is what is known best.
# A rehearsal changed nothing, and what could not be measured taught nothing. What would have recovered without it is
# no success.
TRACK_RECORD = f"""
with recent as materialized (
    select incident_id, round from analysis
    where root_cause is not null and left(root_cause->>'category', 200) = left(%(category)s, 200)
    order by at desc limit {REMEMBERED}),
of_category as (
    select incident_id from recent
    where round = (select max(a.round) from analysis a
                   where a.incident_id = recent.incident_id and a.root_cause is not null)),
run as (
    select distinct e.incident_id, e.plan_revision, result->>'operation' as operation,
        e.body->'verification'->>'verdict' as verdict,
        coalesce(e.body->'verification'->>'credit', '') as credit
    from of_category join execution e using (incident_id), jsonb_array_elements(e.body->'results') result
    where (result->>'made')::boolean)
select operation, count(*) as runs,
    count(*) filter (where verdict = 'resolved' and credit <> 'by_itself') as resolved,
    count(*) filter (where verdict = 'worse') as worse
from run where verdict <> 'not_measurable' group by operation
"""  # noqa: S608  the same


class PostgresPast:
    """What is asked is bounded by indexes: it takes as long with a million incidents as with a thousand."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def similar(self, incident_id: str, alert: Alert, components: Sequence[str]) -> Sequence[PastIncident]:
        """See graph.deps.PastIncidents."""
        wanted = {
            "incident_id": incident_id,
            "fingerprint": alert.fingerprint,
            "rule": alert.rule,
            "components": list(dict.fromkeys(components)),
        }
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(SIMILAR.encode(), wanted)).fetchall()
        rated = [(_likeness(row, alert, components), row) for row in rows]
        rated = [(likeness, row) for likeness, row in rated if likeness]
        rated.sort(key=lambda pair: (pair[0] + _tells(pair[1]), pair[1]["closed_at"]), reverse=True)
        return [_past(row) for _, row in rated[:FEW]]

    async def track_record(self, category: str) -> Mapping[str, TrackRecord]:
        """See graph.deps.PastIncidents. Of the newest thousand incidents of the category."""
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(TRACK_RECORD.encode(), {"category": category})).fetchall()
        return {row["operation"]: TrackRecord(row["runs"], row["resolved"], row["worse"]) for row in rows}


def _likeness(row: Row, alert: Alert, components: Sequence[str]) -> int:
    """The same alert says most; the same rule on another resource, and the same culprit, say as much as each other."""
    same_alert = bool(row["fingerprint"] == alert.fingerprint)
    same_rule = alert.rule != "" and bool(row["rule"] == alert.rule)
    return 3 * same_alert + 2 * same_rule + 2 * (row["component"] in components)


def _tells(row: Row) -> int:
    """What was run and measured tells more than a guess that nobody tried."""
    verdict = _verdict(row)
    return 2 * (verdict == "resolved") + (verdict not in ("", "not_measurable")) + bool(row["note"])


def _verdict(row: Row) -> str:
    return str(row["execution"]["verification"]["verdict"]) if row["execution"] else ""


def _past(row: Row) -> PastIncident:
    verdict = _verdict(row) or ("recovered by itself" if row["recovered"] else "")
    return PastIncident(
        incident_id=row["id"],
        at=f"{row['occurred_at']:%Y-%m-%d}",
        component=row["component"],
        category=row["category"] or "",
        title=row["title"] or "",
        remedy=_remedy(row),
        verdict=verdict,
    )


def _remedy(row: Row) -> str:
    """What was run, with its operations; else what a person wrote who took it by hand."""
    if (execution := row["execution"]) is None:
        return f"by hand: {row['note']}" if row["note"] else ""
    operations = dict.fromkeys(result["operation"] for result in execution["results"])
    return f"{execution['title']} ({', '.join(operations)})" if operations else str(execution["title"])
