"""From proposed steps to options that may be shown."""

import pytest
from pydantic import JsonValue

from graph.llms.base import PlanRequest
from graph.llms.checked import NotPossibleError, ProposedStep, changes_something, checked_option, checked_step
from graph.llms.rules import explain
from graph.state import Language
from tests.graph.llms import incidents


def asked(language: Language = "en", *, traffic: bool = True) -> PlanRequest:
    evidence = incidents.pool_exhaustion()
    root_cause = explain(evidence, "checkout-service")
    bare = incidents.resource("checkout-service").model_copy(update={"cluster": None})
    resources = (incidents.resource("payment-service", traffic=traffic, max_tasks=6), bare)
    return incidents.plan(evidence, root_cause, resources=resources, language=language)


def test_a_step_is_told_in_the_language_of_the_request() -> None:
    proposed = ProposedStep("reduce_traffic", {"service": "payment-service", "keep_percent": 40})
    assert checked_step(proposed, asked()).summary == (
        "Keep 40 % of the traffic of payment-service, send the rest to the overflow page"
    )
    assert checked_step(proposed, asked("ko")).summary == (
        "payment-service 트래픽의 40 %만 유지하고 나머지는 안내 페이지로 전환"
    )


@pytest.mark.parametrize(
    ("operation", "params", "english", "korean"),
    [
        ("drop_database", {}, "drop_database is not an operation", "쓸 수 없는 작업"),
        (
            "restart_ecs_task",
            {"service": "orders-db"},
            "orders-db is not in the service catalogue",
            "카탈로그에 없거나",
        ),
        (
            "restart_ecs_task",
            {"service": "checkout-service"},
            "no ECS service: add services.checkout",
            "카탈로그에 없는 항목",
        ),
        (
            "reduce_traffic",
            {"service": "payment-service", "keep_percent": 40},
            "no listener rule: add services.payment",
            "카탈로그에 없는 항목",
        ),
        (
            "scale_ecs_service",
            {"service": "payment-service", "desired_count": 99},
            "may run 1 to 6 tasks, not 99",
            "1~6개만 허용",
        ),
        ("restart_ecs_task", {"service": "payment-service", "force": True}, "force: Extra inputs", "force"),
        ("reduce_traffic", {"service": "payment-service", "keep_percent": 400}, "keep_percent", "keep_percent"),
    ],
)
def test_what_may_not_be_proposed_says_why(
    operation: str, params: dict[str, JsonValue], english: str, korean: str
) -> None:
    proposed = ProposedStep(operation, params)
    with pytest.raises(NotPossibleError, match=english):
        checked_step(proposed, asked(traffic=False))
    with pytest.raises(NotPossibleError, match=korean):
        checked_step(proposed, asked("ko", traffic=False))


def test_risk_minutes_and_undo_follow_from_the_operations() -> None:
    request = asked()
    params: dict[str, JsonValue] = {"service": "payment-service"}
    steps = [
        checked_step(ProposedStep("reduce_traffic", {**params, "keep_percent": 40}), request),
        checked_step(ProposedStep("restart_ecs_task", params), request),
        checked_step(ProposedStep("check_ecs_health", params), request),
    ]
    option = checked_option("t", "d", ["E1", "E1"], steps, request.menu, intent="mitigate", benefit=0.8)
    assert (option.risk, option.minutes, option.why) == ("medium", 4.0, ("E1",))
    assert (option.intent, option.benefit) == ("mitigate", 0.8)
    assert option.undo == "The traffic goes back to the weights of before. restart_ecs_task cannot be undone."
    korean = checked_option("t", "d", [], steps, request.menu, language="ko")
    assert korean.undo.startswith("트래픽을 이전 가중치로 되돌립니다. restart_ecs_task")
    assert checked_option("t", "d", [], steps[1:], request.menu).undo == ""
    assert changes_something(steps, request.menu)
    assert not changes_something(steps[2:], request.menu)
