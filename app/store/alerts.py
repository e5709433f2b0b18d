"""Raw deliveries, the alerts made of them, and their cycles; a batch at a time. Functions never commit."""

import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from pydantic import JsonValue

from app.db import Connection, Row
from app.intake.triage import Case, Cycle, Happening
from app.store.outbox import TELL_WRITTEN
from collectors.base import Change
from graph.state import Alert, Language

TRIAGE_LOCK = 4_242_002  # held by whoever places alerts: two at once could open two incidents of one fault
KEPT_HEADERS = ("content-type", "user-agent", "x-request-id")  # never one that may carry a secret
CYCLE = (
    "cycle_key, fingerprint, rule, service, environment, resources, title, state, changed_at, fired_at,"
    " incident_id, flaps"
)


class RawRow(NamedTuple):
    """A delivery as it came."""

    id: UUID
    sender: str
    part: str
    headers: Mapping[str, str]
    body: bytes
    delivery_key: str | None
    parse_error: str | None
    note: str


class AlertRow(NamedTuple):
    """A parsed alert and where it went."""

    id: UUID
    raw_id: UUID | None
    incident_id: str | None
    alert: Alert
    why: str
    score: float | None


# --- raw deliveries ---


async def insert_raw(connection: Connection, rows: Sequence[RawRow]) -> set[UUID]:
    """Store deliveries as they came; the ids of those that are new, without the ones that were stored before."""
    found = await connection.execute(
        """insert into raw_delivery (id, sender, part, headers, body, delivery_key, parse_error, note)
           select id, sender, part, headers, decode(body, 'base64'), delivery_key, parse_error, note
           from json_to_recordset(%s::json) as new (id uuid, sender text, part text, headers jsonb, body text,
               delivery_key text, parse_error text, note text)
           on conflict (delivery_key) do nothing returning id""",
        (
            json.dumps(
                [
                    {
                        **row._asdict(),
                        "id": str(row.id),
                        "headers": {n: row.headers[n] for n in KEPT_HEADERS if n in row.headers},
                        "body": b64encode(row.body).decode(),
                    }
                    # In one order everywhere: who inserts the same keys the other way round would wait for ever.
                    for row in sorted(rows, key=lambda row: row.delivery_key or "")
                ]
            ),
        ),
    )
    return {row["id"] for row in await found.fetchall()}


async def first_of(connection: Connection, delivery_keys: Sequence[str]) -> dict[str, tuple[UUID, str | None]]:
    """The first copy of each of these deliveries, and the incident it went to."""
    rows = await _all(
        connection,
        """select distinct on (r.delivery_key) r.delivery_key, r.id, a.incident_id
           from raw_delivery r left join alert a on a.raw_id = r.id
           where r.delivery_key = any(%s) order by r.delivery_key, a.incident_id is null, a.received_at""",
        delivery_keys,
    )
    return {row["delivery_key"]: (row["id"], row["incident_id"]) for row in rows}


async def raw(connection: Connection, raw_id: UUID) -> Row | None:
    """One delivery, with its body."""
    rows = await _all(connection, "select * from raw_delivery where id = %s", raw_id)
    return rows[0] if rows else None


async def dead_letters(connection: Connection, limit: int, before: tuple[datetime, UUID] | None = None) -> list[Row]:
    """Deliveries that nobody could read yet, newest first."""
    return await _all(
        connection,
        """select id, sender, part, received_at, headers, parse_error, substring(body from 1 for 4000) as body
           from raw_delivery
           where parse_error is not null and (received_at, id) < (%s, %s)
           order by received_at desc, id desc limit %s""",
        *(before or ("infinity", UUID(int=2**128 - 1))),
        limit,
    )


async def dead_letter_ids(connection: Connection, since: datetime | None) -> list[UUID]:
    """Dead letters to try again, oldest first."""
    rows = await _all(
        connection,
        """select id from raw_delivery
           where parse_error is not null and received_at >= coalesce(%s::timestamptz, '-infinity')
           order by received_at""",
        since,
    )
    return [row["id"] for row in rows]


async def count_dead_letters(connection: Connection) -> int:
    """Deliveries that nobody could read yet."""
    rows = await _all(connection, "select count(*) as n from raw_delivery where parse_error is not null")
    return int(rows[0]["n"])


