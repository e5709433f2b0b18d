"""What the traces say: failing spans, time spent in a component itself, and time lost between two of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import pairwise
from math import isfinite

from collectors.base import Span
from graph.ranking.deviation import REPORTED, Deviation, excerpt, gain, number, surely
from graph.ranking.metrics import MAD_TO_SIGMA, MIN_DEVIATION, median
from graph.ranking.windows import Windows

MIN_STRENGTH = 0.02  # below it a deviation is noise that only costs time
MIN_EXCESS_MS = 5.0  # schedulers and garbage collectors cost that much on a good day
RELATIVE_FLOOR = 0.25
"""A span's spread is at least this share of its norm: half a minute of spans is no distribution."""
NOTICEABLE = 0.1  # of a request's time: less of a delay no user notices
LOSER_SHARE = 0.25
"""What is left of an edge's trouble at the end that is hit less: from one edge alone nobody can be sure."""

Edge = tuple[str, str]  # caller, callee
SpanId = tuple[str, str]  # trace id, span id


@dataclass(frozen=True)
class _Traces:
    """Spans of both windows, indexed."""

    spans: tuple[Span, ...]
    source: Mapping[SpanId, str]
    by_id: Mapping[SpanId, Span]
    children: Mapping[SpanId, tuple[Span, ...]]
    windows: Windows
    now: frozenset[str]  # trace ids that begin in the incident window
    then: frozenset[str]  # … in a baseline window

    def edge(self, span: Span) -> Edge | None:
        """Caller and callee if the span is a call to another component."""
        for child in self.children.get((span.trace_id, span.span_id), ()):
            if child.component != span.component:
                return span.component, child.component
        return (span.component, span.peer) if span.kind == "client" and span.peer else None

    def is_now(self, span: Span) -> bool | None:
        """True in the incident, False in the baseline, None in neither."""
        if span.trace_id in self.now:
            return True
        return False if span.trace_id in self.then else None


def deviations(spans: Iterable[tuple[str, Span]], windows: Windows) -> list[Deviation]:
    """All that departs in the traces; ``spans`` come with the name of their source."""
    traces = index(spans, windows)
    if not traces.now:
        return []
    found = [*_errors(traces), *_times(traces)]
    return [d for d in found if d.strength >= MIN_STRENGTH]


def index(spans: Iterable[tuple[str, Span]], windows: Windows) -> _Traces:
    """Spans by id, parent and window; a trace belongs to the window it begins in."""
    sound = [(source, s) for source, s in spans if isfinite(s.start_s) and isfinite(s.duration_ms)]
    ordered = sorted(sound, key=lambda pair: (pair[1].start_s, pair[1].trace_id, pair[1].span_id))
    begin: dict[str, float] = {}
    children: defaultdict[SpanId, list[Span]] = defaultdict(list)
    for _, span in ordered:
        begin.setdefault(span.trace_id, span.start_s)
        if span.parent_id:
            children[span.trace_id, span.parent_id].append(span)
    return _Traces(
        spans=tuple(span for _, span in ordered),
        source={(s.trace_id, s.span_id): source for source, s in ordered},
        by_id={(s.trace_id, s.span_id): s for _, s in ordered},
        children={parent: tuple(found) for parent, found in children.items()},
        windows=windows,
        now=frozenset(t for t, at in begin.items() if windows.in_incident(at)),
        then=frozenset(t for t, at in begin.items() if windows.in_baseline(at)),
    )


# --- failing spans ------------------------------------------------------------------------------------------------


@dataclass
class _Tally:
    """Spans of one place (a component's operation, or an edge) in both windows."""

    calls: int = 0
    hits: int = 0
    base_calls: int = 0
    base_hits: int = 0
    first: Span | None = None

    def add(self, hit: bool, now: bool, span: Span) -> None:
        if now:
            self.calls += 1
            self.hits += hit
            if hit and self.first is None:
                self.first = span
        else:
            self.base_calls += 1
            self.base_hits += hit

    def merge(self, other: "_Tally") -> None:
        self.calls += other.calls
        self.hits += other.hits
        self.base_calls += other.base_calls
        self.base_hits += other.base_hits

    @property
    def gain(self) -> float:
        return gain(self.hits, self.calls, self.base_hits, self.base_calls)


