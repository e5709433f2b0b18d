"""The Prometheus collector against answers of the documented shapes."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs

import httpx
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.session import Session
from pydantic import JsonValue, SecretStr

from collectors._promql import FAILURES, Metrics, references, without_threshold
from collectors.base import (
    CollectorError,
    Declared,
    Edge,
    Forbidden,
    GapReason,
    Scope,
    SeriesRef,
    Symptom,
    Target,
    Unreachable,
    Window,
    utc,
)
from collectors.prometheus import PrometheusCollector, Settings, SigV4, create

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=15))
BASELINE = Window(start=T0 - timedelta(minutes=50), end=T0)
NAMES, LABELS, METADATA = "/api/v1/label/__name__/values", "/api/v1/labels", "/api/v1/metadata"
RANGE, INSTANT, ALERTS = "/api/v1/query_range", "/api/v1/query", "/api/v1/alerts"

Answer = Callable[[httpx.Request], httpx.Response]


class FrozenClock:
    """Stands still."""

    def __init__(self, now: datetime = INCIDENT.end) -> None:
        self._now = now

    def now(self) -> datetime:
        """The moment it was given."""
        return self._now


def scope(*targets: Target, seasonal: tuple[Window, ...] = (), symptom: Symptom | None = None) -> Scope:
    return Scope(
        service="payment",
        occurred_at=T0,
        incident=INCIDENT,
        baseline=(BASELINE,),
        seasonal=seasonal,
        symptom=symptom or Symptom(),
        targets=targets or (Target(service="payment"),),
        edges=(Edge(caller="checkout", callee="payment", source="catalogue"),),
    )


def success(data: JsonValue, **more: JsonValue) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": data, **more})


def matrix(*rows: tuple[Mapping[str, str], list[JsonValue]], **more: JsonValue) -> httpx.Response:
    result: list[JsonValue] = [{"metric": dict(labels), "values": values} for labels, values in rows]
    return success({"resultType": "matrix", "result": result}, **more)


def form(request: httpx.Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


def always(response: httpx.Response) -> Answer:
    return lambda _: httpx.Response(response.status_code, content=response.content, headers=response.headers)


class Prometheus:
    """Knows one gauge; answers per path otherwise; what is not told is answered with nothing."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.names: list[JsonValue] = ["queue_depth"]
        self.answers: dict[str, Answer] = {
            LABELS: always(success(["__name__", "service", "instance"])),
            METADATA: always(success({})),
            RANGE: always(matrix()),
            INSTANT: always(success({"resultType": "vector", "result": []})),
            ALERTS: always(success({"alerts": []})),
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path == NAMES and NAMES not in self.answers:
            return success(self.names)
        return self.answers[request.url.path](request)

    def to(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path == path]

    def asked(self) -> list[str]:
        return [form(request)["query"] for request in self.to(RANGE)]

    def collector(self, now: datetime = INCIDENT.end, **settings: object) -> PrometheusCollector:
        given = Settings.model_validate({"url": "http://prometheus.test", **settings})
        return PrometheusCollector(FrozenClock(now), given, httpx.MockTransport(self))


@pytest.fixture
def prometheus() -> Prometheus:
    return Prometheus()


def at(minutes: float) -> float:
    return (T0 + timedelta(minutes=minutes)).timestamp()


# --- what is asked ---


async def test_metrics_are_asked_for_by_the_services_label_in_seconds_with_a_bounded_step(
    prometheus: Prometheus,
) -> None:
    found = await prometheus.collector().collect(scope())
    params = prometheus.to(NAMES)[0].url.params
    assert params["match[]"] == '{service="payment"}'
    assert (float(params["start"]), float(params["end"])) == (at(-50), at(15))
    [asked] = prometheus.to(RANGE)
    assert asked.method == "POST"
    fields = form(asked)
    assert fields["query"] == 'max(queue_depth{service="payment"})'
    assert float(fields["start"]) == at(-50)
    assert float(fields["end"]) == at(15) - 30  # half-open
    assert fields["step"] == "30"
    link = next(query.link for query in found.queries if query.text == fields["query"])
    assert link == (
        "http://prometheus.test/graph?g0.expr=max%28queue_depth%7Bservice%3D%22payment%22%7D%29&g0.tab=0"
        "&g0.range_input=65m&g0.end_input=2024-12-20+09%3A15%3A00"
    )


async def test_a_long_window_is_read_in_at_most_1400_points(prometheus: Prometheus) -> None:
    ref = SeriesRef(source="prometheus", component="payment", metric="m", query="m")
    window = Window(start=T0 - timedelta(days=7), end=T0)
    await prometheus.collector().measure([ref], window)
    fields = form(prometheus.to(RANGE)[0])
    points = (float(fields["end"]) - float(fields["start"])) / float(fields["step"])
    assert 1000 < points <= 1400


async def test_nothing_is_asked_beyond_now(prometheus: Prometheus) -> None:
    await prometheus.collector(now=T0 + timedelta(minutes=5)).collect(scope())
    assert float(form(prometheus.to(RANGE)[0])["end"]) == at(5) - 30


@pytest.mark.parametrize(
    ("target", "matchers"),
    [
        (Target(service="payment"), 'service="payment"'),
        (Target(service="payment", prometheus='job="pay",env="prod"'), 'job="pay",env="prod"'),
        (Target(service="payment", prometheus='{job="pay"}'), 'job="pay"'),
        (Target(service='a"} or x{b="'), r'service="a\"} or x{b=\""'),
        (Target(service="a\\b\nc"), r'service="a\\b\nc"'),
    ],
)
async def test_a_service_is_known_by_its_matchers_or_by_its_name(
    prometheus: Prometheus, target: Target, matchers: str
) -> None:
    await prometheus.collector().collect(scope(target))
    assert prometheus.to(NAMES)[0].url.params["match[]"] == f"{{{matchers}}}"
    assert prometheus.asked() == [f"max(queue_depth{{{matchers}}})"]


async def test_a_service_without_series_is_a_gap_that_names_the_field(prometheus: Prometheus) -> None:
    prometheus.names = []
    [gap] = (await prometheus.collector().collect(scope())).gaps
    assert (gap.reason, gap.detail) == (GapReason.EMPTY, 'payment: no series has the labels service="payment"')
    assert "set prometheus of payment in the catalogue" in gap.mend


async def test_failures_are_told_apart_by_the_label_that_the_metric_has(prometheus: Prometheus) -> None:
    def names(request: httpx.Request) -> httpx.Response:
        told = 'status=~"5.."' in request.url.params["match[]"]
        return success(["http_requests_total"] if told else ["http_requests_total", "jobs_total"])

    prometheus.answers[NAMES] = names
    prometheus.answers[LABELS] = always(success(["__name__", "status"]))
    await prometheus.collector().collect(scope())
    asked = prometheus.asked()
    every = 'sum(rate(http_requests_total{service="payment"}[120s]))'
    failed = 'sum(rate(http_requests_total{service="payment",status=~"5.."}[120s]))'
    assert asked[:2] == [f"({failed} or 0 * {every})", f"100 * ({failed} or 0 * {every}) / {every}"]
    assert asked[2:] == [every, 'sum(rate(jobs_total{service="payment"}[120s]))']


def queries(*names: str, types: Mapping[str, str] | None = None) -> dict[str, tuple[str, str, str]]:
    known = Metrics("payment", 's="p"', frozenset(names), types or {}, {}, 120)
    return {ref.metric: (ref.statistic, ref.unit, ref.query) for ref in references(known)}


def test_each_type_of_metric_is_asked_for_in_its_own_way() -> None:
    base = "http_request_duration_seconds"
    assert queries(f"{base}_bucket", f"{base}_sum", f"{base}_count", f"{base}_created") == {
        base: ("p95", "s", f'histogram_quantile(0.95, sum by (le) (rate({base}_bucket{{s="p"}}[120s])))'),
        "http_request_count": ("rate", "/s", f'sum(rate({base}_count{{s="p"}}[120s]))'),
    }
    assert queries("rpc_seconds", "rpc_seconds_sum", "rpc_seconds_count") == {
        "rpc_seconds": (
            "avg",
            "s",
            'sum(rate(rpc_seconds_sum{s="p"}[120s])) / sum(rate(rpc_seconds_count{s="p"}[120s]))',
        ),
        "rpc_count": ("rate", "/s", 'sum(rate(rpc_seconds_count{s="p"}[120s]))'),
    }
    assert queries("rpc_seconds", types={"rpc_seconds": "histogram"}) == {
        "rpc_seconds": ("p95", "s", 'histogram_quantile(0.95, sum(rate(rpc_seconds{s="p"}[120s])))'),
        "rpc_count": ("rate", "/s", 'histogram_count(sum(rate(rpc_seconds{s="p"}[120s])))'),
    }
    assert queries("sent_bytes_total") == {
        "sent_bytes_total": ("rate", "B/s", 'sum(rate(sent_bytes_total{s="p"}[120s]))')
    }
    assert queries("orders", types={"orders": "counter"})["orders"][2] == 'sum(rate(orders{s="p"}[120s]))'
    assert queries("hits_total", types={"hits": "counter"})["hits_total"][2].startswith("sum(rate(")
    assert queries("http.server.duration")["http.server.duration"][2] == 'avg({__name__="http.server.duration",s="p"})'


def test_gauges_are_judged_by_their_worst_instance_and_by_their_limit() -> None:
    assert queries("db_pool_idle", "temperature_celsius", "up") == {
        "up": ("avg", "ratio", 'avg(up{s="p"})'),
        "db_pool_idle": ("min", "", 'min(db_pool_idle{s="p"})'),
        "temperature_celsius": ("avg", "°C", 'avg(temperature_celsius{s="p"})'),
    }
    found = queries("process_open_fds", "process_max_fds")
    assert found["process_open_fds_utilization"][2] == 'max(process_open_fds{s="p"} / (process_max_fds{s="p"} > 0))'
    assert "jvm_memory_used_bytes_utilization" in queries("jvm_memory_used_bytes", "jvm_memory_max_bytes")


def test_what_measures_nothing_is_left_out_and_the_runtime_comes_last() -> None:
    found = queries("go_goroutines", "zeta", "up", "ALERTS", "scrape_samples_scraped", "a_build_info", "x_created")
    assert list(found) == ["up", "zeta", "go_goroutines"]


async def test_a_service_with_many_metrics_is_read_in_part_and_that_is_told(prometheus: Prometheus) -> None:
    prometheus.names = [f"gauge_{index}" for index in range(200)]
    found = await prometheus.collector().collect(scope())
    assert len(prometheus.to(RANGE)) == 60
    assert [gap.detail for gap in found.gaps] == ["payment: 60 of 200 metric queries were asked, the most telling"]


# --- the alert's own expression ---


@pytest.mark.parametrize(
    ("expression", "plain"),
    [
        ("rate(x[5m]) > 0.05", "rate(x[5m])"),
        ("a / b >= bool -1.5e-3", "a / b"),
        ('sum(x{path="a > 1 and b"}) < 3', 'sum(x{path="a > 1 and b"})'),
        ("(a and b) > 1", "(a and b)"),
        ("sum(x > 5)", "sum(x > 5)"),
        ("a > 1 and b > 2", "a > 1 and b > 2"),
        ("a or b > 1", "a or b > 1"),
        ("a > 1 > 2", "a > 1 > 2"),
        ("1 < a", "1 < a"),
        ("a > b", "a > b"),
        ("absent(x)", "absent(x)"),
        ("a # > 1", "a # > 1"),
    ],
)
def test_a_threshold_is_taken_off_where_that_is_safe(expression: str, plain: str) -> None:
    assert without_threshold(expression) == plain


def alerted(expression: str) -> Symptom:
    url = httpx.URL("http://prometheus:9090/graph", params={"g0.expr": expression, "g0.tab": "1"})
    return Symptom(source="alertmanager", rule="alertmanager:TooSlow", url=str(url))


async def test_the_alerts_expression_is_read_first_for_its_service_alone(prometheus: Prometheus) -> None:
    prometheus.answers[RANGE] = always(matrix(({}, [[at(1), "2"]])))
    found = await prometheus.collector().collect(scope(symptom=alerted("max by (service) (latency_seconds) > 1")))
    first = prometheus.asked()[0]
    assert first == (
        "max((max by (service) (latency_seconds)) and on (service)"
        ' label_replace(vector(1), "service", "payment", "", ""))'
    )
    assert (found.series[0].ref.component, found.series[0].ref.metric) == ("payment", "TooSlow")


async def test_an_expression_over_several_services_is_not_taken_for_one(prometheus: Prometheus) -> None:
    prometheus.names = []

    def answer(request: httpx.Request) -> httpx.Response:
        if " and on (" in form(request)["query"]:
            return matrix()
        return matrix(({"job": "a"}, [[at(1), "2"]]), ({"job": "b"}, [[at(1), "2"]]))

    prometheus.answers[RANGE] = answer
    found = await prometheus.collector().collect(scope(symptom=alerted("x > 1")))
    assert not found.series
    assert any("gives 2 series" in gap.detail for gap in found.gaps)


@pytest.mark.parametrize(
    "url", ["http://[", "http://grafana/alerting/x?orgId=1", "http://p/graph?g0.expr=" + "x" * 5000]
)
async def test_a_link_without_a_usable_expression_asks_nothing(prometheus: Prometheus, url: str) -> None:
    prometheus.names = []
    await prometheus.collector().collect(scope(symptom=Symptom(url=url)))
    assert not prometheus.to(RANGE)


# --- answers ---


async def test_values_are_strings_and_what_is_no_number_is_dropped(prometheus: Prometheus) -> None:
    values: list[JsonValue] = [
        [at(0), "0.5"],
        [at(1), "NaN"],
        [at(2), "+Inf"],
        [at(3), "1e3"],
        [at(4), None],
        ["soon", "1"],
        [at(5)],
        [at(90), "7"],
    ]
    prometheus.answers[RANGE] = always(matrix(({}, values)))
    found = await prometheus.collector().collect(scope())
    [series] = found.series
    assert series.epoch_s == (at(0), at(3))
    assert series.values == (0.5, 1000.0)
    assert [gap.detail for gap in found.gaps] == [
        '3 rows were not understood: max(queue_depth{service="payment"})',
        '1 points outside of the window were dropped: max(queue_depth{service="payment"})',
    ]


async def test_a_warning_with_every_answer_is_told_once(prometheus: Prometheus) -> None:
    prometheus.names = ["queue_depth", "pool_active", "pool_idle"]
    prometheus.answers[RANGE] = always(matrix(({}, [[at(0), "1"]]), warnings=["a store did not answer"]))
    [gap] = (await prometheus.collector().collect(scope())).gaps
    assert (gap.reason, gap.detail) == (GapReason.TRUNCATED, "prometheus warns: a store did not answer")


async def test_of_several_labels_that_tell_failures_always_the_same_is_taken(prometheus: Prometheus) -> None:
    prometheus.names = ["calls_total"]
    prometheus.answers[LABELS] = always(success(list(reversed(FAILURES))))
    await prometheus.collector().collect(scope())
    failed = [query for query in prometheus.asked() if "=~" in query]
    assert failed
    assert all('status=~"5.."' in query for query in failed)


async def test_warnings_are_gaps(prometheus: Prometheus) -> None:
    warning = "remote read: partial response"
    prometheus.answers[RANGE] = always(matrix(({}, [[at(0), "1"]]), warnings=[warning]))
    found = await prometheus.collector().collect(scope())
    assert len(found.series) == 1
    assert [(gap.reason, gap.detail.rpartition(": remote")[1]) for gap in found.gaps] == [
        (GapReason.TRUNCATED, ": remote")
    ]


@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_query_costs_only_itself(prometheus: Prometheus, status: int) -> None:
    prometheus.names = ["broken", "whole"]
    refusal = {"status": "error", "errorType": "execution", "error": "multiple matches for labels"}

    def answer(request: httpx.Request) -> httpx.Response:
        if "broken" in form(request)["query"]:
            return httpx.Response(status, json=refusal)
        return matrix(({}, [[at(0), "1"]]))

    prometheus.answers[RANGE] = answer
    found = await prometheus.collector().collect(scope())
    assert [series.ref.metric for series in found.series] == ["whole"]
    [gap] = found.gaps
    assert "broken" in gap.detail
    assert "multiple matches for labels" in gap.detail
    assert {query.rows for query in found.queries if "broken" in query.text} == {0}


async def test_a_query_that_takes_too_long_is_tried_once_more(prometheus: Prometheus) -> None:
    prometheus.answers[RANGE] = always(httpx.Response(503, json={"status": "error", "errorType": "timeout"}))
    found = await prometheus.collector().collect(scope())
    assert len(prometheus.to(RANGE)) == 2
    assert [gap.reason for gap in found.gaps] == [GapReason.UNREACHABLE]


async def test_rate_limits_are_waited_for(prometheus: Prometheus) -> None:
    answers = iter([httpx.Response(429, headers={"retry-after": "0"}), matrix(({}, [[at(0), "1"]]))])
    prometheus.answers[RANGE] = lambda _: next(answers)
    found = await prometheus.collector().collect(scope())
    assert len(found.series) == 1
    assert not found.gaps


@pytest.mark.parametrize(
    ("settings", "mend"),
    [
        (
            {},
            "set PROMETHEUS_TOKEN, or PROMETHEUS_USERNAME and PROMETHEUS_PASSWORD, and PROMETHEUS_ORG_ID if it has"
            " several tenants",
        ),
        ({"org_id": "shop"}, "set PROMETHEUS_TOKEN, or PROMETHEUS_USERNAME and PROMETHEUS_PASSWORD"),
    ],
)
async def test_a_refusal_of_everything_says_what_to_set(
    prometheus: Prometheus, settings: dict[str, object], mend: str
) -> None:
    for path in (NAMES, LABELS, METADATA, RANGE, INSTANT, ALERTS):
        prometheus.answers[path] = always(httpx.Response(401, text="no org id"))
    with pytest.raises(Forbidden) as refused:
        await prometheus.collector(INCIDENT.end, **settings).collect(scope())
    assert refused.value.mend == mend


async def test_without_metadata_names_tell_the_type(prometheus: Prometheus) -> None:
    prometheus.names = ["orders_total"]
    prometheus.answers[METADATA] = always(httpx.Response(404, text="404 page not found"))
    found = await prometheus.collector().collect(scope(Target(service="a"), Target(service="b", hops=1)))
    assert len(prometheus.to(METADATA)) == 1
    assert prometheus.asked()[0].startswith("sum(rate(orders_total{")
    assert len(found.gaps) == 1


async def test_other_days_are_read_into_the_same_series(prometheus: Prometheus) -> None:
    day = timedelta(days=1)
    seasonal = Window(start=INCIDENT.start - day, end=INCIDENT.end - day)

    def answer(request: httpx.Request) -> httpx.Response:
        return matrix(({}, [[float(form(request)["start"]), "1"]]))

    prometheus.answers[RANGE] = answer
    found = await prometheus.collector().collect(
        scope(Target(service="payment"), Target(service="db", hops=1), seasonal=(seasonal,))
    )
    lengths = {series.ref.component: len(series.epoch_s) for series in found.series}
    assert lengths == {"payment": 2, "db": 1}
    assert found.series[0].epoch_s[0] == seasonal.start.timestamp()


@pytest.mark.parametrize("answer", [[], "x", {"status": "success"}, {"status": "success", "data": {"result": 3}}])
async def test_an_answer_of_another_shape_does_not_crash(prometheus: Prometheus, answer: JsonValue) -> None:
    for path in (NAMES, LABELS, METADATA, RANGE, INSTANT, ALERTS):
        prometheus.answers[path] = always(httpx.Response(200, json=answer))
    found = await prometheus.collector().collect(scope())
    assert not found.series
    assert found.gaps


async def test_the_budget_of_requests_ends_it(prometheus: Prometheus) -> None:
    prometheus.names = [f"gauge_{index}" for index in range(50)]
    prometheus.answers[RANGE] = always(matrix(({}, [[at(0), "1"]])))
    found = await prometheus.collector(max_calls=20).collect(scope())
    assert len(prometheus.requests) == 20
    assert 0 < len(found.series) < 20
    assert "raise PROMETHEUS_MAX_CALLS, or narrow what is read" in {gap.mend for gap in found.gaps}


async def test_the_deadline_keeps_what_was_read(prometheus: Prometheus) -> None:
    prometheus.names = ["quick", "slow"]
    prometheus.answers[RANGE] = always(matrix(({}, [[at(0), "1"]])))

    async def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == RANGE and "slow" in form(request)["query"]:
            await asyncio.sleep(30)
        return prometheus(request)

    settings = Settings(url="http://prometheus.test", budget_s=0.5)
    collector = PrometheusCollector(FrozenClock(), settings, httpx.MockTransport(answer))
    found = await collector.collect(scope())
    assert [series.ref.metric for series in found.series] == ["quick"]
    assert [(gap.reason, gap.detail) for gap in found.gaps] == [
        (GapReason.TIMEOUT, "metrics of payment: not read whole within 0.5 s")
    ]


# --- changes and states ---


async def test_processes_that_started_are_one_change(prometheus: Prometheus) -> None:
    result: list[JsonValue] = [
        {"metric": {"instance": name}, "value": [at(15), str(at(minute))]} for name, minute in (("a", 2), ("b", 1))
    ]
    prometheus.answers[INSTANT] = always(success({"resultType": "vector", "result": result}))
    [change] = (await prometheus.collector().collect(scope())).changes
    assert (change.component, change.kind, change.at) == ("payment", "other", utc(at(1)))
    assert change.title == "2 processes were started"
    fields = form(prometheus.to(INSTANT)[0])
    assert fields["query"] == f'process_start_time_seconds{{service="payment"}} > {at(-50):.0f}'
    assert float(fields["time"]) == at(15)


async def test_only_a_version_that_follows_another_is_a_deployment(prometheus: Prometheus) -> None:
    prometheus.names = ["pay_build_info"]
    old: tuple[Mapping[str, str], list[JsonValue]] = ({"version": "1.4.0"}, [[at(-40), "1"], [at(-1), "1"]])
    prometheus.answers[RANGE] = always(matrix(old, ({"version": "1.5.0"}, [[at(-2), "1"], [at(9), "1"]])))
    [change] = (await prometheus.collector().collect(scope())).changes
    assert (change.kind, change.version, change.at) == ("deploy", "1.5.0", utc(at(-2)))
    prometheus.answers[RANGE] = always(matrix(old))
    assert not (await prometheus.collector().collect(scope())).changes


def alert(service: str, name: str, minutes: float, state: str = "firing") -> JsonValue:
    return {
        "labels": {"alertname": name, "service": service, "instance": "a"},
        "annotations": {"summary": f"{name} of {service}"},
        "state": state,
        "activeAt": (T0 + timedelta(minutes=minutes)).isoformat().replace("+00:00", ".123456789Z"),
        "value": "1e+00",
    }


async def test_alerts_of_what_the_service_needs_are_leads(prometheus: Prometheus) -> None:
    alerts: list[JsonValue] = [
        alert("payment", "TooSlow", 1),
        alert("checkout", "TooSlow", 2),
        alert("db", "Full", 0),
        alert("db", "Old", -9000),
        alert("db", "Pending", 0, "pending"),
        alert("other", "Full", 0),
        {"labels": {}, "state": "firing"},
    ]
    prometheus.answers[ALERTS] = always(success({"alerts": alerts}))
    found = await prometheus.collector().collect(
        scope(Target(service="payment"), Target(service="checkout", hops=1), Target(service="db", hops=1))
    )
    assert [(s.component, s.name.rpartition(" ")[2], s.observed, s.expected) for s in found.statuses] == [
        ("payment", "TooSlow", 1.0, None),
        ("checkout", "TooSlow", 1.0, None),
        ("db", "Full", 1.0, 0.0),
        ("db", "Old", 1.0, None),
    ]
    assert [gap.detail for gap in found.gaps] == ["1 rows were not understood: alerts"]


# --- measuring again ---


async def test_measure_asks_the_same_again_and_only_of_its_own(prometheus: Prometheus) -> None:
    mine = SeriesRef(source="prometheus", component="payment", metric="m", query="avg(m)")
    prometheus.answers[RANGE] = always(matrix(({}, [[at(1), "3"]])))
    found = await prometheus.collector().measure([mine, mine.model_copy(update={"source": "loki"})], INCIDENT)
    assert [(series.ref, series.values) for series in found] == [(mine, (3.0,))]
    prometheus.answers[RANGE] = always(matrix())
    assert await prometheus.collector().measure([mine], INCIDENT) == []
    prometheus.answers[RANGE] = always(httpx.Response(400, text="parse error"))
    with pytest.raises(CollectorError, match="parse error"):
        await prometheus.collector().measure([mine], INCIDENT)


# --- credentials ---


async def test_credentials_and_tenant_are_sent(prometheus: Prometheus) -> None:
    await prometheus.collector(token="t0ken", org_id="shop").collect(scope())
    assert {request.headers["authorization"] for request in prometheus.requests} == {"Bearer t0ken"}
    assert {request.headers["x-scope-orgid"] for request in prometheus.requests} == {"shop"}
    prometheus.requests.clear()
    await prometheus.collector(username="u", password="p").collect(scope())
    assert {request.headers["authorization"] for request in prometheus.requests} == {"Basic dTpw"}
    assert "p4ssw0rd" not in repr(Settings(url="http://x", username="u", password=SecretStr("p4ssw0rd")))


class _Expired(Credentials):
    """Credentials of a role that can no longer be had."""

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "the token is too old"}}, "AssumeRole")


