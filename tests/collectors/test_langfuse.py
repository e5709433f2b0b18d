"""The Langfuse collector against answers of the documented shapes of both APIs."""

import base64
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, SecretStr

from collectors.base import (
    Declared,
    Forbidden,
    GapReason,
    LangfuseTraces,
    LogsRead,
    Refused,
    Scope,
    SeriesRef,
    Target,
    Telemetry,
    TraceRead,
    Window,
)
from collectors.langfuse import _COLUMNS, LangfuseCollector, Settings, _changes, _tabled, create
from graph.ranking.semantics import meaning
from tests.collectors.test_otlp import JSON

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=15))
BASELINE = Window(start=T0 - timedelta(hours=1), end=T0)
YESTERDAY = Window(start=T0 - timedelta(days=1), end=T0 + timedelta(minutes=15) - timedelta(days=1))
ROWS, OLD_ROWS, OLD_TRACES = "/api/public/v2/observations", "/api/public/observations", "/api/public/traces"
METRICS, OLD_METRICS, SCORES = "/api/public/v2/metrics", "/api/public/metrics", "/api/public/v2/scores"
CHAT = LangfuseTraces(environment="production", trace_name='chat"', tags=("shop",))
NOT_THERE = {"message": "v2 APIs are currently in beta and only available on Langfuse Cloud"}

COLUMNS = (
    *_COLUMNS,
    "time_dimension",
    "providedModelName",
    "promptName",
    "promptVersion",
    "level",
    "count_count",
    "name",
)

Answer = Callable[[httpx.Request], httpx.Response]


class FrozenClock:
    """Stands still."""

    def now(self) -> datetime:
        """An hour after the incident: everything has arrived."""
        return INCIDENT.end + timedelta(hours=1)


def scope(*targets: Target) -> Scope:
    return Scope(
        service="assistant",
        occurred_at=T0,
        incident=INCIDENT,
        baseline=(BASELINE,),
        seasonal=(YESTERDAY,),
        targets=targets or (Target(service="assistant", langfuse=CHAT), Target(service="shop", hops=1)),
    )


def iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def call(number: int, at: datetime = T0, **fields: JsonValue) -> dict[str, JsonValue]:
    """A row as version 2 of the API has it."""
    plain: dict[str, JsonValue] = {
        "id": f"o{number}",
        "traceId": "t1",
        "projectId": "p",
        "type": "GENERATION",
        "name": "answer",
        "startTime": iso(at),
        "endTime": iso(at + timedelta(milliseconds=800)),
        "level": "DEFAULT",
        "statusMessage": None,
        "parentObservationId": None,
        "providedModelName": "gpt-4o",
        "promptName": "reply",
        "promptVersion": 3,
        "latency": 0.8,
        "totalCost": 0.01,
        "usageDetails": {"input": 100, "output": 20, "total": 120},
    }
    return plain | fields


def failure(number: int, at: datetime = T0) -> dict[str, JsonValue]:
    return call(number, at, level="ERROR", statusMessage="429 Rate limit reached for gpt-4o\nretry in 2 s")


def page(*rows: JsonValue, **meta: JsonValue) -> httpx.Response:
    return httpx.Response(200, json={"data": list(rows), "meta": meta})


def counted(request: httpx.Request) -> httpx.Response:
    """The metrics API: counts come as text, latencies in milliseconds."""
    query = json.loads(request.url.params["query"])
    dimensions = [one["field"] for one in query["dimensions"]]
    if query["view"] == "scores-numeric":
        return page(minute(name="accuracy", avg_value=0.5), minute(name="toxicity", avg_value=None))
    if "level" in dimensions:
        ok = minute(providedModelName="gpt-4o", level="DEFAULT", count_count="40")
        failed = minute(providedModelName="gpt-4o", level="ERROR", count_count="2")
        return page(ok, failed, minute(count_count="9"))
    if "promptName" in dimensions:
        before = minute(providedModelName="gpt-4o", promptName="reply", promptVersion=3, count_count="5")
        now = minute(providedModelName="gpt-4o-mini", promptName="reply", promptVersion=4, count_count="5")
        return page(before | {"time_dimension": "2024-12-20 08:05:00"}, now)
    numbers = minute(
        providedModelName="gpt-4o:free",
        p95_latency=1234.5,
        sum_totalCost="0.4",
        sum_inputTokens="4000",
        sum_outputTokens="NaN",
    )
    late = numbers | {"time_dimension": iso(T0 + timedelta(days=9))}
    return page(numbers, late, {"time_dimension": 7}, "nonsense")


