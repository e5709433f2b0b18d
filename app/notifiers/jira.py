"""Jira Cloud: a ticket where an incident is taken by hand, or where the policy asks for one; it follows the incident.

Settings: ``AUTOPILOT_JIRA_URL``, ``AUTOPILOT_JIRA_EMAIL`` and ``AUTOPILOT_JIRA_API_TOKEN``. Where tickets go is in
``teams:`` of ``autopilot.yaml`` (``jira: {project: OPS}``); when they are made, in ``policy.messages.tickets_on``.

Jira has no idempotency key. A ticket has the label ``aiops-<incident>`` and our message's id in its property ``aiops``,
a comment has it in its own: after an attempt whose end is unknown they are looked for. A comment is the last thing
that its message does; all before it can be done again. A key that is known is never searched for.
"""

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Container, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import Field, JsonValue, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.notifiers import _adf_report as ticket
from app.notifiers._http import safe
from app.notifiers._jira_api import Jira, Mendable, NotTaken, NotThere
from app.notifiers._jira_fields import fields, mend, type_id
from app.notifiers._jira_types import (
    Comments,
    CommentsById,
    Found,
    Issue,
    IssueTypes,
    Made,
    Screen,
    Transitions,
    parsed,
)
from app.notifiers._jira_workflow import Belongs, belongs, demanded, event_kind, step_to, worth_a_comment
from app.notifiers.base import Receipt, Reference, Telling, TryAgain, Undeliverable
from app.pictures_png import labels, png
from app.report import Report, chart, topology
from app.report_markdown import markdown
from graph.catalogue import JiraProject, Team
from graph.masking import Masker
from graph.policy import TicketOn
from graph.state import Severity

log = logging.getLogger(__name__)

API = "/rest/api/3"
PROPERTY = LABEL = "aiops"
LINK = "Relates"
WITHIN_S = 22.0  # looking up, and delivering, each: the outbox gives both together 50
LOOKS_AFTER_S = (0.0, 2.0, 5.0, 8.0)  # a search does not find at once what is new
FOUND_AFTER_S = 60.0  # but nearly always after this
MAX_CHARTS = 3
MAX_COMMENTS = 50  # that are looked through for ours
MAX_FIELDS = 200
WRITTEN = ("summary", "description", "labels")  # fields that come from the incident
KEY = re.compile(r"[A-Z][A-Z0-9_]{1,30}-[1-9]\d{0,11}")
REFUSED = (Undeliverable, Mendable)  # a ticket stands also without what is refused so
Files = dict[str, tuple[bytes, str]]
T = TypeVar("T")


