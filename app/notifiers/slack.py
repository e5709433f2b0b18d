"""Slack: one thread for an incident in each channel that hears of it, with the buttons to decide."""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from pydantic import JsonValue
from slack_sdk import WebClient
from slack_sdk.web import SlackResponse

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.notifiers import _slack_blocks as blocks
from app.notifiers._slack_analysis import root_cause
from app.notifiers._slack_api import (
    GONE,
    MOST_PAGES,
    NOT_SHOWN,
    PAGE,
    REFUSALS,
    SCOPES,
    CannotLook,
    Refused,
    Settings,
    call,
    channel_id,
    client_of,
    headers_of,
)
from app.notifiers._slack_blocks import Message, Story
from app.notifiers._slack_rich import flat
from app.notifiers._slack_thread import INCIDENT, Post, Thread, charted, digest, due, standing
from app.notifiers.base import Receipt, Telling, TryAgain, Undeliverable
from app.pictures_png import labels, png
from app.report import chart, summary, topology

__all__ = ["Settings", "SlackNotifier", "create"]

log = logging.getLogger(__name__)

NAME = "slack"
OURS = "aiops_message"
"""The event_type of our messages' metadata: message_id, incident_id, and which part of the thread it is."""
FILE = re.compile(r"(?:chart|topology)-(?P<incident>.+)-(?P<round>\d+)\.png")
PNG_WIDTH = 1_120
THREADS = 8  # more than the outbox uses at once
ATTEMPT_S = 20.0  # of all requests of one attempt: a thread cannot be stopped, and must not post when another has begun
UPLOAD_REQUESTS = 5  # that attaching two pictures takes
LEAST_S = 1  # left to begin a request
CLOCKS_DIFFER_S = 60.0  # ours from Slack's, at most


def create(clock: Clock, file: AutopilotYaml) -> "SlackNotifier":
    """The notifier. Raises ValueError: there is no token."""
    settings = Settings()
    if settings.bot_token is None:
        raise ValueError(
            "AUTOPILOT_SLACK_BOT_TOKEN is not set: `autopilot connect slack` tells how to make the app;"
            " its token is under «OAuth & Permissions» (xoxb-…)."
        )
    return SlackNotifier(settings, file)


