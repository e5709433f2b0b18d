"""Which rows of our tables the audit log vouches for, and with what digest.

A digest is made by Postgres over the stored row, when it is written into the log as when it is checked.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from app.db import Connection, Row

ROW_SHA256 = "row_sha256"
MOST = 20  # findings of one kind that are told


@dataclass(frozen=True)
class Witness:
    """Rows of ``table`` (as ``t``), each told by a row of the log."""

    kind: str  # of the log's row
    table: str
    identity: Mapping[str, str]  # by key of the log's body: the column, or a 'constant', besides the incident's
    content: str  # the columns that never change
    since: str  # when it came to be, by our clock
    incident: str = "t.incident_id"
    exists: str = "true"  # which rows of the table must have one
    required: bool = True  # False: it may have none yet
    lasting: bool = True  # False: the row may go, as an approval that is taken back

    @property
    def digest(self) -> str:
        """SQL."""
        return f"encode(sha256(convert_to(jsonb_build_array({self.content})::text, 'UTF8')), 'hex')"

    @property
    def same(self) -> str:
        """SQL: ``a`` tells of ``t``."""
        parts = [f"a.body->>'{key}' = {column}::text" for key, column in self.identity.items()]
        incident = f"a.incident_id = {self.incident}" if self.incident else "a.incident_id is null"
        return " and ".join((f"a.kind = '{self.kind}'", incident, *parts))

    @property
    def meant(self) -> str:
        """SQL: of the rows of this kind, ``a`` is about this table."""
        constants = [f"a.body->>'{key}' = {value}" for key, value in self.identity.items() if value.startswith("'")]
        return " and ".join(constants) or "true"

    @property
    def name(self) -> str:
        """SQL: how people call it."""
        columns = [*([self.incident] if self.incident else []), *self.identity.values()]
        return f"concat_ws(' ', '{self.table}', {', '.join(columns)})"


DECIDED = (
    "(select d.decided_at from decision d where (d.incident_id, d.plan_revision) = (t.incident_id, t.plan_revision))"
)
PLAN = {"plan_revision": "t.plan_revision"}
STEP = {**PLAN, "ordinal": "t.ordinal", "undo": "t.undo"}
WITNESSES = (
    Witness(
        "alert",
        "incident",
        {},
        "t.alert, t.opened_at, t.opened_by",
        "t.opened_at",
        incident="t.id",
        exists="exists (select 1 from analysis n where n.incident_id = t.id)",
    ),
    Witness("evidence", "analysis", {"round": "t.round"}, "t.evidence", "t.at", exists="t.evidence is not null"),
    Witness("plan", "analysis", {"round": "t.round"}, "t.plan", "t.at", exists="t.plan is not null"),
    Witness("prompt", "llm_call", {"call": "t.id"}, "t.round, t.node, t.prompt_sha256", "t.at", required=False),
    Witness(
        "approval",
        "approval",
        {**PLAN, "by": "t.approved_by"},
        "t.choice, t.steps, t.role, t.via, t.at, t.approved_at",
        "t.approved_at",
        lasting=False,
    ),
    Witness(
        "decision",
        "decision",
        PLAN,
        "t.choice, t.hint, t.note, t.decided_by, t.at, t.language, t.steps, t.via, t.approvals, t.plan_digest",
        "t.decided_at",
    ),
    Witness(
        "withdrawal",
        "decision",
        {**PLAN, "what": "'decision'"},
        "t.withdrawn_at, t.withdrawn_by",
        "t.withdrawn_at",
        exists="t.withdrawn_at is not null",
    ),
    Witness(
        "claim",
        "step",
        STEP,
        "t.operation, t.params, t.resource, t.before, t.claimed_at, t.services",
        DECIDED,
        exists="t.attempt > 0",  # what was refused was never claimed
    ),
    Witness("step", "step", STEP, "t.finished_at, t.result", DECIDED, exists="t.finished_at is not null"),
    Witness("verification", "execution", PLAN, "t.body", "t.at"),
    Witness(
        "freeze",
        "kill_switch",
        {"id": "t.id", "state": "'pulled'"},
        "t.pulled_at, t.pulled_by, t.reason",
        "t.pulled_at",
        incident="",
    ),
    Witness(
        "freeze",
        "kill_switch",
        {"id": "t.id", "state": "'lifted'"},
        "t.lifted_at, t.lifted_by",
        "t.lifted_at",
        incident="",
        exists="t.lifted_at is not null",
    ),
    Witness(
        "key",
        "credential",
        {"id": "t.id", "state": "'created'"},
        "t.kind, t.name, t.role, t.created_at",
        "t.created_at",
        incident="",
    ),
    Witness(
        "key",
        "credential",
        {"id": "t.id", "state": "'revoked'"},
        "t.revoked_at",
        "t.revoked_at",
        incident="",
        exists="t.revoked_at is not null",
        required=False,
    ),
)


async def row_sha256(
    connection: Connection, kind: str, incident_id: str | None, body: Mapping[str, JsonValue]
) -> str | None:
    """Of the row that an entry of this body tells about; None where it tells of none."""
    for witness in (w for w in WITNESSES if w.kind == kind):
        # The body as a row of the log, so that one condition serves to write and to check.
        query = f"""select {witness.digest} as sha256 from {witness.table} t,
            (select %s::text as kind, %s::text as incident_id, %s::json as body) a where {witness.same}"""  # noqa: S608
        row = await (await connection.execute(query.encode(), (kind, incident_id, json.dumps(dict(body))))).fetchone()
        if row:
            return str(row["sha256"])
    return None


async def disagreements(connection: Connection) -> list[str]:
    """Where our tables and the log do not say the same; a sentence each, ``MOST`` of a kind."""
    found: list[str] = []
    for witness in WITNESSES:
        for row in await _all(connection, _untold(witness)):
            wrong = "has been changed since the log told of it" if row["told"] else "is not in the log"
            found.append(f"{row['name']}: this {witness.kind} {wrong}")
    for witness in (w for w in WITNESSES if w.lasting):
        rows = await _all(connection, _unfounded(witness))
        found += [f"row {row['seq']} of the log tells of a {witness.kind} that is not in our tables" for row in rows]
    return found


async def older(connection: Connection) -> int:
    """How many decisions are older than the log: nothing vouches for them."""
    query = "select count(*) as n from decision where decided_at < (select since from audit_head)"
    return int((await _all(connection, query))[0]["n"])


def _untold(witness: Witness) -> str:
    """SQL: rows of our tables that the log does not know as they are."""
    told = f"exists (select 1 from audit a where {witness.same})"  # noqa: S608  our own columns
    return f"""select {witness.name} as name, {told} as told from {witness.table} t
        where {witness.exists} and {witness.since} >= (select since from audit_head)
          and {"true" if witness.required else told}
          and not exists (select 1 from audit a where {witness.same} and a.body->>'{ROW_SHA256}' = {witness.digest})
        limit {MOST}"""  # noqa: S608


def _unfounded(witness: Witness) -> str:
    """SQL: rows of the log that tell of nothing."""
    return f"""select a.seq from audit a where a.kind = '{witness.kind}' and {witness.meant}
        and not exists (select 1 from {witness.table} t where {witness.exists} and {witness.same})
        order by a.seq limit {MOST}"""  # noqa: S608


async def _all(connection: Connection, query: str) -> list[Row]:
    return await (await connection.execute(query.encode())).fetchall()
