"""What a metric means, told from the words in its name and unit: the field's vocabulary, no data set's names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from collectors.base import Measures, SeriesRef
from graph.ranking.deviation import Worse

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SUCCESS = _words(
    "success successful successes available availability healthy uptime ok apdex up ready consumers heartbeat"
)
_ERROR = _words(
    "error errors fail fails failed failure failures fault faults exception exceptions timeout timeouts reject "
    "rejected rejections refused throttle throttled throttles dropped drops retry retries denied unavailable err severe"
)
_FAULT = _words(
    "unhealthy restart restarts deadlock deadlocks rollback rollbacks crash crashes oom miss misses missed fatal panic "
    "offline underreplicated"
)
_LOST = _words("lost loss losses abandoned")
_EARNED = _words("revenue sales income earnings")
_LATENCY = _words("latency latencies duration delay elapsed time rtt wait await ms milliseconds")
_BACKLOG = _words("pending queue queued queues backlog lag inflight waiters waiting blocked stuck unacked")
_POOL = _words(
    "pool connections connection threads thread workers sessions clients concurrent concurrency goroutines locks"
)
_RESOURCE = _words("cpu memory mem heap disk swap storage space filesystem fs inodes iowait fds descriptors")
_SATURATION = _RESOURCE | _words(
    "utilization utilisation utilized usage used use saturation load gc evicted evictions rss memstats"
)
_TRAFFIC = _words(
    "throughput rps qps workload traffic transmit sent receive receives received message messages deleted delivered "
    "deliver publish published tokens read reads write writes written count total rows items keys"
)
_REQUESTS = _words(
    "request requests rq calls invocations hits ops iops operations query queries processed consumed handled "
    "transactions xact commit commits commands cmds orders"
)
_BYTES = _words("bytes byte packets network syscall size capacity")
_PERCENT = _words("percent pct percentage")
_TIME_UNITS = _words("ms s sec second seconds millisecond milliseconds us microseconds")
_RATIO = _words("utilization utilisation saturation ratio fraction")
_HOST = _words("node host")
_FREE = _words("free freeable idle usable remaining headroom")
_PASSES = _words("read reads write writes written")
_UNITS_PASSED = _words("bytes byte ops operations throughput")
_TAKEN = _words("publish published deliver delivered redelivered ack acked sent received receives deleted")
_DONE = _words("processed consumed handled")
_CACHE = _words("cache caches keyspace blks blocks buffer")
_SINCE = _words("age since")
_UNLIMITED = _words("fragmentation")  # a ratio of two amounts, and no share of a capacity
SECONDS: Mapping[str, float] = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "µs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
}

_MESSAGES = _words("message messages")
_QUEUE = _words("queue queues topic")
_WAITING = _words("visible ready unacknowledged unacked delayed age oldest")


@dataclass(frozen=True, slots=True)
class _Rule:
    """A role, and the words that tell it: one of each set."""

    role: Measures
    needs: tuple[frozenset[str], ...]
    worse: Worse | None = None  # where it is not the role's own

    def fits(self, found: frozenset[str]) -> bool:
        return all(found & words for words in self.needs)


def _rule(role: Measures, *needs: frozenset[str] | str, worse: Worse | None = None) -> _Rule:
    return _Rule(role, tuple(_words(n) if isinstance(n, str) else n for n in needs), worse)


# The first that fits. What two words mean together comes before what one of them means.
_RULES = (
    _rule("backlog", _MESSAGES, _WAITING),  # messages that are ready wait
    _rule("backlog", _SINCE, "time seconds iterator oldest ms"),  # how long something waits to be done
    _rule("backlog", "replication replica", "delay lag"),  # of a copy; nobody's request takes that long
    _rule("unknown", "time", "start boot created creation updated modified last"),  # a moment, and no duration
    _rule("loss", "budget", "remaining left", worse="down"),  # what objectives still allow
    _rule("saturation", "wait", "cpu"),
    _rule("saturation", "throttle throttled throttles", "cpu cfs"),  # no request is turned away
    # a cache that misses does not fail; that it misses more often than before is as bad
    _rule("success", "hit", _PERCENT | _RATIO | {"rate"}),
    _rule("success", "hits", _PERCENT | _RATIO),
    _rule("fault", "miss misses", _PERCENT | _RATIO, _CACHE),
    _rule("traffic", "hit hits miss misses", _CACHE),
    # «failed requests» are errors and no traffic, «request duration» is latency and no traffic
    _rule("fault", _FAULT),
    _rule("error", _ERROR),
    _rule("loss", _LOST),
    _rule("earnings", _EARNED),
    _rule("saturation", "gc"),  # pauses and collections follow from memory, not from callees
    _rule("latency", _LATENCY),
    _rule("requests", _DONE, _MESSAGES | _QUEUE),
    _rule("traffic", _TAKEN, _MESSAGES | _QUEUE),  # what goes through a queue does not wait in it
    _rule("backlog", "lag inflight"),
    _rule("backlog", "active", "request requests"),
    _rule("success", "running", "pod pods container containers task tasks replicas instances"),
    _rule("success", "consumers"),
    _rule("backlog", _BACKLOG),
    # what is free of a resource is its use, told the other way round
    _rule("pool", "idle", "transaction", worse="up"),  # holds what others wait for, and does nothing
    _rule("pool", _FREE | {"available", "avail"}, _POOL, worse="down"),
    _rule("saturation", _FREE | {"available", "avail"}, _RESOURCE, worse="down"),
    _rule("saturation", "balance", "credit burst ebs", worse="down"),
    _rule("saturation", "freeable usable headroom remaining", worse="down"),
    _rule("success", _SUCCESS),
    _rule("traffic", "new accepted opened", "connection connections sessions"),  # that come, not that are held
    _rule("saturation", _POOL, "memory mem heap buffer"),  # a pool of memory holds no work
    _rule("pool", _POOL),
    _rule("traffic", _PASSES, _UNITS_PASSED),
    _rule("traffic", "token tokens"),
    _rule("saturation", _SATURATION),
    _rule("traffic", _BYTES),
    _rule("requests", _REQUESTS),
    _rule("traffic", _TRAFFIC),
)

_COMPOUNDS = (
    # words that mean something else together, and what they mean
    (re.compile(r"Un-?Healthy"), "Unhealthy"),
    (re.compile(r"load[\W_]?balanc(?:er|ing)", re.IGNORECASE), "balancer"),
    (re.compile(r"in[\W_]?flight", re.IGNORECASE), "inflight"),
    (re.compile(r"under[\W_]?replicated", re.IGNORECASE), "underreplicated"),
    (re.compile(r"(?:sign|scale|start|back|catch)(?:ed|ing)?[\W_]?up(?![a-z])", re.IGNORECASE), "unnamed"),
    (re.compile(r"up[\W_]time", re.IGNORECASE), "uptime"),
    (re.compile(r"LCUs?"), "capacity"),
    (re.compile(r"[23]xx", re.IGNORECASE), "requests"),
    (re.compile(r"5xx", re.IGNORECASE), "errors"),
)
_ADDED_UP = re.compile(r"(?:seconds|milliseconds|ms)_(?:(total|sum)|(?:count|bucket))$", re.IGNORECASE)
"""Prometheus' counters of time spent, and of how many times: neither is a duration."""
_TIMED = re.compile(r"[_.](?:seconds|milliseconds|ms)(?:[_.](?:max|min|avg|mean))?$", re.IGNORECASE)

