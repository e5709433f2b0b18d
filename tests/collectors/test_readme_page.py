"""The README's page on writing a collector: its example is put into a file, and works."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.conftest import ROOT

PROGRAM = """
import asyncio, collectors, json, os, sys
collectors.__path__.append(sys.argv[1])
from datetime import UTC, datetime, timedelta
from app.clock import SystemClock
from app.settings import Settings
from app.wiring import create_collectors
from collectors.base import Declared, Scope, Target, Window
from graph.ranking import rank
from graph.state import Alert

async def main():
    [source] = create_collectors(Settings().collectors, Declared(), SystemClock())
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    incident = Window(start=noon - timedelta(minutes=10), end=noon)
    before = Window(start=noon - timedelta(minutes=60), end=incident.start)
    targets = (Target(service="shop"), Target(service="db", hops=1))
    scope = Scope(service="shop", occurred_at=noon, incident=incident, baseline=(before,), targets=targets)
    telemetry = await source.collect(scope)
    alert = Alert(source="t", title="slow", service="shop", occurred_at=noon, fingerprint="f", cycle_key="c")
    evidence = rank([telemetry], scope, alert)
    again = await source.measure([telemetry.series[0].ref], incident)
    print(json.dumps({
        "suspect": evidence.suspects[0].component,
        "series": [s.ref.component for s in telemetry.series],
        "gaps": [g.mend for g in telemetry.gaps],
        "measured": len(again[0].values),
        "checks": [c.status for c in await source.check()],
        "calls": telemetry.cost.calls,
    }))
    await source.aclose()

asyncio.run(main())
"""


class Statusd(BaseHTTPRequestHandler):
    """The service of the page: shop is slow from 11:55 on; db is none of the token's business."""

    def do_GET(self) -> None:
        asked = parse_qs(urlsplit(self.path).query)
        service, start, end = asked["service"][0], float(asked["from"][0]), float(asked["to"][0])
        slow_from = 1795175700.0  # 2026-11-20T11:55:00Z
        points = [[at, 900.0 if at >= slow_from else 100.0 + at % 7] for at in range(int(start), int(end), 60)]
        allowed = self.headers["Authorization"] == "Bearer of-a-test" and service != "db"
        body = json.dumps({"points": points}).encode()
        self.send_response(200 if allowed else 403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def statusd() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Statusd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def page_example() -> str:
    page = (ROOT / "README.md").read_text(encoding="utf-8").partition("### Write a collector")[2]
    found = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert found, "the README has no example of a collector"
    return found[1]


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "AUTOPILOT_COLLECTORS": "statusd", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_example_is_a_collector(tmp_path: Path, statusd: str) -> None:
    (tmp_path / "statusd.py").write_text(page_example(), encoding="utf-8")
    done = run(tmp_path, "-c", PROGRAM, str(tmp_path), STATUSD_URL=statusd, STATUSD_TOKEN="of-a-test")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "suspect": "shop",
        "series": ["shop"],
        "gaps": ["give STATUSD_TOKEN the right to read"],
        "measured": 10,
        "checks": ["ok", "ok"],
        "calls": 2,
    }


def test_what_it_lacks_is_said(tmp_path: Path) -> None:
    (tmp_path / "statusd.py").write_text(page_example(), encoding="utf-8")
    done = run(tmp_path, "-c", PROGRAM, str(tmp_path))
    assert "The collector 'statusd' needs STATUSD_URL and STATUSD_TOKEN" in done.stderr


def test_it_passes_the_project_s_own_checks(tmp_path: Path) -> None:
    file = tmp_path / "statusd.py"
    file.write_text(page_example(), encoding="utf-8")
    for tool in (["ruff", "check", "--config", str(ROOT / "pyproject.toml")], ["mypy", "--strict"]):
        done = subprocess.run(
            [sys.executable, "-m", *tool, str(file)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout
