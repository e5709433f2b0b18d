"""Makes the telemetry of an incident that never happened, as its sources would have recorded it.

A ``Telling`` collects what a story lets happen and turns it into a ``Story``, which ``write`` lays down as a folder of
``tests/scenarios``. Nothing here knows what is wrong: a story says how each amount goes, and tells the answer apart.

Time is told in minutes from the ``onset``, the moment when things begin to go wrong; negative minutes are before it.
An amount is a number, or a ``Course`` that leaves its normal value only on the day of the incident: the same hours of
yesterday and of a week ago are normal. All randomness is seeded by the story's name and the name of what is drawn, so
that equal stories give equal bytes, and a new metric leaves the others as they are.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal

import yaml
from pydantic import JsonValue

from app.catalogue import AutopilotYaml
from collectors.aws.cloudwatch import series_refs
from collectors.base import (
    Change,
    Document,
    Edge,
    Gap,
    GapReason,
    Level,
    LogLine,
    Measures,
    Series,
    SeriesRef,
    Span,
    Status,
    Window,
)
from collectors.replay import Manifest, write_bundle
from graph.catalogue import Service
from graph.state import Severity

DAY_S = 86_400.0
PERIOD_S = 60.0  # of every metric
BEFORE = timedelta(minutes=10)  # of the alert: where production lets the incident begin
BASELINE = timedelta(minutes=50)


@dataclass(frozen=True)
class Course:
    """``normal`` until the first of ``points``, then through them in straight lines; the last one stays.

    A point is ``(minute after the onset, value)``.
    """

    normal: float
    points: tuple[tuple[float, float], ...]

    def at(self, minute: float) -> float:
        """The value at a minute of the day of the incident."""
        earlier, before = self.points[0][0], self.normal
        for later, value in self.points:
            if minute < later:
                share = (minute - earlier) / (later - earlier) if later > earlier else 0.0
                return before + (value - before) * share
            earlier, before = later, value
        return before


Amount = float | Course


def _scaled(amount: Amount, by: float) -> Amount:
    if isinstance(amount, Course):
        return Course(amount.normal * by, tuple((minute, value * by) for minute, value in amount.points))
    return amount * by


def course(normal: float, *points: tuple[float, float]) -> Course:
    """``course(20, (0, 20), (3, 90))``: 20 until the onset, 90 from the third minute after it, a slope between."""
    return Course(normal, points)


def between(normal: float, start: float, end: float, value: float) -> Course:
    """``normal``, except for ``value`` from minute ``start`` until ``end``."""
    return Course(normal, ((start, normal), (start, value), (end, value), (end, normal)))


@dataclass(frozen=True)
class Line:
    """A log line. ``message`` may hold ``{7d}`` (digits), ``{8h}`` (hex digits), ``{3..40}`` (an integer) and
    ``{one|two}`` (one of these).
    """

    level: Level
    logger: str
    message: str


@dataclass(frozen=True)
class Call:
    """One call of a request, with the calls it makes in turn, one after the other.

    A callee that sends no spans (a database, a vendor) has ``traced=False``: only its caller's client span is seen.
    """

    to: str
    operation: str
    ms: Amount = 5.0  # of its own work: the median of a log-normal
    fails: Amount = 0.0  # share of the calls that fail of themselves
    error: str = "500"  # what its own failure is called
    reported: str = ""  # what a caller calls a failure of this call; empty: as the callee does
    calls: tuple["Call", ...] = ()
    share: Amount = 1.0  # of its caller's requests that make this call
    traced: bool = True
    sent: bool = False  # a message: the caller does not wait, and its failure is not the caller's
    queue: str = ""  # it handles a message that was taken from there
    tolerated: bool = False  # the caller does without it if it fails
    done: Line | None = None  # what the callee logs on success
    failed: Line | None = None  # … on a failure of its own; where it is not traced, the caller logs it
    passed_on: Line | None = None  # … when a call that it needs failed


@dataclass(frozen=True)
class Story:
    """An incident, told: all that ``write`` lays down in ``tests/scenarios/<name>``."""

    name: str
    manifest: Manifest
    alert: Mapping[str, JsonValue]
    expected: Mapping[str, JsonValue]
    logs: tuple[LogLine, ...]
    series: tuple[Series, ...]
    spans: tuple[Span, ...]
    changes: tuple[Change, ...]
    edges: tuple[Edge, ...]
    statuses: tuple[Status, ...]
    documents: tuple[Document, ...]
    gaps: tuple[Gap, ...]
    catalogue: Mapping[str, JsonValue]

    def write(self, root: Path) -> Path:
        """The folder ``root/<name>``: bundle, ``expected.yml`` and ``autopilot.yaml``. Raises OSError."""
        folder = write_bundle(
            root / self.name,
            self.manifest,
            self.alert,
            logs=self.logs,
            series=self.series,
            spans=self.spans,
            changes=self.changes,
            edges=self.edges,
            statuses=self.statuses,
            documents=self.documents,
            gaps=self.gaps,
        )
        for name, content in (("expected.yml", self.expected), ("autopilot.yaml", self.catalogue)):
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)
            (folder / name).write_text(text, encoding="utf-8")
        return folder


@dataclass(frozen=True)
class _Entry:
    component: str
    line: Line
    per_minute: Amount
    load: float
    instances: tuple[str, ...]


@dataclass
class _Trace:
    """The spans and lines of one request while it is made."""

    id: str
    random: Random
    spans: list[Span] = field(default_factory=list)
    lines: list[LogLine] = field(default_factory=list)


class Telling:
    """Collects what happens. ``alerted_at`` is when the alert fired, ``onset_min`` how long before it began."""

    def __init__(
        self,
        name: str,
        catalogue: Mapping[str, JsonValue],
        *,
        alerted_at: datetime,
        onset_min: float,
        seen_min: float = 8.0,
        instances: Mapping[str, int] | None = None,
        source: str = "datadog",
    ) -> None:
        """``seen_min``: minutes of telemetry after the alert; ``instances``: tasks of a component, usually 2.

        ``source``: the collector that reads logs, and metrics for which nothing else is said.
        """
        self.name, self.raw_catalogue, self.source = name, catalogue, source
        self.catalogue = AutopilotYaml.model_validate(catalogue).catalogue()
        self.alerted_at = alerted_at
        self.onset = alerted_at - timedelta(minutes=onset_min)
        end, start = alerted_at + timedelta(minutes=seen_min), alerted_at - BEFORE
        self.incident = Window(start=start, end=end)
        self.baseline = Window(start=start - BASELINE, end=start)
        self.seasonal = tuple(
            Window(start=start - timedelta(days=days), end=end - timedelta(days=days)) for days in (1, 7)
        )
        self._instances = {**dict.fromkeys(self.catalogue.services, 2), **(instances or {})}
        self._stopped: dict[str, tuple[float, int]] = {}
        self._load = self._daily_load()
        self._requested = Counter[str]()  # kinds of requests with the same beginning have randomness of their own
        self._entries: list[_Entry] = []
        self._lines: list[LogLine] = []
        self._series: list[Series] = []
        self._spans: list[Span] = []
        self._changes: list[Change] = []
        self._statuses: list[Status] = []
        self._documents: list[Document] = []
        self._gaps: list[Gap] = []

    # --- time ---

    def at(self, minute: float) -> datetime:
        """The moment so many minutes after the onset."""
        return self.onset + timedelta(minutes=minute)

    def minute(self, epoch_s: float) -> float:
        """Minutes after the onset."""
        return (epoch_s - self.onset.timestamp()) / 60

    @property
    def end(self) -> float:
        """The last minute that was recorded."""
        return self.minute(self.incident.end.timestamp())

    def instances(self, component: str) -> tuple[str, ...]:
        """The hosts or tasks of a component."""
        drawn = self._random("instances", component)
        count = self._instances.get(component, 1)
        return tuple(f"ip-10-{drawn.randint(0, 3)}-{drawn.randint(1, 9)}-{drawn.randint(5, 250)}" for _ in range(count))

    def stops(self, component: str, minute: float, keeps: int) -> None:
        """From that minute on only so many of the component's instances serve requests."""
        self._stopped[component] = minute, keeps

    def _serving(self, component: str, epoch_s: float) -> tuple[str, ...]:
        minute, keeps = self._stopped.get(component, (math.inf, 0))
        every = self.instances(component)
        return every[:keeps] if self.minute(epoch_s) >= minute else every

    def _random(self, *names: str) -> Random:
        return Random("/".join((self.name, *names)))

    def _windows(self) -> tuple[Window, ...]:
        return (*reversed(self.seasonal), self.baseline, self.incident)

    def _is_seasonal(self, epoch_s: float) -> bool:
        return epoch_s < self.baseline.start.timestamp()

    def _amount(self, amount: Amount, epoch_s: float) -> float:
        if not isinstance(amount, Course):
            return amount
        return amount.normal if self._is_seasonal(epoch_s) else amount.at(self.minute(epoch_s))

    # --- load: what all that depends on traffic has in common ---

    def _daily_load(self) -> dict[int, float]:
        """By minute of epoch: around 1, with the hour of the day, and wandering a little."""
        drawn, loads = self._random("load"), {}
        for window in self._windows():
            wander = drawn.gauss(0, 0.03)
            for minute in range(int(window.start.timestamp() // 60), int(window.end.timestamp() // 60) + 1):
                wander = 0.85 * wander + drawn.gauss(0, 0.018)
                loads[minute] = 1 + wander + self._hour_of_day(minute * 60.0)
        return loads

    def _hour_of_day(self, epoch_s: float) -> float:
        """Busiest at 14:00 UTC; 0 at the onset, so that a level is the level of that hour."""
        busiest = 14 * 3600.0

        def phase(at_s: float) -> float:
            return math.cos(2 * math.pi * (at_s % DAY_S - busiest) / DAY_S)

        return 0.35 * (phase(epoch_s) - phase(self.onset.timestamp()))

    def load(self, epoch_s: float, follows: float = 1.0) -> float:
        """The traffic at that moment, 1 being usual for the hour; ``follows`` 0 to 1: how much of its swing counts."""
        return 1 + follows * (self._load[int(epoch_s // 60)] - 1)

    # --- metrics ---

    def metric(
        self,
        component: str,
        metric: str,
        level: Amount,
        *,
        unit: str = "",
        statistic: str = "avg",
        noise: float = 0.04,
        load: float = 0.0,
        counts: bool = False,
        low: float = 0.0,
        high: float = math.inf,
        source: str = "",
        query: str = "",
        measures: Measures = "",
        from_min: float = -math.inf,
        seasonal: bool = True,
    ) -> None:
        """A metric whose value goes as ``level``, with noise (a share of it), following the traffic by ``load``.

        ``counts``: whole numbers, as often as things happen by chance that happen ``level`` times on average.
        ``from_min``: it is reported only from then on; ``seasonal``: on other days, too.
        """
        spelled = f"{statistic}:{metric}{{service:{component}}}" + (".as_count()" if statistic == "sum" else "")
        ref = SeriesRef(
            source=source or self.source,
            component=component,
            metric=metric,
            statistic=statistic,
            unit=unit,
            query=query or spelled,
            measures=measures,
        )
        points = self._points(ref, level, noise=noise, load=load, counts=counts, seasonal=seasonal)
        self._keep(ref, [(s, min(max(v, low), high)) for s, v in points if self.minute(s) >= from_min])

    def aws(
        self,
        component: str,
        metric: str,
        level: Amount,
        *,
        noise: float = 0.04,
        load: float = 0.0,
        counts: bool = False,
        high: float = math.inf,
        of: str = "",
    ) -> None:
        """A CloudWatch metric by the name our collector gives it, of a resource that the catalogue gives ``component``.

        ``of`` tells one resource of several by a part of the query. Raises LookupError if it has no such metric.
        """
        refs = [r for r in series_refs([self.catalogue.target(component, 0)]) if r.metric == metric and of in r.query]
        if not refs:
            raise LookupError(f"{self.name}: {component} has no metric {metric} {of}")
        points = self._points(refs[0], level, noise=noise, load=load, counts=counts)
        self._keep(refs[0], [(s, min(max(v, 0.0), high)) for s, v in points])

    def service(
        self,
        component: str,
        per_minute: Amount,
        p95_ms: Amount,
        *,
        errors: Amount = 0.0,
        cpu: Amount = 30.0,
        memory: Amount = 55.0,
        healthy: Amount | None = None,
        unhealthy: Amount = 0.0,
        framework: str = "servlet.request",
        load: float = 1.0,
    ) -> None:
        """What Datadog's APM and CloudWatch report of a service; ``errors`` are requests that fail a minute.

        ``framework``: the integration that traces it: servlet.request, express.request, fastapi.request, http.request.
        ``healthy``, ``unhealthy``: targets of its load balancer.
        """
        self.metric(component, f"trace.{framework}.hits", per_minute, statistic="sum", load=load, counts=True)
        self.metric(component, f"trace.{framework}.errors", errors, statistic="sum", load=load, counts=True)
        in_s = _scaled(p95_ms, 0.001)
        self.metric(
            component,
            f"trace.{framework}",
            in_s,
            unit="s",
            statistic="p95",
            noise=0.07,
            query=f"p95:trace.{framework}{{service:{component}}}",
        )
        target = self.catalogue.target(component, 0)
        if target.ecs:
            self.aws(component, "CPUUtilization", cpu, load=load * 0.8, noise=0.05, high=100.0)
            self.aws(component, "MemoryUtilization", memory, noise=0.006, high=100.0)
        if target.target_group:
            self.aws(component, "RequestCount", per_minute, load=load, counts=True)
            self.aws(component, "HTTPCode_Target_5XX_Count", errors, load=load, counts=True)
            self.aws(component, "TargetResponseTime", in_s, noise=0.08)
            hosts = float(self._instances[component]) if healthy is None else healthy
            self.aws(component, "HealthyHostCount", hosts, noise=0.0)
            self.aws(component, "UnHealthyHostCount", unhealthy, noise=0.0)

    def postgres(
        self,
        component: str,
        *,
        cpu: Amount = 34.0,
        connections: Amount = 60.0,
        read_iops: Amount = 420.0,
        write_iops: Amount = 260.0,
        read_s: Amount = 0.0008,
        write_s: Amount = 0.0014,
        queue: Amount = 0.6,
        memory_bytes: Amount = 6.2e9,
    ) -> None:
        """What CloudWatch reports of an RDS instance."""
        self.aws(component, "RDS.CPUUtilization", cpu, load=0.8, noise=0.07, high=100.0)
        self.aws(component, "RDS.DatabaseConnections", connections, load=0.1, noise=0.02)
        self.aws(component, "RDS.FreeableMemory", memory_bytes, noise=0.01)
        self.aws(component, "RDS.ReadIOPS", read_iops, load=0.8, noise=0.1)
        self.aws(component, "RDS.WriteIOPS", write_iops, load=0.9, noise=0.1)
        self.aws(component, "RDS.ReadLatency", read_s, noise=0.1)
        self.aws(component, "RDS.WriteLatency", write_s, noise=0.1)
        self.aws(component, "RDS.DiskQueueDepth", queue, noise=0.25)
        self.aws(component, "RDS.FreeStorageSpace", 212e9, noise=0.0004)

    def redis(
        self,
        component: str,
        *,
        cpu: Amount = 14.0,
        memory: Amount = 61.0,
        connections: Amount = 84.0,
        evictions: Amount = 0.0,
        hits: Amount = 24_000.0,
        misses: Amount = 1_900.0,
    ) -> None:
        """What CloudWatch reports of an ElastiCache node."""
        self.aws(component, "ElastiCache.CPUUtilization", _scaled(cpu, 0.6), load=0.6, noise=0.06, high=100.0)
        self.aws(component, "ElastiCache.EngineCPUUtilization", cpu, load=0.7, noise=0.06, high=100.0)
        self.aws(component, "ElastiCache.DatabaseMemoryUsagePercentage", memory, noise=0.004, high=100.0)
        self.aws(component, "ElastiCache.CurrConnections", connections, noise=0.02)
        self.aws(component, "ElastiCache.Evictions", evictions, noise=0.15)
        self.aws(component, "ElastiCache.CacheHits", hits, load=1.0, noise=0.05)
        self.aws(component, "ElastiCache.CacheMisses", misses, load=1.0, noise=0.07)
        self.aws(component, "ElastiCache.ReplicationLag", 0.4, noise=0.4)

    def _points(
        self, ref: SeriesRef, level: Amount, *, noise: float, load: float, counts: bool, seasonal: bool = True
    ) -> Iterator[tuple[float, float]]:
        drawn = self._random("metric", ref.source, ref.component, ref.metric, ref.query)
        for window in self._windows() if seasonal else (self.baseline, self.incident):
            wander, first = 0.0, -(-window.start.timestamp() // PERIOD_S) * PERIOD_S
            for step in range(int((window.end.timestamp() - first) // PERIOD_S)):
                epoch_s = first + step * PERIOD_S
                wander = 0.6 * wander + drawn.gauss(0, 0.8)
                mean = self._amount(level, epoch_s) * self.load(epoch_s, load)
                yield epoch_s, float(_poisson(drawn, mean)) if counts else mean * (1 + noise * wander)

    def _keep(self, ref: SeriesRef, points: Sequence[tuple[float, float]]) -> None:
        if points:
            epoch_s, values = zip(*points, strict=True)
            self._series.append(Series(ref=ref, epoch_s=epoch_s, values=[_rounded(v) for v in values]))

    # --- logs ---

    def lines(
        self,
        component: str,
        level: Level,
        logger: str,
        message: str,
        per_minute: Amount,
        *,
        load: float = 0.0,
        instances: Sequence[str] = (),
    ) -> None:
        """Log lines that come by chance, so many a minute; see ``Line`` for what ``message`` may hold."""
        hosts = tuple(instances) or self.instances(component)
        self._entries.append(_Entry(component, Line(level, logger, message), per_minute, load, hosts))

    def say(
        self,
        component: str,
        minute: float,
        level: Level,
        logger: str,
        message: str,
        *,
        instance: str = "",
    ) -> None:
        """One log line."""
        drawn = self._random("say", component, message, str(minute))
        self._lines.append(
            LogLine(
                component=component,
                at=self.at(minute),
                level=level,
                message=filled(message, drawn),
                logger=logger,
                instance=instance or drawn.choice(self.instances(component)),
            )
        )

    def _by_chance(self, entry: _Entry, window: Window) -> Iterator[LogLine]:
        drawn = self._random("lines", entry.component, entry.line.message, window.start.isoformat())
        for at_s in self._arrivals(drawn, entry.per_minute, entry.load, window):
            yield self._line(entry.component, entry.line, at_s, drawn, drawn.choice(entry.instances))

    def _line(
        self, component: str, line: Line, at_s: float, drawn: Random, instance: str, trace_id: str = ""
    ) -> LogLine:
        return LogLine(
            component=component,
            at=_moment(at_s),
            level=line.level,
            message=filled(line.message, drawn),
            logger=line.logger,
            instance=instance,
            trace_id=trace_id,
        )

    # --- requests: spans, and the lines written on their way ---

    def requests(self, call: Call, per_minute: Amount, *, load: float = 1.0) -> None:
        """Requests that begin with ``call``: the traced ones, so many a minute; of other days their lines count."""
        name = f"{call.to} {call.operation}"
        drawn = self._random("requests", call.to, call.operation, str(self._requested[name] or ""))
        self._requested[name] += 1
        for window in self._windows():
            for at_s in self._arrivals(drawn, per_minute, load, window):
                trace = _Trace(f"{drawn.getrandbits(128):032x}", drawn)
                self._called(trace, call, at_s, parent="", caller="", instance="")
                self._spans += () if window in self.seasonal else trace.spans
                self._lines += trace.lines

    def _arrivals(self, drawn: Random, per_minute: Amount, load: float, window: Window) -> Iterator[float]:
        """Epoch seconds of what comes by chance, so often a minute."""
        start, end = window.start.timestamp(), window.end.timestamp()
        for minute_s in range(int(start // 60) * 60, int(end), 60):
            mean = self._amount(per_minute, float(minute_s)) * self.load(minute_s, load)
            for at_s in sorted(minute_s + drawn.uniform(0, 60) for _ in range(_poisson(drawn, mean))):
                if start <= at_s < end:
                    yield at_s

    def _called(
        self, trace: _Trace, call: Call, at_s: float, *, parent: str, caller: str, instance: str
    ) -> tuple[float, str]:
        """Its milliseconds as the caller sees them, and its error."""
        client = f"{trace.random.getrandbits(64):016x}" if caller else ""
        there = trace.random.choice(self._serving(call.to, at_s)) if call.traced else instance
        if call.traced:
            took_ms, error = self._served(trace, call, at_s + 0.0006, client or parent, there)
        else:
            took_ms, error = self._alone(trace, call, at_s, caller, there)
        seen = (call.reported or error) if error else ""
        if caller:
            waited_ms = 2.0 + trace.random.random() if call.sent else took_ms + 0.8 + trace.random.random()
            trace.spans.append(
                Span(
                    component=caller,
                    trace_id=trace.id,
                    span_id=client,
                    parent_id=parent,
                    operation=call.operation,
                    start_s=round(at_s, 4),
                    duration_ms=round(waited_ms, 2),
                    kind="producer" if call.sent else "client",
                    peer=call.to,
                    error="" if call.sent else seen,
                    instance=instance,
                )
            )
            took_ms = waited_ms
        return took_ms, "" if call.sent or call.tolerated else seen

    def _alone(self, trace: _Trace, call: Call, at_s: float, caller: str, instance: str) -> tuple[float, str]:
        took_ms, error = self._own(trace.random, call, at_s)
        if error and call.failed and caller:
            trace.lines.append(self._line(caller, call.failed, at_s + took_ms / 1000, trace.random, instance, trace.id))
        return took_ms, error

    def _served(self, trace: _Trace, call: Call, at_s: float, parent: str, instance: str) -> tuple[float, str]:
        span_id = f"{trace.random.getrandbits(64):016x}"
        own_ms, error = self._own(trace.random, call, at_s)
        took_ms, passed = own_ms * 0.4, ""
        for inner in () if error else call.calls:
            if trace.random.random() < self._amount(inner.share, at_s):
                inner_ms, passed = self._called(
                    trace, inner, at_s + took_ms / 1000, parent=span_id, caller=call.to, instance=instance
                )
                took_ms += inner_ms
                if passed:
                    break
        took_ms += own_ms * 0.6
        told = call.failed if error else call.passed_on if passed else call.done
        if told:
            trace.lines.append(self._line(call.to, told, at_s + took_ms / 1000, trace.random, instance, trace.id))
        trace.spans.append(
            Span(
                component=call.to,
                trace_id=trace.id,
                span_id=span_id,
                parent_id=parent,
                operation=call.operation,
                start_s=round(at_s, 4),
                duration_ms=round(took_ms, 2),
                kind="consumer" if call.queue else "server",
                peer=call.queue,
                error=error or passed,
                instance=instance,
            )
        )
        return took_ms, error or passed

    def _own(self, drawn: Random, call: Call, at_s: float) -> tuple[float, str]:
        ms = self._amount(call.ms, at_s) * math.exp(drawn.gauss(0, 0.25))
        return ms, call.error if drawn.random() < self._amount(call.fails, at_s) else ""

    # --- what else is known ---

    def change(
        self,
        component: str,
        minute: float,
        kind: Literal["deploy", "configuration", "scaling", "feature_flag", "other"],
        title: str,
        *,
        version: str = "",
        author: str = "",
    ) -> None:
        """Something people or automation did."""
        at = self.at(minute)
        self._changes.append(Change(component=component, at=at, kind=kind, title=title, version=version, author=author))

    def status(
        self,
        component: str,
        name: str,
        observed: float,
        expected: float | None = None,
        detail: str = "",
        *,
        minute: float | None = None,
    ) -> None:
        """A state as it was when the incident was looked at, or at ``minute``."""
        at = self.incident.end if minute is None else self.at(minute)
        self._statuses.append(
            Status(component=component, name=name, at=at, observed=observed, expected=expected, detail=detail)
        )

    def ecs(
        self,
        component: str,
        revision: int,
        desired: int,
        running: int | None = None,
        *,
        pending: int = 0,
        failed: int = 0,
        rollout: Literal["COMPLETED", "IN_PROGRESS", "FAILED"] = "COMPLETED",
        detail: str = "",
        healthy: int | None = None,
        unhealthy: str = "",
    ) -> None:
        """The states our collector reads of an ECS service; all is well unless said otherwise.

        ``unhealthy``: why and how many, as the load balancer has it: ``Target.Timeout: 1``.
        """
        running = desired if running is None else running
        deployment = f"ecs-svc/{self._random('ecs', component).randint(10**18, 9 * 10**18)}"
        told = detail or f"ECS deployment {deployment} completed."
        self.status(component, "ecs.desired_tasks", desired, detail=f"{component}:{revision}")
        self.status(component, "ecs.running_tasks", running, desired, f"{pending} pending")
        self.status(component, "ecs.rollout_completed", float(rollout == "COMPLETED"), 1, f"{rollout}: {told}")
        self.status(component, "ecs.failed_tasks", failed, 0)
        healthy = running if healthy is None else healthy
        ill = f", unhealthy: {running - healthy}" if healthy < running else ""
        self.status(
            component,
            "ecs.healthy_tasks",
            healthy,
            desired,
            f"{f'{unhealthy}, ' if unhealthy else ''}healthy: {healthy}{ill}",
        )

    def document(self, title: str, section: str, text: str, services: Sequence[str] = (), why: str = "") -> None:
        """A section of a runbook or a wiki page."""
        self._documents.append(Document(title=title, section=section, text=text, services=tuple(services), why=why))

    def gap(self, source: str, reason: GapReason, detail: str, mend: str = "") -> None:
        """What could not be seen."""
        self._gaps.append(Gap(source=source, reason=reason, detail=detail, mend=mend))

    # --- the whole ---

    def story(
        self,
        *,
        title: str,
        service: str,
        text: str,
        expected: Mapping[str, JsonValue],
        alert_source: str = "datadog",
        severity: Severity = "critical",
        resources: Mapping[str, str] | None = None,
        rule: str = "",
        counted: bool = True,
    ) -> Story:
        """All of it. ``title``, ``service`` and ``text`` are the alert's; ``counted``: log lines are counted, too."""
        number = self._random("alert").randint(100_000_000, 199_999_999)
        rule = rule or f"{alert_source}:monitor:{number}"
        watched = dict(resources or {"service": service})
        entity = ",".join(f"{key}:{value}" for key, value in watched.items())
        alert: dict[str, JsonValue] = {
            "source": alert_source,
            "rule": rule,
            "title": title,
            "severity": severity,
            "service": service,
            "environment": self.catalogue.environment,
            "resources": {**watched},
            "occurred_at": self.alerted_at.isoformat(),
            "fingerprint": f"{rule}:{entity}",
            "cycle_key": f"{rule}:{self._random('cycle').randint(10**18, 9 * 10**18)}",
            "text": text,
        }
        logs, counts = self._logged()
        return Story(
            name=self.name,
            manifest=Manifest(
                title=title,
                recorded_from=f"story {self.name}",
                incident=self.incident,
                baseline=(self.baseline,),
                seasonal=self.seasonal,
                sanitised=True,
            ),
            alert=alert,
            expected=expected,
            logs=logs,
            series=(*self._series, *(counts if counted else ())),
            spans=tuple(sorted(self._spans, key=lambda s: (s.start_s, s.span_id))),
            changes=tuple(sorted(self._changes, key=lambda c: c.at)),
            edges=self._edges(),
            statuses=tuple(self._statuses),
            documents=tuple(self._documents),
            gaps=tuple(self._gaps),
            catalogue=self.raw_catalogue,
        )

    def _edges(self) -> tuple[Edge, ...]:
        declared = self.catalogue.edges()
        seen = sorted({(s.component, s.peer, s.kind) for s in self._spans if s.peer and s.kind != "consumer"})
        traced = (
            Edge(
                caller=caller,
                callee=callee,
                source="traces",
                asynchronous=kind == "producer",
                callee_kind=self.catalogue.services.get(callee, Service()).kind,
            )
            for caller, callee, kind in seen
        )
        return (*declared, *traced)

    def _logged(self) -> tuple[tuple[LogLine, ...], list[Series]]:
        """The rows of the day of the incident; the counts of all days."""
        lines = [
            *self._lines,
            *(line for entry in self._entries for window in self._windows() for line in self._by_chance(entry, window)),
        ]
        rows = [line for line in lines if self.baseline.start <= line.at < self.incident.end]
        ordered = sorted(rows, key=lambda line: (line.at, line.component, line.message))
        return tuple(ordered), list(self._counts(Counter(map(_counted, lines))))

    def _counts(self, counts: Mapping[tuple[str, str, int], int]) -> Iterator[Series]:
        """Lines a minute by level, as Datadog counts them for each service that logs."""
        minutes = [
            minute
            for window in self._windows()
            for minute in range(-int(-window.start.timestamp() // 60), int(window.end.timestamp() // 60))
        ]
        for component in dict.fromkeys(component for component, _, _ in sorted(counts)):
            for metric, statuses in _COUNTED.items():
                query = f'logs("service:{component} status:({statuses})").index("*").rollup("count")'
                ref = SeriesRef(
                    source="datadog", component=component, metric=metric, statistic="sum", unit="lines", query=query
                )
                values = [float(counts.get((component, metric, minute), 0)) for minute in minutes]
                yield Series(ref=ref, epoch_s=[minute * 60.0 for minute in minutes], values=values)


_COUNTED: Mapping[str, str] = {
    "logs.error": "error OR critical OR alert OR emergency",
    "logs.warn": "warn",
    "logs.info": "info OR notice OR ok OR debug",
}
_COUNTED_AS: Mapping[Level, str] = {
    "debug": "logs.info",
    "info": "logs.info",
    "warning": "logs.warn",
    "error": "logs.error",
    "critical": "logs.error",
}


def _counted(line: LogLine) -> tuple[str, str, int]:
    return line.component, _COUNTED_AS[line.level], int(line.at.timestamp() // 60)


_BLANK = re.compile(r"\{(?:(\d+)d|(\d+)h|(\d+)\.\.(\d+)|([^{}|]+(?:\|[^{}|]+)+))\}")


def filled(message: str, drawn: Random) -> str:
    """A message with its blanks filled in; see ``Line``."""

    def fill(blank: re.Match[str]) -> str:
        digits, hexes, low, high, words = blank.groups()
        if digits:
            return str(drawn.randint(10 ** (int(digits) - 1), 10 ** int(digits) - 1))
        if hexes:
            return f"{drawn.getrandbits(4 * int(hexes)):0{int(hexes)}x}"
        return str(drawn.randint(int(low), int(high))) if low else drawn.choice(words.split("|"))

    return _BLANK.sub(fill, message)


def _poisson(drawn: Random, mean: float) -> int:
    """How often it happens what happens ``mean`` times on average (Knuth; by its normal limit where that is large)."""
    if mean > 30:
        return max(0, round(drawn.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-max(mean, 0.0)), drawn.random(), 0
    while product > limit:
        product *= drawn.random()
        count += 1
    return count


def _rounded(number: float) -> float:
    """Four significant digits: what a store returns as 31.169999 takes three times the space."""
    return float(f"{number:.4g}")


def _moment(epoch_s: float) -> datetime:
    return datetime.fromtimestamp(round(epoch_s, 3), UTC)


def services(**named: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """A catalogue of services, as ``autopilot.yaml`` has it; ``_`` in a name is read as ``-``."""
    return {"environment": "production", "services": {name.replace("_", "-"): {**of} for name, of in named.items()}}


def ecs_service(
    name: str, cluster: str, *depends_on: str, balanced: bool = False, **more: JsonValue
) -> dict[str, JsonValue]:
    """A service that ECS runs, in the words of ``autopilot.yaml``; ``balanced``: behind a load balancer."""
    described: dict[str, JsonValue] = {
        "ecs": {"cluster": cluster, "service": name},
        "datadog_tags": [f"service:{name}"],
    }
    if depends_on:
        described["depends_on"] = list(depends_on)
    if balanced:
        described["load_balancer"] = _load_balancer(name, cluster)
    return {**described, **more}


def _load_balancer(name: str, cluster: str) -> dict[str, JsonValue]:
    drawn = Random(f"{cluster}/{name}")
    arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012"
    balancer = Random(cluster).getrandbits(64)
    rule = f"app/{cluster}/{balancer:016x}/{drawn.getrandbits(64):016x}/{drawn.getrandbits(64):016x}"
    return {
        "listener_rule_arn": f"{arn}:listener-rule/{rule}",
        "target_group_arn": f"{arn}:targetgroup/{name}/{drawn.getrandbits(64):016x}",
        "overflow_target_group_arn": f"{arn}:targetgroup/busy-page/{balancer:016x}",
    }
