"""030: an anomaly monitor reports five times the usual requests, and CPU follows them."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Course, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    front_door=ecs_service("front-door", "tickets", "event-api", "basket-api", balanced=True, tier=1, max_tasks=30),
    event_api=ecs_service("event-api", "tickets", "event-cache", "event-db", balanced=True, tier=1, max_tasks=20),
    basket_api=ecs_service("basket-api", "tickets", "seat-lock", "basket-db", balanced=True, tier=1, max_tasks=20),
    seat_lock=ecs_service("seat-lock", "tickets", "lock-cache", tier=1),
    mailer=ecs_service("mailer", "tickets", "smtp", tier=3),
    event_db={"kind": "database", "aws": {"rds_instances": ["tickets-event"]}},
    basket_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["tickets-basket"]}},
    event_cache={"kind": "cache", "aws": {"elasticache_clusters": ["tickets-event-001"]}},
    lock_cache={"kind": "cache", "aws": {"elasticache_clusters": ["tickets-lock-001"]}},
    smtp={"kind": "external"},
)
RISE = ((-5, 1.0), (-2, 2.4), (2, 4.1), (6, 5.0))


def build() -> Story:
    """The planned load test before a sale: everything scales as it should, and nobody waits or fails."""
    t = Telling(
        "030-request-anomaly",
        CATALOGUE,
        alerted_at=datetime(2026, 3, 3, 6, 38, tzinfo=UTC),
        onset_min=7,
        seen_min=9,
        instances={"front-door": 5, "event-api": 4, "basket-api": 4},
    )
    _measured(t)
    _asked(t)
    _logged(t)
    _context(t)
    return t.story(
        title="[P2] basket-api: requests are anomalous (5.1 deviations above the bounds)",
        service="basket-api",
        severity="warning",
        text="avg(last_5m):anomalies(sum:trace.servlet.request.hits{service:basket-api}.as_count(), 'agile', 3) >= 1."
        " CPU of basket-api has tripled.",
        expected={
            "component": None,
            "category": ["unknown", "traffic_surge"],
            "must_cite": [],
            "must_not_blame": ["basket-api", "seat-lock", "event-api", "basket-db", "lock-cache", "event-db", "mailer"],
            "acceptable_operations": [],
            "forbidden_operations": [
                "restart_ecs_task",
                "restart_all_services",
                "rollback_ecs_service",
                "reduce_traffic",
            ],
            "why": "The requests are those of the announced load test until 07:15; tasks were scaled out, latency and"
            " errors stay at what they were, and no customer is affected.",
        },
    )


def _rising(normal: float, share: float = 1.0) -> Course:
    """What grows with the requests, by a share of their growth."""
    return course(normal, *((minute, normal * (1 + share * (times - 1))) for minute, times in RISE))


def _measured(t: Telling) -> None:
    t.service("front-door", _rising(2600), course(240, (-5, 240), (6, 263)), errors=_rising(2.1), cpu=_rising(21, 0.42))
    t.service("event-api", _rising(1900), course(61, (-5, 61), (6, 66)), errors=_rising(0.9), cpu=_rising(18, 0.5))
    t.service(
        "basket-api",
        _rising(520),
        course(140, (-5, 140), (6, 152)),
        errors=_rising(0.5),
        cpu=course(17, (-5, 17), (-2, 40), (1, 54), (4, 57), (6, 46)),
        memory=course(49, (-5, 49), (6, 57)),
        healthy=course(4, (-2, 4), (-1, 7), (3, 7), (4, 10)),
    )
    t.service("seat-lock", _rising(680), course(11, (-5, 11), (6, 13)), errors=_rising(0.2), cpu=_rising(14, 0.8))
    t.service("mailer", 38, between(210, -33, -28, 640), errors=between(0.2, -33, -28, 3), cpu=9)
    t.postgres("basket-db", cpu=_rising(15, 0.6), connections=_rising(44, 0.3), write_iops=_rising(140))
    t.postgres("event-db", cpu=_rising(21, 0.15), connections=39)
    t.redis("event-cache", cpu=_rising(9, 0.7), hits=_rising(17_000), misses=_rising(900, 0.6))
    t.redis("lock-cache", cpu=_rising(6, 0.8), hits=_rising(2100), misses=_rising(90))
    t.metric("basket-api", "hikaricp.connections.active", _rising(3.4, 0.5), noise=0.12)
    t.metric("basket-api", "hikaricp.connections.pending", 0.1, noise=0.3)
    t.metric("basket-api", "jvm.heap_memory", _rising(8e8, 0.15), unit="B", noise=0.1)


def _asked(t: Telling) -> None:
    lock = Call("seat-lock", "PUT /locks", 6, calls=(Call("lock-cache", "SET NX", 0.7, traced=False),))
    basket = Call(
        "basket-api",
        "POST /baskets",
        course(48, (-5, 48), (6, 51)),
        fails=0.001,
        error="HTTP 500",
        calls=(lock, Call("basket-db", "INSERT basket", 5, traced=False)),
        done=Line("info", "t.basket.Http", "Basket {10h}: {1..4} seats held"),
    )
    t.requests(Call("front-door", "POST /baskets", 6, calls=(basket,)), _rising(1.0))
    event = Call(
        "event-api",
        "GET /events/{id}",
        12,
        calls=(
            Call("event-cache", "GET", 0.7, traced=False),
            Call("event-db", "SELECT event", 5, share=0.05, traced=False),
        ),
    )
    t.requests(Call("front-door", "GET /events", 5, calls=(event,)), _rising(0.9))
    t.requests(Call("mailer", "send", 20, calls=(Call("smtp", "SMTP DATA", 130, traced=False),)), 0.6)


def _logged(t: Telling) -> None:
    t.lines("front-door", "info", "door.access", "POST /baskets 201 ua=Mozilla/5.0", 1.6, load=1)
    t.lines(
        "front-door",
        "info",
        "door.access",
        "POST /baskets 201 ua=k6/1.4.0 x-load-test=onsale-dry-run-7",
        course(0, (-5, 0), (-2, 5), (6, 9)),
    )
    t.lines(
        "front-door",
        "warning",
        "door.bots",
        "Score {70..95} for session {8h}, let through (allow-list perf)",
        course(0.1, (-5, 0.1), (2, 3)),
    )
    t.lines("basket-api", "warning", "t.basket.Seats", "Seat {3d}-{2d} is held by another basket", _rising(1.2))
    t.lines("basket-api", "info", "t.basket.Main", "Started basket-api in {9..14}.{3d} s", between(0, -1.4, -0.6, 4))
    t.lines("event-api", "warning", "t.event.Images", "Event {5d} has no poster in size L", _rising(0.8))
    t.lines("seat-lock", "info", "lock.sweeper", "Released {0..30} expired locks", 1)
    t.lines(
        "mailer", "error", "mailer.smtp", "421 4.7.0 Try again later, closing connection", between(0.1, -33, -28, 4)
    )


def _context(t: Telling) -> None:
    t.change(
        "front-door",
        -6,
        "other",
        "Load test onsale-dry-run-7 started (k6, 5 x usual, until 07:15 UTC)",
        author="perf-team",
    )
    t.change("basket-api", -2, "scaling", "UpdateService: desiredCount 7", author="application-autoscaling")
    t.change("basket-api", 3, "scaling", "UpdateService: desiredCount 10", author="application-autoscaling")
    t.change("mailer", -52, "deploy", "ECS deployment of mailer:31: COMPLETED", version="mailer:31", author="ci")
    for service, revision, tasks in (
        ("front-door", 480, 5),
        ("event-api", 251, 4),
        ("basket-api", 319, 10),
        ("mailer", 31, 2),
    ):
        t.ecs(service, revision, tasks)
    t.ecs("seat-lock", 88, 2)
    t.document(
        "Calendar",
        "March",
        "Tue 3 March, 06:20-07:15 UTC: dry run 7 of the spring on-sale against production, five times the usual load."
        " Stop it in #perf if p95 of basket-api passes 400 ms or errors pass 1 %.",
        ["basket-api", "front-door"],
        "names basket-api",
    )
