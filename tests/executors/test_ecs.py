from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from botocore.stub import Stubber
from mypy_boto3_application_autoscaling import ApplicationAutoScalingClient
from mypy_boto3_ecs import ECSClient
from pydantic import JsonValue, ValidationError

from executors._aws import Connection
from executors.base import AnyOperation, ExecutorError, OutcomeUnknown, PartlyDone, Refused, Resource
from executors.ecs import EcsExecutor
from tests.executors.conftest import InstantClock, operation

AT = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
FAMILY = "arn:aws:ecs:us-east-1:1:task-definition/payment:"
DEPLOYMENTS = "arn:aws:ecs:us-east-1:1:service-deployment/shop/payment/"
REVISIONS = "arn:aws:ecs:us-east-1:1:service-revision/shop/payment/"
SERVICES = "arn:aws:ecs:us-east-1:1:service/shop/"
META = {"RequestId": "req-1", "HTTPStatusCode": 200}


TARGET = "service/shop/payment"
SCALED = {"ServiceNamespace": "ecs", "ScalableDimension": "ecs:service:DesiredCount"}


def scalable_target(minimum: int, maximum: int) -> dict[str, object]:
    return {
        **SCALED,
        "ResourceId": TARGET,
        "MinCapacity": minimum,
        "MaxCapacity": maximum,
        "RoleARN": "arn:aws:iam::1:role/scaling",
        "CreationTime": AT,
        "ScalableTargetARN": "arn:aws:application-autoscaling:us-east-1:1:scalable-target/0ec5",
    }


def deployment(id_: str = "d1", rollout: str = "COMPLETED", version: int = 7, status: str = "PRIMARY") -> object:
    return {
        "id": id_,
        "status": status,
        "rolloutState": rollout,
        "rolloutStateReason": "tasks failed to start" if rollout == "FAILED" else "",
        "taskDefinition": f"{FAMILY}{version}",
        "createdAt": AT,
    }


def service(
    *deployments: object, desired: int = 3, running: int = 3, name: str = "payment", controller: str = "ECS"
) -> dict[str, object]:
    return {
        "serviceName": name,
        "serviceArn": f"{SERVICES}{name}",
        "status": "ACTIVE",
        "deploymentController": {"type": controller},
        "desiredCount": desired,
        "runningCount": running,
        "pendingCount": 0,
        "deployments": list(deployments or [deployment()]),
        "events": [{"id": "1", "createdAt": AT, "message": "(service payment) has reached a steady state."}],
    }


def describes(aws: Stubber, *services: dict[str, object]) -> None:
    for one in services:
        aws.add_response(
            "describe_services",
            {"services": [one], "failures": []},
            {"cluster": "shop", "services": [one["serviceName"]]},
        )


def updates(aws: Stubber, changed: dict[str, object], name: str = "payment", **change: object) -> None:
    aws.add_response(
        "update_service",
        {"service": changed, "ResponseMetadata": META},
        {"cluster": "shop", "service": name, **change},
    )


@pytest.fixture
def executor(
    resources: dict[str, Resource],
    clock: InstantClock,
    ecs_client: ECSClient,
    scaling_client: ApplicationAutoScalingClient,
) -> EcsExecutor:
    return EcsExecutor(resources, clock, Connection.of(ecs_client), Connection.of(scaling_client))


@pytest.fixture
def restart(executor: EcsExecutor) -> AnyOperation:
    return operation(executor, "restart_ecs_task")


@pytest.fixture
def scale(executor: EcsExecutor) -> AnyOperation:
    return operation(executor, "scale_ecs_service")


@pytest.fixture
def rollback(executor: EcsExecutor) -> AnyOperation:
    return operation(executor, "rollback_ecs_service")


@pytest.fixture
def restart_all(executor: EcsExecutor) -> AnyOperation:
    return operation(executor, "restart_all_services")


# --- the catalogue decides what may be touched ---


