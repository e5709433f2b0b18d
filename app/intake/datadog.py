"""Datadog: verify and parse its webhook, in the recommended payload and the default one; ask which monitors alert.

Asking takes ``DATADOG_API_KEY`` and ``DATADOG_APP_KEY``, as the collector of the same name does.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs

from pydantic import Field, JsonValue
from pydantic_settings import SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake._alert_groups import link
from app.intake._datadog_monitors import (
    MOST_ALERTS,
    NAME,
    PRIORITY,
    TRANSITION,
    MonitorReader,
    alerts_of,
    bounded,
    rule_of,
    scope_key,
    tags_of,
)
from app.intake.base import (
    Directory,
    Incoming,
    Parsed,
    Secrets,
    Sender,
    SenderSettings,
    UnreadablePayload,
    believable,
    digest_key,
    indexable,
    json_object,
    require_token,
    text_of,
)
from collectors.datadog import Settings as Account
from graph.state import Alert, Severity, Transition

NO_SERVICE = (
    "no service: give the monitor a tag service:<name>, or list one of its tags under `resources:` of the service "
    "in autopilot.yaml"
)
UNSET = re.compile(r"^\$[A-Z_]+(\[[^\]]*\])?$")
TITLE_PREFIX = re.compile(r"^(?:\[(?:P\d|TEST)\]\s*)*\[(?P<transition>[A-Za-z -]+?)(?: on \{(?P<scope>[^}]*)\})?\]\s*")
TEST_PREFIX = re.compile(r"^(?:\[P\d\]\s*)*\[TEST\]")
TEST_TEXT = "Test notification triggered by"
MONITOR_LINK = re.compile(r"monitors[/#](\d+)")
ALERT_TYPE: Mapping[str, Severity] = {"error": "critical", "warning": "warning", "info": "info", "success": "info"}

# What to paste into the webhook; its custom headers: {"X-AIOps-Token": "$AIOPS_TOKEN"}, a hidden custom variable.
TEMPLATE: Mapping[str, JsonValue] = {
    "schema": "aiops.datadog/1",
    "event_id": "$ID",
    "monitor_id": "$ALERT_ID",
    "transition": "$ALERT_TRANSITION",
    "cycle_key": "$ALERT_CYCLE_KEY",
    "aggreg_key": "$AGGREG_KEY",
    "event_type": "$EVENT_TYPE",
    "alert_type": "$ALERT_TYPE",
    "priority": "$ALERT_PRIORITY",
    "title": "$EVENT_TITLE",
    "alert_title": "$ALERT_TITLE",
    "status": "$ALERT_STATUS",
    "metric": "$ALERT_METRIC",
    "query": "$ALERT_QUERY",
    "scope": "$ALERT_SCOPE",
    "tags": "$TAGS",
    "service": "$TAGS[service]",
    "env": "$TAGS[env]",
    "version": "$TAGS[version]",
    "hostname": "$HOSTNAME",
    "message": "$TEXT_ONLY_MSG",
    "body": "$EVENT_MSG",
    "date": "$DATE",
    "last_updated": "$LAST_UPDATED",
    "link": "$LINK",
    "snapshot": "$SNAPSHOT",
    "org": {"id": "$ORG_ID", "name": "$ORG_NAME"},
}
EXAMPLE: Mapping[str, JsonValue] = {
    "schema": "aiops.datadog/1",
    "event_id": "8082436309665268856",
    "monitor_id": "141878267",
    "transition": "Triggered",
    "cycle_key": "7673797852050213000",
    "aggreg_key": "c0d8ae4b0b5a4a4fa5a8b7f6b4e7e2a1",
    "event_type": "query_alert_monitor",
    "alert_type": "error",
    "priority": "P1",
    "title": "[Triggered on {service:payment-service}] payment-service: error rate above 5 %",
    "alert_title": "payment-service: error rate above 5 %",
    "status": "error_rate_percent over service:payment-service was > 5 on average during the last 5m.",
    "metric": "error_rate_percent",
    "query": "avg(last_5m):avg:error_rate_percent{service:payment-service} > 5",
    "scope": "service:payment-service",
    "tags": "service:payment-service,env:production,monitor",
    "service": "payment-service",
    "env": "production",
    "version": "",
    "hostname": "",
    "message": "More than 5 % of payments fail. @webhook-autopilot",
    "body": "%%%\nMore than 5 % of payments fail. @webhook-autopilot\n%%%",
    "date": "1734686100000",
    "last_updated": "1734686100000",
    "link": "https://app.datadoghq.com/monitors/141878267",
    "snapshot": "",
    "org": {"id": "1325540", "name": "Acme"},
}


class Settings(SenderSettings):
    """``AUTOPILOT_DATADOG_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_DATADOG_")

    webhook_tokens: Secrets = Field(
        default=(), description="Values accepted in X-AIOps-Token or as Basic password; two while you rotate"
    )


