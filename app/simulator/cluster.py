"""The shop's ECS cluster: services, tasks, rolling deployments and their history. Times are epoch seconds."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from pydantic import JsonValue

from app.simulator.aws_errors import AwsError
from app.simulator.releases import SOUND, Defect, Defects, defect
from app.simulator.topology import (
    ACCOUNT,
    CLUSTER,
    REGION,
    SERVICES,
    ServiceSpec,
    service_arn,
    task_definition_arn,
)

API_USER = "autopilot"  # who calls the shop's AWS API
STARTS_IN_S = 30.0  # from RunTask to a passed health check
BAKES_S = 10.0  # a deployment is steady for so long before it counts as completed
STOPPED_KEPT_S = 3600.0
HISTORY = 60  # stopped tasks and service deployments kept per service
EVENTS = 100  # as ECS keeps

RolloutState = Literal["IN_PROGRESS", "COMPLETED", "FAILED"]
DeploymentStatus = Literal["IN_PROGRESS", "SUCCESSFUL", "STOPPED", "ROLLBACK_IN_PROGRESS", "ROLLBACK_SUCCESSFUL"]


@dataclass(frozen=True)
class TaskDefinition:
    """One revision of a family."""

    family: str
    revision: int
    version: str
    registered_at: float

    @property
    def arn(self) -> str:
        """Full ARN with revision."""
        return task_definition_arn(self.family, self.revision)

    @property
    def image(self) -> str:
        """The container image it runs."""
        return f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/shop/{self.family}:{self.version}"


@dataclass
class Task:
    """One running (or stopped) copy of a service."""

    id: str
    ip: str
    definition: TaskDefinition
    deployment: str
    created_at: float
    running_at: float
    stopped_at: float | None = None
    stopped_reason: str = ""
    unhealthy: bool = False  # fails the load balancer's health check
    hung: bool = False  # it passes its health check and answers nothing else
    exit_code: int = 143

    def running(self, at: float) -> bool:
        """It has started and was not stopped."""
        return self.stopped_at is None and at >= self.running_at

    @property
    def host(self) -> str:
        """The name it reports its telemetry under."""
        return "ip-" + self.ip.replace(".", "-")

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{CLUSTER}/{self.id}"


@dataclass
class Deployment:
    """One roll-out, in both of ECS's views: ``deployments`` of a service, and the service deployment history."""

    id: str
    definition: TaskDefinition
    source: TaskDefinition | None
    created_at: float
    reason: str = ""
    finished_at: float | None = None
    status: DeploymentStatus = "IN_PROGRESS"
    rolling_back: str = ""  # why, if it is being rolled back
    failed_tasks: int = 0

    @property
    def rollout_state(self) -> RolloutState:
        """As in DescribeServices."""
        if self.status in ("SUCCESSFUL", "ROLLBACK_SUCCESSFUL"):
            return "COMPLETED"
        return "FAILED" if self.status == "STOPPED" else "IN_PROGRESS"


@dataclass(frozen=True)
class Happening:
    """Something that was changed, as a change feed would tell it.

    ``asked`` is how ``operation`` of AWS is asked for it; empty: it did not go through AWS.
    """

    at: float
    service: str
    kind: Literal["deployment", "scaling", "configuration", "feature_flag", "job"]
    title: str
    version: str
    author: str
    asked: Mapping[str, JsonValue] = field(default_factory=dict)
    operation: str = "UpdateService"
    source: str = "ecs.amazonaws.com"


