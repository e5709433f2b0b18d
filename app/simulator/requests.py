"""A handful of requests per tick, traced and logged as a tail sampler would keep them: failed ones are favoured.

Counts in the metrics are true; logs and spans are a sample.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

from app.simulator.loads import HANGS_MS, Trouble
from app.simulator.payment import HELD_S, Flow
from app.simulator.releases import Defects, defect
from app.simulator.topology import SERVICES

if TYPE_CHECKING:
    from app.simulator.shop import Host, Tick

PURCHASES = 4  # traced per tick
VISITS = 3
MAX_LOGS, MAX_SPANS = 40, 60
FAVOUR = 1.6  # failed requests are kept so much more often
COUPONS = 0.35  # share of orders that use one
ABANDONED_AFTER_MS = 8000.0  # checkout stops waiting for a payment

Status = Literal["info", "warn", "error"]
Outcome = Literal["paid", "no_connection", "refused", "database_down", "rate_limited", "provider_down", "redis"]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One log line."""

    id: str
    at: float
    service: str
    host: str
    version: str
    status: Status
    message: str
    logger: str
    line: int
    trace_id: str = ""
    span_id: str = ""
    error_kind: str = ""
    stack: str = ""


@dataclass(slots=True)
class SpanRecord:
    """One span; ``start`` is epoch seconds."""

    trace_id: str
    span_id: str
    parent_id: str
    service: str
    host: str
    version: str
    kind: Literal["server", "client", "internal"]
    operation: str
    resource: str
    start: float
    duration_ms: float
    peer: str = ""
    error_type: str = ""
    error_message: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was kept of one tick."""

    logs: tuple[LogRecord, ...]
    spans: tuple[SpanRecord, ...]


def sample(tick: "Tick", length_s: float, defects: Defects, random: Random) -> Sample:
    """The tick's logs and spans, by time; the same for the same ``random``."""
    kept = _Sampler(tick, length_s, random)
    outcomes = _outcomes(tick.flow)
    for _ in range(PURCHASES):
        _purchase(kept, outcomes, defects)
    for _ in range(VISITS):
        _visit(kept)
    _report(kept)
    _ordinary_noise(kept)
    _complaints(kept)
    return kept.result()


class _Sampler:
    """Collects the spans and logs of one tick."""

    def __init__(self, tick: "Tick", length_s: float, random: Random) -> None:
        self.tick, self.length_s, self.random = tick, length_s, random
        self.logs: list[LogRecord] = []
        self.spans: list[SpanRecord] = []

    def moment(self) -> float:
        return self.tick.at + self.random.random() * self.length_s

    def trace(self) -> str:
        return f"{self.random.getrandbits(128):032x}"

    def host(self, service: str) -> tuple[str, str]:
        """A healthy task of the service, and its version; some name for what does not run on ECS."""
        hosts: list[Host] = self.tick.hosts.get(service, [])
        serving = [host for host in hosts if host.healthy] or hosts
        if not serving:
            return service, ""
        chosen = self.random.choice(serving)
        return chosen.name, chosen.version

    def span(
        self,
        trace: str,
        parent: SpanRecord | None,
        service: str,
        operation: str,
        resource: str,
        start: float,
        ms: float,
        peer: str = "",
    ) -> SpanRecord:
        host, version = (parent.host, parent.version) if parent and parent.service == service else self.host(service)
        span = SpanRecord(
            trace,
            f"{self.random.getrandbits(64):016x}",
            parent.span_id if parent else "",
            service,
            host,
            version,
            "client" if peer else "server",
            operation,
            resource,
            start,
            ms,
            peer,
        )
        self.spans.append(span)
        return span

    def call(
        self, caller: SpanRecord, callee: str, resource: str, start: float, ms: float
    ) -> tuple[SpanRecord, SpanRecord]:
        """A call between services: the caller's client span and the callee's server span."""
        client = self.span(caller.trace_id, caller, caller.service, "http.client.request", resource, start, ms, callee)
        server = self.span(
            caller.trace_id, client, callee, "http.server.request", resource, start + 0.001, max(ms - 2.0, 0.5)
        )
        return client, server

    def log(
        self, span: SpanRecord, at: float, status: Status, message: str, logger: str, line: int, stack: str = ""
    ) -> None:
        self.logs.append(
            LogRecord(
                f"{self.random.getrandbits(96):024x}",
                at,
                span.service,
                span.host,
                span.version,
                status,
                message,
                logger,
                line,
                span.trace_id,
                span.span_id,
                span.error_type if status == "error" else "",
                stack,
            )
        )

    def loose_log(self, service: str, status: Status, message: str, logger: str, line: int) -> None:
        """A line that belongs to no request."""
        host, version = self.host(service)
        self.logs.append(
            LogRecord(
                f"{self.random.getrandbits(96):024x}",
                self.moment(),
                service,
                host,
                version,
                status,
                message,
                logger,
                line,
            )
        )

    def result(self) -> Sample:
        rank = {"error": 0, "warn": 1, "info": 2}
        kept = sorted(self.logs, key=lambda log: rank[log.status])[:MAX_LOGS]
        return Sample(tuple(sorted(kept, key=lambda log: log.at)), tuple(self.spans[:MAX_SPANS]))


