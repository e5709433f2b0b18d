"""What the sources answered to an analyst's question, as findings. Pure.

An answer is always at least one finding: that nothing was found is one, and so is that nobody could be asked.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from collectors.base import Gap, GapReason, LogLine, LogsRead, MetricRead, Query, Read, Scope, Series, Telemetry
from graph.ranking import metrics, samples, templates
from graph.ranking.deviation import clock_time, number, quantity
from graph.ranking.findings import MAX_EFFECT, MAX_QUERY, MAX_SIGNAL, MAX_SUMMARY
from graph.ranking.logs import telling
from graph.ranking.semantics import meaning_of
from graph.ranking.spans import NONE, SpanTable, table
from graph.ranking.tally import verbatim
from graph.ranking.windows import Windows, moment
from graph.state import Finding

MAX_EXAMPLES = 3  # lines that read differently, or spans
MAX_SERIES = 4  # of one metric: its statistics, or what it is grouped by
MAX_PARTS = 5  # components of one trace
MAX_STEPS = 6  # of a critical path
MAX_SHORTCOMINGS = 300  # characters
MAX_NAME = 80  # characters of a span's operation or error in a sentence
_BAD = ("warning", "error", "critical")
Mask = Callable[[str], str]
"""Hides secrets in what a source says, before it is cut: half a secret is one that no rule knows."""


@dataclass(frozen=True)
class Answered:
    """What one source answered, and the sha256 of what was stored of it."""

    telemetry: Telemetry
    sha256: str

    @property
    def source(self) -> str:
        """The collector's name."""
        return self.telemetry.source

    @property
    def failed(self) -> bool:
        """Whether nothing came, and not because nothing is there."""
        return not self.telemetry.rows and any(gap.reason != GapReason.EMPTY for gap in self.telemetry.gaps)


def in_words(question: Read) -> str:
    """The question as a person would put it."""
    if isinstance(question, LogsRead):
        return f"log lines of {question.component} that hold “{question.contains}”"
    if isinstance(question, MetricRead):
        return f"{question.metric} of {question.component}"
    return f"the spans of trace {question.trace_id}"


def findings(question: Read, answers: Sequence[Answered], scope: Scope, first: int, mask: Mask) -> list[Finding]:
    """At least one, numbered from ``first`` on; there is at least one answer. The first tells what could not be read.

    Of logs there is one for each source that has any, of a metric one for each series, of a trace one for each
    component that it spent its time in, or that failed.
    """
    windows = Windows.of(scope)
    if isinstance(question, LogsRead):
        found = [f for a in answers for f in _logged(question, a, windows, mask)]
    elif isinstance(question, MetricRead):
        found = [f for a in answers for f in _measured(a, windows)][:MAX_SERIES]
    else:
        found = _traced(question.trace_id, max(answers, key=lambda a: len(a.telemetry.spans)), windows, mask)
    found = found or [_nothing(question, answers, scope)]
    found[0] = _with_shortcomings(found[0], answers, mask)
    asked = in_words(question)
    return [f.model_copy(update={"id": f"E{n}", "asked": asked}) for n, f in enumerate(found, start=first)]


# --- nothing, and not all -------------------------------------------------------------------------------------------


def _nothing(question: Read, answers: Sequence[Answered], scope: Scope) -> Finding:
    """That nothing is there is only said of sources that answered."""
    heard = [answer for answer in answers if not answer.failed]
    component = scope.service if question.kind == "trace" else question.component
    if heard:
        summary = f"Nothing was found of {in_words(question)} at {_names(heard)}.{_unsure(component, scope)}"
    else:
        summary = f"Nobody could be asked for {in_words(question)}."
    kind, unit = {"logs": ("log", "lines/min"), "metric": ("metric", "points"), "trace": ("trace", "spans")}[
        question.kind
    ]
    return _finding(
        (heard or answers)[0],
        kind=kind,
        component=component,
        signal=_signal(question),
        at=scope.incident.start,
        observed=0.0 if heard else None,
        unit=unit,
        summary=summary,
        worse="neutral",
    )


def _unsure(component: str, scope: Scope) -> str:
    """What is only known as somebody's callee may be there under a name that nobody declared."""
    known = {target.service for target in scope.targets}
    return (
        "" if not known or component in known else f" {component} is no service of the catalogue: it may not log there."
    )


def _signal(question: Read) -> str:
    if isinstance(question, LogsRead):
        return question.contains
    return question.metric if isinstance(question, MetricRead) else f"trace {question.trace_id}"


