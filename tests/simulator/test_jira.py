"""Jira's endpoints in the shop: a project's rules, ADF, comments and their properties, the workflow, a slow index."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.simulator import jira_adf
from app.simulator.jira import API_TOKEN, EMAIL
from app.simulator.jira_jql import JqlError, parse
from tests.simulator.conftest import Served

API = "/jira/rest/api/3"


class Site:
    """The shop's Jira, as our account sees it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.client = httpx.Client(base_url=served.url, auth=(EMAIL, API_TOKEN), timeout=10)

    def create(self, **fields: Any) -> httpx.Response:
        """An issue with what it must have, and these fields."""
        least = {"project": {"key": "OPS"}, "issuetype": {"name": "Bug"}, "summary": "checkout 5xx"}
        return self.client.post(f"{API}/issue", json={"fields": {**least, **fields}})

    def found(self, jql: str, **asked: Any) -> list[dict[str, Any]]:
        """Issues of a search."""
        answer = self.client.post(f"{API}/search/jql", json={"jql": jql, **asked})
        assert answer.status_code == 200, answer.text
        issues: list[dict[str, Any]] = answer.json()["issues"]
        return issues


@pytest.fixture
def site(serve: Callable[[str, float], Served]) -> Iterator[Site]:
    made = Site(serve("bad-deploy", 5))
    yield made
    made.client.close()


def _doc(*content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "doc", "version": 1, "content": list(content)}


def _said(text: str, *marks: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": text, **({"marks": list(marks)} if marks else {})}


def _paragraph(*inline: dict[str, Any]) -> dict[str, Any]:
    return {"type": "paragraph", "content": list(inline)}


# --- issues ---


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({"summary": ""}, {"summary": "You must specify a summary of the issue."}),
        ({"summary": "a\nb"}, {"summary": "The summary is invalid because it contains newline characters."}),
        ({"summary": "a" * 256}, {"summary": "Summary can't exceed 255 characters."}),
        ({"issuetype": {"name": "Epic"}}, {"issuetype": "Specify a valid issue type"}),
        ({"project": {"key": "NO"}}, {"project": "valid project is required"}),
        ({"labels": ["a b"]}, {"labels": "The label 'a b' contains spaces which is invalid."}),
        ({"components": [{"name": "no"}]}, {"components": "Component name 'no' is not valid"}),
        ({"priority": {"name": "P1"}}, {"priority": "The priority selected is invalid."}),
        ({"assignee": {"accountId": "no"}}, {"assignee": "User 'no' does not exist."}),
        ({"description": _doc({"type": "paragraph", "text": "a"})}, {"description": "INVALID_INPUT"}),
        (
            {"customfield_1": 1},
            {"customfield_1": "Field 'customfield_1' cannot be set. It is not on the appropriate screen, or unknown."},
        ),
    ],
)
def test_a_project_has_rules(site: Site, fields: dict[str, Any], errors: dict[str, str]) -> None:
    answer = site.create(**fields)
    assert (answer.status_code, answer.json()) == (400, {"errorMessages": [], "errors": errors})
    assert site.client.get("/_shop/jira/state").json() == []


def test_required_fields_are_told_before_and_demanded(site: Site) -> None:
    site.client.patch("/_shop/jira", json={"required": {"customfield_10050": "Team"}}).raise_for_status()
    types = site.client.get(f"{API}/issue/createmeta/OPS/issuetypes").json()["issueTypes"]
    fields = site.client.get(f"{API}/issue/createmeta/OPS/issuetypes/{types[1]['id']}").json()["fields"]
    assert {f["fieldId"] for f in fields if f["required"]} == {"summary", "issuetype", "project", "customfield_10050"}
    assert site.create().json()["errors"] == {"customfield_10050": "Team is required."}
    assert site.create(customfield_10050="Ops", issuetype={"id": types[1]["id"]}).status_code == 201


