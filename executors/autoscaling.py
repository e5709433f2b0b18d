"""Replaces the instances of an EC2 Auto Scaling group, and changes how many it has.

A refresh to another version of the group's launch template names that version, which is what lets AWS roll it back; a
refresh without one replaces the instances by the same kind, so there is nothing to roll back to and its undo only
stops it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from executors._aws import Api, AwsSettings, Connection, settled
from executors._aws_service import AwsExecutor, AwsOperation, S, ServiceParams
from executors.base import (
    Capacity,
    Change,
    Clock,
    Executor,
    ExecutorError,
    Grant,
    Model,
    Outcome,
    PreflightCheck,
    Probe,
    Refused,
    Resource,
    State,
)

if TYPE_CHECKING:
    from mypy_boto3_autoscaling import AutoScalingClient
    from mypy_boto3_autoscaling.type_defs import (
        AutoScalingGroupTypeDef,
        InstanceRefreshTypeDef,
        LaunchTemplateSpecificationTypeDef,
        RefreshPreferencesTypeDef,
    )

AWS = Api(iam_prefix="autoscaling")
READS = (
    "autoscaling:DescribeAutoScalingGroups",
    "autoscaling:DescribeInstanceRefreshes",
    "autoscaling:DescribePolicies",
)
SCALE_DEADLINE_S = 10 * 60.0
REFRESH_DEADLINE_S = 60 * 60.0
IN_PROGRESS = {"Pending", "InProgress", "Baking", "Cancelling", "RollbackInProgress"}
FAILED = {"Failed", "Cancelled", "RollbackFailed", "RollbackSuccessful", "Cancelling", "RollbackInProgress"}
REPLACING = {"Launch", "Terminate", "InstanceRefresh"}  # processes without which nothing is replaced


class Settings(AwsSettings):
    """How to reach EC2 Auto Scaling."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_AUTOSCALING_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- parameters ---------------------------------------------------------------------------------------------


class RefreshParams(ServiceParams):
    """One service whose instances are replaced, a few at a time."""

    min_healthy_percent: int = Field(
        default=90, ge=50, le=100, description="Percent of the desired instances that stay in service throughout"
    )
    launch_template_version: int | None = Field(
        default=None, ge=1, description="Version of the group's launch template to move to; none: the one it has"
    )


class CapacityParams(ServiceParams):
    """One service and how many instances it shall have."""

    desired_capacity: int = Field(ge=0, description="Instances, within the group's and the catalogue's limits")


# --- what was read ------------------------------------------------------------------------------------------


class GroupState(Model):
    """An Auto Scaling group as DescribeAutoScalingGroups has it, and its last refresh."""

    name: str
    arn: str
    minimum: int
    maximum: int
    desired: int
    in_service: int = Field(description="Healthy instances that take requests")
    template: str | None = Field(description="LaunchTemplateId; None: a launch configuration or a mix of instances")
    template_version: str | None = Field(description="A number, $Latest or $Default")
    suspended: tuple[str, ...] = Field(description="Names of suspended processes")
    refresh: str | None = Field(description="Id of the newest instance refresh")
    refresh_status: str | None
    refresh_progress: str = ""

    @property
    def refreshing(self) -> bool:
        """Whether a refresh, or its cancelling or rollback, is under way."""
        return self.refresh_status in IN_PROGRESS


# --- operations ---------------------------------------------------------------------------------------------