def _outcomes(flow: Flow) -> dict[Outcome, float]:
    """Weights of what becomes of a payment attempt."""
    down = flow.met.provider_up < 1.0
    return {
        "paid": max(flow.succeeded, 0.001),
        "no_connection": FAVOUR * flow.timeouts,
        "refused": FAVOUR * flow.refused if flow.met.database_up else 0.0,
        "database_down": 0.0 if flow.met.database_up else FAVOUR * flow.refused,
        "rate_limited": 0.0 if down else FAVOUR * flow.rate_limited,
        "provider_down": FAVOUR * flow.rate_limited if down else 0.0,
        "redis": FAVOUR * flow.redis_errors,
    }


def _around(random: Random, ms: float, spread: float = 0.25) -> float:
    return ms * math.exp(random.gauss(0.0, spread))


# --- a purchase: web-gateway -> checkout -> payment-service -> redis, stripe-integration, orders-db -----------------


def _purchase(kept: _Sampler, outcomes: Mapping[Outcome, float], defects: Defects) -> None:
    start, trace = kept.moment(), kept.trace()
    order = kept.random.randrange(10**6, 10**7)
    root = kept.span(trace, None, "web-gateway", "http.server.request", "POST /checkout/orders", start, 0.0)
    if (trouble := _strikes(kept, "web-gateway")) is not None:
        _fails_inside(kept, root, trouble, start)
        return
    calling, serving = kept.call(root, "checkout", "POST /checkout/orders", start + 0.004, 0.0)
    begun = start + 0.006
    kept.log(serving, begun, "info", f"Order {order} received", "com.shop.checkout.OrderController", 41)
    if kept.random.random() < COUPONS:
        kept.log(serving, begun + 0.003, "info", f"Applying coupon to order {order}", COUPON_SERVICE, 88)
        if _breaks(kept, serving, defects):
            typed = defect(defects, serving.service, serving.version).logs
            _coupon_fails(kept, root, calling, serving, begun, typed)
            return
    if (trouble := _strikes(kept, "cart")) is not None:
        _no_basket(kept, root, calling, serving, begun, trouble)
        return
    ms = _basket(kept, serving, begun)
    ms += _pay(kept, serving, begun + ms / 1000.0, order, outcomes)
    _close(kept, root, calling, serving, ms + _around(kept.random, 18.0))
    _answer(kept, root, serving, order)


COUPON_SERVICE = "com.shop.checkout.CouponService"
COUPON_IS_NULL = (
    'java.lang.NullPointerException: Cannot invoke "com.shop.checkout.Coupon.getCode()" because "coupon" is null'
)
COUPON_STACK = (
    f"{COUPON_IS_NULL}\n"
    "\tat com.shop.checkout.CouponValidator.validate(CouponValidator.java:57)\n"
    "\tat com.shop.checkout.CouponService.apply(CouponService.java:93)\n"
    "\tat com.shop.checkout.OrderController.place(OrderController.java:63)"
)


def _breaks(kept: _Sampler, serving: SpanRecord, defects: Defects) -> bool:
    """The defect sits in one code path; all orders that take it with this image break."""
    share = defect(defects, serving.service, serving.version).error_ratio / COUPONS
    return kept.random.random() < share


