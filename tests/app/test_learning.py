"""Who learns what ended, and the vectors of what was learned: the sweep, its jobs, the embedders."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from psycopg import OperationalError
from pydantic import SecretStr

from app.clock import SystemClock
from app.db import create_pool, transaction
from app.intake.base import Directory
from app.jobs import MAX_LEARNED, learn, learn_ended, register_jobs
from app.knowledge import remember, search
from app.knowledge.cases import Case, Query
from app.knowledge.embedding import (
    MAX_TEXT,
    Embedder,
    EmbedderError,
    EmbeddingFailed,
    MaskedEmbedder,
    OpenAIEmbedder,
    WordLlamaEmbedder,
)
from app.knowledge.search import PostgresPast
from app.reception import Reception
from app.runner import Runner
from app.settings import Settings
from app.store import knowledge as store
from app.store import vectors
from app.store.ledger import PostgresLedger, PostgresSnapshots
from app.wiring import Product, WiringError, create_embedder
from graph.deps import Deps
from graph.llms.openai_settings import Settings as OpenAISettings
from graph.llms.rules import RulesAnalyst
from tests.app.archive import NOW, Archive, evidence, now
from tests.app.test_alerts import CATALOGUE, at_work
from tests.app.test_knowledge import imported, save
from tests.graph.llms.chats import MASKER

pytest.importorskip("wordllama")


def product_of(archive: Archive, embedder: Embedder | None = None) -> tuple[Product, Runner]:
    """What a worker has."""
    office = archive.office
    desk = replace(office.desk, embedder=embedder)
    deps = Deps(
        catalogue=CATALOGUE,
        collectors=[],
        snapshots=PostgresSnapshots(office.pool),
        analyst=RulesAnalyst(),
        operations={},
        ledger=PostgresLedger(office.pool),
        clock=SystemClock(),
    )
    made = Product(
        desk.settings, SystemClock(), office.pool, office.queue, desk, deps, {}, Directory(CATALOGUE), Reception(desk)
    )
    return made, Runner(office.pool, deps)


@pytest.fixture
async def archive(database_url: str) -> AsyncIterator[Archive]:
    """An empty one."""
    async with at_work(database_url) as office:
        yield Archive(office)


async def work_off(product: Product) -> None:
    """All jobs there are, but for investigations."""
    async with product.pool.connection() as connection:
        await connection.execute("delete from procrastinate_jobs where task_name = 'advance'")
    await product.queue.run_worker_async(wait=False, install_signal_handlers=False, listen_notify=False)


async def test_what_ended_is_found_by_the_sweep_whoever_ended_it_and_whenever(archive: Archive) -> None:
    product, runner = product_of(archive)
    register_jobs(product, runner)
    before_the_upgrade = await archive.open("f")
    await archive.found(before_the_upgrade, "db", "leak")
    await archive.close(before_the_upgrade, 30, learn=False)
    recovered = await archive.open("g")
    await archive.office.rows(
        "update incident set recovered = true, closed_at = clock_timestamp(), status = 'closed' where id = %s",
        recovered,
    )
    still_open = await archive.open("h", "mail")
    for _ in range(3):  # more often than needed: nothing is asked for twice
        await learn_ended(product)
    jobs = await archive.office.rows("select args from procrastinate_jobs where task_name = 'learn_case'")
    assert sorted(job["args"]["incident_id"] for job in jobs) == sorted([before_the_upgrade, recovered])
    await work_off(product)
    learned = {hit.id: hit.outcome for hit in await archive.search()}
    assert learned == {before_the_upgrade: "unresolved", recovered: "recovered"}
    assert still_open not in learned
    await learn_ended(product)
    waiting = "select 1 from procrastinate_jobs where task_name = 'learn_case' and status = 'todo'"
    assert not await archive.office.rows(waiting)


async def test_what_cannot_be_written_is_left_out_in_the_end(archive: Archive) -> None:
    product, _ = product_of(archive)
    incident = await archive.open()
    await archive.close(incident, learn=False)
    await archive.office.rows("update incident set alert = '{}' where id = %s", incident)
    with pytest.raises(ValueError, match="validation errors for Alert"):
        await learn(product, incident, last_time=False)
    async with transaction(archive.office.pool) as connection:
        assert await store.unlearned(connection, 10) == [incident]
    await learn(product, incident, last_time=True)
    async with transaction(archive.office.pool) as connection:
        assert await store.unlearned(connection, 10) == []
    assert MAX_LEARNED > 1


async def test_a_database_that_is_away_loses_no_case(archive: Archive) -> None:
    product, _ = product_of(archive)
    incident = await archive.open()
    await archive.close(incident, learn=False)
    url = f"{archive.office.pool.conninfo}&options=-c%20lock_timeout%3D100"
    async with create_pool(url) as hurried, transaction(archive.office.pool) as writer:
        await store.take_turn(writer)
        late = replace(product, pool=hurried, desk=replace(product.desk, pool=hurried))
        with pytest.raises(OperationalError):
            await learn(late, incident, last_time=True)
    async with transaction(archive.office.pool) as connection:
        assert await store.unlearned(connection, 10) == [incident]


# --- vectors ------------------------------------------------------------------------------------------------------


async def prepared(archive: Archive, embedder: Embedder) -> None:
    """As at the start of a process."""
    async with archive.office.pool.connection() as connection:
        await vectors.prepare(connection, embedder)


async def embedded(archive: Archive) -> list[str]:
    """Cases that have a vector."""
    return [row["knowledge_id"] for row in await archive.office.rows("select knowledge_id from knowledge_vector")]


async def test_vectors_are_made_by_a_job_and_find_what_shares_no_word(archive: Archive) -> None:
    embedder = MaskedEmbedder(WordLlamaEmbedder(), MASKER)
    product, runner = product_of(archive, embedder)
    register_jobs(product, runner)
    await prepared(archive, embedder)
    cat = await archive.ended("db", "leak", fingerprint="f", seen=evidence("db", "The physician treated the patient"))
    await archive.ended("web", "slow", fingerprint="g", seen=evidence("web", "Stock markets fell on Friday"))
    await learn_ended(product)
    await learn_ended(product)
    assert len(await archive.office.rows("select 1 from procrastinate_jobs where task_name = 'embed_cases'")) == 1
    await work_off(product)
    assert len(await embedded(archive)) == 2
    asked = Query(text="doctors and medicine")
    assert await search.search(archive.office.pool, asked) == []
    hits = await search.search(archive.office.pool, asked, embedder)
    assert hits[0].id == cat
    assert hits[0].reasons[0].startswith("text alike by ")


async def test_a_vector_goes_with_its_case_and_comes_anew_with_a_new_text(archive: Archive) -> None:
    embedder = WordLlamaEmbedder()
    await prepared(archive, embedder)
    incident, other = await archive.ended(), await archive.ended("web", "slow", fingerprint="g", days_ago=1)
    assert await remember.embed_some(archive.office.pool, embedder) == 2
    await archive.say(incident, component="cache")
    assert await embedded(archive) == [other]
    assert await remember.embed_some(archive.office.pool, embedder) == 1
    newer = await archive.ended("web", "slow", fingerprint="g")
    assert await embedded(archive) == [incident]  # the newest of a fold stands for it
    assert await remember.embed_some(archive.office.pool, embedder) == 1
    async with transaction(archive.office.pool) as connection:
        await store.forget(connection, [newer])
    assert await embedded(archive) == [incident]


async def test_another_embedder_begins_anew(archive: Archive) -> None:
    await prepared(archive, WordLlamaEmbedder())
    await archive.ended()
    await remember.embed_some(archive.office.pool, WordLlamaEmbedder())
    await prepared(archive, WordLlamaEmbedder())
    assert len(await embedded(archive)) == 1
    with answering(lambda asked: (200, _vectors(asked, 64))) as url:
        other = openai(url, 64)
        await prepared(archive, other)
        assert await embedded(archive) == []
        assert await remember.embed_some(archive.office.pool, other) == 1
        await other.aclose()


async def test_an_embedder_that_fails_is_in_nobodys_way(archive: Archive, caplog: pytest.LogCaptureFixture) -> None:
    incident = await archive.ended()
    with answering(lambda asked: (500, {"error": {"message": "hunter2"}})) as url:
        embedder = openai(url, 64)
        await prepared(archive, embedder)
        with pytest.raises(EmbeddingFailed, match="InternalServerError 500"):
            await remember.embed_some(archive.office.pool, embedder)
        hits = await search.search(archive.office.pool, Query(text="leak"), embedder)
        await embedder.aclose()
    assert [hit.id for hit in hits] == [incident]
    assert "hunter2" not in caplog.text
    assert await embedded(archive) == []


# --- whom it must not disturb ---


@dataclass
class Made:
    """An embedder to which all texts are alike. With ``answers`` it waits until that is set."""

    name: str = "made:a:3"
    dimensions: int = 3
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event | None = None
    seen: list[str] = field(default_factory=list)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.seen += texts
        self.asked.set()
        if self.answers:
            await self.answers.wait()
        return [[1.0] * self.dimensions for _ in texts]

    def mask(self, text: str) -> str:
        return text

    async def aclose(self) -> None:
        pass


async def test_a_search_goes_without_the_vectors_of_another_embedder(archive: Archive) -> None:
    mine, theirs = Made(), Made("made:b:3")
    await prepared(archive, mine)
    incident = await archive.ended()
    await prepared(archive, theirs)
    assert await remember.embed_some(archive.office.pool, mine) == 0
    assert await embedded(archive) == []
    assert await remember.embed_some(archive.office.pool, theirs) == 1
    for embedder in (mine, Made("made:c:4", 4), Made("made:b:3", 4)):
        (hit,) = await search.search(archive.office.pool, Query(text="leak"), embedder)
        assert (hit.id, hit.reasons) == (incident, ("words leak",))
    (hit,) = await search.search(archive.office.pool, Query(text="leak"), theirs)
    assert hit.reasons == ("words leak", "text alike by 100%")


async def test_a_memory_whose_vectors_are_gone_is_searched_and_written_all_the_same(archive: Archive) -> None:
    await prepared(archive, Made())
    incident = await archive.ended()
    await remember.embed_some(archive.office.pool, Made())
    await archive.office.rows("drop table knowledge_vector")
    assert [hit.id for hit in await search.search(archive.office.pool, Query(text="leak"), Made())] == [incident]
    await archive.say(incident, component="cache")
    assert (await archive.case(incident))["component"] == "cache"


async def test_a_pgvector_that_is_too_old_is_told_at_the_start(archive: Archive) -> None:
    await prepared(archive, Made())
    await archive.office.rows("update pg_extension set extversion = '0.7.4' where extname = 'vector'")
    with pytest.raises(vectors.NoVectors, match=r"has pgvector 0\.7\.4, and 0\.8 is needed"):
        await prepared(archive, Made("made:b:3"))


async def test_beginning_anew_waits_for_who_writes(archive: Archive) -> None:
    await prepared(archive, Made())
    incident = await archive.ended()
    await remember.embed_some(archive.office.pool, Made())
    waits = """select 1 from pg_locks where not granted
                 and database = (select oid from pg_database where datname = current_database())"""
    async with transaction(archive.office.pool) as writer:
        await writer.execute("update knowledge set title = title where id = %s", (incident,))
        anew = asyncio.create_task(prepared(archive, Made("made:b:4", 4)))
        while not await archive.office.rows(waits):  # noqa: ASYNC110  it changes in Postgres
            await asyncio.sleep(0.01)
        await writer.execute("delete from knowledge_vector where knowledge_id = %s", (incident,))
    await anew
    assert await remember.embed_some(archive.office.pool, Made("made:b:4", 4)) == 1


async def test_nobody_waits_for_an_embedder_that_is_slow(archive: Archive) -> None:
    slow = Made(answers=asyncio.Event())
    await prepared(archive, slow)
    incident, other = await archive.ended(), await archive.ended("web", "slow", fingerprint="g")
    embedding = asyncio.create_task(remember.embed_some(archive.office.pool, slow))
    await slow.asked.wait()
    async with asyncio.timeout(5):
        await archive.say(incident, component="cache")
    assert slow.answers
    slow.answers.set()
    assert await embedding == 2
    assert await embedded(archive) == [other]  # the text of the first is another by now
    assert await remember.embed_some(archive.office.pool, slow) == 1


async def test_an_embedder_that_does_not_answer_takes_only_the_vectors_away(archive: Archive) -> None:
    incident = await archive.ended()
    past = PostgresPast(archive.office.pool, SystemClock(), Made(answers=asyncio.Event()))
    async with asyncio.timeout(Deps.past_s):
        assert [one.incident_id for one in await past.similar("inc_now", now(), evidence("db"))] == [incident]


async def test_no_half_secret_reaches_an_embedder(archive: Archive) -> None:
    inner = Made()
    embedder = MaskedEmbedder(inner, MASKER)
    await prepared(archive, embedder)
    for fits in (600, MAX_TEXT):
        told = "w " * (fits // 2 - 5) + "AKIAIOSFODNN7EXAMPLE was used"
        await save(archive, imported("t", str(fits), summary=told[2:]))
        await search.search(archive.office.pool, Query(text=told), embedder)
        await embedder.embed([told])
    assert await remember.embed_some(archive.office.pool, embedder) == 2
    assert len(inner.seen) == 6
    assert not [text for text in inner.seen if "AKIA" in text]


def cases(*titles: str) -> list[Case]:
    """Imported ones, in the order of their titles."""
    return [imported(title, id=f"imported_{title}", occurred_at=NOW) for title in titles]


async def test_a_text_that_is_refused_does_without_a_vector_and_holds_up_no_other(archive: Archive) -> None:
    def answer(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if any("poison" in text for text in asked["input"]):
            return 400, {"error": {"message": "no"}}
        return 200, _vectors(asked, 64)

    with answering(answer) as url:
        embedder = openai(url, 64)
        await prepared(archive, embedder)
        await save(archive, *cases("a", "b poison", "c", "d"))
        assert await remember.embed_some(archive.office.pool, embedder) == 4
        assert await embedded(archive) == ["imported_a", "imported_c", "imported_d"]
        assert await remember.embed_some(archive.office.pool, embedder) == 0
        await embedder.aclose()


async def test_where_every_text_is_refused_no_case_is_to_blame(archive: Archive) -> None:
    answers = [(400, {"error": {"message": "no such dimensions"}})]
    with answering(lambda asked: answers[0] if answers else (200, _vectors(asked, 64))) as url:
        embedder = openai(url, 64)
        await prepared(archive, embedder)
        await save(archive, *cases("a", "b"))
        with pytest.raises(EmbeddingFailed, match="BadRequestError 400"):
            await remember.embed_some(archive.office.pool, embedder)
        answers.clear()
        assert await remember.embed_some(archive.office.pool, embedder) == 2
        await embedder.aclose()


# --- embedders ----------------------------------------------------------------------------------------------------


@contextmanager
def answering(answer: Any) -> Iterator[str]:
    """A server of embeddings: ``answer`` makes status and body of what it is asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = answer(asked)
            told = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()


