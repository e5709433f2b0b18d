"""Reports of an incident at every stage of its life, from the telemetry of a scenario, for tests of what is told."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from secrets import token_bytes
from typing import Any
from uuid import UUID

from langgraph.checkpoint.memory import InMemorySaver
from pydantic import JsonValue

from app.clock import SystemClock
from app.notifiers.base import Event, Telling
from app.report import Report, build
from app.scenarios import Scenario, read
from app.studio import MemoryLedger, MemorySnapshots
from app.wiring import create_executors, operations_by_name, windows
from collectors.replay import ReplayCollector
from graph import flow
from graph.deps import Deps
from graph.llms.rules import RulesAnalyst
from graph.masking import Masker
from graph.state import (
    ActionOption,
    EffectCheck,
    Execution,
    Language,
    Plan,
    State,
    StepResult,
    Verification,
)

AT = datetime(2026, 11, 23, 9, 15, tzinfo=UTC)
INCIDENT = "inc_01ARZ3NDEK"
SCENARIOS = Path(__file__).parents[1] / "scenarios"
NAMES = sorted(folder.name for folder in SCENARIOS.iterdir() if folder.is_dir())


@cache
def investigated(name: str, language: Language = "en") -> State:
    """The state in which the graph waits for a decision, by the rules engine."""
    work = _investigated(read(name, SCENARIOS / name), language)
    with ThreadPoolExecutor(1) as elsewhere:  # a test may have a loop of its own
        return elsewhere.submit(asyncio.run, work).result()


async def _investigated(scenario: Scenario, language: Language) -> State:
    collectors, clock = [ReplayCollector(scenario.bundle)], SystemClock()
    deps = Deps(
        catalogue=scenario.catalogue,
        collectors=collectors,
        snapshots=MemorySnapshots(),
        analyst=RulesAnalyst(),
        operations=operations_by_name(create_executors(("rehearsal",), scenario.catalogue, clock)),
        ledger=MemoryLedger(),
        clock=clock,
        windows=windows([*collectors]),
        collect_s=300.0,
        masker=Masker(token_bytes(32)),
    )
    graph = flow.build(deps).copy(update={"checkpointer": InMemorySaver()})
    config: Any = {"configurable": {"thread_id": INCIDENT}}
    alert = scenario.alert.model_dump(mode="json")
    start: Any = {"incident_id": INCIDENT, "alert": alert, "language": language}
    await graph.ainvoke(start, config)
    return flow.typed((await graph.aget_state(config)).values)


class Life:
    """Rows of one incident as Postgres holds them, moved on by hand; ``report`` is what is told of it then."""

    def __init__(self, state: State, language: Language = "en", title: str | None = None) -> None:
        """Opened, and nothing more; ``state``: what will be found."""
        self.state, self.language = state, language
        alert = state["alert"]
        self.incident: dict[str, Any] = {
            "id": INCIDENT,
            "title": title or alert.title,
            "service": alert.service,
            "environment": alert.environment or "production",
            "severity": alert.severity,
            "status": "received",
            "status_reason": "",
            "occurred_at": alert.occurred_at,
            "opened_at": AT,
            "closed_at": None,
            "round": 0,
            "admitted_at": AT,
            "flaps": 0,
            "plan_revision": None,
            "language": language,
        }
        self.analyses: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.executions: list[dict[str, Any]] = []
        self.approvals: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.happen("opened", f"Alert from {alert.source}: {alert.title}")

    @property
    def plan(self) -> Plan:
        """That waits, or waited last."""
        return Plan.model_validate(self.analyses[-1]["plan"])

    @property
    def report(self) -> Report:
        """As of now."""
        return build(
            self.incident,
            self.analyses,
            self.decisions,
            self.executions,
            self.events,
            approvals=self.approvals,
            language=self.language,
        )

    def happen(self, kind: str, message: str, data: Mapping[str, JsonValue] | None = None, node: str = "") -> None:
        """A line of the timeline."""
        number = len(self.events) + 1
        data = data or {}
        key = f"{kind}:{data.get('plan_revision', '')}:{data.get('ordinal', number)}"
        at = AT + timedelta(minutes=number)
        self.events.append(
            {"id": number, "key": key, "at": at, "kind": kind, "node": node, "message": message, "data": dict(data)}
        )

    def become(self, status: str, reason: str = "", plan_revision: str | None = None) -> None:
        """Another status."""
        closed = AT + timedelta(hours=1) if status in ("resolved", "closed", "needs_attention") else None
        self.incident |= {"status": status, "status_reason": reason, "plan_revision": plan_revision}
        self.incident["closed_at"] = closed
        self.happen("status", status.replace("_", " "), {"status": status})

    def analyse(self, *, plan: Plan | None = None) -> None:
        """Everything is found out, and a plan waits."""
        made = plan or self.state["plan"]
        if self.analyses:  # another round, with the same findings
            made = Plan.of(made.options, made.note, salt=f"round {len(self.analyses) + 1}", number=made.number + 1)
        body = {name: self.state[name].model_dump(mode="json", by_alias=True) for name in _PARTS}  # type: ignore[literal-required]
        self.incident["round"] = len(self.analyses) + 1
        self.analyses.append({"round": self.incident["round"], **body, "plan": made.model_dump(mode="json")})
        self.become("awaiting_decision", plan_revision=made.revision)

    def analyse_again(self) -> None:
        """Another round has begun: what it finds is not known yet."""
        self.incident["round"] += 1
        scope = self.analyses[-1]["scope"]
        empty = {"evidence": None, "root_cause": None, "plan": None}
        self.analyses.append({"round": self.incident["round"], "scope": scope, **empty})
        self.become("collecting")

    def approve(self, choice: str, by: str) -> None:
        """One of several."""
        at = AT + timedelta(minutes=20)
        self.approvals.append({"choice": choice, "steps": (), "by": by, "role": "admin", "via": "slack", "at": at})
        self.happen("approval", f"{by} approved {choice}", {"choice": choice, "by": by, "missing": 1})

    def decide(self, choice: str, by: str = "kim", words: str = "") -> None:
        """Somebody decides."""
        revision = self.plan.revision
        said = {"hint": words, "note": ""} if choice == "re_analyze" else {"hint": "", "note": words}
        self.approvals.clear()
        at = AT + timedelta(minutes=len(self.events) + 1)
        row = {"plan_revision": revision, "choice": choice, "steps": (), "by": by, "via": "slack", "at": at}
        more = {"approvals": (), "plan_digest": self.plan.digest, "language": None}
        self.decisions.append(row | said | more)
        runs = choice in ("1", "2", "3", "undo")
        self.incident |= {"plan_revision": None, "status": "executing" if runs else self.incident["status"]}
        self.happen("decision", f"{by} chose {choice}", {"choice": choice, "by": by})

    def finish(self, ordinal: int, status: str = "succeeded") -> None:
        """A step has ended."""
        data: dict[str, JsonValue] = {"ordinal": ordinal, "status": status, "plan_revision": self.plan.revision}
        self.happen("step_finished", f"step {ordinal}: {status}", data, node="ActionExecutor")

    def execute(self, verdict: str = "resolved") -> None:
        """All of the newest decision was carried out, and measured."""
        made = self.decisions[-1]
        option = self.plan.options[int(made["choice"]) - 1]
        execution = carried_out(option, self.plan.revision, made["choice"], verdict)
        self.executions.append({"body": execution.model_dump(mode="json")})

    def telling(
        self, conversation: Mapping[str, JsonValue] | None = None, *, number: int = 0, **changes: Any
    ) -> Telling:
        """Of the newest event; each has a message id of its own."""
        row = self.events[-1]
        told: dict[str, Any] = {
            "id": UUID(int=number or row["id"]),
            "incident_id": INCIDENT,
            "event": Event(**row),
            "report": self.report,
            "target": "C0PAYMENTS",
            "why": "payments owns payment-service, where the cause is",
            "conversation": conversation or {},
            "earlier": {},
            "maybe_sent": False,
            "language": self.language,
            "url": f"http://127.0.0.1:8080/ui/?incident={INCIDENT}",
        }
        return Telling(**(told | changes))


_PARTS = ("scope", "evidence", "root_cause")


def carried_out(option: ActionOption, revision: str, choice: str, verdict: str) -> Execution:
    """As the executor would tell it."""
    bad = verdict in ("worse", "not_measurable")
    results = tuple(
        StepResult(
            ordinal=ordinal,
            operation=step.operation,
            params=step.params,
            status="unknown" if verdict == "not_measurable" else "succeeded",
            detail=step.preview,
            made=True,
        )
        for ordinal, step in enumerate(option.steps, 1)
    )
    checks = tuple(
        EffectCheck(effect=e, status="not_met" if bad else "met", before=e.observed, after=e.value)
        for e in option.expected
    )
    return Execution.model_validate(
        {
            "plan_revision": revision,
            "choice": choice,
            "title": option.title,
            "results": results,
            "verification": Verification.model_validate(
                {"verdict": verdict, "checks": checks, "credit": "remedy", "control": "search p95 did not move"}
            ),
            "undone": results[-1:] if verdict == "worse" else (),
        }
    )


def lives(state: State, language: Language) -> dict[str, Life]:
    """One incident at every stage that is told of."""
    made: dict[str, Life] = {}

    def at(stage: str) -> Life:
        made[stage] = Life(state, language)
        return made[stage]

    def planned(stage: str) -> Life:
        at(stage).analyse()
        return made[stage]

    at("opened")
    at("recovered early").become("closed", "recovered by itself")
    planned("planned")
    planned("expired").happen("expired", "nobody decided")
    planned("approved").approve("1", "ann")
    for choice in ("manual", "re_analyze", "re_plan", "undo"):
        planned(f"chose {choice}").decide(choice, words="look at <!channel> *db* since 08:40")
    planned("by hand").decide("manual")
    made["by hand"].become("closed", "kim takes it by hand")
    planned("again").decide("re_analyze", words="db, not cache")
    made["again"].analyse_again()
    planned("gave up").become("needs_attention", "it failed again and again")
    if state["plan"].options:
        _carry_out(planned)
    return made


def _carry_out(planned: Any) -> None:
    planned("decided").decide("1")
    half = planned("half done")
    half.decide("1")
    half.finish(1)
    for verdict in ("resolved", "improved", "worse", "not_measurable"):
        life = planned(verdict)
        life.decide("1")
        life.execute(verdict)
        if verdict == "resolved":
            life.become("resolved")
        else:
            life.analyse()
