"""What the incident costs: requests, transactions, users, money, where the telemetry has them.

A figure is given only if a finding shows its series: what did not depart from normal costs nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from statistics import median
from typing import NamedTuple

import numpy as np

from collectors.base import Measures, Series, SeriesRef
from graph.ranking.deviation import clock_time
from graph.ranking.samples import LARGEST, finite, within
from graph.ranking.semantics import Meaning, meaning_of, words
from graph.ranking.topology import Topology
from graph.ranking.windows import Windows
from graph.state import ImpactFigure

_CURRENCIES = {
    **{code.lower(): code for code in ("USD", "EUR", "GBP", "JPY", "KRW", "CNY", "INR", "CHF", "CAD", "AUD")},
    "dollars": "USD",
    "euros": "EUR",
}
_MONEY = frozenset(["revenue", "sales", "income", "earnings", "turnover", "gmv"])
_PEOPLE = frozenset(["users", "customers", "sessions", "logins", "signups"])
_WORK = frozenset(["carts", "checkouts", "orders", "bookings", "payments", "transactions", "jobs", "messages"])
_COUNTABLE = _PEOPLE | _WORK
_WAITING = frozenset(["pending", "affected", "stuck", "blocked", "waiting", "failed"])
_REQUESTS = frozenset(["request", "requests", "http", "call", "calls", "invocation", "invocations"])
_RATIO = frozenset(["ratio", "fraction"])
_OBJECTIVE = frozenset(["slo", "objective"])
_BUDGET = frozenset(["budget"])
_COUNTED = frozenset(["sum", "count", "samplecount", "increase"])  # statistics whose samples add up
_PERIODS_S = {
    **dict.fromkeys(("s", "sec", "second", "seconds", "rps", "qps"), 1.0),
    **dict.fromkeys(("min", "minute", "rpm"), 60.0),
    "hour": 3600.0,
}
USUAL_SLOW = 95.0
"""Above the baseline's 95th percentile a request is slow: one in twenty usually is, which nobody alerts on."""
MAX_FIGURES = 12  # on one screen
MAX_CALLERS = 20  # entry points that are asked for their requests, if the alerted service has none


