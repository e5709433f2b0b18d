"""Whatever a server sends in place of a completion is an Answer or an LlmError."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from graph.llms.base import LlmError
from graph.llms.chat import Answer
from graph.llms.completion import Reader
from graph.llms.openai_settings import Settings

READER = Reader(Settings(), 1.0)

ODD: st.SearchStrategy[JsonValue] = st.sampled_from(
    ["\x00", "length", "content_filter", "{", '{"a": 1}', "<think>", 10**400, -1, 1e308, 12.5]
)
ANY: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | ODD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def some(**parts: st.SearchStrategy[JsonValue]) -> st.SearchStrategy[JsonValue]:
    """An object with some of these keys, each of them right or anything; or anything in its place."""
    optional = {name: part | ANY for name, part in parts.items()}
    return st.fixed_dictionaries({}, optional=optional) | ANY


CALL = some(id=st.text(), function=some(name=st.text(), arguments=ANY))
MESSAGE = some(content=st.text(), refusal=ANY, tool_calls=st.lists(CALL, max_size=2))
USAGE = some(prompt_tokens=ANY, completion_tokens=ANY, prompt_tokens_details=some(cached_tokens=ANY))
CHOICES = st.lists(some(message=MESSAGE, finish_reason=st.text()), max_size=2)


@given(some(choices=CHOICES, usage=USAGE))
def test_any_json_is_an_answer_or_an_error(body: JsonValue) -> None:
    told = read(body)
    assert isinstance(told, Answer) or "\n" not in str(told)
    if isinstance(told, Answer):
        assert_typed(told)
    if usage := told.usage:
        counts = (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens)
        assert all(type(count) is int and 0 <= count <= 100_000_000 for count in counts)  # no booleans: Postgres


def read(body: JsonValue) -> Answer | LlmError:
    """What comes of it. Raises all other errors."""
    try:
        return READER.read(json.dumps(body).encode())
    except LlmError as error:
        return error


def assert_typed(answer: Answer) -> None:
    """Dataclasses check nothing themselves."""
    texts = (answer.content, *(part for c in answer.calls for part in (c.id, c.name, c.arguments)))
    assert all(isinstance(text, str) for text in texts)
    assert answer.content or answer.calls


@given(st.binary(max_size=30))
def test_what_is_too_short_for_a_completion_is_an_error(body: bytes) -> None:
    with pytest.raises(LlmError) as caught:
        READER.read(body)
    assert (caught.value.usage, caught.value.lost_attempts) == (None, 1)
