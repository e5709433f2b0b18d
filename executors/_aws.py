"""What the AWS executors share: their settings, a connection that never retries, and errors told apart.

Where a role is set, nothing is done with all that the role may do: reads go through a session limited to the
executor's read actions, and each approved step through a session of its own, limited to that step's grants.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Generic, ParamSpec, Self, TypedDict, TypeVar, cast
from urllib.parse import urlsplit

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NotConnectedError
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from pydantic import Field
from pydantic_settings import BaseSettings

from executors.base import (
    AnyOperation,
    Check,
    Clock,
    ExecutorError,
    Grant,
    OutcomeUnknown,
    PreflightCheck,
    Refused,
    Resource,
)

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import ContextEntryTypeDef, EvaluationResultTypeDef
    from mypy_boto3_sts import STSClient
    from mypy_boto3_sts.type_defs import AssumeRoleRequestTypeDef

Call = ParamSpec("Call")
Answer = TypeVar("Answer")
Seen = TypeVar("Seen")
Client = TypeVar("Client", bound=BaseClient)

# A retry could make a change twice, so there is none; time-outs are shorter than a person's patience.
CONFIG = Config(retries={"total_max_attempts": 1}, connect_timeout=3, read_timeout=15)
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
THROTTLED = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}

UNASSUMED = (
    "The role of this executor (ROLE_ARN) was not assumed, and nothing was called: allow the product's own identity"
    " sts:AssumeRole on it, and name that identity in the role's trust policy (with sts:SetSourceIdentity, if"
    " SOURCE_IDENTITY is set)."
)
POLICY_CHARACTERS = 2048  # the longest session policy that STS takes
SESSION_S = 900  # the shortest session that STS gives
RENEW_S = 120  # before its end; botocore's own 15 minutes would renew so short a session before every call


class AwsSettings(BaseSettings):
    """How to reach one AWS service. What is left out, botocore's own chain decides."""

    region: str | None = Field(default=None, description="e.g. ap-northeast-2")
    endpoint_url: str | None = Field(default=None, description="Another endpoint than the region's own")
    role_arn: str | None = Field(
        default=None, description="Role to assume, in sessions that may just read, or do just one approved step"
    )
    profile: str | None = Field(default=None, description="Profile of ~/.aws/config")
    source_identity: str | None = Field(
        default=None, description="SourceIdentity of its sessions; the role's trust must allow sts:SetSourceIdentity"
    )


class TransientError(ExecutorError):
    """A read failed in a way that asking again may mend: throttled, timed out, server error."""


class Keys(TypedDict):
    """Temporary credentials as botocore takes them."""

    access_key: str
    secret_key: str
    token: str
    expiry_time: str


class AssumedRole(CredentialProvider):
    """Credentials of one session of a role."""

    METHOD = "assume-role"

    def __init__(self, assume: Callable[[], Keys]) -> None:
        self.assume = assume

    def load(self) -> RefreshableCredentials:
        """Nothing is fetched before the first call; then again before they expire."""
        expired = datetime.fromtimestamp(0, UTC)
        return RefreshableCredentials(
            "", "", "", expired, self.assume, self.METHOD, advisory_timeout=RENEW_S, mandatory_timeout=RENEW_S
        )


def connect(
    service: str, settings: AwsSettings, name: str = "aiops-autopilot", grants: Sequence[Grant] = ()
) -> BaseClient:
    """A client of one AWS service; where a role is set, in a session of it that may do no more than ``grants``.

    Raises ValueError saying which setting is missing or wrong, Refused if the grants are too many for STS.
    """
    prefix = settings.model_config["env_prefix"]
    try:
        session = _session(settings.profile)
        if settings.region:
            session.set_config_variable("region", settings.region)
        if _is_loopback(settings.endpoint_url):
            _sign_as_nobody(session)
        if session.get_credentials() is None:
            raise ValueError(f"No AWS credentials found: set {prefix}PROFILE, or AWS_ACCESS_KEY_ID and its secret.")
        if settings.role_arn:
            session = _assuming(session, settings, assume_role_request(settings, name, grants))
        return session.create_client(service, endpoint_url=settings.endpoint_url, config=CONFIG)
    except BotoCoreError as error:
        raise ValueError(f"{error} Check {prefix}REGION and {prefix}PROFILE.") from error


