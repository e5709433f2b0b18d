"""A chat completion as it comes over the wire, and what is told of it. Nothing in it is taken for granted."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from pydantic import BaseModel, Field, JsonValue, ValidationError

from graph.llms.base import LlmError
from graph.llms.chat import Answer, ToolCall, Usage
from graph.llms.openai_settings import Settings

_CUT = {"length", "max_tokens", "model_length"}  # as OpenAI, Anthropic's and Mistral's servers say it
_LONGEST_REFUSAL = 200  # characters
_MOST_TOKENS = 100_000_000  # in one call; a server that tells more is not believed
_MODEL = re.compile(r"[\w.:/@-]{1,100}\Z", re.ASCII)  # what looks like a name
_MOST_OBJECTS = 8  # looked for in an answer that is not only JSON


class _Function(BaseModel):
    name: str = ""
    arguments: JsonValue = ""


class _Call(BaseModel):
    id: str | None = None
    function: _Function | None = None


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(BaseModel):
    message: _Message | None = None
    finish_reason: str | None = None


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    model: JsonValue = None
    usage: JsonValue = None


@dataclass(frozen=True)
class Reader:
    """Reads the answers to one question, which took ``seconds``."""

    settings: Settings
    seconds: float

    def read(self, body: bytes) -> Answer:
        """The first choice. Raises LlmError, with what the answer cost where its server tells that."""
        try:
            completion = _Completion.model_validate_json(body)
        except ValidationError:
            raise self._failed(self._no_completion(body)) from None
        choice = completion.choices[0]
        usage = self._usage(completion, choice.finish_reason or "")
        content, calls = self._said(choice, usage)
        return Answer(_json_of(content), usage, calls)

    def _said(self, choice: _Choice, usage: Usage) -> tuple[str, tuple[ToolCall, ...]]:
        """Text and calls of tools, of which there is one at least."""
        message = choice.message or _Message()
        if choice.finish_reason == "content_filter":
            raise self._failed("was stopped by its content filter", usage)
        if choice.finish_reason in _CUT:
            raise self._failed("was cut off at the length limit (OPENAI_MAX_COMPLETION_TOKENS)", usage)
        if message.refusal:
            raise self._failed(f"refused: {_line(message.refusal)}", usage)
        calls = tuple(_calls(message))
        if not message.content and not calls:
            raise self._failed("answered with something that is no completion: neither text nor a call", usage)
        return message.content or "", calls

    def _no_completion(self, body: bytes) -> str:
        """What came in place of a completion, in words of ours: it may be anybody's page."""
        if not body.strip():
            return "gave an empty answer"
        if b"<html" in body[:2_000].lower():
            return "answered with a web page, which is no completion; check OPENAI_BASE_URL"
        if body.lstrip().startswith(b'{"error"'):
            return "answered with an error in place of a completion, though with a status of success"
        return "answered with something that is no completion"

    def _usage(self, completion: _Completion, finish_reason: str) -> Usage:
        """Tokens that a server does not tell are 0, and so is the money: an estimate would look like a bill."""
        used = completion.usage if isinstance(completion.usage, dict) else {}
        details = used.get("prompt_tokens_details")
        prompt, answer = _count(used.get("prompt_tokens")), _count(used.get("completion_tokens"))
        cached = min(_count(details.get("cached_tokens")) if isinstance(details, dict) else 0, prompt)
        dollars = self.settings.dollars(prompt, answer, cached)
        return Usage(self._model(completion), prompt, answer, cached, dollars, self.seconds, finish_reason[:60])

    def _model(self, completion: _Completion) -> str:
        """Which one answered: the snapshot behind an alias, the model behind Azure's name of a deployment."""
        told = completion.model
        return told if isinstance(told, str) and _MODEL.match(told) else self.settings.model

    def _failed(self, said: str, usage: Usage | None = None) -> LlmError:
        told = usage if usage and (usage.prompt_tokens or usage.completion_tokens) else None
        return LlmError(f"{self.settings.model} {said}", told)


def _count(value: JsonValue) -> int:
    """Whole tokens, also where they come as 12.0; 0 for whatever cannot be believed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= _MOST_TOKENS:
        return 0
    return ceil(value)


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _LONGEST_REFUSAL else f"{flat[: _LONGEST_REFUSAL - 1]}…"


def _calls(message: _Message) -> Iterator[ToolCall]:
    """As the model wrote them. A server may leave out their ids, or give arguments that are JSON already."""
    for number, call in enumerate(message.tool_calls or ()):
        if call.function is not None and call.function.name:
            arguments = call.function.arguments
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            yield ToolCall(call.id or f"call_{number}", call.function.name, text)


def _json_of(content: str) -> str:
    """The longest JSON object in the text; the text itself where there is none.

    Models fence it, introduce it, or think aloud before it, whatever was asked for.
    """
    text = content.strip()
    if text.startswith("<think>"):
        text = text.partition("</think>")[2].lstrip()
    return max(_objects(text), key=len, default=content)


def _objects(text: str) -> Iterator[str]:
    decoder, start = json.JSONDecoder(), text.find("{")
    tries = 1 if start == 0 else _MOST_OBJECTS  # a part of broken JSON is not the answer
    for _ in range(tries):
        if start < 0:
            return
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield text[start:end]
        start = text.find("{", end)