async def mark_unreadable(connection: Connection, raw_id: UUID, why: str) -> None:
    """A stored delivery that turned out not to be usable."""
    await connection.execute("update raw_delivery set parse_error = %s where id = %s", (why, raw_id))


async def mark_read(connection: Connection, raw_id: UUID, note: str) -> None:
    """A dead letter that could be read now."""
    await connection.execute(
        "update raw_delivery set parse_error = null, note = %s, replayed_at = clock_timestamp() where id = %s",
        (note, raw_id),
    )


# --- alerts ---


async def insert_alerts(connection: Connection, rows: Sequence[AlertRow]) -> None:
    """Store alerts with the incidents they went to."""
    await connection.execute(
        """insert into alert (id, raw_id, incident_id, merge_reason, score, transition, fingerprint, cycle_key, body)
           select id, raw_id, incident_id, why, score, transition, fingerprint, cycle_key, body::jsonb
           from json_to_recordset(%s::json) as new (id uuid, raw_id uuid, incident_id text, why text, score real,
               transition text, fingerprint text, cycle_key text, body text)""",
        (
            json.dumps(
                [
                    {
                        "id": str(r.id),
                        "raw_id": str(r.raw_id) if r.raw_id else None,
                        "incident_id": r.incident_id,
                        "why": r.why,
                        "score": r.score,
                        "transition": r.alert.transition,
                        "fingerprint": r.alert.fingerprint,
                        "cycle_key": r.alert.cycle_key,
                        "body": r.alert.model_dump_json(),
                    }
                    for r in rows
                ]
            ),
        ),
    )


async def adopt(connection: Connection, adopted: Mapping[str, str]) -> None:
    """Give alerts that came before their cycle had an incident to the one it has now."""
    await connection.execute(
        """update alert a set incident_id = n.incident_id, merge_reason = 'it was here before its trigger'
           from unnest(%s::text[], %s::text[]) as n (cycle_key, incident_id)
           where a.cycle_key = n.cycle_key and a.incident_id is null
             and a.received_at > now() - interval '1 hour'""",
        (list(adopted), list(adopted.values())),
    )


async def insert_changes(connection: Connection, rows: Sequence[tuple[UUID, Change]]) -> None:
    """Store deployments and the like."""
    await connection.execute(
        """insert into received_change (raw_id, component, at, body)
           select * from unnest(%s::uuid[], %s::text[], %s::timestamptz[], %s::jsonb[])""",
        (
            [raw_id for raw_id, _ in rows],
            [change.component for _, change in rows],
            [change.at for _, change in rows],
            [change.model_dump_json() for _, change in rows],
        ),
    )


async def get(connection: Connection, alert_id: UUID) -> Row | None:
    """One alert, and the delivery it came in."""
    rows = await _all(connection, "select * from alert where id = %s", alert_id)
    return rows[0] if rows else None


async def page(
    connection: Connection,
    limit: int,
    before: tuple[datetime, UUID] | None,
    *,
    incident_id: str | None,
    unplaced: bool,
    fingerprint: str | None,
) -> list[Row]:
    """Alerts, newest first."""
    return await _all(
        connection,
        """select id, incident_id, transition, fingerprint, cycle_key, merge_reason, score, received_at, body from alert
           where (received_at, id) < (%s, %s) and (%s::text is null or incident_id = %s)
             and (not %s or incident_id is null) and (%s::text is null or fingerprint = %s)
           order by received_at desc, id desc limit %s""",
        *(before or ("infinity", UUID(int=2**128 - 1))),
        incident_id,
        incident_id,
        unplaced,
        fingerprint,
        fingerprint,
        limit,
    )


# --- triage: what a batch may have to do with ---


async def take_turns(connection: Connection) -> None:
    """Wait until nobody else places alerts; released with the transaction."""
    await connection.execute("select pg_advisory_xact_lock(%s)", (TRIAGE_LOCK,))


async def cycles_of(connection: Connection, keys: Sequence[str], fingerprints: Sequence[str]) -> list[Cycle]:
    """The cycles by key, and the newest ones of the same rules and resources."""
    return _cycles(
        await _all(
            connection,
            f"""select {CYCLE} from alert_cycle where cycle_key = any(%s)
                union select c.* from unnest(%s::text[]) f (fingerprint) cross join lateral (
                    select {CYCLE} from alert_cycle a where a.fingerprint = f.fingerprint
                    order by changed_at desc limit 20) c""",  # noqa: S608  no outside text in it
            keys,
            fingerprints,
        )
    )


