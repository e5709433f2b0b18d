"""ActionPlanner: what may be remedied, what the planner is told, and what a person is shown."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from json import dumps
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langgraph.graph import END, START, StateGraph
from pydantic_core import to_jsonable_python

from collectors.base import Scope, Series, SeriesRef, Target, Telemetry, Window
from executors.base import Capacity, Change, Model, Operation, PreflightCheck, Probe, Refused
from executors.base import State as TargetState
from executors.rehearsal import RehearsalExecutor
from graph.catalogue import Catalogue, Service
from graph.deps import Deps, NoPast, SnapshotKey
from graph.flow import STATE
from graph.llms.base import Analysis, AnalysisRequest, Counted, PlanRequest, Proposal, TrackRecord
from graph.llms.rules import RulesAnalyst
from graph.llms.scripted import ScriptedAnalyst
from graph.nodes.action_planner import action_planner, evidence_sha256, felt
from graph.policy import Policy
from graph.state import (
    ActionOption,
    AffectedService,
    BlastRadius,
    CapacityEstimate,
    Choice,
    Decision,
    Evidence,
    Execution,
    ExpectedEffect,
    Finding,
    LookedAt,
    Needs,
    Plan,
    PlanStep,
    RootCause,
    StepResult,
    Suspect,
    Verdict,
    Verification,
)
from graph.state import State as GraphState
from tests.graph.sources import ALERT, NOON, Source, deps

ECS = {"cluster": "shop", "service": "shop"}
CATALOGUE = Catalogue(services={"shop": Service.model_validate({"ecs": ECS}), "db": Service()})
RECORD = TrackRecord(runs=4, resolved=3, low=0.35, high=0.95, here=Counted(4, 3))


class Remembers(NoPast):
    """One operation was run before."""

    async def track_record(self, category: str, component: str | None, environment: str) -> Mapping[str, TrackRecord]:
        """On this category in production alone."""
        known = (category, environment) == ("memory_exhaustion", "production")
        return {"restart_ecs_task": RECORD} if known else {}


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
    assert request.track_record == {"restart_ecs_task": RECORD}


@pytest.mark.parametrize(
    ("alerted", "catalogue", "known"),
    [
        ("", "production", True),
        ("", "staging", False),
        ("production", "staging", True),
        ("staging", "production", False),
    ],
)
async def test_the_track_record_is_that_of_the_environment_that_alerted(
    alerted: str, catalogue: str, known: bool
) -> None:
    analyst = ScriptedAnalyst()
    given = deps([], analyst=analyst, past=Remembers(), catalogue=Catalogue(environment=catalogue))
    await planned(given, cause("shop"), alert=ALERT.model_copy(update={"environment": alerted}))
    assert bool(analyst.plans[0].track_record) == known


async def test_the_planner_is_told_hints_and_may_act_on_what_they_name() -> None:
    analyst = ScriptedAnalyst()
    catalogue = Catalogue(services={**CATALOGUE.services, "redis": Service(), "web": Service()})
    await planned(deps([], analyst=analyst, catalogue=catalogue), cause("shop"), hints=("look at redis, not web",))
    [request] = analyst.plans
    assert request.scope.hints == ("look at redis, not web",)
    assert [r.service for r in request.resources] == ["db", "redis", "shop"]


async def test_the_track_record_is_shown_with_the_option() -> None:
    plan = await planned(rehearsed(past=Remembers()), cause("shop"))
    told = "This kind of incident: resolved 3 of 4 on shop; 90 % interval 35 to 95 %"
    assert plan.options[0].track_record == told
    assert plan.options[0].steps[0].preview.startswith("Rehearsal: would run restart_ecs_task")
    short_of_cpu = await planned(rehearsed(), cause("shop", "cpu_saturation"))
    assert "no listener rule" in short_of_cpu.note


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
    assert plan.note.count("no ECS service") == 1
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
    assert plan.note.endswith("decided.\none\ntwo")
    assert plan.revision != (await planned(deps([]), cause(None))).revision


# --- what can run now comes first ---


class Size(Model):
    """How large."""

    size: int
    service: str = "shop"


class Resize(Operation[Size]):
    """Sets a size; sizes in ``refused`` cannot be set now, and ``left`` tells how many servers a size leaves of 4."""

    name = "resize"
    summary = "Set a size"
    risk = "low"
    reversible = True
    params = Size

    def __init__(self, *refused: int, left: Mapping[int, float] | None = None) -> None:
        self.refused, self.left = refused, left or {}
        self.seen: list[int] = []

    def resource(self, params: Size) -> str:
        """One."""
        return f"size:{params.service}"

    async def inspect(self, params: Size) -> TargetState:
        """What it is now."""
        self.seen.append(params.size)
        return {"size": 0}

    def preview(self, params: Size, before: TargetState) -> str:
        """From what to what."""
        if params.size in self.refused:
            raise Refused(f"{params.size} is not possible now")
        return f"{before['size']} -> {params.size}"

    def changes(self, params: Size, before: TargetState) -> tuple[Change, ...]:
        """One line."""
        return (Change(what="size", before=str(before["size"]), after=str(params.size)),)

    def capacity(self, params: Size, before: TargetState) -> Capacity | None:
        """As told."""
        if params.size not in self.left:
            return None
        return Capacity(service=params.service, servers_now=4, servers_then=self.left[params.size])


def resize(size: int, **others: Any) -> ActionOption:
    step = PlanStep(operation="resize", params={"size": size})
    return ActionOption(title=f"to {size}", description="d", risk="low", minutes=1, steps=(step,), **others)


def resizing(*sizes: int, operation: Resize | None = None, **others: Any) -> Deps:
    operation = operation or Resize()
    analyst = ScriptedAnalyst(options=[resize(size) for size in sizes])
    return deps([], catalogue=CATALOGUE, analyst=analyst, operations={"resize": operation}, **others)


def titles(plan: Plan) -> list[str]:
    return [option.title for option in plan.options]


async def test_spares_are_looked_at_only_where_something_cannot_run() -> None:
    operation = Resize()
    assert titles(await planned(resizing(1, 2, 3, 4, operation=operation), cause("shop"))) == ["to 1", "to 2", "to 3"]
    assert operation.seen == [1, 2, 3]


async def test_what_cannot_run_is_replaced_and_the_note_says_so() -> None:
    plan = await planned(resizing(1, 2, 3, 4, 5, operation=Resize(2, 4)), cause("shop"))
    assert titles(plan) == ["to 1", "to 3", "to 5"]
    assert plan.note == "Left out: «to 2»: 2 is not possible now\nLeft out: «to 4»: 4 is not possible now"
    korean = await planned(resizing(1, 2, 3, 4, operation=Resize(2)), cause("shop"), language="ko")
    assert korean.note == "제외됨: «to 2»: 2 is not possible now"


async def test_without_enough_others_what_cannot_run_is_shown_last_with_its_reason() -> None:
    plan = await planned(resizing(1, 2, 3, operation=Resize(1, 2)), cause("shop"))
    assert titles(plan) == ["to 3", "to 1", "to 2"]
    assert [option.steps[0].infeasible for option in plan.options] == [
        "",
        "1 is not possible now",
        "2 is not possible now",
    ]
    assert plan.note == ""


async def test_what_leaves_too_little_comes_after_what_does_not() -> None:
    cpu = SeriesRef(source="s", component="shop", metric="cpu_percent", unit="percent", query="q")
    points = Series(ref=cpu, epoch_s=[NOON.timestamp() - 60], values=[65.0])
    given = resizing(1, 2, operation=Resize(left={1: 2.0, 2: 3.0}))
    given = replace(given, collectors=[Source("s", lambda _: Telemetry(source="s"))])
    await given.snapshots.put(SnapshotKey("i", 2, "s"), Telemetry(source="s", series=(points,)))
    looked_at = LookedAt(incident=Window(start=NOON - timedelta(minutes=10), end=NOON), baseline=())
    evidence = Evidence(digest="d", findings=(), suspects=(), looked_at=looked_at)
    plan = await planned(given, cause("shop"), evidence=evidence)
    assert titles(plan) == ["to 2", "to 1"]
    radius = plan.options[1].blast_radius
    assert radius is not None
    assert [(c.utilisation_now, c.utilisation_then) for c in radius.capacity] == [(0.65, 1.3)]
    assert plan.options[1].steps[0].infeasible == ""


# --- after an execution ---


def executed(plan: Plan, verdict: Verdict, *, choice: Choice = "1", **others: Any) -> Execution:
    """The first option, all of its steps alike."""
    option = plan.options[0]
    given: dict[str, Any] = {"status": "succeeded", "made": True, "claimed_at": NOON, "before": {"size": 0}, **others}
    results = [
        StepResult.model_validate({"ordinal": i, "operation": s.operation, "params": s.params, **given})
        for i, s in enumerate(option.steps, 1)
    ]
    return Execution(
        plan_revision=plan.revision,
        choice=choice,
        title=option.title,
        results=tuple(results),
        verification=Verification(verdict=verdict),
    )


async def after(given: Deps, plan: Plan, *executions: Execution, **state: Any) -> Plan:
    return await planned(given, cause("shop"), plan=plan, executions=executions, **state)


async def test_after_a_remedy_that_did_not_help_the_same_options_come_back_marked_and_looked_at_again() -> None:
    operation = Resize()
    given = resizing(1, 2, operation=operation)
    first = await planned(given, cause("shop"))
    operation.refused = (1,)
    again = await after(given, first, executed(first, "unchanged"))
    assert titles(again) == titles(first)
    assert [option.tried for option in again.options] == ["unchanged", ""]
    assert again.options[0].steps[0].infeasible == "1 is not possible now"
    assert (first.number, again.number) == (1, 2)
    assert first.revision != again.revision


async def test_what_was_refused_before_its_call_was_not_tried() -> None:
    given = resizing(1, 2)
    first = await planned(given, cause("shop"))
    refused = executed(first, "not_measurable", status="failed", made=False, claimed_at=None)
    again = await after(given, first, refused)
    assert [option.tried for option in again.options] == ["", ""]
    assert again.note == ""


async def test_a_plan_made_anew_looks_again_and_knows_what_was_tried() -> None:
    operation = Resize()
    given = resizing(1, 2, 3, 4, operation=operation)
    first = await planned(given, cause("shop"))
    second = await after(given, first, executed(first, "worse"))
    operation.refused = (2,)
    decision = Decision(plan_revision=second.revision, choice="re_plan", by="kim", at=NOON)
    third = await after(given, second, executed(first, "worse"), decision=decision)
    assert titles(third) == ["to 1", "to 3", "to 4"]
    assert [option.tried for option in third.options] == ["worse", "", ""]
    assert third.number == 3
    assert third.note.splitlines()[0] == "Left out: «to 2»: 2 is not possible now"


@pytest.mark.parametrize("verdict", ["worse", "unchanged", "improved"])
async def test_what_can_be_put_back_is_told(verdict: Verdict) -> None:
    given = resizing(1, 2)
    first = await planned(given, cause("shop"))
    again = await after(given, first, executed(first, verdict))
    assert again.note == "Undo: choosing undo puts back what «to 1» changed: resize (size 1 -> 0)"
    third = await after(given, again, executed(first, verdict), executed(again, verdict))
    assert third.note == again.note  # written anew, and not once more


async def test_what_was_put_back_is_not_offered_again() -> None:
    given = resizing(1, 2)
    first = await planned(given, cause("shop"))
    worse = executed(first, "worse")
    undone = worse.model_copy(update={"undone": worse.results})
    assert (await after(given, first, undone)).note == ""
    second = await after(given, first, worse)
    by_hand = Execution(
        plan_revision=second.revision,
        choice="undo",
        title="Undo: to 1",
        results=(),
        verification=Verification(verdict="not_measurable"),
        undone=worse.results,
        undoes=first.revision,
    )
    again = await after(given, second, worse, by_hand)
    assert again.note == ""
    assert [option.tried for option in again.options] == ["worse", ""]


async def test_what_can_be_put_back_is_told_even_where_its_state_cannot_be_read_any_more() -> None:
    given = resizing(1, 2)
    first = await planned(given, cause("shop"))
    older = executed(first, "worse", before={"length": 3})
    assert (await after(given, first, older)).note == "Undo: choosing undo puts back what «to 1» changed: resize"


async def test_what_is_not_known_is_to_be_looked_at_first() -> None:
    given = resizing(1, 2)
    first = await planned(given, cause("shop"))
    lost = executed(first, "not_measurable", status="unknown", made=False)
    assert (await after(given, first, lost)).note.splitlines() == [
        "Look first: whether resize was done is not known; see the state of its target before you decide",
        "Undo: choosing undo puts back what «to 1» changed: resize (size 1 -> 0)",
    ]
    korean = await after(given, first, lost, language="ko")
    assert korean.note.startswith("먼저 확인: resize 실행 여부를 알 수 없습니다")


@pytest.mark.parametrize(
    ("probe", "said", "korean"),
    [
        ("done", "Looked again: resize was done", "다시 확인: resize가 실행되었습니다"),
        ("not_done", "Looked again: resize was not done", "다시 확인: resize가 실행되지 않았습니다"),
    ],
)
async def test_what_was_not_known_is_looked_at_again(probe: Probe, said: str, korean: str) -> None:
    class Telling(Resize):
        async def probe(self, params: Size, before: TargetState) -> Probe:
            return probe

    given = resizing(1, 2, operation=Telling())
    first = await planned(given, cause("shop"))
    lost = executed(first, "not_measurable", status="unknown", made=False)
    again = await after(given, first, lost)
    assert again.note.splitlines()[0] == said
    assert (await after(given, first, lost, language="ko")).note.splitlines()[0] == korean
    later = await after(given, again, lost, executed(again, "unchanged"))
    assert said not in later.note


async def test_what_an_analyst_said_stays_with_the_options() -> None:
    class Noting(ScriptedAnalyst):
        async def plan(self, request: PlanRequest) -> Proposal:
            return Proposal((resize(1),), ("restarting would not help",))

    given = deps([], catalogue=CATALOGUE, analyst=Noting(), operations={"resize": Resize()})
    first = await planned(given, cause("shop"))
    again = await after(given, first, executed(first, "worse"))
    assert again.note.splitlines()[0] == "restarting would not help"
    assert len(again.note.splitlines()) == 2


# --- what an approval is bound to ---


async def test_a_plan_is_bound_to_its_evidence_and_policy() -> None:
    policy = Policy(undo_when_worse="ask")
    first = await planned(resizing(1), cause("shop"))
    other_policy = await planned(resizing(1, policy=policy), cause("shop"))
    other_cause = await planned(resizing(1), cause("shop", "cpu_saturation"))
    assert other_policy.policy_version == policy.version != first.policy_version
    assert other_cause.evidence_sha256 != first.evidence_sha256
    assert len({first.digest, other_policy.digest, other_cause.digest}) == 3
    assert first.revision == first.digest[:16]
    assert first == await planned(resizing(1), cause("shop"))  # after a crash the same plan again


def test_every_part_of_evidence_and_root_cause_counts() -> None:
    evidence = Evidence(digest="d", findings=(slow("shop"),), suspects=())
    plain = evidence_sha256(evidence, cause("shop"))
    assert plain == evidence_sha256(Evidence.model_validate_json(evidence.model_dump_json()), cause("shop"))
    finding = slow("shop").model_copy(update={"observed": 901})
    assert plain != evidence_sha256(evidence.model_copy(update={"findings": (finding,)}), cause("shop"))
    assert plain != evidence_sha256(evidence, cause("shop").model_copy(update={"impact": "many"}))


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
NUMBER = st.floats(0, 100)
SHARE = st.floats(0, 1)
MAYBE = st.none() | NUMBER
JSON = st.none() | st.booleans() | st.integers() | TEXT | st.lists(st.integers(), max_size=2)
EFFECT = st.builds(
    ExpectedEffect,
    ref=st.builds(SeriesRef, source=TEXT, component=TEXT, metric=TEXT, query=TEXT),
    comparator=st.sampled_from(["<=", ">="]),
    value=NUMBER,
    within_minutes=NUMBER,
    baseline=MAYBE,
    observed=MAYBE,
)
OF_STEP: Mapping[str, st.SearchStrategy[Any]] = {
    "operation": TEXT,
    "params": st.dictionaries(TEXT, JSON, max_size=2),
    "summary": TEXT,
    "preview": TEXT,
    "infeasible": TEXT,
    "changes": st.tuples(st.builds(Change, what=TEXT, before=TEXT, after=TEXT)),
    "checks": st.tuples(
        st.builds(
            PreflightCheck,
            name=st.sampled_from(["state", "quota", "policy"]),
            status=st.sampled_from(["ok", "warning", "failed", "skipped"]),
            detail=TEXT,
        )
    ),
    "pinned": st.dictionaries(TEXT, JSON, max_size=2),
}
OF_OPTION: Mapping[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("title", "description", "track_record", "undo", "tried", "engine", "engine_note"), TEXT),
    "intent": st.sampled_from([None, "mitigate", "fix", "least_risk"]),
    "benefit": SHARE,
    "why": st.lists(TEXT, max_size=2).map(tuple),
    "risk": st.sampled_from(["none", "low", "medium", "high"]),
    "minutes": NUMBER,
    "steps": st.lists(st.builds(PlanStep, operation=TEXT, params=st.just({})), max_size=2).map(tuple),
    "expected": st.tuples(EFFECT),
    "blast_radius": st.none()
    | st.builds(
        BlastRadius,
        services=st.tuples(st.builds(AffectedService, service=TEXT, how=st.just("caller"), hops=st.integers(0, 3))),
        request_share=st.none() | SHARE,
        capacity=st.tuples(
            st.builds(
                CapacityEstimate,
                service=TEXT,
                servers_now=NUMBER,
                servers_then=NUMBER,
                utilisation_now=MAYBE,
                utilisation_then=MAYBE,
                wait_then=MAYBE,
                basis=TEXT,
            )
        ),
        reversible=st.sampled_from(["all", "partly", "no"]),
    ),
    "needs": st.builds(
        Needs,
        role=st.sampled_from(["responder", "admin"]),
        approvals=st.integers(1, 5),
        not_by=TEXT,
        dry_run=st.booleans(),
        refused=st.lists(TEXT, max_size=2).map(tuple),
        why=st.lists(TEXT, max_size=2).map(tuple),
    ),
}
AROUND: Mapping[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("salt", "note", "evidence_sha256", "policy_version"), st.sampled_from(["", "a", "b", "a\nb"])),
    "number": st.integers(1, 3),
}


def test_no_field_that_is_shown_is_forgotten_here() -> None:
    assert set(OF_STEP) == set(PlanStep.model_fields)
    assert set(OF_OPTION) == set(ActionOption.model_fields)
    assert {*AROUND, "options", "revision", "digest"} == set(Plan.model_fields)


@pytest.mark.parametrize("name", sorted(OF_STEP))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_in_a_step_is_another_plan(name: str, data: st.DataObject) -> None:
    one, other = (data.draw(OF_STEP[name]) for _ in range(2))
    steps = [PlanStep(operation="o", params={}).model_copy(update={name: value}) for value in (one, other)]
    plans = [Plan.of([resize(1).model_copy(update={"steps": (step,)})]) for step in steps]
    assert (plans[0].digest == plans[1].digest) == (shown(one) == shown(other))


@pytest.mark.parametrize("name", sorted(OF_OPTION))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_in_an_option_is_another_plan(name: str, data: st.DataObject) -> None:
    one, other = (data.draw(OF_OPTION[name]) for _ in range(2))
    plans = [Plan.of([resize(2), resize(1).model_copy(update={name: value})]) for value in (one, other)]
    assert (plans[0].digest == plans[1].digest) == (shown(one) == shown(other))


@settings(deadline=None)
@given(st.fixed_dictionaries(AROUND), st.fixed_dictionaries(AROUND))
def test_whatever_is_changed_around_the_options_is_another_plan(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (Plan.of([], **one).digest == Plan.of([], **other).digest) == (one == other)


def shown(value: object) -> str:
    """As JSON, where true is not 1."""
    return dumps(to_jsonable_python(value), sort_keys=True)


def test_order_and_number_of_options_count() -> None:
    one, two = resize(1), resize(2)
    several: Sequence[list[ActionOption]] = ([], [one], [one, two], [two, one], [one, one])
    assert len({Plan.of(options).digest for options in several}) == 5


@pytest.mark.parametrize(
    ("share", "how", "alerted", "expected"),
    [
        (0.005, "callee", "shop", False),  # a nightly job's service, which is gone for a minute
        (None, "callee", "shop", False),
        (0.4, "callee", "shop", True),
        (0.005, "caller", "shop", True),
        (None, "callee", "db", True),
    ],
)
def test_what_is_gone_for_a_minute_is_felt_where_anybody_asks_it(
    share: float | None, how: Literal["caller", "callee"], alerted: str, *, expected: bool
) -> None:
    gone = CapacityEstimate(service="db", servers_now=1.0, servers_then=0.0, utilisation_now=0.8)
    beside = AffectedService(service="elsewhere", how=how, hops=1)
    assert felt(BlastRadius(services=(beside,), request_share=share, capacity=(gone,)), alerted) is expected
    enough = gone.model_copy(update={"servers_then": 1.0, "utilisation_then": 0.8})
    assert not felt(BlastRadius(services=(beside,), request_share=share, capacity=(enough,)), alerted)
