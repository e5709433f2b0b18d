"""Logs from Datadog: first how many of which status there are, minute by minute; then samples where there are any."""

import asyncio
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil, floor, isfinite
from time import monotonic

from pydantic import AwareDatetime, BaseModel, Field, JsonValue, ValidationError

from collectors._datadog_api import (
    LOG_COUNTS,
    LOGS,
    Dated,
    Question,
    Search,
    Session,
    bounds,
    not_understood,
    phrase,
    questions,
    search_terms,
    text_of,
)
from collectors._datadog_metrics import interval_for
from collectors._http import parsed
from collectors._jobs import Part
from collectors._windows import joined, whole_periods
from collectors.base import GapReason, LogLine, Scope, Series, SeriesRef, Target, Window, level_of, utc

COUNT_INTERVAL_S = 60
ONSET_ROWS, LATER_ROWS, SAMPLE_ROWS = 1000, 500, 500  # per service and window
FOUND_ROWS, FOUND_BEFORE_ROWS = 200, 50  # that answer a question: the counts tell how many there are
SLICES = 3  # parts of a window that a sample is drawn from, if the window has more
STATUSES_PER_SERVICE = 10
_RESOLUTION = timedelta(milliseconds=1)  # of Datadog's timestamps

_PROBLEM_LEVELS = ("warning", "error", "critical")
_PROBLEMS = "status:(warn OR error OR critical OR alert OR emergency)"
_COUNTED: Mapping[str, tuple[str, ...]] = {
    "logs.error": ("error", "critical", "alert", "emergency"),
    "logs.warn": ("warn",),
    "logs.info": ("info", "notice", "ok", "debug"),
}
"""Series, and the statuses they add up: an error is no less one for being critical."""
_EVERY = tuple(status for statuses in _COUNTED.values() for status in statuses)
_QUERY = re.compile(r'logs\("(?P<terms>.*) status:\((?P<statuses>[\w ]+)\)"\)\.index\("\*"\)\.rollup\("count"\)')

Minutes = Counter[float]  # lines by the epoch second at which their interval begins


class _Log(Dated):
    timestamp: AwareDatetime
    host: str | None = None
    status: str | None = None
    message: str | None = None
    attributes: dict[str, JsonValue] | None = None

    @property
    def at(self) -> datetime:
        """When it was logged."""
        return self.timestamp


class _Bucket(BaseModel):
    by: dict[str, JsonValue] = Field(default_factory=dict)
    computes: dict[str, JsonValue] = Field(default_factory=dict)


class _Buckets(BaseModel):
    buckets: list[JsonValue]


class _Meta(BaseModel):
    status: str | None = None


class _Counts(BaseModel):
    data: _Buckets
    meta: _Meta | None = None


class _Point(BaseModel):
    time: AwareDatetime
    value: float


@dataclass
class LogCounts:
    """How many lines each service has logged; whoever draws samples waits until that is known, or known to be not."""

    settled: asyncio.Event = field(default_factory=asyncio.Event)
    lines: dict[str, dict[str, Minutes]] = field(default_factory=dict)  # by service and status

    def of(self, service: str, window: Window, *, problems: bool) -> int | None:
        """Lines in the window, or None if nobody could count them."""
        if service not in self.lines:
            return None
        start, end = window.start.timestamp() - COUNT_INTERVAL_S, window.end.timestamp()  # intervals that it touches
        return sum(
            count
            for status, minutes in self.lines[service].items()
            if (level_of(status) in _PROBLEM_LEVELS) == problems
            for at, count in minutes.items()
            if start < at < end
        )