_WORSE: Mapping[Measures, Worse] = {
    "error": "up",
    "fault": "up",
    "success": "down",
    "latency": "up",
    "saturation": "up",
    "pool": "up",
    "host": "up",
    "backlog": "up",
    "loss": "up",
    "earnings": "down",
}

IMPORTANCE: dict[Measures, float] = {
    "error": 1.0,  # a failure is the symptom itself
    "fault": 1.0,
    "success": 1.0,
    "latency": 0.9,  # slow is nearly as bad as failing, and noisier
    "backlog": 0.8,  # work piles up: someone is slow, perhaps someone else
    "saturation": 0.8,  # matters by closeness to the limit, which is judged apart
    "pool": 0.8,
    "host": 0.24,  # a machine's load belongs to all that run on it
    "loss": 0.5,  # money is what a fault costs; it does not say where the fault is
    "earnings": 0.5,
    "requests": 0.15,  # context: load moves for many harmless reasons
    "traffic": 0.15,
    "unknown": 0.3,  # a metric nobody can name proves little
}
"""How much a shift of such a metric says about a fault in its component."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a metric measures."""

    role: Measures
    worse: Worse
    percent: bool  # 0..100
    limited: bool  # a share of a capacity, which has a limit
    seconds: float  # of one unit, for times; 0 if the unit is not known or no time


