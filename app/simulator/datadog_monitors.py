"""The shop's Datadog monitors: evaluated tick by tick on the shop's own metrics, and shown as Datadog's API does."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query

from app.simulator.datadog_metrics import Group, evaluate, parse_query
from app.simulator.datadog_notifications import Monitor, Notification, Transition
from app.simulator.shop import TICK_S, Shop, Tick

Json = dict[str, object]
Status = Literal["OK", "Warn", "Alert", "No Data"]

WINDOW_TICKS = 6  # a monitor looks at one minute
KEPT = 1000  # notifications
PAGE = 100
_TRANSITION: dict[Status, Transition] = {
    "OK": "Recovered",
    "Warn": "Warn",
    "Alert": "Triggered",
    "No Data": "No Data",
}
_WORST: tuple[Status, ...] = ("Alert", "Warn", "No Data", "OK")
_NOTIFY = "Notify: @webhook-autopilot"

# Next to the monitor a scenario is about: what any team has, its muted and its forgotten ones too.
ORDINARY = (
    Monitor(
        151093400,
        "web-gateway is slow",
        "web-gateway",
        "latency_p95_ms",
        5000.0,
        f"The 95th percentile of web-gateway's latency is above 5 s. {_NOTIFY}",
        warning=4000.0,
        priority=2,
    ),
    Monitor(
        151093401,
        "catalogue: CPU of a host is high",
        "catalogue",
        "cpu_utilization_percent",
        85.0,
        f"A host of catalogue uses more than 85 % of its processor. {_NOTIFY}",
        by=("host",),
        priority=3,
    ),
    Monitor(
        151093402,
        "notification error rate is high",
        "notification",
        "error_rate_percent",
        5.0,
        f"Mails and push messages fail. {_NOTIFY}",
        priority=3,
        notify_no_data=True,
    ),
    Monitor(
        151093403,
        "orders-db is out of connections",
        "orders-db",
        "active_connections",
        99.0,
        f"All connections of orders-db are in use. {_NOTIFY}",
    ),
    Monitor(
        151093404,
        "reporting: memory of a host is high",
        "reporting",
        "memory_utilization_percent",
        50.0,
        f"A host of reporting uses more than half of its memory. Muted until it gets more. {_NOTIFY}",
        by=("host",),
        priority=4,
        muted=True,
    ),
    Monitor(
        151093405,
        "coupon-import failed",
        "coupon-import",
        "import_errors",
        0.0,
        f"The nightly import of coupons failed. {_NOTIFY}",
        priority=5,
    ),
)


@dataclass
class GroupState:
    """What a monitor knows of one group. Times are epoch seconds, 0 for never."""

    values: deque[float | None] = field(default_factory=lambda: deque(maxlen=WINDOW_TICKS))
    status: Status = "OK"
    since: float = 0.0  # its cycle began
    triggered_at: float = 0.0
    resolved_at: float = 0.0
    nodata_at: float = 0.0
    notified_at: float = 0.0

    @property
    def known(self) -> list[float]:
        """The window's values."""
        return [value for value in self.values if value is not None]


