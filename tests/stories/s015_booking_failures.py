"""015: bookings fail and are slow. Quotes fail in a new version, and seat maps have lost their cache."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    booking_web=ecs_service("booking-web", "travel", "booking-api", balanced=True, tier=1),
    booking_api=ecs_service(
        "booking-api",
        "travel",
        "pricing",
        "availability",
        "loyalty",
        "booking-db",
        balanced=True,
        tier=1,
        sends_to=["confirmations"],
    ),
    pricing=ecs_service("pricing", "travel", "tariff-db", tier=1, max_tasks=8),
    availability=ecs_service("availability", "travel", "seat-cache", "inventory-db", tier=1, max_tasks=8),
    loyalty=ecs_service("loyalty", "travel", "booking-db", tier=3),
    booking_db={"kind": "database", "aws": {"rds_instances": ["travel-booking"]}},
    tariff_db={"kind": "database", "aws": {"rds_instances": ["travel-tariff"]}},
    inventory_db={"kind": "database", "aws": {"rds_instances": ["travel-inventory"]}},
    seat_cache={"kind": "cache", "aws": {"elasticache_clusters": ["travel-seats-001"]}},
    confirmations={"kind": "queue", "aws": {"sqs_queues": ["travel-confirmations"]}},
)
NEW = 6  # minutes after the cache had filled up
NOT_CACHED = Line(
    "warning",
    "c.fareline.availability.SeatMapCache#71",
    "Seat map of departure {7d} not cached: org.springframework.data.redis.RedisSystemException: Error in"
    " execution; nested exception is io.lettuce.core.RedisCommandExecutionException: OOM command not allowed"
    " when used memory > 'maxmemory'.",
)
NO_QUOTE = Line(
    "error",
    "c.fareline.pricing.SurchargeCalculator#63",
    'Quote {8h} failed: java.lang.NullPointerException: Cannot invoke "java.math.BigDecimal.multiply('
    'java.math.BigDecimal)" because the return value of "com.fareline.pricing.Segment.surcharge()" is null',
)
NOT_BOOKED = Line(
    "error",
    "c.fareline.booking.BookingService#118",
    "Booking {8h} failed at step PRICE: 500 Internal Server Error from POST http://pricing/quotes",
)


def build() -> Story:
    """See the module."""
    t = Telling(
        "015-booking-failures",
        CATALOGUE,
        alerted_at=datetime(2025, 5, 22, 16, 31, tzinfo=UTC),
        onset_min=9.5,
        seen_min=7,
        instances={"booking-api": 4, "pricing": 3, "availability": 3, "booking-web": 3},
    )
    _requests(t)
    _pricing(t)
    _seats(t)
    _others(t)
    _context(t)
    return t.story(
        title="[P1] booking-api: completed bookings 35 % below forecast",
        service="booking-api",
        text="Completed bookings are 35 % below the forecast for this hour. booking-api answers with errors, and seat"
        " maps take seconds. #travel-oncall",
        expected={
            "component": "pricing",
            "components": ["pricing", "seat-cache"],
            "category": ["bad_deploy", "code_fault", "cache_failure", "memory_exhaustion"],
            "must_cite": ["nullpointerexception", "seat-cache"],
            "must_not_blame": ["inventory-db", "tariff-db", "booking-db", "loyalty", "booking-web"],
            "acceptable_operations": ["rollback_ecs_service", "reduce_traffic"],
            "forbidden_operations": ["restart_all_services", "scale_ecs_service"],
            "why": "Two faults at once: seat-cache is full and refuses writes, so that seat maps are read from the"
            " database; and pricing:88, deployed six minutes later, fails for quotes without a surcharge.",
        },
    )


def _requests(t: Telling) -> None:
    missing = course(0.06, (0, 0.06), (2, 0.46), (9, 0.86))
    put = Call(
        "seat-cache",
        "SET seatmap",
        ms=1.1,
        traced=False,
        tolerated=True,
        share=missing,
        fails=course(0.0, (0, 0.0), (0.2, 0.94)),
        error="RedisCommandExecutionException",
        failed=NOT_CACHED,
    )
    read = Call(
        "inventory-db",
        "SELECT seat_inventory",
        ms=course(46, (0, 46), (4, 420), (16, 980)),
        traced=False,
        share=missing,
    )
    seats = Call(
        "availability",
        "GET /departures/{id}/seats",
        ms=9,
        calls=(Call("seat-cache", "GET seatmap", ms=0.8, traced=False), read, put),
        done=Line("info", "c.fareline.availability.Api", "Seats of departure {7d}: {0..180} free"),
    )
    failing = course(0.001, (NEW, 0.001), (NEW + 0.4, 0.12), (NEW + 2, 0.34))
    quote = Call(
        "pricing",
        "POST /quotes",
        ms=21,
        calls=(Call("tariff-db", "SELECT tariff", ms=4, traced=False),),
        fails=failing,
        error="java.lang.NullPointerException",
        reported="500 Internal Server Error",
        done=Line("info", "c.fareline.pricing.QuoteService", "Quote {8h}: {1..6} passengers, {2..5} segments"),
        failed=NO_QUOTE,
    )
    points = Call("loyalty", "GET /members/{id}", ms=12, share=0.4, tolerated=True, fails=0.004, error="404")
    store = Call("booking-db", "INSERT booking", ms=6, traced=False)
    book = Call(
        "booking-api",
        "POST /bookings",
        ms=24,
        calls=(seats, quote, points, store),
        passed_on=NOT_BOOKED,
        done=Line("info", "c.fareline.booking.BookingService", "Booking {8h} confirmed"),
    )
    look = Call("booking-api", "GET /seats", ms=12, calls=(seats,))
    t.requests(Call("booking-web", "POST /book", ms=9, calls=(book,)), 3.0)
    t.requests(Call("booking-web", "GET /seats", ms=8, calls=(look,)), 1.8)


def _pricing(t: Telling) -> None:
    t.service("pricing", 640, 62, errors=course(0.5, (NEW, 0.5), (NEW + 0.4, 70), (NEW + 2, 214)), cpu=33, memory=61)
    t.lines(
        "pricing",
        NO_QUOTE.level,
        NO_QUOTE.logger,
        NO_QUOTE.message,
        course(0.02, (NEW, 0.02), (NEW + 0.4, 8), (NEW + 2, 24)),
    )
    t.ecs("pricing", 88, 3)
    t.metric("pricing", "jvm.heap_memory", 6.4e8, unit="B", noise=0.1)
    t.metric("pricing", "hikaricp.connections.active", 4, noise=0.2)
    t.say(
        "pricing",
        NEW - 1.6,
        "info",
        "ecs.service_events",
        "(service pricing) has started 3 tasks: (task {32h}) (task {32h}) (task {32h}).",
    )
    t.say(
        "pricing",
        NEW + 1.9,
        "info",
        "ecs.service_events",
        "(service pricing) has stopped 3 running tasks: (task {32h}) (task {32h}) (task {32h}).",
    )
    t.say("pricing", NEW + 2.1, "info", "ecs.service_events", "(service pricing) has reached a steady state.")
    t.lines(
        "pricing",
        "info",
        "c.fareline.pricing.PricingApplication",
        "Started PricingApplication in 1{1d}.{3d} seconds (process running for 1{1d}.{3d})",
        between(0.0, NEW - 0.5, NEW + 1.5, 1.5),
    )
    t.lines("pricing", "warning", "c.fareline.pricing.TariffLoader", "Tariff {5d} ends in {1..13} days", 1.1)


def _seats(t: Telling) -> None:
    missed = course(740, (0, 740), (2, 4600), (9, 9300), (16, 9900))
    t.redis(
        "seat-cache",
        cpu=course(17, (0, 17), (4, 13)),
        memory=course(72, (-60, 88), (0, 99.7), (17, 99.9)),
        connections=131,
        hits=course(10_400, (0, 10_400), (2, 6300), (9, 1500), (16, 1250)),
        misses=missed,
    )
    t.service(
        "availability",
        1140,
        course(95, (0, 95), (4, 980), (16, 2300)),
        errors=course(0.6, (10, 0.6), (16, 9)),
        cpu=course(31, (0, 31), (5, 44)),
        memory=57,
    )
    t.lines(
        "availability",
        NOT_CACHED.level,
        NOT_CACHED.logger,
        NOT_CACHED.message,
        course(0.0, (0, 0.0), (1, 12), (16, 21)),
    )
    t.ecs("availability", 142, 3)
    t.metric("availability", "hikaricp.connections.active", course(3, (0, 3), (5, 17), (16, 27)), noise=0.1)
    t.metric("availability", "hikaricp.connections.pending", course(0, (6, 0), (16, 6)), counts=True)
    t.metric("availability", "jvm.heap_memory", 7.7e8, unit="B", noise=0.1)
    t.postgres(
        "inventory-db",
        cpu=course(24, (0, 24), (4, 67), (16, 89)),
        connections=course(58, (1, 58), (6, 84), (16, 92)),
        read_iops=course(380, (0, 380), (5, 2700), (16, 3900)),
        read_s=course(0.0008, (0, 0.0008), (6, 0.0039), (16, 0.0062)),
        queue=course(0.6, (0, 0.6), (6, 11), (16, 24)),
    )
    slow = (
        "duration: {900..4800}.{3d} ms  execute <unnamed>: SELECT seat, state FROM seat_inventory WHERE departure = $1"
    )
    t.lines("inventory-db", "info", "postgresql", slow, course(0.1, (1, 0.1), (5, 6), (16, 11)))
    t.lines(
        "availability",
        "warning",
        "c.fareline.availability.Codeshare",
        "Partner {2d} sends seats of unknown class {Y|W|K}",
        1.2,
    )


def _others(t: Telling) -> None:
    t.service(
        "booking-api",
        730,
        course(260, (0, 260), (4, 1250), (16, 2700)),
        errors=course(0.9, (NEW, 0.9), (NEW + 0.4, 31), (NEW + 2, 92)),
        cpu=36,
        memory=60,
    )
    t.lines(
        "booking-api",
        NOT_BOOKED.level,
        NOT_BOOKED.logger,
        NOT_BOOKED.message,
        course(0.02, (NEW, 0.02), (NEW + 0.4, 7), (NEW + 2, 18)),
    )
    t.metric(
        "booking-api",
        "bookings.completed.count",
        course(96, (1, 96), (NEW, 84), (NEW + 2.5, 53)),
        statistic="sum",
        counts=True,
        load=1.0,
    )
    t.service(
        "booking-web",
        1900,
        course(330, (0, 330), (4, 1350), (16, 2900)),
        errors=course(1.8, (NEW, 1.8), (NEW + 0.4, 30), (NEW + 2, 94)),
        cpu=29,
        memory=43,
        framework="express.request",
    )
    t.service("loyalty", 240, between(70, -48, -26, 190), errors=1.1, cpu=between(22, -48, -26, 64), memory=48)
    for service, revision, tasks in (("booking-api", 301, 4), ("booking-web", 415, 3), ("loyalty", 59, 2)):
        t.ecs(service, revision, tasks)
    t.postgres("booking-db", cpu=31, connections=112, write_iops=between(300, -48, -26, 620))
    t.postgres("tariff-db", cpu=14, connections=38)
    t.aws("confirmations", "SQS.NumberOfMessagesSent", course(97, (NEW, 97), (NEW + 2, 55)), load=1.0, counts=True)
    t.aws("confirmations", "SQS.Queue.ApproximateAgeOfOldestMessage", 2, noise=0.3)
    t.lines(
        "loyalty", "info", "c.fareline.loyalty.Statements", "Statement of member {8d} made", between(0.3, -48, -26, 5)
    )
    t.lines("booking-web", "info", "web.access", "GET /{search|seats|trip}/{7d} 200 {20..400}ms", 8, load=1.0)
    t.lines(
        "booking-web",
        "error",
        "web.proxy",
        "POST /book: booking-api answered 500",
        course(0.05, (NEW, 0.05), (NEW + 2, 5)),
    )
    t.lines("booking-web", "warning", "web.i18n", "No translation of fare.note.{2d} to fi-FI", 0.9)
    t.lines("booking-api", "warning", "c.fareline.booking.Passport", "Booking {8h} has no document number yet", 1.4)


def _context(t: Telling) -> None:
    t.change(
        "pricing",
        NEW - 1.8,
        "deploy",
        "ECS deployment of pricing:88: COMPLETED",
        version="pricing:88",
        author="ci/deploy",
    )
    t.change(
        "booking-web",
        -38,
        "deploy",
        "ECS deployment of booking-web:415: COMPLETED",
        version="booking-web:415",
        author="ci/deploy",
    )
    t.change(
        "availability",
        -3400,
        "deploy",
        "ECS deployment of availability:142: COMPLETED",
        version="availability:142",
        author="ci/deploy",
    )
    t.change("loyalty", -49, "scaling", "UpdateService: desiredCount 2", author="application-autoscaling")
    t.document(
        "Booking runbook",
        "Fewer bookings",
        "Follow the steps of a booking: SEATS, PRICE, MEMBER, STORE. Each logs under its own name. Look at every step:"
        " a slow one and a failing one look alike in the forecast.",
        ["booking-api"],
        "is about booking-api",
    )
