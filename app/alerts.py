"""The use cases of alerts: accept deliveries, take apart or put together what was merged, read a dead letter again.

One transaction each. ``accept`` takes many deliveries at once: a commit costs as much for fifty as for one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from pydantic import JsonValue

from app import admission
from app.db import Connection, Row, all_at_once, pipelined_transaction, transaction
from app.desk import ANSWER_WITHIN_S, Conflict, Desk, NotFound, Unusable, require
from app.intake.base import Directory, Headers, Incoming, Parsed, Sender, UnreadablePayload
from app.intake.correlate import Topology, resource_pairs
from app.intake.triage import RECOVERED, UNDECIDED, Became, Board, Case, Cycle, Placement, new_incident_id
from app.queue import enqueue_advance_all, enqueue_sender_job, enqueue_slack_decision
from app.security import Caller
from app.store import alerts, incidents
from app.store.admission import NOTHING_RUNS, State
from app.store.admission import state as state_of_admission
from graph.state import Alert

FIRES = ("firing", "no_data")
CHANGES = (*FIRES, "resolved")


@dataclass(frozen=True)
class Delivery:
    """A delivery that is verified and, if possible, parsed."""

    sender: str
    headers: Headers = field(repr=False)  # they hold secrets
    body: bytes = field(repr=False)
    parsed: Parsed | None  # None: a dead letter
    part: str = ""
    error: str = ""  # why it, or a part of it, could not be parsed
    id: UUID = field(default_factory=uuid4)
    stored: bool = False  # its raw row is there already: a dead letter that can be read now, or a job's answer


@dataclass(frozen=True)
class Placed:
    """An alert of a delivery, and where it went."""

    alert_id: UUID
    incident_id: str | None
    became: Became
    why: str = ""
    score: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a delivery."""

    delivery_id: UUID
    alerts: tuple[Placed, ...] = ()
    duplicate: bool = False
    incident_id: str | None = None  # of its first alert that has one
    created: bool = False


async def accept(desk: Desk, deliveries: Sequence[Delivery]) -> list[Outcome]:
    """Store deliveries, alerts, incidents and jobs in one transaction; who answers after it has lost nothing."""
    pool = desk.intake_pool or desk.pool
    async with pipelined_transaction(pool, within_s=ANSWER_WITHIN_S) as connection:
        return await accept_within(desk, connection, deliveries)


async def accept_within(desk: Desk, connection: Connection, deliveries: Sequence[Delivery]) -> list[Outcome]:
    """The same in the caller's transaction."""
    arrived = [alert for d in deliveries if d.parsed for alert in d.parsed.alerts]
    if arrived:
        await alerts.take_turns(connection)
    topology = await desk.topology.get(connection, desk.catalogue) if arrived else Topology()
    new, heard = await all_at_once(
        _store_raw(connection, deliveries), _heard_before(connection, desk, topology, arrived)
    )
    fresh = [d for d in deliveries if d.id in new]
    placed = await _triage(desk, connection, fresh, topology, heard) if arrived else {}
    await _store_the_rest(desk, connection, fresh)
    outcomes = {d.id: _outcome(d, placed.get(d.id, ())) for d in fresh}
    twins = [d for d in deliveries if d.id not in new]
    firsts = await alerts.first_of(connection, [_key(d) for d in twins]) if twins else {}
    for twin in twins:
        first_id, incident_id = firsts[_key(twin)]
        outcomes[twin.id] = Outcome(first_id, duplicate=True, incident_id=incident_id)
    return [outcomes[d.id] for d in deliveries]


def _key(delivery: Delivery) -> str:
    return (delivery.parsed.delivery_key if delivery.parsed else None) or ""


async def _store_raw(connection: Connection, deliveries: Sequence[Delivery]) -> set[UUID]:
    """The ids of those that were not here before."""
    rows = [
        alerts.RawRow(
            d.id,
            d.sender,
            d.part,
            d.headers,
            d.body,
            _key(d) or None,
            d.error or None,
            d.parsed.note if d.parsed else "",
        )
        for d in deliveries
        if not d.stored
    ]
    inserted = await alerts.insert_raw(connection, rows) if rows else set()
    return inserted | {d.id for d in deliveries if d.stored}


def _outcome(delivery: Delivery, placed: Sequence[Placed]) -> Outcome:
    with_one = [p for p in placed if p.incident_id]
    first = next((p for p in with_one if p.became == "opened"), with_one[0] if with_one else None)
    return Outcome(
        delivery.id,
        tuple(placed),
        incident_id=first.incident_id if first else None,
        created=any(p.became == "opened" for p in placed),
    )


