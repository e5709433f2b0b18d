"""Bring your own source: read-only tools of MCP servers, called as ``autopilot.yaml`` says.

``mcp:`` of ``autopilot.yaml`` lists servers (``url`` or ``command``) and their tools, how each is called (arguments
with ``{service}``, ``{start}``, …) and what its answer is: a document, log lines or changes. No other tool is ever
called, and none that its server does not mark read-only, unless ``read_only: true`` vouches for it.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic
from typing import Any

import httpx2
import jmespath  # type: ignore[import-untyped]
from dotenv import dotenv_values
from jmespath.exceptions import JMESPathError  # type: ignore[import-untyped]
from mcp import MCPError, StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent
from pydantic import JsonValue, ValidationError

from collectors._budget import SourceSettings, env
from collectors._http import checked
from collectors._jobs import Part
from collectors._source import Source
from collectors.base import (
    Change,
    Check,
    Clock,
    CollectorError,
    Declared,
    Document,
    Forbidden,
    GapReason,
    LogLine,
    McpServer,
    McpTool,
    Query,
    Refused,
    Scope,
    Target,
    Telemetry,
    Unreachable,
    level_of,
)

SIDE_BY_SIDE = 4
CONNECT_S = 3.0
ANSWER_S = 10.0
LONGEST = 8_000  # characters of a document
MAX_ROWS = 2_000  # of one answer
MEND = "check its url or command, and its token_variable, in autopilot.yaml"
_PLACEHOLDER = re.compile(r"\{\w+\}")
ADAPTED = (MCPError, httpx2.HTTPError, OSError, TimeoutError, ValidationError, ValueError)


class Settings(SourceSettings):
    """``AUTOPILOT_MCP_*``: the budget; the servers are in ``autopilot.yaml``."""

    model_config = env("AUTOPILOT_MCP_")


def create(clock: Clock, declared: Declared) -> "McpCollector":
    """The collector of the declared servers. Raises ValueError if there are none, or a token is missing."""
    if not declared.mcp:
        raise ValueError("The collector 'mcp' needs servers: add mcp: to autopilot.yaml.")
    for name, server in declared.mcp.items():
        if server.token_variable and not _token(server):
            raise ValueError(f"The MCP server {name!r} needs {server.token_variable}, the variable with its token.")
        for expression in (x for tool in server.tools for x in (tool.rows, *tool.fields.values())):
            _compiled(expression)
    return McpCollector(declared.mcp, Settings())


class McpCollector(Source[Settings]):
    """Every declared MCP server. A connection lives as long as one collection."""

    name = "mcp"

    def __init__(self, servers: Mapping[str, McpServer], settings: Settings) -> None:
        super().__init__(settings)
        self._servers = servers

    async def collect(self, scope: Scope) -> Telemetry:
        """What the listed tools answer for the services in play. Raises CollectorError."""
        jobs = [(f"MCP server {name}", partial(self._server, scope, name)) for name in self._servers]
        return await self._gathered(scope, jobs, side_by_side=SIDE_BY_SIDE)

    async def check(self) -> list[Check]:
        """Whether each server answers, and each listed tool is there and read-only."""
        found = await asyncio.gather(*(self._checks(name) for name in self._servers))
        return [check for checks in found for check in checks]

    async def _checks(self, name: str) -> list[Check]:
        known: dict[str, bool] = {}
        answers = await checked(self.name, self._settings, name, partial(self._told, name, known))
        tools = self._servers[name].tools
        if answers.status == "failed":
            why = "the server gave no list of its tools"
            return [answers, *(Check(name=f"{name}: {t.tool}", status="skipped", detail=why) for t in tools)]
        return [answers, *(_is_usable(name, tool, known) for tool in tools)]

    async def _told(self, name: str, known: dict[str, bool], part: Part) -> str:
        async with _connected(name, self._servers[name]) as client:
            known |= await _read_only(client)
            return f"{len(known)} tools, protocol {client.protocol_version}"

    async def _server(self, scope: Scope, name: str, part: Part) -> None:
        server = self._servers[name]
        async with _connected(name, server) as client:
            part.budget.call()
            known = await _read_only(client)
            part.answered = True
            for tool, target in _calls(server, scope):
                try:
                    _require(name, tool, known)
                    await self._call(client, scope, name, tool, target, part)
                except CollectorError as error:
                    part.fail(error)

    async def _call(self, client: Client, scope: Scope, server: str, tool: McpTool, target: Target, part: Part) -> None:
        arguments = _filled(dict(tool.arguments), _words(scope, target))
        part.budget.call()
        started = monotonic()
        with _telling(f"{server}: {tool.tool}"):
            assert isinstance(arguments, dict)
            result = await client.call_tool(tool.tool, arguments, read_timeout_seconds=ANSWER_S)
        text = _text(result)
        part.budget.receive(len(text.encode()))
        if result.is_error:
            raise Refused(f"{server}: {tool.tool} failed: {text[:300]}")
        rows = self._take(server, tool, target, _content(result, text), text, part)
        part.queries.append(
            Query(
                source=self.name,
                text=f"{server}: {tool.tool} {json.dumps(arguments, ensure_ascii=False)}",
                start=scope.incident.start,
                end=scope.incident.end,
                took_ms=round((monotonic() - started) * 1000, 1),
                rows=rows,
                kind="documents" if tool.gives == "document" else tool.gives,
            )
        )

    def _take(self, server: str, tool: McpTool, target: Target, content: JsonValue, text: str, part: Part) -> int:
        """Keep what the answer holds; how many rows that is."""
        if tool.gives == "document":
            found = _rows(server, tool, content) if tool.rows != "@" else text
            told = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
            if told.strip() and found is not None:
                title = f"{server}: {tool.tool}"
                why = f"what the tool says of {target.service}"
                part.keep([Document(title=title, text=told[:LONGEST], services=(target.service,), why=why)])
            return 1
        rows = _rows(server, tool, content)
        rows = rows if isinstance(rows, list) else []
        kept = [row for row in (_row(tool, target, row) for row in rows[:MAX_ROWS]) if row]
        part.logs.extend(row for row in kept if isinstance(row, LogLine))
        part.keep(row for row in kept if isinstance(row, Change))
        if len(rows) > MAX_ROWS:
            part.gap(GapReason.TRUNCATED, f"{server}: {tool.tool} gave {len(rows)} rows; {MAX_ROWS} were read")
        if len(kept) < min(len(rows), MAX_ROWS):
            lost = min(len(rows), MAX_ROWS) - len(kept)
            mend = f"check fields: of mcp.{server}.tools in autopilot.yaml"
            part.gap(GapReason.FAILED, f"{server}: {tool.tool}: {lost} rows were not understood", mend)
        return len(kept)


# --- connections --------------------------------------------------------------------------------------------


@asynccontextmanager
async def _connected(name: str, server: McpServer) -> AsyncIterator[Client]:
    """Raises CollectorError, also for what goes wrong while it is used."""
    token = _token(server)
    with _telling(name):
        if server.command:
            parameters = StdioServerParameters(
                command=server.command[0],
                args=list(server.command[1:]),
                env={server.token_variable: token} if token else None,
            )
            async with Client(parameters, read_timeout_seconds=ANSWER_S, cache=None) as client:
                yield client
            return
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = httpx2.Timeout(ANSWER_S, connect=CONNECT_S)
        async with (
            httpx2.AsyncClient(headers=headers, timeout=timeout) as http,
            Client(
                streamable_http_client(server.url or "", http_client=http),
                read_timeout_seconds=ANSWER_S,
                cache=None,
            ) as client,
        ):
            yield client


class _telling:  # noqa: N801  used like a function
    """Turns what the client raises, in groups or alone, into CollectorError."""

    def __init__(self, about: str) -> None:
        self._about = about

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        leaf = _leaf(error)
        if isinstance(leaf, CollectorError):
            raise leaf from None
        if isinstance(leaf, httpx2.HTTPStatusError) and leaf.response.status_code in (401, 403):
            code = leaf.response.status_code
            raise Forbidden(f"{self._about}: the server answered {code}", MEND) from None
        if isinstance(leaf, MCPError):
            raise Refused(f"{self._about}: {leaf}"[:300], MEND) from None
        if isinstance(leaf, ADAPTED):
            raise Unreachable(f"{self._about}: {type(leaf).__name__}: {leaf}"[:300], MEND) from None


def _leaf(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _token(server: McpServer) -> str:
    """From the environment, or from ``.env``, as every setting; empty where none is named or set."""
    name = server.token_variable
    return os.environ.get(name, "") or dotenv_values(".env").get(name) or "" if name else ""


async def _read_only(client: Client) -> dict[str, bool]:
    """Every tool there is, and whether its server says that it changes nothing."""
    tools = (await client.list_tools()).tools
    return {tool.name: bool(tool.annotations and tool.annotations.read_only_hint) for tool in tools}


def _is_usable(server: str, tool: McpTool, known: Mapping[str, bool]) -> Check:
    name = f"{server}: {tool.tool}"
    try:
        _require(server, tool, known)
    except Refused as error:
        return Check(name=name, status="failed", detail=error.detail, mend=error.mend)
    seen = "there, and read-only" if known[tool.tool] else "there; read_only: true vouches for it"
    return Check(name=name, status="ok", detail=seen)


def _require(server: str, tool: McpTool, known: Mapping[str, bool]) -> None:
    if tool.tool not in known:
        there = ", ".join(sorted(known)[:10])
        raise Refused(f"{server} has no tool {tool.tool!r}", f"it has: {there}; mend mcp.{server} in autopilot.yaml")
    if not (known[tool.tool] or tool.read_only):
        raise Refused(
            f"{server}: {tool.tool} is not marked read-only, so it was not called",
            "set read_only: true for it in autopilot.yaml if you know that it changes nothing",
        )


# --- calls --------------------------------------------------------------------------------------------------


def _calls(server: McpServer, scope: Scope) -> Iterator[tuple[McpTool, Target]]:
    """The alerted service first; a tool that is called once is called for that one."""
    for number, target in enumerate(scope.targets):
        for tool in server.tools:
            if tool.per == "service" or number == 0:
                yield tool, target


def _words(scope: Scope, target: Target) -> dict[str, str]:
    start, end = scope.incident.start, scope.incident.end
    return {
        "{service}": target.service,
        "{environment}": scope.environment,
        "{title}": scope.symptom.title,
        "{start}": start.isoformat(),
        "{end}": end.isoformat(),
        "{start_s}": str(int(start.timestamp())),
        "{end_s}": str(int(end.timestamp())),
    }


def _filled(value: JsonValue, words: Mapping[str, str]) -> JsonValue:
    """The arguments with their placeholders filled in; what is filled in is not looked at again."""
    if isinstance(value, dict):
        return {key: _filled(inner, words) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, words) for inner in value]
    if not isinstance(value, str):
        return value
    return _PLACEHOLDER.sub(lambda found: words.get(found[0], found[0]), value)


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if isinstance(block, TextContent))


def _content(result: CallToolResult, text: str) -> JsonValue:
    """The structured answer, or the JSON in its text, or the text."""
    if result.structured_content is not None:
        structured: JsonValue = result.structured_content
        return structured
    try:
        parsed: JsonValue = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parsed


def _rows(server: str, tool: McpTool, content: JsonValue) -> JsonValue:
    """What ``rows`` selects. Raises Refused if the answer is not what its functions work on."""
    try:
        selected: JsonValue = _compiled(tool.rows).search(content)
    except JMESPathError as error:
        mend = f"check rows: of mcp.{server}.tools in autopilot.yaml"
        raise Refused(
            f"{server}: {tool.tool}: the answer is not what {tool.rows!r} reads: {error}"[:300], mend
        ) from None
    return selected


def _row(tool: McpTool, target: Target, row: JsonValue) -> LogLine | Change | None:
    """One row by the declared fields; None if it cannot be one."""
    try:
        found: dict[str, Any] = {field: _compiled(path).search(row) for field, path in tool.fields.items()}
    except JMESPathError:  # a function that does not work on what this row holds
        return None
    known = {field: value for field, value in found.items() if value is not None}
    kind = LogLine if tool.gives == "logs" else Change
    if kind is LogLine:
        known["level"] = level_of(str(known.get("level", "info")))
    else:
        known.setdefault("kind", "other")
    try:
        return kind(**{"component": target.service, **known})
    except ValidationError:
        return None


def _compiled(expression: str) -> Any:
    """Raises ValueError with the expression and where it is wrong."""
    try:
        return jmespath.compile(expression)
    except JMESPathError as error:
        raise ValueError(f"mcp: this is no JMESPath: {expression!r}: {error}") from None
