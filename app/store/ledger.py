"""The ledger of writes to the outside world, and the store of raw telemetry. Each call commits at once."""

import zlib
from datetime import datetime
from hashlib import sha256

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from app.db import Connection, Pool, Row, transaction
from app.store.alerts import save_edges
from collectors._jobs import on_thread
from collectors.base import Telemetry
from executors.base import Refused
from graph.deps import Claim, ClaimedStep, ResourceBusy, SnapshotKey, StepKey
from graph.looks import together
from graph.state import StepResult, storable

MAX_NAME = 255  # characters of a service's name


class PostgresLedger:
    """``graph.deps.Ledger`` on the ``step`` table."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """See graph.deps.Ledger."""
        async with self.pool.connection() as connection:
            row = await (
                await connection.execute(
                    """select *, extract(epoch from clock_timestamp() - touched_at)::float8 as age_s from step
                       where incident_id = %s and plan_revision = %s and ordinal = %s and undo = %s""",
                    (key.incident_id, key.plan_revision, key.ordinal, key.undo),
                )
            ).fetchone()
        return _claimed(row, fresh=False) if row else None

    async def claim(self, claim: Claim) -> ClaimedStep:
        """See graph.deps.Ledger."""
        key = claim.key
        try:
            async with transaction(self.pool) as connection:
                row = await (
                    await connection.execute(
                        """insert into step (incident_id, plan_revision, ordinal, undo, operation, params, resource,
                               before, claimed_at)
                           select i.id, %s, %s, %s, %s, %s, %s, %s, %s from incident i
                           where i.id = %s and i.closed_at is null for key share returning *, 0.0 as age_s""",
                        (
                            key.plan_revision,
                            key.ordinal,
                            key.undo,
                            claim.operation,
                            Jsonb(storable(dict(claim.params))),
                            claim.resource,
                            Jsonb(storable(dict(claim.before))),
                            claim.at,
                            key.incident_id,
                        ),
                    )
                ).fetchone()
                if row is None:
                    raise Refused("the incident was closed meanwhile; nothing more is run")
                resources = sorted({name for name in claim.resource.split(",") if name})
                await connection.execute(
                    "insert into lease (resource, step_id) select unnest(%s::text[]), %s", (resources, row["id"])
                )
        except UniqueViolation as error:
            raise ResourceBusy(f"{claim.resource} is being changed by another action; one at a time") from error
        return _claimed(row, fresh=True)

    async def retake(self, step: ClaimedStep) -> bool:
        """See graph.deps.Ledger."""
        async with self.pool.connection() as connection:
            row = await (
                await connection.execute(
                    """update step set attempt = attempt + 1, touched_at = clock_timestamp()
                       where id = %s and attempt = %s and finished_at is null returning attempt""",
                    (step.step_id, step.attempt),
                )
            ).fetchone()
        return row is not None

    async def finish(self, step_id: str, result: StepResult) -> None:
        """See graph.deps.Ledger."""
        async with transaction(self.pool) as connection:
            await connection.execute(
                "update step set finished_at = %s, result = %s where id = %s and finished_at is null",
                (result.finished_at, Jsonb(storable(result.model_dump(mode="json"))), step_id),
            )
            await connection.execute("delete from lease where step_id = %s", (step_id,))


def _claimed(row: Row, *, fresh: bool) -> ClaimedStep:
    return ClaimedStep(
        step_id=str(row["id"]),
        fresh=fresh,
        attempt=row["attempt"],
        age_s=row["age_s"],
        claimed_at=row["claimed_at"],
        before=row["before"],
        result=StepResult.model_validate(row["result"]) if row["result"] else None,
    )


async def steps(connection: Connection, incident_id: str) -> list[Row]:
    """Every claimed step of an incident, in the order of the claims."""
    return await (
        await connection.execute(
            """select plan_revision, ordinal, undo, operation, params, resource, before, attempt, claimed_at,
                   finished_at, result from step where incident_id = %s order by claimed_at, ordinal""",
            (incident_id,),
        )
    ).fetchall()


async def abandon(connection: Connection, incident_id: str, at: datetime, detail: str) -> None:
    """Record open steps as ``unknown`` and free their resources: nobody will carry them on."""
    open_steps = await (
        await connection.execute(
            "select id, ordinal, operation, params, before, claimed_at from step"
            " where incident_id = %s and finished_at is null for update",
            (incident_id,),
        )
    ).fetchall()
    for step in open_steps:
        known = {k: step[k] for k in ("ordinal", "operation", "params", "before", "claimed_at")}
        result = StepResult.model_validate(known | {"status": "unknown", "detail": detail, "finished_at": at})
        await connection.execute(
            "update step set finished_at = %s, result = %s where id = %s",
            (at, Jsonb(storable(result.model_dump(mode="json"))), step["id"]),
        )
        await connection.execute("delete from lease where step_id = %s", (step["id"],))


class PostgresSnapshots:
    """``graph.deps.Snapshots`` on the ``snapshot`` table."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def get(self, key: SnapshotKey) -> tuple[Telemetry, str] | None:
        """See graph.deps.Snapshots."""
        async with self.pool.connection() as connection:
            row = await (
                await connection.execute(
                    """select sha256, body from snapshot
                       where incident_id = %s and round = %s and source = %s and widened = %s and read = %s""",
                    (key.incident_id, key.round_, key.source, key.widened, key.read),
                )
            ).fetchone()
        if row is None:
            return None
        telemetry = await on_thread(_unpacked, row["body"])
        return telemetry, row["sha256"]

    async def put(self, key: SnapshotKey, telemetry: Telemetry) -> str:
        """See graph.deps.Snapshots."""
        digest, body = await on_thread(_packed, telemetry)
        async with transaction(self.pool) as connection:
            pairs = [(e.caller, e.callee) for e in telemetry.edges if _is_name(e.caller) and _is_name(e.callee)]
            if pairs:  # what traces show of the topology, the next alert is correlated by
                await save_edges(connection, pairs)
            row = await (
                await connection.execute(
                    """insert into snapshot (incident_id, round, source, widened, read, sha256, body)
                       values (%s, %s, %s, %s, %s, %s, %s)
                       on conflict (incident_id, round, widened, source, read) do update set source = excluded.source
                       returning sha256""",
                    (key.incident_id, key.round_, key.source, key.widened, key.read, digest, body),
                )
            ).fetchone()
        assert row is not None
        stored: str = row["sha256"]
        return stored


