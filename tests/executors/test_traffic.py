from copy import deepcopy

import pytest
from botocore.stub import Stubber
from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
from pydantic import JsonValue, ValidationError

from executors.base import AnyOperation, ExecutorError, Refused, Resource
from executors.traffic import TrafficExecutor
from tests.executors.conftest import OVERFLOW, OWN, RULE, InstantClock, operation

META = {"RequestId": "req-1", "HTTPStatusCode": 200}
THIRD = "arn:aws:elasticloadbalancing:us-east-1:1:targetgroup/green/0815"
OIDC: dict[str, JsonValue] = {
    "Type": "authenticate-oidc",
    "Order": 1,
    "AuthenticateOidcConfig": {
        "Issuer": "https://id.example",
        "AuthorizationEndpoint": "https://id.example/a",
        "TokenEndpoint": "https://id.example/t",
        "UserInfoEndpoint": "https://id.example/u",
        "ClientId": "shop",
    },
}
SIMPLE: dict[str, JsonValue] = {"Type": "forward", "TargetGroupArn": OWN}


def forward(own: int, overflow: int, *, sticky: bool = False, third: int | None = None) -> dict[str, JsonValue]:
    groups: list[JsonValue] = [
        {"TargetGroupArn": OWN, "Weight": own},
        {"TargetGroupArn": OVERFLOW, "Weight": overflow},
    ]
    if third is not None:
        groups.append({"TargetGroupArn": THIRD, "Weight": third})
    stickiness: JsonValue = {"Enabled": True, "DurationSeconds": 300} if sticky else {"Enabled": False}
    return {"Type": "forward", "ForwardConfig": {"TargetGroups": groups, "TargetGroupStickinessConfig": stickiness}}


def rules(aws: Stubber, *rules: list[dict[str, JsonValue]], default: bool = False) -> None:
    for actions in rules:
        rule = {"RuleArn": RULE, "Actions": deepcopy(actions), "IsDefault": default}
        aws.add_response("describe_rules", {"Rules": [rule]}, {"RuleArns": [RULE]})


def modifies(aws: Stubber, actions: list[dict[str, JsonValue]]) -> None:
    aws.add_response(
        "modify_rule", {"Rules": [], "ResponseMetadata": META}, {"RuleArn": RULE, "Actions": deepcopy(actions)}
    )


def health(aws: Stubber, *states: str) -> None:
    targets = [{"TargetHealth": {"State": state}} for state in states]
    aws.add_response("describe_target_health", {"TargetHealthDescriptions": targets}, {"TargetGroupArn": OWN})


@pytest.fixture
def executor(
    resources: dict[str, Resource], clock: InstantClock, elb_client: ElasticLoadBalancingv2Client
) -> TrafficExecutor:
    return TrafficExecutor(resources, clock, elb_client)


@pytest.fixture
def reduce(executor: TrafficExecutor) -> AnyOperation:
    return operation(executor, "reduce_traffic")


@pytest.fixture
def restore(executor: TrafficExecutor) -> AnyOperation:
    return operation(executor, "gradual_traffic_restore")


# --- the catalogue decides what may be touched ---


def test_the_key_is_the_rule(reduce: AnyOperation) -> None:
    assert reduce.resource(reduce.params(service="payment-service", keep_percent=30)) == f"alb:{RULE}"


def test_a_service_without_overflow_group_is_refused(reduce: AnyOperation) -> None:
    with pytest.raises(Refused, match=r"services\.worker\.load_balancer"):
        reduce.resource(reduce.params(service="worker", keep_percent=30))


# --- reduce ---


