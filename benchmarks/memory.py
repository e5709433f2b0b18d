"""Resident memory of the product's processes: after their start, and after fifty incidents."""

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from app.catalogue import load
from app.simulator.scenarios import SCENARIOS
from benchmarks.results import Table
from benchmarks.setting import Popen, Setting, await_count, await_ready, await_worker, environment, python
from tests.conftest import World, make_key
from tests.processes import free_port

INCIDENTS = 50
ANALYSED_WITHIN_S = 90
SETTLES_S = 1.0
LEAN, CONSOLE, ALL, WORKER = (
    "serve --no-worker --no-console",
    "serve --no-worker --console",
    "serve",
    "worker",
)
GROUPS = ((LEAN, WORKER), (CONSOLE,), (ALL,))  # started together, on one database


@dataclass(frozen=True)
class Resident:
    """Of one process, in MB; ``analysed`` of the incidents reached a decision meanwhile."""

    name: str
    idle: float
    after: float
    analysed: int


def measure(setting: Setting) -> list[Table]:
    """One start each: resident memory hardly varies between starts."""
    found = [one for commands in GROUPS for one in _group(setting, commands)]
    reference = found[0]
    rows = [
        (
            f"`autopilot {one.name}`",
            f"{one.idle:,.0f} MB",
            f"{one.idle / reference.idle:.2f} x",
            f"{one.after:,.0f} MB",
            f"{one.after / one.idle:.2f} x",
            str(one.analysed),
        )
        for one in found
    ]
    return [
        Table(
            f"Resident memory, idle and after {INCIDENTS} incidents' webhooks",
            ("process", "idle", f"of {LEAN}", "after", "of its own idle", "analysed"),
            rows,
            "n = 1. Workers read the simulated shop, which shares the machine, through the Datadog and AWS collectors,"
            f" rules engine, ten incidents at once; measured when all reached a decision, or after {ANALYSED_WITHIN_S}"
            " s with as many as `analysed` says.",
        )
    ]


def _group(setting: Setting, commands: Sequence[str]) -> Iterator[Resident]:
    """The first command serves; incidents are analysed where one of them works."""
    setting.tell(f"memory: autopilot {', '.join(commands)}")
    works = any(command in (ALL, WORKER) for command in commands)
    with ExitStack() as stack:
        world = World("black-friday", setting.database(), setting.subfolder("memory"), speed=1.0, stack=stack)
        world.start_shop()
        port = free_port()
        processes = [stack.enter_context(_started(world, command, port)) for command in commands]
        if works:
            await_worker(world.database_url)
        time.sleep(SETTLES_S)
        idle = [resident_mb(process.pid) for process in processes]
        _open(world, port)
        analysed = _analysed(world.database_url) if works else 0
        time.sleep(SETTLES_S)
        for command, process, before in zip(commands, processes, idle, strict=True):
            yield Resident(command, before, resident_mb(process.pid), analysed if command in (ALL, WORKER) else 0)


@contextmanager
def _started(world: World, command: str, port: int) -> Iterator[Popen]:
    env: Mapping[str, str] = environment(world.database_url, **world.environment)
    name, *options = command.split()
    if name == WORKER:
        with python(world.folder, env, "app", name) as process:
            yield process
        return
    with python(world.folder, env, "app", name, *options, "--port", str(port)) as process:
        await_ready(process, f"http://127.0.0.1:{port}")
        yield process


def _open(world: World, port: int) -> None:
    """As persons ask for them, about every service in turn: alerts would be merged into a few incidents."""
    services = sorted(load(Path(world.environment["AUTOPILOT_CONFIG"])).services)
    key = make_key(world.database_url, "responder")
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:
        for number in range(INCIDENTS):
            at = SCENARIOS[world.scenario].occurred_at - timedelta(seconds=number)
            body = {"service": services[number % len(services)], "occurred_at": at.isoformat()}
            client.post("/incidents", json=body).raise_for_status()


def _analysed(database_url: str) -> int:
    statement = "select count(*) from incident where status = 'awaiting_decision'"
    return await_count(database_url, statement, INCIDENTS, ANALYSED_WITHIN_S)


def resident_mb(pid: int) -> float:
    """Resident set size, as ``ps`` tells it on Linux and macOS."""
    told = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=True)
    return int(told.stdout) / 1024
