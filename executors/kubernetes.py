"""Restarts, puts back and scales Deployments of a Kubernetes cluster.

Kubernetes has a dry run: each change is sent with ``dryRun=All`` before a person is asked, so that admission and
validation have their say. A Deployment that Argo CD or Flux keeps is left to them: they would put it back.

The account needs in each namespace ``get`` and ``patch`` on ``deployments.apps``, ``get`` and ``patch`` on
``deployments.apps/scale``, ``list`` on ``replicasets.apps`` and ``poddisruptionbudgets.policy``, and ``list`` and
``patch`` on ``horizontalpodautoscalers.autoscaling``; for the pre-flight of a scaling also ``list`` on
``resourcequotas``.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from copy import deepcopy
from math import floor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_settings import BaseSettings, SettingsConfigDict

from executors._aws import TransientError, listed, settled
from executors.base import (
    AnyOperation,
    Capacity,
    Change,
    Check,
    Clock,
    Executor,
    ExecutorError,
    KubernetesDeployment,
    Model,
    Operation,
    Outcome,
    OutcomeUnknown,
    PreflightCheck,
    Probe,
    Refused,
    Resource,
    State,
)

CONNECT_S, READ_S = 3.0, 15.0
DEADLINE_S = 8 * 60.0
MAX_ANSWER = 8_000_000  # bytes
RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"  # as kubectl writes it: other tools know it
REVISION = "deployment.kubernetes.io/revision"
TEMPLATE_HASH = "pod-template-hash"
FIELD_MANAGER = "aiops"
GITOPS = {  # by the beginning of a label's or annotation's name; app.kubernetes.io/instance is Helm's as well
    "argocd.argoproj.io/": "Argo CD",
    "kustomize.toolkit.fluxcd.io/": "Flux",
    "helm.toolkit.fluxcd.io/": "Flux",
}
GITOPS_MANAGERS = {  # by the name they write in managedFields
    "argocd-controller": "Argo CD",
    "argocd-application-controller": "Argo CD",
    "kustomize-controller": "Flux",
    "helm-controller": "Flux",
}


class Settings(BaseSettings):
    """How the cluster is reached."""

    model_config = SettingsConfigDict(
        env_prefix="AUTOPILOT_KUBERNETES_", env_file=".env", env_ignore_empty=True, extra="ignore"
    )

    in_cluster: bool = Field(default=False, description="Use the service account of the pod this runs in")
    kubeconfig: Path | None = Field(default=None, description="A kubeconfig file; empty: ~/.kube/config")
    context: str = Field(default="", description="The kubeconfig's context; empty: its current one")


# --- parameters ---------------------------------------------------------------------------------------------


class DeploymentParams(Model):
    """One service of the catalogue that runs as a Deployment."""

    service: str = Field(min_length=1, description="Name of the service in the catalogue")


class ScaleDeploymentParams(DeploymentParams):
    """One service and how many pods it shall run."""

    replicas: int = Field(ge=0, description="Pods to run, within the catalogue's min_tasks and max_tasks")


D = TypeVar("D", bound=DeploymentParams)


# --- what was read ------------------------------------------------------------------------------------------


class Autoscaler(Model):
    """The HorizontalPodAutoscaler of a Deployment."""

    name: str
    least: int = Field(description="minReplicas")
    most: int = Field(description="maxReplicas")
    owner: str = Field(description="Who would put it back: Argo CD, Flux, KEDA's ScaledObject; empty: nobody")


class Revision(Model):
    """A pod template of the Deployment's history. The template itself is not kept: it may hold secrets."""

    replica_set: str
    number: int
    digest: str = Field(description="Of its pod template, whenever it was restarted")
    images: tuple[str, ...]

    def __str__(self) -> str:
        """What a person knows it by."""
        return f"revision {self.number} ({', '.join(self.images)})"


class DeploymentState(Model):
    """A Deployment, as far as it is read or changed."""

    service: str
    uid: str
    generation: int
    observed_generation: int
    resource_version: str
    owner: str = Field(description="Who keeps its desired state: Argo CD, Flux; empty: nobody that is known")
    paused: bool
    desired: int
    pods: int = Field(description="Old and new")
    updated: int
    available: int
    spared: int | None = Field(description="Pods a roll-out leaves at least; None: it ends all of them first")
    restarted_at: str | None
    template: str = Field(description="Digest of the whole pod template")
    version: str = Field(description="Digest of the pod template, whenever it was restarted")
    images: tuple[str, ...]
    failed: str = Field(description="Why its roll-out is given up; empty: it is not")
    autoscaler: Autoscaler | None = None

    @property
    def in_flight(self) -> bool:
        """A roll-out is under way, and not given up."""
        return not self.failed and (self.observed_generation < self.generation or self.updated < self.desired)

    @property
    def unrest(self) -> str:
        """What keeps it from being at rest; empty if it is."""
        if self.observed_generation < self.generation:
            return f"{self.service}: the Deployment's controller has not acted on its last change"
        if self.updated == self.available == self.pods == self.desired:
            return ""
        return (
            f"{self.service} to come to rest: {self.updated} of {self.desired} pods updated, {self.available}"
            f" available, {self.pods} in all"
        )


class RestartState(DeploymentState):
    """A Deployment and the mark that this restart would leave on it."""

    mark: str = Field(description="RFC 3339; tells this restart from all others")


class UndoState(DeploymentState):
    """A Deployment, the revision it runs and the one before that."""

    current: Revision | None
    previous: Revision | None


# --- operations ---------------------------------------------------------------------------------------------


class Patch(NamedTuple):
    """One PATCH: of what, by which method of the library, and the body."""

    api: str
    method: str
    name: str
    body: JsonValue


