"""ActionPlanner: what may be remedied, what the planner is told, and what a person is shown."""

from collections.abc import Mapping
from typing import Any

from langgraph.graph import END, START, StateGraph

from collectors.base import Scope, SeriesRef, Target, Window
from executors.rehearsal import RehearsalExecutor
from graph.catalogue import Catalogue, Service
from graph.deps import Deps, NoPast
from graph.flow import STATE
from graph.llms.base import Analysis, AnalysisRequest, PlanRequest, Proposal, TrackRecord
from graph.llms.rules import RulesAnalyst
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.action_planner import action_planner
from graph.state import ActionOption, Evidence, Finding, Plan, PlanStep, RootCause, Suspect
from graph.state import State as GraphState
from tests.graph.sources import ALERT, NOON, deps

ECS = {"cluster": "shop", "service": "shop"}
CATALOGUE = Catalogue(services={"shop": Service.model_validate({"ecs": ECS}), "db": Service()})


class Remembers(NoPast):
    """One operation was run before."""

    async def track_record(self, category: str) -> Mapping[str, TrackRecord]:
        """On this category alone."""
        return {"restart_ecs_task": TrackRecord(runs=4, resolved=3)} if category == "memory_exhaustion" else {}


def scope(*names: str, left_out: tuple[str, ...] = ()) -> Scope:
    return Scope(
        service="shop",
        occurred_at=NOON,
        incident=Window(start=NOON, end=NOON),
        baseline=(),
        targets=tuple(Target(service=name) for name in names),
        left_out=left_out,
    )


def slow(component: str) -> Finding:
    ref = SeriesRef(source="s", component=component, metric="latency", query="q", unit="ms")
    return Finding(
        id="E1",
        kind="metric",
        component=component,
        signal="latency",
        at=NOON,
        observed=900,
        baseline=100,
        summary=f"{component} latency rose from 100 ms to 900 ms",
        ref=ref,
    )


def cause(component: str | None, category: str = "memory_exhaustion") -> RootCause:
    return RootCause(component=component, category=category, title="t", mechanism="m", confidence="low")


async def planned(given: Deps, root_cause: RootCause, in_scope: Scope | None = None, **state: Any) -> Plan:
    async def node(state: GraphState) -> dict[str, Any]:
        return await action_planner(given, STATE.validate_python(state))

    graph = StateGraph(GraphState)
    graph.add_node("ActionPlanner", node)
    graph.add_edge(START, "ActionPlanner")
    graph.add_edge("ActionPlanner", END)
    component = root_cause.component or "shop"
    suspect = Suspect(component=component, score=0.9, findings=("E1",))
    start: Any = {
        "incident_id": "i",
        "alert": ALERT,
        "scope": in_scope or scope("shop", "db"),
        "evidence": Evidence(digest="d", findings=(slow(component),), suspects=(suspect,)),
        "root_cause": root_cause,
        "round": 2,
        **state,
    }
    return STATE.validate_python(await graph.compile().ainvoke(start))["plan"]


def rehearsed(**others: Any) -> Deps:
    operations = {o.name: o for o in RehearsalExecutor(CATALOGUE.resources()).operations}
    return deps([], catalogue=CATALOGUE, operations=operations, analyst=RulesAnalyst(), **others)


async def test_a_suspect_that_was_left_out_as_a_neighbour_can_be_remedied() -> None:
    analyst = ScriptedAnalyst()
    catalogue = Catalogue(services={name: Service() for name in ("shop", "db", "far", "elsewhere")})
    given = deps([], catalogue=catalogue, analyst=analyst)
    await planned(given, cause("far"), scope("shop", "db", left_out=("far",)))
    assert sorted(resource.service for resource in analyst.plans[0].resources) == ["db", "far", "shop"]


async def test_the_planner_is_told_language_round_and_track_record() -> None:
    analyst = ScriptedAnalyst()
    await planned(deps([], analyst=analyst, past=Remembers()), cause("shop"), language="ko")
    request = analyst.plans[0]
    assert (request.language, request.incident_id, request.round_) == ("ko", "i", 2)
    assert request.track_record == {"restart_ecs_task": TrackRecord(runs=4, resolved=3)}


async def test_the_planner_is_told_hints_and_may_act_on_what_they_name() -> None:
    analyst = ScriptedAnalyst()
    catalogue = Catalogue(services={**CATALOGUE.services, "redis": Service(), "web": Service()})
    await planned(deps([], analyst=analyst, catalogue=catalogue), cause("shop"), hints=("look at redis, not web",))
    [request] = analyst.plans
    assert request.scope.hints == ("look at redis, not web",)
    assert [r.service for r in request.resources] == ["db", "redis", "shop"]


async def test_the_track_record_is_shown_with_the_option() -> None:
    plan = await planned(rehearsed(past=Remembers()), cause("shop"))
    assert plan.options[0].track_record == "Resolved 3 of 4 incidents of this kind"
    assert plan.options[0].steps[0].preview.startswith("Rehearsal: would run restart_ecs_task")
    short_of_cpu = await planned(rehearsed(), cause("shop", "cpu_saturation"))
    assert "no listener rule and overflow group for shop" in short_of_cpu.note


async def test_effects_are_waited_for_longer_than_the_option_takes() -> None:
    step = PlanStep(operation="restart_ecs_task", params={"service": "shop"})
    options = [
        ActionOption(title=f"{minutes}", description="d", risk="low", minutes=minutes, steps=(step,))
        for minutes in (3.0, 45.0)
    ]
    plan = await planned(deps([], analyst=ScriptedAnalyst(options=options)), cause("shop"))
    assert [option.expected[0].within_minutes for option in plan.options] == [15.0, 55.0]


async def test_without_a_remedy_the_note_says_what_to_look_at() -> None:
    plan = await planned(rehearsed(), cause("db", "disk_full"))
    assert plan.options == ()
    assert plan.note.startswith("No remedy fits what was found: choose manual")
    assert "What fills the disk of db" in plan.note
    assert plan.note.count("the catalogue names no ECS service for db") == 1
    korean = await planned(rehearsed(), cause("db", "disk_full"), language="ko")
    assert "직접 확인할 것: db의 디스크를 채운 것" in korean.note


async def test_notes_are_part_of_what_a_person_agrees_to() -> None:
    class Noting:
        name = "noting"

        async def analyze(self, request: AnalysisRequest) -> Analysis:
            raise NotImplementedError

        async def plan(self, request: PlanRequest) -> Proposal:
            return Proposal(notes=("one", "two", "one"))

    plan = await planned(deps([], analyst=Noting()), cause(None))
    assert plan.note.endswith("hint.\none\ntwo")
    assert plan.revision != (await planned(deps([]), cause(None))).revision
