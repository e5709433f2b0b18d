"""An analyst's questions to the collectors: what may be asked, what it costs, and what becomes of the answers."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from app.evaluation import Case
from app.studio import MemorySnapshots
from collectors._questions import NotDeclared, NotHere
from collectors.base import (
    Check,
    Edge,
    Forbidden,
    Gap,
    GapReason,
    Level,
    LogLine,
    LogsRead,
    MetricRead,
    Query,
    Read,
    Scope,
    Series,
    SeriesRef,
    Span,
    Target,
    Telemetry,
    TraceRead,
    Window,
)
from collectors.replay import ReplayCollector, load_bundle
from graph.llms.base import ReadRefused
from graph.masking import Masker
from graph.ranking import rank
from graph.ranking.spans import table
from graph.ranking.windows import Windows
from graph.read_findings import critical_path
from graph.reads import EvidenceReader
from graph.state import Evidence, Finding, LookedAt, Suspect
from tests.conftest import ROOT
from tests.graph.sources import NOON

T = TypeVar("T")
INCIDENT = Window(start=NOON, end=NOON + timedelta(minutes=10))
BASELINE = Window(start=NOON - timedelta(minutes=50), end=NOON)
SCOPE = Scope(
    service="shop",
    occurred_at=NOON,
    incident=INCIDENT,
    baseline=(BASELINE,),
    seasonal=(Window(start=NOON - timedelta(days=1), end=INCIDENT.end - timedelta(days=1)),),
    targets=(Target(service="shop"), Target(service="payment", hops=1)),
)
TRACE_ID = "5b62850e322ab161f78f083cfb2eb0fa"
CPU = SeriesRef(source="metered", component="payment", metric="cpu.percent", unit="%", query="cpu")
POOL = LogsRead(component="payment", contains="pool exhausted")
MASKER = Masker(b"key")
SECRET = "AKIAIOSFODNN7EXAMPLE"


def finding(eid: str, component: str = "payment", excerpt: str = "", **more: Any) -> Finding:
    return Finding(
        id=eid, kind="log", component=component, signal="s", at=NOON, summary="It failed.", excerpt=excerpt, **more
    )


EVIDENCE = Evidence(
    digest="d",
    findings=(finding("E1"), finding("E7", excerpt=f"payment POST /pay 12.0 ms trace={TRACE_ID}")),
    suspects=(Suspect(component="payment", score=0.9, findings=("E1",)),),
    edges=(Edge(caller="shop", callee="payment", source="traces"), Edge(caller="payment", callee="redis", source="x")),
    readable=(CPU,),
)


class Asked:
    """A source that answers questions as it is told to, and remembers them."""

    timeout_s = 60.0

    def __init__(
        self, name: str = "metered", answer: Callable[[Read, Scope], Telemetry] | None = None, hangs: bool = False
    ) -> None:
        self.name, self.hangs = name, hangs
        self.answer = answer or (lambda question, scope: Telemetry(source=name))
        self.questions: list[Read] = []
        self.scopes: list[Scope] = []
        self.reads: frozenset[Literal["logs", "trace"]] = frozenset(("logs", "trace"))
        self.series: list[Series] = []
        self.windows: list[Window] = []

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """What it is told to."""
        self.questions.append(question)
        self.scopes.append(scope)
        if self.hangs:
            await asyncio.Event().wait()
        return self.answer(question, scope)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """Those of its series that are wanted."""
        self.windows.append(window)
        return [one for one in self.series if one.ref in refs]

    async def collect(self, scope: Scope) -> Telemetry:
        """Nothing."""
        return Telemetry(source=self.name)

    async def check(self) -> list[Check]:
        """Nothing."""
        return []

    async def aclose(self) -> None:
        """Nothing to release."""


def reader(
    *sources: Asked | ReplayCollector,
    evidence: Evidence = EVIDENCE,
    snapshots: MemorySnapshots | None = None,
    scope: Scope = SCOPE,
    **bounds: Any,
) -> EvidenceReader:
    return EvidenceReader(
        sources,
        snapshots or MemorySnapshots(),
        MASKER,
        scope=scope,
        evidence=evidence,
        incident_id="i",
        round_=2,
        **bounds,
    )


class _Nothing(TypedDict, total=False):
    nothing: str


async def in_a_node(work: Callable[[], Awaitable[T]]) -> tuple[T, list[dict[str, Any]]]:
    """What it gives, and what it told meanwhile: progress is told by whoever runs the graph."""
    given: list[T] = []

    async def node(state: _Nothing) -> dict[str, Any]:
        given.append(await work())
        return {}

    graph = StateGraph(_Nothing)
    graph.add_node("node", node)
    graph.add_edge(START, "node")
    graph.add_edge("node", END)
    told = [event async for event in graph.compile().astream({"nothing": ""}, stream_mode="custom")]
    return given[0], told


async def ask(reading: EvidenceReader, *questions: Read) -> list[Finding]:
    """The findings of all questions, one after the other."""

    async def work() -> list[Finding]:
        return [found for question in questions for found in await reading.read(question)]

    return (await in_a_node(work))[0]


async def refusal(reading: EvidenceReader, question: Read) -> str:
    with pytest.raises(ReadRefused) as refused:
        await ask(reading, question)
    return str(refused.value)


def line(message: str, minutes: float = 1.0, level: Level = "error", count: int = 1, **more: str) -> LogLine:
    at = NOON + timedelta(minutes=minutes)
    return LogLine(component="payment", at=at, level=level, message=message, count=count, **more)


def telling(*lines: LogLine, **more: Any) -> Callable[[Read, Scope], Telemetry]:
    query = Query(source="metered", text="the query", link="https://m.test/q", start=NOON, end=INCIDENT.end, rows=1)
    return lambda question, scope: Telemetry(source="metered", logs=lines, queries=(query,), **more)


# --- the menu -------------------------------------------------------------------------------------------------------


def test_the_menu_is_what_the_evidence_names_and_the_sources_answer() -> None:
    menu = reader(Asked()).menu
    assert menu.components == ("payment", "shop", "redis")  # the suspect first
    assert menu.metrics == (CPU,)
    assert menu.traces == (TRACE_ID,)
    assert menu.kinds == {"logs", "trace", "metric"}


def test_what_no_source_answers_is_not_on_the_menu() -> None:
    silent = Asked()
    silent.reads = frozenset()
    assert reader(silent).menu.kinds == {"metric"}
    assert reader().menu.kinds == frozenset()
    bare = EVIDENCE.model_copy(update={"findings": (), "readable": ()})
    assert reader(Asked(), evidence=bare).menu.kinds == {"logs"}  # no trace is known


@pytest.mark.parametrize(
    "told",
    [
        f"trace={TRACE_ID}",
        f'"dd.trace_id":"{TRACE_ID}"',
        f"trace_id:{TRACE_ID}",
        f"https://app.datadoghq.com/apm/trace/{TRACE_ID}",
        f"failed in {TRACE_ID}.",
    ],
)
def test_trace_ids_are_found_wherever_a_finding_tells_them(told: str) -> None:
    for where in ("excerpt", "query", "link"):
        evidence = EVIDENCE.model_copy(update={"findings": (finding("E1").model_copy(update={where: told}),)})
        assert reader(Asked(), evidence=evidence).menu.traces == (TRACE_ID,)


async def test_a_trace_of_a_line_that_was_read_can_be_asked_for() -> None:
    other = "f" * 31 + "1"
    reading = reader(Asked(answer=telling(line("pool exhausted", trace_id=other))))
    await ask(reading, POOL)
    assert reading.menu.traces == (TRACE_ID, other)


def test_a_trace_that_a_hint_names_can_be_asked_for() -> None:
    other = "1-67891233-abcdef012345678912345678"
    hinted = SCOPE.model_copy(update={"hints": (f"see trace {other}, it waits",)})
    assert reader(Asked(), scope=hinted).menu.traces == (other, TRACE_ID)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (LogsRead(component="billing", contains="error"), "«billing» is no component"),
        (MetricRead(component="payment", metric="secrets"), "«secrets» is no metric"),
        (MetricRead(component="shop", metric="cpu.percent"), "is no metric that can be asked for; there are none"),
        (TraceRead(trace_id="0" * 32), f"there are {TRACE_ID}"),
        (LogsRead(component="payment", contains=".*"), "no word to look for"),
        (LogsRead(component="payment", contains="** **"), "wildcards are not understood"),
    ],
)
async def test_what_is_not_on_the_menu_is_refused_and_asked_of_nobody(question: Read, said: str) -> None:
    source = Asked()
    assert said in await refusal(reader(source), question)
    assert not source.questions
    assert not source.windows


async def test_a_refusal_says_what_may_be_asked() -> None:
    assert "there are payment, shop, redis" in await refusal(reader(Asked()), LogsRead(component="x", contains="error"))
    silent = Asked()
    silent.reads = frozenset(("trace",))
    assert "there are metric, trace" in await refusal(reader(silent), POOL)


async def test_a_masked_text_cannot_be_searched_for() -> None:
    source = Asked()
    hidden = MASKER.mask("kim@example.com failed")
    assert "[email:" in hidden
    assert "masked" in await refusal(reader(source), LogsRead(component="payment", contains=hidden))
    assert not source.questions


async def test_only_so_many_questions_may_be_asked_and_a_repeated_one_costs_nothing() -> None:
    source = Asked(answer=telling(line("pool exhausted")))
    reading = reader(source, max_reads=2)
    first = await ask(reading, POOL)
    again = await ask(reading, POOL, POOL.model_copy(update={"contains": " pool  exhausted\n"}))
    assert again == [*first, *first]
    await ask(reading, LogsRead(component="payment", contains="other"))
    assert "all 2 questions are asked" in await refusal(reading, LogsRead(component="payment", contains="third"))
    assert len(source.questions) == 2
    assert await ask(reading, POOL) == first


async def test_seconds_that_are_over_refuse_the_next_question() -> None:
    source = Asked(hangs=True)
    reading = reader(source, within_s=1.2)
    [found] = await ask(reading, POOL)
    assert "did not answer within 1.2 s" in found.summary
    assert found.observed is None  # that nobody answered says nothing
    assert "are over" in await refusal(reading, LogsRead(component="payment", contains="other"))
    assert len(source.questions) == 1


async def test_questions_at_once_are_answered_one_after_the_other() -> None:
    reading = reader(Asked(answer=telling(line("pool exhausted"))))

    async def work() -> list[Sequence[Finding]]:
        others = [LogsRead(component="payment", contains=f"pool {n}") for n in range(3)]
        return await asyncio.gather(*(reading.read(question) for question in others))

    found, _ = await in_a_node(work)
    assert sorted(f.id for one in found for f in one) == ["E10", "E8", "E9"]


# --- log lines ------------------------------------------------------------------------------------------------------


async def test_lines_are_counted_per_minute_dated_and_quoted() -> None:
    source = Asked(
        answer=telling(
            *(line(f"pool exhausted: {n} of 20, waiting", 2 + n / 10) for n in range(30)),
            line("pool exhausted, giving up", 9, "critical", trace_id=TRACE_ID),
            line("pool exhausted: 1 of 20, waiting", -30, "warning", count=5),
        )
    )
    [found] = await ask(reader(source), POOL)
    assert (found.id, found.kind, found.component, found.source) == ("E8", "log", "payment", "metered")
    assert (found.observed, found.baseline, found.unit) == (3.1, 0.1, "lines/min")  # 10 minutes against 50
    assert found.at == NOON + timedelta(minutes=2)
    assert found.summary == (
        "payment logged 31 line(s) that hold “pool exhausted” in the incident (3.1/min, 0.1/min before), "
        "the first at 12:02:00 UTC, the last at 12:09:00 UTC. 30 error, 1 critical."
    )
    assert found.excerpt.split("\n") == [  # one line of each kind
        "12:02:00 UTC error: pool exhausted: 0 of 20, waiting",
        f"12:09:00 UTC critical: pool exhausted, giving up trace={TRACE_ID}",
    ]
    assert found.asked == "log lines of payment that hold “pool exhausted”"
    assert (found.query, found.link, found.worse) == ("the query", "https://m.test/q", "up")
    assert len(found.sha256) == 64


async def test_at_most_three_kinds_of_lines_are_quoted_the_most_frequent_first() -> None:
    kinds = ("alpha failed", "beta was slow today", "gamma gave up at last", "delta went")
    said = [line(f"pool: {kind}", n / 10) for n, kind in enumerate(kinds) for _ in range(n + 1)]
    [found] = await ask(reader(Asked(answer=telling(*said))), POOL)
    quoted = [text.partition("pool: ")[2] for text in found.excerpt.split("\n")]
    assert quoted == [kinds[3], kinds[2], kinds[1]]


async def test_a_sources_own_count_holds_where_it_read_only_some() -> None:
    ref = SeriesRef(source="metered", component="payment", metric="logs", statistic="sum", unit="lines", query="c")
    epoch_s = [(NOON + timedelta(minutes=minute)).timestamp() for minute in (-20, 0, 1, 5)]
    count = Series(ref=ref, epoch_s=epoch_s, values=(50.0, 900.0, 100.0, 0.0))
    [found] = await ask(reader(Asked(answer=telling(line("pool exhausted", 0.5), series=(count,)))), POOL)
    assert (found.observed, found.baseline) == (100.0, 1.0)
    assert "1,000 line(s)" in found.summary
    assert "the last at 12:01:00 UTC. Of 1 that were read 1 error." in found.summary


async def test_lines_before_the_incident_only_are_told_too() -> None:
    [found] = await ask(reader(Asked(answer=telling(line("pool exhausted", -5, "info")))), POOL)
    assert (found.observed, found.baseline, found.worse) == (0.0, 0.02, "neutral")
    assert "pool exhausted" in found.excerpt


async def test_that_nothing_is_there_is_a_finding() -> None:
    [found] = await ask(reader(Asked(), Asked("other")), POOL)
    assert (found.observed, found.kind, found.component) == (0.0, "log", "payment")
    assert found.summary == ("Nothing was found of log lines of payment that hold “pool exhausted” at metered, other.")
    [of_redis] = await ask(reader(Asked()), LogsRead(component="redis", contains="oom"))
    assert "redis is no service of the catalogue: it may not log there" in of_redis.summary


def failing(error: Exception) -> Callable[[Read, Scope], Telemetry]:
    def answer(question: Read, scope: Scope) -> Telemetry:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "said"),
    [(Forbidden("logs:StartQuery: denied"), "logs:StartQuery: denied"), (KeyError("defect"), "KeyError: 'defect'")],
)
async def test_a_source_that_fails_is_told_with_what_the_others_found(error: Exception, said: str) -> None:
    snapshots = MemorySnapshots()
    answering, broken = Asked(answer=telling(line("pool exhausted"))), Asked("broken", failing(error))
    [found] = await ask(reader(answering, broken, snapshots=snapshots), POOL)
    assert found.summary.startswith("payment logged 1 line(s)")
    assert found.summary.endswith(f"broken could not be read: {said}.")
    assert {(key.source, key.round_, bool(key.read)) for key in snapshots.stored} == {
        ("metered", 2, True),
        ("broken", 2, True),
    }


async def test_a_hanging_source_costs_only_itself() -> None:
    answering, hanging = Asked(answer=telling(line("pool exhausted"))), Asked("hanging", hangs=True)
    [found] = await ask(reader(answering, hanging, within_s=1.2), POOL)
    assert "payment logged 1 line(s)" in found.summary
    assert "hanging could not be read: hanging did not answer" in found.summary


async def test_if_nobody_could_be_asked_nothing_is_claimed() -> None:
    broken = Asked("broken", failing(Forbidden("denied")))
    [found] = await ask(reader(broken), POOL)
    assert found.observed is None
    assert found.summary == (
        "Nobody could be asked for log lines of payment that hold “pool exhausted”. broken could not be read: denied."
    )


async def test_a_source_that_has_no_such_thing_is_heard_and_costs_the_others_no_word() -> None:
    answering, other = Asked(answer=telling(line("pool exhausted"))), Asked("other", failing(NotDeclared("no names")))
    [found] = await ask(reader(answering, other), POOL)
    assert "other" not in found.summary
    [alone] = await ask(reader(other), POOL)
    assert (alone.observed, alone.summary.endswith("other could not be read: no names.")) == (None, True)
    [nowhere] = await ask(reader(Asked("other", failing(NotHere("no such trace")))), TraceRead(trace_id=TRACE_ID))
    assert nowhere.observed == 0.0
    assert nowhere.summary == f"Nothing was found of the spans of trace {TRACE_ID} at other."


async def test_an_answer_in_part_says_so() -> None:
    gap = Gap(source="metered", reason=GapReason.TRUNCATED, detail="it timed out")
    [found] = await ask(reader(Asked(answer=telling(line("pool exhausted"), gaps=(gap,)))), POOL)
    assert found.summary.endswith("metered was read in part: it timed out.")


async def test_a_process_that_died_asks_nothing_twice() -> None:
    snapshots = MemorySnapshots()
    first = await ask(reader(Asked(answer=telling(line("pool exhausted"))), snapshots=snapshots), POOL)
    later = Asked(answer=telling(line("something else")))
    assert await ask(reader(later, snapshots=snapshots), POOL) == first
    assert not later.questions


# --- what is asked of whom, and told --------------------------------------------------------------------------------


async def test_the_evidences_own_windows_are_read_and_no_other_days() -> None:
    wider = LookedAt(incident=INCIDENT, baseline=(Window(start=NOON - timedelta(hours=3), end=NOON),))
    source = Asked()
    await ask(reader(source, evidence=EVIDENCE.model_copy(update={"looked_at": wider}), within_s=9.0), POOL)
    [scope] = source.scopes
    assert (scope.baseline, scope.seasonal) == (wider.baseline, ())
    assert 0 < scope.within_s <= 8.0  # a second to hand over what was read


async def test_secrets_reach_neither_findings_nor_the_timeline() -> None:
    said = f"pool exhausted for kim@example.com with {SECRET}"
    broken = Asked("broken", failing(Forbidden(f"denied to {SECRET}")))
    reading = reader(Asked(answer=telling(line(said))), broken)
    [found], told = await in_a_node(lambda: reading.read(LogsRead(component="payment", contains=f"key {SECRET}")))
    for text in (found.model_dump_json(), str(told)):
        assert SECRET not in text
        assert "kim@example.com" not in text
    assert "[email:" in found.excerpt


async def test_a_secret_is_masked_before_it_is_cut() -> None:
    for length in range(330, 400, 7):
        source = Asked(answer=telling(line("pool exhausted " + "x" * length + f" {SECRET}")))
        [found] = await ask(reader(source), POOL)
        assert "AKIA" not in found.model_dump_json()


async def test_broken_text_in_a_question_is_no_obstacle() -> None:
    source = Asked(answer=telling(line("pool exhausted")))
    [found] = await ask(reader(source), LogsRead(component="payment", contains="pool \x07\x00 exhausted"))
    assert source.questions == [POOL]
    assert found.model_dump_json()


async def test_each_question_is_in_the_timeline() -> None:
    reading = reader(Asked(answer=telling(line("pool exhausted"))), Asked("broken", failing(Forbidden("denied"))))
    _, told = await in_a_node(lambda: reading.read(POOL))
    started, finished = told
    assert started["message"] == "Asking for log lines of payment that hold “pool exhausted”"
    assert "E8, payment logged 1 line(s)" in finished["message"]
    assert finished["data"] == {"findings": ["E8"], "failed": ["broken"]}
    assert {one["node"] for one in told} == {"RootCauseAnalyzer"}
    assert len({one["key"] for one in told}) == 2


# --- metrics --------------------------------------------------------------------------------------------------------


def metered(*values: float, ref: SeriesRef = CPU) -> Series:
    """One a minute, the last ten of them in the incident."""
    first = NOON - timedelta(minutes=len(values) - 10)
    epoch_s = tuple((first + timedelta(minutes=n)).timestamp() for n in range(len(values)))
    return Series(ref=ref, epoch_s=epoch_s, values=values)


async def test_a_metric_that_departs_is_judged_as_ranking_does() -> None:
    source = Asked()
    source.series = [metered(*[20.0, 21.0, 20.0, 19.0] * 10, *[20.0] * 3, *[95.0] * 6, 97.0)]
    [found] = await ask(reader(source), MetricRead(component="payment", metric="cpu.percent"))
    assert (found.kind, found.observed, found.baseline, found.unit) == ("metric", 95.0, 20.0, "%")
    assert found.at == NOON + timedelta(minutes=3)
    assert found.summary == (
        "payment cpu.percent rose from 20 % to 95 % from 12:03:00 UTC on. "
        "In the incident its lowest value was 20 % at 12:00:00 UTC, its highest 97 % at 12:09:00 UTC."
    )
    assert (found.ref, found.query, len(found.points), found.band) == (CPU, "cpu", 50, (19.0, 21.0))
    [window] = source.windows  # incident and the time before are one request
    assert (window.start, window.end) == (BASELINE.start, INCIDENT.end)


async def test_a_metric_that_is_as_usual_is_told_as_well() -> None:
    source = Asked()
    source.series = [metered(*[20.0, 21.0] * 25)]
    [found] = await ask(reader(source), MetricRead(component="payment", metric="cpu.percent"))
    assert (found.observed, found.baseline, found.effect) == (20.5, 20.5, 0.0)
    assert "was at 20.5 % in the incident (median), 20.5 % before: no clear change." in found.summary


@pytest.mark.parametrize(
    ("values", "said"),
    [((20.0,) * 10, "nothing before to compare with"), ((20.0,) * 30, "no point in the incident; 20 % before")],
)
async def test_a_metric_with_one_side_only_says_so(values: Sequence[float], said: str) -> None:
    source, one = Asked(), metered(*values)
    earlier = timedelta(minutes=15 if len(values) > 10 else 0).total_seconds()
    source.series = [Series(ref=CPU, epoch_s=[at - earlier for at in one.epoch_s], values=values)]
    [found] = await ask(reader(source), MetricRead(component="payment", metric="cpu.percent"))
    assert said in found.summary


async def test_a_metric_without_any_point_is_nothing_found() -> None:
    [found] = await ask(reader(Asked()), MetricRead(component="payment", metric="cpu.percent"))
    assert (found.observed, found.unit) == (0.0, "points")
    assert found.summary == "Nothing was found of cpu.percent of payment at metered."


async def test_a_source_measures_its_own_metrics_and_those_of_sources_that_are_off() -> None:
    theirs = CPU.model_copy(update={"source": "elsewhere"})
    evidence = EVIDENCE.model_copy(update={"readable": (CPU, theirs)})
    other, mine = Asked("other"), Asked("metered")
    other.series = mine.series = [metered(*[20.0] * 50), metered(*[30.0] * 50, ref=theirs)]
    found = await ask(reader(other, mine, evidence=evidence), MetricRead(component="payment", metric="cpu.percent"))
    assert Counter((f.source, f.ref.source if f.ref else "") for f in found) == {
        ("other", "elsewhere"): 1,
        ("metered", "metered"): 1,
        ("metered", "elsewhere"): 1,
    }
    assert [f.id for f in found] == ["E8", "E9", "E10"]


async def test_of_a_metric_with_many_series_some_are_told() -> None:
    refs = tuple(CPU.model_copy(update={"statistic": f"p{n}"}) for n in range(9))
    source = Asked()
    source.series = [metered(*[20.0] * 50, ref=ref) for ref in refs]
    evidence = EVIDENCE.model_copy(update={"readable": refs})
    found = await ask(reader(source, evidence=evidence), MetricRead(component="payment", metric="cpu.percent"))
    assert len(found) == 4


# --- traces ---------------------------------------------------------------------------------------------------------


def span(span_id: str, start_ms: float, took_ms: float, parent: str = "", component: str = "shop", **more: Any) -> Span:
    told = {"operation": f"op {span_id}", "trace_id": TRACE_ID, **more}
    start_s = NOON.timestamp() + start_ms / 1000.0
    return Span(component=component, span_id=span_id, parent_id=parent, start_s=start_s, duration_ms=took_ms, **told)


def traced(*spans: Span) -> Asked:
    return Asked(answer=lambda question, scope: Telemetry(source="metered", spans=spans))


async def test_a_trace_tells_who_kept_the_request_waiting_and_where_it_failed() -> None:
    source = traced(
        span("a", 0, 1000, kind="server", error="HTTP 500"),
        span("b", 10, 50, "a", "catalogue", kind="server"),
        span("c", 100, 880, "a", "payment", kind="server", error="pool timeout"),
        span("d", 110, 860, "c", "payment", kind="client", peer="orders-db", error="pool timeout"),
        span("e", 100, 300, "a", "cart", kind="server"),  # beside it: nobody waits for it
    )
    found = await ask(reader(source), TraceRead(trace_id=TRACE_ID))
    assert [f.component for f in found] == ["payment", "shop", "catalogue", "cart"]
    first = found[0]
    assert first.observed == pytest.approx(880.0, abs=0.01)
    assert (first.unit, first.worse) == ("ms", "up")
    assert first.summary.startswith(
        f"In trace {TRACE_ID} payment itself took 880 ms of the critical path, 860 ms in “op d”, waiting for orders-db."
        " 2 of its 2 spans failed: pool timeout. The failure began there."
        " The trace has 5 spans and took 1,000 ms: shop op a 70 ms → "
    )
    assert "A span below it failed, too." in found[1].summary
    assert (found[3].observed, found[3].worse) == (0.0, "neutral")
    assert "peer=orders-db error=pool timeout" in first.excerpt
    assert {f.asked for f in found} == {f"the spans of trace {TRACE_ID}"}


async def test_a_message_that_is_handled_later_keeps_nobody_waiting() -> None:
    source = traced(
        span("a", 0, 100, kind="server"),
        span("b", 10, 5, "a", kind="producer", peer="orders"),
        span("c", 50, 9000, "b", "mailer", kind="consumer"),
    )
    found = await ask(reader(source), TraceRead(trace_id=TRACE_ID))
    assert {f.component: f.observed for f in found} == {"mailer": pytest.approx(9000, abs=0.01), "shop": 0.0}


async def test_of_a_wide_trace_five_components_are_told() -> None:
    spans = (span(f"s{n}", n * 10, 9, "a", f"service{n}") for n in range(12))
    found = await ask(reader(traced(span("a", 0, 200), *spans)), TraceRead(trace_id=TRACE_ID))
    assert len(found) == 5


async def test_a_trace_that_nobody_has_is_nothing_found() -> None:
    [found] = await ask(reader(traced()), TraceRead(trace_id=TRACE_ID))
    assert (found.kind, found.component, found.observed, found.unit) == ("trace", "shop", 0.0, "spans")


_TREE = st.lists(
    st.tuples(st.integers(0, 30), st.floats(0, 1000), st.floats(0, 1000), st.sampled_from(["a", "b", "c"])),
    min_size=1,
    max_size=30,
)


@given(_TREE)
def test_the_critical_path_is_as_long_as_the_request(tree: list[tuple[int, float, float, str]]) -> None:
    spans = [
        span(str(n), start, took, str(parent) if parent < n else "", component)
        for n, (parent, start, took, component) in enumerate(tree)
    ]
    rows = table((("x", one) for one in spans), Windows.of(SCOPE))
    critical = critical_path(rows)
    roots = [row for row in range(len(rows)) if rows.waiting_parent[row] < 0]
    longest = max(float(rows.end_s[row] - rows.start_s[row]) for row in roots) * 1000.0
    assert all(ms >= 0.0 for ms in critical.values())
    assert sum(critical.values()) == pytest.approx(longest, abs=0.01)


# --- a recorded incident --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def black_friday() -> tuple[ReplayCollector, Case, Evidence]:
    bundle = load_bundle(Path(ROOT / "tests" / "scenarios" / "001-black-friday"))
    case = Case.of(bundle)
    return ReplayCollector(bundle), case, case.ranked()


async def test_a_recording_answers_everything_that_is_on_its_menu(
    black_friday: tuple[ReplayCollector, Case, Evidence],
) -> None:
    collector, case, evidence = black_friday
    reading = reader(collector, evidence=evidence, scope=case.scope, max_reads=1000)
    menu = reading.menu
    assert menu.kinds == {"logs", "metric", "trace"}
    assert len(menu.metrics) == 40
    for ref in menu.metrics:
        found = await ask(reading, MetricRead(component=ref.component, metric=ref.metric))
        assert any(f.ref == ref for f in found)
    for trace_id in menu.traces:
        assert (await ask(reading, TraceRead(trace_id=trace_id)))[0].observed
    [lines] = await ask(reading, LogsRead(component="payment-service", contains="timeout"))
    assert lines.observed
    assert lines.baseline is not None
    assert lines.observed > 10 * lines.baseline


def test_readable_metrics_are_bounded_and_every_component_has_its_turn(
    black_friday: tuple[ReplayCollector, Case, Evidence],
) -> None:
    _, case, evidence = black_friday
    assert len(evidence.readable) == len(set(evidence.readable)) == 40
    near = {s.component for s in evidence.suspects} | {case.scope.service}
    measured = {s.ref.component for t in case.telemetry for s in t.series}
    assert near & measured <= {ref.component for ref in evidence.readable}
    findings = {f.ref for f in evidence.findings if f.ref}
    assert set(evidence.readable) - findings  # also those that look normal
    assert evidence.readable[0].component == evidence.suspects[0].component


def test_readable_metrics_do_not_depend_on_the_order_in_which_they_came(
    black_friday: tuple[ReplayCollector, Case, Evidence],
) -> None:
    _, case, evidence = black_friday
    [whole] = case.telemetry
    parts = (
        whole.model_copy(update={"series": whole.series[::-2], "logs": whole.logs[::-1]}),
        Telemetry(source=whole.source, series=whole.series[-2::-2]),
    )
    assert rank(parts, case.scope, case.alert).readable == evidence.readable


def test_masking_leaves_readable_metrics_as_they_can_be_measured() -> None:
    ref = CPU.model_copy(update={"query": f"avg:cpu{{token:{SECRET}}}"})
    evidence = EVIDENCE.model_copy(update={"readable": (ref,)})
    assert MASKER.masked_evidence(evidence).readable == (ref,)