def create(clock: Clock, config: AutopilotYaml) -> "Datadog":
    """The sender; it can ask Datadog where both keys of the account are set."""
    account = Account()
    return Datadog(Settings(), MonitorReader(account) if account.api_key and account.app_key else None)


class Datadog(Sender):
    """``app.intake.base.Sender``. Datadog signs nothing: a shared secret is all there is."""

    name = NAME

    def __init__(self, settings: Settings, monitors: MonitorReader | None = None) -> None:
        self.settings = settings
        self._monitors = monitors

    async def verify(self, incoming: Incoming) -> None:
        """See app.intake.base.Sender."""
        require_token(incoming.headers, self.settings.webhook_tokens, "AUTOPILOT_DATADOG_WEBHOOK_TOKENS")

    def parse(self, incoming: Incoming, directory: Directory) -> Parsed:
        """See app.intake.base.Sender."""
        payload = _payload(incoming)
        if _is_test(payload):
            return Parsed(note="a test notification", delivery_key=delivery_key(payload))
        return Parsed(alerts=(_alert(payload, directory),), delivery_key=delivery_key(payload))

    async def perform(self, arguments: Mapping[str, str], directory: Directory) -> Parsed:
        """``{"monitor_id": "77"}``: the monitor's groups that alert now. See app.intake.base.Sender."""
        monitor_id = arguments.get("monitor_id", "")
        if not (monitor_id.isascii() and monitor_id.isdigit()):
            raise UnreadablePayload(f"{NAME} has no such job: {sorted(arguments)}")
        if self._monitors is None:
            raise UnreadablePayload(
                f"monitor {monitor_id} cannot be asked: set DATADOG_API_KEY and DATADOG_APP_KEY to read its state"
            )
        monitor = await self._monitors.one(monitor_id)
        alerts, unknown = alerts_of(monitor, directory, self._monitors.ui)
        if alerts:
            return Parsed(alerts=tuple(alerts[:MOST_ALERTS]))
        if unknown:
            raise UnreadablePayload(f"monitor {monitor_id}: {NO_SERVICE}")
        quiet = ", but muted, a draft or told to keep quiet" if monitor.overall_state in TRANSITION else ""
        return Parsed(note=f"monitor {monitor_id} is {text_of(monitor.overall_state)} at Datadog{quiet}: nothing to do")

    async def missed(self, directory: Directory) -> Parsed | None:
        """What alerts at Datadog now. Raises IntakeError; see app.intake.base.Sender."""
        if self._monitors is None:
            return None
        alerts: list[Alert] = []
        without_service = 0
        async for monitor in self._monitors.all():
            found, unknown = alerts_of(monitor, directory, self._monitors.ui)
            alerts += found
            without_service += len(unknown)
        notes = []
        if without_service:
            notes.append(f"{without_service} groups of monitors left out: {NO_SERVICE}")
        if len(alerts) > MOST_ALERTS:
            notes.append(f"{len(alerts)} groups alert; the {MOST_ALERTS} that began last are taken")
            alerts = sorted(alerts, key=lambda alert: alert.occurred_at)[-MOST_ALERTS:]
        return Parsed(alerts=tuple(alerts), note="; ".join(notes))

    async def aclose(self) -> None:
        """See app.intake.base.Sender."""
        if self._monitors:
            await self._monitors.aclose()


Payload = Mapping[str, JsonValue]


def _payload(incoming: Incoming) -> Payload:
    """Of a webhook with or without «Encode as form», which sends ``payload=<JSON>``."""
    body = incoming.body
    if incoming.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        try:
            body = parse_qs(body.decode(), max_num_fields=100)["payload"][0].encode("utf-8", "replace")
        except (KeyError, ValueError):
            raise UnreadablePayload("the form has no field `payload`") from None
    return json_object(body)


