"""Playbooks as data: by what a kind of failure is known, how it works, and what helps against it.

``graph/llms/rules.py`` reads them. Texts take ``{component}``, the component at fault, and ``{service}``, the
service a remedy acts on. They hold no numbers: every number shown comes from the evidence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from pydantic import JsonValue

from graph.state import FindingKind

TWICE_THE_TASKS = "twice the desired tasks"
"""Stands for a desired count that depends on how many tasks there are now."""


class Category(StrEnum):
    """The kinds of failure the product knows remedies for."""

    CONNECTION_POOL_EXHAUSTION = "connection_pool_exhaustion"
    TRAFFIC_SURGE = "traffic_surge"
    BAD_DEPLOY = "bad_deploy"
    BAD_CONFIGURATION = "bad_configuration"
    CPU_SATURATION = "cpu_saturation"
    MEMORY_EXHAUSTION = "memory_exhaustion"
    RATE_LIMITED_DEPENDENCY = "rate_limited_dependency"
    SLOW_DEPENDENCY = "slow_dependency"
    UNHEALTHY_TASKS = "unhealthy_tasks"
    CODE_FAULT = "code_fault"
    MISSING_CALLS = "missing_calls"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Symptom:
    """What one finding may show. ``rose``, ``fell``: factors on the baseline; ``at_least``: a share of 1."""

    words: re.Pattern[str]
    weight: float
    kinds: tuple[FindingKind, ...] = ()
    but_not: re.Pattern[str] | None = None
    rose: float | None = None
    fell: float | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class Step:
    """One operation of a remedy; ``service`` is filled in. An optional one may be left out."""

    operation: str
    params: Mapping[str, JsonValue] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Remedy:
    """One way to act: on the failing component itself, or on the caller that must spare it."""

    title: str
    description: str
    steps: tuple[Step, ...]
    acts_on: Literal["component", "caller"] = "component"


@dataclass(frozen=True)
class Playbook:
    """One kind of failure; of its remedies, best first, the first three that are possible are proposed."""

    title: str
    mechanism: str
    symptoms: tuple[Symptom, ...] = ()
    remedies: tuple[Remedy, ...] = ()


def _words(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_CHECK = Step("check_ecs_health", optional=True)

SHED_AND_RESTART = Remedy(
    title="Shed load, restart {service}, let traffic back in steps",
    description=(
        "Sends most callers of {service} to the overflow page, restarts its tasks while it is quiet so that "
        "they start clean, then raises the traffic step by step. Until then the others see that page."
    ),
    steps=(
        Step("reduce_traffic", {"keep_percent": 40}),
        Step("restart_ecs_task"),
        _CHECK,
        Step("gradual_traffic_restore", {"steps_percent": [50, 75, 100], "pause_s": 60}),
    ),
)
RESTART = Remedy(
    title="Restart the tasks of {service}",
    description=(
        "Replaces the tasks of {service} one after the other; stuck connections and memory are released. "
        "Under unchanged load the trouble may come back."
    ),
    steps=(Step("restart_ecs_task"), _CHECK),
)
SCALE_OUT = Remedy(
    title="Scale {service} out to {tasks} tasks",
    description=(
        "Starts more tasks of {service}, so that each carries less. "
        "What they share, such as a database, gets more connections."
    ),
    steps=(Step("scale_ecs_service", {"desired_count": TWICE_THE_TASKS}), _CHECK),
)
ROLL_BACK = Remedy(
    title="Roll {service} back to the version before",
    description=(
        "Puts {service} back on the task definition that ran before. What the new version brought is gone "
        "until it is deployed again; migrations of data are not undone."
    ),
    steps=(Step("rollback_ecs_service"), _CHECK),
)
LIMIT_DAMAGE = Remedy(
    title="Send half of the traffic away from {service}",
    description=(
        "Half of the callers of {service} see the overflow page, the other half gets more room. "
        "It buys time; it does not mend the cause."
    ),
    steps=(Step("reduce_traffic", {"keep_percent": 50}),),
)
SPARE_DEPENDENCY = Remedy(
    title="Send half of the traffic away from {service}, to spare {component}",
    description=(
        "Half of the callers of {service} see the overflow page, so that {service} asks less of {component} "
        "and the calls that are let through succeed. It buys time; it does not mend {component}."
    ),
    steps=(Step("reduce_traffic", {"keep_percent": 50}),),
    acts_on="caller",
)

PLAYBOOKS: Mapping[Category, Playbook] = {
    Category.CONNECTION_POOL_EXHAUSTION: Playbook(
        title="Connection pool of {component} exhausted",
        mechanism=(
            "Requests to {component} wait for a free connection of its pool; "
            "those that wait too long fail, and the queue keeps the pool full."
        ),
        symptoms=(
            Symptom(
                _words(
                    r"(?<![a-z])pool(?![a-z])",
                    r"hikari",
                    r"connections?[._ ](?:active|pending|in[_ ]?use|used|waiting)",
                    r"(?:pending|open|max)[._ ]connections?",
                    r"too many connections",
                    r"connection is not available",
                ),
                3,
            ),
            Symptom(
                _words(
                    r"pool.{0,40}exhaust",
                    r"exhaust.{0,40}pool",
                    r"connection is not available",
                    r"too many connections",
                ),
                2,
            ),
            Symptom(_words(r"tim(?:ed|e)[ -]?out"), 1),
        ),
        remedies=(SHED_AND_RESTART, RESTART, SCALE_OUT, SPARE_DEPENDENCY),
    ),
    Category.MEMORY_EXHAUSTION: Playbook(
        title="{component} ran out of memory",
        mechanism=(
            "{component} uses more memory than it may; "
            "it slows down collecting garbage or is killed, and its requests fail."
        ),
        symptoms=(
            Symptom(
                _words(
                    r"out ?of ?memory",
                    r"\boom",
                    r"heap space",
                    r"gc overhead",
                    r"exit (?:code|status) 137",
                    r"cannot allocate memory",
                ),
                4,
            ),
            Symptom(_words(r"memory", r"heap", r"\brss\b"), 2, kinds=("metric",), rose=1.1),
        ),
        remedies=(RESTART, SCALE_OUT, LIMIT_DAMAGE),
    ),
    Category.RATE_LIMITED_DEPENDENCY: Playbook(
        title="{component} refuses calls beyond its rate limit",
        mechanism=(
            "More calls are made to {component} than its limit allows; it refuses the rest, and retries add to them."
        ),
        symptoms=(
            Symptom(
                _words(r"\b429\b", r"rate[ _-]?limit", r"too ?many ?requests", r"throttl", r"quota exceeded"),
                4,
                but_not=_words(r"cpu"),
            ),
        ),
        remedies=(SPARE_DEPENDENCY, LIMIT_DAMAGE),
    ),
    Category.CPU_SATURATION: Playbook(
        title="{component} is short of CPU",
        mechanism="{component} has more work than CPU; requests queue, and the slowest time out.",
        symptoms=(
            Symptom(_words(r"cpu"), 3, kinds=("metric", "status"), at_least=0.7),
            Symptom(_words(r"cpu.{0,20}throttl", r"throttl.{0,20}cpu", r"load average", r"thread starvation"), 2),
        ),
        remedies=(SCALE_OUT, LIMIT_DAMAGE, RESTART, SPARE_DEPENDENCY),
    ),
    Category.SLOW_DEPENDENCY: Playbook(
        title="{component} is slow to answer its callers",
        mechanism="Calls to {component} take longer than before; its callers wait, and time out.",
        symptoms=(
            Symptom(
                _words(
                    r"read timed out",
                    r"sockettimeout",
                    r"gateway time-?out",
                    r"deadline exceeded",
                    r"upstream",
                    r"\b504\b",
                ),
                2,
            ),
            Symptom(
                _words(
                    r"latency",
                    r"duration",
                    r"response ?time",
                    r"slow",
                    r"\bp\d\d\b",
                    r"\btook\b",
                    r"ms passed between",
                ),
                1.5,
                rose=1.2,
            ),
            Symptom(_words(r"tim(?:ed|e)[ -]?out"), 0.5),
        ),
        remedies=(SPARE_DEPENDENCY, RESTART, SCALE_OUT, LIMIT_DAMAGE),
    ),
    Category.TRAFFIC_SURGE: Playbook(
        title="{component} is overloaded",
        mechanism="More requests reach {component} than it can serve; they queue, and all become slow.",
        symptoms=(
            Symptom(
                _words(r"requests?", r"\bhits\b", r"traffic", r"throughput", r"\b[rq]ps\b", r"req/s"),
                2,
                kinds=("metric",),
                but_not=_words(
                    r"error",
                    r"fail",
                    r"[45]xx",
                    r"latency",
                    r"duration",
                    r"response ?time",
                    r"tim(?:ed|e)[ -]?out",
                    r"queue",
                    r"pending",
                    r"exception",
                    r"slow",
                    r"\bp\d\d\b",
                    r" in (?:ns|us|µs|ms|s|%|percent|\w*seconds?)$",
                ),
                rose=1.5,
            ),
        ),
        remedies=(SHED_AND_RESTART, RESTART, SCALE_OUT, SPARE_DEPENDENCY),
    ),
    Category.UNHEALTHY_TASKS: Playbook(
        title="Tasks of {component} are unhealthy",
        mechanism="Fewer tasks of {component} serve than should; the rest carry their load, or nobody does.",
        symptoms=(
            Symptom(_words(r"health", r"running", r"\btasks?\b", r"hosts?\b"), 4, kinds=("status",)),
            Symptom(_words(r"healthy.{0,12}hosts?", r"running.{0,8}tasks?"), 3, kinds=("metric",), fell=0.99),
            Symptom(
                _words(
                    r"health ?check",
                    r"task (?:stopped|failed)",
                    r"essential container",
                    r"crashloop",
                    r"connection refused",
                    r"unhealthy",
                ),
                2,
                kinds=("log", "trace"),
            ),
        ),
        remedies=(RESTART, ROLL_BACK, SCALE_OUT),
    ),
    Category.CODE_FAULT: Playbook(
        title="{component} fails in its own code",
        mechanism="Requests reach code of {component} that throws, and fail there.",
        symptoms=(
            Symptom(
                _words(
                    r"exception",
                    r"traceback",
                    r"\b(?:Type|Key|Value|Attribute|Index|Reference)Error",
                    r"\bpanic",
                    r"segmentation fault",
                    r"unhandled",
                    r"assert(?:ion)?\b",
                ),
                2,
                kinds=("log", "trace"),
            ),
            Symptom(_words(r"failed with"), 1, kinds=("trace",)),
        ),
        remedies=(RESTART, LIMIT_DAMAGE),
    ),
    Category.MISSING_CALLS: Playbook(
        title="{component} no longer makes calls it used to make",
        mechanism="Work that {component} used to do or pass on is left undone, without an error of its own.",
        symptoms=(
            Symptom(
                _words(
                    r"missing",
                    r"no longer",
                    r"absent",
                    r"disappear",
                    r"not (?:called|reached|followed)",
                    r"without its",
                    r"” straight to “",
                ),
                1.5,
                kinds=("log", "trace", "topology"),
            ),
            Symptom(
                _words(r"requests?", r"\bhits\b", r"calls?", r"throughput", r"\b[rq]ps\b"),
                1,
                kinds=("metric", "trace"),
                fell=0.5,
            ),
        ),
        remedies=(RESTART,),
    ),
    Category.BAD_DEPLOY: Playbook(
        title="A deploy broke {component}",
        mechanism="{component} was deployed shortly before it began to fail: the version is what changed.",
        remedies=(ROLL_BACK, RESTART, LIMIT_DAMAGE),
    ),
    Category.BAD_CONFIGURATION: Playbook(
        title="A configuration change broke {component}",
        mechanism="The configuration of {component} was changed shortly before it began to fail.",
        remedies=(ROLL_BACK, LIMIT_DAMAGE),
    ),
    Category.UNKNOWN: Playbook(
        title="{component} behaves unlike before",
        mechanism=("{component} departs from its baseline more than what it calls explains, and matches no playbook."),
    ),
}

STEP_SUMMARIES: Mapping[str, str] = {
    "check_ecs_health": "Check that the tasks of {service} are healthy",
    "restart_ecs_task": "Restart the tasks of {service}, one after the other",
    "restart_all_services": "Restart the tasks of {services}",
    "reduce_traffic": "Keep {keep_percent} % of the traffic of {service}, send the rest to the overflow page",
    "gradual_traffic_restore": "Raise the traffic of {service} to {steps_percent} %, {pause_s} s apart",
    "scale_ecs_service": "Run {desired_count} tasks of {service}",
    "rollback_ecs_service": "Put {service} back on the task definition before",
}
UNDO: Mapping[str, str] = {
    "reduce_traffic": "the traffic goes back to the weights of before",
    "gradual_traffic_restore": "the traffic goes back to the weights of before",
    "scale_ecs_service": "the desired number of tasks is put back",
    "rollback_ecs_service": "the service is put back on the task definition it runs now",
}
