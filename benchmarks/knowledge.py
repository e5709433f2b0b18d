"""The memory: whether it finds the incident that was like this one, and how long that takes when it is large."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import mean

import numpy as np
from psycopg.types.json import Jsonb

from app import nezha, petshop
from app.db import Connection, Pool, create_pool, transaction
from app.evaluation import Case as Recorded
from app.knowledge.cases import Case, Query, case_id, vector_text, words
from app.knowledge.embedding import Embedder, EmbedderError, WordLlamaEmbedder
from app.knowledge.remember import embed_some
from app.knowledge.search import question, search
from app.scenarios import folders, read
from app.store import knowledge as store
from app.store import vectors
from benchmarks.recorded import unpacked
from benchmarks.results import Table, percentile
from benchmarks.setting import Setting
from benchmarks.synthetic import recurring
from benchmarks.synthetic_faults import Fault
from collectors.base import Telemetry
from graph.llms.rules import explain
from graph.ranking import rank
from graph.signature import Signature, signature_of
from graph.state import Alert, Evidence, RootCause
from tests import processes
from tests.conftest import ROOT

SYSTEMS, RUNS = range(100, 104), 5  # what the weights of the search were chosen on were systems 0 to 3
FAULTS: tuple[Fault, ...] = (
    "latency",
    "errors",
    "cpu",
    "pool",
    "leak",
    "bad_deploy",
    "slow_database",
    "provider_down",
)
KEPT = 0.6  # of the rows of a scenario, each time it is seen
PETSHOP = ROOT.parent / "shared" / "data" / "petshop"
TOP = 3
LIMIT = 50
SIZES = (1_000, 10_000, 100_000)
ASKED = 200  # searches of each size
ONE_SERVICE = "fused, one service"
BATCH = 5_000


@dataclass(frozen=True)
class Incident:
    """One that is known: what was seen of it, and its truth."""

    of: str
    name: str
    alert: Alert
    evidence: Evidence
    component: str
    fault: str

    @property
    def id(self) -> str:
        """Of its case."""
        return case_id("imported", self.of, self.name)

    @property
    def analysis(self) -> RootCause:
        """What the rules engine makes of it, which may be wrong."""
        return explain(self.evidence, self.alert.service)

    def case(self, *, corrected: bool = True) -> Case:
        """As it is remembered: with the true component, or where nobody corrects anything with the analysis' own.

        The kind of failure is what the analysis calls it.
        """
        known = self.analysis.model_copy(update={"component": self.component}) if corrected else self.analysis
        component = known.component or ""
        told = (f"{f.summary} {f.excerpt}" for f in self.evidence.findings[:12])
        return Case(
            id=self.id,
            kind="imported",
            service=self.alert.service,
            component=component,
            category=known.category,
            title=f"{component}: {known.category.replace('_', ' ')}",
            keywords="\n".join((self.alert.title, self.alert.text, *told)),
            outcome="resolved",
            signature=signature_of(self.alert, self.evidence, known),
            occurred_at=self.alert.occurred_at,
        )

    def query(self, *, analysed: bool) -> Query:
        """As the analyzer asks, or as somebody does who has its answer."""
        asked = question(self.alert, self.evidence, "", self.id).model_copy(update={"limit": LIMIT})
        if not analysed:
            return asked
        found = self.analysis
        text = f"{found.title}\n{found.mechanism}\n{asked.text}"
        return asked.model_copy(update={"text": text, "signature": signature_of(self.alert, self.evidence, found)})


def measure(setting: Setting) -> list[Table]:
    """Retrieval on known incidents, then speed on made-up ones. Nezha is left out where it is not there."""
    known = list(_known(setting))
    return [*asyncio.run(_retrieved(setting, known)), *asyncio.run(_timed(setting, known))]


# --- known incidents ----------------------------------------------------------------------------------------------


def _known(setting: Setting) -> Iterator[Incident]:
    with ProcessPoolExecutor(os.cpu_count(), mp_context=processes.context) as pool:
        drawn = [(system, run, fault) for system in SYSTEMS for run in range(RUNS) for fault in FAULTS]
        for number, found in enumerate(pool.map(_synthetic, drawn), 1):
            setting.tell(f"knowledge: synthetic incident {number} of {len(drawn)}")
            yield from found
        setting.tell("knowledge: the scenarios")
        for pair in pool.map(_scenario, *zip(*folders(ROOT / "tests" / "scenarios").items(), strict=True)):
            yield from pair
        setting.tell("knowledge: PetShop")
        if PETSHOP.is_dir():
            yield from pool.submit(_petshop, PETSHOP).result()
        if setting.nezha.exists():
            with unpacked(setting) as data:
                faults = _nezha_faults(data)
                for number, one in enumerate(pool.map(partial(_nezha, data), faults.items()), 1):
                    setting.tell(f"knowledge: Nezha, case {number} of {len(faults)}")
                    yield one


def _synthetic(drawn: tuple[int, int, Fault]) -> list[Incident]:
    """The same few systems again and again, so that the same fault comes back to the same place now and then."""
    system, run, fault = drawn
    made = recurring(system, run, fault=fault)
    if made is None:
        return []
    evidence = rank((made.telemetry,), made.scope, made.alert)
    ((component, *_), *_) = made.truth.causes
    return [Incident("synthetic", f"{system}/{fault}/{run}", made.alert, evidence, component, f"{system}:{fault}")]


def _scenario(name: str, folder: Path) -> list[Incident]:
    """Seen twice, with other rows lost each time; the alert is told in other words, by a monitor of its own."""
    scenario = read(name, folder)
    ((culprit, *_), kind) = scenario.expected.culprits or ("nobody",), scenario.expected.category[:1] or ("unknown",)
    recorded = Recorded.of(scenario.bundle)
    seen = []
    for time_ in (1, 2):
        rng = np.random.default_rng([time_, len(name), int(name[:3])])
        told = {
            "rule": "",
            "fingerprint": f"{name}:{time_}",
            "title": f"Trouble at {scenario.alert.service}",
            "text": "",
        }
        alert = scenario.alert.model_copy(update=told)
        telemetry = tuple(_thinned(t, rng) for t in recorded.telemetry)
        seen.append(
            Incident("scenarios", f"{name}/{time_}", alert, rank(telemetry, recorded.scope, alert), culprit, kind[0])
        )
    return seen


def _thinned(telemetry: Telemetry, rng: np.random.Generator) -> Telemetry:
    def kept(rows: Sequence[object]) -> tuple[object, ...]:
        return tuple(row for row in rows if rng.random() < KEPT)

    return telemetry.model_copy(update={name: kept(getattr(telemetry, name)) for name in ("series", "logs", "spans")})


def _petshop(directory: Path) -> list[Incident]:
    """One component in two kinds of trouble, each with light and heavy traffic."""
    found, _ = petshop.issues(directory, petshop.SCENARIOS, ("train",))
    incidents = []
    for scenario in sorted({folder.parents[1] for folder in found.values()}):
        traffic = petshop.Traffic.read(scenario)
        for folder in (f for f in found.values() if f.parents[1] == scenario):
            told = json.loads((folder / "target.json").read_bytes())
            (_, kind, *_) = told["metadata"]["reproducibility"]["command"].split("'")
            case = traffic.case(folder)
            name, cause = f"{scenario.name}/{folder.name}", told["root_cause"]["node"]
            incidents.append(Incident("PetShop", name, case.alert, case.ranked(), cause, kind))
    return incidents


def _nezha_faults(data: Path) -> dict[str, tuple[str, str]]:
    files = data.glob("rca_data/*/*-fault_list.json")
    faults = [fault for file in files for hour in json.loads(file.read_bytes()).values() for fault in hour]
    return {f["inject_time"]: (nezha.service_of(f["inject_pod"]), f["inject_type"]) for f in faults}


def _nezha(data: Path, fault: tuple[str, tuple[str, str]]) -> Incident:
    name, (component, kind) = fault
    case = nezha.case(data, name)
    return Incident("Nezha", name, case.alert, case.ranked(), component, kind)


# --- retrieval ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Of one query: the share of the like ones (of three at most) among the first three, and 1 / the first's place."""

    of: str
    recall: float
    reciprocal: float


