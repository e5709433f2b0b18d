"""The operations from end to end against the simulated shop, in a process of its own behind a real port."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pydantic import JsonValue

import app.simulator
from app.catalogue import load
from app.clock import VirtualClock
from app.simulator.scenarios import SCENARIOS
from executors import ecs, traffic
from executors._aws import Connection
from executors._aws_service import ServiceParams
from executors._ecs_state import ServiceState
from executors._listener_rule import Elb
from executors._scalable_target import connect_autoscaler
from executors.base import AnyOperation, ExecutorError, Outcome, OutcomeUnknown, Refused, Resource, State
from executors.ecs import EcsExecutor
from executors.traffic import TrafficExecutor
from tests.executors.conftest import impatient

CATALOGUE = Path(app.simulator.__file__).with_name("autopilot.yaml")
SPEED = 120.0


@dataclass
class Shop:
    """A running shop and the operations on it."""

    url: str
    clock: VirtualClock
    http: httpx.Client
    resources: dict[str, Resource]
    ecs: EcsExecutor
    traffic: TrafficExecutor

    def operation(self, name: str) -> AnyOperation:
        """The operation of that name."""
        return next(o for o in [*self.ecs.operations, *self.traffic.operations] if o.name == name)

    async def run(self, name: str, **arguments: JsonValue) -> tuple[State, Outcome, State]:
        """A step as the product runs it: before, outcome, after."""
        operation = self.operation(name)
        params = operation.params.model_validate(arguments)
        before = await operation.inspect(params)
        operation.preview(params, before)
        outcome = await operation.execute(params, before)
        return before, outcome, await operation.settle(params, before)

    def changes(self, operation: str) -> int:
        """How often the shop was asked to do this."""
        requests = self.http.get("/_shop/requests").json()
        requests = requests["requests"] if isinstance(requests, dict) else requests
        return sum(request["operation"] == operation for request in requests)


def ecs_at(url: str, resources: dict[str, Resource], clock: VirtualClock) -> EcsExecutor:
    """The executor as it is made at start-up, at that address."""
    settings = ecs.Settings(endpoint_url=url)
    return EcsExecutor(resources, clock, Connection("ecs", settings, reads=ecs.READS), connect_autoscaler(settings))


def traffic_at(url: str, resources: dict[str, Resource], clock: VirtualClock) -> TrafficExecutor:
    """The executor as it is made at start-up, at that address."""
    settings = traffic.Settings(endpoint_url=url)
    balancer: Elb = Connection("elbv2", settings, reads=traffic.READS)
    return TrafficExecutor(resources, clock, balancer, Connection("ecs", settings, reads=ecs.READS))


@contextmanager
def running(scenario: str) -> Iterator[Shop]:
    """The shop, from the moment at which the demo of that scenario begins."""
    clock = VirtualClock(SCENARIOS[scenario].origin, time.time(), SPEED)
    command = [sys.executable, "-m", "app.simulator", "--scenario", scenario, "--clock", str(clock)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            resources = load(CATALOGUE).catalogue().resources()
            executors = ecs_at(url, resources, clock), traffic_at(url, resources, clock)
            with httpx.Client(base_url=url) as http:
                yield Shop(url, clock, http, resources, *executors)
            for executor in executors:
                asyncio.run(executor.aclose())
        finally:
            process.terminate()
            process.wait(10)


@pytest.fixture(scope="module")
def black_friday() -> Iterator[Shop]:
    """One shop for all tests, which start slowly: each changes another service, or puts it back."""
    with running("black-friday") as shop:
        yield shop


@pytest.fixture
def bad_deploy() -> Iterator[Shop]:
    with running("bad-deploy") as shop:
        yield shop


def primary_version(state: State) -> str:
    """The task definition that a service runs."""
    primary = ServiceState.model_validate(state).primary
    assert primary is not None
    return primary.task_definition


async def test_restart(black_friday: Shop) -> None:
    calls = black_friday.changes("UpdateService")
    before, outcome, after = await black_friday.run("restart_ecs_task", service="payment-service")
    assert after["desired"] == after["running"] == before["desired"]
    assert after["deployments"] != before["deployments"]
    assert len(outcome.request_ids) == 1
    assert black_friday.changes("UpdateService") == calls + 1
    restart = black_friday.operation("restart_ecs_task")
    assert await restart.probe(restart.params(service="payment-service"), before) == "done"


async def test_a_second_restart_is_refused_while_the_first_is_under_way(black_friday: Shop) -> None:
    restart = black_friday.operation("restart_ecs_task")
    params = restart.params(service="checkout")
    before = await restart.inspect(params)
    await restart.execute(params, before)
    with pytest.raises(Refused, match="in progress"):
        restart.preview(params, await restart.inspect(params))
    await restart.settle(params, before)


async def test_restart_of_all(black_friday: Shop) -> None:
    before, outcome, _ = await black_friday.run("restart_all_services", services=["cart", "notification"])
    assert len(outcome.request_ids) == 2
    restart_all = black_friday.operation("restart_all_services")
    assert await restart_all.probe(restart_all.params(services=("cart", "notification")), before) == "done"


async def test_check(black_friday: Shop) -> None:
    calls = black_friday.changes("UpdateService")
    before, _, after = await black_friday.run("check_ecs_health", service="catalogue")
    assert before["running"] == after["running"] == after["desired"]
    assert black_friday.changes("UpdateService") == calls


async def test_scaling_and_its_undo(black_friday: Shop) -> None:
    scale = black_friday.operation("scale_ecs_service")
    params = scale.params(service="catalogue", desired_count=5)
    before, _, after = await black_friday.run("scale_ecs_service", service="catalogue", desired_count=5)
    assert before["desired"] != after["desired"] == after["running"] == 5
    await scale.undo(params, before)
    assert (await scale.inspect(params))["desired"] == before["desired"]


async def test_one_task_is_stopped_and_replaced(black_friday: Shop) -> None:
    stop = black_friday.operation("stop_ecs_task")
    params = await stop.concrete(stop.params(service="cart"))
    before, outcome, after = await black_friday.run("stop_ecs_task", **params.model_dump())
    assert (len(outcome.request_ids), black_friday.changes("StopTask")) == (1, 1)
    assert after["running"] == before["running"]
    assert params.task not in str(after["tasks"])
    assert await stop.probe(params, before) == "done"


async def test_reducing_traffic_and_its_undo(black_friday: Shop) -> None:
    reduce = black_friday.operation("reduce_traffic")
    params = reduce.params(service="checkout", keep_percent=30)
    before, outcome, after = await black_friday.run("reduce_traffic", service="checkout", keep_percent=30)
    assert (before["percent"], after["percent"]) == (100, 30)
    assert outcome.request_ids
    assert await reduce.probe(params, before) == "done"
    await reduce.undo(params, before)
    assert (await reduce.inspect(params))["percent"] == 100


async def test_the_remedy_sheds_restarts_and_restores(black_friday: Shop) -> None:
    calls = black_friday.changes("ModifyRule")
    await black_friday.run("reduce_traffic", service="payment-service", keep_percent=30)
    await black_friday.run("restart_ecs_task", service="payment-service")
    _, outcome, after = await black_friday.run("gradual_traffic_restore", service="payment-service")
    assert after["percent"] == 100
    assert len(outcome.request_ids) == 3
    assert after["unhealthy"] == 0
    assert black_friday.changes("ModifyRule") == calls + 4


async def test_rollback_forward_again_and_back_in_mid_deployment(bad_deploy: Shop) -> None:
    rollback = bad_deploy.operation("rollback_ecs_service")
    params = rollback.params(service="checkout")
    before, _, after = await bad_deploy.run("rollback_ecs_service", service="checkout")
    assert after["deployments"] != before["deployments"]
    assert await rollback.probe(params, before) == "done"
    await rollback.undo(params, before)
    midway, _, back = await bad_deploy.run("rollback_ecs_service", service="checkout")
    assert midway["in_flight_status"] == "IN_PROGRESS"
    assert bad_deploy.changes("StopServiceDeployment") == 1
    assert primary_version(back) == primary_version(after) == before["previous"]


async def test_a_lost_answer_is_unknown_and_the_probe_tells(black_friday: Shop) -> None:
    hold: JsonValue = {"operation": "UpdateService", "when": "after", "seconds": 3}
    assert black_friday.http.post("/_shop/hold", json=hold).is_success
    calls = black_friday.changes("UpdateService")
    restart = black_friday.operation("restart_ecs_task")
    params = restart.params(service="reporting")
    before = await restart.inspect(params)
    autoscaler = black_friday.ecs.autoscaler
    hasty = EcsExecutor(
        black_friday.resources, black_friday.clock, Connection.of(impatient(black_friday.url, 1.0)), autoscaler
    )
    with pytest.raises(OutcomeUnknown):
        await hasty.operations[1].execute(params, before)
    await hasty.ecs.aclose()
    assert await restart.probe(params, before) == "done"
    assert black_friday.changes("UpdateService") == calls + 1


async def test_an_answer_of_500_to_a_read_does_not_end_the_wait(black_friday: Shop) -> None:
    check = black_friday.operation("check_ecs_health")
    params = check.params(service="web-gateway")
    before = await check.inspect(params)
    fail: JsonValue = {"operation": "DescribeServices", "status": 500, "times": 1}
    assert black_friday.http.post("/_shop/fail", json=fail).is_success
    assert (await check.settle(params, before))["running"] == before["running"]


async def test_a_service_unknown_to_ecs(black_friday: Shop) -> None:
    stranger = black_friday.resources["cart"].model_copy(update={"ecs_service": "nobody"})
    executor = EcsExecutor({"cart": stranger}, black_friday.clock, black_friday.ecs.ecs, black_friday.ecs.autoscaler)
    with pytest.raises(ExecutorError, match="nobody"):
        await executor.operations[0].inspect(ServiceParams(service="cart"))
