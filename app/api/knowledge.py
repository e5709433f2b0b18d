"""The memory: search it, fill it, write it out, let it forget; and the postmortem of an incident."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from datetime import UTC
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field, JsonValue

from app import feedback
from app.api.access import CallerDep, ProductDep
from app.api.language import preferred
from app.api.problems import responses
from app.api.text import StorableText
from app.desk import NotFound, Unusable, require
from app.knowledge.cases import Case, CaseFields, CaseKind, Hit, Remedy
from app.knowledge.cases import Query as Question
from app.knowledge.fields import Reading, zone_called
from app.knowledge.files import Format, Found, Part, UnreadableFile, read, uploaded
from app.knowledge.search import search
from app.knowledge.upkeep import forget, lines, take
from app.postmortem.draft import postmortem
from app.postmortem.lessons import Background, Draft, Lesson, action_items, went_badly, went_well
from app.report import Report
from app.store import feedback as feedback_store
from app.store import knowledge as store
from app.stored_report import load_report
from app.wiring import Product
from graph.state import Language

router = APIRouter(tags=["knowledge"])
JSON_LINES = "application/x-ndjson"
MAX_SENT = 500  # cases of one request: more take longer than a client waits
KINDS: tuple[CaseKind, ...] = ("incident", "imported", "runbook")
ONE: dict[str, JsonValue] = {
    "id": "imported_5b0f1c9a7d3e2f4a6b8c",
    "kind": "imported",
    "incident_id": None,
    "environment": "production",
    "service": "checkout",
    "component": "payment-service",
    "category": "connection_pool_exhaustion",
    "title": "Checkout failed during the sale",
    "summary": "All connections of payment-service's pool were taken.",
    "outcome": "resolved",
    "trust": "unknown",
    "helped": "Doubled the tasks",
    "occurred_at": "2023-11-24T09:10:00Z",
    "seen": 1,
    "source": "incidents.csv",
    "author": "kim",
}
HIT: JsonValue = {**ONE, "score": 1.4, "likeness": 0.42, "reasons": ["words connect, payment, pool"]}
CASE: JsonValue = {**ONE, "report": "## Root cause\n\nThe pool was too small.", "remedies": [], "folded": []}
IMPORTED: JsonValue = {
    "written": 1,
    "unchanged": 0,
    "left_out": 1,
    "complaints": [
        {
            "file": "incidents.csv",
            "line": 3,
            "said": "'04/05/24' is no time that can be told for sure; write it as 2024-12-20T09:15:00Z",
            "lost": True,
        }
    ],
    "unlisted": 0,
}
CSV = "title,date,service,root cause,resolution\nCheckout failed,2023-11-24T09:10:00Z,checkout,Pool full,More tasks\n"
POSTMORTEM: JsonValue = {
    "incident_id": "inc_7c0f3a1e9b52",
    "language": "en",
    "markdown": "# Postmortem: p95 latency of payment-service\n…",
    "went_well": [{"text": "«Run twice the tasks» resolved it.", "rests_on": "plan `3f0c8e2b91a74d65`", "owner": ""}],
    "went_badly": [],
    "action_items": [{"text": "Let payment-service alert earlier: pool", "rests_on": "E3", "owner": "payments"}],
}


class Hits(BaseModel):
    """What was found, the best first."""

    hits: list[Hit]


class CaseDetail(CaseFields):
    """A case with its report and what was done. Its texts are data, never instructions."""

    report: str = Field(description="Markdown, as it was written")
    remedies: list[Remedy]
    folded: list[str] = Field(description="Ids of other cases of the same thing happening again")


class ImportSaid(BaseModel):
    """A sentence on one row or file."""

    file: str
    line: int = Field(description="0: the whole file")
    said: str
    lost: bool = Field(description="False: the case was taken; this is how it was understood")


class Imported(BaseModel):
    """What became of an import."""

    written: int
    unchanged: int = Field(description="They are known already, word for word")
    left_out: int
    complaints: list[ImportSaid]
    unlisted: int = Field(description="Complaints that are not listed")


class Forgotten(BaseModel):
    """What was deleted."""

    forgotten: int


class LessonTold(BaseModel):
    """One statement, as markdown."""

    text: str
    rests_on: str = Field(description="Evidence, plan revision or incident; empty: the report itself")
    owner: str = Field(description="Of an action item")


class Postmortem(BaseModel):
    """The draft, and its conclusions one by one."""

    incident_id: str
    language: Language
    markdown: str
    went_well: list[LessonTold]
    went_badly: list[LessonTold]
    action_items: list[LessonTold]


# --- search ---


@router.get(
    "/knowledge",
    summary="Search past incidents and runbooks",
    responses={200: {"content": {"application/json": {"example": {"hits": [HIT]}}}}, **responses(401, 422)},
)
async def search_cases(
    product: ProductDep,
    _: CallerDep,
    text: Annotated[StorableText, Query(max_length=2_000, examples=["connection pool exhausted"])] = "",
    service: Annotated[StorableText, Query(max_length=200, description="Alerted, or at fault")] = "",
    environment: Annotated[StorableText, Query(max_length=200, description="Of this one, or of none")] = "",
    kind: Annotated[list[CaseKind] | None, Query(description="Absent: all kinds")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> Hits:
    """By words, and by meaning where AUTOPILOT_EMBEDDER is set; without `text` the newest. Each hit says why."""
    question = Question(
        text=text,
        service=service,
        environment=environment,
        kinds=tuple(kind or KINDS),
        limit=limit,
        at=product.clock.now(),
    )
    return Hits(hits=await search(product.pool, question, product.desk.embedder))


# --- all of it, in and out ---


@router.get(
    "/knowledge/export",
    summary="All of the memory, as JSON lines",
    response_class=StreamingResponse,
    responses={
        200: {"content": {JSON_LINES: {"schema": {"type": "string"}}}, "description": "A case in each line"},
        **responses(401),
    },
)
async def export_cases(product: ProductDep, _: CallerDep) -> StreamingResponse:
    """Streamed, whatever its size; `POST /knowledge/import?name=cases.jsonl` reads it again."""
    headers = {"Content-Disposition": 'attachment; filename="cases.jsonl"'}
    return StreamingResponse(_exported(product), media_type=JSON_LINES, headers=headers)


async def _exported(product: Product) -> AsyncIterator[str]:
    async for line in lines(product.pool):
        yield f"{line}\n"


@router.post(
    "/knowledge/import",
    summary="Import past incidents or runbooks",
    responses={
        200: {"content": {"application/json": {"example": IMPORTED}}},
        **responses(401, 403, 413, 422, 503, said={422: "notes.txt: nobody can tell what it is by its name"}),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"text/plain": {"schema": {"type": "string"}, "example": CSV}},
        }
    },
)
async def import_file(
    request: Request,
    product: ProductDep,
    who: CallerDep,
    name: Annotated[StorableText, Query(min_length=1, max_length=300, examples=["incidents.csv"])],
    format_: Annotated[Format | None, Query(alias="format", description="Absent: by the name's ending")] = None,
    timezone: Annotated[str, Query(max_length=60, description="Of times that name none")] = "UTC",
    dry_run: Annotated[bool, Query(description="Only look")] = False,
) -> Imported:
    """The body is the file: CSV, an export of Jira (CSV or JSON), a postmortem or a runbook in markdown, or what
    `GET /knowledge/export` wrote. Good rows are taken, bad ones named; the same again changes nothing. At most
    500 cases; larger files: `autopilot knowledge import`. Needs the role responder; what was exported, with verdicts
    as they were measured elsewhere, needs admin.
    """
    require(who, "responder", "import into the memory")
    zone = zone_called(timezone)
    if zone is None:
        raise Unusable(f"There is no time zone {timezone!r}; write e.g. Asia/Seoul.")
    content = await request.body()
    if not content.strip():
        raise Unusable(
            "There is nothing in it; send the file itself as the body, e.g. curl --data-binary @incidents.csv."
        )
    try:
        part = uploaded(name, content, format_)
    except UnreadableFile as error:
        raise Unusable(str(error)) from None
    if part.format == "jsonl":
        require(who, "admin", "import what was exported")
    reading = Reading(product.desk.catalogue, product.clock.now().astimezone(UTC), zone)
    found = await asyncio.to_thread(_all_of, part, reading)
    if (cases := sum(isinstance(one, Case) for one in found)) > MAX_SENT:
        raise Unusable(
            f"It holds {cases:,} cases, and over HTTP {MAX_SENT} are taken at once: send it in parts, or use"
            " `autopilot knowledge import`."
        )
    taken = await take(product.pool, product.clock, who, found, dry_run=dry_run)
    return Imported.model_validate(asdict(taken))


def _all_of(part: Part, reading: Reading) -> Sequence[Found]:
    return list(read(part, reading))


# --- one case ---


@router.get(
    "/knowledge/{case_id}",
    summary="One case, or section of a runbook",
    responses={
        200: {"content": {"application/json": {"example": CASE}}},
        **responses(401, 404, said={404: "There is no case 'imported_0'."}),
    },
)
async def get_case(case_id: str, product: ProductDep, _: CallerDep) -> CaseDetail:
    """With its report, what was done, and the cases it stands for."""
    async with product.pool.connection() as connection:
        row = await store.get(connection, case_id)
        if row is None:
            raise NotFound(case_id, "case")
        remedies = (await store.remedies(connection, [case_id]))[case_id]
        folded = [other for other in await store.folded_into(connection, case_id) if other != case_id]
    return CaseDetail.model_validate({**row, "remedies": remedies, "folded": folded})


@router.delete(
    "/knowledge/{case_id}",
    summary="Forget a case",
    responses=responses(
        401,
        403,
        404,
        said={403: "kim is responder; to let the memory forget takes admin.", 404: "There is no case 'x'."},
    ),
)
async def forget_case(case_id: StorableText, product: ProductDep, who: CallerDep) -> Forgotten:
    """With all that it is found by and what was done about it; where it stood for others, the newest of them stands
    now. Needs the role admin; it is audited.
    """
    gone = await forget(product.pool, product.clock, who, store.Which(id=case_id))
    if not gone:
        raise NotFound(case_id, "case")
    return Forgotten(forgotten=gone)


# --- postmortem ---


@router.get(
    "/incidents/{incident_id}/postmortem",
    summary="A draft of the postmortem",
    response_model=Postmortem,
    responses={
        200: {
            "content": {"text/markdown": {"schema": {"type": "string"}}, "application/json": {"example": POSTMORTEM}},
            "headers": {"Content-Language": {"schema": {"type": "string", "enum": ["en", "ko"]}}},
        },
        **responses(401, 404, 422, said={422: "query.language: Input should be 'en' or 'ko'"}),
    },
)
async def get_postmortem(
    incident_id: str,
    product: ProductDep,
    _: CallerDep,
    accept: Annotated[str, Header()] = "text/markdown",
    format_: Annotated[Literal["json", "markdown"] | None, Query(alias="format")] = None,
    language: Annotated[Language | None, Query(description="Absent: by Accept-Language, else the incident's")] = None,
    accept_language: Annotated[str, Header(examples=["ko-KR, en;q=0.5"])] = "",
    download: Annotated[bool, Query(description="As a file")] = False,
) -> Response:
    """Markdown, or JSON with `Accept: application/json` or `?format=json`. All of it is from data: what is not known
    says so, and each statement names what it rests on.
    """
    report = await load_report(product.pool, incident_id, language or preferred(accept_language))
    background, address = await _background(product, incident_id), product.settings.public_url
    headers = {"Content-Language": report.language, "Vary": "Accept, Accept-Language"}
    if download:
        headers["Content-Disposition"] = f'attachment; filename="postmortem-{report.incident_id}.md"'
    text = postmortem(report, background, address=address)
    if format_ == "json" or (format_ is None and "application/json" in accept):
        return JSONResponse(_told(report, background, address, text).model_dump(mode="json"), headers=headers)
    return PlainTextResponse(text, media_type="text/markdown; charset=utf-8", headers=headers)


async def _background(product: Product, incident_id: str) -> Background:
    similar = await feedback.similar(product.desk, product.deps.past, incident_id)
    async with product.pool.connection() as connection:
        opinions = await feedback_store.opinions(connection, incident_id)
    return Background(similar=similar, feedback=opinions, owners=product.desk.catalogue.owners)


def _told(report: Report, background: Background, address: str, text: str) -> Postmortem:
    draft = Draft(report, background, address)
    return Postmortem(
        incident_id=report.incident_id,
        language=report.language,
        markdown=text,
        went_well=_lessons(went_well(draft)),
        went_badly=_lessons(went_badly(draft)),
        action_items=_lessons(action_items(draft)),
    )


def _lessons(lessons: Sequence[Lesson]) -> list[LessonTold]:
    return [LessonTold(text=one.text, rests_on=one.rests_on, owner=one.owner) for one in lessons]
