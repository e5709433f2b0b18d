"""``autopilot audit``: whether the log is whole and says what our tables say; the log as JSON lines."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from psycopg import DataError
from pydantic import JsonValue

from app.db import Connection, Row
from app.signing import INSTALLATION, Key, keys_of
from app.store import audit, witnesses
from app.store.audit import Entry
from app.store.installation import masking_key
from app.wiring import Product

MOST = 50  # findings that are told
_HEAD = re.compile(r"(\d{1,18}):([0-9a-f]{64})")


class AuditError(Exception):
    """The log cannot be written or checked here; the text says what to do."""


@dataclass(frozen=True)
class Head:
    """The number and the hash of a row: what was the last one when somebody wrote it down."""

    seq: int
    hash: str

    @classmethod
    def parse(cls, text: str) -> "Head":
        """``17:3f0c…``. Raises ValueError."""
        if found := _HEAD.fullmatch(text.strip().lower()):
            return cls(int(found[1]), found[2])
        raise ValueError(f"{text!r} is no head; write what `autopilot audit verify` printed, e.g. 17:3f0c…")

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


@dataclass
class Report:
    """What was found. The log is whole where ``findings`` is empty."""

    head: Head = Head(0, "")
    rows: int = 0
    findings: list[str] = field(default_factory=list)
    unlisted: int = 0  # findings beyond ``MOST``
    notes: list[str] = field(default_factory=list)

    def add(self, finding: str) -> None:
        """One more."""
        if len(self.findings) < MOST:
            self.findings.append(finding)
        else:
            self.unlisted += 1

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from (f"FOUND: {finding}" for finding in self.findings)
        if self.unlisted:
            yield f"FOUND: {self.unlisted} more"
        yield from (f"note: {note}" for note in self.notes)
        verdict = "The log does not hold" if self.findings else "The log is whole"
        yield f"{verdict}: {self.rows} rows looked at."
        yield f"head: {self.head}"


# --- verify ---


async def verify(connection: Connection, kept: Head | None = None) -> Report:
    """Look at every row. ``kept``: a head that was written down elsewhere. The first statement of its transaction."""
    # One snapshot for the rows, the head and our tables: others go on writing.
    await connection.execute("set transaction isolation level repeatable read, read only")
    return await examine(connection, kept)


async def examine(connection: Connection, kept: Head | None = None) -> Report:
    """The same, as this transaction sees it."""
    report, head = Report(), await audit.head(connection)
    keys = keys_of(connection) or (Key.of_installation(await masking_key(connection)),)
    report.head = Head(head["seq"], head["hash"])
    last = await _walk(connection, report)
    _check_head(report, head, keys, last)
    if kept:
        await _check_kept(connection, report, kept)
    if not await audit.is_guarded(connection):
        report.add("the trigger audit_append_only is off: somebody could change rows; see migrations/versions/0005")
    if older := await witnesses.older(connection):
        report.notes.append(f"{older} decisions are older than the log: nothing vouches for them")
    try:
        for sentence in await witnesses.disagreements(connection):
            report.add(sentence)
    except DataError as error:  # a body that Postgres cannot read: we write none
        report.add(f"the log cannot be compared with our tables: {error.diag.message_primary or error}")
    return report


async def _walk(connection: Connection, report: Report) -> Head:
    """Every row against the one before it; the last one."""
    last, own_key = Head(0, ""), False
    async for row in _rows(connection):
        for finding in _wrong(row, last):
            report.add(finding)
        own_key = _check_doubts(report, row, own_key=own_key)
        last = Head(row["seq"], row["hash"])
        report.rows += 1
    return last


def _wrong(row: Row, before: Head) -> Iterator[str]:
    seq = row["seq"]
    if seq > before.seq + 1:
        gone = f"row {before.seq + 1} is" if seq == before.seq + 2 else f"rows {before.seq + 1} to {seq - 1} are"
        yield f"{gone} gone"
    elif seq < before.seq + 1:
        yield f"row {seq} was put in front of the first one"
    elif row["prev_hash"] != before.hash:
        yield f"row {seq} does not follow row {before.seq}: one of the two was changed, or put in another's place"
    if _hash(row) != row["hash"]:
        yield f"row {seq} ({row['kind']}) was changed: its content does not have its hash"


def _hash(row: Row) -> str:
    """What it should be; empty where the time is none of ours."""
    return sha256(_text(row).encode()).hexdigest() if row["at"] else ""


def _text(row: Row) -> str:
    names = ("prev_hash", "seq", "at", "kind", "actor", "incident_id", "body")
    return audit.canonical(*(row[name] for name in names))


def _check_doubts(report: Report, row: Row, *, own_key: bool) -> bool:
    """What the log says about itself; whether AUTOPILOT_AUDIT_KEY has been in use by now."""
    body = _body(row)
    if row["kind"] == "alarm":
        report.add(f"row {row['seq']}, at {row['at']}: {body.get('doubt')}")
    if row["kind"] != "configuration" or body.get("subject") != "audit key":
        return own_key
    if own_key and body.get("was") == INSTALLATION:
        report.add(
            f"row {row['seq']}: before it, somebody without AUTOPILOT_AUDIT_KEY wrote; set it wherever"
            " the product runs, also for the command line"
        )
    return own_key or body.get("id") != INSTALLATION


def _body(row: Row) -> Mapping[str, object]:
    """Empty where it is none that we write."""
    body = json.loads(row["body"])
    return body if isinstance(body, dict) else {}


def _check_head(report: Report, head: Row, keys: Sequence[Key], last: Head) -> None:
    if last != report.head:
        report.add(f"the last row is {last.seq}, the head says {head['seq']}: rows were added or removed by hand")
    if doubt := audit.doubt_of(head, keys):
        report.add(doubt)
    if keys[0].id == INSTALLATION:
        report.notes.append(
            "the head is signed with a key from the database itself: its owner could rewrite the log unseen."
            " Set AUTOPILOT_AUDIT_KEY, or keep heads elsewhere and check them with --head"
        )


async def _check_kept(connection: Connection, report: Report, kept: Head) -> None:
    row = await audit.row_at(connection, kept.seq)
    if row is None:
        report.add(f"row {kept.seq} was the head once; it is gone")
    elif row["hash"] != kept.hash:
        report.add(f"row {kept.seq} had another hash when its head was written down: the log was rewritten")


async def _rows(
    connection: Connection, incident_id: str | None = None, since: datetime | None = None
) -> AsyncIterator[Row]:
    """Page by page, in the order of their numbers."""
    after = audit.BEFORE_ALL
    while page := await audit.page(connection, after, incident_id=incident_id, since=since):
        for row in page:
            yield row
        after = page[-1]["seq"]


# --- export ---


async def export(
    connection: Connection,
    write: Callable[[str], None],
    *,
    incident_id: str | None = None,
    since: datetime | None = None,
) -> int:
    """A line of JSON for each row, oldest first; how many."""
    written = 0
    async for row in _rows(connection, incident_id, since):
        write(json.dumps(line(row), ensure_ascii=False))
        written += 1
    return written


def line(row: Row) -> dict[str, object]:
    """The row and, as ``text``, what its ``hash`` is the sha256 of."""
    return {
        "seq": row["seq"],
        "at": row["at"].astimezone(UTC).isoformat(timespec="microseconds") if row["at"] else None,
        "kind": row["kind"],
        "actor": row["actor"],
        "incident_id": row["incident_id"],
        "body": json.loads(row["body"]),
        "prev_hash": row["prev_hash"],
        "hash": row["hash"],
        "text": _text(row) if row["at"] else None,
    }


# --- what runs ---


async def check_key(connection: Connection) -> None:
    """Raises AuditError where the log is signed with a key that this process does not have."""
    head = await audit.head(connection)
    known = {key.id for key in keys_of(connection)} | {INSTALLATION, ""}
    if head["key_id"] not in known:
        raise AuditError(
            f"The audit log is signed with key {head['key_id']}, which AUTOPILOT_AUDIT_KEY does not have here."
            " Set it as the other processes have it; to change it, first old,new everywhere, then new,old."
        )


async def record_configuration(connection: Connection, product: Product) -> bool:
    """What this process runs with, if that is not what the last one wrote. Raises AuditError."""
    await check_key(connection)
    settings, desk = product.settings, product.desk
    body: dict[str, JsonValue] = {
        "subject": "start",
        "environment": desk.catalogue.environment,
        "policy_version": desk.policy.version,
        "catalogue_sha256": sha256(desk.catalogue.model_dump_json().encode()).hexdigest(),
        "operators": {name: one.model_dump(mode="json") for name, one in sorted(desk.operators.items())},
        "collectors": [*sorted(settings.collectors)],
        "executors": [*sorted(settings.executors)],
        "operations": [*sorted(desk.operations)],
    }
    entry = Entry("configuration", audit.OURSELVES, product.clock.now(), body)
    return await audit.append_changed(connection, entry)
