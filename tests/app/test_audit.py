"""The audit log: what is written into it, and that nothing in it, or around it, can be changed unseen."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.errors import RaiseException
from pydantic import JsonValue, SecretStr

from app import audit, freezing
from app.audit import AuditError, Head, Report
from app.clock import SystemClock
from app.db import Connection, Pool, create_pool, transaction
from app.runner import Runner
from app.security import Caller, issue, revoke
from app.signing import Key
from app.store import audit as log
from app.store import decisions, incidents
from app.store.audit import Entry, append, append_changed
from graph.deps import Claim, StepKey
from graph.state import Approval, Decision, StepResult
from tests.app.served import serving
from tests.app.test_runner import Office, at_work

KEY, NEW_KEY = SecretStr("a-key-of-the-audit-log"), SecretStr("another-key-of-the-log")
NOW = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
ADMIN = Caller("ada", "admin")
Tamper = Callable[[Connection], Awaitable[object]]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """Connections that sign with the key of the tests."""
    async with create_pool(database_url, audit_keys=[KEY]) as one:
        yield one


@pytest.fixture
async def lived(database_url: str, pool: Pool) -> Pool:
    """A log with a row of every kind that stands for a row of another table, and some more."""
    await live(database_url, pool)
    return pool


async def live(database_url: str, pool: Pool) -> None:
    """An incident from its alert to its verification, and what happened beside."""
    clock = SystemClock()
    async with at_work(database_url, audit_keys=[KEY]) as office:
        incident, ledger = await office.open(), office.deps.ledger
        await Runner(office.pool, office.deps).advance(incident)
        decision = Decision(plan_revision="r", choice="1", by="kim", at=NOW)
        async with transaction(pool) as c:
            await decisions.insert_approval(c, incident, "r", "1", [], Approval(by="vera", role="admin", at=NOW))
            await append(c, "approval", "vera", NOW, {"plan_revision": "r", "by": "vera"}, incident)
        async with transaction(pool) as c:
            assert await incidents.insert_decision(c, incident, decision)
            await append(c, "decision", "kim", NOW, decision.model_dump(mode="json"), incident)
        claimed = await ledger.claim(Claim(StepKey(incident, "r", 1), "restart", {"n": 1.50}, "x", {"a": 1e22}, NOW))
        done = StepResult(ordinal=1, operation="restart", status="succeeded", finished_at=NOW)
        await ledger.finish(claimed.step_id, done)
        async with transaction(pool) as c:
            await incidents.save_execution(c, incident, "r", {"verdict": "resolved", "wait": -0.0})
            await append(c, "verification", "autopilot", NOW, {"plan_revision": "r"}, incident)
        async with transaction(pool) as c:
            await decisions.withdraw(c, incident, "r", "kim")
            await append(c, "withdrawal", "kim", NOW, {"plan_revision": "r", "what": "decision"}, incident)
    await freezing.pull(pool, clock, ADMIN, "a drill")
    await freezing.lift(pool, clock, ADMIN)
    async with transaction(pool) as c:
        key = await issue(c, "key", "kim", "responder", by="ada")
    async with transaction(pool) as c:
        assert await revoke(c, key.split("_")[1], by="ada")
    async with transaction(pool) as c:
        await append(c, "refusal", "vera", NOW, {"why": "«권한» 🔒", "n": 0.1})


async def verified(pool: Pool, kept: Head | None = None) -> Report:
    """What ``autopilot audit verify`` says."""
    async with transaction(pool) as connection:
        return await audit.verify(connection, kept)


class Undone(Exception):
    """The tampering was looked at, and is rolled back."""


async def found(pool: Pool, tamper: Tamper) -> list[str]:
    """What is found after somebody who owns the database did that."""
    report = Report()
    try:
        async with transaction(pool) as connection:
            await connection.execute("set local session_replication_role = replica")  # no trigger, no foreign key
            await tamper(connection)
            report = await audit.examine(connection)
            raise Undone
    except Undone:
        return report.findings


def sql(statement: str, *values: object) -> Tamper:
    """One statement."""
    return lambda connection: connection.execute(statement.encode(), values or None)


async def rows(pool: Pool) -> list[dict[str, Any]]:
    """The log."""
    async with pool.connection() as connection:
        return await log.page(connection)


# --- it is whole ---


async def test_a_log_of_everything_is_whole(lived: Pool) -> None:
    report = await verified(lived)
    assert report.findings == []
    assert report.notes == []
    kinds = [row["kind"] for row in await rows(lived)]
    assert kinds == [
        "configuration",
        "alert",
        "evidence",
        "plan",
        "approval",
        "decision",
        "claim",
        "step",
        "verification",
        "withdrawal",
        "freeze",
        "freeze",
        "key",
        "key",
        "refusal",
    ]
    assert report.rows == report.head.seq == len(kinds)


async def test_numbers_that_postgres_writes_otherwise_do_not_look_changed(pool: Pool) -> None:
    body: dict[str, JsonValue] = {"n": [1.0, 1e22, -0.0, 1e-7, 10**30, 0.1, float("inf")], "text": "a\x00b\ud800"}
    async with transaction(pool) as connection:
        await append(connection, "note", "kim\x00", NOW, body)
    assert (await verified(pool)).findings == []


async def test_nobody_changes_a_row_by_mistake(lived: Pool) -> None:
    for statement in ("update audit set actor = 'eve'", "delete from audit", "truncate audit"):
        with pytest.raises(RaiseException, match="append-only"):
            async with transaction(lived) as connection:
                await connection.execute(statement.encode())


async def test_a_projection_that_is_repeated_is_told_once(database_url: str) -> None:
    async with at_work(database_url) as office:
        incident = await office.open()
        for _ in range(3):
            await Runner(office.pool, office.deps).advance(incident)
        assert [row["kind"] for row in await rows(office.pool)] == ["alert", "evidence", "plan"]
        [plan] = await office.execute("select plan from analysis")
        told = (await rows(office.pool))[-1]["body"]
        assert json.loads(told)["digest"] == plan["plan"]["digest"]


async def test_configuration_is_told_when_it_changes(office_with_key: Office) -> None:
    async def start() -> bool:
        async with transaction(office_with_key.pool) as connection:
            return await audit.record_configuration(connection, office_with_key.product)

    assert [await start(), await start()] == [True, False]
    async with transaction(office_with_key.pool) as connection:
        other = Entry("configuration", "autopilot", NOW, {"subject": "start", "environment": "staging"})
        assert await append_changed(connection, other)
    assert await start()


@pytest.fixture
async def office_with_key(database_url: str) -> AsyncIterator[Office]:
    """An office whose processes have the key."""
    async with at_work(database_url, audit_keys=[KEY]) as one:
        yield one


# --- it is tampered with ---

CHANGES: dict[str, str] = {
    "at": "at + interval '1 microsecond'",
    "kind": "'note'",
    "actor": "actor || ' '",
    "incident_id": "coalesce(incident_id, '') || 'x'",
    "body": "jsonb_set(body::jsonb, '{x}', '1')::json",
    "prev_hash": "reverse(prev_hash) || '0'",
    "hash": "reverse(hash) || '0'",
}


async def test_any_change_of_any_row_is_found(lived: Pool) -> None:
    for row, column in itertools.product(await rows(lived), CHANGES):
        change = f"update audit set {column} = {CHANGES[column]} where seq = %s"
        assert await found(lived, sql(change, row["seq"])), (column, row)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_rewriting_of_a_row_is_found(database_url: str, data: st.DataObject) -> None:
    """With its hash made right again, as somebody would who knows how it is made."""
    seq = data.draw(st.integers(1, 12))
    row = {
        "at": data.draw(st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1))).replace(tzinfo=UTC),  # noqa: DTZ001
        "kind": data.draw(st.sampled_from(["note", "decision", "alarm", "configuration"])),
        "actor": data.draw(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=9)),
        "body": data.draw(st.dictionaries(st.sampled_from(["choice", "subject", "id"]), st.integers(), max_size=2)),
    }

    async def once() -> list[str]:
        async with create_pool(database_url, min_size=1, audit_keys=[KEY]) as pool:
            if not await rows(pool):
                async with transaction(pool) as connection:
                    for n in range(12):
                        await append(connection, "note", "kim", NOW, {"n": n})
            return await found(pool, lambda c: rewrite(c, seq, **row))

    assert asyncio.run(once())


async def rewrite(connection: Connection, seq: int, **changed: Any) -> None:
    """One row with other content and the hash that fits it; those after it are as they were."""
    row = await log.row_at(connection, seq)
    assert row
    new = row | changed
    body = json.dumps(new["body"]) if isinstance(new["body"], dict) else new["body"]
    text = log.canonical(row["prev_hash"], seq, new["at"], new["kind"], new["actor"], new["incident_id"], body)
    await connection.execute(
        "update audit set at = %s, kind = %s, actor = %s, incident_id = %s, body = %s::json, hash = %s where seq = %s",
        (new["at"], new["kind"], new["actor"], new["incident_id"], body, sha256(text.encode()).hexdigest(), seq),
    )


async def rewrite_from(connection: Connection, seq: int, **changed: Any) -> None:
    """A row, the hashes of all that follow, and the head: everything but the signature."""
    await rewrite(connection, seq, **changed)
    head = await log.head(connection)
    for later in range(seq + 1, head["seq"] + 1):
        before = await log.row_at(connection, later - 1)
        assert before
        await connection.execute("update audit set prev_hash = %s where seq = %s", (before["hash"], later))
        await rewrite(connection, later)
    last = await log.row_at(connection, head["seq"])
    assert last
    await connection.execute("update audit_head set hash = %s", (last["hash"],))


LAST = "(select max(seq) from audit)"
SET_BACK = "update audit_head set (seq, hash) = (select seq, hash from audit order by seq desc limit 1)"
COPIED = "select {seq}, at, 'note', 'eve', incident_id, body, prev_hash, hash from audit where seq = {source}"
INTO = "insert into audit (seq, at, kind, actor, incident_id, body, prev_hash, hash) "


MOVES: Sequence[tuple[Sequence[str], str]] = [
    (["delete from audit where seq = 1"], "row 1 is gone"),
    (["delete from audit where seq in (4, 5)"], "rows 4 to 5 are gone"),
    ([f"delete from audit where seq = {LAST}"], "the head says"),
    ([f"delete from audit where seq = {LAST}", SET_BACK], "the signature of the head"),
    (["delete from audit", "update audit_head set seq = 0, hash = '', signature = ''"], "is not in the log"),
    (["update audit set seq = 100 where seq = 2"], "row 2 is gone"),
    (
        [
            "update audit set seq = -seq where seq in (3, 4)",
            "update audit set seq = case seq when -3 then 4 else 3 end where seq < 0",
        ],
        "does not follow",
    ),
    ([INTO + COPIED.format(seq=0, source=1)], "in front of the first"),
    ([INTO + COPIED.format(seq=100, source=3)], "rows were added or removed"),
    (
        [
            "update audit set seq = -seq - 1 where seq > 3",
            "update audit set seq = -seq where seq < 0",
            INTO + COPIED.format(seq=4, source=3),
        ],
        "row 4",
    ),
    (["update audit_head set signature = reverse(signature)"], "the signature of the head"),
    (["update audit_head set key_id = 'installation'"], "signed with key 'installation'"),
    (["update audit_head set key_id = 'other'"], "signed with key 'other'"),
    (["alter table audit disable trigger audit_append_only"], "trigger audit_append_only is off"),
    (["drop trigger audit_append_only on audit"], "trigger audit_append_only is off"),
    (["update audit set at = 'infinity' where seq = 2"], "row 2 (alert) was changed"),
    (["update audit set body = '5' where seq = 2"], "row 2 (alert) was changed"),
    (["update audit set body = '{\"by\": \"\\u0000\"}' where kind = 'approval'"], "cannot be compared"),
]


async def test_rows_that_go_come_or_move_are_found(lived: Pool) -> None:
    for statements, said in MOVES:
        findings = await found(lived, partial(run, statements))
        assert any(said in finding for finding in findings), (statements, findings)


async def run(statements: Sequence[str], connection: Connection) -> None:
    """One after the other."""
    for statement in statements:
        await connection.execute(statement.encode())


async def test_the_last_row_cannot_go_even_with_the_head_as_it_was_before_it(lived: Pool) -> None:
    """The old head's signature is right: but our tables know of what the row told."""
    async with lived.connection() as connection:
        before = await log.head(connection)
    async with transaction(lived) as connection:
        await issue(connection, "key", "eve", "admin")

    async def set_back(connection: Connection) -> None:
        await connection.execute("delete from audit where seq > %s", (before["seq"],))
        await connection.execute(
            "update audit_head set seq = %s, hash = %s, signature = %s",
            (before["seq"], before["hash"], before["signature"]),
        )

    [finding] = await found(lived, set_back)
    assert finding.startswith("credential ")
    assert finding.endswith("this key is not in the log")


