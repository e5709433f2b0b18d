"""Every file of the folder is a collector, whole: what the others call is there."""

from pathlib import Path

import pytest

from app.clock import SystemClock
from app.wiring import create_collectors, plug_ins
from collectors.base import Collector, Declared, McpServer, McpTool
from tests.conftest import ROOT

ENVIRONMENT = {
    "aws": {"AUTOPILOT_AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
    "confluence": {"CONFLUENCE_URL": "https://c.test", "CONFLUENCE_EMAIL": "a@c.test", "CONFLUENCE_TOKEN": "t"},
    "datadog": {"DATADOG_API_KEY": "k", "DATADOG_APP_KEY": "k"},
    "github": {"GITHUB_TOKEN": "t"},
    "jaeger": {"JAEGER_URL": "https://j.test"},
    "kubernetes": {"KUBERNETES_IN_CLUSTER": "true"},
    "langfuse": {"LANGFUSE_HOST": "https://l.test", "LANGFUSE_PUBLIC_KEY": "p", "LANGFUSE_SECRET_KEY": "s"},
    "loki": {"LOKI_URL": "https://l.test"},
    "mcp": {},
    "prometheus": {"PROMETHEUS_URL": "https://p.test"},
    "replay": {"AUTOPILOT_REPLAY_DIR": str(ROOT / "tests" / "scenarios" / "001-black-friday")},
    "runbooks": {"RUNBOOKS_DIR": str(ROOT / "tests" / "scenarios")},
    "tempo": {"TEMPO_URL": "https://t.test"},
}
DECLARED = Declared(mcp={"ops": McpServer(url="https://m.test/mcp", tools=(McpTool(tool="x"),))})


def test_each_is_looked_at() -> None:
    assert set(ENVIRONMENT) == set(plug_ins("collectors"))


@pytest.mark.parametrize("name", sorted(ENVIRONMENT))
async def test_a_collector_is_whole(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # where no .env is
    for variable, value in ENVIRONMENT[name].items():
        monkeypatch.setenv(variable, value)
    (collector,) = create_collectors((name,), DECLARED, SystemClock())
    members = [m for m in vars(Collector) if not m.startswith("_")]
    assert {"name", "timeout_s", "collect", "measure", "check", "aclose"} <= set(members)
    assert [m for m in members if not hasattr(collector, m)] == []
    assert collector.name == name
    assert collector.timeout_s >= 15
    await collector.aclose()
