"""Who calls the shop's AWS, and what they may do: STS and IAM."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from app.simulator.aws_errors import AwsError
from app.simulator.aws_query import Form, Operation, Xml, members
from app.simulator.aws_sessions import Sessions
from app.simulator.cluster import API_USER
from app.simulator.topology import ACCOUNT

STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
IAM_NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"
USER_ARN = f"arn:aws:iam::{ACCOUNT}:user/{API_USER}"
USER_ID = "AIDA2SHOPAUTOPILOT000"
ROLE = re.compile(rf"arn:aws:iam::{ACCOUNT}:role/[\w+=,.@/-]+")


class StsApi:
    """Whatever keys a request is signed with are those of the shop's one user, save those of its sessions."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self.operations: Mapping[str, Operation] = {
            "AssumeRole": self._assume_role,
            "GetCallerIdentity": self._get_caller_identity,
        }

    def _get_caller_identity(self, form: Form, at: float) -> Mapping[str, Xml]:
        return {"Arn": USER_ARN, "UserId": USER_ID, "Account": ACCOUNT}

    def _assume_role(self, form: Form, at: float) -> Mapping[str, Xml]:
        """Its keys expire by the wall clock: so reads the SDK, whatever time it is in the shop."""
        name = form.get("RoleSessionName", "")
        session = self._sessions.assume(form.get("RoleArn", ""), name, form.get("Policy", ""))
        expires = datetime.now(UTC) + timedelta(seconds=int(form.get("DurationSeconds", "3600")))
        role = session.role.rpartition("/")[2]
        return {
            "Credentials": {
                "AccessKeyId": session.key,
                "SecretAccessKey": f"secret-of-{session.key}",
                "SessionToken": f"token-of-{session.key}",
                "Expiration": expires.isoformat(timespec="seconds").replace("+00:00", "Z"),
            },
            "AssumedRoleUser": {
                "AssumedRoleId": f"AROA2SHOPAUTOPILOT00:{name}",
                "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{name}",
            },
        }


class IamApi:
    """The user and its roles may do whatever the shop can do. ``knows``: whether it can do an IAM action."""

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self.operations: Mapping[str, Operation] = {"SimulatePrincipalPolicy": self._simulate_principal_policy}

    def _simulate_principal_policy(self, form: Form, at: float) -> Mapping[str, Xml]:
        principal = form.get("PolicySourceArn", "")
        if principal != USER_ARN and not ROLE.fullmatch(principal):
            raise AwsError("NoSuchEntity", f"{principal} cannot be found.", 404)
        actions = members(form, "ActionNames")
        if not actions:
            raise AwsError("ValidationError", "1 validation error detected: Value at 'actionNames' must not be empty")
        resources = members(form, "ResourceArns") or ["*"]
        results = [self._evaluated(action, resource) for action in actions for resource in resources]
        return {"EvaluationResults": results, "IsTruncated": False}

    def _evaluated(self, action: str, resource: str) -> Mapping[str, Xml]:
        decision = "allowed" if self._knows(action) else "implicitDeny"
        return {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision}
