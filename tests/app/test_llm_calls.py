"""Calls of a model in Postgres: caps that hold between processes, and what may be read of them over REST."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import httpx
import psycopg
import pytest

from app.db import Pool, create_pool
from app.embedded_postgres import EmbeddedPostgres
from app.store import llm_calls
from app.store.llm_calls import PostgresCallLog
from graph.llms.accounted import (
    AccountedChatModel,
    CapReached,
    Caps,
    LogUnavailable,
    Most,
    Outcome,
    PlannedCall,
    Prices,
    Spent,
)
from graph.llms.base import LlmError
from graph.llms.chat import Answer, Purpose
from tests.app.served import Served, serving
from tests.app.test_alerts import Office, alert, at_work
from tests.graph.llms.chats import MASKER, SECRET, Chat, failing, question, usage

MOST = Most(10_000, 0.3)
OPEN = Caps()


def call(incident_id: str | None, most: Most = MOST) -> PlannedCall:
    """One that is about to be made."""
    purpose = Purpose("RootCauseAnalyzer", str(incident_id), 1)
    return PlannedCall(purpose, "gpt-4o", "0" * 64, [{"role": "user", "content": "why?"}], most)


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """An office on a database of its own."""
    async with at_work(database_url) as one:
        yield one


@pytest.fixture
async def others(database_url: str) -> AsyncIterator[Pool]:
    """Another process's connections."""
    async with create_pool(database_url) as pool:
        yield pool


async def spent(office: Office, incident_id: str | None) -> Spent:
    """As the next call would find it."""
    async with office.pool.connection() as connection:
        return await llm_calls.spent(connection, str(incident_id))


