"""Numbers, times and versions in sentences, and when one number is the same as another. Pure.

Sentences are English or Korean. A number may be written in digits, in words, or in a mixture («1만 2천 건»); what has
digits in it and is none of all that is a leftover, which nobody can check.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from graph.moments import without_moments
from graph.numerals import Numeral, numerals

_ALIASES: dict[tuple[str, float], tuple[str, ...]] = {
    ("time", 1e-9): ("ns", "nanosecond", "nanoseconds", "나노초"),
    ("time", 1e-6): ("us", "µs", "μs", "microsecond", "microseconds", "마이크로초"),
    ("time", 1e-3): ("ms", "msec", "millisecond", "milliseconds", "밀리초"),
    ("time", 1.0): ("s", "sec", "secs", "second", "seconds", "초"),
    ("time", 60.0): ("m", "min", "mins", "minute", "minutes", "분"),
    ("time", 3600.0): ("h", "hr", "hrs", "hour", "hours", "시간"),
    ("time", 86400.0): ("d", "day", "days", "일"),
    ("time", 604800.0): ("week", "weeks", "주일", "주간"),
    ("ratio", 0.01): ("%", "%p", "percent", "pct", "percentage points", "percentage point", "퍼센트", "퍼센트포인트"),
    ("ratio", 1.0): ("ratio", "fraction"),
    ("bytes", 1.0): ("B", "byte", "bytes", "바이트"),
    ("bytes", 1e3): ("KB", "kB", "킬로바이트"),
    ("bytes", 1024.0): ("KiB", "kibibyte"),
    ("bytes", 1e6): ("MB", "megabyte", "megabytes", "메가바이트"),
    ("bytes", 1024.0**2): ("MiB", "mebibyte"),
    ("bytes", 1e9): ("GB", "gigabyte", "gigabytes", "기가바이트"),
    ("bytes", 1024.0**3): ("GiB", "gibibyte"),
    ("bytes", 1e12): ("TB", "terabyte", "terabytes", "테라바이트"),
    ("", 1e3): ("k", "K", "thousand"),
    ("", 1e6): ("M", "million"),
    ("", 1e9): ("billion",),
    ("times", 1.0): ("x", "×", "times", "fold", "배"),
}
_UNITS = {alias: unit for unit, aliases in _ALIASES.items() for alias in aliases}
_UNIT = "|".join(re.escape(alias) for alias in sorted(_UNITS, key=len, reverse=True))
_HEDGE = (
    r"\b(?i:about|around|roughly|approximately|nearly|almost|over|more than|above|at least|under|below|up to)\s+"
    r"|[~≈]\s?|(?<![가-힣])(?:약|대략|거의)\s?"
)
_PLAIN_DIGITS = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_POWERS = {"십": 1e1, "백": 1e2, "천": 1e3, "만": 1e4, "억": 1e8, "조": 1e12}
_PART = rf"{_PLAIN_DIGITS}[백천만억조]{{1,2}}"  # «2,000만», «3천만»
_DIGITS = rf"(?:{_PART}(?:\s?{_PART})*(?:\s?\d{{1,4}}(?![\d.,:]))?|{_PLAIN_DIGITS})"
# Ends of words are given in ASCII letters: Korean puts particles and counters right after a number.
_OTHER = r"(?!(?:st|nd|rd|th|xx)(?![A-Za-z]))[A-Za-z_%]+"  # «9000rps»: a unit that is not known
_NUMBER = re.compile(
    rf"(?P<hedge>(?:{_HEDGE})?)"
    rf"(?<![A-Za-z0-9_.])(?<![A-Za-z_]-)(?<![A-Za-z0-9]#)(?P<digits>{_DIGITS})"
    r"(?:[eE](?P<exponent>[+-]?\d{1,9})(?!\d))?"
    rf"(?:[\s-]?(?P<unit>{_UNIT})(?![A-Za-z0-9_%])|(?P<other>{_OTHER}))?"
    r"(?![A-Za-z0-9_%])(?!\.\d)(?!,\d{3})"
)
_FROM, _TO = re.compile(r"\bfrom\s+$", re.IGNORECASE), re.compile(r"\bto\s+$", re.IGNORECASE)
_ARROW = re.compile(r"\s*(?:->|→)\s*|\s?\S*에서\s*")
_THEN, _NOW = re.compile(r"\b(?:before|previously|earlier|at first)\b", re.IGNORECASE), re.compile(r"\s?\S*\snow\b")
_BETWEEN = 40  # characters that may stand between the two numbers of «from 80 requests a minute to 320»
_VERSION = re.compile(
    r"(?<![A-Za-z0-9_.])v?\d+(?:\.\d+){2,}(?:-[A-Za-z0-9.]+)?(?![A-Za-z0-9_]|\.\d)|(?<![A-Za-z0-9_.])v\d+(?:\.\d+)*(?![A-Za-z0-9_])"
)
_PERIODS = {
    **dict.fromkeys(("s", "sec", "second", "초"), 1.0),
    **dict.fromkeys(("m", "min", "minute", "분"), 60.0),
    **dict.fromkeys(("h", "hr", "hour", "시간"), 3600.0),
    **dict.fromkeys(("d", "day", "일"), 86400.0),
    **dict.fromkeys(("rps", "qps", "tps"), 1.0),
    "rpm": 60.0,
}
_PERIOD = r"(?P<period>seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d)"
_PER = re.compile(
    rf"(?:\s?[A-Za-z가-힣_-]+){{0,6}}?(?:\s?/\s?|\s?\b(?:per|a|an|each|every)\s){_PERIOD}(?![A-Za-z])"
    r"(?!\s(?:later|after|before|earlier|ago))"
    r"|[가-힣]*/(?P<korean>초|분|시간|일)",
    re.IGNORECASE,
)
_COUNTED = re.compile(
    r"\s?(?:건|개|명|회|번|대|곳)|\s(?:[a-z]+\s){0,2}?(?:errors?|requests?|connections?|tasks?|timeouts?|failures?|exceptions?"
    r"|calls?|spans?|lines?|users?|customers?|orders?|messages?|retries|restarts?|pods?|instances?|hosts?)\b",
    re.IGNORECASE | re.ASCII,
)
_PER_BEFORE = re.compile(r"(?:(?P<period>초|분|시간|일)당|매\s?(?P<each>초|분|시간|일))\s?(?:평균|최대)?\s*$")
_LEFTOVER = re.compile(r"[A-Za-z0-9_.:/@#+-]*\d[A-Za-z0-9_.:/@#+-]*")
_CLOSE = 0.10  # rounding may not move a number by more than this share of it
_HEDGED = 0.05  # «about 1,200» may stand for a number this share away


@dataclass(frozen=True)
class Quantity:
    """One number with its unit: ``value * scale`` in the dimension's base unit.

    ``slack`` is the share by which it may be off; ``most`` the end of the range that «hundreds» stands for; ``per``
    the seconds that it is counted over, 0 if nobody says; ``admits`` the dimensions that a measured number without a
    unit may have; ``counts`` is set where things are counted, which no measured time, size or share can be.
    """

    value: float
    dimension: str = ""
    scale: float = 1.0
    decimals: int = 0
    slack: float = 0.0
    most: float = 0.0
    per: float = 0.0
    admits: frozenset[str] = frozenset()
    counts: bool = False
    text: str = ""

    @classmethod
    def of(cls, value: float, unit: str, admits: frozenset[str] = frozenset()) -> "Quantity":
        """A measured number; a unit that is not known counts as none."""
        dimension, scale = _UNITS.get(unit) or _UNITS.get(unit.lower()) or ("", 1.0)
        return cls(value, dimension, scale, per=_period_of(unit), admits=admits)

    def __str__(self) -> str:
        return self.text or f"{self.value:g}"


@lru_cache(maxsize=4096)  # the same findings are read for every sentence
def quantities(text: str) -> tuple[Quantity, ...]:
    """Every plain number, in digits or in words; times, dates, versions, and digits inside identifiers are none."""
    spoken, text = numerals(_plain(text))
    return (*_joined(text, list(_NUMBER.finditer(text))), *map(_in_words, spoken))


def steps(text: str) -> list[tuple[Quantity, Quantity]]:
    """What the text says went from one number to another, as (before, after)."""
    text = _plain(text)
    matches = list(_NUMBER.finditer(text))
    found = []
    for first, second in pairwise(matches):
        before, between = text[: first.start()], text[first.end() : second.start()]
        if len(between) > _BETWEEN:
            continue
        now = _THEN.search(between) and _NOW.match(text, second.end())  # «was 3 before and is 9 now»
        if now or _ARROW.fullmatch(between) or (_FROM.search(before) and _TO.search(between)):
            found.append((_quantity(first), _quantity(second)))
        elif _TO.search(before) and _FROM.search(between):
            found.append((_quantity(second), _quantity(first)))
    return found


_ENDS_BEFORE = re.compile(
    r"(?<!compared )(?<!relative )(?<!close )(?<!similar )(?<!equal )\bto\s+$|\b(?:reach\w*|hits?|peak\w*\sat)\s+$"
    r"|\b(?:is|are|stands?|sits?)(?:\s(?:now|currently))?(?:\sat)?\s+$|\b(?:only|within)\s+$|현재\s+$",
    re.IGNORECASE,
)
_ENDS_AFTER = re.compile(r"\s?[가-힣]{0,2}?(?:\(으\)로|으로|로|까지|에 달|에 이르|에 육박)|\s(?:right\s)?now\b")
_BY_BEFORE = re.compile(r"\b(?:by|up|down)\s+$", re.IGNORECASE)
_BY_AFTER = re.compile(r"(?:만큼|[이가]?\s?(?:더\s)?(?:증가|상승|늘[었어고려]|감소|줄[었어고며]|하락|많|적[었은]))")


def ends(text: str) -> list[Quantity]:
    """The numbers that something came to, or is at: «rose to 50», «is 50 now», «50까지»."""
    return _placed(text, _ENDS_BEFORE, _ENDS_AFTER)


def differences(text: str) -> list[Quantity]:
    """The numbers by which something changed: «rose by half», «up 20 %», «20 % 증가»."""
    return _placed(text, _BY_BEFORE, _BY_AFTER)


def factors(text: str) -> list[Quantity]:
    """«By a factor of five»."""
    return _placed(text, re.compile(r"\bfactor\sof\s+$", re.IGNORECASE), re.compile(r"(?!)"))


def _placed(text: str, before: re.Pattern[str], after: re.Pattern[str]) -> list[Quantity]:
    text = " ".join(_plain(text).split())
    return [
        quantity
        for quantity in quantities(text)
        for match in re.finditer(rf"(?<![\w.,]){re.escape(quantity.text)}", text)
        if before.search(text[: match.start()]) or after.match(text, match.end())
    ]


def versions(text: str) -> list[str]:
    """Versions and addresses: ``v2.14.0``, ``10.0.3.7``."""
    return [found.rstrip(".") for found in _VERSION.findall(text)]


def leftovers(text: str) -> list[str]:
    """What has digits in it and is neither number, time, date nor version: names such as ``HikariPool-1``, ``p95``."""
    _, text = numerals(_plain(text))
    return [token for found in _LEFTOVER.findall(_NUMBER.sub(" ", text)) if (token := found.strip(".:/-+"))]


def supported(claimed: Quantity, known: Collection[Quantity]) -> bool:
    """Is the claimed number one of the known ones, rounded to the digits it shows?

    One that is counted over a time must be counted over the same time there, where that is told.
    """
    same = [quantity for quantity in known if _same(claimed, quantity)]
    if not claimed.per or not any(quantity.per for quantity in same):
        return bool(same) or any(_same_rate(claimed, quantity) for quantity in known)
    return any(claimed.per == quantity.per for quantity in same)


def _same_rate(claimed: Quantity, known: Quantity) -> bool:
    if not (claimed.per and known.per) or claimed.dimension != known.dimension:
        return False
    return _close(claimed, known.value * known.scale / known.per * claimed.per / claimed.scale)


def _same(claimed: Quantity, known: Quantity) -> bool:
    if claimed.dimension == known.dimension:
        return _close(claimed, known.value * known.scale / claimed.scale)
    if claimed.dimension and known.dimension:
        return False
    if not claimed.dimension:
        return not (claimed.counts and known.dimension in {"time", "bytes", "ratio"}) and _close(
            claimed, known.value / claimed.scale
        )
    if claimed.dimension == "times":
        return _close(claimed, known.value)  # «312 times»
    if claimed.dimension == "ratio" and 0 < abs(known.value) < 1 and _close(claimed, known.value / claimed.scale):
        return True  # «42 %» of a measured 0.42
    return claimed.dimension in known.admits and _close(claimed, known.value)


def _close(claimed: Quantity, actual: float) -> bool:
    """``actual`` is in the unit of the claim; signs are the sentence's business («fell by 40 %»)."""
    if claimed.most:
        return claimed.value <= abs(actual) < claimed.most
    off, size = abs(claimed.value - abs(actual)), abs(actual)
    rounding = min(0.5 * float(10) ** -claimed.decimals, _CLOSE * size)
    return off <= max(rounding, claimed.slack * size) + 1e-9


