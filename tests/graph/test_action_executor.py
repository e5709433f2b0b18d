"""What ActionExecutor says when things go wrong, with operations and a ledger that do as they are told."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from app.studio import MemoryLedger, MemorySnapshots
from collectors.base import Check, Scope, Series, SeriesRef, Telemetry, Window
from executors.base import ExecutorError, Operation, Outcome, OutcomeUnknown, PartlyDone, Probe, State
from graph.catalogue import Catalogue
from graph.deps import ClaimedStep, Deps, StepKey
from graph.flow import STATE
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.action_executor import action_executor
from graph.state import ActionOption, Alert, Decision, Execution, ExpectedEffect, Plan, PlanStep, StepResult
from graph.state import State as GraphState
from tests.graph.sources import Unasked

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
ERRORS = SeriesRef(source="meter", component="shop", metric="errors", query="errors")


class Clock:
    """Sleeping takes no time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        """UTC."""
        return NOON + timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        """At once."""
        self.seconds += seconds
        await asyncio.sleep(0)


class Nothing(BaseModel):
    """No parameters."""


@dataclass
class Turn(Operation[Nothing]):
    """Turns a knob from 0 to 1, and goes wrong where it is told to."""

    fails: Mapping[str, Exception] = field(default_factory=dict)
    seen: Probe = "done"
    knob: int = 0
    calls: list[str] = field(default_factory=list)

    name = "turn"
    summary = "Turn the knob"
    risk = "low"
    reversible = True
    params = Nothing

    def _maybe_fail(self, where: str) -> None:
        if where in self.fails:
            raise self.fails[where]

    def resource(self, params: Nothing) -> str:
        """One knob."""
        return "knob"

    async def inspect(self, params: Nothing) -> State:
        """Where it stands."""
        return {"knob": self.knob}

    def preview(self, params: Nothing, before: State) -> str:
        """From where to where."""
        self._maybe_fail("preview")
        return "0 -> 1"

    async def execute(self, params: Nothing, before: State) -> Outcome:
        """Turn it."""
        self.calls.append("execute")
        self.knob = 1
        self._maybe_fail("execute")
        return Outcome(request_ids=("r1",))

    async def settle(self, params: Nothing, before: State) -> State:
        """It is turned."""
        self._maybe_fail("settle")
        return {"knob": self.knob}

    async def probe(self, params: Nothing, before: State) -> Probe:
        """As told."""
        self._maybe_fail("probe")
        return self.seen

    async def undo(self, params: Nothing, before: State) -> Outcome:
        """Turn it back."""
        self.calls.append("undo")
        self.knob = 0
        return Outcome(detail="turned back")


