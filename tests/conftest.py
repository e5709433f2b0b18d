"""A real Postgres for the session, an own database per test, and the product's processes around it."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from app.clock import VirtualClock
from app.db import in_one_transaction, migrate
from app.embedded_postgres import EmbeddedPostgres
from app.security import issue
from app.simulator.scenarios import SCENARIOS
from graph.state import Role
from tests import processes

ROOT = Path(__file__).resolve().parent.parent
TOKEN = "a-webhook-token-of-the-tests"
OWN_VARIABLES = ("AUTOPILOT_", "DATADOG_", "DD_", "AWS_", "OPENAI_", "OTEL_", "LANGFUSE_", "DATABASE_URL")

for name in [n for n in os.environ if n.startswith(OWN_VARIABLES)]:
    del os.environ[name]  # a developer's own settings must not decide what the tests see


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """One cluster for all tests, with a migrated template database."""
    folder = Path(tempfile.mkdtemp(prefix="ap-"))
    server = EmbeddedPostgres(folder / "pg").start()
    try:
        _execute(server.url, "create database template_autopilot")
        migrate(_named(server.url, "template_autopilot"))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty, migrated database of its own."""
    name = f"t{time.time_ns()}"
    _execute(postgres.url, f"create database {name} template template_autopilot")
    yield _named(postgres.url, name)
    _execute(postgres.url, f"drop database {name} with (force)")


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A cluster that the test may stop and start."""
    folder = Path(tempfile.mkdtemp(prefix="ap-"))
    server = EmbeddedPostgres(folder / "pg").start()
    try:
        migrate(server.url)
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _named(url: str, database: str) -> str:
    return url.replace("/postgres?", f"/{database}?")


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


@dataclass
class World:
    """A shop, and the product looking at it, in processes of their own."""

    scenario: str
    database_url: str
    folder: Path
    speed: float = 120.0
    stack: ExitStack = field(default_factory=ExitStack)

    def __post_init__(self) -> None:
        self.clock = VirtualClock(SCENARIOS[self.scenario].origin, time.time(), self.speed)
        self.shop_url = f"http://127.0.0.1:{processes.free_port()}"
        self.environment = {
            "AUTOPILOT_CLOCK": str(self.clock),
            "AUTOPILOT_CONFIG": str(ROOT / "app" / "simulator" / "autopilot.yaml"),
            "AUTOPILOT_COLLECTORS": "datadog,aws",
            "AUTOPILOT_EXECUTORS": "ecs,traffic",
            "AUTOPILOT_DATADOG_WEBHOOK_TOKENS": TOKEN,
            "AUTOPILOT_STALLED_AFTER_S": "2",
            "AUTOPILOT_PULL_EVERY_S": "0",  # the shop's monitors may alert before a test sends its alert
            "DATADOG_BASE_URL": self.shop_url,
            "DATADOG_API_KEY": "test",
            "DATADOG_APP_KEY": "test",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for plug_in in ("AWS", "ECS", "TRAFFIC", "RDS", "ELASTICACHE", "APPCONFIG"):
            self.environment[f"AUTOPILOT_{plug_in}_ENDPOINT_URL"] = self.shop_url
            self.environment[f"AUTOPILOT_{plug_in}_REGION"] = "us-east-1"

    # --- processes ---

    def start_shop(self) -> None:
        """The shop begins at the scenario's origin."""
        port = int(self.shop_url.rpartition(":")[2])
        self.start(processes.run_shop, self.scenario, str(self.clock), port)
        processes.wait_until(lambda: processes.answers(f"{self.shop_url}/_shop/state"), "the shop")

    def start_api(self, *, worker: bool = False) -> httpx.Client:
        """The API, and a client with a responder's key."""
        port = processes.free_port()
        self.start(processes.run_api, self.database_url, port, worker)
        url = f"http://127.0.0.1:{port}"
        processes.wait_until(lambda: processes.answers(f"{url}/readyz"), f"the API; see {self.folder}")
        key = make_key(self.database_url, "responder")
        client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=20)
        self.stack.callback(client.close)
        return client

    def start_worker(self) -> BaseProcess:
        """One worker."""
        return self.start(processes.run_worker, self.database_url)

    def start(self, target: Callable[..., None], *arguments: object) -> BaseProcess:
        """Any process of this world; killed at the end of the test."""
        process = processes.spawn(target, self.folder / f"{target.__name__}.log", self.environment, *arguments)
        self.stack.callback(processes.kill, process)
        return process

    # --- the story ---

    def send_alert(self, client: httpx.Client, **changes: object) -> httpx.Response:
        """Datadog's delivery."""
        payload = SCENARIOS[self.scenario].alert_payload(self.clock.now()) | changes
        return client.post("/webhooks/datadog", json=payload, headers={"X-AIOps-Token": TOKEN})

    def to_the_decision(self, client: httpx.Client) -> str:
        """The incident of an alert, analysed."""
        incident: str = self.send_alert(client).json()["incident_id"]
        self.await_status(client, incident, "awaiting_decision")
        return incident

    def decide(self, client: httpx.Client, incident: str, choice: str, **more: str) -> httpx.Response:
        """A decision on the plan that is shown now."""
        revision = client.get(f"/incidents/{incident}/actions").json()["plan_revision"]
        body = {"plan_revision": revision, "choice": choice, **more}
        return client.post(f"/incidents/{incident}/decision", json=body)

    def await_status(self, client: httpx.Client, incident: str, *wanted: str, seconds: float = 60) -> dict[str, Any]:
        """The incident, once it has one of these statuses."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(client.get(f"/incidents/{incident}").json())
            return seen["status"] in (*wanted, "needs_attention")

        try:
            processes.wait_until(there, f"status {wanted}", seconds)
        except TimeoutError as error:
            raise AssertionError(f"{error}: {seen['status']}; {self.logs()}") from error
        assert seen["status"] in wanted, f"{seen['status_reason']}; {self.logs()}"
        return seen

    def report(self, client: httpx.Client, incident: str) -> dict[str, Any]:
        """The report as JSON."""
        built: dict[str, Any] = client.get(f"/incidents/{incident}/report").json()
        return built

    def changes(self) -> list[dict[str, Any]]:
        """Every request that changed the shop, from its own log."""
        answer: Any = processes.CLIENT.get(f"{self.shop_url}/_shop/requests").json()
        found: list[dict[str, Any]] = answer["requests"] if isinstance(answer, dict) else answer
        return found

    def logs(self) -> str:
        """The ends of the processes' logs, for a failed assertion."""
        return "\n".join(f"== {f.name}\n{f.read_text()[-1500:]}" for f in sorted(self.folder.glob("*.log")))


Worlds = Callable[..., World]


@pytest.fixture
def worlds(database_url: str, tmp_path: Path) -> Iterator[Worlds]:
    """``worlds("bad-deploy")`` makes a world; its processes end with the test."""
    with ExitStack() as stack:

        def make(scenario: str, **options: Any) -> World:
            world = World(scenario, options.pop("database_url", database_url), tmp_path, stack=stack, **options)
            world.start_shop()
            return world

        yield make


def make_key(database_url: str, role: Role, name: str = "kim") -> str:
    """An API key."""
    return in_one_transaction(database_url, lambda connection: issue(connection, "key", name, role))
