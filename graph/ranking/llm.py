"""What LLM calls cost and how they fail: tokens, money and errors a call against what is usual.

Reads the ``llm.*`` series of a component (calls, errors, tokens.input, tokens.output, cost_usd), by model. Totals rise
with traffic; that a call needs more tokens, costs more or fails more often does not come of traffic.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from statistics import median

from collectors.base import LogLine, Series, Span
from graph.ranking.deviation import MIN_STRENGTH, Deviation, clock_time, excerpt, number, quantity, surely
from graph.ranking.samples import MAD_TO_SIGMA, MIN_DEVIATION, finite
from graph.ranking.semantics import meaning_of
from graph.ranking.windows import Windows

SPENDS = 0.5
"""More tokens, calls or money is a changed behaviour, which need not be a fault: the same as for all lost money."""
FLOOR = 0.1
"""Spread is at least a tenth of the level: texts differ in length by more than machines do in speed."""
HEADROOM = 1.5
"""Limits are bought with headroom: who asks for half as much again meets a limit of their own making; who does not is
limited by the provider."""
MAX_MODELS = 50  # of one component that are looked at one by one
MAX_FAILURES = 2_000  # failed calls whose reasons are read: more give no other mixture
MAX_SAID = 500  # characters of an error

_METRIC = re.compile(r"llm\.(calls|errors|tokens\.input|tokens\.output|cost_usd)(?:\{(.*)\})?", re.DOTALL)
_SPENT = (  # a measure, how it is told, its unit
    ("tokens.input", "llm prompt tokens per call", "tokens"),
    ("tokens.output", "llm completion tokens per call", "tokens"),
    ("cost_usd", "llm cost per call", "USD"),
)


def _code(*codes: str) -> str:
    return rf"(?<!\d)(?:{'|'.join(codes)})(?!\d)"


# Overload first: «overloaded, rate limit of the server» is the provider's own want of room.
_REASONS: Mapping[str, re.Pattern[str]] = {
    "overloaded": re.compile(
        rf"overloaded|{_code('529', '50[0-3]')}|unavailable|server.?error|at capacity", re.IGNORECASE
    ),
    "rate limited": re.compile(rf"{_code('429')}|rate.?limit|too many requests|quota|throttl", re.IGNORECASE),
    "filtered": re.compile(r"content.?(?:filter|policy|management)|safety|guardrail|moderation", re.IGNORECASE),
    "too slow": re.compile(rf"{_code('408', '504')}|time.?out|timed out|deadline", re.IGNORECASE),
    "refused as invalid": re.compile(
        rf"{_code('40[0134]', '413', '422')}|invalid|context.?(?:length|window)|too long", re.IGNORECASE
    ),
}
_OF_PROVIDER = frozenset(["overloaded", "filtered", "too slow"])

_Minutes = dict[float, float]  # epoch seconds and value


@dataclass
class _Ledger:
    """One component's LLM calls: by measure and model, minute by minute; the model «» is all of them."""

    component: str
    source: str
    rows: defaultdict[tuple[str, str], _Minutes] = field(default_factory=lambda: defaultdict(dict))

    def add(self, measure: str, model: str, series: Series) -> None:
        times, values = finite(series)
        for name in {model, ""}:
            row = self.rows[measure, name]
            for t, v in zip(times.tolist(), values.tolist(), strict=True):
                row[t] = row.get(t, 0.0) + max(v, 0.0)

    @property
    def models(self) -> list[str]:
        return sorted({model for _, model in self.rows} - {""})[:MAX_MODELS]

    def total(self, measure: str, window: tuple[float, float], model: str = "") -> float:
        """The sum over a half-open window."""
        return sum(v for t, v in sorted(self.rows.get((measure, model), {}).items()) if window[0] <= t < window[1])

    def rate(self, measure: str, window: tuple[float, float], model: str = "") -> float:
        """The sum a minute; a minute is stamped with its start."""
        minutes = ceil(window[1] / 60.0) - ceil(window[0] / 60.0)
        return self.total(measure, window, model) / max(minutes, 1)

    def each(self, measure: str, window: tuple[float, float]) -> list[float]:
        """Minute by minute the value of one call."""
        amounts, calls = self.rows.get((measure, ""), {}), self.rows.get(("calls", ""), {})
        minutes = sorted(t for t in calls if window[0] <= t < window[1] and calls[t] > 0)
        return [amounts.get(t, 0.0) / calls[t] for t in minutes]


