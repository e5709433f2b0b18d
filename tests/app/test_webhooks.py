"""Every webhook from outside: who is let in, what is kept, what becomes of it."""

import json
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.webhooks import BODY_WITHIN_S
from tests import processes
from tests.app.intake.test_sns import SUBSCRIPTION
from tests.app.served import TOPIC, Served, form, serving, signed, slack_headers, sns
from tests.conftest import Worlds

FIXTURES = Path(__file__).parent / "intake" / "fixtures"
SENDERS = ("datadog", "cloudwatch", "eventbridge", "alertmanager", "grafana", "generic/checks", "slack/events")
VARIABLES = {
    "datadog": "AUTOPILOT_DATADOG_WEBHOOK_TOKENS",
    "cloudwatch": "AUTOPILOT_CLOUDWATCH_TOPIC_ARNS",
    "eventbridge": "AUTOPILOT_EVENTBRIDGE_API_KEYS",
    "alertmanager": "AUTOPILOT_ALERTMANAGER_TOKENS",
    "grafana": "AUTOPILOT_GRAFANA_TOKENS",
    "generic/checks": "AUTOPILOT_GENERIC_TOKENS",
    "slack/events": "AUTOPILOT_SLACK_SIGNING_SECRETS",
    "slack/commands": "AUTOPILOT_SLACK_SIGNING_SECRETS",
    "slack/actions": "AUTOPILOT_SLACK_SIGNING_SECRETS",
}
SLACK_SECRET = "the-signing-secret-of-the-app"


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """Every sender is turned on; no worker."""
    with serving(database_url, tmp_path) as started:
        yield started


