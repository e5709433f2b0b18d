"""Every operation there is can be planned, decided and run with nothing behind it."""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import JsonValue, ValidationError

import executors
from collectors.base import Scope, Window
from executors import rehearsal
from executors.base import AnyOperation, Executor, Refused, Resource
from graph.catalogue import Catalogue, Service
from graph.flow import STATE
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.action_executor import action_executor
from graph.nodes.action_planner import action_planner
from graph.state import ActionOption, Decision, Evidence, PlanStep, RootCause
from graph.state import State as GraphState
from tests.executors.conftest import RULE, InstantClock, operation
from tests.graph.sources import ALERT, NOON, deps

NAME = "everything"
CATALOGUE = Catalogue(
    services={
        name: Service.model_validate(
            {
                "ecs": {"cluster": "shop", "service": name},
                "load_balancer": {
                    "listener_rule_arn": "arn:aws:rule",
                    "target_group_arn": "arn:aws:own",
                    "overflow_target_group_arn": "arn:aws:overflow",
                },
                "lambda_alias": {"function": "pay", "alias": "live"},
                "aws": {"rds_instances": ["pay-1"], "rds_clusters": ["pay"]},
                "replication_group": "pay",
                "auto_scaling_group": "pay",
                "app_config": {"application": "shop", "environment": "live", "profile": "pay"},
                "automations": [{"document": "Clean-Up", "version": "3"}],
                "kubernetes": {"namespace": "shop", "workload": "pay"},
                "prompt": {"name": "answer", "models": ["gpt-4o"]},
            }
        )
        for name in (NAME, "other")
    }
)
ARGUMENTS: dict[str, dict[str, JsonValue]] = {
    "scale_ecs_service": {"desired_count": 6},
    "restart_all_services": {"services": [NAME, "other"]},
    "reduce_traffic": {"keep_percent": 30},
    "shift_traffic": {"target_group_arn": "arn:aws:own", "percent": 0},
    "shift_lambda_alias": {"version": "41", "weight_percent": 100},
    "reboot_cache_cluster": {"node": "pay-001"},
    "scale_auto_scaling_group": {"desired_capacity": 4},
    "run_automation": {"document": "Clean-Up"},
    "scale_deployment": {"replicas": 4},
}


def files() -> Iterator[str]:
    """The executors there are, by file, but the rehearsal itself."""
    for module in iter_modules(executors.__path__):
        if not module.name.startswith("_") and module.name not in ("base", "rehearsal"):
            yield module.name


def kinds() -> list[type[AnyOperation]]:
    """All operations of all executors."""
    return [kind for name in files() for kind in import_module(f"executors.{name}").OPERATIONS]


def arguments(kind: type[AnyOperation]) -> dict[str, JsonValue]:
    """Params of a step."""
    given = ARGUMENTS.get(kind.name, {})
    return given if "services" in given else {"service": NAME, **given}


@pytest.fixture
def executor(resources: dict[str, Resource], clock: InstantClock) -> Executor:
    return rehearsal.create(resources, clock)


def test_every_operation_is_mirrored_with_its_terms(executor: Executor) -> None:
    mirrored = {o.name: (o.params, o.risk, o.reversible, o.read_only, o.minutes) for o in executor.operations}
    for kind in kinds():
        assert mirrored[kind.name] == (kind.params, kind.risk, kind.reversible, kind.read_only, kind.minutes)
    assert len(mirrored) == len(executor.operations) == len({kind.name for kind in kinds()}) >= 24
    assert all(o.dry_run and not o.permissions for o in executor.operations)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
