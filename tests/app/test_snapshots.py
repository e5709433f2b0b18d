"""Raw telemetry in Postgres: what was collected, and what analysts asked for beside it."""

from collections.abc import AsyncIterator

import pytest

from app.store.ledger import PostgresSnapshots, latest_looks, read_for_analysts
from collectors.base import Change, Telemetry
from graph.deps import SnapshotKey
from tests.app.test_alerts import T0, Office, alert, at_work


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    """An office on a database of its own."""
    async with at_work(database_url) as one:
        yield one


def seen(title: str) -> Telemetry:
    """What a source tells."""
    return Telemetry(source="datadog", changes=(Change(at=T0, component="shop", kind="deploy", title=title),))


async def test_what_an_analyst_read_is_kept_beside_what_was_collected(office: Office) -> None:
    (incident,) = await office.accept(alert("a"))
    store, collected = PostgresSnapshots(office.pool), SnapshotKey(str(incident), 1, "datadog")
    reads = [SnapshotKey(str(incident), 1, "datadog", read=question * 64) for question in "ab"]
    for key, title in zip((collected, *reads), ("collected", "first read", "second read"), strict=True):
        digest = await store.put(key, seen(title))
        assert await store.put(key, seen("something else")) == digest  # the first one stays
        assert await store.get(key) == (seen(title), digest)
    assert await store.get(SnapshotKey(str(incident), 1, "datadog", read="c" * 64)) is None
    async with office.pool.connection() as connection:
        assert await latest_looks(connection, str(incident), 1) == [seen("collected")]
        answers = await read_for_analysts(connection, str(incident), 1, "datadog")
        assert sorted(t.changes[0].title for t in answers) == ["first read", "second read"]
        assert await read_for_analysts(connection, str(incident), 1, "loki") == []
        assert await read_for_analysts(connection, str(incident), 2, "datadog") == []
