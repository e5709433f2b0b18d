"""Jobs run side by side, and a deadline keeps what was read."""

import asyncio
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Literal

import pytest

from collectors._budget import Budget, SourceSettings
from collectors._jobs import Part, gather
from collectors.base import Change, Edge, Forbidden, GapReason, LogLine, Scope, Span, Target, TimedOut, Window


def budget(seconds: float) -> Budget:
    return Budget("test", SourceSettings(budget_s=seconds))


T0 = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
SCOPE = Scope(
    service="pay",
    occurred_at=T0,
    incident=Window(start=T0, end=T0 + timedelta(minutes=30)),
    baseline=(Window(start=T0 - timedelta(minutes=50), end=T0),),
    targets=(Target(service="pay"),),
)
EDGE = Edge(caller="a", callee="b", source="test")


async def stuck(part: Part) -> None:
    part.edges.append(EDGE)
    part.answered = True
    await asyncio.Event().wait()


async def silent(_: Part) -> None:
    await asyncio.Event().wait()


async def quick(part: Part) -> None:
    part.answered = True


async def refused(_: Part) -> None:
    raise Forbidden("no", "ask")


async def test_a_deadline_keeps_what_was_read_and_says_what_is_missing() -> None:
    found = await gather([("x", quick), ("the rest", stuck)], side_by_side=2, budget=budget(0.05))
    assert found.edges == (EDGE,)
    [gap] = found.gaps
    assert gap.reason == GapReason.TIMEOUT
    assert "the rest" in gap.detail


async def test_equal_failures_are_one_gap() -> None:
    found = await gather([("x", refused), ("y", refused), ("z", quick)], side_by_side=1, budget=budget(5))
    assert [(gap.reason, gap.mend) for gap in found.gaps] == [(GapReason.FORBIDDEN, "ask")]


async def test_no_answer_at_all_raises() -> None:
    with pytest.raises(Forbidden):
        await gather([("x", refused), ("y", silent)], side_by_side=2, budget=budget(0.05))
    with pytest.raises(TimedOut, match="answered nothing within"):
        await gather([("y", silent)], side_by_side=2, budget=budget(0.05))


async def broken(_: Part) -> None:
    raise KeyError("defect")


async def test_a_defect_costs_only_its_own_job_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def good(part: Part) -> None:
        part.answered = True
        part.keep([EDGE])

    found = await gather([("x", broken), ("y", good)], side_by_side=1, budget=budget(5))
    assert found.edges == (EDGE,)
    [gap] = found.gaps
    assert gap.reason == GapReason.FAILED
    assert gap.detail == "x: KeyError"
    assert "defect" in caplog.text


async def test_a_defect_is_raised_if_it_is_all_there_is() -> None:
    with pytest.raises(KeyError):
        await gather([("x", broken), ("y", refused)], side_by_side=2, budget=budget(5))


async def test_a_job_that_is_cancelled_from_inside_is_a_gap() -> None:
    async def cut_off(_: Part) -> None:
        raise asyncio.CancelledError

    found = await gather([("x", cut_off), ("y", quick)], side_by_side=2, budget=budget(5))
    assert [gap.detail for gap in found.gaps] == ["x: CancelledError"]


async def test_all_that_was_late_is_one_gap() -> None:
    jobs = [(f"logs of {n}", silent) for n in range(20)]
    found = await gather([("x", quick), *jobs], side_by_side=2, budget=budget(0.05))
    [gap] = found.gaps
    assert "logs of 0, logs of 1" in gap.detail
    assert "and 15 more" in gap.detail
    assert "BUDGET_S" in gap.mend


async def test_rows_beyond_the_budget_are_one_gap_with_the_setting_to_raise() -> None:
    async def much(part: Part) -> None:
        part.answered = True
        part.keep(Edge(caller=part.about, callee=str(n), source="test") for n in range(80))

    few = Budget("test", SourceSettings(max_rows=100))
    found = await gather([("a", much), ("b", much)], side_by_side=1, budget=few)
    assert len(found.edges) == 100
    assert [(gap.reason, "MAX_ROWS" in gap.mend) for gap in found.gaps] == [(GapReason.TRUNCATED, True)]


