"""The official fakes: an analyst and a chat model that say what they are told."""

import asyncio
from collections.abc import Callable, Sequence

from graph.llms.base import Analysis, AnalysisRequest, LlmError, PlanRequest, Proposal
from graph.llms.chat import Answer, Question, ToolCall, Usage
from graph.state import ActionOption, RootCause

Scripted = str | Sequence[ToolCall] | LlmError


class ScriptedAnalyst:
    """Answers ``root_cause`` and ``options`` after ``delay_s``, or raises ``error``; keeps what it was asked."""

    name = "scripted"

    def __init__(
        self,
        root_cause: RootCause | None = None,
        options: Sequence[ActionOption] = (),
        delay_s: float = 0.0,
        error: Exception | None = None,
    ) -> None:
        self._root_cause, self._options, self._delay_s, self._error = root_cause, options, delay_s, error
        self.analyses: list[AnalysisRequest] = []
        self.plans: list[PlanRequest] = []

    async def analyze(self, request: AnalysisRequest) -> Analysis:
        """The scripted root cause; LlmError if there is none."""
        self.analyses.append(request)
        await self._wait()
        if self._root_cause is None:
            raise LlmError("no root cause was scripted")
        return Analysis(self._root_cause)

    async def plan(self, request: PlanRequest) -> Proposal:
        """The scripted options."""
        self.plans.append(request)
        await self._wait()
        return Proposal(tuple(self._options))

    async def _wait(self) -> None:
        await asyncio.sleep(self._delay_s)
        if self._error is not None:
            raise self._error


class ScriptedChatModel:
    """A ChatModel that gives these answers, one after the other, the last one again and again.

    An answer is JSON text, calls of tools, an LlmError to raise, or a function of the question that gives one of them.
    """

    name = "scripted"

    def __init__(self, *answers: Scripted | Callable[[Question], Scripted]) -> None:
        self._answers = list(answers)
        self.questions: list[Question] = []

    async def ask(self, question: Question) -> Answer:
        """The next answer."""
        self.questions.append(question)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        answer = answer(question) if callable(answer) else answer
        if isinstance(answer, LlmError):
            raise answer
        usage = Usage(self.name)
        return Answer(answer, usage) if isinstance(answer, str) else Answer("", usage, tuple(answer))

    async def aclose(self) -> None:
        """Nothing is held."""