CONTRADICTIONS = [
    ("update decision set choice = '2'", "decision has been changed"),
    ("update decision set approvals = '[1]'", "decision has been changed"),
    ("update decision set withdrawn_at = null", "tells of a withdrawal that is not"),
    ("update approval set approved_by = 'eve'", "approval is not in the log"),
    ("update step set result = '{}'", "step has been changed"),
    ("update step set params = '{}'", "claim has been changed"),
    ("update step set finished_at = null, result = null", "tells of a step that is not"),
    ('update execution set body = \'{"verdict": "worse"}\'', "verification has been changed"),
    ("update analysis set plan = '{}'", "plan has been changed"),
    ("update analysis set evidence = '{}'", "evidence has been changed"),
    ("update incident set opened_by = 'eve'", "alert has been changed"),
    ("update kill_switch set reason = ''", "freeze has been changed"),
    ("update credential set role = 'admin'", "key has been changed"),
    ("delete from step", "tells of a claim that is not"),
    ("delete from decision", "tells of a decision that is not"),
    ("delete from execution", "tells of a verification that is not"),
    ("delete from kill_switch", "tells of a freeze that is not"),
    ("insert into kill_switch (pulled_by) values ('eve')", "freeze is not in the log"),
    (
        "insert into decision (incident_id, plan_revision, choice, decided_by, at)"
        " select id, 's', '1', 'eve', now() from incident",
        "decision is not in the log",
    ),
]


