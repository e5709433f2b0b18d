"""Application Auto Scaling of the shop's ECS services: a range, and target tracking of the processor."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from app.simulator.cluster import Cluster

AUTHOR = "application-autoscaling"
CPU_TARGET = 70.0  # percent
LOOKS_EVERY_S = 60.0
COOLS_DOWN_S = 300.0  # before it takes a task away


@dataclass
class ScalableTarget:
    """A registered service. ``suspended``: dynamic scaling is off, its range stays."""

    service: str
    minimum: int
    maximum: int
    created_at: float
    suspended: bool = False
    looked_at: float = 0.0
    grown_at: float = 0.0


class AutoScaling:
    """The targets by service; ``step`` lets them act."""

    def __init__(self, cluster: Cluster, now: float) -> None:
        self._cluster = cluster
        self.targets = {"web-gateway": ScalableTarget("web-gateway", 3, 8, now - 300 * 86400.0, looked_at=now)}

    def register(
        self, service: str, at: float, minimum: int | None, maximum: int | None, suspended: bool | None
    ) -> None:
        """RegisterScalableTarget: what is left out stays; the present number is brought into the range at once."""
        known = self.targets.get(service) or ScalableTarget(service, 1, 1, at)
        known.minimum = known.minimum if minimum is None else minimum
        known.maximum = known.maximum if maximum is None else maximum
        known.suspended = known.suspended if suspended is None else suspended
        self.targets[service] = known
        self._bring_in(known, self._cluster.service(service).desired, at)

    def step(self, at: float, cpu: Mapping[str, float]) -> None:
        """Once a minute; ``cpu``: percent by service."""
        for target in self.targets.values():
            if at >= target.looked_at + LOOKS_EVERY_S:
                target.looked_at = at
                self._bring_in(target, self._wanted(target, cpu.get(target.service, 0.0), at), at)

    def _wanted(self, target: ScalableTarget, cpu: float, at: float) -> int:
        service = self._cluster.service(target.service)
        tracked = math.ceil(len(service.running(at)) * cpu / CPU_TARGET)
        if target.suspended or tracked == service.desired:
            return service.desired
        if tracked > service.desired:
            target.grown_at = at
            return tracked
        return tracked if at >= target.grown_at + COOLS_DOWN_S else service.desired

    def _bring_in(self, target: ScalableTarget, wanted: int, at: float) -> None:
        desired = min(max(wanted, target.minimum), target.maximum)
        if desired != self._cluster.service(target.service).desired:
            self._cluster.update(target.service, at, desired=desired, author=AUTHOR)
