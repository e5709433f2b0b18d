"""Jira Cloud's REST API v3: issues by their project's rules, comments, properties, workflow and search."""

import base64
import html
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from pydantic import BaseModel

from app.simulator import jira_adf as adf
from app.simulator.backdoor import Fail
from app.simulator.jira_jql import JqlError, parse
from app.simulator.pages import page
from app.simulator.shop import Clock

Json = dict[str, Any]

PRIORITIES = ("Highest", "High", "Medium", "Low", "Lowest")
MOST_SUMMARY = 255
EMAIL = "autopilot@shop.test"  # our account
API_TOKEN = "shop-jira-token"  # noqa: S105  of a site that does not exist
FIRST_TYPE = 10_000  # id of a project's first issue type
MOST_PROPERTY_BYTES = 32_768
_CATEGORIES = {"new": (2, "To Do"), "indeterminate": (4, "In Progress"), "done": (3, "Done")}
_SEARCHED = frozenset(
    {"project", "key", "labels", "status", "statuscategory", "issuetype", "components", "priority", "text", "summary"}
    | {"description", "created", "updated", "assignee", "reporter"}
)


@dataclass(frozen=True)
class Transition:
    """From some statuses to one."""

    id: str
    name: str
    to: str
    of: tuple[str, ...]


@dataclass
class Project:
    """Its rules: what an issue must have, and how it moves. ``required``: fields and what they are called."""

    key: str
    name: str
    components: tuple[str, ...]
    statuses: Mapping[str, str]  # to their category
    transitions: tuple[Transition, ...]
    issue_types: tuple[str, ...] = ("Task", "Bug", "Incident")
    required: dict[str, str] = field(default_factory=dict)
    issues: int = 0

    @property
    def fields(self) -> dict[str, str]:
        """Those of its screens, and what people call them."""
        common = {"summary": "Summary", "issuetype": "Issue Type", "project": "Project", "description": "Description"}
        more = {"labels": "Labels", "components": "Components", "priority": "Priority", "assignee": "Assignee"}
        return common | more | {"reporter": "Reporter", "duedate": "Due date"} | self.required


@dataclass
class Issue:
    """One issue. Searches find it from ``found_from`` on: Jira's index is behind."""

    id: str
    key: str
    fields: Json
    status: str
    created: datetime
    found_from: datetime
    comments: list[Json] = field(default_factory=list)
    properties: Json = field(default_factory=dict)
    attachments: list[Json] = field(default_factory=list)
    links: list[Json] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    @property
    def project(self) -> str:
        """Its project's key."""
        return self.key.partition("-")[0]


class _SiteChange(BaseModel):
    token: str | None = None
    index_lag_s: float | None = None
    required: dict[str, str] | None = None
    project: str = "OPS"


class Refused(Exception):
    """Jira's answer 4xx: messages, and errors by field."""

    def __init__(self, status: int, *messages: str, **errors: str) -> None:
        super().__init__(status)
        self.status, self.messages, self.errors = status, messages, errors

    def response(self) -> Response:
        """As Jira tells it."""
        return JSONResponse({"errorMessages": list(self.messages), "errors": self.errors}, self.status)


_NOT_FOUND = "Issue does not exist or you do not have permission to see it."


def _projects() -> dict[str, Project]:
    teams = ("web", "checkout", "search", "payments", "messaging", "data", "platform")
    ops = {"To Do": "new", "In Progress": "indeterminate", "Done": "done"}
    web = {"Backlog": "new", "In Review": "indeterminate", "Released": "done"}
    everywhere = tuple(ops)
    listed = (
        Project("OPS", "Operations", teams, ops, (
            Transition("11", "To Do", "To Do", everywhere),
            Transition("21", "In Progress", "In Progress", everywhere),
            Transition("31", "Done", "Done", everywhere),
        )),
        Project("WEB", "Web", ("web",), web, (  # where nothing is done that was not in review
            Transition("2", "Review", "In Review", ("Backlog",)),
            Transition("3", "Release", "Released", ("In Review",)),
            Transition("4", "Reopen", "Backlog", ("In Review", "Released")),
        )),
    )  # fmt: skip
    return {project.key: project for project in listed}


