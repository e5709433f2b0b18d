"""What is handed from the made-up system to the made-up sources, and how badly these see."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.synthetic_dynamics import Array, Run
from benchmarks.synthetic_faults import Focus, Injection
from benchmarks.synthetic_system import System

Signal = Literal["logs", "traces", "metrics", "topology", "metrics_of_cause", "all_but_golden", "changes"]


@dataclass(frozen=True)
class Disturbances:
    """What keeps the sources from telling the plain truth; as made, little does.

    ``noise``: standard deviation of a metric's logarithm. ``drift``: the same, of levels on other days. ``skew_s``: of
    the clocks of hosts. ``lost``: share of all rows that never arrived. ``dropped``: signals nobody collects.
    ``counter_resets``: some requests are told as a counter that starts anew. ``few_calls``: some requests a minute.
    ``late``: the alert comes ten minutes later. ``far``: it comes from as far upstream as the trouble goes.
    """

    noise: float = 0.06
    drift: float = 0.03
    skew_s: float = 0.0
    lost: float = 0.0
    dropped: frozenset[Signal] = frozenset()
    counter_resets: bool = False
    few_calls: bool = False
    late: bool = False
    far: bool = False


@dataclass(frozen=True)
class Segment:
    """Time that was looked at, in rows."""

    start_s: float
    steps: int
    step_s: float

    @property
    def end_s(self) -> float:
        """When its last row ends."""
        return self.start_s + self.steps * self.step_s

    def starts(self) -> Array:
        """When each row begins, which is how sources stamp it."""
        result: Array = self.start_s + np.arange(self.steps, dtype=np.float64) * self.step_s
        return result

    def times(self) -> Array:
        """The middle of each row."""
        result: Array = self.starts() + self.step_s / 2
        return result


@dataclass(frozen=True)
class Recording:
    """All that happened. The first segment holds the incident; ``calm`` is the same without the fault.

    ``views``: calls that are also measured by their caller, under a name of their own.
    """

    system: System
    segments: tuple[Segment, ...]
    runs: tuple[Run, ...]
    calm: Run
    injections: tuple[Injection, ...]
    onset_s: float
    alert_s: float
    sparse: bool
    views: tuple[int, ...] = ()

    def view(self, call: int) -> str:
        """The name of the caller's side of a call."""
        ends, names = self.system.calls[call], self.system.components
        return f"{names[ends.callee].name}@{names[ends.caller].name}"

    @property
    def focus(self) -> Mapping[int, Focus]:
        """Components of which only a part is at fault."""
        return {c: focus for injection in self.injections for c, focus in injection.focus.items()}

    @property
    def at_fault(self) -> frozenset[str]:
        """The names of the causes."""
        names = [c.name for c in self.system.components]
        return frozenset(names[right[0]] for i in self.injections for right in i.causes)

    def share(self, component: int) -> float:
        """Which part of its requests the fault can hit."""
        focus, parts = self.focus.get(component), self.system.components[component]
        if focus is None:
            return 1.0
        return 1 / len(parts.operations) if focus.operation else len(focus.instances) / len(parts.instances)

    def hit(self, component: int, instance: str, operation: str) -> bool:
        """Whether this instance and operation are among those at fault."""
        focus = self.focus.get(component)
        return focus is None or instance in focus.instances or operation == focus.operation
