"""The official fake: an analyst that says what it is told."""

import asyncio
from collections.abc import Sequence

from graph.llms.base import AnalysisRequest, LlmError, PlanRequest
from graph.state import ActionOption, RootCause


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

    async def analyze(self, request: AnalysisRequest) -> RootCause:
        """The scripted root cause; LlmError if there is none."""
        self.analyses.append(request)
        await self._wait()
        if self._root_cause is None:
            raise LlmError("no root cause was scripted")
        return self._root_cause

    async def plan(self, request: PlanRequest) -> list[ActionOption]:
        """The scripted options."""
        self.plans.append(request)
        await self._wait()
        return list(self._options)

    async def _wait(self) -> None:
        await asyncio.sleep(self._delay_s)
        if self._error is not None:
            raise self._error
