"""The jobs, the loop that runs them, and the sweep that finds what a dead process left behind."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import procrastinate
from procrastinate import JobContext
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import DEFAULT_QUEUE, Job
from psycopg import InterfaceError, OperationalError
from psycopg_pool import PoolTimeout

from app import freezing, waiting
from app.admission import admit
from app.alerts import Delivery, accept, bury
from app.db import transaction, try_lock
from app.intake.base import Parsed, UnreadablePayload, digest_key
from app.knowledge import remember
from app.outbox import AT_ONCE_OF_A_NOTIFIER, JOB_S, dispatch_for_ever, send_due
from app.pull import pull_for_ever
from app.queue import (
    ADVANCE,
    EMBED_CASES,
    ESCALATE,
    LEARN_CASE,
    MESSAGES,
    SEND,
    SENDER_JOB,
    SLACK_ANSWER,
    SLACK_DECISION,
    enqueue_advance,
    enqueue_embedding,
    enqueue_learning,
)
from app.runner import LOCK_SPACE, Busy, Runner
from app.slack_decisions import answer_click, decide_click
from app.store import jobs, vectors
from app.store import knowledge as cases
from app.wiring import Product

log = logging.getLogger(__name__)

MAX_FAILURES = 5  # of the analysis itself; a database that is away does not count
MAX_ASKED = 20  # of a vendor that does not answer: some nine minutes
MAX_ESCALATED = 20  # tries to tell the hook: some nine minutes
MAX_DECIDED = 10  # tries to decide what was clicked: some two minutes
MAX_ANSWERED = 4  # tries to tell who clicked; Slack takes five answers
MAX_LEARNED = 10  # tries to write a case; the incident is over, and is as it was without it
MAX_LEARNING = 100  # incidents that a round of the sweep asks workers to learn
MAX_DEATHS = 20  # of workers, before one incident is taken for the killer
FORGOTTEN_AFTER_S = 30.0  # well above the time between two projections of a living run's start
STUCK_AFTER_S = 5 * JOB_S  # a job that sends ends well before
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeout, ConnectorException)


class Persevere(procrastinate.BaseRetryStrategy):
    """Again and again, less and less often. What must end is ended by ``give_up``, never by running out of tries."""

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> procrastinate.RetryDecision:
        """2, 4, … at most 30 seconds."""
        return procrastinate.RetryDecision(retry_in={"seconds": min(2 + 2 * job.attempts, 30)})


def register_jobs(product: Product, runner: Runner) -> None:
    """Give the queue its tasks."""

    @product.queue.task(name=ADVANCE, retry=Persevere())
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
        await admit_waiting(product, touched=())  # it has left its place

    @product.queue.task(name=SENDER_JOB, retry=Persevere(), pass_context=True)
    async def sender_job(context: JobContext, sender: str, arguments: dict[str, str], raw_id: str) -> None:
        """Ask a vendor what a delivery was about, and take its answer for a delivery of its own."""
        await ask(product, sender, arguments, UUID(raw_id), last_time=context.job.attempts >= MAX_ASKED)

    @product.queue.task(name=ESCALATE, retry=Persevere(), pass_context=True)
    async def escalate(context: JobContext, incident_id: str, plan_revision: str) -> None:
        """Tell the hook that nobody decides."""
        last_time = context.job.attempts >= MAX_ESCALATED
        await waiting.escalate(product.desk, incident_id, plan_revision, last_time=last_time)

    @product.queue.task(name=SLACK_DECISION, retry=Persevere(), pass_context=True)
    async def slack_decision(context: JobContext, raw_id: str) -> None:
        """Decide what was clicked."""
        tried = context.job.attempts
        await decide_click(product, UUID(raw_id), again=tried > 0, last_time=tried >= MAX_DECIDED)

    @product.queue.task(name=SLACK_ANSWER, retry=Persevere(), pass_context=True)
    async def slack_answer(context: JobContext, raw_id: str, text: str) -> None:
        """Tell who clicked."""
        await answer_click(product, UUID(raw_id), text, last_time=context.job.attempts >= MAX_ANSWERED)

    @product.queue.task(name=SEND, queue=MESSAGES, retry=Persevere())
    async def send(incident_id: str, notifier: str, target: str) -> None:
        """Tell a target what is due, this incident first."""
        await send_due(product, incident_id, notifier, target)

    _register_memory(product)


def _register_memory(product: Product) -> None:
    @product.queue.task(name=LEARN_CASE, retry=Persevere(), pass_context=True)
    async def learn_case(context: JobContext, incident_id: str) -> None:
        """Write the case of an incident that is over."""
        await learn(product, incident_id, last_time=context.job.attempts >= MAX_LEARNED)

    @product.queue.task(name=EMBED_CASES)
    async def embed_cases() -> None:
        """Make the vectors that are missing; what fails is found by a later sweep."""
        if product.desk.embedder:
            while await remember.embed_some(product.pool, product.desk.embedder):
                pass


async def learn(product: Product, incident_id: str, *, last_time: bool) -> None:
    """Write a case; what cannot be written is left out of the memory in the end. Raises whatever may pass."""
    try:
        await remember.remember(product.desk, incident_id)
    except DATABASE_AWAY:
        raise  # it says nothing of the incident
    except Exception:
        if not last_time:
            raise
        log.exception("incident %s is left out of the memory", incident_id)
        async with transaction(product.pool) as connection:
            await cases.learned(connection, incident_id)


async def learn_ended(product: Product) -> None:
    """Ask for the cases of incidents that ended, whoever ended them and whenever, and for vectors that are missing."""
    async with transaction(product.pool) as connection:
        if not await try_lock(connection, "learn", LOCK_SPACE):
            return  # another worker looks
        await enqueue_learning(product.queue, connection, await cases.unlearned(connection, MAX_LEARNING))
        if product.desk.embedder and await vectors.any_unembedded(connection):
            await enqueue_embedding(product.queue, connection)


async def ask(product: Product, sender: str, arguments: dict[str, str], raw_id: UUID, *, last_time: bool) -> None:
    """Ask a vendor; a delivery that cannot be cleared up becomes a dead letter. Raises whatever may pass."""
    try:
        parsed = await product.senders[sender].perform(arguments, product.directory)
    except UnreadablePayload as error:
        await bury(product.desk, raw_id, str(error))
    except Exception as error:
        if not last_time:
            raise
        await bury(product.desk, raw_id, f"{sender} did not answer: {type(error).__name__}: {error}")
    else:
        await accept(product.desk, [_answer(sender, arguments, raw_id, parsed)])


def _answer(sender: str, arguments: dict[str, str], raw_id: UUID, parsed: Parsed) -> Delivery:
    """Asked twice, because a worker died, it is one delivery all the same."""
    asked = json.dumps({"asked": arguments, "because_of": str(raw_id)}, sort_keys=True)
    key = f"read:{digest_key(sender, asked)}"
    return Delivery(sender, {}, asked.encode(), replace(parsed, delivery_key=key), part="read")


async def admit_waiting(product: Product, touched: Sequence[str] | None = None) -> None:
    """Begin the investigations that the budget allows now; and, without ``touched``, say again why the others wait."""
    async with transaction(product.pool) as connection:
        await admit(connection, product.queue, product.clock, product.desk.budget, touched=touched)


async def run_worker(product: Product, runner: Runner, stop: asyncio.Event) -> None:
    """Work until ``stop``: messages in places of their own, for whoever has notifiers, and a few tasks beside."""
    stopping = asyncio.create_task(stop.wait())
    beside = [
        asyncio.create_task(_sweep_for_ever(product, runner, product.settings.stalled_after_s)),
        asyncio.create_task(pull_for_ever(product)),
        asyncio.create_task(dispatch_for_ever(product)),
    ]
    places = {DEFAULT_QUEUE: product.settings.worker_concurrency}
    if product.notifiers:
        places[MESSAGES] = AT_ONCE_OF_A_NOTIFIER * len(product.notifiers)
    await asyncio.gather(*(_work_off(product, queue, at_once, stop, stopping) for queue, at_once in places.items()))
    stopping.cancel()
    for task in beside:
        task.cancel()
    await asyncio.wait(beside)


async def _work_off(
    product: Product, queue_name: str, at_once: int, stop: asyncio.Event, stopping: "asyncio.Task[bool]"
) -> None:
    """The jobs of one queue. The worker returns when Postgres restarts; this loop starts it again."""
    queue, stalled_after_s = product.queue, product.settings.stalled_after_s
    while not stop.is_set():
        worker = asyncio.create_task(
            queue.run_worker_async(
                queues=[queue_name],
                concurrency=at_once,
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


async def _pause(stopping: "asyncio.Task[bool]", seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(stopping), timeout=seconds)


async def _sweep_for_ever(product: Product, runner: Runner, stalled_after_s: float) -> None:
    """Not a job itself: it must run also while all slots are taken."""
    rounds: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = (
        partial(sweep, product.queue, runner, stalled_after_s),
        partial(admit_waiting, product),
        partial(waiting.look, product.desk),
        partial(freezing.tell, product.pool, product.clock),
        partial(learn_ended, product),
    )
    while True:
        await asyncio.sleep(stalled_after_s / 2)
        for one in rounds:
            try:
                await one()
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
        if not await try_lock(connection, "sweep", LOCK_SPACE):
            return  # another worker sweeps
        for job in await manager.get_stalled_jobs(seconds_since_heartbeat=stalled_after_s):
            if job.task_name != ADVANCE:
                await manager.retry_job(job)
                continue
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
        for job_id in await jobs.stuck(connection, SEND, STUCK_AFTER_S):
            log.warning("job %s sends no more and is tried again", job_id)
            await manager.retry_job_by_id_async(job_id=job_id, retry_at=datetime.now(UTC))
        await jobs.drop_failed(connection, MESSAGES)
        for incident_id in await jobs.forgotten(connection, forgotten_after_s):
            log.warning("incident %s had no job", incident_id)
            await enqueue_advance(queue, connection, incident_id)
