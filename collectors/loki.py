"""Reads Grafana Loki: how many lines of which level there were, and the lines that tell most.

A service's streams are those with the catalogue's ``loki`` matchers, without any ``service_name="<name>"``, the label
that Loki itself gives. Levels are told by the label ``detected_level`` or ``level``; where there is neither, words
like «error» in the line tell problems from the rest.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from math import ceil, floor
from typing import Literal
from urllib.parse import urlencode

import httpx
from pydantic import BaseModel, Field, JsonValue

from collectors._budget import env
from collectors._http import Api, Params, checked, clock_check, parsed
from collectors._jobs import Job, Part
from collectors._log_lines import flat, forms_of, level_by, log_line
from collectors._prometheus_family import (
    FamilySettings,
    Row,
    client,
    complete,
    data_of,
    literal,
    matchers,
    not_understood,
    readable,
    rows_of,
)
from collectors._queries import asked
from collectors._questions import NotDeclared, target_of, words_of
from collectors._source import HttpSource
from collectors._windows import joined, whole_periods
from collectors.base import (
    Check,
    Clock,
    CollectorError,
    Declared,
    GapReason,
    Level,
    LogLine,
    LogsRead,
    Refused,
    Scope,
    Series,
    SeriesRef,
    Target,
    Telemetry,
    TraceRead,
    Window,
    utc,
)

SIDE_BY_SIDE = 6  # jobs at once
AT_ONCE = 6  # requests
PER_SECOND = 20.0
COUNT_S = 60  # lines are counted by the minute, when measured again too
MAX_POINTS = 1400  # per series; Loki refuses 11,000
MAX_LEVELS = 12
PAGE = 1000  # lines; Loki gives 5000 at most unless told otherwise
PROBLEMS = 2000  # lines per service of the incident, from its start
LATEST_PROBLEMS = 500  # of an incident that has more
USUAL_PROBLEMS = 1000  # of the time before
FOUND, FOUND_BEFORE = 200, 50  # that answer a question: the counts tell how many there are
SAMPLE_SLICES, SAMPLE_PER_SLICE = 5, 100  # of the other lines: some of each fifth of a window
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_PROBLEM_LEVELS = "(?i)(warn|err|crit|fatal|alert|emerg|panic|severe).*|[456]0"
_PROBLEM_WORDS = "(?i)(error|exception|fatal|panic|timeout|timed out|refused|denied)"
_LIMITS = {
    "max_query_length": ("query time range exceeds", "query length"),
    "max_query_series": ("maximum of series", "maximum number of series"),
    "max_entries_limit_per_query": ("max entries limit",),
}


class Settings(FamilySettings):
    """``LOKI_*``: where it is and credentials; and where people read logs, for links."""

    model_config = env("LOKI_")

    grafana_url: str | None = Field(default=None, description="Grafana's base URL: links open its Explore page")
    grafana_datasource: str = Field(default="loki", description="UID of Loki's data source in Grafana")


def create(clock: Clock, declared: Declared) -> "LokiCollector":
    """The collector of the server that the settings name. Raises ValueError naming a missing setting."""
    return LokiCollector(clock, complete(Settings(), "loki", "/loki/api"))


# --- what Loki answers --------------------------------------------------------------------------------------


class _Stream(BaseModel):
    stream: dict[str, str] = Field(default_factory=dict)
    values: list[JsonValue]


class _Streams(BaseModel):
    result: list[JsonValue]


@dataclass(frozen=True)
class _Entry:
    """A line with the nanosecond it bears, and all that is known of it by name: labels, metadata, parsed fields."""

    ns: int
    text: str
    labels: tuple[tuple[str, str], ...]


@dataclass
class _Search:
    """Which lines, from which end, and how far it has come."""

    query: str
    window: Window
    budget: int
    newest_first: bool = False
    untold: Level = "error"  # the level of a line that tells none: problems are what is looked for
    after: "_Search | None" = None  # has read the lines before these
    share: float = 1.0  # how many lines each that is read stands for
    start_ns: int = 0
    end_ns: int = 0
    rows: int = 0
    more: bool = True
    skipped: bool = False
    edge: set[_Entry] = field(default_factory=set)  # lines of the nanosecond at which the next page begins

    def __post_init__(self) -> None:
        self.start_ns, self.end_ns = _ns(self.window.start), _ns(self.window.end)
        if self.after is not None:
            self.start_ns = self.after.start_ns

    @property
    def limit(self) -> int:
        """Lines of the next page, those that will be met again not counted."""
        return min(PAGE, self.budget - self.rows + len(self.edge))

    def take(self, page: Sequence[_Entry], is_full: bool) -> list[_Entry]:
        """The page's new lines in order; moves on to the next page."""
        known = self.edge | self.after.edge if self.after else self.edge
        new = [entry for entry in dict.fromkeys(page) if entry not in known]
        new.sort(key=lambda entry: entry.ns, reverse=self.newest_first)
        self.rows += len(new)
        self.more = is_full
        if new:
            last = new[-1].ns
            self.edge = {entry for entry in page if entry.ns == last}
            self._move_to(last)
        elif is_full:  # more lines of one nanosecond than a page holds
            self.edge, self.skipped = set(), True
            self._move_to(self.end_ns - 2 if self.newest_first else self.start_ns + 1)
        return new

    def counts(self, new: Sequence[_Entry]) -> Iterator[tuple[_Entry, int]]:
        """The lines just taken, with how many each stands for; in all as many as there are."""
        for number, entry in enumerate(new, start=self.rows - len(new)):
            yield entry, floor((number + 1) * self.share) - floor(number * self.share)

    def _move_to(self, ns: int) -> None:
        if self.newest_first:
            self.end_ns = ns + 1
        else:
            self.start_ns = ns


