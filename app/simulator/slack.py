"""Slack's Web API over the workspace: HTTP 200 with ``ok``, its own words for errors, scopes, paging and limits."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from app.simulator.backdoor import Fail
from app.simulator.slack_blocks import MOST_IN_A_VIEW, complaints
from app.simulator.slack_workspace import (
    TEAM,
    Channel,
    File,
    Json,
    Message,
    Modal,
    Refused,
    ResponseUrl,
    Workspace,
)

MOST_TEXT = 40_000
MOST_PAGE = 999
MOST_METADATA_BYTES = 16_000
_IN_FORMS_AS_JSON = ("blocks", "attachments", "metadata", "files", "view")
_SCOPES = {
    "chat.postMessage": "chat:write",
    "chat.postEphemeral": "chat:write",
    "chat.update": "chat:write",
    "files.getUploadURLExternal": "files:write",
    "files.completeUploadExternal": "files:write",
    "conversations.list": "channels:read",
    "users.info": "users:read",
}
_READS = {"conversations.history": "history", "conversations.replies": "history", "conversations.info": "read"}

Method = Callable[[Json], Json]


class SlackApi:
    """The part of Slack's Web API that an app needs which posts, updates, uploads and opens modals."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._origin = ""  # under which the shop is called; upload URLs are made of it
        self._methods: Mapping[str, Method] = {
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "chat.postEphemeral": self._post_ephemeral,
            "chat.getPermalink": self._permalink,
            "chat.update": self._update,
            "conversations.history": self._history,
            "conversations.info": self._info,
            "conversations.list": self._list,
            "conversations.replies": self._replies,
            "files.getUploadURLExternal": self._get_upload_url,
            "files.completeUploadExternal": self._complete_upload,
            "users.info": self._user,
            "views.open": self._open,
        }

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(prefix="/slack")
        for verb in ("GET", "POST"):  # Slack takes either; each has an operation id of its own
            router.add_api_route("/api/{method}", self._call, methods=[verb])
        router.add_api_route("/upload/{file_id}", self._upload, methods=["POST"])
        router.add_api_route("/response/{name:path}", self._respond, methods=["POST"])
        return router

    async def _call(self, request: Request, method: str) -> Response:
        self._origin = str(request.base_url).rstrip("/")
        arguments: Json = {}
        answer: Json = {"ok": True}
        try:
            arguments = await _arguments(request)
            self._admit(method, request.headers.get("authorization", ""), arguments)
            answer |= self._methods[method](arguments)
        except Refused as refused:
            answer = {"ok": False, "error": refused.error} | refused.more
        told = {"method": method, "arguments": {k: v for k, v in arguments.items() if k != "token"}, "answer": answer}
        self._workspace.calls.append(told)
        return JSONResponse(answer, headers={"X-OAuth-Scopes": ",".join(self._workspace.app.scopes)})

    def _admit(self, method: str, authorization: str, arguments: Json) -> None:
        """Raises Refused for a method that is not there, a token that is not taken, a scope that is missing."""
        app = self._workspace.app
        token = authorization.removeprefix("Bearer ") or str(arguments.get("token", ""))
        if not token:
            raise Refused("not_authed")
        if token != app.token:
            raise Refused("invalid_auth")
        if app.token_error:
            raise Refused(app.token_error)
        if method not in self._methods:
            raise Refused("unknown_method", req_method=method)
        needed = _SCOPES.get(method) or self._scope_to_read(method, arguments)
        if needed and needed not in app.scopes:
            raise Refused("missing_scope", needed=needed, provided=",".join(app.scopes))

    def _scope_to_read(self, method: str, arguments: Json) -> str:
        if method not in _READS:
            return ""
        channel = self._workspace.channel(arguments.get("channel"))
        return f"{'groups' if channel.is_private else 'channels'}:{_READS[method]}"

    # --- methods ---

    def _auth_test(self, _arguments: Json) -> Json:
        app = self._workspace.app
        return {
            "url": "https://shop.slack.com/",
            "team": "Shop",
            "user": "autopilot",
            "team_id": TEAM,
            "user_id": app.user_id,
            "bot_id": app.bot_id,
            "is_enterprise_install": False,
        }

    def _post_message(self, arguments: Json) -> Json:
        channel = self._workspace.writable(arguments.get("channel"), by_name=True)
        content = self._content(arguments)
        broadcast = bool(arguments.get("reply_broadcast"))
        message = self._workspace.post(
            channel, str(arguments.get("thread_ts") or ""), broadcast=broadcast, **_at_least_something(content)
        )
        return self._posted(channel, message)

    def _update(self, arguments: Json) -> Json:
        channel = self._workspace.writable(arguments.get("channel"))
        message = channel.message(str(arguments.get("ts")))
        if message is None:
            raise Refused("message_not_found")
        if message.user != self._workspace.app.user_id:
            raise Refused("cant_update_message")
        # What is not given stays as it was: buttons go away by sending other blocks, or none as [].
        for name, value in self._content(arguments).items():
            setattr(message, name, value)
        message.edited = self._workspace.timestamp()
        return self._posted(channel, message)

    def _posted(self, channel: Channel, message: Message) -> Json:
        shown = self._workspace.shown(message, with_metadata=True)
        return {"channel": channel.id, "ts": message.ts, "text": message.text, "message": shown}

    def _permalink(self, arguments: Json) -> Json:
        """Of the shop's own page."""
        channel, ts = self._workspace.channel(arguments.get("channel")), str(arguments.get("message_ts"))
        if channel.message(ts) is None:
            raise Refused("message_not_found")
        return {"channel": channel.id, "permalink": f"{self._origin}/_shop/slack?channel={channel.name}#{ts}"}

    def _post_ephemeral(self, arguments: Json) -> Json:
        channel = self._workspace.writable(arguments.get("channel"))
        user = str(arguments.get("user"))
        if user not in self._workspace.people:
            raise Refused("user_not_in_channel")
        content = _at_least_something(self._content(arguments))
        thread = str(arguments.get("thread_ts") or "")
        self._workspace.whisper(channel, user, content.get("text", ""), content.get("blocks", ()), thread)
        return {"message_ts": self._workspace.timestamp()}

    def _content(self, arguments: Json) -> Json:
        """What a message is to hold, checked. Raises Refused."""
        content: Json = {
            name: arguments[name] for name in ("text", "blocks", "attachments", "metadata") if name in arguments
        }
        if len(str(content.get("text", ""))) > MOST_TEXT:
            raise Refused("msg_too_long")
        wrong = complaints(content["blocks"]) if "blocks" in content else []
        if wrong or not self._files_exist(content.get("blocks", [])):
            raise _invalid("invalid_blocks", wrong or ["invalid slack file [json-pointer:/blocks]"])
        if "metadata" in content:
            _check_metadata(content["metadata"])
        return content

    def _files_exist(self, blocks: list[Json]) -> bool:
        named = [block["slack_file"].get("id") for block in blocks if "slack_file" in block]
        return all(name in self._workspace.files and self._workspace.files[name].content for name in named)

    def _history(self, arguments: Json) -> Json:
        channel = self._readable(arguments)
        newest_first = [m for m in reversed(channel.messages) if not m.is_reply or m.broadcast]
        return self._page(newest_first, arguments)

    def _replies(self, arguments: Json) -> Json:
        channel = self._readable(arguments)
        parent = channel.message(str(arguments.get("ts")))
        if parent is None:
            raise Refused("thread_not_found")
        thread = parent.thread_ts or parent.ts
        whole = [m for m in channel.messages if thread in (m.ts, m.thread_ts)]
        return self._page(whole, arguments, always=thread)

    def _readable(self, arguments: Json) -> Channel:
        channel = self._workspace.channel(arguments.get("channel"))
        if not channel.is_member:
            raise Refused("not_in_channel")
        return channel

    def _page(self, messages: list[Message], arguments: Json, always: str = "") -> Json:
        """``limit`` of them after the cursor, between ``oldest`` and ``latest``; a thread's parent always."""
        size = int(arguments.get("limit") or 100)
        if not 1 <= size <= MOST_PAGE:
            raise Refused("invalid_limit")
        chosen = [m for m in messages if m.ts == always or _within(m.ts, arguments)]
        cursor = str(arguments.get("cursor") or "0")
        if not cursor.isdecimal():
            raise Refused("invalid_cursor")
        start = int(cursor)
        rest = start + size < len(chosen)
        with_metadata = _is_true(arguments.get("include_all_metadata"))
        return {
            "messages": [self._workspace.shown(m, with_metadata=with_metadata) for m in chosen[start : start + size]],
            "has_more": rest,
            "response_metadata": {"next_cursor": str(start + size) if rest else ""},
        }

    def _info(self, arguments: Json) -> Json:
        channel = self._workspace.channel(arguments.get("channel"))
        told = {"id": channel.id, "name": channel.name, "is_channel": True, "is_private": channel.is_private}
        return {"channel": told | {"is_archived": channel.is_archived, "is_member": channel.is_member}}

    def _list(self, arguments: Json) -> Json:
        """A page of channels, by name; private ones only where our app was invited."""
        size, start = int(arguments.get("limit") or 100), int(arguments.get("cursor") or 0)
        private = "private_channel" in str(arguments.get("types", ""))
        there = [c for c in self._workspace.channels.values() if not c.is_private or (private and c.is_member)]
        if _is_true(arguments.get("exclude_archived")):
            there = [c for c in there if not c.is_archived]
        cursor = str(start + size) if start + size < len(there) else ""
        told = [self._info({"channel": channel.id})["channel"] for channel in there[start : start + size]]
        return {"channels": told, "response_metadata": {"next_cursor": cursor}}

    def _user(self, arguments: Json) -> Json:
        person = self._workspace.people.get(str(arguments.get("user")))
        if person is None:
            raise Refused("user_not_found")
        told = {"id": person.id, "name": person.name, "real_name": person.real_name, "team_id": TEAM, "deleted": False}
        return {"user": told | {"is_bot": person.id == self._workspace.app.user_id}}

    def _open(self, arguments: Json) -> Json:
        view = arguments.get("view")
        wrong = _wrong_view(view)
        if wrong or not isinstance(view, dict):
            raise _invalid("invalid_arguments", wrong)
        trigger = self._workspace.pull(arguments.get("trigger_id"))
        modal = Modal(self._workspace.next_id("V"), trigger.user, trigger.channel, view)
        self._workspace.modals[modal.id] = modal
        return {"view": view | {"id": modal.id, "team_id": TEAM, "app_id": self._workspace.app.app_id}}

    # --- files ---

    def _get_upload_url(self, arguments: Json) -> Json:
        name, length = str(arguments.get("filename") or ""), int(arguments.get("length") or 0)
        if not name or length <= 0:
            raise Refused("invalid_arguments")
        file = File(self._workspace.next_id("F"), name, length)
        self._workspace.files[file.id] = file
        return {"upload_url": f"{self._origin}/slack/upload/{file.id}", "file_id": file.id}

    async def _upload(self, request: Request, file_id: str) -> Response:
        file = self._workspace.files.get(file_id)
        body = await _uploaded(request)
        if file is None or len(body) != file.length:
            return PlainTextResponse("the upload URL is unknown, or the length is another than announced", 400)
        file.content = body
        return PlainTextResponse(f"OK - {len(body)}")

    def _complete_upload(self, arguments: Json) -> Json:
        files = [self._uploaded_file(named) for named in arguments.get("files") or ()]
        if not files:
            raise Refused("invalid_arguments")
        if arguments.get("channel_id"):
            channel = self._workspace.writable(arguments["channel_id"])
            text, names = str(arguments.get("initial_comment") or ""), [file.id for file in files]
            self._workspace.post(channel, str(arguments.get("thread_ts") or ""), text=text, files=names)
        return {"files": [self._workspace.file(file) for file in files]}

    def _uploaded_file(self, named: Json) -> File:
        file = self._workspace.files.get(str(named.get("id")))
        if file is None or not file.content:
            raise Refused("file_not_found")
        file.title, file.shared = str(named.get("title") or file.name), True
        return file

    # --- answers to clicks ---

    async def _respond(self, request: Request, name: str) -> Response:
        """An app's post to a response_url."""
        known = self._workspace.response_urls.get(name)
        if known is None:
            return PlainTextResponse("no_team", 404)
        if spent := self._workspace.spent(known):
            return PlainTextResponse(spent, 404)
        known.posts += 1
        try:
            self._answer(known, await _arguments(request))
        except Refused as refused:
            return PlainTextResponse(refused.error, 400)
        return PlainTextResponse("ok")

    def _answer(self, address: ResponseUrl, arguments: Json) -> None:
        channel, content = self._workspace.channel(address.channel), self._content(arguments)
        original = channel.message(address.message_ts)
        if original and arguments.get("delete_original"):
            channel.messages.remove(original)
        elif original and arguments.get("replace_original"):
            for key, value in _at_least_something(content).items():
                setattr(original, key, value)
        elif arguments.get("response_type", "ephemeral") == "in_channel":
            self._workspace.post(channel, **_at_least_something(content))
        else:
            thread = original.thread_ts if original else ""
            content = _at_least_something(content)
            self._workspace.whisper(channel, address.user, content.get("text", ""), content.get("blocks", ()), thread)


