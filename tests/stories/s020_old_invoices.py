"""020: messages grow old in a queue, and hardly anything of those who send and take them was recorded."""

import json
from datetime import UTC, datetime

from collectors.base import GapReason
from tests.stories.telling import Story, Telling, course, ecs_service, services

CATALOGUE = services(
    billing_api=ecs_service("billing-api", "finance", "billing-db", tier=2, sends_to=["invoices"]),
    invoices={"kind": "queue", "aws": {"sqs_queues": ["finance-invoices"]}, "sends_to": ["invoice-worker"]},
    invoice_worker=ecs_service("invoice-worker", "finance", "billing-db", "document-store", "tax-office", tier=2),
    billing_db={"kind": "database"},
    document_store={"kind": "external"},
    tax_office={"kind": "external"},
)
ALARM = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:finance-invoices-age"


def build() -> Story:
    """See the module."""
    t = Telling(
        "020-old-invoices",
        CATALOGUE,
        alerted_at=datetime(2025, 7, 1, 5, 40, tzinfo=UTC),
        onset_min=4,
        seen_min=3,
        source="aws",
    )
    _two_series(t)
    _gaps(t)
    return t.story(
        title="finance-invoices-age",
        service="invoices",
        alert_source="cloudwatch",
        severity="warning",
        rule=ALARM,
        resources={"QueueName": "finance-invoices"},
        text="Threshold Crossed: 1 datapoint [912.0 (01/07/25 05:39:00)] was greater than the threshold (900.0).",
        counted=False,
        expected={
            "component": None,
            "category": "unknown",
            "must_cite": [],
            "must_not_blame": [
                "invoices",
                "invoice-worker",
                "billing-api",
                "billing-db",
                "document-store",
                "tax-office",
            ],
            "acceptable_operations": [],
            "forbidden_operations": [
                "restart_all_services",
                "rollback_ecs_service",
                "scale_ecs_service",
                "reduce_traffic",
            ],
            "why": "An age that rises and a CPU of five points do not tell a dead worker from a message that cannot be"
            " handled or a slow tax office: what is missing must be read first.",
        },
    )


def _two_series(t: Telling) -> None:
    """A few minutes of each: nothing to compare them with."""
    t.metric(
        "invoices",
        "SQS.Queue.ApproximateAgeOfOldestMessage",
        course(432, (-5, 432), (7, 1152)),
        unit="s",
        statistic="max",
        noise=0.0,
        query=_query("AWS/SQS", "ApproximateAgeOfOldestMessage", "Maximum", QueueName="finance-invoices"),
        from_min=-4,
    )
    t.metric(
        "invoice-worker",
        "CPUUtilization",
        7.5,
        unit="%",
        noise=0.2,
        query=_query("AWS/ECS", "CPUUtilization", "Average", ClusterName="finance", ServiceName="invoice-worker"),
        from_min=-1,
    )


def _query(namespace: str, name: str, stat: str, **dimensions: str) -> str:
    listed = [{"Name": key, "Value": value} for key, value in sorted(dimensions.items())]
    metric = {"Namespace": namespace, "MetricName": name, "Dimensions": listed}
    return json.dumps({"Id": "m", "MetricStat": {"Metric": metric, "Period": 60, "Stat": stat}}, sort_keys=True)


def _gaps(t: Telling) -> None:
    doctor = "`autopilot doctor` names the permission that is missing"
    t.gap("aws", GapReason.FORBIDDEN, "logs:StartQuery: AccessDeniedException", doctor)
    t.gap("aws", GapReason.FORBIDDEN, "ecs:DescribeServices: AccessDeniedException", doctor)
    t.gap("aws", GapReason.FORBIDDEN, "cloudtrail:LookupEvents: AccessDeniedException", doctor)
    t.gap(
        "aws",
        GapReason.RATE_LIMITED,
        "cloudwatch:GetMetricData: ThrottlingException, 2 of 31 metrics were read",
        "try again later, or ask the vendor for a higher limit",
    )
    t.gap("aws", GapReason.EMPTY, "xray:GetServiceGraph has no service in these windows")
    t.gap(
        "datadog",
        GapReason.UNREACHABLE,
        "api.datadoghq.eu did not answer: connection timed out",
        "see `autopilot doctor`",
    )