async def latest_looks(connection: Connection, incident_id: str, round_: int) -> list[Telemetry]:
    """What is known of each source in a round, as its evidence was made of it."""
    rows = await (
        await connection.execute(
            """select source, widened, body from snapshot
               where incident_id = %s and round = %s and read = '' order by source""",
            (incident_id, round_),
        )
    ).fetchall()
    first: dict[str, Telemetry] = {}
    second: dict[str, Telemetry] = {}
    for row in rows:
        (second if row["widened"] else first)[row["source"]] = await on_thread(_unpacked, row["body"])
    if not second:
        return list(first.values())
    return together(list(first.values()), [second.get(name, Telemetry(source=name)) for name in first])


async def read_for_analysts(connection: Connection, incident_id: str, round_: int, source: str) -> list[Telemetry]:
    """What a source answered to an analyst's questions in a round."""
    rows = await (
        await connection.execute(
            "select body from snapshot where incident_id = %s and round = %s and source = %s and read <> ''",
            (incident_id, round_, source),
        )
    ).fetchall()
    return [await on_thread(_unpacked, row["body"]) for row in rows]


def _is_name(text: str) -> bool:
    """What Postgres can store and index; traces may call a service anything."""
    return 0 < len(text) <= MAX_NAME and "\x00" not in text


def _packed(telemetry: Telemetry) -> tuple[str, bytes]:
    """sha256 of the JSON, and the JSON compressed; takes seconds for the largest, so never on the event loop."""
    body = telemetry.model_dump_json().encode()
    return sha256(body).hexdigest(), zlib.compress(body, 1)


def _unpacked(body: bytes) -> Telemetry:
    return Telemetry.model_validate_json(zlib.decompress(body))
