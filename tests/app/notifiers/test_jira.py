"""Tickets in Jira: made once and complete; and what is told of a Jira that refuses, waits or falls silent."""

import time

import httpx
import pytest
from pydantic import JsonValue

from app.catalogue import AutopilotYaml
from app.clock import VirtualClock
from app.notifiers.base import TryAgain, Undeliverable
from app.notifiers.jira import Settings, create
from app.simulator.jira_adf import why
from tests.app.notifiers.jira_site import LOST, Answer, Site, by_hand, send
from tests.app.notifiers.stories import AT, MANUAL, MESSAGE, decided, event, report, status, telling

# --- making a ticket ---


async def test_manual_makes_a_ticket_with_all_that_was_found(site: Site) -> None:
    receipt = await site.notifier().deliver(by_hand())
    assert receipt.reference == {"issue": "OPS-1"}
    (issue,) = site.issues
    fields = issue.fields
    assert fields["summary"] == "payment-service: The pool is exhausted"
    assert fields["labels"] == ["aiops", "aiops-inc_1"]
    assert [fields["issuetype"]["name"], fields["priority"]["name"]] == ["Bug", "Highest"]
    assert [c["name"] for c in fields["components"]] == ["payments"]
    assert why(fields["description"]) == []
    assert issue.properties == {"aiops": {"message": str(MESSAGE), "incident": "inc_1", "team": "payments"}}
    assert [a["filename"] for a in issue.attachments] == ["inc_1-topology.png", "inc_1-E1.png", "inc_1-E2.png"]
    assert {a["mimeType"] for a in issue.attachments} == {"image/png"}


async def test_nothing_is_made_where_nobody_asks_for_a_ticket(site: Site) -> None:
    for told in (status("awaiting_decision"), event("opened"), event("decision", data={"choice": "1"})):
        receipt = await site.notifier().deliver(telling(told))
        assert receipt.reference == {}
        assert "tickets_on" in receipt.detail
        assert await site.notifier().look_up(telling(told, maybe_sent=True)) is None
    assert site.issues == []
    assert site.wire.calls == []


async def test_the_policy_may_ask_for_one_sooner(site: Site) -> None:
    site.declare(tickets_on=("awaiting_decision", "escalation"))
    assert (await site.notifier().deliver(telling(status("awaiting_decision")))).reference == {"issue": "OPS-1"}
    assert (await site.notifier().deliver(telling(event("escalation")))).reference == {"issue": "OPS-2"}


async def test_a_long_report_is_attached_whole(site: Site) -> None:
    long = report("ko", "풀이 고갈됨 " * 100, findings=60)
    await site.notifier().deliver(telling(MANUAL, long))
    (issue,) = site.issues
    (attached,) = [a for a in issue.attachments if a["filename"] == "inc_1-report.md"]
    assert attached["size"] > 32_767
    for name in ("inc_1-report.md", "inc_1-topology.png, inc_1-E1.png, inc_1-E2.png"):
        assert name in str(issue.fields["description"])
    assert len(issue.fields["summary"]) == 255


