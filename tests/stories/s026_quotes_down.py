"""026: quotes stay unavailable, long after the minute in which something went wrong."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    mobile_bff=ecs_service("mobile-bff", "broker", "order-gateway", "news", "watchlist", balanced=True, tier=1),
    order_gateway=ecs_service("order-gateway", "broker", "quote-engine", "risk", "orders-db", balanced=True, tier=1),
    quote_engine=ecs_service("quote-engine", "broker", "tick-cache", "fx-feed", tier=1, max_tasks=8),
    watchlist=ecs_service("watchlist", "broker", "quote-engine", "watchlist-db", tier=2),
    risk=ecs_service("risk", "broker", "orders-db", tier=1),
    news=ecs_service("news", "broker", tier=3),
    tick_cache={"kind": "cache", "tier": 1, "aws": {"elasticache_clusters": ["broker-ticks-001"]}},
    orders_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["broker-orders"]}},
    watchlist_db={"kind": "database", "aws": {"rds_instances": ["broker-watchlist"]}},
    fx_feed={"kind": "external"},
)
RETRY = "POST quote-engine/quotes failed (context deadline exceeded), attempt {2..5} of 5"
BLIP = "io.lettuce.core.RedisCommandTimeoutException: Command timed out after 1 second(s)"


def build() -> Story:
    """tick-cache was away for half a minute; since then order-gateway's retries alone keep quote-engine overloaded."""
    t = Telling(
        "026-quotes-down",
        CATALOGUE,
        alerted_at=datetime(2026, 4, 21, 13, 47, tzinfo=UTC),
        onset_min=9,
        seen_min=9,
        instances={"mobile-bff": 3, "order-gateway": 4, "quote-engine": 4},
    )
    _measured(t)
    _asked(t)
    _logged(t)
    _context(t)
    return t.story(
        title="[P1] mobile-bff: availability of quotes below 60 %",
        service="mobile-bff",
        text="Customers see no prices for eight minutes. Page views and logins are as usual. @trading-oncall",
        expected={
            "component": "order-gateway",
            "components": ["order-gateway", "quote-engine"],
            "category": ["traffic_surge", "cpu_saturation", "bad_configuration", "code_fault"],
            "must_cite": ["order-gateway", "attempt"],
            "must_not_blame": ["tick-cache", "fx-feed", "orders-db", "risk", "watchlist", "news"],
            "acceptable_operations": ["reduce_traffic", "gradual_traffic_restore", "scale_ecs_service"],
            "forbidden_operations": ["rollback_ecs_service", "restart_all_services"],
            "why": "tick-cache recovered within a minute, but order-gateway repeats each call up to five times, so that"
            " quote-engine gets four times its load from unchanged page views and answers too late for all of them.",
        },
    )


def _measured(t: Telling) -> None:
    late = course(95, (0, 95), (0.3, 1900), (2, 2100))
    t.service(
        "mobile-bff",
        1900,
        course(260, (0, 260), (0.6, 9800), (3, 10_400)),
        errors=course(3, (0, 3), (0.6, 620), (4, 810)),
        cpu=34,
        framework="express.request",
    )
    t.service(
        "order-gateway",
        1050,
        course(150, (0, 150), (0.6, 9700), (3, 10_300)),
        errors=course(1.5, (0, 1.5), (0.6, 610), (4, 800)),
        cpu=course(31, (0, 31), (2, 44)),
    )
    t.service(
        "quote-engine",
        course(1280, (0, 1280), (0.7, 3600), (3, 5300)),
        late,
        errors=course(1, (0, 1), (0.4, 300), (2, 240), (8, 190)),
        cpu=course(43, (0, 43), (0.3, 30), (1.3, 97), (3, 99.4)),
        memory=course(52, (0.5, 52), (4, 60)),
    )
    t.service(
        "watchlist", 240, course(120, (0, 120), (0.6, 2100)), errors=course(0.3, (0, 0.3), (0.6, 55), (4, 84)), cpu=16
    )
    t.service("risk", course(410, (0.3, 410), (2, 150)), 31, errors=0.4, cpu=course(22, (0.3, 22), (2, 12)))
    t.service("news", 330, between(90, -17, -13, 260), errors=between(0.5, -17, -13, 6), cpu=11)
    t.redis(
        "tick-cache",
        cpu=course(27, (0, 27), (0.1, 2), (0.6, 2), (1, 41), (3, 44)),
        hits=course(31_000, (0, 31_000), (0.1, 900), (0.6, 900), (1.5, 79_000), (3, 92_000)),
        misses=course(410, (0, 410), (2, 900)),
        connections=course(96, (0, 96), (0.1, 12), (1, 104), (18, 97)),
        memory=44,
    )
    t.postgres("orders-db", cpu=course(30, (0.3, 30), (2, 16)), connections=70)
    t.postgres("watchlist-db", cpu=14, connections=25)
    t.metric(
        "order-gateway",
        "http.client.requests",
        course(1060, (0, 1060), (0.7, 3400), (3, 5000)),
        statistic="sum",
        counts=True,
        query="sum:http.client.requests{service:order-gateway,peer:quote-engine}.as_count()",
    )
    t.metric("quote-engine", "netty.eventloop.pending.tasks", course(4, (0.3, 4), (2, 2600)), noise=0.08)
    t.metric("quote-engine", "jvm.gc.pause.time", course(0.02, (1, 0.02), (4, 0.06)), unit="s", noise=0.2)


