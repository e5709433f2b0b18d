"""Puts a configuration back that AWS AppConfig has deployed, e.g. a feature flag.

A deployment in progress is stopped, and one that ended within 72 hours reverted, both by StopDeployment and at once.
After that the version before it is deployed again. An environment has one deployment at a time, and StartDeployment
takes the number of the last one as an optimistic lock.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from executors._aws import Api, AwsSettings, Connection, settled
from executors._aws_service import AwsExecutor, AwsOperation, ServiceParams
from executors.base import (
    AppConfigProfile,
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
    from mypy_boto3_appconfig import AppConfigClient
    from mypy_boto3_appconfig.type_defs import DeploymentSummaryTypeDef

AWS = Api(iam_prefix="appconfig")
READS = ("appconfig:ListDeployments",)
DEADLINE_S = 5 * 60.0
REVERTIBLE = timedelta(hours=72)
AT_ONCE = "AppConfig.AllAtOnce"  # AWS's own strategy: to everybody, then watched for 10 minutes
IN_PROGRESS = {"VALIDATING", "DEPLOYING", "BAKING"}
PUT_BACK = {"ROLLING_BACK", "ROLLED_BACK", "REVERTED"}


class Settings(AwsSettings):
    """How to reach AppConfig."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_APPCONFIG_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )


# --- what was read ------------------------------------------------------------------------------------------


class Deployment(Model):
    """One deployment of an environment."""

    number: int
    profile: str
    version: str
    state: str
    percent: float
    completed_at: datetime | None


class ProfileState(Model):
    """What is deployed of a configuration, and what was before it."""

    latest: int = Field(description="Number of the environment's last deployment, of whatever configuration")
    under_way: Deployment | None = Field(description="The environment's deployment in progress")
    current: Deployment | None = Field(description="The one that brought what is served, or is bringing it")
    back_to: str | None = Field(description="The version before it")
    how: Literal["stop", "deploy"] = Field(description="StopDeployment of the current one, or a new deployment")


# --- operations ---------------------------------------------------------------------------------------------


