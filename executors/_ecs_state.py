"""What ECS says of a service, as the operations on ECS judge it and word it."""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import Field

from executors._aws import listed
from executors.base import Capacity, Change, ExecutorError, Model, PreflightCheck, Probe, Refused, Resource, State

if TYPE_CHECKING:
    from mypy_boto3_ecs.type_defs import ServiceTypeDef, TaskDefinitionTypeDef

EVENTS_SHOWN = 3


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
    arn: str = ""
    status: str
    controller: str
    scheduling: str
    strategy: str = Field(default="ROLLING", description="or BLUE_GREEN, LINEAR, CANARY: those keep the old tasks")
    minimum_healthy_percent: int = Field(default=100, description="Of desired, that run during a rolling deployment")
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
    def version(self) -> str:
        """The ARN of the PRIMARY deployment's task definition; empty if there is none."""
        return self.primary.task_definition if self.primary else ""

    @property
    def under_way(self) -> Deployment | None:
        """The roll-out in progress."""
        return next((d for d in self.deployments if d.rollout == "IN_PROGRESS"), None)

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


# --- reading answers ----------------------------------------------------------------------------------------


def address(resources: Mapping[str, Resource], service: str) -> tuple[str, str]:
    """Cluster and name in ECS. Raises Refused if the catalogue does not name them."""
    entry = listed(resources, service)
    if entry.cluster is None or entry.ecs_service is None:
        raise Refused(f"{service} has no ECS service: add services.{service}.ecs (cluster, service) to autopilot.yaml.")
    return entry.cluster, entry.ecs_service


def key(resources: Mapping[str, Resource], service: str) -> str:
    """``ecs:<cluster>/<service>``: one action at a time on it. Raises Refused."""
    return "ecs:{}/{}".format(*address(resources, service))


def lacks_service(resource: Resource) -> str:
    """What the catalogue does not name and ECS needs; empty if nothing."""
    if resource.cluster and resource.ecs_service:
        return ""
    return f"no ECS service: add services.{resource.service}.ecs to autopilot.yaml"


