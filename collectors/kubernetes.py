"""Reads Kubernetes: events, the state of workloads and their pods, roll-outs and autoscaling; and logs, when asked.

The account needs in each namespace ``list`` on ``events``, ``pods``, ``replicasets.apps``, ``controllerrevisions.apps``
and ``horizontalpodautoscalers.autoscaling``, and ``get`` on ``deployments.apps``, ``statefulsets.apps``,
``daemonsets.apps`` and ``pods/log``. Kubernetes keeps events for an hour, unless it was told otherwise, and the logs of
a pod no longer than the pod.
"""

import asyncio
import re
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from math import ceil
from pathlib import Path
from shlex import quote
from time import monotonic
from typing import Any, Literal, TypeVar, cast

import httpx
import yaml
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import from_json
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from collectors._budget import SourceSettings, env
from collectors._http import COMPLAINT, MAX_ANSWER, checked, clock_check, parsed, pause_of
from collectors._jobs import Job, Part, on_thread
from collectors._limits import limit_of
from collectors._log_lines import forms_of, log_line
from collectors._queries import asked
from collectors._questions import NotDeclared, target_of, words_of
from collectors._source import Source
from collectors._windows import around
from collectors.base import (
    Asks,
    Change,
    Check,
    Clock,
    CollectorError,
    Declared,
    Forbidden,
    GapReason,
    KubernetesWorkload,
    Level,
    LogLine,
    LogsRead,
    NotFound,
    RateLimited,
    Refused,
    Scope,
    Status,
    Telemetry,
    TooMuch,
    TraceRead,
    Unreachable,
    Window,
)

SIDE_BY_SIDE = 4  # jobs at once; each request takes a thread
PAGE = 500  # rows, as kubectl asks
PAGES = 6  # of one list
LOOK_BACK = timedelta(hours=24)  # how old a roll-out may be
EVENTS_KEPT = timedelta(hours=1)  # by default
CONNECT_S, READ_S = 3.0, 10.0
MESSAGE_LENGTH = 2_000
NAMED = 5  # containers in a status
LOGS = 20  # of containers, that answer a question
LOG_BYTES = 4_000_000  # of one log, from its start
LOG_LINE = 16_384  # bytes, at most
CLOCKS_S = 60  # that the API server's clock may be ahead

_KINDS = (("Deployment", "deployment"), ("StatefulSet", "stateful_set"), ("DaemonSet", "daemon_set"))
_REVISIONS = {"Deployment": ("replicasets.apps", "replica_set")}
_SERIOUS = re.compile(r"^(Fail|Back|OOM|Evict|Crash|Node|Preempt|System)|Failed|Error|Exceeded|Unhealthy|Killing")
_SUFFIX = re.compile(r"(-(?=[a-z]*\d)[a-z0-9]{1,10}(-[a-z0-9]+)?|-[a-z0-9]{5}|-\d+)")
"""What controllers put behind a workload's name: the template's hash (it has digits), five letters, a number."""


class Settings(SourceSettings):
    """``KUBERNETES_*``: how the cluster is reached."""

    model_config = env("KUBERNETES_")

    in_cluster: bool = Field(default=False, description="Use the service account of the pod this runs in")
    kubeconfig: Path | None = Field(default=None, description="A kubeconfig file; empty: ~/.kube/config")
    context: str = Field(default="", description="The kubeconfig's context; empty: its current one")


def create(clock: Clock, declared: Declared) -> "KubernetesCollector":
    """The collector of the cluster that the settings name. Raises ValueError naming a missing setting."""
    settings = Settings()
    if not (settings.in_cluster or settings.kubeconfig or settings.context):
        raise ValueError(
            "The collector 'kubernetes' needs KUBERNETES_KUBECONFIG: a kubeconfig file; or KUBERNETES_CONTEXT: a"
            " context of ~/.kube/config; or KUBERNETES_IN_CLUSTER=true."
        )
    if settings.kubeconfig and not settings.kubeconfig.expanduser().is_file():
        raise ValueError("The collector 'kubernetes' needs KUBERNETES_KUBECONFIG: there is no such file.")
    return KubernetesCollector(clock, settings)


# --- what Kubernetes answers ------------------------------------------------------------------------------------


