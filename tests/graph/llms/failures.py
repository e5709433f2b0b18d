"""Hand-written failures by kind: what systems print and count when they fail so, with what else is seen around it."""

from collections.abc import Sequence
from dataclasses import dataclass

from graph.state import Evidence, Finding, FindingKind, Suspect
from tests.graph.llms import incidents


@dataclass(frozen=True)
class Seen:
    """One finding about the suspect, or about ``by``."""

    kind: FindingKind
    signal: str
    excerpt: str = ""
    before: float | None = None
    now: float | None = None
    unit: str = ""
    by: str = ""
    minute: float = 0.0
    summary: str = ""


@dataclass(frozen=True)
class Failure:
    """What is seen of a suspect, the most telling not always first, and which category it is."""

    category: str
    component: str
    seen: tuple[Seen, ...]
    kind: str = ""

    def evidence(self) -> Evidence:
        """With the suspect first and nobody else."""
        findings = tuple(_finding(i, s, self.component) for i, s in enumerate(self.seen, start=1))
        own = tuple(f.id for f in findings if f.component == self.component)
        path = (incidents.hop(self.component, "checkout-service"),) if self.component != "checkout-service" else ()
        suspect = Suspect(component=self.component, score=0.9, findings=own, path=path, kind=self.kind)
        return Evidence(digest="d", findings=findings, suspects=(suspect,))


def _finding(number: int, seen: Seen, component: str) -> Finding:
    told = seen.summary or f"{seen.by or component} {seen.signal} departs from normal"
    return incidents.finding(
        number,
        seen.kind,
        seen.by or component,
        seen.signal,
        told,
        minute=seen.minute,
        observed=seen.now,
        baseline=seen.before,
        unit=seen.unit,
        excerpt=seen.excerpt,
    )


def log(text: str, **more: str | float) -> Seen:
    """A line that is new."""
    return Seen("log", text[:80], text, **more)  # type: ignore[arg-type]


def metric(name: str, before: float, now: float, unit: str = "") -> Seen:
    """A metric that moved."""
    return Seen("metric", name, before=before, now=now, unit=unit)


SLOW = metric("latency_p95_ms", 120, 2400, "ms")
FAILING = metric("error_rate_percent", 0.3, 31, "%")
TIMEOUTS = log("Request failed: timed out after 3000 ms")


