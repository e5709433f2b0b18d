"""What the operations on ECS services have in common: parameters, reading, and what is looked at before."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeAlias, TypeVar

from pydantic import Field

from executors import _ecs_state as judging
from executors._aws import Api, Connection, settled
from executors._aws_service import ServiceParams
from executors._ecs_state import ServiceState, address, short
from executors._scalable_target import Autoscaler
from executors.base import (
    Clock,
    ExecutorError,
    Grant,
    Model,
    Operation,
    P,
    PreflightCheck,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import TaskTypeDef

AWS = Api(iam_prefix="ecs")
DEADLINE_S = 8 * 60.0
Ecs: TypeAlias = "Connection[ECSClient]"


class Task(Model):
    """One task as DescribeTasks has it."""

    arn: str
    status: str = Field(description="lastStatus, e.g. RUNNING")
    health: str = Field(description="HEALTHY, UNHEALTHY, UNKNOWN")
    started: str = Field(default="", description="ISO 8601")

    @property
    def serves(self) -> bool:
        """Whether it may be taking requests; without a health check nobody knows better."""
        return self.status == "RUNNING" and self.health != "UNHEALTHY"

    @property
    def said(self) -> str:
        """``0815abcd (RUNNING, UNHEALTHY)``."""
        return f"{short(self.arn)} ({self.status}, {self.health})"


S = TypeVar("S", bound=ServiceParams)


class EcsOperation(Operation[P]):
    """Reads services of the catalogue. ``resource`` needs nothing but ``resources``."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, ecs: Ecs, autoscaler: Autoscaler) -> None:
        self.resources, self.clock, self.ecs, self.autoscaler = resources, clock, ecs, autoscaler

    def lacks(self, resource: Resource) -> str:
        """An ECS service."""
        return judging.lacks_service(resource)

    async def read(self, service: str) -> ServiceState:
        """The service as it is now. Raises ExecutorError."""
        cluster, name = address(self.resources, service)
        answer = await AWS.read(self.ecs.reader.describe_services, cluster=cluster, services=[name])
        if not answer["services"]:
            reason = answer["failures"][0].get("reason", "") if answer["failures"] else "no reason given"
            raise ExecutorError(f"ECS knows no service {name} in cluster {cluster}: {reason}")
        return judging.read_state(service, answer["services"][0])

    async def read_tasks(self, service: str) -> list[Task]:
        """The tasks that ECS wants to run for the service, up to 100."""
        cluster, name = address(self.resources, service)
        running = await AWS.read(
            self.ecs.reader.list_tasks, cluster=cluster, serviceName=name, desiredStatus="RUNNING", maxResults=100
        )
        if not running["taskArns"]:
            return []
        answer = await AWS.read(self.ecs.reader.describe_tasks, cluster=cluster, tasks=running["taskArns"])
        return [_task(task) for task in answer["tasks"]]


class ServiceOperation(EcsOperation[S]):
    """What the operations on one service have in common."""

    state: ClassVar[type[ServiceState]] = ServiceState

    def resource(self, params: S) -> str:
        """``ecs:<cluster>/<service>``."""
        return judging.key(self.resources, params.service)

    async def inspect(self, params: S) -> State:
        """The service as it is now."""
        return (await self.read(params.service)).model_dump(mode="json")

    def pinned(self, params: S, before: State) -> State:
        """Desired tasks, task definition, deployment in flight, and who deploys."""
        return {} if self.read_only else judging.pins(self.state.model_validate(before))

    async def preflight(self, params: S, before: State) -> tuple[PreflightCheck, ...]:
        """State, deployment in flight, owner and permissions."""
        state = self.state.model_validate(before)
        return (*self.looked_at(params, state), *await self.ecs.permitted(self.grants(params, before)))

    def looked_at(self, params: S, state: ServiceState) -> tuple[PreflightCheck, ...]:
        """What the state that was read tells."""
        return (judging.standing(state), judging.in_flight(state), judging.owner(state))

    def grants(self, params: S, before: State) -> tuple[Grant, ...]:
        """UpdateService on this service."""
        return (Grant(actions=("ecs:UpdateService",), resources=(self.state.model_validate(before).arn,)),)

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
        return judging.unrest(now)


def _task(answer: "TaskTypeDef") -> Task:
    started = answer.get("startedAt")
    return Task(
        arn=answer.get("taskArn", ""),
        status=answer.get("lastStatus", "UNKNOWN"),
        health=answer.get("healthStatus", "UNKNOWN"),
        started=started.isoformat() if started else "",
    )