async def _retrieved(setting: Setting, known: Sequence[Incident]) -> list[Table]:
    like, embedder = _like(known), _embedder()
    tables = []
    for corrected, asked in ((True, (False, True)), (False, (False,))):
        async with _memory(setting, embedder) as pool:
            await _remember(pool, known, embedder, corrected=corrected)
            for analysed in asked:
                rows = []
                for way in _ways(embedder):
                    setting.tell(f"knowledge: {way.name}")
                    rows.append((way.name, *_cells(await _scores(pool, known, like, way, analysed=analysed))))
                tables.append(_retrieval_table(rows, known, like, analysed=analysed, corrected=corrected))
    return tables


async def _remember(pool: Pool, known: Sequence[Incident], embedder: Embedder | None, *, corrected: bool) -> None:
    for incident in known:
        async with transaction(pool) as connection:
            await store.save(connection, incident.case(corrected=corrected))
    if embedder:
        while await embed_some(pool, embedder):
            pass


async def _scores(
    pool: Pool, known: Sequence[Incident], like: Mapping[str, frozenset[str]], way: "Way", *, analysed: bool
) -> list[Scored]:
    """Of every incident that has one that is like it."""
    scored = []
    for incident in known:
        if like[incident.id]:
            found = await way.found(pool, incident.query(analysed=analysed))
            scored.append(_scored(incident, found, like[incident.id]))
    return scored


