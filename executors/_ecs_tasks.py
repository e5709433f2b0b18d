"""Looks at the tasks of an ECS service, and stops one of them."""

from typing import cast

from pydantic import Field

from executors import _ecs_state as judging
from executors._aws import settled
from executors._aws_service import ServiceParams
from executors._ecs_operation import AWS, DEADLINE_S, ServiceOperation, Task
from executors._ecs_state import ServiceState, address, short
from executors.base import (
    Capacity,
    Change,
    ExecutorError,
    Grant,
    Outcome,
    PreflightCheck,
    Probe,
    Refused,
    State,
)

UNHEALTHIEST = "unhealthiest"
REASON = "Stopped by AIOps Auto Pilot, as a person approved"


class TaskParams(ServiceParams):
    """One task of a service."""

    task: str = Field(
        default=UNHEALTHIEST,
        pattern=rf"^({UNHEALTHIEST}|[0-9a-f]{{8,64}}|arn:aws[a-z-]*:ecs:[a-z0-9-]+:[0-9]+:task/[A-Za-z0-9_/-]+)$",
        description="Its id or ARN, or unhealthiest: the one in the worst state when the plan is made",
    )


class HealthState(ServiceState):
    """A service and the health of its tasks; one without a container health check is UNKNOWN to ECS."""

    healthy: int
    unhealthy: int
    unknown: int


class TaskState(ServiceState):
    """A service, and which of its tasks is to be stopped."""

    task: Task
    others_serving: int = Field(description="Its other tasks that may be taking requests")


class CheckEcsHealth(ServiceOperation[ServiceParams]):
    """Reads whether a service is healthy; changes nothing."""

    name = "check_ecs_health"
    summary = "Check that all tasks of a service run, are healthy, and that no roll-out is stuck"
    risk = "none"
    read_only = True
    permissions = ("ecs:DescribeServices", "ecs:ListTasks", "ecs:DescribeTasks")
    params = ServiceParams
    state = HealthState

    async def read(self, service: str) -> HealthState:
        """The service and the health of its running tasks."""
        state = await super().read(service)
        health = [task.health for task in await self.read_tasks(service)]
        return HealthState(
            **dict(state),
            healthy=health.count("HEALTHY"),
            unhealthy=health.count("UNHEALTHY"),
            unknown=health.count("UNKNOWN"),
        )

    def preview(self, params: ServiceParams, before: State) -> str:
        """What is seen now."""
        state = HealthState.model_validate(before)
        return f"{params.service}: {_health(state)}; nothing is changed"

    def looked_at(self, params: ServiceParams, state: ServiceState) -> tuple[PreflightCheck, ...]:
        """It may look at a service in any state."""
        return ()

    def grants(self, params: ServiceParams, before: State) -> tuple[Grant, ...]:
        """It only reads."""
        return ()

    async def execute(self, params: ServiceParams, before: State) -> Outcome:
        """Nothing to change: what was read is the outcome."""
        return Outcome(detail=f"{params.service}: {_health(HealthState.model_validate(before))}")

    def lacking(self, params: ServiceParams, before: State, now: ServiceState) -> str:
        """Also healthy tasks, and at least one."""
        unhealthy = cast("HealthState", now).unhealthy
        if now.desired == 0:
            raise ExecutorError(f"{params.service} is set to 0 tasks.")
        return judging.unrest(now) or (f"{params.service}: {unhealthy} unhealthy tasks to recover" if unhealthy else "")

    async def probe(self, params: ServiceParams, before: State) -> Probe:
        """A check leaves no trace and may be repeated."""
        return "not_done"


