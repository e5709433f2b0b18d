"""Checks, restarts, scales and rolls back ECS services.

ECS has no dry run: every operation reads the service first and refuses what must not run now.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from executors._aws import Api, AwsSettings, checks, connect, listed, settled
from executors.base import (
    AnyOperation,
    Check,
    Clock,
    Executor,
    ExecutorError,
    Model,
    Operation,
    Outcome,
    OutcomeUnknown,
    P,
    PartlyDone,
    Probe,
    Refused,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.literals import ServiceDeploymentStatusType
    from mypy_boto3_ecs.type_defs import (
        ServiceDeploymentBriefTypeDef,
        ServiceTypeDef,
        UpdateServiceResponseTypeDef,
    )

AWS = Api(iam_prefix="ecs")
DEADLINE_S = 8 * 60.0
EVENTS_SHOWN = 3
MAX_REVISIONS = 20  # as many as DescribeServiceRevisions takes
IN_FLIGHT: "tuple[ServiceDeploymentStatusType, ...]" = (
    "PENDING",
    "IN_PROGRESS",
    "STOP_REQUESTED",
    "ROLLBACK_REQUESTED",
    "ROLLBACK_IN_PROGRESS",
)


class Settings(AwsSettings):
    """How to reach ECS."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_ECS_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- parameters ---------------------------------------------------------------------------------------------


class ServiceParams(Model):
    """One service of the catalogue."""

    service: str = Field(min_length=1, description="Name of the service in the catalogue")


class ServicesParams(Model):
    """Several services of the catalogue."""

    services: tuple[str, ...] = Field(
        min_length=1, max_length=10, description="Names in the catalogue, in the order in which to restart"
    )

    @field_validator("services")
    @classmethod
    def _each_once(cls, services: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(services)) < len(services):
            raise ValueError("each service may be named once")
        return services


class ScaleParams(ServiceParams):
    """One service and how many tasks it shall run."""

    desired_count: int = Field(ge=0, description="Tasks to run, within the catalogue's min_tasks and max_tasks")


# --- what was read ------------------------------------------------------------------------------------------


class Deployment(Model):
    """One deployment of a service. ``rollout`` is None where the controller is not ECS."""

    id: str
    status: str
    rollout: str | None
    reason: str
    task_definition: str
    created_at: datetime


class ServiceState(Model):
    """One service as DescribeServices has it."""

    service: str
    status: str
    controller: str
    scheduling: str
    desired: int
    running: int
    pending: int
    deployments: tuple[Deployment, ...]
    events: tuple[str, ...] = Field(description="The last ones, newest first")

    @property
    def primary(self) -> Deployment | None:
        """The deployment the service runs or is moving to."""
        return next((d for d in self.deployments if d.status == "PRIMARY"), None)

    @property
    def progress(self) -> str:
        """How far the service is, in words."""
        rollout = f", rollout {self.primary.rollout}" if self.primary and self.primary.rollout else ""
        return f"{self.running} of {self.desired} tasks running{rollout}"

    @property
    def at_rest(self) -> bool:
        """As many tasks as wanted, and no roll-out under way."""
        rollout = self.primary.rollout if self.primary else None
        return self.running == self.desired and rollout in ("COMPLETED", None)


class HealthState(ServiceState):
    """A service and the health of its tasks; one without a container health check is UNKNOWN to ECS."""

    healthy: int
    unhealthy: int
    unknown: int


class RollbackState(ServiceState):
    """A service and where it can go back to."""

    in_flight: str | None = Field(description="ARN of the service deployment under way")
    in_flight_status: str | None
    previous: str | None = Field(description="ARN, with revision, of the task definition to go back to")
    previous_status: str | None


# --- operations ---------------------------------------------------------------------------------------------

S = TypeVar("S", bound=ServiceParams)


