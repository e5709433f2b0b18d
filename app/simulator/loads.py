"""How busy each service is: requests, errors, latency, processor and memory, from the shop's state."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from app.simulator.cluster import EcsService, Task
from app.simulator.payment import HELD_S, POOL_WAIT_S, Flow, Payments
from app.simulator.topology import SERVICES, ServiceSpec
from app.simulator.world import World

PAYMENT_CALL_TIMEOUT_MS = 5200.0  # checkout gives up on a payment call after about this long
COLD_S = 60.0  # a new task is warm after about this long
PAYS = 1 / 3  # share of checkout's requests that pay
HANGS_MS = 10_000.0  # callers give up on a task that does not answer after so long
CROWDED = 0.95  # of what a service can serve; above it requests wait
WAITS = 9.0  # times the ordinary latency that a full queue adds
MEMORY_SHORT, MEMORY_FULL = 90.0, 96.0  # percent; between the two ever more time goes into collecting garbage
BREAKS_WITHOUT_MEMORY = 0.45  # share of requests
BREAKS_WITH_FLAG = 0.42  # share of requests that take the new search, which has no index yet
BREAKS_WHEN_DYING = 0.8  # share of the requests to a task that is about to end
CACHE_MISSED, CACHE_WARM_S = 0.1, 180.0  # share of lookups that a warm local cache misses, and how soon one is warm

Kind = Literal["defect", "exits", "hung", "crowded", "memory", "flag", "disk", "turned_away"]
Surge = Callable[[str], float]
"""By service: 0 is ordinary traffic, 1 the tripled one."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a share of a service's requests fails, told by what breaks in it."""

    kind: Kind
    share: float


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
    turned_away_ratio: float = 0.0  # of those that came, by the load balancer's rules before it
    troubles: tuple[Trouble, ...] = ()
    memory_by_host: tuple[tuple[str, float], ...] = ()
    hung_hosts: tuple[str, ...] = ()
    hung_ratio: float = 0.0  # of its requests that hang until their caller gives up

    @property
    def p95_ms_told(self) -> float:
        """Of all requests; ``p95_ms`` is of those that get an answer."""
        return max(self.p95_ms, HANGS_MS) if self.hung_ratio > 0.05 else self.p95_ms


def loads(world: World, flow: Flow, surge: Surge, at: float) -> dict[str, Load]:
    """Every service's load. Callees first: what fails or waits there is felt by their callers."""
    base = {name: _own_load(spec, world, surge(name), at) for name, spec in SERVICES.items()}
    base["payment-service"] = _payment(base["payment-service"], flow)
    base["checkout"] = _checkout(base["checkout"], flow, base)
    base["web-gateway"] = _gateway(base["web-gateway"], base)
    base["orders-db"] = _orders_db(base["orders-db"], flow, world, at)
    base["redis"] = _redis(base["redis"], flow)
    base["reporting"] = _reporting(base["reporting"], world, at)
    return base


def _requests(spec: ServiceSpec, world: World, surge: float) -> tuple[float, float]:
    """Requests a second that reach it, and the share that was turned away before."""
    through = {"web-gateway": ("web-gateway",), "reporting": ()}.get(spec.name, ("web-gateway", spec.name))
    if spec.name == "notification":
        through = ("web-gateway", "checkout")
    kept = world.balancer.kept(through)
    return spec.requests_per_s * (1.0 + (spec.surge - 1.0) * surge) * kept, 1.0 - kept


