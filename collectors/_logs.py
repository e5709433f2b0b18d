"""A million log lines in bounded memory: templates with counts, and the lines that tell most."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import islice
from operator import attrgetter
from threading import Lock
from zlib import crc32

from collectors._windows import joined
from collectors.base import MAX_TEMPLATE, Level, LogLine, Window, template

MAX_CHARACTERS = 32_000_000  # of all messages together
MAX_MESSAGE = 8_000  # characters of one
MAX_NAME = 200  # characters of a logger's or an instance's name
ROW_S = 60.0  # equal lines of one minute become one
MAX_COUNT = 5_000_000  # lines that one row may claim to stand for: 2,800 a second for half an hour
SLACK = timedelta(minutes=1)  # clocks differ a little
BATCH = 256  # lines that are taken in without letting anybody else in between

_RANK: dict[Level, int] = {"critical": 0, "error": 0, "warning": 1}
_OTHERS = 2  # the rank of info and debug
_Key = tuple[str, Level, str, str]  # component, level, logger, template
_Slot = tuple[int, int]  # which window, which minute of it


@dataclass(slots=True)
class _Row:
    """Equal lines of one slot; ``first`` is the earliest of them."""

    first: LogLine
    count: int
    instance: str

    def add(self, line: LogLine, count: int, instance: str) -> None:
        self.count += count
        if instance != self.instance:
            self.instance = ""
        if line.at < self.first.at:
            self.first = line

    def line(self) -> LogLine:
        """Without a span: the other lines of that span may be counts, and a span with holes tells a wrong story."""
        return replace(self.first, count=self.count, instance=self.instance, span_id="")


_Rows = dict[_Slot, _Row]


class LogDigest:
    """Takes log lines one by one, in any order, and keeps a bounded number that stands for all.

    Up to ``max_lines`` all are kept as they are. Beyond that equal lines (component, level, logger, template) of a
    minute become one with a count, except for the traces of a random sample, whose lines stay whole: they show what
    comes after what. If that is still too much, ordinary templates get fewer rows before warnings, and those before
    errors; ``dropped`` counts the lines for which no row is left. Safe to use from several threads.
    """

    def __init__(self, max_lines: int, windows: Sequence[Window] = ()) -> None:
        """``windows``: those that were asked for. Lines far outside all of them are not believed, see ``outside``."""
        self._max_lines = max_lines
        self._max_sampled = max_lines // 4
        self._max_rows = max_lines - self._max_sampled
        self._shortened = min(MAX_MESSAGE, max(MAX_CHARACTERS // max_lines, 2 * MAX_TEMPLATE))
        self._windows = [(w.start.timestamp(), w.end.timestamp()) for w in windows]
        self._bounds = [(w.start - SLACK, w.end + SLACK) for w in joined(windows)]
        self._lock = Lock()
        self._lines: list[LogLine] = []  # as they came; more than fit are folded into what follows
        self._characters = 0
        self._full = False
        self._templates: dict[_Key, _Rows] = {}
        self._rows = 0
        self._traces: defaultdict[str, list[LogLine]] = defaultdict(list)
        self._sampled = 0
        self._share = 1.0  # of all traces, that are in the sample
        self.taken = self.outside = self.dropped = 0  # lines, by their counts
        self.implausible = 0  # rows whose count is not believed

    def add(self, line: LogLine) -> None:
        """Take one line in."""
        with self._lock:
            self._take(line)

    def extend(self, lines: Iterable[LogLine]) -> None:
        """Take lines in, in batches: other threads get their turn."""
        rest = iter(lines)
        while batch := list(islice(rest, BATCH)):
            with self._lock:
                for line in batch:
                    self._take(line)

    def __len__(self) -> int:
        """Lines held now."""
        return len(self._lines) + self._sampled + self._rows

    def lines(self) -> list[LogLine]:
        """What is kept, at most ``max_lines``; counts and ``dropped`` add up to ``taken``."""
        with self._lock:
            if not self._full:
                return list(self._lines)
            while self._lines:
                self._fold(self._lines.pop())
            if self._rows > self._max_rows:
                self._thin_out()
            rows = (row.line() for rows in self._templates.values() for row in rows.values())
            sampled = (line for trace in self._traces.values() for line in trace)
            return sorted((*sampled, *rows), key=attrgetter("at"))

    # --- taking in ---

    def _take(self, line: LogLine) -> None:
        if line.count > MAX_COUNT:
            self.implausible += 1
            return
        if self._bounds and not any(start <= line.at < end for start, end in self._bounds):
            self.outside += line.count
            return
        self.taken += line.count
        line = _cut(line, MAX_MESSAGE)
        self._characters += len(line.message)
        self._full = self._full or len(self._lines) >= self._max_lines or self._characters > MAX_CHARACTERS
        if not self._full:
            self._lines.append(line)
            return
        self._fold(line)
        if self._lines:  # the older ones little by little: all at once would hold up the event loop
            self._fold(self._lines.pop())

    def _fold(self, line: LogLine) -> None:
        line = _cut(line, self._shortened)
        if line.span_id.strip("0") and self._in_sample(line.trace_id):
            self._traces[line.trace_id].append(line)
            self._sampled += 1
            while self._sampled > self._max_sampled:
                self._shrink_sample()
        else:
            self._count(line)

    def _in_sample(self, trace_id: str) -> bool:
        """By its id: all lines of a trace, from any source and at any time, have the same luck."""
        return bool(trace_id.strip("0")) and crc32(trace_id.encode(errors="replace")) < self._share * 2**32

    def _shrink_sample(self) -> None:
        self._share /= 2
        for trace_id in [t for t in self._traces if not self._in_sample(t)]:
            lines = self._traces.pop(trace_id)
            self._sampled -= len(lines)
            for line in lines:
                self._count(line)

    def _count(self, line: LogLine) -> None:
        key = line.component, line.level, line.logger, template(line.message)
        rows = self._templates.setdefault(key, {})
        slot = self._slot(line.at.timestamp())
        if (row := rows.get(slot)) is not None:
            row.add(line, line.count, line.instance)
            return
        rows[slot] = _Row(line, line.count, line.instance)
        self._rows += 1
        if self._rows > self._max_rows * 5 // 4:
            self._thin_out()

    def _slot(self, at_s: float) -> _Slot:
        """Minutes are those of a window: none lies half in the incident and half before it."""
        for number, (start, end) in enumerate(self._windows):
            if start <= at_s < end:
                return number, int((at_s - start) // ROW_S)
        return -1, max(int(at_s // ROW_S), 0)

    # --- too many rows ---

    def _thin_out(self) -> None:
        """Down to ``max_rows``. Each rank may keep a fifth; the rest goes to errors first, then to warnings."""
        ranks: tuple[list[_Key], ...] = ([], [], [])
        for key in self._templates:
            ranks[_RANK.get(key[1], _OTHERS)].append(key)
        needs = [sum(len(self._templates[key]) for key in keys) for keys in ranks]
        allowed = [min(need, self._max_rows // 5) for need in needs]
        for rank, need in enumerate(needs):
            allowed[rank] += min(need - allowed[rank], self._max_rows - sum(allowed))
        for keys, rows in zip(ranks, allowed, strict=True):
            self._thin_out_rank(keys, rows)
        self._rows = sum(map(len, self._templates.values()))

    def _thin_out_rank(self, keys: Sequence[_Key], allowed: int) -> None:
        """Fewer rows for the templates that have most; where one row each is too much, the rarest templates go."""
        most = max((len(self._templates[key]) for key in keys), default=0)
        while most > 1 and sum(min(len(self._templates[key]), most) for key in keys) > allowed:
            most //= 2
        for key in keys:
            self._templates[key] = _coarser(self._templates[key], most)
        excess = sum(len(self._templates[key]) for key in keys) - allowed
        for key in sorted(keys, key=self._lines_of):
            if excess <= 0:
                break
            self.dropped += self._lines_of(key)
            excess -= len(self._templates.pop(key))

    def _lines_of(self, key: _Key) -> int:
        return sum(row.count for row in self._templates[key].values())


def _coarser(rows: _Rows, most: int) -> _Rows:
    """At most so many rows, evenly spread, but at least one per window that has any."""
    if len(rows) <= most:
        return rows
    windows = len({window for window, _ in rows})
    while len(rows) > max(most, windows):
        joint: _Rows = {}
        for (window, minute), row in rows.items():
            if (same := joint.get((window, minute // 2))) is None:
                joint[window, minute // 2] = row
            else:
                same.add(row.first, row.count, row.instance)
        rows = joint
    return rows


def _cut(line: LogLine, longest: int) -> LogLine:
    if len(line.message) <= longest and len(line.logger) <= MAX_NAME and len(line.instance) <= MAX_NAME:
        return line
    return replace(
        line, message=line.message[:longest], logger=line.logger[:MAX_NAME], instance=line.instance[:MAX_NAME]
    )
