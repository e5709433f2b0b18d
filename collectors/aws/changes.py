"""Who changed what: CodeDeploy's deployments, CloudTrail's record of API calls, and RDS's own events."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import quote

from pydantic import JsonValue
from pydantic_core import from_json

from collectors._jobs import Job, Part
from collectors.aws._calls import Asked, Clients, call, console
from collectors.base import Change, Clock, GapReason, Level, LogLine, Scope, Target, Window, utc

if TYPE_CHECKING:
    from mypy_boto3_cloudtrail.literals import LookupAttributeKeyType
    from mypy_boto3_cloudtrail.type_defs import EventTypeDef, LookupEventsResponseTypeDef
    from mypy_boto3_codedeploy.type_defs import DeploymentInfoTypeDef, ListDeploymentsOutputTypeDef, TimeRangeTypeDef
    from mypy_boto3_rds.literals import SourceTypeType
    from mypy_boto3_rds.type_defs import EventsMessageTypeDef
    from mypy_boto3_rds.type_defs import EventTypeDef as RdsEventTypeDef

Kind = Literal["deploy", "configuration", "scaling", "feature_flag", "other"]

LOOK_BACK = timedelta(hours=24)  # how old a change may be
PAGES = 3  # of each list
DEPLOYMENTS_PER_CALL = 25
LOOKUPS = 12  # of CloudTrail in one collection: it allows two a second
EVENTS_PER_PAGE = 50
CLOUDTRAIL_DELAY = timedelta(minutes=5)  # its usual delay
SAME_DEPLOYMENT = timedelta(minutes=2)  # between the call and the deployment it made
RDS_PAGE = 100
TITLE = 300


def jobs(clients: Clients, clock: Clock, scope: Scope) -> Iterator[tuple[str, Job]]:
    """For what the catalogue names only: RDS events, CodeDeploy's deployments, then CloudTrail, which is slow."""
    for target in scope.targets:
        for name in target.aws.rds_instances:
            yield f"RDS events of {name}", partial(_rds_events, clients, scope, target, "db-instance", name)
        for name in target.aws.rds_clusters:
            yield f"RDS events of {name}", partial(_rds_events, clients, scope, target, "db-cluster", name)
    for target in scope.targets:
        if target.aws.codedeploy_application:
            about = f"CodeDeploy deployments of {target.aws.codedeploy_application}"
            yield about, partial(_deployments, clients, scope, target, target.aws.codedeploy_application)
    if lookups := list(_lookups(scope.targets)):
        yield "CloudTrail", partial(_cloudtrail, clients, clock, scope, lookups)


def _looked_at(scope: Scope) -> Window:
    """From well before the incident to its end."""
    return Window(start=scope.incident.start - LOOK_BACK, end=scope.incident.end)


# --- RDS ----------------------------------------------------------------------------------------------------

_LEVELS: Mapping[str, Level] = {
    "failure": "error",
    "low storage": "error",
    "failover": "warning",
    "availability": "warning",
    "recovery": "warning",
    "read replica": "warning",
}
_RDS_CHANGES: Mapping[str, Kind] = {
    "configuration change": "configuration",
    "failover": "other",
    "availability": "other",  # restarts and shutdowns
    "maintenance": "other",
    "creation": "other",
    "deletion": "other",
    "restoration": "other",
}


async def _rds_events(
    clients: Clients, scope: Scope, target: Target, source_type: "SourceTypeType", name: str, part: Part
) -> None:
    """Every event is a log line; what was done to the database is a change too."""
    window, marker, rows = _looked_at(scope), "", 0
    text = f"rds describe-events --source-type {source_type} --source-identifier {name}"
    path = f"rds/home?region={{region}}#database:id={quote(name)};is-cluster={str(source_type == 'db-cluster').lower()}"
    asked = Asked(text, window, console(clients.rds, path))
    for _ in range(PAGES):
        page = await call(part, "rds:DescribeEvents", partial(_rds_page, clients, source_type, name, window, marker))
        events = [e for e in page["Events"] if "Date" in e and window.start <= utc(e["Date"]) < window.end]
        part.logs.extend(_rds_line(target.service, event) for event in events if _is_near(event["Date"], scope))
        part.keep(change for event in events for change in _rds_changes(target.service, event))
        rows += len(page["Events"])
        marker = page.get("Marker", "")
        if not marker:
            break
    _note(part, asked, rows, f"events of {name}", more=bool(marker))