class EcsOperation(Operation[P]):
    """Reads services of the catalogue. ``resource`` needs nothing but ``resources``."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, client: "ECSClient") -> None:
        self.resources, self.clock, self.client = resources, clock, client

    async def read(self, service: str) -> ServiceState:
        """The service as it is now. Raises ExecutorError."""
        cluster, name = _address(self.resources, service)
        answer = await AWS.read(self.client.describe_services, cluster=cluster, services=[name])
        if not answer["services"]:
            reason = answer["failures"][0].get("reason", "") if answer["failures"] else "no reason given"
            raise ExecutorError(f"ECS knows no service {name} in cluster {cluster}: {reason}")
        return _state(service, answer["services"][0])


class ServiceOperation(EcsOperation[S]):
    """What the operations on one service have in common."""

    def resource(self, params: S) -> str:
        """``ecs:<cluster>/<service>``."""
        return _key(self.resources, params.service)

    async def inspect(self, params: S) -> State:
        """The service as it is now."""
        return (await self.read(params.service)).model_dump(mode="json")

    async def settle(self, params: S, before: State) -> State:
        """Waits up to 8 minutes until the change took hold and the service is at rest."""
        state = await settled(
            self.clock,
            lambda: self.read(params.service),
            lambda now: self.lacking(params, before, now),
            DEADLINE_S,
        )
        return state.model_dump(mode="json")

    def lacking(self, params: S, before: State, now: ServiceState) -> str:
        """What is still to come; empty when nothing is. Raises ExecutorError if it will never come."""
        return _unrest(now)


class CheckEcsHealth(ServiceOperation[ServiceParams]):
    """Reads whether a service is healthy; changes nothing."""

    name = "check_ecs_health"
    summary = "Check that all tasks of a service run, are healthy, and that no roll-out is stuck"
    risk = "none"
    read_only = True
    permissions = ("ecs:DescribeServices", "ecs:ListTasks", "ecs:DescribeTasks")
    params = ServiceParams

    async def read(self, service: str) -> HealthState:
        """The service and the health of its running tasks."""
        state = await super().read(service)
        health = await self._task_health(service)
        return HealthState(
            **dict(state),
            healthy=health.count("HEALTHY"),
            unhealthy=health.count("UNHEALTHY"),
            unknown=health.count("UNKNOWN"),
        )

    async def _task_health(self, service: str) -> list[str]:
        cluster, name = _address(self.resources, service)
        running = await AWS.read(
            self.client.list_tasks, cluster=cluster, serviceName=name, desiredStatus="RUNNING", maxResults=100
        )
        if not running["taskArns"]:
            return []
        answer = await AWS.read(self.client.describe_tasks, cluster=cluster, tasks=running["taskArns"])
        return [task.get("healthStatus", "UNKNOWN") for task in answer["tasks"]]

    def preview(self, params: ServiceParams, before: State) -> str:
        """What is seen now."""
        state = HealthState.model_validate(before)
        return f"{params.service}: {_health(state)}; nothing is changed"

    async def execute(self, params: ServiceParams, before: State) -> Outcome:
        """Nothing to change: what was read is the outcome."""
        return Outcome(detail=f"{params.service}: {_health(HealthState.model_validate(before))}")

    def lacking(self, params: ServiceParams, before: State, now: ServiceState) -> str:
        """Also healthy tasks, and at least one."""
        unhealthy = cast("HealthState", now).unhealthy
        if now.desired == 0:
            raise ExecutorError(f"{params.service} is set to 0 tasks.")
        return _unrest(now) or (f"{params.service}: {unhealthy} unhealthy tasks to recover" if unhealthy else "")

    async def probe(self, params: ServiceParams, before: State) -> Probe:
        """A check leaves no trace and may be repeated."""
        return "not_done"


class RestartEcsTask(ServiceOperation[ServiceParams]):
    """Replaces all tasks of one service, a few at a time."""

    name = "restart_ecs_task"
    summary = "Restart all tasks of a service by a rolling deployment of the same version"
    risk = "low"
    minutes = 3.0
    permissions = ("ecs:DescribeServices", "ecs:UpdateService")
    params = ServiceParams

    def preview(self, params: ServiceParams, before: State) -> str:
        """Which tasks would be replaced."""
        state = ServiceState.model_validate(before)
        _must_accept_deployment(state)
        if state.desired == 0:
            raise Refused(f"{params.service} runs no tasks: there is nothing to restart; scale it instead.")
        return f"{params.service}: {state.desired} tasks -> {state.desired} new tasks of the same version"

    async def execute(self, params: ServiceParams, before: State) -> Outcome:
        """One UpdateService with forceNewDeployment."""
        self.preview(params, before)
        cluster, name = _address(self.resources, params.service)
        answer = await AWS.write(self.client.update_service, cluster=cluster, service=name, forceNewDeployment=True)
        return _started(params.service, answer)

    def lacking(self, params: ServiceParams, before: State, now: ServiceState) -> str:
        """A deployment that was not there before, at rest."""
        return _undeployed(ServiceState.model_validate(before), now)

    async def probe(self, params: ServiceParams, before: State) -> Probe:
        """Done if there is a new PRIMARY deployment; one of another version is somebody else's."""
        return _restarted(ServiceState.model_validate(before), await self.read(params.service))


