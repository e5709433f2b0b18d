"""A storm of Datadog deliveries about a shop, and the truth about each of them: what really happened.

Two services fail and take their callers with them, hop by hop; meanwhile disks fill up, certificates expire and jobs
are late, as on any day. Everything is drawn from a seed. What the monitors watch, and how they are titled and grouped,
is how people set monitors up; nothing here knows how alerts are correlated.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from app.intake.datadog import EXAMPLE

DUPLICATES, RECOVERIES = 0.3, 0.1  # of all deliveries; what is left are triggers and reminders
RECOVERS, FLAPS = 0.5, 0.2  # of all alerts
# As shares of the storm: until a caller notices, how far apart the monitors of one service are, when it is sent again.
HOP, SPREAD, SENT_AGAIN = (0.03, 0.1), 0.13, 0.08
ORG = "1325540"

Said = Literal["Triggered", "Renotify", "Recovered"]

CALLS: Mapping[str, Sequence[str]] = {
    "web-gateway": ("checkout", "cart", "catalog", "account"),
    "mobile-bff": ("checkout", "catalog", "account"),
    "checkout": ("payment", "inventory", "notification"),
    "catalog": ("search", "inventory"),
    "payment": ("orders-db",),
    "inventory": ("stock-db",),
    "cart": (),
    "account": (),
    "search": (),
    "notification": (),
    "orders-db": (),
    "stock-db": (),
}
# The endpoints that each service's monitors are grouped by, and whom such a request needs.
ENDPOINTS: Mapping[str, Mapping[str, str]] = {
    "web-gateway": {
        "post_/orders": "checkout",
        "post_/coupons": "checkout",
        "get_/products": "catalog",
        "get_/search": "catalog",
        "get_/cart": "cart",
        "post_/login": "account",
    },
    "mobile-bff": {
        "post_/v2/orders": "checkout",
        "get_/v2/home": "catalog",
        "get_/v2/search": "catalog",
        "post_/v2/login": "account",
    },
    "checkout": {"post_/checkout": "payment", "get_/shipping-options": "inventory", "post_/confirm": "payment"},
    "catalog": {"get_/products": "inventory", "get_/search": "search", "get_/suggest": "search"},
    "payment": {"post_/authorize": "orders-db", "post_/capture": "orders-db", "post_/refund": "orders-db"},
    "inventory": {"get_/stock": "stock-db", "post_/reserve": "stock-db"},
    "cart": {"get_/cart": "", "put_/cart": ""},
    "account": {"post_/login": "", "get_/profile": ""},
    "search": {"get_/search": "", "get_/suggest": ""},
    "notification": {"post_/mail": "", "post_/push": ""},
}
FAULTS: Mapping[str, float] = {"orders-db": 0.1, "search": 0.2}  # the service, and when, as a share of the storm


@dataclass(frozen=True)
class Watched:
    """What is watched of every service of a kind."""

    title: str
    metric: str
    by: str = ""  # the tag that its alerts are grouped by; ``instance`` is a host or a pod
    priority: str = "P3"
    spreads: bool = True  # callers of a service that fails see it too


OF_SERVICES = (
    Watched("{} error rate is high", "trace.http.request.errors", priority="P1"),
    Watched("{} returns 5xx on an endpoint", "trace.http.request.errors.by_http_status", "resource_name", "P2"),
    Watched("{} median latency above baseline", "trace.http.request.duration.by.service.50p"),
    Watched("{} p95 latency above 800 ms", "trace.http.request.duration.by.resource.95p", "resource_name", "P2"),
    Watched("{} p99 latency above 2 s", "trace.http.request.duration.by.service.99p", priority="P2"),
    Watched("{} Apdex below 0.85", "trace.http.request.apdex.by.service"),
    Watched("{} request rate dropped", "trace.http.request.hits"),
    Watched("{} availability SLO burns 14 times too fast", "slo.burn_rate", priority="P1"),
    Watched("{} anomalous number of error logs", "logs.errors"),
    Watched("{} upstream timeouts", "envoy.cluster.upstream_rq_timeout.count", priority="P2"),
    Watched("{} CPU above 90 %", "container.cpu.usage", "instance", spreads=False),
    Watched("{} memory above 90 %", "container.memory.usage", "instance", spreads=False),
    Watched("{} restarts too often", "kubernetes.containers.restarts", "instance", spreads=False),
    Watched("{} connection pool is exhausted", "hikaricp.connections.pending", "instance", "P2"),
    Watched("{} worker threads are all busy", "jvm.thread_count", "instance"),
)
OF_DATABASES = (
    Watched("{} connections above 90 % of the maximum", "postgresql.percent_usage_connections", "instance", "P1"),
    Watched("{} replication lag above 30 s", "postgresql.replication_delay", "instance", "P2"),
    Watched("{} CPU above 90 %", "system.cpu.user", "instance"),
    Watched("{} memory above 90 %", "system.mem.pct_usable", "instance"),
    Watched("{} IO wait is high", "system.cpu.iowait", "instance"),
    Watched("{} load is high", "system.load.norm.5", "instance"),
    Watched("{} too many locks", "postgresql.locks", "instance", "P2"),
    Watched("{} buffer cache hit ratio is low", "postgresql.buffer_hit", "instance"),
    Watched("{} deadlocks", "postgresql.deadlocks.count", priority="P2"),
    Watched("{} slow queries", "postgresql.queries.duration.max", priority="P2"),
    Watched("{} transactions stay open for minutes", "postgresql.transactions.open"),
    Watched("{} rollback rate is high", "postgresql.rollbacks"),
    Watched("{} checkpoints are requested too often", "postgresql.bgwriter.checkpoints_requested"),
    Watched("{} does not answer health checks", "postgres.can_connect", priority="P1"),
    Watched("{} anomalous number of error logs", "logs.errors"),
)


@dataclass(frozen=True)
class Monitor:
    """One of Datadog's monitors."""

    id: str
    title: str
    metric: str
    by: str = ""
    priority: str = "P3"
    service: str = ""  # its tag
    env: str = "production"


