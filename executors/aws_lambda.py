"""Shifts a Lambda alias between two published versions, and sets a function's reserved concurrency.

An alias has one version and at most one more with a weight. UpdateAlias takes the revision that was read as an
optimistic lock, so nobody's change is overwritten unseen; reserved concurrency has no such lock, so it is read again
right before it is set.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from executors._aws import Api, AwsSettings, Connection, settled
from executors._aws_service import AwsExecutor, AwsOperation, S, ServiceParams
from executors.base import (
    Change,
    Clock,
    Executor,
    Grant,
    LambdaAlias,
    Model,
    Outcome,
    PreflightCheck,
    Probe,
    Refused,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient

AWS = Api(iam_prefix="lambda")
READS = (
    "lambda:GetAlias",
    "lambda:GetFunctionConfiguration",
    "lambda:GetFunctionConcurrency",
    "lambda:GetAccountSettings",
)
DEADLINE_S = 60.0
UNRESERVED = 100  # concurrent executions that AWS keeps for the functions without a reservation


class Settings(AwsSettings):
    """How to reach Lambda."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_LAMBDA_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- parameters ---------------------------------------------------------------------------------------------


class ShiftParams(ServiceParams):
    """One service, a published version of its function, and that version's share of the calls."""

    version: str = Field(pattern=r"^[1-9][0-9]*$", description="A published version, e.g. 41; never $LATEST")
    weight_percent: int = Field(ge=0, le=100, description="Percent of the alias's calls that go to this version")


class ConcurrencyParams(ServiceParams):
    """One service and how many executions of its function are reserved."""

    reserved: int | None = Field(
        default=None, ge=1, description="Concurrent executions: at least and at most so many; none: no reservation"
    )


# --- what was read ------------------------------------------------------------------------------------------


class Routing(Model):
    """Where an alias sends its calls."""

    version: str
    weights: dict[str, float] = Field(description="Share of the one other version, 0..1; empty if there is none")

    def __str__(self) -> str:
        rest = 1 - sum(self.weights.values())
        shares = {self.version: rest, **self.weights}
        return " + ".join(f"version {version} {share:.0%}" for version, share in shares.items())


class AliasState(Model):
    """An alias as GetAlias has it, and the version to shift to."""

    arn: str
    revision: str = Field(description="RevisionId: changes with every update of the alias")
    routing: Routing
    version_state: str = Field(description="State of the version that calls shall go to, e.g. Active")


class ConcurrencyState(Model):
    """What is reserved for a function, and what is left in the account."""

    arn: str
    reserved: int | None
    account_limit: int
    unreserved: int


# --- operations ---------------------------------------------------------------------------------------------


class LambdaOperation(AwsOperation[S, "LambdaClient"]):
    """What the operations on a function have in common."""

    def alias(self, service: str) -> LambdaAlias:
        """The function, and the alias if one is named. Raises Refused."""
        named = self.entry(service).lambda_alias
        assert named is not None  # entry() refuses without
        return named


