"""AWS AppConfig, REST: the shop's feature flags."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.simulator.aws_errors import AwsError
from app.simulator.aws_query import instant
from app.simulator.flags import APPLICATION, ENVIRONMENT, PROFILE, STRATEGY, FlagDeployment, Flags
from app.simulator.shop import Shop
from app.simulator.topology import ACCOUNT, REGION

Json = dict[str, object]

MUTATING = frozenset({"StartDeployment", "StopDeployment"})
ROOT_ARN = f"arn:aws:appconfig:{REGION}:{ACCOUNT}:application/{APPLICATION[0]}"
_EVENTS = {"COMPLETE": "DEPLOYMENT_COMPLETED", "ROLLED_BACK": "ROLLBACK_COMPLETED", "REVERTED": "REVERT_COMPLETED"}


@dataclass(frozen=True)
class Asked:
    """One request: what stands in the path, the headers (by lower-case name) and the body."""

    path: Mapping[str, str]
    headers: Mapping[str, str]
    body: Json


@dataclass(frozen=True)
class Route:
    """An operation; ``path`` matches below ``/applications``."""

    operation: str
    method: str
    path: re.Pattern[str]
    run: Callable[[Asked, float], Json]


_ENVIRONMENTS = r"/(?P<application>[^/]+)/environments"
_PROFILES = r"/(?P<application>[^/]+)/configurationprofiles"
_DEPLOYMENTS = rf"{_ENVIRONMENTS}/(?P<environment>[^/]+)/deployments"
_VERSIONS = rf"{_PROFILES}/(?P<profile>[^/]+)/hostedconfigurationversions"


class AppConfigApi:
    """AppConfig in front of the shop's flags. Operations take the request and the time in epoch seconds."""

    def __init__(self, shop: Shop) -> None:
        self._flags: Flags = shop.world.flags
        self.routes = [
            Route(operation, method, re.compile(path), run)
            for operation, method, path, run in (
                ("ListApplications", "GET", "", self._list_applications),
                ("GetApplication", "GET", r"/(?P<application>[^/]+)", self._get_application),
                ("ListEnvironments", "GET", _ENVIRONMENTS, self._list_environments),
                ("GetEnvironment", "GET", rf"{_ENVIRONMENTS}/(?P<environment>[^/]+)", self._get_environment),
                ("ListConfigurationProfiles", "GET", _PROFILES, self._list_profiles),
                ("GetConfigurationProfile", "GET", rf"{_PROFILES}/(?P<profile>[^/]+)", self._get_profile),
                ("ListHostedConfigurationVersions", "GET", _VERSIONS, self._list_versions),
                ("ListDeployments", "GET", _DEPLOYMENTS, self._list_deployments),
                ("StartDeployment", "POST", _DEPLOYMENTS, self._start),
                ("GetDeployment", "GET", rf"{_DEPLOYMENTS}/(?P<number>\d+)", self._get_deployment),
                ("StopDeployment", "DELETE", rf"{_DEPLOYMENTS}/(?P<number>\d+)", self._stop),
            )
        ]

    def find(self, method: str, path: str) -> tuple[Route, Mapping[str, str]] | None:
        """Which operation is meant, and what the path names."""
        for route in self.routes:
            match = route.path.fullmatch(path)
            if match and route.method == method:
                return route, match.groupdict()
        return None

    def _list_applications(self, asked: Asked, at: float) -> Json:
        return {"Items": [self._get_application(asked, at)]}

    def _get_application(self, asked: Asked, at: float) -> Json:
        _check(asked)
        return {"Id": APPLICATION[0], "Name": APPLICATION[1]}

    def _list_environments(self, asked: Asked, at: float) -> Json:
        return {"Items": [self._get_environment(asked, at)]}

    def _get_environment(self, asked: Asked, at: float) -> Json:
        _check(asked)
        self._flags.settle(at)
        state = "DEPLOYING" if self._flags.deployments[-1].state == "DEPLOYING" else "READY_FOR_DEPLOYMENT"
        return {"ApplicationId": APPLICATION[0], "Id": ENVIRONMENT[0], "Name": ENVIRONMENT[1], "State": state}

    def _list_profiles(self, asked: Asked, at: float) -> Json:
        return {"Items": [self._get_profile(asked, at)]}

    def _get_profile(self, asked: Asked, at: float) -> Json:
        _check(asked)
        return {
            "ApplicationId": APPLICATION[0],
            "Id": PROFILE[0],
            "Name": PROFILE[1],
            "LocationUri": "hosted",
            "Type": "AWS.AppConfig.FeatureFlags",
        }

    def _list_versions(self, asked: Asked, at: float) -> Json:
        _check(asked)
        head = {"ApplicationId": APPLICATION[0], "ConfigurationProfileId": PROFILE[0]}
        return {"Items": [{**head, "VersionNumber": number} for number in sorted(self._flags.versions, reverse=True)]}

    def _list_deployments(self, asked: Asked, at: float) -> Json:
        _check(asked)
        self._flags.settle(at)
        return {"Items": [_summary(deployment, at) for deployment in reversed(self._flags.deployments)]}

    def _get_deployment(self, asked: Asked, at: float) -> Json:
        _check(asked)
        self._flags.settle(at)
        return _told(self._flags.deployment(int(asked.path["number"])), at)

    def _start(self, asked: Asked, at: float) -> Json:
        _check(asked)
        if asked.body.get("ConfigurationProfileId") not in PROFILE:
            raise AwsError("ResourceNotFoundException", "Configuration profile could not be found.", 404)
        version = str(asked.body.get("ConfigurationVersion", ""))
        if not version.isdigit():
            raise AwsError("BadRequestException", "ConfigurationVersion must be a version number here.")
        latest = asked.body.get("LatestDeploymentNumber")
        if latest is not None and latest != self._flags.deployments[-1].number:
            raise AwsError("ConflictException", f"Deployment {latest} is not the latest one.", 409)
        deployment = self._flags.deploy(int(version), at, str(asked.body.get("Description") or ""))
        return _told(deployment, at)

    def _stop(self, asked: Asked, at: float) -> Json:
        _check(asked)
        revert = asked.headers.get("allow-revert", "").lower() == "true"
        return _told(self._flags.stop(int(asked.path["number"]), at, allow_revert=revert), at)


