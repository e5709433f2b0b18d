"""The final prompts of every scenario, as files: a change to what a model reads is seen in the diff.

``pytest -n0 tests/graph/llms/test_prompts.py --force-regen`` writes them anew.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from pytest_regressions.file_regression import FileRegressionFixture

from app.clock import SystemClock
from app.evaluation import Case
from app.scenarios import Scenario, read
from app.studio import MemorySnapshots
from app.wiring import create_executors, operations_by_name
from collectors.replay import ReplayCollector
from graph.llms.analyst import ModelAnalyst, prompt
from graph.llms.base import AnalysisRequest, LlmError, OperationOnMenu, PlanRequest
from graph.llms.chat import Question
from graph.llms.rules import explain
from graph.llms.scripted import ScriptedChatModel
from graph.llms.tokens import tokens
from graph.masking import Masker
from graph.reads import EvidenceReader
from graph.state import Evidence

SCENARIOS = sorted(folder for folder in (Path(__file__).parents[2] / "scenarios").iterdir() if folder.is_dir())
MASKER = Masker(b"the same in every run")


def asked(*asking: Callable[[ModelAnalyst], Coroutine[Any, Any, object]]) -> list[Question]:
    """What a model that never answers is asked; of a plan where nothing can be acted on, it is not."""
    chat = ScriptedChatModel(LlmError("enough"))
    for ask in asking:
        with suppress(LlmError):
            asyncio.run(ask(ModelAnalyst(chat, MASKER)))
    return chat.questions


def reader(case: Case, evidence: Evidence, scenario: Scenario) -> EvidenceReader:
    collector = ReplayCollector(scenario.bundle)
    return EvidenceReader(
        [collector], MemorySnapshots(), MASKER, scope=case.scope, evidence=evidence, incident_id="inc_1", round_=1
    )


def planning(case: Case, evidence: Evidence, scenario: Scenario) -> PlanRequest:
    executors = create_executors(("rehearsal",), scenario.catalogue, SystemClock())
    return PlanRequest(
        alert=case.alert,
        scope=case.scope,
        evidence=evidence,
        root_cause=explain(evidence, case.scope.service),
        menu=tuple(OperationOnMenu.of(one) for _, one in sorted(operations_by_name(executors).items())),
        resources=tuple(resource for _, resource in sorted(scenario.catalogue.resources().items())),
    )


@pytest.mark.parametrize("folder", SCENARIOS, ids=lambda folder: folder.name)
def test_final_prompts(folder: Path, file_regression: FileRegressionFixture) -> None:
    scenario = read(folder.name, folder)
    case = Case.of(scenario.bundle)
    evidence = MASKER.masked_evidence(case.ranked())
    request = AnalysisRequest(case.alert, case.scope, evidence, reads=reader(case, evidence, scenario))
    plan_request = planning(case, evidence, scenario)
    questions = asked(lambda analyst: analyst.analyze(request), lambda analyst: analyst.plan(plan_request))
    assert questions
    shown = [
        f"# {one.purpose.node}: {tokens(one.messages[1].content):,} tokens\n\n{one.messages[1].content}"
        for one in questions
    ]
    file_regression.check("\n\n".join(shown) + "\n", basename=folder.name, extension=".md")


@pytest.mark.parametrize("node", ["root_cause_analyzer", "action_planner"])
def test_standing_instructions(node: str, file_regression: FileRegressionFixture) -> None:
    file_regression.check(prompt(node, "ko"), basename=node, extension=".md")
