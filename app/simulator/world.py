"""Everything of the shop that can be changed: by people, by deployments, and by what breaks."""

from dataclasses import dataclass, field
from typing import Literal

from app.simulator.autoscaling import AutoScaling
from app.simulator.balancer import Balancer
from app.simulator.cache import Cache
from app.simulator.cluster import Cluster
from app.simulator.database import MAX_CONNECTIONS, SLOTS_KEPT, Database
from app.simulator.flags import Flags
from app.simulator.payment import DATABASE_SLOTS, ORDINARY, Conditions, Payments
from app.simulator.releases import Defects, defect


@dataclass(frozen=True)
class Disturbance:
    """Something that comes over a service from outside, and goes by itself. Epoch seconds."""

    service: str
    kind: Literal["disk"]
    start: float
    end: float
    error_ratio: float
    slower: float


@dataclass
class World:
    """The shop's parts. What is not named here is as always."""

    balancer: Balancer
    cluster: Cluster
    payments: Payments
    autoscaling: AutoScaling
    flags: Flags
    defects: Defects
    database: Database = field(default_factory=Database)
    cache: Cache = field(default_factory=Cache)
    disturbances: list[Disturbance] = field(default_factory=list)
    provider_up: float = 1.0  # share of Stripe's calls that it can answer at all
    miss_cost: dict[str, float] = field(default_factory=dict)  # by service: what a cache miss costs, in requests

    def tasks(self, at: float) -> list[str]:
        """The ids of all that run."""
        return [task.id for service in self.cluster.services.values() for task in service.running(at)]

    def database_delay(self, at: float) -> float:
        """How many times as long as ordinarily a query takes."""
        return self.database.delay(at, self.tasks(at))

    def connections_leaked(self, at: float) -> float:
        """To orders-db, by tasks that never give them back; cut whenever the database restarts."""
        leaked = 0.0
        for service in self.cluster.services.values():
            for task in service.running(at):
                rate = defect(self.defects, service.name, task.definition.version).connections_per_min
                leaked += rate * max(at - max(task.running_at, self.database.restarted_at), 0.0) / 60.0
        return min(leaked, DATABASE_SLOTS - SLOTS_KEPT)

    def conditions(self, at: float) -> Conditions:
        """What payments meet."""
        leaked = self.connections_leaked(at)
        if self.cache.emptied:
            self.cache.emptied = False
            self.payments.warm_level = 0.0
        delay, answers = self.database_delay(at), self.cache.answers(at)
        available = self.database.available(at)
        if abs(delay - 1.0) < 1e-3 and answers and available and self.provider_up == 1.0 and not leaked:
            return ORDINARY
        return Conditions(delay, available, DATABASE_SLOTS - leaked, answers, self.provider_up)

    def connections(self, at: float) -> float:
        """To orders-db, of all clients but payment-service."""
        return MAX_CONNECTIONS - DATABASE_SLOTS + self.connections_leaked(at)
