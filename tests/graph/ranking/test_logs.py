"""What is a symptom in logs, and what only looks like one."""

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collectors.base import Level, LogLine, Span, template
from graph.ranking import logs
from graph.ranking.deviation import MAX_EXCERPT, Deviation
from graph.ranking.stacktraces import stack_trace
from graph.ranking.templates import templates
from graph.ranking.windows import Windows
from tests.graph.ranking import incidents

WINDOWS = Windows.of(incidents.scope("gateway"))
BEFORE, DURING = incidents.START.timestamp(), incidents.INCIDENT.timestamp()


def walk(trace: str, start_s: float, steps: Sequence[tuple[str, str, str, Level]]) -> tuple[list[Span], list[LogLine]]:
    """A chain of spans, each inside the one before; ``steps`` are (component, span, logger, level) of the lines."""
    spans: dict[str, Span] = {}
    found = []
    parent = ""
    for n, (component, span, logger, level) in enumerate(steps):
        if span not in spans:
            spans[span] = Span(
                component=component,
                trace_id=trace,
                span_id=span,
                parent_id=parent,
                operation=f"op of {component}",
                start_s=start_s,
                duration_ms=50,
            )
            parent = span
        if logger:
            at = incidents.START + timedelta(seconds=start_s - BEFORE, milliseconds=n)
            found.append(
                LogLine(
                    component=component,
                    at=at,
                    level=level,
                    message=f"text {n}",
                    logger=logger,
                    trace_id=trace,
                    span_id=span,
                )
            )
    return list(spans.values()), found


GOOD: list[tuple[str, str, str, Level]] = [
    ("front", "f", "Front#1", "info"),
    ("back", "b", "Back#1", "info"),
    ("back", "b", "Back#2", "info"),
]


def log_deviations(bad: Sequence[tuple[str, str, str, Level]], normal: int = 20) -> list[Deviation]:
    spans, lines = [], []
    for i in range(normal + 6):
        start = BEFORE + 10.0 * i if i < normal else DURING + 10.0 * i
        more_spans, more_lines = walk(f"t{i}", start if i < normal else DURING + i, GOOD if i < normal else bad)
        spans += more_spans
        lines += more_lines
    found = logs.deviations([("l", line) for line in lines], spans, WINDOWS)
    return sorted(found, key=lambda d: -d.strength)


def test_a_missing_next_line_is_blamed_though_nothing_is_an_error() -> None:
    found = log_deviations(GOOD[:-1])
    assert (found[0].component, found[0].signal) == ("back", "Back#1 → (end)")
    assert found[0].strength > 0.3


def test_the_deepest_deviant_span_is_blamed_not_the_loudest() -> None:
    found = log_deviations([*GOOD[:2], ("front", "f", "Front#9", "error")])
    by_component = {d.component: d for d in reversed(found) if d.channel == "transition"}
    assert not by_component["back"].inherited
    assert by_component["front"].inherited
    assert by_component["back"].strength > 3 * by_component["front"].strength


def test_an_error_that_goes_away_is_no_symptom() -> None:
    spans, lines = [], []
    for i in range(26):
        start, kind = (BEFORE + 10.0 * i, "error") if i < 20 else (DURING + i, "info")
        steps: list[tuple[str, str, str, Level]] = [
            ("front", "f", "Front#1", "info"),
            ("front", "f", "Front#9", "error") if kind == "error" else ("front", "f", "Front#2", "info"),
        ]
        more_spans, more_lines = walk(f"t{i}", start, steps)
        spans += more_spans
        lines += more_lines
    found = logs.deviations([("l", line) for line in lines], spans, WINDOWS)
    assert [d for d in found if d.channel == "transition"] == []


def test_more_traffic_is_not_more_errors() -> None:
    """Every line four times as often, errors included."""
    rows = [
        *(("info", t) for t in range(0, 3600, 10)),
        *(("error", t) for t in range(0, 3600, 60)),
        *(("info", 3600 + t / 4) for t in range(0, 1200, 10)),
        *(("error", 3600 + t / 4) for t in range(0, 1200, 60)),
    ]
    lines = [
        LogLine(
            component="a",
            at=incidents.START + timedelta(seconds=t),
            level="error" if level == "error" else "info",
            message=f"an {level} number {t}",
        )
        for level, t in rows
    ]
    found = logs.deviations([("l", line) for line in lines], [], WINDOWS)
    assert [d for d in found if d.strength > 0.05] == []


