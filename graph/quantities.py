"""Numbers, times and versions in sentences, and when one number is the same as another. Pure."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

_ALIASES: dict[tuple[str, float], tuple[str, ...]] = {
    ("time", 1e-9): ("ns", "nanosecond", "nanoseconds"),
    ("time", 1e-6): ("us", "µs", "microsecond", "microseconds"),
    ("time", 1e-3): ("ms", "msec", "millisecond", "milliseconds"),
    ("time", 1.0): ("s", "sec", "secs", "second", "seconds", "초"),
    ("time", 60.0): ("m", "min", "mins", "minute", "minutes", "분"),
    ("time", 3600.0): ("h", "hr", "hour", "hours", "시간"),
    ("time", 86400.0): ("d", "day", "days"),
    ("ratio", 0.01): ("%", "percent", "pct", "percentage points", "퍼센트"),
    ("ratio", 1.0): ("ratio", "fraction"),
    ("bytes", 1.0): ("B", "byte", "bytes"),
    ("bytes", 1e3): ("KB", "kB"),
    ("bytes", 1024.0): ("KiB", "kibibyte"),
    ("bytes", 1e6): ("MB", "megabyte", "megabytes"),
    ("bytes", 1024.0**2): ("MiB", "mebibyte"),
    ("bytes", 1e9): ("GB", "gigabyte", "gigabytes"),
    ("bytes", 1024.0**3): ("GiB", "gibibyte"),
    ("", 1e3): ("k", "K", "thousand"),
    ("", 1e4): ("만",),
    ("", 1e6): ("M", "million"),
    ("times", 1.0): ("x", "×", "times", "fold", "배"),
}
_UNITS = {alias: unit for unit, aliases in _ALIASES.items() for alias in aliases}
_UNIT = "|".join(re.escape(alias) for alias in sorted(_UNITS, key=len, reverse=True))
_HEDGE = r"about|around|roughly|approximately|nearly|almost|over|more than|above|at least|under|below|up to"
# Ends of words are given in ASCII letters: Korean puts particles and counters right after a number.
_NUMBER = re.compile(
    rf"(?P<hedge>(?:\b(?:{_HEDGE})\s+|[~≈]\s?))?"
    r"(?<![A-Za-z0-9_.])(?<![A-Za-z_]-)(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)"
    r"(?:[eE](?P<exponent>[+-]?\d{1,9})(?!\d))?"
    rf"(?:[\s-]?(?P<unit>{_UNIT})(?![A-Za-z0-9_%])|[A-Za-z_%]+)?"  # «9000rps»: a unit that is not known
    r"(?![A-Za-z0-9_%])(?!\.\d)(?!,\d{3})"
)
# Names that begin with a digit: «5xx», «95th percentile», «0xff».
_NAME = re.compile(
    r"(?<![A-Za-z0-9_.])(?:[1-5]xx|\d{1,2}(?:\.\d+)?(?:st|nd|rd|th)|0x[0-9a-f]+)(?![A-Za-z0-9_])", re.IGNORECASE
)
_FROM, _TO = re.compile(r"\bfrom\s+$", re.IGNORECASE), re.compile(r"\bto\s+$", re.IGNORECASE)
_ARROW = re.compile(r"\s*(?:->|→)\s*|\S*에서\s*")
_BETWEEN = 40  # characters that may stand between the two numbers of «from 80 requests a minute to 320»
_VERSION = re.compile(r"(?<![\w.])v?\d+(?:\.\d+){2,}(?![\w]|\.\d)|(?<![\w.])v\d+(?:\.\d+)*\b")
_TIME = re.compile(
    r"(?<![\d:])(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?"
    r"(?:[.,]\d+)?(?:Z|\+00:00)?(?![\d:])"
)
_DATE = re.compile(r"(?<!\d)(?P<date>\d{4}-\d{2}-\d{2})(?!\d)T?")
_CLOSE = 0.10  # rounding may not move a number by more than this share of it
_HEDGED = 0.05  # «about 1,200» may stand for a number this share away


@dataclass(frozen=True)
class Quantity:
    """One number with its unit: ``value * scale`` in the dimension's base unit."""

    value: float
    dimension: str = ""
    scale: float = 1.0
    decimals: int = 0
    hedged: bool = False
    text: str = ""

    @classmethod
    def of(cls, value: float, unit: str) -> "Quantity":
        """A measured number; a unit that is not known counts as none."""
        dimension, scale = _UNITS.get(unit) or _UNITS.get(unit.lower()) or ("", 1.0)
        return cls(value, dimension, scale)

    def __str__(self) -> str:
        return self.text or f"{self.value:g}"


