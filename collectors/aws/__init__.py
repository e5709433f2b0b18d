"""Reads AWS: ECS services and their deployments, load balancer targets, CloudWatch metrics.

Read-only. The role needs ``ecs:DescribeServices``, ``ecs:ListServiceDeployments``,
``ecs:DescribeServiceDeployments``, ``ecs:DescribeServiceRevisions``, ``ecs:ListTasks``, ``ecs:DescribeTasks``,
``elasticloadbalancing:DescribeTargetHealth`` and ``cloudwatch:GetMetricData``.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import boto3
import botocore.session
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import (
    ProfileNotFound,
)
from pydantic import Field

from collectors._budget import Budget, SourceSettings, env
from collectors._jobs import Job, Part, gather
from collectors._windows import concatenated, joined, whole_periods
from collectors.aws._calls import Clients, call
from collectors.base import (
    Change,
    Clock,
    CollectorError,
    Declared,
    GapReason,
    LogLine,
    Query,
    Scope,
    Series,
    SeriesRef,
    Status,
    Target,
    Telemetry,
    Window,
    utc,
)

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import (
        GetMetricDataInputTypeDef,
        GetMetricDataOutputTypeDef,
        MetricDataQueryTypeDef,
    )
    from mypy_boto3_ecs.type_defs import ServiceDeploymentTypeDef, ServiceTypeDef, TaskTypeDef

PERIOD_S = 60
SIDE_BY_SIDE = 4
QUERIES_PER_CALL = 500
POINTS_PER_CALL = 100_800
NAMES_PER_CALL = 10
PAGES = 20
DEPLOYMENTS = 20  # per service
LOOK_BACK = timedelta(hours=24)  # how old a deployment may be

_T = TypeVar("_T")


class Settings(SourceSettings):
    """``AUTOPILOT_AWS_*``. Credentials come from the profile, or from where AWS's own tools look for them."""

    model_config = env("AUTOPILOT_AWS_")

    region: str | None = Field(default=None, description="e.g. ap-northeast-2")
    endpoint_url: str | None = Field(default=None, description="Another endpoint than the region's own")
    profile: str | None = Field(default=None, description="Profile of ~/.aws/config")
    role_arn: str | None = Field(default=None, description="Role to assume; it needs read permissions only")


def create(clock: Clock, declared: Declared) -> "AwsCollector":
    """The collector of the account that the settings name. Raises ValueError naming a missing setting."""
    settings = Settings()
    if not settings.region:
        raise ValueError("The collector 'aws' needs AUTOPILOT_AWS_REGION: the region of the services.")
    session = session_of(settings)
    config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
    url = settings.endpoint_url
    return AwsCollector(
        clock,
        Clients(
            ecs=session.client("ecs", endpoint_url=url, config=config),
            elb=session.client("elbv2", endpoint_url=url, config=config),
            cloudwatch=session.client("cloudwatch", endpoint_url=url, config=config),
            logs=session.client("logs", endpoint_url=url, config=config),
            xray=session.client("xray", endpoint_url=url, config=config),
            codedeploy=session.client("codedeploy", endpoint_url=url, config=config),
            cloudtrail=session.client("cloudtrail", endpoint_url=url, config=config),
            rds=session.client("rds", endpoint_url=url, config=config),
            sts=session.client("sts", endpoint_url=url, config=config),
        ),
        settings,
    )


