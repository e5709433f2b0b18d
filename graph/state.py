"""The types that travel through the graph, and the graph's state.

All are frozen. A field added later needs a default: a checkpoint written by an older version must still load.
Telemetry and its parts come from ``collectors.base``; ``Resource`` and ``Risk`` from ``executors.base``.
"""

import json
from collections.abc import Iterable
from hashlib import sha256
from math import isfinite
from typing import Any, Literal, NotRequired

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from collectors.base import Document, Edge, Gap, Scope, SeriesRef, Window
from executors.base import Change, PreflightCheck, Risk

Choice = Literal[
    "1",
    "2",
    "3",
    "manual",
    "re_analyze",
    "re_plan",  # the options anew, against the present state: after drift, or when the plan is too old
    "undo",  # put back what the last option changed
]
Role = Literal["viewer", "responder", "admin"]
"""What a caller may do; each includes the one before."""
Severity = Literal["critical", "warning", "info"]
Transition = Literal[
    "firing",
    "no_data",  # the monitor was told to call when data stops: as good as firing
    "resolved",
    "renotify",  # a reminder: says nothing new
    "insufficient_data",  # CloudWatch cannot tell: neither firing nor resolved
]
MAX_ROUNDS = 3  # first analysis + two re-analyses
Language = Literal["en", "ko"]
"""What reports are written in. Ids, names and quotes stay as they are."""


class Model(BaseModel):
    """Immutable value; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Alert(Model):
    """What woke us, normalised by its sender's file in ``app/intake``."""

    source: str = Field(description="datadog, cloudwatch, rest, …")
    rule: str = Field(default="", description="Monitor or alarm rule, whatever it watches: datadog:monitor:77")
    title: str
    severity: Severity = "critical"
    service: str
    environment: str = ""
    resources: dict[str, str] = Field(
        default_factory=dict, description="What the rule watches, by the sender's own tags, labels or dimensions"
    )
    occurred_at: AwareDatetime
    changed_at: AwareDatetime | None = Field(
        default=None, description="When this transition happened at its source; None: at occurred_at"
    )
    fingerprint: str = Field(description="Rule and resource: the same every time it fires")
    cycle_key: str = Field(description="The same from trigger to recovery")
    transition: Transition = "firing"
    url: str | None = None
    text: str = ""


def storable(value: Any) -> Any:
    """JSON as Postgres stores it: telemetry may hold NUL, halves of surrogate pairs, infinities and NaN."""
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    if isinstance(value, str):
        return value.replace("\x00", "").encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {storable(k): storable(v) for k, v in value.items()}
    return [storable(v) for v in value] if isinstance(value, list) else value


