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
    "success successful successes available availability healthy uptime hit ok apdex up free freeable idle ready"
)
_ERROR = _words(
    "error errors fail fails failed failure failures fault faults exception exceptions timeout timeouts reject "
    "rejected rejections refused throttle throttled throttles dropped drops unhealthy evicted evictions restart "
    "restarts retry retries deadlock deadlocks crash crashes oom denied miss misses unavailable "
    "err fatal panic severe"
)
_LOST = _words("lost loss losses abandoned")
_EARNED = _words("revenue sales income earnings")
_LATENCY = _words("latency latencies duration delay elapsed time rtt wait ms milliseconds")
_BACKLOG = _words("pending queue queued queues backlog lag inflight waiters waiting blocked stuck unacked")
_POOL = _words("pool connections connection threads thread workers sessions")
_SATURATION = _words(
    "utilization utilisation usage used saturation cpu memory mem heap disk pool connections threads load iowait"
)
_TRAFFIC = _words(
    "throughput rps qps workload traffic bytes byte packets network receive transmit sent received syscall message "
    "messages deleted delivered deliver publish published tokens read reads write writes count total"
)
_REQUESTS = _words(
    "request requests calls invocations hits ops iops operations query queries processed consumed handled "
    "transactions orders"
)
_BYTES = _words("bytes byte packets network syscall")
_PERCENT = _words("percent pct percentage")
_TIME_UNITS = _words("ms s sec second seconds millisecond milliseconds us microseconds")
_RATIO = _words("utilization utilisation saturation ratio fraction")
_HOST = _words("node host")
SECONDS: Mapping[str, float] = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
    **dict.fromkeys(("us", "µs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "minute", "minutes"), 60.0),
}

_MESSAGES = _words("message messages")
_WAITING = _words("visible ready unacknowledged delayed age oldest")

# In this order: «failed requests» are errors and no traffic, «request duration» is latency and no traffic.
_ORDER: tuple[tuple[Measures, frozenset[str]], ...] = (
    ("error", _ERROR),
    ("loss", _LOST),
    ("earnings", _EARNED),
    ("success", _SUCCESS),
    ("latency", _LATENCY),
    ("backlog", _BACKLOG),
    ("pool", _POOL),
    ("saturation", _SATURATION),
    ("traffic", _BYTES),
    ("requests", _REQUESTS),
    ("traffic", _TRAFFIC),
)

_WORSE: Mapping[Measures, Worse] = {
    "error": "up",
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
    found = words(metric.replace("UnHealthy", "Unhealthy"))
    in_percent = "%" in unit + metric or bool((words(unit) | found) & _PERCENT)
    role = measures or _role(metric, unit, found)
    return Meaning(
        role=role,
        worse=_WORSE.get(role, "neutral"),
        percent=in_percent,
        limited=role in ("saturation", "pool", "host") and (in_percent or bool((found | words(unit)) & _RATIO)),
        seconds=_seconds(metric, unit) if role == "latency" else 0.0,
    )


def _role(metric: str, unit: str, found: frozenset[str]) -> Measures:
    if "5xx" in metric.lower():
        return "error"
    if found & _MESSAGES and found & _WAITING:  # messages that are ready wait
        return "backlog"
    for role, vocabulary in _ORDER:
        if found & vocabulary:
            return "host" if role == "saturation" and found & _HOST else role
    return "latency" if words(unit) & _TIME_UNITS else "unknown"


def _seconds(metric: str, unit: str) -> float:
    """Of the unit, or of the one that ends the name: «latency_ms»."""
    known = [SECONDS[w] for w in (unit.lower(), *sorted(words(metric))) if w in SECONDS]
    return known[0] if known else 0.0
