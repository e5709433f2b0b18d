"""Amazon CloudWatch, AWS JSON 1.0: metrics of ECS services and target groups, and a few alarms."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_pascal

from app.simulator.aws_errors import AwsError
from app.simulator.loads import Load
from app.simulator.shop import TICK_S, Shop, Tick
from app.simulator.topology import ACCOUNT, CLUSTER, LOAD_BALANCER, REGION, SERVICES, ServiceSpec

Json = dict[str, object]
Operation = Callable[[Json, float], Json]
Dimensions = frozenset[tuple[str, str]]

TARGET_PREFIX = "GraniteServiceVersion20100801."
PAGE = 100_800  # data points per call
MOST_QUERIES = 500
ALARM_TICKS = 6  # an alarm looks at one minute
ALARMING_5XX = 150.0  # a minute
ALARM_TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:alarms"


@dataclass(frozen=True)
class _Metric:
    """``value`` of one tick; ``sums`` if values of a period add up, as counts do."""

    namespace: str
    name: str
    value: Callable[[Load], float]
    unit: str
    sums: bool = False


_ECS = (
    _Metric("AWS/ECS", "CPUUtilization", lambda load: load.cpu_percent, "Percent"),
    _Metric("AWS/ECS", "MemoryUtilization", lambda load: load.memory_percent, "Percent"),
)
_ELB = (
    _Metric("AWS/ApplicationELB", "RequestCount", lambda load: TICK_S * load.requests_per_s, "Count", sums=True),
    _Metric(
        "AWS/ApplicationELB",
        "HTTPCode_Target_5XX_Count",
        lambda load: TICK_S * load.requests_per_s * load.error_ratio,
        "Count",
        sums=True,
    ),
    _Metric("AWS/ApplicationELB", "TargetResponseTime", lambda load: load.p95_ms_told / 1000.0, "Seconds"),
    _Metric("AWS/ApplicationELB", "HealthyHostCount", lambda load: float(load.healthy), "Count"),
    _Metric("AWS/ApplicationELB", "UnHealthyHostCount", lambda load: float(load.running - load.healthy), "Count"),
)
# The shop knows the 95th percentile; other percentiles of a long-tailed distribution lie about here.
_OF_P95 = {"Average": 0.42, "Minimum": 0.1, "Maximum": 1.6, "p50": 0.36, "p90": 0.8, "p99": 1.35}


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, populate_by_name=True, extra="ignore")


class _Dimension(_Model):
    name: str
    value: str | None = None


class _MetricRef(_Model):
    namespace: str
    metric_name: str
    dimensions: list[_Dimension] = []


class _MetricStat(_Model):
    metric: _MetricRef
    period: int = Field(ge=1)
    stat: str


class _Query(_Model):
    id: str
    metric_stat: _MetricStat | None = None
    expression: str | None = None
    label: str | None = None
    return_data: bool = True


class _GetMetricData(_Model):
    metric_data_queries: list[_Query]
    start_time: float
    end_time: float
    scan_by: str = "TimestampDescending"
    next_token: str | None = None
    max_datapoints: int = PAGE


class _ListMetrics(_Model):
    namespace: str | None = None
    metric_name: str | None = None
    dimensions: list[_Dimension] = []


class _DescribeAlarms(_Model):
    alarm_names: list[str] = []
    alarm_name_prefix: str = ""
    alarm_types: list[str] = ["MetricAlarm"]
    state_value: str | None = None


class CloudWatchApi:
    """CloudWatch in front of the shop. Operations take the request and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._series: dict[tuple[str, str, Dimensions], tuple[ServiceSpec, _Metric]] = {
            (metric.namespace, metric.name, dimensions): (spec, metric)
            for spec in SERVICES.values()
            for metric, dimensions in _metrics_of(spec)
        }
        self.operations: Mapping[str, Operation] = {
            "GetMetricData": self._get_metric_data,
            "ListMetrics": self._list_metrics,
            "DescribeAlarms": self._describe_alarms,
        }

    def _get_metric_data(self, body: Json, at: float) -> Json:
        request = _GetMetricData.model_validate(body)
        if len(request.metric_data_queries) > MOST_QUERIES:
            raise AwsError("ValidationError", f"At most {MOST_QUERIES} queries are allowed.")
        if request.start_time >= request.end_time:
            raise AwsError("ValidationError", "The parameter StartTime must be less than the parameter EndTime.")
        offset = _offset(request.next_token)
        results = [self._result(query, request, offset) for query in request.metric_data_queries if query.return_data]
        answer: Json = {"MetricDataResults": [result for result, _ in results], "Messages": []}
        if any(more for _, more in results):
            answer["NextToken"] = str(offset + self._points_per_series(request))
        return answer

    def _points_per_series(self, request: _GetMetricData) -> int:
        budget = min(request.max_datapoints, PAGE)
        return max(budget // max(len(request.metric_data_queries), 1), 1)

    def _result(self, query: _Query, request: _GetMetricData, offset: int) -> tuple[Json, bool]:
        if query.metric_stat is None:
            raise AwsError("ValidationError", "Metric math is not available here; ask for a MetricStat.")
        points = self._points(query.metric_stat, request.start_time, request.end_time)
        if request.scan_by == "TimestampDescending":
            points.reverse()
        per_series = self._points_per_series(request)
        page = points[offset : offset + per_series]
        more = offset + per_series < len(points)
        return {
            "Id": query.id,
            "Label": query.label or query.metric_stat.metric.metric_name,
            "Timestamps": [when for when, _ in page],
            "Values": [value for _, value in page],
            "StatusCode": "PartialData" if more else "Complete",
        }, more

    def _points(self, wanted: _MetricStat, start: float, end: float) -> list[tuple[float, float]]:
        ref = wanted.metric
        dimensions = frozenset((d.name, d.value or "") for d in ref.dimensions)
        found = self._series.get((ref.namespace, ref.metric_name, dimensions))
        if found is None:
            return []
        spec, metric = found
        periods: dict[float, list[float]] = {}
        aligned = math.floor(start / wanted.period) * wanted.period
        for tick in self._shop.ticks(aligned, end):
            value = metric.value(tick.loads[spec.name])
            periods.setdefault(math.floor(tick.at / wanted.period) * wanted.period, []).append(value)
        return [(when, _statistic(metric, wanted.stat, values)) for when, values in sorted(periods.items())]

    def _list_metrics(self, body: Json, at: float) -> Json:
        request = _ListMetrics.model_validate(body)
        return {
            "Metrics": [
                {
                    "Namespace": namespace,
                    "MetricName": name,
                    "Dimensions": [{"Name": key, "Value": value} for key, value in sorted(dimensions)],
                }
                for namespace, name, dimensions in self._series
                if request.namespace in (None, namespace)
                and request.metric_name in (None, name)
                and all(_matches(wanted, dimensions) for wanted in request.dimensions)
            ]
        }

    def _describe_alarms(self, body: Json, at: float) -> Json:
        request = _DescribeAlarms.model_validate(body)
        ticks = self._shop.ticks(0.0, at)
        alarms = [rule.alarm(spec, ticks) for rule in _ALARM_RULES for spec in SERVICES.values() if spec.front]
        chosen = [
            alarm
            for alarm in alarms
            if str(alarm["AlarmName"]).startswith(request.alarm_name_prefix)
            and (not request.alarm_names or alarm["AlarmName"] in request.alarm_names)
            and request.state_value in (None, alarm["StateValue"])
        ]
        metric_alarms = chosen if "MetricAlarm" in request.alarm_types else []
        return {"MetricAlarms": metric_alarms, "CompositeAlarms": [], "LogAlarms": []}


def _offset(token: str | None) -> int:
    if token and not token.isdigit():
        raise AwsError("InvalidNextToken", "The next token is not valid.")
    return int(token or 0)


def _metrics_of(spec: ServiceSpec) -> Iterable[tuple[_Metric, Dimensions]]:
    if spec.tasks:
        for metric in _ECS:
            yield metric, frozenset({("ClusterName", CLUSTER), ("ServiceName", spec.name)})
    if spec.front:
        balancer, group = ("LoadBalancer", LOAD_BALANCER), ("TargetGroup", spec.target_group)
        for metric in _ELB:
            yield metric, frozenset({balancer, group})
            yield metric, frozenset({group})


def _matches(wanted: _Dimension, dimensions: Dimensions) -> bool:
    return any(key == wanted.name and wanted.value in (None, value) for key, value in dimensions)


def _statistic(metric: _Metric, stat: str, values: Sequence[float]) -> float:
    if stat == "SampleCount":
        return float(len(values))
    if stat == "Sum":
        return sum(values)
    if stat in ("Minimum", "Maximum") and metric.name != "TargetResponseTime":
        return min(values) if stat == "Minimum" else max(values)
    mean = sum(values) / len(values)
    return mean * _OF_P95.get(stat, 1.0) if metric.name == "TargetResponseTime" else mean


@dataclass(frozen=True)
class _AlarmRule:
    """An alarm on one metric of a target group, evaluated over one minute."""

    suffix: str
    description: str
    metric: _Metric
    stat: str
    threshold: float

    def value(self, spec: ServiceSpec, ticks: Sequence[Tick]) -> float:
        """The statistic of some ticks."""
        return _statistic(self.metric, self.stat, [self.metric.value(tick.loads[spec.name]) for tick in ticks])

    def alarm(self, spec: ServiceSpec, ticks: Sequence[Tick]) -> Json:
        """The alarm of one service, as DescribeAlarms shows it; ``ticks`` are all that is remembered."""
        ends = range(1, len(ticks) + 1)
        values = [self.value(spec, ticks[max(end - ALARM_TICKS, 0) : end]) for end in ends]
        alarming = bool(values) and values[-1] >= self.threshold
        same = next((n for n, v in enumerate(reversed(values)) if (v >= self.threshold) != alarming), len(values))
        changed = ticks[-same].at + TICK_S if ticks else 0.0
        name = f"{spec.name}-{self.suffix}"
        return {
            "AlarmName": name,
            "AlarmArn": f"arn:aws:cloudwatch:{REGION}:{ACCOUNT}:alarm:{name}",
            "AlarmDescription": self.description.format(spec.name),
            "AlarmConfigurationUpdatedTimestamp": ticks[0].at if ticks else 0.0,
            "ActionsEnabled": True,
            "OKActions": [ALARM_TOPIC],
            "AlarmActions": [ALARM_TOPIC],
            "InsufficientDataActions": [],
            "StateValue": "ALARM" if alarming else "OK" if values else "INSUFFICIENT_DATA",
            "StateReason": f"Threshold {'Crossed' if alarming else 'not crossed'}: 1 datapoint "
            f"[{values[-1] if values else 0.0:g}] against {self.threshold:g}",
            "StateUpdatedTimestamp": changed,
            "StateTransitionedTimestamp": changed,
            "Namespace": self.metric.namespace,
            "MetricName": self.metric.name,
            "Statistic": self.stat,
            "Dimensions": [
                {"Name": "LoadBalancer", "Value": LOAD_BALANCER},
                {"Name": "TargetGroup", "Value": spec.target_group},
            ],
            "Period": 60,
            "EvaluationPeriods": 1,
            "DatapointsToAlarm": 1,
            "Threshold": self.threshold,
            "ComparisonOperator": "GreaterThanOrEqualToThreshold",
            "TreatMissingData": "missing",
        }


_BY_NAME = {metric.name: metric for metric in _ELB}
_ALARM_RULES = (
    _AlarmRule(
        "unhealthy-hosts",
        "Hosts of {} that fail the load balancer's health check",
        _BY_NAME["UnHealthyHostCount"],
        "Maximum",
        1.0,
    ),
    _AlarmRule(
        "5xx", "Requests to {} that fail, per minute", _BY_NAME["HTTPCode_Target_5XX_Count"], "Sum", ALARMING_5XX
    ),
)
