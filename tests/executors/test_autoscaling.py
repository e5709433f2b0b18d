from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.stub import Stubber
from pydantic import ValidationError

from executors._aws import Connection
from executors.autoscaling import READS, RefreshInstances, ScaleAutoScalingGroup
from executors.base import AnyOperation, Capacity, Change, ExecutorError, Grant, Refused, Resource
from tests.executors.conftest import InstantClock
from tests.executors.guarded import META, guarded, write_actions

GROUP = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:0815:autoScalingGroupName/web"
TEMPLATE = {"LaunchTemplateId": "lt-1", "LaunchTemplateName": "web", "Version": "4"}
RESOURCES = {
    "web": Resource(service="web", auto_scaling_group="web", min_tasks=2, max_tasks=8),
    "legacy": Resource(service="legacy"),
}
OLD = {"InstanceRefreshId": "r0", "Status": "Successful"}


@pytest.fixture
def aws() -> Iterator[tuple[Connection[Any], Stubber]]:
    with guarded("autoscaling", READS) as pair:
        yield pair


@pytest.fixture
def stub(aws: tuple[Connection[Any], Stubber]) -> Stubber:
    return aws[1]


@pytest.fixture
def refresh(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return RefreshInstances(RESOURCES, InstantClock(), aws[0])


@pytest.fixture
def scale(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return ScaleAutoScalingGroup(RESOURCES, InstantClock(), aws[0])


def group(
    stub: Stubber,
    desired: int = 4,
    in_service: int = 4,
    last: dict[str, Any] = OLD,
    template: dict[str, str] | None = TEMPLATE,
    suspended: tuple[str, ...] = (),
) -> None:
    one = {"InstanceId": "i", "AvailabilityZone": "a", "LifecycleState": "InService", "HealthStatus": "Healthy"}
    found = {
        "AutoScalingGroupName": "web",
        "AutoScalingGroupARN": GROUP,
        "MinSize": 1,
        "MaxSize": 6,
        "DesiredCapacity": desired,
        "DefaultCooldown": 300,
        "AvailabilityZones": ["a"],
        "HealthCheckType": "EC2",
        "CreatedTime": datetime(2024, 1, 1, tzinfo=UTC),
        "Instances": [{**one, "ProtectedFromScaleIn": False}] * in_service,
        "SuspendedProcesses": [{"ProcessName": name} for name in suspended],
        **({"LaunchTemplate": template} if template else {}),
    }
    asked = {"AutoScalingGroupNames": ["web"]}
    stub.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": [found]}, asked)
    newest(stub, last)


def newest(stub: Stubber, last: dict[str, Any] | None) -> None:
    asked = {"AutoScalingGroupName": "web", "MaxRecords": 1}
    stub.add_response("describe_instance_refreshes", {"InstanceRefreshes": [last] if last else []}, asked)


def new(status: str, version: str | None = None) -> dict[str, Any]:
    configuration = {"LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": version}} if version else None
    more = {"DesiredConfiguration": configuration} if configuration else {}
    return {"InstanceRefreshId": "r1", "Status": status, "PercentageComplete": 40, **more}


def starts(stub: Stubber, version: str | None, percent: int = 90) -> None:
    preferences: dict[str, Any] = {"MinHealthyPercentage": percent}
    asked: dict[str, Any] = {"AutoScalingGroupName": "web", "Preferences": preferences}
    if version:
        preferences["AutoRollback"] = True
        asked["DesiredConfiguration"] = {"LaunchTemplate": {"LaunchTemplateId": "lt-1", "Version": version}}
    stub.add_response("start_instance_refresh", {"InstanceRefreshId": "r1", "ResponseMetadata": META}, asked)


def policies(stub: Stubber, *names: str) -> None:
    stub.add_response("describe_policies", {"ScalingPolicies": [{"PolicyName": n, "Enabled": True} for n in names]})


# --- refresh ---


async def test_instances_are_replaced_by_the_same_kind(refresh: AnyOperation, stub: Stubber) -> None:
    params = refresh.params(service="web", min_healthy_percent=60)
    group(stub)
    starts(stub, None, 60)
    group(stub)
    group(stub, last=new("InProgress"))
    group(stub, last=new("Successful"))

    before = await refresh.inspect(params)
    assert refresh.preview(params, before) == (
        "web: 4 instances -> 4 new ones (the same kind), at least 3 in service throughout"
    )
    assert refresh.changes(params, before) == (
        Change(what="instances of web", before="4 as they are", after="4 new ones"),
    )
    assert refresh.capacity(params, before) == Capacity(service="web", servers_now=4, servers_then=3)
    actions = ("autoscaling:StartInstanceRefresh", "autoscaling:CancelInstanceRefresh")
    assert refresh.grants(params, before) == (Grant(actions=actions, resources=(GROUP,)),)
    outcome = await refresh.execute(params, before)
    assert (outcome.request_ids, outcome.data) == (("req-1",), {"instance_refresh": "r1"})
    assert (await refresh.settle(params, before))["refresh_status"] == "Successful"


async def test_another_template_version_can_be_rolled_back_by_aws(refresh: AnyOperation, stub: Stubber) -> None:
    params = refresh.params(service="web", launch_template_version=3)
    group(stub)
    starts(stub, "3")
    group(stub, last=new("InProgress", "3"))
    newest(stub, new("InProgress", "3"))
    stub.add_response("rollback_instance_refresh", {"ResponseMetadata": META}, {"AutoScalingGroupName": "web"})

    before = await refresh.inspect(params)
    assert "(template version 4 -> 3)" in refresh.preview(params, before)
    assert refresh.changes(params, before)[1] == Change(what="version of lt-1", before="4", after="3")
    start, launch = refresh.grants(params, before)
    assert start.actions == ("autoscaling:StartInstanceRefresh", "autoscaling:RollbackInstanceRefresh")
    assert launch.conditions == {
        "ArnEquals": {"ec2:LaunchTemplate": ("arn:aws:ec2:us-east-1:123456789012:launch-template/lt-1",)}
    }
    write_actions(refresh, (start, launch))
    await refresh.execute(params, before)
    assert (await refresh.undo(params, before)).detail == "web: refresh is being rolled back"


@pytest.mark.parametrize(
    ("state", "version", "said"),
    [
        ({"last": {"InstanceRefreshId": "r0", "Status": "InProgress"}}, None, "instance refresh r0 is InProgress"),
        ({"suspended": ("Launch",)}, None, "Launch is suspended"),
        ({"desired": 0, "in_service": 0}, None, "has no instances"),
        ({}, 4, "has template version 4 already"),
        ({"template": {**TEMPLATE, "Version": "$Latest"}}, 3, r"it has \$Latest\); AWS could not roll back"),
        ({"template": None}, 3, "it has none"),
    ],
)
async def test_a_refresh_that_must_not_be_is_refused(
    refresh: AnyOperation, stub: Stubber, state: dict[str, Any], version: int | None, said: str
) -> None:
    params = refresh.params(service="web", launch_template_version=version)
    group(stub, **state)
    before = await refresh.inspect(params)
    with pytest.raises(Refused, match=said):
        refresh.changes(params, before)
    with pytest.raises(Refused, match=said):
        await refresh.execute(params, before)


@pytest.mark.parametrize("status", ["Failed", "Cancelled", "RollbackSuccessful"])
async def test_a_refresh_that_failed_ends_the_wait(refresh: AnyOperation, stub: Stubber, status: str) -> None:
    params = refresh.params(service="web")
    group(stub)
    group(stub, last=new(status))
    before = await refresh.inspect(params)
    with pytest.raises(ExecutorError, match=f"its refresh is {status}: {status} 40%"):
        await refresh.settle(params, before)


@pytest.mark.parametrize(
    ("last", "answer"),
    [(OLD, "not_done"), (None, "not_done"), (new("Pending", "3"), "done"), (new("Pending"), "unknown")],
)
async def test_a_refresh_is_probed_by_its_id(
    refresh: AnyOperation, stub: Stubber, last: dict[str, Any] | None, answer: str
) -> None:
    params = refresh.params(service="web", launch_template_version=3)
    group(stub)
    newest(stub, last)
    assert await refresh.probe(params, await refresh.inspect(params)) == answer


async def test_a_refresh_of_the_same_kind_is_stopped(refresh: AnyOperation, stub: Stubber) -> None:
    params = refresh.params(service="web")
    group(stub)
    group(stub, last=new("InProgress"))
    newest(stub, new("InProgress"))
    stub.add_response("cancel_instance_refresh", {"ResponseMetadata": META}, {"AutoScalingGroupName": "web"})
    assert (await refresh.undo(params, await refresh.inspect(params))).detail == "web: refresh stopped where it was"


async def test_a_finished_refresh_is_followed_by_one_back(refresh: AnyOperation, stub: Stubber) -> None:
    params = refresh.params(service="web", launch_template_version=3)
    group(stub)
    group(stub, last=new("Successful", "3"), template={**TEMPLATE, "Version": "3"})
    newest(stub, new("Successful", "3"))
    starts(stub, "4")
    detail = (await refresh.undo(params, await refresh.inspect(params))).detail
    assert detail == "web: template version 3 -> 4"


@pytest.mark.parametrize(
    ("last", "said"),
    [(new("Successful"), "all instances are new already"), (new("InProgress", "9"), "somebody else started another")],
)
async def test_what_cannot_be_put_back_is_refused(
    refresh: AnyOperation, stub: Stubber, last: dict[str, Any], said: str
) -> None:
    params = refresh.params(service="web")
    group(stub)
    group(stub, last=last)
    newest(stub, last)
    before = await refresh.inspect(params)
    with pytest.raises(Refused, match=said):
        await refresh.undo(params, before)


async def test_a_refresh_that_aws_rolled_back_needs_no_undo(refresh: AnyOperation, stub: Stubber) -> None:
    params = refresh.params(service="web", launch_template_version=3)
    group(stub)
    group(stub, last=new("RollbackSuccessful", "3"))
    newest(stub, new("RollbackSuccessful", "3"))
    assert "RollbackSuccessful already" in (await refresh.undo(params, await refresh.inspect(params))).detail


async def test_drift_of_a_refresh(refresh: AnyOperation, stub: Stubber) -> None:
    params = refresh.params(service="web")
    group(stub)
    group(stub, in_service=3)
    group(stub, last=new("Successful"), template={**TEMPLATE, "Version": "5"}, desired=5)
    first, ill, moved = [refresh.pinned(params, await refresh.inspect(params)) for _ in range(3)]
    assert first == ill
    assert {key for key in first if first[key] != moved[key]} == {
        "desired instances", "launch template version", "last instance refresh",
    }  # fmt: skip


def test_at_least_half_stays(refresh: AnyOperation) -> None:
    with pytest.raises(ValidationError):
        refresh.params(service="web", min_healthy_percent=49)


# --- scale ---


async def test_a_group_is_scaled_and_put_back(scale: AnyOperation, stub: Stubber) -> None:
    params = scale.params(service="web", desired_capacity=6)
    asked = {"AutoScalingGroupName": "web", "HonorCooldown": False}
    group(stub)
    group(stub)
    stub.add_response("set_desired_capacity", {"ResponseMetadata": META}, {**asked, "DesiredCapacity": 6})
    for in_service in (4, 6, 6, 6):
        group(stub, 6, in_service)
    stub.add_response("set_desired_capacity", {"ResponseMetadata": META}, {**asked, "DesiredCapacity": 4})

    before = await scale.inspect(params)
    assert scale.preview(params, before) == "web: 4 instances -> 6 instances"
    assert scale.changes(params, before) == (Change(what="instances of web", before="4", after="6"),)
    assert scale.capacity(params, before) == Capacity(service="web", servers_now=4, servers_then=6)
    assert scale.grants(params, before) == (Grant(actions=("autoscaling:SetDesiredCapacity",), resources=(GROUP,)),)
    write_actions(scale, scale.grants(params, before))
    await scale.execute(params, before)
    assert (await scale.settle(params, before))["in_service"] == 6
    assert await scale.probe(params, before) == "done"
    assert (await scale.undo(params, before)).detail == "web: 6 instances -> 4 instances"


@pytest.mark.parametrize(
    ("wanted", "suspended", "said"),
    [
        (9, (), r"outside 2\.\.8, the min_tasks and max_tasks"),
        (7, (), r"outside 1\.\.6, the limits of web itself"),
        (4, (), "is set to 4 instances already"),
        (5, ("Launch",), "Launch is suspended"),
        (3, ("Terminate",), "Terminate is suspended"),
    ],
)
async def test_a_size_that_must_not_be_is_refused(
    scale: AnyOperation, stub: Stubber, wanted: int, suspended: tuple[str, ...], said: str
) -> None:
    params = scale.params(service="web", desired_capacity=wanted)
    group(stub, suspended=suspended)
    before = await scale.inspect(params)
    with pytest.raises(Refused, match=said):
        await scale.execute(params, before)


@pytest.mark.parametrize(("now", "answer"), [(6, "done"), (4, "not_done"), (5, "unknown")])
async def test_a_size_is_probed(scale: AnyOperation, stub: Stubber, now: int, answer: str) -> None:
    params = scale.params(service="web", desired_capacity=6)
    group(stub)
    group(stub, now)
    assert await scale.probe(params, await scale.inspect(params)) == answer


async def test_a_size_somebody_set_meanwhile_is_left_alone(scale: AnyOperation, stub: Stubber) -> None:
    params = scale.params(service="web", desired_capacity=6)
    group(stub)
    group(stub, 5)
    group(stub, 5)
    before = await scale.inspect(params)
    with pytest.raises(Refused, match="5 instances since a moment"):
        await scale.execute(params, before)
    with pytest.raises(Refused, match="set to 5 instances by somebody else"):
        await scale.undo(params, before)


async def test_what_may_move_it_again_is_told_beforehand(scale: AnyOperation, stub: Stubber) -> None:
    params = scale.params(service="web", desired_capacity=6)
    group(stub, last=new("InProgress"))
    policies(stub, "cpu-50")
    stub.add_client_error("describe_policies", "AccessDenied", "no", 403)
    before = await scale.inspect(params)
    scaling, deployment, _ = await scale.preflight(params, before)
    assert (scaling.status, scaling.detail) == (
        "warning", "scaling policies may change the number of instances again: cpu-50",
    )  # fmt: skip
    assert (deployment.name, deployment.status) == ("deployment", "warning")
    assert (await scale.preflight(params, before))[0].status == "skipped"


async def test_a_group_that_is_not_there(scale: AnyOperation, stub: Stubber) -> None:
    stub.add_response("describe_auto_scaling_groups", {"AutoScalingGroups": []})
    with pytest.raises(ExecutorError, match="no Auto Scaling group web"):
        await scale.inspect(scale.params(service="web", desired_capacity=6))


def test_what_the_catalogue_lacks_is_named(scale: AnyOperation, refresh: AnyOperation) -> None:
    assert refresh.resource(refresh.params(service="web")) == "asg:web"
    with pytest.raises(Refused, match="legacy has no auto_scaling_group"):
        scale.resource(scale.params(service="legacy", desired_capacity=2))
