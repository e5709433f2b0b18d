"""Slack: alerts that apps post in a channel, ``/rca`` and mentions by people, and clicks on our buttons.

What stands in a message is a hint and never an alert: the monitor or alarm it names is read at its source first.
"""

import difflib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, JsonValue, ValidationError
from pydantic_settings import SettingsConfigDict
from slack_sdk.signature import Clock as WallClock
from slack_sdk.signature import SignatureVerifier

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake._slack_text import Message, alarms, escaped, moment_of, monitor_ids, spoken
from app.intake.base import (
    OLDEST,
    Click,
    CommaList,
    Directory,
    Headers,
    Incoming,
    Job,
    Parsed,
    Secrets,
    Sender,
    SenderSettings,
    Unauthentic,
    UnreadablePayload,
    digest_key,
    indexable,
    json_object,
    text_of,
)
from graph.state import Alert

NAME = "slack"
EVERYONE = "*"
NEW_MESSAGE = ("", "bot_message", "file_share", "thread_broadcast")  # every other subtype edits or announces something
TIMESTAMP = re.compile(r"[0-9]{1,12}")
KOREAN = re.compile(r"[가-힣]")
HELP = ("", "help", "?", "도움말")
DECIDE = "autopilot_decide"
"""The callback_id of our modals, and the action_id of our buttons, which may go on after a colon: Slack wants those of
one block to differ."""
HINT = "autopilot_hint"
"""The action_id of the button that opens the form for a hint; its value is that of a decision, which the form makes."""
CHOSEN = re.compile(
    r"(?P<incident_id>[^:]{1,100}):(?P<plan_revision>[^:]{1,64}):(?P<choice>[^:]{1,20})"
    r"(?::(?P<steps>[0-9]{1,3}(?:,[0-9]{1,3}){0,49}))?"
)
"""The value of our buttons: ids and never parameters. The private_metadata of our modals is such a value, and after a
blank the response_url of the click that opened it: Slack sends none of its own with a form that names no channel."""
MOST_WORDS = 2_000  # characters of a hint or note; Slack lets people write more

log = logging.getLogger(__name__)
Payload = Mapping[str, JsonValue]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("no such time zone; write an IANA name such as Asia/Seoul or UTC") from None
    return name


