"""Incident and baseline windows in epoch seconds, as ranking compares them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from collectors.base import Scope

CALENDAR = (datetime.min.replace(tzinfo=UTC).timestamp(), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())


def moment(epoch_s: float) -> datetime:
    """Epoch seconds as UTC datetime; what lies beyond the years 1 to 9999, as their ends do elsewhere, at their end."""
    return datetime.fromtimestamp(min(max(epoch_s, CALENDAR[0]), CALENDAR[1]), UTC)


@dataclass(frozen=True, slots=True)
class Windows:
    """The incident window and the windows held to be normal, each half-open, in epoch seconds."""

    incident: tuple[float, float]
    baselines: tuple[tuple[float, float], ...]
    seasonal: tuple[tuple[float, float], ...] = ()  # the incident's hours on earlier days

    @classmethod
    def of(cls, scope: Scope) -> "Windows":
        """The windows of a scope."""
        return cls(
            incident=(scope.incident.start.timestamp(), scope.incident.end.timestamp()),
            baselines=tuple((w.start.timestamp(), w.end.timestamp()) for w in scope.baseline),
            seasonal=tuple((w.start.timestamp(), w.end.timestamp()) for w in scope.seasonal),
        )

    def in_incident(self, epoch_s: float) -> bool:
        """Whether the moment lies in the incident window."""
        return self.incident[0] <= epoch_s < self.incident[1]

    def in_baseline(self, epoch_s: float) -> bool:
        """Whether the moment lies in a baseline window; a moment of the incident window never does."""
        return not self.in_incident(epoch_s) and any(a <= epoch_s < b for a, b in self.baselines)

    def hold(self, epoch_s: float) -> bool:
        """Whether the moment lies in the incident or a baseline window."""
        return self.in_incident(epoch_s) or self.in_baseline(epoch_s)

    def clamped(self, epoch_s: float) -> float:
        """The moment, or the nearer end of the incident window: a span's clock may be far off its trace's."""
        return min(max(epoch_s, self.incident[0]), self.incident[1])

    @property
    def incident_minutes(self) -> float:
        """Length of the incident window, at least one second."""
        return max(self.incident[1] - self.incident[0], 1.0) / 60.0

    @property
    def baseline_minutes(self) -> float:
        """Length of all baseline windows together, without overlaps, at least one second."""
        return max(_covered(self.baselines) - _covered_by(self.incident, self.baselines), 1.0) / 60.0


def _covered(spans: Sequence[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(end - max(start, reached), 0.0)
        reached = max(reached, end)
    return total


def _covered_by(window: tuple[float, float], spans: Sequence[tuple[float, float]]) -> float:
    return _covered([(max(a, window[0]), min(b, window[1])) for a, b in spans if min(b, window[1]) > a])
