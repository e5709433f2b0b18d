"""``autopilot demo``, as a stranger types it."""

import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from tests.conftest import ROOT
from tests.processes import wait_until


def _demo(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "app", "demo", "--no-console", "--port", "0", "--speed", "120", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "160"},
    )


def test_a_choice_on_the_command_line_ends_with_a_verified_result() -> None:
    demo = _demo("--scenario", "bad-deploy", "--choice", "1")
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    for said in ("202, incident inc_", "A deploy broke checkout", "rollback_ecs_service", "Verdict", "resolved"):
        assert said in output


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "terminal closed"])
def test_the_end_stops_everything_it_started(ending: signal.Signals) -> None:
    demo = _demo()
    assert demo.stdout is not None
    for line in demo.stdout:
        if "Live in the browser" in line:
            break
    children = psutil.Process(demo.pid).children(recursive=True)
    assert len(children) >= 3, "shop, API and worker"
    demo.send_signal(ending)
    assert demo.wait(30) == 130
    demo.stdout.close()
    wait_until(lambda: not any(child.is_running() for child in children), "its processes to end", 10)


def test_without_a_terminal_a_choice_must_be_named() -> None:
    demo = _demo("--scenario", "bad-deploy")
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 1
    assert output.rstrip().endswith("there is no terminal to ask for a decision: name one with --choice")


def test_a_choice_that_does_not_exist_is_told() -> None:
    demo = _demo("--choice", "7")
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert output.strip() == "autopilot: --choice is 1, 2, 3 or manual, not '7'"


def test_a_port_that_another_server_has_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        demo = _demo("--port", str(port))  # the later --port holds
        output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert output.strip() == f"autopilot: port {port} is in use; choose another with --port, 0 picks a free one"


def test_make_demo_takes_a_port() -> None:
    done = subprocess.run(["make", "-n", "demo", "PORT=9090"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--port 9090" in done.stdout
