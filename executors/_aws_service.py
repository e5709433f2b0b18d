"""What the executors of AWS's managed services share: operations on one service of the catalogue, by one connection.

Reads go through the connection's reader; every write through a session of its own that may make just that step's
calls on just that step's targets (``grants``).
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from botocore.client import BaseClient
from pydantic import Field

from executors._aws import AwsSettings, Connection, checks, listed
from executors.base import (
    AnyOperation,
    Check,
    Clock,
    Model,
    Operation,
    PreflightCheck,
    Refused,
    Resource,
    State,
)

Client = TypeVar("Client", bound=BaseClient)


class ServiceParams(Model):
    """One service of the catalogue."""

    service: str = Field(min_length=1, description="Name of the service in the catalogue")


S = TypeVar("S", bound=ServiceParams)


class AwsOperation(Operation[S], Generic[S, Client]):
    """One operation on what the catalogue names of one service. ``resource`` needs nothing but ``resources``."""

    needs: ClassVar[str]  # what `lacks` says is missing: the key of autopilot.yaml, and what goes there

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, connection: Connection[Client]) -> None:
        self.resources, self.clock, self.connection = resources, clock, connection

    def lacks(self, resource: Resource) -> str:
        """The key of autopilot.yaml that would have to be there."""
        return "" if self.target(resource) else f"{resource.service} has no {self.needs} in autopilot.yaml."

    def target(self, resource: Resource) -> object:
        """What of the catalogue's entry it changes; None or empty if that is not named there."""
        raise NotImplementedError

    def entry(self, service: str) -> Resource:
        """The catalogue's entry, with all that this operation needs. Raises Refused."""
        entry = listed(self.resources, service)
        if lack := self.lacks(entry):
            raise Refused(lack)
        return entry

    async def preflight(self, params: S, before: State) -> tuple[PreflightCheck, ...]:
        """What was looked at, and the permissions on exactly these targets."""
        seen = await self.looked(params, before)
        return (*seen, *await self.connection.permitted(self.grants(params, before)))

    async def looked(self, params: S, before: State) -> tuple[PreflightCheck, ...]:
        """All checks but the permissions. Changes nothing."""
        return ()


AnyAwsOperation = AwsOperation[Any, Any]


class AwsExecutor:
    """All operations on one AWS service, and the one connection they share."""

    def __init__(
        self, settings: AwsSettings, connection: Connection[Client], operations: Sequence[AwsOperation[Any, Client]]
    ) -> None:
        self.settings, self.connection = settings, connection
        self.operations: Sequence[AnyOperation] = operations

    async def check(self) -> list[Check]:
        """See executors.base.Executor."""
        return await checks(self.settings, self.operations)

    async def aclose(self) -> None:
        """Release connections."""
        await self.connection.aclose()