@dataclass(frozen=True, slots=True)
class _Cut:
    """A series in the incident window, what was usual before, and the words of its name and unit."""

    ref: SeriesRef
    points: tuple[tuple[float, float], ...]
    baseline: float | None
    seasonal: float | None  # the same hours on earlier days
    words: frozenset[str]

    @property
    def now(self) -> float:
        """Median of the last quarter, at least of the last sample."""
        return median([v for _, v in self.points[-max(len(self.points) // 4, 1) :]])

    @property
    def period_s(self) -> float | None:
        """The time a rate is per; None if it is no rate."""
        return next((_PERIODS_S[w] for w in sorted(self.words) if w in _PERIODS_S), None)

    @property
    def adds_up(self) -> bool:
        """Whether its samples make a total: counts, and rates over time. A level, as of a queue, does not."""
        return self.period_s is not None or self.ref.statistic.lower() in _COUNTED

    @property
    def means(self) -> Meaning:
        return meaning_of(self.ref)

    @property
    def role(self) -> Measures:
        return self.means.role

    @property
    def usual(self) -> float | None:
        """The lower of both baselines: what falls short of it is missing by either."""
        return min((v for v in (self.baseline, self.seasonal) if v is not None), default=None)

    @property
    def percentile(self) -> float | None:
        """95 of a p95, by its statistic or its name; None of a mean; 100 of a maximum."""
        said = {self.ref.statistic.lower().replace("percentile", ""), *self.words}
        if "max" in said or "maximum" in said:
            return 100.0
        return next((q for q, names in _PERCENTILES.items() if said & names), None)


_PERCENTILES: Mapping[float, frozenset[str]] = {
    50.0: frozenset(["p50", "50", "median"]),
    75.0: frozenset(["p75", "75"]),
    90.0: frozenset(["p90", "90"]),
    USUAL_SLOW: frozenset(["p95", "95"]),
    99.0: frozenset(["p99", "99"]),
    99.9: frozenset(["p999", "999", "p99.9", "99.9"]),
}


class _Figure(NamedTuple):
    """A figure and the series that it is computed from, the one that departed first."""

    refs: tuple[SeriesRef, ...]
    figure: ImpactFigure


def figures(
    series: Iterable[Series],
    alerted: str,
    windows: Windows,
    ids: Mapping[SeriesRef, str],
    topology: Topology | None = None,
) -> tuple[ImpactFigure, ...]:
    """Every figure that the telemetry allows and a finding backs. ``ids`` are the findings by their series.

    Requests are the alerted service's; if nothing is measured of them, those of the entry points that call it, which
    ``topology`` tells: there the users are.
    """
    entries = _entries(alerted, topology)
    asked = {alerted, *entries}
    wanted = (s for s in series if s.ref in ids or (s.ref.component in asked and _of_requests(s.ref)))
    cuts = [cut for s in wanted if (cut := _cut(s, windows)) is not None]
    cuts.sort(key=lambda c: (c.ref.component, c.ref.metric, c.ref.statistic, c.ref.source, c.ref.query))
    found = [
        *(f for c in cuts for f in (*_money(c, windows), *_earnings(c, windows))),
        *(f for c in cuts for f in (*_waiting(c, windows), *_missing(c, windows))),
        *_requests(cuts, (alerted, *entries), windows, ids),
        *(f for c in cuts for f in _budget(c, windows)),
    ]
    backed = [f for f in found if f.refs[0] in ids and abs(f.figure.value) < LARGEST]
    return tuple(
        f.figure.model_copy(update={"evidence": tuple(dict.fromkeys(ids[r] for r in f.refs if r in ids))})
        for f in backed[:MAX_FIGURES]
    )


def _of_requests(ref: SeriesRef) -> bool:
    return meaning_of(ref).role in ("error", "success", "latency", "requests")


def _cut(series: Series, windows: Windows) -> _Cut | None:
    t, v = finite(series)
    incident = within(t, (windows.incident,))
    if not incident.any():
        return None
    before, earlier = v[within(t, windows.baselines) & ~incident], v[within(t, windows.seasonal) & ~incident]
    return _Cut(
        ref=series.ref,
        points=tuple(zip(t[incident].tolist(), v[incident].tolist(), strict=True)),
        baseline=float(np.median(before)) if before.size else None,
        seasonal=float(np.median(earlier)) if earlier.size else None,
        words=words(series.ref.metric) | words(series.ref.unit),
    )


# --- money, people, work ----------------------------------------------------------------------------------------


def _money(cut: _Cut, windows: Windows) -> list[_Figure]:
    """Money that is lost, as a series tells it."""
    if cut.role != "loss" or not cut.words & (_CURRENCIES.keys() | _MONEY):
        return []
    unit, found = _currency(cut), []
    if cut.period_s == 60.0:
        found.append(_figure((cut,), f"{cut.ref.metric} now", cut.now, f"{unit}/min", windows))
    found.append(_figure((cut,), f"{cut.ref.metric} in total", _total(cut), unit, windows))
    return found


def _earnings(cut: _Cut, windows: Windows) -> list[_Figure]:
    """Earnings below what is usual."""
    if cut.role != "earnings" or not cut.adds_up or cut.usual is None:
        return []
    unit, found = _currency(cut), []
    if cut.period_s is not None:
        now = max(cut.usual - cut.now, 0.0) * 60.0 / cut.period_s
        found.append(_figure((cut,), f"{cut.ref.metric} below the usual now", now, f"{unit}/min", windows))
    found.append(_figure((cut,), f"{cut.ref.metric} below the usual in total", _shortfall(cut), unit, windows))
    return found


def _currency(cut: _Cut) -> str:
    return min((_CURRENCIES[w] for w in cut.words if w in _CURRENCIES), default="currency units")


def _waiting(cut: _Cut, windows: Windows) -> list[_Figure]:
    if not cut.words & _WAITING or not cut.words & _COUNTABLE or cut.period_s:
        return []
    unit = min(cut.words & _COUNTABLE)
    return [_figure((cut,), f"{cut.ref.component} {cut.ref.metric} now", cut.now, unit, windows)]


def _missing(cut: _Cut, windows: Windows) -> list[_Figure]:
    """Orders, logins and the like that did not come."""
    harmless = cut.role in ("requests", "traffic", "unknown") and not cut.words & _WAITING
    if not harmless or not cut.words & _COUNTABLE or not cut.adds_up or cut.usual is None:
        return []
    unit, short = min(cut.words & _COUNTABLE), _shortfall(cut)
    return [_figure((cut,), f"{cut.ref.component} {cut.ref.metric} below the usual", short, unit, windows)] * (
        short > 0
    )


def _budget(cut: _Cut, windows: Windows) -> list[_Figure]:
    """What a service level objective says of itself; without one there is no budget to speak of."""
    if not cut.words & _BUDGET or not cut.words & (_OBJECTIVE | {"error"}):
        return []
    unit = "%" if cut.means.percent else cut.ref.unit or ("of 1" if cut.words & _RATIO else "")
    return [_figure((cut,), f"{cut.ref.component} {cut.ref.metric} now", cut.now, unit, windows)]


# --- requests ---------------------------------------------------------------------------------------------------


def _requests(
    cuts: Sequence[_Cut], components: Sequence[str], windows: Windows, ids: Mapping[SeriesRef, str]
) -> list[_Figure]:
    """Failed and slow requests of the first of the components that has any; the alerted one is the first of all."""
    by_component: dict[str, list[_Cut]] = {}
    for cut in cuts:
        by_component.setdefault(cut.ref.component, []).append(cut)
    for component in components:
        mine = by_component.get(component, [])
        found = [f for f in (*_failures(mine, windows), *_slow(mine, windows)) if f.refs[0] in ids]
        if found:
            return found if component == components[0] else [_of(component, f) for f in found]
    return []


def _entries(alerted: str, topology: Topology | None) -> list[str]:
    """What calls the alerted service, entry points first: what nobody calls is called by users."""
    if topology is None:
        return []
    above = topology.above(alerted)
    order = sorted((c for c in above if c != alerted), key=lambda c: (bool(topology.callers.get(c)), above[c], c))
    return order[:MAX_CALLERS]


def _of(component: str, found: _Figure) -> _Figure:
    name = found.figure.name
    if not name.startswith(component):
        name = f"{component}: {name}"
    return found._replace(figure=found.figure.model_copy(update={"name": name}))


def _failures(cuts: Sequence[_Cut], windows: Windows) -> list[_Figure]:
    """The share of requests that fail, and how many: counted, or computed from share and request rate."""
    # what counts failures is meant so; a success rate may be that of one kind of request
    said = next(iter(sorted(filter(_tells_share, cuts), key=lambda c: c.role != "error")), None)
    counted = next((c for c in cuts if c.role == "error" and not c.means.percent and _counts_requests(c)), None)
    rate, found = _request_rate(cuts), []
    if said:
        name = said.ref.metric if said.role == "error" else f"100 % − {said.ref.metric}"
        found.append(_figure((said,), f"{said.ref.component} {name} now", _failing(said).now, "%", windows))
    if counted:
        found.append(_figure((counted,), "failed requests", _total(counted), "requests", windows))
    elif said and rate:
        failed = _total(_times(rate, _failing(said), 0.01), net=False)
        named = "failed requests (request rate × error share)"
        found.append(_figure((said, rate), named, failed, "requests", windows))
    return found


def _tells_share(cut: _Cut) -> bool:
    """Whether it is the share of requests that fails, or that succeeds: free memory and idle threads are neither."""
    shared = (cut.means.percent or bool(cut.words & _RATIO)) and not cut.words & _BUDGET
    succeed = cut.role == "success" and cut.words & {"success", "successful", "availability"}
    return shared and (cut.role == "error" or bool(succeed))


def _failing(share: _Cut) -> _Cut:
    """The percentage of requests that fails."""
    percent = 1.0 if share.means.percent else 100.0
    points = ((t, v * percent if share.role == "error" else 100.0 - v * percent) for t, v in share.points)
    return replace(share, points=tuple((t, min(max(v, 0.0), 100.0)) for t, v in points))


def _counts_requests(cut: _Cut) -> bool:
    # a count of unknown statistic is one a sample
    return not cut.words & _RATIO and (bool(cut.words & _REQUESTS) or "5xx" in cut.ref.metric.lower())


def _request_rate(cuts: Sequence[_Cut]) -> _Cut | None:
    """Requests that came in: as the source says, or by name; of several the first by name."""
    known = [c for c in cuts if c.adds_up and c.role == "requests"]
    named = [c for c in known if c.words & _REQUESTS]
    return next(iter(named or known), None)


def _slow(cuts: Sequence[_Cut], windows: Windows) -> list[_Figure]:
    """How many requests were slower than the baseline's 95th percentile; else how much time was lost."""
    rate = _request_rate(cuts)
    times = [c for c in cuts if c.role == "latency" and c.means.seconds > 0 and c.baseline is not None]
    if rate is None or not times:
        return []
    return _slower_than_usual(times, rate, windows) or _time_lost(times, rate, windows)


def _slower_than_usual(times: Sequence[_Cut], rate: _Cut, windows: Windows) -> list[_Figure]:
    """If the median passes what was the 95th percentile, at least half of the requests do: a lower bound."""
    usual = next((c for c in times if c.percentile == USUAL_SLOW), None)
    lower = [(q, c) for c in times if (q := c.percentile) is not None and q < USUAL_SLOW]
    if usual is None or usual.baseline is None:
        return []
    limit_s = usual.baseline * usual.means.seconds
    for q, cut in sorted(lower, key=lambda found: found[0]):
        beyond = replace(cut, points=tuple((t, float(v * cut.means.seconds > limit_s)) for t, v in cut.points))
        slow = _total(_times(rate, beyond, 1.0 - q / 100.0), net=False)
        if slow > 0:
            name = f"requests slower than the usual p95 of {limit_s * 1000:,.0f} ms (at least)"
            return [_figure((cut, rate, usual), name, slow, "requests", windows)]
    return []


def _time_lost(times: Sequence[_Cut], rate: _Cut, windows: Windows) -> list[_Figure]:
    """Excess of the mean times requests. Of a percentile only the requests beyond it are known to be slower."""
    for cut in sorted(times, key=lambda c: c.percentile or 0.0):
        q, base = cut.percentile or 0.0, cut.baseline or 0.0
        over = replace(cut, points=tuple((t, max(v - base, 0.0) * cut.means.seconds) for t, v in cut.points))
        lost = _total(_times(rate, over, 1.0 - q / 100.0), net=False)
        if lost > 0:
            of = f"the slowest {100.0 - q:g} % of requests" if q else "requests"
            return [_figure((cut, rate), f"time lost by {of}", lost, "s", windows)]
    return []


# --- arithmetic -------------------------------------------------------------------------------------------------


def _times(rate: _Cut, factor: _Cut, scale: float) -> _Cut:
    """A request rate times a factor, moment by moment; between the samples of the factor, its mean."""
    by_time, mean = dict(factor.points), sum(v for _, v in factor.points) / len(factor.points)
    return replace(rate, points=tuple((t, v * by_time.get(t, mean) * scale) for t, v in rate.points))


def _shortfall(cut: _Cut) -> float:
    """By how much the window's total is below the usual."""
    usual = cut.usual or 0.0
    return _total(replace(cut, points=tuple((t, max(usual - v, 0.0)) for t, v in cut.points)), net=False)


def _total(cut: _Cut, *, net: bool = True) -> float:
    """Over the window: a rate times its time, a count summed; above the baseline where ``net``."""
    base = (cut.baseline or 0.0) if net else 0.0
    above = [(t, max(v - base, 0.0)) for t, v in cut.points]
    period = cut.period_s
    if period is None:
        return sum(v for _, v in above)
    step = median([b - a for (a, _), (b, _) in pairwise(above)] or [period])
    return sum(v for _, v in above) * step / period


def _figure(cuts: Sequence[_Cut], name: str, value: float, unit: str, windows: Windows) -> _Figure:
    window = f"{clock_time(windows.incident[0])} to {clock_time(windows.incident[1])}"
    figure = ImpactFigure(name=name, value=round(value, 2) if isfinite(value) else value, unit=unit, window=window)
    return _Figure(tuple(cut.ref for cut in cuts), figure)
