"""Reads log groups with CloudWatch Logs Insights: counts by minute first, then problems, then a sample of the rest.

The role needs ``logs:StartQuery``, ``logs:GetQueryResults``, ``logs:StopQuery`` and, to say which log group does not
exist, ``logs:DescribeLogGroups``. Where StartQuery is denied, ``logs:FilterLogEvents`` is used: problems, no counts.

Insights scans, and bills, by the byte: what the counts show to be empty is not asked for, seasonal windows are only
counted where that is cheap, and a query that nobody waits for any more is stopped.
"""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil, isfinite
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlencode

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from collectors._budget import SourceSettings
from collectors._http import checked
from collectors._jobs import Job, Part
from collectors._logs import MAX_MESSAGE
from collectors._questions import NotDeclared
from collectors._windows import concatenated, joined, whole_periods
from collectors.aws._calls import Asked, Clients, allowed, call, console, on_thread
from collectors.base import (
    Check,
    Clock,
    CollectorError,
    Forbidden,
    GapReason,
    Level,
    LogLine,
    NotFound,
    RateLimited,
    Scope,
    Series,
    SeriesRef,
    Target,
    TimedOut,
    Window,
    level_of,
    utc,
)

if TYPE_CHECKING:
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_logs.type_defs import (
        FilteredLogEventTypeDef,
        FilterLogEventsRequestTypeDef,
        GetQueryResultsResponseTypeDef,
        StartQueryRequestTypeDef,
    )

PERIOD_S = 60
GROUPS = 50  # per query
AT_ONCE = 6  # queries; an account has 30 to 100, which people and dashboards use too
TRIES = 3  # to start a query while too many others run
FIRST_POLL_S, POLL_S = 0.5, 1.0  # most queries take a second or two, and polls are paced too
RESERVE_S = 0.5  # before time is up, for the last answer to arrive
STOP_S = 0.4  # a job that is cancelled has half a second
MOST_ROWS = 10_000  # of a page
LIMITS = {"onset": 1000, "problems": 500, "rest": 500}  # rows per target and window
FOUND_ROWS, FOUND_BEFORE_ROWS = 200, 50  # that answer a question: the counts tell how many there are
PAGES = 20  # of FilterLogEvents, which may be empty
CHEAP_BYTES = 1e9  # scanned by the counts: then seasonal windows are counted too
LARGE_BYTES = 1e10  # scanned by one query: told
LONGEST_JSON = 262_144  # bytes CloudWatch takes for one event
SOURCE = "aws"
LOG_ERRORS, LOG_LINES = "log_lines_error", "log_lines"

_WORDS = ("error", "exception", "fail", "timeout", "timed out", "fatal", "panic", "critical", "warn")
_PROBLEM = f"/(?i)({'|'.join(_WORDS)})/"
_FOUND = ", ".join(f'strcontains(tolower(@message), "{word}")' for word in _WORDS)
_COUNTS = f"stats count(*) as lines, sum(greatest({_FOUND})) as problems by bin(1m) as minute | limit {MOST_ROWS}"
_LINES = f"stats count(*) as lines by bin(1m) as minute | limit {MOST_ROWS}"
_FIELDS = "fields @timestamp, @message, @logStream, @log"
# FilterLogEvents is case-sensitive and has no «or» but this
_TERMS = " ".join(f"?{form}" for word in _WORDS if " " not in word for form in (word, word.title(), word.upper()))
_UNFINISHED = {"Scheduled", "Running", "Unknown"}


# --- queries ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """A query of Logs Insights, over at most GROUPS log groups."""

    groups: tuple[str, ...]
    text: str
    window: Window
    limit: int = MOST_ROWS


class Answer(NamedTuple):
    """What Logs Insights found; all values are texts."""

    rows: list[dict[str, str]]
    truncated: bool
    scanned_bytes: float


class UnknownGroup(NotFound):
    """One of the log groups does not exist."""


