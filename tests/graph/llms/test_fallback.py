"""Whatever the model does, there is an answer that says who gave it."""

from dataclasses import replace

import pytest

from graph.llms.base import LlmError
from graph.llms.fallback import FallbackAnalyst
from graph.llms.rules import RulesAnalyst, explain
from graph.llms.scripted import ScriptedAnalyst
from graph.state import Claim, RootCause
from tests.graph.llms import incidents

EVIDENCE = incidents.pool_exhaustion()
ANALYSIS = incidents.analysis(EVIDENCE)
PLAN = incidents.plan(EVIDENCE, explain(EVIDENCE, "checkout-service"))


def told(*claims: str, component: str | None = "payment-service") -> RootCause:
    return RootCause(
        component=component,
        category="connection_pool_exhaustion",
        title="Pool exhausted",
        mechanism="Requests wait.",
        claims=tuple(Claim(text=text, evidence=("E1",), verified=True) for text in claims),
        confidence="high",
        engine="gpt-4o",
    )


def behind(primary: ScriptedAnalyst) -> FallbackAnalyst:
    return FallbackAnalyst(primary, RulesAnalyst())


async def explained(primary: ScriptedAnalyst) -> RootCause:
    return (await behind(primary).analyze(ANALYSIS)).root_cause


async def test_a_supported_answer_is_kept() -> None:
    answer = await explained(ScriptedAnalyst(told("50 active.", "999 active.")))
    assert (answer.engine, answer.engine_note, answer.title) == ("gpt-4o", "", "Pool exhausted")


async def test_an_honest_shrug_is_kept() -> None:
    answer = await explained(ScriptedAnalyst(told(component=None)))
    assert (answer.component, answer.engine) == (None, "gpt-4o")


async def test_a_failure_is_answered_by_the_rules() -> None:
    broken = ScriptedAnalyst(error=LlmError("gpt-4o timed out after 60 s"))
    answer = await explained(broken)
    assert (answer.component, answer.engine) == ("payment-service", "rules")
    assert answer.engine_note == "gpt-4o timed out after 60 s; the rules engine answered"
    options = (await behind(broken).plan(PLAN)).options
    assert {(o.engine, o.engine_note) for o in options} == {("rules", answer.engine_note)}
    assert len(options) > 3  # three, and their spares


async def test_the_note_is_in_the_language_that_was_asked_for() -> None:
    broken = behind(ScriptedAnalyst(error=LlmError("gpt-4o answered 503.")))
    cause = (await broken.analyze(replace(ANALYSIS, language="ko"))).root_cause
    assert cause.engine_note == "gpt-4o answered 503 (규칙 엔진이 대신 답함)"
    options = (await broken.plan(replace(PLAN, language="ko"))).options
    assert {o.engine_note for o in options} == {cause.engine_note}


@pytest.mark.parametrize("lie", [told("999 active."), told(), told("50 active.", component="billing-service")])
async def test_an_answer_without_support_is_replaced(lie: RootCause) -> None:
    answer = await explained(ScriptedAnalyst(lie))
    assert (answer.component, answer.engine) == ("payment-service", "rules")
    assert "nothing that the evidence supports" in answer.engine_note


async def test_an_empty_plan_is_replaced() -> None:
    options = (await behind(ScriptedAnalyst(told())).plan(PLAN)).options
    assert options[0].engine_note == "scripted proposed no action; the rules engine answered"


async def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(ZeroDivisionError):
        await behind(ScriptedAnalyst(error=ZeroDivisionError())).analyze(ANALYSIS)


async def test_the_script_keeps_what_it_was_asked() -> None:
    script = ScriptedAnalyst(told(), delay_s=0.001)
    await script.analyze(ANALYSIS)
    await script.plan(PLAN)
    assert (script.analyses, script.plans) == ([ANALYSIS], [PLAN])
    with pytest.raises(LlmError):
        await ScriptedAnalyst().analyze(ANALYSIS)
