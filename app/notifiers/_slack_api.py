"""Slack's Web API: the client, its settings, and what Slack's errors mean for us."""

import logging
import re
import socket
import ssl
from collections.abc import Callable
from typing import Annotated, Any
from urllib.error import URLError

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import SettingsConfigDict
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web import SlackResponse

from app.intake.base import SenderSettings
from app.notifiers._http import safe
from app.notifiers.base import MENDED_AFTER_S, TryAgain, Undeliverable

SCOPES = ("chat:write", "files:write", "channels:history", "groups:history", "channels:read", "groups:read")
"""What the bot token needs to tell; what the app needs besides: app.connect_slack."""
CHANNEL_ID = re.compile(r"[CGD][A-Z0-9]+")  # names are in small letters
PAGE, MOST_PAGES = 200, 10  # of what Slack lists
UNHEARD = logging.getLogger(f"{__name__}.client")
UNHEARD.setLevel(logging.CRITICAL)  # what it tells of errors is in ours; for debugging it would tell all we post
RATE_LIMITED = ("ratelimited", "rate_limited")
PASSES = (
    *("internal_error", "fatal_error", "service_unavailable", "request_timeout", "team_added_to_org"),
    *("accesslimited", "external_channel_migrating"),
)
UNSURE = ("internal_error", "fatal_error", "service_unavailable", "request_timeout")  # some of it may have been done
GONE = ("message_not_found", "cant_update_message", "edit_window_closed")  # somebody deleted it, or may not edit it
NOT_SHOWN = ("invalid_blocks", "invalid_blocks_format", "msg_blocks_too_long", "msg_too_long", "no_text")
NEW_TOKEN = "install the Slack app anew and set AUTOPILOT_SLACK_BOT_TOKEN"  # noqa: S105  no token
REFUSALS = {
    "channel_not_found": "there is no such channel, or it is private and the app is not in it: correct slack_channel of"
    " the team in autopilot.yaml, or say «/invite @autopilot» in the channel",
    "not_in_channel": "the app is not in the channel: say «/invite @autopilot» there",
    "is_archived": "it is archived: unarchive it, or name another slack_channel of the team in autopilot.yaml",
    "invalid_auth": f"AUTOPILOT_SLACK_BOT_TOKEN is not valid: {NEW_TOKEN}",
    "not_authed": f"AUTOPILOT_SLACK_BOT_TOKEN is not set: {NEW_TOKEN}",
    "token_expired": f"AUTOPILOT_SLACK_BOT_TOKEN has expired: {NEW_TOKEN}; token rotation must be off",
    "token_revoked": f"AUTOPILOT_SLACK_BOT_TOKEN was revoked: {NEW_TOKEN}",
    "account_inactive": f"the app was removed from the workspace, or its user is inactive: {NEW_TOKEN}",
    "missing_scope": "the app lacks the scope {needed}: add it under «OAuth & Permissions» and reinstall the app",
    "no_permission": "the app may not post there: look at the workspace's restrictions of apps",
    "restricted_action": "the workspace does not let apps post there: ask who administers it",
    "restricted_action_read_only_channel": "the channel is read-only for apps: change that, or name another one",
    "restricted_action_thread_locked": "the thread is locked: unlock it",
    "ekm_access_denied": "who administers the workspace has suspended posting (EKM)",
    "org_login_required": "the workspace is being moved into an organisation: try later",
    "team_access_not_granted": "the app is not installed in that workspace: ask who administers the organisation",
}
"""What people can mend; everything else that Slack refuses is about what was sent."""


class CannotLook(TryAgain):
    """What stands in a channel cannot be read; posting may work all the same."""


def _an_address(url: str) -> str:
    return safe(url, "AUTOPILOT_SLACK_API_URL")