class GroupOperation(AwsOperation[S, "AutoScalingClient"]):
    """What the operations on a group have in common."""

    needs = "auto_scaling_group"

    def target(self, resource: Resource) -> object:
        """A group."""
        return resource.auto_scaling_group

    def resource(self, params: S) -> str:
        """``asg:<AutoScalingGroupName>``."""
        return f"asg:{self.group(params.service)}"

    def group(self, service: str) -> str:
        """The group's name. Raises Refused."""
        return str(self.entry(service).auto_scaling_group)

    async def inspect(self, params: S) -> State:
        """The group and its last refresh."""
        return (await self.read(params.service)).model_dump(mode="json")

    async def read(self, service: str) -> GroupState:
        """The group as it is now. Raises ExecutorError."""
        name = self.group(service)
        groups = await AWS.read(self.connection.reader.describe_auto_scaling_groups, AutoScalingGroupNames=[name])
        if not groups["AutoScalingGroups"]:
            raise ExecutorError(f"{service}: there is no Auto Scaling group {name} in this account and region.")
        refreshes = await AWS.read(
            self.connection.reader.describe_instance_refreshes, AutoScalingGroupName=name, MaxRecords=1
        )
        return _state(groups["AutoScalingGroups"][0], next(iter(refreshes["InstanceRefreshes"]), None))

    async def scaling(self, service: str) -> PreflightCheck:
        """Which scaling policies may set another number of instances."""
        reader, group = self.connection.reader, self.group(service)
        try:
            answer = await AWS.read(reader.describe_policies, AutoScalingGroupName=group)
        except ExecutorError as error:
            return PreflightCheck(name="scaling", status="skipped", detail=str(error))
        names = [p.get("PolicyName", "") for p in answer["ScalingPolicies"] if p.get("Enabled", True)]
        if names:
            told = f"scaling policies may change the number of instances again: {', '.join(names)}"
            return PreflightCheck(name="scaling", status="warning", detail=told)
        return PreflightCheck(name="scaling", status="ok", detail="no scaling policy is on")


