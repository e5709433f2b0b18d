"""Would it have recovered anyway? From readings before, and from what no remedy reached, to whose merit it was."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.base import Edge, Series, SeriesRef
from graph.control import Credit, Twin, controls, credit, reached, recovers_alone, twin
from graph.state import Evidence, ExpectedEffect, Finding

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
FIRST = NOON.timestamp()
ERRORS = SeriesRef(source="m", component="shop", metric="error_rate_percent", unit="%", query="q")
FALLS = ExpectedEffect(ref=ERRORS, comparator="<=", value=30, within_minutes=15, baseline=1, observed=100)
RISES = ExpectedEffect(ref=ERRORS, comparator=">=", value=90, within_minutes=15, baseline=100, observed=50)


def readings(values: Sequence[float]) -> list[Series]:
    """One a minute, the last one a minute before the first call."""
    at = [FIRST - 60 * (len(values) - n) for n in range(len(values))]
    return [Series(ref=ERRORS, epoch_s=at, values=list(values))]


@pytest.mark.parametrize(
    ("values", "effect", "expected"),
    [
        ([100.0] * 15, FALLS, False),
        ([100.0 - 4 * n for n in range(15)], FALLS, True),  # at 44, 4 a minute: at 30 within 4 minutes
        ([100.0 - n for n in range(15)], FALLS, False),  # far too slow
        ([40.0 + 4 * n for n in range(15)], FALLS, False),  # the other way
        ([50.0 + 2 * n for n in range(15)], RISES, True),
        ([50.0 - n for n in range(15)], RISES, False),
        ([100.0, 4.0] * 7, FALLS, False),  # to and fro is no trend
        ([100.0 - 4 * n if n != 7 else 900.0 for n in range(15)], FALLS, True),  # one outlier changes nothing
        ([100.0, 80.0, 60.0, 40.0], FALLS, None),
        ([], FALLS, None),
    ],
)
def test_the_trend_before_the_first_call(
    values: Sequence[float], effect: ExpectedEffect, expected: bool | None
) -> None:
    assert recovers_alone(readings(values), effect, FIRST, FIRST + 8 * 60) is expected


def test_many_readings_within_a_minute_are_one() -> None:
    at = [FIRST - 180 + n for n in range(180)]
    dense = [Series(ref=ERRORS, epoch_s=at, values=[200.0 - n for n in range(180)])]
    assert recovers_alone(dense, FALLS, FIRST, FIRST + 600) is None


@given(level=st.floats(31, 1e6), noise=st.lists(st.floats(-0.4, 0.4), min_size=15, max_size=15), met=st.floats(0, 900))
def test_what_never_moved_further_than_its_jitter_does_not_recover_alone(
    level: float, noise: list[float], met: float
) -> None:
    far = FALLS.model_copy(update={"value": 1.0})
    flat = [level * (1 + 0.01 * n) for n in noise]
    rising = sorted(flat)
    assert recovers_alone(readings(rising), far, FIRST, FIRST + met) is False
    assert recovers_alone(readings(flat), far, FIRST, FIRST + met) is False


EDGES = [
    Edge(caller="web", callee="shop", source="t"),
    Edge(caller="shop", callee="db", source="t"),
    Edge(caller="db", callee="shop", source="t"),  # a circle ends
    Edge(caller="mail", callee="smtp", source="t"),
    Edge(caller="web", callee="search", source="t"),
]


def test_the_remedy_reaches_callers_and_callees_but_not_what_its_callers_call_besides() -> None:
    assert reached(["shop"], EDGES) == {"shop", "web", "db"}
    assert reached(["lonely"], EDGES) == {"lonely"}


def finding(component: str, metric: str = "error_rate_percent", effect: float = 5.0, worse: str = "up") -> Finding:
    return Finding.model_validate(
        {
            "id": f"E-{component}-{metric}",
            "kind": "metric",
            "component": component,
            "signal": metric,
            "at": NOON,
            "observed": 100.0,
            "baseline": 0.0,
            "effect": effect,
            "summary": "",
            "worse": worse,
            "ref": ERRORS.model_copy(update={"metric": metric, "component": component}),
        }
    )


def test_controls_have_the_same_trouble_out_of_reach_and_are_few() -> None:
    found = [finding("shop"), finding("search", effect=9), finding("mail"), finding("mail", "latency_p95_ms")]
    found += [finding("cdn", worse="neutral"), *(finding(f"other-{n}", effect=0.1) for n in range(5))]
    evidence = Evidence(digest="", findings=tuple(found), suspects=())
    chosen = controls(evidence, [FALLS], frozenset({"shop"}))
    assert [f.component for f in chosen] == ["search", "mail", "other-0"]


@pytest.mark.parametrize(
    ("before", "after", "recovered"),
    [
        (100.0, 100.0, 0.0),
        (100.0, 25.0, 0.75),
        (80.0, 0.0, 1.0),
        (40.0, 0.0, None),
        (None, 0.0, None),
        (90.0, None, None),
    ],
)
def test_how_far_a_control_came_back(before: float | None, after: float | None, recovered: float | None) -> None:
    seen = twin(finding("mail"), before, after)
    assert (seen.recovered if seen else None) == recovered


def beside(share: float) -> list[Twin]:
    return [Twin("mail", "errors", share)]


@pytest.mark.parametrize(
    ("alone", "twins", "expected"),
    [
        ([False, False], [], "remedy"),
        ([True, True, False], [], "by_itself"),
        ([None], [], "unclear"),
        ([], [], "unclear"),
        ([False], beside(0.0), "remedy"),
        ([None], beside(0.1), "remedy"),
        ([True], beside(0.0), "unclear"),
        ([False], beside(0.5), "unclear"),
        ([False], beside(0.95), "by_itself"),
        ([True], beside(0.95), "by_itself"),
    ],
)
def test_whose_merit_it_was(alone: list[bool | None], twins: list[Twin], expected: Credit) -> None:
    judged, said = credit(alone, 0.9, twins)
    assert judged == expected
    assert ("mail errors by" in said) == bool(twins)


def test_the_control_is_told_with_its_figures() -> None:
    assert credit([False, False, True], 0.9, beside(0.1))[1] == (
        "Before the first call 2 of 3 metrics were not on their way there. Meanwhile, out of the remedy's reach,"
        " the way back to normal was made by mail errors by 10 %; with the remedy by 90 % (difference 80 %)."
    )