def minute(**fields: JsonValue) -> dict[str, JsonValue]:
    return {"time_dimension": iso(T0)} | fields


class Langfuse:
    """Knows version 2 of the API, and no calls."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.answers: dict[str, Answer] = {ROWS: lambda _: page(), METRICS: lambda _: page()}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.get(request.url.path)
        return answer(request) if answer else httpx.Response(404, json={"error": "NotFound"})

    def to(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path == path]

    def collector(self, **settings: object) -> LangfuseCollector:
        plain: dict[str, object] = {"host": "https://langfuse.shop", "public_key": "pk", "secret_key": "sk"}
        return LangfuseCollector(FrozenClock(), Settings.model_validate(plain | settings), httpx.MockTransport(self))


@pytest.fixture
def langfuse() -> Langfuse:
    return Langfuse()


@pytest.fixture
def old() -> Langfuse:
    """A self-hosted server that knows neither version 2 nor metrics."""
    server = Langfuse()
    server.answers = {
        ROWS: lambda _: httpx.Response(501, json=NOT_THERE),
        OLD_TRACES: lambda _: page({"id": "t1"}, page=1, totalPages=1),
        OLD_ROWS: lambda _: page(page=1, totalPages=0),
        SCORES: lambda _: page(page=1, totalPages=0),
    }
    return server


def values(seen: Telemetry) -> dict[str, Sequence[float]]:
    return {series.ref.metric: series.values for series in seen.series}


# --- whose calls --------------------------------------------------------------------------------------------------


async def test_without_traces_in_the_catalogue_nothing_is_asked(langfuse: Langfuse) -> None:
    seen = await langfuse.collector().collect(scope(Target(service="shop")))
    assert seen == Telemetry(source="langfuse", cost=seen.cost)
    assert langfuse.requests == []


async def test_a_service_is_selected_in_one_filter_that_says_all(langfuse: Langfuse) -> None:
    await langfuse.collector().collect(scope())
    [first] = [r for r in langfuse.to(ROWS) if "filter" in r.url.params][:1]
    assert json.loads(first.url.params["filter"]) == [
        {"type": "datetime", "column": "startTime", "operator": ">=", "value": "2024-12-20T09:00:00.000Z"},
        {"type": "datetime", "column": "startTime", "operator": "<", "value": "2024-12-20T09:15:00.000Z"},
        {"type": "string", "column": "environment", "operator": "=", "value": "production"},
        {"type": "string", "column": "traceName", "operator": "=", "value": 'chat"'},
        {"type": "arrayOptions", "column": "tags", "operator": "all of", "value": ["shop"]},
        {"type": "string", "column": "level", "operator": "=", "value": "ERROR"},
    ]
    assert first.headers["authorization"] == "Basic " + base64.b64encode(b"pk:sk").decode()


async def test_what_people_wrote_is_not_asked_for(langfuse: Langfuse) -> None:
    await langfuse.collector().collect(scope())
    fields = {field for r in langfuse.to(ROWS) for field in r.url.params.get("fields", "").split(",")}
    assert not fields & {"io", "metadata"}


# --- numbers ------------------------------------------------------------------------------------------------------


async def test_metrics_become_series_by_model(langfuse: Langfuse) -> None:
    langfuse.answers[METRICS] = counted
    seen = await langfuse.collector().collect(scope())
    assert values(seen) == {
        "llm.latency_ms{gpt-4o}": (1234.5,),
        "llm.cost_usd{gpt-4o}": (0.4,),
        "llm.tokens.input{gpt-4o}": (4000.0,),
        "llm.calls{gpt-4o}": (42.0,),
        "llm.errors{gpt-4o}": (2.0,),
        "llm.score.success.accuracy": (0.5,),
    }
    assert {s.epoch_s for s in seen.series} == {(T0.timestamp(),)}
    assert {(s.ref.component, s.ref.source) for s in seen.series} == {("assistant", "langfuse")}
    queries = [json.loads(r.url.params["query"]) for r in langfuse.to(METRICS)]
    starts = {q["fromTimestamp"] for q in queries}
    assert starts == {"2024-12-19T09:00:00.000Z", "2024-12-20T08:00:00.000Z"}
    assert {q["config"]["row_limit"] for q in queries} == {1000}


@pytest.mark.parametrize(
    ("metric", "unit", "worse"),
    [
        ("llm.latency_ms{gpt-4o}", "ms", "up"),
        ("llm.errors{claude-3-5-sonnet}", "", "up"),
        ("llm.calls{gpt-4o-mini}", "", "neutral"),
        ("llm.score.success.accuracy", "", "down"),
        ("llm.score.fault.toxicity", "", "up"),
    ],
)
def test_the_ranking_knows_which_way_is_bad(metric: str, unit: str, worse: str) -> None:
    assert meaning(metric, unit).worse == worse


async def test_a_metric_is_measured_again_by_its_ref(langfuse: Langfuse) -> None:
    langfuse.answers[METRICS] = counted
    collector = langfuse.collector()
    refs = [s.ref for s in (await collector.collect(scope())).series if s.ref.metric.startswith("llm.errors")]
    langfuse.requests.clear()
    other = SeriesRef(source="datadog", component="assistant", metric="x", query="avg:x{*}")
    [again] = await collector.measure([*refs, other], INCIDENT)
    assert (again.ref, again.values) == (refs[0], (2.0,))
    assert len(langfuse.requests) == 1


async def test_new_models_and_prompt_versions_are_changes(langfuse: Langfuse) -> None:
    langfuse.answers[METRICS] = counted
    seen = await langfuse.collector().collect(scope())
    assert [(c.component, c.kind, c.at, c.version) for c in seen.changes] == [
        ("assistant", "configuration", T0, "gpt-4o-mini"),
        ("assistant", "configuration", T0, "4"),
    ]
    assert "before: 3" in seen.changes[1].title


# --- rows ---------------------------------------------------------------------------------------------------------


async def test_failed_calls_become_log_lines_and_spans(langfuse: Langfuse) -> None:
    def rows(request: httpx.Request) -> httpx.Response:
        wanted = request.url.params.get("filter", "")
        if request.url.params.get("fromStartTime") != iso(T0):
            return page()
        return page(failure(1)) if "ERROR" in wanted else page(failure(1), call(2))

    langfuse.answers[ROWS] = rows
    seen = await langfuse.collector().collect(scope())
    [line] = seen.logs
    assert (line.component, line.level, line.logger, line.trace_id, line.span_id) == (
        "assistant",
        "error",
        "answer",
        "t1",
        "o1",
    )
    assert line.message.startswith("gpt-4o: 429 Rate limit reached")
    assert {(s.span_id, s.operation, s.kind, s.peer, s.error, s.duration_ms) for s in seen.spans} == {
        ("o1", "reply gpt-4o", "client", "openai", "429 Rate limit reached for gpt-4o", 800.0),
        ("o2", "reply gpt-4o", "client", "openai", "", 800.0),
    }


@pytest.mark.parametrize(
    ("model", "vendor"),
    [
        ("us.anthropic.claude-3-5-sonnet-v2:0", "anthropic"),
        ("mistralai/mixtral-8x7b", "mistralai"),
        ("gemini-2.0-flash", "google"),
        ("our-own-7b", "our-own-7b"),
    ],
)
async def test_the_callee_is_who_runs_the_model(langfuse: Langfuse, model: str, vendor: str) -> None:
    langfuse.answers[ROWS] = lambda _: page(call(1, providedModelName=model))
    seen = await langfuse.collector().collect(scope())
    assert {s.peer for s in seen.spans} == {vendor}


async def test_pages_follow_the_cursor_and_end_even_if_it_never_does(langfuse: Langfuse) -> None:
    numbers = iter(range(10_000))

    def rows(request: httpx.Request) -> httpx.Response:
        if "filter" not in request.url.params:
            return page()
        number = next(numbers)
        return page(*(call(number * 10 + i) for i in range(10)), cursor=f"c{number}")

    langfuse.answers[ROWS] = rows
    seen = await langfuse.collector(rows_per_search=20).collect(scope())
    cursors = [r.url.params.get("cursor") for r in langfuse.to(ROWS) if "filter" in r.url.params]
    assert cursors[:2] == [None, "c0"]
    assert len(cursors) <= 12
    assert any(q.truncated for q in seen.queries)

    langfuse.answers[ROWS] = lambda _: page(cursor="again")
    assert (await langfuse.collector().collect(scope())).spans == ()


async def test_malformed_rows_are_counted_and_those_of_another_time_dropped(langfuse: Langfuse) -> None:
    rows: list[JsonValue] = [{"id": "x"}, 7, call(1, T0 + timedelta(days=3)), call(2, startTime="soon"), call(3)]
    langfuse.answers[ROWS] = lambda _: page(*rows)
    seen = await langfuse.collector().collect(scope())
    assert [s.span_id for s in seen.spans] == ["o3"]
    assert any(gap.detail.startswith("3 rows were not understood") for gap in seen.gaps)


@given(st.dictionaries(st.sampled_from(COLUMNS), JSON))
def test_no_row_of_metrics_is_too_strange(row: dict[str, JsonValue]) -> None:
    for points in _tabled([row, minute() | row], INCIDENT).values():
        assert all(isfinite(value) for value in points.values())
    assert list(_changes("assistant", [row], INCIDENT)) == []


# --- the older API ------------------------------------------------------------------------------------------------


def older(row: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """The row as the older API has it, with all that people wrote."""
    renamed = {"providedModelName": "model", "totalCost": "calculatedTotalCost", "usageDetails": "usage"}
    plain = {renamed.get(key, key): value for key, value in row.items()}
    return plain | {"usage": {"input": 100, "output": 20, "unit": "TOKENS"}, "input": "my card is 4111"}


async def test_the_older_api_counts_rows_of_the_services_traces(old: Langfuse) -> None:
    rows = [older(call(1)), older(failure(2)), older(call(3) | {"traceId": "other"})]
    old.answers[OLD_ROWS] = lambda _: page(*rows, page=1, totalPages=1)
    seen = await old.collector().collect(scope())
    assert values(seen) == {
        "llm.latency_ms{gpt-4o}": (800.0,),
        "llm.cost_usd{gpt-4o}": (0.02,),
        "llm.tokens.input{gpt-4o}": (200.0,),
        "llm.tokens.output{gpt-4o}": (40.0,),
        "llm.calls{gpt-4o}": (2.0,),
        "llm.errors{gpt-4o}": (1.0,),
    }
    assert {s.span_id for s in seen.spans} == {"o1", "o2"}
    assert "4111" not in seen.model_dump_json()
    assert len(old.to(ROWS)) == 1  # version 2 is asked for once
    traces = old.to(OLD_TRACES)[0].url.params
    assert (traces["name"], traces.get_list("tags"), traces["limit"]) == ('chat"', ["shop"], "100")
    assert "calls are counted from rows" in " ".join(gap.detail for gap in seen.gaps)


async def test_the_older_metrics_are_used_where_there_are_some(old: Langfuse) -> None:
    old.answers[OLD_METRICS] = counted
    seen = await old.collector().collect(scope())
    assert values(seen)["llm.latency_ms{gpt-4o}"] == (1234.5,)


async def test_counted_series_are_measured_again_from_rows(old: Langfuse) -> None:
    old.answers[OLD_ROWS] = lambda _: page(older(failure(1)), page=1, totalPages=1)
    collector = old.collector()
    refs = [s.ref for s in (await collector.collect(scope())).series if s.ref.metric.startswith("llm.errors")]
    [again] = await collector.measure(refs, INCIDENT)
    assert (again.ref, again.values) == (refs[0], (1.0,))


async def test_pages_are_numbered_and_an_incomplete_minute_is_not_counted(old: Langfuse) -> None:
    def rows(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params["page"])
        at = T0 + timedelta(minutes=10 - number)
        return page(*(older(call(number * 10 + i, at)) for i in range(10)), page=number, totalPages=50)

    old.answers[OLD_ROWS] = rows
    target = Target(service="assistant", langfuse=LangfuseTraces(environment="production"))
    seen = await old.collector(rows_per_search=20).collect(scope(target))
    assert {r.url.params["page"] for r in old.to(OLD_ROWS)} >= {"1", "2"}
    assert values(seen)["llm.calls{gpt-4o}"] == (10.0,)  # of the minute before, some calls were not read
    assert not old.to(OLD_TRACES)


async def test_scores_of_an_older_server_are_averaged_by_minute(old: Langfuse) -> None:
    rows: list[JsonValue] = [
        {"name": "accuracy", "timestamp": iso(T0), "value": 1, "dataType": "NUMERIC"},
        {"name": "accuracy", "timestamp": iso(T0), "value": 0, "dataType": "BOOLEAN"},
        {"name": "tone", "timestamp": iso(T0), "value": None, "stringValue": "rude", "dataType": "CATEGORICAL"},
        {"name": "accuracy", "timestamp": "soon", "value": 1, "dataType": "NUMERIC"},
    ]
    old.answers[SCORES] = lambda _: page(*rows, page=1, totalPages=1)
    target = Target(service="assistant", langfuse=LangfuseTraces(tags=("shop",)))
    seen = await old.collector().collect(scope(target))
    assert values(seen)["llm.score.success.accuracy"] == (0.5,)
    assert old.to(SCORES)[0].url.params.get_list("traceTags") == ["shop"]
    assert any(gap.detail.startswith("1 rows were not understood") for gap in seen.gaps)


async def test_scores_that_cannot_be_told_apart_are_a_gap(old: Langfuse) -> None:
    seen = await old.collector().collect(scope())
    assert "environment or tags" in " ".join(gap.mend for gap in seen.gaps)
    assert not old.to(SCORES)


# --- failures and doctor ------------------------------------------------------------------------------------------


async def test_wrong_keys_say_what_to_set(langfuse: Langfuse) -> None:
    langfuse.answers = dict.fromkeys((ROWS, METRICS), lambda _: httpx.Response(401))
    with pytest.raises(Forbidden) as refused:
        await langfuse.collector().collect(scope())
    assert "LANGFUSE_SECRET_KEY" in refused.value.mend


async def test_a_rate_limit_is_told_and_the_rest_kept(langfuse: Langfuse) -> None:
    langfuse.answers[METRICS] = lambda _: httpx.Response(429, headers={"Retry-After": "55"})
    langfuse.answers[ROWS] = lambda _: page(call(1))
    seen = await langfuse.collector().collect(scope())
    assert GapReason.RATE_LIMITED in {gap.reason for gap in seen.gaps}


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "BASE_URL", "PUBLIC_KEY", "SECRET_KEY"):
        monkeypatch.delenv(f"LANGFUSE_{name}", raising=False)
    for name, missing in (("BASE_URL", "HOST"), ("PUBLIC_KEY", "PUBLIC_KEY"), ("SECRET_KEY", "SECRET_KEY")):
        with pytest.raises(ValueError, match=f"needs LANGFUSE_{missing}"):
            create(FrozenClock(), Declared())
        monkeypatch.setenv(f"LANGFUSE_{name}", "https://langfuse.shop")
    assert create(FrozenClock(), Declared()).name == "langfuse"


async def test_keys_are_not_shown() -> None:
    assert "sk-lf-1" not in repr(Settings(secret_key=SecretStr("sk-lf-1")))


async def test_the_doctor_tells_versions_and_permissions(langfuse: Langfuse) -> None:
    langfuse.answers["/api/public/health"] = lambda _: httpx.Response(200, json={"status": "OK", "version": "4.1.0"})
    langfuse.answers["/api/public/projects"] = lambda _: httpx.Response(
        200, json={"data": [{"id": "p", "name": "shop"}]}
    )
    checks = {check.name: check for check in await langfuse.collector().check()}
    assert {name: check.status for name, check in checks.items()} == {
        "reachable": "ok",
        "credentials": "ok",
        "observations": "ok",
        "metrics": "ok",
        "clock": "skipped",
    }
    assert checks["reachable"].detail == "Langfuse 4.1.0"
    langfuse.answers["/api/public/projects"] = lambda _: httpx.Response(401)
    checks = {check.name: check for check in await langfuse.collector().check()}
    assert checks["credentials"].status == "failed"
    assert "LANGFUSE_PUBLIC_KEY" in checks["credentials"].mend


# --- one trace ----------------------------------------------------------------------------------------------------

HEX = "2f3e0cee77ae5dc9c17ade3689eb2e54"
OLD_ID = "9b2e1f0c-5d3a-4c8e-8f3d-0a1b2c3d4e5f"


async def test_the_observations_of_a_trace_are_its_spans(langfuse: Langfuse) -> None:
    failed = failure(2) | {"traceId": HEX, "parentObservationId": "o1"}
    root = call(1, type="SPAN", name="chat", providedModelName=None, promptName=None, traceId=HEX)
    langfuse.answers[ROWS] = lambda _: page(root, failed, call(3), "nonsense")  # o3 is of another trace
    seen = await langfuse.collector().read(TraceRead(trace_id=HEX), scope())
    assert [(s.span_id, s.parent_id, s.component, s.peer, s.error) for s in seen.spans] == [
        ("o1", "", "assistant", "", ""),
        ("o2", "o1", "assistant", "openai", "429 Rate limit reached for gpt-4o"),
    ]
    assert [gap.detail.partition(":")[0] for gap in seen.gaps] == ["1 rows were not understood"]
    [asked] = [r for r in langfuse.to(ROWS) if "filter" in r.url.params]
    assert json.loads(asked.url.params["filter"]) == [
        {"type": "datetime", "column": "startTime", "operator": ">=", "value": "2024-12-20T08:00:00.000Z"},
        {"type": "datetime", "column": "startTime", "operator": "<", "value": "2024-12-20T09:15:00.000Z"},
        {"type": "string", "column": "environment", "operator": "=", "value": "production"},
        {"type": "string", "column": "traceName", "operator": "=", "value": 'chat"'},
        {"type": "arrayOptions", "column": "tags", "operator": "all of", "value": ["shop"]},
        {"type": "string", "column": "traceId", "operator": "=", "value": HEX},
    ]
    assert not set(asked.url.params["fields"].split(",")) & {"io", "metadata"}


async def test_a_trace_is_the_service_s_that_has_it(langfuse: Langfuse) -> None:
    def of_the_shop(request: httpx.Request) -> httpx.Response:
        return page(call(1, traceId=HEX)) if '"shop"' in request.url.params.get("filter", "") else page()

    langfuse.answers[ROWS] = of_the_shop
    targets = [Target(service=name, langfuse=LangfuseTraces(environment=name)) for name in ("assistant", "shop", "x")]
    seen = await langfuse.collector().read(TraceRead(trace_id=HEX), scope(*targets))
    assert [s.component for s in seen.spans] == ["shop"]
    assert len(seen.queries) == 2


async def test_the_older_api_gives_a_trace_of_the_service_only(old: Langfuse) -> None:
    old.answers[OLD_TRACES] = lambda _: page({"id": OLD_ID}, page=1, totalPages=1)
    old.answers[OLD_ROWS] = lambda _: page(call(1, traceId=OLD_ID), page=1, totalPages=1)
    seen = await old.collector().read(TraceRead(trace_id=OLD_ID), scope())
    assert [s.trace_id for s in seen.spans] == [OLD_ID]
    assert old.to(OLD_ROWS)[0].url.params["traceId"] == OLD_ID
    old.answers[OLD_TRACES] = lambda _: page(page=1, totalPages=0)
    assert not (await old.collector().read(TraceRead(trace_id=OLD_ID), scope())).spans


async def test_a_trace_that_langfuse_does_not_have_is_an_answer(langfuse: Langfuse) -> None:
    seen = await langfuse.collector().read(TraceRead(trace_id=HEX), scope())
    [gap] = seen.gaps
    assert (gap.reason, HEX in gap.detail) == (GapReason.EMPTY, True)


async def test_a_trace_with_more_observations_than_may_be_read_is_told(langfuse: Langfuse) -> None:
    langfuse.answers[ROWS] = lambda _: page(*(call(n, traceId=HEX) for n in range(30)), cursor="more")
    seen = await langfuse.collector(rows_per_search=10).read(TraceRead(trace_id=HEX), scope())
    assert len(seen.spans) == 10
    assert [gap.mend for gap in seen.gaps] == ["raise LANGFUSE_ROWS_PER_SEARCH"]


@pytest.mark.parametrize("told", ["../projects", "t1", f'{HEX}"}}]', "%2e%2e%2f", "x" * 32, f"{HEX}\n", "or 1=1"])
async def test_what_is_no_trace_id_is_not_asked(langfuse: Langfuse, told: str) -> None:
    with pytest.raises(Refused, match="trace ids are"):
        await langfuse.collector().read(TraceRead(trace_id=told), scope())
    assert not langfuse.requests


async def test_what_langfuse_cannot_answer_is_refused(langfuse: Langfuse) -> None:
    with pytest.raises(Refused, match="no questions about logs"):
        await langfuse.collector().read(LogsRead(component="assistant", contains="exhausted"), scope())
    with pytest.raises(Refused, match="no service traces of Langfuse") as refused:
        await langfuse.collector().read(TraceRead(trace_id=HEX), scope(Target(service="shop")))
    assert refused.value.reason == GapReason.NOT_CONFIGURED
    langfuse.answers[ROWS] = lambda _: httpx.Response(401)
    with pytest.raises(Forbidden, match="401"):
        await langfuse.collector().read(TraceRead(trace_id=HEX), scope())
    assert len(langfuse.requests) == 1
