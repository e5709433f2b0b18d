"""A source that lies: what cannot be true is dropped, counted and told once."""

import math
from datetime import UTC, datetime, timedelta

from pydantic import TypeAdapter

from collectors._sane import Sieve
from collectors.base import Change, Scope, Series, SeriesRef, Span, Status, Target, Window

T0 = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
AT = T0.timestamp()
REF = SeriesRef(source="lying", component="payment", metric="errors", query="q")
SCOPE = Scope(
    service="payment",
    occurred_at=T0,
    incident=Window(start=T0, end=T0 + timedelta(minutes=30)),
    baseline=(Window(start=T0 - timedelta(minutes=50), end=T0),),
    targets=(Target(service="payment"),),
)


def series(*points: tuple[float, float]) -> Series:
    return Series(ref=REF, epoch_s=tuple(at for at, _ in points), values=tuple(value for _, value in points))


def span(**changes: object) -> Span:
    known = {"component": "payment", "trace_id": "t", "span_id": "s", "operation": "pay", "start_s": AT}
    return TypeAdapter(Span).validate_python({**known, "duration_ms": 5.0, **changes})


def test_sound_rows_pass_untouched_and_nothing_is_told() -> None:
    sieve, sound = Sieve("lying", SCOPE), series((AT, 1.0), (AT + 30, 2.0))
    assert [x is sound for x in sieve.series([sound])] == [True]
    assert list(sieve.series([series()])) == [series()]
    assert list(sieve.spans([span()])) == [span()]
    assert sieve.gaps == ()


def test_points_that_are_no_numbers_or_of_another_time_are_dropped() -> None:
    sieve = Sieve("lying", SCOPE)
    points = [(AT, math.nan), (AT + 1, math.inf), (AT + 2, 3.0), (AT * 1000, 4.0), (math.nan, 5.0), (0.0, 6.0)]
    assert list(sieve.series([series(*points)])) == [series((AT + 2, 3.0))]
    [gap] = sieve.gaps
    assert "2 points that are no finite numbers" in gap.detail
    assert "3 points far outside the time asked for" in gap.detail
    assert gap.mend


def test_points_come_in_order_and_once() -> None:
    mixed = series((AT + 60, 3.0), (AT, 1.0), (AT + 60, 4.0))
    assert list(Sieve("lying", SCOPE).series([mixed])) == [series((AT, 1.0), (AT + 60, 4.0))]


def test_a_series_of_unequal_columns_cannot_be_read() -> None:
    sieve = Sieve("lying", SCOPE)
    assert list(sieve.series([Series(ref=REF, epoch_s=(AT,), values=(1.0, 2.0))])) == []
    assert "1 series" in sieve.gaps[0].detail


def test_spans_of_impossible_length_or_time_are_dropped() -> None:
    sieve = Sieve("lying", SCOPE)
    wrong: list[dict[str, object]] = [
        {"duration_ms": -1},
        {"duration_ms": math.nan},
        {"duration_ms": math.inf},
        {"start_s": 4e9},
    ]
    assert list(sieve.spans(span(**one) for one in wrong)) == []
    assert "3 spans of an impossible length" in sieve.gaps[0].detail
    assert "1 spans far outside" in sieve.gaps[0].detail


def test_a_change_may_be_weeks_old_but_not_of_the_future() -> None:
    sieve = Sieve("lying", SCOPE)
    old, new, ancient = (
        Change(component="payment", at=at, kind="deploy", title="v2")
        for at in (T0 - timedelta(days=20), datetime(2099, 1, 1, tzinfo=UTC), T0 - timedelta(days=60))
    )
    assert list(sieve.changes([old, new, ancient])) == [old]


def test_states_are_numbers() -> None:
    sieve = Sieve("lying", SCOPE)
    good = Status(component="payment", name="tasks", at=T0, observed=2, expected=3)
    wrong = [good.model_copy(update={"observed": math.nan}), good.model_copy(update={"expected": math.inf})]
    assert list(sieve.statuses([good, *wrong])) == [good]
    assert "2 states" in sieve.gaps[0].detail


def test_without_a_scope_any_time_is_believed_but_not_any_number() -> None:
    sieve = Sieve("lying", None)
    assert list(sieve.series([series((4e9, 1.0), (5e9, math.nan))])) == [series((4e9, 1.0))]
