from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from botocore.stub import Stubber

from executors._aws import Connection
from executors.appconfig import READS, RevertConfiguration
from executors.base import AnyOperation, AppConfigProfile, Change, ExecutorError, Grant, Refused, Resource
from tests.executors.conftest import InstantClock
from tests.executors.guarded import META, guarded, write_actions

PROFILE = AppConfigProfile(application="app1", environment="env1", profile="prof1")
RESOURCES = {
    "web": Resource(service="web", app_config=PROFILE),
    "legacy": Resource(service="legacy"),
}
PREFIX = "arn:aws:appconfig:us-east-1:*"
APPLICATION = f"{PREFIX}:application/app1"
AT = {"ApplicationId": "app1", "EnvironmentId": "env1"}
NOW = InstantClock().now()
DAY = timedelta(days=1)


@pytest.fixture
def aws() -> Iterator[tuple[Connection[Any], Stubber]]:
    with guarded("appconfig", READS) as pair:
        yield pair


@pytest.fixture
def stub(aws: tuple[Connection[Any], Stubber]) -> Stubber:
    return aws[1]


@pytest.fixture
def revert(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return RevertConfiguration(RESOURCES, InstantClock(), aws[0])


def deployment(
    number: int,
    version: str,
    state: str = "COMPLETE",
    percent: float = 100.0,
    at: datetime = NOW - DAY,
    profile: str = "prof1",
) -> dict[str, Any]:
    ended = {} if state in ("DEPLOYING", "BAKING", "VALIDATING") else {"CompletedAt": at}
    return {
        "DeploymentNumber": number,
        "ConfigurationProfileId": profile,
        "ConfigurationVersion": version,
        "State": state,
        "PercentageComplete": percent,
        **ended,
    }


def lists(stub: Stubber, *deployments: dict[str, Any]) -> None:
    stub.add_response("list_deployments", {"Items": list(deployments)}, {**AT, "MaxResults": 50})


def stops(stub: Stubber, number: int) -> None:
    asked = {**AT, "DeploymentNumber": number, "AllowRevert": True}
    stub.add_response("stop_deployment", {"ResponseMetadata": META}, asked)


def deploys(stub: Stubber, version: str, latest: int) -> None:
    asked = {
        **AT,
        "ConfigurationProfileId": "prof1",
        "ConfigurationVersion": version,
        "DeploymentStrategyId": "AppConfig.AllAtOnce",
        "LatestDeploymentNumber": latest,
    }
    stub.add_response("start_deployment", {"DeploymentNumber": latest + 1, "ResponseMetadata": META}, asked)


FIRST = deployment(4, "10", at=NOW - 9 * DAY)
LATE = deployment(5, "11")
LONG_AGO = deployment(5, "11", at=NOW - 4 * DAY)


async def test_what_ended_lately_is_reverted_and_deployed_again(revert: AnyOperation, stub: Stubber) -> None:
    params = revert.params(service="web")
    back = deployment(5, "11", "REVERTED")
    lists(stub, LATE, FIRST)
    stops(stub, 5)
    lists(stub, LATE, FIRST)
    for _ in range(4):
        lists(stub, back, FIRST)
    deploys(stub, "11", 5)

    before = await revert.inspect(params)
    assert revert.preview(params, before) == (
        "web: configuration version 11 -> 10, by taking deployment 5 back (COMPLETE, 100%)"
    )
    assert revert.changes(params, before) == (Change(what="version of prof1 in env1", before="11", after="10"),)
    assert revert.pinned(params, before) == {"deployment": 5, "version": "11", "back to version": "10"}
    stop, start = revert.grants(params, before)
    assert stop == Grant(
        actions=("appconfig:StopDeployment",),
        resources=(APPLICATION, f"{APPLICATION}/environment/env1", f"{APPLICATION}/environment/env1/deployment/5"),
    )
    assert start.resources == (
        APPLICATION,
        f"{APPLICATION}/environment/env1",
        f"{APPLICATION}/configurationprofile/prof1",
        f"{PREFIX}:deploymentstrategy/AppConfig.AllAtOnce",
    )
    write_actions(revert, (stop, start))
    assert (await revert.execute(params, before)).request_ids == ("req-1",)
    await revert.settle(params, before)
    assert await revert.probe(params, before) == "done"
    assert (await revert.undo(params, before)).detail == "web: configuration version 10 -> 11"


async def test_a_deployment_in_progress_is_stopped(revert: AnyOperation, stub: Stubber) -> None:
    params = revert.params(service="web")
    moving = deployment(5, "11", "DEPLOYING", 40.0)
    lists(stub, moving, FIRST)
    stops(stub, 5)
    lists(stub, deployment(5, "11", "ROLLING_BACK"), FIRST)
    lists(stub, deployment(5, "11", "ROLLED_BACK"), FIRST)
    lists(stub, deployment(5, "11", "ROLLED_BACK"), FIRST)
    lists(stub, deployment(5, "11", "ROLLED_BACK"), FIRST)

    before = await revert.inspect(params)
    assert revert.changes(params, before)[0].before == "11 (40% of the hosts)"
    (stop,) = revert.grants(params, before)
    assert stop.actions == ("appconfig:StopDeployment",)
    await revert.execute(params, before)
    await revert.settle(params, before)
    with pytest.raises(Refused, match="was not fully deployed"):
        await revert.undo(params, before)


async def test_after_72_hours_the_earlier_version_is_deployed(revert: AnyOperation, stub: Stubber) -> None:
    params = revert.params(service="web")
    baking = deployment(6, "10", "BAKING")
    lists(stub, LONG_AGO, FIRST)
    deploys(stub, "10", 5)
    lists(stub, LONG_AGO, FIRST)
    lists(stub, deployment(6, "10", "DEPLOYING", 1.0), LONG_AGO, FIRST)
    for _ in range(4):
        lists(stub, baking, LONG_AGO, FIRST)
    stops(stub, 6)

    before = await revert.inspect(params)
    assert revert.preview(params, before).endswith("11 -> 10, by deploying it to everybody at once")
    stop, start = revert.grants(params, before)
    assert stop.resources[-1].endswith("/deployment/6")  # the lock lets it be no other
    write_actions(revert, (stop, start))
    assert (await revert.execute(params, before)).data == {"deployment": 6}
    await revert.settle(params, before)
    assert await revert.probe(params, before) == "done"
    assert (await revert.undo(params, before)).request_ids == ("req-1",)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ([], "lists no deployment of prof1 in env1"),
        ([LATE], "lists no version before 11"),
        ([deployment(6, "2", "DEPLOYING", 10.0, profile="other"), LATE, FIRST], r"another configuration \(other\)"),
        ([deployment(5, "11", "ROLLING_BACK"), FIRST], "is being rolled back already"),
        ([deployment(5, "11", "BAKING"), deployment(4, "11"), FIRST], "deployment 5 is in progress"),
    ],
)
async def test_a_revert_that_must_not_be_is_refused(
    revert: AnyOperation, stub: Stubber, listed: list[dict[str, Any]], said: str
) -> None:
    params = revert.params(service="web")
    lists(stub, *listed)
    before = await revert.inspect(params)
    with pytest.raises(Refused, match=said):
        revert.changes(params, before)
    with pytest.raises(Refused, match=said):
        await revert.execute(params, before)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        # What was taken back is not served any more: going back goes from what is.
        ([deployment(6, "12", "REVERTED"), LATE, FIRST], "version 11 -> 10, by deploying it"),
        # The same version twice: taking the second back would change nothing.
        ([deployment(6, "11"), LATE, FIRST], "version 11 -> 10, by deploying it"),
        ([deployment(7, "1", profile="other"), LATE, FIRST], "version 11 -> 10, by taking deployment 5 back"),
    ],
)
async def test_it_goes_back_from_what_is_served(
    revert: AnyOperation, stub: Stubber, listed: list[dict[str, Any]], said: str
) -> None:
    params = revert.params(service="web")
    lists(stub, *listed)
    assert said in revert.preview(params, await revert.inspect(params))


