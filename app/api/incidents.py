"""Incidents: open, list, read, follow."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Literal, get_args
from uuid import UUID, uuid4

from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from sse_starlette import EventSourceResponse, ServerSentEvent

from app import report
from app.api.access import CallerDep, ProductDep
from app.api.examples import REPORT
from app.api.language import preferred
from app.api.paging import cursor, read_cursor
from app.api.problems import responses
from app.api.text import IsoTime, StorableText
from app.db import Connection, Row
from app.decisions import shown
from app.desk import NotFound
from app.incidents import open_by_hand
from app.intake.base import OLDEST
from app.report_markdown import markdown
from app.store import incidents as store
from app.store import ledger
from app.stored_report import load_report
from app.unmask import originals
from app.wiring import Product
from graph.state import Alert, Finding, Language, Severity

router = APIRouter(tags=["incidents"])

POLL_S = 0.3
LINKED = ("events", "report", "evidence", "actions", "executions", "model-calls", "messages")
EVENT_ID = re.compile(r"[0-9]{1,18}")


class OpenIncident(BaseModel):
    """A service and the time its trouble showed."""

    model_config = ConfigDict(extra="forbid")

    service: StorableText = Field(min_length=1, max_length=200, examples=["payment-service"])
    occurred_at: IsoTime = Field(examples=["2024-12-20T09:15:00Z"])
    title: StorableText = Field(default="", max_length=500)
    severity: Severity = "critical"
    language: Language | None = Field(
        default=None, description="What its report is written in; absent: AUTOPILOT_LANGUAGE", examples=["ko"]
    )


class OpenedIncident(BaseModel):
    """Where to follow it."""

    incident_id: str
    created: bool = Field(description="False if this key, or this service and time, has an open incident already")


class IncidentSummary(BaseModel):
    """One line of the list."""

    id: str
    service: str
    title: str
    severity: str
    source: str
    environment: str
    occurred_at: datetime
    status: str
    status_reason: str
    round: int
    opened_by: str
    opened_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    flaps: int = Field(description="How often its alerts came back after a recovery")
    follows: str | None = Field(description="The incident that the same alert had before")
    admitted_at: datetime | None = Field(description="When its investigation could begin; null while it waits")
    held_until: datetime | None = Field(description="While a silence holds it")
    language: Language = Field(description="What its report is written in")


class IncidentPage(BaseModel):
    """One page, newest first."""

    incidents: list[IncidentSummary]
    next_cursor: str | None = Field(description="Send as `cursor` for the next page; null on the last one")


class AlertSeen(BaseModel):
    """One alert of an incident."""

    id: UUID
    transition: str
    merge_reason: str
    score: float | None = Field(default=None, description="How well it fits, where it was merged; 0 to 1")
    received_at: datetime
    body: dict[str, JsonValue]


class IncidentDetail(IncidentSummary):
    """Status, alerts, timeline and where the rest is."""

    alerts: list[AlertSeen]
    timeline: list[report.TimelineEntry]
    links: dict[str, str]


class LedgerStep(BaseModel):
    """One claimed step, as the ledger has it."""

    plan_revision: str
    ordinal: int
    undo: bool
    operation: str
    params: dict[str, JsonValue]
    resource: str
    before: dict[str, JsonValue]
    attempt: int
    claimed_at: datetime
    finished_at: datetime | None
    result: dict[str, JsonValue] | None


class Executions(BaseModel):
    """What was done, and what came of it."""

    steps: list[LedgerStep]
    executions: list[dict[str, JsonValue]]


@router.post(
    "/incidents",
    status_code=202,
    summary="Start a root-cause analysis by hand",
    responses=responses(400, 401, 403, 413, 422, 503),
)
async def open_incident(
    body: OpenIncident,
    product: ProductDep,
    who: CallerDep,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same key opens one incident")
    ] = None,
) -> OpenedIncident:
    """Needs the role responder. The service must be in the catalogue."""
    if body.occurred_at > product.clock.now():
        raise HTTPException(422, f"occurred_at is in the future: it is {product.clock.now():%Y-%m-%dT%H:%M:%SZ} now.")
    if body.occurred_at.year < 2 or body.occurred_at < product.clock.now() - OLDEST:
        raise HTTPException(422, "occurred_at is more than ten years ago: no source keeps telemetry for so long.")
    key = f"rest:{body.service}:{body.occurred_at.isoformat()}"
    alert = Alert(
        source="rest",
        title=body.title or f"{body.service}: investigation asked for",
        severity=body.severity,
        service=body.service,
        occurred_at=body.occurred_at,
        fingerprint=key,
        cycle_key=key if not idempotency_key else f"{key}:{uuid4()}",
    )
    scoped = f"{who.name}:{idempotency_key}" if idempotency_key else None
    opened = await open_by_hand(product.desk, alert, who, scoped, body.language)
    assert opened.incident_id is not None
    return OpenedIncident(incident_id=opened.incident_id, created=opened.created)


@router.get("/incidents", summary="List incidents", responses=responses(401, 422))
async def list_incidents(
    product: ProductDep,
    _: CallerDep,
    status: Annotated[str | None, Query(examples=["awaiting_decision"])] = None,
    service: str | None = None,
    severity: Severity | None = None,
    source: str | None = None,
    text: Annotated[str | None, Query(description="In title or service", max_length=200)] = None,
    since: Annotated[IsoTime | None, Query(alias="from")] = None,
    until: Annotated[IsoTime | None, Query(alias="to")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(alias="cursor", max_length=300)] = None,
) -> IncidentPage:
    """Newest first."""
    wanted = store.Filter(status, service, severity, source, text, since, until)
    async with product.pool.connection() as connection:
        rows = await store.page(connection, wanted, limit + 1, read_cursor(after) if after else None)
    page = rows[:limit]
    more = cursor(page[-1]["opened_at"], page[-1]["id"]) if len(rows) > limit else None
    return IncidentPage(incidents=[IncidentSummary.model_validate(r) for r in page], next_cursor=more)


@router.get("/incidents/{incident_id}", summary="One incident", responses=responses(401, 404))
async def get_incident(incident_id: str, product: ProductDep, _: CallerDep) -> IncidentDetail:
    """Status, alerts, timeline, links."""
    async with product.pool.connection() as connection:
        row = await _row(connection, incident_id)
        alerts, events = await store.alerts(connection, incident_id), await store.events(connection, incident_id)
    here = f"/incidents/{incident_id}"
    return IncidentDetail.model_validate(
        {k: row[k] for k in IncidentSummary.model_fields}
        | {
            "alerts": alerts,
            "timeline": events,
            "links": {name: f"{here}/{name}" for name in LINKED} | {"topology": f"{here}/pictures/topology.svg"},
        }
    )


@router.get(
    "/incidents/{incident_id}/events",
    summary="Follow an incident (server-sent events)",
    responses={200: {"content": {"text/event-stream": {}}}, **responses(401, 404)},
    response_class=EventSourceResponse,
)
async def follow_incident(
    incident_id: str,
    request: Request,
    product: ProductDep,
    _: CallerDep,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """The timeline from the start, or after `Last-Event-ID`, then live. Ends when the incident is closed."""
    async with product.pool.connection() as connection:
        await _row(connection, incident_id)
    after = int(last_event_id) if last_event_id and EVENT_ID.fullmatch(last_event_id) else 0
    return EventSourceResponse(_events(request, product, incident_id, after), ping=15)


async def _events(request: Request, product: Product, incident_id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    while not await request.is_disconnected():
        async with product.pool.connection() as connection:
            row = await store.get(connection, incident_id)
            rows = await store.events(connection, incident_id, after)
        for event in rows:
            after = event["id"]
            data = {"at": event["at"].isoformat(), **{k: event[k] for k in ("kind", "node", "message", "data")}}
            yield ServerSentEvent(json.dumps(data, ensure_ascii=False), event=event["kind"], id=str(after))
        if not rows:
            if row is None or row["status"] in store.CLOSED:
                return
            await asyncio.sleep(POLL_S)


@router.get(
    "/incidents/{incident_id}/report",
    summary="The root-cause report",
    response_model=report.Report,
    responses={
        200: {
            "content": {"application/json": {"example": REPORT}, "text/markdown": {"schema": {"type": "string"}}},
            "headers": {"Content-Language": {"schema": {"type": "string", "enum": list(get_args(Language))}}},
        },
        **responses(401, 404, 422, said={422: "query.language: Input should be 'en' or 'ko'"}),
    },
)
async def get_report(
    incident_id: str,
    product: ProductDep,
    who: CallerDep,
    accept: Annotated[str, Header()] = "application/json",
    format_: Annotated[Literal["json", "markdown"] | None, Query(alias="format")] = None,
    pictures: Annotated[Literal["embedded", "links"], Query(description="Of the markdown")] = "embedded",
    language: Annotated[Language | None, Query(description="Absent: by Accept-Language, else the incident's")] = None,
    accept_language: Annotated[str, Header(examples=["ko-KR, en;q=0.5"])] = "",
) -> Response:
    """JSON, or markdown with `Accept: text/markdown` or `?format=markdown`: with its pictures as data, or as links.

    Labels, and what the rules engine wrote, are in the language asked for. What a model wrote stays as it is, and
    `root_cause.language` says what that is.
    """
    built = await load_report(product.pool, incident_id, language or preferred(accept_language))
    await shown(product.desk, incident_id, who, "report")
    headers = {"Content-Language": built.language, "Vary": "Accept, Accept-Language"}
    if format_ == "markdown" or (format_ is None and "text/markdown" in accept):
        text = markdown(built, embed=pictures == "embedded", address=product.settings.public_url)
        return PlainTextResponse(text, media_type="text/markdown; charset=utf-8", headers=headers)
    return JSONResponse(built.model_dump(mode="json", by_alias=True), headers=headers)


@router.get("/incidents/{incident_id}/evidence", summary="All evidence", responses=responses(401, 404))
async def get_evidence(incident_id: str, product: ProductDep, _: CallerDep) -> list[Finding]:
    """E1 … En of the last round."""
    return list((await load_report(product.pool, incident_id)).evidence)


@router.get("/incidents/{incident_id}/evidence/{eid}", summary="One piece of evidence", responses=responses(401, 404))
async def get_finding(incident_id: str, eid: str, product: ProductDep, who: CallerDep) -> Finding:
    """One finding by its id."""
    finding = _finding(await load_report(product.pool, incident_id), eid)
    await shown(product.desk, incident_id, who, f"evidence:{finding.id}")
    return finding


def _finding(built: report.Report, eid: str) -> Finding:
    """Raises HTTPException."""
    for finding in built.evidence:
        if finding.id == eid:
            return finding
    raise HTTPException(404, f"Incident {built.incident_id} has no evidence {eid!r}.")


@router.get(
    "/incidents/{incident_id}/evidence/{eid}/originals",
    summary="What is masked in a piece of evidence",
    responses=responses(401, 403, 404),
)
async def get_originals(incident_id: str, eid: str, product: ProductDep, who: CallerDep) -> dict[str, str]:
    """By placeholder, e.g. `[email:c3fa9c0d]`, as far as the stored telemetry has it. Needs the role admin; who asked
    is in the timeline.
    """
    return await originals(product.desk, product.deps.masker, incident_id, eid, who)


PICTURE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}
SVG: dict[int | str, dict[str, object]] = {200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}}}
LanguageQuery = Annotated[Language, Query(description="Of the labels")]


@router.get(
    "/incidents/{incident_id}/pictures/topology.svg",
    summary="The topology around an incident as a picture",
    response_class=Response,
    responses={
        **SVG,
        **responses(401, 404, said={404: "Nothing is known yet of who calls whom around incident inc_0."}),
    },
)
async def get_topology_picture(
    incident_id: str, product: ProductDep, _: CallerDep, lang: LanguageQuery = "en"
) -> Response:
    """SVG: who calls whom, suspects, and the causal path in the direction of the failure, with its checks."""
    drawn = report.topology(await load_report(product.pool, incident_id), language=lang)
    if not drawn:
        raise HTTPException(404, f"Nothing is known yet of who calls whom around incident {incident_id}.")
    return Response(drawn, media_type="image/svg+xml", headers=PICTURE_HEADERS)


@router.get(
    "/incidents/{incident_id}/pictures/{eid}.svg",
    summary="A piece of evidence as a chart",
    response_class=Response,
    responses={
        **SVG,
        **responses(401, 404, said={404: "Evidence E2 of incident inc_0 has no values over time to draw."}),
    },
)
async def get_chart(
    incident_id: str, eid: str, product: ProductDep, _: CallerDep, lang: LanguageQuery = "en"
) -> Response:
    """SVG: the values over time, what is usual, the incident, the onset, and the changes around it."""
    built = await load_report(product.pool, incident_id)
    drawn = report.chart(built, _finding(built, eid), language=lang)
    if not drawn:
        raise HTTPException(404, f"Evidence {eid} of incident {incident_id} has no values over time to draw.")
    return Response(drawn, media_type="image/svg+xml", headers=PICTURE_HEADERS)


@router.get("/incidents/{incident_id}/executions", summary="What was executed", responses=responses(401, 404))
async def get_executions(incident_id: str, product: ProductDep, _: CallerDep) -> Executions:
    """The ledger's steps as they are now, and every finished execution with its verification."""
    async with product.pool.connection() as connection:
        await _row(connection, incident_id)
        steps = await ledger.steps(connection, incident_id)
        done = await store.executions(connection, incident_id)
    return Executions(steps=[LedgerStep.model_validate(s) for s in steps], executions=[e["body"] for e in done])


async def _row(connection: Connection, incident_id: str) -> Row:
    row = await store.get(connection, incident_id)
    if row is None:
        raise NotFound(incident_id)
    return row
