"""From measured values to a verdict."""

from datetime import UTC, datetime, timedelta

import pytest

from collectors.base import Scope, Series, SeriesRef, Window
from graph.effects import expected_effects
from graph.per_request import Load
from graph.state import Evidence, ExpectedEffect, Finding, RootCause, Verdict
from graph.verification import check, guards, harm, level, reached, verdict

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


def finding(
    number: int,
    metric: str,
    component: str = "shop",
    *,
    unit: str = "%",
    worse: str = "up",
    effect: float = 1.0,
    observed: float = 100.0,
    baseline: float = 10.0,
) -> Finding:
    return Finding.model_validate(
        {
            "id": f"E{number}",
            "kind": "metric",
            "component": component,
            "signal": metric,
            "at": NOON,
            "observed": observed,
            "baseline": baseline,
            "effect": effect,
            "summary": "",
            "worse": worse,
            "ref": ERRORS.model_copy(update={"metric": metric, "component": component, "unit": unit, "query": metric}),
        }
    )


def expected(*findings: Finding) -> list[tuple[str, str, float]]:
    """Of a cause in «db» that is alerted on at «shop»."""
    cause = RootCause(component="db", category="x", title="", mechanism="", confidence="high")
    window = Window(start=NOON, end=NOON)
    scope = Scope(service="shop", occurred_at=NOON, incident=window, baseline=(), targets=())
    effects = expected_effects(Evidence(digest="", findings=findings, suspects=()), cause, scope)
    return [(e.ref.metric, e.comparator, e.value) for e in effects]


def test_effects_turn_the_strongest_findings_round_and_leave_load_out() -> None:
    assert expected(
        finding(1, "requests", unit="", worse="neutral", effect=99),
        finding(2, "errors", effect=9),
        finding(3, "success", worse="down", effect=20, observed=50, baseline=100),
        finding(4, "errors", "elsewhere", effect=50),
    ) == [("success", ">=", 85.0), ("errors", "<=", 37.0)]


def test_of_each_kind_and_component_one_before_another_and_shares_before_counts() -> None:
    counts = [finding(n, f"errors_{n}_total", unit="/s", effect=50) for n in range(3)]
    chosen = expected(
        *counts, finding(4, "errors_percent"), finding(5, "latency_ms", unit="ms"), finding(6, "latency_ms", "db")
    )
    assert [metric for metric, *_ in chosen] == [
        "errors_percent",
        "latency_ms",
        "latency_ms",
        "errors_0_total",
        "errors_1_total",
    ]


def test_a_resource_need_only_get_out_of_danger_and_comes_after_what_users_feel() -> None:
    cpu = finding(1, "cpu_percent", effect=99, observed=95, baseline=35)
    free = finding(2, "free_memory_percent", worse="down", effect=98, observed=4, baseline=60)
    busy = finding(3, "disk_percent", effect=97, observed=70, baseline=20)
    load = finding(4, "load", unit="", effect=96)
    felt = finding(5, "errors")
    assert expected(cpu, free, busy, load, felt) == [
        ("errors", "<=", 37.0),
        ("cpu_percent", "<=", 80.0),
        ("free_memory_percent", ">=", 20.0),
    ]
    assert expected(busy, load) == [("disk_percent", "<=", 35.0), ("load", "<=", 37.0)]
    assert expected(finding(6, "pool_percent", observed=100, baseline=90)) == [("pool_percent", "<=", 93.0)]


def test_relief_of_a_resource_alone_is_no_improvement() -> None:
    cpu = ExpectedEffect(
        ref=metric("shop", "cpu_percent", "%"), comparator="<=", value=80, within_minutes=15, baseline=35, observed=95
    )
    rested = check(cpu, 95.0, 50.0)
    assert verdict([check(effect(), 100.0, 100.0), rested]) == "unchanged"
    assert verdict([check(effect(), 100.0, 50.0), check(cpu, 95.0, 99.0)]) == "improved"
    assert verdict([check(effect(), 100.0, 2.0), check(cpu, 95.0, 90.0)]) == "improved"
    assert verdict([check(effect(), 100.0, 2.0), rested]) == "resolved"
    assert verdict([check(cpu, 95.0, 90.0), check(cpu, 95.0, 60.0)]) == "improved"


