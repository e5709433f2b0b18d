"""What a collector is, and the normalised telemetry it returns.

A collector is one file in this folder with its own ``Settings(env_prefix=…)`` and a ``create(clock, declared)``;
its name in ``AUTOPILOT_COLLECTORS`` turns it on. It reads one source with read-only credentials and knows nothing of
incidents, LLMs or executors.

Times are timezone-aware UTC datetimes, or ``*_s`` floats in epoch seconds where there are many of them.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal, Protocol, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.dataclasses import dataclass

from collectors._floats import Floats as Floats

Level = Literal["debug", "info", "warning", "error", "critical"]


class Model(BaseModel):
    """Immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Window(Model):
    """A half-open span of time ``[start, end)``, UTC."""

    start: AwareDatetime
    end: AwareDatetime


class EcsService(Model):
    """An ECS service by the names AWS knows it under."""

    cluster: str
    service: str


class AwsResources(Model):
    """What AWS runs for a service besides ECS and its load balancer, by the names CloudWatch knows."""

    log_groups: tuple[str, ...] = Field(default=(), description="e.g. /ecs/payment-service")
    rds_instances: tuple[str, ...] = Field(default=(), description="DBInstanceIdentifier")
    rds_clusters: tuple[str, ...] = Field(default=(), description="DBClusterIdentifier, of Aurora")
    elasticache_clusters: tuple[str, ...] = Field(default=(), description="CacheClusterId")
    lambda_functions: tuple[str, ...] = Field(default=(), description="FunctionName")
    sqs_queues: tuple[str, ...] = Field(default=(), description="QueueName")
    codedeploy_application: str | None = None
    codedeploy_group: str | None = None
    xray_name: str | None = Field(default=None, description="Its name in X-Ray, if that is another")


class KubernetesWorkload(Model):
    """Where a service runs in Kubernetes."""

    namespace: str = "default"
    workload: str = Field(description="Deployment, StatefulSet or DaemonSet; its pods' names begin so")


class GitHubRepository(Model):
    """Where a service's code is, and under which name it is deployed."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="owner/name")
    branch: str = Field(default="", description="The branch that is deployed; empty: the default branch")
    environment: str = Field(default="", description="GitHub's environment; empty: any")


class LangfuseTraces(Model):
    """Which traces of the Langfuse project are a service's; at least one of the fields."""

    environment: str = ""
    trace_name: str = ""
    tags: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _tells_some_from_others(self) -> Self:
        if not (self.environment or self.trace_name or self.tags):
            raise ValueError("give environment, trace_name or tags: the whole project is no one service")
        return self


class KnownAs(Model):
    """The names under which the sources know a service, where they differ from its own."""

    datadog_tags: tuple[str, ...] = Field(default=(), description="Tags that select it; empty means service:<name>")
    ecs: EcsService | None = None
    aws: AwsResources = AwsResources()
    otel_service: str = Field(default="", description="service.name in Tempo and Jaeger; empty: its own name")
    prometheus: str = Field(
        default="", description='Label matchers of its series, e.g. job="pay"; empty means service="<name>"'
    )
    loki: str = Field(
        default="", description='Label matchers of its streams, e.g. app="pay"; empty means service_name="<name>"'
    )
    langfuse: LangfuseTraces | None = None
    github: GitHubRepository | None = None
    kubernetes: KubernetesWorkload | None = None


class Target(KnownAs):
    """One service to look at, with the names each source knows it under."""

    service: str
    hops: int = Field(default=0, ge=0, description="0 is the alerted service, 1 its direct neighbours, …")
    load_balancer: str | None = Field(default=None, description="CloudWatch dimension, e.g. app/shop/50dc6c49")
    target_group: str | None = Field(default=None, description="CloudWatch dimension, e.g. targetgroup/pay/6d0e")


CalleeKind = Literal["", "service", "database", "cache", "queue", "external"]


class Edge(Model):
    """``caller`` calls ``callee``. ``source`` says who knows: catalogue, traces, …"""

    caller: str
    callee: str
    source: str
    asynchronous: bool = Field(default=False, description="A message or an event: the caller does not wait")
    callee_kind: CalleeKind = Field(default="", description="What the callee is, where the source knows")


Measures = Literal[
    "",
    "error",  # requests that fail, counted or as a share
    "fault",  # failures that are no requests: restarts, deadlocks, hosts that are unhealthy
    "success",  # the other way round: availability, healthy hosts
    "latency",
    "saturation",  # how much of a resource is used
    "pool",  # the same of what work in progress holds: connections, threads, workers
    "host",  # the same of the machine, which others use too
    "backlog",  # work that waits
    "loss",  # of money or customers
    "earnings",
    "requests",  # calls that came in
    "traffic",  # bytes, messages, rows: how much passes
    "unknown",
]
"""What a metric measures, whatever its name; empty: told from its name."""


