"""``autopilot connect cloudwatch``: subscribe to an SNS topic, by API or by commands to paste; and EventBridge."""

import asyncio
import json
import shlex
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from app.connect import ConnectError, Say, Watch, told, webhook_url
from app.db import Connection, Row
from app.intake import eventbridge
from app.intake._sns import TOPIC, envelope
from app.intake.cloudwatch import NAME, Settings
from app.store import alerts, arrivals

TOPICS = "AUTOPILOT_CLOUDWATCH_TOPIC_ARNS"
KEYS = "AUTOPILOT_EVENTBRIDGE_API_KEYS"
TEST_ALARM = "autopilot-connect-test"
CONFIRMATION = "SubscriptionConfirmation"
_CONFIG = Config(connect_timeout=3, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 2})

NO_CONFIRMATION = (
    "No confirmation of the subscription came from SNS. Check that {url} is open to AWS by https, and that"
    f" `autopilot serve` was started with the topic in {TOPICS}. SNS asks once: run this again to be asked anew."
)
NOTHING_CAME = (
    "Nothing came from AWS. Check that {urls} are open to AWS by https, and that `autopilot serve` was started with"
    f" the topic in {TOPICS}, or the key in {KEYS}. SNS asks for its confirmation once, when it is subscribed to."
)
NO_WORKER = (
    "SNS asked for the subscription to be confirmed, and nobody did. A worker does it: run `autopilot worker`, or"
    " `autopilot serve` without --no-worker. If one runs, its log says why AWS could not be asked."
)
NO_TEST = (
    "The subscription is confirmed, but the test message {message} did not come. Look at the answers of `autopilot"
    " serve` to /webhooks/cloudwatch: 401 is a wrong signature, 403 a topic that is not in"
    f" {TOPICS}, 503 a certificate of Amazon's that could not be fetched."
)