class Settings(BaseSettings):
    """``AUTOPILOT_JIRA_*``: the site, and the account that writes there."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_JIRA_", env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )

    url: str = Field(default="", description="The site, e.g. https://example.atlassian.net")
    email: str = Field(default="", description="Of the account that writes the tickets")
    api_token: SecretStr | None = Field(default=None, description="An API token of that account")
    fields: dict[str, JsonValue] = Field(
        default_factory=dict,
        description='Fields that your projects ask for besides, by their ids: {"customfield_10020": {"value": "Ops"}}',
    )

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc:
            raise ValueError("write it without user and password: there are settings for them")
        return safe(url, "it").rstrip("/") if url else ""


def create(clock: Clock, file: AutopilotYaml) -> "JiraNotifier":
    """The notifier of the site that the settings name. Raises ValueError: a setting is missing."""
    settings = Settings()
    needed = {"URL": settings.url, "EMAIL": settings.email, "API_TOKEN": settings.api_token}
    if missing := [f"AUTOPILOT_JIRA_{name}" for name, value in needed.items() if not value]:
        raise ValueError(f"set {', '.join(missing)}, or leave jira out of AUTOPILOT_NOTIFIERS")
    return JiraNotifier(settings, file, clock)


class JiraNotifier:
    """``app.notifiers.base.Notifier``; a conversation is the ticket: ``{"issue": "OPS-12"}``.

    Also in it: ``unfinished``, the message whose ticket was made and is not complete; ``joined``: the ticket was made
    for something else, so its status is not ours to change; ``wanted``: a ticket was asked for and refused.
    """

    name = "jira"

    def __init__(
        self,
        settings: Settings,
        file: AutopilotYaml,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``settings`` are complete: see ``create``."""
        patterns = [(p.name, p.regex) for p in file.masking.patterns]
        mask = Masker(secrets.token_bytes(32), patterns=patterns).mask
        token = settings.api_token or SecretStr("")
        self._api = Jira(settings.url, settings.email, token, mask, transport)
        self._teams: Mapping[str, Team] = file.teams
        self._tickets_on: Sequence[TicketOn] = file.policy.messages.tickets_on
        self._extra, self._clock = settings.fields, clock

    async def deliver(self, telling: Telling) -> Receipt:
        """See ``app.notifiers.base.Notifier``."""
        async with _within() as known:
            if key := _issue_of(telling.conversation):
                unfinished = telling.conversation.get("unfinished") == str(telling.id)
                return await (self._complete(telling, key, known) if unfinished else self._follow(telling, key))
            if not self._asks_for_ticket(telling):
                return Receipt(
                    detail=f"no ticket: {event_kind(telling.event)} is not one of policy.messages.tickets_on"
                )
            if key := await self._still_open(telling):
                return await self._join(telling, key)
            return await self._complete(telling, await self._make(telling), known)

    async def look_up(self, telling: Telling) -> Receipt | None:
        """See ``app.notifiers.base.Notifier``. What is left of a ticket that was made is done too."""
        async with _within() as known:
            key = _issue_of(telling.conversation)
            if key and telling.conversation.get("unfinished") == str(telling.id):
                return await self._complete(telling, key, known)
            opens = not key and self._asks_for_ticket(telling)
            if opens:
                key = await self._still_open(telling)
            if key and await self._has_comment(key, telling):
                return Receipt(_joined(key) if opens else {"issue": key}, f"{key} has our comment already")
            if opens and not key and (made := await self._search(telling)):
                return await self._complete(telling, made, known)
            return None

    async def check(self) -> Sequence[str]:
        """See ``app.notifiers.base.Notifier``."""
        try:
            await self._api.get(f"{API}/myself")
        except (TryAgain, Undeliverable) as error:
            return [error.detail]
        problems = [] if any(t.jira for t in self._teams.values()) else [NO_PROJECT]
        for name, team in self._teams.items():
            if team.jira:
                problems += await self._check_project(name, team.jira)
        return problems

    async def _check_project(self, team: str, where: JiraProject) -> list[str]:
        try:
            await self._fields(team, where, "critical", dict.fromkeys(WRITTEN))
        except (TryAgain, Undeliverable) as error:
            return [error.detail]
        return []

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()

    # --- a new ticket ---

    def _asks_for_ticket(self, telling: Telling) -> bool:
        """The event does; or one before it did in vain, and it is not over."""
        in_vain = bool(telling.conversation.get("wanted")) and belongs(telling) != "done"
        return in_vain or event_kind(telling.event) in self._tickets_on

    def _project(self, telling: Telling) -> tuple[str, JiraProject]:
        """Of the team that is told. Raises Mendable."""
        team = telling.team or telling.target
        found = self._teams.get(team)
        if found is None or found.jira is None:
            raise Mendable(f"The team {team!r} has no Jira project: add teams.{team}.jira to autopilot.yaml.")
        return team, found.jira

    async def _make(self, telling: Telling) -> str:
        """The key of a new ticket."""
        team, where = self._project(telling)
        report = telling.report
        described, _ = self._described(telling)
        written: tuple[JsonValue, ...] = (ticket.headline(report), described, [LABEL, _label(telling.incident_id)])
        filled = await self._fields(team, where, _severity(report), dict(zip(WRITTEN, written, strict=True)))
        body: JsonValue = {"fields": filled, "properties": [_ours(telling)]}
        try:
            return _key(parsed(Made, await self._api.send("POST", f"{API}/issue", body), ambiguous=True).key)
        except NotTaken as error:
            mends = "; ".join(mend(field, where, team) for field in error.fields)
            told = f"{error.detail} What to do: {mends or 'see what it says'}."
            if error.fields and not error.fields.keys() & set(WRITTEN):
                raise Mendable(told) from None
            raise Undeliverable(told, {"wanted": True}) from None
        except TryAgain as error:
            if error.ambiguous:  # it is searched for before it is made again: the index gets its time
                error.after_s = max(error.after_s or 0.0, FOUND_AFTER_S)
            raise

    async def _fields(
        self, team: str, where: JiraProject, severity: Severity, written: Mapping[str, JsonValue]
    ) -> dict[str, JsonValue]:
        """Of a new issue of the team's, by what its project asks for now. Raises TryAgain, Mendable."""
        path = f"{API}/issue/createmeta/{where.project}/issuetypes"
        try:
            types = parsed(IssueTypes, await self._api.get(path, maxResults=MAX_FIELDS)).issue_types
        except NotThere:
            types = ()
        if not types:
            raise Mendable(
                f"{self._api.email} may make no issues in the Jira project {where.project}, or it does not exist:"
                f" correct teams.{team}.jira.project in autopilot.yaml, or give that account «Create issues» there."
            )
        kind = type_id(types, where, team)
        screen = parsed(Screen, await self._api.get(f"{path}/{kind}", maxResults=MAX_FIELDS)).fields
        said: dict[str, JsonValue] = {"project": {"key": where.project}, "issuetype": {"id": kind}, **written}
        return fields(screen, where, team, severity, said, self._extra)

    async def _complete(self, telling: Telling, key: str, known: dict[str, JsonValue]) -> Receipt:
        """All that a ticket gets once it is there. A failure now is no reason to make another one."""
        known |= {"issue": key, "unfinished": str(telling.id)}
        _, whole = self._described(telling)
        try:
            issue = await self._issue(key, "attachment,issuelinks")
            remarks = await self._attach(telling, issue, whole=whole)
            remarks += await self._link(issue, _issue_of(telling.earlier))
        except REFUSED as error:
            remarks = [f"not complete: {error.detail}"]
        except TryAgain as error:
            raise TryAgain(f"{key} is made, but not complete: {error.detail}", error.after_s, ambiguous=True) from None
        return Receipt({"issue": key}, "; ".join([f"{key} made", *remarks]))

    def _described(self, telling: Telling) -> tuple[dict[str, JsonValue], bool]:
        report = telling.report
        names, rest = list(_drawn(report)), _report_file(report)
        return ticket.description(report, url=telling.url, why=telling.why, pictures=names, rest=rest)

    async def _attach(self, telling: Telling, issue: Issue, *, whole: bool) -> list[str]:
        """Pictures, and the report where it is not ``whole``, unless they are there; what stood against it."""
        there = {a.filename for a in issue.fields.attachment}
        files: Files = await asyncio.to_thread(_pictures, telling.report, there)
        rest = _report_file(telling.report)
        if not whole and rest not in there:
            files[rest] = (markdown(telling.report).encode("utf-8", "replace"), "text/markdown")
        if not files:
            return []
        try:
            await self._api.attach(f"{API}/issue/{issue.key}/attachments", files)
        except REFUSED as error:
            return [f"nothing is attached: {error.detail}"]
        return []

    async def _link(self, issue: Issue, earlier: str) -> list[str]:
        """To the ticket of the same alert before; what stood against it."""
        known = {end.key for link in issue.fields.issuelinks for end in (link.inward_issue, link.outward_issue)}
        if not earlier or earlier in known or earlier == issue.key:
            return []
        body: JsonValue = {"type": {"name": LINK}, "inwardIssue": {"key": earlier}, "outwardIssue": {"key": issue.key}}
        try:
            await self._api.send("POST", f"{API}/issueLink", body)
        except REFUSED as error:
            return [f"not linked to {earlier}: {error.detail}"]
        return [f"linked to {earlier}"]

    async def _search(self, telling: Telling) -> str:
        """The ticket that was made for the incident and its team; empty: none, however often it is looked for."""
        asked: JsonValue = {
            "jql": f'labels = "{_label(telling.incident_id)}" order by created',
            "fields": ["status"],
            "properties": [PROPERTY],
            "maxResults": 20,
        }
        for wait_s in LOOKS_AFTER_S:
            await self._clock.sleep(wait_s)
            found = parsed(Found, await self._api.ask(f"{API}/search/jql", asked)).issues
            mine = [i.key for i in found if _is_ticket_of(i.properties.get(PROPERTY), telling)]
            if mine:
                return _key(mine[0])
        return ""

    # --- a ticket that is open already ---

    async def _still_open(self, telling: Telling) -> str:
        """The ticket whose alert this is, or that of the same alert before, unless it is done; empty: none."""
        for key in dict.fromkeys([*self._alerted(telling), _issue_of(telling.earlier)]):
            try:
                if key and not (await self._issue(key, "status")).fields.status.done:
                    return key
            except NotThere:
                continue
        return ""

    def _alerted(self, telling: Telling) -> Iterator[str]:
        """Tickets of the team's project that alerts of the incident came from: whoever sends one names no other."""
        _, where = self._project(telling)
        for alert in telling.report.alerts:
            site, _, key = (alert.url or "").partition("/browse/")
            if site == self._api.url and KEY.fullmatch(key) and key.rpartition("-")[0] == where.project:
                yield key

    async def _join(self, telling: Telling, key: str) -> Receipt:
        """Tell the open ticket: there is no second one."""
        rest = _report_file(telling.report)
        body, whole = ticket.came_again(telling.report, url=telling.url, why=telling.why, rest=rest)
        labelled: JsonValue = {"update": {"labels": [{"add": LABEL}, {"add": _label(telling.incident_id)}]}}
        remarks = []
        try:
            await self._api.send("PUT", f"{API}/issue/{key}", labelled)
        except REFUSED as error:
            remarks.append(f"not labelled: {error.detail}")
        remarks += await self._attach(telling, await self._issue(key, "attachment"), whole=whole)
        await self._comment(telling, key, body)
        return Receipt(_joined(key), "; ".join([f"{key} is still open: told there", *remarks]))

    # --- a ticket follows ---

    async def _follow(self, telling: Telling, key: str) -> Receipt:
        if not worth_a_comment(telling):
            return Receipt(detail=f"nothing to say in {key} of {event_kind(telling.event)}")
        try:
            end = None if telling.conversation.get("joined") else belongs(telling)
            moved = await self._move(key, end, telling.report) if end else ""
            body = ticket.comment(telling.report, telling.event, url=telling.url, moved=moved)
            await self._comment(telling, key, body)
        except NotThere as error:
            raise Undeliverable(f"The ticket {key} was deleted, or is hidden from us. {error.detail}") from None
        return Receipt({"issue": key}, f"told in {key}")

    async def _move(self, key: str, end: Belongs, report: Report) -> str:
        """To where it belongs, if it is not there; what became of that, in words for the comment."""
        status = (await self._issue(key, "status")).fields.status
        if status.done == (end == "done"):
            return ""
        path = f"{API}/issue/{key}/transitions"
        offered = parsed(Transitions, await self._api.get(path, expand="transitions.fields")).transitions
        chosen = step_to(end, offered)
        if chosen is None:
            return ticket.not_moved(report, status.name)
        filled: JsonValue = {name: {"id": value} for name, value in demanded(chosen).items()}
        body: JsonValue = {"transition": {"id": chosen.id}, **({"fields": filled} if filled else {})}
        try:
            await self._api.send("POST", path, body)
        except REFUSED as error:
            return ticket.not_moved(report, status.name, error.detail)
        except TryAgain as error:  # it can be done again: the comment is what tells whether this was delivered
            raise TryAgain(error.detail, error.after_s) from None
        return ticket.moved(report, chosen.to.name)

    async def _comment(self, telling: Telling, key: str, body: JsonValue) -> None:
        await self._api.send("POST", f"{API}/issue/{key}/comment", {"body": body, "properties": [_ours(telling)]})

    async def _has_comment(self, key: str, telling: Telling) -> bool:
        path = f"{API}/issue/{key}/comment"
        newest = parsed(Comments, await self._api.get(path, orderBy="-created", maxResults=MAX_COMMENTS)).comments
        if not newest:
            return False
        ids: JsonValue = [int(c.id) for c in newest if c.id.isdecimal()]
        known = parsed(CommentsById, await self._api.ask(f"{API}/comment/list?expand=properties", {"ids": ids}))
        return any(
            p.key == PROPERTY and _is_comment_of(p.value, telling)
            for comment in known.values
            for p in comment.properties
        )

    async def _issue(self, key: str, wanted: str) -> Issue:
        return parsed(Issue, await self._api.get(f"{API}/issue/{key}", fields=wanted))


