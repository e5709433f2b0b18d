"""Sheds and restores traffic by the weights of an Application Load Balancer's listener rule.

The rule forwards to two target groups: the service's own, and an overflow group that answers the rest, e.g. with a
static page. ModifyRule replaces a rule's whole action list, so every change starts from the list as it is at that
moment and alters the two weights only.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar, cast

from pydantic import Field, JsonValue, field_validator
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
    PartlyDone,
    Probe,
    Refused,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_elbv2.type_defs import ActionTypeDef

AWS = Api(iam_prefix="elasticloadbalancing")
DEADLINE_S = 60.0
Action = dict[str, JsonValue]  # one action of a rule, as DescribeRules has it


class Settings(AwsSettings):
    """How to reach the load balancer's API."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_TRAFFIC_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- parameters ---------------------------------------------------------------------------------------------


class ReduceParams(Model):
    """One service and the share of its traffic to keep."""

    service: str = Field(min_length=1, description="Name of the service in the catalogue")
    keep_percent: int = Field(ge=1, le=99, description="Percent of the traffic the service still gets")


class RestoreParams(Model):
    """One service and the steps back to all of its traffic."""

    service: str = Field(min_length=1, description="Name of the service in the catalogue")
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


# --- what was read ------------------------------------------------------------------------------------------


class RuleState(Model):
    """A listener rule and how it splits the traffic."""

    rule: str
    is_default: bool
    actions: tuple[Action, ...] = Field(description="As DescribeRules has them")
    weights: dict[str, int] = Field(description="By target group ARN; empty if the rule forwards nothing")
    percent: float = Field(description="The service's part of what goes to it and to the overflow group")


class RestoreState(RuleState):
    """A listener rule and the health of the service's targets."""

    healthy: int
    unhealthy: int


R = TypeVar("R", ReduceParams, RestoreParams)


class TrafficOperation(Operation[R]):
    """What the operations on a listener rule have in common. ``resource`` needs nothing but ``resources``."""

    state: ClassVar[type[RuleState]] = RuleState

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, client: "ElasticLoadBalancingv2Client") -> None:
        self.resources, self.clock, self.client = resources, clock, client

    def resource(self, params: R) -> str:
        """``alb:<listener rule ARN>``."""
        return f"alb:{_split(self.resources, params.service).rule}"

    async def undo(self, params: R, before: State) -> Outcome:
        """The saved actions again, unless somebody has changed more than the weights since."""
        saved, now = self.state.model_validate(before), await self.read(params.service)
        if now.weights == saved.weights:
            return Outcome(detail=f"{params.service}: already back at {saved.percent:g}% of its traffic")
        self.must_be_ours(params.service, saved, now)
        request_id = await self._modify(saved.rule, saved.actions)
        detail = f"{params.service}: {now.percent:g}% of its traffic -> {saved.percent:g}%"
        return Outcome(request_ids=(request_id,), detail=detail)

    async def read(self, service: str) -> RuleState:
        """The rule as it is now. Raises ExecutorError."""
        split = _split(self.resources, service)
        answer = await AWS.read(self.client.describe_rules, RuleArns=[split.rule])
        if not answer["Rules"]:
            raise ExecutorError(f"{service}: the load balancer has no rule {split.rule}")
        rule = answer["Rules"][0]
        actions = tuple(cast("list[Action]", rule.get("Actions", [])))
        weights = {arn: weight for action in actions for arn, weight in _groups(action).items()}
        return RuleState(
            rule=split.rule,
            is_default=rule.get("IsDefault", False),
            actions=actions,
            weights=weights,
            percent=_percent(weights, split),
        )

    async def set_percent(self, service: str, now: RuleState, percent: int) -> str:
        """One ModifyRule; the request id. Raises ExecutorError, OutcomeUnknown."""
        split = _split(self.resources, service)
        return await self._modify(split.rule, [_reweighted(a, split, percent) for a in now.actions])

    def must_be_splittable(self, service: str, state: RuleState) -> None:
        """Raises Refused if the weights of this rule cannot, or must not, be changed."""
        split = _split(self.resources, service)
        if state.is_default:
            raise Refused(f"{service}: {split.rule} is the listener's default rule; it takes a rule of its own.")
        if split.own not in state.weights:
            raise Refused(f"{service}: its rule does not forward to {split.own}.")
        if any(weight for arn, weight in state.weights.items() if arn not in (split.own, split.overflow)):
            raise Refused(f"{service}: its rule forwards to further target groups (a deployment under way?).")

    def must_be_ours(self, service: str, saved: RuleState, now: RuleState) -> None:
        """Raises Refused if more than the two weights has changed: writing would undo somebody else's work."""
        split = _split(self.resources, service)
        if _beyond_weights(saved.actions, split) != _beyond_weights(now.actions, split):
            raise Refused(f"{service}: its rule was changed by somebody else since it was read; left as it is.")

    async def _modify(self, rule: str, actions: Sequence[Action]) -> str:
        answer = await AWS.write(self.client.modify_rule, RuleArn=rule, Actions=[_sendable(a) for a in actions])
        return answer["ResponseMetadata"]["RequestId"]


