"""The audit log: append-only rows, each bound to the one before it, the last one signed. Functions never commit.

A row's hash is the sha256 of its canonical text: a JSON array of the hash before it, its number, time, kind, actor,
incident and body. Where a row stands for one of another table, ``app.store.witnesses`` puts that row's digest into the
body, so that neither can be changed, or go, without the other telling.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from pydantic import JsonValue

from app.db import Connection, Row
from app.signing import INSTALLATION, Key, keys_of
from app.store.witnesses import ROW_SHA256, row_sha256
from graph.state import storable

Kind = Literal[
    "alert",
    "evidence",  # digest of an analysis' evidence
    "prompt",  # sha256 of what a model was asked
    "plan",
    "approval",
    "decision",
    "refusal",  # somebody tried what they may not, or what is too late
    "withdrawal",
    "claim",
    "step",
    "verification",
    "freeze",
    "configuration",
    "key",
    "note",
    "feedback",  # also what it replaced
    "knowledge",  # cases were imported or forgotten
    "alarm",  # the log itself: somebody changed its head
]
OURSELVES = "autopilot"
PAGE = 500
BEFORE_ALL = -(2**63)  # a row put in front of the first one is to be seen too
COLUMNS = """seq, case when at between '1900-01-01' and '9999-12-31' then at end as at, kind, actor, incident_id,
    body::text as body, prev_hash, hash"""


@dataclass(frozen=True)
class Entry:
    """What is appended. ``at``: by the operated world's clock."""

    kind: Kind
    actor: str
    at: datetime
    body: Mapping[str, JsonValue]
    incident_id: str | None = None


async def append(
    connection: Connection,
    kind: Kind,
    actor: str,
    at: datetime,
    body: Mapping[str, JsonValue],
    incident_id: str | None = None,
) -> None:
    """One row, in the caller's transaction. The last statement of it: the head stays locked until the commit."""
    await append_all(connection, [Entry(kind, actor, at, body, incident_id)])


async def append_all(connection: Connection, entries: Sequence[Entry]) -> None:
    """So many rows, as ``append`` does."""
    await _extend(connection, [await _complete(connection, entry) for entry in entries])


async def append_new(connection: Connection, incident_id: str, entries: Sequence[Entry]) -> None:
    """Those of an incident that the log does not have yet; the caller holds the incident's row."""
    rows = await _of_incident(connection, incident_id, sorted({entry.kind for entry in entries}))
    known = {(row["kind"], row["body"]) for row in rows}
    complete = [await _complete(connection, entry) for entry in entries]
    if new := [e for e in complete if (e.kind, json_text(e.body)) not in known]:
        await _extend(connection, new)


async def append_changed(connection: Connection, entry: Entry) -> bool:
    """An entry without an incident, unless the last one of its kind and subject says the same."""
    await _head(connection)  # one process after the other
    last = await (
        await connection.execute(
            """select body::text as body from audit
               where kind = %s and incident_id is null and body->>'subject' is not distinct from %s
               order by seq desc limit 1""",
            (entry.kind, entry.body.get("subject")),
        )
    ).fetchone()
    if last and last["body"] == json_text(storable(dict(entry.body))):
        return False
    await append_all(connection, [entry])
    return True


async def _complete(connection: Connection, entry: Entry) -> Entry:
    """With the digest of the row it stands for, and as Postgres can store it."""
    body = storable(dict(entry.body))
    digest = await row_sha256(connection, entry.kind, entry.incident_id, body)
    if digest:
        body[ROW_SHA256] = digest
    return replace(entry, actor=storable(entry.actor), body=body)


async def _extend(connection: Connection, entries: Sequence[Entry]) -> None:
    head = await _head(connection)
    keys = keys_of(connection) or (Key.of_installation(head["masking_key"]),)
    seq, last, rows = head["seq"], head["hash"], []
    for entry in [*_before_going_on(head, keys, entries[0].at), *entries]:
        seq, prev = seq + 1, last
        body = json_text(entry.body)
        last = sha256(
            canonical(prev, seq, entry.at, entry.kind, entry.actor, entry.incident_id, body).encode()
        ).hexdigest()
        rows.append((seq, entry.at, entry.kind, entry.actor, entry.incident_id, body, prev, last))
    await connection.cursor().executemany(
        "insert into audit (seq, at, kind, actor, incident_id, body, prev_hash, hash)"
        " values (%s, %s, %s, %s, %s, %s::json, %s, %s)",
        rows,
    )
    await connection.execute(
        "update audit_head set seq = %s, hash = %s, key_id = %s, signature = %s",
        (seq, last, keys[0].id, keys[0].sign(seq, last)),
    )