class Jira:
    """A site with two projects and an account per person; Basic auth with e-mail and API token."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._token, self._lag_s = API_TOKEN, 3.0
        self._projects = _projects()
        self._issues: dict[str, Issue] = {}
        self._files: dict[str, bytes] = {}
        self._numbers = count(10_001)
        self._accounts = {EMAIL: "Auto Pilot", "minji@shop.test": "Minji Kim", "alex@shop.test": "Alex"}

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter()
        for path, answers in self._routes().items():
            for method, answer in answers.items():
                router.add_api_route(f"/jira/rest/api/3{path}", self._guarded(answer), methods=[method])
        router.add_api_route("/jira/browse/{key}", self._browse, methods=["GET"])
        router.add_api_route("/_shop/jira", self._page, methods=["GET"])
        router.add_api_route("/_shop/jira", self._change, methods=["PATCH"], status_code=204)
        router.add_api_route("/_shop/jira/state", self._state, methods=["GET"])
        router.add_api_route("/_shop/jira/files/{number}", self._file, methods=["GET"])
        return router

    def _routes(self) -> Mapping[str, Mapping[str, Callable[[Request], Any]]]:
        """By path and method; each answers with a Response, a body (200), or None (204)."""
        return {
            "/myself": {"GET": self._myself},
            "/serverInfo": {"GET": self._server_info},
            "/mypermissions": {"GET": self._permissions},
            "/user/search": {"GET": self._users},
            "/user/assignable/search": {"GET": self._users},
            "/priority": {"GET": self._priorities},
            "/issueLinkType": {"GET": self._link_types},
            "/issueLink": {"POST": self._link},
            "/search": {"GET": self._gone, "POST": self._gone},
            "/search/jql": {"GET": self._search, "POST": self._search},
            "/project/{project}": {"GET": self._project},
            "/project/{project}/components": {"GET": self._components},
            "/issue/createmeta/{project}/issuetypes": {"GET": self._issue_types},
            "/issue/createmeta/{project}/issuetypes/{type_id}": {"GET": self._create_fields},
            "/issue": {"POST": self._create},
            "/issue/{key}": {"GET": self._get, "PUT": self._edit},
            "/comment/list": {"POST": self._comments_by_id},
            "/issue/{key}/comment": {"GET": self._comments, "POST": self._comment},
            "/issue/{key}/properties": {"GET": self._property_keys},
            "/issue/{key}/properties/{name}": {"GET": self._property, "PUT": self._set_property},
            "/comment/{comment}/properties/{name}": {"GET": self._comment_property, "PUT": self._set_comment_property},
            "/issue/{key}/attachments": {"POST": self._attach},
            "/issue/{key}/transitions": {"GET": self._offered, "POST": self._transit},
        }

    def _guarded(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            if not self._admitted(request.headers.get("authorization", "")):
                reason = {"X-Seraph-LoginReason": "AUTHENTICATED_FAILED"}
                return PlainTextResponse("Client must be authenticated to access this resource.", 401, reason)
            try:
                told = await answer(request)
            except Refused as refused:
                return refused.response()
            if isinstance(told, Response):
                return told
            return Response(status_code=204) if told is None else JSONResponse(told)

        return guarded

    def _admitted(self, authorization: str) -> bool:
        kind, _, given = authorization.partition(" ")
        try:
            email, _, token = base64.b64decode(given, validate=True).decode().partition(":")
        except ValueError:
            return False
        return kind == "Basic" and email in self._accounts and token == self._token

    # --- the site ---

    async def _myself(self, request: Request) -> Json:
        given = request.headers["authorization"].partition(" ")[2]
        return self._account(base64.b64decode(given).decode().partition(":")[0])

    async def _server_info(self, request: Request) -> Json:
        return {"baseUrl": f"{_origin(request)}/jira", "deploymentType": "Cloud", "version": "1001.0.0"}

    async def _permissions(self, request: Request) -> Json:
        names = request.query_params.get("permissions", "CREATE_ISSUES").split(",")
        return {"permissions": {name: {"key": name, "havePermission": True} for name in names}}

    async def _users(self, request: Request) -> list[Json]:
        asked = (request.query_params.get("query") or "").lower()
        return [self._account(email) for email, name in self._accounts.items() if asked in f"{email} {name}".lower()]

    def _account(self, email: str) -> Json:
        told = {"accountId": _account_id(email), "emailAddress": email, "displayName": self._accounts[email]}
        return told | {"active": True, "accountType": "atlassian"}

    async def _priorities(self, _request: Request) -> list[Json]:
        return [{"id": str(number), "name": name} for number, name in enumerate(PRIORITIES, 1)]

    async def _link_types(self, _request: Request) -> Json:
        rows = (("Blocks", "is blocked by", "blocks"), ("Duplicate", "is duplicated by", "duplicates"))
        types = [*rows, ("Relates", "relates to", "relates to")]
        return {"issueLinkTypes": [{"name": name, "inward": inward, "outward": out} for name, inward, out in types]}

    async def _gone(self, _request: Request) -> Response:
        raise Refused(410, "The requested API has been removed. Please migrate to the /rest/api/3/search/jql API.")

    # --- projects ---

    async def _project(self, request: Request) -> Json:
        project = self._find_project(request.path_params["project"])
        types = [self._issue_type(project, name) for name in project.issue_types]
        return {"id": "1", "key": project.key, "name": project.name, "issueTypes": types}

    async def _components(self, request: Request) -> list[Json]:
        project = self._find_project(request.path_params["project"])
        return [{"id": str(number), "name": name} for number, name in enumerate(project.components, 1)]

    async def _issue_types(self, request: Request) -> Json:
        project = self._find_project(request.path_params["project"])
        types = [self._issue_type(project, name) for name in project.issue_types]
        return {"issueTypes": types, "total": len(types), "startAt": 0, "maxResults": 50}

    async def _create_fields(self, request: Request) -> Json:
        project = self._find_project(request.path_params["project"])
        known = [self._issue_type(project, name)["id"] for name in project.issue_types]
        if request.path_params["type_id"] not in known:
            raise Refused(404, "The issue type does not exist or you do not have permission to see it.")
        must = {"summary", "issuetype", "project", *project.required}
        fields = [self._create_field(project, key, name, key in must) for key, name in project.fields.items()]
        return {"fields": fields, "total": len(fields), "startAt": 0, "maxResults": 50}

    def _create_field(self, project: Project, key: str, name: str, required: bool) -> Json:
        allowed = {"components": project.components, "priority": PRIORITIES}.get(key)
        told = {"fieldId": key, "key": key, "name": name, "required": required, "hasDefaultValue": key == "reporter"}
        values = [{"id": str(number), "name": value} for number, value in enumerate(allowed or (), 1)]
        return told | ({"allowedValues": values} if allowed else {})

    def _issue_type(self, project: Project, name: str) -> Json:
        return {"id": str(FIRST_TYPE + project.issue_types.index(name)), "name": name, "subtask": False}

    def _find_project(self, key: object) -> Project:
        project = self._projects.get(str(key))
        if project is None:
            raise Refused(404, f"No project could be found with key '{key}'.")
        return project

    # --- issues ---

    async def _create(self, request: Request) -> Response:
        body = await _body(request)
        fields = body.get("fields") or {}
        project = self._projects.get(str((fields.get("project") or {}).get("key")))
        if project is None:
            raise Refused(400, project="valid project is required")
        if wrong := self._wrong_fields(project, fields, new=True):
            raise Refused(400, **wrong)
        project.issues += 1
        key, status = f"{project.key}-{project.issues}", next(iter(project.statuses))
        found_from = self._clock.now() + timedelta(seconds=self._lag_s)
        issue = Issue(str(next(self._numbers)), key, fields, status, self._clock.now(), found_from)
        issue.properties |= {named["key"]: named["value"] for named in body.get("properties") or ()}
        self._issues[key] = issue
        told = {"id": issue.id, "key": key, "self": f"{_origin(request)}/jira/rest/api/3/issue/{issue.id}"}
        return JSONResponse(told, 201)

    def _wrong_fields(self, project: Project, fields: Json, *, new: bool) -> dict[str, str]:
        """By field, as Jira tells it."""
        unknown = "Field '{}' cannot be set. It is not on the appropriate screen, or unknown."
        wrong = {name: unknown.format(name) for name in fields if name not in project.fields}
        wrong |= {
            key: told for key, tell in self._rules(project).items() if (new or key in fields) and (told := tell(fields))
        }
        missing = {key: f"{name} is required." for key, name in project.required.items() if new and not fields.get(key)}
        return wrong | missing

    def _rules(self, project: Project) -> Mapping[str, Callable[[Json], str]]:
        return {
            "summary": _wrong_summary,
            "issuetype": lambda fields: _wrong_type(project, fields),
            "description": lambda fields: adf.complaint(fields["description"]) if fields.get("description") else "",
            "labels": _wrong_labels,
            "components": lambda fields: _wrong_components(project, fields),
            "priority": _wrong_priority,
            "assignee": self._wrong_assignee,
        }

    def _wrong_assignee(self, fields: Json) -> str:
        named = fields.get("assignee")
        if not named:
            return ""
        known = {_account_id(email) for email in self._accounts}
        account = named.get("accountId") or named.get("id")
        return "" if account in known else f"User '{account}' does not exist."

    async def _get(self, request: Request) -> Json:
        asked = request.query_params.get("fields", "*all").split(",")
        return self._told(self._find(request), asked, request) | (
            {"properties": self._find(request).properties} if request.query_params.get("properties") else {}
        )

    async def _edit(self, request: Request) -> None:
        issue, body = self._find(request), await _body(request)
        fields = body.get("fields") or {}
        for added in (body.get("update") or {}).get("labels") or ():
            labels = issue.fields.setdefault("labels", [])
            labels += [added["add"]] if "add" in added and added["add"] not in labels else []
        if wrong := self._wrong_fields(self._projects[issue.project], fields, new=False):
            raise Refused(400, **wrong)
        issue.fields |= fields

    def _find(self, request: Request) -> Issue:
        key = request.path_params["key"]
        found = self._issues.get(key) or next((i for i in self._issues.values() if i.id == key), None)
        if found is None:
            raise Refused(404, _NOT_FOUND)
        return found

    def _told(self, issue: Issue, asked: list[str], request: Request) -> Json:
        fields = {
            **issue.fields,
            "status": self._status(issue.project, issue.status),
            "created": _moment(issue.created),
            "comment": {"comments": [_without_properties(c) for c in issue.comments], "total": len(issue.comments)},
            "attachment": issue.attachments,
            "issuelinks": issue.links,
        }
        chosen = fields if {"*all", "*navigable"} & set(asked) else {k: v for k, v in fields.items() if k in asked}
        address = f"{_origin(request)}/jira/rest/api/3/issue/{issue.id}"
        return {"id": issue.id, "key": issue.key, "self": address, "fields": chosen}

    def _status(self, project: str, name: str) -> Json:
        statuses = self._projects[project].statuses
        number, category = _CATEGORIES[statuses[name]]
        told = {"id": number, "key": statuses[name], "name": category}
        return {"id": str(list(statuses).index(name) + 1), "name": name, "statusCategory": told}

    # --- comments and properties ---

    async def _comments(self, request: Request) -> Json:
        issue, asked = self._find(request), request.query_params
        start, size = int(asked.get("startAt", "0")), int(asked.get("maxResults", "50"))
        ordered = issue.comments[::-1] if asked.get("orderBy", "").startswith("-") else issue.comments
        told = [_without_properties(comment) for comment in ordered[start : start + size]]
        return {"comments": told, "startAt": start, "maxResults": size, "total": len(issue.comments)}

    async def _comments_by_id(self, request: Request) -> Json:
        """The one place where comments are told with their properties."""
        ids = {str(number) for number in (await _body(request)).get("ids") or ()}
        found = [c for issue in self._issues.values() for c in issue.comments if c["id"] in ids]
        whole = "properties" in request.query_params.get("expand", "")
        told = found if whole else [_without_properties(comment) for comment in found]
        return {"values": told, "startAt": 0, "maxResults": 1048576, "total": len(told), "isLast": True}

    async def _comment(self, request: Request) -> Response:
        issue, body = self._find(request), await _body(request)
        if wrong := adf.complaint(body.get("body")):
            raise Refused(400, wrong, comment="Comment body is not valid!")
        created, properties = _moment(self._clock.now()), body.get("properties") or []
        comment = {"id": str(next(self._numbers)), "body": body["body"], "created": created, "properties": properties}
        issue.comments.append(comment)
        return JSONResponse(_without_properties(comment), 201)

    async def _property_keys(self, request: Request) -> Json:
        return {"keys": [{"key": name} for name in self._find(request).properties]}

    async def _property(self, request: Request) -> Json:
        issue, name = self._find(request), request.path_params["name"]
        if name not in issue.properties:
            raise Refused(404, f"The property {name} does not exist.")
        return {"key": name, "value": issue.properties[name]}

    async def _set_property(self, request: Request) -> Response:
        issue, name = self._find(request), request.path_params["name"]
        status = 200 if name in issue.properties else 201
        issue.properties[name] = await _property_value(request)
        return Response(status_code=status)

    async def _comment_property(self, request: Request) -> Json:
        name = request.path_params["name"]
        found = next((p for p in self._find_comment(request)["properties"] if p["key"] == name), None)
        if found is None:
            raise Refused(404, f"The property {name} does not exist.")
        told: Json = found
        return told

    async def _set_comment_property(self, request: Request) -> Response:
        comment, name = self._find_comment(request), request.path_params["name"]
        kept = [p for p in comment["properties"] if p["key"] != name]
        status = 200 if len(kept) < len(comment["properties"]) else 201
        comment["properties"] = [*kept, {"key": name, "value": await _property_value(request)}]
        return Response(status_code=status)

    def _find_comment(self, request: Request) -> Json:
        comments = (c for issue in self._issues.values() for c in issue.comments)
        found: Json | None = next((c for c in comments if c["id"] == request.path_params["comment"]), None)
        if found is None:
            raise Refused(404, "Can not find a comment for the id.")
        return found

    # --- attachments, workflow, links ---

    async def _attach(self, request: Request) -> Response:
        issue = self._find(request)
        if request.headers.get("x-atlassian-token") != "no-check":
            return PlainTextResponse("XSRF check failed", 403)
        attached = []
        async with request.form() as form:
            for part in form.getlist("file"):
                if isinstance(part, str):
                    continue
                number, content = str(next(self._numbers)), await part.read()
                self._files[number] = content
                told = {"id": number, "filename": part.filename, "mimeType": part.content_type, "size": len(content)}
                attached.append(told | {"content": f"{_origin(request)}/_shop/jira/files/{number}"})
        if not attached:
            raise Refused(400, "There was no file in the field 'file'.")
        issue.attachments += attached
        return JSONResponse(attached)

    async def _offered(self, request: Request) -> Json:
        issue = self._find(request)
        offered = [t for t in self._projects[issue.project].transitions if issue.status in t.of]
        told = [{"id": t.id, "name": t.name, "to": self._status(issue.project, t.to), "fields": {}} for t in offered]
        return {"expand": "transitions", "transitions": told}

    async def _transit(self, request: Request) -> None:
        issue = self._find(request)
        asked = str(((await _body(request)).get("transition") or {}).get("id"))
        offered = [t for t in self._projects[issue.project].transitions if issue.status in t.of]
        chosen = next((t for t in offered if t.id == asked), None)
        if chosen is None:
            raise Refused(400, f"Transition id '{asked}' is not valid for this issue.")
        issue.history.append(f"{issue.status} -> {chosen.to}")
        issue.status = chosen.to

    async def _link(self, request: Request) -> Response:
        body = await _body(request)
        kind, ends = (
            (body.get("type") or {}).get("name"),
            [(body.get(e) or {}).get("key") for e in ("inwardIssue", "outwardIssue")],
        )
        if kind not in ("Blocks", "Duplicate", "Relates"):
            raise Refused(404, f"No issue link type with name '{kind}' found.")
        inward, outward = (self._issues.get(str(key)) for key in ends)
        if inward is None or outward is None:
            raise Refused(404, _NOT_FOUND)
        if inward is outward:
            raise Refused(400, "You cannot link an issue to itself.")
        for one, other, end in ((inward, outward, "outwardIssue"), (outward, inward, "inwardIssue")):
            told = {"type": {"name": kind}, end: {"key": other.key}}
            one.links += [told] if told not in one.links else []
        return Response(status_code=201)

    # --- search ---

    async def _search(self, request: Request) -> Json:
        """Nothing but ids unless more is asked for, and only what the index has got to: it is seconds behind."""
        asked: Json = await _body(request) if request.method == "POST" else dict(request.query_params)
        try:
            test = parse(str(asked.get("jql", "")), _SEARCHED)
        except JqlError as error:
            raise Refused(400, str(error)) from None
        now = self._clock.now()
        found = [i for i in reversed(self._issues.values()) if i.found_from <= now and test(self._values(i))]
        start, size = int(asked.get("nextPageToken") or 0), min(int(asked.get("maxResults") or 50), 100)
        fields = asked.get("fields") or []
        names = fields.split(",") if isinstance(fields, str) else list(fields)
        properties = asked.get("properties") or []
        told = [self._found(issue, names, properties, request) for issue in found[start : start + size]]
        last = start + size >= len(found)
        return {"issues": told, "isLast": last} | ({} if last else {"nextPageToken": str(start + size)})

    def _found(self, issue: Issue, fields: list[str], properties: list[str], request: Request) -> Json:
        told = self._told(issue, fields, request) if fields else {"id": issue.id}
        kept = {name: issue.properties[name] for name in properties if name in issue.properties}
        return told | ({"properties": kept} if properties else {})

    def _values(self, issue: Issue) -> Mapping[str, tuple[str, ...]]:
        fields, category = issue.fields, _CATEGORIES[self._projects[issue.project].statuses[issue.status]][1]
        project, text = self._projects[issue.project], adf.words(fields.get("description"))
        values = {
            "project": (project.key, project.name),
            "key": (issue.key, issue.id),
            "labels": tuple(fields.get("labels") or ()),
            "status": (issue.status,),
            "statuscategory": (category, project.statuses[issue.status]),
            "issuetype": (fields["issuetype"].get("name", ""),),
            "components": tuple(c.get("name", "") for c in fields.get("components") or ()),
            "summary": (fields["summary"],),
            "description": (text,),
            "text": (fields["summary"], text, *(adf.words(c["body"]) for c in issue.comments)),
        }
        return values | {f"issue.property[{name}]": (json.dumps(v),) for name, v in issue.properties.items()}

    # --- for people and tests ---

    async def _browse(self, key: str) -> Response:
        return RedirectResponse(f"/_shop/jira#{key}" if key in self._issues else "/_shop/jira")

    async def _file(self, number: str) -> Response:
        if number not in self._files:
            raise HTTPException(404, "there is no such attachment")
        content = self._files[number]
        kind = "image/png" if content.startswith(b"\x89PNG") else "text/plain; charset=utf-8"
        return Response(content, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    async def _change(self, change: _SiteChange) -> None:
        """Another token (the old one has expired then), a slower index, other required fields of a project."""
        self._token = change.token if change.token is not None else self._token
        self._lag_s = change.index_lag_s if change.index_lag_s is not None else self._lag_s
        if change.required is not None:
            self._projects[change.project].required = change.required

    async def _state(self) -> list[Issue]:
        return list(self._issues.values())

    async def _page(self) -> Response:
        shown = "".join(self._shown(issue) for issue in reversed(self._issues.values()))
        return HTMLResponse(page("Jira", shown or "<p>No issues.</p>"))

    def _shown(self, issue: Issue) -> str:
        fields = issue.fields
        facts = [issue.status, fields["issuetype"]["name"], (fields.get("priority") or {}).get("name", "")]
        facts += [component.get("name", "") for component in fields.get("components") or ()]
        facts += [str(label) for label in fields.get("labels") or ()]
        links = ", ".join(html.escape(str(next(iter(reversed(link.values())))["key"])) for link in issue.links)
        files = " · ".join(
            f'<a href="/_shop/jira/files/{a["id"]}">{html.escape(str(a["filename"]))}</a>' for a in issue.attachments
        )
        return (
            f'<section id="{issue.key}"><h2>{issue.key} {html.escape(fields["summary"])}</h2><p>'
            + " ".join(f'<span class="status">{html.escape(fact)}</span>' for fact in facts if fact)
            + f"</p><p>{files}{' · linked: ' + links if links else ''}</p>"
            + (adf.rendered(fields["description"]) if fields.get("description") else "")
            + "".join(f"<h3>Comment {c['created'][11:19]}</h3>{adf.rendered(c['body'])}" for c in issue.comments)
            + "</section>"
        )


def failed(fail: Fail) -> Response:
    """How Jira tells of trouble of its own."""
    if fail.status == 429:
        headers = {"Retry-After": str(fail.retry_after_s), "RateLimit-Reason": fail.code or "jira-burst-based"}
        return JSONResponse({"errorMessages": ["Rate limit exceeded."], "errors": {}}, 429, headers)
    if fail.status == 401:
        return PlainTextResponse("Client must be authenticated to access this resource.", 401)
    return JSONResponse({"errorMessages": ["Internal server error"], "errors": {}}, fail.status)


def _wrong_summary(fields: Json) -> str:
    summary = str(fields.get("summary") or "")
    if not summary.strip():
        return "You must specify a summary of the issue."
    if "\n" in summary or "\r" in summary:
        return "The summary is invalid because it contains newline characters."
    return "" if len(summary) <= MOST_SUMMARY else "Summary can't exceed 255 characters."


def _wrong_type(project: Project, fields: Json) -> str:
    named = fields.get("issuetype") or {}
    return "" if _named(named, project.issue_types, FIRST_TYPE) else "Specify a valid issue type"


def _wrong_labels(fields: Json) -> str:
    labels = [str(label) for label in fields.get("labels") or ()]
    return next((f"The label '{label}' contains spaces which is invalid." for label in labels if " " in label), "")


def _wrong_components(project: Project, fields: Json) -> str:
    for component in fields.get("components") or ():
        if not _named(component, project.components):
            return f"Component name '{component.get('name') or component.get('id')}' is not valid"
    return ""


def _wrong_priority(fields: Json) -> str:
    named = fields.get("priority")
    return "" if not named or _named(named, PRIORITIES) else "The priority selected is invalid."


def _named(value: Json, known: Sequence[str], first: int = 1) -> bool:
    """Whether it names one of them, or gives its id; then it has the name too."""
    ids = {str(first + number): name for number, name in enumerate(known)}
    value["name"] = value.get("name") or ids.get(str(value.get("id")), "")
    return value["name"] in known


def _without_properties(comment: Json) -> Json:
    return {key: value for key, value in comment.items() if key != "properties"}


async def _property_value(request: Request) -> Any:
    raw = await request.body()
    if len(raw) > MOST_PROPERTY_BYTES:
        raise Refused(400, "The property value is too long.")
    try:
        return json.loads(raw)
    except ValueError:
        raise Refused(400, "The property value is not valid JSON.") from None


async def _body(request: Request) -> Json:
    try:
        body = await request.json()
    except ValueError:
        raise Refused(400, "There was an error parsing JSON. Check that your request body is valid.") from None
    return body if isinstance(body, dict) else {}


def _origin(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _account_id(email: str) -> str:
    return f"712020:{email.partition('@')[0]}"


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
