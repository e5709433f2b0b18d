"""An AWS account whose answers are scripted: requests are checked against the service models by botocore's Stubber."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

import boto3
from botocore.stub import Stubber

from collectors._budget import Budget
from collectors._jobs import Job, gather
from collectors._limits import limit_of
from collectors.aws import AwsCollector, Settings, clients_of
from collectors.base import EcsService, Scope, Target, Telemetry, Window

T0 = datetime(2024, 12, 20, 9, 0, 30, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=10))
BASELINE = Window(start=T0 - timedelta(hours=1), end=T0)
ACCOUNT = "arn:aws:ecs:eu-west-1:123456789012"
SESSION = boto3.Session("key", "secret", region_name="eu-west-1")  # one: it reads the service models once
ECS_ONLY = Target(service="payment", ecs=EcsService(cluster="shop", service="payment-service"))


def hurry() -> None:
    """What is asked within this event loop is not held to AWS's pace, which some quotas make slow."""
    actions = ("StartQuery", "GetQueryResults", "StopQuery", "FilterLogEvents", "DescribeLogGroups")
    for quota in ("cloudtrail", *(f"logs:{action}" for action in actions)):
        limit_of(f"aws:{quota}", per_second=1000.0, at_once=8)  # the first to ask sets the pace


class StoppedClock:
    """Stands still, an hour after the incident unless told otherwise."""

    def __init__(self, at: datetime = INCIDENT.end + timedelta(hours=1)) -> None:
        self._at = at

    def now(self) -> datetime:
        """That time."""
        return self._at


class Account:
    """Clients, what each is to be asked, and a collector of them."""

    def __init__(self, clock: StoppedClock | None = None, **settings: int) -> None:
        self.clock, self.settings = clock or StoppedClock(), Settings.model_validate(settings)
        self.clients = clients_of(SESSION)
        self.collector = AwsCollector(self.clock, self.clients, self.settings)
        self._stubs = {name: Stubber(getattr(self.clients, name)) for name in self.clients._fields}
        for stub in self._stubs.values():
            stub.activate()

    def answers(
        self, client: str, method: str, answer: Mapping[str, object], asked: Mapping[str, object] | None = None
    ) -> None:
        """The next call of that client, and what it must ask."""
        self._stubs[client].add_response(method, dict(answer), dict(asked) if asked is not None else None)

    def refuses(self, client: str, method: str, code: str, status: int = 400) -> None:
        """The next call of that client fails."""
        self._stubs[client].add_client_error(method, code, "no", status)

    def assert_all_asked(self) -> None:
        """Nothing scripted was left unasked."""
        for stub in self._stubs.values():
            stub.assert_no_pending_responses()

    async def run(self, jobs: Iterable[tuple[str, Job]]) -> Telemetry:
        """These jobs only, one after the other."""
        hurry()
        return await gather(jobs, side_by_side=1, budget=Budget("aws", self.settings))


def scope_of(*targets: Target, **more: object) -> Scope:
    """An incident of ten minutes, after an hour as usual."""
    return Scope.model_validate(
        {
            "service": "payment",
            "occurred_at": T0,
            "incident": INCIDENT,
            "baseline": (BASELINE,),
            "targets": targets,
            **more,
        }
    )