@pytest.mark.parametrize(
    ("listed", "answer"),
    [
        ([LATE, FIRST], "not_done"),
        ([deployment(5, "11", "ROLLING_BACK"), FIRST], "done"),
        ([deployment(5, "11", "REVERTED"), FIRST], "done"),
        ([deployment(6, "12"), LATE, FIRST], "unknown"),
        ([], "unknown"),
    ],
)
async def test_a_revert_is_probed_by_the_deployments_state(
    revert: AnyOperation, stub: Stubber, listed: list[dict[str, Any]], answer: str
) -> None:
    params = revert.params(service="web")
    lists(stub, LATE, FIRST)
    before = await revert.inspect(params)
    lists(stub, *listed)
    assert await revert.probe(params, before) == answer


@pytest.mark.parametrize(
    ("newer", "answer"),
    [
        ([], "not_done"),
        ([deployment(6, "10", "DEPLOYING", 1.0)], "done"),
        ([deployment(6, "12")], "unknown"),
        ([deployment(7, "12"), deployment(6, "10")], "unknown"),
    ],
)
async def test_a_new_deployment_is_probed_by_its_version(
    revert: AnyOperation, stub: Stubber, newer: list[dict[str, Any]], answer: str
) -> None:
    params = revert.params(service="web")
    lists(stub, LONG_AGO, FIRST)
    before = await revert.inspect(params)
    lists(stub, *newer, LONG_AGO, FIRST)
    assert await revert.probe(params, before) == answer