def _errors(traces: _Traces) -> list[Deviation]:
    """Failing spans, charged to the deepest failing span of each branch."""
    failed = {(s.trace_id, s.span_id) for s in traces.spans if s.error}
    reported = _ancestors(failed, traces.by_id)
    own: defaultdict[tuple[str, str], _Tally] = defaultdict(_Tally)
    passed_on: defaultdict[tuple[str, str], _Tally] = defaultdict(_Tally)
    edges: defaultdict[Edge, _Tally] = defaultdict(_Tally)
    for span in traces.spans:
        now = traces.is_now(span)
        if now is None:
            continue
        this = (span.trace_id, span.span_id)
        edge = traces.edge(span)
        deepest = bool(span.error) and this not in reported
        if edge is not None:
            edges[edge].add(deepest, now, span)
        else:
            own[span.component, span.operation].add(deepest, now, span)
        if not deepest:
            passed_on[span.component, span.operation].add(bool(span.error), now, span)
    found = [_error(c, t, traces, inherited=False) for (c, _), t in sorted(own.items())]
    found += [_error(c, t, traces, inherited=True) for (c, _), t in sorted(passed_on.items())]
    blamed = _blamed_ends(edges)
    for edge, tally in sorted(edges.items()):
        found += [_edge_error(end, edge, tally, traces, end == blamed[edge]) for end in edge]
    return [d for d in found if d is not None]


def _ancestors(failed: set[SpanId], by_id: Mapping[SpanId, Span]) -> set[SpanId]:
    above: set[SpanId] = set()
    for trace, span_id in failed:
        here = by_id.get((trace, by_id[trace, span_id].parent_id))
        while here is not None and (trace, here.span_id) not in above:
            above.add((trace, here.span_id))
            here = by_id.get((trace, here.parent_id))
    return above


def _error(component: str, tally: _Tally, traces: _Traces, *, inherited: bool) -> Deviation | None:
    span = tally.first
    if span is None:
        return None
    observed, before = _share(tally.hits, tally.calls), _share(tally.base_hits, tally.base_calls)
    return Deviation(
        component=component,
        kind="trace",
        channel="error_span",
        signal=span.operation,
        strength=_surely(tally) * (REPORTED if inherited else 1.0),
        at_s=traces.windows.clamped(span.start_s),
        summary=(
            f"{tally.hits} of {tally.calls} spans “{span.operation}” of {component} failed with {span.error} "
            f"({observed:.0%}, {before:.0%} before)."
        ),
        inherited=inherited,
        observed=100.0 * observed,
        baseline=100.0 * before,
        unit="%",
        effect=observed - before,
        excerpt=_excerpt(span),
        source=traces.source[span.trace_id, span.span_id],
    )


def _edge_error(end: str, edge: Edge, tally: _Tally, traces: _Traces, blamed: bool) -> Deviation | None:
    span = tally.first
    if span is None:
        return None
    observed, before = _share(tally.hits, tally.calls), _share(tally.base_hits, tally.base_calls)
    return Deviation(
        component=end,
        kind="trace",
        channel="error_span",
        signal=f"{edge[0]} → {edge[1]}: {span.error}",
        strength=_surely(tally) * (1.0 if blamed else LOSER_SHARE),
        at_s=traces.windows.clamped(span.start_s),
        summary=(
            f"{tally.hits} of {tally.calls} calls of {edge[0]} to {edge[1]} failed with {span.error} "
            f"({observed:.0%}, {before:.0%} before)."
        ),
        observed=100.0 * observed,
        baseline=100.0 * before,
        unit="%",
        effect=observed - before,
        excerpt=_excerpt(span),
        source=traces.source[span.trace_id, span.span_id],
    )


def _surely(tally: _Tally) -> float:
    return surely(tally.hits, tally.calls, tally.base_hits, tally.base_calls)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _excerpt(span: Span) -> str:
    text = (
        f"{span.component} {span.operation} {span.kind} peer={span.peer} error={span.error} {span.duration_ms:.1f} ms"
    )
    return excerpt(f"{text} trace={span.trace_id}")


# --- time ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Excess:
    """A span that took longer than its norm."""

    span: Span
    ms: float
    norm_ms: float


@dataclass
class _Delay:
    """What one component adds to the requests that pass it, by trace."""

    visited: set[str] = field(default_factory=set)
    added_ms: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))


_Place = tuple[str, str, str]  # component, callee or "", operation


