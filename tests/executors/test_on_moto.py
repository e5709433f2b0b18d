"""Against moto, which keeps Lambda aliases and DB clusters as AWS does: what is sent is what is meant."""

import io
import logging
import zipfile
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from executors import aws_lambda, rds
from executors._aws import Connection
from executors.base import AnyOperation, ExecutorError, LambdaAlias, Resource
from tests.executors.conftest import InstantClock

RESOURCES = {"pay": Resource(service="pay", lambda_alias=LambdaAlias(function="pay", alias="live"), db_cluster="shop")}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Its address."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def client(moto: str, service: str) -> Any:
    session = botocore.session.Session()
    session.set_credentials("local", "local")
    return session.create_client(service, "us-east-1", endpoint_url=moto)


def archive(source: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("pay.py", source)
    return file.getvalue()


@pytest.fixture
def function(moto: str) -> Iterator[Any]:
    """Lambda with a function of two versions, and the alias at the second."""
    iam, functions = client(moto, "iam"), client(moto, "lambda")
    role = iam.create_role(RoleName="pay", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    code = {"ZipFile": archive("one = 1")}
    functions.create_function(FunctionName="pay", Runtime="python3.11", Role=role, Handler="pay.h", Code=code)
    functions.publish_version(FunctionName="pay")
    functions.update_function_code(FunctionName="pay", ZipFile=archive("two = 2"))
    functions.publish_version(FunctionName="pay")
    functions.create_alias(FunctionName="pay", Name="live", FunctionVersion="2")
    yield functions
    iam.close()
    functions.close()


@pytest.fixture
def cluster(moto: str) -> Iterator[Any]:
    """RDS with a cluster of a writer and a reader."""
    databases = client(moto, "rds")
    engine = {"Engine": "aurora-postgresql", "DBClusterIdentifier": "shop"}
    databases.create_db_cluster(MasterUsername="shop", MasterUserPassword="not-a-secret", **engine)
    for name in ("a", "b"):
        databases.create_db_instance(DBInstanceIdentifier=name, DBInstanceClass="db.r6g.large", **engine)
    yield databases
    databases.close()


def routing(function: Any) -> tuple[str, dict[str, float]]:
    alias = function.get_alias(FunctionName="pay", Name="live")
    return alias["FunctionVersion"], alias.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})


async def test_an_alias_is_shifted_in_steps_and_back(function: Any) -> None:
    shift: AnyOperation = aws_lambda.ShiftLambdaAlias(RESOURCES, InstantClock(), Connection.of(function))
    canary = shift.params(service="pay", version="1", weight_percent=10)
    start = await shift.inspect(canary)
    await shift.execute(canary, start)
    await shift.settle(canary, start)
    assert routing(function) == ("2", {"1": 0.1})

    whole = shift.params(service="pay", version="1", weight_percent=100)
    split = await shift.inspect(whole)
    await shift.execute(whole, split)
    assert routing(function) == ("1", {})
    assert await shift.probe(whole, split) == "done"

    await shift.undo(whole, split)
    assert routing(function) == ("2", {"1": 0.1})
    await shift.undo(canary, start)
    assert routing(function) == ("2", {})

    nothing = shift.params(service="pay", version="9", weight_percent=10)
    with pytest.raises(ExecutorError, match="GetFunctionConfiguration with ResourceNotFoundException"):
        await shift.inspect(nothing)


async def test_a_cluster_fails_over(cluster: Any) -> None:
    failover: AnyOperation = rds.FailoverDbCluster(RESOURCES, InstantClock(), Connection.of(cluster))
    params = failover.params(service="pay", reader="b")
    before = await failover.inspect(params)
    assert await failover.probe(params, before) == "not_done"
    await failover.execute(params, before)
    assert await failover.probe(params, before) == "done"
    after = await failover.settle(params, before)
    assert (after["writer"], after["readers"]) == ("b", {"a": "available"})
