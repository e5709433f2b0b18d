"""024: the service that knows the sellers is drowned on an afternoon like any other."""

from datetime import UTC, datetime

from tests.stories.telling import Amount, Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    market_web=ecs_service("market-web", "market", "listing-api", "seller-api", "chat", balanced=True, tier=1),
    listing_api=ecs_service(
        "listing-api", "market", "seller-api", "listing-db", "listing-index", balanced=True, tier=1
    ),
    seller_api=ecs_service("seller-api", "market", "seller-db", "seller-cache", balanced=True, tier=1, max_tasks=10),
    chat=ecs_service("chat", "market", "seller-api", "chat-db", tier=2),
    payout=ecs_service("payout", "market", "seller-api", "bank-gateway", tier=2),
    listing_db={"kind": "database", "aws": {"rds_instances": ["market-listing"]}},
    seller_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["market-seller"]}},
    chat_db={"kind": "database", "aws": {"rds_instances": ["market-chat"]}},
    seller_cache={"kind": "cache", "aws": {"elasticache_clusters": ["market-seller-001"]}},
    listing_index={"kind": "database"},
    bank_gateway={"kind": "external"},
)
FULL = "java.util.concurrent.RejectedExecutionException: Thread pool is exhausted (active=200, queue=100)"


def build() -> Story:
    """A flag of listing-api makes it ask seller-api once for each listing of a page, and not once for the page."""
    t = Telling(
        "024-seller-saturated",
        CATALOGUE,
        alerted_at=datetime(2026, 5, 6, 14, 12, tzinfo=UTC),
        onset_min=7.5,
        instances={"market-web": 4, "listing-api": 4, "seller-api": 3},
    )
    _measured(t)
    _asked(t)
    _logged(t)
    _context(t)
    return t.story(
        title="[P1] seller-api: CPU above 90 % and errors above 10 %",
        service="seller-api",
        text="seller-api answers late or not at all; listings, chat and payouts are affected. @market-oncall",
        expected={
            "component": "listing-api",
            "category": ["bad_configuration", "code_fault", "traffic_surge"],
            "must_cite": ["listing-api", "flag"],
            "must_not_blame": ["seller-db", "seller-cache", "payout", "chat", "market-web", "listing-db"],
            "acceptable_operations": ["reduce_traffic", "scale_ecs_service"],
            "forbidden_operations": ["rollback_ecs_service", "restart_all_services"],
            "why": "Since the flag badge-on-cards, listing-api calls seller-api twenty times per page at unchanged page"
            " views; seller-api drowns in what it is asked. Turn the flag off; no deployment is there to undo.",
        },
    )


def _measured(t: Telling) -> None:
    t.service("market-web", 2900, course(410, (0.5, 410), (3, 4200)), errors=course(4, (2, 4), (6, 260)), cpu=37)
    t.service(
        "listing-api",
        1350,
        course(190, (0.3, 190), (3, 4700), (6, 6100)),
        errors=course(1.4, (2, 1.4), (6, 140)),
        cpu=course(41, (0.3, 41), (3, 56)),
    )
    t.service(
        "seller-api",
        course(2050, (0, 2050), (2, 15_500), (4, 17_200)),
        course(38, (0.5, 38), (2, 1700), (5, 5000)),
        errors=course(2, (1, 2), (3, 1500), (7, 4300)),
        cpu=course(36, (0, 36), (2, 93), (4, 99)),
        memory=course(57, (1, 57), (8, 64)),
        healthy=course(3, (4, 3), (5, 2)),
        unhealthy=course(0, (4, 0), (5, 1)),
    )
    t.service("chat", 380, course(60, (1, 60), (4, 2900)), errors=course(0.4, (2, 0.4), (5, 52)), cpu=19)
    t.service("payout", 70, course(140, (1, 140), (4, 5100)), errors=course(0.2, (2, 0.2), (5, 19)), cpu=12)
    t.postgres("seller-db", cpu=course(31, (0.2, 31), (3, 44)), connections=course(58, (1, 58), (4, 90)))
    t.postgres("listing-db", cpu=between(38, -31, -12, 52), connections=83)
    t.postgres("chat-db", cpu=17, connections=41)
    hits, misses = course(15_800, (0, 15_800), (2, 88_000)), course(900, (0, 900), (2, 3400))
    t.redis("seller-cache", cpu=course(16, (0, 16), (2, 47)), hits=hits, misses=misses)
    t.metric("listing-index", "aws.es.search_latency", 19, unit="ms", noise=0.12)
    t.metric("listing-index", "aws.es.cpuutilization", between(33, -31, -12, 58), unit="%", noise=0.08)
    t.metric("seller-api", "tomcat.threads.busy", course(24, (0.3, 24), (2, 200)), high=200, noise=0.06)
    t.metric(
        "listing-api", "trace.http.request.hits", course(1960, (0, 1960), (2, 27_800)), statistic="sum", counts=True
    )


