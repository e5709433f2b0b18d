"""What a model writes, as strict JSON schemas, and how it becomes our own types.

Nothing here is believed: names, numbers and hops are checked by ``graph/grounding.py``, steps by
``graph/llms/checked.py``. Texts are bounded and put on one line, for they are shown in tables and messages.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

from executors.base import Resource
from graph.llms.base import OperationOnMenu, PlanRequest, ReadMenu
from graph.llms.chat import Tool
from graph.llms.checked import (
    NotPossibleError,
    ProposedStep,
    changes_something,
    checked_option,
    checked_step,
)
from graph.llms.playbooks import Category
from graph.state import ActionOption, Claim, Hop, Intent, Language, Rival, RootCause

MAX_TEXT = 600  # characters of one sentence or paragraph
MAX_ITEMS = 8  # claims, rivals, unknowns, hops
MAX_STEPS = 6
MAX_OPTIONS = 6  # looked at; three of them are shown
MAX_NAMES = 30  # of components in a tool's schema; more are in the brief only
_BENEFIT: Mapping[str, float] = {"high": 0.8, "medium": 0.5, "low": 0.2}
_TO_SETTLE: Mapping[Language, str] = {"en": "To settle it", "ko": "확인할 방법"}
_LISTED: Mapping[str, Callable[[Resource], Iterable[str]]] = {
    "document": lambda resource: (automation.document for automation in resource.automations),
    "model": lambda resource: resource.prompt.models if resource.prompt else (),
}
"""Params that take what the catalogue lists for a service, and nothing else."""
_SAFE_KEYWORDS = ("type", "enum", "items", "anyOf", "description")  # of a param's schema, what every server knows

_ADDRESS = re.compile(r"!?\[[^\]]*\]\([^)]*\)|\w+://\S+|\bwww\.\S+|\b(?:javascript|data|mailto):\S+", re.IGNORECASE)

Schema = Mapping[str, JsonValue]


class _Draft(BaseModel):
    """Strict schemas want every field required and no others; so no defaults here."""

    model_config = ConfigDict(extra="forbid")


class ClaimDraft(_Draft):
    """One sentence, what it rests on, and the words or the number there that say so."""

    text: str
    evidence: list[str]
    quote: str


class RivalDraft(_Draft):
    """Another explanation."""

    component: str
    speaks_for: str
    speaks_against: str


class UnknownDraft(_Draft):
    """What the evidence cannot show, and which read would settle it."""

    text: str
    read: str


class CauseDraft(_Draft):
    """The answer of RootCauseAnalyzer. Claims come before prose: what was said in them can be told."""

    component: str | None
    category: Category
    claims: list[ClaimDraft]
    path: list[str]
    title: str
    mechanism: str
    impact: str
    rivals: list[RivalDraft]
    unknowns: list[UnknownDraft]
    confidence: Literal["high", "medium", "low", "inconclusive"]


class StepDraft(_Draft):
    """An operation of the menu with its params; ``plan_schema`` says which there are."""

    operation: str
    params: dict[str, JsonValue]


class OptionDraft(_Draft):
    """One remedy."""

    title: str
    description: str
    intent: Intent
    benefit: Literal["high", "medium", "low"]
    why: list[str]
    steps: list[StepDraft]


class PlanDraft(_Draft):
    """The answer of ActionPlanner."""

    options: list[OptionDraft]


def root_cause(draft: CauseDraft, engine: str, language: Language) -> RootCause:
    """In our types, nothing of it checked yet."""
    component = draft.component or None
    return RootCause(
        component=component,
        category=draft.category.value if component else Category.UNKNOWN.value,
        title=cut(draft.title),
        mechanism=cut(draft.mechanism, 2 * MAX_TEXT),
        impact=cut(draft.impact),
        claims=tuple(
            Claim(text=cut(c.text), evidence=tuple(map(_id, c.evidence[:MAX_ITEMS])), quote=cut(c.quote, 300))
            for c in draft.claims[:MAX_ITEMS]
        ),
        path=_path(draft.path[:MAX_ITEMS]) if component else (),
        rivals=tuple(
            Rival(component=cut(r.component, 120), for_=cut(r.speaks_for), against=cut(r.speaks_against))
            for r in draft.rivals[:MAX_ITEMS]
        ),
        unknowns=tuple(_unknown(unknown, language) for unknown in draft.unknowns[:MAX_ITEMS]),
        confidence=draft.confidence if component else "inconclusive",
        language=language,
        engine=engine,
    )


def options(draft: PlanDraft, request: PlanRequest, engine: str) -> tuple[list[ActionOption], list[str]]:
    """The possible options, each once, and what is wrong with the others."""
    possible: list[ActionOption] = []
    complaints: list[str] = []
    for proposed in draft.options[:MAX_OPTIONS]:
        try:
            option = _option(proposed, request, engine)
        except NotPossibleError as error:
            complaints.append(f"«{cut(proposed.title, 80)}»: {cut(str(error), 300)}")
            continue
        if option.steps not in [other.steps for other in possible]:
            possible.append(option)
    return possible, complaints


def plan_schema(request: PlanRequest) -> Schema:
    """The strict schema of a plan: a step is one operation with its own params, on a service that it can act on.

    Empty where no operation can act on anything.
    """
    steps = _step_schemas(request)
    if not steps:
        return {}
    option: dict[str, JsonValue] = {
        "title": {"type": "string"},
        "description": {"type": "string"},
        "intent": {"type": "string", "enum": ["mitigate", "fix", "least_risk"]},
        "benefit": {"type": "string", "enum": ["high", "medium", "low"]},
        "why": {"type": "array", "items": {"type": "string"}},
        "steps": {"type": "array", "items": {"anyOf": steps}},
    }
    return _object({"options": {"type": "array", "items": _object(option)}})


def read_tools(menu: ReadMenu) -> tuple[Tool, ...]:
    """The questions to collectors that the sources can answer, as strict tools."""
    if not menu.components:
        return ()
    component: dict[str, JsonValue] = {"type": "string"}
    if len(menu.components) <= MAX_NAMES:
        component["enum"] = list(menu.components)
    tools = {
        "logs": Tool(
            "search_logs",
            "Log lines of a component that hold these words, in the incident and in the baseline",
            _object({"component": component, "contains": {"type": "string", "description": "plain text"}}),
        ),
        "metric": Tool(
            "read_metric",
            "One of the metrics you may read, in the incident and in the baseline",
            _object({"component": component, "metric": {"type": "string"}}),
        ),
        "trace": Tool(
            "read_trace",
            "All spans of a trace whose id stands in a finding",
            _object({"trace_id": {"type": "string"}}),
        ),
    }
    return tuple(tool for kind, tool in tools.items() if kind in menu.kinds)


def unlinked(text: str, length: int = MAX_TEXT) -> str:
    """For texts that are checked against nothing: without addresses, which could carry data away."""
    return cut(_ADDRESS.sub("…", text), length)


def cut(text: str, length: int = MAX_TEXT) -> str:
    """Within bounds, and on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def _id(text: str) -> str:
    """«[E3]» and «e3» mean E3."""
    return cut(text, 20).strip("[]() ").upper()


