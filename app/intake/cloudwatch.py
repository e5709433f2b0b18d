"""CloudWatch alarms through SNS: verify Amazon's signature, parse the alarm, ask CloudWatch what was missed.

Reading alarms back needs ``cloudwatch:DescribeAlarms`` for the credentials of the collector ``aws``.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake import eventbridge
from app.intake._alarms import ARN, SOURCE, Node, alert_of, from_message, from_row, items
from app.intake._sns import TOPIC, Certificates, Envelope, authenticate, envelope
from app.intake.base import (
    CommaList,
    Directory,
    Incoming,
    IntakeUnavailable,
    Job,
    NotAllowed,
    Parsed,
    Sender,
    SenderSettings,
    Unauthentic,
    UnreadablePayload,
    indexable,
    json_object,
    text_of,
)
from collectors import aws
from graph.state import Alert

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch import CloudWatchClient
    from mypy_boto3_cloudwatch.literals import AlarmTypeType
    from mypy_boto3_cloudwatch.type_defs import DescribeAlarmsOutputTypeDef

NAME = SOURCE
PAGE = 100
PAGES = 20
MOST = PAGE * PAGES
ALARM_TYPES: "list[AlarmTypeType]" = ["MetricAlarm", "CompositeAlarm", "LogAlarm"]  # unasked, only metric alarms come
SPENT = {"InvalidParameter", "InvalidParameterException", "NotFound", "NotFoundException"}  # of a token, or its topic
_CONFIG = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
logger = logging.getLogger(__name__)


def _are_topics(arns: tuple[str, ...]) -> tuple[str, ...]:
    for arn in arns:
        if not TOPIC.fullmatch(arn):
            raise ValueError(f"{arn!r} is no topic's ARN such as arn:aws:sns:us-east-1:123456789012:alarms")
    return arns


class Settings(SenderSettings):
    """``AUTOPILOT_CLOUDWATCH_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_CLOUDWATCH_")

    topic_arns: Annotated[CommaList, AfterValidator(_are_topics)] = Field(
        default=(), description="SNS topics whose messages are taken, with commas between them"
    )
    accept_sha1: bool = Field(
        default=False, description="Take messages of topics whose attribute SignatureVersion is still 1"
    )
    any_certificate_name: bool = Field(
        default=False, description="Take any name of Amazon's signing certificate, should Amazon change how it names it"
    )
    endpoint_url: str | None = Field(default=None, description="Another endpoint of SNS than the topic's region has")


Connect = Callable[[str | None], "CloudWatchClient | None"]


def reader(region: str | None) -> "CloudWatchClient | None":
    """CloudWatch in this region, or in that of the settings, read with the credentials of the collector ``aws``.

    None if no region is set. Raises ValueError if there are no credentials.
    """
    settings = aws.Settings()
    if not settings.region:
        return None
    session = aws.session_of(settings)
    client: CloudWatchClient = session.client(
        "cloudwatch", region_name=region or settings.region, endpoint_url=settings.endpoint_url, config=_CONFIG
    )
    return client


def create(clock: Clock, config: AutopilotYaml) -> "Cloudwatch":
    """The sender."""
    by_event = bool(eventbridge.Settings().api_keys)
    return Cloudwatch(Settings(), Certificates(), by_event=by_event)


