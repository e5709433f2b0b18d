"""A collection is many small reads, side by side, within a budget of time; what was read by then is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from collectors.base import (
    Change,
    CollectorError,
    Edge,
    Gap,
    GapReason,
    LogLine,
    Query,
    Series,
    Span,
    Status,
    Telemetry,
    Unreachable,
)


@dataclass
class Part:
    """What one job found. Filled as answers arrive, so that a deadline loses only what is still to come."""

    source: str
    about: str
    answered: bool = False  # the source answered at least one request
    failures: list[CollectorError] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    logs: list[LogLine] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def gap(self, reason: GapReason, detail: str, mend: str = "") -> None:
        """Record what could not be seen."""
        self.gaps.append(Gap(source=self.source, reason=reason, detail=detail, mend=mend))

    def fail(self, error: CollectorError) -> None:
        """Record that a request failed."""
        self.failures.append(error)
        self.gap(error.reason, error.detail, error.mend)


Job = Callable[[Part], Awaitable[None]]


async def gather(source: str, jobs: Iterable[tuple[str, Job]], *, side_by_side: int, budget_s: float) -> Telemetry:
    """Run the jobs, first come first served, each named by what it reads.

    Raises the first CollectorError if nothing at all was answered.
    """
    gate = asyncio.Semaphore(side_by_side)
    work = [(Part(source, about), job) for about, job in jobs]
    if not work:
        return Telemetry(source=source)
    tasks = {asyncio.create_task(_run(gate, job, part)): part for part, job in work}
    try:
        done, late = await asyncio.wait(tasks, timeout=budget_s)
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()
    for task in late:
        tasks[task].gap(GapReason.TIMEOUT, f"{tasks[task].about}: not read whole within {budget_s:g} s")
    return _joined(source, [part for part, _ in work])


async def _run(gate: asyncio.Semaphore, job: Job, part: Part) -> None:
    async with gate:
        try:
            await job(part)
        except CollectorError as error:
            part.fail(error)


def _joined(source: str, parts: Sequence[Part]) -> Telemetry:
    failures = [failure for part in parts for failure in part.failures]
    if not any(part.answered for part in parts):
        raise failures[0] if failures else Unreachable(f"{source} answered nothing in time")
    return Telemetry(
        source=source,
        queries=tuple(x for part in parts for x in part.queries),
        series=tuple(x for part in parts for x in part.series),
        logs=tuple(x for part in parts for x in part.logs),
        spans=tuple({(x.trace_id, x.span_id): x for part in parts for x in part.spans}.values()),
        changes=tuple(dict.fromkeys(x for part in parts for x in part.changes)),
        statuses=tuple(x for part in parts for x in part.statuses),
        edges=tuple(dict.fromkeys(x for part in parts for x in part.edges)),
        gaps=tuple(dict.fromkeys(x for part in parts for x in part.gaps)),
    )
