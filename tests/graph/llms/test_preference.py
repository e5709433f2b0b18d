"""In which order options are shown, and which three."""

import pytest

from executors.base import Risk
from graph.llms.base import PlanRequest, TrackRecord
from graph.llms.preference import expected_value, ordered
from graph.llms.rules import explain
from graph.state import ActionOption, Intent, PlanStep
from tests.graph.llms import incidents


def option(
    *operations: str, intent: Intent | None = None, benefit: float = 0.5, risk: Risk = "low", service: str = "pay"
) -> ActionOption:
    """An option whose title is its first operation and service."""
    return ActionOption(
        title=f"{operations[0]} {service}",
        description="d",
        intent=intent,
        benefit=benefit,
        risk=risk,
        minutes=1,
        steps=tuple(PlanStep(operation=name, params={"service": service}) for name in operations),
    )


def asked(**record: TrackRecord) -> PlanRequest:
    evidence = incidents.pool_exhaustion()
    return incidents.plan(evidence, explain(evidence, "checkout-service"), track_record=record)


def titles(options: tuple[ActionOption, ...]) -> list[str]:
    return [o.title for o in options]


def test_benefit_comes_before_risk_and_risk_settles_what_is_close() -> None:
    safe, daring = option("a", risk="low", benefit=0.55), option("b", risk="high", benefit=0.6)
    best = option("c", risk="medium", benefit=0.9)
    assert titles(ordered([daring, safe, best], asked())) == ["c pay", "a pay", "b pay"]


def test_of_one_intent_the_best_stays_as_long_as_there_are_three_kinds() -> None:
    two_ways = [option("a", intent="mitigate", benefit=0.9), option("b", intent="mitigate", benefit=0.8)]
    fix, least = option("c", intent="fix", benefit=0.4), option("d", intent="least_risk", benefit=0.3)
    assert titles(ordered([*two_ways, fix, least], asked())) == ["a pay", "c pay", "d pay", "b pay"]
    assert titles(ordered([*two_ways, fix], asked())) == ["a pay", "b pay", "c pay"]


def test_what_does_the_same_is_shown_once() -> None:
    assert titles(ordered([option("a", benefit=0.3), option("a", benefit=0.6)], asked())) == ["a pay"]
    assert ordered([option("a", benefit=0.3), option("a", benefit=0.6)], asked())[0].benefit == 0.6
    assert len(ordered([option("a"), option("a", service="shop")], asked())) == 2


def test_never_more_than_three_and_their_spares() -> None:
    options = [option(name, benefit=place / 10) for place, name in enumerate("gfedcba")]
    assert titles(ordered(options, asked())) == [f"{name} pay" for name in "abcdef"]
    assert ordered([], asked()) == ()


@pytest.mark.parametrize(
    ("record", "first"),
    [
        ({}, "a"),
        ({"b": TrackRecord(runs=1, resolved=1)}, "a"),  # one success does not settle it
        ({"b": TrackRecord(runs=6, resolved=6)}, "b"),
        ({"a": TrackRecord(runs=4, resolved=0)}, "b"),
        ({"a": TrackRecord(runs=4, resolved=3, worse=3)}, "b"),
    ],
)
def test_the_track_record_turns_the_order_when_there_is_enough_of_it(
    record: dict[str, TrackRecord], first: str
) -> None:
    assert ordered([option("a", benefit=0.7), option("b", benefit=0.4)], asked(**record))[0].title == f"{first} pay"


def test_without_runs_the_record_says_nothing_and_changes_nothing() -> None:
    plain, empty = asked(), asked(a=TrackRecord())
    assert expected_value(option("a"), plain) == expected_value(option("a"), empty)
    assert ordered([option("a")], empty)[0].track_record == ""


def test_the_record_is_told() -> None:
    record = {"a": TrackRecord(runs=4, resolved=3), "b": TrackRecord(runs=2, resolved=0, worse=1)}
    one, both = ordered([option("a", benefit=0.9), option("a", "b", "check_ecs_health")], asked(**record))
    assert one.track_record == "Resolved 3 of 4 incidents of this kind"
    assert both.track_record == (
        "a: resolved 3 of 4 incidents of this kind; b: resolved 0 of 2 incidents of this kind, made 1 worse"
    )


def test_an_operation_that_only_looks_has_no_part_in_it() -> None:
    looked = asked(check_ecs_health=TrackRecord(runs=50, resolved=0))
    assert expected_value(option("a", "check_ecs_health"), looked) == expected_value(option("a"), asked())
