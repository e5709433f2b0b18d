"""What a person is shown of each step before deciding: whether it can run, what it would change, and what is left.

All steps of all options are looked at side by side, within some seconds; nothing is changed. What runs later
need not be what is seen here: an approval is bound to ``pinned``, and a step is refused if that is another by then.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from json import dumps

from pydantic import BaseModel, ValidationError

from executors.base import AnyOperation, Capacity, Change, ExecutorError, PreflightCheck
from executors.base import State as TargetState
from graph.blast_radius import Surroundings, blast_radius, capacity_check
from graph.deps import Deps
from graph.drift import pins
from graph.policy import Asked, Facts
from graph.state import ActionOption, CapacityEstimate, PlanStep

WITHIN_S = 8.0  # wall time: a person waits, and a target that answers does so in less than one second
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Target:
    """What a step would be run on."""

    operation: AnyOperation
    params: BaseModel
    resource: str

    @property
    def does(self) -> str:
        """The same of steps that do the same."""
        return f"{self.operation.name} {dumps(self.params.model_dump(mode='json'), sort_keys=True)}"


@dataclass(frozen=True)
class _Seen:
    """What was seen of a step; one with a failed check cannot run."""

    checks: tuple[PreflightCheck, ...]
    preview: str = ""
    changes: tuple[Change, ...] = ()
    pinned: TargetState = field(default_factory=dict)
    capacity: Capacity | None = None


@dataclass(frozen=True)
class _Step:
    """A step of an option; without a target it cannot run, for the reason in ``seen``."""

    step: PlanStep
    target: _Target | None = None
    seen: _Seen | None = None  # None: to be looked at


@dataclass(frozen=True)
class _Ends:
    """When looking ends, by the event loop's clock."""

    within_s: float
    at: float


async def preflight(
    deps: Deps,
    options: Sequence[ActionOption],
    incident_id: str,
    around: Surroundings,
    *,
    within_s: float = WITHIN_S,
) -> list[ActionOption]:
    """The options with checks, previews and pinned states of their steps, blast radius, and what the policy asks for.

    A step on a resource that an earlier step of its option changes is not looked at: its state does not exist yet.
    """
    options = await asyncio.gather(*(_concrete(deps, option, within_s) for option in options))
    planned = [list(_resolved(deps, option.steps)) for option in options]
    looks = await _look_at_all([s.target for steps in planned for s in steps if s.target and not s.seen], within_s)
    asked = [Asked.of(o.steps, deps.operations, deps.catalogue.environment, o.risk) for o in options]
    services = sorted({service for one in asked for service in one.services})
    facts = await deps.facts.at_present(services, incident_id=incident_id)
    return [
        _checked(deps, option, [_with_look(step, looks) for step in steps], one, facts, around)
        for option, steps, one in zip(options, planned, asked, strict=True)
    ]


def feasible(option: ActionOption) -> bool:
    """Whether every step of it can run now, as far as was seen."""
    return not any(step.infeasible for step in option.steps)


# --- what to look at ---


async def _concrete(deps: Deps, option: ActionOption, within_s: float) -> ActionOption:
    """The option with parameters as people approve them: «unhealthiest» becomes the task it is now."""
    steps = await asyncio.gather(*(_concrete_step(deps, step, within_s) for step in option.steps))
    return option.model_copy(update={"steps": tuple(steps)})


async def _concrete_step(deps: Deps, step: PlanStep, within_s: float) -> PlanStep:
    try:
        target = _target(deps, step)
        async with asyncio.timeout(within_s):
            params = await target.operation.concrete(target.params)
    except (ExecutorError, TimeoutError):
        return step  # it is looked at next, which fails the same way and tells why
    if params == target.params:
        return step
    return step.model_copy(update={"params": params.model_dump(mode="json")})


def _resolved(deps: Deps, steps: Iterable[PlanStep]) -> Iterable[_Step]:
    """Each step with its target, as far as the registry and the catalogue know it."""
    changed: set[str] = set()
    for step in steps:
        try:
            target = _target(deps, step)
        except ExecutorError as error:
            yield _Step(step, seen=_Seen((_failed("catalogue", str(error)),)))
            continue
        resources = set(target.resource.split(","))
        yield _Step(step, target, None if changed.isdisjoint(resources) else _after_another(target))
        if not target.operation.read_only:
            changed |= resources


def _target(deps: Deps, step: PlanStep) -> _Target:
    """Raises ExecutorError."""
    operation = deps.operations.get(step.operation)
    if operation is None:
        raise ExecutorError(f"{step.operation} is not an operation of this installation")
    try:
        params = operation.params.model_validate(step.params)
    except ValidationError as error:
        raise ExecutorError(f"{step.operation}: {error.errors()[0]['msg']}") from error
    return _Target(operation, params, operation.resource(params))


def _after_another(target: _Target) -> _Seen:
    why = "an earlier step of the option changes it: it is looked at when this step is to run"
    return _Seen(
        checks=(_listed(target), PreflightCheck(name="state", status="skipped", detail=why)),
        preview=f"{target.operation.summary}, on what the step before left",
    )