class KubernetesOperation(Operation[D]):
    """What the operations on a Deployment have in common. ``resource`` and ``lacks`` need nothing but ``resources``."""

    needs: tuple[tuple[str, str], ...]  # what it patches: resource.group, subresource
    state: type[DeploymentState] = DeploymentState

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, cluster: "Cluster") -> None:
        self.resources, self.clock, self.cluster = resources, clock, cluster

    def resource(self, params: D) -> str:
        """``kubernetes:<namespace>/<deployment>``."""
        at = _address(self.resources, params.service)
        return f"kubernetes:{at.namespace}/{at.deployment}"

    def lacks(self, resource: Resource) -> str:
        """A Deployment."""
        if resource.kubernetes:
            return ""
        return f"no Deployment: add services.{resource.service}.kubernetes (namespace, workload) to autopilot.yaml"

    async def inspect(self, params: D) -> State:
        """The Deployment as it is now."""
        return (await self.read(params)).model_dump(mode="json")

    async def read(self, params: D) -> DeploymentState:
        """The Deployment as it is now. Raises ExecutorError."""
        return _state(params.service, await self._deployment(params))

    def pinned(self, params: D, before: State) -> State:
        """The pod template and whether it is paused; how many pods run may be an autoscaler's doing."""
        return {name: before[name] for name in ("uid", "template", "paused", "owner")}

    async def preflight(self, params: D, before: State) -> tuple[PreflightCheck, ...]:
        """Permissions, owners, disruption budgets and Kubernetes' own dry run."""
        state = self.state.model_validate(before)
        return (
            *await asyncio.gather(*(self._permitted(params, *resource) for resource in self.needs)),
            _ungoverned(state),
            *await self._budgets(params, before),
            await self._dry_run(params, before),
        )

    async def execute(self, params: D, before: State) -> Outcome:
        """One PATCH, refused by Kubernetes if the Deployment is another than was read a moment before."""
        detail = self.preview(params, before)
        patch = await self.patch(params, before, await self.read_again(params, before))
        answer = await self.cluster.write(patch, _address(self.resources, params.service).namespace)
        return Outcome(request_ids=answer.request_ids, detail=detail)

    async def read_again(self, params: D, before: State) -> DeploymentState:
        """The Deployment at this moment. Raises Refused if it is another than ``before``."""
        now = await self.read(params)
        seen, pinned = self.pinned(params, now.model_dump(mode="json")), self.pinned(params, before)
        changed = [name for name in pinned if pinned[name] != seen.get(name)]
        if changed:
            raise Refused(f"{params.service} was changed by somebody else a moment ago ({', '.join(changed)}).")
        return now

    async def patch(self, params: D, before: State, now: DeploymentState) -> Patch:
        """The change, bound to the Deployment as it is ``now``. Raises ExecutorError."""
        raise NotImplementedError

    async def settle(self, params: D, before: State) -> State:
        """Waits up to 8 minutes until the change took hold and all pods are up to date and available."""
        state = await settled(
            self.clock, lambda: self.read(params), lambda now: self.lacking(params, before, now), DEADLINE_S
        )
        return state.model_dump(mode="json")

    def lacking(self, params: D, before: State, now: DeploymentState) -> str:
        """What is still to come; empty when nothing is. Raises ExecutorError if it will never come."""
        if _given_up(self.state.model_validate(before), now):
            at = _address(self.resources, params.service)
            raise ExecutorError(
                f"{params.service}: its roll-out was given up: {now.failed}"
                f" Look at: kubectl describe deployment {at.deployment} -n {at.namespace}"
            )
        return now.unrest

    async def _deployment(self, params: D) -> "_Deployment":
        at = _address(self.resources, params.service)
        answer = await self.cluster.read(
            "AppsV1Api", "read_namespaced_deployment", name=at.deployment, namespace=at.namespace
        )
        return _Deployment.model_validate(answer)

    async def _permitted(self, params: D, resource: str, subresource: str) -> PreflightCheck:
        at = _address(self.resources, params.service)
        return await self.cluster.permitted("patch", resource, subresource, at.namespace)

    async def _budgets(self, params: D, before: State) -> Sequence[PreflightCheck]:
        """What the PodDisruptionBudgets of its pods ask for. A roll-out does not heed them; it should."""
        capacity = self.capacity(params, before)
        if capacity is None or capacity.servers_then >= capacity.servers_now:
            return ()
        at = _address(self.resources, params.service)
        try:
            labels = (await self._deployment(params)).labels_of_pods
            answer = await self.cluster.read(
                "PolicyV1Api", "list_namespaced_pod_disruption_budget", namespace=at.namespace
            )
        except ExecutorError as error:
            return (PreflightCheck(name="capacity", status="skipped", detail=str(error)),)
        budgets = _Budgets.model_validate(answer).items
        return tuple(_budget_check(budget, capacity) for budget in budgets if budget.spec.selector.selects(labels))

    async def _dry_run(self, params: D, before: State) -> PreflightCheck:
        at = _address(self.resources, params.service)
        try:
            patch = await self.patch(params, before, await self.read(params))
            await self.cluster.write(patch, at.namespace, dry_run=True)
        except (OutcomeUnknown, TransientError) as error:
            return PreflightCheck(name="dry_run", status="skipped", detail=str(error))
        except ExecutorError as error:
            # an admission webhook with side effects fails every dry run, and says nothing about the change
            status: Literal["skipped", "failed"] = "skipped" if "support dry run" in str(error) else "failed"
            return PreflightCheck(name="dry_run", status=status, detail=str(error))
        return PreflightCheck(name="dry_run", status="ok", detail="Kubernetes would accept it (dryRun=All)")


class RollOut(KubernetesOperation[DeploymentParams]):
    """What replaces all pods, a few at a time."""

    params = DeploymentParams
    needs = (("deployments.apps", ""),)

    def capacity(self, params: DeploymentParams, before: State) -> Capacity:
        """Its pods, less those that the strategy lets go at once."""
        state = self.state.model_validate(before)
        left = 0 if state.spared is None else min(state.available, state.spared)
        return Capacity(service=params.service, servers_now=state.available, servers_then=left)