@dataclass(frozen=True)
class Moment:
    """A time of day or a date, as a sentence gives it."""

    text: str
    shown: str
    format: str

    def among(self, moments: Iterable[datetime], source: str) -> bool:
        """Is it one of these moments, cut or rounded to what it shows, or written in the source?"""
        if self.shown in source:
            return True
        half = timedelta(seconds=30 if self.format == "%H:%M" else 0.5)
        return any(
            self.shown == (moment.astimezone(UTC) + shift).strftime(self.format)
            for moment in moments
            for shift in (timedelta(), half)
        )

    def __str__(self) -> str:
        return self.text


def quantities(text: str) -> list[Quantity]:
    """Every plain number; times, dates, versions, and digits inside identifiers are none."""
    return [_quantity(match) for match in _NUMBER.finditer(_plain(text))]


def steps(text: str) -> list[tuple[Quantity, Quantity]]:
    """What the text says went from one number to another, as (before, after)."""
    text = _plain(text)
    matches = list(_NUMBER.finditer(text))
    found = []
    for first, second in pairwise(matches):
        before, between = text[: first.start()], text[first.end() : second.start()]
        if len(between) > _BETWEEN:
            continue
        if _ARROW.fullmatch(between) or (_FROM.search(before) and _TO.search(between)):
            found.append((_quantity(first), _quantity(second)))
        elif _TO.search(before) and _FROM.search(between):
            found.append((_quantity(second), _quantity(first)))
    return found


def versions(text: str) -> list[str]:
    """Versions and addresses: ``v2.14.0``, ``10.0.3.7``."""
    return _VERSION.findall(text)


def moments(text: str) -> list[Moment]:
    """Times of day and dates."""
    found = [Moment(m.group("date"), m.group("date"), "%Y-%m-%d") for m in _DATE.finditer(text)]
    for match in _TIME.finditer(text):
        hour, minute, second = match.group("hour"), match.group("minute"), match.group("second")
        shown = f"{int(hour):02}:{minute}" + (f":{second}" if second else "")
        found.append(Moment(match.group(0), shown, "%H:%M:%S" if second else "%H:%M"))
    return found


def supported(claimed: Quantity, known: Collection[Quantity]) -> bool:
    """Is the claimed number one of the known ones, rounded to the digits it shows?"""
    return any(_same(claimed, quantity) for quantity in known)


def _same(claimed: Quantity, known: Quantity) -> bool:
    if claimed.dimension == known.dimension:
        return _close(claimed, known.value * known.scale / claimed.scale)
    if claimed.dimension and known.dimension:
        return False
    if claimed.dimension == "ratio" and _close(claimed, known.value / claimed.scale):
        return True  # «42 %» of a measured 0.42
    return _close(claimed, known.value if claimed.dimension else known.value / claimed.scale)


def _close(claimed: Quantity, actual: float) -> bool:
    """``actual`` is in the unit of the claim; signs are the sentence's business («fell by 40 %»)."""
    off, size = abs(claimed.value - abs(actual)), abs(actual)
    rounding = min(0.5 * float(10) ** -claimed.decimals, _CLOSE * size)
    return off <= max(rounding, _HEDGED * size if claimed.hedged else 0.0) + 1e-9


def _plain(text: str) -> str:
    """The text without what holds digits and is no number."""
    for pattern in (_DATE, _TIME, _VERSION, _NAME):
        text = pattern.sub(" ", text)
    return text


def _quantity(match: re.Match[str]) -> Quantity:
    digits = match.group("digits").replace(",", "")
    exponent = max(-99, min(99, int(match.group("exponent") or 0)))  # far more than any measurement
    dimension, scale = _UNITS.get(match.group("unit") or "", ("", 1.0))
    return Quantity(
        value=float(f"{digits}e{exponent}"),
        dimension=dimension,
        scale=scale,
        decimals=len(digits.partition(".")[2]) - exponent,
        hedged=match.group("hedge") is not None,
        text=match.group(0).strip(),
    )
