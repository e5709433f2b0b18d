"""Counts at the same load."""

import pytest

from collectors.base import SeriesRef
from graph.per_request import Load, at_the_load_before, grows_with_requests, requests_beside


def metric(name: str, unit: str = "", statistic: str = "avg", component: str = "shop", source: str = "m") -> SeriesRef:
    return SeriesRef(source=source, component=component, metric=name, unit=unit, statistic=statistic, query=name)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        (metric("HTTPCode_Target_5XX_Count", statistic="sum"), True),
        (metric("logs.error", "lines", "sum"), True),
        (metric("traces.errors", "/s", "rate"), True),
        (metric("connection_timeouts", "error/min"), True),
        (metric("revenue_lost", "$/min"), True),
        (metric("messages_visible"), True),
        (metric("error_rate_percent", "%"), False),
        (metric("error_ratio", "ratio"), False),
        (metric("error_rate"), False),  # of what, nobody says: it may be a share
        (metric("age_of_oldest_message", "s"), False),
        (metric("latency_p95_ms", "ms"), False),
        (metric("cpu_utilization_percent", "%"), False),
        (metric("pod_restarts", statistic="sum"), False),
    ],
)
def test_what_half_the_requests_make_half_of(ref: SeriesRef, expected: bool) -> None:
    assert grows_with_requests(ref) is expected


def test_requests_are_those_of_the_same_component_and_of_all_outcomes() -> None:
    errors = metric("errors", statistic="sum")
    others = [
        metric("requests", component="web"),
        metric("HTTPCode_Target_2XX_Count", statistic="sum"),
        metric("latency_p95_ms", "ms"),
    ]
    assert requests_beside(errors, others) is None
    elsewhere, commits = metric("requests", source="other"), metric("db_commits")
    assert requests_beside(errors, [*others, elsewhere]) == elsewhere
    assert requests_beside(errors, [*others, elsewhere, commits]) == commits
    named = metric("requests_per_second", "/s")
    assert requests_beside(errors, [*others, elsewhere, commits, named]) == named


@pytest.mark.parametrize(
    ("before", "now", "load", "expected"),
    [
        (80.0, 40.0, Load(100.0, 50.0), 80.0),  # shed
        (80.0, 10.0, Load(100.0, 50.0), 20.0),  # shed, and better for those who are let in
        (80.0, 100.0, Load(100.0, 50.0), 200.0),
        (80.0, 160.0, Load(100.0, 200.0), 80.0),  # let in again
        (80.0, 70.0, Load(100.0, 50.0), 80.0),  # a sampled count: fell, and its share rose
        (80.0, 90.0, Load(100.0, 200.0), 80.0),
        (80.0, 0.0, Load(100.0, 50.0), 0.0),
        (80.0, 0.0, Load(100.0, 5.0), None),  # nobody asks: that nothing fails says nothing
        (80.0, 40.0, Load(None, 50.0), 40.0),
        (80.0, 40.0, Load(0.0, 50.0), 40.0),
        (80.0, 40.0, Load(100.0, None), 40.0),
    ],
)
def test_at_the_load_before(before: float, now: float, load: Load, expected: float | None) -> None:
    assert at_the_load_before(before, now, load) == expected


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (5.0, 9.0, 9.0),  # by chance: no more are made of it
        (24.0, 20.0, 24.0),
        (24.0, 60.0, 120.0),  # surely more, of half the requests
        (80.0, 10.0, 20.0),
        (3.0, 0.0, 0.0),
    ],
)
def test_a_handful_of_events_is_not_made_more_by_fewer_requests(before: float, now: float, expected: float) -> None:
    assert at_the_load_before(before, now, Load(100.0, 50.0), events=True) == expected