NO_PROJECT = (
    "No team of autopilot.yaml has a Jira project, so no ticket is ever made: add jira: {project: …} to teams:."
)


@asynccontextmanager
async def _within() -> AsyncIterator[dict[str, JsonValue]]:
    """All of an attempt. Raises TryAgain; it has what the attempt came to know of the conversation."""
    known: dict[str, JsonValue] = {}
    try:
        async with asyncio.timeout(WITHIN_S):
            yield known
    except TimeoutError:
        told = f"Jira did not answer all we asked within {WITHIN_S:g} seconds."
        raise TryAgain(told, FOUND_AFTER_S, ambiguous=True, reference=known) from None
    except TryAgain as error:
        error.reference |= known
        raise


# --- the smallest pieces ---


def _drawn(report: Report) -> dict[str, str]:
    """Pictures by their names, as SVG, in a language that they can be labelled in here."""
    language = labels(report.language)
    drawn = {"topology": _tried(partial(topology, report, language=language))}
    drawn |= {f.id: _tried(partial(chart, report, f, language=language)) for f in report.charted[:MAX_CHARTS]}
    return {f"{report.incident_id}-{name}.png": svg for name, svg in drawn.items() if svg}


def _pictures(report: Report, there: Container[str]) -> Files:
    """Those that are not ``there``, as PNG."""
    drawn = {name: _tried(partial(png, svg)) for name, svg in _drawn(report).items() if name not in there}
    return {name: (picture, "image/png") for name, picture in drawn.items() if picture}