@pytest.fixture
def working(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """The same with a worker in it, and no source to read."""
    with serving(database_url, tmp_path, worker=True) as started:
        yield started


def payload(sender: str, name: str) -> Any:
    """What it really sends."""
    return json.loads((FIXTURES / sender / f"{name}.json").read_bytes())


def problem(answer: httpx.Response, status: int, *words: str) -> None:
    """One shape for every refusal, which says why."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    for word in words:
        assert word in answer.json()["detail"]


def command(text: str, **fields: str) -> bytes:
    """What Slack sends of ``/rca``."""
    return form(command="/rca", text=text, user_id="U0BO", user_name="bo", **fields)


# --- let in ---


@pytest.mark.parametrize(
    ("sender", "part", "fixture", "service"),
    [
        ("datadog", "", "triggered", "payment-service"),
        ("cloudwatch", "", "metric", "payment-service"),
        ("eventbridge", "", "alarm", "payment-service"),
        ("alertmanager", "", "bare", "Watchdog"),
        ("grafana", "", "firing", "checkout"),
        ("generic", "checks", "checks", "checkout"),
    ],
)
def test_an_authentic_alert_is_kept_and_opens_an_incident(
    served: Served, sender: str, part: str, fixture: str, service: str
) -> None:
    answer = served.send(sender, payload(sender, fixture), part=part)
    assert answer.status_code == 202, answer.text
    said = answer.json()
    assert said["created"]
    assert said["alerts"][0]["became"] == "opened"
    incident = served.http.get(f"/incidents/{said['incident_id']}").json()
    source = "cloudwatch" if sender == "eventbridge" else sender  # one alarm, whichever way it comes
    assert (incident["service"], incident["source"], incident["status"]) == (service, source, "received")
    (raw,) = served.rows("select sender, part, parse_error from raw_delivery")
    assert raw == {"sender": sender, "part": part, "parse_error": None}
    (queued,) = served.rows("select task_name, args from procrastinate_jobs")
    assert queued == {"task_name": "advance", "args": {"incident_id": said["incident_id"]}}


def test_a_repeat_is_told_and_opens_nothing(served: Served) -> None:
    first = served.send("datadog", payload("datadog", "triggered")).json()
    again = served.send("datadog", payload("datadog", "triggered")).json()
    assert (again["duplicate"], again["created"], again["incident_id"]) == (True, False, first["incident_id"])
    assert served.count("incident") == served.count("raw_delivery") == served.count("alert") == 1


# --- refused ---


@pytest.mark.parametrize(
    "proof",
    [
        {},
        {"authorization": "Bearer not-a-secret-of-ours"},
        {"authorization": "Basic é"},
        {"x-aiops-token": "not-a-secret-of-ours", "x-api-key": "neither"},
        {"x-slack-signature": "v0=00", "x-slack-request-timestamp": "1", "x-grafana-alerting-signature": "00"},
    ],
    ids=["nothing", "bearer", "basic", "token", "signature"],
)
def test_a_stranger_leaves_nothing_behind(served: Served, proof: dict[str, str]) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in proof.items()]
    for path in VARIABLES:
        body = json.dumps({**sns("{}", served.amazon), "Signature": "AAAA"}) if path == "cloudwatch" else "{}"
        answer = served.stranger.post(f"/webhooks/{path}", content=body, headers=headers)
        problem(answer, 401)
        assert answer.headers["www-authenticate"] == 'Bearer, Basic realm="AIOps Auto Pilot"'
    assert served.count("raw_delivery") == 0


def test_what_is_turned_off_names_its_variable(database_url: str, tmp_path: Path) -> None:
    with serving(database_url, tmp_path, turned_on=False) as off:
        for path, variable in VARIABLES.items():
            sender = path.partition("/")[0]
            headers, body = signed(sender, {}, off.amazon)
            answer = off.stranger.post(f"/webhooks/{path}", content=body, headers=headers)
            problem(answer, 401, "turned off", f"{variable} is not set")
        assert off.count("raw_delivery") == 0


def test_a_signature_is_good_for_five_minutes_and_one_body(served: Served) -> None:
    body = command("payment-service")
    for headers in (slack_headers(body, at=time.time() - 400), slack_headers(body + b" ")):
        problem(served.stranger.post("/webhooks/slack/commands", content=body, headers=headers), 401, "five minutes")
    assert served.count("raw_delivery") == 0


def test_a_topic_that_is_not_ours(served: Served) -> None:
    other = TOPIC.replace("alarms", "somebody-elses")
    message = sns(json.dumps(payload("cloudwatch", "metric")), served.amazon, TopicArn=other)
    problem(served.send("cloudwatch", message), 403, other, "AUTOPILOT_CLOUDWATCH_TOPIC_ARNS")
    assert served.amazon.requests == []
    assert served.count("raw_delivery") == 0


def test_a_certificate_that_cannot_be_had_is_asked_for_again(served: Served) -> None:
    served.amazon.answer = lambda _: httpx.Response(503)
    answer = served.send("cloudwatch", payload("cloudwatch", "metric"))
    problem(answer, 503, "cannot be read")
    assert answer.headers["Retry-After"]
    assert served.count("raw_delivery") == 0
    served.amazon.answer = lambda _: httpx.Response(200, content=served.amazon.pem)
    assert served.send("cloudwatch", payload("cloudwatch", "metric")).status_code == 202


def test_a_generic_webhook_that_nobody_described(served: Served) -> None:
    problem(served.send("generic", {}, part="unheard-of"), 403, "'unheard-of'", "there are: checks")


# --- not understood ---


@pytest.mark.parametrize("path", SENDERS)
def test_what_cannot_be_read_is_a_dead_letter(served: Served, path: str) -> None:
    sender, _, part = path.partition("/")
    answer = served.send(sender, b"[1", part=part)
    assert answer.status_code in (200, 202)
    said = answer.json()
    (row,) = served.rows("select id, body, parse_error from raw_delivery")
    assert str(row["id"]) == said["dead_letter_id"]
    assert row["parse_error"] == said["detail"]
    assert b"[1" in bytes(row["body"])
    assert served.count("incident") == 0


def test_a_body_that_never_ends_is_given_up(served: Served) -> None:
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=3 * BODY_WITHIN_S) as connection:
        connection.sendall(b"POST /webhooks/datadog HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer
    assert served.count("raw_delivery") == 0


# --- a mapping of autopilot.yaml ---


def test_a_generic_webhook_opens_what_it_finds_and_says_what_it_left_out(served: Served) -> None:
    down, _, unnamed = payload("generic", "checks")
    first = served.send("generic", [down, unnamed], part="checks").json()
    assert [a["became"] for a in first["alerts"]] == ["opened"]
    up = {**down, "up": True, "at": "2026-01-15T10:30:00Z"}
    recovered = served.send("generic", [up], part="checks").json()
    assert recovered["incident_id"] == first["incident_id"]
    incident = served.http.get(f"/incidents/{first['incident_id']}").json()
    assert (incident["title"], incident["status"], incident["status_reason"]) == (
        "checkout answers",
        "closed",
        "recovered by itself",
    )


# --- AWS ---


def test_one_alarm_through_sns_and_eventbridge_is_one_incident(served: Served) -> None:
    event = payload("eventbridge", "alarm")
    state = event["detail"]["state"]
    alarm = payload("cloudwatch", "metric") | {
        "AlarmName": event["detail"]["alarmName"],
        "AlarmArn": event["resources"][0],
        "StateChangeTime": state["timestamp"],
        "NewStateReason": state["reason"],
    }
    through_sns = served.send("cloudwatch", alarm).json()
    through_eventbridge = served.send("eventbridge", event).json()
    assert through_sns["created"]
    assert not through_eventbridge["created"]
    assert through_eventbridge["incident_id"] == through_sns["incident_id"]
    assert through_eventbridge["alerts"][0]["why"] == "same alert cycle"
    assert served.count("incident") == 1
    assert served.count("raw_delivery") == 2


def test_a_subscription_is_confirmed_by_a_job(served: Served) -> None:
    said = served.send("cloudwatch", served.amazon.sign(SUBSCRIPTION)).json()
    assert said["incident_id"] is None
    assert TOPIC in said["detail"]
    (job,) = served.rows("select task_name, args from procrastinate_jobs")
    assert job["task_name"] == "sender_job"
    assert job["args"]["sender"] == "cloudwatch"
    assert job["args"]["arguments"] == {"confirm": TOPIC, "token": SUBSCRIPTION["Token"]}
    assert "SubscribeURL" not in json.dumps(job["args"])


def test_what_aws_changed_is_in_the_evidence_of_the_next_investigation(working: Served) -> None:
    event = payload("eventbridge", "ecs_deployment_failed")
    now = datetime.now(UTC)
    event["detail"]["updatedAt"] = event["time"] = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    said = working.send("eventbridge", event).json()
    assert said["incident_id"] is None
    (change,) = working.rows("select component, body from received_change")
    assert (change["component"], change["body"]["kind"]) == ("payment-service", "deploy")
    asked = {"service": "payment-service", "occurred_at": now.isoformat()}
    incident = working.http.post("/incidents", json=asked).json()["incident_id"]

    def analysed() -> bool:
        return bool(working.http.get(f"/incidents/{incident}/evidence").json())

    processes.wait_until(analysed, "the evidence")
    found = working.http.get(f"/incidents/{incident}/evidence").json()
    assert any("circuit breaker" in json.dumps(finding) for finding in found), found


# --- Slack ---


def test_slack_checks_the_address(served: Served) -> None:
    answer = served.send("slack", {"type": "url_verification", "challenge": "abc"}, part="events")
    assert (answer.status_code, answer.json()) == (200, {"challenge": "abc"})


def test_a_command_starts_an_investigation_and_links_to_it(served: Served) -> None:
    answer = served.send("slack", command("payment-service 5m ago", trigger_id="1.2.a"), part="commands")
    assert answer.status_code == 200
    assert answer.json()["response_type"] == "ephemeral"
    (row,) = served.rows("select id, service, asked_by from incident")
    assert f"/ui/?incident={row['id']}|{row['id']}>" in answer.json()["text"]
    assert (row["service"], row["asked_by"]) == ("payment-service", "slack:bo")
    again = served.send("slack", command("payment-service 5m ago", trigger_id="1.2.a"), part="commands")
    assert row["id"] in again.json()["text"]
    assert served.count("incident") == 1


@pytest.mark.parametrize(
    ("text", "fields", "words"),
    [
        ("paymnt-service", {}, "Did you mean `payment-service`?"),
        ("payment-service tomorrow", {}, "no time that I can read"),
        ("", {}, "starts a root-cause analysis"),
        ("payment-service", {"user_id": "U0STRANGER"}, "AUTOPILOT_SLACK_RESPONDERS"),
        ("결제", {}, "서비스 카탈로그"),
    ],
)
def test_a_command_in_vain_says_what_to_write(served: Served, text: str, fields: dict[str, str], words: str) -> None:
    body = form(**{"command": "/rca", "text": text, "user_id": "U0BO", "user_name": "bo"} | fields)
    answer = served.send("slack", body, part="commands")
    assert answer.status_code == 200
    assert answer.json()["response_type"] == "ephemeral"
    assert words in answer.json()["text"]
    assert served.count("incident") == 0


def test_a_mention_starts_an_investigation(served: Served) -> None:
    answer = served.send("slack", payload("slack", "mention"), part="events")
    assert answer.status_code == 200
    assert served.http.get(f"/incidents/{answer.json()['incident_id']}").json()["service"] == "payment-service"


def test_what_people_say_to_each_other_is_not_stored(served: Served) -> None:
    answer = served.send("slack", payload("slack", "person"), part="events")
    assert answer.status_code == 200
    assert served.count("raw_delivery") == served.count("incident") == 0


def test_a_click_is_verified_and_stored(served: Served) -> None:
    body = form(payload=json.dumps(payload("slack", "click")))
    answer = served.send("slack", body, part="actions")
    assert (answer.status_code, answer.content) == (200, b"")
    assert [row["part"] for row in served.rows("select part from raw_delivery")] == ["actions"]


def test_a_hint_is_a_job_and_no_incident(served: Served) -> None:
    said = served.send("slack", payload("slack", "datadog_title_link"), part="events").json()
    assert said["incident_id"] is None
    (job,) = served.rows("select task_name, args from procrastinate_jobs")
    assert job["task_name"] == "sender_job"
    assert (job["args"]["sender"], job["args"]["arguments"]) == ("datadog", {"monitor_id": "141878267"})
    assert served.count("incident") == 0


def test_a_hint_that_cannot_be_followed_is_a_dead_letter_that_says_what_to_set(working: Served) -> None:
    working.send("slack", payload("slack", "datadog_title_link"), part="events")

    def buried() -> bool:
        return bool(working.http.get("/dead-letters").json()["dead_letters"])

    processes.wait_until(buried, "the dead letter")
    (letter,) = working.http.get("/dead-letters").json()["dead_letters"]
    assert "set DATADOG_API_KEY and DATADOG_APP_KEY" in letter["error"]
    assert working.count("incident") == 0


# --- read at the source: the simulated shop's Datadog ---


def test_a_hint_in_slack_opens_the_incident_as_the_source_tells_it(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    world.environment["AUTOPILOT_SLACK_SIGNING_SECRETS"] = SLACK_SECRET
    client = world.start_api(worker=True)
    monitor = "148820914"
    text = json.dumps(payload("slack", "datadog_title_link")).replace("141878267", monitor)
    body = text.replace("payment-service", "a-service-of-a-liar").encode()
    answer = client.post("/webhooks/slack/events", content=body, headers=slack_headers(body, SLACK_SECRET))
    assert (answer.status_code, answer.json()["incident_id"]) == (200, None)

    def opened() -> list[Any]:
        found: list[Any] = client.get("/incidents").json()["incidents"]
        return found

    processes.wait_until(lambda: bool(opened()), f"the incident; {world.logs()}")
    (incident,) = opened()
    assert (incident["service"], incident["source"]) == ("checkout", "datadog")
    assert incident["title"] == "checkout error rate is high"
    (alert,) = client.get("/alerts").json()["alerts"]
    assert alert["body"]["rule"].endswith(monitor)


def test_what_no_webhook_told_is_found_at_the_source_and_joined_by_a_late_one(worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    world.environment["AUTOPILOT_PULL_EVERY_S"] = "300"
    client = world.start_api()
    world.start_worker()

    def about_checkout() -> list[Any]:
        return [i for i in client.get("/incidents").json()["incidents"] if i["service"] == "checkout"]

    processes.wait_until(lambda: bool(about_checkout()), f"the incident; {world.logs()}")
    (incident,) = about_checkout()
    late = world.send_alert(client).json()
    assert (late["incident_id"], late["created"]) == (incident["id"], False)
    assert len(about_checkout()) == 1
