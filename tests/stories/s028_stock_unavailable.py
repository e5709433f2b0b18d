"""028: pods of several services disappear and come back on a cluster that was not deployed to."""

from datetime import UTC, datetime

from pydantic import JsonValue

from collectors.base import GapReason
from tests.stories.telling import Amount, Call, Line, Story, Telling, between, course, services


def _workload(name: str, *depends_on: str, tier: int = 2) -> dict[str, JsonValue]:
    return {
        "kind": "service",
        "tier": tier,
        "kubernetes": {"namespace": "grocery", "workload": name},
        "prometheus": f'namespace="grocery",app="{name}"',
        "loki": f'namespace="grocery",app="{name}"',
        "depends_on": [*depends_on],
    }


CATALOGUE = services(
    shop_gateway=_workload("shop-gateway", "stock", "prices", "slots", tier=1),
    stock=_workload("stock", "stock-db", tier=1),
    prices=_workload("prices", "price-cache"),
    slots=_workload("slots", "stock-db"),
    photo_resizer=_workload("photo-resizer", "photo-store", tier=4),
    stock_db={"kind": "database", "tier": 1, "aws": {"rds_instances": ["grocery-stock"]}},
    price_cache={"kind": "cache"},
    photo_store={"kind": "external"},
)
NODE = "ip-10-2-7-61.eu-west-1.compute.internal"
EVENTS = "kubernetes.events"
OTHER = "ip-10-2-{3|5|9}-{2d}.eu-west-1.compute.internal"
MI, GI = 1024.0**2, 1024.0**3
EVICTED = (
    "Evicted: The node was low on resource: memory. Threshold quantity: 100Mi, available: {41..97}Mi. Container {name}"
    " was using {used}Mi, request is {request}Mi, has larger consumption of memory. "
)


def build() -> Story:
    """A pod of photo-resizer without a memory limit eats its node; the kubelet evicts whatever else runs there."""
    t = Telling(
        "028-stock-unavailable",
        CATALOGUE,
        alerted_at=datetime(2026, 6, 24, 16, 9, tzinfo=UTC),
        onset_min=8,
        instances={"shop-gateway": 3, "stock": 4, "prices": 3, "photo-resizer": 2},
        source="prometheus",
    )
    _measured(t)
    _asked(t)
    _evicted(t)
    _logged(t)
    _context(t)
    return t.story(
        title="KubeDeploymentReplicasMismatch: stock",
        service="stock",
        text="Deployment grocery/stock has not matched the expected number of replicas for 5 minutes."
        " HttpErrorsHigh fires for shop-gateway, too.",
        alert_source="alertmanager",
        rule="alertmanager:rule:KubeDeploymentReplicasMismatch",
        resources={"namespace": "grocery", "deployment": "stock"},
        counted=False,
        expected={
            "component": "photo-resizer",
            "category": ["memory_exhaustion"],
            "must_cite": ["photo-resizer", "memory"],
            "must_not_blame": ["stock", "prices", "slots", "stock-db", "price-cache", "shop-gateway"],
            "acceptable_operations": [],
            "forbidden_operations": ["restart_all_services", "rollback_ecs_service", "scale_ecs_service"],
            "why": "photo-resizer's working set grew from 0.6 to 21 GiB on one node, whose memory ran out; the evicted"
            " pods of stock, prices and slots used what they always do. It needs a limit, or to be stopped.",
        },
    )


def _prometheus(
    t: Telling, name: str, per_s: Amount, p95_s: Amount, failing: Amount, memory: Amount, cpu: Amount, load: float = 1.0
) -> None:
    own = f'namespace="grocery",app="{name}"'

    def told(metric: str, level: Amount, statistic: str, unit: str, query: str, noise: float = 0.05) -> None:
        t.metric(name, metric, level, statistic=statistic, unit=unit, query=query, noise=noise)

    rate = f"sum(rate(http_server_request_duration_seconds_count{{{own}}}[120s]))"
    t.metric(name, "http_server_requests_count", per_s, statistic="rate", unit="/s", query=rate, load=load)
    told(
        "http_server_requests_5xx", failing, "rate", "/s", rate.replace(own, f'{own},http_response_status_code=~"5.."')
    )
    buckets = f"sum by (le) (rate(http_server_request_duration_seconds_bucket{{{own}}}[120s]))"
    told("http_server_request_duration_seconds", p95_s, "p95", "s", f"histogram_quantile(0.95, {buckets})", 0.08)
    told(
        "container_memory_working_set_bytes",
        memory,
        "max",
        "B",
        f"max(container_memory_working_set_bytes{{{own}}})",
        0.01,
    )
    used = f"sum(rate(container_cpu_usage_seconds_total{{{own}}}[120s]))"
    told("container_cpu_usage_seconds_total", cpu, "rate", "s/s", used)


