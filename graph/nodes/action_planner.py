"""ActionPlanner: up to three options, each step pre-flighted against the present state, bound by one hash."""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from typing import Any, get_args

from pydantic import JsonValue

from executors.base import AnyOperation, ExecutorError, Probe
from graph.aftermath import left_in_place, look_again, unknown_steps
from graph.blast_radius import Surroundings, overloads
from graph.deps import Deps
from graph.effects import expected_effects
from graph.grounding import ground_option
from graph.llms.base import OperationOnMenu, PlanRequest
from graph.llms.playbooks import Text, say
from graph.llms.preference import MAX_OPTIONS, MAX_SPARES
from graph.nodes.context_collector import hinted_scope
from graph.nodes.slack_alert import edges_of
from graph.observed_load import observed_load
from graph.preflight import WITHIN_S, feasible, preflight
from graph.progress import report
from graph.state import (
    ActionOption,
    BlastRadius,
    Evidence,
    Execution,
    Language,
    Plan,
    PlanStep,
    RootCause,
    State,
    StepResult,
)

_LEFT_OUT = Text(en="Left out: «{title}»: {why}", ko="제외됨: «{title}»: {why}")
_UNDO = Text(
    en="Undo: choosing undo puts back what «{title}» changed: {what}",
    ko="되돌리기: undo를 선택하면 «{title}»의 변경을 되돌립니다: {what}",
)
_NOT_KNOWN = Text(
    en="Look first: whether {what} was done is not known; see the state of its target before you decide",
    ko="먼저 확인: {what} 실행 여부를 알 수 없습니다. 결정하기 전에 대상의 상태를 확인하세요",
)
_LOOKED_AGAIN: Mapping[Probe, Text] = {
    "done": Text(en="Looked again: {what} was done", ko="다시 확인: {what:이/가} 실행되었습니다"),
    "not_done": Text(en="Looked again: {what} was not done", ko="다시 확인: {what:이/가} 실행되지 않았습니다"),
    "unknown": _NOT_KNOWN,
}
_OF_THE_MOMENT = tuple(
    text.filled(language, title="", what="", why="").partition(":")[0] + ":"
    for text in (_LEFT_OUT, _UNDO, *_LOOKED_AGAIN.values())
    for language in get_args(Language)
)
"""How lines of a note begin that are written anew for each plan."""
_COUNTED_BY: Mapping[str, str] = {
    "scale_ecs_service": "desired_count",
    "scale_deployment": "replicas",
    "scale_auto_scaling_group": "desired_capacity",
}
"""The operations that set how many there are of a service, and the param that says it."""

FEW = 0.02
"""Share of a scope's requests up to which the short want of a service that nothing else calls puts no option last."""