class RestartAllServices(EcsOperation[ServicesParams]):
    """Replaces the tasks of several services, in the order given."""

    name = "restart_all_services"
    summary = "Restart several services, one call after the other; stops at the first that fails"
    risk = "high"
    minutes = 6.0
    permissions = ("ecs:DescribeServices", "ecs:UpdateService")
    params = ServicesParams

    def resource(self, params: ServicesParams) -> str:
        """The keys of all services, sorted, joined by a comma."""
        return ",".join(sorted(_key(self.resources, service) for service in params.services))

    async def inspect(self, params: ServicesParams) -> State:
        """Every service as it is now, by name."""
        return {s.service: s.model_dump(mode="json") for s in await self._read_all(params)}

    def preview(self, params: ServicesParams, before: State) -> str:
        """All of them, or a refusal if one of them must not be restarted now."""
        return "; ".join(
            self._one.preview(ServiceParams(service=s), before_one) for s, before_one in _each(params, before).items()
        )

    async def execute(self, params: ServicesParams, before: State) -> Outcome:
        """One UpdateService per service; after a failure no further call is made."""
        self.preview(params, before)
        done: list[Outcome] = []
        for service, before_one in _each(params, before).items():
            try:
                done.append(await self._one.execute(ServiceParams(service=service), before_one))
            except OutcomeUnknown as error:
                raise OutcomeUnknown(_halted(params, len(done), error)) from error
            except ExecutorError as error:
                kind = PartlyDone if done else ExecutorError
                raise kind(_halted(params, len(done), error)) from error
        return Outcome(
            request_ids=tuple(i for outcome in done for i in outcome.request_ids),
            detail="; ".join(outcome.detail for outcome in done),
        )

    async def settle(self, params: ServicesParams, before: State) -> State:
        """Waits up to 8 minutes until every service is at rest on its new deployment."""
        befores = [ServiceState.model_validate(b) for b in _each(params, before).values()]
        states = await settled(
            self.clock,
            lambda: self._read_all(params),
            lambda nows: "; ".join(filter(None, map(_undeployed, befores, nows))),
            DEADLINE_S,
        )
        return {s.service: s.model_dump(mode="json") for s in states}

    async def probe(self, params: ServicesParams, before: State) -> Probe:
        """Done if every service was restarted, not done if none was; in between a person must look."""
        nows = await self._read_all(params)
        befores = [ServiceState.model_validate(b) for b in _each(params, before).values()]
        answers = set(map(_restarted, befores, nows))
        return answers.pop() if len(answers) == 1 else "unknown"

    @property
    def _one(self) -> RestartEcsTask:
        return RestartEcsTask(self.resources, self.clock, self.client)

    async def _read_all(self, params: ServicesParams) -> list[ServiceState]:
        return [await self.read(service) for service in params.services]


