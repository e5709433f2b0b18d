"""019: everything failed a little for less than two minutes, and has been well for twenty since."""

from datetime import UTC, datetime

from tests.stories.telling import Amount, Call, Line, Story, Telling, between, ecs_service, services

CATALOGUE = services(
    edge=ecs_service("edge", "market", "orders-api", "basket", "listing", balanced=True, tier=1),
    orders_api=ecs_service("orders-api", "market", "stock", "payments", "orders-db", balanced=True, tier=1),
    basket=ecs_service("basket", "market", "basket-cache", tier=1),
    listing=ecs_service("listing", "market", "listing-db", tier=1),
    stock=ecs_service("stock", "market", "orders-db", tier=2),
    payments=ecs_service("payments", "market", "psp", tier=1),
    orders_db={"kind": "database", "aws": {"rds_instances": ["market-orders"]}},
    listing_db={"kind": "database", "aws": {"rds_instances": ["market-listing"]}},
    basket_cache={"kind": "cache", "aws": {"elasticache_clusters": ["market-baskets-001"]}},
    psp={"kind": "external"},
)
ORDERS, LOST = "c.market.orders.Http#40", "{Connection reset by peer|No route to host|i/o timeout}"
OVER = 1.7  # minutes that it took


def _short(normal: float, then: float) -> Amount:
    return between(normal, 0, OVER, then)


def build() -> Story:
    """See the module."""
    t = Telling(
        "019-orders-5xx",
        CATALOGUE,
        alerted_at=datetime(2025, 12, 2, 11, 42, tzinfo=UTC),
        onset_min=1.4,
        seen_min=24,
        instances={"edge": 3, "orders-api": 3, "listing": 3},
    )
    _requests(t)
    _measured(t)
    _told(t)
    return t.story(
        title="[P2] orders-api: 5xx answers above 5 %",
        service="orders-api",
        text="More than 5 % of the requests to orders-api were answered with 5xx in the last minute.",
        expected={
            "component": None,
            "category": ["unknown", "network_fault"],
            "must_cite": [],
            "must_not_blame": ["orders-api", "orders-db", "payments", "stock", "psp", "basket", "listing", "edge"],
            "acceptable_operations": [],
            "forbidden_operations": [
                "restart_ecs_task",
                "restart_all_services",
                "scale_ecs_service",
                "rollback_ecs_service",
                "reduce_traffic",
            ],
            "why": "Connections between all services were reset alike for less than two minutes; since then everything"
            " has been normal for more than twenty minutes, and no component stands out.",
        },
    )


def _either(call: Call, logger: str, what: str) -> tuple[Call, Call]:
    """The call as it is lost, which in these minutes one in three is, and as it arrives."""
    lost = Call(
        call.to,
        call.operation,
        ms=_short(30, 900),
        share=_short(0.0, 0.3),
        fails=1.0,
        error="Connection reset by peer",
        traced=False,
        failed=Line("error", logger, f"{what}: {LOST}"),
    )
    return lost, call


def _stored(to: str, operation: str, ms: float) -> Call:
    return Call(to, operation, ms=ms, traced=False)


def _requests(t: Telling) -> None:
    reserve = _either(_stored("orders-db", "UPDATE stock", 4), "c.market.stock.Repository", "reservation {8h} failed")
    reserved = Line("info", "c.market.stock.Reservations", "Reserved {1..5} of article {7d}")
    stock = Call("stock", "POST /reservations", ms=12, calls=reserve, done=reserved)
    declining = Call("psp", "POST /v2/charges", ms=210, fails=0.002, error="card_declined", traced=False)
    charge = _either(declining, "payments.psp", "charge {8h} not sent")
    captured = Line("info", "payments.charges", "charge {8h} captured")
    payments = Call("payments", "POST /charges", ms=18, calls=charge, done=captured)
    order = Call(
        "orders-api",
        "POST /orders",
        ms=20,
        calls=(
            *_either(stock, ORDERS, "POST http://stock/reservations"),
            *_either(payments, ORDERS, "POST http://payments/charges"),
            _stored("orders-db", "INSERT orders", 5),
        ),
        done=Line("info", "c.market.orders.Orders", "Order {8h} accepted"),
        passed_on=Line("error", "c.market.orders.Orders", "502 POST /orders"),
    )
    write = _either(_stored("basket-cache", "HSET", 0.7), "basket.store", "basket {8h} not written")
    basket = Call("basket", "PUT /items", ms=7, calls=write)
    read = _either(_stored("listing-db", "SELECT offer", 6), "listing.repository", "offers not read")
    listing = Call("listing", "GET /offers", ms=16, calls=read)
    for operation, call, per_minute in (
        ("POST /orders", order, 1.7),
        ("PUT /basket", basket, 1.3),
        ("GET /offers", listing, 1.6),
    ):
        calls = _either(call, "envoy.upstream", f"upstream reset: {call.to}")
        t.requests(Call("edge", operation, ms=5, calls=calls), per_minute)


