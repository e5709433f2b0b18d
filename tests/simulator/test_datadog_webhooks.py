"""The shop's monitors call by themselves: Datadog's Webhooks integration, against a receiver on a port of its own."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3
import httpx
import pytest
from botocore.config import Config
from datadog_api_client.configuration import Configuration
from datadog_api_client.model_utils import validate_and_convert_types
from datadog_api_client.v1.model.monitor import Monitor
from datadog_api_client.v1.model.webhooks_integration import WebhooksIntegration
from datadog_api_client.v1.model.webhooks_integration_custom_variable_response import (
    WebhooksIntegrationCustomVariableResponse,
)
from pydantic import SecretStr

import app.simulator
from app.catalogue import load
from app.clock import VirtualClock
from app.intake._datadog_monitors import MonitorReader
from app.intake.base import Directory, Incoming
from app.intake.datadog import TEMPLATE, Datadog, Settings
from app.simulator.scenarios import SCENARIOS
from collectors.datadog import Settings as Account
from graph.state import Alert
from tests import processes

from .conftest import Served

Serve = Callable[[str, float], Served]
Client = Callable[[str], httpx.Client]
WEBHOOKS = "/api/v1/integration/webhooks/configuration/webhooks"
VARIABLES = "/api/v1/integration/webhooks/configuration/custom-variables"
TOKEN = "a-token-of-the-webhook"
CATALOGUE = load(Path(app.simulator.__file__).with_name("autopilot.yaml")).catalogue()


@dataclass
class Receiver:
    """Keeps what is posted to it. ``answers`` are given first, then 202."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in list(self.got)]

    def wait_for(self, count: int, seconds: float = 20) -> list[dict[str, Any]]:
        processes.wait_until(lambda: len(self.got) >= count, f"{count} deliveries; {len(self.got)} came", seconds)
        return self.payloads()


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(receiver.answers.pop(0) if receiver.answers else 202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}/webhooks/datadog"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield receiver
        finally:
            server.shutdown()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


def configure(client: httpx.Client, url: str, **changes: object) -> httpx.Response:
    """A webhook as our manual tells to make it."""
    variable = {"name": "AIOPS_TOKEN", "value": TOKEN, "is_secret": True}
    assert client.post(VARIABLES, json=variable).status_code in (201, 400)
    webhook = {
        "name": "autopilot",
        "url": url,
        "payload": json.dumps(TEMPLATE),
        "custom_headers": json.dumps({"X-AIOps-Token": "$AIOPS_TOKEN"}),
        "encode_as": "json",
    }
    return client.post(WEBHOOKS, json=webhook | changes)


def as_datadogs(model: type, answer: httpx.Response) -> Any:
    """The answer as Datadog's own client reads it."""
    assert answer.is_success, answer.text
    return validate_and_convert_types(answer.json(), (model,), ["answer"], True, True, Configuration())


def settle(seconds: float = 2.5) -> None:
    """Long enough for the shop to have looked at its monitors twice."""
    time.sleep(seconds)


# --- from a real process to the alert ---


def alert_of(headers: dict[str, str], body: bytes) -> Alert:
    (alert,) = Datadog(Settings()).parse(Incoming(headers, body), Directory(CATALOGUE)).alerts
    return alert


@pytest.fixture
def broken_shop(tmp_path: Path) -> Iterator[str]:
    """A process of its own: checkout's bad release is out, and fast time goes on."""
    scenario, port = SCENARIOS["bad-deploy"], processes.free_port()
    clock = VirtualClock(scenario.origin, time.time(), 90)
    shop = processes.spawn(processes.run_shop, tmp_path / "shop.log", {}, scenario.name, str(clock), port)
    url = f"http://127.0.0.1:{port}"
    try:
        processes.wait_until(lambda: processes.answers(f"{url}/_shop/state"), "the shop")
        yield url
    finally:
        processes.kill(shop)


async def test_the_shop_calls_when_it_is_repaired_and_when_it_breaks_again(
    broken_shop: str, receiver: Receiver, datadog: Client
) -> None:
    monitor = str(SCENARIOS["bad-deploy"].monitor.id)
    account = Account(api_key=SecretStr("a"), app_key=SecretStr("b"), base_url=broken_shop)
    sender = Datadog(Settings(webhook_tokens=(SecretStr(TOKEN),)), MonitorReader(account))
    client = datadog(broken_shop)
    assert configure(client, receiver.url).status_code == 201

    deploy(broken_shop, "checkout:73")
    receiver.wait_for(1)
    recovered = alert_of(*receiver.got[0])
    assert (recovered.service, recovered.transition) == ("checkout", "resolved")
    missed = await sender.missed(Directory(CATALOGUE))
    assert missed is not None
    assert not missed.alerts
    one = await sender.perform({"monitor_id": monitor}, Directory(CATALOGUE))
    assert one.note == f"monitor {monitor} is OK at Datadog: nothing to do"

    deploy(broken_shop, "checkout:74")
    receiver.wait_for(2)
    await sender.verify(Incoming(*receiver.got[1]))
    told = alert_of(*receiver.got[1])
    assert (told.service, told.transition, told.severity) == ("checkout", "firing", "critical")
    assert told.fingerprint == recovered.fingerprint
    assert told.cycle_key != recovered.cycle_key
    assert told.changed_at
    assert recovered.changed_at
    assert told.changed_at > recovered.changed_at
    missed = await sender.missed(Directory(CATALOGUE))
    one = await sender.perform({"monitor_id": monitor}, Directory(CATALOGUE))
    assert missed is not None
    assert missed.alerts == one.alerts
    (asked,) = missed.alerts
    assert (asked.fingerprint, asked.rule, asked.service) == (told.fingerprint, told.rule, told.service)
    assert (asked.changed_at, asked.title, asked.resources) == (told.changed_at, told.title, told.resources)

    deploy(broken_shop, "checkout:73")
    receiver.wait_for(3)
    after = alert_of(*receiver.got[2])
    assert (after.transition, after.cycle_key) == ("resolved", told.cycle_key)
    deliveries = client.get("/_shop/deliveries").json()
    assert [d["transition"] for d in deliveries] == ["Recovered", "Triggered", "Recovered"]
    await sender.aclose()


