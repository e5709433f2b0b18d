"""Reads what is written in Slack: the monitors and alarms that apps announce, and the times people ask for."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import TypeVar
from urllib.parse import unquote_plus
from zoneinfo import ZoneInfo

from pydantic import JsonValue

from app.intake.base import text_of

DATADOG_APP = "AR28NTK5M"
MOST_TEXTS = 200
MOST_CHARACTERS = 8000
MOST_HINTS = 5  # of one message; a digest that lists a hundred alarms is not a hundred incidents

Item = TypeVar("Item")
Message = Mapping[str, JsonValue]
FIELDS = frozenset(
    {"text", "pretext", "title", "title_link", "fallback", "value", "url"}
    | {"attachments", "blocks", "fields", "elements", "accessory"}
)
MARKUP = re.compile(r"<([^<>|]*)(?:\|([^<>]*))?>")
MENTION = re.compile(r"<@[^<>]*>")
QUOTES = dict.fromkeys(map(ord, '`"“”'))

MONITOR_LINK = re.compile(
    r"https://(?:[\w-]+\.)*(?:datadoghq\.(?:com|eu)|ddog-gov\.com)/monitors[/#](?:status(?:/|\?id=))?(\d{1,20})",
    re.ASCII,
)
ALARM_ARN = re.compile(r"arn:aws[a-z-]*:cloudwatch:[a-z0-9-]+:\d{12}:alarm:[^\s\"'<>|,;)\]}`*]{1,255}", re.ASCII)
ALARM_ARN_ALONE = re.compile(r"arn:aws[a-z-]*:cloudwatch:[a-z0-9-]+:\d{12}:alarm:[^\n<>|]{1,255}", re.ASCII)
ALARM_LINK = re.compile(
    r"https://(?:(?P<host>[a-z0-9-]+)\.)?console\.(?:aws\.amazon\.com|amazonaws\.cn|amazonaws-us-gov\.com)/cloudwatch/"
    r"(?P<query>[^\s<>\"'#|]{0,500})"
    r"#(?:alarmsV2:alarm/|alarm:(?:alarmFilter=\w+;)?name=|s=Alarms&alarm=)(?P<name>[^\s<>\"'?|;&]{1,1000})",
    re.ASCII,
)
LINKED_REGION = re.compile(r"[?&]region=([a-z0-9-]+)", re.ASCII)
ALARM_LABEL = re.compile(
    r"CloudWatch Alarm \| ([^|\n]{1,255}) \| ([a-z]{2}(?:-[a-z]+)+-\d) \| Account: \d{12}", re.ASCII
)

NOW = ("", "now", "지금")
AGO = re.compile(r"[-–−]?(\d{1,5}) ?(?:(m|min|mins|minutes?|분)|(?:h|hours?|시간)) ?(?:ago|전)?", re.ASCII)
TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(?::\d{2})?", re.ASCII)
DATE_AND_TIME = re.compile(
    r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,6})?)? ?(?:Z|[+-]\d{2}:?\d{2})?", re.ASCII
)


def spoken(text: object) -> str:
    """A person's words: no mentions, quotes or markup, single spaces."""
    plain = MARKUP.sub(lambda found: found[2] or found[1], MENTION.sub(" ", text_of(text)[:MOST_CHARACTERS]))
    return " ".join(_unescaped(plain).translate(QUOTES).split())


def escaped(text: str) -> str:
    """Text that Slack shows as it is, instead of reading markup in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'")


def monitor_ids(message: Message) -> tuple[str, ...]:
    """Datadog's monitors that the message is about, by the surest place that names any."""
    if announced := _announced_monitor(message):
        return (announced,)
    texts = _readable(message)
    titles = [text for field, text in texts if field == "title_link"]
    return _first(_found(MONITOR_LINK, titles)) or _first(_found(MONITOR_LINK, (text for _, text in texts)))


def alarms(message: Message) -> tuple[dict[str, str], ...]:
    """CloudWatch's alarms in the message: ``alarm_arn``, or ``alarm_name`` and ``region``."""
    texts = _readable(message)
    whole = _first(text for field, text in texts if field == "value" and ALARM_ARN_ALONE.fullmatch(text))
    linked = _first(_linked_alarms(text for _, text in texts))
    # An alarm's name may hold spaces. A link encodes them; where an ARN in running text ends is then unknown.
    spaced = any(" " in name for name, _ in linked)
    arns = whole or (() if spaced else _first(a.rstrip(".:") for a in _found(ALARM_ARN, (t for _, t in texts))))
    if arns:
        return tuple({"alarm_arn": arn} for arn in arns)
    labelled = _first((m[1].strip(), m[2]) for _, text in texts for m in ALARM_LABEL.finditer(text))
    return tuple({"alarm_name": name, "region": region} for name, region in linked or labelled)


