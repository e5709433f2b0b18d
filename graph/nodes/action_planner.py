"""ActionPlanner: up to three options, each step pre-flighted against the present state, bound by one hash."""

from typing import Any

from pydantic import ValidationError

from executors.base import ExecutorError
from graph.deps import Deps
from graph.effects import expected_effects
from graph.grounding import ground_option
from graph.llms.base import OperationOnMenu, PlanRequest
from graph.llms.playbooks import say
from graph.nodes.context_collector import hinted_scope
from graph.progress import report
from graph.state import ActionOption, Execution, Plan, PlanStep, State


async def action_planner(deps: Deps, state: State) -> dict[str, Any]:
    """Writes ``plan``. After a remedy that did not resolve the incident, the same options come back, marked."""
    executions = state.get("executions", ())
    last = executions[-1] if executions else None
    previous = state.get("plan")
    if last and previous and last.plan_revision == previous.revision:
        options, note = _marked(previous, last), previous.note
    else:
        options, note = await _proposed(deps, state)
    checked = [await _preflight(deps, option) for option in options[:3]]
    plan = Plan.of(checked, note, salt=f"{state['incident_id']}:{state['round']}:{len(executions)}")
    report(
        "ActionPlanner",
        "plan",
        f"plan:{plan.revision}",
        f"{len(plan.options)} option{'s' if len(plan.options) != 1 else ''}: "
        + ("; ".join(o.title for o in plan.options) or " ".join(note.splitlines())),
        {"plan_revision": plan.revision},
    )
    return {"plan": plan}


def _marked(plan: Plan, execution: Execution) -> list[ActionOption]:
    """The options of the plan, with the verdict on the one that was run."""
    tried = int(execution.choice) - 1
    return [
        option.model_copy(update={"tried": execution.verification.verdict}) if place == tried else option
        for place, option in enumerate(plan.options)
    ]


async def _proposed(deps: Deps, state: State) -> tuple[list[ActionOption], str]:
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
    return options, "\n".join(dict.fromkeys([*none, *proposal.notes]))


async def _request(deps: Deps, state: State) -> PlanRequest:
    scope, evidence, root_cause = await hinted_scope(deps, state), state["evidence"], state["root_cause"]
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
        track_record=await deps.past.track_record(root_cause.category),
        language=state.get("language", "en"),
        incident_id=state["incident_id"],
        round_=state["round"],
    )


async def _desired_tasks(deps: Deps, services: set[str]) -> dict[str, int]:
    """How many tasks run now, as far as the operation that changes the number can read it."""
    scale = deps.operations.get("scale_ecs_service")
    counts: dict[str, int] = {}
    for service in sorted(services):
        if scale is None:
            break
        try:
            state = await scale.inspect(scale.params.model_validate({"service": service, "desired_count": 1}))
        except ExecutorError:
            continue  # no number, no proposal built on one
        if isinstance(desired := state.get("desired"), int):
            counts[service] = desired
    return counts


async def _preflight(deps: Deps, option: ActionOption) -> ActionOption:
    """Each step's preview, or why it cannot run.

    A step on a resource that an earlier step of the option changes is not looked at: its state does not exist yet.
    """
    steps: list[PlanStep] = []
    changed: set[str] = set()
    for step in option.steps:
        preview, infeasible = "", ""
        try:
            operation = deps.operations[step.operation]
            params = operation.params.model_validate(step.params)
            resource = operation.resource(params)
            if resource in changed:
                preview = f"{operation.summary}, on what the step before left"
            else:
                preview = operation.preview(params, await operation.inspect(params))
            if not operation.read_only:
                changed.add(resource)
        except KeyError:
            infeasible = f"{step.operation} is not an operation of this installation"
        except ValidationError as error:
            infeasible = f"{step.operation}: {error.errors()[0]['msg']}"
        except ExecutorError as error:
            infeasible = str(error)
        steps.append(step.model_copy(update={"preview": preview, "infeasible": infeasible}))
    return option.model_copy(update={"steps": tuple(steps)})
