"""The workspace for people and for tests: a page like Slack's, its state as JSON, and clicks."""

import html
import json
from collections.abc import Iterator
from pathlib import Path
from string import Template

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from app.simulator.slack_clicks import Clicks, Press, Submit, buttons
from app.simulator.slack_rendering import Rendering, effects
from app.simulator.slack_workspace import Channel, Ephemeral, InstalledApp, Json, Message, Modal, Workspace

_PAGE = Template((Path(__file__).parent / "slack_page.html").read_text())
_NOT_CACHED = {"Cache-Control": "no-store"}


class _ChannelChange(BaseModel):
    is_archived: bool | None = None
    is_member: bool | None = None
    is_private: bool | None = None


class SlackPages:
    """All of ``/_shop/slack``."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace, self._clicks = workspace, Clicks(workspace)

    def router(self) -> APIRouter:
        """All routes."""
        router = APIRouter(prefix="/_shop/slack")
        router.add_api_route("", self._page, methods=["GET"])
        router.add_api_route("/state", self._state, methods=["GET"])
        router.add_api_route("/files/{file_id}", self._file, methods=["GET"])
        router.add_api_route("/app", self._change_app, methods=["PATCH"])
        router.add_api_route("/channels/{name}", self._change_channel, methods=["PATCH"])
        router.add_api_route("/press", self._press, methods=["POST"])
        router.add_api_route("/submit", self._submit, methods=["POST"])
        router.add_api_route("/modals/{modal_id}/close", self._close, methods=["POST"], status_code=204)
        return router

    # --- what is changed and clicked ---

    async def _change_app(self, change: dict[str, str | list[str]]) -> InstalledApp:
        """Any of InstalledApp's fields."""
        self._workspace.app = InstalledApp.model_validate(self._workspace.app.model_dump() | change)
        return self._workspace.app

    async def _change_channel(self, name: str, change: _ChannelChange) -> None:
        channel = self._find(name)
        for key, value in change.model_dump(exclude_none=True).items():
            setattr(channel, key, value)

    async def _press(self, press: Press, request: Request) -> Json:
        return await self._clicks.press(press, str(request.base_url).rstrip("/"))

    async def _submit(self, submit: Submit, request: Request) -> Json:
        return await self._clicks.submit(submit, str(request.base_url).rstrip("/"))

    async def _close(self, modal_id: str) -> None:
        self._workspace.modals.pop(modal_id, None)

    def _find(self, name: str) -> Channel:
        channels = self._workspace.channels.values()
        found = next((c for c in channels if name.removeprefix("#") in (c.id, c.name)), None)
        if found is None:
            raise HTTPException(404, f"there is no channel {name}")
        return found

    # --- what is seen ---

    async def _state(self) -> Json:
        """Everything, and what each message would do to people."""
        workspace = self._workspace
        return {
            "app": workspace.app.model_dump(exclude={"token", "signing_secret"}),
            "channels": {c.name: self._told(c) for c in workspace.channels.values()},
            "ephemerals": [vars(whisper) for whisper in workspace.ephemerals],
            "modals": [vars(modal) for modal in workspace.modals.values()],
            "files": [{**workspace.file(f), "shared": f.shared} for f in workspace.files.values()],
            "calls": list(workspace.calls),
        }

    def _told(self, channel: Channel) -> Json:
        facts = {key: getattr(channel, key) for key in ("id", "is_archived", "is_member", "is_private")}
        return facts | {"messages": [self._told_message(message) for message in channel.messages]}

    def _told_message(self, message: Message) -> Json:
        shown = self._workspace.shown(message, with_metadata=True)
        pressable = [{"action_id": b.get("action_id"), "value": b.get("value")} for _, b in buttons(message)]
        return {**shown, "at": message.at, "buttons": pressable, "effects": effects(self._workspace, message)}

    async def _file(self, file_id: str) -> Response:
        file = self._workspace.files.get(file_id)
        if file is None:
            raise HTTPException(404, f"there is no file {file_id}")
        kind = "image/png" if file.name.lower().endswith(".png") else "text/plain; charset=utf-8"
        return Response(file.content, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    async def _page(self, request: Request, channel: str = "") -> Response:
        shown = self._find(channel) if channel else self._busiest()
        reader = request.query_params.get("as", "U0MINJI")
        page = _PAGE.substitute(
            title=html.escape(f"#{shown.name} - Shop"),
            channels="".join(self._link(c, shown, reader) for c in self._workspace.channels.values()),
            people="".join(self._option(user, reader) for user in self._workspace.people if user[2:] != "AUTOPILOT"),
            heading=html.escape(f"# {shown.name}") + (" (archived)" if shown.is_archived else ""),
            messages="".join(self._lines(shown, reader)) or '<p class="empty">Nothing was said here.</p>',
            channel=json.dumps(shown.id),
        )
        return HTMLResponse(page, headers=_NOT_CACHED)

    def _busiest(self) -> Channel:
        return max(self._workspace.channels.values(), key=lambda channel: len(channel.messages))

    def _link(self, channel: Channel, shown: Channel, reader: str) -> str:
        kind = "on" if channel is shown else "off" if channel.is_archived or not channel.is_member else ""
        count = len(channel.messages) or ""
        address = html.escape(f"/_shop/slack?channel={channel.name}&as={reader}")
        return f'<a class="{kind}" href="{address}"><span># {html.escape(channel.name)}</span><span>{count}</span></a>'

    def _option(self, user: str, reader: str) -> str:
        chosen = " selected" if user == reader else ""
        return f'<option value="{user}"{chosen}>{html.escape(self._workspace.people[user].real_name)}</option>'

    def _lines(self, channel: Channel, reader: str) -> Iterator[str]:
        """The channel's messages, each with its thread below it, and what only this reader sees."""
        whispers = [w for w in self._workspace.ephemerals if (w.channel, w.user) == (channel.id, reader)]
        for message in channel.messages:
            if message.is_reply:
                continue
            yield self._article(message)
            replies = channel.replies(message.ts)
            aside = [w for w in whispers if w.thread_ts == message.ts]
            if replies or aside:
                yield f'<div class="count">{len(replies)} {"reply" if len(replies) == 1 else "replies"}</div>'
                below = [*((r.at, self._article(r)) for r in replies), *((w.at, self._whisper(w)) for w in aside)]
                yield f'<div class="thread">{"".join(line for _, line in sorted(below))}</div>'
        yield from (self._whisper(w) for w in whispers if not w.thread_ts)
        yield from (self._modal(m) for m in self._workspace.modals.values() if m.user == reader)

    def _article(self, message: Message) -> str:
        person = self._workspace.people[message.user]
        badge = '<span class="app">APP</span>' if message.user == self._workspace.app.user_id else ""
        initials = "".join(part[0] for part in person.real_name.split()[:2])
        edited = " <em>(edited)</em>" if message.edited else ""
        return (
            f'<article id="{message.ts}"><div class="face" style="background:{person.colour}">{initials}</div><div>'
            f'<div class="who"><b>{html.escape(person.real_name)}</b>{badge}<time>{message.at:%H:%M:%S}</time>'
            f"{edited}</div>"
            f"{Rendering(self._workspace).message(message)}</div></article>"
        )

    def _whisper(self, whisper: Ephemeral) -> str:
        rendering = Rendering(self._workspace)
        shown = "".join(rendering.block(block) for block in whisper.blocks) or rendering.mrkdwn(whisper.text)
        return f'<div class="whisper"><i>👁 Only visible to you · {whisper.at:%H:%M:%S}</i>{shown}</div>'

    def _modal(self, modal: Modal) -> str:
        rendering, view = Rendering(self._workspace), modal.view
        body = "".join(rendering.block(block) for block in view.get("blocks", ()))
        wrong = "".join(f'<p class="wrong b">{html.escape(str(text))}</p>' for text in modal.errors.values())
        submit = rendering.text(view["submit"]) if "submit" in view else "Submit"
        close = rendering.text(view["close"]) if "close" in view else "Cancel"
        return (
            f'<dialog data-modal="{modal.id}"><h3>{rendering.text(view["title"])}</h3>'
            f'<form method="dialog">{body}{wrong}'
            f'<button class="btn" value="no">{close}</button><button class="btn primary" value="yes">{submit}</button>'
            "</form></dialog>"
        )
