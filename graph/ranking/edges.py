"""Which end of an edge its trouble is charged to."""

import numpy as np

from graph.ranking.deviation import gain
from graph.ranking.spans import NOW, THEN, Floats, Ints, Mask, SpanTable
from graph.ranking.tally import share_of

LOSER_SHARE = 0.25
"""What is left of an edge's trouble at the end that is hit less: from one edge alone nobody can be sure."""
CLEAR_GAIN = 0.02  # below it a rise is noise


def blamed_ends(table: SpanTable, rows: Ints, place: Ints, callers: Ints, callees: Ints, bad: Mask) -> Ints:
    """For each edge (caller, callee) the end with more of its calls hit. ``place`` is the edge of each of the rows.

    A component in trouble with several neighbours is the common end of those edges, and comes first; of equals the
    callee.
    """
    size, window = len(callers), table.window[rows]
    calls = np.bincount(place[window == NOW], minlength=size)
    hits = np.bincount(place[(window == NOW) & bad], minlength=size)
    base_calls = np.bincount(place[window == THEN], minlength=size)
    base_hits = np.bincount(place[(window == THEN) & bad], minlength=size)
    counts = zip(hits.tolist(), calls.tolist(), base_hits.tolist(), base_calls.tolist(), strict=True)
    risen = np.array([gain(*one) > CLEAR_GAIN for one in counts], np.bool_)
    of_all = [_by_end(callers, callees, values, len(table.names)) for values in (hits, calls, risen)]
    share, neighbours = share_of(of_all[0], of_all[1]), of_all[2]
    more_neighbours = np.sign(neighbours[callers] - neighbours[callees])
    more_hits = np.sign(share[callers] - share[callees])
    return np.where(2 * more_neighbours + more_hits > 0, callers, callees)


def _by_end(callers: Ints, callees: Ints, values: Ints | Mask, size: int) -> Floats:
    return np.bincount(callers, values, size).astype(np.float64) + np.bincount(callees, values, size)