@dataclass(frozen=True)
class _Volume:
    """How many lines there are, by the minute; and the label that tells their level, "" if there is none."""

    label: str
    problems: Mapping[float, float]
    others: Mapping[float, float]


class LokiCollector(HttpSource[Settings]):
    """One Loki, read-only."""

    name = "loki"

    def __init__(self, clock: Clock, settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """``transport`` replaces the network. ``settings`` must hold the URL."""
        super().__init__(settings)
        self._clock = clock
        self._api = Api(
            "Loki",
            client(settings, auth=None, transport=transport),
            base_setting="LOKI_URL",
            per_second=PER_SECOND,
            at_once=AT_ONCE,
        )

    async def collect(self, scope: Scope) -> Telemetry:
        """Counts by level, then lines, of every target: problems before the rest. Raises CollectorError."""
        return await self._gathered(scope, self._jobs(scope), side_by_side=SIDE_BY_SIDE)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' counts over another window; no line is 0. Raises CollectorError if none could be read."""
        part = self._part("measure")
        found: list[Series] = []
        for ref in refs:
            if ref.source == self.name:
                try:
                    rows = await self._counts(part, ref.query, window)
                except CollectorError as error:
                    part.fail(error)
                else:
                    found.append(_filled(ref, dict(rows[0].points) if rows else {}, self._minutes(window)))
        if part.failures and not found:
            raise part.failures[0]
        return [series for series in found if series.epoch_s]

    # --- jobs ---

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        for target in scope.targets:
            yield f"logs of {target.service}", partial(self._logs, scope, target)

    async def _logs(self, scope: Scope, target: Target, part: Part) -> None:
        volume = await self._volume(scope, target, part)
        if volume is None:
            return
        problems = f"{_selector(target)} {_problems(volume.label)}"
        share = _share(volume.problems, scope.incident, PROBLEMS + LATEST_PROBLEMS)
        onset = _Search(problems, scope.incident, PROBLEMS, share=share)
        await self._lines(target, onset, part)
        if onset.more:  # the onset tells most; after it, how it is now
            latest = _Search(problems, scope.incident, LATEST_PROBLEMS, newest_first=True, after=onset, share=share)
            await self._lines(target, latest, part)
        await self._sample(target, volume, scope.incident, part)
        for window in scope.baseline[:1]:
            share = _share(volume.problems, window, USUAL_PROBLEMS)
            await self._lines(target, _Search(problems, window, USUAL_PROBLEMS, share=share), part)
            await self._sample(target, volume, window, part)

    async def _volume(self, scope: Scope, target: Target, part: Part) -> _Volume | None:
        """Counts by level; None if there are no lines."""
        windows = joined((scope.incident, *scope.baseline))
        read = [(window, await self._by_level(target, window, part)) for window in windows]
        rows = [row for _, found in read for row in found]
        if not rows:
            part.gap(
                GapReason.EMPTY,
                _no_line(target),
                _mend_selector(target),
            )
            return None
        label = next((name for name in ("detected_level", "level") if any(_told(row, name) for row in rows)), "")
        every = _summed(rows)
        if label:
            problems = _summed(row for row in rows if re.fullmatch(_PROBLEM_LEVELS, row.labels.get(label, "")))
            try:
                await self._other_days(scope, target, read, part)
            finally:  # also if time is up
                part.keep(self._series(target, label, read))
        else:  # what has no level has to be counted by its words
            read = [(window, await self._by_words(target, window, part)) for window in windows]
            problems = _summed(row for _, found in read for row in found)
            part.keep(self._series(target, label, read))
        return _Volume(label, problems, every - problems)

    async def _other_days(self, scope: Scope, target: Target, read: list[tuple[Window, list[Row]]], part: Part) -> None:
        """The alerted service's counts of the same hours of other days; logs are often not kept that long."""
        try:
            for window in scope.seasonal if target.hops == 0 else ():
                rows = await self._by_level(target, window, part)
                read.append((window, rows))
        except CollectorError as error:
            part.fail(error)

    async def _by_level(self, target: Target, window: Window, part: Part) -> list[Row]:
        query = f"sum by (detected_level, level) (count_over_time({_selector(target)} [{COUNT_S}s]))"
        return await self._counts(part, query, window)

    async def _by_words(self, target: Target, window: Window, part: Part) -> list[Row]:
        """Lines with words of trouble. There are other lines, so that none of these is 0 and not unknown."""
        rows = await self._counts(part, _count_ref(target, "").query, window)
        return rows or [Row({}, ())]

    def _series(self, target: Target, label: str, read: Sequence[tuple[Window, Sequence[Row]]]) -> list[Series]:
        """One series for each level, however it is written; a minute without such lines is 0, in a window that has
        lines at all.
        """
        counts: dict[str, Counter[float]] = {}
        minutes: set[float] = set()
        for window, rows in read:
            for row in rows:
                counts.setdefault(row.labels.get(label, ""), Counter()).update(dict(row.points))
            minutes.update(self._minutes(window) if rows else ())
        most = sorted(counts, key=lambda level: (-counts[level].total(), level))[:MAX_LEVELS]
        alike: dict[str, list[str]] = {}
        for word in most:
            alike.setdefault(_level_name(word), []).append(word)
        filled = (
            _filled(_count_ref(target, label, *words), sum((counts[word] for word in words), Counter()), minutes)
            for words in alike.values()
        )
        return [series for series in filled if series.epoch_s]

    async def _sample(self, target: Target, volume: _Volume, window: Window, part: Part) -> None:
        """Some of the lines that are no problems, of each part of the window."""
        query = f"{_selector(target)} {_others(volume.label)}"
        length = (window.end - window.start) / SAMPLE_SLICES
        for index in range(SAMPLE_SLICES):
            start = window.start + index * length
            part_of_it = Window(start=start, end=start + length)
            share = _share(volume.others, part_of_it, SAMPLE_PER_SLICE)
            search = _Search(query, part_of_it, SAMPLE_PER_SLICE, untold="info", share=share)
            await self._lines(target, search, part)

    async def _lines(self, target: Target, search: _Search, part: Part) -> None:
        """Keep the lines, page by page, until the budget of rows is used up."""
        link = self._link(search.query, search.window)
        with asked(part, search.query, search.window, link, kind="logs") as tally:
            while search.more and search.rows < search.budget and search.start_ns < search.end_ns:
                limit = search.limit
                page, size = await self._page(search, limit, part)
                new = search.take(page, size >= limit)
                tally.rows, tally.truncated = search.rows, search.more
                await part.keep_logs(_log_lines(target.service, search, new))
        if search.skipped:
            told = f"more than {PAGE} lines of one moment were not all read: {search.query}"
            part.gap(GapReason.TRUNCATED, told, "let the service log times as finely as its clock has them")

    # --- one question ---

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Logs."""
        return frozenset(("logs",))

    def _answer(self, question: LogsRead | TraceRead, scope: Scope) -> tuple[str, Job]:
        assert isinstance(question, LogsRead)
        target = target_of(question.component, scope)
        return f"logs of {target.service}", partial(self._find, scope, target, words_of(question))

    async def _find(self, scope: Scope, target: Target, words: str, part: Part) -> None:
        """The lines that hold the words: all are counted, the first ones are read. Raises CollectorError.

        NotDeclared where there is no line at all: that these are missing too would say nothing.
        """
        query = f"{_selector(target)} {_holding(words)}"
        windows = joined((scope.incident, *scope.baseline))
        try:
            await self._count_found(target, query, windows, part)
        except CollectorError as error:  # counting reads all there are; the first few may still be found
            part.fail(error)
        for window, rows in ((scope.incident, FOUND), *((w, FOUND_BEFORE) for w in scope.baseline)):
            await self._lines(target, _Search(query, window, rows, untold="info"), part)
        if not any(one.rows for one in part.queries):
            aside = Part(self.name, part.about, part.budget)  # this is not what was asked for
            if not any([await self._by_level(target, window, aside) for window in windows]):
                raise NotDeclared(_no_line(target), _mend_selector(target))

    async def _count_found(self, target: Target, query: str, windows: Sequence[Window], part: Part) -> None:
        ref = _counting(target, "log_lines", query)
        read = [(window, await self._counts(part, ref.query, window)) for window in windows]
        if any(rows for _, rows in read):
            minutes = {minute for window, _ in read for minute in self._minutes(window)}
            part.keep([_filled(ref, _summed(row for _, rows in read for row in rows), minutes)])

    # --- requests ---

    async def _page(self, search: _Search, limit: int, part: Part) -> tuple[list[_Entry], int]:
        """The page's lines that are understood, and how many there were."""
        params: Params = {
            "query": search.query,
            "start": str(search.start_ns),
            "end": str(search.end_ns),
            "limit": limit,
            "direction": "backward" if search.newest_first else "forward",
        }
        found = parsed(_Streams, await self._ask(part, search.query, params)).result
        streams = list(readable(part, search.query, found, _Stream))
        entries = [_entry(stream, value) for stream in streams for value in stream.values]
        inside = [e for e in entries if e and search.start_ns <= e.ns < search.end_ns]
        not_understood(part, search.query, len(entries) - len(inside))
        return inside, len(entries)

    def _minutes(self, window: Window) -> list[float]:
        """The minutes that are counted, as epoch seconds of their beginning."""
        end = min(window.end, self._clock.now())
        if end <= window.start:
            return []
        step_s = COUNT_S * ceil((window.end - window.start).total_seconds() / MAX_POINTS / COUNT_S)
        whole = whole_periods(Window(start=window.start, end=end), step_s)
        return [float(at) for at in range(int(whole.start.timestamp()), int(whole.end.timestamp()), step_s)]

    async def _counts(self, part: Part, query: str, window: Window) -> list[Row]:
        """Counts by the minute that begins at each point; Loki's own points are at its end. Raises CollectorError."""
        minutes = self._minutes(window)
        if not minutes:
            return []
        step_s = minutes[1] - minutes[0] if len(minutes) > 1 else float(COUNT_S)
        params: Params = {
            "query": query,
            "start": f"{(minutes[0] + COUNT_S) * 1e9:.0f}",
            "end": f"{(minutes[-1] + COUNT_S) * 1e9:.0f}",
            "step": f"{step_s:.0f}s",
        }
        known = set(minutes)
        with asked(part, query, window, self._link(query, window), kind="metrics") as tally:
            found = rows_of(part, query, await self._ask(part, query, params))
            rows = [Row(row.labels, tuple((at - COUNT_S, value) for at, value in row.points)) for row in found]
            tally.rows = sum(len(row.points) for row in rows)
        kept = [Row(row.labels, tuple(point for point in row.points if point[0] in known)) for row in rows]
        return [row for row in kept if row.points]

    async def _ask(self, part: Part, query: str, params: Params) -> JsonValue:
        headers = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}  # else metadata makes a stream of each line
        try:
            body = await self._api.json(
                part, "/loki/api/v1/query_range", needs=self._needs(), params=params, headers=headers
            )
        except Refused as error:
            raise Refused(f"{query}: {error.detail}"[:1000], _mend(error.detail)) from None
        return data_of(part, query, body)

    def _needs(self) -> str:
        tenant = "" if self._settings.org_id else "LOKI_ORG_ID (a Loki with tenants answers 401 without it), or "
        return f"set {tenant}LOKI_TOKEN, or LOKI_USERNAME and LOKI_PASSWORD"

    def _link(self, query: str, window: Window) -> str | None:
        """Grafana's Explore page."""
        if not self._settings.grafana_url:
            return None
        pane = {
            "datasource": self._settings.grafana_datasource,
            "queries": [{"refId": "A", "expr": query}],
            "range": {"from": str(_ns(window.start) // 1_000_000), "to": str(_ns(window.end) // 1_000_000)},
        }
        args = {"schemaVersion": 1, "panes": json.dumps({"a": pane}, separators=(",", ":"))}
        return f"{self._settings.grafana_url.rstrip('/')}/explore?{urlencode(args)}"

    # --- doctor ---

    async def check(self) -> list[Check]:
        """See collectors.base.Collector."""
        look = partial(checked, self.name, self._settings)
        now = self._clock.now()
        window = Window(start=now - timedelta(minutes=5), end=now)
        labels: list[str] = []

        async def reach(part: Part) -> str:
            params: Params = {"start": str(_ns(window.start)), "end": str(_ns(window.end))}
            body = await self._api.json(part, "/loki/api/v1/labels", needs=self._needs(), params=params)
            data = data_of(part, "labels", body)
            labels.extend(one for one in (data if isinstance(data, list) else []) if isinstance(one, str))
            return f"{len(labels)} labels"

        async def sample(part: Part) -> str:
            label = next((one for one in ("service_name", "app", "job") if one in labels), labels[0])
            query = f'sum(count_over_time({{{label}=~".+"}} [{COUNT_S}s]))'
            rows = await self._counts(part, query, window)
            return f"{query}: {rows[0].points[-1][1]:g}" if rows else f"{query}: nothing"

        checks = [await look("reachable", reach)]
        if labels:
            checks.append(await look("sample query", sample))
        elif checks[0].status == "ok":
            checks.append(Check(name="sample query", status="skipped", detail="no logs in the last five minutes"))
        return [*checks, clock_check(self._api.skew_s)]


# --- queries ------------------------------------------------------------------------------------------------


def _selector(target: Target) -> str:
    return f"{{{matchers(target.loki, 'service_name', target.service)}}}"


def _problems(label: str) -> str:
    return f"| {label}=~{literal(_PROBLEM_LEVELS)}" if label else f"|~ {literal(_PROBLEM_WORDS)}"


def _others(label: str) -> str:
    return f"| {label}!~{literal(_PROBLEM_LEVELS)}" if label else f"!~ {literal(_PROBLEM_WORDS)}"


def _holding(words: str) -> str:
    """Lines with this text in any case."""
    text = "|".join(re.escape(form).replace("\\ ", " ") for form in forms_of(words))  # people read it, too
    return f"|~ {literal(f'(?i){text}')}"


def _no_line(target: Target) -> str:
    return f"{target.service}: no line in {_selector(target)}"


def _mend_selector(target: Target) -> str:
    return f'set loki of {target.service} in the catalogue to its label matchers, e.g. app="{target.service}"'


def _count_ref(target: Target, label: str, *words: str) -> SeriesRef:
    """How to count the lines of a level again, by the words for it; without a label those with words of trouble."""
    condition = f"| {label}={literal(''.join(words))}"
    if len(words) > 1:
        condition = f"| {label}=~{literal('|'.join(map(re.escape, words)))}"
    metric = f"log_lines_{_level_name(words[0])}" if label else "log_lines_error"
    return _counting(target, metric, f"{_selector(target)} {condition if label else _problems('')}")


def _counting(target: Target, metric: str, lines: str) -> SeriesRef:
    """How to count the lines that a query selects, by the minute."""
    return SeriesRef(
        source="loki",
        component=target.service,
        metric=metric,
        statistic="sum",
        unit="lines/min",
        query=f"sum(count_over_time({lines} [{COUNT_S}s]))",
    )


def _level_name(word: str) -> str:
    """Of a metric: by our words for levels its name tells what is bad. What is critical is an error, too."""
    level = level_by(word)
    return "without_level" if word in ("", "unknown") else "error" if level == "critical" else level


def _summed(rows: Iterable[Row]) -> Counter[float]:
    """Lines by the minute."""
    found: Counter[float] = Counter()
    for row in rows:
        found.update(dict(row.points))
    return found


def _share(counts: Mapping[float, float], window: Window, most: int) -> float:
    """How many of the window's lines each one stands for, if at most so many are read."""
    start, end = window.start.timestamp(), window.end.timestamp()
    return max(sum(count for at, count in counts.items() if start <= at < end) / most, 1.0)


def _told(row: Row, label: str) -> bool:
    return row.labels.get(label, "") not in ("", "unknown")


def _mend(detail: str) -> str:
    """Which of Loki's limits it was."""
    for setting, complaints in _LIMITS.items():
        if any(complaint in detail for complaint in complaints):
            return f"raise {setting} in Loki's limits_config, or narrow loki of the service in the catalogue"
    return "correct loki of the service in the catalogue: label matchers of LogQL"


def _ns(moment: datetime) -> int:
    """Epoch nanoseconds, exactly: a float has no room for them."""
    return (moment - EPOCH) // timedelta(microseconds=1) * 1000


# --- rows to telemetry --------------------------------------------------------------------------------------


def _filled(ref: SeriesRef, counts: Mapping[float, float], minutes: Iterable[float]) -> Series:
    epoch_s = tuple(sorted(minutes))
    return Series(ref=ref, epoch_s=epoch_s, values=tuple(float(counts.get(at, 0.0)) for at in epoch_s))


def _entry(stream: _Stream, value: JsonValue) -> _Entry | None:
    """``["1700000000000000000", "line"]``; a third element is what is known of this line alone."""
    if not isinstance(value, list) or len(value) < 2:
        return None
    at, text, *more = value
    if not isinstance(text, str) or not isinstance(at, str) or not re.fullmatch(r"\d{1,19}", at, re.ASCII):
        return None
    metadata = flat(more[0]) if more and isinstance(more[0], dict) else {}
    return _Entry(int(at), text, tuple(sorted((stream.stream | metadata).items())))


def _log_lines(service: str, search: _Search, new: Sequence[_Entry]) -> Iterator[LogLine]:
    """One that stands for others is told without its span: a span with holes tells a wrong story."""
    for entry, count in search.counts(new):
        line = log_line(service, utc(entry.ns / 1e9), entry.text, dict(entry.labels), search.untold)
        yield line if search.share == 1.0 else replace(line, count=count, span_id="")
