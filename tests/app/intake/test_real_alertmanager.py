"""Prometheus Alertmanager itself, sending to our sender and to the product."""

import asyncio
import fcntl
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
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
from tests import processes
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


@dataclass(frozen=True)
class Program:
    """How to run Alertmanager: ``command``, which sees ``root`` as /, with files below ``runs``."""

    command: tuple[str, ...]
    root: Path
    runs: Path


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """Alertmanager as it is installed; else Debian's package, which is unpacked and not installed: it would make users
    and start services. It looks for its files below /usr/share, so it gets a root directory of its own.
    """
    if installed := shutil.which(PACKAGE) or shutil.which("alertmanager"):
        return Program((installed,), Path("/"), tmp_path_factory.mktemp("alertmanager"))
    if missing := [tool for tool in ("apt-get", "dpkg-deb", "ldd", "chroot", "unshare") if not shutil.which(tool)]:
        pytest.skip(f"there is no Alertmanager here, and no {missing[0]} to run Debian's with")
    root = Path(request.config.cache.mkdir("alertmanager"))
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in parallel
        if not (root / "runs").exists():
            _unpack(root)
    chroot = ("chroot",) if os.geteuid() == 0 else ("unshare", "--map-root-user", "chroot")
    command = (*chroot, str(root), f"/usr/bin/{PACKAGE}")
    _run([*command, "--version"], root, "cannot be run here")
    return Program(command, root, root / "runs")


def _unpack(root: Path) -> None:
    """The package, and the libraries it is linked with."""
    refresh = (
        "apt-get update -q &&" if os.geteuid() == 0 and not any(Path("/var/lib/apt/lists").glob("*_Packages*")) else ""
    )
    _run(["sh", "-c", f"{refresh} apt-get download {PACKAGE}"], root, "cannot be downloaded")
    package = next(root.glob("*.deb"))
    _run(["dpkg-deb", "-x", package.name, "."], root, "cannot be unpacked")
    package.unlink()
    for library in re.findall(r"/\S+", _run(["ldd", f"usr/bin/{PACKAGE}"], root, "cannot be run here")):
        copy = root / library[1:]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, copy)
    (root / "runs").mkdir()


def _run(command: list[str], folder: Path, trouble: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, timeout=120, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        pytest.skip(f"Alertmanager {trouble}: {error}")
    if done.returncode:
        pytest.skip(f"Alertmanager {trouble}: {done.stderr[-300:]}")
    return done.stdout


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
def alertmanagers(program: Program) -> Iterator[Alertmanagers]:
    """``alertmanagers(webhook_url)`` starts one; it ends with the test."""
    with ExitStack() as stack:

        def start(webhook: str, token: str = TOKEN) -> Running:
            folder = Path(stack.enter_context(TemporaryDirectory(dir=program.runs)))
            (folder / "config.yml").write_text(CONFIG.format(url=webhook, token=token))
            inside, port = f"/{folder.relative_to(program.root)}", processes.free_port()
            options = {
                "config.file": f"{inside}/config.yml",
                "storage.path": f"{inside}/data",
                "web.listen-address": f"127.0.0.1:{port}",
                "cluster.listen-address": "",
            }
            arguments = [*program.command, *(f"--{name}={value}" for name, value in options.items())]
            log = stack.enter_context((folder / "log").open("wb"))
            process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(process.wait, 10)
            stack.callback(process.kill)
            url = f"http://127.0.0.1:{port}"
            processes.wait_until(lambda: processes.answers(f"{url}/-/ready"), "Alertmanager")
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
