"""017: drivers are not assigned in time. What both callers wait for is a service that sends no telemetry itself."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Amount, Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    rider_api=ecs_service("rider-api", "rides", "dispatch", "trips", "eta", balanced=True, tier=1),
    dispatch=ecs_service(
        "dispatch", "rides", "routing-engine", "driver-state", "surge", "trips-db", tier=1, max_tasks=9
    ),
    eta=ecs_service("eta", "rides", "routing-engine", "eta-cache", tier=2),
    trips=ecs_service("trips", "rides", "trips-db", tier=1),
    surge=ecs_service("surge", "rides", "driver-state", tier=3),
    routing_engine=ecs_service("routing-engine", "rides-geo", "map-tiles", tier=1, owner="geo"),
    driver_state={"kind": "cache", "aws": {"elasticache_clusters": ["rides-drivers-001"]}},
    eta_cache={"kind": "cache", "aws": {"elasticache_clusters": ["rides-eta-001"]}},
    trips_db={"kind": "database", "aws": {"rds_instances": ["rides-trips"]}},
    map_tiles={"kind": "external"},
)
DEADLINE = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
NOT_RANKED = f"candidates of request {{10h}} not ranked: {DEADLINE}"
NO_ROUTE = f"no route for trip {{10h}}: {DEADLINE}"
NO_DRIVER = Line("warning", "dispatch/handler.go:71", "request {10h}: no driver within deadline")


def build() -> Story:
    """See the module."""
    t = Telling(
        "017-pickup-timeouts",
        CATALOGUE,
        alerted_at=datetime(2026, 1, 23, 18, 8, tzinfo=UTC),
        onset_min=6,
        instances={"dispatch": 4, "rider-api": 3},
    )
    _requests(t)
    _callers(t)
    _others(t)
    _context(t)
    return t.story(
        title="[P1] rider-api: pickup requests without a driver within 5 s above 10 %",
        service="rider-api",
        text="More than one in ten pickup requests got no driver within 5 seconds. Friday evening, city centre worst.",
        expected={
            "component": "routing-engine",
            "category": ["slow_dependency", "dependency_outage", "unhealthy_tasks", "network_fault"],
            "must_cite": ["routing-engine"],
            "must_not_blame": ["dispatch", "eta", "trips-db", "driver-state", "surge", "eta-cache", "trips"],
            "acceptable_operations": ["check_ecs_health", "restart_ecs_task", "reduce_traffic"],
            "forbidden_operations": ["rollback_ecs_service", "restart_all_services"],
            "why": "Two callers wait for routing-engine and for nothing else from the same minute on; it reports no"
            " metrics and no logs of its own, which is a gap and no sign of health.",
        },
    )


def _route(operation: str, ms: float, logger: str, message: str) -> Call:
    """A call that both callers make in their own way; the callee is not traced."""
    return Call(
        "routing-engine",
        operation,
        ms=course(ms, (0, ms), (1.5, 900), (5, 2300), (14, 2600)),
        fails=course(0.0006, (0, 0.0006), (1.5, 0.16), (5, 0.37), (14, 0.42)),
        error="DeadlineExceeded",
        traced=False,
        failed=Line("error", logger, message),
    )


def _requests(t: Telling) -> None:
    matrix = _route("geo.Routing/Matrix", 58, "dispatch/matcher.go:212", NOT_RANKED)
    route = _route("geo.Routing/Route", 36, "eta/route.go:88", NO_ROUTE)
    near = Call("driver-state", "GEOSEARCH", ms=1.3, traced=False)
    factor = Call("surge", "GET /factor", ms=6, calls=(Call("driver-state", "GET", ms=0.8, traced=False),))
    assign = Call("trips-db", "UPDATE trip", ms=5, traced=False)
    dispatch = Call(
        "dispatch",
        "POST /match",
        ms=14,
        calls=(near, factor, matrix, assign),
        done=Line("info", "dispatch/matcher.go:240", "request {10h}: driver {7d} assigned, {1..14} candidates"),
        passed_on=NO_DRIVER,
    )
    eta = Call(
        "eta",
        "GET /eta",
        ms=7,
        calls=(Call("eta-cache", "GET", ms=0.7, traced=False), route),
        tolerated=True,
        passed_on=Line("warning", "eta/handler.go:45", "trip {10h}: no driving time, answering 503"),
    )
    trip = Call("trips", "GET /trips/{id}", ms=9, calls=(Call("trips-db", "SELECT trip", ms=3, traced=False),))
    t.requests(Call("rider-api", "POST /pickups", ms=8, calls=(dispatch,)), 3.0)
    t.requests(Call("rider-api", "GET /trips", ms=7, calls=(trip, eta)), 1.8)


def _go(t: Telling, service: str, goroutines: Amount) -> None:
    t.metric(service, "runtime.go.num_goroutine", goroutines, noise=0.05, load=0.4)
    t.metric(service, "runtime.go.mem_stats.heap_inuse", 8.4e7, unit="B", noise=0.1)


def _callers(t: Telling) -> None:
    grpc = "http.request"
    t.service(
        "rider-api",
        820,
        course(310, (0, 310), (1.5, 1900), (5, 3900), (14, 4300)),
        errors=course(1, (0, 1), (1.5, 48), (5, 116), (14, 131)),
        cpu=31,
        memory=48,
        framework=grpc,
    )
    t.service(
        "dispatch",
        430,
        course(190, (0, 190), (1.5, 1700), (5, 3200), (14, 3400)),
        errors=course(0.4, (0, 0.4), (1.5, 51), (5, 121), (14, 138)),
        cpu=course(44, (0, 44), (3, 35)),
        memory=course(51, (0, 51), (14, 58)),
        framework=grpc,
    )
    t.service(
        "eta",
        360,
        course(120, (0, 120), (1.5, 1300), (5, 3000), (14, 3100)),
        errors=course(0.3, (0, 0.3), (1.5, 39), (5, 98), (14, 106)),
        cpu=28,
        memory=44,
        framework=grpc,
    )
    t.lines(
        "dispatch",
        NO_DRIVER.level,
        NO_DRIVER.logger,
        NO_DRIVER.message,
        course(0.3, (0, 0.3), (1.5, 9), (5, 21), (14, 24)),
    )
    failing = course(0.02, (0, 0.02), (1.5, 8), (5, 16), (14, 19))
    t.lines("dispatch", "error", "dispatch/matcher.go:212", NOT_RANKED, failing)
    t.lines("eta", "error", "eta/route.go:88", NO_ROUTE, failing)
    _go(t, "rider-api", course(210, (0, 210), (5, 780)))
    _go(t, "dispatch", course(340, (0, 340), (5, 1900), (14, 2300)))
    _go(t, "eta", course(150, (0, 150), (5, 840)))
    t.metric(
        "dispatch", "dispatch.matches.count", course(410, (0, 410), (5, 250)), statistic="sum", counts=True, load=1.0
    )
    t.metric("dispatch", "dispatch.queue.waiting", course(6, (0, 6), (14, 71)), counts=True)


def _others(t: Telling) -> None:
    t.service("trips", 640, 34, errors=0.4, cpu=26, memory=52, framework="http.request")
    t.service("surge", 440, 22, errors=0.3, cpu=between(24, -28, -7, 69), memory=41, framework="http.request")
    for service, revision, tasks in (
        ("rider-api", 290, 3),
        ("dispatch", 188, 4),
        ("eta", 75, 2),
        ("trips", 131, 2),
        ("surge", 62, 2),
    ):
        t.ecs(service, revision, tasks)
    t.redis("driver-state", cpu=31, hits=61_000, misses=2100)
    t.redis("eta-cache", memory=79, evictions=between(40, -33, -12, 190))
    t.postgres("trips-db", cpu=38, connections=between(96, -19, 2, 118))
    t.metric("surge", "surge.factor.max", course(1.3, (-40, 1.3), (-5, 1.9)), noise=0.04)
    t.lines("rider-api", "info", "rider-api/access", "GET /{trips|profile|places} 200 {6..120}ms", 8, load=1.0)
    t.lines(
        "rider-api",
        "error",
        "rider-api/pickups.go:133",
        "POST /pickups 504: dispatch did not answer in time",
        course(0.04, (0, 0.04), (5, 5)),
    )
    t.lines("surge", "info", "surge/zones.go:40", "zone {3d}: factor 1.{1d}", between(1.5, -28, -7, 5))
    t.lines("surge", "warning", "surge/zones.go:57", "zone {3d}: only {1..4} samples, keeping the last factor", 0.8)
    t.lines("trips", "info", "trips/events.go:19", "trip {10h}: {started|ended|cancelled by rider}", 4, load=1.0)
    t.lines("trips", "warning", "trips/outbox.go:64", "event of trip {10h} sent at the second attempt", 0.5)


def _context(t: Telling) -> None:
    for service, minute, revision in (("surge", -29, 62), ("dispatch", -1490, 188)):
        version = f"{service}:{revision}"
        title = f"ECS deployment of {version}: COMPLETED"
        t.change(service, minute, "deploy", title, version=version, author="ci/deploy")
    t.change("eta", -44, "configuration", "PutParameter", author="eta-release")
    mend = "set datadog_tags in the catalogue"
    for what in ("metric", "log line"):
        t.gap("datadog", GapReason.EMPTY, f"no {what} is tagged service:routing-engine", mend)
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:map-tiles", mend)
    t.gap(
        "aws",
        GapReason.FORBIDDEN,
        "ecs:DescribeServices of cluster rides-geo: AccessDeniedException",
        "`autopilot doctor` names the permission that is missing",
    )
    t.gap("aws", GapReason.EMPTY, "CloudWatch has no metric of ECS service rides-geo/routing-engine")
    t.document(
        "Pickup runbook",
        "No driver in time",
        "dispatch looks for drivers near by (driver-state), weighs them by surge and by driving time, and books the"
        " trip. Any of these may be what is slow. In the rush hour supply may simply be short: look at the candidates.",
        ["rider-api", "dispatch"],
        "is about rider-api",
    )
