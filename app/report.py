"""Incident -> report. Pure: it reads nothing, it only arranges, and writes anew what the rules engine said."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from app.decisions import WaitingApproval
from collectors.base import Document, Edge, Gap, Scope
from graph import memory
from graph.comparison import changed
from graph.confidence import confident
from graph.grounding import ground, known_components
from graph.llms.rules import explain
from graph.llms.sentences import alike, restated, told
from graph.pictures import blamed, finding_chart, topology_picture
from graph.sentences import folded
from graph.state import (
    ActionOption,
    Approval,
    Assessment,
    Claim,
    Door,
    Evidence,
    Execution,
    Finding,
    Hop,
    ImpactFigure,
    Language,
    LookedAt,
    PastIncident,
    Plan,
    RootCause,
    Suspect,
)

M = TypeVar("M", bound=BaseModel)
IN_THEIR_WORDS = frozenset(("note", "feedback", "refusal"))  # lines of the history that people wrote
OUR_ID = re.compile(r"inc_[0-9A-Za-z]+")  # of an incident here; an imported one has a name of its own, and no page


class DecisionMade(BaseModel):
    """One decision of the history."""

    plan_revision: str
    plan_digest: str = Field(default="", description="sha256 of the plan, as it was shown; of choices 1 to 3")
    choice: str
    steps: tuple[int, ...] = Field(default=(), description="The steps that were approved; empty: all of the option")
    hint: str = ""
    note: str = ""
    by: str
    via: Door = "rest"
    at: datetime
    approvals: tuple[Approval, ...] = Field(default=(), description="Everybody who approved it; the last completed it")
    withdrawn_by: str = Field(default="", description="Who took it back before anything of it began; empty: nobody")
    withdrawn_at: datetime | None = None
    language: Language | None = Field(default=None, description="Of the analysis that it asked for, if it named one")


class NoteMade(BaseModel):
    """What somebody did by hand, as they noted it; perhaps after the incident was closed."""

    at: datetime
    by: str
    text: str


class AlertOf(BaseModel):
    """One alert of the incident, from trigger to recovery."""

    title: str
    service: str
    source: str
    state: Literal["firing", "recovered"]
    since: datetime
    merge_reason: str = Field(default="", description="Why it was put here; empty for the one that opened the incident")
    score: float | None = Field(default=None, description="How well it fits, where it was merged; 0 to 1")
    url: str | None = None


class TimelineEntry(BaseModel):
    """One line of the history."""

    id: int
    at: datetime
    kind: str
    node: str = ""
    status: str = Field(default="", description="That the incident took, of kind status")
    message: str


class ModelUse(BaseModel):
    """What the model was asked for an incident in all its analyses; each call: GET /incidents/{id}/model-calls."""

    calls: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    dollars: float = Field(description="At list price; where nobody knows what a call cost, the most it can have been")
    seconds: float = Field(description="Of all calls, one after the other")


class Report(BaseModel):
    """All there is to say about an incident. What is not known yet is null or empty."""

    incident_id: str
    language: Language = Field(
        default="en", description="Of its labels, and of what the rules engine wrote; a model's text says its own"
    )
    title: str
    service: str
    environment: str
    severity: str
    status: str
    status_reason: str = ""
    occurred_at: datetime
    opened_at: datetime
    closed_at: datetime | None = None
    round: int = Field(default=0, description="How many analyses were made")
    admitted_at: datetime | None = Field(default=None, description="When its investigation could begin")
    flaps: int = Field(default=0, description="How often its alerts came back after a recovery")
    alert_count: int = 0
    alerts: tuple[AlertOf, ...] = Field(default=(), description="The first of its alerts, oldest first")
    root_cause: RootCause | None = None
    assessment: Assessment | None = Field(default=None, description="Is anything wrong, and how sure is the cause?")
    suspects: tuple[Suspect, ...] = ()
    causes: tuple[str, ...] = Field(default=(), description="Suspects that explain the trouble only together")
    edges: tuple[Edge, ...] = Field(default=(), description="Who calls whom, around the suspects")
    evidence: tuple[Finding, ...] = ()
    unlisted: int = Field(default=0, description="Findings too dull to list")
    evidence_digest: str = ""
    path: tuple[Hop, ...] = ()
    impact: tuple[ImpactFigure, ...] = ()
    gaps: tuple[Gap, ...] = ()
    documents: tuple[Document, ...] = Field(default=(), description="Sections of runbooks that fit")
    similar: tuple[PastIncident, ...] = Field(
        default=(),
        description="Earlier incidents that looked like this one when it was analysed, the most telling first",
    )
    looked_at: LookedAt | None = Field(default=None, description="The windows of time that the evidence is about")
    plan_revision: str | None = None
    plan_number: int | None = Field(default=None, description="1, 2, … within the incident")
    plan_digest: str = Field(default="", description="sha256 over all of the plan, and what it rests on")
    policy_version: str = Field(default="", description="Of the policy under which it was made")
    options: tuple[ActionOption, ...] = ()
    plan_note: str = ""
    approvals: tuple[WaitingApproval, ...] = Field(default=(), description="That wait for another person's")
    decisions: tuple[DecisionMade, ...] = ()
    executions: tuple[Execution, ...] = ()
    notes: tuple[NoteMade, ...] = Field(default=(), description="What was done by hand, oldest first")
    history: tuple[TimelineEntry, ...] = ()
    model_use: ModelUse | None = Field(default=None, description="null: no model was asked")

    @property
    def waits(self) -> bool:
        """Its investigation has not begun: the budget or a silence holds it back."""
        return self.status == "received" and self.admitted_at is None

    @property
    def blamed(self) -> tuple[Suspect, ...]:
        """All causes if they are several, else the first suspect; empty if there is none."""
        return blamed(self)

    @property
    def affected(self) -> tuple[str, ...]:
        """What depends on them and deviates too, nearest first."""
        return tuple(dict.fromkeys(name for s in self.blamed for name in s.affected))

    @property
    def by_hand(self) -> bool:
        """Whether somebody took it by hand, by the newest decision."""
        return bool(self.decisions) and self.decisions[-1].choice == "manual"

    @property
    def open_questions(self) -> tuple[str, ...]:
        """What the analysis names as unknown, without what a gap tells already."""
        unknowns = self.root_cause.unknowns if self.root_cause else ()
        return tuple(said for said in unknowns if not any(g.detail and g.detail in said for g in self.gaps))

    @property
    def charted(self) -> tuple[Finding, ...]:
        """The findings with values over time, most informative first."""
        return tuple(f for f in self.evidence if f.points)


_OF_INCIDENT = (
    "title",
    "service",
    "environment",
    "severity",
    "status",
    "status_reason",
    "occurred_at",
    "opened_at",
    "closed_at",
    "round",
    "admitted_at",
    "flaps",
    "plan_revision",
)
_OF_EVIDENCE = (
    "assessment",
    "suspects",
    "causes",
    "edges",
    "unlisted",
    "impact",
    "gaps",
    "documents",
    "similar",
    "looked_at",
)


def build(
    incident: Mapping[str, Any],
    analyses: Sequence[Mapping[str, Any]],
    decisions: Sequence[Mapping[str, Any]],
    executions: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    alerts: Sequence[Mapping[str, Any]] = (),
    model_calls: Sequence[Mapping[str, Any]] = (),
    approvals: Sequence[Mapping[str, Any]] = (),
    *,
    language: Language | None = None,
) -> Report:
    """From the rows of ``app.store``; ``language``: of the report, None for the incident's."""
    language = language or incident["language"]
    last = analyses[-1] if analyses else {}
    root_cause = _root_cause(analyses, decisions, language)
    plan = Plan.model_validate(last["plan"]) if last.get("plan") else None
    report = Report(
        incident_id=incident["id"],
        language=language,
        **{name: incident[name] for name in _OF_INCIDENT},
        **(_of_evidence(Evidence.model_validate(last["evidence"])) if last.get("evidence") else {}),
        root_cause=root_cause,
        path=root_cause.path if root_cause else (),
        **(_of_plan(plan) if plan else {}),
        approvals=tuple(map(WaitingApproval.model_validate, approvals)),
        decisions=_decisions(decisions, events),
        notes=tuple(_note(e) for e in events if e["kind"] == "note"),
        executions=tuple(Execution.model_validate(e["body"]) for e in executions),
        alerts=tuple(map(_alert, alerts)),
        alert_count=alerts[0]["total"] if alerts else 0,
        history=tuple(map(_entry, events)),
        model_use=_model_use(model_calls),
    )
    return _in_its_language(report)