# --- looking ---


async def _look_at_all(targets: Sequence[_Target], within_s: float) -> dict[str, _Seen]:
    """Side by side, and what several options would do only once."""
    distinct = {target.does: target for target in targets}
    ends = _Ends(within_s, asyncio.get_running_loop().time() + within_s)
    seen = await asyncio.gather(*(_look_at(target, ends) for target in distinct.values()))
    return dict(zip(distinct, seen, strict=True))


async def _look_at(target: _Target, ends: _Ends) -> _Seen:
    """State and preview; then what only the target can tell."""
    operation, params = target.operation, target.params
    try:
        async with asyncio.timeout_at(ends.at):
            before = await operation.inspect(params)
        seen = _Seen(
            checks=(_listed(target), PreflightCheck(name="state", status="ok")),
            preview=operation.preview(params, before),
            changes=operation.changes(params, before),
            pinned=pins(operation, params, before),
            capacity=operation.capacity(params, before),
        )
    except TimeoutError:
        why = f"{target.resource} gave no answer within {ends.within_s:g} s; choose re_plan to look again"
    except ExecutorError as error:
        why = str(error)
    except Exception as error:
        log.exception("pre-flight of %s", operation.name)
        why = f"{type(error).__name__}: {error}. Report this defect of {operation.name}, with the log"
    else:
        told = await _asked_of_target(target, before, ends)
        plain = [check for check in seen.checks if check.name not in {check.name for check in told}]
        return replace(seen, checks=(*plain, *told))
    return _Seen((_listed(target), _failed("state", why)))


async def _asked_of_target(target: _Target, before: TargetState, ends: _Ends) -> tuple[PreflightCheck, ...]:
    """Permissions, quotas and the like: what is not told stops nobody."""
    try:
        async with asyncio.timeout_at(ends.at):
            return await target.operation.preflight(target.params, before)
    except TimeoutError:
        why = f"permissions, quotas and scaling policies: no answer within {ends.within_s:g} s"
    except Exception as error:
        log.exception("pre-flight of %s", target.operation.name)
        why = f"permissions, quotas and scaling policies: {type(error).__name__}: {error}"
    return (PreflightCheck(name="permission", status="skipped", detail=why),)


def _with_look(step: _Step, looks: dict[str, _Seen]) -> _Step:
    return step if step.seen or step.target is None else replace(step, seen=looks[step.target.does])


def _listed(target: _Target) -> PreflightCheck:
    return PreflightCheck(name="catalogue", status="ok", detail=target.resource)


def _failed(name: str, detail: str) -> PreflightCheck:
    return PreflightCheck.model_validate({"name": name, "status": "failed", "detail": detail})


# --- what is shown ---


def _checked(
    deps: Deps, option: ActionOption, steps: Sequence[_Step], asked: Asked, facts: Facts, around: Surroundings
) -> ActionOption:
    capacities = {i: step.seen.capacity for i, step in enumerate(steps) if step.seen and step.seen.capacity}
    changing = [step.target.operation for step in steps if step.target and not step.target.operation.read_only]
    radius = blast_radius(asked.services, list(capacities.values()), [o.reversible for o in changing], around)
    left = dict(zip(capacities, radius.capacity, strict=True))
    return option.model_copy(
        update={
            "steps": tuple(_shown(deps, step, left.get(i), facts) for i, step in enumerate(steps)),
            "blast_radius": radius,
            "needs": deps.policy.needs(asked, facts),
        }
    )


def _shown(deps: Deps, step: _Step, left: CapacityEstimate | None, facts: Facts) -> PlanStep:
    seen = step.seen or _Seen(())
    checks = (*seen.checks, *([capacity_check(left)] if left else []), _policy_check(deps, step.step, facts))
    failed = [check.detail for check in checks if check.status == "failed"]
    return step.step.model_copy(
        update={
            "preview": seen.preview,
            "changes": seen.changes,
            "pinned": seen.pinned,
            "checks": checks,
            "infeasible": "; ".join(failed),
        }
    )


def _policy_check(deps: Deps, step: PlanStep, facts: Facts) -> PreflightCheck:
    """Failed only for what may never run: what is refused for the moment is asked again when it is approved."""
    asked = Asked.of((step,), deps.operations, deps.catalogue.environment)
    if forbidden := deps.policy.forbids(asked):
        return _failed("policy", "; ".join(forbidden))
    needs = deps.policy.needs(asked, facts)
    if needs.refused:
        return PreflightCheck(name="policy", status="warning", detail="; ".join(needs.refused))
    if needs.dry_run and asked.changes:
        why = f"{asked.environment} is dry-run only: it is told, and nothing is changed"
        return PreflightCheck(name="policy", status="warning", detail=why)
    people = f", by {needs.approvals} people" if needs.approvals > 1 else ""
    return PreflightCheck(name="policy", status="ok", detail=f"takes the role {needs.role}{people}")
