"""Sends deliveries, as fast as they are answered or at set times: ``python -m benchmarks.sender``.

An Order or a Plan in, a Sent or the Fates out, as JSON. HTTP by hand on kept connections: a client library would cost
more than the handlers that are measured. Requests are made before the clock starts, and nothing but the standard
library and pydantic is loaded.
"""

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from uuid import uuid4

from pydantic import BaseModel, JsonValue, TypeAdapter

CYCLE, EVENT = "@cycle@", "@event@"  # in a payload: its own in each alert cycle, and in each event
ANSWERED_WITHIN_S = 15.0  # Datadog waits so long
SEED = 7

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Order(BaseModel):
    """What to send, where, how often, on how many connections."""

    port: int
    path: str
    token: str
    payload: dict[str, JsonValue]
    count: int
    connections: int
    known: float = 0.0  # share of deliveries about a cycle that was sent before: half re-sent, half reminders


class Sent(BaseModel):
    """How it went; latencies in seconds, in no order."""

    seconds: float
    accepted: int
    latencies: list[float]
    cycles: int  # alert cycles among the deliveries
    distinct: int  # deliveries without those that were sent again


class Plan(BaseModel):
    """What to send when; what fails is sent again, as Datadog does it."""

    port: int
    path: str
    token: str
    begins_at: float  # epoch seconds
    due_s: list[float]  # since then, ascending
    bodies: list[str]
    connections: int
    retries: int
    retry_after_s: float


class Fate(BaseModel):
    """What became of one delivery; times are epoch seconds."""

    status: int  # the last answer's; 0: none came
    attempts: int
    due_at: float
    asked_at: float  # when its last attempt was written
    ended_at: float

    @property
    def accepted(self) -> bool:
        """Whether it was answered 2xx."""
        return 200 <= self.status < 300


# --- as fast as they are answered ---


async def send(order: Order) -> Sent:
    """All deliveries; a connection sends its next one when the last was answered."""
    bodies = _bodies(order)
    requests = iter([_request(order, body) for body, _ in bodies])
    streams = [await asyncio.open_connection("127.0.0.1", order.port) for _ in range(order.connections)]
    started = time.perf_counter()
    answers = await asyncio.gather(*(_converse(stream, requests) for stream in streams))
    seconds = time.perf_counter() - started
    for _, writer in streams:
        writer.close()
        await writer.wait_closed()
    every = [answer for some in answers for answer in some]
    return Sent(
        seconds=seconds,
        accepted=sum(status == 202 for status, _ in every),
        latencies=[latency for _, latency in every],
        cycles=len({cycle for _, cycle in bodies}),
        distinct=len({body for body, _ in bodies}),
    )


def _bodies(order: Order) -> list[tuple[bytes, str]]:
    """Each with its cycle. What is sent about a known cycle comes long enough after it, whatever overtakes what."""
    drawn = random.Random(SEED)
    bodies: list[tuple[bytes, str]] = []
    for position in range(order.count):
        known = bodies[: max(position - 2 * order.connections, 0)]
        if not known or drawn.random() >= order.known:
            bodies.append(_body(order.payload, uuid4().hex))
            continue
        again = drawn.choice(known)
        reminder = _body(order.payload | {"transition": "Renotify"}, again[1])
        bodies.append(drawn.choice((again, reminder)))
    return bodies


def _body(payload: Mapping[str, JsonValue], cycle: str) -> tuple[bytes, str]:
    text = _JSON.dump_json(payload).decode()
    return text.replace(CYCLE, cycle).replace(EVENT, uuid4().hex).encode(), cycle


async def _converse(stream: Stream, requests: Iterator[bytes]) -> list[tuple[int, float]]:
    reader, writer = stream
    answers: list[tuple[int, float]] = []
    for request in requests:
        started = time.perf_counter()
        writer.write(request)
        status = await _answer(reader)
        answers.append((status, time.perf_counter() - started))
    return answers


# --- at set times ---


async def keep(plan: Plan) -> list[Fate]:
    """All deliveries at their times, however long others take, as far as there are connections."""
    requests = [_request(plan, body.encode()) for body in plan.bodies]
    idle: asyncio.LifoQueue[Stream | None] = asyncio.LifoQueue()
    for _ in range(plan.connections):
        idle.put_nowait(None)
    async with asyncio.TaskGroup() as group:
        tasks = []
        for request, due_s in zip(requests, plan.due_s, strict=True):
            await asyncio.sleep(max(plan.begins_at + due_s - time.time(), 0))
            tasks.append(group.create_task(_insist(plan, request, plan.begins_at + due_s, idle)))
    while not idle.empty():
        if stream := idle.get_nowait():
            await _close(stream)
    return [task.result() for task in tasks]


async def _insist(plan: Plan, request: bytes, due_at: float, idle: "asyncio.LifoQueue[Stream | None]") -> Fate:
    """Send until it is answered with anything but a server's failure."""
    for attempt in range(1, plan.retries + 2):
        stream = await idle.get()
        asked_at = time.time()
        status, kept = await _attempt(plan.port, request, stream)
        idle.put_nowait(kept)
        fate = Fate(status=status, attempts=attempt, due_at=due_at, asked_at=asked_at, ended_at=time.time())
        if 0 < status < 500:
            break
        await asyncio.sleep(plan.retry_after_s)
    return fate


async def _attempt(port: int, request: bytes, stream: Stream | None) -> tuple[int, Stream | None]:
    """The status, 0 where the connection broke, and the connection if it can be used again."""
    if stream and stream[0].at_eof():  # the server closes those that are idle for long
        await _close(stream)
        stream = None
    try:
        async with asyncio.timeout(ANSWERED_WITHIN_S):
            stream = stream or await asyncio.open_connection("127.0.0.1", port)
            stream[1].write(request)
            return await _answer(stream[0]), stream
    except (OSError, EOFError):  # TimeoutError is an OSError, IncompleteReadError an EOFError
        if stream:
            await _close(stream)
        return 0, None


async def _close(stream: Stream) -> None:
    stream[1].close()
    with suppress(OSError):  # the other side was faster
        await stream[1].wait_closed()


# --- HTTP ---


async def _answer(reader: asyncio.StreamReader) -> int:
    """The status code, once the whole answer is read."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))
    return int(head.split(b" ", 2)[1])


def _request(where: Order | Plan, body: bytes) -> bytes:
    head = (
        f"POST {where.path} HTTP/1.1\r\nHost: 127.0.0.1:{where.port}\r\nContent-Type: application/json\r\n"
        f"X-AIOps-Token: {where.token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


_JSON: TypeAdapter[Mapping[str, JsonValue]] = TypeAdapter(Mapping[str, JsonValue])
FATES: TypeAdapter[list[Fate]] = TypeAdapter(list[Fate])
_ASKED: TypeAdapter[Plan | Order] = TypeAdapter(Plan | Order)


def main() -> None:
    """One Order or Plan."""
    asked = _ASKED.validate_json(sys.stdin.buffer.read())
    if isinstance(asked, Order):
        print(asyncio.run(send(asked)).model_dump_json())
    else:
        print(FATES.dump_json(asyncio.run(keep(asked))).decode())


if __name__ == "__main__":
    main()