def delivery_key(payload: Payload) -> str | None:
    """The same for every re-send of one delivery; Datadog sends no id of its own for it.

    None where the payload has neither event nor time: two such alerts look alike however far apart they are.
    """
    event = _get(payload, "event_id") or _get(payload, "id")
    updated = _get(payload, "last_updated") or _get(payload, "date")
    if not (event or updated):
        return None
    said = _get(payload, "transition") or _get(payload, "title")
    # An event is of one group of one monitor; without it, many of them may change in the same millisecond.
    group = () if event else (_monitor(payload), _get(payload, "scope"), _title(payload))
    return f"{NAME}:{digest_key(_org(payload), event, said, updated, *group)}"


def _is_test(payload: Payload) -> bool:
    """«Test Notifications» of a monitor: it tells of an alert, or a recovery, that never was."""
    texts = (_get(payload, "message"), _get(payload, "body"))
    return TEST_PREFIX.match(_title(payload)) is not None or any(TEST_TEXT in text for text in texts)


def _alert(p: Payload, directory: Directory) -> Alert:
    title = _title(p)
    if not title:
        raise UnreadablePayload("the payload has no title")
    prefix = TITLE_PREFIX.match(title)
    bare = title[prefix.end() :] if prefix else title
    tags = tags_of(_get(p, "tags"))
    scope = tags_of(_get(p, "scope")) or tags_of((prefix["scope"] or "") if prefix else "")
    resources = dict(scope)
    resources.update((k, tags[k]) for k in ("host", "container_id", "pod_name") if k in tags)
    if host := _get(p, "hostname"):
        resources.setdefault("host", host)
    text = _text(p)
    # The group's own first, as where Datadog is asked: the tags hold those of the monitor too.
    service = directory.service_for(
        scope.get("service", "") or _get(p, "service") or tags.get("service", ""), resources, f"{title} {text}"
    )
    if not service:
        raise UnreadablePayload(NO_SERVICE)
    transition = _get(p, "transition") or (prefix["transition"] if prefix else "")
    monitor = _monitor(p)
    group = scope_key(scope) or service
    rule = rule_of(monitor) if monitor else ""
    # Only Datadog's own cycle is of one group; without any monitor, what it is about is in the title alone.
    cycle = _get(p, "cycle_key") or f"{_get(p, 'aggreg_key') or monitor or bare}|{group}"
    return Alert(
        source=NAME,
        rule=rule,
        title=bare[:500],
        severity=_severity(p, transition),
        service=service[:200],
        environment=(_get(p, "env") or tags.get("env", ""))[:200],
        resources=bounded(resources),
        occurred_at=believable((_moment(p, "date"), _moment(p, "last_updated"))),
        changed_at=believable((_moment(p, "last_updated"), _moment(p, "date"))),
        fingerprint=indexable(f"{rule}:{group}" if monitor else f"{NAME}:{_org(p)}:{bare}:{group}"),
        cycle_key=f"{NAME}:{_org(p)[:100]}:{indexable(cycle)}",
        transition=_transition(transition),
        url=link([_get(p, "link")]),
        text=text[:4000],
    )


def _get(payload: Payload, key: str) -> str:
    """A value as text; Datadog leaves an unset variable as its own name."""
    text = text_of(payload.get(key))
    return "" if UNSET.match(text) else text


def _title(payload: Payload) -> str:
    return _get(payload, "title") or _get(payload, "alert_title")


def _text(payload: Payload) -> str:
    return _get(payload, "message") or _get(payload, "body")


def _monitor(payload: Payload) -> str:
    """The monitor's id; the default payload has it in a link only."""
    return _get(payload, "monitor_id") or next(iter(MONITOR_LINK.findall(_text(payload))), "")


def _org(payload: Payload) -> str:
    org = payload.get("org")
    return _get(org, "id") if isinstance(org, dict) else ""


def _transition(text: str) -> Transition:
    lowered = text.lower()
    if "recovered" in lowered:
        return "resolved"
    if "renotify" in lowered:
        return "renotify"
    if "no data" in lowered:
        return "no_data"
    return "firing"


def _severity(payload: Payload, transition: str) -> Severity:
    if "warn" in transition.lower():
        return "warning"
    if priority := PRIORITY.get(_get(payload, "priority")):
        return priority
    return ALERT_TYPE.get(_get(payload, "alert_type"), "critical")


def _moment(payload: Payload, key: str) -> datetime | None:
    """Epoch seconds or milliseconds, as Datadog mixes them."""
    try:
        number = float(_get(payload, key))
        return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC)
    except (ValueError, OverflowError, OSError):
        return None
