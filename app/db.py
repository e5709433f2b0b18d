"""The connection pool, and the migration of everything that lives in Postgres."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from procrastinate.exceptions import ConnectorException
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from pydantic import SecretStr

from app.embedded_postgres import EmbeddedPostgres
from app.settings import Settings
from app.signing import sign_with

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
Row = dict[str, Any]
T = TypeVar("T")

DATABASE_AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.InternalError,
    PoolTimeout,
    ConnectorException,
    TimeoutError,
)
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
MIGRATION_LOCK = 4_242_001  # any constant; all processes use the same


@contextmanager
def running_database(settings: Settings) -> Iterator[str]:
    """The URL of the database; starts the embedded Postgres where no ``DATABASE_URL`` is set.

    An embedded server that this process started is stopped at the end, unless others use it.
    """
    if settings.database_url:
        yield settings.database_url.get_secret_value()
        return
    server = EmbeddedPostgres(settings.data_dir / "pg").start()
    try:
        yield server.url
    finally:
        server.stop_if_unused()


def create_pool(
    url: str,
    *,
    min_size: int = 2,
    max_size: int = 20,
    connection_class: type[Connection] = AsyncConnection[DictRow],
    audit_keys: Sequence[SecretStr] = (),
) -> Pool:
    """A closed pool; open it with ``async with``. Connections are in autocommit mode, rows are dicts.

    ``audit_keys``: the setting AUTOPILOT_AUDIT_KEY.
    """

    async def configure(connection: Connection) -> None:
        # Not by `kwargs`: procrastinate's listener passes its own autocommit and would get it twice.
        await connection.set_autocommit(True)
        await connection.execute("set time zone 'UTC'")  # what we show as UTC must be it, wherever the server stands
        connection.prepare_threshold = 0
        connection.row_factory = dict_row
        sign_with(connection, audit_keys)

    return AsyncConnectionPool(
        url,
        connection_class=connection_class,
        min_size=min_size,
        max_size=max_size,
        timeout=3.0,  # an alert's sender waits 3 to 15 s; it gets its 503 well before
        reconnect_timeout=60.0,
        open=False,
        check=AsyncConnectionPool.check_connection,
        configure=configure,
        kwargs={"connect_timeout": 3, "application_name": "autopilot", "tcp_user_timeout": 10_000},
    )


@asynccontextmanager
async def transaction(pool: Pool, *, within_s: float | None = None) -> AsyncIterator[Connection]:
    """One connection inside one transaction. Raises TimeoutError if it takes longer than ``within_s``."""
    async with asyncio.timeout(within_s), pool.connection() as connection, connection.transaction():
        yield connection


async def try_lock(connection: Connection, key: str, space: int) -> bool:
    """Whether this transaction alone has the advisory lock now, and until it ends; it does not wait for it."""
    row = await (
        await connection.execute("select pg_try_advisory_xact_lock(hashtextextended(%s, %s)) as mine", (key, space))
    ).fetchone()
    return bool(row and row["mine"])


@asynccontextmanager
async def pipelined_transaction(pool: Pool, *, within_s: float | None = None) -> AsyncIterator[Connection]:
    """The same, where statements whose rows nobody reads yet share a round trip; so may those of ``all_at_once``."""
    async with (
        asyncio.timeout(within_s),
        pool.connection() as connection,
        connection.pipeline(),
        connection.transaction(),
    ):
        yield connection


async def all_at_once(*reads: Awaitable[Any]) -> list[Any]:
    """The results of reads that do not need one another's. Raises the error of the one that failed."""
    results = await asyncio.gather(*reads, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:  # those after it in a pipeline fail only because it did
        raise next((e for e in errors if not isinstance(e, psycopg.errors.PipelineAborted)), errors[0])
    return results


def in_one_transaction(
    url: str, work: Callable[[Connection], Awaitable[T]], *, audit_keys: Sequence[SecretStr] = ()
) -> T:
    """Do one piece of work from synchronous code, on a connection of its own, and commit it."""

    async def once() -> T:
        async with create_pool(url, audit_keys=audit_keys) as pool, transaction(pool) as connection:
            return await work(connection)

    return asyncio.run(once())


def migrate(url: str) -> None:
    """Bring our tables, the queue's and LangGraph's up to date. Idempotent; safe from many processes at once."""
    from alembic import command
    from alembic.config import Config
    from langgraph.checkpoint.postgres import PostgresSaver

    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        _wait_for_migration_lock(connection)
        try:
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["url"] = url
            command.upgrade(config, "head")
            _install_queue(connection)
            PostgresSaver(connection).setup()
        finally:
            connection.execute("select pg_advisory_unlock(%s)", (MIGRATION_LOCK,))


def _wait_for_migration_lock(connection: psycopg.Connection[DictRow]) -> None:
    """Ask again and again: a session that waits inside ``pg_advisory_lock`` holds a snapshot, and LangGraph's
    ``create index concurrently`` waits for all of those: a deadlock.
    """
    while True:
        row = connection.execute("select pg_try_advisory_lock(%s) as mine", (MIGRATION_LOCK,)).fetchone()
        if row and row["mine"]:
            return
        time.sleep(0.1)


def _install_queue(connection: psycopg.Connection[DictRow]) -> None:
    from procrastinate.schema import SchemaManager

    row = connection.execute("select to_regclass('procrastinate_jobs') as found").fetchone()
    if row and row["found"] is None:
        # Several statements in one string: they cannot be prepared.
        connection.execute(SchemaManager.get_schema(), prepare=False)
