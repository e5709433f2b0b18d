"""Spans as columns: whose child each is, which request it belongs to, on clocks that agree, in which window."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress, repeat
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from collectors.base import Span
from graph.ranking.windows import Windows

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_EPOCH_S = 1e11  # the year 5138: what lies beyond is no time, and would overflow
MAX_DURATION_MS = 1e12  # thirty years
NONE = -1  # no parent, no callee, no window
NOW, THEN = 1, 0  # in the incident, in a baseline
_KINDS = {kind: code for code, kind in enumerate(("internal", "server", "client", "producer", "consumer"))}
_CLIENT, _PRODUCER, _CONSUMER = _KINDS["client"], _KINDS["producer"], _KINDS["consumer"]


@dataclass(frozen=True, eq=False)
class SpanTable:
    """One row a span, by trace (the earliest first), then by start; every column has the same length.

    Rows that name a row hold its number, or ``NONE``. A *segment* is what one request does while somebody waits for
    it: a trace, less what consumers of its messages do, which are segments of their own.
    """

    spans: Sequence[Span]
    sources: Sequence[str]
    names: Sequence[str]  # components and peers by their code
    component: Ints
    operation: Ints
    instance: Ints
    kind: Ints
    peer: Ints
    start_s: Floats  # aligned with the caller's clock
    end_s: Floats
    failed: Mask
    parent: Ints
    orphan: Mask  # has a parent, but nobody knows it
    asynchronous: Mask  # started by a message: its parent does not wait for it
    wait_s: Floats  # from the end of the parent to the start of an asynchronous span
    segment: Ints
    window: Ints  # of the segment: NOW, THEN or NONE
    windows: Windows

    def __len__(self) -> int:
        return len(self.spans)

    @cached_property
    def code(self) -> Mapping[str, int]:
        """Of each component and peer."""
        return {name: code for code, name in enumerate(self.names)}

    @cached_property
    def instance_share(self) -> Floats:
        """By row, which part of its component's spans in the incident are of its instance."""
        mine, first = groups(self.component, self.instance)
        now = (self.window == NOW).astype(np.float64)
        of_instance = np.bincount(mine, now, len(first))[mine]
        of_component = np.bincount(self.component, now, len(self.names))[self.component]
        return of_instance / np.maximum(of_component, 1.0)

    @cached_property
    def waiting_parent(self) -> Ints:
        """The parent that waits for the span."""
        return np.where(self.asynchronous, NONE, self.parent)

    @cached_property
    def crosses(self) -> Mask:
        """Whether the parent is of another component."""
        elsewhere: Mask = self.component[self.parent] != self.component
        return elsewhere & (self.parent >= 0)

    @cached_property
    def answer(self) -> Ints:
        """The first span of another component that a span waits for: what its call is on the other side."""
        found = np.full(len(self), NONE)
        rows = np.flatnonzero(self.crosses & ~self.asynchronous)[::-1]
        found[self.parent[rows]] = rows
        return found

    @cached_property
    def callee(self) -> Ints:
        """The component that a span calls: who answers it, else whom it names."""
        named = np.where(calls_out(self.kind) & (self.peer != self.component), self.peer, NONE)
        return np.where(self.answer >= 0, self.component[self.answer], named)

    @cached_property
    def entry(self) -> Ints:
        """The span by which the request came into the component: the topmost of its own component."""
        inner = np.where(self.crosses, NONE, self.waiting_parent)
        return _tops(inner)

    @cached_property
    def deepest_first(self) -> Ints:
        """All rows, each before its parent."""
        return np.argsort(-_sums(self.parent, np.ones(len(self))), kind="stable")

    def highest_below(self, values: Floats) -> Floats:
        """For each span the largest value of all that it waited for, directly or not; 0 if there is none."""
        parents, below, own = self.waiting_parent.tolist(), [0.0] * len(self), values.tolist()
        concerned = self._with_ancestors(values > 0.0)
        for row in self.deepest_first[concerned[self.deepest_first]].tolist():
            parent = parents[row]
            if parent >= 0:
                below[parent] = max(below[parent], below[row], own[row])
        return np.array(below, dtype=np.float64)

    def _with_ancestors(self, some: Mask) -> Mask:
        found, new = some.copy(), np.flatnonzero(some)
        while len(new):
            new = np.unique(self.waiting_parent[new])
            new = new[(new >= 0) & ~found[new]]
            found[new] = True
        return found


def calls_out(kind: Ints) -> Mask:
    """Whether a span of that kind calls another component, or sends it a message."""
    return np.isin(kind, (_CLIENT, _PRODUCER))