class RevertConfiguration(AwsOperation[ServiceParams, "AppConfigClient"]):
    """Goes back to the version of a configuration before the present one."""

    name = "revert_configuration"
    summary = "Put a configuration of AWS AppConfig back to the version before the present one"
    risk = "medium"
    reversible = True
    minutes = 1.0
    permissions = (*READS, "appconfig:StopDeployment", "appconfig:StartDeployment")
    params = ServiceParams
    needs = "app_config (application, environment, profile)"

    def target(self, resource: Resource) -> object:
        """A configuration profile."""
        return resource.app_config

    def resource(self, params: ServiceParams) -> str:
        """``appconfig:<application>/<environment>``: an environment has one deployment at a time."""
        at = self._address(params.service)
        return f"appconfig:{at.application}/{at.environment}"

    async def inspect(self, params: ServiceParams) -> State:
        """The deployments of the environment."""
        return (await self._read(params.service)).model_dump(mode="json")

    def pinned(self, params: ServiceParams, before: State) -> State:
        """Which deployment is put back, and to which version; not its progress."""
        state = ProfileState.model_validate(before)
        return {
            "deployment": state.current.number if state.current else None,
            "version": state.current.version if state.current else None,
            "back to version": state.back_to,
        }

    def preview(self, params: ServiceParams, before: State) -> str:
        """From which version to which, and how."""
        state = ProfileState.model_validate(before)
        current = self._must_be_revertible(params, state)
        how = {
            "stop": f"by taking deployment {current.number} back ({current.state}, {current.percent:g}%)",
            "deploy": "by deploying it to everybody at once",
        }[state.how]
        return f"{params.service}: configuration version {current.version} -> {state.back_to}, {how}"

    def changes(self, params: ServiceParams, before: State) -> tuple[Change, ...]:
        """The version that is served."""
        state = ProfileState.model_validate(before)
        current = self._must_be_revertible(params, state)
        at = self._address(params.service)
        served = f"{current.version} ({current.percent:g}% of the hosts)" if state.under_way else current.version
        return (Change(what=f"version of {at.profile} in {at.environment}", before=served, after=str(state.back_to)),)

    async def looked(self, params: ServiceParams, before: State) -> tuple[PreflightCheck, ...]:
        """A deployment in progress."""
        under_way = ProfileState.model_validate(before).under_way
        if under_way is None:
            return (PreflightCheck(name="deployment", status="ok", detail="none is in progress"),)
        told = f"deployment {under_way.number} of {under_way.profile} is {under_way.state}, {under_way.percent:g}%"
        ours = under_way.profile == self._address(params.service).profile
        return (PreflightCheck(name="deployment", status="warning" if ours else "failed", detail=told),)

    def grants(self, params: ServiceParams, before: State) -> tuple[Grant, ...]:
        """To take one deployment back, and to make one: the step is the one, its undo the other."""
        state, at = ProfileState.model_validate(before), self._address(params.service)
        meta = self.connection.reader.meta
        # AppConfig's answers name no ARN, hence no account; its ids are those of this account only.
        prefix = f"arn:{meta.partition}:appconfig:{meta.region_name}:*"
        application = f"{prefix}:application/{at.application}"
        environment = f"{application}/environment/{at.environment}"
        start = Grant(
            actions=("appconfig:StartDeployment",),
            resources=(
                application,
                environment,
                f"{application}/configurationprofile/{at.profile}",
                f"{prefix}:deploymentstrategy/{AT_ONCE}",
            ),
        )
        stop = Grant(
            actions=("appconfig:StopDeployment",),
            resources=(application, environment, f"{environment}/deployment/{_number(state)}"),
        )
        return (stop,) if state.under_way else (stop, start)

    async def execute(self, params: ServiceParams, before: State) -> Outcome:
        """One StopDeployment, or one StartDeployment locked to the last deployment that was read."""
        detail, state = self.preview(params, before), ProfileState.model_validate(before)
        if state.how == "deploy":
            return await self._deploy(params, before, str(state.back_to), state.latest, detail)
        return await self._stop(params, before, detail)

    async def settle(self, params: ServiceParams, before: State) -> State:
        """Waits up to 5 minutes until the earlier version is served to everybody."""
        saved = ProfileState.model_validate(before)

        async def read() -> Deployment | None:
            return self._ours(params, saved, await self._deployments(params.service))

        def lacking(ours: Deployment | None) -> str:
            if ours is None:
                return f"{params.service} to start its deployment"
            if saved.how == "stop":
                over = ours.state in PUT_BACK - {"ROLLING_BACK"}
                return "" if over else f"deployment {ours.number} to be taken back (now {ours.state})"
            if ours.state in PUT_BACK:
                raise ExecutorError(f"{params.service}: deployment {ours.number} was taken back: {ours.state}.")
            over = ours.state == "COMPLETE" or (ours.state == "BAKING" and ours.percent == 100)
            return "" if over else f"deployment {ours.number} (now {ours.state}, {ours.percent:g}%)"

        await settled(self.clock, read, lacking, DEADLINE_S)
        return await self.inspect(params)

    async def probe(self, params: ServiceParams, before: State) -> Probe:
        """Told by the state of the deployment that is taken back, or by a new one of the earlier version."""
        saved = ProfileState.model_validate(before)
        deployments = await self._deployments(params.service)
        ours = self._ours(params, saved, deployments)
        newer = [d for d in deployments if d.number > saved.latest]
        if saved.how == "deploy":
            return "done" if ours else ("unknown" if newer else "not_done")
        if ours and ours.state in PUT_BACK:
            return "done"
        return "not_done" if ours and not newer else "unknown"

    async def undo(self, params: ServiceParams, before: State) -> Outcome:
        """The newer version again, unless somebody has deployed another since, or it was never fully deployed."""
        saved = ProfileState.model_validate(before)
        current = self._must_be_revertible(params, saved)
        detail = f"{params.service}: configuration version {saved.back_to} -> {current.version}"
        deployments = await self._deployments(params.service)
        newer = [d for d in deployments if d.number > saved.latest]
        if saved.how == "deploy":
            return await self._take_back(params, before, newer, detail)
        if saved.under_way:
            raise Refused(f"{params.service}: version {current.version} was not fully deployed; deploy it anew.")
        if newer:
            raise Refused(f"{params.service}: deployment {newer[0].number} was made by somebody else; not undone.")
        now = next((d for d in deployments if d.number == current.number), current)
        if now.state not in PUT_BACK:
            return Outcome(detail=f"{params.service}: serves version {current.version} already")
        return await self._deploy(params, before, current.version, saved.latest, detail)

    async def _take_back(
        self, params: ServiceParams, before: State, newer: Sequence[Deployment], detail: str
    ) -> Outcome:
        """Stops or reverts the deployment that this step made."""
        if not newer:
            return Outcome(detail=f"{params.service}: nothing was deployed")
        if not self._is_back(params, ProfileState.model_validate(before), newer):
            raise Refused(f"{params.service}: deployment {newer[0].number} was made by somebody else; not undone.")
        if newer[0].state in PUT_BACK:
            return Outcome(detail=f"{params.service}: deployment {newer[0].number} is {newer[0].state} already")
        return await self._stop(params, before, detail)

    def _must_be_revertible(self, params: ServiceParams, state: ProfileState) -> Deployment:
        """The deployment to go back from. Raises Refused."""
        at = self._address(params.service)
        if state.under_way and state.under_way.profile != at.profile:
            raise Refused(
                f"{params.service}: deployment {state.under_way.number} of another configuration"
                f" ({state.under_way.profile}) is in progress in {at.environment}; wait for its end."
            )
        if state.current is None:
            raise Refused(f"{params.service}: AppConfig lists no deployment of {at.profile} in {at.environment}.")
        if state.current.state == "ROLLING_BACK":
            raise Refused(f"{params.service}: deployment {state.current.number} is being rolled back already.")
        if state.under_way and state.how == "deploy":
            raise Refused(f"{params.service}: deployment {state.under_way.number} is in progress; wait for its end.")
        if state.back_to is None:
            raise Refused(f"{params.service}: AppConfig lists no version before {state.current.version}.")
        return state.current

    def _address(self, service: str) -> AppConfigProfile:
        named = self.entry(service).app_config
        assert named is not None  # entry() refuses without
        return named

    async def _read(self, service: str) -> ProfileState:
        deployments, profile = await self._deployments(service), self._address(service).profile
        return _state(deployments, profile, revertible_since=self.clock.now() - REVERTIBLE)

    async def _deployments(self, service: str) -> list[Deployment]:
        """The last 50 deployments of the environment, newest first."""
        at = self._address(service)
        answer = await AWS.read(
            self.connection.reader.list_deployments,
            ApplicationId=at.application,
            EnvironmentId=at.environment,
            MaxResults=50,
        )
        return [_deployment(item) for item in answer["Items"]]

    def _ours(self, params: ServiceParams, saved: ProfileState, deployments: Sequence[Deployment]) -> Deployment | None:
        """The deployment that is taken back, or the one that was made instead."""
        if saved.how == "stop" and saved.current:
            return next((d for d in deployments if d.number == saved.current.number), None)
        newer = [d for d in deployments if d.number > saved.latest]
        return newer[0] if self._is_back(params, saved, newer) else None

    def _is_back(self, params: ServiceParams, saved: ProfileState, newer: Sequence[Deployment]) -> bool:
        """Whether the only new deployment is that of the earlier version."""
        wanted = (self._address(params.service).profile, saved.back_to)
        return [(d.profile, d.version) for d in newer] == [wanted]

    async def _stop(self, params: ServiceParams, before: State, detail: str) -> Outcome:
        at = self._address(params.service)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.stop_deployment,
                ApplicationId=at.application,
                EnvironmentId=at.environment,
                DeploymentNumber=_number(ProfileState.model_validate(before)),
                AllowRevert=True,
            )
        return Outcome(request_ids=(answer["ResponseMetadata"]["RequestId"],), detail=detail)

    async def _deploy(self, params: ServiceParams, before: State, version: str, latest: int, detail: str) -> Outcome:
        at = self._address(params.service)
        async with self.connection.acting(self.name, self.grants(params, before)) as client:
            answer = await AWS.write(
                client.start_deployment,
                ApplicationId=at.application,
                EnvironmentId=at.environment,
                ConfigurationProfileId=at.profile,
                ConfigurationVersion=version,
                DeploymentStrategyId=AT_ONCE,
                LatestDeploymentNumber=latest,
            )
        return Outcome(
            request_ids=(answer["ResponseMetadata"]["RequestId"],),
            detail=detail,
            data={"deployment": answer["DeploymentNumber"]},
        )


