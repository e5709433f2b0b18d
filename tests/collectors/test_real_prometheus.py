"""Prometheus itself, scraping two small services of which one breaks; what is read leads to that one."""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server

from collectors.base import Edge, Scope, Series, Symptom, Target, Telemetry, Window, utc
from collectors.prometheus import PrometheusCollector, Settings
from graph.ranking import rank
from graph.state import Alert
from tests import debian, processes

CALM_S, TROUBLE_S = 16.0, 12.0
CONFIG = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: shop
    static_configs:
      - {{targets: ["127.0.0.1:{checkout}"], labels: {{service: checkout}}}}
      - {{targets: ["127.0.0.1:{payment}"], labels: {{service: payment}}}}
"""
EXPRESSION = 'sum by (service) (rate(http_requests_total{status=~"5.."}[4s])) > 1'
RULES = f"""
groups:
  - name: shop
    rules:
      - alert: HighErrorRate
        expr: {EXPRESSION}
        annotations: {{summary: requests of it fail}}
"""


class Service:
    """Serves so many requests a second, and tells about it in Prometheus's format."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.requests = Counter("http_requests", "Requests", ["method", "status"], registry=registry)
        self.seconds = Histogram("http_request_duration_seconds", "Their time", registry=registry)
        self.in_use = Gauge("db_pool_connections_in_use", "Connections in use", registry=registry)
        self.limit = Gauge("db_pool_connections_max", "Connections there may be", registry=registry)
        self.version = Info("app_build", "What runs", registry=registry)
        self.limit.set(20)
        self.version.info({"version": "1.4.0"})
        self.port = processes.free_port()
        self.server, self.thread = start_http_server(self.port, "127.0.0.1", registry)
        self.failing, self.taking_s, self.busy = 0, 0.02, 4

    def serve(self) -> None:
        """Ten requests."""
        if self.failing:
            self.requests.labels("POST", "500").inc(self.failing)
        self.requests.labels("POST", "200").inc(10 - self.failing)
        for _ in range(10):
            self.seconds.observe(self.taking_s)
        self.in_use.set(self.busy)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)


@contextmanager
def traffic(*services: Service) -> Iterator[None]:
    """Ten times a second."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.1):
            for service in services:
                service.serve()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    over.set()
    thread.join(10)


class WallClock:
    """Now."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)


class Incident:
    """A Prometheus that has seen a payment service break, and when."""

    def __init__(self, url: str, began_s: float, ended_s: float) -> None:
        self.url = url
        self.scope = Scope(
            service="checkout",
            occurred_at=utc(began_s + 2),
            incident=Window(start=utc(began_s), end=utc(ended_s)),
            baseline=(Window(start=utc(began_s - CALM_S + 4), end=utc(began_s)),),
            symptom=Symptom(
                source="alertmanager",
                rule="alertmanager:HighErrorRate",
                url=str(httpx.URL("http://host/graph", params={"g0.expr": EXPRESSION, "g0.tab": "1"})),
            ),
            targets=(Target(service="checkout"), Target(service="payment", hops=1)),
            edges=(Edge(caller="checkout", callee="payment", source="catalogue"),),
        )

    def collector(self) -> PrometheusCollector:
        return PrometheusCollector(WallClock(), Settings(url=self.url, step_s=1, rate_s=4))

    async def collected(self) -> Telemetry:
        collector = self.collector()
        try:
            return await collector.collect(self.scope)
        finally:
            await collector.aclose()


@pytest.fixture
def incident(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Incident]:
    program = debian.program("prometheus", "prometheus", request, tmp_path_factory)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(dir=program.runs)))
        checkout, payment = Service(), Service()
        checkout.requests.labels("POST", "500").inc()  # once, long ago
        stack.callback(checkout.close)
        stack.callback(payment.close)
        inside, port = program.inside(folder), processes.free_port()
        config = CONFIG.format(rules=f"{inside}/rules.yml", checkout=checkout.port, payment=payment.port)
        (folder / "prometheus.yml").write_text(config)
        (folder / "rules.yml").write_text(RULES)
        options = {
            "config.file": f"{inside}/prometheus.yml",
            "storage.tsdb.path": f"{inside}/data",
            "web.listen-address": f"127.0.0.1:{port}",
        }
        url = f"http://127.0.0.1:{port}"
        stack.enter_context(traffic(checkout, payment))
        stack.enter_context(program.running(options, folder, f"{url}/-/ready"))
        time.sleep(CALM_S)
        began_s = time.time()
        payment.failing, payment.taking_s, payment.busy = 6, 0.8, 20
        payment.version.info({"version": "1.5.0"})
        checkout.failing, checkout.taking_s = 3, 0.3
        time.sleep(TROUBLE_S)
        yield Incident(url, began_s, time.time())