class RestartDeployment(RollOut):
    """Replaces all pods of one service, a few at a time."""

    name = "restart_deployment"
    summary = "Restart all pods of a Kubernetes Deployment by a roll-out of the same version"
    risk = "low"
    minutes = 3.0
    permissions = ("get deployments.apps", "patch deployments.apps")
    state = RestartState

    async def inspect(self, params: DeploymentParams) -> State:
        """The Deployment, and the mark that a restart would leave."""
        mark = self.clock.now().isoformat(timespec="microseconds")
        return RestartState(**dict(await self.read(params)), mark=mark).model_dump(mode="json")

    def preview(self, params: DeploymentParams, before: State) -> str:
        """Which pods would be replaced."""
        state = RestartState.model_validate(before)
        _must_be_ours(state)
        _must_not_be_in_flight(state)
        if state.desired == 0:
            raise Refused(f"{params.service} runs no pods: there is nothing to restart; scale it instead.")
        return f"{params.service}: {state.desired} pods -> {state.desired} new pods of the same version"

    def changes(self, params: DeploymentParams, before: State) -> tuple[Change, ...]:
        """The pods."""
        self.preview(params, before)
        state = RestartState.model_validate(before)
        return (Change(what="pods", before=f"{state.desired} running", after=f"{state.desired} new ones"),)

    async def patch(self, params: DeploymentParams, before: State, now: DeploymentState) -> Patch:
        """The annotation that kubectl rollout restart writes; a resourceVersion that is not the present one is 409."""
        template: dict[str, JsonValue] = {"metadata": {"annotations": {RESTARTED_AT: before["mark"]}}}
        body: dict[str, JsonValue] = {
            "metadata": {"resourceVersion": now.resource_version},
            "spec": {"template": template},
        }
        return Patch(
            "AppsV1Api",
            "patch_namespaced_deployment",
            _address(self.resources, params.service).deployment,
            body,
        )

    def lacking(self, params: DeploymentParams, before: State, now: DeploymentState) -> str:
        """Pods with the mark."""
        mark = str(before["mark"])
        if now.restarted_at != mark:
            return f"{params.service} to carry the mark {mark} of this restart (now {now.restarted_at})"
        return super().lacking(params, before, now)

    async def probe(self, params: DeploymentParams, before: State) -> Probe:
        """Told by the mark."""
        saved, now = RestartState.model_validate(before), await self.read(params)
        if now.restarted_at == saved.mark:
            return "done"
        return "not_done" if (now.uid, now.template) == (saved.uid, saved.template) else "unknown"


class UndoDeployment(RollOut):
    """Puts one service back on the revision before."""

    name = "undo_deployment"
    summary = "Put a Kubernetes Deployment back on the revision before the one that it runs"
    risk = "medium"
    reversible = True
    minutes = 4.0
    permissions = ("get deployments.apps", "list replicasets.apps", "patch deployments.apps")
    state = UndoState

    async def inspect(self, params: DeploymentParams) -> State:
        """The Deployment, the revision it runs, and the one to go back to."""
        deployment = await self._deployment(params)
        state = _state(params.service, deployment)
        revisions = [_revision(found) for found in await self._history(params, deployment)]
        return UndoState(
            **dict(state),
            current=next((r for r in revisions if r.digest == state.version), None),
            previous=next((r for r in revisions if r.digest != state.version), None),
        ).model_dump(mode="json")

    def pinned(self, params: DeploymentParams, before: State) -> State:
        """Also where it would go back to."""
        previous = cast("State | None", before.get("previous"))
        target = {"previous": previous["digest"]} if previous else {}
        return {**super().pinned(params, before), **target}

    def preview(self, params: DeploymentParams, before: State) -> str:
        """From which revision to which."""
        state, previous = UndoState.model_validate(before), self._target(params, before)
        _must_be_ours(state)
        return f"{params.service}: {_runs(state)} -> {previous}"

    def changes(self, params: DeploymentParams, before: State) -> tuple[Change, ...]:
        """The pod template."""
        self.preview(params, before)
        state = UndoState.model_validate(before)
        return (Change(what="pod template", before=_runs(state), after=str(self._target(params, before))),)

    async def read_again(self, params: DeploymentParams, before: State) -> DeploymentState:
        """Also its history. Raises Refused if either is another than ``before``."""
        state = UndoState.model_validate(await self.inspect(params))
        if self.pinned(params, state.model_dump(mode="json")) != self.pinned(params, before):
            raise Refused(f"{params.service} was deployed or changed by somebody else a moment ago: look again.")
        return state

    async def patch(self, params: DeploymentParams, before: State, now: DeploymentState) -> Patch:
        """The template of the revision before, if nobody has changed the Deployment since it was read."""
        return await self._replace(params, self._target(params, before), now)

    def lacking(self, params: DeploymentParams, before: State, now: DeploymentState) -> str:
        """The earlier template, at rest."""
        previous = self._target(params, before)
        if now.version != previous.digest:
            return f"{params.service} to run {previous} (now {', '.join(now.images)})"
        return super().lacking(params, before, now)

    async def probe(self, params: DeploymentParams, before: State) -> Probe:
        """Told by the template."""
        saved, now = UndoState.model_validate(before), await self.read(params)
        if saved.previous and now.version == saved.previous.digest:
            return "done"
        return "not_done" if (now.uid, now.template) == (saved.uid, saved.template) else "unknown"

    async def undo(self, params: DeploymentParams, before: State) -> Outcome:
        """Forward again, unless somebody has deployed a third version since."""
        saved, now = UndoState.model_validate(before), await self.read(params)
        if now.version == saved.version:
            return Outcome(detail=f"{params.service}: runs {_runs(saved)} already")
        if saved.previous is None or now.version != saved.previous.digest:
            raise Refused(f"{params.service} runs {', '.join(now.images)}, deployed by somebody else; not undone.")
        if saved.current is None:
            raise Refused(f"{params.service}: Kubernetes keeps no ReplicaSet of what it ran; deploy that anew.")
        patch = await self._replace(params, saved.current, now)
        answer = await self.cluster.write(patch, _address(self.resources, params.service).namespace)
        return Outcome(request_ids=answer.request_ids, detail=f"{params.service}: {saved.previous} -> {saved.current}")

    def _target(self, params: DeploymentParams, before: State) -> Revision:
        previous = UndoState.model_validate(before).previous
        if previous is None:
            raise Refused(
                f"{params.service} has no earlier revision: Kubernetes keeps as many as revisionHistoryLimit says;"
                " deploy the version before from your pipeline."
            )
        return previous

    async def _history(self, params: DeploymentParams, deployment: "_Deployment") -> list["_ReplicaSet"]:
        """The Deployment's ReplicaSets, newest revision first."""
        at = _address(self.resources, params.service)
        answer = await self.cluster.read("AppsV1Api", "list_namespaced_replica_set", namespace=at.namespace)
        owned = [r for r in _ReplicaSets.model_validate(answer).items if r.owned_by(deployment.metadata.uid)]
        return sorted(owned, key=lambda r: r.number, reverse=True)

    async def _replace(self, params: DeploymentParams, target: Revision, now: DeploymentState) -> Patch:
        """The template of ``target`` in place of the present one; a test that fails refuses all of it."""
        at = _address(self.resources, params.service)
        answer = await self.cluster.read(
            "AppsV1Api", "read_namespaced_replica_set", name=target.replica_set, namespace=at.namespace
        )
        found = _ReplicaSet.model_validate(answer)
        if _revision(found).digest != target.digest:
            raise Refused(f"{params.service}: {target.replica_set} no longer holds {target}: look again.")
        body: JsonValue = [
            {"op": "test", "path": "/metadata/uid", "value": now.uid},
            {"op": "test", "path": "/metadata/generation", "value": now.generation},
            {"op": "replace", "path": "/spec/template", "value": _without_hash(found.spec.template)},
        ]
        return Patch("AppsV1Api", "patch_namespaced_deployment", at.deployment, body)