def assume_role_request(settings: AwsSettings, name: str, grants: Sequence[Grant]) -> "AssumeRoleRequestTypeDef":
    """What is asked of STS for a session. Raises Refused if its policy would be longer than STS takes."""
    request: AssumeRoleRequestTypeDef = {
        "RoleArn": settings.role_arn or "",
        "RoleSessionName": name[:64],
        "DurationSeconds": SESSION_S,
    }
    if grants:
        request["Policy"] = session_policy(grants)
    if settings.source_identity:
        request["SourceIdentity"] = settings.source_identity
    return request


def session_policy(grants: Iterable[Grant]) -> str:
    """The policy document that allows exactly these grants. Raises Refused if it is longer than STS takes."""
    document = {"Version": "2012-10-17", "Statement": [_statement(grant) for grant in grants]}
    text = json.dumps(document, separators=(",", ":"))
    if len(text) > POLICY_CHARACTERS:
        raise Refused(
            f"The session policy of this step has {len(text)} characters, and STS takes {POLICY_CHARACTERS}:"
            " it names too many resources at once; take fewer in one step."
        )
    return text


def _statement(grant: Grant) -> dict[str, object]:
    statement: dict[str, object] = {"Effect": "Allow", "Action": grant.actions, "Resource": grant.resources}
    return statement | ({"Condition": grant.conditions} if grant.conditions else {})


def beside(settings: AwsSettings) -> AwsSettings:
    """The settings for another AWS service than the executor's own, whose endpoint may be a private one.

    Only a double on this machine stands for all services at one endpoint.
    """
    return settings if _is_loopback(settings.endpoint_url) else settings.model_copy(update={"endpoint_url": None})


def _is_loopback(url: str | None) -> bool:
    return bool(url) and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _sign_as_nobody(session: botocore.session.Session) -> None:
    """On this machine there is no AWS: real keys must not be sent, and none are needed."""
    session.set_credentials("local", "local")
    if not session.get_config_variable("region"):
        session.set_config_variable("region", "us-east-1")


def _session(profile: str | None = None) -> botocore.session.Session:
    """A session of its own, with the API models that all share: reading them takes longer than a call."""
    session = botocore.session.Session(profile=profile)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@cache
def _loader(data_path: str | None) -> Loader:
    return create_loader(data_path)


def _assuming(
    source: botocore.session.Session, settings: AwsSettings, request: "AssumeRoleRequestTypeDef"
) -> botocore.session.Session:
    def assume() -> Keys:
        sts = cast("STSClient", source.create_client("sts", endpoint_url=beside(settings).endpoint_url, config=CONFIG))
        try:
            keys = sts.assume_role(**request)["Credentials"]
        finally:
            sts.close()
        return Keys(
            access_key=keys["AccessKeyId"],
            secret_key=keys["SecretAccessKey"],
            token=keys["SessionToken"],
            expiry_time=keys["Expiration"].isoformat(),
        )

    session = _session()
    session.set_config_variable("region", source.get_config_variable("region"))
    session.register_component("credential_provider", CredentialResolver([AssumedRole(assume)]))
    return session


class Connection(Generic[Client]):
    """Calls to one AWS service, by sessions that may do no more than they are for; without a role, by one client.

    ``reads`` are the IAM actions of all that the executor looks at, e.g. ``ecs:DescribeServices``.
    """

    def __init__(self, service: str, settings: AwsSettings, *, reads: Sequence[str]) -> None:
        """Raises ValueError saying which setting is missing or wrong."""
        self.service = service
        self.settings: AwsSettings | None = settings
        looking = Grant(actions=tuple(reads), resources=("*",))
        self.reader = cast("Client", connect(service, settings, f"autopilot-read-{service}", (looking,)))

    @classmethod
    def of(cls, client: Client) -> Self:
        """Everything by one client that somebody else made, e.g. for a test."""
        made = cls.__new__(cls)
        made.service, made.settings, made.reader = client.meta.service_model.service_name, None, client
        return made

    @asynccontextmanager
    async def acting(self, name: str, grants: Sequence[Grant]) -> AsyncIterator[Client]:
        """A client for the calls of one approved step, which ends with the block.

        Where a role is set: one AssumeRole with a session policy of exactly ``grants``, made before the block begins.

        Raises ExecutorError if the role cannot be assumed (nothing was changed), Refused if the grants are too many, or
        none.
        """
        if self.settings is None or not self.settings.role_arn:
            yield self.reader
            return
        if not grants:  # without a policy, STS would give a session that may do all that the role may
            raise Refused(f"{name} says of nothing that it needs it at AWS: no session is asked for")
        client = await asyncio.to_thread(connect, self.service, self.settings, f"autopilot-{name}", grants)
        try:
            await Api("sts").read(_sign_in, client)
            yield cast("Client", client)
        finally:
            client.close()

    async def permitted(self, grants: Sequence[Grant]) -> tuple[PreflightCheck, ...]:
        """One ``permission`` check per grant, by IAM's own simulation. Changes nothing, never raises."""
        if not grants:
            return ()
        if self.settings is None:
            return (_unasked("no AWS account is behind this connection"),)
        try:
            return await _simulated(self.settings, grants)
        except (ExecutorError, ValueError) as error:
            return (_unasked(str(error)),)

    async def aclose(self) -> None:
        """Release connections."""
        self.reader.close()


