"""Prometheus Alertmanager's webhook, version 4: one POST is a group of firing and resolved alerts."""

from pydantic import Field, JsonValue
from pydantic_settings import SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake._alert_groups import alert_of, delivery_key, members, readable
from app.intake.base import (
    Directory,
    Incoming,
    Parsed,
    Secrets,
    Sender,
    SenderSettings,
    UnreadablePayload,
    json_object,
    require_token,
    text_of,
)

NAME = "alertmanager"


class Settings(SenderSettings):
    """``AUTOPILOT_ALERTMANAGER_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_ALERTMANAGER_")

    tokens: Secrets = Field(
        default=(), description="Bearer tokens or Basic passwords of its `http_config`; two while you rotate"
    )


def create(clock: Clock, config: AutopilotYaml) -> "Alertmanager":
    """The sender."""
    return Alertmanager(Settings())


class Alertmanager(Sender):
    """``app.intake.base.Sender``. Alertmanager signs nothing: a shared secret is all there is."""

    name = NAME

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def verify(self, incoming: Incoming) -> None:
        """See app.intake.base.Sender."""
        require_token(incoming.headers, self.settings.tokens, "AUTOPILOT_ALERTMANAGER_TOKENS")

    def parse(self, incoming: Incoming, directory: Directory) -> Parsed:
        """See app.intake.base.Sender."""
        payload = json_object(incoming.body)
        group = members(payload)
        if group is None:
            raise UnreadablePayload("the payload has no list `alerts`; is this Alertmanager's webhook of version 4?")
        alerts, left_out = readable(group, lambda member: alert_of(member, NAME, NAME, directory))
        return Parsed(
            alerts=alerts,
            delivery_key=delivery_key(NAME, payload, group),
            left_out=left_out,
            note=truncated(payload),  # no dead letter: reading it again finds no more
        )


def truncated(payload: dict[str, JsonValue]) -> str:
    """A note on the alerts that Alertmanager itself did not send, for its setting ``max_alerts``."""
    left_out = text_of(payload.get("truncatedAlerts"))
    return "" if left_out in ("", "0") else f"Alertmanager left out {left_out[:20]} alerts (max_alerts)"
