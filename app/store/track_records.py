"""What came of each operation on a category of failures, as the memory holds it. Functions never commit."""

from collections.abc import Sequence

from app.db import Connection, Row
from app.knowledge.cases import environment_called
from graph.track_record import Outcome, together

REMEMBERED = 500  # remedies of a category: the newest ones here, and the newest ones wherever they were

# What was run is measured, unless people say how it was. A rehearsal changed nothing, and what nobody could measure
# taught nothing. Of what was not run here there is no more than people's word; that is so of all that was imported.
# An option is read whole, or not at all.
REMEDIES = f"""
with telling as not materialized (
    select r.*, kind = 'incident' and fate = 'run' as done,
        kind = 'incident' and (r.environment = %(environment)s or '' in (r.environment, %(environment)s)) as ours
    from remedy r join knowledge on knowledge.id = knowledge_id
    where r.category = %(category)s and operation <> ''
        and ((fate = 'run' and (r.helped <> '' or verdict not in ('', 'not_measurable')))
            or (fate in ('rejected', 'by_hand') and r.helped <> ''))),
newest as (
    (select knowledge_id, plan_revision, option from telling where component = %(component)s and ours
     order by at desc limit {REMEMBERED})
    union (select knowledge_id, plan_revision, option from telling order by at desc limit {REMEMBERED}))
select knowledge_id, plan_revision, option, operation, verdict, credit, helped, at, done,
    ours and coalesce(component = %(component)s, false) as here
from newest join telling using (knowledge_id, plan_revision, option)
order by not done, knowledge_id, plan_revision, option, ordinal
"""  # noqa: S608  no outside text in it
HELPED = {"yes": 1.0, "partly": 0.5, "no": 0.0}


async def outcomes(connection: Connection, category: str, component: str | None, environment: str) -> list[Outcome]:
    """What is known of the category's newest remedies; ``here`` are our own on that component in that environment.

    An option counts once for each plan of an incident; one that was judged and not run only if nothing else did the
    same there. An empty environment is any.
    """
    asked = {"category": category, "component": component, "environment": environment_called(environment)}
    rows = await (await connection.execute(REMEDIES.encode(), asked)).fetchall()
    options: dict[tuple[str, str, int, bool], list[Row]] = {}
    for row in rows:  # what was done comes first
        options.setdefault((row["knowledge_id"], row["plan_revision"], row["option"], row["done"]), []).append(row)
    found: list[Outcome] = []
    known: set[tuple[str, str]] = set()
    for (case, *_, done), remedies in options.items():
        outcome = _outcome(remedies)
        same = case, together(outcome.resolved)
        if done or same not in known:
            found.append(outcome)
        known.add(same)
    return found


def _outcome(remedies: Sequence[Row]) -> Outcome:
    """Of one option."""
    first = remedies[0]
    return Outcome(
        resolved={row["operation"]: _resolved(row) for row in remedies},
        here=first["here"],
        worse=any(row["verdict"] == "worse" and row["helped"] in ("", "no") for row in remedies),
        at=first["at"],
        done=first["done"],
    )


def _resolved(row: Row) -> float:
    """What would have recovered without it is no success, unless people say that it was one."""
    measured = float(row["verdict"] == "resolved" and row["credit"] != "by_itself")
    return HELPED.get(row["helped"], measured)
