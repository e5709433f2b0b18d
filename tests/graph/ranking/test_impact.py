"""What an incident costs, computed from series: each figure by hand."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import pytest

from collectors.base import Edge, Measures, Scope, Series, SeriesRef, Window
from graph.ranking import impact
from graph.ranking.topology import Topology
from graph.ranking.windows import Windows
from graph.state import ImpactFigure
from tests.graph.ranking import incidents

MINUTE = 60.0
START, ONSET, END = incidents.START.timestamp(), incidents.INCIDENT.timestamp(), incidents.END.timestamp()


def scope() -> Scope:
    day = timedelta(days=1)
    yesterday = Window(start=incidents.INCIDENT - day, end=incidents.END - day)
    return incidents.scope("billing").model_copy(update={"seasonal": (yesterday,)})


def series(
    metric: str,
    normal: float,
    now: float,
    *,
    component: str = "billing",
    unit: str = "",
    statistic: str = "avg",
    measures: Measures = "",
    yesterday: float | None = None,
) -> Series:
    """A sample a minute: an hour of what is normal, five minutes of what is."""
    ref = SeriesRef(
        source="m", component=component, metric=metric, unit=unit, statistic=statistic, query=metric, measures=measures
    )
    times = [START + MINUTE * i for i in range(round((END - START) / MINUTE))]
    points = {t: now if t >= ONSET else normal for t in times}
    if yesterday is not None:
        points = {t - 86400.0: yesterday for t in times if t >= ONSET} | points
    return Series(ref=ref, epoch_s=tuple(points), values=tuple(points.values()))


def figures(
    *given: Series, found: Sequence[str] | None = None, edges: Sequence[Edge] = ()
) -> Mapping[str, ImpactFigure]:
    """By name; ``found`` are the metrics that a finding shows, else all are."""
    ids = {s.ref: f"E{n}" for n, s in enumerate(given, start=1) if found is None or s.ref.metric in found}
    told = impact.figures(given, "billing", Windows.of(scope()), ids, Topology.of(edges, ()))
    return {f.name: f for f in told}


def test_failed_requests_are_counted_above_the_usual() -> None:
    told = figures(series("HTTPCode_Target_5XX_Count", 2, 32, statistic="sum"))["failed requests"]
    assert (told.value, told.unit, told.evidence) == (150.0, "requests", ("E1",))
    assert told.window == "13:00:00 UTC to 13:05:00 UTC"


def test_failed_requests_from_share_and_rate() -> None:
    rate, share = series("request_rate", 10, 20, unit="requests/s"), series("error_rate", 0.5, 25, unit="%")
    told = figures(rate, share)["failed requests (request rate × error share)"]
    assert told.value == 20 * 300 * 0.25
    assert told.evidence == ("E2", "E1")


def test_a_falling_success_rate_tells_failed_requests_too_and_a_ratio_is_a_share() -> None:
    counted = series("RequestCount", 600, 600, statistic="sum")
    fallen = figures(counted, series("availability", 100, 90, unit="%"))
    assert fallen["failed requests (request rate × error share)"].value == pytest.approx(300)
    ratio = figures(counted, series("fault_ratio", 0, 0.2))
    assert ratio["failed requests (request rate × error share)"].value == pytest.approx(600)
    assert ratio["billing fault_ratio now"].value == pytest.approx(20)


def test_requests_slower_than_the_usual_p95_if_the_median_is_known() -> None:
    rate = series("request_rate", 10, 10, unit="requests/s")
    tail, median = series("latency_p95_ms", 200, 900, unit="ms"), series("latency_p50_ms", 50, 400, unit="ms")
    told = figures(rate, tail, median)
    assert told["requests slower than the usual p95 of 200 ms (at least)"].value == 10 * 300 * 0.5
    assert not any("time lost" in name for name in told)


def test_else_the_time_that_was_lost() -> None:
    rate = series("request_rate", 10, 10, unit="requests/s")
    mean = figures(rate, series("TargetResponseTime", 0.1, 0.6, unit="s"))["time lost by requests"]
    assert mean.value == pytest.approx(10 * 300 * 0.5)
    assert mean.unit == "s"
    tail = figures(rate, series("duration", 100, 600, unit="ms", statistic="p95"))
    assert tail["time lost by the slowest 5 % of requests"].value == pytest.approx(10 * 300 * 0.05 * 0.5)


def test_earnings_below_the_lower_of_both_baselines() -> None:
    told = figures(series("revenue_usd_per_minute", 1000, 400, yesterday=900))
    assert told["revenue_usd_per_minute below the usual in total"].value == 2500
    assert told["revenue_usd_per_minute below the usual now"].unit == "USD/min"
    assert told["revenue_usd_per_minute below the usual now"].value == 500


def test_what_the_source_says_a_metric_measures_counts_more_than_its_name() -> None:
    told = figures(series("turnover", 1000, 400, unit="EUR/min", measures="earnings"))
    assert told["turnover below the usual in total"].value == 3000
    assert told["turnover below the usual in total"].unit == "EUR"


def test_orders_that_did_not_come_and_transactions_that_wait() -> None:
    told = figures(series("orders_per_minute", 100, 40), series("transactions_pending", 4, 247))
    assert (
        told["billing orders_per_minute below the usual"].value,
        told["billing transactions_pending now"].value,
    ) == (
        300,
        247,
    )


def test_error_budget_only_of_an_objective() -> None:
    told = figures(series("slo.error_budget_remaining", 80, 20, unit="%"), series("budget_usd", 5, 50))
    assert [f.name for f in told.values() if "budget" in f.name] == ["billing slo.error_budget_remaining now"]


def test_no_figure_without_a_finding() -> None:
    rate, share = series("request_rate", 10, 20, unit="requests/s"), series("error_rate", 0.5, 25, unit="%")
    assert figures(rate, share, found=["request_rate"]) == {}
    assert len(figures(rate, share, found=["error_rate"])) == 2


def test_requests_of_the_entry_point_if_the_alerted_service_has_none() -> None:
    edges = [Edge(caller=a, callee=b, source="c") for a, b in (("web", "cart"), ("cart", "billing"))]
    failed = [series("http_5xx", 0, n, component=c, statistic="sum") for c, n in (("web", 10), ("cart", 99), ("x", 7))]
    told = figures(*failed, edges=edges)
    assert [(f.name, f.value) for f in told.values()] == [("web: failed requests", 50.0)]
    own = figures(*failed, series("http_5xx", 0, 1, statistic="sum"), edges=edges)
    assert [f.name for f in own.values()] == ["failed requests"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e308, 1e308, 0.0])
def test_odd_values_do_not_raise_and_give_finite_figures(value: float) -> None:
    names = ("error_rate", "request_rate", "latency_ms", "revenue_usd_per_minute", "orders_per_minute", "p50_latency_s")
    for told in figures(*(series(name, 1.0, value, unit="%" if "error" in name else "") for name in names)).values():
        assert abs(told.value) < 1e300
