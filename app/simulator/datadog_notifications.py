"""What a Datadog monitor's notification says: the webhook integration's variables, and templates rendered with them."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from app.simulator.topology import ENVIRONMENT

Transition = Literal["Triggered", "Warn", "No Data", "Renotify", "Recovered"]

ORGANISATION = {"id": "482911", "name": "Shop"}
# What a webhook sends whose payload nobody has changed.
DEFAULT_PAYLOAD = json.dumps(
    {
        "body": "$EVENT_MSG",
        "last_updated": "$LAST_UPDATED",
        "event_type": "$EVENT_TYPE",
        "title": "$EVENT_TITLE",
        "date": "$DATE",
        "org": {"id": "$ORG_ID", "name": "$ORG_NAME"},
        "id": "$ID",
    }
)
_VARIABLE = re.compile(r"\$([A-Z][A-Z0-9_]*)(?:\[([^\]]*)\])?")
_ALERT_TYPE: Mapping[Transition, str] = {"Warn": "warning", "Recovered": "success"}


@dataclass(frozen=True)
class Monitor:
    """A metric monitor: ``avg(last_1m):avg:<metric>{service:<service>} by {…} > <threshold>``."""

    id: int
    name: str
    service: str
    metric: str
    threshold: float
    message: str
    warning: float | None = None
    by: tuple[str, ...] = ()  # one alert for each of these; none: one for all
    priority: int = 1
    renotify_s: float = 0.0  # 0: tells once
    notify_no_data: bool = False
    muted: bool = False

    @property
    def series(self) -> str:
        """The metric query it watches."""
        by = f" by {{{','.join(self.by)}}}" if self.by else ""
        return f"avg:{self.metric}{{service:{self.service}}}{by}"

    @property
    def query(self) -> str:
        """In the language of monitors."""
        return f"avg(last_1m):{self.series} > {self.threshold:g}"

    @property
    def tags(self) -> tuple[str, ...]:
        """Its own tags."""
        return (f"env:{ENVIRONMENT}", f"service:{self.service}", f"team:{self.service.split('-')[0]}")


@dataclass(frozen=True)
class Notification:
    """One transition of one group of a monitor. Times are epoch seconds."""

    monitor: Monitor
    transition: Transition
    group: tuple[str, ...]  # tags; none for a monitor that has no groups
    at: float
    triggered_at: float  # when its cycle began
    updated_at: float | None = None  # None: at once

    @property
    def scope(self) -> str:
        """What it is about, as ``$ALERT_SCOPE`` tells: the group, or the monitor's own filter."""
        return ",".join(self.group) or f"service:{self.monitor.service}"

    @property
    def title(self) -> str:
        """As ``$EVENT_TITLE`` tells."""
        return f"[{self.transition} on {{{self.scope}}}] {self.monitor.name}"

    @property
    def alert_type(self) -> str:
        """error, warning or success."""
        return _ALERT_TYPE.get(self.transition, "error")

    @property
    def tags(self) -> dict[str, str]:
        """The monitor's and its group's, by key."""
        return dict(tag.split(":", 1) for tag in (*self.monitor.tags, *self.group))


def variables(told: Notification) -> dict[str, str]:
    """Every variable of the webhook integration that has a value, without its dollar sign; all are text."""
    monitor, link = told.monitor, f"https://app.datadoghq.com/monitors/{told.monitor.id}"
    group = (str(monitor.id), told.scope)
    compared = "was not" if told.transition == "Recovered" else "was"
    return {
        "ID": _number(*group, told.transition, _milliseconds(told.at)),
        "ALERT_ID": str(monitor.id),
        "AGGREG_KEY": hashlib.sha256("|".join(group).encode()).hexdigest()[:32],
        "ALERT_CYCLE_KEY": _number(*group, _milliseconds(told.triggered_at)),
        "ALERT_TRANSITION": told.transition,
        "ALERT_TYPE": told.alert_type,
        "ALERT_PRIORITY": f"P{monitor.priority}",
        "ALERT_STATUS": f"{monitor.metric} over {told.scope} {compared} > {monitor.threshold:g} "
        "on average during the last 1m.",
        "ALERT_TITLE": monitor.name,
        "ALERT_METRIC": monitor.metric,
        "ALERT_QUERY": monitor.query,
        "ALERT_SCOPE": told.scope,
        "EVENT_TYPE": "query_alert_monitor",
        "EVENT_TITLE": told.title,
        "EVENT_MSG": f"%%%\n{monitor.message}\n\n[Monitor]({link})\n%%%",
        "TEXT_ONLY_MSG": monitor.message,
        "DATE": _milliseconds(told.at),
        "LAST_UPDATED": _milliseconds(told.at if told.updated_at is None else told.updated_at),
        "HOSTNAME": told.tags.get("host", ""),
        "TAGS": ",".join(sorted([*(f"{k}:{v}" for k, v in told.tags.items()), "monitor"])),
        **{f"TAGS[{key}]": value for key, value in told.tags.items()},
        "LINK": link,
        "SNAPSHOT": "",
        "PRIORITY": "normal",
        "ORG_ID": ORGANISATION["id"],
        "ORG_NAME": ORGANISATION["name"],
    }


def render(template: str, values: Mapping[str, str], *, in_json: bool) -> str:
    """The template with its variables replaced; an unknown one stays as it is, a tag that is not set is empty."""

    def value(match: re.Match[str]) -> str:
        name, key = match[1], match[2]
        if key is not None and name == "TAGS":
            found = values.get(f"TAGS[{key}]", "")
        elif name in values:
            found = values[name] + (f"[{key}]" if key is not None else "")
        else:
            return match[0]
        return json.dumps(found)[1:-1] if in_json else found

    return _VARIABLE.sub(value, template)


def _number(*parts: str) -> str:
    """An id of 63 bits that depends on the parts alone."""
    return str(int(hashlib.sha256("|".join(parts).encode()).hexdigest()[:16], 16) >> 1)


def _milliseconds(epoch_s: float) -> str:
    return str(int(1000 * epoch_s))