class Insights:
    """Queries of Logs Insights: only so many at once, none left running."""

    def __init__(self, client: "CloudWatchLogsClient") -> None:
        self.client = client
        self._slots = asyncio.Semaphore(AT_ONCE)
        self.at_once, self._closing = AT_ONCE, 0  # slots there are; those that are not given back

    async def ask(self, part: Part, search: Search) -> Answer:
        """The rows, or those found until time was up; then a Gap says so.

        Raises CollectorError: UnknownGroup, Forbidden, RateLimited (too many queries run), Refused, TimedOut.
        """
        async with self._slot():
            asked = Asked(search.text, search.window, link_to(self.client, search))
            query_id = await self._start(part, search)
            finished = False
            try:
                found = await self._results(part, query_id)
                finished = found is not None and found["status"] not in _UNFINISHED
            finally:
                if not finished:
                    await self._stop(query_id)
        return _answer(part, search, asked, found)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        await self._slots.acquire()
        try:
            yield
        finally:
            if self._closing:
                self._closing -= 1
            else:
                self._slots.release()

    def _fewer(self) -> None:
        """The account runs too many queries: one fewer of ours at once from now on."""
        if self.at_once > 1:
            self.at_once -= 1
            self._closing += 1

    async def _start(self, part: Part, search: Search) -> str:
        for tries_left in reversed(range(TRIES)):
            abandoned = threading.Event()
            try:
                query_id = await call(part, "logs:StartQuery", partial(self._started, search, abandoned))
            except RateLimited:
                self._fewer()
                if not tries_left:
                    raise
                continue
            except asyncio.CancelledError:
                abandoned.set()
                raise
            if query_id is None:
                raise UnknownGroup(
                    f"logs:StartQuery: one of the log groups {', '.join(search.groups)} does not exist",
                    "correct aws.log_groups in the catalogue",
                )
            return query_id
        raise AssertionError("unreachable: the last try answers or raises")

    def _started(self, search: Search, abandoned: threading.Event) -> str | None:
        """The query's id; None if a log group does not exist."""
        request: StartQueryRequestTypeDef = {
            "startTime": int(search.window.start.timestamp()),
            "endTime": ceil(search.window.end.timestamp()),
            "queryString": search.text,
            "limit": search.limit,
        }
        if any(group.startswith("arn:") for group in search.groups):
            request["logGroupIdentifiers"] = [group.removesuffix(":*") for group in search.groups]
        else:
            request["logGroupNames"] = search.groups
        try:
            query_id = self.client.start_query(**request)["queryId"]
        except self.client.exceptions.ResourceNotFoundException:
            return None
        if abandoned.is_set():  # cancelled while AWS answered
            self.client.stop_query(queryId=query_id)
        return query_id

    async def _results(self, part: Part, query_id: str) -> "GetQueryResultsResponseTypeDef | None":
        """The final answer, or what there is when time is up."""
        found: GetQueryResultsResponseTypeDef | None = None
        pause_s = FIRST_POLL_S
        read = partial(self.client.get_query_results, queryId=query_id)
        while part.budget.left_s > pause_s + RESERVE_S:
            await asyncio.sleep(pause_s)
            pause_s = POLL_S
            answer = await call(part, "logs:GetQueryResults", read)
            found = answer
            if answer["status"] not in _UNFINISHED:
                break
        return found

    async def _stop(self, query_id: str) -> None:
        with suppress(ClientError, BotoCoreError, TimeoutError):
            await asyncio.wait_for(on_thread(partial(self.client.stop_query, queryId=query_id)), STOP_S)


def _answer(part: Part, search: Search, asked: Asked, found: "GetQueryResultsResponseTypeDef | None") -> Answer:
    if found is None:
        raise TimedOut(f"logs:GetQueryResults: no time was left for: {search.text}")
    status = found["status"]
    rows = [{cell["field"]: cell.get("value", "") for cell in row if "field" in cell} for row in found["results"]]
    if status in ("Failed", "Cancelled"):
        asked.note(part, 0, truncated=True)
        raise CollectorError(f"logs:GetQueryResults: the query ended as {status}: {search.text}")
    partly = status != "Complete"
    truncated = partly or len(rows) >= search.limit or bool(found.get("nextToken"))
    if partly:
        part.gap(GapReason.TIMEOUT, f"Logs Insights answered in part ({status}): {search.text}")
    asked.note(part, len(rows), truncated=truncated)
    scanned_bytes = found.get("statistics", {}).get("bytesScanned", 0.0)
    if scanned_bytes >= LARGE_BYTES:
        told = f"{search.text}\n# scanned {scanned_bytes / 1e9:,.1f} GB"
        part.queries[-1] = part.queries[-1].model_copy(update={"text": told})
    return Answer(rows, truncated, scanned_bytes)