def failed(fail: Fail) -> Response:
    """How Slack tells of trouble of its own; status 200 is a refusal with the word in ``code``."""
    if fail.status == 200:
        return JSONResponse({"ok": False, "error": fail.code})
    if fail.status == 429:
        return JSONResponse({"ok": False, "error": "ratelimited"}, 429, {"Retry-After": str(fail.retry_after_s)})
    return PlainTextResponse("upstream connect error", fail.status)


async def _arguments(request: Request) -> Json:
    """Of the query, and of the body, be it JSON or a form. Raises Refused."""
    found: Json = dict(request.query_params)
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            body = json.loads(await request.body() or b"{}")
        except ValueError:
            raise Refused("invalid_json") from None
        if not isinstance(body, dict):
            raise Refused("json_not_object")
        return found | body
    async with request.form() as form:
        found |= {name: value for name, value in form.items() if isinstance(value, str)}
    for name in _IN_FORMS_AS_JSON:
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    return found


async def _uploaded(request: Request) -> bytes:
    if not request.headers.get("content-type", "").startswith("multipart/"):
        return await request.body()
    async with request.form() as form:
        for part in form.values():
            if not isinstance(part, str):
                return await part.read()
    return b""


def _at_least_something(content: Json) -> Json:
    if not (content.get("text") or content.get("blocks") or content.get("attachments")):
        raise Refused("no_text")
    return content


