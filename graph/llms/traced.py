"""A chat model whose calls OpenTelemetry sees: a client span for each, and two histograms.

Names and shapes are those of the semantic conventions for generative AI. Providers are passed in, none is global.
What was asked and answered is exported only where ``content`` gives a masker, for it goes to somebody else's store.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from opentelemetry.metrics import Histogram, Meter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from pydantic import JsonValue

from graph.llms.accounted import masked
from graph.llms.base import LlmError
from graph.llms.chat import Answer, ChatModel, Message, Question, ToolCall, Usage
from graph.masking import WITHHELD, Masker, MaskingError

INCIDENT, NODE, ROUND = "autopilot.incident.id", "autopilot.node", "autopilot.round"
# As the conventions advise.
TOKEN_BUCKETS = tuple(float(4**n) for n in range(14))
SECOND_BUCKETS = tuple(0.01 * 2**n for n in range(14))

Attributes = dict[str, str | int]


@dataclass(frozen=True)
class Endpoint:
    """What is asked: the provider by the conventions' name, e.g. ``openai``, where, and for how long an answer."""

    provider: str
    base_url: str
    max_tokens: int

    def attributes(self) -> Attributes:
        """Of a span and of a measurement."""
        parts = urlsplit(self.base_url)
        return {
            gen_ai.GEN_AI_PROVIDER_NAME: self.provider,
            SERVER_ADDRESS: parts.hostname or "",
            SERVER_PORT: parts.port or (80 if parts.scheme == "http" else 443),
        }


class TracedChatModel:
    """ChatModel around another: each question is a span ``chat {model}`` and counts in the histograms."""

    def __init__(
        self, inner: ChatModel, endpoint: Endpoint, tracer: Tracer, meter: Meter, content: Masker | None = None
    ) -> None:
        """``content``: export messages and answers too, masked by this masker once more."""
        self._inner, self._endpoint, self._tracer, self._content = inner, endpoint, tracer, content
        self._seconds = _histogram(meter, gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION, "s", SECOND_BUCKETS)
        self._tokens = _histogram(meter, gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, "{token}", TOKEN_BUCKETS)

    @property
    def name(self) -> str:
        """The inner model's."""
        return self._inner.name

    async def aclose(self) -> None:
        """Close the inner model."""
        await self._inner.aclose()

    async def ask(self, question: Question) -> Answer:
        """The inner model's answer. Raises LlmError."""
        with self._span(question) as (span, measured):
            if self._content:
                asked = [_asked(message) for message in question.messages]
                span.set_attribute(gen_ai.GEN_AI_INPUT_MESSAGES, await self._exported(asked, self._content))
            try:
                answer = await self._inner.ask(question)
            except LlmError as error:
                if error.usage:
                    self._count(error.usage, span, measured)
                raise
            self._count(answer.usage, span, measured)
            if self._content:
                said = await self._exported([_said(answer)], self._content)
                span.set_attribute(gen_ai.GEN_AI_OUTPUT_MESSAGES, said)
            return answer

    async def _exported(self, messages: Sequence[JsonValue], masker: Masker) -> str:
        """On a thread: masking takes a while."""
        return await asyncio.to_thread(_as_text, messages, masker)

    @contextmanager
    def _span(self, question: Question) -> Iterator[tuple[Span, Attributes]]:
        """The span, and the attributes that measurements have; both tell of an error that passes through."""
        measured = self._endpoint.attributes() | {
            gen_ai.GEN_AI_OPERATION_NAME: gen_ai.GenAiOperationNameValues.CHAT.value,
            gen_ai.GEN_AI_REQUEST_MODEL: self.name,
        }
        with self._tracer.start_as_current_span(
            f"chat {self.name}",
            kind=SpanKind.CLIENT,
            attributes=measured | self._asked(question),
            record_exception=False,  # a stack trace tells nothing here, and its text is not for everybody's eyes
            set_status_on_exception=False,
        ) as span:
            begun = time.monotonic()
            try:
                yield span, measured
            except BaseException as error:
                measured[ERROR_TYPE] = type(error).__qualname__
                span.set_attribute(ERROR_TYPE, measured[ERROR_TYPE])
                span.set_status(StatusCode.ERROR)
                raise
            finally:
                self._seconds.record(time.monotonic() - begun, measured)

    def _asked(self, question: Question) -> Attributes:
        purpose = question.purpose
        return {
            gen_ai.GEN_AI_REQUEST_MAX_TOKENS: self._endpoint.max_tokens,
            gen_ai.GEN_AI_OUTPUT_TYPE: gen_ai.GenAiOutputTypeValues.JSON.value,
            gen_ai.GEN_AI_CONVERSATION_ID: purpose.incident_id,
            INCIDENT: purpose.incident_id,
            NODE: purpose.node,
            ROUND: purpose.round_,
        }

    def _count(self, usage: Usage, span: Span, measured: Attributes) -> None:
        span.set_attribute(gen_ai.GEN_AI_RESPONSE_MODEL, usage.model)
        span.set_attribute(gen_ai.GEN_AI_USAGE_INPUT_TOKENS, usage.prompt_tokens)
        span.set_attribute(gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS, usage.completion_tokens)
        span.set_attribute(gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS, usage.cached_tokens)
        if usage.finish_reason:
            span.set_attribute(gen_ai.GEN_AI_RESPONSE_FINISH_REASONS, (usage.finish_reason,))
        measured[gen_ai.GEN_AI_RESPONSE_MODEL] = usage.model
        for kind, count in (("input", usage.prompt_tokens), ("output", usage.completion_tokens)):
            if count:  # zero is what a server does not tell
                self._tokens.record(count, measured | {gen_ai.GEN_AI_TOKEN_TYPE: kind})


def _histogram(meter: Meter, name: str, unit: str, buckets: Sequence[float]) -> Histogram:
    return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=buckets)


def _asked(message: Message) -> JsonValue:
    """One message in the conventions' shape: a role and parts."""
    if message.role == "tool":
        answer: JsonValue = {"type": "tool_call_response", "id": message.call_id, "response": message.content}
        return {"role": "tool", "parts": [answer]}
    return {"role": message.role, "parts": _parts(message.content, message.calls)}


def _said(answer: Answer) -> JsonValue:
    parts = _parts(answer.content, answer.calls)
    return {"role": "assistant", "parts": parts, "finish_reason": answer.usage.finish_reason}


def _parts(content: str, asked: Sequence[ToolCall]) -> list[JsonValue]:
    texts: list[JsonValue] = [{"type": "text", "content": content}] if content else []
    calls: list[JsonValue] = [
        {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments} for call in asked
    ]
    return texts + calls


def _as_text(messages: Sequence[JsonValue], masker: Masker) -> str:
    """As JSON, masked."""
    try:
        return json.dumps([masked(message, masker) for message in messages], ensure_ascii=False)
    except MaskingError:
        return json.dumps([{"role": "user", "parts": [{"type": "text", "content": WITHHELD}]}])
