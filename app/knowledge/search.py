"""Cases of the memory are found again.

A search has two or three ways that know nothing of each other: the signature (terms such as component:payment-service),
the words of the text, and vectors where an embedder is set. Each gives a bounded number of candidates, whatever there
is; they are fused by their places (reciprocal ranks), and what is old, was never resolved, or whose analysis people
called wrong counts for less.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import accumulate

import psycopg
from psycopg import AsyncConnection

from app.db import Connection, Pool, Row
from app.knowledge.cases import MAX_SEARCHED, CaseOutcome, Hit, Query, Trust, vector_text, words
from app.knowledge.embedding import Embedder, EmbeddingFailed
from app.store import incidents, track_records, vectors
from app.store import knowledge as store
from app.store.knowledge import ALL, FOUND, RUNBOOK, WORD, Found, Narrow
from executors.base import Clock
from graph.llms.base import TrackRecord
from graph.memory import is_memory
from graph.signature import PREFIXES, Signature, signature_of, suspected
from graph.state import Alert, Evidence, PastIncident
from graph.track_record import HALF_LIFE
from graph.track_record import track_records as recorded

log = logging.getLogger(__name__)

FEW = 3  # similar incidents that an analysis is told of
EMBEDDED_WITHIN_S = 1.5  # a question; words and signature find without
ENOUGH = 0.15  # of what was asked for, before a case is called similar
PLACES = 5  # k of the reciprocal ranks: how much the first of each way stands out
OLDEST = 0.6  # what a case counts for however old it is
NEGLIGIBLE = 1e-9  # scores that differ by less are equal
FAR = 0.7  # what a case counts for of whose service and component nobody speaks
ASKED_TERMS, ASKED_WORDS = 40, 48  # the most telling ones
CANDIDATES = 200  # texts that words may match, as far as their frequencies tell
MORE = 2_000  # in a last try, where too few of those were of the service or environment
OFTEN = 5_000  # where each of them stands in more texts than these, the newest texts are looked through first
COMMON = 4  # words that must stand together where each of them is common
TEXT_CASES = 12  # findings of an incident whose words it is looked for with

# What a term of each kind counts for, beside how rare it is: a culprit tells more than a metric that moved.
KINDS: Mapping[str, float] = {
    "alert": 2.5,
    "rule": 1.5,
    "component": 2.0,
    "service": 0.7,
    "category": 1.5,
    "error": 1.5,
    "log": 1.5,
    "symptom": 1.2,
    "finding": 0.4,
    "change": 0.4,
}
# What the ways count for beside one another. These and PLACES were chosen on the synthetic incidents of
# benchmarks/knowledge.py: names tell more than words.
WAYS: Mapping[str, float] = {"signature": 1.0, "words": 0.5, "vector": 0.5, "": 1.0}
SUSPECTED = (1.0, 0.6, 0.4)  # the first suspect is asked for more than the second
OUTCOMES: Mapping[CaseOutcome, float] = {
    "resolved": 1.0,
    "by_hand": 0.95,
    "improved": 0.95,
    "unchanged": 0.9,  # what did not help is worth knowing
    "worse": 0.9,
    "recovered": 0.85,
    "unresolved": 0.8,
}
TRUST: Mapping[Trust, float] = {"right": 1.1, "unknown": 1.0, "corrected": 1.0, "partly": 0.8, "wrong": 0.4}


async def search(where: Connection | Pool, query: Query, embedder: Embedder | None = None) -> list[Hit]:
    """What fits best first, each with the reasons why. Without an embedder, or where it fails, vectors are left out."""
    vector = await _vector(query, embedder) if embedder else None
    async with _connected(where) as connection:
        return await _Search(connection, query, embedder, vector).hits()


@asynccontextmanager
async def _connected(where: Connection | Pool) -> AsyncIterator[Connection]:
    if isinstance(where, AsyncConnection):
        yield where
    else:
        async with where.connection() as connection:
            yield connection


async def _vector(query: Query, embedder: Embedder) -> Sequence[float] | None:
    if not query.text.strip():
        return None
    try:
        async with asyncio.timeout(EMBEDDED_WITHIN_S):
            signature = query.signature or Signature()
            text = await asyncio.to_thread(vector_text, query.text, signature, embedder.mask)
            (vector,) = await embedder.embed([text])
    except (EmbeddingFailed, TimeoutError) as error:
        log.warning("a search goes without vectors: %s", str(error) or f"none within {EMBEDDED_WITHIN_S} s")
        return None
    return vector


@dataclass(frozen=True)
class Way:
    """What one way of searching found, best first. ``whole``: what a case would score that has all that was asked."""

    name: str
    found: Sequence[Found]
    whole: float = 1.0

    @cached_property
    def places(self) -> Mapping[str, tuple[int, Found]]:
        """By case its place, 1 first; those that score alike share one, so that age and outcome decide between them."""
        places: dict[str, tuple[int, Found]] = {}
        place, score = 1, math.inf
        for number, one in enumerate(self.found, 1):
            if score - one.score > NEGLIGIBLE:
                place, score = number, one.score
            places[one.id] = place, one
        return places

    def likeness(self, one: Found) -> float:
        """How much of what was asked for it has, 0 to 1; any two texts share words, and point the same way somewhat."""
        share = 2 * one.score - 1 if self.name == "vector" else one.score / self.whole if self.whole else 0.0
        return WAYS[self.name] * min(max(share, 0.0), 1.0)


class _Search:
    """One question to the memory."""

    def __init__(
        self, connection: Connection, query: Query, embedder: Embedder | None, vector: Sequence[float] | None
    ) -> None:
        self.connection, self.query, self.embedder, self.vector = connection, query, embedder, vector

    async def hits(self) -> list[Hit]:
        within = ["", self.query.environment] if self.query.environment else None
        narrow = Narrow(list(self.query.kinds), within, self.query.service, self.query.but)
        ways = [way async for way in self._ways(narrow)]
        found = {one.id for way in ways for one in way.found}
        rows = await store.rows_of(self.connection, sorted(found), narrow) if found else []
        hits = [self._hit(row, ways) for row in rows]
        hits.sort(key=lambda hit: (hit.score, hit.occurred_at, hit.id), reverse=True)
        return hits[: self.query.limit]

    async def _ways(self, narrow: Narrow) -> AsyncIterator[Way]:
        terms = self.query.signature.terms() if self.query.signature else ()
        if not terms and not self.query.text.strip():
            yield Way("", await store.newest(self.connection, narrow, self.query.limit))
            return
        prefixes = dict.fromkeys(RUNBOOK if kind == "runbook" else "" for kind in narrow.kinds)
        asked = [prefix + term for prefix in prefixes for term in terms]
        known = await store.frequencies(self.connection, [ALL, *asked], words([self.query.text]))
        if terms:
            for prefix in prefixes:
                yield await self._by_terms(prefix, terms, known, narrow)
        yield await self._by_words(known, narrow)
        if self.embedder and self.vector is not None:
            yield Way("vector", await self._by_vector(self.embedder, self.vector, narrow))

    async def _by_vector(self, embedder: Embedder, vector: Sequence[float], narrow: Narrow) -> Sequence[Found]:
        """Nothing where they are another's, or cannot be compared: words and signature find without."""
        try:
            if await vectors.are_of(self.connection, embedder):
                return await vectors.nearest(self.connection, vector, narrow)
            log.warning("a search goes without vectors: those that are there are not of %s", embedder.name)
        except psycopg.Error as error:
            log.warning("a search goes without vectors: %s", error)
        return ()

    async def _by_terms(self, prefix: str, terms: Sequence[str], known: Mapping[str, int], narrow: Narrow) -> Way:
        within = narrow.within if narrow.within is not None else await store.environments(self.connection)
        cases = {term: known[prefix + term] for term in terms}
        weights = dict(sorted(_term_weights(cases, known[ALL]).items(), key=lambda pair: -pair[1])[:ASKED_TERMS])
        there = {prefix + term: weight for term, weight in weights.items() if cases[term]}
        found = await store.by_terms(self.connection, there, within, narrow.but) if there else []
        return Way("signature", found, sum(weights.values()))

    async def _by_words(self, known: Mapping[str, int], narrow: Narrow) -> Way:
        everything = known[ALL]
        asked = {term.removeprefix(WORD): number for term, number in known.items() if term.startswith(WORD)}
        cases = {word: number for word, number in asked.items() if number}
        rarest = dict(sorted(cases.items(), key=lambda pair: (pair[1], pair[0]))[:ASKED_WORDS])
        weights = {word: rarity(everything, number) for word, number in rarest.items()}
        if not weights:
            return Way("words", ())
        found = dict[str, Found]()
        for matching, lately in _matching(rarest, everything):
            for one in await store.by_words(self.connection, matching, weights, narrow, lately=lately):
                found.setdefault(one.id, one)
            if len(found) >= FOUND:
                break
        best = sorted(found.values(), key=lambda one: -one.score)[:FOUND]
        unknown = (len(asked) - len(cases)) * rarity(everything, 0)
        return Way("words", best, sum(weights.values()) + unknown)

    def _hit(self, row: Row, ways: Sequence[Way]) -> Hit:
        score, likeness = 0.0, 0.0
        reasons: list[str] = []
        for way in ways:
            if row["id"] in way.places:
                place, one = way.places[row["id"]]
                score += WAYS[way.name] * (PLACES + 1) / (PLACES + place)
                likeness = max(likeness, way.likeness(one))
                reasons += _reasons(way, one)
        score *= self._weight(row)
        reasons += _JUDGED.get(row["trust"], ())
        return Hit.model_validate({**row, "score": score, "likeness": likeness, "reasons": tuple(reasons)})

    def _weight(self, row: Row) -> float:
        """Where nothing is looked for, the newest come first, whatever became of them."""
        if not self.query.text.strip() and self.query.signature is None:
            return 1.0
        return self._age(row["occurred_at"]) * OUTCOMES[row["outcome"]] * TRUST[row["trust"]] * self._nearness(row)

    def _age(self, occurred_at: datetime) -> float:
        age = max((self.query.at or datetime.now(UTC)) - occurred_at, timedelta(0))
        return OLDEST + (1.0 - OLDEST) * float(0.5 ** (age / HALF_LIFE))

    def _nearness(self, row: Row) -> float:
        near = set(self.query.near)
        return 1.0 if not near or near & {row["service"], row["component"]} else FAR