def _rds_page(
    clients: Clients, source_type: "SourceTypeType", name: str, window: Window, marker: str
) -> "EventsMessageTypeDef":
    ask = partial(
        clients.rds.describe_events,
        SourceIdentifier=name,
        SourceType=source_type,
        StartTime=window.start,
        EndTime=window.end,
        MaxRecords=RDS_PAGE,
    )
    return ask(Marker=marker) if marker else ask()


def _rds_line(component: str, event: "RdsEventTypeDef") -> LogLine:
    levels = (_LEVELS[category] for category in event.get("EventCategories", []) if category in _LEVELS)
    return LogLine(
        component=component,
        at=utc(event["Date"]),
        level=next(levels, "info"),
        message=event.get("Message", ""),
        logger="rds.events",
        instance=event.get("SourceIdentifier", ""),
    )


def _rds_changes(component: str, event: "RdsEventTypeDef") -> Iterator[Change]:
    kinds = [_RDS_CHANGES[category] for category in event.get("EventCategories", []) if category in _RDS_CHANGES]
    for kind in kinds[:1]:
        title = f"RDS {event.get('SourceIdentifier', '')}: {event.get('Message', '')}"
        yield Change(component=component, at=utc(event["Date"]), kind=kind, title=title[:TITLE])


def _is_near(at: datetime, scope: Scope) -> bool:
    """Whether it is of the incident or the time just before."""
    return any(window.start <= at < window.end for window in (scope.incident, *scope.baseline))


# --- CodeDeploy ---------------------------------------------------------------------------------------------


async def _deployments(clients: Clients, scope: Scope, target: Target, application: str, part: Part) -> None:
    group = target.aws.codedeploy_group
    if not group:
        mend = f"set aws.codedeploy_group of {target.service} in the catalogue"
        part.gap(GapReason.NOT_CONFIGURED, f"CodeDeploy lists the deployments of {application} by group only", mend)
        return
    window, token, ids = _looked_at(scope), "", list[str]()
    path = f"codesuite/codedeploy/applications/{quote(application, safe='')}?region={{region}}"
    text = f"deploy list-deployments --application-name {application} --deployment-group-name {group}"
    asked = Asked(text, window, console(clients.codedeploy, path), kind="changes")
    for _ in range(PAGES):
        listing = partial(_deployment_ids, clients, application, group, window, token)
        page = await call(part, "codedeploy:ListDeployments", listing)
        ids += page.get("deployments", [])
        token = page.get("nextToken", "")
        if not token:
            break
    _note(part, asked, len(ids), f"deployments of {application}", more=bool(token))
    for start in range(0, len(ids), DEPLOYMENTS_PER_CALL):
        batch = ids[start : start + DEPLOYMENTS_PER_CALL]
        describe = partial(clients.codedeploy.batch_get_deployments, deploymentIds=batch)
        answer = await call(part, "codedeploy:BatchGetDeployments", describe)
        changes = (_deployment(clients, target.service, row) for row in answer.get("deploymentsInfo", []))
        part.keep(change for change in changes if change and window.start <= change.at < window.end)


def _deployment_ids(
    clients: Clients, application: str, group: str, window: Window, token: str
) -> "ListDeploymentsOutputTypeDef":
    ask = partial(
        clients.codedeploy.list_deployments,
        applicationName=application,
        deploymentGroupName=group,
        createTimeRange={"start": window.start, "end": window.end},
    )
    return ask(nextToken=token) if token else ask()


