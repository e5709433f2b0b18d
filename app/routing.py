"""Who hears of an event: the owner of what alerted, and once it is known the owner of what caused it. Pure.

Who heard of an incident once hears of it to its end. Who never did is not told that it ended.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import JsonValue

from app.store.outbox import ENDINGS
from graph.catalogue import Catalogue, JiraProject, Team
from graph.policy import Messages
from graph.state import Language, Severity

PROGRAMS = ("webhook",)  # they do not sleep, and hear of everything
ENDS = ("recovered", "note")  # and a status of ENDINGS
EVERYBODYS = "default"  # the target of programs

WHY: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "alerting": "{team} owns {service}, which alerted",
        "causing": "{team} owns {component}, which the analysis blames for the trouble of {service}",
        "both": "{team} owns {component}, which alerted and which the analysis blames",
        "next": "nobody decided in time, and {team} is next in line",
        "default": "nobody is known to own {service}",
        "missed": "{target} could not be told",
        "program": "it hears of every incident",
    },
    "ko": {
        "alerting": "알림이 발생한 {service}의 담당 팀은 {team}입니다",
        "causing": "분석이 {service} 장애의 원인으로 지목한 {component}의 담당 팀은 {team}입니다",
        "both": "알림이 발생했고 분석이 원인으로 지목한 {component}의 담당 팀은 {team}입니다",
        "next": "제때 결정한 사람이 없어 다음 순서인 {team} 팀에 알립니다",
        "default": "{service}의 담당 팀이 알려져 있지 않습니다",
        "missed": "{target}에 알림을 보내지 못했습니다",
        "program": "모든 장애를 전달받습니다",
    },
}


@dataclass(frozen=True)
class Happened:
    """An event, and what is known of its incident by now."""

    kind: str
    data: Mapping[str, JsonValue]
    service: str
    severity: Severity
    language: Language
    component: str | None = None  # that the newest analysis blames
    held: bool = False  # a silence holds the incident back

    @property
    def status(self) -> JsonValue:
        """Of a change of status; else None."""
        return self.data.get("status") if self.kind == "status" else None

    @property
    def is_end(self) -> bool:
        """Told only to those who heard of the incident before."""
        return self.kind in ENDS or self.status in ENDINGS

    @property
    def lacks_people(self) -> bool:
        """Nobody is on it: then severity does not matter."""
        return self.kind == "escalation" or self.status == "needs_attention"

    @property
    def asks_for_a_ticket(self) -> str:
        """The word of ``Messages.tickets_on`` for it; empty: none."""
        if self.kind == "decision":
            return str(self.data.get("choice", ""))
        return str(self.status or self.kind)


class Hearer(NamedTuple):
    """Who is told, and why; ``team`` is empty where teams are not declared."""

    notifier: str
    target: str
    team: str
    why: str


class Concerned(NamedTuple):
    """A team that an incident concerns; the name may be none of the declared ones."""

    name: str
    why: str


@dataclass(frozen=True)
class Routes:
    """What decides: the catalogue, the policy, and which notifiers are turned on."""

    catalogue: Catalogue
    policy: Messages
    notifiers: Collection[str]

    def hearers(self, happened: Happened, before: Sequence[Hearer] = ()) -> list[Hearer]:
        """Everybody who is told of it; ``before``: those who heard of the incident already, and still do."""
        if happened.kind == "not_delivered":
            return list(self._instead(happened))
        known = {(h.notifier, h.target): h for h in before if self._is_there(h)}
        if not happened.is_end and not happened.held:
            for hearer in self._new(happened, known.values()):
                known.setdefault((hearer.notifier, hearer.target), hearer)
        return list(known.values())

    def _is_there(self, hearer: Hearer) -> bool:
        """Whether its notifier is turned on, and its channel is still one of those that are set."""
        if hearer.notifier != "slack":  # a page that was sent is to be resolved, whatever the team has now
            return hearer.notifier in self.notifiers
        channels = {self.policy.default_channel, *(team.slack_channel for team in self.catalogue.teams.values())}
        return "slack" in self.notifiers and hearer.target in channels

    def _instead(self, happened: Happened) -> Iterator[Hearer]:
        """Who hears of an incident because a channel did not: the channel of all."""
        missed, default = str(happened.data.get("target")), self.policy.default_channel
        if happened.data.get("notifier") == "slack" in self.notifiers and default and default != missed:
            yield Hearer("slack", default, "", WHY[happened.language]["missed"].format(target=missed))

    def responsible(self, service: str, component: str | None) -> str:
        """The team that has to decide: the causing component's owner, else the alerting service's, else the default."""
        owner = self.catalogue.owner(component) if component else ""
        return owner or self.catalogue.owner(service) or self.policy.default_team

    def _new(self, happened: Happened, known: Collection[Hearer]) -> Iterator[Hearer]:
        concerned = self._concerned(happened)
        for notifier in self.notifiers:
            if not (self.policy.concerns(notifier, happened.severity) or happened.lacks_people):
                continue
            if notifier in PROGRAMS:
                yield Hearer(notifier, EVERYBODYS, "", WHY[happened.language]["program"])
            elif notifier == "slack":
                yield from self._channels(happened, concerned)
            elif notifier == "pagerduty":
                yield from self._pagers(concerned)
            elif notifier == "jira":
                if not any(hearer.notifier == "jira" for hearer in known):  # one ticket for each incident
                    yield from self._ticket(happened, concerned)
            else:  # a plug-in that nobody thought of here: its targets are teams
                yield from (Hearer(notifier, name, name, why) for name, why in concerned)

    def _concerned(self, happened: Happened) -> list[Concerned]:
        """Whoever has to decide first; each team once."""
        service, component = happened.service, happened.component
        alerting, causing = self.catalogue.owner(service), self.catalogue.owner(component) if component else ""
        found: list[Concerned] = []

        def add(team: str, reason: str) -> None:
            if team and team not in {c.name for c in found}:
                why = self._texts(team, happened)[reason].format(team=team, service=service, component=component)
                found.append(Concerned(team, why))

        add(causing, "both" if component == service else "causing")
        add(alerting, "alerting")
        if not found:
            add(self.policy.default_team, "default")
        if happened.kind == "escalation":
            add(str(happened.data.get("team") or ""), "next")
        return found

    def _texts(self, name: str, happened: Happened) -> Mapping[str, str]:
        """In the team's language, or else the incident's."""
        team = self.catalogue.teams.get(name)
        return WHY[(team.language if team else None) or happened.language]

    def _declared(self, concerned: Iterable[Concerned]) -> Iterator[tuple[Concerned, Team]]:
        teams = self.catalogue.teams
        return ((one, teams[one.name]) for one in concerned if one.name in teams)

    def _channels(self, happened: Happened, concerned: Sequence[Concerned]) -> Iterator[Hearer]:
        """Each team's own, or the channel of all for those that have none."""
        nobodys = Concerned("", WHY[happened.language]["default"].format(service=happened.service))
        for one in concerned or [nobodys]:
            team = self.catalogue.teams.get(one.name)
            channel = (team.slack_channel if team else "") or self.policy.default_channel
            if channel:
                yield Hearer("slack", channel, one.name, one.why)

    def _pagers(self, concerned: Sequence[Concerned]) -> Iterator[Hearer]:
        for one, team in self._declared(concerned):
            if team.pagerduty:
                yield Hearer("pagerduty", team.pagerduty, one.name, one.why)

    def _ticket(self, happened: Happened, concerned: Sequence[Concerned]) -> Iterator[Hearer]:
        """Of the team that has to decide, or else of the next that has a project."""
        if happened.asks_for_a_ticket not in self.policy.tickets_on:
            return
        projects: Iterable[tuple[Concerned, JiraProject | None]]
        projects = ((one, team.jira) for one, team in self._declared(concerned))
        yield from [Hearer("jira", one.name, one.name, one.why) for one, project in projects if project][:1]