class CloudwatchConnector:
    """``app.connect.Connector``."""

    def __init__(
        self,
        settings: Settings,
        event_keys: bool,
        public_url: str,
        topic: str,
        endpoint_url: str | None,
        say: Say,
    ) -> None:
        """Raises ConnectError if ``topic`` is no SNS topic's ARN."""
        matched = TOPIC.fullmatch(topic)
        if matched is None:
            raise ConnectError(f"--topic {topic!r}: write an ARN such as arn:aws:sns:us-east-1:123456789012:alarms")
        self.settings, self.event_keys, self.topic, self.say = settings, event_keys, topic, say
        self.partition, self.region = matched["partition"], matched["region"]
        self.url, self.events_url = webhook_url(public_url, "cloudwatch"), webhook_url(public_url, "eventbridge")
        self.protocol = urlsplit(public_url).scheme
        self._endpoint_url = endpoint_url
        self._session: boto3.Session | None = None  # with credentials
        self._confirmed = False

    async def set_up(self) -> None:
        """See app.connect.Connector."""
        try:
            await asyncio.to_thread(self._find_credentials)
            if self._session is None:
                self._say_what_to_paste()
            else:
                self._require_the_topic_on_the_list()
                await asyncio.to_thread(self._subscribe, self._session)
        except (ClientError, BotoCoreError) as error:
            raise _refused(error, self.topic) from None

    async def wait(self, watch: Watch) -> None:
        """See app.connect.Connector. A worker confirms the subscription; then a test message is sent."""
        if self._session is None:
            await self._wait_for_either(watch)
            return
        if not self._confirmed:
            holding = [CONFIRMATION, self.topic]
            asked = await watch.first([NAME], NO_CONFIRMATION.format(url=self.url), holding=holding)
            await self._wait_until_confirmed(watch, asked)
        try:
            message = await asyncio.to_thread(self._publish, self._session)
        except (ClientError, BotoCoreError) as error:
            raise _refused(error, self.topic) from None
        self.say(f"Test message {message} is sent.")
        self.say(told(await watch.first([NAME], NO_TEST.format(message=message), holding=[message])))

    # --- waiting ---

    async def _wait_for_either(self, watch: Watch) -> None:
        otherwise = NOTHING_CAME.format(urls=f"{self.url} and {self.events_url}")
        row = await watch.first([NAME, eventbridge.NAME], otherwise)
        if row["sender"] == NAME and envelope(bytes(row["body"])).type == CONFIRMATION:
            await self._wait_until_confirmed(watch, row)
        else:
            self.say(told(row))

    async def _wait_until_confirmed(self, watch: Watch, asked: Row) -> None:
        self.say("It came: SNS asks for the subscription to be confirmed; a worker does that.")

        async def answer(connection: Connection) -> Row | None:
            done = await arrivals.first(connection, [NAME], watch.since, holding=[str(asked["id"])], answered=True)
            row = done or await alerts.raw(connection, asked["id"])
            return row if done or (row and row["parse_error"]) else None

        row = await watch.until(answer, NO_WORKER)
        if row["parse_error"]:
            raise ConnectError(f"The subscription could not be confirmed: {row['parse_error']}")
        self.say(f"Done: {row['note']}.")

    # --- by API ---

    def _find_credentials(self) -> None:
        session = boto3.Session(region_name=self.region)
        if session.get_credentials():
            self._session = session

    def _require_the_topic_on_the_list(self) -> None:
        """SNS asks for a confirmation at once, and does not ask again where it was turned away."""
        if self.topic not in self.settings.topic_arns:
            raise ConnectError(
                f"nothing is subscribed yet, because {self.topic} is not on the list of topics to take messages of."
                f" Put this into .env, start `autopilot serve` again, and run this again:\n\n{self._listed()}"
            )

    def _listed(self) -> str:
        return f"{TOPICS}={','.join(dict.fromkeys((*self.settings.topic_arns, self.topic)))}"

    def _client(self, session: boto3.Session) -> Any:
        return session.client("sns", endpoint_url=self._endpoint_url, config=_CONFIG)

    def _subscribe(self, session: boto3.Session) -> None:
        """Safe to repeat: SNS knows the subscription by its endpoint, and asks again while it is not confirmed."""
        with closing(self._client(session)) as sns:
            sns.set_topic_attributes(TopicArn=self.topic, AttributeName="SignatureVersion", AttributeValue="2")
            subscription = sns.subscribe(
                TopicArn=self.topic, Protocol=self.protocol, Endpoint=self.url, ReturnSubscriptionArn=True
            )["SubscriptionArn"]
            known = sns.get_subscription_attributes(SubscriptionArn=subscription)["Attributes"]
            if known.get("RawMessageDelivery", "").lower() == "true":  # raw messages carry no signature
                sns.set_subscription_attributes(
                    SubscriptionArn=subscription, AttributeName="RawMessageDelivery", AttributeValue="false"
                )
        self._confirmed = known.get("PendingConfirmation", "").lower() != "true"
        self.say(f"{self.topic} is signed with SHA-256 and delivers to {self.url}: {subscription}")

    def _publish(self, session: boto3.Session) -> str:
        """The id of a message like that of an alarm which has gone to OK: it opens nothing."""
        account = self.topic.split(":")[4]
        alarm = {
            "AlarmName": TEST_ALARM,
            "AlarmArn": f"arn:{self.partition}:cloudwatch:{self.region}:{account}:alarm:{TEST_ALARM}",
            "AWSAccountId": account,
            "OldStateValue": "INSUFFICIENT_DATA",
            "NewStateValue": "OK",
            "NewStateReason": "autopilot connect sent this to see it arrive",
            "StateChangeTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "Trigger": {  # its dimension stands for a service
                "MetricName": "Test",
                "Namespace": "Autopilot",
                "Dimensions": [{"name": "Test", "value": TEST_ALARM}],
            },
        }
        with closing(self._client(session)) as sns:
            message: str = sns.publish(TopicArn=self.topic, Message=json.dumps(alarm))["MessageId"]
            return message

    # --- by hand ---

    def _say_what_to_paste(self) -> None:
        self.say(
            "There are no AWS credentials here, so this is for you to paste.\n\n"
            "CloudWatch alarms through SNS. First into .env, then start `autopilot serve` again, with a worker: it"
            " confirms the subscription.\n\n"
            f"{self._listed()}\n\n"
            "Then, with raw message delivery off, as it is unless turned on:\n\n"
            + "\n".join(self._sns_commands())
            + "\n\nCloudWatch alarms and changes of ECS, CodeDeploy and AWS Health through EventBridge, instead of SNS"
            " or beside it. KEY is "
            + (f"the first value of {KEYS}" if self.event_keys else f"new; put it into .env as {KEYS} too")
            + ":\n\n"
            + "\n".join(self._eventbridge_commands())
        )

    def _sns_commands(self) -> list[str]:
        topic = ("--region", self.region, "--topic-arn", self.topic)
        attribute = ("--attribute-name", "SignatureVersion", "--attribute-value", "2")
        endpoint = ("--protocol", self.protocol, "--notification-endpoint", self.url)
        return [
            shlex.join(("aws", "sns", "set-topic-attributes", *topic, *attribute)),
            shlex.join(("aws", "sns", "subscribe", *topic, *endpoint)),
        ]

    def _eventbridge_commands(self) -> list[str]:
        kinds = eventbridge._READERS
        pattern = {"source": sorted({s for s, _ in kinds}), "detail-type": sorted({t for _, t in kinds})}
        trust = _policy({"Principal": {"Service": "events.amazonaws.com"}, "Action": "sts:AssumeRole"})
        # the parts in double quotes hold the variables of the lines above
        return [
            "read -rs KEY" if self.event_keys else "KEY=$(openssl rand -hex 24); echo $KEY",
            f"CONNECTION=$(aws events create-connection --region {self.region} --name autopilot --authorization-type"
            " API_KEY --auth-parameters"
            ' "{\\"ApiKeyAuthParameters\\":{\\"ApiKeyName\\":\\"X-Api-Key\\",\\"ApiKeyValue\\":\\"$KEY\\"}}"'
            " --query ConnectionArn --output text)",
            f"DESTINATION=$(aws events create-api-destination --region {self.region} --name autopilot"
            f' --connection-arn "$CONNECTION" --invocation-endpoint {shlex.quote(self.events_url)} --http-method POST'
            " --query ApiDestinationArn --output text)",
            "ROLE=$(aws iam create-role --role-name autopilot-events --assume-role-policy-document"
            f" {shlex.quote(trust)} --query Role.Arn --output text)",
            "aws iam put-role-policy --role-name autopilot-events --policy-name invoke --policy-document"
            ' "{\\"Version\\":\\"2012-10-17\\",\\"Statement\\":[{\\"Effect\\":\\"Allow\\",'
            '\\"Action\\":\\"events:InvokeApiDestination\\",\\"Resource\\":\\"$DESTINATION\\"}]}"',
            f"aws events put-rule --region {self.region} --name autopilot --event-pattern"
            f" {shlex.quote(json.dumps(pattern))}",
            f"aws events put-targets --region {self.region} --rule autopilot --targets"
            ' "Id=autopilot,Arn=$DESTINATION,RoleArn=$ROLE"',
        ]


def _policy(statement: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


def _refused(error: ClientError | BotoCoreError, topic: str) -> ConnectError:
    return ConnectError(
        f"AWS: {error}. The credentials need sns:SetTopicAttributes, sns:Subscribe, sns:GetSubscriptionAttributes,"
        f" sns:SetSubscriptionAttributes and sns:Publish on {topic}."
    )
