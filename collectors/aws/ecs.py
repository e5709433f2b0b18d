"""Amazon ECS: services, their tasks, events and deployments, and the load balancer targets that they register."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from collectors._jobs import Job, Part
from collectors.aws._calls import Asked, Clients, call, console
from collectors.base import (
    Asks,
    Change,
    Clock,
    CollectorError,
    GapReason,
    LogLine,
    Scope,
    Status,
    Target,
    utc,
)

if TYPE_CHECKING:
    from mypy_boto3_ecs.type_defs import (
        DeploymentTypeDef,
        ListTasksResponseTypeDef,
        ServiceDeploymentTypeDef,
        ServiceTypeDef,
        TaskSetTypeDef,
        TaskTypeDef,
    )

NAMES_PER_CALL = 10
DEPLOYMENTS = 20  # per service
REVISIONS_PER_CALL = 20
TASK_PAGES = 3  # of 100 stopped tasks per service
LOOK_BACK = timedelta(hours=24)  # how old a deployment may be
# tasks are stopped and deregistered in every ordinary deployment: that alone is no bad news
_BAD_NEWS = re.compile(r"unable|unhealthy|fail|error|circuit.breaker|rolling back|insufficient", re.IGNORECASE)


def jobs(clients: Clients, clock: Clock, scope: Scope) -> Iterator[tuple[str, Job]]:
    """The ECS services of all targets, as many of one cluster at once as AWS allows."""
    by_cluster: dict[str, list[Target]] = {}
    for target in scope.targets:
        if target.ecs:
            by_cluster.setdefault(target.ecs.cluster, []).append(target)
    for cluster, members in by_cluster.items():
        for start in range(0, len(members), NAMES_PER_CALL):
            batch = members[start : start + NAMES_PER_CALL]
            about = f"ECS services {', '.join(t.service for t in batch)}"
            yield about, partial(_services, clients, clock, scope, cluster, batch)


@dataclass(frozen=True)
class _Service:
    """One ECS service, as it is now."""

    clients: Clients
    scope: Scope
    target: Target
    cluster: str
    now: datetime
    row: "ServiceTypeDef"

    @property
    def name(self) -> str:
        """Within its cluster."""
        return self.row.get("serviceName", "")

    @property
    def component(self) -> str:
        """Its name in the catalogue."""
        return self.target.service

    @property
    def since(self) -> datetime:
        """From when on its deployments are read."""
        return self.scope.incident.start - LOOK_BACK

    def asked(self, text: str, tab: str, kind: Asks) -> Asked:
        """A question about it; ``tab`` of its page in the console."""
        path = f"ecs/v2/clusters/{_short(self.cluster)}/services/{self.name}/{tab}?region={{region}}"
        return Asked(text, self.scope.incident, console(self.clients.ecs, path), kind=kind)

    def in_window(self, line: LogLine) -> bool:
        """Whether it is of the incident or the time just before."""
        return any(w.start <= line.at < w.end for w in (self.scope.incident, *self.scope.baseline))


async def _services(
    clients: Clients, clock: Clock, scope: Scope, cluster: str, targets: Sequence[Target], part: Part
) -> None:
    names = list(dict.fromkeys(target.ecs.service for target in targets if target.ecs))
    path = f"ecs/v2/clusters/{_short(cluster)}/services?region={{region}}"
    text = f"ecs describe-services --cluster {cluster} --services {' '.join(names)}"
    asked = Asked(text, scope.incident, console(clients.ecs, path))
    describe = partial(clients.ecs.describe_services, cluster=cluster, services=names)
    answer = await call(part, "ecs:DescribeServices", describe)
    found = {service.get("serviceName", ""): service for service in answer["services"]}
    asked.note(part, len(found))
    for failure in answer.get("failures", []):
        part.gap(
            GapReason.EMPTY,
            f"{failure.get('arn', cluster)}: {failure.get('reason', 'not found')}",
            "check ecs.cluster and ecs.service in the catalogue",
        )
    services = (
        _Service(clients, scope, t, cluster, clock.now(), found[name])
        for t in targets
        if t.ecs and (name := _short(t.ecs.service)) in found
    )
    await asyncio.gather(*(_service(service, part) for service in services))


async def _service(service: _Service, part: Part) -> None:
    """What fails costs only itself: the other services of the job are read at the same time."""
    for read in (_state, _deployments, _stopped_tasks, _target_health):
        try:
            await read(service, part)
        except CollectorError as error:
            part.fail(error)


async def _state(service: _Service, part: Part) -> None:
    part.logs.extend(filter(service.in_window, _event_lines(service.component, service.row)))
    part.keep(_statuses(service.component, service.row, service.now))


# --- deployments --------------------------------------------------------------------------------------------


async def _deployments(service: _Service, part: Part) -> None:
    # what describe-services tells of deployments still in place: enough, should the history not be readable
    known = [c for c in _current_deployments(service.component, service.row) if c.at >= service.since]
    part.keep(known)
    controller = service.row.get("deploymentController", {}).get("type", "ECS")
    if controller != "ECS":  # ECS itself keeps no history of what others deploy
        _note_other_controller(service, controller, part)
        return
    deployments = await _history(service, part)
    versions = await _versions(service, deployments, part)
    told = list(_deployment_changes(service.component, deployments, versions))
    part.changes[:] = [change for change in part.changes if not any(_same_deployment(change, other) for other in told)]
    part.keep(change for change in told if change.version or not any(_same_moment(change, other) for other in known))


def _note_other_controller(service: _Service, controller: str, part: Part) -> None:
    if service.target.aws.codedeploy_application is None:
        part.gap(
            GapReason.NOT_CONFIGURED,
            f"{service.component} is deployed by {controller}: ECS keeps no history of it",
            f"set aws.codedeploy_application and aws.codedeploy_group of {service.component} in the catalogue",
        )


async def _history(service: _Service, part: Part) -> "list[ServiceDeploymentTypeDef]":
    ecs = service.clients.ecs
    asked = service.asked(
        f"ecs list-service-deployments --cluster {service.cluster} --service {service.name}", "deployments", "changes"
    )
    listing = partial(
        ecs.list_service_deployments,
        cluster=service.cluster,
        service=service.name,
        createdAt={"after": service.since},
        maxResults=DEPLOYMENTS,
    )
    brief = await call(part, "ecs:ListServiceDeployments", listing)
    arns = [d["serviceDeploymentArn"] for d in brief["serviceDeployments"] if "serviceDeploymentArn" in d]
    more = bool(brief.get("nextToken"))
    asked.note(part, len(arns), truncated=more)
    if more:
        detail = f"{service.component} was deployed more than {DEPLOYMENTS} times since {service.since:%d %b %H:%M} UTC"
        part.gap(GapReason.TRUNCATED, f"{detail}: only {DEPLOYMENTS} deployments were read")
    if not arns:
        return []
    describe = partial(ecs.describe_service_deployments, serviceDeploymentArns=arns)
    return (await call(part, "ecs:DescribeServiceDeployments", describe))["serviceDeployments"]


async def _versions(service: _Service, deployments: "Sequence[ServiceDeploymentTypeDef]", part: Part) -> dict[str, str]:
    """Task definition ``family:revision`` by service revision; empty, with a gap, if that may not be read."""
    arns = sorted({arn for d in deployments for arn in _revisions(d)})
    versions: dict[str, str] = {}
    for start in range(0, len(arns), REVISIONS_PER_CALL):
        batch = arns[start : start + REVISIONS_PER_CALL]
        describe = partial(service.clients.ecs.describe_service_revisions, serviceRevisionArns=batch)
        try:
            answer = await call(part, "ecs:DescribeServiceRevisions", describe)
        except CollectorError as error:
            part.fail(error)
            break
        for revision in answer["serviceRevisions"]:
            versions[revision.get("serviceRevisionArn", "")] = _short(revision.get("taskDefinition", ""))
    return versions


def _revisions(deployment: "ServiceDeploymentTypeDef") -> set[str]:
    """ARNs of what it brings, and of what a rollback brought back."""
    target = deployment.get("targetServiceRevision", {}).get("arn", "")
    return {target, deployment.get("rollback", {}).get("serviceRevisionArn", "")} - {""}


def _current_deployments(component: str, service: "ServiceTypeDef") -> Iterator[Change]:
    rows: tuple[DeploymentTypeDef | TaskSetTypeDef, ...] = (
        *service.get("deployments", []),
        *service.get("taskSets", []),
    )
    for deployment in rows:
        if "createdAt" in deployment:
            version = _short(deployment.get("taskDefinition", ""))
            state = deployment.get("rolloutState") or deployment.get("stabilityStatus") or "started"
            yield Change(
                component=component,
                at=utc(deployment["createdAt"]),
                kind="deploy",
                title=f"ECS deployment of {version}: {state}",
                version=version,
            )


def _deployment_changes(
    component: str, deployments: "Iterable[ServiceDeploymentTypeDef]", versions: Mapping[str, str]
) -> Iterator[Change]:
    for deployment in deployments:
        at = deployment.get("startedAt") or deployment.get("createdAt")
        version = versions.get(deployment.get("targetServiceRevision", {}).get("arn", ""), "")
        told = " ".join(filter(None, (deployment.get("status", ""), deployment.get("statusReason", ""))))
        if at:
            yield Change(
                component=component,
                at=utc(at),
                kind="deploy",
                title=f"ECS deployment of {version or 'an unknown revision'}: {told}{_breakers(deployment)}"[:500],
                version=version,
            )
        rollback = deployment.get("rollback", {})
        if "startedAt" in rollback:
            yield Change(
                component=component,
                at=utc(rollback["startedAt"]),
                kind="deploy",
                title=f"ECS rolled {version or 'the deployment'} back: {rollback.get('reason', '')}"[:500],
                version=versions.get(rollback.get("serviceRevisionArn", ""), ""),
            )


def _breakers(deployment: "ServiceDeploymentTypeDef") -> str:
    """What stopped it: the circuit breaker that counts failed tasks, or alarms."""
    told = ""
    breaker, alarms = deployment.get("deploymentCircuitBreaker", {}), deployment.get("alarms", {})
    if breaker.get("status") == "TRIGGERED":
        told += f"; circuit breaker after {breaker.get('failureCount', 0)} failed tasks"
    if alarms.get("triggeredAlarmNames"):
        told += f"; alarms {', '.join(alarms['triggeredAlarmNames'])}"
    return told


def _same_deployment(known: Change, told: Change) -> bool:
    """Told twice: by the service itself, and by the deployment history, which tells more, e.g. why it was stopped."""
    return _same_moment(known, told) and known.version == told.version


def _same_moment(one: Change, other: Change) -> bool:
    """Their clocks differ by seconds."""
    return one.component == other.component and abs(one.at - other.at) < timedelta(minutes=1)


# --- tasks --------------------------------------------------------------------------------------------------


async def _stopped_tasks(service: _Service, part: Part) -> None:
    """Why tasks stopped; ECS keeps that for about an hour."""
    ecs = service.clients.ecs
    text = f"ecs list-tasks --cluster {service.cluster} --service-name {service.name} --desired-status STOPPED"
    asked, rows, token = service.asked(text, "tasks", "logs"), 0, ""
    for _ in range(TASK_PAGES):
        listed = await call(part, "ecs:ListTasks", partial(_stopped, service, token))
        if listed["taskArns"]:
            describe = partial(ecs.describe_tasks, cluster=service.cluster, tasks=listed["taskArns"])
            answer = await call(part, "ecs:DescribeTasks", describe)
            lines = (_stopped_line(service.component, task) for task in answer["tasks"] if "stoppedAt" in task)
            part.logs.extend(filter(service.in_window, lines))
        rows += len(listed["taskArns"])
        token = listed.get("nextToken", "")
        if not token:
            break
    asked.note(part, rows, truncated=bool(token))
    if token:
        part.gap(GapReason.TRUNCATED, f"{service.component}: only {rows} of its stopped tasks were read")


def _stopped(service: _Service, token: str) -> "ListTasksResponseTypeDef":
    ask = partial(
        service.clients.ecs.list_tasks,
        cluster=service.cluster,
        serviceName=service.name,
        desiredStatus="STOPPED",
    )
    return ask(nextToken=token) if token else ask()


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
        instance=_short(task.get("taskArn", "")),
    )


# --- load balancer ------------------------------------------------------------------------------------------


async def _target_health(service: _Service, part: Part) -> None:
    elb = service.clients.elb
    for arn in _target_groups(service.target, service.row):
        path = f"ec2/home?region={{region}}#TargetGroup:targetGroupArn={arn}"
        text = f"elbv2 describe-target-health --target-group-arn {arn}"
        asked = Asked(text, service.scope.incident, console(elb, path), kind="statuses")
        describe = partial(elb.describe_target_health, TargetGroupArn=arn)
        answer = await call(part, "elasticloadbalancing:DescribeTargetHealth", describe)
        health = [row.get("TargetHealth", {}) for row in answer["TargetHealthDescriptions"]]
        states = Counter(one.get("State", "unknown") for one in health)
        asked.note(part, states.total())
        reasons = Counter(one["Reason"] for one in health if one.get("State") == "unhealthy" and "Reason" in one)
        part.keep(
            [
                Status(
                    component=service.component,
                    name="ecs.healthy_tasks",
                    at=service.now,
                    observed=states["healthy"],
                    expected=service.row.get("desiredCount"),
                    detail=", ".join(f"{what}: {count}" for what, count in sorted((states + reasons).items())),
                )
            ]
        )


def _target_groups(target: Target, service: "ServiceTypeDef") -> list[str]:
    """ARNs of the groups the service registers with; else the catalogue's, in the service's account."""
    arns = [b["targetGroupArn"] for b in service.get("loadBalancers", []) if "targetGroupArn" in b]
    if arns or not target.target_group:
        return arns
    _, partition, _, region, account, *_ = service.get("serviceArn", "").split(":") + [""] * 5
    return [f"arn:{partition}:elasticloadbalancing:{region}:{account}:{target.target_group}"] if account else []


# --- the service itself -------------------------------------------------------------------------------------


def _statuses(component: str, service: "ServiceTypeDef", now: datetime) -> Iterator[Status]:
    desired = service.get("desiredCount", 0)
    tasks = partial(Status, component=component, at=now)
    yield tasks(name="ecs.desired_tasks", observed=desired, detail=_short(service.get("taskDefinition", "")))
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


def _short(arn: str) -> str:
    """The last part of an ARN: a name, an id, or ``family:revision``."""
    return arn.rpartition("/")[2]


# --- permissions --------------------------------------------------------------------------------------------


def permissions(clients: Clients, now: datetime) -> Iterator[tuple[str, Callable[[], object]]]:
    """The cheapest call for each IAM action, about things that need not exist."""
    ecs, name, arn = clients.ecs, "autopilot-doctor", f"arn:aws:ecs:{clients.ecs.meta.region_name}:000000000000"
    deployment, revision = (f"{arn}:service-{what}/default/{name}/0" for what in ("deployment", "revision"))
    group = f"arn:aws:elasticloadbalancing:{ecs.meta.region_name}:000000000000:targetgroup/{name}/0123456789abcdef"
    yield "ecs:DescribeServices", partial(ecs.describe_services, services=[name])
    yield "ecs:ListServiceDeployments", partial(ecs.list_service_deployments, service=name)
    describe = partial(ecs.describe_service_deployments, serviceDeploymentArns=[deployment])
    yield "ecs:DescribeServiceDeployments", describe
    yield "ecs:DescribeServiceRevisions", partial(ecs.describe_service_revisions, serviceRevisionArns=[revision])
    yield "ecs:ListTasks", partial(ecs.list_tasks, maxResults=1)
    yield "ecs:DescribeTasks", partial(ecs.describe_tasks, tasks=["0" * 32])
    health = partial(clients.elb.describe_target_health, TargetGroupArn=group)
    yield "elasticloadbalancing:DescribeTargetHealth", health
