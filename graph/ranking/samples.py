"""Series cut by the windows and screened, many at a time: only what may deviate is looked at one by one."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from collectors.base import Series, SeriesRef
from graph.ranking.semantics import Meaning, meaning_of
from graph.ranking.windows import Windows

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
MIN_DEVIATION = 3.0  # robust standard deviations: the usual three-sigma rule
MAD_TO_SIGMA = 1.4826  # of a normal distribution
MIN_HISTORY = 12  # baseline samples from which its last quarter is a baseline of its own
LONG_HISTORY = 100  # samples: what none of them reached happens less than once in a hundred
LARGEST = 1e300  # beyond any measurement, and a thousand of them are a number still
ROWS = 256  # of a block: bounds what is copied at a time
TREND_PARTS = 3  # start, middle, end: fewer cannot tell a slope from a step
_SLOW = ("saturation", "pool", "host", "backlog")  # what leaks and piles up


@dataclass(frozen=True, slots=True)
class Samples:
    """One series, cut by the windows. Times in epoch seconds, ascending."""

    source: str
    ref: SeriesRef
    means: Meaning
    t: Floats  # of incident and baselines
    v: Floats
    incident_t: Floats
    incident_v: Floats
    centers: tuple[float, ...]  # median of each baseline that has samples
    seasonal: tuple[float, ...]  # median at the same hours of each earlier day
    spread: float  # median absolute deviation within baselines
    count: int  # baseline samples
    trend: tuple[float, ...] = ()  # medians of start, middle and end, if it steadily gets worse
    rising_s: float = 0.0  # when the first part of a trend is over


@dataclass(frozen=True, slots=True)
class _Block:
    """Series with the same times: ``values`` has a row for each of them."""

    rows: Sequence[tuple[str, Series]]
    t: Floats
    values: Floats


@dataclass(frozen=True, slots=True)
class Silence:
    """A series that had samples in the baseline and stopped before the incident's end."""

    source: str
    ref: SeriesRef
    last_s: float


def finite(series: Series) -> tuple[Floats, Floats]:
    """Times and values, ascending by time, without what is no number."""
    size = min(len(series.epoch_s), len(series.values))
    t, v = (np.asarray(column, np.float64)[:size] for column in (series.epoch_s, series.values))
    if not (_is_finite(t) and _is_finite(v)):
        sound = np.isfinite(t) & np.isfinite(v)
        t, v = t[sound], v[sound]
    if t.size > 1 and not (t[1:] > t[:-1]).all():
        order = np.lexsort((v, t))
        t, v = t[order], v[order]
    if v.size and max(v.max(), -v.min()) > LARGEST:
        v = np.clip(v, -LARGEST, LARGEST)
    return t, v


def _is_finite(values: Floats) -> bool:
    """Smallest and largest are NaN if any value is: two passes, and no copy."""
    return not values.size or bool(np.isfinite(values.min()) and np.isfinite(values.max()))


def within(t: Floats, windows: Iterable[tuple[float, float]]) -> Mask:
    """Which moments lie in any of the half-open windows."""
    mask: Mask = np.zeros(t.shape, dtype=bool)
    for start, end in windows:
        mask |= (t >= start) & (t < end)
    return mask


def median(values: Floats) -> Floats:
    """Along the last axis, which is not empty; faster than numpy's own on short rows."""
    size = values.shape[-1]
    half = size // 2
    if size % 2:
        return np.partition(values, half, axis=-1)[..., half]
    parts = np.partition(values, (half - 1, half), axis=-1)
    middle: Floats = parts[..., half - 1] / 2.0 + parts[..., half] / 2.0
    return middle


def screened(series: Iterable[tuple[str, Series]], windows: Windows) -> tuple[list[Samples], list[Silence]]:
    """Those series that may deviate, and those that stopped; the rest is as it always was."""
    samples: list[Samples] = []
    silent: list[Silence] = []
    for block in _blocks(series):
        incident = within(block.t, [windows.incident])
        held = within(block.t, windows.baselines) & ~incident
        if incident.any() and held.any():
            samples += _Screen(block, windows, incident, held).samples()
        elif held.sum() >= MIN_HISTORY:
            last_s = float(block.t[held].max())
            silent += [Silence(source, one.ref, last_s) for source, one in block.rows]
    return samples, silent


def _blocks(series: Iterable[tuple[str, Series]]) -> Iterator[_Block]:
    alike: dict[bytes, list[tuple[str, Series, Floats]]] = {}
    times: dict[bytes, Floats] = {}
    for source, one in series:
        t, v = finite(one)
        if t.size:
            key = blake2b(t.tobytes(), digest_size=16).digest()
            times.setdefault(key, t)
            found = alike.setdefault(key, [])
            found.append((source, one, v))
            if len(found) == ROWS:
                yield _block(times[key], alike.pop(key))
    for key, found in alike.items():
        yield _block(times[key], found)