async def test_processes_at_once_never_spend_the_day_twice(office: Office, others: Pool) -> None:
    incidents = [
        (await office.accept(alert(f"a{n}", minute=20 * n, service=s)))[0] for n, s in enumerate(("web", "mail"))
    ]
    logs, caps = [PostgresCallLog(office.pool), PostgresCallLog(others)], Caps(dollars_per_day=1.0)
    made = await asyncio.gather(
        *(logs[n % 2].reserve(call(incidents[n // 2 % 2]), caps) for n in range(20)), return_exceptions=True
    )
    refusals = [refusal for refusal in made if isinstance(refusal, CapReached)]
    assert len(refusals) == 17
    assert "AUTOPILOT_INVESTIGATION_DOLLARS_PER_DAY is 1.0000, 0.9000 are spent or reserved" in str(refusals[0])
    assert (await spent(office, incidents[0])).day_dollars == pytest.approx(0.9)


async def test_an_incident_has_its_own_share_and_the_day_is_over_at_midnight(office: Office) -> None:
    (one, other) = await office.accept(alert("a"), alert("m", service="mail"))
    log, caps = PostgresCallLog(office.pool), Caps(15_000, 0.5, 0.8)
    first = await log.reserve(call(one), caps)
    with pytest.raises(CapReached, match="TOKENS_PER_INCIDENT"):
        await log.reserve(call(one), caps)
    await log.record(first, Outcome(usage(1_000, 100, 0.25), 1.5))
    assert await spent(office, one) == Spent(1_100, 0.25, 0.25)
    with pytest.raises(CapReached, match="DOLLARS_PER_INCIDENT"):
        await log.reserve(call(one), caps)
    await log.reserve(call(other), caps)
    with pytest.raises(CapReached, match="DOLLARS_PER_DAY"):
        await log.reserve(call(other, Most(1, 0.26)), replace(caps, dollars_per_incident=None))
    await office.rows("update llm_call set at = at - interval '1 day'")
    await log.reserve(call(other, Most(1, 0.2)), caps)
    assert (await spent(office, other)).day_dollars == pytest.approx(0.2)


async def test_a_call_that_nobody_came_back_from_keeps_its_reservation(office: Office) -> None:
    (incident,) = await office.accept(alert("a"))
    log = PostgresCallLog(office.pool)
    await log.reserve(call(incident), OPEN)  # and the process dies
    timed_out = await log.reserve(call(incident), OPEN)
    await log.record(timed_out, Outcome(None, 60.0, error="gpt-4o timed out after 60 s", lost_attempts=1))
    reserved = await spent(office, incident)
    assert reserved.incident_tokens == 20_000
    assert reserved.incident_dollars == reserved.day_dollars == pytest.approx(0.6)
    rows = await office.rows("select finished_at is null as open, error from llm_call order by at")
    assert rows == [{"open": True, "error": ""}, {"open": False, "error": "gpt-4o timed out after 60 s"}]


async def test_attempts_that_broke_off_keep_their_reservations_beside_the_cost(office: Office) -> None:
    (incident,) = await office.accept(alert("a"))
    log = PostgresCallLog(office.pool)
    await log.record(await log.reserve(call(incident), OPEN), Outcome(usage(), 1.0, lost_attempts=1))
    await log.record(await log.reserve(call(incident), OPEN), Outcome(None, 1.0, error="it broke off", lost_attempts=2))
    kept = await spent(office, incident)
    assert kept.incident_tokens == 1_100 + 3 * 10_000
    assert kept.day_dollars == pytest.approx(0.0035 + 3 * 0.3)


async def test_what_postgres_cannot_hold_is_kept_without_it(office: Office) -> None:
    (incident,) = await office.accept(alert("a"))
    chat = Chat(lambda: Answer('{"yes": "\x00\ud800"}', usage()))
    prices = Prices(2.5, 10.0, 4_000)
    model = AccountedChatModel(chat, PostgresCallLog(office.pool), OPEN, prices, MASKER)
    await model.ask(question("\x00 \ud800", incident_id=str(incident)))
    (row,) = await office.rows("select answer, messages from llm_call")
    assert row["answer"]["content"] == '{"yes": "?"}'
    assert row["messages"][1]["content"] == " ?"


async def test_without_the_database_no_call_is_made_and_an_answer_is_used(own_postgres: EmbeddedPostgres) -> None:
    async with at_work(own_postgres.url) as office:
        (incident,) = await office.accept(alert("a"))
        log = PostgresCallLog(office.pool)
        call_id = await log.reserve(call(incident), OPEN)
        own_postgres.stop()
        with pytest.raises(LogUnavailable):
            await log.record(call_id, Outcome(usage(), 1.0))
        chat = Chat()
        model = AccountedChatModel(chat, log, OPEN, Prices(2.5, 10.0, 4_000), MASKER)
        with pytest.raises(LlmError, match="could not be reserved"):
            await model.ask(question(incident_id=str(incident)))
        assert chat.asked == 0


async def test_the_sums_are_read_from_indexes(office: Office) -> None:
    (incident,) = await office.accept(alert("a"))
    await office.rows(
        """insert into llm_call (incident_id, round, node, at, model, prompt_sha256, messages, reserved_tokens,
               reserved_dollars)
           select %s, 1, 'ActionPlanner', now() - n * interval '1 minute', 'm', '', '[]', 1, 0.1
           from generate_series(1, 20000) n""",
        incident,
    )
    await office.rows("vacuum analyze llm_call")
    plan = await office.rows(
        "explain select sum(dollars + reserved_dollars) from llm_call"
        " where at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC'"
    )
    assert "llm_call_day" in json.dumps(plan)


# --- over REST ---


@pytest.fixture
def served(database_url: str, tmp_path: Path) -> Iterator[Served]:
    """No worker."""
    with serving(database_url, tmp_path) as started:
        yield started


def opened(served: Served) -> str:
    """An incident."""
    body = {"service": "checkout", "occurred_at": "2024-12-20T09:15:00Z"}
    incident: str = served.http.post("/incidents", json=body).json()["incident_id"]
    return incident


async def asked(database_url: str, incident_id: str, chat: Chat) -> None:
    """One call, as a worker makes it."""
    async with create_pool(database_url) as pool:
        model = AccountedChatModel(chat, PostgresCallLog(pool), OPEN, Prices(2.5, 10.0, 4_000), MASKER)
        await model.ask(question(f"the key is {SECRET}", incident_id))


def test_everybody_sees_the_figures_and_admins_the_texts(served: Served) -> None:
    incident = opened(served)
    asyncio.run(asked(served.database_url, incident, Chat()))
    with pytest.raises(LlmError):
        asyncio.run(asked(served.database_url, incident, Chat(failing("gpt-4o timed out after 60 s", None))))
    vera = served.client("viewer")
    told = vera.get(f"/incidents/{incident}/model-calls").json()
    assert [c["status"] for c in told["calls"]] == ["answered", "failed"]
    first, second = told["calls"]
    assert (first["prompt_tokens"], first["completion_tokens"], first["reserved_tokens"]) == (1_000, 100, 0)
    assert (first["model"], first["finish_reason"], first["dollars"]) == ("gpt-4o-2024-08-06", "stop", 0.0035)
    assert first["prompt_sha256"] == second["prompt_sha256"]
    assert second["reserved_tokens"] > 4_000
    assert second["error"] == "gpt-4o timed out after 60 s"
    assert told["tokens"] == 1_100 + second["reserved_tokens"]
    assert told["dollars"] == told["dollars_today"] == pytest.approx(0.0035 + second["reserved_dollars"])
    assert (told["tokens_per_incident"], told["dollars_per_day"]) == (200_000, None)
    assert "messages" not in first
    use = vera.get(f"/incidents/{incident}/report").json()["model_use"]
    assert (use["calls"], use["failed"], use["dollars"]) == (2, 1, pytest.approx(told["dollars"]))
    where = f"/incidents/{incident}/model-calls/{first['id']}"
    refused(vera.get(where), 403, "to see what the model was asked takes admin")
    whole = served.http.get(where).json()
    assert [message["role"] for message in whole["messages"]] == ["system", "user", "assistant", "tool"]
    assert whole["answer"]["content"] == '{"yes": true}'
    assert SECRET not in json.dumps(whole)
    assert served.http.get(f"/incidents/{incident}/model-calls/{second['id']}").json()["answer"] is None


def test_what_is_not_there_is_404(served: Served) -> None:
    incident = opened(served)
    assert served.http.get(f"/incidents/{incident}/model-calls").json()["calls"] == []
    refused(served.http.get("/incidents/inc_0/model-calls"), 404, "There is no incident 'inc_0'")
    refused(served.http.get(f"/incidents/inc_0/model-calls/{uuid4()}"), 404, "There is no incident 'inc_0'")
    refused(served.http.get(f"/incidents/{incident}/model-calls/{uuid4()}"), 404, "There is no call")
    refused(served.http.get(f"/incidents/{incident}/model-calls/first"), 422, "fit")
    refused(served.stranger.get(f"/incidents/{incident}/model-calls"), 401, "API key")


def refused(answer: httpx.Response, status: int, words: str) -> None:
    """One shape for every refusal."""
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]


def test_a_call_belongs_to_an_incident(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute(
            """insert into llm_call (incident_id, round, node, model, prompt_sha256, messages, reserved_tokens,
                   reserved_dollars) values ('inc_0', 1, 'ActionPlanner', 'm', '', '[]', 1, 0)"""
        )
