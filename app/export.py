"""``autopilot export``: an incident as a bundle that the collector ``replay`` and ``tests/scenarios`` read."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from app.catalogue import load
from app.db import Connection
from app.desk import NotFound
from app.settings import Settings
from app.store import incidents
from app.store.installation import masking_key
from app.store.ledger import latest_looks
from app.wiring import create_masker
from collectors.base import Scope, Telemetry
from collectors.replay import Manifest, write_bundle
from graph.masking import Masker, MaskingError
from graph.state import Alert, Evidence


class ExportError(Exception):
    """The incident cannot be exported; the text says why."""


@dataclass(frozen=True)
class Recorded:
    """What was seen of an incident in one round of its analysis."""

    incident_id: str
    alert: Alert
    scope: Scope
    evidence: Evidence
    telemetry: Sequence[Telemetry]


async def recorded(connection: Connection, incident_id: str, round_: int | None) -> Recorded:
    """The last round, or the one that is asked for. Raises NotFound, ExportError."""
    row = await incidents.get(connection, incident_id)
    if row is None:
        raise NotFound(incident_id)
    rounds = [a for a in await incidents.analyses(connection, incident_id) if a["evidence"]]
    chosen = next((a for a in reversed(rounds) if round_ in (None, a["round"])), None)
    if chosen is None:
        there = ", ".join(str(a["round"]) for a in rounds) or "none yet: its telemetry is still being collected"
        raise ExportError(f"{incident_id} has no such round of analysis; there are: {there}")
    return Recorded(
        incident_id=incident_id,
        alert=Alert.model_validate(row["alert"]),
        scope=Scope.model_validate(chosen["scope"]),
        evidence=Evidence.model_validate(chosen["evidence"]),
        telemetry=await latest_looks(connection, incident_id, chosen["round"]),
    )


def write(found: Recorded, directory: Path, masker: Masker | None) -> Path:
    """Write the bundle; ``masker``: what takes secrets and personal data out, None to keep them. Raises ExportError."""
    if directory.exists() and any(directory.iterdir()):
        raise ExportError(f"{directory} is not empty; name another with --out")
    looked_at = found.evidence.looked_at
    telemetry = [masker.masked_telemetry(t) for t in found.telemetry] if masker else found.telemetry
    alert = masker.mask_model(found.alert) if masker else found.alert
    body: Mapping[str, object] = alert.model_dump(mode="json", exclude_defaults=True)
    return write_bundle(
        directory,
        Manifest(
            title=alert.title,
            recorded_from=f"incident {found.incident_id} of AIOps Auto Pilot",
            incident=looked_at.incident if looked_at else found.scope.incident,
            baseline=looked_at.baseline if looked_at else found.scope.baseline,
            seasonal=looked_at.seasonal if looked_at else (),
            sanitised=masker is not None,
        ),
        dict(body),  # type: ignore[arg-type]
        logs=sorted(chain.from_iterable(t.logs for t in telemetry), key=lambda line: line.at),
        series=chain.from_iterable(t.series for t in telemetry),
        spans=chain.from_iterable(t.spans for t in telemetry),
        changes=chain.from_iterable(t.changes for t in telemetry),
        edges=dict.fromkeys((*found.scope.edges, *chain.from_iterable(t.edges for t in telemetry))),
        statuses=chain.from_iterable(t.statuses for t in telemetry),
        documents=chain.from_iterable(t.documents for t in telemetry),
        gaps=found.evidence.gaps,
    )


async def export(
    connection: Connection, settings: Settings, incident_id: str, round_: int | None, directory: Path, *, raw: bool
) -> Path:
    """Read the incident and write its bundle. Raises NotFound, ExportError, OSError, CatalogueError."""
    found = await recorded(connection, incident_id, round_)
    masker = None if raw else create_masker(settings, load(settings.config), await masking_key(connection))
    try:
        return await asyncio.to_thread(write, found, directory, masker)
    except MaskingError as error:
        raise ExportError(f"{incident_id} cannot be sanitised, so nothing was written: {error}") from error
