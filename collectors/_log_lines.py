"""What a log line says of itself, whether it is JSON, logfmt or plain text."""

import json
import re
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue
from pydantic_core import from_json

from collectors.base import Level, LogLine, level_of

MAX_MESSAGE = 8000  # characters of a line

_LEVEL_NUMBERS: dict[str, Level] = {"20": "debug", "30": "info", "40": "warning", "50": "error", "60": "critical"}
_LEVEL_FIELDS = ("detected_level", "level", "severity", "severity_text", "log.level", "levelname", "lvl")
_SAID_LEVEL = re.compile(
    r"\blevel=\"?(?P<logfmt>\w+)|\b(?P<word>TRACE|DEBUG|INFO|WARN(?:ING)?|ERROR|FATAL|CRITICAL|SEVERE|PANIC)\b"
)


def log_line(component: str, at: datetime, text: str, known: Mapping[str, str], untold: Level) -> LogLine:
    """``known``: what the source knows of the line by name; it holds where the line says something else.

    ``untold``: the level of a line that tells none.
    """
    told = {**_json_fields(text), **known}
    return LogLine(
        component=component,
        at=at,
        level=_level(told, text, untold),
        message=_first(told, "message", "msg")[:MAX_MESSAGE] or text[:MAX_MESSAGE],
        logger=_first(told, "logger", "logger_name", "log.logger", "scope_name"),
        instance=_first(
            told, "pod", "k8s_pod_name", "service_instance_id", "instance", "hostname", "host", "container"
        ),
        trace_id=_first(told, "trace_id", "traceId", "traceID", "trace.id"),
        span_id=_first(told, "span_id", "spanId", "spanID", "span.id"),
    )


def forms_of(words: str) -> tuple[str, ...]:
    """The words as a line may hold them: as they are, and as JSON writes them, with or without other alphabets."""
    as_json = (json.dumps(words, ensure_ascii=ascii_only)[1:-1] for ascii_only in (False, True))
    return tuple(dict.fromkeys((words, *as_json)))


def flat(fields: Mapping[str, JsonValue]) -> dict[str, str]:
    """Structured metadata and parsed labels, which come side by side or in an object of their own; nested names
    are joined by a point.
    """
    found: dict[str, str] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            inner = "" if name in ("structuredMetadata", "parsed") else f"{name}."
            found |= {f"{inner}{key}": str(one) for key, one in value.items() if isinstance(one, str | int | float)}
        elif isinstance(value, str | int | float):
            found[name] = str(value)
    return found


def level_by(word: str) -> Level:
    """By a logger's word for it, or by pino's and bunyan's number; a word that nobody knows is info."""
    return _LEVEL_NUMBERS.get(word) or level_of(word)


def _json_fields(text: str) -> dict[str, str]:
    if not text.startswith("{"):
        return {}
    try:
        fields = from_json(text)
    except ValueError:
        return {}
    return flat(fields) if isinstance(fields, dict) else {}


def _first(known: Mapping[str, str], *names: str) -> str:
    return next((known[name] for name in names if known.get(name)), "")


def _level(known: Mapping[str, str], text: str, untold: Level) -> Level:
    """As labels or fields tell it; else as the line says it; else ``untold``."""
    told = (known.get(name, "") for name in _LEVEL_FIELDS)
    word = next((word for word in told if word not in ("", "unknown")), "")
    if not word and (said := _SAID_LEVEL.search(text[:MAX_MESSAGE])):
        word = said["logfmt"] or said["word"]
    return level_by(word) if word else untold
