"""A report as the draft of a postmortem: markdown, in the report's language. Pure; nothing in it is invented.

It follows what the field has agreed on (Google's SRE book, PagerDuty's guide): summary, impact, timeline, cause, what
was done, what went well and badly, action items with owners; blameless. See ``app.postmortem.lessons`` for its rules.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.markdown import code, figure, inline, link_target, moment, table_head, table_row
from app.opinions import Said
from app.postmortem.lessons import (
    Background,
    Draft,
    Lesson,
    action_items,
    duration,
    went_badly,
    went_well,
    who_decided,
)
from app.report import Report, TimelineEntry, quotation, retold, summary
from app.report_texts import Texts, chosen, confidence, word
from graph.state import Claim, Execution, StepResult, Verification

# Of the history: what tells nothing that happened, or is told by another row.
QUIET = frozenset(
    (
        *("scope", "collector_started", "collector_finished", "asked", "read_finished", "step_started", "verification"),
        *("step_finished", "step_undone", "step_resolved", "decision", "note", "feedback", "refusal", "unmasked"),
        "not_delivered",
    )
)
PASSING = ("collecting", "analyzing", "planning", "executing", "verifying")  # statuses between two events
MOST_SIGNS = 8  # components whose first sign is told


def postmortem(report: Report, background: Background | None = None, *, address: str = "") -> str:
    """The draft, with links to the API at ``address``; empty: without links."""
    draft = Draft(report, background or Background(), address)
    t = draft.t
    parts = [
        f"# {t['postmortem'].format(inline(report.title))}",
        _status_line(draft),
        f"> {t['draft'].format(draft.incident(report.incident_id))}\n>\n> {t['reviewed']}",
        "" if draft.over else f"**{t['not_over']}**",
        _summary(draft),
        _impact(draft),
        _timeline(draft),
        _cause(draft),
        _done(draft),
        _lessons(t["went_well"], went_well(draft), t["nothing_well"]),
        _lessons(t["went_badly"], went_badly(draft), t["nothing_badly"]),
        _actions(draft),
        _evidence(draft),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _status_line(draft: Draft) -> str:
    report, t = draft.report, draft.t
    severity, status = word(t, "severity", report.severity), word(t, "status", report.status)
    where = f"{inline(report.service)} · {inline(report.environment)}"
    return f"{code(report.incident_id)} · {where} · {severity} · **{status}**"


# --- summary and impact ---


def _summary(draft: Draft) -> str:
    report, t = draft.report, draft.t
    affected = ", ".join(dict.fromkeys(map(inline, (report.service, *report.affected))))
    lines = [
        f"- **{t['what_happened']}:** {_what_happened(draft)}",
        f"- **{t['the_cause']}:** {_cause_line(draft)}",
        *(f"- **{t['feedback_of']}:** {t['corrected'].format(line)}" for line in _corrections(draft)),
        f"- **{t['who_felt_it']}:** {affected}",
        f"- **{t['the_end']}:** {_end_line(draft)}",
    ]
    return _section(t["summary"], [*lines, "", *_durations(draft)])


def _what_happened(draft: Draft) -> str:
    """The alert, and the first sign of what speaks for the cause."""
    said = f"{inline(draft.report.title)}, {moment(draft.report.occurred_at)}."
    if draft.onset:
        said += f" {inline(summary(draft.report, draft.onset))} [{draft.cited([draft.onset.id])}]"
    return said


def _cause_line(draft: Draft) -> str:
    cause, t = draft.report.root_cause, draft.t
    if cause is None:
        return t["cause_not_known"]
    if cause.component is None:
        return t["inconclusive"]
    where = t["cause_in"].format(inline(cause.title), inline(cause.component))
    return f"{where}; {confidence(t, cause)}"


def _corrections(draft: Draft) -> Iterator[str]:
    """What people named as the true cause, where they did not agree."""
    for said in draft.background.feedback.said:
        if said.about == "report" and said.verdict != "right" and (said.component or said.category):
            yield inline(" · ".join(part for part in (said.component, said.category, said.note) if part))


def _end_line(draft: Draft) -> str:
    report, t = draft.report, draft.t
    status = word(t, "status", report.status)
    reason = f": {inline(report.status_reason)}" if report.status_reason else ""
    by = draft.resolving
    remedy = f" («{inline(by.title)}», {draft.plan(by.plan_revision)})" if by else ""
    return f"{status}{remedy}{reason}"


def _durations(draft: Draft) -> list[str]:
    t = draft.t
    if not draft.stages:
        return [f"{t['lasted']}: {t['unknown_yet']}"]
    rows = [
        table_row(t[name], f"{moment(start)} → {moment(end)}", duration(t, end - start))
        for name, start, end in draft.stages
    ]
    return [*table_head(t["lasted"], t["from_to"], t["duration"]), *rows]


def _impact(draft: Draft) -> str:
    report, t = draft.report, draft.t
    cause = report.root_cause
    said = [f"{t['who_notices']}: {inline(cause.impact)}", ""] if cause and cause.impact else []
    if not report.impact:
        return _section(t["impact"], [*said, t["no_impact"]])
    rows = [
        table_row(
            inline(retold(report, one.name)),
            f"{one.value:,.6g} {inline(one.unit)}",
            inline(retold(report, one.window)),
            draft.cited(one.evidence) or "-",
        )
        for one in report.impact
    ]
    return _section(t["impact"], [*said, *table_head(t["what"], t["how_much"], t["when"], t["evidence"]), *rows])


# --- timeline ---


@dataclass(frozen=True)
class Moment:
    """One row of the timeline; texts are markdown."""

    at: datetime
    kind: str
    who: str
    said: str


def _timeline(draft: Draft) -> str:
    t = draft.t
    sources = (_signs, _history, _decisions, _steps, _notes, _feedback_given)
    moments = sorted((m for source in sources for m in source(draft)), key=lambda m: m.at)
    if not moments:
        return _section(t["timeline"], [t["no_timeline"]])
    rows = [table_row(f"{m.at:%Y-%m-%d %H:%M:%S}", word(t, "event", m.kind), m.who, m.said) for m in moments]
    return _section(t["timeline"], [*table_head(t["time"], "", t["who"], t["what"]), *rows])


def _signs(draft: Draft) -> Iterator[Moment]:
    """The first sign of each component that was in it, and the changes that are cited."""
    report = draft.report
    components = list(dict.fromkeys((*(s.component for s in report.blamed), *report.affected, report.service)))
    for component in components[:MOST_SIGNS]:
        seen = [f for f in report.evidence if f.component == component and f.kind not in ("change", "knowledge")]
        if first := min(seen, key=lambda f: f.at, default=None):
            yield _sign(draft, first.id, "onset")
    blamed = {s.change for s in report.blamed if s.change}
    cited = {e for c in (report.root_cause.claims if report.root_cause else ()) for e in c.evidence} | blamed
    yield from (_sign(draft, f.id, "change") for f in report.evidence if f.kind == "change" and f.id in cited)


def _sign(draft: Draft, eid: str, kind: str) -> Moment:
    finding = draft.found[eid]
    said = f"{inline(summary(draft.report, finding))} [{draft.cited([eid])}]"
    return Moment(finding.at, kind, inline(finding.source) or "-", said)


def _history(draft: Draft) -> Iterator[Moment]:
    for entry in draft.report.history:
        if entry.kind not in QUIET and not (entry.kind == "status" and entry.status in PASSING):
            yield Moment(entry.at, entry.kind, draft.t["machine"], _told(draft, entry))


def _told(draft: Draft, entry: TimelineEntry) -> str:
    """A status by its label; all else as the report tells it."""
    if entry.kind != "status":
        return inline(entry.message)
    reason = entry.message.partition(": ")[2]
    return word(draft.t, "status", entry.status) + (f": {inline(reason)}" if reason else "")


def _decisions(draft: Draft) -> Iterator[Moment]:
    t = draft.t
    for made in draft.report.decisions:
        words = f": {inline(made.hint or made.note)}" if made.hint or made.note else ""
        said = f"{t['chose']} **{inline(chosen(t, made.choice, made.steps))}** ({t[f'via_{made.via}']}){words}"
        yield Moment(made.at, "decision", inline(who_decided(made)), f"{said} · {draft.plan(made.plan_revision)}")


def _steps(draft: Draft) -> Iterator[Moment]:
    for execution in draft.report.executions:
        for kind, results in (("step", execution.results), ("undone", execution.undone)):
            for result in results:
                if at := result.finished_at or result.claimed_at:  # else no call was made
                    yield Moment(at, kind, draft.t["machine"], _step(result, draft.t))


def _notes(draft: Draft) -> Iterator[Moment]:
    for note in draft.report.notes:
        yield Moment(note.at, "note", inline(note.by) or "-", inline(note.text))


def _feedback_given(draft: Draft) -> Iterator[Moment]:
    for said in draft.background.feedback.said:
        yield Moment(said.at, "feedback", inline(said.by), _opinion(said, draft.t))


# --- cause ---


def _cause(draft: Draft) -> str:
    report, t, cause = draft.report, draft.t, draft.report.root_cause
    opinions = [f"- {inline(o.by)}: {_opinion(o, t)}" for o in draft.background.feedback.said if o.about == "report"]
    told = [f"**{t['feedback_of']}**", "", *opinions] if opinions else []
    if cause is None:
        return _section(t["root_cause"], [t["cause_not_known"], "", *told])
    path = " → ".join(inline(name) for name in _path(report))
    blocks = [
        f"**{inline(cause.title)}** · {confidence(t, cause)}",
        t["inconclusive"] if cause.component is None else "",
        inline(cause.mechanism),
        "\n".join(_claim(draft, claim) for claim in cause.claims) or t["no_claims"],
        f"{t['causal_path']}: {path}" if path else "",
        "\n".join(told),
    ]
    return _section(t["root_cause"], ["\n\n".join(block for block in blocks if block)])


def _path(report: Report) -> Sequence[str]:
    """The components that the failure went through, the cause first."""
    return list(dict.fromkeys(name for hop in report.path for name in (hop.cause, hop.effect)))


def _claim(draft: Draft, claim: Claim) -> str:
    words = quotation(claim)
    quoted = f" “{inline(words)}”" if words else ""
    doubt = "" if claim.verified else f" - **{draft.t['not_verified']}**: {inline(claim.complaint)}"
    return f"- {inline(claim.text)}{quoted} [{draft.cited(claim.evidence) or '-'}]{doubt}"


def _opinion(said: Said, t: Texts) -> str:
    facts = (
        (t["true_cause"], " · ".join(part for part in (said.component, said.category) if part)),
        (t["really_helped"], said.helped),
    )
    told = [f"{t[f'about_{said.about}'].format(said.option or '')}: **{word(t, 'said', said.verdict)}**"]
    told += [f"{name}: {inline(value)}" for name, value in facts if value]
    return "; ".join([*told, *([inline(said.note)] if said.note else [])])


# --- what was done ---


def _done(draft: Draft) -> str:
    t, report = draft.t, draft.report
    blocks = [_execution(draft, execution) for execution in report.executions]
    blocks += ["\n".join(f"- {moment(n.at)}: {inline(n.by)}: {inline(n.text)}" for n in report.notes)]
    return _section(t["done"], ["\n\n".join(block for block in blocks if block) or t["nothing_done"]])


def _execution(draft: Draft, execution: Execution) -> str:
    t = draft.t
    lines = [f"### {inline(execution.title)} ({draft.plan(execution.plan_revision)})", ""]
    lines += [f"1. {_step(result, t)}" for result in execution.results]
    lines += [f"1. {t['undone']}: {_step(result, t)}" for result in execution.undone]
    return "\n".join([*lines, *([] if execution.choice == "undo" else ["", *_verification(execution.verification, t)])])


def _step(result: StepResult, t: Texts) -> str:
    detail = f": {inline(result.detail)}" if result.detail else ""
    requests = f" ({', '.join(map(inline, result.request_ids))})" if result.request_ids else ""
    return f"{code(result.operation)} **{word(t, 'step', result.status)}**{detail}{requests}"


def _verification(found: Verification, t: Texts) -> list[str]:
    said = f"{t['verdict']}: **{word(t, 'verdict', found.verdict)}**. {inline(found.detail)}".rstrip()
    credit = f"{t['credit']} **{word(t, 'credit', found.credit)}**. {inline(found.control)}" if found.control else ""
    rows = [
        table_row(
            f"{inline(c.effect.ref.component)} {inline(c.effect.ref.metric)}",
            figure(c.before),
            figure(c.after),
            f"{inline(c.effect.comparator)} {c.effect.value:g}",
            word(t, "effect", c.status),
        )
        for c in found.checks
    ]
    table = [*table_head(t["metric"], t["before"], t["after"], t["expected_value"], ""), *rows] if rows else []
    return [said, *(["", credit] if credit else []), *(["", *table] if table else [])]


# --- lessons ---


def _lessons(title: str, lessons: Sequence[Lesson], otherwise: str) -> str:
    return _section(title, [f"- {lesson.text}{_rests_on(lesson)}" for lesson in lessons] or [otherwise])


def _rests_on(lesson: Lesson) -> str:
    return f" [{lesson.rests_on}]" if lesson.rests_on else ""


def _actions(draft: Draft) -> str:
    t = draft.t
    items = [f"- [ ] {i.text}{_rests_on(i)} ({t['owner']}: {inline(i.owner)})" for i in action_items(draft)]
    return _section(t["action_items"], items or [t["no_actions"]])


def _evidence(draft: Draft) -> str:
    """What the claims, the impact and the first sign cite, with a way to its source."""
    report, t = draft.report, draft.t
    cause = report.root_cause
    ids = [e for c in (cause.claims if cause else ()) for e in c.evidence] + [
        e for i in report.impact for e in i.evidence
    ]
    ids += [draft.onset.id] if draft.onset else []
    lines = []
    for finding in (draft.found[eid] for eid in dict.fromkeys(ids) if eid in draft.found):
        secure = finding.link and finding.link.startswith("https://")
        opened = f" [{t['open_source']}]({link_target(finding.link or '')})" if secure else ""
        lines.append(f"- **{draft.cited([finding.id])}** {inline(summary(report, finding))}{opened}")
    whole = t["all_evidence"].format(link_target(f"{draft.page(report.incident_id)}/report")) if draft.address else ""
    lines += ["", whole] if lines and whole else []
    return _section(t["cited"], lines) if lines else ""


def _section(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *lines]).rstrip()
