"""Rolls an ECS service back, in the middle of a deployment and after it."""

from typing import TYPE_CHECKING, cast

from pydantic import Field

from executors import _ecs_state as judging
from executors._aws_service import ServiceParams
from executors._ecs_operation import AWS, ServiceOperation
from executors._ecs_state import Deployment, ServiceState, Version, address, short
from executors.base import Capacity, Change, Grant, Outcome, PreflightCheck, Probe, Refused, State

if TYPE_CHECKING:
    from mypy_boto3_ecs.literals import ServiceDeploymentStatusType
    from mypy_boto3_ecs.type_defs import ServiceDeploymentBriefTypeDef

MAX_REVISIONS = 20  # as many as DescribeServiceRevisions takes
IN_FLIGHT: "tuple[ServiceDeploymentStatusType, ...]" = (
    "PENDING",
    "IN_PROGRESS",
    "STOP_REQUESTED",
    "ROLLBACK_REQUESTED",
    "ROLLBACK_IN_PROGRESS",
)


class RollbackState(ServiceState):
    """A service and where it can go back to."""

    in_flight: str | None = Field(description="ARN of the service deployment under way")
    in_flight_status: str | None
    previous: str | None = Field(description="ARN, with revision, of the task definition to go back to")
    previous_status: str | None
    versions: dict[str, Version] = Field(default_factory=dict, description="The present and the previous, by ARN")


