"""What all use cases need, and how they refuse."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import procrastinate

from app.admission import Budget
from app.catalogue import Operator
from app.db import Connection, Pool
from app.intake.correlate import Correlation, Topology
from app.knowledge.embedding import Embedder
from app.security import Caller
from app.settings import Settings
from app.store.alerts import observed_edges
from collectors.base import Edge
from executors.base import AnyOperation, Clock
from graph.catalogue import Catalogue
from graph.policy import Policy
from graph.state import Role

TOPOLOGY_FRESH_S = 30.0
STRANGERS_PER_MINUTE = 30  # more of them are not worth a row each
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


@dataclass
class Strangers:
    """Attempts to decide by callers that nobody knows: recorded, but only so many a minute."""

    counted_since: float = field(default_factory=time.monotonic)
    counted: int = 0

    def worth_a_row(self) -> bool:
        """Whether this one is among the first of its minute."""
        if time.monotonic() - self.counted_since >= 60.0:
            self.counted_since, self.counted = time.monotonic(), 0
        self.counted += 1
        return self.counted <= STRANGERS_PER_MINUTE


@dataclass(frozen=True)
class Desk:
    """What the use cases need."""

    pool: Pool
    queue: procrastinate.App
    catalogue: Catalogue
    clock: Clock
    settings: Settings
    policy: Policy = field(default_factory=Policy)
    operators: Mapping[str, Operator] = field(default_factory=dict)
    operations: Mapping[str, AnyOperation] = field(default_factory=dict)
    correlation: Correlation = field(default_factory=Correlation)
    topology: KnownTopology = field(default_factory=KnownTopology)
    strangers: Strangers = field(default_factory=Strangers)
    embedder: Embedder | None = None  # None: cases are searched by signature and words
    intake_pool: Pool | None = None  # of one connection, whose statements are prepared; None: the pool of all

    @property
    def budget(self) -> Budget:
        """How much may be investigated."""
        return Budget.of(self.settings)


Reason = Literal[
    "",  # told by the status code alone
    "not_found",
    "not_allowed",
    "not_authenticated",
    "not_awaited",
    "already_decided",
    "stale_plan",
    "expired",
    "tampered",  # what is stored is not what was planned
    "drift",
    "unreadable",  # a target that does not answer
    "frozen",
    "policy",
    "same_person",
    "requester",
    "no_such_option",
    "steps",
    "infeasible",
    "no_rounds_left",
    "nothing_to_undo",
    "nothing_to_withdraw",
    "already_started",
    "catalogue",
    "not_registered",
    "language",
]
"""Why a use case refuses, as a word for programs."""


class UseCaseError(Exception):
    """A use case refuses; the text says why and what to do."""

    def __init__(self, detail: str, reason: Reason = "") -> None:
        super().__init__(detail)
        self.reason = reason


class Conflict(UseCaseError):
    """The incident is not in the state this needs; the text says which, and who was first."""


class NotFound(UseCaseError):
    """There is no such incident, or whatever ``kind`` says."""

    def __init__(self, name: object, kind: str = "incident") -> None:
        super().__init__(f"There is no {kind} {str(name)!r}.", "not_found")


class NotAllowed(UseCaseError):
    """The caller's role does not allow this."""

    def __init__(self, detail: str, reason: Reason = "not_allowed") -> None:
        super().__init__(detail, reason)


class Unusable(UseCaseError):
    """What was sent cannot be used; the text says why."""


def require(caller: Caller, role: Role, what: str) -> None:
    """Raises NotAllowed."""
    if not caller.may(role):
        raise NotAllowed(f"{caller.name} is {caller.role}; to {what} takes {role}.")
