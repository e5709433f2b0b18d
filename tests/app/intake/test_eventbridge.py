"""EventBridge's events, as an API destination delivers them."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.intake.base import Directory, Headers, Incoming, Parsed, Unauthentic, UnreadablePayload
from app.intake.eventbridge import EventBridge, Settings
from collectors.base import Change
from graph.state import Alert
from tests.app.intake.test_cloudwatch import DIRECTORY, alert, distorted, stays_readable

FIXTURES = Path(__file__).parent / "fixtures" / "eventbridge"
KEY = "0123456789abcdef-of-the-tests"
SENDER = EventBridge(Settings.model_validate({"api_keys": f"an-older-key-still-valid,{KEY}"}))


def parse(event: object, directory: Directory = DIRECTORY) -> Parsed:
    return SENDER.parse(Incoming({"content-type": "application/json"}, json.dumps(event).encode()), directory)


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FIXTURES / f"{name}.json").read_text())
    return loaded


def heard(name: str) -> dict[str, Any]:
    """The event without what suppresses its actions."""
    event = load(name)
    event["detail"]["state"].pop("actionsSuppressedBy", None)
    return event


def alarm(name: str) -> Alert:
    (found,) = parse(heard(name)).alerts
    return found


def change(name: str) -> Change:
    (found,) = parse(load(name)).changes
    return found


# --- alarms ---


def at(hour: int, minute: int, second: int, microsecond: int = 0) -> datetime:
    return datetime(2025, 10, 2, hour, minute, second, microsecond, tzinfo=UTC)


class ExpectedAlarm(NamedTuple):
    service: str
    watched: dict[str, str]
    words: str


ALARMS = {
    "alarm": ExpectedAlarm(
        "i-12345678901234567",
        {"InstanceId": "i-12345678901234567"},
        "server CPU utilization is too high!\nAlarm when Average of AWS/EC2 CPUUtilization in 300 s",
    ),
    "math": ExpectedAlarm("checkout", {"ServiceName": "checkout", "ClusterName": "shop"}, "SUM(METRICS())"),
    "composite": ExpectedAlarm(
        "checkout", {}, "Alarm rule: ALARM(ServerCpuTooHigh) OR ALARM(TotalNetworkTrafficTooHigh)"
    ),
}


@pytest.mark.parametrize("name", ALARMS)
def test_the_kinds_of_alarm(name: str) -> None:
    found, expected, event = alarm(name), ALARMS[name], load(name)
    (arn,) = event["resources"]
    assert (found.service, found.transition) == (expected.service, "firing")
    assert found.resources == {**expected.watched, "aws.account": "123456789012", "aws.region": "us-east-1"}
    assert found.fingerprint == found.cycle_key == found.rule == f"cloudwatch:{arn}"
    assert found.changed_at == at(17, 4, 40, 989_000)
    assert expected.words in found.text
    assert found.title == arn.rpartition(":")[2]


def test_a_suppressed_alarm_is_only_noted() -> None:
    parsed = parse(load("composite"))
    assert (parsed.alerts, parsed.changes) == ((), ())
    assert "suppressed by WaitPeriod" in parsed.note


def test_both_feeds_of_one_alarm_are_one_alarm() -> None:
    here, there = alarm("alarm_ok"), alert("ok")
    same = {
        "cycle_key",
        "fingerprint",
        "rule",
        "source",
        "service",
        "resources",
        "transition",
        "changed_at",
        "url",
        "title",
    }
    assert here.model_dump(include=same) == there.model_dump(include=same)


def test_a_retry_is_known_again_by_the_events_id() -> None:
    event = load("alarm")
    assert parse(event).delivery_key == parse(event).delivery_key == "eventbridge:c4c1c1c9-6542-e61b-6ef0-8c4d36933a92"
    assert parse({k: v for k, v in event.items() if k != "id"}).delivery_key is None


def test_another_source_cannot_speak_for_cloudwatch() -> None:
    parsed = parse(load("alarm") | {"source": "my.application"})
    assert (parsed.alerts, parsed.note) == ((), "stored; not used: CloudWatch Alarm State Change")


# --- changes ---

DEPLOYMENT = "ecs-svc/9216170519"
UNWELL = (
    "Task failed ELB health checks in (target-group arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup"
)
CHANGES = {
    "ecs_deployment_in_progress": Change(
        component="payment-service",
        at=at(17, 1, 11),
        kind="deploy",
        title=f"ECS service deployment in progress: ECS deployment {DEPLOYMENT} in progress.",
        version=DEPLOYMENT,
    ),
    "ecs_deployment_completed": Change(
        component="payment-service",
        at=at(17, 1, 11),
        kind="deploy",
        title=f"ECS service deployment completed: ECS deployment {DEPLOYMENT} completed.",
        version=DEPLOYMENT,
    ),
    "ecs_deployment_failed": Change(
        component="payment-service",
        at=at(17, 1, 11),
        kind="deploy",
        title="ECS service deployment failed: ECS deployment circuit breaker: task failed to start.",
        version=DEPLOYMENT,
    ),
    "ecs_desired_count": Change(
        component="payment-service",
        at=at(17, 2, 22, 695_000),
        kind="scaling",
        title="ECS service desired count updated: 6 tasks",
    ),
    "ecs_placement_failure": Change(
        component="unlisted",
        at=at(17, 2, 59, 695_000),
        kind="other",
        title="ECS service task placement failure: RESOURCE:FARGATE",
    ),
    "ecs_task_killed": Change(
        component="payment-service",
        at=at(17, 3, 41),
        kind="other",
        title="ECS task stopped: Essential container in task exited;"
        " app exited with 137 OutOfMemoryError: Container killed due to memory usage",
        version="payment:41",
    ),
    "ecs_task_unhealthy": Change(
        component="payment-service",
        at=at(17, 3, 41),
        kind="other",
        title=f"ECS task stopped: {UNWELL}/payment/6d0ecf831eec9f09)",
        version="payment:41",
    ),
    "codedeploy": Change(
        component="checkout",
        at=at(17, 4, 40),
        kind="deploy",
        title="CodeDeploy d-123456789 failure: checkout / blue-green",
        version="d-123456789",
    ),
    "health_no_entities": Change(
        component="ECS",
        at=at(16, 50, 9),
        kind="other",
        title="AWS Health ECS AWS_ECS_OPERATIONAL_ISSUE:"
        " We are investigating increased error rates when starting tasks.",
    ),
}
NOTES = {
    "ecs_steady_state": "nothing changed: service steady state",
    "ecs_task_scaled_in": "stored; not used: an ordinary task of ECS",
    "ecs_task_running": "stored; not used: an ordinary task of ECS",
    "unknown": "stored; not used: EC2 Instance State-change Notification",
}


def test_every_fixture_is_expected() -> None:
    assert {f.stem for f in FIXTURES.glob("*.json")} == {*ALARMS, *CHANGES, *NOTES, "alarm_ok", "health"}


@pytest.mark.parametrize("name", CHANGES)
def test_the_kinds_of_change(name: str) -> None:
    assert change(name) == CHANGES[name]
    assert parse(load(name)).alerts == ()


@pytest.mark.parametrize("name", NOTES)
def test_what_changed_nothing_is_only_noted(name: str) -> None:
    parsed = parse(load(name))
    assert (parsed.alerts, parsed.changes, parsed.note) == ((), (), NOTES[name])


def test_aws_health_tells_of_every_component_it_names() -> None:
    assert [c.component for c in parse(load("health")).changes] == ["checkout", "i-abcd2222", "payment-service"]


def test_affected_entities_without_a_name_name_nobody() -> None:
    event = load("health")
    event["detail"]["affectedEntities"] = [{}, {"entityValue": ""}]
    assert [c.component for c in parse(event).changes] == ["ECS"]


# --- anything else ---


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b"{}", b'{"detail-type":"x"}', b'{"source":1e999}', b"\xff"])
def test_what_is_no_event_is_a_dead_letter(body: bytes) -> None:
    with pytest.raises(UnreadablePayload):
        SENDER.parse(Incoming({}, body), DIRECTORY)


@settings(deadline=None)
@given(st.sampled_from(sorted(f.stem for f in FIXTURES.glob("*.json"))).map(load).flatmap(distorted))
def test_whatever_an_event_holds_is_read_or_is_a_dead_letter(event: object) -> None:
    try:
        parsed = parse(event)
    except UnreadablePayload:
        return
    for read in (*parsed.alerts, *parsed.changes):
        stays_readable(read.model_dump(mode="json"))
    stays_readable([parsed.note, parsed.delivery_key])


# --- who may send ---


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"x-api-key": "an-older-key-still-valid"},
        {"x-aiops-token": KEY},
        {"authorization": f"Bearer {KEY}"},
        {"authorization": f"Basic {base64.b64encode(f'aws:{KEY}'.encode()).decode()}"},
    ],
)
async def test_the_key_may_come_in_any_of_these_ways(headers: Headers) -> None:
    await SENDER.verify(Incoming(headers, b"{}"))


@pytest.mark.parametrize(
    "headers", [{}, {"x-api-key": ""}, {"x-api-key": KEY[:-1]}, {"x-api-key": KEY + "é"}, {"cookie": KEY}]
)
async def test_without_the_key_nobody_is_heard(headers: Headers) -> None:
    with pytest.raises(Unauthentic, match="AUTOPILOT_EVENTBRIDGE_API_KEYS"):
        await SENDER.verify(Incoming(headers, b"{}"))


async def test_no_keys_no_sender() -> None:
    with pytest.raises(Unauthentic, match="turned off"):
        await EventBridge(Settings()).verify(Incoming({"x-api-key": KEY}, b"{}"))