class _ExpiredSession(Session):
    def get_credentials(self) -> _Expired:
        return _Expired("AKIDEXAMPLE", "a-secret")


async def test_credentials_that_cannot_be_fetched_again_are_no_defect() -> None:
    transport = httpx.MockTransport(lambda _: success([]))
    async with httpx.AsyncClient(auth=SigV4("eu-west-1", _ExpiredSession()), transport=transport) as client:
        with pytest.raises(Forbidden, match="the token is too old") as refused:
            await client.get("https://aps.test/api/v1/labels")
    assert "role" in refused.value.mend


async def test_amazons_requests_are_signed_as_amazon_reads_them() -> None:
    keys = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "session-token")
    session = Session()
    session.set_credentials(keys.access_key, keys.secret_key, keys.token)
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return success([])

    url = "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1/api/v1/labels"
    async with httpx.AsyncClient(auth=SigV4("eu-west-1", session), transport=httpx.MockTransport(answer)) as client:
        await client.get(url, params={"match[]": '{service="a b"}'})
        await client.post(url, data={"query": "up > 1"})
    for request in seen:
        assert "+" not in str(request.url)
        headers = request.headers
        assert headers["x-amz-security-token"] == "session-token"
        scope_ = f"{headers['x-amz-date'][:8]}/eu-west-1/aps/aws4_request"
        assert f"Credential=AKIDEXAMPLE/{scope_}" in headers["authorization"]
        assert headers["authorization"].endswith(_signature(keys, request))


