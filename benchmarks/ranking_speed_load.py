"""Telemetry of a large system in which one service breaks: to measure how fast ranking is, not how right.

``python -m benchmarks.ranking_speed_load`` ranks it and prints what that took: a process of its own for each, as a
peak never falls.

Services call each other in a tree; requests come in at its root. From ``ONSET`` on one service is slow and fails, with
its connections used up, and whoever waits for it is slow and fails too. All is seeded: the same load is the same rows.
"""

import argparse
import gc
import resource
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from operator import attrgetter
from random import Random
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import BaseModel

from collectors.base import Edge, Floats, Level, LogLine, Scope, Series, SeriesRef, Span, Telemetry, Window
from graph.ranking import rank
from graph.state import Alert

SERVICES, METRICS, MINUTES = 200, 50, 24 * 60
LINES, SPANS = 1_000_000, 200_000
CHILDREN = 3  # callees of a service
TRACE_SPANS = (5, 40)  # fewest and most of one trace
USUAL_SPANS = 21  # a little fewer than on average: so many traces have spans enough
MB = 2**20
PEAK_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes that ``ru_maxrss`` counts as one
BROKEN = 7  # its callers are 2 and 0

END = datetime(2024, 6, 12, 15, 0, tzinfo=UTC)
START = END - timedelta(minutes=MINUTES)
INCIDENT = Window(start=END - timedelta(minutes=30), end=END)
BEFORE = Window(start=INCIDENT.start - timedelta(minutes=50), end=INCIDENT.start)
EARLIER = Window(start=START, end=BEFORE.start)
ONSET = INCIDENT.start + timedelta(minutes=10)  # an alert fires after its trouble began
_SEEN_S = (BEFORE.start.timestamp(), END.timestamp())  # of log lines and spans; metrics are of the whole day

_NAMES = [f"svc-{n:03d}" for n in range(SERVICES)]
_CALLEES = [range(CHILDREN * n + 1, min(CHILDREN * n + CHILDREN + 1, SERVICES)) for n in range(SERVICES)]
_OPERATIONS = ("GET /orders/{id}", "POST /orders", "GET /items", "PUT /items/{id}", "GET /status")


@dataclass(frozen=True)
class Load:
    """How much of each, as a share of the whole: 10,000 series, a million log lines, 200,000 spans."""

    series: float = 0.0
    lines: float = 0.0
    spans: float = 0.0

    def telemetry(self) -> Telemetry:
        """All of one source."""
        lines, spans = round(self.lines * LINES), round(self.spans * SPANS)
        written, traced = _requests(max(self.lines, self.spans), lines, spans)
        others = _background(lines - len(written))
        return Telemetry(
            source="load",
            series=tuple(islice(_series(), round(self.series * SERVICES * METRICS))),
            logs=tuple(sorted([*written, *others], key=attrgetter("at"))),
            spans=tuple(traced),
            edges=tuple(
                Edge(caller=_NAMES[n], callee=_NAMES[callee], source="catalogue")
                for n in range(SERVICES)
                for callee in _CALLEES[n]
            ),
        )


def scope() -> Scope:
    """The last half hour, compared with the rest of the day."""
    return Scope(
        service=_NAMES[0], occurred_at=ONSET, incident=INCIDENT, baseline=(BEFORE, EARLIER), targets=(), edges=()
    )


def alert() -> Alert:
    """Of the service where requests come in."""
    return Alert(
        source="load",
        title="Requests fail",
        service=_NAMES[0],
        occurred_at=ONSET,
        fingerprint="requests-fail",
        cycle_key="requests-fail",
    )


