"""AWS's protocols, by the real SDK."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError

from app.simulator.scenarios import SCENARIOS
from app.simulator.topology import OVERFLOW_TARGET_GROUP_ARN, SERVICES

from .conftest import Served

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client

SESSION = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1")
PAYMENT = SERVICES["payment-service"]
ONSET = SCENARIOS["black-friday"].occurred_at


@pytest.fixture
def shop(serve: Callable[[str, float], Served]) -> Served:
    return serve("black-friday", 5)


def client(name: str, url: str, read_timeout: float = 10) -> Any:
    return SESSION.client(
        name,
        endpoint_url=url,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=3, read_timeout=read_timeout),
    )


@pytest.fixture
def ecs(shop: Served) -> "ECSClient":
    found: ECSClient = client("ecs", shop.url)
    return found


@pytest.fixture
def elb(shop: Served) -> "ElasticLoadBalancingv2Client":
    found: ElasticLoadBalancingv2Client = client("elbv2", f"{shop.url}/aws")
    return found


@pytest.fixture
def cloudwatch(shop: Served) -> "CloudWatchClient":
    found: CloudWatchClient = client("cloudwatch", shop.url)
    return found


def described(ecs: "ECSClient", service: str = "payment-service") -> Any:
    return ecs.describe_services(cluster="shop", services=[service])["services"][0]


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    return str(error.value.response["Error"]["Code"])


# --- ECS --------------------------------------------------------------------------------------------------------------


def test_services_are_described_and_missing_ones_are_failures(ecs: "ECSClient") -> None:
    answer = ecs.describe_services(cluster="shop", services=["payment-service", "nobody"])
    service = answer["services"][0]
    assert (service["desiredCount"], service["runningCount"], service["pendingCount"]) == (3, 3, 0)
    assert service["taskDefinition"].endswith(":task-definition/payment-service:42")
    assert [(d["status"], d["rolloutState"]) for d in service["deployments"]] == [("PRIMARY", "COMPLETED")]
    assert service["events"]
    assert [failure["reason"] for failure in answer["failures"]] == ["MISSING"]
    assert answer["ResponseMetadata"]["RequestId"]


def test_a_forced_deployment_replaces_tasks_one_by_one(shop: Served, ecs: "ECSClient") -> None:
    before = set(ecs.list_tasks(cluster="shop", serviceName="payment-service")["taskArns"])
    ecs.update_service(cluster="shop", service="payment-service", forceNewDeployment=True)
    rollout = described(ecs)["deployments"]
    assert [(d["status"], d["rolloutState"]) for d in rollout] == [("PRIMARY", "IN_PROGRESS"), ("ACTIVE", "COMPLETED")]
    lowest = 3
    for _ in range(9):
        shop.advance(1 / 6)
        lowest = min(lowest, described(ecs)["runningCount"])
    assert lowest == 2  # its database has no room for a fourth task's connections
    assert described(ecs)["deployments"][0]["rolloutState"] == "IN_PROGRESS"
    shop.advance(1)
    after = described(ecs)
    assert [(d["status"], d["rolloutState"]) for d in after["deployments"]] == [("PRIMARY", "COMPLETED")]
    tasks = ecs.list_tasks(cluster="shop", serviceName="payment-service")["taskArns"]
    assert len(tasks) == 3
    assert not before & set(tasks)
    stopped = ecs.list_tasks(cluster="shop", serviceName="payment-service", desiredStatus="STOPPED")["taskArns"]
    gone = ecs.describe_tasks(cluster="shop", tasks=stopped)["tasks"]
    assert before == {task["taskArn"] for task in gone}
    assert all(task["stoppedReason"].startswith("Scaling activity") for task in gone)
    assert "steady state" in after["events"][0]["message"]


def test_scaling_starts_no_deployment_and_takes_its_time(shop: Served, ecs: "ECSClient") -> None:
    before = described(ecs)["deployments"][0]["id"]
    ecs.update_service(cluster="shop", service="payment-service", desiredCount=5)
    assert (described(ecs)["runningCount"], described(ecs)["pendingCount"]) == (3, 2)
    shop.advance(1)
    after = described(ecs)
    assert (after["runningCount"], after["desiredCount"]) == (5, 5)
    assert [d["id"] for d in after["deployments"]] == [before]
    ecs.update_service(cluster="shop", service="payment-service", desiredCount=3)
    assert described(ecs)["runningCount"] == 3


def test_the_previous_task_definition_can_be_found_and_rolled_back_to(
    serve: Callable[[str, float], Served],
) -> None:
    shop = serve("bad-deploy", 6)
    ecs: ECSClient = client("ecs", shop.url)
    present = described(ecs, "checkout")["taskDefinition"]
    listed = ecs.list_service_deployments(cluster="shop", service="checkout", status=["SUCCESSFUL"])
    arns = [d["serviceDeploymentArn"] for d in listed["serviceDeployments"]]
    details = ecs.describe_service_deployments(serviceDeploymentArns=arns)["serviceDeployments"]
    revisions = ecs.describe_service_revisions(
        serviceRevisionArns=[d["targetServiceRevision"]["arn"] for d in details]
    )["serviceRevisions"]
    definitions = [r["taskDefinition"] for r in revisions]
    assert definitions[0] == present
    previous = definitions[1]
    told = ecs.describe_task_definition(taskDefinition=previous)["taskDefinition"]
    assert (told["status"], told["containerDefinitions"][0]["image"].rsplit(":", 1)[1]) == ("ACTIVE", "v2.3.9")
    assert details[0]["sourceServiceRevisions"][0]["arn"] == details[1]["targetServiceRevision"]["arn"]
    ecs.update_service(cluster="shop", service="checkout", taskDefinition=previous)
    shop.advance(2)
    assert described(ecs, "checkout")["taskDefinition"] == previous
    newest = ecs.list_service_deployments(cluster="shop", service="checkout")["serviceDeployments"][0]
    assert newest["status"] == "SUCCESSFUL"


def test_a_deployment_in_flight_can_be_stopped(shop: Served, ecs: "ECSClient") -> None:
    ecs.update_service(cluster="shop", service="catalogue", taskDefinition="catalogue:203")
    arn = ecs.list_service_deployments(cluster="shop", service="catalogue")["serviceDeployments"][0]
    ecs.stop_service_deployment(serviceDeploymentArn=arn["serviceDeploymentArn"], stopType="ROLLBACK")
    shop.advance(2)
    after = ecs.list_service_deployments(cluster="shop", service="catalogue")["serviceDeployments"][0]
    assert (after["serviceDeploymentArn"], after["status"]) == (arn["serviceDeploymentArn"], "ROLLBACK_SUCCESSFUL")
    assert described(ecs, "catalogue")["taskDefinition"].endswith("catalogue:205")
    with pytest.raises(ClientError) as error:
        ecs.stop_service_deployment(serviceDeploymentArn=arn["serviceDeploymentArn"])
    assert code(error) == "ConflictException"


def test_a_stopped_task_is_replaced(shop: Served, ecs: "ECSClient") -> None:
    task = ecs.list_tasks(cluster="shop", serviceName="cart")["taskArns"][0]
    assert ecs.stop_task(cluster="shop", task=task, reason="wedged")["task"]["stoppedReason"] == "wedged"
    shop.advance(1)
    tasks = ecs.list_tasks(cluster="shop", serviceName="cart")["taskArns"]
    assert task not in tasks
    assert described(ecs, "cart")["runningCount"] == described(ecs, "cart")["desiredCount"] == len(tasks)


def test_ecs_refuses_as_aws_does(ecs: "ECSClient") -> None:
    with pytest.raises(ClientError) as error:
        ecs.describe_services(cluster="other", services=["cart"])
    assert code(error) == "ClusterNotFoundException"
    with pytest.raises(ClientError) as error:
        ecs.update_service(cluster="shop", service="nobody", desiredCount=1)
    assert code(error) == "ServiceNotFoundException"
    assert isinstance(error.value, ecs.exceptions.ServiceNotFoundException)
    with pytest.raises(ClientError) as error:
        ecs.update_service(cluster="shop", service="cart", taskDefinition="cart:1")
    assert code(error) == "ClientException"
    with pytest.raises(ClientError) as error:
        ecs.update_service(cluster="shop", service="cart", desiredCount=-1)
    assert code(error) == "InvalidParameterException"
    with pytest.raises(ClientError) as error:
        ecs.describe_services(cluster="shop", services=[f"s{n}" for n in range(11)])
    assert code(error) == "InvalidParameterException"
    with pytest.raises(ClientError) as error:
        ecs.list_clusters()
    assert code(error) == "UnknownOperationException"


# --- load balancer ----------------------------------------------------------------------------------------------------


def weights(elb: "ElasticLoadBalancingv2Client") -> dict[str, int]:
    rule = elb.describe_rules(RuleArns=[PAYMENT.rule_arn])["Rules"][0]
    groups = rule["Actions"][0]["ForwardConfig"]["TargetGroups"]
    return {group["TargetGroupArn"]: group["Weight"] for group in groups}


def test_weights_are_read_and_written(shop: Served, elb: "ElasticLoadBalancingv2Client") -> None:
    assert weights(elb) == {PAYMENT.target_group_arn: 1}
    wanted = {PAYMENT.target_group_arn: 40, OVERFLOW_TARGET_GROUP_ARN: 60}
    answer = elb.modify_rule(
        RuleArn=PAYMENT.rule_arn,
        Actions=[
            {
                "Type": "forward",
                "ForwardConfig": {
                    "TargetGroups": [{"TargetGroupArn": a, "Weight": w} for a, w in wanted.items()],
                    "TargetGroupStickinessConfig": {"Enabled": True, "DurationSeconds": 60},
                },
            }
        ],
    )
    assert answer["ResponseMetadata"]["RequestId"]
    assert weights(elb) == wanted
    rule = elb.describe_rules(RuleArns=[PAYMENT.rule_arn])["Rules"][0]
    assert rule["Actions"][0]["ForwardConfig"]["TargetGroupStickinessConfig"] == {
        "Enabled": True,
        "DurationSeconds": 60,
    }
    assert rule["Conditions"][0]["PathPatternConfig"]["Values"] == ["/payments/*"]
    shop.advance(1)
    assert shop.metric("payment-service", "requests_per_second") < 3
    elb.modify_rule(RuleArn=PAYMENT.rule_arn, Actions=[{"Type": "forward", "TargetGroupArn": PAYMENT.target_group_arn}])
    assert weights(elb) == {PAYMENT.target_group_arn: 1}


def test_one_target_is_unhealthy_while_ecs_counts_three(ecs: "ECSClient", elb: "ElasticLoadBalancingv2Client") -> None:
    targets = elb.describe_target_health(TargetGroupArn=PAYMENT.target_group_arn)["TargetHealthDescriptions"]
    states = sorted(target["TargetHealth"]["State"] for target in targets)
    assert states == ["healthy", "healthy", "unhealthy"]
    assert described(ecs)["runningCount"] == 3
    groups = elb.describe_target_groups(TargetGroupArns=[PAYMENT.target_group_arn])["TargetGroups"]
    assert [group["TargetGroupName"] for group in groups] == ["payment-service"]
    assert len(elb.describe_target_groups()["TargetGroups"]) == 6


def test_the_load_balancer_refuses_as_aws_does(elb: "ElasticLoadBalancingv2Client") -> None:
    with pytest.raises(ClientError) as error:
        elb.describe_rules(RuleArns=["arn:aws:elasticloadbalancing:us-east-1:1:listener-rule/x"])
    assert code(error) == "RuleNotFound"
    with pytest.raises(ClientError) as error:
        elb.modify_rule(RuleArn=PAYMENT.rule_arn, Actions=[{"Type": "forward", "TargetGroupArn": "arn:nothing"}])
    assert code(error) == "TargetGroupNotFound"
    with pytest.raises(ClientError) as error:
        elb.describe_target_health(TargetGroupArn="arn:nothing")
    assert code(error) == "TargetGroupNotFound"
    assert weights(elb) == {PAYMENT.target_group_arn: 1}


# --- CloudWatch -------------------------------------------------------------------------------------------------------


def query(name: str, namespace: str, metric: str, stat: str, **dimensions: str) -> Any:
    named = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    metric_of = {"Namespace": namespace, "MetricName": metric, "Dimensions": named}
    return {"Id": name, "MetricStat": {"Metric": metric_of, "Period": 60, "Stat": stat}}


def test_metrics_of_services_and_target_groups(cloudwatch: "CloudWatchClient") -> None:
    group = {"TargetGroup": PAYMENT.target_group, "LoadBalancer": "app/shop/50dc6c495c0c9188"}
    answer = cloudwatch.get_metric_data(
        MetricDataQueries=[
            query("cpu", "AWS/ECS", "CPUUtilization", "Average", ClusterName="shop", ServiceName="payment-service"),
            query("requests", "AWS/ApplicationELB", "RequestCount", "Sum", **group),
            query("failed", "AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "Sum", **group),
            query("slow", "AWS/ApplicationELB", "TargetResponseTime", "p95", **group),
            query("healthy", "AWS/ApplicationELB", "HealthyHostCount", "Minimum", **group),
            query("nothing", "AWS/ECS", "CPUUtilization", "Average", ServiceName="nobody"),
        ],
        StartTime=ONSET - timedelta(minutes=10),
        EndTime=ONSET + timedelta(minutes=5),
        ScanBy="TimestampAscending",
    )
    results = {result["Id"]: result["Values"] for result in answer["MetricDataResults"]}
    assert len(results["cpu"]) == 15
    assert results["nothing"] == []
    assert results["requests"][0] == pytest.approx(60, rel=0.05)
    assert results["requests"][-1] > 250
    assert results["failed"][0] < 1 < 150 < results["failed"][-1]
    assert results["slow"][0] == pytest.approx(2.7, rel=0.1)
    assert results["slow"][-1] > 25
    assert (results["healthy"][0], results["healthy"][-1]) == (3, 2)
    first = answer["MetricDataResults"][0]
    assert first["Timestamps"][0] == ONSET - timedelta(minutes=10)
    assert first["StatusCode"] == "Complete"


def test_metric_pages_join_up(cloudwatch: "CloudWatchClient") -> None:
    wanted = query("cpu", "AWS/ECS", "CPUUtilization", "Average", ClusterName="shop", ServiceName="cart")
    window: Any = {"StartTime": ONSET - timedelta(minutes=10), "EndTime": ONSET, "MetricDataQueries": [wanted]}
    whole = cloudwatch.get_metric_data(**window)["MetricDataResults"][0]["Values"]
    wanted_pages: Any = {**window, "MaxDatapoints": 4}
    pages = cloudwatch.get_paginator("get_metric_data").paginate(**wanted_pages)
    parts = [page["MetricDataResults"][0] for page in pages]
    assert [part["StatusCode"] for part in parts] == ["PartialData", "PartialData", "Complete"]
    assert [value for part in parts for value in part["Values"]] == whole


def test_alarms_and_the_list_of_metrics(cloudwatch: "CloudWatchClient") -> None:
    alarms = {a["AlarmName"]: a["StateValue"] for a in cloudwatch.describe_alarms()["MetricAlarms"]}
    assert alarms["payment-service-unhealthy-hosts"] == "ALARM"
    assert alarms["checkout-unhealthy-hosts"] == "OK"
    listed = cloudwatch.list_metrics(Namespace="AWS/ECS", Dimensions=[{"Name": "ServiceName", "Value": "cart"}])
    assert {m["MetricName"] for m in listed["Metrics"]} == {"CPUUtilization", "MemoryUtilization"}
    with pytest.raises(ClientError) as error:
        cloudwatch.get_metric_data(MetricDataQueries=[], StartTime=ONSET, EndTime=ONSET)
    assert code(error) == "ValidationError"


def test_alarms_follow_their_metrics(serve: Callable[[str, float], Served]) -> None:
    shop = serve("black-friday", -1)
    cloudwatch: CloudWatchClient = client("cloudwatch", shop.url)

    def alarm() -> Any:
        (found,) = cloudwatch.describe_alarms(AlarmNames=["payment-service-5xx"])["MetricAlarms"]
        return found

    assert alarm()["StateValue"] == "OK"
    shop.advance(3)
    alarming = alarm()
    assert alarming["StateValue"] == "ALARM"
    assert timedelta(0) < alarming["StateTransitionedTimestamp"] - ONSET < timedelta(minutes=2)
    assert alarming["Dimensions"][1] == {"Name": "TargetGroup", "Value": PAYMENT.target_group}
    shop.advance(20)
    assert alarm()["StateTransitionedTimestamp"] == alarming["StateTransitionedTimestamp"]
    others = cloudwatch.describe_alarms(StateValue="ALARM")["MetricAlarms"]
    assert {a["AlarmName"] for a in others} == {"payment-service-5xx", "payment-service-unhealthy-hosts"}


# --- back door --------------------------------------------------------------------------------------------------------


def test_mutating_requests_are_recorded(shop: Served, ecs: "ECSClient") -> None:
    described(ecs)
    answer = ecs.update_service(cluster="shop", service="cart", forceNewDeployment=True)
    recorded = httpx.get(f"{shop.url}/_shop/requests").json()
    assert [(r["operation"], r["params"]["service"]) for r in recorded] == [("UpdateService", "cart")]
    assert recorded[0]["request_id"] == answer["ResponseMetadata"]["RequestId"]
    assert recorded[0]["at"].startswith("2024-12-20T09:20:00")


@pytest.mark.parametrize(("when", "made"), [("before", 0), ("after", 1)])
def test_a_caller_that_gives_up_while_held(shop: Served, ecs: "ECSClient", when: str, made: int) -> None:
    hold = {"operation": "UpdateService", "when": when, "seconds": 1.0}
    assert httpx.post(f"{shop.url}/_shop/hold", json=hold).status_code == 204
    impatient: ECSClient = client("ecs", shop.url, read_timeout=0.3)
    with pytest.raises(ReadTimeoutError):
        impatient.update_service(cluster="shop", service="cart", forceNewDeployment=True)
    time.sleep(1.2)
    assert len(httpx.get(f"{shop.url}/_shop/requests").json()) == made
    assert described(ecs, "cart")["deployments"][0]["rolloutState"] == ["COMPLETED", "IN_PROGRESS"][made]


def test_a_held_call_holds_up_nobody_else(shop: Served, ecs: "ECSClient") -> None:
    hold = {"operation": "UpdateService", "when": "before", "seconds": 0.6}
    httpx.post(f"{shop.url}/_shop/hold", json=hold)
    held = threading.Thread(
        target=ecs.update_service, kwargs={"cluster": "shop", "service": "cart", "forceNewDeployment": True}
    )
    held.start()
    assert described(client("ecs", shop.url), "cart")["deployments"][0]["rolloutState"] == "COMPLETED"
    held.join(timeout=5)
    assert described(ecs, "cart")["deployments"][0]["rolloutState"] == "IN_PROGRESS"


def test_calls_fail_on_demand_without_effect(shop: Served, ecs: "ECSClient") -> None:
    fail = {"operation": "UpdateService", "status": 400, "times": 2}
    httpx.post(f"{shop.url}/_shop/fail", json=fail)
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            ecs.update_service(cluster="shop", service="cart", desiredCount=1)
        assert code(error) == "ThrottlingException"
    assert httpx.get(f"{shop.url}/_shop/requests").json() == []
    ecs.update_service(cluster="shop", service="cart", desiredCount=4)
    assert described(ecs, "cart")["desiredCount"] == 4


def test_datadog_paths_fail_and_hold_too(shop: Served, datadog: Callable[[str], httpx.Client]) -> None:
    reader = datadog(shop.url)
    httpx.post(f"{shop.url}/_shop/fail", json={"path": "/api/v2/logs", "status": 429, "times": 1})
    answer = reader.post("/api/v2/logs/events/search", json={})
    assert (answer.status_code, answer.headers["X-RateLimit-Remaining"]) == (429, "0")
    assert reader.post("/api/v2/logs/events/search", json={}).status_code == 200
    httpx.post(f"{shop.url}/_shop/hold", json={"path": "/api/v1/validate", "when": "after", "seconds": 1})
    with pytest.raises(httpx.ReadTimeout):
        reader.get("/api/v1/validate", timeout=0.2)
    assert httpx.post(f"{shop.url}/_shop/hold", json={"seconds": 1}).status_code == 400
