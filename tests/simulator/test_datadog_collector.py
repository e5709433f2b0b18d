"""The Datadog collector on the shop: the same code as in production, over a real port."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import SecretStr

from app.simulator.scenarios import SCENARIOS
from collectors.base import LogsRead, Scope, Symptom, Target, Telemetry, TraceRead, Window
from collectors.datadog import DatadogCollector, Settings

from .conftest import Served, served

ONSET = SCENARIOS["black-friday"].occurred_at
INCIDENT = Window(start=ONSET, end=ONSET + timedelta(minutes=5))
SEASONAL = tuple(Window(start=ONSET - timedelta(days=d), end=INCIDENT.end - timedelta(days=d)) for d in (1, 7))
SCOPE = Scope(
    service="payment-service",
    occurred_at=ONSET,
    incident=INCIDENT,
    baseline=(Window(start=ONSET - timedelta(minutes=30), end=ONSET),),
    seasonal=SEASONAL,
    symptom=Symptom(source="datadog", rule=f"datadog:monitor:{SCENARIOS['black-friday'].monitor.id}"),
    targets=tuple(
        Target(service=name, hops=hops)
        for name, hops in (("payment-service", 0), ("checkout", 1), ("orders-db", 1), ("redis", 1))
    ),
    within_s=60.0,
)


@pytest.fixture(scope="module")
def shop() -> Iterator[Served]:
    with served("black-friday", 5) as running:
        yield running


@pytest.fixture
def collector(shop: Served) -> DatadogCollector:
    keys = Settings(api_key=SecretStr("a"), app_key=SecretStr("b"), base_url=shop.url, budget_s=60.0)
    return DatadogCollector(shop.clock, keys)


async def seen(collector: DatadogCollector) -> Telemetry:
    try:
        return await collector.collect(SCOPE)
    finally:
        await collector.aclose()


async def test_the_collector_sees_what_an_engineer_would_look_at(collector: DatadogCollector) -> None:
    found = await seen(collector)
    series = {(one.ref.component, one.ref.metric): one for one in found.series}
    errors = series["payment-service", "error_rate_percent"]
    at = dict(zip(errors.epoch_s, errors.values, strict=True))
    assert {INCIDENT.start.timestamp(), *(window.start.timestamp() for window in SEASONAL)} <= set(at)
    assert at[SEASONAL[0].start.timestamp()] < 1.0 < 50.0 < at[max(at)]
    logged = series["payment-service", "logs.error"]
    assert sum(v for t, v in zip(logged.epoch_s, logged.values, strict=True) if t >= ONSET.timestamp()) > 50
    assert [status.detail[:5] for status in found.statuses if status.observed == 1.0] == ["Alert"]
    assert {"datadog", "datadog catalogue"} == {edge.source for edge in found.edges}
    assert {"web-gateway", "checkout", "payment-service"} <= {span.component for span in found.spans}
    whole = {query.text.removeprefix("trace_id:") for query in found.queries if query.text.startswith("trace_id:")}
    assert len(whole) == 5
    spans = {(span.trace_id, span.span_id) for span in found.spans}
    assert all((s.trace_id, s.parent_id or s.span_id) in spans for s in found.spans if s.trace_id in whole)
    assert [gap.detail for gap in found.gaps] == ["no log line is tagged service:orders-db, service:redis"]


async def test_every_series_can_be_measured_again(collector: DatadogCollector) -> None:
    found = await collector.collect(SCOPE)
    later = Window(start=ONSET + timedelta(minutes=2), end=INCIDENT.end)
    again = await collector.measure([series.ref for series in found.series], later)
    await collector.aclose()
    assert {series.ref for series in again} == {series.ref for series in found.series}
    assert all(later.start.timestamp() <= at < later.end.timestamp() for one in again for at in one.epoch_s)


async def test_the_doctor_finds_nothing(collector: DatadogCollector) -> None:
    checks = await collector.check()
    await collector.aclose()
    assert [check for check in checks if check.status != "ok"] == []


async def test_questions_are_answered(collector: DatadogCollector) -> None:
    """Lines by their words, counted now and before; then the trace of one of them, whole."""
    found = await collector.read(LogsRead(component="payment-service", contains="CONNECTION TIMEOUT"), SCOPE)
    assert found.logs
    assert all("connection timeout" in line.message.lower() for line in found.logs)
    counts = [(t, v) for one in found.series for t, v in zip(one.epoch_s, one.values, strict=True)]
    assert sum(v for t, v in counts if t >= ONSET.timestamp()) >= sum(1 for x in found.logs if x.at >= ONSET)
    nothing = await collector.read(LogsRead(component="payment-service", contains='timeout" OR service:*'), SCOPE)
    assert not nothing.rows
    traced = next(line.trace_id for line in found.logs if line.trace_id)
    spans = (await collector.read(TraceRead(trace_id=traced), SCOPE)).spans
    await collector.aclose()
    assert "payment-service" in {span.component for span in spans}
    assert {span.trace_id for span in spans} == {traced}
