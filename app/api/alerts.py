"""Alerts and dead letters: list, replay, take apart, put together; silences."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, HTTPException, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from app import alerts, silences
from app.api.access import CallerDep, ProductDep
from app.api.paging import cursor, read_cursor
from app.api.problems import responses
from app.api.text import IsoTime, StorableText
from app.db import Row
from app.desk import require
from app.incidents import investigate_now
from app.intake import slack
from app.intake.base import UnreadablePayload
from app.store import alerts as store
from app.store import silences as silence_store

router = APIRouter(tags=["alerts"])

PREVIEW = 2000  # characters of a dead letter's body
# Slack sends its old verification token, and addresses at which whoever knows them may post, in every body: in JSON, in
# a form, and in JSON that is a field of a form. A preview may end within one.
SLACKS_SECRETS = re.compile(
    r"""(?P<json>"(?:token|response_url)"\s*:\s*")(?:[^"\\]|\\.)*"""
    r"""|(?P<encoded>%22(?:token|response_url)%22(?:\+|%20)*%3A(?:\+|%20)*%22)(?:(?!%22|&|%5C).|%5C(?:%..|[^%&]))*"""
    r"""|(?P<form>(?:^|&)(?:token|response_url)=)[^&]*""",
    re.IGNORECASE | re.DOTALL,
)


class AlertLine(BaseModel):
    """One alert, and where it went."""

    id: UUID
    incident_id: str | None = Field(description="Null for a recovery or reminder of an alert nobody told us of")
    transition: str
    fingerprint: str
    cycle_key: str
    merge_reason: str
    score: float | None
    received_at: datetime
    body: dict[str, JsonValue]


class AlertPage(BaseModel):
    """One page, newest first."""

    alerts: list[AlertLine]
    next_cursor: str | None


class DeadLetter(BaseModel):
    """A delivery of an authentic sender that could not be read."""

    id: UUID
    sender: str
    part: str
    received_at: datetime
    error: str = Field(examples=["no service: the payload has no service tag, and names none of the catalogue's"])
    preview: str = Field(description="The beginning of the body")


class DeadLetterPage(BaseModel):
    """One page, newest first."""

    dead_letters: list[DeadLetter]
    next_cursor: str | None


class Replayed(BaseModel):
    """What became of it now."""

    incident_id: str | None
    created: bool


class AlertIds(BaseModel):
    """Alerts of one incident; the whole alert cycle of each goes with it."""

    model_config = ConfigDict(extra="forbid")

    alert_ids: list[UUID] = Field(min_length=1, max_length=500)


class MoveBody(AlertIds):
    """Where they go."""

    to: StorableText = Field(max_length=100, examples=["inc_3f2a…"], description="An open incident")


class SplitOff(BaseModel):
    """The new incident."""

    incident_id: str


class SilenceBody(BaseModel):
    """A window in which matching alerts are stored and linked, but not investigated. What is null matches any; name a
    service, a rule or a fingerprint, or say `everything`.
    """

    model_config = ConfigDict(extra="forbid")

    starts_at: IsoTime | None = Field(default=None, description="Null: now")
    ends_at: IsoTime
    reason: StorableText = Field(min_length=1, max_length=300, examples=["database upgrade"])
    service: StorableText | None = Field(default=None, max_length=200)
    rule: StorableText | None = Field(default=None, max_length=300, examples=["datadog:monitor:141878267"])
    fingerprint: StorableText | None = Field(default=None, max_length=300)
    everything: bool = False

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if not (self.service or self.rule or self.fingerprint or self.everything):
            raise ValueError('name a service, a rule or a fingerprint; to silence all alerts, say "everything": true')
        return self


class SnoozeBody(BaseModel):
    """Silence what an incident's alerts watch."""

    model_config = ConfigDict(extra="forbid")

    minutes: int = Field(ge=1, le=60 * 24 * 30)
    reason: StorableText = Field(default="snoozed", min_length=1, max_length=300)


class SilenceLine(BaseModel):
    """One silence."""

    id: str
    service: str | None
    rule: str | None
    fingerprint: str | None
    starts_at: datetime
    ends_at: datetime
    reason: str
    created_by: str


@router.get("/alerts", summary="List alerts", responses=responses(401, 422))
async def list_alerts(
    product: ProductDep,
    _: CallerDep,
    incident_id: Annotated[StorableText | None, Query(max_length=100)] = None,
    unplaced: Annotated[bool, Query(description="Only those without an incident")] = False,
    fingerprint: Annotated[StorableText | None, Query(max_length=300)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: Annotated[str | None, Query(alias="cursor", max_length=300)] = None,
) -> AlertPage:
    """Every alert that was ever accepted, newest first, with its incident."""
    async with product.pool.connection() as connection:
        rows = await store.page(
            connection,
            limit + 1,
            _position(after),
            incident_id=incident_id,
            unplaced=unplaced,
            fingerprint=fingerprint,
        )
    return AlertPage(alerts=[AlertLine.model_validate(r) for r in rows[:limit]], next_cursor=_more(rows, limit))


@router.post(
    "/alerts/{alert_id}/replay", status_code=202, summary="Replay an alert", responses=responses(401, 403, 404)
)
async def replay_alert(alert_id: UUID, product: ProductDep, who: CallerDep) -> Replayed:
    """Take a stored alert for a new one, and investigate it again."""
    require(who, "responder", "replay an alert")
    outcome = await alerts.replay_alert(product.desk, alert_id)
    return Replayed(incident_id=outcome.incident_id, created=outcome.created)


@router.get("/dead-letters", summary="List what could not be read", responses=responses(401, 403, 422))
async def list_dead_letters(
    product: ProductDep,
    who: CallerDep,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(alias="cursor", max_length=300)] = None,
) -> DeadLetterPage:
    """Authentic, stored, and understood by nobody yet; newest first."""
    require(who, "responder", "read raw deliveries")
    async with product.pool.connection() as connection:
        rows = await store.dead_letters(connection, limit + 1, _position(after))
    letters = [
        DeadLetter(
            id=row["id"],
            sender=row["sender"],
            part=row["part"],
            received_at=row["received_at"],
            error=row["parse_error"],
            preview=_preview(row["sender"], bytes(row["body"])),
        )
        for row in rows[:limit]
    ]
    return DeadLetterPage(dead_letters=letters, next_cursor=_more(rows, limit))


