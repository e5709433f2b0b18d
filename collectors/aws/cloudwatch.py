"""CloudWatch metrics: the alarm's own, and those of whatever AWS runs for each service."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple

from collectors._jobs import Job, Part
from collectors._windows import concatenated, joined, whole_periods
from collectors.aws._calls import Asked, Clients, call, console
from collectors.base import (
    Clock,
    CollectorError,
    GapReason,
    Scope,
    Series,
    SeriesRef,
    Target,
    Window,
    utc,
)

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import (
        GetMetricDataInputTypeDef,
        GetMetricDataOutputTypeDef,
        MetricDataQueryTypeDef,
        MetricDataResultTypeDef,
    )

PERIOD_S = 60
QUERIES_PER_CALL = 500
POINTS_PER_CALL = 100_800
PAGES = 20
KEPT = ((timedelta(days=15), 60), (timedelta(days=63), 300))  # how long CloudWatch keeps points of which period
COARSEST_S = 3600


# --- what is worth reading of which resource ---------------------------------------------------------------


class _Metric(NamedTuple):
    """``traffic`` is the metric that says whether there was anything to count, where a count of 0 is not reported."""

    name: str
    stat: str
    unit: str = ""
    traffic: str = ""


class _Kind(NamedTuple):
    """A kind of resource. ``prefix`` keeps its metrics apart from those of the same name elsewhere."""

    namespace: str
    prefix: str
    metrics: tuple[_Metric, ...]


_ECS = _Kind(
    "AWS/ECS",
    "",
    (_Metric("CPUUtilization", "Average", "%"), _Metric("MemoryUtilization", "Average", "%")),
)
_TARGET_GROUP = _Kind(
    "AWS/ApplicationELB",
    "",
    (
        _Metric("RequestCount", "Sum"),
        _Metric("HTTPCode_Target_5XX_Count", "Sum", traffic="RequestCount"),
        _Metric("TargetResponseTime", "p95", "s"),
        _Metric("HealthyHostCount", "Minimum"),
        _Metric("UnHealthyHostCount", "Maximum"),
        _Metric("TargetConnectionErrorCount", "Sum", traffic="RequestCount"),
    ),
)
_DATABASE = (
    _Metric("CPUUtilization", "Average", "%"),
    _Metric("DatabaseConnections", "Average"),
    _Metric("FreeableMemory", "Minimum", "B"),
    _Metric("ReadLatency", "Average", "s"),
    _Metric("WriteLatency", "Average", "s"),
    _Metric("DiskQueueDepth", "Average"),
)
_RDS_INSTANCE = _Kind(
    "AWS/RDS",
    "RDS.",
    (
        *_DATABASE,
        _Metric("FreeStorageSpace", "Minimum", "B"),
        _Metric("SwapUsage", "Average", "B"),
        _Metric("ReadIOPS", "Average", "/s"),
        _Metric("WriteIOPS", "Average", "/s"),
        _Metric("ReplicaLag", "Maximum", "s"),
    ),
)
_RDS_CLUSTER = _Kind(
    "AWS/RDS",
    "RDS.",
    (
        *_DATABASE,
        _Metric("Deadlocks", "Average", "/s"),
        _Metric("FreeLocalStorage", "Minimum", "B"),
        _Metric("AuroraReplicaLag", "Maximum", "ms"),
    ),
)
_ELASTICACHE = _Kind(
    "AWS/ElastiCache",
    "ElastiCache.",
    (
        _Metric("CPUUtilization", "Average", "%"),
        _Metric("EngineCPUUtilization", "Average", "%"),
        _Metric("DatabaseMemoryUsagePercentage", "Average", "%"),
        _Metric("CurrConnections", "Average"),
        _Metric("Evictions", "Sum"),
        _Metric("CacheHits", "Sum"),
        _Metric("CacheMisses", "Sum"),
        _Metric("ReplicationLag", "Maximum", "s"),
    ),
)
_LAMBDA = _Kind(
    "AWS/Lambda",
    "Lambda.",
    (
        _Metric("Invocations", "Sum"),
        _Metric("Errors", "Sum", traffic="Invocations"),
        _Metric("Throttles", "Sum", traffic="Invocations"),
        _Metric("Duration", "p95", "ms"),
        _Metric("ConcurrentExecutions", "Maximum"),
    ),
)
_SQS_BACKLOG = _Kind(
    "AWS/SQS",
    "SQS.Queue.",
    (
        _Metric("ApproximateNumberOfMessagesVisible", "Maximum"),
        _Metric("ApproximateAgeOfOldestMessage", "Maximum", "s"),
    ),
)
_SQS_FLOW = _Kind(
    "AWS/SQS",
    "SQS.",
    (_Metric("NumberOfMessagesSent", "Sum"), _Metric("NumberOfMessagesDeleted", "Sum")),
)
_KINDS = (_ECS, _TARGET_GROUP, _RDS_INSTANCE, _RDS_CLUSTER, _ELASTICACHE, _LAMBDA, _SQS_BACKLOG, _SQS_FLOW)
_KNOWN = {(kind.namespace, metric.name): (kind, metric) for kind in _KINDS for metric in kind.metrics}
_PREFIXES = {kind.namespace: kind.prefix for kind in _KINDS}
_STATISTICS = {"Average": "avg", "Sum": "sum", "Minimum": "min", "Maximum": "max"}
_UNITS = {"Percent": "%", "Seconds": "s", "Milliseconds": "ms", "Microseconds": "us", "Bytes": "B"}


def series_refs(targets: Iterable[Target], period_s: int = PERIOD_S) -> list[SeriesRef]:
    """What is read of each target, in the order of the targets."""
    return list(
        dict.fromkeys(
            _ref(
                target.service, kind.prefix + metric.name, metric.unit, _stat_query(kind, metric, dimensions, period_s)
            )
            for target in targets
            for kind, dimensions in _resources(target)
            for metric in kind.metrics
        )
    )


def _resources(target: Target) -> Iterator[tuple[_Kind, dict[str, str]]]:
    """The kinds of resource that run the service, with their CloudWatch dimensions."""
    if target.ecs:
        cluster, service = (name.rpartition("/")[2] for name in (target.ecs.cluster, target.ecs.service))  # or ARNs
        yield _ECS, {"ClusterName": cluster, "ServiceName": service}
    if target.target_group and target.load_balancer:
        yield _TARGET_GROUP, {"TargetGroup": target.target_group, "LoadBalancer": target.load_balancer}
    for name in target.aws.rds_instances:
        yield _RDS_INSTANCE, {"DBInstanceIdentifier": name}
    for name in target.aws.rds_clusters:
        for role in ("WRITER", "READER"):  # after a failover they are other instances, but the same roles
            yield _RDS_CLUSTER, {"DBClusterIdentifier": name, "Role": role}
    for name in target.aws.elasticache_clusters:
        yield _ELASTICACHE, {"CacheClusterId": name}
    for name in target.aws.lambda_functions:
        yield _LAMBDA, {"FunctionName": name}
    for name in target.aws.sqs_queues:
        yield _SQS_BACKLOG, {"QueueName": name}
        yield _SQS_FLOW, {"QueueName": name}


def _stat_query(kind: _Kind, metric: _Metric, dimensions: Mapping[str, str], period_s: int) -> "MetricDataQueryTypeDef":
    return {
        "Id": "m",
        "MetricStat": {
            "Metric": {
                "Namespace": kind.namespace,
                "MetricName": metric.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in sorted(dimensions.items())],
            },
            "Period": period_s,
            "Stat": metric.stat,
        },
    }


def _ref(
    component: str, name: str, unit: str, query: "MetricDataQueryTypeDef | Sequence[MetricDataQueryTypeDef]"
) -> SeriesRef:
    stat = query["MetricStat"]["Stat"] if isinstance(query, dict) and "MetricStat" in query else ""
    return SeriesRef(
        source="aws",
        component=component,
        metric=name,
        statistic=_STATISTICS.get(stat, stat or "avg"),
        unit=unit,
        query=json.dumps(query, sort_keys=True),
    )


def ref_of_metric(component: str, query: "MetricDataQueryTypeDef", unit: str = "") -> SeriesRef:
    """The ref of a query of one metric. One that is read anyway has the name it has there.

    ``unit`` as CloudWatch spells it, e.g. Milliseconds.
    """
    metric = query["MetricStat"]["Metric"]
    namespace, name = metric.get("Namespace", ""), metric.get("MetricName", "")
    known = _KNOWN.get((namespace, name))
    prefix = known[0].prefix if known else _PREFIXES.get(namespace, f"{namespace.removeprefix('AWS/')}.")
    return _ref(component, prefix + name, _UNITS.get(unit, known[1].unit if known else ""), query)


def ref_of_math(component: str, name: str, queries: "Sequence[MetricDataQueryTypeDef]") -> SeriesRef:
    """The ref of metric math: all queries it is made of, one of which returns data."""
    return _ref(component, name, "", queries)


def finest_s(oldest: datetime, now: datetime) -> int:
    """Seconds of the finest period that CloudWatch still keeps of that time."""
    return next((period_s for kept, period_s in KEPT if now - oldest < kept), COARSEST_S)


# --- reading ------------------------------------------------------------------------------------------------


def jobs(clients: Clients, clock: Clock, scope: Scope) -> Iterator[tuple[str, Job]]:
    """The metrics of all targets that the catalogue ties to AWS."""
    refs = series_refs(scope.targets, finest_of(clock, scope))
    if refs:
        yield "CloudWatch metrics", partial(_collect_all, clients, clock, scope, refs)


async def _collect_all(clients: Clients, clock: Clock, scope: Scope, refs: Sequence[SeriesRef], part: Part) -> None:
    """A job: raises CollectorError. A resource that always reports, but has not, may go by another name."""
    await collect(clients, clock, scope, refs, part)
    if any(gap.reason != GapReason.EMPTY for gap in part.gaps):  # why there is nothing is told already
        return
    reported = {series.ref.query for series in part.series}
    silent = [name for name, queries in _always_there(scope.targets, finest_of(clock, scope)) if not queries & reported]
    if silent:
        mend = "check the names under ecs:, load_balancer: and aws: in the catalogue"
        part.gap(GapReason.EMPTY, f"CloudWatch has no metric of {', '.join(silent)}"[:300], mend)


def _always_there(targets: Iterable[Target], period_s: int) -> Iterator[tuple[str, set[str]]]:
    """What reports every minute, with its queries. Functions and queues that rest report nothing."""
    for target in targets:
        for kind, dimensions in _resources(target):
            if kind in (_ECS, _TARGET_GROUP, _RDS_INSTANCE, _ELASTICACHE) or dimensions.get("Role") == "WRITER":
                name = f"{kind.namespace} {'/'.join(v for k, v in dimensions.items() if k != 'Role')}"
                queries = (_stat_query(kind, metric, dimensions, period_s) for metric in kind.metrics)
                yield name, {json.dumps(query, sort_keys=True) for query in queries}


def finest_of(clock: Clock, scope: Scope) -> int:
    """Seconds of the finest period that is still kept of the incident and the time before."""
    return finest_s(min(w.start for w in _near(scope)), clock.now())


def _near(scope: Scope) -> list[Window]:
    return joined((scope.incident, *scope.baseline))


async def collect(clients: Clients, clock: Clock, scope: Scope, refs: Sequence[SeriesRef], part: Part) -> None:
    """Keep the series over incident and baseline, then add the same hours of other days. Raises CollectorError."""
    part.keep(await read(clients, part, refs, _near(scope)))
    seasonal = _still_kept(clock, scope, part)
    if not part.series or not seasonal:
        return
    before = {one.ref: one for one in await read(clients, part, [one.ref for one in part.series], seasonal)}
    part.series[:] = [concatenated([before[s.ref], s]) if s.ref in before else s for s in part.series]


def _still_kept(clock: Clock, scope: Scope, part: Part) -> list[Window]:
    """The seasonal windows of which there are points as fine as those of the incident: sums must be comparable."""
    period_s, now = finest_of(clock, scope), clock.now()
    kept = [w for w in scope.seasonal if finest_s(w.start, now) <= period_s]
    if len(kept) < len(scope.seasonal):
        days = ", ".join(f"{w.start:%d %b}" for w in scope.seasonal if w not in kept)
        part.gap(GapReason.EMPTY, f"CloudWatch keeps no points of {period_s} s any more of the same hours on {days}")
    return kept


async def read(clients: Clients, part: Part, refs: Sequence[SeriesRef], windows: Sequence[Window]) -> list[Series]:
    """The series that have points. A count that is reported only when above 0 gets its zeros back.

    Raises CollectorError.
    """
    traffic = {ref: busy for ref in refs if (busy := _traffic_of(ref))}
    asked = [_question(ref) for ref in dict.fromkeys([*refs, *traffic.values()])]
    pieces: dict[SeriesRef, list[Series]] = {}
    for window in windows:
        for batch in _batches(asked, window):
            for series in await _read_batch(clients, part, batch, window):
                pieces.setdefault(series.ref, []).append(series)
    whole = {ref: concatenated(found) for ref, found in pieces.items()}
    for ref, requests in traffic.items():
        if requests in whole:
            zeros = Series(ref=ref, epoch_s=whole[requests].epoch_s, values=(0.0,) * len(whole[requests].values))
            whole[ref] = concatenated([zeros, whole[ref]] if ref in whole else [zeros])
    return [whole[ref] for ref in refs if ref in whole]


class _Question(NamedTuple):
    """A ref, and what to ask for it: one metric, or metric math with all that it is made of."""

    ref: SeriesRef
    queries: "tuple[MetricDataQueryTypeDef, ...]"

    @property
    def is_math(self) -> bool:
        """Its ids, and functions such as METRICS(), speak of the whole request: it is asked alone."""
        return len(self.queries) > 1 or "Expression" in self.queries[0]

    @property
    def period_s(self) -> int:
        """Seconds."""
        periods = (q["MetricStat"]["Period"] if "MetricStat" in q else q.get("Period", 0) for q in self.queries)
        return max((*periods, 0)) or PERIOD_S


def _question(ref: SeriesRef) -> _Question:
    """Raises CollectorError if the text is no query of CloudWatch."""
    try:
        stored = json.loads(ref.query)
        queries = tuple(dict(query) for query in (stored if isinstance(stored, list) else [stored]))
        question = _Question(ref, queries)  # type: ignore[arg-type]  # botocore checks what is sent
        if queries and question.period_s > 0:
            return question
    except (ValueError, TypeError, LookupError, AttributeError):
        pass
    raise CollectorError(f"this is no CloudWatch query: {ref.query[:200]}")


def _traffic_of(ref: SeriesRef) -> SeriesRef | None:
    """The metric that says when a missing count is 0; None where CloudWatch reports zeros itself."""
    [*queries] = _question(ref).queries
    if len(queries) != 1 or "MetricStat" not in queries[0]:
        return None
    metric = queries[0]["MetricStat"]["Metric"]
    kind, known = _KNOWN.get((metric.get("Namespace", ""), metric.get("MetricName", "")), (None, None))
    if kind is None or known is None or not known.traffic:
        return None
    query = ref.query.replace(f'"MetricName": "{known.name}"', f'"MetricName": "{known.traffic}"')
    return ref.model_copy(update={"metric": kind.prefix + known.traffic, "query": query})


def _batches(questions: Sequence[_Question], window: Window) -> Iterator[list[_Question]]:
    """As many queries per call as the limits on queries and on points allow; one period, or one piece of math each."""
    by_period: dict[int, list[_Question]] = {}
    for question in questions:
        if not question.is_math:
            by_period.setdefault(question.period_s, []).append(question)
    for period_s, alike in by_period.items():
        points = max((window.end - window.start).total_seconds() / period_s, 1)
        size = max(1, min(QUERIES_PER_CALL, int(POINTS_PER_CALL / points)))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]
    yield from ([question] for question in questions if question.is_math)


@dataclass
class _Result:
    """All that came for one query, page by page."""

    code: str = "Complete"
    label: str | None = None
    others: set[str] = field(default_factory=set)  # labels of further series of the same query
    points: dict[float, float] = field(default_factory=dict)
    odd: int = 0

    def take(self, result: "MetricDataResultTypeDef", window: Window) -> None:
        """Take one page in."""
        self.code = result.get("StatusCode", "Complete")
        label = result.get("Label", "")
        if self.label is None:
            self.label = label
        if label != self.label:
            self.others.add(label)
            return
        for at, value in zip(result.get("Timestamps", []), result.get("Values", []), strict=False):
            if window.start <= at < window.end and isfinite(value):
                self.points[at.timestamp()] = value
            else:
                self.odd += 1


async def _read_batch(clients: Clients, part: Part, batch: Sequence[_Question], window: Window) -> list[Series]:
    whole = whole_periods(window, batch[0].period_s)
    asked = [Asked(q.ref.query, whole, _graph(clients, q, whole), kind="metrics") for q in batch]
    ids, queries = _with_ids(batch)
    results = await _pages(clients, part, queries, whole)
    found: list[Series] = []
    for question, one, query_id in zip(batch, asked, ids, strict=True):
        result = results.get(query_id, _Result())
        one.note(part, len(result.points), truncated=result.code == "PartialData")
        _note_gaps(part, question.ref, result)
        if result.points:
            epoch_s = tuple(sorted(result.points))
            found.append(Series(ref=question.ref, epoch_s=epoch_s, values=tuple(result.points[t] for t in epoch_s)))
    return found


def _with_ids(batch: Sequence[_Question]) -> "tuple[list[str], list[MetricDataQueryTypeDef]]":
    """The id under which each question's answer comes, and all queries."""
    if batch[0].is_math:
        shown = [q["Id"] for q in batch[0].queries if q.get("ReturnData", True)]
        return shown[:1] or [""], list(batch[0].queries)
    ids = [f"m{index}" for index in range(len(batch))]
    return ids, [{**question.queries[0], "Id": name} for name, question in zip(ids, batch, strict=True)]


