"""The AWS collector against moto's server, whose answers botocore reads off a real wire.

moto has no CloudTrail and no history of ECS deployments: the collection goes on without them.
"""

from datetime import UTC, datetime, timedelta

import pytest

from collectors.aws import AwsCollector, Settings, clients_of
from collectors.aws._calls import Clients
from collectors.base import AwsResources, EcsService, Scope, Symptom, Target, Window
from tests.collectors.aws_stubs import SESSION, StoppedClock

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
SOON = NOW + timedelta(hours=1)  # whenever the test runs, what it deploys is within
DATABASE = [{"Name": "DBInstanceIdentifier", "Value": "orders"}]
PAYMENT = Target(
    service="payment",
    ecs=EcsService(cluster="shop", service="pay"),
    aws=AwsResources(rds_instances=("orders",), codedeploy_application="pay", codedeploy_group="blue"),
)


@pytest.fixture(scope="module")
def clients(moto: str) -> Clients:
    return clients_of(SESSION, moto)


@pytest.fixture
def collector(clients: Clients) -> AwsCollector:
    return AwsCollector(StoppedClock(SOON), clients, Settings())


def connections(clients: Clients) -> None:
    """A minute apart, two points each."""
    for minutes in range(30):
        at = NOW - timedelta(minutes=minutes + 1)
        points = [{"Timestamp": at, "Value": value, "Dimensions": DATABASE} for value in (3.0, 5.0 + minutes)]
        clients.cloudwatch.put_metric_data(
            Namespace="AWS/RDS",
            MetricData=[{"MetricName": "DatabaseConnections", **point} for point in points],  # type: ignore[typeddict-item]
        )


def alarm(clients: Clients) -> str:
    """ARN of an alarm on them."""
    clients.cloudwatch.put_metric_alarm(
        AlarmName="connections",
        Namespace="AWS/RDS",
        MetricName="DatabaseConnections",
        Dimensions=[{"Name": "DBInstanceIdentifier", "Value": "orders"}],
        Statistic="Maximum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=80.0,
        ComparisonOperator="GreaterThanThreshold",
    )
    return clients.cloudwatch.describe_alarms(AlarmNames=["connections"])["MetricAlarms"][0]["AlarmArn"]


def deployed(clients: Clients) -> None:
    """By ECS itself, and by CodeDeploy."""
    clients.ecs.create_cluster(clusterName="shop")
    clients.ecs.register_task_definition(family="pay", containerDefinitions=[{"name": "a", "image": "b", "memory": 1}])
    clients.ecs.create_service(cluster="shop", serviceName="pay", taskDefinition="pay", desiredCount=2)
    clients.codedeploy.create_application(applicationName="pay", computePlatform="ECS")
    role = "arn:aws:iam::123456789012:role/x"
    clients.codedeploy.create_deployment_group(applicationName="pay", deploymentGroupName="blue", serviceRoleArn=role)
    clients.codedeploy.create_deployment(
        applicationName="pay",
        deploymentGroupName="blue",
        revision={
            "revisionType": "GitHub",
            "gitHubLocation": {"repository": "shop/pay", "commitId": "c0ffee"},
        },
    )


async def test_an_alarm_its_metric_and_what_changed(clients: Clients, collector: AwsCollector) -> None:
    connections(clients)
    deployed(clients)
    middle = NOW - timedelta(minutes=10)
    scope = Scope(
        service="payment",
        occurred_at=middle,
        incident=Window(start=middle, end=SOON),
        baseline=(Window(start=NOW - timedelta(minutes=30), end=middle),),
        symptom=Symptom(source="cloudwatch", rule=f"cloudwatch:{alarm(clients)}", title="connections"),
        targets=(PAYMENT,),
    )
    found = await collector.collect(scope)
    by_statistic = {s.ref.statistic: s for s in found.series if s.ref.metric == "RDS.DatabaseConnections"}
    assert set(by_statistic) == {"avg", "max"}  # ours, and the alarm's
    assert by_statistic["max"].values == tuple(float(34 - n) for n in range(30))
    assert by_statistic["avg"].values[0] == (3.0 + 34.0) / 2
    assert by_statistic["max"].epoch_s[-1] == (NOW - timedelta(minutes=1)).timestamp()
    assert {(c.title.partition(" ")[0], c.version) for c in found.changes} == {
        ("ECS", "pay:1"),
        ("CodeDeploy", "c0ffee"),
    }
    assert {"cloudwatch.alarm_threshold", "ecs.desired_tasks"} <= {status.name for status in found.statuses}
    assert found.cost.received_bytes > 1000
    assert {query.link for query in found.queries} == {None}  # there is no console of moto's
    unread = {gap.detail.partition(":")[2].partition(":")[0] for gap in found.gaps}
    assert {"ListServiceDeployments", "LookupEvents"} <= unread
    [again] = await collector.measure([by_statistic["max"].ref], Window(start=middle, end=NOW))
    assert again.values == tuple(float(14 - n) for n in range(10))


async def test_checks_on_a_real_wire(collector: AwsCollector) -> None:
    checks = {check.name: check.status for check in await collector.check()}
    assert checks["credentials"] == checks["clock"] == checks["cloudwatch:GetMetricData"] == "ok"
    assert checks["codedeploy:BatchGetDeployments"] == checks["ecs:ListTasks"] == "ok"
    assert checks["cloudtrail:LookupEvents"] == "failed"
