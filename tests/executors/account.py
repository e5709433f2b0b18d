"""An AWS account of a test, behind a real port: it gives out sessions of a role, and lets each do what its policy says.

Requests are told apart by botocore's own service models, answers are written by moto's serializers, and policies are
judged by moto's policy evaluation, with the action and the ARNs that AWS names for a call (``TARGETS``): moto's own
server leaves the policy of a session out of account, and checks actions only.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

from moto.core.model import OperationModel, ServiceModel
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model
from moto.iam.access_control import IAMPolicy, PermissionResult

ACCOUNT, REGION = "123456789012", "us-east-1"
SIGNED_AS = {"elasticloadbalancing": "elbv2"}  # by name in the signature, where that is another
LATER = datetime(2099, 1, 1, tzinfo=UTC)
Params = Mapping[str, str]


def arn(service: str, resource: str) -> str:
    """An ARN of this account."""
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


SCALABLE_TARGET = arn("application-autoscaling", "scalable-target/0ec5")


def _environment(p: Params) -> list[str]:
    application = arn("appconfig", f"application/{p['ApplicationId']}")
    return [application, f"{application}/environment/{p['EnvironmentId']}"]


# What AWS authorizes a call on (Service Authorization Reference); a call that is not here is on everything.
TARGETS: Mapping[str, Callable[[Params], list[str]]] = {
    "ecs:UpdateService": lambda p: [arn("ecs", f"service/{p['cluster']}/{p['service']}")],
    "ecs:StopTask": lambda p: [p["task"]],
    "ecs:StopServiceDeployment": lambda p: [p["serviceDeploymentArn"]],
    "application-autoscaling:RegisterScalableTarget": lambda p: [SCALABLE_TARGET],
    "elasticloadbalancing:ModifyRule": lambda p: [p["RuleArn"]],
    "lambda:UpdateAlias": lambda p: [arn("lambda", f"function:{p['FunctionName']}")],
    "lambda:PutFunctionConcurrency": lambda p: [arn("lambda", f"function:{p['FunctionName']}")],
    "lambda:DeleteFunctionConcurrency": lambda p: [arn("lambda", f"function:{p['FunctionName']}")],
    "rds:RebootDBInstance": lambda p: [arn("rds", f"db:{p['DBInstanceIdentifier']}")],
    "rds:FailoverDBCluster": lambda p: [arn("rds", f"cluster:{p['DBClusterIdentifier']}")],
    "elasticache:ModifyReplicationGroup": lambda p: [
        arn("elasticache", f"replicationgroup:{p['ReplicationGroupId']}"),
    ],
    "elasticache:TestFailover": lambda p: [arn("elasticache", f"replicationgroup:{p['ReplicationGroupId']}")],
    "elasticache:RebootCacheCluster": lambda p: [arn("elasticache", f"cluster:{p['CacheClusterId']}")],
    "autoscaling:StartInstanceRefresh": lambda p: [group_arn(p["AutoScalingGroupName"])],
    "autoscaling:SetDesiredCapacity": lambda p: [group_arn(p["AutoScalingGroupName"])],
    "ssm:StartAutomationExecution": lambda p: [
        arn("ssm", f"automation-definition/{p['DocumentName']}:{p['DocumentVersion']}")
    ],
    "ssm:StopAutomationExecution": lambda p: [arn("ssm", f"automation-execution/{p['AutomationExecutionId']}")],
    "appconfig:StopDeployment": lambda p: [
        *_environment(p),
        f"{_environment(p)[1]}/deployment/{p['DeploymentNumber']}",
    ],
    "appconfig:StartDeployment": _environment,
}


def group_arn(name: str) -> str:
    """The ARN of an Auto Scaling group, as AWS numbers it."""
    return arn("autoscaling", f"autoScalingGroup:9f2a:autoScalingGroupName/{name}")


@dataclass(frozen=True)
class Call:
    """One call that was made."""

    session: str  # RoleSessionName
    action: str
    allowed: bool


@dataclass
class Account:
    """What the account answers, and what it was asked."""

    url: str = ""
    answers: dict[str, object] = field(default_factory=dict)  # by action, as botocore has them, or from the parameters
    assumed: list[dict[str, str]] = field(default_factory=list)  # AssumeRole requests
    refuses_roles: bool = False
    expires: datetime = LATER  # of the keys
    calls: list[Call] = field(default_factory=list)

    def session_of(self, access_key: str) -> dict[str, str]:
        """The AssumeRole request that these keys were given out for."""
        return self.assumed[int(access_key.removeprefix("ASIA"))]

    def assume(self, request: dict[str, str]) -> dict[str, object]:
        """Keys of a new session."""
        self.assumed.append(request)
        keys = {
            "AccessKeyId": f"ASIA{len(self.assumed) - 1:016}",
            "SecretAccessKey": "secret",
            "SessionToken": "token",
            "Expiration": self.expires,
        }
        return {"Credentials": keys}

    def permits(self, session: dict[str, str], action: str, params: Params) -> bool:
        """Whether the session's policy allows it on all that it is on."""
        targets = TARGETS[action](params) if action in TARGETS else ["*"]
        policy = IAMPolicy(_without_conditions(session["Policy"]))
        allowed = PermissionResult.PERMITTED
        return all(policy.is_action_permitted(action, target) == allowed for target in targets)


