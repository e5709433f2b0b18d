"""The Tempo collector against answers of the documented shapes."""

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import JsonValue, SecretStr

from collectors.base import (
    Declared,
    Edge,
    Forbidden,
    Gap,
    GapReason,
    LogsRead,
    Refused,
    Scope,
    SeriesRef,
    Target,
    TraceRead,
    Unreachable,
    Window,
)
from collectors.tempo import MAX_DURATION, Settings, TempoCollector, create
from tests.collectors.test_otlp import BASELINE, INCIDENT, T0

YESTERDAY = Window(start=T0 - timedelta(days=1), end=T0 + timedelta(minutes=15) - timedelta(days=1))
SEARCH, METRICS = "/api/search", "/api/metrics/query_range"
FAILED_ID, USUAL_ID = "2f3e0cee77ae5dc9c17ade3689eb2e54", "00000000000000000d6e9329d67b6146"

Answer = Callable[[httpx.Request], httpx.Response]


class FrozenClock:
    """Stands still."""

    def now(self) -> datetime:
        """Quarter past nine."""
        return INCIDENT.end


def scope(*targets: Target) -> Scope:
    return Scope(
        service="payment",
        occurred_at=T0,
        incident=INCIDENT,
        baseline=(BASELINE,),
        seasonal=(YESTERDAY,),
        targets=targets or (Target(service="payment", otel_service="payment-svc"),),
    )


