"""The CloudWatch alarm that was raised: what it watches, its threshold, and the alarms below a composite one."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

from collectors._jobs import Job, Part
from collectors.aws import cloudwatch
from collectors.aws._calls import Asked, Clients, call, console
from collectors.base import Clock, CollectorError, GapReason, Scope, SeriesRef, Status, utc

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.literals import AlarmTypeType
    from mypy_boto3_cloudwatch.type_defs import (
        CompositeAlarmTypeDef,
        DescribeAlarmsOutputTypeDef,
        LogAlarmTypeDef,
        MetricAlarmTypeDef,
        MetricDataQueryTypeDef,
    )

ARN = re.compile(r"arn:aws[a-z-]*:cloudwatch:([a-z0-9-]+):\d{12}:alarm:(.+)", re.DOTALL)
TYPES: "Sequence[AlarmTypeType]" = ("MetricAlarm", "CompositeAlarm", "LogAlarm")  # unasked, only metric alarms come
CHILDREN = 50  # of a composite alarm that are looked at; those in ALARM come first
LEVELS = 3  # of composite alarms below each other
_SIGNS = {
    "GreaterThanOrEqualToThreshold": ">=",
    "GreaterThanThreshold": ">",
    "LessThanThreshold": "<",
    "LessThanOrEqualToThreshold": "<=",
}


def jobs(clients: Clients, clock: Clock, scope: Scope) -> Iterator[tuple[str, Job]]:
    """The alarm, if it was one of CloudWatch's."""
    if scope.symptom.source == "cloudwatch":
        yield "the CloudWatch alarm", partial(_alarm, clients, clock, scope)


async def _alarm(clients: Clients, clock: Clock, scope: Scope, part: Part) -> None:
    asked = ARN.search(scope.symptom.rule)
    name = asked[2] if asked else scope.symptom.title  # a very long ARN is known by its hash only
    region = clients.cloudwatch.meta.region_name
    if asked and asked[1] != region:
        mend = f"read {asked[1]} with a process whose AUTOPILOT_AWS_REGION it is"
        part.gap(GapReason.NOT_CONFIGURED, f"the alarm {name} is in {asked[1]}, only {region} is read", mend)
        return
    refs: dict[str, SeriesRef] = {}
    for alarm in await _metric_alarms(clients, clock.now(), scope, part, name):
        part.keep(_threshold(scope.service, alarm, clock.now()))
        for ref in _watched(scope.service, alarm, cloudwatch.finest_of(clock, scope)):
            refs[ref.query] = ref
    for known in cloudwatch.series_refs(scope.targets, cloudwatch.finest_of(clock, scope)):
        refs.pop(known.query, None)  # it is read anyway
    if refs:
        await cloudwatch.collect(clients, clock, scope, list(refs.values()), part)


# --- which alarms -------------------------------------------------------------------------------------------


async def _metric_alarms(
    clients: Clients, now: datetime, scope: Scope, part: Part, name: str
) -> "list[MetricAlarmTypeDef]":
    """The alarm itself, or those below it. What it says of itself is kept. Raises CollectorError."""
    names, found = [name], list["MetricAlarmTypeDef"]()
    for _ in range(LEVELS):
        answer = await _described(clients, scope, part, names)
        found += answer.get("MetricAlarms", [])
        part.keep(_log_threshold(scope.service, alarm, now) for alarm in answer.get("LogAlarms", []))
        composites = answer.get("CompositeAlarms", [])
        part.keep(_rule(scope.service, alarm, now) for alarm in composites)
        names = [child for alarm in composites for child in await _children(clients, part, alarm)][:CHILDREN]
        if not names:
            break
    if not (found or part.statuses):
        part.gap(GapReason.EMPTY, f"CloudWatch knows no alarm {name}", "check AUTOPILOT_AWS_REGION and its account")
    return found


async def _described(clients: Clients, scope: Scope, part: Part, names: Sequence[str]) -> "DescribeAlarmsOutputTypeDef":
    page = "#alarmsV2:" if names[1:] else f"#alarmsV2:alarm/{quote(names[0], safe='')}"
    link = console(clients.cloudwatch, f"cloudwatch/home?region={{region}}{page}")
    asked = Asked(f"cloudwatch describe-alarms --alarm-names {' '.join(names)}", scope.incident, link, kind="statuses")
    describe = partial(clients.cloudwatch.describe_alarms, AlarmNames=names, AlarmTypes=TYPES, MaxRecords=100)
    answer = await call(part, "cloudwatch:DescribeAlarms", describe)
    rows = (answer.get(kind, []) for kind in ("MetricAlarms", "CompositeAlarms", "LogAlarms"))
    asked.note(part, sum(len(cast("list[object]", row)) for row in rows))
    return answer


async def _children(clients: Clients, part: Part, alarm: "CompositeAlarmTypeDef") -> list[str]:
    """Names of the alarms directly below, those in ALARM first; their definitions are not in this answer."""
    describe = partial(clients.cloudwatch.describe_alarms, ChildrenOfAlarmName=alarm.get("AlarmName", ""))
    answer = await call(part, "cloudwatch:DescribeAlarms", describe)
    rows: Iterable[Mapping[str, object]] = (*answer.get("MetricAlarms", []), *answer.get("CompositeAlarms", []))
    first = sorted(rows, key=lambda row: row.get("StateValue") != "ALARM")
    if answer.get("NextToken"):
        part.gap(GapReason.TRUNCATED, f"only {len(first)} alarms below {alarm.get('AlarmName', '')} were looked at")
    return [str(row["AlarmName"]) for row in first if row.get("AlarmName")]