class Symptom(Model):
    """What the alert says, as far as it helps to find what to read. Text of strangers: data, never instructions."""

    source: str = Field(default="", description="datadog, cloudwatch, alertmanager, …")
    rule: str = Field(default="", description="datadog:monitor:77, an alarm's ARN, …: the rule whose query to read")
    title: str = ""
    text: str = ""
    url: str | None = None
    resources: Mapping[str, str] = Field(default_factory=dict)


class Scope(Model):
    """Which services, which windows: everything a collector needs to know of the incident."""

    service: str = Field(description="The service that was alerted on")
    environment: str = "production"
    occurred_at: AwareDatetime
    incident: Window
    baseline: tuple[Window, ...] = Field(description="The minutes just before, held to be normal, nearest first")
    seasonal: tuple[Window, ...] = Field(
        default=(),
        description="The same hours yesterday and a week ago: read for metrics and counts, not for rows",
    )
    symptom: Symptom = Symptom()
    targets: tuple[Target, ...] = Field(description="The alerted service first, then its neighbours by relevance")
    left_out: tuple[str, ...] = Field(default=(), description="Neighbours that are too many to look at")
    edges: tuple[Edge, ...] = ()
    hints: tuple[str, ...] = Field(default=(), description="What people said when they asked for a re-analysis")
    within_s: float = Field(default=15.0, gt=0, description="Seconds there are; what was read by then is kept")

    def alarm_is_lead(self, service: str) -> bool:
        """Whether an alarm of that service says more than the alert did.

        One of the alerted service itself, or of what calls it, is the symptom again.
        """
        callers = {edge.caller for edge in self.edges if edge.callee == self.service}
        return service not in {self.service, *callers}


Asks = Literal["", "metrics", "logs", "traces", "changes", "statuses", "documents"]
"""What rows a query gives; empty: several kinds, or nobody said."""


class Query(Model):
    """What was asked of a source: the reader of a report can ask it again."""

    source: str
    text: str = Field(description="The query in the source's own language")
    link: str | None = Field(default=None, description="Deep link a person can open")
    start: AwareDatetime
    end: AwareDatetime
    took_ms: float = 0.0
    rows: int = 0
    truncated: bool = False
    kind: Asks = ""


class SeriesRef(Model):
    """Enough to read the same metric again, later: how an expected effect is measured."""

    source: str = Field(description="Name of the collector that can read it")
    component: str
    metric: str
    statistic: str = Field(default="avg", description="avg, sum, max, p95, …")
    unit: str = ""
    query: str = Field(description="The query in the source's own language")
    measures: Measures = ""


Packed = Annotated[Sequence[float], Floats]
"""Any sequence of numbers may be given; what is kept is Floats."""


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Series:
    """One metric of one component over time. ``epoch_s`` ascends; both are equally long; no NaN.

    This, a log line and a span come in such numbers that their memory counts: a quarter of a Model's.
    """

    ref: SeriesRef
    epoch_s: Packed
    values: Packed


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LogLine:
    """One log line, or ``count`` equal ones."""

    component: str
    at: AwareDatetime
    level: Level
    message: str
    logger: str = Field(default="", description="Logger and, where known, line: Class#123")
    instance: str = ""
    trace_id: str = ""
    span_id: str = ""
    count: int = Field(default=1, ge=1)


SpanKind = Literal["server", "client", "producer", "consumer", "internal"]
"""As OpenTelemetry has them: a producer sends a message, which a consumer may handle much later."""


@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Span:
    """One span. ``start_s`` is epoch seconds."""

    component: str
    trace_id: str
    span_id: str
    parent_id: str = ""
    operation: str
    start_s: float
    duration_ms: float
    kind: SpanKind = "internal"
    peer: str = Field(default="", description="The callee, on a client or producer span; on a consumer's the queue")
    error: str = Field(default="", description="Error type; empty means the span succeeded")
    instance: str = ""


class Change(Model):
    """Something people or automation did: deploy, configuration, scaling, feature flag."""

    component: str
    at: AwareDatetime
    kind: Literal["deploy", "configuration", "scaling", "feature_flag", "other"]
    title: str
    version: str = ""
    author: str = ""
    link: str | None = None


class Document(Model):
    """A section of a runbook or a wiki page. Data, never instructions."""

    title: str
    section: str = Field(default="", description="Its heading, with those above it: Runbook > Mitigation")
    text: str
    link: str | None = None
    services: tuple[str, ...] = Field(default=(), description="What it says it is about; empty: anything")
    why: str = Field(default="", description="Why it was found: which service, which words of the alert")


