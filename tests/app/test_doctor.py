"""``autopilot doctor``: what is configured, what would work, what to mend."""

import json
import socket
from typing import Any

import pytest
from pydantic import SecretStr

from app.doctor import examine
from app.settings import Settings
from tests import processes
from tests.conftest import World, Worlds


def examined(world: World, **environment: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and what it printed."""
    world.environment |= {"DATABASE_URL": world.database_url, **environment}
    process = world.start(processes.run_command, "doctor", "--json")
    process.join(60)
    assert process.exitcode is not None, "it did not end"
    return process.exitcode, json.loads((world.folder / "run_command.log").read_text())


@pytest.fixture
def nowhere() -> str:
    """Where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_what_works_is_ok(worlds: Worlds) -> None:
    world = worlds("black-friday")
    code, rows = examined(world, AUTOPILOT_COLLECTORS="datadog", AUTOPILOT_EXECUTORS="rehearsal")
    assert {row["status"] for row in rows} <= {"ok", "skipped"}, rows
    assert code == 0
    names = {(row["of"], row["name"]) for row in rows}
    assert {("database", "reachable"), ("catalogue", "autopilot.yaml")} <= names
    assert {"logs_read_data", "apm_read", "clock"} <= {name for of, name in names if of == "collector datadog"}


def test_what_does_not_is_told_with_its_mend(worlds: Worlds, nowhere: str) -> None:
    world = worlds("black-friday")
    code, rows = examined(
        world,
        AUTOPILOT_COLLECTORS="prometheus,loki,aws",
        AUTOPILOT_EXECUTORS="ecs",
        PROMETHEUS_URL=nowhere,
        AUTOPILOT_ECS_ENDPOINT_URL=nowhere,
        OPENAI_API_KEY="sk-of-a-test",
        OPENAI_BASE_URL=f"{nowhere}/v1",
    )
    assert code == 1
    told = {row["of"]: row for row in reversed(rows) if row["status"] == "failed"}
    assert "PROMETHEUS_URL" in told["collector prometheus"]["mend"]
    assert "LOKI_URL" in told["collector loki"]["detail"]
    assert told["model"]["mend"] == "Check OPENAI_BASE_URL."
    # without STS credentials cannot be told, and nothing is tried instead
    assert told["executor ecs"]["name"] == "credentials"
    assert "sk-of-a-test" not in json.dumps(rows)
    skipped = [row["name"] for row in rows if row["of"] == "executor ecs" and row["status"] == "skipped"]
    assert "ecs:UpdateService" in skipped


def test_a_wrong_setting_is_one_of_its_findings(worlds: Worlds) -> None:
    world = worlds("black-friday")
    code, rows = examined(world, AUTOPILOT_COLLECTORS="datadog", DATADOG_MAX_CALLS="none")
    assert code == 1
    [row] = [row for row in rows if row["of"] == "collector datadog"]
    assert row["detail"].startswith("DATADOG_MAX_CALLS: ")


async def test_a_key_that_no_header_can_hold_is_one_finding_and_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-tést")
    settings = Settings(database_url=SecretStr("postgresql://127.0.0.1:1/x"), collectors=())
    found = {f.of: f.check for f in await examine(settings)}
    assert (found["model"].status, found["database"].status) == ("failed", "failed")
    assert "sk-of" not in str(found)
