"""How far an answer can be believed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.base import Gap, GapReason
from graph.confidence import UNFORESEEN, Inputs, certainty, confident, word
from graph.grounding import ground, known_components
from graph.state import Assessment, Claim, Evidence, Hop, Language, RootCause
from tests.graph.llms import incidents

EVIDENCE = incidents.pool_exhaustion()
COMPONENTS = known_components(incidents.scope(), EVIDENCE)
SHARES = st.floats(0, 1)
INPUTS = st.builds(
    Inputs, prior=SHARES, lead=SHARES, verified=SHARES, path=SHARES, unseen=st.integers(0, 9), doubted=st.booleans()
)


def assessed(sure: float, **changes: object) -> Evidence:
    assessment = Assessment(state="incident", trouble=1.0, certainty=sure, abstains=sure < 0.5)
    return EVIDENCE.model_copy(update={"assessment": assessment.model_copy(update=changes)})


def answer(component: str | None = "payment-service", **changes: object) -> RootCause:
    fields: dict[str, object] = {
        "component": component,
        "category": "connection_pool_exhaustion",
        "title": "Connection pool exhausted",
        "mechanism": "",
        "claims": (Claim(text="50 active.", evidence=("E1",)), Claim(text="1,284 errors.", evidence=("E2",))),
        "confidence": "high",
    }
    return RootCause.model_validate(fields | changes)


def shown(answer: RootCause, evidence: Evidence) -> RootCause:
    return confident(ground(answer, evidence, COMPONENTS), evidence)


def sure(answer: RootCause, evidence: Evidence) -> float:
    found = shown(answer, evidence).certainty
    assert found is not None
    return found


@given(INPUTS, SHARES)
def test_it_rises_with_what_speaks_for_the_answer(inputs: Inputs, more: float) -> None:
    for name in ("prior", "lead", "verified", "path"):
        better = replace(inputs, **{name: max(getattr(inputs, name), more)})
        assert certainty(better) >= certainty(inputs)


@given(INPUTS, st.integers(0, 9))
def test_it_falls_with_what_speaks_against_it(inputs: Inputs, more: int) -> None:
    assert certainty(replace(inputs, unseen=inputs.unseen + more)) <= certainty(inputs)
    assert certainty(replace(inputs, doubted=True)) <= certainty(replace(inputs, doubted=False))


@given(INPUTS)
def test_it_is_a_chance_and_never_more_than_rankings(inputs: Inputs) -> None:
    assert 0.0 < certainty(inputs) <= max(inputs.prior, 0.001) + 1e-9


@pytest.mark.parametrize(("chance", "name"), [(0.8, "high"), (0.79, "medium"), (0.5, "medium"), (0.49, "low")])
def test_words_are_thresholds(chance: float, name: str) -> None:
    assert word(chance) == name


def test_rankings_first_suspect_with_verified_claims_keeps_rankings_certainty_but_for_what_nobody_foresaw() -> None:
    found = shown(answer(), assessed(0.95))
    assert found.certainty == pytest.approx(0.95 * (1 - UNFORESEEN), abs=0.02)
    assert found.confidence == "high"
    assert found.certainty_why == (
        "ranking's first suspect, with a certainty of 95%",
        "the lead over the next suspect is 55%",
        "2 of 2 claims verified",
        "1 of 1 hops of the path pass all three checks",
        "a tenth less, for what nobody foresaw",
    )


def test_nothing_verified_is_never_more_than_low() -> None:
    lies = answer(claims=(Claim(text="51 active.", evidence=("E1",)),))
    assert shown(lies, assessed(0.98)).confidence == "low"
    assert shown(answer(claims=()), assessed(0.98)).confidence == "low"


def test_half_of_the_claims_costs_some_of_it() -> None:
    half = answer(claims=(answer().claims[0], Claim(text="51 active.", evidence=("E1",))))
    assert 0.3 < sure(half, assessed(0.9)) < sure(answer(), assessed(0.9))


def test_another_suspect_gets_what_ranking_leaves_and_an_unsuspected_component_next_to_nothing() -> None:
    second = sure(answer("checkout-service"), assessed(0.7))
    nobody = sure(answer("orders-db"), assessed(0.7))
    assert nobody < 0.02 < second <= 0.3
    assert "랭킹" in shown(answer("orders-db", language="ko"), assessed(0.7)).certainty_why[0]


def test_an_unproven_path_and_hidden_telemetry_lower_it() -> None:
    evidence = assessed(0.8)
    hop = Hop(cause="payment-service", effect="checkout-service", structural=True, statistical=True, temporal=False)
    unproven = evidence.suspects[0].model_copy(update={"path": (hop,)})
    gap = Gap(source="aws", reason=GapReason.FORBIDDEN, detail="metrics of payment-service were refused")
    for worse in ({"suspects": (unproven, *evidence.suspects[1:])}, {"gaps": (gap,)}):
        assert sure(answer(), evidence.model_copy(update=worse)) < sure(answer(), evidence)


def test_nothing_wrong_at_all_leaves_little() -> None:
    assert shown(answer(), assessed(0.9, state="no_incident", trouble=0.1)).confidence == "low"


@pytest.mark.parametrize("said", ["high", "medium"])
def test_what_the_analyst_says_for_itself_counts_for_nothing(said: str) -> None:
    assert sure(answer(confidence=said), assessed(0.6)) == sure(answer(), assessed(0.6))
    assert sure(answer(confidence="low"), assessed(0.6)) < sure(answer(), assessed(0.6))
    assert sure(answer(certainty=1.0), assessed(0.6)) == sure(answer(), assessed(0.6))


def test_without_a_component_it_is_inconclusive() -> None:
    found = shown(answer(None, certainty=0.9), assessed(0.9))
    assert (found.confidence, found.certainty, found.certainty_why) == ("inconclusive", None, ())


@pytest.mark.parametrize("language", ["en", "ko"])
@pytest.mark.parametrize("said", ["high", "low"])
def test_computing_it_twice_changes_nothing(said: str, language: Language) -> None:
    once = shown(answer(confidence=said, language=language), assessed(0.7))
    assert shown(once, assessed(0.7)) == once
