"""Clicks on our buttons in Slack: who clicked, what is decided, and what that person is told.

Deciding and telling are jobs of their own: a Slack that does not answer holds up no decision, and telling again decides
nothing again.
"""

import logging
from uuid import UUID

import httpx

from app.db import transaction
from app.decision_checks import Verdict
from app.decisions import Outcome, Withdrawn, decide, withdraw
from app.desk import Desk, UseCaseError
from app.intake._slack_text import escaped
from app.intake.base import Click, Incoming, UnreadablePayload
from app.intake.slack import NAME, Slack
from app.queue import enqueue_slack_answer
from app.security import Caller
from app.slack_texts import KOREAN_REASONS, TEXTS, Texts
from app.store import alerts, incidents
from app.store import decisions as store
from app.wiring import Product
from graph.state import Approval, Language

log = logging.getLogger(__name__)

ANSWERS_WITHIN = httpx.Timeout(5.0, connect=3.0)


class NotTold(Exception):
    """Slack did not take the answer; it is tried again."""


# --- decide ---


async def decide_click(product: Product, raw_id: UUID, *, again: bool = False, last_time: bool = False) -> None:
    """Decide what a stored click asks for, and enqueue the answer to who clicked.

    ``again``: an earlier try may have decided before it died. ``last_time``: tell of a fault instead of raising it.
    Raises whatever may pass.
    """
    click = await read_click(product, raw_id)
    if click is None:
        return
    language = await language_of(product.desk, click.incident_id)
    try:
        said = await _decide(product.desk, click, language, str(raw_id), again=again)
    except Exception as error:  # whatever it was: after so many tries, the person must hear that nobody decided
        if not last_time:
            raise
        log.exception("the click %s was not decided", raw_id)
        said = TEXTS[language]["fault"].format(type(error).__name__)
    text = f"{said}\n{link_to(product.desk, click.incident_id, TEXTS[language])}"
    async with transaction(product.pool) as connection:
        await enqueue_slack_answer(product.queue, connection, str(raw_id), text)


async def read_click(product: Product, raw_id: UUID) -> Click | None:
    """What was clicked, as the delivery that is stored says; None where it cannot be read any more."""
    async with product.pool.connection() as connection:
        row = await alerts.raw(connection, raw_id)
    if row is None:
        log.error("the click %s is not stored any more", raw_id)
        return None
    try:
        return slack_of(product).parse(Incoming(row["headers"], row["body"], row["part"]), product.directory).click
    except UnreadablePayload as error:  # stored by another version of ours
        log.error("the click %s cannot be read: %s", raw_id, error)
        return None


async def _decide(desk: Desk, click: Click, language: Language, request: str, *, again: bool) -> str:
    """What to tell. Raises whatever is no refusal."""
    caller, t = who_clicked(desk, click.user), TEXTS[language]
    if again and (stands := await _decided_before(desk, click, caller)):
        return _accepted(stands, t)
    try:
        if click.choice == "withdraw":
            taken = await withdraw(desk, click.incident_id, caller, "slack", click.plan_revision, request)
            return _taken_back(taken, t)
        verdict = Verdict(**click.model_dump(exclude={"user", "incident_id", "answer_to"}))
        return _accepted(await decide(desk, click.incident_id, verdict, caller, "slack"), t)
    except UseCaseError as error:
        if caller.name not in desk.operators:
            return t["stranger"].format(escaped(click.user))
        said = escaped(str(error))
        return t["refused"].format(f"{KOREAN_REASONS[error.reason]}\n> {said}" if language == "ko" else said)


def who_clicked(desk: Desk, user: str) -> Caller:
    """The operator who has this Slack id; else somebody who may look, so that what they tried is refused on record."""
    for name, operator in desk.operators.items():
        if user in operator.slack:
            return Caller(name, operator.role)
    return Caller(f"{NAME}:{user}", "viewer")


async def _decided_before(desk: Desk, click: Click, caller: Caller) -> Outcome | None:
    """What this click came to in a job whose worker died before it could say so."""
    async with desk.pool.connection() as connection:
        decided = await incidents.decisions(connection, click.incident_id)
        waiting = await store.approvals(connection, click.incident_id, click.plan_revision)
    asked = (click.plan_revision, click.choice)
    for row in decided:
        approvals = [Approval.model_validate(a) for a in row["approvals"]]
        if asked == (row["plan_revision"], row["choice"]) and caller.name in {row["by"], *(a.by for a in approvals)}:
            return Outcome(
                status="decided", choice=click.choice, by=row["by"], at=row["at"], approvals=tuple(approvals)
            )
    for row in waiting:
        if (row["by"], row["choice"]) == (caller.name, click.choice):
            return Outcome(status="waiting_for_approval", choice=click.choice, by=caller.name, at=row["at"], missing=1)
    return None


# --- what is told ---


async def language_of(desk: Desk, incident_id: str) -> Language:
    """Of the incident; of the installation, where there is no such incident."""
    async with desk.pool.connection() as connection:
        row = await incidents.get(connection, incident_id)
    found: Language = row["language"] if row else desk.settings.language
    return found


def _accepted(outcome: Outcome, t: Texts) -> str:
    if outcome.status == "waiting_for_approval":
        return t["waiting"].format(outcome.choice, outcome.missing)
    with_whom = [a.by for a in outcome.approvals if a.by != outcome.by]
    said = t["decided"].format(escaped(outcome.by), outcome.choice)
    return said + (t["too"].format(escaped(", ".join(with_whom))) if with_whom else "")


def _taken_back(taken: Withdrawn, t: Texts) -> str:
    return t[f"withdrew_{taken.what}"].format(escaped(taken.by), taken.choice)


def link_to(desk: Desk, incident_id: str, t: Texts) -> str:
    """The incident's page, in Slack's markup."""
    return f"<{desk.settings.incident_url(incident_id)}|{t['look']}>"


# --- tell ---


async def answer_click(product: Product, raw_id: UUID, text: str, *, last_time: bool) -> None:
    """Post the answer where only who clicked reads it. At least once: a worker may die after Slack took it.

    Raises NotTold: try again.
    """
    click = await read_click(product, raw_id)
    if click is None or not click.answer_to:
        return
    if not slack_of(product).may_answer(click.answer_to):
        log.warning(
            "the click %s is not answered: its response_url is not at AUTOPILOT_SLACK_RESPONSE_URL_BASE", raw_id
        )
        return
    try:
        await post_answer(click.answer_to, text)
    except NotTold as error:
        if not last_time:
            raise
        log.warning("the click %s is not answered: Slack %s", raw_id, error)


async def post_answer(address: str, text: str) -> None:
    """Tell only who clicked. Raises NotTold; no text of it holds the address, which is a secret."""
    message = {"response_type": "ephemeral", "replace_original": False, "text": text}
    try:
        async with httpx.AsyncClient(timeout=ANSWERS_WITHIN) as client:
            answer = await client.post(address, json=message)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NotTold(type(error).__name__) from None
    if not answer.is_success:
        raise NotTold(f"answers {answer.status_code}")


def slack_of(product: Product) -> Slack:
    """The sender."""
    sender = product.senders[NAME]
    assert isinstance(sender, Slack)
    return sender
