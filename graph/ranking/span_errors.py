"""Failing spans, charged to the deepest failing span of each branch."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from graph.ranking.deviation import REPORTED, Deviation
from graph.ranking.edges import LOSER_SHARE, blamed_ends
from graph.ranking.spans import Ints, Mask, SpanTable, groups
from graph.ranking.tally import Tally, tallies, verbatim


def error_deviations(table: SpanTable) -> Iterator[Deviation]:
    """Failing operations of components, failing calls between two, and failures that are only passed on."""
    reported = table.failed & (table.highest_below(table.failed.astype(np.float64)) > 0)
    deepest = table.failed & ~reported
    relevant = table.window >= 0
    calls = table.callee >= 0
    yield from _operations(table, np.flatnonzero(relevant & ~calls), deepest, inherited=False)
    yield from _operations(table, np.flatnonzero(relevant & ~deepest), table.failed, inherited=True)
    yield from _edges(table, np.flatnonzero(relevant & calls), deepest)


def _operations(table: SpanTable, rows: Ints, bad: Mask, *, inherited: bool) -> Iterator[Deviation]:
    place, _ = groups(table.component[rows], table.operation[rows])
    for _, tally in tallies(table, rows, place, bad[rows]):
        span = table.spans[tally.onset]
        found = _deviation(tally, span.component, span.operation, f"spans “{span.operation}” of {span.component}")
        weight = REPORTED if inherited else 1.0
        yield tally.localised(replace(found, strength=found.strength * weight, inherited=inherited))


def _edges(table: SpanTable, rows: Ints, bad: Mask) -> Iterator[Deviation]:
    place, first = groups(table.component[rows], table.callee[rows])
    callers, callees = table.component[rows[first]], table.callee[rows[first]]
    blamed = blamed_ends(table, rows, place, callers, callees, bad[rows])
    for number, tally in tallies(table, rows, place, bad[rows]):
        ends = int(callers[number]), int(callees[number])
        caller, callee = (table.names[end] for end in ends)
        signal = f"{caller} → {callee}: {table.spans[tally.onset].error}"
        found = _deviation(tally, caller, signal, f"calls of {caller} to {callee}")
        for end in ends:
            weight = 1.0 if end == blamed[number] else LOSER_SHARE
            yield tally.localised(replace(found, component=table.names[end], strength=found.strength * weight))


def _deviation(tally: Tally, component: str, signal: str, what: str) -> Deviation:
    row = tally.onset
    return Deviation(
        component=component,
        kind="trace",
        channel="error_span",
        signal=signal,
        strength=tally.surely,
        at_s=tally.onset_s,
        summary=(
            f"{tally.hits} of {tally.calls} {what} failed with {tally.table.spans[row].error} "
            f"({tally.share:.0%}, {tally.base_share:.0%} before)."
        ),
        observed=100.0 * tally.share,
        baseline=100.0 * tally.base_share,
        unit="%",
        effect=tally.share - tally.base_share,
        excerpt=verbatim(tally.table, row),
        source=tally.table.sources[row],
        harm=tally.surplus,
    )
