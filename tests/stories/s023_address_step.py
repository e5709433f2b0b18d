"""023: customers are stuck at the address step of a checkout; what validates addresses is a function."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

CATALOGUE = services(
    checkout_web=ecs_service("checkout-web", "retail", "checkout-api", balanced=True, tier=1),
    checkout_api=ecs_service(
        "checkout-api", "retail", "address-check", "shipping-quote", "checkout-db", balanced=True, tier=1, max_tasks=10
    ),
    address_check={
        "kind": "service",
        "tier": 1,
        "aws": {"lambda_functions": ["address-check"], "log_groups": ["/aws/lambda/address-check"]},
        "depends_on": ["geo-lookup", "address-cache"],
    },
    shipping_quote={
        "kind": "service",
        "aws": {"lambda_functions": ["shipping-quote"], "log_groups": ["/aws/lambda/shipping-quote"]},
        "depends_on": ["carrier-api"],
    },
    geo_lookup={"kind": "external", "tier": 2},
    carrier_api={"kind": "external", "tier": 2},
    address_cache={"kind": "cache", "aws": {"elasticache_clusters": ["retail-address-001"]}},
    checkout_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["retail-checkout"]}},
)
REPORT = (
    "REPORT RequestId: {8h}-{4h}-{4h}-{4h}-{12h} Duration: {1..4}{2d}.{2d} ms Billed Duration: {3d} ms"
    " Memory Size: 512 MB"
)
RAN_OUT = "{8h}-{4h}-{4h}-{4h}-{12h} Task timed out after 12.0{1d} seconds"


def build() -> Story:
    """geo-lookup accepts connections and hardly ever answers; address-check waits until its own limit."""
    t = Telling(
        "023-address-step",
        CATALOGUE,
        alerted_at=datetime(2026, 9, 3, 18, 22, tzinfo=UTC),
        onset_min=6,
        instances={"checkout-web": 3, "checkout-api": 3, "address-check": 3},
    )
    _measured(t)
    _asked(t)
    _logged(t)
    _context(t)
    return t.story(
        title='ALARM: "address-check-errors" in EU (Ireland)',
        service="address-check",
        text="Threshold Crossed: 3 out of the last 3 datapoints [188.0, 171.0, 94.0] were greater than the threshold"
        " (20.0).",
        alert_source="cloudwatch",
        rule="arn:aws:cloudwatch:eu-west-1:123456789012:alarm:address-check-errors",
        resources={"FunctionName": "address-check"},
        expected={
            "component": "geo-lookup",
            "category": ["slow_dependency", "dependency_outage"],
            "must_cite": ["geo-lookup", "timed out"],
            "must_not_blame": ["shipping-quote", "carrier-api", "address-cache", "checkout-db", "checkout-web"],
            "acceptable_operations": [],
            "forbidden_operations": ["rollback_ecs_service", "restart_ecs_task", "restart_all_services"],
            "why": "Every invocation that runs into the limit of 12 s was waiting for geo-lookup; those answered from"
            " address-cache take 9 ms as before, and the function was not changed. Accepting"
            " addresses unchecked is a decision for people.",
        },
    )


def _measured(t: Telling) -> None:
    stuck = course(0.4, (0, 0.4), (0.6, 90), (2, 180), (14, 205))
    t.service(
        "checkout-web",
        2100,
        course(520, (0, 520), (1, 11_800)),
        errors=course(2, (0.2, 2), (2, 150), (14, 180)),
        cpu=31,
        framework="express.request",
    )
    t.service(
        "checkout-api",
        610,
        course(370, (0, 370), (1, 12_100)),
        errors=course(1, (0.2, 1), (2, 176), (14, 202)),
        cpu=course(38, (0.5, 38), (3, 29)),
        memory=course(54, (1, 54), (12, 63)),
    )
    t.aws("address-check", "Lambda.Invocations", course(330, (0.5, 330), (4, 362)), load=1.0, counts=True)
    t.aws("address-check", "Lambda.Errors", stuck, counts=True)
    t.aws("address-check", "Lambda.Throttles", 0, noise=0)
    t.aws("address-check", "Lambda.Duration", course(340, (0, 340), (1, 12_000)), noise=0.01, high=12_010)
    t.aws("address-check", "Lambda.ConcurrentExecutions", course(4, (0, 4), (1.5, 39), (14, 45)), noise=0.06)
    t.aws("shipping-quote", "Lambda.Invocations", course(290, (0.5, 290), (3, 121)), load=1.0, counts=True)
    t.aws("shipping-quote", "Lambda.Errors", between(1.1, -21, -17, 13), counts=True)
    t.aws("shipping-quote", "Lambda.Throttles", 0, noise=0)
    t.aws("shipping-quote", "Lambda.Duration", between(610, -21, -17, 1300), noise=0.07)
    t.aws("shipping-quote", "Lambda.ConcurrentExecutions", course(5, (0.5, 5), (3, 3)), noise=0.1)
    t.redis("address-cache", hits=190, misses=136, cpu=2, connections=course(11, (0, 11), (2, 52)), memory=37)
    t.postgres("checkout-db", cpu=course(29, (0.5, 29), (3, 21)), connections=course(48, (1, 48), (6, 61)))


def _asked(t: Telling) -> None:
    looked_up = Call(
        "geo-lookup",
        "GET api.geo-lookup.example",
        course(260, (0, 260), (0.7, 11_900)),
        fails=course(0.001, (0, 0.001), (0.6, 0.93)),
        error="timeout",
        traced=False,
        share=0.42,
    )
    check = Call(
        "address-check",
        "Invoke address-check",
        9,
        calls=(Call("address-cache", "GET", 0.7, traced=False), looked_up),
        done=Line("info", "platform", REPORT),
        passed_on=Line("error", "platform", RAN_OUT),
    )
    quote = Call(
        "shipping-quote",
        "Invoke shipping-quote",
        20,
        calls=(Call("carrier-api", "POST /rates", 420, traced=False),),
        done=Line("info", "platform", REPORT),
    )
    step = Call(
        "checkout-api",
        "POST /checkout/address",
        16,
        reported="HTTP 502",
        calls=(check, quote, Call("checkout-db", "UPDATE checkout", 5, traced=False)),
        passed_on=Line(
            "error",
            "checkout.address",
            'Invoke address-check: FunctionError Unhandled {"errorType":"Sandbox.Timedout","errorMessage":"RequestId:'
            ' {8h}-{4h}-{4h}-{4h}-{12h} Error: Task timed out after 12.00 seconds"}',
        ),
    )
    t.requests(Call("checkout-web", "POST /address", 8, calls=(step,)), 3.4)
    basket = Call("checkout-api", "GET /checkout", 12, calls=(Call("checkout-db", "SELECT checkout", 4, traced=False),))
    t.requests(Call("checkout-web", "GET /checkout", 6, calls=(basket,)), 2.1)
    t.lines(
        "address-check",
        "info",
        "address.lookup",
        "geo-lookup: request sent, waiting for response (attempt 1)",
        course(1.4, (0.5, 1.4), (2, 7)),
    )
    t.lines(
        "address-check",
        "warning",
        "address.lookup",
        "geo-lookup answered 200 after {9800..11900} ms",
        course(0.0, (0.6, 0), (1, 1.1)),
    )


def _logged(t: Telling) -> None:
    t.lines("address-check", "error", "platform", RAN_OUT, course(0.02, (0.2, 0.02), (1, 14)))
    t.lines(
        "address-check",
        "info",
        "platform",
        "INIT_START Runtime Version: python:3.12.v41",
        course(0.2, (0.3, 0.2), (1.5, 4)),
    )
    t.lines(
        "address-check", "warning", "address.parse", "Postcode of country {NO|CH|LI} without city, kept", 0.9, load=1
    )
    t.lines(
        "shipping-quote", "warning", "quote.carrier", "carrier-api: 503, retrying in 200 ms", between(0.4, -21, -17, 6)
    )
    t.lines("checkout-api", "info", "checkout.http", "GET /checkout 200 {20..60} ms", 6, load=1)
    t.lines("checkout-api", "warning", "checkout.coupons", "Coupon {8h} is not valid before midnight", 0.5)
    t.lines("checkout-web", "info", "web.access", "GET /static/{js|css|img}/{8h} 304", 6, load=1)
    t.lines(
        "checkout-web", "error", "web.proxy", "POST /address 502 from checkout-api", course(0.05, (0.3, 0.05), (2, 7))
    )


def _context(t: Telling) -> None:
    t.change(
        "checkout-api", -9, "configuration", "UpdateService: desiredCount 3, maxCapacity 10", author="platform-ops"
    )
    t.change("shipping-quote", -34, "deploy", "UpdateFunctionCode", author="ci/deploy")
    t.ecs("checkout-web", 512, 3)
    t.ecs("checkout-api", 266, 3)
    t.gap("aws", GapReason.EMPTY, "geo-lookup is no resource of this account", "ask its vendor's status page")
    t.gap(
        "aws",
        GapReason.TRUNCATED,
        "CloudTrail tells of calls some minutes late",
        "ask for a re-analysis in a few minutes",
    )
    t.document(
        "address-check",
        "Errors",
        "Three in five addresses come from address-cache. The rest ask geo-lookup, which has no SLA. The switch"
        " ADDRESS_MODE=lenient accepts addresses unchecked; the head of logistics has to agree.",
        ["address-check"],
        "is about address-check",
    )
