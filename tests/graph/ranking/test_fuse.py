"""Who is left with the blame when callees explain, when harm differs, and by where a component stands."""

from dataclasses import replace

import pytest

from collectors.base import Edge
from graph.ranking.assessment import causes_among
from graph.ranking.deviation import Deviation
from graph.ranking.fuse import Ranked, Symptom, passed_on, rank_components, residuals
from graph.ranking.topology import Topology, causal_path

EDGES = (("web", "shop"), ("shop", "pay"), ("shop", "stock"), ("pay", "db"), ("crawler", "web"), ("web", "mail"))


def topology(*asynchronous: tuple[str, str]) -> Topology:
    edges = (Edge(caller=a, callee=b, source="t", asynchronous=(a, b) in asynchronous) for a, b in EDGES)
    return Topology.of(edges, [])


def deviates(
    component: str,
    channel: str,
    strength: float = 0.9,
    harm: float = 0.0,
    *,
    inherited: bool = True,
    slowness: float = 10.0,
) -> Deviation:
    return Deviation(
        component=component,
        kind="metric",
        channel=channel,
        signal=f"{component}.{channel}",
        strength=strength,
        at_s=1000.0,
        summary=f"{component} {channel}",
        inherited=inherited,
        harm=harm,
        observed=slowness,
        baseline=1.0,
    )


def ranked(*found: Deviation, alerted: str = "web", symptom: Symptom | None = None) -> list[Ranked]:
    return rank_components(found, topology(), symptom or Symptom(alerted))


def names(found: list[Ranked]) -> list[str]:
    return [one.component for one in found]


def test_what_a_callee_explains_is_not_held_against_its_callers() -> None:
    found = ranked(*(deviates(c, "latency") for c in ("web", "shop", "pay", "db")))
    assert names(found) == ["db"]


def test_ten_lost_seconds_do_not_explain_a_thousand() -> None:
    found = ranked(deviates("pay", "latency", harm=1000.0), deviates("db", "latency", harm=10.0))
    assert names(found)[0] == "pay"
    same = ranked(deviates("pay", "latency", harm=1000.0), deviates("db", "latency", harm=1000.0))
    assert names(same)[0] == "db"


def test_failures_of_a_handful_of_calls_do_not_explain_what_all_users_see() -> None:
    found = ranked(
        deviates("web", "latency", harm=5000.0),
        deviates("pay", "latency", harm=5000.0),
        deviates("stock", "error", 1.0, harm=5.0),
        symptom=Symptom("web", calls=30_000.0, seconds=6000.0),
    )
    assert names(found)[0] == "pay"
    assert max([one.score for one in found if one.component == "stock"], default=0.0) < 0.1


def test_traffic_of_a_callee_explains_nothing() -> None:
    left = residuals([deviates("pay", "error"), deviates("db", "traffic")], topology())
    assert left["pay"]["error"] == pytest.approx(0.9)


def test_the_slower_a_callee_the_more_failures_it_explains() -> None:
    def left(*callee: Deviation) -> float:
        return residuals([deviates("pay", "error"), *callee], topology())["pay"]["error"]

    twice, tenfold = (deviates("db", "latency", slowness=times) for times in (2.0, 10.0))
    assert left(deviates("db", "error")) < left(tenfold) < left(twice) < left() == 0.9


def test_saturation_is_a_reason_of_its_own_and_explains_the_callers_symptoms() -> None:
    left = residuals([deviates("pay", "latency"), deviates("db", "saturation", inherited=False)], topology())
    assert left["pay"]["latency"] < 0.3
    assert left["db"]["saturation"] == 0.9


def test_nobody_waits_for_a_message() -> None:
    found = [deviates("web", "latency"), deviates("mail", "latency")]
    waited = {one.component: one.score for one in rank_components(found, topology(), Symptom("web"))}
    sent = {one.component: one.score for one in rank_components(found, topology(("web", "mail")), Symptom("web"))}
    assert max(waited, key=lambda c: waited[c]) == "mail"
    assert max(sent, key=lambda c: sent[c]) == "web"