def _an_address(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("this is no address; it begins with https://")
    return url


class Settings(SenderSettings):
    """``AUTOPILOT_SLACK_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_SLACK_")

    signing_secrets: Secrets = Field(
        default=(), description="The Slack app's signing secret, under «Basic Information»; two while you rotate"
    )
    app_id: str = Field(default="", description="The Slack app's own id (A…): its own messages are ignored")
    responders: CommaList = Field(
        default=(),
        description="Slack user ids (U…) who may start an investigation by /rca or a mention; * is everyone",
    )
    timezone: Annotated[str, AfterValidator(_known_zone)] = Field(
        default="UTC", description="IANA name of the zone in which people write 09:15, e.g. Asia/Seoul"
    )
    response_url_base: Annotated[str, AfterValidator(_an_address)] = Field(
        default="https://hooks.slack.com",
        description="Answers to clicks are posted there and nowhere else; GovSlack: https://hooks.slack-gov.com",
    )


def create(clock: Clock, config: AutopilotYaml) -> "Slack":
    """The sender."""
    return Slack(Settings(), clock)


class Slack(Sender):
    """``app.intake.base.Sender``. Parts: ``events``, ``actions`` (interactivity) and ``commands`` (slash commands)."""

    name = NAME

    def __init__(self, settings: Settings, clock: Clock, wall: WallClock | None = None) -> None:
        """``clock`` is the operated world's; ``wall`` is Slack's, which signs with the real time."""
        self.settings, self.clock, self.zone = settings, clock, ZoneInfo(settings.timezone)
        wall = wall or WallClock()
        self._verifiers = [SignatureVerifier(s.get_secret_value(), wall) for s in settings.signing_secrets]

    async def verify(self, incoming: Incoming) -> None:
        """See app.intake.base.Sender."""
        if not self._verifiers:
            raise Unauthentic("This sender is turned off: AUTOPILOT_SLACK_SIGNING_SECRETS is not set.")
        timestamp, signature = _signed(incoming.headers)
        try:
            matches = [v.is_valid(incoming.body, timestamp, signature) for v in self._verifiers]
        except UnicodeDecodeError:
            raise Unauthentic("The body is not UTF-8, as all that Slack sends is.") from None
        if not any(matches):
            raise Unauthentic(
                "X-Slack-Signature fits none of AUTOPILOT_SLACK_SIGNING_SECRETS, or was made over five minutes ago:"
                " compare the secret with the Slack app's, and the time of this machine."
            )

    def parse(self, incoming: Incoming, directory: Directory) -> Parsed:
        """See app.intake.base.Sender."""
        match incoming.part:
            case "events":
                return self._callback(json_object(incoming.body), directory)
            case "commands":
                return self._command(_form(incoming.body), directory)
            case "actions":
                return _action(_form(incoming.body))
        raise UnreadablePayload(f"Slack sends nothing to {incoming.part!r}: use events, actions or commands")

    def may_answer(self, address: str) -> bool:
        """Whether it is one of Slack's: a payload must not make us post elsewhere."""
        try:
            asked, ours = urlsplit(address), urlsplit(self.settings.response_url_base)
        except ValueError:
            return False
        return (asked.scheme, asked.netloc) == (ours.scheme, ours.netloc)

    # --- events ---

    def _callback(self, payload: Payload, directory: Directory) -> Parsed:
        kind = text_of(payload.get("type"))
        if kind == "url_verification":
            return Parsed(answer={"challenge": text_of(payload.get("challenge"))}, note="Slack checked this address")
        if kind == "app_rate_limited":
            log.warning("Slack drops events of workspace %s: over 30,000 in an hour", text_of(payload.get("team_id")))
            return Parsed(note="Slack sends too many events and dropped some: subscribe to fewer channels")
        event = payload.get("event")
        if kind != "event_callback" or not isinstance(event, dict):
            return Parsed(note="not an event")
        event_id = text_of(payload.get("event_id"))
        found = self._event(event, text_of(payload.get("api_app_id")), event_id, directory)
        return _keyed(found, f"{NAME}:{indexable(event_id)}" if event_id else None)

    def _event(self, event: Message, receiver: str, event_id: str, directory: Directory) -> Parsed:
        kind, app = text_of(event.get("type")), _app(event)
        if kind not in ("message", "app_mention"):
            return Parsed(note="not a message")
        if app and app in (receiver, self.settings.app_id):
            return Parsed(note="our own message")
        if text_of(event.get("subtype")) not in NEW_MESSAGE or event.get("edited"):
            return Parsed(private=not _by_apps(event), note="not a new message")
        if _posted_by_app(event):
            return _announced(event)
        if kind == "app_mention":
            said = _without_command(spoken(event.get("text")))
            return self._investigation(said, text_of(event.get("user")), "", event_id, directory)
        return Parsed(private=True, note="a person's message")

    # --- what people ask for ---

    def _command(self, form: Mapping[str, str], directory: Directory) -> Parsed:
        said, user = spoken(form.get("text")), text_of(form.get("user_id"))
        trigger = text_of(form.get("trigger_id"))
        found = self._investigation(said, user, text_of(form.get("user_name")), trigger, directory)
        answer = None if found.alerts else {"response_type": "ephemeral", "text": found.note}
        return _keyed(found, f"{NAME}:command:{indexable(trigger)}" if trigger else None, answer)

    def _investigation(self, said: str, user: str, name: str, request: str, directory: Directory) -> Parsed:
        """One alert, or no alert and a note for the person on what to write instead."""
        if said.lower() in HELP:
            return Parsed(note=self._usage(said))
        if not self._may_start(user):
            return Parsed(note=_not_a_responder(said, user))
        services = directory.catalogue.services
        service = _service_in(said, services)
        if not service:
            return Parsed(note=_unknown_service(said, services))
        now = self.clock.now().replace(microsecond=0)
        moment = moment_of(" ".join(said.split()[len(service.split()) :]), now, self.zone)
        if complaint := self._complaint(said, moment, now):
            return Parsed(note=complaint)
        assert moment is not None
        return Parsed(
            alerts=(_alert(service, moment, request),),
            asked_by=f"{NAME}:{(name or user)[:100]}",
            note=f"{service}, {moment.astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z}",
        )

    def _may_start(self, user: str) -> bool:
        return EVERYONE in self.settings.responders or (bool(user) and user in self.settings.responders)

    def _usage(self, said: str) -> str:
        zone = self.settings.timezone
        return _in_their_language(
            said,
            f"`/rca SERVICE [TIME]` starts a root-cause analysis. TIME: `09:15` (the last one, {zone}),"
            " `2024-12-20 09:15`, `2024-12-20T09:15:00Z`, `15m ago`; without it, now.",
            f"`/rca 서비스 [시각]`으로 원인 분석을 시작합니다. 시각: `09:15`(가장 최근, {zone}),"
            " `2024-12-20 09:15`, `15분 전`; 생략하면 지금입니다.",
        )

    def _complaint(self, said: str, moment: datetime | None, now: datetime) -> str:
        """What is wrong with the time, if anything."""
        if moment is None:
            return _in_their_language(
                said,
                f"`{_shown(said)}` ends in no time that I can read ({self.settings.timezone}). {self._usage('')}",
                "시각을 읽을 수 없습니다.",
            )
        if moment > now:
            return _in_their_language(
                said,
                f"That time is in the future: it is {now.astimezone(self.zone):%Y-%m-%d %H:%M:%S %Z} now.",
                "미래의 시각입니다.",
            )
        if moment < now - OLDEST:
            return _in_their_language(
                said,
                "That is more than ten years ago: no source keeps telemetry for so long.",
                "10년보다 오래된 시각입니다.",
            )
        return ""


def _signed(headers: Headers) -> tuple[str, str]:
    """Timestamp and signature, such as SignatureVerifier can take. Raises Unauthentic."""
    timestamp, signature = headers.get("x-slack-request-timestamp", ""), headers.get("x-slack-signature", "")
    if not TIMESTAMP.fullmatch(timestamp) or not (signature and signature.isascii()):
        raise Unauthentic("X-Slack-Request-Timestamp or X-Slack-Signature is missing or malformed.")
    return timestamp, signature


def _keyed(parsed: Parsed, key: str | None, answer: Mapping[str, JsonValue] | None = None) -> Parsed:
    return replace(parsed, delivery_key=key, answer=answer)


def _app(event: Message) -> str:
    """Which app posted it; of a message of before 2020, its profile may know."""
    profile = event.get("bot_profile")
    return text_of(event.get("app_id")) or (text_of(profile.get("app_id")) if isinstance(profile, dict) else "")


def _posted_by_app(message: Message) -> bool:
    return bool(_app(message) or message.get("bot_id") or message.get("subtype") == "bot_message")


def _by_apps(event: Message) -> bool:
    """Whether no person's words are in it: an edit or deletion holds the message as it is, as it was, or both."""
    held = [message for key in ("message", "previous_message") if isinstance(message := event.get(key), dict)]
    return all(map(_posted_by_app, held)) if held else _posted_by_app(event)


def _announced(message: Message) -> Parsed:
    """What to read at its source, as an app says that it alerts."""
    jobs = [Job(sender="datadog", arguments={"monitor_id": monitor}) for monitor in monitor_ids(message)]
    jobs += [Job(sender="cloudwatch", arguments=alarm) for alarm in alarms(message)]
    return Parsed(jobs=tuple(jobs), note="" if jobs else "no alert found in it")


def _without_command(said: str) -> str:
    """A mention may repeat the command's name: ``@autopilot rca payment-service``."""
    first, _, rest = said.partition(" ")
    return rest if first.lower() in ("rca", "/rca") else said


def _service_in(said: str, services: Mapping[str, object]) -> str:
    """The catalogue's name that the words begin with; phones write its first letter large."""
    words = said.casefold().split()
    named = [name for name in services if words[: len(name.split())] == name.casefold().split()]
    return max(named, key=lambda name: (len(name), said.startswith(name)), default="")


def _alert(service: str, moment: datetime, request: str) -> Alert:
    """``request`` is Slack's id of it: who asks again, once an incident is closed, wants a new one."""
    key = indexable(":".join(filter(None, (NAME, service, moment.isoformat(), request))))
    return Alert(
        source=NAME,
        title=f"{service}: investigation asked for"[:500],
        service=service,
        occurred_at=moment,
        fingerprint=key,
        cycle_key=key,
    )


def _not_a_responder(said: str, user: str) -> str:
    return _in_their_language(
        said,
        f"You may not start investigations. Have your id {_shown(user)} added to AUTOPILOT_SLACK_RESPONDERS.",
        f"분석을 시작할 권한이 없습니다. AUTOPILOT_SLACK_RESPONDERS에 {_shown(user)} 추가를 요청하세요.",
    )


def _unknown_service(said: str, services: Mapping[str, object]) -> str:
    asked = said.partition(" ")[0]
    folded = {name.casefold(): name for name in sorted(services)}
    near = [folded[name] for name in difflib.get_close_matches(asked[:80].casefold(), folded, n=5, cutoff=0.5)]
    names = ", ".join(f"`{_shown(name)}`" for name in near or sorted(services)[:5])
    known = f"Did you mean {names}?" if near else f"It has {names}." if names else "It is empty."
    return _in_their_language(
        said,
        f"`{_shown(asked)}` is not in the service catalogue (autopilot.yaml). {known}",
        "서비스 카탈로그(autopilot.yaml)에 없는 이름입니다.",
    )


def _in_their_language(said: str, english: str, korean: str) -> str:
    return f"{english}\n{korean}" if KOREAN.search(said) else english


def _shown(text: str) -> str:
    return escaped(text[:80])


def _form(body: bytes) -> dict[str, str]:
    """The fields of a form. Raises UnreadablePayload."""
    try:
        return dict(parse_qsl(body.decode(), max_num_fields=100))
    except ValueError:
        raise UnreadablePayload("the body is not a form") from None


# --- clicks ---


def _action(form: Mapping[str, str]) -> Parsed:
    """Kept, with a key for the click; clicks, submitted views and shortcuts alike. Only ours decide."""
    if "payload" not in form:
        raise UnreadablePayload("the form has no field `payload`")
    payload = json_object(form["payload"].encode("utf-8", "replace"))
    key, decided = _click_key(payload), _decided(payload)
    if decided and not key:
        raise UnreadablePayload("Slack does not say when it was clicked: played again it could not be told apart")
    return Parsed(delivery_key=key, click=_click(payload, decided) if decided else None, note="stored")


@dataclass(frozen=True)
class FormAsked:
    """A click that wants the form for a hint, which its ``trigger_id`` opens within three seconds."""

    value: str  # CHOSEN: what the form decides
    incident_id: str
    trigger_id: str = field(repr=False)
    answer_to: str = field(repr=False)


def form_asked(body: bytes) -> FormAsked | None:
    """What to open, for a delivery of interactivity that was verified; None where it asks for no form."""
    try:
        payload = json_object(_form(body).get("payload", "").encode("utf-8", "replace"))
    except UnreadablePayload:
        return None
    value, trigger = _pressed(payload, HINT), text_of(payload.get("trigger_id"))
    found = CHOSEN.fullmatch(value)
    return FormAsked(value, found["incident_id"], trigger, _address(payload)) if found and trigger else None


def _decided(payload: Payload) -> str:
    """The value of our button or modal; empty where it is neither."""
    if text_of(payload.get("type")) == "view_submission":
        view = payload.get("view")
        ours = _is_ours(_inside(view, "callback_id"))
        return _inside(view, "private_metadata").partition(" ")[0] if ours else ""
    return _pressed(payload, DECIDE)


def _pressed(payload: Payload, name: str) -> str:
    """The value of the button that was pressed, if it is of this name."""
    actions = payload.get("actions")
    ours = [a for a in (actions if isinstance(actions, list) else []) if _is_ours(_inside(a, "action_id"), name)]
    return _inside(ours[0], "value") if ours else ""


def _is_ours(found: str, name: str = DECIDE) -> bool:
    return found.partition(":")[0] == name


def _click(payload: Payload, decided: str) -> Click:
    """Raises UnreadablePayload."""
    found = CHOSEN.fullmatch(decided)
    if found is None:
        raise UnreadablePayload(
            "the button's value is not <incident>:<plan_revision>:<choice>, with :<steps> or without"
        )
    named = found.groupdict()
    steps = named.pop("steps") or ""
    try:
        return Click.model_validate(
            {
                **named,
                "user": _inside(payload.get("user"), "id")[:50],
                "steps": [int(n) for n in steps.split(",") if n],
                "hint": _typed(payload, "hint"),
                "note": _typed(payload, "note"),
                "answer_to": _address(payload),
            }
        )
    except ValidationError as error:
        raise UnreadablePayload(f"the button's value names no choice of ours: {error.errors()[0]['msg']}") from None


def _typed(payload: Payload, name: str) -> str:
    """What a person wrote into the field of this action_id, beside the button or in the modal."""
    view = payload.get("view")
    state = payload.get("state") or (view.get("state") if isinstance(view, dict) else None)
    blocks = state.get("values") if isinstance(state, dict) else None
    fields = [block for block in blocks.values() if isinstance(block, dict)] if isinstance(blocks, dict) else []
    written = (_inside(field.get(name), "value") for field in fields)
    return next(filter(None, written), "")[:MOST_WORDS]


def _address(payload: Payload) -> str:
    """Where to answer; empty where Slack gave none."""
    several = payload.get("response_urls")
    first = several[0] if isinstance(several, list) and several else None
    opened_at = _inside(payload.get("view"), "private_metadata").partition(" ")[2]
    return (text_of(payload.get("response_url")) or _inside(first, "response_url") or opened_at)[:1_000]


def _click_key(payload: Payload) -> str | None:
    """Type, workspace, person, moment and message; None where Slack sent no moment."""
    actions = payload.get("actions")
    listed = actions if isinstance(actions, list) else []
    moments = [_inside(action, "action_ts") for action in listed] + [text_of(payload.get("action_ts"))]
    moment = ",".join(filter(None, moments)) or text_of(payload.get("trigger_id"))
    if not moment:
        return None
    message = _inside(payload.get("container"), "message_ts") or _inside(payload.get("message"), "ts")
    who = (_inside(payload.get("team"), "id"), _inside(payload.get("user"), "id"))
    return f"{NAME}:action:{digest_key(text_of(payload.get('type')), *who, moment, message)}"


def _inside(value: JsonValue, key: str) -> str:
    return text_of(value.get(key)) if isinstance(value, dict) else ""