def _like(known: Sequence[Incident]) -> Mapping[str, frozenset[str]]:
    """By id those of the same set, component and kind of fault."""
    return {
        one.id: frozenset(
            other.id
            for other in known
            if other.id != one.id and (other.of, other.component, other.fault) == (one.of, one.component, one.fault)
        )
        for one in known
    }


@dataclass(frozen=True)
class Way:
    """Of searching: what the question is left with, and the embedder."""

    name: str
    without: Mapping[str, object]
    embedder: Embedder | None = None
    vector_only: bool = False

    async def found(self, pool: Pool, asked: Query) -> list[str]:
        """Ids of cases, best first."""
        query = asked.model_copy(update=dict(self.without))
        if self.vector_only and self.embedder:
            (vector,) = await self.embedder.embed([vector_text(query.text, query.signature or Signature())])
            narrow = store.Narrow(list(query.kinds), None, but=query.but)
            async with transaction(pool) as connection:
                return [one.id for one in await vectors.nearest(connection, vector, narrow)]
        return [hit.id for hit in await search(pool, query, self.embedder)]


def _ways(embedder: Embedder | None) -> list[Way]:
    ways = [Way("signature", {"text": ""}), Way("text", {"signature": None}), Way("fused, no embedder", {})]
    if embedder:
        ways += [Way("vector (wordllama)", {}, embedder, vector_only=True), Way("fused, wordllama", {}, embedder)]
    return ways


def _scored(incident: Incident, found: Sequence[str], like: frozenset[str]) -> Scored:
    first = next((place for place, one in enumerate(found, 1) if one in like), 0)
    recall = len(like & set(found[:TOP])) / min(len(like), TOP)
    return Scored(incident.of, recall, 1 / first if first else 0.0)


SETS = ("scenarios", "synthetic", "Nezha", "PetShop")


def _cells(scored: Sequence[Scored]) -> list[str]:
    """Of each set, then of all sets alike: a large one does not drown the others."""
    by_set = [[one for one in scored if one.of == name] for name in SETS]
    there = [of for of in by_set if of]
    cells = [_cell(mean(o.recall for o in of), mean(o.reciprocal for o in of)) if of else "-" for of in by_set]
    recall = mean(mean(one.recall for one in of) for of in there)
    return [*cells, _cell(recall, mean(mean(one.reciprocal for one in of) for of in there))]


def _cell(recall: float, reciprocal: float) -> str:
    return f"{recall:.2f} / {reciprocal:.2f}"


def _retrieval_table(
    rows: Sequence[Sequence[str]],
    known: Sequence[Incident],
    like: Mapping[str, frozenset[str]],
    *,
    analysed: bool,
    corrected: bool,
) -> Table:
    asked = {name: sum(bool(like[one.id]) for one in known if one.of == name) for name in SETS}
    total = {name: sum(one.of == name for one in known) for name in SETS}
    what = "alert, evidence and the rules engine's answer" if analysed else "alert and evidence, as the analyzer asks"
    held = "" if corrected else "; nobody corrected the causes of the cases"
    note = (
        f"All {len(known)} cases are in one memory. Like is: the same set, component and kind of fault; in brackets how"
        " many cases have one that is like them, and are asked for. recall@3: the share of these, of three at most,"
        " among the first three. Scenarios: one recording seen twice, with 40 % of the rows lost, by another monitor:"
        f" near-duplicates by construction. Synthetic: {len(SYSTEMS)} systems, in each {RUNS} incidents of each of"
        f" {len(FAULTS)} faults at random places; the weights of the search were chosen on other systems. The sets lie"
        " in different years, so age alone keeps them apart. A case holds the true component, and as its category what"
        " the rules engine said. With OpenAI's embedder it was not measured: that takes a key."
    )
    return Table(
        f"Leave-one-out, asked with {what}{held}: recall@3 / MRR",
        ("way", *(f"{name} ({asked[name]} of {total[name]})" for name in SETS), "mean"),
        rows,
        note if corrected else "The same, but a case holds the component that the rules engine blamed, right or wrong.",
    )