class ScaleEcsService(ServiceOperation[ScaleParams]):
    """Changes how many tasks a service runs."""

    name = "scale_ecs_service"
    summary = "Set the number of tasks a service runs"
    risk = "medium"
    reversible = True
    minutes = 3.0
    permissions = ("ecs:DescribeServices", "ecs:UpdateService")
    params = ScaleParams

    def resource(self, params: ScaleParams) -> str:
        """``ecs:<cluster>/<service>``. Raises Refused also beyond the catalogue's min_tasks and max_tasks."""
        key, entry = super().resource(params), listed(self.resources, params.service)
        if not entry.min_tasks <= params.desired_count <= entry.max_tasks:
            raise Refused(
                f"{params.desired_count} tasks is outside {entry.min_tasks}..{entry.max_tasks},"
                f" the min_tasks and max_tasks of services.{params.service} in autopilot.yaml."
            )
        return key

    def preview(self, params: ScaleParams, before: State) -> str:
        """From how many tasks to how many."""
        self.resource(params)
        state = ServiceState.model_validate(before)
        _must_be_active(state)
        if state.scheduling == "DAEMON" or state.controller == "EXTERNAL":
            raise Refused(f"{params.service} has no task count of its own ({state.scheduling}, {state.controller}).")
        if state.desired == params.desired_count:
            raise Refused(f"{params.service} is set to {state.desired} tasks already.")
        return f"{params.service}: {state.desired} tasks -> {params.desired_count} tasks"

    async def execute(self, params: ScaleParams, before: State) -> Outcome:
        """One UpdateService with the new count."""
        return await self._set(params.service, params.desired_count, self.preview(params, before))

    def lacking(self, params: ScaleParams, before: State, now: ServiceState) -> str:
        """The wanted count, all of them running. An autoscaler may set another count meanwhile."""
        if now.desired != params.desired_count:
            return f"{params.service} to want {params.desired_count} tasks (now {now.desired}; an autoscaler?)"
        return _unrest(now)

    async def probe(self, params: ScaleParams, before: State) -> Probe:
        """Told by the desired count."""
        desired = (await self.read(params.service)).desired
        if desired == params.desired_count:
            return "done"
        return "not_done" if desired == ServiceState.model_validate(before).desired else "unknown"

    async def undo(self, params: ScaleParams, before: State) -> Outcome:
        """The old count again, unless somebody has set a third one since."""
        old, now = ServiceState.model_validate(before).desired, (await self.read(params.service)).desired
        if now == old:
            return Outcome(detail=f"{params.service}: already back at {old} tasks")
        if now != params.desired_count:
            raise Refused(f"{params.service} was set to {now} tasks by somebody else; not undone.")
        return await self._set(params.service, old, f"{params.service}: {now} tasks -> {old} tasks")

    async def _set(self, service: str, count: int, detail: str) -> Outcome:
        cluster, name = _address(self.resources, service)
        answer = await AWS.write(self.client.update_service, cluster=cluster, service=name, desiredCount=count)
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)


