import json
from copy import deepcopy

import pytest
from botocore.stub import Stubber
from hypothesis import given
from hypothesis import strategies as st
from mypy_boto3_ecs import ECSClient
from mypy_boto3_elbv2 import ElasticLoadBalancingv2Client
from pydantic import JsonValue, ValidationError

from executors._aws import Connection
from executors._traffic_shift import ShiftParams, shifted
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
    resources: dict[str, Resource],
    clock: InstantClock,
    elb_client: ElasticLoadBalancingv2Client,
    ecs_client: ECSClient,
) -> TrafficExecutor:
    return TrafficExecutor(resources, clock, Connection.of(elb_client), Connection.of(ecs_client))


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
    rules(aws_elb, [OIDC, old])
    health(aws_elb, "healthy")
    rules(aws_elb, [OIDC, old])
    modifies(aws_elb, [kept, new])
    rules(aws_elb, [OIDC, new], [OIDC, new], [OIDC, new])
    modifies(aws_elb, [kept, old])

    before = await reduce.inspect(params)
    assert reduce.preview(params, before) == "payment-service: 100% of its traffic -> 30%; sticky sessions delay it"
    assert (await reduce.execute(params, before)).request_ids == ("req-1",)
    assert (await reduce.settle(params, before))["percent"] == 30
    assert await reduce.probe(params, before) == "done"
    assert (await reduce.undo(params, before)).detail == "payment-service: 30% of its traffic -> 100% of its traffic"


async def test_a_rule_with_one_group_gets_weights_and_is_put_back(reduce: AnyOperation, aws_elb: Stubber) -> None:
    params = reduce.params(service="payment-service", keep_percent=40)
    weighted: dict[str, JsonValue] = {
        "Type": "forward",
        "ForwardConfig": {
            "TargetGroups": [{"TargetGroupArn": OWN, "Weight": 40}, {"TargetGroupArn": OVERFLOW, "Weight": 60}]
        },
    }
    rules(aws_elb, [SIMPLE])
    health(aws_elb, "healthy")
    rules(aws_elb, [SIMPLE])
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
    health(aws_elb, "healthy")
    before = await reduce.inspect(params)
    with pytest.raises(Refused, match=said):
        await reduce.execute(params, before)


@pytest.mark.parametrize("meanwhile", [forward(60, 40), forward(100, 0, sticky=True)])
async def test_reduce_does_not_overwrite_what_somebody_changed_meanwhile(
    reduce: AnyOperation, aws_elb: Stubber, meanwhile: dict[str, JsonValue]
) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(100, 0)])
    health(aws_elb, "healthy")
    rules(aws_elb, [meanwhile])
    before = await reduce.inspect(params)
    with pytest.raises(Refused):
        await reduce.execute(params, before)


async def test_undo_does_not_overwrite_somebody_elses_rule(reduce: AnyOperation, aws_elb: Stubber) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(100, 0)])
    health(aws_elb, "healthy")
    rules(aws_elb, [OIDC, forward(30, 70)])
    before = await reduce.inspect(params)
    with pytest.raises(Refused, match="changed by somebody else"):
        await reduce.undo(params, before)


@pytest.mark.parametrize(("own", "answer"), [(30, "done"), (100, "not_done"), (60, "unknown")])
async def test_reduce_is_probed_by_the_weights(reduce: AnyOperation, aws_elb: Stubber, own: int, answer: str) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(100, 0)])
    health(aws_elb, "healthy")
    rules(aws_elb, [forward(own, 100 - own)])
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
    assert (await restore.undo(params, before)).detail == "payment-service: 75% of its traffic -> 30% of its traffic"


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


# --- shift ---

BLUE, GREEN = OWN, THIRD


def colours(blue: int, green: int, *, overflow: int | None = None, sticky: bool = False) -> dict[str, JsonValue]:
    weights = {BLUE: blue, GREEN: green, **({} if overflow is None else {OVERFLOW: overflow})}
    groups: list[JsonValue] = [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in weights.items()]
    stickiness: JsonValue = {"Enabled": sticky, "DurationSeconds": 300}
    return {"Type": "forward", "ForwardConfig": {"TargetGroups": groups, "TargetGroupStickinessConfig": stickiness}}


def healths(aws: Stubber, **states: list[str]) -> None:
    arns = {"blue": BLUE, "green": GREEN, "overflow": OVERFLOW}
    for name, of_targets in states.items():
        targets = [{"TargetHealth": {"State": state}} for state in of_targets]
        answer = {"TargetHealthDescriptions": targets}
        aws.add_response("describe_target_health", answer, {"TargetGroupArn": arns[name]})


