"""How the learning benchmark counts."""

from typing import Any

from benchmarks.learning import FAULTS, Impartial, Lived, each_time, lies_told, shares
from benchmarks.remediation import Verdict
from graph.llms.rules import explain
from graph.state import ActionOption
from tests.graph.llms import incidents


def lived(*truths: Verdict) -> list[Lived]:
    return [Lived(FAULTS[0], "t", truth) for truth in truths]


def test_shares_of_each_half() -> None:
    orders = [lived("worse", "resolved", "resolved", "resolved"), lived("worse", "worse", "resolved", "resolved")]
    (row,) = shares({("alike", "nothing"): orders}).rows
    assert row == ("alike", "without memory", "0.5 of 2 (0 to 1)", "2.0 of 2 (2 to 2)")


def test_each_kind_from_the_first_time_to_the_last() -> None:
    rows: Any = each_time({("alike", "nothing"): [lived("unchanged", "resolved"), lived("resolved", "resolved")]}).rows
    assert rows[0] == ("alike", "without memory", FAULTS[0], "- +")
    assert len(rows) == len(FAULTS)


def test_lies_by_how_many_there_were() -> None:
    rows: Any = lies_told(
        [("alike", "f", 1, 0), ("alike", "f", 3, None), ("alike", "g", 1, 2), ("alike", "g", 3, 4)]
    ).rows
    assert rows == [("alike", "f", "0", "never"), ("alike", "g", "2", "4")]


async def test_who_holds_all_options_alike_orders_them_by_risk_alone() -> None:
    evidence = incidents.pool_exhaustion()
    asked = incidents.plan(evidence, explain(evidence, "checkout-service"))
    options: tuple[ActionOption, ...] = (await Impartial().plan(asked)).options
    assert len(options) > 1
    assert {option.benefit for option in options} == {0.5}
