"""What a server of chat completions understands: how a question is put to it, and what it turned out not to take.

Servers call themselves compatible and differ in the details. A profile says what is known beforehand; a 400 or 422
that complains about a parameter takes that parameter away, for as long as the process lives.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from pydantic import BaseModel, JsonValue

from graph.llms.chat import Message, Question, Tool
from graph.llms.openai_settings import RUNGS, ProfileName, Rung, Settings
from graph.llms.strict_schema import strict_schema

Request = Mapping[str, object]


@dataclass(frozen=True)
class Profile:
    """How a kind of server differs.

    ``leave_out``: parameters it does not take, by their names on the wire; ``strict`` is that of tools. ``length``:
    what bounds an answer, the other name being tried where that is refused. ``tools_with_schema``: whether a question
    may offer tools and ask for a schema at once; where a schema steers the decoder, no tool would ever be called.
    """

    rung: Rung = "strict"
    leave_out: frozenset[str] = frozenset()
    length: Literal["max_completion_tokens", "max_tokens"] = "max_completion_tokens"
    tools_with_schema: bool = True


PROFILES: Mapping[ProfileName, Profile] = {
    "openai": Profile(),
    "azure": Profile(),
    "vllm": Profile(length="max_tokens", tools_with_schema=False),
    "ollama": Profile("schema", frozenset({"strict", "parallel_tool_calls"}), "max_tokens", tools_with_schema=False),
    "compatible": Profile(length="max_tokens", tools_with_schema=False),
}

_LENGTHS = ("max_completion_tokens", "max_tokens")
_SHAPE = "response_format"
_MAY_GO = {*_LENGTHS, _SHAPE, "tools", "temperature", "reasoning_effort", "parallel_tool_calls"}
# What a complaint in prose is about: the first of these that it names.
_NAMED = re.compile(
    r"(?P<response_format>response_format|json_?schema|json_object|structured.?output|guided|grammar|\bschema\b)"
    r"|(?P<parallel_tool_calls>parallel_tool_calls)|(?P<temperature>temperature)|(?P<reasoning_effort>reasoning_effort)"
    r"|(?P<max_completion_tokens>max_completion_tokens)|(?P<max_tokens>max_tokens)|(?P<tools>\btools?\b|\bfunctions?\b)",
    re.IGNORECASE,
)
# Not the parameter is unknown but its value is out of bounds: without the parameter it would be worse.
_OUT_OF_BOUNDS = re.compile(r"too (large|long|many)|at most|exceed|context length", re.IGNORECASE)


@dataclass(frozen=True)
class Complaint:
    """A 400 or 422: the parameter it names, if any, and its text. Neither is ever shown."""

    param: str
    text: str


class Dialect:
    """One server's, learnt as it goes."""

    def __init__(self, settings: Settings) -> None:
        profile = PROFILES[settings.served_as]
        self._settings = settings
        self._first_rung = settings.structured_output or profile.rung
        self._rungs: dict[type[BaseModel], Rung] = {}  # a schema of one answer may be too much, another's not
        self._left_out = {*profile.leave_out, *settings.leave_out}
        lengths = sorted(_LENGTHS, key=lambda name: name != profile.length)
        self._lengths = [name for name in lengths if name not in self._left_out]
        self._tools_with_schema = profile.tools_with_schema

    def request(self, question: Question) -> Request:
        """The body of a POST to /chat/completions."""
        tools = self._tools(question.tools)
        rung = self._rung(question, tools)
        schema = question.schema if question.schema is not None else strict_schema(question.answer)
        words = _in_words(schema, tools) if rung in ("json_object", "text") else ""
        return {
            "model": self._settings.model,
            "messages": _messages(question.messages, words),
            **_response_format(rung, question.answer.__name__, schema),
            **({"tools": tools} if tools else {}),
            **self._parameters(bool(tools)),
        }

    def learn(self, question: Question, request: Request, complaint: Complaint) -> bool:
        """Whether the question can be put another way after this complaint; from now on it is."""
        about = _about(complaint, request)
        if not about or (about in _LENGTHS and _OUT_OF_BOUNDS.search(complaint.text)):
            return False
        if about == _SHAPE:
            self._step_down(question, _rung_sent(request))
            return True
        if about == "tools" and _strict_tools(request):
            about = "strict"
        if self._lengths == [about]:
            return False  # an answer without any bound is not asked for
        self._lengths = [name for name in self._lengths if name != about]
        self._left_out.add(about)
        return True

    def _step_down(self, question: Question, sent: Rung) -> None:
        """One rung; unless another question's complaint did that meanwhile."""
        if self._rungs.get(question.answer, self._first_rung) == sent:
            self._rungs[question.answer] = RUNGS[RUNGS.index(sent) + 1]

    def _rung(self, question: Question, tools: Sequence[object]) -> Rung:
        if tools and not self._tools_with_schema:
            return "text"
        return self._rungs.get(question.answer, self._first_rung)

    def _tools(self, tools: Sequence[Tool]) -> list[dict[str, object]]:
        if "tools" in self._left_out:
            return []
        strict = {} if "strict" in self._left_out else {"strict": True}
        return [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                    **strict,
                },
            }
            for tool in tools
        ]

    def _parameters(self, with_tools: bool) -> dict[str, object]:
        """Those that not every server takes."""
        settings = self._settings
        optional: dict[str, object] = {
            **dict.fromkeys(self._lengths[:1], settings.max_completion_tokens),
            "temperature": settings.temperature,
            "reasoning_effort": settings.reasoning_effort or None,
            # Calls made side by side may leave the strict schema.
            "parallel_tool_calls": False if with_tools else None,
        }
        return {n: value for n, value in optional.items() if value is not None and n not in self._left_out}


