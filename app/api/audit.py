"""The audit log, for those who check it."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, JsonValue

from app import audit
from app.api.access import CallerDep, ProductDep
from app.api.problems import responses
from app.api.text import StorableText
from app.desk import require
from app.store import audit as store

router = APIRouter(tags=["audit"])
REFUSALS = responses(401, 403, said={403: "kim is responder; to read the audit log takes admin."})


class AuditRow(BaseModel):
    """One row, and how to check it without this product: `jq -j .text | sha256sum` prints its `hash`."""

    seq: int
    at: datetime | None
    kind: str
    actor: str
    incident_id: str | None
    body: JsonValue
    prev_hash: str = Field(description="Of the row before")
    hash: str
    text: str | None = Field(description="The same as a JSON array, whose sha256 is `hash`; null: the time was changed")


class AuditRows(BaseModel):
    """Rows in the order of their numbers."""

    rows: list[AuditRow]
    next_after: int | None = Field(description="Ask on with `after`; null: these were the last")


class AuditHead(BaseModel):
    """The last row. Written down elsewhere, `autopilot audit verify --head` proves that nothing before it changed."""

    seq: int
    hash: str
    key_id: str = Field(description="Of the key that signed it; `installation`: one that stands in the database")
    signature: str = Field(description="HMAC-SHA256 of `<seq>:<hash>`")


@router.get("/audit", summary="The audit log", responses=REFUSALS)
async def list_rows(
    product: ProductDep,
    who: CallerDep,
    after: Annotated[int, Query(ge=0, le=2**62, description="The number of the last row you have")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    incident: Annotated[StorableText | None, Query(max_length=100)] = None,
    kind: Annotated[StorableText | None, Query(max_length=40, examples=["decision"])] = None,
) -> AuditRows:
    """Oldest first. Needs the role admin."""
    require(who, "admin", "read the audit log")
    async with product.pool.connection() as connection:
        rows = await store.page(connection, after, limit, incident_id=incident, kind=kind)
    return AuditRows(
        rows=[AuditRow.model_validate(audit.line(row)) for row in rows],
        next_after=rows[-1]["seq"] if len(rows) == limit else None,
    )


@router.get("/audit/head", summary="The last row of the audit log", responses=REFUSALS)
async def get_head(product: ProductDep, who: CallerDep) -> AuditHead:
    """Needs the role admin."""
    require(who, "admin", "read the audit log")
    async with product.pool.connection() as connection:
        return AuditHead.model_validate(await store.head(connection))