# What goes wrong on its own: monitors that tell of it together, and the values they are grouped by.
NOISE: Sequence[tuple[Sequence[Monitor], Sequence[str]]] = (
    (
        (
            Monitor("9001", "Disk usage above 90 %", "system.disk.in_use", "host", "P2"),
            Monitor("9002", "Inodes are running out", "system.fs.inodes.in_use", "host"),
        ),
        ("orders-db-2", "stock-db-1", "bastion-1", "ci-runner-7", "kafka-3", "nexus-1", "warehouse-2", "mail-1"),
    ),
    (
        (Monitor("9003", "TLS certificate expires within 14 days", "tls.days_left", "domain"),),
        ("pay.shop.example", "api.shop.example", "partner.shop.example", "hr.corp.example", "cdn.shop.example"),
    ),
    (
        (Monitor("9004", "Batch job did not finish in time", "batch.job.last_success_age", "job_name"),),
        ("nightly-revenue", "sitemap", "gdpr-erasure", "price-import", "fraud-model-training", "loyalty-points"),
    ),
    (
        (
            Monitor("9005", "Queue backlog is growing", "aws.sqs.approximate_age_of_oldest_message", "queuename", "P2"),
            Monitor("9006", "Consumers of a queue are too slow", "consumer.lag", "queuename"),
        ),
        ("invoices", "newsletter", "image-resize", "returns.fifo", "crm-sync"),
    ),
    (
        (Monitor("9007", "Clock skew above 100 ms", "ntp.offset", "host", "P4"),),
        ("bastion-2", "warehouse-1", "kafka-1"),
    ),
    (
        (Monitor("9008", "Backup is older than 26 hours", "backup.age", "dbinstanceidentifier", "P2"),),
        ("hr-db", "warehouse", "stock-db-replica"),
    ),
    ((Monitor("9009", "VPN tunnel is down", "aws.vpn.tunnel_state", "tunnelid", "P2"),), ("vpn-0a1", "vpn-0b7")),
    (
        (
            Monitor("9010", "CI runner CPU above 95 %", "system.cpu.user", "host", "P4"),
            Monitor("9011", "CI builds wait for a runner", "ci.queued", "host", "P4"),
        ),
        ("ci-runner-1", "ci-runner-2", "ci-runner-3"),
    ),
    ((Monitor("9012", "Kafka partitions are under-replicated", "kafka.under_replicated", "topic", "P2"),), ("clicks",)),
    (
        (
            Monitor("9013", "checkout error rate is high", "trace.http.errors", "", "P4", "checkout", "staging"),
            Monitor("9014", "payment error rate is high", "trace.http.errors", "", "P4", "payment", "staging"),
        ),
        ("",),
    ),
    ((Monitor("9015", "Mails bounce more than usual", "mail.bounces", "", "P3", "notification"),), ("",)),
    ((Monitor("9016", "Failed logins from one country", "login.failures", "", "P3", "account"),), ("",)),
    ((Monitor("9017", "Bot traffic above baseline", "waf.bots", "", "P4", "web-gateway"),), ("",)),
    ((Monitor("9018", "Abandoned baskets above usual", "cart.abandoned", "", "P4", "cart"),), ("",)),
    ((Monitor("9019", "Supplier feed is stale", "stock.feed_age", "", "P3", "inventory"),), ("",)),
    ((Monitor("9020", "Synthetic check of the careers page fails", "synthetics", "", "P4", "careers-site"),), ("",)),
)


