"""What the logs say: new, more frequent, rarer and vanished templates, and changed order of lines inside spans."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from heapq import nsmallest
from math import exp, lgamma, log

from collectors.base import Level, LogLine, Span, template
from graph.ranking.deviation import (
    MAX_EXCERPT,
    MIN_EXPECTED,
    MIN_STRENGTH,
    REPORTED,
    SEVERITY,
    Deviation,
    excerpt,
    gain,
    number,
    one_instance,
)
from graph.ranking.stacktraces import stack_trace
from graph.ranking.templates import Lines, Text, read
from graph.ranking.topology import SpanId
from graph.ranking.transitions import transition_shifts
from graph.ranking.windows import Windows

MAX_SHIFTS = 100  # templates of one component that are handed on: five times what is listed of it at most
MUCH_LESS = 0.5  # of the expected lines: what people call half as much
UNKNOWN_BEFORE = 0.3
"""What a new line says about a component that logged nothing in the baseline: perhaps nobody called it then."""
RECOVERED = 0.3
"""What is left of lines that have stopped while their component works on: a trigger perhaps, but not what goes on."""
LATE_MINUTES = 1  # the last minute of a window is seldom complete: lines are sent in batches
_WARNING = SEVERITY["warning"]


def deviations(lines: Iterable[tuple[str, LogLine]], spans: Sequence[Span], windows: Windows) -> list[Deviation]:
    """All that departs in the logs; ``lines`` come with the name of their source. Their order is of no matter."""
    found = read(lines, windows)
    shifts, explained = transition_shifts(found, spans, windows)
    return [*_template_shifts(found, windows, explained), *shifts]


def _template_shifts(lines: Lines, windows: Windows, explained: Set[SpanId]) -> list[Deviation]:
    """New, more frequent, rarer and vanished templates. A warning or an error that goes away is no symptom.

    ``explained`` are spans with a deeper culprit: what they log is reported, not theirs.
    """
    found: list[Deviation] = []
    reported = _reported(lines, explained, windows)
    logs = [_ComponentLog(component, templates, windows) for component, templates in _by_component(lines).items()]
    tried = sum(log_.tried for log_ in logs)
    for log_ in logs:
        shifts = [(t, s * (1.0 - (1.0 - REPORTED) * reported[t.id] / t.now)) for t, s in log_.risen()]
        shifts = [(t, s * log_.goes_on(t)) for t, s in shifts if s >= MIN_STRENGTH]
        found += [_more(t, s, log_) for t, s in _strongest(shifts) if s >= MIN_STRENGTH]
        found += [_less(t, s, log_) for t, s in _strongest(log_.fallen(tried))]
    return found


# --- templates ----------------------------------------------------------------------------------------------------


_Id = tuple[str, str, Level]  # component, name, level


@dataclass(frozen=True, eq=False)
class _Template:
    """Lines of one component and level with the same name, from whatever source."""

    id: _Id
    texts: Sequence[Text]

    @property
    def name(self) -> str:
        return self.id[1]

    @property
    def severity(self) -> float:
        return SEVERITY[self.id[2]]

    @property
    def lines(self) -> Iterator[LogLine]:
        """Those of the incident."""
        return (line for text in self.texts for line in text.now)

    @cached_property
    def now(self) -> int:
        return sum([line.count for text in self.texts for line in text.now])

    @cached_property
    def then(self) -> int:
        return sum([line.count for text in self.texts for line in text.then])

    def seasonal(self, window: int) -> int:
        return sum(text.seasonal.get(window, 0) for text in self.texts)

    @property
    def traced(self) -> bool:
        """Whether some of its usual lines belong to a span."""
        return any(line.span_id for text in self.texts for line in text.then)

    def minutes(self, start_s: float) -> Counter[int]:
        """Lines of each minute of the incident that has any."""
        counts = Counter[int]()
        for line in self.lines:
            counts[_minute(line, start_s)] += line.count
        return counts


def _by_component(lines: Lines) -> dict[str, list[_Template]]:
    texts: defaultdict[_Id, list[Text]] = defaultdict(list)
    for text in lines.texts:
        texts[text.component, text.name, text.level].append(text)
    found: defaultdict[str, list[_Template]] = defaultdict(list)
    for id_, alike in sorted(texts.items()):
        found[id_[0]].append(_Template(id_, sorted(alike, key=lambda text: (text.source, text.logger, text.mined))))
    return found


def _reported(lines: Lines, explained: Set[SpanId], windows: Windows) -> Counter[_Id]:
    """By template its lines in the incident that come from spans with a deeper culprit."""
    counts = Counter[_Id]()
    for (trace, span_id, component), told in lines.by_span.items() if explained else ():
        if (trace, span_id) in explained:
            for at, text, line in told:
                counts[component, text.name, text.level] += line.count * windows.in_incident(at)
    return counts


def _strongest(shifts: Iterable[tuple[_Template, float]]) -> list[tuple[_Template, float]]:
    return nsmallest(MAX_SHIFTS, shifts, key=lambda shift: (-shift[1], shift[0].id))


def _minute(line: LogLine, start_s: float) -> int:
    return int((line.at.timestamp() - start_s) // 60.0)


# --- one component ------------------------------------------------------------------------------------------------


class _ComponentLog:
    """All templates of one component, and which of them became more or less frequent."""

    def __init__(self, component: str, templates: Sequence[_Template], windows: Windows) -> None:
        self.component, self.windows = component, windows
        self.now_minutes, self.then_minutes = windows.incident_minutes, windows.baseline_minutes
        self._templates = templates
        self._now = sum(t.now for t in templates)
        self._then = sum(t.then for t in templates)
        ordinary = [t for t in templates if t.severity < _WARNING]
        self._ordinary_now = sum(t.now for t in ordinary)
        self._ordinary_then = sum(t.then for t in ordinary)
        minutes = [(b - a) / 60.0 for a, b in windows.seasonal]
        volumes = [sum(t.seasonal(i) for t in templates) for i in range(len(minutes))]
        self._seasons = [(i, length, volume) for i, (length, volume) in enumerate(zip(minutes, volumes, strict=True))]

    def risen(self) -> Iterator[tuple[_Template, float]]:
        """Templates that became more frequent, with their strength."""
        for t in self._templates:
            if t.now:
                # Out of context a line says less than in its place inside a request: its level counts squared.
                yield t, t.severity**2 * self._increase(t) * (1.0 if self._then else UNKNOWN_BEFORE)

    def _increase(self, t: _Template) -> float:
        """0..1: how surely the template became more frequent; what it also does at this hour of other days does not
        count.
        """
        usual = [(t.then, self._then, self.then_minutes)]
        usual += [(n, volume, m) for i, m, volume in self._seasons if (n := t.seasonal(i))]
        return min(self._rise(t.now, *before) for before in usual)

    def _rise(self, now: int, then: int, volume: int, minutes: float) -> float:
        """How surely it is more, both per minute and among the component's lines.

        Two measures must agree: more traffic multiplies all lines alike, and a sampled source keeps shares or rates
        but not both.
        """
        rate = now / self.now_minutes
        usual = (then + 0.5) / max(minutes, 1.0 / 60.0)  # half a line: what an unseen template may hide
        by_time = max(0.0, 1.0 - usual / rate)
        by_share = gain(now, self._now, then, volume) / (now / self._now) if volume else by_time
        return min(by_time, by_share) * now / (now + 1.0)  # one line proves half

    def fallen(self, tried: int) -> Iterator[tuple[_Template, float]]:
        """Ordinary templates much rarer than before, though their component goes on logging, with their strength.

        Of ``tried`` templates some are rare by chance: it counts as many times (Bonferroni). Not for lines of a span,
        where transitions know the context, nor for warnings: one that goes away is no symptom.
        """
        for t, expected in self._expected:
            if t.now < MUCH_LESS * expected:
                sure = max(0.0, 1.0 - tried * (1.0 - _more_than(t.now, expected)))
                strength = _WARNING**2 * (1.0 - t.now / expected) * sure
                if strength >= MIN_STRENGTH:
                    yield t, strength

    @property
    def tried(self) -> int:
        """How many templates may be found to be rarer."""
        return len(self._expected)

    @cached_property
    def _expected(self) -> list[tuple[_Template, float]]:
        """Ordinary templates out of spans, and how many lines of them were to be expected."""
        ordinary = ((t, self.expected(t)) for t in self._templates if t.severity < _WARNING and not t.traced)
        return [(t, expected) for t, expected in ordinary if expected >= MIN_EXPECTED]

    def expected(self, t: _Template) -> float:
        """Lines to expect in the incident: as many per minute as before, and as many for each other ordinary line."""
        others_now, others_then = self._ordinary_now - t.now, self._ordinary_then - t.then
        if not t.then or others_then <= 0:
            return 0.0
        by_time = self.now_minutes / self.then_minutes
        return t.then * min(by_time, others_now / others_then)

    def goes_on(self, t: _Template) -> float:
        """1 for lines that go on, down to RECOVERED for such as have stopped although their component works on.

        Of m minutes with such lines, all would fall into the first part of the time by chance with its share to the
        power of m.
        """
        counts = t.minutes(self.windows.incident[0])
        first, last = self.elevated(t, counts)
        silent = self._works_until - last - LATE_MINUTES
        if silent <= 0:
            return 1.0
        active = last - first + 1
        busy = sum(first <= minute <= last for minute in counts)
        chance = (active / (active + silent)) ** busy
        return RECOVERED + (1.0 - RECOVERED) * chance

    @cached_property
    def _works_until(self) -> int:
        """The last minute of the incident with an ordinary line."""
        ordinary = (line for t in self._templates if t.severity < _WARNING for line in t.lines)
        last = max((line.at for line in ordinary), default=None)
        return -1 if last is None else int((last.timestamp() - self.windows.incident[0]) // 60.0)

    def elevated(self, t: _Template, counts: Mapping[int, int]) -> tuple[int, int]:
        """First and last minute in which the template's rate is clearly higher than before.

        The stretch of the largest cumulative sum of lines above Page's reference value for Poisson counts, which lies
        between the usual and the present rate (Lucas, Technometrics 1985).
        """
        usual = (t.then + 0.5) / self.then_minutes
        present = max(t.now / self.now_minutes, usual)
        reference = (present - usual) / log(present / usual) if present > usual else usual
        best, total, begin = float("-inf"), 0.0, 0
        found, previous = (0, 0), -1
        for minute, lines in sorted(counts.items()):
            total -= reference * (minute - previous - 1)
            if total <= 0.0:
                total, begin = 0.0, minute
            total += lines - reference
            previous = minute
            if total > best:
                best, found = total, (begin, minute)
        return found

    def onset(self, t: _Template) -> LogLine:
        """The first line of a new template; of a known one the first since its rate is clearly higher."""
        start_s = self.windows.incident[0]
        first = self.elevated(t, t.minutes(start_s))[0] if t.then else 0
        return min((line for line in t.lines if _minute(line, start_s) >= first), key=_first)

    def instance(self, t: _Template) -> tuple[str, float]:
        """The one instance that nearly all lines come from, and its share, if others log and it is not by chance."""
        instances = Counter[str]()
        for line in t.lines:
            instances[line.instance] += line.count
        name = one_instance(instances, t.now, lambda one: self._instances[one] / self._now)
        return name, instances[name] / t.now if name else 0.0

    @cached_property
    def _instances(self) -> Counter[str]:
        instances = Counter[str]()
        for t in self._templates:
            for line in t.lines:
                instances[line.instance] += line.count
        return instances


def _first(line: LogLine) -> tuple[float, str, str, str, str]:
    return line.at.timestamp(), line.message, line.instance, line.trace_id, line.span_id


def _more_than(seen: int, expected: float) -> float:
    """The chance of a Poisson count above ``seen``, which is less than half the expected one."""
    if seen > 100:
        return 1.0  # less than half of more than two hundred is seven standard deviations off
    return 1.0 - sum(exp(k * log(expected) - expected - lgamma(k + 1.0)) for k in range(seen + 1))


# --- in words -----------------------------------------------------------------------------------------------------


def _more(t: _Template, strength: float, component: _ComponentLog) -> Deviation:
    now, then = t.now / component.now_minutes, t.then / component.then_minutes
    line = component.onset(t)
    instance, share = component.instance(t)
    was = f"{number(then)}/min before" if t.then else "never seen in the baseline"
    where = f" {share:.0%} of them come from its instance {instance[:60]}." if instance else ""
    return Deviation(
        component=component.component,
        kind="log",
        channel="log",
        signal=t.name,
        strength=strength,
        at_s=line.at.timestamp(),
        inherited=True,
        observed=now,
        baseline=then,
        unit="lines/min",
        effect=(now - then) / (then + 1.0 / component.then_minutes),
        summary=(
            f"{component.component} logged {t.now} {t.id[2]} line(s) like “{_like(line)}” "
            f"({number(now)}/min, {was}).{where}"
        ),
        excerpt=telling(line),
        source=_source(t, line),
        instance=instance,
    )


def _less(t: _Template, strength: float, component: _ComponentLog) -> Deviation:
    expected = component.expected(t)
    line = max((line for text in t.texts for line in text.then), key=_first)
    if t.now:
        said = f"logs “{_like(line)}” far less: about {number(expected)} lines were expected, {t.now} came"
    else:
        said = f"no longer logs “{_like(line)}”: about {number(expected)} lines were expected, none came"
    return Deviation(
        component=component.component,
        kind="log",
        channel="log",
        signal=t.name,
        strength=strength,
        at_s=component.windows.incident[0],
        inherited=True,  # who waits for a failing callee says no more that all went well
        observed=t.now / component.now_minutes,
        baseline=t.then / component.then_minutes,
        unit="lines/min",
        effect=expected - t.now,
        summary=f"{component.component} {said}.",
        excerpt=telling(line),
        source=_source(t, line),
        worse="down",
    )


def _like(line: LogLine) -> str:
    trace = stack_trace(line.message)
    return (trace.name if trace is not None else template(line.message))[:100]


def telling(line: LogLine) -> str:
    """The head of a message; of a stack trace what was logged, what was thrown and where, innermost first."""
    trace = stack_trace(line.message)
    if trace is None:
        return excerpt(line.message)
    said = line.message.partition("\n")[0].strip()[: MAX_EXCERPT // 3]
    parts = dict.fromkeys(part for part in (said, trace.head[: MAX_EXCERPT // 3], *trace.frames) if part)
    return excerpt("\n".join(parts))


def _source(t: _Template, line: LogLine) -> str:
    """The first by name of the sources that gave the line."""
    return min((x.source for x in t.texts if any(a is line for a in (*x.now, *x.then))), default="")