def _sign_in(client: BaseClient) -> None:
    """Fetches the session's keys before the first call, so that a refusal is not taken for that call's."""
    client._get_credentials().get_frozen_credentials()  # type: ignore[attr-defined]


async def _simulated(settings: AwsSettings, grants: Sequence[Grant]) -> tuple[PreflightCheck, ...]:
    """Raises ExecutorError, ValueError if IAM or STS cannot be asked."""
    iam = await asyncio.to_thread(_simulator, settings)
    try:
        principal = settings.role_arn or _principal(await _caller(settings))
        return tuple([await _allowed(iam, principal, grant) for grant in grants])
    finally:
        iam.close()


def _simulator(settings: AwsSettings) -> "IAMClient":
    asking = Grant(actions=("iam:SimulatePrincipalPolicy",), resources=("*",))
    return cast("IAMClient", connect("iam", beside(settings), "autopilot-preflight", (asking,)))


async def _caller(settings: AwsSettings) -> str:
    """The ARN that AWS knows us by."""
    asking = Grant(actions=("sts:GetCallerIdentity",), resources=("*",))
    client = await asyncio.to_thread(connect, "sts", beside(settings), "autopilot-doctor", (asking,))
    sts = cast("STSClient", client)
    try:
        return (await Api("sts").read(sts.get_caller_identity))["Arn"]
    finally:
        sts.close()


async def _allowed(iam: "IAMClient", principal: str, grant: Grant) -> PreflightCheck:
    try:
        answer = await Api("iam").read(
            iam.simulate_principal_policy,
            PolicySourceArn=principal,
            ActionNames=grant.actions,
            ResourceArns=grant.resources,
            ContextEntries=_context(grant),
            MaxItems=1000,
        )
    except ExecutorError as error:
        return _unasked(f"{', '.join(grant.actions)}: {error}")
    denied = [_denial(result) for result in answer["EvaluationResults"] if result["EvalDecision"] != "allowed"]
    if denied:
        mend = f"Allow it in a policy of {principal}, and look for a Deny in its boundary and organization."
        return PreflightCheck(name="permission", status="failed", detail=f"{'; '.join(denied)}. {mend}")
    return PreflightCheck(name="permission", status="ok", detail=f"IAM allows {', '.join(grant.actions)}")


def _context(grant: Grant) -> "list[ContextEntryTypeDef]":
    """The conditions as IAM's simulation takes them: what the call would carry."""
    return [
        {"ContextKeyName": key, "ContextKeyValues": values[:1], "ContextKeyType": "string"}
        for condition in grant.conditions.values()
        for key, values in condition.items()
    ]


def _denial(result: "EvaluationResultTypeDef") -> str:
    return f"{result['EvalActionName']} on {result.get('EvalResourceName', '*')}: {result['EvalDecision']}"


def _unasked(why: str) -> PreflightCheck:
    mend = "Allow iam:SimulatePrincipalPolicy to have permissions told beforehand."
    return PreflightCheck(name="permission", status="skipped", detail=f"{why}. {mend}")