def test_an_ordinary_line_that_no_longer_comes_is_noticed_and_a_warning_is_not() -> None:
    def found(level: Level) -> list[Deviation]:
        lines = [
            *incidents.lines("a", "info", "heartbeat", per_minute=6, baseline=True, incident=True),
            *incidents.lines("a", level, "batch done", per_minute=6, baseline=True, incident=False),
        ]
        return logs.deviations([("l", line) for line in lines], [], WINDOWS)

    (gone,) = found("info")
    assert gone.worse == "down"
    assert "no longer logs “batch done" in gone.summary
    assert found("warning") == []


def test_templates_mask_what_varies() -> None:
    one = template("order 4711 of user 550e8400-e29b-41d4-a716-446655440000 took 3.5 ms at 10.0.0.1:80 'x'")
    two = template("order 12 of user 123e4567-e89b-42d3-a456-426614174000 took 17 ms at 10.0.0.2:81 'yy'")
    assert one == two


class _Rate(TypedDict):
    per_minute: int
    baseline: bool
    incident: bool


EVERY_MINUTE: _Rate = {"per_minute": 1, "baseline": True, "incident": True}


# --- templates ----------------------------------------------------------------------------------------------------


NAMES = ("alice", "bob", "carol", "dave", "erin", "frank", "grace")


def test_words_at_a_variable_place_are_masked_and_outcomes_are_not() -> None:
    messages = [f"user {name} logged in" for name in NAMES]
    messages += [f"payment {outcome} for order <*>" for outcome in ("accepted", "declined", "pending")]
    found = templates(messages)
    assert {found[m] for m in messages[: len(NAMES)]} == {"user <*> logged in"}
    assert [found[m] for m in messages[len(NAMES) :]] == messages[len(NAMES) :]


def test_templates_stay_apart_by_what_was_done_to_a_variable_thing() -> None:
    messages = [f"user {name} {done}" for name in NAMES for done in ("came", "went")]
    assert set(templates(messages).values()) == {"user <*> came", "user <*> went"}


def test_messages_with_little_in_common_are_not_merged() -> None:
    rng = random.Random(3)
    messages = ["".join(rng.choices("abcdefgh", k=6)) + " of " + "".join(rng.choices("ijkl", k=8)) for _ in range(300)]
    assert all(found == message for message, found in templates(messages).items())


@settings(deadline=None)
@given(st.lists(st.text("ab <*>", max_size=12), max_size=40), st.randoms())
def test_templates_do_not_depend_on_the_order_of_messages(messages: list[str], rng: random.Random) -> None:
    shuffled = list(messages)
    rng.shuffle(shuffled)
    assert templates(shuffled) == templates(messages)
    assert templates(messages).keys() == set(messages)


def test_a_new_name_in_a_known_message_is_nothing_new() -> None:
    def found(new: str) -> list[Deviation]:
        lines = [
            *(x for n in NAMES for x in incidents.lines("a", "error", f"login of {n} refused", **EVERY_MINUTE)),
            *incidents.lines("a", "info", "heartbeat", **EVERY_MINUTE),
            at(2, "error", new),
        ]
        return seen(lines)

    assert found("login of zoe refused 0") == []
    assert [d.signal for d in found("disk of zoe vanished 0")] == ["disk of zoe vanished <*>"]


def test_the_same_words_at_a_worse_level_are_new() -> None:
    lines = [
        *incidents.lines("a", "info", "payment refused", per_minute=6, baseline=True, incident=False),
        *incidents.lines("a", "error", "payment refused", per_minute=6, baseline=False, incident=True),
    ]
    assert seen(lines)[0].strength > 0.5
    assert seen(lines)[0].baseline == 0.0


# --- stack traces -------------------------------------------------------------------------------------------------

JAVA = """Order {n} failed
org.springframework.web.util.NestedServletException: Request processing failed for {n}
\tat org.springframework.web.servlet.FrameworkServlet.doPost(FrameworkServlet.java:909)
\tat shop.orders.OrderController.place(OrderController.java:{outer})
Caused by: java.sql.SQLTransientException: no connection for {n}
\tat com.zaxxer.hikari.pool.HikariPool.getConnection(HikariPool.java:696)
\tat shop.orders.OrderRepository$$FastClass{n}.save(<generated>)
\tat shop.orders.OrderRepository.save(OrderRepository.java:{inner})
\tat shop.orders.OrderService.place(OrderService.java:88)
\t... 23 more"""
PYTHON = """Order {n} failed
Traceback (most recent call last):
  File "/app/shop/orders.py", line 40, in place
    self.pool.get({n})
  File "/app/.venv/lib/python3.11/site-packages/pool.py", line 12, in get
    raise Empty
pool.Empty: order {n}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/app/shop/web.py", line 7, in post
    place()
  File "/app/shop/orders.py", line {inner}, in place
    raise NoConnection(n)
shop.errors.NoConnection: none left for {n}"""