def deploy(url: str, definition: str) -> None:
    """One task definition of checkout, by AWS's own client."""
    ecs = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1").client(
        "ecs", endpoint_url=url, config=Config(retries={"total_max_attempts": 1}, connect_timeout=3, read_timeout=10)
    )
    ecs.update_service(cluster="shop", service="checkout", taskDefinition=definition)


# --- deliveries, with a clock in hand ---


def test_after_a_5xx_it_is_tried_again_and_after_a_4xx_it_is_not(
    serve: Serve, datadog: Client, receiver: Receiver
) -> None:
    shop = serve("black-friday", -1)
    client = datadog(shop.url)
    configure(client, receiver.url)
    receiver.answers = [503, 500]
    shop.advance(3)
    tries = receiver.wait_for(3)
    assert tries[0] == tries[1] == tries[2]
    assert tries[0]["transition"] == "Triggered"
    receiver.answers = [429]
    shop.advance(61)
    assert receiver.wait_for(4)[3]["transition"] == "Renotify"
    settle()
    assert len(receiver.got) == 4
    found = [(d["transition"], d["attempts"], d["status"]) for d in httpx.get(f"{shop.url}/_shop/deliveries").json()]
    assert found == [("Triggered", 3, 202), ("Renotify", 1, 429)]


def test_a_reminder_belongs_to_its_cycle(serve: Serve, datadog: Client, receiver: Receiver) -> None:
    shop = serve("black-friday", -1)
    configure(datadog(shop.url), receiver.url)
    shop.advance(65)
    # two deliveries that are due at once are two requests at once: which comes first is nobody's promise
    first, reminder = sorted(receiver.wait_for(2), key=lambda told: int(told["last_updated"]))
    assert (first["transition"], reminder["transition"]) == ("Triggered", "Renotify")
    assert first["cycle_key"] == reminder["cycle_key"]
    assert first["event_id"] != reminder["event_id"]
    assert int(reminder["last_updated"]) - int(first["last_updated"]) == 3_600_000


def test_the_default_payload_in_a_form_from_a_url_with_a_password(
    serve: Serve, datadog: Client, receiver: Receiver
) -> None:
    shop = serve("black-friday", -1)
    url = receiver.url.replace("http://", "http://datadog:$AIOPS_TOKEN@")
    configure(datadog(shop.url), url, payload=None, custom_headers=None, encode_as="form")
    shop.advance(3)
    processes.wait_until(lambda: bool(receiver.got), "a delivery")
    headers, body = receiver.got[0]
    assert headers["content-type"] == "application/x-www-form-urlencoded"
    assert headers["authorization"].startswith("Basic ")
    payload = json.loads(parse_qs(body.decode())["payload"][0])
    assert set(payload) == {"body", "last_updated", "event_type", "title", "date", "org", "id"}
    assert payload["title"] == "[Triggered on {service:payment-service}] payment-service error rate is high"
    alert = alert_of(headers, body)
    assert (alert.service, alert.transition) == ("payment-service", "firing")
    assert alert.rule == f"datadog:monitor:{SCENARIOS['black-friday'].monitor.id}"


def test_who_is_not_mentioned_or_comes_too_late_is_not_called(
    serve: Serve, datadog: Client, receiver: Receiver
) -> None:
    shop = serve("black-friday", -1)
    client = datadog(shop.url)
    configure(client, receiver.url, name="somebody-else")
    shop.advance(3)
    settle()
    configure(client, receiver.url)
    settle()
    assert receiver.got == []
    assert client.delete(f"{WEBHOOKS}/autopilot").status_code == 200
    shop.advance(65)
    settle()
    assert receiver.got == []


