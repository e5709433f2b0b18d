"""Which change is suspected of what: closeness in time and topology, what it touches, one change told twice."""

import random
from datetime import timedelta

import pytest

from collectors.base import Change, Edge
from graph.ranking import changes
from graph.ranking.changes import told_once
from graph.ranking.deviation import Deviation
from graph.ranking.topology import Topology
from graph.ranking.windows import Windows
from tests.graph.ranking import incidents

WINDOWS = Windows.of(incidents.scope("gateway"))
DURING = incidents.INCIDENT.timestamp()


def change(minutes: float, title: str = "v2", **more: str) -> Change:
    """So many minutes before the onset."""
    said = {"component": "billing", "kind": "deploy", **more}
    at = incidents.INCIDENT - timedelta(minutes=minutes)
    return Change.model_validate({"at": at, "title": title, **said})


def failing(
    signal: str = "errors", channel: str = "error", component: str = "billing", strength: float = 0.8
) -> Deviation:
    return Deviation(
        component=component,
        kind="metric",
        channel=channel,
        signal=signal,
        strength=strength,
        at_s=DURING,
        summary=signal,
    )


def judged(*made: Change, found: tuple[Deviation, ...] = (), source: str = "c") -> list[Deviation]:
    return changes.deviations([(source, c) for c in made], {"billing": 0.8}, {"billing": DURING}, WINDOWS, found=found)


def strength(made: Change, *found: Deviation) -> float:
    return judged(made, found=found)[0].strength


# --- closeness ------------------------------------------------------------------------------------------------


def test_the_nearest_before_the_onset_is_first() -> None:
    by_minute = {m: strength(change(m)) for m in (-1.0, 0.0, 0.5, 1.4, 5.0, 60.0)}
    assert sorted(by_minute, key=lambda m: -by_minute[m]) == [0.0, 0.5, 1.4, -1.0, 5.0, 60.0]
    assert strength(change(-10)) == 0.0


def test_what_grows_slowly_is_suspected_of_a_change_hours_ago() -> None:
    made = change(150)
    slow = strength(made, failing("heap_used", "saturation"))
    assert slow > 3 * strength(made, failing("errors"))
    assert slow < strength(change(10), failing("heap_used", "saturation"))
    assert "2.5 hours before its first deviation, which grew slowly" in (
        judged(made, found=(failing("heap_used", "saturation"),))[0].summary
    )


def test_a_faint_saturation_beside_loud_errors_makes_nothing_slow() -> None:
    made, faint = change(150), failing("heap_used", "saturation", strength=0.08)
    assert strength(made, failing("errors"), faint) < 0.3 * strength(made, failing("heap_used", "saturation"))


@pytest.mark.parametrize(
    "title",
    ["ECS rolled billing:41 back: alarm", 'Revert "Add coupons"', "Rolled back to v1.9", "CodeDeploy rollback d-2"],
)
def test_what_was_put_back_after_the_onset_is_an_answer(title: str) -> None:
    (found,) = judged(change(-1, title))
    assert found.strength == 0.0
    assert "an answer to the trouble" in found.summary
    assert judged(change(1, title))[0].strength > 0.0  # before the onset it is a change like others


def test_scaling_out_after_the_onset_is_an_answer_and_less_suspect_before_it() -> None:
    assert strength(change(-1, "scale out", kind="scaling")) == 0.0
    assert 0.0 < strength(change(1, "scale out", kind="scaling")) < strength(change(1))


@pytest.mark.parametrize(
    "title", ["ECS deployment of billing:42: ROLLBACK_SUCCESSFUL", "deployment d-1; undone by d-2"]
)
def test_a_deployment_that_was_undone_later_is_no_answer(title: str) -> None:
    assert strength(change(-0.5, title)) > 0.0


def test_flags_and_settings_weigh_as_deploys_do() -> None:
    assert strength(change(1, kind="feature_flag")) == strength(change(1, kind="configuration")) == strength(change(1))


# --- topology -------------------------------------------------------------------------------------------------

EDGES = (Edge(caller="billing", callee="flags", source="c"), Edge(caller="gateway", callee="billing", source="c"))


def beside(made: Change, seen: frozenset[str]) -> list[Deviation]:
    return changes.deviations(
        [("c", made)], {"billing": 0.8}, {"billing": DURING}, WINDOWS, topology=Topology.of(EDGES, ()), seen=seen
    )


def test_a_change_of_what_nothing_is_measured_counts_for_who_calls_it_and_less() -> None:
    (found,) = beside(change(1, "flag new-ledger on", component="flags", kind="feature_flag"), frozenset(["billing"]))
    assert found.component == "billing"
    assert found.strength == pytest.approx(0.5 * strength(change(1)))
    assert "nothing is measured there" in found.summary


