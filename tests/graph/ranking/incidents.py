"""Small generated incidents: a shop of six services, an hour of normal telemetry, five minutes of trouble."""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from collectors.base import (
    Change,
    Edge,
    Level,
    LogLine,
    Scope,
    Series,
    SeriesRef,
    Span,
    Status,
    Target,
    Telemetry,
    Window,
)
from graph.state import Alert

SPAN = TypeAdapter(Span)
START = datetime(2024, 3, 1, 12, 0, tzinfo=UTC)
INCIDENT = START + timedelta(hours=1)
END = INCIDENT + timedelta(minutes=5)
EDGES = (
    ("gateway", "orders"),
    ("gateway", "search"),
    ("orders", "billing"),
    ("billing", "ledger-db"),
    ("billing", "cache"),
    ("billing", "card-provider"),
)
SERVICES = ("gateway", "orders", "search", "billing", "ledger-db", "cache", "card-provider", "nightly")

Shape = Callable[[float], float]  # seconds since the fault began -> value


def edges() -> tuple[Edge, ...]:
    return tuple(Edge(caller=a, callee=b, source="catalogue") for a, b in EDGES)


def scope(alerted: str) -> Scope:
    return Scope(
        service=alerted,
        occurred_at=INCIDENT + timedelta(minutes=2),
        incident=Window(start=INCIDENT, end=END),
        baseline=(Window(start=START, end=INCIDENT),),
        targets=tuple(Target(service=s) for s in SERVICES),
        edges=edges(),
    )


def alert(alerted: str) -> Alert:
    return Alert(
        source="test",
        title=f"{alerted} is failing",
        service=alerted,
        occurred_at=INCIDENT + timedelta(minutes=2),
        fingerprint="f",
        cycle_key="c",
    )


