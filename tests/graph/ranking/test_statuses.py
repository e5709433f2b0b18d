"""What a state says: tasks missing, pods that crash, roll-outs that fail, alarms that are raised."""

import pytest

from collectors.base import Status
from graph.ranking import statuses
from graph.ranking.deviation import Deviation
from graph.ranking.windows import Windows
from tests.graph.ranking import incidents

WINDOWS = Windows.of(incidents.scope("gateway"))


def status(name: str, observed: float, expected: float | None = None, detail: str = "") -> Status:
    return Status(
        component="billing", name=name, at=incidents.INCIDENT, observed=observed, expected=expected, detail=detail
    )


def found(one: Status, **alert: str) -> Deviation | None:
    return next(iter(statuses.deviations([("s", one)], WINDOWS, **alert)), None)


def strength(one: Status) -> float:
    deviation = found(one)
    return deviation.strength if deviation else 0.0


def test_missing_tasks_count_by_their_share() -> None:
    assert strength(status("ecs.running_tasks", 0, 3)) == 1.0
    assert strength(status("ecs.running_tasks", 2, 3)) == pytest.approx(1 / 3)
    assert strength(status("ecs.running_tasks", 3, 3)) == 0.0
    assert strength(status("ecs.running_tasks", 3)) == 0.0


def test_one_crashing_pod_of_many_is_a_fault_but_a_small_one_and_names_itself() -> None:
    detail = "of 50 pods; billing-7d9f-x2/app: CrashLoopBackOff back-off 5m0s restarting failed container"
    deviation = found(status("kubernetes.failed_pods", 1, 0, detail))
    assert deviation is not None
    assert deviation.instance == "billing-7d9f-x2"
    assert "keeps ending by itself" in deviation.summary
    assert deviation.strength == pytest.approx(0.02**0.5)
    assert strength(status("kubernetes.failed_pods", 50, 0, detail)) == 1.0


@pytest.mark.parametrize(
    ("detail", "says"),
    [
        ("in the window; p/app terminated: OOMKilled, exit code 137", "want of memory"),
        ("in the window; p/app terminated: Error, exit code 1", "keeps ending"),
        ("of 3 pods; p/app: ImagePullBackOff", "image cannot be had"),
        ("of 3 pods; p: Unschedulable 0/3 nodes", "no room"),
        ("healthy: 1, Target.Timeout: 2", "does not answer"),
        ("healthy: 1, Target.FailedHealthChecks: 2", "fails its health checks"),
    ],
)
def test_the_words_of_orchestrators_become_sentences(detail: str, says: str) -> None:
    deviation = found(status("kubernetes.failed_pods", 2, 0, detail))
    assert deviation is not None
    assert says in deviation.summary
    assert deviation.excerpt == detail


def test_a_roll_out_on_its_way_is_no_fault_and_one_that_failed_is() -> None:
    underway = strength(status("ecs.rollout_completed", 0, 1, "IN_PROGRESS: ECS deployment in progress."))
    assert 0.0 < underway < 0.5
    assert strength(status("ecs.rollout_completed", 0, 1, "FAILED: tasks failed to start")) == 1.0
    stuck = "Deployment billing (ProgressDeadlineExceeded: timed out)"
    assert strength(status("kubernetes.updated_replicas", 1, 4, stuck)) == pytest.approx(0.75)


def test_at_its_limit_is_a_hint_even_if_nothing_is_missing() -> None:
    deviation = found(
        status("kubernetes.autoscaled_replicas", 8, 8, "hpa: 2 to 8 replicas, 8 wanted; it is at its maximum")
    )
    assert deviation is not None
    assert deviation.strength == statuses.AT_LIMIT
    assert "at its limit" in deviation.summary


def test_a_share_of_failing_calls_may_be_inherited() -> None:
    deviation = found(status("xray.fault_ratio", 0.25, 0.0, "25 of 100 requests failed"))
    assert deviation is not None
    assert deviation.inherited
    assert deviation.strength == pytest.approx(0.5)


# --- alarms -----------------------------------------------------------------------------------------------------

SINCE = "since 2024-03-01 13:01 UTC"


def test_a_raised_monitor_is_a_symptom_below_a_measured_one_whatever_its_name() -> None:
    for name in ("High latency", "Errors", "Payments available"):
        deviation = found(status(f"datadog.monitor:{name}", 1.0, 0.0, f"Alert, {SINCE}: avg(last_5m):…"))
        assert deviation is not None
        assert deviation.strength == statuses.ALARM
        assert deviation.worse == "up"
        assert deviation.at_s == incidents.INCIDENT.timestamp() + 60
        assert "missing" not in deviation.summary
        assert name in deviation.summary
    assert strength(status("datadog.monitor:x", 0.5, 0.0, "Warn")) == statuses.ALARM / 2
    assert strength(status("datadog.monitor:x", 0.0, 0.0, "OK")) == 0.0
    assert strength(status("datadog.monitor:x", 1.0, None, "Alert")) == 0.0
    assert strength(status("datadog.monitor:x", 1.0, 0.0, f"Alert, {SINCE}, muted: avg(last_5m):…")) == 0.0
    assert strength(status("datadog.monitor:x", 1.0, 0.0, f"Alert, {SINCE}: avg(last_5m):avg:muted{{*}}")) > 0.0


def test_an_alert_rule_of_prometheus_is_worth_no_more() -> None:
    assert strength(status("unhealthy by the alert rule PodsDown", 7.0, 0.0)) == statuses.ALARM
    assert strength(status("unhealthy by the alert rule PodsDown", 7.0)) == 0.0


def test_cloudwatch_alarms_are_told_by_their_state() -> None:
    detail = "billing-5xx; ALARM; HTTPCode_5XX > 10 for 3 of 3 datapoints; Threshold Crossed"
    raised = status("cloudwatch.alarm_threshold", 10.0, None, detail)
    assert strength(raised) == statuses.ALARM
    assert strength(status("cloudwatch.alarm_threshold", 10.0, None, detail.replace("ALARM", "OK"))) == 0.0
    assert found(raised, rule="arn:aws:cloudwatch:eu-west-1:1:alarm:billing-5xx") is None
    assert found(raised, title="ALARM: billing-5xx in eu-west-1") is None
    assert found(raised, rule="arn:aws:cloudwatch:eu-west-1:1:alarm:billing-5xx-slow") is not None


def test_an_alarm_from_before_everything_is_nothing_new() -> None:
    old = status("datadog.monitor:Disk", 1.0, 0.0, "Alert, since 2023-01-01 00:00 UTC: …")
    assert strength(old) == 0.0


@pytest.mark.parametrize(
    "name", ["datadog.monitor:", "cloudwatch.composite_alarm", "unhealthy by the alert rule ", "", "x", "failed_pods"]
)
@pytest.mark.parametrize("value", [0.0, -1.0, -1e308, 1e308, float("inf"), float("nan")])
@pytest.mark.parametrize(
    "detail", ["", ";", "a; ALARM", "since 9999-99-99 99:99 UTC", "of 0 pods", "of 3 pods", "(" * 999]
)
def test_odd_states_do_not_raise(name: str, value: float, detail: str) -> None:
    for expected in (None, 0.0, -2.0, -1e308, float("nan")):
        for deviation in statuses.deviations([("s", status(name, value, expected, detail))], WINDOWS, title="("):
            assert 0.0 <= deviation.strength <= 1.0
