"""A catalogue of three services, a clock that needs no time, and stubbed AWS clients."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import botocore.session
import pytest
from botocore.config import Config
from botocore.stub import Stubber
from mypy_boto3_application_autoscaling import ApplicationAutoScalingClient
from mypy_boto3_ecs import ECSClient
from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client

from executors import ecs, traffic
from executors._aws import CONFIG, connect
from executors.base import AnyOperation, Executor, Resource

RULE = "arn:aws:elasticloadbalancing:us-east-1:1:listener-rule/app/shop/50dc6c/f2f7/9683"
OWN = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/payment/6d0e"
OVERFLOW = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/overflow/77aa"
NOWHERE = "http://127.0.0.1:9"


class InstantClock:
    """Sleeping takes no time, but moves the clock."""

    def __init__(self) -> None:
        self.start = datetime(2024, 12, 20, 9, 15, tzinfo=UTC)
        self.slept: list[float] = []

    def now(self) -> datetime:
        """UTC."""
        return self.start + timedelta(seconds=sum(self.slept))

    async def sleep(self, seconds: float) -> None:
        """Returns at once."""
        self.slept.append(seconds)


@pytest.fixture
def clock() -> InstantClock:
    """A clock that needs no time."""
    return InstantClock()


@pytest.fixture
def resources() -> dict[str, Resource]:
    """The catalogue; ``worker`` has no load balancer, ``legacy`` has nothing."""
    return {
        "payment-service": Resource(
            service="payment-service",
            cluster="shop",
            ecs_service="payment",
            listener_rule_arn=RULE,
            target_group_arn=OWN,
            overflow_target_group_arn=OVERFLOW,
            min_tasks=1,
            max_tasks=8,
        ),
        "worker": Resource(service="worker", cluster="shop", ecs_service="worker"),
        "legacy": Resource(service="legacy"),
    }


@pytest.fixture(scope="session")
def ecs_client() -> Iterator[ECSClient]:
    """A client of ECS that reaches nobody."""
    client = cast("ECSClient", connect("ecs", ecs.Settings(endpoint_url=NOWHERE)))
    yield client
    client.close()


@pytest.fixture(scope="session")
def elb_client() -> Iterator[ElasticLoadBalancingv2Client]:
    """A client of ELBv2 that reaches nobody."""
    client = cast("ElasticLoadBalancingv2Client", connect("elbv2", traffic.Settings(endpoint_url=NOWHERE)))
    yield client
    client.close()


@pytest.fixture(scope="session")
def scaling_client() -> Iterator[ApplicationAutoScalingClient]:
    """A client of Application Auto Scaling that reaches nobody."""
    made = connect("application-autoscaling", ecs.Settings(endpoint_url=NOWHERE))
    client = cast("ApplicationAutoScalingClient", made)
    yield client
    client.close()


@pytest.fixture
def aws_scaling(scaling_client: ApplicationAutoScalingClient) -> Iterator[Stubber]:
    """Application Auto Scaling with the answers a test lines up."""
    with Stubber(scaling_client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def aws_ecs(ecs_client: ECSClient) -> Iterator[Stubber]:
    """ECS with the answers a test lines up; all of them must have been asked for in the end."""
    with Stubber(ecs_client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


@pytest.fixture
def aws_elb(elb_client: ElasticLoadBalancingv2Client) -> Iterator[Stubber]:
    """ELBv2 with the answers a test lines up; all of them must have been asked for in the end."""
    with Stubber(elb_client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def operation(executor: Executor, name: str) -> AnyOperation:
    """The operation of that name."""
    return next(o for o in executor.operations if o.name == name)


def impatient(url: str, read_timeout_s: float = 0.2) -> ECSClient:
    """A client of ECS like the executor's, that does not wait as long for an answer."""
    session = botocore.session.Session()
    session.set_credentials("local", "local")
    config = CONFIG.merge(Config(read_timeout=read_timeout_s))
    return cast("ECSClient", session.create_client("ecs", "us-east-1", endpoint_url=url, config=config))
