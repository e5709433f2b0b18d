import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
from pydantic import JsonValue

from executors._aws import Api, AwsSettings, TransientError, connect
from executors.base import ExecutorError, OutcomeUnknown, Resource, State
from executors.ecs import EcsExecutor, Settings
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
    resources: dict[str, Resource], clock: InstantClock
) -> None:
    async with serving(hang_up) as (url, _):
        executor = EcsExecutor(resources, clock, impatient(url))
        restart_all = operation(executor, "restart_all_services")
        one: dict[str, JsonValue] = {
            "status": "ACTIVE", "controller": "ECS", "scheduling": "REPLICA", "desired": 1, "running": 1,
            "pending": 0, "deployments": [], "events": [],
        }  # fmt: skip
        before: State = {name: {"service": name, **one} for name in ("payment-service", "worker")}
        with pytest.raises(OutcomeUnknown, match="left alone: worker"):
            await restart_all.execute(restart_all.params(services=tuple(before)), before)
        await executor.aclose()


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