class Meter(Unasked):
    """Reads a script of values, then the last one for ever; None is silence."""

    name, timeout_s = "meter", 5.0

    def __init__(self, clock: Clock, values: Sequence[float | Exception | None]) -> None:
        self.clock, self.values = clock, list(values)

    async def collect(self, scope: Scope) -> Telemetry:
        """Nothing."""
        return Telemetry(source=self.name)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The next value of the script."""
        if window.end <= NOON:
            return [Series(ref=ERRORS, epoch_s=(window.start.timestamp(),), values=(100.0,))]
        value = self.values.pop(0) if len(self.values) > 1 else self.values[0]
        if isinstance(value, Exception):
            raise value
        at = max(window.start.timestamp(), window.end.timestamp() - 1)
        return [] if value is None else [Series(ref=ERRORS, epoch_s=(at,), values=(value,))]

    async def check(self) -> list[Check]:
        return []

    async def aclose(self) -> None:
        """Nothing to release."""


async def run(
    operation: Turn, values: Sequence[float | Exception | None], ledger: MemoryLedger | None = None
) -> Execution:
    clock = Clock()
    effect = ExpectedEffect(ref=ERRORS, comparator="<=", value=31, within_minutes=15, baseline=1, observed=100)
    option = ActionOption(
        title="Turn it",
        description="",
        risk="low",
        minutes=1,
        steps=(PlanStep(operation="turn", params={}),),
        expected=(effect,),
    )
    plan = Plan.of([option])
    deps = Deps(
        catalogue=Catalogue(),
        collectors=[Meter(clock, values)],
        snapshots=MemorySnapshots(),
        analyst=ScriptedAnalyst(),
        operations={"turn": operation},
        ledger=ledger or MemoryLedger(),
        clock=clock,
    )
    alert = Alert(source="t", title="t", service="shop", occurred_at=NOON, fingerprint="f", cycle_key="c")
    decision = Decision(plan_revision=plan.revision, choice="1", by="kim", at=NOON)

    async def node(state: GraphState) -> dict[str, Any]:
        return await action_executor(deps, STATE.validate_python(state))

    graph = StateGraph(GraphState)
    graph.add_node("ActionExecutor", node)
    graph.add_edge(START, "ActionExecutor")
    graph.add_edge("ActionExecutor", END)
    state: Any = {"incident_id": "i", "alert": alert, "plan": plan, "decision": decision}
    result = await graph.compile().ainvoke(state)
    execution: Execution = result["executions"][0]
    return execution


async def test_good_values_that_hold_are_resolved() -> None:
    execution = await run(Turn(), [90.0, 5.0])
    assert execution.results[0].status == "succeeded"
    assert execution.results[0].request_ids == ("r1",)
    assert execution.verification.verdict == "resolved"


async def test_three_bad_readings_in_a_row_are_worse_and_undone() -> None:
    operation = Turn()
    execution = await run(operation, [200.0])
    assert execution.verification.verdict == "worse"
    assert [u.status for u in execution.undone] == ["succeeded"]
    assert operation.calls == ["execute", "undo"]


async def test_one_bad_reading_at_the_deadline_is_not_worse() -> None:
    execution = await run(Turn(), [60.0] * 29 + [200.0, 60.0])
    assert execution.verification.verdict in ("unchanged", "improved")
    assert execution.undone == ()


async def test_relief_that_ends_is_not_resolved() -> None:
    execution = await run(Turn(), [5.0, 5.0, 5.0, 95.0])
    assert execution.verification.verdict == "unchanged"


@pytest.mark.parametrize("silence", [None, RuntimeError("cannot parse"), TimeoutError()])
async def test_a_reading_that_fails_neither_confirms_nor_ends_the_watch(silence: Exception | None) -> None:
    assert (await run(Turn(), [silence])).verification.verdict == "not_measurable"
    interrupted = await run(Turn(), [5.0, silence, 5.0, silence, 5.0])
    assert interrupted.verification.verdict == "resolved"


async def test_what_was_refused_was_not_made() -> None:
    operation = Turn(fails={"preview": ExecutorError("a deployment is under way")})
    result = (await run(operation, [100.0])).results[0]
    assert (result.status, result.made, operation.calls) == ("failed", False, [])
    assert "under way" in result.detail


async def test_a_lost_answer_is_read_back() -> None:
    lost = {"execute": OutcomeUnknown("no answer came")}
    assert (await run(Turn(fails=lost, seen="done"), [5.0])).results[0].status == "succeeded"
    assert (await run(Turn(fails=lost, seen="not_done"), [100.0])).results[0].status == "unknown"
    unreadable = lost | {"probe": ExecutorError("timed out as well")}
    assert (await run(Turn(fails=unreadable), [100.0])).results[0].status == "unknown"


async def test_a_fault_of_the_operation_itself_is_unknown() -> None:
    result = (await run(Turn(fails={"execute": KeyError("Deployments")}), [100.0])).results[0]
    assert (result.status, "KeyError" in result.detail) == ("unknown", True)


async def test_a_change_that_did_not_settle_is_in_place_and_undone_if_harmful() -> None:
    unsettled = {"settle": ExecutorError("waited 8 minutes")}
    execution = await run(Turn(fails=unsettled), [100.0])
    assert (execution.results[0].status, execution.results[0].made) == ("failed", True)
    assert "In place: turn" in execution.verification.detail
    harmful = await run(Turn(fails=unsettled), [200.0])
    assert harmful.verification.verdict == "worse"
    assert harmful.undone[0].status == "succeeded"


async def test_what_was_made_in_part_is_undone_if_harmful() -> None:
    operation = Turn(fails={"execute": PartlyDone("half way")})
    execution = await run(operation, [200.0])
    assert (execution.results[0].status, execution.results[0].made) == ("failed", True)
    assert execution.verification.verdict == "worse"
    assert operation.calls == ["execute", "undo"]


class TakenOver(MemoryLedger):
    """A ledger in which a dead process has claimed the step, some seconds ago."""

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """Claimed, and no more."""
        return None if key.undo else ClaimedStep("s", False, 1, self.age_s, NOON, {"knob": 0}, None)

    age_s = 0.0


async def test_after_a_crash_the_probe_decides() -> None:
    done = Turn(seen="done", knob=1)
    assert (await run(done, [5.0], TakenOver())).results[0].status == "succeeded"
    assert done.calls == []
    undecided = Turn(seen="unknown")
    assert (await run(undecided, [100.0], TakenOver())).results[0].status == "unknown"
    assert "execute" not in undecided.calls


async def test_not_done_is_believed_only_when_no_call_can_be_under_way() -> None:
    ledger = TakenOver()
    ledger.age_s = 21.8  # of 22 seconds
    operation = Turn(seen="not_done")
    started = asyncio.get_running_loop().time()
    assert (await run(operation, [5.0], ledger)).results[0].status == "succeeded"
    assert operation.calls == ["execute"]
    assert asyncio.get_running_loop().time() - started >= 0.2


async def test_a_refusal_stays_one_when_the_node_runs_again() -> None:
    ledger = RememberingLedger()
    operation = Turn(fails={"preview": ExecutorError("a deployment is under way")})
    assert (await run(operation, [100.0], ledger)).results[0].status == "failed"
    operation.fails = {}
    assert (await run(operation, [100.0], ledger)).results[0].status == "failed"
    assert operation.calls == []


class RememberingLedger(MemoryLedger):
    """Keeps results, as the real one."""

    async def finish(self, step_id: str, result: StepResult) -> None:
        """Remember it."""
        for key, step in self.steps.items():
            if step.step_id == step_id:
                self.steps[key] = replace(step, fresh=False, result=result)
