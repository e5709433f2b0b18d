import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest
from mypy_boto3_application_autoscaling import ApplicationAutoScalingClient
from mypy_boto3_ecs import ECSClient
from pydantic import JsonValue

from executors._aws import Api, AwsSettings, Connection, TransientError, beside, connect
from executors.base import ExecutorError, Grant, OutcomeUnknown, Refused, Resource, State
from executors.ecs import EcsExecutor, Settings
from tests.executors.account import Account, account
from tests.executors.conftest import NOWHERE, InstantClock, impatient, operation

API = Api("ecs")


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(64)
    writer.close()


@asynccontextmanager
async def serving(answer: Callable[..., object]) -> AsyncIterator[tuple[str, list[int]]]:
    """A server on this machine, and the list to which every connection adds."""
    connections: list[int] = []

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        tasks.append(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            await cast("asyncio.Future[None]", answer(reader, writer))
        finally:
            writer.close()
            await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})

    tasks: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(count, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"http://{host}:{port}", connections
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("answer", [hang, hang_up])
async def test_a_change_without_an_answer_is_unknown_and_made_once(answer: Callable[..., object]) -> None:
    async with serving(answer) as (url, connections):
        client = impatient(url)
        with pytest.raises(OutcomeUnknown, match="update_service was sent, but no answer came"):
            await API.write(client.update_service, cluster="shop", service="payment")
        client.close()
    assert len(connections) == 1


@pytest.mark.parametrize("answer", [hang, hang_up])
async def test_a_read_without_an_answer_may_be_repeated(answer: Callable[..., object]) -> None:
    async with serving(answer) as (url, connections):
        client = impatient(url)
        with pytest.raises(TransientError):
            await API.read(client.describe_services, cluster="shop", services=["payment"])
        client.close()
    assert len(connections) == 1


async def test_a_change_that_was_never_sent_has_failed() -> None:
    client = impatient(NOWHERE)
    with pytest.raises(ExecutorError, match="update_service was not sent") as error:
        await API.write(client.update_service, cluster="shop", service="payment")
    assert not isinstance(error.value, OutcomeUnknown)
    client.close()


async def test_restart_all_says_what_was_left_alone_when_an_answer_is_lost(
    resources: dict[str, Resource], clock: InstantClock, scaling_client: ApplicationAutoScalingClient
) -> None:
    async with serving(hang_up) as (url, _):
        executor = EcsExecutor(resources, clock, Connection.of(impatient(url)), Connection.of(scaling_client))
        restart_all = operation(executor, "restart_all_services")
        one: dict[str, JsonValue] = {
            "status": "ACTIVE", "controller": "ECS", "scheduling": "REPLICA", "desired": 1, "running": 1,
            "pending": 0, "deployments": [], "events": [],
        }  # fmt: skip
        before: State = {name: {"service": name, **one} for name in ("payment-service", "worker")}
        with pytest.raises(OutcomeUnknown, match="left alone: worker"):
            await restart_all.execute(restart_all.params(services=tuple(before)), before)
        await executor.ecs.aclose()


# --- connecting ---


def test_calls_are_made_once_and_have_an_end() -> None:
    client = connect("ecs", Settings(endpoint_url=NOWHERE))
    config = vars(client.meta.config)["_user_provided_options"]
    assert (config["connect_timeout"], config["read_timeout"]) == (3, 15)
    assert config["retries"]["total_max_attempts"] == 1
    client.close()


def test_no_real_keys_are_sent_to_this_machine(tmp_path: Path) -> None:
    client = connect("ecs", Settings(endpoint_url=NOWHERE, region="eu-west-1"))
    assert client._request_signer._credentials.access_key == "local"  # type: ignore[attr-defined]
    assert client.meta.region_name == "eu-west-1"
    client.close()


def test_a_profile_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match=r"nobody.*AUTOPILOT_ECS_PROFILE"):
        connect("ecs", Settings(profile="nobody", region="us-east-1"))


def test_a_role_is_assumed_only_when_it_is_needed() -> None:
    settings = Settings(endpoint_url=NOWHERE, role_arn="arn:aws:iam::1:role/hands")
    client = connect("ecs", settings)
    assert client._request_signer._credentials.method == "assume-role"  # type: ignore[attr-defined]
    client.close()


def test_settings_are_read_by_their_prefix() -> None:
    assert isinstance(Settings(), AwsSettings)
    assert Settings.model_config["env_prefix"] == "AUTOPILOT_ECS_"


# --- sessions of a role ---

ROLE = "arn:aws:iam::123456789012:role/hands"
STOP = Grant(actions=("ecs:StopTask",), resources=("arn:aws:ecs:us-east-1:123456789012:task/shop/1",))


@pytest.fixture
def aws() -> Iterator[Account]:
    with account() as running:
        yield running


def connection(aws: Account, source_identity: str | None = None) -> Connection[ECSClient]:
    settings = Settings(endpoint_url=aws.url, region="us-east-1", role_arn=ROLE, source_identity=source_identity)
    made: Connection[ECSClient] = Connection("ecs", settings, reads=("ecs:ListTasks",))
    return made


async def test_a_step_has_one_session_which_it_does_not_share(aws: Account) -> None:
    ecs = connection(aws)
    for _ in range(2):
        async with ecs.acting("stop_ecs_task", (STOP,)) as client:
            for _ in range(3):
                await API.write(client.stop_task, cluster="shop", task=STOP.resources[0])
    await ecs.aclose()
    assert [request["RoleSessionName"] for request in aws.assumed] == ["autopilot-stop_ecs_task"] * 2
    assert "SourceIdentity" not in aws.assumed[0]


