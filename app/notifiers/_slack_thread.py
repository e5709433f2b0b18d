"""What an incident's thread in Slack should hold, by its report. Pure.

A thread is brought up to the report as of now, whatever event is told: messages that are missing are posted, those that
stand are edited. So a message that was told late, twice, or not at all leaves nothing wrong behind.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.notifiers import _slack_blocks as blocks
from app.notifiers._slack_analysis import root_cause
from app.notifiers._slack_blocks import RUN, Message, Story
from app.notifiers._slack_plan import old_plan, plan
from app.notifiers.base import Event, Reference
from graph.state import Finding

INCIDENT = "incident"
"""The part that is the thread's first message."""
LINES = ("approval", "withdrawal", "reminder", "escalation", "expired", "reopened", "note", "not_delivered")
"""Kinds of events that get a line of their own; all else is told by the messages that stand."""
OVER = ("closed", "needs_attention")  # resolved is told by the verdict


class Thread(BaseModel):
    """What we know of a thread; the reference that the outbox keeps for us. ``posts``: part -> ts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    channel: str = ""
    posts: dict[str, str] = Field(default_factory=dict)
    shown: dict[str, str] = Field(default_factory=dict, description="part -> digest of what it shows")
    titles: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="Of the options of each plan")
    carried_out: str = Field(default="", description="The plan revision that `finished` is about")
    finished: dict[int, str] = Field(default_factory=dict, description="Status of each step that ended")
    earlier: str | None = Field(default=None, description="Address of the thread of an earlier incident")
    unsure: bool = Field(default=False, description="An attempt's end is unknown: more may stand there")

    @classmethod
    def of(cls, reference: Reference) -> "Thread":
        """As the outbox hands it back."""
        return cls.model_validate(dict(reference))

    @property
    def ts(self) -> str:
        """Of its first message; empty where it is not posted yet."""
        return self.posts.get(INCIDENT, "")

    @property
    def reference(self) -> dict[str, JsonValue]:
        """To be kept."""
        kept: dict[str, JsonValue] = self.model_dump(mode="json")
        return kept

    def posted(self, part: str, ts: str, message: Message | None = None) -> "Thread":
        """That it stands there, and what it shows."""
        known: dict[str, object] = {"posts": {**self.posts, part: ts}}
        if message:
            known["shown"] = {**self.shown, part: digest(message)}
        return self.model_copy(update=known)

    def offering(self, story: Story) -> "Thread":
        """With the plan that waits, which may be replaced before its message is edited."""
        if not story.waits:
            return self
        titles = tuple(option.title for option in story.report.options)
        return self.model_copy(update={"titles": {**self.titles, story.revision: titles}})

    def noting(self, event: Event) -> "Thread":
        """With the step that this event says has ended."""
        if event.kind != "step_finished":
            return self
        revision = event.key.split(":")[1]
        before = self.finished if self.carried_out == revision else {}
        ended = {int(str(event.data["ordinal"])): str(event.data["status"])}
        return self.model_copy(update={"carried_out": revision, "finished": {**before, **ended}})

    def steps_of(self, story: Story) -> Mapping[int, str]:
        """How the steps of the newest decision ended, as far as it was told."""
        made = story.decision
        return self.finished if made and made.plan_revision == self.carried_out else {}


@dataclass(frozen=True)
class Post:
    """A message of the thread. ``part`` is unique in it; ``aloud``: shown in the channel too."""

    part: str
    message: Message
    aloud: bool = False


def digest(message: Message) -> str:
    """The same for the same message."""
    return sha256(json.dumps([message.text, message.blocks], sort_keys=True).encode()).hexdigest()[:16]


def due(story: Story, thread: Thread, event: Event, message_id: str) -> Iterator[Post]:
    """What is missing below the first message, in the order of reading."""
    makers: Sequence[tuple[str, bool, Callable[[Story], Message]]] = (
        (f"rca:{story.report.round}", story.report.root_cause is not None, root_cause),
        (_of_decision(story, "decision"), _must_tell_decision(story, thread, event), blocks.decided),
        (_of_decision(story, "progress"), _is_carried_out(story), blocks.progress),
        (_of_verdict(story), bool(story.report.executions), blocks.verdict),
        (f"plan:{story.revision}", story.waits, plan),
        (f"end:{story.report.closed_at}", _must_tell_end(story), blocks.end),
    )
    for part, wanted, make in makers:
        if wanted and part not in thread.posts:
            yield Post(part, make(story))
    if event.kind in LINES and (line := f"event:{message_id}") not in thread.posts:
        yield Post(line, _line(story, event), aloud=event.kind == "escalation")


def standing(story: Story, thread: Thread) -> Iterator[Post]:
    """What is there already and may have to be edited."""
    for part in tuple(thread.posts):
        kind, _, revision = part.partition(":")
        if part == INCIDENT:
            yield Post(part, blocks.parent(story))
        elif kind == "plan" and revision == story.revision:
            yield Post(part, plan(story))
        elif kind == "plan":
            yield Post(part, old_plan(story, revision, thread.titles.get(revision, ())))
        elif kind == "progress" and story.decision and revision == story.decision.plan_revision:
            yield Post(part, blocks.progress(story))


def _of_decision(story: Story, kind: str) -> str:
    return f"{kind}:{story.decision.plan_revision}" if story.decision else kind


def _of_verdict(story: Story) -> str:
    return f"verdict:{story.report.executions[-1].plan_revision}" if story.report.executions else "verdict"


def _must_tell_decision(story: Story, thread: Thread, event: Event) -> bool:
    """One that runs nothing; in a thread that began later it is history."""
    made = story.decision
    if made is None or made.choice in RUN or made.withdrawn_by:
        return False
    return event.kind == "decision" or f"plan:{made.plan_revision}" in thread.posts


def _is_carried_out(story: Story) -> bool:
    made = story.decision
    if made is None or made.choice not in RUN or made.withdrawn_by:
        return False
    return all(done.plan_revision != made.plan_revision for done in story.report.executions)


def _must_tell_end(story: Story) -> bool:
    return story.report.status in OVER and not (story.report.by_hand and story.report.status == "closed")


def _line(story: Story, event: Event) -> Message:
    by = str(event.data.get("by", ""))
    about = str(event.data.get("choice", ""))
    return blocks.happened(story, event.kind, event.message.removeprefix(f"{by}: "), by, about)


# --- pictures ---


def charted(story: Story) -> Finding | None:
    """The finding whose course says most: of what is blamed, if any has one."""
    blamed = {suspect.component for suspect in story.report.blamed}
    return next(iter(sorted(story.report.charted, key=lambda f: f.component not in blamed)), None)
