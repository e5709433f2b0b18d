"""A worker: takes jobs and moves incidents on, until it is told to stop."""

import asyncio

from app.audit import record_configuration
from app.db import transaction
from app.jobs import register_jobs, run_worker
from app.runner import Runner
from app.wiring import Product


async def work(product: Product, stop: asyncio.Event) -> None:
    """Run jobs until ``stop``; the one running is handed on if it takes too long to end."""
    async with transaction(product.pool) as connection:
        await record_configuration(connection, product)
    runner = Runner(product.pool, product.deps)
    register_jobs(product, runner)
    await run_worker(product, runner, stop)
