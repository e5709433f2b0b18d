"""The Confluence collector against answers of the documented shapes."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from collectors._passages import storage_outlines
from collectors.base import Declared, Forbidden, GapReason, Scope, Symptom, Target, Window
from collectors.confluence import SEARCH, ConfluenceCollector, Settings, create

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
STORAGE = """<p>For payment-service.</p><h1>Connection pool</h1><ac:structured-macro ac:name="toc"><ac:parameter
 ac:name="maxLevel">3</ac:parameter></ac:structured-macro><h2>When it is exhausted &amp; slow</h2><p>Requests time out
 waiting for a connection.</p><ul><li>Look at the <strong>pool</strong></li></ul><ac:structured-macro ac:name="code">
<ac:parameter ac:name="language">bash</ac:parameter><ac:plain-text-body><![CDATA[kubectl logs <pod> > out]]>
</ac:plain-text-body></ac:structured-macro><script>alert(1)</script>"""

Answer = Callable[[httpx.Request], httpx.Response]


class FrozenClock:
    def now(self) -> datetime:
        return T0


def scope(service: str = "payment-service", within_s: float = 15.0) -> Scope:
    return Scope(
        service=service,
        occurred_at=T0,
        incident=Window(start=T0, end=T0 + timedelta(minutes=15)),
        baseline=(),
        symptom=Symptom(title="Connection pool exhausted", text='timeout" OR space = "HR'),
        targets=(Target(service=service), Target(service="orders", hops=1)),
        within_s=within_s,
    )


class Confluence:
    """Finds the same pages whatever is searched; reads them unless told otherwise."""

    def __init__(self, *pages: int) -> None:
        self.requests: list[httpx.Request] = []
        self.found = [hit(page) for page in pages]
        self.answers: dict[str, Answer] = {}

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path in self.answers:
            return self.answers[path](request)
        if path == SEARCH:
            return httpx.Response(200, json={"results": self.found, "size": len(self.found), "_links": {}})
        if path.endswith("/9"):
            await asyncio.Event().wait()
        return httpx.Response(200, json=page(path.rpartition("/")[2]))

    def to(self, path: str) -> list[httpx.Request]:
        return [request for request in self.requests if request.url.path == path]

    def collector(self, **settings: Any) -> ConfluenceCollector:
        known: dict[str, Any] = {"url": "https://acme.atlassian.net/wiki/", "email": "a@b.c", "token": SecretStr("t")}
        return ConfluenceCollector(FrozenClock(), Settings(**known | settings), httpx.MockTransport(self))


def hit(number: int) -> dict[str, Any]:
    return {"content": {"id": str(number), "type": "page", "title": "Pools"}, "excerpt": "…", "url": "/x"}


def page(number: str) -> dict[str, Any]:
    return {
        "id": number,
        "status": "current",
        "title": "Pools of payment-service",
        "body": {"storage": {"value": STORAGE, "representation": "storage"}},
        "_links": {"webui": f"/spaces/OPS/pages/{number}/Pools", "base": "https://elsewhere.example/wiki"},
    }


async def test_sections_that_fit_are_quoted() -> None:
    confluence = Confluence(7)
    found = await confluence.collector(spaces="OPS, SRE").collect(scope())
    best = found.documents[0]
    assert best.section == "Connection pool > When it is exhausted & slow"
    assert best.text.splitlines() == [
        "Requests time out",
        "waiting for a connection.",
        "- Look at the pool",
        "kubectl logs <pod> > out",
    ]
    assert best.link == ("https://acme.atlassian.net/wiki/spaces/OPS/pages/7/Pools#When-it-is-exhausted-%26-slow")
    assert "payment-service" in best.why
    assert "exhausted" in best.why
    assert len(confluence.to("/wiki/api/v2/pages/7")) == 1
    asked = confluence.to("/wiki/api/v2/pages/7")[0]
    assert asked.url.params["body-format"] == "storage"
    assert asked.headers["Authorization"].startswith("Basic ")


async def test_the_search_names_spaces_and_escapes_what_strangers_wrote() -> None:
    confluence = Confluence()
    found = await confluence.collector(spaces="OPS, SRE").collect(scope('pay" OR \\'))
    questions = [request.url.params["cql"] for request in confluence.to(SEARCH)]
    prefix = 'type = page AND space in ("OPS", "SRE") AND '
    phrase = '"\\"pay\\\\\\" OR \\\\\\\\\\""'
    assert questions[1] == f"{prefix}(title ~ {phrase} OR text ~ {phrase})"
    assert questions[2] == f'{prefix}text ~ "connection OR pool OR exhausted OR timeout OR space"'
    assert all(question.startswith(prefix) for question in questions)
    assert [query.text for query in found.queries] == questions
    assert [gap.reason for gap in found.gaps] == [GapReason.EMPTY]


async def test_paging_uses_the_cursor_on_the_same_host_and_ends() -> None:
    confluence = Confluence()

    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("cursor", "0"))
        link = f"https://elsewhere.example/rest/api/search?cql=x&cursor={number + 1}"
        return httpx.Response(200, json={"results": [{"content": None}], "_links": {"next": link}})

    confluence.answers[SEARCH] = answer
    found = await confluence.collector().collect(scope())
    assert {request.url.host for request in confluence.requests} == {"acme.atlassian.net"}
    assert len(confluence.to(SEARCH)) == 4 * 5
    assert "1 rows were not understood: type = page AND" in found.gaps[0].detail


async def test_a_page_that_is_hidden_or_slow_costs_only_itself() -> None:
    confluence = Confluence(7, 8, 9)
    confluence.answers["/wiki/api/v2/pages/8"] = lambda _: httpx.Response(404)
    found = await confluence.collector().collect(scope(within_s=2.5))
    assert found.documents
    assert {gap.reason for gap in found.gaps} == {GapReason.FORBIDDEN, GapReason.TIMEOUT}
    assert "read:page:confluence" in next(g.mend for g in found.gaps if g.reason == GapReason.FORBIDDEN)


async def test_pages_that_were_not_read_are_not_said_to_fit_nothing() -> None:
    found = await Confluence(9).collector().collect(scope(within_s=1.5))
    assert [gap.reason for gap in found.gaps] == [GapReason.TIMEOUT]
    assert "AUTOPILOT_COLLECT_S" in found.gaps[0].mend


async def test_more_pages_than_are_read_is_told() -> None:
    confluence = Confluence(*range(10, 40))
    confluence.answers["/wiki/api/v2/pages/10"] = lambda _: httpx.Response(200, json=page("10"))
    found = await confluence.collector(max_pages=2, max_sections=1).collect(scope())
    assert len(found.documents) == 1
    assert all(query.truncated for query in found.queries)


async def test_an_id_that_is_no_number_is_not_asked_for() -> None:
    confluence = Confluence()
    confluence.found = [{"content": {"id": "../../admin"}}]
    await confluence.collector().collect(scope())
    assert {request.url.path for request in confluence.requests} == {SEARCH}


async def test_refused_credentials_raise_with_the_scope() -> None:
    confluence = Confluence()
    confluence.answers[SEARCH] = lambda _: httpx.Response(403)
    with pytest.raises(Forbidden) as refused:
        await confluence.collector().collect(scope())
    assert "search:confluence" in refused.value.mend


async def test_check_tells_each_permission() -> None:
    confluence = Confluence(7)
    confluence.answers["/wiki/api/v2/pages/7"] = lambda _: httpx.Response(403)
    checks = {check.name: check for check in await confluence.collector().check()}
    assert {name: check.status for name, check in checks.items()} == {
        "credentials": "ok",
        "clock": "skipped",
        "search:confluence": "ok",
        "read:page:confluence": "failed",
    }
    assert "read:page:confluence" in checks["read:page:confluence"].mend


@pytest.mark.parametrize("piece", ["<a", "<![CDATA[", "<![x[", "<!--", "</", '<a b="', "<script>", "<h1>", "&"])
def test_malformed_pages_are_read_in_no_time(piece: str) -> None:
    storage_outlines("<h1>x</h1>" + piece * (400_000 // len(piece)))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="needs CONFLUENCE_URL"):
        create(FrozenClock(), Declared())
    with pytest.raises(ValidationError, match="must begin with https"):
        Settings(url="file:///etc/passwd")
    with pytest.raises(ValidationError, match="no user and no password"):
        Settings(url="https://kim:secret@acme.atlassian.net")
