"""Which windows of time to look at around an alert."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from collectors.base import Window
from graph.state import Alert

BEFORE = timedelta(minutes=10)  # an alert fires some minutes after its trouble began
LONGEST = timedelta(minutes=30)  # after the alert
NORMAL = timedelta(minutes=50)  # near enough to share the incident's load, far enough not to share its fault
FURTHER = timedelta(minutes=50)
SEASONS = (timedelta(days=1), timedelta(days=7))
EDGE = timedelta(minutes=2)
LEAD = timedelta(minutes=5)  # what people say of a time is seldom to the minute
FURTHEST = timedelta(hours=24)  # before the alert: what is older is not read minute by minute


@dataclass(frozen=True)
class Windows:
    """Incident, baseline (the minutes just before) and seasonal (the same hours on earlier days) windows."""

    incident: Window
    baseline: tuple[Window, ...]
    seasonal: tuple[Window, ...] = ()
    fixed: bool = False  # a recording has no others

    def hold(self, onset: datetime) -> bool:
        """Whether the trouble's begin lies inside; at the edge it may have begun earlier."""
        return onset > self.incident.start + EDGE

    def wider(self) -> "Windows":
        """The same, looking further back."""
        return _around(self.incident.start - FURTHER, self.incident.end)

    def since(self, began: datetime) -> "Windows":
        """The same, begun early enough for what began then; never later than they do now."""
        return _around(min(self.incident.start, began - LEAD), self.incident.end)


ChooseWindows = Callable[[Alert, datetime], Windows]


def standard_windows(alert: Alert, now: datetime) -> Windows:
    """From ten minutes before the alert's time up to now, at most half an hour after it; and what to compare with."""
    at = alert.occurred_at
    return _around(at - BEFORE, min(max(now, at + timedelta(minutes=1)), at + LONGEST))


def recorded_windows(windows: Windows) -> ChooseWindows:
    """Those of a recording, whatever the alert."""
    return lambda _alert, _now: replace(windows, fixed=True)


def _around(start: datetime, end: datetime) -> Windows:
    """Of the seasons only those that are over before the baseline begins: a long window reaches into its yesterday."""
    return Windows(
        incident=Window(start=start, end=end),
        baseline=(Window(start=start - NORMAL, end=start),),
        seasonal=tuple(Window(start=start - ago, end=end - ago) for ago in SEASONS if end - ago <= start - NORMAL),
    )
