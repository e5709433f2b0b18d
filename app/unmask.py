"""What stood behind the placeholders of a piece of evidence: for those who are allowed, from our own store."""

import asyncio
from collections.abc import Iterator, Mapping

from app.db import transaction
from app.desk import Desk, NotFound, require
from app.security import Caller
from app.store import incidents
from app.store.ledger import latest_looks, read_for_analysts
from graph.masking import Masker
from graph.state import Evidence


async def originals(desk: Desk, masker: Masker, incident_id: str, eid: str, caller: Caller) -> dict[str, str]:
    """By placeholder, as far as the stored telemetry has it. Who asked is in the timeline.

    Raises NotFound, NotAllowed.
    """
    require(caller, "admin", "see what is masked")
    async with transaction(desk.pool) as connection:
        analyses = await incidents.analyses(connection, incident_id)
        last = next((a for a in reversed(analyses) if a["evidence"]), None)
        finding = Evidence.model_validate(last["evidence"]).finding(eid) if last else None
        if last is None or finding is None:
            raise NotFound(f"{incident_id}/evidence/{eid}", "evidence")
        now = desk.clock.now()
        said = f"{caller.name} looked at what is masked in {eid}"
        key = f"unmasked:{eid}:{caller.name}:{now.isoformat()}"
        await incidents.add_event(connection, incident_id, key, now, "unmasked", said, data={"by": caller.name})
        telemetry = [
            *await latest_looks(connection, incident_id, last["round"]),
            *await read_for_analysts(connection, incident_id, last["round"], finding.source),
        ]
    seen = [t.model_dump() for t in telemetry if t.source == finding.source]
    wanted = masker.placeholders(f"{finding.summary}\n{finding.excerpt}\n{finding.signal}\n{finding.link}")
    return await asyncio.to_thread(masker.originals, _texts(seen), wanted)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
