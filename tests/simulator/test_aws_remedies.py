"""RDS, ElastiCache, Application Auto Scaling, AppConfig and sessions of a role, by the real SDK."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from app.simulator.topology import SERVICES, service_arn

from .conftest import Served
from .test_aws import SESSION, client, code

Serve = Callable[[str, float], Served]
ROLE = "arn:aws:iam::123456789012:role/autopilot-executor"


def recorded(shop: Served) -> list[tuple[str, str]]:
    """Operation and request id of what was changed."""
    return [(r["operation"], r["request_id"]) for r in httpx.get(f"{shop.url}/_shop/requests").json()]


def as_session(
    shop: Served, service: str, statements: Sequence[Mapping[str, object]] | None, name: str = "a-step"
) -> Any:
    """A client of a service in a session of the role."""
    sts = client("sts", shop.url)
    asked: dict[str, Any] = {"RoleArn": ROLE, "RoleSessionName": name}
    if statements is not None:
        asked["Policy"] = json.dumps({"Version": "2012-10-17", "Statement": statements})
    keys = sts.assume_role(**asked)["Credentials"]
    return SESSION.client(
        service,
        endpoint_url=shop.url,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )


# --- RDS --------------------------------------------------------------------------------------------------------------


def test_a_cluster_fails_over_to_its_reader(serve: Serve) -> None:
    shop = serve("slow-database", 5)
    rds = client("rds", shop.url)

    def writer() -> str:
        cluster = rds.describe_db_clusters(DBClusterIdentifier="orders-db")["DBClusters"][0]
        return str(next(m["DBInstanceIdentifier"] for m in cluster["DBClusterMembers"] if m["IsClusterWriter"]))

    assert writer() == "orders-db-1"
    answer = rds.failover_db_cluster(DBClusterIdentifier="orders-db", TargetDBInstanceIdentifier="orders-db-2")
    assert answer["DBCluster"]["Status"] == "failing-over"
    assert recorded(shop) == [("FailoverDBCluster", answer["ResponseMetadata"]["RequestId"])]
    with pytest.raises(ClientError) as refused:
        rds.failover_db_cluster(DBClusterIdentifier="orders-db")
    assert code(refused) == "InvalidDBClusterStateFault"
    shop.advance(1)
    assert writer() == "orders-db-2"
    events = rds.describe_events(SourceIdentifier="orders-db", SourceType="db-cluster", Duration=60)["Events"]
    assert [event["Message"].split()[0] for event in events] == ["Started", "Completed"]
    assert {category for event in events for category in event["EventCategories"]} == {"failover"}
    shop.advance(10)
    assert shop.metric("payment-service", "error_rate_percent") < 2


def test_an_instance_reboots(serve: Serve) -> None:
    shop = serve("bad-deploy", 5)
    rds = client("rds", shop.url)
    before = rds.describe_db_instances(DBInstanceIdentifier="orders-db-1")["DBInstances"][0]
    assert (before["DBInstanceStatus"], before["DBClusterIdentifier"]) == ("available", "orders-db")
    assert rds.reboot_db_instance(DBInstanceIdentifier="orders-db-1")["DBInstance"]["DBInstanceStatus"] == "rebooting"
    shop.advance(0.5)
    assert shop.metric("payment-service", "error_rate_percent", ticks=1) > 50
    shop.advance(1)
    filters = [{"Name": "db-cluster-id", "Values": ["orders-db"]}]
    found = rds.describe_db_instances(Filters=filters)["DBInstances"]
    assert [instance["DBInstanceStatus"] for instance in found] == ["available", "available"]
    later = rds.describe_events(
        SourceIdentifier="orders-db-1", SourceType="db-instance", StartTime=shop.clock.now() - timedelta(minutes=5)
    )["Events"]
    assert [event["Message"] for event in later] == ["DB instance shutdown", "DB instance restarted"]
    assert rds.describe_pending_maintenance_actions()["PendingMaintenanceActions"] == []


def test_rds_refuses_as_aws_does(serve: Serve) -> None:
    rds = client("rds", serve("bad-deploy", 5).url)
    with pytest.raises(ClientError) as unknown:
        rds.describe_db_clusters(DBClusterIdentifier="other")
    assert code(unknown) == "DBClusterNotFoundFault"
    with pytest.raises(ClientError) as writes:
        rds.failover_db_cluster(DBClusterIdentifier="orders-db", TargetDBInstanceIdentifier="orders-db-1")
    assert code(writes) == "InvalidDBInstanceState"
    with pytest.raises(ClientError) as forced:
        rds.reboot_db_instance(DBInstanceIdentifier="orders-db-1", ForceFailover=True)
    assert code(forced) == "InvalidParameterCombination"


# --- ElastiCache ------------------------------------------------------------------------------------------------------


def test_a_replica_is_promoted(serve: Serve) -> None:
    shop = serve("cache-node-hung", 5)
    cache = client("elasticache", shop.url)

    def primary() -> str:
        group = cache.describe_replication_groups(ReplicationGroupId="shop-redis")["ReplicationGroups"][0]
        members = group["NodeGroups"][0]["NodeGroupMembers"]
        return str(next(m["CacheClusterId"] for m in members if m["CurrentRole"] == "primary"))

    assert primary() == "shop-redis-001"
    assert shop.metric("payment-service", "redis_connection_errors") > 30
    answer = cache.modify_replication_group(
        ReplicationGroupId="shop-redis", PrimaryClusterId="shop-redis-002", ApplyImmediately=True
    )
    assert answer["ReplicationGroup"]["Status"] == "modifying"
    shop.advance(1)
    assert primary() == "shop-redis-002"
    events = cache.describe_events(SourceIdentifier="shop-redis", SourceType="replication-group", Duration=60)["Events"]
    assert "shop-redis-001 to replica node shop-redis-002 completed" in events[0]["Message"]
    shop.advance(8)
    assert shop.metric("payment-service", "redis_connection_errors") < 2
    assert shop.metric("payment-service", "error_rate_percent") < 2


def test_a_node_reboots_and_what_is_hung_answers_again(serve: Serve) -> None:
    shop = serve("cache-node-hung", 5)
    cache = client("elasticache", shop.url)
    cache.reboot_cache_cluster(CacheClusterId="shop-redis-001", CacheNodeIdsToReboot=["0001"])
    node = cache.describe_cache_clusters(CacheClusterId="shop-redis-001", ShowCacheNodeInfo=True)["CacheClusters"][0]
    assert node["CacheClusterStatus"] == "rebooting cache cluster nodes"
    with pytest.raises(ClientError) as busy:
        cache.reboot_cache_cluster(CacheClusterId="shop-redis-001", CacheNodeIdsToReboot=["0001"])
    assert code(busy) == "InvalidCacheClusterState"
    shop.advance(6)
    assert shop.metric("payment-service", "redis_connection_errors") < 2


# --- Application Auto Scaling -----------------------------------------------------------------------------------------


def test_a_range_is_read_and_registered(serve: Serve) -> None:
    shop = serve("scale-in", 5)
    scaling = client("application-autoscaling", shop.url)
    where = {"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount"}
    targets = scaling.describe_scalable_targets(**where, ResourceIds=["service/shop/web-gateway"])["ScalableTargets"]
    assert [(t["MinCapacity"], t["MaxCapacity"]) for t in targets] == [(1, 1)]
    assert scaling.describe_scalable_targets(**where, ResourceIds=["service/shop/cart"])["ScalableTargets"] == []
    policies = scaling.describe_scaling_policies(ServiceNamespace="ecs", ResourceId="service/shop/web-gateway")
    assert policies["ScalingPolicies"][0]["PolicyType"] == "TargetTrackingScaling"
    scaling.register_scalable_target(**where, ResourceId="service/shop/web-gateway", MinCapacity=4, MaxCapacity=8)
    ecs = client("ecs", shop.url)
    assert ecs.describe_services(cluster="shop", services=["web-gateway"])["services"][0]["desiredCount"] == 4
    with pytest.raises(ClientError) as wrong:
        scaling.register_scalable_target(**where, ResourceId="service/shop/cart", MinCapacity=4, MaxCapacity=2)
    assert code(wrong) == "ValidationException"


# --- AppConfig --------------------------------------------------------------------------------------------------------


def test_a_deployment_of_flags_is_reverted_and_deployed_again(serve: Serve) -> None:
    shop = serve("feature-flag", 5)
    config = client("appconfig", shop.url)
    at = {"ApplicationId": "shp4p9q", "EnvironmentId": "prd7x2k"}
    listed = config.list_deployments(**at)["Items"]
    assert [(d["DeploymentNumber"], d["ConfigurationVersion"], d["State"]) for d in listed] == [
        (13, "7", "COMPLETE"),
        (12, "6", "COMPLETE"),
    ]
    assert config.stop_deployment(**at, DeploymentNumber=13, AllowRevert=True)["State"] == "REVERTED"
    shop.advance(1)
    assert shop.metric("catalogue", "error_rate_percent") < 1
    again = {
        **at,
        "ConfigurationProfileId": "ffl3m8d",
        "ConfigurationVersion": "7",
        "DeploymentStrategyId": "AppConfig.AllAtOnce",
    }
    with pytest.raises(ClientError) as stale:
        config.start_deployment(**again, LatestDeploymentNumber=12)
    assert code(stale) == "ConflictException"
    assert config.start_deployment(**again, LatestDeploymentNumber=13)["State"] == "DEPLOYING"
    assert config.get_environment(**at)["State"] == "DEPLOYING"
    shop.advance(1)
    assert config.get_deployment(**at, DeploymentNumber=14)["State"] == "COMPLETE"
    assert shop.metric("catalogue", "error_rate_percent", ticks=1) > 30
    assert [operation for operation, _ in recorded(shop)] == ["StopDeployment", "StartDeployment"]


def test_a_deployment_is_stopped_only_with_leave_to_revert(serve: Serve) -> None:
    config = client("appconfig", serve("feature-flag", 5).url)
    with pytest.raises(ClientError) as refused:
        config.stop_deployment(ApplicationId="shp4p9q", EnvironmentId="prd7x2k", DeploymentNumber=13)
    assert code(refused) == "BadRequestException"
    with pytest.raises(ClientError) as unknown:
        config.list_deployments(ApplicationId="other", EnvironmentId="prd7x2k")
    assert code(unknown) == "ResourceNotFoundException"


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_a_session_may_do_what_its_policy_allows_and_no_more(serve: Serve) -> None:
    shop = serve("bad-deploy", 5)
    allowed = {"Effect": "Allow", "Action": ["ecs:UpdateService"], "Resource": [service_arn("checkout")]}
    ecs = as_session(shop, "ecs", [allowed])
    ecs.update_service(cluster="shop", service="checkout", desiredCount=4)
    calls: tuple[Callable[[], object], ...] = (
        lambda: ecs.update_service(cluster="shop", service="cart", desiredCount=4),
        lambda: ecs.describe_services(cluster="shop", services=["checkout"]),
        lambda: as_session(shop, "rds", [allowed]).failover_db_cluster(DBClusterIdentifier="orders-db"),
    )
    for call in calls:
        with pytest.raises(ClientError) as denied:
            call()
        assert code(denied).startswith("AccessDenied")
        assert denied.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    assert [operation for operation, _ in recorded(shop)] == ["UpdateService"]
    assert shop.shop.cluster.services["cart"].desired == 2


def test_a_session_is_bound_to_one_rule_and_one_deployment(serve: Serve) -> None:
    shop = serve("feature-flag", 5)
    rule = SERVICES["cart"].rule_arn
    elb = as_session(
        shop,
        "elbv2",
        [
            {"Effect": "Allow", "Action": "elasticloadbalancing:ModifyRule", "Resource": rule},
            {"Effect": "Allow", "Action": "elasticloadbalancing:Describe*", "Resource": "*"},
        ],
    )
    actions = elb.describe_rules(RuleArns=[rule])["Rules"][0]["Actions"]
    elb.modify_rule(RuleArn=rule, Actions=actions)
    with pytest.raises(ClientError) as denied:
        elb.modify_rule(RuleArn=SERVICES["catalogue"].rule_arn, Actions=actions)
    assert code(denied) == "AccessDenied"
    prefix = "arn:aws:appconfig:us-east-1:*:application/shp4p9q"
    stop = [prefix, f"{prefix}/environment/prd7x2k", f"{prefix}/environment/prd7x2k/deployment/12"]
    config = as_session(
        shop, "appconfig", [{"Effect": "Allow", "Action": "appconfig:StopDeployment", "Resource": stop}]
    )
    with pytest.raises(ClientError) as other:
        config.stop_deployment(ApplicationId="shp4p9q", EnvironmentId="prd7x2k", DeploymentNumber=13, AllowRevert=True)
    assert code(other) == "AccessDeniedException"


def test_a_session_without_a_policy_may_do_what_the_role_may(serve: Serve) -> None:
    shop = serve("bad-deploy", 5)
    as_session(shop, "ecs", None).update_service(cluster="shop", service="checkout", desiredCount=4)
    told = httpx.get(f"{shop.url}/_shop/sessions").json()
    assert [(session["name"], session["statements"]) for session in told] == [("a-step", None)]


def test_sts_refuses_as_aws_does(serve: Serve) -> None:
    shop = serve("bad-deploy", 5)
    sts = client("sts", shop.url)
    with pytest.raises(ClientError) as foreign:
        sts.assume_role(RoleArn="arn:aws:iam::999999999999:role/other", RoleSessionName="a-step")
    assert code(foreign) == "AccessDenied"
    with pytest.raises(ClientError) as malformed:
        sts.assume_role(RoleArn=ROLE, RoleSessionName="a-step", Policy="{")
    assert code(malformed) == "MalformedPolicyDocument"
    stranger = SESSION.client("ecs", endpoint_url=shop.url, aws_access_key_id="ASIAUNKNOWN", aws_secret_access_key="x")
    with pytest.raises(ClientError) as unknown:
        stranger.describe_services(cluster="shop", services=["cart"])
    assert code(unknown) == "InvalidClientTokenId"
    expires = sts.assume_role(RoleArn=ROLE, RoleSessionName="a-step", DurationSeconds=900)["Credentials"]["Expiration"]
    assert timedelta(minutes=13) < expires - datetime.now(UTC) <= timedelta(minutes=15)


def test_a_role_is_simulated_by_resource(serve: Serve) -> None:
    iam = client("iam", serve("bad-deploy", 5).url)
    answer = iam.simulate_principal_policy(
        PolicySourceArn=ROLE,
        ActionNames=["rds:FailoverDBCluster", "rds:DeleteDBCluster", "appconfig:StopDeployment"],
        ResourceArns=["arn:aws:rds:us-east-1:123456789012:cluster:orders-db"],
    )
    decided = {result["EvalActionName"]: result["EvalDecision"] for result in answer["EvaluationResults"]}
    assert decided == {
        "rds:FailoverDBCluster": "allowed",
        "rds:DeleteDBCluster": "implicitDeny",
        "appconfig:StopDeployment": "allowed",
    }


# --- the back door ----------------------------------------------------------------------------------------------------


def test_the_truth_is_told_over_any_while(serve: Serve) -> None:
    shop = serve("stuck-task", 6)
    truth = httpx.get(f"{shop.url}/_shop/truth").json()
    assert not truth["well"]
    served = truth["services"]["catalogue"]
    assert served["failed_ratio"] == pytest.approx(1 / 3, rel=0.05)
    assert not served["well"]
    onset = shop.shop.scenario.occurred_at
    assert datetime.fromisoformat(served["since"]) == onset
    earlier = {"start": (onset - timedelta(minutes=5)).isoformat(), "end": onset.isoformat()}
    assert httpx.get(f"{shop.url}/_shop/truth", params=earlier).json()["well"]


def test_calls_of_every_kind_fail_on_demand(serve: Serve) -> None:
    shop = serve("feature-flag", 5)
    for operation, status in (("FailoverDBCluster", 503), ("StopDeployment", 500)):
        httpx.post(f"{shop.url}/_shop/fail", json={"operation": operation, "status": status}).raise_for_status()
    with pytest.raises(ClientError) as rds:
        client("rds", shop.url).failover_db_cluster(DBClusterIdentifier="orders-db")
    assert rds.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    with pytest.raises(ClientError) as config:
        client("appconfig", shop.url).stop_deployment(
            ApplicationId="shp4p9q", EnvironmentId="prd7x2k", DeploymentNumber=13, AllowRevert=True
        )
    assert config.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert recorded(shop) == []