def test_one_effect_of_many_is_no_improvement_but_may_be_harm() -> None:
    still = [check(effect(), 100.0, 99.0)] * 4
    assert verdict([*still, check(effect(), 100.0, 50.0)]) == "unchanged"
    assert verdict([*still, check(effect(), 100.0, 150.0)]) == "worse"
    assert verdict([*still[:2], *[check(effect(), 100.0, 50.0)] * 2]) == "improved"


@pytest.mark.parametrize(
    ("after", "load", "status", "same_load", "remark"),
    [
        (40.0, Load(100.0, 50.0), "not_met", 80.0, " (counted 40, requests 100 -> 50)"),
        (40.0, Load(100.0, 100.0), "not_met", 40.0, ""),
        (10.0, Load(100.0, 50.0), "met", 20.0, " (counted 10, requests 100 -> 50)"),
        (0.0, Load(100.0, 1.0), "not_measurable", None, ""),
        (40.0, None, "not_met", 40.0, " (a count; of how many requests is not measured)"),
        (40.0, Load(100.0, None), "not_met", 40.0, " (a count; of how many requests is not measured)"),
    ],
)
def test_counts_are_held_against_the_requests(
    after: float, load: Load | None, status: str, same_load: float | None, remark: str
) -> None:
    counted = ExpectedEffect(
        ref=metric("shop", "errors", statistic="sum"), comparator="<=", value=24, within_minutes=15, baseline=0
    )
    seen = check(counted, 80.0, after, load)
    assert (seen.status, seen.after) == (status, same_load)
    if same_load is None:
        assert "hardly anything asks it any more (requests 100 -> 1)" in seen.detail
    else:
        assert seen.detail.endswith(f"expected <= 24{remark}")


def test_harm_is_no_more_errors_of_more_requests() -> None:
    ref, before = metric("web", "errors", "", "sum"), [(60.0 * n, 100.0) for n in range(5)]
    assert harm(ref, before, 300.0, Load(1000.0, 3000.0)) == ""
    assert harm(ref, before, 300.0, Load(1000.0, 1000.0)) == "web errors: 100 -> 300"


# --- harm that the expected effects do not cover ---


def metric(component: str, name: str, unit: str = "", statistic: str = "avg") -> SeriesRef:
    return SeriesRef(source="m", component=component, metric=name, unit=unit, statistic=statistic, query=name)


def test_guards_are_errors_and_latency_of_what_is_changed_and_its_callers() -> None:
    wanted = [
        metric("shop", "error_rate_percent", "%"),
        metric("web", "error_rate_percent", "%"),
        metric("shop", "latency_p95_ms", "ms"),
        metric("web", "latency_p95_ms", "ms"),
        metric("shop", "requests_per_second", "/s"),
    ]
    others = [
        ERRORS,  # an expected effect
        metric("web", "requests_per_second", "/s"),
        metric("shop", "cpu_utilization_percent", "%"),
        metric("db", "error_rate_percent", "%"),
    ]
    assert guards([*others, *reversed(wanted), *wanted], ["shop"], ["web"], [effect()]) == tuple(wanted)
    many = [metric("shop", f"errors_{n}") for n in range(20)] + [metric("web", f"errors_{n}") for n in range(20)]
    assert [r.component for r in guards(many, ["shop"], ["web"], [])] == ["shop", "shop", "web", "web"]
    callers = [f"web-{n}" for n in range(20)]
    assert len(guards([metric(c, "errors") for c in callers], [], callers, [])) == 8
    assert guards(wanted, [], [], []) == ()


