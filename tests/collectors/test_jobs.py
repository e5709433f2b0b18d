"""Jobs run side by side, and a deadline keeps what was read."""

import asyncio

import pytest

from collectors._budget import Budget, SourceSettings
from collectors._jobs import Part, gather
from collectors.base import Edge, Forbidden, GapReason, Unreachable


def budget(seconds: float) -> Budget:
    return Budget("test", SourceSettings(budget_s=seconds))


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
    with pytest.raises(Unreachable):
        await gather([("y", silent)], side_by_side=2, budget=budget(0.05))


async def test_a_defect_is_not_hidden() -> None:
    async def broken(_: Part) -> None:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        await gather([("x", broken), ("y", quick)], side_by_side=2, budget=budget(5))


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
    await asyncio.wait_for(stopped.wait(), 1)
