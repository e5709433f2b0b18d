"""The memory over HTTP, and the postmortem of an incident: who may what, what is answered, and how it refuses."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest

from app.knowledge.cases import Case
from app.knowledge.remember import remember
from app.security import Caller
from tests.app.deciding import ANN, KIM, VERA, Office, offices
from tests.app.doors import client_of, key_of
from tests.app.test_knowledge_upkeep import ROWS, RUNBOOK


class Web:
    """The API of an office."""

    def __init__(self, office: Office, client: httpx.AsyncClient) -> None:
        self.office, self.client = office, client

    async def call(
        self, method: str, path: str, caller: Caller = KIM, content: bytes | None = None, **headers: str
    ) -> httpx.Response:
        """As this person."""
        key = await key_of(self.office, caller)
        return await self.client.request(method, path, headers={**key, **headers}, content=content)

    async def put_in(
        self, name: str = "a.csv", content: str = ROWS, more: str = "", caller: Caller = KIM
    ) -> httpx.Response:
        """Import a file."""
        return await self.call("POST", f"/knowledge/import?name={quote(name)}{more}", caller, content.encode())


@pytest.fixture
async def web(database_url: str) -> AsyncIterator[Web]:
    async with offices(database_url) as office, client_of(office) as client:
        yield Web(office, client)


# --- the memory ---


async def test_what_was_imported_is_found_by_a_viewer_and_read_as_a_whole(web: Web) -> None:
    done = (await web.put_in()).json()
    assert (done["written"], done["unchanged"], done["left_out"]) == (2, 0, 1)
    assert done["complaints"][0]["line"] == 4
    found = (await web.call("GET", "/knowledge?text=connection pool&service=shop", VERA)).json()["hits"]
    assert found[0]["title"] == "Shop answers slowly"
    assert found[0]["reasons"]
    case = (await web.call("GET", f"/knowledge/{found[0]['id']}", VERA)).json()
    assert case["report"].startswith("## Root cause\n\nAll connections")
    assert [remedy["title"] for remedy in case["remedies"]] == ["Doubled the tasks"]
    assert (await web.call("GET", "/knowledge?kind=runbook")).json() == {"hits": []}


async def test_files_of_every_kind_are_read_and_times_may_lack_their_zone(web: Web) -> None:
    done = await web.put_in("runbook.md", RUNBOOK)
    assert done.json()["written"] == 1
    await web.put_in("b.csv", "title,date\nx,2024-01-01 09:00\n", "&timezone=Asia/Seoul")
    [row] = await web.office.sql("select occurred_at from knowledge where source = 'b.csv'")
    assert row["occurred_at"].isoformat() == "2024-01-01T00:00:00+00:00"
    told = (await web.put_in("c", '{"issues": []}', "&format=jira&dry_run=true")).json()
    assert told == {"written": 0, "unchanged": 0, "left_out": 0, "complaints": [], "unlisted": 0}


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("name=a.txt", "a.txt: nobody can tell what it is by its name"),
        ("name=a.csv&timezone=Seoul", "There is no time zone 'Seoul'; write e.g. Asia/Seoul."),
        ("name=a%00.csv", "The request does not fit; see errors."),
        ("", "The request does not fit; see errors."),
    ],
)
async def test_what_cannot_be_imported_is_refused_with_the_mend(web: Web, query: str, detail: str) -> None:
    answer = await web.call("POST", f"/knowledge/import?{query}", content=ROWS.encode())
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].startswith(detail)


async def test_all_of_it_is_streamed_as_lines_that_can_be_imported(web: Web) -> None:
    await web.put_in()
    out = await web.call("GET", "/knowledge/export", VERA)
    assert out.headers["content-type"].startswith("application/x-ndjson")
    assert {json.loads(line)["title"] for line in out.text.splitlines()} == {"Shop answers slowly", "Shop is down"}
    again = (await web.put_in("cases.jsonl", out.text, caller=ANN)).json()
    assert (again["written"], again["unchanged"]) == (0, 2)


async def test_only_an_admin_lets_it_forget(web: Web) -> None:
    await web.put_in()
    [row, *_] = await web.office.sql("select id from knowledge")
    refused = await web.call("DELETE", f"/knowledge/{row['id']}")
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "kim is responder; to let the memory forget takes admin.",
    )
    gone = await web.call("DELETE", f"/knowledge/{row['id']}", ANN)
    assert (gone.status_code, gone.json()) == (200, {"forgotten": 1})
    for method in ("GET", "DELETE"):
        missing = await web.call(method, f"/knowledge/{row['id']}", ANN)
        assert (missing.status_code, missing.json()["detail"]) == (404, f"There is no case '{row['id']}'.")
    assert (await web.office.audited("knowledge"))[-1]["subject"] == "forget"


async def test_a_viewer_imports_nothing_and_a_stranger_sees_nothing(web: Web) -> None:
    refused = await web.call("POST", "/knowledge/import?name=a.csv", VERA, ROWS.encode())
    assert (refused.status_code, await web.office.sql("select 1 from knowledge")) == (403, [])
    for path in ("/knowledge", "/knowledge/export", "/knowledge/x", "/incidents/x/postmortem"):
        assert (await web.client.get(path)).status_code == 401


async def test_verdicts_of_elsewhere_are_taken_from_an_admin_only(web: Web) -> None:
    case = Case(id="imported_x", kind="imported", title="t", occurred_at=datetime(2024, 1, 1, tzinfo=UTC))
    refused = await web.put_in("cases.jsonl", case.model_dump_json())
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "kim is responder; to import what was exported takes admin.",
    )
    refused = await web.put_in("cases.csv", case.model_dump_json(), "&format=jsonl")
    assert (refused.status_code, await web.office.sql("select 1 from knowledge")) == (403, [])
    assert (await web.put_in("cases.jsonl", case.model_dump_json(), caller=ANN)).json()["written"] == 1


async def test_a_body_that_is_too_large_is_refused(web: Web) -> None:
    answer = await web.put_in("a.csv", "x" * 1_000_001)
    assert answer.status_code == 413


async def test_more_cases_than_a_client_would_wait_for_are_refused(web: Web) -> None:
    rows = "".join(f"{n},2024-01-01T00:00:00Z\n" for n in range(501))
    answer = await web.put_in("a.csv", f"title,date\n{rows}")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(
        "It holds 501 cases, and over HTTP 500 are taken at once: send it in part"
    )
    empty = await web.put_in("a.csv", " \n")
    assert empty.json()["detail"].startswith("There is nothing in it; send the file itself as the body")


async def test_words_of_strangers_stay_words(web: Web) -> None:
    evil = "<script>alert(1)</script> @channel [x](http://evil)"
    await web.put_in("a.csv", f'title,date,summary\n"{evil}",2024-01-01T00:00:00Z,"{evil}"\n')
    [hit] = (await web.call("GET", "/knowledge?text=script alert")).json()["hits"]
    assert (hit["title"], hit["summary"]) == (evil, evil)


# --- postmortem ---


async def test_the_draft_is_markdown_or_json_in_the_language_that_is_asked_for(web: Web) -> None:
    incident = await web.office.planned()
    text = await web.call("GET", f"/incidents/{incident}/postmortem", VERA)
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    assert text.text.startswith("# Postmortem: t\n")
    assert "(owner: storefront)" in text.text
    korean = await web.call("GET", f"/incidents/{incident}/postmortem?language=ko", accept="application/json")
    assert korean.headers["content-language"] == "ko"
    draft = korean.json()
    assert draft["markdown"].startswith("# 장애 회고: t\n")
    assert draft["action_items"]
    assert set(draft["action_items"][0]) == {"text", "rests_on", "owner"}


async def test_the_one_that_is_kept_with_the_case_names_owners_too(web: Web) -> None:
    incident = await web.office.planned()
    await web.office.sql("update incident set status = 'closed', closed_at = now() where id = %s", incident)
    assert await remember(web.office.desk, incident)
    case = (await web.call("GET", f"/knowledge/{incident}", VERA)).json()
    assert "(owner: storefront)" in case["report"]


async def test_what_people_said_and_similar_cases_are_in_it(web: Web) -> None:
    rows = "title,date,service,component,resolution\nShop t,2023-11-24T09:10:00Z,shop,shop,Doubled the tasks\n"
    await web.put_in("a.csv", rows)
    incident = await web.office.planned()
    body = {"about": "report", "verdict": "wrong", "component": "db", "note": "It was the database"}
    key = await key_of(web.office, KIM)
    given = await web.client.post(f"/incidents/{incident}/feedback", headers=key, json=body)
    assert given.status_code == 200, given.text
    text = (await web.call("GET", f"/incidents/{incident}/postmortem?download=true")).text
    assert "People's feedback corrects the analysis: db · It was the database" in text
    assert "(owner: data)" in text


async def test_it_can_be_downloaded_and_one_of_nothing_is_not_found(web: Web) -> None:
    incident = await web.office.open()
    answer = await web.call("GET", f"/incidents/{incident}/postmortem?download=true")
    assert answer.headers["content-disposition"] == f'attachment; filename="postmortem-{incident}.md"'
    missing = await web.call("GET", "/incidents/inc_0/postmortem")
    assert (missing.status_code, missing.json()["detail"]) == (404, "There is no incident 'inc_0'.")
    assert (await web.call("GET", f"/incidents/{incident}/postmortem?language=fr")).status_code == 422
