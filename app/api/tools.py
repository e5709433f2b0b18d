"""The operations that may run here."""

from fastapi import APIRouter
from pydantic import BaseModel, JsonValue

from app.api.access import CallerDep, ProductDep
from app.api.problems import responses

router = APIRouter(tags=["tools"])


class Tool(BaseModel):
    """One operation."""

    name: str
    summary: str
    risk: str
    read_only: bool
    reversible: bool
    minutes: float
    permissions: tuple[str, ...]
    approved_by: str
    params: dict[str, JsonValue]


@router.get("/tools", summary="Operations that are turned on", responses=responses(401))
async def list_tools(product: ProductDep, _: CallerDep) -> list[Tool]:
    """Each with its parameters' JSON schema, its risk, and the role that approves it."""
    return [
        Tool(
            name=o.name,
            summary=o.summary,
            risk=o.risk,
            read_only=o.read_only,
            reversible=o.reversible,
            minutes=o.minutes,
            permissions=o.permissions,
            approved_by=product.desk.policy.role_for(o.risk, o.name),
            params=o.params.model_json_schema(),
        )
        for _name, o in sorted(product.deps.operations.items())
    ]