def table(spans: Iterable[tuple[str, Span]], windows: Windows) -> SpanTable:
    """Index the spans, which come with the name of their source.

    Spans without a possible time are left out, as are repeated ones. Links that lead into a cycle are no ancestry.
    """
    rows, by_id = _unique(_ordered(_sound(list(spans))))
    found = [span for _, span in rows]
    size, traces = len(found), _texts("trace_id", found)
    trace, _ = codes(traces)
    above = map(by_id.get, zip(traces, _texts("parent_id", found), strict=True), repeat(NONE))
    parent = np.fromiter(above, np.int64, size)
    parent = _acyclic(np.where(parent == np.arange(size), NONE, parent))
    peers = _texts("peer", found)
    both, names = codes(_texts("component", found) + peers)
    component, peer = both[:size], np.where(_given(peers), both[size:], NONE)
    kind = np.fromiter(map(_KINDS.__getitem__, map(attrgetter("kind"), found)), np.int64, size)
    instance, _ = codes([s.instance or s.component for s in found])
    begin = _numbers("start_s", found)
    end = begin + np.maximum(_numbers("duration_ms", found), 0.0) / 1000.0
    asynchronous = _asynchronous(kind, component, parent)
    waits_for = np.where(asynchronous, NONE, parent)
    shift = _skew(begin, end, waits_for, component, instance)
    segment = _segments(waits_for, trace, asynchronous | ((kind == _CONSUMER) & (parent < 0)))
    return SpanTable(
        spans=found,
        sources=[source for source, _ in rows],
        names=names,
        component=component,
        operation=codes(_texts("operation", found))[0],
        instance=instance,
        kind=kind,
        peer=peer,
        start_s=begin + shift,
        end_s=end + shift,
        failed=_given(_texts("error", found)),
        orphan=_given(_texts("parent_id", found)) & (parent < 0),
        parent=parent,
        asynchronous=asynchronous,
        wait_s=np.where(asynchronous, np.maximum(begin - end[parent], 0.0), 0.0),
        segment=segment,
        window=_windows(segment, begin + shift, windows),
        windows=windows,
    )


def codes(values: Sequence[str]) -> tuple[Ints, list[str]]:
    """A number for each different value, by first appearance, and the values by number."""
    names = list(dict.fromkeys(values))
    numbers = dict(zip(names, range(len(names)), strict=True))
    return np.fromiter(map(numbers.__getitem__, values), np.int64, len(values)), names


def _texts(field: str, spans: Sequence[Span]) -> list[str]:
    return list(map(attrgetter(field), spans))


def _given(texts: Sequence[str]) -> Mask:
    return np.fromiter(map(bool, texts), np.bool_, len(texts))


def _numbers(field: str, spans: Sequence[Span]) -> Floats:
    return np.fromiter(map(attrgetter(field), spans), np.float64, len(spans))


def groups(*columns: Ints) -> tuple[Ints, Ints]:
    """Rows that are equal in all columns get one number; also the first row of each number."""
    combined = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        size = int(column.max(initial=0)) + 2
        if int(combined.max(initial=0)) >= 2**62 // size:  # before it overflows
            combined = np.unique(combined, return_inverse=True)[1]
        combined = combined * size + column + 1
    _, first, numbers = np.unique(combined, return_index=True, return_inverse=True)
    return numbers, first


