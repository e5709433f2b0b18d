"""A Slack workspace in memory: people, channels, messages in threads, files, modals; and what a person can do there."""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

from pydantic import BaseModel

from app.connect_slack import SCOPES
from app.simulator.shop import Clock

Json = dict[str, Any]

TEAM = "T0SHOP"
KEPT = 2000
TRIGGER_LIVES_S = 3.0
RESPONSE_URL_LIVES_S = 1800.0
RESPONSE_URL_POSTS = 5


class Refused(Exception):
    """Slack's answer ``ok: false``; ``error`` is its word for it, ``more`` what else it tells."""

    def __init__(self, error: str, **more: object) -> None:
        super().__init__(error)
        self.error, self.more = error, more


class InstalledApp(BaseModel):
    """Our app, as it was installed into the workspace from the manifest that ``autopilot connect slack`` prints."""

    token: str = "xoxb-shop"  # noqa: S105  of a workspace that does not exist
    token_error: str = ""  # why the token is not taken any more: token_expired, token_revoked, account_inactive
    scopes: tuple[str, ...] = SCOPES
    signing_secret: str = "shop-signing-secret"  # noqa: S105
    interactivity_url: str = ""  # where clicks are posted to; empty: nowhere
    app_id: str = "A0AUTOPILOT"
    bot_id: str = "B0AUTOPILOT"
    user_id: str = "U0AUTOPILOT"


@dataclass(frozen=True)
class Person:
    """A member of the workspace."""

    id: str
    name: str
    real_name: str
    colour: str = "#5b6b7f"


@dataclass
class Message:
    """One message. ``ts`` is its id and Slack's own time; ``at`` is the shop's time, for people to read."""

    ts: str
    at: datetime
    user: str
    text: str = ""
    blocks: list[Json] = field(default_factory=list)
    attachments: list[Json] = field(default_factory=list)
    metadata: Json | None = None
    thread_ts: str = ""
    files: list[str] = field(default_factory=list)
    edited: str = ""
    broadcast: bool = False

    @property
    def is_reply(self) -> bool:
        """Whether it stands in a thread, and is not its parent."""
        return self.thread_ts not in ("", self.ts)


@dataclass
class Channel:
    """A conversation, and what was said there, oldest first."""

    id: str
    name: str
    is_private: bool = False
    is_archived: bool = False
    is_member: bool = True  # whether our app was invited
    messages: list[Message] = field(default_factory=list)

    def message(self, ts: str) -> Message | None:
        """By its ts."""
        return next((m for m in self.messages if m.ts == ts), None)

    def replies(self, ts: str) -> list[Message]:
        """Of a thread, without its parent."""
        return [m for m in self.messages if m.is_reply and m.thread_ts == ts]


@dataclass(frozen=True)
class Ephemeral:
    """What only one person sees."""

    at: datetime
    channel: str
    user: str
    text: str
    blocks: list[Json] = field(default_factory=list)
    thread_ts: str = ""


@dataclass
class File:
    """An upload; shared once it is completed."""

    id: str
    name: str
    length: int
    content: bytes = b""
    title: str = ""
    shared: bool = False


@dataclass
class Trigger:
    """What allows one modal to be opened, for three seconds after a click."""

    user: str
    channel: str
    made: float
    used: bool = False


@dataclass
class ResponseUrl:
    """Where an app answers to a click: five posts in half an hour."""

    user: str
    channel: str
    message_ts: str
    made: float
    posts: int = 0


@dataclass
class Modal:
    """An open modal; ``errors`` by block_id are what the app found wrong with what was submitted."""

    id: str
    user: str
    channel: str
    view: Json
    errors: Json = field(default_factory=dict)


def _people() -> dict[str, Person]:
    listed = (
        Person("U0MINJI", "minji", "Minji Kim", "#2f7d6b"),
        Person("U0ALEX", "alex", "Alex Rivera", "#8a4fbf"),
        Person("U0JUN", "jun", "Jun Park", "#b7622a"),
        Person("U0SAM", "sam", "Sam Doe", "#5b6b7f"),  # works here, and is no operator of ours
        Person("U0AUTOPILOT", "autopilot", "Auto Pilot", "#1d5fd1"),
    )
    return {person.id: person for person in listed}


def _channels() -> dict[str, Channel]:
    listed = (
        Channel("C0INCIDENTS", "shop-incidents"),
        Channel("C0PAYMENTS", "payments-oncall"),
        Channel("C0CHECKOUT", "checkout-oncall"),
        Channel("C0WEB", "web-oncall"),
        Channel("C0SEARCH", "search-oncall"),
        Channel("C0PLATFORM", "platform-oncall"),
        Channel("C0GENERAL", "general", is_member=False),
        Channel("C0OLD", "old-alerts", is_archived=True),
    )
    return {channel.id: channel for channel in listed}


