"""The job queue: procrastinate on the same Postgres, so that a job is enqueued in the caller's transaction."""

from collections.abc import Mapping, Sequence

import procrastinate

from app.db import Connection, Row

ADVANCE = "advance"
SENDER_JOB = "sender_job"
ESCALATE = "escalate"
SLACK_DECISION = "slack_decision"
SLACK_ANSWER = "slack_answer"
LEARN_CASE = "learn_case"
EMBED_CASES = "embed_cases"
SEND = "send"
MESSAGES = "messages"  # a queue of its own: whoever does not answer keeps no investigation waiting


def create_queue(url: str) -> procrastinate.App:
    """An app without tasks: enough to enqueue. ``app.jobs`` adds the tasks for workers.

    It has a small pool of its own: recording a job's end must not wait behind the pages and collectors.
    """
    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=4))


async def enqueue_advance_all(queue: procrastinate.App, connection: Connection, incident_ids: Sequence[str]) -> None:
    """Ask workers to move these on; part of the caller's transaction, and one statement.

    The lock lets one such job of an incident run at a time, on all machines together.
    """
    jobs = [queue.configure_task(ADVANCE, lock=f"incident:{i}").make_new_job(incident_id=i) for i in incident_ids]
    await queue.job_manager.batch_defer_jobs_async(jobs, connection=connection)


async def enqueue_send_all(queue: procrastinate.App, connection: Connection, conversations: Sequence[Row]) -> None:
    """Ask workers to send what is due to each of these (incident_id, notifier, target); one statement.

    Whoever claims the first message of a conversation has it alone, so they keep their order; the lock spares attempts.
    """
    jobs = [
        queue.configure_task(
            SEND, queue=MESSAGES, lock=f"send:{row['notifier']}:{row['target']}:{row['incident_id']}"
        ).make_new_job(**{name: row[name] for name in ("incident_id", "notifier", "target")})
        for row in conversations
    ]
    if jobs:
        await queue.job_manager.batch_defer_jobs_async(jobs, connection=connection)


async def enqueue_sender_job(
    queue: procrastinate.App, connection: Connection, sender: str, arguments: Mapping[str, str], raw_id: str
) -> None:
    """Ask a worker to ask a vendor; part of the caller's transaction."""
    task = queue.configure_task(SENDER_JOB, connection=connection)
    await task.defer_async(sender=sender, arguments=dict(arguments), raw_id=raw_id)


async def enqueue_advance(queue: procrastinate.App, connection: Connection, incident_id: str) -> None:
    """Ask a worker to move one on; part of the caller's transaction."""
    await enqueue_advance_all(queue, connection, [incident_id])


async def enqueue_escalation(
    queue: procrastinate.App, connection: Connection, incident_id: str, plan_revision: str
) -> None:
    """Ask a worker to tell that nobody decides on a plan; part of the caller's transaction."""
    task = queue.configure_task(ESCALATE, connection=connection)
    await task.defer_async(incident_id=incident_id, plan_revision=plan_revision)


async def enqueue_slack_decision(queue: procrastinate.App, connection: Connection, raw_id: str) -> None:
    """Ask a worker to decide what was clicked; part of the caller's transaction. What that was is in the delivery."""
    await queue.configure_task(SLACK_DECISION, connection=connection).defer_async(raw_id=raw_id)


async def enqueue_slack_answer(queue: procrastinate.App, connection: Connection, raw_id: str, text: str) -> None:
    """Ask a worker to tell who clicked; part of the caller's transaction."""
    await queue.configure_task(SLACK_ANSWER, connection=connection).defer_async(raw_id=raw_id, text=text)


async def enqueue_learning(queue: procrastinate.App, connection: Connection, incident_ids: Sequence[str]) -> None:
    """Ask workers to write the cases of these; part of the caller's transaction, and one statement."""
    jobs = [queue.configure_task(LEARN_CASE, lock=f"learn:{i}").make_new_job(incident_id=i) for i in incident_ids]
    if jobs:
        await queue.job_manager.batch_defer_jobs_async(jobs, connection=connection)


async def enqueue_embedding(queue: procrastinate.App, connection: Connection) -> None:
    """Ask a worker to make the vectors that are missing; part of the caller's transaction."""
    await queue.configure_task(EMBED_CASES, lock=EMBED_CASES, connection=connection).defer_async()