class Cloudwatch(Sender):
    """``app.intake.base.Sender``. ``connect`` reaches CloudWatch itself; ``by_event``: EventBridge tells of alarms too,
    and needs no action of theirs for it.
    """

    name = NAME

    def __init__(
        self, settings: Settings, certificates: Certificates, connect: Connect = reader, *, by_event: bool = False
    ) -> None:
        self.settings, self._certificates, self._connect = settings, certificates, connect
        self._by_event = by_event

    async def verify(self, incoming: Incoming) -> None:
        """See app.intake.base.Sender. No request is made for a topic that is not on the list."""
        if not self.settings.topic_arns:
            raise Unauthentic("This sender is turned off: AUTOPILOT_CLOUDWATCH_TOPIC_ARNS is not set.")
        if incoming.headers.get("x-amz-sns-rawdelivery", "").lower() == "true":
            raise Unauthentic("Raw messages carry no signature: turn off RawMessageDelivery of the SNS subscription.")
        try:
            message = envelope(incoming.body)
        except UnreadablePayload as error:
            raise Unauthentic(f"Nothing here is signed: {error}") from None
        self._check_topic(message.topic_arn)
        await authenticate(
            message,
            self._certificates,
            accept_sha1=self.settings.accept_sha1,
            any_certificate_name=self.settings.any_certificate_name,
        )

    def parse(self, incoming: Incoming, directory: Directory) -> Parsed:
        """See app.intake.base.Sender."""
        message = envelope(incoming.body)
        key = indexable(f"{NAME}:sns:{text_of(message.message_id)}")
        return replace(_READERS[message.type](message, directory), delivery_key=key)

    async def perform(self, arguments: Mapping[str, str], directory: Directory) -> Parsed:
        """Confirm a subscription, or read one alarm again. Raises IntakeUnavailable, UnreadablePayload."""
        if "confirm" in arguments:
            return await self._confirm(arguments["confirm"], arguments.get("token", ""))
        if "alarm_arn" in arguments or "alarm_name" in arguments:
            row = await asyncio.to_thread(self._one, arguments)
            return Parsed(alerts=(alert_of(from_row(row), directory),))
        return await super().perform(arguments, directory)

    async def missed(self, directory: Directory) -> Parsed | None:
        """Every alarm that is in ALARM now and tells somebody; None without AWS credentials. Raises
        IntakeUnavailable.
        """
        rows = await asyncio.to_thread(self._in_alarm)
        if rows is None:
            return None
        telling = [row for row in rows if _notifies(row, by_event=self._by_event)]
        alerts, unplaced = _placed(telling, directory)
        notes = [f"{unplaced} alarms in ALARM name no service"] if unplaced else []
        notes += [f"{silent} alarms in ALARM notify nobody"] if (silent := len(rows) - len(telling)) else []
        notes += [f"only the first {MOST} alarms were read"] if len(rows) >= MOST else []
        return Parsed(alerts=alerts, note="; ".join(notes))

    async def aclose(self) -> None:
        """Close connections."""
        await self._certificates.aclose()

    def _check_topic(self, arn: str) -> None:
        if arn not in self.settings.topic_arns:
            raise NotAllowed(f"{text_of(arn)[:300]} is not among AUTOPILOT_CLOUDWATCH_TOPIC_ARNS.")

    # --- subscription ---

    async def _confirm(self, topic: str, token: str) -> Parsed:
        try:
            self._check_topic(topic)
        except NotAllowed as error:
            raise UnreadablePayload(str(error)) from None  # the list was changed since: no later attempt will help
        await asyncio.to_thread(self._confirm_now, topic, token)
        return Parsed(note=f"subscription to {topic} confirmed")

    def _confirm_now(self, topic: str, token: str) -> None:
        """The API call, which needs no credentials; the link in the message is never opened."""
        config = _CONFIG.merge(Config(signature_version=UNSIGNED))
        try:
            session = boto3.Session(region_name=topic.split(":")[3])
            with closing(session.client("sns", endpoint_url=self.settings.endpoint_url, config=config)) as client:
                client.confirm_subscription(TopicArn=topic, Token=token)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in SPENT:
                raise UnreadablePayload(f"{error}. Subscribe to {topic} again for a new token.") from None
            raise IntakeUnavailable(str(error)) from None
        except BotoCoreError as error:
            raise IntakeUnavailable(str(error)) from None

    # --- reading alarms back ---

    def _in_alarm(self) -> list[Node] | None:
        try:
            client = self._connect(None)
        except ValueError as error:
            logger.warning("CloudWatch is not asked for alarms: %s", error)
            return None
        return _ask(client, _all_in_alarm) if client else None

    def _one(self, arguments: Mapping[str, str]) -> Node:
        """Raises UnreadablePayload if there is no such alarm, or no way to ask for it."""
        asked = ARN.fullmatch(arguments.get("alarm_arn", ""))
        name = asked["name"] if asked else arguments.get("alarm_name", "")
        region = asked["region"] if asked else arguments.get("region") or None
        if not name:
            raise UnreadablePayload("this is no ARN of a CloudWatch alarm")
        rows = _ask(self._client(region), partial(_named, name))
        found = next((r for r in rows if not asked or r.get("AlarmArn") == asked[0]), None)
        if found is None:
            raise UnreadablePayload(f"CloudWatch has no such alarm: {arguments.get('alarm_arn') or name}")
        return found

    def _client(self, region: str | None) -> "CloudWatchClient":
        """Raises UnreadablePayload."""
        try:
            client = self._connect(region)
        except ValueError as error:  # no credentials, or no such region
            raise UnreadablePayload(f"No alarm can be read: {error}") from None
        if client is None:
            raise UnreadablePayload("No alarm can be read: set AUTOPILOT_AWS_REGION, and give AWS credentials.")
        return client