def _coupon_fails(
    kept: _Sampler, root: SpanRecord, calling: SpanRecord, serving: SpanRecord, begun: float, typed: str
) -> None:
    serving.error_type, serving.error_message = "java.lang.NullPointerException", COUPON_IS_NULL
    _close(kept, root, calling, serving, _around(kept.random, 31.0))
    kept.log(
        serving,
        begun + 0.006,
        "error",
        f"{COUPON_IS_NULL} at com.shop.checkout.CouponValidator.validate(CouponValidator.java:57){typed}",
        "com.shop.checkout.CouponValidator",
        57,
        COUPON_STACK,
    )
    _propagate(kept, root, calling, "http_500", "500 Internal Server Error from checkout")


def _basket(kept: _Sampler, serving: SpanRecord, begun: float) -> float:
    ms = _around(kept.random, 38.0)
    kept.call(serving, "cart", "GET /cart/{id}", begun + 0.004, ms)
    return ms + 6.0


def _close(kept: _Sampler, root: SpanRecord, calling: SpanRecord, serving: SpanRecord, ms: float) -> None:
    serving.duration_ms, calling.duration_ms, root.duration_ms = ms, ms + 2.0, ms + 8.0


def _propagate(kept: _Sampler, root: SpanRecord, calling: SpanRecord, kind: str, message: str) -> None:
    for span in (calling, root):
        span.error_type, span.error_message = kind, message
    at = root.start + root.duration_ms / 1000.0
    kept.log(root, at, "error", f"Upstream checkout answered {message[:3]}", "gateway.proxy.UpstreamHandler", 132)


def _answer(kept: _Sampler, root: SpanRecord, serving: SpanRecord, order: int) -> None:
    at = root.start + root.duration_ms / 1000.0
    if serving.error_type:
        calling = next(span for span in kept.spans if span.span_id == serving.parent_id)
        _propagate(kept, root, calling, "http_503", "503 Service Unavailable from checkout")
        return
    kept.log(serving, at - 0.006, "info", f"Order {order} placed", "com.shop.checkout.OrderController", 71)
    kept.log(root, at, "info", "POST /checkout/orders 201", "gateway.access", 20)
    if kept.random.random() < 0.5:
        _, sent = kept.call(serving, "notification", "POST /notifications", at - 0.005, _around(kept.random, 60.0))
        kept.log(sent, at, "info", f"Queued confirmation for order {order}", "com.shop.notification.Mailer", 34)


# --- the payment itself ---------------------------------------------------------------------------------------------


def _pay(kept: _Sampler, checkout: SpanRecord, start: float, order: int, outcomes: Mapping[Outcome, float]) -> float:
    """Returns the time checkout spent on it, in ms."""
    outcome = kept.random.choices(list(outcomes), weights=list(outcomes.values()))[0]
    calling, paying = kept.call(checkout, "payment-service", "POST /payments", start, 0.0)
    begun = start + 0.002
    kept.log(paying, begun, "info", f"Payment requested for order {order}", f"{PAY}.PaymentController", 52)
    ms = _redis(kept, paying, begun, outcome) + 3.0
    if outcome != "redis":
        ms += _stripe(kept, paying, begun + ms / 1000.0, outcome)
    if outcome not in ("redis", "rate_limited", "provider_down"):
        ms += _database(kept, paying, begun + ms / 1000.0, outcome)
    paying.duration_ms = ms + 2.0
    calling.duration_ms = min(ms + 4.0, ABANDONED_AFTER_MS)
    if outcome == "paid":
        kept.log(
            paying, begun + ms / 1000.0, "info", f"Payment for order {order} captured", f"{PAY}.PaymentController", 78
        )
    else:
        _payment_failed(kept, checkout, calling, paying)
    return calling.duration_ms


PAY = "com.shop.payment"


def _redis(kept: _Sampler, paying: SpanRecord, at: float, outcome: Outcome) -> float:
    failed = outcome == "redis"
    ms = _around(kept.random, 2000.0, 0.01) if failed else _around(kept.random, 1.3)
    span = kept.span(paying.trace_id, paying, paying.service, "redis.command", "GET session", at, ms, "redis")
    if failed:
        span.error_type, span.error_message = "redis_timeout", "Redis connection timeout"
        _tell(kept, paying, span, "Redis connection timeout", f"{PAY}.SessionCache", 118)
    return ms


