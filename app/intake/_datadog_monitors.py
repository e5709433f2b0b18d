"""Datadog's monitors: how a monitor's group is named, and which groups alert now, by Datadog's own API.

The webhook and the API tell of the same monitor in different words; what both make of it has one spelling here, so
that an alert that is asked for is the same as one that was sent.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import httpx
from pydantic import BaseModel, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from app.intake.base import Directory, IntakeUnavailable, UnreadablePayload, believable, indexable, text_of
from collectors.datadog import LONGEST_PAUSE_S, client, ui_host
from collectors.datadog import Settings as Account
from graph.state import Alert, Severity, Transition

NAME = "datadog"
PAGE = 200  # monitors; every one may have hundreds of groups
MOST_PAGES = 25
MOST_ALERTS = 500  # of one reading; an organisation where more alerts at once is not helped by more incidents
MOST_RESOURCES = 20
PRIORITY: Mapping[str, Severity] = {"P1": "critical", "P2": "critical", "P3": "warning", "P4": "info", "P5": "info"}
TRANSITION: Mapping[str, Transition] = {"Alert": "firing", "Warn": "firing", "No Data": "no_data"}
_FILTER = re.compile(r"(?<!by )(?<!by)\{([^{}]*)\}")
_PLAIN = re.compile(r"[\w./-]+:[\w./:-]+")  # no wildcard, no negation, no boolean operator
_LIST: TypeAdapter[list[JsonValue]] = TypeAdapter(list[JsonValue])


# --- the spelling that webhook and API share ---


def tags_of(text: str) -> dict[str, str]:
    """``k:v`` pairs of a comma list; bare words such as ``monitor`` are legal and say nothing here."""
    tags: dict[str, str] = {}
    for tag in text.split(","):
        key, colon, value = tag.strip().partition(":")
        if colon and value:
            tags.setdefault(key[:100], value[:200])
    return tags


def scope_key(scope: Mapping[str, str]) -> str:
    """A monitor's group in one spelling, whatever the order of its tags."""
    return ",".join(f"{k}:{v}" for k, v in sorted(scope.items()))


def rule_of(monitor: str) -> str:
    """The rule of an alert: its monitor."""
    return indexable(f"{NAME}:monitor:{monitor}")


def bounded(resources: Mapping[str, str]) -> dict[str, str]:
    """The first few resources: the most telling come first."""
    return dict(list(resources.items())[:MOST_RESOURCES])


# --- what Datadog answers ---


class _Answer(BaseModel):
    """Datadog writes null for what is not set."""

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class Group(_Answer):
    """One of the groups that a monitor watches. Times are epoch seconds; 0 or absent: never."""

    status: str = ""
    last_triggered_ts: float | None = None
    last_nodata_ts: float | None = None


class _State(_Answer):
    groups: dict[str, Group] = Field(default_factory=dict)


class _Options(_Answer):
    silenced: dict[str, float | None] = Field(default_factory=dict)
    notify_no_data: bool = False
    on_missing_data: str | None = None


class _Downtime(_Answer):
    scope: list[str] = Field(default_factory=list)


class Monitor(_Answer):
    """A monitor with the groups that were asked for."""

    id: int
    name: str = ""
    message: str = ""
    query: str = ""
    tags: list[str] = Field(default_factory=list)
    priority: int | None = None
    overall_state: str = ""
    draft_status: str | None = None
    options: _Options = Field(default_factory=_Options)
    state: _State = Field(default_factory=_State)
    matching_downtimes: list[_Downtime] = Field(default_factory=list)

    @property
    def alerts(self) -> bool:
        """Whether Datadog would have told somebody: a draft, and missing data that nobody asked about, are silent."""
        return self.overall_state in TRANSITION and self.draft_status != "draft"

    def alerting(self) -> Iterator[tuple[str, Group]]:
        """Groups that alert, without the muted ones."""
        for name, group in self.state.groups.items():
            silent = group.status == "No Data" and not self._tells_of_missing_data
            if group.status in TRANSITION and not silent and not self._muted(name):
                yield name, group

    @property
    def _tells_of_missing_data(self) -> bool:
        return self.options.notify_no_data or self.options.on_missing_data == "show_and_notify_no_data"

    def _muted(self, group: str) -> bool:
        """In a downtime of its own, or one whose every tag it has; ``*`` is everything."""
        if "*" in self.options.silenced or group in self.options.silenced:
            return True
        mine = {*self.tags, *(part.strip() for part in group.split(","))}
        scopes = (set(",".join(downtime.scope).replace(" ", "").split(",")) for downtime in self.matching_downtimes)
        return any(scope - {"*", ""} <= mine for scope in scopes)

    def scope(self, group: str) -> dict[str, str]:
        """The group's tags; of a simple monitor, whose group is ``*``, those of its own filter."""
        return tags_of(group) if group != "*" else _filter(self.query)


def _filter(query: str) -> dict[str, str]:
    """The tags that a metric query selects, where they are one plain list: ``{service:pay,env:prod}``."""
    filters = set(_FILTER.findall(query))
    parts = [part.strip() for part in next(iter(filters)).split(",")] if len(filters) == 1 else []
    return tags_of(",".join(parts)) if all(_PLAIN.fullmatch(part) for part in parts) else {}


# --- alerts ---


def alerts_of(monitor: Monitor, directory: Directory, ui: str | None) -> tuple[list[Alert], list[str]]:
    """Alerts of the groups that alert, and the groups whose service nobody knows. ``ui``: where Datadog's pages are."""
    alerts: list[Alert] = []
    unknown: list[str] = []
    for name, group in monitor.alerting() if monitor.alerts else ():
        alert = _alert(monitor, name, group, directory, ui)
        if alert:
            alerts.append(alert)
        else:
            unknown.append(text_of(name))
    return alerts, unknown


