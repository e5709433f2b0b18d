from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.stub import Stubber

from executors._aws import Connection
from executors.base import AnyOperation, Capacity, Change, Grant, Refused, Resource
from executors.elasticache import READS, FailoverCache, RebootCacheCluster
from tests.executors.conftest import InstantClock
from tests.executors.guarded import META, guarded, write_actions

GROUP = "arn:aws:elasticache:us-east-1:123456789012:replicationgroup:carts"
NODE = "arn:aws:elasticache:us-east-1:123456789012:cluster:carts-002"
AT = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
LATER = datetime(2024, 12, 20, 9, 16, tzinfo=UTC)
RESOURCES = {
    "cart": Resource(service="cart", replication_group="carts"),
    "web": Resource(service="web"),
}
CALLED = "Test Failover API called for node group 0001"
COMPLETED = "Failover from primary node carts-001 to replica node carts-002 completed"


@pytest.fixture
def aws() -> Iterator[tuple[Connection[Any], Stubber]]:
    with guarded("elasticache", READS) as pair:
        yield pair


@pytest.fixture
def stub(aws: tuple[Connection[Any], Stubber]) -> Stubber:
    return aws[1]


@pytest.fixture
def failover(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return FailoverCache(RESOURCES, InstantClock(), aws[0])


@pytest.fixture
def reboot(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return RebootCacheCluster(RESOURCES, InstantClock(), aws[0])


def group(stub: Stubber, primary: str = "carts-001", **more: Any) -> None:
    nodes = more.pop("nodes", ("carts-001", "carts-002", "carts-003"))
    roles = {} if more.get("ClusterEnabled") else {n: "primary" if n == primary else "replica" for n in nodes}
    members = [{"CacheClusterId": n, **({"CurrentRole": roles[n]} if roles else {})} for n in nodes]
    found = {
        "ReplicationGroupId": "carts",
        "ARN": GROUP,
        "Status": "available",
        "AutomaticFailover": "disabled",
        "NodeGroups": [{"NodeGroupId": "0001", "NodeGroupMembers": members}],
        **more,
    }
    stub.add_response("describe_replication_groups", {"ReplicationGroups": [found]}, {"ReplicationGroupId": "carts"})


def events(stub: Stubber, *texts: str, name: str = "carts", kind: str = "replication-group") -> None:
    found = [{"Message": "Snapshot succeeded", "Date": AT}, *({"Message": t, "Date": LATER} for t in texts)]
    asked = {"SourceIdentifier": name, "SourceType": kind, "Duration": 20160}
    stub.add_response("describe_events", {"Events": found}, asked)


# --- failover ---


async def test_a_replica_is_promoted(failover: AnyOperation, stub: Stubber) -> None:
    group(stub)
    group(stub)
    events(stub)
    stub.add_response(
        "modify_replication_group",
        {"ResponseMetadata": META},
        {"ReplicationGroupId": "carts", "PrimaryClusterId": "carts-002", "ApplyImmediately": True},
    )
    group(stub, Status="modifying", PendingModifiedValues={"PrimaryClusterId": "carts-002"})
    group(stub, "carts-002", Status="modifying")
    group(stub, "carts-002")
    group(stub, "carts-002")

    params = await failover.concrete(failover.params(service="cart"))
    assert params == failover.params(service="cart", replica="carts-002")
    before = await failover.inspect(params)
    assert failover.preview(params, before) == (
        "cart: primary of carts/0001 carts-001 -> carts-002, by promoting it: writes fail for a moment, and what was"
        " not replicated yet is lost; cannot be undone"
    )
    assert failover.changes(params, before)[0] == Change(
        what="primary of carts/0001", before="carts-001", after="carts-002"
    )
    assert failover.pinned(params, before) == {
        "primary": "carts-001", "nodes": ["carts-001", "carts-002", "carts-003"], "automatic failover": "disabled",
    }  # fmt: skip
    assert failover.grants(params, before) == (
        Grant(actions=("elasticache:ModifyReplicationGroup",), resources=(GROUP,)),
    )
    write_actions(failover, failover.grants(params, before))
    assert (await failover.execute(params, before)).request_ids == ("req-1",)
    await failover.settle(params, before)
    assert await failover.probe(params, before) == "done"


@pytest.mark.parametrize(
    ("state", "said", "asked"),
    [
        ({"AutomaticFailover": "enabled"}, "takes no promotion by hand.*say by_test_failover", {}),
        ({"AutomaticFailover": "enabled", "ClusterEnabled": True}, "takes no promotion by hand", {}),
        ({"Status": "snapshotting"}, "carts is snapshotting", {}),
        ({"nodes": ("carts-001",)}, "no replica to promote", {}),
        ({}, "carts-001 is no replica; those are carts-002, carts-003", {"replica": "carts-001"}),
        ({}, "has no shard 0007, only 0001", {"shard": "0007"}),
        ({}, "TestFailover needs automatic failover", {"by_test_failover": True}),
        ({"AutomaticFailover": "enabled"}, "name none", {"by_test_failover": True, "replica": "carts-002"}),
        ({"AutomaticFailover": "enabled", "nodes": ("carts-001",)}, "no replica", {"by_test_failover": True}),
    ],
)
async def test_a_failover_that_must_not_be_is_refused(
    failover: AnyOperation, stub: Stubber, state: dict[str, Any], said: str, asked: dict[str, Any]
) -> None:
    params = failover.params(service="cart", **asked)
    group(stub, **state)
    events(stub)
    before = await failover.inspect(params)
    with pytest.raises(Refused, match=said):
        failover.changes(params, before)
    with pytest.raises(Refused, match=said):
        await failover.execute(params, before)


@pytest.mark.parametrize(
    ("primary", "more", "answer"),
    [
        ("carts-001", {}, "not_done"),
        ("carts-002", {}, "done"),
        ("carts-001", {"Status": "modifying", "PendingModifiedValues": {"PrimaryClusterId": "carts-002"}}, "done"),
        ("carts-001", {"Status": "modifying"}, "unknown"),
        ("carts-003", {}, "unknown"),
    ],
)
async def test_a_promotion_is_probed_by_the_primary(
    failover: AnyOperation, stub: Stubber, primary: str, more: dict[str, Any], answer: str
) -> None:
    params = failover.params(service="cart", replica="carts-002")
    group(stub)
    events(stub)
    group(stub, primary, **more)
    assert await failover.probe(params, await failover.inspect(params)) == answer


async def test_the_test_api_is_called_when_it_is_asked_for(failover: AnyOperation, stub: Stubber) -> None:
    params = failover.params(service="cart", by_test_failover=True)
    cluster_mode: dict[str, Any] = {"AutomaticFailover": "enabled", "ClusterEnabled": True}
    group(stub, **cluster_mode)
    events(stub)
    stub.add_response(
        "test_failover", {"ResponseMetadata": META}, {"ReplicationGroupId": "carts", "NodeGroupId": "0001"}
    )
    group(stub, **cluster_mode, Status="modifying")
    events(stub, CALLED)
    group(stub, **cluster_mode)
    events(stub, CALLED, COMPLETED)

    before = await failover.inspect(params)
    assert "by TestFailover, which AWS may block" in failover.preview(params, before)
    assert failover.changes(params, before)[0].after == "the replica AWS chooses"
    quota, _ = await failover.preflight(params, before)
    assert (quota.name, quota.status) == ("quota", "warning")
    assert failover.grants(params, before) == (Grant(actions=("elasticache:TestFailover",), resources=(GROUP,)),)
    assert (await failover.execute(params, before)).request_ids == ("req-1",)
    await failover.settle(params, before)


@pytest.mark.parametrize(
    ("texts", "answer"),
    [((), "not_done"), ((CALLED,), "done"), ((COMPLETED,), "unknown"), (("Recovered",), "not_done")],
)
async def test_a_test_failover_is_probed_by_events(
    failover: AnyOperation, stub: Stubber, texts: tuple[str, ...], answer: str
) -> None:
    params = failover.params(service="cart", by_test_failover=True)
    group(stub, AutomaticFailover="enabled")
    events(stub)
    group(stub, AutomaticFailover="enabled")
    events(stub, *texts)
    assert await failover.probe(params, await failover.inspect(params)) == answer


# --- reboot ---


def node(stub: Stubber, status: str = "available") -> None:
    found = {"ARN": NODE, "CacheClusterStatus": status, "CacheNodes": [{"CacheNodeId": "0001"}]}
    stub.add_response(
        "describe_cache_clusters",
        {"CacheClusters": [found]},
        {"CacheClusterId": "carts-002", "ShowCacheNodeInfo": True},
    )


def node_events(stub: Stubber, *texts: str) -> None:
    events(stub, *texts, name="carts-002", kind="cache-cluster")


def seen(stub: Stubber, status: str = "available", **more: Any) -> None:
    group(stub, **more)
    node_events(stub)
    node(stub, status)


async def test_a_reboot_says_what_is_lost(reboot: AnyOperation, stub: Stubber) -> None:
    params = reboot.params(service="cart", node="carts-002")
    seen(stub)
    stub.add_response(
        "reboot_cache_cluster",
        {"ResponseMetadata": META},
        {"CacheClusterId": "carts-002", "CacheNodeIdsToReboot": ["0001"]},
    )
    node(stub)
    node_events(stub)
    node(stub, "rebooting cache cluster nodes")
    node(stub)

    before = await reboot.inspect(params)
    assert "reboot carts-002, a replica of carts: ALL ITS CONTENT IS LOST" in reboot.preview(params, before)
    assert reboot.changes(params, before)[0] == Change(what="content of carts-002", before="kept", after="lost")
    assert reboot.capacity(params, before) == Capacity(service="cart", servers_now=3, servers_then=2)
    assert reboot.grants(params, before) == (Grant(actions=("elasticache:RebootCacheCluster",), resources=(NODE,)),)
    write_actions(reboot, reboot.grants(params, before))
    assert (await reboot.execute(params, before)).request_ids == ("req-1",)
    assert (await reboot.settle(params, before))["status"] == "available"


async def test_the_primarys_reboot_empties_its_replicas_too(reboot: AnyOperation, stub: Stubber) -> None:
    params = reboot.params(service="cart", node="carts-002")
    seen(stub, primary="carts-002")
    before = await reboot.inspect(params)
    assert "its replicas copy the empty primary" in reboot.preview(params, before)
    assert reboot.pinned(params, before) == {"primary": True, "other nodes": 2}


@pytest.mark.parametrize(
    ("status", "more", "said"),
    [("snapshotting", {}, "carts-002 is snapshotting"), ("available", {"ClusterEnabled": True}, "in cluster mode")],
)
async def test_a_reboot_that_must_not_be_is_refused(
    reboot: AnyOperation, stub: Stubber, status: str, more: dict[str, Any], said: str
) -> None:
    params = reboot.params(service="cart", node="carts-002")
    seen(stub, status, **more)
    before = await reboot.inspect(params)
    with pytest.raises(Refused, match=said):
        await reboot.execute(params, before)


async def test_a_node_of_another_group_is_refused(reboot: AnyOperation, stub: Stubber) -> None:
    group(stub)
    with pytest.raises(Refused, match="sessions-001 is no node of carts: carts-001"):
        await reboot.inspect(reboot.params(service="cart", node="sessions-001"))


@pytest.mark.parametrize(
    ("status", "texts", "answer"),
    [
        ("available", (), "not_done"),
        ("available", ("Cache node 0001 restarted",), "done"),
        ("rebooting cache cluster nodes", None, "done"),
        ("modifying", (), "unknown"),
    ],
)
async def test_a_reboot_is_probed(
    reboot: AnyOperation, stub: Stubber, status: str, texts: tuple[str, ...] | None, answer: str
) -> None:
    params = reboot.params(service="cart", node="carts-002")
    seen(stub)
    node(stub, status)
    if texts is not None:
        node_events(stub, *texts)
    assert await reboot.probe(params, await reboot.inspect(params)) == answer


def test_the_group_is_the_key(failover: AnyOperation, reboot: AnyOperation) -> None:
    assert failover.resource(failover.params(service="cart")) == "elasticache:carts"
    assert reboot.resource(reboot.params(service="cart", node="carts-002")) == "elasticache:carts"
    with pytest.raises(Refused, match="web has no replication_group"):
        failover.resource(failover.params(service="web"))
