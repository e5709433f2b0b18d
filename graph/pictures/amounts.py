"""Values for people: 1.2k, 340 ms, 2.4 GB; and round ticks for an axis. Pure."""

from collections.abc import Sequence
from math import ceil, floor, log10

MAX_UNIT = 10  # characters
_TIMES = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0, "seconds": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {"b": 1.0, "byte": 1.0, "bytes": 1.0, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20}
_SHOWN_TIMES = (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
_SHOWN_BYTES = (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))
_THOUSANDS = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_FLAT = 0.25  # an axis from zero would hide what moves by less than a quarter of the largest value
LIMIT = 1e300  # far beyond any measurement, and twice of it is still a number


def amount(value: float, unit: str, like: float | None = None) -> str:
    """The value with three significant digits; ``like`` another value decides the scale, as on one axis."""
    scale, shown = _scale(abs(value if like is None else like), unit.strip())
    return f"{_digits(value / scale)}{shown}"


def _scale(size: float, unit: str) -> tuple[float, str]:
    """What to divide by, and what to write behind the number."""
    base, slash, per = unit.partition("/")
    for known, shown in ((_TIMES, _SHOWN_TIMES), (_BYTES, _SHOWN_BYTES)):
        factor = known.get(base.strip().lower())
        if factor is not None and size > 0:
            name, divisor = next((s for s in shown if size * factor >= s[1] * 0.9995), shown[-1])
            return divisor / factor, f" {name}{slash}{per}"[:MAX_UNIT]
    prefix, divisor = next((s for s in _THOUSANDS if s[1] * 0.9995 <= size < 1e15), ("", 1.0))
    behind = f" {unit}"[:MAX_UNIT] if unit else ""
    return divisor, f"{prefix}{behind}"


def _digits(value: float) -> str:
    shown = f"{value:.3g}"
    if "e" in shown and abs(value) < 1e6 and abs(value) >= 1:  # 1e+03 is no number for people
        shown = f"{value:.0f}"
    return "0" if shown == "-0" else shown


def ticks(values: Sequence[float]) -> tuple[float, float, float]:
    """Three round numbers, evenly apart, that enclose all ``values``; from zero unless that would hide the course."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    largest = max(abs(low), abs(high))
    if high - low >= _FLAT * largest or high == low:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        return 0.0, 0.5, 1.0
    need = (high - low) / 2
    power = 10.0 ** floor(log10(need)) if need > 1e-300 else 1e-300
    for step in (s * power * ten for ten in (1.0, 10.0) for s in _STEPS):
        start = floor(low / step + 1e-9) * step
        if start + 2 * step >= high - 1e-9 * step:
            return start, start + step, start + 2 * step
    return low, (low + high) / 2, high


def steps(low: float, high: float, most: int) -> list[float]:
    """Round points in time, at most ``most``, from minutes to days, between two epoch seconds."""
    minutes = (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440)
    fitting = (60.0 * m for m in minutes if (high - low) / (60.0 * m) <= most - 1)
    step = next(fitting, 86_400.0 * max(ceil((high - low) / 86_400.0 / most), 1))
    first = ceil(low / step)
    return [n * step for n in range(first, first + most) if n * step <= high]
