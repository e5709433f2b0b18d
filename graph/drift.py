"""What an approval is bound to, against the target's state when the step is to run. Pure."""

import json
from collections.abc import Mapping

from pydantic import BaseModel, JsonValue
from pydantic_core import to_jsonable_python

from executors.base import AnyOperation, State

LONGEST = 80  # characters of a value
MOST = 5  # differences that are told


def pins(operation: AnyOperation, params: BaseModel, before: State) -> State:
    """The operation's own, and which target it is: the catalogue may give a service another one. Raises Refused."""
    pinned = operation.pinned(params, before)
    return {**pinned, "target": operation.resource(params)} if pinned else pinned


def drift(approved: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> str:
    """What is another than it was when the step was approved: ``desired tasks 4 -> 6``; empty: nothing is."""
    then, present = (to_jsonable_python(dict(state)) for state in (approved, now))
    told = list(_differences("", then, present))
    more = f", and {len(told) - MOST} more" if len(told) > MOST else ""
    return ", ".join(told[:MOST]) + more


def _differences(name: str, then: JsonValue, now: JsonValue) -> list[str]:
    if then == now:
        return []
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted({*then, *now})
        return [told for key in keys for told in _differences(f"{name} {key}".strip(), then.get(key), now.get(key))]
    return [f"{name.replace('_', ' ')} {_shown(then)} -> {_shown(now)}"]


def _shown(value: JsonValue) -> str:
    text = "none" if value is None else value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
