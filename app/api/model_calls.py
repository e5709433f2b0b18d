"""What the model was asked for an incident, what it answered, and what that cost."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field, JsonValue

from app.api.access import CallerDep, ProductDep
from app.api.problems import responses
from app.db import Connection, Row
from app.desk import NotFound, require
from app.store import incidents, llm_calls

router = APIRouter(tags=["incidents"])


class ModelCall(BaseModel):
    """One call. Its cost is what it may be at most until it is known: ``reserved_…`` beside zero tokens."""

    id: UUID
    node: Literal["RootCauseAnalyzer", "ActionPlanner"]
    round: int
    at: datetime
    status: Literal["under_way", "answered", "failed"]
    model: str
    prompt_sha256: str = Field(description="Of messages, tools and schema: the same question has the same")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = Field(description="Of the prompt's, those read from the provider's cache")
    dollars: float = Field(description="At list price")
    reserved_tokens: int = Field(
        description="Counted where nobody knows what it cost: under way, timed out, broken off"
    )
    reserved_dollars: float
    estimated: bool = Field(description="The server does not tell tokens: these are ours")
    seconds: float | None
    finish_reason: str
    error: str


class ModelCalls(BaseModel):
    """All of an incident, oldest first, and what they may cost."""

    calls: list[ModelCall]
    tokens: int = Field(description="Used or reserved, of `tokens_per_incident`")
    dollars: float = Field(description="Spent or reserved, of `dollars_per_incident`")
    dollars_today: float = Field(description="By all incidents since 00:00 UTC, of `dollars_per_day`")
    tokens_per_incident: int
    dollars_per_incident: float
    dollars_per_day: float | None = Field(description="null: no limit")


class ModelCallTexts(ModelCall):
    """One call with its texts, as chat completions have them: masked, as they left."""

    messages: list[dict[str, JsonValue]]
    answer: dict[str, JsonValue] | None = Field(description="null: there was none")


@router.get(
    "/incidents/{incident_id}/model-calls", summary="What the model cost for an incident", responses=responses(401, 404)
)
async def list_model_calls(incident_id: str, product: ProductDep, _: CallerDep) -> ModelCalls:
    """Every call with its figures; none where the rules engine answered alone."""
    async with product.pool.connection() as connection:
        await _exists(connection, incident_id)
        rows = await llm_calls.page(connection, incident_id)
        spent = await llm_calls.spent(connection, incident_id)
    return ModelCalls(
        calls=[ModelCall.model_validate(_shown(row)) for row in rows],
        tokens=spent.incident_tokens,
        dollars=spent.incident_dollars,
        dollars_today=spent.day_dollars,
        tokens_per_incident=product.settings.model_tokens_per_incident,
        dollars_per_incident=product.settings.model_dollars_per_incident,
        dollars_per_day=product.settings.investigation_dollars_per_day,
    )


@router.get(
    "/incidents/{incident_id}/model-calls/{call_id}",
    summary="What the model was asked, and what it answered",
    responses=responses(401, 403, 404),
)
async def get_model_call(incident_id: str, call_id: UUID, product: ProductDep, who: CallerDep) -> ModelCallTexts:
    """Masked, as it left. Needs the role admin, as what is masked in evidence does."""
    require(who, "admin", "see what the model was asked")
    async with product.pool.connection() as connection:
        await _exists(connection, incident_id)
        row = await llm_calls.texts(connection, incident_id, str(call_id))
    if row is None:
        raise NotFound(f"{incident_id}/model-calls/{call_id}", "call")
    return ModelCallTexts.model_validate(_shown(row))


def _shown(row: Row) -> Row:
    status = "failed" if row["error"] else "answered" if row["finished_at"] else "under_way"
    return row | {"status": status}


async def _exists(connection: Connection, incident_id: str) -> None:
    if await incidents.get(connection, incident_id) is None:
        raise NotFound(incident_id)
