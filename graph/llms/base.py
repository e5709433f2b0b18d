"""The port to whatever explains and plans: a model, the rules engine, or a script in tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel

from collectors.base import Scope
from executors.base import AnyOperation, Resource
from graph.state import ActionOption, Alert, Evidence, RootCause


class LlmError(Exception):
    """The model did not give a usable answer; the text says why."""


@dataclass(frozen=True)
class Usage:
    """What one answer of a model cost."""

    model: str
    prompt_tokens: int
    completion_tokens: int
    dollars: float


@dataclass(frozen=True)
class AnalysisRequest:
    """All that an analysis may rest on."""

    alert: Alert
    scope: Scope
    evidence: Evidence
    hints: tuple[str, ...] = ()
    previous: RootCause | None = None


@dataclass(frozen=True)
class OperationOnMenu:
    """One operation, and the resources it may be used on."""

    name: str
    summary: str
    risk: str
    reversible: bool
    read_only: bool
    minutes: float
    params: type[BaseModel]

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


class Analyst(Protocol):
    """Explains and plans. Its answers are checked by code before anyone sees them."""

    @property
    def name(self) -> str:
        """``rules``, or the model's name."""

    async def analyze(self, request: AnalysisRequest) -> RootCause:
        """The root cause, or an inconclusive answer. Raises LlmError."""

    async def plan(self, request: PlanRequest) -> list[ActionOption]:
        """Up to three options, best first. Raises LlmError."""
