"""Every statement on the memory: cases, the terms and words they are found by, remedies. Functions never commit.

Whoever writes takes the memory's lock first: one at a time, until the transaction ends. A search takes no lock.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from psycopg.types.json import Jsonb

from app.db import Connection, Pool, Row
from app.knowledge.cases import MAX_REPORT, Case, Remedy
from graph.signature import Signature
from graph.state import storable

LOCK = 4_242_007  # any constant that no other lock of ours has
NEWEST = 100  # cases of one term that are looked at
FOUND = 50  # candidates that a search takes from each way of searching
MATCHED = 200  # texts that are compared word by word
LATELY = 1_000  # of the newest texts, of which most match words that are in most
ALL = ""  # the frequency of everything
WORD = "="  # what a word begins with among the frequencies
ENVIRONMENT = "@"
RUNBOOK = "runbook "  # what a term of a runbook begins with: a service's few sections are not lost among its cases

SHOWN = (
    "id, kind, incident_id, environment, service, component, category, title, summary, outcome, trust, helped,"
    " occurred_at, seen, source, author"
)


class Found(NamedTuple):
    """A candidate of one way of searching: by how much, and by what."""

    id: str
    score: float
    by: tuple[str, ...] = ()


# --- write ---


async def take_turn(connection: Connection) -> None:
    """Wait until nobody else writes the memory; released with the transaction."""
    await connection.execute("select pg_advisory_xact_lock(%s)", (LOCK,))


async def save(connection: Connection, case: Case) -> bool:
    """Write a case in place of the one of its id; False if that is the same already. Takes the memory's lock."""
    await take_turn(connection)
    before = await _one(connection, "select sha256, fold from knowledge where id = %s", case.id)
    if before and before["sha256"] == case.sha256:
        return False
    if before:
        await _hide(connection, case.id)
    await _upsert(connection, case)
    await _save_remedies(connection, case)
    for fold in dict.fromkeys([*([before["fold"]] if before else []), case.folds_into]):
        await _choose_standing(connection, fold)
    return True


async def _upsert(connection: Connection, case: Case) -> None:
    """Hidden: which case of its fold is shown is decided afterwards."""
    columns = case.model_dump(exclude={"keywords", "remedies", "signature", "fold"})
    values = {
        **{name: storable(value) for name, value in columns.items()},
        "report": storable(case.report[:MAX_REPORT]),
        "signature": Jsonb(storable(case.signature.model_dump(mode="json"))),
        "fold": storable(case.folds_into),
        "sha256": case.sha256,
        "searchable": case.searchable,
    }
    await connection.execute(
        """insert into knowledge (id, kind, incident_id, environment, service, component, category, title, summary,
               report, outcome, trust, helped, signature, occurred_at, fold, folded, source, author, sha256, searchable)
           values (%(id)s, %(kind)s, %(incident_id)s, %(environment)s, %(service)s, %(component)s, %(category)s,
               %(title)s, %(summary)s, %(report)s, %(outcome)s, %(trust)s, %(helped)s, %(signature)s, %(occurred_at)s,
               %(fold)s, true, %(source)s, %(author)s, %(sha256)s, %(searchable)s)
           on conflict (id) do update set
               kind = excluded.kind, incident_id = excluded.incident_id, environment = excluded.environment,
               service = excluded.service, component = excluded.component, category = excluded.category,
               title = excluded.title, summary = excluded.summary, report = excluded.report,
               outcome = excluded.outcome, trust = excluded.trust, helped = excluded.helped,
               signature = excluded.signature, occurred_at = excluded.occurred_at, fold = excluded.fold,
               folded = true, source = excluded.source, author = excluded.author, sha256 = excluded.sha256,
               searchable = excluded.searchable, learned_at = clock_timestamp()""",
        values,
    )


