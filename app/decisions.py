"""The use cases around a decision: offer, decide, withdraw, note. REST, Slack, console and command line all come here.

One transaction each. A refusal is recorded in one of its own, in the timeline and in the audit log.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.db import Connection, Row, transaction
from app.decision_checks import OPTIONS, RUNS, Admissible, Case, Verdict, check, load
from app.desk import ANSWER_WITHIN_S, Conflict, Desk, NotAllowed, NotFound, Reason, UseCaseError, require
from app.drift import check_targets
from app.queue import enqueue_advance
from app.security import Caller
from app.store import audit, incidents, knowledge
from app.store import decisions as store
from graph.state import ActionOption, Approval, Choice, Decision, Door, Needs

CHOICES: tuple[Choice, ...] = (*OPTIONS, "manual", "re_analyze", "re_plan", "undo")


class Model(BaseModel):
    """Immutable value."""

    model_config = ConfigDict(frozen=True)


class Outcome(Model):
    """The decision is stored and the graph goes on, or a yes is, and waits for other people's."""

    status: Literal["decided", "waiting_for_approval"]
    choice: Choice
    by: str
    at: datetime
    approvals: tuple[Approval, ...] = Field(default=(), description="This one included")
    missing: int = Field(default=0, description="So many more people must approve the same")
    decision: Decision | None = None
    report: str = Field(default="", description="Of manual: where all that was found is, for who takes it by hand")


# --- decide ---


async def decide(desk: Desk, incident_id: str, verdict: Verdict, caller: Caller, via: Door = "rest") -> Outcome:
    """Store the decision and enqueue the resumption, or store a yes that waits for another person's.

    The first complete one wins. The targets are read again before the transaction opens.
    Raises NotFound, NotAllowed, Conflict, Unusable, each with its reason; each is recorded.
    """
    try:
        require(caller, "responder", "decide")
        async with desk.pool.connection() as connection:
            asked = check(desk, await load(desk, connection, incident_id, verdict.plan_revision), verdict, caller)
        await check_targets(asked.approved)
        async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
            case = await load(desk, connection, incident_id, verdict.plan_revision, lock=True)
            return await _store(desk, connection, case, verdict, check(desk, case, verdict, caller), caller, via)
    except UseCaseError as error:
        body: dict[str, JsonValue] = {"choice": verdict.choice, "plan_revision": verdict.plan_revision}
        await _record_refusal(desk, incident_id, caller.name, via, error, body | {"steps": list(verdict.steps)})
        raise


async def _store(
    desk: Desk, connection: Connection, case: Case, verdict: Verdict, asked: Admissible, caller: Caller, via: Door
) -> Outcome:
    now = desk.clock.now()
    mine = Approval(by=caller.name, role=caller.role, via=via, at=now)
    approvals = (*asked.approvals, mine) if verdict.choice in RUNS else ()
    if asked.missing:
        return await _store_approval(connection, case, verdict, asked, approvals)
    decision = Decision(
        plan_revision=verdict.plan_revision,
        choice=verdict.choice,
        steps=asked.steps,
        hint=verdict.hint,
        note=verdict.note,
        by=caller.name,
        via=via,
        at=now,
        approvals=approvals,
        plan_digest=case.plan.digest if case.plan and verdict.choice in OPTIONS else "",
        language=verdict.language,
    )
    await _store_decision(desk, connection, case, decision)
    return Outcome(
        status="decided",
        choice=decision.choice,
        by=caller.name,
        at=now,
        approvals=approvals,
        decision=decision,
        report=f"/incidents/{case.row['id']}/report" if decision.choice == "manual" else "",
    )


async def _store_approval(
    connection: Connection, case: Case, verdict: Verdict, asked: Admissible, approvals: Sequence[Approval]
) -> Outcome:
    incident_id, mine = case.row["id"], approvals[-1]
    await store.insert_approval(connection, incident_id, verdict.plan_revision, verdict.choice, asked.steps, mine)
    said = f"{mine.by} approved {_chosen(verdict.choice, asked.steps)}; {_people(asked.missing)} must approve it too"
    told: dict[str, JsonValue] = {"choice": verdict.choice, "by": mine.by, "via": mine.via, "missing": asked.missing}
    key = f"approval:{verdict.plan_revision}:{mine.by}:{mine.at.isoformat()}"
    await incidents.add_event(connection, incident_id, key, mine.at, "approval", said, data=told)
    digest = case.plan.digest if case.plan else ""
    bound: dict[str, JsonValue] = {"plan_revision": verdict.plan_revision, "plan_digest": digest}
    body = told | bound | {"role": mine.role, "steps": list(asked.steps)}
    await audit.append(connection, "approval", mine.by, mine.at, body, incident_id)
    return Outcome(
        status="waiting_for_approval",
        choice=verdict.choice,
        by=mine.by,
        at=mine.at,
        approvals=tuple(approvals),
        missing=asked.missing,
    )


