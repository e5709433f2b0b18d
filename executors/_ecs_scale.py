"""Scales an ECS service, together with the bounds of Application Auto Scaling that would move the count back."""

from typing import TYPE_CHECKING

from pydantic import Field

from executors import _ecs_state as judging
from executors._aws import listed
from executors._aws_service import ServiceParams
from executors._ecs_operation import AWS, ServiceOperation
from executors._ecs_state import ServiceState, address
from executors._scalable_target import READS, REGISTER, Bounds, Scaling, grants_to_register, read_scaling, register
from executors.base import (
    Capacity,
    Change,
    ExecutorError,
    Grant,
    Outcome,
    OutcomeUnknown,
    PartlyDone,
    PreflightCheck,
    Probe,
    Refused,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_ecs.type_defs import UpdateServiceResponseTypeDef

TASKS_PER_SERVICE = 5000  # ECS' quota


class ScaleParams(ServiceParams):
    """One service and how many tasks it shall run."""

    desired_count: int = Field(ge=0, description="Tasks to run, within the catalogue's min_tasks and max_tasks")


class ScaleState(ServiceState):
    """A service and what keeps its count."""

    scaling: Scaling = Field(default_factory=Scaling)

    @property
    def bounds(self) -> Bounds | None:
        """Of Application Auto Scaling; None if it does not scale the service, or that could not be read."""
        return self.scaling.target.bounds if self.scaling.target else None


class ScaleEcsService(ServiceOperation[ScaleParams]):
    """Changes how many tasks a service runs, and the bounds of Application Auto Scaling that would move it back."""

    name = "scale_ecs_service"
    summary = "Set the number of tasks a service runs"
    risk = "medium"
    reversible = True
    minutes = 3.0
    permissions = ("ecs:DescribeServices", "ecs:UpdateService", *READS, REGISTER)
    params = ScaleParams
    state = ScaleState

    def resource(self, params: ScaleParams) -> str:
        """``ecs:<cluster>/<service>``. Raises Refused also beyond the catalogue's min_tasks and max_tasks."""
        key, entry = super().resource(params), listed(self.resources, params.service)
        if not entry.min_tasks <= params.desired_count <= entry.max_tasks:
            raise Refused(
                f"{params.desired_count} tasks is outside {entry.min_tasks}..{entry.max_tasks},"
                f" the min_tasks and max_tasks of services.{params.service} in autopilot.yaml."
            )
        return key

    async def read(self, service: str) -> ScaleState:
        """The service, and the bounds within which Application Auto Scaling keeps it."""
        state = await super().read(service)
        scaling = await read_scaling(self.autoscaler, *address(self.resources, service))
        return ScaleState(**dict(state), scaling=scaling)

    def preview(self, params: ScaleParams, before: State) -> str:
        """From how many tasks to how many."""
        self.resource(params)
        state = ScaleState.model_validate(before)
        judging.must_be_active(state)
        if state.scheduling == "DAEMON" or state.controller == "EXTERNAL":
            raise Refused(f"{params.service} has no task count of its own ({state.scheduling}, {state.controller}).")
        if state.desired == params.desired_count:
            raise Refused(f"{params.service} is set to {state.desired} tasks already.")
        bounds = _bounds_to_set(params, state)
        moved = f"; the bounds of Application Auto Scaling become {bounds}" if bounds else ""
        return f"{params.service}: {state.desired} tasks -> {params.desired_count} tasks{moved}"

    def pinned(self, params: ScaleParams, before: State) -> State:
        """Also the bounds of Application Auto Scaling."""
        target = ScaleState.model_validate(before).scaling.target
        return {**super().pinned(params, before), "auto scaling bounds": str(target.bounds) if target else None}

    def changes(self, params: ScaleParams, before: State) -> tuple[Change, ...]:
        """The count, and the bounds if they would be in its way."""
        self.preview(params, before)
        state = ScaleState.model_validate(before)
        count = Change(
            what=f"desired tasks of {params.service}", before=str(state.desired), after=str(params.desired_count)
        )
        bounds = _bounds_to_set(params, state)
        if not (bounds and state.scaling.target):
            return (count,)
        what = f"auto scaling bounds of {params.service}"
        return (count, Change(what=what, before=str(state.scaling.target.bounds), after=str(bounds)))

    async def preflight(self, params: ScaleParams, before: State) -> tuple[PreflightCheck, ...]:
        """Also what Application Auto Scaling would do to the new count, and the quota."""
        quota = PreflightCheck(
            name="quota",
            status="ok" if params.desired_count <= TASKS_PER_SERVICE else "failed",
            detail=f"{params.desired_count} of {TASKS_PER_SERVICE} tasks per service; the account's vCPU quota of"
            " Fargate was not looked at",
        )
        return (*await super().preflight(params, before), _scaled(params, ScaleState.model_validate(before)), quota)

    def looked_at(self, params: ScaleParams, state: ServiceState) -> tuple[PreflightCheck, ...]:
        """A count may be set in mid-deployment, and where CodeDeploy deploys."""
        deployment = judging.in_flight(state)
        if deployment.status == "failed":
            deployment = deployment.model_copy(update={"status": "warning"})
        return (judging.standing(state), deployment)

    def capacity(self, params: ScaleParams, before: State) -> Capacity:
        """The count, now and then."""
        running = ScaleState.model_validate(before).running
        return Capacity(service=params.service, servers_now=running, servers_then=params.desired_count)

    def grants(self, params: ScaleParams, before: State) -> tuple[Grant, ...]:
        """UpdateService on this service, and RegisterScalableTarget if its bounds are moved."""
        state = ScaleState.model_validate(before)
        if state.scaling.target is None or _bounds_to_set(params, state) is None:
            return super().grants(params, before)
        return (*super().grants(params, before), *grants_to_register(state.scaling.target, state.arn))

    async def execute(self, params: ScaleParams, before: State) -> Outcome:
        """RegisterScalableTarget if the bounds would be in the way, then UpdateService with the new count."""
        detail, state = self.preview(params, before), ScaleState.model_validate(before)
        return await self._set(params, state, _bounds_to_set(params, state), params.desired_count, detail)

    def lacking(self, params: ScaleParams, before: State, now: ServiceState) -> str:
        """The wanted count, or more where policies scale out from there, all of them running."""
        saved = ScaleState.model_validate(before)
        scaled_on = saved.bounds is not None and now.desired > params.desired_count > saved.desired
        if now.desired != params.desired_count and not scaled_on:
            return f"{params.service} to want {params.desired_count} tasks (now {now.desired}; an autoscaler?)"
        return judging.unrest(now)

    async def probe(self, params: ScaleParams, before: State) -> Probe:
        """Told by the count, and by the bounds if they were to be set: where the two differ a person must look."""
        saved, now = ScaleState.model_validate(before), await self.read(params.service)
        answers = {_told(now.desired, params.desired_count, saved.desired)}
        if ours := _bounds_to_set(params, saved):
            answers.add(_told(now.bounds, ours, saved.bounds))
        return answers.pop() if len(answers) == 1 else "unknown"

    async def undo(self, params: ScaleParams, before: State) -> Outcome:
        """The old bounds and the old count again, unless somebody has set other ones since."""
        saved, now = ScaleState.model_validate(before), await self.read(params.service)
        bounds = _bounds_to_put_back(params, saved, now)
        if now.desired == saved.desired and bounds is None:
            return Outcome(detail=f"{params.service}: already back at {saved.desired} tasks")
        if now.desired in (saved.desired, params.desired_count):
            detail = f"{params.service}: {now.desired} tasks -> {saved.desired} tasks"
            return await self._set(params, saved, bounds, saved.desired, detail)
        if bounds is None:
            raise Refused(f"{params.service} was set to {now.desired} tasks by somebody else; not undone.")
        made = await self._register(params, saved, bounds)
        detail = (
            f"{params.service}: auto scaling bounds -> {bounds}; its count was set to {now.desired} by its scaling"
            " policies or somebody else, and left to them"
        )
        return Outcome(request_ids=(made,), detail=detail)

    async def _set(
        self, params: ScaleParams, saved: ScaleState, bounds: Bounds | None, count: int, detail: str
    ) -> Outcome:
        """The bounds first: outside of them the count would be moved back at once."""
        before = saved.model_dump(mode="json")
        made: tuple[str, ...] = ()
        if bounds is not None:
            made = (await self._register(params, saved, bounds),)
        try:
            answer = await self._update(params, before, count)
        except OutcomeUnknown:
            raise
        except ExecutorError as error:
            if not made:
                raise
            said = f"The bounds of Application Auto Scaling were set to {bounds} before, which may move the count too."
            raise PartlyDone(f"{error} {said}") from error
        return Outcome(request_ids=(*made, answer["ResponseMetadata"]["RequestId"]), detail=detail)

    async def _register(self, params: ScaleParams, saved: ScaleState, bounds: Bounds) -> str:
        where = address(self.resources, params.service)
        grants = grants_to_register(saved.scaling.target, saved.arn) if saved.scaling.target else ()
        return await register(self.autoscaler, self.name, *where, bounds, grants)

    async def _update(self, params: ScaleParams, before: State, count: int) -> "UpdateServiceResponseTypeDef":
        cluster, name = address(self.resources, params.service)
        async with self.ecs.acting(self.name, super().grants(params, before)) as client:
            return await AWS.write(client.update_service, cluster=cluster, service=name, desiredCount=count)


def _bounds_to_set(params: ScaleParams, state: ScaleState) -> Bounds | None:
    """The bounds in which the new count stays; None if they are so already, or there are none."""
    if state.bounds is None:
        return None
    wanted = state.bounds.to_hold(params.desired_count, now=state.desired)
    return wanted if wanted != state.bounds else None


def _bounds_to_put_back(params: ScaleParams, saved: ScaleState, now: ScaleState) -> Bounds | None:
    """The bounds before, if ours are still set. Raises Refused if somebody has set others, ExecutorError if untold."""
    ours = _bounds_to_set(params, saved)
    if ours is None or now.bounds == saved.bounds:
        return None
    if now.scaling.untold:
        raise ExecutorError(f"{params.service}: its auto scaling bounds could not be read: {now.scaling.untold}")
    if now.bounds != ours:
        theirs = now.bounds or "none"
        raise Refused(f"{params.service}: its auto scaling bounds were set to {theirs} by somebody else; not undone.")
    return saved.bounds


def _told(now: object, wanted: object, saved: object) -> Probe:
    if now == wanted:
        return "done"
    return "not_done" if now == saved else "unknown"


def _scaled(params: ScaleParams, state: ScaleState) -> PreflightCheck:
    """What Application Auto Scaling would do to the new count."""
    if state.scaling.untold:
        detail = f"whether a scaling policy would move the count back was not told: {state.scaling.untold}"
        return PreflightCheck(name="scaling", status="skipped", detail=detail)
    if state.scaling.target is None:
        return PreflightCheck(name="scaling", status="ok", detail=f"{params.service} is not scaled automatically")
    bounds = _bounds_to_set(params, state) or state.scaling.target.bounds
    detail = f"Application Auto Scaling keeps {params.service} within {bounds}"
    if state.scaling.target.suspended or params.desired_count > state.desired:
        return PreflightCheck(name="scaling", status="ok", detail=detail)
    detail += f"; its policies may raise it from {params.desired_count} again, up to {bounds.maximum}"
    return PreflightCheck(name="scaling", status="warning", detail=detail)