def _tried(draw: Callable[[], T]) -> T | None:
    try:
        return draw()
    except Exception:  # a picture that cannot be drawn must not cost people the ticket
        log.exception("a picture for Jira cannot be drawn")
        return None


def _report_file(report: Report) -> str:
    return f"{report.incident_id}-report.md"


def _issue_of(reference: Reference) -> str:
    """The ticket of a conversation; empty: it has none."""
    key = reference.get("issue")
    return key if isinstance(key, str) and KEY.fullmatch(key) else ""


def _key(said: str) -> str:
    """An issue's key: it becomes part of addresses. Raises Undeliverable."""
    if not KEY.fullmatch(said):
        raise Undeliverable("Jira made a ticket whose key is none. Look for it there by the label aiops.")
    return said


def _label(incident_id: str) -> str:
    return f"{LABEL}-{incident_id}"


def _ours(telling: Telling) -> JsonValue:
    """The property by which a message is found again."""
    said: JsonValue = {"message": str(telling.id), "incident": telling.incident_id, "team": telling.target}
    return {"key": PROPERTY, "value": said}


def _is_comment_of(value: JsonValue, telling: Telling) -> bool:
    return isinstance(value, dict) and value.get("message") == str(telling.id)


def _is_ticket_of(value: JsonValue, telling: Telling) -> bool:
    """There is one for an incident and a team, whichever message made it."""
    ours = (telling.incident_id, telling.target)
    return isinstance(value, dict) and (value.get("incident"), value.get("team")) == ours


def _joined(key: str) -> dict[str, JsonValue]:
    """What is known of a ticket that was there before."""
    return {"issue": key, "joined": True}


def _severity(report: Report) -> Severity:
    return "critical" if report.severity == "critical" else "warning" if report.severity == "warning" else "info"
