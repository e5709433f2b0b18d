"""A made-up distributed system: who calls whom, how fast, how often, and how each part copes with trouble.

Services stand in layers behind one or more entries; databases, caches, queues and external providers are the leaves.
Nothing here is taken from the engine that is measured with it.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["service", "database", "cache", "queue", "external"]
Style = Literal["datadog", "cloudwatch", "prometheus", "otel"]

NOUNS = (
    "account", "address", "auth", "basket", "billing", "booking", "catalog", "checkout", "claim", "comment",
    "content", "coupon", "courier", "credit", "customer", "dispatch", "document", "email", "event", "export",
    "feed", "fraud", "gateway", "geo", "identity", "image", "import", "inventory", "invoice", "ledger",
    "loyalty", "media", "message", "notification", "offer", "order", "partner", "payment", "policy", "pricing",
    "product", "profile", "promotion", "quote", "rating", "recommendation", "refund", "report", "reservation",
    "review", "route", "search", "seat", "session", "shipping", "stock", "subscription", "supplier", "tax",
    "ticket", "token", "tracking", "translation", "user", "voucher", "wallet", "warehouse", "wishlist",
)  # fmt: skip
ROLES = ("service", "api", "svc", "backend", "manager", "processor")
STYLES: tuple[Style, ...] = ("datadog", "cloudwatch", "prometheus", "otel")
PROVIDERS = ("acme-pay", "mailbird", "geo-lookup", "smsgate", "tax-cloud", "cardnet", "idproof", "maptiles")
SUFFIX = {"database": "db", "cache": "cache"}
VERBS = ("get", "list", "create", "update", "search", "confirm")


@dataclass(frozen=True)
class Component:
    """One part. ``base_ms`` is its own time for a request at rest, ``memory`` the share of its limit it uses."""

    name: str
    kind: Kind
    layer: int
    instances: tuple[str, ...]
    operations: tuple[str, ...]
    base_ms: float
    error_ratio: float
    idle_cpu: float
    memory: float
    style: Style
    numbered_lines: bool


@dataclass(frozen=True)
class Call:
    """``caller`` calls ``callee`` (indices) ``per_request`` times for each of its own requests, on average, and
    waits ``timeout_ms`` at most.

    ``critical`` is the chance that a call which failed for good fails the request: a fallback makes it small.
    """

    caller: int
    callee: int
    per_request: float
    synchronous: bool
    retries: int
    timeout_ms: float
    critical: float
    network_ms: float


@dataclass(frozen=True)
class System:
    """``order`` lists the components from the entries down; a call against it closes a cycle."""

    components: tuple[Component, ...]
    calls: tuple[Call, ...]
    entries: tuple[int, ...]
    order: tuple[int, ...]

    def incoming(self, component: int) -> list[int]:
        """Indices of the calls to it."""
        return [k for k, call in enumerate(self.calls) if call.callee == component]

    def outgoing(self, component: int) -> list[int]:
        """Indices of the calls it makes, in the order it makes them."""
        return [k for k, call in enumerate(self.calls) if call.caller == component]


def grow(rng: np.random.Generator, services: int) -> System:
    """A system of so many services, and the stores and providers they use."""
    components = _services(rng, services)
    calls = _service_calls(rng, components)
    _add_stores(rng, components, calls)
    _add_queues(rng, components, calls)
    _add_cycles(rng, components, calls)
    last = 1 + max(c.layer for c in components)
    rank = {i: last if c.kind in {"database", "cache", "external"} else c.layer for i, c in enumerate(components)}
    order = tuple(sorted(rank, key=lambda i: (rank[i], i)))
    entries = tuple(i for i, c in enumerate(components) if c.kind == "service" and c.layer == 0)
    return System(tuple(components), tuple(calls), entries, order)


def _services(rng: np.random.Generator, count: int) -> list[Component]:
    layers = int(np.clip(2 + np.log2(count) * 0.7, 3, 7))
    entries = 1 if count < 25 or rng.random() < 0.6 else int(rng.integers(2, 4))
    deeper = np.sort(rng.integers(1, layers, count - entries))
    names = _names(rng, count)
    return [_component(rng, names[i], "service", 0 if i < entries else int(deeper[i - entries])) for i in range(count)]


def _names(rng: np.random.Generator, count: int) -> list[str]:
    pairs = [f"{noun}-{role}" for role in ROLES for noun in NOUNS]
    return [pairs[int(k)] for k in rng.permutation(len(pairs))[:count]]


def _component(rng: np.random.Generator, name: str, kind: Kind, layer: int) -> Component:
    typical_ms = {"service": 12.0, "database": 5.0, "cache": 0.6, "queue": 3.0, "external": 90.0}[kind]
    replicas = int(rng.integers(2, 6)) if kind == "service" else 1
    return Component(
        name=name,
        kind=kind,
        layer=layer,
        instances=tuple(f"{name}-{rng.integers(16**5):05x}" for _ in range(replicas)),
        operations=_operations(rng, name, kind),
        base_ms=float(typical_ms * rng.lognormal(0.0, 0.6)),
        error_ratio=0.0 if kind == "queue" else float(10 ** rng.uniform(-5.0, -2.8)),
        idle_cpu=float(rng.uniform(0.01, 0.08)),
        memory=float(rng.uniform(0.3, 0.7)),
        style=STYLES[int(rng.integers(len(STYLES)))],
        numbered_lines=bool(rng.random() < 0.5),
    )


def _operations(rng: np.random.Generator, name: str, kind: Kind) -> tuple[str, ...]:
    noun = name.split("-", maxsplit=1)[0]
    if kind == "database":
        return (f"SELECT {noun}", f"UPDATE {noun}")
    if kind != "service":
        return (noun,)
    return tuple(f"{VERBS[int(k)]}_{noun}" for k in rng.permutation(len(VERBS))[: int(rng.integers(1, 5))])


def _service_calls(rng: np.random.Generator, components: list[Component]) -> list[Call]:
    """Every service has a caller in a layer above, most often the next; hubs attract more of them."""
    calls: dict[tuple[int, int], Call] = {}
    pull = rng.pareto(1.5, len(components)) + 0.2
    for callee, component in enumerate(components):
        if component.layer == 0:
            continue
        above = [i for i, c in enumerate(components) if c.layer < component.layer]
        near = [i for i in above if components[i].layer == component.layer - 1] or above
        wanted = min(len(above), 1 + int(rng.poisson(min(4.0, 0.3 * pull[callee]))))
        callers = {int(rng.choice(near))} | {int(k) for k in rng.choice(above, wanted - 1)}
        for caller in sorted(callers):
            calls[caller, callee] = _call(rng, components, caller, callee)
    return list(calls.values())


def _call(rng: np.random.Generator, components: list[Component], caller: int, callee: int) -> Call:
    return Call(
        caller=caller,
        callee=callee,
        per_request=float(rng.choice([0.2, 0.5, 1.0, 1.0, 1.0, 2.0])),
        synchronous=True,
        retries=int(rng.choice([0, 0, 0, 0, 0, 0, 1, 1, 2])),
        timeout_ms=float("inf"),
        critical=float(rng.choice([1.0, 0.95, 0.8, 0.05], p=[0.45, 0.25, 0.15, 0.15])),
        network_ms=float(rng.uniform(0.3, 2.0)) * (10 if components[callee].kind == "external" else 1),
    )


def _add_stores(rng: np.random.Generator, components: list[Component], calls: list[Call]) -> None:
    """Databases and caches, some of them shared; a few providers outside."""
    services = len(components)
    wanted: list[tuple[Kind, float, int]] = [
        ("database", 0.4, max(1, services // 3)),
        ("cache", 0.25, max(1, services // 8)),
        ("external", 0.1, max(1, min(len(PROVIDERS), services // 12))),
    ]
    for kind, share, count in wanted:
        first = len(components)
        for k in range(count):
            owner = components[int(rng.integers(services))].name.split("-", maxsplit=1)[0]
            name = PROVIDERS[k] if kind == "external" else f"{owner}-{SUFFIX[kind]}-{k}"
            components.append(_component(rng, name, kind, 99))
        users = [i for i in range(services) if components[i].layer > 0 and rng.random() < share]
        users = users or [services - 1]
        for k, user in enumerate([*users, *(int(rng.choice(users)) for _ in range(max(0, count - len(users))))]):
            store = first + (k if k < count else int(rng.integers(count)))
            calls.append(_call(rng, components, user, store))
    _deduplicate(calls)


def _deduplicate(calls: list[Call]) -> None:
    calls[:] = {(call.caller, call.callee): call for call in calls}.values()


def _add_queues(rng: np.random.Generator, components: list[Component], calls: list[Call]) -> None:
    """Some services hand work to a queue, and a service of its own takes it from there."""
    services = [i for i, c in enumerate(components) if c.kind == "service"]
    stores = [i for i, c in enumerate(components) if c.kind in {"database", "cache"}]
    for k in range(max(1, len(services) // 12)):
        producer = int(rng.choice(services))
        layer = components[producer].layer
        noun = components[producer].name.split("-", maxsplit=1)[0]
        queue, consumer = len(components), len(components) + 1
        components.append(_component(rng, f"{noun}-events-{k}", "queue", layer + 1))
        components.append(_component(rng, f"{noun}-worker-{k}", "service", layer + 2))
        for ends in ((producer, queue), (queue, consumer)):
            kept = {"per_request": 1.0, "critical": 0.0, "retries": 0, "synchronous": False}
            calls.append(Call(**{**vars(_call(rng, components, *ends)), **kept}))
        calls.append(_call(rng, components, consumer, int(rng.choice(stores))))


def _add_cycles(rng: np.random.Generator, components: list[Component], calls: list[Call]) -> None:
    """A few services call back, seldom, the one that calls them."""
    inner = [c for c in calls if c.synchronous and components[c.callee].kind == "service"]
    for call in inner:
        if components[call.caller].layer > 0 and rng.random() < 0.04:
            back = {"caller": call.callee, "callee": call.caller, "per_request": 0.05, "critical": 0.3, "retries": 0}
            calls.append(Call(**{**vars(call), **back}))
