"""OpenAI's chat completions, faked: a real HTTP server that checks requests as OpenAI does and answers by a script."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Request = dict[str, Any]
"""The body of a request, as it came."""

_START_S = 10.0
_CHUNK = 16  # bytes of a slow reply at a time


@dataclass(frozen=True)
class Reply:
    """What the fake answers. See the functions below for all that there is."""

    content: str | None = None
    calls: tuple[tuple[str, str], ...] = ()  # name, arguments
    refusal: str | None = None
    finish_reason: str = "stop"
    usage: Mapping[str, object] | None = None  # in place of what the fake counts
    tells_usage: bool = True
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None  # in place of a completion
    content_type: str = "application/json"
    pace_s: float = 0.0  # between two chunks of the body
    trouble: Literal["", "hang", "drop"] = ""


Script = Reply | Sequence[Reply] | Callable[[Request], Reply]
"""One reply to every question; one after the other, and an error once they are used up; or one by the request."""


def say(answer: object, **changes: Any) -> Reply:
    """Text, or JSON."""
    return replace(Reply(answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)), **changes)


def call(*calls: tuple[str, object]) -> Reply:
    """Tools, each with its arguments: JSON, or text as it stands, which may be broken."""
    told = tuple((name, args if isinstance(args, str) else json.dumps(args)) for name, args in calls)
    return Reply(calls=told, finish_reason="tool_calls")


def refuse(text: str = "I'm sorry, I can't help with that.") -> Reply:
    """The model will not."""
    return Reply(refusal=text)


def cut_off(content: str = '{"component": "pay') -> Reply:
    """The answer reached the length limit."""
    return Reply(content, finish_reason="length")


def filtered() -> Reply:
    """The answer was stopped by the content filter."""
    return Reply("", finish_reason="content_filter")


def raw(body: object, content_type: str = "application/json", status: int = 200) -> Reply:
    """Anything in place of a completion."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Reply(body=text, content_type=content_type, status=status)


def html(text: str = "<html><body>Sign in to the guest network</body></html>", status: int = 200) -> Reply:
    """What a proxy answers."""
    return raw(text, "text/html", status)


def without_choices() -> Reply:
    """A completion in which there is nothing."""
    return raw({"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": None})


