"""An office whose incidents are over, and what the memory makes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from app.clock import SystemClock
from app.db import transaction
from app.knowledge import remember, search
from app.knowledge.cases import Hit, Query
from app.knowledge.search import PostgresPast
from app.opinions import Said
from app.store import feedback, incidents
from graph.state import (
    Alert,
    Decision,
    Evidence,
    Execution,
    Finding,
    Plan,
    RootCause,
    StepResult,
    Suspect,
    Verdict,
    Verification,
)
from tests.app.test_alerts import Office, alert

NOW = datetime.now(UTC)


def evidence(component: str | None = None, *logs: str) -> Evidence:
    """One suspect, and what its logs say."""
    suspects = (Suspect(component=component, score=0.9, findings=("E1",)),) if component else ()
    findings = tuple(
        Finding(id=f"E{n}", kind="log", component=component or "shop", signal=said, at=NOW, summary=f"it logged {said}")
        for n, said in enumerate(logs, 1)
    )
    return Evidence(digest="d", findings=findings, suspects=suspects)


@dataclass
class Archive:
    """Incidents that are made, ended and remembered."""

    office: Office
    opened: int = 0

    @property
    def past(self) -> PostgresPast:
        """As the graph has it."""
        return PostgresPast(self.office.pool, SystemClock())

    async def open(self, fingerprint: str = "f", service: str = "shop", **changes: Any) -> str:
        """An incident of an alert with that fingerprint; of ``alert``'s rule for the service."""
        self.opened += 1
        one = alert(f"{fingerprint}.{self.opened}", fingerprint=fingerprint, service=service)
        (incident,) = await self.office.accept(one.model_copy(update=changes))
        return str(incident)

    async def found(
        self, incident: str, component: str | None, category: str, *, seen: Evidence | None = None, plan: Any = None
    ) -> None:
        """What an analysis found."""
        cause = RootCause(
            component=component, category=category, title=f"{component}: {category}", mechanism="", confidence="high"
        )
        parts = {"root_cause": cause, "evidence": seen or evidence(component), "plan": plan}
        stored = {name: part.model_dump(mode="json") for name, part in parts.items() if part}
        rounds = await self.office.rows("select count(*) as n from analysis where incident_id = %s", incident)
        async with transaction(self.office.pool) as connection:
            await incidents.save_analysis(connection, incident, rounds[0]["n"] + 1, **stored)

    async def ran(
        self,
        incident: str,
        operations: Sequence[str],
        verdict: Verdict,
        plan: str = "r1",
        *,
        made: bool = True,
        then: StepResult | None = None,
        **measured: Any,
    ) -> None:
        """A remedy, and what came of it; ``then``: of its last step."""
        results = tuple(
            StepResult(ordinal=n, operation=operation, status="succeeded" if made else "dry_run", made=made)
            for n, operation in enumerate(operations)
        )
        execution = Execution(
            plan_revision=plan,
            choice="1",
            title="Do something",
            results=(*results, then) if then else results,
            verification=Verification(verdict=verdict, **measured),
        )
        await self.decide(incident, plan, "1")
        async with transaction(self.office.pool) as connection:
            await incidents.save_execution(connection, incident, plan, execution.model_dump(mode="json", by_alias=True))

    async def decide(self, incident: str, plan: str, choice: str, note: str = "") -> None:
        """A person does."""
        told = {"plan_revision": plan, "choice": choice, "note": note, "by": "kim", "at": NOW}
        async with transaction(self.office.pool) as connection:
            await incidents.insert_decision(connection, incident, Decision.model_validate(told))

    async def close(self, incident: str, days_ago: float = 0, *, learn: bool = True) -> None:
        """So many days after it happened it is learned."""
        await self.office.set_status(incident, "closed")
        happened = NOW - timedelta(days=days_ago)
        await self.office.rows("update incident set occurred_at = %s where id = %s", happened, incident)
        if learn:
            await self.learn(incident)

    async def learn(self, incident: str) -> bool:
        """As the job does."""
        return await remember.remember(self.office.desk, incident)

    async def ended(
        self,
        component: str | None = "db",
        category: str = "leak",
        *,
        verdict: Verdict | None = None,
        days_ago: float = 0,
        seen: Evidence | None = None,
        **opened: Any,
    ) -> str:
        """A whole one."""
        incident = await self.open(**opened)
        await self.found(incident, component, category, seen=seen)
        if verdict:
            await self.ran(incident, ["restart_ecs_task"], verdict, f"plan-of-{incident}")
        await self.close(incident, days_ago)
        return incident

    async def say(self, incident: str, **said: Any) -> None:
        """Feedback, and what the use case does with it."""
        defaults = {"about": "report", "verdict": "wrong", "by": "kim", "role": "responder", "at": datetime.now(UTC)}
        async with transaction(self.office.pool) as connection:
            await feedback.put(connection, incident, Said.model_validate(defaults | said), "rest")
            await remember.remember_in(connection, incident)

    async def similar(self, seen: Evidence | None = None, but: str = "inc_now", **changes: Any) -> list[str]:
        """Ids of what is like an alert of now."""
        return [past.incident_id for past in await self.past.similar(but, now(**changes), seen or evidence())]

    async def search(self, text: str = "", **query: Any) -> list[Hit]:
        """As REST does."""
        return await search.search(self.office.pool, Query(text=text, **query))

    async def case(self, case: str) -> dict[str, Any]:
        """Its row."""
        (row,) = await self.office.rows("select * from knowledge where id = %s", case)
        return row


def now(fingerprint: str = "f", service: str = "shop", **changes: Any) -> Alert:
    """An alert of now, where all incidents of the office happen unless they say otherwise."""
    one = alert("now", fingerprint=fingerprint, service=service)
    return one.model_copy(update={"environment": "production"} | changes)


def plan_of(*options: str, revision: str = "r1") -> Plan:
    """A plan of that revision with an option of each operation."""
    made = [
        {
            "title": f"Try {operation}",
            "description": "",
            "risk": "low",
            "minutes": 1,
            "steps": [{"operation": operation, "params": {}}],
        }
        for operation in options
    ]
    return Plan.model_validate({"revision": revision, "options": made})
