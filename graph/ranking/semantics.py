"""What a metric means, told from the words in its name and unit: the field's vocabulary, no data set's names."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from graph.ranking.deviation import Worse

Role = Literal["error", "success", "latency", "saturation", "backlog", "loss", "traffic", "unknown"]

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
_SATURATION = _words(
    "utilization utilisation usage used saturation cpu memory mem heap disk pool connections threads load iowait"
)
_TRAFFIC = _words(
    "request requests throughput rps qps ops operations workload traffic bytes byte packets network receive transmit "
    "sent received calls invocations syscall read reads write writes hits count total orders transactions"
)
REQUESTS = _words("request requests calls invocations hits ops operations")
_PERCENT = _words("percent pct percentage")
_TIME_UNITS = _words("ms s sec second seconds millisecond milliseconds us microseconds")
_LIMIT_NAMES = _words("utilization utilisation saturation")
_HOST = _words("node host")

# In this order: «failed requests» are errors and no traffic, «request duration» is latency and no traffic.
_ORDER: tuple[tuple[Role, frozenset[str]], ...] = (
    ("error", _ERROR),
    ("loss", _LOST | _EARNED),
    ("success", _SUCCESS),
    ("latency", _LATENCY),
    ("backlog", _BACKLOG),
    ("saturation", _SATURATION),
    ("traffic", _TRAFFIC),
)

_WORSE: dict[Role, Worse] = {
    "error": "up",
    "success": "down",
    "latency": "up",
    "saturation": "up",
    "backlog": "up",
    "loss": "up",
    "traffic": "neutral",
    "unknown": "neutral",
}

IMPORTANCE: dict[Role, float] = {
    "error": 1.0,  # a failure is the symptom itself
    "success": 1.0,
    "latency": 0.9,  # slow is nearly as bad as failing, and noisier
    "backlog": 0.8,  # work piles up: someone is slow, perhaps someone else
    "saturation": 0.8,  # matters by closeness to the limit, which is judged apart
    "loss": 0.5,  # money is what a fault costs; it does not say where the fault is
    "traffic": 0.15,  # context: load moves for many harmless reasons
    "unknown": 0.3,  # a metric nobody can name proves little
}
"""How much a shift of such a metric says about a fault in its component."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a metric measures."""

    role: Role
    worse: Worse
    percent: bool  # 0..100
    limited: bool  # a share of a capacity: 100 % is the limit
    host: bool  # of the machine, shared with its neighbours


@lru_cache(maxsize=4096)
def words(text: str) -> frozenset[str]:
    """The lower-case words of a name in any casing: snake, kebab, dotted or camel."""
    return frozenset(w.lower() for w in _WORDS.findall(text))


@lru_cache(maxsize=4096)
def meaning(metric: str, unit: str) -> Meaning:
    """What the metric of that name and unit measures; role «unknown» if no word is known."""
    found = words(metric.replace("UnHealthy", "Unhealthy"))
    in_percent = "%" in unit + metric or bool((words(unit) | found) & _PERCENT)
    role = _role(metric, unit, found)
    return Meaning(
        role=role,
        worse="down" if role == "loss" and not found & _LOST else _WORSE[role],
        percent=in_percent,
        limited=role == "saturation" and (in_percent or bool(found & _LIMIT_NAMES)),
        host=bool(found & _HOST),
    )


def _role(metric: str, unit: str, found: frozenset[str]) -> Role:
    if "5xx" in metric.lower():
        return "error"
    for role, vocabulary in _ORDER:
        if found & vocabulary:
            return role
    return "latency" if words(unit) & _TIME_UNITS else "unknown"
