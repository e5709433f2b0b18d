"""What an operation is: the only way the product writes to the outside world.

An executor is one file in this folder with its own ``Settings(env_prefix=…)`` and a ``create()`` that returns its
operations; its name in ``AUTOPILOT_EXECUTORS`` turns it on. Operations know nothing of incidents, LLMs or
collectors, and touch only resources that the service catalogue lists.

How a step runs (graph/nodes/action_executor.py):

    before = inspect()  ->  ledger claim(before)  ->  execute()  one attempt  ->  settle()  ->  ledger finish(after)

Before a person sees it (graph/preflight.py): inspect(), preview(), changes(), preflight(), capacity(). An approval is
bound to pinned(before): what people and deployments set, not what moves by itself.

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


class LambdaAlias(Model):
    """A Lambda function, and the alias its callers use."""

    function: str = Field(description="FunctionName")
    alias: str | None = Field(default=None, description="e.g. live; versions are shifted behind it")


class AppConfigProfile(Model):
    """A configuration that AWS AppConfig deploys; ids or names, as the API takes them."""

    application: str
    environment: str
    profile: str


class KubernetesDeployment(Model):
    """A Deployment."""

    namespace: str = "default"
    deployment: str


class LangfusePrompt(Model):
    """A prompt of Langfuse's prompt management that an LLM application loads by its label."""

    name: str
    label: str = "production"
    models: tuple[str, ...] = Field(default=(), description="What its config.model may be switched to, best first")


class Automation(Model):
    """An SSM Automation document that may be run for a service: nothing else may."""

    document: str
    version: str = Field(description="Pinned: a number, never $LATEST")
    parameters: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="As SSM takes them: lists of text")
    assume_role: str | None = Field(default=None, description="AutomationAssumeRole; iam:PassRole is asked for it only")
    reverse: str | None = Field(default=None, description="The document that undoes it; also in this list")


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
    lambda_alias: LambdaAlias | None = None
    max_concurrency: int = Field(default=1000, description="Most reserved concurrency that may be set")
    db_instance: str | None = Field(default=None, description="DBInstanceIdentifier")
    db_cluster: str | None = Field(default=None, description="DBClusterIdentifier")
    replication_group: str | None = Field(default=None, description="ElastiCache ReplicationGroupId")
    auto_scaling_group: str | None = None
    app_config: AppConfigProfile | None = None
    automations: tuple[Automation, ...] = ()
    kubernetes: KubernetesDeployment | None = None
    prompt: LangfusePrompt | None = None


class Change(Model):
    """One line of a preview: what it is now, and what it would be."""

    what: str = Field(description="e.g. desired tasks, task definition, weight of targetgroup/pay/6d0e")
    before: str
    after: str


class PreflightCheck(Model):
    """One thing that was looked at before a person is asked."""

    name: Literal[
        "catalogue",  # the resource is listed there
        "state",  # the target is in a state that allows it
        "permission",
        "quota",
        "deployment",  # one in flight
        "scaling",  # a scaling policy that would undo it
        "gitops",  # somebody else owns the desired state
        "capacity",  # what is left while it runs, and afterwards
        "dry_run",  # the target's own
        "policy",
    ]
    status: Literal["ok", "warning", "failed", "skipped"] = Field(
        description="failed: it cannot run; skipped: could not be looked at, the detail says why"
    )
    detail: str = ""


class Capacity(Model):
    """How much of a service serves its requests, now and at the lowest point while and after an operation."""

    service: str
    servers_now: float = Field(ge=0.0, description="Tasks, pods or instances that take requests")
    servers_then: float = Field(ge=0.0)
    load_then: float = Field(default=1.0, ge=0.0, description="Requests it gets then, as a multiple of today's")


class Grant(Model):
    """What a step needs at AWS: one statement of a session policy."""

    actions: tuple[str, ...]
    resources: tuple[str, ...] = Field(description="ARNs; * only where AWS knows no finer one")
    conditions: dict[str, dict[str, tuple[str, ...]]] = Field(default_factory=dict, description="As IAM writes them")


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

    async def concrete(self, params: P) -> P:
        """The parameters with what is still to be looked up replaced by what it is now, e.g. a task's id.

        Asked once, when a plan is made: people approve what it returns. Raises ExecutorError.
        """
        return params

    async def inspect(self, params: P) -> State:
        """The present state, as far as this operation reads or changes it. Raises ExecutorError."""
        raise NotImplementedError

    def preview(self, params: P, before: State) -> str:
        """One sentence: what would change, from what to what. Raises Refused if it must not run now."""
        raise NotImplementedError

    def services(self, params: P) -> tuple[str, ...]:
        """The services of the catalogue that it changes."""
        named = params.model_dump(mode="json")
        several = named.get("services") or ()
        return tuple(name for name in (named.get("service"), *several) if isinstance(name, str))

    def lacks(self, resource: Resource) -> str:
        """What the catalogue does not name of a service, and this operation needs; empty: it can act on it."""
        return ""

    def pinned(self, params: P, before: State) -> State:
        """What an approval is bound to: if it is another when the step is to run, the step is refused.

        That is what people, deployments and scaling policies set (desired count, task definition, weights), not what
        moves by itself (running tasks, events). Names of its keys are shown to people.
        """
        return {} if self.read_only else before

    def changes(self, params: P, before: State) -> tuple[Change, ...]:
        """The preview as lines of before and after; empty for what only looks. Raises Refused as preview does."""
        return ()

    async def preflight(self, params: P, before: State) -> tuple[PreflightCheck, ...]:
        """What only the target can tell: permissions, quotas, scaling policies, owners, its own dry run.

        Changes nothing; what cannot be looked at is ``skipped`` and says why. Raises nothing for that.
        """
        return ()

    def capacity(self, params: P, before: State) -> Capacity | None:
        """How much of the service is left; None where it does not change, or cannot be told."""
        return None

    def grants(self, params: P, before: State) -> tuple[Grant, ...]:
        """The session policy with which ``execute`` and ``undo`` make their changes in just this step.

        What they, ``settle`` and ``probe`` only read goes through the executor's own reading session.
        """
        return ()

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
