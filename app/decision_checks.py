"""What a decision is checked against before it is stored: pure, so that what is offered and what is taken agree.

The one check that takes time, whether the targets still are as they were planned for, is ``app.drift``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.db import Connection, Row
from app.desk import Conflict, Desk, NotAllowed, NotFound, Unusable, require
from app.security import RANK, Caller
from app.store import decisions as store
from app.store import incidents
from app.store.facts import PostgresFacts
from executors.base import AnyOperation, Refused, Risk
from graph.aftermath import left_in_place
from graph.policy import Asked, Facts, strictest
from graph.state import (
    MAX_ROUNDS,
    ActionOption,
    Approval,
    Choice,
    Execution,
    Language,
    Needs,
    Plan,
    PlanStep,
)

OPTIONS: tuple[Choice, ...] = ("1", "2", "3")
RUNS: tuple[Choice, ...] = (*OPTIONS, "undo")
"""Choices that change something; the others only think, or hand over."""
ASK_ANEW = "Choose re_plan: it makes the options anew, against the present state."


class Verdict(BaseModel):
    """What a person decides, through whatever door."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan_revision: str
    choice: Choice
    steps: tuple[int, ...] = Field(default=(), description="Ordinals of the option; empty: all of them")
    hint: str = ""
    note: str = ""
    language: Language | None = None


@dataclass(frozen=True)
class ApprovedStep:
    """One step that is about to be approved, with the operation that would run it."""

    ordinal: int
    planned: PlanStep
    operation: AnyOperation
    params: BaseModel

    @property
    def services(self) -> tuple[str, ...]:
        """What it changes, as the catalogue calls it."""
        return self.operation.services(self.params)

    @property
    def resources(self) -> frozenset[str]:
        """The keys of what it changes."""
        return frozenset(self.operation.resource(self.params).split(","))


@dataclass(frozen=True)
class Waiting:
    """Somebody's yes that waits for another person's."""

    choice: Choice
    steps: tuple[int, ...]
    approval: Approval


@dataclass(frozen=True)
class Case:
    """An incident as it is stored now, as far as a decision depends on it."""

    row: Row
    plan: Plan | None  # None: there is none, or what is stored is no plan
    decided: Sequence[Row]
    withdrawn: Row | None  # of the decision on the plan that is asked about
    waiting: tuple[Waiting, ...]
    executions: tuple[Execution, ...]
    expires_at: datetime | None
    expired: bool
    facts: Facts


@dataclass(frozen=True)
class Admissible:
    """A verdict that nothing speaks against, as far as our own tables know."""

    steps: tuple[int, ...]  # () for all of the option
    approved: tuple[ApprovedStep, ...]
    needs: Needs
    approvals: tuple[Approval, ...]  # of others, for the same
    missing: int  # so many more people, after this one


async def load(
    desk: Desk, connection: Connection, incident_id: str, plan_revision: str | None = None, *, lock: bool = False
) -> Case:
    """The case as of now, about that plan or the one that waits. ``lock``: until the transaction ends, nobody else
    decides.

    Raises NotFound.
    """
    row = await (incidents.lock if lock else incidents.get)(connection, incident_id)
    if row is None:
        raise NotFound(incident_id)
    plan = _readable(await incidents.newest_plan(connection, incident_id))
    executions = tuple(Execution.model_validate(e["body"]) for e in await incidents.executions(connection, incident_id))
    facts = PostgresFacts(desk.pool, desk.catalogue, desk.policy, desk.clock)
    services = sorted({*_planned_services(desk, plan), *_services_in_place(desk, executions)})
    about = plan_revision or row["plan_revision"]
    return Case(
        row=row,
        plan=plan,
        decided=await incidents.decisions(connection, incident_id),
        withdrawn=await store.withdrawn(connection, incident_id, about),
        waiting=tuple(
            Waiting(r.pop("choice"), tuple(r.pop("steps")), Approval.model_validate(r))
            for r in await store.approvals(connection, incident_id, about)
        ),
        executions=executions,
        facts=await facts.read(connection, services, incident_id=incident_id),
        **await store.expiry(connection, incident_id, desk.policy.waiting.ttl_minutes),
    )


def _readable(stored: Mapping[str, object] | None) -> Plan | None:
    try:
        return Plan.model_validate(stored) if stored else None
    except ValidationError:
        return None  # somebody wrote it who is not the planner


def check(desk: Desk, case: Case, verdict: Verdict, caller: Caller) -> Admissible:
    """Whether this caller may decide so now. Raises NotAllowed, Conflict, Unusable, each with its reason."""
    require(caller, "responder", "decide")
    _check_awaited(case, verdict.plan_revision)
    _check_words(case, verdict)
    if verdict.choice not in RUNS:
        return Admissible((), (), Needs(), (), 0)
    _check_fresh(case, verdict.choice)
    if verdict.choice == "undo":
        steps: tuple[int, ...] = ()
        approved, needs = _undone(desk, case)
    else:
        option = _option(desk, case, verdict.choice)
        steps = _ordinals(option, verdict.steps)
        approved = _approved_steps(desk, option, steps)
        needs = desk.policy.needs(_asked(desk, option, approved), case.facts)
    _check_person(needs, caller, approved)
    _check_policy(case, needs)
    _check_feasible(approved)
    others = _others(case, verdict.choice, steps, needs, caller)
    return Admissible(steps, approved, needs, others, max(needs.approvals - len(others) - 1, 0))


