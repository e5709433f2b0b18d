"""``autopilot connect datadog``: the webhook and its secret, by API v1 where there are keys, else to paste."""

import json
import re
import secrets

import httpx
from pydantic import JsonValue, SecretStr

from app.connect import ConnectError, Say, Watch, webhook_url
from app.intake._datadog_monitors import NAME
from app.intake.datadog import TEMPLATE
from app.intake.datadog import Settings as Datadog
from collectors.datadog import Settings as Account

TOKENS = "AUTOPILOT_DATADOG_WEBHOOK_TOKENS"
CONFIGURATION = "/api/v1/integration/webhooks/configuration"
STANDARD_NAME = "autopilot"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
NOTHING_CAME = (
    "Nothing came from Datadog. Check that a monitor's message mentions {mention} outside {{{{#is_alert}}}}, and press"
    " «Test Notifications» in it; that {url} is open to Datadog; that the custom variable {variable} is one of"
    f" {TOKENS}, and `autopilot serve` was started with it."
)


class DatadogConnector:
    """``app.connect.Connector``."""

    def __init__(
        self,
        settings: Datadog,
        account: Account,
        public_url: str,
        name: str,
        say: Say,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """``name`` is the webhook's. Raises ConnectError if Datadog takes no such name."""
        if not _NAME.fullmatch(name):
            raise ConnectError(f"--name {name!r}: a webhook's name has letters, digits, - and _ only")
        self.settings, self.account, self.name, self.say = settings, account, name, say
        self.url = webhook_url(public_url, "datadog")
        # two products in one organisation must not change each other's secret
        own = "" if name == STANDARD_NAME else f"_{name.upper().replace('-', '_')}"
        self.variable = f"AIOPS_TOKEN{own}"
        self.headers = json.dumps({"X-AIOps-Token": f"${self.variable}"})
        self.payload = json.dumps(TEMPLATE, indent=2)
        self._transport = transport

    async def set_up(self) -> None:
        """See app.connect.Connector."""
        if self.account.api_key and self.account.app_key:
            await self._configure(self.account.api_key, self.account.app_key)
        else:
            self._say_what_to_paste()
        self.say(
            f"\nMention @webhook-{self.name} in the message of every monitor, outside {{{{#is_alert}}}}: inside it, no"
            " recovery is told."
        )

    async def wait(self, watch: Watch) -> None:
        """See app.connect.Connector."""
        otherwise = NOTHING_CAME.format(mention=f"@webhook-{self.name}", url=self.url, variable=self.variable)
        await watch.tell_first([NAME], otherwise)

    # --- by hand ---

    def _say_what_to_paste(self) -> None:
        value = f"the first value of {TOKENS}"
        if not self.settings.webhook_tokens:
            value, line = "the same", _new_token()
            self.say(
                f"There is no token yet. Put this new one into .env, and start `autopilot serve` again:\n\n{line}\n"
            )
        self.say(
            "DATADOG_API_KEY and DATADOG_APP_KEY are not both set, so this is for you to paste. In Datadog,"
            " Integrations > Webhooks:\n\n"
            f"1. Custom variable, «Hide from view» ticked\n   Name:  {self.variable}\n   Value: {value}\n\n"
            f"2. New webhook\n   Name: {self.name}\n   URL:  {self.url}\n   Payload:\n{self.payload}\n\n"
            f"   Custom headers:\n{self.headers}"
        )

    # --- by API ---

    async def _configure(self, api_key: SecretStr, app_key: SecretStr) -> None:
        if not self.settings.webhook_tokens:  # a secret that is in use must not be replaced by one nobody knows
            raise ConnectError(
                "nothing is changed at Datadog yet, because there is no token. Put this new one into .env, start"
                f" `autopilot serve` again, and run this again:\n\n{_new_token()}"
            )
        token = self.settings.webhook_tokens[0].get_secret_value()
        keys = {"DD-API-KEY": api_key.get_secret_value(), "DD-APPLICATION-KEY": app_key.get_secret_value()}
        base = self.account.base_url or f"https://api.{self.account.site}"
        timeout = httpx.Timeout(15.0, connect=3.0)
        async with httpx.AsyncClient(base_url=base, headers=keys, timeout=timeout, transport=self._transport) as client:
            variable = await self._put(client, "custom-variables", self.variable, value=token, is_secret=True)
            webhook = await self._put(
                client,
                "webhooks",
                self.name,
                url=self.url,
                payload=self.payload,
                custom_headers=self.headers,
                encode_as="json",
            )
        self.say(f"Custom variable {self.variable}: {variable}.\nWebhook {self.name} to {self.url}: {webhook}.")

    async def _put(self, client: httpx.AsyncClient, kind: str, name: str, **fields: JsonValue) -> str:
        """Make it as it should be; «created» or «updated»."""
        collection = f"{CONFIGURATION}/{kind}"
        known = await self._send(client, "GET", f"{collection}/{name}") is not None
        if known:
            await self._send(client, "PUT", f"{collection}/{name}", fields)
        else:
            await self._send(client, "POST", collection, {"name": name, **fields})
        return "updated" if known else "created"

    async def _send(
        self, client: httpx.AsyncClient, method: str, path: str, body: dict[str, JsonValue] | None = None
    ) -> httpx.Response | None:
        """None for 404 to a GET. Raises ConnectError."""
        try:
            response = await client.request(method, path, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ConnectError(
                f"Datadog cannot be reached at {client.base_url}: {error or type(error).__name__}. Check DATADOG_SITE"
                " and the network."
            ) from None
        if method == "GET" and response.status_code == 404:
            return None
        if response.status_code in (401, 403):
            raise ConnectError(
                f"Datadog answered {response.status_code} to {method} {path}: DATADOG_APP_KEY needs the permission"
                f" manage_integrations; or the keys are of another site than DATADOG_SITE={self.account.site}."
            )
        if not response.is_success:
            raise ConnectError(f"Datadog answered {response.status_code} to {method} {path}: {_said(response, body)}")
        return response


def _said(response: httpx.Response, sent: dict[str, JsonValue] | None) -> str:
    """The beginning of the answer, which may repeat what was sent, but not the secret."""
    secret = (sent or {}).get("value")
    text = response.text.replace(str(secret), "…") if secret else response.text
    return text[:300]


def _new_token() -> str:
    return f"{TOKENS}={secrets.token_hex(24)}"
