"""What the incident costs: requests, transactions, users, money, where the telemetry has them.

A figure is given only if a finding shows its series: what did not depart from normal costs nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from statistics import fmean

from collectors.base import Series, SeriesRef
from graph.ranking.metrics import clock_time, median
from graph.ranking.semantics import meaning, words
from graph.ranking.windows import Windows
from graph.state import ImpactFigure

_CURRENCIES = frozenset(["usd", "eur", "gbp", "jpy", "krw", "cny", "inr", "chf", "cad", "aud", "dollars", "euros"])
_MONEY = frozenset(["revenue", "sales", "income"])
_LOST = frozenset(["lost", "loss", "losses"])
_PEOPLE_AND_WORK = frozenset(
    ["users", "customers", "sessions", "transactions", "orders", "payments", "carts", "jobs", "messages"]
)
_WAITING = frozenset(["pending", "affected", "stuck", "blocked", "waiting", "failed"])
_REQUESTS = frozenset(["request", "requests"])
_PERIODS_S = {
    **dict.fromkeys(("s", "sec", "second", "seconds", "rps", "qps"), 1.0),
    **dict.fromkeys(("min", "minute"), 60.0),
    "hour": 3600.0,
}
MAX_FIGURES = 12


@dataclass(frozen=True, slots=True)
class _Cut:
    """A series in the incident window, its baseline level and the words of its name and unit."""

    ref: SeriesRef
    points: tuple[tuple[float, float], ...]
    baseline: float | None
    words: frozenset[str]

    @property
    def now(self) -> float:
        """Median of the last quarter, at least of the last sample."""
        return median([v for _, v in self.points[-max(len(self.points) // 4, 1) :]])

    @property
    def period_s(self) -> float | None:
        """The time a rate is per; None if it is no rate."""
        return next((_PERIODS_S[w] for w in sorted(self.words) if w in _PERIODS_S), None)


def figures(
    series: Iterable[Series], alerted: str, windows: Windows, ids: Mapping[SeriesRef, str]
) -> tuple[ImpactFigure, ...]:
    """Every figure that the telemetry allows and a finding backs. ``ids`` are the findings by their series."""
    cuts = [cut for s in series if (cut := _cut(s, windows)) is not None]
    cuts.sort(key=lambda c: (c.ref.component, c.ref.metric, c.ref.statistic, c.ref.source, c.ref.query))
    mine = [c for c in cuts if c.ref.component == alerted]
    found = [
        *(f for c in cuts for f in _money(c, windows)),
        *(f for c in cuts for f in _waiting(c, windows)),
        *_failures(mine, windows),
    ]
    backed = [(ids[ref], figure) for ref, figure in found if ref in ids and isfinite(figure.value)]
    return tuple(figure.model_copy(update={"evidence": (eid,)}) for eid, figure in backed[:MAX_FIGURES])


_Figure = tuple[SeriesRef, ImpactFigure]


def _cut(series: Series, windows: Windows) -> _Cut | None:
    points = sorted(p for p in zip(series.epoch_s, series.values, strict=False) if isfinite(p[1]))
    incident = tuple(p for p in points if windows.in_incident(p[0]))
    before = [v for t, v in points if windows.in_baseline(t)]
    if not incident:
        return None
    found = words(series.ref.metric) | words(series.ref.unit)
    return _Cut(series.ref, incident, median(before) if before else None, found)


def _money(cut: _Cut, windows: Windows) -> list[_Figure]:
    currencies = sorted(cut.words & _CURRENCIES)
    if not cut.words & _LOST or not (currencies or cut.words & _MONEY):
        return []
    unit = currencies[0].upper() if currencies else "currency units"
    found = []
    if cut.period_s == 60.0:
        found.append(_figure(cut, f"{cut.ref.metric} now", cut.now, f"{unit}/min", windows))
    found.append(_figure(cut, f"{cut.ref.metric} in total", _total(cut), unit, windows))
    return found


def _waiting(cut: _Cut, windows: Windows) -> list[_Figure]:
    if not cut.words & _WAITING or not cut.words & _PEOPLE_AND_WORK or cut.period_s:
        return []
    unit = min(cut.words & _PEOPLE_AND_WORK)
    return [_figure(cut, f"{cut.ref.component} {cut.ref.metric} now", cut.now, unit, windows)]


def _failures(cuts: Sequence[_Cut], windows: Windows) -> list[_Figure]:
    """Error share of the alerted service, and failed requests: counted, or computed from share and request rate."""
    shares = [c for c in cuts if _role(c) == "error" and meaning(c.ref.metric, c.ref.unit).percent]
    counts = [c for c in cuts if _role(c) == "error" and _counts_requests(c) and c not in shares]
    rates = [c for c in cuts if _role(c) == "traffic" and c.words & _REQUESTS and c.period_s]
    found = [_figure(c, f"{c.ref.component} {c.ref.metric} now", c.now, "%", windows) for c in shares[:1]]
    if counts:
        found.append(_figure(counts[0], "failed requests", _total(counts[0]), "requests", windows))
    elif shares and rates:
        failed = _total(_failing(rates[0], shares[0]), net=False)
        found.append(_figure(shares[0], "failed requests (request rate × error share)", failed, "requests", windows))
    return found


def _counts_requests(cut: _Cut) -> bool:
    return bool(cut.words & _REQUESTS) or "5xx" in cut.ref.metric.lower()


def _failing(rate: _Cut, share: _Cut) -> _Cut:
    """The part of a request rate that fails, moment by moment; between the samples of the share, its mean."""
    percent, mean = dict(share.points), fmean(v for _, v in share.points)
    return replace(rate, points=tuple((t, v * percent.get(t, mean) / 100.0) for t, v in rate.points))


def _role(cut: _Cut) -> str:
    return meaning(cut.ref.metric, cut.ref.unit).role


def _total(cut: _Cut, *, net: bool = True) -> float:
    """Over the window: a rate times its time, a count summed; above the baseline where ``net``."""
    base = (cut.baseline or 0.0) if net else 0.0
    above = [(t, max(v - base, 0.0)) for t, v in cut.points]
    period = cut.period_s
    if period is None:
        return sum(v for _, v in above)
    step = median([b - a for (a, _), (b, _) in pairwise(above)] or [period])
    return sum(v for _, v in above) * step / period


def _figure(cut: _Cut, name: str, value: float, unit: str, windows: Windows) -> _Figure:
    window = f"{clock_time(windows.incident[0])} to {clock_time(windows.incident[1])}"
    return cut.ref, ImpactFigure(name=name, value=round(value, 2), unit=unit, window=window)
