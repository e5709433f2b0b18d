"""Checks, restarts, scales and rolls back ECS services, and stops one of their tasks.

ECS has no dry run: every operation reads the service first and refuses what must not run now.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_settings import SettingsConfigDict

from executors._aws import AwsSettings, Connection, checks
from executors._ecs_operation import Ecs, EcsOperation
from executors._ecs_restart import RestartAllServices, RestartEcsTask
from executors._ecs_rollback import RollbackEcsService
from executors._ecs_scale import ScaleEcsService
from executors._ecs_tasks import CheckEcsHealth, StopEcsTask
from executors._scalable_target import Autoscaler, connect_autoscaler
from executors.base import AnyOperation, Check, Clock, Executor, Resource

READS = (
    "ecs:DescribeServiceDeployments",
    "ecs:DescribeServiceRevisions",
    "ecs:DescribeServices",
    "ecs:DescribeTaskDefinition",
    "ecs:DescribeTasks",
    "ecs:ListServiceDeployments",
    "ecs:ListTasks",
)


class Settings(AwsSettings):
    """How to reach ECS."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_ECS_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


OPERATIONS: tuple[type[EcsOperation[Any]], ...] = (
    CheckEcsHealth,
    RestartEcsTask,
    RestartAllServices,
    ScaleEcsService,
    RollbackEcsService,
    StopEcsTask,
)


class EcsExecutor:
    """All operations on ECS, and the connections they share."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, ecs: Ecs, autoscaler: Autoscaler) -> None:
        self.ecs, self.autoscaler = ecs, autoscaler
        self.operations: Sequence[AnyOperation] = [kind(resources, clock, ecs, autoscaler) for kind in OPERATIONS]

    async def check(self) -> list[Check]:
        """See executors.base.Executor."""
        return await checks(Settings(), self.operations)

    async def aclose(self) -> None:
        """Release connections."""
        await self.ecs.aclose()
        await self.autoscaler.aclose()


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``ecs``. Raises ValueError naming a missing setting."""
    settings = Settings()
    ecs: Ecs = Connection("ecs", settings, reads=READS)
    return EcsExecutor(resources, clock, ecs, connect_autoscaler(settings))