class Workspace:
    """All of it. Used from one event loop only."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.app = InstalledApp()
        self.people, self.channels = _people(), _channels()
        self.files: dict[str, File] = {}
        self.ephemerals: deque[Ephemeral] = deque(maxlen=KEPT)
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}
        self.modals: dict[str, Modal] = {}
        self.calls: deque[Json] = deque(maxlen=KEPT)
        self._number = count(1)
        self._last_us = 0

    def next_id(self, kind: str) -> str:
        """Such as F000007."""
        return f"{kind}{next(self._number):06d}"

    def timestamp(self) -> str:
        """Slack's own time, a little later at every call: ids of messages are made of it."""
        self._last_us = max(time.time_ns() // 1000, self._last_us + 1)
        return f"{self._last_us // 1_000_000}.{self._last_us % 1_000_000:06d}"

    # --- conversations ---

    def channel(self, name: object, *, by_name: bool = False) -> Channel:
        """By id, or where Slack allows that, by name. Raises Refused."""
        found = self.channels.get(str(name))
        if found is None and by_name:
            wanted = str(name).removeprefix("#")
            found = next((c for c in self.channels.values() if c.name == wanted), None)
        if found is None or (found.is_private and not found.is_member):
            raise Refused("channel_not_found")
        return found

    def writable(self, name: object, *, by_name: bool = False) -> Channel:
        """Where our app may post. Raises Refused."""
        channel = self.channel(name, by_name=by_name)
        if channel.is_archived:
            raise Refused("is_archived")
        if not channel.is_member and "chat:write.public" not in self.app.scopes:
            raise Refused("not_in_channel")
        return channel

    def post(self, channel: Channel, thread_ts: str = "", **content: Any) -> Message:
        """A new message of our app. Raises Refused."""
        if thread_ts:
            parent = channel.message(thread_ts)
            if parent is None:
                raise Refused("thread_not_found")
            if parent.is_reply:
                raise Refused("cannot_reply_to_message")
            parent.thread_ts = parent.ts
        message = Message(self.timestamp(), self.clock.now(), self.app.user_id, thread_ts=thread_ts, **content)
        channel.messages.append(message)
        return message

    def whisper(self, channel: Channel, user: str, text: str, blocks: Sequence[Json] = (), thread_ts: str = "") -> None:
        """Say something that only one person sees."""
        self.ephemerals.append(Ephemeral(self.clock.now(), channel.id, user, text, list(blocks), thread_ts))

    # --- what a click allows ---

    def trigger(self, user: str, channel: str) -> str:
        """A new trigger_id."""
        trigger_id = f"{next(self._number)}.{TEAM}.{time.time_ns():x}"
        self.triggers[trigger_id] = Trigger(user, channel, time.monotonic())
        return trigger_id

    def pull(self, trigger_id: object) -> Trigger:
        """The trigger, which is used up. Raises Refused."""
        trigger = self.triggers.get(str(trigger_id))
        if trigger is None:
            raise Refused("invalid_trigger_id")
        if trigger.used:
            raise Refused("exchanged_trigger_id")
        if time.monotonic() - trigger.made > TRIGGER_LIVES_S:
            raise Refused("expired_trigger_id")
        trigger.used = True
        return trigger

    def spent(self, address: ResponseUrl) -> str:
        """Slack's word for why nothing can be posted there any more; empty: it can."""
        if time.monotonic() - address.made > RESPONSE_URL_LIVES_S:
            return "expired_url"
        return "used_url" if address.posts >= RESPONSE_URL_POSTS else ""

    def response_url(self, user: str, channel: str, message_ts: str = "") -> str:
        """The last part of a new one."""
        name = f"{TEAM}/{next(self._number)}/{time.time_ns():x}"
        self.response_urls[name] = ResponseUrl(user, channel, message_ts, time.monotonic())
        return name

    # --- shapes ---

    def shown(self, message: Message, *, with_metadata: bool) -> Json:
        """A message as Slack's API tells it."""
        told: Json = {"type": "message", "user": message.user, "ts": message.ts, "text": message.text, "team": TEAM}
        if message.user == self.app.user_id:
            told |= {"bot_id": self.app.bot_id, "app_id": self.app.app_id, "bot_profile": self._bot_profile()}
        if message.thread_ts:
            told["thread_ts"] = message.thread_ts
        optional: Mapping[str, object] = {
            "blocks": message.blocks,
            "attachments": message.attachments,
            "files": [self.file(self.files[name]) for name in message.files],
            "edited": {"user": message.user, "ts": message.edited} if message.edited else None,
            "metadata": message.metadata if with_metadata else None,
            "subtype": "thread_broadcast" if message.broadcast else None,
        }
        return told | {key: value for key, value in optional.items() if value}

    def _bot_profile(self) -> Json:
        return {"id": self.app.bot_id, "app_id": self.app.app_id, "name": "autopilot", "team_id": TEAM}

    def file(self, file: File) -> Json:
        """A file as Slack's API tells it."""
        return {"id": file.id, "name": file.name, "title": file.title or file.name, "size": file.length}

    def person(self, user: str) -> Json:
        """A member as a payload tells it."""
        name = self.people[user].name if user in self.people else user
        return {"id": user, "username": name, "name": name, "team_id": TEAM}