FAILURES: Sequence[Failure] = (
    Failure(
        "connection_pool_exhaustion",
        "orders-api",
        (
            SLOW,
            FAILING,
            log("sqlalchemy.exc.TimeoutError: QueuePool limit of size 5 overflow 10 reached, connection timed out"),
        ),
    ),
    Failure(
        "connection_pool_exhaustion",
        "orders-db",
        (
            FAILING,
            log("FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute"),
            metric("DatabaseConnections", 80, 412, "count"),
        ),
        "database",
    ),
    Failure(
        "memory_exhaustion",
        "search",
        (
            SLOW,
            metric("jvm.memory.used", 1.2e9, 3.9e9, "bytes"),
            log("java.lang.OutOfMemoryError: Java heap space"),
            Seen("status", "ecs.running_tasks", "OutOfMemoryError: Container killed, exit code 137", 3, 1),
        ),
    ),
    Failure(
        "memory_exhaustion",
        "thumbnailer",
        (FAILING, log("RequestId: 8f1 Error: Runtime exited with error: signal: killed Runtime.ExitError")),
    ),
    Failure(
        "rate_limited_dependency",
        "maps-api",
        (FAILING, log("GET /geocode answered 429 Too Many Requests, Retry-After: 30", by="checkout-service")),
        "external",
    ),
    Failure(
        "rate_limited_dependency",
        "inventory-table",
        (FAILING, log("ProvisionedThroughputExceededException: The level of configured throughput was exceeded")),
    ),
    Failure("cpu_saturation", "pricing", (SLOW, metric("CPUUtilization", 34, 96, "Percent"), TIMEOUTS)),
    Failure("slow_dependency", "recommendations", (SLOW, log("Read timed out", by="checkout-service"), TIMEOUTS)),
    Failure("traffic_surge", "web", (metric("RequestCount requests", 900, 5400, "req/min"), SLOW, TIMEOUTS)),
    Failure(
        "unhealthy_tasks",
        "profile",
        (
            FAILING,
            Seen("status", "ecs.healthy_tasks", "Target.ResponseCodeMismatch: 3", now=1, before=4),
            log("Task failed ELB health checks in target group profile"),
        ),
    ),
    Failure(
        "code_fault",
        "invoices",
        (
            FAILING,
            log("TypeError: Cannot read properties of undefined (reading 'total') at invoice.js:88"),
            Seen("trace", "POST /invoices", "error=TypeError", summary="12 of 90 spans failed with TypeError"),
        ),
    ),
    Failure(
        "missing_calls",
        "orders-api",
        (
            Seen(
                "trace",
                "POST /orders → mailer",
                summary="80 of 90 requests “POST /orders” of orders-api did not call mailer: 11% did, 100% before.",
            ),
        ),
    ),
    Failure(
        "bad_deploy",
        "invoices",
        (
            log("KeyError: 'currency'", minute=-2),
            FAILING,
            Seen(
                "change",
                "deploy v41",
                minute=-4,
                summary="invoices: deploy “release 41” (v41) at 09:11:00 UTC; 2.0 minutes before its first deviation.",
            ),
        ),
    ),
    Failure(
        "bad_deploy",
        "profile",
        (
            Seen(
                "status",
                "kubernetes.available_replicas",
                "ImagePullBackOff: Back-off pulling image profile:9",
                3,
                0,
                summary="profile kubernetes.available_replicas is 0, expected 3: its image cannot be had.",
            ),
            FAILING,
        ),
    ),
    Failure(
        "bad_configuration",
        "orders-api",
        (
            log("HikariPool-1 - Connection is not available, request timed out after 5000ms", minute=-1),
            metric("hikaricp.connections.active", 18, 5),
            Seen(
                "change",
                "DB_POOL_SIZE 20 -> 5",
                minute=-3,
                summary="orders-api: configuration “DB_POOL_SIZE 20 -> 5” at 09:12:00 UTC; 2.0 minutes before its first"
                " deviation; what fails names it too: pool.",
            ),
        ),
    ),
    Failure(
        "bad_configuration",
        "mailer",
        (FAILING, log("Error: required environment variable SMTP_HOST is not set")),
    ),
    Failure(
        "dependency_outage",
        "tax-service-eu",
        (FAILING, Seen("trace", "checkout-service → tax-service-eu: 503", "error=503 Service Unavailable", 0, 97, "%")),
        "external",
    ),
    Failure(
        "dependency_outage",
        "inventory",
        (log("dial tcp 10.0.3.7:8080: connect: connection refused (inventory)", by="checkout-service"), TIMEOUTS),
    ),
    Failure(
        "database_degradation",
        "orders-db",
        (
            SLOW,
            metric("DiskQueueDepth", 0.4, 61),
            log("ERROR: canceling statement due to lock timeout", by="checkout-service"),
        ),
        "database",
    ),
    Failure(
        "database_degradation",
        "catalog-mysql",
        (log("ERROR 1205 (HY000): Lock wait timeout exceeded; try restarting transaction"), TIMEOUTS, SLOW),
    ),
    Failure(
        "database_degradation",
        "orders-db",
        (metric("CPUUtilization", 31, 98, "Percent"), metric("ReadLatency", 0.002, 0.09, "s")),
        "database",
    ),
    Failure(
        "cache_failure",
        "session-cache",
        (
            log("OOM command not allowed when used memory > 'maxmemory'", by="checkout-service"),
            metric("Evictions", 0, 5200),
            metric("DatabaseMemoryUsagePercentage", 61, 99.8, "Percent"),
        ),
        "cache",
    ),
    Failure(
        "cache_failure",
        "redis",
        (metric("CacheHitRate", 96, 12, "%"), metric("Evictions", 3, 900), SLOW),
    ),
    Failure(
        "queue_backlog",
        "fulfilment",
        (
            Seen(
                "topology",
                "ApproximateAgeOfOldestMessage",
                now=1900,
                before=4,
                unit="s",
                summary="fulfilment: work waits for it in orders-queue. orders-queue ApproximateAgeOfOldestMessage rose"
                " from 4 s to 1,900 s from 09:15:00 UTC on.",
            ),
            SLOW,
        ),
    ),
    Failure("queue_backlog", "ledger", (metric("kafka.consumer_lag", 12, 48000), TIMEOUTS)),
    Failure(
        "concurrency_limit",
        "resize-images",
        (metric("Throttles", 0, 830), metric("ConcurrentExecutions", 40, 100), FAILING),
    ),
    Failure(
        "concurrency_limit",
        "gateway",
        (SLOW, TIMEOUTS, log("java.util.concurrent.RejectedExecutionException: Task rejected from ThreadPoolExecutor")),
    ),
    Failure(
        "disk_full",
        "orders-db",
        (
            FAILING,
            log('ERROR: could not extend file "base/16384/2619": No space left on device'),
            metric("FreeStorageSpace", 9.1e10, 2.0e7, "Bytes"),
        ),
        "database",
    ),
    Failure("disk_full", "audit-log", (log("OSError: [Errno 28] No space left on device: '/var/log/audit'"), FAILING)),
    Failure(
        "network_fault",
        "shipping",
        (log("read tcp 10.0.3.7:443: connection reset by peer"), metric("tcp.retransmits", 2, 640), TIMEOUTS),
    ),
    Failure("network_fault", "nat-egress", (metric("ErrorPortAllocation", 0, 3100), TIMEOUTS)),
    Failure(
        "expired_certificate",
        "partner-api",
        (
            FAILING,
            log(
                "x509: certificate has expired or is not yet valid: current time is after 2024-12-20T09:14:59Z",
                by="checkout-service",
            ),
        ),
        "external",
    ),
    Failure("expired_certificate", "auth", (FAILING, log("Error: certificate has expired code: CERT_HAS_EXPIRED"))),
    Failure(
        "dns_failure",
        "shipping",
        (FAILING, log("getaddrinfo ENOTFOUND shipping.internal.example"), TIMEOUTS),
    ),
    Failure(
        "dns_failure",
        "billing",
        (log("java.net.UnknownHostException: billing.svc.cluster.local: Name or service not known"), TIMEOUTS),
    ),
    Failure(
        "llm_provider_outage",
        "anthropic",
        (
            Seen(
                "metric",
                "llm errors per call{claude-sonnet}",
                '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
                0.2,
                88,
                "%",
            ),
            SLOW,
        ),
        "external",
    ),
    Failure(
        "llm_provider_outage",
        "openai",
        (
            log(
                "openai.RateLimitError: Error code: 429 - You exceeded your current quota, 'insufficient_quota'",
                by="checkout-service",
            ),
            FAILING,
        ),
        "external",
    ),
    Failure(
        "prompt_regression",
        "support-bot",
        (
            metric("llm.score.success.faithfulness", 0.93, 0.41),
            metric("llm completion tokens per call", 240, 910, "tokens/call"),
            Seen(
                "change",
                "prompt “answer” version 14 first used, before: 13",
                minute=-5,
                summary="support-bot: configuration “prompt “answer” version 14 first used, before: 13”"
                " at 09:10:00 UTC; 5.0 minutes before its first deviation.",
            ),
        ),
    ),
    Failure("unknown", "reports", (metric("widgets.painted", 10, 40), metric("queue_manager_version", 1, 2))),
    Failure("unknown", "reports", (FAILING, TIMEOUTS)),
)