async def test_what_broke_is_read_and_ranked_and_measured_again(incident: Incident) -> None:
    """All in one test: every worker that runs one of several would let a service break of its own."""
    found = await incident.collected()
    assert not found.gaps
    _names_what_broke(incident, found)
    _has_the_values_of_what_the_services_did(found)
    _knows_the_alerts_expression_below_its_threshold(incident, found)
    _tells_the_new_version_and_the_callees_alert(incident, found)
    collector = incident.collector()
    before = await collector.measure([series.ref for series in found.series], incident.scope.baseline[0])
    checks = await collector.check()
    await collector.aclose()
    assert set(_named(before, "payment", "http_requests_5xx_percent").values) == {0.0}
    assert [(check.name, check.status) for check in checks] == [
        ("reachable", "ok"),
        ("labels", "ok"),
        ("metadata", "ok"),
        ("sample query", "ok"),
        ("clock", "ok"),
    ]
    assert checks[3].detail == "count(up): 2"


def _names_what_broke(incident: Incident, found: Telemetry) -> None:
    alert = Alert(
        source="alertmanager",
        title="HighErrorRate",
        service="checkout",
        occurred_at=incident.scope.occurred_at,
        fingerprint="f",
        cycle_key="c",
    )
    evidence = rank([found], incident.scope, alert)
    assert evidence.suspects[0].component == "payment"
    assert {(f.component, f.signal) for f in evidence.findings} >= {
        ("payment", "http_requests_5xx_percent"),
        ("payment", "http_request_duration_seconds p95"),
        ("payment", "db_pool_connections_in_use_utilization max"),
        ("payment", "version 1.5.0 runs"),
    }


def _has_the_values_of_what_the_services_did(found: Telemetry) -> None:
    failed = _named(found.series, "payment", "http_requests_5xx_percent")
    assert failed.ref.unit == "%"
    assert failed.values[0] == 0.0
    assert failed.values[-1] == pytest.approx(60, abs=5)
    assert _named(found.series, "payment", "http_requests_total").values[-1] == pytest.approx(100, rel=0.3)
    slow = _named(found.series, "payment", "http_request_duration_seconds")
    assert (slow.ref.statistic, slow.ref.unit) == ("p95", "s")
    assert slow.values[0] < 0.05 < 0.7 < slow.values[-1] < 1.0
    assert _named(found.series, "payment", "db_pool_connections_in_use_utilization").values[-1] == 1.0
    assert set(_named(found.series, "checkout", "up").values) == {1.0}


def _knows_the_alerts_expression_below_its_threshold(incident: Incident, found: Telemetry) -> None:
    expression = _named(found.series, "checkout", "HighErrorRate")
    assert expression.epoch_s[0] < incident.scope.incident.start.timestamp()
    assert expression.values[0] == 0.0
    assert expression.values[-1] == pytest.approx(30, rel=0.3)  # payment's is twice that


def _tells_the_new_version_and_the_callees_alert(incident: Incident, found: Telemetry) -> None:
    [deploy] = [change for change in found.changes if change.kind == "deploy"]
    assert (deploy.component, deploy.version) == ("payment", "1.5.0")
    assert abs((deploy.at - incident.scope.incident.start).total_seconds()) < 4
    observed = {status.component: (status.observed, status.expected) for status in found.statuses}
    assert observed == {"checkout": (1.0, None), "payment": (1.0, 0.0)}


def _named(series: Iterable[Series], component: str, metric: str) -> Series:
    return next(s for s in series if (s.ref.component, s.ref.metric) == (component, metric))