def _times(traces: _Traces) -> list[Deviation]:
    """Time above the norm, of components themselves and of the calls between them."""
    own_time = self_times(traces)
    places: defaultdict[_Place, list[tuple[Span, float]]] = defaultdict(list)
    for span in traces.spans:
        if traces.is_now(span) is not None:
            caller, callee = traces.edge(span) or (span.component, "")
            ms = own_time.get((span.trace_id, span.span_id), 0.0)
            places[caller, callee, span.operation].append((span, ms))
    any_call = [pair for place, spans in sorted(places.items()) if place[1] for pair in spans]
    tallies: dict[_Place, _Tally] = {}
    excesses: dict[_Place, list[_Excess]] = {}
    for place, spans in sorted(places.items()):
        tallies[place], excesses[place] = _excesses(spans, any_call if place[1] else (), traces)
    blamed = _blamed_ends(_by_edge(tallies))
    slowness = _slowness(excesses, blamed, traces)
    return _slow_places(tallies, excesses, blamed, slowness, traces)


def _excesses(
    spans: Sequence[tuple[Span, float]], similar: Sequence[tuple[Span, float]], traces: _Traces
) -> tuple[_Tally, list[_Excess]]:
    """The spans of one place whose time is above its norm in the baseline.

    A place not seen there is held to the norm of ``similar`` ones: what lies between two components is much alike.
    """
    tally, found = _Tally(), list[_Excess]()
    base = [ms for span, ms in spans if not traces.is_now(span)]
    base = base or [ms for span, ms in similar if not traces.is_now(span)]
    if not base:
        return tally, found
    norm = median(base)
    spread = MAD_TO_SIGMA * median([abs(ms - norm) for ms in base])
    limit = norm + MIN_DEVIATION * max(spread, RELATIVE_FLOOR * norm) + MIN_EXCESS_MS
    for span, ms in spans:
        tally.add(ms > limit, bool(traces.is_now(span)), span)
        if ms > limit:
            found.append(_Excess(span, ms - norm, norm))
    return tally, found


def _by_edge(tallies: Mapping[_Place, _Tally]) -> dict[Edge, _Tally]:
    edges: defaultdict[Edge, _Tally] = defaultdict(_Tally)
    for (caller, callee, _), tally in tallies.items():
        if callee:
            edges[caller, callee].merge(tally)
    return dict(edges)


def _slowness(
    excesses: Mapping[_Place, Sequence[_Excess]], blamed: Mapping[Edge, str], traces: _Traces
) -> dict[str, float]:
    """By component 0..1: in how many more of its requests it takes a good part of the time, and how large a part.

    By request and not by call, because ten calls of 100 ms are one second to the user; and as a part of the request,
    because a query that takes ten times its two milliseconds slows nobody.
    """
    delays: defaultdict[str, _Delay] = defaultdict(_Delay)
    for span in traces.spans:
        for component in traces.edge(span) or (span.component,):
            delays[component].visited.add(span.trace_id)
    for (caller, callee, _), found in excesses.items():
        component = blamed[caller, callee] if callee else caller
        for excess in found:
            delays[component].added_ms[excess.span.trace_id] += excess.ms
    lengths = _lengths(traces)
    return {component: _delay_strength(d, lengths, traces) for component, d in delays.items()}


def _delay_strength(delay: _Delay, lengths: Mapping[str, float], traces: _Traces) -> float:
    parts = {t: min(ms / max(lengths[t], ms), 1.0) for t, ms in delay.added_ms.items()}
    hit = {t: part for t, part in parts.items() if part >= NOTICEABLE}
    now = [part for t, part in sorted(hit.items()) if t in traces.now]
    if not now:
        return 0.0
    rise = surely(
        len(now),
        len(delay.visited & traces.now),
        len(hit.keys() & traces.then),
        max(len(delay.visited & traces.then), 1),  # one good request is assumed of a component that had none
    )
    return rise * sum(now) / len(now)