@dataclass
class EcsService:
    """One ECS service."""

    spec: ServiceSpec
    desired: int
    definitions: dict[int, TaskDefinition]
    deployments: list[Deployment]  # newest first; the first is PRIMARY
    tasks: list[Task] = field(default_factory=list)
    stopped: deque[Task] = field(default_factory=lambda: deque(maxlen=HISTORY))
    history: deque[Deployment] = field(default_factory=lambda: deque(maxlen=HISTORY))  # newest first
    events: deque[tuple[str, float, str]] = field(default_factory=lambda: deque(maxlen=EVENTS))  # newest first
    created_at: float = 0.0

    @property
    def name(self) -> str:
        """Also the task definition family."""
        return self.spec.name

    @property
    def arn(self) -> str:
        """Its ARN."""
        return service_arn(self.name)

    @property
    def primary(self) -> Deployment:
        """The deployment that is wanted."""
        return self.deployments[0]

    def running(self, at: float) -> list[Task]:
        """Tasks that run, oldest first."""
        return [task for task in self.tasks if task.running(at)]


class Cluster:
    """All ECS services of the shop; :meth:`step` lets deployments proceed."""

    def __init__(self, random: Random, now: float, defects: Defects | None = None) -> None:
        self._random = random
        self._defects: Defects = defects or {}
        self.happenings: deque[Happening] = deque(maxlen=500)
        self.services = {name: self._found(spec, now) for name, spec in SERVICES.items() if spec.tasks}

    # --- requests ---------------------------------------------------------------------------------------------

    def service(self, name: str) -> EcsService:
        """By name or ARN. Raises AwsError."""
        found = self.services.get(name.rsplit("/", 1)[-1])
        if found is None:
            raise AwsError("ServiceNotFoundException", "Service not found.")
        return found

    def update(
        self,
        name: str,
        at: float,
        *,
        desired: int | None = None,
        definition: str | None = None,
        force: bool = False,
        author: str = API_USER,
    ) -> EcsService:
        """UpdateService. A desired count alone starts no deployment. Raises AwsError."""
        service = self.service(name)
        if desired is not None and desired < 0:
            raise AwsError("InvalidParameterException", "desiredCount must be 0 or more.")
        wanted = self.definition(definition) if definition else service.primary.definition
        if wanted.family != service.name:
            raise AwsError("InvalidParameterException", "The task definition has another container name.")
        if desired is not None and desired != service.desired:
            self._scale(service, desired, at, author)
        if force or wanted != service.primary.definition:
            self._deploy(service, wanted, at, "forced" if force else "updated", author)
        self._roll(service, at)
        return service

    def definition(self, name: str) -> TaskDefinition:
        """By ARN, ``family:revision`` or ``family`` (its latest). Raises AwsError."""
        family, _, revision = name.rsplit("/", 1)[-1].partition(":")
        service = self.services.get(family)
        if service is not None and not revision:
            return service.definitions[max(service.definitions)]
        if service is not None and revision.isdigit() and int(revision) in service.definitions:
            return service.definitions[int(revision)]
        raise AwsError("ClientException", "Unable to describe task definition.")

    def register(self, family: str, version: str, at: float) -> TaskDefinition:
        """A new revision."""
        service = self.service(family)
        revision = max(service.definitions) + 1
        service.definitions[revision] = TaskDefinition(family, revision, version, at)
        return service.definitions[revision]

    def stop_deployment(self, deployment_id: str, stop_type: str, at: float) -> None:
        """StopServiceDeployment with ROLLBACK. Raises AwsError."""
        service, deployment = self.deployment(deployment_id)
        if deployment.status != "IN_PROGRESS" or deployment is not service.primary:
            raise AwsError("ConflictException", "The service deployment is not in progress.")
        if stop_type != "ROLLBACK" or deployment.source is None:
            raise AwsError("InvalidParameterException", "Only ROLLBACK is possible for this deployment.")
        deployment.status, deployment.rolling_back = "ROLLBACK_IN_PROGRESS", "Stopped by user request"
        self._tell(service, at, f"(deployment {deployment.id}) is being rolled back.")
        replacement = Deployment(self._id("ecs-svc/"), deployment.source, deployment.definition, at, "rollback")
        service.deployments.insert(0, replacement)
        self._roll(service, at)

    def deployment(self, deployment_id: str) -> tuple[EcsService, Deployment]:
        """By the last part of its id or ARN. Raises AwsError."""
        wanted = deployment_id.rsplit("/", 1)[-1]
        for service in self.services.values():
            for deployment in service.history:
                if deployment.id.endswith("/" + wanted):
                    return service, deployment
        raise AwsError("ServiceDeploymentNotFoundException", "Service deployment not found.")

    def stop_task(self, task_id: str, reason: str, at: float) -> Task:
        """StopTask; the service starts another. Raises AwsError."""
        for service in self.services.values():
            for task in service.tasks:
                if task_id in (task.id, task.arn):
                    self._stop(service, task, at, reason or "Task stopped by user")
                    self._roll(service, at)
                    return task
        raise AwsError("InvalidParameterException", "The referenced task was not found.")

    # --- time -------------------------------------------------------------------------------------------------

    def step(self, at: float) -> None:
        """Let every service start, stop and settle tasks as ECS would by now."""
        for service in self.services.values():
            self._bury(service, at)
            self._roll(service, at)
            while service.stopped and at - (service.stopped[-1].stopped_at or at) > STOPPED_KEPT_S:
                service.stopped.pop()

    def defect(self, task: Task) -> Defect:
        """Of the release that it runs."""
        return defect(self._defects, task.definition.family, task.definition.version) if self._defects else SOUND

    def _bury(self, service: EcsService, at: float) -> None:
        """Stop the tasks whose process has ended."""
        for task in service.running(at):
            lives = self.defect(task).dies_after_s
            if lives is not None and at >= task.running_at + lives:
                task.exit_code = 1
                self._deployment_of(service, task).failed_tasks += 1
                self._stop(service, task, at, "Essential container in task exited")

    def _deployment_of(self, service: EcsService, task: Task) -> Deployment:
        return next((d for d in service.deployments if d.id == task.deployment), service.primary)

    def _roll(self, service: EcsService, at: float) -> None:
        """New tasks first where the ceiling leaves room, else old ones go first; one for one in both cases."""
        new, old = self._by_deployment(service)
        old.sort(key=lambda task: (task.running(at), task.created_at))
        up = sum(task.running(at) for task in new)
        why = f"Scaling activity initiated by (deployment {service.primary.id})"
        first = 1 if _ceiling(service) == service.desired and up == len(new) else 0
        while old and up + len(old) > service.desired - first:
            self._stop(service, old.pop(0), at, why)
        while len(new) > service.desired:
            self._stop(service, new.pop(), at, why)
        while len(new) < service.desired and len(new) + len(old) < _ceiling(service):
            new.append(self._start(service, at))
        self._settle(service, new, old, at)

    def _settle(self, service: EcsService, new: list[Task], old: list[Task], at: float) -> None:
        primary = service.primary
        if old or primary.rollout_state != "IN_PROGRESS" or len(new) != service.desired:
            return
        if any(at < task.running_at + BAKES_S for task in new):
            return
        primary.status, primary.finished_at = "SUCCESSFUL", at
        for deployment in service.deployments[1:]:
            if deployment.status == "ROLLBACK_IN_PROGRESS":
                deployment.status, deployment.finished_at = "ROLLBACK_SUCCESSFUL", at
            elif deployment.status == "IN_PROGRESS":
                deployment.status, deployment.finished_at = "STOPPED", at
        service.deployments = [primary]
        self._tell(service, at, f"(deployment {primary.id}) deployment completed.")
        self._tell(service, at, "has reached a steady state.")

    # --- pieces -----------------------------------------------------------------------------------------------

    def _found(self, spec: ServiceSpec, now: float) -> EcsService:
        """A service as it stood for days: one version running, a few earlier ones in its history."""
        versions = _versions_until(spec.version, 4)
        definitions = {
            revision: TaskDefinition(spec.name, revision, version, now - days * 86400.0 - 5400.0)
            for revision, version, days in zip(
                range(spec.revision - 3, spec.revision + 1), versions, (23, 16, 9, 3), strict=True
            )
        }
        service = EcsService(spec, spec.tasks, definitions, [], created_at=now - 400 * 86400.0)
        earlier: TaskDefinition | None = None
        for definition in definitions.values():
            at = definition.registered_at + 240.0
            done = Deployment(self._id("ecs-svc/"), definition, earlier, at, "updated", at + 80.0, "SUCCESSFUL")
            service.history.appendleft(done)
            earlier = definition
        service.deployments = [service.history[0]]
        started = service.primary.created_at
        service.tasks = [self._task(service, started + 30 * i) for i in range(spec.tasks)]
        self._tell(service, started + 90.0, "has reached a steady state.")
        return service

    def _deploy(self, service: EcsService, definition: TaskDefinition, at: float, reason: str, author: str) -> None:
        before = service.primary
        if before.status == "IN_PROGRESS":
            before.status, before.finished_at = "STOPPED", at
        deployment = Deployment(self._id("ecs-svc/"), definition, before.definition, at, reason)
        service.deployments.insert(0, deployment)
        service.history.appendleft(deployment)
        what, asked = (
            f"Deployed {service.name} {definition.version}",
            dict[str, JsonValue](taskDefinition=definition.arn),
        )
        if definition == before.definition:
            what = f"Restarted {service.name} {definition.version} (force new deployment)"
            asked = {"forceNewDeployment": True}
        self.happenings.append(Happening(at, service.name, "deployment", what, definition.version, author, asked))

    def _scale(self, service: EcsService, desired: int, at: float, author: str) -> None:
        title = f"Scaled {service.name} from {service.desired} to {desired} tasks"
        service.desired = desired
        version = service.primary.definition.version
        asked: dict[str, JsonValue] = {"desiredCount": desired}
        self.happenings.append(Happening(at, service.name, "scaling", title, version, author, asked))

    def _by_deployment(self, service: EcsService) -> tuple[list[Task], list[Task]]:
        new = [task for task in service.tasks if task.deployment == service.primary.id]
        return new, [task for task in service.tasks if task.deployment != service.primary.id]

    def _task(self, service: EcsService, at: float) -> Task:
        ip = f"10.0.{self._random.randrange(1, 4)}.{self._random.randrange(10, 250)}"
        primary = service.primary
        return Task(self._id(""), ip, primary.definition, primary.id, at, at + STARTS_IN_S)

    def _start(self, service: EcsService, at: float) -> Task:
        task = self._task(service, at)
        service.tasks.append(task)
        self._tell(service, at, f"has started 1 tasks: (task {task.id}).")
        return task

    def _stop(self, service: EcsService, task: Task, at: float, reason: str) -> None:
        task.stopped_at, task.stopped_reason = at, reason
        service.tasks.remove(task)
        service.stopped.appendleft(task)
        self._tell(service, at, f"has stopped 1 running tasks: (task {task.id}).")

    def _tell(self, service: EcsService, at: float, message: str) -> None:
        service.events.appendleft((self._id(""), at, f"(service {service.name}) {message}"))

    def _id(self, prefix: str) -> str:
        if prefix:
            return f"{prefix}{self._random.randrange(10**18, 10**19)}"
        return f"{self._random.getrandbits(128):032x}"


def _ceiling(service: EcsService) -> int:
    """How many tasks may exist while a deployment rolls."""
    return max(math.floor(service.desired * service.spec.maximum_percent / 100), service.desired)


def _versions_until(version: str, count: int) -> Iterator[str]:
    """The last few versions up to this one, by patch number."""
    stem, _, patch = version.rpartition(".")
    first = max(int(patch) - count + 1, 0)
    earlier = [f"{stem}.{number}" for number in range(first, int(patch))]
    while len(earlier) < count - 1:
        earlier.insert(0, f"{_minor_before(stem)}.{9 - len(earlier)}")
    yield from (*earlier, version)


def _minor_before(stem: str) -> str:
    major, _, minor = stem.rpartition(".")
    return f"{major}.{max(int(minor) - 1, 0)}"
