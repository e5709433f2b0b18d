"""An installation of the version before: brought up to date, and back, with what it holds."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg.types.json import Jsonb

from app import audit
from app.db import MIGRATIONS, migrate
from app.decisions import actions_for
from app.embedded_postgres import EmbeddedPostgres
from app.store import ledger
from tests.app.deciding import ANN, Office, offices

BEFORE = "0004"
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
OF_T = {"source": "t", "title": "t", "service": "shop"}
ALERT = {**OF_T, "occurred_at": NOON.isoformat(), "fingerprint": "f", "cycle_key": "c"}
STEP = {"operation": "turn_dial", "params": {"service": "shop", "to": 5}, "preview": "1 -> 5"}
PLAN = {"options": [{"title": "Turn", "description": "", "risk": "low", "minutes": 1, "steps": [STEP]}], "note": ""}
RESULT = {"ordinal": 1, "operation": "turn_dial", "params": STEP["params"], "status": "succeeded", "made": True}
INCIDENTS = (("inc_waits", "awaiting_decision", "aaaa"), ("inc_done", "resolved", None))
KNOWN = """select i.id, i.status, i.plan_revision, d.choice, d.decided_by, d.at, s.operation, s.result, a.plan
           from incident i join analysis a on a.incident_id = i.id
           left join decision d on d.incident_id = i.id left join step s on s.incident_id = i.id order by i.id"""
SHAPE = """select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns
           where table_schema = 'public' and table_name not like 'procrastinate%' and table_name not like 'checkpoint%'
           union all select tablename, indexname, indexdef, '', '' from pg_indexes
           where schemaname = 'public' and tablename in ('incident', 'decision', 'step') order by 1, 2"""


def alembic(url: str) -> Config:
    """As ``app.db.migrate`` has it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = url
    return config


@pytest.fixture
def older(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database as the version before left it: one plan waits, another was decided on and carried out."""
    name = f"t{time.time_ns()}"
    url = postgres.url.replace("/postgres?", f"/{name}?")
    with psycopg.connect(postgres.url, autocommit=True) as server:
        server.execute(f"create database {name}".encode())
        try:
            command.upgrade(alembic(url), BEFORE)
            with psycopg.connect(url) as connection:
                fill(connection)
            yield url
        finally:
            server.execute(f"drop database {name} with (force)".encode())


def fill(connection: psycopg.Connection) -> None:
    """As the version before wrote it."""
    for incident, status, revision in INCIDENTS:
        connection.execute(
            """insert into incident (id, service, title, severity, source, environment, occurred_at, status, round,
                   plan_revision, alert, opened_by)
               values (%s, 'shop', 't', 'critical', 't', 'production', %s, %s, 1, %s, %s, 'kim')""",
            (incident, NOON, status, revision, Jsonb(ALERT)),
        )
        plan = {"revision": revision or "bbbb", **PLAN}
        connection.execute(
            "insert into analysis (incident_id, round, plan) values (%s, 1, %s)", (incident, Jsonb(plan))
        )
    connection.execute(
        """insert into decision (incident_id, plan_revision, choice, decided_by, at)
           values ('inc_done', 'bbbb', '1', 'kim', %s)""",
        (NOON,),
    )
    connection.execute(
        """insert into step (incident_id, plan_revision, ordinal, operation, params, resource, before, claimed_at,
               finished_at, result) values ('inc_done', 'bbbb', 1, 'turn_dial', %s, 'dial:shop', '{}', %s, %s, %s)""",
        (Jsonb(STEP["params"]), NOON, NOON, Jsonb(RESULT)),
    )


async def test_what_was_there_is_kept_and_nothing_of_it_runs_as_it_was_planned(older: str) -> None:
    migrate(older)
    async with offices(older) as office:
        await _a_plan_that_is_bound_to_nothing_can_only_be_left(office)
        [decided] = await office.sql("select decided_at from decision where incident_id = 'inc_done'")
        assert decided["decided_at"] == NOON  # not the hour of the upgrade: figures go by it
        async with office.pool.connection() as connection:
            assert [row["result"]["status"] for row in await ledger.steps(connection, "inc_done")] == ["succeeded"]
        async with office.pool.connection() as connection, connection.transaction():
            report = await audit.verify(connection)
        assert report.findings == []
        assert "1 decisions are older than the log: nothing vouches for them" in report.notes


async def _a_plan_that_is_bound_to_nothing_can_only_be_left(office: Office) -> None:
    offers = await actions_for(office.desk, "inc_waits", ANN)
    assert set(offers.choices) == {"manual", "re_analyze", "re_plan"}
    assert offers.expires_at is not None
    assert offers.expires_at - datetime.now(UTC) <= timedelta(minutes=30)
    reason, said = await office.refused("inc_waits", "1")
    assert reason == "tampered"
    assert "an older version of the product wrote it" in said
    assert (await office.decide("inc_waits", "manual", note="by hand")).status == "decided"


def test_down_and_up_again(older: str) -> None:
    known, shape = _rows(older, KNOWN), _rows(older, SHAPE)
    migrate(older)
    newer = _rows(older, SHAPE)
    command.downgrade(alembic(older), BEFORE)
    assert (_rows(older, KNOWN), _rows(older, SHAPE)) == (known, shape)
    migrate(older)
    assert (_rows(older, KNOWN), _rows(older, SHAPE)) == (known, newer)


def _rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()
