"""A collection is many small reads, side by side, within a budget; what was read by then is kept."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from collectors._budget import Budget
from collectors._logs import MAX_COUNT, LogDigest
from collectors._sane import Sieve
from collectors.base import (
    USUAL_MEND,
    Change,
    CollectorError,
    Document,
    Edge,
    Gap,
    GapReason,
    LogLine,
    Query,
    Scope,
    Series,
    Span,
    Status,
    Telemetry,
    TimedOut,
)

log = logging.getLogger(__name__)
ENDS_WITHIN_S = 0.5  # a job that is cancelled
NAMED = 5  # jobs that a Gap names; the others it counts
_threads = ThreadPoolExecutor(2, thread_name_prefix="collectors")
_P = ParamSpec("_P")
_T = TypeVar("_T")


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

    async def keep_logs(self, lines: Iterable[LogLine]) -> None:
        """Keep many lines; they are made, counted and shortened on a thread, while other sources are read."""
        await on_thread(self.logs.extend, lines)

    def gap(self, reason: GapReason, detail: str, mend: str = "") -> None:
        """Record what could not be seen, and what would mend it: the exact permission or setting, where it is known."""
        self.gaps.append(Gap(source=self.source, reason=reason, detail=detail, mend=mend or USUAL_MEND[reason]))

    def fail(self, error: CollectorError) -> None:
        """Record that a request failed."""
        self.failures.append(error)
        self.gap(error.reason, error.detail, error.mend)


Job = Callable[[Part], Awaitable[None]]


async def gather(
    jobs: Iterable[tuple[str, Job]], *, side_by_side: int, budget: Budget, scope: Scope | None = None
) -> Telemetry:
    """Run the jobs, first come first served, each named by what it reads, most telling first.

    With the ``scope``, rows that are far outside its windows are dropped, and counted in a Gap. A defect in one job is
    logged, and costs only what that job had still to read. Raises the first failure if nothing at all was answered.
    """
    windows = (scope.incident, *scope.baseline, *scope.seasonal) if scope else ()
    gate, logs = asyncio.Semaphore(side_by_side), LogDigest(budget.max_rows, windows)
    work = [(Part(budget.source, about, budget, logs), job) for about, job in jobs]
    if not work:
        return Telemetry(source=budget.source)
    tasks = {asyncio.create_task(_run(gate, job, part)): part for part, job in work}
    try:
        done, late = await asyncio.wait(tasks, timeout=max(budget.left_s, 0.0))
    finally:
        await _ended(tasks)
    defects = [error for task in done if (error := _defect(task, tasks[task])) is not None]
    _tell_late([part for task, part in tasks.items() if task in late], budget)
    parts = [part for part, _ in work]
    if not any(part.answered for part in parts):
        raise next(iter(defects), None) or _nothing_answered(budget, parts)
    return await on_thread(_joined, budget, logs, parts, Sieve(budget.source, scope))


async def on_thread(function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Call it on a thread of our own: those of asyncio may all be waiting for a source that hangs."""
    return await asyncio.get_running_loop().run_in_executor(_threads, lambda: function(*args, **kwargs))


async def _run(gate: asyncio.Semaphore, job: Job, part: Part) -> None:
    async with gate:
        try:
            await job(part)
        except CollectorError as error:
            part.fail(error)


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Nothing is left running."""
    running = [task for task in tasks if not task.done()]
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running, timeout=ENDS_WITHIN_S)


def _defect(task: asyncio.Task[None], part: Part) -> BaseException | None:
    """What a job that has ended raised; a Gap says so."""
    error = asyncio.CancelledError("cut off from inside") if task.cancelled() else task.exception()
    if error is not None:
        log.error("%s: %s", part.source, part.about, exc_info=error)
        part.gap(GapReason.FAILED, f"{part.about}: {type(error).__name__}", "report this defect, with the log")
    return None if isinstance(error, asyncio.CancelledError) else error


def _tell_late(late: Sequence[Part], budget: Budget) -> None:
    """One Gap for all that was not read whole."""
    if late:
        named = ", ".join(part.about for part in late[:NAMED])
        more = f" and {len(late) - NAMED} more" if len(late) > NAMED else ""
        late[0].gap(
            GapReason.TIMEOUT, f"{named}{more}: not read whole within {budget.seconds:.3g} s", budget.mend_seconds
        )


def _nothing_answered(budget: Budget, parts: Sequence[Part]) -> CollectorError:
    failures = (failure for part in parts for failure in part.failures)
    late = TimedOut(f"{budget.source} answered nothing within {budget.seconds:.3g} s", budget.mend_seconds)
    return next(failures, late)


def _joined(budget: Budget, logs: LogDigest, parts: Sequence[Part], sieve: Sieve) -> Telemetry:
    lines = logs.lines()
    series = tuple(sieve.series(x for part in parts for x in part.series))
    spans = {(x.trace_id, x.span_id, x.component, x.kind): x for x in sieve.spans(y for p in parts for y in p.spans)}
    changes = dict.fromkeys(sieve.changes(x for part in parts for x in part.changes))
    statuses = tuple(sieve.statuses(x for part in parts for x in part.statuses))
    gaps = (x for part in parts for x in part.gaps)
    return Telemetry(
        source=budget.source,
        cost=budget.cost,
        queries=tuple(x for part in parts for x in part.queries),
        series=series,
        logs=tuple(lines),
        spans=tuple(spans.values()),
        changes=tuple(changes),
        statuses=statuses,
        edges=tuple(dict.fromkeys(x for part in parts for x in part.edges)),
        documents=tuple(dict.fromkeys(x for part in parts for x in part.documents)),
        gaps=tuple(dict.fromkeys((*gaps, *sieve.gaps, *_log_gaps(budget, logs)))),
    )


def _log_gaps(budget: Budget, logs: LogDigest) -> Iterator[Gap]:
    if logs.dropped:
        yield Gap(
            source=budget.source,
            reason=GapReason.TRUNCATED,
            detail=f"{logs.dropped:,} of {logs.taken:,} log lines, of rare kinds, are not counted: too many kinds",
            mend=budget.mend_rows,
        )
    told = {
        "log lines outside the time asked for": logs.outside,
        f"rows that claim to be more than {MAX_COUNT:,} log lines": logs.implausible,
    }
    if any(told.values()):
        numbers = ", ".join(f"{count:,} {what}" for what, count in told.items() if count)
        yield Gap(
            source=budget.source,
            reason=GapReason.FAILED,
            detail=f"not believed, and dropped: {numbers}",
            mend=f"check the clocks, and what reports to {budget.source}",
        )