def _of_evidence(evidence: Evidence) -> dict[str, Any]:
    same = {name: getattr(evidence, name) for name in _OF_EVIDENCE}
    return {**same, "evidence": evidence.findings, "evidence_digest": evidence.digest}


def _of_plan(plan: Plan) -> dict[str, Any]:
    return {
        "options": plan.options,
        "plan_note": plan.note,
        "plan_number": plan.number,
        "plan_digest": plan.digest,
        "policy_version": plan.policy_version,
    }


def _decisions(decisions: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> tuple[DecisionMade, ...]:
    """Each with who took it back, as the timeline tells it."""
    taken_back = {
        e["data"]["plan_revision"]: {"withdrawn_by": e["data"]["by"], "withdrawn_at": e["at"]}
        for e in events
        if e["kind"] == "withdrawal" and e["data"]["what"] == "decision"
    }
    return tuple(
        DecisionMade.model_validate({**decision, **taken_back.get(decision["plan_revision"], {})})
        for decision in decisions
    )


def _entry(event: Mapping[str, Any]) -> TimelineEntry:
    status = (event["data"] or {}).get("status", "") if event["kind"] == "status" else ""
    same = {name: event[name] for name in ("id", "at", "kind", "node", "message")}
    return TimelineEntry(**same, status=status)


def _in_its_language(report: Report) -> Report:
    """With what our own code wrote of its work told anew; what people, models and sources wrote stays as it is."""
    if report.language == "en":
        return report
    return report.model_copy(
        update={
            "status_reason": retold(report, report.status_reason),
            "gaps": tuple(_anew(report, gap, "detail", "mend") for gap in report.gaps),
            "similar": tuple(
                past.model_copy(update={"reasons": tuple(alike(reason, report.language) for reason in past.reasons)})
                for past in report.similar
            ),
            "executions": tuple(_execution(report, execution) for execution in report.executions),
            "history": tuple(
                entry.model_copy(update={"message": happened(report, entry.kind, entry.message)})
                for entry in report.history
            ),
        }
    )


def _execution(report: Report, execution: Execution) -> Execution:
    seen = _anew(report, execution.verification, "detail", "control")
    return execution.model_copy(
        update={
            "results": tuple(_anew(report, result, "detail") for result in execution.results),
            "undone": tuple(_anew(report, result, "detail") for result in execution.undone),
            "verification": seen.model_copy(
                update={"checks": tuple(_anew(report, check, "detail") for check in seen.checks)}
            ),
        }
    )


def _anew(report: Report, model: M, *names: str) -> M:
    return model.model_copy(update={name: retold(report, getattr(model, name)) for name in names})


def _note(event: Mapping[str, Any]) -> NoteMade:
    by = str((event["data"] or {}).get("by", ""))
    return NoteMade(at=event["at"], by=by, text=event["message"].removeprefix(f"{by}: "))


def _root_cause(
    analyses: Sequence[Mapping[str, Any]], decisions: Sequence[Mapping[str, Any]], language: Language
) -> RootCause | None:
    """Of the last round, as it was stored; what the rules engine wrote, in ``language``."""
    last = analyses[-1] if analyses else {}
    if not last.get("root_cause"):
        return None
    stored = RootCause.model_validate(last["root_cause"])
    if stored.engine != "rules" or stored.language == language or not (last.get("evidence") and last.get("scope")):
        return stored
    told = _retold(analyses, _hints(decisions, before=last["round"]), language)
    if (told.component, told.category) != (stored.component, stored.category):
        return stored  # the rules have changed since, and would say something else than what was decided on
    return told.model_copy(update={"engine_note": stored.engine_note})


def _retold(analyses: Sequence[Mapping[str, Any]], hints: Sequence[str], language: Language) -> RootCause:
    """The rules engine's answer of the last round, written anew: it follows from these alone."""
    evidence = Evidence.model_validate(analyses[-1]["evidence"])
    scope = Scope.model_validate(analyses[-1]["scope"])
    before = next((a for a in reversed(analyses[:-1]) if a["root_cause"] and a["evidence"]), None)
    previous = RootCause.model_validate(before["root_cause"]) if before else None
    again = explain(evidence, scope.service, hints=hints, previous=previous, language=language)
    again = confident(ground(again, evidence, known_components(scope, evidence)), evidence)
    if before is None or previous is None:
        return again
    return again.model_copy(update={"changed": changed(previous, again, hints)})


def _hints(decisions: Sequence[Mapping[str, Any]], *, before: int) -> list[str]:
    """What people said when they asked for the rounds up to this one."""
    asked = [d["hint"] for d in decisions if d["choice"] == "re_analyze"]
    return [hint for hint in asked[: before - 1] if hint]


def _alert(row: Mapping[str, Any]) -> AlertOf:
    """Of a row of ``store.incidents.alert_cycles``."""
    return AlertOf(state="recovered" if row["recovered"] else "firing", **_but(row, "recovered"))


def _model_use(calls: Sequence[Mapping[str, Any]]) -> ModelUse | None:
    """Of rows of ``store.llm_calls.page``."""
    if not calls:
        return None
    return ModelUse(
        calls=len(calls),
        failed=sum(bool(c["error"]) for c in calls),
        prompt_tokens=sum(c["prompt_tokens"] for c in calls),
        completion_tokens=sum(c["completion_tokens"] for c in calls),
        dollars=sum(c["dollars"] + c["reserved_dollars"] for c in calls),
        seconds=sum(c["seconds"] or 0.0 for c in calls),
    )


def _but(row: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != left_out}


def quotation(claim: Claim) -> str:
    """What it quotes of the evidence, unless its own words say it already."""
    return "" if folded(claim.quote) in folded(claim.text) else claim.quote


def beside_claims(cause: RootCause) -> str:
    """The mechanism without the sentences that are claims: these are told with their evidence."""
    rest = cause.mechanism
    for said in filter(None, (claim.text.strip().rstrip(".") for claim in cause.claims)):
        rest = re.sub(rf"{re.escape(said)}\s*(\[[^\]]*\])?\.?\s*", "", rest)
    return rest.strip()


def summary(report: Report, finding: Finding) -> str:
    """What it shows, in the report's language."""
    past = next((past for past in report.similar if past.evidence == finding.id), None)
    if past is not None:
        return memory.told(past, report.language)
    return finding.summary if report.language == "en" else f"{told(finding, report.language)}."


def retold(report: Report, said: str) -> str:
    """What our code says of the incident as a whole, and of its own work, in the report's language."""
    return restated(said, report.language)


def happened(report: Report, kind: str, message: str) -> str:
    """A line of the timeline, in the report's language unless a person wrote it."""
    return message if kind in IN_THEIR_WORDS else retold(report, message)


def topology(report: Report, *, language: str = "en", inline: bool = False) -> str:
    """The topology as SVG; empty where nobody knows who calls whom and nothing is suspected."""
    if not report.edges and not report.suspects:
        return ""
    return topology_picture(report, report.service, language=language, inline=inline)


def chart(report: Report, finding: Finding, *, language: str = "en", inline: bool = False) -> str:
    """A finding's values over time as SVG; empty where it has none."""
    if not finding.points:
        return ""
    return finding_chart(finding, report.looked_at, report.evidence, language=language, inline=inline)
