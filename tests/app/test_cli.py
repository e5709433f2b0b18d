"""The command line: help at once, errors a tired engineer can mend."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from app.cli import sign_in_command
from app.embedded_postgres import EmbeddedPostgres
from app.environment import reference
from app.settings import Settings
from tests.conftest import ROOT
from tests.processes import answers, free_port, wait_until

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


def autopilot(
    *arguments: str, folder: Path = ROOT, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        env={
            **os.environ,
            "DATABASE_URL": "postgresql://127.0.0.1:9/none",
            "PYTHONPATH": str(ROOT),
            **KEYS,
            **(environment or {}),
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_env_example_lists_every_setting() -> None:
    assert (ROOT / ".env.example").read_text() == reference(), "run: autopilot settings > .env.example"


def test_help_names_the_commands() -> None:
    shown = autopilot("--help", environment={"COLUMNS": "120"}).stdout
    for command in ("demo", "serve", "worker", "migrate", "keys", "sign-in", "import", "settings"):
        assert f" {command} " in shown
    for command in ("incidents", "actions", "decide", "withdraw", "note", "decisions"):
        assert f" {command} " in shown


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"AUTOPILOT_COLLECTORS": "datdog"},
            "AUTOPILOT_COLLECTORS: there is no 'datdog'; there are: aws, confluence, datadog",
        ),
        ({"AUTOPILOT_COLLECTORS": "datadog"}, "DATADOG_API_KEY"),
        ({"AUTOPILOT_EXECUTORS": "ecs"}, "AUTOPILOT_ECS_REGION"),
        ({"AUTOPILOT_EXECUTORS": "rehearsal,ecs", "AUTOPILOT_ECS_REGION": "eu-west-1"}, "two executors bring"),
        ({"AUTOPILOT_CONFIG": "nowhere.yaml"}, "nowhere.yaml: there is no such file"),
        ({"AUTOPILOT_NOTIFIERS": "slack"}, "AUTOPILOT_NOTIFIERS=slack: AUTOPILOT_SLACK_BOT_TOKEN is not set"),
        ({"AUTOPILOT_EMBEDDER": "openai"}, "AUTOPILOT_EMBEDDER=openai: it needs OPENAI_API_KEY"),
        ({"AUTOPILOT_CLOCK": "noon"}, "'noon' is no clock"),
        ({"AUTOPILOT_DATADOG_WEBHOOK_TOKENS": "short"}, "AUTOPILOT_DATADOG_WEBHOOK_TOKENS: a secret is shorter"),
        ({"AUTOPILOT_WORKER_CONCURRENCY": "many"}, "AUTOPILOT_WORKER_CONCURRENCY"),
        (
            {"AUTOPILOT_LOG_LEVEL": "verbose"},
            "AUTOPILOT_LOG_LEVEL: Input should be 'DEBUG', 'INFO', 'WARNING' or 'ERROR'",
        ),
        ({"DATABASE_URL": "nonsense"}, "DATABASE_URL: this is no Postgres URL"),
        ({"DATABASE_URL": "mysql://a@b/c"}, "DATABASE_URL: this is no Postgres URL"),
        ({"DATABASE_URL": "host=127.0.0.1 password=hunter2"}, "DATABASE_URL: this is no Postgres URL"),
        ({"DATABASE_URL": "postgresql://a:hunter2@[::1/c"}, "DATABASE_URL: this is no Postgres URL"),
        ({"AUTOPILOT_LOG_LEVEL": "info"}, "127.0.0.1"),
        ({"DATABASE_URL": "postgres://127.0.0.1:9/none"}, "127.0.0.1"),
        ({}, "127.0.0.1"),
    ],
)
def test_start_up_stops_with_a_sentence(environment: dict[str, str], said: str) -> None:
    done = autopilot("serve", environment=environment)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("/nonexistent", "--list"), "/nonexistent cannot be read: No such file or directory"),
        (("/nonexistent", "--case", "2023-01-29 08:43:04"), "/nonexistent cannot be read: No such file or directory"),
        (("pyproject.toml", "--list"), "pyproject.toml is no readable tar archive"),
        (("tests", "--list"), "tests holds no list of faults"),
        (("tests", "--case", "yesterday"), "'yesterday' is no case"),
    ],
)
def test_an_import_of_something_else_stops_with_a_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = autopilot("import", "nezha", *arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_sign_in_leads_to_the_url_that_is_asked_for(database_url: str) -> None:
    environment = {"DATABASE_URL": database_url}
    shown = autopilot("sign-in", "--url", "http://127.0.0.1:9090/", environment=environment).stdout
    assert shown.startswith("http://127.0.0.1:9090/sign-in?token=")
    assert autopilot("sign-in", environment=environment).stdout.startswith("http://127.0.0.1:8080/sign-in?token=")
    refused = autopilot("sign-in", "--url", "127.0.0.1:9090", environment=environment)
    assert refused.returncode != 0
    assert "http://" in refused.stderr


@pytest.mark.parametrize(
    ("public_url", "port", "command"),
    [
        ("http://127.0.0.1:8080", 8080, "autopilot sign-in"),
        ("http://127.0.0.1:8080", 9090, "autopilot sign-in --url http://127.0.0.1:9090"),
        ("http://localhost/", 9090, "autopilot sign-in --url http://localhost:9090"),
        ("http://[::1]:8080", 9090, "autopilot sign-in --url http://[::1]:9090"),
        ("http://127.0.0.1:8080", 0, "autopilot sign-in"),  # the system picks one, later
        ("https://autopilot.example.com", 8080, "autopilot sign-in"),  # a proxy stands before it
    ],
)
def test_serve_says_how_to_sign_in(public_url: str, port: int, command: str) -> None:
    assert sign_in_command(public_url, port) == command


def test_a_link_to_an_incident_holds_nothing_but_its_id() -> None:
    settings = Settings(public_url="https://autopilot.example.com/")
    assert settings.incident_url("inc_1&x=2") == "https://autopilot.example.com/ui/?incident=inc_1%26x%3D2"


def test_a_mistake_in_the_env_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# mine\nAUTOPILOT_WORKER_CONCURRENCY=0\n")
    done = autopilot("serve", folder=tmp_path)
    assert ".env:2: AUTOPILOT_WORKER_CONCURRENCY: Input should be greater than or equal to 1" in done.stderr


def test_a_mistake_in_the_catalogue_stops_start_up_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "autopilot.yaml").write_text("services:\n  shop:\n    teir: 1\n")
    done = autopilot("serve", folder=tmp_path, environment={"AUTOPILOT_CONFIG": "autopilot.yaml"})
    assert "autopilot.yaml:3: services.shop.teir: Extra inputs are not permitted" in done.stderr


def test_serve_on_its_own_postgres_stops_it_on_sigterm() -> None:
    folder = Path(tempfile.mkdtemp(prefix="ap-"))
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if k != "DATABASE_URL"}
    server = subprocess.Popen(
        [sys.executable, "-m", "app", "serve", "--no-console", "--no-worker", "--port", str(port)],
        env={**environment, "AUTOPILOT_DATA_DIR": str(folder)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "serve")
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=20)
        assert server.returncode == 0, output
        assert "Your admin key, shown this once" in output
        assert f"Sign in: autopilot sign-in --url http://127.0.0.1:{port}\n" in output
        assert not (folder / "pg" / "postmaster.pid").exists(), "Postgres was left running"
    finally:
        EmbeddedPostgres(folder / "pg").stop()
        shutil.rmtree(folder)