def _plain(text: str) -> str:
    """The text without what holds digits and is no number."""
    return _VERSION.sub(" ", without_moments(text))


def _in_words(numeral: Numeral) -> Quantity:
    known = Quantity.of(numeral.value, numeral.unit)
    return replace(known, slack=numeral.slack, most=numeral.most, counts=numeral.most > 0, text=numeral.text)


def _joined(text: str, matches: Collection[re.Match[str]]) -> Iterator[Quantity]:
    """The numbers; what belongs together, as in «2분 30초», is one."""
    last: tuple[Quantity, int] | None = None
    for match in matches:
        here = replace(_quantity(match), per=_per(text, match), counts=_COUNTED.match(text, match.end()) is not None)
        if last and _continues(last[0], here, text[last[1] : match.start("digits")]):
            whole = last[0].value * last[0].scale + here.value * here.scale
            shown = f"{last[0].text} {here.text}"
            last = Quantity(whole / here.scale, "time", here.scale, here.decimals, text=shown), match.end()
            continue
        if last:
            yield last[0]
        last = here, match.end()
    if last:
        yield last[0]


def _continues(first: Quantity, second: Quantity, between: str) -> bool:
    falling = first.dimension == second.dimension == "time" and first.scale > second.scale
    return falling and re.fullmatch(r"\s?(?:and\s)?", between) is not None


