"""Application Auto Scaling, AWS JSON 1.1: the shop's scalable ECS services."""

from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from app.simulator.autoscaling import CPU_TARGET, ScalableTarget
from app.simulator.aws_errors import AwsError
from app.simulator.shop import Shop
from app.simulator.topology import ACCOUNT, CLUSTER, REGION

Json = dict[str, object]
Operation = Callable[[Json, float], Json]

TARGET_PREFIX = "AnyScaleFrontendService."
MUTATING = frozenset({"RegisterScalableTarget"})
DIMENSION = "ecs:service:DesiredCount"


def target_arn(service: str) -> str:
    """Of a scalable target."""
    number = sum(map(ord, service)) * 7919
    return f"arn:aws:application-autoscaling:{REGION}:{ACCOUNT}:scalable-target/0ec5{number:028x}"


class _Input(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, extra="ignore")

    service_namespace: Literal["ecs"]


class _Describe(_Input):
    resource_ids: list[str] = Field(default=[], max_length=50)


class _DescribePolicies(_Input):
    resource_id: str = ""


class _Suspended(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, extra="ignore")

    dynamic_scaling_in_suspended: bool = False
    dynamic_scaling_out_suspended: bool = False


class _Register(_Input):
    resource_id: str
    min_capacity: int | None = Field(default=None, ge=0)
    max_capacity: int | None = Field(default=None, ge=0)
    suspended_state: _Suspended | None = None


class ScalingApi:
    """Application Auto Scaling in front of the shop. Operations take the request and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._scaling, self._cluster = shop.world.autoscaling, shop.cluster
        self.operations: Mapping[str, Operation] = {
            "DescribeScalableTargets": self._describe_targets,
            "DescribeScalingPolicies": self._describe_policies,
            "RegisterScalableTarget": self._register,
        }

    def _describe_targets(self, body: Json, at: float) -> Json:
        request = _Describe.model_validate(body)
        wanted = {_service(resource) for resource in request.resource_ids}
        chosen = [t for name, t in self._scaling.targets.items() if not wanted or name in wanted]
        return {"ScalableTargets": [_target(target) for target in chosen]}

    def _describe_policies(self, body: Json, at: float) -> Json:
        request = _DescribePolicies.model_validate(body)
        wanted = _service(request.resource_id) if request.resource_id else ""
        chosen = [name for name in self._scaling.targets if wanted in ("", name)]
        return {"ScalingPolicies": [_policy(name, self._scaling.targets[name]) for name in chosen]}

    def _register(self, body: Json, at: float) -> Json:
        request = _Register.model_validate(body)
        name = _service(request.resource_id)
        self._cluster.service(name)
        known = self._scaling.targets.get(name)
        if known is None and None in (request.min_capacity, request.max_capacity):
            raise AwsError("ValidationException", "Both minimum and maximum capacity are needed to register a target.")
        least = request.min_capacity if request.min_capacity is not None else known.minimum if known else 0
        most = request.max_capacity if request.max_capacity is not None else known.maximum if known else 0
        if least > most:
            raise AwsError("ValidationException", "Maximum capacity cannot be less than minimum capacity.")
        state = request.suspended_state
        suspended = state.dynamic_scaling_in_suspended and state.dynamic_scaling_out_suspended if state else None
        self._scaling.register(name, at, least, most, suspended)
        return {"ScalableTargetARN": target_arn(name)}


def _service(resource: str) -> str:
    """Of ``service/<cluster>/<service>``. Raises AwsError."""
    kind, _, rest = resource.partition("/")
    cluster, _, name = rest.partition("/")
    if (kind, cluster) != ("service", CLUSTER) or not name:
        raise AwsError("ValidationException", f"Unsupported resource id: {resource}")
    return name


def _target(target: ScalableTarget) -> Json:
    return {
        "ServiceNamespace": "ecs",
        "ResourceId": f"service/{CLUSTER}/{target.service}",
        "ScalableDimension": DIMENSION,
        "MinCapacity": target.minimum,
        "MaxCapacity": target.maximum,
        "RoleARN": f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/ecs.application-autoscaling.amazonaws.com/scaling",
        "CreationTime": target.created_at,
        "SuspendedState": {
            "DynamicScalingInSuspended": target.suspended,
            "DynamicScalingOutSuspended": target.suspended,
            "ScheduledScalingSuspended": False,
        },
        "ScalableTargetARN": target_arn(target.service),
    }


def _policy(service: str, target: ScalableTarget) -> Json:
    name = f"{service}-cpu"
    arn = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:scalingPolicy:5f1d:resource/ecs/service/{CLUSTER}/{service}"
    return {
        "PolicyARN": f"{arn}:policyName/{name}",
        "PolicyName": name,
        "ServiceNamespace": "ecs",
        "ResourceId": f"service/{CLUSTER}/{service}",
        "ScalableDimension": DIMENSION,
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": {
            "TargetValue": CPU_TARGET,
            "PredefinedMetricSpecification": {"PredefinedMetricType": "ECSServiceAverageCPUUtilization"},
        },
        "CreationTime": target.created_at,
    }
