"""Who was told of an incident, why, and what became of it."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.access import CallerDep, ProductDep
from app.api.problems import responses
from app.db import Row
from app.desk import NotFound
from app.store import incidents, outbox

router = APIRouter(tags=["incidents"])

MessageStatus = Literal["held", "waiting", "sending", "sent", "failed"]


class Message(BaseModel):
    """One event for one target."""

    id: UUID = Field(description="Our idempotency key at the other side: `webhook-id`, or in the message's metadata")
    event_id: int = Field(description="Of the timeline")
    kind: str = Field(description="Of the event")
    message: str = Field(description="Of the event")
    notifier: str
    target: str = Field(description="A Slack channel, a team's Jira project, the name of a PagerDuty key, …")
    team: str = Field(description="Whose target it is; empty: nobody's")
    why: str = Field(description="Why they hear of it")
    status: MessageStatus = Field(
        description="held: until quiet hours are over, or a recovery has lasted; waiting: for its turn, or its next"
        " attempt; sending: under way (or broken off, if that lasts); failed: it will not arrive, `detail` says why and"
        " what to do"
    )
    written_at: datetime
    due_at: datetime | None = Field(description="When it is tried next; null: not any more, or under way")
    attempts: int
    sent_at: datetime | None
    failed_at: datetime | None
    detail: str = Field(description="What the other side said last")


class Messages(BaseModel):
    """The newest 500 of an incident, oldest first."""

    messages: list[Message]


@router.get("/incidents/{incident_id}/messages", summary="Who was told, and why", responses=responses(401, 404))
async def list_messages(incident_id: str, product: ProductDep, _: CallerDep) -> Messages:
    """What was sent to whom and why, what waits, and what failed with the reason."""
    async with product.pool.connection() as connection:
        if await incidents.get(connection, incident_id) is None:
            raise NotFound(incident_id)
        rows = await outbox.page(connection, incident_id)
    return Messages(messages=[Message.model_validate(shown(row)) for row in rows])


def shown(row: Row) -> Row:
    """A row of ``store.outbox.page`` with its status."""
    status = _status(row)
    return row | {"status": status, "due_at": row["due_at"] if status in ("held", "waiting") else None}


def _status(row: Row) -> MessageStatus:
    if row["sent_at"]:
        return "sent"
    if row["failed_at"]:
        return "failed"
    if row["under_way"]:
        return "sending"
    return "held" if row["held"] else "waiting"