class ReduceTraffic(TrafficOperation[ReduceParams]):
    """Lets a service keep a part of its traffic."""

    name = "reduce_traffic"
    summary = "Send only a part of a service's traffic to it and the rest to its overflow page"
    risk = "medium"
    reversible = True
    minutes = 0.5
    permissions = ("elasticloadbalancing:DescribeRules", "elasticloadbalancing:ModifyRule")
    params = ReduceParams

    async def inspect(self, params: ReduceParams) -> State:
        """The rule, with its whole action list and its weights."""
        return (await self.read(params.service)).model_dump(mode="json")

    def preview(self, params: ReduceParams, before: State) -> str:
        """From which share of the traffic to which."""
        state = RuleState.model_validate(before)
        self.must_be_splittable(params.service, state)
        if state.percent <= params.keep_percent:
            raise Refused(f"{params.service} gets {state.percent:g}% of its traffic already: nothing to reduce.")
        sticky = "; sticky sessions delay it" if any(map(_stickiness, state.actions)) else ""
        return f"{params.service}: {state.percent:g}% of its traffic -> {params.keep_percent}%{sticky}"

    async def execute(self, params: ReduceParams, before: State) -> Outcome:
        """One ModifyRule on the rule as it is at this moment."""
        detail = self.preview(params, before)
        saved, now = RuleState.model_validate(before), await self.read(params.service)
        self.must_be_ours(params.service, saved, now)
        if now.weights != saved.weights:
            raise Refused(f"{params.service} gets {now.percent:g}% of its traffic since a moment: look again.")
        request_id = await self.set_percent(params.service, now, params.keep_percent)
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
        return "not_done" if percent == RuleState.model_validate(before).percent else "unknown"


