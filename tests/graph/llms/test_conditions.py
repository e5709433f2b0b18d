"""What decides whether a remedy helps or harms, and how it is seen."""

from datetime import timedelta

import pytest

from collectors.base import Edge
from graph.llms.base import PlanRequest
from graph.llms.conditions import Circumstances
from graph.llms.playbooks import Condition
from graph.state import Claim, Evidence, Finding, FindingKind, RootCause, Suspect
from tests.graph.llms import incidents


def asked(*findings: Finding, suspects: tuple[Suspect, ...] = (), edges: tuple[Edge, ...] = ()) -> PlanRequest:
    """Orders are at fault."""
    evidence = Evidence(digest="d", findings=findings, suspects=suspects, edges=edges)
    root_cause = RootCause(component="orders", category="unknown", title="t", mechanism="m", confidence="low")
    return incidents.plan(evidence, root_cause)


def seen(
    kind: FindingKind,
    signal: str,
    excerpt: str = "",
    *,
    by: str = "orders",
    minute: float = 0,
    observed: float | None = None,
    baseline: float | None = None,
    unit: str = "",
) -> Finding:
    told = f"{by}: {signal}"
    return incidents.finding(
        1, kind, by, signal, told, minute=minute, observed=observed, baseline=baseline, unit=unit, excerpt=excerpt
    )


@pytest.mark.parametrize(
    ("condition", "finding"),
    [
        ("starts_fail", seen("status", "ecs.failed_tasks", observed=7, baseline=0)),
        ("starts_fail", seen("log", "pod", "Back-off restarting failed container: CrashLoopBackOff")),
        ("overloaded", seen("metric", "RDS.DiskQueueDepth", observed=49, baseline=1.8)),
        ("overloaded", seen("metric", "CPUUtilization", observed=97, baseline=40, unit="%")),
        ("overloaded", seen("log", "HikariPool", "Connection is not available, request timed out")),
        ("connections_used_up", seen("log", "postgres", "FATAL: sorry, too many clients already")),
        ("stuck", seen("log", "BlockedThreadChecker", "Thread Thread[worker-1] has been blocked for 9000 ms")),
        ("stuck", seen("log", "OOM", "java.lang.OutOfMemoryError: Java heap space")),
        ("failing_over", seen("log", "postgres", "cannot execute INSERT in a read-only transaction")),
        ("failing_over", seen("change", "Multi-AZ instance failover started")),
        ("over_limit", seen("log", "client", "HTTP 429 Too Many Requests")),
        ("waits_for_other", seen("log", "client", "POST /quotes: connection refused")),
        ("surge", seen("metric", "http.requests", observed=2040, baseline=510, unit="req/s")),
        ("full", seen("metric", "db_connection_pool_utilization", observed=98, baseline=10.6, unit="%")),
        ("full", seen("log", "HikariPool", "Connection is not available, request timed out")),
        ("computes", seen("metric", "CPUUtilization", observed=91, baseline=36, unit="%")),
        ("slower", seen("metric", "ReadLatency", observed=0.25, baseline=0.018, unit="s")),
        ("locked", seen("log", "postgres", "canceling statement due to lock timeout")),
        ("unanswered", seen("metric", "GetTypeCmds", observed=4, baseline=240)),
    ],
)
def test_a_condition_is_seen_in_one_finding(condition: Condition, finding: Finding) -> None:
    assert Circumstances(asked(finding), "orders").hold(condition)
    assert not Circumstances(asked(), "orders").hold(condition)


@pytest.mark.parametrize(
    ("condition", "finding"),
    [
        ("starts_fail", seen("status", "ecs.healthy_tasks", "Target.Timeout: 1", observed=2, baseline=3)),
        ("overloaded", seen("metric", "RDS.DiskQueueDepth", observed=1.9, baseline=1.8)),
        ("overloaded", seen("metric", "CPUUtilization", observed=41, baseline=40, unit="%")),
        ("stuck", seen("log", "SqlExceptionHelper", "ERROR: deadlock detected")),
        ("over_limit", seen("log", "client", "429 insufficient_quota: check your billing details")),
        ("surge", seen("metric", "http.requests.errors", observed=2040, baseline=510)),
        ("full", seen("metric", "transactions_pending", observed=6, baseline=3)),
        ("computes", seen("metric", "CPUUtilization", observed=41, baseline=20, unit="%")),
        ("slower", seen("trace", "GET session", "9,000 ms of latency", observed=9000, baseline=10)),
        ("slower", seen("metric", "ReplicaLagLatency", observed=90, baseline=1)),
        ("unanswered", seen("metric", "GetTypeCmds", observed=120, baseline=240)),
        ("unanswered", seen("metric", "request_errors", observed=0, baseline=5)),
    ],
)
def test_what_looks_like_it_is_not_enough(condition: Condition, finding: Finding) -> None:
    assert not Circumstances(asked(finding), "orders").hold(condition)


def test_what_is_seen_elsewhere_speaks_of_the_component_or_of_neither() -> None:
    full = asked(seen("log", "HikariPool", "Connection is not available"))
    assert Circumstances(full, "web").hold("overloaded"), "the component at fault has nothing left"
    failing = asked(seen("status", "ecs.failed_tasks"))
    assert not Circumstances(failing, "web").hold("starts_fail"), "web can be restarted though orders cannot"
    assert not Circumstances(asked(seen("log", "p", "Connection is not available", by="cart")), "web").hold(
        "overloaded"
    )


