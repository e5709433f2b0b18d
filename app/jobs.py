"""The jobs, the loop that runs them, and the sweep that finds what a dead process left behind."""

import asyncio
import contextlib
import logging
from datetime import UTC, datetime

import procrastinate
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from psycopg import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout

from app.db import transaction
from app.queue import ADVANCE, enqueue_advance
from app.runner import LOCK_SPACE, Busy, Runner
from app.store import jobs

log = logging.getLogger(__name__)

MAX_FAILURES = 5  # of the analysis itself; a database that is away does not count
MAX_DEATHS = 20  # of workers, before one incident is taken for the killer
FORGOTTEN_AFTER_S = 30.0  # well above the time between two projections of a living run's start
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout, ConnectorException)


class Persevere(procrastinate.BaseRetryStrategy):
    """Again and again, less and less often. What must end is ended by ``give_up``, never by running out of tries."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> procrastinate.RetryDecision:
        """2, 4, … at most 30 seconds."""
        return procrastinate.RetryDecision(retry_in={"seconds": min(2 + 2 * job.attempts, 30)})


def register_jobs(queue: procrastinate.App, runner: Runner) -> None:
    """Give the queue its task."""

    @queue.task(name=ADVANCE, retry=Persevere())
    async def advance(incident_id: str) -> None:
        """Start, continue after a crash, or resume: whatever this incident needs."""
        try:
            await runner.advance(incident_id)
        except (Busy, *DATABASE_AWAY):
            raise  # nobody's fault
        except Exception as error:
            if await runner.count_failure(incident_id) >= MAX_FAILURES:
                await runner.give_up(incident_id, f"{type(error).__name__}: {error}")
            raise


async def run_worker(
    queue: procrastinate.App, runner: Runner, stop: asyncio.Event, *, concurrency: int, stalled_after_s: float
) -> None:
    """Work until ``stop``. The worker returns when Postgres restarts; this loop starts it again."""
    stopping = asyncio.create_task(stop.wait())
    sweeping = asyncio.create_task(_sweep_for_ever(queue, runner, stalled_after_s))
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
            await _pause(stopping, 1)
    stopping.cancel()
    sweeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sweeping


async def _pause(stopping: "asyncio.Task[bool]", seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(stopping), timeout=seconds)


async def _sweep_for_ever(queue: procrastinate.App, runner: Runner, stalled_after_s: float) -> None:
    """Not a job itself: it must run also while all slots are taken."""
    while True:
        await asyncio.sleep(stalled_after_s / 2)
        try:
            await sweep(queue, runner, stalled_after_s)
        except DATABASE_AWAY as error:
            log.warning("the sweep waits for the database: %s", error)
        except Exception:  # the sweep must outlive whatever ended one of its rounds
            log.exception("a sweep failed; the next one follows")


async def sweep(
    queue: procrastinate.App, runner: Runner, stalled_after_s: float, *, forgotten_after_s: float = FORGOTTEN_AFTER_S
) -> None:
    """Hand the jobs of dead workers to living ones, and give every open incident a job that lost its own."""
    manager = queue.job_manager
    async with transaction(runner.pool) as connection:
        row = await (
            await connection.execute("select pg_try_advisory_xact_lock(hashtextextended('sweep', 7)) as mine")
        ).fetchone()
        if not row or not row["mine"]:
            return  # another worker sweeps
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after_s):
            incident_id = str(job.task_kwargs["incident_id"])
            if await jobs.held(connection, LOCK_SPACE, incident_id):
                continue  # its worker lives, and was only late to say so
            log.warning("job %s of a dead worker is tried again: %s", job.id, incident_id)
            if await runner.count_failure(incident_id) >= MAX_DEATHS:
                await runner.give_up(incident_id, "it ended worker after worker")
            await manager.retry_job(job)
        for orphan in await jobs.orphaned(connection, LOCK_SPACE, forgotten_after_s):
            log.warning("job %s ended unrecorded and is tried again: %s", orphan["id"], orphan["incident_id"])
            await manager.retry_job_by_id_async(job_id=orphan["id"], retry_at=datetime.now(UTC))
        for incident_id in await jobs.forgotten(connection, forgotten_after_s):
            log.warning("incident %s had no job", incident_id)
            await enqueue_advance(queue, connection, incident_id)