class Api:
    """Calls to one AWS service, each made once and off the event loop, with errors told apart."""

    def __init__(self, iam_prefix: str) -> None:
        self.iam_prefix = iam_prefix

    async def read(self, method: Callable[Call, Answer], *args: Call.args, **kwargs: Call.kwargs) -> Answer:
        """A call that changes nothing. Raises ExecutorError; TransientError if asking again may help."""
        try:
            return await asyncio.to_thread(method, *args, **kwargs)
        except ClientError as error:
            raise self._said(error, TransientError) from error
        except (HTTPClientError, NotConnectedError, ResponseParserError) as error:
            raise TransientError(f"{method.__name__} was not answered: {error}") from error
        except BotoCoreError as error:
            raise ExecutorError(f"{method.__name__} was not sent: {error}") from error

    async def write(self, method: Callable[Call, Answer], *args: Call.args, **kwargs: Call.kwargs) -> Answer:
        """A call that changes something. Raises ExecutorError; OutcomeUnknown if it may have been done.

        A cancelled caller is let go only after the call has ended: whoever takes over may then read what it did.
        """
        call = asyncio.ensure_future(asyncio.to_thread(method, *args, **kwargs))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait({call})
            raise
        except ClientError as error:
            raise self._said(error, OutcomeUnknown) from error
        except (HTTPClientError, ResponseParserError) as error:
            raise OutcomeUnknown(f"{method.__name__} was sent, but no answer came: {error}") from error
        except BotoCoreError as error:
            raise ExecutorError(f"{method.__name__} was not sent: {error}") from error

    def _said(self, error: ClientError, unsure: type[ExecutorError]) -> ExecutorError:
        """AWS's own words; ``unsure`` is the kind of a server error, after which either may be true."""
        said, meta = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        code, request_id = said.get("Code", ""), meta.get("RequestId", "unknown")
        text = f"AWS answered {error.operation_name} with {code}: {said.get('Message')} (request {request_id})"
        if error.operation_name == "AssumeRole":  # the call it is for was not made
            unsure = TransientError if unsure is TransientError else ExecutorError
        if code in DENIED:
            mend = f"Allow {self.iam_prefix}:{error.operation_name} in IAM."
            return ExecutorError(f"{text}. {UNASSUMED if error.operation_name == 'AssumeRole' else mend}")
        if meta.get("HTTPStatusCode", 400) >= 500 or (code in THROTTLED and unsure is TransientError):
            return unsure(text)
        return ExecutorError(text)


async def checks(settings: AwsSettings, operations: Iterable[AnyOperation]) -> list[Check]:
    """Who we are at AWS, and which permissions of the operations that has, by IAM's own simulation."""
    actions = sorted({action for operation in operations for action in operation.permissions})
    try:
        arn = await _caller(settings)
    except (ExecutorError, ValueError) as error:
        return [Check(name="credentials", status="failed", detail=str(error)), *_untold(actions, "no credentials")]
    credentials = Check(name="credentials", status="ok", detail=arn)
    try:
        iam = await asyncio.to_thread(_simulator, settings)
        answer = await Api("iam").read(
            iam.simulate_principal_policy,
            PolicySourceArn=settings.role_arn or _principal(arn),
            ActionNames=actions,
            MaxItems=1000,
        )
        iam.close()
    except (ExecutorError, ValueError) as error:
        return [credentials, *_untold(actions, str(error))]
    decided = {r["EvalActionName"]: r["EvalDecision"] for r in answer["EvaluationResults"]}
    return [credentials, *(_decided(action, decided.get(action, "not told")) for action in actions)]


def _decided(action: str, decision: str) -> Check:
    if decision == "allowed":
        return Check(name=action, status="ok")
    mend = f"Allow the role the action {action}; IAM was asked for all resources, so it may be allowed for some only."
    return Check(name=action, status="failed", detail=decision, mend=mend)


def _untold(actions: Iterable[str], why: str) -> list[Check]:
    mend = "Allow iam:SimulatePrincipalPolicy to have this told; nothing is tried that would change something."
    return [Check(name=action, status="skipped", detail=why, mend=mend) for action in actions]


def _principal(arn: str) -> str:
    """The role behind the session of an assumed role: only roles and users can be simulated."""
    head, marker, rest = arn.partition(":assumed-role/")
    return f"{head.replace(':sts:', ':iam:')}:role/{rest.split('/')[0]}" if marker else arn


async def settled(
    clock: Clock,
    read: Callable[[], Awaitable[Seen]],
    lacking: Callable[[Seen], str],
    deadline_s: float,
    every_s: float = 10.0,
) -> Seen:
    """The first state that lacks nothing. Raises ExecutorError when ``deadline_s`` of the clock are over."""
    deadline = clock.now() + timedelta(seconds=deadline_s)
    while True:
        try:
            state = await read()
            missing = lacking(state)
        except TransientError as error:
            missing = f"an answer: {error}"
        else:
            if not missing:
                return state
        if clock.now() >= deadline:
            raise ExecutorError(f"Waited {deadline_s / 60:g} minutes for {missing}")
        await clock.sleep(every_s)


def listed(resources: Mapping[str, Resource], service: str) -> Resource:
    """The catalogue's entry of a service. Raises Refused if there is none."""
    if service not in resources:
        raise Refused(f"The catalogue has no service {service!r}: add it under services: in autopilot.yaml.")
    return resources[service]
