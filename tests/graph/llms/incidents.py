"""Incidents made by hand: the evidence of a few well-known failures of a shop."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal

from collectors.base import Edge, Gap, GapReason, Scope, Target, Window
from executors.base import Resource
from executors.rehearsal import RehearsalExecutor
from graph.llms.base import AnalysisRequest, OperationOnMenu, PlanRequest, TrackRecord
from graph.state import Alert, Evidence, Finding, FindingKind, Hop, Language, RootCause, Suspect

START = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
SERVICES = ("checkout-service", "payment-service", "orders-db")


def finding(
    number: int,
    kind: FindingKind,
    component: str,
    signal: str,
    summary: str,
    *,
    minute: float = 0.0,
    observed: float | None = None,
    baseline: float | None = None,
    unit: str = "",
    excerpt: str = "",
    worse: Literal["up", "down", "neutral"] = "up",
) -> Finding:
    """A finding whose onset lies so many minutes after the start."""
    return Finding(
        id=f"E{number}",
        kind=kind,
        component=component,
        signal=signal,
        at=START + timedelta(minutes=minute),
        observed=observed,
        baseline=baseline,
        unit=unit,
        summary=summary,
        excerpt=excerpt,
        worse=worse,
    )


def hop(cause: str, effect: str, *, holds: bool = True) -> Hop:
    """A hop of which every check holds, or none."""
    return Hop(cause=cause, effect=effect, structural=holds, statistical=holds, temporal=holds)


def pool_exhaustion() -> Evidence:
    """Black Friday: four times the traffic, the pool full, callers time out."""
    return Evidence(
        digest="d1",
        findings=(
            finding(
                1,
                "metric",
                "payment-service",
                "hikaricp.connections.active",
                "hikaricp.connections.active of payment-service rose to 50 from 12.4",
                observed=50.0,
                baseline=12.4,
            ),
            finding(
                2,
                "log",
                "payment-service",
                "HikariPool#197",
                "1,284 new error lines of payment-service a minute",
                minute=0.5,
                observed=1284.0,
                baseline=0.0,
                excerpt="HikariPool-1 - Connection is not available, request timed out after 30000ms",
            ),
            finding(
                3,
                "metric",
                "payment-service",
                "trace.servlet.request.hits",
                "Requests to payment-service surged to 2,040 req/s from 510 req/s",
                minute=-1,
                observed=2040.0,
                baseline=510.0,
                unit="req/s",
                worse="neutral",
            ),
            finding(
                4,
                "trace",
                "checkout-service",
                "POST /checkout",
                "p95 of POST /checkout rose to 4.2 s from 310 ms",
                minute=1,
                observed=4200.0,
                baseline=310.0,
                unit="ms",
            ),
            finding(
                5,
                "status",
                "payment-service",
                "ecs.running_tasks",
                "4 of 4 tasks of payment-service are running",
                observed=4.0,
                baseline=4.0,
            ),
        ),
        suspects=(
            Suspect(
                component="payment-service",
                score=0.92,
                findings=("E1", "E2", "E3"),
                path=(hop("payment-service", "checkout-service"),),
                why="score 0.92",
            ),
            Suspect(component="checkout-service", score=0.41, findings=("E4",)),
        ),
        gaps=(Gap(source="aws", reason=GapReason.FORBIDDEN, detail="cloudwatch:GetMetricData was refused"),),
    )


def bad_deploy() -> Evidence:
    """A deploy, and exceptions five minutes later."""
    return Evidence(
        digest="d2",
        findings=(
            finding(
                1,
                "log",
                "payment-service",
                "PaymentController#88",
                "New exception in payment-service: NullPointerException, 312 times a minute",
                minute=-1,
                observed=312.0,
                baseline=0.0,
                excerpt="java.lang.NullPointerException: card.token is null at PaymentController#88",
            ),
            finding(
                2,
                "change",
                "payment-service",
                "deploy v2.14.0",
                "payment-service v2.14.0 was deployed at 09:09:00",
                minute=-6,
            ),
            finding(
                3,
                "metric",
                "payment-service",
                "request.error_ratio",
                "Errors of payment-service rose to 37.5 % from 0.2 %",
                minute=-1,
                observed=37.5,
                baseline=0.2,
                unit="%",
            ),
        ),
        suspects=(Suspect(component="payment-service", score=0.88, findings=("E1", "E2", "E3")),),
    )


def cpu_saturation() -> Evidence:
    """Work outgrew the CPU."""
    return Evidence(
        digest="d3",
        findings=(
            finding(
                1,
                "metric",
                "payment-service",
                "container.cpu.usage",
                "CPU of payment-service rose to 97.3 % from 41 %",
                observed=97.3,
                baseline=41.0,
                unit="%",
            ),
            finding(
                2,
                "trace",
                "payment-service",
                "POST /pay",
                "p95 latency of POST /pay rose to 1,900 ms from 220 ms",
                minute=1,
                observed=1900.0,
                baseline=220.0,
                unit="ms",
            ),
        ),
        suspects=(Suspect(component="payment-service", score=0.71, findings=("E1", "E2")),),
    )


def nothing_wrong() -> Evidence:
    """A false alarm."""
    return Evidence(digest="d4", findings=(), suspects=())


OPERATIONS = {operation.name: operation for operation in RehearsalExecutor({}).operations}


def _entry(name: str, risk: str, minutes: float, *, reversible: bool = False) -> OperationOnMenu:
    """A real operation's params and needs, with figures that do not change as the operation does."""
    return OperationOnMenu(
        name=name,
        summary=f"What {name} does",
        risk=risk,
        reversible=reversible,
        read_only=risk == "none",
        minutes=minutes,
        params=OPERATIONS[name].params,
        lacks=OPERATIONS[name].lacks,
    )


