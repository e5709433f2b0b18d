"""``autopilot connect slack``: the app's manifest, and where its values go."""

from urllib.parse import quote

import yaml

from app.connect import Say, Watch, webhook_url
from app.intake.slack import NAME, Settings
from app.notifiers._slack_api import SCOPES as TELLING
from app.notifiers._slack_api import Settings as NotifierSettings

SCOPES = (*TELLING, "app_mentions:read", "commands")
EVENTS = ("message.channels", "message.groups", "app_mention")
NOTHING_CAME = (
    "Nothing came from Slack. Check that {url} is open to Slack by https; that AUTOPILOT_SLACK_SIGNING_SECRETS is the"
    " app's signing secret and `autopilot serve` was started with it; then press «Retry» under Event Subscriptions, or"
    " mention the app in a channel it is in."
)


def manifest(public_url: str) -> str:
    """The Slack app that sends to us, as YAML."""
    return yaml.safe_dump(
        {
            "display_information": {
                "name": "Auto Pilot",
                "description": "From an alert to a verified remedy",
            },
            "features": {
                "bot_user": {"display_name": "autopilot", "always_online": True},
                "slash_commands": [
                    {
                        "command": "/rca",
                        "url": webhook_url(public_url, "slack/commands"),
                        "description": "Find the root cause of an incident",
                        "usage_hint": "payment-service 09:15",
                        "should_escape": False,
                    }
                ],
            },
            "oauth_config": {"scopes": {"bot": list(SCOPES)}},
            "settings": {
                "event_subscriptions": {
                    "request_url": webhook_url(public_url, "slack/events"),
                    "bot_events": list(EVENTS),
                },
                "interactivity": {"is_enabled": True, "request_url": webhook_url(public_url, "slack/actions")},
                "org_deploy_enabled": False,
                "socket_mode_enabled": False,
                "token_rotation_enabled": False,
            },
        },
        sort_keys=False,
        width=200,
    )


class SlackConnector:
    """``app.connect.Connector``. Slack has no API to make an app with, but for its own manifest page."""

    def __init__(self, settings: Settings, public_url: str, say: Say) -> None:
        self.settings, self.public_url, self.say = settings, public_url, say

    async def set_up(self) -> None:
        """See app.connect.Connector."""
        text = manifest(self.public_url)
        self.say(
            "1. Make the app: https://api.slack.com/apps > Create New App > From a manifest, and paste:\n\n"
            f"{text}\n"
            "   or open this, which holds the same:\n\n"
            f"https://api.slack.com/apps?new_app=1&manifest_yaml={quote(text, safe='')}\n\n"
            "2. Put these into .env, from the app's «Basic Information» and, once it is installed (4.), «OAuth &"
            " Permissions», and start `autopilot serve` again:\n\n"
            + "".join(f"{variable}=<{meaning}>{set_}\n" for variable, meaning, set_ in self._variables())
            + "\n3. Event Subscriptions > Request URL > Retry, until it says «Verified».\n"
            "4. Install App > Install to Workspace; then /invite @autopilot in every channel where alerts are posted,"
            " and in each that is the slack_channel of a team in autopilot.yaml.\n"
            "5. AUTOPILOT_NOTIFIERS=slack has incidents told there, with buttons for those whose member ids, U…, are"
            " `slack:` of a person under `operators:` in autopilot.yaml; `autopilot doctor` looks whether it can."
        )

    async def wait(self, watch: Watch) -> None:
        """See app.connect.Connector."""
        url = webhook_url(self.public_url, "slack/events")
        await watch.tell_first([NAME], NOTHING_CAME.format(url=url))

    def _variables(self) -> list[tuple[str, str, str]]:
        rows = (
            ("SIGNING_SECRETS", "Signing Secret", self.settings.signing_secrets),
            ("APP_ID", "App ID, A…", self.settings.app_id),
            ("BOT_TOKEN", "Bot User OAuth Token, xoxb-…", NotifierSettings().bot_token),
            (
                "RESPONDERS",
                "member ids, U…, of who may use /rca, with commas between them; * is everyone",
                self.settings.responders,
            ),
        )
        return [(f"AUTOPILOT_SLACK_{n}", meaning, "   # set already" if is_set else "") for n, meaning, is_set in rows]
