"""An incident becomes a bundle: sanitised, replayed to the same suspects, a regression test with one command."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
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
from app.store.alerts import observed_edges
from app.store.ledger import PostgresLedger, PostgresSnapshots, latest_looks
from app.unmask import originals
from collectors.base import (
    Change,
    Edge,
    Gap,
    GapReason,
    LogLine,
    Scope,
    Series,
    SeriesRef,
    Span,
    Status,
    Telemetry,
    Unreachable,
)
from collectors.replay import load_bundle
from graph.catalogue import Catalogue, Service
from graph.deps import Deps
from graph.llms.rules import RulesAnalyst
from graph.masking import Masker
from graph.ranking import rank
from graph.state import Alert
from tests import processes
from tests.graph.sources import NOON, Clock, Source, errors

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


@asynccontextmanager
async def desktop(database_url: str, sources: Sequence[Source]) -> AsyncIterator[Desktop]:
    pool, queue, clock = create_pool(database_url), create_queue(database_url), Clock()
    async with pool, queue.open_async():
        deps = Deps(
            catalogue=CATALOGUE,
            collectors=sources,
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
            resources={"user": PERSON},
            url=f"https://example.com/?password={SECRET}",
            service="shop",
            occurred_at=NOON,
            fingerprint="f",
            cycle_key="c",
        )
        opened = await open_by_hand(desk, alert, KIM, None)
        assert opened.incident_id
        await Runner(pool, deps).advance(opened.incident_id)
        yield Desktop(desk, deps, opened.incident_id)


@pytest.fixture
async def analysed(database_url: str) -> AsyncIterator[Desktop]:
    async with desktop(database_url, [Source("meter", seen)]) as opened:
        yield opened


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


def only_once(source: Source, found: Telemetry) -> Telemetry:
    """The second look fails."""
    if len(source.scopes) > 1:
        raise Unreachable("gone")
    return found


def deployed(scope: Scope) -> Telemetry:
    """Usual lines, and a change."""
    line = LogLine(component="db", at=NOON - timedelta(minutes=30), level="warning", message="checkpoint is slow")
    lines = tuple(replace(line, at=line.at + timedelta(seconds=30 * n)) for n in range(60))
    return Telemetry(source="logs", logs=lines, changes=seen(scope).changes)


async def test_what_was_read_in_the_first_look_only_is_left_out_as_in_the_evidence(
    database_url: str, tmp_path: Path
) -> None:
    meter = Source("meter", partial(errors, since=NOON - timedelta(minutes=11), source="meter"))
    logs = Source("logs", lambda scope: only_once(logs, deployed(scope)))
    async with desktop(database_url, [meter, logs]) as opened:
        bundle = load_bundle(await opened.export(tmp_path / "b"))
    assert bundle.manifest.incident == meter.scopes[1].incident
    assert bundle.logs == ()
    assert [(c.component, c.kind) for c in bundle.changes] == [("db", "configuration")]
    assert [(g.source, g.detail) for g in bundle.gaps] == [
        ("logs", "gone"),
        ("logs", "metrics, logs and spans were read the first time only, not further back, and are left out"),
    ]


async def test_if_the_second_look_showed_nothing_the_bundle_is_of_the_first(database_url: str, tmp_path: Path) -> None:
    found = partial(errors, since=NOON - timedelta(minutes=11), source="meter")
    meter = Source("meter", lambda scope: only_once(meter, found(scope)))
    async with desktop(database_url, [meter]) as opened:
        bundle = load_bundle(await opened.export(tmp_path / "b"))
    assert len(meter.scopes) == 2
    assert bundle.manifest.incident == meter.scopes[0].incident
    assert [s.ref.metric for s in bundle.series] == ["http.errors.count"]


async def test_names_that_postgres_cannot_index_do_not_stop_an_incident(database_url: str) -> None:
    names = ["shop", "a\x00b", "x" * 100_000, ""]
    edges = tuple(Edge(caller="web", callee=name, source="traces") for name in names)
    source = Source("traces", lambda scope: Telemetry(source="traces", edges=edges))
    async with desktop(database_url, [source]) as opened, opened.desk.pool.connection() as connection:
        assert await observed_edges(connection) == [("web", "shop")]
        [kept] = await latest_looks(connection, opened.incident, 1)
    assert kept.edges == edges


async def test_secrets_in_what_a_source_says_do_not_reach_the_timeline(database_url: str) -> None:
    def refused(scope: Scope) -> Telemetry:
        raise Unreachable(f"401 for {PERSON}, password={SECRET}")

    async with desktop(database_url, [Source("meter", refused)]) as opened, opened.desk.pool.connection() as connection:
        told = [e for e in await incidents.events(connection, opened.incident) if e["kind"] == "collector_finished"]
    assert "meter: 1 gap: 401 for [" in told[0]["message"]
    assert SECRET not in str(told)
    assert PERSON not in str(told)


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


async def test_one_command_writes_it(analysed: Desktop, database_url: str, tmp_path: Path) -> None:
    said, target = tmp_path / "said.txt", tmp_path / "bundle"
    environment = {"DATABASE_URL": database_url}
    command = ("export", analysed.incident, "--out", str(target))
    process = processes.spawn(processes.run_command, said, environment, *command)
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode == 0, said.read_text()
    assert f"Bundle: {target} (sanitised" in said.read_text()
    assert load_bundle(target).manifest.sanitised
    process = processes.spawn(processes.run_command, said, environment, *command)
    await asyncio.to_thread(process.join, 60)
    assert process.exitcode != 0
    assert "is not empty; name another with --out" in said.read_text()
