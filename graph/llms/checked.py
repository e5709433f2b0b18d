"""From proposed steps to an option that may be shown: on the menu, and on what the catalogue lists."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, JsonValue, ValidationError

from executors.base import Resource, Risk
from graph.llms.base import OperationOnMenu, PlanRequest
from graph.llms.playbooks import STEP_SUMMARIES, UNDO
from graph.state import ActionOption, PlanStep

_RISKS: tuple[Risk, ...] = get_args(Risk)  # ascending
_TRAFFIC = frozenset({"reduce_traffic", "gradual_traffic_restore"})
_ECS = frozenset(
    {
        "check_ecs_health",
        "restart_ecs_task",
        "restart_all_services",
        "scale_ecs_service",
        "rollback_ecs_service",
    }
)


class NotPossibleError(Exception):
    """A step that may not be proposed; the text says why."""


@dataclass(frozen=True)
class ProposedStep:
    """An operation and its params, as a playbook or a model proposes them."""

    operation: str
    params: Mapping[str, JsonValue]


def checked_step(proposed: ProposedStep, request: PlanRequest) -> PlanStep:
    """The step with its params in full. Raises NotPossibleError."""
    entry = next((o for o in request.menu if o.name == proposed.operation), None)
    if entry is None:
        raise NotPossibleError(f"{proposed.operation} is not an operation of this installation")
    params = _validated(entry, proposed.params)
    for service in _services(params):
        _check_resource(entry.name, params, _resource(service, request))
    return PlanStep(operation=entry.name, params=params, summary=_summary(entry, params))


def checked_option(
    title: str,
    description: str,
    why: Iterable[str],
    steps: Sequence[PlanStep],
    menu: Iterable[OperationOnMenu],
) -> ActionOption:
    """An option over checked steps: risk, minutes and undo follow from its operations."""
    entries = {entry.name: entry for entry in menu}
    used = [entries[step.operation] for step in steps]
    return ActionOption(
        title=title,
        description=description,
        why=tuple(dict.fromkeys(why)),
        risk=max((_risk(entry) for entry in used), key=_RISKS.index, default="none"),
        minutes=sum(entry.minutes for entry in used),
        steps=tuple(steps),
        undo=_undo(used),
    )


def changes_something(steps: Iterable[PlanStep], menu: Iterable[OperationOnMenu]) -> bool:
    """An option that only looks is no remedy."""
    writing = {entry.name for entry in menu if not entry.read_only}
    return any(step.operation in writing for step in steps)


def _validated(entry: OperationOnMenu, params: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        model: BaseModel = entry.params.model_validate(dict(params))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotPossibleError(f"{entry.name}: {where}: {first['msg']}") from None
    dumped: dict[str, JsonValue] = model.model_dump(mode="json")
    return dumped


def _services(params: Mapping[str, JsonValue]) -> list[str]:
    """The services that a step's params name."""
    several = params.get("services")
    names = [params.get("service"), *(several if isinstance(several, list) else [])]
    return [name for name in names if isinstance(name, str)]


def _resource(service: str, request: PlanRequest) -> Resource:
    for resource in request.resources:
        if resource.service == service:
            return resource
    raise NotPossibleError(f"{service} is not in the service catalogue, or not in the scope of this incident")


def _check_resource(operation: str, params: Mapping[str, JsonValue], resource: Resource) -> None:
    if operation in _ECS and not (resource.cluster and resource.ecs_service):
        raise NotPossibleError(f"the catalogue names no ECS service for {resource.service}")
    if operation in _TRAFFIC and not (
        resource.listener_rule_arn and resource.target_group_arn and resource.overflow_target_group_arn
    ):
        raise NotPossibleError(f"the catalogue names no listener rule and overflow group for {resource.service}")
    count = params.get("desired_count")
    if isinstance(count, int) and not resource.min_tasks <= count <= resource.max_tasks:
        raise NotPossibleError(
            f"{resource.service} may run {resource.min_tasks} to {resource.max_tasks} tasks, not {count}"
        )


def _summary(entry: OperationOnMenu, params: Mapping[str, JsonValue]) -> str:
    template = STEP_SUMMARIES.get(entry.name)
    if template is None:
        return entry.summary
    shown = {name: _shown(value) for name, value in params.items()}
    return template.format_map(_Shown(shown))


class _Shown(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "…"


def _shown(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _risk(entry: OperationOnMenu) -> Risk:
    return next((risk for risk in _RISKS if risk == entry.risk), "high")


def _undo(used: Sequence[OperationOnMenu]) -> str:
    """How the option is undone; empty if nothing of it can be."""
    ways = dict.fromkeys(
        UNDO.get(entry.name, f"what {entry.name} changed is put back") for entry in used if entry.reversible
    )
    if not ways:
        return ""
    text = "; ".join(ways)
    final = [entry.name for entry in used if not (entry.reversible or entry.read_only)]
    rest = f" {', '.join(dict.fromkeys(final))} cannot be undone." if final else ""
    return f"{text[0].upper()}{text[1:]}.{rest}"
