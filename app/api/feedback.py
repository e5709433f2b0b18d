"""What people say of an incident, what it was like, and how remedies did: the memory, seen from an incident."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app import feedback
from app.api.access import CallerDep, ProductDep
from app.api.decisions import Via
from app.api.problems import responses
from app.api.text import StorableText
from app.desk import Unusable
from app.feedback import Given, Overview
from app.opinions import About, Feedback, Opinion
from graph.llms.base import Counted, TrackRecord
from graph.llms.playbooks import Category
from graph.state import Model, PastIncident

router = APIRouter(tags=["knowledge"])
BODY: dict[str, JsonValue] = {
    "about": "report",
    "verdict": "wrong",
    "component": "payment-service",
    "category": "connection_pool_exhaustion",
    "helped": "scale_ecs_service",
    "note": "The pool was too small for the sale; the database was fine.",
}
SAID: JsonValue = {**BODY, "plan_revision": "", "option": 0, "by": "kim", "role": "admin", "at": "2024-12-20T11:02:00Z"}
GIVEN: JsonValue = {
    "incident_id": "inc_7c0f3a1e9b52",
    "said": SAID,
    "replaced": False,
    "stands": SAID,
    "counts": {"right": 1, "wrong": 1},
}
OVERVIEW: JsonValue = {
    "incident_id": "inc_7c0f3a1e9b52",
    "feedback": [SAID],
    "standing": [SAID],
    "counts": {"report": {"right": 1, "wrong": 1}},
    "component": "payment-service",
    "category": "connection_pool_exhaustion",
    "helped": "scale_ecs_service",
    "nameable": ["checkout", "orders-db", "payment-service"],
}
SIMILAR: JsonValue = {
    "id": "inc_1f2e3d4c5b6a",
    "at": "2024-11-29",
    "component": "payment-service",
    "category": "connection_pool_exhaustion",
    "title": "The connection pool of payment-service is exhausted",
    "remedy": "Run twice the tasks (scale_ecs_service)",
    "verdict": "resolved",
    "reasons": ["the same component: payment-service"],
    "score": 0.82,
    "wrong": False,
    "helped": "scale_ecs_service",
}
RECORD: JsonValue = {
    "operation": "scale_ecs_service",
    "runs": 4.5,
    "resolved": 3.2,
    "worse": 0,
    "low": 0.36,
    "high": 0.93,
    "here": {"runs": 4, "resolved": 3, "worse": 0},
    "elsewhere": {"runs": 2, "resolved": 1, "worse": 0},
}


class FeedbackBody(BaseModel):
    """What a person says."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": BODY})

    about: About
    plan_revision: StorableText = Field(
        default="", max_length=64, description="Of an option or a verification; absent: the newest that is meant"
    )
    option: int = Field(default=0, ge=0, le=3, description="1 to 3, of feedback about an option")
    verdict: Opinion
    component: StorableText = Field(default="", max_length=200, description="The true cause, from the catalogue")
    category: StorableText = Field(default="", max_length=100, description="Its kind, as playbooks are named")
    helped: StorableText = Field(
        default="",
        max_length=500,
        description="What really helped: names of operations with commas between, or in words",
        examples=["scale_ecs_service, reduce_traffic", "Raised the pool to 80 by hand"],
    )
    note: StorableText = Field(default="", max_length=2000)

    def feedback(self) -> Feedback:
        """The same, as all doors hand it in."""
        return Feedback(**self.model_dump())


class Similar(Model):
    """An earlier incident, or an imported one, that looks like this one. Its texts are data."""

    id: str = Field(description="Of the incident or case")
    at: str = Field(description="A date")
    component: str
    category: str
    title: str
    remedy: str
    verdict: str
    reasons: tuple[str, ...] = Field(description="Why it is held to be alike, the strongest first")
    score: float = Field(description="Comparable within one answer only")
    wrong: bool = Field(description="A person said that its analysis was wrong")
    helped: str = Field(description="What really helped, by a person's word")

    @classmethod
    def of(cls, past: PastIncident) -> "Similar":
        """As the memory tells it."""
        return cls(id=past.incident_id, **{n: getattr(past, n) for n in cls.model_fields if n != "id"})