def _measured(t: Telling) -> None:
    for service, per_minute, p95_ms, failing, cpu, revision, tasks in (
        ("edge", 3900, 260, 410, 32, 90, 3),
        ("orders-api", 410, 480, 61, 35, 218, 3),
        ("basket", 900, 40, 96, 21, 133, 2),
        ("listing", 2100, 85, 220, 38, 271, 3),
        ("stock", 420, 55, 48, 24, 102, 2),
        ("payments", 400, 420, 47, 19, 187, 2),
    ):
        t.service(
            service,
            per_minute,
            _short(p95_ms, p95_ms + 1100),
            errors=_short(per_minute / 2500, failing),
            cpu=_short(cpu, cpu * 0.9),
            memory=52,
            framework="http.request",
        )
        t.ecs(service, revision, tasks)
    t.postgres("orders-db", cpu=_short(33, 30), connections=_short(120, 114))
    t.postgres("listing-db", cpu=between(41, -38, -20, 66), connections=_short(88, 83))
    t.redis("basket-cache", connections=_short(84, 79))
    t.metric("payments", "payments.captured.count", _short(380, 290), statistic="sum", counts=True, load=1.0)
    t.metric("orders-api", "jvm.heap_memory", 7e8, unit="B", noise=0.1)


def _told(t: Telling) -> None:
    t.lines("edge", "info", "envoy.access", "GET /{img|offers|static}/{8h} 200 {2..90}ms", 6, load=1.0)
    t.lines("edge", "warning", "envoy.access", "client closed the connection before the answer", 0.6)
    t.lines("listing", "info", "listing.import", "Imported {100..900} offers of seller {5d}", between(0.3, -38, -20, 3))
    t.lines(
        "listing", "warning", "listing.import", "Offer {8d}: category unknown, using “other”", between(0.5, -38, -20, 2)
    )
    t.lines(
        "payments",
        "warning",
        "payments.psp",
        "card declined: {insufficient_funds|do_not_honor|expired_card}",
        1.4,
        load=1.0,
    )
    t.lines("basket", "info", "basket.expiry", "Dropped {10..90} baskets older than 30 days", 0.2)
    for service, logger, what in (
        ("orders-api", ORDERS, "POST http://{stock|payments}/{8h}"),
        ("stock", "c.market.stock.Repository", "reservation {8h} failed"),
        ("payments", "payments.psp", "charge {8h} not sent"),
        ("basket", "basket.store", "basket {8h} not written"),
        ("listing", "listing.repository", "offers not read"),
        ("edge", "envoy.upstream", "upstream reset: {orders-api|basket|listing}"),
    ):
        t.lines(service, "error", logger, f"{what}: {LOST}", _short(0.02, 19))
    t.change(
        "listing", -212, "deploy", "ECS deployment of listing:271: COMPLETED", version="listing:271", author="ci/deploy"
    )
    t.change("basket", -44, "scaling", "UpdateService: desiredCount 2", author="application-autoscaling")
    t.document(
        "orders-api runbook",
        "5xx",
        "Orders that failed are sent again by the shop within five minutes; customers need not be told.",
        ["orders-api"],
        "is about orders-api",
    )
