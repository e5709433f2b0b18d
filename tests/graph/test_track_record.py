"""Track records: what a run counts for, and intervals that mean what they say."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graph.llms.base import Counted, TrackRecord
from graph.track_record import (
    ELSEWHERE,
    ELSEWHERE_AT_MOST,
    HALF_LIFE,
    OPINION,
    Outcome,
    beta_cdf,
    beta_interval,
    beta_quantile,
    track_records,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def outcome(
    resolved: float = 1.0, *, here: bool = True, worse: bool = False, age: timedelta = timedelta(), done: bool = True
) -> Outcome:
    return Outcome({"restart": resolved}, here, worse, NOW - age, done)


def record(outcomes: Sequence[Outcome]) -> TrackRecord:
    return track_records(outcomes, NOW)["restart"]


def test_runs_on_the_component_itself_count_in_full() -> None:
    made = record([outcome(), outcome(), outcome(), outcome(0.0, worse=True)])
    assert (made.runs, made.resolved, made.worse) == (4.0, 3.0, 1.0)
    assert made.here == Counted(4, 3, 1)
    assert made.elsewhere == Counted()
    assert (made.low, made.high) == beta_interval(3, 1)


def test_runs_elsewhere_count_for_less_and_together_for_a_few() -> None:
    one = record([outcome(here=False)])
    assert (one.runs, one.resolved) == (ELSEWHERE, ELSEWHERE)
    many = record([outcome(0.0), *(outcome(here=False) for _ in range(100))])
    assert many.runs == pytest.approx(1 + ELSEWHERE_AT_MOST)
    assert many.resolved == pytest.approx(ELSEWHERE_AT_MOST)
    assert (many.here, many.elsewhere) == (Counted(1, 0), Counted(100, 100))


def test_four_failures_here_outvote_a_hundred_successes_elsewhere() -> None:
    made = record([*(outcome(0.0) for _ in range(5)), *(outcome(here=False) for _ in range(100))])
    assert made.resolved / made.runs < 0.5


def test_a_run_counts_for_half_after_each_half_life() -> None:
    made = record([outcome(age=HALF_LIFE), outcome(0.0, age=2 * HALF_LIFE)])
    assert (made.runs, made.resolved) == pytest.approx((0.75, 0.5))
    assert made.here == Counted(2, 1)
    assert record([outcome(age=-HALF_LIFE)]).runs == 1.0  # a clock that is behind


def test_an_opinion_on_what_was_never_run_is_no_run() -> None:
    made = record([outcome(0.0, done=False)])
    assert made.runs == OPINION
    assert made.here == Counted()


def test_operations_are_counted_apart() -> None:
    made = track_records([outcome(), Outcome({"scale": 0.0}, True, False, NOW)], NOW)
    assert {name: one.resolved for name, one in made.items()} == {"restart": 1.0, "scale": 0.0}
    assert track_records([], NOW) == {}


def test_what_was_run_together_is_one_trial_that_its_parts_share() -> None:
    both = Outcome({"scale": 1.0, "restart": 1.0}, True, False, NOW)
    made = track_records([both, both, outcome(0.0)], NOW)
    assert set(made) == {"restart + scale", "restart", "scale"}
    whole, alone = made["restart + scale"], made["restart"]
    assert (whole.runs, whole.resolved, whole.here) == (2.0, 2.0, Counted(2, 2))
    assert (alone.runs, alone.resolved, alone.here) == (2.0, 1.0, Counted(1, 0))
    assert (made["scale"].runs, made["scale"].here) == (1.0, Counted())


def test_the_part_that_people_say_helped_has_the_credit() -> None:
    made = track_records([Outcome({"scale": 1.0, "restart": 0.0}, True, False, NOW)], NOW)
    assert [made[name].resolved for name in ("restart + scale", "scale", "restart")] == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(("a", "b"), [(1, 1), (3, 2), (7, 1), (1, 9), (40, 25)])
@pytest.mark.parametrize("x", [0.001, 0.2, 0.5, 0.83, 0.999])
def test_the_beta_distribution_is_the_binomial_one_seen_from_the_other_side(a: int, b: int, x: float) -> None:
    n = a + b - 1
    assert beta_cdf(x, a, b) == pytest.approx(sum(comb(n, j) * x**j * (1 - x) ** (n - j) for j in range(a, n + 1)))


@given(p=st.floats(0.001, 0.999), a=st.floats(0.05, 1e6), b=st.floats(0.05, 1e6))
def test_a_quantile_undoes_the_distribution(p: float, a: float, b: float) -> None:
    x = beta_quantile(p, a, b)
    assert 0.0 <= x <= 1.0
    below, above = beta_cdf(max(x - 1e-9, 0.0), a, b), beta_cdf(min(x + 1e-9, 1.0), a, b)
    assert below - 1e-6 <= p <= above + 1e-6


def test_the_interval_is_wide_at_first_and_narrows() -> None:
    assert beta_interval(0, 0) == pytest.approx((0.0062, 0.9938), abs=1e-4)
    assert beta_interval(3, 1) == pytest.approx((0.3493, 0.9540), abs=1e-4)
    widths = [high - low for low, high in (beta_interval(3 * n, n) for n in (0, 1, 5, 50, 500))]
    assert widths == sorted(widths, reverse=True)


@given(successes=st.floats(0, 1e4), failures=st.floats(0, 1e4))
def test_more_successes_move_both_ends_up(successes: float, failures: float) -> None:
    low, high = beta_interval(successes, failures)
    better_low, better_high = beta_interval(successes + 1, failures)
    assert low <= high
    assert low <= better_low + 1e-9
    assert high <= better_high + 1e-9


def test_the_interval_covers_what_it_says() -> None:
    """Nine times in ten, over chances and numbers of runs as they occur."""
    dice, covered, tried = random.Random(5), 0, 3000
    for _ in range(tried):
        chance, runs = dice.random(), dice.randint(1, 12)
        successes = sum(dice.random() < chance for _ in range(runs))
        low, high = beta_interval(successes, runs - successes)
        covered += low <= chance <= high
    assert covered / tried == pytest.approx(0.9, abs=0.03)
