"""Finds the sections of Confluence Cloud pages that fit an alert.

Searched by CQL, which only version 1 of the API has; the pages are read by version 2, in storage format. The API
token's account must see the spaces. What a page says is quoted, never followed; no address on it is fetched.
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Sequence
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, ValidationError, field_validator

from collectors._budget import SourceSettings, env
from collectors._http import Api, Params, checked, clock_check, parsed
from collectors._jobs import Part, on_thread
from collectors._passages import Question, Section, best, question, storage_outlines, with_paths
from collectors._queries import asked as recorded
from collectors._source import HttpSource
from collectors._urls import base_url
from collectors.base import (
    Check,
    Clock,
    CollectorError,
    Declared,
    Document,
    Forbidden,
    GapReason,
    NotFound,
    Scope,
    Telemetry,
)

SEARCH = "/wiki/rest/api/search"
PAGE = 25  # rows of one search answer
SEARCH_PAGES = 5  # answers read of one search
SEARCHED_SERVICES = 5  # the alerted one and its nearest neighbours
SEARCHED_WORDS = 12  # of the alert
TO_RANK_S = 0.5  # kept back of the budget, so that what was read can still be ranked
SEARCH_NEEDS = "give the API token the scope search:confluence, and its account the right to view the spaces"
READ_NEEDS = "give the API token the scope read:page:confluence, and its account the right to view the page"


class Settings(SourceSettings):
    """``CONFLUENCE_*``: the site, an account's API token, and the spaces that are searched."""

    model_config = env("CONFLUENCE_")

    url: str = Field(default="", description="The site, e.g. https://acme.atlassian.net")
    email: str = Field(default="", description="The account that the API token belongs to")
    token: SecretStr | None = Field(default=None, description="An API token of that account")
    spaces: str = Field(default="", description="Keys of the spaces that are searched, e.g. OPS,SRE; empty: all")
    max_pages: int = Field(default=10, ge=1, le=100, description="Pages read for one incident")
    max_sections: int = Field(default=5, ge=1, le=50, description="Sections quoted for one incident")

    @field_validator("url")
    @classmethod
    def _site(cls, url: str) -> str:
        return base_url(url).removesuffix("/wiki") if url else ""


def create(clock: Clock, declared: Declared) -> "ConfluenceCollector":
    """The collector of the site that the settings name. Raises ValueError naming a missing setting."""
    settings = Settings()
    if not settings.url:
        raise ValueError("The collector 'confluence' needs CONFLUENCE_URL: the site, e.g. https://acme.atlassian.net.")
    if not settings.email:
        raise ValueError("The collector 'confluence' needs CONFLUENCE_EMAIL: the account of the API token.")
    if settings.token is None:
        raise ValueError("The collector 'confluence' needs CONFLUENCE_TOKEN: an API token of the account.")
    return ConfluenceCollector(clock, settings)


# --- what Confluence answers ------------------------------------------------------------------------------------


class _Links(BaseModel):
    next: str = ""
    webui: str = ""


class _Content(BaseModel):
    id: str = Field(pattern=r"^\d{1,20}$")


class _Hit(BaseModel):
    content: _Content