async def test_the_sites_own_fields_and_the_assignee_are_filled(site: Site) -> None:
    await site.set(required={"customfield_10020": "Impact"})
    site.declare(assignee="712020:minji", issue_type="incident")
    with pytest.raises(
        TryAgain, match=r'Impact \(customfield_10020\).*AUTOPILOT_JIRA_FIELDS=\{"customfield_10020"'
    ) as told:
        await site.notifier().deliver(by_hand())
    assert is_mendable(told.value)
    extra: dict[str, JsonValue] = {"customfield_10020": {"value": "High"}}
    await site.notifier(fields=extra).deliver(by_hand())
    (issue,) = site.issues
    assert issue.fields["assignee"] == {"accountId": "712020:minji"}
    assert issue.fields["customfield_10020"] == {"value": "High"}
    assert issue.fields["issuetype"]["name"] == "Incident"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"project": "NONE"}, r"may make no issues in the Jira project NONE.*teams\.payments\.jira\.project"),
        ({"issue_type": "Epic"}, r"no issue type 'Epic' \(Task, Bug, Incident\).*teams\.payments\.jira\.issue_type"),
        ({"component": "typo"}, r"no component 'typo' \(web, .*\).*teams\.payments\.jira\.component"),
        ({"assignee": "nobody"}, r"assignee: User 'nobody' does not exist.*teams\.payments\.jira\.assignee"),
    ],
)
async def test_what_jira_does_not_know_is_named_with_its_setting(site: Site, wrong: dict[str, str], said: str) -> None:
    site.declare(**wrong)  # type: ignore[arg-type]  # none of them is tickets_on
    with pytest.raises(TryAgain, match=said) as told:
        await site.notifier().deliver(by_hand())
    assert is_mendable(told.value)
    assert site.issues == []
    if "assignee" not in wrong:  # Jira tells only when it is tried
        (problem,) = await site.notifier().check()
        assert wrong.popitem()[1] in problem


async def test_a_team_without_a_project_is_named(site: Site) -> None:
    with pytest.raises(TryAgain, match=r"'search' has no Jira project: add teams\.search\.jira") as told:
        await site.notifier().deliver(by_hand(team="search"))
    assert is_mendable(told.value)
    assert await site.notifier().check() == []
    site.file = AutopilotYaml()
    assert "No team" in (await site.notifier().check())[0]


async def test_all_that_jira_says_against_it_is_told_without_secrets(site: Site) -> None:
    secret = "password=hunter2Hunter2!x"
    body = {"errorMessages": ["No.", f"Really: {secret}"], "errors": {"customfield_1": "is required", "duedate": "no"}}
    site.wire.before["POST", "/issue"] = [httpx.Response(400, json=body)]
    with pytest.raises(TryAgain) as refused:
        await site.notifier().deliver(by_hand())
    assert is_mendable(refused.value)
    for part in (
        "No.",
        "Really:",
        "customfield_1: is required",
        "duedate: no",
        "set customfield_1 in AUTOPILOT_JIRA_FIELDS",
    ):
        assert part in refused.value.detail
    assert "hunter2" not in refused.value.detail


async def test_a_ticket_that_was_refused_for_what_it_says_is_asked_for_again_until_it_is_over(site: Site) -> None:
    no = {"errorMessages": [], "errors": {"description": "INVALID_INPUT", "customfield_1": "is required"}}
    site.wire.before["POST", "/issue"] = [httpx.Response(400, json=no)]
    with pytest.raises(Undeliverable, match="INVALID_INPUT") as refused:
        await site.notifier().deliver(by_hand())
    asked_for = refused.value.reference
    over = await site.notifier().deliver(telling(event("recovered"), conversation=asked_for))
    assert (over.reference, site.issues) == ({}, [])
    receipt = await site.notifier().deliver(telling(event("note"), conversation=asked_for))
    assert receipt.reference == {"issue": "OPS-1"}


# --- trouble ---


def is_mendable(error: TryAgain) -> bool:
    """It is tried again when somebody may have mended it; nothing else waits for that."""
    return (error.after_s, error.ambiguous, error.of_target) == (300.0, False, False)


async def test_an_expired_token_says_what_to_do(site: Site) -> None:
    notifier = site.notifier(token="another")
    with pytest.raises(TryAgain, match=r"AUTOPILOT_JIRA_API_TOKEN.*expired.*Make a new one at https://") as told:
        await notifier.deliver(by_hand())
    assert "another" not in told.value.detail
    assert (told.value.after_s, told.value.ambiguous, told.value.of_target) == (300.0, False, True)
    assert "AUTOPILOT_JIRA_API_TOKEN" in (await notifier.check())[0]
    await notifier.aclose()