def _signature(keys: Credentials, request: httpx.Request) -> str:
    """What the service computes from what it received."""
    names = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    received = AWSRequest(
        method=request.method,
        url=str(request.url),
        data=request.content,
        headers={name: request.headers[name] for name in names},
    )
    received.context["timestamp"] = request.headers["x-amz-date"]
    signer = SigV4Auth(keys, "aps", "eu-west-1")
    canonical = signer.canonical_request(received)
    return signer.signature(signer.string_to_sign(received, canonical), received)


async def test_a_missing_iam_permission_is_named(prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    prometheus.answers[METADATA] = always(httpx.Response(403, text="AccessDeniedException"))
    found = await prometheus.collector(sigv4_region="eu-west-1").collect(scope())
    assert [gap.mend for gap in found.gaps] == ["allow aps:GetMetricMetadata on the workspace in IAM"]
    assert {query.link for query in found.queries} == {None}


def test_create_names_the_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("URL", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"PROMETHEUS_{setting}", raising=False)
    with pytest.raises(ValueError, match="The collector 'prometheus' needs PROMETHEUS_URL"):
        create(FrozenClock(), Declared())
    monkeypatch.setenv("PROMETHEUS_URL", "http://prometheus.test")
    monkeypatch.setenv("PROMETHEUS_USERNAME", "u")
    with pytest.raises(ValueError, match="PROMETHEUS_PASSWORD"):
        create(FrozenClock(), Declared())
    monkeypatch.setenv("PROMETHEUS_PASSWORD", "p")
    assert create(FrozenClock(), Declared()).name == "prometheus"


# --- doctor ---


async def test_the_doctor_tells_what_is_missing(prometheus: Prometheus) -> None:
    prometheus.answers[RANGE] = always(matrix(({}, [[at(14), "4"]])))
    prometheus.answers[METADATA] = always(httpx.Response(403))
    checks = {check.name: check for check in await prometheus.collector().check()}
    assert {name: check.status for name, check in checks.items()} == {
        "reachable": "ok",
        "labels": "ok",
        "metadata": "failed",
        "sample query": "ok",
        "clock": "skipped",
    }
    assert checks["sample query"].detail == "count(up): 4"
    assert checks["metadata"].mend.startswith("set PROMETHEUS_TOKEN")


async def test_the_doctor_of_a_server_that_is_not_there() -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    collector = PrometheusCollector(FrozenClock(), Settings(url="http://prometheus.test"), httpx.MockTransport(lost))
    checks = await collector.check()
    assert [(check.name, check.status) for check in checks] == [("reachable", "failed"), ("clock", "skipped")]
    assert "check PROMETHEUS_URL" in checks[0].mend
    with pytest.raises(Unreachable):
        await collector.collect(scope())
