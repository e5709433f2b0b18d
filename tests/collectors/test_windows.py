"""Windows joined, aligned, and series put together."""

from datetime import UTC, datetime, timedelta

from collectors._windows import concatenated, joined, whole_periods
from collectors.base import Series, SeriesRef, Window

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
REF = SeriesRef(source="s", component="c", metric="m", query="q")


def window(start_s: float, end_s: float) -> Window:
    return Window(start=T0 + timedelta(seconds=start_s), end=T0 + timedelta(seconds=end_s))


def test_close_windows_are_one_request_and_far_ones_are_not() -> None:
    assert joined([window(0, 600), window(-3000, 0)]) == [window(-3000, 600)]
    assert joined([window(0, 600), window(-86400, -85800)]) == [window(-86400, -85800), window(0, 600)]
    assert joined([window(0, 600), window(100, 200)]) == [window(0, 600)]


def test_only_whole_periods_count() -> None:
    assert whole_periods(window(10, 130), 60) == window(60, 120)
    assert whole_periods(window(60, 120), 60) == window(60, 120)
    assert whole_periods(window(70, 100), 60) == window(60, 120)


def test_the_later_piece_holds() -> None:
    one = Series(ref=REF, epoch_s=(1, 2), values=(1, 1))
    two = Series(ref=REF, epoch_s=(0, 2), values=(5, 5))
    assert concatenated([one, two]) == Series(ref=REF, epoch_s=(0, 1, 2), values=(5, 1, 5))