class RefreshInstances(GroupOperation[RefreshParams]):
    """Replaces all instances of a group by new ones, a few at a time."""

    name = "refresh_instances"
    summary = "Replace all instances of an Auto Scaling group, a few at a time, on wish by another template version"
    risk = "medium"
    reversible = True
    minutes = 20.0
    permissions = (
        *READS,
        "autoscaling:StartInstanceRefresh",
        "autoscaling:RollbackInstanceRefresh",
        "autoscaling:CancelInstanceRefresh",
        "ec2:RunInstances",
    )
    params = RefreshParams

    def pinned(self, params: RefreshParams, before: State) -> State:
        """What people and scaling policies set, and whether a refresh was made since."""
        state = GroupState.model_validate(before)
        return {
            "desired instances": state.desired,
            "launch template version": state.template_version,
            "last instance refresh": state.refresh,
        }

    def preview(self, params: RefreshParams, before: State) -> str:
        """How many instances would be replaced, by what."""
        state = GroupState.model_validate(before)
        self._must_be_replaceable(params, state)
        to = params.launch_template_version
        version = f"template version {state.template_version} -> {to}" if to else "the same kind"
        return (
            f"{params.service}: {state.desired} instances -> {state.desired} new ones ({version}),"
            f" at least {_kept(params, state)} in service throughout"
        )

    def changes(self, params: RefreshParams, before: State) -> tuple[Change, ...]:
        """The instances, and the template version."""
        self.preview(params, before)
        state = GroupState.model_validate(before)
        instances = Change(
            what=f"instances of {state.name}", before=f"{state.desired} as they are", after=f"{state.desired} new ones"
        )
        if params.launch_template_version is None:
            return (instances,)
        version = Change(
            what=f"version of {state.template}",
            before=str(state.template_version),
            after=str(params.launch_template_version),
        )
        return (instances, version)

    async def looked(self, params: RefreshParams, before: State) -> tuple[PreflightCheck, ...]:
        """Scaling policies."""
        return (await self.scaling(params.service),)

    def capacity(self, params: RefreshParams, before: State) -> Capacity:
        """The share that stays in service."""
        state = GroupState.model_validate(before)
        return Capacity(
            service=params.service,
            servers_now=state.in_service,
            servers_then=min(state.in_service, _kept(params, state)),
        )

    def grants(self, params: RefreshParams, before: State) -> tuple[Grant, ...]:
        """To start the refresh and to end it; for a template version also to launch from just that template."""
        state = GroupState.model_validate(before)
        ends = "CancelInstanceRefresh" if params.launch_template_version is None else "RollbackInstanceRefresh"
        refresh = Grant(actions=("autoscaling:StartInstanceRefresh", f"autoscaling:{ends}"), resources=(state.arn,))
        if params.launch_template_version is None:
            return (refresh,)
        partition, _, region, account = state.arn.split(":")[1:5]
        template = f"arn:{partition}:ec2:{region}:{account}:launch-template/{state.template}"
        # AWS asks this of whoever names a template version. What is launched has no ARN yet: only the template tells.
        launch = Grant(
            actions=("ec2:RunInstances",),
            resources=("*",),
            conditions={"ArnEquals": {"ec2:LaunchTemplate": (template,)}},
        )
        return (refresh, launch)

    async def execute(self, params: RefreshParams, before: State) -> Outcome:
        """One StartInstanceRefresh; AWS itself takes only one at a time."""
        detail, state = self.preview(params, before), GroupState.model_validate(before)
        return await self._start(params, before, state, params.launch_template_version, detail)

    async def settle(self, params: RefreshParams, before: State) -> State:
        """Waits up to an hour for the end of the refresh; one that failed or was rolled back is an error."""
        saved = GroupState.model_validate(before)

        def lacking(now: GroupState) -> str:
            if now.refresh == saved.refresh:
                return f"{params.service} to start its refresh"
            if now.refresh_status in FAILED:
                raise ExecutorError(f"{params.service}: its refresh is {now.refresh_status}: {now.refresh_progress}")
            return f"the refresh of {params.service}: {now.refresh_progress}" if now.refreshing else ""

        now = await settled(self.clock, lambda: self.read(params.service), lacking, REFRESH_DEADLINE_S, every_s=30)
        return now.model_dump(mode="json")

    async def probe(self, params: RefreshParams, before: State) -> Probe:
        """Told by the id of the newest refresh, and by the template version it moves to."""
        saved = GroupState.model_validate(before)
        newest = await self._newest(params.service)
        if newest is None or newest["InstanceRefreshId"] == saved.refresh:
            return "not_done"
        return "done" if _version_of(newest) == params.launch_template_version else "unknown"

    async def undo(self, params: RefreshParams, before: State) -> Outcome:
        """Ends the refresh that is in progress; a finished one is followed by one back to the old version."""
        saved, now = GroupState.model_validate(before), await self.read(params.service)
        newest = await self._newest(params.service)
        if newest is None or newest["InstanceRefreshId"] == saved.refresh:
            return Outcome(detail=f"{params.service}: no instance was replaced")
        if _version_of(newest) != params.launch_template_version:
            raise Refused(f"{params.service}: somebody else started another refresh; not undone.")
        if now.refresh_status in FAILED:
            return Outcome(detail=f"{params.service}: its refresh is {now.refresh_status} already")
        if now.refreshing:
            return await self._end(params, before)
        if params.launch_template_version is None:
            raise Refused(f"{params.service}: all instances are new already, of the same kind as before.")
        detail = f"{params.service}: template version {now.template_version} -> {saved.template_version}"
        return await self._start(params, before, saved, int(str(saved.template_version)), detail)

    def _must_be_replaceable(self, params: RefreshParams, state: GroupState) -> None:
        """Raises Refused."""
        if state.refreshing:
            raise Refused(
                f"{params.service}: instance refresh {state.refresh} is {state.refresh_status}; wait for its end."
            )
        if stopped := sorted(REPLACING.intersection(state.suspended)):
            raise Refused(f"{params.service}: {', '.join(stopped)} is suspended in {state.name}; resume it first.")
        if state.desired == 0:
            raise Refused(f"{params.service}: {state.name} has no instances; scale it instead.")
        self._must_have_another_version(params, state)

    def _must_have_another_version(self, params: RefreshParams, state: GroupState) -> None:
        """Raises Refused if a version is asked for that AWS could not roll back, or that is there already."""
        if params.launch_template_version is None:
            return
        if state.template is None or not str(state.template_version).isdigit():
            raise Refused(
                f"{params.service}: {state.name} names no numbered version of a launch template (it has"
                f" {state.template_version or 'none'}); AWS could not roll back. Move it by its own pipeline."
            )
        if str(params.launch_template_version) == state.template_version:
            raise Refused(
                f"{params.service} has template version {state.template_version} already; to replace its"
                " instances by the same kind, name no version."
            )

    async def _newest(self, service: str) -> "InstanceRefreshTypeDef | None":
        answer = await AWS.read(
            self.connection.reader.describe_instance_refreshes,
            AutoScalingGroupName=self.group(service),
            MaxRecords=1,
        )
        return next(iter(answer["InstanceRefreshes"]), None)

    async def _start(
        self, params: RefreshParams, before: State, state: GroupState, version: int | None, detail: str
    ) -> Outcome:
        preferences: RefreshPreferencesTypeDef = {"MinHealthyPercentage": params.min_healthy_percent}
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            if version is None:
                answer = await AWS.write(
                    client.start_instance_refresh, AutoScalingGroupName=state.name, Preferences=preferences
                )
            else:
                template: LaunchTemplateSpecificationTypeDef = {
                    "LaunchTemplateId": str(state.template),
                    "Version": str(version),
                }
                answer = await AWS.write(
                    client.start_instance_refresh,
                    AutoScalingGroupName=state.name,
                    DesiredConfiguration={"LaunchTemplate": template},
                    Preferences={**preferences, "AutoRollback": True},
                )
        refresh = answer["InstanceRefreshId"]
        return Outcome(
            request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail, data={"instance_refresh": refresh}
        )

    async def _end(self, params: RefreshParams, before: State) -> Outcome:
        """Rolls back what moved to another version; stops what replaces by the same kind."""
        name = self.group(params.service)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            if params.launch_template_version is None:
                cancelled = await AWS.write(client.cancel_instance_refresh, AutoScalingGroupName=name)
                request_id, detail = cancelled["ResponseMetadata"]["RequestId"], "refresh stopped where it was"
            else:
                rolled = await AWS.write(client.rollback_instance_refresh, AutoScalingGroupName=name)
                request_id, detail = rolled["ResponseMetadata"]["RequestId"], "refresh is being rolled back"
        return Outcome(request_ids=(request_id,), detail=f"{params.service}: {detail}")


