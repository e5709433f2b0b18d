"""Each detector by itself, on the cases that decide between a symptom and noise."""

from dataclasses import replace
from datetime import timedelta

import pytest

from collectors.base import Change, Series, SeriesRef
from graph.ranking import changes, metrics
from graph.ranking.deviation import Deviation, gain, noisy_or, surely
from graph.ranking.semantics import meaning
from graph.ranking.topology import Topology, causal_path
from graph.ranking.windows import Windows
from tests.graph.ranking import incidents

WINDOWS = Windows.of(incidents.scope("gateway"))
BEFORE, DURING = incidents.START.timestamp(), incidents.INCIDENT.timestamp()


@pytest.mark.parametrize(
    ("metric", "unit", "role", "worse"),
    [
        ("db_connection_timeouts", "", "error", "up"),
        ("HTTPCode_Target_5XX_Count", "", "error", "up"),
        ("UnHealthyHostCount", "", "fault", "up"),
        ("HealthyHostCount", "", "success", "down"),
        ("api_success_rate", "percent", "success", "down"),
        ("availability", "%", "success", "down"),
        ("FreeableMemory", "bytes", "saturation", "down"),
        ("TargetResponseTime", "s", "latency", "up"),
        ("latency.p95_ms", "ms", "latency", "up"),
        ("pool_utilization", "%", "pool", "up"),
        ("CpuUsageRate(%)", "", "saturation", "up"),
        ("transactions_pending", "", "backlog", "up"),
        ("revenue_lost_usd_per_minute", "", "loss", "up"),
        ("revenue_usd_per_minute", "", "earnings", "down"),
        ("request_rate", "rps", "requests", "neutral"),
        ("NetworkReceiveBytes", "", "traffic", "neutral"),
        ("frobnication", "", "unknown", "neutral"),
    ],
)
def test_meaning_of_a_metric(metric: str, unit: str, role: str, worse: str) -> None:
    found = meaning(metric, unit)
    assert (found.role, found.worse) == (role, worse)


def shift(series: Series, windows: Windows = WINDOWS) -> Deviation | None:
    found = metrics.deviations([("s", series)], windows)
    return found[0] if found else None


def test_metric_that_moves_the_good_way_is_no_symptom() -> None:
    assert shift(incidents.series("a", "error_rate", 40, 0.1, unit="%")) is None
    assert shift(incidents.series("a", "success_rate", 52, 99, unit="%")) is None


def test_metric_that_has_recovered_is_no_symptom() -> None:
    times = [BEFORE + 10.0 * i for i in range(390)]
    values = [0.0 if t < DURING or t > DURING + 60 else 90.0 for t in times]
    ref = SeriesRef(source="s", component="a", metric="errors", query="q")
    assert shift(Series(ref=ref, epoch_s=tuple(times), values=tuple(values))) is None


def test_points_of_other_days_are_not_drawn() -> None:
    week_ago = [BEFORE - 7 * 86_400 + 60.0 * i for i in range(60)]
    one = incidents.series("a", "errors", 0, 90)
    longer = Series(ref=one.ref, epoch_s=(*week_ago, *one.epoch_s), values=(*[0.0] * 60, *one.values))
    found, alone = shift(longer), shift(one)
    assert found is not None
    assert found == alone


def test_drift_alone_is_no_symptom() -> None:
    """The level differs from history, but not from the moments just before."""
    times = [BEFORE + 10.0 * i for i in range(390)]
    values = [100.0 if t < DURING - 1800 else 400.0 for t in times]
    ref = SeriesRef(source="s", component="a", metric="latency", unit="ms", query="q")
    assert shift(Series(ref=ref, epoch_s=tuple(times), values=tuple(values))) is None


def test_three_times_the_requests_make_three_times_the_errors() -> None:
    traffic = incidents.series("a", "requests", 100, 300)
    alike = metrics.deviations([("s", traffic), ("s", incidents.series("a", "http_5xx", 10, 30))], WINDOWS)
    worse = metrics.deviations([("s", traffic), ("s", incidents.series("a", "http_5xx", 10, 200))], WINDOWS)
    assert [d.signal for d in alike] == ["requests"]
    assert [d.signal for d in worse] == ["requests", "http_5xx"]


def test_more_requests_are_weighed_but_the_baseline_told_is_the_one_that_was_measured() -> None:
    traffic = incidents.series("a", "requests", 100, 1000)
    found = metrics.deviations([("s", traffic), ("s", incidents.series("a", "errors", 3, 200))], WINDOWS)
    errors = next(d for d in found if d.signal == "errors")
    alone = shift(incidents.series("a", "errors", 3, 200))
    assert errors.baseline == pytest.approx(3, rel=0.03)
    assert alone is not None
    assert errors.summary == alone.summary
    assert (errors.strength, errors.effect) < (alone.strength, alone.effect)


