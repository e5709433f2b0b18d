"""``langgraph dev`` opens the same graph for LangGraph Studio."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from graph.flow import NODES
from tests.conftest import ROOT
from tests.processes import answers, free_port, wait_until

LANGGRAPH = shutil.which("langgraph", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@pytest.mark.skipif(LANGGRAPH is None, reason="langgraph-cli is not installed: pip install 'langgraph-cli[inmem]'")
def test_studio_sees_the_six_nodes_and_runs_to_the_decision(tmp_path: Path) -> None:
    port = free_port()
    command = [str(LANGGRAPH), "dev", "--no-browser", "--no-reload", "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path / "langgraph.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [*command, "--config", str(ROOT / "langgraph.json")],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LANGSMITH_TRACING": "false"},
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/ok"), "langgraph dev", 60)
        with httpx.Client(base_url=url, timeout=30) as client:
            assistant = client.post("/assistants/search", json={"graph_id": "autopilot"}).json()[0]["assistant_id"]
            nodes = client.get(f"/assistants/{assistant}/graph").json()["nodes"]
            assert [n["id"] for n in nodes if n["id"] in NODES] == list(NODES)
            thread = client.post("/threads", json={}).json()["thread_id"]
            alert = {
                "source": "studio",
                "title": "try",
                "service": "shop",
                "occurred_at": "2024-01-01T00:00:00Z",
                "fingerprint": "f",
                "cycle_key": "c",
            }
            run = {"assistant_id": assistant, "input": {"incident_id": "inc_studio", "alert": alert}}
            client.post(f"/threads/{thread}/runs/wait", json=run).raise_for_status()
            state = client.get(f"/threads/{thread}/state").json()
            assert state["next"] == ["RemediationDecision"], log.read_text()[-3000:]
            assert state["values"]["root_cause"]["confidence"] == "inconclusive"
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(ROOT / ".langgraph_api", ignore_errors=True)