async def incidents_near(
    connection: Connection, services: Sequence[str], resources: Sequence[str], since: datetime, until: datetime
) -> list[str]:
    """Incidents, open or recovered, with an alert near enough for another one to belong to them."""
    by_resource = """union select incident_id from alert_cycle where resources && %(resources)s::text[]
                   and fired_at between %(since)s and %(until)s"""
    rows = await _all(
        connection,
        f"""select distinct i.id from (
               select incident_id from alert_cycle where service = any(%(services)s)
                   and fired_at between %(since)s and %(until)s
               {by_resource if resources else ""}) c
           join incident i on i.id = c.incident_id where (i.closed_at is null or i.recovered) and i.asked_by = ''""",  # noqa: S608  no outside text in it
        {"services": services, "resources": resources, "since": since, "until": until},
    )
    return [row["id"] for row in rows]


async def members(connection: Connection, incident_ids: Sequence[str]) -> list[Cycle]:
    """The cycles of these incidents, the newest of each rule and resource, one that fires first."""
    return _cycles(
        await _all(
            connection,
            f"""select distinct on (incident_id, fingerprint) {CYCLE} from alert_cycle where incident_id = any(%s)
                order by incident_id, fingerprint, state, fired_at desc nulls last""",  # noqa: S608  the same
            incident_ids,
        )
    )


async def cases(connection: Connection, incident_ids: Iterable[str]) -> list[Case]:
    """These incidents, locked until the transaction ends."""
    rows = await _all(
        connection,
        """select id, status, severity, closed_at is not null as closed, recovered, asked_by, flaps from incident
           where id = any(%s) order by id for no key update""",
        sorted(incident_ids),
    )
    return [
        Case(
            id=r["id"],
            status=r["status"],
            severity=r["severity"],
            closed=r["closed"],
            recovered=r["recovered"],
            alone=bool(r["asked_by"]),
            flaps=r["flaps"],
        )
        for r in rows
    ]