OPERATIONS: tuple[type[AwsOperation[Any, "AppConfigClient"]], ...] = (RevertConfiguration,)


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``appconfig``. Raises ValueError naming a missing setting."""
    settings = Settings()
    connection: Connection[AppConfigClient] = Connection("appconfig", settings, reads=READS)
    return AwsExecutor(settings, connection, [kind(resources, clock, connection) for kind in OPERATIONS])


# --- reading answers ----------------------------------------------------------------------------------------


def _deployment(item: "DeploymentSummaryTypeDef") -> Deployment:
    return Deployment(
        number=item.get("DeploymentNumber", 0),
        profile=item.get("ConfigurationProfileId", ""),
        version=item.get("ConfigurationVersion", ""),
        state=item.get("State", ""),
        percent=item.get("PercentageComplete", 0.0),
        completed_at=item.get("CompletedAt"),
    )


def _state(deployments: Sequence[Deployment], profile: str, *, revertible_since: datetime) -> ProfileState:
    """What the list of deployments, newest first, says of one configuration."""
    ours = [d for d in deployments if d.profile == profile]
    serving = [d for d in ours if d.state not in ("ROLLED_BACK", "REVERTED")]
    current = serving[0] if serving else None
    earlier = [d.version for d in serving[1:]]
    back_to = next((version for version in earlier if current and version != current.version), None)
    # AWS takes back the newest deployment only, and to what was deployed before it, were it the same version again.
    stoppable = current is not None and current is ours[0] and earlier[:1] == [back_to]
    return ProfileState(
        latest=deployments[0].number if deployments else 0,
        under_way=next((d for d in deployments if d.state in IN_PROGRESS | {"ROLLING_BACK"}), None),
        current=current,
        back_to=back_to,
        how="stop" if stoppable and current and _recent(current, revertible_since) else "deploy",
    )


def _number(state: ProfileState) -> int:
    """Of the deployment to take back: the current one, or the one to be made, which the lock lets be the next."""
    return state.current.number if state.how == "stop" and state.current else state.latest + 1


def _recent(current: Deployment, revertible_since: datetime) -> bool:
    """Whether it is in progress, or ended so lately that it may be reverted."""
    if current.state in IN_PROGRESS:
        return True
    return current.completed_at is not None and current.completed_at > revertible_since
