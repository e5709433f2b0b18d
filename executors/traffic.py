"""Sheds and restores traffic by the weights of an Application Load Balancer's listener rule, or shifts it.

To shed, the rule forwards to two target groups: the service's own, and an overflow group that answers the rest, e.g.
with a static page.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

from executors._aws import AwsSettings, Connection, beside, checks, settled
from executors._aws_service import ServiceParams
from executors._listener_rule import (
    DEADLINE_S,
    Ecs,
    Elb,
    RuleOperation,
    RuleState,
    Targets,
    group,
    modify,
    reweighted,
    weight_changes,
)
from executors._traffic_shift import ShiftTraffic
from executors.base import (
    AnyOperation,
    Capacity,
    Change,
    Check,
    Clock,
    Executor,
    ExecutorError,
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
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client

READS = ("elasticloadbalancing:DescribeRules", "elasticloadbalancing:DescribeTargetHealth")


class Settings(AwsSettings):
    """How to reach the load balancer's API."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_TRAFFIC_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


class ReduceParams(ServiceParams):
    """One service and the share of its traffic to keep."""

    keep_percent: int = Field(ge=1, le=99, description="Percent of the traffic the service still gets")


class RestoreParams(ServiceParams):
    """One service and the steps back to all of its traffic."""

    steps_percent: tuple[int, ...] = Field(
        default=(50, 75, 100), min_length=1, max_length=10, description="Ascending, the last one 100"
    )
    pause_s: float = Field(default=60.0, ge=5, le=600, description="Seconds between two steps")

    @field_validator("steps_percent")
    @classmethod
    def _ascend_to_all(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if steps[0] < 1 or steps[-1] != 100 or any(a >= b for a, b in pairwise(steps)):
            raise ValueError("steps must ascend from 1 or more to 100")
        return steps


class OverflowState(RuleState):
    """A listener rule and the health of the service's targets."""

    healthy: int = 0
    unhealthy: int = 0


T = TypeVar("T", ReduceParams, RestoreParams)


class OverflowOperation(RuleOperation[T]):
    """Splits a service's traffic between its own target group and its overflow group."""

    state = OverflowState

    def lacks(self, resource: Resource) -> str:
        """Also an overflow group."""
        if lack := super().lacks(resource):
            return lack
        if resource.overflow_target_group_arn:
            return ""
        return (
            f"no overflow target group: add services.{resource.service}.load_balancer.overflow_target_group_arn"
            " to autopilot.yaml"
        )

    async def inspect(self, params: T) -> State:
        """The rule, with its whole action list and its weights, and the health of the service's targets."""
        rule, targets = await self.read(params.service), await self.own_targets(params.service)
        return OverflowState(**dict(rule), healthy=targets.healthy, unhealthy=targets.unhealthy).model_dump(mode="json")

    async def own_targets(self, service: str) -> Targets:
        """The health of the service's targets."""
        return await self.targets(self.split(service).own)

    def weights(self, service: str, percent: int) -> dict[str, int]:
        """The two weights that give the service this share."""
        split = self.split(service)
        return {split.own: percent, str(split.overflow): 100 - percent}

    async def set_percent(
        self, client: "ElasticLoadBalancingv2Client", service: str, now: RuleState, percent: int
    ) -> str:
        """One ModifyRule; the request id. Raises ExecutorError, OutcomeUnknown."""
        return await modify(client, now.rule, reweighted(now.actions, self.weights(service, percent)))

    def must_be_splittable(self, service: str, state: RuleState) -> None:
        """Raises Refused if the weights of this rule cannot, or must not, be changed."""
        split = self.split(service)
        if state.is_default:
            raise Refused(f"{service}: {split.rule} is the listener's default rule; it takes a rule of its own.")
        if split.own not in state.weights:
            raise Refused(f"{service}: its rule does not forward to {split.own}.")
        if any(weight for arn, weight in state.weights.items() if arn not in (split.own, split.overflow)):
            raise Refused(f"{service}: its rule forwards to further target groups (a deployment under way?).")

    def looked_at(self, params: T, before: State) -> tuple[PreflightCheck, ...]:
        """The health of the service's targets."""
        state = OverflowState.model_validate(before)
        detail = f"{params.service}: {state.healthy} healthy targets, {state.unhealthy} unhealthy"
        return (PreflightCheck(name="state", status="warning" if state.unhealthy else "ok", detail=detail),)

    def with_share(self, service: str, state: OverflowState, percent: float) -> Capacity | None:
        """The same targets, with another share of the traffic; None if they get nothing now."""
        if not state.percent:
            return None
        return Capacity(
            service=service,
            servers_now=state.healthy,
            servers_then=state.healthy,
            load_then=percent / state.percent,
        )


class ReduceTraffic(OverflowOperation[ReduceParams]):
    """Lets a service keep a part of its traffic."""

    name = "reduce_traffic"
    summary = "Send only a part of a service's traffic to it and the rest to its overflow page"
    risk = "medium"
    reversible = True
    minutes = 0.5
    permissions = (*READS, "elasticloadbalancing:ModifyRule")
    params = ReduceParams

    def preview(self, params: ReduceParams, before: State) -> str:
        """From which share of the traffic to which."""
        state = OverflowState.model_validate(before)
        self.must_be_splittable(params.service, state)
        if state.percent <= params.keep_percent:
            raise Refused(f"{params.service} gets {state.percent:g}% of its traffic already: nothing to reduce.")
        sticky = "; sticky sessions delay it" if state.sticky else ""
        return f"{params.service}: {state.percent:g}% of its traffic -> {params.keep_percent}%{sticky}"

    def changes(self, params: ReduceParams, before: State) -> tuple[Change, ...]:
        """The two weights."""
        self.preview(params, before)
        state = OverflowState.model_validate(before)
        return weight_changes(state.weights, self.weights(params.service, params.keep_percent))

    def capacity(self, params: ReduceParams, before: State) -> Capacity | None:
        """The same targets, with less to do."""
        return self.with_share(params.service, OverflowState.model_validate(before), params.keep_percent)

    async def preflight(self, params: ReduceParams, before: State) -> tuple[PreflightCheck, ...]:
        """Also whether the overflow group answers what it is sent."""
        return (*await super().preflight(params, before), await self._overflow(params.service))

    async def _overflow(self, service: str) -> PreflightCheck:
        arn = str(self.split(service).overflow)
        try:
            targets = await self.targets(arn)
        except ExecutorError as error:
            return PreflightCheck(name="state", status="skipped", detail=f"{group(arn)}: {error}")
        if targets.healthy:
            return PreflightCheck(name="state", status="ok", detail=f"{group(arn)}: {targets}")
        detail = f"{group(arn)} has no healthy target: what is shed may be answered with errors"
        return PreflightCheck(name="state", status="warning", detail=detail)

    async def execute(self, params: ReduceParams, before: State) -> Outcome:
        """One ModifyRule on the rule as it is at this moment."""
        detail = self.preview(params, before)
        saved, now = OverflowState.model_validate(before), await self.read(params.service)
        self.must_be_ours(params, saved, now)
        if now.weights != saved.weights:
            raise Refused(f"{params.service} gets {now.percent:g}% of its traffic since a moment: look again.")
        async with self.elb.acting(self.name, self.grants(params, before)) as client:
            request_id = await self.set_percent(client, params.service, now, params.keep_percent)
        return Outcome(request_ids=(request_id,), detail=detail)

    async def settle(self, params: ReduceParams, before: State) -> State:
        """Reads the rule until it has the new weights, for at most a minute."""
        state = await settled(
            self.clock,
            lambda: self.read(params.service),
            lambda now: _other_share(params.service, now, params.keep_percent),
            DEADLINE_S,
        )
        return state.model_dump(mode="json")

    async def probe(self, params: ReduceParams, before: State) -> Probe:
        """Told by the weights."""
        percent = (await self.read(params.service)).percent
        if percent == params.keep_percent:
            return "done"
        return "not_done" if percent == OverflowState.model_validate(before).percent else "unknown"


class GradualTrafficRestore(OverflowOperation[RestoreParams]):
    """Gives a service all of its traffic back, step by step, as long as its targets stay healthy."""

    name = "gradual_traffic_restore"
    summary = "Give a service its traffic back in steps, with a health check before each"
    risk = "low"
    reversible = True
    minutes = 4.0
    permissions = (*READS, "elasticloadbalancing:ModifyRule")
    params = RestoreParams

    def preview(self, params: RestoreParams, before: State) -> str:
        """The steps that are still ahead; none is no reason to refuse, an earlier step of a plan may shed first."""
        state = OverflowState.model_validate(before)
        self.must_be_splittable(params.service, state)
        if state.percent == 100:
            return f"{params.service}: gets all of its traffic; nothing to restore"
        steps = " -> ".join(f"{percent}%" for percent in _ahead(params, state))
        return f"{params.service}: {state.percent:g}% of its traffic -> {steps}, {params.pause_s:g} s apart"

    def changes(self, params: RestoreParams, before: State) -> tuple[Change, ...]:
        """The two weights, as they are in the end."""
        self.preview(params, before)
        return weight_changes(OverflowState.model_validate(before).weights, self.weights(params.service, 100))

    def capacity(self, params: RestoreParams, before: State) -> Capacity | None:
        """The same targets, with all of the traffic."""
        return self.with_share(params.service, OverflowState.model_validate(before), 100)

    async def execute(self, params: RestoreParams, before: State) -> Outcome:
        """One ModifyRule per step above the present share; a step that fails leaves the share where it is."""
        saved, now = OverflowState.model_validate(before), await self.read(params.service)
        self.must_be_splittable(params.service, now)
        self.must_be_ours(params, saved, now)
        if saved.healthy == 0:
            raise Refused(f"{params.service} has no healthy target to take more traffic.")
        async with self.elb.acting(self.name, self.grants(params, before)) as client:
            made = await self._steps(client, params, saved, now)
        detail = f"{params.service}: {saved.percent:g}% of its traffic -> 100%"
        return Outcome(request_ids=made, detail=detail)

    async def _steps(
        self, client: "ElasticLoadBalancingv2Client", params: RestoreParams, saved: OverflowState, now: RuleState
    ) -> tuple[str, ...]:
        made: dict[int, str] = {}  # request id by percent
        for percent in _ahead(params, now):
            try:
                now = await self._once_healthy(params, saved, now, last=max(made, default=None))
                made[percent] = await self.set_percent(client, params.service, now, percent)
            except OutcomeUnknown:
                raise
            except ExecutorError as error:
                steps = ", ".join(f"{p}%" for p in made) or "none"
                kind = PartlyDone if made else ExecutorError
                raise kind(f"{error} Steps made before: {steps}.") from error
        return tuple(made.values())

    async def _once_healthy(
        self, params: RestoreParams, saved: OverflowState, now: RuleState, last: int | None
    ) -> RuleState:
        """The rule to take the next step from, after a pause if it is not the first."""
        if last is not None:
            await self.clock.sleep(params.pause_s)
            now = await self.read(params.service)
            self._must_have_stayed(params.service, now, last)
        await self._must_be_as_healthy(params.service, saved, now.percent)
        return now

    async def settle(self, params: RestoreParams, before: State) -> State:
        """Waits one more pause, then the rule must be at 100% and the targets as healthy as before."""
        await self.clock.sleep(params.pause_s)
        await settled(
            self.clock,
            lambda: self.read(params.service),
            lambda now: _other_share(params.service, now, 100),
            DEADLINE_S,
        )
        await self._must_be_as_healthy(params.service, OverflowState.model_validate(before), 100)
        return await self.inspect(params)

    async def probe(self, params: RestoreParams, before: State) -> Probe:
        """Done at 100%; below, going on from the present share is safe."""
        return "done" if (await self.read(params.service)).percent == 100 else "not_done"

    def _must_have_stayed(self, service: str, now: RuleState, share: float) -> None:
        if now.percent != share:
            raise ExecutorError(f"{service}: set to {now.percent:g}% by somebody else; the restore stops there.")

    async def _must_be_as_healthy(self, service: str, saved: OverflowState, share: float) -> None:
        unhealthy = (await self.own_targets(service)).unhealthy
        if unhealthy > saved.unhealthy:
            raise ExecutorError(
                f"{service}: {unhealthy} unhealthy targets, {saved.unhealthy} before; kept at {share:g}%."
            )


OPERATIONS: tuple[type[RuleOperation[Any]], ...] = (ReduceTraffic, GradualTrafficRestore, ShiftTraffic)


class TrafficExecutor:
    """All operations on listener rules, and the connections they share."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, elb: Elb, ecs: Ecs) -> None:
        self.elb, self.ecs = elb, ecs
        self.operations: Sequence[AnyOperation] = [kind(resources, clock, elb, ecs) for kind in OPERATIONS]

    async def check(self) -> list[Check]:
        """See executors.base.Executor."""
        return await checks(Settings(), self.operations)

    async def aclose(self) -> None:
        """Release connections."""
        await self.elb.aclose()
        await self.ecs.aclose()


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``traffic``. Raises ValueError naming a missing setting."""
    settings = Settings()
    elb: Elb = Connection("elbv2", settings, reads=READS)
    ecs: Ecs = Connection("ecs", beside(settings), reads=("ecs:DescribeServices",))
    return TrafficExecutor(resources, clock, elb, ecs)


def _ahead(params: RestoreParams, now: RuleState) -> list[int]:
    return [percent for percent in params.steps_percent if percent > now.percent]


def _other_share(service: str, now: RuleState, percent: int) -> str:
    """What the rule lacks to have this share; empty if it has it."""
    return "" if now.percent == percent else f"{service} to get {percent}% of its traffic (now {now.percent:g}%)"