def _stripe(kept: _Sampler, paying: SpanRecord, at: float, outcome: Outcome) -> float:
    limited, down = outcome == "rate_limited", outcome == "provider_down"
    ms = _around(kept.random, 120.0 if limited else 4800.0 if down else 420.0)
    resource = "POST /v1/payment_intents"
    span = kept.span(
        paying.trace_id, paying, paying.service, "http.client.request", resource, at, ms, "stripe-integration"
    )
    if limited:
        span.error_type, span.error_message = "rate_limit_exceeded", "429 Too Many Requests"
        _tell(kept, paying, span, "Stripe API rate limit exceeded", f"{PAY}.StripeClient", 204)
    if down:
        span.error_type, span.error_message = "http_503", "503 Service Unavailable from stripe-integration"
        _tell(kept, paying, span, "Stripe answered 503 Service Unavailable", f"{PAY}.StripeClient", 212)
    return ms


def _database(kept: _Sampler, paying: SpanRecord, at: float, outcome: Outcome) -> float:
    held = 1000.0 * kept.tick.flow.held_s * 0.75
    ms = {"no_connection": 30000.0 + 9.0 * kept.random.random(), "refused": _around(kept.random, 12.0)}.get(
        "refused" if outcome == "database_down" else outcome, _around(kept.random, held, 0.18)
    )
    span = kept.span(
        paying.trace_id, paying, paying.service, "postgresql.query", "INSERT payments", at, ms, "orders-db"
    )
    if outcome == "no_connection":
        message = "java.sql.SQLException: Connection is not available, request timed out after 30000ms"
        span.error_type, span.error_message = "db_connection_timeout", message
        _tell(kept, paying, span, message, f"{PAY}.PaymentRepository", 91)
    elif outcome == "refused":
        message = "org.postgresql.util.PSQLException: FATAL: sorry, too many clients already"
        span.error_type, span.error_message = "db_connection_refused", message
        _tell(kept, paying, span, message, f"{PAY}.PaymentRepository", 64)
    elif outcome == "database_down":
        message = "org.postgresql.util.PSQLException: FATAL: the database system is starting up"
        span.error_type, span.error_message = "db_connection_refused", message
        _tell(kept, paying, span, message, f"{PAY}.PaymentRepository", 64)
    elif kept.tick.flow.held_s > 1.5 * HELD_S:
        text = f"Slow payment transaction: held its connection for {ms:.0f} ms"
        kept.log(paying, at + ms / 1000.0, "warn", text, f"{PAY}.PaymentRepository", 140)
    return ms


def _tell(kept: _Sampler, paying: SpanRecord, span: SpanRecord, message: str, logger: str, line: int) -> None:
    paying.error_type, paying.error_message = span.error_type, span.error_message
    kept.log(paying, span.start + span.duration_ms / 1000.0, "error", message, logger, line)


def _payment_failed(kept: _Sampler, checkout: SpanRecord, calling: SpanRecord, paying: SpanRecord) -> None:
    """Checkout gives up at once, or shows the order as pending and tries again in the background."""
    late = paying.duration_ms > ABANDONED_AFTER_MS
    calling.error_type = "timeout" if late else "http_503"
    calling.error_message = "Read timed out" if late else "503 Service Unavailable"
    at = calling.start + calling.duration_ms / 1000.0
    logger = "com.shop.checkout.PaymentClient"
    if kept.random.random() < 0.45:
        checkout.error_type, checkout.error_message = "payment_unavailable", "payment-service did not answer"
        kept.log(checkout, at, "error", f"Payment failed: {calling.error_message}", logger, 77)
    else:
        kept.log(checkout, at, "warn", f"Payment will be tried again: {calling.error_message}", logger, 69)


# --- everything else ------------------------------------------------------------------------------------------------


def _visit(kept: _Sampler) -> None:
    callee, resource = kept.random.choice(
        (("catalogue", "GET /catalogue/products"), ("catalogue", "GET /catalogue/search"), ("cart", "POST /cart/items"))
    )
    start, spec = kept.moment(), SERVICES[callee]
    ms = _around(kept.random, 0.5 * kept.tick.loads[callee].p95_ms or 0.5 * spec.p95_ms)
    root = kept.span(kept.trace(), None, "web-gateway", "http.server.request", resource, start, ms + 6.0)
    if (trouble := _strikes(kept, "web-gateway")) is not None:
        _fails_inside(kept, root, trouble, start)
        return
    if (trouble := _strikes(kept, callee)) is not None:
        _visit_fails(kept, root, callee, resource, trouble)
        return
    _, serving = kept.call(root, callee, resource, start + 0.003, ms)
    kept.log(root, start + root.duration_ms / 1000.0, "info", f"{resource} 200", "gateway.access", 20)
    kept.log(serving, start + 0.004, "info", f"Served {resource.split()[1]}", f"com.shop.{callee}.Api", 58)


