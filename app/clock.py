"""Time as the operated world has it: the system clock, or one that runs faster for the demo and the tests."""

import asyncio
import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The wall clock."""

    def now(self) -> datetime:
        """UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""
        await asyncio.sleep(max(seconds, 0.0))


class VirtualClock:
    """``origin`` at wall time ``started`` (epoch seconds), running ``speed`` times as fast.

    Processes given the same three numbers agree on the time without talking to each other.
    """

    def __init__(self, origin: datetime, started: float, speed: float) -> None:
        if speed <= 0:
            raise ValueError("a clock's speed must be above 0")
        self.origin, self.started, self.speed = origin.astimezone(UTC), started, speed

    def now(self) -> datetime:
        """UTC."""
        return self.origin + timedelta(seconds=(time.time() - self.started) * self.speed)

    async def sleep(self, seconds: float) -> None:
        """Wait so many seconds of this clock."""
        await asyncio.sleep(max(seconds, 0.0) / self.speed)

    def __str__(self) -> str:
        return f"{self.origin.isoformat()}@{self.started!r}x{self.speed:g}"


Clock = SystemClock | VirtualClock


def parse_clock(spec: str) -> Clock:
    """``""`` or ``system``, or ``<origin ISO>@<wall epoch seconds>x<speed>``. Raises ValueError."""
    if spec in ("", "system"):
        return SystemClock()
    origin, _, rest = spec.partition("@")
    started, _, speed = rest.partition("x")
    try:
        moment = datetime.fromisoformat(origin)
        if moment.tzinfo is None:
            raise ValueError
        return VirtualClock(moment, float(started), float(speed))
    except ValueError:
        raise ValueError(
            f"{spec!r} is no clock: write 'system', or e.g. 2024-12-20T09:17:00+00:00@1734686220x30"
        ) from None
