"""Whom an option touches, what share of the requests, and what is left to serve them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.base import Edge, Series, SeriesRef
from executors.base import Capacity
from graph.blast_radius import (
    Surroundings,
    affected,
    blast_radius,
    capacity_check,
    estimates,
    overloads,
    request_share,
)
from graph.observed_load import ObservedLoad, Utilisation, load_of
from graph.state import CapacityEstimate

END = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
NAMES = st.sampled_from("abcdefgh")


def calls(*pairs: str, asynchronous: bool = False) -> list[Edge]:
    """`web>shop` is a call of shop by web."""
    ends = (pair.split(">") for pair in pairs)
    return [Edge(caller=a, callee=b, source="catalogue", asynchronous=asynchronous) for a, b in ends]


def radius(*changed: str, edges: list[Edge]) -> list[tuple[str, str, int]]:
    return [(a.service, a.how, a.hops) for a in affected(changed, edges)]


# --- who feels it ---


def test_callers_feel_it_three_calls_up_and_what_is_called_one_call_down() -> None:
    edges = calls("a>b", "b>c", "c>d", "d>e", "e>f", "f>g")
    assert radius("e", edges=edges) == [
        ("e", "changed", 0),
        ("d", "caller", 1),
        ("c", "caller", 2),
        ("b", "caller", 3),
        ("f", "callee", 1),
    ]


def test_who_does_not_wait_does_not_feel_it() -> None:
    edges = calls("web>shop", "shop>db") + calls("shop>mail", "cron>shop", asynchronous=True)
    assert radius("shop", edges=edges) == [("shop", "changed", 0), ("web", "caller", 1), ("db", "callee", 1)]
    both = edges + calls("cron>shop")  # another source saw it wait
    assert ("cron", "caller", 1) in radius("shop", edges=both)


def test_each_service_is_told_once_as_what_it_feels_most() -> None:
    circle = calls("a>b", "b>a", "a>a")
    assert radius("a", edges=circle) == [("a", "changed", 0), ("b", "caller", 1)]
    assert radius("a", "b", "a", edges=circle) == [("a", "changed", 0), ("b", "changed", 0)]
    assert radius(edges=circle) == []


@settings(deadline=None)
@given(st.lists(st.tuples(NAMES, NAMES), max_size=20), st.sets(NAMES, min_size=1))
def test_the_nearest_way_counts(pairs: list[tuple[str, str]], changed: set[str]) -> None:
    found = affected(sorted(changed), calls(*(f"{a}>{b}" for a, b in pairs)))
    by_name = {a.service: a for a in found}
    assert len(by_name) == len(found)
    assert {a.service for a in found if a.how == "changed"} == changed
    for service in found:
        if service.how == "caller":
            next_hop = [by_name[b] for a, b in pairs if a == service.service and b in by_name]
            assert 1 <= service.hops <= 3
            assert min(n.hops for n in next_hop if n.how != "callee") == service.hops - 1


# --- what share of the requests ---


def around(requests: dict[str, float], edges: list[Edge], *scope: str) -> Surroundings:
    return Surroundings(edges, frozenset(scope), ObservedLoad(requests=requests))


def test_requests_are_counted_against_those_that_enter_the_scope() -> None:
    edges = calls("web>shop", "app>shop", "shop>db")
    seen = around({"web": 60.0, "app": 40.0, "shop": 25.0, "db": 300.0}, edges, "web", "app", "shop", "db")
    assert request_share(["shop"], seen) == 0.25
    assert request_share(["shop", "shop", "web"], seen) == 0.85
    assert request_share(["db"], seen) == 1.0  # three queries a request
    assert request_share([], seen) == 0.0


@pytest.mark.parametrize(
    "requests",
    [{}, {"web": 60.0}, {"shop": 25.0}, {"web": 0.0, "shop": 0.0}],
)
def test_what_is_not_measured_is_not_told(requests: dict[str, float]) -> None:
    assert request_share(["shop"], around(requests, calls("web>shop"), "web", "shop")) is None


def test_callers_out_of_the_scope_bring_requests_in() -> None:
    seen = around({"shop": 10.0, "cart": 30.0}, calls("web>shop", "web>cart"), "shop", "cart")
    assert request_share(["shop"], seen) == 0.25


# --- what is left ---


def busy(share: float) -> ObservedLoad:
    return ObservedLoad(utilisation={"shop": Utilisation(share, "cpu of s")})


def left(now: float, then: float, share: float, load: float = 1.0) -> CapacityEstimate:
    [estimate] = estimates([Capacity(service="shop", servers_now=now, servers_then=then, load_then=load)], busy(share))
    return estimate


def test_half_of_the_servers_are_twice_as_busy() -> None:
    estimate = left(4, 2, 0.65)
    assert (estimate.utilisation_now, estimate.utilisation_then, estimate.wait_then) == (0.65, 1.3, None)
    assert overloads(estimate)
    check = capacity_check(estimate)
    assert (check.status, check.detail) == (
        "warning",
        "shop: would leave 2 of 4 instances for 130 % of what they can serve",
    )


def test_waiting_is_that_of_a_queue() -> None:
    # one server at 40 %: 1 / (1 - 0.4) times the service; two at 20 %: 1 / (1 - 0.2²)
    assert left(2, 1, 0.2).wait_then == pytest.approx((1 / 0.6) / (1 / 0.96), abs=0.005)
    check = capacity_check(left(2, 1, 0.2))
    assert (check.status, check.detail) == ("ok", "shop: 1 of 2 instances for 40 % of what they can serve")


def test_more_servers_and_less_load_relieve() -> None:
    scaled, shed = left(4, 8, 0.9), left(4, 4, 0.9, load=0.5)
    assert (scaled.utilisation_then, shed.utilisation_then) == (0.45, 0.45)
    assert scaled.wait_then is not None
    assert scaled.wait_then < 1
    assert capacity_check(scaled).detail == "shop: 4 -> 8 instances for 45 % of what they can serve"
    assert capacity_check(shed).detail == "shop: 4 instances for 45 % of what they can serve"
    assert capacity_check(left(1, 1, 0.9, load=0.5)).detail == "shop: 1 instance for 45 % of what they can serve"


def test_what_is_full_already_is_not_blamed_on_the_option() -> None:
    full = left(4, 4, 1.0)
    assert (full.utilisation_then, full.wait_then, overloads(full)) == (1.0, None, False)
    assert not overloads(left(4, 6, 1.8))
    assert overloads(left(4, 3, 1.0))


def test_nothing_left_is_a_warning_whatever_was_measured() -> None:
    [unmeasured] = estimates([Capacity(service="shop", servers_now=1, servers_then=0)], ObservedLoad())
    for estimate in (unmeasured, left(1, 0, 0.1)):
        check = capacity_check(estimate)
        assert (check.status, check.detail) == ("warning", "shop: would leave 0 of 1 instances for a while")


def test_without_a_measure_there_is_no_number() -> None:
    [estimate] = estimates([Capacity(service="shop", servers_now=4, servers_then=2)], ObservedLoad())
    assert (estimate.utilisation_now, estimate.utilisation_then, estimate.wait_then) == (None, None, None)
    check = capacity_check(estimate)
    assert (check.status, check.detail) == ("skipped", "2 of 4 instances; how busy shop is was not measured")


def test_a_step_gets_the_load_that_the_steps_before_leave() -> None:
    shed = Capacity(service="shop", servers_now=4, servers_then=4, load_then=0.5)
    restart = Capacity(service="shop", servers_now=4, servers_then=2)
    other = Capacity(service="db", servers_now=2, servers_then=1)
    found = estimates([shed, other, restart], busy(0.8))
    assert [e.utilisation_then for e in found] == [0.4, None, 0.8]


@settings(deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.floats(0.01, 0.99), st.floats(0.0, 3.0), st.sampled_from([0.0, 0.3, 0.7])
)
def test_waiting_and_use_agree(now: int, then: int, share: float, load: float, part: float) -> None:
    estimate = left(now, then + part, share, load)
    assert estimate.utilisation_then == pytest.approx(share * load * now / (then + part), abs=1e-4)
    assert estimate.utilisation_then is not None
    if abs(estimate.utilisation_then - 1.0) > 1e-3:
        assert (estimate.wait_then is None) == (estimate.utilisation_then > 1.0)


@pytest.mark.parametrize(
    ("each", "said"), [([], "all"), ([True, True], "all"), ([True, False], "partly"), ([False], "no")]
)
def test_what_can_be_put_back(each: list[bool], said: str) -> None:
    assert blast_radius(["shop"], [], each, Surroundings()).reversible == said


# --- how busy it was ---


def series(component: str, metric: str, *values: float, **others: Any) -> Series:
    given = {"source": "dd", "query": f"{metric}:{component}", "statistic": "avg", **others}
    ref = SeriesRef(component=component, metric=metric, **given)
    times = [END.timestamp() - 60.0 * (len(values) - i) for i in range(len(values))]
    return Series(ref=ref, epoch_s=times, values=values)


def test_the_last_minutes_count() -> None:
    many = [1000.0] * 20 + [8.0, 9.0, 10.0, 11.0, 12.0]
    seen = load_of([series("shop", "requests_per_second", *many, unit="request/second")], END)
    assert seen.requests == {"shop": 10.0}
    old = Series(ref=series("shop", "requests_per_second", 1.0).ref, epoch_s=[END.timestamp() - 900], values=[5.0])
    assert load_of([old], END).requests == {}


def test_requests_are_of_the_metric_that_most_services_have() -> None:
    seen = load_of(
        [
            series("shop", "requests_per_second", 10.0),
            series("web", "requests_per_second", 20.0),
            series("shop", "RequestCount", 600.0, source="aws", statistic="sum"),
            series("shop", "RequestCount", 1.0, source="aws", statistic="avg"),
            series("shop", "error_rate_percent", 3.0, unit="percent"),
        ],
        END,
    )
    assert seen.requests == {"shop": 10.0, "web": 20.0}


def test_a_service_that_has_the_same_count_twice_is_counted_once() -> None:
    seen = load_of(
        [
            series("shop", "RequestCount", 500.0, statistic="sum", query="by group"),
            series("shop", "RequestCount", 600.0, statistic="sum", query="by group and balancer"),
        ],
        END,
    )
    assert seen.requests == {"shop": 600.0}


def test_what_is_full_first_tells_how_busy_a_service_is_and_memory_does_not() -> None:
    seen = load_of(
        [
            series("shop", "db_connection_pool_utilization", 30.0, unit="percent"),
            series("shop", "cpu_utilization_percent", 40.0, unit="percent", query="a"),
            series("shop", "memory_utilization_percent", 97.0, unit="percent"),
            series("pay", "db_connection_pool_utilization", 99.0, unit="percent"),
            series("pay", "cpu_utilization_percent", 40.0, unit="percent"),
            series("pay", "network_utilization_percent", 99.5, unit="percent"),
            series("db", "network_utilization_ratio", 0.5, unit="ratio"),
            series("db", "disk_utilization_percent", 99.0, unit="percent"),
            series("cache", "memory_utilization_percent", 97.0, unit="percent"),
        ],
        END,
    )
    found = {name: (u.share, u.basis.split()[0]) for name, u in seen.utilisation.items()}
    assert found == {
        "shop": (0.4, "cpu_utilization_percent"),
        "pay": (0.99, "db_connection_pool_utilization"),
        "db": (0.5, "network_utilization_ratio"),
    }
    assert seen.utilisation["shop"].basis == "cpu_utilization_percent of dd, 40 % at 12:00 UTC"
