"""The port to whatever explains and plans: a model, the rules engine, or a script in tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from pydantic import BaseModel

from collectors.base import Read, Scope, SeriesRef
from executors.base import AnyOperation, Resource
from graph.llms.chat import Usage
from graph.state import ActionOption, Alert, Evidence, Finding, Language, RootCause

MAX_SUSPECTS = 5  # whose services a plan may be about


class LlmError(Exception):
    """The model did not give a usable answer; the text says why.

    ``usage``: what the attempt cost all the same, e.g. a refusal; zero tokens where the model surely did nothing (no
    connection, an error status, nobody asked). None: nobody knows, as after a timeout, so it may have been billed.
    ``lost_attempts``: how many attempts there are of which nobody knows.
    """

    def __init__(self, text: str, usage: Usage | None = None) -> None:
        super().__init__(text)
        self.usage = usage
        self.lost_attempts = int(usage is None)


@dataclass(frozen=True)
class ReadMenu:
    """What may be asked for beside the evidence. Anything else is refused."""

    components: tuple[str, ...] = ()
    metrics: tuple[SeriesRef, ...] = ()
    traces: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    """Of ``logs``, ``metric``, ``trace``: what the sources that are on can answer."""


class Reads(Protocol):
    """Read-only questions to the collectors; bounded in number, seconds and size."""

    @property
    def menu(self) -> ReadMenu:
        """What may be asked."""

    async def read(self, question: Read) -> Sequence[Finding]:
        """New numbered findings, masked: at least one, for «nothing was found» is one too. Raises ReadRefused."""


class ReadRefused(Exception):
    """The question is not on the menu, or the budget of reads is used up; the text says what may be asked."""


@dataclass(frozen=True)
class Counted:
    """Runs of an operation as they happened, and as a person may check them."""

    runs: int = 0
    resolved: float = 0.0  # a half: it helped in part, by a person's word
    worse: int = 0


@dataclass(frozen=True)
class TrackRecord:
    """How often an operation was run on a kind of failure, and how often that resolved it.

    Fractions: what is long ago, or of another service, counts for less than one.
    """

    runs: float = 0.0
    resolved: float = 0.0
    worse: float = 0.0
    low: float = 0.0  # 90 % interval of the chance that it resolves, 0..1; nothing known: all of it
    high: float = 1.0
    here: Counted = Counted()  # on the component at fault
    elsewhere: Counted = Counted()  # on other components


@dataclass(frozen=True)
class AnalysisRequest:
    """All that an analysis may rest on."""

    alert: Alert
    scope: Scope
    evidence: Evidence
    hints: tuple[str, ...] = ()
    previous: RootCause | None = None
    reads: Reads | None = None
    language: Language = "en"
    incident_id: str = ""
    round_: int = 1


@dataclass(frozen=True)
class Analysis:
    """An answer, and the findings that the analyst asked for on its way there; they continue the evidence's numbers."""

    root_cause: RootCause
    findings: tuple[Finding, ...] = ()
    first: RootCause | None = None
    """The answer, grounded, before it was sent back with what was wrong with it."""


@dataclass(frozen=True)
class OperationOnMenu:
    """One operation, and what it may be used on."""

    name: str
    summary: str
    risk: str
    reversible: bool
    read_only: bool
    minutes: float
    params: type[BaseModel]
    lacks: Callable[[Resource], str] = lambda resource: ""
    """What the catalogue does not name of a service, and the operation needs; empty: it can act on it."""
    check: Callable[[BaseModel], object] = lambda params: None
    """Raises Refused for params that the catalogue does not allow."""

    @classmethod
    def of(cls, operation: AnyOperation) -> "OperationOnMenu":
        """The menu entry of an operation."""
        return cls(
            name=operation.name,
            summary=operation.summary,
            risk=operation.risk,
            reversible=operation.reversible,
            read_only=operation.read_only,
            minutes=operation.minutes,
            params=operation.params,
            lacks=operation.lacks,
            check=operation.resource,
        )


@dataclass(frozen=True)
class PlanRequest:
    """All that a plan may rest on. Nothing outside ``menu`` and ``resources`` may be proposed."""

    alert: Alert
    scope: Scope
    evidence: Evidence
    root_cause: RootCause
    menu: tuple[OperationOnMenu, ...]
    resources: tuple[Resource, ...]
    desired_tasks: Mapping[str, int] = field(default_factory=dict)
    """Tasks each ECS service should run at present, by service of the catalogue; one not read is missing."""
    track_record: Mapping[str, TrackRecord] = field(default_factory=dict)
    """By operation, and by operations that were run together, on failures of the root cause's category."""
    language: Language = "en"
    incident_id: str = ""
    round_: int = 1

    def entry(self, operation: str) -> OperationOnMenu | None:
        """The menu's entry of that name."""
        return next((entry for entry in self.menu if entry.name == operation), None)

    @cached_property
    def concerned(self) -> tuple[Resource, ...]:
        """Of the services that the trouble, its way or a suspicion touches; of all in scope if of these there is none.

        That is where a remedy is looked for: a menu of all that could be done to every neighbour says little.
        """
        suspects = [suspect.component for suspect in self.evidence.suspects[:MAX_SUSPECTS]]
        way = [name for hop in self.root_cause.path for name in (hop.cause, hop.effect)]
        near = {self.root_cause.component, self.scope.service, *way, *suspects}
        return tuple(resource for resource in self.resources if resource.service in near) or self.resources

    def possible_on(self, entry: OperationOnMenu) -> tuple[Resource, ...]:
        """The concerned services that an operation can act on, whatever its other params."""
        return tuple(resource for resource in self.concerned if not entry.lacks(resource))

    @property
    def usable(self) -> tuple[OperationOnMenu, ...]:
        """The part of the menu that can act on any of them."""
        return tuple(entry for entry in self.menu if self.possible_on(entry))


@dataclass(frozen=True)
class Proposal:
    """Up to three options, best first, then their spares, and what a person should know of those that were dropped."""

    options: tuple[ActionOption, ...] = ()
    notes: tuple[str, ...] = ()


class Analyst(Protocol):
    """Explains and plans. Its answers are checked by code before anyone sees them."""

    @property
    def name(self) -> str:
        """``rules``, or the model's name."""

    async def analyze(self, request: AnalysisRequest) -> Analysis:
        """The root cause, or an inconclusive answer. Raises LlmError."""

    async def plan(self, request: PlanRequest) -> Proposal:
        """Up to three options, best first, then their spares. Raises LlmError."""