def read_state(service: str, answer: "ServiceTypeDef") -> ServiceState:
    """The service of that name in the catalogue, from its part of an answer."""
    configuration = answer.get("deploymentConfiguration", {})
    return ServiceState(
        service=service,
        arn=answer.get("serviceArn", ""),
        status=answer.get("status", "ACTIVE"),
        controller=answer.get("deploymentController", {"type": "ECS"})["type"],
        scheduling=answer.get("schedulingStrategy", "REPLICA"),
        strategy=configuration.get("strategy", "ROLLING"),
        minimum_healthy_percent=configuration.get("minimumHealthyPercent", 100),
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


class Version(Model):
    """What a task definition runs, as far as a change of version changes it."""

    task_definition: str = Field(description="ARN with revision")
    status: str = Field(default="ACTIVE", description="or INACTIVE: it cannot be deployed")
    images: dict[str, str] = Field(default_factory=dict, description="By container")
    secrets: tuple[str, ...] = Field(default=(), description="ARNs or names that the containers are started with")


def read_version(arn: str, answer: "TaskDefinitionTypeDef") -> Version:
    """A task definition, from its part of an answer."""
    containers = answer.get("containerDefinitions", [])
    return Version(
        task_definition=arn,
        status=answer.get("status", "ACTIVE"),
        images={c.get("name", ""): c.get("image", "") for c in containers},
        secrets=tuple(sorted({secret["valueFrom"] for c in containers for secret in c.get("secrets", [])})),
    )


# --- judging them -------------------------------------------------------------------------------------------


def must_be_active(state: ServiceState) -> None:
    """Raises Refused if the service is being deleted."""
    if state.status != "ACTIVE":
        raise Refused(f"{state.service} is {state.status} in ECS.")


def must_be_on_ecs_controller(state: ServiceState) -> None:
    """Raises Refused if somebody else deploys the service."""
    if state.controller != "ECS":
        raise Refused(f"{state.service} is deployed by {state.controller}, not by ECS: deploy it there.")


def must_accept_deployment(state: ServiceState) -> None:
    """Raises Refused if a new deployment must not be started now."""
    must_be_active(state)
    must_be_on_ecs_controller(state)
    if deployment := state.under_way:
        raise Refused(
            f"{state.service}: deployment {deployment.id} of {short(deployment.task_definition)} is in"
            f" progress since {deployment.created_at:%H:%M:%S}; wait for its end or roll it back."
        )


def must_not_have_failed(before: ServiceState, now: ServiceState) -> None:
    """A roll-out that failed stays failed: waiting longer would not help. Raises ExecutorError."""
    for new in new_deployments(before, now):
        if new.rollout == "FAILED":
            raise ExecutorError(f"{now.service}: deployment {new.id} failed: {new.reason}. {last_events(now)}")


def new_deployments(before: ServiceState, now: ServiceState) -> list[Deployment]:
    """Those that were not there before."""
    old = {d.id for d in before.deployments}
    return [d for d in now.deployments if d.id not in old]


def unrest(now: ServiceState) -> str:
    """What keeps a service from being at rest; empty if it is."""
    return "" if now.at_rest else f"{now.service} to come to rest: {now.progress}. {last_events(now)}"


def undeployed(before: ServiceState, now: ServiceState) -> str:
    """What keeps a service from being at rest on a new deployment; empty if it is. Raises ExecutorError."""
    must_not_have_failed(before, now)
    if now.primary not in new_deployments(before, now):
        return f"{now.service} to start a new deployment. {last_events(now)}"
    return unrest(now)


def restarted(before: ServiceState, now: ServiceState) -> Probe:
    """Done if there is a new PRIMARY deployment; one of another version is somebody else's."""
    if now.primary not in new_deployments(before, now):
        return "not_done"
    return "done" if now.version == before.version else "unknown"


# --- before a person sees it --------------------------------------------------------------------------------


def pins(state: ServiceState) -> State:
    """What people, deployments and scaling policies set."""
    under_way = state.under_way
    return {
        "desired tasks": state.desired,
        "task definition": state.version,
        "deployment in flight": under_way.id if under_way else None,
        "deployed by": state.controller,
    }


def while_deploying(state: ServiceState) -> Capacity:
    """A rolling deployment may go down to the minimum healthy percent of the desired count, rounded up."""
    kept = math.ceil(state.desired * state.minimum_healthy_percent / 100)
    lowest = min(state.running, kept) if state.strategy == "ROLLING" else state.running
    return Capacity(service=state.service, servers_now=state.running, servers_then=lowest)


def standing(state: ServiceState) -> PreflightCheck:
    """Whether the service is in a state that allows a change."""
    if state.status != "ACTIVE":
        return PreflightCheck(name="state", status="failed", detail=f"{state.service} is {state.status} in ECS")
    wanting = state.running < state.desired
    return PreflightCheck(
        name="state", status="warning" if wanting else "ok", detail=f"{state.service}: {state.progress}"
    )


def in_flight(state: ServiceState) -> PreflightCheck:
    """Whether a deployment is under way that a new one would run into."""
    if (deployment := state.under_way) is None:
        return PreflightCheck(name="deployment", status="ok", detail=f"{state.service}: none in progress")
    detail = (
        f"{state.service}: {deployment.id} of {short(deployment.task_definition)} is in progress since"
        f" {deployment.created_at:%H:%M:%S}"
    )
    return PreflightCheck(name="deployment", status="failed", detail=detail)


def owner(state: ServiceState) -> PreflightCheck:
    """Whether somebody else than ECS deploys the service."""
    if state.controller == "ECS":
        return PreflightCheck(name="gitops", status="ok", detail=f"{state.service} is deployed by ECS itself")
    detail = f"{state.service} is deployed by {state.controller}, not by ECS: deploy it there"
    return PreflightCheck(name="gitops", status="failed", detail=detail)


def replaced(state: ServiceState) -> Change:
    """A restart as a line of before and after."""
    old = f"{state.running} of {short(state.version)}"
    return Change(what=f"tasks of {state.service}", before=old, after=f"{state.desired} new of {short(state.version)}")


# --- wording ------------------------------------------------------------------------------------------------


def short(arn: str) -> str:
    """``payment:42`` of a task definition's ARN, the id of a task's."""
    return arn.rpartition("/")[2]


def last_events(state: ServiceState) -> str:
    """The service's last events as a sentence."""
    return "Last events: " + (" | ".join(state.events) or "none")