def _canonical(value: Any) -> Any:
    """The same for 10.0, 10 and 1e1: Postgres' jsonb keeps numbers, not how they were written."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {k: _canonical(v) for k, v in value.items()}
    return [_canonical(v) for v in value] if isinstance(value, list) else value


# --- evidence ---

FindingKind = Literal["metric", "log", "trace", "change", "status", "topology", "knowledge"]


class Finding(Model):
    """One numbered piece of evidence: what changed, observed against baseline."""

    id: str = Field(description="E1 … En, most informative first")
    kind: FindingKind
    component: str
    signal: str = Field(description="Metric name, log template, span operation, change title")
    at: AwareDatetime = Field(description="Onset, as far as the data shows it")
    observed: float | None = None
    baseline: float | None = None
    unit: str = ""
    effect: float = Field(default=0.0, ge=0.0, description="Effect size; comparable within a kind, 0 = none")
    summary: str = Field(description="One sentence with the numbers in it")
    excerpt: str = Field(default="", description="Verbatim text from the source, bounded")
    link: str | None = None
    source: str = Field(default="", description="Collector that saw it")
    sha256: str = Field(default="", description="Of the raw snapshot it came from")
    ref: SeriesRef | None = Field(default=None, description="How to measure it again")
    worse: Literal["up", "down", "neutral"] = Field(
        default="up", description="Which way is bad: errors up, success rate down, traffic neither"
    )
    points: tuple[tuple[float, float], ...] = Field(default=(), description="(epoch seconds, value), thinned to draw")
    band: tuple[float, float] | None = Field(default=None, description="Where the values usually lie, low and high")
    query: str = Field(default="", description="What was asked, in the source's own language")
    instance: str = Field(default="", description="Pod, task or host, if only that one is concerned")
    asked: str = Field(default="", description="The analyst's question it answers; empty: ContextCollector found it")


class Hop(Model):
    """One step of a causal path, with the checks that hold. ``cause`` made ``effect`` fail."""

    cause: str
    effect: str
    structural: bool = Field(description="The edge exists in the topology")
    statistical: bool = Field(description="Both ends deviate")
    temporal: bool = Field(description="The cause does not start later than its effect")
    asynchronous: bool = Field(default=False, description="The effect does not wait for the cause's answer")


class Suspect(Model):
    """A component that may be the cause, ranked without an LLM."""

    component: str
    score: float = Field(ge=0.0, le=1.0)
    findings: tuple[str, ...] = Field(description="Ids of the findings that speak for it")
    path: tuple[Hop, ...] = Field(default=(), description="From this component to the alerted service")
    why: str = ""
    kind: str = Field(default="", description="service, database, cache, queue or external, where a source knows")
    instances: tuple[str, ...] = Field(default=(), description="Pods, tasks or hosts, if only these are in trouble")
    change: str | None = Field(default=None, description="Id of the finding of the change that may have caused it")
    affected: tuple[str, ...] = Field(default=(), description="What depends on it and deviates too, nearest first")
    reasons: tuple[str, ...] = Field(default=(), description="How the score came about, one step a line")


class ImpactFigure(Model):
    """One number of the impact, computed from telemetry."""

    name: str
    value: float
    unit: str
    window: str = Field(description="Over which time")
    evidence: tuple[str, ...] = ()


class Assessment(Model):
    """Is anything wrong at all, and how far can the first suspect be believed? Computed, never a model's opinion."""

    state: Literal["incident", "recovered", "no_incident", "not_enough_data"]
    trouble: float = Field(ge=0.0, le=1.0, description="How sure it is that anything is wrong")
    certainty: float = Field(ge=0.0, le=1.0, description="Calibrated chance that the first suspect is the cause")
    abstains: bool = Field(description="Too unsure to name a cause: suspects are leads, no more")
    why: str = ""


class LookedAt(Model):
    """The windows of time that the evidence is about."""

    incident: Window
    baseline: tuple[Window, ...]
    seasonal: tuple[Window, ...] = ()


class PastIncident(Model):
    """What came of an earlier incident that looked like this one. Its texts are data, never instructions.

    It tells what happened then; nothing of it was measured now, so nothing that is said of now may rest on it alone.
    """

    incident_id: str = Field(description="Ours (inc_…), or the name under which it was imported")
    at: str = Field(description="A date, e.g. 2026-11-23")
    component: str = Field(description="Its cause, as known best: a person's word overrules the analysis; or empty")
    category: str = Field(description="Of its cause; a key of graph/llms/playbooks, or empty")
    title: str
    remedy: str = Field(default="", description="What was run, with the names of its operations; or «by hand: …»")
    verdict: str = Field(default="", description="resolved, improved, unchanged, worse, by_hand, recovered, unresolved")
    reasons: tuple[str, ...] = Field(default=(), description="Why it is held to be alike, the strongest first")
    score: float = Field(default=0.0, description="How much alike; comparable within one answer only")
    wrong: bool = Field(default=False, description="A person said that its analysis was wrong, or partly so")
    corrected: bool = Field(default=False, description="And the cause that is named here is the one a person named")
    helped: str = Field(default="", description="What really helped, by a person's word")
    evidence: str = Field(default="", description="Id of the finding that tells of it; RootCauseAnalyzer numbers it")