class RollbackEcsService(ServiceOperation[ServiceParams]):
    """Goes back to the last version that was deployed successfully."""

    name = "rollback_ecs_service"
    summary = "Roll a service back to the last successfully deployed version before the present one"
    risk = "medium"
    reversible = True
    minutes = 5.0
    permissions = (
        "ecs:DescribeServices",
        "ecs:ListServiceDeployments",
        "ecs:DescribeServiceDeployments",
        "ecs:DescribeServiceRevisions",
        "ecs:DescribeTaskDefinition",
        "ecs:StopServiceDeployment",
        "ecs:UpdateService",
    )
    params = ServiceParams
    state = RollbackState

    async def inspect(self, params: ServiceParams) -> State:
        """The service, the deployment under way, and the version to go back to."""
        state = await self.read(params.service)
        history = await self._history(params.service)
        under_way = next((d for d in history if d.get("status") in IN_FLIGHT), None)
        revisions = await self._sources(under_way) if under_way else _successful(history)
        previous = await self._other_version(revisions, state.primary)
        versions = [await self._version(arn) for arn in (previous, state.version) if arn and previous]
        return RollbackState(
            **dict(state),
            in_flight=under_way.get("serviceDeploymentArn") if under_way else None,
            in_flight_status=under_way.get("status") if under_way else None,
            previous=previous,
            previous_status=versions[0].status if versions else None,
            versions={version.task_definition: version for version in versions},
        ).model_dump(mode="json")

    def preview(self, params: ServiceParams, before: State) -> str:
        """From which version to which."""
        state = RollbackState.model_validate(before)
        judging.must_be_active(state)
        judging.must_be_on_ecs_controller(state)
        if state.in_flight_status not in (None, "IN_PROGRESS"):
            raise Refused(f"{params.service}: its deployment is {state.in_flight_status}; wait for its end.")
        if state.primary is None or state.previous is None:
            raise Refused(f"{params.service}: ECS lists no earlier successful deployment of another version.")
        if state.previous_status != "ACTIVE":
            raise Refused(f"{params.service}: {short(state.previous)} is {state.previous_status}; register it anew.")
        how = "by stopping the deployment in progress" if state.in_flight else "by a rolling deployment"
        return f"{params.service}: {short(state.primary.task_definition)} -> {short(state.previous)}, {how}"

    def pinned(self, params: ServiceParams, before: State) -> State:
        """Also where it goes back to, and the service deployment that would be stopped."""
        state = RollbackState.model_validate(before)
        return {
            **super().pinned(params, before),
            "version to go back to": state.previous,
            "service deployment": state.in_flight,
        }

    def changes(self, params: ServiceParams, before: State) -> tuple[Change, ...]:
        """The task definition, and the images that differ."""
        self.preview(params, before)
        state = RollbackState.model_validate(before)
        old, new = state.versions[state.version], state.versions[str(state.previous)]
        definition = Change(
            what=f"task definition of {params.service}", before=short(state.version), after=short(str(state.previous))
        )
        images = [
            Change(what=f"image of {container}", before=old.images.get(container, "none"), after=image)
            for container, image in new.images.items()
            if image != old.images.get(container)
        ]
        return (definition, *images)

    def looked_at(self, params: ServiceParams, state: ServiceState) -> tuple[PreflightCheck, ...]:
        """A deployment in progress is what it stops; what the earlier version needs may be gone."""
        rollback = cast("RollbackState", state)
        return (judging.standing(state), _stoppable(rollback), judging.owner(state), *_still_there(rollback))

    def capacity(self, params: ServiceParams, before: State) -> Capacity:
        """By the deployment's minimum healthy percent."""
        return judging.while_deploying(RollbackState.model_validate(before))

    def grants(self, params: ServiceParams, before: State) -> tuple[Grant, ...]:
        """UpdateService on this service to one of the two versions; while one is in progress, also its end."""
        state = RollbackState.model_validate(before)
        two = tuple(arn for arn in (state.previous, state.version) if arn)
        deploy = Grant(
            actions=("ecs:UpdateService",),
            resources=(state.arn,),
            conditions={"ArnEqualsIfExists": {"ecs:task-definition": two}},
        )
        if state.in_flight is None:
            return (deploy,)
        return (deploy, Grant(actions=("ecs:StopServiceDeployment",), resources=(state.in_flight,)))

    async def execute(self, params: ServiceParams, before: State) -> Outcome:
        """StopServiceDeployment while one is in progress, else UpdateService."""
        detail = self.preview(params, before)
        state = RollbackState.model_validate(before)
        if state.in_flight is None:
            return await self._deploy(params, before, str(state.previous), detail)
        async with self.ecs.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.stop_service_deployment, serviceDeploymentArn=state.in_flight, stopType="ROLLBACK"
            )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    def lacking(self, params: ServiceParams, before: State, now: ServiceState) -> str:
        """The earlier version as PRIMARY deployment, at rest."""
        saved = RollbackState.model_validate(before)
        judging.must_not_have_failed(saved, now)
        if now.version != saved.previous:
            return f"{params.service} to run {short(str(saved.previous))} (now {short(now.version)})"
        return judging.unrest(now)

    async def probe(self, params: ServiceParams, before: State) -> Probe:
        """Told by the version of the PRIMARY deployment, or by a deployment that is being stopped."""
        saved, now = RollbackState.model_validate(before), await self.read(params.service)
        if now.version == saved.previous or (saved.in_flight and await self._was_stopped(saved.in_flight)):
            return "done"
        return "unknown" if judging.new_deployments(saved, now) else "not_done"

    async def undo(self, params: ServiceParams, before: State) -> Outcome:
        """Forward again, unless somebody has deployed a third version since."""
        saved, now = RollbackState.model_validate(before), await self.read(params.service)
        if now.version == saved.version:
            return Outcome(detail=f"{params.service}: runs {short(saved.version)} already")
        if now.version != saved.previous:
            raise Refused(f"{params.service} runs {short(now.version)}, deployed by somebody else; not undone.")
        detail = f"{params.service}: {short(now.version)} -> {short(saved.version)}"
        return await self._deploy(params, before, saved.version, detail)

    async def _deploy(self, params: ServiceParams, before: State, task_definition: str, detail: str) -> Outcome:
        cluster, name = address(self.resources, params.service)
        async with self.ecs.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.update_service, cluster=cluster, service=name, taskDefinition=task_definition
            )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    async def _history(self, service: str) -> list["ServiceDeploymentBriefTypeDef"]:
        """The service's deployments, newest first."""
        cluster, name = address(self.resources, service)
        answer = await AWS.read(
            self.ecs.reader.list_service_deployments,
            cluster=cluster,
            service=name,
            status=["SUCCESSFUL", *IN_FLIGHT],
            maxResults=100,
        )
        return sorted(answer["serviceDeployments"], key=lambda d: d["createdAt"], reverse=True)

    async def _sources(self, under_way: "ServiceDeploymentBriefTypeDef") -> list[str]:
        """The revisions that the deployment under way replaces."""
        answer = await AWS.read(
            self.ecs.reader.describe_service_deployments,
            serviceDeploymentArns=[under_way["serviceDeploymentArn"]],
        )
        found = answer["serviceDeployments"]
        return [source["arn"] for source in found[0].get("sourceServiceRevisions", [])] if found else []

    async def _other_version(self, revisions: list[str], primary: Deployment | None) -> str | None:
        """The task definition of the first revision that is not the PRIMARY's."""
        for start in range(0, len(revisions), MAX_REVISIONS):
            some = revisions[start : start + MAX_REVISIONS]
            answer = await AWS.read(self.ecs.reader.describe_service_revisions, serviceRevisionArns=some)
            versions = {r["serviceRevisionArn"]: r["taskDefinition"] for r in answer["serviceRevisions"]}
            for revision in some:
                if revision in versions and primary and versions[revision] != primary.task_definition:
                    return versions[revision]
        return None

    async def _version(self, arn: str) -> Version:
        answer = await AWS.read(self.ecs.reader.describe_task_definition, taskDefinition=arn)
        return judging.read_version(arn, answer["taskDefinition"])

    async def _was_stopped(self, deployment: str) -> bool:
        answer = await AWS.read(self.ecs.reader.describe_service_deployments, serviceDeploymentArns=[deployment])
        return any(d.get("status", "").startswith(("ROLLBACK_", "STOP")) for d in answer["serviceDeployments"])


