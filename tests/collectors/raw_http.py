"""A vendor's API on 127.0.0.1 that says, byte by byte, what a test wants said."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx

Say = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    number: int
    method: str
    target: str
    headers: httpx.Headers
    body: bytes


@dataclass
class Vendor:
    """Where it listens, and what it was asked."""

    url: str = ""
    asked: list[Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0


@asynccontextmanager
async def vendor(say: Say, port: int = 0) -> AsyncIterator[Vendor]:
    """Answers each request by ``say``, then closes the connection. Port 0: any that is free."""
    served = Vendor()

    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection: asyncio.Task[None] = asyncio.current_task()  # type: ignore[assignment]
        connections.add(connection)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = httpx.Headers([(name, value) for name, _, value in (x.partition(": ") for x in head[1:] if x)])
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Request(len(served.asked), method, target, headers, body)
            served.asked.append(request)
            served.at_once += 1
            served.most_at_once = max(served.most_at_once, served.at_once)
            try:
                await say(request, writer)
            finally:
                served.at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test has ended
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            connections.discard(connection)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    served.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield served
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


def answer(body: bytes | str = b"{}", status: str = "200 OK", **headers: str) -> bytes:
    """A whole answer; ``retry_after="1"`` becomes ``Retry-After: 1``."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, "", "")).encode() + content


def says(*answers: bytes) -> Say:
    """These answers in turn; the last one for all that follow."""

    async def say(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[min(request.number, len(answers) - 1)])
        await writer.drain()

    return say
