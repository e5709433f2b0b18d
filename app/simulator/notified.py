"""How the product is set up to tell the people of the shop: the environment of its notifiers, and where clicks go."""

import httpx

from app.simulator.jira import API_TOKEN, EMAIL
from app.simulator.slack_workspace import InstalledApp
from app.simulator.webhook_sink import SECRET

PAGED = ("web", "checkout", "search", "payments", "platform")


def settings(shop_url: str) -> dict[str, str]:
    """Environment of ``autopilot serve`` and ``worker``: who is told is said by AUTOPILOT_NOTIFIERS."""
    app = InstalledApp()
    return {
        "AUTOPILOT_SLACK_API_URL": f"{shop_url}/slack/api/",
        "AUTOPILOT_SLACK_BOT_TOKEN": app.token,
        "AUTOPILOT_SLACK_APP_ID": app.app_id,
        "AUTOPILOT_SLACK_SIGNING_SECRETS": app.signing_secret,
        "AUTOPILOT_SLACK_RESPONSE_URL_BASE": shop_url,
        "AUTOPILOT_JIRA_URL": f"{shop_url}/jira",
        "AUTOPILOT_JIRA_EMAIL": EMAIL,
        "AUTOPILOT_JIRA_API_TOKEN": API_TOKEN,
        "AUTOPILOT_PAGERDUTY_BASE_URL": f"{shop_url}/pagerduty",
        "AUTOPILOT_PAGERDUTY_ROUTING_KEYS": ",".join(f"{team}={routing_key(team)}" for team in PAGED),
        "AUTOPILOT_WEBHOOK_URL": f"{shop_url}/_shop/webhook",
        "AUTOPILOT_WEBHOOK_SECRETS": SECRET,
    }


def routing_key(team: str) -> str:
    """Of a team's service at PagerDuty: 32 letters and digits."""
    return f"R{team}".ljust(32, "0")


def send_clicks_to(product_url: str, shop_url: str) -> None:
    """From now on the shop's Slack tells the product what people press. Raises httpx.HTTPError."""
    change = {"interactivity_url": f"{product_url}/webhooks/slack/actions"}
    httpx.patch(f"{shop_url}/_shop/slack/app", json=change, timeout=10).raise_for_status()