@pytest.mark.parametrize(("name", "said"), [("cart", "no service 'cart'"), ("legacy", "services.legacy.ecs")])
def test_a_service_the_catalogue_does_not_list_is_refused(restart: AnyOperation, name: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        restart.resource(restart.params(service=name))


def test_keys_name_cluster_and_service(restart: AnyOperation, restart_all: AnyOperation) -> None:
    assert restart.resource(restart.params(service="payment-service")) == "ecs:shop/payment"
    both = restart_all.params(services=("worker", "payment-service"))
    assert restart_all.resource(both) == "ecs:shop/payment,ecs:shop/worker"


@pytest.mark.parametrize("services", [[], ["a", "a"], [f"s{n}" for n in range(11)]])
def test_restart_all_takes_one_to_ten_different_services(restart_all: AnyOperation, services: list[str]) -> None:
    with pytest.raises(ValidationError):
        restart_all.params(services=services)


# --- restart ---


async def test_restart_forces_a_new_deployment_and_waits_for_it(
    restart: AnyOperation, aws_ecs: Stubber, clock: InstantClock
) -> None:
    params = restart.params(service="payment-service")
    old, new = deployment("d1", status="ACTIVE"), deployment("d2", "IN_PROGRESS")
    describes(aws_ecs, service())
    updates(aws_ecs, service(new, old), forceNewDeployment=True)
    describes(aws_ecs, service(), service(new, old), service(deployment("d2"), running=2), service(deployment("d2")))

    before = await restart.inspect(params)
    assert restart.preview(params, before) == "payment-service: 3 tasks -> 3 new tasks of the same version"
    outcome = await restart.execute(params, before)
    after = await restart.settle(params, before)

    assert outcome.request_ids == ("req-1",)
    assert outcome.data == {"deployment": "d2"}
    assert after["running"] == 3
    assert clock.slept == [10, 10, 10]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (service(deployment("d2", "IN_PROGRESS"), deployment("d1", status="ACTIVE")), "d2 of payment:7 is in progress"),
        (service(controller="CODE_DEPLOY"), "deployed by CODE_DEPLOY"),
        (service(desired=0, running=0), "nothing to restart"),
        ({**service(), "status": "DRAINING"}, "is DRAINING"),
    ],
)
async def test_restart_refuses_before_any_call(
    restart: AnyOperation, aws_ecs: Stubber, state: dict[str, object], said: str
) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, state)
    before = await restart.inspect(params)
    with pytest.raises(Refused, match=said):
        await restart.execute(params, before)


async def test_a_failed_rollout_ends_the_wait(restart: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, service(), service(deployment("d2", "FAILED"), deployment("d1", status="ACTIVE")))
    before = await restart.inspect(params)
    with pytest.raises(ExecutorError, match="d2 failed: tasks failed to start"):
        await restart.settle(params, before)


async def test_the_wait_ends_after_eight_minutes(restart: AnyOperation, aws_ecs: Stubber, clock: InstantClock) -> None:
    params = restart.params(service="payment-service")
    stuck = service(deployment("d2", "IN_PROGRESS"), running=1)
    describes(aws_ecs, service(), *[stuck] * 49)
    before = await restart.inspect(params)
    with pytest.raises(ExecutorError, match=r"Waited 8 minutes.*1 of 3 tasks.*Last events: .*steady state"):
        await restart.settle(params, before)
    assert sum(clock.slept) == 480


async def test_a_throttled_read_does_not_end_the_wait(restart: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, service())
    aws_ecs.add_client_error("describe_services", "ThrottlingException", "Rate exceeded", 400)
    describes(aws_ecs, service(deployment("d2")))
    before = await restart.inspect(params)
    assert (await restart.settle(params, before))["running"] == 3


@pytest.mark.parametrize(
    ("now", "answer"),
    [
        (service(), "not_done"),
        (service(deployment("d2", "IN_PROGRESS"), deployment("d1", status="ACTIVE")), "done"),
        (service(deployment("d2", version=8)), "unknown"),
    ],
)
async def test_restart_is_probed_by_its_deployment(
    restart: AnyOperation, aws_ecs: Stubber, now: dict[str, object], answer: str
) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, service(), now)
    before = await restart.inspect(params)
    assert await restart.probe(params, before) == answer


async def test_restart_cannot_be_undone(restart: AnyOperation) -> None:
    with pytest.raises(Refused, match="cannot be undone"):
        await restart.undo(restart.params(service="payment-service"), {})


# --- AWS says no, or nothing ---


async def test_a_missing_permission_is_named(restart: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, service())
    aws_ecs.add_client_error("update_service", "AccessDeniedException", "not authorized", 400)
    before = await restart.inspect(params)
    with pytest.raises(ExecutorError, match=r"AccessDeniedException: not authorized.*Allow ecs:UpdateService") as error:
        await restart.execute(params, before)
    assert not isinstance(error.value, OutcomeUnknown)


async def test_after_a_server_error_the_outcome_is_unknown(restart: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, service())
    aws_ecs.add_client_error("update_service", "ServerException", "oops", 500)
    before = await restart.inspect(params)
    with pytest.raises(OutcomeUnknown, match="ServerException"):
        await restart.execute(params, before)


