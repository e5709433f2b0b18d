"""Who hears of what, and when: owners of causes and of alerts, severity, tickets, quiet hours, lines of teams."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from app.catalogue import AutopilotYaml, CatalogueError, load
from app.routing import WHY, Happened, Hearer, Routes
from graph.policy import Messages, QuietHours
from graph.state import Severity

ALL = ("slack", "jira", "pagerduty", "webhook")
YAML = """
teams:
  web: {slack_channel: "#web", pagerduty: web, next: platform}
  payments: {slack_channel: "#payments", pagerduty: pay, jira: {project: PAY}, next: platform}
  platform: {slack_channel: "#platform", jira: {project: OPS}, next: bosses}
  bosses: {pagerduty: bosses}
services:
  checkout: {owner: web}
  payment-service: {owner: payments}
  orders-db: {owner: platform}
  old-thing: {}
"""


@pytest.fixture
def file(tmp_path: Path) -> AutopilotYaml:
    """The file."""
    return written(tmp_path, YAML)


def written(folder: Path, text: str) -> AutopilotYaml:
    """Loaded from a file."""
    (folder / "autopilot.yaml").write_text(text)
    return load(folder / "autopilot.yaml")


def routes(file: AutopilotYaml, *notifiers: str, **policy: Any) -> Routes:
    """With a policy of messages."""
    return Routes(file.catalogue(), Messages.model_validate(policy), notifiers or ALL)


def happened(kind: str = "opened", data: Mapping[str, Any] | None = None, **more: Any) -> Happened:
    """Of checkout, critical."""
    return Happened(
        kind,
        data or {},
        more.pop("service", "checkout"),
        more.pop("severity", "critical"),
        more.pop("language", "en"),
        **more,
    )


def status(word: str, **more: Any) -> Happened:
    """A change of status."""
    return happened("status", {"status": word}, **more)


def where(hearers: list[Hearer]) -> list[tuple[str, str]]:
    """Notifier and target."""
    return [(h.notifier, h.target) for h in hearers]


# --- whose ---


def test_before_the_cause_is_known_the_owner_of_what_alerted_hears(file: AutopilotYaml) -> None:
    found = routes(file).hearers(happened())
    assert where(found) == [("slack", "#web"), ("pagerduty", "web"), ("webhook", "default")]
    assert {h.why for h in found[:2]} == {"web owns checkout, which alerted"}


def test_once_it_is_known_the_owner_of_the_cause_hears_too_and_both_are_told_why(file: AutopilotYaml) -> None:
    before = routes(file).hearers(happened())
    found = routes(file).hearers(status("awaiting_decision", component="payment-service"), before)
    assert found[: len(before)] == before
    assert [h[:3] for h in found[len(before) :]] == [
        ("slack", "#payments", "payments"),
        ("pagerduty", "pay", "payments"),
    ]
    assert found[-1].why == "payments owns payment-service, which the analysis blames for the trouble of checkout"


def test_whoever_owns_both_hears_once(file: AutopilotYaml) -> None:
    (found,) = routes(file, "slack").hearers(status("awaiting_decision", component="checkout"))
    assert found == ("slack", "#web", "web", "web owns checkout, which alerted and which the analysis blames")


def test_two_teams_of_one_channel_hear_once(tmp_path: Path) -> None:
    shared = written(tmp_path, YAML.replace('"#payments"', '"#web"'))
    found = routes(shared, "slack").hearers(status("awaiting_decision", component="payment-service"))
    assert where(found) == [("slack", "#web")]


@pytest.mark.parametrize("service", ["old-thing", "nobody-lists-it"])
def test_where_nobody_owns_it_the_default_hears(file: AutopilotYaml, service: str) -> None:
    opened = happened(service=service)
    assert where(routes(file, "slack", "pagerduty").hearers(opened)) == []
    (channel,) = routes(file, "slack", default_channel="#incidents").hearers(opened)
    assert channel == ("slack", "#incidents", "", f"nobody is known to own {service}")
    found = routes(file, "slack", "pagerduty", default_team="web", default_channel="#incidents").hearers(opened)
    assert where(found) == [("slack", "#web"), ("pagerduty", "web")]


def test_without_declared_teams_owners_are_words_and_the_default_channel_hears(tmp_path: Path) -> None:
    plain = written(tmp_path, "services: {checkout: {owner: the web people}}\n")
    (found,) = routes(plain, "slack", default_channel="#incidents").hearers(happened())
    assert found == ("slack", "#incidents", "the web people", "the web people owns checkout, which alerted")


def test_a_notifier_that_nobody_thought_of_hears_by_team(file: AutopilotYaml) -> None:
    found = routes(file, "telegram").hearers(status("awaiting_decision", component="orders-db"))
    assert where(found) == [("telegram", "platform"), ("telegram", "web")]


def test_why_is_told_in_the_incidents_language(file: AutopilotYaml) -> None:
    (found,) = routes(file, "slack").hearers(happened(language="ko"))
    assert found.why == "알림이 발생한 checkout의 담당 팀은 web입니다"
    assert WHY["ko"].keys() == WHY["en"].keys()


def test_why_is_told_in_the_teams_own_language(tmp_path: Path) -> None:
    korean = written(tmp_path, YAML.replace("web: {", "web: {language: ko, "))
    found = routes(korean, "slack").hearers(status("awaiting_decision", component="payment-service"))
    assert [h.why for h in found] == [
        "payments owns payment-service, which the analysis blames for the trouble of checkout",
        "알림이 발생한 checkout의 담당 팀은 web입니다",
    ]


def test_a_team_without_a_channel_is_told_in_the_channel_of_all(file: AutopilotYaml) -> None:
    route = routes(file, "slack", default_channel="#incidents")
    found = route.hearers(happened("escalation", {"team": "bosses"}))
    assert [h[1:3] for h in found] == [("#web", "web"), ("#incidents", "bosses")]
    assert found[-1].why == "nobody decided in time, and bosses is next in line"


def test_the_channel_of_all_hears_of_what_a_channel_could_not_be_told(file: AutopilotYaml) -> None:
    route = routes(file, "slack", "jira", default_channel="#incidents")
    before = route.hearers(happened())
    missed = happened("not_delivered", {"notifier": "slack", "target": "#web"})
    assert route.hearers(missed, before) == [("slack", "#incidents", "", "#web could not be told")]
    for other in ({"notifier": "slack", "target": "#incidents"}, {"notifier": "jira", "target": "#web"}):
        assert route.hearers(happened("not_delivered", other), before) == []
    assert routes(file, "slack").hearers(missed, before) == []


def test_a_channel_that_was_renamed_is_told_no_more(file: AutopilotYaml, tmp_path: Path) -> None:
    before = routes(file, "slack", "pagerduty").hearers(happened())
    renamed = written(tmp_path, YAML.replace('"#web", pagerduty: web', '"#front", pagerduty: front'))
    found = routes(renamed, "slack", "pagerduty").hearers(status("awaiting_decision"), before)
    assert where(found) == [("pagerduty", "web"), ("slack", "#front"), ("pagerduty", "front")]


def test_a_page_is_resolved_by_the_key_it_was_sent_with(file: AutopilotYaml, tmp_path: Path) -> None:
    before = routes(file, "pagerduty").hearers(happened())
    renamed = written(tmp_path, YAML.replace("pagerduty: web", "pagerduty: front"))
    assert where(routes(renamed, "pagerduty").hearers(happened("recovered"), before)) == [("pagerduty", "web")]


# --- of what ---


def test_who_heard_of_it_hears_of_its_end_and_who_did_not_does_not(file: AutopilotYaml) -> None:
    route = routes(file)
    before = route.hearers(happened())
    for end in (status("resolved"), status("closed"), happened("recovered"), happened("note")):
        assert route.hearers(end) == []
        assert route.hearers(end, before) == before


def test_a_notifier_that_was_turned_off_hears_no_more(file: AutopilotYaml) -> None:
    before = routes(file).hearers(happened())
    assert where(routes(file, "webhook").hearers(happened("decision"), before)) == [("webhook", "default")]


def test_a_silenced_incident_is_told_to_nobody(file: AutopilotYaml) -> None:
    assert routes(file).hearers(happened(held=True)) == []


@pytest.mark.parametrize(
    ("severity", "expected"), [("critical", ["slack", "pagerduty"]), ("warning", ["slack"]), ("info", [])]
)
def test_severity_by_policy(file: AutopilotYaml, severity: Severity, expected: list[str]) -> None:
    route = routes(file, "slack", "pagerduty", least_severity={"slack": "warning"})
    assert [h.notifier for h in route.hearers(happened(severity=severity))] == expected


@pytest.mark.parametrize(
    "lacking", [happened("escalation", severity="info"), status("needs_attention", severity="info")]
)
def test_where_people_lack_severity_does_not_matter(file: AutopilotYaml, lacking: Happened) -> None:
    assert [h.notifier for h in routes(file, "slack", "pagerduty").hearers(lacking)] == ["slack", "pagerduty"]


def test_an_escalation_tells_the_next_in_line_too(file: AutopilotYaml) -> None:
    before = routes(file, "slack", "pagerduty").hearers(happened())
    found = routes(file, "slack", "pagerduty").hearers(happened("escalation", {"team": "platform"}), before)
    assert where(found) == [("slack", "#web"), ("pagerduty", "web"), ("slack", "#platform")]
    assert found[-1].why == "nobody decided in time, and platform is next in line"
    again = routes(file, "slack", "pagerduty").hearers(happened("escalation", {"team": "bosses"}), found)
    assert where(again) == [*where(found), ("pagerduty", "bosses")]


# --- tickets ---


def test_a_ticket_is_made_where_somebody_takes_it_by_hand_by_the_owner_of_the_cause(file: AutopilotYaml) -> None:
    route = routes(file, "jira")
    assert route.hearers(status("awaiting_decision", component="payment-service")) == []
    assert route.hearers(happened("decision", {"choice": "1"}, component="payment-service")) == []
    found = route.hearers(happened("decision", {"choice": "manual"}, component="payment-service"))
    assert where(found) == [("jira", "payments")]
    assert route.hearers(happened("decision", {"choice": "manual"}, component="orders-db"), found) == found  # one only


def test_of_whoever_has_a_project(file: AutopilotYaml) -> None:
    by_hand = happened("decision", {"choice": "manual"}, service="orders-db", component="checkout")
    assert where(routes(file, "jira").hearers(by_hand)) == [("jira", "platform")]


@pytest.mark.parametrize(
    ("word", "asked"),
    [
        ("opened", happened(service="orders-db")),
        ("awaiting_decision", status("awaiting_decision", service="orders-db")),
        ("needs_attention", status("needs_attention", service="orders-db")),
        ("escalation", happened("escalation", service="orders-db")),
    ],
)
def test_tickets_on_more_by_policy(file: AutopilotYaml, word: str, asked: Happened) -> None:
    assert routes(file, "jira").hearers(asked) == []
    assert where(routes(file, "jira", tickets_on=[word]).hearers(asked)) == [("jira", "platform")]


# --- teams ---


def test_responsible_and_in_line(file: AutopilotYaml) -> None:
    route = routes(file, default_team="bosses")
    assert route.responsible("checkout", None) == "web"
    assert route.responsible("checkout", "payment-service") == "payments"
    assert route.responsible("checkout", "old-thing") == "web"
    assert route.responsible("old-thing", None) == "bosses"
    assert file.catalogue().in_line("web") == ("platform", "bosses")
    assert file.catalogue().in_line("bosses") == file.catalogue().in_line("nobody") == ()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "bosses: {pagerduty",
            "bosses: {next: web, pagerduty",
            r":6: teams.bosses.next: the line .* -> web goes round",
        ),
        (
            "bosses: {pagerduty",
            "bosses: {next: bosses, pagerduty",
            r":6: teams.bosses.next: the line .*bosses -> bosses",
        ),
        ("next: bosses", "next: boss", r":5: teams.platform.next: 'boss' is not one of teams: \(bosses, payments"),
        ("checkout: {owner: web}", "checkout: {owner: wep}", r":8: services.checkout.owner: 'wep' is not one of teams"),
        ("services:", "policy: {messages: {default_team: x}}\nservices:", r":7: policy.messages.default_team: 'x'"),
        ("{project: OPS}", "{component: api}", r":5: teams.platform.jira.project: Field required"),
        ('"#web"', '"#web", secret: x', r":3: teams.web.secret: .*Remove it"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in YAML
    with pytest.raises(CatalogueError, match=said):
        written(tmp_path, YAML.replace(old, new, 1))


# --- quiet hours ---

NIGHT = {"hours": ["22:00", "07:00"], "timezone": "Asia/Seoul"}  # UTC+9, no summer time


def at(text: str) -> datetime:
    """UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-03-02T12:59", None),  # 21:59 in Seoul
        ("2026-03-02T13:00", "2026-03-02T22:00"),  # 22:00 -> 07:00 of the next day
        ("2026-03-02T16:30", "2026-03-02T22:00"),  # past midnight there
        ("2026-03-02T21:59", "2026-03-02T22:00"),
        ("2026-03-02T22:00", None),
    ],
)
def test_quiet_hours_over_midnight_of_another_zone(now: str, until: str | None) -> None:
    policy = Messages.model_validate({"quiet_hours": NIGHT})
    assert policy.held_until("warning", at(now)) == (at(until) if until else None)
    assert policy.held_until("critical", at(now)) is None