async def test_rows_that_cannot_be_true_are_told_in_one_gap_and_log_lines_in_another() -> None:
    async def lying(part: Part) -> None:
        part.answered = True
        for at in (T0, datetime(2099, 1, 1, tzinfo=UTC)):
            part.keep([Change(component="pay", at=at, kind="deploy", title="v2")])
            part.logs.add(LogLine(component="pay", at=at, level="error", message="x"))

    found = await gather([("a", lying), ("b", lying)], side_by_side=2, budget=budget(5), scope=SCOPE)
    assert [change.at for change in found.changes] == [T0]
    assert [line.at for line in found.logs] == [T0, T0]
    assert sorted(gap.detail for gap in found.gaps) == [
        "not believed, and dropped: 2 changes far outside the time asked for",
        "not believed, and dropped: 2 log lines outside the time asked for",
    ]


async def test_log_lines_for_which_no_room_is_left_are_a_gap_with_numbers() -> None:
    async def flood(part: Part) -> None:
        part.answered = True
        await part.keep_logs(
            LogLine(component="pay", at=T0, level="info", message="kind " + "abcdefghij"[n % 10] * (n // 10 + 1))
            for n in range(1500)
        )

    few = Budget("test", SourceSettings(max_rows=100))
    found = await gather([("a", flood)], side_by_side=1, budget=few, scope=SCOPE)
    [gap] = found.gaps
    assert gap.reason == GapReason.TRUNCATED
    assert f"{1500 - sum(line.count for line in found.logs):,} of 1,500" in gap.detail
    assert "MAX_ROWS" in gap.mend


async def test_spans_of_both_sides_of_a_call_may_share_an_id() -> None:
    def span(component: str, kind: Literal["client", "server"]) -> Span:
        return Span(
            component=component, trace_id="t", span_id="s", operation="pay", start_s=0, duration_ms=1, kind=kind
        )

    async def twice(part: Part) -> None:
        part.answered = True
        part.keep([span("shop", "client"), span("pay", "server"), span("shop", "client")])

    found = await gather([("a", twice)], side_by_side=1, budget=budget(5))
    assert len(found.spans) == 2


async def test_source_threads_that_hang_do_not_hold_up_what_was_read() -> None:
    """boto3 runs on asyncio's threads; there may be no more than six."""
    release = Event()

    async def hangs(_: Part) -> None:
        await asyncio.to_thread(release.wait)

    async def reads(part: Part) -> None:
        part.answered = True
        await part.keep_logs([LogLine(component="pay", at=T0, level="info", message="x")])

    try:
        hanging = [(f"h{n}", hangs) for n in range(50)]
        async with asyncio.timeout(5):
            found = await gather([*hanging, ("a", reads)], side_by_side=60, budget=budget(0.2))
        assert len(found.logs) == 1
    finally:
        release.set()


async def test_cancelling_stops_the_jobs() -> None:
    started, stopped = asyncio.Event(), asyncio.Event()

    async def long(_: Part) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    task = asyncio.create_task(gather([("x", long)], side_by_side=1, budget=budget(60)))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stopped.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_job_that_does_not_end_when_told_does_not_hold_up_the_others() -> None:
    release = asyncio.Event()

    async def stubborn(_: Part) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(5):
        found = await gather([("x", stubborn), ("y", quick)], side_by_side=2, budget=budget(0.05))
    assert [gap.reason for gap in found.gaps] == [GapReason.TIMEOUT]
    release.set()
    await asyncio.sleep(0)


async def test_every_gap_says_what_to_do() -> None:
    async def partly(part: Part) -> None:
        part.answered = True
        for reason in GapReason:
            part.gap(reason, f"{reason} without more")
        raise Forbidden("no")

    found = await gather([("x", partly)], side_by_side=1, budget=budget(5))
    assert len(found.gaps) == len(GapReason) + 1
    assert all(gap.mend for gap in found.gaps)
