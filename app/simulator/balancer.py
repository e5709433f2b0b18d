"""The shop's Application Load Balancer: one listener rule per public service, and where each rule sends traffic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.simulator.aws_errors import AwsError
from app.simulator.topology import OVERFLOW_TARGET_GROUP_ARN, SERVICES, ServiceSpec


@dataclass(frozen=True)
class Forward:
    """A forward action: weight by target group ARN."""

    weights: Mapping[str, int]
    sticky: bool = False
    sticky_s: int = 3600

    def share(self, target_group: str) -> float:
        """Share of requests that this group gets, 0 to 1."""
        total = sum(self.weights.values())
        return self.weights.get(target_group, 0) / total if total else 0.0


@dataclass
class Rule:
    """A listener rule."""

    spec: ServiceSpec
    action: Forward

    @property
    def kept(self) -> float:
        """Share of requests that reach the service, 0 to 1."""
        return self.action.share(self.spec.target_group_arn)


@dataclass
class Balancer:
    """All rules by ARN."""

    rules: dict[str, Rule] = field(
        default_factory=lambda: {
            spec.rule_arn: Rule(spec, Forward({spec.target_group_arn: 1})) for spec in SERVICES.values() if spec.front
        }
    )

    def rule(self, arn: str) -> Rule:
        """Raises AwsError."""
        if arn not in self.rules:
            raise AwsError("RuleNotFound", "One or more rules not found")
        return self.rules[arn]

    def modify(self, arn: str, action: Forward) -> Rule:
        """ModifyRule. Raises AwsError."""
        rule = self.rule(arn)
        for group, weight in action.weights.items():
            if group != OVERFLOW_TARGET_GROUP_ARN and self.service_of(group) is None:
                raise AwsError("TargetGroupNotFound", f"Target groups '{group}' not found")
            if not 0 <= weight <= 999:
                raise AwsError("ValidationError", f"Target group weight '{weight}' must be between 0 and 999")
        rule.action = action
        return rule

    def service_of(self, target_group: str) -> ServiceSpec | None:
        """The service behind a target group; None for the overflow group and unknown ones."""
        found = [rule.spec for rule in self.rules.values() if rule.spec.target_group_arn == target_group]
        return found[0] if found else None

    def kept(self, services: Sequence[str]) -> float:
        """Share of requests left after passing the rules of these services one after another."""
        share = 1.0
        for rule in self.rules.values():
            if rule.spec.name in services:
                share *= rule.kept
        return share
