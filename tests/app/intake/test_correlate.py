"""Which alerts belong together, case by case, and what holds for all of them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.intake import correlate
from app.intake.correlate import Correlation, Match, Subject, Topology, resource_pairs
from collectors.base import Edge

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
ALL = Correlation()
# web and api call shop; shop calls db and queue; db calls disks.
CALLS = [("web", "shop"), ("api", "shop"), ("shop", "db"), ("shop", "queue"), ("db", "disks"), ("edge", "web")]
SHOP = Topology([Edge(caller=a, callee=b, source="catalogue") for a, b in CALLS])


def fit(alert: Subject, members: Sequence[Subject], topology: Topology, rules: Correlation) -> Match | None:
    """How well an alert fits an incident of these members."""
    return correlate.fit(alert, members, {m.service for m in members}, topology, rules)


def about(
    service: str,
    *resources: str,
    title: str = "",
    rule: str = "",
    minute: float = 0,
    environment: str = "production",
) -> Subject:
    """An alert; titles differ from service to service unless told."""
    at = T0 + timedelta(minutes=minute)
    title, rule = title or f"{service * 3} xx", rule or f"rule:{service}"
    return Subject(f"{rule}|{service}|{resources}", rule, service, environment, frozenset(resources), title, at)


TOGETHER: dict[str, tuple[Subject, list[Subject], float, str]] = {
    "same host": (about("web", "host:a"), [about("other", "host:a")], 0.9, "both are about host:a, 0 s apart"),
    "same service": (about("shop", title="one"), [about("shop", title="two")], 0.8, "both are about shop, 0 s apart"),
    "its callee alerts": (about("shop"), [about("db")], 0.7, "shop calls db, 0 s apart"),
    "its callee's callee alerts": (about("web"), [about("db")], 0.55, "web calls db (2 calls away), 0 s apart"),
    "its caller alerts, unexplained": (about("db"), [about("shop")], 0.65, "shop calls db, 0 s apart"),
    "its caller's caller alerts": (about("db"), [about("web")], 0.55, "web calls db (2 calls away), 0 s apart"),
    "a disk that is full is a cause": (
        about("db", title="disk full"),
        [about("shop")],
        0.65,
        "shop calls db, 0 s apart",
    ),
    "one environment is not known": (about("shop"), [about("db", environment="")], 0.7, "shop calls db, 0 s apart"),
    "the best of several": (
        about("shop", "host:a"),
        [about("db"), about("else", "host:a", minute=-3), about("far")],
        0.85,
        "both are about host:a, 3 min apart",
    ),
    "at the edge of the window": (
        about("shop", "host:a", minute=15),
        [about("shop", "host:a")],
        0.83,  # 0.9 faded by 30 %, and the same words
        "both are about host:a, 15 min apart",
    ),
}

APART: dict[str, tuple[Subject, list[Subject]]] = {
    "nothing in common": (about("shop"), [about("mail")]),
    "no members": (about("shop"), []),
    "siblings with one caller": (about("queue"), [about("db")]),
    "callers of one callee": (about("web"), [about("api")]),
    "three calls away": (about("edge"), [about("db")]),
    "its caller's fault is explained already": (about("queue"), [about("shop"), about("db")]),
    "its caller's fault is explained further down": (about("queue"), [about("shop"), about("disks")]),
    "one rule on two services": (about("mail", rule="cpu"), [about("shop", rule="cpu")]),
    "the same words only": (about("mail", title="error rate high"), [about("shop", title="error rate high")]),
    "a full disk is no consequence": (about("shop", title="Disk full"), [about("db")]),
    "a full disk causes no fault of its callee": (about("db"), [about("shop", title="disk is full")]),
    "two full disks of one service": (
        about("db", "device:sda", title="disk full", rule="disk"),
        [about("db", "device:sdb", title="disk full", rule="disk")],
    ),
    "environments differ": (about("shop", "host:a"), [about("shop", "host:a", environment="staging")]),
    "after the window": (about("shop", "host:a", minute=15.01), [about("shop", "host:a")]),
    "before the window": (about("shop", "host:a", minute=-15.01), [about("shop", "host:a")]),
}


@pytest.mark.parametrize(("alert", "members", "score", "why"), TOGETHER.values(), ids=TOGETHER)
def test_these_belong_together(alert: Subject, members: list[Subject], score: float, why: str) -> None:
    assert fit(alert, members, SHOP, ALL) == Match(score, why)


@pytest.mark.parametrize(("alert", "members"), APART.values(), ids=APART)
def test_these_do_not(alert: Subject, members: list[Subject]) -> None:
    assert fit(alert, members, SHOP, ALL) is None


@pytest.mark.parametrize(
    ("switched_off", "alert", "member"),
    [
        ("resource", about("mail", "host:a"), about("shop", "host:a")),
        ("service", about("shop"), about("shop")),
        ("topology", about("shop"), about("db")),
        ("topology", about("db"), about("shop")),
    ],
)
def test_each_rule_can_be_switched_off(switched_off: str, alert: Subject, member: Subject) -> None:
    assert fit(alert, [member], SHOP, ALL)
    assert fit(alert, [member], SHOP, Correlation.model_validate({switched_off: False})) is None


def test_words_add_to_a_score_unless_switched_off() -> None:
    alert, member = about("shop", title="checkout errors"), about("db", title="checkout errors")
    with_words, without = fit(alert, [member], SHOP, ALL), fit(alert, [member], SHOP, Correlation(text=False))
    assert with_words
    assert without
    assert (with_words.score, without.score) == (0.9, 0.7)


def test_one_rule_on_two_services_is_not_merged_for_the_rule_and_the_words() -> None:
    lowest = Correlation(threshold=0.3)
    alert, member = (about(s, rule="cpu", title="CPU is high") for s in ("mail", "shop"))
    assert fit(alert, [member], SHOP, lowest) is None


@pytest.mark.parametrize("which", [0, 1])
def test_a_rule_that_is_never_merged(which: int) -> None:
    alert, member = about("shop", "host:a", rule="mine"), about("shop", "host:a", rule="other")
    never = Correlation(never=((alert, member)[which].rule,))
    assert fit(alert, [member], SHOP, ALL)
    assert fit(alert, [member], SHOP, never) is None
    # It does not keep the alert from another member either.
    assert bool(fit(alert, [member, replace(member, rule="third")], SHOP, never)) == bool(which)


def test_a_score_below_the_threshold_merges_nothing() -> None:
    alert, member = about("shop"), about("db")
    assert fit(alert, [member], SHOP, Correlation(threshold=0.7))
    assert fit(alert, [member], SHOP, Correlation(threshold=0.71)) is None


def test_who_calls_each_other_in_a_circle_belongs_together() -> None:
    circle = Topology([Edge(caller=a, callee=b, source="t") for a, b in (("a", "b"), ("b", "c"), ("c", "a"))])
    assert fit(about("a"), [about("b")], circle, ALL)
    assert circle.around("a") == {"a", "b", "c"}


def test_who_is_around() -> None:
    assert SHOP.around("shop") == {"shop", "web", "api", "edge", "db", "queue", "disks"}
    assert SHOP.around("nobody knows it") == {"nobody knows it"}
    assert [SHOP.down("web", name) for name in ("web", "shop", "db", "disks", "api")] == [0, 1, 2, None, None]


def test_what_half_the_company_shares_is_no_resource() -> None:
    tags = {"env": "production", "Service": "shop", "region": "eu", "host": "a", "queue": ""}
    assert resource_pairs(tags) == {"host:a"}


SUBJECTS = st.builds(
    about,
    st.sampled_from(["web", "api", "shop", "db", "queue", "disks", "edge", "mail"]),
    st.sampled_from(["host:a", "host:b", "device:sda"]),
    title=st.sampled_from(
        ["errors", "disk full", "slow answers and errors", "certificate expires", "a \x00 ?", "오류율 증가"]
    ),
    rule=st.sampled_from(["cpu", "mine", ""]),
    minute=st.floats(-40, 40),
    environment=st.sampled_from(["production", "staging", ""]),
) | st.builds(about, st.sampled_from(["web", "shop", "db", "mail"]), minute=st.integers(-20, 20))
RULES = st.builds(
    Correlation,
    resource=st.booleans(),
    service=st.booleans(),
    topology=st.booleans(),
    text=st.booleans(),
    window_minutes=st.floats(0.001, 1440),
    threshold=st.floats(0.3, 1),
    never=st.sampled_from([(), ("mine",)]),
)


@given(alert=SUBJECTS, members=st.lists(SUBJECTS, max_size=6), rules=RULES, data=st.data())
def test_a_score_is_a_share_above_the_threshold_in_any_order_of_the_members(
    alert: Subject, members: list[Subject], rules: Correlation, data: st.DataObject
) -> None:
    match = fit(alert, members, SHOP, rules)
    shuffled = fit(alert, data.draw(st.permutations(members)), SHOP, rules)
    assert (match.score if match else None) == (shuffled.score if shuffled else None)
    assert match is None or rules.threshold <= match.score <= 1
    assert match is None or (match.why and alert.rule not in rules.never)


@given(one=SUBJECTS, other=SUBJECTS, rules=RULES)
def test_words_alone_merge_nothing(one: Subject, other: Subject, rules: Correlation) -> None:
    without_words = rules.model_copy(update={"text": False, "threshold": 0.0})
    if fit(one, [other], SHOP, rules):
        assert fit(one, [other], SHOP, without_words)


@pytest.mark.parametrize(
    "shared",
    [
        "http.status_code:500",
        "resource_name:get_/health",
        "kube_cluster:prod",
        "device:/dev/sda1",
        "method:GET",
        "env:x",
    ],
)
def test_tags_that_name_no_one_thing_merge_nothing(shared: str) -> None:
    key, _, value = shared.partition(":")
    assert resource_pairs({key: value, "host": "db-1"}) == {"host:db-1"}
