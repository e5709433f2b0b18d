"""What a notifier is: it tells people outside of an incident, one event at a time.

A notifier is one file in this folder with its own ``Settings(env_prefix="AUTOPILOT_<NAME>_")`` and a
``create(clock, file)``; its name in ``AUTOPILOT_NOTIFIERS`` turns it on. It keeps nothing: the outbox (app/outbox.py)
stores what it returns and hands it back the next time. Messages of one conversation, which is an incident at a
target, come one after the other and in order; a notifier decides for itself what it does with which kind of event.

How one message goes out:

    attempted_at committed  ->  deliver()  ->  Receipt: stored with sent_at
                                           ->  TryAgain: later again, then with ``maybe_sent`` if it was ambiguous
                                           ->  Undeliverable: failed_at, told in the timeline; the next one goes on
    killed after the call   ->  the next attempt has ``maybe_sent``: look_up() is asked before deliver()
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from uuid import UUID

from pydantic import JsonValue

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.report import Report
from graph.state import Language

Reference = Mapping[str, JsonValue]
"""What a notifier must know again of a conversation: the Slack thread's ts, the Jira issue's key. No secrets."""
MENDED_AFTER_S = 300.0  # what somebody has to mend (a token, a key, a channel) is tried again then


class TryAgain(Exception):
    """Not now: the outbox tries again, later and later, for at most a day.

    ``detail`` is for people, without secrets; ``after_s``: what the other side asked to wait (Retry-After);
    ``ambiguous``: it may have arrived all the same (a timeout after the request was sent, a 5xx); ``reference``: what
    is known of the conversation by now, stored like a receipt's; ``of_target``: the other side failed, so that all
    that waits for the target waits a little, and not this incident alone.
    """

    def __init__(
        self,
        detail: str,
        after_s: float | None = None,
        ambiguous: bool = False,
        reference: Reference | None = None,
        of_target: bool = True,
    ) -> None:
        super().__init__(detail)
        self.detail, self.after_s, self.ambiguous = detail, after_s, ambiguous
        self.reference, self.of_target = dict(reference or {}), of_target


class Undeliverable(Exception):
    """It will never arrive like this: trying again is of no use.

    ``detail`` says what to do, without secrets; ``reference``: what is known of the conversation by now.
    """

    def __init__(self, detail: str, reference: Reference | None = None) -> None:
        super().__init__(detail)
        self.detail, self.reference = detail, dict(reference or {})


@dataclass(frozen=True)
class Event:
    """The line of the timeline that is to be told."""

    id: int  # grows with time
    key: str  # one of each in an incident
    at: datetime  # by the operated world's clock
    kind: str  # app.store.outbox.TOLD lists those that people hear of
    node: str
    message: str  # English; from data of others in part: escape it
    data: Mapping[str, JsonValue]


@dataclass(frozen=True)
class Telling:
    """One event, for one target."""

    id: UUID  # our idempotency key: the same in every attempt
    incident_id: str
    event: Event
    report: Report  # as of now, in ``language``
    target: str  # Slack: channel; Jira: team; PagerDuty: name of a routing key; webhook: name of an endpoint
    why: str  # why this target hears of it: for people
    conversation: Reference  # this incident's at this target, {} if there is none yet
    earlier: Reference  # of an earlier incident of the same alert, {} if there is none
    maybe_sent: bool  # an earlier attempt's end is unknown
    language: Language
    url: str  # the incident's page
    team: str = ""  # of autopilot.yaml, that the target belongs to; empty where teams are not declared
    since: datetime | None = None  # real time: nothing of this conversation was told before; None: not known


@dataclass(frozen=True)
class Receipt:
    """It arrived, or there was nothing to say."""

    reference: Reference = field(default_factory=dict)  # merged into the conversation's, key by key
    detail: str = ""  # for people: "posted in #payments", "OPS-12 created", "nothing to say of a reminder"


class Notifier(Protocol):
    """One way to tell people. Safe for many incidents at once."""

    name: str

    async def deliver(self, telling: Telling) -> Receipt:
        """Tell it, in one attempt without retries of its own. Raises TryAgain, Undeliverable."""
        ...

    async def look_up(self, telling: Telling) -> Receipt | None:
        """Whether it was delivered after all; None: no, or the other side knows our key and may get it twice.

        Called only when ``maybe_sent``. Raises TryAgain, Undeliverable.
        """
        ...

    async def check(self) -> Sequence[str] | None:
        """What stands against its working, each with what to do; empty: nothing. For ``autopilot doctor``.

        None: it cannot be tried without telling somebody.
        """
        ...

    async def aclose(self) -> None:
        """Close its connections."""
        ...


CreateNotifier = Callable[[Clock, AutopilotYaml], Notifier]
"""What ``create`` of a notifier's file is. Raises ValueError or ValidationError: a setting is missing or wrong."""