def test_a_change_of_a_healthy_neighbour_accuses_nobody() -> None:
    (found,) = beside(change(1, component="flags"), frozenset(["billing", "flags"]))
    assert (found.component, found.strength) == ("flags", 0.0)
    assert "nothing unusual" in found.summary


# --- what it touches ------------------------------------------------------------------------------------------


def test_a_change_that_names_what_fails_is_more_suspect() -> None:
    log = failing("HikariPool-1: Connection is not available")
    touching = change(5, "set hikari.maximumPoolSize 50 -> 5")
    assert strength(touching, log) == pytest.approx(1.5 * strength(change(5, "set logo colour"), log))
    assert "names it too: hikari" in judged(touching, found=(log,))[0].summary


@pytest.mark.parametrize("title", ["Deployed billing v2: errors failed request", "set ttl of db to 5", "the pool"])
def test_fillers_short_words_and_its_own_name_touch_nothing(title: str) -> None:
    log = failing("billing: request to db failed, errors: ttl; thread dump")
    assert "names it too" not in judged(change(5, title), found=(log,))[0].summary


# --- one change, several sources ------------------------------------------------------------------------------


def test_one_deployment_told_by_two_sources_is_one_change() -> None:
    told = [
        ("aws", change(7, "ECS deployment of billing:74: COMPLETED", version="billing:74")),
        ("datadog", change(5, "Deployed billing v2.4.0: coupons, and a faster cart", version="v2.4.0", author="ci")),
        ("github", change(4, "deployed abc1234", version="abc1234def01")),
    ]
    (found,) = told_once(told)
    assert found.change.title.startswith("Deployed billing")
    assert found.change.at == told[0][1].at
    assert found.change.version == "abc1234def01, billing:74, v2.4.0"
    assert found.change.author == "ci"
    assert found.sources == ("aws", "datadog", "github")
    (deviation,) = changes.deviations(told, {}, {}, WINDOWS)
    assert "told by aws and datadog and github" in deviation.summary
    assert deviation.source == "datadog"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2.4.0", "shop/pay:v2.4.0", True),
        ("abc1234", "abc1234def5678", True),
        ("2.4", "2.4.1", False),
        ("v2", "v3", False),
        ("1.4", "1.41", False),
        ("", "v3", True),
        ("shop:73", "shop:74", False),
        ("1.4", "pay:v1.4-alpine", True),
        (".", "1.2", False),
    ],
)
def test_versions_that_contradict_each_other_are_two_changes(one: str, other: str, same: bool) -> None:
    told = [("a", change(5, "one", version=one)), ("b", change(4, "two", version=other))]
    assert len(told_once(told)) == (1 if same else 2)


def test_a_recording_holds_what_several_sources_told() -> None:
    revision = ("replay", change(5, "ECS deployment of billing:74: COMPLETED", version="billing:74"))
    assert len(told_once([revision, ("replay", change(5, "Deployed billing", version="v2.4.0"))])) == 1
    assert len(told_once([revision, ("replay", change(4, "ECS deployment", version="billing:75"))])) == 2
    assert len(told_once([revision, ("replay", change(4, "Deployed something"))])) == 2


def test_what_is_no_retelling_stays_apart() -> None:
    deploy = ("a", change(5, "Deploy"))
    others = [
        ("b", change(30, "Deploy")),
        ("b", change(5, "Deploy", component="orders")),
        ("b", change(5, "Deploy", kind="other")),
        ("b", change(4, "Rolled back")),
    ]
    assert len(told_once([deploy, *others])) == 5
    flags = [
        ("a", change(5, "flag coupons on", kind="feature_flag")),
        ("b", change(4, "dark-mode on", kind="feature_flag")),
    ]
    assert len(told_once(flags)) == 2
    assert len(told_once([flags[0], ("b", change(4, "Coupons: on for all", kind="feature_flag"))])) == 1


def test_order_of_what_is_told_does_not_matter() -> None:
    told = [
        (source, change(minutes, title, version=version))
        for source in ("a", "b")
        for minutes in (1, 4, 4, 9)
        for title, version in (("Deploy", ""), ("Deploy it", "v1"), ("Deployed", "v2"))
    ]
    expected = told_once(told)
    for seed in range(5):
        assert told_once(random.Random(seed).sample(told, len(told))) == expected


def test_very_many_changes_of_one_moment_take_no_time() -> None:
    told = [("a", change(1, f"flag number{n} on", kind="feature_flag")) for n in range(3000)]
    assert len(told_once(told)) == 3000
    assert len(told_once([("a", told[0][1])] * 3000)) == 1