# --- what they say ------------------------------------------------------------------------------------------


def _threshold(component: str, alarm: "MetricAlarmTypeDef", now: datetime) -> Iterator[Status]:
    """The limit that the owner drew; an expected band has no one number.

    It is context: the alarm's series says how far beyond it things are.
    """
    if "Threshold" not in alarm:
        return
    sign = _SIGNS.get(alarm.get("ComparisonOperator", ""), "beyond")
    of = alarm.get("EvaluationPeriods", 1)
    condition = f"{alarm.get('MetricName') or 'metric math'} {sign} {alarm['Threshold']:g}"
    yield _said(
        component,
        "cloudwatch.alarm_threshold",
        alarm,
        now,
        alarm["Threshold"],
        f"{condition} for {alarm.get('DatapointsToAlarm', of)} of {of} datapoints",
    )


def _log_threshold(component: str, alarm: "LogAlarmTypeDef", now: datetime) -> Status:
    query = alarm.get("ScheduledQueryConfiguration", {})
    condition = str(query.get("QueryString", ""))
    return _said(component, "cloudwatch.log_alarm_threshold", alarm, now, alarm.get("Threshold", 0.0), condition)


def _rule(component: str, alarm: "CompositeAlarmTypeDef", now: datetime) -> Status:
    raised = float(alarm.get("StateValue") == "ALARM")
    return _said(component, "cloudwatch.composite_alarm", alarm, now, raised, alarm.get("AlarmRule", ""))


def _said(
    component: str,
    name: str,
    alarm: "MetricAlarmTypeDef | LogAlarmTypeDef | CompositeAlarmTypeDef",
    now: datetime,
    observed: float,
    condition: str,
) -> Status:
    told = (alarm.get("AlarmName", ""), alarm.get("StateValue", ""), condition, alarm.get("StateReason", ""))
    return Status(
        component=component,
        name=name,
        at=utc(alarm.get("StateUpdatedTimestamp", now)),
        observed=observed,
        detail="; ".join(filter(None, told))[:1000],
    )


# --- what they watch ----------------------------------------------------------------------------------------


def _watched(component: str, alarm: "MetricAlarmTypeDef", finest_s: int) -> Iterator[SeriesRef]:
    """The metric, or the metric math, that is held against the threshold. Raises CollectorError."""
    if alarm.get("MetricName"):
        yield cloudwatch.ref_of_metric(component, _plain(alarm, finest_s), alarm.get("Unit", ""))
        return
    band = alarm.get("ThresholdMetricId", "")
    entries = [cast("MetricDataQueryTypeDef", q) for q in alarm.get("Metrics", []) if q.get("Id") != band]
    watched = next((query for query in entries if query.get("ReturnData", True)), None)
    if watched is None:
        raise CollectorError(f"the alarm {alarm.get('AlarmName', '')} watches nothing that can be read")
    queries = [_entry(query, finest_s, shown=query is watched) for query in entries]
    if "MetricStat" in watched:
        [shown] = [query for query in queries if query["ReturnData"]]
        yield cloudwatch.ref_of_metric(component, {"Id": "m", "MetricStat": shown["MetricStat"]})
    else:
        name = watched.get("Label") or alarm.get("AlarmName", "")
        yield cloudwatch.ref_of_math(component, name, queries)


def _plain(alarm: "MetricAlarmTypeDef", finest_s: int) -> "MetricDataQueryTypeDef":
    dimensions = sorted(alarm.get("Dimensions", []), key=lambda d: d["Name"])
    query: MetricDataQueryTypeDef = {
        "Id": "m",
        "MetricStat": {
            "Metric": {
                "Namespace": alarm.get("Namespace", ""),
                "MetricName": alarm.get("MetricName", ""),
                "Dimensions": dimensions,
            },
            "Period": max(alarm.get("Period", 0), finest_s),
            "Stat": alarm.get("Statistic") or alarm.get("ExtendedStatistic") or "Average",
        },
    }
    return query


def _entry(query: "MetricDataQueryTypeDef", finest_s: int, *, shown: bool) -> "MetricDataQueryTypeDef":
    """A part of metric math as GetMetricData takes it, no finer than what is still kept."""
    entry: MetricDataQueryTypeDef = {**query, "ReturnData": shown}
    if "MetricStat" in query:
        stat = query["MetricStat"]
        entry["MetricStat"] = {**stat, "Period": max(stat["Period"], finest_s)}
    elif "Period" in query:
        entry["Period"] = max(query["Period"], finest_s)
    return entry


def permissions(clients: Clients, now: datetime) -> "Iterator[tuple[str, partial[DescribeAlarmsOutputTypeDef]]]":
    """The cheapest call for each IAM action."""
    yield "cloudwatch:DescribeAlarms", partial(clients.cloudwatch.describe_alarms, AlarmTypes=TYPES, MaxRecords=1)
