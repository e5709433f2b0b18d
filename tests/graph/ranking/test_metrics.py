"""Metrics against their baselines: seasons, trends, the symptom's own time, load, silence."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from collectors.base import Measures, Series, SeriesRef
from graph.ranking import metrics
from graph.ranking.deviation import Deviation
from graph.ranking.windows import Windows
from tests.graph.ranking import incidents

WINDOWS = Windows.of(incidents.scope("gateway"))
BEFORE, DURING, AFTER = (at.timestamp() for at in (incidents.START, incidents.INCIDENT, incidents.END))
DAY = timedelta(days=1).total_seconds()


def measured(
    metric: str,
    shape: Callable[[float], float],
    *,
    component: str = "a",
    unit: str = "",
    measures: Measures = "",
    step_s: float = 10.0,
    until: float = AFTER,
    days: Sequence[int] = (0,),
) -> Series:
    """Two percent of jitter around ``shape`` of the seconds since the incident's start."""
    rng = random.Random(f"{component}{metric}")
    times = [
        at + 0.0 for day in sorted(days, reverse=True) for at in _steps(BEFORE - day * DAY, until - day * DAY, step_s)
    ]
    values = [shape(at - DURING) * (1.0 + rng.uniform(-0.02, 0.02)) for at in times]
    ref = SeriesRef(source="s", component=component, metric=metric, unit=unit, query=metric, measures=measures)
    return Series(ref=ref, epoch_s=tuple(times), values=tuple(values))


def _steps(start: float, end: float, step_s: float) -> list[float]:
    return [start + step_s * i for i in range(int((end - start) / step_s))]


def found(*series: Series, windows: Windows = WINDOWS, alerted: str = "") -> list[Deviation]:
    return metrics.deviations([("s", one) for one in series], windows, alerted)


def seasonal(*days: int) -> Windows:
    return replace(WINDOWS, seasonal=tuple((DURING - day * DAY, AFTER - day * DAY) for day in days))


def batch(since_s: float) -> float:
    """A nightly batch: every day at this hour."""
    return 400.0 if since_s % DAY < 300 else 100.0


def test_what_happens_at_this_hour_every_day_is_normal() -> None:
    nightly = measured("latency_ms", batch, days=(0, 1, 7))
    assert found(nightly, windows=seasonal(1, 7)) == []
    assert len(found(nightly)) == 1, "without the other days nobody can know"


def test_one_bad_day_does_not_excuse_another() -> None:
    twice = measured("latency_ms", lambda s: 400.0 if s > -2 * DAY and s % DAY < 300 else 100.0, days=(0, 1, 7))
    assert len(found(twice, windows=seasonal(1, 7))) == 1


def test_a_leak_is_seen_though_it_lies_in_its_own_baseline() -> None:
    leak = measured("heap_used_percent", lambda s: 60 + 38 * (s + 3600) / 3900, unit="%")
    flat = measured("heap_used_percent", lambda s: 60.0, unit="%")
    (deviation,) = found(leak)
    assert deviation.strength > 0.3
    assert deviation.at_s < DURING, "it began long before"
    assert (deviation.baseline or 0) < 75
    assert found(flat) == []


def test_a_saw_tooth_is_no_leak() -> None:
    assert found(measured("heap_used_percent", lambda s: 40 + 30 * ((s + 3600) % 600) / 600, unit="%")) == []


def test_what_ends_with_the_symptom_has_not_recovered_before_it() -> None:
    def burst(since_s: float) -> float:
        return 900.0 if 30 <= since_s < 90 else 100.0

    symptom = measured("latency_ms", burst, component="front")
    cause = measured("latency_ms", burst, component="deep")
    assert {d.component for d in found(symptom, cause, alerted="front")} == {"front", "deep"}
    assert found(symptom, cause) == []


def test_harm_is_what_failed_beyond_the_usual() -> None:
    errors = measured("error_rate", lambda s: 0.5 if s < 0 else 20.5, unit="%")
    requests = measured("requests", lambda s: 30.0, unit="requests/s")
    (deviation,) = [d for d in found(errors, requests) if d.channel == "error"]
    assert deviation.harm == pytest.approx(0.20 * 30 * 300, rel=0.1)


def test_harm_of_slowness_is_in_seconds_whatever_the_unit() -> None:
    requests = measured("requests", lambda s: 100.0, step_s=60)
    slow = {
        "ms": measured("latency", lambda s: 100.0 if s < 0 else 1100.0, unit="ms", step_s=60),
        "s": measured("latency", lambda s: 0.1 if s < 0 else 1.1, unit="s", step_s=60),
    }
    harm = [d.harm for one in slow.values() for d in found(one, requests) if d.channel == "latency"]
    assert harm == pytest.approx([1.0 * 100 * 5] * 2, rel=0.1)


def test_a_share_of_few_calls_has_steps_as_large_as_one_call() -> None:
    def one_of_four(since_s: float) -> float:
        return 100.0 if since_s < 0 else 75.0

    few = measured("requests", lambda s: 4.0, step_s=60)
    many = measured("requests", lambda s: 4000.0, step_s=60)
    share = measured("availability", one_of_four, unit="%", step_s=60)
    strength = [sum(d.strength for d in found(share, n) if d.channel == "error") for n in (few, many)]
    assert strength[0] < 0.5 < strength[1]


def test_a_component_that_falls_silent_is_told_and_one_metric_that_stops_is_not() -> None:
    other = measured("cpu_percent", lambda s: 30.0, component="b")
    gone = [measured(name, lambda s: 30.0, until=DURING - 60) for name in ("cpu_percent", "requests")]
    silent = [d for d in found(*gone, other) if d.channel == "silence"]
    assert [(d.component, d.effect) for d in silent] == [("a", 2.0)]
    assert found(gone[0], measured("requests", lambda s: 30.0), other) == []
    assert found(*gone) == [], "the whole source is gone: that is a gap, no symptom"


def test_what_a_metric_measures_may_be_said_by_its_source() -> None:
    assert found(measured("frobnication", lambda s: 1.0 if s < 0 else 90.0, measures="error"))[0].channel == "error"
    assert found(measured("frobnication", lambda s: 1.0 if s < 0 else 90.0))[0].channel == "unknown"


def test_the_usual_band_is_where_the_values_were() -> None:
    (deviation,) = found(measured("latency_ms", lambda s: 100.0 if s < 0 else 500.0))
    assert deviation.band is not None
    low, high = deviation.band
    assert 97 < low < 100 < high < 103


def test_memory_that_runs_out_is_seen_and_memory_that_is_freed_is_not() -> None:
    leak = measured("FreeableMemory", lambda s: 1000.0 - 900.0 * (s + 3600) / 3900, unit="bytes")
    (deviation,) = found(leak)
    assert (deviation.channel, deviation.inherited) == ("saturation", False)
    assert deviation.at_s < DURING, "it began long before"
    freed = measured("FreeableMemory", lambda s: 100.0 + 900.0 * (s + 3600) / 3900, unit="bytes")
    assert found(freed) == []


def test_what_came_after_the_incident_is_no_part_of_a_leak() -> None:
    def leak(since_s: float) -> float:
        return 60 + 38 * (since_s + 3600) / 3900

    within = measured("heap_used_percent", leak, unit="%")
    restarted = measured(
        "heap_used_percent", lambda s: leak(s) if s < AFTER - DURING else 20.0, unit="%", until=AFTER + 3600
    )
    assert [d.strength for d in found(restarted)] == pytest.approx([d.strength for d in found(within)], abs=0.05)