async def test_a_session_that_ends_in_the_middle_of_a_step_is_asked_for_again(aws: Account) -> None:
    aws.expires = datetime.now(UTC) + timedelta(seconds=60)
    ecs = connection(aws)
    async with ecs.acting("stop_ecs_task", (STOP,)) as client:
        await API.write(client.stop_task, cluster="shop", task=STOP.resources[0])
    await ecs.aclose()
    assert len({request["Policy"] for request in aws.assumed}) == 1
    assert len(aws.assumed) > 1


async def test_looking_cannot_change_anything(aws: Account) -> None:
    ecs = connection(aws)
    await API.read(ecs.reader.list_tasks, cluster="shop")
    with pytest.raises(ExecutorError, match="AccessDenied"):
        await API.write(ecs.reader.stop_task, cluster="shop", task="1")
    await ecs.aclose()


async def test_the_source_identity_is_set_where_it_is_asked_for(aws: Account) -> None:
    ecs = connection(aws, source_identity="autopilot")
    async with ecs.acting("stop_ecs_task", (STOP,)):
        assert aws.assumed[0]["SourceIdentity"] == "autopilot"
    await ecs.aclose()


async def test_a_role_that_does_not_trust_us_is_said_before_anything_is_called(aws: Account) -> None:
    aws.refuses_roles = True
    ecs = connection(aws)
    with pytest.raises(ExecutorError, match=r"AccessDenied.*nothing was called.*sts:AssumeRole.*trust policy") as error:
        async with ecs.acting("stop_ecs_task", (STOP,)):
            pass
    assert not isinstance(error.value, OutcomeUnknown)
    with pytest.raises(ExecutorError, match="trust policy"):
        await API.read(ecs.reader.list_tasks, cluster="shop")
    await ecs.aclose()
    assert aws.calls == []


async def test_more_than_sts_takes_is_refused_before_it_is_asked(aws: Account) -> None:
    ecs = connection(aws)
    many = Grant(actions=("ecs:UpdateService",), resources=tuple(f"{STOP.resources[0]}{n:04}" for n in range(40)))
    with pytest.raises(Refused, match=r"has 2\d{3} characters, and STS takes 2048"):
        async with ecs.acting("restart_all_services", (many,)):
            pass
    await ecs.aclose()
    assert aws.assumed == []


async def test_a_step_that_needs_nothing_gets_no_session_of_all_that_the_role_may(aws: Account) -> None:
    ecs = connection(aws)
    with pytest.raises(Refused, match="stop_ecs_task says of nothing that it needs it"):
        async with ecs.acting("stop_ecs_task", ()):
            pass
    await ecs.aclose()
    assert aws.assumed == []


async def test_without_a_role_a_step_is_made_by_the_one_client(aws: Account) -> None:
    ecs: Connection[ECSClient] = Connection("ecs", Settings(endpoint_url=aws.url), reads=("ecs:ListTasks",))
    async with ecs.acting("stop_ecs_task", (STOP,)) as client:
        assert client is ecs.reader
    await ecs.aclose()
    assert aws.assumed == []


def test_another_service_is_not_looked_for_at_a_private_endpoint() -> None:
    private = Settings(endpoint_url="https://vpce-1.ecs.us-east-1.vpce.amazonaws.com")
    assert beside(private).endpoint_url is None
    here = Settings(endpoint_url=NOWHERE)
    assert beside(here) is here


# --- permissions ---


def simulation(**decisions: str) -> dict[str, object]:
    results = [
        {"EvalActionName": f"ecs:{action}", "EvalResourceName": STOP.resources[0], "EvalDecision": decision}
        for action, decision in decisions.items()
    ]
    return {"EvaluationResults": results, "IsTruncated": False}


@pytest.mark.parametrize(
    ("decision", "status", "said"),
    [
        ("allowed", "ok", "IAM allows ecs:StopTask"),
        ("implicitDeny", "failed", r"ecs:StopTask on arn:aws:ecs:.*task/shop/1: implicitDeny.*policy of .*role/hands"),
    ],
)
async def test_permissions_are_told_by_iam_for_the_exact_arns(
    aws: Account, decision: str, status: str, said: str
) -> None:
    aws.answers["iam:SimulatePrincipalPolicy"] = simulation(StopTask=decision)
    ecs = connection(aws)
    (check,) = await ecs.permitted((STOP,))
    await ecs.aclose()
    assert (check.name, check.status) == ("permission", status)
    assert re.search(said, check.detail)
    assert [request["RoleSessionName"] for request in aws.assumed] == ["autopilot-preflight"]


async def test_a_permission_that_cannot_be_asked_for_is_skipped_and_says_why(aws: Account) -> None:
    aws.refuses_roles = True
    ecs = connection(aws)
    (check,) = await ecs.permitted((STOP,))
    await ecs.aclose()
    assert (check.name, check.status) == ("permission", "skipped")
    assert "iam:SimulatePrincipalPolicy" in check.detail


async def test_nobody_is_asked_about_a_stubbed_client(scaling_client: ApplicationAutoScalingClient) -> None:
    (check,) = await Connection.of(scaling_client).permitted((STOP,))
    assert check.status == "skipped"