MENU = (
    _entry("check_ecs_health", "none", 0.5),
    _entry("restart_ecs_task", "medium", 3.0),
    _entry("restart_all_services", "high", 8.0),
    _entry("reduce_traffic", "medium", 0.5, reversible=True),
    _entry("gradual_traffic_restore", "low", 3.0, reversible=True),
    _entry("scale_ecs_service", "low", 2.0, reversible=True),
    _entry("rollback_ecs_service", "medium", 4.0, reversible=True),
)


def whole_menu(*resources: Resource) -> tuple[OperationOnMenu, ...]:
    """Every operation there is, on a catalogue of these."""
    operations = RehearsalExecutor({resource.service: resource for resource in resources}).operations
    return tuple(OperationOnMenu.of(operation) for operation in sorted(operations, key=lambda o: o.name))


def resource(service: str, *, traffic: bool = True, max_tasks: int = 20) -> Resource:
    """An ECS service with a load balancer in front, or without."""
    return Resource(
        service=service,
        cluster="shop",
        ecs_service=service,
        listener_rule_arn="arn:rule" if traffic else None,
        target_group_arn="arn:group" if traffic else None,
        overflow_target_group_arn="arn:overflow" if traffic else None,
        max_tasks=max_tasks,
    )


RESOURCES = (resource("checkout-service"), resource("payment-service"))


def alert(text: str = "") -> Alert:
    """Checkout alerts."""
    return Alert(
        source="datadog",
        title="Error rate of checkout is high",
        service="checkout-service",
        occurred_at=START,
        fingerprint="f",
        cycle_key="c",
        text=text,
    )


def scope() -> Scope:
    """Checkout calls payment calls the orders database."""
    return Scope(
        service="checkout-service",
        occurred_at=START,
        incident=Window(start=START - timedelta(minutes=5), end=START + timedelta(minutes=5)),
        baseline=(Window(start=START - timedelta(hours=1), end=START - timedelta(minutes=5)),),
        targets=tuple(Target(service=name) for name in SERVICES),
        edges=(Edge(caller="checkout-service", callee="payment-service", source="catalogue"),),
    )


def suspect(component: str, *findings: str, score: float = 0.9) -> Suspect:
    """Somebody these findings speak against."""
    return Suspect(component=component, score=score, findings=findings)


def analysis(
    evidence: Evidence,
    text: str = "",
    *,
    hints: tuple[str, ...] = (),
    previous: RootCause | None = None,
    language: Language = "en",
) -> AnalysisRequest:
    """What an analyst is asked."""
    return AnalysisRequest(
        alert=alert(text), scope=scope(), evidence=evidence, hints=hints, previous=previous, language=language
    )


def plan(
    evidence: Evidence,
    root_cause: RootCause,
    *,
    menu: tuple[OperationOnMenu, ...] = MENU,
    resources: tuple[Resource, ...] = RESOURCES,
    track_record: Mapping[str, TrackRecord] | None = None,
    language: Language = "en",
) -> PlanRequest:
    """What a planner is asked."""
    return PlanRequest(
        alert=alert(),
        scope=scope(),
        evidence=evidence,
        root_cause=root_cause,
        menu=menu,
        resources=resources,
        track_record=track_record or {},
        language=language,
    )