async def test_a_service_that_ecs_does_not_know(restart: AnyOperation, aws_ecs: Stubber) -> None:
    missing = {"services": [], "failures": [{"arn": "payment", "reason": "MISSING"}]}
    aws_ecs.add_response("describe_services", missing)
    with pytest.raises(ExecutorError, match="no service payment in cluster shop: MISSING"):
        await restart.inspect(restart.params(service="payment-service"))


# --- restart all ---


def both(first: dict[str, object], second: dict[str, object]) -> Sequence[dict[str, object]]:
    return first, {**second, "serviceName": "worker"}


async def test_restart_all_goes_through_the_services_in_order(restart_all: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart_all.params(services=("payment-service", "worker"))
    new = service(deployment("d2"))
    describes(aws_ecs, *both(service(), service()))
    updates(aws_ecs, new, forceNewDeployment=True)
    updates(aws_ecs, new, name="worker", forceNewDeployment=True)
    describes(aws_ecs, *both(new, service()), *both(new, new), *both(new, new))

    before = await restart_all.inspect(params)
    outcome = await restart_all.execute(params, before)
    after = await restart_all.settle(params, before)

    assert outcome.request_ids == ("req-1", "req-1")
    assert set(after) == {"payment-service", "worker"}
    assert await restart_all.probe(params, before) == "done"


async def test_restart_all_stops_at_the_first_failure(restart_all: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart_all.params(services=("payment-service", "worker"))
    describes(aws_ecs, *both(service(), service()))
    aws_ecs.add_client_error("update_service", "ServiceNotActiveException", "gone", 400)
    before = await restart_all.inspect(params)
    with pytest.raises(ExecutorError, match=r"gone.*Restarted before: none; left alone: worker"):
        await restart_all.execute(params, before)


async def test_a_half_done_restart_is_unknown(restart_all: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart_all.params(services=("payment-service", "worker"))
    describes(aws_ecs, *both(service(), service()), *both(service(deployment("d2")), service()))
    before = await restart_all.inspect(params)
    assert await restart_all.probe(params, before) == "unknown"


# --- scale ---


def scaled(aws: Stubber, *bounds: tuple[int, int] | None) -> None:
    """What Application Auto Scaling answers, each time the bounds are read."""
    for one in bounds:
        targets = [] if one is None else [scalable_target(*one)]
        aws.add_response("describe_scalable_targets", {"ScalableTargets": targets}, {**SCALED, "ResourceIds": [TARGET]})


async def test_scaling_there_and_back(scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber) -> None:
    scaled(aws_scaling, *[None] * 4)
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service())
    updates(aws_ecs, service(desired=6), desiredCount=6)
    describes(aws_ecs, service(desired=6), service(desired=6, running=6), service(desired=6, running=6))
    updates(aws_ecs, service(running=6), desiredCount=3)

    before = await scale.inspect(params)
    assert scale.preview(params, before) == "payment-service: 3 tasks -> 6 tasks"
    await scale.execute(params, before)
    assert (await scale.settle(params, before))["desired"] == 6
    assert (await scale.undo(params, before)).detail == "payment-service: 6 tasks -> 3 tasks"


@pytest.mark.parametrize("count", [0, 9])
def test_scaling_stays_within_the_catalogues_bounds(scale: AnyOperation, count: int) -> None:
    with pytest.raises(Refused, match=r"outside 1\.\.8"):
        scale.resource(scale.params(service="payment-service", desired_count=count))


async def test_scaling_to_the_present_count_is_refused(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber
) -> None:
    scaled(aws_scaling, None)
    params = scale.params(service="payment-service", desired_count=3)
    describes(aws_ecs, service())
    before = await scale.inspect(params)
    with pytest.raises(Refused, match="3 tasks already"):
        scale.preview(params, before)


@pytest.mark.parametrize(("desired", "answer"), [(6, "done"), (3, "not_done"), (5, "unknown")])
async def test_scaling_is_probed_by_the_desired_count(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber, desired: int, answer: str
) -> None:
    scaled(aws_scaling, None, None)
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=desired))
    before = await scale.inspect(params)
    assert await scale.probe(params, before) == answer


async def test_undo_leaves_somebody_elses_count_alone(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber
) -> None:
    scaled(aws_scaling, None, None)
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=8))
    before = await scale.inspect(params)
    with pytest.raises(Refused, match="8 tasks by somebody else"):
        await scale.undo(params, before)


def registers(aws: Stubber, minimum: int, maximum: int) -> None:
    asked = {**SCALED, "ResourceId": TARGET, "MinCapacity": minimum, "MaxCapacity": maximum}
    aws.add_response("register_scalable_target", {"ResponseMetadata": {**META, "RequestId": "req-0"}}, asked)


