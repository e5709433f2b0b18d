"""The bounds within which Application Auto Scaling keeps an ECS service: a count outside of them is moved back."""

from typing import TYPE_CHECKING, TypeAlias

from pydantic import Field

from executors._aws import Api, AwsSettings, Connection, beside
from executors.base import ExecutorError, Grant, Model

if TYPE_CHECKING:
    from mypy_boto3_application_autoscaling import ApplicationAutoScalingClient

AWS = Api(iam_prefix="application-autoscaling")
READS = ("application-autoscaling:DescribeScalableTargets",)
REGISTER = "application-autoscaling:RegisterScalableTarget"
CONDITIONS = {
    "StringEquals": {
        "application-autoscaling:service-namespace": ("ecs",),
        "application-autoscaling:scalable-dimension": ("ecs:service:DesiredCount",),
    }
}


class Bounds(Model):
    """How few and how many tasks Application Auto Scaling keeps."""

    minimum: int
    maximum: int

    def __str__(self) -> str:
        return f"{self.minimum}..{self.maximum}"

    def to_hold(self, desired: int, now: int) -> "Bounds":
        """Bounds in which ``desired`` tasks stay: more than ``now`` become the minimum, fewer lower it if need be."""
        minimum = desired if desired > now else min(self.minimum, desired)
        return Bounds(minimum=minimum, maximum=max(self.maximum, desired))


class ScalableTarget(Model):
    """What Application Auto Scaling knows of a service."""

    arn: str = ""
    bounds: Bounds
    suspended: bool = Field(default=False, description="Its policies are held up; the bounds are not")


class Scaling(Model):
    """Whether a service is scaled. No ``target`` and no ``untold``: it is not."""

    target: ScalableTarget | None = None
    untold: str = Field(default="", description="Why it could not be read")


Autoscaler: TypeAlias = "Connection[ApplicationAutoScalingClient]"


def connect_autoscaler(settings: AwsSettings) -> Autoscaler:
    """Raises ValueError naming a missing setting."""
    return Connection("application-autoscaling", beside(settings), reads=READS)


async def read_scaling(autoscaler: Autoscaler, cluster: str, name: str) -> Scaling:
    """What keeps the service's count. Raises nothing: what cannot be read is said."""
    try:
        answer = await AWS.read(
            autoscaler.reader.describe_scalable_targets,
            ServiceNamespace="ecs",
            ResourceIds=[_resource_id(cluster, name)],
            ScalableDimension="ecs:service:DesiredCount",
        )
    except ExecutorError as error:
        return Scaling(untold=str(error))
    for found in answer["ScalableTargets"]:
        suspended = found.get("SuspendedState", {})
        return Scaling(
            target=ScalableTarget(
                arn=found.get("ScalableTargetARN", ""),
                bounds=Bounds(minimum=found["MinCapacity"], maximum=found["MaxCapacity"]),
                suspended=bool(suspended.get("DynamicScalingInSuspended") and suspended["DynamicScalingOutSuspended"]),
            )
        )
    return Scaling()


async def register(
    autoscaler: Autoscaler, operation: str, cluster: str, name: str, bounds: Bounds, grants: tuple[Grant, ...]
) -> str:
    """One RegisterScalableTarget; the request id. Raises ExecutorError, OutcomeUnknown."""
    async with autoscaler.acting(operation, grants) as client:
        answer = await AWS.write(
            client.register_scalable_target,
            ServiceNamespace="ecs",
            ResourceId=_resource_id(cluster, name),
            ScalableDimension="ecs:service:DesiredCount",
            MinCapacity=bounds.minimum,
            MaxCapacity=bounds.maximum,
        )
    return answer["ResponseMetadata"]["RequestId"]


def grants_to_register(target: ScalableTarget, service_arn: str) -> tuple[Grant, ...]:
    """Application Auto Scaling also asks whether the caller may change the service's count itself."""
    return (
        Grant(actions=(REGISTER,), resources=(target.arn or "*",), conditions=CONDITIONS),
        Grant(actions=("ecs:DescribeServices", "ecs:UpdateService"), resources=(service_arn,)),
    )


def _resource_id(cluster: str, name: str) -> str:
    """As Application Auto Scaling names an ECS service; the catalogue may name the cluster by its ARN."""
    return f"service/{cluster.rpartition('/')[2]}/{name.rpartition('/')[2]}"
