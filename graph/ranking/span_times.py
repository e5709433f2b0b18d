"""Time above the norm: in components themselves, between two of them, and in queues."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from graph.ranking.deviation import Deviation, number, surely
from graph.ranking.edges import LOSER_SHARE, blamed_ends
from graph.ranking.samples import MAD_TO_SIGMA, MIN_DEVIATION
from graph.ranking.spans import NONE, NOW, THEN, Floats, Ints, Mask, SpanTable, calls_out, grouped_median, groups
from graph.ranking.tally import Tally, share_of, tallies, verbatim

MIN_EXCESS_MS = 5.0  # schedulers and garbage collectors cost that much on a good day
RELATIVE_FLOOR = 0.25
"""A span's spread is at least this share of its norm: half a minute of spans is no distribution."""
NOTICEABLE = 0.1  # of a request's time: less of a delay no user notices


@dataclass(frozen=True, eq=False)
class _Times:
    """Milliseconds that passed in a component itself, on the way between two, or in the queue before a callee.

    The columns are equally long; ``place`` numbers what is equal in caller, callee, operation and ``queued``.
    """

    rows: Ints
    ms: Floats
    caller: Ints
    callee: Ints  # NONE: in the caller itself
    queued: Mask
    place: Ints
    first: Ints  # by place, where in the columns one of its rows is


def time_deviations(table: SpanTable) -> Iterator[Deviation]:
    """Places that take longer than in the baseline, as strong as their part in what their component adds."""
    times = _times(table)
    norm, excess = _excesses(table, times)
    blamed = _blamed(table, times, excess > 0.0)
    slowness = _slowness(table, times, excess, blamed)
    window, size = table.window[times.rows], len(times.first)
    added, before = (np.bincount(times.place, np.where(window == w, excess, 0.0), size) for w in (NOW, THEN))
    most = np.zeros(len(table.names))
    np.maximum.at(most, blamed, added)
    for place, tally in tallies(table, times.rows, times.place, excess > 0.0):
        component = int(blamed[place])
        found = _slow(tally, _Where.of(table, times, place), float(norm[place]), float(added[place]))
        usual = before[place] / tally.base_calls * tally.calls if tally.base_calls else 0.0
        part = added[place] / most[component] * tally.lasting
        found = replace(
            found,
            component=table.names[component],
            strength=float(slowness[component] * part),
            harm=max(float(added[place] - usual) / 1000.0, 0.0),
        )
        yield tally.localised(found)
        if times.callee[times.first[place]] != NONE:
            ends = times.caller[times.first[place]], times.callee[times.first[place]]
            other = table.names[int(ends[0] if component == ends[1] else ends[1])]
            yield tally.localised(replace(found, component=other, strength=LOSER_SHARE * found.strength))


def self_times(table: SpanTable) -> Floats:
    """Milliseconds of each span: every moment of a segment belongs to the open span that started last.

    "Duration minus children" would blame asynchronous gateways, whose spans stay open while others work.
    """
    order = np.lexsort((np.arange(len(table)), -table.end_s, table.start_s, table.segment))
    segment, start, end = (column[order].tolist() for column in (table.segment, table.start_s, table.end_s))
    own = [0.0] * len(order)
    open_: list[int] = []  # by start: what started last is on top
    at = 0.0
    for row, (here, begin) in enumerate(zip(segment, start, strict=True)):
        until = begin if row and segment[row - 1] == here else np.inf
        while open_ and at < until:
            top = open_[-1]
            if end[top] > until:
                own[top] += until - at
                break
            own[top] += max(end[top] - at, 0.0)
            at = max(at, end[top])
            open_.pop()
        open_.append(row)
        at = begin
    while open_:
        top = open_.pop()
        own[top] += max(end[top] - at, 0.0)
        at = max(at, end[top])
    found = np.empty(len(order))
    found[order] = own
    return found * 1000.0


def _times(table: SpanTable) -> _Times:
    own = np.flatnonzero(table.window >= 0)
    waited = np.flatnonzero((table.window >= 0) & table.asynchronous)
    rows = np.concatenate((own, waited))
    queued = np.arange(len(rows)) >= len(own)
    caller = np.where(queued, _queue(table)[rows], table.component[rows])
    callee = np.where(queued, table.component[rows], table.callee[rows])
    place, first = groups(caller, callee, table.operation[rows], queued.astype(np.int64))
    ms = np.where(queued, table.wait_s[rows] * 1000.0, self_times(table)[rows])
    return _Times(rows, ms, caller, callee, queued, place, first)


def _queue(table: SpanTable) -> Ints:
    """Where the message of an asynchronous span waited: the queue it or its producer names, else its producer."""
    parent = table.parent
    sent_to = np.where(calls_out(table.kind[parent]), table.peer[parent], NONE)
    named = np.where((table.peer >= 0) & ~calls_out(table.kind), table.peer, sent_to)
    return np.where((named >= 0) & (named != table.component), named, table.component[parent])


