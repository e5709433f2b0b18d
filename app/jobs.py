"""The jobs, and the loop that runs them."""

import asyncio
import contextlib
import logging

import procrastinate
from procrastinate.exceptions import ConnectorException
from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from app.queue import ADVANCE
from app.runner import Busy, Runner

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 8
RETRY = procrastinate.RetryStrategy(max_attempts=MAX_ATTEMPTS, wait=2, linear_wait=2)
DATABASE_GONE = (OperationalError, PoolTimeout, ConnectorException)


def register_jobs(queue: procrastinate.App, runner: Runner, *, stalled_after_s: float) -> None:
    """Give the queue its tasks."""

    @queue.task(name=ADVANCE, retry=RETRY, pass_context=True)
    async def advance(context: procrastinate.JobContext, incident_id: str) -> None:
        """Start, continue after a crash, or resume: whatever this incident needs."""
        try:
            await runner.advance(incident_id)
        except (Busy, *DATABASE_GONE):
            raise  # nobody's fault; tried again
        except Exception as error:
            if context.job.attempts + 1 >= MAX_ATTEMPTS:
                await runner.give_up(incident_id, error)
            raise

    @queue.periodic(cron="* * * * * */5")  # six fields: the last one is seconds
    @queue.task(name="rescue", queueing_lock="rescue", pass_context=True)
    async def rescue(context: procrastinate.JobContext, timestamp: int) -> None:
        """Hand the jobs of dead workers to living ones."""
        manager = context.app.job_manager
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after_s):
            log.warning("job %s of a dead worker is tried again: %s", job.id, job.task_kwargs)
            await manager.retry_job(job)


async def run_worker(
    queue: procrastinate.App, stop: asyncio.Event, *, concurrency: int, stalled_after_s: float
) -> None:
    """Work until ``stop``. The worker returns when Postgres restarts; this loop starts it again."""
    stopping = asyncio.create_task(stop.wait())
    while not stop.is_set():
        worker = asyncio.create_task(
            queue.run_worker_async(
                concurrency=concurrency,
                install_signal_handlers=False,
                fetch_job_polling_interval=1,  # rescued and retried jobs are found by polling
                update_heartbeat_interval=stalled_after_s / 3,
                stalled_worker_timeout=stalled_after_s,
                shutdown_graceful_timeout=5,
                delete_jobs="successful",
            )
        )
        await asyncio.wait({worker, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            worker.cancel()
        try:
            await worker
        except asyncio.CancelledError:
            pass
        except Exception:  # a worker must outlive whatever ended its loop
            log.exception("the worker stopped; it starts again")
        if not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(stopping), timeout=1)
    stopping.cancel()