class ScaleDeployment(KubernetesOperation[ScaleDeploymentParams]):
    """Changes how many pods a service runs: by its autoscaler's minimum where it has one."""

    name = "scale_deployment"
    summary = "Set the number of pods a Kubernetes Deployment runs, or the least its autoscaler keeps"
    risk = "medium"
    reversible = True
    minutes = 3.0
    permissions = (
        "get deployments.apps",
        "patch deployments.apps/scale",
        "list horizontalpodautoscalers.autoscaling",
        "patch horizontalpodautoscalers.autoscaling",
    )
    params = ScaleDeploymentParams
    needs = (("deployments.apps", "scale"), ("horizontalpodautoscalers.autoscaling", ""))

    def resource(self, params: ScaleDeploymentParams) -> str:
        """As of the others. Raises Refused also beyond the catalogue's min_tasks and max_tasks."""
        key, entry = super().resource(params), listed(self.resources, params.service)
        if not entry.min_tasks <= params.replicas <= entry.max_tasks:
            raise Refused(
                f"{params.replicas} pods is outside {entry.min_tasks}..{entry.max_tasks},"
                f" the min_tasks and max_tasks of services.{params.service} in autopilot.yaml."
            )
        return key

    async def read(self, params: ScaleDeploymentParams) -> DeploymentState:
        """Also its autoscaler."""
        state = await super().read(params)
        at = _address(self.resources, params.service)
        answer = await self.cluster.read(
            "AutoscalingV2Api", "list_namespaced_horizontal_pod_autoscaler", namespace=at.namespace
        )
        found = [a for a in _Autoscalers.model_validate(answer).items if a.scales(at.deployment)]
        return state.model_copy(update={"autoscaler": found[0].read if found else None})

    def pinned(self, params: ScaleDeploymentParams, before: State) -> State:
        """The number that is changed, and who keeps it."""
        autoscaler = before.get("autoscaler")
        number: State = {"autoscaler": autoscaler} if autoscaler else {"desired": before["desired"]}
        return {"uid": before["uid"], "owner": before["owner"], **number}

    def preview(self, params: ScaleDeploymentParams, before: State) -> str:
        """From how many pods to how many."""
        self.resource(params)
        state = DeploymentState.model_validate(before)
        _must_be_ours(state)
        scaler = state.autoscaler
        if _count(state) == params.replicas:
            raise Refused(f"{params.service}: {_counted(state)} is {params.replicas} already: nothing to change.")
        if scaler and scaler.owner:
            raise Refused(f"{params.service}: {scaler.owner} keeps its autoscaler {scaler.name}: change it there.")
        if scaler and params.replicas > scaler.most:
            raise Refused(
                f"{params.service}: its autoscaler {scaler.name} runs at most {scaler.most} pods: raise maxReplicas"
                " first, or choose fewer."
            )
        return f"{params.service}: {_counted(state)} {_count(state)} -> {params.replicas}"

    def changes(self, params: ScaleDeploymentParams, before: State) -> tuple[Change, ...]:
        """The number of pods, or the autoscaler's minimum."""
        self.preview(params, before)
        state = DeploymentState.model_validate(before)
        return (Change(what=_counted(state), before=str(_count(state)), after=str(params.replicas)),)

    def capacity(self, params: ScaleDeploymentParams, before: State) -> Capacity | None:
        """As many pods as asked for; with an autoscaler at least that many."""
        state = DeploymentState.model_validate(before)
        then = max(params.replicas, state.available) if state.autoscaler else params.replicas
        return Capacity(service=params.service, servers_now=state.available, servers_then=then)

    async def preflight(self, params: ScaleDeploymentParams, before: State) -> tuple[PreflightCheck, ...]:
        """Also what the autoscaler makes of it, the namespace's quotas, and a roll-out under way."""
        state = DeploymentState.model_validate(before)
        under_way = PreflightCheck(
            name="deployment",
            status="warning" if state.in_flight else "ok",
            detail="a roll-out is under way: the new pods are of its version" if state.in_flight else "none under way",
        )
        quotas = await self._quotas(params, params.replicas - state.desired)
        return (_scaling(state, params.replicas), under_way, *quotas, *await super().preflight(params, before))

    async def _quotas(self, params: ScaleDeploymentParams, more: int) -> tuple[PreflightCheck, ...]:
        """Whether so many more pods fit the namespace's quotas: Kubernetes asks only as each pod starts."""
        if more <= 0:
            return ()
        at = _address(self.resources, params.service)
        try:
            template = (await self._deployment(params)).spec.template
            answer = await self.cluster.read("CoreV1Api", "list_namespaced_resource_quota", namespace=at.namespace)
        except ExecutorError as error:
            return (PreflightCheck(name="quota", status="skipped", detail=str(error)),)
        quotas = _Quotas.model_validate(answer).items
        return tuple(await asyncio.gather(*(asyncio.to_thread(_quota_check, q, template, more) for q in quotas)))

    async def patch(self, params: ScaleDeploymentParams, before: State, now: DeploymentState) -> Patch:
        """The new number, if the present one is what was read."""
        return self._set(params, now, params.replicas)

    def lacking(self, params: ScaleDeploymentParams, before: State, now: DeploymentState) -> str:
        """That number, at rest."""
        if _count(now) != params.replicas:
            return f"{params.service}: {_counted(now)} to become {params.replicas} (now {_count(now)})"
        if now.desired < params.replicas:
            return f"{params.service}: the autoscaler to ask for {params.replicas} pods (now {now.desired})"
        return super().lacking(params, before, now)

    async def probe(self, params: ScaleDeploymentParams, before: State) -> Probe:
        """Told by the number."""
        saved, now = DeploymentState.model_validate(before), await self.read(params)
        if (now.autoscaler is None) != (saved.autoscaler is None):
            return "unknown"
        if _count(now) == params.replicas:
            return "done"
        return "not_done" if _count(now) == _count(saved) else "unknown"

    async def undo(self, params: ScaleDeploymentParams, before: State) -> Outcome:
        """The number of before, unless somebody has set a third one since."""
        saved, now = DeploymentState.model_validate(before), await self.read(params)
        if (now.autoscaler is None) != (saved.autoscaler is None):
            raise Refused(f"{params.service}: its autoscaler came or went since; set the number of pods by hand.")
        if _count(now) == _count(saved):
            return Outcome(detail=f"{params.service}: {_counted(now)} is back at {_count(saved)} already")
        if _count(now) != params.replicas:
            raise Refused(f"{params.service}: somebody else set {_counted(now)} to {_count(now)}; not undone.")
        patch = self._set(params, now, _count(saved))
        answer = await self.cluster.write(patch, _address(self.resources, params.service).namespace)
        detail = f"{params.service}: {_counted(now)} {_count(now)} -> {_count(saved)}"
        return Outcome(request_ids=answer.request_ids, detail=detail)

    def _set(self, params: ScaleDeploymentParams, now: DeploymentState, count: int) -> Patch:
        if now.autoscaler:
            body = _tested("/spec/minReplicas", now.autoscaler.least, count)
            method = "patch_namespaced_horizontal_pod_autoscaler"
            return Patch("AutoscalingV2Api", method, now.autoscaler.name, body)
        at = _address(self.resources, params.service)
        body = _tested("/spec/replicas", now.desired, count)
        return Patch("AppsV1Api", "patch_namespaced_deployment_scale", at.deployment, body)


