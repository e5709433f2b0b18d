"""A model with the rules engine behind it: whatever the model does, there is an answer, marked with its engine."""

from graph.grounding import ground, known_components
from graph.llms.base import AnalysisRequest, Analyst, LlmError, PlanRequest
from graph.state import ActionOption, RootCause


class FallbackAnalyst:
    """Asks ``primary``; if that fails, or says nothing that the evidence supports, asks ``rules``."""

    def __init__(self, primary: Analyst, rules: Analyst) -> None:
        self._primary, self._rules = primary, rules

    @property
    def name(self) -> str:
        """The primary's name; who really answered stands in the answer."""
        return self._primary.name

    async def analyze(self, request: AnalysisRequest) -> RootCause:
        """The primary's root cause, or the rules engine's with ``engine_note`` saying why."""
        try:
            answer = await self._primary.analyze(request)
        except LlmError as error:
            return await self._rules_cause(request, str(error))
        grounded = ground(answer, request.evidence, known_components(request.scope, request.evidence))
        if _holds_nothing(answer, grounded):
            return await self._rules_cause(request, f"{self.name} said nothing that the evidence supports")
        return answer

    async def plan(self, request: PlanRequest) -> list[ActionOption]:
        """The primary's options, or the rules engine's with ``engine_note`` saying why."""
        try:
            options = await self._primary.plan(request)
        except LlmError as error:
            return await self._rules_options(request, str(error))
        if not options:
            return await self._rules_options(request, f"{self.name} proposed no action")
        return options

    async def _rules_cause(self, request: AnalysisRequest, reason: str) -> RootCause:
        answer = await self._rules.analyze(request)
        return answer.model_copy(update={"engine": self._rules.name, "engine_note": _note(reason)})

    async def _rules_options(self, request: PlanRequest, reason: str) -> list[ActionOption]:
        marks = {"engine": self._rules.name, "engine_note": _note(reason)}
        return [option.model_copy(update=marks) for option in await self._rules.plan(request)]


def _note(reason: str) -> str:
    return f"{reason.rstrip('.')}; the rules engine answered"


def _holds_nothing(answer: RootCause, grounded: RootCause) -> bool:
    """A cause was named, but it does not exist, or no claim of it holds."""
    if answer.component is None:
        return False
    return grounded.component is None or not any(claim.verified for claim in grounded.claims)
