"""The port to a chat model: messages in, an answer of a given shape or calls of tools out.

``graph/llms/openai.py`` speaks to servers; ``graph/llms/accounted.py`` stands around it, keeps the caps, stores every
call and exports it. ``graph/llms/analyst.py`` asks the questions.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, JsonValue


@dataclass(frozen=True)
class ToolCall:
    """A model's request to read something: a request, not authority. ``arguments`` is JSON as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. ``call_id``: which ToolCall a tool's message answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; ``parameters`` is a strict JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, JsonValue]


Node = Literal["RootCauseAnalyzer", "ActionPlanner"]


@dataclass(frozen=True)
class Purpose:
    """What a question is asked for: told with its cost."""

    node: Node
    incident_id: str = ""
    round_: int = 1


@dataclass(frozen=True)
class Question:
    """One call of a model. All texts in it are masked already."""

    purpose: Purpose
    messages: tuple[Message, ...]
    answer: type[BaseModel]
    """The shape that is asked for, as strict JSON schema; whoever asks validates the answer again."""
    tools: tuple[Tool, ...] = ()
    schema: Mapping[str, JsonValue] | None = None
    """In place of the answer's own schema, where it depends on the incident."""


@dataclass(frozen=True)
class Usage:
    """What one answer of a model cost. Tokens a server does not tell are 0."""

    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    dollars: float = 0.0
    seconds: float = 0.0
    finish_reason: str = ""


@dataclass(frozen=True)
class Answer:
    """The text of an answer, JSON as the model wrote it, or the tools it wants called."""

    content: str
    usage: Usage
    calls: tuple[ToolCall, ...] = ()
    lost_attempts: int = 0
    """Made before it, and broken off: nobody knows what they cost."""


class ChatModel(Protocol):
    """A model behind HTTP, or a script in tests."""

    @property
    def name(self) -> str:
        """The model's name, as its server knows it."""

    async def ask(self, question: Question) -> Answer:
        """One answer. Raises LlmError, whose text says why there is none."""

    async def aclose(self) -> None:
        """Release connections."""