class Settings(SenderSettings):
    """``AUTOPILOT_SLACK_<NAME>``; the sender's are in app.intake.slack."""

    model_config = SettingsConfigDict(env_prefix="AUTOPILOT_SLACK_")

    bot_token: SecretStr | None = Field(
        default=None, description="The app's bot token (xoxb-…), under «OAuth & Permissions»; for the notifier slack"
    )
    api_url: Annotated[str, AfterValidator(_an_address)] = Field(
        default=WebClient.BASE_URL, description="Slack's Web API; GovSlack: https://slack-gov.com/api/"
    )
    timeout_s: int = Field(default=10, ge=1, le=60, description="How long one request to Slack may take")


def client_of(settings: Settings, timeout_s: int | None = None) -> WebClient:
    """Slack's own client; it waits no longer than told, and sends nothing twice by itself."""
    token = settings.bot_token.get_secret_value() if settings.bot_token else None
    return WebClient(
        token, base_url=settings.api_url, timeout=timeout_s or settings.timeout_s, retry_handlers=[], logger=UNHEARD
    )


# --- Slack's errors ---


class Refused(Undeliverable):
    """With Slack's own word for it."""

    def __init__(self, error: str, detail: str, reasons: str = "") -> None:
        super().__init__(detail)
        self.error, self.reasons = error, reasons


def call(method: Callable[..., SlackResponse], **arguments: Any) -> SlackResponse:
    """One request. Raises TryAgain, Undeliverable; no text of theirs holds the token."""
    try:
        return method(**arguments)
    except SlackApiError as error:
        raise _told(error.response) from None
    except SlackClientError as error:  # an upload that was not taken, or an address that is none
        raise Undeliverable(f"Slack: {type(error).__name__}: {str(error)[:200]}") from None
    except URLError as error:
        not_sent = isinstance(error.reason, ConnectionRefusedError | socket.gaierror | ssl.SSLError)
        raise TryAgain(f"Slack cannot be reached: {error.reason}", ambiguous=not not_sent) from None
    except (OSError, ValueError) as error:  # it was sent, and the answer did not come, or was cut off
        raise TryAgain(f"Slack did not answer: {type(error).__name__}", ambiguous=True) from None


def _told(response: SlackResponse) -> TryAgain | Undeliverable:
    if response.status_code == 429:
        return TryAgain("Slack asks to wait (429)", _retry_after(response))
    if response.status_code >= 500:
        return TryAgain(f"Slack answers {response.status_code}", ambiguous=True)
    data = response.data if isinstance(response.data, dict) else {}
    error = str(data.get("error") or "")
    if not error:  # a proxy's page, perhaps
        return TryAgain(f"Slack answers {response.status_code} with something else than JSON", ambiguous=True)
    if error in RATE_LIMITED:
        return TryAgain("Slack asks to wait (ratelimited)", _retry_after(response))
    if error in PASSES:
        return TryAgain(f"Slack answers {error}", ambiguous=error in UNSURE)
    if advice := REFUSALS.get(error, "").format(needed=data.get("needed", "it names")):
        of_target = error != "restricted_action_thread_locked"
        kind = CannotLook if error == "missing_scope" else TryAgain
        return kind(f"Slack refuses ({error}): {advice}", MENDED_AFTER_S, of_target=of_target)
    reasons = str((data.get("response_metadata") or {}).get("messages") or data.get("errors") or "")[:500]
    return Refused(error, f"Slack refuses: {error}", reasons)


def _retry_after(response: SlackResponse) -> float | None:
    """Seconds."""
    try:
        return float(headers_of(response).get("retry-after", ""))
    except ValueError:
        return None


def headers_of(response: SlackResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in dict(response.headers).items()}


def channel_id(client: WebClient, target: str) -> str:
    """Of a channel that autopilot.yaml names by its name: only posting takes names."""
    if CHANNEL_ID.fullmatch(target):
        return target
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        answer = call(client.conversations_list, limit=PAGE, cursor=cursor, types="public_channel,private_channel")
        for channel in answer["channels"]:
            if channel["name"] == target.removeprefix("#"):
                return str(channel["id"])
        cursor = (answer.get("response_metadata") or {}).get("next_cursor")
        if not cursor:
            break
    raise CannotLook(f"Slack: {target}: {REFUSALS['channel_not_found']}", MENDED_AFTER_S, of_target=False)