def _invalid(error: str, wrong: list[str]) -> Refused:
    return Refused(error, errors=wrong, response_metadata={"messages": [f"[ERROR] {text}" for text in wrong]})


def _check_metadata(metadata: object) -> None:
    if not isinstance(metadata, dict) or not isinstance(metadata.get("event_payload"), dict):
        raise Refused("invalid_metadata_format")
    if not isinstance(metadata.get("event_type"), str) or not metadata["event_type"]:
        raise Refused("invalid_metadata_format")
    if len(json.dumps(metadata).encode()) > MOST_METADATA_BYTES:
        raise Refused("metadata_too_large")


def _within(ts: str, arguments: Json) -> bool:
    inclusive = _is_true(arguments.get("inclusive"))
    oldest, latest = str(arguments.get("oldest") or "0"), str(arguments.get("latest") or "inf")
    if inclusive and ts in (oldest, latest):
        return True
    return float(oldest) < float(ts) < float(latest)


def _is_true(value: object) -> bool:
    return str(value).lower() in ("1", "true")


def _wrong_view(view: object) -> list[str]:
    if not isinstance(view, dict) or view.get("type") != "modal":
        return ["unsupported type [json-pointer:/view/type]"]
    wrong = [
        f"must be less than {most + 1} characters [json-pointer:/view/{key}]"
        for key, most in (
            ("title", 24),
            ("submit", 24),
            ("close", 24),
            ("callback_id", 255),
            ("private_metadata", 3000),
        )
        if len(_words(view.get(key))) > most
    ]
    if not _words(view.get("title")):
        wrong.append("missing required field: title [json-pointer:/view]")
    has_input = any(isinstance(b, dict) and b.get("type") == "input" for b in view.get("blocks") or ())
    if has_input and not _words(view.get("submit")):
        wrong.append("missing required field: submit [json-pointer:/view]")
    return wrong + complaints(view.get("blocks"), MOST_IN_A_VIEW)


def _words(value: Any) -> str:
    return str(value.get("text", "")) if isinstance(value, dict) else str(value or "")
