"""MCP servers as a source: real servers, over HTTP and over stdio, in processes of their own."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.clock import SystemClock
from collectors.base import (
    Declared,
    GapReason,
    McpServer,
    McpTool,
    Refused,
    Scope,
    Symptom,
    Target,
    Unreachable,
    Window,
)
from collectors.mcp import McpCollector, Settings, create
from tests import processes
from tests.collectors.raw_http import Request, answer, vendor

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
SERVER = '''
import sys
from mcp.server import MCPServer
from mcp.types import ToolAnnotations

server = MCPServer("ops")
READ = ToolAnnotations(read_only_hint=True)


@server.tool(annotations=READ)
def on_call(service: str, at: str) -> str:
    """Who is on call."""
    return f"{service}: kim, since {at}"


@server.tool(annotations=READ)
def flags(service: str) -> dict:
    """Feature flags that were turned."""
    return {"turned": [
        {"when": "2026-11-20T11:58:00Z", "flag": f"{service}-retries", "by": "lee"},
        {"when": "no time at all", "flag": "broken"},
    ]}


@server.tool(annotations=READ)
def lines(service: str) -> list[dict]:
    """Log lines."""
    return [{"ts": 1795176000, "sev": "ERR", "msg": f"{service} is out of connections"}]


@server.tool(annotations=READ)
def fails(service: str) -> str:
    """Never works."""
    raise ValueError("the pager is down")


@server.tool()
def restart(service: str) -> str:
    """Not marked read-only."""
    return "restarted"


if len(sys.argv) > 1:
    server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
else:
    server.run("stdio")
'''


@pytest.fixture
def command(tmp_path: Path) -> tuple[str, ...]:
    file = tmp_path / "server.py"
    file.write_text(SERVER, encoding="utf-8")
    return sys.executable, str(file)


def scope(*services: str) -> Scope:
    window = Window(start=NOON - timedelta(minutes=10), end=NOON)
    return Scope(
        service=services[0],
        occurred_at=NOON,
        incident=window,
        baseline=(),
        symptom=Symptom(title="{service} {end}"),
        targets=tuple(Target(service=name, hops=min(n, 1)) for n, name in enumerate(services)),
    )


def collector(*tools: McpTool, **server: Any) -> McpCollector:
    return McpCollector({"ops": McpServer(tools=tools, **server)}, Settings())


async def test_answers_become_documents_changes_and_log_lines(command: tuple[str, ...]) -> None:
    tools = (
        McpTool(tool="on_call", arguments={"service": "{service}", "at": "{start} {title}"}, per="incident"),
        McpTool(
            tool="flags",
            arguments={"service": "{service}"},
            gives="changes",
            rows="turned",
            fields={"at": "when", "title": "flag", "author": "by", "kind": "'feature_flag'"},
        ),
        McpTool(
            tool="lines",
            arguments={"service": "{service}"},
            gives="logs",
            rows="result",
            fields={"at": "ts", "level": "sev", "message": "msg"},
        ),
    )
    found = await collector(*tools, command=command).collect(scope("shop", "db"))
    [document] = found.documents
    # what was filled in is not filled in again: the alert's text is data
    assert document.text == "shop: kim, since 2026-11-20T11:50:00+00:00 {service} {end}"
    assert [(c.component, c.kind, c.title, c.author) for c in found.changes] == [
        ("shop", "feature_flag", "shop-retries", "lee"),
        ("db", "feature_flag", "db-retries", "lee"),
    ]
    assert [(line.component, line.level, line.message) for line in found.logs] == [
        ("shop", "error", "shop is out of connections"),
        ("db", "error", "db is out of connections"),
    ]
    assert {(g.reason, g.detail) for g in found.gaps} == {
        (GapReason.FAILED, "ops: flags: 1 rows were not understood"),
    }
    assert len(found.queries) == 5
    assert found.cost.calls == 6


async def test_what_is_not_read_only_is_not_called(command: tuple[str, ...]) -> None:
    tool = McpTool(tool="restart", arguments={"service": "{service}"})
    other = McpTool(tool="on_call", arguments={"service": "{service}", "at": "now"})
    found = await collector(tool, other, command=command).collect(scope("shop"))
    assert [d.text for d in found.documents] == ["shop: kim, since now"]
    [gap] = found.gaps
    assert "not marked read-only" in gap.detail
    assert "read_only: true" in gap.mend
    vouched = tool.model_copy(update={"read_only": True})
    found = await collector(vouched, command=command).collect(scope("shop"))
    assert [d.text for d in found.documents] == ["restarted"]


async def test_a_tool_that_fails_or_is_missing_costs_the_others_nothing(command: tuple[str, ...]) -> None:
    arguments = {"service": "{service}"}
    tools = (
        McpTool(tool="fails", arguments=arguments),
        McpTool(tool="gone", arguments=arguments),
        McpTool(tool="on_call", arguments={**arguments, "at": "now"}),
    )
    source = collector(*tools, command=command)
    found = await source.collect(scope("shop"))
    assert len(found.documents) == 1
    assert found.gaps[0].detail.startswith("ops: fails failed: ")
    assert "it has: fails, flags, lines, on_call, restart" in found.gaps[1].mend
    checks = {c.name: c.status for c in await source.check()}
    assert checks == {"ops": "ok", "ops: fails": "ok", "ops: gone": "failed", "ops: on_call": "ok"}


async def test_an_expression_that_does_not_fit_an_answer_costs_that_answer_only(command: tuple[str, ...]) -> None:
    arguments = {"service": "{service}"}
    fields = {"at": "ts", "message": "join(',', msg)"}
    tools = (
        McpTool(tool="lines", arguments=arguments, gives="logs", rows="sort(result)", fields={}),
        McpTool(tool="lines", arguments=arguments, gives="logs", rows="result", fields=fields),
        McpTool(tool="on_call", arguments={**arguments, "at": "now"}),
    )
    found = await collector(*tools, command=command).collect(scope("shop"))
    assert [d.text for d in found.documents] == ["shop: kim, since now"]
    assert [gap.mend for gap in found.gaps] == [
        "check rows: of mcp.ops.tools in autopilot.yaml",
        "check fields: of mcp.ops.tools in autopilot.yaml",
    ]


async def test_the_doctor_asks_each_server_once_and_all_at_once() -> None:
    together = asyncio.Barrier(3)

    async def fails_when_all_have_asked(request: Request, writer: asyncio.StreamWriter) -> None:
        await together.wait()
        writer.write(answer("", "500 Oops"))
        await writer.drain()

    tools = tuple(McpTool(tool=f"t{n}") for n in range(3))
    async with vendor(fails_when_all_have_asked) as served:
        servers = {f"s{n}": McpServer(url=f"{served.url}/{n}", tools=tools) for n in range(3)}
        checks = await McpCollector(servers, Settings()).check()
    assert [c.status for c in checks] == ["failed", "skipped", "skipped", "skipped"] * 3
    assert {c.detail.partition(": ")[2] for c in checks if c.status == "failed"} == {
        "Server returned an error response"
    }


@pytest.fixture
def url(command: tuple[str, ...]) -> Iterator[str]:
    port = processes.free_port()
    with subprocess.Popen([*command, str(port)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            processes.wait_until(lambda: _listens(port), "the MCP server")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


async def test_a_server_is_reached_over_http_too(url: str) -> None:
    tool = McpTool(tool="on_call", arguments={"service": "{service}", "at": "now"})
    found = await collector(tool, url=f"{url}/mcp").collect(scope("shop"))
    assert [d.text for d in found.documents] == ["shop: kim, since now"]
    with pytest.raises(Refused) as told:
        await collector(tool, url=f"{url}/elsewhere").collect(scope("shop"))
    assert "check its url" in told.value.mend


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    tool = McpTool(tool="x")
    for server in ({"url": "http://127.0.0.1:9/mcp"}, {"command": ("/nonexistent/server",)}):
        with pytest.raises(Unreachable) as told:
            await collector(tool, **server).collect(scope("shop"))
        assert "autopilot.yaml" in told.value.mend


def test_mistakes_are_told_at_start() -> None:
    with pytest.raises(ValueError, match=r"add mcp: to autopilot\.yaml"):
        create(SystemClock(), Declared())
    server = McpServer(url="https://ops", token_variable="OPS_TOKEN_OF_A_TEST", tools=())
    with pytest.raises(ValueError, match="OPS_TOKEN_OF_A_TEST"):
        create(SystemClock(), Declared(mcp={"ops": server}))
    wrong = McpServer(url="https://ops", tools=(McpTool(tool="x", rows="[?"),))
    with pytest.raises(ValueError, match="no JMESPath"):
        create(SystemClock(), Declared(mcp={"ops": wrong}))
    with pytest.raises(ValueError, match="either url or command"):
        McpServer(tools=())