def test_a_receiver_that_is_not_there_is_tried_again(serve: Serve, datadog: Client) -> None:
    shop = serve("black-friday", -1)
    configure(datadog(shop.url), f"http://127.0.0.1:{processes.free_port()}/")
    shop.advance(3)

    def tried() -> bool:
        deliveries = httpx.get(f"{shop.url}/_shop/deliveries").json()
        return bool(deliveries) and deliveries[0]["attempts"] >= 3 and deliveries[0]["status"] == 0

    processes.wait_until(tried, "three attempts")


# --- the integration's configuration ---


def test_webhooks_are_configured_as_by_datadogs_client(serve: Serve, datadog: Client) -> None:
    client = datadog(serve("black-friday", -1).url)
    made = as_datadogs(WebhooksIntegration, configure(client, "https://autopilot.example.com/webhooks/datadog"))
    assert (made.name, str(made.encode_as)) == ("autopilot", "json")
    assert configure(client, "https://x.example.com").status_code == 400
    changed = client.put(f"{WEBHOOKS}/autopilot", json={"payload": None, "encode_as": "form"})
    assert str(as_datadogs(WebhooksIntegration, changed).encode_as) == "form"
    shown = as_datadogs(WebhooksIntegration, client.get(f"{WEBHOOKS}/autopilot"))
    assert (shown.payload, shown.url) == (None, "https://autopilot.example.com/webhooks/datadog")
    assert client.delete(f"{WEBHOOKS}/autopilot").status_code == 200
    assert client.get(f"{WEBHOOKS}/autopilot").status_code == 404
    assert client.put(f"{WEBHOOKS}/autopilot", json={}).status_code == 404
    assert configure(client, "https://x.example.com", custom_headers="no JSON").status_code == 400
    assert configure(client, "https://x.example.com", custom_headers="[]").status_code == 400
    assert client.post(WEBHOOKS, json={}, headers={"DD-API-KEY": ""}).status_code == 403


def test_a_secret_variable_is_never_shown(serve: Serve, datadog: Client) -> None:
    client = datadog(serve("black-friday", -1).url)
    secret = {"name": "AIOPS_TOKEN", "value": TOKEN, "is_secret": True}
    answers = [client.post(VARIABLES, json=secret), client.get(f"{VARIABLES}/AIOPS_TOKEN")]
    answers.append(client.put(f"{VARIABLES}/AIOPS_TOKEN", json={"value": TOKEN + "2"}))
    for answer in answers:
        assert as_datadogs(WebhooksIntegrationCustomVariableResponse, answer).is_secret
        assert TOKEN not in answer.text
    open_one = {"name": "TEAM", "value": "payments", "is_secret": False}
    assert as_datadogs(WebhooksIntegrationCustomVariableResponse, client.post(VARIABLES, json=open_one)).value
    assert client.post(VARIABLES, json=open_one).status_code == 400
    assert client.post(VARIABLES, json=open_one | {"name": "lower"}).status_code == 400
    assert client.delete(f"{VARIABLES}/TEAM").status_code == 200
    assert client.get(f"{VARIABLES}/TEAM").status_code == 404


# --- monitors ---


def test_monitors_follow_the_shops_metrics(serve: Serve, datadog: Client) -> None:
    shop = serve("black-friday", -1)
    client = datadog(shop.url)
    path = f"/api/v1/monitor/{SCENARIOS['black-friday'].monitor.id}"
    assert client.get(path).json()["overall_state"] == "OK"
    shop.advance(6)
    found = client.get(path, params={"group_states": "all"}).json()
    assert found["overall_state"] == "Alert"
    (group,) = found["state"]["groups"].values()
    triggered = datetime.fromtimestamp(group["last_triggered_ts"], UTC)
    assert timedelta(0) <= triggered - SCENARIOS["black-friday"].occurred_at < timedelta(minutes=1)
    shop.advance(10)
    again = client.get(path, params={"group_states": "alert"}).json()["state"]["groups"]["*"]
    assert again["last_triggered_ts"] == group["last_triggered_ts"]


def test_all_monitors_in_pages_and_by_the_state_of_their_groups(serve: Serve, datadog: Client) -> None:
    client = datadog(serve("black-friday", 5).url)
    whole = client.get("/api/v1/monitor", params={"group_states": "all"})
    for row in whole.json():
        validate_and_convert_types(row, (Monitor,), ["answer"], True, True, Configuration())
    states = {row["name"]: row["overall_state"] for row in whole.json()}
    assert states["payment-service error rate is high"] == states["reporting: memory of a host is high"] == "Alert"
    assert states["coupon-import failed"] == "No Data"
    assert list(states.values()).count("OK") == len(states) - 3
    pages = [client.get("/api/v1/monitor", params={"page": n, "page_size": 3}).json() for n in range(4)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [row["id"] for page in pages for row in page] == [row["id"] for row in whole.json()]
    assert not any(row["state"]["groups"] for page in pages for row in page)
    alerting = client.get("/api/v1/monitor", params={"group_states": "alert,warn,no data"}).json()
    groups = {row["name"]: list(row["state"]["groups"]) for row in alerting if row["state"]["groups"]}
    assert groups.pop("reporting: memory of a host is high")[0].startswith("host:ip-")
    assert groups == {"payment-service error rate is high": ["*"], "coupon-import failed": ["*"]}
