"""Triage under any order, doubling and loss of transitions, and whatever people and remedies do meanwhile."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from app.intake.correlate import Correlation, Topology
from app.intake.triage import UNDECIDED, Board, Case, Cycle, Placement
from collectors.base import Edge
from graph.state import Alert, Severity, Transition

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
SHOP = Topology([Edge(caller="web", callee="shop", source="catalogue"), Edge(caller="shop", callee="db", source="c")])
APART = Correlation(resource=False, service=False, topology=False, text=False)  # every alert has its own incident


def alert(
    key: str = "a",
    transition: Transition = "firing",
    minute: float = 0,
    *,
    fingerprint: str | None = None,
    service: str = "shop",
    severity: Severity = "critical",
) -> Alert:
    """An alert of a cycle; cycles ``a``, ``a.1``, ``a.2`` … are of one rule and resource."""
    at = T0 + timedelta(minutes=minute)
    return Alert(
        source="test",
        rule=f"rule:{service}",
        title=f"errors of {service}",
        severity=severity,
        service=service,
        occurred_at=at,
        changed_at=at,
        fingerprint=fingerprint or key.partition(".")[0],
        cycle_key=key,
        transition=transition,
    )


class Tables:
    """What ``app/alerts.py`` keeps between batches: only what a board says it changed."""

    def __init__(self, rules: Correlation | None = None, topology: Topology = SHOP) -> None:
        self.rules, self.topology = rules or Correlation(), topology
        self.cycles: dict[str, Cycle] = {}
        self.cases: dict[str, Case] = {}
        self.went: dict[str, set[str]] = defaultdict(set)  # cycle -> incidents its alerts are in
        self._ids = count(1)

    def accept(self, batch: Iterable[Alert], asked_by: str = "") -> list[Placement]:
        """One transaction."""
        board = Board(
            map(copy, self.cycles.values()),
            map(copy, self.cases.values()),
            topology=self.topology,
            rules=self.rules,
            new_id=lambda: f"i{next(self._ids)}",
        )
        placements = []
        for one in batch:
            placed = board.place(one, asked_by)
            placements.append(placed)
            if placed.incident_id:
                self.went[one.cycle_key].add(placed.incident_id)
        self._save(board)
        return placements

    def _save(self, board: Board) -> None:
        """As ``app/store/alerts.py`` does it, statement by statement."""
        self.cycles |= board.changed
        for case in board.opened:
            status = "closed" if case.closed else "received"
            self.cases[case.id] = replace(case, status=status, recovered=case.closed, flaps=0)
        for incident_id in board.closed:
            if not self.cases[incident_id].closed:
                self.close(incident_id, recovered=True)
        for incident_id in board.reopened.keys() - {case.id for case in board.opened}:
            case = self.cases[incident_id]
            case.status, case.closed, case.recovered = "received", False, False
        for incident_id, case in board.touched.items():
            self.cases[incident_id].severity, self.cases[incident_id].flaps = case.severity, case.flaps
        assert self.cycles == board.cycles
        assert _facts(self.cases.values()) == _facts(board.cases.values())

    def close(self, incident_id: str, status: str = "closed", *, recovered: bool = False) -> None:
        """A person, a remedy or a recovery did."""
        case = self.cases[incident_id]
        case.closed, case.status, case.recovered = True, status, recovered

    def open_ones(self) -> list[Case]:
        """Incidents that are not closed."""
        return [case for case in self.cases.values() if not case.closed]

    def open_fingerprints(self) -> set[str]:
        """What is alerting, as far as incidents tell."""
        open_ids = {case.id for case in self.open_ones()}
        return {c.fingerprint for c in self.cycles.values() if c.incident_id in open_ids and c.state == "firing"}


def _facts(cases: Iterable[Case]) -> dict[str, tuple[object, ...]]:
    return {c.id: (c.status, c.closed, c.recovered, c.severity, c.flaps, c.alone, c.follows) for c in cases}


# --- examples ---


class Step(NamedTuple):
    """A transition, and where it should go: ``became`` and the incident."""

    key: str
    transition: Transition
    minute: float
    became: str
    incident: str | None


STORIES: dict[str, list[Step]] = {
    "from trigger to recovery": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a", "renotify", 5, "noted", "i1"),
        Step("a", "insufficient_data", 6, "noted", "i1"),
        Step("a", "resolved", 9, "noted", "i1"),
    ],
    "no data opens too": [Step("a", "no_data", 0, "opened", "i1"), Step("a", "firing", 1, "noted", "i1")],
    "reminders and recoveries open nothing": [
        Step("a", "renotify", 0, "unplaced", None),
        Step("a", "insufficient_data", 1, "unplaced", None),
        Step("a", "resolved", 2, "unplaced", None),
    ],
    "the recovery was faster": [Step("a", "resolved", 5, "unplaced", None), Step("a", "firing", 1, "opened", "i1")],
    "at equal times the recovery wins": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a", "resolved", 5, "noted", "i1"),
        Step("a", "firing", 5, "out_of_order", "i1"),
    ],
    "an older recovery changes nothing": [
        Step("a", "firing", 5, "opened", "i1"),
        Step("a", "resolved", 3, "out_of_order", "i1"),
    ],
    "back within the window": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a", "resolved", 10, "noted", "i1"),
        Step("a", "firing", 40, "reopened", "i1"),
    ],
    "back as a new cycle within the window": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a", "resolved", 10, "noted", "i1"),
        Step("a.1", "firing", 40, "reopened", "i1"),
    ],
    "back after the window": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a", "resolved", 10, "noted", "i1"),
        Step("a.1", "firing", 40.1, "opened", "i2"),
    ],
    "two feeds": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a.slack", "firing", 0.1, "joined", "i1"),
        Step("a.slack", "resolved", 5, "noted", "i1"),
        Step("a", "resolved", 5, "noted", "i1"),
    ],
    "a reminder of another feed": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a.slack", "renotify", 1, "noted", "i1"),
    ],
    # Nothing tells a late copy of a fault that is over from a new one: to open once too often is the lesser evil.
    "a late trigger of another feed opens until its own recovery": [
        Step("a", "firing", 0, "opened", "i1"),
        Step("a", "resolved", 5, "noted", "i1"),
        Step("a.slack", "firing", 0, "reopened", "i1"),
        Step("a.slack", "resolved", 5, "noted", "i1"),
    ],
}


@pytest.mark.parametrize("steps", STORIES.values(), ids=STORIES)
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "in one batch"])
def test_a_story(steps: Sequence[Step], together: bool) -> None:
    tables = Tables(APART)
    batch = [alert(step.key, step.transition, step.minute) for step in steps]
    placed = tables.accept(batch) if together else [p for one in batch for p in tables.accept([one])]
    assert [(p.became, p.incident_id) for p in placed] == [(s.became, s.incident) for s in steps]


def test_an_incident_closes_with_the_last_of_its_alerts() -> None:
    tables = Tables()
    tables.accept([alert("a"), alert("b", minute=1)])
    assert len(tables.cases) == 1
    tables.accept([alert("a", "resolved", 5)])
    assert not tables.cases["i1"].closed
    tables.accept([alert("b", "resolved", 6)])
    assert (tables.cases["i1"].closed, tables.cases["i1"].recovered) == (True, True)


def test_flapping_is_counted_and_told_less_and_less_often() -> None:
    tables, told = Tables(APART), 0
    for n in range(30):
        board = Board(tables.cycles.values(), tables.cases.values(), topology=SHOP, rules=APART, new_id=lambda: "i1")
        board.place(alert("a", "firing", 2 * n))
        board.place(alert("a", "resolved", 2 * n + 1))
        tables._save(board)
        told += sum(h.kind == "flapping" for h in board.happenings)
    assert (tables.cases["i1"].flaps, tables.cycles["a"].flaps) == (29, 29)
    assert told == 7  # the first five, then every tenth


def test_a_new_incident_names_the_one_before() -> None:
    tables = Tables(APART)
    tables.accept([alert("a"), alert("a", "resolved", 1), alert("a", minute=100)])
    assert tables.cases["i2"].follows == "i1"


@pytest.mark.parametrize("status", ["closed", "resolved", "needs_attention"])
def test_what_a_person_or_a_remedy_closed_is_not_reopened(status: str) -> None:
    tables = Tables(APART)
    tables.accept([alert("a")])
    tables.close("i1", status)
    assert tables.accept([alert("a")])[0].became == "noted"  # the very same transition again
    assert tables.accept([alert("a", minute=3)]) == [Placement("i2", "opened")]
    assert tables.cases["i2"].follows == "i1"
    assert tables.accept([alert("a", minute=4)])[0].incident_id == "i2"


@pytest.mark.parametrize("status", ["executing", "verifying"])
def test_a_recovery_during_a_remedy_is_noted_and_closes_nothing(status: str) -> None:
    tables = Tables()
    tables.accept([alert("a")])
    tables.cases["i1"].status = status
    tables.accept([alert("a", "resolved", 3)])
    assert (tables.cases["i1"].closed, tables.cases["i1"].status) == (False, status)


def test_nothing_joins_what_a_person_asked_for() -> None:
    tables = Tables()
    tables.accept([alert("byhand")], asked_by="kim")
    assert tables.accept([alert("a")]) == [Placement("i2", "opened")]


def test_a_worse_alert_makes_its_incident_worse() -> None:
    tables = Tables()
    tables.accept([alert("a", severity="warning"), alert("b", severity="critical"), alert("c", severity="info")])
    assert [case.severity for case in tables.cases.values()] == ["critical"]


def test_a_closed_incident_of_the_same_cycle_does_not_hide_an_open_one_of_the_same_alert() -> None:
    tables = Tables(APART)
    tables.accept([alert("a")])
    tables.close("i1")
    assert tables.accept([alert("a.slack", minute=1)])[0].incident_id == "i2"
    assert tables.accept([alert("a", minute=2)])[0].incident_id == "i2"


def test_what_a_person_asked_for_does_not_hide_an_open_incident_of_the_same_alert() -> None:
    tables = Tables(APART)
    tables.accept([alert("a")])
    tables.accept([alert("a.byhand", minute=1)], asked_by="kim")
    assert tables.accept([alert("a.slack", minute=2)])[0].incident_id == "i1"


# --- anything may happen ---

FINGERPRINTS = {"disk": "db", "errors": "shop", "slow": "shop", "down": "web"}
KEYS = [f"{name}.{n}" for name in FINGERPRINTS for n in range(3)]
TRANSITIONS: tuple[Transition, ...] = (
    "firing",
    "firing",
    "resolved",
    "resolved",
    "no_data",
    "renotify",
    "insufficient_data",
)
MINUTES = st.integers(0, 200).map(lambda n: n / 2) | st.integers(0, 12)


def _any_alert(key: str, transition: Transition, minute: float, severity: Severity) -> Alert:
    return alert(key, transition, minute, service=FINGERPRINTS[key.partition(".")[0]], severity=severity)


ALERTS = st.builds(
    _any_alert,
    st.sampled_from(KEYS),
    st.sampled_from(TRANSITIONS),
    MINUTES,
    st.sampled_from(("critical", "warning", "info")),
)
RULES = st.sampled_from([Correlation(), APART, Correlation(reopen_minutes=0), Correlation(never=("rule:shop",))])


class Weather(RuleBasedStateMachine):
    """Batches of alerts in any order, and people and remedies that close incidents in between."""

    @initialize(rules=RULES)
    def begin(self, rules: Correlation) -> None:
        self.tables = Tables(rules)
        self.fired: dict[str, datetime] = {}  # newest trigger of each cycle
        self.recovered: dict[str, datetime] = {}  # newest recovery of each fingerprint
        self.asked = 0

    @rule(batch=st.lists(ALERTS, min_size=1, max_size=6))
    def deliver(self, batch: list[Alert]) -> None:
        before = {case.id for case in self.tables.open_ones()}
        known = self._known()
        for one, placed in zip(batch, self.tables.accept(batch), strict=True):
            self._hear(one)
            if one.transition not in ("firing", "no_data"):
                assert placed.became not in ("opened", "joined", "reopened")
                continue
            assert placed.incident_id
            if placed.became == "opened" and len(batch) == 1 and not self.tables.cases[placed.incident_id].closed:
                assert one.fingerprint not in known
        if all(one.transition not in ("firing", "no_data") for one in batch):
            assert {case.id for case in self.tables.open_ones()} <= before

    def _known(self) -> set[str]:
        """Fingerprints that have an open incident, but for those that persons asked for."""
        open_ids = {case.id for case in self.tables.open_ones() if not case.alone}
        return {cycle.fingerprint for cycle in self.tables.cycles.values() if cycle.incident_id in open_ids}

    def _hear(self, one: Alert) -> None:
        assert one.changed_at
        if one.transition in ("firing", "no_data"):
            self.fired[one.cycle_key] = max(one.changed_at, self.fired.get(one.cycle_key, T0))
        if one.transition == "resolved":
            self.recovered[one.fingerprint] = max(one.changed_at, self.recovered.get(one.fingerprint, T0))

    @rule(data=st.data(), status=st.sampled_from(["closed", "resolved", "needs_attention"]))
    def close(self, data: st.DataObject, status: str) -> None:
        if found := self.tables.open_ones():
            self.tables.close(data.draw(st.sampled_from(found)).id, status)

    @rule(data=st.data(), status=st.sampled_from([*UNDECIDED, "executing", "verifying"]))
    def advance(self, data: st.DataObject, status: str) -> None:
        if found := self.tables.open_ones():
            data.draw(st.sampled_from(found)).status = status

    @rule(name=st.sampled_from(list(FINGERPRINTS)), minute=MINUTES)
    def ask(self, name: str, minute: float) -> None:
        self.asked += 1
        one = _any_alert(f"{name}.byhand{self.asked}", "firing", minute, "critical")
        assert self.tables.accept([one], asked_by="kim")[0].became == "opened"
        self._hear(one)

    @invariant()
    def one_open_incident_of_a_fingerprint(self) -> None:
        """An incident with other alerts in it may be reopened for those; hence only where nothing is merged."""
        open_ids = {case.id for case in self.tables.open_ones() if not case.alone}
        went_to: dict[str, set[str]] = defaultdict(set)
        for key, went in self.tables.went.items() if self.tables.rules == APART else ():
            went_to[key.partition(".")[0]] |= went & open_ids
        assert all(len(found) <= 1 for found in went_to.values()), went_to

    @invariant()
    def nothing_that_fires_is_lost(self) -> None:
        for key, at in self.fired.items():
            cycle = self.tables.cycles[key]
            assert cycle.incident_id in self.tables.cases
            if at > self.recovered.get(cycle.fingerprint, T0 - timedelta(days=1)):
                case = self.tables.cases[cycle.incident_id]
                assert (cycle.state, cycle.changed_at) == ("firing", at)
                assert not case.closed or not case.recovered

    @invariant()
    def what_fires_has_an_incident_and_nothing_waits_for_a_recovery_that_was_heard(self) -> None:
        members: dict[str, list[Cycle]] = defaultdict(list)
        for cycle in self.tables.cycles.values():
            assert cycle.incident_id or cycle.state == "resolved"
            members[cycle.incident_id or ""].append(cycle)
        for case in self.tables.cases.values():
            assert members[case.id] or case.closed
            if case.recovered:
                assert all(cycle.state == "resolved" for cycle in members[case.id])


TestWeather = Weather.TestCase
TestWeather.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)


# --- the order does not matter ---


@st.composite
def histories(draw: st.DrawFn) -> list[Alert]:
    """What the sources have to tell, in order: every fingerprint fires and recovers, over one or two feeds."""
    told: list[Alert] = []
    for name in FINGERPRINTS:
        times = sorted(draw(st.sets(st.integers(0, 60), max_size=5)))
        feeds = draw(st.sampled_from([("",), ("", "slack")]))
        new_key = draw(st.booleans())  # Datadog names every cycle anew, a CloudWatch alarm keeps its name
        for n, minute in enumerate(times):
            transition: Transition = "resolved" if n % 2 else draw(st.sampled_from(["firing", "no_data"]))
            for feed in feeds:
                key = f"{name}.{feed}{n // 2 if new_key else ''}"
                told.append(_any_alert(key, transition, minute, "critical"))
                if not n % 2 and draw(st.booleans()):
                    told.append(_any_alert(key, "renotify", minute + 0.5, "critical"))
    return sorted(told, key=lambda a: a.changed_at or T0)


@settings(max_examples=300, deadline=None)
@given(told=histories(), data=st.data(), rules=RULES)
def test_any_order_with_copies_ends_like_the_right_order(
    told: list[Alert], data: st.DataObject, rules: Correlation
) -> None:
    orderly, disorderly = Tables(rules), Tables(rules)
    orderly.accept(told)
    copies = data.draw(st.lists(st.sampled_from(told), max_size=8)) if told else []
    shuffled = data.draw(st.permutations([*told, *copies]))
    while shuffled:
        size = data.draw(st.integers(1, 8))
        disorderly.accept(shuffled[:size])
        shuffled = shuffled[size:]
    assert disorderly.open_fingerprints() == orderly.open_fingerprints()
    for tables in (orderly, disorderly):
        with_something_firing = {c.incident_id for c in tables.cycles.values() if c.state == "firing"}
        assert {case.id for case in tables.open_ones()} == with_something_firing
    newest = {one.fingerprint: one for one in told if one.transition != "renotify"}
    assert orderly.open_fingerprints() == {name for name, one in newest.items() if one.transition != "resolved"}
