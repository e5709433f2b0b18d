"""Every call of a model, what it cost, and what is left to spend."""

from psycopg.types.json import Jsonb

from app.db import DATABASE_AWAY, Connection, Pool, Row, transaction
from graph.llms.accounted import Caps, LogUnavailable, Outcome, PlannedCall, Spent
from graph.state import storable

LOCK_SPACE = 8  # tells our advisory lock from others'
WITHIN_S = 5.0  # to reserve or to record: an incident waits for it
FIGURES = (
    "id, round, node, at, finished_at, model, prompt_sha256, prompt_tokens, completion_tokens, cached_tokens,"
    " dollars, reserved_tokens, reserved_dollars, estimated, seconds, finish_reason, error"
)


class PostgresCallLog:
    """``graph.llms.accounted.CallLog`` on the ``llm_call`` table. Each call commits at once."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def reserve(self, call: PlannedCall, caps: Caps) -> str:
        """See graph.llms.accounted.CallLog."""
        try:
            async with transaction(self.pool, within_s=WITHIN_S) as connection:
                # One after the other, by all processes: two at once would both find room for one.
                await connection.execute("select pg_advisory_xact_lock(%s, 0)", (LOCK_SPACE,))
                caps.check(await spent(connection, call.purpose.incident_id), call.most)
                return await _insert(connection, call)
        except DATABASE_AWAY as error:
            raise LogUnavailable(type(error).__name__) from error

    async def record(self, call_id: str, outcome: Outcome) -> None:
        """See graph.llms.accounted.CallLog."""
        try:
            async with transaction(self.pool, within_s=WITHIN_S) as connection:
                await _finish(connection, call_id, outcome)
        except DATABASE_AWAY as error:
            raise LogUnavailable(type(error).__name__) from error


async def spent(connection: Connection, incident_id: str) -> Spent:
    """By that incident, and since midnight UTC by all, with what is reserved."""
    row = await (
        await connection.execute(
            """select
                coalesce(sum(prompt_tokens + completion_tokens + reserved_tokens), 0)::bigint as incident_tokens,
                coalesce(sum(dollars + reserved_dollars), 0)::float8 as incident_dollars,
                (select coalesce(sum(dollars + reserved_dollars), 0)::float8 from llm_call
                 where at >= date_trunc('day', now() at time zone 'UTC') at time zone 'UTC') as day_dollars
               from llm_call where incident_id = %s""",
            (incident_id,),
        )
    ).fetchone()
    assert row is not None
    return Spent(**row)


async def page(connection: Connection, incident_id: str) -> list[Row]:
    """The figures of an incident's calls, oldest first. Their number is bounded by the caps."""
    query = f"select {FIGURES} from llm_call where incident_id = %s order by at, id"  # noqa: S608  our own columns
    return await (await connection.execute(query.encode(), (incident_id,))).fetchall()


async def texts(connection: Connection, incident_id: str, call_id: str) -> Row | None:
    """One call with its messages and its answer, masked."""
    query = f"select {FIGURES}, messages, answer from llm_call where incident_id = %s and id::text = %s"  # noqa: S608
    return await (await connection.execute(query.encode(), (incident_id, call_id))).fetchone()


async def _insert(connection: Connection, call: PlannedCall) -> str:
    row = await (
        await connection.execute(
            """insert into llm_call (incident_id, round, node, model, prompt_sha256, messages, reserved_tokens,
                   reserved_dollars) values (%s, %s, %s, %s, %s, %s, %s, %s) returning id::text""",
            (
                call.purpose.incident_id,
                call.purpose.round_,
                call.purpose.node,
                call.model,
                call.prompt_sha256,
                Jsonb(storable(call.messages)),
                call.most.tokens,
                call.most.dollars,
            ),
        )
    ).fetchone()
    assert row is not None
    call_id: str = row["id"]
    return call_id


async def _finish(connection: Connection, call_id: str, outcome: Outcome) -> None:
    usage = outcome.usage
    await connection.execute(
        """update llm_call set finished_at = clock_timestamp(), answer = %s, seconds = %s, estimated = %s, error = %s,
               reserved_tokens = reserved_tokens * %s, reserved_dollars = reserved_dollars * %s,
               model = coalesce(%s, model), prompt_tokens = %s, completion_tokens = %s, cached_tokens = %s,
               dollars = %s, finish_reason = %s
           where id = %s""",
        (
            None if outcome.answer is None else Jsonb(storable(outcome.answer)),
            outcome.seconds,
            outcome.estimated,
            storable(outcome.error)[:1000],
            outcome.lost_attempts,
            outcome.lost_attempts,
            storable(usage.model) or None if usage else None,
            *((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) if usage else (0, 0, 0)),
            usage.dollars if usage else 0.0,
            storable(usage.finish_reason) if usage else "",
            call_id,
        ),
    )