def deployment_arn(number: str) -> str:
    """Of one deployment in the one environment."""
    return f"{ROOT_ARN}/environment/{ENVIRONMENT[0]}/deployment/{number}"


def _check(asked: Asked) -> None:
    """Ids only, as AppConfig takes them (a name is accepted for a profile and an application by newer SDKs)."""
    known = {"application": APPLICATION, "environment": ENVIRONMENT, "profile": PROFILE}
    for kind, value in asked.path.items():
        if kind in known and value not in known[kind]:
            raise AwsError("ResourceNotFoundException", f"{kind.capitalize()} {value} could not be found.", 404)


def _summary(deployment: FlagDeployment, at: float) -> Json:
    done = deployment.state != "DEPLOYING"
    view: Json = {
        "DeploymentNumber": deployment.number,
        "ConfigurationName": PROFILE[1],
        "ConfigurationVersion": str(deployment.version),
        "ConfigurationProfileId": PROFILE[0],
        "DeploymentDurationInMinutes": 0,
        "GrowthType": "LINEAR",
        "GrowthFactor": 100.0,
        "FinalBakeTimeInMinutes": 0,
        "State": deployment.state,
        "PercentageComplete": 100.0 if deployment.state in ("COMPLETE", "REVERTED") else 0.0,
        "StartedAt": instant(deployment.started_at),
    }
    return view | ({"CompletedAt": instant(deployment.stopped_at or deployment.completed_at)} if done else {})


def _told(deployment: FlagDeployment, at: float) -> Json:
    events = [{"EventType": "DEPLOYMENT_STARTED", "TriggeredBy": "USER", "OccurredAt": instant(deployment.started_at)}]
    if deployment.state in _EVENTS:
        when = instant(deployment.stopped_at or deployment.completed_at)
        events.insert(0, {"EventType": _EVENTS[deployment.state], "TriggeredBy": "USER", "OccurredAt": when})
    return {
        **_summary(deployment, at),
        "ApplicationId": APPLICATION[0],
        "EnvironmentId": ENVIRONMENT[0],
        "DeploymentStrategyId": STRATEGY,
        "ConfigurationLocationUri": "hosted",
        "Description": deployment.description,
        "EventLog": events,
    }
