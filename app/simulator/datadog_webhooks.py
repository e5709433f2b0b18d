"""Datadog's Webhooks integration: its configuration API, and the deliveries of the shop's monitors."""

import asyncio
import json
import re
from typing import Annotated, Literal

import httpx
from fastapi import APIRouter, HTTPException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.simulator.backdoor import BackDoor, Delivery
from app.simulator.datadog_monitors import Monitors
from app.simulator.datadog_notifications import DEFAULT_PAYLOAD, Notification, render, variables
from app.simulator.shop import Shop

Json = dict[str, object]

EVERY_S = 1.0  # wall time between two looks at the monitors
ANSWERS_WITHIN_S = 15.0
RETRY_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0)  # Datadog tries five more times; how far apart it does not say
_MENTION = re.compile(r"@webhook-([\w-]+)")


def _json_object(text: str | None) -> str | None:
    if text is not None and not isinstance(json.loads(text), dict):
        raise ValueError("custom_headers must be a JSON object")
    return text


Headers = Annotated[str | None, AfterValidator(_json_object)]


class Webhook(BaseModel):
    """One webhook. ``payload`` None: Datadog's default payload."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(pattern=r"^[\w-]+$")
    url: str
    payload: str | None = None
    custom_headers: Headers = None
    encode_as: Literal["json", "form"] = "json"


class _WebhookChange(BaseModel):
    name: str | None = None
    url: str | None = None
    payload: str | None = None
    custom_headers: Headers = None
    encode_as: Literal["json", "form"] | None = None


class CustomVariable(BaseModel):
    """A value that URL, headers and payload may name."""

    name: str = Field(pattern=r"^[A-Z0-9_]+$")
    value: str
    is_secret: bool = False

    def shown(self) -> Json:
        """As the API tells it: a secret's value is not told."""
        return self.model_dump(exclude={"value"} if self.is_secret else set())


class _VariableChange(BaseModel):
    name: str | None = Field(default=None, pattern=r"^[A-Z0-9_]+$")
    value: str | None = None
    is_secret: bool | None = None


class Webhooks:
    """The integration of one organisation, kept in memory."""

    def __init__(self, shop: Shop, monitors: Monitors, back_door: BackDoor) -> None:
        self._shop, self._monitors, self._back_door = shop, monitors, back_door
        self._webhooks: dict[str, tuple[Webhook, float]] = {}  # with the time it is told from, epoch seconds
        self._variables: dict[str, CustomVariable] = {}

    # --- configuration ---

    def router(self) -> APIRouter:
        """All routes, without ``/api``."""
        router = APIRouter(prefix="/v1/integration/webhooks/configuration")
        for path, add, show, change, drop in (
            ("/webhooks", self._add, self._show, self._change, self._drop),
            (
                "/custom-variables",
                self._add_variable,
                self._show_variable,
                self._change_variable,
                self._drop_variable,
            ),
        ):
            router.add_api_route(path, add, methods=["POST"], status_code=201)
            router.add_api_route(path + "/{name}", show, methods=["GET"])
            router.add_api_route(path + "/{name}", change, methods=["PUT"])
            router.add_api_route(path + "/{name}", drop, methods=["DELETE"])
        return router

    def _add(self, webhook: Webhook) -> Webhook:
        if webhook.name in self._webhooks:
            raise HTTPException(400, f"Webhook {webhook.name} already exists")
        self._webhooks[webhook.name] = webhook, self._shop.clock.now().timestamp()
        return webhook

    def _show(self, name: str) -> Webhook:
        return self._find(name)[0]

    def _change(self, name: str, change: _WebhookChange) -> Webhook:
        webhook, since = self._find(name)
        changed = webhook.model_copy(update=change.model_dump(exclude_unset=True))
        del self._webhooks[name]
        self._webhooks[changed.name] = changed, since
        return changed

    def _drop(self, name: str) -> None:
        self._find(name)
        del self._webhooks[name]

    def _find(self, name: str) -> tuple[Webhook, float]:
        if name not in self._webhooks:
            raise HTTPException(404, "Webhook not found")
        return self._webhooks[name]

    def _add_variable(self, variable: CustomVariable) -> Json:
        if variable.name in self._variables:
            raise HTTPException(400, f"Custom variable {variable.name} already exists")
        self._variables[variable.name] = variable
        return variable.shown()

    def _show_variable(self, name: str) -> Json:
        return self._find_variable(name).shown()

    def _change_variable(self, name: str, change: _VariableChange) -> Json:
        changed = self._find_variable(name).model_copy(update=change.model_dump(exclude_unset=True))
        del self._variables[name]
        self._variables[changed.name] = changed
        return changed.shown()

    def _drop_variable(self, name: str) -> None:
        self._find_variable(name)
        del self._variables[name]

    def _find_variable(self, name: str) -> CustomVariable:
        if name not in self._variables:
            raise HTTPException(404, "Custom variable not found")
        return self._variables[name]

    # --- deliveries ---

    async def deliver(self) -> None:
        """Look at the monitors every second and send what they tell, until cancelled."""
        told = self._shop.clock.now().timestamp()
        client = httpx.AsyncClient(timeout=ANSWERS_WITHIN_S, trust_env=False)
        async with client, asyncio.TaskGroup() as sending:
            while True:
                due, told = await asyncio.to_thread(self._due, told)
                for webhook, notification in due:
                    sending.create_task(self._send(client, webhook, notification))
                await asyncio.sleep(EVERY_S)

    def _due(self, after: float) -> tuple[list[tuple[Webhook, Notification]], float]:
        """What has to be sent, and the time up to which that is all. With no webhook nothing is looked at."""
        webhooks = list(self._webhooks.values())
        if not webhooks:
            return [], self._shop.clock.now().timestamp()
        with self._shop.live() as now:
            notifications = self._monitors.notifications(after, now)
        return [
            (webhook, notification)
            for notification in notifications
            for webhook, since in webhooks
            if notification.at > since and webhook.name in _MENTION.findall(notification.monitor.message)
        ], now

    async def _send(self, client: httpx.AsyncClient, webhook: Webhook, notification: Notification) -> None:
        """Tried again after a 5xx or a lost connection, and after nothing else."""
        delivery = Delivery(webhook.name, notification.monitor.id, notification.transition, notification.scope)
        self._back_door.delivered.append(delivery)
        for pause_s in (*RETRY_PAUSES_S, None):
            delivery.attempts += 1
            try:
                delivery.status = (await client.send(self._request(client, webhook, notification))).status_code
            except (httpx.HTTPError, httpx.InvalidURL):
                delivery.status = 0
            if pause_s is None or 0 < delivery.status < 500:
                return
            await asyncio.sleep(pause_s)

    def _request(self, client: httpx.AsyncClient, webhook: Webhook, notification: Notification) -> httpx.Request:
        values = variables(notification) | {name: v.value for name, v in self._variables.items()}
        body = render(webhook.payload or DEFAULT_PAYLOAD, values, in_json=True)
        custom = json.loads(render(webhook.custom_headers or "{}", values, in_json=True))
        headers = httpx.Headers({name: str(value) for name, value in custom.items()}, encoding="utf-8")
        url = render(webhook.url, values, in_json=False)
        if webhook.encode_as == "form":
            return client.build_request("POST", url, data={"payload": body}, headers=headers)
        headers.setdefault("Content-Type", "application/json")
        return client.build_request("POST", url, content=body, headers=headers)
