"""How busy each service is: requests, errors, latency, processor and memory, from the shop's state."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.simulator.balancer import Balancer
from app.simulator.cluster import Cluster, EcsService
from app.simulator.payment import HELD_S, POOL_WAIT_S, Flow, Payments
from app.simulator.topology import SERVICES, ServiceSpec

PAYMENT_CALL_TIMEOUT_MS = 5200.0  # checkout gives up on a payment call after about this long
COLD_S = 60.0  # a new task is warm after about this long
PAYS = 1 / 3  # share of checkout's requests that pay


@dataclass(frozen=True, slots=True)
class Load:
    """One service during one tick."""

    requests_per_s: float
    error_ratio: float
    p95_ms: float
    cpu_percent: float
    memory_percent: float
    desired: int = 0
    running: int = 0
    healthy: int = 0


def loads(
    cluster: Cluster,
    balancer: Balancer,
    flow: Flow,
    payments: Payments,
    surge: float,
    faults: Mapping[str, float],
    at: float,
) -> dict[str, Load]:
    """Every service's load. Callees first: what fails or waits there is felt by their callers."""
    base = {
        name: _own_load(spec, cluster.services.get(name), _requests(spec, balancer, surge), faults, at)
        for name, spec in SERVICES.items()
    }
    base["payment-service"] = _payment(base["payment-service"], flow)
    base["checkout"] = _checkout(base["checkout"], flow, base["payment-service"])
    base["web-gateway"] = _gateway(base["web-gateway"], base["checkout"], base["payment-service"])
    base["orders-db"] = _orders_db(base["orders-db"], flow, payments)
    base["redis"] = _redis(base["redis"], flow)
    return base


def _requests(spec: ServiceSpec, balancer: Balancer, surge: float) -> float:
    through = {"web-gateway": ("web-gateway",), "reporting": ()}.get(spec.name, ("web-gateway", spec.name))
    if spec.name == "notification":
        through = ("web-gateway", "checkout")
    return spec.requests_per_s * (1.0 + (spec.surge - 1.0) * surge) * balancer.kept(through)


def _own_load(
    spec: ServiceSpec, service: EcsService | None, requests: float, faults: Mapping[str, float], at: float
) -> Load:
    """The service as if its callees were well."""
    growth = requests / spec.requests_per_s - 1.0 if spec.requests_per_s else 0.0
    if service is None:
        return Load(requests, spec.error_ratio, spec.p95_ms, spec.cpu_percent, spec.memory_percent)
    running = service.running(at)
    if not running:
        return Load(requests, 1.0, 0.0, 0.0, 0.0, service.desired)
    strain = max(growth, 0.0) * sum(math.exp((t.running_at - at) / COLD_S) for t in running) / len(running)
    faulty = sum(faults.get(f"{spec.name}:{t.definition.version}", 0.0) for t in running) / len(running)
    crowd = spec.tasks / len(running)  # the same requests on fewer or more tasks
    cpu = spec.cpu_percent * (0.55 + 0.45 * (1.0 + growth)) ** 0.75 * crowd**0.6 * (1.0 + 0.3 * strain)
    return Load(
        requests_per_s=requests,
        error_ratio=min(spec.error_ratio + 0.06 * strain + faulty, 1.0),
        p95_ms=spec.p95_ms * (1.0 + 0.9 * strain),
        cpu_percent=min(cpu, 96.0),
        memory_percent=spec.memory_percent + 2.0 * growth,
        desired=service.desired,
        running=len(running),
        healthy=sum(not task.unhealthy for task in running),
    )


def _payment(load: Load, flow: Flow) -> Load:
    late = min(1.0, flow.timeouts / flow.attempts / 0.05) if flow.attempts > 0 else 0.0
    slow = load.p95_ms * max(flow.held_s / HELD_S, 0.9)
    return replace(
        load,
        requests_per_s=flow.attempts,
        error_ratio=min(load.error_ratio + max(flow.failed_ratio, 0.0), 1.0),
        p95_ms=min(slow + 1000.0 * POOL_WAIT_S * late, 1000.0 * POOL_WAIT_S + load.p95_ms),
        cpu_percent=load.cpu_percent * (1.0 - 0.2 * late),  # waiting threads need no processor
    )


def _checkout(load: Load, flow: Flow, payment: Load) -> Load:
    lost = PAYS * flow.lost / flow.arrivals if flow.arrivals > 0 else 0.0
    waits = min(0.3 * max(payment.p95_ms - SERVICES["payment-service"].p95_ms, 0.0), PAYMENT_CALL_TIMEOUT_MS)
    return replace(load, error_ratio=min(load.error_ratio + lost, 1.0), p95_ms=load.p95_ms + waits)


def _gateway(load: Load, checkout: Load, payment: Load) -> Load:
    share = checkout.requests_per_s / load.requests_per_s if load.requests_per_s else 0.0
    felt = share * max(checkout.error_ratio - SERVICES["checkout"].error_ratio, 0.0)
    waits = 0.2 * max(checkout.p95_ms - SERVICES["checkout"].p95_ms, 0.0)
    return replace(load, error_ratio=min(load.error_ratio + felt, 1.0), p95_ms=load.p95_ms + waits)


def _orders_db(load: Load, flow: Flow, payments: Payments) -> Load:
    cpu = load.cpu_percent + 6.0 * max(flow.arrivals - 1.0, 0.0) + 20.0 * (flow.miss_ratio - 0.03)
    missing = sum(pool.missing for pool in payments.pools.values()) / max(len(payments.pools), 1)
    return replace(load, cpu_percent=min(cpu + 60.0 * missing, 97.0), p95_ms=load.p95_ms * (1.0 + 4.0 * missing))


def _redis(load: Load, flow: Flow) -> Load:
    return replace(
        load,
        requests_per_s=SERVICES["redis"].requests_per_s * flow.attempts,
        cpu_percent=load.cpu_percent + 5.0 * max(flow.attempts - 1.0, 0.0),
    )
