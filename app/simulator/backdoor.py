"""The shop's own back door for tests and benchmarks: what was changed, the truth, and trouble on demand.

The product never calls it.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from app.simulator.shop import Shop
from app.simulator.truth import Truth, truth

Json = dict[str, object]
KEPT = 1000
LOOKS_BACK_S = 3600.0  # for how long something is as it is


class _Target(BaseModel):
    operation: str | None = Field(default=None, description="An AWS operation, e.g. UpdateService")
    path: str | None = Field(default=None, description="A path prefix, e.g. /api/v2/logs")

    @model_validator(mode="after")
    def _one_of_both(self) -> "_Target":
        if (self.operation is None) == (self.path is None):
            raise ValueError("give either an operation or a path")
        return self

    def hits(self, operation: str, path: str) -> bool:
        if self.operation is not None:
            return self.operation == operation
        return bool(self.path) and path.startswith(str(self.path))


class Hold(_Target):
    """Hold the next ``times`` such calls, before or after they take effect.

    A call held before whose caller has gone away by the end of the hold is never made. One held after is one that was
    accepted and is not answered.
    """

    when: Literal["before", "after"] = "before"
    seconds: Annotated[float, Field(gt=0, le=600)]
    times: Annotated[int, Field(ge=1)] = 1


class Fail(_Target):
    """Answer the next ``times`` such calls with this HTTP status, without effect."""

    status: Annotated[int, Field(ge=200, le=599)] = 500
    code: str = Field(
        default="",
        description="AWS error code, ServerException or ThrottlingException if empty; with status 200, Slack's `error`",
    )
    retry_after_s: Annotated[int, Field(ge=0)] = 1
    times: Annotated[int, Field(ge=1)] = 1


_Trouble = TypeVar("_Trouble", Hold, Fail)


@dataclass(frozen=True)
class Recorded:
    """A mutating request."""

    at: datetime
    operation: str
    params: Json
    request_id: str


@dataclass
class Delivery:
    """A webhook's delivery. ``status`` is the last answer's; 0: none came."""

    webhook: str
    monitor_id: int
    transition: str
    scope: str
    attempts: int = 0
    status: int = 0


class BackDoor:
    """Records mutating requests, and holds or fails calls as asked."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.recorded: deque[Recorded] = deque(maxlen=KEPT)
        self.delivered: deque[Delivery] = deque(maxlen=KEPT)
        self._holds: list[Hold] = []
        self._failures: list[Fail] = []

    def record(self, operation: str, params: Json, request_id: str) -> None:
        """Remember a mutating request that was carried out."""
        self.recorded.append(Recorded(self._shop.clock.now(), operation, params, request_id))

    def failure(self, operation: str, path: str) -> Fail | None:
        """The failure that is due for this call, if any."""
        return _due(self._failures, operation, path)

    def hold(self, operation: str, path: str) -> Hold | None:
        """The hold that is due for this call, if any."""
        return _due(self._holds, operation, path)

    def router(self) -> APIRouter:
        """The HTTP side."""
        router = APIRouter(prefix="/_shop")
        router.add_api_route("/requests", self._requests, methods=["GET"])
        router.add_api_route("/deliveries", self._deliveries, methods=["GET"])
        router.add_api_route("/state", self._state, methods=["GET"])
        router.add_api_route("/truth", self._truth, methods=["GET"])
        router.add_api_route("/hold", self._add_hold, methods=["POST"], status_code=204)
        router.add_api_route("/fail", self._add_failure, methods=["POST"], status_code=204)
        return router

    def _requests(self) -> list[Recorded]:
        return list(self.recorded)

    def _deliveries(self) -> list[Delivery]:
        return list(self.delivered)

    def _truth(self, start: datetime | None = None, end: datetime | None = None) -> Truth:
        """How users are served, over the last minute or from ``start`` to ``end``."""
        with self._shop.live() as now:
            last = end.timestamp() if end else now
            first = start.timestamp() if start else last - 60.0
            return truth(self._shop.ticks(first - LOOKS_BACK_S, last), first, last)

    def _add_hold(self, hold: Hold) -> None:
        self._holds.append(hold)

    def _add_failure(self, fail: Fail) -> None:
        self._failures.append(fail)

    def _state(self) -> Json:
        shop = self._shop
        with shop.live() as now:
            ticks = shop.latest(1)
            latest = ticks[0] if ticks else None
            return {
                "scenario": shop.scenario.name,
                "now": datetime.fromtimestamp(now, UTC),
                "loads": latest.loads if latest else {},
                "payment": latest.flow if latest else None,
                "pools": dict(shop.payments.pools),
                "weights": {rule.spec.name: rule.kept for rule in shop.balancer.rules.values()},
                "services": {
                    name: {
                        "desired": service.desired,
                        "running": len(service.running(now)),
                        "version": service.primary.definition.version,
                        "rollout_state": service.primary.rollout_state,
                    }
                    for name, service in shop.cluster.services.items()
                },
                "ticks": len(shop.ticks(0.0, now)),
            }


def _due(troubles: list[_Trouble], operation: str, path: str) -> _Trouble | None:
    """The first that hits this call, one time less to come."""
    for trouble in troubles:
        if trouble.hits(operation, path):
            trouble.times -= 1
            if trouble.times == 0:
                troubles.remove(trouble)
            return trouble
    return None
