"""People in the workspace: they press buttons and submit modals, and Slack tells our app, signed, as it does."""

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import httpx
from fastapi import HTTPException
from pydantic import BaseModel, Field
from slack_sdk.signature import SignatureVerifier

from app.simulator.slack_workspace import TEAM, Channel, Json, Message, Modal, Workspace

ANSWERS_WITHIN_S = 3.0
_TEAM = {"id": TEAM, "domain": "shop"}


class Press(BaseModel):
    """A button is pressed, where there is one: the confirmation, if it asks for one, was given."""

    channel: str
    ts: str
    action_id: str
    user: str
    values: dict[str, str] = Field(default_factory=dict, description="What was typed, by action_id")


class Submit(BaseModel):
    """An open modal is submitted."""

    modal: str
    values: dict[str, str] = Field(default_factory=dict, description="What was typed, by action_id")


class Clicks:
    """Tells our app what people do, at its interactivity URL."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    async def press(self, press: Press, origin: str) -> Json:
        """Press it; tells the app's answer. ``status`` 0: none came within Slack's three seconds."""
        channel, message = self._find(press)
        place = _find_button(message, press.action_id)
        if place is None:
            raise HTTPException(404, f"there is no button {press.action_id} in that message")
        block_id, button = place
        address = self._workspace.response_url(press.user, channel.id, message.ts)
        payload = self._common("block_actions", press.user) | {
            "container": self._container(channel, message),
            "trigger_id": self._workspace.trigger(press.user, channel.id),
            "channel": {"id": channel.id, "name": channel.name},
            "message": self._workspace.shown(message, with_metadata=True),
            "state": {"values": _state(message.blocks, press.values)},
            "response_url": f"{origin}/slack/response/{address}",
            "actions": [self._action(block_id, button)],
        }
        return await self._send(payload)

    async def submit(self, submit: Submit, origin: str) -> Json:
        """Submit it; the modal closes unless the app finds errors in it."""
        modal = self._workspace.modals.get(submit.modal)
        if modal is None:
            raise HTTPException(404, f"no modal {submit.modal} is open")
        payload = self._common("view_submission", modal.user) | {
            "trigger_id": self._workspace.trigger(modal.user, modal.channel),
            "view": self._view(modal, submit.values),
            "response_urls": self._response_urls(modal, origin),
        }
        answer = await self._send(payload)
        told = answer["body"] if isinstance(answer["body"], dict) else {}
        modal.errors = told.get("errors", {}) if told.get("response_action") == "errors" else {}
        if answer["status"] == 200 and not modal.errors:
            del self._workspace.modals[submit.modal]
        return answer

    def _find(self, press: Press) -> tuple[Channel, Message]:
        channel = self._workspace.channels.get(press.channel)
        message = channel.message(press.ts) if channel else None
        if channel is None or message is None:
            raise HTTPException(404, "there is no such message")
        return channel, message

    # --- payloads ---

    def _common(self, kind: str, user: str) -> Json:
        app = self._workspace.app
        person = self._workspace.person(user)
        common: Json = {"type": kind, "user": person, "api_app_id": app.app_id, "token": "verification-token"}
        return common | {"team": _TEAM, "enterprise": None, "is_enterprise_install": False}

    def _container(self, channel: Channel, message: Message) -> Json:
        container: Json = {"type": "message", "message_ts": message.ts, "channel_id": channel.id, "is_ephemeral": False}
        return container | ({"thread_ts": message.thread_ts} if message.thread_ts else {})

    def _action(self, block_id: str, button: Json) -> Json:
        told = {key: button[key] for key in ("action_id", "text", "value", "style", "type") if key in button}
        return told | {"block_id": block_id, "action_ts": self._workspace.timestamp()}

    def _view(self, modal: Modal, values: Mapping[str, str]) -> Json:
        app = self._workspace.app
        own = {"id": modal.id, "team_id": TEAM, "app_id": app.app_id, "bot_id": app.bot_id, "root_view_id": modal.id}
        return modal.view | own | {"state": {"values": _state(modal.view.get("blocks", []), values)}}

    def _response_urls(self, modal: Modal, origin: str) -> list[Json]:
        """Only where the modal has an input that asks for one."""
        inputs = [block for block in modal.view.get("blocks", []) if block.get("type") == "input"]
        asking = next((block for block in inputs if block["element"].get("response_url_enabled")), None)
        if asking is None:
            return []
        address = self._workspace.response_url(modal.user, modal.channel)
        told = {"block_id": asking.get("block_id", ""), "action_id": asking["element"].get("action_id", "")}
        return [told | {"channel_id": modal.channel, "response_url": f"{origin}/slack/response/{address}"}]

    # --- delivery ---

    async def _send(self, payload: Json) -> Json:
        """Signed, once, and never again: Slack repeats no click."""
        app = self._workspace.app
        if not app.interactivity_url:
            raise HTTPException(409, "PATCH /_shop/slack/app with interactivity_url first: clicks have nowhere to go")
        body, timestamp = urlencode({"payload": json.dumps(payload)}), str(int(time.time()))
        signature = SignatureVerifier(app.signing_secret).generate_signature(timestamp=timestamp, body=body) or ""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-Slack-Request-Timestamp": timestamp,
            "X-Slack-Signature": signature,
        }
        try:
            async with httpx.AsyncClient(timeout=ANSWERS_WITHIN_S, trust_env=False) as client:
                answer = await client.post(app.interactivity_url, content=body, headers=headers)
        except httpx.HTTPError as error:
            return {"status": 0, "body": type(error).__name__}
        return {"status": answer.status_code, "body": _body(answer)}


def _body(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.text


def buttons(message: Message) -> list[tuple[str, Json]]:
    """Every button that can be pressed in a message, with the id of its block."""
    found = []
    for number, block in enumerate(message.blocks):
        name = block.get("block_id") or f"b{number}"
        elements = [*(block.get("elements") or ()), *([block["accessory"]] if "accessory" in block else [])]
        if block.get("type") in ("actions", "section"):
            found += [(name, element) for element in elements if element.get("type") == "button"]
    return found


def _find_button(message: Message, action_id: str) -> tuple[str, Json] | None:
    return next((found for found in buttons(message) if found[1].get("action_id") == action_id), None)


def _state(blocks: list[Json], values: Mapping[str, str]) -> Json:
    """What stands in the inputs, by block_id and action_id."""
    inputs = [(number, block) for number, block in enumerate(blocks) if block.get("type") == "input"]
    state: Json = {}
    for number, block in inputs:
        element = block["element"]
        name = element.get("action_id", "")
        typed = {"type": element["type"], "value": values.get(name)}
        state.setdefault(block.get("block_id") or f"b{number}", {})[name] = typed
    return state