@pytest.mark.parametrize(
    ("answer", "after_s", "said"),
    [
        (httpx.Response(403, json={"errorMessages": ["Not you."]}), 300.0, "Not you. Give it the permission"),
        (httpx.Response(404, json={"errorMessages": []}), 300.0, "may make no issues in the Jira project OPS"),
        (httpx.Response(404, text="<html>suspended"), 300.0, "no Jira is at AUTOPILOT_JIRA_URL.*Check the address"),
        (httpx.Response(302, headers={"Location": "https://login.example/x"}), 300.0, "leads on to login.ex"),
        (httpx.Response(200, text="<html>login"), None, "no JSON"),
        (httpx.Response(200, json={"issueTypes": 3}), None, "issueTypes"),
        (httpx.Response(503), None, "answers 503"),
        (httpx.ConnectError("no route"), None, "cannot be reached.*AUTOPILOT_JIRA_URL"),
        (httpx.ReadTimeout("slow"), None, "no answer"),
    ],
)
async def test_trouble_before_anything_is_changed_is_not_ambiguous(
    site: Site, answer: Answer, after_s: float | None, said: str
) -> None:
    site.wire.before["GET", "/issue/createmeta/OPS/issuetypes"] = [answer]
    with pytest.raises(TryAgain, match=said) as told:
        await site.notifier().deliver(by_hand())
    assert (told.value.after_s, told.value.ambiguous) == (after_s, False)
    assert site.issues == []


async def test_jira_asks_to_wait(site: Site) -> None:
    headers = {"Retry-After": "17", "RateLimit-Reason": "jira-burst-based"}
    site.wire.before["POST", "/issue"] = [httpx.Response(429, headers=headers)]
    with pytest.raises(TryAgain, match="jira-burst-based") as told:
        await site.notifier().deliver(by_hand())
    assert (told.value.after_s, told.value.ambiguous) == (17.0, False)


@pytest.mark.parametrize("lost", LOST, ids=repr)
async def test_a_ticket_whose_answer_is_lost_is_found_and_not_doubled(site: Site, lost: Answer) -> None:
    await site.set(index_lag_s=6)
    site.wire.after["POST", "/issue"] = [lost]
    receipt = await send(site.notifier(), by_hand())
    assert receipt.reference == {"issue": "OPS-1"}
    (issue,) = site.issues
    assert len(issue.attachments) == 3


async def test_a_ticket_that_was_never_taken_is_made_after_all(site: Site) -> None:
    site.wire.before["POST", "/issue"] = [httpx.ReadTimeout("lost on the way"), httpx.Response(500)]
    assert (await send(site.notifier(), by_hand())).reference == {"issue": "OPS-1"}
    assert len(site.issues) == 1
    assert site.wire.calls.count(("POST", "/search/jql")) == 8  # each time, several looks


@pytest.mark.parametrize(
    ("team", "found"), [("payments", "OPS-1"), ("search", "OPS-2")], ids=["given up before", "another team's"]
)
async def test_there_is_one_ticket_for_an_incident_and_a_team(site: Site, team: str, found: str) -> None:
    await site.notifier().deliver(by_hand(id=MESSAGE.__class__(int=1), target=team))
    await site.clock.sleep(5)
    site.wire.before["POST", "/issue"] = [httpx.ReadTimeout("lost on the way")]
    assert (await send(site.notifier(), by_hand())).reference == {"issue": found}


async def test_a_ticket_is_found_also_where_the_team_has_moved_to_another_project(site: Site) -> None:
    site.wire.after["POST", "/issue"] = [httpx.ReadTimeout("silent")]
    with pytest.raises(TryAgain):
        await site.notifier().deliver(by_hand())
    site.declare(project="WEB", component="web")
    receipt = await site.notifier().look_up(by_hand(maybe_sent=True))
    assert receipt is not None
    assert receipt.reference == {"issue": "OPS-1"}


@pytest.mark.parametrize("lost", LOST, ids=repr)
async def test_a_lost_answer_is_looked_for_when_the_index_has_had_its_time(site: Site, lost: Answer) -> None:
    site.wire.after["POST", "/issue"] = [lost]
    with pytest.raises(TryAgain) as told:
        await site.notifier().deliver(by_hand())
    assert (told.value.after_s, told.value.ambiguous) == (60.0, True)


