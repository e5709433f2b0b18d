"""Where the benchmarks run: a Postgres, and the product's commands in processes of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.rows import TupleRow

from app.db import migrate
from app.embedded_postgres import EmbeddedPostgres
from tests.conftest import ROOT, TOKEN
from tests.processes import answers, wait_until

Popen = subprocess.Popen[bytes]
STARTS_WITHIN_S = 90
TEMPLATE = "template_autopilot"


class Skipped(Exception):
    """What this benchmark needs is not here; the text says how to get it."""


@dataclass
class Setting:
    """A folder for the run, a Postgres in it, and a line that says what is being done."""

    folder: Path
    postgres: EmbeddedPostgres
    tell: Callable[[str], None]
    nezha: Path
    databases: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        _execute(self.postgres.url, f"create database {TEMPLATE}")
        migrate(self._url(TEMPLATE))

    def database(self, *, migrated: bool = True) -> str:
        """The URL of a database nobody has used."""
        self.databases += 1
        name = f"b{self.databases}"
        _execute(self.postgres.url, f"create database {name}" + (f" template {TEMPLATE}" if migrated else ""))
        return self._url(name)

    def subfolder(self, name: str) -> Path:
        """A new folder, for logs and bundles."""
        self.databases += 1
        folder = self.folder / f"{name}-{self.databases}"
        folder.mkdir()
        return folder

    def _url(self, database: str) -> str:
        return self.postgres.url.replace("/postgres?", f"/{database}?")


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def query(url: str, statement: str, *values: object) -> list[TupleRow]:
    """All rows of one statement."""
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode(), values).fetchall()


def environment(database_url: str, **more: str) -> dict[str, str]:
    """What a command is started with: the shop's catalogue, no collectors, nothing of the developer's own."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),  # the benchmarks are no part of what is installed
        "DATABASE_URL": database_url,
        "AUTOPILOT_CONFIG": str(ROOT / "app" / "simulator" / "autopilot.yaml"),
        "AUTOPILOT_DATADOG_WEBHOOK_TOKENS": TOKEN,
        **more,
    }


@contextmanager
def python(folder: Path, env: Mapping[str, str], *arguments: str) -> Iterator[Popen]:
    """``python -m …`` until the block ends, its output in a file; in ``folder``, away from any ``.env``."""
    name = "-".join(arguments[:2])
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=dict(env),
            cwd=folder,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(8)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_ready(process: Popen, url: str) -> None:
    """Until ``/readyz`` answers. Raises RuntimeError where the process ended, TimeoutError."""

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        return answers(f"{url}/readyz")

    wait_until(ready, f"{url}/readyz", STARTS_WITHIN_S)


def await_worker(database_url: str, seconds: float = STARTS_WITHIN_S) -> None:
    """Until a worker has registered itself with the queue. Raises TimeoutError."""
    with psycopg.connect(database_url, autocommit=True) as connection:

        def registered() -> bool:
            try:
                row = connection.execute("select count(*) from procrastinate_workers").fetchone()
            except psycopg.errors.UndefinedTable:
                return False  # it is still migrating
            return bool(row and row[0])

        wait_until(registered, "a worker", seconds)


def await_count(database_url: str, statement: str, wanted: int, seconds: float) -> int:
    """Poll a count until it is as wanted, or the time is over; what it is then."""
    give_up = time.monotonic() + seconds
    with psycopg.connect(database_url, autocommit=True) as connection:
        while True:
            row = connection.execute(statement.encode()).fetchone()
            count = int(row[0]) if row else 0
            if count >= wanted or time.monotonic() > give_up:
                return count
            time.sleep(0.1)
