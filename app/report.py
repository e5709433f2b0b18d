"""Incident -> report, as JSON and as markdown. Pure: it reads nothing, it only arranges."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field

from collectors.base import Document, Edge, Gap
from graph.pictures import blamed, finding_chart, topology_picture
from graph.state import (
    ActionOption,
    Assessment,
    Evidence,
    Execution,
    Finding,
    Hop,
    ImpactFigure,
    LookedAt,
    Plan,
    RootCause,
    StepResult,
    Suspect,
    Verification,
)

MAX_CHARTS = 4  # in the markdown report: more evidence is read, not looked at
MAX_EMBEDDED = 60_000  # characters of pictures in the markdown report, as many viewers cut long pages
STATES = {
    "incident": "something is wrong",
    "recovered": "it was wrong and has recovered",
    "no_incident": "nothing is wrong",
    "not_enough_data": "there is not enough data to tell",
}


class DecisionMade(BaseModel):
    """One decision of the history."""

    plan_revision: str
    choice: str
    hint: str = ""
    note: str = ""
    by: str
    at: datetime


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
    message: str


class Report(BaseModel):
    """All there is to say about an incident. What is not known yet is null or empty."""

    incident_id: str
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
    looked_at: LookedAt | None = Field(default=None, description="The windows of time that the evidence is about")
    plan_revision: str | None = None
    options: tuple[ActionOption, ...] = ()
    plan_note: str = ""
    decisions: tuple[DecisionMade, ...] = ()
    executions: tuple[Execution, ...] = ()
    history: tuple[TimelineEntry, ...] = ()

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
    def charted(self) -> tuple[Finding, ...]:
        """The findings with values over time, most informative first."""
        return tuple(f for f in self.evidence if f.points)


def build(
    incident: Mapping[str, Any],
    analyses: Sequence[Mapping[str, Any]],
    decisions: Sequence[Mapping[str, Any]],
    executions: Sequence[Mapping[str, Any]],
    events: Sequence[Mapping[str, Any]],
    alerts: Sequence[Mapping[str, Any]] = (),
) -> Report:
    """From the rows of ``app.store.incidents``."""
    last = analyses[-1] if analyses else {}
    evidence = Evidence.model_validate(last["evidence"]) if last.get("evidence") else None
    root_cause = RootCause.model_validate(last["root_cause"]) if last.get("root_cause") else None
    plan = Plan.model_validate(last["plan"]) if last.get("plan") else None
    return Report(
        incident_id=incident["id"],
        **{
            k: incident[k]
            for k in (
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
        },
        root_cause=root_cause,
        assessment=evidence.assessment if evidence else None,
        suspects=evidence.suspects if evidence else (),
        causes=evidence.causes if evidence else (),
        edges=evidence.edges if evidence else (),
        unlisted=evidence.unlisted if evidence else 0,
        evidence=evidence.findings if evidence else (),
        evidence_digest=evidence.digest if evidence else "",
        path=root_cause.path if root_cause else (),
        impact=evidence.impact if evidence else (),
        gaps=evidence.gaps if evidence else (),
        documents=evidence.documents if evidence else (),
        looked_at=evidence.looked_at if evidence else None,
        options=plan.options if plan else (),
        plan_note=plan.note if plan else "",
        decisions=tuple(DecisionMade.model_validate(d) for d in decisions),
        executions=tuple(Execution.model_validate(e["body"]) for e in executions),
        alerts=tuple(map(_alert, alerts)),
        alert_count=alerts[0]["total"] if alerts else 0,
        history=tuple(
            TimelineEntry(id=e["id"], at=e["at"], kind=e["kind"], node=e["node"], message=e["message"]) for e in events
        ),
    )


def _alert(row: Mapping[str, Any]) -> AlertOf:
    """Of a row of ``store.incidents.alert_cycles``."""
    return AlertOf(state="recovered" if row["recovered"] else "firing", **_but(row, "recovered"))


def _but(row: Mapping[str, Any], left_out: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != left_out}


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


def markdown(report: Report, *, embed: bool = True, address: str = "") -> str:
    """The same report for people, with pictures: as data in it, else as links to the API at ``address``."""
    parts = [
        f"# {_inline(report.title)}",
        f"`{report.incident_id}` · {_inline(report.service)} · {_inline(report.environment)} · {report.severity} · "
        f"**{report.status.replace('_', ' ')}**"
        + (f" ({_inline(report.status_reason)})" if report.status_reason else "")
        + f"\n\nOccurred {_time(report.occurred_at)}.",
        _alerts(report),
        _assessment(report),
        _root_cause(report),
        _pictures(report) if embed else _links(report, address),
        _impact(report),
        _evidence(report),
        _runbooks(report),
        _gaps(report),
        _options(report),
        _decisions(report),
        *(_execution(e) for e in report.executions),
        _history(report),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _alerts(report: Report) -> str:
    if not report.alerts:
        return ""
    rows = [
        f"| {_inline(a.title)} | {_inline(a.service)} | {_inline(a.source)} | {a.state} since {_time(a.since)} |"
        f" {_inline(a.merge_reason) or 'opened the incident'} | {_number(a.score)} |"
        for a in report.alerts
    ]
    more = report.alert_count - len(report.alerts)
    return "\n".join(
        [
            f"## Alerts ({max(report.alert_count, len(report.alerts))})",
            "",
            "| alert | service | source | state | why it is here | score |",
            "|---|---|---|---|---|---|",
            *rows,
            *(("", f"and {more} more") if more > 0 else ()),
            *(("", f"Came back after a recovery: {report.flaps}x") if report.flaps else ()),
        ]
    )


def _assessment(report: Report) -> str:
    said = report.assessment
    if said is None:
        return ""
    why = f" {_inline(said.why)}" if said.why else ""
    lines = ["## Assessment", "", f"Computed: **{STATES[said.state]}** ({said.trouble:.0%} sure).{why}"]
    if said.abstains:
        lines += ["", "**Not sure of the cause.** The suspects are leads, no more."]
    elif report.suspects:
        lines += ["", f"The first suspect is the cause with a chance of {said.certainty:.0%}."]
    if len(report.blamed) > 1:
        lines += ["", f"Only together they explain it: {', '.join(_inline(s.component) for s in report.blamed)}."]
    if report.affected:
        lines += ["", f"Affected: {', '.join(map(_inline, report.affected))}."]
    return "\n".join(lines)


def _root_cause(report: Report) -> str:
    cause = report.root_cause
    if cause is None:
        return "## Root cause\n\nNot analysed yet."
    lines = [
        "## Root cause",
        "",
        f"**{_inline(cause.title)}** - {cause.confidence} confidence, by {cause.engine}."
        + (f" {_inline(cause.engine_note)}" if cause.engine_note else ""),
        "",
        _inline(cause.mechanism),
        "",
    ]
    for claim in cause.claims:
        mark = "" if claim.verified else f" - *not verified: {_inline(claim.complaint)}*"
        lines.append(f"- {_inline(claim.text)} [{', '.join(claim.evidence)}]{mark}")
    if report.path:
        lines += ["", "Causal path: " + " ".join(_hop(h) for h in report.path)]
    if cause.rivals:
        lines += ["", "Other suspects:"]
        lines += [
            f"- {_inline(r.component)}: for: {_inline(r.for_) or '-'}; against: {_inline(r.against) or '-'}"
            for r in cause.rivals
        ]
    if cause.unknowns:
        lines += ["", "Not known:", *(f"- {_inline(u)}" for u in cause.unknowns)]
    return "\n".join(lines)


def _hop(hop: Hop) -> str:
    held = [name for name in ("structural", "statistical", "temporal") if getattr(hop, name)]
    return f"{_inline(hop.cause)} -> {_inline(hop.effect)} ({', '.join(held) or 'no check holds'})"


def _pictures(report: Report) -> str:
    """The topology and the first charts, as many as fit."""
    images: list[str] = []
    room = MAX_EMBEDDED
    for alt, drawn in _drawn(report):
        image = f"![{_inline(alt)}](data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()})"
        if len(image) <= room:
            images.append(image)
            room -= len(image)
    return "\n\n".join(["## Pictures", *images]) if images else ""


def _drawn(report: Report) -> Iterator[tuple[str, str]]:
    """Alternative text and SVG."""
    if drawn := topology(report):
        yield f"Topology around {report.service}: {_course(report)}", drawn
    for finding in report.charted[:MAX_CHARTS]:
        yield f"{finding.id}: {finding.summary}", chart(report, finding)


def _course(report: Report) -> str:
    """The path of the first suspect in words."""
    first = report.suspects[0] if report.suspects else None
    if first is None:
        return "no suspect"
    return " -> ".join([first.component, *(h.effect for h in first.path)])


def _links(report: Report, address: str) -> str:
    pictures = f"{address.rstrip('/')}/incidents/{quote(report.incident_id, safe='')}/pictures"
    lines = [f"- [topology]({_target(f'{pictures}/topology.svg')})"] if topology(report) else []
    lines += [
        f"- [{_inline(f.id)}]({_target(f'{pictures}/{f.id}.svg')}): {_inline(f.component)} {_inline(f.signal)}"
        for f in report.charted[:MAX_CHARTS]
    ]
    return "\n".join(["## Pictures", "", *lines]) if lines else ""


def _impact(report: Report) -> str:
    if not report.impact:
        return ""
    rows = [
        f"| {_inline(i.name)} | {i.value:,.6g} {_inline(i.unit)} | {_inline(i.window)} | {', '.join(i.evidence)} |"
        for i in report.impact
    ]
    return "\n".join(["## Impact", "", "| what | how much | when | evidence |", "|---|---|---|---|", *rows])


def _evidence(report: Report) -> str:
    if not report.evidence:
        return ""
    lines = ["## Evidence", ""]
    for finding in report.evidence:
        link = f" [open]({_target(finding.link)})" if finding.link and finding.link.startswith("https://") else ""
        lines.append(
            f"- **{finding.id}** {_inline(finding.component)} ({finding.kind}): {_inline(finding.summary)}{link}"
        )
        if finding.excerpt:
            lines += ["", *_block(finding.excerpt, 6), ""]
    if report.unlisted:
        lines += ["", f"and {report.unlisted} more that say little"]
    return "\n".join([*lines, "", *_looked_at(report), f"Snapshot sha256 `{report.evidence_digest}`"])


def _looked_at(report: Report) -> list[str]:
    if report.looked_at is None:
        return []
    incident, baseline = report.looked_at.incident, report.looked_at.baseline
    against = ", ".join(f"{_time(w.start)} to {w.end:%H:%M}" for w in baseline)
    return [f"Looked at {_time(incident.start)} to {incident.end:%H:%M}, against {against or 'nothing'}.", ""]


def _runbooks(report: Report) -> str:
    if not report.documents:
        return ""
    lines = ["## Runbooks"]
    for d in report.documents:
        link = f" [open]({_target(d.link)})" if d.link and d.link.startswith("https://") else ""
        why = f" ({_inline(d.why)})" if d.why else ""
        lines += ["", f"**{_inline(d.title)}** {_inline(d.section)}{why}{link}", "", *_block(d.text, 20)]
    return "\n".join(lines)


def _block(text: str, most: int) -> list[str]:
    """The first lines of it, verbatim; a mark says that there are more."""
    lines = text.splitlines()
    return [f"      {line}" for line in (*lines[:most], *(["…"] if len(lines) > most else []))]


def _gaps(report: Report) -> str:
    if not report.gaps:
        return ""
    rows = [
        f"- {_inline(g.source)}: {g.reason.replace('_', ' ')}: {_inline(g.detail)}"
        + (f" ({_inline(g.mend)})" if g.mend else "")
        for g in report.gaps
    ]
    return "\n".join(["## What could not be seen", "", *rows])


def _options(report: Report) -> str:
    if not report.options:
        return f"## Options\n\n{_inline(report.plan_note)}" if report.plan_note else ""
    lines = ["## Options"]
    for number, option in enumerate(report.options, 1):
        tried = f" - tried: {option.tried}" if option.tried else ""
        lines += [
            "",
            f"### {number}. {_inline(option.title)}{tried}",
            "",
            _inline(option.description),
            "",
            f"Risk {option.risk}, about {option.minutes:g} minutes, because of {', '.join(option.why) or '-'}."
            f" Undo: {_inline(option.undo) or 'not possible'}",
            "",
        ]
        for step in option.steps:
            said = (step.infeasible and f"**cannot run: {_inline(step.infeasible)}**") or _inline(step.preview)
            lines.append(f"1. `{step.operation}` `{_params(step.params)}` {said}")
        lines += [
            f"- expected: {_inline(e.ref.component)} {_inline(e.ref.metric)} {e.comparator} {e.value:g}"
            f" within {e.within_minutes:g} minutes"
            for e in option.expected
        ]
    return "\n".join([*lines, "", f"Plan revision `{report.plan_revision or '-'}`"])


def _decisions(report: Report) -> str:
    if not report.decisions:
        return ""
    rows = [
        f"- {_time(d.at)}: {_inline(d.by)} chose **{d.choice}**"
        + (f": {_inline(d.hint or d.note)}" if d.hint or d.note else "")
        for d in report.decisions
    ]
    return "\n".join(["## Decisions", "", *rows])


def _execution(execution: Execution) -> str:
    lines = [f"## Execution: {_inline(execution.title)}", ""]
    lines += [_step(r) for r in execution.results]
    lines += [f"{_step(r)} (undo)" for r in execution.undone]
    return "\n".join([*lines, "", *_verification(execution.verification)])


def _step(result: StepResult) -> str:
    detail = f": {_inline(result.detail)}" if result.detail else ""
    requests = f" ({', '.join(map(_inline, result.request_ids))})" if result.request_ids else ""
    return f"{result.ordinal}. `{result.operation}` **{result.status}**{detail}{requests}"


def _verification(verification: Verification) -> list[str]:
    lines = [f"Verdict: **{verification.verdict.replace('_', ' ')}**. {_inline(verification.detail)}"]
    if verification.checks:
        lines += ["", "| metric | before | after | expected | |", "|---|---|---|---|---|"]
        for c in verification.checks:
            ref = c.effect.ref
            lines.append(
                f"| {_inline(ref.component)} {_inline(ref.metric)} | {_number(c.before)} | {_number(c.after)} |"
                f" {c.effect.comparator} {c.effect.value:g} | {c.status.replace('_', ' ')} |"
            )
    return lines


def _history(report: Report) -> str:
    rows = [f"- {e.at:%H:%M:%S} {_inline(e.message)}" for e in report.history]
    return "\n".join(["## History", "", *rows]) if rows else ""


def _params(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in params.items()).replace("`", "'")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _target(url: str) -> str:
    """The URL without what would end it, or begin something else, in ``[text](url)``."""
    return re.sub(r"[()<>\\`\s\x00-\x1f\x7f]", lambda sign: quote(sign[0], safe=""), url)


def _inline(text: str) -> str:
    """Text from alerts and logs is data: no markdown, HTML or mention of it takes effect."""
    flat = " ".join(text.split())
    for sign in "\\`*_[]<>|#@":
        flat = flat.replace(sign, "\\" + sign)
    return flat
