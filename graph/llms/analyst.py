"""A chat model as Analyst: it may ask for more, and code tells it what does not hold, once.

Every question stands alone: the brief is written anew with what the model asked for, so that no conversation grows,
and none needs more than ``input_tokens``. A model's answers are never authority: reads go through the menu of
``AnalysisRequest.reads``, sentences through ``graph/grounding.py``, steps through ``graph/llms/checked.py``.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from collectors._jobs import on_thread
from collectors.base import LogsRead, MetricRead, Read, TraceRead
from graph.grounding import complaints, extended, ground, known_components
from graph.llms.accounted import estimated_tokens
from graph.llms.base import Analysis, AnalysisRequest, LlmError, PlanRequest, Proposal, ReadRefused
from graph.llms.briefing import Asked, Briefing, Rejected
from graph.llms.chat import Answer, ChatModel, Message, Node, Purpose, Question, Tool, ToolCall
from graph.llms.drafts import CauseDraft, PlanDraft, Schema, options, plan_schema, read_tools, root_cause
from graph.llms.playbooks import say
from graph.llms.precedents import with_precedents
from graph.llms.preference import ordered
from graph.masking import Masker, MaskingError
from graph.state import Evidence, Finding, Language, RootCause

MAX_ROUNDS = 3  # of questions to the collectors
MAX_READS = 3  # in one round
LEAST_BRIEF = 800  # tokens; with less, a brief says nothing
_PROMPTS = Path(__file__).parents[1] / "prompts"
_LANGUAGES: Mapping[Language, str] = {"en": "English", "ko": "Korean (한국어)"}
_READS: Mapping[str, type[LogsRead] | type[MetricRead] | type[TraceRead]] = {
    "search_logs": LogsRead,
    "read_metric": MetricRead,
    "read_trace": TraceRead,
}
_FILES: Mapping[Node, str] = {"RootCauseAnalyzer": "root_cause_analyzer", "ActionPlanner": "action_planner"}

D = TypeVar("D", bound=BaseModel)


def prompt(node: str, language: Language) -> str:
    """The standing instructions of a node: the file of ``graph/prompts`` with its name."""
    return (_PROMPTS / f"{node}.md").read_text("utf-8").replace("{language}", _LANGUAGES[language])


class ModelAnalyst:
    """Analyst by a chat model.

    ``input_tokens``: what one question may take, instructions, schemas and brief together. ``seconds``: after that
    nothing more is asked for, and no answer is sent back; one question has its own, shorter bound in ``chat``.
    """

    def __init__(self, chat: ChatModel, masker: Masker, *, input_tokens: int = 6_000, seconds: float = 120.0) -> None:
        self._chat, self._briefing = chat, Briefing(masker)
        self._input_tokens, self._seconds = input_tokens, seconds

    @property
    def name(self) -> str:
        """The model's."""
        return self._chat.name

    async def analyze(self, request: AnalysisRequest) -> Analysis:
        """The explanation, and what was asked for; sent back once if claims of it do not hold. Raises LlmError."""
        inquiry = _Inquiry(request, self._ends())
        draft = await self._answered(inquiry)
        first = await self._grounded(draft, inquiry)
        wrong = complaints(first)
        if not wrong or inquiry.over:
            return Analysis(first, tuple(inquiry.found))
        try:
            second = await self._sent_back(inquiry, first, wrong)
        except LlmError:
            return Analysis(first, tuple(inquiry.found))  # what held still holds, and the rest is marked
        return Analysis(_better(first, second), tuple(inquiry.found), first=first)

    async def plan(self, request: PlanRequest) -> Proposal:
        """The model's options, as far as menu and catalogue allow them; sent back once. Raises LlmError."""
        ends, schema = self._ends(), plan_schema(request)
        if not schema:
            return Proposal()
        possible, wrong = options(await self._planned(request, schema, ()), request, self.name)
        if wrong and not _over(ends):
            try:
                again, wrong_again = options(await self._planned(request, schema, wrong), request, self.name)
            except LlmError:
                again, wrong_again = [], []
            if again or not possible:
                possible, wrong = again, wrong_again
        dropped = tuple(say("dropped", request.language, reason=reason) for reason in wrong)
        return Proposal(tuple(ordered(with_precedents(possible, request), request)), dropped)

    # --- analysis ---

    async def _answered(self, inquiry: "_Inquiry") -> CauseDraft:
        """The draft, after up to three rounds of reads. One that has no shape is asked for again, once."""
        for round_ in range(MAX_ROUNDS + 1):
            tools = inquiry.tools if round_ < MAX_ROUNDS and not inquiry.over else ()
            answer = await self._ask_cause(inquiry, tools)
            if not (answer.calls and tools):
                break
            await inquiry.read(answer.calls)
        try:
            return self._read(answer, CauseDraft)
        except LlmError:
            if inquiry.over:
                raise
            return self._read(await self._ask_cause(inquiry, ()), CauseDraft)

    async def _sent_back(self, inquiry: "_Inquiry", first: RootCause, wrong: Sequence[str]) -> RootCause:
        answer = await self._ask_cause(inquiry, (), Rejected(first, wrong))
        return await self._grounded(self._read(answer, CauseDraft), inquiry)

    async def _ask_cause(
        self,
        inquiry: "_Inquiry",
        tools: tuple[Tool, ...],
        rejected: Rejected | None = None,
    ) -> Answer:
        write = partial(
            self._briefing.analysis, inquiry.request, inquiry.evidence, asked=inquiry.asked, rejected=rejected
        )
        return await self._ask("RootCauseAnalyzer", inquiry.request, write, CauseDraft, tools=tools)

    async def _grounded(self, draft: CauseDraft, inquiry: "_Inquiry") -> RootCause:
        """As code sees it; what it does not hold true is marked."""
        answer, evidence = root_cause(draft, self.name, inquiry.request.language), inquiry.evidence
        return await on_thread(ground, answer, evidence, known_components(inquiry.request.scope, evidence))

    # --- plan ---

    async def _planned(self, request: PlanRequest, schema: Schema, rejected: Sequence[str]) -> PlanDraft:
        write = partial(self._briefing.plan, request, rejected=rejected)
        answer = await self._ask("ActionPlanner", request, write, PlanDraft, schema=schema)
        return self._read(answer, PlanDraft)

    # --- both ---

    async def _ask(
        self,
        node: Node,
        request: AnalysisRequest | PlanRequest,
        write: Callable[..., str],
        answer: type[BaseModel],
        *,
        tools: tuple[Tool, ...] = (),
        schema: Schema | None = None,
    ) -> Answer:
        """One question, with a brief that ``write(size=…)`` fits into what the rest of it leaves. Raises LlmError."""
        purpose = Purpose(node, request.incident_id, request.round_)
        bare = Question(purpose, _turns(prompt(_FILES[node], request.language), ""), answer, tools, schema)
        size = self._input_tokens - estimated_tokens(bare)
        if size < LEAST_BRIEF:
            raise LlmError(
                f"{self.name} was not asked: of {self._input_tokens} input tokens {size} are left for the incident;"
                " raise AUTOPILOT_MODEL_INPUT_TOKENS"
            )
        try:
            brief = await on_thread(partial(write, size=size))
        except MaskingError as error:
            raise LlmError(f"{self.name} was not asked: {error}") from None
        return await self._chat.ask(replace(bare, messages=_turns(bare.messages[0].content, brief)))

    def _read(self, answer: Answer, draft: type[D]) -> D:
        try:
            return draft.model_validate_json(answer.content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            raise LlmError(f"{self.name} answered out of shape: {where[:100]}: {first['msg'][:200]}") from None

    def _ends(self) -> float:
        return asyncio.get_running_loop().time() + self._seconds


class _Inquiry:
    """One analysis under way: what was asked for so far, and what it found."""

    def __init__(self, request: AnalysisRequest, ends: float) -> None:
        self.request, self._ends = request, ends
        self.asked: list[Asked] = []
        self.found: list[Finding] = []

    @property
    def over(self) -> bool:
        return _over(self._ends)

    @property
    def evidence(self) -> Evidence:
        """What can be cited by now."""
        return extended(self.request.evidence, self.found)

    @property
    def tools(self) -> tuple[Tool, ...]:
        return read_tools(self.request.reads.menu) if self.request.reads else ()

    async def read(self, calls: Sequence[ToolCall]) -> None:
        """Ask the collectors. A call that may not be made is told so."""
        for call in calls[:MAX_READS]:
            self.asked.append(await self._one(call))
        left_out = len(calls) - MAX_READS
        if left_out > 0:
            self.asked.append(Asked(f"{left_out} more", refused=f"no more than {MAX_READS} questions at a time"))

    async def _one(self, call: ToolCall) -> Asked:
        shown = f"{call.name} {call.arguments}"
        try:
            question = _question(call)
            assert self.request.reads is not None  # without it no tool was offered
            findings = await self.request.reads.read(question)
        except ReadRefused as error:
            return Asked(shown, refused=str(error))
        known = {finding.id for finding in self.evidence.findings}
        self.found += [finding for finding in findings if finding.id not in known]
        return Asked(shown, found=tuple(finding.id for finding in findings))


def _question(call: ToolCall) -> Read:
    """What a tool call asks for. Raises ReadRefused."""
    shape = _READS.get(call.name)
    if shape is None:
        raise ReadRefused(f"there is no tool {call.name[:60]!r}; there are {', '.join(_READS)}")
    try:
        return shape.model_validate_json(call.arguments)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ReadRefused(f"{'.'.join(map(str, first['loc']))[:60]}: {first['msg'][:200]}") from None


def _better(first: RootCause, second: RootCause) -> RootCause:
    """The second answer, unless it gave up what held."""
    if second.component is None and first.component is not None:
        return first
    held = [sum(claim.verified for claim in answer.claims) for answer in (first, second)]
    return second if held[1] or not held[0] else first


def _turns(system: str, brief: str) -> tuple[Message, ...]:
    return Message("system", system), Message("user", brief)


def _over(ends: float) -> bool:
    return asyncio.get_running_loop().time() >= ends
