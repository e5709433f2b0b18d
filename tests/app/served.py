"""The product behind a real HTTP port, in a thread of the test's own process.

So a test may give senders what a process of its own could not have: secrets without an environment, an Amazon that
signs with a key of the test.
"""

import asyncio
import hashlib
import hmac
import json
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import httpx
import psycopg
import uvicorn
from cryptography.hazmat.primitives.asymmetric import rsa
from psycopg.rows import dict_row
from pydantic import SecretStr

from app.catalogue import load
from app.clock import SystemClock
from app.intake import alertmanager, cloudwatch, datadog, eventbridge, generic, grafana, slack
from app.intake.base import Sender
from app.main import create_app
from app.settings import Settings
from app.wiring import assembled
from app.worker import work
from graph.state import Role
from tests.app.intake.test_sns import NOTIFICATION, Amazon
from tests.app.intake.test_sns import TOPIC as TOPIC
from tests.conftest import make_key

SECRET = "a-secret-of-every-sender"
SECRETS = (SecretStr(SECRET),)
CATALOGUE = """
environment: production
services:
  payment-service:
    depends_on: [orders-db]
    ecs: {cluster: shop, service: payment}
    resources: ["QueueName:orders.fifo", "InstanceId:i-12345678901234567"]
  orders-db: {}
  reporting: {}
  checkout: {}
webhooks:
  checks:
    alerts: "[?check]"
    title: check
    key: check
    state: "up && 'ok' || 'firing'"
    occurred_at: at
    resources: {host: host}
"""


@dataclass
class Served:
    """The product at a port; ``http`` calls with an admin's key, ``stranger`` with none."""

    url: str
    database_url: str
    config: Path
    amazon: Amazon
    http: httpx.Client
    stranger: httpx.Client
    database: psycopg.Connection[dict[str, Any]]
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, role: Role) -> httpx.Client:
        """A client with a key of this role; closed with the server."""
        key = make_key(self.database_url, role, f"a-{role}")
        made = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=20)
        self.clients.append(made)
        return made

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What is in the database."""
        return self.database.execute(query.encode(), values).fetchall()

    def count(self, table: str) -> int:
        """How many rows a table has."""
        found: int = self.rows(f"select count(*) as n from {table}")[0]["n"]
        return found

    def send(self, sender: str, body: object, *, part: str = "", **headers: str) -> httpx.Response:
        """An authentic delivery."""
        request = signed(sender, body, self.amazon)
        path = f"/webhooks/{sender}" + (f"/{part}" if part else "")
        return self.stranger.post(path, content=request[1], headers={**request[0], **headers})


def signed(sender: str, body: object, amazon: Amazon) -> tuple[dict[str, str], bytes]:
    """Headers and bytes, as each sender proves that it is itself. SNS takes the bytes as the message it carries."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    match sender:
        case "cloudwatch":
            return {}, raw if b'"Signature"' in raw else json.dumps(
                sns(raw.decode("utf-8", "replace"), amazon)
            ).encode()
        case "slack":
            return slack_headers(raw), raw
        case "grafana":
            return {"x-grafana-alerting-signature": hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()}, raw
        case "eventbridge":
            return {"x-api-key": SECRET}, raw
        case "alertmanager":
            return {"authorization": "Basic " + b64encode(f"prometheus:{SECRET}".encode()).decode()}, raw
    return {"x-aiops-token": SECRET}, raw


def sns(message: str, amazon: Amazon, **changes: str) -> Mapping[str, str]:
    """SNS's envelope around a message, signed."""
    return amazon.sign({**NOTIFICATION, "MessageId": str(uuid4()), "Message": message, **changes})


def slack_headers(body: bytes, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    """Slack's proof; ``at`` is epoch seconds."""
    timestamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), b"v0:" + timestamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"x-slack-request-timestamp": timestamp, "x-slack-signature": f"v0={digest}"}


def form(**fields: str) -> bytes:
    """A form's body."""
    return urlencode(fields).encode()


def all_senders(config: Path, amazon: Amazon) -> dict[str, Sender]:
    """Each of them turned on, with the one secret."""
    webhooks = load(config).webhooks
    return {
        "datadog": datadog.Datadog(datadog.Settings(webhook_tokens=SECRETS)),
        "cloudwatch": cloudwatch.Cloudwatch(cloudwatch.Settings(topic_arns=(TOPIC,)), amazon.certificates),
        "eventbridge": eventbridge.EventBridge(eventbridge.Settings(api_keys=SECRETS)),
        "alertmanager": alertmanager.Alertmanager(alertmanager.Settings(tokens=SECRETS)),
        "grafana": grafana.Grafana(grafana.Settings(hmac_secrets=SECRETS)),
        "slack": slack.Slack(slack.Settings(signing_secrets=SECRETS, responders=("U0BO",)), SystemClock()),
        "generic": generic.Generic(
            generic.Settings(tokens=SECRETS), {n: generic.Reader.of(n, w) for n, w in webhooks.items()}
        ),
    }


@contextmanager
def serving(
    database_url: str, folder: Path, *, turned_on: bool = True, worker: bool = False, catalogue: str = CATALOGUE
) -> Iterator[Served]:
    """The product with every sender turned on, or as an empty environment has it."""
    config = folder / "autopilot.yaml"
    config.write_text(catalogue)
    amazon = Amazon(rsa.generate_private_key(public_exponent=65537, key_size=2048))
    settings = Settings(config=config, pull_every_s=0)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config("", log_level="warning", lifespan="off", timeout_graceful_shutdown=2))
        senders = all_senders(config, amazon) if turned_on else {}
        thread = threading.Thread(
            target=lambda: asyncio.run(_serve(server, settings, database_url, senders, listener, worker)), daemon=True
        )
        thread.start()
        headers = {"Authorization": f"Bearer {make_key(database_url, 'admin', 'root')}"}
        http = httpx.Client(base_url=url, headers=headers, timeout=20)
        stranger = httpx.Client(base_url=url, timeout=20)
        database = psycopg.connect(database_url, row_factory=dict_row, autocommit=True)
        served = Served(url, database_url, config, amazon, http, stranger, database, [http, stranger])
        try:
            _wait_for(server, thread)
            yield served
        finally:
            for client in served.clients:
                client.close()
            database.close()
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


async def _serve(
    server: uvicorn.Server,
    settings: Settings,
    database_url: str,
    senders: Mapping[str, Sender],
    listener: socket.socket,
    worker: bool,
) -> None:
    async with AsyncExitStack() as stack:
        product = await stack.enter_async_context(assembled(settings, database_url))
        product = replace(product, senders={**product.senders, **senders})
        app = create_app(settings, database_url, worker=False)
        app.state.product = product
        server.config.app = app
        stop = asyncio.Event()
        working = asyncio.create_task(work(product, stop)) if worker else None
        try:
            await server.serve([listener])
        finally:
            stop.set()
            if working:
                await working


def _wait_for(server: uvicorn.Server, thread: threading.Thread) -> None:
    give_up = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive(), "the server ended while it started"
        assert time.monotonic() < give_up, "the server did not start"
        time.sleep(0.01)
