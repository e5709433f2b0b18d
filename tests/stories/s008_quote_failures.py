"""Brokers get no quotes from noon on."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    broker_web=ecs_service("broker-web", "motor", "quote-api", "policy-api", balanced=True, tier=1),
    quote_api=ecs_service("quote-api", "motor", "rating-engine", "vehicle-lookup", "quotes-db", balanced=True, tier=1),
    policy_api=ecs_service("policy-api", "motor", "policies-db", balanced=True),
    renewals_batch=ecs_service("renewals-batch", "motor", "rating-engine", "policies-db", tier=3),
    rating_engine=ecs_service("rating-engine", "motor", "tariffs-db", tier=1),
    quotes_db={"kind": "database", "aws": {"rds_instances": ["quotes-db-1"]}},
    policies_db={"kind": "database", "aws": {"rds_instances": ["policies-db-1"]}},
    tariffs_db={"kind": "database", "aws": {"rds_instances": ["tariffs-db-1"]}},
    vehicle_lookup={"kind": "external"},
)

EXPIRED = (
    "javax.net.ssl.SSLHandshakeException: PKIX path validation failed: java.security.cert.CertPathValidatorException:"
    " validity check failed; Caused by: java.security.cert.CertificateExpiredException: NotAfter: Tue Jun 09"
    " 12:00:00 UTC 2026"
)
RENEWAL = (
    "requests.exceptions.SSLError: HTTPSConnectionPool(host='rating-engine.motor.internal', port=8443): Max"
    " retries exceeded with url:"
    " /v4/rate (Caused by SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate"
    " verify failed:"
    " certificate has expired (_ssl.c:1006)')))"
)


def build() -> Story:
    """The server certificate of rating-engine ran out at noon; connections that were open live on for minutes."""
    t = Telling(
        "008-quote-failures",
        CATALOGUE,
        alerted_at=datetime(2026, 6, 9, 12, 4, tzinfo=UTC),
        onset_min=4,
        seen_min=10,
        instances={"quote-api": 3, "rating-engine": 4, "renewals-batch": 1},
    )
    _measured(t)
    _asked(t)
    _chattered(t)
    return t.story(
        title="quote-api: more than 10 % of the quotes fail",
        service="quote-api",
        text="POST /quotes answers 502 for more than 10 % of the requests.",
        rule="datadog:monitor:109926144",
        expected={
            "component": "rating-engine",
            "category": ["expired_certificate"],
            "must_cite": ["expired"],
            "must_not_blame": ["vehicle-lookup", "tariffs-db", "quotes-db", "policy-api"],
            "acceptable_operations": [],
            "forbidden_operations": ["rollback_ecs_service", "restart_all_services", "scale_ecs_service"],
            "why": "The certificate that rating-engine presents expired at 12:00:00 UTC: both of its callers refuse the"
            " handshake. It must be renewed by hand; the roll-out of quote-api before noon has nothing to do with it.",
        },
    )


def _measured(t: Telling) -> None:
    less = course(820, (0, 820), (2, 240), (5, 21))
    t.service(
        "broker-web", 1400, 410, errors=course(3, (0, 3), (2, 270), (6, 420)), cpu=31, framework="express.request"
    )
    t.service(
        "quote-api",
        course(430, (0, 430), (6, 520)),
        course(690, (0, 690), (5, 240)),
        errors=course(1, (0, 1), (0.5, 110), (2, 310), (6, 490)),
        cpu=course(44, (0, 44), (5, 37)),
    )
    t.service("policy-api", 510, between(130, -1, 6, 220), errors=1.2, cpu=between(29, -1, 6, 44))
    t.service(
        "rating-engine", less, 260, errors=course(0.6, (0, 0.6), (4, 0)), cpu=course(58, (0, 58), (5, 4)), memory=71
    )
    t.aws("renewals-batch", "CPUUtilization", course(26, (0, 26), (3, 9)), noise=0.1)
    t.aws("renewals-batch", "MemoryUtilization", 48, noise=0.01)
    t.postgres("quotes-db", cpu=course(33, (0, 33), (5, 17)), connections=60, write_iops=course(240, (0, 240), (5, 70)))
    t.postgres("policies-db", cpu=between(27, -1, 6, 63), connections=44)
    t.postgres(
        "tariffs-db",
        cpu=course(38, (0, 38), (5, 6)),
        connections=course(80, (1, 80), (9, 52)),
        read_iops=course(510, (0, 510), (5, 40)),
    )
    t.metric(
        "rating-engine", "nginx.net.conn_opened_per_s", course(2.1, (0, 2.1), (1, 9.4), (6, 15)), unit="/s", noise=0.1
    )
    t.metric(
        "rating-engine", "nginx.net.request_per_s", course(13.7, (0, 13.7), (2, 4.1), (5, 0.4)), unit="/s", noise=0.08
    )
    t.metric("quote-api", "jvm.heap_memory", 1.2e9, unit="B", noise=0.1)
    t.metric(
        "quote-api", "vehicle_lookup.request.duration", between(0.34, -9, 1, 0.71), unit="s", noise=0.1, statistic="p95"
    )
    t.metric(
        "quote-api",
        "resilience4j.circuitbreaker.not_permitted_calls",
        course(0, (1, 0), (5, 160)),
        counts=True,
        statistic="sum",
    )


def _asked(t: Telling) -> None:
    rate = Call(
        "rating-engine",
        "POST /v4/rate",
        120,
        calls=(Call("tariffs-db", "SELECT tariff_factor", 8, traced=False),),
        done=Line("info", "rating.engine", "rated risk {8h} with tariff 2026-06, {60..240} factors"),
    )
    refused = Call(
        "rating-engine",
        "POST /v4/rate",
        9,
        fails=1.0,
        error="javax.net.ssl.SSLHandshakeException",
        traced=False,
        failed=Line(
            "error",
            "c.b.quote.RatingClient",
            f"I/O error on POST request for https://rating-engine.motor.internal:8443/v4/rate: {EXPIRED}",
        ),
    )
    before = (
        Call("quotes-db", "INSERT quote", 4, traced=False),
        Call("vehicle-lookup", "GET /vehicles/{plate}", between(190, -9, 1, 420), traced=False),
    )
    made = Line("info", "c.b.quote.QuoteController", "Quote {9d}: {3..7} offers")
    none = Line("error", "c.b.quote.QuoteController", "Quote {9d} failed: rating is not available")
    failed = Line("warning", "web.bff", "POST /quotes 502 in {30..700} ms")
    for inner, share in (
        (rate, course(3.2, (0, 3.2), (2, 0.9), (5, 0.1))),
        (refused, course(0, (0, 0), (0.2, 0.9), (2, 2.5), (5, 3.6))),
    ):
        quote = Call(
            "quote-api", "POST /quotes", 30, reported="HTTP 502", calls=(*before, inner), done=made, passed_on=none
        )
        t.requests(Call("broker-web", "POST /quotes", 9, calls=(quote,), passed_on=failed), share)
    t.requests(
        Call(
            "broker-web",
            "GET /policies",
            7,
            calls=(
                Call(
                    "policy-api", "GET /policies", 32, calls=(Call("policies-db", "SELECT policy", 12, traced=False),)
                ),
            ),
        ),
        2.2,
    )
    t.requests(
        Call("renewals-batch", "renewal", 20, calls=(rate, Call("policies-db", "UPDATE policy", 6, traced=False))),
        course(1.3, (0, 1.3), (0.5, 0)),
        load=0,
    )
    not_rated = Call("rating-engine", "POST /v4/rate", 8, fails=1.0, error="requests.exceptions.SSLError", traced=False)
    t.requests(Call("renewals-batch", "renewal", 20, calls=(not_rated,)), course(0, (0, 0), (0.5, 1.4)), load=0)


def _chattered(t: Telling) -> None:
    t.gap(
        "datadog", GapReason.EMPTY, "no log line is tagged service:vehicle-lookup", "set datadog_tags in the catalogue"
    )
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:vehicle-lookup", "set datadog_tags in the catalogue")
    for service, revision, desired in (
        ("broker-web", 402, 2),
        ("quote-api", 267, 3),
        ("policy-api", 120, 2),
        ("rating-engine", 90, 4),
    ):
        t.ecs(service, revision, desired)
    t.ecs("renewals-batch", 31, 1)
    t.change("quote-api", -22, "deploy", "ECS deployment of quote-api:267: COMPLETED", version="quote-api:267")
    t.change("quote-api", -22.4, "deploy", "Deployed quote-api v12.6.0", version="v12.6.0", author="ci/release-bot")
    t.change(
        "rating-engine",
        -47,
        "configuration",
        "Parameter Store Change: Update /motor/rating/tariff-release",
        author="actuarial",
    )
    t.lines(
        "renewals-batch",
        "error",
        "renewals.rating",
        RENEWAL,
        course(0, (0, 0), (0.3, 4), (3, 7)),
    )
    t.lines(
        "rating-engine",
        "info",
        "nginx.error",
        "SSL_do_handshake() failed (SSL: error:0A000415:SSL routines::sslv3 alert certificate expired:SSL alert"
        " number 45)"
        " while SSL handshaking, client: 10.30.{1..3}.{10..240}, server: 0.0.0.0:8443",
        course(0, (0, 0), (0.3, 9), (5, 22)),
    )
    t.lines(
        "quote-api",
        "warning",
        "c.b.quote.VehicleClient",
        "vehicle-lookup answered after {900..2400} ms",
        between(0.8, -9, 1, 4),
    )
    t.lines(
        "quote-api",
        "warning",
        "c.b.quote.RatingClient",
        "CircuitBreaker 'rating' is OPEN and does not permit further calls",
        course(0, (1.5, 0), (5, 5)),
    )
    t.lines("broker-web", "info", "web.bff", "GET /dashboard 200 in {30..180} ms", 6, load=1)
    t.lines("broker-web", "warning", "web.tls", "Certificate of broker.partner-portal.example expires in 21 days", 0.25)
    t.lines("policy-api", "info", "c.b.policy.PolicyController", "Policy {9d} read", 5, load=1)
    t.lines(
        "policy-api",
        "error",
        "c.b.policy.DocumentStore",
        "Document {8h} has no PDF/A conformance",
        between(0.4, -1, 6, 2.5),
    )
    t.lines("renewals-batch", "info", "renewals.run", "renewed {9d}", course(4, (0, 4), (0.5, 0)))
