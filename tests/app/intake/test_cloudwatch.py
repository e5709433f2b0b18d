"""CloudWatch alarms as SNS delivers them, and as CloudWatch tells of them when asked."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import boto3
import httpx
import pytest
from botocore.stub import Stubber
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer
from pydantic import ValidationError

from app.intake import cloudwatch
from app.intake._alarms import alert_of, from_message
from app.intake._sns import Certificates
from app.intake.base import (
    Directory,
    Incoming,
    IntakeUnavailable,
    Job,
    NotAllowed,
    Parsed,
    Unauthentic,
    UnreadablePayload,
)
from app.intake.cloudwatch import Cloudwatch, Connect, Settings
from collectors.base import EcsService
from graph.catalogue import Catalogue, LoadBalancer, Service
from graph.state import Alert
from tests.app.intake.test_sns import FOLDER, NAME, NOTIFICATION, SUBSCRIPTION, TOPIC, UNSUBSCRIPTION, Amazon, Message

FIXTURES = Path(__file__).parent / "fixtures" / "cloudwatch"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
BALANCER = "arn:aws:elasticloadbalancing:eu-west-1:123456789000:"


def behind(balancer: str, target_group: str) -> LoadBalancer:
    return LoadBalancer(
        listener_rule_arn=f"{BALANCER}listener-rule/{balancer}/f2f7dc8efc522ab2/9683b2d02a6cabee",
        target_group_arn=f"{BALANCER}targetgroup/{target_group}",
    )


DIRECTORY = Directory(
    Catalogue(
        services={
            "web-gateway": Service(load_balancer=behind("app/shop/50dc6c495c0c9188", "web/73e2d6bc24d8a067")),
            "payment": Service(),
            "payment-service": Service(
                ecs=EcsService(cluster="shop", service="payment"),
                load_balancer=behind("app/shop/50dc6c495c0c9188", "payment-service/6d0ecf831eec9f09"),
            ),
            "checkout": Service(ecs=EcsService(cluster="shop", service="checkout")),
            "orders": Service(resources=("QueueName:orders.fifo",)),
        }
    )
)


@pytest.fixture
def amazon() -> Amazon:
    return Amazon(KEY)


def client(service: str, region: str, url: str | None = None) -> Any:
    """Of boto3, with keys of its own."""
    session: Any = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=region)
    return session.client(service, endpoint_url=url)


def nowhere(region: str | None) -> None:
    """No AWS credentials are set."""


def sender(amazon: Amazon, connect: Connect = nowhere, **settings: object) -> Cloudwatch:
    given = Settings.model_validate({"topic_arns": (TOPIC,), **settings})
    return Cloudwatch(given, amazon.certificates, connect)


def delivery(message: Message, **headers: str) -> Incoming:
    return Incoming({"content-type": "text/plain; charset=UTF-8", **headers}, json.dumps(message).encode())


def notification(alarm: object) -> Message:
    return NOTIFICATION | {"Message": alarm if isinstance(alarm, str) else json.dumps(alarm), "Signature": ""}


def parse(message: Message) -> Parsed:
    return sender(Amazon(KEY)).parse(delivery(message), DIRECTORY)


def load(name: str) -> dict[str, object]:
    loaded: dict[str, object] = json.loads((FIXTURES / f"{name}.json").read_text())
    return loaded


def alert(name: str) -> Alert:
    (found,) = parse(notification(load(name))).alerts
    return found


# --- alarms ---

AT = datetime(2025, 8, 13, 8, 8, 23, 374000, tzinfo=UTC)


class Expected(NamedTuple):
    service: str
    title: str
    watched: Mapping[str, str]
    words: str
    transition: str = "firing"
    at: datetime = AT


QUEUE = {"QueueName": "orders.fifo"}
TABLE = {
    "metric": Expected(
        "orders", "dlq", QUEUE,
        "SUM of AWS/SQS ApproximateNumberOfMessagesVisible in 60 s >= 1.0 for 1 of 1 datapoints",
    ),
    "ok": Expected("orders", "dlq", QUEUE, "no datapoints were received", "resolved", AT + timedelta(minutes=12)),
    "insufficient_data": Expected(
        "orders", "dlq", QUEUE, "Insufficient Data", "insufficient_data", AT + timedelta(minutes=7)
    ),
    "percentile": Expected(
        "payment-service", "latency-p99",
        {"LoadBalancer": "app/shop/50dc6c495c0c9188", "TargetGroup": "targetgroup/payment-service/6d0ecf831eec9f09"},
        "p99 of AWS/ApplicationELB TargetResponseTime in 60 s > 2.5 for 3 of 5 datapoints",
    ),
    "math": Expected(
        "checkout", "error-ratio", {"ServiceName": "checkout", "ClusterName": "shop"}, "100 * m2 / m1 > 5.0"
    ),
    "anomaly": Expected(
        "checkout", "checkout-cpu-unusual", {"ClusterName": "c"}, "ANOMALY_DETECTION_BAND(m1, 2) outside ad1"
    ),
    "composite": Expected(
        "payment-service", "payment-service-degraded", {},
        "Alarm rule: ALARM(latency-p99) OR ALARM(error-ratio). Set off by latency-p99",
    ),
    "composite_plain_children": Expected("web-gateway", "edge", {}, "Set off by latency-p99"),
    "log": Expected(
        "payment-service", "errors-in-logs", {"LogGroup": "/ecs/payment-service"},
        "the query on /ecs/payment-service: filter level = 'ERROR' | fields @timestamp, @message, count(*) > 5.0"
        " for 1 of 1 datapoints",
    ),
    "china": Expected("orders", "订单 dlq/1", QUEUE, ">= 1.0"),
}  # fmt: skip


def test_every_fixture_is_expected() -> None:
    assert {f.stem for f in FIXTURES.glob("*.json")} == set(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_the_kinds_of_alarm(name: str) -> None:
    expected, found, arn = TABLE[name], alert(name), str(load(name)["AlarmArn"])
    region, account = arn.split(":")[3:5]
    assert (found.service, found.title, found.transition) == (expected.service, expected.title, expected.transition)
    assert found.resources == {**expected.watched, "aws.account": account, "aws.region": region}
    assert found.rule == found.fingerprint == found.cycle_key == f"cloudwatch:{arn}"
    assert found.changed_at == found.occurred_at == expected.at
    assert expected.words in found.text
    assert (found.source, found.severity, found.environment) == ("cloudwatch", "critical", "")


def test_the_link_opens_the_alarm_in_the_console_of_its_partition() -> None:
    console = "https://eu-west-1.console.aws.amazon.com/cloudwatch/home?region=eu-west-1"
    assert alert("metric").url == f"{console}#alarmsV2:alarm/dlq"
    chinese = "https://cn-north-1.console.amazonaws.cn/cloudwatch/home?region=cn-north-1"
    assert alert("china").url == f"{chinese}#alarmsV2:alarm/%E8%AE%A2%E5%8D%95%20dlq%2F1"


def test_a_delivery_is_known_again_by_its_message_id() -> None:
    assert parse(notification(load("metric"))).delivery_key == f"cloudwatch:sns:{NOTIFICATION['MessageId']}"


def test_a_shared_load_balancer_says_less_than_the_alarms_name() -> None:
    shared = {
        "Trigger": {"MetricName": "5xx", "Dimensions": [{"name": "LoadBalancer", "value": "app/shop/50dc6c495c0c9188"}]}
    }
    assert alert_of(from_message(load("composite") | shared), DIRECTORY).service == "payment-service"
    unnamed = load("metric") | shared
    assert alert_of(from_message(unnamed), DIRECTORY).service == "web-gateway"


def test_a_name_that_is_not_listed_comes_after_a_resource_that_is() -> None:
    listed = {"host": "i-1", "QueueName": "orders.fifo"}
    assert DIRECTORY.service_for("orders-worker", listed, "checkout") == "orders"
    assert (
        DIRECTORY.service_for("orders-worker", {"ClusterName": "shop", "ServiceName": "payment"}) == "payment-service"
    )
    assert DIRECTORY.service_for("orders-worker", {"app": "checkout"}) == "orders-worker"
    assert DIRECTORY.service_for("checkout", listed) == "checkout"
    assert DIRECTORY.service_for("orders-worker", {"host": "checkout-1"}, "checkout is slow") == "orders-worker"
    tagged = Directory(Catalogue(services={"shop": Service(datadog_tags=("service:web",)), "orders": Service()}))
    assert tagged.service_for("web", {"host": "orders"}) == "shop"


def test_a_service_that_is_not_listed_goes_by_its_own_name_and_not_by_its_clusters() -> None:
    dimensions = [{"name": "ClusterName", "value": "main"}, {"name": "ServiceName", "value": "search"}]
    unlisted = load("metric") | {"Trigger": {"MetricName": "CPUUtilization", "Dimensions": dimensions}}
    assert alert_of(from_message(unlisted), DIRECTORY).service == "search"


def test_long_names_and_many_dimensions_are_bounded() -> None:
    dimensions = [{"name": f"d{n}", "value": "v" * 300} for n in range(30)]
    arn = f"arn:aws:cloudwatch:eu-west-1:123456789000:alarm:{'a' * 255}"
    found = alert_of(
        from_message(load("metric") | {"AlarmArn": arn, "Trigger": {"MetricName": "m", "Dimensions": dimensions}}),
        DIRECTORY,
    )
    assert (len(found.resources), len(found.resources["d0"]), len(found.service)) == (20, 200, 200)
    assert len(found.cycle_key) <= 200
    assert found.cycle_key == found.fingerprint == found.rule


def test_an_alarm_that_names_no_service_says_what_to_add() -> None:
    nameless = load("composite") | {"AlarmName": "everything"}
    with pytest.raises(UnreadablePayload, match="resources:"):
        parse(notification(nameless))


@pytest.mark.parametrize(
    "message",
    [
        "hello",
        "",
        "[]",
        "{}",
        json.dumps({"AlarmName": "a", "NewStateValue": "ALARM"}),
        json.dumps({"AlarmArn": "arn:aws:cloudwatch:eu-west-1:123456789000:alarm:a", "NewStateValue": "FINE"}),
        json.dumps({"AlarmArn": "arn:aws:sns:eu-west-1:123456789000:a", "NewStateValue": "ALARM"}),
        '{"a":' * 5000,
    ],
)
def test_what_a_person_or_another_service_publishes_is_a_dead_letter(message: str) -> None:
    with pytest.raises(UnreadablePayload):
        parse(notification(message))


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def distorted(draw: st.DrawFn, payload: object) -> object:
    """The payload with anything in some of its places."""
    if draw(st.integers(0, 5)) == 0:
        return draw(ANYTHING)
    if isinstance(payload, dict):
        return {key: draw(distorted(value)) for key, value in payload.items()}
    if isinstance(payload, list):
        return [draw(distorted(value)) for value in payload]
    return payload


def stays_readable(read: object) -> None:
    """What was made of it can be stored: Postgres takes no NUL and no half of a surrogate pair."""
    assert "\\u0000" not in json.dumps(read)
    json.dumps(read, ensure_ascii=False).encode()


@settings(deadline=None)
@given(st.sampled_from(sorted(TABLE)).map(load).flatmap(distorted))
def test_whatever_an_alarm_holds_is_read_or_is_a_dead_letter(payload: object) -> None:
    try:
        parsed = parse(notification(json.dumps(payload)))
    except UnreadablePayload:
        return
    (found,) = parsed.alerts
    stays_readable(found.model_dump(mode="json"))
    assert len(found.resources) <= 20
    assert len(found.cycle_key) <= 200


# --- who may send ---


async def test_a_signed_message_of_a_known_topic(amazon: Amazon) -> None:
    await sender(amazon).verify(delivery(amazon.sign(NOTIFICATION)))
    assert amazon.requests == [FOLDER + NAME]


async def test_a_tampered_subject(amazon: Amazon) -> None:
    with pytest.raises(Unauthentic):
        await sender(amazon).verify(delivery(amazon.sign(NOTIFICATION) | {"Subject": "OK"}))


@pytest.mark.parametrize(
    "topic", ["arn:aws:sns:us-west-2:999999999999:alarms", TOPIC + "2", TOPIC.upper(), "", "x\x00", f" {TOPIC}"]
)
async def test_a_foreign_topic_is_turned_away_before_any_request(amazon: Amazon, topic: str) -> None:
    with pytest.raises(NotAllowed, match="AUTOPILOT_CLOUDWATCH_TOPIC_ARNS"):
        await sender(amazon).verify(delivery(amazon.sign(NOTIFICATION | {"TopicArn": topic})))
    assert amazon.requests == []


async def test_no_topics_no_sender(amazon: Amazon) -> None:
    with pytest.raises(Unauthentic, match="AUTOPILOT_CLOUDWATCH_TOPIC_ARNS is not set"):
        await sender(amazon, topic_arns=()).verify(delivery(amazon.sign(NOTIFICATION)))


async def test_raw_delivery_has_no_signature(amazon: Amazon) -> None:
    raw = Incoming({"x-amz-sns-rawdelivery": "true"}, json.dumps(load("metric")).encode())
    with pytest.raises(Unauthentic, match="RawMessageDelivery"):
        await sender(amazon).verify(raw)


@pytest.mark.parametrize("field", ["Signature", "SignatureVersion", "SigningCertURL", "TopicArn", "Timestamp"])
async def test_an_envelope_with_a_part_missing(amazon: Amazon, field: str) -> None:
    signed = amazon.sign(NOTIFICATION)
    with pytest.raises(Unauthentic, match=field):
        await sender(amazon).verify(delivery({k: v for k, v in signed.items() if k != field}))
    assert amazon.requests == []


async def test_sha1_by_setting(amazon: Amazon) -> None:
    signed = delivery(amazon.sign(NOTIFICATION | {"SignatureVersion": "1"}))
    with pytest.raises(Unauthentic):
        await sender(amazon).verify(signed)
    await sender(amazon, accept_sha1=True).verify(signed)


async def test_another_name_of_the_certificate_by_setting(amazon: Amazon) -> None:
    signed = delivery(amazon.sign(NOTIFICATION | {"SigningCertURL": FOLDER + "sns_2027-a.pem"}))
    with pytest.raises(Unauthentic, match="SigningCertURL"):
        await sender(amazon).verify(signed)
    assert amazon.requests == []
    await sender(amazon, any_certificate_name=True).verify(signed)
    assert amazon.requests == [FOLDER + "sns_2027-a.pem"]


@pytest.mark.parametrize(
    "url",
    ["https://evil.io/a.pem", FOLDER + "a/b.pem", FOLDER + "../a.pem", FOLDER + "a.pem?x", FOLDER + "é.pem", FOLDER],
)
async def test_its_place_is_no_matter_of_settings(amazon: Amazon, url: str) -> None:
    with pytest.raises(Unauthentic, match="SigningCertURL"):
        await sender(amazon, any_certificate_name=True).verify(
            delivery(amazon.sign(NOTIFICATION | {"SigningCertURL": url}))
        )
    assert amazon.requests == []


def test_a_wrong_arn_in_the_settings_is_told_at_start() -> None:
    with pytest.raises(ValidationError, match="no topic's ARN"):
        Settings.model_validate({"topic_arns": "alarms"})
    assert Settings.model_validate({"topic_arns": f"{TOPIC}, {TOPIC}.fifo"}).topic_arns == (TOPIC, f"{TOPIC}.fifo")


# --- subscriptions ---


class Received(NamedTuple):
    headers: dict[str, str]
    body: bytes


@contextmanager
def server(status: int, answer: str) -> Iterator[tuple[str, "Queue[Received]"]]:
    """Answers every POST alike, and hands over what came."""
    came: Queue[Received] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer.encode())
            came.put(Received({name.lower(): value for name, value in self.headers.items()}, body))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Not into the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", came
        http.shutdown()


CONFIRMED = (
    '<ConfirmSubscriptionResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><ConfirmSubscriptionResult>'
    f"<SubscriptionArn>{TOPIC}:68762e72</SubscriptionArn></ConfirmSubscriptionResult></ConfirmSubscriptionResponse>"
)


def refusal(code: str) -> str:
    return f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>no</Message></Error></ErrorResponse>"


async def test_a_subscription_is_confirmed_by_the_api_and_never_by_the_link(amazon: Amazon) -> None:
    with server(200, CONFIRMED) as (url, came):
        receiver = sender(amazon, endpoint_url=url)
        incoming = delivery(amazon.sign(SUBSCRIPTION | {"SubscribeURL": url}))
        await receiver.verify(incoming)
        parsed = receiver.parse(incoming, DIRECTORY)
        assert parsed.jobs == (Job(sender="cloudwatch", arguments={"confirm": TOPIC, "token": SUBSCRIPTION["Token"]}),)
        assert came.empty()
        assert amazon.requests == [FOLDER + NAME]
        done = await receiver.perform(parsed.jobs[0].arguments, DIRECTORY)
        request = came.get(timeout=5)
    assert done.note == f"subscription to {TOPIC} confirmed"
    sent = parse_qs(request.body.decode())
    assert (sent["Action"], sent["TopicArn"]) == (["ConfirmSubscription"], [TOPIC])
    assert sent["Token"] == [SUBSCRIPTION["Token"]]
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (400, "InvalidParameter", UnreadablePayload),
        (404, "NotFound", UnreadablePayload),
        (403, "AuthorizationError", IntakeUnavailable),
    ],
)
async def test_a_spent_token_is_not_tried_again(
    amazon: Amazon, status: int, code: str, raised: type[Exception]
) -> None:
    with server(status, refusal(code)) as (url, _), pytest.raises(raised):
        await sender(amazon, endpoint_url=url).perform({"confirm": TOPIC, "token": "t"}, DIRECTORY)


async def test_a_topic_taken_off_the_list_is_not_confirmed(amazon: Amazon) -> None:
    with server(200, CONFIRMED) as (url, came), pytest.raises(UnreadablePayload, match="TOPIC_ARNS"):
        await sender(amazon, endpoint_url=url).perform({"confirm": TOPIC + "2", "token": "t"}, DIRECTORY)
    assert came.empty()


def test_an_unsubscription_is_told_and_not_undone(amazon: Amazon, caplog: pytest.LogCaptureFixture) -> None:
    parsed = parse(amazon.sign(UNSUBSCRIPTION))
    assert (parsed.alerts, parsed.jobs) == ((), ())
    assert "has ended" in parsed.note
    assert "has ended" in caplog.text


def test_a_confirmation_without_token() -> None:
    with pytest.raises(UnreadablePayload):
        parse({k: v for k, v in SUBSCRIPTION.items() if k != "Token"} | {"Signature": ""})


# --- asking CloudWatch ---

CHANGED = datetime(2025, 8, 13, 8, 8, 23, tzinfo=UTC)
METRIC_ROW = {
    "AlarmName": "dlq",
    "AlarmArn": "arn:aws:cloudwatch:eu-west-1:123456789000:alarm:dlq",
    "StateValue": "ALARM",
    "StateReason": "Threshold Crossed",
    "StateUpdatedTimestamp": CHANGED + timedelta(minutes=3),
    "StateTransitionedTimestamp": CHANGED,
    "MetricName": "ApproximateNumberOfMessagesVisible",
    "Namespace": "AWS/SQS",
    "Statistic": "Sum",
    "Dimensions": [{"Name": "QueueName", "Value": "orders.fifo"}],
    "Period": 60,
    "EvaluationPeriods": 1,
    "Threshold": 1.0,
    "ComparisonOperator": "GreaterThanOrEqualToThreshold",
    "AlarmActions": ["arn:aws:sns:eu-west-1:123456789000:on-call"],
}
COMPOSITE_ROW = {
    "AlarmName": "edge",
    "AlarmArn": "arn:aws:cloudwatch:eu-west-1:123456789000:alarm:edge",
    "AlarmDescription": "All of web-gateway",
    "AlarmRule": "ALARM(latency-p99)",
    "AlarmActions": ["arn:aws:lambda:eu-west-1:123456789000:function:page"],
    "StateValue": "ALARM",
    "StateUpdatedTimestamp": CHANGED,
}
LOG_ROW = {
    "AlarmName": "errors-in-logs",
    "AlarmArn": "arn:aws:cloudwatch:eu-west-1:123456789000:alarm:errors-in-logs",
    "AlarmActions": ["arn:aws:sns:eu-west-1:123456789000:on-call"],
    "StateValue": "ALARM",
    "StateTransitionedTimestamp": CHANGED,
    "ScheduledQueryConfiguration": {
        "QueryString": "filter level = 'ERROR'",
        "LogGroupIdentifiers": ["/ecs/payment-service"],
        "AggregationExpression": "count(*)",
        "ScheduledQueryRoleARN": "arn:aws:iam::123456789000:role/log-alarm",
        "ScheduleConfiguration": {"ScheduleExpression": "rate(1 minute)", "StartTimeOffset": 60},
    },
}
ALL_TYPES = ["MetricAlarm", "CompositeAlarm", "LogAlarm"]


class Asked(NamedTuple):
    stub: Stubber
    regions: list[str | None]
    connect: Connect


@pytest.fixture
def asked() -> Iterator[Asked]:
    """A client that answers as told; every answer has to be used."""
    stubbed, regions = client("cloudwatch", "eu-west-1"), list[str | None]()

    def connect(region: str | None) -> Any:
        regions.append(region)
        return stubbed

    with Stubber(stubbed) as stub:
        yield Asked(stub, regions, connect)
        stub.assert_no_pending_responses()


async def test_what_is_in_alarm_now(amazon: Amazon, asked: Asked) -> None:
    nameless = COMPOSITE_ROW | {"AlarmDescription": ""}
    question = {"StateValue": "ALARM", "AlarmTypes": ALL_TYPES, "MaxRecords": 100}
    asked.stub.add_response("describe_alarms", {"MetricAlarms": [METRIC_ROW], "NextToken": "2"}, question)
    rest = {"CompositeAlarms": [COMPOSITE_ROW, nameless], "LogAlarms": [LOG_ROW]}
    asked.stub.add_response("describe_alarms", rest, question | {"NextToken": "2"})
    parsed = await sender(amazon, asked.connect).missed(DIRECTORY)
    assert parsed
    assert [(a.service, a.changed_at, a.transition) for a in parsed.alerts] == [
        ("orders", CHANGED, "firing"),
        ("web-gateway", CHANGED, "firing"),
        ("payment-service", CHANGED, "firing"),
    ]
    assert parsed.alerts[0].cycle_key == alert("metric").cycle_key
    assert "Sum of AWS/SQS ApproximateNumberOfMessagesVisible in 60 s >= 1.0" in parsed.alerts[0].text
    assert parsed.note == "1 alarms in ALARM name no service"


SCALING = "arn:aws:autoscaling:eu-west-1:123456789000:scalingPolicy:1:resource/ecs/service/shop/web:policyName/up"


async def test_an_alarm_without_actions_is_missed_where_eventbridge_tells_of_alarms(
    amazon: Amazon, asked: Asked
) -> None:
    rows = [METRIC_ROW | {"AlarmActions": []}, METRIC_ROW | {"AlarmActions": [SCALING]}]
    asked.stub.add_response("describe_alarms", {"MetricAlarms": rows})
    settings = sender(amazon, asked.connect).settings
    parsed = await Cloudwatch(settings, Certificates(), asked.connect, by_event=True).missed(DIRECTORY)
    assert parsed
    assert (len(parsed.alerts), parsed.note) == (1, "1 alarms in ALARM notify nobody")


@pytest.mark.parametrize(
    "silent",
    [
        METRIC_ROW | {"ActionsEnabled": False},
        METRIC_ROW | {"AlarmActions": []},
        METRIC_ROW | {"AlarmActions": [SCALING, SCALING.replace("arn:aws:", "arn:aws-cn:")]},
        COMPOSITE_ROW | {"ActionsSuppressedBy": "Alarm"},
        {key: value for key, value in METRIC_ROW.items() if key != "AlarmActions"},
    ],
    ids=["disabled", "no action", "scaling only", "suppressed", "unsaid"],
)
async def test_an_alarm_that_notifies_nobody_is_not_missed(
    amazon: Amazon, asked: Asked, silent: dict[str, object]
) -> None:
    kind = "CompositeAlarms" if "AlarmRule" in silent else "MetricAlarms"
    both = METRIC_ROW | {"AlarmActions": [SCALING, TOPIC], "ActionsEnabled": True}
    asked.stub.add_response("describe_alarms", {kind: [silent], "LogAlarms": [LOG_ROW]})
    asked.stub.add_response("describe_alarms", {"MetricAlarms": [both]})
    parsed = await sender(amazon, asked.connect).missed(DIRECTORY)
    assert parsed
    assert ([a.title for a in parsed.alerts], parsed.note) == (["errors-in-logs"], "1 alarms in ALARM notify nobody")
    heard = await sender(amazon, asked.connect).missed(DIRECTORY)
    assert heard
    assert ([a.title for a in heard.alerts], heard.note) == (["dlq"], "")


async def test_no_more_than_a_bounded_number_is_read(amazon: Amazon, asked: Asked) -> None:
    page = {"MetricAlarms": [METRIC_ROW] * cloudwatch.PAGE}
    for number in range(cloudwatch.PAGES):
        asked.stub.add_response("describe_alarms", page | {"NextToken": str(number)})
    parsed = await sender(amazon, asked.connect).missed(DIRECTORY)
    assert parsed
    assert (len(parsed.alerts), parsed.note) == (2000, "only the first 2000 alarms were read")


@pytest.mark.parametrize(
    "arguments", [{"alarm_arn": METRIC_ROW["AlarmArn"]}, {"alarm_name": "dlq", "region": "eu-west-1"}]
)
async def test_one_alarm_is_read_again(amazon: Amazon, asked: Asked, arguments: dict[str, str]) -> None:
    question = {"AlarmNames": ["dlq"], "AlarmTypes": ALL_TYPES}
    asked.stub.add_response("describe_alarms", {"MetricAlarms": [METRIC_ROW | {"StateValue": "OK"}]}, question)
    (found,) = (await sender(amazon, asked.connect).perform(arguments, DIRECTORY)).alerts
    assert (found.service, found.transition, found.cycle_key) == ("orders", "resolved", alert("ok").cycle_key)
    assert asked.regions == ["eu-west-1"]


async def test_an_alarm_of_the_same_name_in_another_account_is_another_alarm(amazon: Amazon, asked: Asked) -> None:
    asked.stub.add_response("describe_alarms", {"MetricAlarms": [METRIC_ROW]})
    foreign = str(METRIC_ROW["AlarmArn"]).replace("123456789000", "999999999999")
    with pytest.raises(UnreadablePayload, match="no such alarm"):
        await sender(amazon, asked.connect).perform({"alarm_arn": foreign}, DIRECTORY)


async def test_a_refusal_names_the_permission(amazon: Amazon, asked: Asked) -> None:
    asked.stub.add_client_error("describe_alarms", "AccessDenied", http_status_code=403)
    with pytest.raises(IntakeUnavailable, match="cloudwatch:DescribeAlarms"):
        await sender(amazon, asked.connect).missed(DIRECTORY)


async def test_without_credentials_nothing_is_asked(amazon: Amazon, caplog: pytest.LogCaptureFixture) -> None:
    def broken(region: str | None) -> None:
        raise ValueError("AUTOPILOT_AWS_PROFILE names no AWS profile: ops")

    assert await sender(amazon).missed(DIRECTORY) is None
    assert await sender(amazon, broken).missed(DIRECTORY) is None
    assert "AUTOPILOT_AWS_PROFILE" in caplog.text
    with pytest.raises(UnreadablePayload, match="AUTOPILOT_AWS_REGION"):
        await sender(amazon).perform({"alarm_arn": str(METRIC_ROW["AlarmArn"])}, DIRECTORY)
    with pytest.raises(UnreadablePayload, match="AUTOPILOT_AWS_PROFILE"):
        await sender(amazon, broken).perform({"alarm_name": "dlq"}, DIRECTORY)


@pytest.mark.parametrize("arguments", [{}, {"alarm_arn": ""}, {"alarm_arn": "nonsense"}, {"other": "x"}])
async def test_a_job_that_is_none(amazon: Amazon, asked: Asked, arguments: dict[str, str]) -> None:
    with pytest.raises(UnreadablePayload):
        await sender(amazon, asked.connect).perform(arguments, DIRECTORY)


# --- against a real peer ---


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """An AWS that signs and delivers SNS for real."""
    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


def certificates_of(aws: str) -> Certificates:
    """Amazon's host, played by this server; it finds the service by the signature of the request."""
    scope = "AWS4-HMAC-SHA256 Credential=test/20250101/us-west-2/sns/aws4_request, SignedHeaders=host, Signature=0"

    async def fetch(request: httpx.Request) -> httpx.Response:
        assert request.url.host == "sns.us-west-2.amazonaws.com"
        async with httpx.AsyncClient(base_url=aws, headers={"Authorization": scope}) as client:
            answer = await client.get(request.url.path)
        return httpx.Response(answer.status_code, content=answer.content)

    return Certificates(httpx.MockTransport(fetch))