async def test_our_tables_and_the_log_say_the_same(lived: Pool) -> None:
    for change, said in CONTRADICTIONS:
        findings = await found(lived, sql(change))
        assert any(said in finding for finding in findings), (change, findings)


async def test_who_rewrites_all_that_follows_lacks_the_key(lived: Pool) -> None:
    findings = await found(lived, lambda c: rewrite_from(c, 3, actor="eve"))
    assert [f for f in findings if "signature of the head" in f]
    assert not [f for f in findings if "does not follow" in f or "was changed: its content" in f]


async def test_a_new_row_does_not_hide_a_bad_head(lived: Pool) -> None:
    async with transaction(lived) as connection:
        await connection.execute("set local session_replication_role = replica")
        await connection.execute(f"delete from audit where seq = {LAST}".encode())
        await connection.execute(SET_BACK.encode())
    async with transaction(lived) as connection:
        await append(connection, "note", "kim", NOW, {})
    findings = (await verified(lived)).findings
    assert [f for f in findings if "the log was cut" in f], findings


# --- heads that are kept, and keys ---


async def test_a_kept_head_finds_what_the_owner_of_the_database_rewrote(database_url: str) -> None:
    async with create_pool(database_url) as pool:  # no key of its own: the owner can sign too
        async with transaction(pool) as connection:
            for n in range(5):
                await append(connection, "refusal", "kim", NOW, {"n": n})
        kept = (await verified(pool)).head
        assert (await verified(pool, kept)).findings == []
        async with transaction(pool) as connection:
            await connection.execute("set local session_replication_role = replica")
            await rewrite_from(connection, 2, actor="eve")
            head = await log.head(connection)
            [row] = await (await connection.execute("select masking_key from installation")).fetchall()
            key = Key.of_installation(bytes(row["masking_key"]))
            signature = key.sign(head["seq"], head["hash"])
            await connection.execute("update audit_head set signature = %s", (signature,))
        report = await verified(pool)
        assert report.findings == []
        assert "AUTOPILOT_AUDIT_KEY" in report.notes[0]
        assert (await verified(pool, kept)).findings == [
            "row 5 had another hash when its head was written down: the log was rewritten"
        ]
        assert "is gone" in (await verified(pool, Head(9, kept.hash))).findings[0]
    assert Head.parse(f" {kept} ") == kept
    with pytest.raises(ValueError, match="no head"):
        Head.parse("5:abc")


