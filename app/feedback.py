"""The use cases around feedback: give it, read it. REST, console and command line all come here.

What counts of it is ``app.opinions``. The case, its remedies and so the track records are written anew in the same
transaction: whoever asks next is answered by it.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import Field, JsonValue

from app.db import Connection, Row, transaction
from app.desk import ANSWER_WITHIN_S, Conflict, Desk, NotFound, Unusable, require
from app.knowledge.remember import remember_in
from app.opinions import Feedback, Opinions, Said, subject
from app.security import Caller
from app.store import audit, incidents, knowledge
from app.store import feedback as store
from graph.deps import PastIncidents
from graph.llms.playbooks import OPERATIONS, Category
from graph.memory import named_operations, of_now
from graph.state import Alert, Door, Evidence, Execution, Model, PastIncident, Plan, RootCause

log = logging.getLogger(__name__)

SHOWN = 12  # names that a refusal lists
MEMORY_WITHIN_S = 3  # that others keep to themselves; a job writes the case then


class Given(Model):
    """What was stored, and what counts now."""

    incident_id: str
    said: Said
    replaced: bool = Field(description="The same author had said something else of it before")
    stands: Said = Field(description="What counts of this: the most trusted, an admin's before a responder's")
    counts: dict[str, int] = Field(description="How many people say what of it")


class Overview(Model):
    """All that people say of an incident."""

    incident_id: str
    feedback: tuple[Said, ...] = Field(default=(), description="Each author's newest on each thing, oldest first")
    standing: tuple[Said, ...] = Field(default=(), description="Of each thing what counts")
    counts: dict[str, dict[str, int]] = Field(default_factory=dict, description="Of each thing how many say what")
    component: str | None = Field(default=None, description="The cause as it is known best")
    category: str = ""
    helped: str = Field(default="", description="What really helped, by the word that counts")
    nameable: tuple[str, ...] = Field(default=(), description="What may be named as the true cause")


@dataclass(frozen=True)
class Judged:
    """The incident that feedback is about, as far as it is stored."""

    row: Row
    root_cause: RootCause | None
    evidence: Evidence | None
    plans: Sequence[Plan]
    executions: Sequence[Execution]


async def give(desk: Desk, incident_id: str, feedback: Feedback, caller: Caller, via: Door = "rest") -> Given:
    """Store what a person says, in place of what they said of the same thing before; it counts at once.

    A plan that is not named is the newest one, of an option that was run the one it was run from.
    Raises NotFound, NotAllowed, Conflict, Unusable.
    """
    require(caller, "responder", "give feedback")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        row = await incidents.lock(connection, incident_id, against_claims=False)
        if row is None:
            raise NotFound(incident_id)
        judged = await _judged(connection, row)
        meant = _checked(desk, judged, _about(judged, feedback))
        said = Said(**meant.model_dump(), by=caller.name, role=caller.role, at=desk.clock.now())
        before = _said_before(await store.opinions(connection, incident_id), said)
        await store.put(connection, incident_id, said, via)
        await _tell(connection, incident_id, said, before, via)
        opinions = await store.opinions(connection, incident_id)
        await _remember(desk, connection, incident_id)
        await _keep(connection, incident_id, said, before, via)
    name = subject(said)
    return Given(
        incident_id=incident_id,
        said=said,
        replaced=before is not None,
        stands=next(s for s in opinions.standing if subject(s) == name),
        counts=opinions.counts[name],
    )


async def given(desk: Desk, incident_id: str) -> Overview:
    """What people say, what of it counts, and what is believed of the cause. Raises NotFound."""
    async with desk.pool.connection() as connection:
        row = await incidents.get(connection, incident_id)
        if row is None:
            raise NotFound(incident_id)
        opinions = await store.opinions(connection, incident_id)
        judged = await _judged(connection, row)
    found = judged.root_cause
    component, category = opinions.cause(found.component if found else None, found.category if found else "")
    return Overview(
        incident_id=incident_id,
        feedback=opinions.said,
        standing=opinions.standing,
        counts=opinions.counts,
        component=component,
        category=category,
        helped=opinions.helped,
        nameable=tuple(sorted(components(desk, judged))),
    )


async def similar(desk: Desk, past: PastIncidents, incident_id: str) -> Sequence[PastIncident]:
    """What the memory finds like it now, the most telling first. Raises NotFound."""
    async with desk.pool.connection() as connection:
        row = await incidents.get(connection, incident_id)
        if row is None:
            raise NotFound(incident_id)
        judged = await _judged(connection, row)
    evidence = judged.evidence or Evidence(digest="", findings=(), suspects=())
    return await past.similar(incident_id, Alert.model_validate(row["alert"]), evidence)


# --- what it is about ---


async def _judged(connection: Connection, row: Row) -> Judged:
    analyses = await incidents.analyses(connection, row["id"])
    causes = [a["root_cause"] for a in analyses if a["root_cause"]]
    evidence = [a["evidence"] for a in analyses if a["evidence"]]
    return Judged(
        row=row,
        root_cause=RootCause.model_validate(causes[-1]) if causes else None,
        evidence=Evidence.model_validate(evidence[-1]) if evidence else None,
        plans=[Plan.model_validate(plan) for a in analyses for plan in a["plans"]],
        executions=[Execution.model_validate(e["body"]) for e in await incidents.executions(connection, row["id"])],
    )


def _about(judged: Judged, feedback: Feedback) -> Feedback:
    """The same, with the plan that is meant. Raises Conflict where there is nothing to judge yet, Unusable."""
    if feedback.about == "report":
        if judged.root_cause is None:
            raise Conflict("There is no analysis yet that could be right or wrong.", "not_awaited")
        return feedback.model_copy(update={"plan_revision": "", "option": 0})
    runs = [e for e in judged.executions if e.choice.isdecimal()]
    if feedback.about == "verification":
        return feedback.model_copy(update={"plan_revision": _run(runs, feedback.plan_revision), "option": 0})
    if not feedback.option:
        raise Unusable("Say which option you mean: 1, 2 or 3.", "no_such_option")
    return _of_plan(judged.plans, runs, feedback)


def _run(runs: Sequence[Execution], plan_revision: str) -> str:
    """The plan whose run is meant."""
    if not runs:
        raise Conflict("Nothing was run yet, so nothing was verified.", "not_awaited")
    if plan_revision and plan_revision not in (e.plan_revision for e in runs):
        raise Unusable(
            f"No option of plan {plan_revision} was run; there were runs of: {_listed(e.plan_revision for e in runs)}.",
            "stale_plan",
        )
    return plan_revision or runs[-1].plan_revision


def _of_plan(plans: Sequence[Plan], runs: Sequence[Execution], feedback: Feedback) -> Feedback:
    """The same with the plan of the option; of one that was run already and is shown again, that of its run."""
    if not plans:
        raise Conflict("There is no plan yet whose options could be judged.", "not_awaited")
    revision = feedback.plan_revision or plans[-1].revision
    known = {e.plan_revision: int(e.choice) for e in runs} | {plan.revision: len(plan.options) for plan in plans}
    if revision not in known:
        raise Unusable(f"This incident has no plan {revision}; it has: {_listed(known)}.", "stale_plan")
    if feedback.option > known[revision]:
        raise Unusable(f"Plan {revision} has no option {feedback.option}.", "no_such_option")
    title = next((p.options[feedback.option - 1].title for p in plans if p.revision == revision), "")
    run = next((e for e in reversed(runs) if e.title == title), None)
    if run and not feedback.plan_revision:
        return feedback.model_copy(update={"plan_revision": run.plan_revision, "option": int(run.choice)})
    return feedback.model_copy(update={"plan_revision": revision})


# --- whether it can be meant ---


def _checked(desk: Desk, judged: Judged, feedback: Feedback) -> Feedback:
    """The same with names that are known. Raises Unusable."""
    _check_cause(desk, judged, feedback)
    names = {*OPERATIONS, *desk.operations, *(r.operation for e in judged.executions for r in e.results)}
    unknown = [name for name in named_operations(feedback.helped) if name not in names]
    if unknown:
        raise Unusable(
            f"There is no operation {unknown[0]!r}. There are: {_listed(sorted(names))}. Say anything else in words.",
            "not_registered",
        )
    return feedback


def _check_cause(desk: Desk, judged: Judged, feedback: Feedback) -> None:
    known = components(desk, judged)
    if feedback.component and feedback.component not in known:
        raise Unusable(
            f"{feedback.component!r} is in neither the service catalogue nor the evidence ({_listed(sorted(known))}).",
            "catalogue",
        )
    if feedback.category and feedback.category not in set(Category):
        raise Unusable(f"There is no category {feedback.category!r}; there are: {', '.join(sorted(Category))}.")
    found = judged.root_cause
    other = found and (feedback.component or found.component, feedback.category or found.category) != (
        found.component,
        found.category,
    )
    if feedback.about == "report" and feedback.verdict == "right" and other:
        raise Unusable("You call the report right and name another cause; say wrong, or partly.")


def components(desk: Desk, judged: Judged) -> set[str]:
    """What may be named as the cause: the catalogue's services, and what was seen in the evidence."""
    seen = of_now(judged.evidence) if judged.evidence else None
    found = judged.root_cause.component if judged.root_cause else None
    return {
        *desk.catalogue.services,
        *(e.callee for e in desk.catalogue.edges()),
        *(s.component for s in (seen.suspects if seen else ())),
        *(f.component for f in (seen.findings if seen else ()) if f.component),
        *([found] if found else []),
    }


