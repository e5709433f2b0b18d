"""redis: an ElastiCache replication group of a primary and a replica. Times are epoch seconds."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from app.simulator.aws_errors import AwsError

GROUP_ID = "shop-redis"
NODE_GROUP_ID = "0001"
FAILOVER_S = 25.0
REBOOT_S = 60.0


@dataclass(frozen=True)
class CacheEvent:
    """As DescribeEvents has it."""

    at: float
    source: str
    source_type: Literal["cache-cluster", "replication-group"]
    message: str


@dataclass
class Cache:
    """The group's state. ``hung``: nodes that keep their connections and answer nothing."""

    nodes: tuple[str, str] = (f"{GROUP_ID}-001", f"{GROUP_ID}-002")
    primary: str = f"{GROUP_ID}-001"
    hung: set[str] = field(default_factory=set)
    down_until: dict[str, float] = field(default_factory=dict)
    emptied: bool = False  # its content was lost since somebody last asked
    events: deque[CacheEvent] = field(default_factory=lambda: deque(maxlen=200))

    def answers(self, at: float) -> bool:
        """Whether the primary does."""
        return self.primary not in self.hung and at >= self.down_until.get(self.primary, 0.0)

    def settled(self, at: float) -> bool:
        """Whether no node restarts or takes over."""
        return all(at >= until for until in self.down_until.values())

    def fail_over(self, to: str, at: float) -> None:
        """TestFailover, or ModifyReplicationGroup with another primary. Raises AwsError."""
        if to not in self.nodes:
            raise AwsError("CacheClusterNotFound", f"CacheCluster not found: {to}", 404)
        if not self.settled(at):
            raise AwsError("InvalidReplicationGroupState", f"Replication group {GROUP_ID} is not available.")
        if to != self.primary:
            told = f"Failover from primary node {self.primary} to replica node {to} completed"
            self.primary = to
            self.down_until[to] = at + FAILOVER_S
            self.events.append(CacheEvent(at + FAILOVER_S, GROUP_ID, "replication-group", told))

    def reboot(self, node: str, at: float) -> None:
        """RebootCacheCluster: its content is lost; the primary's with it. Raises AwsError."""
        if node not in self.nodes:
            raise AwsError("CacheClusterNotFound", f"CacheCluster not found: {node}", 404)
        if not self.settled(at):
            raise AwsError("InvalidCacheClusterState", f"Cache cluster {node} is not available.")
        self.hung.discard(node)
        self.down_until[node] = at + REBOOT_S
        self.events.append(CacheEvent(at + REBOOT_S, node, "cache-cluster", "Cache node 0001 restarted"))
        self.emptied = self.emptied or node == self.primary

    @property
    def replica(self) -> str:
        """The other node."""
        return next(node for node in self.nodes if node != self.primary)
