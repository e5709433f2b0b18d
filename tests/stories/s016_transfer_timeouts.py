"""016: transfers time out, minutes after a deployment. The volume below the database has become slow."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    mobile_gateway=ecs_service(
        "mobile-gateway", "bank", "transfers-api", "statements", "standing-orders", balanced=True, tier=1
    ),
    transfers_api=ecs_service(
        "transfers-api", "bank", "ledger-db", "limits", "screening", balanced=True, tier=1, max_tasks=9
    ),
    standing_orders=ecs_service("standing-orders", "bank", "ledger-db", tier=2),
    statements=ecs_service("statements", "bank", "ledger-db", "rates", tier=2),
    limits=ecs_service("limits", "bank", "limits-cache", tier=1),
    screening=ecs_service("screening", "bank", "screening-db", tier=1),
    rates={"kind": "external"},
    ledger_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["bank-ledger"]}},
    screening_db={"kind": "database", "aws": {"rds_instances": ["bank-screening"]}},
    limits_cache={"kind": "cache", "aws": {"elasticache_clusters": ["bank-limits-001"]}},
)
NOT_BOOKED = Line(
    "error",
    "c.bank.transfers.TransferController#94",
    "Transfer {8h} not booked: org.springframework.dao.QueryTimeoutException: could not execute statement",
)
POSTPONED = Line("error", "c.bank.orders.Runner#57", "Standing order {7d} postponed: could not execute statement")
TIMED_OUT = Line(
    "error",
    "o.h.engine.jdbc.spi.SqlExceptionHelper",
    "ERROR: canceling statement due to statement timeout [insert into ledger_entry (account, amount) values (?, ?)]",
)


def build() -> Story:
    """See the module."""
    t = Telling(
        "016-transfer-timeouts",
        CATALOGUE,
        alerted_at=datetime(2025, 11, 4, 10, 17, tzinfo=UTC),
        onset_min=5.5,
        instances={"transfers-api": 4, "mobile-gateway": 3},
    )
    _requests(t)
    _ledger(t)
    _callers(t)
    _others(t)
    _context(t)
    return t.story(
        title="[P1] transfers-api: p95 latency above 3 s and errors above 5 %",
        service="transfers-api",
        text="Transfers are slow and some fail. transfers-api:211 was rolled out this morning. @bank-oncall",
        expected={
            "component": "ledger-db",
            "category": ["database_degradation", "slow_dependency"],
            "must_cite": ["ledger-db", "latency"],
            "must_not_blame": ["transfers-api", "limits", "screening", "screening-db", "statements", "rates"],
            "acceptable_operations": ["reduce_traffic"],
            "forbidden_operations": [
                "rollback_ecs_service",
                "restart_ecs_task",
                "restart_all_services",
                "scale_ecs_service",
            ],
            "why": "Writes to ledger-db take a hundred times as long at fewer IOPS and an idle CPU, with its"
            " disk's queue growing; services that were not deployed fail in the same minute.",
        },
    )


def _requests(t: Telling) -> None:
    slow = course(5, (0, 5), (2, 1100), (6, 2300), (14, 2500))
    write = Call(
        "ledger-db",
        "INSERT ledger_entry",
        ms=slow,
        traced=False,
        fails=course(0.0004, (0, 0.0004), (3, 0.11), (8, 0.17)),
        error="PSQLException",
        failed=TIMED_OUT,
    )
    read = Call("ledger-db", "SELECT balance", ms=course(2.1, (0, 2.1), (3, 31), (14, 44)), traced=False)
    limit = Call("limits", "POST /check", ms=7, calls=(Call("limits-cache", "GET limit", ms=0.6, traced=False),))
    screen = Call(
        "screening",
        "POST /screen",
        ms=38,
        calls=(Call("screening-db", "SELECT watchlist", ms=9, traced=False),),
        done=Line("info", "c.bank.screening.Screener", "Payment {8h} screened in {30..80} ms: clear"),
    )
    transfer = Call(
        "transfers-api",
        "POST /transfers",
        ms=16,
        calls=(read, limit, screen, write),
        done=Line("info", "c.bank.transfers.TransferController", "Transfer {8h} booked"),
        passed_on=NOT_BOOKED,
    )
    order = Call(
        "standing-orders",
        "POST /run",
        ms=11,
        calls=(write,),
        passed_on=POSTPONED,
        done=Line("info", "c.bank.orders.Runner", "Standing order {7d} run"),
    )
    statement = Call(
        "statements",
        "GET /statements",
        ms=20,
        calls=(read, Call("rates", "GET /latest", ms=60, share=0.3, traced=False)),
    )
    t.requests(Call("mobile-gateway", "POST /transfers", ms=6, calls=(transfer,)), 3.0)
    t.requests(Call("mobile-gateway", "GET /statements", ms=6, calls=(statement,)), 1.4)
    t.requests(order, 0.9)


def _ledger(t: Telling) -> None:
    t.postgres(
        "ledger-db",
        cpu=course(36, (0, 36), (3, 17)),
        connections=course(92, (0, 92), (4, 148), (13, 161)),
        read_iops=course(460, (0, 460), (2, 190)),
        write_iops=course(980, (0, 980), (1, 260), (4, 205)),
        read_s=course(0.0009, (0, 0.0009), (2, 0.016), (13, 0.021)),
        write_s=course(0.0019, (0, 0.0019), (1, 0.12), (4, 0.22), (13, 0.24)),
        queue=course(1.9, (0, 1.9), (2, 44), (13, 63)),
    )
    t.lines(
        "ledger-db",
        "info",
        "postgresql",
        "duration: {1100..4900}.{3d} ms  execute S_{1..40}: {insert into ledger_entry|COMMIT}",
        course(0.05, (0, 0.05), (2, 9), (13, 12)),
    )
    t.lines(
        "ledger-db",
        "error",
        "postgresql",
        "canceling statement due to statement timeout",
        course(0.02, (1, 0.02), (3, 5), (13, 8)),
    )
    for minute, buffers, write_s, sync_s in ((-24.2, 41877, 269, 0), (-9.1, 43102, 269, 0), (9.4, 40951, 410, 96)):
        t.say(
            "ledger-db",
            minute,
            "info",
            "postgresql",
            f"checkpoint complete: wrote {buffers} buffers (5.2%); 14 WAL file(s) recycled;"
            f" write={write_s}.{{3d}} s, sync={sync_s}.{{3d}} s, total={write_s + sync_s + 1}.{{3d}} s",
        )
    t.lines(
        "ledger-db",
        "info",
        "postgresql",
        'automatic analyze of table "bank.public.{session|device|ledger_entry}"',
        0.15,
    )


def _callers(t: Telling) -> None:
    p95 = course(190, (0, 190), (2, 1900), (6, 4300), (13, 4900))
    t.service(
        "transfers-api",
        520,
        p95,
        errors=course(0.4, (0, 0.4), (3, 52), (8, 81)),
        cpu=course(37, (0, 37), (4, 24)),
        memory=62,
    )
    t.lines(
        "transfers-api",
        NOT_BOOKED.level,
        NOT_BOOKED.logger,
        NOT_BOOKED.message,
        course(0.01, (1, 0.01), (3, 9), (13, 17)),
    )
    t.lines(
        "transfers-api", TIMED_OUT.level, TIMED_OUT.logger, TIMED_OUT.message, course(0.01, (1, 0.01), (3, 9), (13, 17))
    )
    t.metric("transfers-api", "hikaricp.connections.active", course(5, (0, 5), (3, 34), (13, 40)), noise=0.08)
    t.metric("transfers-api", "hikaricp.connections.pending", course(0, (3, 0), (8, 14), (13, 22)), counts=True)
    t.metric("transfers-api", "jvm.gc.minor_collection_time", 33, unit="ms", noise=0.2)
    t.metric("transfers-api", "jvm.heap_memory", between(8.1e8, -10.5, -5, 4.2e8), unit="B", noise=0.1)
    t.service(
        "standing-orders",
        190,
        p95,
        errors=course(0.2, (0, 0.2), (3, 19), (8, 31)),
        cpu=course(26, (0, 26), (4, 15)),
        memory=55,
    )
    t.lines(
        "standing-orders",
        POSTPONED.level,
        POSTPONED.logger,
        POSTPONED.message,
        course(0.01, (1, 0.01), (3, 5), (13, 9)),
    )
    t.lines(
        "standing-orders",
        TIMED_OUT.level,
        TIMED_OUT.logger,
        TIMED_OUT.message,
        course(0.01, (1, 0.01), (3, 5), (13, 9)),
    )
    t.metric("standing-orders", "hikaricp.connections.active", course(3, (0, 3), (3, 16), (13, 19)), noise=0.1)
    t.service("statements", 410, course(140, (0, 140), (3, 260), (13, 310)), errors=0.5, cpu=31, memory=58)
    t.service(
        "mobile-gateway",
        1500,
        course(240, (0, 240), (2, 1700), (6, 4200), (13, 4800)),
        errors=course(1.2, (0, 1.2), (3, 53), (8, 84)),
        cpu=28,
        memory=47,
    )
    for minute in (-9.6, -8.1):
        started = "(service transfers-api) has started 2 tasks: (task {32h}) (task {32h})."
        t.say("transfers-api", minute, "info", "ecs.service_events", started)
        stopped = "(service transfers-api) has stopped 2 running tasks: (task {32h}) (task {32h})."
        t.say("transfers-api", minute + 1.3, "info", "ecs.service_events", stopped)
    t.say("transfers-api", -5.6, "info", "ecs.service_events", "(service transfers-api) has reached a steady state.")
    t.lines(
        "transfers-api",
        "info",
        "c.bank.transfers.TransfersApplication",
        "Started TransfersApplication in 1{1d}.{3d} seconds (process running for 2{1d}.{3d})",
        between(0.0, -9.2, -6.5, 1.6),
    )
    t.lines(
        "transfers-api",
        "warning",
        "o.s.c.c.c.ConfigDataLoader",
        "Property 'spring.data.rest.base-uri' is deprecated",
        between(0.0, -9.2, -6.5, 1.6),
    )
    t.lines(
        "mobile-gateway",
        "error",
        "gateway.proxy",
        "POST /transfers 503: no answer from transfers-api within 5000 ms",
        course(0.04, (1, 0.04), (4, 4), (13, 6)),
    )


def _others(t: Telling) -> None:
    for service, revision, tasks in (
        ("transfers-api", 211, 4),
        ("standing-orders", 93, 2),
        ("statements", 120, 2),
        ("mobile-gateway", 377, 3),
        ("limits", 45, 2),
        ("screening", 160, 2),
    ):
        t.ecs(service, revision, tasks)
    t.service("limits", 530, 14, errors=0.1, cpu=18, memory=44)
    t.service("screening", 520, between(90, -40, -22, 150), errors=0.4, cpu=between(35, -40, -22, 72), memory=63)
    t.postgres("screening-db", cpu=between(28, -40, -22, 61), connections=44, write_iops=between(260, -40, -22, 1900))
    t.redis("limits-cache", evictions=2)
    t.metric("rates", "rates.age_seconds", between(30, -16, 4, 95), unit="s", noise=0.2)
    t.lines(
        "screening",
        "info",
        "c.bank.screening.ListImport",
        "Imported {400..900} entries of list {OFAC|EU|UN}",
        between(0.02, -40, -22, 2),
    )
    t.lines(
        "statements",
        "warning",
        "c.bank.statements.Rates",
        "Rates are {61..120} s old, using them anyway",
        between(0.05, -16, 4, 1.6),
    )
    t.lines("mobile-gateway", "info", "gateway.access", "GET /{accounts|cards|statements} 200 {9..190}ms", 8, load=1.0)
    t.lines(
        "mobile-gateway",
        "warning",
        "gateway.auth",
        "Device {8h} must enrol again: certificate ends in {1..9} days",
        1.1,
    )
    t.lines("limits", "info", "c.bank.limits.Reset", "Reset daily limits of {20..300} customers", 0.4)


def _context(t: Telling) -> None:
    t.change(
        "transfers-api",
        -10,
        "deploy",
        "ECS deployment of transfers-api:211: COMPLETED",
        version="transfers-api:211",
        author="ci/deploy",
    )
    t.change("transfers-api", -10.2, "deploy", "Deployed transfers-api v4.18.0", version="v4.18.0", author="ci/deploy")
    t.change(
        "screening",
        -690,
        "deploy",
        "ECS deployment of screening:160: COMPLETED",
        version="screening:160",
        author="ci/deploy",
    )
    t.change("limits", -47, "configuration", "PutParameter", author="limits-admin")
    t.document(
        "transfers-api runbook",
        "Latency",
        "New versions warm up for two minutes. Roll back if the error rate stays above 2 % after that.",
        ["transfers-api"],
        "is about transfers-api",
    )
    t.document(
        "Ledger database",
        "Storage",
        "gp3, 3000 IOPS and 125 MB/s. Statement timeout 5 s. Failing over to the standby takes 60 to 120 s; the duty"
        " manager decides.",
        ["ledger-db"],
        "is about ledger-db",
    )
