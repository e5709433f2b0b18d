"""How the remediation benchmark judges and counts."""

from dataclasses import replace
from datetime import timedelta

import pytest

from app.simulator.scenarios import SCENARIOS
from benchmarks.remediation import Run, Verdict, judge, share_lost, tables, untouched_is_well


@pytest.mark.parametrize(
    ("before", "after", "well", "verdict"),
    [
        (0.5, 0.0, True, "resolved"),
        (0.5, 0.0, False, "improved"),  # nothing fails, but requests are turned away
        (0.5, 0.3, False, "improved"),
        (0.5, 0.4, False, "unchanged"),
        (0.5, 0.52, False, "unchanged"),
        (0.5, 0.7, False, "worse"),
        (0.04, 0.06, False, "unchanged"),  # too little to tell
        (0.04, 0.09, False, "worse"),
    ],
)
def test_the_truth_of_a_remedy(before: float, after: float, *, well: bool, verdict: Verdict) -> None:
    assert judge(before, after, well=well) == verdict


def test_where_most_are_served_badly_what_counts_is_who_was_still_served_well() -> None:
    def seen(shop: float, web: float) -> dict[str, dict[str, dict[str, float]]]:
        return {"services": {"shop": {"bad_ratio": shop}, "web": {"bad_ratio": web}}}

    assert share_lost(seen(0.9, 0.1), seen(1.0, 0.1)) == pytest.approx(1.0)
    assert share_lost(seen(0.5, 0.1), seen(0.6, 0.05)) == pytest.approx(0.2)
    assert share_lost(seen(0.99, 0.1), seen(1.0, 0.1)) == 0.0  # too few to tell
    assert judge(1.37, 1.6, well=False, lost=1.0) == "worse"
    assert judge(1.37, 1.6, well=False, lost=0.2) == "unchanged"
    assert judge(1.37, 0.6, well=False, lost=0.4) == "improved"


def test_what_would_have_become_of_it() -> None:
    onset = SCENARIOS["passing-trouble"].occurred_at
    assert not untouched_is_well("passing-trouble", onset + timedelta(minutes=10))
    assert untouched_is_well("passing-trouble", onset + timedelta(minutes=22))
    assert not untouched_is_well("slow-database", SCENARIOS["slow-database"].occurred_at + timedelta(minutes=30))


RIGHT = Run(
    fault="stuck-task",
    choice="1",
    title="Stop the task",
    operations=("stop_ecs_task",),
    statuses=("succeeded",),
    verdict="resolved",
    truth="resolved",
    credit="remedy",
    recovered_untouched=False,
    reversible=False,
    undone=False,
    minutes=6.0,
    harm=(1.2, 0.0),
)


def test_the_sum() -> None:
    harmful = replace(RIGHT, choice="2", verdict="worse", truth="worse", credit="unclear", reversible=True, undone=True)
    missed = replace(harmful, choice="3", verdict="unchanged", undone=False, minutes=12.0)
    lost = replace(RIGHT, fault="bad-deploy", statuses=("failed",), truth="unchanged", verdict="not_measurable")
    each, summed, stopped = tables([RIGHT, harmful, missed, lost], ["bad-deploy", "stuck-task", "unknown"])
    assert [row[4] for row in each.rows] == ["yes", "yes", "**no**"]
    value = {row[0]: row[1] for row in summed.rows}
    assert value["faults"] == "3"
    assert value["of them nothing was proposed for"] == "unknown"
    assert value["options proposed, of them carried out"] == "4, 3"
    assert value["verdict agrees with the truth"] == "2 of 3 (67%)"
    assert value["harmful and reversible: undone"] == "1 of 2 (50%)"
    assert value["resolved with option 1"] == "1 of 2 (50%)"
    assert value["resolved: the credit is right"] == "1 of 1 (100%)"
    assert value["disagreements"] == "unchanged for worse: 1"
    assert [row[0] for row in stopped.rows] == ["bad-deploy"]


def test_credit_for_what_recovers_by_itself_is_wrong() -> None:
    _, summed = tables([replace(RIGHT, recovered_untouched=True)], ["stuck-task"])
    assert {row[0]: row[1] for row in summed.rows}["resolved: the credit is right"] == "0 of 1 (0%)"