@asynccontextmanager
async def signing(url: str, *keys: SecretStr) -> AsyncIterator[Pool]:
    """A process with these keys wrote a row."""
    async with create_pool(url, min_size=1, audit_keys=keys) as pool:
        async with transaction(pool) as connection:
            await append(connection, "note", "kim", NOW, {})
        yield pool


async def test_a_key_may_be_set_and_changed(database_url: str) -> None:
    for keys in ((), (KEY,), (KEY, NEW_KEY), (NEW_KEY, KEY), (NEW_KEY,)):
        async with signing(database_url, *keys) as pool:
            assert (await verified(pool)).findings == []
    told = [json.loads(row["body"]) for row in await _rows(database_url) if row["kind"] == "configuration"]
    assert [(b["was"], b["id"]) for b in told] == [
        ("installation", Key.of(KEY).id),
        (Key.of(KEY).id, Key.of(NEW_KEY).id),
    ]


async def test_a_process_without_the_key_is_noticed(database_url: str) -> None:
    async with signing(database_url, KEY):
        pass
    async with create_pool(database_url) as pool, transaction(pool) as connection:
        with pytest.raises(AuditError, match="AUTOPILOT_AUDIT_KEY"):
            await audit.check_key(connection)
    async with signing(database_url) as pool:  # it wrote all the same
        assert "signed with key" in (await verified(pool)).findings[0]
    async with signing(database_url, KEY) as pool:
        findings = (await verified(pool)).findings
    assert [f for f in findings if "without AUTOPILOT_AUDIT_KEY" in f], findings


