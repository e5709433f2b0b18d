"""Shifts traffic between the target groups that a listener rule forwards to already, e.g. blue and green."""

from collections.abc import Mapping

from pydantic import Field

from executors._aws import settled
from executors._aws_service import ServiceParams
from executors._listener_rule import (
    DEADLINE_S,
    RuleOperation,
    RuleState,
    Targets,
    group,
    modify,
    reweighted,
    weight_changes,
)
from executors.base import Capacity, Change, Outcome, PreflightCheck, Probe, Refused, State


class ShiftParams(ServiceParams):
    """One service, one of the target groups of its rule, and the share that this gets."""

    target_group_arn: str = Field(pattern="^arn:", description="A group that the service's rule forwards to already")
    percent: int = Field(ge=0, le=100, description="Percent of the traffic it gets; the others share the rest as now")


class ShiftState(RuleState):
    """A listener rule and the health of all target groups that it forwards to."""

    targets: dict[str, Targets] = Field(description="By target group ARN")


class ShiftTraffic(RuleOperation[ShiftParams]):
    """Changes how a service's own target groups share its traffic."""

    name = "shift_traffic"
    summary = "Shift a service's traffic between the target groups of its rule, e.g. from green back to blue"
    risk = "medium"
    reversible = True
    minutes = 0.5
    permissions = (
        "elasticloadbalancing:DescribeRules",
        "elasticloadbalancing:DescribeTargetHealth",
        "elasticloadbalancing:ModifyRule",
    )
    params = ShiftParams
    state = ShiftState

    async def inspect(self, params: ShiftParams) -> State:
        """The rule, with its whole action list and its weights, and the health of each of its target groups."""
        rule = await self.read(params.service)
        targets = {arn: await self.targets(arn) for arn in rule.weights}
        return ShiftState(**dict(rule), targets=targets).model_dump(mode="json")

    def preview(self, params: ShiftParams, before: State) -> str:
        """From which share of the traffic to which, per group."""
        state = ShiftState.model_validate(before)
        new = self._wanted(params, state)
        return f"{params.service}: {_shares(state.weights)} -> {_shares({**state.weights, **new})}"

    def changes(self, params: ShiftParams, before: State) -> tuple[Change, ...]:
        """The weights that differ."""
        state = ShiftState.model_validate(before)
        return weight_changes(state.weights, self._wanted(params, state))

    def movable(self, params: ShiftParams, state: RuleState) -> tuple[str, ...]:
        """All of the service's own groups: not the one that takes what it sheds."""
        overflow = self.split(params.service).overflow
        return tuple(arn for arn in state.weights if arn != overflow)

    def looked_at(self, params: ShiftParams, before: State) -> tuple[PreflightCheck, ...]:
        """The health of the group that gets the traffic."""
        targets = ShiftState.model_validate(before).targets.get(params.target_group_arn)
        detail = f"{group(params.target_group_arn)}: {targets or 'not in the rule'}"
        return (
            PreflightCheck(name="state", status="warning" if not targets or targets.unhealthy else "ok", detail=detail),
        )

    def capacity(self, params: ShiftParams, before: State) -> Capacity | None:
        """The healthy targets, as if all were in the group that is the shortest of them for its share."""
        state = ShiftState.model_validate(before)
        then = {**state.weights, **self._wanted(params, state)}
        return Capacity(
            service=params.service,
            servers_now=_scarcest(state.weights, state.targets),
            servers_then=_scarcest(then, state.targets),
        )

    async def execute(self, params: ShiftParams, before: State) -> Outcome:
        """One ModifyRule on the rule as it is at this moment."""
        detail = self.preview(params, before)
        saved, now = ShiftState.model_validate(before), await self.read(params.service)
        self.must_be_ours(params, saved, now)
        if now.weights != saved.weights:
            raise Refused(f"{params.service}: its weights were changed a moment ago; look again.")
        actions = reweighted(now.actions, self._wanted(params, saved))
        async with self.elb.acting(self.name, self.grants(params, before)) as client:
            return Outcome(request_ids=(await modify(client, now.rule, actions),), detail=detail)

    async def settle(self, params: ShiftParams, before: State) -> State:
        """Reads the rule until it has the new weights, for at most a minute."""
        saved = ShiftState.model_validate(before)
        wanted = {**saved.weights, **self._wanted(params, saved)}
        state = await settled(
            self.clock,
            lambda: self.read(params.service),
            lambda now: "" if now.weights == wanted else f"{params.service} to have the weights {_shares(wanted)}",
            DEADLINE_S,
        )
        return state.model_dump(mode="json")

    async def probe(self, params: ShiftParams, before: State) -> Probe:
        """Told by the weights."""
        saved, now = ShiftState.model_validate(before), await self.read(params.service)
        if now.weights == {**saved.weights, **self._wanted(params, saved)}:
            return "done"
        return "not_done" if now.weights == saved.weights else "unknown"

    def must_be_ours(self, params: ShiftParams, saved: RuleState, now: RuleState) -> None:
        """Also refuses weights that are neither those before nor those set."""
        super().must_be_ours(params, saved, now)
        wanted = {**saved.weights, **shifted(params, self.movable(params, saved), saved.weights)}
        if now.weights not in (saved.weights, wanted):
            raise Refused(f"{params.service}: its weights were set to {_shares(now.weights)} by somebody else.")

    def worded(self, params: ShiftParams, state: RuleState) -> str:
        """The share of each group."""
        return _shares(state.weights)

    def _wanted(self, params: ShiftParams, state: ShiftState) -> dict[str, int]:
        """The new weights of the service's groups. Raises Refused if they cannot, or must not, be set."""
        split, movable = self.split(params.service), self.movable(params, state)
        if state.is_default:
            raise Refused(f"{params.service}: {split.rule} is the listener's default rule; it takes a rule of its own.")
        if split.own not in movable or params.target_group_arn not in movable or len(movable) < 2:
            known = ", ".join(map(group, movable)) or "none"
            raise Refused(
                f"{params.service}: its rule must forward to {group(split.own)} and {group(params.target_group_arn)}"
                f" already, as groups of its own; it forwards to: {known}."
            )
        if split.overflow and state.weights.get(split.overflow):
            raise Refused(f"{params.service} sheds traffic to its overflow group now: restore it first.")
        wanted = shifted(params, movable, state.weights)
        if all(state.weights[arn] == weight for arn, weight in wanted.items()) or _same_shares(state.weights, wanted):
            raise Refused(f"{params.service}: {_shares(state.weights)} already: nothing to shift.")
        for arn, weight in wanted.items():
            if weight and not state.targets[arn].healthy:
                raise Refused(f"{params.service}: {group(arn)} has no healthy target to take traffic.")
        return wanted