@dataclass(frozen=True, slots=True)
class _Failures:
    """What the failed calls of a component said, and whose models answered."""

    reasons: Counter[str]
    peers: Counter[str]
    said: str

    @property
    def reason(self) -> str:
        """The commonest; empty if none is known."""
        return min(self.reasons, key=lambda r: (-self.reasons[r], r), default="")

    @property
    def peer(self) -> str:
        return min(self.peers, key=lambda p: (-self.peers[p], p), default="")


def deviations(
    series: Iterable[tuple[str, Series]], windows: Windows, spans: Sequence[Span] = (), logs: Sequence[LogLine] = ()
) -> list[Deviation]:
    """Tokens, cost and errors a call that rose, and calls a request; ``series`` come with the name of their source.

    Errors are charged to the provider, if the failed calls among ``spans`` and ``logs`` say that it is overloaded,
    filters, or limits a rate that did not rise; else to the component that asked.
    """
    ledgers, requests = _ledgers(series)
    found: list[Deviation] = []
    for component, ledger in sorted(ledgers.items()):
        found += _spending(ledger, windows)
        found += _calls_per_request(ledger, requests.get(component, []), windows)
        found += _errors(ledger, windows, spans, logs)
    return [d for d in found if d.strength >= MIN_STRENGTH]


def _ledgers(series: Iterable[tuple[str, Series]]) -> tuple[dict[str, _Ledger], dict[str, list[Series]]]:
    """The LLM calls by component, and the series of what the component itself is asked."""
    known = list(series)
    calls = [(source, one, m) for source, one in known if (m := _METRIC.fullmatch(one.ref.metric))]
    ledgers: dict[str, _Ledger] = {}
    for source, one, match in sorted(calls, key=lambda c: (c[0], c[1].ref.component, c[1].ref.metric, c[1].ref.query)):
        ledger = ledgers.setdefault(one.ref.component, _Ledger(one.ref.component, source))
        if ledger.source == source:  # two sources would tell of the same calls
            ledger.add(match[1], match[2] or "unnamed", one)
    requests: defaultdict[str, list[Series]] = defaultdict(list)
    for _, one in known:
        own = one.ref.component in ledgers and not one.ref.metric.startswith("llm.")
        if own and meaning_of(one.ref).role == "requests":
            requests[one.ref.component].append(one)
    for found in requests.values():
        found.sort(key=lambda s: (s.ref.metric, s.ref.statistic, s.ref.source, s.ref.query))
    return ledgers, requests


def _recent(windows: Windows, ledger: _Ledger) -> tuple[float, float]:
    """The later half of the incident, if anything was called in it: what has recovered is no symptom."""
    start, end = windows.incident
    later = ((start + end) / 2.0, end)
    return later if ledger.total("calls", later) > 0 else windows.incident


def _usual(windows: Windows, ledger: _Ledger) -> list[tuple[float, float]]:
    """Baselines in which anything was called, as far as they lie before the incident."""
    before = [(a, min(b, windows.incident[0])) for a, b in (*windows.baselines, *windows.seasonal)]
    return [w for w in before if w[0] < w[1] and ledger.total("calls", w) > 0]


# --- what calls cost --------------------------------------------------------------------------------------------


