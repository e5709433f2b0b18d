"""The kill switch."""

from datetime import datetime
from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app import freezing
from app.api.access import CallerDep, ProductDep
from app.api.problems import responses
from app.api.text import StorableText
from app.db import Row
from app.store import freeze

router = APIRouter(tags=["freeze"])


class Freeze(BaseModel):
    """Whether anything may be run now, and who said that it may not."""

    frozen: bool
    said: str = Field(description="One sentence", examples=["kim froze all actions at 2026-01-01 09:20:00 UTC (drill)"])
    pulled_by: str | None = None
    pulled_at: datetime | None = None
    reason: str = ""
    lifted_by: str | None = None
    lifted_at: datetime | None = None

    @classmethod
    def of(cls, row: Row | None) -> Self:
        """As it stands, or as it was lifted."""
        if row is None:
            return cls(frozen=False, said="Nothing is frozen.")
        told = {k: row[k] for k in ("pulled_by", "pulled_at", "reason", "lifted_by", "lifted_at")}
        if row["lifted_at"]:
            return cls(frozen=False, said=f"{row['lifted_by']} lifted the freeze.", **told)
        return cls(frozen=True, said=freeze.said(row), **told)


class FreezeBody(BaseModel):
    """Why everything stops."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"reason": "a deploy went wrong"}})

    reason: StorableText = Field(default="", max_length=freezing.MAX_REASON)


@router.get("/freeze", summary="Is everything frozen?", responses=responses(401))
async def get_freeze(product: ProductDep, _: CallerDep) -> Freeze:
    """While it is, options are shown and nothing new is run."""
    async with product.pool.connection() as connection:
        return Freeze.of(await freeze.current(connection))


@router.post(
    "/freeze",
    summary="Stop all actions that have not begun",
    responses=responses(400, 401, 403, 413, said={403: "vera is viewer; to freeze all actions takes responder."}),
)
async def pull(body: FreezeBody, product: ProductDep, who: CallerDep) -> Freeze:
    """Needs the role responder. A step that was begun before runs to its end; pulled twice, the first one stands."""
    return Freeze.of(await freezing.pull(product.pool, product.clock, who, body.reason))


@router.delete(
    "/freeze",
    summary="Let actions be run again",
    responses=responses(
        401, 403, 409, said={403: "kim is responder; to lift the freeze takes admin.", 409: "Nothing is frozen."}
    ),
)
async def lift(product: ProductDep, who: CallerDep) -> Freeze:
    """Needs the role admin. What was refused meanwhile is not run by itself: it is planned and decided anew."""
    return Freeze.of(await freezing.lift(product.pool, product.clock, who))