async def _save_remedies(connection: Connection, case: Case) -> None:
    await connection.execute("delete from remedy where knowledge_id = %s", (case.id,))
    shared = (case.environment, case.service, case.component, case.category)
    rows = [(case.id, n, *_remedy(remedy), *map(storable, shared)) for n, remedy in enumerate(case.remedies, 1)]
    async with connection.cursor() as cursor:
        await cursor.executemany(
            """insert into remedy (knowledge_id, ordinal, operation, params, title, fate, verdict, credit, helped,
                   plan_revision, option, at, environment, service, component, category)
               values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            rows,
        )


def _remedy(remedy: Remedy) -> tuple[object, ...]:
    return (
        storable(remedy.operation),
        Jsonb(storable(remedy.params)),
        storable(remedy.title),
        remedy.fate,
        remedy.verdict,
        remedy.credit,
        remedy.helped,
        remedy.plan_revision,
        remedy.option,
        remedy.at,
    )


async def _choose_standing(connection: Connection, fold: str) -> None:
    """The newest case of a fold, of those that tell what helped if any does, stands for all; it says of how many."""
    rows = await _all(
        connection,
        """(select id, folded, 'newest' as which from knowledge where fold = %(fold)s
            order by helped <> '' desc, occurred_at desc, id limit 1)
           union all (select id, folded, 'shown' from knowledge where fold = %(fold)s and not folded)""",
        {"fold": fold},
    )
    newest = next((row["id"] for row in rows if row["which"] == "newest"), None)
    for row in rows:
        if row["which"] == "shown" and row["id"] != newest:
            await _hide(connection, row["id"])
    if newest is None:
        return
    if not any(row["which"] == "shown" and row["id"] == newest for row in rows):
        await _show(connection, newest)
    await connection.execute(
        "update knowledge set seen = (select count(*) from knowledge where fold = %s) where id = %s", (fold, newest)
    )


async def _show(connection: Connection, case: str) -> None:
    """Let it be found."""
    row = await _one(
        connection,
        """update knowledge set folded = false, embedded = false where id = %s and folded
           returning kind, signature, environment, occurred_at, tsvector_to_array(words) as words""",
        case,
    )
    if row is None:
        return
    prefix = RUNBOOK if row["kind"] == "runbook" else ""
    terms = [prefix + term for term in Signature.model_validate(row["signature"]).terms()]
    await connection.execute(
        """insert into knowledge_term (knowledge_id, term, environment, occurred_at)
           select %s, t, %s, %s from unnest(%s::text[]) t""",
        (case, row["environment"], row["occurred_at"], terms),
    )
    await _count(connection, row, terms, 1)


async def _hide(connection: Connection, case: str) -> None:
    """Let it be found no more; its row stays."""
    row = await _one(
        connection,
        """update knowledge set folded = true, seen = 1 where id = %s and not folded
           returning environment, tsvector_to_array(words) as words,
               embedded and to_regclass('knowledge_vector') is not null as embedded""",
        case,
    )
    if row is None:
        return
    gone = await _all(connection, "delete from knowledge_term where knowledge_id = %s returning term", (case,))
    if row["embedded"]:
        await connection.execute("delete from knowledge_vector where knowledge_id = %s", (case,))
    await _count(connection, row, [one["term"] for one in gone], -1)


async def _count(connection: Connection, row: Row, terms: Sequence[str], by: int) -> None:
    words = (WORD + word for word in row["words"])
    counted = {ALL, f"{ENVIRONMENT}{row['environment']}", *terms, *words}
    await connection.execute(
        """insert into knowledge_frequency as known (term, cases) select t, %s from unnest(%s::text[]) t
           on conflict (term) do update set cases = known.cases + excluded.cases""",
        (by, sorted(counted)),
    )
    if by < 0:
        await connection.execute(
            "delete from knowledge_frequency where term = any(%s) and cases <= 0", (sorted(counted),)
        )


async def forget(connection: Connection, cases: Sequence[str]) -> int:
    """Delete these, with all that they are found by and what was done about them; how many there were.

    An incident whose case is forgotten is not learned again, unless people say more of it. Takes the memory's lock.
    """
    await take_turn(connection)
    for case in cases:
        await _hide(connection, case)
    gone = await _all(
        connection, "delete from knowledge where id = any(%s) returning fold, incident_id", (list(cases),)
    )
    for fold in sorted({row["fold"] for row in gone}):
        await _choose_standing(connection, fold)
    return len(gone)


# --- what is to be learned ---


async def unlearned(connection: Connection, limit: int) -> list[str]:
    """Incidents that ended and whose case is not written, or older than their end, and that have no job; the oldest."""
    rows = await _all(
        connection,
        """select id from incident i where closed_at is not null and (learned_at is null or learned_at < closed_at)
             and not exists (select from procrastinate_jobs j
                             where j.lock = 'learn:' || i.id and j.status in ('todo', 'doing'))
           order by closed_at limit %s""",
        (limit,),
    )
    return [row["id"] for row in rows]


async def learned(connection: Connection, incident_id: str) -> None:
    """Its case is written as of now."""
    await connection.execute("update incident set learned_at = clock_timestamp() where id = %s", (incident_id,))


async def learn_again(connection: Connection, incident_id: str) -> None:
    """Something was said of it: its case is to be written anew."""
    await connection.execute("update incident set learned_at = null where id = %s", (incident_id,))


# --- read ---


async def get(connection: Connection, case: str) -> Row | None:
    """The whole row of a case; None where there is none."""
    if "\x00" in case:
        return None
    return await _one(
        connection,
        f"select {SHOWN}, report, signature, learned_at, fold from knowledge where id = %s",  # noqa: S608
        case,
    )


async def remedies(connection: Connection, cases: Sequence[str]) -> dict[str, list[Row]]:
    """What was done about each of these, in order."""
    rows = await _all(
        connection,
        """select knowledge_id, operation, params, title, fate, verdict, credit, helped, plan_revision, option, at
           from remedy where knowledge_id = any(%s) order by knowledge_id, ordinal""",
        (list(cases),),
    )
    found: dict[str, list[Row]] = {case: [] for case in cases}
    for row in rows:
        found[row.pop("knowledge_id")].append(row)
    return found


async def folded_into(connection: Connection, case: str, limit: int = 100) -> list[str]:
    """The ids of the cases that this one stands for, itself among them, newest first."""
    rows = await _all(
        connection,
        """select id from knowledge where fold = (select fold from knowledge where id = %s)
           order by occurred_at desc, id limit %s""",
        (case, limit),
    )
    return [row["id"] for row in rows]


class Which(NamedTuple):
    """Which cases to forget or to list; what is None does not matter."""

    id: str | None = None
    source: str | None = None
    before: datetime | None = None
    kind: str | None = None


async def ids(connection: Connection, which: Which) -> list[str]:
    """Of all that fit, folded ones too."""
    rows = await _all(
        connection,
        """select id from knowledge
           where (%(id)s::text is null or id = %(id)s) and (%(source)s::text is null or source = %(source)s)
             and (%(before)s::timestamptz is null or occurred_at < %(before)s)
             and (%(kind)s::text is null or kind = %(kind)s) order by id""",
        which._asdict(),
    )
    return [row["id"] for row in rows]


async def every(pool: Pool, batch: int = 200) -> AsyncIterator[Row]:
    """All cases with their texts and remedies, by id; read in batches, so that it takes no memory.

    Between them it holds no connection, however slow the reader is.
    """
    after, columns = "", f"{SHOWN}, report, signature, fold, searchable"
    while True:
        async with pool.connection() as connection:
            rows = await _all(
                connection,
                f"select {columns} from knowledge where id > %s order by id limit %s",  # noqa: S608
                (after, batch),
            )
            done = await remedies(connection, [row["id"] for row in rows])
        if not rows:
            return
        for row in rows:
            yield row | {"remedies": done[row["id"]]}
        after = rows[-1]["id"]


# --- search ---


async def frequencies(connection: Connection, terms: Sequence[str], words: str) -> dict[str, int]:
    """In how many cases each of these stands, and each of the words as the index has them, with WORD before it."""
    rows = await _all(
        connection,
        """select asked.term, coalesce(known.cases, 0) as cases
           from (select unnest(%(terms)s::text[]) union
                 select %(word)s || lexeme
                 from unnest(tsvector_to_array(to_tsvector('pg_catalog.english', %(words)s))) lexeme) asked (term)
           left join knowledge_frequency known using (term)""",
        {"terms": list(terms), "words": words, "word": WORD},
    )
    return {row["term"]: row["cases"] for row in rows}


async def environments(connection: Connection) -> list[str]:
    """Of which there are cases."""
    rows = await _all(connection, "select term from knowledge_frequency where starts_with(term, '@')", ())
    return [row["term"].removeprefix(ENVIRONMENT) for row in rows]


async def by_terms(
    connection: Connection, weights: Mapping[str, float], within: Sequence[str], but: str
) -> list[Found]:
    """Of each term the newest cases in these environments, by the weight of the terms they share, then by age."""
    rows = await _all(
        connection,
        f"""select found.id, sum(asked.weight) as score, array_agg(asked.term order by asked.weight desc) as by
            from unnest(%(terms)s::text[], %(weights)s::float8[]) asked (term, weight)
            cross join unnest(%(within)s::text[]) place (environment)
            cross join lateral (
                select knowledge_id as id, occurred_at from knowledge_term t
                where t.term = asked.term and t.environment = place.environment
                order by t.occurred_at desc limit {NEWEST}) found
            where found.id <> %(but)s
            group by found.id order by score desc, max(found.occurred_at) desc, found.id limit {FOUND}""",  # noqa: S608
        {"terms": list(weights), "weights": list(weights.values()), "within": list(within), "but": but},
    )
    return [Found(row["id"], row["score"], tuple(row["by"])) for row in rows]


class Narrow(NamedTuple):
    """What a case must be to be found; None: whatever it is."""

    kinds: Sequence[str]
    within: Sequence[str] | None
    service: str = ""
    but: str = ""


NARROW = """not folded and kind = any(%(kinds)s) and id <> %(but)s
    and (%(within)s::text[] is null or environment = any(%(within)s))
    and (%(service)s = '' or service = %(service)s or component = %(service)s)"""


async def by_words(
    connection: Connection, matching: str, weights: Mapping[str, float], narrow: Narrow, *, lately: bool = False
) -> list[Found]:
    """The newest texts that match a tsquery, by the weight of the words they share, long ones a little behind short.

    ``lately``: only the newest of all are asked whether they match.
    """
    latest = f"select * from knowledge where not folded order by occurred_at desc limit {LATELY}"  # noqa: S608
    rows = await _all(
        connection,
        f"""with matching as materialized (
                select id, occurred_at from {f"({latest}) latest" if lately else "knowledge"}
                where words @@ %(matching)s::tsquery and {NARROW}),
            candidate as materialized (
                select id, occurred_at from matching order by occurred_at desc, id limit {MATCHED})
            select c.id, shared.score / (1 + length(k.words) / 400.0) as score, shared.by
            from candidate c join knowledge k using (id) cross join lateral (
                select sum(asked.weight) as score, array_agg(asked.word order by asked.weight desc) as by
                from unnest(tsvector_to_array(k.words)) has (word)
                join unnest(%(words)s::text[], %(weights)s::float8[]) asked (word, weight) using (word)) shared
            order by score desc, c.occurred_at desc, c.id limit {FOUND}""",  # noqa: S608
        {"matching": matching, "words": list(weights), "weights": list(weights.values()), **narrow._asdict()},
    )
    return [Found(row["id"], row["score"], tuple(row["by"])) for row in rows]


async def newest(connection: Connection, narrow: Narrow, limit: int) -> list[Found]:
    """Where nothing particular is looked for."""
    rows = await _all(
        connection,
        f"select id from knowledge where {NARROW} order by occurred_at desc, id limit %(limit)s",  # noqa: S608
        {"limit": limit, **narrow._asdict()},
    )
    return [Found(row["id"], 0.0) for row in rows]


async def rows_of(connection: Connection, cases: Sequence[str], narrow: Narrow) -> list[Row]:
    """Those of these cases that may be found."""
    return await _all(
        connection,
        f"select {SHOWN} from knowledge where id = any(%(ids)s) and {NARROW}",  # noqa: S608
        {"ids": list(cases), **narrow._asdict()},
    )


async def _one(connection: Connection, query: str, *values: object) -> Row | None:
    return await (await connection.execute(query.encode(), values)).fetchone()


async def _all(connection: Connection, query: str, values: Sequence[object] | Mapping[str, object]) -> list[Row]:
    return await (await connection.execute(query.encode(), values)).fetchall()
