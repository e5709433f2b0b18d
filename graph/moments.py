"""Times of day, dates and weekdays in English and Korean sentences. Pure."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_ZONES = {"": 0, "z": 0, "utc": 0, "gmt": 0, "kst": 9, "jst": 9}
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>\d{2}):(?P<minutes>\d{2})")
_HALVES = "오전|오후|새벽|아침|저녁|밤|낮"
_ZONE = r"(?:\s?(?P<zone>[+-]\d{2}:\d{2}|Z\b|(?:UTC|GMT|KST|JST|[ECMP][SD]T|CES?T|BST|IST)(?![A-Za-z])))?"
_TIME = re.compile(
    rf"(?:(?P<half>{_HALVES}|[AaPp]\.?[Mm]\.?)\s?)?"
    r"(?<![\d:])(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?"
    r"(?:[.,]\d+)?(?:\s?(?P<after>[AaPp]\.?[Mm]\b\.?))?" + _ZONE + r"(?![\d:])"
)
_CLOCK = re.compile(
    rf"(?:(?P<half>{_HALVES})\s?)?(?<![\d.,])(?P<hour>[01]?\d|2[0-4])시(?!간)"
    r"(?:\s?(?P<minute>[0-5]?\d)분)?(?:\s?(?P<second>[0-5]?\d)초)?"
)
_HOUR = re.compile(r"(?<![\d.,:])(?P<hour>1[0-2]|0?[1-9])\s?(?P<after>[AaPp]\.?[Mm]\b\.?)")
_DATE = re.compile(r"(?<!\d)(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?!\d)T?")
_KOREAN_DATE = re.compile(r"(?:(?<!\d)(?P<year>\d{4})년\s?)?(?<!\d)(?P<month>\d{1,2})월\s?(?P<day>\d{1,2})일")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = rf"(?P<name>{'|'.join(_MONTHS)})[a-z]*\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?(?!\d)"
_YEAR = r"(?:,?\s(?P<year>\d{4}))?"
_WRITTEN_DATES = (
    re.compile(rf"\b{_MONTH}\s{_DAY}{_YEAR}", re.IGNORECASE),
    re.compile(rf"(?<!\d){_DAY}\s(?:of\s)?{_MONTH}(?![A-Za-z]){_YEAR}", re.IGNORECASE),
)
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAY = re.compile(rf"\b(?P<name>{'|'.join(_WEEKDAYS)})s?\b|(?P<korean>[월화수목금토일])요일", re.IGNORECASE)


@dataclass(frozen=True)
class Moment:
    """A time of day, a date or a weekday, as a sentence gives it. ``hours`` is its zone's lead; None: not known.

    ``zoned``: the sentence names the zone. ``either_half``: 8시, which may be 20:00 as well.
    """

    text: str
    shown: str
    format: str
    hours: float | None = 0
    zoned: bool = False
    either_half: bool = False

    def among(self, moments: Iterable[datetime], source: str) -> bool:
        """Is it one of these moments, cut or rounded to what it shows, or written in the source?"""
        if self.hours is None:
            return False
        if self.hours == 0 and re.search(rf"(?<!\d){re.escape(self.shown)}", source):
            return True
        zone = timedelta(hours=self.hours)
        half = timedelta(seconds={"%H:%M": 30, "%H": 0}.get(self.format, 0.5))
        return any(
            self.shown == (moment.astimezone(UTC) + zone + shift).strftime(self.format)
            for moment in moments
            for shift in (timedelta(), half)
        )

    def __str__(self) -> str:
        return self.text


def moments(text: str) -> list[Moment]:
    """Times of day, dates and weekdays, first to last."""
    return [moment for moment, _ in placed_moments(text)]


def without_moments(text: str) -> str:
    """The same text with spaces in their place."""
    for _, (start, end) in placed_moments(text):
        text = text[:start] + " " * (end - start) + text[end:]
    return text


def placed_moments(text: str) -> list[tuple[Moment, tuple[int, int]]]:
    """The same with where they stand; none overlaps another."""
    found = [(make(match), match.span()) for pattern, make in _READERS for match in pattern.finditer(text)]
    kept: list[tuple[Moment, tuple[int, int]]] = []
    for moment, (start, end) in found:
        if all(end <= other[0] or other[1] <= start for _, other in kept):
            kept.append((moment, (start, end)))
    return sorted(kept, key=lambda pair: pair[1])


def _date(match: re.Match[str]) -> Moment:
    groups = match.groupdict()
    month = groups.get("month") or str(_MONTHS.index(groups["name"].lower()) + 1)
    shown, year = f"{int(month):02}-{int(groups['day']):02}", groups["year"]
    return Moment(match.group(0).strip(), f"{year}-{shown}" if year else shown, "%Y-%m-%d" if year else "%m-%d")


def _weekday(match: re.Match[str]) -> Moment:
    korean = match.group("korean")
    name = _WEEKDAYS["월화수목금토일".index(korean)] if korean else match.group("name").lower()
    return Moment(match.group(0), name.capitalize(), "%A")


def _time(match: re.Match[str]) -> Moment:
    groups = match.groupdict()
    half = groups.get("half") or groups.get("after") or ""
    hour = _hour_of_day(int(groups["hour"]), half)
    minute, second = groups.get("minute"), groups.get("second")
    parts = [hour, *(int(part) for part in (minute, second) if part)]
    zone = (groups.get("zone") or "").lower()
    return Moment(
        match.group(0).strip(),
        shown=":".join(f"{part:02}" for part in parts),
        format="%H:%M:%S"[: 3 * len(parts) - 1],
        hours=_lead(zone),
        zoned=bool(zone),
        either_half=not half and 1 <= hour <= 12 and (len(groups["hour"]) == 1 or match.re is _CLOCK),
    )


def _lead(zone: str) -> float | None:
    """Hours that the zone is ahead of UTC; None where its name alone does not tell."""
    if offset := _OFFSET.fullmatch(zone):
        lead = int(offset["hours"]) + int(offset["minutes"]) / 60
        return -lead if offset["sign"] == "-" else lead
    return _ZONES.get(zone)


def _hour_of_day(hour: int, half: str) -> int:
    name = half.lower().replace(".", "")
    late = name in {"오후", "pm", "저녁"} or (name == "밤" and hour > 5) or (name == "낮" and hour < 6)
    if late and hour < 12:
        return hour + 12
    return 0 if hour == 12 and name in {"오전", "am", "새벽", "밤"} else hour % 24


_READERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Moment]], ...] = (
    (_DATE, _date),
    (_KOREAN_DATE, _date),
    *((pattern, _date) for pattern in _WRITTEN_DATES),
    (_TIME, _time),
    (_CLOCK, _time),
    (_HOUR, _time),
    (_WEEKDAY, _weekday),
)
