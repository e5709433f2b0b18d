"""ECS, refusals, budgets and checks of the AWS collector on scripted answers."""

from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from boto3 import Session
from botocore.stub import ANY
from hypothesis import given
from hypothesis import strategies as st

from collectors import aws
from collectors.aws import AwsCollector, create, ecs
from collectors.aws._calls import NotOffered, console
from collectors.base import AwsResources, Declared, EcsService, Forbidden, GapReason, NotFound, Scope, Target, Telemetry
from tests.collectors.aws_stubs import ACCOUNT, ECS_ONLY, T0, Account, StoppedClock, scope_of

GROUP = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/pay/6d0e"
STOPPED = {"cluster": "shop", "serviceName": "payment-service", "desiredStatus": "STOPPED"}


@pytest.fixture
def account() -> Iterator[Account]:
    account = Account()
    yield account
    account.assert_all_asked()


@pytest.fixture
def hurried() -> Account:
    """Has a second, and 5,000 bytes."""
    return Account(budget_s=1, max_bytes=5_000)


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


def describes(account: Account, *services: dict[str, object], **more: object) -> None:
    account.answers("ecs", "describe_services", {"services": list(services), "failures": [], **more})


async def read(account: Account, scope: Scope) -> Telemetry:
    return await account.run(ecs.jobs(account.clients, account.clock, scope))


async def test_state_events_and_deployments_of_a_service(account: Account) -> None:
    account.answers(
        "ecs",
        "describe_services",
        {"services": [service()], "failures": [{"arn": "x", "reason": "MISSING"}]},
        {"cluster": "shop", "services": ["payment-service"]},
    )
    account.answers(
        "ecs",
        "list_service_deployments",
        {"serviceDeployments": [{"serviceDeploymentArn": "d1"}, {"serviceDeploymentArn": "d2"}], "nextToken": "x"},
        {"cluster": "shop", "service": "payment-service", "createdAt": ANY, "maxResults": 20},
    )
    current, older = T0 - timedelta(minutes=20), T0 - timedelta(hours=5)
    now = {
        "startedAt": current + timedelta(seconds=5),
        "status": "IN_PROGRESS",
        "targetServiceRevision": {"arn": "r2"},
        "alarms": {"status": "TRIGGERED", "triggeredAlarmNames": ["5xx"]},
    }
    undone = {
        "startedAt": older,
        "status": "ROLLBACK_SUCCESSFUL",
        "targetServiceRevision": {"arn": "r1"},
        "deploymentCircuitBreaker": {"status": "TRIGGERED", "failureCount": 3, "threshold": 3},
        "rollback": {
            "startedAt": older + timedelta(minutes=9),
            "reason": "circuit breaker",
            "serviceRevisionArn": "r0",
        },
    }
    account.answers("ecs", "describe_service_deployments", {"serviceDeployments": [now, undone]})
    revisions = [("r0", "payment:40"), ("r1", "payment:41"), ("r2", "payment:42")]
    rows = [{"serviceRevisionArn": r, "taskDefinition": f"{ACCOUNT}:task-definition/{name}"} for r, name in revisions]
    asked = {"serviceRevisionArns": ["r0", "r1", "r2"]}
    account.answers("ecs", "describe_service_revisions", {"serviceRevisions": rows}, asked)
    account.answers("ecs", "list_tasks", {"taskArns": []}, STOPPED)
    found = await read(account, scope_of(ECS_ONLY))
    states = {status.name: (status.observed, status.expected, status.detail) for status in found.statuses}
    assert states == {
        "ecs.desired_tasks": (4, None, "payment:42"),
        "ecs.running_tasks": (2, 4, "1 pending"),
        "ecs.rollout_completed": (0, 1, "IN_PROGRESS: tasks failed to start"),
        "ecs.failed_tasks": (3, 0, ""),
    }
    assert [(c.version, c.at, c.title) for c in found.changes] == [
        (  # told twice, taken once: by whom tells more
            "payment:42",
            current + timedelta(seconds=5),
            "ECS deployment of payment:42: IN_PROGRESS; alarms 5xx",
        ),
        (
            "payment:41",
            older,
            "ECS deployment of payment:41: ROLLBACK_SUCCESSFUL; circuit breaker after 3 failed tasks",
        ),
        ("payment:40", older + timedelta(minutes=9), "ECS rolled payment:41 back: circuit breaker"),
    ]
    assert [(line.level, line.message) for line in found.logs] == [
        ("info", "has stopped 1 running tasks"),
        ("warning", "(task 1) failed ELB health checks"),
    ]
    assert [(gap.reason, gap.detail) for gap in found.gaps] == [
        (GapReason.EMPTY, "x: MISSING"),
        (
            GapReason.TRUNCATED,
            "payment was deployed more than 20 times since 19 Dec 09:00 UTC: only 20 deployments were read",
        ),
    ]
    assert found.queries[0].link == (
        "https://eu-west-1.console.aws.amazon.com/ecs/v2/clusters/shop/services?region=eu-west-1"
    )