async def split_pairs(connection: Connection, fingerprints: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs a person took apart, one of each being among these."""
    query = "select one, other from split_pair where one = any(%s) or other = any(%s)"
    return [(r["one"], r["other"]) for r in await _all(connection, query, fingerprints, fingerprints)]


# --- triage: what it changed ---


async def save_cycles(connection: Connection, cycles: Sequence[Cycle]) -> None:
    """Insert or replace."""
    await connection.execute(
        f"""insert into alert_cycle ({CYCLE})
            select cycle_key, fingerprint, rule, service, environment,
                   array(select json_array_elements_text(resources)), title, state, changed_at, fired_at, incident_id,
                   flaps
            from json_to_recordset(%s::json) as new (cycle_key text, fingerprint text, rule text, service text,
                environment text, resources json, title text, state text, changed_at timestamptz, fired_at timestamptz,
                incident_id text, flaps int)
            on conflict (cycle_key) do update set state = excluded.state, changed_at = excluded.changed_at,
                fired_at = excluded.fired_at, incident_id = excluded.incident_id, flaps = excluded.flaps,
                title = excluded.title""",  # noqa: S608  the same
        (
            json.dumps(
                [
                    {
                        "cycle_key": c.key,
                        "fingerprint": c.fingerprint,
                        "rule": c.rule,
                        "service": c.service,
                        "environment": c.environment,
                        "resources": sorted(c.resources),
                        "title": c.title,
                        "state": c.state,
                        "changed_at": c.changed_at.isoformat(),
                        "fired_at": c.fired_at.isoformat() if c.fired_at else None,
                        "incident_id": c.incident_id,
                        "flaps": c.flaps,
                    }
                    for c in cycles
                ]
            ),
        ),
    )


async def insert_incidents(
    connection: Connection, opened: Sequence[Case], environment: str, waits: str = "", *, language: Language = "en"
) -> None:
    """New incidents; one whose recovery came first is closed already. ``waits``: why the others cannot begin;
    ``language``: of their reports, where nobody asked for another.
    """
    await connection.execute(
        """insert into incident (id, service, title, severity, source, environment, occurred_at, alert, opened_by,
               asked_by, follows, language, status, status_reason, recovered, closed_at)
           select id, service, title, severity, source, environment, occurred_at, alert::jsonb, opened_by, asked_by,
               follows, language, case when over then 'closed' else 'received' end,
               case when over then 'recovered by itself' else waits end, over, case when over then clock_timestamp() end
           from json_to_recordset(%s::json) as new (id text, service text, title text, severity text, source text,
               environment text, occurred_at timestamptz, alert text, opened_by text, asked_by text, follows text,
               language text, over bool, waits text)""",
        (json.dumps([_incident(c, c.alert, environment, language) | {"waits": waits} for c in opened if c.alert]),),
    )


def _incident(case: Case, alert: Alert, environment: str, language: Language) -> dict[str, JsonValue]:
    return {
        "id": case.id,
        "service": alert.service,
        "title": alert.title,
        "severity": case.severity,
        "source": alert.source,
        "environment": alert.environment or environment,
        "occurred_at": alert.occurred_at.isoformat(),
        "alert": alert.model_dump_json(),
        "opened_by": case.asked_by or alert.source,
        "asked_by": case.asked_by,
        "follows": case.follows,
        "language": case.language or language,
        "over": case.closed,
    }


async def close_recovered(connection: Connection, incident_ids: Sequence[str]) -> None:
    """All their alerts recovered, and nobody had decided yet."""
    await connection.execute(
        """update incident set status = 'closed', status_reason = 'recovered by itself', recovered = true,
               plan_revision = null, updated_at = clock_timestamp(), closed_at = clock_timestamp()
           where id = any(%s) and closed_at is null""",
        (incident_ids,),
    )


async def reopen(connection: Connection, incident_ids: Sequence[str]) -> list[str]:
    """An alert came back soon after its recovery; those that were analysed before, and have to be shown again."""
    rows = await _all(
        connection,
        """update incident set status = 'received', status_reason = '', recovered = false, closed_at = null,
               reopened = reopened + 1, held_by = null, held_until = null, updated_at = clock_timestamp(),
               -- what was analysed is shown again; the others wait for their turn again
               admitted_at = case when exists (select 1 from analysis a where a.incident_id = incident.id
                                               and a.plan is not null) then admitted_at end
           where id = any(%s) returning id, admitted_at""",
        incident_ids,
    )
    return [row["id"] for row in rows if row["admitted_at"]]


async def touch(connection: Connection, cases: Sequence[Case]) -> None:
    """The severity and the number of flaps are as triage says."""
    await connection.execute(
        """update incident i set severity = n.severity, flaps = n.flaps
           from unnest(%s::text[], %s::text[], %s::int[]) as n (id, severity, flaps) where i.id = n.id""",
        ([c.id for c in cases], [c.severity for c in cases], [c.flaps for c in cases]),
    )


async def insert_happenings(
    connection: Connection, happenings: Sequence[Happening], keys: Sequence[str], at: datetime
) -> None:
    """Lines of timelines, and of the outbox where people hear of them."""
    await connection.execute(
        f"""with written as (
                insert into event (incident_id, key, at, kind, message, data)
                select incident_id, key, %s, kind, message, data
                from json_to_recordset(%s::json) as new
                    (incident_id text, key text, kind text, message text, data jsonb)
                on conflict do nothing returning id, incident_id, kind, data)
            {TELL_WRITTEN}""".encode(),  # noqa: S608  no outside text in it
        (
            at,
            json.dumps(
                [
                    {
                        "incident_id": h.incident_id,
                        "key": key,
                        "kind": h.kind,
                        "message": h.message,
                        "data": dict(h.data),
                    }
                    for h, key in zip(happenings, keys, strict=True)
                ]
            ),
        ),
    )


# --- a person moves alerts ---


async def cycles_to_move(connection: Connection, incident_id: str, alert_ids: Sequence[UUID]) -> list[Cycle]:
    """The cycles of these alerts, as far as they are this incident's."""
    return _cycles(
        await _all(
            connection,
            f"""select {CYCLE} from alert_cycle where incident_id = %s
                and cycle_key in (select cycle_key from alert where id = any(%s) and incident_id = %s)""",  # noqa: S608
            incident_id,
            alert_ids,
            incident_id,
        )
    )


async def move_cycles(connection: Connection, keys: Sequence[str], source: str, target: str, why: str) -> None:
    """Give cycles, and their alerts, to another incident."""
    await connection.execute(
        "update alert_cycle set incident_id = %s where cycle_key = any(%s) and incident_id = %s", (target, keys, source)
    )
    await connection.execute(
        """update alert set incident_id = %s, merge_reason = %s, score = null
           where cycle_key = any(%s) and incident_id = %s""",
        (target, why, keys, source),
    )


async def newest_trigger(connection: Connection, cycle_keys: Sequence[str]) -> Row | None:
    """The first trigger among the alerts of these cycles: what a split-off incident is opened with."""
    rows = await _all(
        connection,
        """select body from alert where cycle_key = any(%s)
           order by (transition in ('firing', 'no_data')) desc, received_at limit 1""",
        cycle_keys,
    )
    return rows[0] if rows else None


async def insert_split_pairs(connection: Connection, pairs: Iterable[tuple[str, str]], by: str) -> None:
    """Never merge these again."""
    ordered = sorted({(min(p), max(p)) for p in pairs if p[0] != p[1]})
    await connection.execute(
        """insert into split_pair (one, other, by) select one, other, %s
           from unnest(%s::text[], %s::text[]) as new (one, other) on conflict do nothing""",
        (by, [one for one, _ in ordered], [other for _, other in ordered]),
    )


async def forget_split_pairs(connection: Connection, pairs: Iterable[tuple[str, str]]) -> None:
    """A person put them together again."""
    ordered = sorted({(min(p), max(p)) for p in pairs})
    await connection.execute(
        """delete from split_pair s using unnest(%s::text[], %s::text[]) as o (one, other)
           where s.one = o.one and s.other = o.other""",
        ([one for one, _ in ordered], [other for _, other in ordered]),
    )


# --- what the webhooks missed ---


async def unheard(connection: Connection, found: Sequence[Alert]) -> list[Alert]:
    """Those of these alerts that neither their own cycle nor another one of the same rule and resource knows."""
    rows = await _all(
        connection,
        """select n.position from unnest(%s::int[], %s::text[], %s::text[], %s::timestamptz[])
               as n (position, cycle_key, fingerprint, at)
           where not exists (select 1 from alert_cycle c where c.cycle_key = n.cycle_key and c.changed_at >= n.at)
             and not exists (select 1 from alert_cycle c where c.fingerprint = n.fingerprint
                             and (c.changed_at >= n.at or (c.state = 'firing' and exists (
                                 select 1 from incident i where i.id = c.incident_id and i.closed_at is null))))""",
        list(range(len(found))),
        [a.cycle_key for a in found],
        [a.fingerprint for a in found],
        [a.changed_at or a.occurred_at for a in found],
    )
    return [found[row["position"]] for row in rows]


# --- context ---


async def changes_between(
    connection: Connection, components: Sequence[str], since: datetime, until: datetime
) -> list[Change]:
    """Changes that were told to us, oldest first."""
    rows = await _all(
        connection,
        """select body from received_change where component = any(%s) and at between %s and %s order by at limit 500""",
        components,
        since,
        until,
    )
    return [Change.model_validate(row["body"]) for row in rows]


async def save_edges(connection: Connection, edges: Iterable[tuple[str, str]]) -> None:
    """Who was seen calling whom, now."""
    ordered = sorted(set(edges))
    await connection.execute(
        """insert into observed_edge (caller, callee) select * from unnest(%s::text[], %s::text[])
           on conflict (caller, callee) do update set seen_at = excluded.seen_at""",
        ([a for a, _ in ordered], [b for _, b in ordered]),
    )


async def observed_edges(connection: Connection) -> list[tuple[str, str]]:
    """Who was seen calling whom, within 30 days."""
    rows = await _all(
        connection,
        "select caller, callee from observed_edge where seen_at > now() - interval '30 days' limit 20000",
    )
    return [(row["caller"], row["callee"]) for row in rows]


def _cycles(rows: Iterable[Row]) -> list[Cycle]:
    return [Cycle(key=row.pop("cycle_key"), resources=frozenset(row.pop("resources")), **row) for row in rows]


async def _all(connection: Connection, query: str, *values: object) -> list[Row]:
    parameters = values[0] if len(values) == 1 and isinstance(values[0], dict) else values
    return await (await connection.execute(query.encode(), parameters)).fetchall()
