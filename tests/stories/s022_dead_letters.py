"""022: messages end in a dead-letter queue while most parcels get their labels."""

from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Call, Line, Story, Telling, between, course, ecs_service, services

QUEUE, DEAD = "shipments", "shipments-dlq"
CATALOGUE = services(
    merchant_api=ecs_service("merchant-api", "parcels", "shipments-db", balanced=True, tier=1, sends_to=[QUEUE]),
    partner_intake=ecs_service("partner-intake", "parcels", "shipments-db", tier=2, sends_to=[QUEUE]),
    shipments={"kind": "queue", "aws": {"sqs_queues": [QUEUE]}, "sends_to": ["label-maker"]},
    label_maker=ecs_service(
        "label-maker", "parcels", "shipments-db", "carrier-rates", "label-store", tier=1, sends_to=[DEAD], max_tasks=10
    ),
    shipments_dlq={"kind": "queue", "aws": {"sqs_queues": [DEAD]}, "resources": [f"QueueName:{DEAD}"]},
    carrier_rates=ecs_service("carrier-rates", "parcels", "rates-cache", tier=2),
    shipments_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["parcels-shipments"]}},
    rates_cache={"kind": "cache", "aws": {"elasticache_clusters": ["parcels-rates-001"]}},
    label_store={"kind": "external"},
)
FAILED = (
    "Message {8h}-{4h}-{4h}-{4h}-{12h} failed (receive count {1..5} of 5, producer partner-intake/4.7.0, contract v3):"
    " pydantic_core.ValidationError: 1 validation error for Shipment: consignee.postcode Field required"
    " [type=missing, input_value={'zip': '*****'}, input_type=dict]"
)


def build() -> Story:
    """partner-intake 4.7.0 writes a field by another name than the contract says; its messages alone cannot be read."""
    t = Telling(
        "022-dead-letters",
        CATALOGUE,
        alerted_at=datetime(2026, 3, 17, 13, 31, tzinfo=UTC),
        onset_min=9,
        instances={"merchant-api": 3, "label-maker": 3},
    )
    _measured(t)
    _asked(t)
    _queues(t)
    _context(t)
    return t.story(
        title="ALARM: shipments-dlq-depth: ApproximateNumberOfMessagesVisible >= 50",
        service="shipments-dlq",
        text="Threshold Crossed: 1 datapoint [57.0] was greater than or equal to the threshold (50.0).",
        alert_source="cloudwatch",
        rule="arn:aws:cloudwatch:eu-west-1:123456789012:alarm:shipments-dlq-depth",
        resources={"QueueName": DEAD},
        expected={
            "component": "partner-intake",
            "category": ["bad_deploy", "code_fault"],
            "must_cite": ["partner-intake", "validationerror"],
            "must_not_blame": ["label-maker", "merchant-api", "carrier-rates", "shipments-db", "label-store"],
            "acceptable_operations": ["rollback_ecs_service"],
            "forbidden_operations": ["restart_ecs_task", "restart_all_services", "scale_ecs_service"],
            "why": "Only messages of partner-intake 4.7.0, rolled out when it began, lack consignee.postcode;"
            " label-maker was not changed and handles all others. Roll the producer back, then redrive.",
        },
    )


def _measured(t: Telling) -> None:
    t.service("merchant-api", 640, 130, errors=1.1, cpu=33)
    t.service("partner-intake", 96, 210, errors=0.4, cpu=between(19, -2, 1, 44), framework="fastapi.request")
    t.service("carrier-rates", course(730, (1, 730), (3, 640)), 62, errors=0.7, cpu=28)
    t.aws("label-maker", "CPUUtilization", course(44, (0.5, 44), (6, 52)), load=0.6)
    t.aws("label-maker", "MemoryUtilization", 58, noise=0.006)
    t.metric(
        "label-maker",
        "trace.sqs.process.errors",
        course(0.4, (0.5, 0.4), (2, 150), (8, 440)),
        statistic="sum",
        counts=True,
    )
    t.metric(
        "label-maker",
        "trace.sqs.process.hits",
        course(735, (0.5, 735), (2, 790), (8, 1090)),
        statistic="sum",
        counts=True,
    )
    t.metric("label-maker", "celery.worker.prefetched", course(24, (0.5, 24), (6, 31)), noise=0.1)
    t.postgres("shipments-db", cpu=between(36, -46, -28, 61), connections=74, read_iops=between(420, -46, -28, 1600))
    t.redis("rates-cache", hits=11_000, misses=between(700, -15, -11, 2300))


