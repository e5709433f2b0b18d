"""ActionPlanner: what may be remedied."""

from typing import Any

from langgraph.graph import END, START, StateGraph

from collectors.base import Scope, Target, Window
from graph.catalogue import Catalogue, Service
from graph.flow import STATE
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.action_planner import action_planner
from graph.state import Evidence, RootCause, Suspect
from graph.state import State as GraphState
from tests.graph.sources import ALERT, NOON, deps


async def test_a_suspect_that_was_left_out_as_a_neighbour_can_be_remedied() -> None:
    analyst = ScriptedAnalyst()
    catalogue = Catalogue(services={name: Service() for name in ("shop", "db", "far", "elsewhere")})
    scope = Scope(
        service="shop",
        occurred_at=NOON,
        incident=Window(start=NOON, end=NOON),
        baseline=(),
        targets=(Target(service="shop"), Target(service="db", hops=1)),
        left_out=("far",),
    )
    evidence = Evidence(digest="d", findings=(), suspects=(Suspect(component="far", score=0.9, findings=()),))
    cause = RootCause(component="far", category="other", title="t", mechanism="m", confidence="low")

    async def node(state: GraphState) -> dict[str, Any]:
        return await action_planner(deps([], catalogue=catalogue, analyst=analyst), STATE.validate_python(state))

    graph = StateGraph(GraphState)
    graph.add_node("ActionPlanner", node)
    graph.add_edge(START, "ActionPlanner")
    graph.add_edge("ActionPlanner", END)
    state: Any = {
        "incident_id": "i",
        "alert": ALERT,
        "scope": scope,
        "evidence": evidence,
        "root_cause": cause,
        "round": 1,
    }
    await graph.compile().ainvoke(state)
    assert sorted(resource.service for resource in analyst.plans[0].resources) == ["db", "far", "shop"]