def _excesses(table: SpanTable, times: _Times) -> tuple[Floats, Floats]:
    """The norm of each place in the baseline, and by how much each row is above it, if that is beyond chance.

    A call not seen in the baseline is held to the norm of all calls: what lies between two components is much alike.
    """
    base = table.window[times.rows] == THEN
    norm, spread = _norm(times.place[base], times.ms[base], len(times.first))
    calls = (times.callee != NONE) & ~times.queued
    similar, similar_spread = _norm(np.zeros(int(np.sum(calls & base)), np.int64), times.ms[calls & base], 1)
    new = np.isnan(norm) & calls[times.first]
    norm, spread = np.where(new, similar, norm), np.where(new, similar_spread, spread)
    limit = norm + MIN_DEVIATION * np.maximum(MAD_TO_SIGMA * spread, RELATIVE_FLOOR * norm) + MIN_EXCESS_MS
    above = times.ms > limit[times.place]  # never above NaN, the norm of what was not seen before
    return norm, np.where(above, times.ms - np.where(above, norm[times.place], 0.0), 0.0)


def _norm(group: Ints, ms: Floats, size: int) -> tuple[Floats, Floats]:
    """Median and median absolute deviation of each group."""
    norm = grouped_median(group, ms, size)
    return norm, grouped_median(group, np.abs(ms - norm[group]), size)


def _blamed(table: SpanTable, times: _Times, bad: Mask) -> Ints:
    """By place the component that its time is charged to."""
    calls = np.flatnonzero(times.callee != NONE)
    edge, first = groups(times.caller[calls], times.callee[calls])
    callers, callees = times.caller[calls[first]], times.callee[calls[first]]
    ends = blamed_ends(table, times.rows[calls], edge, callers, callees, bad[calls])
    of_row = times.caller.copy()
    of_row[calls] = ends[edge]
    return of_row[times.first]


def _slowness(table: SpanTable, times: _Times, excess: Floats, blamed: Ints) -> Floats:
    """By component 0..1: in how many more of its requests it takes a good part of the time, and how large a part.

    By request and not by call, because ten calls of 100 ms are one second to the user; and as a part of the request,
    because a query that takes ten times its two milliseconds slows nobody.
    """
    size, window = len(table.names), _window_of_segments(table)
    calls = times.callee != NONE
    segment = table.segment[times.rows]
    passed, first = groups(
        np.concatenate((times.caller, times.callee[calls])), np.concatenate((segment, segment[calls]))
    )
    del passed
    visitor = np.concatenate((times.caller, times.callee[calls]))[first]
    visited = np.concatenate((segment, segment[calls]))[first]
    passes_now, passes_then = (np.bincount(visitor[window[visited] == w], minlength=size) for w in (NOW, THEN))
    late = np.flatnonzero(excess)
    request, first = groups(blamed[times.place[late]], segment[late])
    component, delayed = blamed[times.place[late[first]]], segment[late[first]]
    ms = np.bincount(request, excess[late], len(first))
    part = np.minimum(ms / np.maximum(_lengths_ms(table)[delayed], ms), 1.0)
    noticed = part >= NOTICEABLE
    now, then = (noticed & (window[delayed] == w) for w in (NOW, THEN))
    hits, base_hits = (np.bincount(component[w], minlength=size) for w in (now, then))
    parts = np.bincount(component[now], part[now], size).astype(np.float64)
    mean = share_of(parts, hits.astype(np.float64))
    # one good request is assumed of a component that had none
    counts = zip(
        hits.tolist(), passes_now.tolist(), base_hits.tolist(), np.maximum(passes_then, 1).tolist(), strict=True
    )
    return mean * np.array([surely(*one) for one in counts], np.float64)


def _window_of_segments(table: SpanTable) -> Ints:
    found = np.full(int(table.segment.max(initial=-1)) + 1, NONE)
    found[table.segment] = table.window
    return found


def _lengths_ms(table: SpanTable) -> Floats:
    """Of each segment, from its first start to its last end, and what its message waited before."""
    size = int(table.segment.max(initial=-1)) + 1
    begin, end = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(begin, table.segment, table.start_s)
    np.maximum.at(end, table.segment, table.end_s)
    waited = np.zeros(size)
    np.maximum.at(waited, table.segment, table.wait_s)
    seconds: Floats = end - begin + waited
    return seconds * 1000.0


@dataclass(frozen=True)
class _Where:
    """A place in words."""

    signal: str
    told: str

    @classmethod
    def of(cls, table: SpanTable, times: _Times, place: int) -> "_Where":
        one = int(times.first[place])
        operation = table.spans[int(times.rows[one])].operation
        caller = table.names[int(times.caller[one])]
        if times.callee[one] == NONE:
            return cls(operation, f"in {caller} itself")
        callee = table.names[int(times.callee[one])]
        way = "in the queue from" if times.queued[one] else "between"
        to = "to" if times.queued[one] else "and"
        return cls(f"{caller} → {callee}: {operation}", f"{way} {caller} {to} {callee}")


def _slow(tally: Tally, where: _Where, norm: float, added: float) -> Deviation:
    row = tally.onset
    span = tally.table.spans[row]
    took = norm + added / tally.hits
    return Deviation(
        component=span.component,
        kind="trace",
        channel="time",
        signal=where.signal,
        strength=0.0,
        at_s=tally.onset_s,
        summary=(
            f"{number(took)} ms passed {where.told} in {tally.hits} of {tally.calls} spans “{span.operation}”, "
            f"normally {number(norm)} ms."
        ),
        observed=took,
        baseline=norm,
        unit="ms",
        effect=(took - norm) / max(norm, MIN_EXCESS_MS),
        excerpt=verbatim(tally.table, row),
        source=tally.table.sources[row],
    )
