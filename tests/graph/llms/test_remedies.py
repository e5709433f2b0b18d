"""The remedies that the rules engine chooses, by what the catalogue has of the component at fault and what is seen."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest
from pydantic import JsonValue

from collectors.base import Edge
from executors.base import (
    AppConfigProfile,
    Automation,
    KubernetesDeployment,
    LambdaAlias,
    LangfusePrompt,
    Resource,
)
from graph.llms.accounted import estimated_tokens
from graph.llms.analyst import ModelAnalyst
from graph.llms.base import LlmError, PlanRequest
from graph.llms.checked import NotPossibleError, ProposedStep, checked_step
from graph.llms.drafts import plan_schema
from graph.llms.playbooks import OPERATIONS, REMEDIES
from graph.llms.remedies import propose
from graph.llms.scripted import ScriptedChatModel
from graph.masking import Masker
from graph.state import Evidence, Finding, Hop, RootCause, Suspect
from tests.graph.llms import incidents

AT_FAULT, CALLER, OTHER = "orders", "checkout-service", "exports"
BALANCED = {
    "listener_rule_arn": "arn:aws:rule",
    "target_group_arn": "arn:aws:own",
    "overflow_target_group_arn": "arn:aws:overflow",
}
ECS = incidents.resource(AT_FAULT, traffic=False)
KUBERNETES = Resource(service=AT_FAULT, kubernetes=KubernetesDeployment(namespace="shop", deployment="orders"))
INSTANCES = Resource(service=AT_FAULT, auto_scaling_group="orders")
FUNCTION = Resource(service=AT_FAULT, lambda_alias=LambdaAlias(function="orders", alias="live"), max_concurrency=80)
CONFIGURED = ECS.model_copy(
    update={"app_config": AppConfigProfile(application="shop", environment="live", profile="orders")}
)
CLUSTER = Resource(service=AT_FAULT, db_cluster="orders")
INSTANCE = Resource(service=AT_FAULT, db_instance="orders-1")
CACHE = Resource(service=AT_FAULT, replication_group="orders")
PROMPT = Resource(service=AT_FAULT, prompt=LangfusePrompt(name="answer", models=("gpt-4o", "claude-sonnet-4")))
NOBODY = Resource(service=CALLER)


def seen(number: int, kind: str, signal: str, excerpt: str = "", *, minute: float = 0.0, **numbers: float) -> Finding:
    """One finding of the component at fault."""
    told = f"{AT_FAULT}: {signal}"
    return incidents.finding(
        number,
        kind,  # type: ignore[arg-type]
        AT_FAULT,
        signal,
        told,
        excerpt=excerpt,
        minute=minute,
        observed=numbers.get("now"),
        baseline=numbers.get("before"),
    )


DEPLOYED = seen(8, "change", "deploy version 42", minute=-5)
SETTING = seen(8, "change", "configuration of orders changed", minute=-5)
LEAK = seen(1, "log", "OOM", "java.lang.OutOfMemoryError: Java heap space")
FEW = seen(2, "status", "kubernetes.ready_replicas", now=3, before=4)
INSTANCES_RUN = seen(2, "metric", "GroupDesiredCapacity", now=4, before=4)
QUEUED = seen(1, "metric", "queue_depth", now=900, before=10)
BROKEN_DISK = seen(1, "log", "postgres", "could not fsync file: Input/output error")
SLOW = seen(1, "metric", "WriteLatency", now=0.4, before=0.004)
BUSY = seen(2, "metric", "CPUUtilization", now=0.93, before=0.4)
UNANSWERED = seen(1, "metric", "commands", now=2, before=240)
FAILS = seen(1, "log", "http", "HTTP 503 error")
REROUTED = seen(8, "change", "Listener rule of orders: 60 % of its traffic to the maintenance page", minute=-1)
SHEDDING = ECS.model_copy(update=BALANCED)
SPLIT = ECS.model_copy(update=BALANCED | {"overflow_target_group_arn": None})
MASTER_DOWN = seen(1, "log", "redis", "MASTERDOWN Link with MASTER is down")


def asked(
    category: str,
    *findings: Finding,
    resources: tuple[Resource, ...],
    instances: tuple[str, ...] = (),
    kind: str = "",
    path: tuple[Hop, ...] = (),
) -> PlanRequest:
    """A plan against this kind of failure of ``orders``, which checkout calls."""
    suspect = Suspect(
        component=AT_FAULT, score=0.9, findings=tuple(f.id for f in findings), instances=instances, kind=kind, path=path
    )
    evidence = Evidence(digest="d", findings=findings, suspects=(suspect,))
    root_cause = RootCause(
        component=AT_FAULT, category=category, title="t", mechanism="m", confidence="medium", path=path
    )
    return incidents.plan(evidence, root_cause, menu=incidents.whole_menu(*resources), resources=resources)


def steps(request: PlanRequest) -> dict[str, Mapping[str, JsonValue]]:
    """The params by operation of all that is proposed."""
    return {step.operation: step.params for option in propose(request).options for step in option.steps}


@pytest.mark.parametrize(
    ("category", "findings", "resource", "operation", "params"),
    [
        ("memory_exhaustion", [LEAK], ECS, "restart_ecs_task", {}),
        ("memory_exhaustion", [LEAK], KUBERNETES, "restart_deployment", {}),
        ("memory_exhaustion", [LEAK], INSTANCES, "refresh_instances", {}),
        ("memory_exhaustion", [LEAK, DEPLOYED], KUBERNETES, "undo_deployment", {}),
        ("bad_deploy", [LEAK, DEPLOYED], FUNCTION, "shift_lambda_alias", {"version": "41", "weight_percent": 100}),
        ("cpu_saturation", [FEW], KUBERNETES, "scale_deployment", {"replicas": 8}),
        ("cpu_saturation", [INSTANCES_RUN], INSTANCES, "scale_auto_scaling_group", {"desired_capacity": 8}),
        ("bad_configuration", [SETTING], CONFIGURED, "revert_configuration", {}),
        ("connection_pool_exhaustion", [SETTING], CONFIGURED, "revert_configuration", {}),
        ("database_degradation", [BROKEN_DISK], CLUSTER, "failover_db_cluster", {"reader": None}),
        ("database_degradation", [BROKEN_DISK], INSTANCE, "reboot_db_instance", {"force_failover": True}),
        ("database_degradation", [SLOW], CLUSTER, "failover_db_cluster", {"reader": None}),
        ("database_degradation", [UNANSWERED], INSTANCE, "reboot_db_instance", {"force_failover": True}),
        ("cache_failure", [UNANSWERED], CACHE, "failover_cache", {}),
        ("bad_configuration", [FAILS, REROUTED], SHEDDING, "gradual_traffic_restore", {}),
        ("dependency_outage", [FAILS, REROUTED], SHEDDING, "gradual_traffic_restore", {}),
        (
            "missing_calls",
            [FAILS, REROUTED],
            SPLIT,
            "shift_traffic",
            {"target_group_arn": "arn:aws:own", "percent": 100},
        ),
        ("cache_failure", [MASTER_DOWN], CACHE, "failover_cache", {}),
        ("dependency_outage", [MASTER_DOWN], CACHE, "failover_cache", {}),
        (
            "concurrency_limit",
            [seen(1, "log", "lambda", "TooManyRequests: ReservedFunctionConcurrentInvocationLimitExceeded")],
            FUNCTION,
            "set_lambda_concurrency",
            {"reserved": None},
        ),
        (
            "concurrency_limit",
            [
                seen(1, "metric", "Invocations", now=9000, before=900),
                seen(2, "metric", "ConcurrentExecutions", now=950, before=42.4),
            ],
            FUNCTION,
            "set_lambda_concurrency",
            {"reserved": 43},
        ),
        ("unhealthy_tasks", [seen(1, "log", "kernel", "kernel: nvme0: I/O error")], INSTANCES, "refresh_instances", {}),
        (
            "unhealthy_tasks",
            [seen(1, "metric", "UnHealthyHostCount of target group orders-green", now=3, before=0)],
            ECS.model_copy(update=BALANCED),
            "shift_traffic",
            {"target_group_arn": "arn:aws:own", "percent": 0},
        ),
        (
            "prompt_regression",
            [seen(1, "change", "prompt “answer” version 7 first used, before: 6")],
            PROMPT,
            "switch_prompt_version",
            {"version": None},
        ),
        (
            "prompt_regression",
            [seen(1, "change", "LLM model gpt-4.1-mini first used, before: gpt-4.1")],
            PROMPT,
            "switch_prompt_model",
            {"model": None},
        ),
    ],
)
def test_what_is_proposed_where_it_is_the_right_answer(
    category: str, findings: list[Finding], resource: Resource, operation: str, params: dict[str, JsonValue]
) -> None:
    proposed = steps(asked(category, *findings, resources=(resource, NOBODY)))
    assert operation in proposed
    assert params.items() <= proposed[operation].items()
    assert proposed[operation]["service"] == AT_FAULT
    assert operation not in steps(asked(category, *findings, resources=(NOBODY,))), "not what the catalogue lacks"


@pytest.mark.parametrize(
    ("category", "findings", "resource", "operation"),
    [
        ("database_degradation", [QUEUED], CLUSTER, "failover_db_cluster"),
        (
            "database_degradation",
            [BROKEN_DISK, seen(2, "change", "Multi-AZ instance failover started")],
            CLUSTER,
            "failover_db_cluster",
        ),
        ("cache_failure", [seen(1, "metric", "evictions", now=900, before=1)], CACHE, "failover_cache"),
        ("database_degradation", [SLOW, BUSY], CLUSTER, "failover_db_cluster"),
        ("database_degradation", [SLOW, seen(2, "log", "pg", "lock wait timeout")], CLUSTER, "failover_db_cluster"),
        ("database_degradation", [SLOW, seen(2, "log", "pg", "too many clients")], CLUSTER, "failover_db_cluster"),
        ("dependency_outage", [FAILS, REROUTED], SHEDDING, "restart_ecs_task"),
        ("bad_configuration", [FAILS, SETTING], SHEDDING, "gradual_traffic_restore"),
        ("bad_configuration", [LEAK], CONFIGURED, "revert_configuration"),
        ("bad_deploy", [DEPLOYED], CONFIGURED, "revert_configuration"),
        ("unhealthy_tasks", [LEAK], ECS, "stop_ecs_task"),
        ("prompt_regression", [DEPLOYED], PROMPT, "switch_prompt_version"),
        ("prompt_regression", [seen(1, "metric", "llm.score", now=0.4, before=0.9)], PROMPT, "switch_prompt_model"),
        ("bad_deploy", [seen(1, "change", "deploy v2.14.0", minute=-5)], FUNCTION, "shift_lambda_alias"),
        ("concurrency_limit", [LEAK], FUNCTION, "set_lambda_concurrency"),
    ],
)
def test_what_is_not_proposed_without_a_sign_that_it_helps(
    category: str, findings: list[Finding], resource: Resource, operation: str
) -> None:
    assert operation not in steps(asked(category, *findings, resources=(resource, NOBODY)))


@pytest.mark.parametrize("category", ["unhealthy_tasks", "memory_exhaustion", "cpu_saturation", "disk_full"])
def test_one_bad_task_is_stopped_where_the_others_are_well(category: str) -> None:
    resources = (ECS, NOBODY)
    assert steps(asked(category, LEAK, resources=resources, instances=("task-1",)))["stop_ecs_task"] == {
        "service": AT_FAULT,
        "task": "unhealthiest",
    }
    for instances in ((), ("task-1", "task-2")):
        assert "stop_ecs_task" not in steps(asked(category, LEAK, resources=resources, instances=instances))


def test_new_pods_are_not_advised_where_they_do_not_come_up() -> None:
    crashing = seen(2, "log", "pod", "Back-off restarting failed container: CrashLoopBackOff")
    proposal = propose(asked("memory_exhaustion", LEAK, crashing, resources=(KUBERNETES, NOBODY)))
    assert "restart_deployment" not in {s.operation for o in proposal.options for s in o.steps}
    assert any("do not come up" in note for note in proposal.notes)


def test_while_the_provider_of_a_model_is_down_its_caller_asks_another() -> None:
    caller = Resource(service=CALLER, prompt=LangfusePrompt(name="answer", models=("claude-sonnet-4",)))
    request = asked("llm_provider_outage", LEAK, resources=(caller,), path=(incidents.hop(AT_FAULT, CALLER),))
    assert steps(request)["switch_prompt_model"] == {"service": CALLER, "model": None}
    (option,) = propose(request).options
    assert option.title == f"Let {CALLER} ask another model than that of {AT_FAULT}"
    assert option.steps[0].summary == f"Let the prompt of {CALLER} name the first other model of the catalogue"


def test_a_function_that_calls_an_overloaded_database_is_capped() -> None:
    caller = Resource(service=CALLER, lambda_alias=LambdaAlias(function="checkout"))
    ran = incidents.finding(2, "metric", CALLER, "ConcurrentExecutions", "it rose", observed=300, baseline=20, minute=1)
    request = asked("database_degradation", QUEUED, ran, resources=(caller,), path=(incidents.hop(AT_FAULT, CALLER),))
    assert steps(request)["set_lambda_concurrency"] == {"service": CALLER, "reserved": 20}


def beside(change: str, *more: Finding, minutes_before: float = 1.0, kind: str = "database") -> PlanRequest:
    """The database of two services, one of which changed so long before it became slow."""
    changed = incidents.finding(7, "change", OTHER, change, f"{OTHER}: {change}", minute=-minutes_before)
    request = asked(
        "database_degradation", SLOW, *more, changed, resources=(CLUSTER, incidents.resource(OTHER)), kind=kind
    )
    edges = tuple(Edge(caller=name, callee=AT_FAULT, source="catalogue") for name in (CALLER, OTHER))
    (suspect,) = request.evidence.suspects
    own = suspect.model_copy(update={"findings": tuple(id_ for id_ in suspect.findings if id_ != changed.id)})
    return replace(request, evidence=request.evidence.model_copy(update={"edges": edges, "suspects": (own,)}))


@pytest.mark.parametrize(
    ("change", "operation"),
    [("deploy version 42", "rollback_ecs_service"), ("Job aggregate started by hand", "restart_ecs_task")],
)
def test_another_caller_that_changed_right_before_is_put_back_first(change: str, operation: str) -> None:
    proposal = propose(beside(change, QUEUED))
    first = proposal.options[0]
    assert (first.steps[0].operation, first.steps[0].params["service"]) == (operation, OTHER)
    assert first.why[0] == "E7"
    assert "failover_db_cluster" not in {s.operation for o in proposal.options for s in o.steps}
    assert any("changed right before" in note for note in proposal.notes)


def test_a_caller_that_changed_long_before_is_left_alone() -> None:
    proposal = propose(beside("deploy version 42", minutes_before=45))
    assert [o.steps[0].operation for o in proposal.options] == ["failover_db_cluster"]


def test_what_helps_for_one_reason_is_not_warned_of_for_another() -> None:
    proposal = propose(asked("database_degradation", SLOW, BUSY, BROKEN_DISK, resources=(CLUSTER,)))
    assert proposal.options[0].steps[0].operation == "failover_db_cluster"
    assert not any("Fail orders over" in note for note in proposal.notes)


def test_a_service_that_is_no_function_is_not_capped_and_nothing_is_said_of_it() -> None:
    request = asked("rate_limited_dependency", FAILS, resources=(NOBODY,), path=(incidents.hop(AT_FAULT, CALLER),))
    assert not any("what checkout-service should be set to" in note for note in propose(request).notes)


def test_what_the_catalogue_would_need_is_said() -> None:
    proposal = propose(asked("database_degradation", BROKEN_DISK, resources=(Resource(service=AT_FAULT),)))
    assert proposal.options == ()
    assert any("aws.rds_clusters" in note for note in proposal.notes)


# --- what the playbooks name ---


def test_every_step_of_every_remedy_is_an_operation_with_params_that_it_takes() -> None:
    for name, remedy in REMEDIES.items():
        for step in (step for way in remedy.ways for step in way):
            known = incidents.OPERATIONS[step.operation].params.model_fields
            assert set(step.params) <= set(known), f"{name}: {step.operation}"


def test_every_operation_is_told_in_words_of_its_own_params() -> None:
    assert set(OPERATIONS) == set(incidents.OPERATIONS)
    for name, told in OPERATIONS.items():
        assert (told.undone is None) == (not incidents.OPERATIONS[name].reversible), name


# --- what a model is shown and may answer ---


@pytest.mark.parametrize(
    ("resource", "operation", "params", "complaint"),
    [
        (KUBERNETES, "scale_deployment", {"replicas": 40}, "may run 1 to 20 tasks, not 40"),
        (INSTANCES, "scale_auto_scaling_group", {"desired_capacity": 40}, "may run 1 to 20 tasks, not 40"),
        (FUNCTION, "set_lambda_concurrency", {"reserved": 500}, "80"),
        (FUNCTION, "shift_lambda_alias", {"version": "$LATEST", "weight_percent": 100}, "version"),
        (PROMPT, "switch_prompt_model", {"model": "gpt-2"}, r"services\.orders\.prompt\.models"),
        (PROMPT, "restart_deployment", {}, r"services\.orders\.kubernetes"),
        (ECS, "run_automation", {"document": "Anything"}, "automations"),
        (CLUSTER, "reboot_db_instance", {"force_failover": "yes"}, "force_failover"),
    ],
)
def test_params_that_the_catalogue_does_not_allow_are_refused(
    resource: Resource, operation: str, params: dict[str, JsonValue], complaint: str
) -> None:
    request = asked("unknown", LEAK, resources=(resource,))
    with pytest.raises(NotPossibleError, match=complaint):
        checked_step(ProposedStep(operation, {"service": AT_FAULT, **params}), request)


def offered(request: PlanRequest) -> dict[str, dict[str, JsonValue]]:
    """The schema of its params by operation."""
    schema = json.loads(json.dumps(plan_schema(request)))
    found = schema["properties"]["options"]["items"]["properties"]["steps"]["items"]["anyOf"]
    return {
        name: step["properties"]["params"]["properties"]
        for step in found
        for name in step["properties"]["operation"]["enum"]
    }


def test_a_model_is_offered_only_what_a_concerned_service_can_take() -> None:
    request = asked("unknown", LEAK, resources=(KUBERNETES, CACHE.model_copy(update={"service": "far-away"})))
    assert set(offered(request)) == {"restart_deployment", "scale_deployment", "undo_deployment"}


def test_a_model_chooses_among_what_the_catalogue_lists() -> None:
    automation = Automation(document="Clean-Up", version="3")
    resource = PROMPT.model_copy(update={"automations": (automation,)})
    schemas = offered(asked("unknown", LEAK, resources=(resource,)))
    assert schemas["run_automation"]["document"]["enum"] == ["Clean-Up"]  # type: ignore[call-overload,index]
    assert schemas["switch_prompt_model"]["model"]["enum"] == ["gpt-4o", "claude-sonnet-4"]  # type: ignore[call-overload,index]


MIXED = (
    incidents.resource("web"),
    incidents.resource(AT_FAULT).model_copy(update={"app_config": CONFIGURED.app_config}),
    KUBERNETES.model_copy(update={"service": CALLER, "auto_scaling_group": "nodes"}),
    FUNCTION.model_copy(update={"service": "resize"}),
    CLUSTER.model_copy(update={"service": "orders-db", "db_instance": "orders-1"}),
    CACHE.model_copy(update={"service": "redis"}),
    PROMPT.model_copy(update={"service": "assistant", "automations": (Automation(document="Clean-Up", version="3"),)}),
)


async def test_all_operations_at_once_leave_room_for_the_incident_in_a_question() -> None:
    request = asked("memory_exhaustion", LEAK, FEW, QUEUED, resources=MIXED)
    suspects = tuple(incidents.suspect(r.service, "E1") for r in MIXED if r.service not in (AT_FAULT, CALLER))
    evidence = request.evidence.model_copy(update={"suspects": suspects})
    everything = incidents.plan(evidence, request.root_cause, menu=incidents.whole_menu(*MIXED), resources=MIXED)
    assert set(offered(everything)) == set(incidents.OPERATIONS)
    chat = ScriptedChatModel(LlmError("enough"))
    with pytest.raises(LlmError, match="enough"):
        await ModelAnalyst(chat, Masker(b"x")).plan(everything)
    (question,) = chat.questions
    assert estimated_tokens(question) <= 6_000
    brief = question.messages[1].content
    assert '"id": "E1"' in brief
    assert '"id": "E2"' in brief