OPERATIONS: tuple[type[KubernetesOperation[Any]], ...] = (RestartDeployment, UndoDeployment, ScaleDeployment)


class KubernetesExecutor:
    """All operations on Deployments, and the cluster they share."""

    def __init__(self, resources: Mapping[str, Resource], clock: Clock, cluster: "Cluster") -> None:
        self.resources, self.cluster = resources, cluster
        self.operations: Sequence[AnyOperation] = [kind(resources, clock, cluster) for kind in OPERATIONS]

    async def check(self) -> list[Check]:
        """Whether the cluster answers, and each permission in the namespaces of the catalogue's Deployments."""
        needed = sorted({permission for operation in self.operations for permission in operation.permissions})
        namespaces = sorted({r.kubernetes.namespace for r in self.resources.values() if r.kubernetes}) or ["default"]
        checks: list[Check] = []
        for namespace in namespaces:
            for permission in needed:
                verb, _, what = permission.partition(" ")
                found = await self.cluster.permitted(verb, *_split(what), namespace)
                checks.append(_told(permission, namespace, found))
        return [_reached(checks), *checks]

    async def aclose(self) -> None:
        """Release connections."""
        await self.cluster.aclose()


def create(resources: Mapping[str, Resource], clock: Clock) -> Executor:
    """The executor ``kubernetes``. Raises ValueError naming a missing setting."""
    settings = Settings()
    if not (settings.in_cluster or settings.kubeconfig or settings.context):
        raise ValueError(
            "The executor 'kubernetes' needs AUTOPILOT_KUBERNETES_KUBECONFIG: a kubeconfig file; or"
            " AUTOPILOT_KUBERNETES_CONTEXT: a context of ~/.kube/config; or AUTOPILOT_KUBERNETES_IN_CLUSTER=true."
        )
    if settings.kubeconfig and not settings.kubeconfig.expanduser().is_file():
        raise ValueError("The executor 'kubernetes' needs AUTOPILOT_KUBERNETES_KUBECONFIG: there is no such file.")
    return KubernetesExecutor(resources, clock, Cluster(settings))


# --- the cluster --------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What the API server answered, and the id under which its audit log has the request."""

    body: JsonValue
    request_ids: tuple[str, ...]


class Cluster:
    """The API server, by the official client. It is synchronous and slow to import: both happen in threads."""

    def __init__(self, settings: Settings, read_s: float = READ_S) -> None:
        self._settings, self._read_s = settings, read_s
        self._client: Any = None
        self._turn = asyncio.Lock()

    async def read(self, api: str, method: str, **arguments: object) -> JsonValue:
        """A call that changes nothing. Raises ExecutorError; TransientError if asking again may help."""
        return (await self._called(TransientError, api, method, arguments)).body

    async def write(self, patch: Patch, namespace: str, *, dry_run: bool = False) -> Answer:
        """A PATCH, sent once. Raises ExecutorError; OutcomeUnknown if it may have been done.

        A cancelled caller is let go only after the call has ended: whoever takes over may then read what it did.
        """
        arguments: dict[str, object] = {
            "name": patch.name,
            "namespace": namespace,
            "body": patch.body,
            "field_manager": FIELD_MANAGER,
            "field_validation": "Strict",
            **({"dry_run": "All"} if dry_run else {}),
        }
        return await _to_its_end(self._called(OutcomeUnknown, patch.api, patch.method, arguments))

    async def permitted(self, verb: str, resource: str, subresource: str, namespace: str) -> PreflightCheck:
        """By a SelfSubjectAccessReview, which everybody may make. Never raises ExecutorError."""
        name, _, group = resource.partition(".")
        attributes = {
            "verb": verb,
            "resource": name,
            "group": group,
            "subresource": subresource,
            "namespace": namespace,
        }
        asked = f"{verb} {resource}{'/' if subresource else ''}{subresource} in the namespace {namespace}"
        try:
            body = {"spec": {"resourceAttributes": attributes}}
            answer = await self.read("AuthorizationV1Api", "create_self_subject_access_review", body=body)
            status = _Review.model_validate(answer).status
        except (ExecutorError, ValidationError) as error:
            return PreflightCheck(name="permission", status="skipped", detail=f"{asked}: not told: {error}"[:500])
        if status.allowed:
            return PreflightCheck(name="permission", status="ok", detail=asked)
        detail = f"Kubernetes forbids it to {asked}: let a Role allow it. {status.reason}".rstrip()
        return PreflightCheck(name="permission", status="failed", detail=detail)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.rest_client.pool_manager.clear()
            self._client.close()

    async def _called(
        self, unsure: type[ExecutorError], api: str, method: str, arguments: Mapping[str, object]
    ) -> Answer:
        client = await self._connected()
        return await asyncio.to_thread(_call, client, unsure, api, method, (CONNECT_S, self._read_s), arguments)

    async def _connected(self) -> Any:
        async with self._turn:
            if self._client is None:
                self._client = await asyncio.to_thread(connect, self._settings)
            return self._client