async def _store_the_rest(desk: Desk, connection: Connection, deliveries: Sequence[Delivery]) -> None:
    changes = [(d.id, change) for d in deliveries if d.parsed for change in d.parsed.changes]
    if changes:
        await alerts.insert_changes(connection, changes)
    for delivery in deliveries:
        for job in delivery.parsed.jobs if delivery.parsed else ():
            await enqueue_sender_job(desk.queue, connection, job.sender, job.arguments, str(delivery.id))
        if delivery.parsed and delivery.parsed.click:
            await enqueue_slack_decision(desk.queue, connection, str(delivery.id))


# --- triage ---


@dataclass(frozen=True)
class Heard:
    """What is known of some alerts before they are placed."""

    cycles: Sequence[Cycle] = ()
    near: Sequence[str] = ()  # open incidents they may belong to
    split: Sequence[tuple[str, str]] = ()
    admission: State = NOTHING_RUNS


async def _heard_before(connection: Connection, desk: Desk, topology: Topology, arrived: Sequence[Alert]) -> Heard:
    if not arrived:
        return Heard()
    keys, fingerprints = sorted({a.cycle_key for a in arrived}), sorted({a.fingerprint for a in arrived})
    firing = [a for a in arrived if a.transition in FIRES]
    found = await all_at_once(
        alerts.cycles_of(connection, keys, fingerprints),
        _near(connection, desk, topology, firing),
        alerts.split_pairs(connection, fingerprints),
        state_of_admission(connection, desk.clock.now(), desk.budget.at_once),
    )
    return Heard(*found)


async def _near(connection: Connection, desk: Desk, topology: Topology, firing: Sequence[Alert]) -> list[str]:
    if not firing:
        return []
    times = [a.changed_at or a.occurred_at for a in firing]
    window = desk.correlation.window
    services = {name for a in firing for name in topology.around(a.service)}
    resources = {pair for a in firing for pair in resource_pairs(a.resources)}
    return await alerts.incidents_near(
        connection, sorted(services), sorted(resources), min(times) - window, max(times) + window
    )


async def _triage(
    desk: Desk, connection: Connection, deliveries: Sequence[Delivery], topology: Topology, heard: Heard
) -> dict[UUID, list[Placed]]:
    arrived = [(d, d.parsed, alert) for d in deliveries if d.parsed for alert in d.parsed.alerts]
    board = await _board(desk, connection, [alert for _, _, alert in arrived], topology, heard)
    rows: list[alerts.AlertRow] = []
    placed: dict[UUID, list[Placed]] = {}
    for delivery, parsed, alert in arrived:
        where = board.place(alert, parsed.asked_by)
        if where.became == "opened" and where.incident_id:
            board.cases[where.incident_id].language = parsed.language
        row = alerts.AlertRow(uuid4(), delivery.id, where.incident_id, alert, where.why, where.score)
        rows.append(row)
        placed.setdefault(delivery.id, []).append(_placed(row.id, where))
    await _save(desk, connection, board, rows, heard.admission)
    return placed


def _placed(alert_id: UUID, where: Placement) -> Placed:
    return Placed(alert_id, where.incident_id, where.became, where.why, where.score)


async def _board(
    desk: Desk, connection: Connection, arrived: Sequence[Alert], topology: Topology, heard: Heard
) -> Board:
    """Everything these alerts may have to do with, locked."""
    cycles = {c.key: c for c in heard.cycles}
    # Reminders change no incident. A cycle may be known by another fingerprint than its newest transition has.
    moving = {name for a in arrived if a.transition in CHANGES for name in (a.fingerprint, a.cycle_key)}
    ids = {c.incident_id for c in heard.cycles if c.incident_id and not moving.isdisjoint((c.fingerprint, c.key))}
    if any(a.transition in FIRES and not _said_before(a, cycles.get(a.cycle_key)) for a in arrived):
        ids.update(heard.near)
    members: list[Cycle] = []
    cases: list[Case] = []
    if ids:
        members, cases = await all_at_once(alerts.members(connection, sorted(ids)), alerts.cases(connection, ids))
    for member in members:
        cycles.setdefault(member.key, member)
    return Board(cycles.values(), cases, topology=topology, rules=desk.correlation, split=heard.split)


def _said_before(trigger: Alert, known: Cycle | None) -> bool:
    """Whether a trigger is no newer than what is known of its cycle: then it stays where the cycle is."""
    return (
        known is not None
        and bool(known.incident_id)
        and (trigger.changed_at or trigger.occurred_at) <= known.changed_at
    )