def deployed(minutes_before: float, *, cited: bool = True) -> PlanRequest:
    trouble = seen("log", "error", "failed").model_copy(update={"id": "E1"})
    at = trouble.at - timedelta(minutes=minutes_before)
    deploy = seen("change", "deploy v2").model_copy(update={"id": "E2", "at": at})
    ids = ("E1", "E2") if cited else ("E1",)
    return asked(trouble, deploy, suspects=(incidents.suspect("orders", *ids),))


@pytest.mark.parametrize(("minutes", "shortly"), [(5, True), (59, True), (61, False), (-5, False), (-0.5, True)])
def test_a_deployment_counts_as_shortly_before_for_an_hour(minutes: float, *, shortly: bool) -> None:
    around = Circumstances(deployed(minutes), "orders")
    assert around.hold("deployed_shortly_before") is shortly
    assert around.hold("deployed_before")
    assert not around.hold("configured")


def test_a_deployment_that_nobody_connects_with_the_trouble_does_not_count() -> None:
    request = deployed(5, cited=False)
    assert not Circumstances(request, "orders").hold("deployed_before")
    claimed = request.root_cause.model_copy(update={"claims": (Claim(text="t", evidence=("E2",)),)})
    assert Circumstances(incidents.plan(request.evidence, claimed), "orders").hold("deployed_before")
    refuted = claimed.model_copy(update={"claims": (Claim(text="t", evidence=("E2",), complaint="no"),)})
    assert not Circumstances(incidents.plan(request.evidence, refuted), "orders").hold("deployed_before")


def test_the_deployment_of_another_does_not_count() -> None:
    assert not Circumstances(deployed(5), "web").hold("deployed_before")


@pytest.mark.parametrize(("service", "holds"), [("orders-db", True), ("redis", True), ("orders", False)])
def test_databases_and_caches_hold_data(service: str, *, holds: bool) -> None:
    assert Circumstances(asked(), service).hold("holds_data") is holds


def test_a_suspect_that_it_calls_is_what_it_waits_for() -> None:
    edges = (Edge(caller="orders", callee="stripe", source="catalogue"),)
    suspects = (incidents.suspect("orders", "E1"), incidents.suspect("stripe", "E1"))
    assert Circumstances(asked(suspects=suspects, edges=edges), "orders").hold("waits_for_other")
    assert not Circumstances(asked(suspects=suspects, edges=edges), "stripe").hold("waits_for_other")
    assert not Circumstances(asked(suspects=suspects[:1], edges=edges), "orders").hold("waits_for_other")


# --- what changed right before ---

ASKS = Edge(caller="exports", callee="orders", source="catalogue")
FAILS = seen("log", "error", "failed")


def change(title: str, minutes_before: float, *, by: str = "orders", kind: str = "") -> Finding:
    """A change so long before orders fail, in ranking's words where it has any."""
    told = seen("change", title, by=by)
    summary = f"{by}: {kind} “{title}” at 12:00:00 UTC" if kind else told.summary
    at = FAILS.at - timedelta(minutes=minutes_before)
    return told.model_copy(update={"id": "E2", "at": at, "summary": summary})


@pytest.mark.parametrize(
    "title",
    [
        "Listener rule of orders configured: 60 % of its traffic to maintenance",
        "ModifyRule: weights of target groups",
        "VirtualService orders: traffic shifted to canary",
    ],
)
def test_traffic_that_was_sent_elsewhere_right_before(title: str) -> None:
    assert Circumstances(asked(FAILS, change(title, 0)), "orders").hold("rerouted")
    for minutes in (-5, 30):
        assert not Circumstances(asked(FAILS, change(title, minutes)), "orders").hold("rerouted")
    assert not Circumstances(asked(FAILS, change("deploy v2", 0)), "orders").hold("rerouted")


@pytest.mark.parametrize(
    ("title", "is_job"),
    [
        ("Job aggregate started by hand: --full", True),
        ("Backfill of invoices", True),
        ("CI job deployed exports v2", False),
        ("Batch aggregate finished", False),
        ("deploy v2", False),
    ],
)
def test_a_job_that_began_right_before(title: str, *, is_job: bool) -> None:
    request = asked(FAILS, change(title, 1, by="exports"), edges=(ASKS,))
    assert Circumstances(request, "exports").hold("job_started") is is_job


def test_a_caller_that_changed_right_before_may_be_the_reason() -> None:
    changed = change("deploy v2", 9, by="exports", kind="deploy")
    assert Circumstances(asked(FAILS, changed, edges=(ASKS,)), "orders").hold("callers_changed")
    assert Circumstances(asked(FAILS, changed, edges=(ASKS,)), "exports").hold("deployed_right_before")
    assert not Circumstances(asked(FAILS, changed), "orders").hold("callers_changed"), "it calls something else"
    for harmless in (
        change("deploy v2", 11, by="exports", kind="deploy"),
        change("from 2 to 3 tasks", 1, by="exports", kind="scaling"),
    ):
        assert not Circumstances(asked(FAILS, harmless, edges=(ASKS,)), "orders").hold("callers_changed")


def test_an_odd_line_long_before_the_errors_does_not_hide_what_came_right_before_them() -> None:
    odd = seen("log", "cache", "merged with a stale copy", minute=-20)
    assert Circumstances(asked(odd, FAILS, change("Listener rule of orders changed", 0)), "orders").hold("rerouted")