class _Object(BaseModel):
    """Fields are in camel case; null stands for what is not there."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class _Owner(_Object):
    uid: str = ""


class _Meta(_Object):
    name: str = ""
    uid: str = ""
    generation: int = 0
    creation_timestamp: AwareDatetime | None = None
    annotations: dict[str, str] = Field(default_factory=dict)
    owner_references: list[_Owner] = Field(default_factory=list)


class _ListMeta(_Object):
    continue_: str = Field(default="", alias="continue")


class _List(_Object):
    metadata: _ListMeta = Field(default_factory=_ListMeta)
    items: list[JsonValue] = Field(default_factory=list)


class _Series(_Object):
    count: int = 0
    last_observed_time: AwareDatetime | None = None


class _Involved(_Object):
    kind: str = ""
    name: str = ""


class _Event(_Object):
    metadata: _Meta = Field(default_factory=_Meta)
    involved_object: _Involved
    type: str = ""
    reason: str = ""
    message: str = ""
    count: int = 0
    series: _Series = Field(default_factory=_Series)
    first_timestamp: AwareDatetime | None = None
    last_timestamp: AwareDatetime | None = None
    event_time: AwareDatetime | None = None

    @property
    def first(self) -> datetime | None:
        """When it was seen first."""
        return self.first_timestamp or self.event_time or self.metadata.creation_timestamp

    @property
    def last(self) -> datetime | None:
        """When it was seen last; which field tells depends on the version that wrote it."""
        return self.series.last_observed_time or self.last_timestamp or self.first

    @property
    def times(self) -> int:
        """How often it was seen."""
        return max(self.series.count, self.count, 1)


class _Requirement(_Object):
    key: str
    operator: str
    values: list[str] = Field(default_factory=list)


class _Selector(_Object):
    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: list[_Requirement] = Field(default_factory=list)

    def __str__(self) -> str:
        """As the API takes it in a query."""
        terms = [f"{key}={value}" for key, value in self.match_labels.items()]
        return ",".join([*terms, *map(_term, self.match_expressions)])


class _Container(_Object):
    image: str = ""


class _PodSpec(_Object):
    containers: list[_Container] = Field(default_factory=list)


class _Template(_Object):
    spec: _PodSpec = Field(default_factory=_PodSpec)


class _WorkloadSpec(_Object):
    replicas: int = 1
    selector: _Selector = Field(default_factory=_Selector)
    template: _Template = Field(default_factory=_Template)
    paused: bool = False


class _Condition(_Object):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: AwareDatetime | None = None


class _WorkloadStatus(_Object):
    observed_generation: int = 0
    ready_replicas: int = 0
    updated_replicas: int = 0
    desired_number_scheduled: int | None = None
    number_ready: int = 0
    updated_number_scheduled: int = 0
    conditions: list[_Condition] = Field(default_factory=list)


class _Workload(_Object):
    metadata: _Meta
    spec: _WorkloadSpec = Field(default_factory=_WorkloadSpec)
    status: _WorkloadStatus = Field(default_factory=_WorkloadStatus)

    @property
    def replicas(self) -> tuple[int, int, int]:
        """Desired, ready, updated; a DaemonSet has a name of its own for each."""
        status = self.status
        if status.desired_number_scheduled is not None:
            return status.desired_number_scheduled, status.number_ready, status.updated_number_scheduled
        return self.spec.replicas, status.ready_replicas, status.updated_replicas


class _Terminated(_Object):
    reason: str = ""
    exit_code: int = 0
    message: str = ""
    finished_at: AwareDatetime | None = None


class _Waiting(_Object):
    reason: str = ""
    message: str = ""


class _State(_Object):
    waiting: _Waiting | None = None
    terminated: _Terminated | None = None


class _ContainerStatus(_Object):
    name: str = ""
    restart_count: int = 0
    state: _State = Field(default_factory=_State)
    last_state: _State = Field(default_factory=_State)


class _PodStatus(_Object):
    phase: str = ""
    start_time: AwareDatetime | None = None
    conditions: list[_Condition] = Field(default_factory=list)
    container_statuses: list[_ContainerStatus] = Field(default_factory=list)
    init_container_statuses: list[_ContainerStatus] = Field(default_factory=list)

    @property
    def containers(self) -> list[_ContainerStatus]:
        """Those that prepare the pod, too."""
        return [*self.container_statuses, *self.init_container_statuses]

    @property
    def ended_at(self) -> datetime | None:
        """When the last thing happened to it, as far as it tells."""
        ended = (c.state.terminated.finished_at for c in self.containers if c.state.terminated)
        moments = (self.start_time, *ended, *(c.last_transition_time for c in self.conditions))
        return max((at for at in moments if at), default=None)


class _Pod(_Object):
    metadata: _Meta
    status: _PodStatus = Field(default_factory=_PodStatus)


class _Revision(_Object):
    """A ReplicaSet, or a ControllerRevision: a pod template that was rolled out."""

    metadata: _Meta
    revision: int = 0
    spec: _WorkloadSpec = Field(default_factory=_WorkloadSpec)
    data: "_RevisionData | None" = None

    @property
    def number(self) -> str:
        return self.metadata.annotations.get("deployment.kubernetes.io/revision", str(self.revision or ""))

    @property
    def images(self) -> list[str]:
        spec = self.data.spec if self.data else self.spec
        return [container.image for container in spec.template.spec.containers]


class _RevisionData(_Object):
    spec: _WorkloadSpec = Field(default_factory=_WorkloadSpec)


class _ScaleTarget(_Object):
    kind: str = ""
    name: str = ""


class _AutoscalerSpec(_Object):
    scale_target_ref: _ScaleTarget
    min_replicas: int = 1
    max_replicas: int


class _AutoscalerStatus(_Object):
    current_replicas: int = 0
    desired_replicas: int = 0
    last_scale_time: AwareDatetime | None = None


class _Autoscaler(_Object):
    metadata: _Meta
    spec: _AutoscalerSpec
    status: _AutoscalerStatus = Field(default_factory=_AutoscalerStatus)


_M = TypeVar("_M", bound=BaseModel)


# --- requests ---------------------------------------------------------------------------------------------------


class _Again(Unreachable):
    """Worth one more try."""


class _Paused(RateLimited):
    """The API server asked to wait; the limiter waits before the next try."""


class _Expired(CollectorError):
    """The list's continue token is too old; ``token`` leads to the rest of a newer list."""

    def __init__(self, detail: str, token: str) -> None:
        super().__init__(detail)
        self.token = token