async def _store_decision(desk: Desk, connection: Connection, case: Case, decision: Decision) -> None:
    incident_id = case.row["id"]
    if not await incidents.insert_decision(connection, incident_id, decision):
        raise AssertionError("decided twice under the incident's lock")
    status = "executing" if decision.choice in RUNS else case.row["status"]
    await incidents.set_status(connection, incident_id, status)
    with_whom = [a.by for a in decision.approvals if a.by != decision.by]
    said = f"{decision.by} chose {_chosen(decision.choice, decision.steps)}"
    said += f", approved by {', '.join(with_whom)} too" if with_whom else ""
    said += f": {decision.hint or decision.note}" if decision.hint or decision.note else ""
    key = f"decision:{decision.plan_revision}"
    told: dict[str, JsonValue] = {"choice": decision.choice, "by": decision.by, "via": decision.via}
    await incidents.add_event(connection, incident_id, key, decision.at, "decision", said, data=told)
    await enqueue_advance(desk.queue, connection, incident_id)
    body = decision.model_dump(mode="json")
    await audit.append(connection, "decision", decision.by, decision.at, body, incident_id)


def _chosen(choice: Choice, steps: Sequence[int]) -> str:
    only = f" (only step{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps))})" if steps else ""
    return f"{choice}{only}"


def _people(number: int) -> str:
    return "one more person" if number == 1 else f"{number} more people"


# --- refusals ---


async def _record_refusal(
    desk: Desk, incident_id: str, actor: str, via: Door, error: UseCaseError, body: dict[str, JsonValue]
) -> None:
    """In a transaction of its own: the use case's is gone."""
    now = desk.clock.now()
    told = body | {"via": via, "reason": error.reason, "detail": str(error)}
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        known = await incidents.get(connection, incident_id) is not None
        if known:
            said = f"{actor} was refused {body.get('choice', 'a withdrawal')}: {error}"
            key = f"refusal:{actor}:{now.isoformat()}"
            data: dict[str, JsonValue] = {"by": actor, "via": via, "reason": error.reason}
            await incidents.add_event(connection, incident_id, key, now, "refusal", said, data=data)
        else:
            told["asked_for"] = incident_id[:200]
        await audit.append(connection, "refusal", actor, now, told, incident_id if known else None)


async def refuse_stranger(desk: Desk, incident_id: str, via: Door) -> None:
    """Record that somebody without valid credentials tried to decide; of a flood only the first."""
    if desk.strangers.worth_a_row():
        error = NotAllowed("no valid key, session or signature", "not_authenticated")
        await _record_refusal(desk, incident_id, "nobody known", via, error, {"choice": "a decision"})


# --- withdraw ---


class Withdrawn(Model):
    """What was taken back."""

    what: Literal["decision", "approval"]
    choice: Choice
    by: str
    at: datetime


async def withdraw(
    desk: Desk,
    incident_id: str,
    caller: Caller,
    via: Door = "rest",
    plan_revision: str | None = None,
    request: str = "",
) -> Withdrawn:
    """Take back a decision of which no step has begun, or a yes that waits for another person's.

    By whoever gave it, or an admin. A withdrawn decision runs nothing; a new plan is made. ``plan_revision``: it must
    be about this plan; None: about whichever is the newest. ``request``: what asks for it, where it may ask again; it
    takes back nothing more then.
    Raises NotFound, NotAllowed, Conflict; each is recorded.
    """
    try:
        require(caller, "responder", "withdraw")
        async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
            taken, revision = await _withdraw(desk, connection, incident_id, caller, via, request)
            if plan_revision not in (None, revision):  # rolls back
                raise Conflict("The plan is another one by now: look at what was decided since.", "stale_plan")
            return taken
    except UseCaseError as error:
        await _record_refusal(desk, incident_id, caller.name, via, error, {"choice": "withdraw"})
        raise