def _names(answers: Iterable[Answered]) -> str:
    return ", ".join(answer.source for answer in answers)


def _with_shortcomings(finding: Finding, answers: Sequence[Answered], mask: Mask) -> Finding:
    found = any(answer.telemetry.rows for answer in answers)
    quiet = (GapReason.EMPTY, GapReason.NOT_CONFIGURED) if found else (GapReason.EMPTY,)  # others hold what is sought
    gaps = ((answer, gap) for answer in answers for gap in answer.telemetry.gaps if gap.reason not in quiet)
    told = " ".join(dict.fromkeys(mask(_shortcoming(answer, gap)) for answer, gap in gaps))
    if not told:
        return finding
    told = _cut(told, MAX_SHORTCOMINGS)
    return finding.model_copy(update={"summary": f"{finding.summary} {told}"})


def _shortcoming(answer: Answered, gap: Gap) -> str:
    what = "could not be read" if answer.failed else "was read in part"
    return f"{answer.source} {what}: {gap.detail.rstrip('.')}."


def _finding(answer: Answered, **fields: object) -> Finding:
    """With where it came from; its id is given later."""
    query = _query(answer.telemetry.queries)
    known = {"query": query.text[:MAX_QUERY], "link": query.link} if query else {}
    told = {"id": "E0", "source": answer.source, "sha256": answer.sha256, **known, **fields}
    told["signal"], told["summary"] = _cut(str(told["signal"]), MAX_SIGNAL), _cut(str(told["summary"]), MAX_SUMMARY)
    return Finding.model_validate(told)


def _query(queries: Iterable[Query]) -> Query | None:
    """The one that a reader wants to ask again: it gave rows, and not just their number, of the latest time."""
    return max(queries, key=lambda q: (q.rows > 0, q.kind != "metrics", q.end, q.rows), default=None)


# --- log lines ------------------------------------------------------------------------------------------------------


def _logged(question: LogsRead, answer: Answered, windows: Windows, mask: Mask) -> Iterator[Finding]:
    """Their number per minute, as windows differ in length; since when, how bad, and some that read differently."""
    now, then = (_count(answer.telemetry, inside) for inside in (windows.in_incident, windows.in_baseline))
    if not now and not then:
        return
    rate = now / windows.incident_minutes
    usual = then / windows.baseline_minutes if windows.baselines else None
    lines = sorted((x for x in answer.telemetry.logs if windows.in_incident(x.at.timestamp())), key=lambda x: x.at)
    times = [*(line.at.timestamp() for line in lines), *_busy(answer.telemetry, windows)]
    before = (
        "with nothing to compare with" if usual is None else f"{number(usual)}/min before" if then else "none before"
    )
    yield _finding(
        answer,
        kind="log",
        component=question.component,
        signal=question.contains,
        at=moment(min(times, default=windows.incident[0])),
        observed=rate,
        baseline=usual,
        unit="lines/min",
        effect=_effect(rate, usual, windows),
        summary=f"{question.component} logged {now:,} line(s) that hold “{question.contains}” in the incident "
        f"({number(rate)}/min, {before}){_when(times)}.{_levels(lines, now)}",
        excerpt=_examples(answer.telemetry, windows, mask),
        worse="up" if any(line.level in _BAD for line in lines) else "neutral",
    )


def _count(telemetry: Telemetry, inside: Callable[[float], bool]) -> int:
    """Lines in the windows: by the source's counts, where it counts; it may have read only some of them."""
    counted = sum(value for at, value in _counts(telemetry) if inside(at))
    return max(round(counted), sum(line.count for line in telemetry.logs if inside(line.at.timestamp())))


def _counts(telemetry: Telemetry) -> Iterator[tuple[float, float]]:
    for one in telemetry.series:
        yield from zip(one.epoch_s, one.values, strict=True)


def _busy(telemetry: Telemetry, windows: Windows) -> list[float]:
    """Where there are lines beyond those that were read: when the last counted ones were."""
    last = max((at for at, value in _counts(telemetry) if value and windows.in_incident(at)), default=None)
    return [] if last is None else [last]


def _effect(rate: float, usual: float | None, windows: Windows) -> float:
    if usual is None:
        return 0.0
    return min(max((rate - usual) / (usual + 1.0 / windows.baseline_minutes), 0.0), MAX_EFFECT)


def _when(times: Sequence[float]) -> str:
    if not times:
        return ""
    first, last = clock_time(min(times)), clock_time(max(times))
    return f", at {first}" if first == last else f", the first at {first}, the last at {last}"