def _deployment(clients: Clients, component: str, row: "DeploymentInfoTypeDef") -> Change | None:
    at = row.get("startTime") or row.get("createTime")
    if at is None:
        return None
    ident, creator, version = row.get("deploymentId", ""), row.get("creator", ""), _version(row)
    failed = row.get("errorInformation", {})
    undone = row.get("rollbackInfo", {})
    told = (
        f"CodeDeploy {'rollback' if creator in _ROLLBACKS else 'deployment'} {ident}: {row.get('status', '')}",
        f"{failed.get('code', '')} {failed.get('message', '')}".strip(),
        row.get("description", ""),
        f"undoes {undone['rollbackTriggeringDeploymentId']}" if "rollbackTriggeringDeploymentId" in undone else "",
        f"undone by {undone['rollbackDeploymentId']}" if "rollbackDeploymentId" in undone else "",
    )
    return Change(
        component=component,
        at=utc(at),
        kind="scaling" if creator.startswith("autoscaling") else "deploy",
        title="; ".join(filter(None, told))[:TITLE],
        version=version,
        author=creator,
        link=console(clients.codedeploy, f"codesuite/codedeploy/deployments/{ident}?region={{region}}"),
    )


_ROLLBACKS = ("codeDeployRollback", "CloudFormationRollback")


def _version(row: "DeploymentInfoTypeDef") -> str:
    """What tells one revision from another: a commit, an object in S3, or the AppSpec's own hash."""
    revision = row.get("revision", {})
    s3, app_spec = revision.get("s3Location", {}), revision.get("appSpecContent", {})
    candidates = (
        revision.get("gitHubLocation", {}).get("commitId", ""),
        "@".join(filter(None, (s3.get("key", ""), s3.get("version", "") or s3.get("eTag", "")))),
        app_spec.get("sha256", "")[:12],
        revision.get("string", {}).get("sha256", "")[:12],
    )
    return next(filter(None, candidates), "")


# --- CloudTrail ---------------------------------------------------------------------------------------------


class _Lookup(NamedTuple):
    """One question: calls of one name, or about one resource. ``services`` says whose a CloudTrailEvent is."""

    key: "LookupAttributeKeyType"
    value: str
    services: Callable[[Mapping[str, JsonValue]], Iterable[str]]


def _lookups(targets: Sequence[Target]) -> Iterator[_Lookup]:
    """Calls about ECS and Lambda are looked up by name, once for all: CloudTrail lists no resources with them."""
    by_service = partial(_of_ecs, [t for t in targets if t.ecs])
    if any(target.ecs for target in targets):
        for name in ("UpdateService", "RegisterScalableTarget"):
            yield _Lookup("EventName", name, by_service)
    by_function = partial(_of_lambda, [t for t in targets if t.aws.lambda_functions])
    if any(target.aws.lambda_functions for target in targets):
        for name in ("UpdateFunctionCode20150331v2", "UpdateFunctionConfiguration20150331v2"):
            yield _Lookup("EventName", name, by_function)
    for target in targets:
        for name in (*target.aws.rds_instances, *target.aws.rds_clusters):
            yield _Lookup("ResourceName", name, partial(_of_resource, target.service, "rds.amazonaws.com"))
        for name in target.aws.elasticache_clusters:
            yield _Lookup("ResourceName", name, partial(_of_resource, target.service, "elasticache.amazonaws.com"))


def _of_resource(service: str, source: str, detail: Mapping[str, JsonValue]) -> Iterator[str]:
    """Resources of other kinds may have the same name."""
    if detail.get("eventSource") == source:
        yield service


def _of_ecs(targets: Sequence[Target], detail: Mapping[str, JsonValue]) -> Iterator[str]:
    """``cluster`` and ``service``, by name or ARN; Application Auto Scaling has ``service/shop/payment``."""
    parameters = _object(detail.get("requestParameters"))
    cluster, name = _last(parameters.get("cluster")) or "default", _last(parameters.get("service"))
    resource = _text(parameters.get("resourceId"))
    for target in targets:
        ecs = target.ecs
        if ecs and ((cluster, name) == (_last(ecs.cluster), _last(ecs.service)) or resource == _scalable(target)):
            yield target.service


def _scalable(target: Target) -> str:
    return f"service/{_last(target.ecs.cluster)}/{_last(target.ecs.service)}" if target.ecs else ""


def _of_lambda(targets: Sequence[Target], detail: Mapping[str, JsonValue]) -> Iterator[str]:
    """``functionName``: a name, or an ARN with the name in its seventh field."""
    told = _text(_object(detail.get("requestParameters")).get("functionName"))
    name = told.split(":")[6] if told.count(":") >= 6 else told.partition(":")[0]
    yield from (target.service for target in targets if name in target.aws.lambda_functions)


