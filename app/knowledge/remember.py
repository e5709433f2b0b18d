"""An incident that is over becomes a case of the memory, and cases get their vectors."""

import asyncio
import logging
from collections.abc import Sequence

from app.db import Connection, Pool, Row, transaction
from app.desk import Desk
from app.knowledge.case_of_incident import Ended, case_of
from app.knowledge.embedding import Embedder, EmbeddingRefused
from app.postmortem.draft import postmortem
from app.postmortem.lessons import Background
from app.store import feedback, incidents, vectors
from app.store import knowledge as store
from app.stored_report import stored_report
from graph.catalogue import Catalogue
from graph.state import Alert, Evidence, Plan, RootCause

log = logging.getLogger(__name__)


async def remember(where: Desk | Pool, incident_id: str) -> bool:
    """Write the case of an incident that is over, or was before it was reopened; False: it never was, or it is known.

    What people said of it is applied. Done twice it is done once.
    """
    async with transaction(where.pool if isinstance(where, Desk) else where) as connection:
        return await remember_in(connection, incident_id, where.catalogue if isinstance(where, Desk) else None)


async def remember_in(connection: Connection, incident_id: str, catalogue: Catalogue | None = None) -> bool:
    """The same in the caller's transaction, which waits its turn to write the memory from here on.

    ``catalogue``: its report names the owners of components.
    """
    row = await incidents.lock(connection, incident_id, against_claims=False)
    if row is None or (row["closed_at"] is None and await store.get(connection, incident_id) is None):
        return False
    ended = await _ended(connection, row)
    owners = catalogue.owners if catalogue else {}
    text = postmortem(ended.report, Background(feedback=ended.opinions, owners=owners))
    written = await store.save(connection, case_of(ended, text))
    await store.learned(connection, incident_id)
    return written


async def _ended(connection: Connection, row: Row) -> Ended:
    """All of our tables that tells of an incident."""
    analyses = await incidents.analyses(connection, row["id"])
    causes = [a["root_cause"] for a in analyses if a["root_cause"]]
    found = [a["evidence"] for a in analyses if a["evidence"]]
    plans = [Plan.model_validate(plan) for a in analyses for plan in a["plans"]]
    return Ended(
        report=await stored_report(connection, row),
        alert=Alert.model_validate(row["alert"]),
        evidence=Evidence.model_validate(found[-1]) if found else None,
        root_cause=RootCause.model_validate(causes[-1]) if causes else None,
        plans={plan.revision: plan for plan in plans},
        opinions=await feedback.opinions(connection, row["id"]),
        recovered=row["recovered"],
    )


async def embed_some(pool: Pool, embedder: Embedder, limit: int = 64) -> int:
    """Make the vectors of some cases that have none; how many are left alone now. Raises EmbeddingFailed.

    Nothing is locked while they are made. A case that changes meanwhile keeps waiting; one whose text is refused does
    without.
    """
    async with pool.connection() as connection:
        rows = await vectors.unembedded(connection, limit)
    if not rows:
        return 0
    texts = await asyncio.to_thread(lambda: [vectors.text_of(row, embedder.mask) for row in rows])
    made = dict(zip((row["id"] for row in rows), await _made(embedder, texts), strict=True))
    async with transaction(pool) as connection:
        await store.take_turn(connection)
        same = await vectors.still(connection, rows)
        if not await vectors.are_of(connection, embedder):
            return 0  # another process has begun anew with its own
        await vectors.save(connection, [(case, vector) for case, vector in made.items() if vector and case in same])
        await vectors.settle(connection, [case for case, vector in made.items() if not vector and case in same])
    return len(rows)


async def _made(embedder: Embedder, texts: Sequence[str]) -> list[list[float] | None]:
    """None where a text is refused by itself. Raises EmbeddingFailed, also where any text is refused."""
    try:
        return [*await embedder.embed(texts)]
    except EmbeddingRefused as error:
        await embedder.embed(["-"])
        if len(texts) == 1:
            log.warning("a case does without a vector: %s", error)
            return [None]
    half = len(texts) // 2
    return [*await _made(embedder, texts[:half]), *await _made(embedder, texts[half:])]