class GradualTrafficRestore(TrafficOperation[RestoreParams]):
    """Gives a service all of its traffic back, step by step, as long as its targets stay healthy."""

    name = "gradual_traffic_restore"
    summary = "Give a service its traffic back in steps, with a health check before each"
    risk = "low"
    reversible = True
    minutes = 4.0
    permissions = (
        "elasticloadbalancing:DescribeRules",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:ModifyRule",
    )
    params = RestoreParams
    state = RestoreState

    async def inspect(self, params: RestoreParams) -> State:
        """The rule, with its whole action list and its weights, and the health of the service's targets."""
        rule, targets = await self.read(params.service), await self._targets(params.service)
        return RestoreState(
            **dict(rule),
            healthy=targets.count("healthy"),
            unhealthy=_unhealthy(targets),
        ).model_dump(mode="json")

    def preview(self, params: RestoreParams, before: State) -> str:
        """The steps that are still ahead; none is no reason to refuse, an earlier step of a plan may shed first."""
        state = RestoreState.model_validate(before)
        self.must_be_splittable(params.service, state)
        if state.percent == 100:
            return f"{params.service}: gets all of its traffic; nothing to restore"
        steps = " -> ".join(f"{percent}%" for percent in _ahead(params, state))
        return f"{params.service}: {state.percent:g}% of its traffic -> {steps}, {params.pause_s:g} s apart"

    async def execute(self, params: RestoreParams, before: State) -> Outcome:
        """One ModifyRule per step above the present share; a step that fails leaves the share where it is."""
        saved, now = RestoreState.model_validate(before), await self.read(params.service)
        self.must_be_splittable(params.service, now)
        self.must_be_ours(params.service, saved, now)
        if saved.healthy == 0:
            raise Refused(f"{params.service} has no healthy target to take more traffic.")
        made: dict[int, str] = {}  # request id by percent
        for percent in _ahead(params, now):
            try:
                made[percent] = await self._step(params, saved, now, percent, last=max(made, default=None))
            except OutcomeUnknown:
                raise
            except ExecutorError as error:
                steps = ", ".join(f"{p}%" for p in made) or "none"
                kind = PartlyDone if made else ExecutorError
                raise kind(f"{error} Steps made before: {steps}.") from error
        detail = f"{params.service}: {saved.percent:g}% of its traffic -> 100%"
        return Outcome(request_ids=tuple(made.values()), detail=detail)

    async def _step(
        self, params: RestoreParams, saved: RestoreState, now: RuleState, percent: int, last: int | None
    ) -> str:
        """One step up, after a pause if it is not the first; the request id."""
        if last is not None:
            await self.clock.sleep(params.pause_s)
            now = await self.read(params.service)
            self._must_have_stayed(params.service, now, last)
        await self._must_be_as_healthy(params.service, saved, now.percent)
        return await self.set_percent(params.service, now, percent)

    async def settle(self, params: RestoreParams, before: State) -> State:
        """Waits one more pause, then the rule must be at 100% and the targets as healthy as before."""
        await self.clock.sleep(params.pause_s)
        await settled(
            self.clock,
            lambda: self.read(params.service),
            lambda now: _other_share(params.service, now, 100),
            DEADLINE_S,
        )
        await self._must_be_as_healthy(params.service, RestoreState.model_validate(before), 100)
        return await self.inspect(params)

    async def probe(self, params: RestoreParams, before: State) -> Probe:
        """Done at 100%; below, going on from the present share is safe."""
        return "done" if (await self.read(params.service)).percent == 100 else "not_done"

    async def _targets(self, service: str) -> list[str]:
        """The health of each of the service's targets."""
        answer = await AWS.read(self.client.describe_target_health, TargetGroupArn=_split(self.resources, service).own)
        return [t.get("TargetHealth", {}).get("State", "") for t in answer["TargetHealthDescriptions"]]

    def _must_have_stayed(self, service: str, now: RuleState, share: float) -> None:
        if now.percent != share:
            raise ExecutorError(f"{service}: set to {now.percent:g}% by somebody else; the restore stops there.")

    async def _must_be_as_healthy(self, service: str, saved: RestoreState, share: float) -> None:
        unhealthy = _unhealthy(await self._targets(service))
        if unhealthy > saved.unhealthy:
            raise ExecutorError(
                f"{service}: {unhealthy} unhealthy targets, {saved.unhealthy} before; kept at {share:g}%."
            )


OPERATIONS: tuple[type[TrafficOperation[Any]], ...] = (ReduceTraffic, GradualTrafficRestore)


