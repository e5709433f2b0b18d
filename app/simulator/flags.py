"""The shop's feature flags, deployed by AWS AppConfig. Times are epoch seconds."""

import json
from dataclasses import dataclass, field
from typing import Literal

from app.simulator.aws_errors import AwsError

APPLICATION = ("shp4p9q", "shop")  # id, name
ENVIRONMENT = ("prd7x2k", "production")
PROFILE = ("ffl3m8d", "feature-flags")
STRATEGY = "AppConfig.AllAtOnce"
ROLLS_OUT_S = 20.0
REVERTIBLE_S = 72 * 3600.0

State = Literal["DEPLOYING", "COMPLETE", "ROLLED_BACK", "REVERTED"]


@dataclass
class FlagDeployment:
    """One deployment of a version of the flags."""

    number: int
    version: int
    started_at: float
    completed_at: float
    state: State = "DEPLOYING"
    stopped_at: float | None = None
    description: str = ""


@dataclass
class Flags:
    """All versions and their deployments, oldest first."""

    versions: dict[int, str] = field(default_factory=dict)
    deployments: list[FlagDeployment] = field(default_factory=list)

    @classmethod
    def found(cls, now: float) -> "Flags":
        """As they stood for days."""
        first = json.dumps({"semantic_search": {"enabled": False}, "gift_cards": {"enabled": True}})
        at = now - 6 * 86400.0
        done = FlagDeployment(12, 6, at, at + ROLLS_OUT_S, "COMPLETE", description="gift cards for everybody")
        return cls({6: first}, [done])

    def add(self, content: str) -> int:
        """A new version."""
        number = max(self.versions) + 1
        self.versions[number] = content
        return number

    def enabled(self, flag: str, at: float) -> bool:
        """Whether the version in force turns it on."""
        flags = json.loads(self.versions[self.in_force(at)])
        return bool(flags.get(flag, {}).get("enabled"))

    def in_force(self, at: float) -> int:
        """The version that tasks read."""
        self.settle(at)
        return next(d.version for d in reversed(self.deployments) if d.state == "COMPLETE")

    def settle(self, at: float) -> None:
        """Let the deployment under way complete, if it is time."""
        for deployment in self.deployments:
            if deployment.state == "DEPLOYING" and at >= deployment.completed_at:
                deployment.state = "COMPLETE"

    def deploy(self, version: int, at: float, description: str = "") -> FlagDeployment:
        """StartDeployment. Raises AwsError."""
        self.settle(at)
        if version not in self.versions:
            raise AwsError("ResourceNotFoundException", f"Configuration version {version} could not be found.", 404)
        if self.deployments[-1].state == "DEPLOYING":
            raise AwsError("ConflictException", "Another deployment is under way in this environment.", 409)
        number = self.deployments[-1].number + 1
        self.deployments.append(FlagDeployment(number, version, at, at + ROLLS_OUT_S, description=description))
        return self.deployments[-1]

    def deployment(self, number: int) -> FlagDeployment:
        """Raises AwsError."""
        found = next((d for d in self.deployments if d.number == number), None)
        if found is None:
            raise AwsError("ResourceNotFoundException", f"Deployment {number} could not be found.", 404)
        return found

    def stop(self, number: int, at: float, *, allow_revert: bool) -> FlagDeployment:
        """StopDeployment: one under way is rolled back, a completed one is reverted if that is allowed.

        Raises AwsError.
        """
        self.settle(at)
        deployment = self.deployment(number)
        if deployment.state == "DEPLOYING":
            deployment.state = "ROLLED_BACK"
        elif deployment.state == "COMPLETE" and allow_revert and self._may_be_reverted(deployment, at):
            deployment.state = "REVERTED"
        else:
            raise AwsError("BadRequestException", f"Deployment {number} is {deployment.state} and cannot be stopped.")
        deployment.stopped_at = at
        return deployment

    def _may_be_reverted(self, deployment: FlagDeployment, at: float) -> bool:
        """The latest one, within 72 hours, with one before it to go back to."""
        latest = deployment is self.deployments[-1] and len(self.deployments) > 1
        return latest and at - deployment.completed_at <= REVERTIBLE_S