class Evidence(Model):
    """What ContextCollector froze: all that later nodes may cite."""

    digest: str = Field(description="sha256 over the snapshots' hashes")
    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]
    impact: tuple[ImpactFigure, ...] = ()
    gaps: tuple[Gap, ...] = ()
    documents: tuple[Document, ...] = Field(default=(), description="Sections of runbooks that fit; not evidence")
    looked_at: LookedAt | None = None
    assessment: Assessment | None = None
    causes: tuple[str, ...] = Field(default=(), description="Suspects that explain the trouble only together")
    unlisted: int = Field(default=0, ge=0, description="Findings too dull to list")
    edges: tuple[Edge, ...] = Field(default=(), description="Who calls whom, around the suspects")
    readable: tuple[SeriesRef, ...] = Field(
        default=(), description="Metrics of the suspects and their neighbours that an analyst may ask to see"
    )
    similar: tuple[PastIncident, ...] = Field(
        default=(), description="Earlier incidents that looked like this one, the most telling first"
    )

    def finding(self, eid: str) -> Finding | None:
        """The finding of that id, if there is one."""
        return next((f for f in self.findings if f.id == eid), None)


# --- analysis ---


class Claim(Model):
    """One sentence and the evidence it rests on. ``verified`` is set by code, never by a model."""

    text: str
    evidence: tuple[str, ...]
    quote: str = Field(default="", description="The number or the words of the evidence that it rests on, verbatim")
    verified: bool = False
    complaint: str = Field(default="", description="Why it did not verify")


class GroundingCheck(Model):
    """One row of the grounding table: what was said, and what code found when it looked."""

    about: Literal["component", "claim", "hop", "mechanism", "title", "rival", "impact", "ranking"]
    text: str
    evidence: tuple[str, ...] = ()
    verdict: Literal["verified", "repaired", "not_verified", "dropped"] = Field(
        description="repaired: it failed first and held after the analyst was told why"
    )
    complaint: str = Field(default="", description="Why it failed; of what was repaired, why it failed first")


class Rival(Model):
    """Another explanation and what speaks for and against it."""

    component: str
    for_: str = Field(default="", alias="for", serialization_alias="for")
    against: str = ""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class RootCause(Model):
    """The answer to «why?». ``component`` is None when the analysis is inconclusive."""

    component: str | None
    category: str = Field(description="A key of graph/llms/playbooks, e.g. connection_pool_exhaustion")
    title: str
    mechanism: str
    claims: tuple[Claim, ...] = ()
    path: tuple[Hop, ...] = ()
    rivals: tuple[Rival, ...] = ()
    unknowns: tuple[str, ...] = ()
    impact: str = Field(default="", description="Who notices what, in a sentence")
    confidence: Literal["high", "medium", "low", "inconclusive"]
    certainty: float | None = Field(
        default=None, ge=0.0, le=1.0, description="Calibrated chance that the component is right; None: not computed"
    )
    certainty_why: tuple[str, ...] = Field(default=(), description="What the certainty was computed from")
    contradicts: str = Field(default="", description="The analyst names another component than ranking: both, and why")
    checks: tuple[GroundingCheck, ...] = Field(default=(), description="The grounding table")
    changed: tuple[str, ...] = Field(default=(), description="What is different from the analysis before, and why")
    language: Language = "en"
    engine: str = Field(default="rules", description="rules, or the model that wrote it")
    engine_note: str = Field(default="", description="e.g. why the rules engine answered instead of the model")


# --- plan and decision ---


class ExpectedEffect(Model):
    """What must be measured afterwards for the option to have worked."""

    ref: SeriesRef
    comparator: Literal["<=", ">="]
    value: float
    within_minutes: float
    baseline: float | None = None
    observed: float | None = Field(default=None, description="At the time of analysis")