@router.post(
    "/dead-letters/{delivery_id}/replay",
    status_code=202,
    summary="Read a dead letter again",
    responses=responses(401, 403, 404),
)
async def replay_dead_letter(delivery_id: UUID, product: ProductDep, who: CallerDep) -> Replayed:
    """After the parser or the catalogue was mended; 422 if it still cannot be read."""
    require(who, "responder", "replay a dead letter")
    try:
        outcome = await alerts.replay_dead_letter(product.desk, product.senders, product.directory, delivery_id)
    except UnreadablePayload as error:
        raise HTTPException(422, f"It still cannot be read: {error}") from None
    return Replayed(incident_id=outcome.incident_id, created=outcome.created)


@router.post(
    "/incidents/{incident_id}/split",
    status_code=202,
    summary="Take alerts out of an incident",
    responses=responses(400, 401, 403, 404, 413),
)
async def split_incident(incident_id: str, body: AlertIds, product: ProductDep, who: CallerDep) -> SplitOff:
    """They get an incident of their own, and are not merged with this one's other alerts again."""
    return SplitOff(incident_id=await alerts.split(product.desk, incident_id, body.alert_ids, who))


@router.post(
    "/incidents/{incident_id}/move",
    status_code=204,
    response_class=Response,
    summary="Give alerts of an incident to another",
    responses={204: {"description": "They are there"}, **responses(400, 401, 403, 404, 409, 413)},
)
async def move_alerts(incident_id: str, body: MoveBody, product: ProductDep, who: CallerDep) -> None:
    """An incident that has no alert left is closed."""
    await alerts.move(product.desk, incident_id, body.alert_ids, body.to, who)


@router.post(
    "/incidents/{incident_id}/investigate",
    status_code=204,
    response_class=Response,
    summary="Begin an investigation that waits",
    responses={204: {"description": "It begins"}, **responses(400, 401, 403, 404, 409, 413)},
)
async def investigate_incident(incident_id: str, product: ProductDep, who: CallerDep) -> None:
    """Whatever the budget or a silence says."""
    await investigate_now(product.desk, incident_id, who)


@router.post(
    "/incidents/{incident_id}/snooze",
    status_code=201,
    summary="Snooze an incident's alerts",
    responses=responses(400, 401, 403, 404, 413),
)
async def snooze_incident(incident_id: str, body: SnoozeBody, product: ProductDep, who: CallerDep) -> list[SilenceLine]:
    """One silence for each rule and resource of it."""
    made = await silences.snooze(product.desk, incident_id, timedelta(minutes=body.minutes), body.reason, who)
    return [SilenceLine.model_validate(row) for row in made]


@router.get("/silences", summary="List maintenance windows and snoozes", responses=responses(401))
async def list_silences(product: ProductDep, _: CallerDep) -> list[SilenceLine]:
    """Those in force and those to come."""
    async with product.pool.connection() as connection:
        rows = await silence_store.current(connection, product.clock.now())
    return [SilenceLine.model_validate(row) for row in rows]


@router.post("/silences", status_code=201, summary="Plan a maintenance window", responses=responses(400, 401, 403, 413))
async def create_silence(body: SilenceBody, product: ProductDep, who: CallerDep) -> SilenceLine:
    """Alerts that match are stored and linked; their investigation waits until the window is over."""
    wanted = body.model_dump(exclude={"everything"}) | {"starts_at": body.starts_at or product.clock.now()}
    row = await silences.create(product.desk, who, **wanted)
    return SilenceLine.model_validate(row)


@router.delete(
    "/silences/{silence_id}",
    status_code=204,
    response_class=Response,
    summary="End a silence now",
    responses={204: {"description": "It is over"}, **responses(401, 403, 404)},
)
async def end_silence(silence_id: str, product: ProductDep, who: CallerDep) -> None:
    """What waited for it is investigated, unless it recovered."""
    await silences.end(product.desk, silence_id, who)


def _preview(sender: str, body: bytes) -> str:
    text = body[:PREVIEW].decode("utf-8", "replace")
    return SLACKS_SECRETS.sub(lambda found: found[found.lastgroup or 0], text) if sender == slack.NAME else text


def _position(after: str | None) -> tuple[datetime, UUID] | None:
    if after is None:
        return None
    at, row_id = read_cursor(after)
    try:
        return at, UUID(row_id)
    except ValueError:
        raise HTTPException(422, "cursor is not one that this list gave out.") from None


def _more(rows: list[Row], limit: int) -> str | None:
    return cursor(rows[limit - 1]["received_at"], rows[limit - 1]["id"]) if len(rows) > limit else None