def test_shares_of_the_requests_are_guarded_before_counts() -> None:
    counts = [metric("web", name, "", "sum") for name in ("connection_errors", "errors_4xx", "errors_5xx")]
    share = metric("web", "error_rate_percent", "%")
    assert guards([*counts, share], ["shop"], ["web"], []) == (share, counts[0])


@pytest.mark.parametrize(
    ("ref", "before", "after", "expected"),
    [
        (metric("web", "error_rate_percent", "%"), [0.5, 0.6, 0.4], 40.0, True),
        (metric("web", "error_rate_percent", "%"), [0.5, 0.6, 0.4], 2.4, False),  # less than two points
        (metric("web", "error_rate_percent", "%"), [30.0, 35.0, 33.0], 45.0, False),  # bad already: not twice
        (metric("web", "error_rate_percent", "%"), [54.0, 57.0, 55.0], 77.0, True),  # half of those still served
        (metric("web", "error_rate_percent", "%"), [54.0, 57.0, 55.0], 66.0, False),  # a quarter of them
        (metric("web", "error_rate_percent", "%"), [0.5, 60.0, 0.4], 40.0, False),  # seen before
        (metric("web", "availability_percent", "%"), [99.9, 99.8, 100.0], 90.0, True),
        (metric("web", "availability_percent", "%"), [99.9, 99.8, 100.0], 99.0, False),
        (metric("web", "success_ratio", "ratio"), [0.99, 0.98, 1.0], 0.6, True),
        (metric("web", "success_ratio", "ratio"), [0.99, 0.98, 1.0], 0.975, False),
        (metric("web", "error_ratio", "ratio"), [0.0, 0.0, 0.001], 0.3, True),
        (metric("web", "error_ratio", "ratio"), [0.0, 0.0, 0.001], 0.01, False),
        (metric("web", "latency_p95_ms", "ms"), [100.0, 110.0, 90.0], 400.0, True),
        (metric("web", "latency_p95_ms", "ms"), [100.0, 110.0, 90.0], 150.0, False),
        (metric("web", "latency_p95_ms", "ms"), [4.0, 5.0, 6.0], 14.0, False),  # nobody notices
        (metric("web", "latency_p95_seconds", "s"), [0.1, 0.1, 0.1], 0.4, True),
        (metric("web", "errors", "", "sum"), [0.0, 0.0, 1.0], 3.0, False),  # chance
        (metric("web", "errors", "", "sum"), [0.0, 0.0, 1.0], 60.0, True),
        (metric("shop", "requests_per_second", "/s"), [50.0, 60.0, 55.0], 2.0, True),  # it answers nobody any more
        (metric("shop", "requests_per_second", "/s"), [50.0, 60.0, 55.0], 25.0, False),  # shed on purpose
        (metric("shop", "requests_per_second", "/s"), [0.0, 0.0, 0.0], 0.0, False),
        (metric("web", "error_rate_percent", "%"), [0.5], None, False),
        (metric("web", "error_rate_percent", "%"), [], 40.0, False),
    ],
)
def test_harm_is_beyond_all_that_was_and_twice_as_bad_or_takes_much_of_what_was_left(
    ref: SeriesRef, before: list[float], after: float | None, expected: bool
) -> None:
    points = [(60.0 * n, value) for n, value in enumerate(before)]
    assert bool(harm(ref, points, after)) is expected


def test_harm_is_told_with_its_figures() -> None:
    ref = metric("web", "error_rate_percent", "%")
    assert harm(ref, [(0.0, 0.5), (60.0, 0.5)], 41.25) == "web error_rate_percent: 0.5 -> 41.25"


def test_what_came_true_has_the_level_it_came_to() -> None:
    checks = [check(effect(), 100.0, 2.0), check(effect(), 100.0, 60.0), check(effect(), 100.0, 95.0)]
    assert [e.value for e in reached(checks)] == [31.0, 60.0]
