"""The ledger of writes to the outside world, and the store of raw telemetry. Each call commits at once."""

import json
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb
from pydantic import JsonValue

from app.db import Connection, Pool, Row, transaction
from app.store import audit, freeze
from app.store.alerts import save_edges
from collectors._jobs import on_thread
from collectors.base import Telemetry
from executors.base import Refused
from graph.deps import Claim, ClaimedStep, ResourceBusy, SnapshotKey, StepKey
from graph.looks import together
from graph.policy import Policy
from graph.state import StepResult, storable

MAX_NAME = 255  # characters of a service's name
ACTOR = "ActionExecutor"
SERVICE_LOCK_SPACE = 8  # tells our advisory locks from others'


class PostgresLedger:
    """``graph.deps.Ledger`` on the ``step`` table.

    Locks are taken in one order, so that nobody waits in a circle: incident, decision, kill switch, services by name,
    resources by name, audit log. An incident that somebody holds must not hold up the kill switch.
    """

    def __init__(self, pool: Pool, policy: Policy | None = None) -> None:
        self.pool, self.policy = pool, policy or Policy()

    async def find(self, key: StepKey) -> ClaimedStep | None:
        """See graph.deps.Ledger."""
        async with self.pool.connection() as connection:
            row = await _find(connection, key)
        return _claimed(row, fresh=False) if row else None

    async def claim(self, claim: Claim) -> ClaimedStep:
        """See graph.deps.Ledger."""
        try:
            async with transaction(self.pool) as connection:
                await _refuse_closed(connection, claim.key)
                await _refuse_unapproved(connection, claim)
                await _refuse_stale(connection, claim.key, self.policy.waiting.ttl_minutes)
                await _refuse_frozen(connection)
                if not claim.key.undo:  # what was done may always be put back
                    await self._refuse_in_window(connection, claim)
                    await self._refuse_too_often(connection, claim)
                row = await _insert(connection, claim)
                await _lease(connection, claim.resource, row["id"])
                await _audit_claim(connection, claim)
        except UniqueViolation as error:
            if error.diag.table_name == "lease":
                raise ResourceBusy(f"{claim.resource} is being changed by another action; one at a time") from error
            raise ResourceBusy("another process has claimed this step") from error
        return _claimed(row, fresh=True)

    async def _refuse_in_window(self, connection: Connection, claim: Claim) -> None:
        """Raises Refused: it opened between decision and first step. An option that has begun is not cut off."""
        windows = list(self.policy.windows((claim.operation,), claim.services, claim.at))
        if claim.services and windows and not await _begun(connection, claim.key):
            raise Refused(
                f"the freeze window {windows[0]} began after it was approved, and nothing of it had begun."
                " Decide anew once it is over."
            )

    async def _refuse_too_often(self, connection: Connection, claim: Claim) -> None:
        """Raises Refused."""
        for service in sorted(claim.services):
            await connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, %s))", (service, SERVICE_LOCK_SPACE)
            )
        made = await changes_within_hour(connection, claim.services, claim.at)
        most = self.policy.actions_per_service_hour
        for service, times in sorted(made.items()):
            if times >= most:
                raise Refused(
                    f"{service} was changed {times} times within the hour; the policy allows {most}."
                    " Wait, or raise policy.actions_per_service_hour."
                )

    async def refuse(self, claim: Claim, result: StepResult) -> StepResult:
        """See graph.deps.Ledger."""
        async with transaction(self.pool) as connection:
            row = await (
                await connection.execute(
                    """insert into step (incident_id, plan_revision, ordinal, undo, operation, params, resource, before,
                           attempt, claimed_at, finished_at, result)
                       select incident_id, plan_revision, %s, %s, %s, %s, '', '{}', 0, %s, %s, %s from decision
                       where incident_id = %s and plan_revision = %s on conflict do nothing returning id""",
                    (
                        claim.key.ordinal,
                        claim.key.undo,
                        claim.operation,
                        Jsonb(storable(dict(claim.params))),
                        claim.at,
                        claim.at,
                        Jsonb(storable(result.model_dump(mode="json"))),
                        claim.key.incident_id,
                        claim.key.plan_revision,
                    ),
                )
            ).fetchone()
            if row:
                await _audit_result(connection, claim.key, result, claim.at)
                return result
            stands = await _find(connection, claim.key)
        return StepResult.model_validate(stands["result"]) if stands and stands["result"] else result

    async def retake(self, step: ClaimedStep) -> bool:
        """See graph.deps.Ledger."""
        async with transaction(self.pool) as connection:
            await _refuse_frozen(connection)
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
            row = await (
                await connection.execute(
                    """update step set finished_at = %s, result = %s
                       where id = %s and (finished_at is null or (result->>'status' = 'unknown' and %s <> 'unknown'))
                       returning incident_id, plan_revision, ordinal, undo, claimed_at""",
                    (
                        result.finished_at,
                        Jsonb(storable(result.model_dump(mode="json"))),
                        step_id,
                        result.status,
                    ),
                )
            ).fetchone()
            await connection.execute("delete from lease where step_id = %s", (step_id,))
            if row:
                key = StepKey(row["incident_id"], row["plan_revision"], row["ordinal"], row["undo"])
                await _audit_result(connection, key, result, result.finished_at or row["claimed_at"])