async def _withdraw(
    desk: Desk, connection: Connection, incident_id: str, caller: Caller, via: Door, request: str
) -> tuple[Withdrawn, str]:
    """And the plan it was about. A claim locks incident and decision in an order of its own; we are in nobody's way
    with the former.
    """
    row = await incidents.lock(connection, incident_id, against_claims=False)
    if row is None:
        raise NotFound(incident_id)
    now = desk.clock.now()
    key = f"withdrawal:{request or f'{caller.name}:{now.isoformat()}'}"
    if before := await store.withdrawal(connection, incident_id, key):
        return Withdrawn.model_validate(before), before["plan_revision"]
    if waiting := await store.approvals(connection, incident_id, row["plan_revision"]):
        revision, what = row["plan_revision"], "approval"
        choice = await _take_back(connection, row, waiting, caller)
    else:
        what = "decision"
        revision, choice = await _withdraw_decision(connection, incident_id, caller)
    taken = Withdrawn.model_validate({"what": what, "choice": choice, "by": caller.name, "at": now})
    said = f"{caller.name} withdrew the {what} of {choice}"
    body: dict[str, JsonValue] = {"what": what, "plan_revision": revision, "choice": choice, "via": via}
    told = body | {"by": caller.name}
    await incidents.add_event(connection, incident_id, key, taken.at, "withdrawal", said, data=told)
    await audit.append(connection, "withdrawal", caller.name, taken.at, body, incident_id)
    return taken, revision


async def _take_back(connection: Connection, row: Row, waiting: Sequence[Row], caller: Caller) -> Choice:
    """The caller's own yes; an admin's word takes back everybody's."""
    mine = [w for w in waiting if w["by"] == caller.name] or (list(waiting) if caller.may("admin") else [])
    if not mine:
        raise NotAllowed(f"{waiting[0]['by']} approved it; that is withdrawn by them, or by an admin.")
    await store.delete_approvals(connection, row["id"], row["plan_revision"], [w["by"] for w in mine])
    choice: Choice = mine[0]["choice"]
    return choice


async def _withdraw_decision(connection: Connection, incident_id: str, caller: Caller) -> tuple[str, Choice]:
    decision = await store.newest(connection, incident_id, lock=True)
    if why := not_withdrawable(decision):
        raise Conflict(*why)
    assert decision is not None
    if caller.name not in _who_decided(decision) and not caller.may("admin"):
        raise NotAllowed(f"{decision['by']} decided it; that is withdrawn by them, or by an admin.")
    await store.withdraw(connection, incident_id, decision["plan_revision"], caller.name)
    return decision["plan_revision"], decision["choice"]


def not_withdrawable(decision: Row | None) -> tuple[str, Reason] | None:
    """Why the newest decision of an incident cannot be taken back; None: it can."""
    if decision is None:
        return "There is nothing to withdraw: nobody decided or approved anything.", "nothing_to_withdraw"
    if decision["withdrawn_at"]:
        return f"{decision['withdrawn_by']} withdrew it already.", "nothing_to_withdraw"
    if decision["choice"] not in RUNS:
        return f"{decision['choice']} runs nothing that could be withdrawn.", "nothing_to_withdraw"
    if decision["started"]:
        return (
            "It has begun: what was claimed runs to its end. Once it ended, choose undo to put back what it changed.",
            "already_started",
        )
    return None


def _who_decided(decision: Row) -> set[str]:
    return {decision["by"], *(a["by"] for a in decision["approvals"])}


# --- note ---


async def note(desk: Desk, incident_id: str, caller: Caller, text: str, via: Door = "rest") -> datetime:
    """What was done by hand, noted by who did it; also after closing. Raises NotFound, NotAllowed."""
    require(caller, "responder", "note what was done")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        if await incidents.get(connection, incident_id) is None:
            raise NotFound(incident_id)
        now = desk.clock.now()
        said, data = f"{caller.name}: {text}", {"by": caller.name}
        await incidents.add_event(
            connection, incident_id, f"note:{caller.name}:{now.isoformat()}", now, "note", said, data=dict(data)
        )
        await knowledge.learn_again(connection, incident_id)
        await audit.append(connection, "note", caller.name, now, {"text": text, "via": via}, incident_id)
    return now


# --- offer ---


class Refusal(Model):
    """Why a caller may not choose something now."""

    reason: Reason
    detail: str


class Offer(Model):
    """One choice, as it stands for this caller."""

    choice: Choice
    refused: Refusal | None = Field(default=None, description="null: the caller may choose it now")
    needs: Needs | None = Field(default=None, description="As the policy asks now; null: refused before that was asked")
    approvals: tuple[Approval, ...] = Field(default=(), description="Of other people, for all of its steps")
    missing: int = Field(default=0, description="So many more people, after this caller")


class WaitingApproval(Approval):
    """A yes that waits for another person's."""

    choice: Choice
    steps: tuple[int, ...] = ()


class DecisionNow(Model):
    """The newest decision, and whether it can be taken back."""

    plan_revision: str
    choice: Choice
    steps: tuple[int, ...] = ()
    by: str
    via: Door
    at: datetime
    started: bool = Field(description="Something of it was claimed in the ledger")
    withdrawn_by: str | None = None
    may_withdraw: bool = Field(description="By this caller, now")


