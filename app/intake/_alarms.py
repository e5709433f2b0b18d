"""CloudWatch alarms, in the three spellings that AWS has for them: SNS, EventBridge, DescribeAlarms.

Only name, ARN and state are always there. An alarm is keyed by its ARN, so that one alarm is one thing whichever way
its transitions arrive.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

from app.intake.base import Directory, UnreadablePayload, believable, indexable, iso_time, text_of
from graph.state import Alert, Transition

SOURCE = "cloudwatch"
ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]*):cloudwatch:(?P<region>[a-z0-9-]{3,30}):(?P<account>\d{12}):alarm:(?P<name>.+)",
    re.DOTALL,
)
TRANSITIONS: Mapping[str, Transition] = {
    "ALARM": "firing",
    "OK": "resolved",
    "INSUFFICIENT_DATA": "insufficient_data",
}
COMPARISONS = {
    "GreaterThanOrEqualToThreshold": ">=",
    "GreaterThanThreshold": ">",
    "LessThanThreshold": "<",
    "LessThanOrEqualToThreshold": "<=",
    "LessThanLowerOrGreaterThanUpperThreshold": "outside",
    "LessThanLowerThreshold": "below",
    "GreaterThanUpperThreshold": "above",
}
CONSOLES = {"aws-cn": "console.amazonaws.cn", "aws-us-gov": "console.amazonaws-us-gov.com"}
SHARED = ("LoadBalancer", "AvailabilityZone")  # many services stand behind one: what the alarm is called says more
LOG_GROUPS = ("LogGroupIdentifiers", "LogGroupNames", "LogGroups")
Node = Mapping[str, object]


# --- reading without trusting the types ---


def node(value: object) -> Node:
    """A JSON object; empty where it is something else."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[object]:
    """A JSON list; empty where it is something else."""
    return value if isinstance(value, list) else ()


def field(parent: Node, name: str) -> object:
    """A field, spelled ``LikeThis`` or ``likeThis``."""
    return parent.get(name, parent.get(name[:1].lower() + name[1:]))


def text(parent: Node, name: str) -> str:
    """A field as storable text."""
    return text_of(field(parent, name))


# --- one alarm ---


@dataclass(frozen=True)
class Alarm:
    """One state of one alarm."""

    arn: str
    name: str
    state: str
    reason: str
    description: str
    changed_at: datetime | None
    definition: Node  # where MetricName, Metrics, AlarmRule or ScheduledQueryConfiguration stands


def from_message(message: Node) -> Alarm:
    """Of the JSON in an SNS notification."""
    return Alarm(
        arn=text(message, "AlarmArn"),
        name=text(message, "AlarmName"),
        state=text(message, "NewStateValue"),
        reason=text(message, "NewStateReason"),
        description=text(message, "AlarmDescription"),
        changed_at=iso_time(message.get("StateChangeTime")),
        definition={**message, **node(message.get("Trigger"))},
    )


def from_event(event: Node) -> Alarm:
    """Of EventBridge's «CloudWatch Alarm State Change»."""
    detail = node(event.get("detail"))
    state, configuration = node(detail.get("state")), node(detail.get("configuration"))
    return Alarm(
        arn=text_of(next(iter(items(event.get("resources"))), "")),
        name=text(detail, "AlarmName"),
        state=text(state, "Value"),
        reason=text(state, "Reason"),
        description=text(configuration, "Description"),
        changed_at=iso_time(state.get("timestamp")) or iso_time(event.get("time")),
        definition=configuration,
    )


def from_row(row: Node) -> Alarm:
    """Of DescribeAlarms."""
    times = (row.get("StateTransitionedTimestamp"), row.get("StateUpdatedTimestamp"))
    return Alarm(
        arn=text(row, "AlarmArn"),
        name=text(row, "AlarmName"),
        state=text(row, "StateValue"),
        reason=text(row, "StateReason"),
        description=text(row, "AlarmDescription"),
        changed_at=next((t.astimezone(UTC) for t in times if isinstance(t, datetime)), None),
        definition=row,
    )


def alert_of(alarm: Alarm, directory: Directory) -> Alert:
    """The transition to this state. Raises UnreadablePayload."""
    arn, transition = ARN.fullmatch(alarm.arn), TRANSITIONS.get(alarm.state)
    if arn is None or transition is None:
        raise UnreadablePayload("this is no CloudWatch alarm: it needs an AlarmArn and a state")
    name = alarm.name or arn["name"]
    watched = _watched(alarm.definition)
    key = indexable(f"{SOURCE}:{alarm.arn}")
    changed_at = believable((alarm.changed_at,))
    return Alert(
        source=SOURCE,
        rule=key,
        title=name[:500],
        service=_service(alarm, name, watched, directory)[:200],
        resources={**watched, "aws.account": arn["account"], "aws.region": arn["region"]},
        occurred_at=changed_at,
        changed_at=changed_at,
        fingerprint=key,
        cycle_key=key,
        transition=transition,
        url=_console(arn["partition"], arn["region"], name),
        text="\n".join(filter(None, (alarm.reason, alarm.description, _condition(alarm.definition))))[:4000],
    )


