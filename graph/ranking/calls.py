"""Which calls an operation makes: missing ones, callees that are gone, calls that multiply, and messages.

Always in context, by the operation of the caller that a request came in by: the mix of requests differs between any
two windows, and raw counts differ with it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp

import numpy as np

from graph.ranking.deviation import (
    BLAME_PASSES_DOWN,
    MIN_EXPECTED,
    MIN_STRENGTH,
    REPORTED,
    SEVERITY,
    Deviation,
    number,
)
from graph.ranking.edges import LOSER_SHARE
from graph.ranking.samples import MAD_TO_SIGMA, MIN_DEVIATION
from graph.ranking.spans import NONE, NOW, THEN, Floats, Ints, Mask, SpanTable, calls_out, grouped_median, groups
from graph.ranking.tally import Tally, tallies, verbatim

USUALLY = 0.5  # more often than not
SILENT = SEVERITY["info"]
"""What a missing call says about a fault, as a share of what an error says: as much as another branch among ordinary
log lines. Nothing failed, and there may have been nothing to call for."""
MAX_EDGES = 500  # that are looked at one by one: a list of findings holds a tenth of it
RELATIVE_FLOOR = 0.25
"""The spread of a number of calls is at least this share of its norm: a second call where there was one is a rise."""


@dataclass(frozen=True, eq=False)
class _Calls:
    """Calls of entry spans, one row each; columns are equally long."""

    row: Ints  # the span that calls; of a call that only its callee reports, the callee's
    entry: Ints
    callee: Ints
    failed: Mask
    message: Mask  # the callee got it later, if at all

    @classmethod
    def of(cls, table: SpanTable) -> "_Calls":
        """A call is a span that another component answers, or a client's or producer's that names whom it calls."""
        answers = np.flatnonzero(table.crosses)
        parents = table.parent[answers]
        by_client = calls_out(table.kind[parents]) & ~table.asynchronous[answers]
        named = calls_out(table.kind) & (table.answer < 0) & (table.peer >= 0) & (table.peer != table.component)
        alone = np.flatnonzero(named)
        return cls(
            row=np.concatenate((np.where(by_client, parents, answers), alone)),
            entry=np.concatenate((table.entry[parents], table.entry[alone])),
            callee=np.concatenate((table.component[answers], table.peer[alone])),
            failed=np.concatenate((table.failed[answers] | (table.failed[parents] & by_client), table.failed[alone])),
            message=np.concatenate((table.asynchronous[answers], np.zeros(len(alone), np.bool_))),
        )


class _Context:
    """Entry spans by component and operation, and which callees they call how often."""

    def __init__(self, table: SpanTable) -> None:
        self.table = table
        self.calls = _Calls.of(table)
        seen = table.window[self.calls.entry] >= 0
        entries = np.flatnonzero((table.entry == np.arange(len(table))) & (table.window >= 0))
        context, _ = groups(table.component[entries], table.operation[entries])
        self.of_entry = np.full(len(table), NONE)
        self.of_entry[entries] = context
        self.entries = entries[np.argsort(context, kind="stable")]
        self.size = int(context.max(initial=-1)) + 1
        self.bounds = np.searchsorted(self.of_entry[self.entries], np.arange(self.size + 1))
        # one number for each (entry span, callee), then for each (context, callee)
        self.call = np.flatnonzero(seen)
        self.pair, first = groups(self.calls.entry[self.call], self.calls.callee[self.call])
        self.entry = self.calls.entry[self.call[first]]
        self.callee = self.calls.callee[self.call[first]]
        self.message = self.calls.message[self.call[first]]
        self.count = np.bincount(self.pair, minlength=len(first))
        self.edge, self.first = groups(self.of_entry[self.entry], self.callee)

        self.pairs = np.argsort(self.of_entry[self.entry], kind="stable")
        self.pair_bounds = np.searchsorted(self.of_entry[self.entry][self.pairs], np.arange(self.size + 1))

    def counted(self, window: int) -> Ints:
        """Requests of each edge in that window: those that call."""
        return np.bincount(self.edge[self.table.window[self.entry] == window], minlength=len(self.first))

    def total(self, window: int) -> Ints:
        """Requests of each edge's context in that window."""
        rows = self.entries[self.table.window[self.entries] == window]
        found: Ints = np.bincount(self.of_entry[rows], minlength=self.size)[self.of_entry[self.entry[self.first]]]
        return found

    @cached_property
    def failing(self) -> Mask:
        """Whether a call of this entry span failed, by row."""
        found = np.zeros(len(self.table), np.bool_)
        found[self.calls.entry[self.calls.failed]] = True
        return found

    @cached_property
    def silent(self) -> Mask:
        """By component: it had spans of its own before, and has none now."""
        table, size = self.table, len(self.table.names)
        now, then = (np.bincount(table.component[table.window == w], minlength=size) for w in (NOW, THEN))
        found: Mask = (then > 0) & (now == 0)
        return found

    @cached_property
    def coverage(self) -> Floats:
        """By component: how much of what it does inside a request is seen together with the request, 0..1.

        The least of both windows. Sources that sample single spans show calls without the request they belong to.
        """
        table = self.table
        inner = (table.kind == 0) | calls_out(table.kind)
        linked = inner & (table.parent >= 0)
        lost = inner & table.orphan
        size, found = len(table.names), np.ones(len(table.names))
        for window in (NOW, THEN):
            one = [np.bincount(table.component[m & (table.window == window)], minlength=size) for m in (linked, lost)]
            found = np.minimum(found, np.divide(one[0], one[0] + one[1], out=np.ones(size), where=one[1] > 0))
        return found

    def told(self, edge: int) -> tuple[str, str, str]:
        """Caller, its operation, and callee."""
        span = self.table.spans[int(self.entry[self.first[edge]])]
        return span.component, span.operation, self.table.names[int(self.callee[self.first[edge]])]

    def covered(self, edge: int) -> float:
        """Coverage of the edge's caller."""
        return float(self.coverage[self.table.component[self.entry[self.first[edge]]]])