# --- speed --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """Words and terms that occur as in languages: the n-th most frequent one n times less often than the first."""

    words: tuple[str, ...]
    terms: Mapping[str, tuple[str, ...]]

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> "Vocabulary":
        """30,000 words, and names as a company of 400 services has them."""
        letters = np.array(list("bcdfghklmnprstvz")), np.array(list("aeiou"))

        def word() -> str:
            return "".join(str(rng.choice(letters[n % 2])) for n in range(int(rng.integers(4, 11))))

        sizes = {"components": 400, "error_types": 300, "templates": 8_000, "symptoms": 4_000, "finding_kinds": 600}
        return cls(
            tuple(dict.fromkeys(word() for _ in range(30_000))),
            {kind: tuple(f"{word()}-{n}" for n in range(size)) for kind, size in sizes.items()},
        )

    def text(self, rng: np.random.Generator, length: int = 90) -> str:
        """So many words."""
        return " ".join(self.words[n] for n in _zipf(rng, len(self.words), length))

    def signature(self, rng: np.random.Generator) -> Signature:
        """As of an incident with a few logs and a dozen findings."""
        counts = {"components": 2, "error_types": 2, "templates": 4, "symptoms": 10, "finding_kinds": 8}
        drawn = {
            kind: tuple(self.terms[kind][n] for n in _zipf(rng, len(self.terms[kind]), c)) for kind, c in counts.items()
        }
        service = self.terms["components"][int(_zipf(rng, 400, 1)[0])]
        rule = f"monitor-{int(rng.integers(3_000))}"
        return Signature(**drawn, services=(service,), rules=(rule,), alerts=(f"{rule}:{service}",))


def _zipf(rng: np.random.Generator, size: int, count: int) -> list[int]:
    """Places of a law of Zipf's, cut off at ``size``."""
    return [int(n) for n in np.minimum(size ** rng.random(count), size - 1)]


async def _timed(setting: Setting, known: Sequence[Incident]) -> list[Table]:
    rng = np.random.default_rng(7)
    vocabulary, embedder = Vocabulary.drawn(rng), _embedder()
    rows: list[Sequence[str]] = []
    there = 0
    async with _memory(setting, embedder) as pool:
        for size in SIZES:
            setting.tell(f"knowledge: filling a memory of {size:,}")
            await _fill(pool, vocabulary, rng, there, size, embedder)
            there = size
            cells = []
            for way in (*_ways(embedder), Way(ONE_SERVICE, {})):
                setting.tell(f"knowledge: {way.name} among {size:,}")
                cells.append(await _latencies(pool, vocabulary, way))
            *ways, scoped = cells
            rows.append([f"{size:,}", *ways, *["-"] * (5 - len(ways)), scoped, await _on_disk(pool)])
        return [_speed_table(rows), await _among_many(setting, pool, known, embedder)]


def _speed_table(rows: Sequence[Sequence[str]]) -> Table:
    return Table(
        "A search by size of the memory: p50 / p95 of one at a time",
        ("cases", "signature", "text", "fused", "vector (wordllama)", "fused, wordllama", ONE_SERVICE, "on disk"),
        rows,
        f"{ASKED} searches of each kind after {ASKED // 10} to warm up, by one client over a Unix socket, embedding of"
        " the question included. Made-up cases of 90 words and some 25 terms, each drawn by a law of Zipf's from 30,000"
        " words and the names of 400 services, independently: real words come together. Target: p95 under 60 ms.",
    )


async def _among_many(setting: Setting, pool: Pool, known: Sequence[Incident], embedder: Embedder | None) -> Table:
    """The known incidents once more, where all bounds of the search bind."""
    await _remember(pool, known, embedder, corrected=True)
    like, rows = _like(known), []
    for way in _ways(embedder):
        setting.tell(f"knowledge: {way.name}, the known ones among all")
        rows.append((way.name, *_cells(await _scores(pool, known, like, way, analysed=False))))
    return Table(
        f"The same incidents among {max(SIZES):,} made-up newer ones: recall@3 / MRR",
        ("way", *SETS, "mean"),
        rows,
        "As in the first table. The made-up ones speak of other services in other words, but there is nothing that"
        " narrows the search.",
    )