class RollbackEcsService(ServiceOperation[ServiceParams]):
    """Goes back to the last version that was deployed successfully."""

    name = "rollback_ecs_service"
    summary = "Roll a service back to the last successfully deployed version before the present one"
    risk = "medium"
    reversible = True
    minutes = 5.0
    permissions = (
        "ecs:DescribeServices",
        "ecs:ListServiceDeployments",
        "ecs:DescribeServiceDeployments",
        "ecs:DescribeServiceRevisions",
        "ecs:DescribeTaskDefinition",
        "ecs:StopServiceDeployment",
        "ecs:UpdateService",
    )
    params = ServiceParams

    async def inspect(self, params: ServiceParams) -> State:
        """The service, the deployment under way, and the version to go back to."""
        state = await self.read(params.service)
        history = await self._history(params.service)
        under_way = next((d for d in history if d.get("status") in IN_FLIGHT), None)
        revisions = await self._sources(under_way) if under_way else _successful(history)
        previous = await self._other_version(revisions, state.primary)
        return RollbackState(
            **dict(state),
            in_flight=under_way.get("serviceDeploymentArn") if under_way else None,
            in_flight_status=under_way.get("status") if under_way else None,
            previous=previous,
            previous_status=await self._status(previous) if previous else None,
        ).model_dump(mode="json")

    def preview(self, params: ServiceParams, before: State) -> str:
        """From which version to which."""
        state = RollbackState.model_validate(before)
        _must_be_active(state)
        _must_be_on_ecs_controller(state)
        if state.in_flight_status not in (None, "IN_PROGRESS"):
            raise Refused(f"{params.service}: its deployment is {state.in_flight_status}; wait for its end.")
        if state.primary is None or state.previous is None:
            raise Refused(f"{params.service}: ECS lists no earlier successful deployment of another version.")
        if state.previous_status != "ACTIVE":
            raise Refused(f"{params.service}: {_short(state.previous)} is {state.previous_status}; register it anew.")
        how = "by stopping the deployment in progress" if state.in_flight else "by a rolling deployment"
        return f"{params.service}: {_short(state.primary.task_definition)} -> {_short(state.previous)}, {how}"

    async def execute(self, params: ServiceParams, before: State) -> Outcome:
        """StopServiceDeployment while one is in progress, else UpdateService."""
        detail = self.preview(params, before)
        state = RollbackState.model_validate(before)
        if state.in_flight is None:
            return await self._deploy(params.service, str(state.previous), detail)
        answer = await AWS.write(
            self.client.stop_service_deployment, serviceDeploymentArn=state.in_flight, stopType="ROLLBACK"
        )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    def lacking(self, params: ServiceParams, before: State, now: ServiceState) -> str:
        """The earlier version as PRIMARY deployment, at rest."""
        saved = RollbackState.model_validate(before)
        _must_not_have_failed(saved, now)
        if _version(now) != saved.previous:
            return f"{params.service} to run {_short(str(saved.previous))} (now {_short(_version(now))})"
        return _unrest(now)

    async def probe(self, params: ServiceParams, before: State) -> Probe:
        """Told by the version of the PRIMARY deployment, or by a deployment that is being stopped."""
        saved, now = RollbackState.model_validate(before), await self.read(params.service)
        if _version(now) == saved.previous or (saved.in_flight and await self._was_stopped(saved.in_flight)):
            return "done"
        return "unknown" if _new_deployments(saved, now) else "not_done"

    async def undo(self, params: ServiceParams, before: State) -> Outcome:
        """Forward again, unless somebody has deployed a third version since."""
        saved, now = RollbackState.model_validate(before), await self.read(params.service)
        if _version(now) == _version(saved):
            return Outcome(detail=f"{params.service}: runs {_short(_version(saved))} already")
        if _version(now) != saved.previous:
            raise Refused(f"{params.service} runs {_short(_version(now))}, deployed by somebody else; not undone.")
        detail = f"{params.service}: {_short(_version(now))} -> {_short(_version(saved))}"
        return await self._deploy(params.service, _version(saved), detail)

    async def _deploy(self, service: str, task_definition: str, detail: str) -> Outcome:
        cluster, name = _address(self.resources, service)
        answer = await AWS.write(
            self.client.update_service, cluster=cluster, service=name, taskDefinition=task_definition
        )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    async def _history(self, service: str) -> list["ServiceDeploymentBriefTypeDef"]:
        """The service's deployments, newest first."""
        cluster, name = _address(self.resources, service)
        answer = await AWS.read(
            self.client.list_service_deployments,
            cluster=cluster,
            service=name,
            status=["SUCCESSFUL", *IN_FLIGHT],
            maxResults=100,
        )
        return sorted(answer["serviceDeployments"], key=lambda d: d["createdAt"], reverse=True)

    async def _sources(self, under_way: "ServiceDeploymentBriefTypeDef") -> list[str]:
        """The revisions that the deployment under way replaces."""
        answer = await AWS.read(
            self.client.describe_service_deployments,
            serviceDeploymentArns=[under_way["serviceDeploymentArn"]],
        )
        found = answer["serviceDeployments"]
        return [source["arn"] for source in found[0].get("sourceServiceRevisions", [])] if found else []

    async def _other_version(self, revisions: list[str], primary: Deployment | None) -> str | None:
        """The task definition of the first revision that is not the PRIMARY's."""
        for start in range(0, len(revisions), MAX_REVISIONS):
            some = revisions[start : start + MAX_REVISIONS]
            answer = await AWS.read(self.client.describe_service_revisions, serviceRevisionArns=some)
            versions = {r["serviceRevisionArn"]: r["taskDefinition"] for r in answer["serviceRevisions"]}
            for revision in some:
                if revision in versions and primary and versions[revision] != primary.task_definition:
                    return versions[revision]
        return None

    async def _status(self, task_definition: str) -> str:
        answer = await AWS.read(self.client.describe_task_definition, taskDefinition=task_definition)
        return answer["taskDefinition"].get("status", "ACTIVE")

    async def _was_stopped(self, deployment: str) -> bool:
        answer = await AWS.read(self.client.describe_service_deployments, serviceDeploymentArns=[deployment])
        return any(d.get("status", "").startswith(("ROLLBACK_", "STOP")) for d in answer["serviceDeployments"])


