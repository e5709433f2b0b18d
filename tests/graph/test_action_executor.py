"""What ActionExecutor says when things go wrong, with operations and a ledger that do as they are told."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel

from app.studio import MemoryLedger, MemorySnapshots
from collectors.base import Check, Edge, Scope, Series, SeriesRef, Telemetry, Window
from executors.base import (
    Capacity,
    ExecutorError,
    Operation,
    Outcome,
    OutcomeUnknown,
    PartlyDone,
    Probe,
    Refused,
    State,
)
from graph.catalogue import Catalogue
from graph.deps import Claim, ClaimedStep, Deps, ResourceBusy, SnapshotKey, StepKey
from graph.flow import STATE
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.action_executor import action_executor
from graph.nodes.remediation_decision import StaleDecision
from graph.policy import Policy
from graph.state import (
    ActionOption,
    Alert,
    Choice,
    Decision,
    Evidence,
    Execution,
    ExpectedEffect,
    Plan,
    PlanStep,
    StepResult,
)
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
        self._maybe_fail("before undo")
        if self.knob == before["knob"]:
            return Outcome(detail="back already")
        self.calls.append("undo")
        self.knob = 0
        self._maybe_fail("undo")
        return Outcome(detail="turned back")

    def services(self, params: Nothing) -> tuple[str, ...]:
        """Of one service."""
        return ("shop",)


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


EFFECT = ExpectedEffect(ref=ERRORS, comparator="<=", value=31, within_minutes=15, baseline=1, observed=100)
STEP = PlanStep(operation="turn", params={}, preview="0 -> 1")
PINNED = PlanStep(operation="turn", params={}, pinned={"knob": 0, "target": "knob"})


@dataclass
class Bench:
    """One incident, decided on again and again; a decision is carried out as often as a test wants."""

    operations: Mapping[str, Operation[Any]]
    values: Sequence[float | Exception | None] = (5.0,)
    ledger: MemoryLedger = field(default_factory=MemoryLedger)
    policy: Policy = field(default_factory=Policy)
    executions: tuple[Execution, ...] = ()
    evidence: Evidence | None = None
    environment: str = ""
    catalogue: Catalogue = field(default_factory=Catalogue)
    meter: type[Meter] | None = None
    expected: ExpectedEffect = EFFECT
    snapshots: MemorySnapshots = field(default_factory=MemorySnapshots)
    told: list[dict[str, Any]] = field(default_factory=list)

    async def decide(
        self,
        choice: Choice = "1",
        *steps: PlanStep,
        approved: tuple[int, ...] = (),
        policy_version: str = "",
        crash: bool = False,
    ) -> Execution:
        """What came of it. ``crash``: the node runs a second time, as after a kill before the checkpoint."""
        option = ActionOption(
            title="Turn it", description="", risk="low", minutes=1, steps=steps or (STEP,), expected=(self.expected,)
        )
        plan = Plan.of([option], salt=str(len(self.executions)), policy_version=policy_version)
        decision = Decision(plan_revision=plan.revision, choice=choice, steps=approved, by="kim", at=NOON)
        execution = await self._carried_out(plan, decision)
        if crash:
            execution = await self._carried_out(plan, decision)
        self.executions = (*self.executions, execution)
        return execution

    async def _carried_out(self, plan: Plan, decision: Decision) -> Execution:
        clock = Clock()
        deps = Deps(
            catalogue=self.catalogue,
            collectors=[(self.meter or Meter)(clock, self.values)],
            snapshots=self.snapshots,
            analyst=ScriptedAnalyst(),
            operations=self.operations,
            ledger=self.ledger,
            clock=clock,
            policy=self.policy,
        )

        async def node(state: GraphState) -> dict[str, Any]:
            return await action_executor(deps, STATE.validate_python(state))

        graph = StateGraph(GraphState)
        graph.add_node("ActionExecutor", node)
        graph.add_edge(START, "ActionExecutor")
        graph.add_edge("ActionExecutor", END)
        state: Any = {
            "incident_id": "i",
            "alert": ALERT.model_copy(update={"environment": self.environment}),
            "plan": plan,
            "decision": decision,
            "executions": self.executions,
        }
        if self.evidence:
            state["evidence"] = self.evidence
        seen: Any = graph.compile().astream(state, stream_mode=["custom", "values"])
        chunks = [(mode, chunk) async for mode, chunk in seen]
        self.told += [chunk for mode, chunk in chunks if mode == "custom"]
        execution: Execution = chunks[-1][1]["executions"][-1]
        return execution


ALERT = Alert(source="t", title="t", service="shop", occurred_at=NOON, fingerprint="f", cycle_key="c")


async def run(
    operation: Turn, values: Sequence[float | Exception | None], ledger: MemoryLedger | None = None
) -> Execution:
    return await Bench({"turn": operation}, values, ledger or MemoryLedger()).decide()


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


async def test_what_gets_better_by_itself_is_not_undone() -> None:
    operation = Turn()
    warming = [200.0] * 5 + [200.0 * 0.9**n for n in range(1, 15)]
    execution = await run(operation, [*warming, 5.0])
    assert (execution.verification.verdict, operation.calls) == ("resolved", ["execute"])


async def test_what_gets_better_too_slowly_is_undone_in_the_end() -> None:
    operation = Turn()
    execution = await run(operation, [2000.0 * 0.94**n for n in range(60)])
    assert (execution.verification.verdict, operation.calls) == ("worse", ["execute", "undo"])


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

    async def refuse(self, claim: Claim, result: StepResult) -> StepResult:
        """Remember it."""
        stands = self.steps.setdefault(claim.key, ClaimedStep("refused", False, 0, 0.0, claim.at, {}, result))
        return stands.result or result

    async def finish(self, step_id: str, result: StepResult) -> None:
        """Remember it, unless a known result is there."""
        for key, step in self.steps.items():
            if step.step_id == step_id and (step.result is None or step.result.status == "unknown"):
                self.steps[key] = replace(step, fresh=False, result=result)


# --- what was approved ---


async def test_only_approved_steps_run() -> None:
    first, second, third = Turn(), Turn(), Turn()
    bench = Bench({"a": first, "b": second, "c": third})
    steps = [PlanStep(operation=name, params={}) for name in "abc"]
    execution = await bench.decide("1", *steps, approved=(1, 3))
    assert [(r.status, r.detail) for r in execution.results] == [
        ("succeeded", ""),
        ("skipped", "not approved"),
        ("succeeded", ""),
    ]
    assert (first.calls, second.calls, third.calls) == (["execute"], [], ["execute"])
    assert execution.verification.verdict == "resolved"


async def test_what_changed_since_it_was_approved_is_refused_and_nothing_more_is_run() -> None:
    first, second = Turn(knob=6), Turn()
    bench = Bench({"a": first, "b": second}, ledger=RememberingLedger())
    steps = [
        PlanStep(operation="a", params={}, pinned={"knob": 4, "target": "knob"}),
        PlanStep(operation="b", params={}),
    ]
    execution = await bench.decide("1", *steps)
    assert [r.status for r in execution.results] == ["failed", "skipped"]
    assert execution.results[0].detail == "changed since it was approved: knob 4 -> 6; decide on the new plan"
    assert (first.calls, second.calls) == ([], [])
    assert execution.verification.verdict == "not_measurable"


async def test_what_is_as_it_was_approved_runs() -> None:
    operation = Turn(knob=0)
    execution = await Bench({"turn": operation}).decide("1", PINNED)
    assert execution.results[0].status == "succeeded"


async def test_another_target_than_the_approved_one_is_refused() -> None:
    class Moved(Turn):
        def resource(self, params: Nothing) -> str:
            return "another knob"  # the catalogue was changed meanwhile

    operation = Moved(knob=0)
    result = (await Bench({"turn": operation}).decide("1", PINNED)).results[0]
    assert result.detail == "changed since it was approved: target knob -> another knob; decide on the new plan"
    assert operation.calls == []


async def test_another_plan_than_the_approved_one_does_not_run() -> None:
    """The checkpoint is a row of a database, and this node may start from it again and again."""
    operation = Turn()
    option = ActionOption(title="t", description="", risk="low", minutes=1, steps=(STEP,))
    plan = Plan.of([option])
    decision = Decision(plan_revision=plan.revision, choice="1", by="kim", at=NOON, plan_digest=plan.digest)
    bench = Bench({"turn": operation})
    edited = plan.model_copy(update={"options": (option.model_copy(update={"steps": (STEP, STEP)}),)})
    forged = Plan.of(edited.options).model_copy(update={"revision": plan.revision})
    for other in (edited, forged):
        with pytest.raises(StaleDecision, match="is not the approved one"):
            await bench._carried_out(other, decision)
    assert operation.calls == []
    assert (await bench._carried_out(plan, decision)).results[0].status == "succeeded"


async def test_what_changes_while_the_resource_is_awaited_is_refused() -> None:
    operation = Turn(knob=0)

    class Held(MemoryLedger):
        async def claim(self, claim: Claim) -> ClaimedStep:
            operation.knob = 7  # by the action that holds it
            raise ResourceBusy("knob is being changed by another action; one at a time")

    execution = await Bench({"turn": operation}, ledger=Held()).decide("1", PINNED)
    assert "changed since it was approved: knob 0 -> 7" in execution.results[0].detail
    assert operation.calls == []


async def test_another_policy_than_the_approved_one_refuses() -> None:
    operation, policy = Turn(), Policy(actions_per_service_hour=3)
    bench = Bench({"turn": operation}, policy=policy)
    execution = await bench.decide(policy_version=Policy().version)
    assert "the policy was changed since this was approved" in execution.results[0].detail
    assert operation.calls == []
    assert (await bench.decide(policy_version=policy.version)).results[0].status == "succeeded"


async def test_an_operation_that_is_turned_off_since_is_refused() -> None:
    execution = await Bench({}).decide()
    assert execution.results[0].detail == "turn is not turned on here; see AUTOPILOT_EXECUTORS"


async def test_in_a_dry_run_only_environment_nothing_is_called() -> None:
    operation = Turn(fails={"preview": AssertionError("nobody may ask")})
    bench = Bench({"turn": operation}, policy=Policy(dry_run_environments=("staging",)), environment="staging")
    execution = await bench.decide("1", STEP, STEP, approved=(2,))
    assert [(r.status, r.detail) for r in execution.results] == [("skipped", "not approved"), ("dry_run", "0 -> 1")]
    assert execution.verification.verdict == "not_measurable"
    assert (operation.calls, bench.ledger.steps) == ([], {})
    assert (await bench.decide("undo")).undone == ()


async def test_an_alert_does_not_talk_us_out_of_a_dry_run() -> None:
    operation = Turn()
    catalogue = Catalogue(environment="staging")
    bench = Bench(
        {"turn": operation},
        policy=Policy(dry_run_environments=("staging",)),
        environment="production",
        catalogue=catalogue,
    )
    assert [r.status for r in (await bench.decide()).results] == ["dry_run"]
    assert operation.calls == []


async def test_what_the_ledger_refuses_is_told_and_stops_the_rest() -> None:
    class Frozen(RememberingLedger):
        async def claim(self, claim: Claim) -> ClaimedStep:
            raise Refused("sre froze all actions")

    operation = Turn()
    bench = Bench({"turn": operation}, ledger=Frozen())
    execution = await bench.decide("1", STEP, STEP)
    assert [(r.status, r.detail) for r in execution.results] == [
        ("failed", "sre froze all actions"),
        ("skipped", "an earlier step did not succeed"),
    ]
    assert execution.verification.detail == "turn failed: sre froze all actions"
    assert operation.calls == []


async def test_the_claim_names_what_is_changed() -> None:
    seen: list[Claim] = []

    class Watching(MemoryLedger):
        async def claim(self, claim: Claim) -> ClaimedStep:
            seen.append(claim)
            return await super().claim(claim)

    await Bench({"turn": Turn()}, [200.0], Watching()).decide()
    assert [(c.resource, c.services, c.key.undo) for c in seen] == [("knob", ("shop",), False), ("knob", (), True)]


# --- what was unknown ---


@pytest.mark.parametrize(("seen", "status", "made"), [("done", "succeeded", True), ("not_done", "failed", False)])
async def test_what_was_unknown_is_looked_at_once_more(seen: Probe, status: str, made: bool) -> None:
    class Late(Turn):
        async def probe(self, params: Nothing, before: State) -> Probe:
            self.calls.append("probe")
            return "unknown" if self.calls.count("probe") == 1 else self.seen

    ledger = RememberingLedger()
    operation = Late(fails={"execute": OutcomeUnknown("no answer came")}, seen=seen)
    bench = Bench({"turn": operation}, [60.0], ledger)
    first, second = (await bench.decide("1", STEP, STEP)).results
    assert (first.status, first.made) == (status, made)
    assert "no answer came; looked at again: it was" in first.detail
    assert second.status == "skipped"
    assert operation.calls.count("execute") == 1
    assert [step.result for key, step in ledger.steps.items() if key.ordinal == 1] == [first]


async def test_a_step_that_another_process_took_over_is_not_finished_by_us() -> None:
    class Elsewhere(TakenOver):
        finished: int = 0

        async def retake(self, step: ClaimedStep) -> bool:
            return False

        async def finish(self, step_id: str, result: StepResult) -> None:
            self.finished += 1

    ledger = Elsewhere()
    ledger.age_s = 100.0
    operation = Turn(seen="not_done")
    execution = await run(operation, [100.0], ledger)
    assert (execution.results[0].status, ledger.finished, operation.calls) == ("unknown", 0, [])


async def test_a_step_of_a_dead_process_is_not_called_once_the_kill_switch_is_pulled() -> None:
    class Frozen(TakenOver):
        async def retake(self, step: ClaimedStep) -> bool:
            raise Refused("sre froze all actions")

    ledger = Frozen()
    ledger.age_s = 100.0
    operation = Turn(seen="not_done")
    result = (await run(operation, [100.0], ledger)).results[0]
    assert (result.status, result.made, result.detail) == ("failed", False, "sre froze all actions")
    assert operation.calls == []


# --- undo ---


async def test_worse_is_told_when_it_cannot_be_undone_now() -> None:
    class FrozenLater(MemoryLedger):
        async def claim(self, claim: Claim) -> ClaimedStep:
            if claim.key.undo:
                raise Refused("sre froze all actions")
            return await super().claim(claim)

    operation = Turn()
    bench = Bench({"turn": operation}, [200.0], FrozenLater())
    execution = await bench.decide()
    assert execution.verification.verdict == "worse"
    assert "not undone: turn: undo: sre froze all actions" in execution.verification.detail
    assert [u.status for u in execution.undone] == ["failed"]
    assert bench.told[-1]["message"] == "Turn it: worse, not undone"
    assert operation.calls == ["execute"]


async def test_the_policy_may_ask_before_it_is_undone() -> None:
    operation = Turn()
    bench = Bench({"turn": operation}, [200.0], policy=Policy(undo_when_worse="ask"))
    execution = await bench.decide()
    assert (execution.verification.verdict, execution.undone) == ("worse", ())
    assert "Not undone: the policy asks a person first. Choose undo to put back turn." in execution.verification.detail
    put_back = await bench.decide("undo")
    assert [u.status for u in put_back.undone] == ["succeeded"]
    assert (put_back.choice, put_back.results, put_back.undoes) == ("undo", (), execution.plan_revision)
    assert put_back.verification.detail == "undone"
    assert operation.calls == ["execute", "undo"]


async def test_undo_puts_back_the_last_execution_that_left_something_then_the_one_before() -> None:
    first, second = Turn(), Turn()
    bench = Bench({"a": first, "b": second}, [60.0])
    one = await bench.decide("1", PlanStep(operation="a", params={}))
    two = await bench.decide("1", PlanStep(operation="b", params={}))
    assert [(await bench.decide("undo")).undoes for _ in range(3)] == [two.plan_revision, one.plan_revision, ""]
    assert (first.calls, second.calls) == (["execute", "undo"], ["execute", "undo"])
    assert bench.executions[-1].verification.detail == "There is nothing in place that could be put back."


async def test_undo_last_first_and_only_what_was_approved() -> None:
    order: list[str] = []

    class Named(Turn):
        async def undo(self, params: Nothing, before: State) -> Outcome:
            order.append(self.calls_as)
            return await super().undo(params, before)

        calls_as = ""

    operations = {name: Named() for name in "abc"}
    for name, operation in operations.items():
        operation.calls_as = name
    bench = Bench(operations, [60.0])
    await bench.decide("1", *(PlanStep(operation=name, params={}) for name in "abc"))
    assert [u.ordinal for u in (await bench.decide("undo", approved=(2,))).undone] == [2]
    assert [u.ordinal for u in (await bench.decide("undo")).undone] == [3, 1]
    assert order == ["b", "c", "a"]


async def test_an_undo_that_failed_may_be_asked_for_again() -> None:
    operation = Turn(fails={"before undo": ExecutorError("throttled")})
    bench = Bench({"turn": operation}, [200.0], RememberingLedger())
    execution = await bench.decide()
    assert "not undone: turn: undo: throttled" in execution.verification.detail
    operation.fails = {}
    assert [u.status for u in (await bench.decide("undo", crash=True)).undone] == ["succeeded"]
    assert operation.calls == ["execute", "undo"]


async def test_an_undo_whose_answer_was_lost_is_read_back() -> None:
    lost = Turn(fails={"undo": OutcomeUnknown("no answer came")})
    (undone,) = (await run(lost, [200.0])).undone
    assert (undone.status, undone.detail) == ("succeeded", "undone: no answer came; read back: it is")
    never = Turn(fails={"before undo": OutcomeUnknown("no answer came")})
    bench = Bench({"turn": never}, [200.0])
    execution = await bench.decide()
    assert [u.status for u in execution.undone] == ["unknown"]
    assert "not undone: turn: undo: no answer came" in execution.verification.detail
    never.fails = {}
    assert [u.status for u in (await bench.decide("undo")).undone] == ["succeeded"]


class DeadUndo(MemoryLedger):
    """A process died while it put a step back."""

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """The undo is claimed, long ago."""
        return ClaimedStep("u", False, 1, 100.0, NOON, {"knob": 0}, None) if key.undo else await super().find(key)


@pytest.mark.parametrize(("knob_was_back", "calls"), [(True, ["execute"]), (False, ["execute", "undo"])])
async def test_after_a_crash_an_undo_is_read_before_it_is_repeated(knob_was_back: bool, calls: list[str]) -> None:
    class HalfBack(Turn):
        async def undo(self, params: Nothing, before: State) -> Outcome:
            if knob_was_back:
                self.knob = 0  # by the dead process
            return await super().undo(params, before)

    operation = HalfBack()
    execution = await run(operation, [200.0], DeadUndo())
    assert [u.status for u in execution.undone] == ["succeeded"]
    assert operation.calls == calls


class Mortal(RememberingLedger):
    """The process dies before or after the first result of an undo is stored; the next one finds what is claimed."""

    dies: Literal["before", "after", "never"] = "never"

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """By another process, long after."""
        found = await super().find(key)
        return replace(found, fresh=False, age_s=100.0) if found else None

    async def finish(self, step_id: str, result: StepResult) -> None:
        """Perhaps die, finish, perhaps die."""
        undo = any(step.step_id == step_id and key.undo for key, step in self.steps.items())
        if undo and self.dies == "before":
            raise ConnectionResetError
        await super().finish(step_id, result)
        if undo and self.dies == "after":
            raise ConnectionResetError


@pytest.mark.parametrize("dies", ["before", "after"])
@pytest.mark.parametrize("policy", [Policy(), Policy(undo_when_worse="ask")])
async def test_what_was_being_put_back_is_carried_on_and_stays_worse(
    dies: Literal["before", "after"], policy: Policy
) -> None:
    """By then all is well again: just because of that."""
    first, second, ledger = Turn(), Turn(), Mortal()
    bench = Bench({"a": first, "b": second}, [200.0], ledger)
    steps = [PlanStep(operation="a", params={}), PlanStep(operation="b", params={})]
    ledger.dies = dies
    with pytest.raises(ConnectionResetError):
        await bench.decide("1", *steps)
    ledger.dies, bench.values, bench.policy = "never", [5.0], policy
    execution = await bench.decide("1", *steps)
    assert execution.verification.verdict == "worse"
    assert "a process died while it put that back" in execution.verification.detail
    assert [(u.operation, u.status) for u in execution.undone] == [("b", "succeeded"), ("a", "succeeded")]
    assert (first.calls, second.calls) == (["execute", "undo"], ["execute", "undo"])
    assert [key for key, step in ledger.steps.items() if step.result is None] == []


async def test_what_a_dead_process_claimed_of_an_operation_that_is_off_now_is_unknown_and_frees_its_resource() -> None:
    class Dead(Mortal):
        async def finish(self, step_id: str, result: StepResult) -> None:
            raise ConnectionResetError

    ledger, operation = Dead(), Turn()
    with pytest.raises(ConnectionResetError):
        await Bench({"turn": operation}, ledger=ledger).decide()
    alive = Mortal()
    alive.steps = ledger.steps
    [result] = (await Bench({}, ledger=alive).decide()).results
    assert (result.status, result.made) == ("unknown", False)
    assert "nobody here can tell whether it was made: turn is not turned on here" in result.detail
    assert [step.result for step in alive.steps.values()] == [result]


async def test_an_undo_of_an_operation_that_is_off_now_is_unknown_and_frees_its_resource() -> None:
    ledger, operation = Mortal(), Turn()
    ledger.dies = "before"
    with pytest.raises(ConnectionResetError):
        await Bench({"turn": operation}, [200.0], ledger).decide()
    ledger.dies = "never"
    execution = await Bench({}, [5.0], ledger).decide()
    assert execution.verification.verdict == "worse"
    assert [u.status for u in execution.undone] == ["unknown"]
    assert "turn is not turned on here" in execution.verification.detail
    assert [key for key, step in ledger.steps.items() if step.result is None] == []


async def test_parameters_that_a_newer_version_does_not_take_are_refused() -> None:
    class Strict(BaseModel):
        level: int

    operation = Turn()
    operation.params = Strict  # type: ignore[assignment]
    result = (await Bench({"turn": operation}).decide()).results[0]
    assert (result.status, operation.calls) == ("failed", [])
    assert "turn does not take these parameters any more: Field required" in result.detail


async def test_nothing_is_put_back_that_was_never_made_after_all() -> None:
    operation = Turn(fails={"execute": OutcomeUnknown("no answer came")}, seen="unknown")
    bench = Bench({"turn": operation}, [60.0])
    assert (await bench.decide()).results[0].status == "unknown"
    operation.seen = "not_done"
    undone = (await bench.decide("undo")).undone
    assert [(u.status, u.detail) for u in undone] == [("skipped", "looked at again: it was not made, nothing to undo")]
    assert (await bench.decide("undo")).undone == ()
    assert operation.calls == ["execute"]


# --- harm that the effects do not cover, and whose merit it was ---

FAILS = SeriesRef(source="meter", component="web", metric="error_rate_percent", unit="%", query="web errors")
CALLS_SHOP = Evidence(
    digest="",
    findings=(),
    suspects=(),
    readable=(FAILS,),
    edges=(Edge(caller="web", callee="shop", source="traces"),),
)


class TwoMeters(Meter):
    """A point a minute. The errors of the shop go away; its caller's begin, for so many minutes."""

    shaken_minutes = 60.0
    falling = False  # the errors fell already before the first call

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """What was asked for."""
        times = [window.start + timedelta(seconds=s) for s in range(0, int((window.end - window.start).seconds), 60)]
        return [
            Series(ref=ref, epoch_s=[t.timestamp() for t in times], values=[self._level(ref, t) for t in times])
            for ref in refs
        ]

    def _level(self, ref: SeriesRef, at: datetime) -> float:
        minutes = (at - NOON).total_seconds() / 60
        if ref == FAILS:
            return 40.0 if 0 < minutes <= self.shaken_minutes else 0.5
        if minutes > 0:
            return 5.0
        return 100.0 - 10.0 * (minutes + 15.0) / 3 if self.falling else 100.0