def _levels(lines: Sequence[LogLine], all_: int) -> str:
    counts = Counter[str]()
    for line in lines:
        counts[line.level] += line.count
    if not counts:
        return ""
    of = "" if counts.total() >= all_ else f"Of {counts.total():,} that were read "
    told = ", ".join(f"{count:,} {level}" for level, count in counts.most_common())
    return f" {of}{told}."


def _examples(telemetry: Telemetry, windows: Windows, mask: Mask) -> str:
    """The first line of each of the most frequent kinds; of the incident, or else of before."""
    kinds: defaultdict[tuple[str, str], list[LogLine]] = defaultdict(list)
    read = templates.read(((telemetry.source, line) for line in telemetry.logs), windows).texts
    for text in read:
        kinds[text.level, text.name] += text.now or ([] if any(other.now for other in read) else text.then)
    most = sorted((k for k in kinds if kinds[k]), key=lambda k: (-sum(line.count for line in kinds[k]), k))
    return "\n".join(_example(min(kinds[k], key=lambda x: (x.at, x.message)), mask) for k in most[:MAX_EXAMPLES])


def _example(line: LogLine, mask: Mask) -> str:
    trace = f" trace={line.trace_id}" if line.trace_id else ""
    said = telling(replace(line, message=mask(line.message)))
    return f"{clock_time(line.at.timestamp())} {line.level}: {said}{trace}"


# --- metrics --------------------------------------------------------------------------------------------------------


def _measured(answer: Answered, windows: Windows) -> Iterator[Finding]:
    """Each series as ranking judges it; also one that is as usual."""
    for one in answer.telemetry.series:
        t, v = samples.finite(one)
        inside = samples.within(t, [windows.incident])
        before = samples.within(t, windows.baselines) & ~inside
        if not (inside | before).any():
            continue
        observed: float | None
        usual = float(samples.median(v[before])) if before.any() else None
        judged = next((d for d in metrics.deviations([(answer.source, one)], windows) if d.ref == one.ref), None)
        if judged is not None and judged.observed is not None:
            at_s, observed, usual, summary = judged.at_s, judged.observed, judged.baseline, judged.summary
        else:
            at_s = float(t[inside][0]) if inside.any() else windows.incident[0]
            observed = float(samples.median(v[inside])) if inside.any() else None
            summary = _as_usual(one, observed, usual)
        drawn = inside | before
        yield _finding(
            answer,
            kind="metric",
            component=one.ref.component,
            signal=metrics.signal_of(one.ref),
            at=moment(at_s),
            observed=observed,
            baseline=usual,
            unit=one.ref.unit,
            effect=min(judged.effect, MAX_EFFECT) if judged else 0.0,
            summary=summary + _extremes(one, t[inside], v[inside]),
            ref=one.ref,
            query=one.ref.query[:MAX_QUERY],
            worse=meaning_of(one.ref).worse,
            points=metrics.thinned(t[drawn], v[drawn]),
            band=metrics.band(v[before]) if before.any() else None,
        )


def _as_usual(one: Series, observed: float | None, usual: float | None) -> str:
    name, unit = f"{one.ref.component} {metrics.signal_of(one.ref)}", one.ref.unit
    before = "nothing before to compare with" if usual is None else f"{quantity(usual, unit)} before"
    if observed is None:
        return f"{name} has no point in the incident; {before}."
    verdict = "" if usual is None else ": no clear change"
    return f"{name} was at {quantity(observed, unit)} in the incident (median), {before}{verdict}."


def _extremes(one: Series, t: samples.Floats, v: samples.Floats) -> str:
    if not v.size:
        return ""
    low, high = int(np.argmin(v)), int(np.argmax(v))
    if v[low] == v[high]:
        return ""
    lowest, highest = (f"{quantity(float(v[n]), one.ref.unit)} at {clock_time(float(t[n]))}" for n in (low, high))
    return f" In the incident its lowest value was {lowest}, its highest {highest}."


# --- a trace --------------------------------------------------------------------------------------------------------


@dataclass
class _Part:
    """What one component did in a trace: rows of the table."""

    component: str
    rows: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    began: bool = False  # a failure did, that no deeper span explains
    critical_ms: float = 0.0