OPERATIONS: tuple[type[EcsOperation[Any]], ...] = (
    CheckEcsHealth,
    RestartEcsTask,
    RestartAllServices,
    ScaleEcsService,
    RollbackEcsService,
)


class EcsExecutor:
    """All operations on ECS, and the one client they share."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, client: "ECSClient") -> None:
        self.client = client
        self.operations: Sequence[AnyOperation] = [kind(resources, clock, client) for kind in OPERATIONS]

    async def check(self) -> list[Check]:
        """See executors.base.Executor."""
        return await checks(Settings(), self.operations)

    async def aclose(self) -> None:
        """Release connections."""
        self.client.close()


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``ecs``. Raises ValueError naming a missing setting."""
    return EcsExecutor(resources, clock, cast("ECSClient", connect("ecs", Settings())))


# --- reading answers ----------------------------------------------------------------------------------------


def _address(resources: Mapping[str, Resource], service: str) -> tuple[str, str]:
    """Cluster and name in ECS."""
    entry = listed(resources, service)
    if entry.cluster is None or entry.ecs_service is None:
        raise Refused(f"{service} has no ECS service: add services.{service}.ecs (cluster, service) to autopilot.yaml.")
    return entry.cluster, entry.ecs_service


def _key(resources: Mapping[str, Resource], service: str) -> str:
    return "ecs:{}/{}".format(*_address(resources, service))


def _state(service: str, answer: "ServiceTypeDef") -> ServiceState:
    return ServiceState(
        service=service,
        status=answer.get("status", "ACTIVE"),
        controller=answer.get("deploymentController", {"type": "ECS"})["type"],
        scheduling=answer.get("schedulingStrategy", "REPLICA"),
        desired=answer.get("desiredCount", 0),
        running=answer.get("runningCount", 0),
        pending=answer.get("pendingCount", 0),
        deployments=tuple(
            Deployment(
                id=d["id"],
                status=d["status"],
                rollout=d.get("rolloutState"),
                reason=d.get("rolloutStateReason", ""),
                task_definition=d["taskDefinition"],
                created_at=d["createdAt"],
            )
            for d in answer.get("deployments", [])
        ),
        events=tuple(f"{e['createdAt']:%H:%M:%S} {e['message']}" for e in answer.get("events", [])[:EVENTS_SHOWN]),
    )


