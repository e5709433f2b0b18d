"""However many log lines there are, a bounded number stands for all of them, and counts add up."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors._logs import MAX_CHARACTERS, MAX_MESSAGE, LogDigest
from collectors.base import Level, LogLine, Window, template
from graph.ranking import logs
from graph.ranking.windows import Windows

T0 = datetime(2024, 12, 20, 9, 15, 20, tzinfo=UTC)  # not at a whole minute
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=30))
BASELINE = Window(start=T0 - timedelta(minutes=50), end=T0)
LEVELS: tuple[Level, ...] = ("debug", "info", "warning", "error", "critical")


def line(
    message: str,
    seconds: float = 0.0,
    level: Level = "info",
    *,
    span: str = "",
    trace: str = "",
    count: int = 1,
    instance: str = "i-1",
) -> LogLine:
    return LogLine(
        component="payment",
        at=T0 + timedelta(seconds=seconds),
        level=level,
        message=message,
        instance=instance,
        trace_id=trace,
        span_id=span,
        count=count,
    )


def total(lines: list[LogLine]) -> int:
    return sum(x.count for x in lines)


def word(random: Random, length: int = 12) -> str:
    return "".join(random.choices("ghijklmnopqrstuvwxyz", k=length))


def traffic(random: Random, number: int) -> Iterator[LogLine]:
    """A service's usual lines; from T0 on a pool is exhausted."""
    for _ in range(number):
        seconds = random.uniform(-3000, 1800)
        if seconds > 0 and random.random() < 0.2:
            yield line(f"pool exhausted after {random.randrange(5000)} ms", seconds, "error")
        else:
            yield line(f"order {random.randrange(10**9)} paid", seconds)


def test_up_to_the_budget_every_line_is_kept_as_it_is() -> None:
    lines = [line(f"order {n}", n, trace="ab", span=f"{n:x}") for n in range(100)]
    digest = LogDigest(100, (INCIDENT, BASELINE))
    digest.extend(lines)
    assert digest.lines() == lines
    assert (digest.taken, digest.dropped, digest.outside) == (100, 0, 0)


def test_beyond_it_equal_lines_of_a_minute_become_a_count() -> None:
    digest = LogDigest(100, (INCIDENT,))
    digest.extend(line(f"order {n} paid", n / 10, instance="i-1" if n < 600 else f"i-{n}") for n in range(1200))
    first, second = digest.lines()
    assert (first.count, first.at, first.message, first.instance) == (600, T0, "order 0 paid", "i-1")
    assert (second.count, second.at) == (600, T0 + timedelta(seconds=60))
    assert second.instance == ""


def test_the_order_of_arrival_does_not_matter() -> None:
    lines = list(traffic(Random(1), 3000))
    shuffled = Random(2).sample(lines, len(lines))
    one, two = LogDigest(200, (INCIDENT, BASELINE)), LogDigest(200, (INCIDENT, BASELINE))
    one.extend(lines)
    two.extend(shuffled)
    assert one.lines() == two.lines()


@settings(deadline=None)
@given(
    st.lists(
        st.builds(
            line,
            st.sampled_from(["a 1", "a 2", "b", "c", "d", "e", "f", "g 7", "h", "i", "j"]),
            st.floats(-90_000, 90_000),
            st.sampled_from(LEVELS),
            span=st.sampled_from(["", "1", "2", "000"]),
            trace=st.sampled_from(["", "aa", "bb", "cc", "0000"]),
            count=st.integers(1, 10),
        ),
        max_size=150,
    ),
    st.integers(1, 40),
    st.booleans(),
)
def test_counts_always_add_up_and_the_bound_always_holds(lines: list[LogLine], most: int, windows: bool) -> None:
    digest = LogDigest(most, (INCIDENT, BASELINE) if windows else ())
    digest.extend(lines)
    kept = digest.lines()
    assert len(kept) <= most
    assert total(kept) + digest.dropped == digest.taken
    assert digest.taken + digest.outside == total(lines)
    assert digest.lines() == kept  # looking changes nothing


def test_no_row_lies_half_in_the_incident() -> None:
    digest = LogDigest(50, (INCIDENT, BASELINE))
    lines = [line(f"order {n}", n - 1000) for n in range(2000)]
    digest.extend(lines)
    windows = Windows(
        (T0.timestamp(), INCIDENT.end.timestamp()), ((BASELINE.start.timestamp(), BASELINE.end.timestamp()),)
    )
    in_incident = sum(x.count for x in digest.lines() if windows.in_incident(x.at.timestamp()))
    assert in_incident == 1000


@pytest.mark.parametrize("most", [200, 60])
def test_ranking_finds_the_same_in_the_digest_as_in_the_lines(most: int) -> None:
    lines = sorted(traffic(Random(3), 5000), key=lambda x: x.at)
    digest = LogDigest(most, (INCIDENT, BASELINE))
    digest.extend(lines)
    windows = Windows(
        (T0.timestamp(), INCIDENT.end.timestamp()), ((BASELINE.start.timestamp(), BASELINE.end.timestamp()),)
    )
    whole = logs.deviations([("loki", x) for x in lines], [], windows)
    seen = logs.deviations([("loki", x) for x in digest.lines()], [], windows)
    assert whole
    assert [(d.signal, d.strength, d.observed, d.baseline, d.at_s) for d in seen] == [
        (d.signal, d.strength, d.observed, d.baseline, d.at_s) for d in whole
    ]


