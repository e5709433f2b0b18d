"""What answers look like, for the OpenAPI document."""

from datetime import UTC, datetime

from pydantic import JsonValue

from app.report import ModelUse, Report
from collectors.base import SeriesRef
from graph.state import (
    ActionOption,
    Claim,
    ExpectedEffect,
    Finding,
    GroundingCheck,
    Hop,
    PlanStep,
    Rival,
    RootCause,
)

_AT = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
_HOP = Hop(cause="payment-service", effect="checkout", structural=True, statistical=True, temporal=True)
_PENDING = SeriesRef(
    source="datadog",
    component="payment-service",
    metric="hikaricp.connections.pending",
    unit="connections",
    query="avg:hikaricp.connections.pending{service:payment-service}",
)

_REPORT = Report(
    incident_id="inc_7c0f3a1e9b52",
    language="en",
    title="p95 latency of payment-service",
    service="payment-service",
    environment="production",
    severity="critical",
    status="awaiting_decision",
    occurred_at=_AT,
    opened_at=_AT,
    admitted_at=_AT,
    round=2,
    root_cause=RootCause(
        component="payment-service",
        category="connection_pool_exhaustion",
        title="payment-service runs out of database connections",
        mechanism="All connections of the pool are taken, so requests queue for one until they time out. [E1]",
        claims=(
            Claim(text="48 requests wait for a connection.", evidence=("E1",), quote="0 to 48", verified=True),
            Claim(
                text="orders-db refuses new connections.",
                evidence=("E2",),
                complaint="names orders-db, which the cited evidence is not about",
            ),
        ),
        path=(_HOP,),
        rivals=(Rival(component="orders-db", for_="It is called by payment-service.", against="It is not slower."),),
        unknowns=("Whether the pool was made smaller: no change of its configuration was seen.",),
        impact="One payment in three fails at checkout.",
        confidence="medium",
        certainty=0.71,
        certainty_why=("The ranking leads by 0.31.", "1 of 2 claims is verified."),
        contradicts="",
        checks=(
            GroundingCheck(about="component", text="payment-service", verdict="verified"),
            GroundingCheck(
                about="claim",
                text="orders-db refuses new connections.",
                evidence=("E2",),
                verdict="not_verified",
                complaint="names orders-db, which the cited evidence is not about",
            ),
        ),
        changed=("The cause is payment-service now, not orders-db: the hint named the pool.",),
        language="en",
        engine="gpt-4o",
    ),
    path=(_HOP,),
    evidence=(
        Finding(
            id="E1",
            kind="metric",
            component="payment-service",
            signal="hikaricp.connections.pending",
            at=_AT,
            observed=48,
            baseline=0,
            unit="connections",
            summary="hikaricp.connections.pending rose from 0 to 48",
            source="datadog",
        ),
        Finding(
            id="E2",
            kind="log",
            component="payment-service",
            signal="Connection is not available, request timed out after <n>ms",
            at=_AT,
            summary="312 lines “Connection is not available” since 09:14",
            excerpt="HikariPool-1 - Connection is not available, request timed out after 30000ms.",
            source="datadog",
            asked="logs of payment-service with “HikariPool”",
        ),
    ),
    plan_revision="3f0c8e2b91a74d65",
    options=(
        ActionOption(
            title="Restart the tasks of payment-service",
            description="New tasks begin with an empty pool.",
            intent="mitigate",
            benefit=0.6,
            track_record="resolved 3 of 4 failures of this kind",
            why=("E1", "E2"),
            risk="low",
            minutes=4,
            steps=(PlanStep(operation="restart_ecs_task", params={"service": "payment-service"}),),
            expected=(ExpectedEffect(ref=_PENDING, comparator="<=", value=2, within_minutes=10, observed=48),),
            engine="gpt-4o",
        ),
    ),
    plan_note="One option was dropped: it named an operation that is not turned on.",
    model_use=ModelUse(calls=3, failed=0, prompt_tokens=12_480, completion_tokens=910, dollars=0.0403, seconds=14.2),
)
REPORT: JsonValue = _REPORT.model_dump(mode="json", by_alias=True)
