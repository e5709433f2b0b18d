"""Product pages get slower and slower at noon."""

from datetime import UTC, datetime

from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    site_web=ecs_service("site-web", "mall", "product-api", "search-api", "reviews-api", balanced=True, tier=1),
    product_api=ecs_service("product-api", "mall", "product-cache", "product-db", balanced=True, tier=1, max_tasks=10),
    search_api=ecs_service("search-api", "mall", "product-api", balanced=True),
    reviews_api=ecs_service("reviews-api", "mall", "reviews-db", balanced=True),
    price_importer=ecs_service("price-importer", "mall", "product-db", tier=4),
    product_cache={"kind": "cache", "aws": {"elasticache_clusters": ["product-cache-001"]}},
    product_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["product-db-1"]}},
    reviews_db={"kind": "database", "aws": {"rds_instances": ["reviews-db-1"]}},
)


STARVED = (
    "HikariPool-1 - Connection is not available, request timed out after 3000ms (total=40, active=40, idle=0,"
    " waiting={12..40})"
)


def build() -> Story:
    """product-cache was moved to a smaller node: it evicts what is asked for, and the database takes the reads."""
    t = Telling(
        "005-slow-product-pages",
        CATALOGUE,
        alerted_at=datetime(2026, 5, 6, 12, 20, tzinfo=UTC),
        onset_min=9,
        instances={"product-api": 4, "site-web": 3, "price-importer": 1},
    )
    _measured(t)
    _asked(t)
    _happened(t)
    _chattered(t)
    return t.story(
        title="site-web: product pages are slow (p95 > 3 s)",
        service="site-web",
        text="p95 of GET /p/:id above 3 s for 5 minutes.",
        severity="warning",
        rule="datadog:monitor:141207733",
        expected={
            "component": "product-cache",
            "category": ["cache_failure", "memory_exhaustion", "bad_configuration"],
            "must_cite": ["product-cache", "evictions"],
            "must_not_blame": ["product-db", "price-importer", "search-api", "reviews-api"],
            "acceptable_operations": ["reduce_traffic"],
            "forbidden_operations": ["rollback_ecs_service", "restart_all_services", "scale_ecs_service"],
            "why": "The smaller node of product-cache is full and evicts, the hit rate falls, product-db is"
            " saturated with"
            " the reads. The remedy is a larger node; until then fewer requests help, more tasks or cold ones do not.",
        },
    )


def _measured(t: Telling) -> None:
    slow = course(145, (0, 145), (2, 420), (5, 1700), (9, 3900))
    t.service("site-web", 3100, course(380, (0.5, 380), (3, 900), (9, 4600)), errors=course(5, (4, 5), (9, 74)), cpu=36)
    t.service(
        "product-api", 2700, slow, errors=course(2, (4, 2), (9, 130)), cpu=course(39, (0, 39), (6, 51)), memory=58
    )
    t.service("search-api", 880, course(170, (1, 170), (9, 900)), errors=course(1, (5, 1), (9, 12)), cpu=44)
    t.service("reviews-api", 1300, between(70, -3, 4, 120), errors=1.1, cpu=between(26, -3, 4, 49))
    t.aws("price-importer", "CPUUtilization", between(8, -16, 40, 29), noise=0.1)
    t.aws("price-importer", "MemoryUtilization", 37, noise=0.01)
    t.redis(
        "product-cache",
        cpu=course(23, (-0.6, 23), (0.5, 61), (3, 72)),
        memory=course(68, (-0.6, 68), (0, 100)),
        evictions=course(0, (0, 0), (1, 21000), (4, 46000)),
        hits=course(171000, (-0.3, 171000), (1, 118000), (5, 74000)),
        misses=course(7200, (-0.3, 7200), (1, 55000), (5, 101000)),
        connections=course(163, (-0.6, 163), (-0.5, 40), (0.5, 166)),
    )
    t.postgres(
        "product-db",
        cpu=course(31, (0, 31), (2, 72), (6, 98)),
        read_iops=course(480, (0, 480), (4, 4300)),
        connections=course(88, (1, 88), (7, 158)),
        read_s=course(0.0007, (1, 0.0007), (7, 0.0061)),
        queue=course(0.5, (1, 0.5), (7, 17)),
        memory_bytes=course(9.8e9, (0, 9.8e9), (9, 7.1e9)),
    )
    t.postgres("reviews-db", cpu=between(22, -3, 4, 57), connections=40)
    t.metric("product-cache", "redis.keys", course(5.21e6, (0, 5.21e6), (1, 2.3e6)), noise=0.004)
    t.metric(
        "product-cache", "redis.mem.maxmemory", course(1.361e10, (-0.6, 1.361e10), (-0.6, 3.317e9)), unit="B", noise=0
    )
    t.metric("product-cache", "redis.mem.fragmentation_ratio", 1.08, noise=0.01)
    t.metric("product-db", "postgresql.rows_fetched", course(21000, (0, 21000), (4, 148000)), unit="/s", noise=0.07)
    t.metric("product-db", "postgresql.buffer_hit", course(410000, (1, 410000), (6, 590000)), unit="/s", noise=0.06)
    t.metric("product-api", "hikaricp.connections.active", course(14, (1, 14), (7, 40)), high=40, noise=0.1)
    t.metric("product-api", "hikaricp.connections.pending", course(0.1, (4, 0.1), (9, 33)), noise=0.2)