async def test_the_bounds_of_the_autoscaler_go_with_the_count_and_come_back(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service())
    scaled(aws_scaling, (2, 5))
    before = await scale.inspect(params)
    assert scale.preview(params, before) == (
        "payment-service: 3 tasks -> 6 tasks; the bounds of Application Auto Scaling become 6..6"
    )
    assert [(c.before, c.after) for c in scale.changes(params, before)] == [("3", "6"), ("2..5", "6..6")]
    assert scale.pinned(params, before)["auto scaling bounds"] == "2..5"

    registers(aws_scaling, 6, 6)
    updates(aws_ecs, service(desired=6), desiredCount=6)
    assert (await scale.execute(params, before)).request_ids == ("req-0", "req-1")

    describes(aws_ecs, service(desired=6, running=6), service(desired=6, running=6))
    scaled(aws_scaling, (6, 6), (6, 6))
    assert await scale.probe(params, before) == "done"
    registers(aws_scaling, 2, 5)
    updates(aws_ecs, service(), desiredCount=3)
    assert (await scale.undo(params, before)).request_ids == ("req-0", "req-1")


@pytest.mark.parametrize(
    ("desired", "bounds", "answer"),
    [(6, (6, 6), "done"), (3, (2, 5), "not_done"), (3, (6, 6), "unknown"), (6, (2, 5), "unknown")],
)
async def test_each_half_of_a_scaling_is_probed(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber, desired: int, bounds: tuple[int, int], answer: str
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=desired))
    scaled(aws_scaling, (2, 5), bounds)
    before = await scale.inspect(params)
    assert await scale.probe(params, before) == answer


async def test_a_service_that_its_policies_scale_on_has_settled(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=7, running=6), service(desired=7, running=7))
    scaled(aws_scaling, (2, 8), (6, 8), (6, 8))
    before = await scale.inspect(params)
    assert (await scale.settle(params, before))["running"] == 7


async def test_a_count_that_fails_after_the_bounds_is_partly_done(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service())
    scaled(aws_scaling, (2, 8))
    registers(aws_scaling, 6, 8)
    aws_ecs.add_client_error("update_service", "ThrottlingException", "Rate exceeded", 400)
    before = await scale.inspect(params)
    with pytest.raises(PartlyDone, match=r"Rate exceeded.*were set to 6\.\.8 before"):
        await scale.execute(params, before)


async def test_a_scaling_that_policies_moved_on_gives_only_the_bounds_back(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=7))
    scaled(aws_scaling, (2, 8), (6, 8))
    registers(aws_scaling, 2, 8)
    before = await scale.inspect(params)
    assert "its count was set to 7" in (await scale.undo(params, before)).detail


@pytest.mark.parametrize(("now", "said"), [((4, 8), "set to 4..8 by somebody else"), (None, "set to none by somebody")])
async def test_somebody_elses_bounds_are_left_alone(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber, now: tuple[int, int] | None, said: str
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=6))
    scaled(aws_scaling, (2, 8), now)
    before = await scale.inspect(params)
    with pytest.raises(Refused, match=said):
        await scale.undo(params, before)


@pytest.mark.parametrize(
    ("bounds", "count", "status", "said"),
    [
        (None, 6, "ok", "not scaled automatically"),
        ((2, 5), 6, "ok", "within 6..6"),
        ((2, 5), 1, "warning", "within 1..5; its policies may raise it from 1 again, up to 5"),
    ],
)
async def test_what_the_autoscaler_will_do_is_told_before(
    scale: AnyOperation,
    aws_ecs: Stubber,
    aws_scaling: Stubber,
    bounds: tuple[int, int] | None,
    count: int,
    status: str,
    said: str,
) -> None:
    params = scale.params(service="payment-service", desired_count=count)
    describes(aws_ecs, service())
    scaled(aws_scaling, bounds)
    before = await scale.inspect(params)
    (check,) = [check for check in await scale.preflight(params, before) if check.name == "scaling"]
    assert check.status == status
    assert said in check.detail


async def test_bounds_that_cannot_be_read_are_skipped_and_said(
    scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service())
    aws_scaling.add_client_error("describe_scalable_targets", "UnknownOperationException", "what?", 400)
    before = await scale.inspect(params)
    (check,) = [check for check in await scale.preflight(params, before) if check.name == "scaling"]
    assert (check.status, scale.preview(params, before)) == ("skipped", "payment-service: 3 tasks -> 6 tasks")
    updates(aws_ecs, service(desired=6), desiredCount=6)
    await scale.execute(params, before)


async def test_a_daemon_has_no_count(scale: AnyOperation, aws_ecs: Stubber, aws_scaling: Stubber) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, {**service(), "schedulingStrategy": "DAEMON"})
    scaled(aws_scaling, None)
    before = await scale.inspect(params)
    with pytest.raises(Refused, match="no task count of its own"):
        scale.changes(params, before)