class LogReader:
    """Counts log lines, and reads some."""

    def __init__(self, session: Session) -> None:
        self._session = session

    # --- counts ---

    async def count(self, scope: Scope, targets: Sequence[Target], counts: LogCounts, part: Part) -> None:
        """A job: the lines of all targets in the incident and the time before."""
        try:
            counted = [await self._count_all(targets, w, part) for w in joined((scope.incident, *scope.baseline))]
            for target in targets:  # in all windows, or else none: what was not counted is not nothing
                if all(target.service in by_service for by_service in counted):
                    counts.lines[target.service] = _summed(by_service[target.service] for by_service in counted)
        finally:
            counts.settled.set()
        silent = [search_terms(target) for target in targets if not counts.lines.get(target.service, True)]
        if silent:
            part.gap(GapReason.EMPTY, f"no log line is tagged {', '.join(silent)}", "set datadog_tags in the catalogue")

    async def count_seasonal(self, scope: Scope, targets: Sequence[Target], part: Part) -> None:
        """A job: the same in the hours to compare with."""
        for window in scope.seasonal:
            await self._count_all(targets, window, part)

    async def measure(self, refs: Sequence[SeriesRef], window: Window, part: Part) -> list[Series]:
        """The refs' counts over another window. Raises CollectorError."""
        by_terms: defaultdict[str, list[SeriesRef]] = defaultdict(list)
        for ref in refs:
            match = _QUERY.fullmatch(ref.query)
            if match:
                by_terms[_unescaped(match["terms"])].append(ref)
        found: list[Series] = []
        for terms, mine in by_terms.items():
            target = Target(service=mine[0].component)
            counted = await self._counted(Question(terms, (target,)), window, part)
            found += _series(mine, counted.get(target.service, {}), window)
        return found

    async def _count_all(self, targets: Sequence[Target], window: Window, part: Part) -> dict[str, dict[str, Minutes]]:
        """Those of the targets that were counted whole."""
        everything: dict[str, dict[str, Minutes]] = {}
        for question in questions(targets):
            counted = await self._counted(question, window, part)
            everything |= counted
            for target in question.targets:
                part.keep(_series(_refs(target), counted.get(target.service, {}), window))
        return everything

    async def _counted(self, question: Question, window: Window, part: Part) -> dict[str, dict[str, Minutes]]:
        """By service and status; a service without a line is there too. Empty if Datadog counted in part only."""
        interval_s = interval_for(window, COUNT_INTERVAL_S)
        touched = _touched(window, interval_s)
        started = monotonic()
        answer = await self._session.read(part, LOG_COUNTS, _Counts, body=_count_body(question, touched, interval_s))
        rows = answer.data.buckets
        query = self._session.query(LOG_COUNTS, question.query, touched, started, len(rows))
        timed_out = answer.meta is not None and answer.meta.status == "timeout"
        text = f"count by status: {question.query}"
        part.queries.append(query.model_copy(update={"text": text, "truncated": timed_out}))
        if timed_out:
            part.gap(GapReason.TRUNCATED, f"Datadog timed out and counted in part: {question.query}")
            return {}
        return _tallied(rows, question, touched, interval_s, part)

    async def total(self, window: Window, part: Part) -> int:
        """All lines of the organisation, as far as they are indexed. Raises CollectorError."""
        body: JsonValue = {"compute": [{"aggregation": "count"}], "filter": {"query": "*", **bounds(window)}}
        answer = await self._session.read(part, LOG_COUNTS, _Counts, body=body)
        rows = [parsed(_Bucket, row) for row in answer.data.buckets]
        values = [value for row in rows for value in row.computes.values()]
        return sum(int(value) for value in values if isinstance(value, int | float))

    # --- one question ---

    async def find(self, scope: Scope, target: Target, words: str, part: Part) -> None:
        """A job: the lines of a target that hold the words. All are counted, the first ones are read."""
        question = Question(f"{search_terms(target)} {phrase(words)}", (target,))
        ref = _ref(target, "logs", _EVERY, question.query)
        for window, rows in ((scope.incident, FOUND_ROWS), *((w, FOUND_BEFORE_ROWS) for w in scope.baseline)):
            counted = await self._counted(question, window, part)
            part.keep(_series([ref], counted.get(target.service, {}), window))
            if any(counted.get(target.service, {"": True}).values()):  # or nobody could count them
                await self._lines(Search(LOGS, question.query, window, rows, oldest_first=True), target, part)

    # --- samples ---

    async def sample(self, scope: Scope, target: Target, counts: LogCounts, part: Part) -> None:
        """A job: the lines that tell most. What the counts say is not there is not asked for."""
        await counts.settled.wait()
        terms = search_terms(target)
        if not counts.lines.get(target.service, True):
            return  # told with the counts
        problems, others = f"{terms} {_PROBLEMS}", f"{terms} -{_PROBLEMS}"
        await self._problems(problems, scope.incident, target, counts, part)
        await self._others(others, scope.incident, target, counts, part)
        for window in scope.baseline[:1]:
            if counts.of(target.service, window, problems=True) != 0:
                await self._lines(Search(LOGS, problems, window, ONSET_ROWS), target, part)
            await self._others(others, window, target, counts, part)

    async def _problems(self, query: str, window: Window, target: Target, counts: LogCounts, part: Part) -> None:
        """The onset tells most: problems are read from their start; if they are too many, some of the rest too."""
        expected = counts.of(target.service, window, problems=True)
        if expected == 0:
            return
        onset = await self._lines(Search(LOGS, query, window, ONSET_ROWS, oldest_first=True), target, part)
        read = len(onset)
        if onset and part.queries[-1].rows >= ONSET_ROWS:
            rest = Window(start=min(onset[-1].at + _RESOLUTION, window.end), end=window.end)
            for later in _slices(rest, SLICES - 1):
                read += len(await self._lines(Search(LOGS, query, later, LATER_ROWS // (SLICES - 1)), target, part))
        if expected and expected > read >= ONSET_ROWS:
            told = f"{target.service} logged about {expected:,} warnings and errors; {read:,} of them were read"
            part.gap(GapReason.TRUNCATED, told)

    async def _others(self, query: str, window: Window, target: Target, counts: LogCounts, part: Part) -> None:
        """The newest lines; if there are many, some of each part of the window."""
        expected = counts.of(target.service, window, problems=False)
        slices = SLICES if expected and expected > SAMPLE_ROWS else 1
        for one in _slices(window, slices) if expected != 0 else ():
            await self._lines(Search(LOGS, query, one, SAMPLE_ROWS // slices), target, part)

    async def _lines(self, search: Search, target: Target, part: Part) -> list[LogLine]:
        found: list[LogLine] = []
        async for log in self._session.search(search, part, _Log):
            found.append(_log_line(target.service, log))
            part.logs.add(found[-1])  # one by one: the next page may never come
        return found


def _summed(counted: Iterable[Mapping[str, Minutes]]) -> dict[str, Minutes]:
    """By status, over all windows."""
    total: dict[str, Minutes] = {}
    for by_status in counted:
        for status, minutes in by_status.items():
            total.setdefault(status, Counter()).update(minutes)
    return total


def _slices(window: Window, parts: int) -> Iterator[Window]:
    """The window in equal parts."""
    length = (window.end - window.start) / parts
    for index in range(parts if length else 0):
        end = window.end if index == parts - 1 else window.start + (index + 1) * length
        yield Window(start=window.start + index * length, end=end)


# --- counts: requests and answers ---------------------------------------------------------------------------


def _touched(window: Window, interval_s: int) -> Window:
    """The intervals that lie at least in part inside: a line in the last seconds must be counted too."""
    start, end = window.start.timestamp(), window.end.timestamp()
    return Window(
        start=utc(float(floor(start / interval_s) * interval_s)), end=utc(float(ceil(end / interval_s) * interval_s))
    )


def _count_body(question: Question, window: Window, interval_s: int) -> JsonValue:
    group_by: list[JsonValue] = [{"facet": "status", "limit": STATUSES_PER_SERVICE}]
    if len(question.targets) > 1:
        group_by.append({"facet": "service", "limit": len(question.targets)})
    return {
        "compute": [{"aggregation": "count", "type": "timeseries", "interval": f"{interval_s // 60}m"}],
        "filter": {"query": question.query, **bounds(window)},
        "group_by": group_by,
    }


def _tallied(
    rows: Sequence[JsonValue], question: Question, window: Window, interval_s: int, part: Part
) -> dict[str, dict[str, Minutes]]:
    counted: dict[str, dict[str, Minutes]] = {target.service: {} for target in question.targets}
    malformed = 0
    for row in rows:
        try:
            bucket = _Bucket.model_validate(row)
        except ValidationError:
            malformed += 1
            continue
        target = question.target(str(bucket.by.get("service", "")))
        points = next(iter(bucket.computes.values()), None)
        if target is None or not isinstance(points, list):
            malformed += 1
            continue
        minutes = counted[target.service].setdefault(str(bucket.by.get("status", "")).lower(), Counter())
        malformed += _add(minutes, points, window, interval_s)
    not_understood(part, malformed, f"count by status: {question.query}")
    return counted


def _add(minutes: Minutes, points: Sequence[JsonValue], window: Window, interval_s: int) -> int:
    """Take points in, each in the interval it lies in; how many were not understood."""
    start, end, malformed = window.start.timestamp(), window.end.timestamp(), 0
    for row in points:
        try:
            point = _Point.model_validate(row)
        except ValidationError:
            malformed += 1
            continue
        at = point.time.timestamp()
        if start <= at < end and isfinite(point.value) and point.value >= 0:
            minutes[start + floor((at - start) / interval_s) * interval_s] += round(point.value)
        else:
            malformed += at != end
    return malformed


def _refs(target: Target) -> list[SeriesRef]:
    return [_ref(target, metric, statuses, search_terms(target)) for metric, statuses in _COUNTED.items()]


def _ref(target: Target, metric: str, statuses: Sequence[str], terms: str) -> SeriesRef:
    return SeriesRef(
        source="datadog",
        component=target.service,
        metric=metric,
        statistic="sum",
        unit="lines",
        query=_count_query(terms, statuses),
    )


def _count_query(terms: str, statuses: Sequence[str]) -> str:
    """As Datadog's log monitors write it."""
    escaped = f"{terms} status:({' OR '.join(statuses)})".replace("\\", "\\\\").replace('"', '\\"')
    return f'logs("{escaped}").index("*").rollup("count")'


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def is_count(ref: SeriesRef) -> bool:
    """Whether the ref counts log lines."""
    return _QUERY.fullmatch(ref.query) is not None


def _series(refs: Sequence[SeriesRef], by_status: Mapping[str, Minutes], window: Window) -> Iterator[Series]:
    """A minute without a line counts 0; but of a service that logged nothing at all, nobody knows anything."""
    if not any(by_status.values()):
        return
    interval_s = interval_for(window, COUNT_INTERVAL_S)
    whole = whole_periods(window, interval_s)
    start, end = int(whole.start.timestamp()), int(whole.end.timestamp())
    epoch_s = tuple(float(at) for at in range(start, end, interval_s))
    for ref in refs:
        match = _QUERY.fullmatch(ref.query)
        wanted = match["statuses"].split(" OR ") if match else []
        values = tuple(float(sum(by_status.get(status, Counter())[at] for status in wanted)) for at in epoch_s)
        yield Series(ref=ref, epoch_s=epoch_s, values=values)


# --- lines --------------------------------------------------------------------------------------------------


def _log_line(service: str, log: _Log) -> LogLine:
    extra = log.attributes or {}
    return LogLine(
        component=service,
        at=log.timestamp,
        level=level_of(log.status or ""),
        message=log.message or text_of(extra, "error.message"),
        logger=text_of(extra, "logger.name", "logger"),
        instance=text_of(extra, "pod_name", "task_id", "container_id") or log.host or "",
        trace_id=text_of(extra, "dd.trace_id", "trace_id"),
        span_id=text_of(extra, "dd.span_id", "span_id"),
    )
