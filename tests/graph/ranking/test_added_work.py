"""Who is given more to do than before, and who is held responsible for it."""

import pytest

from collectors.base import Edge, SeriesRef
from graph.ranking.added_work import added_work
from graph.ranking.deviation import Deviation
from graph.ranking.fuse import Symptom, passed_on, rank_components
from graph.ranking.semantics import meaning_of
from graph.ranking.topology import Topology

SHOP = Topology.of((Edge(caller="shop", callee=name, source="t") for name in ("cache", "db", "pay")), [])
DESK = Topology.of(
    [
        Edge(caller="web", callee="intake", source="t"),
        Edge(caller="intake", callee="queue", source="t", asynchronous=True),
        Edge(caller="queue", callee="desk", source="t", asynchronous=True),
    ],
    [],
)


def moved(
    component: str, metric: str, before: float, now: float, strength: float = 0.1, *, unit: str = "", at_s: float = 1e3
) -> Deviation:
    ref = SeriesRef(source="t", component=component, metric=metric, statistic="avg", unit=unit, query=metric)
    role = meaning_of(ref).role
    same = {"requests": "drop" if now < before else "traffic", "success": "error"}
    return Deviation(
        component=component,
        kind="metric",
        channel=same.get(role, role),
        signal=metric,
        strength=strength,
        at_s=at_s,
        summary=f"{component} {metric} moved.",
        inherited=role not in ("saturation", "host"),
        observed=now,
        baseline=before,
        ref=ref,
    )


DB = (
    moved("db", "CPUUtilization", 30.0, 100.0, 0.8, unit="%"),
    moved("db", "ReadLatency", 0.001, 0.006, 0.6, unit="s"),
    moved("db", "ReadIOPS", 500.0, 5000.0),
)
MISSES = moved("cache", "CacheMisses", 1000.0, 10_000.0)


def first(found: tuple[Deviation, ...], topology: Topology, alerted: str) -> str:
    every = [*found, *passed_on(found, topology, alerted)]
    return rank_components(every, topology, Symptom(alerted))[0].component


@pytest.mark.parametrize(
    "missed",
    [
        MISSES,
        moved("cache", "redis.stats.keyspace_misses", 10.0, 100.0),
        moved("cache", "CacheHitRate", 97.0, 40.0, unit="%"),
        moved("cache", "cache_hit_ratio", 0.97, 0.4),
        moved("cache", "cache_miss_ratio", 0.03, 0.6),
    ],
)
def test_what_a_cache_misses_the_database_has_to_read(missed: Deviation) -> None:
    assert first(DB, SHOP, "shop") == "db"
    assert first((*DB, missed), SHOP, "shop") == "cache"


def test_the_part_is_what_both_have_more_of() -> None:
    (work,) = added_work([*DB, MISSES], SHOP)
    assert (work.maker, work.bearer) == ("cache", "db")
    assert work.share == pytest.approx(0.9)
    (less,) = added_work([moved("db", "ReadIOPS", 500.0, 1000.0), MISSES], SHOP)
    assert less.share == pytest.approx(0.5)


@pytest.mark.parametrize(
    "found",
    [
        (*DB[:2], MISSES),  # no more work
        (*DB, moved("cache", "CacheMisses", 1000.0, 800.0)),
        (*DB, MISSES, moved("cache", "CacheHits", 9000.0, 90_000.0)),  # ten times the requests
        (*DB, moved("cache", "CacheMisses", 1000.0, 10_000.0, at_s=2e3)),  # only later
        (*DB, moved("pay", "failed_logins", 1.0, 9.0)),
        (*DB, moved("stranger", "CacheMisses", 1000.0, 10_000.0)),  # a cache of nobody here
    ],
)
def test_a_database_that_is_slow_for_another_reason_keeps_the_blame(found: tuple[Deviation, ...]) -> None:
    assert added_work(found, SHOP) == []
    assert first(found, SHOP, "shop") == "db"


def test_errors_do_not_follow_from_a_cache_that_cannot_be_filled() -> None:
    failing = moved("db", "errors", 0.0, 100.0, 0.9)
    assert first((*DB, failing, MISSES), SHOP, "shop") == "db"


WAITING = (
    moved("queue", "ApproximateNumberOfMessagesVisible", 4.0, 60.0, 0.6),
    moved("intake", "CPUUtilization", 20.0, 40.0, 0.1, unit="%"),
)
SENT = moved("queue", "NumberOfMessagesSent", 20.0, 60.0)


def test_more_in_a_queue_for_the_same_requests_is_its_producers_doing() -> None:
    assert first(WAITING, DESK, "intake") == "desk"
    assert first((*WAITING, SENT), DESK, "intake") == "intake"
    told = [d.summary for d in passed_on((*WAITING, SENT), DESK, "intake") if d.component == "intake"]
    assert told == [
        "intake: it puts more into queue for the same requests."
        " desk: work waits for it in queue. queue ApproximateNumberOfMessagesVisible moved."
    ]


@pytest.mark.parametrize(
    "reason",
    [
        moved("queue", "NumberOfMessagesDeleted", 20.0, 5.0),  # its consumer takes less
        moved("desk", "http.requests", 20.0, 5.0),
        moved("intake", "http.requests", 100.0, 300.0),  # a surge
    ],
)
def test_a_consumer_that_does_less_and_a_surge_are_not_the_producers_doing(reason: Deviation) -> None:
    assert added_work((*WAITING, SENT, reason), DESK) == []


def test_two_producers_share_what_nobody_can_tell_apart() -> None:
    edges = [Edge(caller=name, callee="queue", source="t", asynchronous=True) for name in ("intake", "batch")]
    edges.append(Edge(caller="queue", callee="desk", source="t", asynchronous=True))
    shares = {work.maker: work.share for work in added_work((*WAITING, SENT), Topology.of(edges, []))}
    assert shares == {"intake": pytest.approx(1 / 3), "batch": pytest.approx(1 / 3)}
