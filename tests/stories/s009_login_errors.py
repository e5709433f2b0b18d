"""Some log-ins and all payouts of a marketplace fail in the afternoon."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Course, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    portal_web=ecs_service("portal-web", "market", "identity-api", "payouts-api", "listing-api", balanced=True, tier=1),
    identity_api=ecs_service(
        "identity-api", "market", "identity-db", "token-cache", "trust-score", balanced=True, tier=1
    ),
    payouts_api=ecs_service("payouts-api", "market", "trust-score", "payouts-db", balanced=True, tier=1),
    listing_api=ecs_service("listing-api", "market", "listing-db", balanced=True),
    trust_score=ecs_service("trust-score", "market", "features-db", balanced=True, tier=2),
    identity_db={"kind": "database", "aws": {"rds_instances": ["identity-db-1"]}},
    payouts_db={"kind": "database", "aws": {"rds_instances": ["payouts-db-1"]}},
    listing_db={"kind": "database", "aws": {"rds_instances": ["listing-db-1"]}},
    features_db={"kind": "database", "aws": {"rds_instances": ["features-db-1"]}},
    token_cache={"kind": "cache", "aws": {"elasticache_clusters": ["token-cache-001"]}},
)

HOST = "trust-score.market.internal"
GO = f'risk score: Post "http://{HOST}:8080/score": dial tcp: lookup {HOST} on 10.40.0.2:53: server misbehaving'
NODE = f"Error: getaddrinfo EAI_AGAIN {HOST} at GetAddrInfoReqWrap.onlookupall [as oncomplete] (node:dns:122:26)"
ANSWERED = course(1, (0, 1), (0.3, 0.7), (1.5, 0.12), (2, 0.04))
LOST = course(0, (0, 0), (0.3, 0.3), (1.5, 0.88), (2, 0.96))


def build() -> Story:
    """The name of trust-score does not resolve any more; the service behind it is well, and gets no requests."""
    t = Telling(
        "009-login-errors",
        CATALOGUE,
        alerted_at=datetime(2026, 7, 1, 15, 33, tzinfo=UTC),
        onset_min=7,
        instances={"identity-api": 4, "portal-web": 3, "trust-score": 3},
    )
    _measured(t)
    _asked(t)
    _chattered(t)
    return t.story(
        title="[Triggered] identity-api: log-ins fail (error rate above 10 %)",
        service="identity-api",
        text="More than 10 % of POST /login end in 5xx. See dashboard Identity.",
        rule="datadog:monitor:133910287",
        expected={
            "component": "trust-score",
            "category": ["dns_failure"],
            "must_cite": ["trust-score.market.internal"],
            "must_not_blame": ["identity-db", "token-cache", "listing-api", "features-db"],
            "acceptable_operations": [],
            "forbidden_operations": [
                "restart_all_services",
                "restart_ecs_task",
                "rollback_ecs_service",
                "scale_ecs_service",
            ],
            "why": "Two callers in two languages cannot resolve trust-score.market.internal (SERVFAIL), while"
            " trust-score"
            " itself is healthy and idle. The record must be mended; restarts would lose what tasks have still cached.",
        },
    )


def _measured(t: Telling) -> None:
    ms = course(180, (0, 180), (2, 2300), (7, 5200))
    t.service(
        "portal-web", 2900, course(310, (1, 310), (7, 5300)), errors=course(6, (0, 6), (1, 120), (3, 420)), cpu=34
    )
    t.service(
        "identity-api",
        780,
        ms,
        errors=course(2, (0, 2), (1, 95), (3, 312)),
        cpu=course(37, (0, 37), (3, 29)),
        framework="http.request",
    )
    t.service(
        "payouts-api",
        160,
        course(240, (0, 240), (2, 420)),
        errors=course(0.4, (0, 0.4), (2, 149)),
        cpu=22,
        framework="express.request",
    )
    t.service("listing-api", 2100, between(90, -2, 5, 150), errors=1.5, cpu=between(38, -2, 5, 57))
    seen = course(540, (0, 540), (2, 60), (3, 21))
    t.service(
        "trust-score", seen, 74, errors=0.2, cpu=course(49, (0, 49), (3, 5)), memory=73, framework="fastapi.request"
    )
    t.postgres("identity-db", cpu=course(29, (0, 29), (3, 24)), connections=58)
    t.postgres("payouts-db", cpu=course(18, (0, 18), (3, 9)), connections=30)
    t.postgres("listing-db", cpu=between(41, -2, 5, 69), connections=77)
    t.postgres("features-db", cpu=course(36, (0, 36), (3, 5)), connections=45, read_iops=course(620, (0, 620), (3, 70)))
    t.redis("token-cache", connections=between(140, -2, 15, 152))
    t.metric("identity-api", "runtime.go.num_goroutine", course(410, (0, 410), (7, 1900)), noise=0.05)
    t.metric(
        "identity-api", "runtime.go.mem_stats.heap_alloc", course(1.9e8, (0, 1.9e8), (7, 3.1e8)), unit="B", noise=0.12
    )
    t.metric("payouts-api", "runtime.node.event_loop.delay.max", 31e6, unit="ns", noise=0.3, statistic="max")
    t.metric("token-cache", "redis.net.rejected", 0.0, counts=True, statistic="sum")


def _asked(t: Telling) -> None:
    score = Call("trust-score", "POST /score", 44, calls=(Call("features-db", "SELECT features", 7, traced=False),))
    before = (Call("token-cache", "GET", 0.8, traced=False), Call("identity-db", "SELECT credential", 5, traced=False))
    go = Call(
        "trust-score",
        "POST /score",
        course(40, (0, 40), (2, 2100), (7, 5000)),
        fails=1,
        error="*net.DNSError",
        traced=False,
        failed=Line(
            "error",
            "identity/risk/client.go:88",
            GO,
        ),
    )
    node = Call(
        "trust-score",
        "POST /score",
        course(12, (0, 12), (2, 190)),
        fails=1,
        error="EAI_AGAIN",
        traced=False,
        failed=Line(
            "error",
            "payouts.risk",
            NODE,
        ),
    )
    for inner, share in ((score, ANSWERED), (go, LOST)):
        login = Call(
            "identity-api",
            "POST /login",
            22,
            reported="HTTP 503",
            calls=(*before, inner),
            done=Line("info", "identity/login.go:141", "login ok subject={8h} mfa={true|false}"),
            passed_on=Line(
                "error",
                "identity/login.go:133",
                "login failed subject={8h}: risk score is required: context deadline exceeded",
            ),
        )
        t.requests(
            Call(
                "portal-web",
                "POST /login",
                6,
                calls=(login,),
                passed_on=Line("warning", "portal.http", "POST /login 503 {2000..5400} ms"),
            ),
            _of(share, 2.4),
        )
    for inner, share in ((score, ANSWERED), (node, LOST)):
        payout = Call(
            "payouts-api",
            "POST /payouts",
            18,
            reported="HTTP 503",
            calls=(inner, Call("payouts-db", "INSERT payout", 6, traced=False)),
            passed_on=Line("error", "payouts.http", "payout {9d} rejected: risk check is not available"),
        )
        t.requests(Call("portal-web", "POST /payouts", 6, calls=(payout,)), _of(share, 1.0))
    t.requests(
        Call(
            "portal-web",
            "GET /listings",
            5,
            calls=(
                Call(
                    "listing-api", "GET /listings", 30, calls=(Call("listing-db", "SELECT listing", 9, traced=False),)
                ),
            ),
        ),
        2.4,
    )


def _of(share: Course, per_minute: float) -> Course:
    return course(share.normal * per_minute, *((minute, value * per_minute) for minute, value in share.points))


def _chattered(t: Telling) -> None:
    for service, revision, desired in (
        ("portal-web", 411, 3),
        ("identity-api", 190, 4),
        ("payouts-api", 72, 2),
        ("listing-api", 256, 2),
        ("trust-score", 44, 3),
    ):
        t.ecs(service, revision, desired)
    t.change("identity-api", -41, "deploy", "ECS deployment of identity-api:190: COMPLETED", version="identity-api:190")
    t.change("listing-api", -9, "deploy", "ECS deployment of listing-api:256: COMPLETED", version="listing-api:256")
    t.change("listing-api", -9.2, "deploy", "Deployed listing-api 26.27.1", version="26.27.1", author="ci/release-bot")
    t.change(
        "token-cache",
        -3,
        "configuration",
        "ModifyCacheParameterGroup: cacheParameterGroupName market-redis7",
        author="platform-team",
    )
    t.lines(
        "trust-score",
        "info",
        "uvicorn.access",
        '10.40.{0..3}.{10..250}:{40000..60000} - "GET /healthz HTTP/1.1" 200',
        4,
    )
    t.lines(
        "trust-score",
        "info",
        "trust.model",
        "scored subject {8h} {0.1|0.2|0.4|0.7}{1d} with model 2026-06-18",
        course(6, (0, 6), (2, 0.4)),
        load=1,
    )
    t.lines(
        "trust-score",
        "warning",
        "trust.model",
        "feature device_age missing for subject {8h}",
        course(0.9, (0, 0.9), (2, 0.1)),
    )
    t.lines("portal-web", "info", "portal.http", "GET /listings/{8d} 200 {30..160} ms", 7, load=1)
    t.lines("portal-web", "warning", "portal.csp", "blocked inline script of extension {8h}", 0.8)
    t.lines("identity-api", "warning", "identity/mfa.go:57", "wrong one-time code subject={8h}", 1.3, load=1)
    t.lines("listing-api", "info", "c.m.listing.SearchController", "Listed {10..60} offers", 4, load=1)
    t.lines(
        "listing-api", "error", "c.m.listing.Thumbnails", "Thumbnail {9d} could not be decoded", between(0.5, -9, -1, 2)
    )
    t.lines("payouts-api", "info", "payouts.http", "payout {9d} accepted", course(3, (0, 3), (2, 0.15)), load=1)
