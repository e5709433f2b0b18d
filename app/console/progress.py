"""Where an incident stands in the graph, told from its status and its timeline. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.report import Report

NODES = (
    "SlackAlert",
    "ContextCollector",
    "RootCauseAnalyzer",
    "ActionPlanner",
    "RemediationDecision",
    "ActionExecutor",
)
AT_WORK: Mapping[str, int] = {
    "received": 0,
    "collecting": 1,
    "analyzing": 2,
    "planning": 3,
    "awaiting_decision": 4,
    "executing": 5,
    "verifying": 5,
}
StepState = Literal["waiting", "running", "you", "done", "stopped", "skipped"]
Event = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """One box: a node, how far it is, and the last thing it said."""

    node: str
    state: StepState
    said: str = ""


@dataclass(frozen=True)
class Source:
    """One collector, as it ticks in."""

    name: str
    state: Literal["running", "done", "failed"]
    said: str


def steps(report: Report, events: Sequence[Event]) -> list[Step]:
    """The six boxes. ``events`` is the timeline, oldest first."""
    said = {e["node"]: e["message"] for e in events if e["node"]}
    if report.decisions:
        last = report.decisions[-1]
        said["RemediationDecision"] = f"{last.by}: {last.choice}"
    states = _states(report, events)
    return [
        Step(node, state, said.get(node, "") if state not in ("waiting", "skipped", "you") else "")
        for node, state in zip(NODES, states, strict=True)
    ]


def _states(report: Report, events: Sequence[Event]) -> list[StepState]:
    if report.status == "resolved":
        return ["done"] * len(NODES)
    if report.waits:
        return ["waiting"] * len(NODES)
    if report.status in AT_WORK:
        here = AT_WORK[report.status]
        asked = report.status == "awaiting_decision" and report.plan_revision is not None
        return _around(here, "you" if asked else "running", "waiting")
    reached = _reached(events)
    if report.status == "needs_attention":
        return _around(reached, "stopped", "waiting")
    return _around(reached, "done" if report.by_hand else "skipped", "skipped")


def _around(here: int, state: StepState, after: StepState) -> list[StepState]:
    return ["done" if i < here else state if i == here else after for i in range(len(NODES))]


def _reached(events: Sequence[Event]) -> int:
    told = (str((e["data"] or {}).get("status")) for e in reversed(events))
    return next((AT_WORK[status] for status in told if status in AT_WORK), 0)


def sources(events: Sequence[Event]) -> list[Source]:
    """Every collector with its latest word, in the order they started."""
    found: dict[str, Source] = {}
    for event in events:
        if event["kind"] not in ("collector_started", "collector_finished"):
            continue
        name, _, said = event["message"].partition(": ")
        if event["kind"] == "collector_started":
            found[name] = Source(name, "running", said)
        else:
            found[name] = Source(name, "failed" if (event["data"] or {}).get("failed") else "done", said)
    return list(found.values())