async def _pages(
    clients: Clients, part: Part, queries: "Sequence[MetricDataQueryTypeDef]", window: Window
) -> dict[str, _Result]:
    results: dict[str, _Result] = {}
    token = ""
    for _ in range(PAGES):
        answer = await call(part, "cloudwatch:GetMetricData", partial(_page, clients, queries, window, token))
        for result in answer["MetricDataResults"]:
            results.setdefault(result.get("Id", ""), _Result()).take(result, window)
        for message in answer.get("Messages", []):
            part.gap(GapReason.TRUNCATED, f"CloudWatch: {message.get('Code', '')} {message.get('Value', '')}"[:300])
        token = answer.get("NextToken", "")
        if not token:
            return results
    part.gap(GapReason.TRUNCATED, f"CloudWatch has more than {PAGES} pages of metrics; the rest was not read")
    return results


def _page(
    clients: Clients, queries: "Sequence[MetricDataQueryTypeDef]", window: Window, token: str
) -> "GetMetricDataOutputTypeDef":
    request: GetMetricDataInputTypeDef = {
        "MetricDataQueries": queries,
        "StartTime": window.start,
        "EndTime": window.end,
        "ScanBy": "TimestampAscending",
    }
    if token:
        request["NextToken"] = token
    return clients.cloudwatch.get_metric_data(**request)


