"""Sources in this process, and the first two nodes run over them."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from langgraph.graph import END, START, StateGraph

from app.studio import MemoryLedger, MemorySnapshots
from collectors.base import (
    Check,
    Collector,
    Edge,
    LogsRead,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Telemetry,
    TraceRead,
    Window,
)
from graph.catalogue import Catalogue
from graph.deps import Deps
from graph.flow import STATE
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.context_collector import context_collector
from graph.nodes.slack_alert import slack_alert
from graph.state import Alert
from graph.state import State as GraphState

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ALERT = Alert(source="datadog", title="errors", service="shop", occurred_at=NOON, fingerprint="f", cycle_key="c")


class Unasked:
    """A source that answers no questions."""

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Nothing."""
        return frozenset()

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """Raises Refused."""
        raise Refused("nothing can be asked")


class Source(Unasked):
    """Answers as it is told to."""

    timeout_s = 60.0

    def __init__(self, name: str, answer: Callable[[Scope], Telemetry], *, after_s: float = 0.0) -> None:
        self.name, self.answer, self.after_s = name, answer, after_s
        self.scopes: list[Scope] = []

    async def collect(self, scope: Scope) -> Telemetry:
        """What it is told to."""
        self.scopes.append(scope)
        await asyncio.sleep(self.after_s)
        return self.answer(scope)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """Nothing."""
        return []

    async def check(self) -> list[Check]:
        """Nothing."""
        return []

    async def aclose(self) -> None:
        """Nothing to release."""


class Clock:
    """Some minutes after the alert."""

    def now(self) -> datetime:
        """UTC."""
        return NOON + timedelta(minutes=5)

    async def sleep(self, seconds: float) -> None:
        """Nobody sleeps here."""


def deps(collectors: Sequence[Collector], **others: Any) -> Deps:
    """With these sources, and nothing else of interest."""
    plain = Deps(
        catalogue=Catalogue(),
        collectors=collectors,
        snapshots=MemorySnapshots(),
        analyst=ScriptedAnalyst(),
        operations={},
        ledger=MemoryLedger(),
        clock=Clock(),
    )
    return replace(plain, **others)


async def collect(deps: Deps, alert: Alert = ALERT, **state: Any) -> GraphState:
    """SlackAlert and ContextCollector; the state after them, typed."""

    async def first(state: GraphState) -> dict[str, Any]:
        return await slack_alert(deps, STATE.validate_python(state))

    async def second(state: GraphState) -> dict[str, Any]:
        return await context_collector(deps, STATE.validate_python(state))

    graph = StateGraph(GraphState)
    graph.add_node("SlackAlert", first)
    graph.add_node("ContextCollector", second)
    graph.add_edge(START, "SlackAlert")
    graph.add_edge("SlackAlert", "ContextCollector")
    graph.add_edge("ContextCollector", END)
    start: Any = {"incident_id": "i", "alert": alert, **state}
    result = await graph.compile().ainvoke(start)
    return STATE.validate_python(result)


def errors(scope: Scope, *, since: datetime, source: str, component: str = "shop") -> Telemetry:
    """A metric of errors, one point a minute over all windows, that jumps at ``since``."""
    windows = (*scope.baseline, scope.incident)
    first, last = min(w.start for w in windows), max(w.end for w in windows)
    times = [first + timedelta(minutes=m) for m in range(int((last - first).total_seconds() // 60))]
    ref = SeriesRef(source=source, component=component, metric="http.errors.count", statistic="sum", query="q")
    values = tuple(100.0 if at >= since else 1.0 for at in times)
    series = Series(ref=ref, epoch_s=tuple(at.timestamp() for at in times), values=values)
    return Telemetry(source=source, series=(series,))


def calls(*pairs: tuple[str, str]) -> Callable[[], Any]:
    """Edges that were observed before."""

    async def observed() -> list[Edge]:
        return [Edge(caller=a, callee=b, source="traces") for a, b in pairs]

    return observed