def published(aws: str, message: str) -> Incoming:
    """What SNS makes of it on its way to an HTTP endpoint."""
    sns = client("sns", "us-west-2", aws)
    with server(200, "") as (url, came):
        topic = sns.create_topic(Name="alarms")["TopicArn"]
        assert topic == TOPIC
        subscription = sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=url)["SubscriptionArn"]
        sns.publish(TopicArn=topic, Message=message)  # moto leaves a Subject out of what it signs
        headers, body = came.get(timeout=10)
        sns.unsubscribe(SubscriptionArn=subscription)
    sns.close()
    return Incoming(headers, body)


async def test_what_sns_really_delivers(aws: str, amazon: Amazon) -> None:
    incoming = await asyncio.to_thread(published, aws, json.dumps(load("metric")))
    certificates = certificates_of(aws)
    receiver = Cloudwatch(Settings(topic_arns=(TOPIC,)), certificates, nowhere)
    await receiver.verify(incoming)
    (found,) = receiver.parse(incoming, DIRECTORY).alerts
    assert (found.service, found.title, found.transition) == ("orders", "dlq", "firing")
    forged = incoming.body.replace(b"orders.fifo", b"orders.fif0")
    assert forged != incoming.body
    with pytest.raises(Unauthentic):
        await receiver.verify(Incoming(incoming.headers, forged))
    await receiver.aclose()


async def test_an_alarm_read_back_from_aws(aws: str, amazon: Amazon) -> None:
    def connect(region: str | None) -> Any:
        return client("cloudwatch", region or "eu-west-1", aws)

    definition = {k: v for k, v in METRIC_ROW.items() if k != "AlarmArn" and not k.startswith("State")}
    with closing(connect(None)) as cloud:
        cloud.put_metric_alarm(**definition)
        cloud.set_alarm_state(AlarmName="dlq", StateValue="ALARM", StateReason="9 messages")
    receiver = sender(amazon, connect)
    missed = await receiver.missed(DIRECTORY)
    assert missed
    (found,) = missed.alerts
    assert (found.service, found.transition) == ("orders", "firing")
    assert found.text.startswith("9 messages")
    arn = found.cycle_key.removeprefix("cloudwatch:")
    assert (await receiver.perform({"alarm_arn": arn}, DIRECTORY)).alerts == missed.alerts


def test_without_a_region_there_is_no_reader() -> None:
    assert cloudwatch.reader(None) is None
