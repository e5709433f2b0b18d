"""What happens to the shop, and when. A scenario sets causes only; symptoms follow from the shop's own mechanics."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.intake.datadog import TEMPLATE
from app.simulator.cluster import Cluster
from app.simulator.datadog_notifications import Monitor, Notification, render, variables


@dataclass(frozen=True)
class Event:
    """A cause that sets in at one moment, e.g. a deployment."""

    at: datetime
    apply: Callable[[Cluster, float], None]


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
    faults: Mapping[str, float]  # image "service:version" -> share of its requests that its defect breaks

    def alert_payload(self, now: datetime) -> dict[str, object]:
        """The webhook that Datadog sends at ``now`` with the recommended payload, every value rendered as text."""
        onset = self.occurred_at.timestamp()
        updated = max(now, self.fires_at).timestamp()
        told = Notification(self.monitor, "Triggered", (), onset, onset, updated)
        payload: dict[str, object] = json.loads(render(json.dumps(TEMPLATE), variables(told), in_json=True))
        return payload


def _deploy(service: str, version: str, author: str) -> Callable[[Cluster, float], None]:
    def apply(cluster: Cluster, at: float) -> None:
        definition = cluster.register(service, version, at)
        cluster.update(service, at, definition=definition.arn, author=author)

    return apply


def _scale(service: str, desired: int) -> Callable[[Cluster, float], None]:
    def apply(cluster: Cluster, at: float) -> None:
        cluster.update(service, at, desired=desired, author="application-autoscaling")

    return apply


def _flash_crowd(seconds: float) -> float:
    """Traffic triples at once, and the first rush goes beyond that."""
    return 0.0 if seconds < 0 else 1.0 + RUSH / 2.0 * math.exp(-seconds / RUSH_S)


def _ordinary(_seconds: float) -> float:
    return 0.0


RUSH = 1.0  # of ordinary traffic, on top of the tripled one
RUSH_S = 50.0

_SALE = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
_TUESDAY = datetime(2025, 3, 11, 14, 2, tzinfo=UTC)

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
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
                Event(_SALE - timedelta(minutes=8), _deploy("catalogue", "v3.7.2", "ci/github-actions")),
                Event(_SALE - timedelta(minutes=34), _scale("cart", 3)),
            ),
            surge=_flash_crowd,
            faults={},
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
                Event(_TUESDAY, _deploy("checkout", "v2.4.0", "ci/github-actions")),
                Event(_TUESDAY - timedelta(minutes=11), _scale("catalogue", 4)),
                Event(_TUESDAY - timedelta(minutes=5), _deploy("notification", "v1.4.9", "ci/github-actions")),
            ),
            surge=_ordinary,
            faults={"checkout:v2.4.0": 0.35},
        ),
    )
}
