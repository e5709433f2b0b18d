"""Which end of an edge its trouble is charged to."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from graph.ranking.deviation import BLAME_PASSES_DOWN, gain
from graph.ranking.spans import NOW, THEN, Floats, Ints, Mask, SpanTable
from graph.ranking.tally import share_of

LOSER_SHARE = 0.25
"""What is left of an edge's trouble at the end that is hit less: from one edge alone nobody can be sure."""
CLEAR_GAIN = 0.02  # below it a rise is noise


def blamed_ends(table: SpanTable, rows: Ints, place: Ints, callers: Ints, callees: Ints, bad: Mask) -> Ints:
    """For each edge (caller, callee) the end with more of its calls hit. ``place`` is the edge of each of the rows.

    A component in as much trouble with several neighbours is the common end of those edges, and comes first; of equals
    the callee.
    """
    size, window = len(callers), table.window[rows]
    calls = np.bincount(place[window == NOW], minlength=size)
    hits = np.bincount(place[(window == NOW) & bad], minlength=size)
    base_calls = np.bincount(place[window == THEN], minlength=size)
    base_hits = np.bincount(place[(window == THEN) & bad], minlength=size)
    counts = zip(hits.tolist(), calls.tolist(), base_hits.tolist(), base_calls.tolist(), strict=True)
    rises = np.array([gain(*one) for one in counts], np.float64)
    of_hits, of_calls = (_by_end(callers, callees, values, len(table.names)) for values in (hits, calls))
    share = share_of(of_hits, of_calls)
    troubles = _troubles(callers, callees, rises)
    more_neighbours = np.sign(troubles(callers) - troubles(callees))
    more_hits = np.sign(share[callers] - share[callees])
    return np.where(2 * more_neighbours + more_hits > 0, callers, callees)


def _troubles(callers: Ints, callees: Ints, rises: Floats) -> Callable[[Ints], Floats]:
    """For each edge the edges of one of its ends that rose at least ``BLAME_PASSES_DOWN`` as much as itself."""
    of: defaultdict[int, list[float]] = defaultdict(list)
    for caller, callee, rise in zip(callers.tolist(), callees.tolist(), rises.tolist(), strict=True):
        if rise > CLEAR_GAIN:
            of[caller].append(rise)
            of[callee].append(rise)
    known = {end: sorted(found) for end, found in of.items()}

    def count(ends: Ints) -> Floats:
        pairs = zip(ends.tolist(), rises.tolist(), strict=True)
        return np.array(
            [len(k) - bisect_left(k, BLAME_PASSES_DOWN * r) for k, r in ((known.get(e, []), r) for e, r in pairs)]
        )

    return count


def _by_end(callers: Ints, callees: Ints, values: Ints | Mask, size: int) -> Floats:
    return np.bincount(callers, values, size).astype(np.float64) + np.bincount(callees, values, size)