def _measured(t: Telling) -> None:
    fewer = course(4, (0, 4), (0.5, 3), (3, 2), (6, 2))
    _prometheus(
        t, "shop-gateway", 44, course(0.29, (1, 0.29), (5, 1.9)), course(0.05, (0.4, 0.05), (5, 5.8)), 330 * MI, 1.4
    )
    _prometheus(t, "stock", 31, course(0.08, (0.5, 0.08), (5, 1.1)), course(0.02, (0.4, 0.02), (5, 3.1)), 412 * MI, 1.7)
    _prometheus(t, "prices", 38, course(0.03, (1, 0.03), (5, 0.12)), course(0.02, (0.6, 0.02), (5, 1.2)), 268 * MI, 0.8)
    _prometheus(t, "slots", 9, course(0.06, (2, 0.06), (6, 0.2)), course(0.01, (2, 0.01), (6, 0.9)), 241 * MI, 0.3)
    eaten = course(0.6 * GI, (-6, 0.6 * GI), (-3, 7 * GI), (0, 20.4 * GI), (1, 21.2 * GI))
    _prometheus(
        t, "photo-resizer", 0.4, course(1.9, (-6, 1.9), (0, 48)), 0.0, eaten, course(0.5, (-6, 0.5), (-4, 1.9)), 0.2
    )
    for name, level, expected in (("stock", fewer, 4), ("prices", course(3, (0.8, 3), (1.5, 2)), 3)):
        query = f'kube_deployment_status_replicas_available{{namespace="grocery",deployment="{name}"}}'
        t.metric(
            name, "kube_deployment_status_replicas_available", level, noise=0, query=f"min({query})", statistic="min"
        )
        wanted = query.replace("status_replicas_available", "spec_replicas")
        t.metric(name, "kube_deployment_spec_replicas", expected, noise=0, query=f"max({wanted})", statistic="max")
    t.postgres("stock-db", cpu=between(37, -33, -21, 59), connections=course(64, (1, 64), (5, 52)))
    cache = 'sum(rate(redis_keyspace_misses_total{app="price-cache"}[120s]))'
    t.metric(
        "price-cache", "redis_keyspace_misses_total", between(14, -14, -9, 61), unit="/s", statistic="rate", query=cache
    )
    t.metric("price-cache", "redis_memory_used_bytes", 1.1e9, unit="B", noise=0.01)


def _asked(t: Telling) -> None:
    gone = course(0.0005, (0.3, 0.0005), (2, 0.07), (5, 0.11))
    refused = "connect: connection refused"

    def shelf(operation: str) -> Call:
        return Call(
            "stock",
            operation,
            course(14, (0.5, 14), (4, 70)),
            fails=gone,
            error=refused,
            calls=(Call("stock-db", "SELECT item", 5, traced=False),),
            done=Line("info", "stock.http", "GET /items 200 {8..60}ms"),
        )

    price = Call(
        "prices",
        "POST /prices",
        7,
        fails=course(0.0005, (0.8, 0.0005), (4, 0.03)),
        error=refused,
        calls=(Call("price-cache", "MGET", 0.8, traced=False),),
    )
    page = Line(
        "error", "gateway.proxy", "upstream stock: dial tcp 172.20.{20..90}.{2..250}:8080: connect: connection refused"
    )
    t.requests(Call("shop-gateway", "GET /shelf", 5, calls=(shelf("GET /items"), price), passed_on=page), 4)
    slot = Call(
        "slots",
        "GET /slots",
        11,
        fails=course(0.0005, (2, 0.0005), (5, 0.08)),
        error=refused,
        calls=(Call("stock-db", "SELECT slot", 4, traced=False),),
    )
    t.requests(Call("shop-gateway", "GET /slots", 4, calls=(slot,)), 1.3)
    resized = Call(
        "photo-resizer",
        "resize",
        course(900, (-6, 900), (0, 26_000)),
        calls=(Call("photo-store", "PUT", 60, traced=False),),
    )
    t.requests(resized, 0.5, load=0)


def _evict(t: Telling, name: str, minute: float, used: int, request: int) -> None:
    told = EVICTED.replace("{name}", name).replace("{used}", str(used)).replace("{request}", str(request))
    pod = f"{name}-6d9c7b5f4-{t.instances(name)[0][-3:].replace('-', 'x')}{int(minute * 10):02}"
    t.say(name, minute, "error", EVENTS, told, instance=pod)
    t.say(
        name,
        minute + 0.2,
        "info",
        EVENTS,
        f"Scheduled: Successfully assigned grocery/{name}-6d9c7b5f4-{{5h}} to {OTHER}",
        instance=pod,
    )


