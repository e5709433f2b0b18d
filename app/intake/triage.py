"""Puts every alert in its incident: the state machine of alert cycles. Pure; ``app/alerts.py`` loads and stores.

An alert cycle runs from trigger to recovery. What arrives may be late, doubled, out of order or lost, so each cycle
keeps the time of its newest transition, and an older one changes nothing.
"""

import secrets
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from app.intake.correlate import Correlation, Match, Subject, Topology, fit, resource_pairs
from graph.state import Alert, Language, Severity

SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")  # in the order they are looked at
UNDECIDED = ("received", "collecting", "analyzing", "planning", "awaiting_decision")
RECENTLY = timedelta(minutes=5)  # a fault whose alerts flap is still the same fault
COMPARED = 8  # alerts of an incident for each service or resource
RECOVERED = "Closed: all its alerts recovered, and nobody had decided yet"
EVERY_FLAP_UP_TO = 5  # of a flapping alert's timeline; then every tenth

Became = Literal["opened", "joined", "reopened", "noted", "out_of_order", "unplaced"]


@dataclass
class Cycle:
    """One alert from trigger to recovery, as far as it was heard of."""

    key: str
    fingerprint: str
    rule: str
    service: str
    environment: str
    resources: frozenset[str]
    title: str
    state: Literal["firing", "resolved"]
    changed_at: datetime  # its newest transition, at the source
    fired_at: datetime | None = None
    incident_id: str | None = None
    flaps: int = 0  # how often it came back after a recovery

    @property
    def subject(self) -> Subject:
        """What correlation looks at."""
        at = self.fired_at or self.changed_at
        return Subject(self.fingerprint, self.rule, self.service, self.environment, self.resources, self.title, at)


@dataclass
class Case:
    """An incident, as far as triage looks at it."""

    id: str
    status: str
    severity: Severity
    closed: bool = False
    recovered: bool = False  # closed because all its alerts had recovered
    alone: bool = False  # a person asked for it: no alert joins it
    flaps: int = 0
    follows: str | None = None  # the incident that the same alert had before
    alert: Alert | None = None  # of a new one: the graph's input
    asked_by: str = ""
    language: Language | None = None  # of its report; None: the setting's


@dataclass(frozen=True)
class Happening:
    """A line for an incident's timeline."""

    incident_id: str
    kind: str
    message: str
    data: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Placement:
    """What became of an alert."""

    incident_id: str | None
    became: Became
    why: str = ""
    score: float | None = None


def new_incident_id() -> str:
    """64 random bits."""
    return f"inc_{secrets.token_hex(8)}"