def ns(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000_000


def trace(trace_id: str, at: datetime = T0, *, failed: bool = False, service: str = "payment-svc") -> JsonValue:
    span: dict[str, JsonValue] = {
        "traceId": trace_id,
        "spanId": trace_id[-16:],
        "name": "POST /pay",
        "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": str(ns(at)),
        "endTimeUnixNano": str(ns(at) + 120_000_000),
        "status": {"code": "STATUS_CODE_ERROR", "message": "pool exhausted"} if failed else {},
    }
    named: JsonValue = [{"key": "service.name", "value": {"stringValue": service}}]
    return {"resource": {"attributes": named}, "scopeSpans": [{"spans": [span]}]}


def found(*ids: str, **metrics: int) -> httpx.Response:
    rows = [{"traceID": i, "rootServiceName": "shop", "startTimeUnixNano": str(ns(T0)), "durationMs": 557} for i in ids]
    return httpx.Response(200, json={"traces": rows, "metrics": metrics or {"totalBlocks": 13}})


def series(labels: dict[str, str], *samples: dict[str, JsonValue]) -> JsonValue:
    named: JsonValue = [{"key": key, "value": {"stringValue": value}} for key, value in labels.items()]
    return {"labels": named, "samples": list(samples), "promLabels": "{}"}


def sample(minute: int, value: JsonValue = None) -> dict[str, JsonValue]:
    at: dict[str, JsonValue] = {"timestampMs": str(ns(T0 + timedelta(minutes=minute)) // 1_000_000)}
    return at if value is None else at | {"value": value}


class Tempo:
    """Finds one failed trace in the incident and one usual one before; counts nothing."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, Answer] = {SEARCH: self.search}
        self.traces: dict[str, JsonValue] = {
            FAILED_ID: {"trace": {"resourceSpans": [trace(FAILED_ID, failed=True)]}},
            USUAL_ID: {"trace": {"resourceSpans": [trace(USUAL_ID, T0 - timedelta(minutes=9))]}},
        }

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path in self.answers:
            return self.answers[path](request)
        if path.startswith("/api/v2/traces/"):
            body = self.traces.get(path.rpartition("/")[2])
            return (
                httpx.Response(200, json=body) if body is not None else httpx.Response(404, text="404 page not found")
            )
        return httpx.Response(200, json={})

    def search(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        if "status=error" in params["q"]:
            return found(FAILED_ID) if int(params["start"]) == int(T0.timestamp()) else found()
        return found(USUAL_ID.lstrip("0"))  # as Tempo has ids of 64 bits

    def to(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path.startswith(path)]

    def collector(self, **settings: object) -> TempoCollector:
        plain: dict[str, object] = {"url": "http://tempo:3200", "metrics": False}
        return TempoCollector(FrozenClock(), Settings.model_validate(plain | settings), httpx.MockTransport(self))


@pytest.fixture
def tempo() -> Tempo:
    return Tempo()


def reasons(gaps: tuple[Gap, ...]) -> list[GapReason]:
    return [gap.reason for gap in gaps]


async def test_failed_traces_come_first_and_every_trace_is_read_once(tempo: Tempo) -> None:
    seen = await tempo.collector().collect(scope())
    assert [(s.component, s.trace_id, s.error) for s in seen.spans] == [
        ("payment", FAILED_ID, "pool exhausted"),
        ("payment", USUAL_ID, ""),
    ]
    assert [r.url.params["q"] for r in tempo.to(SEARCH)] == [
        '{resource.service.name="payment-svc" && status=error}',
        '{resource.service.name="payment-svc"}',
        '{resource.service.name="payment-svc" && duration>120ms}',
        '{resource.service.name="payment-svc"}',
        '{resource.service.name="payment-svc" && status=error}',
        '{resource.service.name="payment-svc" && duration>120ms}',
    ]
    assert len(tempo.to("/api/v2/traces/")) == 2
    assert seen.gaps == ()


async def test_every_search_has_both_ends_in_seconds_and_a_limit(tempo: Tempo) -> None:
    seen = await tempo.collector(traces_per_search=1).collect(scope())
    first = tempo.to(SEARCH)[0].url.params
    assert (int(first["start"]), int(first["end"])) == (T0.timestamp(), INCIDENT.end.timestamp())
    assert first["limit"] == "1"
    assert seen.queries[0].truncated
    assert seen.queries[0].text == first["q"]
    assert (seen.queries[0].start, seen.queries[0].end) == (INCIDENT.start, INCIDENT.end)


async def test_text_of_strangers_is_a_literal(tempo: Tempo) -> None:
    await tempo.collector().collect(scope(Target(service='a" || status=ok} | \\')))
    assert tempo.to(SEARCH)[0].url.params["q"] == r'{resource.service.name="a\" || status=ok} | \\" && status=error}'


async def test_credentials_and_tenant_are_sent(tempo: Tempo) -> None:
    await tempo.collector(token=SecretStr("t"), org_id="shop").collect(scope())
    assert tempo.requests[0].headers["authorization"] == "Bearer t"
    assert tempo.requests[0].headers["x-scope-orgid"] == "shop"


async def test_an_older_tempo_is_asked_by_version_1_and_only_once_by_version_2(tempo: Tempo) -> None:
    bodies = {i: {"batches": body["trace"]["resourceSpans"]} for i, body in tempo.traces.items()}  # type: ignore[index, call-overload]
    tempo.traces = {}
    for trace_id, body in bodies.items():
        tempo.answers[f"/api/traces/{trace_id}"] = lambda _, body=body: httpx.Response(200, json=body)  # type: ignore[misc]
    collector = tempo.collector()
    assert len((await collector.collect(scope())).spans) == 2
    before = len(tempo.to("/api/v2/traces/"))
    await collector.collect(scope())
    assert (before, len(tempo.to("/api/v2/traces/"))) == (1, 1)


async def test_traces_that_are_gone_or_came_in_part_are_told(tempo: Tempo) -> None:
    tempo.traces[USUAL_ID] = {**tempo.traces[USUAL_ID], "status": "PARTIAL", "message": "too large"}  # type: ignore[dict-item]
    del tempo.traces[FAILED_ID]
    tempo.answers[f"/api/traces/{FAILED_ID}"] = lambda _: httpx.Response(404)
    seen = await tempo.collector().collect(scope())
    assert len(seen.spans) == 1
    assert any(gap.detail.startswith("1 of 1 traces") for gap in seen.gaps)
    assert any("came in part: too large" in gap.detail for gap in seen.gaps)


async def test_malformed_results_and_unfinished_searches_are_told(tempo: Tempo) -> None:
    rows: JsonValue = [{"traceID": "../admin"}, {}, 7, {"traceID": FAILED_ID}]
    body: JsonValue = {"traces": rows, "metrics": {"completedJobs": 3, "totalJobs": 9}}
    tempo.answers[SEARCH] = lambda _: httpx.Response(200, json=body)
    seen = await tempo.collector().collect(scope())
    assert any(gap.detail.startswith("3 rows were not understood") for gap in seen.gaps)
    assert seen.queries[0].truncated
    assert {r.url.path for r in tempo.requests} == {SEARCH, f"/api/v2/traces/{FAILED_ID}"}


async def test_the_number_of_traces_is_bounded_over_all_services(tempo: Tempo) -> None:
    numbers = iter(range(1, 1000))
    tempo.answers[SEARCH] = lambda _: found(*(f"{next(numbers):x}" for _ in range(8)))
    seen = await tempo.collector(max_traces=10).collect(scope(Target(service="a"), Target(service="b", hops=1)))
    read = {request.url.path.rpartition("/")[2] for request in tempo.requests if "/traces/" in request.url.path}
    assert len(read) == 10
    assert "raise TEMPO_MAX_TRACES" in {gap.mend for gap in seen.gaps}


async def test_the_budget_of_calls_ends_a_collection_and_keeps_what_came(tempo: Tempo) -> None:
    seen = await tempo.collector(max_calls=2).collect(scope())
    assert len(seen.spans) == 1
    assert "raise TEMPO_MAX_CALLS, or narrow what is read" in {gap.mend for gap in seen.gaps}


async def test_neighbours_in_a_trace_become_edges_under_our_names(tempo: Tempo) -> None:
    call: dict[str, JsonValue] = {
        "traceId": FAILED_ID,
        "spanId": "a1",
        "kind": 3,
        "parentSpanId": FAILED_ID[-16:],
        "startTimeUnixNano": ns(T0),
        "endTimeUnixNano": ns(T0) + 1,
        "attributes": [{"key": "peer.service", "value": {"stringValue": "ledger-svc"}}],
    }
    body = trace(FAILED_ID)
    body["scopeSpans"][0]["spans"].append(call)  # type: ignore[index, call-overload, union-attr]
    tempo.traces[FAILED_ID] = {"trace": {"resourceSpans": [body]}}
    targets = (
        Target(service="payment", otel_service="payment-svc"),
        Target(service="ledger", otel_service="ledger-svc"),
    )
    seen = await tempo.collector().collect(scope(*targets))
    assert seen.edges == (Edge(caller="payment", callee="ledger", source="tempo"),)


# --- metrics ------------------------------------------------------------------------------------------------------


def counts(request: httpx.Request) -> httpx.Response:
    if "quantile" in request.url.params["q"]:
        rows = [series({"p": "0.95"}, sample(0, 0.25), sample(1, "NaN"), sample(2), sample(99, 7.0), {"value": 1})]
    else:
        rows = [
            series({"status": "ok"}, sample(0, 2.5), sample(1, 2.0)),
            series({"status": "error"}, sample(1, 0.5), sample(2)),
        ]
    return httpx.Response(200, json={"series": rows, "metrics": {}})


async def test_rates_errors_and_durations_become_series(tempo: Tempo) -> None:
    tempo.answers[METRICS] = counts
    seen = await tempo.collector(metrics=True).collect(scope())
    at = [(T0 + timedelta(minutes=m)).timestamp() for m in range(3)]
    assert {s.ref.metric: (s.epoch_s, s.values, s.ref.unit) for s in seen.series} == {
        "traces.requests": (tuple(at), (2.5, 2.5, 0.0), "/s"),
        "traces.errors": (tuple(at), (0.0, 0.5, 0.0), "/s"),
        "traces.duration": ((at[0],), (250.0,), "ms"),
    }
    assert {s.ref.component for s in seen.series} == {"payment"}
    assert any("1 rows were not understood" in gap.detail for gap in seen.gaps)
    windows = [(float(r.url.params["start"]), float(r.url.params["end"])) for r in tempo.to(METRICS)]
    assert windows[-1] == (YESTERDAY.start.timestamp(), YESTERDAY.end.timestamp())
    assert windows[1] == (BASELINE.start.timestamp(), INCIDENT.end.timestamp())
    assert {r.url.params["step"] for r in tempo.to(METRICS)} == {"60s"}


async def test_a_metric_is_measured_again_by_its_ref(tempo: Tempo) -> None:
    tempo.answers[METRICS] = counts
    collector = tempo.collector(metrics=True)
    refs = [s.ref for s in (await collector.collect(scope())).series if s.ref.metric == "traces.errors"]
    tempo.requests.clear()
    other = SeriesRef(source="datadog", component="payment", metric="x", query="avg:x{*}")
    [again] = await collector.measure([*refs, other], INCIDENT)
    assert (again.ref, again.values) == (refs[0], (0.0, 0.5, 0.0))
    assert len(tempo.requests) == 1


async def test_a_tempo_that_does_not_count_is_told_once_and_not_asked_again(tempo: Tempo) -> None:
    tempo.answers[METRICS] = lambda _: httpx.Response(404, text="404 page not found")
    collector = tempo.collector(metrics=True)
    targets = [Target(service=name) for name in "abcdefghij"]
    seen = await collector.collect(scope(*targets))
    assert reasons(seen.gaps) == [GapReason.NOT_CONFIGURED]
    assert "local-blocks" in seen.gaps[0].mend
    before = len(tempo.to(METRICS))
    await collector.collect(scope())
    assert len(tempo.to(METRICS)) == before


async def test_a_limit_of_tempos_own_is_named_and_costs_only_the_longer_window(tempo: Tempo) -> None:
    told = "metrics query time range exceeds the maximum allowed duration of 3h0m0s"

    def limited(request: httpx.Request) -> httpx.Response:
        short = int(request.url.params["start"]) > (T0 - timedelta(hours=6)).timestamp()
        return counts(request) if short else httpx.Response(400, text=told)

    tempo.answers[METRICS] = limited
    yesterday = Window(start=T0 - timedelta(days=1), end=INCIDENT.end - timedelta(days=1))
    seen = await tempo.collector(metrics=True).collect(scope().model_copy(update={"seasonal": (yesterday,)}))
    assert [gap.mend for gap in seen.gaps if "exceeds" in gap.detail] == [MAX_DURATION]
    assert {s.ref.metric for s in seen.series} == {"traces.requests", "traces.errors", "traces.duration"}


async def test_metrics_that_were_read_in_time_are_kept(tempo: Tempo) -> None:
    yesterday = Window(start=T0 - timedelta(days=1), end=INCIDENT.end - timedelta(days=1))

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if int(request.url.params.get("start", 0)) < (T0 - timedelta(hours=6)).timestamp():
                await asyncio.Event().wait()
            return counts(request) if request.url.path == METRICS else tempo(request)

    settings = Settings.model_validate({"url": "http://tempo:3200", "traces_per_search": 1})
    late = scope().model_copy(update={"seasonal": (yesterday,), "within_s": 1.5})
    seen = await TempoCollector(FrozenClock(), settings, Slow()).collect(late)
    assert {s.ref.metric for s in seen.series} == {"traces.requests", "traces.errors", "traces.duration"}
    assert any(gap.reason == GapReason.TIMEOUT for gap in seen.gaps)


async def test_a_query_with_an_error_leaves_the_traces(tempo: Tempo) -> None:
    tempo.answers[METRICS] = lambda _: httpx.Response(400, text="localblocks processor not found")
    seen = await tempo.collector(metrics=True).collect(scope())
    assert len(seen.spans) == 2
    assert "localblocks processor not found" in seen.gaps[0].detail


# --- failures -----------------------------------------------------------------------------------------------------


async def test_refused_credentials_say_what_to_set(tempo: Tempo) -> None:
    tempo.answers[SEARCH] = lambda _: httpx.Response(401, text="no org id")
    with pytest.raises(Forbidden) as refused:
        await tempo.collector().collect(scope())
    assert "TEMPO_ORG_ID" in refused.value.mend


async def test_a_rate_limit_is_waited_out_and_then_told(tempo: Tempo) -> None:
    answers = iter(
        [httpx.Response(429, headers={"Retry-After": "0"}), httpx.Response(429, headers={"Retry-After": "60"})]
    )
    tempo.answers[SEARCH] = lambda r: next(answers, tempo.search(r))
    tempo.answers[METRICS] = counts
    seen = await tempo.collector(metrics=True).collect(scope())
    assert GapReason.RATE_LIMITED in reasons(seen.gaps)
    assert len(tempo.to(SEARCH)) == 2


async def test_a_dead_server_is_unreachable(tempo: Tempo) -> None:
    def dead(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    tempo.answers[SEARCH] = dead
    with pytest.raises(Unreachable) as lost:
        await tempo.collector().collect(scope())
    assert "TEMPO_URL" in lost.value.mend


async def test_one_trace_that_fails_does_not_hide_the_rest(tempo: Tempo) -> None:
    tempo.answers[f"/api/v2/traces/{FAILED_ID}"] = lambda _: httpx.Response(500)
    seen = await tempo.collector().collect(scope())
    assert [s.trace_id for s in seen.spans] == [USUAL_ID]
    assert reasons(seen.gaps) == [GapReason.UNREACHABLE]


# --- settings, links and doctor -----------------------------------------------------------------------------------


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"TEMPO_{name}", raising=False)
    with pytest.raises(ValueError, match="TEMPO_URL"):
        create(FrozenClock(), Declared())
    monkeypatch.setenv("TEMPO_URL", "http://tempo:3200")
    monkeypatch.setenv("TEMPO_USERNAME", "me")
    with pytest.raises(ValueError, match="TEMPO_PASSWORD"):
        create(FrozenClock(), Declared())


async def test_a_query_links_to_grafana(tempo: Tempo) -> None:
    settings = {"grafana_url": "https://grafana.shop/", "grafana_datasource": "tempo-1"}
    seen = await tempo.collector(**settings).collect(scope())
    link = seen.queries[0].link or ""
    [panes] = parse_qs(urlsplit(link).query)["panes"]
    assert link.startswith("https://grafana.shop/explore?")
    assert json.loads(panes)["tempo"]["queries"][0]["query"] == seen.queries[0].text
    assert (await tempo.collector().collect(scope())).queries[0].link is None


async def test_the_doctor_sees_what_works(tempo: Tempo) -> None:
    tempo.answers["/api/echo"] = lambda _: httpx.Response(200, text="echo")
    tempo.answers[METRICS] = lambda _: httpx.Response(404)
    checks = {check.name: check for check in await tempo.collector(metrics=True).check()}
    assert {name: check.status for name, check in checks.items()} == {
        "reachable": "ok",
        "search traces": "ok",
        "TraceQL metrics": "failed",
        "clock": "skipped",
    }
    assert "TEMPO_METRICS=false" in checks["TraceQL metrics"].mend


async def test_the_doctor_names_what_is_missing(tempo: Tempo) -> None:
    tempo.answers["/api/echo"] = lambda _: httpx.Response(200, text="echo")
    tempo.answers[SEARCH] = lambda _: httpx.Response(403)
    checks = {check.name: check for check in await tempo.collector().check()}
    assert checks["search traces"].status == "failed"
    assert "TEMPO_TOKEN" in checks["search traces"].mend


# --- one trace ----------------------------------------------------------------------------------------------------

NO_IDS = ("../../api/echo", "%2e%2e", "x" * 32, "0" * 32, "a" * 33, f"{FAILED_ID}?q=", f"{FAILED_ID}\n", "ａ" * 32)


async def test_a_trace_is_read_by_its_id_alone(tempo: Tempo) -> None:
    tempo.traces[FAILED_ID] = {
        "trace": {"resourceSpans": [trace(FAILED_ID, failed=True), trace(USUAL_ID, service="somebody-elses")]}
    }
    seen = await tempo.collector(grafana_url="http://grafana", grafana_datasource="tempo-1").read(
        TraceRead(trace_id=FAILED_ID), scope()
    )
    assert [(s.component, s.trace_id, s.error) for s in seen.spans] == [("payment", FAILED_ID, "pool exhausted")]
    assert seen.gaps == ()
    [query] = seen.queries
    assert (query.text, query.rows) == (f"/api/v2/traces/{FAILED_ID}", 2)
    assert query.link is not None
    assert FAILED_ID in query.link
    [request] = tempo.requests
    ends = int(request.url.params["start"]), int(request.url.params["end"])
    assert ends == (BASELINE.start.timestamp() - 3600, INCIDENT.end.timestamp() + 3600)


async def test_who_calls_whom_in_a_trace_is_told(tempo: Tempo) -> None:
    called: JsonValue = {
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "ledger"}}]},
        "scopeSpans": [
            {
                "spans": [
                    {
                        "traceId": FAILED_ID,
                        "spanId": "b" * 16,
                        "parentSpanId": FAILED_ID[-16:],
                        "startTimeUnixNano": str(ns(T0)),
                        "endTimeUnixNano": str(ns(T0) + 1),
                    }
                ]
            }
        ],
    }
    tempo.traces[FAILED_ID] = {"trace": {"resourceSpans": [trace(FAILED_ID), called]}}
    seen = await tempo.collector().read(TraceRead(trace_id=FAILED_ID), scope())
    assert seen.edges == (Edge(caller="payment", callee="ledger", source="tempo"),)


@pytest.mark.parametrize(
    "told",
    [
        FAILED_ID.upper(),
        f"1-{FAILED_ID[:8]}-{FAILED_ID[8:]}",
        "-".join((FAILED_ID[:8], FAILED_ID[8:12], FAILED_ID[12:16], FAILED_ID[16:20], FAILED_ID[20:])),
    ],
)
async def test_other_spellings_of_an_id_are_understood(tempo: Tempo, told: str) -> None:
    assert len((await tempo.collector().read(TraceRead(trace_id=told), scope())).spans) == 1


async def test_an_id_of_64_bits_is_understood(tempo: Tempo) -> None:
    told = USUAL_ID.lstrip("0")
    assert len((await tempo.collector().read(TraceRead(trace_id=told), scope())).spans) == 1


@pytest.mark.parametrize("told", NO_IDS)
async def test_what_is_no_trace_id_is_not_asked(tempo: Tempo, told: str) -> None:
    with pytest.raises(Refused, match="trace ids are"):
        await tempo.collector().read(TraceRead(trace_id=told), scope())
    assert not tempo.requests


async def test_a_trace_that_tempo_does_not_have_is_an_answer(tempo: Tempo) -> None:
    tempo.answers[f"/api/traces/{'c' * 32}"] = lambda _: httpx.Response(404)
    seen = await tempo.collector().read(TraceRead(trace_id="c" * 32), scope())
    assert not seen.spans
    [gap] = seen.gaps
    assert (gap.reason, gap.detail) == (
        GapReason.EMPTY,
        f"tempo has no spans of trace {'c' * 32}, or did not keep them",
    )


async def test_a_trace_that_came_in_part_is_told(tempo: Tempo) -> None:
    tempo.traces[FAILED_ID] = {**tempo.traces[FAILED_ID], "status": "PARTIAL", "message": "too large"}  # type: ignore[dict-item]
    seen = await tempo.collector().read(TraceRead(trace_id=FAILED_ID), scope())
    assert seen.queries[0].truncated
    assert [gap.detail for gap in seen.gaps] == ["traces came in part: too large"]


async def test_refused_credentials_are_raised(tempo: Tempo) -> None:
    tempo.answers[f"/api/v2/traces/{FAILED_ID}"] = lambda _: httpx.Response(401)
    with pytest.raises(Forbidden, match="401"):
        await tempo.collector().read(TraceRead(trace_id=FAILED_ID), scope())


async def test_tempo_knows_no_logs(tempo: Tempo) -> None:
    with pytest.raises(Refused, match="no questions about logs"):
        await tempo.collector().read(LogsRead(component="payment", contains="exhausted"), scope())
