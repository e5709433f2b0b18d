"""The whole picture on one screen.

SlackAlert -> ContextCollector -> RootCauseAnalyzer -> ActionPlanner -> RemediationDecision -> ActionExecutor
                    ^                                       ^                  |                     |
                    +------------- re_analyze --------------|------------------+                     |
                                                            +---- re_plan -----+                     |
                                                            +---- not resolved: decide again --------+
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from graph.deps import Deps
from graph.nodes.action_executor import action_executor
from graph.nodes.action_planner import action_planner
from graph.nodes.context_collector import context_collector
from graph.nodes.remediation_decision import remediation_decision
from graph.nodes.root_cause_analyzer import root_cause_analyzer
from graph.nodes.slack_alert import slack_alert
from graph.state import State, storable

Node = Callable[[Deps, State], Awaitable[dict[str, Any]]]
STATE = TypeAdapter(State)
Graph = CompiledStateGraph[State, None, State, State]

NODES: Mapping[str, Node] = {
    "SlackAlert": slack_alert,
    "ContextCollector": context_collector,
    "RootCauseAnalyzer": root_cause_analyzer,
    "ActionPlanner": action_planner,
    "RemediationDecision": remediation_decision,
    "ActionExecutor": action_executor,
}


def typed(state: Mapping[str, Any]) -> State:
    """The state with its types. In channels and checkpoints it is JSON: readable in LangGraph Studio, loadable
    without trusting a class name, and a checkpoint that no longer fits is refused here rather than half-read.
    """
    return STATE.validate_python(state)


def after_decision(state: State) -> str:
    """Where a person's decision leads."""
    choice = typed(state)["decision"].choice
    if choice == "manual":
        return END
    return {"re_analyze": "ContextCollector", "re_plan": "ActionPlanner"}.get(choice, "ActionExecutor")


def after_execution(state: State) -> str:
    """A remedy that did not resolve the incident is followed by another decision."""
    resolved = typed(state)["executions"][-1].verification.verdict == "resolved"
    return END if resolved else "ActionPlanner"


async def _run(node: Node, deps: Deps, state: State) -> dict[str, Any]:
    """A node reads and writes typed values; the graph carries JSON."""
    update = await node(deps, typed(state))
    return {key: storable(to_jsonable_python(value, by_alias=True)) for key, value in update.items()}


def build(deps: Deps, nodes: Mapping[str, Node] = NODES) -> Graph:
    """The compiled graph, without a checkpointer: the runner brings its own, LangGraph Studio too."""
    graph: StateGraph[State, None, State, State] = StateGraph(State)
    for name, node in nodes.items():
        graph.add_node(name, partial(_run, node, deps))
    graph.add_edge(START, "SlackAlert")
    graph.add_edge("SlackAlert", "ContextCollector")
    graph.add_edge("ContextCollector", "RootCauseAnalyzer")
    graph.add_edge("RootCauseAnalyzer", "ActionPlanner")
    graph.add_edge("ActionPlanner", "RemediationDecision")
    graph.add_conditional_edges(
        "RemediationDecision", after_decision, ["ContextCollector", "ActionPlanner", "ActionExecutor", END]
    )
    graph.add_conditional_edges("ActionExecutor", after_execution, ["ActionPlanner", END])
    return graph.compile(name="AIOps Auto Pilot")
