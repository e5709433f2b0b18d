"""The Loki collector against a small Loki that pages as the documented one does, and its documented refusals."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from pydantic import JsonValue

from collectors._questions import words_of
from collectors.base import (
    CollectorError,
    Declared,
    Forbidden,
    GapReason,
    LogsRead,
    RateLimited,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Target,
    Telemetry,
    TraceRead,
    Window,
)
from collectors.loki import FOUND, FOUND_BEFORE, LokiCollector, Settings, _holding, create
from graph.ranking import rank
from graph.state import Alert
from tests.collectors.test_questions import ATTACKS, with_attacks

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=15))
BASELINE = Window(start=T0 - timedelta(minutes=50), end=T0)
RANGE = "/loki/api/v1/query_range"
MINUTE = 60_000_000_000


class FrozenClock:
    """Stands still."""

    def now(self) -> datetime:
        """A quarter past nine."""
        return INCIDENT.end


def ns(minutes: float) -> int:
    return int(T0.timestamp()) * 1_000_000_000 + round(minutes * MINUTE)


@dataclass(frozen=True)
class Line:
    """One that Loki holds."""

    ns: int
    text: str
    level: str = "info"
    labels: tuple[tuple[str, str], ...] = (("service_name", "payment"),)
    metadata: JsonValue = None


@dataclass
class Loki:
    """Holds lines, with a level each; counts and pages them. ``refusals`` answer queries that contain the key."""

    lines: list[Line] = field(default_factory=list)
    refusals: dict[str, httpx.Response] = field(default_factory=dict)
    more: dict[str, JsonValue] = field(default_factory=dict)
    levels: bool = True
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        query = request.url.params.get("query", "")
        for part, refusal in self.refusals.items():
            if part in query:
                return httpx.Response(refusal.status_code, content=refusal.content, headers=refusal.headers)
        if request.url.path != RANGE:
            return httpx.Response(200, json={"status": "success", "data": ["app", "service_name"]})
        data = self._counts(request.url.params) if "count_over_time" in query else self._page(request.url.params)
        return httpx.Response(200, json={"status": "success", "data": data, **self.more})

    def _matching(self, query: str) -> list[Line]:
        if match := re.search(r'\} \| detected_level(=~|!~|=)"([^"]*)"', query):
            compare, pattern = match.groups()
            if compare == "=":
                return [line for line in self.lines if line.level == pattern]
            return [line for line in self.lines if bool(re.fullmatch(pattern, line.level)) == (compare == "=~")]
        if match := re.search(r'(\|~|!~) ("(?:[^"\\]|\\.)*")', query):
            compare, pattern = match[1], json.loads(match[2])
            return [line for line in self.lines if bool(re.search(pattern, line.text)) == (compare == "|~")]
        return self.lines

    def _page(self, params: httpx.QueryParams) -> JsonValue:
        start, end, newest_first = int(params["start"]), int(params["end"]), params["direction"] == "backward"
        found = [line for line in self._matching(params["query"]) if start <= line.ns < end]
        found.sort(key=lambda line: line.ns, reverse=newest_first)
        streams: dict[tuple[tuple[str, str], ...], list[JsonValue]] = {}
        for line in found[: int(params["limit"])]:
            value: list[JsonValue] = [str(line.ns), line.text]
            streams.setdefault(line.labels, []).append(value + ([line.metadata] if line.metadata else []))
        result: list[JsonValue] = [{"stream": dict(labels), "values": values} for labels, values in streams.items()]
        return {"resultType": "streams", "result": result, "stats": {"summary": {"bytesProcessedPerSecond": 1}}}

    def _counts(self, params: httpx.QueryParams) -> JsonValue:
        start, end, step = int(params["start"]), int(params["end"]), int(params["step"].rstrip("s")) * 1_000_000_000
        counted: dict[str, Counter[int]] = {}
        for line in self._matching(params["query"]):
            at = next((t for t in range(start, end + 1, step) if t - MINUTE < line.ns <= t), None)
            if at is not None:
                counted.setdefault(line.level if "sum by" in params["query"] else "", Counter())[at] += 1
        result: list[JsonValue] = [
            {
                "metric": {"detected_level": level} if self.levels and level else {},
                "values": [[at // 1_000_000_000, str(count)] for at, count in sorted(counts.items())],
            }
            for level, counts in counted.items()
        ]
        return {"resultType": "matrix", "result": result}

    def asked(self) -> list[httpx.QueryParams]:
        return [request.url.params for request in self.requests if "count_over_time" not in str(request.url)]

    def collector(self, **settings: object) -> LokiCollector:
        given = Settings.model_validate({"url": "http://loki.test", **settings})
        return LokiCollector(FrozenClock(), given, httpx.MockTransport(self))

    async def collected(self, *targets: Target, seasonal: tuple[Window, ...] = (), **settings: object) -> Telemetry:
        return await self.collector(**settings).collect(scope_of(*targets, seasonal=seasonal))

    async def found(self, contains: str, component: str = "payment", *targets: Target) -> Telemetry:
        question = LogsRead(component=component, contains=contains)
        return await self.collector().read(question, scope_of(*targets))


def scope_of(*targets: Target, seasonal: tuple[Window, ...] = ()) -> Scope:
    return Scope(
        service="payment",
        occurred_at=T0,
        incident=INCIDENT,
        baseline=(BASELINE,),
        seasonal=seasonal,
        targets=targets or (Target(service="payment"),),
    )


def lines(count: int, start: float, end: float, level: str = "info", text: str = "line {}") -> list[Line]:
    return [Line(ns(start + (end - start) * i / count), text.format(i), level) for i in range(count)]


def series(found: Telemetry) -> dict[str, Series]:
    return {one.ref.metric: one for one in found.series}


def texts(found: Telemetry) -> list[str]:
    return [line.message for line in found.logs]


# --- counts ---


async def test_lines_are_counted_by_level_and_minute() -> None:
    loki = Loki([*lines(120, -50, 10), Line(ns(1.5), "lost", "error"), Line(ns(1.9), "lost", "error")])
    found = series(await loki.collected())
    errors = found["log_lines_error"]
    assert errors.ref.query == ('sum(count_over_time({service_name="payment"} | detected_level="error" [60s]))')
    assert len(errors.epoch_s) == 65  # minutes without such lines are 0, not unknown
    assert {at: value for at, value in zip(errors.epoch_s, errors.values, strict=True) if value} == {
        (T0 + timedelta(minutes=1)).timestamp(): 2.0
    }
    assert sum(found["log_lines_info"].values) == 119  # the very first is that of the minute before
    params = loki.requests[0].url.params
    assert int(params["start"]) == ns(-49)
    assert int(params["end"]) == ns(15)
    assert params["step"] == "60s"


async def test_a_count_can_be_measured_again_and_nothing_is_zero() -> None:
    loki = Loki([*lines(10, 0, 5), Line(ns(1.5), "lost", "error")])
    ref = series(await loki.collected())["log_lines_error"].ref
    [again] = await loki.collector().measure([ref], Window(start=T0, end=T0 + timedelta(minutes=3)))
    assert again.values == (0.0, 1.0, 0.0)
    [none] = await loki.collector().measure([ref], BASELINE)
    assert set(none.values) == {0.0}
    assert await loki.collector().measure([ref.model_copy(update={"source": "x"})], BASELINE) == []


async def test_without_levels_the_words_of_a_line_tell() -> None:
    found = Loki([*lines(20, -40, 10), Line(ns(2.5), "java.lang.NullPointerException")], levels=False)
    told = await found.collected()
    [errors] = told.series
    assert errors.ref.metric == "log_lines_error"
    assert sum(errors.values) == 1
    assert (told.logs[0].message, told.logs[0].level) == ("java.lang.NullPointerException", "error")
    assert {line.level for line in told.logs[1:]} == {"info"}
    assert found.asked()[0]["query"] == (
        '{service_name="payment"} |~ "(?i)(error|exception|fatal|panic|timeout|timed out|refused|denied)"'
    )


async def test_a_level_is_one_metric_however_it_is_written() -> None:
    loki = Loki([Line(ns(1), "a", "ERROR"), Line(ns(2), "b", "err"), Line(ns(3), "c", "50"), Line(ns(4), "d", "fatal")])
    found = await loki.collected()
    [errors] = found.series
    assert (errors.ref.metric, sum(errors.values)) == ("log_lines_error", 4)
    assert r'detected_level=~"50|ERROR|err|fatal"' in errors.ref.query
    assert texts(found) == ["a", "b", "c", "d"]


async def test_other_days_are_counted_for_the_alerted_service_only() -> None:
    days = tuple(Window(start=T0 - timedelta(days=d), end=INCIDENT.end - timedelta(days=d)) for d in (1, 7))
    yesterday = [Line(ns(-24 * 60 + 3), "x", "info")]
    loki = Loki([*yesterday, *lines(9, 0, 9), Line(ns(1.5), "lost", "error")])
    found = await loki.collected(Target(service="payment"), Target(service="db", hops=1), seasonal=days)
    payment, db = (
        next(s for s in found.series if (s.ref.component, s.ref.metric) == (name, "log_lines_error"))
        for name in ("payment", "db")
    )
    assert len(payment.epoch_s) == 65 + 15  # yesterday's zeros are known; a week ago there were no lines at all
    assert len(db.epoch_s) == 65


async def test_errors_that_begin_are_found_by_ranking() -> None:
    loki = Loki([*lines(650, -50, 15), *lines(200, 5, 15, "error", "connection to ledger refused {}")])
    found = await loki.collected()
    scope = Scope(
        service="payment",
        occurred_at=T0 + timedelta(minutes=6),
        incident=INCIDENT,
        baseline=(BASELINE,),
        targets=(Target(service="payment"),),
    )
    alert = Alert(
        source="grafana",
        title="errors",
        service="payment",
        occurred_at=scope.occurred_at,
        fingerprint="f",
        cycle_key="c",
    )
    findings = {finding.signal: finding for finding in rank([found], scope, alert).findings}
    counted = findings["log_lines_error"]
    assert (counted.baseline, counted.observed, counted.unit) == (0.0, 20.0, "lines/min")
    assert counted.at == T0 + timedelta(minutes=5)
    assert "connection to ledger refused <*>" in findings


# --- lines ---


async def test_problems_are_read_from_their_start_page_by_page_and_from_the_end_if_too_many() -> None:
    loki = Loki(lines(3000, 0, 15, "error", "lost {}"))
    found = await loki.collected()
    read = [int(text.split()[1]) for text in texts(found)]
    assert read[:2000] == list(range(2000))
    assert sorted(read[2000:]) == list(range(2500, 3000))
    pages = [(p["direction"], int(p["limit"])) for p in loki.asked()[:4]]
    assert pages == [("forward", 1000), ("forward", 1000), ("forward", 2), ("backward", 500)]
    assert next(q for q in found.queries if q.rows == 2000).truncated


@pytest.mark.parametrize("before", [996, 997, 1994, 1996, 1998])
async def test_pages_meet_without_losing_or_repeating_a_line(before: int) -> None:
    """The lines of one nanosecond lie on both sides of a page's edge, or of the budget's."""
    same = [Line(ns(1), f"same {i}", "error") for i in range(6)]
    loki = Loki([*lines(before, 0, 0.9, "error"), *same, *lines(3, 2, 3, "error", "late {}")])
    found = await loki.collected()
    assert sorted(texts(found)) == sorted(line.text for line in loki.lines)


async def test_more_lines_of_one_moment_than_a_page_holds_do_not_stop_it() -> None:
    loki = Loki([*(Line(ns(1), f"same {i}", "error") for i in range(1500)), Line(ns(2), "later", "error")])
    found = await loki.collected()
    assert "later" in texts(found)
    assert len(texts(found)) == len(set(texts(found)))


async def test_lines_of_a_sample_stand_for_those_that_were_not_read() -> None:
    """Else a service that always logs as many errors would seem to log more of them the shorter the window is."""
    usual = [Line(ns(-50 + i / 200), "lost", "error", metadata={"span_id": "s1"}) for i in range(200 * 65)]
    loki = Loki([*usual, *lines(1000 * 65, -50, 15)])
    found = await loki.collected()
    for level, per_minute in (("error", 200), ("info", 1000)):
        for window in (INCIDENT, BASELINE):
            read = [line for line in found.logs if line.level == level and window.start <= line.at < window.end]
            counted = sum(line.count for line in read)
            assert counted == pytest.approx(per_minute * (window.end - window.start).total_seconds() / 60, rel=0.05)
    assert not any(line.span_id for line in found.logs if line.level == "error")


async def test_the_other_lines_are_a_sample_of_the_whole_window() -> None:
    loki = Loki(lines(5000, 0, 15))
    found = await loki.collected()
    assert len(found.logs) == 500
    minutes = Counter((line.at - T0) // timedelta(minutes=3) for line in found.logs)
    assert minutes == Counter({0: 100, 1: 100, 2: 100, 3: 100, 4: 100})


def test_the_time_of_a_line_is_in_nanoseconds() -> None:
    assert ns(0) == 1734685200_000_000_000


async def test_a_line_is_told_by_its_labels_metadata_and_fields() -> None:
    labels = (("pod", "pay-7f9"), ("service_name", "payment"))
    logged = {"level": "warn", "msg": "pool is full", "traceId": "abc", "logger": "Hikari", "n": 3, "x": {"y": None}}
    loki = Loki(
        [
            Line(ns(1), json.dumps(logged), "warn", labels),
            Line(ns(2), "plain", "error", labels, {"trace_id": "t1", "span_id": "s1", "detected_level": "error"}),
            Line(ns(3), "boxed", "error", labels, {"structuredMetadata": {"trace_id": "t2", "level": "fatal"}}),
            Line(ns(4), 'ts=1 level=error msg="no route"', "error", labels),
            Line(ns(5), "2024-12-20 09:05 ERROR [main] it broke", "error", labels),
            Line(ns(6), '{"level":50,"msg":"numbered"}', "error", labels),
            Line(ns(7), "{broken", "error", labels),
        ]
    )
    found = (await loki.collected()).logs
    first = found[0]
    assert (first.message, first.level, first.trace_id, first.logger) == ("pool is full", "warning", "abc", "Hikari")
    assert (first.component, first.instance) == ("payment", "pay-7f9")
    assert (found[1].level, found[1].trace_id, found[1].span_id) == ("error", "t1", "s1")
    assert (found[2].level, found[2].trace_id) == ("critical", "t2")
    assert [(line.message, line.level) for line in found[3:]] == [
        ('ts=1 level=error msg="no route"', "error"),
        ("2024-12-20 09:05 ERROR [main] it broke", "error"),
        ("numbered", "error"),
        ("{broken", "error"),  # it was found among the problems
    ]


async def test_malformed_and_misplaced_lines_are_dropped_and_counted() -> None:
    values: Sequence[JsonValue] = [
        [str(ns(1)), "good"],
        ["soon", "x"],
        [str(ns(1))],
        [ns(1), "x"],
        [str(ns(1)), None],
        "x",
        [str(ns(900)), "from the future"],
        ["9" * 60, "x"],
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        result: JsonValue = [{"stream": {}, "values": list(values)}, 7]
        if "count_over_time" in request.url.params["query"]:
            result = [{"metric": {"level": "error"}, "values": [[ns(2) // 10**9, "1"], [1, 2, 3]]}]
        return httpx.Response(200, json={"status": "success", "data": {"result": result}})

    collector = LokiCollector(FrozenClock(), Settings(url="http://loki.test"), httpx.MockTransport(answer))
    scope = Scope(service="p", occurred_at=T0, incident=INCIDENT, baseline=(), targets=(Target(service="p"),))
    found = await collector.collect(scope)
    assert set(texts(found)) == {"good"}
    assert '7 rows were not understood: {service_name="p"} | level=~' in " ".join(gap.detail for gap in found.gaps)


@pytest.mark.parametrize(
    ("target", "selector"),
    [
        (Target(service="payment"), '{service_name="payment"}'),
        (Target(service="payment", loki='app="pay"'), '{app="pay"}'),
        (Target(service="payment", loki='{app="pay", env="prod"}'), '{app="pay", env="prod"}'),
        (Target(service='x"} | line_format "'), r'{service_name="x\"} | line_format \""}'),
    ],
)
async def test_a_service_is_known_by_its_matchers_or_by_its_name(target: Target, selector: str) -> None:
    loki = Loki()
    found = await loki.collected(target)
    assert selector in loki.requests[0].url.params["query"]
    [gap] = found.gaps
    assert gap.reason == GapReason.EMPTY
    assert gap.mend.startswith("set loki of ")


async def test_a_link_opens_explore() -> None:
    found = await Loki().collected(grafana_url="http://grafana.test/", grafana_datasource="P8E")
    url = httpx.URL(found.queries[0].link or "")
    pane = json.loads(url.params["panes"])["a"]
    assert (url.host, url.path) == ("grafana.test", "/explore")
    assert pane["datasource"] == "P8E"
    assert pane["queries"][0]["expr"] == found.queries[0].text
    assert pane["range"] == {"from": str(ns(-50) // 10**6), "to": str(ns(15) // 10**6)}


# --- refusals ---


@pytest.mark.parametrize(
    ("told", "mend"),
    [
        ("the query time range exceeds the limit (query length: 721h0m0s, limit: 30d1h)", "max_query_length"),
        ("maximum of series (500) reached for a single query", "max_query_series"),
        ("parse error at line 1, col 2: syntax error", "correct loki of the service in the catalogue"),
    ],
)
async def test_a_limit_of_lokis_is_named(told: str, mend: str) -> None:
    loki = Loki(refusals={"": httpx.Response(400, text=told)})
    with pytest.raises(CollectorError, match=re.escape(told[:30])) as refused:
        await loki.collected()
    assert mend in refused.value.mend


@pytest.mark.parametrize(("settings", "named"), [({}, True), ({"org_id": "shop"}, False)])
async def test_a_loki_with_tenants_wants_one(settings: dict[str, str], named: bool) -> None:
    loki = Loki(refusals={"": httpx.Response(401, text="no org id")})
    with pytest.raises(Forbidden) as refused:
        await loki.collected(Target(service="payment"), seasonal=(), **settings)
    assert ("LOKI_ORG_ID" in refused.value.mend) == named
    assert "LOKI_TOKEN" in refused.value.mend
    assert loki.requests[0].headers.get("x-scope-orgid") == settings.get("org_id")


async def test_too_many_outstanding_requests() -> None:
    loki = Loki(refusals={"": httpx.Response(429, text="too many outstanding requests", headers={"retry-after": "60"})})
    with pytest.raises(RateLimited):
        await loki.collected()
    assert len(loki.requests) == 1  # a minute is more than there is


async def test_a_refused_question_keeps_what_was_read_before() -> None:
    loki = Loki(lines(10, 0, 9, "error"), refusals={"!~": httpx.Response(500, text="context canceled")})
    found = await loki.collected()
    assert len(found.logs) == 10
    assert [gap.reason for gap in found.gaps] == [GapReason.UNREACHABLE]


async def test_days_that_are_not_kept_do_not_cost_today() -> None:
    week = Window(start=T0 - timedelta(days=7), end=INCIDENT.end - timedelta(days=7))
    loki = Loki(lines(10, 0, 9, "error"))
    answer = loki.__call__

    def forgetful(request: httpx.Request) -> httpx.Response:
        if int(request.url.params["start"]) < ns(-6000):
            return httpx.Response(400, text="the query time range exceeds the limit")
        return answer(request)

    collector = LokiCollector(FrozenClock(), Settings(url="http://loki.test"), httpx.MockTransport(forgetful))
    targets = (Target(service="payment"),)
    found = await collector.collect(
        Scope(
            service="payment",
            occurred_at=T0,
            incident=INCIDENT,
            baseline=(BASELINE,),
            seasonal=(week,),
            targets=targets,
        )
    )
    assert len(found.logs) == 10
    assert len(found.series) == 1
    assert len(found.gaps) == 1


async def test_a_partial_answer_is_told() -> None:
    loki = Loki(lines(3, 0, 9), more={"warnings": ["some ingesters did not answer"]})
    assert {gap.reason for gap in (await loki.collected()).gaps} == {GapReason.TRUNCATED}


async def test_a_server_that_always_has_more_is_left_at_the_budget() -> None:
    served = Counter[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        params = request.url.params
        if "count_over_time" in params["query"]:
            row: JsonValue = {"metric": {"level": "error"}, "values": [[ns(2) // 10**9, "1"]]}
            return httpx.Response(200, json={"status": "success", "data": {"result": [row]}})
        served[params["direction"]] += 1
        values: list[JsonValue] = [[params["start"], "again"]] * int(params["limit"])
        return httpx.Response(200, json={"status": "success", "data": {"result": [{"stream": {}, "values": values}]}})

    settings = Settings(url="http://loki.test", max_calls=40)
    collector = LokiCollector(FrozenClock(), settings, httpx.MockTransport(answer))
    found = await collector.collect(
        Scope(service="p", occurred_at=T0, incident=INCIDENT, baseline=(), targets=(Target(service="p"),))
    )
    assert served.total() < 40
    assert "raise LOKI_MAX_CALLS, or narrow what is read" in {gap.mend for gap in found.gaps}


# --- settings and doctor ---


def test_create_names_the_missing_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("URL", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"LOKI_{setting}", raising=False)
    with pytest.raises(ValueError, match="The collector 'loki' needs LOKI_URL"):
        create(FrozenClock(), Declared())
    monkeypatch.setenv("LOKI_URL", "http://loki.test")
    assert create(FrozenClock(), Declared()).name == "loki"
    monkeypatch.setenv("LOKI_PASSWORD", "p")
    with pytest.raises(ValueError, match="LOKI_USERNAME"):
        create(FrozenClock(), Declared())


async def test_the_doctor_finds_it_well() -> None:
    checks = await Loki(lines(60, 10, 15)).collector().check()
    assert [(check.name, check.status) for check in checks] == [
        ("reachable", "ok"),
        ("sample query", "ok"),
        ("clock", "skipped"),
    ]
    assert checks[1].detail == 'sum(count_over_time({service_name=~".+"} [60s])): 11'


async def test_the_doctor_names_the_tenant() -> None:
    checks = await Loki(refusals={"": httpx.Response(401, text="no org id")}).collector().check()
    assert [(check.name, check.status) for check in checks] == [("reachable", "failed"), ("clock", "skipped")]
    assert "LOKI_ORG_ID" in checks[0].mend


async def test_a_measure_that_is_refused_altogether_raises() -> None:
    ref = SeriesRef(source="loki", component="p", metric="m", query="sum(")
    with pytest.raises(CollectorError, match="syntax"):
        await Loki(refusals={"sum(": httpx.Response(400, text="syntax error")}).collector().measure([ref], INCIDENT)


# --- one question ---


async def test_lines_that_hold_the_words_are_counted_and_the_first_ones_read() -> None:
    told = lines(500, 1, 3, text="Pool EXHAUSTED {}")
    before = lines(90, -30, -20, text="pool exhausted {}")
    loki = Loki([*told, *before, *lines(300, -50, 15, text="all is well")])
    found = await loki.found("pool exhausted")
    [counted] = found.series
    query = '{service_name="payment"} |~ "(?i)pool exhausted"'
    assert counted.ref.query == f"sum(count_over_time({query} [60s]))"
    assert (counted.ref.metric, counted.ref.unit, sum(counted.values)) == ("log_lines", "lines/min", 590.0)
    assert texts(found) == [line.text for line in (*told[:FOUND], *before[:FOUND_BEFORE])]
    assert {line.component for line in found.logs} == {"payment"}
    assert {line.level for line in found.logs} == {"info"}  # nobody said that they are problems
    assert [(q.text, q.rows, q.truncated) for q in found.queries if q.kind == "logs"] == [
        (query, FOUND, True),
        (query, FOUND_BEFORE, True),
    ]
    [again] = await loki.collector().measure([counted.ref], INCIDENT)
    assert sum(again.values) == 500.0


async def test_a_question_selects_streams_by_the_catalogues_matchers() -> None:
    loki = Loki(lines(3, 1, 2))
    await loki.found("line", "payment", Target(service="payment", loki='{app="pay", env="prod"}'))
    await loki.found("line", 'red"is} or {')  # no target, but a callee of one
    selectors = {re.sub(r"^sum\(count_over_time\(", "", p["query"]).partition(" |~")[0] for p in queries(loki)}
    assert selectors == {'{app="pay", env="prod"}', r'{service_name="red\"is} or {"}'}


async def test_words_that_no_line_holds_are_an_answer() -> None:
    found = await Loki(lines(3, 1, 2)).found("exhausted")
    assert (found.series, found.logs, found.gaps) == ((), (), ())
    assert {query.rows for query in found.queries} == {0}


async def test_a_service_without_any_line_cannot_be_asked() -> None:
    found = await Loki().found("exhausted")
    assert not found.rows
    [gap] = found.gaps
    assert (gap.reason, gap.detail) == (GapReason.NOT_CONFIGURED, 'payment: no line in {service_name="payment"}')
    assert "set loki of payment in the catalogue" in gap.mend


async def test_lines_are_read_where_they_cannot_be_counted() -> None:
    loki = Loki(lines(3, 1, 2), refusals={"count_over_time": httpx.Response(400, text="query length too long")})
    found = await loki.found("line")
    assert len(found.logs) == 3
    [gap] = found.gaps
    assert "max_query_length" in gap.mend


async def test_refused_credentials_are_raised() -> None:
    with pytest.raises(Forbidden, match="401"):
        await Loki(refusals={"payment": httpx.Response(401)}).found("line")


async def test_loki_knows_no_traces() -> None:
    with pytest.raises(Refused, match="no questions about trace"):
        await Loki().collector().read(TraceRead(trace_id="77"), scope_of())


def queries(loki: Loki) -> list[httpx.QueryParams]:
    return [request.url.params for request in loki.requests]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_finds_only_itself(attack: str) -> None:
    words = " ".join(attack.split())
    held = [f"it said {words}", json.dumps({"a": f"IT SAID {words}"}, ensure_ascii=False), json.dumps([words])]
    loki = Loki([Line(ns(number), text) for number, text in enumerate([*held, "timeout of redis, all is well"])])
    assert texts(await loki.found(attack)) == held
    selected = {re.sub(r"^sum\(count_over_time\(| \[60s\]\)\)$", "", params["query"]) for params in queries(loki)}
    [query] = selected
    assert re.fullmatch(r'\{service_name="payment"\} \|~ "([^"\\]|\\.)*"', query)


@with_attacks
def test_to_loki_words_are_words_whatever_they_are(contains: str) -> None:
    """Loki's strings are Go's, which know the two escapes used here, as JSON does; its expressions are RE2's."""
    try:
        words = words_of(LogsRead(component="payment", contains=contains))
    except Refused:
        return
    match = re.fullmatch(r'\|~ ("(?:[^"\\]|\\["\\])*")', _holding(words))
    assert match
    holds = re.compile(json.loads(match[1]))
    assert holds.search(f"it said {words} twice")
    assert holds.search(json.dumps({"msg": words}))
    assert not holds.search("")
    assert not holds.search(words[1:])
