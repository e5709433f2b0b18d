"""Raw deliveries, dead letters and the alerts made of them. Functions never commit."""

from collections.abc import Mapping
from uuid import UUID

from psycopg.types.json import Jsonb

from app.db import Connection
from graph.state import Alert

KEPT_HEADERS = ("content-type", "user-agent", "x-request-id")  # never one that may carry a secret


async def insert_raw(
    connection: Connection,
    sender: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    delivery_key: str | None = None,
    parse_error: str | None = None,
) -> UUID | None:
    """The delivery as it came; None if the same delivery is stored already."""
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    row = await (
        await connection.execute(
            """insert into raw_delivery (sender, headers, body, delivery_key, parse_error)
               values (%s, %s, %s, %s, %s) on conflict (delivery_key) do nothing returning id""",
            (sender, Jsonb(kept), body, delivery_key, parse_error),
        )
    ).fetchone()
    return row["id"] if row else None


async def insert_alert(
    connection: Connection,
    alert: Alert,
    *,
    raw_id: UUID | None,
    incident_id: str | None,
    merge_reason: str = "",
) -> UUID:
    """One parsed alert."""
    row = await (
        await connection.execute(
            """insert into alert (raw_id, incident_id, merge_reason, transition, fingerprint, cycle_key, body)
               values (%s, %s, %s, %s, %s, %s, %s) returning id""",
            (
                raw_id,
                incident_id,
                merge_reason,
                alert.transition,
                alert.fingerprint,
                alert.cycle_key,
                Jsonb(alert.model_dump(mode="json")),
            ),
        )
    ).fetchone()
    assert row is not None
    alert_id: UUID = row["id"]
    return alert_id


async def incident_of_delivery(connection: Connection, delivery_key: str) -> str | None:
    """The incident an earlier copy of this delivery went to."""
    row = await (
        await connection.execute(
            """select a.incident_id from raw_delivery r join alert a on a.raw_id = r.id
               where r.delivery_key = %s limit 1""",
            (delivery_key,),
        )
    ).fetchone()
    return row["incident_id"] if row else None
