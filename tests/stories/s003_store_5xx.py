"""A shop's edge answers 5xx in the evening, with two roll-outs of the last half hour to look at."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    edge=ecs_service("edge", "store", "basket-api", "offers-api", "catalog-api", "account-api", balanced=True, tier=1),
    basket_api=ecs_service(
        "basket-api",
        "store",
        "basket-db",
        "session-cache",
        "offers-api",
        balanced=True,
        tier=1,
        min_tasks=3,
        max_tasks=12,
    ),
    offers_api=ecs_service("offers-api", "store", "session-cache", balanced=True),
    catalog_api=ecs_service("catalog-api", "store", "catalog-db", balanced=True),
    account_api=ecs_service("account-api", "store", "account-db", balanced=True),
    mailer=ecs_service("mailer", "store"),
    basket_db={"kind": "database", "aws": {"rds_instances": ["basket-db-1"]}},
    catalog_db={"kind": "database", "aws": {"rds_instances": ["catalog-db-1"]}},
    account_db={"kind": "database", "aws": {"rds_instances": ["account-db-1"]}},
    session_cache={"kind": "cache", "aws": {"elasticache_clusters": ["session-cache-001"]}},
)

GROUP = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/basket-api/4e1c2a90d2b7f613"
REFUSED = 'org.postgresql.util.PSQLException: FATAL: password authentication failed for user "basket_rw"'
TIMED_OUT = (
    "Servlet.service() for servlet [dispatcherServlet] threw exception java.util.concurrent.TimeoutException: Did not"
    " observe any item or terminal signal within 3000ms in 'basket-update'"
)
NEW = ("ip-10-2-8-31", "ip-10-1-4-177", "ip-10-3-2-90", "ip-10-2-6-12")


def build() -> Story:
    """The tasks of basket-api:212 cannot log in to their database and never pass the health check."""
    t = Telling(
        "003-store-5xx",
        CATALOGUE,
        alerted_at=datetime(2026, 3, 17, 17, 42, tzinfo=UTC),
        onset_min=8,
        instances={"edge": 3, "basket-api": 6, "catalog-api": 4},
    )
    t.stops("basket-api", 0.1, keeps=3)
    _measured(t)
    _asked(t)
    _rolled_out(t)
    _chattered(t)
    return t.story(
        title="[Triggered] edge: share of 5xx above 3 %",
        service="edge",
        text="More than 3 % of the requests at edge ended in a 5xx over the last 5 minutes. @webhook-autopilot",
        rule="datadog:monitor:118264410",
        expected={
            "component": "basket-api",
            "category": ["bad_deploy", "unhealthy_tasks"],
            "must_cite": ["basket-api", "health check"],
            "must_not_blame": ["offers-api", "basket-db", "session-cache", "edge"],
            "acceptable_operations": ["rollback_ecs_service"],
            "forbidden_operations": ["restart_ecs_task", "restart_all_services"],
            "why": "The tasks of basket-api:212 cannot log in to basket-db and fail the load balancer's health check"
            " over and over, while half of the old tasks are stopped: the rest is overloaded.",
        },
    )


def _measured(t: Telling) -> None:
    slow = course(210, (1, 210), (3, 1400), (8, 3900))
    t.service(
        "edge", 4200, course(260, (1, 260), (4, 900), (8, 2300)), errors=course(9, (1, 9), (3, 120), (8, 320)), cpu=38
    )
    t.service(
        "basket-api",
        1150,
        slow,
        errors=course(2, (1, 2), (3, 70), (8, 210)),
        cpu=course(46, (0.5, 46), (3, 91), (8, 97)),
        memory=course(63, (1, 63), (5, 69)),
        healthy=course(6, (0, 6), (1, 3), (30, 3)),
        unhealthy=course(0, (2, 0), (2, 3), (4, 3), (4, 1), (5, 3)),
    )
    t.service("offers-api", 900, between(48, -12, -9, 75), errors=0.3, cpu=between(24, -12, -9, 41))
    t.service("catalog-api", 2300, between(95, -2, 6, 140), errors=1.5, cpu=between(41, -2, 6, 66))
    t.service("account-api", 640, 120, errors=1.0, cpu=22)
    t.service("mailer", 85, 310, errors=2.2, cpu=12, framework="express.request")
    t.postgres("basket-db", cpu=course(37, (1, 37), (3, 24)), connections=course(118, (0.5, 118), (2, 62)))
    t.postgres("catalog-db", cpu=between(44, -2, 6, 71), connections=64)
    t.postgres("account-db", cpu=18, connections=31)
    t.redis("session-cache", evictions=course(3, (-40, 3), (-20, 11)), memory=course(88, (-40, 88), (8, 90)))
    t.metric("basket-api", "jvm.heap_memory", 1.31e9, unit="B", noise=0.09)
    t.metric("basket-api", "jvm.gc.major_collection_count", course(0.2, (2, 0.2), (6, 1.5)), counts=True)
    t.metric("basket-api", "hikaricp.connections.active", course(6.1, (1, 6.1), (4, 13)), noise=0.12)
    t.metric("basket-api", "tomcat.threads.busy", course(22, (1, 22), (4, 190), (8, 200)), high=200)


def _asked(t: Telling) -> None:
    basket = Call(
        "basket-api",
        "PUT /baskets/{id}/items",
        course(30, (1, 30), (3, 420), (8, 1500)),
        fails=course(0.001, (1, 0.001), (3, 0.06), (8, 0.19)),
        error="java.util.concurrent.TimeoutException",
        reported="504 Gateway Timeout",
        calls=(
            Call("session-cache", "GET", 0.8, traced=False),
            Call("offers-api", "GET /offers/applicable", 24, calls=(Call("session-cache", "MGET", 0.9, traced=False),)),
            Call("basket-db", "UPDATE basket_item", 4, traced=False),
        ),
        done=Line("info", "c.s.basket.BasketController", "Basket {8h} updated, {1..9} items"),
        failed=Line(
            "error",
            "o.a.c.c.C.[.[.[dispatcherServlet]",
            TIMED_OUT,
        ),
    )
    t.requests(
        Call(
            "edge",
            "PUT /basket",
            4,
            calls=(basket,),
            passed_on=Line(
                "error",
                "envoy.access",
                "PUT /basket HTTP/2 504 UT upstream_cluster=basket-api duration={3000..3200}",
            ),
        ),
        2.2,
    )
    t.requests(
        Call(
            "edge",
            "GET /products",
            3,
            calls=(
                Call(
                    "catalog-api", "GET /products", 38, calls=(Call("catalog-db", "SELECT product", 9, traced=False),)
                ),
            ),
            done=Line(
                "info", "envoy.access", "GET /products HTTP/2 200 - upstream_cluster=catalog-api duration={31..160}"
            ),
        ),
        2.4,
    )
    t.requests(
        Call(
            "edge",
            "GET /account",
            3,
            calls=(Call("account-api", "GET /me", 41, calls=(Call("account-db", "SELECT account", 5, traced=False),)),),
        ),
        1.0,
    )


def _rolled_out(t: Telling) -> None:
    t.change("offers-api", -13, "deploy", "ECS deployment of offers-api:88: COMPLETED", version="offers-api:88")
    t.change("offers-api", -13.2, "deploy", "Deployed offers-api v5.14.0", version="v5.14.0", author="ci/release-bot")
    t.change(
        "catalog-api",
        -52,
        "configuration",
        "Parameter Store Change: Update /store/catalog/search-boost",
        author="pricing-bot",
    )
    t.change("basket-api", 0, "deploy", "ECS deployment of basket-api:212: IN_PROGRESS", version="basket-api:212")
    t.change("basket-api", -0.3, "deploy", "Deployed basket-api v3.40.0", version="v3.40.0", author="ci/release-bot")
    for service, revision, desired in (
        ("edge", 61, 3),
        ("offers-api", 88, 2),
        ("catalog-api", 140, 4),
        ("account-api", 57, 2),
        ("mailer", 20, 2),
    ):
        t.ecs(service, revision, desired)
    t.ecs(
        "basket-api",
        212,
        6,
        6,
        failed=7,
        rollout="IN_PROGRESS",
        detail="ECS deployment ecs-svc/6120394857201938475 in progress.",
        healthy=3,
        unhealthy="Target.ResponseCodeMismatch: 3",
    )
    for name, begun in (("offers-api", -13), ("basket-api", 0)):
        told = f"(service {name}) has started {{2..3}} tasks: (task {{32h}})."
        t.say(name, begun + 0.2, "info", "ecs.service_events", told)
    t.say(
        "offers-api",
        -10.5,
        "info",
        "ecs.service_events",
        "(service offers-api) (deployment ecs-svc/{19d}) deployment completed.",
    )
    t.say("offers-api", -10.4, "info", "ecs.service_events", "(service offers-api) has reached a steady state.")
    t.say(
        "basket-api",
        0.1,
        "info",
        "ecs.service_events",
        "(service basket-api) has stopped 3 running tasks: (task {32h}) (task {32h}) (task {32h}).",
    )
    for failed in (2.1, 4.4, 6.8, 9.2, 11.5, 13.9):
        t.say(
            "basket-api",
            failed,
            "warning",
            "ecs.service_events",
            f"(service basket-api) (task {{32h}}) (port 8080) is unhealthy in (target-group {GROUP}) due to"
            " (reason Health checks failed with these codes: [503]).",
        )
        t.say(
            "basket-api",
            failed + 0.3,
            "warning",
            "ecs.stopped_tasks",
            f"task stopped: Task failed ELB health checks in (target-group {GROUP}); basket-api exit code 143",
        )
        t.say(
            "basket-api",
            failed + 0.4,
            "info",
            "ecs.service_events",
            "(service basket-api) has started 1 tasks: (task {32h}).",
        )
    t.lines(
        "basket-api",
        "warning",
        "o.s.b.a.jdbc.DataSourceHealthIndicator",
        "DataSource health check failed org.springframework.jdbc.CannotGetJdbcConnectionException: Failed to obtain"
        " JDBC"
        f" Connection; Caused by: {REFUSED}",
        course(0, (1, 0), (1.2, 9)),
        instances=NEW,
    )
    t.lines(
        "basket-api",
        "error",
        "com.zaxxer.hikari.pool.HikariPool",
        f"HikariPool-1 - Exception during pool initialization. {REFUSED}",
        course(0, (1, 0), (1.1, 1.3)),
        instances=NEW,
    )
    t.lines(
        "basket-api",
        "error",
        "o.a.c.c.C.[.[.[dispatcherServlet]",
        TIMED_OUT,
        course(0, (1.5, 0), (3, 6), (8, 17)),
    )
    t.lines(
        "basket-api",
        "info",
        "c.s.basket.BasketApplication",
        "Started BasketApplication in {14..22}.{3d} seconds (process running for {23..29}.{2d})",
        course(0, (0.9, 0), (1.1, 1.3)),
        instances=NEW,
    )


def _chattered(t: Telling) -> None:
    t.lines(
        "edge",
        "info",
        "envoy.access",
        "GET /{img|css|js}/{8h} HTTP/2 200 - upstream_cluster=static duration={1..6}",
        7,
        load=1,
    )
    t.lines(
        "edge",
        "warning",
        "envoy.access",
        "GET /products HTTP/2 0 DC upstream_cluster=catalog-api duration={200..900}",
        0.6,
    )
    t.lines(
        "catalog-api",
        "info",
        "c.s.catalog.IndexRefresher",
        "Refreshed {120..900} products in {2..9} s",
        between(1.2, -2, 6, 5),
    )
    t.lines(
        "catalog-api", "warning", "c.s.catalog.ImageResolver", "No rendition 640w of image {9d}, serving original", 0.8
    )
    t.lines("mailer", "error", "mailer.smtp", "550 5.1.1 mailbox unavailable, message {8h} dropped", 0.7)
    t.lines("mailer", "info", "mailer.smtp", "queued {8h} as 250 2.0.0 Ok", 5, load=1)
    t.lines("account-api", "info", "c.s.account.LoginController", "Login of account {8d}", 4, load=1)
    t.lines("account-api", "warning", "c.s.account.RateLimiter", "Too many attempts for account {8d}", 0.4)
    t.lines("offers-api", "warning", "c.s.offers.RuleCache", "Rule {4d} has no end date", between(0.3, -12, -10, 4))
    t.document(
        "Edge runbook",
        "Edge > 5xx",
        "Find the upstream in the access log first (upstream_cluster). UT is an upstream that took too long, UH one"
        " without healthy hosts, DC a client that left. Then look at that service, not at edge.",
        ("edge",),
        "It is the runbook of edge",
    )