async def test_stopped_tasks_are_paged_and_bounded(account: Account) -> None:
    describes(account, service(deployments=[], events=[]))
    account.answers("ecs", "list_service_deployments", {"serviceDeployments": []})
    task = {
        "taskArn": f"{ACCOUNT}:task/shop/abc",
        "stoppedAt": T0 + timedelta(minutes=1),
        "stopCode": "EssentialContainerExited",
        "stoppedReason": "Essential container in task exited",
        "containers": [{"name": "app", "exitCode": 137, "reason": "OutOfMemoryError"}],
    }
    scaled_in = {**task, "stopCode": "ServiceSchedulerInitiated", "containers": []}
    too_old = {**task, "stoppedAt": T0 - timedelta(hours=2)}
    account.answers("ecs", "list_tasks", {"taskArns": ["a", "b", "c"], "nextToken": "1"}, STOPPED)
    account.answers("ecs", "describe_tasks", {"tasks": [task, scaled_in, too_old]})
    account.answers("ecs", "list_tasks", {"taskArns": [], "nextToken": "2"}, {**STOPPED, "nextToken": "1"})
    account.answers("ecs", "list_tasks", {"taskArns": [], "nextToken": "3"}, {**STOPPED, "nextToken": "2"})
    found = await read(account, scope_of(ECS_ONLY))
    assert [(line.level, line.message, line.instance) for line in found.logs] == [
        (
            "error",
            "task stopped: Essential container in task exited; app exit code 137 OutOfMemoryError",
            "abc",
        ),
        ("warning", "task stopped: Essential container in task exited", "abc"),
    ]
    assert [(gap.reason, gap.detail) for gap in found.gaps] == [
        (GapReason.TRUNCATED, "payment: only 3 of its stopped tasks were read")
    ]


async def test_targets_health_is_read_from_the_group_the_service_registers_with(account: Account) -> None:
    describes(account, service(loadBalancers=[{"targetGroupArn": GROUP}]))
    account.answers("ecs", "list_service_deployments", {"serviceDeployments": []})
    account.answers("ecs", "list_tasks", {"taskArns": []})
    health: list[dict[str, object]] = [{"State": state} for state in ("healthy", "draining", "healthy")]
    health.append({"State": "unhealthy", "Reason": "Target.Timeout"})
    rows = {"TargetHealthDescriptions": [{"TargetHealth": one} for one in health]}
    account.answers("elb", "describe_target_health", rows, {"TargetGroupArn": GROUP})
    found = await read(account, scope_of(ECS_ONLY))
    [status] = [s for s in found.statuses if s.name == "ecs.healthy_tasks"]
    assert (status.observed, status.expected) == (2, 4)
    assert status.detail == "Target.Timeout: 1, draining: 1, healthy: 2, unhealthy: 1"


async def test_what_codedeploy_deploys_has_no_history_in_ecs(account: Account) -> None:
    task_set = {"createdAt": T0, "taskDefinition": f"{ACCOUNT}:task-definition/payment:7", "stabilityStatus": "STABLE"}
    describes(account, service(deployments=[], taskSets=[task_set], deploymentController={"type": "CODE_DEPLOY"}))
    account.answers("ecs", "list_tasks", {"taskArns": []})
    found = await read(account, scope_of(ECS_ONLY))
    assert [c.title for c in found.changes] == ["ECS deployment of payment:7: STABLE"]
    [gap] = found.gaps
    assert (gap.reason, "aws.codedeploy_application" in gap.mend) == (GapReason.NOT_CONFIGURED, True)