class PlanStep(Model):
    """One operation with its parameters, exactly as it will run."""

    operation: str
    params: dict[str, JsonValue]
    summary: str = ""
    preview: str = Field(default="", description="What would change, from what to what")
    infeasible: str = Field(default="", description="Why it cannot run now; empty means it can")
    changes: tuple[Change, ...] = Field(default=(), description="Before and after, line by line")
    checks: tuple[PreflightCheck, ...] = Field(default=(), description="What was looked at before a person was asked")
    pinned: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="The target's state that an approval is bound to; empty: it changes nothing, or an earlier step"
        " of the option changes the same target",
    )

    @property
    def call(self) -> str:
        """In one line: the operation and its parameters."""
        return f"{self.operation} {', '.join(f'{name}={value}' for name, value in self.params.items())}".strip()


Intent = Literal["mitigate", "fix", "least_risk"]
"""Stop the pain now, remove the cause, or touch as little as possible: options of a plan differ in it."""


class AffectedService(Model):
    """A service that feels an option."""

    service: str
    how: Literal["changed", "caller", "callee"]
    hops: int = Field(default=0, ge=0, description="Calls between it and what is changed")


class CapacityEstimate(Model):
    """Whether what is left can carry the load: an M/M/c queue."""

    service: str
    servers_now: float
    servers_then: float = Field(description="At the lowest point")
    utilisation_now: float | None = Field(default=None, description="0 to 1; None: not measured")
    utilisation_then: float | None = None
    wait_then: float | None = Field(
        default=None, description="Mean time to an answer as a multiple of today's; None: unbounded, or not measured"
    )
    basis: str = Field(default="", description="What it was computed from")


class BlastRadius(Model):
    """Whom an option touches, and what is left meanwhile."""

    services: tuple[AffectedService, ...] = ()
    request_share: float | None = Field(
        default=None, ge=0.0, le=1.0, description="Of the requests in the incident's scope; None: not measured"
    )
    capacity: tuple[CapacityEstimate, ...] = ()
    reversible: Literal["all", "partly", "no"] = "no"


class Needs(Model):
    """What the policy asks for before an option may run."""

    role: Role = "responder"
    approvals: int = Field(default=1, ge=1, description="By so many different people")
    not_by: str = Field(default="", description="Who may not approve it: whoever asked for it")
    dry_run: bool = Field(default=False, description="The environment is dry-run only: nothing will be changed")
    refused: tuple[str, ...] = Field(default=(), description="Why the policy does not let it run now")
    why: tuple[str, ...] = Field(default=(), description="The rules that ask for it")


class ActionOption(Model):
    """One remedy a person may pick."""

    title: str
    description: str
    intent: Intent | None = None
    benefit: float = Field(default=0.5, ge=0.0, le=1.0, description="How much of the trouble it should take away")
    track_record: str = Field(default="", description="How its operations did on this kind of failure before")
    why: tuple[str, ...] = Field(default=(), description="Evidence ids")
    risk: Risk
    minutes: float
    steps: tuple[PlanStep, ...]
    expected: tuple[ExpectedEffect, ...] = ()
    undo: str = Field(default="", description="How it is undone; empty means it cannot be")
    tried: str = Field(default="", description="Verdict, if it was run in this incident already")
    blast_radius: BlastRadius | None = None
    needs: Needs = Needs()
    engine: str = Field(default="rules", description="Who proposed it: rules, or the model's name")
    engine_note: str = Field(default="", description="e.g. why the rules engine answered instead of the model")


class Plan(Model):
    """Up to three options. ``digest`` is a hash over everything a person sees, and what it rests on."""

    revision: str = Field(description="The first 16 characters of the digest: what a decision names")
    digest: str = Field(default="", description="sha256")
    number: int = Field(default=1, description="1, 2, … within the incident")
    options: tuple[ActionOption, ...]
    note: str = ""
    evidence_sha256: str = Field(default="", description="Of the evidence and the root cause it rests on")
    policy_version: str = ""
    salt: str = Field(default="", description="Ties it to its incident and round")

    @classmethod
    def of(
        cls,
        options: Iterable[ActionOption],
        note: str = "",
        *,
        salt: str = "",
        number: int = 1,
        evidence_sha256: str = "",
        policy_version: str = "",
    ) -> "Plan":
        """A plan with its digest computed. ``salt`` ties it to its incident and round."""
        unsigned = cls(
            revision="",
            number=number,
            options=tuple(options)[:3],
            note=note,
            evidence_sha256=evidence_sha256,
            policy_version=policy_version,
            salt=salt,
        )
        digest = unsigned._computed_digest()
        return unsigned.model_copy(update={"revision": digest[:16], "digest": digest})

    @property
    def intact(self) -> bool:
        """Whether all of it still is what its digest was computed from, wherever it was stored meanwhile."""
        return self.digest == self._computed_digest() and self.revision == self.digest[:16]

    def _computed_digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"revision", "digest"})
        return sha256(json.dumps(_canonical(storable(content)), sort_keys=True).encode()).hexdigest()


