"""From measured values to a verdict."""

from datetime import UTC, datetime, timedelta

import pytest

from collectors.base import Scope, Series, SeriesRef, Window
from graph.effects import expected_effects
from graph.state import Evidence, ExpectedEffect, Finding, RootCause, Verdict
from graph.verification import check, level, verdict

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
ERRORS = SeriesRef(source="datadog", component="shop", metric="errors", unit="%", query="avg:errors{service:shop}")
SUCCESS = SeriesRef(source="datadog", component="shop", metric="success", unit="%", query="avg:success{service:shop}")


def effect(ref: SeriesRef = ERRORS) -> ExpectedEffect:
    if ref is ERRORS:
        return ExpectedEffect(ref=ref, comparator="<=", value=31, within_minutes=10, baseline=1, observed=100)
    return ExpectedEffect(ref=ref, comparator=">=", value=85, within_minutes=10, baseline=100, observed=50)


@pytest.mark.parametrize(
    ("errors", "success", "expected"),
    [
        (2.0, 99.0, "resolved"),
        (2.0, 55.0, "improved"),
        (95.0, 52.0, "unchanged"),
        (140.0, 52.0, "worse"),
        (140.0, 90.0, "unchanged"),
        (None, 99.0, "resolved"),
        (None, None, "not_measurable"),
    ],
)
def test_verdicts(errors: float | None, success: float | None, expected: Verdict) -> None:
    checks = [check(effect(ERRORS), 100.0, errors), check(effect(SUCCESS), 50.0, success)]
    assert verdict(checks) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(7.5, 10.0, "unchanged"), (10.0, 7.5, "unchanged"), (7.5, 30.0, "worse"), (100.0, 40.0, "improved")],
)
def test_a_handful_of_log_lines_more_or_less_is_chance(before: float, after: float, expected: Verdict) -> None:
    ref = SeriesRef(source="datadog", component="shop", metric="logs.error", statistic="sum", query="q")
    few = ExpectedEffect(ref=ref, comparator="<=", value=2.1, within_minutes=15, baseline=0.0, observed=before)
    assert verdict([check(few, before, after)]) == expected


def test_silence_is_no_recovery() -> None:
    silent = [check(effect(ERRORS), 100.0, None) for _ in range(4)]
    assert verdict([*silent, check(effect(SUCCESS), 50.0, 99.0)]) == "not_measurable"


def test_the_level_is_the_median_inside_the_window() -> None:
    start = NOON.timestamp()
    series = Series(ref=ERRORS, epoch_s=tuple(start + 60 * i for i in range(5)), values=(1.0, 2.0, 90.0, 4.0, 5.0))
    window = Window(start=NOON + timedelta(minutes=1), end=NOON + timedelta(minutes=4))
    assert level([series], ERRORS, window) == 4.0
    assert level([series], SUCCESS, window) is None


def test_effects_turn_the_strongest_findings_round_and_leave_load_out() -> None:
    def finding(number: int, metric: str, component: str, worse: str, effect_size: float) -> Finding:
        return Finding.model_validate(
            {
                "id": f"E{number}",
                "kind": "metric",
                "component": component,
                "signal": metric,
                "at": NOON,
                "observed": 100.0 if worse != "down" else 50.0,
                "baseline": 10.0 if worse != "down" else 100.0,
                "effect": effect_size,
                "summary": "",
                "worse": worse,
                "ref": ERRORS.model_copy(update={"metric": metric, "component": component}),
            }
        )

    evidence = Evidence(
        digest="",
        findings=(
            finding(1, "requests", "shop", "neutral", 99),
            finding(2, "errors", "shop", "up", 9),
            finding(3, "success", "shop", "down", 20),
            finding(4, "errors", "elsewhere", "up", 50),
        ),
        suspects=(),
    )
    cause = RootCause(component="shop", category="x", title="", mechanism="", confidence="high")
    window = Window(start=NOON, end=NOON)
    scope = Scope(service="shop", occurred_at=NOON, incident=window, baseline=(), targets=())
    effects = expected_effects(evidence, cause, scope)
    assert [(e.ref.metric, e.comparator, e.value) for e in effects] == [("success", ">=", 85.0), ("errors", "<=", 37.0)]
