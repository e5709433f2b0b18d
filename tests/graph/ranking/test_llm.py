"""LLM applications: what a call takes, and whose its failures are."""

from collections.abc import Mapping

import pytest

from collectors.base import LogLine, Series, SeriesRef, Span
from graph.ranking import llm
from graph.ranking.deviation import Deviation
from graph.ranking.windows import Windows
from tests.graph.ranking import incidents

WINDOWS = Windows.of(incidents.scope("assistant"))
ONSET = incidents.INCIDENT.timestamp()
USUAL = {"calls": 20.0, "errors": 0.0, "tokens.input": 20_000.0, "tokens.output": 4_000.0, "cost_usd": 0.4}


def series(metric: str, normal: float, now: float, model: str = "claude-x") -> Series:
    """A sample a minute."""
    ref = SeriesRef(source="langfuse", component="assistant", metric=f"{metric}{model and f'{{{model}}}'}", query="q")
    times = tuple(incidents.START.timestamp() + 60.0 * i for i in range(65))
    return Series(ref=ref, epoch_s=times, values=tuple(now if t >= ONSET else normal for t in times))


def found(now: Mapping[str, float], *more: Series, errors: str = "", spans: bool = True) -> dict[str, Deviation]:
    """By signal, if those sums a minute are other than usual; ``errors`` is what failed calls say."""
    given = [series(f"llm.{m}", usual, now.get(m, usual)) for m, usual in USUAL.items()]
    failed = [
        Span(
            component="assistant",
            trace_id=f"t{n}",
            span_id=f"s{n}",
            operation="triage claude-x",
            start_s=ONSET + n,
            duration_ms=5.0,
            kind="client",
            peer="anthropic",
            error=errors,
        )
        for n in range(10)
    ]
    told = llm.deviations([("langfuse", s) for s in (*given, *more)], WINDOWS, failed if spans and errors else [])
    return {d.signal: d for d in told}


def test_nothing_unusual_is_nothing_found() -> None:
    assert found({}) == {}


def test_more_traffic_is_no_deviation() -> None:
    assert found({m: 3 * usual for m, usual in USUAL.items()}) == {}


def test_tokens_a_call_rise_after_a_change_of_the_prompt() -> None:
    told = found({"tokens.input": 80_000.0, "cost_usd": 1.2})
    assert set(told) == {"llm prompt tokens per call", "llm cost per call"}
    tokens = told["llm prompt tokens per call"]
    assert (tokens.component, tokens.observed, tokens.baseline, tokens.unit) == (
        "assistant",
        4000.0,
        1000.0,
        "tokens/call",
    )
    assert tokens.at_s == ONSET
    assert "at 20 calls a minute instead of 20" in tokens.summary
    assert tokens.strength > 0.2
    assert told["llm cost per call"].unit == "USD/call"


def test_a_dearer_model_shows_in_the_cost_of_all_calls() -> None:
    other = [series(f"llm.{m}", 0.0, usual, "gpt-y") for m, usual in USUAL.items() if m != "cost_usd"]
    told = found(dict.fromkeys(USUAL, 0.0), *other, series("llm.cost_usd", 0.0, 4.0, "gpt-y"))
    assert set(told) == {"llm cost per call"}
    assert told["llm cost per call"].observed == pytest.approx(0.2)


def test_an_agent_in_circles_calls_more_often_for_the_same_requests() -> None:
    more = {m: 5 * usual for m, usual in USUAL.items()}
    assert set(found(more, series("request_rate", 3.0, 3.0, ""))) == {"llm calls per request"}
    assert found(more, series("request_rate", 3.0, 15.0, "")) == {}


@pytest.mark.parametrize(
    ("errors", "more_calls", "blamed"),
    [
        ("529 overloaded_error", 1.0, "anthropic"),
        ("503 Service Unavailable", 3.0, "anthropic"),
        ("Request timed out.", 1.0, "anthropic"),
        ("blocked by content filter", 1.0, "anthropic"),
        ("429 rate_limit_error", 1.0, "anthropic"),
        ("429 rate_limit_error", 3.0, "assistant"),
        ("400 prompt is too long: 210000 tokens > 200000", 1.0, "assistant"),
        ("KeyError: 'answer'", 1.0, "assistant"),
    ],
)
def test_whose_the_errors_are(errors: str, more_calls: float, blamed: str) -> None:
    now = {m: more_calls * usual for m, usual in USUAL.items()} | {"errors": more_calls * 10.0}
    (failing,) = found(now, errors=errors).values()
    assert failing.component == blamed
    assert failing.signal == "llm errors per call{claude-x}"
    assert failing.channel == "error", "the same failures as any series of errors: counted once"
    assert (failing.observed, failing.baseline, failing.unit) == (50.0, 0.0, "%")
    assert failing.excerpt == errors
    assert failing.harm > 0


def test_log_lines_tell_the_reason_where_no_span_does() -> None:
    lines = [
        LogLine(
            component="assistant", at=incidents.INCIDENT, level="error", message="claude-x: Overloaded", logger="llm"
        )
    ]
    given = [("langfuse", series(f"llm.{m}", usual, 10.0 if m == "errors" else usual)) for m, usual in USUAL.items()]
    (failing,) = llm.deviations(given, WINDOWS, logs=lines)
    assert failing.component == "assistant"  # nobody says whose model it is
    assert "overloaded at the provider" in failing.summary


def test_one_model_of_two_that_fails_is_named() -> None:
    other = [series(f"llm.{m}", usual, usual, "gpt-y") for m, usual in USUAL.items()]
    assert set(found({"errors": 10.0}, *other)) == {"llm errors per call{claude-x}"}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.0, 0.0, 1e308])
def test_odd_values_do_not_raise(value: float) -> None:
    for measure in USUAL:
        for d in found({measure: value}).values():
            assert 0.0 <= d.strength <= 1.0