def _own_load(spec: ServiceSpec, world: World, surge: float, at: float) -> Load:
    """The service as if its callees were well."""
    requests, turned_away = _requests(spec, world, surge)
    service = world.cluster.services.get(spec.name)
    growth = requests / spec.requests_per_s - 1.0 if spec.requests_per_s else 0.0
    if service is None:
        return Load(requests, spec.error_ratio, spec.p95_ms, spec.cpu_percent, spec.memory_percent)
    running = service.running(at)
    if not running:
        return Load(requests, 1.0, 0.0, 0.0, 0.0, service.desired, turned_away_ratio=turned_away)
    strain = max(growth, 0.0) * sum(math.exp((t.running_at - at) / COLD_S) for t in running) / len(running)
    utilization = _utilization(spec, world, running, growth, at)
    troubles = tuple(t for t in _troubles(spec, world, service, utilization, at) if t.share > 0.0)
    failing = 1.0 - math.prod(1.0 - trouble.share for trouble in troubles)
    crowd = spec.tasks / len(running)  # the same requests on fewer or more tasks
    cpu = spec.cpu_percent * (0.55 + 0.45 * (1.0 + growth)) ** 0.75 * crowd**0.6 * (1.0 + 0.3 * strain)
    memory = {t.host: _memory(spec, world, t, growth, at) for t in running}
    return Load(
        requests_per_s=requests,
        error_ratio=min(spec.error_ratio + 0.06 * strain + failing, 1.0),
        p95_ms=_p95(spec, world, troubles, strain, utilization, at),
        cpu_percent=min(max(cpu, 88.0 * min(utilization, 1.08) if utilization > CROWDED else 0.0), 96.0),
        memory_percent=sum(memory.values()) / len(memory),
        desired=service.desired,
        running=len(running),
        healthy=sum(not task.unhealthy for task in running),
        turned_away_ratio=turned_away,
        troubles=troubles,
        memory_by_host=tuple(memory.items()),
        hung_hosts=tuple(t.host for t in running if t.hung),
        hung_ratio=sum(t.hung for t in running) / len(running),
    )


def _utilization(spec: ServiceSpec, world: World, running: Sequence[Task], growth: float, at: float) -> float:
    """Work that comes, of what the tasks can do; one that hangs keeps drawing its share of it."""
    cold = sum(math.exp((t.running_at - at) / CACHE_WARM_S) for t in running) / len(running)
    work = 1.0 + world.miss_cost.get(spec.name, 0.0) * (CACHE_MISSED + (1.0 - CACHE_MISSED) * cold)
    return (1.0 + growth) * work * spec.tasks / len(running) / spec.headroom


def _memory(spec: ServiceSpec, world: World, task: Task, growth: float, at: float) -> float:
    """Of one task, percent."""
    leaked = world.cluster.defect(task).leak_percent_per_min * max(at - task.running_at, 0.0) / 60.0
    return min(spec.memory_percent + 2.0 * growth + leaked, max(MEMORY_FULL, spec.memory_percent + 2.0 * growth))


def _short_of_memory(spec: ServiceSpec, world: World, running: Sequence[Task], at: float) -> float:
    """0 to 1, the mean over its tasks."""
    short = [(_memory(spec, world, t, 0.0, at) - MEMORY_SHORT) / (MEMORY_FULL - MEMORY_SHORT) for t in running]
    return sum(min(max(share, 0.0), 1.0) for share in short) / len(short)


def _troubles(spec: ServiceSpec, world: World, service: EcsService, utilization: float, at: float) -> Iterator[Trouble]:
    running = service.running(at)
    yield Trouble("defect", sum(world.cluster.defect(t).error_ratio for t in running) / len(running))
    tasks = service.tasks  # requests meet those that start and those that end
    dying = sum(world.cluster.defect(t).dies_after_s is not None for t in tasks) / len(tasks)
    yield Trouble("exits", BREAKS_WHEN_DYING * dying)
    yield Trouble("hung", sum(t.hung for t in running) / len(running))
    yield Trouble("crowded", max(1.0 - 1.0 / utilization, 0.0))
    yield Trouble("memory", BREAKS_WITHOUT_MEMORY * _short_of_memory(spec, world, running, at))
    if spec.name == "catalogue" and world.flags.enabled("semantic_search", at):
        yield Trouble("flag", BREAKS_WITH_FLAG)
    for disturbance in world.disturbances:
        if disturbance.service == spec.name and disturbance.start <= at < disturbance.end:
            yield Trouble(disturbance.kind, disturbance.error_ratio)


def _p95(
    spec: ServiceSpec, world: World, troubles: Sequence[Trouble], strain: float, utilization: float, at: float
) -> float:
    shares = {trouble.kind: trouble.share for trouble in troubles}
    slower = [d.slower for d in world.disturbances if d.service == spec.name and d.start <= at < d.end]
    waits = WAITS * min(max(utilization - CROWDED, 0.0) / (1.2 - CROWDED), 1.0)
    garbage = 12.0 * shares.get("memory", 0.0)
    return spec.p95_ms * (1.0 + 0.9 * strain) * (1.0 + waits + garbage) * math.prod(slower)


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


