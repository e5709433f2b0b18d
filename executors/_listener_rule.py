"""A listener rule of an Application Load Balancer: how it splits the traffic, and changing nothing but its weights.

ModifyRule replaces a rule's whole action list, so every change starts from the list as it is at that moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, ClassVar, NamedTuple, TypeAlias, TypeVar, cast

from pydantic import Field, JsonValue

from executors._aws import Api, Connection, listed
from executors._aws_service import ServiceParams
from executors.base import (
    Change,
    Clock,
    ExecutorError,
    Grant,
    Model,
    Operation,
    Outcome,
    PreflightCheck,
    Refused,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_ecs.type_defs import ServiceTypeDef
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_elbv2.type_defs import ActionTypeDef

AWS = Api(iam_prefix="elasticloadbalancing")
ECS = Api(iam_prefix="ecs")
DEADLINE_S = 60.0
Action = dict[str, JsonValue]  # one action of a rule, as DescribeRules has it
Elb: TypeAlias = "Connection[ElasticLoadBalancingv2Client]"
Ecs: TypeAlias = "Connection[ECSClient]"


class RuleState(Model):
    """A listener rule and how it splits the traffic."""

    rule: str
    is_default: bool
    actions: tuple[Action, ...] = Field(description="As DescribeRules has them")
    weights: dict[str, int] = Field(description="By target group ARN; empty if the rule forwards nothing")
    percent: float = Field(description="The service's part of what goes to it and to the overflow group")

    @property
    def sticky(self) -> bool:
        """Whether clients keep the target group that they were given."""
        return any(map(_stickiness, self.actions))


class Split(NamedTuple):
    """The rule of a service, its own target group, and the one that takes what it sheds, by ARN."""

    rule: str
    own: str
    overflow: str | None


class Targets(Model):
    """The health of a target group's targets."""

    healthy: int
    unhealthy: int

    def __str__(self) -> str:
        return f"{self.healthy} healthy, {self.unhealthy} unhealthy"


R = TypeVar("R", bound=ServiceParams)


