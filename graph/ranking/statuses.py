"""States that are not what they should be: tasks missing, hosts unhealthy, a roll-out that failed."""

from collections.abc import Iterable
from math import isfinite

from collectors.base import Status
from graph.ranking.deviation import Deviation, Worse, excerpt, number
from graph.ranking.semantics import meaning


def deviations(statuses: Iterable[tuple[str, Status]]) -> list[Deviation]:
    """Every state that is worse than expected."""
    found = (_deviation(source, status) for source, status in statuses)
    return [d for d in found if d is not None]


def _deviation(source: str, status: Status) -> Deviation | None:
    expected = status.expected
    if expected is None or not (isfinite(status.observed) and isfinite(expected)):
        return None
    worse: Worse = "up" if meaning(status.name, "").role == "error" else "down"
    bad = status.observed > expected if worse == "up" else status.observed < expected
    if not bad:
        return None
    missing = abs(expected - status.observed) / max(abs(expected), abs(status.observed))
    return Deviation(
        component=status.component,
        kind="status",
        channel="status",
        signal=status.name,
        # all tasks gone is the fault itself; some gone is as bad as their share
        strength=min(missing, 1.0),
        at_s=status.at.timestamp(),
        summary=(f"{status.component} {status.name} is {number(status.observed)}, expected {number(expected)}."),
        observed=status.observed,
        baseline=expected,
        effect=missing,
        excerpt=excerpt(status.detail),
        source=source,
        worse=worse,
    )
