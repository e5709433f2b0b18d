"""PagerDuty, by Events API v2: it pages whoever is on call for a team, until somebody decides or the incident ends.

Our key is theirs (``dedup_key``): the same event twice is one alert, so nothing has to be looked up.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Literal

import httpx
from pydantic import BeforeValidator, Field, JsonValue, SecretStr, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake.base import SenderSettings
from app.notifiers._http import ANSWERS_WITHIN, post, safe
from app.notifiers.base import MENDED_AFTER_S, Notifier, Receipt, Telling, TryAgain, Undeliverable
from app.report import Report, happened
from app.store.outbox import ENDINGS

Action = Literal["trigger", "acknowledge", "resolve"]
STATE: Mapping[Action, str] = {"trigger": "triggered", "acknowledge": "acknowledged", "resolve": "resolved"}
MAX_SUMMARY = 1024  # characters, of Events API v2
MAX_TEXT = 2000  # of ours: a body may have 512 KB
PAGES = ("opened", "reopened", "severity", "escalation")
AGAIN = ("escalation", "severity")  # and needs_attention: worth a line also where it was paged before


def _pairs(value: object) -> object:
    """``name=key,name=key`` as a mapping."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(equals and name.strip() and key.strip() for name, equals, key in pairs):
        raise ValueError("write name=key for each, with commas between")
    return {name.strip(): key.strip() for name, _, key in pairs}


class Settings(SenderSettings):
    """``AUTOPILOT_PAGERDUTY_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_PAGERDUTY_")

    routing_keys: Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(_pairs)] = Field(
        default_factory=dict,
        description="Integration keys (Events API v2) by the name that teams: gives them: payments=R01…,platform=R02…",
    )
    base_url: str = Field(
        default="https://events.pagerduty.com", description="https://events.eu.pagerduty.com for accounts in the EU"
    )

    @field_validator("base_url")
    @classmethod
    def _is_safe(cls, url: str) -> str:
        return safe(url, "AUTOPILOT_PAGERDUTY_BASE_URL")


def create(clock: Clock, file: AutopilotYaml) -> Notifier:
    """The notifier. Raises ValueError if a team's key is missing."""
    settings = Settings()
    named = {team.pagerduty for team in file.teams.values() if team.pagerduty}
    if missing := sorted(named - settings.routing_keys.keys()):
        raise ValueError(
            f"AUTOPILOT_PAGERDUTY_ROUTING_KEYS has no {', '.join(missing)}, which teams: of autopilot.yaml names;"
            " add name=<integration key> of the PagerDuty service"
        )
    if not named:
        raise ValueError("no team of autopilot.yaml has `pagerduty:`, so nobody would be paged; name a key there")
    return PagerDuty(settings)


