"""Ticket buyers wait for their confirmation on the morning of a sale."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

QUEUE = "ticket-orders"
CATALOGUE = services(
    shop_front=ecs_service("shop-front", "tickets", "order-api", "venue-api", balanced=True, tier=1),
    order_api=ecs_service("order-api", "tickets", "tickets-db", balanced=True, tier=1, sends_to=[QUEUE]),
    ticket_orders={
        "kind": "queue",
        "aws": {"sqs_queues": [QUEUE]},
        "sends_to": ["fulfilment"],
        "resources": [f"QueueName:{QUEUE}"],
    },
    fulfilment=ecs_service("fulfilment", "tickets", "tickets-db", "pdf-render", "mail-out", tier=2, max_tasks=8),
    pdf_render=ecs_service("pdf-render", "tickets"),
    mail_out=ecs_service("mail-out", "tickets", "smtp-relay"),
    venue_api=ecs_service("venue-api", "tickets", "venue-cache", balanced=True),
    tickets_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["tickets-db-1"]}},
    venue_cache={"kind": "cache", "aws": {"elasticache_clusters": ["venue-cache-001"]}},
    smtp_relay={"kind": "external"},
)

STACK = (
    " io.vertx.core.VertxException: Thread blocked"
    " at java.base/jdk.internal.misc.Unsafe.park(Native Method)"
    " at java.base/java.util.concurrent.locks.ReentrantReadWriteLock$WriteLock.lock(ReentrantReadWriteLock.java:959)"
    " at com.encore.fulfilment.SeatPlanCache.refresh(SeatPlanCache.java:143)"
    " at com.encore.fulfilment.OrderConsumer.handle(OrderConsumer.java:71)"
)


def build() -> Story:
    """The worker threads of fulfilment block one another in a lock; nothing takes messages off the queue any more."""
    t = Telling(
        "006-late-confirmations",
        CATALOGUE,
        alerted_at=datetime(2026, 5, 22, 9, 14, tzinfo=UTC),
        onset_min=11,
        instances={"shop-front": 3, "fulfilment": 3},
    )
    _measured(t)
    _asked(t)
    _worked(t)
    _chattered(t)
    return t.story(
        title="ALARM: ticket-orders-age: ApproximateAgeOfOldestMessage >= 600",
        service="ticket-orders",
        text="Threshold Crossed: 1 datapoint [604.0] was greater than or equal to the threshold (600.0).",
        severity="warning",
        alert_source="cloudwatch",
        rule="arn:aws:cloudwatch:eu-west-1:123456789012:alarm:ticket-orders-age",
        resources={"QueueName": QUEUE},
        expected={
            "component": "fulfilment",
            "category": ["queue_backlog", "code_fault", "unhealthy_tasks"],
            "must_cite": ["fulfilment", "blocked"],
            "must_not_blame": ["order-api", "tickets-db", "pdf-render", "mail-out"],
            "acceptable_operations": ["restart_ecs_task"],
            "forbidden_operations": ["restart_all_services", "rollback_ecs_service"],
            "why": "All worker threads of fulfilment wait for a lock in SeatPlanCache.refresh; it deletes no message"
            " any"
            " more while orders arrive as usual. New tasks start with free threads and work the backlog off.",
        },
    )


def _measured(t: Telling) -> None:
    still = course(380, (-0.5, 380), (1, 20), (1.5, 0))
    t.service("shop-front", course(2400, (-20, 2400), (-12, 2900)), 240, errors=4, cpu=course(38, (-20, 38), (-12, 44)))
    t.service("order-api", course(390, (-20, 390), (-12, 455)), 160, errors=1.0, cpu=course(34, (-20, 34), (-12, 39)))
    t.service("venue-api", 1900, between(42, -4, 3, 66), errors=0.6, cpu=25)
    t.service("pdf-render", still, 820, errors=course(0.6, (-0.5, 0.6), (1.5, 0)), cpu=course(57, (-0.5, 57), (2, 2)))
    t.service("mail-out", still, 130, errors=course(3.1, (-0.5, 3.1), (1.5, 0)), cpu=course(18, (-0.5, 18), (2, 3)))
    t.aws("fulfilment", "CPUUtilization", course(48, (-0.5, 48), (1.5, 1.4)), noise=0.06)
    t.aws("fulfilment", "MemoryUtilization", course(66, (1, 66), (10, 67)), noise=0.006)
    sent = course(390, (-20, 390), (-12, 455))
    t.aws("ticket-orders", "SQS.NumberOfMessagesSent", sent, load=1.0, counts=True)
    t.aws(
        "ticket-orders",
        "SQS.NumberOfMessagesDeleted",
        course(390, (-20, 390), (-12, 455), (-0.5, 455), (1, 15), (1.5, 0)),
        counts=True,
    )
    t.aws(
        "ticket-orders",
        "SQS.Queue.ApproximateNumberOfMessagesVisible",
        course(14, (0, 14), (1, 240), (20, 8900)),
        noise=0.03,
    )
    t.aws("ticket-orders", "SQS.Queue.ApproximateAgeOfOldestMessage", course(2, (0.4, 2), (20, 1180)), noise=0.01)
    t.postgres(
        "tickets-db",
        cpu=course(39, (-0.5, 39), (1.5, 28)),
        connections=70,
        write_iops=course(340, (-0.5, 340), (1.5, 190)),
    )
    t.redis("venue-cache", misses=between(1500, -4, 3, 3900))
    t.metric("fulfilment", "jvm.thread_count", course(61, (-1, 61), (1, 68)), noise=0.01)
    t.metric("fulfilment", "jvm.cpu_load.process", course(0.41, (-0.5, 0.41), (1.5, 0.008)), noise=0.08)
    t.metric("fulfilment", "jvm.heap_memory", course(9.8e8, (-0.5, 9.8e8), (2, 7.4e8)), unit="B", noise=0.05)
    t.metric("fulfilment", "hikaricp.connections.active", course(7.5, (-0.5, 7.5), (1.5, 0)), noise=0.12)
    t.metric("mail-out", "smtp.deferred", between(1.2, -25, -14, 9), counts=True, statistic="sum")


def _asked(t: Telling) -> None:
    order = Call(
        "order-api",
        "POST /orders",
        24,
        calls=(
            Call("tickets-db", "INSERT orders", 6, traced=False),
            Call("ticket-orders", "send ticket-orders", 9, traced=False, sent=True),
        ),
        done=Line("info", "c.encore.order.OrderController", "Order {9d} accepted, {1..6} tickets"),
    )
    t.requests(Call("shop-front", "POST /checkout", 12, calls=(order,)), course(2.4, (-20, 2.4), (-12, 2.8)))
    fulfil = Call(
        "fulfilment",
        "process ticket-orders",
        35,
        queue=QUEUE,
        calls=(
            Call("tickets-db", "UPDATE orders", 5, traced=False),
            Call("pdf-render", "POST /render", 480, fails=0.002, tolerated=True),
            Call(
                "mail-out",
                "POST /messages",
                70,
                calls=(Call("smtp-relay", "SMTP DATA", 40, traced=False),),
                tolerated=True,
            ),
        ),
        done=Line("info", "c.encore.fulfilment.OrderConsumer", "Order {9d} fulfilled in {480..900} ms"),
    )
    t.requests(fulfil, course(2.0, (-20, 2.0), (-12, 2.3), (-0.5, 2.3), (1.2, 0)), load=0.5)
    t.requests(
        Call(
            "shop-front",
            "GET /events/:id",
            8,
            calls=(Call("venue-api", "GET /venues/{id}", 14, calls=(Call("venue-cache", "GET", 0.8, traced=False),)),),
        ),
        2.5,
    )


def _worked(t: Telling) -> None:
    t.lines(
        "fulfilment",
        "warning",
        "i.v.core.impl.BlockedThreadChecker",
        "Thread Thread[vert.x-worker-thread-{0..19},5,main] has been blocked for {60000..780000} ms, time limit is"
        " 60000 ms" + STACK,
        course(0, (1, 0), (2, 5)),
    )
    t.lines(
        "fulfilment",
        "info",
        "c.encore.fulfilment.SeatPlanCache",
        "Seat plan {5d} loaded, {400..18000} seats",
        course(3, (-0.5, 3), (1, 0)),
    )
    t.lines("fulfilment", "info", "c.encore.fulfilment.Health", "GET /q/health 200", 2)
    t.lines(
        "fulfilment",
        "warning",
        "c.encore.fulfilment.OrderConsumer",
        "Order {9d} was redelivered (ApproximateReceiveCount=2), already fulfilled",
        course(0.6, (-0.5, 0.6), (1, 0)),
    )


def _chattered(t: Telling) -> None:
    t.gap("datadog", GapReason.EMPTY, "no log line is tagged service:smtp-relay", "set datadog_tags in the catalogue")
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:smtp-relay", "set datadog_tags in the catalogue")
    for service, revision, desired in (("shop-front", 212, 3), ("order-api", 98, 2), ("venue-api", 41, 2)):
        t.ecs(service, revision, desired)
    for service, revision, desired in (("fulfilment", 77, 3), ("pdf-render", 15, 2), ("mail-out", 33, 2)):
        t.ecs(service, revision, desired)
    t.change("order-api", -27, "deploy", "ECS deployment of order-api:98: COMPLETED", version="order-api:98")
    t.change("order-api", -27.3, "deploy", "Deployed order-api v4.9.0", version="v4.9.0", author="ci/release-bot")
    t.change("shop-front", -13, "scaling", "Scaled shop-front from 2 to 3 tasks", author="application-autoscaling")
    t.change(
        "mail-out",
        -4,
        "configuration",
        "Parameter Store Change: Update /tickets/mail-out/footer",
        author="marketing-ops",
    )
    t.lines(
        "shop-front", "info", "front.http", "GET /events/{5d} 200 {40..180} ms", course(7, (-20, 7), (-12, 9)), load=1
    )
    t.lines(
        "shop-front", "warning", "front.queue-it", "Visitor {8h} rejoined the waiting room", between(0.3, -20, 30, 1.6)
    )
    t.lines("order-api", "warning", "c.encore.order.Vouchers", "Voucher {6d} was used before", 0.6)
    t.lines("venue-api", "info", "venue.http", "GET /venues/{4d} 200", 4, load=1)
    t.lines(
        "pdf-render",
        "warning",
        "render.fonts",
        "Font NotoSans-Thai is missing, using fallback",
        course(0.8, (-0.5, 0.8), (1, 0)),
    )
    t.lines(
        "mail-out",
        "warning",
        "mail.smtp",
        "451 4.7.1 greylisted by {mx1|mx2|mx3}, will retry in 300 s",
        between(0.8, -25, -14, 5),
    )
    t.lines("mail-out", "info", "mail.smtp", "250 2.0.0 queued as {8h}", course(5, (-0.5, 5), (1.2, 0)))
