"""Slack's deliveries, as they really come: events, slash commands and clicks."""

import hashlib
import hmac
import json
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from slack_sdk.signature import Clock as WallClock

from app.catalogue import AutopilotYaml
from app.clock import VirtualClock
from app.intake import slack
from app.intake.base import Directory, Incoming, Parsed, Unauthentic, UnreadablePayload
from app.intake.slack import Settings, Slack
from graph.catalogue import Catalogue, Service

FIXTURES = Path(__file__).parent / "fixtures" / "slack"
SECRET = "test-signing-secret"
VECTOR = b'{"type":"url_verification","challenge":"abc"}'
VECTOR_SIGNATURE = "v0=150f3e2597227d90deb3d93af65b6450381ac5c2ff275a89b8daf98c8df38326"
SIGNED_AT = 1_700_000_000
NOW = "2024-12-20T09:17:00+00:00"
DIRECTORY = Directory(Catalogue(services={n: Service() for n in ("payment-service", "payment", "order queue", "db")}))


class At(WallClock):
    """The wall clock at one moment."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return self.seconds


def stopped(at: str) -> VirtualClock:
    """Practically so: a nanosecond in a second."""
    return VirtualClock(datetime.fromisoformat(at), time.time(), 1e-9)


def sender(
    *secrets: str, now: str = NOW, wall: float = SIGNED_AT, responders: str = "*", zone: str = "UTC", app: str = ""
) -> Slack:
    configured = Settings(
        signing_secrets=tuple(SecretStr(s) for s in secrets or (SECRET,)),
        responders=tuple(responders.split(",")) if responders else (),
        timezone=zone,
        app_id=app,
    )
    return Slack(configured, stopped(now), At(wall))


def fixture(name: str) -> bytes:
    return (FIXTURES / f"{name}.json").read_bytes()


def event(name: str, who: Slack | None = None) -> Parsed:
    return (who or sender()).parse(Incoming({}, fixture(name), "events"), DIRECTORY)


def command(text: str, who: Slack | None = None, **fields: str) -> Parsed:
    form = {
        "token": "",
        "team_id": "T0001",
        "channel_id": "C0ALERTS",
        "user_id": "U0BO",
        "user_name": "bo",
        "command": "/rca",
        "text": text,
        "api_app_id": "A0AUTOPILOT",
        "response_url": "https://hooks.slack.com/commands/T0001/1/x",
        "trigger_id": "13345224609.738474920.8088930838d88f008e0",
    }
    body = urlencode(form | fields).encode()
    return (who or sender()).parse(Incoming({}, body, "commands"), DIRECTORY)


def said(parsed: Parsed) -> str:
    """What the person reads who typed a command in vain."""
    assert not parsed.alerts
    assert parsed.answer is not None
    assert parsed.answer["response_type"] == "ephemeral"
    text = parsed.answer["text"]
    assert isinstance(text, str)
    return text


def moment(text: str, who: Slack | None = None) -> str:
    (alert,) = command(f"payment-service {text}", who).alerts
    return alert.occurred_at.isoformat()


# --- verify ---


def signed(body: bytes = VECTOR, timestamp: str = str(SIGNED_AT), secret: str = SECRET) -> dict[str, str]:
    digest = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"x-slack-request-timestamp": timestamp, "x-slack-signature": f"v0={digest}"}


async def verified(who: Slack, headers: Mapping[str, str], body: bytes = VECTOR, part: str = "events") -> bool:
    try:
        await who.verify(Incoming(headers, body, part))
    except Unauthentic:
        return False
    return True


async def test_the_known_signature() -> None:
    headers = {"x-slack-request-timestamp": str(SIGNED_AT), "x-slack-signature": VECTOR_SIGNATURE}
    assert await verified(sender(), headers)
    assert not await verified(sender(), headers, VECTOR + b" ")


@pytest.mark.parametrize(("skew", "valid"), [(-301, False), (-300, True), (300, True), (301, False)])
async def test_five_minutes_either_way(skew: int, valid: bool) -> None:
    assert await verified(sender(wall=SIGNED_AT + skew), signed()) is valid


async def test_a_signature_is_valid_by_the_real_time_whatever_the_operated_worlds() -> None:
    who = Slack(Settings(signing_secrets=(SecretStr(SECRET),)), stopped(NOW))
    assert await verified(who, signed(timestamp=str(int(time.time()))))
    assert not await verified(who, signed())


async def test_either_secret_while_rotating() -> None:
    rotating = sender("another-signing-secret", SECRET)
    assert await verified(rotating, signed())
    assert await verified(rotating, signed(secret="another-signing-secret"))
    assert not await verified(rotating, signed(secret="a-third-signing-secret"))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-slack-request-timestamp": str(SIGNED_AT)},
        {"x-slack-signature": VECTOR_SIGNATURE},
        signed(timestamp="soon"),
        signed(timestamp="1700000000.5"),
        signed(timestamp="-1700000000"),
        signed(timestamp="1" * 400),
        signed(timestamp="١٧٠٠٠٠٠٠٠٠"),
        signed() | {"x-slack-signature": "v0=é"},
    ],
)
async def test_malformed_headers_are_unauthentic(headers: dict[str, str]) -> None:
    assert not await verified(sender(), headers)


async def test_a_body_that_is_not_utf8_is_unauthentic() -> None:
    assert not await verified(sender(), signed(b"\xff"), b"\xff")


async def test_turned_off_without_a_secret() -> None:
    with pytest.raises(Unauthentic, match="AUTOPILOT_SLACK_SIGNING_SECRETS"):
        await Slack(Settings(), stopped(NOW)).verify(Incoming(signed(), VECTOR, "events"))


# --- events ---


def test_the_challenge_is_answered() -> None:
    challenge = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"
    assert event("url_verification").answer == {"challenge": challenge}


DATADOG = {"monitor_id": "141878267"}


@pytest.mark.parametrize(
    ("name", "target", "arguments"),
    [
        ("datadog_metadata", "datadog", DATADOG),
        ("datadog_title_link", "datadog", DATADOG),
        ("datadog_legacy_webhook", "datadog", {"monitor_id": "77"}),
        ("amazon_q_link", "cloudwatch", {"alarm_name": "payment 5xx (prod)", "region": "ap-northeast-2"}),
        (
            "amazon_q_arn",
            "cloudwatch",
            {"alarm_arn": "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:dlq not empty"},
        ),
        ("amazon_q_label", "cloudwatch", {"alarm_name": "dlq", "region": "eu-west-1"}),
        (
            "lambda_alarm_text",
            "cloudwatch",
            {"alarm_arn": "arn:aws:cloudwatch:us-east-1:123456789012:alarm:checkout-5xx"},
        ),
    ],
)
def test_what_an_app_announces_is_read_at_its_source(name: str, target: str, arguments: dict[str, str]) -> None:
    parsed = event(name)
    assert [(job.sender, job.arguments) for job in parsed.jobs] == [(target, arguments)]
    assert parsed.alerts == ()  # a message is a hint, never an alert
    assert parsed.delivery_key == f"slack:{json.loads(fixture(name))['event_id']}"


@pytest.mark.parametrize(
    ("monitor_id", "found"),
    [
        (141878267, "141878267"),
        (141878267.0, "141878267"),
        ("141878267", "141878267"),
        (None, "5"),
        (True, "5"),
        ([141878267], "5"),
        ("141878267 or 1=1", "5"),
        (float("nan"), "5"),
    ],
)
def test_metadata_is_surer_than_a_link(monitor_id: object, found: str) -> None:
    payload = json.loads(fixture("datadog_metadata"))
    payload["event"]["attachments"][0]["title_link"] = "https://app.datadoghq.com/monitors/5"
    payload["event"]["metadata"]["event_payload"]["monitor_id"] = monitor_id
    parsed = sender().parse(Incoming({}, json.dumps(payload).encode(), "events"), DIRECTORY)
    assert [job.arguments for job in parsed.jobs] == [{"monitor_id": found}]


@pytest.mark.parametrize("text", ["Alarm: {}.", "`{}`", "*{}*, twice: {}", "({})", '{{"AlarmArn":"{}"}}', "<{}>"])
def test_where_an_arn_ends(text: str) -> None:
    arn = "arn:aws:cloudwatch:us-east-1:123456789012:alarm:team/checkout-5xx.p99"
    payload = json.loads(fixture("bot_without_alert"))
    payload["event"]["text"] = text.format(arn, arn)
    parsed = sender().parse(Incoming({}, json.dumps(payload).encode(), "events"), DIRECTORY)
    assert [job.arguments for job in parsed.jobs] == [{"alarm_arn": arn}]


@pytest.mark.parametrize(
    ("link", "found"),
    [
        (
            "https://us-west-2.console.aws.amazon.com/cloudwatch/home#alarmsV2:alarm/cpu?~()",
            {"alarm_name": "cpu", "region": "us-west-2"},
        ),
        (
            "https://console.aws.amazon.com/cloudwatch/deeplink.js?region=us-east-1#alarmsV2:alarm/API%20Gateway%205xx",
            {"alarm_name": "API Gateway 5xx", "region": "us-east-1"},
        ),
        (
            "https://console.aws.amazon.com/cloudwatch/home?a=b&amp;region=eu-west-1#s=Alarms&amp;alarm=dlq",
            {"alarm_name": "dlq", "region": "eu-west-1"},
        ),
        (
            "https://cn-north-1.console.amazonaws.cn/cloudwatch/home?region=cn-north-1#alarm:name=team%2Fcpu",
            {"alarm_name": "team/cpu", "region": "cn-north-1"},
        ),
        ("https://us3.datadoghq.com/monitors/5?x=y", {"monitor_id": "5"}),
        ("https://app.datadoghq.eu/monitors#status?id=6", {"monitor_id": "6"}),
        ("https://console.aws.amazon.com/cloudwatch/home#alarmsV2:alarm/of-no-region", None),
        ("https://console.aws.amazon.com.evil.io/cloudwatch/home?region=eu-west-1#alarmsV2:alarm/cpu", None),
        ("https://app.datadoghq.com.evil.io/monitors/5", None),
        ("https://app.datadoghq.com/monitors/manage", None),
    ],
)
def test_spellings_of_a_link(link: str, found: dict[str, str] | None) -> None:
    payload = json.loads(fixture("bot_without_alert"))
    payload["event"]["text"] = f"ALERT *<{link}|open | now>*"
    parsed = sender().parse(Incoming({}, json.dumps(payload).encode(), "events"), DIRECTORY)
    assert [job.arguments for job in parsed.jobs] == ([found] if found else [])


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("bot_without_alert", "no alert found in it"),
        ("own_echo", "our own message"),
        ("message_changed", "not a new message"),
        ("message_deleted", "not a new message"),
        ("person", "a person's message"),
    ],
)
def test_what_is_stored_and_no_more(name: str, note: str) -> None:
    parsed = event(name)
    assert (parsed.alerts, parsed.jobs, parsed.answer, parsed.note) == ((), (), None, note)


PERSON = {"user": "U0BO", "text": "the password is hunter2"}
BOT = {"bot_id": "B0CI", "text": "deployed"}


@pytest.mark.parametrize(
    ("changes", "private"),
    [
        ({"subtype": "message_changed", "message": PERSON, "previous_message": PERSON}, True),
        ({"subtype": "message_changed", "message": BOT, "previous_message": PERSON}, True),
        ({"subtype": "message_deleted", "previous_message": PERSON}, True),
        ({"subtype": "message_replied", "message": PERSON}, True),
        ({"subtype": "message_changed", "message": "no message"}, True),
        ({"subtype": "me_message", **PERSON}, True),
        ({"subtype": "channel_topic", **PERSON}, True),
        ({"edited": {"user": "U0BO", "ts": "1721656900.000100"}, **PERSON}, True),
        ({"type": "app_mention", "edited": {"user": "U0BO"}, **PERSON}, True),
        ({"subtype": "message_changed", "message": BOT, "previous_message": BOT}, False),
        ({"subtype": "message_changed", "message": {"app_id": "A0CI"}}, False),
        ({"subtype": "message_deleted", "previous_message": {"subtype": "bot_message", "username": "ci"}}, False),
        ({"edited": {"user": "B0CI"}, **BOT}, False),
    ],
)
def test_what_people_edit_delete_or_do_is_not_stored(changes: dict[str, object], private: bool) -> None:
    payload = json.loads(fixture("person"))
    payload["event"] = {"type": "message", "channel": "C0ALERTS", "ts": "1721656900.000100", **changes}
    parsed = sender().parse(Incoming({}, json.dumps(payload).encode(), "events"), DIRECTORY)
    assert (parsed.private, parsed.note) == (private, "not a new message")


def test_our_own_messages_are_known_by_the_setting_too() -> None:
    assert event("bot_without_alert", sender(app="A0CI")).note == "our own message"


def test_a_rate_limit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "app.intake.slack"):
        assert "too many events" in event("app_rate_limited").note
    assert "T0001" in caplog.text


def test_a_retry_has_the_same_key_and_another_event_does_not() -> None:
    retry = Incoming({"x-slack-retry-num": "1", "x-slack-retry-reason": "http_timeout"}, fixture("mention"), "events")
    assert sender().parse(retry, DIRECTORY).delivery_key == event("mention").delivery_key == "slack:Ev0MENTION"
    assert event("person").delivery_key != event("mention").delivery_key


@pytest.mark.parametrize("words", ["rca payment-service 09:15", "payment-service 09:15", "RCA  `payment-service` 9:15"])
def test_a_mention_is_the_slash_command(words: str) -> None:
    payload = json.loads(fixture("mention"))
    payload["event"]["text"] = f"<@U0AUTOPILOT> {words}"
    parsed = sender().parse(Incoming({}, json.dumps(payload).encode(), "events"), DIRECTORY)
    own = {"cycle_key", "fingerprint"}  # each request is another alert
    (said,), (typed,) = parsed.alerts, command("payment-service 09:15").alerts
    assert said.model_dump(exclude=own) == typed.model_dump(exclude=own)
    assert said.cycle_key == said.fingerprint == "slack:payment-service:2024-12-20T09:15:00+00:00:Ev0MENTION"
    assert parsed.asked_by == "slack:U0BO"


def test_a_mention_by_somebody_else_starts_nothing() -> None:
    parsed = event("mention", sender(responders="U0ANN"))
    assert (parsed.alerts, parsed.answer) == ((), None)
    assert "U0BO" in parsed.note


def test_a_digest_starts_a_few_jobs_only() -> None:
    payload = json.loads(fixture("bot_without_alert"))
    links = [f"https://app.datadoghq.com/monitors/{n}" for n in range(100)]
    payload["event"]["attachments"] = [{"title_link": link, "text": links[0]} for link in links]
    parsed = sender().parse(Incoming({}, json.dumps(payload).encode(), "events"), DIRECTORY)
    assert [job.arguments["monitor_id"] for job in parsed.jobs] == ["0", "1", "2", "3", "4"]


# --- commands ---


def test_an_investigation_is_asked_for() -> None:
    parsed = command("payment-service 09:15")
    (alert,) = parsed.alerts
    assert (alert.source, alert.service, alert.transition) == ("slack", "payment-service", "firing")
    assert alert.title == "payment-service: investigation asked for"
    assert alert.occurred_at == datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
    trigger = "13345224609.738474920.8088930838d88f008e0"
    assert alert.fingerprint == alert.cycle_key == f"slack:payment-service:2024-12-20T09:15:00+00:00:{trigger}"
    assert parsed.delivery_key == f"slack:command:{trigger}"
    assert (parsed.asked_by, parsed.answer) == ("slack:bo", None)
    assert parsed.note == "payment-service, 2024-12-20 09:15:00 UTC"


def test_who_asks_again_for_the_same_is_not_given_the_old_incident() -> None:
    first, again, other = (
        command("payment-service 09:15", trigger_id=trigger) for trigger in ("1.2.a", "1.2.a", "1.3")
    )
    assert first.alerts == again.alerts
    assert first.delivery_key == again.delivery_key
    assert first.alerts[0].cycle_key != other.alerts[0].cycle_key
    assert first.alerts[0].fingerprint != other.alerts[0].fingerprint
    (long,) = command("payment-service 09:15", trigger_id="1" * 300).alerts
    assert len(long.cycle_key) <= 200


@pytest.mark.parametrize(
    ("text", "service"),
    [
        ("payment", "payment"),
        ("Payment-Service", "payment-service"),
        ("  `payment-service`   now", "payment-service"),
        ("order queue 09:15", "order queue"),
        ("<http://db|db> 09:15", "db"),
    ],
)
def test_names_as_people_write_them(text: str, service: str) -> None:
    (alert,) = command(text).alerts
    assert alert.service == service


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "2024-12-20T09:17:00+00:00"),
        ("now", "2024-12-20T09:17:00+00:00"),
        ("지금", "2024-12-20T09:17:00+00:00"),
        ("09:17", "2024-12-20T09:17:00+00:00"),
        ("9:15:30", "2024-12-20T09:15:30+00:00"),
        ("09:18", "2024-12-19T09:18:00+00:00"),
        ("2024-12-20 09:15", "2024-12-20T09:15:00+00:00"),
        ("2024-12-20T09:15:00Z", "2024-12-20T09:15:00+00:00"),
        ("2024-12-20T09:15+09:00", "2024-12-20T00:15:00+00:00"),
        ("2024-12-20 18:15:00 +0900", "2024-12-20T09:15:00+00:00"),
        ("15m ago", "2024-12-20T09:02:00+00:00"),
        ("-15m", "2024-12-20T09:02:00+00:00"),
        ("–15m", "2024-12-20T09:02:00+00:00"),
        ("15분 전", "2024-12-20T09:02:00+00:00"),
        ("2시간 전", "2024-12-20T07:17:00+00:00"),
        ("1 hour ago", "2024-12-20T08:17:00+00:00"),
    ],
)
def test_times_as_people_write_them(text: str, expected: str) -> None:
    assert moment(text) == expected


@pytest.mark.parametrize(
    ("zone", "now", "text", "expected"),
    [
        ("Asia/Seoul", "2024-12-20T09:17:00+00:00", "18:15", "2024-12-20T09:15:00+00:00"),
        ("Asia/Seoul", "2024-12-20T09:17:00+00:00", "2024-12-20 18:15", "2024-12-20T09:15:00+00:00"),
        ("Asia/Seoul", "2024-12-20T15:05:00+00:00", "23:59", "2024-12-20T14:59:00+00:00"),  # just after midnight
        ("Asia/Seoul", "2024-12-20T15:05:00+00:00", "00:01", "2024-12-20T15:01:00+00:00"),
        ("UTC", "2025-01-01T00:00:00+00:00", "00:00", "2025-01-01T00:00:00+00:00"),
        ("UTC", "2025-01-01T00:00:30+00:00", "23:59:59", "2024-12-31T23:59:59+00:00"),
        # New York's clocks skip 02:00-03:00 on 10 March 2024 ...
        ("America/New_York", "2024-03-10T12:00:00+00:00", "02:30", "2024-03-09T07:30:00+00:00"),
        ("America/New_York", "2024-03-11T05:00:00+00:00", "02:30", "2024-03-09T07:30:00+00:00"),
        ("America/New_York", "2024-03-10T12:00:00+00:00", "03:30", "2024-03-10T07:30:00+00:00"),
        # ... and show 01:00-02:00 twice on 3 November
        ("America/New_York", "2024-11-03T12:00:00+00:00", "01:30", "2024-11-03T06:30:00+00:00"),
        ("America/New_York", "2024-11-03T06:10:00+00:00", "01:30", "2024-11-03T05:30:00+00:00"),
        ("America/New_York", "2024-11-03T06:10:00+00:00", "2024-11-03 01:30", "2024-11-03T05:30:00+00:00"),
    ],
)
def test_times_across_zones_midnight_and_clock_changes(zone: str, now: str, text: str, expected: str) -> None:
    assert moment(text, sender(zone=zone, now=now)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "25:00",
        "9:5",
        "٠٩:١٥",
        "yesterday",
        "09:15 please",
        "2024-12-20",
        "2024-02-30 09:15",
        "0000-01-01 00:00",
        "0001-01-01T00:00+23:00",
        "9999-12-31T23:59-23:00",
        "-123456789m",
    ],
)
def test_what_is_no_time_is_told(text: str) -> None:
    assert "no time that I can read" in said(command(f"payment-service {text}"))


def test_a_time_that_the_clocks_skip_is_told() -> None:
    new_york = sender(zone="America/New_York", now="2024-12-20T09:17:00+00:00")
    assert "no time that I can read (America/New_York)" in said(command("payment-service 2024-03-10 02:30", new_york))


def test_the_future_and_the_distant_past_are_told() -> None:
    assert "in the future: it is 2024-12-20 09:17:00 UTC now" in said(command("payment-service 2024-12-20 09:18"))
    assert "ten years" in said(command("payment-service 2014-12-20 09:15"))
    assert "ten years" in said(command("payment-service 99999h"))


@pytest.mark.parametrize("text", ["", "help", "HELP", "  "])
def test_help_for_everyone(text: str) -> None:
    assert "/rca SERVICE [TIME]" in said(command(text, sender(responders="")))


def test_an_unknown_service_is_told_with_near_names() -> None:
    text = said(command("paymnt-servce 09:15"))
    assert "`paymnt-servce` is not in the service catalogue" in text
    assert "Did you mean `payment-service`" in text
    assert "`db`" in said(command("zzzzzzzz"))
    nothing = Incoming({}, urlencode({"text": "x", "user_id": "U0BO"}).encode(), "commands")
    assert "It is empty" in said(sender().parse(nothing, Directory(Catalogue())))


def test_what_was_typed_is_not_read_as_markup_in_the_answer() -> None:
    text = said(command("&lt;!channel&gt;`*"))
    assert "`&lt;!channel&gt;*`" in text


def test_korean_is_answered_in_korean_too() -> None:
    assert "서비스 카탈로그" in said(command("결제서비스"))
    assert "원인 분석" in said(command("도움말"))
    assert "시각을 읽을 수 없습니다" in said(command("payment-service 내일"))
    assert "권한" in said(command("결제서비스", sender(responders="")))
    assert not slack.KOREAN.search(said(command("paymnt")))


@pytest.mark.parametrize(
    ("responders", "allowed"), [("*", True), ("U0ANN,U0BO", True), ("U0ANN", False), ("", False), ("U0B", False)]
)
def test_only_responders_may_start(responders: str, allowed: bool) -> None:
    parsed = command("payment-service 09:15", sender(responders=responders))
    assert bool(parsed.alerts) is allowed
    if not allowed:
        assert "AUTOPILOT_SLACK_RESPONDERS" in said(parsed)
        assert "U0BO" in said(parsed)


def test_a_stranger_learns_no_names_of_services() -> None:
    assert "payment" not in said(command("paymen", sender(responders="")))


# --- clicks ---


def click(payload: bytes) -> Parsed:
    return sender().parse(Incoming({}, urlencode({"payload": payload}).encode(), "actions"), DIRECTORY)


def test_one_click_has_one_key() -> None:
    first, again = click(fixture("click")), click(json.dumps(json.loads(fixture("click"))).encode())
    assert first.delivery_key is not None
    assert first.delivery_key.startswith("slack:action:")
    assert first.delivery_key == again.delivery_key
    assert (first.alerts, first.jobs, first.note, first.answer) == ((), (), "stored", None)


@pytest.mark.parametrize(
    ("path", "other"),
    [
        (("actions", 0, "action_ts"), "1721.99"),
        (("user", "id"), "U0ANN"),
        (("team", "id"), "T0002"),
        (("container", "message_ts"), "1721.02"),
        (("type",), "message_action"),
    ],
)
def test_another_click_has_another_key(path: tuple[str | int, ...], other: str) -> None:
    payload = json.loads(fixture("click"))
    inner = payload
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = other
    assert click(json.dumps(payload).encode()).delivery_key != click(fixture("click")).delivery_key


def test_a_submitted_view_is_stored() -> None:
    parsed = click(fixture("view_submission"))
    assert parsed.note == "stored"
    assert parsed.delivery_key == click(fixture("view_submission")).delivery_key is not None


# --- whatever the bytes ---

KEYS = st.sampled_from(
    """type event event_id api_app_id subtype app_id bot_id bot_profile user text attachments blocks fields metadata
    value event_type event_payload monitor_id actions action_ts container message team id title_link edited action_id
    view state values hint private_metadata callback_id response_urls response_url""".split()  # noqa: SIM905
)
WORDS = st.sampled_from(
    """event_callback message app_mention monitor_thread bot_message AR28NTK5M view_submission autopilot_decide
    inc_1:r:1 inc_1:r:1:1,2 inc_1:r:9""".split()  # noqa: SIM905
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=8),
    max_leaves=30,
)
EVENT = st.fixed_dictionaries({"type": st.sampled_from(["message", "app_mention"])}, optional={"bot_id": st.just("B1")})


@settings(deadline=None)
@given(JSON, st.dictionaries(KEYS, JSON), EVENT)
def test_any_json_is_parsed_or_unreadable(anything: object, fields: dict[str, object], kind: dict[str, object]) -> None:
    callback = {"type": "event_callback", "event": fields | kind}
    sender().parse(Incoming({}, json.dumps(callback).encode(), "events"), DIRECTORY)
    for part, payload in (("events", anything), ("actions", anything), ("commands", anything)):
        body = json.dumps(payload).encode()
        for sent in (body, urlencode({"payload": body, "text": body, "user_id": "U1"}).encode()):
            try:
                sender().parse(Incoming({}, sent, part), DIRECTORY)
            except UnreadablePayload:
                continue


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["events", "actions", "commands", "views"]))
def test_any_bytes_are_parsed_or_unreadable(body: bytes, part: str) -> None:
    try:
        sender().parse(Incoming({}, body, part), DIRECTORY)
    except UnreadablePayload:
        return


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_time_is_a_past_one_or_is_told(text: str) -> None:
    parsed = command(f"payment-service {text}")
    assert bool(parsed.alerts) != bool(parsed.answer)
    assert all(a.occurred_at <= datetime.fromisoformat(NOW) for a in parsed.alerts)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"type": "\\ud800"}', b"[" * 100_000, b'{"type": 1' + b"0" * 5000 + b"}", b'{"event": NaN'],
)
def test_what_cannot_be_read_is_told(body: bytes) -> None:
    with pytest.raises(UnreadablePayload):
        sender().parse(Incoming({}, body, "events"), DIRECTORY)


def test_nothing_unstorable_leaves() -> None:
    parsed = command("payment-service", trigger_id="1\x002" * 100, user_name="b\x00o")
    assert parsed.asked_by == "slack:bo"
    assert parsed.delivery_key is not None
    assert "\x00" not in parsed.delivery_key
    assert len(parsed.delivery_key) < 250


@pytest.mark.parametrize("text", ["<" * 8000, "<a" * 4000, "<" + "|" * 8000, "https://a." + "a." * 4000, "&lt;" * 2000])
def test_hostile_text_does_not_hang_the_matching(text: str) -> None:
    payload = json.loads(fixture("bot_without_alert"))
    payload["event"]["attachments"] = [{"text": text}] * 50
    assert sender().parse(Incoming({}, json.dumps(payload).encode(), "events"), DIRECTORY).jobs == ()


# --- settings ---


def test_settings_are_checked() -> None:
    assert Settings().responders == ()
    assert slack.create(stopped(NOW), AutopilotYaml()).name == "slack"
    for zone in ("Seoul", "../etc", ""):
        with pytest.raises(ValidationError, match="IANA"):
            Settings(timezone=zone)
    with pytest.raises(ValidationError, match="16 characters"):
        Settings(signing_secrets=(SecretStr("short"),))
