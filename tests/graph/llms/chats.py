"""Chat models of tests: what they say is written down."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel

from graph.llms.base import LlmError
from graph.llms.chat import Answer, Message, Purpose, Question, Tool, ToolCall, Usage
from graph.masking import Masker

MASKER = Masker(b"a key of the tests")
SECRET = "AKIAIOSFODNN7EXAMPLQ"


class Yes(BaseModel):
    """An answer's shape."""

    yes: bool


def question(text: str = "Is it so?", incident_id: str = "inc_1", round_: int = 1) -> Question:
    """One with all there is to a question."""
    purpose = Purpose("RootCauseAnalyzer", incident_id, round_)
    messages = (
        Message("system", "You answer."),
        Message("user", text),
        Message("assistant", calls=(ToolCall("c1", "search_logs", '{"pattern": "pool"}'),)),
        Message("tool", "nothing was found", call_id="c1"),
    )
    return Question(purpose, messages, Yes, (Tool("search_logs", "Reads logs", {"type": "object"}),))


def usage(prompt: int = 1_000, completion: int = 100, dollars: float = 0.0035) -> Usage:
    """What an answer cost."""
    return Usage("gpt-4o-2024-08-06", prompt, completion, 10, dollars, 1.5, "stop")


@dataclass
class Chat:
    """Answers each question with ``says``; ``asked`` counts, ``begun`` is set. A gate holds answers back."""

    says: Callable[[], Answer] = field(default=lambda: Answer('{"yes": true}', usage()))
    gate: asyncio.Event | None = None
    asked: int = 0
    closed: bool = False
    name: str = "gpt-4o"
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, question: Question) -> Answer:
        """See ChatModel."""
        self.asked += 1
        self.begun.set()
        if self.gate:
            await self.gate.wait()
        return self.says()

    async def aclose(self) -> None:
        """See ChatModel."""
        self.closed = True


def failing(text: str, cost: Usage | None) -> Callable[[], Answer]:
    """A model that gives no answer."""

    def fail() -> Answer:
        raise LlmError(text, cost)

    return fail