def _ask(client: "CloudWatchClient", question: "Callable[[CloudWatchClient], list[Node]]") -> list[Node]:
    """Raises IntakeUnavailable."""
    with closing(client):
        try:
            return question(client)
        except ClientError as error:
            raise IntakeUnavailable(f"{error}. The role needs cloudwatch:DescribeAlarms.") from None
        except BotoCoreError as error:
            raise IntakeUnavailable(f"{error}. Check AUTOPILOT_AWS_REGION and the network.") from None


def _all_in_alarm(client: "CloudWatchClient") -> list[Node]:
    pages = client.get_paginator("describe_alarms").paginate(
        StateValue="ALARM", AlarmTypes=ALARM_TYPES, PaginationConfig={"PageSize": PAGE}
    )
    return [row for page in islice(pages, PAGES) for row in _rows(page)]


def _named(name: str, client: "CloudWatchClient") -> list[Node]:
    return list(_rows(client.describe_alarms(AlarmNames=[name], AlarmTypes=ALARM_TYPES)))


def _rows(page: "DescribeAlarmsOutputTypeDef") -> Iterable[Node]:
    return (*page.get("MetricAlarms", ()), *page.get("CompositeAlarms", ()), *page.get("LogAlarms", ()))


def _notifies(row: Node, *, by_event: bool) -> bool:
    """Whether its owner wants anybody to hear of it; whom does not matter. An alarm that only scales is at work."""
    if row.get("ActionsEnabled") is False or row.get("ActionsSuppressedBy"):
        return False
    actions = [text_of(action) for action in items(row.get("AlarmActions"))]
    return any(a.split(":")[2:3] != ["autoscaling"] for a in actions) if actions else by_event


def _placed(rows: Iterable[Node], directory: Directory) -> tuple[tuple[Alert, ...], int]:
    """The alerts, and how many alarms name no service."""
    alerts, unplaced = [], 0
    for row in rows:
        try:
            alerts.append(alert_of(from_row(row), directory))
        except UnreadablePayload:
            unplaced += 1
    return tuple(alerts), unplaced


# --- the three types of message ---


def _notification(message: Envelope, directory: Directory) -> Parsed:
    return Parsed(alerts=(alert_of(from_message(json_object(message.message.encode())), directory),))


def _subscription(message: Envelope, directory: Directory) -> Parsed:
    if not message.token:
        raise UnreadablePayload("the confirmation has no Token")
    arguments = {"confirm": message.topic_arn, "token": text_of(message.token)}
    note = f"the subscription to {message.topic_arn} is being confirmed"
    return Parsed(jobs=(Job(sender=NAME, arguments=arguments),), note=note)


def _unsubscription(message: Envelope, directory: Directory) -> Parsed:
    note = f"the subscription to {message.topic_arn} has ended: no alarm comes from it any more until it is renewed"
    logger.warning(note)
    return Parsed(note=note)


_READERS: Mapping[str, Callable[[Envelope, Directory], Parsed]] = {
    "Notification": _notification,
    "SubscriptionConfirmation": _subscription,
    "UnsubscribeConfirmation": _unsubscription,
}