@pytest.mark.parametrize(
    ("metric", "statistic", "signal"),
    [
        ("PodClientLatency", "p99", "PodClientLatency p99"),
        ("PodClientLatency", "p99.9", "PodClientLatency p99.9"),
        ("PodClientLatency", "max", "PodClientLatency max"),
        ("PodClientLatency", "avg", "PodClientLatency"),
        ("errors", "sum", "errors"),
        ("http500_latency", "p50", "http500_latency p50"),
        ("latency.p95_ms", "p95", "latency.p95_ms"),
        ("latency.95percentile", "p95", "latency.95percentile"),
        ("latency.max", "max", "latency.max"),
    ],
)
def test_percentile_or_maximum_is_told_once(metric: str, statistic: str, signal: str) -> None:
    series = incidents.series("a", metric, 1, 500)
    found = shift(replace(series, ref=series.ref.model_copy(update={"statistic": statistic})))
    assert found is not None
    assert found.signal == signal
    assert found.summary.startswith(f"a {signal} rose from ")
    assert found.ref is not None
    assert found.ref.metric == metric


def test_idle_service_that_wakes_up_is_less_than_one_at_its_limit() -> None:
    idle = shift(incidents.series("idle", "cpu_percent", 2, 27))
    full = shift(incidents.series("full", "cpu_percent", 60, 99))
    assert full is not None
    assert full.strength > 5 * (idle.strength if idle else 0.0)


def test_single_samples_prove_a_saturation_but_no_latency() -> None:
    def one_each(metric: str, unit: str, before: float, now: float) -> Series:
        ref = SeriesRef(source="s", component="a", metric=metric, unit=unit, query="q")
        return Series(ref=ref, epoch_s=(BEFORE, DURING), values=(before, now))

    assert shift(one_each("cpu_usage", "%", 2.0, 99.0)) is not None
    assert shift(one_each("latency", "s", 0.2, 28.0)) is None


def test_a_few_percent_of_failures_in_availability_are_seen() -> None:
    found = shift(incidents.series("a", "unit_availability", 100, 100, unit="%"))
    assert found is None
    times = [BEFORE + 10.0 * i for i in range(390)]
    ref = SeriesRef(source="s", component="a", metric="availability", unit="%", query="q")
    values = tuple(100.0 if t < DURING else 92.0 for t in times)
    found = shift(Series(ref=ref, epoch_s=tuple(times), values=values))
    assert found is not None
    assert found.strength > 0.5


# --- changes, topology, arithmetic --------------------------------------------------------------------------------


def test_a_change_counts_by_closeness_and_by_what_its_component_shows() -> None:
    def strength(minutes: float, own: float) -> float:
        change = Change(component="a", at=incidents.INCIDENT - timedelta(minutes=minutes), kind="deploy", title="v2")
        return changes.deviations([("c", change)], {"a": own}, {"a": DURING}, WINDOWS)[0].strength

    assert strength(1, 0.9) > strength(20, 0.9) > strength(600, 0.9)
    assert strength(1, 0.0) == 0.0
    assert strength(-10, 0.9) == 0.0


def test_path_without_edges_is_one_hop_that_fails_the_structural_check() -> None:
    topology = Topology.of((), ())
    (hop,) = causal_path(topology, "a", "b", {"a": 1.0, "b": 1.0}, {"a": 200.0, "b": 0.0})
    assert (hop.structural, hop.statistical, hop.temporal) == (False, True, False)


def test_path_survives_cycles_and_prefers_what_deviates() -> None:
    edges = [("top", "l"), ("top", "r"), ("l", "low"), ("r", "low"), ("low", "top")]
    topology = Topology.of(
        [e.model_copy(update={"caller": a, "callee": b}) for e in incidents.edges()[:1] for a, b in edges], ()
    )
    assert topology.route("low", "top", {"r": 0.5}) == ("low", "r", "top")
    assert topology.route("low", "elsewhere", {}) == ()


def test_proportions() -> None:
    assert gain(0, 10, 0, 10) == 0.0
    assert gain(5, 100, 0, 100) > 0.0
    assert surely(50, 100, 0, 100) > surely(1, 1, 0, 5) > 0.0
    assert surely(0, 0, 0, 0) == 0.0
    assert noisy_or([]) == 0.0
    assert noisy_or([0.5, 0.5]) == pytest.approx(0.75)