async def _rows(url: str) -> list[dict[str, Any]]:
    async with create_pool(url) as pool:
        return await rows(pool)


# --- many at once ---


async def test_many_writers_make_one_chain(database_url: str) -> None:
    """Each holds its incident before it takes the head, as all our transactions do."""
    async with at_work(database_url) as first, at_work(database_url) as second:
        ids = [await first.open(f"c{n}") for n in range(4)]

        async def write(office: Office, n: int) -> None:
            async with transaction(office.pool) as connection:
                await incidents.lock(connection, ids[n % len(ids)])
                await append(connection, "note", "kim", NOW, {"n": n}, ids[n % len(ids)])

        async def roll_back(office: Office, n: int) -> None:
            with contextlib.suppress(Undone):
                async with transaction(office.pool) as connection:
                    await append(connection, "note", "eve", NOW, {"n": n})
                    raise Undone

        async with asyncio.timeout(60):
            await asyncio.gather(
                *(write(office, n) for n in range(60) for office in (first, second)),
                *(roll_back(office, n) for n in range(10) for office in (first, second)),
                *(Runner(office.pool, office.deps).advance(i) for office, i in zip((first, second), ids, strict=False)),
                *(freezing.pull(office.pool, SystemClock(), ADMIN, "") for office in (first, second)),
            )
        report = await verified(first.pool)
        assert report.findings == []
        written = await rows(first.pool)
        assert sum(row["actor"] == "kim" for row in written) == 120
        assert sum(row["kind"] == "freeze" for row in written) == 1
        assert not [row for row in written if row["actor"] == "eve"]


# --- reading it ---


async def test_an_exported_line_can_be_checked_alone(lived: Pool) -> None:
    lines: list[str] = []
    async with lived.connection() as connection:
        assert await audit.export(connection, lines.append) == len(lines)
        [incident] = {json.loads(line)["incident_id"] for line in lines} - {None}
        some: list[str] = []
        await audit.export(connection, some.append, incident_id=incident)
        late: list[str] = []
        await audit.export(connection, late.append, since=datetime.now(UTC).replace(year=2099))
    before = ""
    for line in map(json.loads, lines):
        assert sha256(line["text"].encode()).hexdigest() == line["hash"]
        names = ("prev_hash", "seq", "at", "kind", "actor", "incident_id", "body")
        assert json.loads(line["text"]) == [line[name] for name in names]
        assert line["prev_hash"] == before
        before = line["hash"]
    assert 0 < len(some) < len(lines)
    assert late == []


def test_admins_read_it_over_rest(database_url: str, tmp_path: Any) -> None:
    with serving(database_url, tmp_path) as served:
        for path in ("/audit", "/audit/head"):
            assert served.stranger.get(path).status_code == 401
            assert served.client("responder").get(path).status_code == 403
        first = served.http.get("/audit", params={"limit": 2}).json()
        assert [row["seq"] for row in first["rows"]] == [1, 2]
        rest = served.http.get("/audit", params={"after": first["next_after"], "limit": 500}).json()
        assert rest["next_after"] is None
        last = rest["rows"][-1]
        head = served.http.get("/audit/head").json()
        assert (head["seq"], head["hash"], head["key_id"]) == (last["seq"], last["hash"], "installation")
        kinds = {row["kind"] for row in served.http.get("/audit", params={"kind": "key"}).json()["rows"]}
        assert kinds == {"key"}
        assert served.http.get("/audit", params={"incident": "a\x00b"}).status_code == 422


def test_the_superuser_of_the_tests_is_one(database_url: str) -> None:
    """Else the tampering above would prove nothing."""
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select usesuper from pg_user where usename = current_user").fetchone() == (True,)
