"""One departure from normal, as the detectors hand it to fusion."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from collectors.base import Level, SeriesRef
from graph.ranking.windows import moment
from graph.state import FindingKind

Worse = Literal["up", "down", "neutral"]
MAX_EXCERPT = 400  # characters of verbatim text: a stack trace's head, short enough to quote forty of them
REPORTED = 0.1
"""What is left of a failure that a deeper span of the same trace explains: worth a mention, no accusation."""

MIN_STRENGTH = 0.02
"""Below it a deviation is noise that only costs time: fifty such would not make one clear signal."""
BLAME_PASSES_DOWN = 0.25
"""A deeper deviant span takes the blame if it deviates at least this fraction as much as the one above it: a fault is
loudest where it is reported, not where it happens; but a whisper below must not silence a shout above."""
MIN_EXPECTED = 3.0
"""Events: to see none where three were expected happens by chance once in twenty (Poisson)."""
CHANCE = 0.05  # the usual level of significance
ONE_INSTANCE = 0.9
"""Of the bad events on one instance make them its own: a few may be of others that wait for it."""

SEVERITY: dict[Level, float] = {"debug": 0.1, "info": 0.2, "warning": 0.5, "error": 1.0, "critical": 1.0}
"""What a line of that level says about a fault, as a share of what an error says: the levels' usual meaning."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """A signal of one component that departs from its baseline.

    ``strength`` is 0..1: how far from normal, how sure, and how much such a signal says about a fault. ``channel``
    groups signals that measure the same thing, so that fusion counts them once. ``inherited`` means that a failing
    callee may have caused it (errors, latency), as opposed to a cause of its own (saturation, code path).
    """

    component: str
    kind: FindingKind
    channel: str
    signal: str
    strength: float
    at_s: float
    summary: str
    inherited: bool = False
    observed: float | None = None
    baseline: float | None = None
    unit: str = ""
    effect: float = 0.0
    excerpt: str = ""
    link: str | None = None
    source: str = ""
    ref: SeriesRef | None = None
    worse: Worse = "up"
    points: tuple[tuple[float, float], ...] = ()
    band: tuple[float, float] | None = None
    query: str = ""
    instance: str = ""
    harm: float = 0.0  # requests that failed, or seconds that were lost, beyond the usual; 0 if not known


def rate(hits: float, calls: float) -> tuple[float, float]:
    """A proportion and its standard deviation under Jeffreys' prior, which stays sane for few or no calls."""
    p = (hits + 0.5) / (calls + 1.0)
    return p, sqrt(p * (1.0 - p) / (calls + 2.0))


def gain(hits: float, calls: float, base_hits: float, base_calls: float) -> float:
    """By how much a proportion surely rose: one standard deviation off either side. 0..1.

    One deviation, not two: a floor on sample counts would lose the faults that touch a handful of calls.
    """
    now, now_sd = rate(hits, calls)
    then, then_sd = rate(base_hits, base_calls)
    return max(0.0, (now - now_sd) - (then + then_sd))


def surely(hits: float, calls: float, base_hits: float, base_calls: float) -> float:
    """0..1: the sure part of a proportion's rise, times the square root of what it is now.

    The root lets a fault of a tenth of the calls count for a third, of all calls in full: a partial fault is a fault.
    """
    now = hits / calls if calls else 0.0
    return min(gain(hits, calls, base_hits, base_calls) / now, 1.0) * sqrt(now) if now else 0.0


def noisy_or(strengths: Iterable[float]) -> float:
    """The chance that at least one of several independent reasons holds."""
    left = 1.0
    for strength in sorted(strengths):
        left *= 1.0 - min(max(strength, 0.0), 1.0)
    return 1.0 - left


def one_instance(bad: Mapping[str, int], total: float, share: Callable[[str], float]) -> str:
    """The one instance that nearly all of ``total`` bad events are of, if there is one and not by chance; else "".

    ``bad`` counts them by instance, ``share`` is an instance's part of all events. That the others are where the
    first one is happens by chance with that share to the power of their number.
    """
    name, most = min(bad.items(), key=lambda item: (-item[1], item[0]), default=("", 0))
    if not name or most < ONE_INSTANCE * total:
        return ""
    usual = share(name)
    return name if usual < ONE_INSTANCE and usual ** (most - 1) < CHANCE else ""


def excerpt(text: str) -> str:
    """The head of a verbatim text, cut between words: half a secret is not known for one."""
    if len(text) <= MAX_EXCERPT:
        return text
    return text[:MAX_EXCERPT].rpartition(" ")[0] + " …"


def number(value: float) -> str:
    """A number as a person writes it: three significant digits, no exponent."""
    if abs(value) >= 100 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.3g}"


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return f"{number(value)} {unit}".rstrip()


def clock_time(epoch_s: float) -> str:
    """Time of day in UTC."""
    return f"{moment(epoch_s):%H:%M:%S} UTC"
