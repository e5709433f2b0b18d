"""The served product, browsers that talk to it, and what they look at."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from pydantic import JsonValue

from app.api.access import SESSION_COOKIE
from app.db import Pool, transaction
from app.intake.triage import Case
from app.security import issue
from app.store import alerts, incidents
from graph.state import ActionOption, Alert, Plan, PlanStep, Role, Transition

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
CATALOGUE = """services:
  payment-service: {depends_on: [payment-db], ecs: {cluster: shop, service: payment}}
  payment-db: {}
"""
PARAMS: dict[str, JsonValue] = {"service": "payment-service", "desired_count": 8}
STEP = PlanStep(operation="scale_ecs_service", params=PARAMS, preview="4 -> 8 tasks")
PLAN = Plan.of(
    [
        ActionOption(title="Scale out <b>now</b>", description="More tasks", risk="low", minutes=3, steps=(STEP,)),
        ActionOption(title="Fail over", description="To the replica", risk="high", minutes=9, steps=(STEP,)),
    ]
)


def alert_of(cycle_key: str, *, title: str = "errors", transition: Transition = "firing", minutes: int = 0) -> Alert:
    """A minimal one."""
    return Alert(
        source="datadog",
        title=title,
        service="checkout",
        occurred_at=AT,
        changed_at=AT + timedelta(minutes=minutes),
        fingerprint=cycle_key,
        cycle_key=cycle_key,
        transition=transition,
    )


class Console:
    """The served product, and browsers that talk to it as Gradio's own client does."""

    def __init__(self, url: str, pool: Pool, database_url: str) -> None:
        self.url, self.pool, self.database_url = url, pool, database_url
        self.browsers: list[Browser] = []

    async def browser(self, role: Role | None, name: str = "kim") -> "Browser":
        """A browser; without a role it is not signed in."""
        cookies = {}
        if role:
            async with transaction(self.pool) as connection:
                cookies[SESSION_COOKIE] = await issue(connection, "session", f"{name} the {role}", role)
        self.browsers.append(Browser(httpx.AsyncClient(base_url=self.url, cookies=cookies, timeout=20)))
        return self.browsers[-1]

    async def close(self) -> None:
        """Close every browser."""
        for browser in self.browsers:
            await browser.client.aclose()

    async def incident(self, title: str = "p95 latency <script>", plan: Plan = PLAN) -> str:
        """One that awaits a decision on a plan."""
        incident_id = f"inc_{uuid4().hex[:12]}"
        alert = Alert(
            source="datadog",
            title=title,
            service="payment-service",
            occurred_at=AT,
            fingerprint=incident_id,
            cycle_key=incident_id,
        )
        async with transaction(self.pool) as connection:
            opened = Case(incident_id, "received", "critical", alert=alert)
            await alerts.insert_incidents(connection, [opened], "production")
            await incidents.save_analysis(connection, incident_id, 1, plan=plan.model_dump(mode="json"))
            await incidents.set_status(
                connection, incident_id, "awaiting_decision", round_=1, plan_revision=plan.revision
            )
        return incident_id

    async def waiting(self, why: str) -> str:
        """One that waits to be investigated."""
        incident_id = f"inc_{uuid4().hex[:12]}"
        async with transaction(self.pool) as connection:
            opened = Case(incident_id, "received", "critical", alert=alert_of(incident_id))
            await alerts.insert_incidents(connection, [opened], "production", why)
        return incident_id

    def accept_connections(self, *, accept: bool) -> None:
        """Take the database away from everybody, or give it back."""
        name = psycopg.conninfo.conninfo_to_dict(self.database_url)["dbname"]
        url = psycopg.conninfo.make_conninfo(self.database_url, dbname="postgres")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"alter database {name} with allow_connections {accept}".encode())
            if not accept:
                connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])


class Browser:
    """One tab."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client, self.tab = client, uuid4().hex
        self.functions: dict[str, dict[str, Any]] = {}

    async def fire(self, event: str, *data: object, event_data: object = None, **query: str) -> str:
        """Fire an event as the page does; everything it changes, as one text."""
        if not self.functions:
            config = (await self.client.get("/ui/config")).raise_for_status().json()
            self.functions = {d["api_name"]: d for d in config["dependencies"] if d["api_name"]}
        join = {"fn_index": self.functions[event]["id"], "data": data, "session_hash": self.tab}
        join |= {"event_data": event_data}
        (await self.client.post("/ui/gradio_api/queue/join", params=query, json=join)).raise_for_status()
        async with self.client.stream("GET", "/ui/gradio_api/queue/data", params={"session_hash": self.tab}) as stream:
            async for line in stream.aiter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    return json.dumps(message["output"], ensure_ascii=False)
        raise AssertionError("the event never completed")
