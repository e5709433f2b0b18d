"""Since when to look, by what people's hints say of time. In English and Korean. Pure.

A time without a zone is one of UTC, which reports show, or of the installation's zone; a time without a day is the one
nearest to the alert: so is 8시, which may be morning or evening. Nobody is held to speak of what was still to come.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo

from graph.moments import Moment, placed_moments, without_moments

_QUOTED = re.compile(r"“[^”]*”|«[^»]*»|「[^」]*」|\"[^\"]*\"|`[^`]*`")
_DAYS = (
    (re.compile(r"\bday before yesterday\b|그저께|그제", re.IGNORECASE), 2),
    (re.compile(r"(?<!before )\byesterday\b|\blast night\b|어제|어젯밤|간밤|지난밤", re.IGNORECASE), 1),
    (re.compile(r"\btoday\b|\bthis (?:morning|afternoon|evening)\b|오늘", re.IGNORECASE), 0),
)
_ENDS_BEFORE = re.compile(
    r"(?:\b(?:to|until|till|through)|\bbetween\b.*\band|[-–—~])"
    r"(?: (?:about|around))?(?: ?(?:yesterday|today|어제|오늘))?\s*$",
    re.IGNORECASE,
)
_ENDS_AFTER = re.compile(r"^\s?(?:쯤|경|정도)?\s?까지")

_NUMBERS: Mapping[str, float] = {
    **dict.fromkeys(("", "a", "an", "one", "한"), 1),
    **dict.fromkeys(("two", "a couple of", "두"), 2),
    **dict.fromkeys(("three", "세"), 3),
    **dict.fromkeys(("four", "네"), 4),
    **dict.fromkeys(("five", "다섯"), 5),
    **dict.fromkeys(("six", "여섯"), 6),
    **dict.fromkeys(("half an", "반"), 0.5),
    "ten": 10,
    "fifteen": 15,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
}
_COUNT = rf"(?P<count>\d+(?:\.\d+)?|{'|'.join(sorted(filter(None, _NUMBERS), key=len, reverse=True))})"
_UNITS = {"m": timedelta(minutes=1), "분": timedelta(minutes=1), "h": timedelta(hours=1), "시": timedelta(hours=1)}
_UNIT = r"(?P<unit>min(?:ute)?s?|m|hours?|hrs?|h|d(?:ays?)?)\b"
_KOREAN_UNIT = r"(?P<unit>시간|분|일)(?: ?(?P<half>반)| ?(?P<minutes>\d{1,2})분)?"
_BEFORE = (
    re.compile(rf"(?<![\w.]){_COUNT}[ -]?{_UNIT} (?:ago|before|prior)\b", re.IGNORECASE),
    re.compile(rf"\b(?:last|past|previous|back)(?: the)? (?:{_COUNT} )?{_UNIT}", re.IGNORECASE),
    re.compile(rf"(?:지난|최근) ?{_COUNT} ?{_KOREAN_UNIT}"),
    re.compile(rf"(?<![\w.]){_COUNT} ?{_KOREAN_UNIT} ?(?:쯤|정도|가량)? ?(?:이?전)"),
)
_EARLIER = (
    re.compile(rf"(?<![\w.]){_COUNT}[ -]?{_UNIT} (?:earlier|further back|more|longer)\b", re.IGNORECASE),
    re.compile(rf"(?<![\w.]){_COUNT} ?{_KOREAN_UNIT} ?(?:정도|쯤)? ?(?:더|일찍|앞)"),
)
_MANY = 10_000.0  # of days, too, are within the calendar
_NEAR = 40  # characters before a time, which may make an end of it


@dataclass(frozen=True)
class Since:
    """When something began, UTC, and the words of the hint that say so."""

    at: datetime
    said: str


def since(hints: Sequence[str], *, alert: datetime, asked: datetime, looked: datetime, zone: tzinfo) -> Since | None:
    """The earliest time that the last hint speaks of which speaks of any.

    ``asked``: when the re-analysis was; ``looked``: since when was looked before, for «30 minutes earlier».
    """
    for hint in reversed(hints):
        text = _QUOTED.sub(lambda quote: " " * len(quote[0]), hint)  # a quote is to be searched for
        found = [*_Clock(text, alert, asked, zone).times(), *_ago(text, alert, looked)]
        if found:
            return min(found, key=lambda one: one.at)
    return None


# --- «30 minutes ago», «한 시간 전부터» -------------------------------------------------------------------------


def _ago(text: str, alert: datetime, looked: datetime) -> Iterator[Since]:
    """Counted from the alert: a person who writes later means no less by it."""
    text = without_moments(text)
    for patterns, base in ((_BEFORE, alert), (_EARLIER, looked)):
        for match in (m for pattern in patterns for m in pattern.finditer(text)):
            yield Since(base - _span(match), match[0].strip())


def _span(match: re.Match[str]) -> timedelta:
    groups = match.groupdict()
    told, unit = (groups["count"] or "").lower(), groups["unit"].lower()
    count = float(told) if told[:1].isdigit() else _NUMBERS[told]
    one = _UNITS.get(unit[0], timedelta(days=1))
    more = int(groups.get("minutes") or 0) * timedelta(minutes=1) + (one / 2 if groups.get("half") else timedelta())
    return min(count, _MANY) * one + more


# --- «since 08:40», «어제 22시부터» ------------------------------------------------------------------------------


class _Clock:
    """The times of one text, as days and times of day."""

    def __init__(self, text: str, alert: datetime, asked: datetime, zone: tzinfo) -> None:
        self._text, self._alert, self._asked, self._zone = text, alert, asked, zone
        placed = placed_moments(text)
        self._times = [(m, span) for m, span in placed if m.format.startswith("%H")]
        words = ((match[0], match.span(), ago) for word, ago in _DAYS for match in word.finditer(text))
        dates = ((m.text, span, m) for m, span in placed if not m.format.startswith("%H"))
        self._days: list[tuple[str, tuple[int, int], int | Moment]] = sorted([*words, *dates], key=lambda one: one[1])

    def times(self) -> Iterator[Since]:
        """Each as a moment; the end of a span of time is one only where no begin is told."""
        begins = [one for one in self._times if not self._ends(one[1])] or self._times
        for moment, (start, end) in begins:
            said, day = self._day_of(start, end)
            if at := self._nearest(day, moment):
                yield Since(at, f"{said} {moment}".strip())
        if not self._times:
            for said, _, day in self._days:
                if at := self._nearest(day, None):
                    yield Since(at, said)

    def _ends(self, span: tuple[int, int]) -> bool:
        start, end = span
        return bool(
            _ENDS_BEFORE.search(self._text[max(start - _NEAR, 0) : start]) or _ENDS_AFTER.search(self._text[end:])
        )

    def _day_of(self, start: int, end: int) -> tuple[str, int | Moment | None]:
        """The last day told before the time; else the first one after it."""
        before = [day for day in self._days if day[1][1] <= start]
        after = [day for day in self._days if day[1][0] >= end]
        for said, _, day in (*before[-1:], *after[:1]):
            return said, day
        return "", None

    def _nearest(self, day: int | Moment | None, moment: Moment | None) -> datetime | None:
        """Of what the words may mean that is not to come, the nearest to the alert."""
        possible = (at for zone in self._zones(moment) for at in self._possible(day, moment, zone))
        return min((at for at in possible if at <= self._asked), key=lambda at: abs(at - self._alert), default=None)

    def _zones(self, moment: Moment | None) -> Iterable[tzinfo]:
        if moment is None or not moment.zoned:
            return (UTC, self._zone)
        return () if moment.hours is None else (timezone(timedelta(hours=moment.hours)),)

    def _possible(self, day: int | Moment | None, moment: Moment | None, zone: tzinfo) -> Iterator[datetime]:
        for on in self._dates(day, zone):
            hour, minute, second = (*map(int, moment.shown.split(":") if moment else ()), 0, 0, 0)[:3]
            for half in (0, 12) if moment and moment.either_half else (0,):
                of_day = time((hour + half) % 24, minute, second)
                yield datetime.combine(on, of_day, zone).astimezone(UTC)

    def _dates(self, day: int | Moment | None, zone: tzinfo) -> Iterable[date]:
        today = self._asked.astimezone(zone).date()
        if day is None:
            near = self._alert.astimezone(zone).date()
            return [near + timedelta(days=days) for days in (-1, 0, 1)]
        if isinstance(day, int):
            return [today - timedelta(days=day)]
        last = (today - timedelta(days=days) for days in range(366))
        return [one for one in last if f"{one:{day.format}}" == day.shown][:1]