class ShiftLambdaAlias(LambdaOperation[ShiftParams]):
    """Sends a share of a function's calls to another published version."""

    name = "shift_lambda_alias"
    summary = "Send a share of a Lambda alias's calls to another published version; 100 moves the alias there"
    risk = "medium"
    reversible = True
    minutes = 0.5
    permissions = (*READS, "lambda:UpdateAlias")
    params = ShiftParams
    needs = "lambda_alias (function, alias)"

    def target(self, resource: Resource) -> object:
        """A function with an alias."""
        return resource.lambda_alias and resource.lambda_alias.alias

    def resource(self, params: ShiftParams) -> str:
        """``lambda:<function>:<alias>``."""
        return "lambda:{}:{}".format(*self._address(params.service))

    async def inspect(self, params: ShiftParams) -> State:
        """The alias, and whether the version is ready to be called."""
        function, _ = self._address(params.service)
        version = await AWS.read(
            self.connection.reader.get_function_configuration, FunctionName=function, Qualifier=params.version
        )
        alias = await self._read(params.service)
        return alias.model_copy(update={"version_state": version.get("State", "Active")}).model_dump(mode="json")

    def pinned(self, params: ShiftParams, before: State) -> State:
        """Where the calls go."""
        return {"routing": str(AliasState.model_validate(before).routing)}

    def preview(self, params: ShiftParams, before: State) -> str:
        """From which versions to which."""
        state = AliasState.model_validate(before)
        return f"{params.service}: {state.routing} -> {self._wanted(params, state)}"

    def changes(self, params: ShiftParams, before: State) -> tuple[Change, ...]:
        """The versions behind the alias and their shares."""
        state = AliasState.model_validate(before)
        wanted = self._wanted(params, state)
        return (Change(what=f"calls of {_name(state.arn)}", before=str(state.routing), after=str(wanted)),)

    def grants(self, params: ShiftParams, before: State) -> tuple[Grant, ...]:
        """To update this alias."""
        return (Grant(actions=("lambda:UpdateAlias",), resources=(_function(AliasState.model_validate(before).arn),)),)

    async def looked(self, params: ShiftParams, before: State) -> tuple[PreflightCheck, ...]:
        """Whether a gradual deployment seems to be shifting the same alias."""
        routing = AliasState.model_validate(before).routing
        if not routing.weights:
            return (PreflightCheck(name="deployment", status="ok", detail="the alias points at one version"),)
        told = f"the alias is split already ({routing}): a CodeDeploy deployment may be shifting it, and would go on"
        return (PreflightCheck(name="deployment", status="warning", detail=told),)

    async def execute(self, params: ShiftParams, before: State) -> Outcome:
        """One UpdateAlias on the revision that was read."""
        state, detail = AliasState.model_validate(before), self.preview(params, before)
        return await self._update(params, before, self._wanted(params, state), state.revision, detail)

    async def settle(self, params: ShiftParams, before: State) -> State:
        """Reads the alias until it has the new shares, for at most a minute."""
        wanted = self._wanted(params, AliasState.model_validate(before))
        now = await settled(
            self.clock,
            lambda: self._read(params.service),
            lambda now: "" if now.routing == wanted else f"{params.service} to have {wanted} (now {now.routing})",
            DEADLINE_S,
        )
        return now.model_dump(mode="json")

    async def probe(self, params: ShiftParams, before: State) -> Probe:
        """Told by the shares; the old ones with another revision were changed twice, by whomever."""
        saved, now = AliasState.model_validate(before), await self._read(params.service)
        if now.routing == self._wanted(params, saved):
            return "done"
        return "not_done" if now.revision == saved.revision else "unknown"

    async def undo(self, params: ShiftParams, before: State) -> Outcome:
        """The old shares again, unless somebody has set others since."""
        saved, now = AliasState.model_validate(before), await self._read(params.service)
        if now.routing == saved.routing:
            return Outcome(detail=f"{params.service}: has {saved.routing} already")
        if now.routing != self._wanted(params, saved):
            raise Refused(f"{params.service} has {now.routing}, set by somebody else; not undone.")
        detail = f"{params.service}: {now.routing} -> {saved.routing}"
        return await self._update(params, before, saved.routing, now.revision, detail)

    def _address(self, service: str) -> tuple[str, str]:
        named = self.alias(service)
        return named.function, str(named.alias)

    async def _read(self, service: str) -> AliasState:
        function, alias = self._address(service)
        answer = await AWS.read(self.connection.reader.get_alias, FunctionName=function, Name=alias)
        weights = dict(answer.get("RoutingConfig", {}).get("AdditionalVersionWeights", {}))
        return AliasState(
            arn=answer["AliasArn"],
            revision=answer["RevisionId"],
            routing=Routing(version=answer["FunctionVersion"], weights={v: w for v, w in weights.items() if w}),
            version_state="",
        )

    def _wanted(self, params: ShiftParams, state: AliasState) -> Routing:
        """Where the calls shall go. Raises Refused if they must not, or do already."""
        wanted = _shifted(params, state.routing)
        if wanted == state.routing:
            raise Refused(f"{params.service} has {wanted} already.")
        if params.weight_percent and state.version_state not in ("Active", "Inactive", ""):
            raise Refused(f"{params.service}: version {params.version} is {state.version_state}; it cannot be called.")
        return wanted

    async def _update(self, params: ShiftParams, before: State, wanted: Routing, revision: str, detail: str) -> Outcome:
        function, alias = self._address(params.service)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.update_alias,
                FunctionName=function,
                Name=alias,
                FunctionVersion=wanted.version,
                RoutingConfig={"AdditionalVersionWeights": wanted.weights},  # {} takes the other version out
                RevisionId=revision,
            )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)


