"""Datadog's webhook: verify the shared secret, parse the recommended payload and the default one."""

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from pydantic import SecretStr

from app.incidents import OLDEST
from graph.state import Alert, Severity

SENDER = "datadog"
TOKEN_HEADER = "x-aiops-token"  # noqa: S105  a header's name
UNSET = re.compile(r"^\$[A-Z_]+(\[[^\]]*\])?$")
TITLE_PREFIX = re.compile(r"^(?:\[P\d\]\s*)?\[(?P<transition>[A-Za-z -]+?)(?: on \{(?P<scope>[^}]*)\})?\]\s*")
MONITOR_LINK = re.compile(r"monitors[/#](\d+)")
PRIORITY: Mapping[str, Severity] = {"P1": "critical", "P2": "critical", "P3": "warning", "P4": "info", "P5": "info"}
ALERT_TYPE: Mapping[str, Severity] = {"error": "critical", "warning": "warning", "info": "info", "success": "info"}


class UnreadablePayload(Exception):
    """An authentic sender sent something we cannot make an alert of."""


def verified(headers: Mapping[str, str], tokens: Sequence[SecretStr]) -> bool:
    """Whether the shared secret matches one of the valid ones; every one is compared, in constant time."""
    sent = headers.get(TOKEN_HEADER, "").encode()
    matches = [hmac.compare_digest(sent, token.get_secret_value().encode()) for token in tokens]
    return any(matches)


def delivery_key(body: bytes) -> str | None:
    """The same for every re-send of one delivery; Datadog sends no id of its own for it.

    None where the payload has neither event nor time: two such alerts look alike however far apart they are.
    Raises UnreadablePayload.
    """
    p = _payload(body)
    event, updated = _get(p, "event_id") or _get(p, "id"), _get(p, "last_updated") or _get(p, "date")
    if not (event or updated):
        return None
    parts = (_org(p), event, _get(p, "transition") or _get(p, "title"), updated)
    return f"{SENDER}:{sha256('|'.join(parts).encode()).hexdigest()}"


def parse(body: bytes, known_services: Sequence[str] = ()) -> Alert:
    """One alert. ``known_services`` helps where the payload names the service in its text only.

    Raises UnreadablePayload.
    """
    p = _payload(body)
    title = _get(p, "title") or _get(p, "alert_title")
    if not title:
        raise UnreadablePayload("the payload has no title")
    prefix = TITLE_PREFIX.match(title)
    tags = _tags(p, (prefix["scope"] or "") if prefix else "")
    text = _get(p, "message") or _get(p, "body")
    service = _get(p, "service") or tags.get("service", "") or _named_in(f"{title} {text}", known_services)
    if not service:
        raise UnreadablePayload("no service: the payload has no service tag, and names none of the catalogue's")
    transition = _get(p, "transition") or (prefix["transition"] if prefix else "")
    monitor = _get(p, "monitor_id") or next(iter(MONITOR_LINK.findall(text)), "")
    group = ",".join(f"{k}:{v}" for k, v in sorted(tags.items()))
    cycle = _get(p, "cycle_key") or _get(p, "aggreg_key") or f"{monitor}|{group}|{service}"
    return Alert(
        source=SENDER,
        title=(title[prefix.end() :] if prefix else title)[:500],
        severity=_severity(p, transition),
        service=service[:200],
        occurred_at=_date(p),
        fingerprint=f"{SENDER}:{_org(p)}:{monitor}:{service}",
        cycle_key=f"{SENDER}:{_org(p)[:100]}:{_indexable(cycle)}",
        transition=_transition(transition),
        url=_get(p, "link") or None,
        text=text[:4000],
    )


def _payload(body: bytes) -> dict[str, Any]:
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnreadablePayload(f"not JSON: {error}") from None
    if not isinstance(payload, dict):
        raise UnreadablePayload("the JSON is not an object")
    return payload


def _get(payload: Mapping[str, Any], key: str) -> str:
    """A value as text; Datadog leaves an unset variable as its own name."""
    value = payload.get(key)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    # Postgres stores neither NUL nor half a surrogate pair.
    return "" if UNSET.match(text) else text.replace("\x00", "").encode("utf-8", "replace").decode()


def _org(payload: Mapping[str, Any]) -> str:
    org = payload.get("org")
    return _get(org, "id") if isinstance(org, dict) else ""


def _tags(payload: Mapping[str, Any], title_scope: str) -> dict[str, str]:
    """``k:v`` pairs of tags, scope and title; bare words such as ``monitor`` are legal and say nothing here."""
    tags: dict[str, str] = {}
    for text in (title_scope, _get(payload, "scope"), _get(payload, "tags")):
        for tag in text.split(","):
            key, colon, value = tag.strip().partition(":")
            if colon and value:
                tags.setdefault(key, value)
    return tags


def _named_in(text: str, known_services: Sequence[str]) -> str:
    """The longest catalogue name that stands in the text as a word of its own."""
    named = [s for s in known_services if re.search(rf"(?<![\w-]){re.escape(s)}(?![\w-])", text)]
    return max(named, key=lambda name: (len(name), name), default="")


def _indexable(key: str) -> str:
    """Postgres indexes no text of some kilobytes: a long list of tags is replaced by its hash."""
    return key if len(key) <= 200 else sha256(key.encode()).hexdigest()


def _transition(text: str) -> Any:  # one of Alert.transition's values
    lowered = text.lower()
    if "recovered" in lowered:
        return "resolved"
    if "renotify" in lowered:
        return "renotify"
    if "no data" in lowered:
        return "no_data"
    return "firing"


def _severity(payload: Mapping[str, Any], transition: str) -> Severity:
    if "warn" in transition.lower():
        return "warning"
    if priority := PRIORITY.get(_get(payload, "priority")):
        return priority
    return ALERT_TYPE.get(_get(payload, "alert_type"), "critical")


def _date(payload: Mapping[str, Any]) -> datetime:
    """Epoch seconds or milliseconds, as Datadog mixes them; now, where what it says cannot be true."""
    now = datetime.now(UTC)
    for key in ("date", "last_updated"):
        try:
            number = float(_get(payload, key))
            moment = datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
        except (ValueError, OverflowError, OSError):
            continue
        if now - OLDEST < moment < now + timedelta(days=1):
            return moment
    return now
