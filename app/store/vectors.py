"""Vectors of cases, in pgvector. The table is made when an embedder is set, and anew for another embedder.

Functions never commit, but for ``prepare``, which is called once at the start.
"""

from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from app.db import Connection, Row
from app.knowledge.cases import vector_text
from app.knowledge.embedding import Embedder
from app.store.knowledge import FOUND, NARROW, Found, Narrow
from graph.signature import Signature

LOCK = 4_242_008  # any constant that no other lock of ours has
PATIENCE_S = 60  # for those who write the memory, before a start fails
OLDEST_PGVECTOR = (0, 8)  # with halfvec and iterative scans
SEEN = 100  # HNSW's ef_search: vectors that are looked at
SCANNED = 5_000  # at most, where few of those near are of the environment


class NoVectors(Exception):
    """There can be no vectors in this Postgres; the text says what to do."""


async def prepare(connection: Connection, embedder: Embedder) -> None:
    """Extension, table and index, for vectors of this embedder; those of another are dropped, and made anew by jobs.

    Raises NoVectors.
    """
    try:
        async with connection.transaction():
            await connection.execute(f"set local lock_timeout = '{PATIENCE_S}s'".encode())
            await connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))
            await create_extension(connection)
            if not await are_of(connection, embedder):
                await _begin_anew(connection, embedder)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise NoVectors(f"others have kept the memory to themselves for {PATIENCE_S} s. Start again.") from None


async def _begin_anew(connection: Connection, embedder: Embedder) -> None:
    """In the order in which all others lock: cases first. Searches go on until the old vectors go.

    Vectors do not reference their cases: dropping them would lock the cases against all who read them.
    """
    await connection.execute("lock table knowledge in exclusive mode")
    await connection.execute("update knowledge set embedded = false where embedded")
    await connection.execute("drop table if exists knowledge_vector")
    await connection.execute(
        f"""create table knowledge_vector (
                knowledge_id text primary key,
                embedding halfvec({int(embedder.dimensions)}) not null)""".encode()
    )
    await connection.execute(
        "create index knowledge_vector_near on knowledge_vector using hnsw (embedding halfvec_cosine_ops)"
    )
    await connection.execute(sql.SQL("comment on table knowledge_vector is {}").format(embedder.name))


async def are_of(connection: Connection, embedder: Embedder) -> bool:
    """Whether the vectors that are there are this embedder's; another process may have begun anew with its own."""
    row = await (
        await connection.execute("select obj_description(to_regclass('knowledge_vector'), 'pg_class') as embedder")
    ).fetchone()
    return row is not None and row["embedder"] == embedder.name


async def create_extension(connection: Connection) -> None:
    """Where it is not there yet. Raises NoVectors, also where it is too old."""
    try:
        async with connection.transaction():
            await connection.execute("create extension if not exists vector with schema public")
            row = await (
                await connection.execute("select extversion as version from pg_extension where extname = 'vector'")
            ).fetchone()
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported):
        raise NoVectors(
            "this Postgres has no pgvector. Install it on the server (Debian: postgresql-18-pgvector; the image"
            " pgvector/pgvector has it), or unset AUTOPILOT_EMBEDDER: words and signatures need no vectors."
        ) from None
    except psycopg.errors.InsufficientPrivilege:
        raise NoVectors(
            "this database user may not install pgvector. Let an administrator run `create extension vector` in this"
            " database once, or unset AUTOPILOT_EMBEDDER."
        ) from None
    version = row["version"] if row else ""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_PGVECTOR:
        raise NoVectors(
            f"this Postgres has pgvector {version}, and 0.8 is needed. Update it on the server, run `alter extension"
            " vector update` in this database, or unset AUTOPILOT_EMBEDDER."
        )


async def unembedded(connection: Connection, limit: int) -> list[Row]:
    """Cases that have no vector yet."""
    return await (
        await connection.execute(
            """select id, title, summary, report, kind, signature, sha256 from knowledge
               where not embedded and not folded order by id limit %s""",
            (limit,),
        )
    ).fetchall()


def text_of(row: Row, mask: Callable[[str], str]) -> str:
    """What a case's vector is made of. The report of an incident is mostly the same in all of them: it is left out."""
    body = row["report"] if row["kind"] != "incident" else ""
    text = "\n".join(filter(None, (row["title"], row["summary"], body)))
    return vector_text(text, Signature.model_validate(row["signature"]), mask)


async def still(connection: Connection, rows: Sequence[Row]) -> set[str]:
    """The ids of those cases that are as they were read, which they stay until the transaction ends."""
    found = await (
        await connection.execute(
            """select id from knowledge join unnest(%s::text[], %s::text[]) was (id, sha256) using (id, sha256)
               where not folded order by id for no key update of knowledge""",
            ([row["id"] for row in rows], [row["sha256"] for row in rows]),
        )
    ).fetchall()
    return {row["id"] for row in found}


async def any_unembedded(connection: Connection) -> bool:
    """Whether a case has no vector, and there is no job to make it."""
    row = await (
        await connection.execute(
            """select exists (select from knowledge where not embedded and not folded)
                   and not exists (select from procrastinate_jobs
                                   where task_name = 'embed_cases' and status in ('todo', 'doing')) as found"""
        )
    ).fetchone()
    return bool(row and row["found"])


async def save(connection: Connection, vectors: Sequence[tuple[str, Sequence[float]]]) -> None:
    """One of each case."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """insert into knowledge_vector (knowledge_id, embedding) values (%s, %s)
               on conflict (knowledge_id) do update set embedding = excluded.embedding""",
            [(case, _literal(vector)) for case, vector in vectors],
        )
    await settle(connection, [case for case, _ in vectors])


async def settle(connection: Connection, cases: Sequence[str]) -> None:
    """Ask no more for vectors of these cases: they have them, or their texts are refused."""
    await connection.execute("update knowledge set embedded = true where id = any(%s)", (list(cases),))


async def nearest(connection: Connection, vector: Sequence[float], narrow: Narrow) -> list[Found]:
    """Cases by cosine similarity, -1 to 1; ``by`` is empty. Raises psycopg.Error; the caller's transaction goes on."""
    async with connection.transaction():  # its settings end with it
        await connection.execute(
            f"""select set_config('hnsw.ef_search', '{SEEN}', true),
                    set_config('hnsw.iterative_scan', 'relaxed_order', true),
                    set_config('hnsw.max_scan_tuples', '{SCANNED}', true)""".encode()
        )
        rows = await (
            await connection.execute(
                f"""select id, 1 - (embedding <=> %(vector)s::halfvec) as score
                    from knowledge_vector join knowledge on id = knowledge_id where {NARROW}
                    order by embedding <=> %(vector)s::halfvec limit {FOUND}""".encode(),  # noqa: S608  our constants
                {"vector": _literal(vector), **narrow._asdict()},
            )
        ).fetchall()
    return [Found(row["id"], row["score"]) for row in sorted(rows, key=lambda row: (-row["score"], row["id"]))]


def _literal(vector: Sequence[float]) -> str:
    return f"[{','.join(f'{number:.6g}' for number in vector)}]"