@dataclass(frozen=True)
class Scale:
    """How large the storm is. Fewer than 300 deliveries do not hold two faults."""

    deliveries: int = 10_000
    seconds: float = 60.0
    seed: int = 7

    @property
    def instances(self) -> int:
        """Hosts or pods of each service."""
        return max(2, self.deliveries // 800)

    @property
    def noise(self) -> int:
        """Things that go wrong on their own."""
        return max(6, self.deliveries // 250)


@dataclass(frozen=True)
class Delivery:
    """One delivery; ``due_s`` is seconds since the storm began."""

    due_s: float
    said: Said
    cycle: str
    body: str


@dataclass(frozen=True)
class Storm:
    """Deliveries in the order of their times, and what really happened, by alert cycle."""

    deliveries: Sequence[Delivery]
    truth: Mapping[str, str]
    monitors: int


@dataclass(frozen=True)
class Alarm:
    """A group of a monitor that alerts, since when, and what for."""

    truth: str
    monitor: Monitor
    group: str
    at_s: float


def storm(scale: Scale, began_at: float) -> Storm:
    """Draw one. ``began_at``: epoch seconds, for the times in the payloads."""
    return _Draw(scale, began_at).storm()


def service_monitors() -> dict[str, list[tuple[Watched, Monitor]]]:
    """Fifteen for each service."""
    found: dict[str, list[tuple[Watched, Monitor]]] = {}
    for row, service in enumerate(CALLS):
        kinds = OF_DATABASES if service.endswith("-db") else OF_SERVICES
        found[service] = [
            (w, Monitor(str(1000 + 100 * row + n), w.title.format(service), w.metric, w.by, w.priority, service))
            for n, w in enumerate(kinds)
        ]
    return found


@dataclass
class _Draw:
    scale: Scale
    began_at: float
    random: Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(self.scale.seed)

    def storm(self) -> Storm:
        monitors = service_monitors()
        alarms = [*self._faults(monitors), *self._noise()]
        deliveries: list[Delivery] = []
        truth: dict[str, str] = {}
        lives: list[tuple[Alarm, str, float, float]] = []
        for alarm, on_s, off_s in self._lives(alarms):
            cycle = str(self.random.getrandbits(62))
            truth[cycle] = alarm.truth
            deliveries.append(self._delivery(alarm, cycle, "Triggered", on_s))
            if off_s < self.scale.seconds:
                deliveries.append(self._delivery(alarm, cycle, "Recovered", off_s))
            lives.append((alarm, cycle, on_s, off_s))
        originals = round(self.scale.deliveries * (1 - DUPLICATES))
        for alarm, cycle, on_s, off_s in self.random.choices(lives, k=max(originals - len(deliveries), 0)):
            at_s = self.random.uniform(on_s, min(off_s, self.scale.seconds))
            deliveries.append(self._delivery(alarm, cycle, "Renotify", at_s))
        for one in self.random.choices(deliveries, k=max(self.scale.deliveries - len(deliveries), 0)):
            again_s = one.due_s + self._within(0.0, SENT_AGAIN)
            deliveries.append(Delivery(again_s, one.said, one.cycle, one.body))
        deliveries.sort(key=lambda delivery: delivery.due_s)
        return Storm(deliveries, truth, sum(map(len, monitors.values())) + sum(len(m) for m, _ in NOISE))

    def _within(self, least: float, most: float) -> float:
        """Seconds; ``least`` and ``most`` are shares of the storm."""
        return self.random.uniform(least, most) * self.scale.seconds

    # --- what alerts, and since when ---

    def _faults(self, monitors: Mapping[str, Sequence[tuple[Watched, Monitor]]]) -> Iterator[Alarm]:
        """A monitor that alerts for the first fault does not alert again for the second one."""
        seen: set[tuple[str, str]] = set()
        alarms = [
            alarm
            for root, share in FAULTS.items()
            for alarm in self._cascade(root, share * self.scale.seconds, monitors)
        ]
        for alarm in sorted(alarms, key=lambda alarm: alarm.at_s):
            if (alarm.monitor.id, alarm.group) not in seen:
                seen.add((alarm.monitor.id, alarm.group))
                yield alarm

    def _cascade(
        self, root: str, at_s: float, monitors: Mapping[str, Sequence[tuple[Watched, Monitor]]]
    ) -> Iterator[Alarm]:
        reached = {root: at_s}
        ring = [root]
        while ring:
            callers = [c for c, callees in CALLS.items() if c not in reached and set(callees) & set(ring)]
            began_s = max(reached.values())
            reached.update((caller, began_s + self._within(*HOP)) for caller in callers)
            ring = callers
        for service, since_s in reached.items():
            for watched, monitor in monitors[service]:
                if service != root and not watched.spreads:
                    continue
                for group in self._groups(watched, service, reached):
                    when_s = since_s + self._within(0.0, SPREAD)
                    yield Alarm(f"{root} fails", monitor, group, when_s)

    def _groups(self, watched: Watched, service: str, reached: Mapping[str, float]) -> Sequence[str]:
        if watched.by == "resource_name":
            root = next(iter(reached))
            return [e for e, needs in ENDPOINTS[service].items() if service == root or needs in reached]
        if watched.by == "instance":
            return [f"{service}-{n}" for n in range(1, self.scale.instances + 1)]
        return [""]

    def _noise(self) -> Iterator[Alarm]:
        kinds = [(monitors, group) for monitors, groups in NOISE for group in groups]
        for monitors, group in self.random.sample(kinds, min(self.scale.noise, len(kinds))):
            at_s = self._within(0.0, 0.8)
            for monitor in monitors:
                yield Alarm(f"{monitors[0].title}: {group}", monitor, group, at_s + self._within(0.0, 0.05))

    def _lives(self, alarms: Sequence[Alarm]) -> Iterator[tuple[Alarm, float, float]]:
        """From trigger to recovery, which may never come; a flapping alert has many of them."""
        end_s = self.scale.seconds
        flapping = set(self.random.sample(range(len(alarms)), round(FLAPS * len(alarms))))
        quiet = [n for n in range(len(alarms)) if n not in flapping]
        wanted = round(RECOVERIES * self.scale.deliveries)
        recovering = set(self.random.sample(quiet, min(round(RECOVERS * len(alarms)), len(quiet), wanted)))
        flaps = max(wanted - len(recovering), 0) // max(len(flapping), 1)
        for n, alarm in enumerate(alarms):
            changes = 2 * flaps if n in flapping else int(n in recovering)
            times = [alarm.at_s, *sorted(self.random.uniform(alarm.at_s, end_s) for _ in range(changes)), 2 * end_s]
            for on_s, off_s in zip(times[::2], times[1::2], strict=False):
                yield alarm, on_s, off_s

    # --- what Datadog says of it ---

    def _delivery(self, alarm: Alarm, cycle: str, said: Said, at_s: float) -> Delivery:
        """The recommended payload; every value is text."""
        monitor = alarm.monitor
        tag = monitor.by
        if tag == "instance":
            tag = "host" if monitor.service.endswith("-db") or monitor.service == "search" else "pod_name"
        scope = [f"{tag}:{alarm.group}"] if alarm.group else []
        if monitor.service:
            scope.append(f"service:{monitor.service}")
        at_ms = str(round((self.began_at + at_s) * 1000))
        word = {"Triggered": "Triggered", "Renotify": "Re-Triggered", "Recovered": "Recovered"}[said]
        title = f"[{word} on {{{','.join(scope)}}}] {monitor.title}" if scope else f"[{word}] {monitor.title}"
        payload = {
            **EXAMPLE,
            "event_id": str(self.random.getrandbits(62)),
            "monitor_id": monitor.id,
            "transition": said,
            "cycle_key": cycle,
            "alert_type": "success" if said == "Recovered" else "error",
            "priority": monitor.priority,
            "title": title,
            "alert_title": monitor.title,
            "status": f"{monitor.metric} over {','.join(scope) or '*'} alerts since the last 5m.",
            "metric": monitor.metric,
            "query": f"avg(last_5m):avg:{monitor.metric}{{env:{monitor.env}}} > 1",
            "scope": ",".join(scope),
            "tags": ",".join([*scope, f"env:{monitor.env}", "monitor"]),
            "service": monitor.service,
            "env": monitor.env,
            "hostname": alarm.group if tag == "host" else "",
            "message": f"{monitor.title}. @webhook-autopilot",
            "body": f"%%%\n{monitor.title}. @webhook-autopilot\n%%%",
            "date": at_ms,
            "last_updated": at_ms,
            "link": f"https://app.datadoghq.com/monitors/{monitor.id}",
            "org": {"id": ORG, "name": "Acme"},
        }
        return Delivery(at_s, said, cycle, json.dumps(payload))