class SetLambdaConcurrency(LambdaOperation[ConcurrencyParams]):
    """Changes how many executions of a function are reserved, which is also the most it may have."""

    name = "set_lambda_concurrency"
    summary = "Reserve concurrent executions for a Lambda function, which also caps it, or lift the reservation"
    risk = "medium"
    reversible = True
    minutes = 0.5
    permissions = (*READS, "lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency")
    params = ConcurrencyParams
    needs = "lambda_alias (function)"

    def target(self, resource: Resource) -> object:
        """A function."""
        return resource.lambda_alias

    def resource(self, params: ConcurrencyParams) -> str:
        """``lambda:<function>``. Raises Refused also beyond the catalogue's max_concurrency."""
        function, most = self.alias(params.service).function, self.entry(params.service).max_concurrency
        if params.reserved is not None and params.reserved > most:
            raise Refused(
                f"{params.reserved} concurrent executions is more than {most},"
                f" the max_concurrency of services.{params.service} in autopilot.yaml."
            )
        return f"lambda:{function}"

    async def inspect(self, params: ConcurrencyParams) -> State:
        """What is reserved, and what the account has left."""
        function = self.alias(params.service).function
        found = await AWS.read(self.connection.reader.get_function_configuration, FunctionName=function)
        limits = (await AWS.read(self.connection.reader.get_account_settings))["AccountLimit"]
        return ConcurrencyState(
            arn=_function(found["FunctionArn"]),
            reserved=await self._reserved(params.service),
            account_limit=limits["ConcurrentExecutions"],
            unreserved=limits["UnreservedConcurrentExecutions"],
        ).model_dump(mode="json")

    def pinned(self, params: ConcurrencyParams, before: State) -> State:
        """What is reserved for this function."""
        return {"reserved": ConcurrencyState.model_validate(before).reserved}

    def preview(self, params: ConcurrencyParams, before: State) -> str:
        """From how many to how many, and what that leaves for the others."""
        self.resource(params)
        state = ConcurrencyState.model_validate(before)
        if state.reserved == params.reserved:
            raise Refused(f"{params.service} has {_reservation(params.reserved)} already.")
        left = _left(params, state)
        if left < UNRESERVED:
            raise Refused(
                f"{params.service}: that would leave {left} of the account's {state.account_limit} concurrent"
                f" executions unreserved; AWS keeps {UNRESERVED}. Reserve less, or have the quota raised."
            )
        change = f"{_reservation(state.reserved)} -> {_reservation(params.reserved)}"
        return f"{params.service}: {change}; {left} of {state.account_limit} stay for the other functions"

    def changes(self, params: ConcurrencyParams, before: State) -> tuple[Change, ...]:
        """The reservation, and what is left for the others."""
        self.preview(params, before)
        state = ConcurrencyState.model_validate(before)
        return (
            Change(
                what=f"concurrency of {_name(state.arn)}",
                before=_reservation(state.reserved),
                after=_reservation(params.reserved),
            ),
            Change(
                what="unreserved concurrency of the account",
                before=str(state.unreserved),
                after=str(_left(params, state)),
            ),
        )

    def grants(self, params: ConcurrencyParams, before: State) -> tuple[Grant, ...]:
        """To set, or to lift, this function's reservation: as the step needs, and its undo."""
        state = ConcurrencyState.model_validate(before)
        lifts = params.reserved is None or state.reserved is None
        sets = params.reserved is not None or state.reserved is not None
        actions = (
            *(("lambda:PutFunctionConcurrency",) if sets else ()),
            *(("lambda:DeleteFunctionConcurrency",) if lifts else ()),
        )
        return (Grant(actions=actions, resources=(state.arn,)),)

    async def looked(self, params: ConcurrencyParams, before: State) -> tuple[PreflightCheck, ...]:
        """The account's quota."""
        state = ConcurrencyState.model_validate(before)
        left = _left(params, state)
        status = "ok" if left >= UNRESERVED else "failed"
        detail = f"{left} of {state.account_limit} concurrent executions stay unreserved, {UNRESERVED} must"
        return (PreflightCheck(name="quota", status=status, detail=detail),)

    async def execute(self, params: ConcurrencyParams, before: State) -> Outcome:
        """One PutFunctionConcurrency or DeleteFunctionConcurrency."""
        detail, saved = self.preview(params, before), ConcurrencyState.model_validate(before).reserved
        now = await self._reserved(params.service)
        if now != saved:
            raise Refused(f"{params.service} has {_reservation(now)} since a moment: look again.")
        return await self._set(params, before, params.reserved, detail)

    async def settle(self, params: ConcurrencyParams, before: State) -> State:
        """Reads the reservation until it is the new one, for at most a minute."""

        async def read() -> tuple[int | None]:
            return (await self._reserved(params.service),)

        wanted = _reservation(params.reserved)
        (now,) = await settled(
            self.clock,
            read,
            lambda now: "" if now[0] == params.reserved else f"{params.service} to have {wanted}",
            DEADLINE_S,
        )
        return {**before, "reserved": now}

    async def probe(self, params: ConcurrencyParams, before: State) -> Probe:
        """Told by what is reserved."""
        now = await self._reserved(params.service)
        if now == params.reserved:
            return "done"
        return "not_done" if now == ConcurrencyState.model_validate(before).reserved else "unknown"

    async def undo(self, params: ConcurrencyParams, before: State) -> Outcome:
        """The old reservation again, unless somebody has set a third one since."""
        old, now = ConcurrencyState.model_validate(before).reserved, await self._reserved(params.service)
        if now == old:
            return Outcome(detail=f"{params.service}: has {_reservation(old)} already")
        if now != params.reserved:
            raise Refused(f"{params.service} has {_reservation(now)}, set by somebody else; not undone.")
        detail = f"{params.service}: {_reservation(now)} -> {_reservation(old)}"
        return await self._set(params, before, old, detail)

    async def _reserved(self, service: str) -> int | None:
        answer = await AWS.read(
            self.connection.reader.get_function_concurrency, FunctionName=self.alias(service).function
        )
        return answer.get("ReservedConcurrentExecutions")

    async def _set(self, params: ConcurrencyParams, before: State, reserved: int | None, detail: str) -> Outcome:
        function = self.alias(params.service).function
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            if reserved is None:
                lifted = await AWS.write(client.delete_function_concurrency, FunctionName=function)
                request_id = lifted["ResponseMetadata"]["RequestId"]
            else:
                put = await AWS.write(
                    client.put_function_concurrency, FunctionName=function, ReservedConcurrentExecutions=reserved
                )
                request_id = put["ResponseMetadata"]["RequestId"]
        return Outcome(request_ids=(request_id,), detail=detail)