def test_quiet_hours_follow_the_clocks_of_people_when_they_change() -> None:
    berlin = Messages.model_validate({"quiet_hours": {"hours": ["22:00", "07:00"], "timezone": "Europe/Berlin"}})
    assert berlin.held_until("info", at("2026-03-27T23:00")) == at("2026-03-28T06:00")  # UTC+1
    assert berlin.held_until("info", at("2026-03-28T23:00")) == at("2026-03-29T05:00")  # summer time begins: UTC+2
    assert berlin.held_until("info", at("2026-10-24T22:00")) == at("2026-10-25T06:00")  # and ends


def test_a_weekend_ends_where_its_last_night_ends() -> None:
    weekend = {"weekdays": ["sat", "sun"]}
    both = Messages.model_validate({"quiet_hours": [{"hours": ["22:00", "07:00"]}, weekend]})
    assert both.held_until("warning", at("2026-03-06T23:00")) == at("2026-03-09T07:00")  # Friday night to Monday
    assert both.held_until("warning", at("2026-03-09T12:00")) is None


def test_hours_of_some_weekdays_past_midnight_are_of_the_day_before() -> None:
    nights = Messages.model_validate({"quiet_hours": {"hours": ["22:00", "07:00"], "weekdays": ["fri"]}})
    assert nights.held_until("warning", at("2026-03-07T03:00")) == at("2026-03-07T07:00")
    assert nights.held_until("warning", at("2026-03-06T03:00")) is None
    assert nights.held_until("warning", at("2026-03-07T22:30")) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({}, "nobody would ever be told"),
        ({"weekdays": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}, "nobody would ever be told"),
        ({"hours": ["07:00", "07:00"]}, "begin and end at the same time"),
        ({"hours": ["22:00", "07:00"], "timezone": "Mars/Base"}, "no time zone 'Mars/Base'"),
    ],
)
def test_quiet_hours_that_cannot_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        QuietHours.model_validate(wrong)
    with pytest.raises(ValidationError, match=said):
        Messages.model_validate({"quiet_hours": wrong})


def test_quiet_hours_that_leave_no_gap_are_refused() -> None:
    always = [{"hours": ["00:00", "12:00"]}, {"hours": ["12:00", "00:00"]}]
    with pytest.raises(ValidationError, match="leave no time at which anybody is told of warning incidents"):
        Messages.model_validate({"quiet_hours": always})