# --- what stops a claim ---


async def _refuse_frozen(connection: Connection) -> None:
    """Raises Refused. A pull of the kill switch waits for us, or we for it."""
    await connection.execute("select pg_advisory_xact_lock_shared(%s)", (freeze.FREEZE_LOCK,))
    if frozen := await freeze.current(connection):
        raise Refused(freeze.said(frozen))


async def _refuse_closed(connection: Connection, key: StepKey) -> None:
    """Raises Refused. Whoever closes the incident waits for us, or we for it."""
    row = await (
        await connection.execute("select closed_at from incident where id = %s for share", (key.incident_id,))
    ).fetchone()
    if row is None or row["closed_at"]:
        raise Refused("the incident was closed meanwhile; nothing more is run")


async def _refuse_unapproved(connection: Connection, claim: Claim) -> None:
    """Raises Refused. Whoever withdraws the decision waits for us, or we for it."""
    key = claim.key
    row = await (
        await connection.execute(
            """select choice, steps, plan_digest, withdrawn_at, withdrawn_by from decision
               where incident_id = %s and plan_revision = %s for share""",
            (key.incident_id, key.plan_revision),
        )
    ).fetchone()
    if row is None:
        raise Refused(f"nobody has decided on plan {key.plan_revision}; nothing is run without a decision")
    if row["withdrawn_at"]:
        raise Refused(f"{row['withdrawn_by']} withdrew the decision before this step began; it is not run")
    if claim.choice and (claim.choice, claim.plan_digest) != (row["choice"], row["plan_digest"]):
        raise Refused(
            f"what is about to run is not what was decided on plan {key.plan_revision}: the decision, or the"
            " checkpoint, was changed in the database; run `autopilot audit verify`"
        )
    if not key.undo and row["choice"] not in ("1", "2", "3"):
        raise Refused(f"the decision on plan {key.plan_revision} is {row['choice']}: it approves no step")
    if row["steps"] and key.ordinal not in row["steps"]:
        approved = ", ".join(map(str, row["steps"]))
        raise Refused(f"step {key.ordinal} was not approved, only {approved}")


async def _refuse_stale(connection: Connection, key: StepKey, ttl_minutes: float) -> None:
    """Raises Refused: an approval of hours ago is not carried out because the workers are back only now."""
    row = await (
        await connection.execute(
            """select extract(epoch from clock_timestamp() - decided_at)::float8 / 60 as minutes from decision d
               where incident_id = %s and plan_revision = %s
                 and decided_at < clock_timestamp() - make_interval(secs => %s)
                 and not exists (select from step s where (s.incident_id, s.plan_revision)
                                 = (d.incident_id, d.plan_revision) and s.attempt > 0)""",
            (key.incident_id, key.plan_revision, ttl_minutes * 60),
        )
    ).fetchone()
    if row:
        raise Refused(
            f"it was approved {row['minutes']:.0f} minutes ago, and nothing of it had begun: that is longer than an"
            f" approval holds ({ttl_minutes:g} minutes, policy.waiting.ttl_minutes). Decide on the new plan."
        )


async def _begun(connection: Connection, key: StepKey) -> bool:
    """Whether a step of this plan was claimed; a refusal is no beginning."""
    row = await (
        await connection.execute(
            "select from step where incident_id = %s and plan_revision = %s and attempt > 0 limit 1",
            (key.incident_id, key.plan_revision),
        )
    ).fetchone()
    return row is not None


