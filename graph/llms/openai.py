"""OpenAI, or any server that speaks its chat completions. Every failure is an LlmError with a sentence.

Answers come as strict JSON schema and are checked again here: a server may ignore the schema, and a model may
name operations, services and evidence that do not exist.
"""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeVar, cast

import httpx
import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, OpenAIError
from openai.types.chat import ChatCompletion, ChatCompletionMessage
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from graph.llms.base import AnalysisRequest, LlmError, PlanRequest, Usage
from graph.llms.briefing import Briefing
from graph.llms.checked import (
    NotPossibleError,
    ProposedStep,
    changes_something,
    checked_option,
    checked_step,
)
from graph.llms.openai_settings import Settings
from graph.llms.playbooks import Category
from graph.masking import Masker, MaskingError
from graph.state import ActionOption, Claim, Hop, Rival, RootCause

_PROMPTS = Path(__file__).parents[1] / "prompts"
_MAX_TEXT = 600  # characters of one sentence or paragraph of an answer
_MAX_ITEMS = 8  # claims, rivals, unknowns, hops
_MAX_STEPS = 6


class _Draft(BaseModel):
    """What the model writes. Strict schemas want every field required and no others; so no defaults here."""

    model_config = ConfigDict(extra="forbid")


class _ClaimDraft(_Draft):
    text: str
    evidence: list[str]


class _RivalDraft(_Draft):
    component: str
    speaks_for: str
    speaks_against: str


class _CauseDraft(_Draft):
    component: str | None
    category: Category
    title: str
    claims: list[_ClaimDraft]
    mechanism: str
    path: list[str]
    rivals: list[_RivalDraft]
    unknowns: list[str]
    confidence: Literal["high", "medium", "low", "inconclusive"]


class _ParamDraft(_Draft):
    name: str
    value: int | float | str | list[int] | list[str]


class _StepDraft(_Draft):
    operation: str
    params: list[_ParamDraft]


class _OptionDraft(_Draft):
    title: str
    description: str
    why: list[str]
    steps: list[_StepDraft]


class _PlanDraft(_Draft):
    options: list[_OptionDraft]


D = TypeVar("D", bound=_Draft)


class OpenAIAnalyst:
    """Analyst by a model. Nothing leaves unmasked; nothing comes in unchecked."""

    def __init__(
        self,
        settings: Settings,
        masker: Masker,
        http: httpx.AsyncClient | None = None,
        tell: Callable[[Usage], None] = lambda _: None,
    ) -> None:
        """``tell`` hears what each answer cost, whether it could be used or not."""
        self._settings, self._briefing, self._tell = settings, Briefing(masker), tell
        self._client = AsyncOpenAI(
            api_key=settings.api_key.get_secret_value() if settings.api_key else "",
            base_url=settings.base_url,
            timeout=httpx2.Timeout(settings.timeout_s, connect=5.0),
            max_retries=1,
            # At run time both generations of httpx are accepted; the annotation knows only the newer one.
            http_client=cast("httpx2.AsyncClient", http or httpx.AsyncClient()),
        )

    @property
    def name(self) -> str:
        """The model's name."""
        return self._settings.model

    async def aclose(self) -> None:
        """Close the HTTP client."""
        await self._client.close()

    async def analyze(self, request: AnalysisRequest) -> RootCause:
        """The model's explanation; its claims are still to be grounded. Raises LlmError."""
        draft = await self._ask("root_cause_analyzer", self._brief(request), _CauseDraft)
        return _root_cause(draft, self.name)

    async def plan(self, request: PlanRequest) -> list[ActionOption]:
        """The model's options, as far as menu and catalogue allow them. Raises LlmError if none of them is left."""
        draft = await self._ask("action_planner", self._brief(request), _PlanDraft)
        options, complaints = _options(draft, request)
        if complaints and not options:
            raise LlmError(f"{self.name} proposed only what cannot be done: {'; '.join(complaints)[:300]}")
        return [option.model_copy(update={"engine": self.name}) for option in options]

    def _brief(self, request: AnalysisRequest | PlanRequest) -> str:
        try:
            if isinstance(request, AnalysisRequest):
                return self._briefing.analysis(request)
            return self._briefing.plan(request)
        except MaskingError as error:
            raise LlmError(f"{self.name} was not asked: {error}") from None

    async def _ask(self, prompt: str, brief: str, draft: type[D]) -> D:
        """One question, one answer of the draft's shape. Raises LlmError."""
        timeout_s = self._settings.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._complete(prompt, brief, draft)
        except (TimeoutError, APITimeoutError):
            raise LlmError(f"{self.name} timed out after {timeout_s:g} s") from None
        except APIStatusError as error:
            raise LlmError(f"{self.name} answered {_status(error)}") from None
        except (APIConnectionError, httpx.HTTPError) as error:
            raise LlmError(f"{self.name} cannot be reached ({type(error).__name__})") from None
        except (OpenAIError, ValueError) as error:
            raise LlmError(f"{self.name} gave no readable answer ({type(error).__name__})") from None
        self._count(answer)
        return self._read(answer, draft)

    def _count(self, answer: object) -> None:
        """A server that does not say what it used counts as free."""
        used = getattr(answer, "usage", None)
        tokens = [getattr(used, name, None) for name in ("prompt_tokens", "completion_tokens")]
        prompt, completion = (t if isinstance(t, int) and t > 0 else 0 for t in tokens)
        if prompt or completion:
            s = self._settings
            dollars = (prompt * s.dollars_per_million_input + completion * s.dollars_per_million_output) / 1e6
            self._tell(Usage(self.name, prompt, completion, round(dollars, 6)))

    async def _complete(self, prompt: str, brief: str, draft: type[D]) -> object:
        """The raw answer; declared as object, for a proxy may put anything in place of a completion."""
        answer: object = await self._client.chat.completions.create(
            model=self._settings.model,
            messages=[
                {"role": "system", "content": (_PROMPTS / f"{prompt}.md").read_text("utf-8")},
                {"role": "user", "content": brief},
            ],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": prompt, "schema": draft.model_json_schema(), "strict": True},
            },
            max_completion_tokens=self._settings.max_completion_tokens,
        )
        return answer

    def _read(self, answer: object, draft: type[D]) -> D:
        """The draft inside a completion. Raises LlmError."""
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            raise LlmError(f"{self.name} answered with something that is no completion")
        choice = answer.choices[0]
        # The library does not validate what it reads: a field may be missing whatever its type says.
        message: object = getattr(choice, "message", None)
        if not isinstance(message, ChatCompletionMessage):
            raise LlmError(f"{self.name} answered with something that is no completion")
        finish = getattr(choice, "finish_reason", None)
        if finish == "length":
            raise LlmError(f"{self.name} was cut off at the length limit")
        if finish == "content_filter":
            raise LlmError(f"{self.name} was stopped by its content filter")
        if message.refusal:
            raise LlmError(f"{self.name} refused: {_cut(str(message.refusal), 200)}")
        try:
            return draft.model_validate_json(str(message.content or ""))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the answer"
            raise LlmError(f"{self.name} answered out of shape: {where}: {first['msg'][:200]}") from None


