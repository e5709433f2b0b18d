"""In which order options are shown, and which three."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executors.base import Risk
from graph.llms.base import Counted, PlanRequest, TrackRecord
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


@pytest.mark.parametrize(
    ("runs", "resolved", "first"),
    [
        (0, 0, "risky"),
        (2, 2, "risky"),  # no more than it promised
        (1, 0, "safe"),  # bad news counts at once
        (3, 1, "safe"),
    ],
)
def test_bad_news_of_a_risky_operation_counts_at_once(runs: float, resolved: float, first: str) -> None:
    risky, safe = option("risky", risk="medium", benefit=0.7), option("safe", risk="low", benefit=0.6)
    record = {"risky": TrackRecord(runs=runs, resolved=resolved)}
    assert titles(ordered([safe, risky], asked(**record)))[0] == f"{first} pay"


def test_a_risky_operation_rises_only_on_what_its_lower_bound_bears_out() -> None:
    risky, safe = option("risky", risk="high", benefit=0.5), option("safe", risk="low", benefit=0.5)
    stated = expected_value(risky, asked())
    values = [
        (expected_value(risky, asked(risky=TrackRecord(runs=n, resolved=n))), n) for n in (1.0, 3.0, 10.0, 40.0, 1000.0)
    ]
    assert [n for value, n in values if value == stated] == [1.0, 3.0]
    assert values == sorted(values)
    assert expected_value(risky, asked(risky=TrackRecord(runs=1e6, resolved=1e6))) == pytest.approx(0.6, abs=0.001)
    lucky = TrackRecord(runs=2, resolved=2)
    assert expected_value(safe, asked(safe=lucky)) > expected_value(safe, asked())


@given(
    benefit=st.floats(0, 1),
    runs=st.floats(0, 1e5),
    share=st.floats(0, 1),
    harm=st.floats(0, 1),
    risk=st.sampled_from(["low", "medium", "high"]),
)
def test_what_is_expected_stays_within_bounds(
    benefit: float, runs: float, share: float, harm: float, risk: Risk
) -> None:
    record = TrackRecord(runs=runs, resolved=runs * share, worse=runs * (1 - share) * harm)
    assert 0.0 <= expected_value(option("a", benefit=benefit, risk=risk), asked(a=record)) <= 1.0


def test_what_was_run_together_is_known_as_a_whole() -> None:
    record = {
        "a": TrackRecord(2, 1, here=Counted(1, 0)),
        "b": TrackRecord(1, 1),
        "a + b": TrackRecord(2, 2, low=0.4, high=1.0, here=Counted(2, 2)),
    }
    alone, whole = option("a", benefit=0.5), option("b", "a", "check_ecs_health", benefit=0.5)
    first, second = ordered([alone, whole], asked(**record))
    assert (first.title, second.title) == ("b pay", "a pay")
    assert first.track_record == (
        "This kind of incident: resolved 2 of 2 on payment-service; 90 % interval 40 to 100 %"
    )
    assert "resolved 0 of 1 on payment-service" in second.track_record


def test_the_record_is_told() -> None:
    record = {
        "a": TrackRecord(5, 3.5, low=0.35, high=0.951, here=Counted(4, 3), elsewhere=Counted(2, 1)),
        "b": TrackRecord(2, 0, 1, low=0.0, high=0.6, elsewhere=Counted(2, 0, 1)),
        "c": TrackRecord(0.5, 0, low=0.0, high=0.9),
    }
    one, more = ordered([option("a", benefit=0.9), option("a", "b", "c", "check_ecs_health")], asked(**record))
    assert one.track_record == (
        "This kind of incident: resolved 3 of 4 on payment-service, resolved 1 of 2 elsewhere; 90 % interval 35 to 95 %"
    )
    assert more.track_record == (
        "This kind of incident: a: resolved 3 of 4 on payment-service, resolved 1 of 2 elsewhere;"
        " 90 % interval 35 to 95 %"
        " · b: resolved 0 of 2 elsewhere, made 1 worse; 90 % interval 0 to 60 %"
        " · c: not run by itself yet; 90 % interval 0 to 90 %"
    )
    korean = replace(asked(**record), language="ko")
    assert ordered([option("a")], korean)[0].track_record == (
        "같은 유형의 장애: payment-service에서 4건 중 3건 해결, 다른 곳에서 2건 중 1건 해결; 90 % 구간 35~95 %"
    )


def test_an_operation_that_only_looks_has_no_part_in_it() -> None:
    looked = asked(check_ecs_health=TrackRecord(runs=50, resolved=0))
    assert expected_value(option("a", "check_ecs_health"), looked) == expected_value(option("a"), asked())
