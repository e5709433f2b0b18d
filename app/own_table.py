"""Collectors that read our own tables."""

from collections.abc import Sequence
from typing import Literal

from app.db import Pool
from collectors.base import Check, LogsRead, Refused, Scope, Series, SeriesRef, Telemetry, TraceRead, Window


class OwnTable:
    """What such a collector need not say: it is always there, needs no credentials, and gives all it has at once."""

    name: str
    timeout_s = 5.0
    reads: frozenset[Literal["logs", "trace"]] = frozenset()

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """Nothing in it is measured."""
        return []

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """Raises Refused: all that it has is given at once."""
        raise Refused(f"{self.name} answers no questions about {question.kind}")

    async def check(self) -> list[Check]:
        """Nothing: it is our own table, and needs no permission."""
        return []

    async def aclose(self) -> None:
        """The pool is not ours."""
