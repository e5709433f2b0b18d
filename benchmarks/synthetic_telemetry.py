"""What sources would have told of a made-up incident: all signals, with what is lost, wrong or beside the point."""

import random
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import TypeVar

import numpy as np

from benchmarks.synthetic_dynamics import Array
from benchmarks.synthetic_metrics import Meter
from benchmarks.synthetic_recording import Disturbances, Recording
from benchmarks.synthetic_system import Component
from benchmarks.synthetic_traces import Tracer
from collectors.base import Change, Edge, Gap, GapReason, Level, LogLine, Span, Status, Telemetry, utc

STALE, UNLISTED, UNSEEN = 0.04, 0.1, 0.1  # shares of edges: gone for long, not in the catalogue, seldom traced
RED_HERRINGS = 3
CHATTER: tuple[tuple[Level, str], ...] = (
    ("warning", "cache entry expired, reloading {n} keys"),
    ("warning", "slow consumer: flushed {n} events"),
    ("info", "health check ok"),
    ("info", "refreshed configuration, {n} keys"),
    ("error", "could not parse header X-Client-{n}: ignored"),
    ("debug", "connection {n} returned to pool"),
)

_Row = TypeVar("_Row", Span, LogLine)


class Recorder:
    """Collects all signals of a recording."""

    def __init__(self, rng: np.random.Generator, recording: Recording, disturbances: Disturbances) -> None:
        self.rng, self.recording, self.disturbances = rng, recording, disturbances
        self.system = recording.system
        self.names = [c.name for c in self.system.components]
        self.dropped = disturbances.dropped
        self.tracer = Tracer(random.Random(int(rng.integers(2**32))), recording, disturbances)

    def telemetry(self) -> Telemetry:
        """All that was seen, and a gap for each kind of signal that nobody collects."""
        golden_only = self.recording.sparse
        spans, logs = ([], []) if golden_only else self._rows()
        series = [] if "metrics" in self.dropped else Meter(self.rng, self.recording, self.disturbances).series()
        return Telemetry(
            source="synthetic",
            series=tuple(series),
            logs=tuple(logs) if "logs" not in self.dropped else (),
            spans=tuple(spans) if "traces" not in self.dropped else (),
            changes=() if golden_only or "changes" in self.dropped else tuple(self._changes()),
            statuses=() if golden_only else tuple(self._statuses()),
            edges=() if "topology" in self.dropped else tuple(self._edges()),
            gaps=tuple(
                Gap(source="synthetic", reason=GapReason.NOT_CONFIGURED, detail=f"no {signal}")
                for signal in sorted(self.dropped)
            ),
        )

    # --- rows ---

    def _rows(self) -> tuple[list[Span], list[LogLine]]:
        spans: list[Span] = []
        logs: list[LogLine] = []
        for some_spans, some_logs in self.tracer.traces():
            spans += some_spans
            logs += some_logs
        logs = sorted(chain(logs, self._untraced()), key=lambda line: line.at)
        return self._kept(spans), self._kept(logs)

    def _kept(self, rows: Sequence[_Row]) -> list[_Row]:
        if not self.disturbances.lost:
            return list(rows)
        return [rows[int(k)] for k in np.flatnonzero(self.rng.random(len(rows)) >= self.disturbances.lost)]

    def _untraced(self) -> Iterator[LogLine]:
        """Lines outside of sampled traces: failures, by the minute and counted, and chatter."""
        for index, component in enumerate(self.system.components):
            if component.kind == "service":
                yield from self._chatter(component)
                yield from self._failures(index, component)
                yield from self._failed_calls(index, component)
            elif component.kind == "database":
                yield from self._slow_queries(index, component)
        yield from self._restarts()

    def _chatter(self, component: Component) -> Iterator[LogLine]:
        """A few templates, each at a rate of its own; the slow consumer's comes in bursts."""
        segment = self.recording.segments[0]
        minutes = segment.steps * segment.step_s / 60
        for number in self.rng.permutation(len(CHATTER))[: int(self.rng.integers(1, 4))]:
            level, text = CHATTER[int(number)]
            burst = 4 if "consumer" in text else 1
            for _ in range(int(self.rng.poisson(minutes * float(10 ** self.rng.uniform(-2, 0)) / burst))):
                at_s = self.rng.uniform(segment.start_s, segment.end_s)
                count = 1 + int(self.rng.integers(2 * burst - 1))
                yield self._line(component, at_s, level, text.format(n=self.rng.integers(1, 5000)), count, 70 + number)

    def _failures(self, index: int, component: Component) -> Iterator[LogLine]:
        """Each step's failures in the words of its time: the fault has its own."""
        run, steps = self.recording.runs[0], self.recording.segments[0].steps
        failures = run.requests[index] * run.own_failed[index]
        told = np.array([self.tracer.failure(index, step) for step in range(steps)])
        for message in dict.fromkeys(told.tolist()):
            number = 90 + zlib.crc32(message.encode()) % 7
            yield from self._by_step(component, failures * (told == message), "error", message, number)

    def _failed_calls(self, index: int, component: Component) -> Iterator[LogLine]:
        run = self.recording.runs[0]
        for number, k in enumerate(self.system.outgoing(index)):
            callee = self.system.components[self.system.calls[k].callee]
            said = "503 Service Unavailable" if callee.kind == "external" else "upstream error or timeout"
            message = f"call to {callee.name} failed: {said}"
            yield from self._by_step(component, run.calls[k] * run.call_failed[k], "warning", message, 20 + number)

    def _slow_queries(self, index: int, component: Component) -> Iterator[LogLine]:
        run = self.recording.runs[0]
        slow = run.requests[index] / (1 + np.exp(1.7 * np.log(1000 / np.maximum(run.latency_ms[index], 1e-3)) / 0.5))
        took = float(run.latency_ms[index].max())
        message = f"duration: {took:.0f} ms  statement: {component.operations[0]} where id = $1"
        yield from self._by_step(component, slow, "warning", message, 60)

    def _by_step(
        self,
        component: Component,
        per_minute: Array,
        level: Level,
        message: str,
        number: int,
    ) -> Iterator[LogLine]:
        segment = self.recording.segments[0]
        counts = self.rng.poisson(np.clip(per_minute * segment.step_s / 60, 0, 1e7))
        for step in np.flatnonzero(counts):
            at_s = segment.start_s + (int(step) + self.rng.random()) * segment.step_s
            yield self._line(component, at_s, level, message, int(counts[step]), number)

    def _line(self, component: Component, at_s: float, level: Level, message: str, count: int, number: int) -> LogLine:
        parts = self.recording.focus.get(self.names.index(component.name))
        instances = parts.instances if parts and parts.instances and level == "error" else component.instances
        instance = instances[int(self.rng.integers(len(instances)))]
        logger = "".join(part.title() for part in component.name.split("-")) + f"#{number}"
        return LogLine(
            component=component.name,
            at=utc(float(at_s) + self.tracer.skew[instance]),
            level=level,
            message=message,
            logger=logger if component.numbered_lines else "",
            instance=instance,
            count=count,
        )

    def _restarts(self) -> Iterator[LogLine]:
        """A process that died of its leak says so, and starts again; a consumer that stopped says its last word."""
        for injection in self.recording.injections:
            for index in injection.restarted:
                component = self.system.components[index]
                failing = self.recording.runs[0].own_failed[index]
                died_s = self.recording.segments[0].starts()[int(np.argmax(failing))]
                yield self._line(component, died_s, "critical", injection.message, 1, 95)
                yield self._line(component, died_s + 40, "info", f"started {component.name} in 31.2 seconds", 1, 1)
            for index in injection.stopped:
                yield self._line(
                    self.system.components[index], self.recording.onset_s, "warning", injection.message, 1, 96
                )

    # --- what is told once ---

    def _changes(self) -> Iterator[Change]:
        """The one that brought the fault, and others that did not, before it and after it."""
        for injection in self.recording.injections:
            if injection.caused:
                caused = injection.caused
                at_s = self.recording.onset_s - 60 * caused.minutes_before
                name = self.names[caused.component]
                yield Change(component=name, at=utc(at_s), kind=caused.kind, title=caused.title, version="2.0")
        services = [c for c in self.system.components if c.kind == "service" and c.name not in self.recording.at_fault]
        for _ in range(int(self.rng.integers(1, RED_HERRINGS + 1))):
            component = services[int(self.rng.integers(len(services)))]
            at_s = self.recording.onset_s + 60 * float(self.rng.uniform(-45, 4))
            version = f"{self.rng.integers(1, 9)}.{self.rng.integers(40)}.{self.rng.integers(20)}"
            title = f"Deploy {component.name} {version}"
            yield Change(component=component.name, at=utc(at_s), kind="deploy", title=title, version=version)

    def _statuses(self) -> Iterator[Status]:
        """How many instances run: fewer where one is out of order for good."""
        end_s = self.recording.segments[0].end_s
        for index, component in enumerate(self.system.components):
            if component.kind != "service":
                continue
            wanted = float(len(component.instances))
            focus = self.recording.focus.get(index)
            failing = float(self.recording.runs[0].own_failed[index, -1])
            ill = len(focus.instances) if focus and focus.instances and failing > 0.05 else 0
            yield Status(
                component=component.name,
                name="healthy_instances",
                at=utc(end_s - 30),
                observed=wanted - ill,
                expected=wanted,
            )

    def _edges(self) -> Iterator[Edge]:
        """From the catalogue and from traces: neither knows all, and the catalogue knows some that are gone."""
        components = self.system.components
        views = {self.system.calls[k]: self.recording.view(k) for k in self.recording.views}
        for call in self.system.calls:
            listed, seen = self.rng.random() >= UNLISTED, self.rng.random() >= UNSEEN
            ends = [self.names[call.caller], self.names[call.callee]]
            if call in views:
                ends.insert(1, views[call])
            for caller, callee in pairwise(ends):
                edge = Edge(
                    caller=caller,
                    callee=callee,
                    source="catalogue",
                    asynchronous=not call.synchronous,
                    callee_kind=components[call.callee].kind if callee == ends[-1] else "",
                )
                if listed or self.recording.sparse:
                    yield edge
                if seen and not self.recording.sparse:
                    yield edge.model_copy(update={"source": "traces"})
        services = [c.name for c in components if c.kind == "service"]
        for _ in range(int(STALE * len(self.system.calls))):
            caller, callee = (str(n) for n in self.rng.choice(services, 2, replace=False))
            yield Edge(caller=caller, callee=callee, source="catalogue")