def rarity(everything: int, cases: int) -> float:
    """What a term tells that stands in so many of all cases: the logarithm of how few (inverse document frequency)."""
    return math.log1p(everything / (cases + 0.5))


def _term_weights(cases: Mapping[str, int], everything: int) -> dict[str, float]:
    suspects = iter(SUSPECTED)
    weights = {}
    for term, number in cases.items():
        kind = term.partition(":")[0]
        suspected_ = next(suspects, SUSPECTED[-1]) if kind == "component" else 1.0
        weights[term] = KINDS[kind] * suspected_ * rarity(everything, number)
    return weights


def _matching(cases: Mapping[str, int], everything: int) -> Iterable[tuple[str, bool]]:
    """What texts are to match (a tsquery, and whether only the newest are asked), until enough are found that may be.

    Any of the rarest words; the next ones together; any of those, of which more texts match. ``cases``: by word its
    cases, the rarest first.
    """
    rare = _rarest(cases, CANDIDATES)
    others = {word: number for word, number in cases.items() if word not in rare}
    any_, all_ = " | ".join(map(_quoted, rare)), " & ".join(map(_quoted, _together(others, everything)))
    more = " | ".join(map(_quoted, _rarest(others, MORE)))
    often = min(others.values(), default=0) > OFTEN
    asked = ((any_, False), *([(all_, True)] if often else []), (all_, False), (more, False))
    return dict.fromkeys(one for one in asked if one[0])


