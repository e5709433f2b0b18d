"""The proposed actions, and the decision that resumes the paused graph."""

from datetime import datetime

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from app import incidents
from app.api.access import CallerDep, ProductDep
from app.api.incidents import load_report
from app.api.problems import responses
from app.api.text import StorableText
from graph.state import MAX_ROUNDS, ActionOption, Choice, Language, Plan

router = APIRouter(tags=["decisions"])


class Actions(BaseModel):
    """The options, exactly as a decision on this revision will run them."""

    incident_id: str
    status: str
    plan_revision: str | None = Field(description="Name it in your decision; null while none is awaited")
    options: tuple[ActionOption, ...]
    note: str = ""
    choices: tuple[Choice, ...] = Field(description="What this caller may choose now")


class DecisionBody(BaseModel):
    """What a person decides."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"plan_revision": "3f0c8e2b91a74d65", "choice": "1"}},
    )

    plan_revision: StorableText = Field(max_length=64, description="From GET …/actions: the plan you saw")
    choice: Choice
    hint: StorableText = Field(
        default="",
        max_length=2000,
        description="For re_analyze, in English or Korean: where to look or where not, since when, and for which words",
        examples=['Not payment-service. Since 08:40: look for "too many clients" in orders-db'],
    )
    note: StorableText = Field(default="", max_length=2000)
    language: Language | None = Field(
        default=None, description="For re_analyze: what the next analysis is written in; absent: as before"
    )


class Decided(BaseModel):
    """The decision is stored; the graph goes on."""

    incident_id: str
    choice: Choice
    by: str
    at: datetime


@router.get("/incidents/{incident_id}/actions", summary="The proposed actions", responses=responses(401, 404))
async def get_actions(incident_id: str, product: ProductDep, who: CallerDep) -> Actions:
    """At most three options, each with steps, parameters, preview, risk and expected effects."""
    report = await load_report(product, incident_id)
    choices: list[Choice] = []
    if report.plan_revision and who.may("responder"):
        plan = Plan(revision=report.plan_revision, options=report.options)
        possible: list[Choice] = ["1", "2", "3"]
        choices = [
            choice
            for choice, option in zip(possible, report.options, strict=False)
            if not any(s.infeasible for s in option.steps)
            and who.may(incidents.required_role(product.desk, plan, choice))
        ]
        choices.append("manual")
        if report.round < MAX_ROUNDS:
            choices.append("re_analyze")
    return Actions(
        incident_id=incident_id,
        status=report.status,
        plan_revision=report.plan_revision,
        options=report.options,
        note=report.plan_note,
        choices=tuple(choices),
    )


@router.post(
    "/incidents/{incident_id}/decision",
    status_code=202,
    summary="Decide: 1, 2, 3, manual or re_analyze",
    responses=responses(400, 401, 403, 404, 409, 413, 422, 503),
)
async def decide(
    incident_id: str, body: DecisionBody, product: ProductDep, who: CallerDep, response: Response
) -> Decided:
    """The first decision on a plan wins; late, double and stale ones get 409 with the winner named."""
    decision = await incidents.decide(
        product.desk,
        incident_id,
        body.plan_revision,
        body.choice,
        who,
        hint=body.hint,
        note=body.note,
        language=body.language,
    )
    response.headers["Location"] = f"/incidents/{incident_id}"
    return Decided(incident_id=incident_id, choice=decision.choice, by=decision.by, at=decision.at)