def session_of(settings: Settings) -> boto3.Session:
    """The session of the profile, with its role assumed where one is set. Raises ValueError."""
    try:
        session = boto3.Session(profile_name=settings.profile, region_name=settings.region)
    except ProfileNotFound:
        raise ValueError(f"AUTOPILOT_AWS_PROFILE names no AWS profile: {settings.profile}") from None
    if session.get_credentials() is None:
        raise ValueError(
            "The collector 'aws' found no AWS credentials: set AUTOPILOT_AWS_PROFILE, "
            "or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    return _assumed(session, settings.role_arn) if settings.role_arn else session


class _AssumedRole(CredentialProvider):
    """Credentials of a role, renewed before they expire."""

    METHOD = CANONICAL_NAME = "autopilot-assume-role"

    def __init__(self, fetcher: AssumeRoleCredentialFetcher) -> None:
        super().__init__()
        self._fetcher = fetcher

    def load(self) -> DeferredRefreshableCredentials:
        """No request is made before the first use."""
        return DeferredRefreshableCredentials(self._fetcher.fetch_credentials, self.METHOD)


def _assumed(session: boto3.Session, role_arn: str) -> boto3.Session:
    source = session.get_credentials()
    own = botocore.session.get_session()
    own.set_config_variable("region", session.region_name)
    fetcher = AssumeRoleCredentialFetcher(own.create_client, source, role_arn)
    assumed = botocore.session.get_session()
    assumed.get_component("credential_provider").insert_before("env", _AssumedRole(fetcher))
    return boto3.Session(botocore_session=assumed, region_name=session.region_name)


class AwsCollector:
    """One AWS account and region, read-only."""

    name = "aws"
    timeout_s = 20.0

    def __init__(self, clock: Clock, clients: Clients, settings: Settings) -> None:
        self._clock, self._clients, self._settings = clock, clients, settings

    async def collect(self, scope: Scope) -> Telemetry:
        """State, events, deployments and metrics of every target that the catalogue ties to AWS.

        Raises CollectorError.
        """
        budget = Budget(self.name, self._settings, scope.within_s)
        return await gather(self._jobs(scope), side_by_side=SIDE_BY_SIDE, budget=budget)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' queries over another window. Raises CollectorError."""
        part = Part(self.name, "metrics", Budget(self.name, self._settings))
        return await self._read([ref for ref in refs if ref.source == self.name], [window], part)

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        targets = sorted(scope.targets, key=lambda t: t.hops)
        refs = [ref for target in targets for ref in _refs(target)]
        if refs:
            yield "CloudWatch metrics", partial(self._metrics, scope, refs)
        by_cluster: dict[str, list[Target]] = {}
        for target in targets:
            if target.ecs:
                by_cluster.setdefault(target.ecs.cluster, []).append(target)
        for cluster, members in by_cluster.items():
            for start in range(0, len(members), NAMES_PER_CALL):
                batch = members[start : start + NAMES_PER_CALL]
                about = f"ECS services {', '.join(t.service for t in batch)}"
                yield about, partial(self._services, scope, cluster, batch)

    # --- ECS ---

    async def _services(self, scope: Scope, cluster: str, targets: Sequence[Target], part: Part) -> None:
        names = [target.ecs.service for target in targets if target.ecs]
        ecs = self._clients.ecs
        started = monotonic()
        answer = await call(
            part, "ecs:DescribeServices", partial(ecs.describe_services, cluster=cluster, services=names)
        )
        part.answered = True
        found = {service.get("serviceName", ""): service for service in answer["services"]}
        text = f"ecs describe-services --cluster {cluster} --services {' '.join(names)}"
        part.queries.append(self._query(text, scope.incident, started, len(found)))
        for failure in answer.get("failures", []):
            part.gap(
                GapReason.EMPTY,
                f"{failure.get('arn', cluster)}: {failure.get('reason', 'not found')}",
                "check ecs.cluster and ecs.service in the catalogue",
            )
        known = [(t, found[t.ecs.service]) for t in targets if t.ecs and t.ecs.service in found]
        await asyncio.gather(*(self._service(scope, cluster, t, service, part) for t, service in known))

    async def _service(self, scope: Scope, cluster: str, target: Target, service: "ServiceTypeDef", part: Part) -> None:
        part.statuses.extend(_service_statuses(target.service, service, self._clock.now()))
        windows = (scope.incident, *scope.baseline)
        part.logs.extend(line for line in _event_lines(target.service, service) if _within(line.at, windows))
        for read in (
            partial(self._deployments, scope, cluster, target.service, service),
            partial(self._stopped_tasks, scope, cluster, target.service, service),
            partial(self._target_health, scope, target, service),
        ):
            try:
                await read(part)
            except CollectorError as error:
                part.fail(error)

    async def _deployments(
        self, scope: Scope, cluster: str, component: str, service: "ServiceTypeDef", part: Part
    ) -> None:
        since = scope.incident.start - LOOK_BACK
        # what describe-services tells of deployments still in place: enough, should the history not be readable
        part.changes.extend(c for c in _current_deployments(component, service) if c.at >= since)
        ecs = self._clients.ecs
        brief = await call(
            part,
            "ecs:ListServiceDeployments",
            partial(
                ecs.list_service_deployments,
                cluster=cluster,
                service=service.get("serviceName", ""),
                createdAt={"after": since},
                maxResults=DEPLOYMENTS,
            ),
        )
        arns = [d["serviceDeploymentArn"] for d in brief["serviceDeployments"] if "serviceDeploymentArn" in d]
        if not arns:
            return
        described = await call(
            part,
            "ecs:DescribeServiceDeployments",
            partial(ecs.describe_service_deployments, serviceDeploymentArns=arns),
        )
        deployments = described["serviceDeployments"]
        versions = await self._versions(deployments, part)
        known = [change for change in part.changes if change.component == component]
        for change in _deployment_changes(component, deployments, versions):
            if not any(_same_deployment(change, other) for other in known):
                part.changes.append(change)

    async def _versions(self, deployments: Sequence["ServiceDeploymentTypeDef"], part: Part) -> dict[str, str]:
        """Task definition ``family:revision`` by service revision; empty, with a gap, if that may not be read."""
        arns = sorted({d.get("targetServiceRevision", {}).get("arn", "") for d in deployments} - {""})
        if not arns:
            return {}
        try:
            answer = await call(
                part,
                "ecs:DescribeServiceRevisions",
                partial(self._clients.ecs.describe_service_revisions, serviceRevisionArns=arns),
            )
        except CollectorError as error:
            part.fail(error)
            return {}
        return {
            r.get("serviceRevisionArn", ""): _family(r.get("taskDefinition", "")) for r in answer["serviceRevisions"]
        }

    async def _stopped_tasks(
        self, scope: Scope, cluster: str, component: str, service: "ServiceTypeDef", part: Part
    ) -> None:
        """Why tasks stopped; ECS keeps that for about an hour."""
        ecs = self._clients.ecs
        listed = await call(
            part,
            "ecs:ListTasks",
            partial(
                ecs.list_tasks,
                cluster=cluster,
                serviceName=service.get("serviceName", ""),
                desiredStatus="STOPPED",
            ),
        )
        if not listed["taskArns"]:
            return
        answer = await call(
            part, "ecs:DescribeTasks", partial(ecs.describe_tasks, cluster=cluster, tasks=listed["taskArns"])
        )
        windows = (scope.incident, *scope.baseline)
        lines = (_stopped_line(component, task) for task in answer["tasks"] if "stoppedAt" in task)
        part.logs.extend(line for line in lines if _within(line.at, windows))

    async def _target_health(self, scope: Scope, target: Target, service: "ServiceTypeDef", part: Part) -> None:
        for arn in _target_groups(target, service):
            started = monotonic()
            answer = await call(
                part,
                "elasticloadbalancing:DescribeTargetHealth",
                partial(self._clients.elb.describe_target_health, TargetGroupArn=arn),
            )
            states = Counter(
                t.get("TargetHealth", {}).get("State", "unknown") for t in answer["TargetHealthDescriptions"]
            )
            text = f"elbv2 describe-target-health --target-group-arn {arn}"
            part.queries.append(self._query(text, scope.incident, started, states.total()))
            part.statuses.append(
                Status(
                    component=target.service,
                    name="ecs.healthy_tasks",
                    at=self._clock.now(),
                    observed=states["healthy"],
                    expected=service.get("desiredCount"),
                    detail=", ".join(f"{state}: {count}" for state, count in sorted(states.items())),
                )
            )

    # --- CloudWatch ---

    async def _metrics(self, scope: Scope, refs: Sequence[SeriesRef], part: Part) -> None:
        part.series.extend(await self._read(refs, joined((scope.incident, *scope.baseline)), part))

    async def _read(self, refs: Sequence[SeriesRef], windows: Sequence[Window], part: Part) -> list[Series]:
        """The series that have points. A count that is reported only when above 0 gets its zeros back."""
        traffic = {ref: _traffic_of(ref) for ref in refs if ref.metric in _ONLY_ABOVE_ZERO}
        asked = list(dict.fromkeys([*refs, *traffic.values()]))
        pieces: dict[SeriesRef, list[Series]] = {}
        for window in windows:
            for batch in _batches(asked, window):
                for series in await self._read_batch(batch, window, part):
                    pieces.setdefault(series.ref, []).append(series)
        whole = {ref: concatenated(found) for ref, found in pieces.items()}
        for ref, requests in traffic.items():
            if requests in whole:
                zeros = Series(ref=ref, epoch_s=whole[requests].epoch_s, values=(0.0,) * len(whole[requests].values))
                whole[ref] = concatenated([zeros, whole[ref]] if ref in whole else [zeros])
        return [whole[ref] for ref in refs if ref in whole]

    async def _read_batch(self, refs: Sequence[SeriesRef], window: Window, part: Part) -> list[Series]:
        started = monotonic()
        queries = [_with_id(ref, index) for index, ref in enumerate(refs)]
        points: dict[str, dict[float, float]] = {}
        codes: dict[str, str] = {}
        token: str | None = None
        for _ in range(PAGES):
            answer = await call(part, "cloudwatch:GetMetricData", partial(self._page, queries, window, token))
            part.answered = True
            for result in answer["MetricDataResults"]:
                codes[result.get("Id", "")] = result.get("StatusCode", "Complete")
                stamps = (at.timestamp() for at in result.get("Timestamps", []))
                points.setdefault(result.get("Id", ""), {}).update(zip(stamps, result.get("Values", []), strict=False))
            token = answer.get("NextToken")
            if not token:
                break
        found: list[Series] = []
        for index, ref in enumerate(refs):
            known = sorted(points.get(f"m{index}", {}).items())
            self._account(ref, codes.get(f"m{index}", "Complete"), len(known), window, started, part)
            if known:
                epoch_s, values = zip(*known, strict=True)
                found.append(Series(ref=ref, epoch_s=epoch_s, values=values))
        return found

    def _page(
        self, queries: Sequence["MetricDataQueryTypeDef"], window: Window, token: str | None
    ) -> "GetMetricDataOutputTypeDef":
        whole = whole_periods(window, PERIOD_S)
        request: GetMetricDataInputTypeDef = {
            "MetricDataQueries": queries,
            "StartTime": whole.start,
            "EndTime": whole.end,
            "ScanBy": "TimestampAscending",
        }
        if token:
            request["NextToken"] = token
        return self._clients.cloudwatch.get_metric_data(**request)

    def _account(self, ref: SeriesRef, code: str, rows: int, window: Window, started: float, part: Part) -> None:
        """Record the query, and what CloudWatch says it held back."""
        query = self._query(ref.query, window, started, rows)
        part.queries.append(query.model_copy(update={"truncated": code == "PartialData"}))
        if code == "PartialData":
            part.gap(GapReason.TRUNCATED, f"CloudWatch answered {ref.metric} of {ref.component} in part")
        elif code == "Forbidden":
            part.gap(
                GapReason.FORBIDDEN,
                f"CloudWatch refused {ref.metric} of {ref.component}",
                "allow the role the action cloudwatch:GetMetricData",
            )
        elif code != "Complete":
            part.gap(GapReason.FAILED, f"CloudWatch failed on {ref.metric} of {ref.component}: {code}")

    def _query(self, text: str, window: Window, started: float, rows: int) -> Query:
        return Query(
            source=self.name,
            text=text,
            start=window.start,
            end=window.end,
            took_ms=round((monotonic() - started) * 1000, 1),
            rows=rows,
        )


# --- ECS to telemetry ---------------------------------------------------------------------------------------

# tasks are stopped and deregistered in every ordinary deployment: that alone is no bad news
_BAD_NEWS = re.compile(r"unable|unhealthy|fail|error|circuit.breaker|rolling back", re.IGNORECASE)


def _within(at: datetime, windows: Iterable[Window]) -> bool:
    return any(w.start <= at < w.end for w in windows)


def _service_statuses(component: str, service: "ServiceTypeDef", now: datetime) -> Iterator[Status]:
    desired = service.get("desiredCount", 0)
    revision = _family(service.get("taskDefinition", ""))
    tasks = partial(Status, component=component, at=now)
    yield tasks(name="ecs.desired_tasks", observed=desired, detail=revision)
    yield tasks(
        name="ecs.running_tasks",
        observed=service.get("runningCount", 0),
        expected=desired,
        detail=f"{service.get('pendingCount', 0)} pending",
    )
    for deployment in service.get("deployments", []):
        if deployment.get("status") == "PRIMARY":
            state = deployment.get("rolloutState", "")
            reason = deployment.get("rolloutStateReason", "")
            yield tasks(
                name="ecs.rollout_completed",
                observed=float(state in ("COMPLETED", "")),
                expected=1,
                detail=f"{state}: {reason}" if reason else state,
            )
            yield tasks(name="ecs.failed_tasks", observed=deployment.get("failedTasks", 0), expected=0)


def _event_lines(component: str, service: "ServiceTypeDef") -> Iterator[LogLine]:
    """The service's own events: at most 100, newest first."""
    for event in reversed(service.get("events", [])):
        message = event.get("message", "")
        if "createdAt" in event:
            yield LogLine(
                component=component,
                at=utc(event["createdAt"]),
                level="warning" if _BAD_NEWS.search(message) else "info",
                message=message,
                logger="ecs.service_events",
            )


def _stopped_line(component: str, task: "TaskTypeDef") -> LogLine:
    exits = [
        f"{c.get('name', '')} exit code {c['exitCode']}{' ' + c['reason'] if 'reason' in c else ''}"
        for c in task.get("containers", [])
        if "exitCode" in c
    ]
    by_plan = task.get("stopCode") in ("ServiceSchedulerInitiated", "UserInitiated")
    return LogLine(
        component=component,
        at=utc(task["stoppedAt"]),
        level="warning" if by_plan else "error",
        message="; ".join([f"task stopped: {task.get('stoppedReason', 'no reason given')}", *exits]),
        logger="ecs.stopped_tasks",
        instance=task.get("taskArn", "").rpartition("/")[2],
    )


def _current_deployments(component: str, service: "ServiceTypeDef") -> Iterator[Change]:
    for deployment in service.get("deployments", []):
        if "createdAt" in deployment:
            version = _family(deployment.get("taskDefinition", ""))
            yield Change(
                component=component,
                at=utc(deployment["createdAt"]),
                kind="deploy",
                title=f"ECS deployment of {version}: {deployment.get('rolloutState', 'started')}",
                version=version,
            )


def _deployment_changes(
    component: str, deployments: Iterable["ServiceDeploymentTypeDef"], versions: Mapping[str, str]
) -> Iterator[Change]:
    for deployment in deployments:
        at = deployment.get("startedAt") or deployment.get("createdAt")
        version = versions.get(deployment.get("targetServiceRevision", {}).get("arn", ""), "")
        status = deployment.get("status", "")
        reason = deployment.get("statusReason", "")
        if at:
            yield Change(
                component=component,
                at=utc(at),
                kind="deploy",
                title=f"ECS deployment of {version or 'an unknown revision'}: {status} {reason}".strip(),
                version=version,
            )
        rollback = deployment.get("rollback", {})
        if "startedAt" in rollback:
            yield Change(
                component=component,
                at=utc(rollback["startedAt"]),
                kind="deploy",
                title=f"ECS rolled {version or 'the deployment'} back: {rollback.get('reason', '')}",
                version=versions.get(rollback.get("serviceRevisionArn", ""), ""),
            )


def _same_deployment(one: Change, other: Change) -> bool:
    """Told twice: by the deployment history, and by the service itself, whose clock differs by seconds."""
    near = abs(one.at - other.at) < timedelta(minutes=1)
    return near and (one.version == other.version or not one.version)


def _family(task_definition: str) -> str:
    """``family:revision`` of a task definition's ARN."""
    return task_definition.rpartition("/")[2]


def _target_groups(target: Target, service: "ServiceTypeDef") -> list[str]:
    """ARNs of the groups the service registers with; else the catalogue's, in the service's account."""
    arns = [b["targetGroupArn"] for b in service.get("loadBalancers", []) if "targetGroupArn" in b]
    if arns or not target.target_group:
        return arns
    _, partition, _, region, account, *_ = service.get("serviceArn", "").split(":") + [""] * 5
    return [f"arn:{partition}:elasticloadbalancing:{region}:{account}:{target.target_group}"] if account else []


# --- CloudWatch metrics -------------------------------------------------------------------------------------


class _Metric(NamedTuple):
    namespace: str
    name: str
    stat: str
    unit: str


_ECS_METRICS = (
    _Metric("AWS/ECS", "CPUUtilization", "Average", "%"),
    _Metric("AWS/ECS", "MemoryUtilization", "Average", "%"),
)
_TARGET_METRICS = (
    _Metric("AWS/ApplicationELB", "RequestCount", "Sum", ""),
    _Metric("AWS/ApplicationELB", "HTTPCode_Target_5XX_Count", "Sum", ""),
    _Metric("AWS/ApplicationELB", "TargetResponseTime", "p95", "s"),
    _Metric("AWS/ApplicationELB", "HealthyHostCount", "Minimum", ""),
    _Metric("AWS/ApplicationELB", "UnHealthyHostCount", "Maximum", ""),
)
_ONLY_ABOVE_ZERO = {"HTTPCode_Target_5XX_Count"}
_STATISTICS = {"Average": "avg", "Sum": "sum", "Minimum": "min", "Maximum": "max"}


def _refs(target: Target) -> Iterator[SeriesRef]:
    if target.ecs:
        dimensions = {"ClusterName": target.ecs.cluster, "ServiceName": target.ecs.service}
        for metric in _ECS_METRICS:
            yield _ref(target.service, metric, dimensions)
    if target.target_group and target.load_balancer:
        dimensions = {"TargetGroup": target.target_group, "LoadBalancer": target.load_balancer}
        for metric in _TARGET_METRICS:
            yield _ref(target.service, metric, dimensions)


def _ref(component: str, metric: _Metric, dimensions: Mapping[str, str]) -> SeriesRef:
    query = {
        "Id": "m",
        "MetricStat": {
            "Metric": {
                "Namespace": metric.namespace,
                "MetricName": metric.name,
                "Dimensions": [{"Name": name, "Value": value} for name, value in sorted(dimensions.items())],
            },
            "Period": PERIOD_S,
            "Stat": metric.stat,
        },
    }
    return SeriesRef(
        source="aws",
        component=component,
        metric=metric.name,
        statistic=_STATISTICS.get(metric.stat, metric.stat),
        unit=metric.unit,
        query=json.dumps(query, sort_keys=True),
    )


def _traffic_of(ref: SeriesRef) -> SeriesRef:
    """RequestCount of the same target group: where it has a point, a missing error count is 0."""
    query = ref.query.replace(f'"{ref.metric}"', '"RequestCount"')
    return ref.model_copy(update={"metric": "RequestCount", "query": query})


def _with_id(ref: SeriesRef, index: int) -> "MetricDataQueryTypeDef":
    """Raises CollectorError if the text is no query of CloudWatch."""
    try:
        query: MetricDataQueryTypeDef = json.loads(ref.query)
        return {**query, "Id": f"m{index}"}
    except (ValueError, TypeError):
        raise CollectorError(f"this is no CloudWatch query: {ref.query[:200]}") from None


def _batches(refs: Sequence[SeriesRef], window: Window) -> Iterator[Sequence[SeriesRef]]:
    """As many queries per call as the limits on queries and on points allow."""
    points = max((window.end - window.start).total_seconds() / PERIOD_S, 1)
    size = max(1, min(QUERIES_PER_CALL, int(POINTS_PER_CALL / points)))
    for start in range(0, len(refs), size):
        yield refs[start : start + size]