# --- is a decision awaited, on this plan ---


def _check_awaited(case: Case, plan_revision: str) -> None:
    row = case.row
    if winner := next((d for d in case.decided if d["plan_revision"] == plan_revision), None):
        raise Conflict(_winner(case, winner), "already_decided")
    if row["status"] != "awaiting_decision" or row["plan_revision"] is None:
        status = row["status"].replace("_", " ")
        raise Conflict(f"No decision is awaited: the incident is {status}.", "not_awaited")
    if row["plan_revision"] != plan_revision:
        raise Conflict(
            f"The plan has changed since it was shown to you: it is at revision {row['plan_revision']} now,"
            f" you decided on {plan_revision}. Look at /incidents/{row['id']}/actions again.",
            "stale_plan",
        )


def _winner(case: Case, decision: Row) -> str:
    said = f"Already decided: {decision['by']} chose {decision['choice']} at {decision['at']:%Y-%m-%d %H:%M:%S} UTC."
    if case.withdrawn:
        said += f" {case.withdrawn['withdrawn_by']} withdrew that: a new plan is being made."
    return said


def _check_words(case: Case, verdict: Verdict) -> None:
    """What the choice takes besides itself."""
    if verdict.choice == "re_analyze" and case.row["round"] >= MAX_ROUNDS:
        raise Unusable(
            f"This incident was analysed {case.row['round']} times already; choose an option, or manual.",
            "no_rounds_left",
        )
    if verdict.language and verdict.choice != "re_analyze":
        raise Unusable(
            "A language is chosen with re_analyze only: nothing is written anew otherwise.",
            "language",
        )
    if verdict.steps and verdict.choice not in OPTIONS:
        raise Unusable(f"{verdict.choice} has no steps to choose from; leave steps empty.", "steps")


# --- is the plan what was planned, and young enough ---


def _check_fresh(case: Case, choice: Choice) -> None:
    if case.expired:
        when = f" at {case.expires_at:%H:%M:%S} UTC" if case.expires_at else ""
        raise Conflict(f"This plan became too old to be approved{when}. {ASK_ANEW}", "expired")
    if choice == "undo":  # what it puts back is in the ledger, not in the plan
        return
    if case.plan is None or not case.plan.intact or case.plan.revision != case.row["plan_revision"]:
        raise Conflict(
            "The stored plan is not the one that was made: somebody changed it in the database, or an older version"
            f" of the product wrote it. Nothing of it will run. {ASK_ANEW}",
            "tampered",
        )


# --- what would run ---


def _option(desk: Desk, case: Case, choice: Choice) -> ActionOption:
    assert case.plan is not None
    if int(choice) > len(case.plan.options):
        raise Unusable(f"There is no option {choice}: this plan has {len(case.plan.options)}.", "no_such_option")
    if case.plan.policy_version and case.plan.policy_version != desk.policy.version:
        raise Conflict(f"The policy changed since this plan was made. {ASK_ANEW}", "drift")
    return case.plan.options[int(choice) - 1]


def _ordinals(option: ActionOption, steps: Sequence[int]) -> tuple[int, ...]:
    """In order, each once; () for all."""
    possible = range(1, len(option.steps) + 1)
    if unknown := sorted(set(steps) - set(possible)):
        raise Unusable(
            f"This option has no step {', '.join(map(str, unknown))}: it has {len(option.steps)}.", "no_such_option"
        )
    chosen = tuple(sorted(set(steps)))
    return () if chosen == tuple(possible) else chosen


def _approved_steps(desk: Desk, option: ActionOption, ordinals: Sequence[int]) -> tuple[ApprovedStep, ...]:
    every = dict(enumerate(option.steps, 1))
    chosen = {n: every[n] for n in ordinals or every}
    approved = tuple(_resolved(desk, n, step) for n, step in chosen.items())
    for step in approved:
        _check_stands_alone(desk, step, {n: s for n, s in every.items() if n < step.ordinal and n not in chosen})
    return approved


def _resolved(desk: Desk, ordinal: int, step: PlanStep) -> ApprovedStep:
    """With its operation. Raises Unusable where that is not turned on, or the catalogue lacks its resource."""
    operation = desk.operations.get(step.operation)
    if operation is None:
        raise Unusable(
            f"{step.operation} is not an operation of this installation: turn on its executor (AUTOPILOT_EXECUTORS),"
            " or choose manual.",
            "not_registered",
        )
    try:
        resolved = ApprovedStep(ordinal, step, operation, operation.params.model_validate(step.params))
        operation.resource(resolved.params)
    except ValidationError as error:
        raise Unusable(f"{step.operation}: {error.errors()[0]['msg']}. {ASK_ANEW}", "infeasible") from None
    except Refused as error:
        raise Unusable(f"{step.operation}: {error}", "catalogue") from None
    return resolved