def test_the_index_is_behind(site: Site) -> None:
    key = site.create(labels=["aiops-inc_1"]).json()["key"]
    jql = 'project = "OPS" and labels = "aiops-inc_1" order by created'
    assert site.found(jql) == []
    site.served.clock.advance(5)
    assert site.found(jql) == [{"id": "10001"}], "nothing else unless it is asked for"
    found = site.found(jql, fields=["status"], properties=["aiops"])
    assert (found[0]["key"], found[0]["properties"]) == (key, {})
    assert found[0]["fields"]["status"]["statusCategory"]["key"] == "new"
    assert site.found('labels = "aiops-inc_1" AND statusCategory = Done') == []
    assert site.client.post(f"{API}/search", json={"jql": jql}).status_code == 410
    unbounded = site.client.post(f"{API}/search/jql", json={"jql": "order by created"})
    assert unbounded.status_code == 400


def test_a_search_is_paged(site: Site) -> None:
    for _ in range(3):
        site.create()
    site.served.clock.advance(5)
    first = site.client.get(f"{API}/search/jql", params={"jql": "project = OPS", "maxResults": 2}).json()
    more = {"jql": "project = OPS", "maxResults": 2, "nextPageToken": first["nextPageToken"]}
    second = site.client.get(f"{API}/search/jql", params=more).json()
    assert (len(first["issues"]), first["isLast"], len(second["issues"]), second["isLast"]) == (2, False, 1, True)


def test_comments_have_properties(site: Site) -> None:
    key = site.create().json()["key"]
    ours = {"key": "aiops", "value": {"message": "1"}}
    body = {"body": _doc(_paragraph(_said("hello"))), "properties": [ours]}
    made = site.client.post(f"{API}/issue/{key}/comment", json=body)
    assert made.status_code == 201
    listed = site.client.get(f"{API}/issue/{key}/comment", params={"orderBy": "-created"}).json()["comments"]
    assert "properties" not in listed[0]
    ids = {"ids": [int(listed[0]["id"])]}
    told = site.client.post(f"{API}/comment/list", params={"expand": "properties"}, json=ids).json()["values"]
    assert told[0]["properties"] == [ours]
    refused = site.client.post(f"{API}/issue/{key}/comment", json={"body": "plain"})
    assert (refused.status_code, refused.json()["errors"]) == (400, {"comment": "Comment body is not valid!"})


def test_only_what_the_workflow_offers(site: Site) -> None:
    web = site.create(project={"key": "WEB"}).json()["key"]
    path = f"{API}/issue/{web}/transitions"
    offered = site.client.get(path).json()["transitions"]
    assert [(t["id"], t["to"]["statusCategory"]["key"]) for t in offered] == [("2", "indeterminate")]
    refused = site.client.post(path, json={"transition": {"id": "3"}})
    assert refused.json()["errorMessages"] == ["Transition id '3' is not valid for this issue."]
    assert site.client.post(path, json={"transition": {"id": "2"}}).status_code == 204
    assert site.client.post(path, json={"transition": {"id": "3"}}).status_code == 204
    status = site.client.get(f"{API}/issue/{web}", params={"fields": "status"}).json()["fields"]["status"]
    assert (status["name"], status["statusCategory"]["key"]) == ("Released", "done")


def test_files_links_and_properties(site: Site) -> None:
    one, two = (site.create().json()["key"] for _ in range(2))
    files = {"file": ("chart.png", b"\x89PNG", "image/png")}
    path = f"{API}/issue/{one}/attachments"
    assert site.client.post(path, files=files).status_code == 403, "XSRF"
    assert site.client.post(path, files=files, headers={"X-Atlassian-Token": "no-check"}).status_code == 200
    link = {"type": {"name": "Relates"}, "inwardIssue": {"key": one}, "outwardIssue": {"key": two}}
    assert site.client.post(f"{API}/issueLink", json=link).status_code == 201
    property_ = f"{API}/issue/{one}/properties/aiops"
    assert [site.client.put(property_, json={"a": n}).status_code for n in (1, 2)] == [201, 200]
    fields = site.client.get(f"{API}/issue/{one}").json()["fields"]
    assert fields["attachment"][0]["filename"] == "chart.png"
    assert fields["issuelinks"] == [{"type": {"name": "Relates"}, "outwardIssue": {"key": two}}]
    site.served.clock.advance(5)
    assert len(site.found(f"key = {one} AND issue.property[aiops].a is EMPTY")) == 1