class StopEcsTask(ServiceOperation[TaskParams]):
    """Stops one task, which ECS replaces."""

    name = "stop_ecs_task"
    summary = "Stop one task of a service, the unhealthiest or one by its id; ECS starts another in its place"
    risk = "low"
    minutes = 1.5
    permissions = ("ecs:DescribeServices", "ecs:ListTasks", "ecs:DescribeTasks", "ecs:StopTask")
    params = TaskParams
    state = TaskState

    async def concrete(self, params: TaskParams) -> TaskParams:
        """``unhealthiest`` by the id of the task that is it now."""
        if params.task != UNHEALTHIEST:
            return params
        chosen = _chosen(params, await self.read_tasks(params.service))
        return params.model_copy(update={"task": short(chosen.arn)})

    async def inspect(self, params: TaskParams) -> State:
        """The service, the task, and how many others serve."""
        state, tasks = await self.read(params.service), await self.read_tasks(params.service)
        chosen = _chosen(params, tasks)
        others = sum(task.serves for task in tasks if task.arn != chosen.arn)
        return TaskState(**dict(state), task=chosen, others_serving=others).model_dump(mode="json")

    def preview(self, params: TaskParams, before: State) -> str:
        """Which task; the last one that serves is refused."""
        state = TaskState.model_validate(before)
        judging.must_be_active(state)
        if state.task.serves and not state.others_serving:
            raise Refused(
                f"{params.service}: {state.task.said} is its last healthy task; restart the service by a rolling"
                " deployment instead, which starts the new task first."
            )
        return f"{params.service}: stop {state.task.said}; {state.others_serving} other tasks serve meanwhile"

    def pinned(self, params: TaskParams, before: State) -> State:
        """Also which task."""
        return {**super().pinned(params, before), "task": TaskState.model_validate(before).task.arn}

    def changes(self, params: TaskParams, before: State) -> tuple[Change, ...]:
        """The task, by a new one."""
        self.preview(params, before)
        state = TaskState.model_validate(before)
        new = f"stopped; ECS starts a new one of {short(state.version)}"
        return (Change(what=f"task of {params.service}", before=state.task.said, after=new),)

    def looked_at(self, params: TaskParams, state: ServiceState) -> tuple[PreflightCheck, ...]:
        """ECS stops tasks also of services that others deploy; a healthy task may not be the cause."""
        healthy = cast("TaskState", state).task.serves
        said = f"{cast('TaskState', state).task.said}{': ECS does not call it unhealthy' if healthy else ''}"
        task = PreflightCheck(name="state", status="warning" if healthy else "ok", detail=said)
        deployment = judging.in_flight(state)
        if deployment.status == "failed":  # it may go on: ECS places the new task in the roll-out
            deployment = deployment.model_copy(update={"status": "warning"})
        return (judging.standing(state), task, deployment)

    def capacity(self, params: TaskParams, before: State) -> Capacity:
        """One less, if it serves."""
        state = TaskState.model_validate(before)
        now = state.others_serving + state.task.serves
        return Capacity(service=params.service, servers_now=now, servers_then=state.others_serving)

    def grants(self, params: TaskParams, before: State) -> tuple[Grant, ...]:
        """StopTask on this task."""
        return (Grant(actions=("ecs:StopTask",), resources=(TaskState.model_validate(before).task.arn,)),)

    async def execute(self, params: TaskParams, before: State) -> Outcome:
        """One StopTask."""
        detail, task = self.preview(params, before), TaskState.model_validate(before).task
        cluster, _ = address(self.resources, params.service)
        async with self.ecs.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(client.stop_task, cluster=cluster, task=task.arn, reason=REASON)
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    async def settle(self, params: TaskParams, before: State) -> State:
        """Waits up to 8 minutes until the task is gone and the service at rest without it."""
        gone = TaskState.model_validate(before).task

        async def look() -> tuple[ServiceState, list[Task]]:
            return await self.read(params.service), await self.read_tasks(params.service)

        def lacking(seen: tuple[ServiceState, list[Task]]) -> str:
            state, tasks = seen
            if any(task.arn == gone.arn for task in tasks):
                return f"{params.service}: task {short(gone.arn)} to stop"
            return judging.unrest(state)

        state, tasks = await settled(self.clock, look, lacking, DEADLINE_S)
        return {**state.model_dump(mode="json"), "tasks": [task.model_dump(mode="json") for task in tasks]}

    async def probe(self, params: TaskParams, before: State) -> Probe:
        """Told by the task: one that ECS does not list as wanted any more was stopped."""
        cluster, _ = address(self.resources, params.service)
        arn = TaskState.model_validate(before).task.arn
        answer = await AWS.read(self.ecs.reader.describe_tasks, cluster=cluster, tasks=[arn])
        wanted = any(task.get("desiredStatus") == "RUNNING" for task in answer["tasks"])
        return "not_done" if wanted else "done"


def _chosen(params: TaskParams, tasks: list[Task]) -> Task:
    """The task that is meant. Raises Refused if the service does not run it."""
    if not tasks:
        raise Refused(f"{params.service} runs no task: there is none to stop.")
    if params.task == UNHEALTHIEST:
        return min(tasks, key=_soundness)
    for task in tasks:
        if params.task in (task.arn, short(task.arn)):
            return task
    raise Refused(f"{params.service} does not run task {short(params.task)} (any more); make a new plan.")


def _soundness(task: Task) -> tuple[bool, bool, str, str]:
    """Unhealthy ones first, then those that do not run (yet), then the oldest."""
    return task.health != "UNHEALTHY", task.status == "RUNNING", task.started, task.arn


def _health(state: HealthState) -> str:
    checks = f"{state.healthy} healthy, {state.unhealthy} unhealthy, {state.unknown} without a health check"
    return f"{state.progress} ({checks})"