def _asked(t: Telling) -> None:
    compute = course(28, (0, 28), (0.1, 1000), (0.6, 1000), (1, 1450), (3, 1600))
    gone = course(0.0003, (0, 0.0003), (0.02, 0.8), (0.6, 0.8), (0.7, 0.0003))
    ticks = Call(
        "tick-cache",
        "MGET",
        course(0.8, (0, 0.8), (0.02, 1000), (0.6, 1000), (0.7, 0.9)),
        fails=gone,
        error="RedisCommandTimeoutException",
        traced=False,
        failed=Line("error", "q.engine.Ticks", BLIP),
    )
    tried = Call(
        "quote-engine",
        "POST /quotes",
        compute,
        reported="context deadline exceeded",
        fails=course(0.001, (0.2, 0.001), (1.5, 0.72)),
        error="cancelled by client",
        calls=(ticks,),
        done=Line("info", "q.engine.Quotes", "{1..12} instruments priced in {12..60} ms"),
        failed=Line("warning", "q.engine.Quotes", "Client went away before {1..12} instruments were priced"),
    )
    again = Call(
        "quote-engine",
        "POST /quotes",
        compute,
        fails=0.86,
        error="cancelled by client",
        reported="context deadline exceeded",
        share=course(0.002, (0, 0.002), (0.4, 0.9)),
        tolerated=True,
        calls=(Call("tick-cache", "MGET", 0.9, traced=False),),
    )
    quote = Call(
        "order-gateway",
        "GET /quotes",
        9,
        reported="HTTP 504",
        calls=(again, again, again, tried),
        passed_on=Line("error", "gateway.quotes", "GET /quotes 504: quote-engine gave no answer in 5 attempts"),
    )
    t.requests(Call("mobile-bff", "GET /quotes", 5, calls=(quote,)), 1.7)
    held = Call("risk", "POST /check", 8, calls=(Call("orders-db", "SELECT position", 4, traced=False),))
    order = Call("order-gateway", "POST /orders", 14, calls=(held, Call("orders-db", "INSERT order", 5, traced=False)))
    t.requests(Call("mobile-bff", "POST /orders", 6, calls=(order,)), course(1.2, (0.3, 1.2), (2, 0.5)))
    t.requests(Call("mobile-bff", "GET /news", 4, calls=(Call("news", "GET /news", 40),)), 0.8)
    listed = Call("watchlist", "GET /watchlist", 9, calls=(Call("watchlist-db", "SELECT", 3, traced=False), tried))
    t.requests(Call("mobile-bff", "GET /watchlist", 5, calls=(listed,)), 0.7)


def _logged(t: Telling) -> None:
    t.lines("order-gateway", "warning", "gateway.upstream", RETRY, course(0.06, (0, 0.06), (0.4, 17)))
    t.lines("quote-engine", "error", "q.engine.Ticks", BLIP, between(0.02, 0, 0.65, 30))
    t.lines(
        "quote-engine",
        "info",
        "i.lettuce.core.protocol.ConnectionWatchdog",
        "Reconnected to tick-cache:6379",
        between(0, 0.5, 0.9, 14),
    )
    t.lines(
        "quote-engine", "warning", "q.engine.Shedder", "Event loop lag {800..2600} ms", course(0.0, (0.7, 0), (2, 6))
    )
    t.lines(
        "watchlist",
        "warning",
        "watchlist.quotes",
        "No prices for list {7d}, showing last close",
        course(0.05, (0, 0.05), (1, 4)),
    )
    t.lines("news", "error", "news.feed", "Feed {reuters|dpa|afp}: 502 Bad Gateway", between(0.1, -17, -13, 3))
    t.lines("risk", "info", "risk.check", "Order {8h} within limits", course(4, (0.3, 4), (2, 1.5)), load=1)
    t.lines("risk", "warning", "risk.margin", "Margin of account {8d} above 80 %", 0.8)
    t.lines("mobile-bff", "info", "bff.http", "GET /portfolio 200", 6, load=1)
    t.lines("mobile-bff", "error", "bff.http", "GET /quotes 504", course(0.05, (0.1, 0.05), (1, 8)))


def _context(t: Telling) -> None:
    t.say("tick-cache", 0.05, "info", "elasticache.events", "Recovering cache nodes 0001", instance="broker-ticks-001")
    t.say(
        "tick-cache",
        0.7,
        "info",
        "elasticache.events",
        "Finished recovery for cache nodes 0001",
        instance="broker-ticks-001",
    )
    t.change("news", -19, "deploy", "ECS deployment of news:44: COMPLETED", version="news:44", author="ci")
    t.change(
        "order-gateway", -2900, "deploy", "ECS deployment of order-gateway:310: COMPLETED", version="order-gateway:310"
    )
    t.change("risk", -41, "configuration", "PutParameter /broker/risk/margin-table", author="risk-desk")
    for service, revision, tasks in (("mobile-bff", 702, 3), ("order-gateway", 310, 4), ("quote-engine", 198, 4)):
        t.ecs(service, revision, tasks)
    for service, revision in (("watchlist", 66), ("risk", 121), ("news", 44)):
        t.ecs(service, revision, 2)
    t.document(
        "order-gateway",
        "Clients > quote-engine",
        "Deadline 2 s, 5 attempts, no backoff. One task of quote-engine prices some 450 requests a minute.",
        ["order-gateway", "quote-engine"],
        "is about order-gateway",
    )