def _listed(names: Iterable[str]) -> str:
    every = list(dict.fromkeys(names))
    return ", ".join(every[:SHOWN]) + (f" and {len(every) - SHOWN} more" if len(every) > SHOWN else "")


# --- the record ---


async def _remember(desk: Desk, connection: Connection, incident_id: str) -> None:
    """Write the case anew; where that fails it is left to the job that writes cases: what people say is kept."""
    try:
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = '{MEMORY_WITHIN_S}s'".encode())
            await remember_in(connection, incident_id, desk.catalogue)
    except Exception:  # whatever is wrong with what is stored of it, what was said is not
        log.exception("the case of incident %s could not be written anew with what people say of it", incident_id)
        await knowledge.learn_again(connection, incident_id)


def _said_before(opinions: Opinions, said: Said) -> Said | None:
    return next((s for s in opinions.said if (s.by, subject(s)) == (said.by, subject(said))), None)


async def _tell(connection: Connection, incident_id: str, said: Said, before: Said | None, via: Door) -> None:
    """A line of the timeline."""
    changed = f" (before: {before.verdict})" if before and before.verdict != said.verdict else ""
    cause = ", ".join(filter(None, (said.component, said.category.replace("_", " "))))
    told = f"{said.by} called the {subject(said)} {said.verdict}{changed}"
    told += f"; the cause was {cause}" if cause else ""
    told += f"; what helped was {said.helped}" if said.helped else ""
    told += f": {said.note}" if said.note else ""
    data: dict[str, JsonValue] = {"by": said.by, "via": via, "about": said.about, "verdict": said.verdict}
    key = f"feedback:{subject(said)}:{said.by}:{said.at.isoformat()}"
    await incidents.add_event(connection, incident_id, key, said.at, "feedback", told, data=data)


async def _keep(connection: Connection, incident_id: str, said: Said, before: Said | None, via: Door) -> None:
    """What was said, and what it replaced; the last statement of the transaction."""
    body: dict[str, JsonValue] = said.model_dump(mode="json", exclude={"by", "at"}) | {"via": via}
    if before:
        body["before"] = before.model_dump(mode="json", exclude={"by"})
    await audit.append(connection, "feedback", said.by, said.at, body, incident_id)