T = TypeVar("T")


async def _to_its_end(call: Awaitable[T]) -> T:
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def connect(settings: Settings) -> Any:
    """The official client for the cluster that the settings name. Raises ExecutorError."""
    from kubernetes import client, config  # type: ignore[import-untyped]
    from urllib3 import Retry

    configuration = client.Configuration()
    # neither repeats a request by itself nor follows it elsewhere
    configuration.retries = Retry(total=0, raise_on_redirect=False)
    try:
        if settings.in_cluster:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(
                config_file=str(settings.kubeconfig.expanduser()) if settings.kubeconfig else None,
                context=settings.context or None,
                client_configuration=configuration,
                persist_config=False,
            )
    except (config.ConfigException, OSError, ValueError, yaml.YAMLError) as error:
        told = f"There is no way to the cluster: {type(error).__name__}: {error}"[:500]
        raise ExecutorError(f"{told} Check AUTOPILOT_KUBERNETES_KUBECONFIG, _CONTEXT and _IN_CLUSTER.") from None
    return client.ApiClient(configuration)


def _call(
    client: Any,
    unsure: type[ExecutorError],
    api: str,
    method: str,
    timeout: tuple[float, float],
    arguments: Mapping[str, object],
) -> Answer:
    """One request. ``unsure`` is the kind of an error after which either may be true."""
    from kubernetes import client as library
    from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError, SSLError

    call = getattr(getattr(library, api)(client), method)
    try:
        with closing(call(**arguments, _preload_content=False, _request_timeout=timeout)) as response:
            content = response.read(MAX_ANSWER + 1)
            audit_id = response.headers.get("Audit-Id", "")
    except library.ApiException as error:
        raise _refusal(error, method, unsure) from None
    except MaxRetryError as error:
        if isinstance(error.reason, NewConnectionError | ConnectTimeoutError | SSLError):
            raise TransientError(f"{method} was not sent: {error.reason}"[:500]) from None
        raise unsure(f"{method} was sent, but no answer came: {error.reason}"[:500]) from None
    except (HTTPError, OSError) as error:
        raise unsure(f"{method} was sent, but no answer came: {type(error).__name__}: {error}"[:500]) from None
    return Answer(_parsed(content, method, unsure), (audit_id,) if audit_id else ())


def _parsed(content: bytes, method: str, unsure: type[ExecutorError]) -> JsonValue:
    if len(content) > MAX_ANSWER:
        raise unsure(f"{method}: the answer is larger than {MAX_ANSWER:,} bytes")
    try:
        return cast("JsonValue", json.loads(content))
    except ValueError:
        raise unsure(f"{method}: the answer is no JSON: is this the API server's address?") from None


def _refusal(error: Any, method: str, unsure: type[ExecutorError]) -> ExecutorError:
    """What the API server's refusal means, in its own words."""
    status: int = error.status or 0
    text = f"Kubernetes answered {method} with {status}: {_said(error)}"[:500]
    if status >= 500:
        return unsure(text)
    match status:
        case 0:
            return ExecutorError(f"{method} was not sent: {error.reason}"[:500])
        case 401:
            return ExecutorError(f"{text}. Renew the credentials of the kubeconfig's context or service account.")
        case 403:
            return ExecutorError(f"{text}. Let a Role of the namespace allow it.")
        case 404:
            return ExecutorError(f"{text}. Of StatefulSets and DaemonSets nothing is changed; check the catalogue.")
        case 409 | 422:
            return ExecutorError(f"{text}. Nothing was changed; it may have been changed by somebody else: look again.")
        case 429:
            return TransientError(f"{text}. Nothing was changed.")
    return ExecutorError(text)


def _said(error: Any) -> str:
    try:
        return _Failure.model_validate_json(error.body or "").message
    except ValidationError:
        return str(error.reason)


# --- what Kubernetes answers --------------------------------------------------------------------------------