def grouped_median(group: Ints, values: Floats, size: int) -> Floats:
    """The median of the values of each group 0 … size-1; NaN for a group without any."""
    order = np.lexsort((values, group))
    ordered = values[order]
    count = np.bincount(group, minlength=size)
    begin = np.cumsum(count) - count
    found = np.full(size, np.nan)
    some = count > 0
    low = ordered[(begin + (count - 1) // 2)[some]]
    high = ordered[(begin + count // 2)[some]]
    found[some] = low + (high - low) / 2.0
    return found


# --- order and ancestry -------------------------------------------------------------------------------------------


def _sound(rows: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
    spans = [span for _, span in rows]
    start, duration = np.abs(_numbers("start_s", spans)), np.abs(_numbers("duration_ms", spans))
    return list(compress(rows, ((start < MAX_EPOCH_S) & (duration < MAX_DURATION_MS)).tolist()))  # not so for NaN


def _ordered(rows: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
    """By the begin and the name of the trace, start, the longer first (it is the outer one); ties by all the rest."""
    spans = [span for _, span in rows]
    trace, names = codes(_texts("trace_id", spans))
    start, longest = _numbers("start_s", spans), -_numbers("duration_ms", spans)
    begin = np.full(len(names), np.inf)
    np.minimum.at(begin, trace, start)
    traces = sorted(range(len(names)), key=lambda t: (begin[t], names[t]))
    rank = np.empty(len(names), np.int64)
    rank[traces] = np.arange(len(names))
    keys = (longest, start, rank[trace])
    order = np.lexsort(keys)
    same = np.ones(max(len(rows) - 1, 0), np.bool_)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    tied = order[np.append(same, False) | np.append(False, same)] if len(rows) else order
    tie = np.zeros(len(rows), np.int64)
    tie[sorted(tied.tolist(), key=lambda row: _all_of(*rows[row]))] = np.arange(len(tied))
    return [rows[row] for row in np.lexsort((tie, *keys)).tolist()]


def _all_of(source: str, s: Span) -> tuple[str, ...]:
    return s.span_id, s.component, s.kind, s.operation, s.parent_id, s.peer, s.error, s.instance, source


def _unique(rows: list[tuple[str, Span]]) -> tuple[list[tuple[str, Span]], dict[tuple[str, str], int]]:
    """Without the spans that two sources tell of, and the row of each (trace id, span id)."""
    spans = [span for _, span in rows]
    ids = list(zip(_texts("trace_id", spans), _texts("span_id", spans), strict=True))
    by_id = _first_of(ids)
    if len(by_id) == len(ids):
        return rows, by_id
    firsts = map(by_id.__getitem__, ids)
    kept = [row for row, first in enumerate(firsts) if row == first or not _alike(spans[first], spans[row])]
    return [rows[row] for row in kept], _first_of([ids[row] for row in kept])


def _first_of(ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Where each id stands first."""
    return dict(zip(reversed(ids), range(len(ids) - 1, -1, -1), strict=True))


def _alike(one: Span, other: Span) -> bool:
    return (one.component, one.kind, one.operation) == (other.component, other.kind, other.operation)


def _jumps(parent: Ints) -> Iterable[tuple[Ints, Ints]]:
    """Pairs (row, ancestor) at distances 1, 2, 4, …: log2 of the depth steps reach every root."""
    above = parent.copy()
    for _ in repeat(None, max(len(parent), 1).bit_length() + 1):
        rows = np.flatnonzero(above >= 0)
        if not len(rows):
            return
        yield rows, above
        above = np.where(above >= 0, above[above], NONE)


def _acyclic(parent: Ints) -> Ints:
    """Without the links of spans that have no root above them."""
    farthest = parent
    for _, above in _jumps(parent):
        farthest = above
    endless = np.where(farthest >= 0, farthest[farthest], NONE) >= 0
    return np.where(endless, NONE, parent)


def _sums(parent: Ints, values: Floats) -> Floats:
    """The sum of each row's value and those of all its ancestors; ``parent`` has no cycle."""
    total = values.astype(np.float64)
    for rows, above in _jumps(parent):
        total[rows] = total[rows] + total[above[rows]]
    return total


def _tops(parent: Ints) -> Ints:
    """The topmost ancestor of each row, or itself; ``parent`` has no cycle."""
    top = np.where(parent >= 0, parent, np.arange(len(parent)))
    while True:
        higher = top[top]
        if np.array_equal(higher, top):
            return top
        top = higher


def _asynchronous(kind: Ints, component: Ints, parent: Ints) -> Mask:
    """Spans that a message started: consumers of another component's span, and whatever follows a producer there."""
    elsewhere: Mask = component[parent] != component
    sent: Mask = kind[parent] == _PRODUCER
    consumed: Mask = kind == _CONSUMER
    return ((consumed & (elsewhere | sent)) | (sent & elsewhere)) & (parent >= 0)


def _segments(waits_for: Ints, trace: Ints, starts: Mask) -> Ints:
    top = _tops(waits_for)
    return groups(trace, np.where(starts[top], top, NONE))[0]


def _windows(segment: Ints, start_s: Floats, windows: Windows) -> Ints:
    """A segment belongs to the window it begins in."""
    begin = np.full(int(segment.max(initial=-1)) + 1, np.inf)
    np.minimum.at(begin, segment, start_s)
    found = np.full(len(begin), NONE)
    for since, until in windows.baselines:
        found[(begin >= since) & (begin < until)] = THEN
    found[(begin >= windows.incident[0]) & (begin < windows.incident[1])] = NOW
    return found[segment]


# --- clocks -------------------------------------------------------------------------------------------------------


def _skew(begin: Floats, end: Floats, waits_for: Ints, component: Ints, instance: Ints) -> Floats:
    """Seconds to add to each span so that calls lie inside the spans that wait for them.

    As Zipkin and Jaeger do, a call that is no longer than its caller's span but sticks out of it is moved inside; by
    the same offset for all calls between two hosts, which is what a skew is: the one that centres the median call.
    An offset that does not even put half of the calls inside is none, and nothing is moved.
    """
    rows = np.flatnonzero(waits_for >= 0)
    rows = rows[component[rows] != component[waits_for[rows]]]
    above = waits_for[rows]
    least, most = begin[above] - begin[rows], end[above] - end[rows]  # what keeps the call inside
    fits = least <= most
    rows, above, least, most = rows[fits], above[fits], least[fits], most[fits]
    pair, first = groups(instance[above], instance[rows])
    offset = grouped_median(pair, (least + most) / 2.0, len(first))[pair]
    inside = (least <= offset) & (offset <= most)
    constant = grouped_median(pair, inside.astype(np.float64), len(first))[pair] >= 0.5
    outside = (least > 0.0) | (most < 0.0)
    own = np.zeros(len(begin))
    own[rows] = np.where(constant & outside, np.clip(offset, least, most), 0.0)
    return _sums(waits_for, own)