def _successful(history: "list[ServiceDeploymentBriefTypeDef]") -> list[str]:
    return [d["targetServiceRevisionArn"] for d in history if d.get("status") == "SUCCESSFUL"]


def _stoppable(state: RollbackState) -> PreflightCheck:
    """Whether the deployment in progress, if there is one, can be stopped, and who moves the traffic."""
    if state.in_flight_status not in (None, "IN_PROGRESS"):
        detail = f"{state.service}: its deployment is {state.in_flight_status}; wait for its end"
        return PreflightCheck(name="deployment", status="failed", detail=detail)
    detail = f"{state.service}: {'one in progress is stopped' if state.in_flight else 'none in progress'}"
    if state.strategy != "ROLLING":
        detail += f"; its strategy is {state.strategy}: ECS shifts the traffic back in its own stages"
        return PreflightCheck(name="deployment", status="warning", detail=detail)
    return PreflightCheck(name="deployment", status="ok", detail=detail)


def _still_there(state: RollbackState) -> list[PreflightCheck]:
    """What the earlier version needs, and nobody has used since: images by a tag, secrets of its own."""
    old, present = state.versions.get(state.previous or ""), state.versions.get(state.version)
    if old is None or present is None:
        return []
    name, warnings = short(old.task_definition), []
    if tags := [image for image in old.images.values() if "@sha256:" not in image]:
        warnings.append(f"{name} runs {', '.join(tags)}: a tag may name another image by now")
    if secrets := sorted({*old.secrets} - {*present.secrets}):
        warnings.append(f"{name} reads {', '.join(secrets)}, which {short(state.version)} does not: see that it exists")
    return [PreflightCheck(name="state", status="warning", detail=warning) for warning in warnings]
