"""Order of lines inside spans: "after line A comes line B" at a changed rate. How code faults show without an error."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from collectors.base import LogLine, Span
from graph.ranking.deviation import BLAME_PASSES_DOWN, MIN_STRENGTH, REPORTED, SEVERITY, Deviation, excerpt, surely
from graph.ranking.templates import NOW, THEN, Lines, SpanOf, Told, windows_by_moment
from graph.ranking.topology import SpanId, by_id
from graph.ranking.windows import Windows

EARLY_END = 0.7  # between warning and error: a missing next line is how a silent failure looks
START, END = "(start)", "(end)"
_Path = tuple[str, ...]  # component, and what its lines say from START to END
_Step = tuple[str, str, str]  # component, line A, line B that came next in the same span


@dataclass
class _Counts:
    """How often each line was followed by each."""

    steps: Counter[_Step] = field(default_factory=Counter)
    starts: Counter[tuple[str, str]] = field(default_factory=Counter)

    @classmethod
    def of(cls, paths: Mapping[_Path, int]) -> "_Counts":
        counts = cls()
        for path, walks in paths.items():
            for step in _steps(path):
                counts.steps[step] += walks
                counts.starts[step[:2]] += walks
        return counts


class _Walk(NamedTuple):
    """The lines of one span in their order."""

    trace_id: str
    span_id: str
    at_s: float
    told: Sequence[Told]


def transition_shifts(lines: Lines, spans: Sequence[Span], windows: Windows) -> tuple[list[Deviation], set[SpanId]]:
    """Inside a span, "after line A comes line B" at a changed rate, blamed on the deepest deviant span of a trace.

    Also the ids of all spans that have a deviant span below them.
    """
    known = by_id(spans) if lines.by_span else {}
    current, normal = _walks(lines, spans, known, windows)
    base, now = _Counts.of(normal), _Counts.of({path: len(walks) for path, walks in current.items()})
    if not base.steps:
        return [], set()
    weights = _step_weights(base, now, _severity(lines))
    deviant = {path: step for path in current if (step := _worst_step(path, weights)) is not None}
    if not deviant:
        return [], set()
    depth: dict[SpanId, float] = {}
    for path, step in deviant.items():
        for walk in current[path]:
            span_id = walk.trace_id, walk.span_id
            depth[span_id] = max(depth.get(span_id, 0.0), weights[step])
    parents = {span_id: (s.trace_id, s.parent_id) for span_id, s in known.items() if s.parent_id}
    explained = _explained_by_deeper(depth, parents)
    charges: defaultdict[tuple[_Step, bool], list[_Walk]] = defaultdict(list)
    for path, step in deviant.items():
        for walk in current[path]:
            charges[step, (walk.trace_id, walk.span_id) in explained].append(walk)
    found = [
        _transition(step, inherited, walks, weights[step], base, now)
        for (step, inherited), walks in sorted(charges.items(), key=lambda item: item[0])
    ]
    return found, _above(depth, parents)


def _severity(lines: Lines) -> dict[tuple[str, str], float]:
    """By component and line the worst level it came with."""
    worst: dict[tuple[str, str], float] = {}
    for text in lines.texts:
        line = text.component, text.name
        worst[line] = max(worst.get(line, 0.0), SEVERITY[text.level])
    return worst


def _walks(
    lines: Lines, spans: Sequence[Span], known: Mapping[SpanId, Span], windows: Windows
) -> tuple[Mapping[_Path, list[_Walk]], Mapping[_Path, int]]:
    """By path the walks of the incident, and how many there were in the baseline.

    Spans of operations that log elsewhere are walks without a line.
    """
    current: defaultdict[_Path, list[_Walk]] = defaultdict(list)
    normal = Counter[_Path]()
    which = windows_by_moment(windows)

    def add(component: str, trace: str, span_id: str, told: list[Told], span: Span | None) -> None:
        at_s = told[0][0] if told else span.start_s if span else 0.0
        window = which(at_s)
        if window != NOW and window != THEN:
            return
        # START carries the operation: which line comes first depends on what was called
        start = f"{START} {span.operation}" if span else START
        path = (component, start, *[text.name for _, text, _ in told], END)
        if window == NOW:
            current[path].append(_Walk(trace, span_id, at_s, told))
        else:
            normal[path] += 1

    talkative = set()
    for (trace, span_id, component), told in lines.by_span.items():
        span = known.get((trace, span_id))
        if span is not None:
            talkative.add((span.component, span.operation))
        add(component, trace, span_id, sorted(told, key=_moment) if len(told) > 1 else told, span)
    silent: dict[tuple[SpanOf, str], Span] = {}  # each once, though several sources or answers tell of it
    for span in spans if talkative else ():
        of: SpanOf = (span.trace_id, span.span_id, span.component)
        if (span.component, span.operation) in talkative and of not in lines.by_span and windows.hold(span.start_s):
            first = silent.setdefault((of, span.operation), span)
            if span.start_s < first.start_s:
                silent[of, span.operation] = span
    for span in silent.values():
        add(span.component, span.trace_id, span.span_id, [], span)
    return current, normal


def _moment(told: Told) -> tuple[float, str, str, str]:
    at, text, line = told
    return at, text.name, line.message, text.source


def _steps(path: _Path) -> Iterator[_Step]:
    return ((path[0], first, second) for first, second in pairwise(path[1:]))


def _step_weights(base: _Counts, now: _Counts, severity: Mapping[tuple[str, str], float]) -> dict[_Step, float]:
    """Gained transitions with their weight 0..1. A lost line shows as a gain of whatever came in its place."""
    displaced = _displaced(base, now, severity)
    weights = {}
    for step, hits in now.steps.items():
        component, first, second = step
        origin = (component, first)
        up = surely(hits, now.starts[origin], base.steps[step], base.starts[origin])
        level = EARLY_END if second == END else severity.get((component, second), 0.0)
        # an error that goes away, or a branch from WARN to INFO, is no symptom
        if up > MIN_STRENGTH and base.starts[origin] and level >= displaced.get(origin, 0.0):
            weights[step] = up * level
    return weights


def _displaced(base: _Counts, now: _Counts, severity: Mapping[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    """By line A: the severity of the follower that lost most."""
    losses: dict[tuple[str, str], tuple[float, str]] = {}
    for (component, first, second), hits in base.steps.items():
        origin = (component, first)
        if not now.starts[origin]:
            continue
        loss = hits / base.starts[origin] - now.steps[component, first, second] / now.starts[origin]
        losses[origin] = max(losses.get(origin, (0.0, "")), (loss, second))
    return {origin: severity.get((origin[0], second), 0.0) for origin, (_, second) in losses.items()}


def _worst_step(path: _Path, weights: Mapping[_Step, float]) -> _Step | None:
    gained = [step for step in _steps(path) if weights.get(step, 0.0) >= MIN_STRENGTH]
    return min(gained, key=lambda step: (-weights[step], step)) if gained else None


def _explained_by_deeper(weight: Mapping[SpanId, float], parents: Mapping[SpanId, SpanId]) -> set[SpanId]:
    """Deviant spans with a descendant that deviates enough to take their blame."""
    explained = set()
    for span, deep in weight.items():
        for above in _ancestors(span, parents):
            if above in weight and deep >= BLAME_PASSES_DOWN * weight[above]:
                explained.add(above)
    return explained


def _above(spans: Iterable[SpanId], parents: Mapping[SpanId, SpanId]) -> set[SpanId]:
    return {above for span in spans for above in _ancestors(span, parents)}


def _ancestors(span: SpanId, parents: Mapping[SpanId, SpanId]) -> Iterator[SpanId]:
    seen, above = {span}, parents.get(span)
    while above is not None and above not in seen:
        yield above
        seen.add(above)
        above = parents.get(above)


def _transition(
    step: _Step, inherited: bool, walks: Sequence[_Walk], weight: float, base: _Counts, now: _Counts
) -> Deviation:
    component, first, second = step
    origin = (component, first)
    observed = now.steps[step] / now.starts[origin]
    before = base.steps[step] / base.starts[origin]
    hit = len({w.trace_id for w in walks})
    walk = min(walks, key=lambda w: (w.at_s, w.trace_id, w.span_id))
    return Deviation(
        component=component,
        kind="log",
        channel="transition",
        signal=f"{first} → {second}",
        # one request proves half, two two thirds: few weigh less, but are never nothing
        strength=weight * hit / (hit + 1.0) * (REPORTED if inherited else 1.0),
        at_s=walk.at_s,
        inherited=inherited,
        observed=observed,
        baseline=before,
        unit="share",
        effect=observed - before,
        summary=(
            f"Inside a request, {component} went from “{first}” straight to “{second}” in {observed:.0%} of "
            f"{now.starts[origin]} cases, {before:.0%} before, in {hit} traces."
        ),
        excerpt=excerpt("\n".join(line.message for line in _between(walk, step))),
        source=walk.told[0][1].source if walk.told else "",
    )


def _between(walk: _Walk, step: _Step) -> list[LogLine]:
    """The lines the transition runs between."""
    names = ["", *(text.name for _, text, _ in walk.told), END]
    lines = [None, *(line for _, _, line in walk.told), None]
    for i, (first, second) in enumerate(pairwise(names)):
        if second == step[2] and first in (step[1], ""):
            return [line for line in lines[i : i + 2] if line is not None]
    return []