# --- what is told before a person decides ---


def test_what_the_catalogue_lacks_is_a_line_to_add(executor: EcsExecutor, resources: dict[str, Resource]) -> None:
    for step in executor.operations:
        assert step.lacks(resources["payment-service"]) == ""
        assert step.lacks(resources["legacy"]) == "no ECS service: add services.legacy.ecs to autopilot.yaml"


@pytest.mark.parametrize(
    ("state", "failed"),
    [
        (service(), set()),
        (service(deployment(rollout="IN_PROGRESS")), {"deployment"}),
        (service(controller="CODE_DEPLOY"), {"gitops"}),
        ({**service(), "status": "DRAINING"}, {"state"}),
    ],
)
async def test_a_restart_is_checked_before(
    restart: AnyOperation, aws_ecs: Stubber, state: dict[str, object], failed: set[str]
) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, state)
    checks = await restart.preflight(params, await restart.inspect(params))
    assert {check.name for check in checks if check.status == "failed"} == failed
    assert {"permission"} == {check.name for check in checks if check.status == "skipped"}


@pytest.mark.parametrize(
    ("configuration", "running", "lowest"),
    [
        ({"minimumHealthyPercent": 50, "maximumPercent": 100}, 3, 2),
        ({"minimumHealthyPercent": 100, "maximumPercent": 200}, 3, 3),
        ({"minimumHealthyPercent": 100, "maximumPercent": 200}, 1, 1),
        ({"minimumHealthyPercent": 0, "maximumPercent": 100}, 3, 0),
        ({"minimumHealthyPercent": 0, "strategy": "BLUE_GREEN"}, 3, 3),
    ],
)
async def test_what_is_left_while_it_restarts(
    restart: AnyOperation, aws_ecs: Stubber, configuration: dict[str, object], running: int, lowest: int
) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, {**service(running=running), "deploymentConfiguration": configuration})
    capacity = restart.capacity(params, await restart.inspect(params))
    assert capacity is not None
    assert (capacity.servers_now, capacity.servers_then) == (running, lowest)


async def test_restart_all_tells_of_the_service_that_keeps_least(restart_all: AnyOperation, aws_ecs: Stubber) -> None:
    params = restart_all.params(services=("payment-service", "worker"))
    half = {**service(desired=4, running=4), "deploymentConfiguration": {"minimumHealthyPercent": 50}}
    describes(aws_ecs, *both(service(), half))
    before = await restart_all.inspect(params)
    capacity = restart_all.capacity(params, before)
    assert capacity is not None
    assert (capacity.service, capacity.servers_then) == ("worker", 2)
    assert len(restart_all.changes(params, before)) == 2
    assert set(restart_all.pinned(params, before)) == set(params.services)


async def test_an_approval_is_bound_to_what_people_set_and_not_to_what_moves(
    restart: AnyOperation, aws_ecs: Stubber
) -> None:
    params = restart.params(service="payment-service")
    describes(aws_ecs, service(), service(running=1), service(deployment(version=8)), service(desired=4))
    pins = [restart.pinned(params, await restart.inspect(params)) for _ in range(4)]
    assert pins[0] == pins[1]
    assert pins[0] not in pins[2:]
    assert set(pins[0]) == {"desired tasks", "task definition", "deployment in flight", "deployed by"}


# --- stop one task ---

TASKS = "arn:aws:ecs:us-east-1:1:task/shop/"
OLD, SICK, NEW = ("0" * 32, "5" * 32, "9" * 32)


def runs(aws: Stubber, **health: str) -> None:
    arns = {"old": f"{TASKS}{OLD}", "sick": f"{TASKS}{SICK}", "new": f"{TASKS}{NEW}"}
    aws.add_response("list_tasks", {"taskArns": [arns[name] for name in health]})
    if health:
        tasks = [
            {
                "taskArn": arns[name],
                "lastStatus": "RUNNING",
                "healthStatus": its,
                "startedAt": AT.replace(minute={"old": 1, "sick": 2, "new": 3}[name]),
            }
            for name, its in health.items()
        ]
        aws.add_response("describe_tasks", {"tasks": tasks})


@pytest.fixture
def stop(executor: EcsExecutor) -> AnyOperation:
    return operation(executor, "stop_ecs_task")