def _service(alarm: Alarm, name: str, watched: Mapping[str, str], directory: Directory) -> str:
    own = {k: v for k, v in watched.items() if k not in SHARED}
    own.update({k: own.pop(k) for k in ("ClusterName",) if k in own})  # last: the service in it says more
    words = " ".join((name, _runs(name), alarm.description, *_log_groups(alarm.definition)))
    if found := directory.service_for("", own, words) or directory.service_for("", watched):
        return found
    raise UnreadablePayload(
        f"The alarm {name[:200]!r} names no service: give the service in autopilot.yaml one of its dimensions under"
        " resources: (QueueName:orders), or write the service's name into the alarm's description."
    )


def _runs(name: str) -> str:
    """Every run of words in an alarm's name: ``payment-service-5xx-high`` speaks of payment-service."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name[:255]) if word][:16]
    ends = range(1, len(words) + 1)
    return " ".join("-".join(words[start:end]) for end in ends for start in range(end))


def _console(partition: str, region: str, name: str) -> str:
    host = CONSOLES.get(partition, "console.aws.amazon.com")
    return f"https://{region}.{host}/cloudwatch/home?region={region}#alarmsV2:alarm/{quote(name, safe='')}"


# --- what it watches ---


def _watched(definition: Node) -> dict[str, str]:
    """The dimensions of the first metric that has some, or the first log group."""
    if dimensions := next(filter(None, (_dimensions(metric) for metric, _ in _metrics(definition))), None):
        return dimensions
    groups = _log_groups(definition)
    return {"LogGroup": groups[0][:200]} if groups else {}


def _metrics(definition: Node) -> Iterator[tuple[Node, Node]]:
    """Each metric, and where its statistic and period stand."""
    if text(definition, "MetricName"):
        yield definition, definition
    for entry in items(field(definition, "Metrics")):
        stat = node(field(node(entry), "MetricStat"))
        if metric := node(field(stat, "Metric")):
            yield metric, stat


def _dimensions(metric: Node) -> dict[str, str]:
    """A list of names and values in SNS and DescribeAlarms, a map in EventBridge."""
    found = field(metric, "Dimensions")
    pairs: Iterable[tuple[str, str]] = [(text(node(d), "Name"), text(node(d), "Value")) for d in items(found)]
    if isinstance(found, Mapping):
        pairs = [(text_of(name), text_of(value)) for name, value in found.items()]
    return dict([(name[:100], value[:200]) for name, value in pairs if name and value][:18])


def _log_groups(definition: Node) -> list[str]:
    """Names of the log groups of a log alarm, which may be written as ARNs."""
    query = node(field(definition, "ScheduledQueryConfiguration")) or definition
    listed = next(filter(None, (items(field(query, key)) for key in LOG_GROUPS)), ())
    names = [text_of(group).rpartition(":log-group:")[2].removesuffix(":*") for group in listed[:50]]
    return [name for name in names if name]


# --- the alarm's definition in words ---


def _condition(definition: Node) -> str:
    if rule := text(definition, "AlarmRule"):
        return f"Alarm rule: {rule}{_children(definition)}"
    subject = "; ".join((*_metric_texts(definition), *_query_texts(definition)))
    return f"Alarm when {subject}{_threshold(definition)}{_datapoints(definition)}" if subject else ""


def _children(definition: Node) -> str:
    """The alarms that set off a composite one; objects, or plain ARNs."""
    children = items(field(definition, "TriggeringChildren"))[:20]
    arns = [text(node(child), "Arn") or text_of(child) for child in children]
    names = [arn.rpartition(":alarm:")[2] for arn in arns if arn]
    return f". Set off by {', '.join(names)}" if names else ""


def _metric_texts(definition: Node) -> Iterator[str]:
    for metric, stat in _metrics(definition):
        statistic = text(stat, "Stat") or text(stat, "Statistic") or text(stat, "ExtendedStatistic")
        name = text(metric, "MetricName") or text(metric, "Name")
        period = f" in {seconds} s" if (seconds := text(stat, "Period")) else ""
        yield f"{statistic} of {text(metric, 'Namespace')} {name}{period}".strip()
    for entry in items(field(definition, "Metrics")):
        if expression := text(node(entry), "Expression"):
            yield expression


def _query_texts(definition: Node) -> Iterator[str]:
    query = node(field(definition, "ScheduledQueryConfiguration")) or definition
    if words := text(query, "QueryString"):
        aggregated = f", {text(query, 'AggregationExpression')}" if text(query, "AggregationExpression") else ""
        yield f"the query on {', '.join(_log_groups(definition))}: {words}{aggregated}"


def _threshold(definition: Node) -> str:
    sign = COMPARISONS.get(text(definition, "ComparisonOperator"), "")
    against = text(definition, "Threshold") or text(definition, "ThresholdMetricId")
    return f" {sign} {against}" if sign and against else ""


def _datapoints(definition: Node) -> str:
    of = text(definition, "EvaluationPeriods") or text(definition, "QueryResultsToEvaluate")
    needed = text(definition, "DatapointsToAlarm") or text(definition, "QueryResultsToAlarm") or of
    return f" for {needed} of {of} datapoints" if of else ""