async def action_planner(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``plan``. After a remedy that did not resolve the incident, the same options come back, marked."""
    executions, previous = state.get("executions", ()), state.get("plan")
    last = executions[-1] if executions else None
    if last and previous and last.plan_revision == previous.revision:
        options, notes = await _again(deps, state, previous, last)
    else:
        options, notes = await _anew(deps, state, _tried(previous, executions))
    language = state.get("language", "en")
    notes = [*notes, *await _looked_again(deps, executions, language), *_left_behind(deps, executions, language)]
    plan = Plan.of(
        options,
        "\n".join(dict.fromkeys(notes)),
        salt=f"{state['incident_id']}:{state['round']}:{len(executions)}",
        number=previous.number + 1 if previous else 1,
        evidence_sha256=evidence_sha256(state["evidence"], state["root_cause"]),
        policy_version=deps.policy.version,
    )
    report(
        "ActionPlanner",
        "plan",
        f"plan:{plan.revision}",
        f"{len(plan.options)} option{'s' if len(plan.options) != 1 else ''}: "
        + ("; ".join(o.title for o in plan.options) or " ".join(plan.note.splitlines())),
        {"plan_revision": plan.revision},
    )
    return {"plan": plan}


def evidence_sha256(evidence: Evidence, root_cause: RootCause) -> str:
    """What a plan rests on, in one hash: of both as JSON."""
    return sha256(f"{evidence.model_dump_json()}\n{root_cause.model_dump_json(by_alias=True)}".encode()).hexdigest()


# --- the same options again ---


async def _again(
    deps: Deps, state: State, plan: Plan, execution: Execution
) -> tuple[list[ActionOption], Sequence[str]]:
    """The options of the plan at their places, with the verdict on the one that was run."""
    options = [
        option.model_copy(update={"tried": execution.verification.verdict}) if _ran(execution, place) else option
        for place, option in enumerate(plan.options, 1)
    ]
    notes = [line for line in plan.note.splitlines() if not line.startswith(_OF_THE_MOMENT)]
    return await preflight(deps, options, state["incident_id"], await _surroundings(deps, state)), notes


def _ran(execution: Execution, place: int) -> bool:
    """Whether a step of that option was begun: one that was refused before its call was not tried."""
    return execution.choice == str(place) and any(result.claimed_at for result in execution.results)


# --- options anew ---


async def _anew(deps: Deps, state: State, tried: Mapping[str, str]) -> tuple[list[ActionOption], Sequence[str]]:
    """The analyst's best that can run now; those that would overload what is left come last.

    What cannot run is replaced by a spare, or shown with the reason where there are not enough others.
    """
    proposed, notes = await _proposed(deps, state)
    proposed = [option.model_copy(update={"tried": tried.get(_does(option.steps), "")}) for option in proposed]
    if not proposed:
        return [], notes
    around, spares = await _surroundings(deps, state), proposed[MAX_OPTIONS : MAX_OPTIONS + MAX_SPARES]
    options = await preflight(deps, proposed[:MAX_OPTIONS], state["incident_id"], around)
    if spares and not all(map(feasible, options)):
        options += await preflight(deps, spares, state["incident_id"], around)
    options.sort(key=partial(_drawback, alerted=state["scope"].service))
    language = state.get("language", "en")
    left_out = [
        _LEFT_OUT.filled(language, title=o.title, why="; ".join(s.infeasible for s in o.steps if s.infeasible))
        for o in options[MAX_OPTIONS:]
        if not feasible(o)
    ]
    return options[:MAX_OPTIONS], [*notes, *left_out]


def _drawback(option: ActionOption, alerted: str) -> tuple[bool, bool, bool]:
    """False before True; equals keep the analyst's order. ``alerted``: the service that the alert is about."""
    return not feasible(option), bool(option.needs.refused), felt(option.blast_radius or BlastRadius(), alerted)


def felt(radius: BlastRadius, alerted: str) -> bool:
    """Whether less is left than the load takes of something that others wait for, or that many requests go to."""
    asked = (radius.request_share or 0.0) > FEW or any(affected.how == "caller" for affected in radius.services)
    return any(overloads(capacity) and (asked or capacity.service == alerted) for capacity in radius.capacity)


def _tried(previous: Plan | None, executions: Sequence[Execution]) -> dict[str, str]:
    """The verdict on each option that was run in this incident, by what its steps do."""
    marked = {_does(option.steps): option.tried for option in (previous.options if previous else ()) if option.tried}
    ran = (e for e in executions if e.choice.isdecimal() and any(result.claimed_at for result in e.results))
    return marked | {_does(e.results): e.verification.verdict for e in ran}


def _does(steps: Iterable[PlanStep | StepResult]) -> str:
    """The same of options that do the same."""
    what: list[tuple[str, Mapping[str, JsonValue]]] = [(step.operation, step.params) for step in steps]
    return json.dumps(what, sort_keys=True)


async def _proposed(deps: Deps, state: State) -> tuple[list[ActionOption], list[str]]:
    """The analyst's options with the effects that are expected of them, and what to know of those that are none."""
    evidence, root_cause = state["evidence"], state["root_cause"]
    proposal = await deps.analyst.plan(await _request(deps, state))
    options = [
        ground_option(option, evidence).model_copy(
            update={"expected": expected_effects(evidence, root_cause, state["scope"], option.minutes)}
        )
        for option in proposal.options
    ]
    none = [] if options else [say("no_remedy", state.get("language", "en"))]
    return options, [*none, *proposal.notes]


async def _request(deps: Deps, state: State) -> PlanRequest:
    scope, evidence, root_cause = await hinted_scope(deps, state), state["evidence"], state["root_cause"]
    environment = state["alert"].environment or deps.catalogue.environment
    # a suspect that was left out as a neighbour, or asked for in a hint, can be remedied like any other
    in_scope = {*(t.service for t in scope.targets), *(s.component for s in evidence.suspects)}
    return PlanRequest(
        alert=state["alert"],
        scope=scope,
        evidence=evidence,
        root_cause=root_cause,
        menu=tuple(OperationOnMenu.of(o) for _, o in sorted(deps.operations.items())),
        resources=tuple(r for name, r in sorted(deps.catalogue.resources().items()) if name in in_scope),
        desired_tasks=await _desired_tasks(deps, {scope.service, root_cause.component or scope.service}),
        track_record=await deps.past.track_record(root_cause.category, root_cause.component, environment),
        language=state.get("language", "en"),
        incident_id=state["incident_id"],
        round_=state["round"],
    )


async def _desired_tasks(deps: Deps, services: set[str]) -> dict[str, int]:
    """How many tasks, pods or instances should run now, as far as the operation that sets the number can read it."""
    ways = [(service, name, count) for service in sorted(services) for name, count in _COUNTED_BY.items()]
    found = await asyncio.gather(*(_desired(deps, *way) for way in ways))
    return {service: desired for (service, *_), desired in zip(ways, found, strict=True) if desired is not None}


async def _desired(deps: Deps, service: str, operation: str, count: str) -> int | None:
    """None where it cannot be read in time: no number, no proposal built on one."""
    scale = deps.operations.get(operation)
    if scale is None:
        return None
    try:
        async with asyncio.timeout(WITHIN_S):
            state = await scale.inspect(scale.params.model_validate({"service": service, count: 1}))
    except (ExecutorError, TimeoutError):
        return None
    desired = state.get("desired")
    return desired if isinstance(desired, int) else None


# --- both ---


async def _surroundings(deps: Deps, state: State) -> Surroundings:
    return Surroundings(
        edges=edges_of(deps.catalogue, [*await deps.observed_edges(), *state["evidence"].edges]),
        scope=frozenset(target.service for target in state["scope"].targets),
        load=await observed_load(deps, state),
    )


async def _looked_again(deps: Deps, executions: Sequence[Execution], language: Language) -> list[str]:
    """Of each step of the last execution whose end was not known: what its target shows now."""
    unknown = unknown_steps(executions)
    probes = await asyncio.gather(*(_probed(deps, result) for result in unknown))
    return [
        _LOOKED_AGAIN[probe].filled(language, what=result.operation)
        for result, probe in zip(unknown, probes, strict=True)
    ]


async def _probed(deps: Deps, result: StepResult) -> Probe:
    try:
        async with asyncio.timeout(WITHIN_S):
            return await look_again(deps.operations, result)
    except TimeoutError:
        return "unknown"


def _left_behind(deps: Deps, executions: Sequence[Execution], language: Language) -> Iterable[str]:
    """What earlier executions left that can be put back."""
    if left := left_in_place(executions, deps.operations):
        told = "; ".join(_putting_back(deps.operations[result.operation], result) for result in left.results)
        yield _UNDO.filled(language, title=left.execution.title, what=told)


def _putting_back(operation: AnyOperation, result: StepResult) -> str:
    """The operation, and line by line from what it set to what was there before."""
    try:
        lines = operation.changes(operation.params.model_validate(result.params), dict(result.before))
    except (ExecutorError, LookupError, ValueError):  # a state as an older version wrote it
        lines = ()
    told = ", ".join(f"{line.what} {line.after} -> {line.before}" for line in lines)
    return f"{operation.name} ({told})" if told else operation.name
