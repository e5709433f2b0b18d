"""A pydantic model's JSON schema in the form that strict structured outputs want.

Source: OpenAI's guide to structured outputs. Every property is required, no object is open, nothing has a default, and
only some keywords are known. What is left out here (lengths, patterns of keys, …) pydantic checks afterwards.
"""

from collections.abc import Mapping
from functools import cache
from typing import cast

from pydantic import BaseModel, JsonValue

Schema = dict[str, JsonValue]

_KEPT = {
    "type",
    "enum",
    "const",
    "description",
    "$ref",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
} | {
    "multipleOf",
    "minItems",
    "maxItems",
    "pattern",
}
_LEFT_OUT = {"title", "default", "examples", "deprecated", "discriminator", "format"} | {
    "minLength",
    "maxLength",
    "uniqueItems",
    "minProperties",
    "maxProperties",
}


class NotStrictError(ValueError):
    """A shape that no strict schema can tell; the text says where."""


@cache
def strict_schema(answer: type[BaseModel]) -> Mapping[str, JsonValue]:
    """The strict schema of a model; not to be changed. Raises NotStrictError, which is a defect of the model's class.

    A field with a default becomes one that must be told; one that may be missing should therefore be ``X | None``.
    """
    declared = cast("Schema", answer.model_json_schema())
    named = cast("dict[str, Schema]", declared.pop("$defs", {}))
    if "$ref" in declared:  # a model that holds itself
        declared = named[str(declared["$ref"]).rpartition("/")[2]]
    if declared.get("type") != "object":
        raise NotStrictError(f"{answer.__name__}: the root must be an object")
    schema = _strict(declared, answer.__name__)
    if named:
        schema["$defs"] = {name: _strict(part, name) for name, part in named.items()}
    return schema


def _strict(schema: Schema, where: str) -> Schema:
    """One schema and all within it."""
    unknown = schema.keys() - _KEPT - _LEFT_OUT - {"properties", "required", "additionalProperties", "items"}
    unions = unknown & {"anyOf", "oneOf"}
    if unknown - unions:
        raise NotStrictError(f"{where}: {', '.join(sorted(unknown - unions))} cannot be told in a strict schema")
    strict: Schema = {key: value for key, value in schema.items() if key in _KEPT}
    for union in unions:
        variants = cast("list[Schema]", schema[union])
        strict["anyOf"] = [_strict(variant, f"{where}[{number}]") for number, variant in enumerate(variants)]
    if schema.get("type") == "object":
        strict |= _object(schema, where)
    if schema.get("type") == "array":
        if "items" not in schema:
            raise NotStrictError(f"{where}: a list of anything")
        strict["items"] = _strict(cast("Schema", schema["items"]), f"{where}[]")
    if not strict.keys() - {"description"}:
        raise NotStrictError(f"{where}: anything goes there")
    return {"$ref": strict["$ref"]} if "$ref" in strict else strict  # a reference stands alone


def _object(schema: Schema, where: str) -> Schema:
    """A closed object. One without declared properties is a dict with any keys."""
    properties = cast("dict[str, Schema]", schema.get("properties", {}))
    if schema.get("additionalProperties", False) is not False or not properties:
        raise NotStrictError(f"{where}: an object with any keys; use a list of records")
    return {
        "properties": {name: _strict(part, f"{where}.{name}") for name, part in properties.items()},
        "required": list(properties),
        "additionalProperties": False,
    }