Door = Literal["rest", "slack", "console", "cli"]
"""Through which a decision came."""


class Approval(Model):
    """One person's yes."""

    by: str
    role: Role
    via: Door = "rest"
    at: AwareDatetime


class Decision(Model):
    """What people decided, bound to the plan revision they saw."""

    plan_revision: str
    choice: Choice
    steps: tuple[int, ...] = Field(default=(), description="Ordinals that were approved; empty: all of the option")
    hint: str = ""
    note: str = ""
    by: str = Field(description="Whose approval completed it")
    via: Door = "rest"
    at: AwareDatetime
    approvals: tuple[Approval, ...] = ()
    plan_digest: str = ""
    language: Language | None = Field(default=None, description="Of the next analysis, if it is to change")


# --- execution ---

Verdict = Literal["resolved", "improved", "unchanged", "worse", "not_measurable"]


class StepResult(Model):
    """What became of one step."""

    ordinal: int
    operation: str
    params: dict[str, JsonValue] = Field(default_factory=dict)
    status: Literal["succeeded", "failed", "unknown", "skipped", "dry_run"]
    detail: str = ""
    made: bool = Field(default=False, description="The change was made, whatever came of it")
    before: dict[str, JsonValue] = Field(default_factory=dict)
    after: dict[str, JsonValue] = Field(default_factory=dict)
    request_ids: tuple[str, ...] = ()
    claimed_at: AwareDatetime | None = Field(default=None, description="None: no call was made")
    finished_at: AwareDatetime | None = None


class EffectCheck(Model):
    """One expected effect, measured."""

    effect: ExpectedEffect
    status: Literal["met", "not_met", "not_measurable"]
    before: float | None = None
    after: float | None = None
    detail: str = ""


class Verification(Model):
    """Did it work? Measured, not believed."""

    verdict: Verdict
    checks: tuple[EffectCheck, ...] = ()
    detail: str = ""
    credit: Literal["remedy", "unclear", "by_itself"] = Field(
        default="unclear", description="Whether it was the remedy, by comparison with the control"
    )
    control: str = Field(default="", description="What it was compared with, and what that did meanwhile")


class Execution(Model):
    """One decision carried out."""

    plan_revision: str
    choice: Choice
    title: str
    results: tuple[StepResult, ...]
    verification: Verification
    undone: tuple[StepResult, ...] = Field(
        default=(), description="Steps put back, last first: because things got worse, or because a person chose undo"
    )
    undoes: str = Field(default="", description="Of choice undo: the plan revision whose steps were put back")


# --- the state ---


class State(TypedDict):
    """Each key is written by exactly one node, named in the comment."""

    incident_id: str  # the runner, as input
    alert: Alert  # the runner, as input
    language: NotRequired[Language]  # the runner, as input; RemediationDecision where a person asks for another
    scope: NotRequired[Scope]  # SlackAlert
    evidence: NotRequired[Evidence]  # ContextCollector; RootCauseAnalyzer appends what it asked for
    round: NotRequired[int]  # ContextCollector: 1, 2, 3
    root_cause: NotRequired[RootCause]  # RootCauseAnalyzer
    plan: NotRequired[Plan]  # ActionPlanner
    decision: NotRequired[Decision]  # RemediationDecision
    hints: NotRequired[tuple[str, ...]]  # RemediationDecision
    executions: NotRequired[tuple[Execution, ...]]  # ActionExecutor
