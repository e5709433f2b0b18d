"""From the shop's state to the metrics that Datadog holds: one value per tick and host, with ordinary jitter."""

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Literal

from app.simulator.payment import ORDER_VALUE_USD, Flow
from app.simulator.topology import SERVICES

if TYPE_CHECKING:
    from app.simulator.loads import Load
    from app.simulator.shop import Host, Tick

Metrics = dict[str, dict[str, dict[str, float]]]  # service -> metric -> host ("" for none) -> value
Unit = Literal["percent", "millisecond", "request/second", "error/minute", "dollar/minute", "transaction", "connection"]


@dataclass(frozen=True)
class MetricSpec:
    """What Datadog knows of a metric. Rates per minute are counts submitted as gauges."""

    name: str
    unit: Unit


CATALOGUE: dict[str, MetricSpec] = {
    spec.name: spec
    for spec in (
        MetricSpec("requests_per_second", "request/second"),
        MetricSpec("error_rate_percent", "percent"),
        MetricSpec("latency_p95_ms", "millisecond"),
        MetricSpec("cpu_utilization_percent", "percent"),
        MetricSpec("memory_utilization_percent", "percent"),
        MetricSpec("active_connections", "connection"),
        MetricSpec("db_connection_pool_utilization", "percent"),
        MetricSpec("db_connection_timeouts", "error/minute"),
        MetricSpec("redis_connection_errors", "error/minute"),
        MetricSpec("redis_memory_usage_percent", "percent"),
        MetricSpec("stripe_api_success_rate", "percent"),
        MetricSpec("transactions_pending", "transaction"),
        MetricSpec("revenue_lost_usd_per_minute", "dollar/minute"),
    )
}
HUNG_CPU = 99.0  # percent: one thread spins and none answers
ORDINARY_LOSS_USD = 4.0  # per minute: declined cards and abandoned carts


def metrics(tick: "Tick", random: Random) -> Metrics:
    """Everything the services report for one tick."""
    reported = {name: _service(name, load, tick, random) for name, load in tick.loads.items() if SERVICES[name].p95_ms}
    reported["payment-service"].update(_payment(tick.flow, tick.hosts["payment-service"], random))
    connections = tick.other_connections + tick.flow.slots_used
    reported["orders-db"]["active_connections"] = {"": round(random.gauss(connections, 0.6))}
    return reported


def _service(name: str, load: "Load", tick: "Tick", random: Random) -> dict[str, dict[str, float]]:
    hosts = [host.name for host in tick.hosts.get(name, [])] or [""]
    reported = {
        "requests_per_second": {"": _jitter(random, load.requests_per_s, 0.04)},
        "latency_p95_ms": {"": _jitter(random, load.p95_ms_told, 0.05)},
        "cpu_utilization_percent": {
            host: _percent(random, HUNG_CPU if host in load.hung_hosts else load.cpu_percent, 0.05) for host in hosts
        },
    }
    if load.memory_percent:
        by_host = dict(load.memory_by_host)
        reported["memory_utilization_percent"] = {
            host: _percent(random, by_host.get(host, load.memory_percent), 0.008) for host in hosts
        }
    if SERVICES[name].error_ratio:
        reported["error_rate_percent"] = {"": _percent(random, 100.0 * load.error_ratio, 0.06)}
    return reported


def _payment(flow: Flow, hosts: list["Host"], random: Random) -> dict[str, dict[str, float]]:
    utilization = 100.0 * flow.pool_utilization
    return {
        "db_connection_pool_utilization": {
            host.name: min(_jitter(random, utilization, 0.004 if utilization > 90 else 0.05), 100.0) for host in hosts
        },
        "db_connection_timeouts": {"": _jitter(random, 60.0 * flow.timeouts, 0.01)},
        "redis_connection_errors": {"": _jitter(random, 60.0 * flow.redis_errors, 0.01)},
        "redis_memory_usage_percent": {"": _percent(random, flow.redis_memory_percent, 0.001)},
        "stripe_api_success_rate": {
            "": min(_jitter(random, 100.0 * min(flow.stripe_success_ratio, 0.995), 0.004), 100.0)
        },
        "transactions_pending": {"": round(_jitter(random, flow.pending, 0.008))},
        "revenue_lost_usd_per_minute": {
            "": _jitter(random, 60.0 * flow.lost * ORDER_VALUE_USD, 0.008) + random.uniform(0.0, ORDINARY_LOSS_USD)
        },
    }


def _jitter(random: Random, value: float, share: float) -> float:
    return max(value * random.gauss(1.0, share), 0.0)


def _percent(random: Random, value: float, share: float) -> float:
    return min(_jitter(random, value, share), 100.0)