def _without_conditions(policy: str) -> str:
    """Of policies of sessions: moto evaluates conditions of trust policies only; golden files show these."""
    document = json.loads(policy)
    document["Statement"] = [{k: v for k, v in s.items() if k != "Condition"} for s in document["Statement"]]
    return json.dumps(document)


class Handler(BaseHTTPRequestHandler):
    """One request, of whatever AWS service."""

    account: Account

    def do_POST(self) -> None:
        """Answers, or refuses, as the session's policy says."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        key, service = _signature(self.headers["Authorization"])
        operation, params = _call(service, self, body)
        if operation.name == "AssumeRole":
            if self.account.refuses_roles:
                return self._refuse(operation, "sts:AssumeRole")
            asked = {name: value for name, value in params.items() if name not in ("Action", "Version")}
            return self._answer(operation, self.account.assume(asked))
        session = self.account.session_of(key)
        action = f"{service}:{operation.name}"
        allowed = self.account.permits(session, action, params)
        self.account.calls.append(Call(session["RoleSessionName"], action, allowed))
        if not allowed:
            return self._refuse(operation, action)
        answer = self.account.answers.get(action, _nothing(operation))
        return self._answer(operation, answer(params) if callable(answer) else answer)

    do_GET = do_PUT = do_DELETE = do_PATCH = do_POST  # noqa: N815  named by http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing on the terminal."""

    def _answer(self, operation: OperationModel, result: object) -> None:
        protocol = operation.service_model.resolved_protocol
        serializer = get_serializer_class(operation.service_model.service_name, protocol)
        serialized = serializer(operation).serialize(result)
        self._send(serialized["status_code"], serialized["body"])

    def _refuse(self, operation: OperationModel, action: str) -> None:
        said = f"not authorized to perform: {action} because no session policy allows it"
        if operation.service_model.resolved_protocol == "query":
            self._send(
                403, f"<ErrorResponse><Error><Code>AccessDenied</Code><Message>{said}</Message></Error></ErrorResponse>"
            )
        else:
            self._send(400, json.dumps({"__type": "AccessDeniedException", "message": said}))

    def _send(self, status: int, body: str | bytes) -> None:
        content = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("x-amzn-RequestId", "req-1")
        self.end_headers()
        self.wfile.write(content)


def _signature(authorization: str) -> tuple[str, str]:
    """Access key and service of a signed request."""
    found = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/", authorization)
    assert found is not None
    return found[1], found[2]


@cache
def _model(service: str) -> ServiceModel:
    return get_service_model(SIGNED_AS.get(service, service))


def _call(service: str, request: Handler, body: str) -> tuple[OperationModel, Params]:
    """The operation, and its parameters as far as they name what it is on."""
    if target := request.headers.get("X-Amz-Target"):
        return _model(service).operation_model(target.rpartition(".")[2]), json.loads(body)
    if _model(service).resolved_protocol == "query":
        form = {k: v[0] for k, v in parse_qs(body).items()}
        return _model(service).operation_model(form["Action"]), form
    path = unquote(urlsplit(request.path).path)
    for name in _model(service).operation_names:
        operation = _model(service).operation_model(name)
        uri = operation.http["requestUri"].split("?")[0]
        pattern = re.sub(r"\\{(\w+)\\?\+?\\}", r"(?P<\1>[^/]+)", re.escape(uri))
        found = re.fullmatch(pattern, path)
        if found and operation.http["method"] == request.command:
            return operation, found.groupdict()
    raise LookupError(f"{service} has no {request.command} {path}")


def _nothing(operation: OperationModel) -> dict[str, object]:
    """The answer that finds nothing: its lists are there, and empty."""
    shape = operation.output_shape
    members = shape.members if shape else {}
    return {name: [] for name, member in members.items() if member.type_name == "list"}


@contextmanager
def account() -> Iterator[Account]:
    """A running account."""
    made = Account()
    handler = type("OneHandler", (Handler,), {"account": made})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield made
        server.shutdown()
        thread.join()