async def test_services_are_asked_ten_at_a_time(account: Account) -> None:
    targets = [Target.model_validate({**ECS_ONLY.model_dump(), "service": f"s{n}"}) for n in range(11)]
    describes(account)
    describes(account)
    found = await read(account, scope_of(*targets))
    assert len(found.queries) == 2


async def test_a_missing_permission_names_the_action_and_costs_nothing_else(account: Account) -> None:
    describes(account, service())
    account.refuses("ecs", "list_service_deployments", "AccessDeniedException")
    account.refuses("ecs", "list_tasks", "ThrottlingException")
    found = await read(account, scope_of(ECS_ONLY))
    assert [(gap.reason, gap.mend) for gap in found.gaps] == [
        (GapReason.FORBIDDEN, "allow the role the action ecs:ListServiceDeployments"),
        (GapReason.RATE_LIMITED, "try again later, or raise the account's API quota"),
    ]
    assert [c.version for c in found.changes] == ["payment:42"]  # the deployment still in place


async def test_after_a_throttle_nobody_asks_for_a_moment(hurried: Account) -> None:
    def of(cluster: str) -> Target:
        return Target(service=cluster, ecs=EcsService(cluster=cluster, service="x"))

    describes(hurried)
    hurried.refuses("ecs", "describe_services", "Throttling")
    found = await read(hurried, scope_of(of("one"), of("two"), of("three")))
    assert [(gap.reason, gap.detail) for gap in found.gaps] == [
        (GapReason.RATE_LIMITED, "ecs:DescribeServices: Throttling"),
        (GapReason.RATE_LIMITED, "ecs:DescribeServices: rate limit reached, reset in 2 s"),
    ]
    assert found.cost.calls == 2


async def test_a_larger_answer_than_the_budget_ends_the_collection(hurried: Account) -> None:
    account = hurried
    sizes = {"ResponseMetadata": {"HTTPHeaders": {"content-length": "3000"}}}
    describes(account, service(deployments=[], events=[]), **sizes)
    account.answers("ecs", "list_service_deployments", {"serviceDeployments": [], **sizes})
    account.answers("ecs", "list_tasks", {"taskArns": []})
    found = await read(account, scope_of(ECS_ONLY))
    assert found.cost.received_bytes == 6000
    assert [(gap.reason, gap.mend) for gap in found.gaps] == [
        (GapReason.TRUNCATED, "raise AUTOPILOT_AWS_MAX_BYTES, or narrow what is read")
    ] * len(found.gaps)


async def test_too_many_rows_of_one_service_leave_nothing_running_behind() -> None:
    account = Account(max_rows=100)
    crowded = service(deployments=[{"status": "PRIMARY"}] * 60, deploymentController={"type": "CODE_DEPLOY"})
    describes(account, crowded, {**crowded, "serviceName": "cart", "deployments": []})
    for _ in range(2):
        account.answers("ecs", "list_tasks", {"taskArns": []})
    resources = AwsResources(codedeploy_application="pay")
    names = ("payment-service", "cart")
    targets = (Target(service=n, ecs=EcsService(cluster="shop", service=n), aws=resources) for n in names)
    found = await read(account, scope_of(*targets))
    account.assert_all_asked()
    assert [gap.mend for gap in found.gaps] == ["raise AUTOPILOT_AWS_MAX_ROWS, or narrow what is read"]


async def test_nothing_readable_raises(account: Account) -> None:
    account.refuses("ecs", "describe_services", "ExpiredTokenException", 403)
    with pytest.raises(Forbidden, match="ExpiredToken") as told:
        await read(account, scope_of(ECS_ONLY))
    assert told.value.mend == "renew the AWS credentials of this process"


async def test_a_name_that_aws_does_not_know_is_to_be_mended_in_the_catalogue(account: Account) -> None:
    account.refuses("ecs", "describe_services", "ClusterNotFoundException")
    with pytest.raises(NotFound, match="ClusterNotFoundException") as told:
        await read(account, scope_of(ECS_ONLY))
    assert told.value.mend == "check the names under aws: and ecs: in the catalogue"


