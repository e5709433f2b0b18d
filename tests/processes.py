"""Real processes for the tests: the shop, the API and workers, started quickly and killed for real.

They come from a fork server that has imported everything once, so a process starts in milliseconds; it is an
operating-system process all the same, and ``kill -9`` is the real thing.
"""

import asyncio
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TextIO

import httpx

PRELOAD = [
    "tests.processes",
    "alembic.command",
    "app.cli",
    "app.intake.cloudwatch",
    "app.intake.generic",
    "app.intake.grafana",
    "app.intake.slack",
    "app.main",
    "app.replay",
    "app.worker",
    "app.runner",
    "app.simulator.server",
    "collectors.aws",
    "langgraph.checkpoint.postgres",
    "uvicorn",
]

# One for all: each new client reads the certificates of the world first.
CLIENT = httpx.Client(timeout=5, limits=httpx.Limits(max_keepalive_connections=0))

context: ForkServerContext = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(PRELOAD)


def spawn(target: Callable[..., None], log: Path, environment: Mapping[str, str], *arguments: object) -> BaseProcess:
    """Run ``target(*arguments)`` in a process with this environment; its output goes to ``log``."""
    process = context.Process(target=_child, args=(target, str(log), dict(environment), arguments), daemon=True)
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """SIGKILL, and wait until the process is gone."""
    if process.pid and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(10)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Poll until the condition holds; a TimeoutError names what was waited for."""
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(what)
        time.sleep(0.05)


def answers(url: str) -> bool:
    """Whether a GET is answered with 2xx."""
    try:
        return CLIENT.get(url).is_success
    except httpx.TransportError:
        return False


def _child(
    target: Callable[..., None], log: str, environment: Mapping[str, str], arguments: tuple[object, ...]
) -> None:
    os.environ.update(environment)
    output: TextIO = Path(log).open("a", buffering=1)  # noqa: SIM115  the process's own until it ends
    sys.stdout = sys.stderr = output
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    target(*arguments)


# --- what runs in the children ---


def run_shop(scenario: str, clock: str, port: int) -> None:
    """The simulated shop."""
    import uvicorn

    from app.clock import parse_clock
    from app.simulator.scenarios import SCENARIOS
    from app.simulator.server import create_app
    from app.simulator.shop import Shop

    shop = Shop(SCENARIOS[scenario], parse_clock(clock), seed=7)
    uvicorn.run(create_app(shop), host="127.0.0.1", port=port, log_level="warning")


def run_api(database_url: str, port: int, worker: bool) -> None:
    """``autopilot serve --no-console``."""
    import uvicorn

    from app.main import create_app
    from app.settings import Settings

    app = create_app(Settings(), database_url, worker=worker)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=2)


def run_worker(database_url: str) -> None:
    """``autopilot worker``."""
    from app.settings import Settings
    from app.wiring import assembled
    from app.worker import work

    async def until_told() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        async with assembled(Settings(), database_url) as product:
            await work(product, stop)

    asyncio.run(until_told())


def run_command(*arguments: str) -> None:
    """``autopilot …``, without the seconds that a new interpreter needs for its imports."""
    from app.cli import main

    sys.argv = ["autopilot", *arguments]
    main()


def run_rubbish(body: str, port: int) -> None:
    """A server that answers 200 and always the same, whatever it is asked."""
    import uvicorn
    from fastapi import FastAPI, Response

    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def completions() -> Response:
        return Response(body, media_type="application/json")

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
