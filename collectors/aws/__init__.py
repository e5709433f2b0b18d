"""Reads AWS: alarms, metrics, ECS, logs, traces, and what was changed.

Read-only. The least policy of its role, several of whose actions know no narrower resource than ``*``::

    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*", "Action": [
        "cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData",
        "ecs:DescribeServices", "ecs:ListServiceDeployments", "ecs:DescribeServiceDeployments",
        "ecs:DescribeServiceRevisions", "ecs:ListTasks", "ecs:DescribeTasks",
        "elasticloadbalancing:DescribeTargetHealth",
        "logs:DescribeLogGroups", "logs:StartQuery", "logs:GetQueryResults", "logs:StopQuery",
        "logs:FilterLogEvents",
        "xray:GetServiceGraph", "xray:GetTraceSummaries", "xray:BatchGetTraces",
        "xray:StartTraceRetrieval", "xray:ListRetrievedTraces",
        "codedeploy:ListDeployments", "codedeploy:BatchGetDeployments",
        "cloudtrail:LookupEvents", "rds:DescribeEvents"]}]}

``sts:GetCallerIdentity``, which ``autopilot doctor`` asks first, needs no permission. An action that is refused costs
only what it would have shown.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Literal

import boto3
from botocore.config import Config
from pydantic import Field

from collectors._budget import SourceSettings, env
from collectors._http import checked, clock_check
from collectors._jobs import Job, Part
from collectors._questions import target_of, words_of
from collectors._source import Source
from collectors.aws import alarms, changes, cloudwatch, ecs, logs_insights, xray
from collectors.aws._calls import Clients, allowed, call
from collectors.aws.sessions import session_for
from collectors.base import (
    Check,
    Clock,
    Declared,
    LogsRead,
    Scope,
    Series,
    SeriesRef,
    Telemetry,
    TraceRead,
    Window,
)

SIDE_BY_SIDE = 6


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
    return AwsCollector(clock, clients_of(session_of(settings), settings.endpoint_url), settings, declared.log_groups)


def session_of(settings: Settings) -> boto3.Session:
    """The session of the profile, with its role assumed where one is set. Raises ValueError."""
    return session_for(settings.region, settings.profile, settings.role_arn)


def clients_of(session: boto3.Session, endpoint_url: str | None = None) -> Clients:
    """All clients of a session; a request gives up soon, and is tried twice at most."""
    config = Config(connect_timeout=3, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
    return Clients(
        ecs=session.client("ecs", endpoint_url=endpoint_url, config=config),
        elb=session.client("elbv2", endpoint_url=endpoint_url, config=config),
        cloudwatch=session.client("cloudwatch", endpoint_url=endpoint_url, config=config),
        logs=session.client("logs", endpoint_url=endpoint_url, config=config),
        xray=session.client("xray", endpoint_url=endpoint_url, config=config),
        codedeploy=session.client("codedeploy", endpoint_url=endpoint_url, config=config),
        cloudtrail=session.client("cloudtrail", endpoint_url=endpoint_url, config=config),
        rds=session.client("rds", endpoint_url=endpoint_url, config=config),
        sts=session.client("sts", endpoint_url=endpoint_url, config=config),
    )


class AwsCollector(Source[Settings]):
    """One AWS account and region, read-only."""

    name = "aws"

    def __init__(self, clock: Clock, clients: Clients, settings: Settings, log_groups: Sequence[str] = ()) -> None:
        """``log_groups``: those of the catalogue, whose existence ``check`` looks at."""
        super().__init__(settings)
        self._clock, self._clients = clock, clients
        self._log_groups = log_groups

    async def collect(self, scope: Scope) -> Telemetry:
        """The alarm, and what every target that the catalogue ties to AWS shows. Raises CollectorError."""
        found = await self._gathered(scope, self._jobs(scope), side_by_side=SIDE_BY_SIDE)
        return found.model_copy(update={"changes": tuple(changes.told_once(found.changes))})

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        for source in (alarms, cloudwatch, ecs, logs_insights, changes, xray):
            yield from source.jobs(self._clients, self._clock, scope)

    async def measure(self, refs: Sequence[SeriesRef], window: Window) -> list[Series]:
        """The refs' queries over another window. Raises CollectorError."""
        part = self._part("metrics")
        mine = [ref for ref in refs if ref.source == self.name]
        counts = [ref for ref in mine if logs_insights.reads(ref)]
        metrics = [ref for ref in mine if ref not in counts]
        found = await cloudwatch.read(self._clients, part, metrics, [window])
        if counts:
            found += await logs_insights.measure(self._clients, self._clock, part, counts, window)
        return found

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Logs of what the catalogue ties to log groups, and traces of X-Ray."""
        return frozenset(("logs", "trace"))

    def _answer(self, question: LogsRead | TraceRead, scope: Scope) -> tuple[str, Job]:
        if isinstance(question, TraceRead):
            return xray.find(self._clients, self._clock, scope, question.trace_id)
        target = target_of(question.component, scope)
        return logs_insights.find(self._clients, self._clock, scope, target, words_of(question))

    async def check(self) -> list[Check]:
        """Credentials, clock, and each IAM action by its cheapest read."""
        skew: list[float] = []
        who = await checked(self.name, self._settings, "credentials", partial(self._identity, skew))
        ours = [
            allowed(self._settings, action, ask)
            for source in (cloudwatch, alarms, ecs, changes)
            for action, ask in source.permissions(self._clients, self._clock.now())
        ]
        theirs = (
            logs_insights.checks(self._clients, self._settings, self._clock, self._log_groups),
            xray.checks(self._clients, self._settings, self._clock),
        )
        permissions, more = await asyncio.gather(asyncio.gather(*ours), asyncio.gather(*theirs))
        clock = clock_check(skew[0] if skew else None)
        return [who, clock, *permissions, *(check for checks in more for check in checks)]

    async def _identity(self, skew: list[float], part: Part) -> str:
        """Whose credentials these are, and where they read; their clock minus ours goes to ``skew``."""
        answer = await call(part, "sts:GetCallerIdentity", self._clients.sts.get_caller_identity)
        skew += _skew_s(answer["ResponseMetadata"].get("HTTPHeaders", {}))
        meta = self._clients.cloudwatch.meta
        return f"{answer['Arn']} in {meta.region_name} at {meta.endpoint_url}"

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._clients:
            client.close()


def _skew_s(headers: Mapping[str, str]) -> list[float]:
    """AWS's clock minus ours; nothing where the answer does not tell the time."""
    try:
        theirs = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return []
    return [(theirs - datetime.now(UTC)).total_seconds()] if theirs.tzinfo else []