async def test_only_the_two_weights_change(reduce: AnyOperation, aws_elb: Stubber) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    kept = {**OIDC, "AuthenticateOidcConfig": {**OIDC["AuthenticateOidcConfig"], "UseExistingClientSecret": True}}  # type: ignore[dict-item]
    old, new = forward(100, 0, sticky=True, third=0), forward(30, 70, sticky=True, third=0)
    rules(aws_elb, [OIDC, old], [OIDC, old])
    modifies(aws_elb, [kept, new])
    rules(aws_elb, [OIDC, new], [OIDC, new], [OIDC, new])
    modifies(aws_elb, [kept, old])

    before = await reduce.inspect(params)
    assert reduce.preview(params, before) == "payment-service: 100% of its traffic -> 30%; sticky sessions delay it"
    assert (await reduce.execute(params, before)).request_ids == ("req-1",)
    assert (await reduce.settle(params, before))["percent"] == 30
    assert await reduce.probe(params, before) == "done"
    assert (await reduce.undo(params, before)).detail == "payment-service: 30% of its traffic -> 100%"


async def test_a_rule_with_one_group_gets_weights_and_is_put_back(reduce: AnyOperation, aws_elb: Stubber) -> None:
    params = reduce.params(service="payment-service", keep_percent=40)
    weighted: dict[str, JsonValue] = {
        "Type": "forward",
        "ForwardConfig": {
            "TargetGroups": [{"TargetGroupArn": OWN, "Weight": 40}, {"TargetGroupArn": OVERFLOW, "Weight": 60}]
        },
    }
    rules(aws_elb, [SIMPLE], [SIMPLE])
    modifies(aws_elb, [weighted])
    rules(aws_elb, [{**forward(40, 60), "Order": 1}])
    modifies(aws_elb, [SIMPLE])

    before = await reduce.inspect(params)
    await reduce.execute(params, before)
    await reduce.undo(params, before)


@pytest.mark.parametrize(
    ("action", "default", "said"),
    [
        (forward(20, 80), False, "20% of its traffic already"),
        (forward(100, 0, third=5), False, "further target groups"),
        (forward(100, 0), True, "default rule"),
        ({"Type": "forward", "TargetGroupArn": THIRD}, False, "does not forward to"),
        ({"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "503"}}, False, "does not forward to"),
    ],
)
async def test_reduce_refuses_before_any_change(
    reduce: AnyOperation, aws_elb: Stubber, action: dict[str, JsonValue], default: bool, said: str
) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [action], default=default)
    before = await reduce.inspect(params)
    with pytest.raises(Refused, match=said):
        await reduce.execute(params, before)


@pytest.mark.parametrize("meanwhile", [forward(60, 40), forward(100, 0, sticky=True)])
async def test_reduce_does_not_overwrite_what_somebody_changed_meanwhile(
    reduce: AnyOperation, aws_elb: Stubber, meanwhile: dict[str, JsonValue]
) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(100, 0)], [meanwhile])
    before = await reduce.inspect(params)
    with pytest.raises(Refused):
        await reduce.execute(params, before)


async def test_undo_does_not_overwrite_somebody_elses_rule(reduce: AnyOperation, aws_elb: Stubber) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(100, 0)], [OIDC, forward(30, 70)])
    before = await reduce.inspect(params)
    with pytest.raises(Refused, match="changed by somebody else"):
        await reduce.undo(params, before)


@pytest.mark.parametrize(("own", "answer"), [(30, "done"), (100, "not_done"), (60, "unknown")])
async def test_reduce_is_probed_by_the_weights(reduce: AnyOperation, aws_elb: Stubber, own: int, answer: str) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(100, 0)], [forward(own, 100 - own)])
    before = await reduce.inspect(params)
    assert await reduce.probe(params, before) == answer


# --- restore ---


@pytest.mark.parametrize("steps", [[], [50], [75, 50, 100], [50, 50, 100], [0, 100]])
def test_steps_ascend_to_all(restore: AnyOperation, steps: list[int]) -> None:
    with pytest.raises(ValidationError):
        restore.params(service="payment-service", steps_percent=steps)


