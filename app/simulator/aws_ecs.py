"""Amazon ECS, AWS JSON 1.1: the operations that a person on call needs."""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from app.simulator.aws_errors import AwsError
from app.simulator.cluster import Deployment, EcsService, Task, TaskDefinition
from app.simulator.shop import Shop
from app.simulator.topology import ACCOUNT, CLUSTER, REGION, cluster_arn

Json = dict[str, object]
Operation = Callable[[Json, float], Json]

TARGET_PREFIX = "AmazonEC2ContainerServiceV20141113."
HEALTH_GRACE_S = 2_147_483_647  # ECS replaces no task by itself for being unhealthy
MUTATING = frozenset({"UpdateService", "StopServiceDeployment", "StopTask"})


class _Input(BaseModel):
    """Fields as AWS spells them; those the shop has no use for are accepted and ignored."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    cluster: str = "default"


class _DescribeServices(_Input):
    services: list[str]


class _ListTasks(_Input):
    service_name: str | None = None
    desired_status: Literal["RUNNING", "PENDING", "STOPPED"] = "RUNNING"


class _DescribeTasks(_Input):
    tasks: list[str]


class _DescribeTaskDefinition(_Input):
    task_definition: str


class _UpdateService(_Input):
    service: str
    desired_count: int | None = None
    task_definition: str | None = None
    force_new_deployment: bool = False


class _Created(BaseModel):
    before: float | None = None
    after: float | None = None


class _ListServiceDeployments(_Input):
    service: str
    status: list[str] = []
    created_at: _Created = _Created()
    max_results: int = 20
    next_token: str | None = None


class _DescribeServiceDeployments(_Input):
    service_deployment_arns: list[str]


class _DescribeServiceRevisions(_Input):
    service_revision_arns: list[str]


class _StopServiceDeployment(_Input):
    service_deployment_arn: str
    stop_type: Literal["ABORT", "ROLLBACK"] = "ROLLBACK"


class _StopTask(_Input):
    task: str
    reason: str = ""


class EcsApi:
    """ECS in front of the shop's cluster. Operations take the request and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._cluster = shop.cluster
        self.operations: Mapping[str, Operation] = {
            "DescribeServices": self._describe_services,
            "ListTasks": self._list_tasks,
            "DescribeTasks": self._describe_tasks,
            "DescribeTaskDefinition": self._describe_task_definition,
            "UpdateService": self._update_service,
            "ListServiceDeployments": self._list_service_deployments,
            "DescribeServiceDeployments": self._describe_service_deployments,
            "DescribeServiceRevisions": self._describe_service_revisions,
            "StopServiceDeployment": self._stop_service_deployment,
            "StopTask": self._stop_task,
        }

    def _describe_services(self, body: Json, at: float) -> Json:
        request = _DescribeServices.model_validate(body)
        _check_cluster(request.cluster)
        if len(request.services) > 10:
            raise AwsError("InvalidParameterException", "services can have at most 10 items.")
        names = [name.rsplit("/", 1)[-1] for name in request.services]
        known = self._cluster.services
        return {
            "services": [_service(known[name], at) for name in names if name in known],
            "failures": [_missing("service", name) for name in names if name not in known],
        }

    def _list_tasks(self, body: Json, at: float) -> Json:
        request = _ListTasks.model_validate(body)
        _check_cluster(request.cluster)
        services = self._cluster.services.values()
        chosen = [self._cluster.service(request.service_name)] if request.service_name else services
        stopped = request.desired_status == "STOPPED"
        tasks = (task for service in chosen for task in (service.stopped if stopped else service.tasks))
        return {"taskArns": [task.arn for task in tasks]}

    def _describe_tasks(self, body: Json, at: float) -> Json:
        request = _DescribeTasks.model_validate(body)
        _check_cluster(request.cluster)
        known: dict[str, tuple[EcsService, Task]] = {}
        for service in self._cluster.services.values():
            known.update({task.id: (service, task) for task in (*service.tasks, *service.stopped)})
        ids = [task.rsplit("/", 1)[-1] for task in request.tasks]
        return {
            "tasks": [_task(*known[task_id], at) for task_id in ids if task_id in known],
            "failures": [_missing("task", task_id) for task_id in ids if task_id not in known],
        }

    def _describe_task_definition(self, body: Json, at: float) -> Json:
        request = _DescribeTaskDefinition.model_validate(body)
        return {"taskDefinition": _task_definition(self._cluster.definition(request.task_definition))}

    def _update_service(self, body: Json, at: float) -> Json:
        request = _UpdateService.model_validate(body)
        _check_cluster(request.cluster)
        service = self._cluster.update(
            request.service,
            at,
            desired=request.desired_count,
            definition=request.task_definition,
            force=request.force_new_deployment,
        )
        return {"service": _service(service, at)}

    def _list_service_deployments(self, body: Json, at: float) -> Json:
        request = _ListServiceDeployments.model_validate(body)
        _check_cluster(request.cluster)
        service = self._cluster.service(request.service)
        after, before = request.created_at.after or 0.0, request.created_at.before or float("inf")
        found = [
            _service_deployment_brief(service, deployment)
            for deployment in service.history
            if after <= deployment.created_at <= before and (not request.status or deployment.status in request.status)
        ]
        if request.next_token and not request.next_token.isdigit():
            raise AwsError("InvalidParameterException", "Invalid token.")
        start = int(request.next_token or 0)
        page: Json = {"serviceDeployments": found[start : start + request.max_results]}
        if start + request.max_results < len(found):
            page["nextToken"] = str(start + request.max_results)
        return page

    def _describe_service_deployments(self, body: Json, at: float) -> Json:
        request = _DescribeServiceDeployments.model_validate(body)
        found, failures = [], []
        for arn in request.service_deployment_arns:
            try:
                found.append(_service_deployment(*self._cluster.deployment(arn), at))
            except AwsError:
                failures.append({"arn": arn, "reason": "MISSING"})
        return {"serviceDeployments": found, "failures": failures}

    def _describe_service_revisions(self, body: Json, at: float) -> Json:
        request = _DescribeServiceRevisions.model_validate(body)
        known = {
            _revision_arn(service, deployment.id): (service, deployment)
            for service in self._cluster.services.values()
            for deployment in (*service.history, *service.deployments)
        }
        arns = request.service_revision_arns
        return {
            "serviceRevisions": [_service_revision(*known[arn]) for arn in arns if arn in known],
            "failures": [{"arn": arn, "reason": "MISSING"} for arn in arns if arn not in known],
        }

    def _stop_service_deployment(self, body: Json, at: float) -> Json:
        request = _StopServiceDeployment.model_validate(body)
        self._cluster.stop_deployment(request.service_deployment_arn, request.stop_type, at)
        return {"serviceDeploymentArn": request.service_deployment_arn}

    def _stop_task(self, body: Json, at: float) -> Json:
        request = _StopTask.model_validate(body)
        _check_cluster(request.cluster)
        task = self._cluster.stop_task(request.task, request.reason, at)
        return {"task": _task(self._cluster.services[task.definition.family], task, at)}