class ScaleAutoScalingGroup(GroupOperation[CapacityParams]):
    """Changes how many instances a group has."""

    name = "scale_auto_scaling_group"
    summary = "Set the number of instances of an Auto Scaling group"
    risk = "medium"
    reversible = True
    minutes = 5.0
    permissions = (*READS, "autoscaling:SetDesiredCapacity")
    params = CapacityParams

    def resource(self, params: CapacityParams) -> str:
        """``asg:<AutoScalingGroupName>``. Raises Refused also beyond the catalogue's min_tasks and max_tasks."""
        key, entry = super().resource(params), self.entry(params.service)
        if not entry.min_tasks <= params.desired_capacity <= entry.max_tasks:
            raise Refused(
                f"{params.desired_capacity} instances is outside {entry.min_tasks}..{entry.max_tasks},"
                f" the min_tasks and max_tasks of services.{params.service} in autopilot.yaml."
            )
        return key

    def pinned(self, params: CapacityParams, before: State) -> State:
        """What people and scaling policies set."""
        state = GroupState.model_validate(before)
        return {
            "desired instances": state.desired,
            "minimum instances": state.minimum,
            "maximum instances": state.maximum,
        }

    def preview(self, params: CapacityParams, before: State) -> str:
        """From how many instances to how many."""
        self.resource(params)
        state, wanted = GroupState.model_validate(before), params.desired_capacity
        if not state.minimum <= wanted <= state.maximum:
            raise Refused(
                f"{params.service}: {wanted} instances is outside {state.minimum}..{state.maximum}, the limits of"
                f" {state.name} itself; change those first."
            )
        if state.desired == wanted:
            raise Refused(f"{params.service} is set to {wanted} instances already.")
        process = "Launch" if wanted > state.desired else "Terminate"
        if process in state.suspended:
            raise Refused(f"{params.service}: {process} is suspended in {state.name}; resume it first.")
        return f"{params.service}: {state.desired} instances -> {wanted} instances"

    def changes(self, params: CapacityParams, before: State) -> tuple[Change, ...]:
        """The number of instances."""
        self.preview(params, before)
        state = GroupState.model_validate(before)
        return (
            Change(what=f"instances of {state.name}", before=str(state.desired), after=str(params.desired_capacity)),
        )

    async def looked(self, params: CapacityParams, before: State) -> tuple[PreflightCheck, ...]:
        """Scaling policies, and a refresh in flight."""
        state = GroupState.model_validate(before)
        if not state.refreshing:
            return (await self.scaling(params.service),)
        told = f"instance refresh {state.refresh} is {state.refresh_status}: it takes the new number over"
        return (
            await self.scaling(params.service),
            PreflightCheck(name="deployment", status="warning", detail=told),
        )

    def capacity(self, params: CapacityParams, before: State) -> Capacity:
        """The wanted number; while more are launched, as many as now."""
        state = GroupState.model_validate(before)
        return Capacity(
            service=params.service, servers_now=state.in_service, servers_then=float(params.desired_capacity)
        )

    def grants(self, params: CapacityParams, before: State) -> tuple[Grant, ...]:
        """To set the size of this group."""
        arn = GroupState.model_validate(before).arn
        return (Grant(actions=("autoscaling:SetDesiredCapacity",), resources=(arn,)),)

    async def execute(self, params: CapacityParams, before: State) -> Outcome:
        """One SetDesiredCapacity, unless somebody has set another number since it was read."""
        detail, saved = self.preview(params, before), GroupState.model_validate(before)
        now = await self.read(params.service)
        if now.desired != saved.desired:
            raise Refused(f"{params.service} is set to {now.desired} instances since a moment: look again.")
        return await self._set(params, before, params.desired_capacity, detail)

    async def settle(self, params: CapacityParams, before: State) -> State:
        """Waits up to 10 minutes until the wanted number is in service."""

        def lacking(now: GroupState) -> str:
            if now.desired != params.desired_capacity:
                return f"{params.service} to want {params.desired_capacity} instances (now {now.desired}; a policy?)"
            if now.in_service != now.desired:
                return f"{params.service}: {now.in_service} of {now.desired} instances in service"
            return ""

        now = await settled(self.clock, lambda: self.read(params.service), lacking, SCALE_DEADLINE_S)
        return now.model_dump(mode="json")

    async def probe(self, params: CapacityParams, before: State) -> Probe:
        """Told by the desired number."""
        desired = (await self.read(params.service)).desired
        if desired == params.desired_capacity:
            return "done"
        return "not_done" if desired == GroupState.model_validate(before).desired else "unknown"

    async def undo(self, params: CapacityParams, before: State) -> Outcome:
        """The old number again, unless somebody has set a third one since."""
        old, now = GroupState.model_validate(before).desired, (await self.read(params.service)).desired
        if now == old:
            return Outcome(detail=f"{params.service}: already back at {old} instances")
        if now != params.desired_capacity:
            raise Refused(f"{params.service} was set to {now} instances by somebody else; not undone.")
        return await self._set(params, before, old, f"{params.service}: {now} instances -> {old} instances")

    async def _set(self, params: CapacityParams, before: State, count: int, detail: str) -> Outcome:
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.set_desired_capacity,
                AutoScalingGroupName=self.group(params.service),
                DesiredCapacity=count,
                HonorCooldown=False,  # an incident does not wait for the cooldown of an earlier scaling
            )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)


