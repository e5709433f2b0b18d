"""A chat model that costs no more than it may, and whose every call is on record.

Before a call the most it can cost is reserved in a ``CallLog`` that all processes share; what it did cost takes the
reservation's place. So caps hold however many incidents ask at once, and also when a process dies: a call that nobody
came back from keeps its reservation. The prompt's size is an estimate (``graph/llms/tokens.py``), so one call may go
over a cap by as much as the estimate is wrong; the next one is refused.

If the log cannot be reached before a call, the call is not made. If it cannot be reached after one, the answer is
used, the reservation stands in the place of the figures, and the figures go to the process's log.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Protocol

from pydantic import JsonValue

from graph.llms.base import LlmError
from graph.llms.chat import Answer, ChatModel, Message, Purpose, Question, ToolCall, Usage
from graph.llms.tokens import conversation_tokens, tokens
from graph.masking import WITHHELD, Masker, MaskingError
from graph.progress import Progress

log = logging.getLogger(__name__)

Json = dict[str, JsonValue]

_NEVER = "an incident's share is not filled up again"
_MIDNIGHT = "the day's share is free again at 00:00 UTC"
_SEEN = 0.4  # of the estimate; of Korean, which is estimated highest, a server counts 0.54 of it
_CUT = "its server cannot have read the whole question: raise its context (Ollama: num_ctx)"


class CapReached(Exception):
    """A call may cost more than is left. The text names the setting, what is spent, and when it is free again."""


class LogUnavailable(Exception):
    """The log of calls cannot be reached; the text says why."""


@dataclass(frozen=True)
class Spent:
    """What calls cost so far, with what is reserved for those under way. The day is UTC's."""

    incident_tokens: int = 0
    incident_dollars: float = 0.0
    day_dollars: float = 0.0


@dataclass(frozen=True)
class Caps:
    """How much may be spent; None: as much as it takes."""

    tokens_per_incident: int | None = None
    dollars_per_incident: float | None = None
    dollars_per_day: float | None = None

    def check(self, spent: Spent, most: "Most") -> None:
        """Whether a call that costs ``most`` may be made. Raises CapReached."""
        for setting, cap, used, more, free in (
            ("MODEL_TOKENS_PER_INCIDENT", self.tokens_per_incident, spent.incident_tokens, most.tokens, _NEVER),
            ("MODEL_DOLLARS_PER_INCIDENT", self.dollars_per_incident, spent.incident_dollars, most.dollars, _NEVER),
            ("INVESTIGATION_DOLLARS_PER_DAY", self.dollars_per_day, spent.day_dollars, most.dollars, _MIDNIGHT),
        ):
            if cap is not None and used + more > cap:
                raise CapReached(
                    f"AUTOPILOT_{setting} is {_amount(cap)}, {_amount(used)} are spent or reserved,"
                    f" and this call may take {_amount(more)}; {free}"
                )


@dataclass(frozen=True)
class Most:
    """The most that one call can cost."""

    tokens: int
    dollars: float