@pytest.mark.parametrize(
    ("health", "chosen"),
    [
        ({"old": "HEALTHY", "sick": "UNHEALTHY", "new": "HEALTHY"}, SICK),
        ({"new": "HEALTHY", "old": "HEALTHY"}, OLD),
        ({"new": "UNKNOWN", "sick": "HEALTHY"}, SICK),
    ],
)
async def test_the_unhealthiest_task_is_named_when_the_plan_is_made(
    stop: AnyOperation, aws_ecs: Stubber, health: dict[str, str], chosen: str
) -> None:
    runs(aws_ecs, **health)
    params = await stop.concrete(stop.params(service="payment-service"))
    assert params.task == chosen
    assert await stop.concrete(params) is params


async def test_one_task_is_stopped_and_replaced(stop: AnyOperation, aws_ecs: Stubber) -> None:
    params = stop.params(service="payment-service", task=SICK)
    describes(aws_ecs, service())
    runs(aws_ecs, old="HEALTHY", sick="UNHEALTHY", new="HEALTHY")
    before = await stop.inspect(params)
    (change,) = stop.changes(params, before)
    assert change.before == f"{SICK} (RUNNING, UNHEALTHY)"
    assert stop.pinned(params, before)["task"] == f"{TASKS}{SICK}"
    capacity = stop.capacity(params, before)
    assert capacity is not None
    assert (capacity.servers_now, capacity.servers_then) == (2, 2)

    aws_ecs.add_response(
        "stop_task",
        {"task": {"taskArn": f"{TASKS}{SICK}"}, "ResponseMetadata": META},
        {"cluster": "shop", "task": f"{TASKS}{SICK}", "reason": "Stopped by AIOps Auto Pilot, as a person approved"},
    )
    assert (await stop.execute(params, before)).request_ids == ("req-1",)
    for running, health in (
        (3, {"sick": "UNHEALTHY", "old": "HEALTHY"}),
        (2, {"old": "HEALTHY"}),
        (3, {"new": "HEALTHY"}),
    ):
        describes(aws_ecs, service(running=running))
        runs(aws_ecs, **health)
    assert (await stop.settle(params, before))["running"] == 3


@pytest.mark.parametrize(
    ("health", "refused"),
    [
        ({"sick": "HEALTHY"}, True),
        ({"sick": "UNKNOWN", "old": "UNHEALTHY"}, True),
        ({"sick": "UNHEALTHY"}, False),
        ({"sick": "HEALTHY", "old": "HEALTHY"}, False),
    ],
)
async def test_the_last_healthy_task_is_not_stopped(
    stop: AnyOperation, aws_ecs: Stubber, health: dict[str, str], refused: bool
) -> None:
    params = stop.params(service="payment-service", task=f"{TASKS}{SICK}")
    describes(aws_ecs, service())
    runs(aws_ecs, **health)
    before = await stop.inspect(params)
    if refused:
        with pytest.raises(Refused, match="its last healthy task"):
            stop.preview(params, before)
    else:
        assert stop.preview(params, before).startswith(f"payment-service: stop {SICK}")


@pytest.mark.parametrize(("health", "said"), [({"old": "HEALTHY"}, "does not run task"), ({}, "runs no task")])
async def test_a_task_of_somebody_else_is_refused(
    stop: AnyOperation, aws_ecs: Stubber, health: dict[str, str], said: str
) -> None:
    describes(aws_ecs, service())
    runs(aws_ecs, **health)
    with pytest.raises(Refused, match=said):
        await stop.inspect(stop.params(service="payment-service", task=SICK))


@pytest.mark.parametrize("task", ["all", "../x", "arn:aws:ecs:us-east-1:1:service/shop/payment", ""])
def test_a_task_has_the_form_of_one(stop: AnyOperation, task: str) -> None:
    with pytest.raises(ValidationError):
        stop.params(service="payment-service", task=task)


@pytest.mark.parametrize(
    ("found", "answer"),
    [([{"desiredStatus": "RUNNING"}], "not_done"), ([{"desiredStatus": "STOPPED"}], "done"), ([], "done")],
)
async def test_a_stopped_task_is_probed_by_what_ecs_wants_of_it(
    stop: AnyOperation, aws_ecs: Stubber, found: list[dict[str, str]], answer: str
) -> None:
    params = stop.params(service="payment-service", task=SICK)
    describes(aws_ecs, service())
    runs(aws_ecs, old="HEALTHY", sick="UNHEALTHY")
    before = await stop.inspect(params)
    aws_ecs.add_response("describe_tasks", {"tasks": found}, {"cluster": "shop", "tasks": [f"{TASKS}{SICK}"]})
    assert await stop.probe(params, before) == answer


# --- rollback ---