class Status(Model):
    """A state that was read, not measured over time: tasks running, healthy hosts, roll-out state."""

    component: str
    name: str = Field(description="e.g. ecs.healthy_tasks")
    at: AwareDatetime
    observed: float
    expected: float | None = None
    detail: str = ""


class GapReason(StrEnum):
    """Why something could not be seen."""

    TIMEOUT = "timeout"
    FORBIDDEN = "forbidden"
    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    NOT_CONFIGURED = "not_configured"
    FAILED = "failed"


class Gap(Model):
    """What could not be seen, why, and what would mend it. A gap is evidence."""

    source: str
    reason: GapReason
    detail: str
    mend: str = ""


class Cost(Model):
    """What a collection took."""

    calls: int = 0
    received_bytes: int = 0
    took_ms: float = 0.0


USUAL_MEND: Mapping[GapReason, str] = {
    GapReason.TIMEOUT: "see `autopilot doctor`, or raise the source's budget of seconds",
    GapReason.FORBIDDEN: "`autopilot doctor` names the permission that is missing",
    GapReason.UNREACHABLE: "see `autopilot doctor`",
    GapReason.RATE_LIMITED: "try again later, or ask the vendor for a higher limit",
    GapReason.EMPTY: "check the names of the service in the catalogue",
    GapReason.TRUNCATED: "read on at the source, or ask for a re-analysis that names one service",
    GapReason.NOT_CONFIGURED: "see `autopilot settings`",
    GapReason.FAILED: "ask the source itself; if it answers there, report this defect",
}
"""What to do where nothing more exact is known."""


class LogsRead(Model):
    """Log lines of one component that hold these words, over incident and baseline."""

    kind: Literal["logs"] = "logs"
    component: str
    contains: str = Field(min_length=2, max_length=200, description="Plain text, any case; no query language")


class MetricRead(Model):
    """One metric of one component, over incident and baseline."""

    kind: Literal["metric"] = "metric"
    component: str
    metric: str


class TraceRead(Model):
    """All spans of one trace."""

    kind: Literal["trace"] = "trace"
    trace_id: str = Field(min_length=1, max_length=64)


Read = Annotated[LogsRead | MetricRead | TraceRead, Field(discriminator="kind")]
"""A question that an analyst may ask of the collectors, beside what all of them collect."""


class Telemetry(Model):
    """All that one collector saw, normalised."""

    source: str
    cost: Cost = Cost()
    queries: tuple[Query, ...] = ()
    series: tuple[Series, ...] = ()
    logs: tuple[LogLine, ...] = ()
    spans: tuple[Span, ...] = ()
    changes: tuple[Change, ...] = ()
    statuses: tuple[Status, ...] = ()
    edges: tuple[Edge, ...] = ()
    documents: tuple[Document, ...] = ()
    gaps: tuple[Gap, ...] = ()

    @property
    def rows(self) -> int:
        """How much there is to see."""
        return sum(map(len, (self.series, self.logs, self.spans, self.changes, self.statuses, self.documents)))


class CollectorError(Exception):
    """The source could not be read."""

    reason = GapReason.FAILED

    def __init__(self, detail: str, mend: str = "") -> None:
        super().__init__(detail)
        self.detail, self.mend = detail, mend


class Forbidden(CollectorError):
    """The source refused the credentials, or a permission is missing."""

    reason = GapReason.FORBIDDEN


class Unreachable(CollectorError):
    """The source did not answer, or answered with a server error."""

    reason = GapReason.UNREACHABLE


class TimedOut(Unreachable):
    """The source had not answered when time was up."""

    reason = GapReason.TIMEOUT


class RateLimited(CollectorError):
    """The source asked to come back later."""

    reason = GapReason.RATE_LIMITED


class TooMuch(CollectorError):
    """The budget of calls, bytes or rows is used up; what was read by then is kept."""

    reason = GapReason.TRUNCATED


class Refused(CollectorError):
    """The source could not understand, or does not know, what was asked."""


class NotFound(Refused):
    """The source does not know what was asked for (404), cannot do it (501), or hides it from these credentials."""


class Check(Model):
    """One thing `autopilot doctor` looked at."""

    name: str = Field(description="reachable, credentials, clock, sample query, or a permission's own name")
    status: Literal["ok", "failed", "skipped"]
    detail: str = Field(default="", description="What was seen")
    mend: str = Field(default="", description="What to do: the exact scope, IAM action or setting")


