"""Whose word counts, and what it says of a cause and of a remedy."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.opinions import Opinions, Said
from graph.memory import named_operations

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def said(verdict: str = "wrong", by: str = "kim", **more: Any) -> Said:
    """Of the report by a responder, at noon."""
    minutes = more.pop("minutes", 0)
    given = {"about": "report", "role": "responder", "at": NOON + timedelta(minutes=minutes), **more}
    return Said.model_validate({"verdict": verdict, "by": by, **given})


def opinions(*those: Said) -> Opinions:
    return Opinions(those)


def test_nobody_said_anything() -> None:
    none = Opinions()
    assert (none.of_report, none.cause("db", "leak"), none.helped) == (None, ("db", "leak"), "")
    assert none.helped_by("r", 1, "restart_ecs_task", measured=True) == ""
    assert (none.counts, none.standing) == ({}, ())


def test_an_admin_counts_before_a_responder_and_of_equals_the_newest() -> None:
    older, newer = said("wrong", "ann", role="admin"), said("right", "bob", role="admin", minutes=1)
    newest = said("partly", "kim", minutes=2)
    assert opinions(older, newest).of_report == "wrong"
    assert opinions(older, newer, newest).of_report == "right"
    assert opinions(said("right", "a"), said("wrong", "b", minutes=1)).of_report == "wrong"
    assert opinions(older, newer, newest).counts == {"report": {"wrong": 1, "right": 1, "partly": 1}}
    assert opinions(older, newer, newest).standing == (newer,)


def test_the_cause_is_the_one_that_is_named_by_the_most_trusted() -> None:
    named = said(component="cache", category="cache_failure")
    assert opinions(named).cause("db", "leak") == ("cache", "cache_failure")
    assert opinions(said(category="cache_failure")).cause("db", "leak") == ("db", "cache_failure")
    assert opinions(named, said("wrong", "bob", minutes=1)).cause("db", "leak") == ("cache", "cache_failure")
    assert opinions(named, said("right", "ann", role="admin")).cause("db", "leak") == ("db", "leak")
    assert opinions(named, said("right", "bob", minutes=1)).cause("db", "leak") == ("db", "leak")


def test_a_cause_may_be_named_with_any_feedback() -> None:
    on_option = said("wrong", about="option", plan_revision="r", option=1, component="cache")
    assert opinions(on_option).cause("db", "leak") == ("cache", "leak")
    assert opinions(on_option).of_report is None


@pytest.mark.parametrize(
    ("helped", "names"),
    [
        ("restart_ecs_task", ("restart_ecs_task",)),
        (" restart_ecs_task, scale_ecs_service\n", ("restart_ecs_task", "scale_ecs_service")),
        ("restart_ecs_task restart_ecs_task", ("restart_ecs_task",)),
        ("restart_ecs_task did not help", ()),
        ("not restart_ecs_task", ()),
        ("by hand", ()),
        ("", ()),
    ],
)
def test_operations_are_named_by_their_names_alone(helped: str, names: tuple[str, ...]) -> None:
    assert named_operations(helped) == names


def test_what_helped_overrules_what_was_measured() -> None:
    those = opinions(said(helped="scale_ecs_service"))
    assert those.operations == ("scale_ecs_service",)
    assert those.helped_by("r", 1, "scale_ecs_service") == "yes"
    assert those.helped_by("r", 1, "restart_ecs_task", measured=True) == "no"
    in_words = opinions(said(helped="somebody raised the pool"))
    assert in_words.helped == "somebody raised the pool"
    assert in_words.helped_by("r", 1, "restart_ecs_task", measured=True) == ""


def test_naming_what_helped_says_nothing_of_options_that_were_never_run() -> None:
    those = opinions(said(helped="scale_ecs_service"))
    assert those.helped_by("r", 2, "restart_ecs_task", run=False) == ""
    assert those.helped_by("r", 2, "scale_ecs_service", run=False) == "yes"


@pytest.mark.parametrize(("verdict", "word"), [("right", "yes"), ("partly", "partly"), ("wrong", "no")])
@pytest.mark.parametrize("measured", [True, False])
def test_an_option_is_judged_whatever_was_measured(verdict: str, word: str, measured: bool) -> None:
    those = opinions(said(verdict, about="option", plan_revision="r", option=2))
    assert those.helped_by("r", 2, "restart_ecs_task", measured=measured) == word
    assert those.helped_by("r", 1, "restart_ecs_task", measured=measured) == ""
    assert those.helped_by("s", 2, "restart_ecs_task", measured=measured) == ""


@pytest.mark.parametrize(
    ("verdict", "measured", "word"),
    [
        ("right", True, ""),
        ("right", False, ""),
        ("wrong", True, "no"),
        ("wrong", False, "yes"),
        ("partly", True, "partly"),
    ],
)
def test_a_wrong_verification_stands_for_its_opposite(verdict: str, measured: bool, word: str) -> None:
    those = opinions(said(verdict, about="verification", plan_revision="r"))
    assert those.helped_by("r", 3, "restart_ecs_task", measured=measured) == word
    assert those.helped_by("s", 3, "restart_ecs_task", measured=measured) == ""


def test_of_words_on_one_remedy_the_most_trusted_counts() -> None:
    admin = said("wrong", "ann", role="admin", about="option", plan_revision="r", option=1)
    named = said("right", "kim", helped="restart_ecs_task", minutes=5)
    assert opinions(admin, named).helped_by("r", 1, "restart_ecs_task") == "no"
    assert opinions(named).helped_by("r", 1, "restart_ecs_task") == "yes"
    measured = said("right", "ann", role="admin", about="verification", plan_revision="r")
    assert opinions(measured, named).helped_by("r", 1, "restart_ecs_task") == ""


def test_the_verdict_on_an_option_says_more_of_it_than_what_helped() -> None:
    wrong = said("wrong", about="option", plan_revision="r", option=1, helped="reduce_traffic, restart_ecs_task")
    assert opinions(wrong).helped_by("r", 1, "restart_ecs_task") == "no"
    partly = said("partly", about="option", plan_revision="r", option=1, helped="restart_ecs_task")
    assert opinions(partly).helped_by("r", 1, "restart_ecs_task", measured=True) == "yes"
    assert opinions(partly).helped_by("r", 1, "scale_ecs_service", measured=True) == "no"


def test_of_several_that_helped_together_one_alone_did_not() -> None:
    those = opinions(said(helped="reduce_traffic, restart_ecs_task"))
    assert those.helped_by("r", 1, "restart_ecs_task") == ""
    assert those.helped_by("r", 1, "restart_ecs_task", measured=True) == "yes"
    assert those.helped_by("r", 1, "scale_ecs_service", measured=True) == "no"
    assert those.helped_by("r", 2, "restart_ecs_task", run=False) == ""


def test_naming_something_else_leaves_half_of_what_is_proven_unless_an_admin_does() -> None:
    named, judged = said(helped="scale_ecs_service"), said("wrong", about="option", plan_revision="r", option=1)
    admin = said(by="ann", role="admin", helped="scale_ecs_service")

    def word(*those: Said, measured: bool = True) -> str:
        return opinions(*those).helped_by("r", 1, "restart_ecs_task", measured=measured, proven=True)

    assert (word(named), word(admin), word(judged)) == ("partly", "no", "no")
    assert word(named, measured=False) == "no"
