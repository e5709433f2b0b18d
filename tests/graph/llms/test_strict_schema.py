"""Models as strict schemas, judged by the fake that refuses what OpenAI refuses."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, JsonValue

from app.simulator.openai import not_strict
from graph.llms.drafts import CauseDraft
from graph.llms.strict_schema import NotStrictError, strict_schema


class Leaf(BaseModel):
    """A leaf."""

    name: Annotated[str, Field(min_length=1, description="What it is called")]
    size: int = Field(default=3, ge=1, le=9)
    kind: Literal["a", "b"] | None = None


class Tree(BaseModel):
    leaf: Leaf = Field(description="Beside a reference")
    branches: "list[Tree]"
    either: Leaf | str


class Open(BaseModel):
    anything: dict[str, int]


class Anything(BaseModel):
    value: JsonValue


class Untyped(BaseModel):
    value: Any


class Pair(BaseModel):
    pair: tuple[int, str]


class Bare(BaseModel):
    some: list  # type: ignore[type-arg]


class Empty(BaseModel):
    pass


def test_a_strict_schema_is_accepted_where_pydantics_own_is_not() -> None:
    for model in (Leaf, Tree, CauseDraft):
        assert not_strict(strict_schema(model)) == []
    assert not_strict(Leaf.model_json_schema())
    assert not_strict(Tree.model_json_schema())


def test_bounds_and_descriptions_stay_and_defaults_go() -> None:
    schema: Any = strict_schema(Leaf)
    assert schema["required"] == ["name", "size", "kind"]
    assert schema["properties"]["size"] == {"type": "integer", "minimum": 1, "maximum": 9}
    assert schema["properties"]["name"] == {"type": "string", "description": "What it is called"}
    assert {"type": "null"} in schema["properties"]["kind"]["anyOf"]


@pytest.mark.parametrize(
    ("model", "where"),
    [
        (Open, r"Open\.anything"),
        (Anything, "JsonValue"),
        (Untyped, r"Untyped\.value"),
        (Pair, r"Pair\.pair"),
        (Bare, r"Bare\.some"),
        (Empty, "Empty"),
    ],
)
def test_shapes_that_no_strict_schema_can_tell(model: type[BaseModel], where: str) -> None:
    with pytest.raises(NotStrictError, match=where):
        strict_schema(model)
