"""Erlang's formulas: against published tables, their closed forms, and what must hold for any load."""

from math import exp, factorial, inf, lgamma, log

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.queueing import erlang_b, erlang_c, response_time, waiting_time

SERVERS = st.integers(1, 60)
UTILISATION = st.floats(0.01, 0.99)


@pytest.mark.parametrize(
    ("servers", "offered", "blocked"),
    # Erlang's table for lost calls: the load at which so many lines lose that share
    [
        (1, 0.0101, 0.01),
        (2, 0.1526, 0.01),
        (5, 1.3608, 0.01),
        (10, 4.4612, 0.01),
        (20, 12.031, 0.01),
        (50, 44.533, 0.05),
    ],
)
def test_lost_calls_as_in_the_table(servers: int, offered: float, blocked: float) -> None:
    assert erlang_b(servers, offered) == pytest.approx(blocked, rel=2e-3)


@pytest.mark.parametrize(
    ("servers", "offered", "waits"),
    [(2, 1.0, 1 / 3), (3, 2.0, 4 / 9), (10, 8.0, 0.40918), (2, 1.8, 0.85263)],
)
def test_waiting_as_in_textbooks(servers: int, offered: float, waits: float) -> None:
    assert erlang_c(servers, offered) == pytest.approx(waits, rel=1e-4)


@settings(deadline=None)
@given(SERVERS, UTILISATION)
def test_the_closed_form(servers: int, utilisation: float) -> None:
    a = servers * utilisation
    full = a**servers / factorial(servers) * servers / (servers - a)
    assert erlang_c(servers, a) == pytest.approx(full / (sum(a**n / factorial(n) for n in range(servers)) + full))


@settings(deadline=None)
@given(UTILISATION)
def test_one_server_is_the_simple_queue(utilisation: float) -> None:
    assert waiting_time(1, utilisation) == pytest.approx(utilisation / (1 - utilisation))


@settings(deadline=None)
@given(SERVERS, UTILISATION, st.floats(0.001, 0.5))
def test_more_load_waits_longer(servers: int, utilisation: float, more: float) -> None:
    assert waiting_time(servers, utilisation) <= waiting_time(servers, utilisation + more)


@settings(deadline=None)
@given(SERVERS, UTILISATION)
def test_more_servers_as_busy_wait_shorter(servers: int, utilisation: float) -> None:
    assert waiting_time(servers + 1, utilisation) < waiting_time(servers, utilisation)


@settings(deadline=None)
@given(SERVERS, st.floats(1.0, 10.0))
def test_what_is_overloaded_waits_without_end(servers: int, utilisation: float) -> None:
    assert waiting_time(servers, utilisation) == inf
    assert erlang_c(servers, servers * utilisation) == 1.0


def test_nobody_waits_where_nothing_comes() -> None:
    assert erlang_c(4, 0.0) == 0.0
    assert response_time(4, 0.0) == 1.0


@pytest.mark.parametrize("servers", [1_000, 50_000, 10_000_000])
def test_large_systems_stay_in_range(servers: int) -> None:
    assert 0.0 <= erlang_c(min(servers, 50_000), 0.999 * min(servers, 50_000)) <= 1.0
    assert response_time(servers, 0.5) == pytest.approx(1.0)
    assert 1.0 < response_time(servers, 0.9999) < 1.0 + 1.0 / (min(servers, 100_000) * 0.0001)


def test_with_very_many_servers_the_chance_to_be_blocked_is_of_the_poisson_distribution() -> None:
    a = 100.0
    poisson = exp(200 * log(a) - a - lgamma(201))
    assert erlang_b(200, a) == pytest.approx(poisson, rel=1e-6)