def _slow_places(
    tallies: Mapping[_Place, _Tally],
    excesses: Mapping[_Place, Sequence[_Excess]],
    blamed: Mapping[Edge, str],
    slowness: Mapping[str, float],
    traces: _Traces,
) -> list[Deviation]:
    """One deviation for each place and end, as strong as its part in what its component adds."""
    added = {p: sum(e.ms for e in found if traces.is_now(e.span)) for p, found in excesses.items()}
    most: dict[str, float] = {}
    for (caller, callee, _), ms in added.items():
        component = blamed[caller, callee] if callee else caller
        most[component] = max(most.get(component, 0.0), ms)
    found = []
    for place, ms in added.items():
        if ms:
            caller, callee, _ = place
            component = blamed[caller, callee] if callee else caller
            strength = slowness[component] * ms / most[component]
            now = [e for e in excesses[place] if traces.is_now(e.span)]
            deviation = _slow(component, place, now, tallies[place], strength, traces)
            found.append(deviation)
            if callee:
                other = callee if component == caller else caller
                found.append(replace(deviation, component=other, strength=LOSER_SHARE * strength))
    return found


def _slow(
    component: str,
    place: _Place,
    now: Sequence[_Excess],
    tally: _Tally,
    strength: float,
    traces: _Traces,
) -> Deviation:
    caller, callee, operation = place
    norm = now[0].norm_ms
    took = norm + sum(e.ms for e in now) / len(now)
    where = f"between {caller} and {callee}" if callee else f"in {caller} itself"
    first = now[0].span
    return Deviation(
        component=component,
        kind="trace",
        channel="time",
        signal=f"{caller} → {callee}: {operation}" if callee else operation,
        strength=strength,
        at_s=traces.windows.clamped(first.start_s),
        summary=(
            f"{number(took)} ms passed {where} in {tally.hits} of {tally.calls} spans “{operation}”, "
            f"normally {number(norm)} ms."
        ),
        observed=took,
        baseline=norm,
        unit="ms",
        effect=(took - norm) / max(norm, MIN_EXCESS_MS),
        excerpt=_excerpt(first),
        source=traces.source[first.trace_id, first.span_id],
    )


def self_times(traces: _Traces) -> dict[SpanId, float]:
    """Milliseconds of each span: every moment of a trace belongs to the open span that started last.

    "Duration minus children" would blame asynchronous gateways, whose spans stay open while others work.
    """
    by_trace: defaultdict[str, list[Span]] = defaultdict(list)
    for span in traces.spans:
        by_trace[span.trace_id].append(span)
    times: dict[SpanId, float] = {}
    for spans in by_trace.values():
        _sweep(spans, times)
    return times


def _sweep(spans: Sequence[Span], times: dict[SpanId, float]) -> None:
    """Spans ascend by start; of equal starts the shorter is the inner one."""
    ordered = sorted(spans, key=lambda s: (s.start_s, -s.duration_ms, s.span_id))
    moments = sorted({t for s in ordered for t in (s.start_s, s.start_s + s.duration_ms / 1000.0)})
    open_: list[tuple[int, float, SpanId]] = []
    upcoming = 0
    for begin, end in pairwise(moments):
        while upcoming < len(ordered) and ordered[upcoming].start_s <= begin:
            span = ordered[upcoming]
            heappush(open_, (-upcoming, span.start_s + span.duration_ms / 1000.0, (span.trace_id, span.span_id)))
            upcoming += 1
        while open_ and open_[0][1] <= begin:
            heappop(open_)
        if open_:
            owner = open_[0][2]
            times[owner] = times.get(owner, 0.0) + (end - begin) * 1000.0


def _lengths(traces: _Traces) -> dict[str, float]:
    """Milliseconds from a trace's first start to its last end."""
    ends: dict[str, float] = {}
    begins: dict[str, float] = {}
    for span in traces.spans:
        begins.setdefault(span.trace_id, span.start_s)
        end = span.start_s + span.duration_ms / 1000.0
        ends[span.trace_id] = max(ends.get(span.trace_id, end), end)
    return {trace: (end - begins[trace]) * 1000.0 for trace, end in ends.items()}


# --- which end of an edge -----------------------------------------------------------------------------------------


def _blamed_ends(edges: Mapping[Edge, _Tally]) -> dict[Edge, str]:
    """For each edge the end with more of its calls hit.

    A component in trouble with several neighbours is the common end of those edges, and comes first.
    """
    calls, hits, neighbours = Counter[str](), Counter[str](), defaultdict[str, set[str]](set)
    for edge, tally in edges.items():
        for end, other in (edge, edge[::-1]):
            calls[end] += tally.calls
            hits[end] += tally.hits
            if tally.gain > MIN_STRENGTH:
                neighbours[end].add(other)
    return {
        edge: max(edge, key=lambda end: (len(neighbours[end]), _share(hits[end], calls[end]), end == edge[1]))
        for edge in edges
    }