@pytest.mark.parametrize("trouble", [httpx.Response(500), httpx.Response(429), httpx.Response(401)], ids=repr)
@pytest.mark.parametrize("call", [("GET", "/issue/OPS-1"), ("POST", "/issue/OPS-1/attachments")], ids=str)
async def test_a_key_that_is_known_is_never_searched_for(site: Site, trouble: Answer, call: tuple[str, str]) -> None:
    await site.set(index_lag_s=100_000)
    site.wire.before[call] = [trouble]
    receipt = await send(site.notifier(), by_hand())
    assert receipt.reference == {"issue": "OPS-1"}
    (issue,) = site.issues
    assert len(issue.attachments) == 3


async def test_a_ticket_that_is_known_is_completed_though_it_cannot_be_read(site: Site) -> None:
    site.wire.before["POST", "/issue/OPS-1/attachments"] = [httpx.Response(500)]
    site.wire.before["GET", "/issue/OPS-1/comment"] = [httpx.Response(404, json={})]
    receipt = await send(site.notifier(), by_hand())
    assert receipt.reference == {"issue": "OPS-1"}
    (issue,) = site.issues
    assert len(issue.attachments) == 3


@pytest.mark.parametrize("status", [403, 404])
async def test_a_ticket_that_we_may_make_and_not_see_stands(site: Site, status: int) -> None:
    site.wire.before["GET", "/issue/OPS-1"] = [httpx.Response(status, json={})]
    receipt = await site.notifier().deliver(by_hand())
    assert receipt.reference == {"issue": "OPS-1"}
    assert "not complete: GET /rest/api/3/issue/OPS-1: " in receipt.detail


async def test_a_picture_that_cannot_be_drawn_costs_nothing_else(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    odd, *others = report().evidence
    damaged = odd.model_copy(update={"points": (("then", "much"),)})
    about = report().model_copy(update={"evidence": (damaged, *others), "decisions": (decided("manual"),)})
    receipt = await site.notifier().deliver(telling(MANUAL, about))
    assert receipt.reference == {"issue": "OPS-1"}
    (issue,) = site.issues
    assert [a["filename"] for a in issue.attachments] == ["inc_1-topology.png", "inc_1-E2.png"]
    assert "inc_1-topology.png, inc_1-E2.png" in str(issue.fields["description"])
    assert "cannot be drawn" in caplog.text


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("trouble", [httpx.Response(500), httpx.Response(429), httpx.ReadTimeout("silent")], ids=repr)
async def test_attachments_that_fail_are_brought_after(site: Site, trouble: Answer, when: str) -> None:
    getattr(site.wire, when)["POST", "/issue/OPS-1/attachments"] = [trouble]
    receipt = await send(site.notifier(), by_hand())
    assert receipt.reference == {"issue": "OPS-1"}
    (issue,) = site.issues
    assert len(issue.attachments) == 3


async def test_a_ticket_stands_also_where_nothing_may_be_attached(site: Site) -> None:
    site.wire.before["POST", "/issue/OPS-1/attachments"] = [httpx.Response(413, text="too large")]
    receipt = await site.notifier().deliver(by_hand())
    assert receipt.reference == {"issue": "OPS-1"}
    assert "nothing is attached" in receipt.detail
    assert "too large" in receipt.detail


# --- settings ---


@pytest.mark.parametrize("url", ["ftp://x", "jira", "http://example.com", "https://me:pw@example.com"])
def test_a_wrong_address_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"https://|user and password") as told:
        Settings(url=url)
    assert "pw" not in str(told.value).replace("password", "")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOPILOT_JIRA_URL", "https://example.atlassian.net/")
    monkeypatch.delenv("AUTOPILOT_JIRA_API_TOKEN", raising=False)
    with pytest.raises(ValueError, match="set AUTOPILOT_JIRA_EMAIL, AUTOPILOT_JIRA_API_TOKEN, or leave jira out"):
        create(VirtualClock(AT, time.time(), 1.0), AutopilotYaml())