class SlackNotifier:
    """``app.notifiers.base.Notifier``."""

    name = NAME

    def __init__(self, settings: Settings, file: AutopilotYaml) -> None:
        self._settings, self._client = settings, client_of(settings)
        # Its own: while Slack does not answer, the loop's threads are needed for what remedies do.
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=NAME)
        self._owners = {name: service.owner for name, service in file.services.items() if service.owner}
        named = (file.policy.messages.default_channel, *(team.slack_channel for team in file.teams.values()))
        self._channels = tuple(dict.fromkeys(filter(None, named)))

    async def deliver(self, telling: Telling) -> Receipt:
        """See app.notifiers.base.Notifier. In a thread, as Slack's client blocks; it ends by itself in time."""
        client = client_of(self._settings)  # its own: how long a request may take depends on what is left of the time
        delivery = _Delivery(client, telling, self._owners)
        return await asyncio.get_running_loop().run_in_executor(self._threads, delivery.carry_out)

    async def look_up(self, telling: Telling) -> Receipt | None:
        """None: ``deliver`` itself looks for what is there already, part by part, before it posts what is missing."""
        return None

    async def check(self) -> Sequence[str]:
        """See app.notifiers.base.Notifier."""
        return await asyncio.to_thread(lambda: list(self._problems()))

    def _problems(self) -> Iterator[str]:
        try:
            answer = call(self._client.auth_test)
        except (TryAgain, Undeliverable) as error:
            yield f"slack: {error.detail}"
            return
        granted = {s.strip() for s in str(headers_of(answer).get("x-oauth-scopes", "")).split(",")}
        missing = [scope for scope in SCOPES if scope not in granted]
        if granted != {""} and missing:
            needed = ", ".join(missing)
            yield f"slack: {REFUSALS['missing_scope'].format(needed=needed)}"
        for channel in self._channels:
            yield from self._problems_of(channel)

    def _problems_of(self, channel: str) -> Iterator[str]:
        try:
            info = call(self._client.conversations_info, channel=channel_id(self._client, channel))["channel"]
        except (TryAgain, Undeliverable) as error:
            yield f"slack: {channel}: {error.detail}"
            return
        for bad, why in ((info.get("is_archived"), "is_archived"), (info.get("is_member") is False, "not_in_channel")):
            if bad:
                yield f"slack: {channel}: {REFUSALS[why]}"

    async def aclose(self) -> None:
        """Let its threads go; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Delivery:
    """One attempt to bring a thread up to a report."""

    def __init__(self, client: WebClient, telling: Telling, owners: dict[str, str]) -> None:
        self.client, self.telling, self.longest_s = client, telling, client.timeout
        self.until = time.monotonic() + ATTEMPT_S
        self.thread = Thread.of(telling.conversation)
        self.story = Story(telling.report, telling.url, telling.why, owners)
        self.changed = False  # something was posted in this attempt

    def carry_out(self) -> Receipt:
        """Raises TryAgain, Undeliverable, with what is known of the thread by then."""
        try:
            return self._carry_out()
        except TryAgain as error:
            self.thread = self.thread.model_copy(update={"unsure": self.thread.unsure or error.ambiguous})
            error.reference = self._known()
            raise
        except Undeliverable as error:
            error.reference = self._known()
            raise

    def _known(self) -> dict[str, JsonValue]:
        """Nothing before the first message: where its end is unknown, the outbox says so."""
        return self.thread.reference if self.thread.ts else {}

    def _carry_out(self) -> Receipt:
        if self.telling.maybe_sent or self.thread.unsure:
            try:
                self._look()
            except CannotLook as error:  # rather told twice than never
                log.warning("incident %s: told without looking first: %s", self.telling.report.incident_id, error)
                self.thread = self.thread.model_copy(update={"unsure": False})
        self.thread = self.thread.noting(self.telling.event).offering(self.story)
        self.story = replace(self.story, finished=self.thread.steps_of(self.story), earlier=self.thread.earlier)
        self._tell_first()
        for post in due(self.story, self.thread, self.telling.event, str(self.telling.id)):
            self._post(post)
            self._attach_charts()
        self._attach_charts()  # of an analysis that an earlier attempt posted
        edited = [post.part for post in standing(self.story, self.thread) if self._edit(post)]
        said = "posted" if self.changed else "edited" if edited else "nothing new to say"
        return Receipt(self.thread.reference, f"{said} in {self.telling.target}")

    def _call(self, method: Callable[..., SlackResponse], requests: int = 1, **arguments: Any) -> SlackResponse:
        """Within the time that is left. Raises TryAgain, Undeliverable."""
        left = int((self.until - time.monotonic()) / requests)
        if left < LEAST_S:
            raise TryAgain("Slack is slow; the rest is told later", ambiguous=True)
        self.client.timeout = min(self.longest_s, left)
        return call(method, **arguments)

    # --- messages ---

    def _tell_first(self) -> None:
        """The message that the thread hangs on."""
        if not self.thread.ts:
            earlier = self._earlier()
            self.thread = self.thread.model_copy(update={"earlier": earlier})
            self.story = replace(self.story, earlier=earlier)
            self._post(Post(INCIDENT, blocks.parent(self.story)))

    def _post(self, post: Post) -> None:
        about = {
            "message_id": str(self.telling.id),
            "incident_id": self.telling.incident_id,
            "part": post.part,
        }
        place: dict[str, Any] = {"channel": self.thread.channel or self.telling.target}
        if self.thread.ts:
            place |= {"thread_ts": self.thread.ts, "reply_broadcast": post.aloud}
        metadata = {"event_type": OURS, "event_payload": about}
        answer = self._sent(self.client.chat_postMessage, post.message, **place, metadata=metadata)
        self.changed = True
        self.thread = self.thread.posted(post.part, str(answer["ts"]), post.message).model_copy(
            update={"channel": str(answer["channel"])}
        )

    def _edit(self, post: Post) -> bool:
        """Whether there was anything to change. What somebody deleted stays deleted."""
        ts = self.thread.posts[post.part]
        if self.thread.shown.get(post.part) == digest(post.message):
            return False
        try:
            self._sent(self.client.chat_update, post.message, channel=self.thread.channel, ts=ts)
        except Refused as refusal:
            if refusal.error not in GONE:
                raise
        self.thread = self.thread.posted(post.part, ts, post.message)
        return True

    def _sent(self, method: Callable[..., SlackResponse], message: Message, **where: Any) -> SlackResponse:
        """With its blocks; as text where Slack does not take them. Nobody's link is unfolded, nobody is called."""
        quiet: dict[str, Any] = {"parse": "none", "link_names": False}
        if "ts" not in where:
            quiet |= {"mrkdwn": False, "unfurl_links": False, "unfurl_media": False}
        try:
            return self._call(method, text=message.text, blocks=list(message.blocks), **where, **quiet)
        except Refused as refusal:
            if refusal.error not in NOT_SHOWN:
                raise
            log.error("Slack does not take our blocks (%s): %s", refusal.error, refusal.reasons)
        return self._call(method, text=f"{message.as_text}\n{self.telling.url}", blocks=[], **where, **quiet)

    def _earlier(self) -> str | None:
        """Address of the thread of an earlier incident; None where there is none, or Slack does not tell."""
        before = Thread.of(self.telling.earlier)
        if not before.ts:
            return None
        try:
            answer = self._call(self.client.chat_getPermalink, channel=before.channel, message_ts=before.ts)
        except (TryAgain, Undeliverable):  # it is worth no second try
            return None
        return str(answer["permalink"])

    # --- charts ---

    def _attach_charts(self) -> None:
        """Once for each analysis. Where they cannot be attached, the finding's course is drawn in letters."""
        round_ = self.story.report.round
        part = f"chart:{round_}"
        if f"rca:{round_}" not in self.thread.posts or part in self.thread.posts:
            return
        try:
            if pictures := list(_pictures(self.story, f"{self.telling.incident_id}-{round_}")):
                self._call(
                    self.client.files_upload_v2,
                    UPLOAD_REQUESTS,
                    file_uploads=pictures,
                    channel=self.thread.channel,
                    thread_ts=self.thread.ts,
                )
        except (TryAgain, Undeliverable) as error:
            log.warning("incident %s: charts not attached in Slack: %s", self.telling.incident_id, error.detail)
            self._draw_in_letters(f"rca:{round_}")
        except Exception:  # a picture that cannot be drawn must not keep the buttons out of Slack
            log.exception("incident %s: charts not drawn for Slack", self.telling.incident_id)
            self._draw_in_letters(f"rca:{round_}")
        self.thread = self.thread.posted(part, "")

    def _draw_in_letters(self, part: str) -> None:
        self.story = replace(self.story, sparkline=True)
        self._edit(Post(part, root_cause(self.story)))
        self.story = replace(self.story, sparkline=False)

    # --- what is there already ---

    def _look(self) -> None:
        """An earlier attempt may have posted some of it: what stands in the channel counts."""
        channel = self.thread.channel or channel_id(self.client, self.telling.target)
        if not self.thread.ts:
            since = self.telling.since
            oldest = {"oldest": f"{since.timestamp() - CLOCKS_DIFFER_S:.6f}"} if since else {}
            history = self._pages(self.client.conversations_history, channel=channel, **oldest)
            found = next((m for m in history if self._part(m) == INCIDENT), None)
            if found is None:
                return
            self.thread = self.thread.posted(INCIDENT, str(found["ts"])).model_copy(update={"channel": channel})
        for message in self._pages(self.client.conversations_replies, channel=channel, ts=self.thread.ts):
            if (part := self._part(message)) and part not in self.thread.posts:
                self.thread = self.thread.posted(part, str(message["ts"]))
            for round_ in self._charted_rounds(message):
                self.thread = self.thread.posted(f"chart:{round_}", "")
        self.thread = self.thread.model_copy(update={"unsure": False})

    def _pages(self, method: Callable[..., SlackResponse], **where: Any) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        for _ in range(MOST_PAGES):
            answer = self._call(method, **where, limit=PAGE, include_all_metadata=True, cursor=cursor)
            yield from answer.get("messages") or ()
            cursor = (answer.get("response_metadata") or {}).get("next_cursor")
            if not cursor:
                return

    def _part(self, message: dict[str, Any]) -> str:
        """Which part of this incident's thread it is; empty: none of ours."""
        metadata = message.get("metadata") or {}
        about = metadata.get("event_payload") or {}
        ours = metadata.get("event_type") == OURS and about.get("incident_id") == self.telling.incident_id
        return str(about.get("part", "")) if ours else ""

    def _charted_rounds(self, message: dict[str, Any]) -> Iterator[str]:
        for file in message.get("files") or ():
            found = FILE.fullmatch(str(file.get("name", "")))
            if found and found["incident"] == self.telling.incident_id:
                yield found["round"]


def _pictures(story: Story, name: str) -> Iterator[dict[str, Any]]:
    """The course of what says most, and who calls whom; as files_upload_v2 takes them."""
    report = story.report
    language = labels(report.language)
    if finding := charted(story):
        drawn = png(chart(report, finding, language=language), width=PNG_WIDTH)
        said = flat(f"{finding.id}: {summary(report, finding)}")[:200]
        yield {"filename": f"chart-{name}.png", "content": drawn, "title": said, "alt_txt": said}
    if svg := topology(report, language=language):
        said = flat(story.labels["topology_around"].format(report.service))[:200]
        yield {"filename": f"topology-{name}.png", "content": png(svg), "title": said, "alt_txt": said}