@lru_cache(maxsize=4096)
def words(text: str) -> frozenset[str]:
    """The lower-case words of a name in any casing: snake, kebab, dotted or camel."""
    return frozenset(w.lower() for w in _WORDS.findall(text))


def meaning_of(ref: SeriesRef) -> Meaning:
    """What the metric measures: what its source says, else what its name and unit tell."""
    return meaning(ref.metric, ref.unit, ref.measures)


@lru_cache(maxsize=16384)
def meaning(metric: str, unit: str, measures: Measures = "") -> Meaning:
    """What the metric of that name and unit measures; role «unknown» if no word is known."""
    found = words(_plain(metric))
    in_percent = "%" in unit + metric or bool((words(unit) | found) & _PERCENT)
    told = found | {"percent"} if in_percent else found
    rule = _told(metric, unit, told)
    role = measures or ("host" if rule.role == "saturation" and found & _HOST else rule.role)
    worse = rule.worse if rule.worse is not None and role in (rule.role, "host") else _WORSE.get(role, "neutral")
    share = in_percent or bool((found | words(unit)) & _RATIO)
    return Meaning(
        role=role,
        worse=worse,
        percent=in_percent,
        limited=role in ("saturation", "pool", "host") and share and not found & _UNLIMITED,
        seconds=_seconds(metric, unit) if role == "latency" else 0.0,
    )


def _plain(metric: str) -> str:
    """The name with each compound as the one word that it means."""
    for compound, meant in _COMPOUNDS:
        metric = compound.sub(f" {meant} ", metric)
    return metric


_UNKNOWN = _Rule("unknown", ())
_OF_CALLS = _Rule("requests", ())
_OF_TIME = _Rule("latency", ())


def _told(metric: str, unit: str, found: frozenset[str]) -> _Rule:
    added_up = _ADDED_UP.search(metric)
    if added_up:
        found -= _LATENCY
    rule = next((rule for rule in _RULES if rule.fits(found)), _UNKNOWN)
    if added_up and not added_up[1]:
        return _OF_CALLS if rule.role in ("unknown", "traffic") else rule
    if (rule is _UNKNOWN or rule.role in ("requests", "pool")) and not added_up and _is_time(metric, unit):
        return _OF_TIME  # «http.server.requests» in ms
    return _OF_CALLS if found == {"count"} else rule  # API Gateway's «Count» is of calls


def _is_time(metric: str, unit: str) -> bool:
    return bool(_TIMED.search(metric)) or ("/" not in unit and bool(words(unit) & _TIME_UNITS))


def _seconds(metric: str, unit: str) -> float:
    """Of the unit, or of the one that ends the name: «latency_ms»."""
    known = [SECONDS[w] for w in (unit.lower(), *sorted(words(metric))) if w in SECONDS]
    return known[0] if known else 0.0