@dataclass(frozen=True)
class Prices:
    """List prices in dollars for a million tokens, and the longest answer in tokens."""

    input: float
    output: float
    max_completion_tokens: int

    def dollars(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Of one call."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / 1e6

    def most(self, prompt_tokens: int) -> Most:
        """Of a call with a prompt of that size."""
        longest = self.max_completion_tokens
        return Most(prompt_tokens + longest, self.dollars(prompt_tokens, longest))


@dataclass(frozen=True)
class PlannedCall:
    """A call that is about to be made. ``messages`` are masked, as JSON in the shape of chat completions."""

    purpose: Purpose
    model: str
    prompt_sha256: str
    messages: list[Json]
    most: Most


@dataclass(frozen=True)
class Outcome:
    """What came of a call. ``answer`` is masked; None: there was none, and ``error`` says why.

    ``usage`` is of the last attempt, None where nobody knows it; ``estimated``: its server did not tell all of it.
    For each of ``lost_attempts``, whose cost nobody knows, as much stays reserved as was reserved.
    """

    usage: Usage | None
    seconds: float
    answer: Json | None = None
    estimated: bool = False
    error: str = ""
    lost_attempts: int = 0


class CallLog(Protocol):
    """Every call of a model, kept in one place by all processes."""

    async def reserve(self, call: PlannedCall, caps: Caps) -> str:
        """Put a call on record with the most it can cost; its id. Raises CapReached, LogUnavailable: it is not."""

    async def record(self, call_id: str, outcome: Outcome) -> None:
        """What came of it. Raises LogUnavailable: the reservation stands."""


class MemoryCallLog:
    """CallLog of one process, for Studio and evaluations. ``calls`` and ``outcomes`` are by id."""

    def __init__(self) -> None:
        self.calls: dict[str, PlannedCall] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._days: dict[str, date] = {}

    async def reserve(self, call: PlannedCall, caps: Caps) -> str:
        """See CallLog."""
        caps.check(self.spent(call.purpose.incident_id), call.most)
        call_id = str(len(self.calls) + 1)
        self.calls[call_id], self._days[call_id] = call, datetime.now(UTC).date()
        return call_id

    async def record(self, call_id: str, outcome: Outcome) -> None:
        """See CallLog."""
        self.outcomes[call_id] = outcome

    def spent(self, incident_id: str) -> Spent:
        """By that incident, and today by all."""
        today = datetime.now(UTC).date()
        costs = {call_id: self._cost(call_id) for call_id in self.calls}
        of_incident = [cost for i, cost in costs.items() if self.calls[i].purpose.incident_id == incident_id]
        return Spent(
            incident_tokens=sum(cost.tokens for cost in of_incident),
            incident_dollars=sum(cost.dollars for cost in of_incident),
            day_dollars=sum(cost.dollars for i, cost in costs.items() if self._days[i] == today),
        )

    def _cost(self, call_id: str) -> Most:
        most, outcome = self.calls[call_id].most, self.outcomes.get(call_id)
        if outcome is None:
            return most
        used, lost = outcome.usage or Usage(""), outcome.lost_attempts
        tokens_used = used.prompt_tokens + used.completion_tokens
        return Most(tokens_used + lost * most.tokens, used.dollars + lost * most.dollars)


def _silent(_: Progress) -> None:
    """Nobody listens: no graph runs."""


class AccountedChatModel:
    """ChatModel around another: hard caps, and every call on record."""

    def __init__(
        self,
        inner: ChatModel,
        calls: CallLog,
        caps: Caps,
        prices: Prices,
        masker: Masker,
        tell: Callable[[Progress], None] = _silent,
    ) -> None:
        """``masker`` is for the record; ``tell`` hears one line for each call, and one where a cap refused it."""
        self._inner, self._calls, self._caps, self._prices = inner, calls, caps, prices
        self._masker, self._tell = masker, tell

    @property
    def name(self) -> str:
        """The inner model's."""
        return self._inner.name

    async def aclose(self) -> None:
        """Close the inner model."""
        await self._inner.aclose()

    async def ask(self, question: Question) -> Answer:
        """The inner model's answer. Raises LlmError: also where a cap, or a log out of reach, forbids the call."""
        prompt_tokens = estimated_tokens(question)
        call_id = await self._reserve(question, prompt_tokens)
        begun = time.monotonic()
        try:
            answer = await self._inner.ask(question)
        except LlmError as error:
            await self._record(question, call_id, self._failure(error, time.monotonic() - begun))
            raise
        seconds = time.monotonic() - begun
        estimated = not (answer.usage.prompt_tokens and answer.usage.completion_tokens)
        usage = self._estimate(answer, prompt_tokens) if estimated else answer.usage
        kept = await asyncio.to_thread(self._kept, answer)
        outcome = Outcome(usage, seconds, answer=kept, estimated=estimated, lost_attempts=answer.lost_attempts)
        await self._record(question, call_id, outcome)
        return replace(answer, usage=usage)

    async def _reserve(self, question: Question, prompt_tokens: int) -> str:
        """The call's id. Raises LlmError."""
        messages = await asyncio.to_thread(lambda: [self._masked(as_json(message)) for message in question.messages])
        most = self._prices.most(prompt_tokens)
        call = PlannedCall(question.purpose, self.name, prompt_sha256(question), messages, most)
        nothing = Usage(self.name)
        try:
            return await self._calls.reserve(call, self._caps)
        except CapReached as refusal:
            reason = f"{self.name} was not asked: {refusal}"
            self._tell(_refused(question.purpose, reason))
            raise LlmError(reason, nothing) from None
        except LogUnavailable as error:
            raise LlmError(f"{self.name} was not asked: its cost could not be reserved ({error})", nothing) from None

    async def _record(self, question: Question, call_id: str, outcome: Outcome) -> None:
        purpose = question.purpose
        try:
            await self._calls.record(call_id, outcome)
        except LogUnavailable as error:
            log.warning(
                "call %s of %s for %s is not on record beyond its reservation (%s): %s",
                *(call_id, self.name, purpose.incident_id, error, _cost_in_words(outcome)),
            )
        self._tell(_called(self.name, purpose, call_id, outcome, _seen_in_part(question, outcome.usage)))

    def _estimate(self, answer: Answer, prompt_tokens: int) -> Usage:
        """What an answer cost, with what its server does not tell: of prompt and completion one, or both."""
        told = answer.usage
        prompt = 0 if told.prompt_tokens else prompt_tokens
        completion = 0 if told.completion_tokens else _answer_tokens(answer)
        return replace(
            told,
            prompt_tokens=told.prompt_tokens + prompt,
            completion_tokens=told.completion_tokens + completion,
            dollars=round(told.dollars + self._prices.dollars(prompt, completion), 6),
        )

    def _failure(self, error: LlmError, seconds: float) -> Outcome:
        """Masked too: the text of a refusal is the model's."""
        told = self._masked(as_json(Message("assistant", str(error))))["content"]
        return Outcome(error.usage, seconds, error=str(told), lost_attempts=error.lost_attempts)

    def _kept(self, answer: Answer) -> Json:
        return self._masked(as_json(Message("assistant", answer.content, answer.calls)))

    def _masked(self, message: Json) -> Json:
        """What cannot be masked is withheld."""
        try:
            return {key: masked(value, self._masker) for key, value in message.items()}
        except MaskingError:
            return {"role": message["role"], "content": WITHHELD}


def masked(value: JsonValue, masker: Masker) -> JsonValue:
    """With every text in it masked. Raises MaskingError."""
    if isinstance(value, str):
        return masker.mask(value)
    if isinstance(value, list):
        return [masked(item, masker) for item in value]
    if isinstance(value, dict):
        return {key: masked(item, masker) for key, item in value.items()}
    return value


def estimated_tokens(question: Question) -> int:
    """Of the prompt: messages, tools and schema."""
    return _message_tokens(question) + tokens(_attached(question))


def _seen_in_part(question: Question, usage: Usage | None) -> bool:
    """Whether the server tells of so few tokens that it cannot have seen all messages.

    Ollama cuts a prompt to its context and does not say so. Not every server counts schema and tools.
    """
    return usage is not None and 0 < usage.prompt_tokens < _SEEN * _message_tokens(question)


def _message_tokens(question: Question) -> int:
    texts = [f"{m.content}{''.join(call.name + call.arguments for call in m.calls)}" for m in question.messages]
    return conversation_tokens(texts)


def _answer_tokens(answer: Answer) -> int:
    """Of text and calls, estimated."""
    return tokens(answer.content) + sum(tokens(call.name + call.arguments) for call in answer.calls)


def prompt_sha256(question: Question) -> str:
    """The same for the same messages, tools and schema."""
    messages = json.dumps([as_json(message) for message in question.messages], sort_keys=True)
    return sha256(f"{messages}\n{_attached(question)}".encode("utf-8", "replace")).hexdigest()


def as_json(message: Message) -> Json:
    """One message in the shape of chat completions."""
    shape: Json = {"role": message.role, "content": message.content}
    if message.calls:
        shape["tool_calls"] = [_call_as_json(call) for call in message.calls]
    if message.call_id:
        shape["tool_call_id"] = message.call_id
    return shape


def _call_as_json(call: ToolCall) -> JsonValue:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _attached(question: Question) -> str:
    """What goes along with the messages."""
    schema = question.schema if question.schema is not None else question.answer.model_json_schema()
    tools = [[tool.name, tool.description, dict(tool.parameters)] for tool in question.tools]
    return json.dumps([dict(schema), tools], sort_keys=True)


def _called(model: str, purpose: Purpose, call_id: str, outcome: Outcome, in_part: bool) -> Progress:
    cut = f"; {_CUT}" if in_part else ""
    failed = f"; no answer: {outcome.error}" if outcome.error else ""
    data: Json = {"call": call_id, "seconds": round(outcome.seconds, 3)}
    if usage := outcome.usage:
        data["dollars"] = usage.dollars
        data |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return Progress(
        key=f"usage:{call_id}",
        kind="usage",
        node=purpose.node,
        message=f"{usage.model if usage else model}: {_cost_in_words(outcome)}{cut}{failed}",
        data=data,
    )


def _refused(purpose: Purpose, reason: str) -> Progress:
    key = f"usage_refused:{purpose.node}:{purpose.round_}"
    return Progress(key=key, kind="usage_refused", node=purpose.node, message=reason)


def _cost_in_words(outcome: Outcome) -> str:
    usage, lost = outcome.usage, outcome.lost_attempts
    if usage is None:
        return "what it cost is not known, so the most it can cost is counted"
    said = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens, {usage.dollars:.4f} dollars"
    said += " (estimated: its server does not tell)" if outcome.estimated else ""
    return f"{said}, and for an attempt that broke off the most it can cost" if lost else said


def _amount(number: float) -> str:
    """Tokens as they are, dollars with cents and, where there are any, their parts."""
    return f"{number}" if isinstance(number, int) else f"{number:.4f}"
