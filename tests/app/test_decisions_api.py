"""The decision service over REST: what it answers, and what it notes of who saw what."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import httpx
import pytest
from psycopg.types.json import Jsonb

from graph.state import Evidence, Finding
from tests.app.deciding import ANN, BOB, KIM, Office, offices
from tests.app.doors import client_of, key_of


@pytest.fixture
async def office(database_url: str) -> AsyncIterator[Office]:
    async with offices(database_url) as made:
        yield made


@pytest.fixture
async def http(office: Office) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(office) as client:
        yield client


async def test_two_people_over_rest(office: Office, http: httpx.AsyncClient) -> None:
    incident, ann, bob = await office.planned(), await key_of(office, ANN), await key_of(office, BOB)
    path = f"/incidents/{incident}"
    seen = (await http.get(f"{path}/actions", headers=ann)).json()
    assert seen["choices"] == ["1", "2", "3", "manual", "re_analyze", "re_plan"]
    assert seen["expires_at"]
    two = next(o for o in seen["offers"] if o["choice"] == "2")
    assert (two["needs"]["approvals"], two["missing"]) == (2, 1)
    body = {"plan_revision": seen["plan_revision"], "choice": "2"}
    first = await http.post(f"{path}/decision", json=body, headers=ann)
    assert (first.status_code, first.json()["status"], first.json()["missing"]) == (202, "waiting_for_approval", 1)
    assert first.headers["location"] == path
    again = await http.post(f"{path}/decision", json=body, headers=ann)
    assert (again.status_code, again.json()["reason"]) == (409, "same_person")
    [waiting] = (await http.get(f"{path}/actions", headers=bob)).json()["approvals"]
    assert (waiting["by"], waiting["choice"]) == ("ann", "2")
    second = await http.post(f"{path}/decision", json=body, headers=bob)
    assert (second.json()["status"], [a["by"] for a in second.json()["approvals"]]) == ("decided", ["ann", "bob"])
    known = (await http.get(f"{path}/actions", headers=ann)).json()
    assert known["plan_revision"] is None
    assert (known["decision"]["may_withdraw"], known["decision"]["started"]) == (True, False)


async def test_withdraw_undo_and_note_over_rest(office: Office, http: httpx.AsyncClient) -> None:
    incident, kim = await office.planned(), await key_of(office, KIM)
    path = f"/incidents/{incident}"
    nothing = await http.delete(f"{path}/decision", headers=kim)
    assert (nothing.status_code, nothing.json()["reason"]) == (409, "nothing_to_withdraw")
    await office.decide(incident, "1")
    taken = await http.delete(f"{path}/decision", headers=kim)
    assert (taken.status_code, taken.json()["what"]) == (200, "decision")
    await office.runner.advance(incident)
    await office.decide(incident, "1")
    await office.runner.advance(incident)
    body = {"plan_revision": await office.revision(incident), "note": "no better"}
    undone = await http.post(f"{path}/undo", json=body, headers=kim)
    assert (undone.status_code, undone.json()["choice"]) == (202, "undo")
    await office.runner.advance(incident)
    assert office.dials.stand == {"shop": 1, "db": 2, "cache": 3}
    body["plan_revision"] = await office.revision(incident)
    again = await http.post(f"{path}/undo", json=body, headers=kim)
    assert (again.status_code, again.json()["reason"]) == (422, "nothing_to_undo")
    noted = await http.post(f"{path}/notes", json={"text": "called the bank"}, headers=kim)
    assert (noted.status_code, noted.json()["by"]) == (201, "kim")
    [event] = await office.sql("select message from event where kind = 'note'")
    assert event["message"] == "kim: called the bank"


async def test_a_stranger_gets_401_and_is_recorded(office: Office, http: httpx.AsyncClient) -> None:
    incident = await office.planned()
    body = {"plan_revision": await office.revision(incident), "choice": "1"}
    for headers in ({}, {"Authorization": "Bearer ap_nobody_secret"}):
        answer = await http.post(f"/incidents/{incident}/decision", json=body, headers=headers)
        assert answer.status_code == 401
    assert [b["reason"] for b in await office.audited("refusal", incident)] == ["not_authenticated"] * 2


async def test_what_somebody_opened_before_deciding_is_known(office: Office, http: httpx.AsyncClient) -> None:
    incident, kim = await office.planned(), await key_of(office, KIM)
    finding = Finding(id="E1", kind="metric", component="shop", signal="s", at=datetime.now(UTC), summary="up")
    evidence = Evidence(digest="d", findings=(finding,), suspects=())
    await office.sql("update analysis set evidence = %s", Jsonb(evidence.model_dump(mode="json")))
    revision = await office.revision(incident)
    for path in ("actions", "report", "evidence/E1", "evidence/E1", "evidence"):
        (await http.get(f"/incidents/{incident}/{path}", headers=kim)).raise_for_status()
    rows = await office.sql("select who, what, via from shown order by what")
    assert [tuple(r.values()) for r in rows] == [
        ("kim", "evidence:E1", "rest"),
        ("kim", f"plan:{revision}", "rest"),
        ("kim", "report", "rest"),
    ]
    await office.decide(incident, "manual")
    [decision] = await office.sql("select first_shown_at is not null as shown from decision")
    assert decision["shown"]
    figures = (await http.get("/decisions/figures", params={"timezone": "Asia/Seoul"}, headers=kim)).json()
    assert [(f["of"], f["name"], f["without_evidence"]) for f in figures] == [
        ("team", "storefront", 0.0),
        ("person", "kim", 0.0),
    ]
    unknown = await http.get("/decisions/figures", params={"timezone": "Seoul"}, headers=kim)
    assert (unknown.status_code, unknown.json()["detail"]) == (
        422,
        "There is no time zone 'Seoul'; write e.g. Asia/Seoul.",
    )
