"""Health, readiness, metrics."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest
from pydantic import BaseModel, Field

from app.api.access import CallerDep, ProductDep
from app.api.problems import responses
from app.store import freeze, outbox
from app.store.alerts import count_dead_letters
from app.store.incidents import count_by_status, count_waiting

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """It lives."""

    status: str = "ok"


@router.get("/healthz", summary="Is the process alive?")
async def healthz() -> Health:
    """No authentication; touches nothing."""
    return Health()


class Ready(Health):
    """It takes alerts."""

    frozen: bool = Field(description="The kill switch is pulled: alerts are taken and analysed, nothing new is run")


@router.get("/readyz", summary="Can it take alerts?", responses=responses(503))
async def readyz(product: ProductDep) -> Ready:
    """No authentication; asks the database."""
    async with product.pool.connection() as connection:
        return Ready(frozen=await freeze.current(connection) is not None)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses=responses(401, 503),
)
async def metrics(product: ProductDep, _: CallerDep) -> PlainTextResponse:
    """Incidents by status, jobs by state, messages; the same from every process, as they come from Postgres."""
    registry = CollectorRegistry()
    incidents = Gauge("autopilot_incidents", "Incidents by status", ["status"], registry=registry)
    jobs = Gauge("autopilot_jobs", "Jobs in the queue by state", ["state"], registry=registry)
    waiting = Gauge("autopilot_waiting_investigations", "Incidents whose investigation waits", registry=registry)
    letters = Gauge("autopilot_dead_letters", "Deliveries that nobody could read yet", registry=registry)
    messages = Gauge(
        "autopilot_messages",
        "Messages that wait; failed: given up in the last day",
        ["notifier", "state"],
        registry=registry,
    )
    late = Gauge("autopilot_message_late_seconds", "How long the oldest one waits", ["notifier"], registry=registry)
    frozen = Gauge("autopilot_frozen", "1 while the kill switch is pulled", registry=registry)
    async with product.pool.connection() as connection:
        frozen.set(await freeze.current(connection) is not None)
        for row in await count_by_status(connection):
            incidents.labels(row["status"]).set(row["incidents"])
        waiting.set(await count_waiting(connection))
        letters.set(await count_dead_letters(connection))
        for row in await outbox.counts(connection):
            messages.labels(row["notifier"], "waiting").set(row["waiting"])
            messages.labels(row["notifier"], "failed").set(row["failed"])
            late.labels(row["notifier"]).set(row["late_s"])
        query = "select status::text as state, count(*) as jobs from procrastinate_jobs group by status"
        for row in await (await connection.execute(query)).fetchall():
            jobs.labels(row["state"]).set(row["jobs"])
    return PlainTextResponse(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