class _Results(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    results: list[JsonValue] = Field(default_factory=list)
    links: _Links = Field(default_factory=_Links, alias="_links")


class _Storage(BaseModel):
    value: str = ""


class _Body(BaseModel):
    storage: _Storage = Field(default_factory=_Storage)


class _Page(BaseModel):
    id: str
    title: str
    body: _Body = Field(default_factory=_Body)
    links: _Links = Field(default_factory=_Links, alias="_links")


# --- the collector ----------------------------------------------------------------------------------------------


class ConfluenceCollector(HttpSource[Settings]):
    """One Confluence site, read-only."""

    name = "confluence"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold the site and its credentials."""
        super().__init__(settings)
        self._clock = clock
        client = httpx.AsyncClient(
            base_url=settings.url,
            auth=(settings.email, settings.token.get_secret_value() if settings.token else ""),
            headers={"Accept": "application/json"},
            timeout=httpx.Timeout(10.0, connect=3.0),
            transport=transport,
        )
        self._api = Api("Confluence", client, base_setting="CONFLUENCE_URL", per_second=10.0)

    async def collect(self, scope: Scope) -> Telemetry:
        """The sections that fit the alert and the services in play, best first. Raises CollectorError."""

        async def pages(part: Part) -> None:
            await self._documents(scope, part)

        return await self._gathered(scope, [("pages", pages)], side_by_side=1)

    async def check(self) -> list[Check]:
        """Whether the site answers, the token is taken, a search works, and the page it finds can be read."""

        async def credentials(part: Part) -> str:
            await self._api.json(part, "/wiki/rest/api/user/current", needs="check CONFLUENCE_EMAIL and _TOKEN")
            return f"{self._settings.email} at {self._settings.url}"

        async def search(part: Part) -> str:
            self._require(await self._search(part, self._cql("lastmodified >= '2000-01-01'"), limit=1))
            return "pages are found"

        async def read(part: Part) -> str:
            found = self._require(await self._search(part, self._cql("lastmodified >= '2000-01-01'"), limit=1))
            return f"read: {(await self._page(part, found[0])).title[:80]}"

        return [
            await checked(self.name, self._settings, "credentials", credentials),
            clock_check(self._api.skew_s),
            await checked(self.name, self._settings, "search:confluence", search, SEARCH_NEEDS),
            await checked(self.name, self._settings, "read:page:confluence", read, READ_NEEDS),
        ]

    def _require(self, found: list[str]) -> list[str]:
        if not found:
            raise CollectorError(f"no page is seen in {self._where}", "check CONFLUENCE_SPACES")
        return found

    # --- jobs ---

    async def _documents(self, scope: Scope, part: Part) -> None:
        asked = question(scope)
        found = await self._found(scope, asked, part)
        pages = await self._pages(found[: self._settings.max_pages], part)
        if len(found) > self._settings.max_pages:
            told = f"{len(found)} pages were found; the first {self._settings.max_pages} were read"
            part.gap(GapReason.TRUNCATED, told, "raise CONFLUENCE_MAX_PAGES, or name fewer CONFLUENCE_SPACES")
        part.keep(await on_thread(self._best, pages, asked))
        if not part.documents and not part.gaps:  # all that was found was read
            told = f"no page in {self._where} fits {', '.join(asked.hops)}"
            part.gap(GapReason.EMPTY, told, "write one that names the service, or check CONFLUENCE_SPACES")

    async def _found(self, scope: Scope, asked: Question, part: Part) -> list[str]:
        """Ids of pages: first those that share words with the alert and name the service, then the others."""
        found: dict[str, None] = {}
        searches = [self._cql(condition) for condition in _conditions(asked)]
        answers = await asyncio.gather(*(self._asked(part, cql, scope) for cql in searches))
        for ids in answers:
            found.update(dict.fromkeys(ids))
        return list(found)

    async def _asked(self, part: Part, cql: str, scope: Scope) -> list[str]:
        """As ``_search``; recorded, and a failure is a Gap."""
        ids: list[str] = []
        link = f"{self._settings.url}/wiki/search?cql={quote(cql, safe='')}"
        with recorded(part, cql, scope.incident, link, kind="documents") as tally:
            try:
                ids = await self._search(part, cql, limit=self._settings.max_pages)
            except CollectorError as error:
                part.fail(error)
            tally.rows, tally.truncated = len(ids), len(ids) >= self._settings.max_pages
        return ids

    async def _search(self, part: Part, cql: str, *, limit: int) -> list[str]:
        """Ids of pages, in Confluence's order of relevance, at most ``limit``. Raises CollectorError."""
        found: list[str] = []
        cursor, seen = "", {""}
        for _ in range(SEARCH_PAGES):
            params: Params = {"cql": cql, "limit": min(PAGE, limit), "cursor": cursor}
            answer = parsed(_Results, await self._api.json(part, SEARCH, needs=SEARCH_NEEDS, params=params))
            ids = list(_ids(answer.results))
            if len(ids) < len(answer.results):
                part.gap(GapReason.FAILED, f"{len(answer.results) - len(ids)} rows were not understood: {cql}")
            found += ids
            cursor = _cursor(answer.links.next)
            if cursor in seen or len(found) >= limit:
                break
            seen.add(cursor)
        return found[:limit]

    async def _pages(self, ids: Sequence[str], part: Part) -> list[_Page]:
        """The pages that could be read in time."""
        tasks = [asyncio.create_task(self._page(part, page_id)) for page_id in ids]
        if not tasks:
            return []
        try:
            done, late = await asyncio.wait(tasks, timeout=max(part.budget.left_s - TO_RANK_S, 0.0))
        finally:
            for task in tasks:
                task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        if late:
            told = f"{len(late)} of {len(ids)} pages were not read in time"
            part.gap(GapReason.TIMEOUT, told, part.budget.mend_seconds)
        pages = []
        for task in (task for task in tasks if task in done):
            try:
                pages.append(task.result())
            except CollectorError as error:
                part.fail(error)
        return pages

    async def _page(self, part: Part, page_id: str) -> _Page:
        path = f"/wiki/api/v2/pages/{page_id}"
        try:
            answer = await self._api.json(part, path, needs=READ_NEEDS, params={"body-format": "storage"})
        except NotFound as error:  # found by the search, so it is there
            raise Forbidden(error.detail, READ_NEEDS) from None
        return parsed(_Page, answer)

    @property
    def _where(self) -> str:
        return self._settings.spaces or "any space"

    def _best(self, pages: Iterable[_Page], asked: Question) -> list[Document]:
        sections = [section for page in pages for section in self._sections(page)]
        return best(sections, asked, self._settings.max_sections)

    def _sections(self, page: _Page) -> Iterator[Section]:
        link = f"{self._settings.url}/wiki{quote(page.links.webui, safe='/%+:@')}" if page.links.webui else None
        for path, text in with_paths(storage_outlines(page.body.storage.value)):
            anchor = f"#{quote(path[-1].replace(' ', '-'))}" if path else ""
            yield Section(title=page.title, path=path, text=text, link=f"{link}{anchor}" if link else None)

    def _cql(self, condition: str) -> str:
        keys = [key.strip() for key in self._settings.spaces.split(",") if key.strip()]
        spaces = f"space in ({', '.join(map(_quoted, keys))}) AND " if keys else ""
        return f"type = page AND {spaces}{condition}"


# --- queries ------------------------------------------------------------------------------------------------


def _conditions(asked: Question) -> list[str]:
    """From what tells most: the alert's words on a page that names the service; the service; its neighbours."""
    services = sorted(asked.hops, key=lambda s: asked.hops[s])[:SEARCHED_SERVICES]
    named = [f"(title ~ {_phrase(service)} OR text ~ {_phrase(service)})" for service in services]
    heaviest = sorted(asked.weights, key=lambda w: -asked.weights[w])[:SEARCHED_WORDS]
    symptoms = [f"text ~ {_quoted(' OR '.join(heaviest))}"] if heaviest else []
    together = [f"({named[0]} AND {symptoms[0]})"] if symptoms else []
    return [*together, *named[:1], *symptoms, *([f"({' OR '.join(named[1:])})"] if named[1:] else [])]


def _phrase(text: str) -> str:
    """All the words, in this order."""
    return _quoted(_quoted(text))  # quoted once for the full-text search inside, and once for CQL


def _quoted(text: str) -> str:
    """A text in CQL, where backslash and quotation mark are escaped by a backslash."""
    escaped = re.sub(r'([\\"])', r"\\\1", re.sub(r"[\x00-\x1f]", " ", text))
    return f'"{escaped}"'


def _ids(rows: Iterable[JsonValue]) -> Iterator[str]:
    for row in rows:
        try:
            yield _Hit.model_validate(row).content.id
        except ValidationError:
            continue


def _cursor(following: str) -> str:
    """Where the next page begins. Of the link only the cursor is used, so that it cannot lead to another host."""
    return (parse_qs(urlsplit(following).query).get("cursor") or [""])[0]