def _check_feasible(approved: Sequence[ApprovedStep]) -> None:
    """As it was when the plan was made; what changed since is for ``app.drift``."""
    if broken := next((s.planned for s in approved if s.planned.infeasible), None):
        raise Unusable(
            f"It cannot run now: {broken.operation}: {broken.infeasible.rstrip('.')}. {ASK_ANEW}", "infeasible"
        )


def _check_stands_alone(desk: Desk, step: ApprovedStep, left_out: Mapping[int, PlanStep]) -> None:
    """A step that was planned on what an earlier one leaves was never looked at without it."""
    if step.planned.pinned or step.operation.read_only:
        return
    for ordinal, planned in left_out.items():
        before = _resolved(desk, ordinal, planned)
        if not before.operation.read_only and before.resources & step.resources:
            raise Unusable(
                f"Step {step.ordinal} was planned on what step {ordinal} leaves: approve both, or neither.", "steps"
            )


def _undone(desk: Desk, case: Case) -> tuple[tuple[ApprovedStep, ...], Needs]:
    """What would be put back, and what that takes: the role of its risk, and one person.

    To go back to where things were is not held up by windows, rates and budgets; by the kill switch it is.
    """
    approved = tuple(in_place(desk, case.executions))
    if not approved:
        raise Unusable("There is nothing to undo: no change that can be put back is in place.", "nothing_to_undo")
    roles = [desk.policy.role_for(s.operation.risk, s.operation.name) for s in approved]
    frozen = (case.facts.frozen,) if case.facts.frozen else ()
    return approved, Needs(role=max(roles, key=lambda role: RANK[role]), refused=frozen)


def in_place(desk: Desk, executions: Sequence[Execution]) -> Iterator[ApprovedStep]:
    """The changes of earlier options that can be put back, and were not. Raises Unusable."""
    if left := left_in_place(executions, desk.operations):
        for result in left.results:
            yield _resolved(desk, result.ordinal, PlanStep(operation=result.operation, params=result.params))


# --- policy and people ---


def _asked(desk: Desk, option: ActionOption, approved: Sequence[ApprovedStep]) -> Asked:
    """All of an option is of its risk at least; so is a part, unless the risks of the steps account for the whole's."""
    environment = desk.catalogue.environment
    whole = Asked.of(option.steps, desk.operations, environment)
    partly = len(approved) < len(option.steps) and whole.risk == option.risk
    at_least: Risk = "none" if partly else option.risk
    return Asked.of([s.planned for s in approved], desk.operations, environment, at_least)


def _check_person(needs: Needs, caller: Caller, approved: Sequence[ApprovedStep]) -> None:
    risk = strictest([s.operation.risk for s in approved])
    require(caller, needs.role, f"approve what is of {risk} risk" + (f" ({', '.join(needs.why)})" if needs.why else ""))
    if needs.not_by and _same(needs.not_by, caller.name):
        raise NotAllowed(
            f"{caller.name} opened this incident; the policy wants somebody else to approve what is run for it.",
            "requester",
        )


def _check_policy(case: Case, needs: Needs) -> None:
    if case.facts.frozen and case.facts.frozen in needs.refused:
        raise Conflict(case.facts.frozen, "frozen")
    if needs.refused:
        raise Conflict(f"The policy does not let it run now: {'; '.join(needs.refused)}.", "policy")


def _others(case: Case, choice: Choice, steps: tuple[int, ...], needs: Needs, caller: Caller) -> tuple[Approval, ...]:
    """Who approved just this before, as far as the policy still counts them. Raises Conflict: the caller did."""
    mine = next((w for w in case.waiting if _same(w.approval.by, caller.name)), None)
    if mine and ((mine.choice, mine.steps) == (choice, steps) or needs.approvals > 1):
        raise Conflict(
            f"{caller.name} approved option {mine.choice} already; it waits for another person. To change it, withdraw"
            " it first.",
            "same_person",
        )
    return tuple(
        w.approval
        for w in case.waiting
        if (w.choice, w.steps) == (choice, steps)
        and RANK[w.approval.role] >= RANK[needs.role]
        and not (needs.not_by and _same(needs.not_by, w.approval.by))
    )


def _same(one: str, other: str) -> bool:
    """The same person, however the name is written."""
    return one.strip().casefold() == other.strip().casefold()


# --- which services the policy is asked about ---


def _planned_services(desk: Desk, plan: Plan | None) -> Iterator[str]:
    for step in (s for option in (plan.options if plan else ()) for s in option.steps):
        try:
            yield from _resolved(desk, 0, step).services
        except Unusable:
            continue  # it cannot be approved anyway


def _services_in_place(desk: Desk, executions: Sequence[Execution]) -> Iterator[str]:
    try:
        for step in in_place(desk, executions):
            yield from step.services
    except Unusable:
        return
