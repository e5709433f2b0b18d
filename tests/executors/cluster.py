"""A small Kubernetes API server: one Deployment, its history, its autoscaler; it speaks the API's JSON over HTTP."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
NAMESPACE, NAME, UID = "shop", "pay", "u-1"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}"


def template(image: str, **annotations: str) -> Json:
    """A pod template."""
    return {
        "metadata": {"labels": {"app": "pay"}, "annotations": {"team": "payments", **annotations}},
        "spec": {"containers": [{"name": "pay", "image": image, "env": [{"name": "TOKEN", "value": "s3cret"}]}]},
    }


def replica_set(revision: int, image: str, **annotations: str) -> Json:
    """What the Deployment's controller keeps of a template."""
    kept = template(image, **annotations)
    kept["metadata"]["labels"]["pod-template-hash"] = f"h{revision}"
    return {
        "metadata": {
            "name": f"pay-h{revision}",
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"uid": UID, "kind": "Deployment", "name": NAME}],
        },
        "spec": {"replicas": 0, "template": kept},
    }


def autoscaler(least: int, most: int, **meta: object) -> Json:
    """A HorizontalPodAutoscaler of the Deployment."""
    return {
        "metadata": {"name": "pay-hpa", "resourceVersion": "7", **meta},
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", "name": NAME},
            "minReplicas": least,
            "maxReplicas": most,
        },
    }


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    content_type: str
    body: Any

    @property
    def dry(self) -> bool:
        """A dry run."""
        return self.query.get("dryRun") == ["All"]


@dataclass
class FakeCluster:
    """What the API server holds, and the requests it got."""

    deployment: Json = field(
        default_factory=lambda: {
            "metadata": {"name": NAME, "uid": UID, "generation": 3, "resourceVersion": "100"},
            "spec": {"replicas": 4, "template": template("pay:2"), "strategy": {"type": "RollingUpdate"}},
            "status": {
                "observedGeneration": 3,
                "replicas": 4,
                "updatedReplicas": 4,
                "availableReplicas": 4,
                "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
            },
        }
    )
    replica_sets: list[Json] = field(default_factory=lambda: [replica_set(1, "pay:1"), replica_set(2, "pay:2")])
    autoscalers: list[Json] = field(default_factory=list)
    budgets: list[Json] = field(default_factory=list)
    quotas: list[Json] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)  # verb resource
    refusals: dict[tuple[str, bool], tuple[int, str]] = field(default_factory=dict)  # by method and dry run
    vanish_on: str = ""  # the method after which the connection ends without an answer
    requests: list[Request] = field(default_factory=list)
    rolls_out: bool = True

    def writes(self) -> list[Request]:
        """The changes that were asked for, without dry runs."""
        return [r for r in self.requests if r.method == "PATCH" and not r.dry]

    def answer(self, request: Request) -> tuple[int, Json]:
        """Status and body."""
        if refusal := self.refusals.get((request.method, request.dry)):
            return refusal[0], {"kind": "Status", "message": refusal[1]}
        if request.method == "POST":
            return 201, {"status": {"allowed": self._allowed(request.body["spec"]["resourceAttributes"])}}
        if request.method == "PATCH":
            return self._patched(request)
        return self._read(request.path)

    def _allowed(self, attributes: Json) -> bool:
        return f"{attributes['verb']} {attributes['resource']}" not in self.forbidden

    def _read(self, path: str) -> tuple[int, Json]:
        lists = {"replicasets": self.replica_sets, "horizontalpodautoscalers": self.autoscalers}
        lists |= {"poddisruptionbudgets": self.budgets, "resourcequotas": self.quotas}
        last = path.rpartition("/")[2]
        if last in lists:
            return 200, {"items": lists[last]}
        named = [self.deployment, *self.replica_sets]
        found = next((o for o in named if o["metadata"]["name"] == last), None)
        return (200, found) if found else (404, {"kind": "Status", "message": f'"{last}" not found'})

    def _patched(self, request: Request) -> tuple[int, Json]:
        target = self.autoscalers[0] if "horizontalpodautoscalers" in request.path else self.deployment
        changed = deepcopy(target)
        try:
            _apply(changed, request)
        except Conflict as error:
            return error.status, {"kind": "Status", "message": str(error)}
        if not request.dry:
            if changed["spec"] != target["spec"]:
                changed["metadata"]["generation"] = target["metadata"].get("generation", 0) + 1
            target.clear()
            target.update(changed)
            self.roll_out()
        return 200, changed

    def roll_out(self) -> None:
        """All pods are as the Deployment wants them, at once; an autoscaler keeps its minimum."""
        if not self.rolls_out:
            return
        spec = self.deployment["spec"]
        for scaler in self.autoscalers:
            spec["replicas"] = max(spec["replicas"], scaler["spec"]["minReplicas"])
        count = spec["replicas"]
        counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), count)
        conditions = [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}]
        generation = self.deployment["metadata"]["generation"]
        self.deployment["status"] = {"observedGeneration": generation, "conditions": conditions, **counts}


class Conflict(Exception):
    """The object is another than the patch was made for."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _apply(target: Json, request: Request) -> None:
    if request.content_type == "application/json-patch+json":
        for operation in request.body:
            _step(target, operation)
        return
    assert request.content_type == "application/strategic-merge-patch+json"
    version = request.body.get("metadata", {}).get("resourceVersion")
    if version not in (None, target["metadata"]["resourceVersion"]):
        raise Conflict(409, "the object has been modified; please apply your changes to the latest version")
    _merge(target, request.body)


def _merge(target: Json, patch: Json) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


def _step(target: Json, operation: Json) -> None:
    *way, last = operation["path"].strip("/").split("/")
    at = target
    for key in way:
        at = at[key]
    if operation["op"] == "test" and at.get(last) != operation["value"]:
        raise Conflict(422, f"testing value {operation['path']} failed: test failed")
    if operation["op"] != "test":
        at[last] = operation["value"]


@contextmanager
def serving(cluster: FakeCluster) -> Iterator[str]:
    """The server's address."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            parts, length = urlsplit(self.path), int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            kind = self.headers.get("Content-Type", "")
            request = Request(self.command, parts.path, parse_qs(parts.query), kind, body)
            cluster.requests.append(request)
            status, answer = cluster.answer(request)
            if self.command == cluster.vanish_on:
                self.close_connection = True
                return
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Audit-Id", f"audit-{len(cluster.requests)}")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = _serve  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def kubeconfig(folder: Path, url: str) -> Path:
    """A kubeconfig whose only context leads to ``url``."""
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "local",
        "clusters": [{"name": "local", "cluster": {"server": url}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "local"}}],
        "users": [{"name": "local", "user": {"token": "t0ken"}}],
    }
    path.write_text(json.dumps(content))  # JSON is YAML
    return path
