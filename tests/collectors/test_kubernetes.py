"""The Kubernetes collector: the official client against a server that speaks the API's JSON."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from collectors.base import (
    CollectorError,
    Declared,
    Forbidden,
    Gap,
    GapReason,
    KubernetesWorkload,
    LogsRead,
    Refused,
    Scope,
    Target,
    TraceRead,
    Unreachable,
    Window,
)
from collectors.kubernetes import LOG_BYTES, LOGS, KubernetesCollector, Settings, create
from tests.collectors.test_questions import ATTACKS

T0 = datetime(2024, 12, 20, 9, 0, tzinfo=UTC)
INCIDENT = Window(start=T0, end=T0 + timedelta(minutes=15))
BASELINE = Window(start=T0 - timedelta(hours=1), end=T0)
EVENTS, PODS = "/api/v1/namespaces/shop/events", "/api/v1/namespaces/shop/pods"
APPS = "/apis/apps/v1/namespaces/shop"
DEPLOYMENT, STATEFUL, DAEMON = f"{APPS}/deployments/pay", f"{APPS}/statefulsets/pay", f"{APPS}/daemonsets/pay"
REPLICA_SETS, SCALERS = f"{APPS}/replicasets", "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers"

Json = dict[str, Any]
Answer = Callable[[dict[str, str]], tuple[int, Json]]


class FrozenClock:
    def now(self) -> datetime:
        """Ten minutes into the incident."""
        return T0 + timedelta(minutes=10)


class Cluster:
    """Answers per path; a list that is not told is empty, an object that is not told is not found.

    ``logs`` by pod, container and whether it is the previous one.
    """

    def __init__(self, folder: Path) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.headers: list[dict[str, str]] = []
        self.answers: dict[str, Answer] = {}
        self.logs: dict[tuple[str, str, bool], str] = {}
        self.extra_headers: dict[str, str] = {}
        cluster = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = dict(parse_qsl(parts.query))
                cluster.asked.append((parts.path, query))
                cluster.headers.append(dict(self.headers))
                log = cluster.log(parts.path, query)
                status, content = (200, {}) if log is not None else cluster.answer(parts.path, query)
                body = json.dumps(content).encode() if log is None else log
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **cluster.extra_headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(_kubeconfig(self.server.server_port)))

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, Json]:
        if path in self.answers:
            return self.answers[path](query)
        named = path in (DEPLOYMENT, STATEFUL, DAEMON) or path.endswith("/none")
        return (404, failure("not found")) if named else (200, {"metadata": {}, "items": None})

    def log(self, path: str, query: dict[str, str]) -> bytes | None:
        """From the asked time on, cut off at the limit."""
        pod, _, kind = path.removeprefix(PODS + "/").partition("/")
        text = self.logs.get((pod, query.get("container", ""), query.get("previous") == "True"))
        if kind != "log" or text is None:
            return None
        since = FrozenClock().now() - timedelta(seconds=int(query["sinceSeconds"]))
        rows = [row for row in text.splitlines(keepends=True) if datetime.fromisoformat(row.split(" ")[0]) >= since]
        return "".join(rows).encode()[: int(query["limitBytes"])]

    def to(self, path: str) -> list[dict[str, str]]:
        return [query for asked, query in self.asked if asked == path]

    def gives(self, path: str, content: Json, status: int = 200) -> None:
        self.answers[path] = lambda _: (status, content)


def _kubeconfig(port: int) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "shop",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "a-token"}}],
        "contexts": [{"name": "shop", "context": {"cluster": "c", "user": "u"}}],
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path)
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.fixture
async def collector(cluster: Cluster) -> Any:
    made = KubernetesCollector(FrozenClock(), Settings(kubeconfig=cluster.kubeconfig))
    yield made
    await made.aclose()


def scope(*targets: Target) -> Scope:
    mine = Target(service="payment", kubernetes=KubernetesWorkload(namespace="shop", workload="pay"))
    return Scope(service="payment", occurred_at=T0, incident=INCIDENT, baseline=(BASELINE,), targets=targets or (mine,))


def failure(message: str, **metadata: str) -> Json:
    return {"kind": "Status", "status": "Failure", "message": message, "metadata": metadata}


def at(minutes: float) -> str:
    return (T0 + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def event(name: str, reason: str = "BackOff", kind: str = "Pod", **fields: Any) -> Json:
    return {
        "metadata": {"name": "e", "creationTimestamp": at(2)},
        "involvedObject": {"kind": kind, "name": name, "namespace": "shop"},
        "type": "Warning",
        "reason": reason,
        "message": "Back-off restarting failed container",
    } | fields


DEPLOYED: Json = {
    "metadata": {"name": "pay", "uid": "u1", "generation": 8},
    "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "pay"}, "matchExpressions": None}},
    "status": {
        "observedGeneration": 8,
        "readyReplicas": 1,
        "updatedReplicas": 3,
        "conditions": [
            {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
        ],
    },
}


def replica_set(revision: int, image: str, made: float, uid: str = "u1") -> Json:
    return {
        "metadata": {
            "name": f"pay-{revision}",
            "creationTimestamp": at(made),
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"kind": "Deployment", "name": "pay", "uid": uid}],
        },
        "spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}},
    }


def details(gaps: tuple[Gap, ...]) -> str:
    return "\n".join(f"{gap.reason}: {gap.detail} | {gap.mend}" for gap in gaps)


async def test_a_workload_its_pods_and_its_roll_outs_are_told(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.gives(DEPLOYMENT, DEPLOYED)
    killed = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": at(4)}
    cluster.gives(
        PODS,
        {
            "items": [
                {
                    "metadata": {"name": "pay-7d9f8b6c54-x2k4q"},
                    "status": {
                        "phase": "Running",
                        "containerStatuses": [
                            {
                                "name": "app",
                                "restartCount": 6,
                                "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}},
                                "lastState": {"terminated": killed},
                            }
                        ],
                    },
                }
            ]
        },
    )
    sets = [replica_set(7, "pay:1.4", -60 * 30), replica_set(8, "pay:1.5", -3), replica_set(9, "x:1", -2, uid="other")]
    cluster.gives(REPLICA_SETS, {"items": sets})
    scaler: Json = {
        "metadata": {"name": "pay"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "pay"}, "minReplicas": 2, "maxReplicas": 3},
        "status": {"currentReplicas": 3, "desiredReplicas": 3, "lastScaleTime": at(1)},
    }
    cluster.gives(SCALERS, {"items": [scaler, scaler | {"spec": {**scaler["spec"], "scaleTargetRef": {"name": "x"}}}]})

    found = await collector.collect(scope())

    states = {s.name: (s.observed, s.expected) for s in found.statuses}
    assert states == {
        "kubernetes.ready_replicas": (1, 3),
        "kubernetes.updated_replicas": (3, 3),
        "kubernetes.container_restarts": (1, 0),
        "kubernetes.failed_pods": (1, 0),
        "kubernetes.autoscaled_replicas": (3, 3),
    }
    told = "\n".join(s.detail for s in found.statuses)
    assert "ProgressDeadlineExceeded: timed out" in told
    assert "6 restarts in all; pay-7d9f8b6c54-x2k4q/container app terminated: OOMKilled, exit code 137" in told
    assert "CrashLoopBackOff" in told
    assert "at its maximum" in told
    [line] = found.logs
    assert (line.component, line.level, line.logger, line.instance) == (
        "payment",
        "error",
        "kubernetes.pods",
        "pay-7d9f8b6c54-x2k4q",
    )
    changes = sorted(found.changes, key=lambda c: c.at)
    assert [(c.kind, c.version, c.at) for c in changes] == [
        ("deploy", "pay:1.5", T0 - timedelta(minutes=3)),
        ("scaling", "", T0 + timedelta(minutes=1)),
    ]
    assert changes[0].title == "rolled out pay; revision 8"
    assert cluster.to(PODS) == [{"labelSelector": "app=pay", "limit": "500"}]
    assert {h.get("authorization", h.get("Authorization")) for h in cluster.headers} == {"Bearer a-token"}
    assert "kubectl get pods -n shop -l app=pay" in {q.text for q in found.queries}


async def test_events_are_the_workloads_own_and_counted(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.gives(DEPLOYMENT, DEPLOYED)
    rows = [
        event("pay-7d9f8b6c54-x2k4q", count=12, firstTimestamp=at(1), lastTimestamp=at(9)),
        event("pay-7d9f8b6c54", "FailedCreate", "ReplicaSet", eventTime=at(3)[:-1] + ".123456Z", lastTimestamp=None),
        event("pay", "ProgressDeadlineExceeded", "Deployment", series={"count": 3, "lastObservedTime": at(5)}),
        event("pay-worker-7d9f8b6c54-x2k4q"),  # another workload's
        event("pay-worker-0"),
        event("pay-x2k4q", lastTimestamp=at(300)),  # in the future
        event("pay-x2k4q", lastTimestamp=at(-600), firstTimestamp=at(-601)),  # long ago
        {"involvedObject": "?"},
        {"metadata": {}, "involvedObject": {"name": "pay-x2k4q", "kind": "Pod"}, "lastTimestamp": "yesterday"},
    ]
    cluster.answers[EVENTS] = lambda q: (200, {"items": rows if q["fieldSelector"] == "type=Warning" else []})

    found = await collector.collect(scope())

    lines = [line for line in found.logs if line.logger == "kubernetes.events"]
    assert [((line.at - T0).total_seconds() // 60, line.count) for line in lines] == [
        (1, 1),
        (9, 11),
        (3, 1),
        (2, 1),
        (5, 2),
    ]
    assert {line.level for line in lines} == {"error"}
    assert lines[0].message == "BackOff: Back-off restarting failed container"
    assert "2 rows were not understood: kubectl get events -n shop --field-selector type=Warning" in details(found.gaps)
    assert [query["fieldSelector"] for query in cluster.to(EVENTS)] == ["type=Warning", "type!=Warning"]


async def test_an_event_that_goes_on_since_yesterday_is_no_rise(
    cluster: Cluster, collector: KubernetesCollector
) -> None:
    """Kubernetes tells only the first and the last time, and how many there were."""
    endless = event("pay-0", count=2401, firstTimestamp=at(-24 * 60), lastTimestamp=at(10))
    cluster.answers[EVENTS] = lambda q: (200, {"items": [endless] if q["fieldSelector"] == "type=Warning" else []})
    found = await collector.collect(scope())
    before, now = (sum(line.count for line in found.logs if w.start <= line.at < w.end) for w in (BASELINE, INCIDENT))
    assert (before, now) == (99, 17)  # 1.65 a minute, all the time


async def test_a_pod_that_was_evicted_long_ago_is_left_over(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.gives(DEPLOYMENT, DEPLOYED)
    pods: list[Json] = [
        {"metadata": {"name": f"pay-{ago}"}, "status": {"phase": "Failed", "reason": "Evicted", "startTime": at(-ago)}}
        for ago in (24 * 60, 5)
    ]
    cluster.gives(PODS, {"items": pods})
    found = await collector.collect(scope())
    failed = next(status for status in found.statuses if status.name == "kubernetes.failed_pods")
    assert failed.observed == 1
    assert "pay-5: Failed" in failed.detail


async def test_targets_of_one_namespace_share_its_events_and_the_longest_name_wins(
    cluster: Cluster, collector: KubernetesCollector
) -> None:
    cluster.gives(EVENTS, {"items": [event("pay-v2-7d9f8b6c54-x2k4q", lastTimestamp=at(3)), event("pay-0")]})
    pay, v2 = (
        Target(service=name, kubernetes=KubernetesWorkload(namespace="shop", workload=workload))
        for name, workload in (("payment", "pay"), ("payment-v2", "pay-v2"))
    )
    found = await collector.collect(scope(pay, v2))
    assert {line.component: line.instance for line in found.logs} == {
        "payment-v2": "pay-v2-7d9f8b6c54-x2k4q",
        "payment": "pay-0",
    }
    assert len(cluster.to(EVENTS)) == 2


async def test_lists_are_paged_and_an_expired_token_goes_on_with_the_new_one(
    cluster: Cluster, collector: KubernetesCollector
) -> None:
    def answer(query: dict[str, str]) -> tuple[int, Json]:
        match query.get("continue"):
            case None:
                return 200, {"metadata": {"continue": "old"}, "items": []}  # an empty page is not the last
            case "old":
                return 410, failure("The provided continue parameter is too old", **{"continue": "new"})
        return 200, {"metadata": {"continue": ""}, "items": [event("pay-0", lastTimestamp=at(2))]}

    cluster.answers[EVENTS] = answer
    found = await collector.collect(scope())
    assert [query.get("continue") for query in cluster.to(EVENTS)][:3] == [None, "old", "new"]
    assert len(found.logs) == 2
    assert "the list changed while it was read" in details(found.gaps)


async def test_an_endless_list_ends(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.gives(EVENTS, {"metadata": {"continue": "more"}, "items": [event("pay-0", lastTimestamp=at(2))]})
    found = await collector.collect(scope())
    assert len(cluster.to(EVENTS)) == 12
    assert "only the first 6 rows were read: kubectl get events" in details(found.gaps)
    assert [q.truncated for q in found.queries if "events" in q.text] == [True, True]


async def test_a_missing_permission_is_named_and_costs_nothing_else(
    cluster: Cluster, collector: KubernetesCollector
) -> None:
    cluster.gives(DEPLOYMENT, DEPLOYED)
    cluster.gives(PODS, failure('pods is forbidden: User "aiops" cannot list resource "pods"'), 403)
    found = await collector.collect(scope())
    [gap] = [gap for gap in found.gaps if gap.reason == GapReason.FORBIDDEN]
    assert 'User "aiops" cannot list resource "pods"' in gap.detail
    assert gap.mend == "let a Role allow the account to list pods in the namespace shop"
    assert {s.name for s in found.statuses} == {"kubernetes.ready_replicas", "kubernetes.updated_replicas"}


async def test_a_daemon_set_has_other_names_for_its_replicas(cluster: Cluster, collector: KubernetesCollector) -> None:
    status = {"desiredNumberScheduled": 5, "numberReady": 4, "updatedNumberScheduled": 5}
    cluster.gives(DAEMON, DEPLOYED | {"status": status})
    found = await collector.collect(scope())
    assert [(s.observed, s.expected) for s in found.statuses][:2] == [(4, 5), (5, 5)]
    assert "kubectl get controllerrevisions.apps -n shop -l app=pay" in {q.text for q in found.queries}


async def test_an_unknown_workload_names_the_catalogues_field(cluster: Cluster, collector: KubernetesCollector) -> None:
    found = await collector.collect(scope())
    assert "has no Deployment, StatefulSet or DaemonSet pay | correct kubernetes.namespace" in details(found.gaps)


async def test_a_workload_without_a_selector_does_not_select_all(
    cluster: Cluster, collector: KubernetesCollector
) -> None:
    cluster.gives(DEPLOYMENT, {"metadata": {"name": "pay"}, "spec": {}})
    found = await collector.collect(scope())
    assert not cluster.to(PODS)
    assert "has no selector" in details(found.gaps)


async def test_names_from_the_catalogue_stay_one_part_of_the_path(
    cluster: Cluster, collector: KubernetesCollector
) -> None:
    odd = Target(service="x", kubernetes=KubernetesWorkload(namespace="../../nodes?", workload="a/../b"))
    await collector.collect(scope(odd))
    assert "/apis/apps/v1/namespaces/..%2F..%2Fnodes%3F/deployments/a%2F..%2Fb" in {path for path, _ in cluster.asked}


async def test_refused_credentials_and_no_server_raise(cluster: Cluster, collector: KubernetesCollector) -> None:
    for path in (DEPLOYMENT, STATEFUL, DAEMON, EVENTS):
        cluster.gives(path, failure("Unauthorized"), 401)
    with pytest.raises(Forbidden) as refused:
        await collector.collect(scope())
    assert "renew the credentials" in refused.value.mend
    cluster.server.shutdown()
    cluster.server.server_close()
    with pytest.raises(Unreachable):
        await collector.collect(scope())


async def test_a_server_error_is_tried_once_more(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.answers[EVENTS] = lambda _: (
        (503, failure("etcd")) if len(cluster.to(EVENTS)) == 1 else (200, {"items": [event("pay-0")]})
    )
    found = await collector.collect(scope())
    assert found.logs


async def test_a_long_pause_is_not_waited_for(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.gives(DEPLOYMENT, DEPLOYED)
    cluster.gives(EVENTS, failure("slow down"), 429)
    cluster.extra_headers["Retry-After"] = "3600"
    found = await collector.collect(scope())
    assert GapReason.RATE_LIMITED in {gap.reason for gap in found.gaps}


async def test_a_redirect_is_not_followed(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.gives(DEPLOYMENT, DEPLOYED)
    cluster.gives(EVENTS, {}, 302)
    cluster.extra_headers["Location"] = "/elsewhere"
    await collector.collect(scope())
    assert not cluster.to("/elsewhere")


async def test_an_old_incident_without_events_says_how_long_they_are_kept(cluster: Cluster) -> None:
    class Later(FrozenClock):
        def now(self) -> datetime:
            return T0 + timedelta(days=1)

    collector = KubernetesCollector(Later(), Settings(kubeconfig=cluster.kubeconfig))
    found = await collector.collect(scope())
    await collector.aclose()
    assert "Kubernetes keeps them for an hour by default" in details(found.gaps)


async def test_check_names_every_permission(cluster: Cluster, collector: KubernetesCollector) -> None:
    cluster.gives("/api/v1/namespaces/default/pods", failure("no"), 403)
    checks = {check.name: check for check in await collector.check()}
    assert checks["list pods"].status == "failed"
    assert checks["list pods"].mend == "let a Role allow the account to list pods in the namespace default"
    assert checks["get deployments.apps"].status == "ok"
    assert checks["clock"].status == "ok"
    assert len(checks) == 10
    assert checks["get pods/log"].status == "ok"


async def test_a_broken_kubeconfig_is_told(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text("not: [a kubeconfig")
    collector = KubernetesCollector(FrozenClock(), Settings(kubeconfig=path))
    with pytest.raises(CollectorError, match="no way to the cluster"):
        await collector.collect(scope())


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs KUBERNETES_KUBECONFIG"):
        create(FrozenClock(), Declared())


# --- one question -------------------------------------------------------------------------------------------------


def stamped(minutes: float, text: str) -> str:
    moment = T0 + timedelta(minutes=minutes)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.123456789Z {text}\n"


def pod(name: str, *containers: Json, began: float = -60 * 24) -> Json:
    told = containers or ({"name": "app", "state": {"running": {}}},)
    return {"metadata": {"name": name}, "status": {"startTime": at(began), "containerStatuses": list(told)}}


def asks(words: str = "pool exhausted", component: str = "payment") -> LogsRead:
    return LogsRead(component=component, contains=words)


@pytest.fixture
def logging(cluster: Cluster) -> Cluster:
    """One pod of one container."""
    cluster.gives(DEPLOYMENT, DEPLOYED)
    cluster.gives(PODS, {"items": [pod("pay-0")]})
    return cluster


async def test_lines_that_hold_the_words_are_found_in_any_case(
    logging: Cluster, collector: KubernetesCollector
) -> None:
    logging.logs["pay-0", "app", False] = "".join(
        (
            stamped(-60.5, "pool exhausted, long before"),  # clocks differ: it is asked for
            stamped(-30, "WARN pool exhausted, before"),
            stamped(1, '{"level": "error", "msg": "Pool EXHAUSTED", "logger": "Hikari", "trace_id": "77"}'),
            stamped(2, "pool is fine"),
            stamped(3, "pool exhausted again"),
        )
    )
    found = await collector.read(asks(), scope())
    assert [(x.level, x.message, x.logger, x.instance, x.trace_id) for x in found.logs] == [
        ("warning", "WARN pool exhausted, before", "app", "pay-0", ""),
        ("error", "Pool EXHAUSTED", "Hikari", "pay-0", "77"),
        ("info", "pool exhausted again", "app", "pay-0", ""),
    ]
    assert {x.component for x in found.logs} == {"payment"}
    assert found.logs[1].at == T0 + timedelta(minutes=1, microseconds=123456)
    assert found.gaps == ()
    [asked] = [q for q in found.queries if q.kind == "logs"]
    assert asked.rows == 3
    assert asked.text == (
        "kubectl logs -n shop -l app=pay --all-containers --tail=-1 --timestamps --since-time=2024-12-20T08:00:00Z"
        " | grep -iF -- 'pool exhausted'"
    )
    assert logging.to(f"{PODS}/pay-0/log") == [
        {
            "container": "app",
            "previous": "False",
            "sinceSeconds": str(70 * 60 + 60),
            "limitBytes": str(LOG_BYTES),
            "timestamps": "True",
        }
    ]


async def test_what_a_container_said_before_it_was_started_again_is_read(
    logging: Cluster, collector: KubernetesCollector
) -> None:
    ended = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    containers: list[Json] = [
        {"name": "restarted", "state": {"running": {}}, "lastState": ended},
        {"name": "crashing", "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended},
        {"name": "starting", "state": {"waiting": {"reason": "ContainerCreating"}}},
    ]
    logging.gives(PODS, {"items": [pod("pay-0", *containers)]})
    for container, previous in (("restarted", False), ("restarted", True), ("crashing", False)):
        logging.logs["pay-0", container, previous] = stamped(1, f"pool exhausted {container} {previous}")
    found = await collector.read(asks(), scope())
    assert {x.message for x in found.logs} == {
        "pool exhausted restarted True",
        "pool exhausted restarted False",
        "pool exhausted crashing False",
    }
    assert len(logging.to(f"{PODS}/pay-0/log")) == 3  # that of one which is just starting is not there
    assert found.gaps == ()


async def test_a_log_that_is_too_large_is_read_from_the_incident_on(
    logging: Cluster, collector: KubernetesCollector
) -> None:
    noise = "".join(stamped(-40 + i / 1000, "x" * 1000) for i in range(5_000))
    early, late = stamped(-41, "pool exhausted before"), stamped(2, "pool exhausted now")
    logging.logs["pay-0", "app", False] = early + noise + late
    found = await collector.read(asks(), scope())
    assert [x.message for x in found.logs] == ["pool exhausted before", "pool exhausted now"]
    assert "pay-0/app: the log is larger than the 4,000,000 bytes" in details(found.gaps)
    assert [int(q["sinceSeconds"]) for q in logging.to(f"{PODS}/pay-0/log")] == [70 * 60 + 60, 10 * 60 + 60]


async def test_the_number_of_logs_is_bounded_and_those_of_containers_that_ended_come_first(
    logging: Cluster, collector: KubernetesCollector
) -> None:
    ended = {"name": "app", "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}}
    logging.gives(PODS, {"items": [*(pod(f"pay-{n}") for n in range(LOGS + 5)), pod("pay-last", ended)]})
    for n in range(LOGS + 5):
        logging.logs[f"pay-{n}", "app", False] = stamped(1, "pool exhausted")
    logging.logs["pay-last", "app", True] = stamped(1, "pool exhausted, and dead")
    found = await collector.read(asks(), scope())
    assert len(found.logs) == LOGS
    assert "pool exhausted, and dead" in {x.message for x in found.logs}
    assert f"only the logs of {LOGS} of {LOGS + 7} containers were read" in details(found.gaps)


async def test_a_log_that_cannot_be_read_costs_only_itself(logging: Cluster, collector: KubernetesCollector) -> None:
    logging.gives(PODS, {"items": [pod("pay-0"), pod("pay-1")]})
    logging.logs["pay-0", "app", False] = stamped(1, "pool exhausted")
    logging.gives(f"{PODS}/pay-1/log", failure("pods/log is forbidden"), 403)
    found = await collector.read(asks(), scope())
    assert len(found.logs) == 1
    [gap] = found.gaps
    assert gap.reason == GapReason.FORBIDDEN
    assert gap.detail.startswith("1 of 2 logs: kubectl logs -n shop pay-1 -c app: Kubernetes answered 403")
    assert gap.mend == "let a Role allow the account to get pods/log in the namespace shop"


async def test_logs_that_went_with_their_pods_are_no_silence(logging: Cluster, collector: KubernetesCollector) -> None:
    logging.gives(PODS, {"items": [pod("pay-9", began=5)]})
    logging.logs["pay-9", "app", False] = stamped(6, "all is well")
    found = await collector.read(asks(), scope())
    assert not found.rows
    assert "no pod of before the incident" in details(found.gaps)


async def test_what_the_catalogue_does_not_place_in_kubernetes_is_refused(
    logging: Cluster, collector: KubernetesCollector
) -> None:
    with pytest.raises(Refused, match="no workload of redis") as refused:
        await collector.read(asks(component="redis"), scope())
    assert refused.value.reason == GapReason.NOT_CONFIGURED
    with pytest.raises(Refused, match="no questions about trace"):
        await collector.read(TraceRead(trace_id="77"), scope())
    assert not logging.asked


@pytest.mark.parametrize("attack", ATTACKS)
async def test_words_are_sought_here_and_told_nobody(
    logging: Cluster, collector: KubernetesCollector, attack: str
) -> None:
    words = " ".join(attack.split())
    logging.logs["pay-0", "app", False] = "".join(
        (
            stamped(1, f"it said {words}"),
            stamped(2, json.dumps({"msg": f"IT SAID {words}"}, ensure_ascii=False)),
            stamped(3, json.dumps({"msg": f"It said {words}"})),
            stamped(4, "all is well, timeout of billing"),
        )
    )
    found = await collector.read(asks(attack), scope())
    assert [x.message for x in found.logs] == [f"{said} {words}" for said in ("it said", "IT SAID", "It said")]
    assert {path for path, _ in logging.asked} == {DEPLOYMENT, PODS, f"{PODS}/pay-0/log"}
    assert words not in str(logging.asked)