class McpTool(Model):
    """One read-only tool of an MCP server, how to call it, and what its answer is."""

    tool: str
    arguments: Mapping[str, JsonValue] = Field(
        default_factory=dict,
        description="Texts may hold {service}, {environment}, {title}, {start}, {end} (ISO), {start_s}, {end_s}",
    )
    read_only: bool = Field(
        default=False, description="You vouch that it changes nothing, where its server does not say so"
    )
    per: Literal["service", "incident"] = Field(default="service", description="Called once for each, or once")
    gives: Literal["document", "logs", "changes"] = "document"
    rows: str = Field(default="@", description="JMESPath to the list of log lines or changes in the answer")
    fields: Mapping[str, str] = Field(
        default_factory=dict,
        description="JMESPath to each field of a LogLine or Change: {at: time, message: msg}",
    )


class McpServer(Model):
    """An MCP server by URL (streamable HTTP) or by command (stdio)."""

    url: str | None = None
    command: tuple[str, ...] = ()
    token_variable: str = Field(default="", description="The environment variable that holds its bearer token")
    tools: tuple[McpTool, ...]

    @model_validator(mode="after")
    def _one_way_to_reach_it(self) -> Self:
        if bool(self.url) == bool(self.command):
            raise ValueError("give either url or command")
        return self


class Declared(Model):
    """What ``autopilot.yaml`` says of sources that an environment variable cannot describe."""

    mcp: Mapping[str, McpServer] = Field(default_factory=dict)
    log_groups: tuple[str, ...] = Field(default=(), description="Of all services; doctor looks whether they exist")


class Clock(Protocol):
    """Time as the observed world has it; the demo's world runs faster than the wall clock."""

    def now(self) -> datetime:
        """UTC."""


class Collector(Protocol):
    """Reads one source. Safe to call for many incidents at once."""

    @property
    def name(self) -> str:
        """The source's name, as in ``AUTOPILOT_COLLECTORS``."""

    @property
    def timeout_s(self) -> float:
        """After so many seconds ContextCollector stops waiting and records a Gap."""

    async def collect(self, scope: Scope) -> Telemetry:
        """All this source has to say on the scope, over incident and baseline windows.

        Raises CollectorError only if nothing at all could be read; what is missing in part is a Gap in the answer.
        """

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The same metrics again over a later window; a metric without points is left out.

        Raises CollectorError.
        """

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Which questions ``read`` answers; metrics are read by ``measure``."""

    async def read(self, question: LogsRead | TraceRead, scope: Scope) -> Telemetry:
        """What one question finds: log lines over incident and baseline windows, or the spans of a trace.

        Bounded as a collection is, within ``scope.within_s``. Raises CollectorError; Refused for what is not in
        ``reads``.
        """

    async def check(self) -> list[Check]:
        """Whether it would work: reachable, credentials, each permission it needs, clock skew, a sample query.

        Reads as little as possible and never raises CollectorError: what fails is a Check with its mend.
        """

    async def aclose(self) -> None:
        """Release connections."""


def utc(moment: float | datetime) -> datetime:
    """Epoch seconds, or any aware datetime, as UTC datetime."""
    from datetime import UTC

    return datetime.fromtimestamp(moment, UTC) if isinstance(moment, float | int) else moment.astimezone(UTC)


MAX_TEMPLATE = 160  # characters: the fixed part of a message stands at its start
_VARIABLE = re.compile(
    r"\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}\b"  # UUID
    r"|\b0x[0-9a-fA-F]+\b"
    r"|\b(?=[0-9a-fA-F]*\d)[0-9a-fA-F]{8,}\b"  # trace ids, hashes
    r"|\d+(?:[.,:]\d+)*"
)
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")


def template(message: str) -> str:
    """The first line of a message with its variable parts masked: what equal log lines have in common."""
    return _masked(message[: 2 * MAX_TEMPLATE].partition("\n")[0])


@lru_cache(maxsize=8192)
def _masked(text: str) -> str:
    return _VARIABLE.sub("<*>", _QUOTED.sub("<*>", text))[:MAX_TEMPLATE]


_LEVELS: Mapping[str, Level] = {
    **dict.fromkeys(("debug", "trace", "verbose", "fine", "finer", "finest"), "debug"),
    **dict.fromkeys(("warn", "warning", "wrn"), "warning"),
    **dict.fromkeys(("error", "err", "eror", "severe"), "error"),
    **dict.fromkeys(("critical", "crit", "fatal", "alert", "emergency", "emerg", "panic", "dpanic"), "critical"),
}


def level_of(word: str) -> Level:
    """A logger's word for how bad a line is, in any case; a word that nobody knows is info."""
    return _LEVELS.get(word.strip().lower(), "info")
