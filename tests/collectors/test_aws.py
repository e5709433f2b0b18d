"""The AWS collector on stubbed boto3 clients: requests are checked against the service models."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import boto3
import pytest
from botocore.stub import ANY, Stubber

from collectors.aws import AwsCollector, Settings, create
from collectors.aws._calls import Clients
from collectors.base import (
    CollectorError,
    Declared,
    EcsService,
    Forbidden,
    GapReason,
    RateLimited,
    Scope,
    SeriesRef,
    Target,
    Window,
)

T0 = datetime(2024, 12, 20, 9, 0, 30, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=10))
BASELINE = Window(start=T0 - timedelta(hours=1), end=T0)
ACCOUNT = "arn:aws:ecs:eu-west-1:123456789012"
GROUP = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/pay/6d0e"
ECS_ONLY = Target(service="payment", ecs=EcsService(cluster="shop", service="payment-service"))
BALANCED = Target(service="payment", load_balancer="app/shop/50dc", target_group="targetgroup/pay/6d0e")


class FrozenClock:
    """Stands still."""

    def now(self) -> datetime:
        """The end of the incident."""
        return INCIDENT.end


class Stubs(NamedTuple):
    ecs: Stubber
    elb: Stubber
    cloudwatch: Stubber


class Aws:
    """A collector, and what its clients are to expect."""

    def __init__(self) -> None:
        session = boto3.Session("key", "secret", region_name="eu-west-1")
        names = ("ecs", "elbv2", "cloudwatch", "logs", "xray", "codedeploy", "cloudtrail", "rds", "sts")
        clients = Clients(*(session.client(name) for name in names))
        self.collector = AwsCollector(FrozenClock(), clients, Settings())
        self.stubs = Stubs(Stubber(clients.ecs), Stubber(clients.elb), Stubber(clients.cloudwatch))
        for stub in self.stubs:
            stub.activate()

    def answers_metrics(self, *pages: Mapping[str, object]) -> None:
        for page in pages:
            self.stubs.cloudwatch.add_response("get_metric_data", page)

    def lists_no_tasks(self) -> None:
        self.stubs.ecs.add_response("list_tasks", {"taskArns": []})


@pytest.fixture
def aws() -> Iterator[Aws]:
    aws = Aws()
    yield aws
    for stub in aws.stubs:
        stub.assert_no_pending_responses()


def scope(*targets: Target) -> Scope:
    return Scope(service="payment", occurred_at=T0, incident=INCIDENT, baseline=(BASELINE,), targets=targets)


def service(**more: object) -> dict[str, object]:
    return {
        "serviceName": "payment-service",
        "serviceArn": f"{ACCOUNT}:service/shop/payment-service",
        "desiredCount": 4,
        "runningCount": 2,
        "pendingCount": 1,
        "taskDefinition": f"{ACCOUNT}:task-definition/payment:42",
        "deployments": [
            {
                "status": "PRIMARY",
                "rolloutState": "IN_PROGRESS",
                "rolloutStateReason": "tasks failed to start",
                "failedTasks": 3,
                "createdAt": T0 - timedelta(minutes=20),
                "taskDefinition": f"{ACCOUNT}:task-definition/payment:42",
            }
        ],
        "events": [
            {"id": "2", "createdAt": T0 + timedelta(minutes=2), "message": "(task 1) failed ELB health checks"},
            {"id": "3", "createdAt": T0 - timedelta(minutes=9), "message": "has stopped 1 running tasks"},
            {"id": "1", "createdAt": T0 - timedelta(days=2), "message": "has reached a steady state."},
        ],
        **more,
    }


def metric(index: int, values: list[float], code: str = "Complete") -> dict[str, object]:
    start = T0.replace(second=0)
    stamps = [start + timedelta(minutes=i) for i in range(len(values))]
    return {"Id": f"m{index}", "Label": "x", "Timestamps": stamps, "Values": values, "StatusCode": code}


async def test_state_events_and_deployments_of_a_service(aws: Aws) -> None:
    aws.answers_metrics({"MetricDataResults": [metric(0, [91.0])]})
    ecs = aws.stubs.ecs
    ecs.add_response(
        "describe_services",
        {"services": [service()], "failures": [{"arn": "x", "reason": "MISSING"}]},
        {"cluster": "shop", "services": ["payment-service"]},
    )
    ecs.add_response(
        "list_service_deployments",
        {"serviceDeployments": [{"serviceDeploymentArn": "d1"}, {"serviceDeploymentArn": "d2"}]},
        {"cluster": "shop", "service": "payment-service", "createdAt": ANY, "maxResults": 20},
    )
    current, older = T0 - timedelta(minutes=20), T0 - timedelta(hours=5)
    ecs.add_response(
        "describe_service_deployments",
        {
            "serviceDeployments": [
                {
                    "startedAt": current + timedelta(seconds=5),
                    "status": "IN_PROGRESS",
                    "targetServiceRevision": {"arn": "r2"},
                },
                {
                    "startedAt": older,
                    "status": "ROLLBACK_SUCCESSFUL",
                    "targetServiceRevision": {"arn": "r1"},
                    "rollback": {"startedAt": older + timedelta(minutes=9), "reason": "circuit breaker"},
                },
            ]
        },
    )
    revisions = [("r1", "payment:41"), ("r2", "payment:42")]
    ecs.add_response(
        "describe_service_revisions",
        {
            "serviceRevisions": [
                {"serviceRevisionArn": arn, "taskDefinition": f"{ACCOUNT}:task-definition/{name}"}
                for arn, name in revisions
            ]
        },
        {"serviceRevisionArns": ["r1", "r2"]},
    )
    ecs.add_response("list_tasks", {"taskArns": ["t"]}, ANY_TASKS)
    ecs.add_response(
        "describe_tasks",
        {
            "tasks": [
                {
                    "taskArn": f"{ACCOUNT}:task/shop/abc",
                    "stoppedAt": T0 + timedelta(minutes=1),
                    "stopCode": "EssentialContainerExited",
                    "stoppedReason": "Essential container in task exited",
                    "containers": [{"name": "app", "exitCode": 137, "reason": "OutOfMemoryError"}],
                }
            ]
        },
    )
    found = await aws.collector.collect(scope(ECS_ONLY))
    states = {status.name: (status.observed, status.expected, status.detail) for status in found.statuses}
    assert states == {
        "ecs.desired_tasks": (4, None, "payment:42"),
        "ecs.running_tasks": (2, 4, "1 pending"),
        "ecs.rollout_completed": (0, 1, "IN_PROGRESS: tasks failed to start"),
        "ecs.failed_tasks": (3, 0, ""),
    }
    assert [(c.version, c.at) for c in found.changes] == [
        ("payment:42", current),  # told twice, taken once
        ("payment:41", older),
        ("", older + timedelta(minutes=9)),
    ]
    assert [(line.level, line.message, line.instance) for line in found.logs] == [
        ("info", "has stopped 1 running tasks", ""),
        ("warning", "(task 1) failed ELB health checks", ""),
        (
            "error",
            "task stopped: Essential container in task exited; app exit code 137 OutOfMemoryError",
            "abc",
        ),
    ]
    assert [(gap.reason, gap.detail) for gap in found.gaps] == [(GapReason.EMPTY, "x: MISSING")]


ANY_TASKS = {"cluster": "shop", "serviceName": "payment-service", "desiredStatus": "STOPPED"}


async def test_targets_health_is_read_from_the_group_the_service_registers_with(aws: Aws) -> None:
    aws.answers_metrics({"MetricDataResults": []})
    registered = service(loadBalancers=[{"targetGroupArn": GROUP}])
    aws.stubs.ecs.add_response("describe_services", {"services": [registered], "failures": []})
    aws.stubs.ecs.add_response("list_service_deployments", {"serviceDeployments": []})
    aws.lists_no_tasks()
    health = [{"TargetHealth": {"State": state}} for state in ("healthy", "unhealthy", "draining", "healthy")]
    aws.stubs.elb.add_response(
        "describe_target_health", {"TargetHealthDescriptions": health}, {"TargetGroupArn": GROUP}
    )
    found = await aws.collector.collect(scope(ECS_ONLY))
    [status] = [s for s in found.statuses if s.name == "ecs.healthy_tasks"]
    assert (status.observed, status.expected) == (2, 4)
    assert status.detail == "draining: 1, healthy: 2, unhealthy: 1"


async def test_a_missing_permission_names_the_action_and_costs_nothing_else(aws: Aws) -> None:
    aws.stubs.cloudwatch.add_client_error("get_metric_data", "AccessDenied", http_status_code=403)
    aws.stubs.ecs.add_response("describe_services", {"services": [service()], "failures": []})
    aws.stubs.ecs.add_client_error("list_service_deployments", "AccessDeniedException", http_status_code=400)
    aws.lists_no_tasks()
    found = await aws.collector.collect(scope(ECS_ONLY))
    assert {gap.mend for gap in found.gaps if gap.reason == GapReason.FORBIDDEN} == {
        "allow the role the action cloudwatch:GetMetricData",
        "allow the role the action ecs:ListServiceDeployments",
    }
    assert [c.version for c in found.changes] == ["payment:42"]  # the deployment still in place


async def test_nothing_readable_raises(aws: Aws) -> None:
    aws.stubs.cloudwatch.add_client_error("get_metric_data", "ExpiredTokenException", http_status_code=403)
    aws.stubs.ecs.add_client_error("describe_services", "ExpiredTokenException", http_status_code=403)
    with pytest.raises(Forbidden, match="ExpiredToken"):
        await aws.collector.collect(scope(ECS_ONLY))


async def test_metrics_are_paged_and_missing_error_counts_are_zero(aws: Aws) -> None:
    def page(*results: Mapping[str, object], token: str = "") -> dict[str, object]:
        return {"MetricDataResults": list(results), **({"NextToken": token} if token else {})}

    aws.stubs.cloudwatch.add_response(
        "get_metric_data",
        page(metric(0, [10, 20, 30]), metric(2, [0.4], "PartialData"), token="next"),
        {
            "MetricDataQueries": ANY,
            "StartTime": BASELINE.start + timedelta(seconds=30),  # whole minutes only
            "EndTime": INCIDENT.end - timedelta(seconds=30),
            "ScanBy": "TimestampAscending",
        },
    )
    late = {"Id": "m1", "Timestamps": [T0.replace(second=0) + timedelta(minutes=1)], "Values": [7.0]}
    aws.answers_metrics(page(late))
    found = await aws.collector.collect(scope(BALANCED))
    by_name = {series.ref.metric: series for series in found.series}
    assert set(by_name) == {"RequestCount", "HTTPCode_Target_5XX_Count", "TargetResponseTime"}
    assert by_name["HTTPCode_Target_5XX_Count"].values == (0.0, 7.0, 0.0)
    response_time = by_name["TargetResponseTime"].ref
    assert (response_time.statistic, response_time.unit) == ("p95", "s")
    assert json.loads(response_time.query)["MetricStat"]["Metric"]["Dimensions"] == [
        {"Name": "LoadBalancer", "Value": "app/shop/50dc"},
        {"Name": "TargetGroup", "Value": "targetgroup/pay/6d0e"},
    ]
    assert [gap.reason for gap in found.gaps] == [GapReason.TRUNCATED]


async def test_measuring_an_error_count_that_went_away_gives_zeros(aws: Aws) -> None:
    aws.answers_metrics({"MetricDataResults": [metric(0, [9.0]), metric(1, [3.0])]})
    found = await aws.collector.collect(scope(BALANCED))
    errors = next(series.ref for series in found.series if series.ref.metric == "HTTPCode_Target_5XX_Count")
    aws.answers_metrics({"MetricDataResults": [metric(1, [100.0, 120.0])]})  # m1: the traffic asked alongside
    [measured] = await aws.collector.measure([errors], INCIDENT)
    assert (measured.ref, measured.values) == (errors, (0.0, 0.0))


async def test_throttling_and_nonsense_raise_when_measuring(aws: Aws) -> None:
    ref = SeriesRef(source="aws", component="payment", metric="m", query="{}")
    aws.stubs.cloudwatch.add_client_error("get_metric_data", "Throttling", http_status_code=400)
    with pytest.raises(RateLimited):
        await aws.collector.measure([ref], INCIDENT)
    with pytest.raises(CollectorError, match="no CloudWatch query"):
        await aws.collector.measure([ref.model_copy(update={"query": "avg:x{*}"})], INCIDENT)


async def test_nothing_tied_to_aws_is_no_call(aws: Aws) -> None:
    found = await aws.collector.collect(scope(Target(service="elsewhere")))
    assert found.queries == ()


def test_a_missing_region_is_named() -> None:
    with pytest.raises(ValueError, match="AUTOPILOT_AWS_REGION"):
        create(FrozenClock(), Declared())