async def _head(connection: Connection) -> Row:
    """Locked until the transaction ends."""
    row = await (
        await connection.execute(
            """select h.seq, h.hash, h.key_id, h.signature, i.masking_key
               from audit_head h, installation i where h.single for update of h"""
        )
    ).fetchone()
    assert row is not None  # the migrations put both there
    return row | {"masking_key": bytes(row["masking_key"])}


def _before_going_on(head: Row, keys: Sequence[Key], at: datetime) -> list[Entry]:
    """A row about the head itself, if its signature changes hands or does not hold.

    Nothing is refused: the log must go on also on that day. But what was done to it stays on record, and is not
    covered by a new signature.
    """
    doubt = doubt_of(head, (*keys, Key.of_installation(head["masking_key"])))
    if doubt:
        told = {name: head[name] for name in ("seq", "hash", "key_id", "signature")}
        return [Entry("alarm", OURSELVES, at, {"doubt": doubt, "head": told})]
    if head["key_id"] == keys[0].id or (_is_empty(head) and keys[0].id == INSTALLATION):
        return []
    return [Entry("configuration", OURSELVES, at, {"subject": "audit key", "id": keys[0].id, "was": head["key_id"]})]


def _is_empty(head: Row) -> bool:
    return head["seq"] == 0 and not head["hash"] and not head["signature"]


def doubt_of(head: Row, keys: Sequence[Key]) -> str:
    """Why a head's signature proves nothing; empty: it does, or nothing was written yet."""
    if _is_empty(head):
        return ""
    key = next((k for k in keys if k.id == head["key_id"]), None)
    if key is None:
        had = ", ".join(k.id for k in keys)
        return (
            f"the head (row {head['seq']}) is signed with key {head['key_id']!r}, which is not known here ({had}):"
            " set AUTOPILOT_AUDIT_KEY to the key of all other processes, or to new,old while it is being changed"
        )
    if not key.signed(head["seq"], head["hash"], head["signature"]):
        return (
            f"the signature of the head (row {head['seq']}, {head['hash'][:12]}…) is wrong: it was changed by hand,"
            " or the log was cut"
        )
    return ""


def json_text(body: Mapping[str, JsonValue]) -> str:
    """The one way to write it."""
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def canonical(prev: str, seq: int, at: datetime, kind: str, actor: str, incident_id: str | None, body: str) -> str:
    """The text whose sha256 is the row's hash; ``body`` is JSON, as it is stored."""
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    parts = (prev, seq, moment, kind, actor, incident_id)
    return f"[{','.join(json.dumps(part) for part in parts)},{body}]"


# --- reading ---


async def head(connection: Connection) -> Row:
    """seq, hash, key_id, signature, since; without a lock."""
    row = await (
        await connection.execute("select seq, hash, key_id, signature, since from audit_head where single")
    ).fetchone()
    assert row is not None  # the migration put it there
    return row


async def page(
    connection: Connection,
    after: int = BEFORE_ALL,
    limit: int = PAGE,
    *,
    incident_id: str | None = None,
    kind: str | None = None,
    since: datetime | None = None,
) -> list[Row]:
    """Rows after that number, oldest first; ``body`` is the stored text, ``at`` None where it is no time of ours."""
    return await (
        await connection.execute(
            f"""select {COLUMNS} from audit where seq > %(after)s
                and (%(incident)s::text is null or incident_id = %(incident)s)
                and (%(kind)s::text is null or kind = %(kind)s)
                and (%(since)s::timestamptz is null or at >= %(since)s)
                order by seq limit %(limit)s""".encode(),  # noqa: S608  our own columns
            {"after": after, "incident": incident_id, "kind": kind, "since": since, "limit": limit},
        )
    ).fetchall()


async def row_at(connection: Connection, seq: int) -> Row | None:
    """That row."""
    found = await page(connection, seq - 1, 1)
    return found[0] if found and found[0]["seq"] == seq else None


async def is_guarded(connection: Connection) -> bool:
    """Whether the trigger that refuses changes is there and on."""
    row = await (
        await connection.execute(
            """select 1 as yes from pg_trigger
               where tgrelid = 'audit'::regclass and tgname = 'audit_append_only' and tgenabled in ('O', 'A')"""
        )
    ).fetchone()
    return row is not None


async def _of_incident(connection: Connection, incident_id: str, kinds: Sequence[str]) -> list[Row]:
    """Of these kinds only: refusals may be any number."""
    return await (
        await connection.execute(
            "select kind, body::text as body from audit where incident_id = %s and kind = any(%s)", (incident_id, kinds)
        )
    ).fetchall()
