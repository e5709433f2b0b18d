"""The proposed actions, the decision that resumes the paused graph, and what people do around it."""

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import available_timezones

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Response
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app import decisions
from app.api.access import CallerDep, ProductDep, bearer, caller, cookie
from app.api.problems import responses
from app.api.text import StorableText
from app.decision_checks import Verdict
from app.decisions import Figures, Offers, Outcome, Withdrawn
from app.security import Caller
from app.wiring import Product
from graph.state import Choice, Door, Language

router = APIRouter(tags=["decisions"])
OUTCOME: JsonValue = {
    "status": "waiting_for_approval",
    "choice": "2",
    "by": "kim",
    "at": "2024-12-20T09:21:00Z",
    "approvals": [{"by": "kim", "role": "admin", "via": "rest", "at": "2024-12-20T09:21:00Z"}],
    "missing": 1,
    "decision": None,
}
FIGURES: JsonValue = {
    "of": "team",
    "name": "payments",
    "decisions": 12,
    "per_week": 2.8,
    "median_s": 74.0,
    "p90_s": 310.0,
    "under_10s": 0.08,
    "without_evidence": 0.25,
    "approved": 0.75,
    "at_night": 0.17,
    "refusals": 2,
}


def _shown(example: JsonValue) -> dict[str, object]:
    return {"content": {"application/json": {"example": example}}}


class DecisionBody(BaseModel):
    """What a person decides."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"plan_revision": "3f0c8e2b91a74d65", "choice": "1"}},
    )

    plan_revision: StorableText = Field(max_length=64, description="From GET …/actions: the plan you saw")
    choice: Choice
    steps: tuple[int, ...] = Field(
        default=(), max_length=50, description="Of the option only these, by number; absent: all", examples=[[1]]
    )
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

    def verdict(self) -> Verdict:
        """The same, as all doors hand it in."""
        return Verdict(**self.model_dump())


class UndoBody(BaseModel):
    """Put back what the last option changed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"plan_revision": "3f0c8e2b91a74d65"}})

    plan_revision: StorableText = Field(max_length=64, description="From GET …/actions: the plan that waits now")
    note: StorableText = Field(default="", max_length=2000)


class NoteBody(BaseModel):
    """What was done by hand."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"text": "Raised the pool to 80 in the console of RDS."}}
    )

    text: StorableText = Field(min_length=1, max_length=4000)


class Noted(BaseModel):
    """It is in the timeline."""

    incident_id: str
    by: str
    at: datetime


Via = Annotated[
    Literal["rest", "cli"],
    Header(alias="X-AIOps-Via", description="What the record calls this door. A label: it proves and permits nothing"),
]


async def decider(
    incident_id: str,
    product: ProductDep,
    key: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
    session: Annotated[str | None, Depends(cookie)] = None,
    via: Via = "rest",
) -> Caller:
    """The authenticated caller; who is none is recorded, and gets 401."""
    try:
        return await caller(product, key, session)
    except HTTPException:
        await decisions.refuse_stranger(product.desk, incident_id, via)
        raise


DeciderDep = Annotated[Caller, Depends(decider)]


@router.get("/incidents/{incident_id}/actions", summary="The proposed actions", responses=responses(401, 404))
async def get_actions(incident_id: str, product: ProductDep, who: CallerDep, via: Via = "rest") -> Offers:
    """At most three options, each with steps, parameters, preview, risk and expected effects; what this caller may
    choose and what stands in the way of the rest; until when; whose approval waits. That you were shown it is recorded.
    """
    return await decisions.actions_for(product.desk, incident_id, who, via)


@router.post(
    "/incidents/{incident_id}/decision",
    status_code=202,
    summary="Decide: 1, 2, 3, manual, re_analyze, re_plan or undo",
    responses={202: _shown(OUTCOME), **responses(400, 401, 403, 404, 409, 413, 422, 503)},
)
async def decide(
    incident_id: str,
    body: DecisionBody,
    product: ProductDep,
    who: DeciderDep,
    response: Response,
    via: Via = "rest",
) -> Outcome:
    """The first complete decision on a plan wins; late, double and stale ones get 409 with the winner named. Where the
    policy asks for more people, `status` is `waiting_for_approval` until the last of them chose the same. Each refusal
    has a `reason`, and is recorded.
    """
    return await _decided(product, incident_id, body.verdict(), who, via, response)


@router.delete(
    "/incidents/{incident_id}/decision",
    summary="Withdraw a decision, or an approval that waits",
    responses=responses(
        401, 403, 404, 409, said={409: "It has begun: what was claimed runs to its end. Once it ended, choose undo."}
    ),
)
async def withdraw(incident_id: str, product: ProductDep, who: DeciderDep, via: Via = "rest") -> Withdrawn:
    """By whoever gave it, or an admin, before anything of it was begun. Nothing of it runs; a new plan is made."""
    return await decisions.withdraw(product.desk, incident_id, who, via)


@router.post(
    "/incidents/{incident_id}/undo",
    status_code=202,
    summary="Put back what the last option changed",
    responses=responses(
        400, 401, 403, 404, 409, 413, 422, 503, said={422: "There is nothing to undo: no change is in place."}
    ),
)
async def undo(
    incident_id: str,
    body: UndoBody,
    product: ProductDep,
    who: DeciderDep,
    response: Response,
    via: Via = "rest",
) -> Outcome:
    """The same as the choice `undo`; what cannot be put back stays, and is named."""
    verdict = Verdict(plan_revision=body.plan_revision, choice="undo", note=body.note)
    return await _decided(product, incident_id, verdict, who, via, response)


async def _decided(
    product: Product, incident_id: str, verdict: Verdict, who: Caller, via: Door, response: Response
) -> Outcome:
    outcome = await decisions.decide(product.desk, incident_id, verdict, who, via)
    response.headers["Location"] = f"/incidents/{incident_id}"
    return outcome


@router.post(
    "/incidents/{incident_id}/notes",
    status_code=201,
    summary="Note what was done by hand",
    responses=responses(400, 401, 403, 404, 413, 422, 503),
)
async def note(incident_id: str, body: NoteBody, product: ProductDep, who: CallerDep, via: Via = "rest") -> Noted:
    """Into timeline and audit log; also after the incident was closed."""
    at = await decisions.note(product.desk, incident_id, who, body.text, via)
    return Noted(incident_id=incident_id, by=who.name, at=at)


@router.get(
    "/decisions/figures",
    summary="Approval fatigue: how teams and people decide",
    responses={200: _shown([FIGURES]), **responses(401, 422, said={422: "There is no time zone 'Seoul'."})},
)
async def get_figures(
    product: ProductDep,
    _: CallerDep,
    days: Annotated[int, Query(ge=1, le=365, description="So far back")] = 28,
    timezone: Annotated[str, Query(max_length=60, description="Of `at_night`", examples=["Asia/Seoul"])] = "UTC",
) -> list[Figures]:
    """By team (the person's, else the catalogue's owner of the service), then by person. Decisions that take seconds,
    or that nobody looked at evidence for, are what precedes an accident.
    """
    if timezone not in available_timezones():
        raise HTTPException(422, f"There is no time zone {timezone!r}; write e.g. Asia/Seoul.")
    return await decisions.figures(product.desk, days, timezone)
