"""Calls to AWS: boto3 in threads, paced and counted, refusals told as sentences that name the IAM action."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.parsers import ResponseParserError

from collectors._jobs import Part
from collectors._limits import limit_of
from collectors.base import CollectorError, Forbidden, RateLimited, Unreachable

if TYPE_CHECKING:
    from mypy_boto3_cloudtrail import CloudTrailClient
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_codedeploy import CodeDeployClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_rds import RDSClient
    from mypy_boto3_sts import STSClient
    from mypy_boto3_xray import XRayClient

PER_SECOND = {"cloudtrail": 2.0, "logs": 5.0}  # published: CloudTrail 2, Logs Insights 5; the others allow more
USUAL_PER_SECOND = 20.0
AT_ONCE = 8

_THROTTLES = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "LimitExceededException",
}
_DENIALS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_CREDENTIALS = {
    "UnrecognizedClientException",
    "InvalidClientTokenId",
    "ExpiredToken",
    "ExpiredTokenException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
}
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


async def call(part: Part, action: str, function: Callable[[], _T]) -> _T:
    """Call boto3 in a thread. ``action`` is the IAM action it needs, e.g. ecs:ListTasks. Raises CollectorError."""
    service = action.partition(":")[0]
    limit = limit_of(f"aws:{service}", per_second=PER_SECOND.get(service, USUAL_PER_SECOND), at_once=AT_ONCE)
    async with limit.turn(action, part.budget.left_s):
        part.budget.call()
        try:
            answer = await asyncio.to_thread(function)
        except ClientError as error:
            raise _refusal(action, error) from None
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise Forbidden(f"{action}: {error}", "set AUTOPILOT_AWS_PROFILE or AWS's own credentials") from None
        except (BotoCoreError, ResponseParserError) as error:
            raise Unreachable(f"{action}: {error}", "check AUTOPILOT_AWS_REGION and the network") from None
    part.answered = True
    return answer


def _refusal(action: str, error: ClientError) -> CollectorError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _CREDENTIALS:
        return Forbidden(f"{action}: {code}", "renew the AWS credentials of this process")
    if code in _DENIALS:
        return Forbidden(f"{action}: {code}", f"allow the role the action {action}")
    if code in _THROTTLES:
        return RateLimited(f"{action}: {code}", "try again later, or raise the account's API quota")
    if status >= 500:
        return Unreachable(f"{action}: AWS answered {status} {code}")
    return CollectorError(f"{action}: {error}")
