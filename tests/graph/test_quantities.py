"""Numbers and times as people write them."""

import pytest

from graph.moments import moments
from graph.quantities import Quantity, leftovers, quantities, supported, versions


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("1만 2천 건", 12_000, ""),
        ("1억 2,000만 명", 120_000_000, ""),
        ("1.3만 건", 13_000, ""),
        ("2분 30초 동안", 150, "s"),
        ("1 minute 30 seconds", 90, "s"),
        ("twenty-five minutes", 25, "min"),
        ("two hundred and fifty thousand", 250_000, ""),
        ("half a second", 0.5, "s"),
        ("a quarter of them", 25, "%"),
        ("3분의 1", 33.3, "%"),
        ("두 배", 2, "times"),
        ("열두 개", 12, ""),
        ("오십 개", 50, ""),
        ("삼십 초", 30, "s"),
        ("５０개", 50, ""),
        ("a minute later", 60, "s"),
        ("99%p", 99, "%"),
    ],
)
def test_a_number_is_read(text: str, value: float, unit: str) -> None:
    (found,) = quantities(text)
    assert supported(found, [Quantity.of(value, unit)])
    assert not supported(found, [Quantity.of(value * 1.3, unit)])


@pytest.mark.parametrize(
    ("claimed", "measured", "holds"),
    [
        ("1,284 errors a minute", "1,284 lines a minute", True),
        ("1,284 errors a second", "1,284 lines a minute", False),
        ("분당 1,284건", "1,284 lines per minute", True),
        ("초당 34건", "2040 requests per minute", True),
        ("hundreds of errors", "512", True),
        ("hundreds of errors", "5120", False),
        ("수천 건", "5120", True),
        ("5 errors", "5 ms", False),
        ("twice", "2 times", True),
    ],
)
def test_rates_ranges_and_counts(claimed: str, measured: str, *, holds: bool) -> None:
    assert all(supported(q, quantities(measured)) for q in quantities(claimed)) is holds


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("오후 9시 15분에", "21:15"),
        ("오전 12시 5분", "00:05"),
        ("9:15 PM", "21:15"),
        ("9 am", "09"),
        ("2024년 12월 20일", "2024-12-20"),
        ("Dec 20, 2024", "2024-12-20"),
        ("on 20 December", "12-20"),
        ("금요일에", "Friday"),
    ],
)
def test_a_time_is_read(text: str, shown: str) -> None:
    assert [moment.shown for moment in moments(text)] == [shown]
    assert quantities(text) == ()


def test_digits_that_are_no_number_are_left_over() -> None:
    assert leftovers("HikariPool-1, p95, 5xx, 2m30s at 09:15 in v2.1.0: 50 ms") == [
        "HikariPool-1",
        "p95",
        "5xx",
        "2m30s",
    ]
    assert versions("v2.14.0은 10.0.3.7") == ["v2.14.0", "10.0.3.7"]
