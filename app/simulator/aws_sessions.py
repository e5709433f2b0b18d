"""Sessions of an assumed role, and what their session policies allow: a call beyond it is refused, as AWS does.

The shop's one user and its roles may do everything that the shop can do, so a session may do what its policy allows.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random

from app.simulator.aws_appconfig import ROOT_ARN, deployment_arn
from app.simulator.aws_elasticache import GROUP_ARN, node_arn
from app.simulator.aws_errors import AwsError
from app.simulator.aws_rds import CLUSTER_ARN, instance_arn
from app.simulator.aws_scaling import target_arn
from app.simulator.flags import ENVIRONMENT, PROFILE
from app.simulator.topology import ACCOUNT, CLUSTER, REGION, service_arn

Json = Mapping[str, object]
LONGEST_POLICY = 2048
KEPT = 1000
_ENVIRONMENT_ARN = f"{ROOT_ARN}/environment/{ENVIRONMENT[0]}"
_ROLE = re.compile(r"arn:aws:iam::(?P<account>\d{12}):role/(?P<name>[\w+=,.@/-]+)")
_CREDENTIAL = re.compile(r"Credential=(?P<key>\w+)/")


@dataclass(frozen=True)
class Statement:
    """One statement of a session policy."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]

    def allows(self, action: str, resource: str) -> bool:
        """Patterns with ``*`` and ``?``; actions whatever their case."""
        named = any(fnmatchcase(action.lower(), pattern.lower()) for pattern in self.actions)
        return named and any(fnmatchcase(resource, pattern) for pattern in self.resources)


@dataclass(frozen=True)
class Session:
    """``statements`` is None where no session policy was given: it may do what the role may."""

    key: str
    name: str
    role: str
    statements: tuple[Statement, ...] | None


class Sessions:
    """All sessions, by access key."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.by_key: dict[str, Session] = {}

    def assume(self, role: str, name: str, policy: str) -> Session:
        """Raises AwsError."""
        match = _ROLE.fullmatch(role)
        if match is None or match["account"] != ACCOUNT:
            raise AwsError(
                "AccessDenied", f"User is not authorized to perform: sts:AssumeRole on resource: {role}", 403
            )
        if not re.fullmatch(r"[\w+=,.@-]{2,64}", name):
            raise AwsError("ValidationError", "Value at 'roleSessionName' failed to satisfy constraint")
        if len(policy) > LONGEST_POLICY:
            raise AwsError("ValidationError", "Value at 'policy' failed to satisfy constraint: at most 2048 characters")
        key = "ASIA" + "".join(self._random.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", k=16))
        self.by_key[key] = Session(key, name, role, _statements(policy) if policy else None)
        for old in list(self.by_key)[:-KEPT]:
            del self.by_key[old]
        return self.by_key[key]

    def of(self, authorization: str) -> Session | None:
        """The session whose key signed a request; None for the user's own. Raises AwsError for an unknown one."""
        match = _CREDENTIAL.search(authorization)
        if match is None or not match["key"].startswith("ASIA"):
            return None
        if match["key"] not in self.by_key:
            raise AwsError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
        return self.by_key[match["key"]]


def check(session: Session | None, action: str, params: Json) -> None:
    """Raises AwsError if the session policy does not allow the action on all that it names."""
    if session is None or session.statements is None or action in ALWAYS:
        return
    for resource in resources(action.partition(":")[2], params):
        if not any(statement.allows(action, resource) for statement in session.statements):
            arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{session.role.rpartition('/')[2]}/{session.name}"
            told = f"User: {arn} is not authorized to perform: {action} on resource: {resource} because no session"
            raise AwsError("AccessDenied", f"{told} policy allows the {action} action", 403)


ALWAYS = frozenset({"sts:GetCallerIdentity"})  # AWS asks for no permission


def resources(operation: str, params: Json) -> Sequence[str]:
    """The ARNs that an operation is authorized on; ``*`` where IAM knows no finer one."""
    return _RESOURCES.get(operation, _anything)(params)


def _anything(params: Json) -> Sequence[str]:
    return ("*",)


def _services(params: Json) -> Sequence[str]:
    named = params.get("services")
    names = named if isinstance(named, list) else [params.get("service", "")]
    return [service_arn(str(name).rpartition("/")[2]) for name in names]


def _deployments(params: Json) -> Sequence[str]:
    named = params.get("serviceDeploymentArns")
    return [str(arn) for arn in (named if isinstance(named, list) else [params.get("serviceDeploymentArn", "")])]


def _revisions(params: Json) -> Sequence[str]:
    named = params.get("serviceRevisionArns")
    return [str(arn) for arn in named] if isinstance(named, list) else ("*",)


def _tasks(params: Json) -> Sequence[str]:
    named = params.get("tasks")
    ids = named if isinstance(named, list) else [params.get("task", "")]
    return [f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{CLUSTER}/{str(id_).rpartition('/')[2]}" for id_ in ids]


def _rule(params: Json) -> Sequence[str]:
    return (str(params.get("RuleArn", "")),)


def _scalable(params: Json) -> Sequence[str]:
    return (target_arn(str(params.get("ResourceId", "")).rpartition("/")[2]),)


def _started(params: Json) -> Sequence[str]:
    """StartDeployment is asked for the environment, the profile and the strategy."""
    strategy = f"arn:aws:appconfig:{REGION}:{ACCOUNT}:deploymentstrategy/{params.get('DeploymentStrategyId', '')}"
    return (ROOT_ARN, _ENVIRONMENT_ARN, f"{ROOT_ARN}/configurationprofile/{PROFILE[0]}", strategy)


_RESOURCES: Mapping[str, Callable[[Json], Sequence[str]]] = {
    "UpdateService": _services,
    "DescribeServices": _services,
    "ListServiceDeployments": _services,
    "StopServiceDeployment": _deployments,
    "DescribeServiceDeployments": _deployments,
    "DescribeServiceRevisions": _revisions,
    "StopTask": _tasks,
    "DescribeTasks": _tasks,
    "ModifyRule": _rule,
    "RegisterScalableTarget": _scalable,
    "FailoverDBCluster": lambda params: (CLUSTER_ARN,),
    "RebootDBInstance": lambda params: (instance_arn(str(params.get("DBInstanceIdentifier", ""))),),
    "ModifyReplicationGroup": lambda params: (GROUP_ARN,),
    "TestFailover": lambda params: (GROUP_ARN,),
    "RebootCacheCluster": lambda params: (node_arn(str(params.get("CacheClusterId", ""))),),
    "StopDeployment": lambda params: (ROOT_ARN, _ENVIRONMENT_ARN, deployment_arn(str(params.get("number", "")))),
    "StartDeployment": _started,
}


def _statements(policy: str) -> tuple[Statement, ...]:
    try:
        document = json.loads(policy)
        found = document["Statement"]
        return tuple(
            Statement(_texts(one["Action"]), _texts(one["Resource"]))
            for one in (found if isinstance(found, list) else [found])
            if one["Effect"] == "Allow"
        )
    except (ValueError, KeyError, TypeError):
        raise AwsError("MalformedPolicyDocument", "This policy contains invalid Json") from None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),)