async def _save(
    desk: Desk, connection: Connection, board: Board, rows: Sequence[alerts.AlertRow], state: State
) -> None:
    now, budget = desk.clock.now(), desk.budget
    crowded = state.running >= budget.at_once and not state.silences
    if board.opened:
        waits = budget.crowded if crowded else ""
        environment, language = desk.catalogue.environment, desk.settings.language
        await alerts.insert_incidents(connection, board.opened, environment, waits, language=language)
    if board.changed:
        await alerts.save_cycles(connection, list(board.changed.values()))
    await _save_known(desk, connection, board)
    if board.happenings:
        keys = ["opened" if h.kind == "opened" else f"{h.kind}:{uuid4()}" for h in board.happenings]
        await alerts.insert_happenings(connection, board.happenings, keys, now)
    await alerts.insert_alerts(connection, rows)
    if board.adopted:
        await alerts.adopt(connection, board.adopted)
    if board.changed and (board.reopened or not crowded):
        touched = sorted({c.incident_id for c in board.changed.values() if c.incident_id})
        await admission.admit(connection, desk.queue, desk.clock, budget, state=state, touched=touched)


async def _save_known(desk: Desk, connection: Connection, board: Board) -> None:
    """What changed of incidents that were there before; new ones were inserted as they are."""
    opened = {case.id for case in board.opened}
    if closed := sorted(board.closed.keys() - opened):
        await alerts.close_recovered(connection, closed)
    if reopened := sorted(board.reopened.keys() - opened):
        await enqueue_advance_all(desk.queue, connection, await alerts.reopen(connection, reopened))
    if board.touched:
        await alerts.touch(connection, list(board.touched.values()))


# --- dead letters ---


async def bury(desk: Desk, delivery_id: UUID, why: str) -> None:
    """Make a delivery that is stored a dead letter."""
    async with transaction(desk.pool) as connection:
        await alerts.mark_unreadable(connection, delivery_id, why)


async def replay_dead_letter(
    desk: Desk, senders: Mapping[str, Sender], directory: Directory, delivery_id: UUID
) -> Outcome:
    """Read a dead letter again, after the parser or the catalogue was mended.

    Raises UnreadablePayload if it, or a part of it, still cannot be read, NotFound if it is none.
    """
    async with transaction(desk.pool) as connection:
        await alerts.take_turns(connection)
        row = await alerts.raw(connection, delivery_id)
        if row is None or row["parse_error"] is None:
            raise NotFound(delivery_id, "dead letter")
        if row["sender"] not in senders:
            raise UnreadablePayload(f"there is no sender {row['sender']!r} any more")
        parsed = senders[row["sender"]].parse(Incoming(row["headers"], row["body"], row["part"]), directory)
        delivery = Delivery(
            row["sender"], row["headers"], row["body"], parsed, row["part"], id=delivery_id, stored=True
        )
        outcome = (await accept_within(desk, connection, [delivery]))[0]
        if parsed.left_out:
            await alerts.mark_unreadable(connection, delivery_id, parsed.left_out)
        else:
            await alerts.mark_read(connection, delivery_id, parsed.note)
    if parsed.left_out:
        raise UnreadablePayload(parsed.left_out)
    return outcome


async def replay_alert(desk: Desk, alert_id: UUID) -> Outcome:
    """Take a stored alert for a new one: its cycle and its delivery are its own. Raises NotFound."""
    async with desk.pool.connection() as connection:
        row = await alerts.get(connection, alert_id)
    if row is None:
        raise NotFound(alert_id, "alert")
    mark = uuid4().hex[:12]
    stored = Alert.model_validate(row["body"])
    again = stored.model_copy(
        update={
            "cycle_key": f"replay:{mark}:{stored.cycle_key}"[:300],
            "fingerprint": f"replay:{mark}:{stored.fingerprint}"[:300],
            "transition": "firing",
        }
    )
    parsed = Parsed(alerts=(again,), asked_by="replay", note=f"replay of alert {alert_id}")
    return (await accept(desk, [Delivery(stored.source, {}, again.model_dump_json().encode(), parsed, "replay")]))[0]


# --- take apart, put together ---


async def split(desk: Desk, incident_id: str, alert_ids: Sequence[UUID], caller: Caller) -> str:
    """Give alerts of an incident one of their own; its id. They are not merged again.

    Raises NotFound, NotAllowed, Unusable.
    """
    require(caller, "responder", "split an incident")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        await alerts.take_turns(connection)
        origin, moving, staying = await _divide(connection, incident_id, alert_ids)
        if not staying:
            raise Unusable("These are all the alerts of the incident: nothing would be left to split them from.")
        trigger = await alerts.newest_trigger(connection, [c.key for c in moving])
        assert trigger is not None
        alert = Alert.model_validate(trigger["body"])
        over = not any(c.state == "firing" for c in moving)  # then there is nothing to investigate
        case = Case(new_incident_id(), "received", alert.severity, closed=over, recovered=over, alert=alert)
        await alerts.insert_incidents(connection, [case], desk.catalogue.environment, language=origin["language"])
        now = desk.clock.now()
        said = f"Split off incident {incident_id} by {caller.name}: {alert.title}"
        await incidents.add_event(connection, case.id, "opened", now, "opened", said, data={"url": alert.url})
        await _move(desk, connection, moving, incident_id, case.id, f"split off by {caller.name}")
        if over:
            said = "Its alerts had recovered before it was split off: nothing is left to investigate"
            await _say_recovered(desk, connection, case.id, said)
        pairs = [(m.fingerprint, s.fingerprint) for m in moving for s in staying]
        await alerts.insert_split_pairs(connection, pairs, caller.name)
        await _close_if_over(desk, connection, incident_id, staying)
        await admission.admit(connection, desk.queue, desk.clock, desk.budget)
    return case.id