class TrafficExecutor:
    """All operations on listener rules, and the one client they share."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, client: "ElasticLoadBalancingv2Client") -> None:
        self.client = client
        self.operations: Sequence[AnyOperation] = [kind(resources, clock, client) for kind in OPERATIONS]

    async def check(self) -> list[Check]:
        """See executors.base.Executor."""
        return await checks(Settings(), self.operations)

    async def aclose(self) -> None:
        """Release connections."""
        self.client.close()


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``traffic``. Raises ValueError naming a missing setting."""
    client = cast("ElasticLoadBalancingv2Client", connect("elbv2", Settings()))
    return TrafficExecutor(resources, clock, client)


# --- where the traffic goes ---------------------------------------------------------------------------------


class Split(NamedTuple):
    """The rule of a service and the two target groups it forwards to, by ARN."""

    rule: str
    own: str
    overflow: str


def _split(resources: Mapping[str, Resource], service: str) -> Split:
    entry = listed(resources, service)
    if not (entry.listener_rule_arn and entry.target_group_arn and entry.overflow_target_group_arn):
        raise Refused(
            f"{service} cannot shed traffic: add services.{service}.load_balancer (listener_rule_arn,"
            " target_group_arn, overflow_target_group_arn) to autopilot.yaml."
        )
    return Split(entry.listener_rule_arn, entry.target_group_arn, entry.overflow_target_group_arn)


def _groups(action: Action) -> dict[str, int]:
    """Weight by target group of a forward action; a group without a weight has 1."""
    if action["Type"] != "forward":
        return {}
    config = cast("dict[str, list[dict[str, Any]]]", action.get("ForwardConfig") or {})
    groups = config.get("TargetGroups") or [{"TargetGroupArn": action.get("TargetGroupArn")}]
    return {group["TargetGroupArn"]: group.get("Weight", 1) for group in groups}


def _stickiness(action: Action) -> JsonValue:
    """The stickiness of a forward action, if it is on."""
    config = cast("dict[str, dict[str, JsonValue]]", action.get("ForwardConfig") or {})
    stickiness = config.get("TargetGroupStickinessConfig", {})
    return stickiness if stickiness.get("Enabled") else None


def _percent(weights: Mapping[str, int], split: Split) -> float:
    own, overflow = weights.get(split.own, 0), weights.get(split.overflow, 0)
    return 100 * own / (own + overflow) if own else 0.0


def _reweighted(action: Action, split: Split, percent: int) -> Action:
    """The action with the two weights changed. TargetGroupArn goes: AWS takes it for a single group only."""
    if action["Type"] != "forward":
        return action
    weights = {**_groups(action), split.own: percent, split.overflow: 100 - percent}
    config = cast("dict[str, JsonValue]", deepcopy(action.get("ForwardConfig") or {}))
    config["TargetGroups"] = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    return {k: v for k, v in action.items() if k != "TargetGroupArn"} | {"ForwardConfig": config}


def _beyond_weights(actions: Sequence[Action], split: Split) -> list[object]:
    """All that a change of the two weights leaves as it is, however AWS spells it."""
    two = (split.own, split.overflow)
    return [
        ({arn: w for arn, w in _groups(a).items() if arn not in two}, _stickiness(a))
        if a["Type"] == "forward"
        else _sendable(a)
        for a in actions
    ]


def _sendable(action: Action) -> "ActionTypeDef":
    """The action as ModifyRule takes it: AWS never tells an OIDC client's secret, but can keep it."""
    oidc = action.get("AuthenticateOidcConfig")
    if isinstance(oidc, dict):
        action = {**action, "AuthenticateOidcConfig": {**oidc, "UseExistingClientSecret": True}}
    return cast("ActionTypeDef", action)


def _ahead(params: RestoreParams, now: RuleState) -> list[int]:
    return [percent for percent in params.steps_percent if percent > now.percent]


def _unhealthy(targets: Sequence[str]) -> int:
    return sum(state.startswith("unhealthy") for state in targets)


def _other_share(service: str, now: RuleState, percent: int) -> str:
    """What the rule lacks to have this share; empty if it has it."""
    return "" if now.percent == percent else f"{service} to get {percent}% of its traffic (now {now.percent:g}%)"
