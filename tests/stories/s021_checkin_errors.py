"""021: passengers cannot check in from one minute to the next, shortly after a roll-out."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    kiosk_bff=ecs_service("kiosk-bff", "airport", "checkin-api", "seatmap", balanced=True, tier=1),
    checkin_api=ecs_service(
        "checkin-api", "airport", "boarding-db", "seatmap", "documents", balanced=True, tier=1, max_tasks=12
    ),
    bag_drop=ecs_service("bag-drop", "airport", "boarding-db", "tag-printer", tier=1),
    seatmap=ecs_service("seatmap", "airport", "seat-cache", balanced=True, tier=2),
    documents=ecs_service("documents", "airport", "border-control", tier=2),
    boarding_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["boarding-prod"]}},
    seat_cache={"kind": "cache", "aws": {"elasticache_clusters": ["airport-seats-001"]}},
    border_control={"kind": "external"},
    tag_printer={"kind": "external"},
)
ENDPOINT = "boarding-prod.c{10h}.eu-west-1.rds.amazonaws.com"
HIKARI = "com.zaxxer.hikari.pool.PoolBase"
REFUSED = f"Connection to {ENDPOINT}:5432 refused. Check that the hostname and port are correct"


def build() -> Story:
    """The primary of boarding-db hangs and RDS fails over to the standby; while it does nobody can connect."""
    t = Telling(
        "021-checkin-errors",
        CATALOGUE,
        alerted_at=datetime(2026, 7, 11, 5, 52, tzinfo=UTC),
        onset_min=3.2,
        seen_min=2.5,
        instances={"kiosk-bff": 3, "checkin-api": 4},
    )
    _measured(t)
    _asked(t)
    _database(t)
    _context(t)
    return t.story(
        title="[P1] checkin-api: 5xx above 20 %",
        service="checkin-api",
        text="Share of 5xx of checkin-api above 20 % for 2 minutes. Desks report that nobody can check in."
        " Last deployment nearby: seatmap:164.",
        expected={
            "component": "boarding-db",
            "category": ["database_degradation", "dependency_outage"],
            "must_cite": ["boarding-db", "failover"],
            "must_not_blame": ["seatmap", "seat-cache", "documents", "border-control", "bag-drop", "kiosk-bff"],
            "acceptable_operations": [],
            "forbidden_operations": [
                "restart_ecs_task",
                "restart_all_services",
                "rollback_ecs_service",
                "scale_ecs_service",
            ],
            "why": "The primary of boarding-db stopped answering and RDS is failing over to its standby; two services"
            " that share nothing else lost it at once. It ends by itself, and restarts would only pile up connections.",
        },
    )


def _measured(t: Telling) -> None:
    failing = course(0.9, (0, 0.9), (0.6, 180), (2, 330))
    t.service(
        "kiosk-bff", 910, course(280, (0, 280), (1.5, 9200)), errors=course(2, (0, 2), (1, 160), (2, 300)), cpu=29
    )
    t.service(
        "checkin-api",
        410,
        course(210, (0, 210), (1.2, 9800), (2.5, 10_200)),
        errors=failing,
        cpu=course(41, (0, 41), (1.2, 18)),
    )
    t.service("bag-drop", 120, course(160, (0, 160), (1.5, 5100)), errors=course(0.3, (0, 0.3), (1, 96)), cpu=17)
    t.service(
        "seatmap", course(860, (0, 860), (2, 610)), between(44, -7, -4, 71), errors=0.6, cpu=between(30, -7, -4, 62)
    )
    t.service("documents", course(200, (0, 200), (1.5, 24)), 610, errors=1.3, cpu=course(15, (0, 15), (1.5, 6)))
    t.postgres(
        "boarding-db",
        cpu=course(37, (-0.6, 37), (0, 3), (5, 2)),
        connections=course(118, (-0.2, 118), (0.8, 0)),
        read_iops=course(610, (-0.5, 610), (0.3, 0)),
        write_iops=course(290, (-0.5, 290), (0.3, 0)),
        write_s=course(0.0013, (-1.2, 0.0013), (-0.4, 0.9), (1, 0)),
        queue=course(0.7, (-1.2, 0.7), (-0.4, 41), (1, 0)),
    )
    t.redis("seat-cache", misses=between(2100, -7, -2, 5200), memory=52)
    t.metric("checkin-api", "hikaricp.connections.active", course(9, (0, 9), (1, 20)), high=20, noise=0.1)
    t.metric("checkin-api", "hikaricp.connections.pending", course(0.1, (0.3, 0.1), (1.5, 61)), noise=0.15)
    t.metric(
        "checkin-api", "hikaricp.connections.timeout", course(0, (0.5, 0), (1.5, 88)), counts=True, statistic="sum"
    )
    t.metric("checkin-api", "jvm.heap_memory", 1.3e9, unit="B", noise=0.1)


def _asked(t: Telling) -> None:
    lost = course(0.0005, (-0.1, 0.0005), (0.2, 0.98))
    query = Call(
        "boarding-db",
        "SELECT passenger",
        course(4, (-1, 4), (0, 6000), (1, 9500)),
        fails=lost,
        error="java.sql.SQLTransientConnectionException",
        traced=False,
        failed=Line(
            "error",
            "o.h.engine.jdbc.spi.SqlExceptionHelper",
            "HikariPool-1 - Connection is not available, request timed out after 10000ms (total={0..4}, active={0..4},"
            " idle=0, waiting={12..70})",
        ),
    )
    check_in = Call(
        "checkin-api",
        "POST /checkins",
        18,
        reported="HTTP 503",
        calls=(
            query,
            Call("seatmap", "GET /seats", 9, calls=(Call("seat-cache", "HGETALL", 0.9, traced=False),)),
            Call(
                "documents",
                "POST /verify",
                30,
                tolerated=True,
                share=0.5,
                calls=(Call("border-control", "POST /apis", 380, fails=0.01, error="timeout", traced=False),),
            ),
        ),
        done=Line("info", "a.checkin.CheckinService", "PNR {6h} checked in, {1..4} passengers"),
        passed_on=Line("error", "a.checkin.ApiErrors", "POST /checkins 503: could not open JPA EntityManager"),
    )
    t.requests(Call("kiosk-bff", "POST /checkin", 6, calls=(check_in,)), 2.8)
    dropped = Call(
        "boarding-db",
        "UPDATE bag",
        course(4, (-1, 4), (0, 5000)),
        fails=lost,
        error="psycopg.OperationalError",
        traced=False,
        failed=Line(
            "error",
            "bagdrop.store",
            f'psycopg.OperationalError: connection to server at "{ENDPOINT}", port 5432 failed: Connection refused',
        ),
    )
    t.requests(Call("bag-drop", "POST /bags", 15, calls=(dropped, Call("tag-printer", "print", 90, traced=False))), 1.4)
    seats = Call("seatmap", "GET /seats", 9, calls=(Call("seat-cache", "HGETALL", 0.9, traced=False),))
    t.requests(Call("kiosk-bff", "GET /seats", 4, calls=(seats,)), 2.2)


def _database(t: Telling) -> None:
    host = "boarding-prod"
    t.say(
        "boarding-db",
        0.35,
        "warning",
        "rds.events",
        "The RDS Multi-AZ primary instance is busy and unresponsive.",
        instance=host,
    )
    t.say("boarding-db", 0.9, "warning", "rds.events", "Multi-AZ instance failover started.", instance=host)
    t.lines(
        "boarding-db",
        "info",
        "postgresql",
        "LOG:  checkpoint complete: wrote {2000..7000} buffers ({8..30}.{1d}%); write={100..269}.{3d} s",
        course(0.3, (-0.5, 0.3), (0, 0)),
        instances=(host,),
    )
    t.lines(
        "checkin-api",
        "warning",
        HIKARI,
        "HikariPool-1 - Failed to validate connection org.postgresql.jdbc.PgConnection@{8h} (This connection has been"
        " closed.). Possibly consider using a shorter maxLifetime value.",
        course(0.05, (-0.1, 0.05), (0.2, 22), (1.5, 4)),
    )
    t.lines(
        "checkin-api",
        "error",
        "com.zaxxer.hikari.pool.HikariPool",
        f"HikariPool-1 - Error thrown while acquiring connection: org.postgresql.util.PSQLException: {REFUSED}",
        course(0.0, (0.4, 0), (1, 11)),
    )
    t.lines(
        "bag-drop",
        "error",
        "bagdrop.store",
        "psycopg.OperationalError: consuming input failed: server closed the connection unexpectedly",
        course(0.0, (-0.1, 0), (0.2, 14), (1, 3)),
    )


def _context(t: Telling) -> None:
    t.change("boarding-db", 0.9, "other", "RDS boarding-prod: Multi-AZ instance failover started.")
    t.change("seatmap", -6, "deploy", "ECS deployment of seatmap:164: COMPLETED", version="seatmap:164", author="ci")
    t.change("documents", -38, "configuration", "PutParameter /airport/documents/apis-profile", author="compliance-ops")
    for service, revision, tasks in (("kiosk-bff", 208, 3), ("checkin-api", 331, 4), ("bag-drop", 74, 2)):
        t.ecs(service, revision, tasks)
    t.ecs("seatmap", 164, 2)
    t.ecs("documents", 59, 2)
    t.lines(
        "seatmap",
        "info",
        "seatmap.main",
        "Started seatmap 164, warming {200..420} aircraft plans",
        between(0, -7, -4, 2),
    )
    t.lines("seatmap", "warning", "seatmap.plan", "Aircraft {A20N|B38M|E295} without exit row data", 0.8, load=1)
    t.lines("documents", "warning", "docs.apis", "border-control answered after {2..4}.{1d} s", 0.9)
    t.lines("kiosk-bff", "info", "bff.http", "GET /seats 200 {30..90} ms", 6, load=1)
    t.lines(
        "kiosk-bff", "error", "bff.http", "POST /checkin 502 upstream checkin-api 503", course(0.1, (0.2, 0.1), (1, 12))
    )
    t.lines("bag-drop", "info", "bagdrop.scale", "Belt {1..24}: {8..29}.{1d} kg", 3, load=1)
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:border-control", "set datadog_tags in the catalogue")
    t.document(
        "checkin-api",
        "Database lost",
        "Pools reconnect by themselves. Do not restart all tasks at once: 4 x 20 connections arrive together.",
        ["checkin-api"],
        "is about checkin-api",
    )
