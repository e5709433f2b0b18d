"""An incident with all that a report can hold, and events of it, to be told to people."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import UUID

from pydantic import JsonValue

from app.notifiers.base import Event, Telling
from app.report import AlertOf, DecisionMade, NoteMade, Report, TimelineEntry
from collectors.base import Document, Edge, Gap, SeriesRef, Window
from graph.state import (
    ActionOption,
    Choice,
    Claim,
    EffectCheck,
    Execution,
    ExpectedEffect,
    Finding,
    Hop,
    ImpactFigure,
    Language,
    LookedAt,
    PlanStep,
    RootCause,
    StepResult,
    Suspect,
    Verification,
)

AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
PAGE = "https://autopilot.example.com/ui/?incident=inc_1"
MESSAGE = UUID("00000000-0000-4000-8000-000000000001")
POINTS = tuple((AT.timestamp() + 60 * n, 20.0 + (80 if n > 0 else 0) + n % 5) for n in range(-60, 15))
EFFECT = ExpectedEffect(
    ref=SeriesRef(source="datadog", component="payment-service", metric="latency_p95", unit="ms", query="p95"),
    comparator="<=",
    value=300,
    within_minutes=10,
)


def finding(number: int, words: str) -> Finding:
    return Finding(
        id=f"E{number}",
        kind="metric",
        component="payment-db",
        signal="connections",
        at=AT,
        summary=f"{words} {number}",
        excerpt=f"FATAL: {words}\n\tat Pool.take()",
        link="https://app.datadoghq.eu/metric/explorer?x=1",
        source="datadog",
        unit="count",
        points=POINTS if number <= 2 else (),
        band=(15, 25),
    )


def report(language: Language = "en", words: str = "The pool is exhausted", findings: int = 3) -> Report:
    """``words`` are in every text that comes from outside."""
    hop = Hop(cause="payment-db", effect="payment-service", structural=True, statistical=True, temporal=True)
    claims = (
        Claim(text=words, evidence=("E1", "E2"), quote="100 of 100", verified=True),
        Claim(text=words, evidence=("E9",), complaint=words),
    )
    cause = RootCause(
        component="payment-db",
        category="connection_pool_exhaustion",
        title=words,
        mechanism=words,
        claims=claims,
        path=(hop,),
        unknowns=(words,),
        contradicts=words,
        confidence="high",
        certainty=0.9,
        language=language,
        engine="gpt-4o",
    )
    step = PlanStep(operation="scale_out", params={"service": words, "to": 6}, preview=words)
    option = ActionOption(title=words, description=words, why=("E1",), risk="low", minutes=5, steps=(step,))
    result = StepResult(ordinal=1, operation="scale_out", status="succeeded", detail=words)
    measured = EffectCheck(effect=EFFECT, status="met", before=900, after=120)
    verified = Verification(verdict="resolved", checks=(measured,), detail=words, credit="remedy", control=words)
    return Report(
        incident_id="inc_1",
        language=language,
        title=words,
        service="payment-service",
        environment="production",
        severity="critical",
        status="awaiting_decision",
        occurred_at=AT,
        opened_at=AT,
        round=1,
        alerts=(AlertOf(title=words, service="payment-service", source="datadog", state="firing", since=AT),),
        root_cause=cause,
        suspects=(Suspect(component="payment-db", score=0.9, findings=("E1",), path=(hop,)),),
        edges=(Edge(caller="payment-service", callee="payment-db", source="traces"),),
        evidence=tuple(finding(n, words) for n in range(1, findings + 1)),
        path=(hop,),
        impact=(ImpactFigure(name=words, value=1234.5, unit="requests", window=words, evidence=("E1",)),),
        gaps=(Gap(source="aws", reason="forbidden", detail=words, mend=words),),
        documents=(Document(title=words, section=words, text=words, link="https://wiki.example.com/pool"),),
        looked_at=LookedAt(
            incident=Window(start=AT, end=AT + timedelta(minutes=15)),
            baseline=(Window(start=AT - timedelta(hours=1), end=AT),),
        ),
        plan_note=words,
        options=(option, option.model_copy(update={"tried": "worse"})),
        decisions=(decided("1", words),),
        executions=(Execution(plan_revision="p1", choice="1", title=words, results=(result,), verification=verified),),
        notes=(NoteMade(at=AT, by="kim", text=words),),
        history=tuple(TimelineEntry(id=n, at=AT, kind="status", message=words) for n in range(5)),
    )


def just_opened() -> Report:
    """Before anything was found out."""
    known = ("incident_id", "title", "service", "environment", "severity", "occurred_at", "opened_at")
    return Report(status="received", **{name: getattr(report(), name) for name in known})


def decided(choice: Choice, words: str = "go") -> DecisionMade:
    return DecisionMade(plan_revision="p1", choice=choice, note=words, by="kim", at=AT)


def event(kind: str, message: str = "said", data: Mapping[str, JsonValue] | None = None) -> Event:
    return Event(id=7, key=f"{kind}:1", at=AT, kind=kind, node="", message=message, data=data or {})


def status(name: str) -> Event:
    return event("status", name.replace("_", " "), {"status": name})


MANUAL = event("decision", "kim chose manual", {"choice": "manual", "by": "kim", "via": "console"})


def telling(told: Event, about: Report | None = None, **changes: object) -> Telling:
    """Of team payments."""
    about = about or report()
    fields: dict[str, object] = {
        "id": MESSAGE,
        "incident_id": about.incident_id,
        "event": told,
        "report": about,
        "target": "payments",
        "why": "payments owns payment-db, the cause",
        "conversation": {},
        "earlier": {},
        "maybe_sent": False,
        "language": about.language,
        "url": PAGE,
        "team": "payments",
    }
    return Telling(**(fields | changes))  # type: ignore[arg-type]  # as the names say