OPERATIONS: tuple[type[GroupOperation[Any]], ...] = (RefreshInstances, ScaleAutoScalingGroup)


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``autoscaling``. Raises ValueError naming a missing setting."""
    settings = Settings()
    connection: Connection[AutoScalingClient] = Connection("autoscaling", settings, reads=READS)
    return AwsExecutor(settings, connection, [kind(resources, clock, connection) for kind in OPERATIONS])


# --- reading answers ----------------------------------------------------------------------------------------


def _state(group: "AutoScalingGroupTypeDef", refresh: "InstanceRefreshTypeDef | None") -> GroupState:
    template = group.get("LaunchTemplate", {})
    instances = group.get("Instances", [])
    return GroupState(
        name=group["AutoScalingGroupName"],
        arn=group.get("AutoScalingGroupARN", ""),
        minimum=group["MinSize"],
        maximum=group["MaxSize"],
        desired=group["DesiredCapacity"],
        in_service=sum(i["LifecycleState"] == "InService" and i["HealthStatus"] == "Healthy" for i in instances),
        template=template.get("LaunchTemplateId"),
        template_version=template.get("Version"),
        suspended=tuple(sorted(p.get("ProcessName", "") for p in group.get("SuspendedProcesses", []))),
        refresh=refresh.get("InstanceRefreshId") if refresh else None,
        refresh_status=refresh.get("Status") if refresh else None,
        refresh_progress=_progress(refresh) if refresh else "",
    )


def _progress(refresh: "InstanceRefreshTypeDef") -> str:
    share = f"{refresh.get('PercentageComplete', 0)}%"
    return " ".join(filter(None, (refresh.get("Status", ""), share, refresh.get("StatusReason", ""))))


def _version_of(refresh: "InstanceRefreshTypeDef") -> int | None:
    """The template version a refresh moves to; None: it replaces by the same kind."""
    version = refresh.get("DesiredConfiguration", {}).get("LaunchTemplate", {}).get("Version", "")
    return int(version) if version.isdigit() else None


def _kept(params: RefreshParams, state: GroupState) -> int:
    """Instances that stay in service; AWS rounds up."""
    return -(-state.desired * params.min_healthy_percent // 100)