async def test_one_metric_is_not_bought_with_anothers_harm() -> None:
    operation = Turn()
    bench = Bench({"turn": operation}, evidence=CALLS_SHOP, meter=TwoMeters)
    execution = await bench.decide()
    assert execution.verification.verdict == "worse"
    assert [c.status for c in execution.verification.checks] == ["met"]
    assert "Worse than before the first call: web error_rate_percent: 0.5 -> 40." in execution.verification.detail
    assert operation.calls == ["execute", "undo"]


async def test_what_shakes_at_first_is_no_harm() -> None:
    class Brief(TwoMeters):
        shaken_minutes = 2.0

    execution = await Bench({"turn": Turn()}, evidence=CALLS_SHOP, meter=Brief).decide()
    assert execution.verification.verdict == "resolved"
    assert execution.verification.credit == "remedy"
    assert "1 of 1 metrics were not on their way there" in execution.verification.control


async def test_what_was_on_its_way_back_is_not_the_remedys_merit() -> None:
    class Falling(TwoMeters):
        shaken_minutes, falling = 0.0, True

        def _level(self, ref: SeriesRef, at: datetime) -> float:
            minutes = (at - NOON).total_seconds() / 60
            return super()._level(ref, at) if minutes <= 0 or ref == FAILS else max(50.0 - 10.0 * minutes / 3, 1.0)

    execution = await Bench({"turn": Turn()}, evidence=CALLS_SHOP, meter=Falling).decide()
    assert execution.verification.verdict == "resolved"
    assert execution.verification.credit == "by_itself"
    assert "1 of 1 metrics were on their way there before the first call" in execution.verification.control


