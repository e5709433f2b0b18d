"""From proposed steps to an option that may be shown: on the menu, and on what the catalogue lists."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, JsonValue, ValidationError

from executors.base import Refused, Resource, Risk
from graph.llms.base import OperationOnMenu, PlanRequest
from graph.llms.playbooks import OPERATIONS, say
from graph.state import ActionOption, Intent, Language, PlanStep

_RISKS: tuple[Risk, ...] = get_args(Risk)  # ascending
_COUNTS = ("desired_count", "replicas", "desired_capacity")  # params that min_tasks and max_tasks bound


class NotPossibleError(Exception):
    """A step that may not be proposed; the text says why."""


class NotAdvisedError(Exception):
    """A remedy that could be run and would harm, or not help; the text says why in a whole sentence."""


@dataclass(frozen=True)
class ProposedStep:
    """An operation and its params, as a playbook or a model proposes them."""

    operation: str
    params: Mapping[str, JsonValue]


def checked_step(proposed: ProposedStep, request: PlanRequest) -> PlanStep:
    """The step with its params in full. Raises NotPossibleError."""
    entry = request.entry(proposed.operation)
    if entry is None:
        raise NotPossibleError(say("no_operation", request.language, operation=proposed.operation))
    valid = _validated(entry, proposed.params)
    params: dict[str, JsonValue] = valid.model_dump(mode="json")
    for service in _services(params):
        _check_resource(entry, params, _resource(service, request), request.language)
    try:
        entry.check(valid)
    except Refused as error:
        raise NotPossibleError(str(error)) from None
    return PlanStep(operation=entry.name, params=params, summary=_summary(entry, params, request.language))


def checked_option(
    title: str,
    description: str,
    why: Iterable[str],
    steps: Sequence[PlanStep],
    menu: Iterable[OperationOnMenu],
    *,
    intent: Intent | None = None,
    benefit: float = 0.5,
    language: Language = "en",
) -> ActionOption:
    """An option over checked steps: risk, minutes and undo follow from its operations."""
    entries = {entry.name: entry for entry in menu}
    used = [entries[step.operation] for step in steps]
    return ActionOption(
        title=title,
        description=description,
        intent=intent,
        benefit=benefit,
        why=tuple(dict.fromkeys(why)),
        risk=max((_risk(entry) for entry in used), key=_RISKS.index, default="none"),
        minutes=sum(entry.minutes for entry in used),
        steps=tuple(steps),
        undo=_undo(used, language),
    )


def changes_something(steps: Iterable[PlanStep], menu: Iterable[OperationOnMenu]) -> bool:
    """An option that only looks is no remedy."""
    writing = {entry.name for entry in menu if not entry.read_only}
    return any(step.operation in writing for step in steps)


def _validated(entry: OperationOnMenu, params: Mapping[str, JsonValue]) -> BaseModel:
    try:
        # strict: «true» is no number of tasks, and neither is "4"
        return entry.params.model_validate_json(json.dumps(dict(params)), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotPossibleError(f"{entry.name}: {where}: {first['msg']}") from None


def _services(params: Mapping[str, JsonValue]) -> list[str]:
    """The services that a step's params name."""
    several = params.get("services")
    names = [params.get("service"), *(several if isinstance(several, list) else [])]
    return [name for name in names if isinstance(name, str)]


def _resource(service: str, request: PlanRequest) -> Resource:
    for resource in request.resources:
        if resource.service == service:
            return resource
    raise NotPossibleError(say("not_in_catalogue", request.language, service=service))


def _check_resource(
    entry: OperationOnMenu, params: Mapping[str, JsonValue], resource: Resource, language: Language
) -> None:
    if lacking := entry.lacks(resource):
        raise NotPossibleError(say("lacks", language, lacking=lacking.rstrip(".")))
    for count in (params.get(name) for name in _COUNTS):
        if isinstance(count, int) and not resource.min_tasks <= count <= resource.max_tasks:
            bounds = {"least": resource.min_tasks, "most": resource.max_tasks, "count": count}
            raise NotPossibleError(say("task_bounds", language, service=resource.service, **bounds))


def _summary(entry: OperationOnMenu, params: Mapping[str, JsonValue], language: Language) -> str:
    known = OPERATIONS.get(entry.name)
    if known is None:
        return entry.summary
    null = any(value is None and f"{{{name}" in known.does.en for name, value in params.items())
    text = known.without if null and known.without else known.does
    return text.filled(language, **{name: _shown(value) for name, value in params.items()})


def _shown(value: JsonValue) -> str:
    if isinstance(value, list):
        return ", ".join(_shown(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _risk(entry: OperationOnMenu) -> Risk:
    return next((risk for risk in _RISKS if risk == entry.risk), "high")


def _undo(used: Sequence[OperationOnMenu], language: Language) -> str:
    """How the option is undone; empty if nothing of it can be."""
    ways = dict.fromkeys(_put_back(entry, language) for entry in used if entry.reversible)
    if not ways:
        return ""
    text = "; ".join(ways)
    final = [entry.name for entry in used if not (entry.reversible or entry.read_only)]
    rest = say("cannot_be_undone", language, operations=", ".join(dict.fromkeys(final))) if final else ""
    return f"{text[0].upper()}{text[1:]}. {rest}".rstrip()


def _put_back(entry: OperationOnMenu, language: Language) -> str:
    known = OPERATIONS.get(entry.name)
    if known is None or known.undone is None:
        return say("put_back", language, operation=entry.name)
    return known.undone.filled(language)