class Watch:
    """One monitor and the states of its groups."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.groups: dict[Group, GroupState] = {} if monitor.by else {(): GroupState()}
        self._query = parse_query(monitor.series)

    @property
    def status(self) -> Status:
        """Of its worst group."""
        found = {state.status for state in self.groups.values()}
        return next((status for status in _WORST if status in found), "No Data")

    def look(self, tick: Tick) -> Iterator[Notification]:
        """Take a tick in; yields what has to be told."""
        found = {group: next(iter(points.values())) for group, points in evaluate(self._query, [tick], TICK_S).items()}
        for group in found:
            self.groups.setdefault(group, GroupState())
        for group, state in list(self.groups.items()):
            state.values.append(found.get(group))
            if self.monitor.by and not state.known:
                del self.groups[group]  # its host is gone
            else:
                yield from self._judge(group, state, tick.at + TICK_S)

    def _judge(self, group: Group, state: GroupState, at: float) -> Iterator[Notification]:
        before, state.status = state.status, self._status(state)
        transition: Transition | None = None
        if state.status != before:
            transition = _TRANSITION[state.status]
            self._enter(state, before, at)
        elif state.status != "OK" and 0 < self.monitor.renotify_s <= at - state.notified_at:
            transition = "Renotify"
        if transition and self._tells(state.status, before):
            state.notified_at = at
            yield Notification(self.monitor, transition, group, at, state.since)

    def _status(self, state: GroupState) -> Status:
        if not state.known:
            return "No Data"
        mean = sum(state.known) / len(state.known)
        if mean > self.monitor.threshold:
            return "Alert"
        return "Warn" if self.monitor.warning is not None and mean > self.monitor.warning else "OK"

    def _enter(self, state: GroupState, before: Status, at: float) -> None:
        if before == "OK":
            state.since = at
        if state.status == "OK":
            state.resolved_at = at
        elif state.status == "No Data":
            state.nodata_at = at
        else:
            state.triggered_at = at

    def _tells(self, *statuses: Status) -> bool:
        return not self.monitor.muted and (self.monitor.notify_no_data or "No Data" not in statuses)


class Monitors:
    """All monitors of the shop. Call its methods inside ``Shop.live()``."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._watches = {monitor.id: Watch(monitor) for monitor in (shop.scenario.monitor, *ORDINARY)}
        self._told: deque[Notification] = deque(maxlen=KEPT)
        self._seen = -1  # index of the last tick

    def watches(self, now: float) -> list[Watch]:
        """The monitors as they stand at ``now``."""
        self._catch_up(now)
        return list(self._watches.values())

    def watch(self, monitor: int, now: float) -> Watch | None:
        """One monitor as it stands at ``now``."""
        self._catch_up(now)
        return self._watches.get(monitor)

    def notifications(self, after: float, now: float) -> list[Notification]:
        """What was told in ``(after, now]``, oldest first."""
        self._catch_up(now)
        return [told for told in self._told if after < told.at <= now]

    def _catch_up(self, now: float) -> None:
        for tick in self._shop.ticks(0.0, now):
            if tick.index > self._seen:
                self._seen = tick.index
                for watch in self._watches.values():
                    self._told.extend(watch.look(tick))


class MonitorApi:
    """``/api/v1/monitor`` in front of the monitors."""

    def __init__(self, shop: Shop, monitors: Monitors) -> None:
        self._shop, self._monitors = shop, monitors

    def router(self) -> APIRouter:
        """Both routes, without ``/api``."""
        router = APIRouter()
        router.add_api_route("/v1/monitor", self._list, methods=["GET"])
        router.add_api_route("/v1/monitor/{monitor_id}", self._one, methods=["GET"])
        return router

    def _list(
        self,
        group_states: str = "",
        monitor_tags: str = "",
        page: Annotated[int | None, Query(ge=0)] = None,
        page_size: Annotated[int, Query(ge=1, le=1000)] = PAGE,
    ) -> list[Json]:
        wanted = {tag.strip() for tag in monitor_tags.split(",")} - {""}
        with self._shop.live() as now:
            tagged = [watch for watch in self._monitors.watches(now) if wanted <= set(watch.monitor.tags)]
            watches = sorted(tagged, key=lambda watch: watch.monitor.id)
            chosen = watches if page is None else watches[page * page_size : (page + 1) * page_size]
            return [self._json(watch, group_states) for watch in chosen]

    def _one(self, monitor_id: int, group_states: str = "") -> Json:
        with self._shop.live() as now:
            watch = self._monitors.watch(monitor_id, now)
            if watch is None:
                raise HTTPException(404, "Monitor not found")
            return self._json(watch, group_states)

    def _json(self, watch: Watch, group_states: str) -> Json:
        monitor, onset = watch.monitor, self._shop.onset
        thresholds = {"critical": monitor.threshold} | ({"warning": monitor.warning} if monitor.warning else {})
        wanted = {part.strip() for part in group_states.lower().split(",")}
        return {
            "id": monitor.id,
            "name": monitor.name,
            "type": "query alert",
            "query": monitor.query,
            "message": monitor.message,
            "tags": list(monitor.tags),
            "priority": monitor.priority,
            "multi": bool(monitor.by),
            "overall_state": watch.status,
            "options": {
                "thresholds": thresholds,
                "notify_no_data": monitor.notify_no_data,
                "renotify_interval": int(monitor.renotify_s / 60) or None,
                "silenced": {"*": None} if monitor.muted else {},
            },
            "state": {
                "groups": {
                    ",".join(group) or "*": _group(",".join(group) or "*", state)
                    for group, state in watch.groups.items()
                    if "all" in wanted or state.status.lower() in wanted
                }
            },
            "matching_downtimes": [],
            "created": _iso(onset - 90 * 86400.0),
            "modified": _iso(onset - 10 * 86400.0),
            "deleted": None,
        }


def _group(name: str, state: GroupState) -> Json:
    return {
        "name": name,
        "status": state.status,
        "last_triggered_ts": int(state.triggered_at),
        "last_resolved_ts": int(state.resolved_at),
        "last_nodata_ts": int(state.nodata_at),
        "last_notified_ts": int(state.notified_at),
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
