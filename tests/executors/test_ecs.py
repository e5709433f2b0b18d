from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from botocore.stub import Stubber
from mypy_boto3_ecs import ECSClient
from pydantic import JsonValue, ValidationError

from executors.base import AnyOperation, ExecutorError, OutcomeUnknown, Refused, Resource
from executors.ecs import EcsExecutor
from tests.executors.conftest import InstantClock, operation

AT = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
FAMILY = "arn:aws:ecs:us-east-1:1:task-definition/payment:"
DEPLOYMENTS = "arn:aws:ecs:us-east-1:1:service-deployment/shop/payment/"
REVISIONS = "arn:aws:ecs:us-east-1:1:service-revision/shop/payment/"
META = {"RequestId": "req-1", "HTTPStatusCode": 200}


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
def executor(resources: dict[str, Resource], clock: InstantClock, ecs_client: ECSClient) -> EcsExecutor:
    return EcsExecutor(resources, clock, ecs_client)


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


async def test_scaling_there_and_back(scale: AnyOperation, aws_ecs: Stubber) -> None:
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


async def test_scaling_to_the_present_count_is_refused(scale: AnyOperation, aws_ecs: Stubber) -> None:
    params = scale.params(service="payment-service", desired_count=3)
    describes(aws_ecs, service())
    before = await scale.inspect(params)
    with pytest.raises(Refused, match="3 tasks already"):
        scale.preview(params, before)


@pytest.mark.parametrize(("desired", "answer"), [(6, "done"), (3, "not_done"), (5, "unknown")])
async def test_scaling_is_probed_by_the_desired_count(
    scale: AnyOperation, aws_ecs: Stubber, desired: int, answer: str
) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=desired))
    before = await scale.inspect(params)
    assert await scale.probe(params, before) == answer


async def test_undo_leaves_somebody_elses_count_alone(scale: AnyOperation, aws_ecs: Stubber) -> None:
    params = scale.params(service="payment-service", desired_count=6)
    describes(aws_ecs, service(), service(desired=8))
    before = await scale.inspect(params)
    with pytest.raises(Refused, match="8 tasks by somebody else"):
        await scale.undo(params, before)


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


def task_definition(aws: Stubber, version: int, status: str = "ACTIVE") -> None:
    aws.add_response(
        "describe_task_definition",
        {"taskDefinition": {"status": status}},
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
    task_definition(aws_ecs, 6)
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
    task_definition(aws_ecs, 6)
    aws_ecs.add_response(
        "stop_service_deployment",
        {"serviceDeploymentArn": f"{DEPLOYMENTS}c", "ResponseMetadata": META},
        {"serviceDeploymentArn": f"{DEPLOYMENTS}c", "stopType": "ROLLBACK"},
    )
    describes(aws_ecs, midway)
    stoppable(aws_ecs, "ROLLBACK_REQUESTED")

    before = await rollback.inspect(params)
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
    task_definition(aws_ecs, 6, "INACTIVE")
    before = await rollback.inspect(params)
    with pytest.raises(Refused, match="payment:6 is INACTIVE"):
        rollback.preview(params, before)


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
    task_definition(aws_ecs, 6)
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
