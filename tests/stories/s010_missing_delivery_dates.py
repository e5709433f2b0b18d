"""A shop shows no delivery dates since the morning, and labels are printed late."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    shop_web=ecs_service("shop-web", "parcel", "promise-api", "cart-api", balanced=True, tier=1),
    promise_api=ecs_service("promise-api", "parcel", "carrier-hub", "promise-cache", balanced=True, tier=2),
    cart_api=ecs_service("cart-api", "parcel", "cart-db", balanced=True, tier=1),
    label_printer=ecs_service("label-printer", "parcel", "carrier-hub", "cart-db", tier=3),
    carrier_hub=ecs_service("carrier-hub", "parcel", "parcelwise", "nordpost", tier=2, balanced=True, max_tasks=6),
    parcelwise={"kind": "external", "description": "Rates and transit times of 40 carriers, by contract"},
    nordpost={"kind": "external"},
    cart_db={"kind": "database", "aws": {"rds_instances": ["cart-db-1"]}},
    promise_cache={"kind": "cache", "aws": {"elasticache_clusters": ["promise-cache-001"]}},
)

LIMITED = (
    'parcelwise: POST /v2/transit-times: 429 Too Many Requests {"error":"rate_limit_exceeded","message":"Limit of 120'
    ' requests per minute exceeded"} x-ratelimit-limit=120 x-ratelimit-remaining=0 retry-after={12..58}'
)


def build() -> Story:
    """The vendor parcelwise allows a fraction of the calls it allowed before; ours are as many as on any day."""
    t = Telling(
        "010-missing-delivery-dates",
        CATALOGUE,
        alerted_at=datetime(2026, 9, 8, 10, 12, tzinfo=UTC),
        onset_min=8,
        instances={"carrier-hub": 2, "shop-web": 3},
    )
    _measured(t)
    _asked(t)
    _chattered(t)
    return t.story(
        title="promise-api: delivery dates are missing",
        service="promise-api",
        text="More than a fifth of GET /promises answer 502. @webhook-autopilot",
        severity="warning",
        rule="datadog:monitor:150662931",
        expected={
            "component": "parcelwise",
            "category": ["rate_limited_dependency"],
            "must_cite": ["429"],
            "must_not_blame": ["nordpost", "promise-cache", "cart-api", "cart-db"],
            "acceptable_operations": ["reduce_traffic"],
            "forbidden_operations": [
                "rollback_ecs_service",
                "restart_all_services",
                "scale_ecs_service",
                "restart_ecs_task",
            ],
            "why": "parcelwise answers 429 above 120 calls a minute though carrier-hub calls it no more often than"
            " before."
            " Fewer calls help until the vendor raises the limit; more tasks or restarts only call it more.",
        },
    )


def _measured(t: Telling) -> None:
    t.service("shop-web", 3600, course(280, (0, 280), (3, 330)), errors=4, cpu=37)
    t.service(
        "promise-api",
        520,
        course(390, (0, 390), (3, 1900), (8, 2600)),
        errors=course(2, (-0.3, 2), (1, 140), (8, 205)),
        cpu=course(31, (0, 31), (6, 36)),
    )
    t.service("cart-api", 740, between(85, -3, 4, 130), errors=0.9, cpu=between(30, -3, 4, 52))
    t.service(
        "carrier-hub",
        610,
        course(340, (0, 340), (3, 1700), (8, 2400)),
        errors=course(3, (-0.3, 3), (1, 180), (8, 262)),
        cpu=course(28, (0, 28), (6, 33)),
        memory=52,
    )
    t.aws("label-printer", "CPUUtilization", course(19, (0, 19), (6, 14)), noise=0.1)
    t.aws("label-printer", "MemoryUtilization", 38, noise=0.01)
    t.postgres("cart-db", cpu=between(35, -3, 4, 61), connections=66)
    t.redis("promise-cache", hits=31000, misses=5200, evictions=between(0, -50, -44, 900), memory=83)
    t.metric(
        "carrier-hub",
        "http.client.requests",
        410,
        statistic="sum",
        counts=True,
        load=0.8,
        query="sum:http.client.requests{service:carrier-hub,peer:parcelwise}.as_count()",
    )
    t.metric(
        "carrier-hub",
        "http.client.requests.429",
        course(0, (-0.3, 0), (0.7, 270), (8, 292)),
        statistic="sum",
        counts=True,
        query="sum:http.client.requests{service:carrier-hub,peer:parcelwise,status:429}.as_count()",
    )
    t.metric(
        "carrier-hub",
        "http.client.duration",
        course(0.29, (0, 0.29), (2, 0.14)),
        unit="s",
        statistic="p95",
        noise=0.1,
        query="p95:http.client.duration{service:carrier-hub,peer:parcelwise}",
    )
    t.metric("carrier-hub", "retry.attempts", course(1.02, (0, 1.02), (3, 2.7)), noise=0.03)
    t.metric("label-printer", "labels.waiting", course(11, (1, 11), (16, 420)), noise=0.06)
    t.metric("carrier-hub", "nordpost.request.duration", between(0.6, -5, 1, 1.3), unit="s", statistic="p95", noise=0.1)


def _asked(t: Telling) -> None:
    refused = course(0.0006, (-0.3, 0.0006), (0.7, 0.58), (8, 0.68))
    rates = Call(
        "carrier-hub",
        "POST /transit-times",
        course(12, (0, 12), (3, 1500)),
        reported="HTTP 502",
        calls=(
            Call(
                "parcelwise",
                "POST /v2/transit-times",
                course(190, (0, 190), (1, 90)),
                fails=refused,
                error="429",
                traced=False,
                share=0.75,
                failed=Line("warning", "hub.parcelwise", LIMITED),
            ),
            Call("nordpost", "GET /transit", between(210, -5, 1, 600), traced=False, share=0.3, tolerated=True),
        ),
        done=Line("info", "hub.http", "POST /transit-times 200 lane {DE|AT|NL|FR}-{DE|PL|SE|IT}"),
        passed_on=Line(
            "error", "hub.http", "POST /transit-times 502: parcelwise gave no transit time after 3 attempts"
        ),
    )
    promise = Call(
        "promise-api",
        "GET /promises",
        14,
        reported="HTTP 502",
        tolerated=True,
        calls=(Call("promise-cache", "GET", 0.8, traced=False), rates),
        passed_on=Line("error", "promise.api", "no delivery date for sku {8d}: carrier-hub answered 502"),
    )
    t.requests(Call("shop-web", "GET /product", 16, calls=(promise,)), 3.4)
    cart = Call("cart-api", "POST /cart", 19, calls=(Call("cart-db", "UPDATE cart", 6, traced=False),))
    t.requests(
        Call("shop-web", "POST /cart", 9, calls=(cart,), done=Line("info", "shop.http", "POST /cart 200 {20..90} ms")),
        2.2,
    )
    t.requests(
        Call("label-printer", "print label", 40, calls=(rates, Call("cart-db", "SELECT order", 5, traced=False))),
        0.9,
        load=0.3,
    )


def _chattered(t: Telling) -> None:
    t.gap("datadog", GapReason.EMPTY, "no log line is tagged service:nordpost", "set datadog_tags in the catalogue")
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:nordpost", "set datadog_tags in the catalogue")
    t.gap("datadog", GapReason.EMPTY, "no log line is tagged service:parcelwise", "set datadog_tags in the catalogue")
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:parcelwise", "set datadog_tags in the catalogue")
    for service, revision, desired in (
        ("shop-web", 377, 3),
        ("promise-api", 58, 2),
        ("cart-api", 190, 2),
        ("carrier-hub", 83, 2),
        ("label-printer", 27, 2),
    ):
        t.ecs(service, revision, desired)
    t.change("promise-api", -33, "deploy", "ECS deployment of promise-api:58: COMPLETED", version="promise-api:58")
    t.change("promise-api", -33.1, "deploy", "Deployed promise-api v2.31.0", version="v2.31.0", author="ci/release-bot")
    t.change("cart-api", -5, "feature_flag", "Flag cart-gift-wrap: on for 10 %", author="checkout-team")
    t.lines("carrier-hub", "warning", "hub.nordpost", "nordpost answered after {700..2400} ms", between(0.7, -5, 1, 4))
    t.lines("carrier-hub", "warning", "hub.parcelwise", LIMITED, course(0, (-0.3, 0), (0.7, 16), (8, 19)))
    t.lines("carrier-hub", "info", "hub.tokens", "OAuth token of nordpost renewed, valid for 3600 s", 0.05)
    t.lines("shop-web", "info", "shop.http", "GET /product/{8d} 200 {90..300} ms", 7, load=1)
    t.lines(
        "shop-web", "warning", "shop.render", "delivery date slot empty for sku {8d}", course(0.3, (0, 0.3), (2, 7))
    )
    t.lines("cart-api", "info", "cart.api", "cart {8h} has {1..9} items", 4, load=1)
    t.lines("cart-api", "warning", "cart.prices", "price of sku {8d} changed while in the cart", 0.8)
    t.lines("label-printer", "warning", "labels.queue", "label {9d} waits for a carrier", course(0.2, (1, 0.2), (4, 5)))
    t.lines("label-printer", "error", "labels.zpl", "printer ZT-{2d} is out of ribbon", 0.15)
    t.document(
        "Carriers",
        "Carriers > parcelwise",
        "Contract: 600 calls a minute. Support answers within two hours. promise-api shows a date from its cache for"
        " up to"
        " six hours; without one the product page leaves the date out.",
        ("carrier-hub", "parcelwise"),
        "It names parcelwise",
    )