async def test_what_the_real_one_reads_from_its_target_is_left_out(kind: type[AnyOperation]) -> None:
    mirror = operation(rehearsal.RehearsalExecutor(CATALOGUE.resources()), kind.name)
    params = mirror.params.model_validate(arguments(kind))
    before = await mirror.inspect(params)
    outcome = await mirror.execute(params, before)
    assert before == {"rehearsal": True} == await mirror.settle(params, before)
    assert outcome.detail == mirror.preview(params, before)
    assert outcome.detail.startswith(f"Rehearsal: would run {kind.name}(")
    assert await mirror.probe(params, before) == "done"
    assert not outcome.request_ids
    assert (mirror.pinned(params, before), mirror.changes(params, before), mirror.grants(params, before)) == (
        {},
        (),
        (),
    )
    assert mirror.capacity(params, before) is None
    assert {check.status for check in await mirror.preflight(params, before)} == {"skipped"}


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_what_the_catalogue_must_name_is_the_same_in_a_rehearsal(kind: type[AnyOperation]) -> None:
    bare = Resource(service=NAME)
    mirror = operation(rehearsal.RehearsalExecutor({NAME: bare, "other": bare}), kind.name)
    assert "autopilot.yaml" in mirror.lacks(bare), "it says where to add what is missing"
    assert mirror.lacks(CATALOGUE.resources()[NAME]) == ""
    with pytest.raises(Refused, match=r"autopilot\.yaml"):
        mirror.resource(mirror.params.model_validate(arguments(kind)))


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
async def test_an_operation_is_planned_decided_and_run(kind: type[AnyOperation]) -> None:
    step = PlanStep(operation=kind.name, params=arguments(kind))
    option = ActionOption(title="It", description="", risk=kind.risk, minutes=kind.minutes, steps=(step,))
    rehearsed = {o.name: o for o in rehearsal.RehearsalExecutor(CATALOGUE.resources()).operations}
    given = deps([], catalogue=CATALOGUE, operations=rehearsed, analyst=ScriptedAnalyst(options=[option]))

    async def plan(state: GraphState) -> dict[str, Any]:
        return await action_planner(given, STATE.validate_python(state))

    async def decide(state: GraphState) -> dict[str, Any]:
        shown = STATE.validate_python(state)["plan"]
        assert shown.options[0].steps[0].preview.startswith(f"Rehearsal: would run {kind.name}(")
        return {"decision": Decision(plan_revision=shown.revision, choice="1", by="kim", at=NOON)}

    async def run(state: GraphState) -> dict[str, Any]:
        return await action_executor(given, STATE.validate_python(state))

    graph = StateGraph(GraphState)
    graph.add_node("ActionPlanner", plan)
    graph.add_node("RemediationDecision", decide)
    graph.add_node("ActionExecutor", run)
    for way in ((START, "ActionPlanner"), ("ActionPlanner", "RemediationDecision"), ("ActionExecutor", END)):
        graph.add_edge(*way)
    graph.add_edge("RemediationDecision", "ActionExecutor")
    window = Window(start=NOON, end=NOON)
    start: Any = {
        "incident_id": "i",
        "alert": ALERT,
        "scope": Scope(service=NAME, occurred_at=NOON, incident=window, baseline=(), targets=()),
        "evidence": Evidence(digest="d", findings=(), suspects=()),
        "root_cause": RootCause(component=NAME, category="unknown", title="t", mechanism="m", confidence="low"),
        "round": 1,
    }
    (execution,) = (await graph.compile().ainvoke(start))["executions"]
    (result,) = execution.results
    assert (result.status, result.operation) == ("dry_run", kind.name)
    assert result.detail.startswith(f"Rehearsal: would run {kind.name}(")


async def test_it_says_what_would_be_called_and_undone(executor: Executor) -> None:
    reduce = operation(executor, "reduce_traffic")
    params = reduce.params(service="payment-service", keep_percent=30)
    said = f"reduce_traffic(service='payment-service', keep_percent=30) on alb:{RULE}"
    assert (await reduce.execute(params, {})).detail == f"Rehearsal: would run {said}"
    assert (await reduce.undo(params, {})).detail == f"Rehearsal: would undo {said}"


async def test_what_cannot_be_undone_cannot_be_undone_in_a_rehearsal(executor: Executor) -> None:
    restart = operation(executor, "restart_deployment")
    with pytest.raises(Refused, match="cannot be undone"):
        await restart.undo(restart.params(service="worker"), {})


def test_the_catalogues_bounds_hold_in_a_rehearsal(executor: Executor) -> None:
    scale = operation(executor, "scale_ecs_service")
    with pytest.raises(Refused, match="outside"):
        scale.preview(scale.params(service="payment-service", desired_count=99), {})
    with pytest.raises(Refused, match="no service"):
        scale.resource(scale.params(service="cart", desired_count=1))
    with pytest.raises(ValidationError):
        scale.params(service="worker", desired_count=-1)
