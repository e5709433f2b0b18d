"""The job queue: procrastinate on the same Postgres, so that a job is enqueued in the caller's transaction."""

import procrastinate

from app.db import Connection

ADVANCE = "advance"


def create_queue(url: str) -> procrastinate.App:
    """An app without tasks: enough to enqueue. ``app.jobs`` adds the tasks for workers.

    It has a small pool of its own: recording a job's end must not wait behind the pages and collectors.
    """
    return procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url, min_size=1, max_size=4))


async def enqueue_advance(queue: procrastinate.App, connection: Connection, incident_id: str) -> None:
    """Ask a worker to move an incident on; part of the caller's transaction.

    The lock lets one such job of an incident run at a time, on all machines together.
    """
    task = queue.configure_task(ADVANCE, lock=f"incident:{incident_id}", connection=connection)
    await task.defer_async(incident_id=incident_id)
