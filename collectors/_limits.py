"""One limiter per vendor and account, shared by every investigation of the process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary

from aiolimiter import AsyncLimiter

from collectors.base import RateLimited

LONGEST_PAUSE_S = 8.0  # that a vendor may ask for; longer than that, the rest of the sources is worth more

_limits: "WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, Limit]]" = WeakKeyDictionary()


class Limit:
    """Requests per second and at once; and the pauses that the vendor asked for."""

    def __init__(self, per_second: float, at_once: int) -> None:
        self._rate = AsyncLimiter(max(per_second, 1.0), 1.0) if per_second >= 1 else AsyncLimiter(1, 1 / per_second)
        self._gate = asyncio.Semaphore(at_once)
        self._closed_until = 0.0

    @asynccontextmanager
    async def turn(self, about: str, left_s: float) -> AsyncIterator[None]:
        """Wait for a turn. Raises RateLimited if the vendor's pause ends later than ``left_s`` seconds from now."""
        async with self._gate:
            await self.wait_out(about, left_s)
            await self._rate.acquire()
            yield

    async def wait_out(self, about: str, left_s: float) -> None:
        """Wait until the pause that the vendor asked for is over. Raises RateLimited if that is too long."""
        pause_s = self._closed_until - asyncio.get_running_loop().time()
        if pause_s > min(LONGEST_PAUSE_S, left_s):
            raise RateLimited(f"{about}: rate limit reached, reset in {pause_s:.0f} s", "try again later")
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    def close(self, seconds: float) -> None:
        """The vendor asked all of us to be quiet for so long."""
        self._closed_until = max(self._closed_until, asyncio.get_running_loop().time() + seconds)


def limit_of(account: str, *, per_second: float, at_once: int) -> Limit:
    """The limiter of a vendor's account, e.g. ``datadog:https://api.datadoghq.eu``; the first caller sets its pace."""
    mine = _limits.setdefault(asyncio.get_running_loop(), {})
    if account not in mine:
        mine[account] = Limit(per_second, at_once)
    return mine[account]
