"""The AWS collector and both doctors on the shop; what the shop answers for what only they ask."""

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.exceptions import ClientError
from pydantic import BaseModel

from app.simulator.scenarios import SCENARIOS
from app.simulator.topology import SERVICES
from collectors.aws import AwsCollector, Settings, clients_of
from collectors.base import EcsService, Scope, Target, Window
from executors._aws import Connection, checks
from executors._scalable_target import connect_autoscaler
from executors.base import Operation
from executors.ecs import READS, EcsExecutor
from executors.ecs import Settings as EcsSettings

from .conftest import HandClock, Served, served

if TYPE_CHECKING:
    from mypy_boto3_cloudtrail import CloudTrailClient

SESSION = boto3.Session("a", "b", region_name="us-east-1")
ONSET = SCENARIOS["black-friday"].occurred_at
SCOPE = Scope(
    service="payment-service",
    occurred_at=ONSET,
    incident=Window(start=ONSET, end=ONSET + timedelta(minutes=5)),
    baseline=(Window(start=ONSET - timedelta(minutes=30), end=ONSET),),
    targets=tuple(
        Target(
            service=name,
            hops=0 if name == "payment-service" else 1,
            ecs=EcsService(cluster="shop", service=name),
            load_balancer="app/shop/50dc6c495c0c9188" if SERVICES[name].front else None,
            target_group=SERVICES[name].target_group if SERVICES[name].front else None,
        )
        for name in ("payment-service", "catalogue", "cart", "notification")
    ),
)


@pytest.fixture
def shop() -> Iterator[Served]:
    with served("black-friday", 6) as running:
        yield running


@pytest.fixture
def collector(shop: Served) -> AwsCollector:
    return AwsCollector(shop.clock, clients_of(SESSION, shop.url), Settings())


@pytest.fixture
def trail(shop: Served) -> "CloudTrailClient":
    found: CloudTrailClient = SESSION.client("cloudtrail", endpoint_url=shop.url)
    return found


async def test_nothing_is_missing_and_each_deployment_is_told_once_with_its_author(collector: AwsCollector) -> None:
    found = await collector.collect(SCOPE)
    assert found.gaps == ()
    assert sorted((one.component, one.kind, one.version, one.author) for one in found.changes) == [
        ("cart", "scaling", "", "application-autoscaling"),
        ("catalogue", "deploy", "catalogue:205", "ci/github-actions"),
    ]
    assert {"CPUUtilization", "TargetResponseTime"} <= {one.ref.metric for one in found.series}


async def test_the_doctor_of_the_collector_finds_nothing(collector: AwsCollector) -> None:
    found = await collector.check()
    assert [check for check in found if check.status != "ok"] == []
    assert found[0].detail.startswith("arn:aws:iam::123456789012:user/autopilot in us-east-1")


class _Clock(HandClock):
    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


async def test_the_doctor_of_an_executor_is_told_what_the_shop_can_do(shop: Served) -> None:
    settings = EcsSettings(endpoint_url=shop.url, region="us-east-1")
    ecs = EcsExecutor({}, _Clock(ONSET), Connection("ecs", settings, reads=READS), connect_autoscaler(settings))
    found = {check.name: check.status for check in await checks(settings, ecs.operations)}
    assert found["ecs:UpdateService"] == "ok"
    assert set(found.values()) == {"ok"}
    iam = SESSION.client("iam", endpoint_url=f"{shop.url}/aws")
    me = "arn:aws:iam::123456789012:user/autopilot"
    answer = iam.simulate_principal_policy(PolicySourceArn=me, ActionNames=["ecs:DeleteCluster", "ecs:StopTask"])
    assert [one["EvalDecision"] for one in answer["EvaluationResults"]] == ["implicitDeny", "allowed"]
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.simulate_principal_policy(PolicySourceArn=f"{me}-else", ActionNames=["ecs:StopTask"])


