"""What goes wrong in a made-up system, and what only looks so: each fault says where it strikes and what it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from benchmarks.synthetic_dynamics import Array, Effects
from benchmarks.synthetic_system import System

Fault = Literal[
    "latency",
    "errors",
    "cpu",
    "pool",
    "leak",
    "bad_deploy",
    "bad_config",
    "missing_calls",
    "queue_growth",
    "partial_outage",
    "provider_down",
    "surge",
    "slow_database",
    "network_delay",
    "two_causes",
    "nothing",
]
FAULTS: tuple[Fault, ...] = get_args(Fault)
Quiet = Literal["noise", "deploy", "nightly", "drift", "blip"]
QUIET: tuple[Quiet, ...] = get_args(Quiet)
ChangeKind = Literal["deploy", "configuration", "scaling", "feature_flag", "other"]

CRASHES = (
    'java.lang.NullPointerException: Cannot invoke "Price.amount()" because "price" is null',
    "java.lang.IllegalStateException: unexpected state PENDING_REVIEW",
    "KeyError: 'currency'",
    "TypeError: unsupported operand type(s) for +: 'NoneType' and 'int'",
    "panic: runtime error: index out of range [3] with length 3",
    "com.fasterxml.jackson.databind.exc.MismatchedInputException: Cannot deserialize value of type `Long`",
)


@dataclass(frozen=True)
class Focus:
    """A fault that only some instances, or one operation, of a component show."""

    instances: tuple[str, ...] = ()
    operation: str = ""


@dataclass(frozen=True)
class Caused:
    """The change that brought the fault."""

    component: int
    kind: ChangeKind
    title: str
    minutes_before: float


@dataclass(frozen=True)
class Injection:
    """What was done. ``causes`` holds, for each cause, the components that are a right answer, the best first.

    ``downward``: it reaches others with the requests that they get, not with the answers they wait for. ``floods``: by
    more of them than they are built for.
    """

    causes: tuple[tuple[int, ...], ...]
    message: str = ""
    caused: Caused | None = None
    focus: Mapping[int, Focus] = field(default_factory=dict)
    downward: bool = False
    floods: bool = False
    skipped: int | None = None
    restarted: tuple[int, ...] = ()
    stopped: tuple[int, ...] = ()
    quiet: Quiet | None = None


@dataclass
class Injector:
    """Writes one fault into ``effects``. ``minutes`` is the time since the onset, of each step."""

    rng: np.random.Generator
    system: System
    usual: Array  # requests a minute of each component on a usual day
    minutes: Array
    effects: Effects
    strength: float

    def inject(self, fault: Fault) -> Injection:
        """One fault at a place drawn at random, among those where it can be felt."""
        makers: Mapping[str, Callable[[], Injection]] = {
            "latency": self._latency,
            "errors": self._errors,
            "cpu": self._cpu,
            "pool": self._pool,
            "leak": self._leak,
            "bad_deploy": self._bad_deploy,
            "bad_config": self._bad_config,
            "missing_calls": self._missing_calls,
            "queue_growth": self._queue_growth,
            "partial_outage": self._partial_outage,
            "provider_down": self._provider_down,
            "surge": self._surge,
            "slow_database": self._slow_database,
            "network_delay": self._network_delay,
        }
        return makers[fault]()

    def _on(self, ramp_min: float = 0.5) -> Array:
        """0 before the onset, 1 when the fault is fully there."""
        return np.clip((self.minutes + 1e-9) / ramp_min, 0, 1) * (self.minutes >= 0)

    def _pick(self, candidates: Sequence[int]) -> int:
        """One that is used at all; those with more requests are felt more often, as their alerts are."""
        weights = np.sqrt(self.usual[list(candidates)] + 1e-9)
        return int(self.rng.choice(list(candidates), p=weights / weights.sum()))

    def _service(self) -> int:
        found = [i for i, c in enumerate(self.system.components) if c.kind == "service" and c.layer > 0]
        return self._pick([i for i in found if self.system.incoming(i)])

    def _of_kind(self, *kinds: str) -> int:
        return self._pick([i for i, c in enumerate(self.system.components) if c.kind in kinds])

    def _name(self, component: int) -> str:
        return self.system.components[component].name

    def _slow_down(self, at: int, on: Array) -> None:
        factor = float(self.rng.uniform(4, 20)) * self.strength
        self.effects.slower[at] *= 1 + (factor - 1) * on
        self.effects.delay_ms[at] += float(self.rng.uniform(50, 600)) * self.strength * on

    def _fail(self, at: int, on: Array, low: float = 0.08, high: float = 0.7) -> None:
        self.effects.failing[at] = np.clip(float(self.rng.uniform(low, high)) * self.strength, 0, 0.98) * on

    def _crash(self) -> str:
        return CRASHES[int(self.rng.integers(len(CRASHES)))]

    # --- faults ---

    def _latency(self) -> Injection:
        at = self._service()
        self._slow_down(at, self._on(float(self.rng.choice([0.5, 3.0]))))
        return Injection(((at,),))

    def _errors(self) -> Injection:
        at = self._service()
        self._fail(at, self._on())
        return Injection(((at,),), self._crash())

    def _cpu(self) -> Injection:
        at = self._service()
        self.effects.costlier[at] *= 1 + (float(self.rng.uniform(3, 5)) * self.strength) * self._on(2.0)
        return Injection(((at,),), "task rejected: worker queue is full, active threads 200 of 200")

    def _pool(self) -> Injection:
        at = self._service()
        self.effects.pool[at] *= 1 - self._on(2.0) * (1 - 0.04 / self.strength)
        return Injection(((at,),), "connection is not available, request timed out after 3000 ms (pool exhausted)")

    def _leak(self) -> Injection:
        """Memory grows for hours; at the onset garbage collection takes over; some minutes later it restarts."""
        at = self._service()
        memory = self.system.components[at].memory
        hours = float(self.rng.uniform(1.0, 3.0)) * 60
        dies = float(self.rng.uniform(3, 8))
        level = np.clip(0.88 + self.minutes * (0.88 - memory) / hours, memory, 0.97) - memory
        level = np.where(self.minutes >= 0, np.clip(0.9 + 0.02 * self.minutes, 0, 0.99) - memory, level)
        alive = self.minutes < dies
        self.effects.leak[at] = np.where(alive, level, 0.1)
        self.effects.failing[at] = 0.6 * ((self.minutes >= dies) & (self.minutes < dies + 2))
        self.effects.slower[at] *= 1 + np.where(alive, 12 * self.strength * self._on(3.0), 1.0 * self._on())
        return Injection(((at,),), "java.lang.OutOfMemoryError: Java heap space", restarted=(at,))

    def _bad_deploy(self) -> Injection:
        at = self._service()
        instances = self.system.components[at].instances
        hit = instances[: int(self.rng.integers(1, len(instances) + 1))]
        on = self._on() * len(hit) / len(instances)
        slow = self.rng.random() < 0.4
        (self._slow_down if slow else self._fail)(at, on)
        version = f"{self.rng.integers(1, 9)}.{self.rng.integers(40)}.{self.rng.integers(20)}"
        caused = Caused(at, "deploy", f"Deploy {self._name(at)} {version}", float(self.rng.uniform(0, 2)))
        focus = {at: Focus(hit)} if len(hit) < len(instances) else {}
        return Injection(((at,),), "" if slow else self._crash(), caused, focus)

    def _bad_config(self) -> Injection:
        at = self._service()
        flag = self.rng.random() < 0.5
        slow = self.rng.random() < 0.4
        (self._slow_down if slow else self._fail)(at, self._on())
        noun = self._name(at).split("-", maxsplit=1)[0]
        title = f"Enable flag new-{noun}-flow" if flag else f"Set {noun}.client.endpoint in {self._name(at)}"
        caused = Caused(at, "feature_flag" if flag else "configuration", title, float(self.rng.uniform(0, 1.5)))
        return Injection(((at,),), "" if slow else f"invalid value for property {noun}.client.endpoint", caused)

    def _missing_calls(self) -> Injection:
        """A path of the code is skipped, without a word: the callee gets fewer requests, nobody gets an error."""
        calls = [
            k
            for k, c in enumerate(self.system.calls)
            if self.system.components[c.caller].kind == "service" and c.per_request >= 0.5 and self._main_source(k)
        ]
        weights = np.sqrt(np.array([self.usual[self.system.calls[k].caller] for k in calls]) + 1e-9)
        k = int(self.rng.choice(calls, p=weights / weights.sum()))
        self.effects.call_rate[k] *= 1 - self._on() * float(np.clip(0.9 * self.strength, 0, 1))
        return Injection(((self.system.calls[k].caller,),), downward=True, skipped=k)

    def _main_source(self, k: int) -> bool:
        """Whether most of the callee's requests come by this call: otherwise nobody would notice."""
        call = self.system.calls[k]
        share = self.usual[call.caller] * call.per_request
        return bool(share >= 0.5 * self.usual[call.callee] > 0)

    def _queue_growth(self) -> Injection:
        queue = self._of_kind("queue")
        consumer = self.system.calls[self.system.outgoing(queue)[0]].callee
        self.effects.running[consumer] *= 1 - self._on() * float(np.clip(0.95 * self.strength, 0, 1))
        return Injection(
            ((consumer,),), "consumer left the group: heartbeat expired", downward=True, stopped=(consumer,)
        )

    def _partial_outage(self) -> Injection:
        """One of its instances, or one of its operations, is out of order."""
        found = [i for i, c in enumerate(self.system.components) if c.kind == "service" and c.layer > 0]
        at = self._pick([i for i in found if self.system.incoming(i)])
        component = self.system.components[at]
        by_operation = len(component.operations) > 1 and self.rng.random() < 0.4
        focus = Focus(operation=component.operations[0]) if by_operation else Focus(component.instances[:1])
        share = 1 / len(component.operations if by_operation else component.instances)
        self.effects.failing[at] = float(self.rng.uniform(0.6, 0.95)) * share * self._on()
        return Injection(((at,),), self._crash(), focus={at: focus})

    def _provider_down(self) -> Injection:
        at = self._of_kind("external")
        if self.rng.random() < 0.5:
            self._fail(at, self._on(), 0.5, 0.95)
        else:
            self.effects.delay_ms[at] += float(self.rng.uniform(3_000, 15_000)) * self.strength * self._on()
        return Injection(((at,),), "503 Service Unavailable")

    def _surge(self) -> Injection:
        """Several times the traffic comes in at an entry, and what is built for less cannot keep up."""
        at = int(self.rng.choice(self.system.entries))
        self.effects.load[at] *= 1 + (float(self.rng.uniform(1.5, 4)) * self.strength) * self._on(2.0)
        return Injection(((at,),), "too many requests", downward=True, floods=True)

    def _slow_database(self) -> Injection:
        at = self._of_kind("database")
        self._slow_down(at, self._on(1.0))
        self.effects.costlier[at] *= 1 + 1.0 * self._on()
        return Injection(((at,),), "slow query")

    def _network_delay(self) -> Injection:
        calls = [k for k, c in enumerate(self.system.calls) if c.synchronous and c.per_request >= 0.5]
        weights = np.sqrt(np.array([self.usual[self.system.calls[k].caller] for k in calls]) + 1e-9)
        k = int(self.rng.choice(calls, p=weights / weights.sum()))
        self.effects.call_delay_ms[k] += float(self.rng.uniform(100, 1500)) * self.strength * self._on()
        call = self.system.calls[k]
        return Injection(((call.callee, call.caller),))

    # --- nothing ---

    def quiet(self, kind: Quiet) -> Injection:
        """What looks like trouble and is none: it was there yesterday too, or it is over, or it harms nobody."""
        at = self._service()
        if kind == "nightly":
            self.effects.costlier[at] *= 1 + 0.8 * self._on(2.0)
            self.effects.slower[at] *= 1 + 0.6 * self._on(2.0)
        elif kind == "drift":
            self.effects.slower *= np.exp(np.clip((self.minutes + 60) / 60, 0, 1.2) * 0.12)
        elif kind == "blip":
            self._slow_down(at, ((self.minutes >= -18) & (self.minutes < -14)).astype(float))
        caused = Caused(at, "deploy", f"Deploy {self._name(at)} 2.3.{self.rng.integers(30)}", 1.0)
        return Injection((), caused=caused if kind == "deploy" else None, quiet=kind)
