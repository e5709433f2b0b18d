"""Work that one component makes for another one: what a cache misses, what a producer hands over.

Who is given more to do than before fails or slows down without a fault of its own, as far as the work is more.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from graph.ranking.deviation import Deviation
from graph.ranking.semantics import meaning_of, words
from graph.ranking.topology import ONSET_SLACK_S, Topology

_MISSES = frozenset({"miss", "misses", "missed"})
_HITS = frozenset({"hit", "hits"})
_PUT_IN = frozenset({"sent", "publish", "published", "incoming", "produced", "enqueued", "in"})
_TAKEN_OUT = frozenset({"deleted", "deliver", "delivered", "ack", "acked", "consumed", "processed", "dequeued"})
BORNE = ("latency", "time", "saturation", "backlog", "status", "alarm", "unknown")
"""Channels in which too much work shows. Not errors: what fails gets nothing into a cache, and its callers repeat."""

LEAST = 1e-9  # in the place of nothing, where a ratio needs something


@dataclass(frozen=True)
class AddedWork:
    """That ``maker`` gives ``bearer`` more to do. ``share`` is the part of the bearer's work that this adds, 0..1."""

    maker: str
    bearer: str
    share: float
    told: str


def added_work(deviations: Iterable[Deviation], topology: Topology) -> list[AddedWork]:
    """All such pairs, by name."""
    measured: defaultdict[str, list[Deviation]] = defaultdict(list)
    for d in deviations:
        if d.kind == "metric" and d.ref is not None and d.observed is not None and d.baseline is not None:
            measured[d.component].append(d)
    found = [*_read_through(measured, topology), *_handed_over(measured, topology)]
    return sorted(found, key=lambda work: (work.bearer, work.maker))


def _read_through(measured: Mapping[str, Sequence[Deviation]], topology: Topology) -> Iterator[AddedWork]:
    """What a cache does not hold its callers get from where they got it first."""
    missing = {name: found for name, seen in measured.items() if (found := _misses(seen)) is not None}
    for cache, (more, since_s) in missing.items():
        callers = topology.waited_for_by(cache)
        for origin in sorted({name for caller in callers for name in topology.awaited(caller)} - missing.keys()):
            asked = max((_growth(d) for d in measured.get(origin, ()) if _is_work(d, since_s)), default=0.0)
            if asked > 0.0:
                told = f"what it misses is read from {origin}"
                yield AddedWork(cache, origin, min(asked, more), told)


def _misses(seen: Sequence[Deviation]) -> tuple[float, float] | None:
    """Which part of its misses a cache did not have before, and since when; more requests make more misses."""
    hits = max((_ratio(d) for d in seen if _counts(d, _HITS)), default=1.0)
    found = [(1.0 - max(hits, 1.0) / times, d.at_s) for d in seen if (times := _times_missed(d)) > 1.0]
    return max((one for one in found if one[0] > 0.0), default=None)


def _times_missed(d: Deviation) -> float:
    """How many times as many misses, by their number or by the share of either kind; 0 if it tells of none."""
    role = meaning_of(d.ref).role if d.ref is not None else ""
    if _named(d) & _MISSES and role in ("traffic", "fault"):
        return _ratio(d)
    if _named(d) & _HITS and role == "success":
        observed, baseline = d.observed or 0.0, d.baseline or 0.0
        whole = 1.0 if max(observed, baseline) <= 1.0 else 100.0
        return max(whole - observed, LEAST) / max(whole - baseline, LEAST)
    return 0.0


def _is_work(d: Deviation, since_s: float) -> bool:
    """Whether it counts what a component is asked for, and rose no earlier than that."""
    return d.channel == "traffic" and not _named(d) & (_HITS | _MISSES) and d.at_s >= since_s - ONSET_SLACK_S


def _handed_over(measured: Mapping[str, Sequence[Deviation]], topology: Topology) -> Iterator[AddedWork]:
    """More than before is put into a queue, though its producer gets no more requests, and no less is taken out."""
    for queue, seen in measured.items():
        takers = [name for name in topology.callees.get(queue, ()) if (queue, name) in topology.asynchronous]
        waits = any(d.channel == "backlog" for d in seen)
        if not takers or not waits or any(_counts(d, _TAKEN_OUT) and _ratio(d) < 1.0 for d in seen):
            continue
        arrived = max((_ratio(d) for d in seen if _counts(d, _PUT_IN)), default=1.0)
        producers = [name for name in topology.callers.get(queue, ()) if name not in takers]
        for producer in producers:
            more = 1.0 - _asked(measured.get(producer, ())) / arrived
            for taker in takers if more > 0.0 else ():
                if any(d.channel == "drop" for d in measured.get(taker, ())):
                    continue
                told = f"it puts more into {queue} for the same requests"
                yield AddedWork(producer, taker, more / len(producers), told)


def _asked(seen: Sequence[Deviation]) -> float:
    """How many times as many requests a component gets, at least 1."""
    requests = (_ratio(d) for d in seen if d.ref is not None and meaning_of(d.ref).role == "requests")
    return max(requests, default=1.0)


def _counts(d: Deviation, what: frozenset[str]) -> bool:
    return d.channel == "traffic" and bool(_named(d) & what)


def _named(d: Deviation) -> frozenset[str]:
    return words(d.ref.metric) if d.ref is not None else frozenset()


def _growth(d: Deviation) -> float:
    """The part of what is now that was not before, 0..1."""
    return max(1.0 - 1.0 / _ratio(d), 0.0)


def _ratio(d: Deviation) -> float:
    """How many times what was before; of next to nothing very many times."""
    observed, baseline = d.observed or 0.0, d.baseline or 0.0
    return max(observed, LEAST) / max(baseline, LEAST)