async def test_a_role_that_cannot_be_assumed_is_told_as_such(account: Account) -> None:
    error = account.clients.ecs.exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "AssumeRole")

    def refuse(**_: object) -> None:
        raise error

    account.clients.ecs.meta.events.register("provide-client-params.ecs.DescribeServices", refuse)
    with pytest.raises(Forbidden, match="sts:AssumeRole") as told:
        await read(account, scope_of(ECS_ONLY))
    assert "AUTOPILOT_AWS_ROLE_ARN" in told.value.mend


@pytest.mark.parametrize("code", ["404", "UnknownOperationException"])
async def test_an_endpoint_that_does_not_know_the_action_is_not_aws(account: Account, code: str) -> None:
    account.refuses("ecs", "describe_services", code, 404)
    with pytest.raises(NotOffered) as told:
        await read(account, scope_of(ECS_ONLY))
    assert (told.value.reason, told.value.mend) == (
        GapReason.NOT_CONFIGURED,
        "unset AUTOPILOT_AWS_ENDPOINT_URL to reach AWS itself",
    )


async def test_nothing_tied_to_aws_is_no_call(account: Account) -> None:
    found = await account.collector.collect(scope_of(Target(service="elsewhere")))
    assert (found.queries, found.gaps, found.cost.calls) == ((), (), 0)


async def test_checks_name_each_missing_action(account: Account) -> None:
    identity = {"Arn": "arn:aws:iam::123456789012:role/reader", "Account": "123456789012", "UserId": "x"}
    headers = {"date": f"{datetime.now(T0.tzinfo) + timedelta(hours=1):%a, %d %b %Y %H:%M:%S GMT}"}
    account.answers("sts", "get_caller_identity", {**identity, "ResponseMetadata": {"HTTPHeaders": headers}})
    account.answers("rds", "describe_events", {"Events": []})
    account.refuses("cloudtrail", "lookup_events", "AccessDeniedException")
    account.refuses("cloudwatch", "get_metric_data", "UnknownOperationException")
    checks = {check.name: check for check in await account.collector.check()}
    assert checks["credentials"].detail.startswith("arn:aws:iam::123456789012:role/reader in eu-west-1 at https://")
    assert (checks["clock"].status, checks["clock"].mend) == ("failed", "set this machine's clock (NTP)")
    assert checks["rds:DescribeEvents"].status == "ok"
    assert checks["cloudtrail:LookupEvents"].mend == "allow the role the action cloudtrail:LookupEvents"
    assert "AUTOPILOT_AWS_ENDPOINT_URL" in checks["cloudwatch:GetMetricData"].mend


async def test_log_groups_of_the_catalogue_are_looked_for() -> None:
    account = Account()
    account.answers("logs", "describe_log_groups", {"logGroups": []})
    account.answers("logs", "describe_log_groups", {"logGroups": [{"logGroupName": "/ecs/pay-2"}]})
    collector = AwsCollector(account.clock, account.clients, account.settings, log_groups=("/ecs/pay",))
    [check] = [check for check in await collector.check() if check.name.startswith("log group")]
    assert (check.name, check.status, check.mend) == (
        "log group /ecs/pay",
        "failed",
        "correct aws.log_groups in the catalogue",
    )


async def test_every_action_that_is_checked_is_in_the_policy(account: Account) -> None:
    for check in await account.collector.check():
        if ":" in check.name:
            assert f'"{check.name}"' in (aws.__doc__ or ""), check.name


def test_a_missing_region_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOPILOT_AWS_REGION", raising=False)
    with pytest.raises(ValueError, match="AUTOPILOT_AWS_REGION"):
        create(StoppedClock(), Declared())


def test_there_is_no_console_of_another_endpoint() -> None:
    elsewhere = Session("key", "secret", region_name="eu-west-1").client("ecs", endpoint_url="http://127.0.0.1:4566")
    assert console(elsewhere, "ecs") is None
    china = Session("key", "secret", region_name="cn-north-1").client("ecs")
    assert console(china, "ecs?region={region}") == "https://cn-north-1.console.amazonaws.cn/ecs?region=cn-north-1"


@given(st.text())
def test_any_message_of_an_event_is_taken(message: str) -> None:
    row = {"events": [{"id": "1", "createdAt": T0, "message": message}]}
    [line] = ecs._event_lines("payment", row)  # type: ignore[arg-type]
    assert line.message == message