def _unknown(draft: UnknownDraft, language: Language) -> str:
    text, read = unlinked(draft.text, 300), unlinked(draft.read, 200)
    return f"{text} {_TO_SETTLE[language]}: {read}" if read else text


def _path(names: Sequence[str]) -> tuple[Hop, ...]:
    """Hops between neighbours."""
    return tuple(
        Hop(cause=cut(cause, 120), effect=cut(effect, 120), structural=False, statistical=False, temporal=False)
        for cause, effect in pairwise(names)
    )


def _option(draft: OptionDraft, request: PlanRequest, engine: str) -> ActionOption:
    """All of the option or nothing: half a remedy is another remedy. Raises NotPossibleError."""
    if len(draft.steps) > MAX_STEPS:
        raise NotPossibleError(f"{len(draft.steps)} steps are more than one option may have, which is {MAX_STEPS}")
    steps = [checked_step(ProposedStep(step.operation, step.params), request) for step in draft.steps]
    if not changes_something(steps, request.menu):
        raise NotPossibleError("it changes nothing: checks alone are no remedy")
    why = [eid for eid in map(_id, draft.why) if request.evidence.finding(eid)]
    title, description = unlinked(draft.title, 120), unlinked(draft.description)
    option = checked_option(title, description, why, steps, request.menu, language=request.language)
    marks = {"intent": draft.intent, "benefit": _BENEFIT[draft.benefit], "engine": engine}
    return option.model_copy(update=marks)


def _step_schemas(request: PlanRequest) -> list[JsonValue]:
    """Of each operation, on the services that it can act on; operations with the same params share one."""
    names: dict[str, list[JsonValue]] = {}
    params: dict[str, JsonValue] = {}
    for entry in request.usable:
        schema = _params_schema(entry, request)
        key = json.dumps(schema)
        names.setdefault(key, []).append(entry.name)
        params[key] = schema
    return [_object({"operation": {"type": "string", "enum": names[k]}, "params": params[k]}) for k in names]


def _params_schema(entry: OperationOnMenu, request: PlanRequest) -> dict[str, JsonValue]:
    resources = request.possible_on(entry)
    declared = entry.params.model_json_schema()["properties"]
    return _object({name: _param(name, schema, resources) for name, schema in declared.items()})


def _param(name: str, schema: Schema, resources: Sequence[Resource]) -> JsonValue:
    services: list[JsonValue] = [resource.service for resource in resources]
    if name in _LISTED:
        allowed: list[JsonValue] = list(dict.fromkeys(value for r in resources for value in _LISTED[name](r)))
        return {"type": "string", "enum": allowed, "description": str(schema.get("description", ""))}
    if name == "service":
        return {"type": "string", "enum": services}
    if name == "services":
        return {"type": "array", "items": {"type": "string", "enum": services}}
    return {key: value for key, value in schema.items() if key in _SAFE_KEYWORDS} | _bounds(schema)


def _bounds(schema: Schema) -> dict[str, JsonValue]:
    """Bounds in words: not every server takes them as keywords, and code checks them anyway."""
    words = [f"{key} {schema[key]}" for key in ("minimum", "maximum", "default") if key in schema]
    told = "; ".join(str(text) for text in (schema.get("description"), *words) if text)
    return {"description": told} if told else {}


def _object(properties: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    names: Iterable[str] = properties
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(names),
        "additionalProperties": False,
    }
