"""Whether an alert belongs to an incident that is open already: a score, and a sentence that says why. Pure.

Failures travel from a callee to its callers. So an alert may be a consequence of an incident's alerts (its service
calls theirs), or their cause (they call it, and nothing else in the incident explains them yet). Two alerts that share
a caller, or merely a rule, have nothing to do with each other.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from collectors.base import Edge

HOPS = 2  # further away a fault is rarely told from noise
SAME_RESOURCE, SAME_SERVICE = 0.9, 0.8
CONSEQUENCE = {1: 0.7, 2: 0.55}  # by hops from the alert's service down to one that alerts already
CAUSE = {1: 0.65, 2: 0.55}  # by hops from a service that alerts already down to the alert's
NAMED = 0.15  # on top, where an alert names the service that alerts already: «GET /search is slow»
SAME_WORDS = 0.2  # at most, on top of the above: words alone merge nothing
FADES = 0.3  # what a score loses over the whole window
# Tags, labels and dimensions that name one thing. Most do not: two services with `http.status_code:500`, or in the same
# cluster, have nothing to do with each other.
IDENTIFYING = frozenset(
    """autoscalinggroupname bucketname cacheclusterid cachenodeid clusteridentifier container.id container_id
    db.instance dbclusteridentifier dbinstanceidentifier deliverystreamname domain filesystemid function
    functionname host host.name hostname instance instance_id instanceid job_name k8s.node.name k8s.pod.name
    natgatewayid node node_name pod pod_name queue queuename replicationgroupid server statemachinearn
    streamname tablename targetgroup taskid topic topicname tunnelid volumeid vpnid""".split()  # noqa: SIM905  readable as it is
)
# What breaks on its own and never because a callee failed.
OWN_FAULT = re.compile(r"\b(disk|inodes?|filesystem|certificate|backup|licen[cs]e|ntp|clock skew)\b", re.IGNORECASE)
WORD = re.compile(r"[^\W\d_]{3,}")


class Correlation(BaseModel):
    """Which alerts are merged into one incident: ``correlation:`` of autopilot.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    resource: bool = Field(default=True, description="Alerts that share a host, a queue, a database … belong together")
    service: bool = Field(default=True, description="Alerts of one service belong together")
    topology: bool = Field(default=True, description="Alerts of services that call each other belong together")
    text: bool = Field(default=True, description="Equal words add to a score")
    window_minutes: float = Field(default=15.0, gt=0, le=1440, description="How far apart two alerts may be")
    threshold: float = Field(default=0.5, ge=0.3, le=1.0, description="The score from which an alert is merged")
    never: tuple[str, ...] = Field(
        default=(), description="Rules whose alerts are never merged with others: datadog:monitor:77"
    )
    reopen_minutes: float = Field(
        default=30.0, ge=0, le=1440, description="An alert back within so long of its recovery reopens its incident"
    )

    @property
    def reopen_within(self) -> timedelta:
        """How soon an alert has to be back to reopen its incident."""
        return timedelta(minutes=self.reopen_minutes)

    @property
    def window(self) -> timedelta:
        """How far apart two alerts may be."""
        return timedelta(minutes=self.window_minutes)


@dataclass(frozen=True)
class Subject:
    """What correlation looks at in an alert."""

    fingerprint: str
    rule: str
    service: str
    environment: str
    resources: frozenset[str]  # key:value
    title: str
    at: datetime

    @property
    def own_fault(self) -> bool:
        """Whether this is a fault that no callee can cause."""
        return OWN_FAULT.search(self.title) is not None


@dataclass(frozen=True)
class Match:
    """How well an alert fits an incident, and why, as a sentence."""

    score: float
    why: str


@dataclass
class Topology:
    """Who calls whom, as far as the catalogue and the traces know."""

    edges: Iterable[Edge] = ()
    _below: dict[str, dict[str, int]] = field(default_factory=dict, init=False)
    _calls: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set), init=False)
    _called_by: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set), init=False)

    def __post_init__(self) -> None:
        for edge in self.edges:
            self._calls[edge.caller].add(edge.callee)
            self._called_by[edge.callee].add(edge.caller)

    def down(self, caller: str, callee: str) -> int | None:
        """How many calls lie between the two; None beyond ``HOPS``, or where there is no way. 0 for itself."""
        if caller not in self._below:
            self._below[caller] = _reach(self._calls, caller)
        return self._below[caller].get(callee)

    def around(self, service: str) -> set[str]:
        """The services an alert of this one may have to do with, itself included."""
        return {*_reach(self._calls, service), *_reach(self._called_by, service)}


