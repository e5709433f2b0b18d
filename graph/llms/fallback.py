"""A model with the rules engine behind it: whatever the model does, there is an answer, marked with its engine."""

from dataclasses import replace

from collectors._jobs import on_thread
from graph.grounding import extended, ground, known_components
from graph.llms.base import Analysis, AnalysisRequest, Analyst, LlmError, PlanRequest, Proposal
from graph.llms.playbooks import say
from graph.state import Language, RootCause


class FallbackAnalyst:
    """Asks ``primary``; if that fails, or says nothing that the evidence supports, asks ``rules``."""

    def __init__(self, primary: Analyst, rules: Analyst) -> None:
        self._primary, self._rules = primary, rules

    @property
    def name(self) -> str:
        """The primary's name; who really answered stands in the answer."""
        return self._primary.name

    async def analyze(self, request: AnalysisRequest) -> Analysis:
        """The primary's root cause, or the rules engine's with ``engine_note`` saying why."""
        try:
            answer = await self._primary.analyze(request)
        except LlmError as error:
            return await self._rules_cause(request, str(error))
        evidence = extended(request.evidence, answer.findings)
        grounded = await on_thread(ground, answer.root_cause, evidence, known_components(request.scope, evidence))
        if _holds_nothing(answer.root_cause, grounded):
            return await self._rules_cause(request, say("nothing_supported", request.language, model=self.name))
        return answer

    async def plan(self, request: PlanRequest) -> Proposal:
        """The primary's options, or the rules engine's with ``engine_note`` saying why."""
        try:
            proposal = await self._primary.plan(request)
        except LlmError as error:
            return await self._rules_options(request, str(error))
        if not proposal.options:
            return await self._rules_options(
                request, say("no_action_proposed", request.language, model=self.name), proposal.notes
            )
        return proposal

    async def _rules_cause(self, request: AnalysisRequest, reason: str) -> Analysis:
        answer = await self._rules.analyze(request)
        marks = {"engine": self._rules.name, "engine_note": _note(reason, request.language)}
        return replace(answer, root_cause=answer.root_cause.model_copy(update=marks))

    async def _rules_options(self, request: PlanRequest, reason: str, notes: tuple[str, ...] = ()) -> Proposal:
        marks = {"engine": self._rules.name, "engine_note": _note(reason, request.language)}
        proposal = await self._rules.plan(request)
        options = tuple(option.model_copy(update=marks) for option in proposal.options)
        return Proposal(options, (*notes, *proposal.notes))


def _note(reason: str, language: Language) -> str:
    return say("rules_answered", language, reason=reason.rstrip("."))


def _holds_nothing(answer: RootCause, grounded: RootCause) -> bool:
    """A cause was named, but it does not exist, or no claim of it holds."""
    if answer.component is None:
        return False
    return grounded.component is None or not any(claim.verified for claim in grounded.claims)