def call_deviations(table: SpanTable) -> Iterator[Deviation]:
    """Calls that are missing, callees that are gone, and calls that multiply."""
    context = _Context(table)
    usages = [_Usage.of(context, edge) for edge in _suspicious(context)]
    gone = _gone(context, usages)
    yield from (d for _, d in sorted(gone.items()))
    yield from _missing_calls(context, usages, frozenset(c for c, d in gone.items() if d.strength > LOSER_SHARE))
    yield from _fan_outs(context)


# --- missing calls ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Usage:
    """Requests of one edge's context, one row each, and how likely each was to call by what it else did.

    A request that calls somebody with whom the callee is seldom or never called is of another kind, and misses nothing.
    """

    edge: int
    rows: Ints
    calls: Mask
    likely: Floats  # 0..1, by the baseline
    idle: Mask  # calls nobody

    @classmethod
    def of(cls, context: _Context, edge: int) -> "_Usage":
        """Of a caller's operation and a callee."""
        here = int(context.of_entry[context.entry[context.first[edge]]])
        rows = context.entries[context.bounds[here] : context.bounds[here + 1]]
        pairs = context.pairs[context.pair_bounds[here] : context.pair_bounds[here + 1]]
        position = np.searchsorted(rows, context.entry[pairs])
        calls, busy = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
        calls[position[context.edge[pairs] == edge]] = True
        busy[position] = True
        then = context.table.window[rows] == THEN
        _, others = np.unique(context.edge[pairs], return_inverse=True)
        seen = np.bincount(others, then[position])
        together = np.bincount(others, then[position] & calls[position])
        usual = float(np.mean(calls[then])) if then.any() else 0.0
        ratio = np.divide(together, seen, out=np.zeros(len(seen)), where=seen > 0)
        likely = np.where(busy, 1.0, usual)
        np.minimum.at(likely, position, ratio[others])
        return cls(edge, rows, calls, likely, ~busy)


def _suspicious(context: _Context) -> list[int]:
    """Edges that fewer requests of their context call than before, or to a callee without any span of its own now.

    At most so many: first those of callees without spans, then those that are called so much less.
    """
    now, then = context.counted(NOW), context.counted(THEN)
    total_now, total_then = context.total(NOW), context.total(THEN)
    silent = context.silent[context.callee[context.first]]
    chosen = np.flatnonzero((then > 0) & (total_now > 0) & (silent | (now * total_then < then * total_now)))
    lost = silent[chosen] + then[chosen] / total_then[chosen] - now[chosen] / total_now[chosen]
    return [int(chosen[i]) for i in np.argsort(-lost, kind="stable")[:MAX_EDGES]]


