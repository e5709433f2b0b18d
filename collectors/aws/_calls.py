"""Calls to AWS: boto3 in threads, paced and counted, refusals told as sentences that name the IAM action."""

import asyncio
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from collectors._budget import SourceSettings
from collectors._http import checked
from collectors._jobs import Part
from collectors._limits import Limit, limit_of
from collectors.base import (
    Asks,
    Check,
    CollectorError,
    Forbidden,
    GapReason,
    NotFound,
    Query,
    RateLimited,
    Refused,
    Unreachable,
    Window,
)

if TYPE_CHECKING:
    from botocore.client import ClientMeta
    from mypy_boto3_cloudtrail import CloudTrailClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_codedeploy import CodeDeployClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_rds import RDSClient
    from mypy_boto3_sts import STSClient
    from mypy_boto3_xray import XRayClient

PER_SECOND = {"cloudtrail": 2.0, "logs": 5.0}  # published: CloudTrail 2; Logs 5 of each action; the others allow more
USUAL_PER_SECOND = 20.0
AT_ONCE = 8
THREADS = 16  # of our own: those of asyncio also look up names, and a call that hangs holds its thread to its timeout
THROTTLED_PAUSE_S = 2.0  # AWS refills its buckets by the second, and does not say when

_THROTTLES = {
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
}
_DENIALS = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "NotAuthorized", "UnauthorizedOperation"}
_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_CLOCK = {"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"}
_UNKNOWN = {"404", "405", "501", "InvalidAction", "UnknownOperation", "UnknownOperationException"}  # AWS names its own
_NAMES_NOTHING = re.compile(r"(NotFound|DoesNotExist)(Exception|Fault)?$")  # ClusterNotFoundException, …
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
_CONSOLES = {
    "aws": "console.aws.amazon.com",
    "aws-cn": "console.amazonaws.cn",
    "aws-us-gov": "console.amazonaws-us-gov.com",
}
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")
_T = TypeVar("_T")


class Clients(NamedTuple):
    """The boto3 clients, which are safe to share between threads."""

    ecs: "ECSClient"
    elb: "ElasticLoadBalancingv2Client"
    cloudwatch: "CloudWatchClient"
    logs: "CloudWatchLogsClient"
    xray: "XRayClient"
    codedeploy: "CodeDeployClient"
    cloudtrail: "CloudTrailClient"
    rds: "RDSClient"
    sts: "STSClient"


class NotOffered(CollectorError):
    """The endpoint does not know the action: another endpoint than AWS's own is set."""

    reason = GapReason.NOT_CONFIGURED


async def call(part: Part, action: str, function: Callable[[], _T]) -> _T:
    """Call boto3 in a thread. ``action`` is the IAM action it needs, e.g. ecs:ListTasks. Raises CollectorError.

    botocore makes one more try after a lost connection, a 5xx or a throttle.
    """
    limit = _limit(action)
    async with limit.turn(action, part.budget.left_s):
        part.budget.call()
        try:
            answer = await on_thread(function)
        except ClientError as error:
            raise _refusal(action, error, limit) from None
        except _NO_CREDENTIALS as error:
            raise Forbidden(f"{action}: {error}", "set AUTOPILOT_AWS_PROFILE or AWS's own credentials") from None
        except ParamValidationError as error:
            raise Refused(f"{action}: {error}", "check the names under aws: and ecs: in the catalogue") from None
        except (BotoCoreError, ResponseParserError) as error:
            raise Unreachable(f"{action}: {error}", "check AUTOPILOT_AWS_REGION and the network") from None
    part.answered = True
    part.budget.receive(_size(answer))
    return answer


async def on_thread(function: Callable[[], _T]) -> _T:
    """Call boto3 as it is, on a thread of its own."""
    return await asyncio.get_running_loop().run_in_executor(_threads, function)


def _limit(action: str) -> Limit:
    """That of the service, or of the action: CloudWatch Logs has a quota of each, and one of queries that run."""
    service = action.partition(":")[0]
    quota = action if service == "logs" else service
    return limit_of(f"aws:{quota}", per_second=PER_SECOND.get(service, USUAL_PER_SECOND), at_once=AT_ONCE)


def _size(answer: object) -> int:
    """Bytes of the answer's body; 0 where AWS does not tell."""
    metadata = answer.get("ResponseMetadata", {}) if isinstance(answer, Mapping) else {}
    told = metadata.get("HTTPHeaders", {}).get("content-length", "")
    return int(told) if str(told).isdecimal() else 0


def _refusal(action: str, error: ClientError, limit: Limit) -> CollectorError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if error.operation_name.startswith("AssumeRole"):  # on the way to the action itself
        return Forbidden(f"sts:{error.operation_name}: {code}", "let AUTOPILOT_AWS_ROLE_ARN trust these credentials")
    for codes, refusal in (
        (_CREDENTIALS, Forbidden(f"{action}: {code}", "renew the AWS credentials of this process")),
        (_CLOCK, Forbidden(f"{action}: {code}", "set this machine's clock (NTP)")),
        (_DENIALS, Forbidden(f"{action}: {code}", f"allow the role the action {action}")),
        (_UNKNOWN, NotOffered(f"{action}: {code}", "unset AUTOPILOT_AWS_ENDPOINT_URL to reach AWS itself")),
    ):
        if code in codes:
            return refusal
    if code in _THROTTLES or status == 429:
        limit.close(THROTTLED_PAUSE_S)
        return RateLimited(f"{action}: {code}", "try again later, or raise the account's API quota")
    if status >= 500:
        return Unreachable(f"{action}: AWS answered {status} {code}", "try again later")
    if _NAMES_NOTHING.search(code):
        return NotFound(f"{action}: {error}"[:500], "check the names under aws: and ecs: in the catalogue")
    return Refused(f"{action}: {error}"[:500])


class Asked:
    """One question, from before it is sent: ``note`` records it once its answer is there."""

    def __init__(self, text: str, window: Window, link: str | None = None, *, kind: Asks = "") -> None:
        self._text, self._window, self._link, self._kind = text, window, link, kind
        self._started = monotonic()

    def note(self, part: Part, rows: int, *, truncated: bool = False) -> None:
        """Keep it as a Query of the part."""
        part.queries.append(
            Query(
                source=part.source,
                text=self._text,
                link=self._link,
                start=self._window.start,
                end=self._window.end,
                took_ms=round((monotonic() - self._started) * 1000, 1),
                rows=rows,
                truncated=truncated,
                kind=self._kind,
            )
        )


class _Client(Protocol):
    @property
    def meta(self) -> "ClientMeta":
        """Region and endpoint."""


def console(client: _Client, path: str) -> str | None:
    """``path`` of the AWS console, ``{region}`` filled in; None where the endpoint is not AWS's own."""
    region, domain = client.meta.region_name, _CONSOLES.get(client.meta.partition, "")
    host = urlsplit(client.meta.endpoint_url).hostname or ""
    if not domain or not re.search(r"\.amazonaws\.com(\.cn)?$", host):
        return None
    return f"https://{region}.{domain}/{path.replace('{region}', region)}"


async def allowed(settings: SourceSettings, action: str, function: Callable[[], object]) -> Check:
    """Whether the role may do the action. That AWS knows no such resource is said after it was allowed."""

    async def read(part: Part) -> str:
        try:
            await call(part, action, function)
        except Refused:
            return "allowed; asked for something that does not exist"
        return "allowed"

    return await checked("aws", settings, action, read, f"allow the role the action {action}")
