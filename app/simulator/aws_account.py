"""Who calls the shop's AWS, and what they may do: STS and IAM."""

from collections.abc import Callable, Mapping

from app.simulator.aws_errors import AwsError
from app.simulator.aws_query import Form, Operation, Xml, members
from app.simulator.cluster import API_USER
from app.simulator.topology import ACCOUNT

STS_NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
IAM_NAMESPACE = "https://iam.amazonaws.com/doc/2010-05-08/"
USER_ARN = f"arn:aws:iam::{ACCOUNT}:user/{API_USER}"
USER_ID = "AIDA2SHOPAUTOPILOT000"


class StsApi:
    """Whatever keys a request is signed with are those of the shop's one user."""

    def __init__(self) -> None:
        self.operations: Mapping[str, Operation] = {"GetCallerIdentity": self._get_caller_identity}

    def _get_caller_identity(self, form: Form, at: float) -> Mapping[str, Xml]:
        return {"Arn": USER_ARN, "UserId": USER_ID, "Account": ACCOUNT}


class IamApi:
    """The user may do whatever the shop can do, and nothing else. ``knows``: whether it can do an IAM action."""

    def __init__(self, knows: Callable[[str], bool]) -> None:
        self._knows = knows
        self.operations: Mapping[str, Operation] = {"SimulatePrincipalPolicy": self._simulate_principal_policy}

    def _simulate_principal_policy(self, form: Form, at: float) -> Mapping[str, Xml]:
        if form.get("PolicySourceArn") != USER_ARN:
            raise AwsError("NoSuchEntity", f"{form.get('PolicySourceArn')} cannot be found.", 404)
        actions = members(form, "ActionNames")
        if not actions:
            raise AwsError("ValidationError", "1 validation error detected: Value at 'actionNames' must not be empty")
        return {"EvaluationResults": [self._evaluated(action) for action in actions], "IsTruncated": False}

    def _evaluated(self, action: str) -> Mapping[str, Xml]:
        decision = "allowed" if self._knows(action) else "implicitDeny"
        return {"EvalActionName": action, "EvalResourceName": "*", "EvalDecision": decision}