def _excess(load: Load, name: str) -> tuple[float, float]:
    """How many more of its requests fail than ordinarily, and how many ms longer they take."""
    spec = SERVICES[name]
    return max(load.error_ratio - spec.error_ratio, 0.0), max(load.p95_ms - spec.p95_ms, 0.0)


def _sent_elsewhere(callee: Load, gateway: Load) -> float:
    """Share of the calls to it that its own rule sends to the overflow page."""
    return 1.0 - (1.0 - callee.turned_away_ratio) / max(1.0 - gateway.turned_away_ratio, 1e-6)


def _checkout(load: Load, flow: Flow, base: dict[str, Load]) -> Load:
    payment, cart = base["payment-service"], base["cart"]
    lost = PAYS * flow.lost / flow.arrivals if flow.arrivals > 0 else 0.0
    failing, longer = _excess(cart, "cart")
    no_basket = 1.0 - (1.0 - failing) * (1.0 - _sent_elsewhere(cart, base["web-gateway"]))
    waits = min(0.3 * max(payment.p95_ms - SERVICES["payment-service"].p95_ms, 0.0), PAYMENT_CALL_TIMEOUT_MS)
    return replace(
        load,
        error_ratio=min(load.error_ratio + lost + no_basket, 1.0),
        p95_ms=load.p95_ms + waits + (0.5 * longer if longer > 0.5 * SERVICES["cart"].p95_ms else 0.0),
    )


def _gateway(load: Load, base: dict[str, Load]) -> Load:
    """It feels whatever it calls; the page that a callee's rule shows instead is an error to it."""
    if not load.requests_per_s:
        return load
    checkout = base["checkout"]
    felt = checkout.requests_per_s / load.requests_per_s * _excess(checkout, "checkout")[0]
    waits, hung = 0.2 * _excess(checkout, "checkout")[1], 0.0
    for name in ("cart", "catalogue"):
        callee = base[name]
        share = callee.requests_per_s / load.requests_per_s
        failing, longer = _excess(callee, name)
        away = _sent_elsewhere(callee, load)
        felt += share * failing + SERVICES[name].requests_per_s / SERVICES["web-gateway"].requests_per_s * away
        waits += 0.8 * longer if longer > 0.5 * SERVICES[name].p95_ms else 0.0
        hung += share * callee.hung_ratio
    return replace(
        load,
        error_ratio=min(load.error_ratio + felt, 1.0),
        p95_ms=load.p95_ms + waits,
        hung_ratio=max(load.hung_ratio, hung),
    )


def _orders_db(load: Load, flow: Flow, world: World, at: float) -> Load:
    payments: Payments = world.payments
    cpu = load.cpu_percent + 6.0 * max(flow.arrivals - 1.0, 0.0) + 20.0 * (flow.miss_ratio - 0.03)
    missing = sum(pool.missing for pool in payments.pools.values()) / max(len(payments.pools), 1)
    if not world.database.available(at):
        return replace(load, requests_per_s=0.0, cpu_percent=4.0, p95_ms=30_000.0)
    if world.database.scanned(at, world.tasks(at)):
        cpu += 57.0
    delay = world.database_delay(at)
    return replace(
        load, cpu_percent=min(cpu + 60.0 * missing, 97.0), p95_ms=load.p95_ms * (1.0 + 4.0 * missing) * delay
    )


def _redis(load: Load, flow: Flow) -> Load:
    if not flow.met.cache_answers:
        return replace(load, requests_per_s=0.4 * flow.attempts, p95_ms=2000.0, cpu_percent=2.0)
    return replace(
        load,
        requests_per_s=SERVICES["redis"].requests_per_s * flow.attempts,
        cpu_percent=load.cpu_percent + 5.0 * max(flow.attempts - 1.0, 0.0),
    )


def _reporting(load: Load, world: World, at: float) -> Load:
    """Its job waits for the database, and works hard where it has more to do."""
    delay = world.database_delay(at)
    scans = world.database.scanned(at, world.tasks(at))
    return replace(
        load,
        p95_ms=load.p95_ms * delay,
        cpu_percent=min(load.cpu_percent * 1.9, 96.0) if scans else load.cpu_percent,
    )