def _traced(trace_id: str, answer: Answered, windows: Windows, mask: Mask) -> list[Finding]:
    """Who kept the request waiting, and where it failed, the most telling component first."""
    masked = (replace(s, operation=mask(s.operation), error=mask(s.error)) for s in answer.telemetry.spans)
    spans = table(((answer.source, span) for span in masked), windows)
    if not len(spans):
        return []
    critical = critical_path(spans)
    whole_ms = sum(critical.values())
    parts = _parts(spans, critical)
    parts.sort(key=lambda p: (-(p.critical_ms / max(whole_ms, 1e-9) + p.began), p.component))
    found = [_part(trace_id, part, spans, critical, answer) for part in parts[:MAX_PARTS]]
    way = " → ".join(_step(spans, row, ms) for row, ms in _longest(critical))
    total = f"The trace has {len(spans)} spans and took {number(whole_ms)} ms: {way}."
    found[0] = found[0].model_copy(update={"summary": f"{found[0].summary} {_cut(total, MAX_SUMMARY)}"})
    return found


def critical_path(spans: SpanTable) -> dict[int, float]:
    """By row the milliseconds for which nothing but that span kept the request waiting, in the order of their start.

    From the end of the longest span that nobody waits for backwards: whoever ended last was waited for, as in
    CRISP (Zhang et al., USENIX ATC 2022). What runs beside it costs nothing.
    """
    start, end = spans.start_s.tolist(), spans.end_s.tolist()
    parents = spans.waiting_parent.tolist()
    callees: defaultdict[int, list[int]] = defaultdict(list)
    for row, parent in enumerate(parents):
        callees[parent].append(row)
    root = max(callees[NONE], key=lambda row: (end[row] - start[row], -row))
    found: defaultdict[int, float] = defaultdict(float)
    left = [(root, start[root], end[root])]
    while left:
        row, begins, ends = left.pop()
        cursor = ends
        for callee in sorted(callees[row], key=lambda c: (-end[c], c)):
            since, until = max(start[callee], begins), min(end[callee], cursor)
            beside = end[callee] > cursor and cursor < ends  # of one that ended later; not just cut off at its end
            if since < until and not beside:
                found[row] += (cursor - until) * 1000.0
                left.append((callee, since, until))
                cursor = since
        found[row] += (cursor - begins) * 1000.0
    return dict(sorted(found.items(), key=lambda item: (start[item[0]], item[0])))


def _parts(spans: SpanTable, critical: dict[int, float]) -> list[_Part]:
    parts: dict[str, _Part] = {}
    deeper = {int(p) for p in spans.waiting_parent[spans.failed] if p >= 0}  # a span below it failed, too
    for row, span in enumerate(spans.spans):
        part = parts.setdefault(span.component, _Part(span.component))
        part.rows.append(row)
        part.critical_ms += critical.get(row, 0.0)
        if span.error:
            part.failed.append(row)
            part.began |= row not in deeper
    return list(parts.values())


def _part(trace_id: str, part: _Part, spans: SpanTable, critical: dict[int, float], answer: Answered) -> Finding:
    longest = max(part.rows, key=lambda row: (critical.get(row, 0.0), -row))
    span = spans.spans[longest]
    waited = f", waiting for {span.peer}" if span.peer and spans.answer[longest] == NONE else ""
    summary = (
        f"In trace {trace_id} {part.component} itself took {number(part.critical_ms)} ms of the critical path, "
        f"{number(critical.get(longest, 0.0))} ms in “{_cut(span.operation, MAX_NAME)}”{waited}."
    )
    if part.failed:
        errors = ", ".join(dict.fromkeys(_cut(spans.spans[row].error, MAX_NAME) for row in part.failed[:MAX_EXAMPLES]))
        began = " The failure began there." if part.began else " A span below it failed, too."
        summary += f" {len(part.failed)} of its {len(part.rows)} spans failed: {errors}.{began}"
    shown = dict.fromkeys((longest, *part.failed))
    return _finding(
        answer,
        kind="trace",
        component=part.component,
        signal=span.operation,
        at=moment(float(spans.start_s[longest])),
        observed=part.critical_ms,
        unit="ms",
        effect=part.critical_ms / max(sum(critical.values()), 1e-9),
        summary=summary,
        excerpt="\n".join(verbatim(spans, row) for row in list(shown)[:MAX_EXAMPLES]),
        instance=span.instance,
        worse="up" if part.failed else "neutral",
    )


def _longest(critical: dict[int, float]) -> list[tuple[int, float]]:
    """The steps that took most, in the order in which they came."""
    most = sorted(critical, key=lambda row: (-critical[row], row))[:MAX_STEPS]
    return [(row, ms) for row, ms in critical.items() if row in most]


def _step(spans: SpanTable, row: int, ms: float) -> str:
    span = spans.spans[row]
    return f"{span.component} {_cut(span.operation, MAX_NAME // 2)} {number(ms)} ms"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
