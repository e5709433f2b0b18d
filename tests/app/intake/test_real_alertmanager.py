"""Prometheus Alertmanager itself, sending to our sender and to the product."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
from pydantic import SecretStr

from app.intake.alertmanager import Alertmanager, Settings
from app.intake.base import Directory, Incoming, Parsed, Unauthentic
from graph.catalogue import Catalogue, Service
from tests import debian, processes
from tests.conftest import Worlds

PACKAGE = "prometheus-alertmanager"
TOKEN = "a-token-for-alertmanager"
LABELS = {"alertname": "HighErrorRate", "service": "payment-service", "severity": "page", "instance": "10.0.3.7:8080"}
CONFIG = """
route:
  receiver: aiops
  group_by: [alertname]
  group_wait: 0s
  group_interval: 1s
receivers:
  - name: aiops
    webhook_configs:
      - url: {url}
        send_resolved: true
        http_config:
          authorization: {{type: Bearer, credentials: {token}}}
"""


# --- the program ---


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> debian.Program:
    """Alertmanager."""
    return debian.program(PACKAGE, "alertmanager", request, tmp_path_factory)


class Running:
    """One Alertmanager that calls a webhook."""

    def __init__(self, url: str) -> None:
        self.url = url

    def tell(self, *, starts: datetime, ends: datetime | None = None, **labels: str) -> None:
        """What Prometheus says of an alert."""
        alert: dict[str, object] = {
            "labels": LABELS | labels,
            "annotations": {"summary": "5xx above 5 %"},
            "startsAt": starts.isoformat(),
            "generatorURL": "http://prometheus:9090/graph?g0.expr=x",
        }
        if ends:
            alert["endsAt"] = ends.isoformat()
        httpx.post(f"{self.url}/api/v2/alerts", json=[alert], timeout=10).raise_for_status()


Alertmanagers = Callable[..., Running]


@pytest.fixture
def alertmanagers(program: debian.Program) -> Iterator[Alertmanagers]:
    """``alertmanagers(webhook_url)`` starts one; it ends with the test."""
    with ExitStack() as stack:

        def start(webhook: str, token: str = TOKEN) -> Running:
            folder = Path(stack.enter_context(TemporaryDirectory(dir=program.runs)))
            (folder / "config.yml").write_text(CONFIG.format(url=webhook, token=token))
            inside, port = program.inside(folder), processes.free_port()
            url = f"http://127.0.0.1:{port}"
            options = {
                "config.file": f"{inside}/config.yml",
                "storage.path": f"{inside}/data",
                "web.listen-address": f"127.0.0.1:{port}",
                "cluster.listen-address": "",
            }
            stack.enter_context(program.running(options, folder, f"{url}/-/ready"))
            return Running(url)

        yield start


# --- our sender behind a server of its own ---


class Receiver(ThreadingHTTPServer):
    """Verifies and parses what comes; ``refuse`` makes it answer 503 so many times first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sender = Alertmanager(Settings(tokens=(SecretStr(TOKEN),)))
        self.directory = Directory(Catalogue(services={"payment-service": Service()}))
        self.parsed: list[Parsed] = []
        self.refused: list[int] = []
        self.refuse = 0

    @property
    def url(self) -> str:
        """The webhook's."""
        return f"http://127.0.0.1:{self.server_port}/webhooks/alertmanager"

    def take(self, incoming: Incoming) -> int:
        """The HTTP status."""
        try:
            asyncio.run(self.sender.verify(incoming))
        except Unauthentic:
            self.refused.append(401)
            return 401
        if self.refuse:
            self.refuse -= 1
            self.refused.append(503)
            return 503
        self.parsed.append(self.sender.parse(incoming, self.directory))
        return 202

    def await_parsed(self, count: int) -> list[Parsed]:
        """The deliveries, once there are so many."""
        processes.wait_until(lambda: len(self.parsed) >= count, f"{count} deliveries; {self.parsed} {self.refused}")
        return self.parsed


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        """One delivery."""
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(self.server.take(Incoming(headers, body)))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name in the base class
        """Nothing on the tests' output."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(10)


def just_now() -> datetime:
    """Whole seconds, as rule engines evaluate."""
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=30)


def test_an_alert_and_its_recovery(alertmanagers: Alertmanagers, receiver: Receiver) -> None:
    alertmanager, starts = alertmanagers(receiver.url), just_now()
    alertmanager.tell(starts=starts)
    fired = receiver.await_parsed(1)[0].alerts[0]
    assert (fired.service, fired.severity, fired.transition) == ("payment-service", "critical", "firing")
    assert (fired.title, fired.rule) == ("5xx above 5 %", "alertmanager:HighErrorRate")
    assert (fired.occurred_at, fired.changed_at) == (starts, starts)
    assert fired.resources == {"instance": "10.0.3.7:8080"}
    assert fired.url == "http://prometheus:9090/graph?g0.expr=x"
    ends = starts + timedelta(seconds=20)
    alertmanager.tell(starts=starts, ends=ends)
    over = receiver.await_parsed(2)[1].alerts[0]
    assert (over.transition, over.occurred_at, over.changed_at) == ("resolved", starts, ends)
    assert (over.fingerprint, over.cycle_key) == (fired.fingerprint, fired.cycle_key)
    assert receiver.parsed[0].delivery_key != receiver.parsed[1].delivery_key


def test_a_group_with_one_alert_firing_and_one_over(alertmanagers: Alertmanagers, receiver: Receiver) -> None:
    alertmanager, starts = alertmanagers(receiver.url), just_now()
    alertmanager.tell(starts=starts, instance="a")
    receiver.await_parsed(1)
    alertmanager.tell(starts=starts, instance="b")
    alertmanager.tell(starts=starts, ends=starts + timedelta(seconds=1), instance="a")
    processes.wait_until(
        lambda: {"resolved", "firing"} in [{a.transition for a in p.alerts} for p in receiver.parsed], "a mixed group"
    )
    assert len({a.fingerprint for p in receiver.parsed for a in p.alerts}) == 2


def test_it_comes_back_with_the_same_key_after_a_503(alertmanagers: Alertmanagers, receiver: Receiver) -> None:
    receiver.refuse = 2
    alertmanagers(receiver.url).tell(starts=just_now())
    assert receiver.await_parsed(1)[0].alerts[0].transition == "firing"
    assert receiver.refused == [503, 503]


def test_two_that_do_not_know_of_each_other_send_one_delivery_twice(
    alertmanagers: Alertmanagers, receiver: Receiver
) -> None:
    starts = just_now()
    for alertmanager in (alertmanagers(receiver.url), alertmanagers(receiver.url)):
        alertmanager.tell(starts=starts)
    one, other = receiver.await_parsed(2)
    assert one.delivery_key == other.delivery_key is not None


def test_a_wrong_token_is_not_tried_again(alertmanagers: Alertmanagers, receiver: Receiver) -> None:
    alertmanagers(receiver.url, token="not-the-token-of-ours").tell(starts=just_now())
    processes.wait_until(lambda: bool(receiver.refused), "a refusal")
    assert set(receiver.refused) == {401}
    assert not receiver.parsed


# --- the product ---


def test_the_products_incident_opens_and_its_recovery_closes_it(alertmanagers: Alertmanagers, worlds: Worlds) -> None:
    world = worlds("bad-deploy")
    world.environment["AUTOPILOT_ALERTMANAGER_TOKENS"] = TOKEN
    client = world.start_api()  # without a worker: nothing but the recovery can close the incident
    alertmanager, starts = alertmanagers(f"{client.base_url}/webhooks/alertmanager"), just_now()
    alertmanager.tell(starts=starts)
    processes.wait_until(lambda: bool(client.get("/incidents").json()["incidents"]), f"an incident; {world.logs()}")
    incident = client.get("/incidents").json()["incidents"][0]
    assert (incident["service"], incident["status"]) == ("payment-service", "received")
    alertmanager.tell(starts=starts, ends=starts + timedelta(seconds=20))
    world.await_status(client, incident["id"], "closed")
    assert len(client.get("/incidents").json()["incidents"]) == 1
