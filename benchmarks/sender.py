"""Sends deliveries as fast as they are answered: ``python -m benchmarks.sender``, an Order in, a Sent out, as JSON.

HTTP by hand on kept connections: a client library would cost more than the handlers that are measured. Requests are
made before the clock starts, and nothing but the standard library and pydantic is loaded.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from uuid import uuid4

from pydantic import BaseModel, JsonValue, TypeAdapter

_JSON: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class Order(BaseModel):
    """What to send, where, how often, on how many connections."""

    port: int
    path: str
    token: str
    payload: dict[str, JsonValue]
    count: int
    connections: int


class Sent(BaseModel):
    """How it went; latencies in seconds, in no order."""

    seconds: float
    accepted: int
    latencies: list[float]


async def send(order: Order) -> Sent:
    """All deliveries; a connection sends its next one when the last was answered."""
    requests = iter([_request(order) for _ in range(order.count)])
    streams = [await asyncio.open_connection("127.0.0.1", order.port) for _ in range(order.connections)]
    started = time.perf_counter()
    answers = await asyncio.gather(*(_converse(reader, writer, requests) for reader, writer in streams))
    seconds = time.perf_counter() - started
    for _, writer in streams:
        writer.close()
        await writer.wait_closed()
    every = [answer for some in answers for answer in some]
    return Sent(
        seconds=seconds,
        accepted=sum(status == b"202" for status, _ in every),
        latencies=[latency for _, latency in every],
    )


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: Iterator[bytes]
) -> list[tuple[bytes, float]]:
    answers: list[tuple[bytes, float]] = []
    for request in requests:
        started = time.perf_counter()
        writer.write(request)
        status = await _answer(reader)
        answers.append((status, time.perf_counter() - started))
    return answers


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """The status code, once the whole answer is read."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return head.split(b" ", 2)[1]


def _request(order: Order) -> bytes:
    """A delivery like no other."""
    body = _JSON.dump_json(order.payload | {"event_id": uuid4().hex, "cycle_key": uuid4().hex})
    head = (
        f"POST {order.path} HTTP/1.1\r\nHost: 127.0.0.1:{order.port}\r\nContent-Type: application/json\r\n"
        f"X-AIOps-Token: {order.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    print(asyncio.run(send(Order.model_validate_json(sys.stdin.buffer.read()))).model_dump_json())