def test_who_may_and_trouble(site: Site) -> None:
    for wrong in ((EMAIL, "expired"), ("who@shop.test", API_TOKEN)):
        answer = httpx.get(f"{site.served.url}{API}/myself", auth=wrong, timeout=10)
        assert (answer.status_code, answer.headers["X-Seraph-LoginReason"]) == (401, "AUTHENTICATED_FAILED")
    site.client.post("/_shop/fail", json={"path": API, "status": 429, "retry_after_s": 9}).raise_for_status()
    limited = site.client.get(f"{API}/myself")
    assert (limited.status_code, limited.headers["Retry-After"]) == (429, "9")
    assert limited.headers["RateLimit-Reason"] == "jira-burst-based"
    assert site.client.get(f"{API}/myself").json()["displayName"] == "Auto Pilot"


# --- ADF ---


@pytest.mark.parametrize(
    "content",
    [
        _said("no paragraph around it"),
        _paragraph(_said("")),
        _paragraph(_said("x", {"type": "blink"})),
        _paragraph(_said("x", {"type": "link", "attrs": {"href": "javascript:alert(1)"}})),
        _paragraph(_said("x", {"type": "code"}, {"type": "strong"})),
        {"type": "heading", "attrs": {"level": 7}, "content": [_said("x")]},
        {"type": "bulletList", "content": [_paragraph(_said("x"))]},
        {"type": "bulletList", "content": []},
        {"type": "codeBlock", "content": [_said("x", {"type": "strong"})]},
        {"type": "table", "content": [{"type": "tableRow", "content": [_paragraph()]}]},
        {"type": "panel", "attrs": {"panelType": "loud"}, "content": [_paragraph()]},
        {"type": "paragraph", "content": [], "onclick": "x"},
    ],
)
def test_what_is_no_adf(content: dict[str, Any]) -> None:
    assert jira_adf.complaint(_doc(content)) == "INVALID_INPUT"
    assert jira_adf.why(_doc(content))


def test_what_is_adf_and_how_it_looks() -> None:
    cell = {"type": "tableCell", "attrs": {}, "content": [_paragraph(_said("1 < 2", {"type": "code"}))]}
    item = {"type": "listItem", "content": [_paragraph(_said("<b>", {"type": "em"}))]}
    document = _doc(
        {"type": "heading", "attrs": {"level": 1}, "content": [_said("Cause")]},
        {"type": "table", "content": [{"type": "tableRow", "content": [cell]}]},
        {"type": "orderedList", "content": [item]},
        {"type": "codeBlock", "attrs": {"language": "text"}, "content": [_said("</pre>")]},
        {"type": "panel", "attrs": {"panelType": "info"}, "content": [_paragraph(_said("note"))]},
        {"type": "rule"},
    )
    assert jira_adf.complaint(document) == ""
    shown = jira_adf.rendered(document)
    assert "<td><p><code>1 &lt; 2</code></p></td>" in shown
    assert "<ol><li><p><i>&lt;b&gt;</i></p></li></ol><pre>&lt;/pre&gt;</pre>" in shown
    assert "too long" in jira_adf.complaint(_doc(_paragraph(_said("a" * 32_768))))


# --- JQL ---

FIELDS = frozenset({"project", "labels", "status", "summary"})
ISSUE = {"project": ("OPS",), "labels": ("a", "b"), "status": ("To Do",), "summary": ("checkout is down",)}


@pytest.mark.parametrize(
    ("jql", "fits"),
    [
        ("project = OPS", True),
        ('project = "ops" and labels = b', True),
        ("labels in (c, d) OR status = 'To Do'", True),
        ("labels not in (c, d)", True),
        ("labels in (a) and not (status != Done)", False),
        ('summary ~ "down checkout"', True),
        ("labels is not EMPTY and summary is EMPTY", False),
    ],
)
def test_jql(jql: str, fits: bool) -> None:
    assert parse(jql, FIELDS)(ISSUE) is fits


@pytest.mark.parametrize("jql", ["", "colour = red", "project", "project = OPS status = x", "labels in (a", "a ^ b"])
def test_jql_that_is_none(jql: str) -> None:
    with pytest.raises(JqlError):
        parse(jql, FIELDS)
