"""Tickets in Jira that are there already: those of an earlier incident, and those that follow theirs."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from app.notifiers.base import Event, Receipt, Telling, Undeliverable
from app.report import AlertOf, Report
from app.simulator.jira_adf import why
from tests.app.notifiers.jira_site import LOST, URL, Answer, Site, by_hand, send
from tests.app.notifiers.stories import AT, MANUAL, MESSAGE, decided, event, just_opened, report, status, telling

# --- an earlier ticket ---


def again() -> Report:
    return report().model_copy(update={"incident_id": "inc_2", "decisions": (decided("manual"),)})


async def test_an_open_ticket_of_the_same_alert_is_told_and_not_doubled(site: Site) -> None:
    first = await site.notifier().deliver(by_hand())
    receipt = await site.notifier().deliver(telling(MANUAL, again(), earlier=first.reference))
    assert receipt.reference == {"issue": "OPS-1", "joined": True}
    (issue,) = site.issues
    (comment,) = issue.comments
    assert "incident inc_2" in str(comment["body"])
    assert why(comment["body"]) == []
    assert "aiops-inc_2" in issue.fields["labels"]
    assert "inc_2-topology.png" in {a["filename"] for a in issue.attachments}


@pytest.mark.parametrize("lost", LOST[:3], ids=repr)
async def test_telling_the_open_ticket_is_not_doubled_either(site: Site, lost: Answer) -> None:
    first = await site.notifier().deliver(by_hand())
    site.wire.after["POST", "/issue/OPS-1/comment"] = [lost]
    receipt = await send(site.notifier(), telling(MANUAL, again(), earlier=first.reference))
    assert receipt.reference == {"issue": "OPS-1", "joined": True}
    (issue,) = site.issues
    assert len(issue.comments) == 1
    assert len(issue.attachments) == 6


@pytest.mark.parametrize("end", [event("recovered"), status("resolved"), event("reopened")], ids=lambda e: e.kind)
async def test_a_ticket_that_was_there_before_is_told_and_never_moved(site: Site, end: Event) -> None:
    """Somebody works on it by hand, whatever becomes of this incident."""
    first = await site.notifier().deliver(by_hand())
    site.declare(tickets_on=("opened",))
    joined = await site.notifier().deliver(telling(event("opened"), just_opened(), earlier=first.reference))
    await site.notifier().deliver(telling(end, report(), conversation=joined.reference))
    (issue,) = site.issues
    assert (issue.status, issue.history, len(issue.comments)) == ("To Do", [], 2)


async def test_a_ticket_that_is_done_is_linked_to_a_new_one(site: Site) -> None:
    first = await site.notifier().deliver(by_hand())
    site.issues[0].status = "Done"
    site.wire.after["POST", "/issueLink"] = [httpx.ReadTimeout("silent")]
    receipt = await send(site.notifier(), telling(MANUAL, again(), earlier=first.reference))
    assert receipt.reference == {"issue": "OPS-2"}
    done, new = site.issues
    assert [link["inwardIssue"]["key"] for link in new.links] == ["OPS-1"]
    assert len(done.links) == 1
    assert done.comments == []


@pytest.mark.parametrize("earlier", [{"issue": "OPS-99"}, {"issue": "../../x"}, {"issue": 3}, {"thread": "1.2"}])
async def test_an_earlier_ticket_that_is_none_is_no_hindrance(site: Site, earlier: dict[str, JsonValue]) -> None:
    receipt = await site.notifier().deliver(by_hand(earlier=earlier))
    assert receipt.reference == {"issue": "OPS-1"}
    assert all("/issue/../" not in path for _, path in site.wire.calls)


async def test_the_ticket_that_an_alert_came_from_is_used(site: Site) -> None:
    await site.notifier().deliver(by_hand())
    alert = AlertOf(title="t", service="s", source="rest", state="firing", since=AT, url=f"{URL}/browse/OPS-1")
    stranger = alert.model_copy(update={"url": "https://evil.example/browse/OPS-1"})
    told = telling(MANUAL, again().model_copy(update={"alerts": (stranger,)}))
    assert (await site.notifier().deliver(told)).reference == {"issue": "OPS-2"}
    told = telling(MANUAL, again().model_copy(update={"alerts": (alert,)}))
    assert (await site.notifier().deliver(told)).reference == {"issue": "OPS-1", "joined": True}


async def test_an_alert_names_no_ticket_of_another_project(site: Site) -> None:
    """Its address comes from whoever sends it."""
    site.declare(project="WEB", component="web")
    await site.notifier().deliver(by_hand())
    site.declare()
    alert = AlertOf(title="t", service="s", source="rest", state="firing", since=AT, url=f"{URL}/browse/WEB-1")
    told = telling(MANUAL, again().model_copy(update={"alerts": (alert,)}))
    assert (await site.notifier().deliver(told)).reference == {"issue": "OPS-1"}
    others = site.issues[0]
    assert (others.comments, others.fields["labels"]) == ([], ["aiops", "aiops-inc_1"])


def following(told: Telling, receipt: Receipt) -> dict[str, object]:
    return {"conversation": receipt.reference, "id": MESSAGE.__class__(int=MESSAGE.int + told.event.id)}


# --- a ticket follows ---


@pytest.fixture
async def opened(site: Site) -> Callable[..., Telling]:
    """Makes what is told of an incident that has a ticket."""
    site.declare(tickets_on=("opened",))
    receipt = await site.notifier().deliver(telling(event("opened"), just_opened()))
    return lambda told, about=None: telling(told, about, **following(telling(told), receipt))


async def test_what_happens_is_told_in_the_ticket(site: Site, opened: Callable[..., Telling]) -> None:
    notifier = site.notifier()
    for told in (event("decision"), event("step_finished"), event("note"), event("recovered"), event("reminder")):
        await notifier.deliver(opened(told))
    (issue,) = site.issues
    assert len(issue.comments) == 4  # a reminder is for those who have not decided
    assert all(why(c["body"]) == [] for c in issue.comments)


async def test_resolved_moves_it_to_done_and_reopened_back(site: Site, opened: Callable[..., Telling]) -> None:
    (issue,) = site.issues
    await site.notifier().deliver(opened(status("resolved")))
    assert issue.status == "Done"
    assert "moved to «Done»" in str(issue.comments[-1]["body"])
    await site.notifier().deliver(opened(event("reopened")))
    assert issue.status == "In Progress"
    await site.notifier().deliver(opened(event("recovered")))
    assert issue.history == ["To Do -> Done", "Done -> In Progress", "In Progress -> Done"]


async def test_where_the_workflow_offers_no_way_the_comment_says_so(site: Site) -> None:
    site.declare(project="WEB", component="web", tickets_on=("opened",))
    receipt = await site.notifier().deliver(telling(event("opened"), just_opened()))
    told = telling(status("resolved"), report("ko"), conversation=receipt.reference)
    await site.notifier().deliver(told)
    (issue,) = site.issues
    assert issue.status == "Backlog"
    assert "티켓이 «Backlog»에 남아 있습니다" in str(issue.comments[-1]["body"])


def offering(*steps: dict[str, Any]) -> httpx.Response:
    to = {"name": "Done", "statusCategory": {"key": "done"}}
    return httpx.Response(200, json={"transitions": [{"to": to, **step} for step in steps]})


async def test_a_transition_gets_the_resolution_it_asks_for(site: Site, opened: Callable[..., Telling]) -> None:
    owner = {"id": "30", "fields": {"customfield_1": {"required": True, "hasDefaultValue": False}}}
    values = [{"id": "5", "name": "Won't do"}, {"id": "6", "name": "Done"}]
    asks = {"id": "31", "fields": {"resolution": {"required": True, "allowedValues": values}}}
    site.wire.before["GET", "/issue/OPS-1/transitions"] = [offering(owner, asks)]
    await site.notifier().deliver(opened(status("resolved")))
    assert site.issues[0].status == "Done"  # 31, not 30, which nobody can fill


async def test_a_transition_that_is_refused_is_told(site: Site, opened: Callable[..., Telling]) -> None:
    site.wire.before["POST", "/issue/OPS-1/transitions"] = [httpx.Response(400, json={"errorMessages": ["Assign it."]})]
    await site.notifier().deliver(opened(status("resolved")))
    (issue,) = site.issues
    assert issue.status == "To Do"
    assert "Assign it" in str(issue.comments[-1]["body"])


async def test_what_is_done_by_hand_stays_open_for_who_does_it(site: Site) -> None:
    receipt = await site.notifier().deliver(telling(MANUAL, just_opened()))
    about = report().model_copy(update={"decisions": (decided("manual"),), "status": "closed"})
    after = await site.notifier().deliver(telling(status("closed"), about, conversation=receipt.reference))
    (issue,) = site.issues
    assert (issue.status, issue.comments) == ("To Do", [])
    assert "nothing to say" in after.detail


@pytest.mark.parametrize("path", ["/issue/OPS-1/comment", "/issue/OPS-1/transitions"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("lost", LOST[:3], ids=repr)
async def test_a_lost_answer_doubles_no_comment_and_no_transition(
    site: Site, opened: Callable[..., Telling], lost: Answer, when: str, path: str
) -> None:
    getattr(site.wire, when)["POST", path] = [lost]
    await send(site.notifier(), opened(status("resolved")))
    (issue,) = site.issues
    assert issue.history == ["To Do -> Done"]
    assert len(issue.comments) == 1


async def test_a_site_that_is_away_for_an_hour_loses_no_comment(site: Site, opened: Callable[..., Telling]) -> None:
    site.wire.before["POST", "/issue/OPS-1/comment"] = [httpx.Response(404, text="<html>")]
    await send(site.notifier(), opened(event("note")))
    assert len(site.issues[0].comments) == 1


async def test_a_deleted_ticket_is_told(site: Site, opened: Callable[..., Telling]) -> None:
    site.jira._issues.clear()
    with pytest.raises(Undeliverable, match="OPS-1 was deleted"):
        await site.notifier().deliver(opened(event("note")))


async def test_a_comment_of_another_message_is_not_ours(site: Site, opened: Callable[..., Telling]) -> None:
    await site.notifier().deliver(opened(event("note")))
    other = opened(event("decision")).__class__(**(opened(event("note")).__dict__ | {"id": MESSAGE}))
    assert await site.notifier().look_up(other) is None
    assert await site.notifier().look_up(opened(event("note"))) is not None
