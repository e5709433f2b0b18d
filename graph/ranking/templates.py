"""Which log lines are the same: by logger and line number, by stack trace, or by the words that do not vary.

Drain, the usual miner, takes lines as they come, so that its templates depend on their order, and merges "payment
accepted" with "payment declined", so that a new outcome never looks new. Here the whole set is split by its words, as
IPLoM does (Makanju et al., KDD 2009): first where few words occur, and merged only where many do.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from collectors.base import MAX_TEMPLATE, Level, LogLine, template
from graph.ranking.stacktraces import stack_trace
from graph.ranking.windows import Windows

VARIABLE = 5
"""Different words at one place that make it a parameter: outcomes and states come in twos to fours, names do not."""
MAX_SPLITS = 8  # words that may tell the templates of a logger apart; bounds the time that random text takes
MAX_WORDS = 40  # looked at one by one; a template has 160 characters
_CACHED = 65_536  # different texts remembered; the memory of a service's usual lines, not of random ones
_HEAD = 2 * MAX_TEMPLATE  # all that the template of a message depends on
_LINE_IN_LOGGER = re.compile(r"[#:]\d+$")
_SAME_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_ID = re.compile(rb"\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b|\b(?=[0-9a-fA-F]*0)[0-9a-fA-F]{8,}\b")  # with 0 for any digit
_ANY_ID = b"00000000"
_KEPT = "surrogatepass"  # broken text is text, too
_MASK = "<*>"


@dataclass(slots=True, eq=False)
class Text:
    """Lines that read the same, of one source, component, logger and level; ``name`` is their template's."""

    source: str
    component: str
    level: Level
    logger: str
    name: str
    mined: str = ""  # the masked message, if the words of others may still show some of its words to vary
    now: list[LogLine] = field(default_factory=list)
    then: list[LogLine] = field(default_factory=list)
    seasonal: dict[int, int] = field(default_factory=dict)  # lines by number of the seasonal window


Told = tuple[float, Text, LogLine]  # epoch seconds, what the line says, the line
SpanOf = tuple[str, str, str]  # trace id, span id, component


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """All lines, by what they say and by the span they belong to."""

    texts: tuple[Text, ...]
    by_span: Mapping[SpanOf, list[Told]]


def read(lines: Iterable[tuple[str, LogLine]], windows: Windows) -> Lines:
    """Lines with the names of their sources, put together; those of a span are kept wherever they lie."""
    which, text_of = windows_by_moment(windows), _Reader()
    by_span: defaultdict[SpanOf, list[Told]] = defaultdict(list)
    for source, line in lines:
        at = line.at.timestamp()
        window = which(at)
        if window is None and not line.span_id:
            continue
        text = text_of(source, line)
        if line.span_id:
            by_span[line.trace_id, line.span_id, line.component].append((at, text, line))
        if window == NOW:
            text.now.append(line)
        elif window == THEN:
            text.then.append(line)
        elif window is not None:
            text.seasonal[window] = text.seasonal.get(window, 0) + line.count
    texts = text_of.texts
    _merge_variables(texts)
    return Lines(tuple(texts), by_span)


NOW, THEN = -1, -2  # the incident's window and the baselines'; from 0 on the seasonal ones


def windows_by_moment(windows: Windows) -> Callable[[float], int | None]:
    """Which window a moment lies in: NOW, THEN, the number of a seasonal one, or none."""
    start, end = windows.incident
    ranges = [*((a, b, THEN) for a, b in windows.baselines), *((a, b, i) for i, (a, b) in enumerate(windows.seasonal))]

    def which(at: float) -> int | None:
        if start <= at < end:
            return NOW
        for a, b, window in ranges:
            if a <= at < b:
                return window
        return None

    return which


