"""The playbooks as data: what a mistake in a file says, and which failures they tell apart."""

import re
from pathlib import Path
from string import Formatter
from typing import get_args

import pytest
import yaml

from graph.llms.diagnosis import diagnose
from graph.llms.playbooks import (
    CONDITIONS,
    FOLDER,
    OPERATIONS,
    PHRASES,
    PLAYBOOKS,
    REMEDIES,
    Category,
    Condition,
    PlaybookError,
    Remedy,
    Text,
    playbooks_in,
)
from graph.state import Evidence
from tests.graph.llms import incidents
from tests.graph.llms.failures import FAILURES, Failure, log, metric

ALL_TEXTS = [
    *(text for p in PLAYBOOKS.values() for text in (p.title, p.mechanism, *p.questions)),
    *(text for r in REMEDIES.values() for text in (r.title, r.description)),
    *(known.told for known in CONDITIONS.values()),
    *(text for o in OPERATIONS.values() for text in (o.does, o.without, o.undone) if text),
    *PHRASES.values(),
]


def operations_of(remedy: Remedy) -> set[str]:
    """Whatever the service runs on."""
    return {step.operation for way in remedy.ways for step in way}


@pytest.mark.parametrize("failure", FAILURES, ids=[f"{f.category}-{f.component}" for f in FAILURES])
def test_tells_failures_apart(failure: Failure) -> None:
    evidence = failure.evidence()
    assert diagnose(evidence.suspects[0], evidence).category == failure.category


def test_every_category_but_unknown_has_a_failure_that_shows_it() -> None:
    assert {failure.category for failure in FAILURES} == set(Category)


@pytest.mark.parametrize("failure", [f for f in FAILURES if f.category != "unknown"], ids=lambda f: f.category)
def test_a_flood_of_generic_lines_decides_nothing(failure: Failure) -> None:
    flood = tuple(log(f"worker {n}: request failed with error: timed out") for n in range(12))
    evidence = Failure(failure.category, failure.component, (*failure.seen, *flood), failure.kind).evidence()
    assert diagnose(evidence.suspects[0], evidence).category == failure.category


def test_a_stray_line_at_the_end_of_the_list_does_not_outweigh_what_stands_first() -> None:
    busy = tuple(metric(f"cpu.core{n}.busy", 20, 99, "%") for n in range(9))
    evidence = Failure("", "pricing", (*busy, log("Retry-After: 3")), "").evidence()
    assert diagnose(evidence.suspects[0], evidence).category == "cpu_saturation"


@pytest.mark.parametrize("text", ["connection pool warmed up", "certificates", "memory", "429 items imported"])
def test_a_harmless_word_on_a_change_of_something_else_shows_nothing(text: str) -> None:
    change = incidents.finding(1, "change", "shop", text, f"shop: other “{text}” at 09:00:00 UTC")
    evidence = Evidence(digest="d", findings=(change,), suspects=(incidents.suspect("shop", "E1"),))
    assert diagnose(evidence.suspects[0], evidence).category == "unknown"


@pytest.mark.parametrize("text", ALL_TEXTS, ids=lambda text: text.en[:30])
def test_both_languages_say_the_same(text: Text) -> None:
    assert _fields(text.ko) == _fields(text.en)
    assert re.search("[가-힣]", text.ko) or text.ko.strip() == "→"


@pytest.mark.parametrize("category", list(Category))
def test_playbooks_hold_no_numbers(category: Category) -> None:
    playbook = PLAYBOOKS[category]
    for text in (playbook.title, playbook.mechanism):
        assert not any(character.isdigit() for character in text.en + text.ko)


def test_every_condition_is_known_and_used() -> None:
    uses = [use for playbook in PLAYBOOKS.values() for use in playbook.remedies]
    used = {c for use in uses for c in (*use.needs, *use.unless)} | {c for r in REMEDIES.values() for c in r.unless}
    assert set(CONDITIONS) == set(get_args(Condition)) == used


def test_every_remedy_is_used_and_every_category_says_what_to_look_at() -> None:
    assert {use.remedy for playbook in PLAYBOOKS.values() for use in playbook.remedies} == set(REMEDIES)
    assert all(playbook.questions for playbook in PLAYBOOKS.values())


def test_what_starts_anew_is_never_advised_where_starts_fail_or_data_would_go() -> None:
    starting = {
        "restart_ecs_task",
        "scale_ecs_service",
        "stop_ecs_task",
        "restart_deployment",
        "scale_deployment",
        "refresh_instances",
        "scale_auto_scaling_group",
    }
    for remedy in REMEDIES.values():
        if starting & operations_of(remedy):
            assert set(remedy.unless) == {"starts_fail", "holds_data"}


def test_a_roll_back_always_needs_a_deployment() -> None:
    for playbook in PLAYBOOKS.values():
        for use in playbook.remedies:
            if {"rollback_ecs_service", "undo_deployment", "shift_lambda_alias"} & operations_of(REMEDIES[use.remedy]):
                assert {"deployed_before", "deployed_shortly_before", "deployed_right_before"} & set(use.needs)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"symptoms": [{"because": "b", "words": ["("], "weight": 2}]}, "unknown.yml: symptoms.0.words: .*'\\('"),
        ({"symptoms": [{"because": "b", "words": ["a"], "weight": 99}]}, "unknown.yml: symptoms.0.weight"),
        ({"remedy": []}, "unknown.yml: remedy: Extra inputs"),
        ({"title": {"en": "only English"}}, "unknown.yml: title.ko: Field required"),
        (
            {"remedies": [{"remedy": "pray", "because": "b", "intent": "fix", "benefit": 0.1}]},
            "unknown.yml: remedies: pray is not in remedies.yml",
        ),
        (
            {"remedies": [{"remedy": "restart", "intent": "fix", "benefit": 0.1}]},
            "unknown.yml: remedies.0.because: Field required",
        ),
        (
            {"remedies": [{"remedy": "restart", "because": "b", "intent": "fix", "benefit": 0.1, "needs": ["luck"]}]},
            "unknown.yml: remedies.0.needs.0: Input should be 'deployed_shortly_before'",
        ),
    ],
)
def test_a_mistake_is_told_with_its_file(tmp_path: Path, change: dict[str, object], complaint: str) -> None:
    folder = _copied(tmp_path)
    path = folder / "unknown.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text("utf-8")), **change}), "utf-8")
    with pytest.raises(PlaybookError, match=complaint):
        playbooks_in(folder, REMEDIES)


def test_a_file_that_is_missing_broken_or_of_no_category_is_told(tmp_path: Path) -> None:
    folder = _copied(tmp_path)
    (folder / "sunspots.yml").write_text("{}", "utf-8")
    with pytest.raises(PlaybookError, match=r"sunspots\.yml: there is no such category"):
        playbooks_in(folder, REMEDIES)
    (folder / "disk_full.yml").write_text("title: [", "utf-8")
    with pytest.raises(PlaybookError, match=r"disk_full\.yml: while parsing"):
        playbooks_in(folder, REMEDIES)
    (folder / "disk_full.yml").unlink()
    with pytest.raises(PlaybookError, match=r"disk_full\.yml: No such file"):
        playbooks_in(folder, REMEDIES)


def _copied(folder: Path) -> Path:
    for path in (FOLDER / "categories").glob("*.yml"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name}
