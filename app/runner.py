"""The only code that runs the graph: starts it, continues it after a crash, resumes it with a decision.

The checkpoint is how we resume; our own tables are what we know. So every path through ``advance`` ends by
projecting the graph's state into them, in one transaction, and doing that twice changes nothing.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import END
from langgraph.types import Command, Interrupt
from pydantic import JsonValue

from app.db import Connection, Pool, Row, transaction, try_lock
from app.store import incidents, ledger, llm_calls
from app.store.audit import OURSELVES, Entry, Kind, append_new
from graph import flow
from graph.deps import Deps
from graph.state import Alert, Decision, Language, State, storable

log = logging.getLogger(__name__)

STATUS_BEFORE: Mapping[str, str] = {
    "SlackAlert": "received",
    "ContextCollector": "collecting",
    "RootCauseAnalyzer": "analyzing",
    "ActionPlanner": "planning",
    "RemediationDecision": "planning",  # until the interrupt is stored
    "ActionExecutor": "executing",
}
LOCK_SPACE = 7  # tells our advisory locks from others'
LOCK_WATCH_S = 1.0
RECURSION_LIMIT = 100


class Busy(Exception):
    """Another worker holds this incident."""


class Runner:
    """Moves incidents on. One per process; safe for many incidents at once."""

    def __init__(self, pool: Pool, deps: Deps, nodes: Mapping[str, flow.Node] = flow.NODES) -> None:
        self.pool, self.deps = pool, deps
        self.graph = flow.build(deps, nodes)

    async def advance(self, incident_id: str) -> None:
        """Bring the incident as far as it goes without a person. Raises Busy, and whatever a node raises."""
        async with self._alone_with(incident_id) as lock:
            row = await self._row(incident_id)
            if row is None or row["closed_at"]:
                return
            run = _Run(self, incident_id, Alert.model_validate(row["alert"]), row["language"], row["reopened"])
            await _while_held(run.advance(), lock)

    async def count_failure(self, incident_id: str) -> int:
        """Note that a node failed; how often that happened since a decision was last awaited."""
        async with transaction(self.pool) as connection:
            return await incidents.count_failure(connection, incident_id)

    async def give_up(self, incident_id: str, reason: str) -> bool:
        """Hand the incident to a person: it failed too often. False if it is being run, or closed already."""
        now, reason = self.deps.clock.now(), storable(reason)[:1000]
        async with transaction(self.pool) as connection:
            if not await try_lock(connection, incident_id, LOCK_SPACE):
                return False
            if not await incidents.set_status(connection, incident_id, "needs_attention", reason=reason):
                return False
            log.error("incident %s failed too often: %s", incident_id, reason)
            await incidents.add_event(
                connection,
                incident_id,
                "needs_attention",
                now,
                "status",
                f"needs attention: it failed again and again; the last error: {reason}",
                data={"status": "needs_attention"},
            )
            await ledger.abandon(connection, incident_id, now, f"given up: {reason}")  # audited, so it comes last
        return True

    async def _row(self, incident_id: str) -> Row | None:
        async with self.pool.connection() as connection:
            return await incidents.get(connection, incident_id)

    @asynccontextmanager
    async def _alone_with(self, incident_id: str) -> AsyncIterator[Connection]:
        """LangGraph has no lock of its own: two resumes of one thread would both run the next node."""
        async with self.pool.connection() as connection:
            key = (incident_id, LOCK_SPACE)
            try:
                row = await (
                    await connection.execute("select pg_try_advisory_lock(hashtextextended(%s, %s)) as mine", key)
                ).fetchone()
                if not row or not row["mine"]:
                    raise Busy(incident_id)
                yield connection
                await connection.execute("select pg_advisory_unlock(hashtextextended(%s, %s))", key)
            except BaseException:
                await connection.close()  # the lock must not live on in a connection of the pool
                raise


async def _while_held(work: Coroutine[Any, Any, None], lock: Connection) -> None:
    """Do the work; stop it if the connection that holds its lock is lost: somebody else may start it then."""
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_watch(lock))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.wait({working, watching})
    if working.cancelled():
        raise Busy("the connection that held the incident's lock was lost")
    working.result()


async def _watch(lock: Connection) -> None:
    """Returns, or raises, when the connection is lost."""
    while not lock.closed:
        await asyncio.sleep(LOCK_WATCH_S)
        await lock.execute("select 1")


class _Run:
    """One incident being moved on."""

    def __init__(self, runner: Runner, incident_id: str, alert: Alert, language: Language, reopened: int) -> None:
        self.runner, self.incident_id, self.alert, self.language = runner, incident_id, alert, language
        self.again = f":{reopened}" if reopened else ""  # what is projected anew after a reopening is news
        # A saver of its own: a shared one puts every run's checkpoints behind one lock.
        self.graph = runner.graph.copy(update={"checkpointer": AsyncPostgresSaver(runner.pool)})
        self.config: Any = {
            "configurable": {"thread_id": incident_id},
            "recursion_limit": RECURSION_LIMIT,
        }

    async def advance(self) -> None:
        snapshot = await self.graph.aget_state(self.config)
        if snapshot.created_at is None:
            start = {
                "incident_id": self.incident_id,
                "alert": self.alert.model_dump(mode="json"),
                "language": self.language,
            }
            await self._stream(start, start)
            return
        decision = await self._decision(snapshot.values) if snapshot.interrupts else None
        if decision:
            resume = {snapshot.interrupts[0].id: decision.model_dump(mode="json")}
            await self._stream(Command(resume=resume), dict(snapshot.values))
            return
        unfinished = not snapshot.interrupts and bool(snapshot.next or snapshot.tasks or "scope" not in snapshot.values)
        if snapshot.next or not unfinished:
            await self._project(snapshot.values, snapshot.next, snapshot.interrupts)
        # Without `next` it died between a node's writes and the checkpoint after them: LangGraph replays the writes.
        if unfinished:
            await self._stream(None, dict(snapshot.values))

    async def _stream(self, graph_input: Any, values: dict[str, Any]) -> None:
        """Run until the graph pauses or ends; project after every node. ``values`` is the state it starts from."""
        events: Any = self.graph.astream(graph_input, self.config, stream_mode=["updates", "custom"], durability="sync")
        async with aclosing(events):  # closed also on an error here, or its nodes would run on without our lock
            async for mode, chunk in events:
                if mode == "custom":
                    await self._tell(chunk)
                elif not await self._updated(chunk, values):
                    return  # closed meanwhile, e.g. recovered by itself

    async def _updated(self, chunk: Mapping[str, Any], values: dict[str, Any]) -> bool:
        for node, update in chunk.items():
            if node == "__metadata__" or update is None:  # marks updates it replays; a node that failed on resuming
                continue
            if node == "__interrupt__":
                return await self._project(values, ("RemediationDecision",), update)
            values |= update
            if not await self._project(values, _next(node, values), ()):
                return False
        return True

    async def _decision(self, values: Mapping[str, Any]) -> Decision | None:
        async with self.runner.pool.connection() as connection:
            rows = await incidents.decisions(connection, self.incident_id)
        revision = flow.typed(values)["plan"].revision
        return next((Decision.model_validate(r) for r in rows if r["plan_revision"] == revision), None)

    async def _decided(self, connection: Connection, plan_revision: str) -> bool:
        """Whether somebody decided since the checkpoint was read: then no decision is awaited, and none may be shown.

        Nobody decides from now on until the transaction ends.
        """
        await incidents.lock(connection, self.incident_id)
        return any(d["plan_revision"] == plan_revision for d in await incidents.decisions(connection, self.incident_id))

    async def _tell(self, progress: Mapping[str, Any]) -> None:
        async with transaction(self.runner.pool) as connection:
            if status := progress["data"].get("status") if progress["kind"] == "verification" else None:
                await incidents.set_status(connection, self.incident_id, status)
            await incidents.add_event(
                connection,
                self.incident_id,
                progress["key"],
                self.runner.deps.clock.now(),
                progress["kind"],
                storable(progress["message"]),
                node=progress["node"],
                data=storable(progress["data"]),
            )

    async def _project(
        self, values: Mapping[str, Any], following: tuple[str, ...], interrupts: tuple[Interrupt, ...]
    ) -> bool:
        """Write what the graph knows into our tables; False if the incident was closed meanwhile."""
        state = flow.typed(values)
        status, reason = _status(state, following, interrupts)
        plan, round_ = state.get("plan"), state.get("round", 0)
        async with transaction(self.runner.pool) as connection:
            if interrupts and plan and await self._decided(connection, plan.revision):
                return True
            if not await incidents.set_status(
                connection,
                self.incident_id,
                status,
                reason=reason,
                round_=round_,
                plan_revision=plan.revision if plan and status == "awaiting_decision" else None,
            ):
                return False
            if round_:
                parts = {name: values.get(name) for name in _known_parts(following)}
                await incidents.save_analysis(connection, self.incident_id, round_, **parts)
            for execution in state.get("executions", ()):
                body = execution.model_dump(mode="json", by_alias=True)
                await incidents.save_execution(connection, self.incident_id, execution.plan_revision, body)
            where = following[0] if following else "end"
            await incidents.add_event(
                connection,
                self.incident_id,
                f"status:{status}:{where}:{round_}:{plan.revision if plan else ''}{self.again}",
                self.runner.deps.clock.now(),
                "status",
                status.replace("_", " ") + (f": {reason}" if reason else ""),
                data={"status": status},
            )
            if round_:
                prompts = await llm_calls.page(connection, self.incident_id)
                told = list(_audited(state, _known_parts(following), prompts))
                now = self.runner.deps.clock.now()
                entries = [Entry(kind, OURSELVES, now, body, self.incident_id) for kind, body in told]
                await append_new(connection, self.incident_id, entries)
        return True


def _audited(state: State, parts: Sequence[str], prompts: Sequence[Row]) -> Iterator[tuple[Kind, dict[str, JsonValue]]]:
    """What the audit log is to know of an incident by now; what it knows already is not written again."""
    alert, round_ = state["alert"], state["round"]
    yield "alert", alert.model_dump(mode="json", include={"source", "title", "service", "cycle_key", "occurred_at"})
    yield "evidence", {"round": round_, "digest": state["evidence"].digest}
    for call in prompts:
        asked = {name: call[name] for name in ("round", "node", "prompt_sha256")}
        yield "prompt", {"call": str(call["id"]), **asked}
    if "plan" in parts and (plan := state.get("plan")):
        told = plan.model_dump(mode="json", include={"revision", "digest", "number", "policy_version"})
        yield "plan", {"round": round_, **told, "evidence_sha256": plan.evidence_sha256}
    for execution in state.get("executions", ()):
        verification = execution.verification
        measured = {"verdict": verification.verdict, "credit": verification.credit}
        yield "verification", {"plan_revision": execution.plan_revision, "choice": execution.choice, **measured}


def _known_parts(following: tuple[str, ...]) -> tuple[str, ...]:
    """What this round has found out; in a new round the answers of the one before are still in the state."""
    if following == ("RootCauseAnalyzer",):
        return "scope", "evidence"
    if following == ("ActionPlanner",):
        return "scope", "evidence", "root_cause"
    return "scope", "evidence", "root_cause", "plan"


def _next(node: str, values: Mapping[str, Any]) -> tuple[str, ...]:
    """The node after this one; the same functions the graph's edges use."""
    order = list(flow.NODES)
    if node == "RemediationDecision":
        name = flow.after_decision(flow.typed(values))
    elif node == "ActionExecutor":
        name = flow.after_execution(flow.typed(values))
    else:
        name = order[order.index(node) + 1]
    return () if name == END else (name,)


def _status(state: State, following: tuple[str, ...], interrupts: tuple[Interrupt, ...]) -> tuple[str, str]:
    if interrupts:
        return "awaiting_decision", ""
    if following:
        return STATUS_BEFORE[following[0]], ""
    decision = state["decision"]
    if decision.choice == "manual":
        return "closed", f"{decision.by} takes it by hand"
    if state["executions"][-1].verification.verdict != "resolved":
        raise AssertionError("the graph ended, and nothing was resolved")
    return "resolved", ""
