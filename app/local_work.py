"""What the command line does on the database itself, as the person who runs it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.audit import check_key
from app.clock import Clock, parse_clock
from app.db import Pool, create_pool
from app.security import Caller, local_caller
from app.settings import Settings

T = TypeVar("T")


def as_local_caller(url: str, settings: Settings, work: Callable[[Pool, Clock, Caller], Awaitable[T]]) -> T:
    """Run it with a pool of its own, once the key of the audit log is known to be the right one."""

    async def once() -> T:
        async with create_pool(url, min_size=1, max_size=2, audit_keys=settings.audit_key) as pool:
            async with pool.connection() as connection:
                await check_key(connection)
            return await work(pool, parse_clock(settings.clock), local_caller())

    return asyncio.run(once())
