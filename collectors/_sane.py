"""What cannot be true is not believed, whichever source says it: it is dropped, and counted."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from math import isfinite

from collectors.base import Change, Floats, Gap, GapReason, Scope, Series, Span, Status

OLDEST = timedelta(days=31)  # before the first window: a deploy may be old
AHEAD = timedelta(minutes=5)  # of our clock, or of the incident's end if that is later
LONGEST_MS = OLDEST.total_seconds() * 1000


class Sieve:
    """Drops rows of one collection that are no finite numbers, or not of the time that was asked for."""

    def __init__(self, source: str, scope: Scope | None) -> None:
        """Without a scope any time is believed."""
        self._source, self._dropped = source, Counter[str]()
        self._since, self._until = float("-inf"), float("inf")
        if scope is not None:
            first = min(w.start for w in (scope.incident, *scope.baseline, *scope.seasonal))
            self._since = (first - OLDEST).timestamp()
            self._until = max(scope.incident.end.timestamp(), time.time()) + AHEAD.total_seconds()

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """What was dropped, in one sentence."""
        if not self._dropped:
            return ()
        told = ", ".join(f"{count:,} {what}" for what, count in sorted(self._dropped.items()))
        return (
            Gap(
                source=self._source,
                reason=GapReason.FAILED,
                detail=f"not believed, and dropped: {told}",
                mend=f"check the clocks, and what reports to {self._source}",
            ),
        )

    def series(self, found: Iterable[Series]) -> Iterator[Series]:
        """Series with their believable points, in order; one without any is left out."""
        for one in found:
            mended = one if self._sound(one) else self._mended(one)
            if mended.epoch_s or mended is one:
                yield mended

    def spans(self, found: Iterable[Span]) -> Iterator[Span]:
        """Spans of a possible length and time."""
        for one in found:
            if not 0 <= one.duration_ms <= LONGEST_MS:
                self._dropped["spans of an impossible length"] += 1
            elif self._timely(one.start_s, "spans"):
                yield one

    def changes(self, found: Iterable[Change]) -> Iterator[Change]:
        """Changes of a possible time."""
        return (one for one in found if self._timely(one.at.timestamp(), "changes"))

    def statuses(self, found: Iterable[Status]) -> Iterator[Status]:
        """States that are numbers; they are of the moment they were read."""
        for one in found:
            if isfinite(one.observed) and (one.expected is None or isfinite(one.expected)):
                yield one
            else:
                self._dropped["states that are no finite numbers"] += 1

    def _timely(self, at_s: float, what: str) -> bool:
        if self._since <= at_s <= self._until:
            return True
        self._dropped[f"{what} far outside the time asked for"] += 1
        return False

    def _sound(self, one: Series) -> bool:
        """The usual case, quickly."""
        at = one.epoch_s
        return (
            len(at) == len(one.values)
            and all(map(isfinite, one.values))
            and all(a < b for a, b in pairwise(at))
            and (not at or self._since <= at[0] <= at[-1] <= self._until)
        )

    def _mended(self, one: Series) -> Series:
        if len(one.epoch_s) != len(one.values):
            self._dropped["series with more times than values, or fewer"] += 1
            return replace(one, epoch_s=Floats(), values=Floats())
        points = dict(self._points(one))
        epoch_s = Floats(sorted(points))
        return replace(one, epoch_s=epoch_s, values=Floats(points[at] for at in epoch_s))

    def _points(self, one: Series) -> Iterator[tuple[float, float]]:
        for at, value in zip(one.epoch_s, one.values, strict=True):
            if not isfinite(value):
                self._dropped["points that are no finite numbers"] += 1
            elif self._timely(at, "points"):
                yield at, value
