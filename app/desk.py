"""What all use cases need, and how they refuse."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import procrastinate

from app.admission import Budget
from app.db import Connection, Pool
from app.intake.correlate import Correlation, Topology
from app.security import Caller, Role
from app.settings import Settings
from app.store.alerts import observed_edges
from collectors.base import Edge
from executors.base import Clock, Risk
from graph.catalogue import Catalogue

TOPOLOGY_FRESH_S = 30.0
ANSWER_WITHIN_S = 8.0  # Datadog waits 15 s, SNS too: a database that hangs is a 503 well before


class KnownTopology:
    """Who calls whom, by the catalogue and by the traces that were read; looked up again now and then."""

    def __init__(self) -> None:
        self._known, self._read_at = Topology(), -math.inf

    async def get(self, connection: Connection, catalogue: Catalogue) -> Topology:
        """As of half a minute ago at most."""
        if time.monotonic() - self._read_at > TOPOLOGY_FRESH_S:
            observed = (Edge(caller=a, callee=b, source="traces") for a, b in await observed_edges(connection))
            self._known, self._read_at = Topology((*catalogue.edges(), *observed)), time.monotonic()
        return self._known


@dataclass(frozen=True)
class Desk:
    """What the use cases need."""

    pool: Pool
    queue: procrastinate.App
    catalogue: Catalogue
    clock: Clock
    settings: Settings
    roles: Mapping[Risk, Role] = field(default_factory=dict)
    correlation: Correlation = field(default_factory=Correlation)
    topology: KnownTopology = field(default_factory=KnownTopology)
    intake_pool: Pool | None = None  # of one connection, whose statements are prepared; None: the pool of all

    @property
    def budget(self) -> Budget:
        """How much may be investigated."""
        return Budget.of(self.settings)


class Conflict(Exception):
    """The incident is not in the state this needs; the text says which, and who was first."""


class NotFound(Exception):
    """There is no such incident, or whatever ``kind`` says."""

    def __init__(self, name: object, kind: str = "incident") -> None:
        super().__init__(f"There is no {kind} {str(name)!r}.")


class NotAllowed(Exception):
    """The caller's role does not allow this."""


class Unusable(Exception):
    """What was sent cannot be used; the text says why."""


def require(caller: Caller, role: Role, what: str) -> None:
    """Raises NotAllowed."""
    if not caller.may(role):
        raise NotAllowed(f"{caller.name} is {caller.role}; to {what} takes {role}.")
