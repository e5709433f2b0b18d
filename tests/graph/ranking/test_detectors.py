"""Each detector by itself, on the cases that decide between a symptom and noise."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from collectors.base import Change, Level, LogLine, Series, SeriesRef, Span, template
from graph.ranking import changes, logs, metrics, traces
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
        ("UnHealthyHostCount", "", "error", "up"),
        ("HealthyHostCount", "", "success", "down"),
        ("api_success_rate", "percent", "success", "down"),
        ("availability", "%", "success", "down"),
        ("FreeableMemory", "bytes", "success", "down"),
        ("TargetResponseTime", "s", "latency", "up"),
        ("latency.p95_ms", "ms", "latency", "up"),
        ("pool_utilization", "%", "saturation", "up"),
        ("CpuUsageRate(%)", "", "saturation", "up"),
        ("transactions_pending", "", "backlog", "up"),
        ("revenue_lost_usd_per_minute", "", "loss", "up"),
        ("revenue_usd_per_minute", "", "loss", "down"),
        ("request_rate", "rps", "traffic", "neutral"),
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
    found = shift(series.model_copy(update={"ref": series.ref.model_copy(update={"statistic": statistic})}))
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


# --- logs ---------------------------------------------------------------------------------------------------------


def walk(trace: str, start_s: float, steps: Sequence[tuple[str, str, str, Level]]) -> tuple[list[Span], list[LogLine]]:
    """A chain of spans, each inside the one before; ``steps`` are (component, span, logger, level) of the lines."""
    spans: dict[str, Span] = {}
    found = []
    parent = ""
    for n, (component, span, logger, level) in enumerate(steps):
        if span not in spans:
            spans[span] = Span(
                component=component,
                trace_id=trace,
                span_id=span,
                parent_id=parent,
                operation=f"op of {component}",
                start_s=start_s,
                duration_ms=50,
            )
            parent = span
        if logger:
            at = incidents.START + timedelta(seconds=start_s - BEFORE, milliseconds=n)
            found.append(
                LogLine(
                    component=component,
                    at=at,
                    level=level,
                    message=f"text {n}",
                    logger=logger,
                    trace_id=trace,
                    span_id=span,
                )
            )
    return list(spans.values()), found


GOOD: list[tuple[str, str, str, Level]] = [
    ("front", "f", "Front#1", "info"),
    ("back", "b", "Back#1", "info"),
    ("back", "b", "Back#2", "info"),
]


def log_deviations(bad: Sequence[tuple[str, str, str, Level]], normal: int = 20) -> list[Deviation]:
    spans, lines = [], []
    for i in range(normal + 6):
        start = BEFORE + 10.0 * i if i < normal else DURING + 10.0 * i
        more_spans, more_lines = walk(f"t{i}", start if i < normal else DURING + i, GOOD if i < normal else bad)
        spans += more_spans
        lines += more_lines
    found = logs.deviations([("l", line) for line in lines], spans, WINDOWS)
    return sorted(found, key=lambda d: -d.strength)


def test_a_missing_next_line_is_blamed_though_nothing_is_an_error() -> None:
    found = log_deviations(GOOD[:-1])
    assert (found[0].component, found[0].signal) == ("back", "Back#1 → (end)")
    assert found[0].strength > 0.3


def test_the_deepest_deviant_span_is_blamed_not_the_loudest() -> None:
    found = log_deviations([*GOOD[:2], ("front", "f", "Front#9", "error")])
    by_component = {d.component: d for d in reversed(found) if d.channel == "transition"}
    assert not by_component["back"].inherited
    assert by_component["front"].inherited
    assert by_component["back"].strength > 3 * by_component["front"].strength


def test_an_error_that_goes_away_is_no_symptom() -> None:
    spans, lines = [], []
    for i in range(26):
        start, kind = (BEFORE + 10.0 * i, "error") if i < 20 else (DURING + i, "info")
        steps: list[tuple[str, str, str, Level]] = [
            ("front", "f", "Front#1", "info"),
            ("front", "f", "Front#9", "error") if kind == "error" else ("front", "f", "Front#2", "info"),
        ]
        more_spans, more_lines = walk(f"t{i}", start, steps)
        spans += more_spans
        lines += more_lines
    shifts, _ = logs.transition_shifts([("l", line) for line in lines], spans, WINDOWS)
    assert shifts == []


def test_more_traffic_is_not_more_errors() -> None:
    """Every line four times as often, errors included."""
    rows = [
        *(("info", t) for t in range(0, 3600, 10)),
        *(("error", t) for t in range(0, 3600, 60)),
        *(("info", 3600 + t / 4) for t in range(0, 1200, 10)),
        *(("error", 3600 + t / 4) for t in range(0, 1200, 60)),
    ]
    lines = [
        LogLine(
            component="a",
            at=incidents.START + timedelta(seconds=t),
            level="error" if level == "error" else "info",
            message=f"an {level} number {t}",
        )
        for level, t in rows
    ]
    found = logs.deviations([("l", line) for line in lines], [], WINDOWS)
    assert [d for d in found if d.strength > 0.05] == []


def test_an_ordinary_line_that_no_longer_comes_is_noticed_and_a_warning_is_not() -> None:
    def found(level: Level) -> list[Deviation]:
        lines = [
            *incidents.lines("a", "info", "heartbeat", per_minute=6, baseline=True, incident=True),
            *incidents.lines("a", level, "batch done", per_minute=6, baseline=True, incident=False),
        ]
        return logs.deviations([("l", line) for line in lines], [], WINDOWS)

    (gone,) = found("info")
    assert gone.worse == "down"
    assert "no longer logs “batch done" in gone.summary
    assert found("warning") == []


def test_templates_mask_what_varies() -> None:
    one = template("order 4711 of user 550e8400-e29b-41d4-a716-446655440000 took 3.5 ms at 10.0.0.1:80 'x'")
    two = template("order 12 of user 123e4567-e89b-42d3-a456-426614174000 took 17 ms at 10.0.0.2:81 'yy'")
    assert one == two


# --- traces -------------------------------------------------------------------------------------------------------


def request(
    trace: str, start_s: float, *, gap_ms: float = 2.0, own_ms: float = 10.0, async_ms: float = 0.0
) -> list[Span]:
    """Gateway -> orders -> billing; the gap lies between orders and billing, own time in billing."""

    def span(name: str, parent: str, component: str, at_ms: float, ms: float) -> Span:
        return Span(
            component=component,
            trace_id=trace,
            span_id=name,
            parent_id=parent,
            operation="serve",
            start_s=start_s + at_ms / 1000.0,
            duration_ms=ms,
        )

    billing = own_ms
    call = billing + gap_ms
    return [
        span("g", "", "gateway", 0, call + 12 + async_ms),
        span("o", "g", "orders", 1, call + 10),
        span("oc", "o", "orders", 5, call),
        span("b", "oc", "billing", 5 + gap_ms / 2, billing),
    ]


def trace_deviations(n_bad: int = 6, **bad: float) -> list[Deviation]:
    spans = [s for i in range(30) for s in request(f"n{i}", BEFORE + 10.0 * i)]
    spans += [s for i in range(n_bad) for s in request(f"i{i}", DURING + 10.0 * i, **bad)]
    found = traces.deviations([("t", s) for s in spans], WINDOWS)
    return sorted(found, key=lambda d: -d.strength)


def test_nothing_slow_is_nothing_found() -> None:
    assert trace_deviations() == []


def test_own_time_is_blamed_on_who_spends_it() -> None:
    assert trace_deviations(own_ms=400)[0].component == "billing"


def test_time_between_two_components_is_an_edge_matter() -> None:
    found = trace_deviations(gap_ms=500)
    assert "between orders and billing" in found[0].summary
    assert {d.component for d in found} == {"orders", "billing"}


def test_one_slow_call_against_a_norm_of_milliseconds_is_not_lost() -> None:
    found = trace_deviations(n_bad=1, gap_ms=2000)
    assert found[0].strength > 0.3


def test_spans_that_stay_open_while_others_work_own_only_what_is_left() -> None:
    spans = request("t", BEFORE, own_ms=100)
    times = traces.self_times(traces.index([("t", s) for s in spans], WINDOWS))
    assert times["t", "b"] == pytest.approx(100, abs=0.01)
    assert times["t", "g"] == pytest.approx(2, abs=0.01)


def test_failing_calls_to_one_of_three_callees_point_at_the_callee() -> None:
    spans = incidents.calls({("billing", "cache"): "timeout"}, every=1)
    found = traces.deviations([("t", s) for s in spans], WINDOWS)
    assert max(found, key=lambda d: d.strength).component == "cache"


def test_failing_calls_to_all_callees_point_at_the_caller() -> None:
    failing = {("billing", c): "timeout" for c in ("cache", "ledger-db", "card-provider")}
    found = traces.deviations([("t", s) for s in incidents.calls(failing)], WINDOWS)
    assert max(found, key=lambda d: d.strength).component == "billing"


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
