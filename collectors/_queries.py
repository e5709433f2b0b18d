"""What was asked of a source, recorded with what came of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from collectors._jobs import Part
from collectors.base import Asks, Query, Window


@dataclass
class Asked:
    """How much came of a question."""

    rows: int = 0
    truncated: bool = False


@contextmanager
def asked(part: Part, text: str, window: Window, link: str | None = None, *, kind: Asks = "") -> Iterator[Asked]:
    """Records the question with what came of it, also if that is an error."""
    started, tally = monotonic(), Asked()
    try:
        yield tally
    finally:
        query = Query(
            source=part.source,
            text=text,
            link=link,
            start=window.start,
            end=window.end,
            took_ms=round((monotonic() - started) * 1000, 1),
            rows=tally.rows,
            truncated=tally.truncated,
            kind=kind,
        )
        part.queries.append(query)