class _Object(BaseModel):
    """Fields are in camel case; null stands for what is not there."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class _Failure(_Object):
    message: str = ""


class _ReviewStatus(_Object):
    allowed: bool = False
    reason: str = ""


class _Review(_Object):
    status: _ReviewStatus


class _Owner(_Object):
    uid: str = ""
    kind: str = ""
    name: str = ""


class _Manager(_Object):
    manager: str = ""


class _Meta(_Object):
    name: str = ""
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: list[_Owner] = Field(default_factory=list)
    managed_fields: list[_Manager] = Field(default_factory=list)

    @property
    def gitops(self) -> str:
        """Who keeps the object as a repository has it; empty: nobody that is known."""
        marks = (*self.labels, *self.annotations)
        for prefix, owner in GITOPS.items():
            if any(mark.startswith(prefix) for mark in marks):
                return owner
        return next((GITOPS_MANAGERS[m.manager] for m in self.managed_fields if m.manager in GITOPS_MANAGERS), "")


class _Resources(_Object):
    requests: dict[str, str] = Field(default_factory=dict)


class _Container(_Object):
    image: str = ""
    resources: _Resources = Field(default_factory=_Resources)


class _PodSpec(_Object):
    containers: list[_Container] = Field(default_factory=list)


class _RollingUpdate(_Object):
    max_unavailable: int | str = "25%"


class _Strategy(_Object):
    type: str = "RollingUpdate"
    rolling_update: _RollingUpdate = Field(default_factory=_RollingUpdate)

    def spared(self, replicas: int) -> int | None:
        """How many pods a roll-out leaves at least; None: it ends all of them first."""
        if self.type == "Recreate":
            return None
        most = self.rolling_update.max_unavailable
        gone = floor(replicas * float(most.rstrip("%")) / 100) if isinstance(most, str) else most
        return max(replicas - gone, 0)


class _Spec(_Object):
    replicas: int = 1
    paused: bool = False
    template: dict[str, JsonValue] = Field(default_factory=dict)
    strategy: _Strategy = Field(default_factory=_Strategy)


class _Condition(_Object):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class _Status(_Object):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0
    conditions: list[_Condition] = Field(default_factory=list)

    @property
    def failed(self) -> str:
        """Why the roll-out is given up; empty: it is not."""
        return next((f"{c.reason}: {c.message}" for c in self.conditions if c.reason == "ProgressDeadlineExceeded"), "")


class _Deployment(_Object):
    metadata: _Meta
    spec: _Spec
    status: _Status = Field(default_factory=_Status)

    @property
    def labels_of_pods(self) -> dict[str, str]:
        return _meta_of(self.spec.template).labels


class _ReplicaSet(_Object):
    metadata: _Meta
    spec: _Spec

    @property
    def number(self) -> int:
        """Its revision."""
        told = self.metadata.annotations.get(REVISION, "")
        return int(told) if told.isdigit() else 0

    def owned_by(self, uid: str) -> bool:
        """Whether it is of the Deployment with this uid."""
        return any(owner.uid == uid for owner in self.metadata.owner_references)


class _ReplicaSets(_Object):
    items: list[_ReplicaSet] = Field(default_factory=list)


class _ScaleTarget(_Object):
    kind: str = ""
    name: str = ""


class _AutoscalerSpec(_Object):
    scale_target_ref: _ScaleTarget
    min_replicas: int = 1
    max_replicas: int


class _Autoscaler(_Object):
    metadata: _Meta
    spec: _AutoscalerSpec

    def scales(self, deployment: str) -> bool:
        """Whether it is this Deployment's."""
        target = self.spec.scale_target_ref
        return (target.kind, target.name) == ("Deployment", deployment)

    @property
    def read(self) -> Autoscaler:
        """As far as it is read or changed."""
        keda = next((f"KEDA's ScaledObject {o.name}" for o in self.metadata.owner_references if _is_keda(o)), "")
        return Autoscaler(
            name=self.metadata.name,
            least=self.spec.min_replicas,
            most=self.spec.max_replicas,
            owner=keda or self.metadata.gitops,
        )


class _Autoscalers(_Object):
    items: list[_Autoscaler] = Field(default_factory=list)