async def _cloudtrail(clients: Clients, clock: Clock, scope: Scope, lookups: Sequence[_Lookup], part: Part) -> None:
    """Raises CollectorError: what is refused once is refused for every lookup."""
    window = _looked_at(scope)
    for lookup in lookups[:LOOKUPS]:
        await _look_up(clients, lookup, window, part)
    if len(lookups) > LOOKUPS:
        unread = ", ".join(lookup.value for lookup in lookups[LOOKUPS:])
        part.gap(GapReason.TRUNCATED, f"CloudTrail allows two lookups a second: not looked up: {unread}"[:TITLE])
    told_until = clock.now() - CLOUDTRAIL_DELAY
    if told_until < scope.occurred_at:  # what was called later is no cause
        part.gap(
            GapReason.TRUNCATED,
            f"CloudTrail tells of calls some minutes late: those after {told_until:%H:%M} UTC may not be there yet",
            "ask for a re-analysis in a few minutes",
        )


async def _look_up(clients: Clients, lookup: _Lookup, window: Window, part: Part) -> None:
    text = f"cloudtrail lookup-events --lookup-attributes AttributeKey={lookup.key},AttributeValue={lookup.value}"
    path = f"cloudtrailv2/home?region={{region}}#/events?{lookup.key}={quote(lookup.value, safe='')}"
    asked = Asked(text, window, console(clients.cloudtrail, path), kind="changes")
    token, rows, odd = "", 0, 0
    for _ in range(PAGES):
        page = await call(part, "cloudtrail:LookupEvents", partial(_events, clients, lookup, window, token))
        for event in page.get("Events", []):
            rows += 1
            odd += not _take(clients, lookup, event, window, part)
        token = page.get("NextToken", "")
        if not token:
            break
    if odd:
        part.gap(GapReason.FAILED, f"{odd} rows were not understood: {text}")
    _note(part, asked, rows, f"calls of {lookup.value} in CloudTrail", more=bool(token))


def _events(clients: Clients, lookup: _Lookup, window: Window, token: str) -> "LookupEventsResponseTypeDef":
    ask = partial(
        clients.cloudtrail.lookup_events,
        LookupAttributes=[{"AttributeKey": lookup.key, "AttributeValue": lookup.value}],
        StartTime=window.start,
        EndTime=window.end,
        MaxResults=EVENTS_PER_PAGE,
    )
    return ask(NextToken=token) if token else ask()


def _take(clients: Clients, lookup: _Lookup, event: "EventTypeDef", window: Window, part: Part) -> bool:
    """Keep the changes an event tells of; False if it was not understood."""
    detail = _object_of(event.get("CloudTrailEvent", ""))
    if detail is None or "EventTime" not in event:
        return False
    if event.get("ReadOnly") == "true" or not window.start <= event["EventTime"] < window.end:
        return True
    part.keep(_change(clients, service, event, detail) for service in lookup.services(detail))
    return True


# what may be told of a call; parameters such as environment variables may hold secrets
_TOLD = (
    "desiredCount",
    "taskDefinition",
    "forceNewDeployment",
    "minCapacity",
    "maxCapacity",
    "dBInstanceClass",
    "dBParameterGroupName",
    "dBClusterParameterGroupName",
    "allocatedStorage",
    "engineVersion",
    "cacheNodeType",
    "memorySize",
    "timeout",
)
_KINDS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"Scal|DesiredCapacity|ReplicaCount|ProvisionedConcurrency"), "scaling"),
    (re.compile(r"FunctionCode|UpdateAlias|PublishVersion|CreateDeployment|CreateService$"), "deploy"),
    (re.compile(r"^(Modify|Update|Put|Set|Reset|Apply|Add|Remove|Create|Delete)"), "configuration"),
)


