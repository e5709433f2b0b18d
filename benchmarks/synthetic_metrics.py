"""The metrics that sources would have had of a made-up system, each in its own vendor's words and units."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from benchmarks.synthetic_dynamics import SPREAD, Array, Run
from benchmarks.synthetic_recording import Disturbances, Recording, Segment
from benchmarks.synthetic_system import Component, Kind, Style
from collectors.base import Series, SeriesRef

Quantity = Literal[
    "requests", "errors", "availability", "error_ratio", "mean_ms", "p95_ms", "cpu", "memory", "pool_used", "pool_size",
    "backlog", "age_s", "taken", "wandering", "hits",
]  # fmt: skip
GOLDEN: frozenset[Quantity] = frozenset(("requests", "errors", "availability", "error_ratio", "mean_ms", "p95_ms"))
TAIL = 2.3  # how far the 95th percentile of durations lies above their mean
POOL = 50


class Metric(NamedTuple):
    """``scale`` turns the quantity into the vendor's unit."""

    name: str
    quantity: Quantity
    unit: str
    statistic: str = "avg"
    scale: float = 1.0


_DATADOG: Mapping[Kind, tuple[Metric, ...]] = {
    "service": (
        Metric("trace.http.request.hits", "requests", "request", "sum"),
        Metric("trace.http.request.errors", "errors", "request", "sum"),
        Metric("trace.http.request.duration", "mean_ms", "s", "avg", 1e-3),
        Metric("trace.http.request.duration", "p95_ms", "s", "p95", 1e-3),
        Metric("docker.cpu.usage", "cpu", "percent", "avg", 100),
        Metric("docker.mem.in_use", "memory", "fraction"),
        Metric("hikaricp.connections.active", "pool_used", "connection"),
        Metric("hikaricp.connections.max", "pool_size", "connection"),
        Metric("jvm.gc.minor_collection_time", "wandering", "ms", "avg", 12),
        Metric("system.io.await", "wandering", "ms", "avg", 2),
    ),
    "database": (
        Metric("postgresql.queries.count", "requests", "query", "sum"),
        Metric("postgresql.queries.time", "mean_ms", "ms"),
        Metric("system.cpu.user", "cpu", "percent", "avg", 100),
        Metric("postgresql.percent_usage_connections", "pool_used", "fraction", "avg", 1 / POOL),
        Metric("postgresql.bgwriter.write_time", "wandering", "ms", "avg", 40),
    ),
    "cache": (
        Metric("redis.net.commands", "requests", "command", "sum"),
        Metric("redis.info.latency_ms", "mean_ms", "ms"),
        Metric("redis.stats.keyspace_hits", "hits", "key", "sum"),
    ),
    "queue": (
        Metric("rabbitmq.queue.messages.ready", "backlog", "message"),
        Metric("rabbitmq.queue.messages.publish.count", "requests", "message", "sum"),
        Metric("rabbitmq.queue.messages.deliver.count", "taken", "message", "sum"),
    ),
    "external": (
        Metric("trace.http.client.hits", "requests", "request", "sum"),
        Metric("trace.http.client.errors", "errors", "request", "sum"),
        Metric("trace.http.client.duration", "mean_ms", "s", "avg", 1e-3),
    ),
}
_CLOUDWATCH: Mapping[Kind, tuple[Metric, ...]] = {
    "service": (
        Metric("RequestCount", "requests", "Count", "sum"),
        Metric("HTTPCode_Target_5XX_Count", "errors", "Count", "sum"),
        Metric("TargetResponseTime", "mean_ms", "Seconds", "avg", 1e-3),
        Metric("TargetResponseTime", "p95_ms", "Seconds", "p95", 1e-3),
        Metric("CPUUtilization", "cpu", "Percent", "avg", 100),
        Metric("MemoryUtilization", "memory", "Percent", "avg", 100),
        Metric("NetworkPacketsIn", "wandering", "Count", "avg", 4000),
    ),
    "database": (
        Metric("DatabaseConnections", "pool_used", "Count"),
        Metric("CPUUtilization", "cpu", "Percent", "avg", 100),
        Metric("ReadLatency", "mean_ms", "Seconds", "avg", 1e-3),
        Metric("ReadIOPS", "requests", "Count/Second", "avg", 1 / 60),
        Metric("FreeableMemory", "wandering", "Bytes", "avg", 2e9),
    ),
    "cache": (
        Metric("CacheHits", "hits", "Count", "sum"),
        Metric("SuccessfulReadRequestLatency", "mean_ms", "Microseconds", "avg", 1e3),
        Metric("EngineCPUUtilization", "cpu", "Percent", "avg", 100),
    ),
    "queue": (
        Metric("ApproximateNumberOfMessagesVisible", "backlog", "Count"),
        Metric("ApproximateAgeOfOldestMessage", "age_s", "Seconds", "max"),
        Metric("NumberOfMessagesSent", "requests", "Count", "sum"),
        Metric("NumberOfMessagesDeleted", "taken", "Count", "sum"),
    ),
    "external": (
        Metric("OutboundRequests", "requests", "Count", "sum"),
        Metric("OutboundSuccess", "availability", "Percent", "avg", 100),
        Metric("OutboundLatency", "mean_ms", "Milliseconds"),
    ),
}
_PROMETHEUS: Mapping[Kind, tuple[Metric, ...]] = {
    "service": (
        Metric("http_server_requests_total", "requests", "1/s", "rate", 1 / 60),
        Metric("http_server_errors_total", "errors", "1/s", "rate", 1 / 60),
        Metric("http_server_request_duration_seconds", "mean_ms", "s", "avg", 1e-3),
        Metric("http_server_request_duration_seconds", "p95_ms", "s", "p95", 1e-3),
        Metric("container_cpu_usage_ratio", "cpu", ""),
        Metric("container_memory_working_set_ratio", "memory", ""),
        Metric("db_pool_connections_in_use", "pool_used", ""),
        Metric("db_pool_connections_limit", "pool_size", ""),
        Metric("process_open_fds", "wandering", "", "avg", 120),
    ),
    "database": (
        Metric("pg_stat_database_numbackends", "pool_used", ""),
        Metric("pg_statement_mean_seconds", "mean_ms", "s", "avg", 1e-3),
        Metric("pg_stat_statements_calls", "requests", "1/s", "rate", 1 / 60),
        Metric("node_cpu_busy_ratio", "cpu", ""),
    ),
    "cache": (
        Metric("redis_commands_processed_total", "requests", "1/s", "rate", 1 / 60),
        Metric("redis_commands_duration_seconds", "mean_ms", "s", "avg", 1e-3),
        Metric("redis_memory_used_ratio", "memory", ""),
    ),
    "queue": (
        Metric("kafka_consumergroup_lag", "backlog", ""),
        Metric("kafka_topic_messages_in_total", "requests", "1/s", "rate", 1 / 60),
    ),
    "external": (
        Metric("http_client_requests_total", "requests", "1/s", "rate", 1 / 60),
        Metric("http_client_errors_total", "errors", "1/s", "rate", 1 / 60),
        Metric("http_client_request_duration_seconds", "p95_ms", "s", "p95", 1e-3),
    ),
}
_OTEL: Mapping[Kind, tuple[Metric, ...]] = {
    "service": (
        Metric("http.server.request.count", "requests", "{request}", "sum"),
        Metric("http.server.error_rate", "error_ratio", "%", "avg", 100),
        Metric("http.server.request.duration", "mean_ms", "ms"),
        Metric("http.server.request.duration", "p95_ms", "ms", "p95"),
        Metric("container.cpu.utilization", "cpu", "1"),
        Metric("container.memory.utilization", "memory", "1"),
        Metric("db.client.connection.count", "pool_used", "{connection}"),
        Metric("process.runtime.threads", "wandering", "{thread}", "avg", 60),
    ),
    "database": (
        Metric("db.client.operation.duration", "mean_ms", "ms"),
        Metric("db.client.operation.count", "requests", "{operation}", "sum"),
        Metric("system.cpu.utilization", "cpu", "1"),
    ),
    "cache": (
        Metric("db.client.operation.duration", "mean_ms", "ms"),
        Metric("db.client.operation.count", "requests", "{operation}", "sum"),
    ),
    "queue": (
        Metric("messaging.queue.depth", "backlog", "{message}"),
        Metric("messaging.publish.messages", "requests", "{message}", "sum"),
        Metric("messaging.receive.messages", "taken", "{message}", "sum"),
    ),
    "external": (
        Metric("http.client.request.count", "requests", "{request}", "sum"),
        Metric("http.client.error_rate", "error_ratio", "%", "avg", 100),
        Metric("http.client.request.duration", "mean_ms", "ms"),
    ),
}
VENDORS: Mapping[Style, Mapping[Kind, tuple[Metric, ...]]] = {
    "datadog": _DATADOG,
    "cloudwatch": _CLOUDWATCH,
    "prometheus": _PROMETHEUS,
    "otel": _OTEL,
}
_SPARSE = (
    Metric("latency", "mean_ms", "s", "Average", 1e-3),
    Metric("latency", "p95_ms", "s", "p95", 1e-3),
    Metric("availability", "availability", "%", "Average", 100),
    Metric("requests", "requests", "count", "Sum"),
)
_PARTS = ("errors", "mean_ms")  # what is also told of single instances