async def changes_within_hour(connection: Connection, services: Sequence[str], at: datetime) -> dict[str, int]:
    """How often each of these services was changed in the hour before, if it was.

    What is under way, or unknown, counts. What failed before it changed anything, was refused, or put something back
    does not.
    """
    rows = await (
        await connection.execute(
            """select s.service, count(*) as times from unnest(%s::text[]) s (service)
               join step on step.services @> array[s.service] and not step.undo
                   and step.claimed_at > %s - interval '1 hour'
                   and (step.result is null or (step.result->>'made')::boolean or step.result->>'status' = 'unknown')
               group by s.service""",
            (list(services), at),
        )
    ).fetchall()
    return {row["service"]: row["times"] for row in rows}


# --- rows ---


async def _find(connection: Connection, key: StepKey) -> Row | None:
    return await (
        await connection.execute(
            """select *, extract(epoch from clock_timestamp() - touched_at)::float8 as age_s from step
               where incident_id = %s and plan_revision = %s and ordinal = %s and undo = %s""",
            (key.incident_id, key.plan_revision, key.ordinal, key.undo),
        )
    ).fetchone()


async def _insert(connection: Connection, claim: Claim) -> Row:
    key = claim.key
    row = await (
        await connection.execute(
            """insert into step (incident_id, plan_revision, ordinal, undo, operation, params, resource, before,
                   services, claimed_at)
               values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning *, 0.0 as age_s""",
            (
                key.incident_id,
                key.plan_revision,
                key.ordinal,
                key.undo,
                claim.operation,
                Jsonb(storable(dict(claim.params))),
                claim.resource,
                Jsonb(storable(dict(claim.before))),
                list(claim.services),
                claim.at,
            ),
        )
    ).fetchone()
    assert row is not None
    return row


async def _lease(connection: Connection, resource: str, step_id: str) -> None:
    names = sorted({name for name in resource.split(",") if name})
    await connection.execute("insert into lease (resource, step_id) select unnest(%s::text[]), %s", (names, step_id))


# --- the audit log: the last statement of each transaction ---


async def _audit_claim(connection: Connection, claim: Claim) -> None:
    body: dict[str, JsonValue] = {
        **_which(claim.key),
        "operation": claim.operation,
        "params": dict(claim.params),
        "resource": claim.resource,
        "services": list(claim.services),
        "before_sha256": _sha256(claim.before),
    }
    await audit.append(connection, "claim", ACTOR, claim.at, body, claim.key.incident_id)


async def _audit_result(connection: Connection, key: StepKey, result: StepResult, at: datetime) -> None:
    body: dict[str, JsonValue] = {
        **_which(key),
        "operation": result.operation,
        "params": dict(result.params),
        "status": result.status,
        "made": result.made,
        "detail": result.detail,
        "request_ids": list(result.request_ids),
        "before_sha256": _sha256(result.before),
        "after_sha256": _sha256(result.after),
    }
    await audit.append(connection, "step", ACTOR, at, body, key.incident_id)


def _which(key: StepKey) -> dict[str, JsonValue]:
    return {"plan_revision": key.plan_revision, "ordinal": key.ordinal, "undo": key.undo}


def _sha256(state: Mapping[str, JsonValue]) -> str:
    return sha256(json.dumps(storable(dict(state)), sort_keys=True).encode()).hexdigest()


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
    """Record open steps as ``unknown`` and free their resources: nobody will carry them on. Ends with audit rows."""
    open_steps = await (
        await connection.execute(
            """select id, plan_revision, ordinal, undo, operation, params, before, claimed_at from step
               where incident_id = %s and finished_at is null order by ordinal, undo for update""",
            (incident_id,),
        )
    ).fetchall()
    results: list[tuple[StepKey, StepResult]] = []
    for step in open_steps:
        known = {k: step[k] for k in ("ordinal", "operation", "params", "before", "claimed_at")}
        result = StepResult.model_validate(known | {"status": "unknown", "detail": detail, "finished_at": at})
        await connection.execute(
            "update step set finished_at = %s, result = %s where id = %s",
            (at, Jsonb(storable(result.model_dump(mode="json"))), step["id"]),
        )
        await connection.execute("delete from lease where step_id = %s", (step["id"],))
        results.append((StepKey(incident_id, step["plan_revision"], step["ordinal"], step["undo"]), result))
    for key, result in results:
        await _audit_result(connection, key, result, at)


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