@pytest.fixture
def shift(executor: TrafficExecutor) -> AnyOperation:
    return operation(executor, "shift_traffic")


async def test_traffic_is_shifted_and_all_else_of_the_rule_stays(shift: AnyOperation, aws_elb: Stubber) -> None:
    params = shift.params(service="payment-service", target_group_arn=GREEN, percent=25)
    kept = {**OIDC, "AuthenticateOidcConfig": {**OIDC["AuthenticateOidcConfig"], "UseExistingClientSecret": True}}  # type: ignore[dict-item]
    old, new = colours(1, 0, overflow=0, sticky=True), colours(75, 25, overflow=0, sticky=True)
    rules(aws_elb, [OIDC, old])
    healths(aws_elb, blue=["healthy"] * 3, green=["healthy"] * 2, overflow=[])
    before = await shift.inspect(params)
    assert shift.preview(params, before).endswith(
        "-> targetgroup/payment/6d0e 75%, targetgroup/green/0815 25%, targetgroup/overflow/77aa 0%"
    )
    assert [(c.what, c.before, c.after) for c in shift.changes(params, before)] == [
        ("weight of targetgroup/payment/6d0e", "1", "75"),
        ("weight of targetgroup/green/0815", "0", "25"),
    ]
    capacity = shift.capacity(params, before)
    assert capacity is not None
    assert (capacity.servers_now, capacity.servers_then) == (3, 4)

    rules(aws_elb, [OIDC, old])
    modifies(aws_elb, [kept, new])
    assert (await shift.execute(params, before)).request_ids == ("req-1",)
    rules(aws_elb, [OIDC, new], [OIDC, new], [OIDC, new])
    assert (await shift.settle(params, before))["weights"] == {BLUE: 75, GREEN: 25, OVERFLOW: 0}
    assert await shift.probe(params, before) == "done"
    modifies(aws_elb, [kept, old])
    await shift.undo(params, before)


@pytest.mark.parametrize(
    ("action", "green", "percent", "said"),
    [
        (colours(100, 0), ["unhealthy"], 20, "targetgroup/green/0815 has no healthy target"),
        (colours(60, 20), ["healthy"], 25, "nothing to shift"),
        (colours(60, 0, overflow=40), ["healthy"], 25, "restore it first"),
        (colours(100, 0), ["healthy"], 0, "nothing to shift"),
    ],
)
async def test_a_shift_is_refused_before_any_change(
    shift: AnyOperation, aws_elb: Stubber, action: dict[str, JsonValue], green: list[str], percent: int, said: str
) -> None:
    params = shift.params(service="payment-service", target_group_arn=GREEN, percent=percent)
    rules(aws_elb, [action])
    healths(aws_elb, blue=["healthy"], green=green)
    if OVERFLOW in str(action):
        healths(aws_elb, overflow=["healthy"])
    before = await shift.inspect(params)
    with pytest.raises(Refused, match=said):
        await shift.execute(params, before)


@pytest.mark.parametrize("to", [THIRD, OVERFLOW])
async def test_traffic_goes_only_where_the_rule_forwards_to_already(
    shift: AnyOperation, aws_elb: Stubber, to: str
) -> None:
    params = shift.params(service="payment-service", target_group_arn=to, percent=20)
    rules(aws_elb, [forward(100, 0)])
    healths(aws_elb, blue=["healthy"], overflow=["healthy"])
    before = await shift.inspect(params)
    with pytest.raises(Refused, match="its rule must forward to"):
        shift.preview(params, before)


@pytest.mark.parametrize("meanwhile", [[colours(50, 50)], [OIDC, colours(80, 20)]])
async def test_a_shift_does_not_overwrite_what_somebody_changed_meanwhile(
    shift: AnyOperation, aws_elb: Stubber, meanwhile: list[dict[str, JsonValue]]
) -> None:
    params = shift.params(service="payment-service", target_group_arn=GREEN, percent=20)
    rules(aws_elb, [colours(100, 0)])
    healths(aws_elb, blue=["healthy"], green=["healthy"])
    rules(aws_elb, meanwhile, meanwhile)
    before = await shift.inspect(params)
    with pytest.raises(Refused):
        await shift.execute(params, before)
    with pytest.raises(Refused, match="by somebody else"):
        await shift.undo(params, before)


@given(
    weights=st.lists(st.integers(0, 999), min_size=2, max_size=5).filter(lambda weights: any(weights[1:])),
    percent=st.integers(0, 100),
)
def test_shares_always_add_up_to_all_of_the_traffic(weights: list[int], percent: int) -> None:
    arns = tuple(f"arn:{n}" for n in range(len(weights)))
    params = ShiftParams(service="pay", target_group_arn=arns[0], percent=percent)
    new = shifted(params, arns, dict(zip(arns, weights, strict=True)))
    assert new[arns[0]] == percent
    assert sum(new.values()) == 100
    assert all(0 <= weight <= 100 for weight in new.values())
    assert all(new[arn] == 0 for arn, weight in zip(arns[1:], weights[1:], strict=True) if weight == 0)