def test_an_error_survives_a_flood_of_ordinary_templates() -> None:
    random = Random(4)
    digest = LogDigest(100)
    digest.extend(line(word(random), n / 100) for n in range(5000))
    digest.add(line("pool exhausted", 1, "error"))
    digest.add(line("retrying", 2, "warning"))
    digest.extend(line(word(random), n / 100) for n in range(5000))
    kept = digest.lines()
    assert {x.message for x in kept if x.level != "info"} == {"pool exhausted", "retrying"}
    assert len(kept) > 50
    assert digest.dropped == 10_002 - total(kept) > 0


def test_ordinary_lines_survive_a_flood_of_errors() -> None:
    """Shares of a component's lines would be wrong without them."""
    random = Random(5)
    digest = LogDigest(100)
    for n in range(5000):
        digest.add(line(word(random), n / 100, "error"))
        digest.add(line(f"order {n} paid", n / 100))
    assert total([x for x in digest.lines() if x.level == "info"]) == 5000


def test_a_rare_template_survives_frequent_ones_which_keep_their_shape_over_time() -> None:
    digest = LogDigest(100, (INCIDENT,))
    for n in range(1800):
        digest.extend(line(f"step {kind} of {n} done", n) for kind in ("pay", "ship", "bill", "pack"))
    digest.add(line("leader elected", 700))
    by_kind: defaultdict[str, list[LogLine]] = defaultdict(list)
    for x in digest.lines():
        by_kind[template(x.message)].append(x)
    assert total(by_kind.pop("leader elected")) == 1
    assert len(by_kind) == 4
    for rows in by_kind.values():
        assert total(rows) == 1800
        assert len(rows) > 5
        assert max(x.count for x in rows) < 1800 / 3


def test_traces_of_the_sample_are_whole_and_no_other_line_claims_a_span() -> None:
    """A span with holes would show transitions that never were."""
    random = Random(6)
    lines = [
        line(f"{what} {trace}", trace / 10, trace=f"{trace * 7919 + 1:032x}", span=f"{trace + 1:016x}")
        for trace in range(3000)
        for what in ("begin", "charge", "end")
    ]
    digest = LogDigest(400, (INCIDENT,))
    digest.extend(random.sample(lines, len(lines)))
    spans = Counter(x.trace_id for x in digest.lines() if x.span_id)
    assert 10 < len(spans) <= 33
    assert set(spans.values()) == {3}
    assert total(digest.lines()) == 9000


def test_the_sample_is_the_same_for_every_source_and_window() -> None:
    """Else a span would seem silent in one of them."""

    def sample(prefix: str, seconds: float) -> set[str]:
        digest = LogDigest(400)
        digest.extend(line(prefix, seconds, trace=f"{n * 7919 + 1:032x}", span="1") for n in range(3000))
        return {x.trace_id for x in digest.lines() if x.span_id}

    assert sample("from loki", 0) == sample("from datadog", -2000)


def test_an_id_of_zeros_is_no_trace() -> None:
    digest = LogDigest(40)
    digest.extend(line(f"order {n}", trace="0" * 32, span="0" * 16) for n in range(1000))
    [row] = digest.lines()
    assert (row.count, row.span_id) == (1000, "")


def test_lines_outside_all_windows_are_counted_and_not_believed() -> None:
    digest = LogDigest(100, (INCIDENT, BASELINE))
    digest.add(line("now", 10))
    digest.add(line("a clock that is a little late", 1830))
    digest.add(
        LogLine(component="payment", at=datetime(2099, 1, 1, tzinfo=UTC), level="error", message="x", count=1000)
    )
    digest.add(line("yesterday", -86_400))
    assert [x.message for x in digest.lines()] == ["now", "a clock that is a little late"]
    assert (digest.taken, digest.outside) == (2, 1001)


def test_a_count_that_cannot_be_true_is_not_believed() -> None:
    """It would drown what all other sources say of the service."""
    digest = LogDigest(100, (INCIDENT,))
    digest.add(line("batch failed", count=10**7))
    digest.add(line("batch failed", count=5_000_000))
    assert [x.count for x in digest.lines()] == [5_000_000]
    assert (digest.taken, digest.implausible) == (5_000_000, 1)


def test_characters_are_bounded() -> None:
    digest = LogDigest(20_000)
    text = word(Random(7), 1000) * 30
    for n in range(8000):
        digest.add(line(f"{n} {text[n:]}", n))
    kept = digest.lines()
    assert max(len(x.message) for x in kept) <= MAX_MESSAGE
    assert sum(len(x.message) for x in kept) <= MAX_CHARACTERS
    assert total(kept) == 8000
    digest.add(replace(line("x", 0, instance="i" * 10**6), logger="l" * 10**6))
    assert max(len(x.logger) + len(x.instance) for x in digest.lines()) < 1000


def test_several_threads_lose_nothing() -> None:
    digest = LogDigest(500, (INCIDENT, BASELINE))
    with ThreadPoolExecutor(4) as threads:
        for seed in range(4):
            threads.submit(digest.extend, traffic(Random(seed), 3000))
    assert total(digest.lines()) + digest.dropped == digest.taken == 12_000
