"""A shop whose clock is advanced by hand, and the same shop behind a real port."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

import httpx
import pytest
import uvicorn

from app.simulator.scenarios import SCENARIOS
from app.simulator.server import create_app
from app.simulator.shop import Shop


class HandClock:
    """Stands still until it is advanced."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def advance(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@dataclass
class Stage:
    """A shop and the clock that moves it."""

    shop: Shop
    clock: HandClock

    def advance(self, minutes: float) -> None:
        """Let the shop live for so many minutes."""
        self.clock.advance(60.0 * minutes)
        with self.shop.live():
            pass

    def metric(self, service: str, name: str, ticks: int = 3) -> float:
        """Mean over the last few ticks and all hosts."""
        with self.shop.live():
            found = [tick.metrics[service][name] for tick in self.shop.latest(ticks)]
        values = [value for hosts in found for value in hosts.values()]
        return sum(values) / len(values)

    def healthy(self, service: str) -> int:
        """Tasks that pass the health check now."""
        with self.shop.live():
            return self.shop.latest(1)[0].loads[service].healthy


SetTheStage = Callable[..., Stage]


def set_the_stage(name: str, minutes: float, seed: int = 1) -> Stage:
    """The shop of a scenario so many minutes after its onset."""
    clock = HandClock(SCENARIOS[name].occurred_at + timedelta(minutes=minutes))
    return Stage(Shop(SCENARIOS[name], clock, seed=seed), clock)


@pytest.fixture
def stage() -> SetTheStage:
    """``stage("black-friday", minutes=5)``."""
    return set_the_stage


@dataclass
class Served(Stage):
    """A shop that listens."""

    url: str


@contextmanager
def served(name: str, minutes: float) -> Iterator[Served]:
    """A shop behind a port of this machine."""
    staged = set_the_stage(name, minutes)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(staged.shop), log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Served(staged.shop, staged.clock, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(timeout=10)


@pytest.fixture
def serve() -> Iterator[Callable[[str, float], Served]]:
    """``serve("black-friday", 5)``: as ``stage``, behind a port."""
    with ExitStack() as stack:
        yield lambda name, minutes: stack.enter_context(served(name, minutes))


@pytest.fixture
def datadog() -> Iterator[Callable[[str], httpx.Client]]:
    """A client that carries keys, any keys."""
    with ExitStack() as stack:
        yield lambda url: stack.enter_context(
            httpx.Client(base_url=url, headers={"DD-API-KEY": "a", "DD-APPLICATION-KEY": "b"}, timeout=10.0)
        )