def _missing_calls(context: _Context, usages: Sequence[_Usage], gone: Set[int]) -> Iterator[Deviation]:
    found = [(usage.edge, _tally(context, usage)) for usage in usages if not context.message[context.first[usage.edge]]]
    found = [(edge, tally) for edge, tally in found if tally.surely >= MIN_STRENGTH]
    loudest = np.zeros(len(context.table))
    for _, tally in found:
        bad = tally.rows[tally.bad]
        loudest[bad] = np.maximum(loudest[bad], tally.surely)
    below = context.table.highest_below(loudest) if found else loudest  # who gets a wrong answer does not go on
    for edge, tally in found:
        passed_on = tally.bad & (below[tally.rows] >= BLAME_PASSES_DOWN * tally.surely)
        own = replace(tally, bad=tally.bad & ~passed_on)
        left = SILENT * max(own.surely if own.hits else 0.0, REPORTED * tally.surely)
        left *= LOSER_SHARE if int(context.callee[context.first[edge]]) in gone else 1.0
        yield tally.localised(_missing(context, edge, tally, left * context.covered(edge), 2 * own.hits < tally.hits))


def _tally(context: _Context, usage: _Usage) -> Tally:
    """Requests without the call among those that usually call, unless another call of theirs failed."""
    table = context.table
    bad = ~usage.calls & ~context.failing[usage.rows] & (usage.likely >= USUALLY)
    tells = usage.calls | bad
    then = tells & (table.window[usage.rows] == THEN)
    now = np.flatnonzero(tells & (table.window[usage.rows] == NOW))
    now = now[np.argsort(table.start_s[usage.rows[now]], kind="stable")]
    base_calls, base_hits = int(np.count_nonzero(then)), int(np.count_nonzero(then & bad))
    return Tally(table, usage.rows[now], bad[now], base_calls, base_hits)


def _missing(context: _Context, edge: int, tally: Tally, strength: float, inherited: bool) -> Deviation:
    caller, operation, callee = context.told(edge)
    row = tally.onset
    return Deviation(
        component=caller,
        kind="trace",
        channel="calls",
        signal=f"{operation} → {callee}",
        strength=strength,
        at_s=tally.onset_s,
        summary=(
            f"{tally.hits} of {tally.calls} requests “{operation}” of {caller} did not call {callee}: "
            f"{1 - tally.share:.0%} did, {1 - tally.base_share:.0%} before."
        ),
        inherited=inherited,
        observed=100.0 * (1 - tally.share),
        baseline=100.0 * (1 - tally.base_share),
        unit="%",
        effect=tally.share - tally.base_share,
        excerpt=verbatim(tally.table, row),
        source=tally.table.sources[row],
        worse="down",
        harm=tally.surplus,
    )


# --- callees that are gone ----------------------------------------------------------------------------------------


def _gone(context: _Context, usages: Sequence[_Usage]) -> dict[int, Deviation]:
    """By component: those of which there were spans, and are none although the requests that lead there come.

    Where attempts used to be reported and are not any more, its only caller may as well have stopped calling: then it
    is rather the caller's. A component that only its callers know is gone if several called it, and none does.
    """
    table = context.table
    expected: defaultdict[int, float] = defaultdict(float)
    callers: defaultdict[int, set[int]] = defaultdict(set)
    for usage in usages:
        entry, callee = (int(column[context.first[usage.edge]]) for column in (context.entry, context.callee))
        not_told = ~context.failing[usage.rows] & (usage.idle | (usage.likely >= USUALLY))
        due = (table.window[usage.rows] == NOW) & (usage.calls | not_told)
        expected[callee] += context.covered(usage.edge) * float(np.sum(usage.likely[due]))
        callers[callee].add(int(table.component[entry]))
    called = set(context.callee[table.window[context.entry] == NOW].tolist())
    own = set(table.component[table.window >= 0].tolist())
    lost = (c for c in expected if context.silent[c])
    unheard = (c for c in expected if c not in own and c not in called and len(callers[c]) > 1)
    chosen = (c for c in {*lost, *unheard} if expected[c] >= MIN_EXPECTED)
    return {c: _drop_out(context, c, expected[c], len(callers[c])) for c in sorted(chosen)}