def openai(url: str, dimensions: int) -> OpenAIEmbedder:
    """Against that server."""
    return OpenAIEmbedder(OpenAISettings(api_key=SecretStr("sk-test"), base_url=url), "small", dimensions)


def _vectors(asked: dict[str, Any], dimensions: int) -> dict[str, Any]:
    rows = [
        {"object": "embedding", "index": n, "embedding": [float(n + 1)] * dimensions}
        for n in range(len(asked["input"]))
    ]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "model": asked["model"], "data": rows[::-1], "usage": usage}


async def test_openai_is_sent_masked_texts_and_answers_in_order() -> None:
    seen: list[dict[str, Any]] = []

    def answer(asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        seen.append(asked)
        return 200, _vectors(asked, 64)

    with answering(answer) as url:
        embedder = MaskedEmbedder(openai(url, 64), MASKER)
        found = await embedder.embed(["mail kim@example.com", "", "x" * 9_000])
        await embedder.aclose()
    assert [vector[0] for vector in found] == [1.0, 2.0, 3.0]
    assert "kim@example.com" not in json.dumps(seen)
    assert (seen[0]["model"], seen[0]["dimensions"], seen[0]["input"][1]) == ("small", 64, "-")


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (401, {"error": {"message": "no"}}, "AuthenticationError 401"),
        (200, {"object": "list", "data": [], "model": "m", "usage": {}}, "did not give a vector of 64 numbers"),
    ],
)
async def test_no_vectors_says_why(status: int, body: dict[str, Any], why: str) -> None:
    with answering(lambda asked: (status, body)) as url:
        embedder = openai(url, 64)
        with pytest.raises(EmbeddingFailed, match=why):
            await embedder.embed(["a"])
        await embedder.aclose()


async def test_wordllama_knows_likeness() -> None:
    one, like, unlike = await WordLlamaEmbedder().embed(["database is slow", "slow queries in Postgres", "certificate"])
    assert len(one) == WordLlamaEmbedder.dimensions
    assert _dot(one, like) > _dot(one, unlike)


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_which_embedder_is_set() -> None:
    assert create_embedder(Settings(), MASKER) is None
    made = create_embedder(Settings(embedder="wordllama"), MASKER)
    assert made is not None
    assert made.name == "wordllama:l2_supercat:256"
    with pytest.raises(WiringError, match="AUTOPILOT_EMBEDDER=openai: it needs OPENAI_API_KEY"):
        create_embedder(Settings(embedder="openai"), MASKER)
    with pytest.raises(EmbedderError):
        OpenAIEmbedder(OpenAISettings(), "m", 64)
