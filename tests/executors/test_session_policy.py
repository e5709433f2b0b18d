"""Under a role, each approved step runs in a session that may do just that step.

Every operation of every AWS executor is run as in production, against an account that gives out sessions and lets each
do only what its policy says. What was asked of STS is kept in golden files; an operation without one fails.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import pytest
from botocore import xform_name
from botocore.client import BaseClient
from pydantic import JsonValue
from pytest_regressions.data_regression import DataRegressionFixture

import executors
from executors._aws import POLICY_CHARACTERS, Api, AwsSettings, Connection
from executors.base import (
    AnyOperation,
    AppConfigProfile,
    Automation,
    Executor,
    ExecutorError,
    LambdaAlias,
    Resource,
)
from tests.executors.account import ACCOUNT, REGION, SCALABLE_TARGET, Account, account, arn, group_arn
from tests.executors.conftest import InstantClock, operation

ROLE = f"arn:aws:iam::{ACCOUNT}:role/hands"
AT = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
RULE = arn("elasticloadbalancing", "listener-rule/app/shop/50dc/f2f7/9683")
BLUE = arn("elasticloadbalancing", "targetgroup/blue/6d0e")
GREEN = arn("elasticloadbalancing", "targetgroup/green/0815")
OVERFLOW = arn("elasticloadbalancing", "targetgroup/overflow/77aa")
TASK = arn("ecs", "task/shop/0815abcd0815abcd")
DOCUMENT, REVERSE = "Shop-DrainQueue", "Shop-FillQueue"
PAY = Resource(
    service="pay",
    cluster="shop",
    ecs_service="pay",
    listener_rule_arn=RULE,
    target_group_arn=BLUE,
    overflow_target_group_arn=OVERFLOW,
    lambda_alias=LambdaAlias(function="pay", alias="live"),
    db_instance="pay-1",
    db_cluster="pay",
    replication_group="pay",
    auto_scaling_group="pay",
    app_config=AppConfigProfile(application="app1", environment="env1", profile="pro1"),
    automations=(
        Automation(document=DOCUMENT, version="3", assume_role=f"{ROLE}-ssm", reverse=REVERSE),
        Automation(document=REVERSE, version="1"),
    ),
)


def deployments(*rows: Mapping[str, object]) -> list[dict[str, object]]:
    return [
        {"createdAt": AT, "taskDefinition": task_definition(7), "status": "PRIMARY", "rolloutState": "COMPLETED", **row}
        for row in rows
    ]


def task_definition(version: int) -> str:
    return arn("ecs", f"task-definition/pay:{version}")


def ecs_service(name: str, **changed: object) -> dict[str, object]:
    return {
        "serviceName": name,
        "serviceArn": arn("ecs", f"service/shop/{name}"),
        "status": "ACTIVE",
        "desiredCount": 3,
        "runningCount": 3,
        "deployments": deployments({"id": "d1"}),
        "events": [],
        **changed,
    }


def rule(**weights: int) -> dict[str, object]:
    groups = [
        {"TargetGroupArn": {"blue": BLUE, "green": GREEN, "overflow": OVERFLOW}[name], "Weight": weight}
        for name, weight in weights.items()
    ]
    forward = {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}
    return {"Rules": [{"RuleArn": RULE, "IsDefault": False, "Actions": [forward]}]}


HEALTHY = {"TargetHealthDescriptions": [{"TargetHealth": {"State": "healthy"}}]}
ONE_SERVICE = {"ecs:DescribeServices": {"services": [ecs_service("pay")], "failures": []}}
ALIAS = {
    "AliasArn": arn("lambda", "function:pay:live"),
    "FunctionVersion": "41",
    "RevisionId": "r1",
    "Name": "live",
}
FUNCTION = {"FunctionArn": arn("lambda", "function:pay:42"), "State": "Active", "FunctionName": "pay"}
GROUP = {
    "AutoScalingGroupName": "pay",
    "AutoScalingGroupARN": group_arn("pay"),
    "MinSize": 1,
    "MaxSize": 6,
    "DesiredCapacity": 2,
    "LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": "4"},
    "Instances": [
        {"InstanceId": f"i-{n}", "LifecycleState": "InService", "HealthStatus": "Healthy", "AvailabilityZone": "a"}
        for n in range(2)
    ],
    "SuspendedProcesses": [],
}
CACHE = {
    "ReplicationGroupId": "pay",
    "ARN": arn("elasticache", "replicationgroup:pay"),
    "Status": "available",
    "AutomaticFailover": "disabled",
    "NodeGroups": [
        {
            "NodeGroupId": "0001",
            "NodeGroupMembers": [
                {"CacheClusterId": "pay-001", "CurrentRole": "primary"},
                {"CacheClusterId": "pay-002", "CurrentRole": "replica"},
            ],
        }
    ],
}
NODE = {
    "CacheClusterId": "pay-002",
    "ARN": arn("elasticache", "cluster:pay-002"),
    "CacheClusterStatus": "available",
    "CacheNodes": [{"CacheNodeId": "0001"}],
}


def database(name: str, **more: object) -> dict[str, object]:
    return {
        "DBInstanceIdentifier": name,
        "DBInstanceArn": arn("rds", f"db:{name}"),
        "DBInstanceStatus": "available",
        "Engine": "postgres",
        **more,
    }


CLUSTER = {
    "DBClusterIdentifier": "pay",
    "DBClusterArn": arn("rds", "cluster:pay"),
    "Status": "available",
    "Engine": "aurora-postgresql",
    "DBClusterMembers": [
        {"DBInstanceIdentifier": "pay-1", "IsClusterWriter": True},
        {"DBInstanceIdentifier": "pay-2", "IsClusterWriter": False},
    ],
}
REVISIONS = [
    {"serviceRevisionArn": arn("ecs", f"service-revision/shop/pay/{n}"), "taskDefinition": task_definition(n)}
    for n in (7, 6)
]


@dataclass(frozen=True)
class Case:
    """A step, and what AWS answers to its calls."""

    params: dict[str, JsonValue]
    answers: Mapping[str, object] = field(default_factory=dict)


CASES: dict[str, Case] = {
    "check_ecs_health": Case({"service": "pay"}, ONE_SERVICE),
    "restart_ecs_task": Case({"service": "pay"}, {**ONE_SERVICE, "ecs:UpdateService": {"service": ecs_service("pay")}}),
    "restart_all_services": Case(
        {"services": ["pay", "worker"]},
        {
            "ecs:DescribeServices": lambda p: {"services": [ecs_service(p["services"][0])], "failures": []},
            "ecs:UpdateService": {"service": ecs_service("pay")},
        },
    ),
    "scale_ecs_service": Case(
        {"service": "pay", "desired_count": 6},
        {
            **ONE_SERVICE,
            "application-autoscaling:DescribeScalableTargets": {
                "ScalableTargets": [{"MinCapacity": 2, "MaxCapacity": 5, "ScalableTargetARN": SCALABLE_TARGET}]
            },
        },
    ),
    "rollback_ecs_service": Case(
        {"service": "pay"},
        {
            "ecs:DescribeServices": {"services": [ecs_service("pay")], "failures": []},
            "ecs:ListServiceDeployments": {
                "serviceDeployments": [
                    {
                        "serviceDeploymentArn": arn("ecs", f"service-deployment/shop/pay/{n}"),
                        "status": "SUCCESSFUL",
                        "targetServiceRevisionArn": arn("ecs", f"service-revision/shop/pay/{n}"),
                        "createdAt": AT.replace(minute=n),
                    }
                    for n in (7, 6)
                ]
            },
            "ecs:DescribeServiceRevisions": {"serviceRevisions": REVISIONS},
            "ecs:DescribeTaskDefinition": {"taskDefinition": {"status": "ACTIVE", "containerDefinitions": []}},
        },
    ),
    "stop_ecs_task": Case(
        {"service": "pay", "task": "0815abcd0815abcd"},
        {
            **ONE_SERVICE,
            "ecs:ListTasks": {"taskArns": [TASK]},
            "ecs:DescribeTasks": {
                "tasks": [{"taskArn": TASK, "lastStatus": "RUNNING", "healthStatus": "UNHEALTHY", "startedAt": AT}]
            },
        },
    ),
    "reduce_traffic": Case(
        {"service": "pay", "keep_percent": 30},
        {
            "elasticloadbalancing:DescribeRules": rule(blue=100, overflow=0),
            "elasticloadbalancing:DescribeTargetHealth": HEALTHY,
        },
    ),
    "gradual_traffic_restore": Case(
        {"service": "pay", "steps_percent": [100]},
        {
            "elasticloadbalancing:DescribeRules": rule(blue=30, overflow=70),
            "elasticloadbalancing:DescribeTargetHealth": HEALTHY,
        },
    ),
    "shift_traffic": Case(
        {"service": "pay", "target_group_arn": GREEN, "percent": 20},
        {
            "elasticloadbalancing:DescribeRules": rule(blue=100, green=0),
            "elasticloadbalancing:DescribeTargetHealth": HEALTHY,
        },
    ),
    "shift_lambda_alias": Case(
        {"service": "pay", "version": "42", "weight_percent": 10},
        {"lambda:GetAlias": ALIAS, "lambda:GetFunctionConfiguration": FUNCTION},
    ),
    "set_lambda_concurrency": Case(
        {"service": "pay", "reserved": 50},
        {
            "lambda:GetFunctionConfiguration": FUNCTION,
            "lambda:GetAccountSettings": {
                "AccountLimit": {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 1000}
            },
        },
    ),
    "reboot_db_instance": Case({"service": "pay"}, {"rds:DescribeDBInstances": {"DBInstances": [database("pay-1")]}}),
    "failover_db_cluster": Case(
        {"service": "pay"},
        {
            "rds:DescribeDBClusters": {"DBClusters": [CLUSTER]},
            "rds:DescribeDBInstances": {"DBInstances": [database("pay-1"), database("pay-2")]},
        },
    ),
    "failover_cache": Case(
        {"service": "pay"}, {"elasticache:DescribeReplicationGroups": {"ReplicationGroups": [CACHE]}}
    ),
    "reboot_cache_cluster": Case(
        {"service": "pay", "node": "pay-002"},
        {
            "elasticache:DescribeReplicationGroups": {"ReplicationGroups": [CACHE]},
            "elasticache:DescribeCacheClusters": {"CacheClusters": [NODE]},
        },
    ),
    "refresh_instances": Case(
        {"service": "pay", "launch_template_version": 3},
        {
            "autoscaling:DescribeAutoScalingGroups": {"AutoScalingGroups": [GROUP]},
            "autoscaling:StartInstanceRefresh": {"InstanceRefreshId": "r1"},
        },
    ),
    "scale_auto_scaling_group": Case(
        {"service": "pay", "desired_capacity": 4},
        {"autoscaling:DescribeAutoScalingGroups": {"AutoScalingGroups": [GROUP]}},
    ),
    "run_automation": Case(
        {"service": "pay", "document": DOCUMENT},
        {
            "ssm:DescribeDocument": {
                "Document": {"Name": DOCUMENT, "Hash": "0a", "DocumentType": "Automation", "Status": "Active"}
            },
            "ssm:DescribeAutomationExecutions": {"AutomationExecutionMetadataList": []},
            "ssm:StartAutomationExecution": {"AutomationExecutionId": "11111111-1111-1111-1111-111111111111"},
        },
    ),
    "revert_configuration": Case(
        {"service": "pay"},
        {
            "appconfig:ListDeployments": {
                "Items": [
                    {
                        "DeploymentNumber": number,
                        "ConfigurationProfileId": "pro1",
                        "ConfigurationVersion": str(number),
                        "State": "COMPLETE",
                        "PercentageComplete": 100.0,
                        "CompletedAt": AT,
                    }
                    for number in (5, 4)
                ]
            }
        },
    ),
}


# --- every operation ---


def aws_executors() -> Iterator[ModuleType]:
    """The executor files that are set up by AwsSettings."""
    for module in iter_modules(executors.__path__):
        loaded = import_module(f"executors.{module.name}")
        if not module.name.startswith("_") and issubclass(getattr(loaded, "Settings", object), AwsSettings):
            yield loaded


MODULES = {kind.name: module for module in aws_executors() for kind in module.OPERATIONS}


@pytest.fixture
def aws() -> Iterator[Account]:
    with account() as running:
        yield running


def started(name: str, aws: Account, monkeypatch: pytest.MonkeyPatch) -> tuple[Executor, AnyOperation]:
    """The executor as the product makes it, under a role of that account."""
    module = MODULES[name]
    prefix = module.Settings.model_config["env_prefix"]
    for setting, value in {"ENDPOINT_URL": aws.url, "ROLE_ARN": ROLE, "REGION": REGION}.items():
        monkeypatch.setenv(f"{prefix}{setting}", value)
    aws.answers = dict(CASES[name].answers)
    worker = Resource(service="worker", cluster="shop", ecs_service="worker")
    made: Executor = module.create({"pay": PAY, "worker": worker}, InstantClock())
    return made, operation(made, name)


@pytest.mark.parametrize("name", sorted(MODULES))
async def test_a_step_asks_for_a_session_that_may_do_just_that_step(
    name: str, aws: Account, monkeypatch: pytest.MonkeyPatch, data_regression: DataRegressionFixture
) -> None:
    executor, step = started(name, aws, monkeypatch)
    params = step.params.model_validate(CASES[name].params)
    before = await step.inspect(params)
    read = len(aws.assumed)
    await step.execute(params, before)
    await executor.aclose()

    assert all(call.allowed for call in aws.calls)
    assert all(len(request["Policy"]) <= POLICY_CHARACTERS for request in aws.assumed)
    written = [call for call in aws.calls if not call.session.startswith("autopilot-read-")]
    assert {call.session for call in written} <= {f"autopilot-{name}"}
    assert bool(written) is not step.read_only
    asked = {"reading": [*map(shown, aws.assumed[:read])], "acting": [*map(shown, aws.assumed[read:])]}
    data_regression.check(asked, basename=name)


def shown(request: dict[str, str]) -> dict[str, Any]:
    """An AssumeRole request with its policy as a document."""
    return {**request, "Policy": json.loads(request["Policy"])}


def test_every_operation_has_its_case() -> None:
    assert set(MODULES) == set(CASES)
    assert set(MODULES) == {*NEIGHBOURS, "check_ecs_health"}  # which writes nothing


# --- beyond the step ---


NEIGHBOURS: dict[str, tuple[str, str, dict[str, object]]] = {  # operation: service, action, and what it is on
    "restart_ecs_task": ("ecs", "UpdateService", {"cluster": "shop", "service": "worker"}),
    "restart_all_services": ("ecs", "UpdateService", {"cluster": "shop", "service": "cart"}),
    "scale_ecs_service": ("ecs", "DeleteService", {"cluster": "shop", "service": "pay"}),
    "rollback_ecs_service": ("ecs", "StopTask", {"cluster": "shop", "task": TASK}),
    "stop_ecs_task": ("ecs", "StopTask", {"cluster": "shop", "task": f"{TASK}ffff"}),
    "reduce_traffic": ("elbv2", "ModifyRule", {"RuleArn": f"{RULE}0"}),
    "shift_traffic": ("elbv2", "DeleteRule", {"RuleArn": RULE}),
    "gradual_traffic_restore": ("elbv2", "DescribeRules", {"ListenerArn": RULE}),
    "shift_lambda_alias": ("lambda", "UpdateAlias", {"FunctionName": "orders", "Name": "live"}),
    "set_lambda_concurrency": ("lambda", "DeleteFunctionConcurrency", {"FunctionName": "orders"}),
    "reboot_db_instance": ("rds", "RebootDBInstance", {"DBInstanceIdentifier": "pay-2"}),
    "failover_db_cluster": ("rds", "RebootDBInstance", {"DBInstanceIdentifier": "pay-1"}),
    "failover_cache": ("elasticache", "DeleteReplicationGroup", {"ReplicationGroupId": "pay"}),
    "reboot_cache_cluster": ("elasticache", "ModifyReplicationGroup", {"ReplicationGroupId": "pay"}),
    "refresh_instances": ("autoscaling", "StartInstanceRefresh", {"AutoScalingGroupName": "worker"}),
    "scale_auto_scaling_group": ("autoscaling", "DeleteAutoScalingGroup", {"AutoScalingGroupName": "pay"}),
    "run_automation": (
        "ssm",
        "StartAutomationExecution",
        {"DocumentName": "AWS-DeleteSnapshot", "DocumentVersion": "1"},
    ),
    "revert_configuration": (
        "appconfig",
        "StopDeployment",
        {"ApplicationId": "app1", "EnvironmentId": "env2", "DeploymentNumber": 5},
    ),
}


@pytest.mark.parametrize("name", sorted(NEIGHBOURS))
async def test_what_the_step_does_not_need_is_denied(name: str, aws: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    executor, step = started(name, aws, monkeypatch)
    params = step.params.model_validate(CASES[name].params)
    grants = step.grants(params, await step.inspect(params))
    service, action, what = NEIGHBOURS[name]
    connection: Connection[BaseClient] = Connection(service, MODULES[name].Settings(), reads=("none:None",))
    async with connection.acting(name, grants) as client:
        with pytest.raises(ExecutorError, match=rf"answered {action} with AccessDenied"):
            await Api(service).write(getattr(client, xform_name(action)), **what)
    await connection.aclose()
    await executor.aclose()
    assert not aws.calls[-1].allowed
