"""The types that travel through the graph, and the graph's state.

All are frozen. A field added later needs a default: a checkpoint written by an older version must still load.
Telemetry and its parts come from ``collectors.base``; ``Resource`` and ``Risk`` from ``executors.base``.
"""

from collections.abc import Iterable
from hashlib import sha256
from math import isfinite
from typing import Any, Literal, NotRequired

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from collectors.base import Document, Edge, Gap, Scope, SeriesRef, Window
from executors.base import Risk

Choice = Literal["1", "2", "3", "manual", "re_analyze"]
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


Intent = Literal["mitigate", "fix", "least_risk"]
"""Stop the pain now, remove the cause, or touch as little as possible: options of a plan differ in it."""


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
    engine: str = Field(default="rules", description="Who proposed it: rules, or the model's name")
    engine_note: str = Field(default="", description="e.g. why the rules engine answered instead of the model")


class Plan(Model):
    """Up to three options. ``revision`` is a hash over everything a person sees."""

    revision: str
    options: tuple[ActionOption, ...]
    note: str = ""

    @classmethod
    def of(cls, options: Iterable[ActionOption], note: str = "", *, salt: str = "") -> "Plan":
        """A plan with its revision computed. ``salt`` ties it to incident, round and attempt."""
        options = tuple(options)[:3]
        shown = "\n".join([salt, note, *(o.model_dump_json() for o in options)])
        return cls(revision=sha256(shown.encode()).hexdigest()[:16], options=options, note=note)


class Decision(Model):
    """What a person decided, bound to the plan revision they saw."""

    plan_revision: str
    choice: Choice
    hint: str = ""
    note: str = ""
    by: str
    at: AwareDatetime
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


class Execution(Model):
    """One decision carried out."""

    plan_revision: str
    choice: Choice
    title: str
    results: tuple[StepResult, ...]
    verification: Verification
    undone: tuple[StepResult, ...] = Field(default=(), description="Steps put back because things got worse")


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