def _check_cluster(name: str) -> None:
    if name not in (CLUSTER, cluster_arn()):
        raise AwsError("ClusterNotFoundException", "Cluster not found.")


def _missing(kind: str, name: str) -> Json:
    return {"arn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:{kind}/{CLUSTER}/{name}", "reason": "MISSING"}


# --- views: the shop's state as ECS tells it ------------------------------------------------------------------------


def _service(service: EcsService, at: float) -> Json:
    running = len(service.running(at))
    view: Json = {
        "serviceArn": service.arn,
        "serviceName": service.name,
        "clusterArn": cluster_arn(),
        "status": "ACTIVE",
        "desiredCount": service.desired,
        "runningCount": running,
        "pendingCount": len(service.tasks) - running,
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "platformFamily": "Linux",
        "taskDefinition": service.primary.definition.arn,
        "deploymentConfiguration": _deployment_configuration(service),
        "taskSets": [],
        "deployments": [
            _deployment(service, deployment, index == 0, at) for index, deployment in enumerate(service.deployments)
        ],
        "events": [{"id": id_, "createdAt": when, "message": text} for id_, when, text in service.events],
        "createdAt": service.created_at,
        "currentServiceDeployment": _deployment_arn(service, service.history[0].id),
        "schedulingStrategy": "REPLICA",
        "deploymentController": {"type": "ECS"},
        "healthCheckGracePeriodSeconds": HEALTH_GRACE_S,
        "enableECSManagedTags": True,
        "propagateTags": "NONE",
        "enableExecuteCommand": False,
        "loadBalancers": _load_balancers(service),
    }
    return view


def _load_balancers(service: EcsService) -> list[Json]:
    if service.spec.front is None:
        return []
    return [
        {
            "targetGroupArn": service.spec.target_group_arn,
            "containerName": service.name,
            "containerPort": 8080,
        }
    ]


def _deployment_configuration(service: EcsService) -> Json:
    return {
        "deploymentCircuitBreaker": {"enable": False, "rollback": False},
        "maximumPercent": service.spec.maximum_percent,
        "minimumHealthyPercent": service.spec.minimum_healthy_percent,
        "strategy": "ROLLING",
        "bakeTimeInMinutes": 0,
    }


def _deployment(service: EcsService, deployment: Deployment, primary: bool, at: float) -> Json:
    running, pending = _counts(service, deployment, at)
    return {
        "id": deployment.id,
        "status": "PRIMARY" if primary else "ACTIVE",
        "taskDefinition": deployment.definition.arn,
        "desiredCount": service.desired if primary else 0,
        "pendingCount": pending,
        "runningCount": running,
        "failedTasks": deployment.failed_tasks,
        "createdAt": deployment.created_at,
        "updatedAt": deployment.finished_at or at,
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "rolloutState": deployment.rollout_state,
        "rolloutStateReason": f"ECS deployment {deployment.id} {_STATES[deployment.rollout_state]}.",
    }


