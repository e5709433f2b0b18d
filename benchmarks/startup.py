"""From exec to the first answer."""

import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

from app.embedded_postgres import EmbeddedPostgres
from benchmarks.memory import ALL, CONSOLE, LEAN, WORKER
from benchmarks.results import Table, duration, ratio
from benchmarks.setting import Setting, await_ready, await_worker, environment, python, query
from tests.processes import free_port

COLD, WARM = 1, 3
HELPS = 5
POSTGRES = 3


def measure(setting: Setting) -> list[Table]:
    """Cold: an empty database, which is migrated first. Files are in the page cache either way."""
    setting.tell("startup: bare server, autopilot --help")
    folder, url = setting.subfolder("startup"), setting.database()
    bare = [_served(folder, url, "benchmarks.bare") for _ in range(WARM)]
    rows: dict[str, list[float]] = {
        "bare FastAPI server with a Postgres pool (reference)": bare,
        "`autopilot --help`": [_seconds_of([sys.executable, "-m", "app", "--help"]) for _ in range(HELPS)],
    }
    for command in (LEAN, CONSOLE, ALL, WORKER):
        setting.tell(f"startup: autopilot {command}")
        cold, warm = _starts(setting, command)
        rows[f"`autopilot {command}`, cold"], rows[f"`autopilot {command}`, warm"] = cold, warm
    setting.tell("startup: embedded Postgres")
    first, again = zip(*(_postgres(setting.subfolder("pg")) for _ in range(POSTGRES)), strict=True)
    rows["embedded Postgres, first start (initdb)"], rows["embedded Postgres, later start"] = list(first), list(again)
    return [_table(rows.items(), median(bare))]


def _table(rows: Iterable[tuple[str, list[float]]], reference: float) -> Table:
    return Table(
        "From exec to ready",
        ("what", "median", "slowest", "n", "of the reference"),
        [
            (name, duration(median(times)), duration(max(times)), str(len(times)), ratio(median(times), reference))
            for name, times in rows
        ],
        "Ready: `/readyz` answers; a worker: it is registered with the queue; Postgres: it accepts connections. Cold:"
        " an empty database, to be migrated; warm: the same again. File caches are warm in both. Polled every 50 ms.",
    )


def _seconds_of(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _starts(setting: Setting, command: str) -> tuple[list[float], list[float]]:
    """Seconds of cold and of warm starts; the last cold one's database is the warm ones'."""
    folder, cold = setting.subfolder("startup"), []
    for _ in range(COLD):
        url = setting.database(migrated=False)
        cold.append(_start(folder, url, command))
    return cold, [_start(folder, url, command) for _ in range(WARM)]


def _start(folder: Path, url: str, command: str) -> float:
    if command != WORKER:
        return _served(folder, url, "app", *command.split())
    started = time.perf_counter()
    with python(folder, environment(url), "app", command):
        await_worker(url)
        seconds = time.perf_counter() - started
    # one that was killed leaves its row, and would be taken for the next one
    query(url, "with gone as (delete from procrastinate_workers returning id) select count(*) from gone")
    return seconds


def _served(folder: Path, url: str, *arguments: str) -> float:
    port = free_port()
    started = time.perf_counter()
    with python(folder, environment(url), *arguments, "--port", str(port)) as process:
        await_ready(process, f"http://127.0.0.1:{port}")
        return time.perf_counter() - started


def _postgres(folder: Path) -> tuple[float, float]:
    """Seconds of the first start and of the second."""

    def seconds() -> Iterator[float]:
        for _ in range(2):
            server = EmbeddedPostgres(folder / "pg")
            started = time.perf_counter()
            server.start()
            yield time.perf_counter() - started
            server.stop()

    first, again = seconds()
    return first, again