def _reach(next_to: Mapping[str, set[str]], start: str) -> dict[str, int]:
    distance, ring = {start: 0}, [start]
    for hops in range(1, HOPS + 1):
        ring = [n for here in ring for n in next_to.get(here, ()) if n not in distance]
        distance.update((name, hops) for name in ring)
    return distance


def resource_pairs(resources: Mapping[str, str]) -> frozenset[str]:
    """Those tags, labels or dimensions that name one thing, as ``key:value``."""
    return frozenset(f"{key}:{value}"[:300] for key, value in resources.items() if key.lower() in IDENTIFYING and value)


def fit(
    alert: Subject, members: Sequence[Subject], services: Set[str], topology: Topology, rules: Correlation
) -> Match | None:
    """The best match of an alert with one of an incident's; None below the threshold.

    ``services`` are those of all the incident's alerts, of which ``members`` may be a few.
    """
    if alert.rule in rules.never:
        return None
    best: Match | None = None
    for member in members:
        if member.rule in rules.never or not _same_environment(alert, member):
            continue
        match = _match(alert, member, services, topology, rules)
        if match and (best is None or match.score > best.score):
            best = match
    return best if best and best.score >= rules.threshold else None


def _same_environment(alert: Subject, member: Subject) -> bool:
    return not alert.environment or not member.environment or alert.environment == member.environment


def _match(alert: Subject, member: Subject, services: Set[str], topology: Topology, rules: Correlation) -> Match | None:
    apart = abs(alert.at - member.at)
    if apart > rules.window:
        return None
    score, why = _base(alert, member, services, topology, rules)
    if not score:
        return None
    score *= 1 - FADES * (apart / rules.window)
    if rules.text:
        score += SAME_WORDS * _similarity(alert.title, member.title)
    return Match(round(min(score, 1.0), 2), f"{why}, {_duration(apart)} apart")


def _base(
    alert: Subject, member: Subject, services: Set[str], topology: Topology, rules: Correlation
) -> tuple[float, str]:
    if rules.resource and (shared := sorted(alert.resources & member.resources)):
        return SAME_RESOURCE, f"both are about {shared[0]}"
    if alert.service == member.service:
        if not rules.service or _each_for_itself(alert, member):
            return 0.0, ""
        return SAME_SERVICE, f"both are about {alert.service}"
    if not rules.topology:
        return 0.0, ""
    down = topology.down(alert.service, member.service)
    if down and not alert.own_fault:
        score = CONSEQUENCE[down] + (NAMED if _names(alert, member.service) else 0.0)
        return score, f"{alert.service} calls {member.service}{_by_way(down)}"
    up = topology.down(member.service, alert.service)
    if up and not member.own_fault and not _explained(member.service, services, topology):
        return CAUSE[up], f"{member.service} calls {alert.service}{_by_way(up)}"
    return 0.0, ""


def _names(alert: Subject, service: str) -> bool:
    """Whether the alert's title, or what it watches, has the service's name in it as a word."""
    said = " ".join((alert.title, *(pair.partition(":")[2] for pair in alert.resources)))
    return re.search(rf"(?<![a-z0-9-]){re.escape(service)}(?![a-z0-9-])", said, re.IGNORECASE) is not None


def _each_for_itself(alert: Subject, member: Subject) -> bool:
    """Two disks that are full are two faults, even if one rule watches both for one service."""
    return bool((alert.own_fault or member.own_fault) and alert.resources and member.resources)


def _explained(service: str, services: Set[str], topology: Topology) -> bool:
    """Whether something the service calls alerts already in the incident."""
    return any(topology.down(service, other) for other in services)


def _similarity(one: str, other: str) -> float:
    """Jaccard index of the words, 0 to 1."""
    a, b = ({w.lower() for w in WORD.findall(text)} for text in (one, other))
    return len(a & b) / len(a | b) if a and b else 0.0


def _by_way(hops: int) -> str:
    return "" if hops == 1 else f" ({hops} calls away)"


def _duration(span: timedelta) -> str:
    seconds = round(span.total_seconds())
    return f"{seconds} s" if seconds < 120 else f"{round(seconds / 60)} min"
