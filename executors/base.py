"""What an operation is: the only way the product writes to the outside world.

An executor is one file in this folder with its own ``Settings(env_prefix=…)`` and a ``create()`` that returns its
operations; its name in ``AUTOPILOT_EXECUTORS`` turns it on. Operations know nothing of incidents, LLMs or
collectors, and touch only resources that the service catalogue lists.

How a step runs (graph/nodes/action_executor.py):

    before = inspect()  ->  ledger claim(before)  ->  execute()  one attempt  ->  settle()  ->  ledger finish(after)

After a crash between claim and finish, ``probe(before)`` tells whether the call was made; what cannot be told is
``unknown`` and goes to a person.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Risk = Literal["none", "low", "medium", "high"]
Probe = Literal["done", "not_done", "unknown"]
State = dict[str, JsonValue]


class Model(BaseModel):
    """Immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Resource(Model):
    """What the catalogue allows to be changed for one service."""

    service: str
    cluster: str | None = None
    ecs_service: str | None = None
    listener_rule_arn: str | None = None
    target_group_arn: str | None = Field(default=None, description="The group that serves the service")
    overflow_target_group_arn: str | None = Field(
        default=None, description="The group that takes shed traffic, e.g. a static 'please try again' page"
    )
    min_tasks: int = 1
    max_tasks: int = 20


class Outcome(Model):
    """What a call to the provider returned."""

    request_ids: tuple[str, ...] = ()
    detail: str = Field(default="", description="One sentence for the person who watches")
    data: State = Field(default_factory=dict)


class ExecutorError(Exception):
    """The operation failed, and the provider said so: nothing was changed unless the text says otherwise."""


class Refused(ExecutorError):
    """The operation was refused before any call: resource not in the catalogue, deployment in flight, bad state."""


class PartlyDone(ExecutorError):
    """The operation failed after some of its changes were made; the text says which."""


class OutcomeUnknown(ExecutorError):
    """The call may or may not have been made (a timeout, a lost connection)."""


class Clock(Protocol):
    """Time as the operated world has it; the demo's world runs faster than the wall clock."""

    def now(self) -> datetime:
        """UTC."""

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds of this clock."""


P = TypeVar("P", bound=BaseModel)


class Operation(Generic[P]):
    """One thing that can be done to one resource. Stateless; safe to share."""

    name: ClassVar[str]
    summary: ClassVar[str]
    risk: ClassVar[Risk]
    read_only: ClassVar[bool] = False
    reversible: ClassVar[bool] = False
    dry_run: ClassVar[bool] = False  # True: it only says what it would do
    minutes: ClassVar[float] = 1.0
    permissions: ClassVar[tuple[str, ...]] = ()
    params: type[P]

    def resource(self, params: P) -> str:
        """The key of what is changed, e.g. ``ecs:shop/payment-service``: one action at a time per key.

        An operation on several resources names all their keys, separated by commas.

        Raises Refused if the catalogue does not list it.
        """
        raise NotImplementedError

    async def inspect(self, params: P) -> State:
        """The present state, as far as this operation reads or changes it. Raises ExecutorError."""
        raise NotImplementedError

    def preview(self, params: P, before: State) -> str:
        """One sentence: what would change, from what to what. Raises Refused if it must not run now."""
        raise NotImplementedError

    async def execute(self, params: P, before: State) -> Outcome:
        """Make the change: one attempt, no retry. Raises ExecutorError, PartlyDone, OutcomeUnknown."""
        raise NotImplementedError

    async def settle(self, params: P, before: State) -> State:
        """Wait until the change took hold, or its time is over; the state then. Raises ExecutorError."""
        raise NotImplementedError

    async def probe(self, params: P, before: State) -> Probe:
        """Was the change made since ``before`` was read? Raises ExecutorError."""
        raise NotImplementedError

    async def undo(self, params: P, before: State) -> Outcome:
        """Put ``before`` back; only for reversible operations. Raises ExecutorError, OutcomeUnknown."""
        raise Refused(f"{self.name} cannot be undone")


AnyOperation = Operation[Any]  # params differ per operation; each validates its own


class Check(Model):
    """One thing `autopilot doctor` looked at."""

    name: str = Field(description="credentials, or a permission's own name")
    status: Literal["ok", "failed", "skipped"]
    detail: str = Field(default="", description="What was seen")
    mend: str = Field(default="", description="What to do: the exact permission or setting")


class Executor(Protocol):
    """One provider's operations and the connection behind them."""

    operations: Sequence[AnyOperation]

    async def check(self) -> list[Check]:
        """Whether it could act: credentials, and each permission its operations need. Changes nothing, never raises."""

    async def aclose(self) -> None:
        """Release connections."""


class CreateExecutor(Protocol):
    """The ``create`` function of an executor file."""

    def __call__(self, resources: Mapping[str, Resource], clock: Clock) -> Executor:
        """``resources`` is the catalogue, by service name. Raises ValueError naming a missing setting."""