async def test_restore_goes_up_step_by_step_from_where_it_is(
    restore: AnyOperation, aws_elb: Stubber, clock: InstantClock
) -> None:
    params = restore.params(service="payment-service")
    for own, target in ((50, 75), (75, 100)):
        if own == 50:
            rules(aws_elb, [forward(50, 50)])
            health(aws_elb, "healthy", "unhealthy")
        rules(aws_elb, [forward(own, 100 - own)])
        health(aws_elb, "healthy", "unhealthy")
        modifies(aws_elb, [forward(target, 100 - target)])
    rules(aws_elb, [forward(100, 0)])
    health(aws_elb, "healthy", "healthy")
    rules(aws_elb, [forward(100, 0)])
    health(aws_elb, "healthy", "healthy")

    before = await restore.inspect(params)
    assert restore.preview(params, before) == "payment-service: 50% of its traffic -> 75% -> 100%, 60 s apart"
    assert (await restore.execute(params, before)).request_ids == ("req-1", "req-1")
    assert clock.slept == [60]
    assert (await restore.settle(params, before))["percent"] == 100
    assert clock.slept == [60, 60]


async def test_restore_stops_and_keeps_the_share_when_targets_turn_bad(restore: AnyOperation, aws_elb: Stubber) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy", "healthy")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy", "healthy")
    modifies(aws_elb, [forward(50, 50)])
    rules(aws_elb, [forward(50, 50)])
    health(aws_elb, "healthy", "unhealthy")

    before = await restore.inspect(params)
    with pytest.raises(ExecutorError, match=r"1 unhealthy targets, 0 before; kept at 50%. Steps made before: 50%\."):
        await restore.execute(params, before)


async def test_restore_stops_when_somebody_else_sets_the_share(restore: AnyOperation, aws_elb: Stubber) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy")
    modifies(aws_elb, [forward(50, 50)])
    rules(aws_elb, [forward(10, 90)])

    before = await restore.inspect(params)
    with pytest.raises(ExecutorError, match="set to 10% by somebody else"):
        await restore.execute(params, before)


async def test_restore_repeated_after_a_crash_goes_on_from_the_present_share(
    restore: AnyOperation, aws_elb: Stubber
) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy")
    rules(aws_elb, [forward(75, 25)], [forward(75, 25)])
    health(aws_elb, "healthy")
    modifies(aws_elb, [forward(100, 0)])

    before = await restore.inspect(params)
    assert await restore.probe(params, before) == "not_done"
    assert len((await restore.execute(params, before)).request_ids) == 1


async def test_restore_without_a_healthy_target_is_refused(restore: AnyOperation, aws_elb: Stubber) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [forward(50, 50)])
    health(aws_elb, "unhealthy")
    rules(aws_elb, [forward(50, 50)])
    before = await restore.inspect(params)
    with pytest.raises(Refused, match="no healthy target"):
        await restore.execute(params, before)


async def test_with_all_traffic_there_is_nothing_to_restore(restore: AnyOperation, aws_elb: Stubber) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [SIMPLE])
    health(aws_elb, "healthy")
    rules(aws_elb, [SIMPLE])
    before = await restore.inspect(params)
    assert restore.preview(params, before) == "payment-service: gets all of its traffic; nothing to restore"
    assert (await restore.execute(params, before)).request_ids == ()


async def test_a_restore_is_undone_to_the_share_before(restore: AnyOperation, aws_elb: Stubber) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy")
    rules(aws_elb, [forward(75, 25)])
    modifies(aws_elb, [forward(30, 70)])
    before = await restore.inspect(params)
    assert (await restore.undo(params, before)).detail == "payment-service: 75% of its traffic -> 30%"


async def test_a_missing_permission_is_named(reduce: AnyOperation, aws_elb: Stubber) -> None:
    aws_elb.add_client_error("describe_rules", "AccessDenied", "no", 403)
    with pytest.raises(ExecutorError, match="Allow elasticloadbalancing:DescribeRules in IAM"):
        await reduce.inspect(reduce.params(service="payment-service", keep_percent=30))


async def test_a_restore_that_aws_refuses_says_what_was_made_before(restore: AnyOperation, aws_elb: Stubber) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy")
    modifies(aws_elb, [forward(50, 50)])
    rules(aws_elb, [forward(50, 50)])
    health(aws_elb, "healthy")
    aws_elb.add_client_error("modify_rule", "Throttling", "Rate exceeded", 400)

    before = await restore.inspect(params)
    with pytest.raises(ExecutorError, match=r"Throttling.*Steps made before: 50%\."):
        await restore.execute(params, before)