class Truthful(NamedTuple):
    """What one metric's subject did in one segment, by row."""

    requests: Array
    failed: Array
    latency_ms: Array


class Meter:
    """Reads all metrics of a recording."""

    def __init__(self, rng: np.random.Generator, recording: Recording, disturbances: Disturbances) -> None:
        self.rng, self.recording, self.disturbances = rng, recording, disturbances

    def series(self) -> Iterator[Series]:
        """Of every component, and in the sparse profile of the callers' side of some calls."""
        for index, component in enumerate(self.recording.system.components):
            if "metrics_of_cause" in self.disturbances.dropped and component.name in self.recording.at_fault:
                continue
            yield from self._of(index, component)
            if not self.recording.sparse and component.kind == "service":
                yield from self._of_instances(index, component)
        for call in self.recording.views:
            yield from self._of_view(call)

    def _of_view(self, call: int) -> Iterator[Series]:
        """What the caller measured: the callee's time and failures, and the way there and back."""
        caller = self.recording.system.components[self.recording.system.calls[call].caller]
        seen_by = replace(caller, name=self.recording.view(call))
        for metric in _SPARSE:
            rows = [
                self._quantity(metric, Truthful(run.calls[call], run.call_failed[call], run.call_ms[call]), segment)
                for segment, run in zip(self.recording.segments, self.recording.runs, strict=True)
            ]
            yield from self._told(seen_by, metric, rows, "")

    def _of(self, index: int, component: Component) -> Iterator[Series]:
        metrics = _SPARSE if self.recording.sparse else VENDORS[component.style][component.kind]
        for metric in metrics:
            if "all_but_golden" in self.disturbances.dropped and metric.quantity not in GOLDEN:
                continue
            rows = [
                self._rows(metric, component, run, segment, index, number > 0)
                for number, (segment, run) in enumerate(zip(self.recording.segments, self.recording.runs, strict=True))
            ]
            yield from self._told(component, metric, rows, "")

    def _of_instances(self, index: int, component: Component) -> Iterator[Series]:
        """Some sources tell instances apart; of a component that fails in part, this one does."""
        focus = self.recording.focus.get(index)
        if focus is None and self.rng.random() < 0.8:
            return
        metrics = [m for m in VENDORS[component.style]["service"] if m.quantity in _PARTS]
        for instance in component.instances:
            for metric in metrics:
                rows = [
                    self._quantity(metric, self._part(index, instance, number), segment)
                    for number, segment in enumerate(self.recording.segments)
                ]
                yield from self._told(component, metric, rows, instance)

    def _part(self, index: int, instance: str, number: int) -> Truthful:
        run, calm = self.recording.runs[number], self.recording.calm
        component = self.recording.system.components[index]
        whole = Truthful(run.requests[index] / len(component.instances), run.failed[index], run.latency_ms[index])
        focus = self.recording.focus.get(index)
        if focus is None or not focus.instances or number > 0:
            return whole
        share = self.recording.share(index) if instance in focus.instances else np.inf
        failed = calm.failed[index] + (run.failed[index] - calm.failed[index]) / share
        slow = calm.latency_ms[index] + (run.latency_ms[index] - calm.latency_ms[index]) / share
        return Truthful(whole.requests, np.clip(failed, 0, 1), slow)

    def _rows(
        self, metric: Metric, component: Component, run: Run, segment: Segment, index: int, earlier: bool
    ) -> tuple[Array, Array]:
        whole = Truthful(run.requests[index], run.failed[index], run.latency_ms[index])
        if metric.quantity in GOLDEN:
            starts, values = self._quantity(metric, whole, segment)
        else:
            starts, values = segment.starts(), self._noisy(self._state(metric.quantity, run, index)) * metric.scale
        if earlier:  # another release, another mix of requests
            values = values * np.exp(self.rng.normal(0, self.disturbances.drift))
            values = np.minimum(values, metric.scale) if metric.quantity == "availability" else values
        return starts, values

    def _quantity(self, metric: Metric, of: Truthful, segment: Segment) -> tuple[Array, Array]:
        """A golden metric: counted requests and failures, and times of as many; nothing where nobody called."""
        count = self.rng.poisson(np.clip(of.requests * segment.step_s / 60, 0, 1e9)).astype(float)
        bad = self.rng.binomial(count.astype(int), np.clip(of.failed, 0, 1)).astype(float)
        called = count > 0
        if metric.quantity in {"requests", "errors"}:
            values = count if metric.quantity == "requests" else bad
            per_row = metric.scale * (60 / segment.step_s if metric.statistic in {"rate", "avg"} else 1)
            return segment.starts(), values * per_row
        some = np.maximum(count, 1)
        if metric.quantity in {"availability", "error_ratio"}:
            ratio = bad / some if metric.quantity == "error_ratio" else 1 - bad / some
            return segment.starts()[called], (ratio * metric.scale)[called]
        tail = TAIL if metric.quantity == "p95_ms" else 1.0
        sampling = np.exp(self.rng.normal(0, SPREAD * tail / np.sqrt(some)))
        return segment.starts()[called], self._noisy(of.latency_ms * tail * sampling * metric.scale)[called]

    def _state(self, quantity: Quantity, run: Run, index: int) -> Array:
        idle = self.recording.system.components[index].idle_cpu
        steps = run.requests.shape[1]
        if quantity == "wandering":
            return np.exp(np.cumsum(self.rng.normal(0, 0.05, steps)) * 0.3)
        taken = [run.calls[k] for k in self.recording.system.outgoing(index)]
        states: Mapping[str, Array] = {
            "cpu": np.minimum(idle + (1 - idle) * np.minimum(run.used[index], 1.0), 1.0),
            "memory": run.memory[index],
            "pool_used": np.ceil(np.minimum(run.pooled[index], 1.0) * POOL),
            "pool_size": np.full(steps, float(POOL)),
            "backlog": run.backlog[index],
            "age_s": run.backlog[index] / np.maximum(run.requests[index], 1e-3) * 60,
            "taken": sum(taken, np.zeros(steps)),
            "hits": run.requests[index] * 0.9,
        }
        return states[quantity]

    def _noisy(self, values: Array) -> Array:
        result: Array = values * np.exp(self.rng.normal(0, self.disturbances.noise, len(values)))
        return result

    def _told(
        self, component: Component, metric: Metric, rows: list[tuple[Array, Array]], instance: str
    ) -> Iterator[Series]:
        """Bounded and lossy, in the order of time; a counter starts anew now and then."""
        rows = sorted(rows, key=lambda part: part[0][0] if len(part[0]) else 0.0)
        at = np.concatenate([part[0] for part in rows])
        values = np.concatenate([part[1] for part in rows])
        if metric.quantity in {"cpu", "memory"}:
            values = np.minimum(values, metric.scale)
        if metric.quantity == "pool_size":
            values = np.full(len(values), float(POOL))
        if self.disturbances.counter_resets and metric.quantity == "requests" and len(values):
            values = self._counter(values)
        kept = self.rng.random(len(at)) >= self.disturbances.lost
        if not kept.any():
            return
        label = f'{{service="{component.name}"' + (f',pod="{instance}"}}' if instance else "}")
        ref = SeriesRef(
            source="synthetic",
            component=component.name,
            metric=metric.name,
            statistic=metric.statistic,
            unit=metric.unit,
            query=f"{metric.statistic}:{metric.name}{label}",
        )
        yield Series(ref=ref, epoch_s=tuple(at[kept].tolist()), values=tuple(values[kept].tolist()))

    def _counter(self, values: Array) -> Array:
        """The sum since the process started, which it did once more in between."""
        total = np.cumsum(values)
        restart = int(self.rng.integers(len(values)))
        total[restart:] -= total[restart - 1] if restart else 0.0
        return total
