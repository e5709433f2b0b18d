"""Restarts ECS services, by rolling deployments of the same version."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field, field_validator

from executors import _ecs_state as judging
from executors._aws import settled
from executors._aws_service import ServiceParams
from executors._ecs_operation import AWS, DEADLINE_S, EcsOperation, ServiceOperation
from executors._ecs_state import ServiceState, address
from executors.base import (
    Capacity,
    Change,
    ExecutorError,
    Grant,
    Model,
    Outcome,
    OutcomeUnknown,
    PartlyDone,
    PreflightCheck,
    Probe,
    Refused,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient


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
        _must_be_restartable(state)
        return f"{params.service}: {state.desired} tasks -> {state.desired} new tasks of the same version"

    def changes(self, params: ServiceParams, before: State) -> tuple[Change, ...]:
        """The tasks, by new ones."""
        self.preview(params, before)
        return (judging.replaced(ServiceState.model_validate(before)),)

    def capacity(self, params: ServiceParams, before: State) -> Capacity:
        """By the deployment's minimum healthy percent."""
        return judging.while_deploying(ServiceState.model_validate(before))

    async def execute(self, params: ServiceParams, before: State) -> Outcome:
        """One UpdateService with forceNewDeployment."""
        self.preview(params, before)
        async with self.ecs.acting(self.name, self.grants(params, before)) as client:
            return await _restart(client, self.resources, params.service)

    def lacking(self, params: ServiceParams, before: State, now: ServiceState) -> str:
        """A deployment that was not there before, at rest."""
        return judging.undeployed(ServiceState.model_validate(before), now)

    async def probe(self, params: ServiceParams, before: State) -> Probe:
        """Done if there is a new PRIMARY deployment; one of another version is somebody else's."""
        return judging.restarted(ServiceState.model_validate(before), await self.read(params.service))


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
        return ",".join(sorted(judging.key(self.resources, service) for service in params.services))

    async def inspect(self, params: ServicesParams) -> State:
        """Every service as it is now, by name."""
        return {s.service: s.model_dump(mode="json") for s in await self._read_all(params)}

    def preview(self, params: ServicesParams, before: State) -> str:
        """All of them, or a refusal if one of them must not be restarted now."""
        states = _each(params, before)
        for state in states:
            _must_be_restartable(state)
        return "; ".join(f"{s.service}: {s.desired} tasks -> {s.desired} new tasks of the same version" for s in states)

    def pinned(self, params: ServicesParams, before: State) -> State:
        """What is pinned of each service, by name."""
        return {state.service: judging.pins(state) for state in _each(params, before)}

    def changes(self, params: ServicesParams, before: State) -> tuple[Change, ...]:
        """One line per service."""
        self.preview(params, before)
        return tuple(map(judging.replaced, _each(params, before)))

    async def preflight(self, params: ServicesParams, before: State) -> tuple[PreflightCheck, ...]:
        """State, deployment in flight and owner of each, and the permissions for all."""
        looked_at = [
            look(state)
            for state in _each(params, before)
            for look in (judging.standing, judging.in_flight, judging.owner)
        ]
        return (*looked_at, *await self.ecs.permitted(self.grants(params, before)))

    def capacity(self, params: ServicesParams, before: State) -> Capacity:
        """Of the service that keeps the smallest part of its tasks."""
        every = [judging.while_deploying(state) for state in _each(params, before)]
        return min(every, key=lambda one: one.servers_then / max(one.servers_now, 1))

    def grants(self, params: ServicesParams, before: State) -> tuple[Grant, ...]:
        """UpdateService on each of these services."""
        return (Grant(actions=("ecs:UpdateService",), resources=tuple(s.arn for s in _each(params, before))),)

    async def execute(self, params: ServicesParams, before: State) -> Outcome:
        """One UpdateService per service; after a failure no further call is made."""
        self.preview(params, before)
        async with self.ecs.acting(self.name, self.grants(params, before)) as client:
            done = await self._restart_each(client, params)
        return Outcome(
            request_ids=tuple(i for outcome in done for i in outcome.request_ids),
            detail="; ".join(outcome.detail for outcome in done),
        )

    async def _restart_each(self, client: "ECSClient", params: ServicesParams) -> list[Outcome]:
        done: list[Outcome] = []
        for service in params.services:
            try:
                done.append(await _restart(client, self.resources, service))
            except OutcomeUnknown as error:
                raise OutcomeUnknown(_halted(params, len(done), error)) from error
            except ExecutorError as error:
                kind = PartlyDone if done else ExecutorError
                raise kind(_halted(params, len(done), error)) from error
        return done

    async def settle(self, params: ServicesParams, before: State) -> State:
        """Waits up to 8 minutes until every service is at rest on its new deployment."""
        befores = _each(params, before)
        states = await settled(
            self.clock,
            lambda: self._read_all(params),
            lambda nows: "; ".join(filter(None, map(judging.undeployed, befores, nows))),
            DEADLINE_S,
        )
        return {s.service: s.model_dump(mode="json") for s in states}

    async def probe(self, params: ServicesParams, before: State) -> Probe:
        """Done if every service was restarted, not done if none was; in between a person must look."""
        answers = set(map(judging.restarted, _each(params, before), await self._read_all(params)))
        return answers.pop() if len(answers) == 1 else "unknown"

    async def _read_all(self, params: ServicesParams) -> list[ServiceState]:
        return [await self.read(service) for service in params.services]


async def _restart(client: "ECSClient", resources: Mapping[str, Resource], service: str) -> Outcome:
    """One UpdateService. Raises ExecutorError, OutcomeUnknown."""
    cluster, name = address(resources, service)
    answer = await AWS.write(client.update_service, cluster=cluster, service=name, forceNewDeployment=True)
    primary = judging.read_state(service, answer["service"]).primary
    deployment = primary.id if primary else ""
    return Outcome(
        request_ids=(answer["ResponseMetadata"]["RequestId"],),
        detail=f"{service}: deployment {deployment} started",
        data={"deployment": deployment},
    )


def _must_be_restartable(state: ServiceState) -> None:
    judging.must_accept_deployment(state)
    if state.desired == 0:
        raise Refused(f"{state.service} runs no tasks: there is nothing to restart; scale it instead.")


def _each(params: ServicesParams, before: State) -> list[ServiceState]:
    """The state of each service before, in the order of the restart."""
    return [ServiceState.model_validate(before[service]) for service in params.services]


def _halted(params: ServicesParams, done: int, error: ExecutorError) -> str:
    """What was restarted before the failure, and what was left alone."""
    restarted, left = params.services[:done], params.services[done + 1 :]
    return (
        f"{params.services[done]}: {error}. Restarted before: {', '.join(restarted) or 'none'};"
        f" left alone: {', '.join(left) or 'none'}."
    )