class _Reader:
    """Finds the text of a line. A line of a kind seen before costs a translation and a look into a table."""

    def __init__(self) -> None:
        self._texts: dict[tuple[str, str, Level, str, str], Text] = {}
        self._recent: dict[tuple[str, str, Level, str, bytes], Text] = {}
        self._numbered: dict[str, bool] = {}

    @property
    def texts(self) -> list[Text]:
        return list(self._texts.values())

    def __call__(self, source: str, line: LogLine) -> Text:
        message, logger = line.message, line.logger
        if "\n" in message:
            trace = stack_trace(message)
            if trace is not None:
                return self._text(source, line, trace.name, "")
            message = message.partition("\n")[0]
        numbered = self._numbered.get(logger)
        if numbered is None:
            numbered = self._numbered[logger] = bool(_LINE_IN_LOGGER.search(logger))
        if numbered:
            return self._text(source, line, "", "")
        # all digits are masked in the end: with one digit for all of them, few different texts are left
        alike = message[:_HEAD].encode("utf-8", _KEPT).translate(_SAME_DIGITS)
        found = self._recent.get((source, line.component, line.level, logger, alike))
        return found if found is not None else self._read(source, line, _ID.sub(_ANY_ID, alike))

    def _read(self, source: str, line: LogLine, alike: bytes) -> Text:
        key = (source, line.component, line.level, line.logger, alike)
        found = self._recent.get(key)
        if found is None:
            masked = template(alike.decode("utf-8", _KEPT))
            found = self._text(source, line, masked, masked)
            if len(self._recent) >= _CACHED:
                self._recent.clear()
            self._recent[key] = found
        return found

    def _text(self, source: str, line: LogLine, what: str, mined: str) -> Text:
        key = (source, line.component, line.level, line.logger, what)
        found = self._texts.get(key)
        if found is None:
            name = " ".join(filter(None, (line.logger, what)))
            found = self._texts[key] = Text(source, line.component, line.level, line.logger, name, mined)
        return found


def _merge_variables(texts: Iterable[Text]) -> None:
    """Gives one name to texts that differ in words only where words vary."""
    alike: defaultdict[tuple[str, Level, str], list[Text]] = defaultdict(list)
    for text in texts:
        if text.mined:
            alike[text.component, text.level, text.logger].append(text)
    for found in alike.values():
        names = templates(text.mined for text in found)
        for text in found:
            text.name = " ".join(filter(None, (text.logger, names[text.mined])))


_Words = tuple[str, ...]


def templates(messages: Iterable[str]) -> dict[str, str]:
    """By masked message its template, with the words masked that vary among the messages. Their order is of no matter.

    A word varies where at least VARIABLE different ones stand among messages that agree in at least as many places as
    they differ in. Splitting starts where the fewest different words stand, so that outcomes stay apart.
    """
    by_length: defaultdict[int, list[_Words]] = defaultdict(list)
    for message in sorted(set(messages)):
        words = tuple(message.split(" ", MAX_WORDS))
        by_length[len(words)].append(words)
    found: dict[str, str] = {}
    unsplit = [(rows, MAX_SPLITS) for rows in by_length.values()]
    while unsplit:
        rows, splits = unsplit.pop()
        parts, name = _split(rows) if len(rows) >= VARIABLE and splits else ([], None)
        unsplit.extend((part, splits - 1) for part in parts)
        if not parts:
            found.update((" ".join(row), name or " ".join(row)) for row in rows)
    return found


def _split(rows: list[_Words]) -> tuple[list[list[_Words]], str | None]:
    """The rows by the word at the place with the fewest different ones, or the template of all of them."""
    values = [set(column) for column in zip(*rows, strict=True)]
    differ = [i for i, words in enumerate(values) if len(words) > 1]
    agree = sum(len(words) == 1 and words != {_MASK} for words in values)
    least = min(differ, key=lambda i: (len(values[i]), i))
    if len(values[least]) >= VARIABLE and len(differ) <= agree:
        return [], " ".join(_MASK if i in differ else word for i, word in enumerate(rows[0]))
    parts: defaultdict[str, list[_Words]] = defaultdict(list)
    for row in rows:
        parts[row[least]].append(row)
    return list(parts.values()), None