def link_to(client: "CloudWatchLogsClient", search: Search) -> str | None:
    """The query in the console's own notation, in which ``*`` introduces a byte in hex."""
    start, end = (
        moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z") for moment in (search.window.start, search.window.end)
    )
    groups = "".join(f"~'{_starred(group)}" for group in search.groups)
    detail = (
        f"~(end~'{_starred(end)}~start~'{_starred(start)}~timeType~'ABSOLUTE~tz~'UTC"
        f"~editorString~'{_starred(search.text)}~source~({groups}))"
    )
    path = f"cloudwatch/home?region={client.meta.region_name}#logsV2:logs-insights$3FqueryDetail$3D{detail}"
    return console(client, path)


def _starred(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", lambda found: "".join(f"*{byte:02x}" for byte in found[0].encode()), text)


def quoted(text: str) -> str:
    """A string literal of Logs Insights."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- jobs ---------------------------------------------------------------------------------------------------


def jobs(clients: Clients, clock: Clock, scope: Scope) -> Iterator[tuple[str, Job]]:
    """One job per target with log groups, in the order of the targets."""
    insights = Insights(clients.logs)
    for target in scope.targets:
        if target.aws.log_groups:
            yield f"log groups of {target.service}", _Reading(insights, clock, scope, target).read


def find(clients: Clients, clock: Clock, scope: Scope, target: Target, words: str) -> tuple[str, Job]:
    """The job that reads the target's lines that hold the words."""
    reading = _Reading(Insights(clients.logs), clock, scope, target)
    return f"log groups of {target.service}", partial(reading.find, words)


class _Reading:
    """One target's log groups, once."""

    def __init__(self, insights: Insights, clock: Clock, scope: Scope, target: Target) -> None:
        self._insights, self._clock, self._scope, self._target = insights, clock, scope, target
        self._groups = target.aws.log_groups[:GROUPS]

    async def read(self, part: Part) -> None:
        """Counts, then the lines that they show to be there."""
        if len(self._target.aws.log_groups) > GROUPS:
            part.gap(GapReason.TRUNCATED, f"{self._target.service}: only its first {GROUPS} log groups are read")
        counts: _Counts | None = None
        try:
            counts = await self._counts(part)
        except Forbidden as error:
            part.fail(error)
            await self._filtered(part)
            return
        except UnknownGroup:
            return  # each is told by its name
        except CollectorError as error:
            part.fail(error)
        known = counts if counts and counts.whole else None
        await asyncio.gather(*(_told(part, step) for step in self._steps(part, known)))

    async def find(self, words: str, part: Part) -> None:
        """The lines that hold the words, in any case: all are counted, the first ones are read. Raises CollectorError.

        NotDeclared where the catalogue knows no log group of the target.
        """
        if not self._groups:
            raise NotDeclared(f"the catalogue names no log group of {self._target.service}")
        holds = f"filter strcontains(tolower(@message), {quoted(words.lower())}) = 1"
        text = f"{holds}\n| {_LINES}"
        counts = await self._total(part, text)
        part.keep([counts.series(self._ref(LOG_LINES, text))] if counts.by_minute else [])
        limits = {self._scope.incident: FOUND_ROWS, **dict.fromkeys(self._scope.baseline, FOUND_BEFORE_ROWS)}
        for window, rows in limits.items():
            if not counts.whole or counts.rest(window):
                await self._keep(part, [holds], window, rows)

    def _steps(self, part: Part, counts: "_Counts | None") -> Iterator[Awaitable[None]]:
        incident = self._scope.incident
        for window in (incident, *self._scope.baseline[:1]):
            if counts is None or counts.problems(window):
                yield self._problems(part, counts, window)
        for window in (incident, *self._scope.baseline[:1]):
            if counts is None or counts.rest(window):
                yield self._rest(part, counts, window)
        if counts and counts.scanned_bytes <= CHEAP_BYTES:
            yield self._seasonal(part)

    # --- counts ---

    async def _total(self, part: Part, text: str) -> "_Counts":
        """Counts by minute over the groups that exist. Raises CollectorError: UnknownGroup if none does."""
        try:
            return await self._counted(part, text)
        except UnknownGroup:
            self._groups = await self._existing(part)
            if not self._groups:
                raise
            return await self._counted(part, text)

    async def _counted(self, part: Part, text: str) -> "_Counts":
        windows = joined((self._scope.incident, *self._scope.baseline))
        found = [await _count(self._insights, part, self._groups, w, self._clock, text) for w in windows]
        total = _Counts({minute: counts for one in found for minute, counts in one.by_minute.items()})
        total.scanned_bytes = sum(one.scanned_bytes for one in found)
        total.whole = all(one.whole for one in found)
        return total

    async def _counts(self, part: Part) -> "_Counts":
        """As ``_total``, of all lines and of problems; kept as series."""
        total = await self._total(part, _COUNTS)
        if any(lines for lines, _ in total.by_minute.values()):
            part.keep(total.series(self._ref(metric, _COUNTS)) for metric in (LOG_ERRORS, LOG_LINES))
        elif total.whole:
            part.gap(
                GapReason.EMPTY,
                f"no log line of {self._target.service} in {', '.join(self._groups)}",
                f"check aws.log_groups of {self._target.service} in the catalogue",
            )
        return total

    async def _seasonal(self, part: Part) -> None:
        """The same hours of other days, joined to the series that are kept already."""
        for window in self._scope.seasonal:
            counts = await _count(self._insights, part, self._groups, window, self._clock, _COUNTS)
            if counts.by_minute:
                part.series[:] = [concatenated([counts.series(one.ref), one]) for one in part.series]

    def _ref(self, metric: str, text: str) -> SeriesRef:
        query = _CountQuery(log_groups=self._groups, query=text).model_dump_json()
        return SeriesRef(
            source=SOURCE, component=self._target.service, metric=metric, statistic="sum", unit="lines", query=query
        )

    async def _existing(self, part: Part) -> tuple[str, ...]:
        """Those of the log groups that exist; the others are told."""
        found: list[str] = []
        for group in self._groups:
            if await _exists(self._insights.client, part, group):
                found.append(group)
            else:
                part.fail(_missing(group, self._target.service))
        return tuple(found)

    # --- lines ---

    async def _problems(self, part: Part, counts: "_Counts | None", window: Window) -> None:
        """The first ones: the onset tells most. Of more, a sample spread over what is left of the window."""
        limit = LIMITS["onset" if window == self._scope.incident else "problems"]
        words = f"filter @message like {_PROBLEM}"
        last = await self._keep(part, [words], window, limit)
        if counts is None or last is None:
            return
        left = Window(start=last + timedelta(milliseconds=1), end=window.end)
        weight = _every(counts.problems(window) - limit, LIMITS["problems"])
        if left.start < left.end:
            await self._keep(part, [words], left, LIMITS["problems"], weight)

    async def _rest(self, part: Part, counts: "_Counts | None", window: Window) -> None:
        weight = _every(counts.rest(window), LIMITS["rest"]) if counts else 1
        await self._keep(part, [f"filter @message not like {_PROBLEM}"], window, LIMITS["rest"], weight)

    async def _keep(
        self, part: Part, filters: Sequence[str], window: Window, limit: int, weight: int = 1
    ) -> datetime | None:
        """Keep lines, oldest first, each for ``weight`` lines. Returns the last one's time if there are more."""
        if weight > 1:
            # timestamps end in any millisecond, or all in 000: the weight has no divisor in common with 1000
            filters = [*filters, f"fields toMillis(@timestamp) % {weight} as slot", "filter slot = 0"]
            limit *= 2  # an estimate
            service, span = self._target.service, f"{window.start:%H:%M:%S} to {window.end:%H:%M:%S}"
            part.gap(GapReason.TRUNCATED, f"{service}, {span}: one log line was read for about {weight} there are")
        text = "\n| ".join([_FIELDS, *filters, "sort @timestamp asc", f"limit {limit}"])
        answer = await self._insights.ask(part, Search(self._groups, text, window, limit))
        lines = _Lines(self._target.service, window, weight)
        found = (_Row(*(row.get(name, "") for name in ("@timestamp", "@message", "@logStream"))) for row in answer.rows)
        await part.keep_logs(lines.of(found))
        _tell_malformed(part, lines.malformed, text)
        return lines.last if len(answer.rows) >= limit else None

    # --- without Insights ---

    async def _filtered(self, part: Part) -> None:
        """Where queries are denied: events group by group. Raises CollectorError."""
        windows = (self._scope.incident, *self._scope.baseline[:1])
        seen: set[str] = set()
        for pattern, limit in ((_TERMS, LIMITS["problems"]), ("", LIMITS["rest"])):
            for window in windows:
                for group in self._groups:
                    await self._events(part, group, pattern, window, limit, seen)

    async def _events(self, part: Part, group: str, pattern: str, window: Window, limit: int, seen: set[str]) -> None:
        text = f"filter-log-events {group} {pattern}".strip()
        lines, pages = _Lines(self._target.service, window), _Pages(group, pattern, window, limit)
        asked = Asked(text, window, _events_link(self._insights.client, group, pattern, window), kind="logs")
        while pages.more:
            found = await call(part, "logs:FilterLogEvents", partial(pages.read, self._insights.client))
            if found is None:
                part.fail(_missing(group, self._target.service))
                return
            new = [event for event in found if event.get("eventId", "") not in seen]
            seen.update(event["eventId"] for event in new if "eventId" in event)
            told = (_Row(e.get("timestamp", ""), e.get("message", ""), e.get("logStreamName", "")) for e in new)
            await part.keep_logs(lines.of(told))
        asked.note(part, pages.rows, truncated=pages.truncated)
        _tell_malformed(part, lines.malformed, text)


async def _told(part: Part, step: Awaitable[None]) -> None:
    """One query that fails does not cost the other ones."""
    try:
        await step
    except CollectorError as error:
        part.fail(error)


def _missing(group: str, service: str) -> NotFound:
    return NotFound(
        f"the log group {group} of {service} does not exist", f"correct aws.log_groups of {service} in the catalogue"
    )


async def _exists(client: "CloudWatchLogsClient", part: Part, group: str) -> bool:
    name = _name(group)
    # they come in the order of their names: the prefix itself is the first of all that begin with it
    ask = partial(client.describe_log_groups, logGroupNamePrefix=name, limit=1)
    answer = await call(part, "logs:DescribeLogGroups", ask)
    return any(one.get("logGroupName") == name for one in answer["logGroups"])


def _name(group: str) -> str:
    """The name of a log group that may be given by its ARN."""
    return group.partition(":log-group:")[2].removesuffix(":*") or group


def _every(lines: float, limit: int) -> int:
    """Of how many lines one is read so that about ``limit`` are; without divisors in common with 10."""
    every = max(ceil(lines / limit), 1)
    while every > 1 and (every % 2 == 0 or every % 5 == 0):
        every += 1
    return every


class _Pages:
    """FilterLogEvents page by page; a page may be empty and not be the last."""

    def __init__(self, group: str, pattern: str, window: Window, limit: int) -> None:
        self._limit, self._token, self._pages = limit, "", 0
        self.rows, self.more = 0, True
        self._request: FilterLogEventsRequestTypeDef = {
            "startTime": _ms(window.start),
            "endTime": _ms(window.end) - 1,  # which is included
            "limit": limit,
        }
        if group.startswith("arn:"):
            self._request["logGroupIdentifier"] = group.removesuffix(":*")
        else:
            self._request["logGroupName"] = group
        if pattern:
            self._request["filterPattern"] = pattern

    @property
    def truncated(self) -> bool:
        """Whether there is, or may be, more than was read."""
        return bool(self._token)

    def read(self, client: "CloudWatchLogsClient") -> "list[FilteredLogEventTypeDef] | None":
        """The next page; None if there is no such log group."""
        request = self._request
        if self._token:
            request = {**request, "nextToken": self._token}
        try:
            answer = client.filter_log_events(**request)
        except client.exceptions.ResourceNotFoundException:
            return None
        found = answer.get("events", [])
        self._pages += 1
        self.rows += len(found)
        before, self._token = self._token, answer.get("nextToken") or ""
        self.more = self._token not in ("", before) and self._pages < PAGES and self.rows < self._limit
        return found


def _events_link(client: "CloudWatchLogsClient", group: str, pattern: str, window: Window) -> str | None:
    """The events in the console, whose fragment has ``$`` for ``%``, and names quoted twice."""
    args = {"filterPattern": pattern, "start": _ms(window.start), "end": _ms(window.end)}
    name = quote(quote(_name(group), safe=""), safe="")
    path = f"log-groups/log-group/{name}/log-events{quote('?' + urlencode(args, quote_via=quote))}"
    return console(client, f"cloudwatch/home?region={client.meta.region_name}#logsV2:{path.replace('%', '$')}")


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


# --- counts -------------------------------------------------------------------------------------------------


class _CountQuery(BaseModel):
    """How a count is read again: the query text of its SeriesRef."""

    log_groups: tuple[str, ...]
    query: str


@dataclass
class _Counts:
    """Lines and problem lines by minute, in epoch seconds."""

    by_minute: dict[float, tuple[float, float]] = field(default_factory=dict)
    scanned_bytes: float = 0.0
    whole: bool = True  # a minute that is not there had no lines

    def problems(self, window: Window) -> float:
        """In the minutes that the window touches."""
        return sum(problems for _, problems in self._in(window))

    def rest(self, window: Window) -> float:
        """Lines that are no problems, in the minutes that the window touches."""
        return sum(lines - problems for lines, problems in self._in(window))

    def _in(self, window: Window) -> Iterator[tuple[float, float]]:
        start, end = window.start.timestamp() - PERIOD_S, window.end.timestamp()
        return (counts for minute, counts in self.by_minute.items() if start < minute < end)

    def series(self, ref: SeriesRef) -> Series:
        """One of the two counts."""
        column = int(ref.metric == LOG_ERRORS)
        minutes = tuple(sorted(self.by_minute))
        return Series(ref=ref, epoch_s=minutes, values=tuple(self.by_minute[minute][column] for minute in minutes))


async def _count(
    insights: Insights, part: Part, groups: Sequence[str], window: Window, clock: Clock, text: str
) -> _Counts:
    """Whole minutes up to now; one without a row had no lines, if the answer is understood whole."""
    whole = whole_periods(Window(start=window.start, end=max(min(window.end, clock.now()), window.start)), PERIOD_S)
    answer = await insights.ask(part, Search(tuple(groups), text, whole))
    first, last = int(whole.start.timestamp()), int(whole.end.timestamp())
    counts: dict[float, tuple[float, float]] = {}
    malformed = 0
    for row in answer.rows:
        try:
            minute = _moment(row.get("minute", "")).timestamp()
            lines, problems = float(row.get("lines", "")), float(row.get("problems") or 0)
        except ValueError:
            malformed += 1
            continue
        if not isfinite(lines + problems):
            malformed += 1
        elif first <= minute < last:  # the last second that is asked for belongs to the next minute
            counts[minute] = lines, problems
    _tell_malformed(part, malformed, text)
    if answer.truncated or malformed:
        return _Counts(counts, answer.scanned_bytes, whole=False)
    silent = {float(minute): (0.0, 0.0) for minute in range(first, last, PERIOD_S)}
    return _Counts({**silent, **counts}, answer.scanned_bytes)


def reads(ref: SeriesRef) -> bool:
    """Whether the metric is one of these counts."""
    return ref.source == SOURCE and ref.metric in (LOG_ERRORS, LOG_LINES)


async def measure(
    clients: Clients, clock: Clock, part: Part, refs: Sequence[SeriesRef], window: Window
) -> list[Series]:
    """The counts again, over another window. Raises CollectorError."""
    insights = Insights(clients.logs)
    found: list[Series] = []
    for text in dict.fromkeys(ref.query for ref in refs if reads(ref)):
        try:
            query = _CountQuery.model_validate_json(text)
        except ValidationError:
            raise CollectorError(f"this is no count of log lines: {text[:200]}") from None
        counts = await _count(insights, part, query.log_groups, window, clock, query.query)
        found += [counts.series(ref) for ref in refs if ref.query == text and counts.by_minute]
    return found


# --- lines --------------------------------------------------------------------------------------------------


class _Row(NamedTuple):
    """A log event as AWS tells it. ``at`` is epoch milliseconds, or a UTC time as Insights writes it."""

    at: str | int
    message: str
    stream: str


class _Lines:
    """Rows to LogLines of one service and window; what is no line, or not of the window, is left out and counted."""

    def __init__(self, service: str, window: Window, weight: int = 1) -> None:
        self._service, self._window, self._weight = service, window, weight
        self.malformed = 0
        self.last: datetime | None = None

    def of(self, rows: Iterable[_Row]) -> Iterator[LogLine]:
        """The lines, as the rows have them: oldest first."""
        for row in rows:
            at = self._moment(row)
            if at is None:
                self.malformed += 1
            elif self._window.start <= at < self._window.end:
                self.last = at
                yield log_line(self._service, at, row.message, row.stream, self._weight)

    def _moment(self, row: _Row) -> datetime | None:
        """When it was; None if that cannot be. Queries are asked in whole seconds: it may be off by one."""
        second = timedelta(seconds=1)
        try:
            at = _moment(row.at)
        except ValueError:
            return None
        sound = row.message.strip() and self._window.start - second <= at <= self._window.end + second
        return at if sound else None


def _tell_malformed(part: Part, malformed: int, text: str) -> None:
    if malformed:
        part.gap(GapReason.FAILED, f"{malformed} rows were not understood: {text}")


def _moment(at: str | int) -> datetime:
    """Raises ValueError."""
    try:
        if isinstance(at, int) or at.isdecimal():
            return utc(int(at) / 1000)
        return datetime.fromisoformat(at).replace(tzinfo=UTC)
    except (OverflowError, OSError):
        raise ValueError(f"no time: {at}") from None


_LEVEL_FIELD = re.compile(r"\b(?:level|lvl|severity)[\"']?\s*[=:]\s*[\"']?([a-zA-Z]+)")
_LEVEL_WORD = re.compile(
    r"\b(TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERROR|SEVERE|CRITICAL|FATAL|PANIC)\b"
    r"|\[(debug|info|notice|warn|warning|error|crit|alert|emerg)\]"
)
_BAD_WORD = re.compile(r"(?i)exception|traceback|\bpanic\b|\bfatal\b|\berror\b|\bfail(?:ed|ure)\b")
_UNEASY_WORD = re.compile(r"(?i)\bwarn|\btimed? ?out\b")
_HEAD = 300  # characters in which a line says its level
_XRAY_ID = re.compile(r"\b1-([0-9a-f]{8})-([0-9a-f]{24})\b")
_TRACE_ID = re.compile(r"(?i)trace[_.-]?id[\"']?\s*[=:]\s*[\"']?([0-9a-f]{32})\b")
_SPAN_ID = re.compile(r"(?i)span[_.-]?id[\"']?\s*[=:]\s*[\"']?([0-9a-f]{16})\b")
_LEVEL_KEYS = ("level", "severity", "log.level", "levelname", "log_level", "loglevel", "lvl", "severity_text")
_MESSAGE_KEYS = ("message", "msg", "log", "body", "event")
_ERROR_KEYS = ("error.message", "err.message", "exception.message", "error", "err", "exception", "exc_info")
_LOGGER_KEYS = ("logger", "logger_name", "log.logger", "logger.name", "name")
_TRACE_KEYS = ("trace_id", "traceId", "otelTraceID", "dd.trace_id", "xray_trace_id", "trace.id", "AWS-XRAY-TRACE-ID")
_SPAN_KEYS = ("span_id", "spanId", "otelSpanID", "dd.span_id", "span.id")
_INSTANCE_KEYS = ("kubernetes.pod_name", "pod_name", "task_id", "container_id")
_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


def log_line(service: str, at: datetime, message: str, stream: str, count: int = 1) -> LogLine:
    """A log event, whether its message is JSON or plain text. X-Ray's trace ids become those of OpenTelemetry."""
    fields = _fields(message)
    told = _text(fields, *_MESSAGE_KEYS) or message
    error = _text(fields, *_ERROR_KEYS)
    return LogLine(
        component=service,
        at=at,
        level=_field_level(fields) or ("error" if error else _plain_level(told)),
        message=(f"{told}: {error}" if error and error not in told else told)[:MAX_MESSAGE],
        logger=_text(fields, *_LOGGER_KEYS),
        instance=_text(fields, *_INSTANCE_KEYS) or stream.rpartition("/")[2],
        trace_id=w3c_trace_id(_text(fields, *_TRACE_KEYS)) or _plain_trace_id(message),
        span_id=_text(fields, *_SPAN_KEYS) or _first(_SPAN_ID, message),
        count=count,
    )


def w3c_trace_id(text: str) -> str:
    """The trace id that OpenTelemetry has for X-Ray's ``1-5759e988-bd862e3fe1be46a994272793``; another one as it is."""
    found = _XRAY_ID.search(text)
    return found[1] + found[2] if found else text


def _plain_trace_id(message: str) -> str:
    return _first(_TRACE_ID, message) or ("".join(found.groups()) if (found := _XRAY_ID.search(message)) else "")


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found[1] if found else ""


def _fields(message: str) -> Mapping[str, JsonValue]:
    """The object a message is; with the one inside it that a log router wrapped."""
    fields = _object(message)
    inner = fields.get("log")
    return {**fields, **_object(inner)} if isinstance(inner, str) else fields


def _object(text: str) -> dict[str, JsonValue]:
    if not text.lstrip().startswith("{") or len(text) > LONGEST_JSON:
        return {}
    try:
        return _OBJECT.validate_json(text)
    except ValidationError:
        return {}


def _text(fields: Mapping[str, JsonValue], *names: str) -> str:
    """The first of the fields that is there, under its dotted name or nested."""
    for name in names:
        value = fields.get(name, _inside(fields, name))
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            return str(value)
    return ""


def _inside(fields: Mapping[str, JsonValue], name: str) -> JsonValue:
    head, dot, tail = name.partition(".")
    value = fields.get(head) if dot else None
    return value.get(tail, _inside(value, tail)) if isinstance(value, dict) else None


def _field_level(fields: Mapping[str, JsonValue]) -> Level | None:
    value = _text(fields, *_LEVEL_KEYS)
    if value.isdecimal():  # pino and bunyan: 10 trace to 60 fatal
        number = int(value)
        return "critical" if number >= 60 else "error" if number >= 50 else "warning" if number >= 40 else "info"
    return level_of(value) if value else None


def _plain_level(text: str) -> Level:
    head = text[:_HEAD]
    found = _LEVEL_FIELD.search(head) or _LEVEL_WORD.search(head)
    if found:
        return level_of(next(filter(None, found.groups())))
    return "error" if _BAD_WORD.search(text) else "warning" if _UNEASY_WORD.search(text) else "info"


# --- checks -------------------------------------------------------------------------------------------------


async def checks(
    clients: Clients, settings: SourceSettings, clock: Clock, log_groups: Sequence[str] = ()
) -> list[Check]:
    """Each permission by the cheapest read there is; and whether the log groups of the catalogue exist."""
    logs, seen, query = clients.logs, list(map(_name, log_groups)), ["00000000-0000-0000-0000-000000000000"]
    now_s = int(clock.now().timestamp())

    def some_group() -> None:
        seen.extend(one["logGroupName"] for one in logs.describe_log_groups(limit=1)["logGroups"])

    def start() -> None:
        query[0] = logs.start_query(
            logGroupNames=seen[:1],
            startTime=now_s - PERIOD_S,
            endTime=now_s,
            queryString="fields @timestamp | limit 1",
            limit=1,
        )["queryId"]

    def filtered() -> None:
        logs.filter_log_events(logGroupName=seen[0], startTime=(now_s - PERIOD_S) * 1000, endTime=now_s * 1000, limit=1)

    found = [await allowed(settings, "logs:DescribeLogGroups", some_group)]
    if found[0].status == "ok":
        found += [await _group_check(clients, settings, group) for group in log_groups]
    seen.append("autopilot-doctor")  # which need not exist: AWS judges the permission first
    for action, ask in (
        ("logs:StartQuery", start),
        ("logs:GetQueryResults", lambda: logs.get_query_results(queryId=query[0])),
        ("logs:StopQuery", lambda: logs.stop_query(queryId=query[0])),
        ("logs:FilterLogEvents", filtered),
    ):
        found.append(await allowed(settings, action, ask))
    return found


async def _group_check(clients: Clients, settings: SourceSettings, group: str) -> Check:
    async def read(part: Part) -> str:
        if not await _exists(clients.logs, part, group):
            raise NotFound(f"the log group {group} does not exist", "correct aws.log_groups in the catalogue")
        return "exists"

    return await checked("aws", settings, f"log group {group}", read)