@dataclass(frozen=True)
class _Read:
    """One question about resources of a namespace, and how the library asks it."""

    verb: str
    resource: str
    namespace: str
    api: str
    method: str
    arguments: Mapping[str, str]

    @property
    def command(self) -> str:
        """The same question for a person's terminal."""
        flags = {"name": " ", "container": " -c ", "field_selector": " --field-selector ", "label_selector": " -l "}
        told = "".join(f"{flags[name]}{quote(value)}" for name, value in self.arguments.items() if value)
        verb = "logs" if self.resource == "pods/log" else f"get {self.resource}"
        return f"kubectl {verb} -n {quote(self.namespace)}{told}"

    @property
    def needs(self) -> str:
        """The permission, as a Role names it."""
        return f"let a Role allow the account to {self.verb} {self.resource} in the namespace {self.namespace}"


class _Cluster:
    """The API server, by the official client. It is synchronous and slow to import: both happen in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._turn = asyncio.Lock()
        self.skew_s: float | None = None

    async def json(self, part: Part, read: _Read, **paging: str | int) -> JsonValue:
        """The answer, parsed; else as ``content``."""
        return await on_thread(_json, await self.content(part, read, **paging), read)

    async def content(self, part: Part, read: _Read, **options: str | int) -> bytes:
        """The answer's bytes. One more try after a lost connection, a 5xx, or the pause a 429 asks for.

        Raises CollectorError.
        """
        client = await self._connected()
        limit = limit_of(f"kubernetes:{client.configuration.host}", per_second=20.0, at_once=SIDE_BY_SIDE)
        attempts = AsyncRetrying(
            stop=stop_after_attempt(2),
            wait=wait_random_exponential(multiplier=0.2, max=1.0),
            retry=retry_if_exception_type((_Again, _Paused)),
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                async with limit.turn(read.command, part.budget.left_s):
                    part.budget.call()
                    try:
                        content, headers = await asyncio.to_thread(_content, client, read, options)
                    except _Answered as error:
                        limit.close(_pause_s(error))
                        raise _refusal(error, read) from None
                part.answered = True
                self.skew_s = skew_s(headers)
                part.budget.receive(len(content))
                return content
        raise AssertionError("unreachable: the last attempt answers or raises")

    async def _connected(self) -> Any:
        async with self._turn:
            if self._client is None:
                self._client = await asyncio.to_thread(connect, self._settings)
            return self._client

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.rest_client.pool_manager.clear()
            self._client.close()


class _Answered(Exception):
    """The API server refused."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        self.status, self.headers, self.body = status, httpx.Headers(dict(headers)), body


def connect(settings: Settings) -> Any:
    """The official client for the cluster that the settings name. Raises CollectorError."""
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
        told = f"no way to the cluster: {type(error).__name__}: {error}"[:COMPLAINT]
        raise CollectorError(told, "check KUBERNETES_KUBECONFIG, KUBERNETES_CONTEXT, KUBERNETES_IN_CLUSTER") from None
    return client.ApiClient(configuration)


def _content(client: Any, read: _Read, options: Mapping[str, str | int]) -> tuple[bytes, Mapping[str, str]]:
    """The answer's bytes, at most MAX_ANSWER, and its headers. Raises CollectorError, _Answered."""
    from kubernetes import client as library
    from urllib3.exceptions import HTTPError

    method = getattr(getattr(library, read.api)(client), read.method)
    streamed = {"_preload_content": False, "_request_timeout": (CONNECT_S, READ_S)}
    try:
        response = method(namespace=read.namespace, **read.arguments, **options, **streamed)
        with closing(response):
            return _bounded(response.stream(65_536), read), response.headers
    except library.ApiException as error:
        raise _Answered(error.status or 0, error.headers or {}, error.body or str(error.reason)) from None
    except (HTTPError, OSError, ValueError) as error:
        told = f"{read.command}: {type(error).__name__}"
        raise _Again(told, "check the cluster's address, its certificate and the network") from None


def _bounded(chunks: Iterable[bytes], read: _Read) -> bytes:
    content, give_up = bytearray(), monotonic() + READ_S
    for chunk in chunks:
        content += chunk
        if len(content) > MAX_ANSWER:
            raise TooMuch(f"{read.command}: one answer is larger than {MAX_ANSWER:,} bytes")
        if monotonic() > give_up:
            raise _Again(f"{read.command}: the answer takes longer than {READ_S:g} s", "check the network")
    return bytes(content)