@pytest.mark.parametrize("old", [LATE, LONG_AGO])
async def test_what_somebody_else_deployed_is_not_undone(
    revert: AnyOperation, stub: Stubber, old: dict[str, Any]
) -> None:
    params = revert.params(service="web")
    lists(stub, old, FIRST)
    before = await revert.inspect(params)
    lists(stub, deployment(6, "12"), old, FIRST)
    with pytest.raises(Refused, match="deployment 6 was made by somebody else"):
        await revert.undo(params, before)
    lists(stub, old, FIRST)
    assert (await revert.undo(params, before)).request_ids == ()


async def test_a_deployment_that_aws_takes_back_ends_the_wait(revert: AnyOperation, stub: Stubber) -> None:
    params = revert.params(service="web")
    lists(stub, LONG_AGO, FIRST)
    before = await revert.inspect(params)
    lists(stub, deployment(6, "10", "ROLLED_BACK"), LONG_AGO, FIRST)
    with pytest.raises(ExecutorError, match="deployment 6 was taken back: ROLLED_BACK"):
        await revert.settle(params, before)


async def test_progress_is_no_drift_but_another_deployment_is(revert: AnyOperation, stub: Stubber) -> None:
    params = revert.params(service="web")
    lists(stub, deployment(5, "11", "DEPLOYING", 40.0), FIRST)
    lists(stub, deployment(5, "11", "BAKING", 100.0), FIRST)
    lists(stub, deployment(6, "12"), LATE, FIRST)
    first, later, other = [revert.pinned(params, await revert.inspect(params)) for _ in range(3)]
    assert first == later
    assert other == {"deployment": 6, "version": "12", "back to version": "11"}


@pytest.mark.parametrize(("profile", "status"), [("prof1", "warning"), ("other", "failed")])
async def test_a_deployment_in_flight_is_told_beforehand(
    revert: AnyOperation, stub: Stubber, profile: str, status: str
) -> None:
    params = revert.params(service="web")
    lists(stub, deployment(6, "12", "DEPLOYING", 10.0, profile=profile), LATE, FIRST)
    found, _ = await revert.preflight(params, await revert.inspect(params))
    assert (found.name, found.status) == ("deployment", status)
    assert found.detail == f"deployment 6 of {profile} is DEPLOYING, 10%"


def test_the_environment_is_the_key(revert: AnyOperation) -> None:
    assert revert.resource(revert.params(service="web")) == "appconfig:app1/env1"
    with pytest.raises(Refused, match="legacy has no app_config"):
        revert.resource(revert.params(service="legacy"))