class _Requirement(_Object):
    key: str
    operator: str
    values: list[str] = Field(default_factory=list)

    def holds(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
        return self.key not in labels


class _Selector(_Object):
    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[_Requirement] = Field(default_factory=list)

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether pods with these labels are meant."""
        return self.match_labels.items() <= labels.items() and all(r.holds(labels) for r in self.match_expressions)


class _QuotaStatus(_Object):
    hard: dict[str, str] = Field(default_factory=dict)
    used: dict[str, str] = Field(default_factory=dict)


class _Quota(_Object):
    metadata: _Meta
    status: _QuotaStatus = Field(default_factory=_QuotaStatus)


class _Quotas(_Object):
    items: list[_Quota] = Field(default_factory=list)


class _BudgetSpec(_Object):
    selector: _Selector = Field(default_factory=_Selector)


class _BudgetStatus(_Object):
    desired_healthy: int = 0


class _Budget(_Object):
    metadata: _Meta
    spec: _BudgetSpec = Field(default_factory=_BudgetSpec)
    status: _BudgetStatus = Field(default_factory=_BudgetStatus)


class _Budgets(_Object):
    items: list[_Budget] = Field(default_factory=list)


# --- reading answers ----------------------------------------------------------------------------------------


def _address(resources: Mapping[str, Resource], service: str) -> KubernetesDeployment:
    found = listed(resources, service).kubernetes
    if found is None:
        raise Refused(
            f"{service} has no Deployment: add services.{service}.kubernetes (namespace, workload) to autopilot.yaml."
        )
    return found


def _state(service: str, read: _Deployment) -> DeploymentState:
    annotations = _meta_of(read.spec.template).annotations
    return DeploymentState(
        service=service,
        uid=read.metadata.uid,
        generation=read.metadata.generation,
        observed_generation=read.status.observed_generation,
        resource_version=read.metadata.resource_version,
        owner=read.metadata.gitops,
        paused=read.spec.paused,
        desired=read.spec.replicas,
        pods=read.status.replicas,
        updated=read.status.updated_replicas,
        available=read.status.available_replicas,
        spared=read.spec.strategy.spared(read.spec.replicas),
        restarted_at=annotations.get(RESTARTED_AT),
        template=_digest(_without_hash(read.spec.template)),
        version=_digest(_unrestarted(read.spec.template)),
        images=_images(read.spec.template),
        failed=read.status.failed,
    )


def _revision(read: _ReplicaSet) -> Revision:
    return Revision(
        replica_set=read.metadata.name,
        number=read.number,
        digest=_digest(_unrestarted(read.spec.template)),
        images=_images(read.spec.template),
    )


def _meta_of(template: Mapping[str, JsonValue]) -> _Meta:
    return _Meta.model_validate(template.get("metadata") or {})


def _images(template: Mapping[str, JsonValue]) -> tuple[str, ...]:
    return tuple(container.image for container in _PodSpec.model_validate(template.get("spec") or {}).containers)


def _without_hash(template: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The pod template without the label that its ReplicaSet adds."""
    return _without(template, "labels", TEMPLATE_HASH)


def _unrestarted(template: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What makes a version: going back from a restarted template to the same one not yet restarted undoes nothing."""
    return _without(_without_hash(template), "annotations", RESTARTED_AT)


def _without(template: Mapping[str, JsonValue], part: str, name: str) -> dict[str, JsonValue]:
    copy = deepcopy(dict(template))
    metadata = copy.get("metadata")
    entries = metadata.get(part) if isinstance(metadata, dict) else None
    if isinstance(metadata, dict) and isinstance(entries, dict) and name in entries:
        del entries[name]
        if not entries:
            del metadata[part]
    return copy


def _digest(template: Mapping[str, JsonValue]) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:16]


def _tested(path: str, present: int, wanted: int) -> JsonValue:
    """A JSON Patch that fails as a whole if the number is another by now; 0 is left out of what is tested against."""
    test: list[JsonValue] = [{"op": "test", "path": path, "value": present}] if present else []
    return [*test, {"op": "add", "path": path, "value": wanted}]


def _is_keda(owner: _Owner) -> bool:
    return owner.kind == "ScaledObject"


def _split(what: str) -> tuple[str, str]:
    """``deployments.apps/scale``: the resource and the subresource."""
    resource, _, subresource = what.partition("/")
    return resource, subresource


# --- judging them -------------------------------------------------------------------------------------------


def _must_be_ours(state: DeploymentState) -> None:
    if state.owner:
        raise Refused(f"{state.service}: {state.owner} keeps this Deployment and would put it back: change it there.")
    if state.paused:
        raise Refused(f"{state.service}: its roll-outs are paused, a change would do nothing: kubectl rollout resume.")


def _must_not_be_in_flight(state: DeploymentState) -> None:
    if state.in_flight:
        raise Refused(
            f"{state.service}: a roll-out of {', '.join(state.images)} is under way ({state.updated} of"
            f" {state.desired} pods updated); wait for its end or undo it."
        )


def _given_up(before: DeploymentState, now: DeploymentState) -> bool:
    """Whether the roll-out failed since; what a controller said of an earlier one does not count."""
    judged = now.observed_generation >= now.generation > before.generation
    return bool(now.failed) and judged and (now.template != before.template or not before.failed)


def _ungoverned(state: DeploymentState) -> PreflightCheck:
    if state.owner:
        return PreflightCheck(name="gitops", status="failed", detail=f"{state.owner} keeps it and would put it back")
    return PreflightCheck(name="gitops", status="ok", detail="no mark of Argo CD or Flux")


def _scaling(state: DeploymentState, wanted: int) -> PreflightCheck:
    scaler = state.autoscaler
    if scaler is None:
        return PreflightCheck(name="scaling", status="ok", detail="no HorizontalPodAutoscaler")
    if wanted < state.desired:
        detail = f"autoscaler {scaler.name} decides how many of {wanted} to {scaler.most} pods run"
        return PreflightCheck(name="scaling", status="warning", detail=detail)
    detail = f"autoscaler {scaler.name} keeps at least {wanted} of at most {scaler.most} pods"
    return PreflightCheck(name="scaling", status="ok", detail=detail)


def _budget_check(budget: _Budget, capacity: Capacity) -> PreflightCheck:
    wanted, left = budget.status.desired_healthy, int(capacity.servers_then)
    detail = f"PodDisruptionBudget {budget.metadata.name} asks for {wanted} healthy pods, {left} are left"
    return PreflightCheck(name="capacity", status="warning" if left < wanted else "ok", detail=detail)


def _quota_check(quota: _Quota, template: Mapping[str, JsonValue], more: int) -> PreflightCheck:
    """Pods, and what their containers ask for. Imports the library, which is slow: not for the event loop."""
    from kubernetes.utils import parse_quantity  # type: ignore[import-untyped]

    one: dict[str, Any] = {"pods": 1, "count/pods": 1, **_requested(template, parse_quantity)}
    lacking = []
    for name, hard in quota.status.hard.items():
        free = parse_quantity(hard) - parse_quantity(quota.status.used.get(name, "0"))
        if name in one and one[name] * more > free:
            lacking.append(f"{name}: {one[name] * more} more needed, {free} left of {hard}")
    detail = f"ResourceQuota {quota.metadata.name}: {'; '.join(lacking) or 'enough is left'}"
    return PreflightCheck(name="quota", status="failed" if lacking else "ok", detail=detail)


def _requested(template: Mapping[str, JsonValue], quantity: Callable[[str], Any]) -> dict[str, Any]:
    """What the containers of one pod ask for, by the name that quotas have for it."""
    pod = _PodSpec.model_validate(template.get("spec") or {})
    asked = [(name, quantity(value)) for c in pod.containers for name, value in c.resources.requests.items()]
    total: dict[str, Any] = {}
    for name, value in asked:
        for counted in (name, f"requests.{name}"):
            total[counted] = total.get(counted, 0) + value
    return total


def _count(state: DeploymentState) -> int:
    """The number that a scaling changes."""
    return state.autoscaler.least if state.autoscaler else state.desired


def _told(permission: str, namespace: str, found: PreflightCheck) -> Check:
    status: Literal["ok", "failed", "skipped"] = found.status if found.status != "warning" else "ok"
    mend = f"Let a Role of the namespace {namespace} allow the account to {permission}." if status == "failed" else ""
    return Check(name=f"{permission} in {namespace}", status=status, detail=found.detail, mend=mend)


def _reached(checks: Sequence[Check]) -> Check:
    if all(check.status == "skipped" for check in checks):
        mend = "Check AUTOPILOT_KUBERNETES_KUBECONFIG, AUTOPILOT_KUBERNETES_CONTEXT and the network."
        return Check(name="credentials", status="failed", detail=checks[0].detail, mend=mend)
    return Check(name="credentials", status="ok", detail="the API server answers")


# --- wording ------------------------------------------------------------------------------------------------


def _runs(state: UndoState) -> str:
    return str(state.current) if state.current else ", ".join(state.images)


def _counted(state: DeploymentState) -> str:
    return f"minReplicas of autoscaler {state.autoscaler.name}" if state.autoscaler else "pods"