def _json(content: bytes, read: _Read) -> JsonValue:
    try:
        return cast("JsonValue", from_json(content))
    except ValueError:
        raise CollectorError(f"{read.command}: the answer is no JSON", "check the cluster's address") from None


def _pause_s(error: _Answered) -> float:
    return (pause_of(error.headers) or 1.0) if error.status == 429 else 0.0


def _refusal(error: _Answered, read: _Read) -> CollectorError:
    """What a refusal means."""
    said = f"{read.command}: Kubernetes answered {error.status}"
    told = f"{said}: {_failure(error.body).message}"[:COMPLAINT]
    match error.status:
        case 401:
            return Forbidden(said, "renew the credentials of the kubeconfig's context, or of the service account")
        case 403:
            return Forbidden(told, read.needs)
        case 404:
            return NotFound(told)
        case 410:
            return _Expired(said, _failure(error.body).metadata.continue_)
        case 429:
            return _Paused(said, "try again later")
        case 0:
            return Unreachable(told, "check the cluster's address and its certificate")
        case status if status >= 500:
            return _Again(said, "try again later; if it stays so, look at the API server")
    return Refused(told)


class _Failure(_Object):
    message: str = ""
    metadata: _ListMeta = Field(default_factory=_ListMeta)


def _failure(body: str) -> _Failure:
    try:
        return _Failure.model_validate_json(body)
    except ValidationError:
        return _Failure()


def skew_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the API server's clock is ahead of ours, if it told the time."""
    try:
        theirs = parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return None
    return (theirs - datetime.now(UTC)).total_seconds() if theirs.tzinfo else None


# --- the collector ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Look:
    """At one workload, for one incident."""

    scope: Scope
    service: str
    at: KubernetesWorkload
    part: Part


@dataclass(frozen=True)
class _Log:
    """The log of a container, or the ``previous`` one, of before it was started again."""

    pod: str
    container: str
    previous: bool = False


