"""A collection is many small reads, side by side, within a budget; what was read by then is kept."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from collectors._budget import Budget
from collectors._logs import LogDigest
from collectors.base import (
    Change,
    CollectorError,
    Document,
    Edge,
    Gap,
    GapReason,
    Query,
    Series,
    Span,
    Status,
    Telemetry,
    Unreachable,
)


@dataclass
class Part:
    """What one job found. Filled as answers arrive, so that a deadline loses only what is still to come.

    ``budget`` and ``logs`` are shared by all jobs of a collection.
    """

    source: str
    about: str
    budget: Budget
    logs: LogDigest = field(default_factory=lambda: LogDigest(1_000))
    answered: bool = False  # the source answered at least one request
    failures: list[CollectorError] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    documents: list[Document] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)

    def keep(self, items: Iterable[Series | Span | Change | Status | Edge | Document]) -> None:
        """Keep rows of any kind. Raises TooMuch once the budget of rows is used up; what came before is kept."""
        for item in items:
            self.budget.keep()
            match item:
                case Series():
                    self.series.append(item)
                case Span():
                    self.spans.append(item)
                case Change():
                    self.changes.append(item)
                case Status():
                    self.statuses.append(item)
                case Edge():
                    self.edges.append(item)
                case Document():
                    self.documents.append(item)

    def gap(self, reason: GapReason, detail: str, mend: str = "") -> None:
        """Record what could not be seen."""
        self.gaps.append(Gap(source=self.source, reason=reason, detail=detail, mend=mend))

    def fail(self, error: CollectorError) -> None:
        """Record that a request failed."""
        self.failures.append(error)
        self.gap(error.reason, error.detail, error.mend)


Job = Callable[[Part], Awaitable[None]]


async def gather(jobs: Iterable[tuple[str, Job]], *, side_by_side: int, budget: Budget) -> Telemetry:
    """Run the jobs, first come first served, each named by what it reads, most telling first.

    Raises the first CollectorError if nothing at all was answered.
    """
    gate, logs = asyncio.Semaphore(side_by_side), LogDigest(budget.max_rows)
    work = [(Part(budget.source, about, budget, logs), job) for about, job in jobs]
    if not work:
        return Telemetry(source=budget.source)
    tasks = {asyncio.create_task(_run(gate, job, part)): part for part, job in work}
    try:
        done, late = await asyncio.wait(tasks, timeout=max(budget.left_s, 0.0))
    finally:
        for task in tasks:
            task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    for task in done:
        task.result()
    for task in late:
        tasks[task].gap(GapReason.TIMEOUT, f"{tasks[task].about}: not read whole within {budget.seconds:.3g} s")
    return await asyncio.to_thread(_joined, budget, logs, [part for part, _ in work])


async def _run(gate: asyncio.Semaphore, job: Job, part: Part) -> None:
    async with gate:
        try:
            await job(part)
        except CollectorError as error:
            part.fail(error)


def _joined(budget: Budget, logs: LogDigest, parts: Sequence[Part]) -> Telemetry:
    failures = [failure for part in parts for failure in part.failures]
    if not any(part.answered for part in parts):
        raise failures[0] if failures else Unreachable(f"{budget.source} answered nothing in time")
    return Telemetry(
        source=budget.source,
        cost=budget.cost,
        queries=tuple(x for part in parts for x in part.queries),
        series=tuple(x for part in parts for x in part.series),
        logs=tuple(logs.lines()),
        spans=tuple({(x.trace_id, x.span_id): x for part in parts for x in part.spans}.values()),
        changes=tuple(dict.fromkeys(x for part in parts for x in part.changes)),
        statuses=tuple(x for part in parts for x in part.statuses),
        edges=tuple(dict.fromkeys(x for part in parts for x in part.edges)),
        documents=tuple(dict.fromkeys(x for part in parts for x in part.documents)),
        gaps=tuple(dict.fromkeys(x for part in parts for x in part.gaps)),
    )
