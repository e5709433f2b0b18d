"""One pace per account, pauses that all obey, and turns that nobody loses."""

import asyncio
from itertools import pairwise

import pytest

from collectors._limits import Limit, limit_of
from collectors.base import RateLimited


async def turns(limit: Limit, number: int, log: list[tuple[str, float]], who: str = "", left_s: float = 10.0) -> None:
    for _ in range(number):
        async with limit.turn("x", left_s):
            log.append((who, asyncio.get_running_loop().time()))


async def test_a_slow_pace_is_kept_evenly() -> None:
    """Two per second are not two at once and two more within the same second."""
    log: list[tuple[str, float]] = []
    limit = Limit(20 / 4, at_once=4)
    await asyncio.gather(*(turns(limit, 1, log) for _ in range(4)))
    times = [at for _, at in log]
    assert all(b - a > 0.15 for a, b in pairwise(times))


async def test_a_fast_pace_may_start_with_a_burst() -> None:
    log: list[tuple[str, float]] = []
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(turns(Limit(20, at_once=30), 1, log) for _ in range(20)))
    assert log[-1][1] - started < 0.9


async def test_an_hourly_quota_is_spent_when_it_is_needed_and_not_beyond() -> None:
    """300 an hour: one every twelve seconds would be useless in an incident."""
    limit, log = Limit(300 / 3600, at_once=4, burst=5), list[tuple[str, float]]()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await turns(limit, 6, log)
    assert len(log) == 5


async def test_no_more_than_so_many_at_once() -> None:
    limit, now, most = Limit(1000, at_once=3), 0, 0

    async def one() -> None:
        nonlocal now, most
        async with limit.turn("x", 10):
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.01)
            now -= 1

    await asyncio.gather(*(one() for _ in range(20)))
    assert most == 3


async def test_an_investigation_with_many_requests_does_not_keep_another_waiting() -> None:
    limit, log = Limit(1000, at_once=2), list[tuple[str, float]]()

    async def investigation(who: str, number: int) -> None:
        gate = asyncio.Semaphore(4)  # as gather has it

        async def job() -> None:
            async with gate, limit.turn("x", 10):
                log.append((who, 0.0))
                await asyncio.sleep(0.001)

        await asyncio.gather(*(job() for _ in range(number)))

    large = asyncio.create_task(investigation("large", 200))
    await asyncio.sleep(0.01)
    await investigation("small", 10)
    begun = next(i for i, (who, _) in enumerate(log) if who == "small")
    assert len([who for who, _ in log[begun:] if who == "large"]) < 40
    await large


async def test_a_pause_holds_for_all_who_use_the_account_and_is_waited_for() -> None:
    limit, log = limit_of("v:a", per_second=100, at_once=4), list[tuple[str, float]]()
    limit.close(0.2)
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(turns(limit_of("v:a", per_second=100, at_once=4), 1, log) for _ in range(3)))
    assert min(at for _, at in log) - started >= 0.19
    await turns(limit_of("v:another", per_second=100, at_once=4), 1, log)


async def test_a_pause_that_is_prolonged_meanwhile_is_waited_for_to_its_end() -> None:
    limit, log = Limit(100, at_once=4), list[tuple[str, float]]()
    limit.close(0.1)
    started = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(turns(limit, 1, log))
    await asyncio.sleep(0.02)
    limit.close(0.3)
    await waiting
    assert log[0][1] - started >= 0.29


@pytest.mark.parametrize(("pause_s", "left_s"), [(9.0, 60.0), (2.0, 1.0)])
async def test_a_pause_that_is_too_long_is_told_at_once_even_with_a_queue(pause_s: float, left_s: float) -> None:
    limit = Limit(100, at_once=1)
    async with limit.turn("x", 10):
        limit.close(pause_s)
        with pytest.raises(RateLimited, match="reset in") as told:
            async with asyncio.timeout(0.1), limit.turn("logs", left_s):
                pass
    assert told.value.mend


async def test_a_pause_of_one_quota_leaves_the_others_open() -> None:
    limit = Limit(100, at_once=4)
    limit.close(60, "spans_search")
    async with limit.turn("logs", 10, "logs_search"), limit.turn("?", 10):
        pass
    with pytest.raises(RateLimited):
        async with limit.turn("spans", 10, "spans_search"):
            pass


@pytest.mark.parametrize("waits_for", ["gate", "pace", "pause"])
async def test_who_is_cancelled_while_waiting_gives_the_turn_back(waits_for: str) -> None:
    limit, log = Limit(5 if waits_for == "pace" else 1000, at_once=1), list[tuple[str, float]]()
    release = asyncio.Event()

    async def holds() -> None:
        async with limit.turn("x", 10):
            await release.wait()

    held = asyncio.create_task(holds())
    await asyncio.sleep(0)
    if waits_for != "gate":
        release.set()
        await held
    if waits_for == "pause":
        limit.close(0.1)
    waiting = [asyncio.create_task(turns(limit, 1, log)) for _ in range(3)]
    await asyncio.sleep(0.02)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    release.set()
    await held
    async with asyncio.timeout(1):
        await turns(limit, 1, log)


def test_every_loop_has_its_own_limiters_and_those_of_ended_loops_are_forgotten() -> None:
    from collectors import _limits

    async def once() -> Limit:
        limit = limit_of("v:loops", per_second=2, at_once=1)
        async with limit.turn("x", 1):
            return limit

    assert len({id(limit) for limit in [asyncio.run(once()) for _ in range(5)]}) == 5
    assert sum(loop.is_closed() for loop in _limits._limits) <= 1
