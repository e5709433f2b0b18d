"""Any program: a signed POST for every event, as https://www.standardwebhooks.com has it.

The receiver checks ``webhook-signature`` over ``<webhook-id>.<webhook-timestamp>.<body>`` and takes a ``webhook-id``
that it knows for the same message: it is the same in every attempt.
"""

import json
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Self
from urllib.parse import urlsplit

import httpx
from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, SecretStr, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict
from standardwebhooks import Webhook

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake.base import SenderSettings, split_commas
from app.notifiers._http import ANSWERS_WITHIN, post, safe
from app.notifiers.base import MENDED_AFTER_S, Notifier, Receipt, Telling, TryAgain, Undeliverable
from app.report import happened
from graph.state import RootCause

MIN_SECRET = 24  # bytes, as the standard says
MAX_TEXT = 4_000  # characters of a text
MAX_DATA = 64_000  # characters of an event's data, as JSON
HOPELESS = (400, 405, 406, 409, 410, 413, 415, 422, 451)  # the same again will not be taken either


def _signs(secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for secret in secrets:
        try:
            key = b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if len(key) < MIN_SECRET:
            raise ValueError("this is no secret: write whsec_ and then what `openssl rand -base64 32` prints")
    return secrets


class Settings(SenderSettings):
    """``AUTOPILOT_WEBHOOK_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_WEBHOOK_")

    url: SecretStr | None = Field(
        default=None, description="Where every event is posted to, https; it may hold a secret, and is never shown"
    )
    secrets: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas), AfterValidator(_signs)] = Field(
        default=(),
        description="What signs it, whsec_…; to change it: old,new here, then new at the receiver, then new here",
    )

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.url is not None:
            safe(self.url.get_secret_value(), "AUTOPILOT_WEBHOOK_URL")
            if not self.secrets:
                raise ValueError("AUTOPILOT_WEBHOOK_SECRETS is not set: the receiver could not tell who posts")
        return self


def create(clock: Clock, file: AutopilotYaml) -> Notifier:
    """The notifier. Raises ValueError if it has no address."""
    settings = Settings()
    if settings.url is None:
        raise ValueError("set AUTOPILOT_WEBHOOK_URL and AUTOPILOT_WEBHOOK_SECRETS, or leave webhook out of the list")
    return WebhookNotifier(settings.url, settings.secrets)


class WebhookNotifier:
    """``app.notifiers.base.Notifier``."""

    name = "webhook"

    def __init__(
        self, url: SecretStr, secrets: Sequence[SecretStr], transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url
        self._signers = [Webhook(secret.get_secret_value()) for secret in secrets]
        self._client = httpx.AsyncClient(timeout=ANSWERS_WITHIN, follow_redirects=False, transport=transport)
        self._whom = urlsplit(url.get_secret_value()).hostname or "the webhook"

    async def deliver(self, telling: Telling) -> Receipt:
        """One POST."""
        body = json.dumps(_payload(telling), ensure_ascii=False)
        headers = {"content-type": "application/json", "user-agent": "AIOps-Auto-Pilot", **self._signed(telling, body)}
        status, _ = await post(self._client, self._url.get_secret_value(), body.encode(), headers, self._whom)
        if 200 <= status < 300:
            return Receipt(detail=f"{self._whom} took it")
        if status in HOPELESS or 300 <= status < 400:
            raise Undeliverable(self._refusal(status))
        raise TryAgain(self._refusal(status), MENDED_AFTER_S, of_target=False)  # it may be about this body alone

    def _signed(self, telling: Telling, body: str) -> dict[str, str]:
        at = datetime.now(UTC)
        signatures = (signer.sign(str(telling.id), at, body) for signer in self._signers)
        return {
            "webhook-id": str(telling.id),
            "webhook-timestamp": str(int(at.timestamp())),
            "webhook-signature": " ".join(signatures),
        }

    def _refusal(self, status: int) -> str:
        if status == 410:
            return f"{self._whom} wants no more of it (410): leave webhook out of AUTOPILOT_NOTIFIERS, or set a new URL"
        if 300 <= status < 400:
            return (
                f"{self._whom} redirects ({status}), which is not followed: set AUTOPILOT_WEBHOOK_URL to where it leads"
            )
        if status in (401, 403):
            return f"{self._whom} refuses it ({status}): it must know the secret of AUTOPILOT_WEBHOOK_SECRETS"
        return f"{self._whom} refuses it ({status}): look at what it says of webhook-id and body in its log"

    async def look_up(self, telling: Telling) -> Receipt | None:
        """Nobody can be asked; the receiver knows ``webhook-id`` again."""
        return None

    async def check(self) -> None:
        """A POST that means nothing would be taken for an event."""

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _payload(telling: Telling) -> dict[str, JsonValue]:
    event, report = telling.event, telling.report
    status = event.data.get("status") if event.kind == "status" else None
    return {
        "type": f"incident.{status or event.kind}",
        "timestamp": event.at.isoformat(),
        "data": {
            "incident_id": telling.incident_id,
            "url": telling.url,
            "title": report.title[:MAX_TEXT],
            "service": report.service,
            "environment": report.environment,
            "severity": report.severity,
            "status": report.status,
            "status_reason": report.status_reason[:MAX_TEXT],
            "language": telling.language,
            "event": {
                "id": event.id,
                "kind": event.kind,
                "node": event.node,
                "message": happened(report, event.kind, event.message)[:MAX_TEXT],
                "data": dict(event.data) if len(json.dumps(event.data)) <= MAX_DATA else {},
            },
            "root_cause": _cause(report.root_cause) if report.root_cause else None,
            "plan_revision": report.plan_revision,
            "options": [
                {"choice": str(number), "title": option.title[:MAX_TEXT], "risk": option.risk}
                for number, option in enumerate(report.options if report.plan_revision else (), start=1)
            ],
        },
    }


def _cause(cause: RootCause) -> dict[str, JsonValue]:
    return {
        "component": cause.component,
        "category": cause.category,
        "title": cause.title[:MAX_TEXT],
        "confidence": cause.confidence,
    }
