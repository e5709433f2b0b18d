"""The embedded Postgres and the migrations."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from app.db import create_pool
from app.embedded_postgres import EmbeddedPostgres


def _tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


def test_six_processes_migrate_at_once(postgres: EmbeddedPostgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("create database six")
    url = postgres.url.replace("/postgres?", "/six?")
    command = [sys.executable, "-m", "app", "migrate"]
    environment = {**os.environ, "DATABASE_URL": url}
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(6)]
    errors = [process.communicate(timeout=60)[1] for process in started]
    assert [p.returncode for p in started] == [0] * 6, errors
    assert {"incident", "step", "procrastinate_jobs", "checkpoints", "alembic_version"} <= _tables(url)


def test_a_second_start_joins_and_a_stop_by_the_wrong_one_does_nothing(postgres: EmbeddedPostgres) -> None:
    other = EmbeddedPostgres(postgres.data).start()
    assert not other.started_here
    other.stop_if_unused()
    assert postgres.answers()


def test_starts_again_after_the_server_was_killed() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ap-"))
    server = EmbeddedPostgres(folder / "pg").start()
    try:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create table kept (x int)")
        os.kill(int((server.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        time.sleep(0.1)
        EmbeddedPostgres(server.data).start()
        assert "kept" in _tables(server.url)
        assert server.data.stat().st_mode & 0o777 == 0o700
    finally:
        server.stop()
        shutil.rmtree(folder)


async def test_times_are_utc_wherever_the_server_stands(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "do $$ begin"
            " execute format('alter database %I set timezone to %L', current_database(), 'Asia/Seoul'); end $$"
        )
    async with create_pool(database_url) as pool, pool.connection() as connection_of_pool:
        row = await (await connection_of_pool.execute("select timestamptz '2024-12-20T09:15:00Z' as at")).fetchone()
    assert row is not None
    assert row["at"].isoformat() == "2024-12-20T09:15:00+00:00"