def _successful(history: "list[ServiceDeploymentBriefTypeDef]") -> list[str]:
    return [d["targetServiceRevisionArn"] for d in history if d.get("status") == "SUCCESSFUL"]


def _started(service: str, answer: "UpdateServiceResponseTypeDef") -> Outcome:
    primary = _state(service, answer["service"]).primary
    deployment = primary.id if primary else ""
    return Outcome(
        request_ids=(answer["ResponseMetadata"]["RequestId"],),
        detail=f"{service}: deployment {deployment} started",
        data={"deployment": deployment},
    )


def _each(params: ServicesParams, before: State) -> dict[str, State]:
    """The part of ``before`` that belongs to each service, in the order of the restart."""
    return {service: cast("State", before[service]) for service in params.services}


# --- judging them -------------------------------------------------------------------------------------------


def _must_be_active(state: ServiceState) -> None:
    if state.status != "ACTIVE":
        raise Refused(f"{state.service} is {state.status} in ECS.")


def _must_be_on_ecs_controller(state: ServiceState) -> None:
    if state.controller != "ECS":
        raise Refused(f"{state.service} is deployed by {state.controller}, not by ECS: deploy it there.")


def _must_accept_deployment(state: ServiceState) -> None:
    _must_be_active(state)
    _must_be_on_ecs_controller(state)
    for deployment in state.deployments:
        if deployment.rollout == "IN_PROGRESS":
            raise Refused(
                f"{state.service}: deployment {deployment.id} of {_short(deployment.task_definition)} is in"
                f" progress since {deployment.created_at:%H:%M:%S}; wait for its end or roll it back."
            )


def _must_not_have_failed(before: ServiceState, now: ServiceState) -> None:
    """A roll-out that failed stays failed: waiting longer would not help."""
    for new in _new_deployments(before, now):
        if new.rollout == "FAILED":
            raise ExecutorError(f"{now.service}: deployment {new.id} failed: {new.reason}. {_last_events(now)}")


def _new_deployments(before: ServiceState, now: ServiceState) -> list[Deployment]:
    old = {d.id for d in before.deployments}
    return [d for d in now.deployments if d.id not in old]


def _unrest(now: ServiceState) -> str:
    """What keeps a service from being at rest; empty if it is."""
    return "" if now.at_rest else f"{now.service} to come to rest: {now.progress}. {_last_events(now)}"


def _undeployed(before: ServiceState, now: ServiceState) -> str:
    """What keeps a service from being at rest on a new deployment; empty if it is."""
    _must_not_have_failed(before, now)
    if now.primary not in _new_deployments(before, now):
        return f"{now.service} to start a new deployment. {_last_events(now)}"
    return _unrest(now)


def _restarted(before: ServiceState, now: ServiceState) -> Probe:
    if now.primary not in _new_deployments(before, now):
        return "not_done"
    return "done" if _version(now) == _version(before) else "unknown"


def _version(state: ServiceState) -> str:
    return state.primary.task_definition if state.primary else ""


# --- wording ------------------------------------------------------------------------------------------------


def _short(task_definition: str) -> str:
    """``payment:42`` of an ARN."""
    return task_definition.rpartition("/")[2]


def _last_events(state: ServiceState) -> str:
    return "Last events: " + (" | ".join(state.events) or "none")


def _health(state: HealthState) -> str:
    checks = f"{state.healthy} healthy, {state.unhealthy} unhealthy, {state.unknown} without a health check"
    return f"{state.progress} ({checks})"


def _halted(params: ServicesParams, done: int, error: ExecutorError) -> str:
    """What was restarted before the failure, and what was left alone."""
    restarted, left = params.services[:done], params.services[done + 1 :]
    return (
        f"{params.services[done]}: {error}. Restarted before: {', '.join(restarted) or 'none'};"
        f" left alone: {', '.join(left) or 'none'}."
    )