_STATES = {"IN_PROGRESS": "in progress", "COMPLETED": "completed", "FAILED": "was superseded or stopped"}


def _counts(service: EcsService, deployment: Deployment, at: float) -> tuple[int, int]:
    tasks = [task for task in service.tasks if task.deployment == deployment.id]
    running = sum(task.running(at) for task in tasks)
    return running, len(tasks) - running


def _task(service: EcsService, task: Task, at: float) -> Json:
    status = "STOPPED" if task.stopped_at else "RUNNING" if task.running(at) else "PENDING"
    health = "UNKNOWN" if status != "RUNNING" else "UNHEALTHY" if task.hung else "HEALTHY"
    container: Json = {
        "name": service.name,
        "taskArn": task.arn,
        "image": task.definition.image,
        "lastStatus": status,
        "healthStatus": health,
        "networkInterfaces": [{"privateIpv4Address": task.ip}],
    }
    view: Json = {
        "taskArn": task.arn,
        "clusterArn": cluster_arn(),
        "taskDefinitionArn": task.definition.arn,
        "group": f"service:{service.name}",
        "startedBy": task.deployment,
        "launchType": "FARGATE",
        "lastStatus": status,
        "desiredStatus": "STOPPED" if task.stopped_at else "RUNNING",
        "healthStatus": health,
        "createdAt": task.created_at,
        "containers": [container],
        "cpu": "1024",
        "memory": "2048",
    }
    if status != "PENDING":
        view["startedAt"] = task.running_at
    if task.stopped_at:
        container["exitCode"] = task.exit_code
        view.update(stoppedAt=task.stopped_at, stoppedReason=task.stopped_reason, stopCode=_stop_code(task))
    return view


def _stop_code(task: Task) -> str:
    if task.stopped_reason.startswith("Essential"):
        return "EssentialContainerExited"
    return "ServiceSchedulerInitiated" if task.stopped_reason.startswith("Scaling") else "UserInitiated"


def _task_definition(definition: TaskDefinition) -> Json:
    return {
        "taskDefinitionArn": definition.arn,
        "family": definition.family,
        "revision": definition.revision,
        "status": "ACTIVE",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "1024",
        "memory": "2048",
        "registeredAt": definition.registered_at,
        "containerDefinitions": [
            {
                "name": definition.family,
                "image": definition.image,
                "essential": True,
                "environment": [{"name": "DD_VERSION", "value": definition.version}],
                "portMappings": [{"containerPort": 8080, "protocol": "tcp"}],
            }
        ],
    }


def _last(deployment_id: str) -> str:
    return deployment_id.rsplit("/", 1)[-1]


def _deployment_arn(service: EcsService, deployment_id: str) -> str:
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-deployment/{CLUSTER}/{service.name}/{_last(deployment_id)}"


def _revision_arn(service: EcsService, deployment_id: str) -> str:
    return f"arn:aws:ecs:{REGION}:{ACCOUNT}:service-revision/{CLUSTER}/{service.name}/{_last(deployment_id)}"


def _service_deployment_brief(service: EcsService, deployment: Deployment) -> Json:
    view: Json = {
        "serviceDeploymentArn": _deployment_arn(service, deployment.id),
        "serviceArn": service.arn,
        "clusterArn": cluster_arn(),
        "createdAt": deployment.created_at,
        "startedAt": deployment.created_at,
        "targetServiceRevisionArn": _revision_arn(service, deployment.id),
        "status": deployment.status,
    }
    if deployment.finished_at:
        view["finishedAt"] = deployment.finished_at
    if deployment.rolling_back:
        view["statusReason"] = deployment.rolling_back
    return view


def _service_deployment(service: EcsService, deployment: Deployment, at: float) -> Json:
    running, pending = _counts(service, deployment, at)
    view = _service_deployment_brief(service, deployment)
    del view["targetServiceRevisionArn"]
    earlier = _before(service.history, deployment)
    return view | {
        "updatedAt": deployment.finished_at or at,
        "sourceServiceRevisions": [{"arn": _revision_arn(service, earlier.id)}] if earlier else [],
        "targetServiceRevision": {
            "arn": _revision_arn(service, deployment.id),
            "requestedTaskCount": service.desired,
            "runningTaskCount": running,
            "pendingTaskCount": pending,
        },
        "deploymentConfiguration": _deployment_configuration(service),
        "deploymentCircuitBreaker": {"status": "DISABLED", "failureCount": 0, "threshold": 0},
    }


def _before(history: Iterable[Deployment], deployment: Deployment) -> Deployment | None:
    older = [other for other in history if other.created_at < deployment.created_at]
    return max(older, key=lambda other: other.created_at, default=None)


def _service_revision(service: EcsService, deployment: Deployment) -> Json:
    return {
        "serviceRevisionArn": _revision_arn(service, deployment.id),
        "serviceArn": service.arn,
        "clusterArn": cluster_arn(),
        "taskDefinition": deployment.definition.arn,
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "containerImages": [{"containerName": service.name, "image": deployment.definition.image}],
        "loadBalancers": _load_balancers(service),
        "createdAt": deployment.created_at,
    }