def _report(kept: _Sampler) -> None:
    """The nightly job is slow every night, and says so."""
    if "reporting" not in kept.tick.hosts or not kept.tick.hosts["reporting"]:
        return
    if kept.random.random() < 0.3:
        start, ms = kept.moment(), _around(kept.random, 1900.0)
        job = kept.span(kept.trace(), None, "reporting", "job.run", "aggregate-orders", start, ms + 40.0)
        job.kind = "internal"
        kept.span(job.trace_id, job, "reporting", "postgresql.query", "SELECT orders", start + 0.02, ms, "orders-db")
    if kept.random.random() < 0.35:
        behind = kept.random.randrange(120, 900)
        text = f"Nightly aggregation is {behind} s behind schedule, connection to orders-db was slow"
        kept.loose_log("reporting", "warn", text, "com.shop.reporting.NightlyJob", 211)


# --- what breaks in a service itself --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Words:
    """How a service and its callers tell of a trouble. ``answered``: the status its caller gets."""

    error_type: str
    message: str
    logger: str
    line: int
    answered: int
    ms: float
    complaint: str = ""  # said beside requests
    silent: bool = False  # the service itself says nothing of the request


_TOLD: Mapping[str, _Words] = {
    "exits": _Words(
        "http_502",
        "Application run failed: missing required configuration property cart.shards, shutting down",
        "Main",
        12,
        502,
        8.0,
        "Shutting down: missing required configuration property cart.shards",
    ),
    "hung": _Words("timeout", "Read timed out", "", 0, 504, HANGS_MS, silent=True),
    "crowded": _Words(
        "overloaded",
        "Request rejected: all worker threads are busy, queue is full",
        "http.server.WorkerPool",
        177,
        503,
        35.0,
        "Worker pool saturated: 200 of 200 threads busy, queue full",
    ),
    "memory": _Words(
        "java.lang.OutOfMemoryError",
        "java.lang.OutOfMemoryError: Java heap space",
        "api.RequestHandler",
        96,
        500,
        2400.0,
        "GC overhead: full garbage collection took 4312 ms and freed 1 % of the heap",
    ),
    "flag": _Words(
        "java.lang.IllegalStateException",
        "java.lang.IllegalStateException: semantic_search is enabled but index 'products-semantic' is not loaded",
        "search.SemanticRanker",
        58,
        500,
        24.0,
    ),
    "disk": _Words(
        "java.io.IOException",
        "java.io.IOException: write to journal timed out, I/O wait is high",
        "store.Journal",
        143,
        500,
        3100.0,
        "I/O wait 71 %, device nvme1n1 does not keep up",
    ),
    "turned_away": _Words("http_503", "", "", 0, 503, 4.0, silent=True),
    "defect": _Words("", "", "", 0, 500, 30.0),
}


def _troubles(kept: _Sampler, service: str) -> Iterator[Trouble]:
    """Those of its requests that fail, and for its callers those that its rule sends elsewhere."""
    load = kept.tick.loads[service]
    yield from (trouble for trouble in load.troubles if _TOLD[trouble.kind].error_type)
    away = load.turned_away_ratio - kept.tick.loads["web-gateway"].turned_away_ratio
    if service in ("cart", "catalogue") and away > 0:
        yield Trouble("turned_away", away)
    if load.running == 0:
        yield Trouble("turned_away", 1.0)


def _strikes(kept: _Sampler, service: str) -> Trouble | None:
    """What breaks a request to the service; nothing is drawn where nothing breaks."""
    for trouble in _troubles(kept, service):
        if kept.random.random() < min(FAVOUR * trouble.share, 1.0):
            return trouble
    return None


