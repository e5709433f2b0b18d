"""What intake is compared with: a handler that only inserts, and one that does nothing."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

import uvicorn
from fastapi import Depends, FastAPI, Request
from psycopg.types.json import Jsonb

from app.db import Connection, Pool, create_pool, transaction
from app.queue import ADVANCE
from app.settings import Settings

NOW = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
ALERT = {"title": "the error rate is high", "service": "payment-service", "severity": "critical"}


def create_app(url: str, pool_size: int) -> FastAPI:
    """``POST /bare`` makes the six inserts of an alert that opens an incident, in one transaction; ``/empty`` none."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with create_pool(url, max_size=pool_size) as pool:
            app.state.pool = pool
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/bare", status_code=202)
    async def bare(request: Request, pool: Annotated[Pool, Depends(_pool)]) -> dict[str, str]:
        body = await request.body()
        async with transaction(pool) as connection:
            return {"incident_id": await _insert(connection, body)}

    @app.post("/empty", status_code=202)
    async def empty() -> dict[str, str]:
        return {}

    app.add_api_route("/readyz", empty)
    return app


async def _pool(request: Request) -> Pool:
    pool: Pool = request.app.state.pool
    return pool


async def _insert(connection: Connection, body: bytes) -> str:
    key, alert = uuid4().hex, Jsonb(ALERT)
    service, fingerprint = f"service-{key}", f"datadog:monitor:{key}:service:{key}"
    cursor = await connection.execute(
        "insert into raw_delivery (sender, headers, body, delivery_key) values (%s, %s, %s, %s) returning id",
        ("datadog", Jsonb({}), body, key),
    )
    raw = await cursor.fetchone()
    assert raw is not None
    await connection.execute(
        """insert into incident (id, service, title, severity, source, environment, occurred_at, alert, opened_by,
               admitted_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp())""",
        (key, service, "title", "critical", "datadog", "production", NOW, alert, "datadog"),
    )
    await connection.execute(
        """insert into alert_cycle (cycle_key, fingerprint, rule, service, environment, resources, title, state,
               changed_at, fired_at, incident_id) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        (key, fingerprint, key, service, "production", [f"host:{key}"], "title", "firing", NOW, NOW, key),
    )
    await connection.execute(
        "insert into event (incident_id, key, at, kind, message, data) values (%s, %s, %s, %s, %s, %s)",
        (key, "opened", NOW, "opened", "an alert", Jsonb({})),
    )
    await connection.execute(
        """insert into procrastinate_jobs (queue_name, task_name, priority, lock, args)
           values (%s, %s, %s, %s, %s)""",
        ("default", ADVANCE, 0, f"incident:{key}", Jsonb({"incident_id": key})),
    )
    await connection.execute(
        """insert into alert (raw_id, incident_id, transition, fingerprint, cycle_key, body)
           values (%s, %s, %s, %s, %s, %s)""",
        (raw["id"], key, "firing", fingerprint, key, alert),
    )
    return key


def main() -> None:
    """Serve as ``autopilot serve`` does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    settings = Settings()
    assert settings.database_url is not None
    app = create_app(settings.database_url.get_secret_value(), 2 * settings.worker_concurrency + 5)
    uvicorn.run(app, port=parser.parse_args().port, log_level="info", access_log=False, timeout_graceful_shutdown=3)


if __name__ == "__main__":
    main()
