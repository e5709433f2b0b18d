"""The operations on Deployments, against an API server on a local port."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from executors import kubernetes
from executors.base import (
    AnyOperation,
    ExecutorError,
    KubernetesDeployment,
    OutcomeUnknown,
    PreflightCheck,
    Refused,
    Resource,
    State,
)
from tests.executors.cluster import (
    DEPLOYMENT,
    FakeCluster,
    autoscaler,
    kubeconfig,
    replica_set,
    serving,
    template,
)
from tests.executors.conftest import InstantClock, operation

RESOURCES = {
    "payment-service": Resource(
        service="payment-service",
        kubernetes=KubernetesDeployment(namespace="shop", deployment="pay"),
        min_tasks=1,
        max_tasks=12,
    ),
    "legacy": Resource(service="legacy"),
}


@pytest.fixture
def fake() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def url(fake: FakeCluster) -> Iterator[str]:
    with serving(fake) as url:
        yield url


@pytest.fixture
async def executor(url: str, tmp_path: Path, clock: InstantClock) -> AsyncIterator[kubernetes.KubernetesExecutor]:
    settings = kubernetes.Settings(kubeconfig=kubeconfig(tmp_path, url))
    executor = kubernetes.KubernetesExecutor(RESOURCES, clock, kubernetes.Cluster(settings))
    yield executor
    await executor.aclose()


async def run(one: AnyOperation, **params: JsonValue) -> tuple[State, State]:
    """Before and after."""
    asked = one.params.model_validate({"service": "payment-service", **params})
    before = await one.inspect(asked)
    outcome = await one.execute(asked, before)
    assert outcome.request_ids[0].startswith("audit-")
    assert outcome.detail == one.preview(asked, before)
    return before, await one.settle(asked, before)


def of(name: str, checks: tuple[PreflightCheck, ...]) -> list[str]:
    """The statuses of the checks of that name."""
    return [check.status for check in checks if check.name == name]


async def test_a_restart_writes_what_kubectl_writes_under_a_lock(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    before, after = await run(operation(executor, "restart_deployment"))
    (request,) = fake.writes()
    assert request.path == DEPLOYMENT
    assert request.content_type == "application/strategic-merge-patch+json"
    assert request.query == {"fieldManager": ["aiops"], "fieldValidation": ["Strict"]}
    annotations = {"kubectl.kubernetes.io/restartedAt": before["mark"]}
    assert request.body == {
        "metadata": {"resourceVersion": "100"},
        "spec": {"template": {"metadata": {"annotations": annotations}}},
    }
    assert after["restarted_at"] == before["mark"]
    assert fake.deployment["spec"]["template"]["metadata"]["annotations"]["team"] == "payments"


async def test_after_a_crash_the_mark_tells_whether_it_was_restarted(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    before = await restart.inspect(params)
    assert await restart.probe(params, before) == "not_done"
    fake.vanish_on = "PATCH"
    with pytest.raises(OutcomeUnknown, match="no answer came"):
        await restart.execute(params, before)
    fake.vanish_on = ""
    assert await restart.probe(params, before) == "done"
    assert len(fake.writes()) == 1, "an answer that is lost does not make it send again"
    fake.deployment["spec"]["template"] = template("pay:3")
    assert await restart.probe(params, before) == "unknown"
    with pytest.raises(Refused, match="cannot be undone"):
        await restart.undo(params, before)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"metadata": {"labels": {"argocd.argoproj.io/instance": "shop"}}}, "Argo CD keeps this"),
        ({"metadata": {"annotations": {"argocd.argoproj.io/tracking-id": "shop:apps"}}}, "Argo CD keeps this"),
        ({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "shop"}}}, "Flux keeps this"),
        ({"metadata": {"managedFields": [{"manager": "helm-controller"}]}}, "Flux keeps this"),
        ({"spec": {"paused": True}}, "roll-outs are paused"),
    ],
)
@pytest.mark.parametrize("name", ["restart_deployment", "undo_deployment", "scale_deployment"])
async def test_what_others_keep_or_have_paused_is_left_alone(
    executor: kubernetes.KubernetesExecutor,
    fake: FakeCluster,
    name: str,
    change: dict[str, dict[str, JsonValue]],
    told: str,
) -> None:
    for part, values in change.items():
        fake.deployment[part].update(values)
    one = operation(executor, name)
    params = one.params.model_validate(
        {"service": "payment-service", "replicas": 6} if "scale" in name else {"service": "payment-service"}
    )
    before = await one.inspect(params)
    for refused in (one.preview, one.changes):
        with pytest.raises(Refused, match=told):
            refused(params, before)
    with pytest.raises(Refused, match=told):
        await one.execute(params, before)
    assert not fake.writes()


async def test_a_helm_release_that_nobody_reconciles_may_be_changed(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    fake.deployment["metadata"]["labels"] = {"app.kubernetes.io/instance": "pay", "helm.sh/chart": "pay-1.0"}
    await run(operation(executor, "restart_deployment"))
    assert len(fake.writes()) == 1


async def test_a_restart_waits_for_a_roll_out_under_way(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    fake.deployment["status"]["updatedReplicas"] = 2
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    with pytest.raises(Refused, match=r"under way \(2 of 4 pods updated\)"):
        restart.preview(params, await restart.inspect(params))


async def test_what_was_deployed_since_it_was_read_is_not_restarted(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    before = await restart.inspect(params)
    fake.deployment["spec"]["template"] = template("pay:3")
    with pytest.raises(Refused, match=r"changed by somebody else a moment ago \(template\)"):
        await restart.execute(params, before)
    assert not fake.writes()


async def test_pods_that_an_autoscaler_adds_do_not_stop_a_restart(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    before = await restart.inspect(params)
    fake.deployment["spec"]["replicas"] = 5
    fake.deployment["metadata"].update(generation=4, resourceVersion="101")
    await restart.execute(params, before)
    assert fake.writes()[0].body["metadata"]["resourceVersion"] == "101"


async def test_a_roll_out_that_is_given_up_is_told_with_its_reason(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    before = await restart.inspect(params)
    fake.rolls_out = False
    await restart.execute(params, before)
    told = {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "1 old replicas"}
    fake.deployment["status"].update(observedGeneration=4, updatedReplicas=1, conditions=[told])
    with pytest.raises(ExecutorError, match=r"given up: ProgressDeadlineExceeded.*kubectl describe deployment pay -n"):
        await restart.settle(params, before)


async def test_a_roll_out_that_does_not_end_is_told_with_its_numbers(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster, clock: InstantClock
) -> None:
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    before = await restart.inspect(params)
    fake.rolls_out = False
    await restart.execute(params, before)
    fake.deployment["status"].update(observedGeneration=4, updatedReplicas=1, availableReplicas=3)
    with pytest.raises(ExecutorError, match="1 of 4 pods updated, 3 available"):
        await restart.settle(params, before)
    assert 480 <= sum(clock.slept) < 500


async def test_undo_puts_the_revision_before_back_and_forward_again(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    undo = operation(executor, "undo_deployment")
    params = undo.params(service="payment-service")
    before, _ = await run(undo)
    (request,) = fake.writes()
    assert request.content_type == "application/json-patch+json"
    assert request.body == [
        {"op": "test", "path": "/metadata/uid", "value": "u-1"},
        {"op": "test", "path": "/metadata/generation", "value": 3},
        {"op": "replace", "path": "/spec/template", "value": template("pay:1")},
    ]
    (change,) = undo.changes(params, before)
    assert (change.before, change.after) == ("revision 2 (pay:2)", "revision 1 (pay:1)")
    assert await undo.probe(params, before) == "done"
    await undo.undo(params, before)
    assert fake.deployment["spec"]["template"] == template("pay:2")
    assert (await undo.undo(params, before)).detail == "payment-service: runs revision 2 (pay:2) already"
    assert len(fake.writes()) == 2, "undone once"


async def test_the_state_that_is_kept_holds_no_secret_of_the_pods(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    undo = operation(executor, "undo_deployment")
    before = await undo.inspect(undo.params(service="payment-service"))
    assert "s3cret" not in str(before)


async def test_undo_skips_revisions_that_are_only_restarts(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    restarted = {"kubectl.kubernetes.io/restartedAt": "2024-12-20T09:00:00Z"}
    fake.deployment["spec"]["template"] = template("pay:2", **restarted)
    fake.replica_sets.append(replica_set(3, "pay:2", **restarted))
    undo = operation(executor, "undo_deployment")
    before = await undo.inspect(undo.params(service="payment-service"))
    assert before["previous"] == {**before["previous"], "number": 1, "images": ["pay:1"]}  # type: ignore[dict-item]


async def test_undo_leaves_a_third_version_alone(executor: kubernetes.KubernetesExecutor, fake: FakeCluster) -> None:
    undo = operation(executor, "undo_deployment")
    params = undo.params(service="payment-service")
    before, _ = await run(undo)
    fake.deployment["spec"]["template"] = template("pay:3")
    assert await undo.probe(params, before) == "unknown"
    with pytest.raises(Refused, match="deployed by somebody else"):
        await undo.undo(params, before)
    assert len(fake.writes()) == 1


async def test_without_history_there_is_nothing_to_go_back_to(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    del fake.replica_sets[0]
    stranger = replica_set(9, "other:1")
    stranger["metadata"]["ownerReferences"][0]["uid"] = "u-2"
    fake.replica_sets.append(stranger)
    undo = operation(executor, "undo_deployment")
    params = undo.params(service="payment-service")
    with pytest.raises(Refused, match="no earlier revision"):
        undo.preview(params, await undo.inspect(params))


async def test_undo_is_refused_by_kubernetes_if_the_deployment_changed_in_between(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    undo = operation(executor, "undo_deployment")
    params = undo.params(service="payment-service")
    before = await undo.inspect(params)
    fake.refusals["PATCH", False] = 422, "testing value /metadata/generation failed: test failed"
    with pytest.raises(ExecutorError, match="Nothing was changed") as refused:
        await undo.execute(params, before)
    assert not isinstance(refused.value, OutcomeUnknown)
    fake.refusals["PATCH", False] = 500, "etcd leader changed"
    with pytest.raises(OutcomeUnknown, match="etcd leader changed"):
        await undo.execute(params, before)


async def test_scaling_sets_the_number_and_puts_it_back(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    scale = operation(executor, "scale_deployment")
    params = scale.params(service="payment-service", replicas=8)
    before, after = await run(scale, replicas=8)
    (request,) = fake.writes()
    assert request.path == f"{DEPLOYMENT}/scale"
    assert request.body == [
        {"op": "test", "path": "/spec/replicas", "value": 4},
        {"op": "add", "path": "/spec/replicas", "value": 8},
    ]
    assert (before["desired"], after["desired"]) == (4, 8)
    assert await scale.probe(params, before) == "done"
    assert (await scale.undo(params, before)).detail == "payment-service: pods 8 -> 4"
    assert fake.deployment["spec"]["replicas"] == 4
    assert await scale.probe(params, before) == "not_done"
    fake.deployment["spec"]["replicas"] = 6
    assert await scale.probe(params, before) == "unknown"
    with pytest.raises(Refused, match="somebody else set pods to 6"):
        await scale.undo(params, before)


async def test_scaling_from_nothing_tests_no_number_that_kubernetes_leaves_out(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    fake.deployment["spec"]["replicas"] = 0
    fake.roll_out()
    await run(operation(executor, "scale_deployment"), replicas=2)
    assert fake.writes()[0].body == [{"op": "add", "path": "/spec/replicas", "value": 2}]


async def test_with_an_autoscaler_its_minimum_is_set_and_put_back(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    fake.autoscalers = [autoscaler(3, 10)]
    scale = operation(executor, "scale_deployment")
    params = scale.params(service="payment-service", replicas=8)
    before, after = await run(scale, replicas=8)
    assert fake.writes()[0].path.endswith("/horizontalpodautoscalers/pay-hpa")
    assert after["desired"] == 8
    assert scale.pinned(params, before) == {"uid": "u-1", "owner": "", "autoscaler": before["autoscaler"]}
    await scale.undo(params, before)
    assert fake.autoscalers[0]["spec"]["minReplicas"] == 3


@pytest.mark.parametrize(
    ("scaler", "replicas", "told"),
    [
        (autoscaler(3, 6), 8, "at most 6 pods: raise maxReplicas"),
        (autoscaler(3, 6), 3, "is 3 already"),
        (autoscaler(3, 9, ownerReferences=[{"kind": "ScaledObject", "name": "pay"}]), 8, "KEDA's ScaledObject pay"),
        (None, 4, "pods is 4 already"),
        (None, 13, r"outside 1\.\.12"),
    ],
)
async def test_a_number_that_would_not_hold_is_refused(
    executor: kubernetes.KubernetesExecutor,
    fake: FakeCluster,
    scaler: dict[str, JsonValue] | None,
    replicas: int,
    told: str,
) -> None:
    fake.autoscalers = [scaler] if scaler else []
    scale = operation(executor, "scale_deployment")
    params = scale.params(service="payment-service", replicas=replicas)
    with pytest.raises(Refused, match=told):
        scale.preview(params, await scale.inspect(params))


async def test_preflight_asks_kubernetes_for_everything_and_changes_nothing(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    fake.autoscalers = [autoscaler(3, 10)]
    scale = operation(executor, "scale_deployment")
    params = scale.params(service="payment-service", replicas=8)
    checks = await scale.preflight(params, await scale.inspect(params))
    assert {check.status for check in checks} == {"ok"}
    assert {check.name for check in checks} == {"permission", "gitops", "scaling", "deployment", "dry_run"}
    (dry,) = [r for r in fake.requests if r.method == "PATCH"]
    assert dry.dry
    assert fake.autoscalers == [autoscaler(3, 10)]


async def test_preflight_tells_a_missing_permission_and_what_admission_says(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    fake.forbidden = {"patch deployments"}
    fake.refusals["PATCH", True] = 400, 'admission webhook "sign.example" denied the request: image is not signed'
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    checks = await restart.preflight(params, await restart.inspect(params))
    assert of("permission", checks) == ["failed"] == of("dry_run", checks)
    assert "image is not signed" in next(c.detail for c in checks if c.name == "dry_run")
    fake.refusals["PATCH", True] = 400, 'admission webhook "audit.example" does not support dry run'
    assert of("dry_run", await restart.preflight(params, await restart.inspect(params))) == ["skipped"]


async def test_preflight_warns_of_a_disruption_budget_that_a_roll_out_would_break(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    def budget(name: str, app: str, wanted: int) -> dict[str, JsonValue]:
        selector: JsonValue = {"matchExpressions": [{"key": "app", "operator": "In", "values": [app]}]}
        return {"metadata": {"name": name}, "spec": {"selector": selector}, "status": {"desiredHealthy": wanted}}

    fake.budgets = [budget("strict", "pay", 4), budget("loose", "pay", 3), budget("other", "cart", 9)]
    restart = operation(executor, "restart_deployment")
    params = restart.params(service="payment-service")
    before = await restart.inspect(params)
    capacity = restart.capacity(params, before)
    assert capacity is not None
    assert (capacity.servers_now, capacity.servers_then) == (4, 3), "25 % of 4 may be gone"
    assert of("capacity", await restart.preflight(params, before)) == ["warning", "ok"]
    fake.deployment["spec"]["strategy"] = {"type": "Recreate"}
    capacity = restart.capacity(params, await restart.inspect(params))
    assert capacity is not None
    assert capacity.servers_then == 0


@pytest.mark.parametrize(
    ("hard", "used", "status"),
    [
        ({"pods": "10"}, {"pods": "7"}, "failed"),
        ({"pods": "11"}, {"pods": "7"}, "ok"),
        (
            {"requests.cpu": "4", "requests.memory": "4Gi"},
            {"requests.cpu": "2100m", "requests.memory": "1Gi"},
            "failed",
        ),
        ({"requests.cpu": "4", "requests.memory": "4Gi"}, {"requests.cpu": "2", "requests.memory": "2Gi"}, "ok"),
        ({"services": "3"}, {"services": "3"}, "ok"),
    ],
)
async def test_preflight_tells_a_quota_that_more_pods_would_exceed(
    executor: kubernetes.KubernetesExecutor,
    fake: FakeCluster,
    hard: dict[str, str],
    used: dict[str, str],
    status: str,
) -> None:
    container = fake.deployment["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "500m", "memory": "512Mi"}}
    fake.quotas = [{"metadata": {"name": "shop"}, "status": {"hard": hard, "used": used}}]
    scale = operation(executor, "scale_deployment")
    params = scale.params(service="payment-service", replicas=8)
    assert of("quota", await scale.preflight(params, await scale.inspect(params))) == [status]
    fewer = scale.params(service="payment-service", replicas=2)
    assert of("quota", await scale.preflight(fewer, await scale.inspect(fewer))) == []


async def test_the_catalogue_says_what_may_be_changed(executor: kubernetes.KubernetesExecutor) -> None:
    restart = operation(executor, "restart_deployment")
    assert restart.resource(restart.params(service="payment-service")) == "kubernetes:shop/pay"
    assert restart.lacks(RESOURCES["payment-service"]) == ""
    assert "kubernetes" in restart.lacks(RESOURCES["legacy"])
    with pytest.raises(Refused, match=r"services\.legacy\.kubernetes"):
        restart.resource(restart.params(service="legacy"))


async def test_check_tells_the_account_and_each_permission(
    executor: kubernetes.KubernetesExecutor, fake: FakeCluster
) -> None:
    fake.forbidden = {"patch horizontalpodautoscalers"}
    checks = {check.name: check for check in await executor.check()}
    assert checks["credentials"].status == "ok"
    assert [c.name for c in checks.values() if c.status == "failed"] == [
        "patch horizontalpodautoscalers.autoscaling in shop"
    ]
    fake.refusals["POST", False] = 401, "Unauthorized"
    assert (await executor.check())[0].status == "failed"


async def test_nobody_there_is_told_as_not_sent(tmp_path: Path, clock: InstantClock) -> None:
    settings = kubernetes.Settings(kubeconfig=kubeconfig(tmp_path, "http://127.0.0.1:9"))
    cluster = kubernetes.Cluster(settings)
    patch = kubernetes.Patch("AppsV1Api", "patch_namespaced_deployment", "pay", {})
    with pytest.raises(ExecutorError, match="was not sent") as refused:
        await cluster.write(patch, "shop")
    assert not isinstance(refused.value, OutcomeUnknown)
    await cluster.aclose()


def test_start_up_names_what_is_missing(clock: InstantClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="AUTOPILOT_KUBERNETES_KUBECONFIG"):
        kubernetes.create(RESOURCES, clock)
    monkeypatch.setenv("AUTOPILOT_KUBERNETES_KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="no such file"):
        kubernetes.create(RESOURCES, clock)