def series(
    component: str,
    metric: str,
    normal: float,
    faulty: float | None = None,
    *,
    unit: str = "",
    delay_s: float = 0.0,
    seed: int = 1,
) -> Series:
    """Ten-second samples with three percent of jitter; ``faulty`` from ``delay_s`` into the incident on."""
    rng = random.Random(f"{component}{metric}{seed}")
    times = [START.timestamp() + 10.0 * i for i in range(int((END - START).total_seconds() // 10))]
    fault_s = INCIDENT.timestamp() + delay_s
    values = [(normal if faulty is None or t < fault_s else faulty) * (1.0 + rng.uniform(-0.03, 0.03)) for t in times]
    ref = SeriesRef(source="metrics", component=component, metric=metric, unit=unit, query=f"{component}.{metric}")
    return Series(ref=ref, epoch_s=tuple(times), values=tuple(values))


def lines(
    component: str, level: Level, message: str, *, per_minute: int, baseline: bool, incident: bool
) -> list[LogLine]:
    """Equal lines, evenly spaced over the baseline, the incident or both."""
    start = START if baseline else INCIDENT
    end = END if incident else INCIDENT
    step = timedelta(seconds=60 / per_minute)
    found, at, number = [], start, 0
    while at < end:
        found.append(LogLine(component=component, at=at, level=level, message=f"{message} {number}"))
        at, number = at + step, number + 1
    return found


def calls(failing: Mapping[tuple[str, str], str], *, every: int = 2) -> list[Span]:
    """A request every ten seconds through gateway, orders, billing to its three callees.

    During the incident each ``every``-th call of a failing edge ends in that error, and its callers fail with it.
    """
    spans = []
    for i in range(int((END - START).total_seconds() // 10)):
        begin = START.timestamp() + 10.0 * i
        broken = begin >= INCIDENT.timestamp()
        errors = {
            edge: error for n, (edge, error) in enumerate(sorted(failing.items())) if broken and (i + n) % every == 0
        }
        spans.extend(_request(f"t{i}", begin, errors))
    return spans


def _request(trace: str, begin: float, errors: Mapping[tuple[str, str], str]) -> list[Span]:
    def span(name: str, parent: str, at_ms: float, ms: float, component: str, operation: str, **more: str) -> Span:
        return SPAN.validate_python(
            {
                "component": component,
                "trace_id": trace,
                "span_id": name,
                "parent_id": parent,
                "operation": operation,
                "start_s": begin + at_ms / 1000.0,
                "duration_ms": ms,
                **more,
            }
        )

    failed = "upstream failed" if errors else ""
    spans = [
        span("g", "", 0, 60, "gateway", "POST /orders", kind="server", error=failed),
        span("gc", "g", 1, 58, "gateway", "http", kind="client", peer="orders", error=failed),
        span("o", "gc", 2, 56, "orders", "POST /orders", kind="server", error=failed),
        span("oc", "o", 3, 54, "orders", "http", kind="client", peer="billing", error=failed),
        span("b", "oc", 4, 52, "billing", "POST /charge", kind="server", error=failed),
    ]
    for n, callee in enumerate(("ledger-db", "cache", "card-provider")):
        error = errors.get(("billing", callee), "")
        spans.append(
            span(f"c{n}", "b", 5 + 15 * n, 12, "billing", f"call {callee}", kind="client", peer=callee, error=error)
        )
    return spans


def pool_exhaustion() -> list[Telemetry]:
    """Billing's connection pool runs full under tripled traffic; an innocent deploy of search came before."""
    failing = {
        ("billing", "ledger-db"): "connection_timeout",
        ("billing", "cache"): "cache_timeout",
        ("billing", "card-provider"): "rate_limit_exceeded",
    }
    metrics = Telemetry(
        source="metrics",
        edges=edges(),
        series=(
            series("billing", "connection_pool_utilization", 41, 98, unit="%"),
            series("billing", "connection_timeouts", 0, 156),
            series("billing", "card_success_rate", 99.4, 52, unit="%"),
            series("billing", "transactions_pending", 4, 247),
            series("billing", "money_lost_usd_per_minute", 0, 2000),
            series("billing", "request_rate", 100, 300, unit="requests/s"),
            series("billing", "error_rate", 0.4, 45, unit="%"),
            series("orders", "error_rate", 0.5, 22, unit="%", delay_s=20),
            series("orders", "latency_p95_ms", 120, 900, unit="ms", delay_s=20),
            series("gateway", "error_rate", 0.4, 12, unit="%", delay_s=30),
            series("ledger-db", "cpu_percent", 35, 55, unit="%"),
            series("cache", "cpu_percent", 20, 31, unit="%"),
            series("search", "error_rate", 0.4, unit="%"),
            series("search", "cpu_percent", 30, unit="%"),
        ),
        changes=(
            Change(
                component="search",
                at=INCIDENT - timedelta(minutes=8),
                kind="deploy",
                title="Deploy search v31",
                version="v31",
            ),
        ),
    )
    logs = Telemetry(
        source="logs",
        logs=(
            *lines("billing", "info", "charged order", per_minute=6, baseline=True, incident=True),
            *lines(
                "billing",
                "error",
                "Connection is not available, request timed out after 30000ms",
                per_minute=12,
                baseline=False,
                incident=True,
            ),
            *lines("orders", "info", "order placed", per_minute=6, baseline=True, incident=True),
            *lines("orders", "error", "charge failed", per_minute=4, baseline=False, incident=True),
            *lines("nightly", "warning", "report is slow", per_minute=3, baseline=True, incident=True),
        ),
    )
    return [metrics, logs, Telemetry(source="spans", spans=tuple(calls(failing)))]


def bad_deploy() -> list[Telemetry]:
    """Orders gets a new version that fails in a third of the requests; search is scaled at the same time."""
    metrics = Telemetry(
        source="metrics",
        edges=edges(),
        series=(
            series("orders", "error_rate", 0.4, 34, unit="%", delay_s=10),
            series("orders", "http_5xx", 0, 90, delay_s=10),
            series("gateway", "error_rate", 0.4, 20, unit="%", delay_s=20),
            series("billing", "error_rate", 0.4, unit="%"),
            series("billing", "connection_pool_utilization", 41, unit="%"),
        ),
        changes=(
            Change(component="orders", at=INCIDENT, kind="deploy", title="Deploy orders v2", version="v2"),
            Change(component="search", at=INCIDENT, kind="scaling", title="Scale search to 4"),
        ),
    )
    logs = Telemetry(
        source="logs",
        logs=(
            *lines("orders", "info", "order placed", per_minute=6, baseline=True, incident=True),
            *lines(
                "orders",
                "error",
                'NullPointerException: "coupon" is null\n  at CouponValidator.java:57',
                per_minute=6,
                baseline=False,
                incident=True,
            ),
            *lines("gateway", "info", "request", per_minute=6, baseline=True, incident=True),
            *lines("gateway", "error", "500 from upstream", per_minute=4, baseline=False, incident=True),
        ),
    )
    return [metrics, logs]


def quiet() -> list[Telemetry]:
    """Nothing is wrong: jitter, the nightly warnings and a deploy."""
    metrics = Telemetry(
        source="metrics",
        edges=edges(),
        series=tuple(
            series(service, metric, normal, unit=unit)
            for service in SERVICES
            for metric, normal, unit in (
                ("error_rate", 0.4, "%"),
                ("latency_p95_ms", 120, "ms"),
                ("cpu_percent", 40, "%"),
                ("request_rate", 100, "requests/s"),
            )
        ),
        changes=(Change(component="search", at=INCIDENT, kind="deploy", title="Deploy search v31"),),
        statuses=(Status(component="billing", name="running_tasks", at=INCIDENT, observed=3, expected=3),),
    )
    logs = Telemetry(
        source="logs",
        logs=(
            *lines("billing", "info", "charged order", per_minute=6, baseline=True, incident=True),
            *lines("nightly", "warning", "report is slow", per_minute=3, baseline=True, incident=True),
        ),
    )
    return [metrics, logs, Telemetry(source="spans", spans=tuple(calls({})))]
