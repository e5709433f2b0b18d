"""What Datadog remembers: the shop's last hours, and the same shop on the ordinary days before."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from app.simulator.requests import Sample
from app.simulator.shop import HISTORY_S, Shop, Tick

DAY_S = 86400.0
DAYS = 8  # so far back: a week, and the same hours of the day before that week


@dataclass
class _Hands:
    """A clock that is put forward to what is asked for."""

    at: datetime

    def now(self) -> datetime:
        """UTC."""
        return self.at


def _no_surge(_seconds: float) -> float:
    return 0.0


class History:
    """The shop's ticks, and those of the days before, when nothing had happened yet. Call it inside ``Shop.live()``."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._days: dict[int, tuple[Shop, _Hands]] = {}

    def ticks(self, start: float, end: float) -> Sequence[Tick]:
        """Ticks that begin in ``[start, end)``, oldest first."""
        return [tick for _, tick in self._found(start, end)]

    def samples(self, start: float, end: float) -> Sequence[Sample]:
        """Logs and spans of those ticks."""
        return [sampled(tick) for sampled, tick in self._found(start, end)]

    def _found(self, start: float, end: float) -> list[tuple[Callable[[Tick], Sample], Tick]]:
        today = self._shop.ticks(start, end)
        began = self._shop.onset - HISTORY_S
        days = math.ceil((began - start) / DAY_S)
        earlier = self._earlier(days, start, min(end, began)) if 0 < days <= DAYS else []
        return earlier + [(self._shop.sampled, tick) for tick in today]

    def _earlier(self, days: int, start: float, end: float) -> list[tuple[Callable[[Tick], Sample], Tick]]:
        """Of the day so many days ago; the hours that nobody asks for are not lived through."""
        if days not in self._days:
            self._days[days] = self._ordinary(days)
        shop, hands = self._days[days]
        hands.at = max(hands.at, datetime.fromtimestamp(end, UTC))
        with shop.live():
            return [(shop.sampled, tick) for tick in shop.ticks(start, end)]

    def _ordinary(self, days: int) -> tuple[Shop, _Hands]:
        today = self._shop.scenario
        that_day = replace(
            today, occurred_at=today.occurred_at - timedelta(days=days), events=(), surge=_no_surge, defects={}
        )
        hands = _Hands(that_day.occurred_at)
        return Shop(that_day, hands, seed=self._shop.seed + days), hands