def _drop_out(context: _Context, code: int, expected: float, callers: int) -> Deviation:
    table, name, calls = context.table, context.table.names[code], context.calls
    mine = calls.callee == code
    now = calls.row[mine & (table.window[calls.entry] == NOW)]
    fine = 1.0 - float(np.mean(table.failed[now])) if len(now) else 0.0
    came = f"; {len(now)} calls to it are reported by its callers, {fine:.0%} of them as successful" if len(now) else ""
    attempted = bool(np.any(mine & calls_out(table.kind[calls.row])))
    unsure = attempted and not len(now) and callers == 1
    last = _last(context, code)
    return Deviation(
        component=name,
        kind="trace",
        channel="calls",
        signal="spans",
        # calls that succeed without a span of the callee show that its tracing is gone, not the callee
        strength=(1.0 - exp(-expected)) * (1.0 - (1.0 - REPORTED) * fine) * (LOSER_SHARE if unsure else 1.0),
        at_s=table.windows.clamped(float(table.end_s[last])),
        summary=f"No spans of {name} any more, where about {number(expected)} calls were expected{came}.",
        observed=0.0,
        baseline=expected,
        unit="calls",
        effect=expected,
        excerpt=verbatim(table, last),
        source=table.sources[last],
        worse="down",
        harm=expected * (1.0 - fine),
    )


def _last(context: _Context, code: int) -> int:
    """The row of the last span that shows the component."""
    table, calls = context.table, context.calls
    rows = np.concatenate((np.flatnonzero(table.component == code), calls.row[calls.callee == code]))
    rows = rows[table.window[rows] == THEN]
    return int(rows[np.argmax(table.start_s[rows])])


# --- fan-out ------------------------------------------------------------------------------------------------------


def _fan_outs(context: _Context) -> Iterator[Deviation]:
    """Requests that call a callee more often than such requests did, of those that call it at all."""
    window, size = context.table.window[context.entry], len(context.first)
    base = window == THEN
    norm = grouped_median(context.edge[base], context.count[base].astype(np.float64), size)
    away = np.abs(context.count[base] - norm[context.edge[base]])
    spread = np.maximum(MAD_TO_SIGMA * grouped_median(context.edge[base], away, size), RELATIVE_FLOOR * norm)
    bad = (context.count > (norm + MIN_DEVIATION * spread)[context.edge]) & ~context.message
    retried = np.bincount(context.pair, _retries(context), len(context.count))
    surplus = np.where(bad, context.count - norm[context.edge], 0.0)
    now = bad & (window == NOW)
    added, repeated = (np.bincount(context.edge[now], v[now], size) for v in (surplus, np.minimum(retried, surplus)))
    for edge, tally in tallies(context.table, context.entry, context.edge, bad):
        mean = float(norm[edge] + added[edge] / tally.hits)
        found = _fan_out(context, edge, tally, float(norm[edge]), mean)
        retries = 2.0 * repeated[edge] >= added[edge]
        yield tally.localised(_as_retries(found, context, edge) if retries else found)


def _retries(context: _Context) -> Floats:
    """For each call 1 if the same operation had failed just before in the same request."""
    table, calls, chosen = context.table, context.calls, context.call
    operation = table.operation[calls.row[chosen]]
    order = np.lexsort((chosen, table.start_s[calls.row[chosen]], operation, context.pair))
    alike = (np.diff(context.pair[order]) == 0) & (np.diff(operation[order]) == 0)
    found = np.zeros(len(chosen))
    found[order[1:]] = alike & calls.failed[chosen[order[:-1]]]
    return found


def _fan_out(context: _Context, edge: int, tally: Tally, norm: float, mean: float) -> Deviation:
    """As strong as it is sure, and by which part of the calls is more than usual."""
    caller, operation, callee = context.told(edge)
    row = tally.onset
    return Deviation(
        component=caller,
        kind="trace",
        channel="fan_out",
        signal=f"{operation} → {callee}",
        strength=tally.surely * (1.0 - norm / mean) * context.covered(edge),
        at_s=tally.onset_s,
        summary=(
            f"{tally.hits} of {tally.calls} requests “{operation}” of {caller} called {callee} {number(mean)} times "
            f"on average, normally {number(norm)}."
        ),
        observed=mean,
        baseline=norm,
        unit="calls/request",
        effect=(mean - norm) / norm,
        excerpt=verbatim(tally.table, row),
        source=tally.table.sources[row],
    )


def _as_retries(found: Deviation, context: _Context, edge: int) -> Deviation:
    """Retries multiply a failure of the callee: they are no cause of their own."""
    callee = context.told(edge)[2]
    return replace(
        found,
        inherited=True,
        strength=REPORTED * found.strength,
        summary=f"{found.summary} These are retries after errors of {callee}.",
    )
