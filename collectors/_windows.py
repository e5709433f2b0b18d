"""Windows and series that are read piece by piece."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from math import ceil, floor

from collectors.base import Series, Window, utc

CLOSE = timedelta(hours=1)


def joined(windows: Iterable[Window]) -> list[Window]:
    """The windows in order, those less than an hour apart made one: incident and the time before are one request."""
    result: list[Window] = []
    for window in sorted(windows, key=lambda w: w.start):
        if result and window.start - result[-1].end <= CLOSE:
            result[-1] = Window(start=result[-1].start, end=max(result[-1].end, window.end))
        else:
            result.append(window)
    return result


def around(windows: Iterable[Window]) -> Window:
    """From the first moment of the windows to their last."""
    first, *more = joined(windows)
    return Window(start=first.start, end=max((window.end for window in more), default=first.end))


def whole_periods(window: Window, period_s: float) -> Window:
    """The periods that lie wholly inside: a sum over part of a period looks like a fall.

    A window too short for one whole period is widened to the periods it touches.
    """
    first, last = window.start.timestamp() / period_s, window.end.timestamp() / period_s
    start, end = ceil(first), floor(last)
    if start >= end:
        start, end = floor(first), ceil(last)
    return Window(start=utc(float(start * period_s)), end=utc(float(end * period_s)))


def concatenated(pieces: Sequence[Series]) -> Series:
    """One series of several of the same metric; where they overlap, the later piece holds."""
    points = {at: value for one in pieces for at, value in zip(one.epoch_s, one.values, strict=True)}
    epoch_s = tuple(sorted(points))
    return Series(ref=pieces[0].ref, epoch_s=epoch_s, values=tuple(points[at] for at in epoch_s))