async def _latencies(pool: Pool, vocabulary: Vocabulary, way: Way) -> str:
    rng = np.random.default_rng(11)
    took = []
    for _ in range(ASKED + ASKED // 10):
        signature = vocabulary.signature(rng)
        query = Query(
            text=vocabulary.text(rng, 60),
            signature=signature,
            service=signature.services[0] if way.name == ONE_SERVICE else "",
            environment="production",
            kinds=("incident", "imported"),
            limit=TOP,
        )
        begun = time.perf_counter()
        await way.found(pool, query)
        took.append(time.perf_counter() - begun)
    told = took[ASKED // 10 :]
    return f"{percentile(told, 50) * 1000:.1f} / {percentile(told, 95) * 1000:.1f} ms"


async def _fill(
    pool: Pool, vocabulary: Vocabulary, rng: np.random.Generator, there: int, size: int, embedder: Embedder | None
) -> None:
    """In bulk: one by one it would take ten minutes. What is found by is counted at the end."""
    async with pool.connection() as connection:
        if embedder:
            await connection.execute("drop index knowledge_vector_near")
        for start in range(there, size, BATCH):
            await _fill_batch(connection, vocabulary, rng, range(start, min(start + BATCH, size)), embedder)
        await connection.execute("truncate knowledge_frequency")
        await connection.execute(
            """insert into knowledge_frequency
               select '', count(*) from knowledge
               union all select '@' || environment, count(*) from knowledge group by 1
               union all select term, count(*) from knowledge_term group by 1
               union all select '=' || word, ndoc from ts_stat('select words from knowledge') s (word, ndoc, nentry)"""
        )
        if embedder:
            await connection.execute("set maintenance_work_mem = '512MB'")
            await connection.execute(
                "create index knowledge_vector_near on knowledge_vector using hnsw (embedding halfvec_cosine_ops)"
            )
        await connection.execute("vacuum analyze knowledge, knowledge_term, knowledge_frequency")


async def _fill_batch(
    connection: Connection,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    numbers: range,
    embedder: Embedder | None,
) -> None:
    now = datetime.now(UTC)
    drawn = [
        (f"case-{n}", vocabulary.text(rng), vocabulary.signature(rng), now - timedelta(hours=n / 4)) for n in numbers
    ]
    columns = (
        "id, kind, environment, service, component, title, signature, occurred_at, fold, sha256, searchable, embedded"
    )
    async with connection.transaction(), connection.cursor() as cursor:
        async with cursor.copy(f"copy knowledge ({columns}) from stdin".encode()) as copy:
            for n, (id_, text, seen, at) in zip(numbers, drawn, strict=True):
                where = "production" if n % 5 else "staging"
                named = (seen.services[0], seen.components[0], text[:60], Jsonb(seen.model_dump(mode="json")))
                known = (id_, "incident", where, *named, at, id_, "", words([text]), embedder is not None)
                await copy.write_row(known)
        async with cursor.copy(
            b"copy knowledge_term (knowledge_id, term, environment, occurred_at) from stdin"
        ) as copy:
            for n, (id_, _, seen, at) in zip(numbers, drawn, strict=True):
                for term in seen.terms():
                    await copy.write_row((id_, term, "production" if n % 5 else "staging", at))
        if embedder:
            made = await embedder.embed([text for _, text, _, _ in drawn])
            await vectors.save(connection, [(one[0], vector) for one, vector in zip(drawn, made, strict=True)])


async def _on_disk(pool: Pool) -> str:
    async with pool.connection() as connection:
        row = await (
            await connection.execute(
                """select sum(pg_total_relation_size(oid)) as n from pg_class
                   where relkind = 'r' and relname like 'knowledge%%'"""
            )
        ).fetchone()
    return f"{float(row['n']) / 1e6:,.0f} MB" if row else "-"


# --- both ---------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _memory(setting: Setting, embedder: Embedder | None) -> AsyncIterator[Pool]:
    """An empty one."""
    async with create_pool(setting.database()) as pool:
        if embedder:
            async with pool.connection() as connection:
                await vectors.prepare(connection, embedder)
        yield pool


def _embedder() -> Embedder | None:
    try:
        return WordLlamaEmbedder()
    except EmbedderError:
        return None
