"""orders-db: an Aurora PostgreSQL cluster of a writer and a reader. Times are epoch seconds."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from app.simulator.aws_errors import AwsError

CLUSTER_ID = "orders-db"
FAILOVER_S = 35.0  # until the reader writes
REBOOT_S = 60.0
COLD = 1.2  # an instance that has just become the writer answers so much slower, until its buffers are filled
WARM_UP_S = 90.0
CONTENDED = 12.0  # while a batch scans whole tables
BATCH_RETRIES_S = 45.0  # a batch whose connection was cut comes back
MAX_CONNECTIONS = 97  # of 100, three are reserved
SLOTS_KEPT = 5  # what payments get of them at the very least
NEVER = -1e12


@dataclass
class Instance:
    """One instance of the cluster. ``slower``: how many times as long it takes for anything, e.g. for a bad volume."""

    id: str
    slower: float = 1.0
    down_until: float = NEVER


@dataclass(frozen=True)
class DatabaseEvent:
    """As DescribeEvents has it."""

    at: float
    source: str
    source_type: Literal["db-instance", "db-cluster"]
    message: str
    categories: tuple[str, ...]


@dataclass
class Database:
    """The cluster's state. ``batch`` is the id of a task that scans whole tables, while it lives."""

    instances: list[Instance] = field(default_factory=lambda: [Instance("orders-db-1"), Instance("orders-db-2")])
    writer: str = "orders-db-1"
    took_over_at: float = NEVER
    restarted_at: float = NEVER  # when all connections were cut
    fails_over_until: float = NEVER
    batch: str = ""
    events: deque[DatabaseEvent] = field(default_factory=lambda: deque(maxlen=200))

    def instance(self, id_: str) -> Instance:
        """Raises AwsError."""
        found = next((instance for instance in self.instances if instance.id == id_), None)
        if found is None:
            raise AwsError("DBInstanceNotFound", f"DBInstance {id_} not found.", 404)
        return found

    def available(self, at: float) -> bool:
        """Whether it takes connections."""
        return at >= self.instance(self.writer).down_until

    def delay(self, at: float, running: Sequence[str]) -> float:
        """How many times as long as ordinarily a query takes; ``running``: the ids of the shop's tasks."""
        cold = COLD * math.exp(-max(at - self.took_over_at, 0.0) / WARM_UP_S)
        return self.instance(self.writer).slower * (1.0 + cold) * (CONTENDED if self.scanned(at, running) else 1.0)

    def scanned(self, at: float, running: Sequence[str]) -> bool:
        """Whether a batch runs on it."""
        return self.batch in running and at >= self.restarted_at + BATCH_RETRIES_S

    def failover(self, target: str, at: float) -> None:
        """FailoverDBCluster. Raises AwsError."""
        reader = self.instance(target) if target else next(i for i in self.instances if i.id != self.writer)
        if reader.id == self.writer:
            raise AwsError("InvalidDBInstanceState", f"{target} is the writer already.")
        self._must_be_available(at)
        self._tell(at, CLUSTER_ID, "db-cluster", f"Started cross AZ failover to DB instance: {reader.id}", "failover")
        self.writer = reader.id
        self._cut(reader, at, FAILOVER_S)
        self.fails_over_until = at + FAILOVER_S
        done = at + FAILOVER_S
        self._tell(done, CLUSTER_ID, "db-cluster", f"Completed failover to DB instance: {reader.id}", "failover")

    def reboot(self, id_: str, at: float, *, failover: bool = False) -> Instance:
        """RebootDBInstance. Raises AwsError."""
        instance = self.instance(id_)
        if failover:
            raise AwsError("InvalidParameterCombination", "Cannot reboot with failover an instance of a DB cluster.")
        self._must_be_available(at)
        if at < instance.down_until:
            raise AwsError("InvalidDBInstanceState", f"Instance {id_} is not currently in the available state.")
        if id_ == self.writer:
            self._cut(instance, at, REBOOT_S)
        instance.down_until = at + REBOOT_S
        self._tell(at, id_, "db-instance", "DB instance shutdown", "availability")
        self._tell(at + REBOOT_S, id_, "db-instance", "DB instance restarted", "availability")
        return instance

    def _cut(self, writer: Instance, at: float, seconds: float) -> None:
        writer.down_until = at + seconds
        self.took_over_at = self.restarted_at = at + seconds

    def _must_be_available(self, at: float) -> None:
        if not self.available(at):
            raise AwsError("InvalidDBClusterStateFault", f"DB cluster {CLUSTER_ID} is not in the available state.")

    def _tell(
        self, at: float, source: str, kind: Literal["db-instance", "db-cluster"], message: str, category: str
    ) -> None:
        self.events.append(DatabaseEvent(at, source, kind, message, (category,)))
