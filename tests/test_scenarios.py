"""Recorded incidents with a known cause, one a folder of ``tests/scenarios``: replayed, ranked, compared."""

import json
from pathlib import Path

import pytest

from app.evaluation import ranked
from collectors.replay import load_bundle

SCENARIOS = sorted(folder for folder in (Path(__file__).parent / "scenarios").iterdir() if folder.is_dir())
LARGEST = 1_000_000  # bytes of a folder, as everybody who clones gets it


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 2


@pytest.mark.parametrize("folder", SCENARIOS, ids=lambda folder: folder.name)
def test_the_first_suspect_is_the_cause(folder: Path) -> None:
    expected = json.loads((folder / "expected.json").read_text())
    evidence = ranked(load_bundle(folder))
    assert expected == {"component": evidence.suspects[0].component}, [s.why for s in evidence.suspects]


@pytest.mark.parametrize("folder", SCENARIOS, ids=lambda folder: folder.name)
def test_it_may_be_shared(folder: Path) -> None:
    assert load_bundle(folder).manifest.sanitised
    assert sum(file.stat().st_size for file in folder.iterdir()) < LARGEST
