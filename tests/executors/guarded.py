"""A connection around a stubbed client that lets nothing through but what is granted.

Reads must be among the executor's reads; everything else only inside ``acting`` and only if the step's grants name it.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, Generic, TypeVar

import botocore.session
from botocore.client import BaseClient
from botocore.model import OperationModel
from botocore.stub import Stubber

from executors._aws import CONFIG, Connection
from executors.base import AnyOperation, Grant
from tests.executors.conftest import NOWHERE

Client = TypeVar("Client", bound=BaseClient)
META = {"RequestId": "req-1", "HTTPStatusCode": 200}


class Guarded(Connection[Client], Generic[Client]):
    """Fails the test at the first call that is not granted."""

    def __init__(self, client: Client, reads: Sequence[str]) -> None:
        self.service, self.settings, self.reader = client.meta.service_model.service_name, None, client
        self.reads, self.granted = frozenset(reads), frozenset[str]()
        client.meta.events.register_first("before-call", self._check)

    @asynccontextmanager
    async def acting(self, name: str, grants: Sequence[Grant]) -> AsyncIterator[Client]:
        """The one client, with the grants' actions for as long as the block lasts."""
        self.granted = frozenset(action for grant in grants for action in grant.actions)
        yield self.reader
        self.granted = frozenset()

    def _check(self, model: OperationModel, **_: object) -> None:
        action = f"{model.service_model.signing_name}:{model.name}"
        assert action in self.reads | self.granted, f"{action} is not granted, only {sorted(self.granted)}"


@cache
def _session() -> botocore.session.Session:
    """One for all tests: reading the service models takes longer than the tests."""
    session = botocore.session.Session()
    session.set_credentials("local", "local")
    return session


@contextmanager
def guarded(service: str, reads: Sequence[str]) -> Iterator[tuple[Connection[Any], Stubber]]:
    """The connection and the answers a test lines up; all of them must have been asked for in the end."""
    client: BaseClient = _session().create_client(service, "us-east-1", endpoint_url=NOWHERE, config=CONFIG)
    with Stubber(client) as stubber:
        yield Guarded(client, reads), stubber
        stubber.assert_no_pending_responses()
    client.close()


def write_actions(operation: AnyOperation, grants: Sequence[Grant]) -> None:
    """What a step is granted is among what the doctor asks for; PassRole is known only with the step's role."""
    granted = {action for grant in grants for action in grant.actions} - {"iam:PassRole"}
    assert granted <= set(operation.permissions)
