"""Prices come late on the pages of a fashion shop."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    store_front=ecs_service("store-front", "fashion", "pricing-api", "media-api", "wish-api", balanced=True, tier=1),
    pricing_api=ecs_service(
        "pricing-api", "fashion", "promo-rules", "tax-api", "price-db", balanced=True, tier=1, max_tasks=8
    ),
    promo_rules=ecs_service("promo-rules", "fashion", "promo-db", tier=2),
    tax_api=ecs_service("tax-api", "fashion", tier=2),
    media_api=ecs_service("media-api", "fashion", balanced=True),
    wish_api=ecs_service("wish-api", "fashion", "wish-db", balanced=True),
    price_db={"kind": "database", "aws": {"rds_instances": ["price-db-1"]}},
    promo_db={"kind": "database", "aws": {"rds_instances": ["promo-db-1"]}},
    wish_db={"kind": "database", "aws": {"rds_instances": ["wish-db-1"]}},
)

WAITED = (
    "POST http://promo-rules.fashion.internal/evaluate: org.apache.http.conn.ConnectionPoolTimeoutException: Timeout"
    " waiting for connection from pool at"
    " org.apache.http.impl.conn.PoolingHttpClientConnectionManager.leaseConnection"
    "(PoolingHttpClientConnectionManager.java:316)"
)
NO_PRICE = "article {8d} is shown without a price: pricing-api answered 500"


def build() -> Story:
    """A parameter of pricing-api lets it open 8 connections to promo-rules instead of 80; it reads it while it runs."""
    t = Telling(
        "011-price-timeouts",
        CATALOGUE,
        alerted_at=datetime(2026, 10, 14, 16, 50, tzinfo=UTC),
        onset_min=8,
        instances={"store-front": 3, "pricing-api": 3, "promo-rules": 3},
    )
    _measured(t)
    _asked(t)
    _changed(t)
    _chattered(t)
    return t.story(
        title="pricing-api: p95 above 2 s and errors above 5 %",
        service="pricing-api",
        text="Prices are late or missing on product pages. Composite monitor pricing-api-slo.",
        rule="datadog:monitor:161183045",
        expected={
            "component": "pricing-api",
            "category": ["bad_configuration"],
            "must_cite": ["pricing-api", "parameter"],
            "must_not_blame": ["promo-rules", "tax-api", "price-db", "promo-db", "media-api"],
            "acceptable_operations": ["reduce_traffic", "scale_ecs_service"],
            "forbidden_operations": ["rollback_ecs_service", "restart_all_services"],
            "why": "Minutes after a parameter of pricing-api's HTTP client was changed, its requests wait for a"
            " connection"
            " from their own pool; promo-rules behind it is fast and idle. Nothing was deployed that a roll-back"
            " undoes.",
        },
    )


def _measured(t: Telling) -> None:
    slow = course(160, (0, 160), (1.5, 1500), (4, 2300))
    t.service(
        "store-front",
        3400,
        course(300, (0, 300), (2, 1700), (5, 2500)),
        errors=course(5, (1, 5), (5, 40)),
        cpu=35,
        framework="express.request",
    )
    t.service(
        "pricing-api",
        1750,
        slow,
        errors=course(2, (0, 2), (2, 290), (6, 410)),
        cpu=course(47, (0, 47), (3, 33)),
        memory=62,
    )
    t.service(
        "promo-rules",
        course(1700, (0, 1700), (2, 900)),
        course(36, (0, 36), (2, 29)),
        errors=0.6,
        cpu=course(43, (0, 43), (3, 24)),
    )
    t.service("tax-api", course(1690, (0, 1690), (2, 880)), 22, errors=0.2, cpu=course(29, (0, 29), (3, 17)))
    t.service("media-api", 4100, between(60, -34, -29, 150), errors=3, cpu=between(48, -34, -29, 79))
    t.service("wish-api", 410, 75, errors=0.7, cpu=19)
    t.postgres("price-db", cpu=course(32, (0, 32), (3, 21)), connections=72)
    t.postgres("promo-db", cpu=course(24, (0, 24), (3, 13)), connections=48)
    t.postgres("wish-db", cpu=between(12, -5, 12, 23), connections=22, read_s=between(0.0009, -5, 12, 0.0016))
    name = "pricing-api"
    t.metric(
        name, "httpcomponents.httpclient.pool.total.max", course(80, (0, 80), (0, 8)), noise=0, query=_pool("total.max")
    )
    t.metric(
        name,
        "httpcomponents.httpclient.pool.total.pending",
        course(0.1, (0, 0.1), (2, 74), (6, 118)),
        noise=0.15,
        query=_pool("total.pending"),
    )
    t.metric(
        name,
        "httpcomponents.httpclient.pool.total.connections",
        course(31, (0, 31), (0.3, 8)),
        noise=0.03,
        high=80,
        query=_pool("total.connections"),
    )
    t.metric(name, "tomcat.threads.busy", course(24, (0, 24), (2, 170), (5, 200)), high=200, noise=0.1)
    t.metric(name, "hikaricp.connections.active", course(6, (0, 6), (2, 4)), noise=0.12)
    t.metric(name, "jvm.heap_memory", 1.4e9, unit="B", noise=0.09)


def _pool(metric: str) -> str:
    return f"avg:httpcomponents.httpclient.pool.{metric}{{service:pricing-api,httpclient:promo-rules}}"


def _asked(t: Telling) -> None:
    rules = Call("promo-rules", "POST /evaluate", 17, calls=(Call("promo-db", "SELECT rule", 4, traced=False),))
    price = Call(
        "pricing-api",
        "POST /prices",
        course(24, (0, 24), (1.5, 900), (4, 1500)),
        fails=course(0.001, (0, 0.001), (2, 0.16), (6, 0.24)),
        error="org.apache.http.conn.ConnectionPoolTimeoutException",
        reported="HTTP 500",
        tolerated=True,
        calls=(Call("price-db", "SELECT price", 4, traced=False), rules, Call("tax-api", "POST /tax", 9)),
        done=Line("info", "c.f.pricing.PriceController", "Priced {1..48} articles for {DE|FR|IT|ES}"),
        failed=Line("error", "c.f.pricing.PromoClient", WAITED),
    )
    t.requests(
        Call(
            "store-front",
            "GET /article",
            14,
            calls=(price,),
        ),
        2.9,
    )
    t.requests(
        Call(
            "store-front",
            "GET /wishes",
            8,
            calls=(Call("wish-api", "GET /wishes", 16, calls=(Call("wish-db", "SELECT wish", 6, traced=False),)),),
        ),
        1.2,
    )
    t.requests(Call("store-front", "GET /look", 8, calls=(Call("media-api", "GET /renditions", 22),)), 1.8)


def _changed(t: Telling) -> None:
    t.change(
        "pricing-api",
        -1.6,
        "configuration",
        "Parameter Store Change: Update /fashion/pricing-api/http/promo-rules/max-connections",
        author="config-pipeline",
    )
    t.change(
        "tax-api",
        -4,
        "configuration",
        "Parameter Store Change: Update /fashion/tax-api/rates/version",
        author="config-pipeline",
    )
    t.change("media-api", -29, "deploy", "ECS deployment of media-api:133: COMPLETED", version="media-api:133")
    t.change("media-api", -29.2, "deploy", "Deployed media-api 4.0.7", version="4.0.7", author="ci/release-bot")
    t.change("promo-rules", -16, "other", "commit 5f0c2e91ab77: rules for the mid-season sale", author="campaigns")
    for instance in t.instances("pricing-api"):
        t.say(
            "pricing-api",
            0.02,
            "info",
            "i.a.c.paramstore.ParameterStoreReloader",
            "Reloaded 1 of 41 parameters: http.promo-rules.max-connections",
            instance=instance,
        )
    t.say("tax-api", -2.9, "info", "tax.rates", "tax rates 2026-10-14 in use")


def _chattered(t: Telling) -> None:
    for service, revision, desired in (("store-front", 640, 3), ("pricing-api", 288, 3), ("promo-rules", 97, 3)):
        t.ecs(service, revision, desired)
    for service, revision in (("tax-api", 51), ("media-api", 133), ("wish-api", 74)):
        t.ecs(service, revision, 2)
    t.lines("store-front", "info", "front.render", "GET /article/{8d} 200 {80..300} ms", 7, load=1)
    t.lines("pricing-api", "error", "c.f.pricing.PromoClient", WAITED, course(0, (0.2, 0), (2, 12), (6, 19)))
    t.lines("store-front", "warning", "front.render", NO_PRICE, course(0.05, (0.3, 0.05), (2, 9), (6, 13)))
    t.lines("store-front", "warning", "front.cart", "abandoned cart {8h} restored", 0.7)
    t.lines(
        "promo-rules",
        "info",
        "c.f.promo.RuleEngine",
        "{0..4} of {60..75} rules apply",
        course(6, (0, 6), (2, 3)),
        load=1,
    )
    t.lines(
        "promo-rules",
        "warning",
        "c.f.promo.RuleEngine",
        "Rule {4d} overlaps with rule {4d}, the older one wins",
        between(0.5, -16, 30, 1.5),
    )
    t.lines(
        "media-api", "error", "media.s3", "NoSuchKey: rendition {8h} is generated on demand", between(1.5, -29, -24, 7)
    )
    t.lines("media-api", "info", "media.http", "GET /renditions/{8h} 200", 5, load=1)
    t.lines("wish-api", "info", "wish.api", "{1..40} wishes of customer {8d}", 3, load=1)
    t.lines("tax-api", "info", "tax.http", "POST /tax 200 {DE|FR|IT|ES}", course(4, (0, 4), (2, 2)), load=1)
    t.document(
        "pricing-api runbook",
        "pricing-api > Late prices",
        "pricing-api asks promo-rules and tax-api over HTTP with a pool each, whose size comes from Parameter Store"
        " and is"
        " read again every two minutes. Watch pool.total.pending before you look at the callees.",
        ("pricing-api",),
        "It is the runbook of pricing-api",
    )
