"""Sampled traces of a made-up system, with the log lines that its services wrote inside them."""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.synthetic_dynamics import SPREAD
from benchmarks.synthetic_recording import Disturbances, Recording
from benchmarks.synthetic_system import Call, Component
from collectors.base import Level, LogLine, Span, utc

MOST_SAMPLED, SAMPLED_A_SERVICE = 9_000, 250  # spans of a case
MOST_SPANS = 120  # of a trace
SHORTEST_MS = 0.05
OUTSIDE = {"database", "cache", "external", "queue"}  # has no spans of its own


@dataclass
class _Trace:
    """One request's way through the system, as it is being walked."""

    id: str
    step: int
    spans: list[Span] = field(default_factory=list)
    logs: list[LogLine] = field(default_factory=list)


@dataclass(frozen=True)
class _Answer:
    ms: float
    failed: bool


class Tracer:
    """Walks single requests through the system as it was at their time."""

    def __init__(self, random_: random.Random, recording: Recording, disturbances: Disturbances) -> None:
        self.random, self.recording = random_, recording
        self.system, self.run, self.calm = recording.system, recording.runs[0], recording.calm
        self.outgoing = [self.system.outgoing(c) for c in range(len(self.system.components))]
        self.skew = {
            instance: random_.gauss(0, disturbances.skew_s)
            for component in self.system.components
            for instance in component.instances
        }
        self.messages = {i.causes[0][0]: i.message for i in recording.injections if i.causes}

    def traces(self) -> Iterator[tuple[list[Span], list[LogLine]]]:
        """Spans and log lines of one request after the other, until enough are sampled."""
        segment = self.recording.segments[0]
        weights = [float(self.run.requests[entry].mean()) + 1e-9 for entry in self.system.entries]
        total, most = 0, int(min(400, max(30, sum(weights) * 20)))
        for number in range(most):
            step = self._step(number, segment.steps)
            entry = self.random.choices(self.system.entries, weights)[0]
            trace = _Trace(f"{self.random.getrandbits(128):032x}", step)
            start = segment.start_s + (step + self.random.random()) * segment.step_s
            self._serve(trace, entry, start, "")
            total += len(trace.spans)
            yield trace.spans, trace.logs
            if total > min(MOST_SAMPLED, SAMPLED_A_SERVICE * len(self.system.components)):
                return

    def _step(self, number: int, steps: int) -> int:
        """Samplers keep about as many traces of a minute, whatever the traffic; newer ones are kept more fully."""
        recent = max(1, steps // 4)
        return steps - 1 - self.random.randrange(recent) if number % 2 else self.random.randrange(steps - recent)

    def _serve(self, trace: _Trace, index: int, start: float, parent: str) -> _Answer:
        """A service's work on one request: its own time, its calls in order, its log lines."""
        component = self.system.components[index]
        instance = self.random.choice(component.instances)
        operation = self.random.choice(component.operations)
        span_id = f"{self.random.getrandbits(64):016x}"
        own_ms, broken = self._own(trace.step, index, instance, operation)
        log = _Journal(trace, component, instance, span_id, self.skew[instance])
        log.line(start, "info", f"received {operation} id={self.random.randrange(10**6)}", 10)
        now, failed_by = start + own_ms / 2000, ""
        for number, k in enumerate(() if broken else self.outgoing[index]):
            answer = self._calls(trace, k, now, span_id, instance)
            now += answer.ms / 1000
            callee = self.system.components[self.system.calls[k].callee].name
            if answer.failed:
                log.line(now, "warning", f"call to {callee} failed after {answer.ms:.0f} ms", 20 + number)
                if self.random.random() < self.system.calls[k].critical:
                    failed_by = callee
                    break
            elif answer.ms:
                log.line(now, "info", f"{callee} answered in {answer.ms:.0f} ms", 40 + number)
        now += own_ms / 2000
        error = self._error(log, now, trace.step, index, operation, broken, failed_by)
        took = max(SHORTEST_MS, (now - start) * 1000)
        skewed = start + self.skew[instance]
        trace.spans.append(
            _span(
                component.name,
                trace,
                span_id,
                parent,
                operation,
                skewed,
                took,
                "server",
                error=error,
                instance=instance,
            )
        )
        return _Answer(took, bool(error))

    def _error(
        self, log: "_Journal", now: float, step: int, index: int, operation: str, broken: bool, failed_by: str
    ) -> str:
        if failed_by:
            log.line(now, "error", f"{operation} failed: upstream {failed_by} did not answer", 91)
            return "UpstreamError"
        if broken:
            said = self.failure(index, step)
            log.line(now, "error", said, 90 + zlib.crc32(said.encode()) % 7)
            return said.partition(":")[0][:60]
        log.line(now, "info", f"completed {operation}", 99)
        return ""

    def failure(self, index: int, step: int) -> str:
        """What a component logs when it fails by itself at that time, with its stack."""
        component = self.system.components[index]
        said = f"unexpected error while serving {component.operations[0]}"
        if self.run.used[index, step] > 1 or self.run.pooled[index, step] > 1:
            said = "request rejected: all workers are busy"
        if self.recording.segments[0].times()[step] >= self.recording.onset_s:
            said = self.messages.get(index) or said
        package = component.name.replace("-", ".")
        frames = (f"\n\tat {package}.{part}.handle({part}.java:{40 + n})" for n, part in enumerate(("Api", "Core")))
        return said + "".join(frames)

    def _own(self, step: int, index: int, instance: str, operation: str) -> tuple[float, bool]:
        """Its own time and whether it fails by itself; a fault of a part is felt in that part alone."""
        usual_ms, ms = float(self.calm.own_ms[index, step]), float(self.run.own_ms[index, step])
        usual, failing = float(self.calm.own_failed[index, step]), float(self.run.own_failed[index, step])
        part = self.recording.share(index)
        if index in self.recording.focus:
            hit = self.recording.hit(index, instance, operation)
            ms, failing = (
                (usual_ms + (ms - usual_ms) / part, usual + (failing - usual) / part) if hit else (usual_ms, usual)
            )
        return self._drawn(ms), self.random.random() < failing

    def _drawn(self, mean_ms: float) -> float:
        return max(SHORTEST_MS, mean_ms * self.random.lognormvariate(-(SPREAD**2) / 2, SPREAD))

    def _calls(self, trace: _Trace, k: int, start: float, parent: str, instance: str) -> _Answer:
        """All calls of one kind that a request makes, retries included; nothing where it makes none."""
        call = self.system.calls[k]
        rate = call.per_request * self._rate(k, trace.step)
        times = int(rate) + (self.random.random() < rate % 1)
        took, failed = 0.0, False
        for _ in range(times):
            for _attempt in range(1 + call.retries):
                if len(trace.spans) >= MOST_SPANS:
                    return _Answer(took, failed)
                answer = self._once(trace, call, start + took / 1000, parent, instance)
                took, failed = took + answer.ms, answer.failed
                if not failed:
                    break
        return _Answer(took, failed)

    def _rate(self, k: int, step: int) -> float:
        """The share of calls that the code still makes."""
        skipped = any(i.skipped == k for i in self.recording.injections)
        usual = float(self.calm.calls[k, step])
        return float(self.run.calls[k, step]) / usual if skipped and usual > 0 else 1.0

    def _once(self, trace: _Trace, call: Call, start: float, parent: str, instance: str) -> _Answer:
        """One attempt, as the caller sees it."""
        caller, callee = self.system.components[call.caller], self.system.components[call.callee]
        span_id = f"{self.random.getrandbits(64):016x}"
        k = self.system.calls.index(call)
        added = float(self.run.call_ms[k, trace.step] - self.run.latency_ms[call.callee, trace.step])
        way_ms = self._drawn(max(added, SHORTEST_MS))
        sent = start + way_ms / 2000
        answer = (
            self._leaf(trace, call, sent, span_id)
            if callee.kind in OUTSIDE
            else self._serve(trace, call.callee, sent, span_id)
        )
        took, error = answer.ms + way_ms, "502" if answer.failed else ""
        if not call.synchronous:
            took = way_ms
        if took > call.timeout_ms:
            took, error = call.timeout_ms, "timeout"
        trace.spans.append(
            _span(
                caller.name,
                trace,
                span_id,
                parent,
                callee.operations[0],
                start + self.skew[instance],
                took,
                "client",
                peer=callee.name,
                error=error,
                instance=instance,
            )
        )
        return _Answer(took, bool(error))

    def _leaf(self, trace: _Trace, call: Call, sent: float, parent: str) -> _Answer:
        """A store or a provider answers by itself; a queue hands the message on, and nobody waits for that."""
        step, callee = trace.step, call.callee
        if self.system.components[callee].kind == "queue":
            for k in self.outgoing[callee]:
                kept = float(self.run.calls[k, step]) / max(float(self.run.requests[callee, step]), 1e-9)
                if self.random.random() < kept:
                    self._serve(trace, self.system.calls[k].callee, sent + self._drawn(20.0) / 1000, parent)
        ms = self._drawn(float(self.run.latency_ms[callee, step]))
        return _Answer(ms, self.random.random() < float(self.run.failed[callee, step]))


@dataclass(frozen=True)
class _Journal:
    """Writes one request's log lines at one service."""

    trace: _Trace
    component: Component
    instance: str
    span_id: str
    skew_s: float

    def line(self, at_s: float, level: Level, message: str, number: int) -> None:
        """``number`` is the line of code, which some services' loggers tell."""
        name = "".join(part.title() for part in self.component.name.split("-"))
        self.trace.logs.append(
            LogLine(
                component=self.component.name,
                at=utc(at_s + self.skew_s),
                level=level,
                message=message,
                logger=f"{name}#{number}" if self.component.numbered_lines else "",
                instance=self.instance,
                trace_id=self.trace.id,
                span_id=self.span_id,
            )
        )


def _span(
    component: str,
    trace: _Trace,
    span_id: str,
    parent: str,
    operation: str,
    start_s: float,
    duration_ms: float,
    kind: str,
    *,
    peer: str = "",
    error: str = "",
    instance: str = "",
) -> Span:
    return Span(
        component=component,
        trace_id=trace.id,
        span_id=span_id,
        parent_id=parent,
        operation=operation,
        start_s=start_s,
        duration_ms=duration_ms,
        kind="server" if kind == "server" else "client",
        peer=peer,
        error=error,
        instance=instance,
    )