def error(
    status: int,
    code: str | None = None,
    message: str = "Something is wrong.",
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """An error as OpenAI tells it."""
    told = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return Reply(body=json.dumps({"error": told}), status=status, headers=headers or {})


def trickle(reply: Reply, pace_s: float = 0.05) -> Reply:
    """The same, a few bytes at a time."""
    return replace(reply, pace_s=pace_s)


def hang() -> Reply:
    """No answer, until the client gives up or the server is closed."""
    return Reply(trouble="hang")


def drop() -> Reply:
    """The connection breaks in the middle of the answer."""
    return Reply(trouble="drop")


class OpenAIServer:
    """The fake on a port of this machine, in a thread of its own; ``with`` or ``async with`` starts and closes it.

    ``key``: the only one that is accepted; None: any. ``models``: those it knows; None: any.
    """

    def __init__(
        self, script: Script, *, key: str | None = None, models: Sequence[str] | None = None, port: int = 0
    ) -> None:
        self.requests: list[Request] = []
        self.headers: list[Mapping[str, str]] = []
        self._script = iter(script) if isinstance(script, Sequence) else script
        self._key, self._models = key, models
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        config = uvicorn.Config(self._app(), log_level="critical", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="openai-fake", daemon=True
        )

    @property
    def url(self) -> str:
        """What OPENAI_BASE_URL is set to."""
        return f"{self.origin}/v1"

    @property
    def origin(self) -> str:
        """Without a path, as Azure's older surface wants it."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "OpenAIServer":
        self._port = self._listener.getsockname()[1]
        self._thread.start()
        give_up = time.monotonic() + _START_S
        while not self._server.started:
            if time.monotonic() > give_up:
                raise TimeoutError("the fake of OpenAI did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(_START_S)
        self._listener.close()

    async def __aenter__(self) -> "OpenAIServer":
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    # --- routes ---

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
                Route("/openai/deployments/{deployment}/chat/completions", self._complete, methods=["POST"]),
                Route("/v1/models", self._list, methods=["GET"]),
                Route("/openai/models", self._list, methods=["GET"]),
                Route("/v1/models/{model:path}", self._retrieve, methods=["GET"]),
            ]
        )

    async def _complete(self, http: HttpRequest) -> Response:
        refused = self._unknown_key(http)
        if refused is not None:
            return refused
        request: Request = await http.json()
        self.requests.append(request)
        self.headers.append(dict(http.headers))
        wrong = next(complaints(request), None) or self._unknown_model(str(request.get("model")))
        return await self._send(wrong or self._next(request), request, http)

    async def _list(self, http: HttpRequest) -> Response:
        listed = {"object": "list", "data": [_model(name) for name in self._models or ("gpt-4o",)]}
        return self._unknown_key(http) or JSONResponse(listed)

    async def _retrieve(self, http: HttpRequest) -> Response:
        name = http.path_params["model"]
        unknown = self._unknown_model(name)
        found = _plain(unknown) if unknown else JSONResponse(_model(name))
        return self._unknown_key(http) or found

    def _unknown_key(self, http: HttpRequest) -> Response | None:
        """A refusal that quotes a part of the key, as OpenAI's does."""
        given = http.headers.get("api-key") or http.headers.get("authorization", "").removeprefix("Bearer ")
        if given == self._key or (given and self._key is None):
            return None
        message = f"Incorrect API key provided: {given[:8]}***{given[-4:]}."
        return _plain(error(401, "invalid_api_key", message))

    def _unknown_model(self, name: str) -> Reply | None:
        if self._models is None or name in self._models:
            return None
        return error(404, "model_not_found", f"The model `{name}` does not exist or you do not have access to it.")

    def _next(self, request: Request) -> Reply:
        if isinstance(self._script, Reply):
            return self._script
        if callable(self._script):
            return self._script(request)
        return next(self._script, error(500, "script_used_up", "The fake has no reply left."))

    async def _send(self, reply: Reply, request: Request, http: HttpRequest) -> Response:
        if reply.trouble == "hang":
            while (await http.receive())["type"] != "http.disconnect":
                pass
        body = (reply.body if reply.body is not None else json.dumps(_completion(reply, request))).encode()
        headers = {**reply.headers, "content-type": reply.content_type}
        if reply.trouble == "drop":
            # Less than was announced: the server closes the connection.
            headers["content-length"] = str(len(body))
            return StreamingResponse(_chunks(body[: len(body) // 2], 0.0), reply.status, headers)
        if reply.pace_s:
            return StreamingResponse(_chunks(body, reply.pace_s), reply.status, headers)
        return Response(body, reply.status, headers)


def openai_server(
    script: Script, *, key: str | None = None, models: Sequence[str] | None = None, port: int = 0
) -> OpenAIServer:
    """The fake, not started yet: a context manager, inside of a loop and outside; ``url`` is for OPENAI_BASE_URL."""
    return OpenAIServer(script, key=key, models=models, port=port)


async def _chunks(body: bytes, pace_s: float) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK]
        await asyncio.sleep(pace_s)


def _plain(reply: Reply) -> Response:
    return Response(reply.body, reply.status, reply.headers, reply.content_type)


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 1, "owned_by": "fake"}


def _completion(reply: Reply, request: Request) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": reply.content, "refusal": reply.refusal}
    if reply.calls:
        message["tool_calls"] = [
            {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(reply.calls, 1)
        ]
    completion: dict[str, object] = {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 1,
        "model": request.get("model"),
        "choices": [{"index": 0, "finish_reason": reply.finish_reason, "logprobs": None, "message": message}],
    }
    if reply.tells_usage:
        completion["usage"] = reply.usage or _usage(request, message)
    return completion


def _usage(request: Request, message: Mapping[str, object]) -> dict[str, object]:
    """Four bytes of JSON to a token: no model's figures, but the same ones every time."""
    sent = {key: request[key] for key in ("messages", "tools", "response_format") if key in request}
    prompt, completion = (len(json.dumps(part).encode()) // 4 for part in (sent, message))
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


# --- what OpenAI refuses ---

_PARAMETERS = {
    "model",
    "messages",
    "response_format",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "max_completion_tokens",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "n",
    "stream",
    "reasoning_effort",
    "verbosity",
    "store",
    "metadata",
    "user",
    "service_tier",
    "prompt_cache_key",
    "safety_identifier",
}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_NOT_STRICT = {"default", "allOf", "oneOf", "not", "if", "patternProperties", "uniqueItems", "minLength", "maxLength"}
_DEEPEST = 10


def complaints(request: Request) -> Iterator[Reply]:
    """What is wrong with a request: 400 with code and param, the first of them first."""
    for name in sorted(request.keys() - _PARAMETERS):
        yield error(400, "unknown_parameter", f"Unknown parameter: '{name}'.", name)
    if not request.get("messages"):
        yield error(400, "missing_required_parameter", "Missing required parameter: 'messages'.", "messages")
    yield from _format_complaints(request)
    yield from _tool_complaints(request)


def _format_complaints(request: Request) -> Iterator[Reply]:
    shape = request.get("response_format") or {"type": "text"}
    if shape.get("type") == "json_object" and "json" not in json.dumps(request["messages"]).lower():
        text = "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
        yield error(400, None, text, "messages")
    if shape.get("type") != "json_schema":
        return
    described = shape.get("json_schema", {})
    if not _NAME.match(str(described.get("name", ""))):
        yield error(400, "invalid_value", "Invalid name of a schema.", "response_format.json_schema.name")
    if described.get("strict"):
        for wrong in not_strict(described.get("schema", {})):
            text = f"Invalid schema for response_format '{described.get('name')}': {wrong}"
            yield error(400, "invalid_json_schema", text, "response_format")


def _tool_complaints(request: Request) -> Iterator[Reply]:
    tools = request.get("tools") or []
    names = [tool.get("function", {}).get("name", "") for tool in tools]
    for number, (tool, name) in enumerate(zip(tools, names, strict=True)):
        function = tool.get("function", {})
        if not _NAME.match(name):
            text = f"Invalid 'tools[{number}].function.name': string does not match pattern."
            yield error(400, "invalid_value", text, f"tools[{number}].function.name")
        wrong = next(iter(not_strict(function.get("parameters", {}))), "") if function.get("strict") else ""
        if wrong:
            text = f"Invalid schema for function '{name}': {wrong}"
            yield error(400, "invalid_function_parameters", text, f"tools[{number}].function.parameters")
    if "parallel_tool_calls" in request and not tools:
        text = "'parallel_tool_calls' is only allowed when 'tools' are specified."
        yield error(400, None, text, "parallel_tool_calls")
    choice = request.get("tool_choice")
    if isinstance(choice, dict) and choice.get("function", {}).get("name") not in names:
        yield error(400, "invalid_value", "Tool choice not found in 'tools' parameter.", "tool_choice")


def not_strict(schema: Mapping[str, Any]) -> list[str]:
    """Where a schema is not strict, in OpenAI's words; empty: it is."""
    if schema.get("type") != "object":
        return [f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema.get('type')}\"'."]
    parts = [schema, *schema.get("$defs", {}).values()]
    return [wrong for part in parts for wrong in _not_strict(part, (), 1)]


def _not_strict(schema: Mapping[str, Any], path: tuple[str, ...], depth: int) -> Iterator[str]:
    context = f"In context={path}, "
    if depth > _DEEPEST:
        yield f"{context}schema is nested deeper than {_DEEPEST} levels."
        return
    for keyword in sorted(_NOT_STRICT & schema.keys()):
        yield f"{context}'{keyword}' is not permitted."
    if "$ref" in schema:
        if len(schema) > 1:
            yield f"{context}$ref cannot have keywords {sorted(schema.keys() - {'$ref'})}."
        return
    if not {"type", "anyOf", "enum", "const"} & schema.keys():
        yield f"{context}schema must have a 'type' key."
    if "enum" in schema and not schema["enum"]:
        yield f"{context}enum cannot be empty."
    if schema.get("type") == "object":
        yield from _open_object(schema, context)
    for name, part in _parts(schema):
        yield from _not_strict(part, (*path, name), depth + 1)


def _open_object(schema: Mapping[str, Any], context: str) -> Iterator[str]:
    if schema.get("additionalProperties") is not False:
        yield f"{context}'additionalProperties' is required to be supplied and to be false."
    missing = [name for name in schema.get("properties", {}) if name not in schema.get("required", [])]
    if missing:
        yield (
            f"{context}'required' is required to be supplied and to be an array including every key in properties."
            f" Missing '{missing[0]}'."
        )


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from schema.get("properties", {}).items()
    if schema.get("type") == "array":
        yield "items", schema.get("items", {})
    for number, variant in enumerate(schema.get("anyOf", ())):
        yield str(number), variant
    if "anyOf" in schema and not schema["anyOf"]:
        yield "anyOf", {}