async def move(desk: Desk, incident_id: str, alert_ids: Sequence[UUID], target: str, caller: Caller) -> None:
    """Give alerts of an incident to another open one; an incident that has none left is closed.

    Raises NotFound, NotAllowed, Conflict, Unusable.
    """
    require(caller, "responder", "move alerts")
    if target == incident_id:
        raise Unusable("The alerts are in this incident already.")
    async with transaction(desk.pool, within_s=ANSWER_WITHIN_S) as connection:
        await alerts.take_turns(connection)
        cases = {c.id: c for c in await alerts.cases(connection, [incident_id, target])}
        if target not in cases:
            raise NotFound(target)
        if cases[target].closed:
            raise Conflict(f"Incident {target} is closed; alerts are moved to open incidents only.")
        _, moving, staying = await _divide(connection, incident_id, alert_ids)
        if not staying and not cases[incident_id].closed and cases[incident_id].status not in UNDECIDED:
            raise Conflict(f"A remedy of incident {incident_id} is under way; it cannot lose all its alerts now.")
        there = await alerts.members(connection, [target])
        await _move(desk, connection, moving, incident_id, target, f"moved by {caller.name}")
        await alerts.forget_split_pairs(connection, [(m.fingerprint, t.fingerprint) for m in moving for t in there])
        pairs = [(m.fingerprint, s.fingerprint) for m in moving for s in staying]
        await alerts.insert_split_pairs(connection, pairs, caller.name)
        await _close_if_over(desk, connection, incident_id, staying)
        if not staying and not cases[incident_id].closed:
            reason = f"all its alerts were moved to {target}"
            await incidents.set_status(connection, incident_id, "closed", reason=reason)
            told: dict[str, JsonValue] = {"status": "closed", "incident_id": target}
            key, now = f"status:closed:{uuid4()}", desk.clock.now()
            await incidents.add_event(connection, incident_id, key, now, "status", f"closed: {reason}", data=told)


async def _close_if_over(desk: Desk, connection: Connection, incident_id: str, staying: Sequence[Cycle]) -> None:
    """What is left of an incident may have recovered before."""
    (case,) = await alerts.cases(connection, [incident_id])
    undecided = not case.closed and not case.alone and case.status in UNDECIDED
    if staying and undecided and not any(c.state == "firing" for c in staying):
        await alerts.close_recovered(connection, [incident_id])
        await _say_recovered(desk, connection, incident_id, RECOVERED)


async def _say_recovered(desk: Desk, connection: Connection, incident_id: str, said: str) -> None:
    key, now = f"recovered:{uuid4()}", desk.clock.now()
    await incidents.add_event(connection, incident_id, key, now, "recovered", said, data={"status": "closed"})


async def _divide(
    connection: Connection, incident_id: str, alert_ids: Sequence[UUID]
) -> tuple[Row, list[Cycle], list[Cycle]]:
    """The incident, its cycles that go, and those that stay. Raises NotFound, Unusable."""
    row = await incidents.lock(connection, incident_id)
    if row is None:
        raise NotFound(incident_id)
    moving = await alerts.cycles_to_move(connection, incident_id, alert_ids)
    if not moving:
        raise Unusable(
            f"None of these alerts is in incident {incident_id}; GET /incidents/{incident_id} lists its alerts."
        )
    keys = {c.key for c in moving}
    return row, moving, [c for c in await alerts.members(connection, [incident_id]) if c.key not in keys]


async def _move(
    desk: Desk, connection: Connection, moving: Iterable[Cycle], source: str, target: str, why: str
) -> None:
    cycles = list(moving)
    await alerts.move_cycles(connection, [c.key for c in cycles], source, target, why)
    for incident_id, other, word in ((source, target, "to"), (target, source, "from")):
        await incidents.add_event(
            connection,
            incident_id,
            f"moved:{uuid4()}",
            desk.clock.now(),
            "moved",
            f"{len(cycles)} alert{'s' if len(cycles) > 1 else ''} {word} {other}, {why}: {cycles[0].title}",
            data={"incident_id": other},
        )