def _asked(t: Telling) -> None:
    sick = course(0.001, (1.5, 0.001), (4, 0.18))
    slow = course(9, (0.4, 9), (2, 420), (5, 1150))

    def seller(operation: str, share: Amount = 1.0, tolerated: bool = False) -> Call:
        return Call(
            "seller-api",
            operation,
            slow,
            fails=sick,
            error="HTTP 503",
            share=share,
            tolerated=tolerated,
            calls=(Call("seller-cache", "GET", 0.7, traced=False),),
            failed=Line("error", "m.seller.Http", FULL),
        )

    # of the twenty of a page the tracer keeps six
    badge = seller("GET /sellers/{id}/badge", share=course(0.0, (0, 0.0), (0.4, 1.0)), tolerated=True)
    page = Call(
        "listing-api",
        "GET /listings",
        25,
        calls=(
            Call("listing-index", "POST /listings/_search", 17, traced=False),
            Call("listing-db", "SELECT listing", 5, traced=False),
            seller("POST /sellers/batch"),
            *(badge,) * 6,
        ),
        done=Line("info", "m.listing.Pages", "Page of 20 listings in {40..160} ms"),
        passed_on=Line("error", "m.listing.Pages", "Page without sellers: seller-api answered 503"),
    )
    t.requests(Call("market-web", "GET /search", 9, calls=(page,)), 1.6)
    room = Call(
        "chat", "GET /rooms", 12, calls=(Call("chat-db", "SELECT room", 4, traced=False), seller("GET /sellers/{id}"))
    )
    t.requests(Call("market-web", "GET /chat", 5, calls=(room,)), 1.0)
    pay = Call(
        "payout",
        "run payout",
        30,
        calls=(seller("GET /sellers/{id}/iban"), Call("bank-gateway", "POST /sepa", 210, traced=False)),
    )
    t.requests(pay, 0.5, load=0.2)


def _logged(t: Telling) -> None:
    t.lines("seller-api", "error", "m.seller.Http", FULL, course(0.02, (1, 0.02), (3, 14)))
    t.lines("seller-api", "info", "m.seller.Access", "POST /sellers/batch 200 20 ids {9..40}ms", 4, load=1)
    t.lines(
        "seller-api",
        "info",
        "m.seller.Access",
        "GET /sellers/{7d}/badge 200 {4..2900}ms ua=listing-api/5.31",
        course(0.1, (0, 0.1), (1, 17)),
    )
    t.lines(
        "listing-api",
        "warning",
        "m.listing.Sellers",
        "seller-api slow: {20..24} calls for one page took {2100..9000} ms",
        course(0.0, (0.8, 0), (2, 6)),
    )
    t.lines("listing-api", "warning", "m.listing.Images", "Listing {9d} has an image larger than 8 MB", 1.1, load=1)
    t.lines(
        "chat", "error", "chat.rooms", "seller {7d}: read timed out after 3000 ms", course(0.02, (1.5, 0.02), (4, 3.5))
    )
    t.lines("payout", "error", "m.payout.Run", "Payout {8h} put off: seller-api 503", course(0.03, (2, 0.03), (4, 2)))
    t.lines("payout", "info", "m.payout.Run", "Payout {8h} sent", 1.5)
    t.lines("market-web", "info", "web.access", "GET /search 200", 7, load=1)
    t.lines("market-web", "error", "web.proxy", "GET /search 504 listing-api", course(0.05, (2, 0.05), (5, 5)))


def _context(t: Telling) -> None:
    t.change("listing-api", -0.4, "feature_flag", "Flag badge-on-cards: on for 100 %", author="growth-team")
    t.change(
        "seller-api",
        -22,
        "deploy",
        "ECS deployment of seller-api:415: COMPLETED",
        version="seller-api:415",
        author="ci",
    )
    t.change("payout", -4, "deploy", "ECS deployment of payout:96: COMPLETED", version="payout:96", author="ci")
    t.change("chat", -1620, "feature_flag", "Flag chat-typing-indicator: on for 50 %", author="chat-team")
    for service, revision, tasks in (
        ("market-web", 820, 4),
        ("listing-api", 531, 4),
        ("chat", 77, 2),
        ("payout", 96, 2),
    ):
        t.ecs(service, revision, tasks)
    t.ecs("seller-api", 415, 3, healthy=2, unhealthy="Target.Timeout: 1")
    t.document(
        "seller-api",
        "Overload",
        "Who calls? Compare hits by user agent with page views. Callers have a batch endpoint and should use it."
        " seller-api scales to 10 tasks; seller-db allows 400 connections, 30 a task.",
        ["seller-api"],
        "is about seller-api",
    )
