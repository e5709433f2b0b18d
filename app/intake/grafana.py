"""Grafana Alerting's webhook: Alertmanager's envelope with more in it, and a signature if one is set up."""

import hmac
import re
import time
from collections.abc import Mapping
from hashlib import sha256
from urllib.parse import urljoin

from pydantic import Field, JsonValue
from pydantic_settings import SettingsConfigDict

from app.catalogue import AutopilotYaml
from app.clock import Clock
from app.intake._alert_groups import Member, alert_of, delivery_key, link, members, readable
from app.intake.base import (
    Directory,
    Incoming,
    Parsed,
    Secrets,
    Sender,
    SenderSettings,
    Unauthentic,
    UnreadablePayload,
    indexable,
    json_object,
    require_token,
    text_of,
)
from graph.state import Alert

NAME = "grafana"
TOLERANCE_S = 300
RULE_LINK = re.compile(r"/alerting/(?:grafana/)?([\w-]{1,100})/(?:view|edit)\b")
SPECIAL = {"DatasourceNoData": "no data", "DatasourceError": "the data source answers with an error"}


class Settings(SenderSettings):
    """``AUTOPILOT_GRAFANA_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_GRAFANA_")

    tokens: Secrets = Field(
        default=(), description="Bearer tokens or Basic passwords of the contact point; two while you rotate"
    )
    hmac_secrets: Secrets = Field(
        default=(), description="Secrets of the contact point's HMAC signature; where set, a token is no longer enough"
    )
    signature_header: str = Field(default="X-Grafana-Alerting-Signature", description="As in the contact point")
    timestamp_header: str = Field(
        default="", description="As in the contact point; where set, a signature older than five minutes is refused"
    )


def create(clock: Clock, config: AutopilotYaml) -> "Grafana":
    """The sender."""
    return Grafana(Settings())


class Grafana(Sender):
    """``app.intake.base.Sender``."""

    name = NAME

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    async def verify(self, incoming: Incoming) -> None:
        """See app.intake.base.Sender."""
        if self.settings.hmac_secrets:
            self._require_signature(incoming)
        else:
            require_token(incoming.headers, self.settings.tokens, "AUTOPILOT_GRAFANA_TOKENS")

    def _require_signature(self, incoming: Incoming) -> None:
        signed = self._timestamp(incoming) + incoming.body
        sent = incoming.headers.get(self.settings.signature_header.lower(), "").strip().encode("utf-8", "replace")
        expected = [
            hmac.new(secret.get_secret_value().encode(), signed, sha256).hexdigest().encode()
            for secret in self.settings.hmac_secrets
        ]
        matches = [hmac.compare_digest(sent, e) for e in expected]
        if not any(matches):
            raise Unauthentic(
                f"{self.settings.signature_header} is missing or is no signature with one of"
                " AUTOPILOT_GRAFANA_HMAC_SECRETS. Check secret and timestamp header of the contact point."
            )

    def _timestamp(self, incoming: Incoming) -> bytes:
        """What is signed before the body; empty where the contact point sends no time."""
        header = self.settings.timestamp_header
        if not header:
            return b""
        sent = incoming.headers.get(header.lower(), "").strip()
        if not re.fullmatch(r"[0-9]{1,12}", sent):
            raise Unauthentic(f"{header} is missing or holds no epoch seconds. Set it in the contact point.")
        # The signature's time is the sender's wall clock, whatever time the operated world has.
        if abs(time.time() - int(sent)) > TOLERANCE_S:
            raise Unauthentic(f"{header} is more than {TOLERANCE_S} s away from our clock: a replay, or a wrong clock.")
        return f"{sent}:".encode()

    def parse(self, incoming: Incoming, directory: Directory) -> Parsed:
        """See app.intake.base.Sender."""
        payload = json_object(incoming.body)
        group = members(payload)
        if group is None:
            raise UnreadablePayload(
                "the payload has no list `alerts`: the contact point has a custom payload. Remove it there, or describe"
                " it under `webhooks:` in autopilot.yaml and send it to /webhooks/generic/<name>."
            )
        alerts, left_out = readable(group, lambda member: _alert(member, payload, directory))
        return Parsed(alerts=alerts, delivery_key=delivery_key(_scope(payload, {}), payload, group), left_out=left_out)


def _scope(payload: Mapping[str, JsonValue], alert: Mapping[str, JsonValue]) -> str:
    """Organisations of one Grafana have nothing in common but the server."""
    org = text_of(payload.get("orgId")) or text_of(alert.get("orgId")) or "1"
    return f"{NAME}:{org[:50]}"


def _alert(member: Member, payload: Mapping[str, JsonValue], directory: Directory) -> Alert:
    scope = _scope(payload, member.raw)
    alert = alert_of(member, NAME, scope, directory)
    alertname = member.labels.get("alertname", "")
    said = "\n".join(filter(None, (alert.text, text_of(member.raw.get("valueString")))))
    return alert.model_copy(
        update={
            "rule": indexable(f"{scope}:{uid}") if (uid := _rule_uid(member)) else alert.rule,
            "title": f"{member.name[:400]}: {SPECIAL[alertname]}" if alertname in SPECIAL else alert.title,
            "transition": "no_data" if _is_without_data(member, alertname) else alert.transition,
            "url": link(_links(member, text_of(payload.get("externalURL")))) or alert.url,
            "text": said[:4000],
        }
    )


def _is_without_data(member: Member, alertname: str) -> bool:
    """Told by an alert of its own, or as reason of the rule's alert, by the rule's setting for no data."""
    reason = member.annotations.get("grafana_state_reason", "")
    return not member.resolved and (alertname == "DatasourceNoData" or reason == "NoData")


def _rule_uid(member: Member) -> str:
    """The same for all alerts of a rule, after a new name too; most often only the link has it."""
    in_link = RULE_LINK.search(text_of(member.raw.get("generatorURL")))
    return member.labels.get("__alert_rule_uid__", "") or (in_link[1] if in_link else "")


def _links(member: Member, external_url: str) -> list[str]:
    """The panel before the dashboard before the rule; Grafana may leave its own address away."""
    sent = [text_of(member.raw.get(key)) for key in ("panelURL", "dashboardURL", "generatorURL")]
    return [_absolute(external_url, url) for url in sent if url]


def _absolute(base: str, url: str) -> str:
    try:
        return urljoin(base, url)
    except ValueError:  # a host such as [
        return ""
