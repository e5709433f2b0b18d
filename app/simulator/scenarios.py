"""What happens to the shop, and when. A scenario sets causes only; symptoms follow from the shop's own mechanics."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.intake.datadog import TEMPLATE
from app.simulator import causes
from app.simulator.causes import Cause
from app.simulator.datadog_notifications import Monitor, Notification, render, variables
from app.simulator.releases import Defect, Defects


@dataclass(frozen=True)
class Event:
    """A cause that sets in at one moment, e.g. a deployment."""

    at: datetime
    apply: Cause


@dataclass(frozen=True)
class Scenario:
    """A story the shop can live through. Times are UTC."""

    name: str
    service: str  # the one that is alerted on
    occurred_at: datetime  # onset
    fires_at: datetime  # the alert leaves Datadog
    origin: datetime  # where a demonstration's clock starts: telemetry of the incident exists
    monitor: Monitor
    events: tuple[Event, ...]
    surge: Callable[[float], float]  # seconds since onset -> 0 (ordinary traffic) to 1 (tripled), or a little above
    defects: Defects = field(default_factory=dict)
    surging: frozenset[str] = frozenset()  # the services whose traffic surges; none named: all

    def alert_payload(self, now: datetime) -> dict[str, object]:
        """The webhook that Datadog sends at ``now`` with the recommended payload, every value rendered as text."""
        onset = self.occurred_at.timestamp()
        updated = max(now, self.fires_at).timestamp()
        told = Notification(self.monitor, "Triggered", (), onset, onset, updated)
        payload: dict[str, object] = json.loads(render(json.dumps(TEMPLATE), variables(told), in_json=True))
        return payload


def _flash_crowd(seconds: float) -> float:
    """Traffic triples at once, and the first rush goes beyond that."""
    return 0.0 if seconds < 0 else 1.0 + RUSH / 2.0 * math.exp(-seconds / RUSH_S)


def _ordinary(_seconds: float) -> float:
    return 0.0


def _ramp(height: float, minutes: float) -> Callable[[float], float]:
    """Traffic grows from the onset on, and stays there."""

    def surge(seconds: float) -> float:
        return height * min(max(seconds / (60.0 * minutes), 0.0), 1.0)

    return surge


RUSH = 1.0  # of ordinary traffic, on top of the tripled one
RUSH_S = 50.0

_SALE = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
_TUESDAY = datetime(2025, 3, 11, 14, 2, tzinfo=UTC)
_CI = "ci/github-actions"


def _alert(
    number: int, service: str, metric: str, threshold: float, what: str, *, name: str = "error rate is high"
) -> Monitor:
    """The monitor that tells of it."""
    return Monitor(
        number, f"{service} {name}", service, metric, threshold, f"{what} Notify: @webhook-autopilot", renotify_s=3600.0
    )


def _story(
    name: str,
    monitor: Monitor,
    onset: datetime,
    *events: Event,
    surge: Callable[[float], float] = _ordinary,
    surging: frozenset[str] = frozenset(),
    defects: Defects | None = None,
    fires: float = 3.0,
) -> Scenario:
    """``fires``: minutes from the onset to the alert; a demonstration begins a minute and a half later."""
    fires_at = onset + timedelta(minutes=fires)
    origin = fires_at + timedelta(minutes=1.5)
    return Scenario(name, monitor.service, onset, fires_at, origin, monitor, events, surge, defects or {}, surging)


def _at(onset: datetime, minutes: float, apply: Cause) -> Event:
    return Event(onset + timedelta(minutes=minutes), apply)


_TWO_FIRST = (
    Scenario(
        name="black-friday",
        service="payment-service",
        occurred_at=_SALE,
        fires_at=_SALE + timedelta(minutes=2),
        origin=_SALE + timedelta(minutes=4),
        monitor=Monitor(
            151093327,
            "payment-service error rate is high",
            "payment-service",
            "error_rate_percent",
            10.0,
            "The error rate of payment-service is above 10 %. Customers cannot pay. Notify: @webhook-autopilot",
            renotify_s=3600.0,
        ),
        events=(
            _at(_SALE, -8, causes.deploy("catalogue", "v3.7.2", _CI)),
            _at(_SALE, -34, causes.scale("cart", 3)),
        ),
        surge=_flash_crowd,
    ),
    Scenario(
        name="bad-deploy",
        service="checkout",
        occurred_at=_TUESDAY,
        fires_at=_TUESDAY + timedelta(minutes=4),
        origin=_TUESDAY + timedelta(minutes=5),
        monitor=Monitor(
            148820914,
            "checkout error rate is high",
            "checkout",
            "error_rate_percent",
            5.0,
            "The error rate of checkout is above 5 %. Notify: @webhook-autopilot",
            renotify_s=3600.0,
        ),
        events=(
            _at(_TUESDAY, 0, causes.deploy("checkout", "v2.4.0", _CI)),
            _at(_TUESDAY, -11, causes.scale("catalogue", 4)),
            _at(_TUESDAY, -5, causes.deploy("notification", "v1.4.9", _CI)),
        ),
        surge=_ordinary,
        defects={"checkout:v2.4.0": Defect(error_ratio=0.35)},
    ),
)


def _of_releases() -> tuple[Scenario, ...]:
    """A release brought it."""
    leak = datetime(2025, 4, 8, 10, 40, tzinfo=UTC)
    dying = datetime(2025, 4, 15, 13, 20, tzinfo=UTC)
    connections = datetime(2025, 5, 6, 11, 10, tzinfo=UTC)
    return (
        _story(
            "memory-leak",
            _alert(148820920, "cart", "error_rate_percent", 5.0, "The error rate of cart is above 5 %."),
            leak,
            _at(leak, -43, causes.deploy("cart", "v1.20.0", _CI)),
            _at(leak, -6, causes.deploy("notification", "v1.4.9", _CI)),
            defects={"cart:v1.20.0": Defect(leak_percent_per_min=1.3)},
            fires=4.0,
        ),
        _story(
            "failing-deploy",
            _alert(148820921, "cart", "error_rate_percent", 5.0, "The error rate of cart is above 5 %."),
            dying,
            _at(dying, 0, causes.deploy("cart", "v1.20.1", _CI)),
            _at(dying, -18, causes.scale("catalogue", 4)),
            defects={"cart:v1.20.1": Defect(dies_after_s=9.0)},
        ),
        _story(
            "connection-leak",
            _alert(151093328, "payment-service", "error_rate_percent", 5.0, "Payments fail."),
            connections,
            _at(connections, -1, causes.deploy("reporting", "v0.9.4", _CI)),
            _at(connections, -31, causes.deploy("catalogue", "v3.7.2", _CI)),
            defects={"reporting:v0.9.4": Defect(connections_per_min=4.0)},
            fires=4.0,
        ),
    )


def _of_operations() -> tuple[Scenario, ...]:
    """Somebody changed something, or a schedule did."""
    morning = datetime(2025, 4, 22, 7, 30, tzinfo=UTC)
    search = datetime(2025, 5, 13, 15, 5, tzinfo=UTC)
    diverted = datetime(2025, 5, 20, 9, 50, tzinfo=UTC)
    partitions = datetime(2025, 6, 3, 12, 15, tzinfo=UTC)
    month_end = datetime(2025, 6, 30, 16, 45, tzinfo=UTC)
    flags = json.dumps({"semantic_search": {"enabled": True}, "gift_cards": {"enabled": True}})
    return (
        _story(
            "scale-in",
            _alert(148820922, "web-gateway", "error_rate_percent", 3.0, "Customers see errors."),
            morning,
            _at(morning, -38, causes.scale_by_schedule("web-gateway", 1, 1)),
            _at(morning, -12, causes.deploy("notification", "v1.4.9", _CI)),
            surge=_ramp(0.4, 3.0),
            surging=frozenset({"web-gateway", "catalogue", "cart"}),
        ),
        _story(
            "feature-flag",
            _alert(148820923, "catalogue", "error_rate_percent", 5.0, "Searches fail."),
            search,
            _at(search, 0, causes.flag("semantic_search", flags, "mina")),
            _at(search, -25, causes.deploy("checkout", "v2.3.10", _CI)),
        ),
        _story(
            "diverted-traffic",
            _alert(148820924, "web-gateway", "error_rate_percent", 3.0, "Customers see errors."),
            diverted,
            _at(diverted, 0, causes.divert("cart", 60, "kofi")),
            _at(diverted, -16, causes.deploy("notification", "v1.4.9", _CI)),
        ),
        _story(
            "cold-cache",
            _alert(148820925, "catalogue", "error_rate_percent", 5.0, "Searches fail or take long."),
            partitions,
            _at(partitions, 0, causes.costly_misses("catalogue", 52.0, _REPARTITIONED, "search-team")),
            _at(partitions, -21, causes.scale("cart", 3)),
        ),
        _story(
            "noisy-batch",
            _alert(151093329, "payment-service", "error_rate_percent", 5.0, "Payments fail."),
            month_end,
            _at(month_end, 0, causes.scan("Job aggregate-orders started by hand: --full --since 2019-01-01")),
            _at(month_end, -27, causes.deploy("catalogue", "v3.7.2", _CI)),
        ),
    )


_REPARTITIONED = "Search index configuration changed: products re-partitioned from 48 to 4 partitions"


def _of_infrastructure() -> tuple[Scenario, ...]:
    """Something broke, or there is too much of everything."""
    stuck = datetime(2025, 7, 8, 18, 25, tzinfo=UTC)
    volume = datetime(2025, 7, 15, 8, 35, tzinfo=UTC)
    node = datetime(2025, 7, 22, 17, 5, tzinfo=UTC)
    mailing = datetime(2025, 9, 2, 19, 0, tzinfo=UTC)
    outage = datetime(2025, 9, 9, 14, 30, tzinfo=UTC)
    passing = datetime(2025, 9, 16, 10, 15, tzinfo=UTC)
    return (
        _story(
            "stuck-task",
            _alert(148820926, "catalogue", "error_rate_percent", 5.0, "Searches fail."),
            stuck,
            _at(stuck, 0, causes.hang("catalogue")),
            _at(stuck, -33, causes.deploy("checkout", "v2.3.10", _CI)),
        ),
        _story(
            "slow-database",
            _alert(151093330, "payment-service", "error_rate_percent", 5.0, "Payments fail."),
            volume,
            _at(volume, 0, causes.slow_volume(14.0)),
            _at(volume, -19, causes.deploy("catalogue", "v3.7.2", _CI)),
        ),
        _story(
            "cache-node-hung",
            _alert(151093331, "payment-service", "error_rate_percent", 5.0, "Payments fail."),
            node,
            _at(node, 0, causes.hung_node),
            _at(node, -24, causes.scale("cart", 3)),
        ),
        _story(
            "traffic-surge",
            _alert(148820927, "catalogue", "error_rate_percent", 5.0, "Searches fail."),
            mailing,
            _at(mailing, -29, causes.deploy("notification", "v1.4.9", _CI)),
            surge=_ramp(6.2, 2.0),
            surging=frozenset({"catalogue"}),
        ),
        _story(
            "provider-outage",
            _alert(151093332, "payment-service", "error_rate_percent", 5.0, "Payments fail."),
            outage,
            _at(outage, 0, causes.provider(0.3)),
            _at(outage, -22, causes.deploy("catalogue", "v3.7.2", _CI)),
        ),
        _story(
            "passing-trouble",
            _alert(148820928, "cart", "error_rate_percent", 5.0, "The error rate of cart is above 5 %."),
            passing,
            _at(passing, 0, causes.disturb("cart", 18.0, 0.3, 5.0)),
            _at(passing, -26, causes.deploy("checkout", "v2.3.10", _CI)),
        ),
    )


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for scenario in (*_TWO_FIRST, *_of_releases(), *_of_operations(), *_of_infrastructure())
}