class RuleOperation(Operation[R]):
    """What the operations on a listener rule have in common. ``resource`` needs nothing but ``resources``."""

    state: ClassVar[type[RuleState]] = RuleState

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, elb: Elb, ecs: Ecs) -> None:
        self.resources, self.clock, self.elb, self.ecs = resources, clock, elb, ecs

    def lacks(self, resource: Resource) -> str:
        """A listener rule and the target group behind it."""
        if resource.listener_rule_arn and resource.target_group_arn:
            return ""
        return f"no listener rule: add services.{resource.service}.load_balancer to autopilot.yaml"

    def split(self, service: str) -> Split:
        """Where the service's traffic goes. Raises Refused if the catalogue does not tell."""
        entry = listed(self.resources, service)
        if lack := self.lacks(entry):
            raise Refused(f"{service} has {lack} (listener_rule_arn, target_group_arn, overflow_target_group_arn).")
        return Split(str(entry.listener_rule_arn), str(entry.target_group_arn), entry.overflow_target_group_arn)

    def resource(self, params: R) -> str:
        """``alb:<listener rule ARN>``."""
        return f"alb:{self.split(params.service).rule}"

    def pinned(self, params: R, before: State) -> State:
        """The weights, and all else that the rule does."""
        state = self.state.model_validate(before)
        movable = self.movable(params, state)
        return {
            "weights": cast("JsonValue", state.weights),
            "rest of the rule": _beyond_weights(state.actions, movable),
        }

    def movable(self, params: R, state: RuleState) -> tuple[str, ...]:
        """The target groups whose weights it changes."""
        split = self.split(params.service)
        return (split.own, split.overflow or "")

    def grants(self, params: R, before: State) -> tuple[Grant, ...]:
        """ModifyRule on this rule."""
        return (Grant(actions=("elasticloadbalancing:ModifyRule",), resources=(self.split(params.service).rule,)),)

    async def preflight(self, params: R, before: State) -> tuple[PreflightCheck, ...]:
        """Sticky sessions, who else sets the weights, and permissions."""
        checks = list(self.looked_at(params, before))
        if self.state.model_validate(before).sticky:
            sticky = f"{params.service}: sticky sessions keep clients where they are until their cookie ends"
            checks.append(PreflightCheck(name="state", status="warning", detail=sticky))
        checks.extend(await self._owner(params.service))
        return (*checks, *await self.elb.permitted(self.grants(params, before)))

    def looked_at(self, params: R, before: State) -> tuple[PreflightCheck, ...]:
        """What the state that was read tells."""
        return ()

    async def undo(self, params: R, before: State) -> Outcome:
        """The saved actions again, unless somebody has changed more than the weights since."""
        saved, now = self.state.model_validate(before), await self.read(params.service)
        if now.weights == saved.weights:
            return Outcome(detail=f"{params.service}: already back at {self.worded(params, saved)}")
        self.must_be_ours(params, saved, now)
        detail = f"{params.service}: {self.worded(params, now)} -> {self.worded(params, saved)}"
        async with self.elb.acting(self.name, self.grants(params, before)) as client:
            return Outcome(request_ids=(await modify(client, saved.rule, saved.actions),), detail=detail)

    def worded(self, params: R, state: RuleState) -> str:
        """How the traffic is split, in words."""
        return f"{state.percent:g}% of its traffic"

    async def read(self, service: str) -> RuleState:
        """The rule as it is now. Raises ExecutorError."""
        split = self.split(service)
        answer = await AWS.read(self.elb.reader.describe_rules, RuleArns=[split.rule])
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

    async def targets(self, group: str) -> Targets:
        """The health of a target group's targets. Raises ExecutorError."""
        answer = await AWS.read(self.elb.reader.describe_target_health, TargetGroupArn=group)
        states = [t.get("TargetHealth", {}).get("State", "") for t in answer["TargetHealthDescriptions"]]
        return Targets(
            healthy=states.count("healthy"), unhealthy=sum(state.startswith("unhealthy") for state in states)
        )

    def must_be_ours(self, params: R, saved: RuleState, now: RuleState) -> None:
        """Raises Refused if more than its weights has changed: writing would undo somebody else's work."""
        movable = self.movable(params, saved)
        if _beyond_weights(saved.actions, movable) != _beyond_weights(now.actions, movable):
            raise Refused(f"{params.service}: its rule was changed by somebody else since it was read; left as it is.")

    async def _owner(self, service: str) -> list[PreflightCheck]:
        """Whether deployments of ECS or CodeDeploy set the weights of this rule too."""
        entry = self.resources[service]
        if not (entry.cluster and entry.ecs_service):
            return []
        try:
            answer = await ECS.read(
                self.ecs.reader.describe_services, cluster=entry.cluster, services=[entry.ecs_service]
            )
        except ExecutorError as error:
            detail = f"whether a deployment sets the weights of this rule was not told: {error}"
            return [PreflightCheck(name="gitops", status="skipped", detail=detail)]
        return [_deployer(service, found) for found in answer["services"]]


def _deployer(service: str, ecs: "ServiceTypeDef") -> PreflightCheck:
    controller = ecs.get("deploymentController", {"type": "ECS"})["type"]
    strategy = ecs.get("deploymentConfiguration", {}).get("strategy", "ROLLING")
    if controller == "ECS" and strategy == "ROLLING":
        return PreflightCheck(name="gitops", status="ok", detail=f"no deployment of {service} sets weights")
    by = "CodeDeploy" if controller == "CODE_DEPLOY" else f"{controller} ({strategy})"
    if any(deployment.get("rolloutState") == "IN_PROGRESS" for deployment in ecs.get("deployments", [])):
        detail = f"a deployment of {service} by {by} is shifting this traffic right now; wait for its end"
        return PreflightCheck(name="gitops", status="failed", detail=detail)
    detail = f"deployments of {service} by {by} set these weights: the next one overwrites what is set here"
    return PreflightCheck(name="gitops", status="warning", detail=detail)