def _rarest(cases: Mapping[str, int], texts: int) -> list[str]:
    """Those that stand in so many texts at most, all of them together."""
    totals = accumulate(cases.values())
    return [word for word, total in zip(cases, totals, strict=True) if total <= texts]


def _together(cases: Mapping[str, int], everything: int) -> list[str]:
    """As many as must stand in one text for CANDIDATES to have them, were they to come independently."""
    together, expected = list[str](), float(everything)
    for word, number in cases.items():
        if expected <= CANDIDATES or len(together) == COMMON:
            break
        together.append(word)
        expected *= number / max(everything, 1)
    return together


def _quoted(lexeme: str) -> str:
    escaped = lexeme.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


# --- reasons ---

_TOLD = {
    "alert": "the same alert",
    "rule": "alert rule",
    "component": "component",
    "service": "alerted service",
    "category": "category",
    "error": "error",
    "log": "log line",
    "symptom": "symptom",
    "finding": "finding",
    "change": "change",
}
assert set(_TOLD) == set(PREFIXES.values()) == set(KINDS)
_JUDGED: Mapping[str, tuple[str, ...]] = {
    "right": ("its analysis was called right",),
    "partly": ("its analysis was called partly wrong",),
    "wrong": ("its analysis was called wrong",),
    "corrected": ("a person corrected its cause",),
}
MAX_REASONS = 4  # of one way


