"""An incident becomes a bundle: sanitised, replayed to the same suspects, a regression test with one command."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.db import create_pool, transaction
from app.desk import Desk, NotAllowed, NotFound
from app.export import ExportError, export
from app.incidents import open_by_hand
from app.queue import create_queue
from app.runner import Runner
from app.security import Caller
from app.settings import Settings
from app.store import incidents
from app.store.ledger import PostgresLedger, PostgresSnapshots
from app.unmask import originals
from collectors.base import Change, Edge, Gap, GapReason, LogLine, Scope, Series, SeriesRef, Span, Status, Telemetry
from collectors.replay import load_bundle
from graph.catalogue import Catalogue, Service
from graph.deps import Deps
from graph.llms.rules import RulesAnalyst
from graph.masking import Masker
from graph.ranking import rank
from graph.state import Alert
from tests.graph.sources import NOON, Clock, Source

KIM, ANN = Caller("kim", "responder"), Caller("ann", "admin")
MASKER = Masker(b"the key of a test")
CATALOGUE = Catalogue(services={"shop": Service(depends_on=("db",)), "db": Service()})
SECRET, PERSON = "hunter2-hunter2", "lee@example.com"


def seen(scope: Scope) -> Telemetry:
    """The database refuses connections from five to twelve on; the lines hold a password and a person."""
    began = NOON - timedelta(minutes=5)
    times = [scope.baseline[0].start + timedelta(minutes=n) for n in range(65)]
    ref = SeriesRef(source="meter", component="db", metric="connections.errors.count", statistic="sum", query="q")
    values = tuple(50.0 if at >= began else 0.0 for at in times)
    told = f"login of {PERSON} failed: password={SECRET}"
    return Telemetry(
        source="meter",
        series=(Series(ref=ref, epoch_s=tuple(at.timestamp() for at in times), values=values),),
        logs=tuple(
            LogLine(component="db", at=began + timedelta(seconds=n), level="error", message=told) for n in range(30)
        ),
        spans=(
            Span(
                component="shop",
                trace_id="t1",
                span_id="s1",
                operation="GET /",
                start_s=began.timestamp(),
                duration_ms=3,
            ),
        ),
        changes=(Change(component="db", at=began, kind="configuration", title=f"by {PERSON}", author=PERSON),),
        statuses=(Status(component="db", name="ecs.running_tasks", at=began, observed=1, expected=2),),
        edges=(Edge(caller="shop", callee="db", source="traces"),),
        gaps=(Gap(source="meter", reason=GapReason.TRUNCATED, detail="no more than that"),),
    )


class Desktop:
    """One incident, analysed."""

    def __init__(self, desk: Desk, deps: Deps, incident: str) -> None:
        self.desk, self.deps, self.incident = desk, deps, incident

    async def export(self, target: Path, *, raw: bool = False, round_: int | None = None) -> Path:
        """Into a folder."""
        async with transaction(self.desk.pool) as connection:
            return await export(connection, self.desk.settings, self.incident, round_, target, raw=raw)


@pytest.fixture
async def analysed(database_url: str) -> AsyncIterator[Desktop]:
    pool, queue, clock = create_pool(database_url), create_queue(database_url), Clock()
    async with pool, queue.open_async():
        deps = Deps(
            catalogue=CATALOGUE,
            collectors=[Source("meter", seen)],
            snapshots=PostgresSnapshots(pool),
            analyst=RulesAnalyst(),
            operations={},
            ledger=PostgresLedger(pool),
            clock=clock,
            masker=MASKER,
        )
        desk = Desk(pool, queue, CATALOGUE, clock, Settings())
        alert = Alert(
            source="t",
            title=f"{PERSON} cannot log in",
            service="shop",
            occurred_at=NOON,
            fingerprint="f",
            cycle_key="c",
        )
        opened = await open_by_hand(desk, alert, KIM, None)
        assert opened.incident_id
        await Runner(pool, deps).advance(opened.incident_id)
        yield Desktop(desk, deps, opened.incident_id)


async def test_the_bundle_replays_to_the_same_suspects(analysed: Desktop, tmp_path: Path) -> None:
    bundle = load_bundle(await analysed.export(tmp_path / "b"))
    assert bundle.manifest.sanitised
    assert bundle.alert["service"] == "shop"
    scope = Scope(
        service="shop",
        occurred_at=NOON,
        incident=bundle.manifest.incident,
        baseline=bundle.manifest.baseline,
        targets=(),
    )
    again = rank(
        [
            Telemetry(
                source="meter",
                logs=bundle.logs,
                series=bundle.series,
                spans=bundle.spans,
                changes=bundle.changes,
                statuses=bundle.statuses,
                edges=bundle.edges,
            )
        ],
        scope,
        Alert.model_validate(bundle.alert),
    )
    async with analysed.desk.pool.connection() as connection:
        [analysis] = await incidents.analyses(connection, analysed.incident)
    assert [s.component for s in again.suspects] == [s["component"] for s in analysis["evidence"]["suspects"]]
    assert [s.score for s in again.suspects] == [s["score"] for s in analysis["evidence"]["suspects"]]
    assert bundle.gaps[0].detail == "no more than that"


async def test_it_is_sanitised_unless_told_otherwise(analysed: Desktop, tmp_path: Path) -> None:
    clean = load_bundle(await analysed.export(tmp_path / "clean")).model_dump_json()
    assert SECRET not in clean
    assert PERSON not in clean
    raw = load_bundle(await analysed.export(tmp_path / "raw", raw=True))
    assert SECRET in raw.model_dump_json()
    assert PERSON in str(raw.alert["title"])
    assert not raw.manifest.sanitised


async def test_the_same_incident_gives_the_same_bytes(analysed: Desktop, tmp_path: Path) -> None:
    one, other = await analysed.export(tmp_path / "one"), await analysed.export(tmp_path / "other")
    names = sorted(file.name for file in one.iterdir())
    assert names == sorted(file.name for file in other.iterdir())
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


async def test_what_cannot_be_exported_is_said(analysed: Desktop, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there are: 1"):
        await analysed.export(tmp_path / "b", round_=7)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(ExportError, match="not empty"):
        await analysed.export(tmp_path / "full")
    analysed.incident = "INC-none"
    with pytest.raises(NotFound):
        await analysed.export(tmp_path / "b")


async def test_who_is_allowed_sees_what_is_masked_and_the_timeline_says_so(analysed: Desktop) -> None:
    desk = analysed.desk
    async with desk.pool.connection() as connection:
        [analysis] = await incidents.analyses(connection, analysed.incident)
    finding = next(f for f in analysis["evidence"]["findings"] if f["kind"] == "log")
    told = json.dumps(analysis["evidence"])
    assert PERSON not in told, told[told.index(PERSON) - 300 : told.index(PERSON) + 100]
    assert SECRET not in json.dumps(analysis["evidence"])
    found = await originals(desk, MASKER, analysed.incident, finding["id"], ANN)
    assert sorted(found.values()) == sorted([SECRET, PERSON])
    assert all(placeholder in finding["excerpt"] for placeholder in found)
    async with desk.pool.connection() as connection:
        events = await incidents.events(connection, analysed.incident)
    assert [e["message"] for e in events if e["kind"] == "unmasked"] == [
        f"ann looked at what is masked in {finding['id']}"
    ]
    with pytest.raises(NotAllowed):
        await originals(desk, MASKER, analysed.incident, finding["id"], KIM)
    with pytest.raises(NotFound):
        await originals(desk, MASKER, analysed.incident, "E999", ANN)