def _spending(ledger: _Ledger, windows: Windows) -> Iterable[Deviation]:
    now, usual = _recent(windows, ledger), _usual(windows, ledger)
    calls = ledger.total("calls", now)
    if not usual or calls <= 0:
        return
    for measure, signal, unit in _SPENT:
        observed = ledger.total(measure, now) / calls
        # all baselines must agree: the one that speaks least for a rise
        levels = {w: ledger.total(measure, w) / ledger.total("calls", w) for w in usual}
        base = max(usual, key=lambda w: (levels[w], w))
        strength, effect = _rise(observed, levels[base], ledger.each(measure, base))
        rates = ledger.rate("calls", now), ledger.rate("calls", base)
        at_s = _onset(ledger, measure, windows, (observed + levels[base]) / 2.0)
        yield Deviation(
            component=ledger.component,
            kind="metric",
            channel="llm",
            signal=signal,
            strength=SPENDS * strength,
            at_s=at_s,
            summary=(
                f"{ledger.component}: a call of a language model takes {quantity(observed, unit)} instead of "
                f"{quantity(levels[base], unit)} ({signal}) from {clock_time(at_s)} on, at {number(rates[0])} calls "
                f"a minute instead of {number(rates[1])}."
            ),
            observed=observed,
            baseline=levels[base],
            unit=f"{unit}/call",
            effect=effect,
            source=ledger.source,
        )


def _rise(observed: float, base: float, minutes: Sequence[float]) -> tuple[float, float]:
    """How sure and how large a rise is, 0..1, and its size in robust standard deviations."""
    if observed <= base:
        return 0.0, 0.0
    spread = MAD_TO_SIGMA * median([abs(v - base) for v in minutes] or [0.0])
    distance = (observed - base) / max(spread, FLOOR * base, 1e-12)
    return max(0.0, 1.0 - MIN_DEVIATION / distance) * (observed - base) / observed, distance


def _onset(ledger: _Ledger, measure: str, windows: Windows, halfway: float) -> float:
    """The first minute of the incident that is nearer to what is now than to what was."""
    amounts, calls = ledger.rows.get((measure, ""), {}), ledger.rows.get(("calls", ""), {})
    minutes = sorted(t for t in calls if windows.in_incident(t) and calls[t] > 0)
    return next((t for t in minutes if amounts.get(t, 0.0) / calls[t] > halfway), windows.incident[0])


def _calls_per_request(ledger: _Ledger, requests: Sequence[Series], windows: Windows) -> Iterable[Deviation]:
    """An agent that goes in circles calls more often for the same request."""
    now, usual = _recent(windows, ledger), _usual(windows, ledger)
    levels = [ratio for w in usual if (ratio := _each_request(ledger, requests, w)) is not None]
    observed = _each_request(ledger, requests, now)
    if not levels or observed is None:
        return
    strength, effect = _rise(observed, max(levels), [])
    yield Deviation(
        component=ledger.component,
        kind="metric",
        channel="llm",
        signal="llm calls per request",
        strength=SPENDS * strength,
        at_s=now[0],
        summary=(
            f"{ledger.component}: calls of language models are {number(observed / max(levels))} times as many for the "
            f"same requests (llm calls per request)."
        ),
        observed=observed / max(levels),
        baseline=1.0,
        unit="× usual",
        effect=effect,
        source=ledger.source,
    )


def _each_request(ledger: _Ledger, requests: Sequence[Series], window: tuple[float, float]) -> float | None:
    """Calls a minute by the mean of the first requests' series; units cancel when two windows are compared."""
    for one in requests:
        times, values = finite(one)
        inside = values[(times >= window[0]) & (times < window[1])]
        if inside.size and float(inside.mean()) > 0:
            return ledger.rate("calls", window) / float(inside.mean()) or None
    return None


# --- how calls fail ---------------------------------------------------------------------------------------------


