"""Counts at the same load: fewer errors of fewer requests are no cure, and more of more no harm. Pure."""

import re
from collections.abc import Iterable
from math import sqrt
from typing import NamedTuple

from collectors.base import Measures, SeriesRef
from graph.ranking.semantics import meaning_of, words

_OF_REQUESTS: frozenset[Measures] = frozenset({"error", "loss", "backlog"})
"""What half the requests make half of; of work that waits by Little's law, if a request takes as long as before."""
_COUNTED = frozenset({"sum", "count", "samplecount", "increase", "rate"})
_TIMES = frozenset({"second", "seconds", "sec", "s", "minute", "minutes", "min", "milliseconds", "ms", "age", "time"})
_SHARES = frozenset({"ratio", "fraction", "share", "utilization", "utilisation"})
_ANSWERED = re.compile(r"[2-5]xx", re.IGNORECASE)  # those of one outcome, not all that came
_NAMED = frozenset({"request", "requests", "calls", "invocations"})
GONE = 0.1  # of the requests: what is left where a service answers nobody any more


class Load(NamedTuple):
    """Requests that a component got just before the first call and now, by one metric, whatever its unit."""

    before: float | None
    now: float | None


def grows_with_requests(ref: SeriesRef) -> bool:
    """Whether it counts what happens to requests; a share or a duration does not depend on how many there are."""
    means, named = meaning_of(ref), words(ref.metric) | words(ref.unit)
    if means.role not in _OF_REQUESTS or means.percent or named & _SHARES:
        return False
    if means.role == "backlog":
        return not named & _TIMES
    return ref.statistic.lower() in _COUNTED or "/" in ref.unit or bool({"per", "total", "count"} & named)


def requests_beside(ref: SeriesRef, known: Iterable[SeriesRef]) -> SeriesRef | None:
    """The requests of the same component, as the same source measures them if it does; None if nobody does.

    Of several the one that is called so.
    """
    found = [
        other
        for other in known
        if other.component == ref.component
        and meaning_of(other).role == "requests"
        and not _ANSWERED.search(other.metric)
    ]
    return min(found, key=lambda r: _order(r, ref.source), default=None)


def _order(ref: SeriesRef, source: str) -> tuple[bool, bool, str, str, str]:
    return ref.source != source, not words(ref.metric) & _NAMED, ref.metric, ref.source, ref.query


def at_the_load_before(before: float, now: float, load: Load, *, events: bool = False) -> float | None:
    """What ``now`` would be of as many requests as there were; None where too few come to say anything.

    Where the count and its share of the requests moved to different sides, neither is believed: ``before``. Log lines
    are often sampled, and then do not follow the requests: of ``events`` that are no more than before, but for chance,
    no more are made.
    """
    if not load.before or load.now is None:
        return now
    if load.now < GONE * load.before:
        return None
    per_request = now * load.before / load.now
    if events and per_request > before and now - before <= 2.0 * sqrt(max(now, before)):
        return max(now, before)
    return before if (per_request - before) * (now - before) < 0.0 else per_request
