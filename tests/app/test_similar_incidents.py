"""From the memory through the graph to the report: an incident that looks like an earlier one says so."""

from datetime import timedelta
from functools import partial

from app.report import Report, build
from app.report_markdown import markdown
from app.runner import Runner
from app.store import incidents
from app.store.ledger import PostgresLedger, PostgresSnapshots
from graph.catalogue import Catalogue, Service
from graph.deps import Deps
from graph.llms.rules import RulesAnalyst
from graph.state import Evidence, RootCause
from tests.app.archive import NOW, Archive, evidence
from tests.app.test_alerts import at_work
from tests.graph.sources import Source, errors


async def investigated(archive: Archive, incident: str) -> Report:
    """Its report, once the graph has brought it to a person."""
    pool, clock = archive.office.pool, archive.office.desk.clock
    source = Source("metrics", partial(errors, since=NOW - timedelta(minutes=8), source="metrics"))
    deps = Deps(
        catalogue=Catalogue(services={"shop": Service()}),
        collectors=(source,),
        snapshots=PostgresSnapshots(pool),
        analyst=RulesAnalyst(),
        operations={},
        ledger=PostgresLedger(pool),
        clock=clock,
        past=archive.past,
    )
    await Runner(pool, deps).advance(incident)
    async with pool.connection() as connection:
        row = await incidents.get(connection, incident)
        assert row is not None
        return build(row, await incidents.analyses(connection, incident), [], [], [])


async def test_the_second_incident_of_an_alert_tells_of_the_first(database_url: str) -> None:
    async with at_work(database_url) as office:
        archive = Archive(office)
        alone = await investigated(archive, await archive.open("other", occurred_at=NOW))
        first = await archive.ended("shop", "unknown", verdict="resolved", seen=evidence("shop", "PoolTimeoutError"))
        second = await investigated(archive, await archive.open(occurred_at=NOW))
    assert alone.similar == ()
    (past,) = second.similar
    assert (past.incident_id, past.component, past.verdict) == (first, "shop", "resolved")
    assert past.reasons
    told = second.evidence[-1]
    assert (told.id, told.kind, told.source) == (past.evidence, "knowledge", "memory")
    section = markdown(second, address="https://pilot.example").split("## Similar incidents")[1]
    assert f"](https://pilot.example/incidents/{first}/report) (" in section


async def test_what_is_remembered_changes_no_finding_of_now(database_url: str) -> None:
    async with at_work(database_url) as office:
        archive = Archive(office)
        alone = await investigated(archive, await archive.open("other", occurred_at=NOW))
        for _ in range(3):
            await archive.ended("orders-db", "slow_queries", verdict="resolved")
        after = await investigated(archive, await archive.open(occurred_at=NOW))
    assert after.similar
    assert isinstance(after.root_cause, RootCause)
    assert alone.root_cause is not None
    same = {"component", "category", "title", "claims", "confidence", "certainty", "rivals"}
    assert after.root_cause.model_dump(include=same) == alone.root_cause.model_dump(include=same)
    assert Evidence(digest="", findings=after.evidence[:-1], suspects=()).findings == alone.evidence
