"""One limiter per vendor and account, shared by every investigation of the process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiolimiter import AsyncLimiter

from collectors.base import RateLimited

LONGEST_PAUSE_S = 8.0  # that a vendor may ask for; longer than that, the rest of the sources is worth more
BURST_FROM = 10.0  # per second: a slower pace is kept evenly, at a faster one a second's worth may come at once

_limits: dict[asyncio.AbstractEventLoop, dict[str, "Limit"]] = {}


class Limit:
    """Requests per second and at once; and the pauses that the vendor asked for.

    Turns are given in the order they were asked for. As an investigation asks for a few at a time only, one with many
    requests does not keep others waiting.
    """

    def __init__(self, per_second: float, at_once: int, burst: int | None = None) -> None:
        """``burst``: requests that may come without a pause, e.g. for an hourly quota; beyond it the pace holds."""
        most = burst or (per_second if per_second >= BURST_FROM else 1)
        self._rate = AsyncLimiter(most, most / per_second)
        self._gate = asyncio.Semaphore(at_once)
        self._closed_until: defaultdict[str, float] = defaultdict(float)

    @asynccontextmanager
    async def turn(self, about: str, left_s: float, quota: str = "") -> AsyncIterator[None]:
        """Wait for a turn. Raises RateLimited if the vendor's pause ends later than ``left_s`` seconds from now.

        ``quota``: the vendor's name for the limit that the request counts against, where the vendor has several.
        """
        ends = asyncio.get_running_loop().time() + left_s
        self._pause_s(about, left_s, quota)  # who cannot wait so long does not queue either
        async with self._gate:
            await self._rate.acquire()
            await self.wait_out(about, ends - asyncio.get_running_loop().time(), quota)
            yield

    async def wait_out(self, about: str, left_s: float, quota: str = "") -> None:
        """Wait until the pause that the vendor asked for is over. Raises RateLimited if that is too long."""
        ends = asyncio.get_running_loop().time() + left_s
        pause_s = self._pause_s(about, left_s, quota)
        if pause_s > 0:
            await asyncio.sleep(pause_s)
            await self.wait_out(about, ends - asyncio.get_running_loop().time(), quota)  # it may have been prolonged

    def close(self, seconds: float, quota: str = "") -> None:
        """The vendor asked all of us to be quiet for so long, in all or only where this quota is used."""
        self._closed_until[quota] = max(self._closed_until[quota], asyncio.get_running_loop().time() + seconds)

    def _pause_s(self, about: str, left_s: float, quota: str) -> float:
        until = max(self._closed_until.get("", 0.0), self._closed_until.get(quota, 0.0))
        pause_s = until - asyncio.get_running_loop().time()
        if pause_s > min(LONGEST_PAUSE_S, left_s):
            raise RateLimited(f"{about}: rate limit reached, reset in {pause_s:.0f} s", "try again later")
        return pause_s


def limit_of(account: str, *, per_second: float, at_once: int, burst: int | None = None) -> Limit:
    """The limiter of a vendor's account, e.g. ``datadog:https://api.datadoghq.eu``; the first caller sets its pace."""
    loop = asyncio.get_running_loop()
    if loop not in _limits:
        for ended in [one for one in _limits if one.is_closed()]:
            del _limits[ended]
        _limits[loop] = {}
    mine = _limits[loop]
    if account not in mine:
        mine[account] = Limit(per_second, at_once, burst)
    return mine[account]
