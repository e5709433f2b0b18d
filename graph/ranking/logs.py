"""What the logs say: new, more frequent and vanished templates, and changed order of lines inside spans."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp

from collectors.base import LogLine, Span, template
from graph.ranking.deviation import REPORTED, SEVERITY, Deviation, excerpt, gain, number, surely
from graph.ranking.windows import Windows

_LINE_IN_LOGGER = re.compile(r"[#:]\d+$")
MIN_STRENGTH = 0.02  # below it a deviation is noise that only costs time
BLAME_PASSES_DOWN = 0.25
"""A deeper deviant span takes the blame if it deviates at least this fraction as much as the one above it: a fault is
loudest where it is reported, not where it happens; but a whisper below must not silence a shout above."""
EARLY_END = 0.7  # between warning and error: a missing next line is how a silent failure looks
MIN_EXPECTED = 3.0  # lines: to see none of them by chance happens once in twenty, the usual level of significance
UNKNOWN_BEFORE = 0.3
"""What a new line says about a component that logged nothing in the baseline: perhaps nobody called it then."""
SpanId = tuple[str, str]  # trace id, span id
START, END = "(start)", "(end)"


def key(line: LogLine) -> str:
    """What makes two lines the same: logger and line number where known, else the masked message."""
    if _LINE_IN_LOGGER.search(line.logger):
        return line.logger
    masked = template(line.message)
    return f"{line.logger} {masked}" if line.logger else masked


def deviations(lines: Iterable[tuple[str, LogLine]], spans: Sequence[Span], windows: Windows) -> list[Deviation]:
    """All that departs in the logs; ``lines`` come with the name of their source."""
    kept = sorted(lines, key=lambda pair: (pair[1].at, pair[1].component, key(pair[1]), pair[1].message))
    shifts, explained = transition_shifts(kept, spans, windows)
    return [*template_shifts(kept, windows, explained), *shifts]


# --- templates ----------------------------------------------------------------------------------------------------


@dataclass
class _Group:
    """Lines of one component that share a key."""

    incident: int = 0
    baseline: int = 0
    traced: int = 0  # of those in the baseline, lines that belong to a span
    explained: int = 0  # of those in the incident, lines of spans below which another span deviates
    sample: LogLine | None = None  # the first in the incident window, or the last in the baseline
    source: str = ""
    level: float = 0.0


def template_shifts(
    lines: Sequence[tuple[str, LogLine]], windows: Windows, explained: Set[SpanId] = frozenset()
) -> list[Deviation]:
    """New and more frequent templates; ``explained`` are spans with a deeper culprit.

    A warning or an error that goes away is no symptom.
    """
    groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)
    volume: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for source, line in lines:
        at = line.at.timestamp()
        now, then = windows.in_incident(at), windows.in_baseline(at)
        if not now and not then:
            continue
        group = groups[line.component, key(line)]
        group.level = max(group.level, SEVERITY[line.level])
        volume[line.component][now] += line.count
        if now:
            group.incident += line.count
            group.explained += line.count * ((line.trace_id, line.span_id) in explained)
            if group.incident == line.count or group.sample is None:
                group.sample, group.source = line, source
        else:
            group.baseline += line.count
            group.traced += line.count * bool(line.span_id)
            if not group.incident:
                group.sample, group.source = line, source
    ordinary = _ordinary(groups)
    found = [_template_shift(c, k, g, volume[c], windows) for (c, k), g in sorted(groups.items())]
    found += [_gone(c, k, g, ordinary[c], windows) for (c, k), g in sorted(groups.items())]
    return [d for d in found if d is not None]


def _ordinary(groups: Mapping[tuple[str, str], _Group]) -> dict[str, tuple[int, int]]:
    """By component the lines below warning, in the baseline and in the incident."""
    counts: defaultdict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for (component, _), group in groups.items():
        then, now = counts[component]
        if group.level < SEVERITY["warning"]:
            counts[component] = then + group.baseline, now + group.incident
    return {component: counts[component] for component, _ in groups}


def _gone(component: str, signal: str, group: _Group, ordinary: tuple[int, int], windows: Windows) -> Deviation | None:
    """An ordinary line that no longer comes, though its component goes on logging.

    Not for lines of a span, where transitions know the context, nor for warnings: one that goes away is no symptom.
    """
    then, now = ordinary
    if group.sample is None or group.incident or group.traced or group.level >= SEVERITY["warning"]:
        return None
    expected = group.baseline / then * now
    strength = SEVERITY["warning"] ** 2 * (1.0 - exp(-expected))  # Poisson: how unlikely it is to see none
    if expected < MIN_EXPECTED:
        return None
    text = template(group.sample.message)[:100]
    return Deviation(
        component=component,
        kind="log",
        channel="log",
        signal=signal,
        strength=strength,
        at_s=windows.incident[0],
        observed=0.0,
        baseline=group.baseline / windows.baseline_minutes,
        unit="lines/min",
        effect=expected,
        summary=f"{component} no longer logs “{text}”: about {number(expected)} lines were expected, none came.",
        excerpt=excerpt(group.sample.message),
        source=group.source,
        worse="down",
    )


def _template_shift(
    component: str, signal: str, group: _Group, volume: Sequence[int], windows: Windows
) -> Deviation | None:
    if group.sample is None or not group.incident:
        return None
    # Out of context a line says less than in its place inside a request: its level counts squared.
    strength = group.level**2 * _increase(group, volume, windows)
    strength *= 1.0 - (1.0 - REPORTED) * group.explained / group.incident
    if not volume[0]:
        strength *= UNKNOWN_BEFORE
    if strength < MIN_STRENGTH:
        return None
    now = group.incident / windows.incident_minutes
    then = group.baseline / windows.baseline_minutes
    was = f"{number(then)}/min before" if group.baseline else "never seen in the baseline"
    return Deviation(
        component=component,
        kind="log",
        channel="log",
        signal=signal,
        strength=strength,
        at_s=group.sample.at.timestamp(),
        inherited=True,
        observed=now,
        baseline=then,
        unit="lines/min",
        effect=(now - then) / (then + 1.0 / windows.baseline_minutes),
        summary=(
            f"{component} logged {group.incident} {group.sample.level} line(s) like "
            f"“{template(group.sample.message)[:100]}” ({number(now)}/min, {was})."
        ),
        excerpt=excerpt(group.sample.message),
        source=group.source,
    )


def _increase(group: _Group, volume: Sequence[int], windows: Windows) -> float:
    """0..1: how surely the template became more frequent, both per minute and among the component's lines.

    Two measures must agree: more traffic multiplies all lines alike, and a sampled source keeps shares or rates
    but not both.
    """
    now = group.incident / windows.incident_minutes
    then = (group.baseline + 0.5) / windows.baseline_minutes  # half a line: what an unseen template may hide
    by_time = max(0.0, 1.0 - then / now)
    by_share = gain(group.incident, volume[1], group.baseline, volume[0]) / max(group.incident / volume[1], 1e-9)
    few = group.incident / (group.incident + 1.0)  # one line proves half
    return min(by_time, by_share if volume[0] else by_time) * few


# --- transitions --------------------------------------------------------------------------------------------------

_Says = Callable[[str, str], float]  # component, line -> severity
_Step = tuple[str, str, str]  # component, line A, line B that came next in the same span


@dataclass
class _Counts:
    """How often each line was followed by each."""

    steps: Counter[_Step] = field(default_factory=Counter)
    starts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, steps: Iterable[_Step]) -> None:
        for step in steps:
            self.steps[step] += 1
            self.starts[step[0], step[1]] += 1


@dataclass(frozen=True, eq=False)
class _Walk:
    """The lines of one span in their order."""

    component: str
    trace_id: str
    span_id: str
    steps: list[_Step]
    lines: list[LogLine]
    at_s: float
    source: str


def transition_shifts(
    lines: Sequence[tuple[str, LogLine]], spans: Sequence[Span], windows: Windows
) -> tuple[list[Deviation], set[SpanId]]:
    """Inside a span, "after line A comes line B" at a changed rate, blamed on the deepest deviant span of a trace.

    Also the ids of all spans that have a deviant span below them.
    """
    severity: dict[tuple[str, str], float] = {}
    for _, line in lines:
        at = (line.component, key(line))
        severity[at] = max(severity.get(at, 0.0), SEVERITY[line.level])
    walks = _walks(lines, spans)
    base, now = _Counts(), _Counts()
    current = []
    for walk in walks:
        if windows.in_incident(walk.at_s):
            now.add(walk.steps)
            current.append(walk)
        elif windows.in_baseline(walk.at_s):
            base.add(walk.steps)
    if not base.steps:
        return [], set()
    weights = _step_weights(base, now, severity)
    parents = _parents(spans)
    deviant = {w: step for w in current if (step := _worst_step(w, weights)) is not None}
    depth = {(w.trace_id, w.span_id): weights[step] for w, step in deviant.items()}
    return _blamed(deviant, weights, _explained_by_deeper(depth, parents), base, now), _above(depth, parents)


def _walks(lines: Sequence[tuple[str, LogLine]], spans: Sequence[Span]) -> list[_Walk]:
    operation = {(s.trace_id, s.span_id): s for s in spans}
    by_span: defaultdict[tuple[str, str, str], list[tuple[str, LogLine]]] = defaultdict(list)
    for source, line in lines:
        if line.span_id:
            by_span[line.trace_id, line.span_id, line.component].append((source, line))
    talkative = {(s.component, s.operation) for ids in by_span if (s := operation.get((ids[0], ids[1]))) is not None}
    walks = []
    for (trace, span_id, component), found in sorted(by_span.items()):
        span = operation.get((trace, span_id))
        walks.append(_walk(component, trace, span_id, found, span))
    silent = [
        s
        for s in spans
        if (s.component, s.operation) in talkative and (s.trace_id, s.span_id, s.component) not in by_span
    ]
    walks.extend(_walk(s.component, s.trace_id, s.span_id, [], s) for s in silent)
    return walks


def _walk(component: str, trace: str, span_id: str, found: Sequence[tuple[str, LogLine]], span: Span | None) -> _Walk:
    lines = [line for _, line in found]
    # START carries the operation: which line comes first depends on what was called
    names = [f"{START} {span.operation}" if span else START, *(key(line) for line in lines), END]
    return _Walk(
        component=component,
        trace_id=trace,
        span_id=span_id,
        steps=[(component, a, b) for a, b in pairwise(names)],
        lines=lines,
        at_s=lines[0].at.timestamp() if lines else span.start_s if span else 0.0,
        source=found[0][0] if found else "",
    )


def _step_weights(base: _Counts, now: _Counts, severity: Mapping[tuple[str, str], float]) -> dict[_Step, float]:
    """Gained transitions with their weight 0..1. A lost line shows as a gain of whatever came in its place."""

    def says(component: str, name: str) -> float:
        return EARLY_END if name == END else severity.get((component, name), 0.0)

    displaced = _displaced(base, now, says)
    weights = {}
    for step, hits in now.steps.items():
        component, first, second = step
        origin = (component, first)
        up = surely(hits, now.starts[origin], base.steps[step], base.starts[origin])
        level = says(component, second)
        # an error that goes away, or a branch from WARN to INFO, is no symptom
        if up > MIN_STRENGTH and base.starts[origin] and level >= displaced.get(origin, 0.0):
            weights[step] = up * level
    return weights


def _displaced(base: _Counts, now: _Counts, says: _Says) -> dict[tuple[str, str], float]:
    """By line A: the severity of the follower that lost most."""
    losses: dict[tuple[str, str], tuple[float, str]] = {}
    for (component, first, second), hits in base.steps.items():
        origin = (component, first)
        if not now.starts[origin]:
            continue
        loss = hits / base.starts[origin] - now.steps[component, first, second] / now.starts[origin]
        losses[origin] = max(losses.get(origin, (0.0, "")), (loss, second))
    return {origin: 0.0 if second in ("", END) else says(origin[0], second) for origin, (_, second) in losses.items()}


def _parents(spans: Sequence[Span]) -> dict[tuple[str, str], tuple[str, str]]:
    return {(s.trace_id, s.span_id): (s.trace_id, s.parent_id) for s in spans if s.parent_id}


def _blamed(
    deviant: Mapping[_Walk, _Step],
    weights: Mapping[_Step, float],
    explained: Set[SpanId],
    base: _Counts,
    now: _Counts,
) -> list[Deviation]:
    """For each gained transition a deviation where it is the deepest of its trace, another where it is not."""
    charges: defaultdict[tuple[_Step, bool], list[_Walk]] = defaultdict(list)
    for walk, step in deviant.items():
        charges[step, (walk.trace_id, walk.span_id) in explained].append(walk)
    return [
        _transition(step, inherited, walks, weights[step], base, now)
        for (step, inherited), walks in sorted(charges.items(), key=lambda item: item[0])
    ]


def _worst_step(walk: _Walk, weights: Mapping[_Step, float]) -> _Step | None:
    gained = [step for step in walk.steps if weights.get(step, 0.0) >= MIN_STRENGTH]
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
        excerpt=_excerpt(walk, step),
        source=walk.source,
    )


def _excerpt(walk: _Walk, step: _Step) -> str:
    """The lines the transition runs between."""
    lines = [line.message for line in walk.lines if key(line) in step[1:]]
    return excerpt("\n".join(lines[:2]))