def test_java_trace_is_named_by_its_innermost_cause_and_own_frames() -> None:
    one, two = (stack_trace(JAVA.format(n=n, outer=31, inner=52)) for n in (1, 77))
    assert one is not None
    assert two is not None
    assert one.name == two.name
    assert one.name.startswith(
        "java.sql.SQLTransientException at shop.orders.OrderRepository.save(OrderRepository.java:52) < "
    )
    other = stack_trace(JAVA.format(n=1, outer=31, inner=53))
    assert other is not None
    assert other.name != one.name


def test_python_traceback_is_named_by_its_last_line_and_innermost_own_frames() -> None:
    one, two = (stack_trace(PYTHON.format(n=n, inner=44)) for n in (1, 77))
    assert one is not None
    assert one.name == two.name if two else False
    assert one.error == "shop.errors.NoConnection"
    assert one.frames == ('"/app/shop/orders.py", line 44, in place', '"/app/shop/web.py", line 7, in post')


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ('NullPointerException: "coupon" is null\n  at CouponValidator.java:57', "NullPointerException"),
        ("oops\nTypeError: x is not a function\n    at pay (/app/pay.js:3:9)", "TypeError"),
        ("Unhandled. System.TimeoutException: late\n   at Shop.Pay.Run() in Pay.cs:line 5", "System.TimeoutException"),
        ("Caused by: \n\tat a.b(C.java:1)", ""),
    ],
)
def test_type_of_an_exception(message: str, error: str) -> None:
    found = stack_trace(message)
    assert found is not None
    assert found.error == error


@pytest.mark.parametrize(
    "message", ["", "a\nb", "at work\nat home", "Caused by: a\nb", "Traceback (most recent call last)"]
)
def test_what_is_no_stack_trace(message: str) -> None:
    assert stack_trace(message) is None


@settings(deadline=None)
@given(st.text('\n\t atFile"Caused by:x.', max_size=200))
def test_no_text_breaks_the_reading_of_stack_traces(text: str) -> None:
    for message in (text, f"Traceback (most recent call last)\n{text}", f"Caused by: {text}\n\tat {text}"):
        trace = stack_trace(message)
        assert trace is None or trace.frames


def test_stack_traces_are_one_finding_that_shows_cause_and_own_frames() -> None:
    lines = [
        *incidents.lines("a", "info", "order placed", **EVERY_MINUTE),
        *(at(m, "error", JAVA.format(n=f"{m}-{'xyz'[m % 3]}", outer=31, inner=52)) for m in range(5)),
    ]
    (found,) = seen(lines)
    assert found.observed == pytest.approx(1.0)
    assert "java.sql.SQLTransientException: no connection" in found.excerpt
    assert "OrderRepository.java:52" in found.excerpt
    assert "HikariPool" not in found.excerpt
    assert len(found.excerpt) <= MAX_EXCERPT + 2


# --- onset, recovery, instances, other days -----------------------------------------------------------------------

LONG = Windows(incident=(DURING, DURING + 1800.0), baselines=((BEFORE, DURING),))


def at(minute: float, level: Level, message: str, **more: str | int) -> LogLine:
    """A line so many minutes after the incident's begin."""
    line = LogLine(component="a", at=incidents.INCIDENT + timedelta(minutes=minute), level=level, message=message)
    return replace(line, **more)  # type: ignore[arg-type]


def seen(lines: Sequence[LogLine], windows: Windows = WINDOWS) -> list[Deviation]:
    return sorted(logs.deviations([("l", line) for line in lines], [], windows), key=lambda d: -d.strength)


def steady(per_minute: float = 6.0) -> list[LogLine]:
    return [at(i / per_minute, "info", "order placed") for i in range(int(-60 * per_minute), int(30 * per_minute))]


def test_a_new_line_begins_when_it_first_comes() -> None:
    lines = [*steady(), *(at(12.25 + i, "error", "boom") for i in range(18))]
    assert seen(lines, LONG)[0].at_s == DURING + 12.25 * 60


def test_a_known_line_begins_when_there_are_clearly_more_of_it() -> None:
    lines = [*steady(), *(at(m, "error", "boom") for m in range(-60, 30, 2))]
    lines += [at(20.5 + i / 30, "error", "boom") for i in range(270)]
    (found,) = seen(lines, LONG)
    assert DURING + 20 * 60 <= found.at_s <= DURING + 20.5 * 60


def test_errors_that_have_stopped_while_the_component_works_on_are_weaker() -> None:
    errors = [at(i / 10, "error", "boom") for i in range(30)]
    went_on = [at(i, "error", "boom") for i in range(30)]
    stopped = seen([*steady(), *errors], LONG)[0].strength
    assert stopped < 0.5 * seen([*steady(), *went_on], LONG)[0].strength
    crashed = [line for line in steady() if line.at < incidents.INCIDENT + timedelta(minutes=3)]
    assert seen([*crashed, *errors], LONG)[0].strength > 2 * stopped