# --- what is told before a person decides ---


def deployed(aws: Stubber, controller: str = "ECS", strategy: str = "ROLLING", rollout: str = "COMPLETED") -> None:
    found = {
        "deploymentController": {"type": controller},
        "deploymentConfiguration": {"strategy": strategy},
        "deployments": [{"id": "d1", "rolloutState": rollout}],
    }
    aws.add_response("describe_services", {"services": [found]}, {"cluster": "shop", "services": ["payment"]})


@pytest.mark.parametrize(
    ("deployment", "status"),
    [
        ({}, "ok"),
        ({"strategy": "BLUE_GREEN"}, "warning"),
        ({"controller": "CODE_DEPLOY"}, "warning"),
        ({"strategy": "CANARY", "rollout": "IN_PROGRESS"}, "failed"),
    ],
)
async def test_who_else_sets_the_weights_is_told_before(
    reduce: AnyOperation, aws_elb: Stubber, aws_ecs: Stubber, deployment: dict[str, str], status: str
) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(100, 0, sticky=True)])
    health(aws_elb, "healthy", "unhealthy")
    before = await reduce.inspect(params)
    deployed(aws_ecs, **deployment)
    healths(aws_elb, overflow=[])
    checks = await reduce.preflight(params, before)
    assert [check.status for check in checks if check.name == "gitops"] == [status]
    assert [check.detail for check in checks if check.name == "state"] == [
        "payment-service: 1 healthy targets, 1 unhealthy",
        "payment-service: sticky sessions keep clients where they are until their cookie ends",
        "targetgroup/overflow/77aa has no healthy target: what is shed may be answered with errors",
    ]


async def test_an_owner_that_cannot_be_asked_for_is_skipped(
    restore: AnyOperation, aws_elb: Stubber, aws_ecs: Stubber
) -> None:
    params = restore.params(service="payment-service")
    rules(aws_elb, [forward(30, 70)])
    health(aws_elb, "healthy")
    before = await restore.inspect(params)
    aws_ecs.add_client_error("describe_services", "AccessDeniedException", "no", 400)
    checks = await restore.preflight(params, before)
    assert {check.name for check in checks if check.status == "skipped"} == {"gitops", "permission"}


async def test_less_traffic_for_the_same_targets_and_back(
    reduce: AnyOperation, restore: AnyOperation, aws_elb: Stubber
) -> None:
    shed = reduce.params(service="payment-service", keep_percent=30)
    rules(aws_elb, [forward(60, 40)])
    health(aws_elb, "healthy", "healthy")
    before = await reduce.inspect(shed)
    less = reduce.capacity(shed, before)
    more = restore.capacity(restore.params(service="payment-service"), before)
    assert less is not None
    assert more is not None
    assert (less.servers_then, less.load_then) == (2, 0.5)
    assert more.load_then == pytest.approx(100 / 60)
    assert [(c.before, c.after) for c in reduce.changes(shed, before)] == [("60", "30"), ("40", "70")]


async def test_an_approval_is_bound_to_the_weights_and_the_rest_of_the_rule(
    reduce: AnyOperation, aws_elb: Stubber
) -> None:
    params = reduce.params(service="payment-service", keep_percent=30)
    pins = []
    for states, action in (
        (["healthy"], forward(100, 0)),
        (["unhealthy"], forward(100, 0)),
        (["healthy"], forward(80, 20)),
        (["healthy"], forward(100, 0, sticky=True)),
    ):
        rules(aws_elb, [action])
        health(aws_elb, *states)
        pins.append(reduce.pinned(params, await reduce.inspect(params)))
    assert pins[0] == pins[1]
    assert pins[0] not in pins[2:]
    json.dumps(pins)


def test_what_the_catalogue_lacks_is_a_line_to_add(executor: TrafficExecutor, resources: dict[str, Resource]) -> None:
    alone = resources["payment-service"].model_copy(update={"overflow_target_group_arn": None})
    said = {step.name: (step.lacks(resources["worker"]), step.lacks(alone)) for step in executor.operations}
    rule = "no listener rule: add services.worker.load_balancer to autopilot.yaml"
    group = "no overflow target group: add services.payment-service.load_balancer.overflow_target_group_arn"
    assert said["shift_traffic"] == (rule, "")
    assert said["reduce_traffic"] == said["gradual_traffic_restore"] == (rule, f"{group} to autopilot.yaml")