OPERATIONS: tuple[type[LambdaOperation[Any]], ...] = (ShiftLambdaAlias, SetLambdaConcurrency)


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``aws_lambda``. Raises ValueError naming a missing setting."""
    settings = Settings()
    connection: Connection[LambdaClient] = Connection("lambda", settings, reads=READS)
    return AwsExecutor(settings, connection, [kind(resources, clock, connection) for kind in OPERATIONS])


# --- routing ------------------------------------------------------------------------------------------------


def _shifted(params: ShiftParams, now: Routing) -> Routing:
    """The routing with the wanted share for one version. Raises Refused where an alias cannot have that."""
    version, share = params.version, params.weight_percent / 100
    if share == 1:
        return Routing(version=version, weights={})
    others = [v for v in (now.version, *now.weights) if v != version]
    if len(others) > 1:
        raise Refused(f"{params.service} is split already ({now}); an alias takes two versions, not three.")
    if not others:
        raise Refused(f"{params.service}: all calls go to version {version}; name the version that takes the rest.")
    (other,) = others
    if share == 0:
        return Routing(version=other, weights={})
    if version == now.version:
        return Routing(version=version, weights={other: round(1 - share, 2)})
    return Routing(version=other, weights={version: share})


def _left(params: ConcurrencyParams, state: ConcurrencyState) -> int:
    """What the account would have unreserved."""
    return state.unreserved + (state.reserved or 0) - (params.reserved or 0)


# --- wording ------------------------------------------------------------------------------------------------


def _name(arn: str) -> str:
    """``pay`` or ``pay:live`` of an ARN."""
    return arn.partition(":function:")[2]


def _function(arn: str) -> str:
    """The function's ARN, without version or alias: what IAM compares UpdateAlias with."""
    return ":".join(arn.split(":")[:7])


def _reservation(reserved: int | None) -> str:
    return "no reserved concurrency" if reserved is None else f"reserved concurrency {reserved}"