def _status(error: APIStatusError) -> str:
    """Status and code; the provider's prose stays out, for it may quote parts of the key."""
    if error.code == "insufficient_quota":
        return f"{error.status_code}: its quota is used up"
    if error.code == "content_filter":
        return f"{error.status_code}: its content filter refused the question"
    return f"{error.status_code} ({error.code or type(error).__name__})"


def _root_cause(draft: _CauseDraft, engine: str) -> RootCause:
    """In our types; names and numbers are checked by grounding."""
    component = draft.component or None
    return RootCause(
        component=component,
        category=draft.category.value if component else Category.UNKNOWN.value,
        title=_cut(draft.title),
        mechanism=_cut(draft.mechanism, 2 * _MAX_TEXT),
        claims=tuple(
            Claim(text=_cut(c.text), evidence=tuple(c.evidence[:_MAX_ITEMS])) for c in draft.claims[:_MAX_ITEMS]
        ),
        path=_path(draft.path[:_MAX_ITEMS]) if component else (),
        rivals=tuple(
            Rival(component=r.component, for_=_cut(r.speaks_for), against=_cut(r.speaks_against))
            for r in draft.rivals[:_MAX_ITEMS]
        ),
        unknowns=tuple(_cut(unknown) for unknown in draft.unknowns[:_MAX_ITEMS]),
        confidence=draft.confidence if component else "inconclusive",
        engine=engine,
    )


def _path(names: list[str]) -> tuple[Hop, ...]:
    """Hops between neighbours, nothing of them checked yet."""
    return tuple(
        Hop(cause=cause, effect=effect, structural=False, statistical=False, temporal=False)
        for cause, effect in pairwise(names)
    )


def _options(draft: _PlanDraft, request: PlanRequest) -> tuple[list[ActionOption], list[str]]:
    """Up to three possible options that differ, and what was wrong with the others."""
    options: list[ActionOption] = []
    complaints: list[str] = []
    for proposed in draft.options:
        try:
            option = _option(proposed, request)
        except NotPossibleError as error:
            complaints.append(str(error))
            continue
        if option.steps not in [other.steps for other in options]:
            options.append(option)
    return options[:3], complaints


def _option(draft: _OptionDraft, request: PlanRequest) -> ActionOption:
    """All of the option or nothing: half a remedy is another remedy. Raises NotPossibleError."""
    if len(draft.steps) > _MAX_STEPS:
        raise NotPossibleError(f"{len(draft.steps)} steps are more than one option may have")
    steps = [checked_step(_proposed(step), request) for step in draft.steps]
    if not changes_something(steps, request.menu):
        raise NotPossibleError(f"«{_cut(draft.title, 80)}» changes nothing")
    why = [eid for eid in draft.why if request.evidence.finding(eid)]
    return checked_option(_cut(draft.title, 120), _cut(draft.description), why, steps, request.menu)


def _proposed(step: _StepDraft) -> ProposedStep:
    params: dict[str, JsonValue] = {param.name: cast("JsonValue", param.value) for param in step.params}
    return ProposedStep(step.operation, params)


def _cut(text: str, length: int = _MAX_TEXT) -> str:
    """Within bounds, and on one line: an answer is shown in tables and messages."""
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"
