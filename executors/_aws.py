"""What the AWS executors share: their settings, a connection that never retries, and errors told apart."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NotConnectedError
from botocore.parsers import ResponseParserError
from pydantic import Field
from pydantic_settings import BaseSettings

from executors.base import AnyOperation, Check, Clock, ExecutorError, OutcomeUnknown, Refused, Resource

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_sts import STSClient

Call = ParamSpec("Call")
Answer = TypeVar("Answer")
Seen = TypeVar("Seen")

# A retry could make a change twice, so there is none; time-outs are shorter than a person's patience.
CONFIG = Config(retries={"total_max_attempts": 1}, connect_timeout=3, read_timeout=15)
DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
THROTTLED = {"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"}


class AwsSettings(BaseSettings):
    """How to reach one AWS service. What is left out, botocore's own chain decides."""

    region: str | None = Field(default=None, description="e.g. ap-northeast-2")
    endpoint_url: str | None = Field(default=None, description="Another endpoint than the region's own")
    role_arn: str | None = Field(default=None, description="Role to assume; it should hold write permissions only")
    profile: str | None = Field(default=None, description="Profile of ~/.aws/config")


class TransientError(ExecutorError):
    """A read failed in a way that asking again may mend: throttled, timed out, server error."""


class AssumedRole(CredentialProvider):
    """Credentials of one role, renewed before they expire."""

    METHOD = "assume-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        self.fetcher = fetcher

    def load(self) -> DeferredRefreshableCredentials:
        """Nothing is fetched before the first call."""
        return DeferredRefreshableCredentials(self.fetcher.fetch_credentials, self.METHOD)


def connect(service: str, settings: AwsSettings) -> BaseClient:
    """A client of one AWS service. Raises ValueError saying which setting is missing or wrong."""
    prefix = settings.model_config["env_prefix"]
    try:
        session = botocore.session.Session(profile=settings.profile)
        if settings.region:
            session.set_config_variable("region", settings.region)
        if _is_loopback(settings.endpoint_url):
            _sign_as_nobody(session)
        if session.get_credentials() is None:
            raise ValueError(f"No AWS credentials found: set {prefix}PROFILE, or AWS_ACCESS_KEY_ID and its secret.")
        if settings.role_arn:
            session = _assuming(session, settings.role_arn)
        return session.create_client(service, endpoint_url=settings.endpoint_url, config=CONFIG)
    except BotoCoreError as error:
        raise ValueError(f"{error} Check {prefix}REGION and {prefix}PROFILE.") from error


def _is_loopback(url: str | None) -> bool:
    return bool(url) and urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _sign_as_nobody(session: botocore.session.Session) -> None:
    """On this machine there is no AWS: real keys must not be sent, and none are needed."""
    session.set_credentials("local", "local")
    if not session.get_config_variable("region"):
        session.set_config_variable("region", "us-east-1")


def _assuming(source: botocore.session.Session, role_arn: str) -> botocore.session.Session:
    session = botocore.session.Session()
    session.set_config_variable("region", source.get_config_variable("region"))
    fetcher = AssumeRoleCredentialFetcher(
        source.create_client, source.get_credentials(), role_arn, {"RoleSessionName": "aiops-autopilot"}
    )
    session.register_component("credential_provider", CredentialResolver([AssumedRole(fetcher)]))
    return session


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
        if code in DENIED:
            return ExecutorError(f"{text}. Allow {self.iam_prefix}:{error.operation_name} in IAM.")
        if meta.get("HTTPStatusCode", 400) >= 500 or (code in THROTTLED and unsure is TransientError):
            return unsure(text)
        return ExecutorError(text)


async def checks(settings: AwsSettings, operations: Iterable[AnyOperation]) -> list[Check]:
    """Who we are at AWS, and which permissions of the operations that has, by IAM's own simulation."""
    actions = sorted({action for operation in operations for action in operation.permissions})
    try:
        sts = cast("STSClient", await asyncio.to_thread(connect, "sts", settings))
        identity = await Api("sts").read(sts.get_caller_identity)
    except (ExecutorError, ValueError) as error:
        return [Check(name="credentials", status="failed", detail=str(error)), *_untold(actions, "no credentials")]
    credentials = Check(name="credentials", status="ok", detail=identity["Arn"])
    try:
        iam = cast("IAMClient", await asyncio.to_thread(connect, "iam", settings))
        answer = await Api("iam").read(
            iam.simulate_principal_policy,
            PolicySourceArn=settings.role_arn or _principal(identity["Arn"]),
            ActionNames=actions,
            MaxItems=1000,
        )
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
