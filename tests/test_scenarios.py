"""Incidents with a known cause, one a folder of ``tests/scenarios``: each can be read, shared and made again."""

import gzip
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field

from app.catalogue import load
from app.clock import SystemClock
from app.evaluation import ranked
from app.wiring import create_executors, operations_by_name
from collectors.replay import Bundle, load_bundle
from graph.catalogue import Catalogue
from graph.llms.playbooks import Category
from graph.state import Alert
from tests.stories import builders

SCENARIOS = sorted(folder for folder in (Path(__file__).parent / "scenarios").iterdir() if folder.is_dir())
TOLD = [folder for folder in SCENARIOS if (folder / "autopilot.yaml").exists()]
RECORDED = [folder for folder in SCENARIOS if folder not in TOLD]
AGAIN = ("s004_booking_timeouts", "s008_quote_failures")
LARGEST = 300_000  # bytes of a folder, as everybody who clones gets it
PRIVATE = re.compile(
    r"[\w.+-]+@[\w-]+\.[a-z]{2,}\b"  # an e-mail address; the next line: an address that is not of a private network
    r"|\b(?!10\.|127\.|169\.254\.|172\.(?:1[6-9]|2\d|3[01])\.|192\.168\.|0\.)(?:\d{1,3}\.){3}\d{1,3}(?=:\d|/\d|\s|$)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bsk-[A-Za-z0-9]{8,}|\bghp_\w{8,}|\bxox[abp]-"
)


class _Expected(BaseModel):
    """``expected.yml``: see the README of the scenarios."""

    model_config = ConfigDict(extra="forbid")

    component: str | None
    components: list[str] = []
    category: Category | list[Category]
    must_cite: list[str]
    must_not_blame: list[str]
    acceptable_operations: list[str]
    forbidden_operations: list[str]
    why: str = Field(min_length=20)

    def right(self) -> set[str]:
        """Whom to blame."""
        return {*self.components, *([self.component] if self.component else [])}


@cache
def _bundle(folder: Path) -> Bundle:
    return load_bundle(folder)


def _expected(folder: Path) -> _Expected:
    return _Expected.model_validate(yaml.safe_load((folder / "expected.yml").read_text(encoding="utf-8")))


def _components(bundle: Bundle) -> set[str]:
    """Everything that has a name in the recording."""
    edges = {name for edge in bundle.edges for name in (edge.caller, edge.callee)}
    rows = {*(line.component for line in bundle.logs), *(span.component for span in bundle.spans)}
    return edges | rows | {series.ref.component for series in bundle.series}


def _said(bundle: Bundle) -> Iterator[str]:
    """What a finding can quote."""
    yield from (f"{line.component} {line.logger} {line.message}" for line in bundle.logs)
    yield from (f"{one.ref.component} {one.ref.metric}" for one in bundle.series)
    yield from (f"{span.component} {span.operation} {span.peer} {span.error}" for span in bundle.spans)
    yield from (f"{change.component} {change.kind} {change.title}" for change in bundle.changes)
    yield from (f"{status.component} {status.name} {status.detail}" for status in bundle.statuses)


def named(folder: Path) -> str:
    return folder.name


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 16
    assert [folder.name[:3] for folder in SCENARIOS] == [f"{n:03}" for n in range(1, len(SCENARIOS) + 1)]


@pytest.mark.parametrize("folder", RECORDED, ids=named)
def test_the_first_suspect_of_a_recorded_one_is_the_cause(folder: Path) -> None:
    evidence = ranked(_bundle(folder))
    assert evidence.suspects[0].component in _expected(folder).right(), [s.why for s in evidence.suspects]


@pytest.mark.parametrize("folder", SCENARIOS, ids=named)
def test_it_can_be_read(folder: Path) -> None:
    bundle = _bundle(folder)
    assert Alert.model_validate(bundle.alert).service in _components(bundle)
    assert bundle.logs or bundle.series


@pytest.mark.parametrize("folder", SCENARIOS, ids=named)
def test_it_may_be_shared(folder: Path) -> None:
    assert _bundle(folder).manifest.sanitised
    assert sum(file.stat().st_size for file in folder.iterdir()) < LARGEST
    assert not {found[0] for said in _said(_bundle(folder)) if (found := PRIVATE.search(said))}


@pytest.mark.parametrize("folder", SCENARIOS, ids=named)
def test_the_answer_is_about_what_is_there(folder: Path) -> None:
    expected, bundle = _expected(folder), _bundle(folder)
    components = _components(bundle)
    assert {*expected.right(), *expected.must_not_blame} <= components
    assert not expected.right() & {*expected.must_not_blame}
    text = "\n".join(_said(bundle)).lower()
    assert [word for word in expected.must_cite if word not in text] == []
    assert [word for word in expected.must_cite if word != word.lower()] == []


@pytest.mark.parametrize("folder", SCENARIOS, ids=named)
def test_its_operations_exist(folder: Path) -> None:
    expected = _expected(folder)
    known = set(operations_by_name(create_executors(("rehearsal",), Catalogue(), SystemClock())))
    assert {*expected.acceptable_operations, *expected.forbidden_operations} <= known
    assert not {*expected.acceptable_operations} & {*expected.forbidden_operations}


@pytest.mark.parametrize("folder", TOLD, ids=named)
def test_its_catalogue_knows_the_alerted_service(folder: Path) -> None:
    catalogue = load(folder / "autopilot.yaml").catalogue()
    assert Alert.model_validate(_bundle(folder).alert).service in catalogue.services
    assert {edge.caller for edge in _bundle(folder).edges} <= set(catalogue.services)


@pytest.mark.parametrize("folder", TOLD, ids=named)
def test_its_name_does_not_give_the_answer_away(folder: Path) -> None:
    expected = _expected(folder)
    category = expected.category if isinstance(expected.category, list) else [expected.category]
    assert not any(one.value.replace("_", "-") in folder.name for one in category)
    assert not any(component in folder.name for component in expected.right())


@pytest.mark.parametrize("module", AGAIN)
def test_a_story_told_again_is_the_same(module: str, tmp_path: Path) -> None:
    again = builders()[module]().write(tmp_path)
    kept = next(folder for folder in SCENARIOS if folder.name == again.name)
    assert _contents(again) == _contents(kept)


def _contents(folder: Path) -> dict[str, bytes]:
    """What the files hold: compressed, it depends on the zlib at hand."""
    return {
        file.name: gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for file in folder.iterdir()
    }


def test_every_scenario_without_a_recording_is_told() -> None:
    assert {build().name for build in builders().values()} == {folder.name for folder in TOLD}