class Offers(Model):
    """What a caller may choose, and what stands in the way of the rest."""

    incident_id: str
    status: str
    plan_revision: str | None = Field(description="Name it in your decision; null while none is awaited")
    options: tuple[ActionOption, ...] = Field(description="Exactly as a decision on this revision will run them")
    note: str = ""
    choices: tuple[Choice, ...] = Field(description="What this caller may choose now")
    offers: tuple[Offer, ...] = Field(default=(), description="Every choice, while a decision is awaited")
    expires_at: datetime | None = Field(default=None, description="Then options are too old to be approved")
    expired: bool = False
    approvals: tuple[WaitingApproval, ...] = Field(default=(), description="That wait for another person's")
    decision: DecisionNow | None = None


async def actions_for(desk: Desk, incident_id: str, caller: Caller, via: Door = "rest") -> Offers:
    """The options, and what this caller may choose by the very checks that ``decide`` makes; that they were shown is
    recorded. What only reading the targets can tell is not among them.

    Raises NotFound.
    """
    async with desk.pool.connection() as connection:
        case = await load(desk, connection, incident_id)
        newest = await store.newest(connection, incident_id)
        if revision := case.row["plan_revision"]:
            await store.show(connection, incident_id, caller.name, f"plan:{revision}", via)
    offers = tuple(_offer(desk, case, choice, caller) for choice in CHOICES) if revision else ()
    return Offers(
        incident_id=incident_id,
        status=case.row["status"],
        plan_revision=revision,
        options=case.plan.options if case.plan else (),
        note=case.plan.note if case.plan else "",
        choices=tuple(o.choice for o in offers if o.refused is None),
        offers=tuple(o for o in offers if not (o.refused and o.refused.reason == "no_such_option")),
        expires_at=case.expires_at if revision else None,
        expired=case.expired if revision else False,
        approvals=tuple(
            WaitingApproval(choice=w.choice, steps=w.steps, **w.approval.model_dump()) for w in case.waiting
        ),
        decision=_decision_now(newest, caller) if newest else None,
    )


def _offer(desk: Desk, case: Case, choice: Choice, caller: Caller) -> Offer:
    verdict = Verdict(plan_revision=case.row["plan_revision"], choice=choice)
    try:
        asked = check(desk, case, verdict, caller)
    except UseCaseError as error:
        return Offer(choice=choice, refused=Refusal(reason=error.reason, detail=str(error)))
    return Offer(choice=choice, needs=asked.needs, approvals=asked.approvals, missing=asked.missing)


def _decision_now(newest: Row, caller: Caller) -> DecisionNow:
    theirs = caller.may("responder") and (caller.name in _who_decided(newest) or caller.may("admin"))
    known = {name: newest[name] for name in DecisionNow.model_fields if name in newest}
    return DecisionNow.model_validate(known | {"may_withdraw": theirs and not_withdrawable(newest) is None})


async def shown(desk: Desk, incident_id: str, caller: Caller, what: str, via: Door = "rest") -> None:
    """Note that a caller opened the ``report``, or ``evidence:<id>``."""
    async with desk.pool.connection() as connection:
        await store.show(connection, incident_id, caller.name, what, via)


# --- figures ---


class Figures(Model):
    """How a team, or a person, decides. Shares are 0 to 1; null where nothing is known."""

    of: Literal["team", "person"]
    name: str = Field(description="A team is the person's (operators), else the catalogue's owner of the service")
    decisions: int = Field(description="And approvals that wait")
    per_week: float
    median_s: float | None = Field(default=None, description="From when the plan was first shown to them")
    p90_s: float | None = None
    under_10s: float | None = Field(default=None, description="Share decided in less than ten seconds")
    without_evidence: float | None = Field(default=None, description="Share decided without opening any evidence")
    approved: float | None = Field(default=None, description="Share that ran something")
    at_night: float | None = Field(default=None, description="Share decided between 22 and 6 o'clock")
    refusals: int


async def figures(desk: Desk, days: int, timezone: str) -> list[Figures]:
    """Approval fatigue in the last ``days``: by team, then by person."""
    owners = {name: service.owner for name, service in desk.catalogue.services.items()}
    members = {name: operator.team for name, operator in desk.operators.items() if operator.team}
    async with desk.pool.connection() as connection:
        since = desk.clock.now() - timedelta(days=days)
        rows = await store.figures(connection, owners, members, days, timezone, since)
    made = [Figures.model_validate(row | {"per_week": row["decisions"] / days * 7}) for row in rows]
    return sorted(made, key=lambda row: (row.of != "team", row.name))