def _change(clients: Clients, service: str, event: "EventTypeDef", detail: Mapping[str, JsonValue]) -> Change:
    parameters = _object(detail.get("requestParameters"))
    name = re.sub(r"\d{8}(v\d+)?$", "", event.get("EventName", ""))  # Lambda's carry the version of its API
    refused = _text(detail.get("errorCode"))
    values = [f"{key} {_last(parameters[key])}" for key in _TOLD if _text(parameters.get(key))]
    title = f"{name}{': ' if values else ''}{', '.join(values)}{f' (refused: {refused})' if refused else ''}"
    path = f"cloudtrailv2/home?region={{region}}#/events/{event.get('EventId', '')}"
    return Change(
        component=service,
        at=utc(event["EventTime"]),
        kind="other" if refused else _kind(name, parameters),
        title=title[:TITLE],
        version=_last(parameters.get("taskDefinition")),
        author=event.get("Username") or _who(_object(detail.get("userIdentity"))),
        link=console(clients.cloudtrail, path),
    )


def _kind(name: str, parameters: Mapping[str, JsonValue]) -> Kind:
    if name == "UpdateService":  # of ECS, which does several things
        if parameters.get("taskDefinition") or parameters.get("forceNewDeployment"):
            return "deploy"
        return "scaling" if "desiredCount" in parameters else "configuration"
    return next((kind for pattern, kind in _KINDS if pattern.search(name)), "other")


def _who(identity: Mapping[str, JsonValue]) -> str:
    """A user, the role behind a session, or the service of AWS that called."""
    issuer = _object(_object(identity.get("sessionContext")).get("sessionIssuer"))
    names = (identity.get("userName"), identity.get("arn"), issuer.get("userName"), identity.get("invokedBy"))
    return next(filter(None, map(_text, names)), "")


def told_once(changes: Sequence[Change]) -> Iterator[Change]:
    """A deployment that ECS tells of takes who made it from CloudTrail's call, which is then no other change."""
    calls = [change for change in changes if change.kind == "deploy" and change.title.startswith("UpdateService")]
    made: dict[Change, Change] = {}
    for deployment in changes:
        if deployment.title.startswith("ECS deployment"):
            made.update({call: deployment for call in calls if _made(call, deployment) and call not in made})
    callers = {deployment: call for call, deployment in made.items()}
    for change in changes:
        if (call := callers.get(change)) is not None:
            title = f"{change.title}; {call.title}" if "desiredCount" in call.title else change.title
            yield change.model_copy(update={"author": call.author, "link": call.link, "title": title})
        elif change not in made:
            yield change


def _made(call: Change, deployment: Change) -> bool:
    """A forced deployment names no version."""
    near = call.component == deployment.component and abs(call.at - deployment.at) <= SAME_DEPLOYMENT
    return near and call.version in ("", deployment.version)


# --- rows of strangers --------------------------------------------------------------------------------------


def _note(part: Part, asked: Asked, rows: int, what: str, *, more: bool) -> None:
    asked.note(part, rows, truncated=more)
    if more:
        part.gap(GapReason.TRUNCATED, f"only {rows} {what} were read")


def _object_of(text: str) -> dict[str, JsonValue] | None:
    """A JSON object in a string; None where it is none."""
    try:
        value = from_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _text(value: JsonValue) -> str:
    """A plain value as text; empty where it is none."""
    return str(value) if isinstance(value, str | int | float) else ""


def _last(value: JsonValue) -> str:
    """The last part of an ARN, or the name itself."""
    return _text(value).rpartition("/")[2]


# --- permissions --------------------------------------------------------------------------------------------


def permissions(clients: Clients, now: datetime) -> Iterator[tuple[str, Callable[[], object]]]:
    """The cheapest call for each IAM action."""
    yield "rds:DescribeEvents", partial(clients.rds.describe_events, Duration=5, MaxRecords=20)
    last: TimeRangeTypeDef = {"start": now - timedelta(minutes=1), "end": now}
    yield "codedeploy:ListDeployments", partial(clients.codedeploy.list_deployments, createTimeRange=last)
    describe = partial(clients.codedeploy.batch_get_deployments, deploymentIds=["d-000000000"])
    yield "codedeploy:BatchGetDeployments", describe
    yield "cloudtrail:LookupEvents", partial(clients.cloudtrail.lookup_events, MaxResults=1)