class Board:
    """All cycles and incidents that a batch of alerts may have to do with, and what placing them changes."""

    def __init__(
        self,
        cycles: Iterable[Cycle] = (),
        cases: Iterable[Case] = (),
        *,
        topology: Topology,
        rules: Correlation,
        split: Iterable[tuple[str, str]] = (),
        new_id: Callable[[], str] = new_incident_id,
    ) -> None:
        self.topology, self.rules, self.new_id = topology, rules, new_id
        self.cycles: dict[str, Cycle] = {}
        self.cases = {case.id: case for case in cases}
        self.split = {frozenset(pair) for pair in split}
        self._alike: dict[str, list[Cycle]] = defaultdict(list)
        self._members: dict[str, list[Cycle]] = defaultdict(list)
        self._services: dict[str, set[str]] = defaultdict(set)  # of an incident's alerts
        self._marked: dict[tuple[str, str], set[str]] = defaultdict(set)  # service or resource -> incidents
        self._marked_cycles: dict[tuple[str, tuple[str, str]], deque[Cycle]] = {}  # and the newest alerts there
        self.changed: dict[str, Cycle] = {}
        self.opened: list[Case] = []
        self.closed: dict[str, Case] = {}
        self.reopened: dict[str, Case] = {}
        self.touched: dict[str, Case] = {}  # severity or number of flaps changed
        self.adopted: dict[str, str] = {}  # cycle key -> incident, for alerts that came before their cycle had one
        self.happenings: list[Happening] = []
        for cycle in sorted(cycles, key=lambda c: c.changed_at):
            self._add(cycle)

    def place(self, alert: Alert, asked_by: str = "") -> Placement:
        """Find, open, reopen or close the alert's incident. ``asked_by``: a person wants this very investigation."""
        known = self.cycles.get(alert.cycle_key)
        at = alert.changed_at or alert.occurred_at
        if alert.transition in ("renotify", "insufficient_data"):
            return self._note(known or self._newest(alert.fingerprint))
        if alert.transition == "resolved":
            return self._resolve(alert, at, known)
        if known is None:
            return self._fire_first(alert, at, asked_by)
        if at < known.changed_at or (at == known.changed_at and known.state == "resolved"):
            return self._fire_late(alert, known)
        return self._fire_again(alert, at, known)

    # --- transitions ---

    def _note(self, known: Cycle | None) -> Placement:
        if known is None or known.incident_id is None:
            return Placement(None, "unplaced", "there is no incident of this alert, and a reminder opens none")
        return Placement(known.incident_id, "noted", "same alert cycle")

    def _resolve(self, alert: Alert, at: datetime, known: Cycle | None) -> Placement:
        if known is None:
            known = self._add(_cycle(alert, at, "resolved"))
        # Another feed of the same alert has its own key for the cycle.
        alike = {c.key: c for c in (known, *self._alike[alert.fingerprint])}
        firing = [c for c in alike.values() if c.state == "firing" and c.changed_at <= at]
        for cycle in firing:
            cycle.state, cycle.changed_at = "resolved", at
            self.changed[cycle.key] = cycle
        if known.state == "resolved":
            known.changed_at = max(known.changed_at, at)
            self.changed[known.key] = known
        where = known.incident_id or next((c.incident_id for c in firing if c.incident_id), None)
        if where is None:
            return Placement(None, "unplaced", "there is no incident of this alert, and a recovery opens none")
        if known.incident_id is None:
            self._move(known, self.cases[where])
        for incident_id in sorted({c.incident_id for c in firing if c.incident_id}):
            self._after_recovery(self.cases[incident_id], known)
        if not firing and known.state == "firing":
            return Placement(where, "out_of_order", "an older transition of the same alert cycle")
        return Placement(where, "noted", "same alert cycle" if firing else "its alert cycle had recovered already")

    def _after_recovery(self, case: Case, cycle: Cycle) -> None:
        if _worth_a_line(cycle.flaps):
            self._happen(case, "resolved", f"The monitor says it recovered: {cycle.title}")
        if case.closed or case.status not in UNDECIDED:
            return
        if any(c.state == "firing" for c in self._members[case.id]):
            return
        case.closed, case.recovered, case.status = True, True, "closed"
        self._happen(case, "recovered", RECOVERED, {"status": "closed"})
        self.closed[case.id] = case
        self.reopened.pop(case.id, None)

    def _fire_first(self, alert: Alert, at: datetime, asked_by: str) -> Placement:
        earlier = self._newest(alert.fingerprint)
        cycle = self._add(_cycle(alert, at, "firing"))
        self.changed[cycle.key] = cycle
        if asked_by:
            return self._open(alert, cycle, asked_by=asked_by)
        return self._assign(alert, at, cycle, earlier)

    def _fire_late(self, alert: Alert, known: Cycle) -> Placement:
        """Its recovery, or a newer trigger, was here first."""
        if known.incident_id:
            return Placement(known.incident_id, "out_of_order", "an older transition of the same alert cycle")
        at = known.fired_at = alert.changed_at or alert.occurred_at
        self.changed[known.key] = known
        earlier = self._newest(alert.fingerprint, known)
        if earlier and earlier.incident_id and abs(at - earlier.changed_at) <= self.rules.reopen_within:
            return self._attach(
                known, self.cases[earlier.incident_id], Match(1.0, "the same rule on the same resource")
            )
        if found := self._correlated(alert, at):
            return self._attach(known, *found)
        return self._open(alert, known, over=True)

    def _attach(self, cycle: Cycle, case: Case, match: Match) -> Placement:
        """Give an incident a cycle that is over already: nothing else changes."""
        self._move(cycle, case)
        return Placement(case.id, "joined", f"{match.why}; it has recovered since", match.score)

    def _fire_again(self, alert: Alert, at: datetime, known: Cycle) -> Placement:
        case = self.cases.get(known.incident_id or "")
        newer = at > known.changed_at
        was, recovered_at = known.state, known.changed_at
        known.state, known.changed_at, known.fired_at = "firing", at, at
        self.changed[known.key] = known
        if case and not case.closed:
            if was == "resolved":
                self._flap(case, known)
            self._raise(case, alert)
            return Placement(case.id, "noted", "same alert cycle")
        if case and not newer:
            return Placement(case.id, "noted", "same alert cycle; its incident is closed")
        other = self._newest(alert.fingerprint, known)
        earlier = known if case and not (other and self._takes(other)) else other
        return self._assign(alert, at, known, earlier, recovered_at)

    # --- where a firing alert goes ---

    def _assign(
        self, alert: Alert, at: datetime, cycle: Cycle, earlier: Cycle | None, recovered_at: datetime | None = None
    ) -> Placement:
        case = self.cases.get(earlier.incident_id or "") if earlier else None
        if earlier and case:
            since = recovered_at or earlier.changed_at
            if self._takes(earlier):
                if earlier.state == "resolved":
                    self._flap(case, cycle)
                return self._join(alert, cycle, case, Match(1.0, "the same rule on the same resource"))
            if case.recovered and at - since <= self.rules.reopen_within:
                return self._reopen(alert, cycle, case, Match(1.0, "it came back soon after its recovery"))
        if found := self._correlated(alert, at):
            return (self._reopen if found[0].closed else self._join)(alert, cycle, *found)
        return self._open(alert, cycle, follows=case.id if case else None)

    def _correlated(self, alert: Alert, at: datetime) -> tuple[Case, Match] | None:
        """The incident it fits best: an open one, or else one whose alerts recovered a moment ago."""
        subject = _subject(alert, at)
        best: tuple[Case, Match] | None = None
        for incident_id in self._near(subject):
            case = self.cases.get(incident_id)
            members = self._comparable(incident_id, subject)
            if case is None or not self._takes_others(case, members, at):
                continue
            if self.split and self._is_split(alert, incident_id):
                continue
            services = self._services[incident_id]
            match = fit(subject, [m.subject for m in members], services, self.topology, self.rules)
            if match and (best is None or (not case.closed, match.score) > (not best[0].closed, best[1].score)):
                best = case, match
        return best

    def _takes_others(self, case: Case, members: Iterable[Cycle], at: datetime) -> bool:
        if case.alone or not (case.recovered or case.status in UNDECIDED):
            return False
        if not case.closed:
            return True
        within = min(RECENTLY, self.rules.reopen_within)
        return case.recovered and any(at - member.changed_at <= within for member in members)

    def _near(self, subject: Subject) -> list[str]:
        """Incidents with an alert of a service near by, or of the same resource."""
        return sorted({incident_id for mark in self._marks(subject) for incident_id in self._marked.get(mark, ())})

    def _marks(self, subject: Subject) -> list[tuple[str, str]]:
        around = self.topology.around(subject.service)
        return [*(("service", s) for s in around), *(("", r) for r in subject.resources)]

    def _comparable(self, incident_id: str, subject: Subject) -> list[Cycle]:
        """The newest few of the incident's alerts for each service near by and each shared resource: with thousands
        of alerts in an incident, looking at each of them would take the time that all other alerts wait.
        """
        marked = self._marked_cycles
        some = {
            cycle.key: cycle
            for mark in self._marks(subject)
            for cycle in marked.get((incident_id, mark), ())
            if cycle.incident_id == incident_id and cycle.fingerprint != subject.fingerprint
        }
        return list(some.values())

    def _is_split(self, alert: Alert, incident_id: str) -> bool:
        return any(frozenset((alert.fingerprint, m.fingerprint)) in self.split for m in self._members[incident_id])

    def _open(
        self, alert: Alert, cycle: Cycle, *, asked_by: str = "", over: bool = False, follows: str | None = None
    ) -> Placement:
        case = Case(
            self.new_id(),
            "closed" if over else "received",
            alert.severity,
            closed=over,
            recovered=over,
            alone=bool(asked_by),
            follows=follows,
            alert=alert,
            asked_by=asked_by,
        )
        self.cases[case.id] = case
        self.opened.append(case)
        self._move(cycle, case)
        who = f"Opened by {asked_by}" if asked_by else f"Alert from {alert.source}"
        self._happen(case, "opened", f"{who}: {alert.title}", {"url": alert.url})
        if over:
            said = "Its recovery was here before it: nothing is left to investigate"
            self._happen(case, "recovered", said, {"status": "closed"})
        if follows:
            self._happen(case, "follows", f"The same alert had incident {follows} before", {"incident_id": follows})
        return Placement(case.id, "opened")

    def _join(self, alert: Alert, cycle: Cycle, case: Case, match: Match) -> Placement:
        self._move(cycle, case)
        self._raise(case, alert)
        self._happen(
            case,
            "joined",
            f"{alert.service}: {alert.title} joined: {match.why} (score {match.score:g})",
            {"score": match.score, "service": alert.service},
        )
        return Placement(case.id, "joined", match.why, match.score)

    def _reopen(self, alert: Alert, cycle: Cycle, case: Case, match: Match) -> Placement:
        case.closed, case.recovered, case.status = False, False, "received"
        if case.id in self.closed:  # opened or closed in this very batch
            del self.closed[case.id]
        self.reopened[case.id] = case
        self._happen(case, "reopened", f"Reopened: {match.why}", {"status": "received"})
        self._move(cycle, case)
        self._flap(case, cycle)
        self._raise(case, alert)
        return Placement(case.id, "reopened", match.why, match.score)

    def _flap(self, case: Case, cycle: Cycle) -> None:
        cycle.flaps += 1
        case.flaps += 1
        self.touched[case.id] = case
        if _worth_a_line(case.flaps):
            self._happen(case, "flapping", f"Back after its recovery, {case.flaps}x so far: {cycle.title}")

    def _raise(self, case: Case, alert: Alert) -> None:
        if SEVERITIES.index(alert.severity) < SEVERITIES.index(case.severity):
            said = f"Its severity is {alert.severity} now, it was {case.severity}: {alert.title}"
            self._happen(case, "severity", said, {"severity": alert.severity})
            case.severity = alert.severity
            self.touched[case.id] = case

    # --- bookkeeping ---

    def _newest(self, fingerprint: str, but: Cycle | None = None) -> Cycle | None:
        """The cycle of this rule and resource that changed last; one with an open incident first, then with any."""
        alike = [c for c in self._alike[fingerprint] if c is not but]
        return max(alike, key=lambda c: (self._takes(c), c.incident_id is not None, c.changed_at), default=None)

    def _takes(self, cycle: Cycle) -> bool:
        """Whether its incident takes more of the same alert."""
        case = self.cases.get(cycle.incident_id or "")
        return case is not None and not case.closed and not case.alone

    def _add(self, cycle: Cycle) -> Cycle:
        self.cycles[cycle.key] = cycle
        self._alike[cycle.fingerprint].append(cycle)
        if cycle.incident_id:
            self._belongs(cycle, cycle.incident_id)
        return cycle

    def _belongs(self, cycle: Cycle, incident_id: str) -> None:
        self._members[incident_id].append(cycle)
        self._services[incident_id].add(cycle.service)
        for mark in (("service", cycle.service), *(("", r) for r in cycle.resources)):
            self._marked[mark].add(incident_id)
            newest = self._marked_cycles.setdefault((incident_id, mark), deque(maxlen=COMPARED))
            newest.append(cycle)

    def _move(self, cycle: Cycle, case: Case) -> None:
        if cycle.incident_id and cycle in self._members[cycle.incident_id]:
            self._members[cycle.incident_id].remove(cycle)
        if cycle.incident_id is None:
            self.adopted[cycle.key] = case.id
        cycle.incident_id = case.id
        self._belongs(cycle, case.id)

    def _happen(self, case: Case, kind: str, message: str, data: Mapping[str, JsonValue] | None = None) -> None:
        self.happenings.append(Happening(case.id, kind, message, data or {}))


def _worth_a_line(flaps: int) -> bool:
    return flaps <= EVERY_FLAP_UP_TO or flaps % 10 == 0


def _subject(alert: Alert, at: datetime) -> Subject:
    pairs = resource_pairs(alert.resources)
    return Subject(alert.fingerprint, alert.rule, alert.service, alert.environment, pairs, alert.title, at)


def _cycle(alert: Alert, at: datetime, state: Literal["firing", "resolved"]) -> Cycle:
    return Cycle(
        key=alert.cycle_key,
        fingerprint=alert.fingerprint,
        rule=alert.rule,
        service=alert.service,
        environment=alert.environment,
        resources=resource_pairs(alert.resources),
        title=alert.title,
        state=state,
        changed_at=at,
        fired_at=at if state == "firing" else None,
    )