def _about(complaint: Complaint, request: Request) -> str:
    """The parameter of the request that is complained about, or nothing."""
    if complaint.param:
        param = re.split(r"[.\[]", complaint.param, maxsplit=1)[0]
        return param if param in request and param in _MAY_GO else ""
    named = (str(found.lastgroup) for found in _NAMED.finditer(complaint.text))
    return next((name for name in named if name in request), "")


def _rung_sent(request: Request) -> Rung:
    """There is one: as text, no shape is sent that a server could complain about."""
    shape = cast("Mapping[str, Any]", request[_SHAPE])
    if shape["type"] == "json_object":
        return "json_object"
    return "strict" if shape["json_schema"]["strict"] else "schema"


def _strict_tools(request: Request) -> bool:
    return any("strict" in tool["function"] for tool in cast("list[Any]", request["tools"]))


def _response_format(rung: Rung, name: str, schema: Mapping[str, JsonValue]) -> dict[str, object]:
    if rung == "text":
        return {}
    if rung == "json_object":
        return {_SHAPE: {"type": "json_object"}}
    described = {"name": name[:64], "schema": dict(schema), "strict": rung == "strict"}
    return {_SHAPE: {"type": "json_schema", "json_schema": described}}


def _in_words(schema: Mapping[str, JsonValue], tools: Sequence[object]) -> str:
    unless = ", unless you call a tool," if tools else ""
    shape = json.dumps(schema, ensure_ascii=False)
    return (
        f"\n\nYour answer{unless} is one JSON object, valid under this schema, and nothing before or after it:\n{shape}"
    )


def _messages(messages: Sequence[Message], shape: str) -> list[dict[str, object]]:
    """With the shape told in words, if it is, at the end of the standing instructions."""
    sent = [_message(message) for message in messages]
    if not shape:
        return sent
    if sent and sent[0]["role"] == "system":
        return [{**sent[0], "content": f"{sent[0]['content']}{shape}"}, *sent[1:]]
    return [{"role": "system", "content": shape.strip()}, *sent]


def _message(message: Message) -> dict[str, object]:
    sent: dict[str, object] = {"role": message.role, "content": _encodable(message.content)}
    if message.call_id:
        sent["tool_call_id"] = message.call_id
    if message.calls:
        sent["content"] = sent["content"] or None
        sent["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": _object(call.arguments)}}
            for call in message.calls
        ]
    return sent


def _encodable(text: str) -> str:
    """Without halves of surrogate pairs, which logs hold and UTF-8 does not."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _object(arguments: str) -> str:
    """Arguments as JSON: several servers fail on a conversation with others, though a model wrote them."""
    try:
        return arguments if isinstance(json.loads(arguments), dict) else "{}"
    except (ValueError, RecursionError):
        return "{}"