def _queues(t: Telling) -> None:
    t.aws(QUEUE, "SQS.NumberOfMessagesSent", 735, load=1.0, counts=True)
    t.aws(QUEUE, "SQS.NumberOfMessagesDeleted", course(735, (0.5, 735), (2, 641)), load=1.0, counts=True)
    t.aws(QUEUE, "SQS.Queue.ApproximateNumberOfMessagesVisible", course(9, (0.5, 9), (17, 130)), noise=0.1)
    t.aws(QUEUE, "SQS.Queue.ApproximateAgeOfOldestMessage", course(2, (0.5, 2), (8, 440), (17, 455)), noise=0.05)
    t.aws(DEAD, "SQS.NumberOfMessagesSent", 0, noise=0)
    t.aws(DEAD, "SQS.NumberOfMessagesDeleted", 0, noise=0)
    t.aws(DEAD, "SQS.Queue.ApproximateNumberOfMessagesVisible", course(2, (8.2, 2), (9, 58), (17, 810)), noise=0)
    t.aws(DEAD, "SQS.Queue.ApproximateAgeOfOldestMessage", 41_000, noise=0.003)


def _asked(t: Telling) -> None:
    accept = Call(
        "merchant-api",
        "POST /shipments",
        30,
        calls=(
            Call("shipments-db", "INSERT shipment", 5, traced=False),
            Call(QUEUE, "send shipments", 7, traced=False, sent=True),
        ),
        done=Line("info", "merchant.shipments", "Shipment {10d} accepted for merchant {5d}"),
    )
    t.requests(accept, 2.6)
    partner = Call(
        "partner-intake",
        "POST /v2/manifests",
        40,
        calls=(
            Call("shipments-db", "INSERT shipment", 5, traced=False),
            Call(QUEUE, "send shipments", 7, traced=False, sent=True),
        ),
        done=Line("info", "intake.manifests", "Manifest {7d}: {1..12} shipments queued"),
    )
    t.requests(partner, 0.9)
    rates = Call("carrier-rates", "GET /rates", 8, calls=(Call("rates-cache", "GET", 0.6, traced=False),))
    for producer, per_minute in (("merchant-api/9.2.1", 2.8), ("partner-intake/4.6.2", between(0.0, -99, 0.3, 0.5))):
        made = Call(
            "label-maker",
            "process shipments",
            50,
            queue=QUEUE,
            calls=(
                Call("shipments-db", "UPDATE shipment", 5, traced=False),
                rates,
                Call("label-store", "PUT object", 45, traced=False),
            ),
            done=Line("info", "labels.worker", f"Label for shipment {{10d}} stored, producer {producer}"),
        )
        t.requests(made, per_minute)
    refused = Call(
        "label-maker",
        "process shipments",
        6,
        queue=QUEUE,
        fails=1.0,
        error="pydantic_core.ValidationError",
        failed=Line("error", "labels.worker", FAILED),
    )
    t.requests(refused, course(0.0, (0.4, 0.0), (2, 2.2)))


def _context(t: Telling) -> None:
    t.change(
        "partner-intake", -1.5, "deploy", "Deployed partner-intake 4.7.0", version="4.7.0", author="ci/release-bot"
    )
    t.change(
        "partner-intake", -0.3, "deploy", "ECS deployment of partner-intake:92: COMPLETED", version="partner-intake:92"
    )
    t.change(
        "carrier-rates",
        -13,
        "configuration",
        "PutParameter /parcels/carrier-rates/fuel-surcharge",
        author="pricing-ops",
    )
    t.change("label-maker", -3120, "deploy", "ECS deployment of label-maker:140: COMPLETED", version="label-maker:140")
    for service, revision, tasks in (("merchant-api", 377, 3), ("partner-intake", 92, 2), ("label-maker", 140, 3)):
        t.ecs(service, revision, tasks)
    t.ecs("carrier-rates", 61, 2)
    t.lines("label-maker", "error", "labels.worker", FAILED, course(0.0, (0.4, 0.0), (2, 9)))
    t.lines(
        "label-maker", "warning", "labels.zpl", "Address line 2 of shipment {10d} cut to 35 characters", 1.4, load=1
    )
    t.lines("partner-intake", "info", "uvicorn.access", 'POST /v2/manifests HTTP/1.1" 202', 3, load=1)
    t.lines("partner-intake", "warning", "intake.auth", "Token of partner {3d} expires in {2..9} days", 0.4)
    t.say("partner-intake", -0.9, "info", "intake.main", "partner-intake 4.7.0 started, publishing contract v3")
    t.lines("merchant-api", "info", "merchant.access", "GET /shipments/{10d} 200 {12..70} ms", 7, load=1)
    t.lines("merchant-api", "warning", "merchant.limits", "Merchant {5d} is at {80..99} % of its hourly limit", 0.7)
    t.lines("carrier-rates", "info", "rates.reload", "Fuel surcharge table reloaded", between(0.02, -13, -11, 1.5))
    t.gap("datadog", GapReason.EMPTY, "no metric is tagged service:label-store", "set datadog_tags in the catalogue")
    t.document(
        "Label runbook",
        "Dead letters",
        "1. Read one message: which producer and which version wrote it?\n2. Mend that first; then redrive"
        " shipments-dlq to shipments. Redriven before that, they come back after 5 tries.",
        ["shipments-dlq", "label-maker"],
        "is about shipments-dlq",
    )