# --- the weights ----------------------------------------------------------------------------------------------


async def modify(client: "ElasticLoadBalancingv2Client", rule: str, actions: Iterable[Action]) -> str:
    """One ModifyRule; the request id. Raises ExecutorError, OutcomeUnknown."""
    answer = await AWS.write(client.modify_rule, RuleArn=rule, Actions=[_sendable(a) for a in actions])
    return answer["ResponseMetadata"]["RequestId"]


def reweighted(actions: Iterable[Action], weights: Mapping[str, int]) -> list[Action]:
    """The actions with these weights by target group, which are added if they are not there."""
    return [_reweighted(action, weights) for action in actions]


def weight_changes(old: Mapping[str, int], new: Mapping[str, int]) -> tuple[Change, ...]:
    """The weights that differ, as lines."""
    return tuple(
        Change(what=f"weight of {group(arn)}", before=str(old.get(arn, "none")), after=str(weight))
        for arn, weight in new.items()
        if weight != old.get(arn)
    )


def group(arn: str) -> str:
    """``targetgroup/pay/6d0e`` of an ARN."""
    return arn.rpartition(":")[2]


def _groups(action: Action) -> dict[str, int]:
    """Weight by target group of a forward action; a group without a weight has 1."""
    if action["Type"] != "forward":
        return {}
    config = cast("dict[str, list[dict[str, JsonValue]]]", action.get("ForwardConfig") or {})
    groups = config.get("TargetGroups") or [{"TargetGroupArn": action.get("TargetGroupArn")}]
    return {str(group["TargetGroupArn"]): cast("int", group.get("Weight", 1)) for group in groups}


def _stickiness(action: Action) -> JsonValue:
    """The stickiness of a forward action, if it is on."""
    config = cast("dict[str, dict[str, JsonValue]]", action.get("ForwardConfig") or {})
    stickiness = config.get("TargetGroupStickinessConfig", {})
    return stickiness if stickiness.get("Enabled") else None


def _percent(weights: Mapping[str, int], split: Split) -> float:
    own, overflow = weights.get(split.own, 0), weights.get(split.overflow or "", 0)
    return 100 * own / (own + overflow) if own else 0.0


def _reweighted(action: Action, weights: Mapping[str, int]) -> Action:
    """The action with other weights. TargetGroupArn goes: AWS takes it for a single group only."""
    if action["Type"] != "forward":
        return action
    config = cast("dict[str, JsonValue]", deepcopy(action.get("ForwardConfig") or {}))
    config["TargetGroups"] = [
        {"TargetGroupArn": arn, "Weight": weight} for arn, weight in {**_groups(action), **weights}.items()
    ]
    return {k: v for k, v in action.items() if k != "TargetGroupArn"} | {"ForwardConfig": config}


def _beyond_weights(actions: Sequence[Action], movable: Sequence[str]) -> list[JsonValue]:
    """All that a change of these groups' weights leaves as it is, however AWS spells it."""
    return [
        {"weights": {arn: w for arn, w in _groups(a).items() if arn not in movable}, "stickiness": _stickiness(a)}
        if a["Type"] == "forward"
        else cast("JsonValue", _sendable(a))
        for a in actions
    ]


def _sendable(action: Action) -> "ActionTypeDef":
    """The action as ModifyRule takes it: AWS never tells an OIDC client's secret, but can keep it."""
    oidc = action.get("AuthenticateOidcConfig")
    if isinstance(oidc, dict):
        action = {**action, "AuthenticateOidcConfig": {**oidc, "UseExistingClientSecret": True}}
    return cast("ActionTypeDef", action)