def _reasons(way: Way, one: Found) -> list[str]:
    if way.name == "signature":
        return [_told(term.removeprefix(RUNBOOK)) for term in one.by[:MAX_REASONS]]
    if way.name == "words" and one.by:
        return [f"words {', '.join(one.by[: 2 * MAX_REASONS])}"]
    return [f"text alike by {max(one.score, 0.0):.0%}"] if way.name == "vector" else []


def _told(term: str) -> str:
    kind, _, name = term.partition(":")
    return _TOLD[kind] if kind == "alert" else f"{_TOLD[kind]} {name}"


# --- what the graph asks ---


class PostgresPast:
    """``graph.deps.PastIncidents`` on the memory. What it takes is bounded, whatever there is."""

    def __init__(self, pool: Pool, clock: Clock, embedder: Embedder | None = None) -> None:
        self.pool, self.clock, self.embedder = pool, clock, embedder

    async def similar(self, incident_id: str, alert: Alert, evidence: Evidence) -> Sequence[PastIncident]:
        """See graph.deps.PastIncidents."""
        async with self.pool.connection() as connection:
            row = await incidents.get(connection, incident_id)
        environment = row["environment"] if row else alert.environment
        asked = question(alert, evidence, environment, incident_id)
        hits = await search(self.pool, asked, self.embedder)
        alike = [hit for hit in hits if hit.likeness >= ENOUGH and hit.environment in ("", asked.environment)]
        async with self.pool.connection() as connection:
            done = await store.remedies(connection, [hit.id for hit in alike])
        return [_past(hit, done[hit.id]) for hit in alike]

    async def track_record(self, category: str, component: str | None, environment: str) -> Mapping[str, TrackRecord]:
        """See graph.deps.PastIncidents."""
        async with self.pool.connection() as connection:
            found = await track_records.outcomes(connection, category, component, environment)
        return recorded(found, self.clock.now())


def question(alert: Alert, evidence: Evidence, environment: str, but: str = "") -> Query:
    """What an analysis asks before it knows the cause: the alert, and what was seen."""
    found = [f for f in evidence.findings if not is_memory(f)][:TEXT_CASES]
    told = (alert.title, alert.text, *(f"{f.summary} {f.excerpt}" for f in found))
    return Query(
        text="\n".join(told)[:MAX_SEARCHED],
        signature=signature_of(alert, evidence),
        environment=environment,
        near=(alert.service, *suspected(evidence)),
        kinds=("incident", "imported"),
        limit=FEW,
        at=alert.occurred_at,
        but=but,
    )


def _past(hit: Hit, done: Sequence[Row]) -> PastIncident:
    return PastIncident(
        incident_id=hit.incident_id or hit.id,
        at=f"{hit.occurred_at:%Y-%m-%d}",
        component=hit.component or "",
        category=hit.category,
        title=hit.title,
        remedy=_remedy(done),
        verdict=hit.outcome,
        reasons=hit.reasons,
        score=round(hit.score, 3),
        wrong=hit.wrong,
        corrected=hit.trust == "corrected",
        helped=hit.helped,
    )


def _remedy(done: Sequence[Row]) -> str:
    """What was run last, with its operations; else what a person wrote who took it by hand."""
    ran = [row for row in done if row["fate"] == "run"]
    if ran:
        last = [row for row in ran if row["plan_revision"] == ran[-1]["plan_revision"]]
        return f"{last[0]['title']} ({', '.join(dict.fromkeys(row['operation'] for row in last))})"
    by_hand = [row["title"] or row["operation"] for row in done if row["fate"] == "by_hand"]
    return f"by hand: {by_hand[-1]}" if by_hand and by_hand[-1] else ""
