from collections.abc import Iterator
from typing import Any

import pytest
from botocore.stub import Stubber
from pydantic import ValidationError

from executors._aws import Connection
from executors.aws_lambda import READS, SetLambdaConcurrency, ShiftLambdaAlias
from executors.base import AnyOperation, Change, Grant, LambdaAlias, PreflightCheck, Refused, Resource
from tests.executors.conftest import InstantClock
from tests.executors.guarded import META, guarded, write_actions

FUNCTION = "arn:aws:lambda:us-east-1:123456789012:function:pay"
RESOURCES = {
    "pay": Resource(service="pay", lambda_alias=LambdaAlias(function="pay", alias="live"), max_concurrency=200),
    "batch": Resource(service="batch", lambda_alias=LambdaAlias(function="batch")),
    "web": Resource(service="web"),
}


@pytest.fixture
def aws() -> Iterator[tuple[Connection[Any], Stubber]]:
    with guarded("lambda", READS) as pair:
        yield pair


@pytest.fixture
def stub(aws: tuple[Connection[Any], Stubber]) -> Stubber:
    return aws[1]


@pytest.fixture
def shift(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return ShiftLambdaAlias(RESOURCES, InstantClock(), aws[0])


@pytest.fixture
def concurrency(aws: tuple[Connection[Any], Stubber]) -> AnyOperation:
    return SetLambdaConcurrency(RESOURCES, InstantClock(), aws[0])


def version(stub: Stubber, number: str = "7", state: str = "Active") -> None:
    stub.add_response(
        "get_function_configuration",
        {"FunctionArn": f"{FUNCTION}:{number}", "State": state},
        {"FunctionName": "pay", "Qualifier": number},
    )


def alias(stub: Stubber, main: str = "8", revision: str = "r1", **weights: float) -> None:
    routing = {"RoutingConfig": {"AdditionalVersionWeights": {k[1:]: w for k, w in weights.items()}}} if weights else {}
    answer = {"AliasArn": f"{FUNCTION}:live", "FunctionVersion": main, "RevisionId": revision, **routing}
    stub.add_response("get_alias", answer, {"FunctionName": "pay", "Name": "live"})


def updates(stub: Stubber, main: str, weights: dict[str, float], revision: str) -> None:
    stub.add_response(
        "update_alias",
        {"ResponseMetadata": META},
        {
            "FunctionName": "pay",
            "Name": "live",
            "FunctionVersion": main,
            "RoutingConfig": {"AdditionalVersionWeights": weights},
            "RevisionId": revision,
        },
    )


# --- the catalogue decides what may be touched ---


def test_keys_name_function_and_alias(shift: AnyOperation, concurrency: AnyOperation) -> None:
    assert shift.resource(shift.params(service="pay", version="7", weight_percent=100)) == "lambda:pay:live"
    assert concurrency.resource(concurrency.params(service="pay", reserved=50)) == "lambda:pay"


def test_what_the_catalogue_lacks_is_named(shift: AnyOperation, concurrency: AnyOperation) -> None:
    assert shift.lacks(RESOURCES["pay"]) == ""
    assert "batch has no lambda_alias (function, alias)" in shift.lacks(RESOURCES["batch"])
    assert concurrency.lacks(RESOURCES["batch"]) == ""
    with pytest.raises(Refused, match="web has no lambda_alias"):
        concurrency.resource(concurrency.params(service="web"))


@pytest.mark.parametrize("wrong", ["$LATEST", "live", "0", ""])
def test_only_published_versions(shift: AnyOperation, wrong: str) -> None:
    with pytest.raises(ValidationError):
        shift.params(service="pay", version=wrong, weight_percent=10)


# --- shift ---


async def test_a_shift_is_previewed_made_and_undone_on_the_revision_that_was_read(
    shift: AnyOperation, stub: Stubber
) -> None:
    params = shift.params(service="pay", version="7", weight_percent=100)
    version(stub)
    alias(stub)
    updates(stub, "7", {}, "r1")
    alias(stub, "8")
    alias(stub, "7", "r2")
    alias(stub, "7", "r2")
    alias(stub, "7", "r2")
    updates(stub, "8", {}, "r2")

    before = await shift.inspect(params)
    assert shift.preview(params, before) == "pay: version 8 100% -> version 7 100%"
    assert shift.changes(params, before) == (
        Change(what="calls of pay:live", before="version 8 100%", after="version 7 100%"),
    )
    assert shift.pinned(params, before) == {"routing": "version 8 100%"}
    assert shift.grants(params, before) == (Grant(actions=("lambda:UpdateAlias",), resources=(FUNCTION,)),)
    write_actions(shift, shift.grants(params, before))
    assert (await shift.execute(params, before)).request_ids == ("req-1",)
    assert (await shift.settle(params, before))["revision"] == "r2"
    assert await shift.probe(params, before) == "done"
    assert (await shift.undo(params, before)).detail == "pay: version 7 100% -> version 8 100%"


@pytest.mark.parametrize(
    ("now", "wanted", "percent", "main", "weights"),
    [
        ({}, "7", 10, "8", {"7": 0.1}),  # a canary
        ({"v7": 0.1}, "7", 50, "8", {"7": 0.5}),
        ({"v7": 0.1}, "7", 100, "7", {}),
        ({"v7": 0.1}, "7", 0, "8", {}),
        ({"v7": 0.1}, "8", 20, "8", {"7": 0.8}),  # the alias's own version keeps its place
        ({"v7": 0.1}, "8", 0, "7", {}),
        ({"v7": 0.1}, "6", 100, "6", {}),
    ],
)
async def test_shares_are_split_between_two_versions(
    shift: AnyOperation,
    stub: Stubber,
    now: dict[str, Any],
    wanted: str,
    percent: int,
    main: str,
    weights: dict[str, float],
) -> None:
    params = shift.params(service="pay", version=wanted, weight_percent=percent)
    version(stub, wanted)
    alias(stub, **now)
    updates(stub, main, weights, "r1")
    await shift.execute(params, await shift.inspect(params))


@pytest.mark.parametrize(
    ("now", "wanted", "percent", "state", "said"),
    [
        ({"v7": 0.1}, "6", 50, "Active", "two versions, not three"),
        ({}, "8", 50, "Active", "name the version that takes the rest"),
        ({}, "8", 100, "Active", "has version 8 100% already"),
        ({}, "7", 100, "Failed", "version 7 is Failed"),
    ],
)
async def test_a_shift_that_cannot_be_is_refused(
    shift: AnyOperation, stub: Stubber, now: dict[str, Any], wanted: str, percent: int, state: str, said: str
) -> None:
    params = shift.params(service="pay", version=wanted, weight_percent=percent)
    version(stub, wanted, state)
    alias(stub, **now)
    before = await shift.inspect(params)
    with pytest.raises(Refused, match=said):
        shift.changes(params, before)
    with pytest.raises(Refused, match=said):
        await shift.execute(params, before)


@pytest.mark.parametrize(
    ("main", "revision", "answer"),
    [("7", "r2", "done"), ("8", "r1", "not_done"), ("8", "r3", "unknown"), ("6", "r2", "unknown")],
)
async def test_a_shift_is_probed(shift: AnyOperation, stub: Stubber, main: str, revision: str, answer: str) -> None:
    params = shift.params(service="pay", version="7", weight_percent=100)
    version(stub)
    alias(stub)
    alias(stub, main, revision)
    assert await shift.probe(params, await shift.inspect(params)) == answer


async def test_what_somebody_else_set_is_not_undone(shift: AnyOperation, stub: Stubber) -> None:
    params = shift.params(service="pay", version="7", weight_percent=100)
    version(stub)
    alias(stub)
    alias(stub, "9", "r5")
    alias(stub)
    before = await shift.inspect(params)
    with pytest.raises(Refused, match="version 9 100%, set by somebody else"):
        await shift.undo(params, before)
    assert "already" in (await shift.undo(params, before)).detail


async def test_another_deployment_is_told_beforehand(shift: AnyOperation, stub: Stubber) -> None:
    params = shift.params(service="pay", version="7", weight_percent=100)
    version(stub)
    alias(stub, v7=0.1)
    first, permission = await shift.preflight(params, await shift.inspect(params))
    assert (first.name, first.status) == ("deployment", "warning")
    assert (permission.name, permission.status) == ("permission", "skipped")


# --- concurrency ---


def reserved(stub: Stubber, *counts: int | None) -> None:
    for count in counts:
        answer = {} if count is None else {"ReservedConcurrentExecutions": count}
        stub.add_response("get_function_concurrency", answer, {"FunctionName": "pay"})


def reads(stub: Stubber, count: int | None, unreserved: int = 900) -> None:
    stub.add_response("get_function_configuration", {"FunctionArn": FUNCTION}, {"FunctionName": "pay"})
    limit = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": unreserved}
    stub.add_response("get_account_settings", {"AccountLimit": limit}, {})
    reserved(stub, count)


def puts(stub: Stubber, count: int) -> None:
    stub.add_response(
        "put_function_concurrency",
        {"ResponseMetadata": META},
        {"FunctionName": "pay", "ReservedConcurrentExecutions": count},
    )


def lifts(stub: Stubber) -> None:
    stub.add_response("delete_function_concurrency", {"ResponseMetadata": META}, {"FunctionName": "pay"})


async def test_a_reservation_is_set_and_lifted_again(concurrency: AnyOperation, stub: Stubber) -> None:
    params = concurrency.params(service="pay", reserved=150)
    reads(stub, None)
    reserved(stub, None)
    puts(stub, 150)
    reserved(stub, None, 150, 150, 150)
    lifts(stub)

    before = await concurrency.inspect(params)
    assert concurrency.preview(params, before) == (
        "pay: no reserved concurrency -> reserved concurrency 150; 750 of 1000 stay for the other functions"
    )
    assert [c.after for c in concurrency.changes(params, before)] == ["reserved concurrency 150", "750"]
    assert concurrency.pinned(params, before) == {"reserved": None}
    (grant,) = concurrency.grants(params, before)
    assert grant.actions == ("lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency")
    assert grant.resources == (FUNCTION,)
    write_actions(concurrency, (grant,))
    await concurrency.execute(params, before)
    assert (await concurrency.settle(params, before))["reserved"] == 150
    assert await concurrency.probe(params, before) == "done"
    await concurrency.undo(params, before)


async def test_a_changed_reservation_needs_no_right_to_lift_it(concurrency: AnyOperation, stub: Stubber) -> None:
    params = concurrency.params(service="pay", reserved=150)
    reads(stub, 50)
    (grant,) = concurrency.grants(params, await concurrency.inspect(params))
    assert grant.actions == ("lambda:PutFunctionConcurrency",)


async def test_a_reservation_is_lifted_and_put_back(concurrency: AnyOperation, stub: Stubber) -> None:
    params = concurrency.params(service="pay", reserved=None)
    reads(stub, 50)
    reserved(stub, 50)
    lifts(stub)
    reserved(stub, None)
    puts(stub, 50)
    before = await concurrency.inspect(params)
    await concurrency.execute(params, before)
    await concurrency.undo(params, before)


@pytest.mark.parametrize(
    ("wanted", "now", "unreserved", "said"),
    [
        (150, None, 200, "would leave 50 of the account's 1000"),
        (150, 150, 900, "has reserved concurrency 150 already"),
        (201, None, 900, "more than 200, the max_concurrency"),
    ],
)
async def test_a_reservation_that_must_not_be_is_refused(
    concurrency: AnyOperation, stub: Stubber, wanted: int, now: int | None, unreserved: int, said: str
) -> None:
    params = concurrency.params(service="pay", reserved=wanted)
    reads(stub, now, unreserved)
    before = await concurrency.inspect(params)
    with pytest.raises(Refused, match=said):
        await concurrency.execute(params, before)


async def test_the_quota_is_told_beforehand(concurrency: AnyOperation, stub: Stubber) -> None:
    params = concurrency.params(service="pay", reserved=150)
    reads(stub, None, 200)
    quota, _ = await concurrency.preflight(params, await concurrency.inspect(params))
    assert quota == PreflightCheck(
        name="quota", status="failed", detail="50 of 1000 concurrent executions stay unreserved, 100 must"
    )


def test_nothing_reserves_zero(concurrency: AnyOperation) -> None:
    with pytest.raises(ValidationError):
        concurrency.params(service="pay", reserved=0)  # it would throttle every call


@pytest.mark.parametrize(("now", "answer"), [(150, "done"), (50, "not_done"), (None, "unknown"), (70, "unknown")])
async def test_a_reservation_is_probed(concurrency: AnyOperation, stub: Stubber, now: int | None, answer: str) -> None:
    params = concurrency.params(service="pay", reserved=150)
    reads(stub, 50)
    reserved(stub, now)
    assert await concurrency.probe(params, await concurrency.inspect(params)) == answer


async def test_a_reservation_changed_meanwhile_is_left_alone(concurrency: AnyOperation, stub: Stubber) -> None:
    params = concurrency.params(service="pay", reserved=150)
    reads(stub, 50)
    reserved(stub, 70, 70)
    before = await concurrency.inspect(params)
    with pytest.raises(Refused, match="reserved concurrency 70 since a moment"):
        await concurrency.execute(params, before)
    with pytest.raises(Refused, match="70, set by somebody else"):
        await concurrency.undo(params, before)
