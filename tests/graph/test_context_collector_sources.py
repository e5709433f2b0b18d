"""Five sources at once, over real HTTP: one slow, one hanging, one failing, one huge, one lying."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests import processes
from tests.graph import vendors

BOUND_S = 8.0


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the step found, in a process of its own: its memory is measured."""
    folder = tmp_path_factory.mktemp("sources")
    port, result = processes.free_port(), folder / "told.json"
    served = processes.spawn(vendors.run_vendors, folder / "vendors.log", os.environ, port)
    try:
        url = f"http://127.0.0.1:{port}"
        processes.wait_until(lambda: processes.answers(f"{url}/good/0?start=0&end=60"), "the vendors")
        step = processes.spawn(vendors.run_step, folder / "step.log", os.environ, url, BOUND_S, str(result))
        step.join(60)
        assert step.exitcode == 0, (folder / "step.log").read_text()[-3000:]
        yield json.loads(result.read_text())
    finally:
        processes.kill(served)


def gaps(told: dict[str, Any], source: str) -> list[dict[str, str]]:
    return [gap for gap in told["gaps"] if gap["source"] == source]


def test_the_step_ends_within_its_bound_and_leaves_nothing_running(told: dict[str, Any]) -> None:
    assert 1.0 < told["took_s"] < BOUND_S + 1.5  # ranking, and a machine that is busy
    assert told["tasks"] == 1


def test_memory_stays_bounded(told: dict[str, Any]) -> None:
    assert told["grew_mb"] < 150


def test_the_slow_source_is_read_whole_and_its_findings_stand(told: dict[str, Any]) -> None:
    assert gaps(told, "slow") == []
    seen = told["seen"]["slow"]
    assert seen["points"] == [65]
    assert seen["lines"] == 9
    found = {(f["kind"], f["component"]) for f in told["findings"] if f["source"] == "slow"}
    assert {("metric", "shop"), ("log", "shop")} <= found
    assert told["suspects"][0] == "shop"


def test_the_hanging_source_is_a_gap(told: dict[str, Any]) -> None:
    [gap] = gaps(told, "hanging")
    assert gap["reason"] == "timeout"
    assert "AUTOPILOT_COLLECT_S" in gap["mend"]


def test_the_failing_source_is_a_gap(told: dict[str, Any]) -> None:
    [gap] = gaps(told, "failing")
    assert gap["reason"] == "unreachable"
    assert "answered 500" in gap["detail"]
    assert "FAILING_URL" in gap["mend"]


def test_of_the_huge_source_is_kept_what_fits_and_said_what_does_not(told: dict[str, Any]) -> None:
    seen, found = told["seen"]["huge"], gaps(told, "huge")
    assert {gap["reason"] for gap in found} <= {"truncated", "timeout"}
    assert any("one answer is larger than 8,000,000 bytes" in gap["detail"] for gap in found)
    assert all(gap["mend"] for gap in found)
    assert seen["bytes"] < 41_000_000
    assert seen["lines"] > 20_000
    assert seen["rows"] <= 20_000


def test_the_lying_source_is_believed_only_where_it_can_be(told: dict[str, Any]) -> None:
    seen, found = told["seen"]["lying"], gaps(told, "lying")
    assert seen["points"] == [1]
    assert seen["spans"] == 0
    assert seen["changes"] == [2026]
    assert seen["lines"] == 0
    details = sorted(gap["detail"] for gap in found)
    assert details == [
        "7 rows were not understood: lying",
        "not believed, and dropped: 1 changes far outside the time asked for, 2 points far outside the time asked for,"
        " 2 points that are no finite numbers, 1 spans far outside the time asked for, 2 spans of an impossible length",
        "not believed, and dropped: 1 log lines outside the time asked for,"
        " 1 rows that claim to be more than 5,000,000 log lines",
    ]
    assert {gap["reason"] for gap in found} == {"failed"}