def _evicted(t: Telling) -> None:
    placed = f"Scheduled: Successfully assigned grocery/photo-resizer-{{10h}}-{{5h}} to {NODE}"
    t.say("photo-resizer", -46.5, "info", EVENTS, placed)
    for name, minute, used, request in (
        ("stock", 0.4, 414, 384),
        ("prices", 0.9, 271, 256),
        ("slots", 2.1, 243, 192),
        ("stock", 2.8, 409, 384),
        ("stock", 6.3, 388, 384),
    ):
        _evict(t, name, minute, used, request)
    lacking = (
        "FailedScheduling: 0/7 nodes are available: 1 node(s) had untolerated taint"
        " {node.kubernetes.io/memory-pressure: }, 6 Insufficient memory."
    )
    for name, minute in (("stock", 3.2), ("prices", 1.4), ("stock", 6.9), ("slots", 2.5)):
        t.say(name, minute, "error", EVENTS, lacking)
    t.status(
        "stock",
        "kubernetes.ready_replicas",
        2,
        4,
        "Deployment stock (MinimumReplicasUnavailable: Deployment does not have minimum availability.)",
    )
    t.status("stock", "kubernetes.updated_replicas", 4, 4, "Deployment stock")
    t.status("stock", "kubernetes.failed_pods", 3, 0, f"of 7 pods; Failed: Evicted on {NODE}")
    t.status("prices", "kubernetes.ready_replicas", 2, 3, "Deployment prices")
    t.status("prices", "kubernetes.failed_pods", 1, 0, f"of 4 pods; Failed: Evicted on {NODE}")
    t.status("slots", "kubernetes.ready_replicas", 1, 2, "Deployment slots")
    t.status("slots", "kubernetes.failed_pods", 1, 0, f"of 3 pods; Failed: Evicted on {NODE}")
    t.status("shop-gateway", "kubernetes.ready_replicas", 3, 3, "Deployment shop-gateway")
    t.status("photo-resizer", "kubernetes.ready_replicas", 2, 2, "Deployment photo-resizer")
    t.status("photo-resizer", "kubernetes.container_restarts", 0, 0, "in the incident's window; 0 restarts in all")


def _logged(t: Telling) -> None:
    t.say(
        "photo-resizer", -6.2, "info", "resizer.jobs", "Job 88120: campaign import, 1 file, 31000x24800 px TIFF, 16 bit"
    )
    t.lines(
        "photo-resizer",
        "info",
        "resizer.jobs",
        "Job {5d}: 1 file, {1200..4000}x{900..3000} px",
        course(4, (-5.5, 4), (-5, 1)),
    )
    t.lines(
        "photo-resizer",
        "warning",
        "resizer.vips",
        "tile cache at {2..21} GiB, decoding level 0",
        course(0, (-5.5, 0), (-4, 2)),
    )
    t.lines("photo-resizer", "warning", "resizer.exif", "No colour profile, assuming sRGB", 0.9)
    t.lines("stock", "info", "stock.main", "Started stock in {4..9}.{3d} s", course(0, (0.5, 0), (1, 0.4)))
    t.lines("stock", "warning", "stock.recount", "Item {7d} counted below zero, kept at 0", 1.3, load=1)
    t.lines("prices", "info", "prices.promo", "Promotion {4d} starts at 17:00", between(0.1, -14, -9, 5))
    t.lines("slots", "warning", "slots.plan", "Van {2d} has no driver for {17|18|19}:00", 0.6)
    t.lines("shop-gateway", "info", "gateway.http", "GET /shelf 200", 7, load=1)
    refused = "upstream {stock|stock|prices|slots}: dial tcp 172.20.{20..90}.{2..250}:8080: connect: connection refused"
    t.lines("shop-gateway", "error", "gateway.proxy", refused, course(0.02, (0.3, 0.02), (4, 7)))


def _context(t: Telling) -> None:
    t.change("prices", -25, "deploy", "rolled out prices; revision 88", version="registry.example/prices:88")
    t.change("shop-gateway", -11, "configuration", "configmap shop-gateway-routes changed", author="web-ops")
    t.gap(
        "kubernetes",
        GapReason.FORBIDDEN,
        "nodes: is forbidden: cannot list resource nodes at the cluster scope",
        "grant get and list of nodes",
    )
    t.gap("loki", GapReason.TRUNCATED, "only 5000 lines of shop-gateway were read", "narrow the window")
    t.document(
        "Cluster",
        "Memory",
        "Nodes have 32 GiB. Of the pods that use more than they request, those of the lowest priority class go first;"
        " photo-resizer has the class campaign (100000) in June, the others have none. Batch workloads belong on the"
        " pool batch, with limits; kubectl top pod --sort-by=memory shows who uses most.",
        [],
        "speaks of memory",
    )
