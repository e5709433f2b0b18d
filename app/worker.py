"""A worker: takes jobs and moves incidents on, until it is told to stop."""

import asyncio

from app.jobs import register_jobs, run_worker
from app.runner import Runner
from app.wiring import Product


async def work(product: Product, stop: asyncio.Event) -> None:
    """Run jobs until ``stop``; the one running is handed on if it takes too long to end."""
    runner = Runner(product.pool, product.deps)
    register_jobs(product, runner)
    await run_worker(product, runner, stop)