def _block(t: Floats, found: Sequence[tuple[str, Series, Floats]]) -> _Block:
    return _Block([(source, one) for source, one, _ in found], t, np.stack([v for _, _, v in found]))


def _spread(off: Floats) -> Floats:
    """By row the median absolute deviation; of a long history no more than what makes its extremes three sigma.

    A daily curve spreads widely and never leaves its range: what does leave it is a departure.
    """
    usual = median(off)
    if off.shape[1] < LONG_HISTORY:
        return usual
    bounded: Floats = np.minimum(usual, off.max(axis=1) / (MIN_DEVIATION * MAD_TO_SIGMA))
    return bounded


class _Screen:
    """One block against its baselines."""

    def __init__(self, block: _Block, windows: Windows, incident: Mask, held: Mask) -> None:
        self.block, self.held = block, held
        self.drawn = incident | held
        self.incident_t, self.incident = block.t[incident], block.values[:, incident]
        self.before = held & (block.t < self.incident_t[0])
        self.recent = (self.before & within(block.t, windows.baselines[:1])) | incident
        self.centers, self.spread = self._baselines(windows, incident)
        self.seasonal = self._seasonal(windows)
        self.meanings = [meaning_of(one.ref) for _, one in block.rows]

    def _baselines(self, windows: Windows, incident: Mask) -> tuple[list[Floats], Floats]:
        centers, off = [], []
        for window in windows.baselines:
            inside = within(self.block.t, [window]) & ~incident
            if inside.any():
                values = self.block.values[:, inside]
                centers.append(median(values))
                off.append(np.abs(values - centers[-1][:, None]))
        before = self.block.values[:, self.before]
        if before.shape[1] >= MIN_HISTORY:
            centers.append(median(before[:, -(before.shape[1] // 4) :]))
        return centers, _spread(np.concatenate(off, axis=1))

    def _seasonal(self, windows: Windows) -> list[Floats]:
        masks = [within(self.block.t, [window]) & ~self.drawn for window in windows.seasonal]
        return [median(self.block.values[:, mask]) for mask in masks if mask.any()]

    def samples(self) -> list[Samples]:
        kept = self._deviating() | self._crowded()
        trends = self._trends()
        rows = np.flatnonzero(kept | np.array([bool(trend) for trend in trends]))
        return [self._sample(int(row), trends[row]) for row in rows]

    def _deviating(self) -> Mask:
        """Rows with any sample of the incident three spreads away from every baseline."""
        centers = np.stack(self.centers)
        limit = MIN_DEVIATION * MAD_TO_SIGMA * self.spread
        high = self.incident.max(axis=1) > centers.max(axis=0) + limit
        low = self.incident.min(axis=1) < centers.min(axis=0) - limit
        mask: Mask = high | low
        return mask

    def _crowded(self) -> Mask:
        """Rows that have a limit: what is near it matters however much it varies."""
        return np.array([m.limited for m in self.meanings])

    def _trends(self) -> list[tuple[float, ...]]:
        """By row the medians of start, middle and end of baseline and incident, if it got worse all along; else none.

        What leaks or piles up slowly lies in its own baseline already, and departs from nothing.
        """
        slow = np.array([m.role in _SLOW for m in self.meanings])
        way = np.array([-1.0 if m.worse == "down" else 1.0 for m in self.meanings])
        values = self.block.values[:, self.recent]
        found: list[tuple[float, ...]] = [()] * len(slow)
        if not slow.any() or values.shape[1] < MIN_HISTORY:
            return found
        parts = np.array_split(values, TREND_PARTS, axis=1)
        levels = [median(part) for part in parts]
        noise = median(np.concatenate([np.abs(p - m[:, None]) for p, m in zip(parts, levels, strict=True)], axis=1))
        steps = way * np.diff(np.stack(levels), axis=0)
        rise = way * (levels[-1] - levels[0])
        # steady: no step of it is less than half of what an even rise would make
        steady = (steps >= 0.5 * rise / (TREND_PARTS - 1)).all(axis=0)
        for row in np.flatnonzero(slow & steady & (rise > MIN_DEVIATION * MAD_TO_SIGMA * noise) & (rise > 0)):
            found[row] = tuple(float(level[row]) for level in levels)
        return found

    def _sample(self, row: int, trend: tuple[float, ...]) -> Samples:
        source, one = self.block.rows[row]
        return Samples(
            source=source,
            ref=one.ref,
            means=self.meanings[row],
            t=self.block.t[self.drawn],
            v=self.block.values[row, self.drawn],
            incident_t=self.incident_t,
            incident_v=self.incident[row],
            centers=tuple(float(c[row]) for c in self.centers),
            seasonal=tuple(float(s[row]) for s in self.seasonal),
            spread=float(self.spread[row]),
            count=int(self.held.sum()),
            trend=trend,
            rising_s=float(self.block.t[self.recent][int(self.recent.sum()) // TREND_PARTS]),
        )