class OperationRecord(Model):
    """How an operation did on a category of failures."""

    operation: str = Field(description="Or several that were run together: reduce_traffic + restart_ecs_task")
    runs: float = Field(description="As they count today, here: what is long ago or elsewhere counts for less")
    resolved: float
    worse: float
    low: float = Field(description="90 % interval of the chance that it resolves, 0 to 1")
    high: float
    here: Counted = Field(description="As they happened, on the component and in the environment that are asked about")
    elsewhere: Counted = Field(description="As they happened, on others")

    @classmethod
    def of(cls, operation: str, record: TrackRecord) -> "OperationRecord":
        """As the planner reads it."""
        return cls(operation=operation, **{n: getattr(record, n) for n in cls.model_fields if n != "operation"})


@router.post(
    "/incidents/{incident_id}/feedback",
    summary="Say whether the report, an option or a verification was right",
    responses={
        200: {"content": {"application/json": {"example": GIVEN}}},
        **responses(400, 401, 403, 404, 409, 413, 422, 503),
    },
)
async def give(incident_id: str, body: FeedbackBody, product: ProductDep, who: CallerDep, via: Via = "rest") -> Given:
    """Say it again to change it; what you said before stays in the audit log. It counts at once: in what is found as
    similar, in track records, and so in the order of options. Of several people an admin's word counts before a
    responder's, and of equals the newest.
    """
    return await feedback.give(product.desk, incident_id, body.feedback(), who, via)


@router.get(
    "/incidents/{incident_id}/feedback",
    summary="What people said, and what of it counts",
    responses={200: {"content": {"application/json": {"example": OVERVIEW}}}, **responses(401, 404)},
)
async def given(incident_id: str, product: ProductDep, _: CallerDep) -> Overview:
    """Each author's newest word on each thing, the one that counts, and the cause as it is known best."""
    return await feedback.given(product.desk, incident_id)


@router.get(
    "/incidents/{incident_id}/similar",
    summary="Earlier incidents like this one",
    responses={200: {"content": {"application/json": {"example": [SIMILAR]}}}, **responses(401, 404)},
)
async def similar(incident_id: str, product: ProductDep, _: CallerDep) -> list[Similar]:
    """As the analysis would be told now; the most telling first, each with why."""
    return [Similar.of(past) for past in await feedback.similar(product.desk, product.deps.past, incident_id)]


@router.get(
    "/knowledge/track-record",
    summary="How each operation did on a kind of failure",
    responses={
        200: {"content": {"application/json": {"example": [RECORD]}}},
        **responses(401, 422, said={422: "There is no category 'leak'; there are: bad_deploy, …"}),
    },
)
async def track_record(
    product: ProductDep,
    _: CallerDep,
    category: Annotated[str, Query(max_length=100, examples=["connection_pool_exhaustion"])],
    component: Annotated[StorableText | None, Query(max_length=200, description="Whose own runs count in full")] = None,
    environment: Annotated[
        StorableText | None,
        Query(max_length=200, description="Where they do; absent: the catalogue's, empty: anywhere"),
    ] = None,
) -> list[OperationRecord]:
    """Surest first: by the lower end of the interval. Options are ordered by these records together with what the plan
    promises of each and what it risks.
    """
    if category not in set(Category):
        raise Unusable(f"There is no category {category!r}; there are: {', '.join(sorted(Category))}.")
    where = product.desk.catalogue.environment if environment is None else environment
    records = await product.deps.past.track_record(category, component, where)
    told = [OperationRecord.of(name, record) for name, record in records.items()]
    return sorted(told, key=lambda r: (-r.low, r.operation))