def history(aws: Stubber, *entries: tuple[str, str]) -> None:
    """Deployments as (status, revision), newest first."""
    briefs = [
        {
            "serviceDeploymentArn": f"{DEPLOYMENTS}{revision}",
            "status": status,
            "targetServiceRevisionArn": f"{REVISIONS}{revision}",
            "createdAt": AT.replace(minute=59 - n),
        }
        for n, (status, revision) in enumerate(entries)
    ]
    aws.add_response("list_service_deployments", {"serviceDeployments": briefs[::-1]})


def revisions(aws: Stubber, **versions: int) -> None:
    aws.add_response(
        "describe_service_revisions",
        {
            "serviceRevisions": [
                {"serviceRevisionArn": f"{REVISIONS}{name}", "taskDefinition": f"{FAMILY}{version}"}
                for name, version in versions.items()
            ]
        },
        {"serviceRevisionArns": [f"{REVISIONS}{name}" for name in versions]},
    )


def task_definitions(aws: Stubber, previous: int, status: str = "ACTIVE", present: int = 7) -> None:
    for version, its in ((previous, status), (present, "ACTIVE")):
        container = {
            "name": "app",
            "image": f"shop/payment:{version}",
            "secrets": [{"name": "KEY", "valueFrom": f"arn:aws:ssm:us-east-1:1:parameter/key-{version}"}],
        }
        aws.add_response(
            "describe_task_definition",
            {"taskDefinition": {"status": its, "containerDefinitions": [container]}},
            {"taskDefinition": f"{FAMILY}{version}"},
        )


def stoppable(aws: Stubber, status: str = "IN_PROGRESS") -> None:
    aws.add_response(
        "describe_service_deployments",
        {
            "serviceDeployments": [
                {
                    "serviceDeploymentArn": f"{DEPLOYMENTS}c",
                    "status": status,
                    "sourceServiceRevisions": [{"arn": f"{REVISIONS}b"}],
                }
            ]
        },
        {"serviceDeploymentArns": [f"{DEPLOYMENTS}c"]},
    )


async def test_rollback_goes_to_the_last_other_version_and_forward_again(
    rollback: AnyOperation, aws_ecs: Stubber
) -> None:
    params = rollback.params(service="payment-service")
    describes(aws_ecs, service())
    history(aws_ecs, ("SUCCESSFUL", "c"), ("SUCCESSFUL", "b"), ("SUCCESSFUL", "a"))
    revisions(aws_ecs, c=7, b=6, a=5)
    task_definitions(aws_ecs, 6)
    rolled_back = service(deployment("d2", version=6))
    updates(aws_ecs, rolled_back, taskDefinition=f"{FAMILY}6")
    describes(aws_ecs, service(), rolled_back, rolled_back, rolled_back)
    updates(aws_ecs, service(), taskDefinition=f"{FAMILY}7")

    before = await rollback.inspect(params)
    assert rollback.preview(params, before) == "payment-service: payment:7 -> payment:6, by a rolling deployment"
    await rollback.execute(params, before)
    await rollback.settle(params, before)
    assert await rollback.probe(params, before) == "done"
    assert (await rollback.undo(params, before)).detail == "payment-service: payment:6 -> payment:7"


async def test_a_deployment_in_progress_is_stopped(rollback: AnyOperation, aws_ecs: Stubber) -> None:
    params = rollback.params(service="payment-service")
    midway = service(deployment("d2", "IN_PROGRESS"), deployment("d1", version=6, status="ACTIVE"))
    describes(aws_ecs, midway)
    history(aws_ecs, ("IN_PROGRESS", "c"), ("SUCCESSFUL", "b"))
    stoppable(aws_ecs)
    revisions(aws_ecs, b=6)
    task_definitions(aws_ecs, 6)
    aws_ecs.add_response(
        "stop_service_deployment",
        {"serviceDeploymentArn": f"{DEPLOYMENTS}c", "ResponseMetadata": META},
        {"serviceDeploymentArn": f"{DEPLOYMENTS}c", "stopType": "ROLLBACK"},
    )
    describes(aws_ecs, midway)
    stoppable(aws_ecs, "ROLLBACK_REQUESTED")

    before = await rollback.inspect(params)
    checks = {check.name: check.status for check in await rollback.preflight(params, before)}
    assert (checks["deployment"], checks["gitops"]) == ("ok", "ok")
    assert rollback.grants(params, before)[1].resources == (f"{DEPLOYMENTS}c",)
    assert (await rollback.execute(params, before)).detail.endswith("by stopping the deployment in progress")
    assert await rollback.probe(params, before) == "done"


