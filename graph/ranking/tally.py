"""Bad spans of one place among all of them, now and before: how surely they rose, since when, where, at what cost."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp

import numpy as np

from graph.ranking.deviation import REPORTED, Deviation, excerpt, one_instance, surely
from graph.ranking.spans import NONE, NOW, THEN, Floats, Ints, Mask, SpanTable

ROUNDING = 1e-9  # sums of floats differ by their order
LAST_PART = 2.0 / 3.0  # of the incident window are over when its last third begins


@dataclass(frozen=True, eq=False)
class Tally:
    """Spans of one place. ``rows`` are those of the incident by their start, ``bad`` says which of them are bad."""

    table: SpanTable
    rows: Ints
    bad: Mask
    base_calls: int
    base_hits: int

    @property
    def calls(self) -> int:
        """Spans in the incident."""
        return len(self.rows)

    @cached_property
    def hits(self) -> int:
        """Bad ones among them."""
        return int(np.count_nonzero(self.bad))

    @property
    def share(self) -> float:
        """0..1, of bad ones now."""
        return self.hits / self.calls if self.calls else 0.0

    @property
    def base_share(self) -> float:
        """0..1, of bad ones before."""
        return self.base_hits / self.base_calls if self.base_calls else 0.0

    @property
    def surely(self) -> float:
        """0..1: how surely and how noticeably the share of bad ones rose, and whether it still is so."""
        return surely(self.hits, self.calls, self.base_hits, self.base_calls) * self.lasting

    @property
    def surplus(self) -> float:
        """Bad spans beyond the usual share."""
        return max(self.hits - self.base_share * self.calls, 0.0)

    @cached_property
    def lasting(self) -> float:
        """1, or less if none is bad in the last third of the window: what has recovered is no symptom.

        As likely as it is to see none there, had the trouble gone on (Poisson).
        """
        since, until = self.table.windows.incident
        late = self.table.start_s[self.rows] >= since + LAST_PART * (until - since)
        early = self.calls - int(np.count_nonzero(late))
        if not early or np.any(self.bad & late):
            return 1.0
        return max(exp(-self.hits / early * (self.calls - early)), REPORTED)

    @cached_property
    def onset(self) -> int:
        """The bad row from which on their share, at every moment, stays at least half of what it is in all."""
        walk = np.cumsum(self.bad - self.share / 2.0)
        before = np.concatenate(([0.0], walk[:-1]))
        lowest = np.flatnonzero(np.minimum.accumulate(walk[::-1])[::-1] >= before - ROUNDING)
        sustained = lowest[self.bad[lowest]]
        return int(self.rows[sustained[0] if len(sustained) else np.argmax(self.bad)])

    @property
    def onset_s(self) -> float:
        """Epoch seconds of the onset, inside the incident window."""
        return self.table.windows.clamped(float(self.table.start_s[self.onset]))

    def localised(self, deviation: Deviation) -> Deviation:
        """The deviation, with the one instance that nearly all bad spans are of, if there is one."""
        instance = self._instance(deviation.component)
        if not instance:
            return deviation
        told = f"{deviation.summary} Only instance {instance} is concerned."
        return replace(deviation, instance=instance, summary=told)

    def _instance(self, component: str) -> str:
        rows = self._on_the_side_of(component, self.rows[self.bad]).tolist()
        row_of = {self.table.spans[row].instance: row for row in rows}
        told = Counter(self.table.spans[row].instance for row in rows)
        return one_instance(told, self.hits, lambda name: float(self.table.instance_share[row_of[name]]))

    def _on_the_side_of(self, component: str, rows: Ints) -> Ints:
        """The component's own spans of these calls."""
        sides: Ints = np.where(self.table.component[rows] == self.table.code[component], rows, self.table.answer[rows])
        known: Ints = sides[sides != NONE]
        return known


def tallies(table: SpanTable, rows: Ints, place: Ints, bad: Mask) -> Iterator[tuple[int, Tally]]:
    """Those of the places that have bad rows now; ``place`` and ``bad`` tell of each of the ``rows``."""
    size = int(place.max(initial=-1)) + 1
    window = table.window[rows]
    base_calls = np.bincount(place[window == THEN], minlength=size)
    base_hits = np.bincount(place[(window == THEN) & bad], minlength=size)
    now = window == NOW
    hit = np.bincount(place[now & bad], minlength=size) > 0
    now &= hit[place]
    rows, place, bad = rows[now], place[now], bad[now]
    order = np.lexsort((rows, table.start_s[rows], place))
    rows, place, bad = rows[order], place[order], bad[order]
    for number in np.flatnonzero(hit).tolist():
        first, last = np.searchsorted(place, (number, number + 1))
        yield number, Tally(table, rows[first:last], bad[first:last], int(base_calls[number]), int(base_hits[number]))


def verbatim(table: SpanTable, row: int) -> str:
    """A span as a person reads it."""
    span = table.spans[row]
    told = f"{span.component} {span.operation} {span.kind} peer={span.peer} error={span.error}"
    return excerpt(f"{told} {span.duration_ms:.1f} ms trace={span.trace_id}")


def share_of(part: Floats, whole: Floats) -> Floats:
    """Part by part; 0 where there is no whole."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
