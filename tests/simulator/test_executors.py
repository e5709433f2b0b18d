"""The executors, unchanged, against the shop: each step in a session of a role that allows just that step."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import JsonValue

import app.simulator
from executors import appconfig, ecs, elasticache, rds, traffic
from executors.base import Executor, Outcome, State
from graph.catalogue import Catalogue

from .conftest import Served

CATALOGUE = Path(app.simulator.__file__).with_name("autopilot.yaml")
ROLE = "arn:aws:iam::123456789012:role/autopilot-executor"
EXECUTORS = {"ecs": ecs, "traffic": traffic, "rds": rds, "elasticache": elasticache, "appconfig": appconfig}


class Hands:
    """The shop's clock, put forward by whoever waits."""

    def __init__(self, shop: Served) -> None:
        self._shop = shop

    def now(self) -> datetime:
        return self._shop.clock.now()

    async def sleep(self, seconds: float) -> None:
        self._shop.advance(seconds / 60.0)


class Hand:
    """All operations of an executor on a shop, as the product runs a step: inspect, preview, execute, settle."""

    def __init__(self, shop: Served, executor: Executor) -> None:
        self.shop, self.executor = shop, executor
        self.operations = {operation.name: operation for operation in executor.operations}

    async def run(self, name: str, arguments: Mapping[str, JsonValue]) -> tuple[State, Outcome, State]:
        operation = self.operations[name]
        params = operation.params.model_validate(arguments)
        before = await operation.inspect(params)
        operation.preview(params, before)
        failed = [check for check in await operation.preflight(params, before) if check.status == "failed"]
        assert not failed, failed
        outcome = await operation.execute(params, before)
        assert await operation.probe(params, before) == "done"
        return before, outcome, await operation.settle(params, before)

    async def undo(self, name: str, arguments: Mapping[str, JsonValue], before: State) -> Outcome:
        operation = self.operations[name]
        return await operation.undo(operation.params.model_validate(arguments), before)


Hire = Callable[[str, Served], Hand]


@pytest.fixture
def hire(monkeypatch: pytest.MonkeyPatch) -> Hire:
    """``hire("rds", shop)``; settings are read from the environment, as in production."""
    resources = Catalogue.model_validate(
        {key: value for key, value in yaml.safe_load(CATALOGUE.read_text()).items() if key in Catalogue.model_fields}
    ).resources()

    def make(name: str, shop: Served) -> Hand:
        for key, value in (("ENDPOINT_URL", shop.url), ("REGION", "us-east-1"), ("ROLE_ARN", ROLE)):
            monkeypatch.setenv(f"AUTOPILOT_{name.upper()}_{key}", value)
        return Hand(shop, EXECUTORS[name].create(resources, Hands(shop)))

    return make


def changed(shop: Served) -> list[str]:
    """The operations that changed something."""
    return [request["operation"] for request in httpx.get(f"{shop.url}/_shop/requests").json()]


def sessions(shop: Served) -> list[str]:
    """The names of those that were begun."""
    return [session["name"] for session in httpx.get(f"{shop.url}/_shop/sessions").json()]


CASES: tuple[tuple[str, str, str, dict[str, JsonValue], list[str]], ...] = (
    ("slow-database", "rds", "failover_db_cluster", {"service": "orders-db"}, ["FailoverDBCluster"]),
    ("slow-database", "rds", "reboot_db_instance", {"service": "orders-db"}, ["RebootDBInstance"]),
    ("cache-node-hung", "elasticache", "failover_cache", {"service": "redis"}, ["ModifyReplicationGroup"]),
    (
        "cache-node-hung",
        "elasticache",
        "reboot_cache_cluster",
        {"service": "redis", "node": "shop-redis-001"},
        ["RebootCacheCluster"],
    ),
    ("feature-flag", "appconfig", "revert_configuration", {"service": "catalogue"}, ["StopDeployment"]),
    ("bad-deploy", "ecs", "rollback_ecs_service", {"service": "checkout"}, ["UpdateService"]),
    ("failing-deploy", "ecs", "rollback_ecs_service", {"service": "cart"}, ["StopServiceDeployment"]),
    ("stuck-task", "ecs", "restart_ecs_task", {"service": "catalogue"}, ["UpdateService"]),
    ("stuck-task", "ecs", "stop_ecs_task", {"service": "catalogue"}, ["StopTask"]),
    (
        "scale-in",
        "ecs",
        "scale_ecs_service",
        {"service": "web-gateway", "desired_count": 4},
        ["RegisterScalableTarget"],
    ),
    ("traffic-surge", "traffic", "reduce_traffic", {"service": "catalogue", "keep_percent": 50}, ["ModifyRule"]),
)


@pytest.mark.parametrize(("fault", "executor", "name", "arguments", "calls"), CASES)
async def test_a_step_runs_in_a_session_of_its_own(
    serve: Callable[[str, float], Served],
    hire: Hire,
    fault: str,
    executor: str,
    name: str,
    arguments: dict[str, JsonValue],
    calls: list[str],
) -> None:
    shop = serve(fault, 6)
    hand = hire(executor, shop)
    before, outcome, _ = await hand.run(name, arguments)
    assert changed(shop)[: len(calls)] == calls
    assert outcome.request_ids
    assert f"autopilot-{name}" in sessions(shop)
    if hand.operations[name].reversible:
        await hand.undo(name, arguments, before)
        assert len(changed(shop)) > len(calls)
    await hand.executor.aclose()