def test_what_an_executor_may_not_do_is_named_and_what_cannot_be_told_is_not_guessed(shop: Served) -> None:
    settings = EcsSettings(endpoint_url=shop.url, region="us-east-1")

    class DeletesClusters(Operation[BaseModel]):
        name, summary, risk = "delete_cluster", "", "high"
        permissions = ("ecs:DeleteCluster", "ecs:UpdateService")

    found = {check.name: check for check in asyncio.run(checks(settings, [DeletesClusters()]))}
    assert found["ecs:UpdateService"].status == "ok"
    assert found["ecs:DeleteCluster"].status == "failed"
    assert "ecs:DeleteCluster" in found["ecs:DeleteCluster"].mend
    refusal = {"operation": "SimulatePrincipalPolicy", "status": 403, "code": "AccessDenied"}
    httpx.post(f"{shop.url}/_shop/fail", json=refusal).raise_for_status()
    found = {check.name: check for check in asyncio.run(checks(settings, [DeletesClusters()]))}
    assert [found[name].status for name in ("credentials", *DeletesClusters.permissions)] == [
        "ok",
        "skipped",
        "skipped",
    ]
    assert "iam:SimulatePrincipalPolicy" in found["ecs:UpdateService"].mend
    httpx.post(f"{shop.url}/_shop/fail", json=refusal | {"operation": "GetCallerIdentity"}).raise_for_status()
    found = {check.name: check for check in asyncio.run(checks(settings, [DeletesClusters()]))}
    assert found["credentials"].status == "failed"


def test_calls_are_told_with_who_made_them_and_what_was_asked(shop: Served, trail: "CloudTrailClient") -> None:
    ecs, elb = SESSION.client("ecs", endpoint_url=shop.url), SESSION.client("elbv2", endpoint_url=shop.url)
    ecs.update_service(cluster="shop", service="payment-service", desiredCount=4)
    shop.advance(1)
    with pytest.raises(ClientError):
        ecs.update_service(cluster="shop", service="nobody", forceNewDeployment=True)
    rule, group = SERVICES["cart"].rule_arn, SERVICES["cart"].target_group_arn
    shop.advance(1)
    elb.modify_rule(RuleArn=rule, Actions=[{"Type": "forward", "TargetGroupArn": group}])
    told = trail.lookup_events()["Events"]
    assert [(event["EventName"], event["Username"]) for event in told] == [
        ("ModifyRule", "autopilot"),
        ("UpdateService", "autopilot"),
        ("UpdateService", "autopilot"),
        ("UpdateService", "ci/github-actions"),
        ("UpdateService", "application-autoscaling"),
    ]
    modified, refused, scaled, deployed, _ = (json.loads(event["CloudTrailEvent"]) for event in told)
    assert modified["requestParameters"] == {
        "ruleArn": rule,
        "actions": [
            {"type": "forward", "forwardConfig": {"targetGroups": [{"targetGroupArn": group, "weight": 1}]}},
        ],
    }
    assert refused["errorCode"] == "ServiceNotFoundException"
    assert scaled["requestParameters"] == {"cluster": "shop", "service": "payment-service", "desiredCount": 4}
    assert deployed["requestParameters"]["taskDefinition"].endswith("task-definition/catalogue:205")
    assert deployed["userIdentity"]["type"] == "AssumedRole"
    assert told[0]["EventTime"] == shop.clock.now()


def test_calls_are_looked_up_by_one_attribute_and_page_by_page(shop: Served, trail: "CloudTrailClient") -> None:
    by_name: Any = {"LookupAttributes": [{"AttributeKey": "EventName", "AttributeValue": "UpdateService"}]}
    first = trail.lookup_events(MaxResults=1, **by_name)
    second = trail.lookup_events(MaxResults=1, NextToken=first["NextToken"], **by_name)
    assert [page["Events"][0]["Username"] for page in (first, second)] == [
        "ci/github-actions",
        "application-autoscaling",
    ]
    assert "NextToken" not in second
    assert trail.lookup_events(StartTime=ONSET)["Events"] == []
    with pytest.raises(ClientError, match="InvalidParameter"):
        trail.lookup_events(LookupAttributes=by_name["LookupAttributes"] * 2)


def test_services_that_the_shop_does_not_use_know_of_nothing(shop: Served) -> None:
    now = shop.clock.now()
    xray = SESSION.client("xray", endpoint_url=f"{shop.url}/aws")
    assert xray.get_service_graph(StartTime=ONSET, EndTime=now)["Services"] == []
    assert xray.get_trace_summaries(StartTime=ONSET, EndTime=now)["TraceSummaries"] == []
    assert xray.batch_get_traces(TraceIds=["1-00000000-000000000000000000000000"])["Traces"] == []
    logs = SESSION.client("logs", endpoint_url=shop.url)
    with pytest.raises(logs.exceptions.ResourceNotFoundException):
        logs.filter_log_events(logGroupName="/ecs/payment-service")