def shifted(params: ShiftParams, movable: tuple[str, ...], now: Mapping[str, int]) -> dict[str, int]:
    """The group's percent, and the rest by what the others have now. Raises Refused if nobody says who gets it."""
    others = {arn: now[arn] for arn in movable if arn != params.target_group_arn}
    rest, total = 100 - params.percent, sum(others.values())
    if rest and not total:
        if len(others) > 1:
            raise Refused(f"{params.service}: none of its other groups has a weight; shift to one of them by name.")
        others, total = dict.fromkeys(others, 1), 1
    weights, seen, given = {params.target_group_arn: params.percent}, 0, 0
    for arn, weight in others.items():
        seen += weight
        share = round(rest * seen / total) - given if total else 0
        weights[arn], given = share, given + share
    return {arn: weights[arn] for arn in movable}


def _same_shares(old: Mapping[str, int], new: Mapping[str, int]) -> bool:
    total = sum(old[arn] for arn in new)
    return all(old[arn] * 100 == weight * total for arn, weight in new.items())


def _shares(weights: Mapping[str, int]) -> str:
    """``targetgroup/blue/1 90%, targetgroup/green/2 10%``."""
    total = sum(weights.values()) or 1
    return ", ".join(f"{group(arn)} {100 * weight / total:.3g}%" for arn, weight in weights.items())


def _scarcest(weights: Mapping[str, int], targets: Mapping[str, Targets]) -> float:
    """Healthy targets per share of the traffic, where that is lowest."""
    total = sum(weights.values())
    return min((targets[arn].healthy * total / weight for arn, weight in weights.items() if weight), default=0.0)
