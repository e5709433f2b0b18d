"""What holds for any telemetry whatsoever: ranking answers, in bounds, in a total order, the same every time."""

import os
import random
import subprocess
import sys
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from math import inf, nan
from typing import TypeVar, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from collectors.base import (
    Asks,
    Change,
    Document,
    Edge,
    Gap,
    GapReason,
    Level,
    LogLine,
    Query,
    Scope,
    Series,
    SeriesRef,
    Span,
    SpanKind,
    Status,
    Symptom,
    Target,
    Telemetry,
    Window,
)
from graph.pictures.chart import finding_chart
from graph.pictures.topology import topology_picture
from graph.ranking import rank
from graph.ranking.engine import MAX_AFFECTED, MAX_CITED, MAX_DOCUMENTS, MAX_EDGES, MAX_PASSAGE, MAX_SUSPECTS
from graph.ranking.findings import MAX_FINDINGS, MAX_QUERY, MAX_SIGNAL, MAX_SUMMARY
from graph.ranking.impact import MAX_FIGURES
from graph.ranking.metrics import MAX_POINTS
from graph.state import Alert, Evidence
from tests.conftest import ROOT
from tests.graph.ranking import incidents

T = TypeVar("T")
S = st.SearchStrategy
ESCAPED = len(r"\ud800")  # characters for one that JSON cannot hold
EXCERPT = 410  # characters: a cut at 400, with the sign that it was cut
CHANNELS = 40  # more kinds of signal than there are

# --- what is generated --------------------------------------------------------------------------------------------

B0, B1 = incidents.START.timestamp(), incidents.INCIDENT.timestamp()
B2 = incidents.END.timestamp()
FAR_EAST, FAR_WEST = timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))
FIRST, LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
HOSTILE = (
    "",
    " ",
    "\x00",
    "\ud800",
    "a\udfffb",
    "\u202eyap",
    "x" * 10_000,
    "../../etc/passwd",
    "{}",
    "{0.__class__}",
    "%s%n",
    "(a+)+$",
    "[",
    "\\",
    "a\nb",
    "<script>&amp;]]>",
    "\u00e9",
    unicodedata.normalize("NFD", "\u00e9"),
    "e" + "\u0301" * 50,
    "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
    "\N{PILE OF POO}",
    "\uffff",
    "\x85",
    "Pay",
    "pay",
)
COMPONENTS = ("gateway", "orders", "billing", "ledger-db", *HOSTILE)
METRICS = (
    "error_rate",
    "latency_p95_ms",
    "cpu_percent",
    "connection_pool_utilization",
    "request_rate",
    "queue_backlog",
    "success_rate",
    "revenue_usd",
    "orders_pending",
    "llm.calls",
    "llm.calls{m}",
    "llm.errors{m}",
    "llm.tokens.input",
    "llm.cost_usd{(}",
    "error_budget_slo",
    *HOSTILE,
)
UNITS = ("", "%", "ms", "s", "requests/s", "count/min", "usd/minute", "/", "per", *HOSTILE[:6])
NUMBERS = (0.0, -0.0, 1.0, -1.0, 40.0, 100.0, 1e-3, 5e-324, -5e-324, 1e18, 1e300, 1e308, -1e308, nan, inf, -inf)
EDGE_OF_TIME = (0.0, -0.0, -1.0, -1e9, 1e10, 1e11, 1e18, 1e308, -1e308, 5e-324, nan, inf, -inf)
BORDERS = (B0, B1, B2, B0 - 1e-6, B1 - 1e-6, B2 - 1e-6, B2 + 1e6, B0 - 86_400.0)
MOMENTS = st.one_of(
    st.integers(0, int(B2 - B0)).map(lambda s: B0 + s),
    st.integers(0, int(B2 - B1)).map(lambda s: B1 + s),
    st.sampled_from(BORDERS + EDGE_OF_TIME),
)
VALUES = st.one_of(st.sampled_from(NUMBERS), st.floats(0, 1000))
DATES = st.one_of(
    st.integers(-3700, 400).map(lambda s: incidents.INCIDENT + timedelta(seconds=s)),
    st.sampled_from((FIRST, LAST, FIRST.replace(tzinfo=FAR_EAST), LAST.replace(tzinfo=FAR_WEST))),
    st.sampled_from((datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(-1, UTC), incidents.END)),
)
NAMES = st.one_of(st.sampled_from(COMPONENTS[:4]), st.sampled_from(COMPONENTS))
TEXTS = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=30))
MESSAGES = st.one_of(
    st.sampled_from(
        (
            "payment accepted",
            "connection refused after 30000ms",
            "java.lang.IllegalStateException: x\n\tat a.B.c(B.java:5)\nCaused by: y.Z: w\n\tat q.R.s(R.java:1)",
            'Traceback (most recent call last):\n  File "a.py", line 1, in f\nValueError: x',
        )
    ),
    TEXTS,
)
ERRORS = st.sampled_from(("", "", "timeout", "HTTP 500", "\ud800", "x" * 10_000))
IDS = st.sampled_from(("", "1", "2", "3", "4", "5", "\x00", "\ud800"))
SOURCES = st.sampled_from(("metrics", "logs", "", "\ud800"))


