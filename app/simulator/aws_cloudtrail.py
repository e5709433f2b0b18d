"""AWS CloudTrail, AWS JSON 1.1: who changed the shop through AWS, and what they asked for.

CloudTrail itself tells of a call some minutes late; the shop's tells at once.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from app.simulator.aws_account import USER_ARN, USER_ID
from app.simulator.aws_errors import AwsError
from app.simulator.cluster import API_USER, Happening
from app.simulator.shop import Shop
from app.simulator.topology import ACCOUNT, CLUSTER, REGION

Json = dict[str, object]
Operation = Callable[[Json, float], Json]

TARGET_PREFIX = "com.amazonaws.cloudtrail.v20131101.CloudTrail_20131101."
KEPT = 1000
PAGE = 50
_ECS = "ecs.amazonaws.com"
_AUTOSCALING = "application-autoscaling"


class _Input(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, extra="ignore")


class _Attribute(_Input):
    attribute_key: Literal["EventId", "EventName", "EventSource", "ReadOnly", "ResourceName", "Username"]
    attribute_value: str


class _LookupEvents(_Input):
    lookup_attributes: list[_Attribute] = Field(default=[], max_length=1)
    start_time: float = float("-inf")
    end_time: float = float("inf")
    max_results: int = Field(default=PAGE, ge=1, le=PAGE)
    next_token: str = ""


@dataclass(frozen=True)
class _Entry:
    """One call that was meant to change something."""

    at: float
    source: str
    operation: str
    parameters: Mapping[str, object]
    user: str
    error: str = ""

    @property
    def id(self) -> str:
        """The same whenever it is asked for."""
        return str(uuid5(NAMESPACE_URL, f"{self.at} {self.source} {self.operation} {self.user} {self.parameters}"))


class CloudTrailApi:
    """CloudTrail in front of the shop. Operations take the request and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._calls: deque[_Entry] = deque(maxlen=KEPT)
        self.operations: Mapping[str, Operation] = {"LookupEvents": self._lookup_events}

    def record(self, source: str, operation: str, parameters: Mapping[str, object], error: str = "") -> None:
        """A call of the shop's AWS API, as CloudTrail spells its parameters; ``error`` is why it was refused."""
        at = self._shop.clock.now().timestamp()
        self._calls.append(_Entry(at, source, operation, parameters, API_USER, error))

    def _lookup_events(self, body: Json, at: float) -> Json:
        request = _LookupEvents.model_validate(body)
        if request.next_token and not request.next_token.isdecimal():
            raise AwsError("InvalidNextTokenException", "Invalid token.")
        found = [
            event
            for event in map(_event, sorted(self._entries(), key=lambda entry: entry.at, reverse=True))
            if request.start_time <= float(str(event["EventTime"])) <= request.end_time
            and all(_matches(event, by) for by in request.lookup_attributes)
        ]
        start = int(request.next_token or 0)
        answer: Json = {"Events": found[start : start + request.max_results]}
        if start + request.max_results < len(found):
            answer["NextToken"] = str(start + request.max_results)
        return answer

    def _entries(self) -> Iterable[_Entry]:
        """What came through the API, and what others did."""
        return (*self._calls, *_done_by_others(self._shop.cluster.happenings))


def _done_by_others(happenings: Iterable[Happening]) -> Iterator[_Entry]:
    for told in happenings:
        if told.author != API_USER and told.operation:
            of_ecs = {"cluster": CLUSTER, "service": told.service} if told.source == _ECS else {}
            yield _Entry(told.at, told.source, told.operation, {**of_ecs, **told.asked}, told.author)


def _matches(event: Json, by: _Attribute) -> bool:
    if by.attribute_key == "ResourceName":
        resources = event["Resources"]
        return isinstance(resources, list) and {"ResourceName": by.attribute_value} in resources
    return event.get(by.attribute_key) == by.attribute_value


def _resources(entry: _Entry) -> list[Json]:
    """What a database's or a cache's operation is about; those of other services are looked up by their name."""
    named = (entry.parameters.get(key) for key in _RESOURCES)
    return [{"ResourceName": name} for name in named if name]


_RESOURCES = ("DBClusterIdentifier", "DBInstanceIdentifier", "ReplicationGroupId", "CacheClusterId")


def _event(entry: _Entry) -> Json:
    detail: Json = {
        "eventVersion": "1.09",
        "userIdentity": _identity(entry.user),
        "eventTime": datetime.fromtimestamp(entry.at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "eventSource": entry.source,
        "eventName": entry.operation,
        "awsRegion": REGION,
        "requestParameters": entry.parameters,
        "eventID": entry.id,
        "readOnly": False,
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": ACCOUNT,
        "eventCategory": "Management",
    }
    return {
        "EventId": entry.id,
        "EventName": entry.operation,
        "EventSource": entry.source,
        "EventTime": entry.at,
        "ReadOnly": "false",
        "Username": entry.user,
        "Resources": _resources(entry),
        "CloudTrailEvent": json.dumps(detail | ({"errorCode": entry.error} if entry.error else {})),
    }


def _identity(user: str) -> Json:
    if user == API_USER:
        return {"type": "IAMUser", "principalId": USER_ID, "arn": USER_ARN, "accountId": ACCOUNT, "userName": user}
    if user == _AUTOSCALING:
        return {"type": "AWSService", "invokedBy": f"{user}.amazonaws.com"}
    session = user.replace("/", "-")
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{session}/deploy"
    issuer = {"type": "Role", "arn": f"arn:aws:iam::{ACCOUNT}:role/{session}", "userName": session}
    return {"type": "AssumedRole", "arn": arn, "accountId": ACCOUNT, "sessionContext": {"sessionIssuer": issuer}}