class PagerDuty:
    """``app.notifiers.base.Notifier``. A conversation's ``state`` is what PagerDuty was told last."""

    name = "pagerduty"

    def __init__(self, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._keys = settings.routing_keys
        self._url = f"{settings.base_url.rstrip('/')}/v2/enqueue"
        self._client = httpx.AsyncClient(timeout=ANSWERS_WITHIN, follow_redirects=False, transport=transport)

    async def deliver(self, telling: Telling) -> Receipt:
        """Trigger, acknowledge, resolve, or nothing. A key that is refused may be set right: that is tried again."""
        action = action_for(telling)
        if action is None:
            return Receipt(detail="nothing to say of it")
        key = self._keys.get(telling.target)
        if key is None:
            raise TryAgain(
                f"AUTOPILOT_PAGERDUTY_ROUTING_KEYS has no {telling.target!r}: add {telling.target}=<integration key>",
                MENDED_AFTER_S,
            )
        body = json.dumps({"routing_key": key.get_secret_value(), **_event(action, telling)}).encode()
        headers = {"content-type": "application/json"}
        status, answer = await post(self._client, self._url, body, headers, "PagerDuty")
        if status != 202:
            raise _refusal(status, answer, telling.target)
        return Receipt({"state": STATE[action], "dedup_key": dedup_key(telling)}, f"{STATE[action]} in PagerDuty")

    async def look_up(self, telling: Telling) -> Receipt | None:
        """Not needed: PagerDuty knows our key again."""
        return None

    async def check(self) -> None:
        """Any event would page somebody."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def dedup_key(telling: Telling) -> str:
    """One alert for each incident."""
    return f"aiops:{telling.incident_id}"[:255]


def action_for(telling: Telling) -> Action | None:
    """What PagerDuty is told of an event; None: nothing. What is over by now pages nobody."""
    event, report = telling.event, telling.report
    state, status = telling.conversation.get("state"), event.data.get("status") if event.kind == "status" else None
    if event.kind == "decision":
        return "acknowledge" if state == "triggered" else None
    if event.kind == "recovered" or status in ENDINGS or report.status in ENDINGS:
        # An attempt whose end is unknown may have paged. Who takes it by hand goes on: that page is theirs to end.
        paged = state in ("triggered", "acknowledged") or telling.maybe_sent
        return "resolve" if paged and not (report.by_hand and report.status == "closed") else None
    if event.kind in AGAIN or status == "needs_attention":
        return "trigger"
    if event.kind in PAGES or status == "awaiting_decision":
        return "trigger" if state in (None, "resolved") else None
    return None


def _event(action: Action, telling: Telling) -> dict[str, JsonValue]:
    said: dict[str, JsonValue] = {"event_action": action, "dedup_key": dedup_key(telling)}
    if action != "trigger":
        return said
    report = telling.report
    return said | {
        "client": "AIOps Auto Pilot",
        "client_url": telling.url,
        "links": [{"href": telling.url, "text": "Evidence, options, decision"}],
        "payload": {
            "summary": _line(f"{report.service}: {report.title}", MAX_SUMMARY),
            "source": _line(f"{report.environment}/{report.service}", MAX_SUMMARY),
            "severity": report.severity,
            "timestamp": report.occurred_at.isoformat(),
            "component": _component(report),
            "group": report.environment,
            "class": report.root_cause.category if report.root_cause else "",
            "custom_details": _details(telling),
        },
    }


def _component(report: Report) -> str:
    return (report.root_cause.component if report.root_cause else None) or report.service


def _details(telling: Telling) -> dict[str, JsonValue]:
    report, event = telling.report, telling.event
    message = _line(happened(report, event.kind, event.message), MAX_TEXT)
    told: dict[str, JsonValue] = {"why you": telling.why, "what happened": message}
    if cause := report.root_cause:
        told |= {"cause": _line(cause.title, MAX_TEXT), "confidence": cause.confidence}
    if report.plan_revision:
        told["options"] = [_line(f"{n}. {o.title}", MAX_TEXT) for n, o in enumerate(report.options, start=1)]
    return told | {"status": report.status, "incident": telling.incident_id}


def _line(text: str, most: int) -> str:
    """One line, cut."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _refusal(status: int, answer: bytes, target: str) -> TryAgain | Undeliverable:
    """What PagerDuty says of it. Its texts do not hold the key."""
    errors = _errors(answer)
    if status in (401, 403, 404) or any("routing" in error.lower() for error in errors):
        return TryAgain(
            f"PagerDuty refuses the key {target!r} of AUTOPILOT_PAGERDUTY_ROUTING_KEYS ({status}): set a valid one",
            MENDED_AFTER_S,
        )
    told = "; ".join(error[:200] for error in errors) or "without a reason"
    return Undeliverable(f"PagerDuty refuses it ({status}): {told}. Is {target!r} an Events API v2 key?")


def _errors(answer: bytes) -> list[str]:
    try:
        errors = json.loads(answer).get("errors", ())
    except (ValueError, AttributeError):
        return []
    return [error for error in errors if isinstance(error, str)] if isinstance(errors, list) else []