async def test_rollback_without_another_version_is_refused(rollback: AnyOperation, aws_ecs: Stubber) -> None:
    params = rollback.params(service="payment-service")
    describes(aws_ecs, service())
    history(aws_ecs, ("SUCCESSFUL", "c"), ("SUCCESSFUL", "b"))
    revisions(aws_ecs, c=7, b=7)
    before = await rollback.inspect(params)
    with pytest.raises(Refused, match="no earlier successful deployment"):
        await rollback.execute(params, before)


async def test_rollback_to_an_inactive_version_is_refused(rollback: AnyOperation, aws_ecs: Stubber) -> None:
    params = rollback.params(service="payment-service")
    describes(aws_ecs, service())
    history(aws_ecs, ("SUCCESSFUL", "b"))
    revisions(aws_ecs, b=6)
    task_definitions(aws_ecs, 6, "INACTIVE")
    before = await rollback.inspect(params)
    with pytest.raises(Refused, match="payment:6 is INACTIVE"):
        rollback.preview(params, before)


async def test_what_a_rollback_changes_and_what_it_may_miss_is_told_before(
    rollback: AnyOperation, aws_ecs: Stubber
) -> None:
    params = rollback.params(service="payment-service")
    describes(aws_ecs, service())
    history(aws_ecs, ("SUCCESSFUL", "b"))
    revisions(aws_ecs, b=6)
    task_definitions(aws_ecs, 6)
    before = await rollback.inspect(params)
    assert [(c.what, c.before, c.after) for c in rollback.changes(params, before)] == [
        ("task definition of payment-service", "payment:7", "payment:6"),
        ("image of app", "shop/payment:7", "shop/payment:6"),
    ]
    warnings = [check.detail for check in await rollback.preflight(params, before) if check.status == "warning"]
    assert warnings == [
        "payment:6 runs shop/payment:6: a tag may name another image by now",
        "payment:6 reads arn:aws:ssm:us-east-1:1:parameter/key-6, which payment:7 does not: see that it exists",
    ]
    assert rollback.pinned(params, before)["version to go back to"] == f"{FAMILY}6"


@pytest.mark.parametrize(
    ("now", "answer"),
    [(service(), "not_done"), (service(deployment("d2", version=9)), "unknown")],
)
async def test_rollback_is_probed_by_the_version(
    rollback: AnyOperation, aws_ecs: Stubber, now: dict[str, object], answer: str
) -> None:
    params = rollback.params(service="payment-service")
    describes(aws_ecs, service())
    history(aws_ecs, ("SUCCESSFUL", "b"))
    revisions(aws_ecs, b=6)
    task_definitions(aws_ecs, 6)
    describes(aws_ecs, now)
    before = await rollback.inspect(params)
    assert await rollback.probe(params, before) == answer


# --- check ---


def tasks(aws: Stubber, *health: str) -> None:
    arns: list[JsonValue] = [f"arn:aws:ecs:us-east-1:1:task/shop/{n}" for n in range(len(health))]
    aws.add_response("list_tasks", {"taskArns": arns})
    if health:
        aws.add_response(
            "describe_tasks", {"tasks": [{"healthStatus": h} for h in health]}, {"cluster": "shop", "tasks": arns}
        )


async def test_a_check_waits_for_health_and_changes_nothing(executor: EcsExecutor, aws_ecs: Stubber) -> None:
    check = operation(executor, "check_ecs_health")
    params = check.params(service="payment-service")
    for health in (("HEALTHY", "UNHEALTHY", "UNKNOWN"), ("HEALTHY", "HEALTHY", "UNKNOWN")):
        describes(aws_ecs, service())
        tasks(aws_ecs, *health)
    before = await check.inspect(params)
    outcome = await check.execute(params, before)
    assert outcome.detail == (
        "payment-service: 3 of 3 tasks running, rollout COMPLETED (1 healthy, 1 unhealthy, 1 without a health check)"
    )
    after = await check.settle(params, before)
    assert (after["healthy"], after["unhealthy"]) == (2, 0)
    assert check.read_only


async def test_a_check_fails_if_health_does_not_come_back(executor: EcsExecutor, aws_ecs: Stubber) -> None:
    check = operation(executor, "check_ecs_health")
    for _ in range(49):
        describes(aws_ecs, service(running=0))
        tasks(aws_ecs)
    with pytest.raises(ExecutorError, match="0 of 3 tasks running"):
        await check.settle(check.params(service="payment-service"), {})


async def test_a_service_without_tasks_is_not_healthy(executor: EcsExecutor, aws_ecs: Stubber) -> None:
    check = operation(executor, "check_ecs_health")
    describes(aws_ecs, service(desired=0, running=0))
    tasks(aws_ecs)
    with pytest.raises(ExecutorError, match="set to 0 tasks"):
        await check.settle(check.params(service="payment-service"), {})