def _asked(t: Telling) -> None:
    miss = course(0.04, (0, 0.04), (1, 0.32), (5, 0.58))
    product = Call(
        "product-api",
        "GET /products/{id}",
        14,
        reported="HTTP 503",
        calls=(
            Call(
                "product-cache",
                "GET product",
                course(0.7, (-0.6, 0.7), (1, 1.6)),
                fails=between(0.0005, -0.6, -0.3, 0.7),
                error="io.lettuce.core.RedisConnectionException",
                traced=False,
                tolerated=True,
            ),
            Call(
                "product-db",
                "SELECT product",
                course(11, (0.5, 11), (3, 350), (6, 1500), (9, 3600)),
                share=miss,
                fails=course(0, (5, 0), (9, 0.13)),
                error="java.sql.SQLTransientConnectionException",
                traced=False,
                failed=Line(
                    "error",
                    "c.m.product.ProductRepository",
                    STARVED,
                ),
            ),
        ),
        done=Line("info", "c.m.product.ProductController", "Product {7d} served"),
        passed_on=Line("error", "c.m.product.ProductController", "Product {7d} could not be loaded"),
    )
    t.requests(
        Call(
            "site-web",
            "GET /p/:id",
            25,
            calls=(
                product,
                Call(
                    "reviews-api",
                    "GET /reviews",
                    18,
                    calls=(Call("reviews-db", "SELECT review", 6, traced=False),),
                    tolerated=True,
                ),
            ),
            passed_on=Line("error", "site.render", "GET /p/{7d} 503 product-api answered 500"),
        ),
        2.6,
    )
    t.requests(
        Call("site-web", "GET /search", 18, calls=(Call("search-api", "GET /search", 60, calls=(product,)),)), 0.9
    )


def _happened(t: Telling) -> None:
    t.change(
        "product-cache",
        -11.5,
        "scaling",
        "ModifyReplicationGroup: cacheNodeType cache.t4g.medium",
        author="finops-rightsizing",
    )
    t.change("site-web", -24, "deploy", "ECS deployment of site-web:509: COMPLETED", version="site-web:509")
    t.change("site-web", -24.2, "deploy", "Deployed site-web 2026.18.2", version="2026.18.2", author="ci/release-bot")
    t.change(
        "reviews-api",
        -3,
        "configuration",
        "Parameter Store Change: Update /mall/reviews/page-size",
        author="reviews-team",
    )
    for instance in t.instances("product-api"):
        for minute in (-0.6, -0.5):
            t.say(
                "product-api",
                minute,
                "warning",
                "i.l.core.protocol.ConnectionWatchdog",
                "Reconnecting, last destination was product-cache.mall.internal/10.4.2.19:6379",
                instance=instance,
            )
    t.lines(
        "price-importer",
        "info",
        "importer.prices",
        "upserted {800..1200} prices of supplier {3d}",
        between(0.3, -16, 40, 5),
    )
    t.lines(
        "price-importer",
        "warning",
        "importer.prices",
        "supplier {3d}: {2..30} rows without currency skipped",
        between(0.1, -16, 40, 1.1),
    )
    t.lines(
        "product-db",
        "info",
        "postgresql",
        "LOG:  duration: {1000..4800}.{3d} ms  execute S_14: SELECT p.*, pr.amount FROM product p JOIN price pr ON"
        " pr.product_id = p.id"
        " WHERE p.id = $1",
        course(0.05, (1, 0.05), (5, 6), (9, 13)),
        instances=("product-db-1",),
    )
    t.lines("product-api", "error", "c.m.product.ProductRepository", STARVED, course(0, (4, 0), (9, 19)))
    t.lines("product-db", "info", "postgresql", "LOG:  checkpoint starting: time", 0.2, instances=("product-db-1",))


def _chattered(t: Telling) -> None:
    for service, revision, desired in (("site-web", 509, 3), ("product-api", 233, 4), ("search-api", 90, 2)):
        t.ecs(service, revision, desired)
    t.ecs("reviews-api", 61, 2)
    t.ecs("price-importer", 18, 1)
    t.status(
        "product-db", "cloudwatch.alarm:product-db-cpu", 1, 0, "ALARM: CPUUtilization > 90 for 2 of 3 minutes", minute=7
    )
    t.lines("site-web", "info", "site.render", "GET /p/{7d} 200 {90..400} ms", 7, load=1)
    t.lines("site-web", "warning", "site.images", "Slow origin for image {9d} ({700..1900} ms)", 0.7)
    t.lines(
        "search-api", "info", "c.m.search.QueryController", "Query answered from shard {0..5} in {20..90} ms", 4, load=1
    )
    t.lines("search-api", "warning", "c.m.search.Synonyms", "Synonym file of de-AT is older than 30 days", 0.3)
    t.lines("reviews-api", "info", "reviews.moderation", "review {8d} passed", 3)
    t.lines("reviews-api", "error", "reviews.moderation", "classifier answered 429 for review {8d}, will retry", 0.5)
    t.document(
        "product-api runbook",
        "product-api > Slow",
        "product-api reads through product-cache (TTL 6 h, about 5 million keys, 9 GB). product-db is sized for a"
        " hit rate"
        " above 95 %; it takes 60 minutes to warm an empty cache at noon traffic.",
        ("product-api", "product-cache"),
        "It is about product-api",
    )
