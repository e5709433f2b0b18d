"""What the traces say: failing spans, lost time, calls that are missing, and calls that multiply."""

from collections.abc import Iterable
from itertools import chain

from collectors.base import Span
from graph.ranking.calls import call_deviations
from graph.ranking.deviation import MIN_STRENGTH, Deviation
from graph.ranking.span_errors import error_deviations
from graph.ranking.span_times import time_deviations
from graph.ranking.spans import NOW, table
from graph.ranking.windows import Windows


def deviations(spans: Iterable[tuple[str, Span]], windows: Windows) -> list[Deviation]:
    """All that departs in the traces; ``spans`` come with the name of their source."""
    found = table(spans, windows)
    if not (found.window == NOW).any():
        return []
    every = chain(error_deviations(found), time_deviations(found), call_deviations(found))
    return [d for d in every if d.strength >= MIN_STRENGTH]
