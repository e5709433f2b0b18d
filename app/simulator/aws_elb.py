"""Elastic Load Balancing v2: form-encoded requests, XML answers."""

from collections.abc import Mapping

from app.simulator.aws_errors import AwsError
from app.simulator.aws_query import Form, Operation, Xml, members
from app.simulator.balancer import Forward, Rule
from app.simulator.cluster import Task
from app.simulator.shop import Shop
from app.simulator.topology import (
    LISTENER_ARN,
    LOAD_BALANCER_ARN,
    OVERFLOW_TARGET_GROUP_ARN,
)

NAMESPACE = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
MUTATING = frozenset({"ModifyRule"})


class ElbApi:
    """ELBv2 in front of the shop's load balancer. Operations take the form and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.operations: Mapping[str, Operation] = {
            "DescribeRules": self._describe_rules,
            "ModifyRule": self._modify_rule,
            "DescribeTargetHealth": self._describe_target_health,
            "DescribeTargetGroups": self._describe_target_groups,
        }

    def _describe_rules(self, form: Form, at: float) -> Mapping[str, Xml]:
        balancer = self._shop.balancer
        wanted = members(form, "RuleArns")
        if form.get("ListenerArn") not in (None, LISTENER_ARN):
            raise AwsError("ListenerNotFound", "One or more listeners not found")
        if not wanted and "ListenerArn" not in form:
            raise AwsError("ValidationError", "You must specify either listener ARN or rule ARNs")
        rules = [balancer.rule(arn) for arn in wanted] or list(balancer.rules.values())
        return {"Rules": [_rule(rule) for rule in rules]}

    def _modify_rule(self, form: Form, at: float) -> Mapping[str, Xml]:
        arn = form.get("RuleArn", "")
        self._shop.balancer.rule(arn)
        return {"Rules": [_rule(self._shop.balancer.modify(arn, _forward(form)))]}

    def _describe_target_health(self, form: Form, at: float) -> Mapping[str, Xml]:
        arn = form.get("TargetGroupArn", "")
        if arn == OVERFLOW_TARGET_GROUP_ARN:
            return {"TargetHealthDescriptions": []}
        spec = self._shop.balancer.service_of(arn)
        if spec is None:
            raise AwsError("TargetGroupNotFound", "One or more target groups not found")
        tasks = self._shop.cluster.services[spec.name].tasks
        return {"TargetHealthDescriptions": [_target(task, at) for task in tasks]}

    def _describe_target_groups(self, form: Form, at: float) -> Mapping[str, Xml]:
        arns, names = members(form, "TargetGroupArns"), members(form, "Names")
        groups = {OVERFLOW_TARGET_GROUP_ARN: "please-try-again"}
        groups |= {rule.spec.target_group_arn: rule.spec.name for rule in self._shop.balancer.rules.values()}
        unknown = (set(arns) - set(groups)) | (set(names) - set(groups.values()))
        if unknown:
            raise AwsError("TargetGroupNotFound", f"Target groups '{', '.join(sorted(unknown))}' not found")
        chosen = {a: n for a, n in groups.items() if not (arns or names) or a in arns or n in names}
        return {"TargetGroups": [_target_group(arn, name) for arn, name in chosen.items()]}


def as_json(form: Mapping[str, object]) -> dict[str, object]:
    """ModifyRule's parameters as CloudTrail spells them."""
    try:
        forward = _forward({name: str(value) for name, value in form.items()})
    except (AwsError, ValueError):  # refused: what it asked for is nothing the shop knows
        return {"ruleArn": form.get("RuleArn", "")}
    groups = [{"targetGroupArn": arn, "weight": weight} for arn, weight in forward.weights.items()]
    return {
        "ruleArn": form.get("RuleArn", ""),
        "actions": [{"type": "forward", "forwardConfig": {"targetGroups": groups}}],
    }


def _forward(form: Form) -> Forward:
    action = "Actions.member.1"
    if form.get(f"{action}.Type") != "forward" or "Actions.member.2.Type" in form:
        raise AwsError("InvalidLoadBalancerAction", "This load balancer knows a single forward action only")
    config = f"{action}.ForwardConfig"
    weights: dict[str, int] = {}
    while (group := f"{config}.TargetGroups.member.{len(weights) + 1}") + ".TargetGroupArn" in form:
        weights[form[f"{group}.TargetGroupArn"]] = int(form.get(f"{group}.Weight", "1"))
    if not weights and f"{action}.TargetGroupArn" in form:
        weights = {form[f"{action}.TargetGroupArn"]: 1}
    if not weights:
        raise AwsError("ValidationError", "A forward action needs a target group")
    sticky = f"{config}.TargetGroupStickinessConfig"
    return Forward(
        weights,
        sticky=form.get(f"{sticky}.Enabled") == "true",
        sticky_s=int(form.get(f"{sticky}.DurationSeconds", "3600")),
    )


def _rule(rule: Rule) -> Mapping[str, Xml]:
    front = rule.spec.front
    groups: list[Xml] = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in rule.action.weights.items()]
    stickiness: dict[str, Xml] = {"Enabled": rule.action.sticky}
    if rule.action.sticky:
        stickiness["DurationSeconds"] = rule.action.sticky_s
    action: dict[str, Xml] = {"Type": "forward", "Order": 1}
    if len(groups) == 1:
        action["TargetGroupArn"] = next(iter(rule.action.weights))
    action["ForwardConfig"] = {"TargetGroups": groups, "TargetGroupStickinessConfig": stickiness}
    paths: list[Xml] = [front.path] if front else []
    return {
        "RuleArn": rule.spec.rule_arn,
        "Priority": str(front.priority) if front else "default",
        "Conditions": [{"Field": "path-pattern", "Values": paths, "PathPatternConfig": {"Values": paths}}],
        "Actions": [action],
        "IsDefault": False,
    }


def _target(task: Task, at: float) -> Mapping[str, Xml]:
    health: dict[str, Xml] = {"State": "healthy"}
    if not task.running(at):
        health = {
            "State": "initial",
            "Reason": "Elb.RegistrationInProgress",
            "Description": "Target registration is in progress",
        }
    elif task.unhealthy:
        health = {"State": "unhealthy", "Reason": "Target.Timeout", "Description": "Request timed out"}
    return {
        "Target": {"Id": task.ip, "Port": 8080, "AvailabilityZone": "us-east-1a"},
        "HealthCheckPort": "8080",
        "TargetHealth": health,
    }


def _target_group(arn: str, name: str) -> Mapping[str, Xml]:
    return {
        "TargetGroupArn": arn,
        "TargetGroupName": name,
        "Protocol": "HTTP",
        "Port": 8080,
        "VpcId": "vpc-0a1b2c3d",
        "HealthCheckProtocol": "HTTP",
        "HealthCheckPort": "traffic-port",
        "HealthCheckEnabled": True,
        "HealthCheckIntervalSeconds": 10,
        "HealthCheckTimeoutSeconds": 5,
        "HealthyThresholdCount": 2,
        "UnhealthyThresholdCount": 2,
        "HealthCheckPath": "/health",
        "Matcher": {"HttpCode": "200"},
        "LoadBalancerArns": [LOAD_BALANCER_ARN],
        "TargetType": "ip",
        "ProtocolVersion": "HTTP1",
    }