async def test_without_readings_before_the_merit_is_unclear() -> None:
    execution = await run(Turn(), [90.0, 5.0])
    assert execution.verification.credit == "unclear"
    assert "too few readings from before the first call" in execution.verification.control


# --- what is turned away ---

COUNTED = SeriesRef(source="meter", component="shop", metric="errors", statistic="sum", query="errors")
REQUESTS = SeriesRef(source="meter", component="shop", metric="requests", statistic="sum", query="requests")


class Shed(Turn):
    """Turns half of the requests away."""

    def capacity(self, params: Nothing, before: State) -> Capacity:
        """The same servers, half of the load."""
        return Capacity(service="shop", servers_now=2, servers_then=2, load_then=0.5)


async def test_who_turns_requests_away_has_improved_things_at_best() -> None:
    execution = await run(Shed(), [5.0])
    assert [c.status for c in execution.verification.checks] == ["met"]
    assert execution.verification.verdict == "improved"
    assert "requests are turned away still, by turn on shop: give the traffic back" in execution.verification.detail
    given_back = await run(Shed(seen="not_done"), [5.0])
    assert given_back.verification.verdict == "resolved"


async def test_fewer_errors_of_fewer_requests_are_no_success() -> None:
    class Halved(TwoMeters):
        def _level(self, ref: SeriesRef, at: datetime) -> float:
            return {"errors": 100.0, "requests": 400.0}[ref.metric] * (0.5 if at > NOON else 1.0)

    bench = Bench({"turn": Turn()}, meter=Halved, expected=EFFECT.model_copy(update={"ref": COUNTED}))
    requests = Series(ref=REQUESTS, epoch_s=(NOON.timestamp(),), values=(400.0,))
    await bench.snapshots.put(SnapshotKey("i", 1, "meter", False), Telemetry(source="meter", series=(requests,)))
    execution = await bench.decide()
    assert execution.verification.verdict == "unchanged"
    assert [c.detail for c in execution.verification.checks] == [
        "shop errors: 100 -> 100, expected <= 31 (counted 50, requests 400 -> 200)"
    ]