def moment_of(text: str, now: datetime, zone: ZoneInfo) -> datetime | None:
    """The time that a person means, UTC; None where it is none. Only a full date may lie in the future.

    09:15 is the last time that the clocks of ``zone`` showed it.
    """
    if text.lower() in NOW:
        return now
    if ago := AGO.fullmatch(text.lower()):
        return now - (timedelta(minutes=int(ago[1])) if ago[2] else timedelta(hours=int(ago[1])))
    try:
        if TIME_OF_DAY.fullmatch(text):
            return _last(time.fromisoformat(text.zfill(5) if text.count(":") == 1 else text.zfill(8)), now, zone)
        if DATE_AND_TIME.fullmatch(text):
            return _dated(datetime.fromisoformat(text.replace(" Z", "Z")), now, zone)
    except (ValueError, OverflowError):  # 25:00, the 30th of February, the year 0
        return None
    return None


def _last(of_day: time, now: datetime, zone: ZoneInfo) -> datetime:
    """Three days back, as the clocks may skip the time on one of them."""
    today = now.astimezone(zone).date()
    days: Iterable[date] = (today - timedelta(days=back) for back in range(3))
    return max(m for day in days for m in _instants(datetime.combine(day, of_day), zone) if m <= now)


def _dated(moment: datetime, now: datetime, zone: ZoneInfo) -> datetime | None:
    """Of two times that the clocks show alike, the last that is over; None for one that they skip."""
    if moment.tzinfo:
        return moment.astimezone(UTC)
    instants = _instants(moment, zone)
    return max((m for m in instants if m <= now), default=min(instants, default=None))


def _instants(local: datetime, zone: ZoneInfo) -> list[datetime]:
    """When the clocks of the zone show this: twice when they go back, never when they skip it."""
    both = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return [moment for moment in both if moment.astimezone(zone).replace(tzinfo=None) == local]


def _announced_monitor(message: Message) -> str:
    """From the metadata of Datadog's own app. Its event id is no use: as a JSON number it lost its last digits."""
    metadata = message.get("metadata")
    if not isinstance(metadata, dict):
        return ""
    payload = metadata.get("event_payload")
    if not isinstance(payload, dict):
        return ""
    if metadata.get("event_type") != "monitor_thread" and message.get("app_id") != DATADOG_APP:
        return ""
    number = text_of(payload.get("monitor_id")).removesuffix(".0")
    return number if re.fullmatch(r"[0-9]{1,20}", number) else ""


def _readable(message: Message) -> list[tuple[str, str]]:
    """Field and text of what a person can read or click, in reading order, without markup."""
    found: list[tuple[str, str]] = []
    waiting: list[tuple[str, JsonValue]] = [
        (key, message[key]) for key in ("blocks", "attachments", "text") if key in message
    ]
    while waiting and len(found) < MOST_TEXTS:
        field, value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((key, value[key]) for key in reversed(value) if key in FIELDS)
        elif isinstance(value, list):
            waiting.extend((field, item) for item in reversed(value))
        elif isinstance(value, str):
            found.append((field, _clickable(value)))
    return found


def _clickable(text: str) -> str:
    """Both halves of ``<link|label>``."""
    return _unescaped(MARKUP.sub(r" \1 \2 ", text_of(text)[:MOST_CHARACTERS])).strip()


def _unescaped(text: str) -> str:
    """Slack escapes these three, and no others."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def _found(pattern: re.Pattern[str], texts: Iterable[str]) -> Iterator[str]:
    """The group of every match, or the match where the pattern has no group."""
    return (found for text in texts for found in pattern.findall(text))


def _linked_alarms(texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Name and region."""
    for link in (m for text in texts for m in ALARM_LINK.finditer(text)):
        asked = LINKED_REGION.search(link["query"])
        if region := asked[1] if asked else link["host"]:
            yield text_of(unquote_plus(link["name"]))[:255], region


def _first(items: Iterable[Item]) -> tuple[Item, ...]:
    return tuple(dict.fromkeys(items))[:MOST_HINTS]