def _note_gaps(part: Part, ref: SeriesRef, result: _Result) -> None:
    """What CloudWatch says it held back, and what could not be used."""
    about = f"{ref.metric} of {ref.component}"
    if result.code == "PartialData":
        part.gap(GapReason.TRUNCATED, f"CloudWatch answered {about} in part")
    elif result.code == "Forbidden":
        mend = "allow the role the action cloudwatch:GetMetricData"
        part.gap(GapReason.FORBIDDEN, f"CloudWatch refused {about}", mend)
    elif result.code != "Complete":
        part.gap(GapReason.FAILED, f"CloudWatch failed on {about}: {result.code}")
    if result.odd:
        part.gap(GapReason.FAILED, f"{result.odd} points were not understood: {about}")
    if result.others:
        part.gap(GapReason.TRUNCATED, f"{about} is {len(result.others) + 1} series; only {result.label!r} was kept")


# --- links --------------------------------------------------------------------------------------------------


def _graph(clients: Clients, question: _Question, window: Window) -> str | None:
    """The console's graph of one metric; None for metric math."""
    if question.is_math or "MetricStat" not in question.queries[0]:
        return None
    stat = question.queries[0]["MetricStat"]
    metric = stat["Metric"]
    dimensions = [text for d in metric.get("Dimensions", []) for text in (d["Name"], d["Value"])]
    parts = [metric.get("Namespace", ""), metric.get("MetricName", ""), *dimensions]
    graph = (
        f"~(metrics~(~(~{'~'.join(map(_quoted, parts))}))~view~'timeSeries~stacked~false"
        f"~stat~{_quoted(stat['Stat'])}~period~{stat['Period']}"
        f"~start~{_quoted(_iso(window.start))}~end~{_quoted(_iso(window.end))}"
        f"~region~{_quoted(clients.cloudwatch.meta.region_name)})"
    )
    return console(clients.cloudwatch, f"cloudwatch/home?region={{region}}#metricsV2:graph={graph}")


def _quoted(text: str) -> str:
    """A text in the console's own encoding of a graph, which has ``*2f`` for a slash."""

    def escaped(found: re.Match[str]) -> str:
        code = ord(found[0])
        return f"*{code:02x}" if code < 256 else f"**{code:04x}"

    return "'" + re.sub(r"[^\w.-]", escaped, text, flags=re.ASCII)


def _iso(moment: datetime) -> str:
    return utc(moment).strftime("%Y-%m-%dT%H:%M:%S.000Z")


# --- permissions --------------------------------------------------------------------------------------------


def permissions(clients: Clients, now: datetime) -> "Iterator[tuple[str, partial[GetMetricDataOutputTypeDef]]]":
    """The cheapest call for each IAM action."""
    sample = _stat_query(_ECS, _ECS.metrics[0], {}, PERIOD_S)
    window = whole_periods(Window(start=now - timedelta(minutes=5), end=now), PERIOD_S)
    yield "cloudwatch:GetMetricData", partial(_page, clients, [sample], window, "")