def test_an_increase_of_every_night_is_no_symptom() -> None:
    nightly = replace(LONG, seasonal=((BEFORE - 86_400.0, BEFORE - 86_400.0 + 1800.0),))
    lines = [*steady(), *(at(i / 4, "error", "report is slow") for i in range(120))]
    last_night = [replace(line, at=line.at - timedelta(hours=25)) for line in lines if line.at >= incidents.INCIDENT]
    assert seen(lines, nightly)[0].strength > 0.5
    assert [d for d in seen([*lines, *last_night], nightly) if d.strength > 0.1] == []


def test_errors_of_one_instance_of_several_name_it() -> None:
    usual = [replace(line, instance=f"pod-{i % 3}") for i, line in enumerate(steady())]
    errors = [at(i, "error", "disk full", instance="pod-1") for i in range(20)]
    (found,) = seen([*usual, *errors], LONG)
    assert found.instance == "pod-1"
    assert "100% of them come from its instance pod-1" in found.summary
    (spread,) = seen([*usual, *(replace(e, instance=f"pod-{i % 3}") for i, e in enumerate(errors))], LONG)
    assert spread.instance == ""
    (single,) = seen([*(replace(line, instance="pod-1") for line in usual), *errors], LONG)
    assert single.instance == ""
    (few,) = seen([*usual, *errors[-2:]], LONG)
    assert few.instance == ""


def test_an_ordinary_line_that_comes_much_less_is_noticed_unless_all_do() -> None:
    def found(others_per_minute: int) -> list[Deviation]:
        lines = [
            *(at(i / 10, "info", "batch done") for i in range(-600, 0)),
            *(at(i * 1.0, "info", "batch done") for i in range(30)),
            *(at(i / 10, "info", "heartbeat") for i in range(-600, 0)),
            *(at(i / others_per_minute, "info", "heartbeat") for i in range(30 * others_per_minute)),
        ]
        return [d for d in seen(lines, LONG) if d.worse == "down"]

    (less,) = found(10)
    assert "far less: about 300 lines were expected, 30 came" in less.summary
    assert found(1) == []


# --- any input ----------------------------------------------------------------------------------------------------

TEXTS = (
    "boom",
    "boom 1",
    "",
    "a b",
    "\ud800",
    "x\n\tat a.b(C.java:1)",
    "Traceback (most recent call last):\n  File",
    "(end)",
)
LINE = st.builds(
    LogLine,
    component=st.sampled_from(["a", "b"]),
    at=st.sampled_from([incidents.START + timedelta(minutes=m) for m in (-1500, 0, 30, 60, 61, 64, 99)]),
    level=st.sampled_from(["info", "warning", "error"]),
    message=st.sampled_from(TEXTS),
    logger=st.sampled_from(["", "L#1"]),
    instance=st.sampled_from(["", "i"]),
    trace_id=st.sampled_from(["", "t"]),
    span_id=st.sampled_from(["", "s", "r"]),
    count=st.sampled_from([1, 10**12]),
)
SPAN = st.builds(
    Span,
    component=st.sampled_from(["a", "b"]),
    trace_id=st.just("t"),
    span_id=st.sampled_from(["s", "r"]),
    parent_id=st.sampled_from(["", "s", "r"]),
    operation=st.sampled_from(["x", "y"]),
    start_s=st.sampled_from([BEFORE, DURING, float("nan"), float("inf")]),
    duration_ms=st.just(1.0),
)


@settings(deadline=None)
@given(st.lists(LINE, max_size=25), st.lists(SPAN, max_size=6), st.randoms())
def test_order_of_lines_and_spans_does_not_matter(lines: list[LogLine], spans: list[Span], rng: random.Random) -> None:
    windows = replace(WINDOWS, seasonal=((BEFORE - 86_400.0, BEFORE - 86_000.0),))
    told = [(rng.choice("kl"), line) for line in lines]
    found = logs.deviations(told, spans, windows)
    rng.shuffle(told)
    rng.shuffle(spans)
    again = logs.deviations(told, spans, windows)
    assert sorted(map(repr, again)) == sorted(map(repr, found))
    assert all(0.0 <= d.strength <= 1.0 for d in found)


def test_a_flood_of_different_lines_gives_a_bounded_answer() -> None:
    rng = random.Random(5)
    lines = [at(i / 1000, "error", "".join(rng.choices("abcdefgh", k=9))) for i in range(3000)]
    assert len(seen([*steady(), *lines])) <= logs.MAX_SHIFTS