@st.composite
def refs(draw: st.DrawFn) -> SeriesRef:
    # a SeriesRef is checked where it is made: of its texts only those that pydantic lets in
    return SeriesRef(
        source=draw(SOURCES),
        component=draw(NAMES),
        metric=draw(st.sampled_from(METRICS)),
        statistic=draw(st.sampled_from(("avg", "p95", "max", "sum", ""))),
        unit=draw(st.sampled_from(UNITS)),
        query=draw(st.sampled_from(("", "q", "x" * 10_000))),
        measures=draw(st.sampled_from(("", "", "error", "latency", "pool", "requests", "loss"))),
    )


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Sequence[float], Sequence[float]]:
    """Times and values: regular ones with a level each before and in the incident, or anything."""
    if draw(st.booleans()):
        step = draw(st.sampled_from((30.0, 60.0, 300.0)))
        times = [B0 + step * i for i in range(int((B2 - B0) // step))]
        usual, now = draw(VALUES), draw(VALUES)
        return times, [usual if t < B1 else now for t in times]
    times = draw(st.lists(MOMENTS, max_size=12))
    values = draw(st.lists(VALUES, max_size=12))
    return (times[::-1] if draw(st.booleans()) else sorted(times)), values


@st.composite
def series(draw: st.DrawFn) -> Series:
    times, values = draw(shapes())
    return Series(ref=draw(refs()), epoch_s=tuple(times), values=tuple(values))


LEVELS = st.sampled_from(get_args(Level))
LINES = st.builds(
    LogLine,
    component=NAMES,
    at=DATES,
    level=LEVELS,
    message=MESSAGES,
    logger=st.sampled_from(("", "A#1", "A:", "[", "\ud800")),
    instance=st.sampled_from(("", "i-1", "\ud800")),
    trace_id=IDS,
    span_id=IDS,
    count=st.sampled_from((1, 1, 2, 10**18)),
)
SPANS = st.builds(
    Span,
    component=NAMES,
    trace_id=IDS,
    span_id=IDS,
    parent_id=IDS,
    operation=st.sampled_from(("GET /", "call", "", "\ud800", "x" * 10_000)),
    start_s=MOMENTS,
    duration_ms=st.one_of(st.sampled_from(NUMBERS), st.floats(0, 5000)),
    kind=st.sampled_from(get_args(SpanKind)),
    peer=NAMES,
    error=ERRORS,
    instance=st.sampled_from(("", "i-1", "i-2")),
)
EDGES = st.builds(
    Edge,
    caller=NAMES,
    callee=NAMES,
    source=SOURCES,
    asynchronous=st.booleans(),
    callee_kind=st.sampled_from(("", "service", "queue")),
)
CHANGES = st.builds(
    Change,
    component=NAMES,
    at=DATES,
    kind=st.sampled_from(("deploy", "configuration", "scaling", "feature_flag", "other")),
    title=TEXTS,
    version=st.sampled_from(("", "v1", "v1.2", "deadbeef1", "pay:12", "\ud800")),
    author=TEXTS,
    link=st.none() | TEXTS,
)
STATUSES = st.builds(
    Status,
    component=NAMES,
    name=st.sampled_from(
        ("ecs.healthy_tasks", "error_ratio", "rollout", "datadog.monitor:x", "cloudwatch.composite_alarm", "", "\ud800")
    ),
    at=DATES,
    observed=VALUES,
    expected=st.none() | VALUES,
    detail=st.one_of(
        st.sampled_from(("", "of 0 pods", "x; ALARM; y", "since 9999-99-99 99:99 UTC", "at its limit")), TEXTS
    ),
)
DOCUMENTS = st.builds(
    Document,
    title=TEXTS,
    section=TEXTS,
    text=st.one_of(st.just("connection refused, timeout: caused by ledger-db " * 200), TEXTS),
    link=st.none() | TEXTS,
    services=st.lists(NAMES, max_size=2).map(tuple),
)
GAPS = st.builds(Gap, source=SOURCES, reason=st.sampled_from(GapReason), detail=TEXTS, mend=TEXTS)
QUERIES = st.builds(
    Query,
    source=SOURCES,
    text=TEXTS,
    link=st.none() | TEXTS,
    start=DATES,
    end=DATES,
    took_ms=VALUES,
    rows=st.sampled_from((0, 1, 10**18)),
    kind=st.sampled_from(get_args(Asks)),
)


def some(rows: S[T], most: int) -> S[tuple[T, ...]]:
    """Rows of which some come twice."""
    drawn = st.lists(rows, max_size=most)
    return st.builds(lambda found, again: tuple(found + found[:again]), drawn, st.sampled_from((0, 0, 2)))


TELEMETRY = st.builds(
    Telemetry,
    source=SOURCES,
    queries=some(QUERIES, 2),
    series=some(series(), 5),
    logs=some(LINES, 8),
    spans=some(SPANS, 8),
    changes=some(CHANGES, 3),
    statuses=some(STATUSES, 3),
    edges=some(EDGES, 6),
    documents=some(DOCUMENTS, 2),
    gaps=some(GAPS, 1),
)
ORDINARY = tuple(
    Telemetry(
        source=t.source,
        series=t.series,
        logs=tuple(line for n, line in enumerate(t.logs) if n % 10 == 0 or line.at >= incidents.INCIDENT),
        spans=tuple(s for s in t.spans if int(s.trace_id[1:]) % (15 if s.start_s < B1 else 3) == 0),
        edges=t.edges,
        changes=t.changes,
    )
    for t in incidents.pool_exhaustion()
)
"""An incident like any other, thinned out."""


def renamed(t: Telemetry, names: Mapping[str, str]) -> Telemetry:
    def of(name: str) -> str:
        return names.get(name, name)

    return t.model_copy(
        update={
            "series": tuple(
                replace(s, ref=s.ref.model_copy(update={"component": of(s.ref.component)})) for s in t.series
            ),
            "logs": tuple(replace(line, component=of(line.component)) for line in t.logs),
            "spans": tuple(replace(s, component=of(s.component), peer=of(s.peer)) for s in t.spans),
            "edges": tuple(e.model_copy(update={"caller": of(e.caller), "callee": of(e.callee)}) for e in t.edges),
        }
    )


RENAMED = st.dictionaries(st.sampled_from(incidents.SERVICES), st.sampled_from(HOSTILE), max_size=4).map(
    lambda names: tuple(renamed(t, names) for t in ORDINARY)
)
WINDOW = Window(start=incidents.INCIDENT, end=incidents.END)
BASELINE = Window(start=incidents.START, end=incidents.INCIDENT)
WINDOWS = st.one_of(
    st.just(WINDOW),
    st.builds(Window, start=DATES, end=DATES),  # empty, reversed, of ten thousand years
    DATES.map(lambda at: Window(start=at, end=at)),
)


@dataclass(frozen=True)
class Case:
    """All that ranking takes."""

    telemetry: tuple[Telemetry, ...]
    scope: Scope
    alert: Alert

    def ranked(self) -> Evidence:
        return rank(self.telemetry, self.scope, self.alert, {"metrics": "ab"})

    def mapped(self, change: Callable[[Telemetry], Telemetry]) -> "Case":
        return replace(self, telemetry=tuple(map(change, self.telemetry)))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    alerted = draw(NAMES)
    scope = Scope(
        service=alerted,
        occurred_at=draw(DATES),
        incident=draw(st.just(WINDOW) | WINDOWS),
        baseline=draw(st.just((BASELINE,)) | st.lists(WINDOWS, max_size=3).map(tuple)),
        seasonal=draw(st.just(()) | st.lists(WINDOWS, max_size=2).map(tuple)),
        targets=tuple(Target(service=name) for name in draw(st.lists(NAMES, max_size=2))),
        edges=draw(some(EDGES, 4)),
        symptom=Symptom(text=draw(TEXTS)),
    )
    alert = Alert(
        source="",
        title=draw(TEXTS),
        service=draw(st.just(alerted) | st.sampled_from(("", "nobody knows it"))),
        occurred_at=draw(DATES),
        fingerprint="",
        cycle_key="",
        text=draw(TEXTS),
    )
    usual = draw(st.just(()) | RENAMED)
    return Case((*usual, *draw(st.lists(TELEMETRY, max_size=2))), scope, alert)


def examples(count: int) -> settings:
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],  # to make a failing case small takes minutes
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


# --- any input ----------------------------------------------------------------------------------------------------


def assert_sound(found: Evidence) -> None:
    ids = [f.id for f in found.findings]
    components = [s.component for s in found.suspects]
    assert ids == [f"E{n}" for n in range(1, len(ids) + 1)]
    assert len(set(components)) == len(components)
    assert set(found.causes) <= set(components)
    cited = [i for s in found.suspects for i in (*s.findings, *filter(None, [s.change]))]
    assert {*cited, *(i for figure in found.impact for i in figure.evidence)} <= set(ids)
    scores = [s.score for s in found.suspects]
    assert scores == sorted(scores, reverse=True)
    assessed = (found.assessment.trouble, found.assessment.certainty) if found.assessment else ()
    assert all(0.0 <= score <= 1.0 for score in (*scores, *assessed))
    assert all(len(set(s.findings)) == len(s.findings) for s in found.suspects)
    assert len(set(found.edges)) == len(found.edges)


def assert_bounded(found: Evidence) -> None:
    assert len(found.findings) <= MAX_FINDINGS
    assert len(found.suspects) <= MAX_SUSPECTS
    assert len(found.edges) <= MAX_EDGES
    assert len(found.impact) <= MAX_FIGURES
    assert len(found.documents) <= MAX_DOCUMENTS
    assert all(len(d.text) <= MAX_PASSAGE for d in found.documents)
    for f in found.findings:
        assert len(f.points) <= MAX_POINTS
        lengths = (len(f.signal), len(f.summary), len(f.excerpt), len(f.query))
        most = ESCAPED * np.array((MAX_SIGNAL, MAX_SUMMARY, EXCERPT, MAX_QUERY))
        assert (np.array(lengths) <= most).all()
    for s in found.suspects:
        assert len(s.findings) <= MAX_CITED
        assert len(s.affected) <= MAX_AFFECTED
        assert len(s.why) <= ESCAPED * (3 * MAX_SUMMARY + 2)
        assert len(s.reasons) <= CHANNELS
        assert all(len(reason) <= ESCAPED * MAX_SUMMARY for reason in s.reasons)


def assert_drawn(found: Evidence, alerted: str) -> None:
    changes = [f for f in found.findings if f.kind == "change"]
    pictures = [finding_chart(f, found.looked_at, changes) for f in found.findings[:6]]
    for picture in (*pictures, topology_picture(found, alerted)):
        assert ET.fromstring(picture).tag.endswith("svg")


@examples(120)
@given(cases())
def test_any_input_gives_sound_evidence(case: Case) -> None:
    found = case.ranked()
    assert_sound(found)
    assert_bounded(found)
    assert Evidence.model_validate_json(found.model_dump_json()) == found
    assert_drawn(found, case.scope.service)


# --- order --------------------------------------------------------------------------------------------------------

KINDS = ("series", "logs", "spans", "changes", "statuses", "edges", "queries")


def shuffled(case: Case, rng: random.Random) -> Case:
    def mixed(rows: Sequence[T]) -> tuple[T, ...]:
        return tuple(rng.sample(rows, len(rows)))

    def mix(t: Telemetry) -> Telemetry:
        return t.model_copy(update={kind: mixed(getattr(t, kind)) for kind in KINDS})

    scope = case.scope.model_copy(update={"edges": mixed(case.scope.edges), "targets": mixed(case.scope.targets)})
    return Case(mixed(tuple(map(mix, case.telemetry))), scope, case.alert)


def split(t: Telemetry, rng: random.Random) -> Iterator[Telemetry]:
    """Each row in one of three answers."""
    parts: list[dict[str, list[object]]] = [{kind: [] for kind in KINDS} for _ in range(3)]
    for kind in KINDS:
        for row in getattr(t, kind):
            rng.choice(parts)[kind].append(row)
    for n, part in enumerate(parts):
        rest = {} if n == 0 else {"documents": (), "gaps": ()}
        yield t.model_copy(update={**{kind: tuple(rows) for kind, rows in part.items()}, **rest})


def told(found: Evidence) -> str:
    """All of it, but for documents and gaps, which are given in the order of the sources."""
    return found.model_dump_json(exclude={"documents", "gaps"})


@examples(60)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_rows_and_answers_changes_nothing(case: Case, rng: random.Random) -> None:
    assert told(shuffled(case, rng).ranked()) == told(case.ranked())


@examples(40)
@given(cases(), st.randoms(use_true_random=False))
def test_answers_in_parts_change_nothing(case: Case, rng: random.Random) -> None:
    parts = tuple(part for t in case.telemetry for part in split(t, rng))
    assert told(replace(case, telemetry=parts).ranked()) == told(case.ranked())


@examples(40)
@given(cases())
def test_spans_that_are_told_twice_change_nothing(case: Case) -> None:
    twice = case.mapped(lambda t: t.model_copy(update={"spans": t.spans + t.spans}))
    assert told(twice.ranked()) == told(case.ranked())


def logged() -> Case:
    """Billing charges in every request, and logs it; in the incident mostly not. Of every third request no line is."""
    telemetry = [t.model_copy(update={"logs": ()}) for t in ORDINARY]
    charges = [s for t in ORDINARY for s in t.spans if s.span_id == "b" and s.operation == "POST /charge"]
    lines = [
        LogLine(
            component="billing",
            at=datetime.fromtimestamp(s.start_s, UTC),
            level="info" if s.start_s < B1 else "error",
            message="charged" if s.start_s < B1 else "not charged",
            trace_id=s.trace_id,
            span_id=s.span_id,
        )
        for n, s in enumerate(charges)
        if n % 3
    ]
    return plain([*telemetry, Telemetry(source="logs", logs=tuple(lines))], "gateway", *incidents.EDGES)


@pytest.mark.parametrize("of", [lambda s: True, lambda s: s.start_s < B1, lambda s: int(s.trace_id[1:]) % 2])
def test_spans_that_some_source_tells_again_change_nothing(of: Callable[[Span], bool]) -> None:
    case = logged()
    again = case.mapped(lambda t: t.model_copy(update={"spans": t.spans + tuple(filter(of, t.spans))}))
    assert any(f.kind == "log" and "→" in f.signal for f in case.ranked().findings)
    assert told(again.ranked()) == told(case.ranked())


# --- topologies ---------------------------------------------------------------------------------------------------


def plain(telemetry: Sequence[Telemetry], alerted: str = "gateway", *edges: tuple[str, str]) -> Case:
    known = tuple(Edge(caller=a, callee=b, source="catalogue") for a, b in edges)
    scope = incidents.scope(alerted).model_copy(update={"edges": known, "targets": ()})
    return Case(tuple(telemetry), scope, incidents.alert(alerted))


def failing(component: str, percent: float = 30.0) -> Series:
    return incidents.series(component, "error_rate", 0.4, percent, unit="%")


CHAIN = [f"c{n:04d}" for n in range(5_000)]
COMPLETE = [f"c{n:02d}" for n in range(60)]
RING = [f"c{n:03d}" for n in range(500)]
TOPOLOGIES: Mapping[str, tuple[list[str], list[tuple[str, str]]]] = {
    "self-call": (["c"], [("c", "c")]),
    "two that call each other": (["a", "b"], [("a", "b"), ("b", "a")]),
    "complete": (COMPLETE, [(a, b) for a in COMPLETE for b in COMPLETE]),
    "chain": (CHAIN, list(pairwise(CHAIN))),
    "ring": (RING, [*pairwise(RING), (RING[-1], RING[0])]),
}


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_any_topology_is_ranked(name: str) -> None:
    names, edges = TOPOLOGIES[name]
    rows = tuple(failing(n) for n in names[:20] + names[-20:])
    found = plain([Telemetry(source="metrics", series=tuple(dict.fromkeys(rows)))], names[0], *edges).ranked()
    assert_sound(found)
    assert_bounded(found)
    assert_drawn(found, names[0])
    assert found.findings


# --- what must not matter, and what must --------------------------------------------------------------------------

LEAVES = ("a", "b", "c", "d")
PERCENT = st.sampled_from((0.4, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 99.0))


def star(percent: Mapping[str, float]) -> Case:
    rows = (failing("gateway"), *(failing(name, value) for name, value in sorted(percent.items())))
    return plain([Telemetry(source="metrics", series=rows)], "gateway", *(("gateway", leaf) for leaf in LEAVES))


def place(found: Evidence, component: str, among: Sequence[str]) -> int:
    """How many of the others stand before it."""
    order = [s.component for s in found.suspects if s.component in among]
    return order.index(component) if component in order else len(among)


@examples(40)
@given(st.fixed_dictionaries(dict.fromkeys(LEAVES, PERCENT)), st.sampled_from(LEAVES), PERCENT)
def test_who_deviates_more_is_suspected_no_less(percent: dict[str, float], leaf: str, other: float) -> None:
    low, high = sorted((percent[leaf], other))
    before, after = (star({**percent, leaf: value}).ranked() for value in (low, high))
    assert place(after, leaf, LEAVES) <= place(before, leaf, LEAVES)


def order(found: Evidence) -> list[str]:
    return [s.component for s in found.suspects]


@pytest.mark.parametrize("name", ["aaa", "zzz", "\x00", "Gateway"])
@pytest.mark.parametrize("incident", [incidents.pool_exhaustion, incidents.bad_deploy])
def test_who_shows_nothing_and_calls_nobody_changes_no_order(
    incident: Callable[[], list[Telemetry]], name: str
) -> None:
    usual = [
        incidents.series(name, metric, 10.0, unit=unit) for metric, unit in (("error_rate", "%"), ("latency_ms", "ms"))
    ]
    lines = incidents.lines(name, "info", "working", per_minute=6, baseline=True, incident=True)
    idle = Telemetry(source="metrics", series=tuple(usual), logs=tuple(lines))
    given_, scope = tuple(incident()), incidents.scope("gateway")
    case = Case(given_, scope, incidents.alert("gateway"))
    found = replace(case, telemetry=(*given_, idle)).ranked()
    assert order(found) == order(case.ranked()) != []


def shifted(case: Case, seconds: int) -> Case:
    by = timedelta(seconds=seconds)

    def window(w: Window) -> Window:
        return Window(start=w.start + by, end=w.end + by)

    def later(t: Telemetry) -> Telemetry:
        return t.model_copy(
            update={
                "series": tuple(replace(s, epoch_s=tuple(at + seconds for at in s.epoch_s)) for s in t.series),
                "logs": tuple(replace(line, at=line.at + by) for line in t.logs),
                "spans": tuple(replace(s, start_s=s.start_s + seconds) for s in t.spans),
                "changes": tuple(c.model_copy(update={"at": c.at + by}) for c in t.changes),
            }
        )

    scope = case.scope.model_copy(
        update={
            "incident": window(case.scope.incident),
            "baseline": tuple(map(window, case.scope.baseline)),
            "occurred_at": case.scope.occurred_at + by,
        }
    )
    return replace(case.mapped(later), scope=scope)


ACCUSED = ("component", "score", "path", "findings", "affected")


def accused(found: Evidence) -> list[tuple[object, ...]]:
    return [tuple(getattr(s, field) for field in ACCUSED) for s in found.suspects]


@pytest.mark.parametrize("days", [-3_000, 1, 7, 20_000])
def test_another_time_shifts_onsets_only(days: int) -> None:
    case = Case(tuple(incidents.pool_exhaustion()), incidents.scope("gateway"), incidents.alert("gateway"))
    before, after = case.ranked(), shifted(case, days * 86_400).ranked()

    def sizes(found: Evidence, by: timedelta) -> list[tuple[object, ...]]:
        rows = ((f.id, f.component, f.signal, round(f.effect, 2), f.at - by) for f in found.findings)
        return [(*row[:-1], round(row[-1].timestamp(), 2)) for row in rows]

    assert accused(after) == accused(before) != []
    assert sizes(after, timedelta(days=days)) == sizes(before, timedelta())


@examples(30)
@given(st.floats(2.0, 3000.0), st.floats(1.5, 20.0), st.booleans())
def test_the_unit_of_a_latency_changes_nothing(usual_ms: float, times: float, whole: bool) -> None:
    def measured(factor: float, unit: str) -> Evidence:
        rows = []
        for name, share in (("gateway", 1.0), ("orders", 0.7)):
            one = incidents.series(name, "latency", usual_ms * share, usual_ms * share * times, unit="ms")
            values = [(round(v) if whole else v) * factor for v in one.values]
            rows.append(replace(one, ref=one.ref.model_copy(update={"unit": unit}), values=tuple(values)))
        return plain([Telemetry(source="metrics", series=tuple(rows))], "gateway", ("gateway", "orders")).ranked()

    in_ms, in_s = measured(1.0, "ms"), measured(0.001, "s")
    assert order(in_ms) == order(in_s)
    assert [s.score for s in in_ms.suspects] == pytest.approx([s.score for s in in_s.suspects], abs=2e-4)


# --- very much, and another seed of hashes ------------------------------------------------------------------------

MANY = 20_000
SECONDS, MEGABYTES = 60, 1_500
"""Of a process that makes all that and ranks it; alone on a machine it takes a fifth of both."""


def very_much() -> Case:
    """A hundred thousand templates, twenty thousand components and metrics, and counts beyond any."""
    words = [f"{a}{b}" for a in "bcdfghjklmnpqrstvwxz" for b in "aeiou"]
    texts = (f"{words[n % 100]} {words[n // 100 % 100]} {words[n // 10_000]} failed" for n in range(100_000))
    at = (incidents.START, incidents.INCIDENT)
    lines = [
        LogLine(component="orders", at=at[n % 2], level="error", message=text, count=10**18 if n % 1_000 == 0 else 1)
        for n, text in enumerate(texts)
    ]
    single = [
        Series(
            ref=SeriesRef(source="m", component="billing", metric=f"m{n}", query=""),
            epoch_s=(B1 + 1,),
            values=(float(n),),
        )
        for n in range(MANY)
    ]
    steps = [
        Series(
            ref=SeriesRef(source="m", component=f"c{n}", metric="error_rate", unit="%", query=""),
            epoch_s=(B1 - 120, B1 - 60, B1 + 60, B1 + 120),
            values=(0.0, 1.0, 50.0, 50.0),
        )
        for n in range(MANY)
    ]
    rows = Telemetry(source="m", series=(*single, *steps), logs=tuple(lines))
    edges = [("gateway", f"c{n}") for n in range(MANY)]
    return plain([*incidents.pool_exhaustion(), rows], "gateway", *edges, *incidents.EDGES)


def printed() -> str:
    """All evidence of very much, as the subprocesses below print it, with the memory it took, in MB."""
    from resource import RUSAGE_SELF, getrusage

    found = very_much().ranked()
    assert_sound(found)
    assert_bounded(found)
    return f"{getrusage(RUSAGE_SELF).ru_maxrss // 1024}\n{found.model_dump_json()}"


def test_very_much_is_ranked_in_bounds_whatever_the_seed_of_hashes() -> None:
    script = "from tests.graph.ranking.test_properties import printed; print(printed())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={**environment, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    try:
        memory, told_ = zip(*(one.communicate(timeout=SECONDS)[0].split("\n", 1) for one in running), strict=True)
    finally:
        for one in running:
            one.kill()
    assert max(map(int, memory)) < MEGABYTES
    assert told_[0] == told_[1] != "\n"
