"""``autopilot doctor``: what is configured, what would work, what to mend."""

import json
import socket
import time
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from app.doctor import examine, retirement_of
from app.settings import Settings
from app.simulator.openai import openai_server, say
from collectors.base import Check
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
    assert told["model"]["detail"].startswith("gpt-4o cannot be reached")
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


async def of_the_model(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[Check]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings(database_url=SecretStr("postgresql://127.0.0.1:1/x"), collectors=())
    return [f.check for f in await examine(settings) if f.of == "model"]


async def test_without_a_key_the_model_is_skipped_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    check, _ = await of_the_model(monkeypatch)
    assert check.status == "skipped"
    assert "OPENAI_API_KEY" in check.mend


@pytest.mark.parametrize(
    ("key", "model", "status", "told"),
    [
        ("sk-of-a-test", "gpt-4o", "ok", "known at http://127.0.0.1"),
        ("sk-of-a-test", "gpt-3", "failed", "Check OPENAI_MODEL."),
        ("sk-of-another", "gpt-4o", "failed", "Check OPENAI_API_KEY."),
    ],
)
async def test_the_model_as_configured(
    monkeypatch: pytest.MonkeyPatch, key: str, model: str, status: str, told: str
) -> None:
    async with openai_server(say(""), key="sk-of-a-test", models=["gpt-4o"]) as server:
        environment = {"OPENAI_API_KEY": key, "OPENAI_BASE_URL": server.url, "OPENAI_MODEL": model}
        check, *_ = await of_the_model(monkeypatch, **environment)
    assert (check.name, check.status) == (model, status)
    assert told in check.detail + check.mend
    assert "sk-of" not in str(check)


async def test_a_server_that_is_none_of_openais_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    async with openai_server(say("")) as server:
        environment = {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": f"{server.origin}/elsewhere"}
        check, _ = await of_the_model(monkeypatch, **environment)
    assert (check.status, check.mend) == ("skipped", "The first incident will show it.")


async def test_the_end_of_a_model_is_told_before_it_comes_and_failed_after(monkeypatch: pytest.MonkeyPatch) -> None:
    async with openai_server(say("")) as server:
        environment = {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": server.url, "OPENAI_PROFILE": "openai"}
        [_, retirement] = await of_the_model(monkeypatch, **environment)
        [_, price] = await of_the_model(monkeypatch, OPENAI_MODEL="gpt-5.5")
        prices = {"OPENAI_DOLLARS_PER_MILLION_INPUT": "2.5", "OPENAI_DOLLARS_PER_MILLION_OUTPUT": "10"}
        [_] = await of_the_model(monkeypatch, **prices)
    assert "OPENAI_DOLLARS_PER_MILLION_INPUT" in price.mend
    assert "2027-01-14" in retirement.detail
    assert "gpt-5.5" in retirement.mend


@pytest.mark.parametrize("environment", [{}, {"OPENAI_API_KEY": "x", "OPENAI_BASE_URL": "NOWHERE"}])
async def test_the_end_of_the_default_is_told_without_a_key_and_behind_a_gateway(
    monkeypatch: pytest.MonkeyPatch, nowhere: str, environment: dict[str, str]
) -> None:
    environment = {name: value.replace("NOWHERE", f"{nowhere}/v1") for name, value in environment.items()}
    [_, retirement] = await of_the_model(monkeypatch, **environment)
    assert (retirement.name, retirement.status) == ("retirement", "skipped")
    assert "gpt-4o" in retirement.detail
    assert "2027-01-14" in retirement.detail


@pytest.mark.parametrize(
    ("model", "today", "status"),
    [
        ("gpt-4o", date(2027, 1, 13), "ok"),
        ("gpt-4o", date(2027, 1, 14), "failed"),
        ("gpt-4.1-mini-2025-04-14", date(2027, 2, 1), "failed"),
        ("gpt-5.5", date(2030, 1, 1), None),
        ("llama3.3", date(2030, 1, 1), None),
    ],
)
def test_retirement_on_a_day(model: str, today: date, status: str | None) -> None:
    assert [check.status for check in retirement_of(model, today)] == ([status] if status else [])


async def test_a_key_that_no_header_can_hold_is_one_finding_and_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-tést")
    settings = Settings(database_url=SecretStr("postgresql://127.0.0.1:1/x"), collectors=())
    found = {f.of: f.check for f in await examine(settings)}
    assert (found["model"].status, found["database"].status) == ("failed", "failed")
    assert "sk-of" not in str(found)


# --- people ---


async def found(of: str, settings: Settings) -> dict[str, Check]:
    """The checks of one thing, by their names."""
    return {f.check.name: f.check for f in await examine(settings) if f.of == of}


def configured(folder: Path, content: str, **more: Any) -> Settings:
    """With that autopilot.yaml."""
    config = folder / "autopilot.yaml"
    config.write_text(content)
    return Settings(database_url=SecretStr("postgresql://127.0.0.1:1/x"), config=config, **more)


async def test_where_nobody_is_told_doctor_says_so(tmp_path: Path) -> None:
    [check] = (await found("messages", configured(tmp_path, "teams: {web: {slack_channel: '#web'}}"))).values()
    assert (check.status, check.name) == ("skipped", "notifiers")
    assert "nobody is told" in check.detail


@pytest.mark.parametrize(
    ("file", "notifiers", "deaf"),
    [
        ("teams: {web: {slack_channel: '#web'}, data: {pagerduty: data}, ops: {}}", ("slack", "pagerduty"), "ops"),
        ("teams: {web: {slack_channel: '#web'}, data: {jira: {project: OPS}}}", ("slack",), "data"),
        ("teams: {web: {}}\npolicy: {messages: {default_channel: '#all'}}", ("slack",), ""),
        ("teams: {web: {}}", ("webhook",), ""),
    ],
)
async def test_a_team_that_nothing_reaches_is_named(
    tmp_path: Path, file: str, notifiers: tuple[str, ...], deaf: str
) -> None:
    checks = await found("messages", configured(tmp_path, file, notifiers=notifiers))
    assert checks["teams"].status == ("failed" if deaf else "ok")
    assert checks["teams"].detail.startswith(f"nothing reaches {deaf}" if deaf else "")


@pytest.mark.parametrize(
    ("url", "status"),
    [("http://127.0.0.1:8080", "failed"), ("http://localhost", "failed"), ("https://autopilot.example.com", "ok")],
)
async def test_links_lead_to_where_people_are(tmp_path: Path, url: str, status: str) -> None:
    checks = await found("messages", configured(tmp_path, "{}", notifiers=("webhook",), public_url=url))
    assert checks["links"].status == status
    assert url in checks["links"].detail


async def test_slack_without_secret_and_people_has_buttons_that_nobody_can_press(
    tmp_path: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOPILOT_SLACK_BOT_TOKEN", "xoxb-of-a-test")
    monkeypatch.setenv("AUTOPILOT_SLACK_API_URL", f"{nowhere}/api/")

    async def told(file: str) -> str:
        settings = configured(tmp_path, file, notifiers=("slack",))
        return "\n".join(f.check.detail for f in await examine(settings) if f.of == "notifier slack")

    lacking = await told("teams: {web: {slack_channel: '#web'}}\noperators: {kim: {}}")
    assert "AUTOPILOT_SLACK_SIGNING_SECRETS is not set" in lacking
    assert "nobody of operators: (autopilot.yaml) has a Slack id" in lacking
    assert "Slack cannot be reached" in lacking
    monkeypatch.setenv("AUTOPILOT_SLACK_SIGNING_SECRETS", "s" * 32)
    complete = await told("teams: {web: {slack_channel: '#web'}}\noperators: {kim: {slack: [U1]}}")
    assert complete.startswith("slack: Slack cannot be reached")
    assert "\n" not in complete


async def test_of_jira_its_own_check_says_all(tmp_path: Path, nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("URL", nowhere), ("EMAIL", "bot@example.com"), ("API_TOKEN", "token")):
        monkeypatch.setenv(f"AUTOPILOT_JIRA_{name}", value)
    findings = await examine(configured(tmp_path, "teams: {web: {}}", notifiers=("jira",)))
    [told] = [f.check for f in findings if f.of == "notifier jira"]
    assert told.status == "failed"
    assert "cannot be reached" in told.detail


# --- vectors ---


async def test_an_embedder_is_tried_and_postgres_left_as_it_was(database_url: str) -> None:
    pytest.importorskip("wordllama")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop extension if exists vector cascade")
        settings = Settings(database_url=SecretStr(database_url), embedder="wordllama")
        [embedder] = (await found("embedder", settings)).values()
        assert (embedder.status, embedder.detail) == ("ok", "makes vectors")
        assert set(await found("database", settings)) == {"reachable"}
        assert not connection.execute("select 1 from pg_extension where extname = 'vector'").fetchall()


async def test_an_embedder_that_cannot_be_used_is_told_before_anything_starts(
    nowhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(database_url=SecretStr("postgresql://127.0.0.1:1/x"), embedder="openai")
    [unset] = (await found("embedder", settings)).values()
    assert (unset.status, "it needs OPENAI_API_KEY" in unset.detail) == ("failed", True)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{nowhere}/v1")
    [silent] = (await found("embedder", settings)).values()
    assert (silent.name, silent.status) == ("openai:text-embedding-3-small:512", "failed")
    assert "APIConnectionError" in silent.detail
    [none] = (await found("embedder", settings.model_copy(update={"embedder": ""}))).values()
    assert (none.status, none.mend) == ("skipped", "")


async def test_a_postgres_that_cannot_keep_vectors_is_told(database_url: str) -> None:
    pytest.importorskip("wordllama")
    role = f"reader_{time.time_ns()}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop extension if exists vector cascade")
        connection.execute(f"create role {role} login".encode())
        try:
            url = SecretStr(database_url.replace("//postgres", f"//{role}", 1))
            checks = await found("database", Settings(database_url=url, embedder="wordllama"))
        finally:
            connection.execute(f"drop role {role}".encode())
    assert (checks["reachable"].status, checks["pgvector"].status) == ("ok", "failed")
    assert "may not install pgvector" in checks["pgvector"].detail
