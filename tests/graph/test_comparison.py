"""What a re-analysis says otherwise."""

from graph.comparison import changed
from graph.state import Claim, Language, Rival, RootCause

POOL = Claim(text="50 connections are active.", evidence=("E1",), verified=True)
ERRORS = Claim(text="There are 1,284 errors.", evidence=("E2",), verified=True)
UNTRUE = Claim(text="There are 9 errors.", evidence=("E2",), verified=False, complaint="says 9")


def answer(component: str | None = "payment-service", **changes: object) -> RootCause:
    fields: dict[str, object] = {
        "component": component,
        "category": "connection_pool_exhaustion",
        "title": "Pool exhausted",
        "mechanism": "",
        "claims": (POOL,),
        "confidence": "high",
        "certainty": 0.9,
    }
    return RootCause.model_validate(fields | changes)


def test_nothing_changed_is_an_answer() -> None:
    told = changed(answer(), answer(claims=(POOL, UNTRUE)), ["Look at the database"])
    assert told[0] == "Asked again because: «Look at the database»."
    assert told[1:] == ("Nothing changed: component, category, confidence, claims and rivals are as before.",)


def test_each_difference_is_a_line() -> None:
    before = answer(rivals=(Rival(component="orders-db"), Rival(component="redis")))
    after = answer(
        "orders-db",
        category="database_degradation",
        confidence="medium",
        certainty=0.6,
        claims=(ERRORS,),
        rivals=(Rival(component="payment-service"), Rival(component="kafka")),
    )
    assert changed(before, after, ["first hint", "It is the database"]) == (
        "Asked again because: «It is the database».",
        "Root cause: payment-service → orders-db.",
        "Category: connection_pool_exhaustion → database_degradation.",
        "Confidence: high (90%) → medium (60%).",
        "No longer held: «50 connections are active.»",
        "New: «There are 1,284 errors.»",
        "Considered besides now: kafka.",
        "No longer considered: redis.",
    )


def test_a_claim_that_was_only_measured_anew_is_one_difference() -> None:
    later = ERRORS.model_copy(update={"text": "There are 2,310 errors."})
    assert changed(answer(claims=(POOL, ERRORS)), answer(claims=(POOL, later)), ()) == (
        "Measured anew: «There are 2,310 errors.»",
    )


def test_who_answered_is_told_in_words() -> None:
    assert changed(answer(engine="gpt-4o"), answer(engine="rules"), ()) == ("Answered by: gpt-4o → the rules engine.",)


def test_it_is_told_in_the_language_of_the_new_answer() -> None:
    language: Language = "ko"
    translated = POOL.model_copy(update={"text": "커넥션 50개가 사용 중이다."})
    told = changed(answer(), answer(None, language=language, claims=(translated,), confidence="low"), ())
    assert told == ("근본 원인: payment-service → 없음.", "신뢰도: 높음 (90%) → 낮음 (90%).")
