from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.stub import Stubber

from executors._aws import Connection
from executors.base import AnyOperation, Capacity, Change, ExecutorError, Grant, Refused, Resource
from executors.rds import READS, FailoverDbCluster, RebootDbInstance
from tests.executors.conftest import InstantClock
from tests.executors.guarded import META, guarded, write_actions

DB = "arn:aws:rds:us-east-1:123456789012:db:orders"
CLUSTER = "arn:aws:rds:us-east-1:123456789012:cluster:shop"
AT = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
LATER = datetime(2024, 12, 20, 9, 16, tzinfo=UTC)
RESOURCES = {
    "orders": Resource(service="orders", db_instance="orders"),
    "shop": Resource(service="shop", db_cluster="shop"),
    "web": Resource(service="web"),
}


@pytest.fixture
def aws() -> Iterator[tuple[Connection[Any], Stubber]]:
    with guarded("rds", READS) as pair:
        yield pair


@pytest.fixture
def stub(aws: tuple[Connection[Any], Stubber]) -> Stubber:
    return aws[1]


@pytest.fixture
def reboot(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return RebootDbInstance(RESOURCES, InstantClock(), aws[0])


@pytest.fixture
def failover(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return FailoverDbCluster(RESOURCES, InstantClock(), aws[0])


def event(category: str, at: datetime = LATER) -> dict[str, object]:
    return {"Message": "…", "Date": at, "EventCategories": [category]}


def events(stub: Stubber, name: str, kind: str, *found: dict[str, object]) -> None:
    asked = {"SourceIdentifier": name, "SourceType": kind, "Duration": 20160}
    stub.add_response("describe_events", {"Events": [event("backup", AT), *found]}, asked)


def instance(stub: Stubber, status: str = "available", **more: object) -> None:
    found = {
        "DBInstanceIdentifier": "orders",
        "DBInstanceArn": DB,
        "DBInstanceStatus": status,
        "Engine": "postgres",
        "DBInstanceClass": "db.r6g.large",
        "MultiAZ": True,
        "AvailabilityZone": "us-east-1a",
        **more,
    }
    stub.add_response("describe_db_instances", {"DBInstances": [found]}, {"DBInstanceIdentifier": "orders"})


def seen(stub: Stubber, *found: dict[str, object], status: str = "available", **more: object) -> None:
    instance(stub, status, **more)
    events(stub, "orders", "db-instance", *found)


# --- reboot ---


async def test_a_reboot_by_failover(reboot: AnyOperation, stub: Stubber) -> None:
    params = reboot.params(service="orders", force_failover=True)
    pending: dict[str, Any] = {
        "PendingModifiedValues": {"AllocatedStorage": 200},
        "DBParameterGroups": [{"DBParameterGroupName": "tuned", "ParameterApplyStatus": "pending-reboot"}],
    }
    seen(stub, **pending)
    stub.add_response(
        "reboot_db_instance", {"ResponseMetadata": META}, {"DBInstanceIdentifier": "orders", "ForceFailover": True}
    )
    seen(stub)
    seen(stub, status="rebooting")
    seen(stub, event("failover"), AvailabilityZone="us-east-1b")

    before = await reboot.inspect(params)
    told = reboot.preview(params, before)
    assert "reboot orders by failing over to its standby: all connections are dropped" in told
    assert "applies AllocatedStorage, parameter group tuned" in told
    assert reboot.changes(params, before) == (
        Change(what="connections to orders", before="open", after="all dropped"),
        Change(what="availability zone", before="us-east-1a", after="the standby's"),
        Change(what="AllocatedStorage", before="pending", after="applied"),
        Change(what="parameter group tuned", before="pending", after="applied"),
    )
    assert reboot.capacity(params, before) == Capacity(service="orders", servers_now=1, servers_then=0)
    assert reboot.grants(params, before) == (Grant(actions=("rds:RebootDBInstance",), resources=(DB,)),)
    write_actions(reboot, reboot.grants(params, before))
    assert (await reboot.execute(params, before)).request_ids == ("req-1",)
    after = await reboot.settle(params, before)
    assert after["zone"] == "us-east-1b"
    with pytest.raises(Refused, match="cannot be undone"):
        await reboot.undo(params, before)


async def test_a_reboot_that_was_seen_needs_no_event(reboot: AnyOperation, stub: Stubber) -> None:
    params = reboot.params(service="orders")
    for status in ("available", "rebooting", "available"):
        seen(stub, status=status)
    assert (await reboot.settle(params, await reboot.inspect(params)))["status"] == "available"


async def test_without_any_sign_of_a_reboot_the_wait_ends(reboot: AnyOperation, stub: Stubber) -> None:
    params = reboot.params(service="orders")
    for _ in range(62):
        seen(stub)
    before = await reboot.inspect(params)
    with pytest.raises(ExecutorError, match="Waited 10 minutes for orders to restart"):
        await reboot.settle(params, before)


@pytest.mark.parametrize(
    ("state", "failover", "said"),
    [
        ({"status": "backing-up"}, False, "orders is backing-up; wait"),
        ({"MultiAZ": False}, True, "not Multi-AZ"),
        ({"Engine": "custom-oracle-ee"}, False, "RDS Custom"),
        ({"DBClusterIdentifier": "shop"}, False, "in the Multi-AZ DB cluster shop"),
    ],
)
async def test_a_reboot_that_must_not_be_is_refused(
    reboot: AnyOperation, stub: Stubber, state: dict[str, Any], failover: bool, said: str
) -> None:
    params = reboot.params(service="orders", force_failover=failover)
    seen(stub, **state)
    before = await reboot.inspect(params)
    for look in (reboot.preview, reboot.changes):
        with pytest.raises(Refused, match=said):
            look(params, before)
    with pytest.raises(Refused, match=said):
        await reboot.execute(params, before)


@pytest.mark.parametrize(
    ("status", "zone", "found", "answer"),
    [
        ("available", "us-east-1a", [], "not_done"),
        ("available", "us-east-1a", [event("availability")], "done"),
        ("available", "us-east-1a", [event("availability", AT)], "not_done"),  # written before the reading
        ("rebooting", "us-east-1a", [], "done"),
        ("modifying", "us-east-1a", [], "unknown"),
        ("available", "us-east-1b", [], "unknown"),
    ],
)
async def test_a_reboot_is_probed_by_status_and_events(
    reboot: AnyOperation, stub: Stubber, status: str, zone: str, found: list[dict[str, object]], answer: str
) -> None:
    params = reboot.params(service="orders")
    seen(stub)
    instance(stub, status, AvailabilityZone=zone)
    if status != "rebooting":
        events(stub, "orders", "db-instance", *found)
    assert await reboot.probe(params, await reboot.inspect(params)) == answer


async def test_drift_of_a_reboot_is_what_people_set(reboot: AnyOperation, stub: Stubber) -> None:
    params = reboot.params(service="orders")
    seen(stub)
    seen(stub, event("backup"))
    seen(stub, DBInstanceClass="db.r6g.xlarge")
    first, later, resized = [reboot.pinned(params, await reboot.inspect(params)) for _ in range(3)]
    assert first == later
    assert {k for k in first if first[k] != resized[k]} == {"instance class"}


async def test_pending_maintenance_is_told_beforehand(reboot: AnyOperation, stub: Stubber) -> None:
    params = reboot.params(service="orders")
    seen(stub, PendingModifiedValues={"Iops": 1})
    waiting = [{"PendingMaintenanceActionDetails": [{"Action": "system-update"}]}]
    stub.add_response("describe_pending_maintenance_actions", {"PendingMaintenanceActions": waiting})
    stub.add_client_error("describe_pending_maintenance_actions", "AccessDenied", "no", 403)
    before = await reboot.inspect(params)
    maintenance, state, permission = await reboot.preflight(params, before)
    assert (maintenance.name, maintenance.status) == ("deployment", "warning")
    assert "system-update" in maintenance.detail
    assert (state.status, state.detail) == ("warning", "the reboot also applies: Iops")
    assert permission.name == "permission"
    assert (await reboot.preflight(params, before))[0].status == "skipped"


# --- failover ---


def cluster(
    stub: Stubber,
    writer: str | None = "a",
    status: str = "available",
    engine: str = "aurora-postgresql",
    **readers: str,
) -> None:
    members = {writer or "x": "available", **(readers or {"b": "available"})}
    found = {
        "DBClusterIdentifier": "shop",
        "DBClusterArn": CLUSTER,
        "Status": status,
        "Engine": engine,
        "DBClusterMembers": [{"DBInstanceIdentifier": m, "IsClusterWriter": m == writer} for m in members],
    }
    instances = [{"DBInstanceIdentifier": m, "DBInstanceStatus": s} for m, s in members.items()]
    stub.add_response("describe_db_clusters", {"DBClusters": [found]}, {"DBClusterIdentifier": "shop"})
    filters = [{"Name": "db-cluster-id", "Values": ["shop"]}]
    stub.add_response("describe_db_instances", {"DBInstances": instances}, {"Filters": filters})


@pytest.mark.parametrize("reader", ["b", None])
async def test_a_failover(failover: AnyOperation, stub: Stubber, reader: str | None) -> None:
    params = failover.params(service="shop", reader=reader)
    cluster(stub)
    events(stub, "shop", "db-cluster")
    asked = {"DBClusterIdentifier": "shop"} | ({"TargetDBInstanceIdentifier": reader} if reader else {})
    stub.add_response("failover_db_cluster", {"ResponseMetadata": META}, asked)
    cluster(stub, status="failing-over")
    cluster(stub, writer="b", status="failing-over", a="rebooting")
    cluster(stub, writer="b", a="available")
    cluster(stub, writer="b", a="available")

    before = await failover.inspect(params)
    assert "writer of shop a -> b: connections to the writer are dropped" in failover.preview(params, before)
    assert failover.changes(params, before)[0] == Change(what="writer of shop", before="a", after="b")
    assert failover.pinned(params, before) == {"writer": "a", "readers": ["b"]}
    assert failover.grants(params, before) == (Grant(actions=("rds:FailoverDBCluster",), resources=(CLUSTER,)),)
    write_actions(failover, failover.grants(params, before))
    assert (await failover.execute(params, before)).request_ids == ("req-1",)
    assert (await failover.settle(params, before))["writer"] == "b"
    assert await failover.probe(params, before) == "done"


@pytest.mark.parametrize(
    ("state", "reader", "said"),
    [
        ({"status": "modifying"}, None, "shop is modifying"),
        ({"b": "rebooting"}, None, "no available reader"),
        ({"b": "available", "c": "rebooting"}, "c", "c is no available reader; those are b"),
        ({"engine": "mysql"}, "b", "name none"),
        ({"writer": None}, None, "has no writer"),
    ],
)
async def test_a_failover_that_must_not_be_is_refused(
    failover: AnyOperation, stub: Stubber, state: dict[str, Any], reader: str | None, said: str
) -> None:
    params = failover.params(service="shop", reader=reader)
    cluster(stub, **state)
    events(stub, "shop", "db-cluster")
    before = await failover.inspect(params)
    with pytest.raises(Refused, match=said):
        failover.changes(params, before)
    with pytest.raises(Refused, match=said):
        await failover.execute(params, before)


@pytest.mark.parametrize(
    ("now", "found", "answer"),
    [
        ({}, [], "not_done"),
        ({}, [event("failover")], "unknown"),  # there and back?
        ({"status": "failing-over"}, None, "done"),
        ({"status": "modifying"}, [], "unknown"),
        ({"writer": "b", "a": "available"}, None, "done"),
        ({"writer": "c", "a": "available"}, None, "unknown"),
    ],
)
async def test_a_failover_is_probed(
    failover: AnyOperation, stub: Stubber, now: dict[str, Any], found: list[dict[str, object]] | None, answer: str
) -> None:
    params = failover.params(service="shop", reader="b")
    cluster(stub)
    events(stub, "shop", "db-cluster")
    cluster(stub, **now)
    if found is not None:
        events(stub, "shop", "db-cluster", *found)
    assert await failover.probe(params, await failover.inspect(params)) == answer


async def test_a_failover_that_does_not_come_ends_the_wait(failover: AnyOperation, stub: Stubber) -> None:
    params = failover.params(service="shop")
    cluster(stub)
    events(stub, "shop", "db-cluster")
    for _ in range(61):
        cluster(stub)
    before = await failover.inspect(params)
    with pytest.raises(ExecutorError, match="Waited 10 minutes for shop to have another writer than a"):
        await failover.settle(params, before)


def test_what_the_catalogue_lacks_is_named(reboot: AnyOperation, failover: AnyOperation) -> None:
    assert reboot.resource(reboot.params(service="orders")) == "rds:db/orders"
    assert failover.resource(failover.params(service="shop")) == "rds:cluster/shop"
    with pytest.raises(Refused, match=r"web has no aws.rds_clusters \(exactly one\) in autopilot.yaml"):
        failover.resource(failover.params(service="web"))