class KubernetesCollector(Source[Settings]):
    """One cluster, read-only."""

    name = "kubernetes"

    def __init__(self, clock: Clock, settings: Settings) -> None:
        """``settings`` say how the cluster is reached; it is, at the first question."""
        super().__init__(settings)
        self._clock = clock
        self._cluster = _Cluster(settings)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._cluster.aclose()

    async def collect(self, scope: Scope) -> Telemetry:
        """Workloads, pods, roll-outs and autoscalers of every target, and their namespaces' events.

        Raises CollectorError.
        """
        return await self._gathered(scope, self._jobs(scope), side_by_side=SIDE_BY_SIDE)

    async def check(self) -> list[Check]:
        """Whether the cluster answers and each permission is there, told for the namespace ``default``."""

        async def reads(read: _Read, part: Part) -> str:
            with suppress(NotFound):  # the permission is there, the object need not be
                await self._cluster.content(part, read)
            return read.command

        asks = {f"{read.verb} {read.resource}": partial(reads, read) for read in _every_read("default")}
        found = await asyncio.gather(*(checked(self.name, self._settings, n, ask) for n, ask in asks.items()))
        return [*found, clock_check(self._cluster.skew_s)]

    # --- jobs ---

    def _jobs(self, scope: Scope) -> Iterator[tuple[str, Job]]:
        known = [(t.service, t.kubernetes) for t in scope.targets if t.kubernetes]
        seen: set[str] = set()
        for service, at in known:
            yield f"workload {at.namespace}/{at.workload}", partial(self._workload, scope, service, at)
            if at.namespace not in seen:
                seen.add(at.namespace)
                here = {other.workload: name for name, other in known if other.namespace == at.namespace}
                yield f"events of {at.namespace}", partial(self._events, scope, at.namespace, here)

    async def _events(self, scope: Scope, namespace: str, services: Mapping[str, str], part: Part) -> None:
        """``services`` by workload. Warnings first: there are far fewer of them."""
        windows, kept = (scope.incident, *scope.baseline), 0
        for kind in ("type=Warning", "type!=Warning"):
            read = _listing("events", namespace, "CoreV1Api", "event", field_selector=kind)
            for event in await self._rows(read, scope, part, _Event, "logs"):
                service = _owner(event.involved_object, services)
                lines = list(_event_lines(service, event, windows)) if service else []
                kept += len(lines)
                part.logs.extend(lines)
        if not kept and self._clock.now() - scope.incident.start > EVENTS_KEPT:
            told = f"no event of {', '.join(services)} in {namespace}; Kubernetes keeps them for an hour by default"
            part.gap(GapReason.EMPTY, told, "collect events elsewhere, or raise the API server's --event-ttl")

    async def _workload(self, scope: Scope, service: str, at: KubernetesWorkload, part: Part) -> None:
        look = _Look(scope, service, at, part)
        kind, workload = await self._found(look)
        part.keep(_replica_statuses(service, kind, workload, self._clock.now()))
        selector = _selector(kind, workload)
        reads: list[Awaitable[None]] = [
            self._pods(look, selector),
            self._rollouts(look, kind, workload, selector),
            self._autoscalers(look, kind),
        ]
        for outcome in await asyncio.gather(*reads, return_exceptions=True):
            if isinstance(outcome, CollectorError):
                part.fail(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome

    async def _found(self, look: _Look) -> tuple[str, _Workload]:
        """The workload, whatever its kind. Raises CollectorError."""
        for kind, method in _KINDS:
            read = _getting(look.at.namespace, look.at.workload, kind, method)
            with suppress(NotFound), asked(look.part, read.command, look.scope.incident, kind="statuses") as tally:
                workload = parsed(_Workload, await self._cluster.json(look.part, read))
                tally.rows = 1
                return kind, workload
        raise NotFound(
            f"{look.at.namespace} has no Deployment, StatefulSet or DaemonSet {look.at.workload}",
            f"correct kubernetes.namespace and kubernetes.workload of {look.service} in the catalogue",
        )

    async def _pods(self, look: _Look, selector: str) -> None:
        pods = await self._rows(_pods_of(look.at, selector), look.scope, look.part, _Pod)
        windows = (look.scope.incident, *look.scope.baseline)
        look.part.logs.extend(line for pod in pods for line in _ended(look.service, pod, windows))
        current = [pod for pod in pods if not _left_over(pod, min(w.start for w in windows))]
        look.part.keep(_pod_statuses(look.service, current, look.scope.incident, self._clock.now()))

    async def _rollouts(self, look: _Look, kind: str, workload: _Workload, selector: str) -> None:
        resource, what = _REVISIONS.get(kind, ("controllerrevisions.apps", "controller_revision"))
        read = _listing(resource, look.at.namespace, "AppsV1Api", what, label_selector=selector)
        found = await self._rows(read, look.scope, look.part, _Revision, "changes")
        mine = [r for r in found if any(o.uid == workload.metadata.uid for o in r.metadata.owner_references)]
        window = Window(start=look.scope.incident.start - LOOK_BACK, end=look.scope.incident.end)
        look.part.keep(_rolled_out(look.service, look.at, mine, window))

    async def _autoscalers(self, look: _Look, kind: str) -> None:
        read = _listing(
            "horizontalpodautoscalers.autoscaling", look.at.namespace, "AutoscalingV2Api", "horizontal_pod_autoscaler"
        )
        for scaler in await self._rows(read, look.scope, look.part, _Autoscaler):
            if scaler.spec.scale_target_ref == _ScaleTarget(kind=kind, name=look.at.workload):
                look.part.keep(_scaling(look, scaler, self._clock.now()))

    # --- one question ---

    @property
    def reads(self) -> frozenset[Literal["logs", "trace"]]:
        """Logs, of pods that are there still."""
        return frozenset(("logs",))

    def _answer(self, question: LogsRead | TraceRead, scope: Scope) -> tuple[str, Job]:
        assert isinstance(question, LogsRead)
        service, words = question.component, words_of(question)
        at = target_of(service, scope).kubernetes
        if at is None:
            raise NotDeclared(f"the catalogue names no workload of {service} in Kubernetes")
        return f"logs of {at.namespace}/{at.workload}", partial(self._find, scope, service, at, words)

    async def _find(self, scope: Scope, service: str, at: KubernetesWorkload, words: str, part: Part) -> None:
        """The lines of the workload's containers that hold the words. Raises CollectorError."""
        look = _Look(scope, service, at, part)
        selector = _selector(*await self._found(look))
        pods = await self._rows(_pods_of(at, selector), scope, part, _Pod)
        _tell_gone(look, pods)
        logs = sorted((log for pod in pods for log in _logs_of(pod)), key=lambda log: not log.previous)
        if len(logs) > LOGS:
            part.gap(GapReason.TRUNCATED, f"only the logs of {LOGS} of {len(logs)} containers were read")
        with asked(part, _grep(look, selector, words), scope.incident, kind="logs") as tally:
            found = await asyncio.gather(*(self._log(look, log, words) for log in logs[:LOGS]))
            tally.rows = sum(one for one in found if isinstance(one, int))
        failures = [one for one in found if isinstance(one, CollectorError)]
        if failures:
            first = failures[0]
            part.gap(first.reason, f"{len(failures)} of {len(found)} logs: {first.detail}", first.mend)

    async def _log(self, look: _Look, log: _Log, words: str) -> int | CollectorError:
        """How many lines of one log hold the words, or why it could not be read; the other logs tell enough."""
        try:
            return await self._read_log(look, log, words)
        except CollectorError as error:
            return error

    async def _read_log(self, look: _Look, log: _Log, words: str) -> int:
        """One that is too large is read from the incident on as well: Kubernetes takes neither words nor an end.

        Raises CollectorError.
        """
        incident = look.scope.incident
        windows = (incident, *look.scope.baseline)
        content = await self._since(around(windows).start, look, log)
        if len(content) <= LOG_BYTES - LOG_LINE:
            return await self._keep(look, log, content, words, windows)
        told = f"{log.pod}/{log.container}: the log is larger than the {LOG_BYTES:,} bytes that are read"
        look.part.gap(GapReason.TRUNCATED, told, "read on with kubectl logs")
        before = await self._keep(look, log, content, words, look.scope.baseline)
        content = await self._since(incident.start, look, log)
        return before + await self._keep(look, log, content, words, (incident,))

    async def _since(self, start: datetime, look: _Look, log: _Log) -> bytes:
        arguments = {"name": log.pod, "container": log.container}
        read = _Read("get", "pods/log", look.at.namespace, "CoreV1Api", "read_namespaced_pod_log", arguments)
        since_s = max(ceil((self._clock.now() - start).total_seconds()), 0) + CLOCKS_S
        return await self._cluster.content(
            look.part, read, previous=log.previous, since_seconds=since_s, limit_bytes=LOG_BYTES, timestamps=True
        )

    async def _keep(self, look: _Look, log: _Log, content: bytes, words: str, windows: Sequence[Window]) -> int:
        found = await on_thread(_holding, look.service, log, content, words, windows)
        await look.part.keep_logs(found)
        return len(found)

    # --- requests ---

    async def _rows(self, read: _Read, scope: Scope, part: Part, model: type[_M], kind: Asks = "") -> list[_M]:
        """The list, page by page. Raises CollectorError if not even one page was read."""
        with asked(part, read.command, scope.incident, kind=kind) as tally:
            items, token = await self._pages(read, part)
            tally.rows, tally.truncated = len(items), bool(token)
        found = list(_understood(model, items))
        if len(found) < len(items):
            part.gap(GapReason.FAILED, f"{len(items) - len(found)} rows were not understood: {read.command}")
        if token:
            told = f"only the first {len(items):,} rows were read: {read.command}"
            part.gap(GapReason.TRUNCATED, told, "look at the rest with that command")
        return found

    async def _pages(self, read: _Read, part: Part) -> tuple[list[JsonValue], str]:
        """The rows, and the token of the next page where not all were read. Raises CollectorError."""
        items, token = list[JsonValue](), ""
        for number in range(PAGES):
            paging: dict[str, str | int] = {"limit": PAGE, **({"_continue": token} if token else {})}
            try:
                page = parsed(_List, await self._cluster.json(part, read, **paging))
            except _Expired as error:
                # what is left of the list has changed meanwhile, which is no matter here
                part.fail(_Expired(f"{read.command}: the list changed while it was read", ""))
                token = error.token
                if not token:
                    break
                continue
            except CollectorError as error:
                if number == 0:
                    raise
                part.fail(error)
                break
            items += page.items
            token = page.metadata.continue_
            if not token:
                break
        return items, token


# --- queries ------------------------------------------------------------------------------------------------


def _listing(resource: str, namespace: str, api: str, what: str, **selectors: str) -> _Read:
    return _Read("list", resource, namespace, api, f"list_namespaced_{what}", selectors)


def _pods_of(at: KubernetesWorkload, selector: str) -> _Read:
    return _listing("pods", at.namespace, "CoreV1Api", "pod", label_selector=selector)


def _selector(kind: str, workload: _Workload) -> str:
    """Raises CollectorError: there is none, which would select every pod of the namespace."""
    selector = str(workload.spec.selector)
    if not selector:
        raise CollectorError(f"{kind} {workload.metadata.name} has no selector")
    return selector


def _grep(look: _Look, selector: str, words: str) -> str:
    """The question for a person's terminal."""
    since = around((look.scope.incident, *look.scope.baseline)).start.astimezone(UTC)
    command = f"kubectl logs -n {quote(look.at.namespace)} -l {quote(selector)} --all-containers --tail=-1 --timestamps"
    return f"{command} --since-time={since:%Y-%m-%dT%H:%M:%SZ} | grep -iF -- {quote(words)}"


def _getting(namespace: str, name: str, kind: str, method: str) -> _Read:
    return _Read("get", f"{kind.lower()}s.apps", namespace, "AppsV1Api", f"read_namespaced_{method}", {"name": name})


def _every_read(namespace: str) -> Iterator[_Read]:
    """One of each permission."""
    yield _listing("events", namespace, "CoreV1Api", "event")
    yield _listing("pods", namespace, "CoreV1Api", "pod")
    yield _listing("replicasets.apps", namespace, "AppsV1Api", "replica_set")
    yield _listing("controllerrevisions.apps", namespace, "AppsV1Api", "controller_revision")
    yield _listing("horizontalpodautoscalers.autoscaling", namespace, "AutoscalingV2Api", "horizontal_pod_autoscaler")
    yield _Read("get", "pods/log", namespace, "CoreV1Api", "read_namespaced_pod_log", {"name": "none"})
    for kind, method in _KINDS:
        yield _getting(namespace, "none", kind, method)


def _term(requirement: _Requirement) -> str:
    key, values = requirement.key, f"({','.join(requirement.values)})"
    terms = {"In": f"{key} in {values}", "NotIn": f"{key} notin {values}", "DoesNotExist": f"!{key}"}
    return terms.get(requirement.operator, key)


def _understood(model: type[_M], rows: Iterable[JsonValue]) -> Iterator[_M]:
    for row in rows:
        with suppress(ValidationError):
            yield model.model_validate(row)


def _owner(involved: _Involved, services: Mapping[str, str]) -> str:
    """The service whose workload, or one of its pods, an event is about; the longest name wins."""
    for workload in sorted(services, key=len, reverse=True):
        rest = involved.name.removeprefix(workload)
        if involved.name.startswith(workload) and (not rest or _belongs(involved.kind, rest)):
            return services[workload]
    return ""


def _belongs(kind: str, rest: str) -> bool:
    if kind == "HorizontalPodAutoscaler":
        return rest == "-hpa"
    return kind in ("Pod", "ReplicaSet", "Job", "ControllerRevision") and bool(_SUFFIX.fullmatch(rest))


# --- rows to telemetry --------------------------------------------------------------------------------------------


def _within(at: datetime | None, windows: Iterable[Window]) -> bool:
    return at is not None and any(window.start <= at < window.end for window in windows)


def _event_lines(service: str, event: _Event, windows: Sequence[Window]) -> Iterator[LogLine]:
    """An event seen several times is told when it was seen first, and once for each window with its share of the
    other times.
    """
    for at, count in _moments(event, windows):
        if _within(at, windows):
            yield LogLine(
                component=service,
                at=at,
                level=_level(event),
                message=f"{event.reason}: {event.message}"[:MESSAGE_LENGTH],
                logger="kubernetes.events",
                instance=event.involved_object.name,
                count=count,
            )


def _moments(event: _Event, windows: Sequence[Window]) -> Iterator[tuple[datetime, int]]:
    """When it was seen, and how often. Of the times between the first and the last nobody knows more than how many
    they are; as evenly spread as can be, what goes on since yesterday is nothing new.
    """
    first, last, times = event.first, event.last, event.times
    if not first or not last:
        return
    if times == 1 or last <= first:
        yield last, times
        return
    yield first, 1
    for window in windows:
        begins, ends = max(window.start, first), min(window.end, last)
        share = round((times - 1) * max((ends - begins) / (last - first), 0.0))
        if window.start <= last < window.end:
            yield last, max(share, 1)
        elif share:
            yield begins + (ends - begins) / 2, share


def _level(event: _Event) -> Level:
    if event.type != "Warning":
        return "info"
    return "error" if _SERIOUS.search(event.reason) else "warning"


def _replica_statuses(service: str, kind: str, workload: _Workload, now: datetime) -> Iterator[Status]:
    desired, ready, updated = workload.replicas
    detail = f"{kind} {workload.metadata.name}{_rollout_state(workload)}"
    for name, observed in (("ready_replicas", ready), ("updated_replicas", updated)):
        yield Status(
            component=service,
            name=f"kubernetes.{name}",
            at=now,
            observed=observed,
            expected=desired,
            detail=detail[:MESSAGE_LENGTH],
        )


def _rollout_state(workload: _Workload) -> str:
    told = [f"{c.reason}: {c.message}" for c in workload.status.conditions if c.status == "False" and c.reason]
    if workload.status.observed_generation < workload.metadata.generation:
        told.insert(0, "its latest change is not acted on yet")
    if workload.spec.paused:
        told.insert(0, "paused")
    return f" ({'; '.join(told)})" if told else ""


def _ended(service: str, pod: _Pod, windows: Sequence[Window]) -> Iterator[LogLine]:
    """Containers that ended within the windows; Kubernetes remembers the last time of each."""
    for container in pod.status.containers:
        for state in (container.last_state.terminated, container.state.terminated):
            if state and state.finished_at and _within(state.finished_at, windows):
                yield LogLine(
                    component=service,
                    at=state.finished_at,
                    level="error" if state.exit_code else "info",
                    message=_terminated(container.name, state)[:MESSAGE_LENGTH],
                    logger="kubernetes.pods",
                    instance=pod.metadata.name,
                )


def _terminated(container: str, state: _Terminated) -> str:
    said = f": {state.message.strip()}" if state.message.strip() else ""
    return f"container {container} terminated: {state.reason or 'unknown'}, exit code {state.exit_code}{said}"


def _logs_of(pod: _Pod) -> Iterator[_Log]:
    """Of containers that ran. While one waits to be started again, its log is the previous one."""
    for container in pod.status.containers:
        waits, ended = container.state.waiting is not None, container.last_state.terminated is not None
        if ended or not waits:
            yield _Log(pod.metadata.name, container.name)
        if ended and not waits:
            yield _Log(pod.metadata.name, container.name, previous=True)


def _tell_gone(look: _Look, pods: Sequence[_Pod]) -> None:
    """That all pods are younger than the incident, if so: nobody knows what the others logged."""
    oldest = min((pod.status.start_time for pod in pods if pod.status.start_time), default=None)
    if oldest is None or oldest > look.scope.incident.start:
        told = f"{look.at.workload} has no pod of before the incident; logs of pods that are gone went with them"
        look.part.gap(GapReason.TRUNCATED, told, "collect logs elsewhere")


def _holding(service: str, log: _Log, content: bytes, words: str, windows: Sequence[Window]) -> list[LogLine]:
    """The lines of these windows that hold the words, in any case."""
    wanted, found = [form.casefold() for form in forms_of(words)], []
    for row in content.decode(errors="replace").split("\n"):
        told, _, text = row.partition(" ")
        if any(form in text.casefold() for form in wanted):
            with suppress(ValueError):  # it does not begin with a time: the rest of a line that was cut
                at = datetime.fromisoformat(told)
                if at.tzinfo and _within(at, windows):
                    line = log_line(service, at, text, {"pod": log.pod}, "info")
                    found.append(replace(line, logger=line.logger or log.container))
    return found


def _pod_statuses(service: str, pods: Sequence[_Pod], incident: Window, now: datetime) -> Iterator[Status]:
    restarted = [
        f"{pod.metadata.name}/{_terminated(c.name, last)}"
        for pod in pods
        for c in pod.status.containers
        if (last := c.last_state.terminated) and _within(last.finished_at, (incident,))
    ]
    failing = [told for pod in pods if (told := _failing(pod))]
    total = sum(c.restart_count for pod in pods for c in pod.status.containers)
    yield _count(service, "container_restarts", restarted, now, f"in the incident's window; {total} restarts in all")
    yield _count(service, "failed_pods", failing, now, f"of {len(pods)} pods")


def _count(service: str, name: str, found: Sequence[str], now: datetime, among: str) -> Status:
    """How many there are where there should be none, and the first few by name."""
    named = "; ".join([among, *found[:NAMED]])[:MESSAGE_LENGTH]
    return Status(component=service, name=f"kubernetes.{name}", at=now, observed=len(found), expected=0, detail=named)


def _left_over(pod: _Pod, since: datetime) -> bool:
    """Whether it failed before all that is looked at: a pod that was evicted is listed until somebody deletes it."""
    ended = pod.status.ended_at
    return pod.status.phase == "Failed" and ended is not None and ended < since


def _failing(pod: _Pod) -> str:
    """Why a pod does not run; empty: it does, or is just starting."""
    starting = ("ContainerCreating", "PodInitializing", "")
    for container in pod.status.containers:
        waiting = container.state.waiting
        if waiting and waiting.reason not in starting:
            return f"{pod.metadata.name}/{container.name}: {waiting.reason} {waiting.message}".strip()
    for condition in pod.status.conditions:
        if condition.reason == "Unschedulable":
            return f"{pod.metadata.name}: Unschedulable {condition.message}".strip()
    return f"{pod.metadata.name}: Failed" if pod.status.phase == "Failed" else ""


def _rolled_out(
    service: str, at: KubernetesWorkload, revisions: Sequence[_Revision], window: Window
) -> Iterator[Change]:
    """A new template is a roll-out, at the time it was made."""
    dated = [(r.metadata.creation_timestamp, r) for r in revisions if r.metadata.creation_timestamp]
    dated.sort(key=lambda d: d[0])
    for position, (created, revision) in enumerate(dated):
        if window.start <= created < window.end:
            same = position > 0 and dated[position - 1][1].images == revision.images
            cause = revision.metadata.annotations.get("kubernetes.io/change-cause", "")
            told = [f"rolled out {at.workload}", f"revision {revision.number}" if revision.number else "", cause]
            told += ["the same image: its settings changed, or it was restarted" if same else ""]
            yield Change(
                component=service,
                at=created,
                kind="deploy",
                title="; ".join(t for t in told if t)[:300],
                version=", ".join(revision.images)[:300],
            )


def _scaling(look: _Look, scaler: _Autoscaler, now: datetime) -> Iterator[Status | Change]:
    status, spec = scaler.status, scaler.spec
    limits = f"{scaler.metadata.name}: {spec.min_replicas} to {spec.max_replicas} replicas"
    at_limit = "; it is at its maximum" if status.desired_replicas >= spec.max_replicas else ""
    yield Status(
        component=look.service,
        name="kubernetes.autoscaled_replicas",
        at=now,
        observed=status.current_replicas,
        expected=status.desired_replicas,
        detail=f"{limits}, {status.desired_replicas} wanted{at_limit}",
    )
    scaled_at = status.last_scale_time
    if scaled_at and look.scope.incident.start - LOOK_BACK <= scaled_at < look.scope.incident.end:
        yield Change(
            component=look.service,
            at=scaled_at,
            kind="scaling",
            title=f"autoscaled by {limits}, {status.desired_replicas} wanted{at_limit}",
            author="HorizontalPodAutoscaler",
        )