def _errors(ledger: _Ledger, windows: Windows, spans: Sequence[Span], logs: Sequence[LogLine]) -> Iterable[Deviation]:
    """By model: one that fails among many is seen."""
    now, usual = _recent(windows, ledger), _usual(windows, ledger)
    for model in ledger.models:
        calls, failed = ledger.total("calls", now, model), ledger.total("errors", now, model)
        base_calls = sum(ledger.total("calls", w, model) for w in usual)
        base_failed = sum(ledger.total("errors", w, model) for w in usual)
        strength = surely(min(failed, calls), calls, min(base_failed, base_calls), base_calls)
        if strength < MIN_STRENGTH:
            continue
        failures = _failures(ledger.component, model, windows, spans, logs)
        share, before = 100.0 * failed / calls, 100.0 * base_failed / base_calls if base_calls else 0.0
        at_s = _first_failure(ledger, model, windows, (share + before) / 200.0)
        blamed, why = _blamed(ledger, model, failures, now, usual)
        yield Deviation(
            component=blamed,
            kind="metric",
            channel="error",  # the same failures as the series of errors counts
            signal=f"llm errors per call{{{model}}}",
            strength=strength,
            at_s=at_s,
            summary=(
                f"{ledger.component}: {number(failed)} of {number(calls)} calls of {model} fail, {share:.1f} % "
                f"instead of {before:.1f} %, from {clock_time(at_s)} on{why}."
            ),
            observed=share,
            baseline=before,
            unit="%",
            effect=strength,
            excerpt=excerpt(failures.said),
            source=ledger.source,
            harm=max(failed - calls * before / 100.0, 0.0),
        )


def _first_failure(ledger: _Ledger, model: str, windows: Windows, halfway: float) -> float:
    """The first minute of the incident in which more fail than halfway between usual and now."""
    calls = ledger.rows.get(("calls", model), {})
    failed = sorted(ledger.rows.get(("errors", model), {}).items())
    minutes = (t for t, v in failed if windows.in_incident(t) and v > halfway * calls.get(t, 0.0))
    return next(minutes, windows.incident[0])


def _blamed(
    ledger: _Ledger,
    model: str,
    failures: _Failures,
    now: tuple[float, float],
    usual: Sequence[tuple[float, float]],
) -> tuple[str, str]:
    """Whose the errors are, and why."""
    reason, provider = failures.reason, failures.peer or ledger.component
    if reason == "rate limited":
        grown = _growth(ledger, model, now, usual)
        asked = f"rate limited, with {number(grown)} times the usual calls"
        own = grown >= HEADROOM
        return (ledger.component if own else provider), f": {asked}"
    if reason in _OF_PROVIDER:
        return provider, f": {provider} answers “{reason}”" if failures.peer else f": {reason} at the provider"
    return ledger.component, f": {reason}" if reason else ""


def _growth(ledger: _Ledger, model: str, now: tuple[float, float], usual: Sequence[tuple[float, float]]) -> float:
    """How many times as much is asked for, in calls or in tokens: both have limits."""
    grown = [1.0]
    for measure in ("calls", "tokens.input"):
        before = max((ledger.rate(measure, w, model) for w in usual), default=0.0)
        if before > 0:
            grown.append(ledger.rate(measure, now, model) / before)
    return max(grown)


def _failures(
    component: str, model: str, windows: Windows, spans: Sequence[Span], logs: Sequence[LogLine]
) -> _Failures:
    """The reasons that failed calls of the model gave in the incident."""
    failed = (
        s
        for s in spans
        if s.error
        and s.component == component
        and s.kind == "client"
        and model in s.operation
        and windows.in_incident(s.start_s)
    )
    calls = sorted(islice(failed, MAX_FAILURES), key=lambda s: (s.start_s, s.span_id, s.error))
    lines = (
        line
        for line in logs
        if line.level in ("error", "critical")
        and line.component == component
        and line.message.startswith(model)
        and windows.in_incident(line.at.timestamp())
    )
    told = sorted(islice(lines, MAX_FAILURES), key=lambda line: (line.at, line.message))
    # a line has the whole text; where a call has left both, the span's would only count it twice
    texts = [line.message[:MAX_SAID] for line in told] or [s.error[:MAX_SAID] for s in calls]
    reasons = Counter(reason for text in texts if (reason := _reason(text)))
    return _Failures(reasons, Counter(s.peer for s in calls if s.peer), texts[0] if texts else "")


def _reason(text: str) -> str:
    return next((reason for reason, pattern in _REASONS.items() if pattern.search(text)), "")
