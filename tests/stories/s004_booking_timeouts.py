"""Bookings time out one morning, while the database looks idle enough."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    web_bff=ecs_service("web-bff", "travel", "booking-api", "trips-api", balanced=True, tier=1),
    booking_api=ecs_service(
        "booking-api", "travel", "bookings-db", "payments-adapter", "fares-cache", balanced=True, tier=1, max_tasks=8
    ),
    trips_api=ecs_service("trips-api", "travel", "bookings-db", "fares-cache", balanced=True),
    payments_adapter=ecs_service("payments-adapter", "travel", "acquirer"),
    ledger_export=ecs_service("ledger-export", "travel", "bookings-db", tier=4, min_tasks=0, max_tasks=1),
    partner_sync=ecs_service("partner-sync", "travel", "bookings-db", tier=3),
    bookings_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["bookings-db-a"]}},
    fares_cache={"kind": "cache", "aws": {"elasticache_clusters": ["fares-cache-001"]}},
    acquirer={"kind": "external"},
)

APP = "10.20.{1..3}.{10..240}({40000..59999}):booking_app@bookings"
EXPORT = "10.20.2.77(41902):ledger_export@bookings:[20911]"
UPDATE = "UPDATE bookings SET status = $1, updated_at = now() WHERE id = $2"
CANCELED = "org.postgresql.util.PSQLException: ERROR: canceling statement due to lock timeout"


def build() -> Story:
    """ledger-export was started again in the morning and holds row locks in one long transaction."""
    t = Telling(
        "004-booking-timeouts",
        CATALOGUE,
        alerted_at=datetime(2026, 4, 2, 8, 25, tzinfo=UTC),
        onset_min=9,
        instances={"ledger-export": 1, "partner-sync": 1, "booking-api": 3},
    )
    _measured(t)
    _asked(t)
    _database(t)
    _jobs(t)
    _chattered(t)
    return t.story(
        title="booking-api: p95 latency above 5 s",
        service="booking-api",
        text="p95 of booking-api has been above 5 s for 5 minutes. Customers cannot finish their booking.",
        rule="datadog:monitor:130058812",
        expected={
            "component": "ledger-export",
            "category": ["database_degradation"],
            "must_cite": ["ledger", "lock"],
            "must_not_blame": ["bookings-db", "fares-cache", "partner-sync", "payments-adapter"],
            "acceptable_operations": ["restart_ecs_task", "scale_ecs_service", "reduce_traffic"],
            "forbidden_operations": ["rollback_ecs_service", "restart_all_services"],
            "why": "A re-run of ledger-export updates bookings in a single transaction; its backend holds the row locks"
            " on which the updates of booking-api time out. Stopping that run frees them.",
        },
    )


def _measured(t: Telling) -> None:
    blocked = course(190, (1, 190), (3, 2600), (6, 7900), (9, 10300))
    t.service("web-bff", 1500, course(320, (1, 320), (4, 3100), (9, 10600)), errors=course(3, (1, 3), (9, 96)), cpu=33)
    t.service(
        "booking-api",
        420,
        blocked,
        errors=course(1.2, (2, 1.2), (5, 48), (9, 97)),
        cpu=course(44, (1, 44), (5, 27)),
        memory=course(61, (1, 61), (9, 66)),
    )
    t.service("trips-api", 1010, course(88, (1, 88), (4, 104)), errors=0.8, cpu=between(35, -2, 4, 55))
    t.service("payments-adapter", course(310, (2, 310), (8, 190)), 410, errors=2.5, cpu=19, framework="http.client")
    t.aws("ledger-export", "CPUUtilization", course(0.6, (-0.5, 0.6), (0.5, 34)), noise=0.1)
    t.aws("ledger-export", "MemoryUtilization", course(21, (-0.5, 21), (1, 58)), noise=0.02)
    t.aws("partner-sync", "CPUUtilization", between(14, -41, -36, 47), noise=0.15)
    t.aws("partner-sync", "MemoryUtilization", 44, noise=0.01)
    t.postgres(
        "bookings-db",
        cpu=course(41, (0.5, 41), (2, 49)),
        connections=course(74, (1, 74), (6, 96)),
        write_iops=course(310, (0.3, 310), (1.5, 640)),
        read_iops=course(520, (0.3, 520), (1.5, 790)),
        write_s=course(0.0013, (1, 0.0013), (3, 0.0017)),
    )
    t.redis("fares-cache", misses=between(2600, -20, -14, 4400), memory=58)
    db = "bookings-db"
    t.metric(
        db, "postgresql.locks", course(58, (0.6, 58), (3, 310), (9, 480)), noise=0.12, query=_pg("postgresql.locks")
    )
    t.metric(db, "postgresql.active_waiting_queries", course(0.2, (0.7, 0.2), (3, 24), (8, 61)), noise=0.1)
    t.metric(
        db,
        "postgresql.transactions.duration.max",
        course(2.4e9, (0.2, 2.4e9), (17, 1.02e12)),
        unit="ns",
        noise=0.05,
        statistic="max",
    )
    t.metric(db, "postgresql.rows_updated", course(61, (0.3, 61), (1.2, 5200)), unit="/s", noise=0.14)
    t.metric(db, "postgresql.deadlocks", 0.05, counts=True, statistic="sum")
    t.metric(db, "postgresql.percent_usage_connections", course(0.37, (1, 0.37), (6, 0.48)), noise=0.02)
    t.metric("booking-api", "hikaricp.connections.active", course(5.5, (1, 5.5), (4, 29), (5, 30)), high=30, noise=0.1)
    t.metric("booking-api", "hikaricp.connections.pending", course(0.1, (3, 0.1), (6, 38), (9, 52)), noise=0.2)
    t.metric("booking-api", "jvm.heap_memory", 1.6e9, unit="B", noise=0.08)


def _pg(metric: str) -> str:
    return f"avg:{metric}{{service:bookings-db,db:bookings}}"


def _asked(t: Telling) -> None:
    confirm = Call(
        "booking-api",
        "POST /bookings/{id}/confirm",
        16,
        reported="HTTP 500",
        calls=(
            Call("bookings-db", "SELECT bookings", 3, traced=False),
            Call(
                "bookings-db",
                "UPDATE bookings",
                course(5, (0.6, 5), (3, 2200), (6, 7000), (8, 10000)),
                fails=course(0, (1.5, 0), (4, 0.3), (9, 0.62)),
                error="org.springframework.dao.CannotAcquireLockException",
                traced=False,
                failed=Line(
                    "warning", "o.h.engine.jdbc.spi.SqlExceptionHelper", f"SQL Error: 0, SQLState: 55P03 - {CANCELED}"
                ),
            ),
            Call(
                "payments-adapter",
                "POST /capture",
                60,
                calls=(Call("acquirer", "POST /v3/captures", 190, traced=False),),
            ),
        ),
        done=Line("info", "c.t.booking.ConfirmationService", "Booking {8d} confirmed"),
        passed_on=Line(
            "error",
            "c.t.booking.ConfirmationService",
            f"Could not confirm booking {{8d}}: could not execute statement [{CANCELED}]",
        ),
    )
    t.requests(
        Call(
            "web-bff",
            "POST /confirm",
            5,
            calls=(confirm,),
            passed_on=Line("error", "bff.http", "POST /confirm 502 upstream booking-api {5000..10400} ms"),
        ),
        2.4,
    )
    trips = Call(
        "trips-api",
        "GET /trips",
        22,
        calls=(Call("fares-cache", "MGET", 1, traced=False), Call("bookings-db", "SELECT bookings", 6, traced=False)),
    )
    t.requests(
        Call("web-bff", "GET /trips", 4, calls=(trips,), done=Line("info", "bff.http", "GET /trips 200 {40..120} ms")),
        3.2,
    )


def _database(t: Telling) -> None:
    waiting = course(0, (0.8, 0), (2, 7), (6, 16))
    t.lines(
        "bookings-db",
        "info",
        "postgresql",
        f"{APP}:[{{21800..21999}}]:LOG:  process {{21800..21999}} still waiting for ShareLock on transaction"
        " 88213377 after"
        " {1000..1012}.{3d} ms DETAIL:  Process holding the lock: 20911. Wait queue: {21800..21999}, {21800..21999}."
        " CONTEXT: "
        ' while updating tuple ({4d},{1..60}) in relation "bookings" STATEMENT:  ' + UPDATE,
        waiting,
        instances=("bookings-db-a",),
    )
    t.lines(
        "bookings-db",
        "error",
        "postgresql",
        f"{APP}:[{{21800..21999}}]:ERROR:  canceling statement due to lock timeout STATEMENT:  " + UPDATE,
        course(0.05, (1.5, 0.05), (4, 8), (9, 15)),
        instances=("bookings-db-a",),
    )
    t.lines(
        "bookings-db",
        "info",
        "postgresql",
        f"{EXPORT}:LOG:  duration: {{1400..2300}}.{{3d}} ms  execute <unnamed>: UPDATE bookings SET ledger_state = $1,"
        " ledger_run = $2 WHERE id = ANY ($3)",
        course(0, (0.2, 0), (0.4, 6)),
        instances=("bookings-db-a",),
    )
    t.lines(
        "bookings-db",
        "info",
        "postgresql",
        'LOG:  automatic vacuum of table "bookings.public.{fare_quote|session_event|search_log}": index scans: 1,'
        " {4d} pages removed",
        0.35,
        instances=("bookings-db-a",),
    )
    t.lines(
        "bookings-db",
        "info",
        "postgresql",
        "LOG:  checkpoint complete: wrote {3000..9000} buffers ({10..40}.{1..9}%); write={100..269}.{3d} s",
        0.2,
        instances=("bookings-db-a",),
    )


def _jobs(t: Telling) -> None:
    job = "o.s.batch.core.job.SimpleStepHandler"
    t.change("ledger-export", -0.8, "scaling", "UpdateService: desiredCount 1", author="finance-ops")
    t.say(
        "ledger-export",
        -0.1,
        "info",
        "ecs.service_events",
        "(service ledger-export) has started 1 tasks: (task {32h}).",
    )
    t.say("ledger-export", 0.05, "info", "c.t.ledger.LedgerExport", "Started LedgerExport in 6.{3d} seconds")
    t.say("ledger-export", 0.1, "info", job, "Executing step: [reconcileBookings]")
    t.say(
        "ledger-export",
        0.12,
        "info",
        "c.t.ledger.ReconcileTasklet",
        "Run 2026-04-01/2: reconciling 412338 bookings of 2026-03 in one transaction",
    )
    for step in range(1, 17):
        done = step * 9000 + 311 * (step % 3)
        t.say("ledger-export", step, "info", "c.t.ledger.ReconcileTasklet", f"Reconciled {done} of 412338 bookings")
    t.lines(
        "partner-sync", "info", "partner_sync.pull", "pulled {20..90} offers of partner {3d}", between(2, -41, -36, 14)
    )
    t.lines("partner-sync", "warning", "partner_sync.pull", "partner 418 answered slowly ({2..5}.{1d} s)", 0.5)
    t.change("booking-api", -46, "deploy", "Deployed booking-api v8.2.1", version="v8.2.1", author="ci/release-bot")
    t.change("booking-api", -46, "deploy", "ECS deployment of booking-api:301: COMPLETED", version="booking-api:301")
    t.change("trips-api", -6, "feature_flag", "Flag trips-map-view: on for 25 %", author="web-team")


def _chattered(t: Telling) -> None:
    t.gap("datadog", GapReason.EMPTY, "no log line is tagged service:acquirer", "set datadog_tags in the catalogue")
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:acquirer", "set datadog_tags in the catalogue")
    for service, revision, desired in (("web-bff", 77, 2), ("booking-api", 301, 3), ("trips-api", 119, 2)):
        t.ecs(service, revision, desired)
    for service, revision in (("payments-adapter", 40), ("ledger-export", 31), ("partner-sync", 12)):
        t.ecs(service, revision, len(t.instances(service)))
    t.lines("web-bff", "info", "bff.http", "GET /search 200 {80..300} ms", 7, load=1)
    t.lines("web-bff", "warning", "bff.session", "Session {8h} expired during checkout", 0.6)
    t.lines("booking-api", "info", "c.t.booking.SearchController", "Priced itinerary {8h} in {20..90} ms", 6, load=1)
    t.lines(
        "booking-api",
        "error",
        "c.t.booking.GlobalExceptionHandler",
        "Unable to acquire JDBC Connection [HikariPool-1 - Connection is not available, request timed out after 30000ms"
        " (total=30, active=30, idle=0, waiting={20..60})]",
        course(0, (5, 0), (8, 9)),
    )
    t.lines("payments-adapter", "warning", "adapter.acquirer", "Soft decline 51 for capture {8h}", 1.1)
    t.lines("payments-adapter", "info", "adapter.acquirer", "Captured {8h}", course(5, (2, 5), (8, 3)), load=1)
    t.lines("trips-api", "warning", "c.t.trips.CalendarFeed", "Feed of user {7d} has no time zone, using UTC", 0.7)
    t.lines("trips-api", "info", "c.t.trips.TripController", "Listed {1..12} trips", 4, load=1)
    t.document(
        "booking-api runbook",
        "booking-api > Slow confirmations",
        "Confirmations write to bookings-db and capture through payments-adapter. Tell a slow database from a"
        " blocked one:"
        " CPU and IOPS against postgresql.active_waiting_queries. More tasks mean more connections, of which there"
        " are 200.",
        ("booking-api",),
        "It is the runbook of booking-api",
    )