def _alert(monitor: Monitor, name: str, group: Group, directory: Directory, ui: str | None) -> Alert | None:
    scope, tags = monitor.scope(text_of(name)), tags_of(text_of(",".join(monitor.tags)))
    title, text = text_of(monitor.name), text_of(monitor.message)
    resources = scope | {key: tags[key] for key in ("host", "container_id", "pod_name") if key in tags}
    named = scope.get("service", "") or tags.get("service", "")
    service = directory.service_for(named, resources, f"{title} {text}")
    if not service:
        return None
    rule, key = rule_of(str(monitor.id)), scope_key(scope) or service
    since = _since(group)
    return Alert(
        source=NAME,
        rule=rule,
        title=(title or rule)[:500],
        severity="warning" if group.status == "Warn" else PRIORITY.get(f"P{monitor.priority}", "critical"),
        service=service[:200],
        environment=scope.get("env", "") or tags.get("env", ""),
        resources=bounded(resources),
        occurred_at=believable((_moment(since),)),
        changed_at=believable((_moment(since),)),
        fingerprint=indexable(f"{rule}:{key}"),
        cycle_key=f"{NAME}:pull:{indexable(f'{monitor.id}:{key}:{since:.0f}')}",
        transition=TRANSITION[group.status],
        url=f"{ui}/monitors/{monitor.id}" if ui else None,
        text=text[:4000],
    )


def _since(group: Group) -> float:
    """Epoch seconds since when the group is in its state; 0 where Datadog does not say."""
    told = (group.last_triggered_ts or 0.0, group.last_nodata_ts or 0.0)
    first, second = reversed(told) if group.status == "No Data" else told
    since = first or second
    return since if 0 < since < 1e11 else 0.0


def _moment(epoch_s: float) -> datetime | None:
    return datetime.fromtimestamp(epoch_s, UTC) if epoch_s else None


# --- asking Datadog ---


class MonitorReader:
    """One Datadog organisation's monitors; the application key needs the scope ``monitors_read``."""

    def __init__(self, account: Account, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``account`` must hold both keys."""
        host = ui_host(account)
        self.ui = f"https://{host}" if host else None
        self._client = client(account, read_s=15.0, transport=transport)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def one(self, monitor: str) -> Monitor:
        """A monitor with all its groups. Raises UnreadablePayload for good, IntakeUnavailable for now."""
        content = await self._read(f"/api/v1/monitor/{monitor}", {"group_states": "all", "with_downtimes": "true"})
        try:
            return Monitor.model_validate_json(content)
        except ValidationError as error:
            raise UnreadablePayload(f"monitor {monitor}: unexpected answer: {_first(error)}") from None

    async def all(self) -> AsyncIterator[Monitor]:
        """The monitors with their alerting groups, at most PAGE * MOST_PAGES. Raises as :meth:`one`.

        A monitor that is not understood does not cost the others.
        """
        params = {"group_states": "alert,warn,no data", "with_downtimes": "true", "page_size": str(PAGE)}
        for page in range(MOST_PAGES):
            rows = _rows(await self._read("/api/v1/monitor", params | {"page": str(page)}))
            for row in rows:
                try:
                    yield Monitor.model_validate(row)
                except ValidationError:
                    continue
            if len(rows) < PAGE:
                return

    async def _read(self, path: str, params: Mapping[str, str]) -> bytes:
        """One GET; one more after a short pause that Datadog asks for."""
        response = await self._once(path, params)
        if response.status_code == 429:
            await asyncio.sleep(_pause_s(response, path))
            response = await self._once(path, params)
        return _content(response, path)

    async def _once(self, path: str, params: Mapping[str, str]) -> httpx.Response:
        try:
            return await self._client.get(path, params=params)
        except httpx.HTTPError as error:
            raise IntakeUnavailable(f"{path}: {type(error).__name__}: check DATADOG_SITE and the network") from None


def _pause_s(response: httpx.Response, path: str) -> float:
    """Raises IntakeUnavailable if the pause would be too long, or is not told."""
    told = response.headers.get("X-RateLimit-Reset", "")
    if told.isascii() and told.isdigit() and int(told) <= LONGEST_PAUSE_S:
        return float(told)
    raise IntakeUnavailable(f"{path}: Datadog's rate limit is reached, reset in {told or 'an unknown number of'} s")


def _content(response: httpx.Response, path: str) -> bytes:
    """The body of a good answer. Raises UnreadablePayload, IntakeUnavailable."""
    code = response.status_code
    if code in (401, 403):
        raise UnreadablePayload(
            f"{path}: Datadog answered {code}: give the application key the scope monitors_read; "
            "or DATADOG_SITE is the wrong site"
        )
    if code == 404:
        raise UnreadablePayload(f"{path}: Datadog answered 404: there is no such monitor in this organisation")
    if code == 429 or code >= 500:
        raise IntakeUnavailable(f"{path}: Datadog answered {code}")
    if code >= 300:
        raise UnreadablePayload(f"{path}: Datadog answered {code}: {text_of(response.text)[:300]}")
    return response.content


def _rows(content: bytes) -> Sequence[JsonValue]:
    try:
        return _LIST.validate_json(content)
    except ValidationError as error:
        raise UnreadablePayload(f"/api/v1/monitor: unexpected answer: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    return error.errors(include_url=False)[0]["msg"]
