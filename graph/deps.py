"""What nodes may touch, as Protocols. ``app/wiring.py`` makes the real ones."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from functools import partial
from typing import Protocol

from pydantic import JsonValue

from collectors.base import Collector, Edge, Telemetry
from executors.base import AnyOperation, Clock
from graph.catalogue import Catalogue
from graph.llms.base import Analyst, TrackRecord
from graph.masking import Masker
from graph.policy import Facts, Policy
from graph.state import Alert, Evidence, PastIncident, StepResult
from graph.windows import ChooseWindows, standard_windows


@dataclass(frozen=True)
class SnapshotKey:
    """Which source, in which round of the analysis; ``widened``: its second look, further back; ``read``: the sha256
    of an analyst's question that it answered, empty for what it collected.
    """

    incident_id: str
    round_: int
    source: str
    widened: bool = False
    read: str = ""


class Snapshots(Protocol):
    """Raw telemetry, stored once per key, compressed and hashed."""

    async def get(self, key: SnapshotKey) -> tuple[Telemetry, str] | None:
        """The telemetry and its sha256, if this source was collected already."""

    async def put(self, key: SnapshotKey, telemetry: Telemetry) -> str:
        """Store it; the sha256 of its canonical JSON. A second put of the same key keeps the first."""


@dataclass(frozen=True)
class StepKey:
    """Which step of which decision; ``undo`` is its reversal."""

    incident_id: str
    plan_revision: str
    ordinal: int
    undo: bool = False


@dataclass(frozen=True)
class Claim:
    """What is about to be done. ``resource`` is empty for an operation that changes nothing."""

    key: StepKey
    operation: str
    params: Mapping[str, JsonValue]
    resource: str
    before: Mapping[str, JsonValue]
    at: datetime
    services: tuple[str, ...] = ()  # of the catalogue, that are changed; counted for the policy's rate
    choice: str = ""  # of the decision it is claimed under, and the digest of the plan it was made on: refused where
    plan_digest: str = ""  # the stored decision is another; empty: not compared


@dataclass(frozen=True)
class ClaimedStep:
    """A ledger row. ``result`` is None while the step is claimed and nothing is known of its end."""

    step_id: str
    fresh: bool  # claimed by this very call: nobody has made the call yet
    attempt: int
    age_s: float  # wall time since it was claimed or retaken
    claimed_at: datetime
    before: dict[str, JsonValue]
    result: StepResult | None


class Ledger(Protocol):
    """Every write to the outside world, claimed before the call, in Postgres."""

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """What became of a step that was claimed before, by a process that may be dead."""

    async def claim(self, claim: Claim) -> ClaimedStep:
        """Claim a step nobody has claimed. Raises ResourceBusy if another step holds the resource, Refused if the
        incident is closed, no decision approves the step, it was withdrawn or lay too long before anything of it began,
        the kill switch is pulled, or a service was changed too often.
        """

    async def refuse(self, claim: Claim, result: StepResult) -> StepResult:
        """Record that a step is not run, so that it is not after all once the reason is gone.

        The result that stands: of a step that was claimed already, its own.
        """

    async def retake(self, step: ClaimedStep) -> bool:
        """Claim again a step whose probe said it was never made; of several callers one gets True.

        Raises Refused if the kill switch is pulled.
        """

    async def finish(self, step_id: str, result: StepResult) -> None:
        """Record the result and release the resource. The first one stays, unless it is ``unknown`` and this is not."""


class ResourceBusy(Exception):
    """Another action holds this resource; one action at a time per resource."""


class PastIncidents(Protocol):
    """What this installation learned from incidents that are over."""

    async def similar(self, incident_id: str, alert: Alert, evidence: Evidence) -> Sequence[PastIncident]:
        """Incidents that are over and looked like this one, the most telling first; few, and never the incident itself.

        ``evidence``: its own; what an earlier round appended from memory is no likeness.
        """

    async def track_record(self, category: str, component: str | None, environment: str) -> Mapping[str, TrackRecord]:
        """How each operation did on root causes of that category; those of the component in that environment weigh
        most. An empty environment is any.
        """


class NoPast:
    """PastIncidents of an installation that remembers nothing: Studio, evaluation, tests."""

    async def similar(self, incident_id: str, alert: Alert, evidence: Evidence) -> Sequence[PastIncident]:
        """None."""
        return ()

    async def track_record(self, category: str, component: str | None, environment: str) -> Mapping[str, TrackRecord]:
        """Nothing is known."""
        return {}


class PolicyFacts(Protocol):
    """What the policy must know of the world."""

    async def at_present(self, services: Sequence[str], *, incident_id: str = "") -> Facts:
        """As of now: kill switch, changes of the last hour, error budgets, and who opened the incident."""


class NoFacts:
    """PolicyFacts where nothing is stored: Studio, evaluation, tests."""

    async def at_present(self, services: Sequence[str], *, incident_id: str = "") -> Facts:
        """Nobody froze anything, nothing was changed."""
        return Facts(now=datetime.now(UTC))


ObservedEdges = Callable[[], Awaitable[Sequence[Edge]]]
"""Who was seen calling whom, in the traces of earlier investigations."""


async def _none_observed() -> Sequence[Edge]:
    return ()


@dataclass(frozen=True)
class Patience:
    """How long ActionExecutor looks before it judges; seconds of the operated world's clock."""

    poll_s: float = 30.0
    hold_s: float = 300.0  # effects must stay met for so long: a restart often helps for a few minutes only
    worse_after_s: float = 120.0  # a change may shake things at first
    busy_s: float = 300.0  # wait for a resource that another action holds
    call_s: float = 22.0  # wall time: a call that was begun has ended by then (connect 3 s + answer 15 s, and some)


@dataclass(frozen=True)
class Deps:
    """Everything outside the graph that nodes may reach."""

    catalogue: Catalogue
    collectors: Sequence[Collector]
    snapshots: Snapshots
    analyst: Analyst
    operations: Mapping[str, AnyOperation]
    ledger: Ledger
    clock: Clock
    policy: Policy = field(default_factory=Policy)
    facts: PolicyFacts = field(default_factory=NoFacts)
    windows: ChooseWindows = standard_windows
    observed_edges: ObservedEdges = _none_observed
    collect_s: float = 20.0  # wall time that ContextCollector may take for all sources together
    patience: Patience = field(default_factory=Patience)
    masker: Masker = field(default_factory=partial(Masker, b"autopilot"))
    past: PastIncidents = field(default_factory=NoPast)
    past_s: float = (
        5.0  # wall time for similar incidents, which help to read the evidence and are not worth waiting for
    )
    zone: tzinfo = UTC  # in which people may write times that name no zone
    reads_s: float = 15.0  # wall time that an analyst may take for all its questions to collectors together