def test_callers_and_strangers_of_the_alerted_service_are_less_suspect() -> None:
    score = {
        name: rank_components([deviates(name, "latency")], topology(), Symptom("shop"))[0].score
        for name in ("pay", "web", "nightly")
    }
    assert score["pay"] > score["web"] > score["nightly"]


def test_two_causes_in_different_branches_are_told_apart_from_one_chain() -> None:
    both = ranked(deviates("stock", "saturation", inherited=False), deviates("db", "saturation", inherited=False))
    assert set(causes_among(both, topology())) == {"stock", "db"}
    chain = ranked(deviates("pay", "saturation", inherited=False), deviates("db", "saturation", inherited=False))
    assert len(causes_among(chain, topology())) == 1


def test_the_reasons_of_a_score_multiply_to_it() -> None:
    (one,) = ranked(deviates("db", "latency"))
    (part,) = one.parts
    assert part.value == pytest.approx(one.score)
    assert part.told().startswith("latency 0.90 = 0.90 strong")


def test_the_path_goes_through_what_deviates_rather_than_the_shortest_way() -> None:
    pairs = (("web", "a"), ("a", "b"), ("b", "db"), ("web", "quiet"), ("quiet", "db"))
    graph = Topology.of((Edge(caller=a, callee=b, source="t") for a, b in pairs), [])
    deviating = dict.fromkeys(("web", "a", "b", "db"), 0.9)
    path = causal_path(graph, "db", "web", deviating, dict.fromkeys(deviating, 0.0))
    assert [hop.effect for hop in path] == ["b", "a", "web"]
    assert all(hop.structural and hop.statistical and hop.temporal for hop in path)


def test_work_that_waits_in_a_queue_is_held_against_its_consumer() -> None:
    edges = (("shop", "queue"), ("queue", "worker"))
    graph = Topology.of((Edge(caller=a, callee=b, source="t", asynchronous=True) for a, b in edges), [])
    found = [deviates("queue", "backlog"), deviates("worker", "drop", 0.4)]
    found += passed_on(found, graph, "shop")
    assert names(rank_components(found, graph, Symptom("shop")))[0] == "worker"
    assert [d.kind for d in found if d.component == "worker"] == ["metric", "topology"]


def test_calls_that_stay_away_are_held_against_the_caller_who_still_gets_his() -> None:
    found = [deviates("db", "drop", 0.4)]
    found += passed_on(found, topology(), "db")
    assert names(rank_components(found, topology(), Symptom("db")))[0] == "pay"
    passed = [deviates("db", "drop", 0.4), deviates("pay", "drop", 0.4)]
    passed += passed_on(passed, topology(), "db")
    assert names(rank_components(passed, topology(), Symptom("db")))[0] == "shop"


def logged(component: str, excerpt: str) -> Deviation:
    return replace(deviates(component, "log"), kind="log", excerpt=excerpt)


def test_what_callers_log_of_a_callee_without_telemetry_is_held_against_it() -> None:
    found = [logged("shop", "pay: 429 too many requests"), deviates("shop", "time", inherited=False, strength=0.5)]
    told = passed_on(found, topology(), "web", seen={"web", "shop", "stock"})
    assert [(d.component, d.kind, d.channel) for d in told] == [("pay", "topology", "log")]
    assert names(ranked(*found, *told))[0] == "pay"


@pytest.mark.parametrize("excerpt", ["payment refused", "crawler came", "stock is empty"])
def test_who_is_not_called_so_not_called_or_has_telemetry_is_not_accused_by_logs(excerpt: str) -> None:
    found = [logged("shop", excerpt)]
    assert passed_on(found, topology(), "web", seen={"web", "shop", "stock"}) == []


def test_lines_that_stay_away_accuse_nobody() -> None:
    found = [replace(logged("shop", "pay answered"), worse="down")]
    assert passed_on(found, topology(), "web", seen={"shop"}) == []