def _fails_inside(kept: _Sampler, span: SpanRecord, trouble: Trouble, at: float) -> float:
    """The service's own side of it; the time it took, in ms."""
    words = _TOLD[trouble.kind]
    ms = _around(kept.random, words.ms, 0.05)
    span.duration_ms = ms
    span.error_type, span.error_message = words.error_type, words.message
    hung = [host for host in kept.tick.hosts.get(span.service, []) if host.name in _hung(kept, span.service)]
    if trouble.kind == "hung" and hung:
        span.host = hung[0].name
    if not words.silent:
        kept.log(span, at + ms / 1000.0, "error", words.message, f"com.shop.{span.service}.{words.logger}", words.line)
    return ms


def _hung(kept: _Sampler, service: str) -> tuple[str, ...]:
    return kept.tick.loads[service].hung_hosts


def _no_basket(
    kept: _Sampler, root: SpanRecord, calling: SpanRecord, serving: SpanRecord, begun: float, trouble: Trouble
) -> None:
    """An order fails if its cart cannot be read."""
    client, cart = kept.call(serving, "cart", "GET /cart/{id}", begun + 0.004, 0.0)
    ms = _fails_inside(kept, cart, trouble, begun)
    words = _TOLD[trouble.kind]
    if trouble.kind == "turned_away":
        kept.spans.remove(cart)  # it never came there
    client.duration_ms = ms + 2.0
    client.error_type, client.error_message = f"http_{words.answered}", f"cart answered {words.answered}"
    _close(kept, root, calling, serving, ms + 9.0)
    serving.error_type, serving.error_message = "cart_unavailable", f"cart answered {words.answered}"
    at = begun + ms / 1000.0
    kept.log(serving, at, "error", f"Cannot read cart: cart answered {words.answered}", "com.shop.checkout.Carts", 61)
    _propagate(kept, root, calling, "http_502", "502 Bad Gateway from checkout")


def _visit_fails(kept: _Sampler, root: SpanRecord, callee: str, resource: str, trouble: Trouble) -> None:
    client, serving = kept.call(root, callee, resource, root.start + 0.003, 0.0)
    ms = _fails_inside(kept, serving, trouble, root.start)
    answered = _TOLD[trouble.kind].answered
    if trouble.kind == "turned_away":
        kept.spans.remove(serving)  # it never came there
    client.duration_ms, root.duration_ms = ms + 2.0, ms + 6.0
    for span in (client, root):
        span.error_type, span.error_message = f"http_{answered}", f"{answered} from {callee}"
    at = root.start + root.duration_ms / 1000.0
    page = " (please-try-again)" if trouble.kind == "turned_away" else ""
    kept.log(root, at, "error", f"Upstream {callee} answered {answered}{page}", "gateway.proxy.UpstreamHandler", 132)


def _complaints(kept: _Sampler) -> None:
    """What troubled services say beside their requests."""
    for service, load in kept.tick.loads.items():
        for trouble in load.troubles:
            complaint = _TOLD[trouble.kind].complaint
            if complaint and trouble.share > 0.02 and kept.random.random() < 0.6:
                kept.loose_log(service, "warn", complaint, f"com.shop.{service}.Runtime", 31)
    delay = kept.tick.loads["orders-db"].p95_ms / SERVICES["orders-db"].p95_ms
    if delay > 3.0 and kept.random.random() < 0.5:
        took = f"Slow query on orders-db: orders of one day took {400.0 * delay:.0f} ms"
        kept.loose_log("reporting", "warn", took, "com.shop.reporting.Queries", 87)


_NOISE: tuple[tuple[float, str, Status, str, str, int], ...] = (
    (0.30, "catalogue", "info", "Search index refreshed", "com.shop.catalogue.Indexer", 77),
    (0.25, "cart", "info", "Expired carts removed", "com.shop.cart.Sweeper", 45),
    (0.20, "notification", "info", "Mail queue drained", "com.shop.notification.Queue", 61),
    (0.04, "web-gateway", "warn", "Client closed the connection early", "gateway.proxy.Connection", 305),
    (0.03, "catalogue", "warn", "Image variant missing, serving the original", "com.shop.catalogue.Images", 129),
    (0.02, "cart", "warn", "Cart merged with a stale copy", "com.shop.cart.Merge", 83),
    (0.01, "notification", "error", "Mailbox unavailable: 550 no such user", "com.shop.notification.Mailer", 102),
)


def _ordinary_noise(kept: _Sampler) -> None:
    for chance, service, status, message, logger, line in _NOISE:
        if kept.random.random() < chance:
            kept.loose_log(service, status, message, logger, line)