def _harmed() -> list[int]:
    """The broken service, and all that wait for it."""
    found = [BROKEN]
    while found[-1]:
        found.append((found[-1] - 1) // CHILDREN)
    return found


# --- metrics ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Metric:
    """``level`` is what is usual, ``harm`` by how much it grows where the fault is felt, ``own`` where it is."""

    name: str
    unit: str
    level: float
    harm: float = 1.0
    own: float = 1.0
    most: float = float("inf")


def _metrics() -> Iterator[_Metric]:
    for n in range(len(_OPERATIONS)):
        yield _Metric(f"http_requests_{n}", "rps", 40.0)
        yield _Metric(f"http_errors_{n}_percent", "%", 0.4, harm=30.0, own=90.0, most=100.0)
        yield _Metric(f"http_latency_{n}_p50", "ms", 25.0, harm=3.0, own=12.0)
        yield _Metric(f"http_latency_{n}_p95", "ms", 90.0, harm=4.0, own=15.0)
    yield _Metric("db_pool_utilization", "%", 30.0, own=3.3, most=100.0)
    yield _Metric("cpu_utilization", "%", 35.0, own=1.3, most=100.0)
    yield _Metric("memory_utilization", "%", 55.0, most=100.0)
    yield _Metric("disk_utilization", "%", 40.0, most=100.0)
    for n, (name, unit) in zip(count(), _others(), strict=False):
        yield _Metric(name, unit, 5.0 * (n + 1))


def _others() -> Iterator[tuple[str, str]]:
    for name in ("threads", "open_files", "gc_pause", "heap_used", "sockets", "restarts"):
        yield name, "ms" if name.endswith("pause") else "count"
    for what in ("network", "disk", "cache", "queue", "messages"):
        for way in ("in", "out", "waiting", "dropped"):
            yield f"{what}_{way}", "count"


def _series() -> Iterator[Series]:
    """Service by service, so that any share has whole services in it, the broken one among the first."""
    rng = np.random.default_rng(1)
    metrics = list(_metrics())
    epoch_s = START.timestamp() + 60.0 * np.arange(MINUTES)
    daily = 1.0 + 0.2 * np.sin(epoch_s * (2 * np.pi / 86_400.0))
    after, harmed = epoch_s >= ONSET.timestamp(), _harmed()
    for service in range(SERVICES):
        noise = rng.lognormal(0.0, 0.1, (len(metrics), MINUTES)) * rng.uniform(0.5, 1.5, (len(metrics), 1))
        for metric, row in zip(metrics, noise, strict=True):
            values = metric.level * row * daily
            if service in harmed:
                values[after] *= metric.own if service == BROKEN else metric.harm
            ref = SeriesRef(
                source="load",
                component=_NAMES[service],
                metric=metric.name,
                unit=metric.unit,
                query=f'{metric.name}{{service="{_NAMES[service]}"}}',
            )
            yield Series(ref=ref, epoch_s=_packed(epoch_s), values=_packed(np.minimum(values, metric.most)))


def _packed(numbers: NDArray[np.floating[Any]]) -> Floats:
    """Each series has times of its own, as if each were read from its source."""
    return Floats(array("d", numbers.astype(np.float64).tobytes()))


# --- requests: spans, and the lines they write ---------------------------------------------------------------


def _requests(share: float, most_lines: int, most_spans: int) -> tuple[list[LogLine], list[Span]]:
    """Of traces that come evenly over the time, what they write and what is kept of them."""
    rng, traces = Random(2), round(share * SPANS / USUAL_SPANS) + 1
    lines: list[LogLine] = []
    spans: list[Span] = []
    begin, end = _SEEN_S
    for n in range(traces):
        trace = _Trace(rng, begin + (end - begin) * n / traces)
        spans += trace.spans[: most_spans - len(spans)]
        for span in trace.spans:
            if span.kind == "server" and len(lines) < most_lines:
                lines += _handled(rng, span)
    return lines[:most_lines], spans


class _Trace:
    """One request, from service to service, depth first."""

    def __init__(self, rng: Random, at_s: float) -> None:
        self._rng, self._left = rng, rng.randint(*TRACE_SPANS)
        self._broken = at_s >= ONSET.timestamp()
        self._id = f"{rng.getrandbits(128):032x}"
        self.spans: list[Span] = []
        self._handle(0, "", at_s)

    def _handle(self, service: int, parent: str, at_s: float) -> tuple[float, str]:
        """When it answers, and with what error."""
        self._left -= 1
        here, now, error = self._span_id(), at_s + self._own_s(), ""
        while self._left >= 2 and _CALLEES[service] and (service == 0 or self._rng.random() < 0.8):
            now, failed = self._call(service, self._rng.choice(_CALLEES[service]), here, now)
            error = error or failed
        if self._broken and service == BROKEN:
            now += 30 * self._own_s()
            error = "PoolTimeout" if self._rng.random() < 0.4 else error
        self._add(service, here, parent, at_s, now, error)
        return now, error and "UpstreamError"

    def _call(self, caller: int, callee: int, parent: str, at_s: float) -> tuple[float, str]:
        self._left -= 1
        here = self._span_id()
        end, error = self._handle(callee, here, at_s + 0.0005)
        self._add(caller, here, parent, at_s, end + 0.0005, error, _NAMES[callee])
        return end + 0.0005, error

    def _add(self, service: int, here: str, parent: str, at_s: float, end_s: float, error: str, peer: str = "") -> None:
        span = Span(
            component=_NAMES[service],
            trace_id=self._id,
            span_id=here,
            parent_id=parent,
            operation=self._rng.choice(_OPERATIONS),
            start_s=at_s,
            duration_ms=(end_s - at_s) * 1000.0,
            kind="client" if peer else "server",
            peer=peer,
            error=error,
        )
        self.spans.append(span)

    def _span_id(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"

    def _own_s(self) -> float:
        return self._rng.expovariate(200.0)


def _handled(rng: Random, span: Span) -> Iterator[LogLine]:
    """Line after line while a request is handled; one that failed has another end, and no answer."""
    steps = ["accepted request {}", "loaded {} rows for request", "checked {} rules", "answered in {} ms"]
    levels: list[Level] = ["info"] * len(steps)
    if rng.random() < 0.4:
        steps[2:2], levels[2:2] = ["cache missed key {}"], ["debug"]
    if span.error:
        steps[-1], levels[-1] = f"request failed after {{}} ms: {span.error}", "error"
    for n, (step, level) in enumerate(zip(steps, levels, strict=True)):
        yield LogLine(
            component=span.component,
            at=datetime.fromtimestamp(span.start_s + span.duration_ms / 1000.0 * n / len(steps), UTC),
            level=level,
            message=step.format(rng.randrange(10_000)),
            logger=f"{span.operation.split()[0].title()}Handler#{40 + len(step)}",
            instance=f"{span.component}-{rng.randrange(3)}",
            trace_id=span.trace_id,
            span_id=span.span_id,
        )


# --- lines of no request --------------------------------------------------------------------------------------

_WHO = ("scheduler", "cache", "pool", "consumer", "exporter", "session", "index", "batch", "lease", "quota")
_DOES = ("refreshed", "evicted", "flushed", "committed", "renewed", "skipped", "compacted", "polled")
_WHAT = ("entries", "connections", "records", "keys", "offsets")


def _background(lines: int) -> Iterator[LogLine]:
    """Four hundred templates, ten to a service; half of the services tell logger and line."""
    rng = Random(3)
    texts = [f"{who} {does} {{}} {what} in {{}} ms" for who in _WHO for does in _DOES for what in _WHAT]
    begin, end = _SEEN_S
    for n in range(lines):
        service, own = rng.randrange(SERVICES), rng.randrange(10)
        kind = (7 * service + 41 * own) % len(texts)
        yield LogLine(
            component=_NAMES[service],
            at=datetime.fromtimestamp(begin + (end - begin) * n / lines, UTC),
            level="warning" if own == 9 else "info",
            message=texts[kind].format(rng.randrange(100_000), rng.randrange(500)),
            logger=f"Worker#{kind}" if service % 2 else "",
            instance=f"{_NAMES[service]}-{rng.randrange(3)}",
        )


# --- ranking it ---------------------------------------------------------------------------------------------------


class Ranked(BaseModel):
    """What ranking one load took. ``cpu_s`` is what it would take on a core of its own."""

    wall_s: float
    cpu_s: float
    before_mb: float  # resident, before there was any telemetry
    loaded_mb: float  # with the telemetry
    peak_mb: float  # of the whole process, ranking included
    right: bool  # the first suspect is the broken service


def ranked(load: Load) -> Ranked:
    """Generate a load and rank it, once, in this process."""
    process = psutil.Process()
    before = process.memory_info().rss
    telemetry = load.telemetry()
    gc.collect()
    loaded = process.memory_info().rss
    wall, cpu = time.perf_counter(), time.process_time()
    evidence = rank([telemetry], scope(), alert())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * PEAK_UNIT
    return Ranked(
        wall_s=wall,
        cpu_s=cpu,
        before_mb=before / MB,
        loaded_mb=loaded / MB,
        peak_mb=peak / MB,
        right=bool(evidence.suspects) and evidence.suspects[0].component == _NAMES[BROKEN],
    )


def main() -> None:
    """Rank a load and print what it took, as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ranking_speed_load", description=__doc__)
    for field in fields(Load):
        parser.add_argument(f"--{field.name}", type=float, default=0.0, help="share of the whole, up to 1")
    print(ranked(Load(**vars(parser.parse_args()))).model_dump_json())


if __name__ == "__main__":
    main()