def _quantity(match: re.Match[str]) -> Quantity:
    value, decimals = _read(match.group("digits"))
    exponent = max(-99, min(99, int(match.group("exponent") or 0)))  # far more than any measurement
    dimension, scale = _UNITS.get(match.group("unit") or "", ("", 1.0))
    return Quantity(
        value=value * float(f"1e{exponent}"),
        dimension=dimension,
        scale=scale,
        decimals=decimals - exponent,
        slack=_HEDGED if match.group("hedge") else 0.0,
        text=match.group(0).strip(),
    )


def _read(digits: str) -> tuple[float, int]:
    """Value and decimals of «1,284.5» or «1억 2,000만»."""
    total, decimals = 0.0, 0
    for number, powers in re.findall(r"([\d,.]*\d)([백천만억조]*)", digits):
        plain, power = number.replace(",", ""), 1.0
        for name in powers:
            power *= _POWERS[name]
        total += float(plain) * power
        decimals = len(plain.partition(".")[2]) - len(f"{power:.0f}") + 1
    return total, decimals


def _per(text: str, match: re.Match[str]) -> float:
    """The seconds that the number is counted over; 0 if that is not said."""
    before = _PER_BEFORE.search(text[: match.start("digits")])
    if before:
        return _PERIODS[before.group("period") or before.group("each")]
    if (match.group("other") or "") in _PERIODS:
        return _PERIODS[match.group("other")]
    if match.group("unit") and match.group("unit") not in {"times", "k", "K", "M", "million", "thousand"}:
        return 0.0
    after = _PER.match(text, match.end())
    return _period(after.group("period") or after.group("korean")) if after else 0.0


def _period_of(unit: str) -> float:
    """Of a metric's unit, such as ``req/s`` or ``requests per minute``."""
    lowered = unit.strip().lower()
    found = re.search(rf"(?:/|\bper\s){_PERIOD}$", lowered)
    return (
        _period(found.group("period"))
        if found
        else _PERIODS.get(lowered, 0.0)
        if lowered.startswith(("r", "q"))
        else 0.0
    )


def _period(name: str) -> float:
    lowered = name.lower()
    return _PERIODS.get(lowered) or _PERIODS.get(lowered.removesuffix("s"), 0.0)
