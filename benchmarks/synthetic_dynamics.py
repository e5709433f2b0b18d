"""How trouble spreads through a made-up system: requests go down, waiting and failures come back up.

Arrays are (components or calls) x time steps. Nothing is drawn at random here: the same system under the same effects
behaves the same, so that a run with and one without a fault differ by what the fault caused, and by nothing else.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from benchmarks.synthetic_system import Call, System

Array = NDArray[np.float64]

ROUNDS = 4  # retries and cycles feed back; more rounds change nothing that a metric would show
SPREAD = 0.5  # of the logarithm of a call's duration
CORRELATED = 0.7  # a failed call's retry fails for the same reason so often
MOST_WAIT_MS = 8_000.0
SHORTEST_TIMEOUT_MS = 500.0


@dataclass
class Effects:
    """What a fault does, by component or call and step. As made, it does nothing."""

    slower: Array
    delay_ms: Array
    failing: Array
    costlier: Array  # CPU a request takes, as a factor
    pool: Array  # share of the connection pool that is left
    leak: Array  # share of the memory limit that is used in addition
    running: Array  # share of the work that is taken up at all; 0 is stopped
    load: Array  # traffic from outside, as a factor
    call_rate: Array
    call_delay_ms: Array

    @classmethod
    def none(cls, system: System, steps: int) -> "Effects":
        """Everything as usual."""
        zero = {"delay_ms", "failing", "leak", "call_delay_ms"}
        rows = {f.name: len(system.calls if f.name.startswith("call_") else system.components) for f in fields(cls)}
        return cls(**{name: np.full((n, steps), 0.0 if name in zero else 1.0) for name, n in rows.items()})


@dataclass(frozen=True)
class Capacity:
    """What each component is built for: set once, from the load of a usual day."""

    per_minute: Array  # requests a minute at which its CPU is full
    pool: Array  # requests it can hold at once


@dataclass(frozen=True)
class Run:
    """What happened. Rates are a minute, times mean milliseconds, the others ratios; ``backlog`` counts messages."""

    requests: Array
    own_ms: Array
    own_failed: Array
    latency_ms: Array
    failed: Array
    used: Array  # utilisation of the CPU, may be above 1
    pooled: Array  # connections in use, as a share of the pool
    memory: Array
    backlog: Array
    calls: Array
    call_ms: Array
    call_failed: Array


def capacity(system: System, load: Array, headroom: Array) -> Capacity:
    """Built so that the usual peak uses ``headroom`` (one share for each component)."""
    steps = load.shape[1]
    ample = np.full((len(system.components), 1), 1e12)
    usual = run(system, load, Effects.none(system, steps), Capacity(ample, ample), 1.0)
    peak = np.maximum(usual.requests.max(axis=1, keepdims=True), 1.0)
    held = (usual.requests * usual.latency_ms / 60_000).max(axis=1, keepdims=True)
    return Capacity(peak / headroom, np.ceil(held * 4 + 5))


def patient(system: System, usual: Run, patience: Array) -> System:
    """The same system, its callers waiting ``patience`` times as long as their calls usually take (one for each)."""
    slowest = usual.call_ms.max(axis=1)
    waits = np.maximum(slowest * patience, SHORTEST_TIMEOUT_MS)
    calls = tuple(replace(call, timeout_ms=float(ms)) for call, ms in zip(system.calls, waits, strict=True))
    return replace(system, calls=calls)


def run(system: System, load: Array, effects: Effects, built: Capacity, step_min: float) -> Run:
    """The system under this load from outside (component x step, requests a minute) and these effects."""
    answers = _Answers(system, effects, load.shape[1])
    for _ in range(ROUNDS):
        requests, calls = _flow(system, load * effects.load, effects, answers)
        own, used = _own_time(system, requests, effects, built)
        pooled = answers.settle(requests, own, used, built)
    memory = np.array([[c.memory] for c in system.components]) + effects.leak
    return Run(
        requests=requests,
        own_ms=own,
        own_failed=answers.own_failed,
        latency_ms=answers.latency,
        failed=answers.failed,
        used=used,
        pooled=pooled,
        memory=memory,
        backlog=_backlog(system, calls, step_min),
        calls=calls,
        call_ms=answers.call_ms,
        call_failed=answers.call_failed,
    )


def _adjacent(system: System) -> list[list[int]]:
    out: list[list[int]] = [[] for _ in system.components]
    for k, call in enumerate(system.calls):
        out[call.caller].append(k)
    return out


def _flow(system: System, load: Array, effects: Effects, answers: "_Answers") -> tuple[Array, Array]:
    """Requests of each component and each call: a failed critical call ends the request before the later ones."""
    requests = load.copy()
    calls = np.zeros_like(answers.call_failed)
    done = set[int]()
    for c in system.order:
        going = 1 - answers.own_failed[c]  # what a component refuses or fails at goes no further
        for k in answers.out[c]:
            call = system.calls[k]
            again = 1 + sum(answers.call_once[k] ** n for n in range(1, call.retries + 1))
            taken = effects.running[call.callee] if system.components[c].kind == "queue" else 1.0
            calls[k] = requests[c] * going * call.per_request * effects.call_rate[k] * again * taken
            going = going * (1 - call.critical * min(1.0, call.per_request) * answers.call_failed[k])
            if call.callee not in done:
                requests[call.callee] += calls[k]
        done.add(c)
    return requests, calls


def _own_time(system: System, requests: Array, effects: Effects, built: Capacity) -> tuple[Array, Array]:
    """Time of its own, waiting for the CPU included, and utilisation: slow only when nearly full, as queues are."""
    base = np.array([[c.base_ms] for c in system.components])
    used = requests * effects.costlier / built.per_minute
    busy = np.minimum(used, 0.98)
    waiting = busy**4 / (1 - busy)
    scarce = np.clip(effects.leak + np.array([[c.memory] for c in system.components]) - 0.85, 0, 0.15)
    collecting = 1 + 40 * scarce  # garbage collection, ever more often
    own = (base * effects.slower * (1 + waiting) + effects.delay_ms) * collecting
    return np.minimum(own, MOST_WAIT_MS), used


class _Answers:
    """Latencies and failures, settled from the leaves up, again in each round."""

    def __init__(self, system: System, effects: Effects, steps: int) -> None:
        self.system, self.effects, self.out = system, effects, _adjacent(system)
        self.latency, self.failed, self.own_failed = np.zeros((3, len(system.components), steps))
        self.call_ms, self.call_failed, self.call_once = np.zeros((3, len(system.calls), steps))

    def settle(self, requests: Array, own: Array, used: Array, built: Capacity) -> Array:
        """Compute all answers to these requests; how full the pools are."""
        pooled = np.zeros_like(requests)
        for c in reversed(self.system.order):
            waited, inherited = self._waited(c)
            took = own[c] + waited
            pooled[c] = requests[c] * took / 60_000 / (built.pool[c] * self.effects.pool[c])
            refused = 1 - 1 / (np.maximum(pooled[c] / 1.2, 1) * np.maximum(used[c], 1))
            usual = self.system.components[c].error_ratio
            self.own_failed[c] = 1 - (1 - usual) * (1 - self.effects.failing[c]) * (1 - refused)
            self.failed[c] = 1 - (1 - self.own_failed[c]) * (1 - inherited)
            self.latency[c] = took + np.minimum(took * np.clip(pooled[c] - 0.8, 0, 2), MOST_WAIT_MS)
        return pooled

    def _waited(self, component: int) -> tuple[Array, Array]:
        """What a component waits for its callees, and the share of its requests that they make fail."""
        waited = np.zeros(self.latency.shape[1])
        survives = np.ones(self.latency.shape[1])
        for k in self.out[component]:
            call = self.system.calls[k]
            self.call_ms[k] = self.latency[call.callee] + call.network_ms + self.effects.call_delay_ms[k]
            if not call.synchronous:
                continue
            once = 1 - (1 - self.failed[call.callee]) * (1 - timed_out(self.call_ms[k], call))
            lasting = once * (CORRELATED + (1 - CORRELATED) * once**call.retries) if call.retries else once
            tries = 1 + sum(once**n for n in range(1, call.retries + 1))
            made = self.effects.call_rate[k] * call.per_request
            waited = waited + made * survives * np.minimum(self.call_ms[k], call.timeout_ms) * tries
            survives = survives * (1 - call.critical * np.minimum(1.0, made) * lasting)
            self.call_once[k], self.call_failed[k] = once, lasting
        return waited, 1 - survives


def timed_out(mean_ms: Array, call: Call) -> Array:
    """Share of calls that take longer than the caller waits; a logistic curve stands for the log-normal's."""
    margin = np.log(call.timeout_ms / np.maximum(mean_ms, 1e-6)) / SPREAD
    ratio: Array = 1 / (1 + np.exp(np.clip(1.7 * margin, -50, 50)))
    return np.where(ratio < 1e-4, 0.0, ratio)


def _backlog(system: System, calls: Array, step_min: float) -> Array:
    """Messages that wait: what was put into a queue and not taken from it."""
    waiting = np.zeros((len(system.components), calls.shape[1]))
    for c, component in enumerate(system.components):
        if component.kind == "queue":
            put = calls[system.incoming(c)].sum(axis=0)
            taken = calls[system.outgoing(c)].sum(axis=0)
            waiting[c] = np.cumsum(np.maximum(put - taken, 0)) * step_min + 0.05 * put
    return waiting
