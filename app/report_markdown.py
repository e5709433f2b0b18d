"""The report as markdown, in the report's language. Pure."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from app.markdown import evidence_ids, figure, inline, link_target, moment, table_head, table_row
from app.report import OUR_ID, DecisionMade, Report, chart, quotation, retold, summary, topology
from app.report_texts import (
    FELT,
    TEXTS,
    Texts,
    around_decision,
    author,
    came_of,
    chosen,
    confidence,
    felt,
    grounded,
    needed,
    passed,
    todo,
    todo_undone,
    used,
    word,
    written_in,
)
from executors.base import PreflightCheck
from graph.confidence import percent
from graph.state import (
    ActionOption,
    BlastRadius,
    CapacityEstimate,
    Claim,
    Execution,
    ExpectedEffect,
    Finding,
    GroundingCheck,
    Hop,
    PastIncident,
    PlanStep,
    RootCause,
    StepResult,
    Verification,
)

MAX_CHARTS = 4  # more evidence is read, not looked at
MAX_EMBEDDED = 60_000  # characters of pictures, as many viewers cut long pages


def markdown(report: Report, *, embed: bool = True, address: str = "") -> str:
    """The report for people, with pictures: as data in it, else as links to the API at ``address``."""
    t = TEXTS[report.language]
    parts = [
        f"# {inline(report.title)}",
        f"`{report.incident_id}` · {inline(report.service)} · {inline(report.environment)} · "
        f"{word(t, 'severity', report.severity)} · **{word(t, 'status', report.status)}**"
        + (f" ({inline(report.status_reason)})" if report.status_reason else "")
        + f"\n\n{t['occurred_at'].format(moment(report.occurred_at))}",
        _alerts(report, t),
        _assessment(report, t),
        _root_cause(report, t),
        _grounding(report.root_cause, t),
        _pictures(report, t) if embed else _links(report, address, t),
        _impact(report, t),
        _evidence(report, t),
        _similar(report, address, t),
        _runbooks(report, t),
        _gaps(report, t),
        _options(report, t),
        _approvals(report, t),
        _decisions(report, t),
        *(_execution(e, t) for e in report.executions),
        _notes(report, t),
        _history(report, t),
        _model_use(report, address, t),
    ]
    return "\n\n".join(p for p in parts if p) + "\n"


def _alerts(report: Report, t: Texts) -> str:
    if not report.alerts:
        return ""
    rows = [
        table_row(
            inline(a.title),
            inline(a.service),
            inline(a.source),
            f"{t[a.state]} {t['since']} {moment(a.since)}",
            inline(a.merge_reason) or t["opened_it"],
            figure(a.score),
        )
        for a in report.alerts
    ]
    more = report.alert_count - len(report.alerts)
    return "\n".join(
        [
            f"## {t['alerts']} ({max(report.alert_count, len(report.alerts))})",
            "",
            *table_head(t["alert"], t["service_of"], t["source"], t["state"], t["why_here"], t["score"]),
            *rows,
            *(("", t["more_alerts"].format(more)) if more > 0 else ()),
            *(("", t["flaps"].format(report.flaps)) if report.flaps else ()),
        ]
    )


def _assessment(report: Report, t: Texts) -> str:
    said = report.assessment
    if said is None:
        return ""
    computed = t["computed"].format(t[f"state_{said.state}"], percent(said.trouble))
    lines = [f"## {t['assessment']}", "", f"{computed} {inline(retold(report, said.why))}".rstrip()]
    if said.abstains:
        lines += ["", f"**{t['not_sure']}**"]
    elif report.suspects:
        lines += ["", t["chance"].format(percent(said.certainty))]
    if len(report.blamed) > 1:
        lines += ["", f"{t['together']}: {', '.join(inline(s.component) for s in report.blamed)}."]
    if report.affected:
        lines += ["", f"{t['affected']}: {', '.join(map(inline, report.affected))}."]
    return "\n".join(lines)


def _root_cause(report: Report, t: Texts) -> str:
    cause = report.root_cause
    if cause is None:
        return f"## {t['root_cause']}\n\n{t['not_analysed']}"
    blocks = [
        f"## {t['root_cause']}",
        f"**{inline(cause.title)}**",
        f"{confidence(t, cause)} · {t['engine']} {_author(cause, t)} {written_in(t, cause.language)}".rstrip(),
        f"**{t['contradicts']}:** {inline(cause.contradicts)}" if cause.contradicts else "",
        inline(cause.mechanism),
        _listed(t["changed"], map(inline, cause.changed)),
        "\n".join(_claim(c, t) for c in cause.claims),
        f"{t['who_notices']}: {inline(cause.impact)}" if cause.impact else "",
        f"{t['causal_path']}: " + " ".join(_hop(h, t) for h in report.path) if report.path else "",
        _listed(t["certainty_why"], map(inline, cause.certainty_why)),
        _listed(t["rivals"], (_rival(r.component, r.for_, r.against, t) for r in cause.rivals)),
        _listed(t["unknowns"], map(inline, cause.unknowns)),
    ]
    return "\n\n".join(b for b in blocks if b)


def _author(work: RootCause | ActionOption, t: Texts) -> str:
    return f"{inline(author(t, work.engine))}." + (f" {inline(work.engine_note)}" if work.engine_note else "")


def _listed(title: str, items: Iterable[str]) -> str:
    lines = [f"- {item}" for item in items]
    return "\n".join([f"{title}:", "", *lines]) if lines else ""


def _claim(claim: Claim, t: Texts) -> str:
    words = quotation(claim)
    quoted = f" “{inline(words)}”" if words else ""
    mark = "" if claim.verified else f" - **{t['not_verified']}**: {inline(claim.complaint)}"
    return f"- {inline(claim.text)}{quoted} [{evidence_ids(claim.evidence)}]{mark}"


def _rival(component: str, for_: str, against: str, t: Texts) -> str:
    return (
        f"{inline(component)}: {t['rival_for']}: {inline(for_) or '-'}; {t['rival_against']}: {inline(against) or '-'}"
    )


def _hop(hop: Hop, t: Texts) -> str:
    held = [t[name] for name in ("structural", "statistical", "temporal") if getattr(hop, name)]
    return f"{inline(hop.cause)} -> {inline(hop.effect)} ({', '.join(held) or t['no_check']})"


def _grounding(cause: RootCause | None, t: Texts) -> str:
    if cause is None or not cause.checks:
        return ""
    heads = table_head(t["what"], t["said_text"], t["evidence"], t["verdict_of"], t["complaint"])
    rows = [_check(c, t) for c in cause.checks]
    return "\n".join([f"### {t['grounding']} ({grounded(t, cause)})", "", *heads, *rows])


def _check(check: GroundingCheck, t: Texts) -> str:
    verdict = word(t, "check", check.verdict)
    if check.verdict in ("not_verified", "dropped"):
        verdict = f"**{verdict}**"
    return table_row(
        word(t, "about", check.about),
        inline(check.text),
        evidence_ids(check.evidence),
        verdict,
        inline(check.complaint),
    )


def _pictures(report: Report, t: Texts) -> str:
    """The topology and the first charts, as many as fit."""
    images: list[str] = []
    room = MAX_EMBEDDED
    for alt, drawn in _drawn(report, t):
        image = f"![{inline(alt)}](data:image/svg+xml;base64,{b64encode(drawn.encode()).decode()})"
        if len(image) <= room:
            images.append(image)
            room -= len(image)
    return "\n\n".join([f"## {t['pictures']}", *images]) if images else ""


def _drawn(report: Report, t: Texts) -> Iterator[tuple[str, str]]:
    """Alternative text and SVG."""
    if drawn := topology(report, language=report.language):
        yield f"{t['topology_around'].format(report.service)}: {_course(report, t)}", drawn
    for finding in report.charted[:MAX_CHARTS]:
        yield f"{finding.id}: {summary(report, finding)}", chart(report, finding, language=report.language)


def _course(report: Report, t: Texts) -> str:
    """The path of the first suspect in words."""
    first = report.suspects[0] if report.suspects else None
    if first is None:
        return t["no_suspect"]
    return " -> ".join([first.component, *(h.effect for h in first.path)])


def _links(report: Report, address: str, t: Texts) -> str:
    pictures = f"{_here(report, address)}/pictures"
    asked = f"?lang={report.language}"
    drawn = topology(report, language=report.language)
    lines = [f"- [{t['topology']}]({link_target(f'{pictures}/topology.svg{asked}')})"] if drawn else []
    lines += [
        f"- [{inline(f.id)}]({link_target(f'{pictures}/{f.id}.svg{asked}')}): {inline(f.component)} {inline(f.signal)}"
        for f in report.charted[:MAX_CHARTS]
    ]
    return "\n".join([f"## {t['pictures']}", "", *lines]) if lines else ""


def _here(report: Report, address: str) -> str:
    return _place(report.incident_id, address)


def _place(incident_id: str, address: str) -> str:
    return f"{address.rstrip('/')}/incidents/{quote(incident_id, safe='')}"


def _impact(report: Report, t: Texts) -> str:
    if not report.impact:
        return ""
    rows = [
        table_row(
            inline(retold(report, i.name)),
            f"{i.value:,.6g} {inline(i.unit)}",
            inline(retold(report, i.window)),
            evidence_ids(i.evidence),
        )
        for i in report.impact
    ]
    return "\n".join([f"## {t['impact']}", "", *table_head(t["what"], t["how_much"], t["when"], t["evidence"]), *rows])


def _evidence(report: Report, t: Texts) -> str:
    if not report.evidence:
        return ""
    lines = [f"## {t['evidence']}", ""]
    for finding in report.evidence:
        lines.append(_finding(report, finding, t))
        if finding.excerpt:
            lines += ["", *_block(finding.excerpt, 6), ""]
    if report.unlisted:
        lines += ["", t["unlisted"].format(report.unlisted)]
    return "\n".join([*lines, "", *_looked_at(report, t), f"{t['digest']} `{report.evidence_digest}`"])


def _finding(report: Report, finding: Finding, t: Texts) -> str:
    asked = f" - *{t['asked']}: {inline(finding.asked)}*" if finding.asked else ""
    return (
        f"- **{finding.id}** {inline(finding.component)} ({finding.kind}): {inline(summary(report, finding))}{asked}"
        f"{_open(finding.link, t)}"
    )


def _open(link: str | None, t: Texts) -> str:
    return f" [{t['open_source']}]({link_target(link)})" if link and link.startswith("https://") else ""


def _looked_at(report: Report, t: Texts) -> list[str]:
    if report.looked_at is None:
        return []
    incident, *baselines = [
        t["time_to"].format(moment(w.start), f"{w.end:%H:%M}")
        for w in (report.looked_at.incident, *report.looked_at.baseline)
    ]
    return [t["looked_at"].format(incident, ", ".join(baselines) or t["nothing"]), ""]


def _similar(report: Report, address: str, t: Texts) -> str:
    """Earlier incidents that looked like it, why, and what came of them."""
    if not report.similar:
        return ""
    heads = table_head(t["evidence"], t["similar_incident"], t["similar_why"], t["similar_cause"], t["similar_outcome"])
    rows = [
        table_row(
            inline(past.evidence) or "-",
            f"{_named(past, address)} ({inline(past.at)}): {inline(past.title)}",
            inline("; ".join(past.reasons)) or "-",
            inline(" · ".join(filter(None, (past.component, past.category.replace("_", " "))))) or "-",
            inline("; ".join(came_of(t, past))),
        )
        for past in report.similar
    ]
    return "\n".join([f"## {t['similar']}", "", t["similar_note"], "", *heads, *rows])


def _named(past: PastIncident, address: str) -> str:
    """Its id, and where its report is; an imported one has none."""
    name = inline(past.incident_id)
    if not OUR_ID.fullmatch(past.incident_id):
        return name
    return f"[{name}]({link_target(f'{_place(past.incident_id, address)}/report')})"


def _runbooks(report: Report, t: Texts) -> str:
    if not report.documents:
        return ""
    lines = [f"## {t['runbooks']}"]
    for d in report.documents:
        why = f" ({inline(d.why)})" if d.why else ""
        lines += ["", f"**{inline(d.title)}** {inline(d.section)}{why}{_open(d.link, t)}", "", *_block(d.text, 20)]
    return "\n".join(lines)


def _block(text: str, most: int) -> list[str]:
    """The first lines of it, verbatim; a mark says that there are more."""
    lines = text.splitlines()
    return [f"      {line}" for line in (*lines[:most], *(["…"] if len(lines) > most else []))]


def _gaps(report: Report, t: Texts) -> str:
    if not report.gaps:
        return ""
    rows = [
        f"- {inline(g.source)}: {word(t, 'gap', g.reason)}: {inline(g.detail)}"
        + (f" ({inline(g.mend)})" if g.mend else "")
        for g in report.gaps
    ]
    return "\n".join([f"## {t['gaps']}", "", *rows])


def _options(report: Report, t: Texts) -> str:
    note = _note(report.plan_note)
    if not report.options:
        return f"## {t['options']}\n\n{note}" if note else ""
    blocks = [f"## {t['options']}", *([note] if note else [])]
    blocks += [_option(number, o, t) for number, o in enumerate(report.options, 1)]
    return "\n\n".join([*blocks, _plan(report, t)])


def _plan(report: Report, t: Texts) -> str:
    said = [f"{t['revision']} `{report.plan_revision or '-'}`"]
    said += [t["plan_number"].format(report.plan_number)] if report.plan_number else []
    said += [t["policy_version"].format(f"`{report.policy_version}`")] if report.policy_version else []
    return " · ".join(said)


def _note(note: str) -> str:
    lines = [inline(line) for line in note.splitlines()]
    return "\n".join(f"- {line}" for line in lines) if len(lines) > 1 else "".join(lines)


def _option(number: int, option: ActionOption, t: Texts) -> str:
    intent = f" ({t[f'intent_{option.intent}']})" if option.intent else ""
    tried = f" - {t['tried']}: {word(t, 'verdict', option.tried)}" if option.tried else ""
    facts = [
        f"{t['risk']}: {word(t, 'risk', option.risk)}",
        t["about_minutes"].format(f"{option.minutes:g}"),
        f"{t['because']} {evidence_ids(option.why)}",
        f"{t['undo']}: {inline(option.undo) or t['no_undo']}",
        f"{t['proposed_by']} {_author(option, t)}",
    ]
    blocks = [
        f"### {number}. {inline(option.title)}{intent}{tried}",
        inline(option.description),
        " · ".join(facts),
        f"{t['track_record']}: {inline(option.track_record)}" if option.track_record else "",
        "\n".join([*(_plan_step(s, t) for s in option.steps), *(f"- {_effect(e, t)}" for e in option.expected)]),
        _blast_radius(option.blast_radius, t),
        f"{t['takes']}: {inline(needed(t, option.needs))}",
        f"**{t['policy_refuses']}:** {inline('; '.join(option.needs.refused))}" if option.needs.refused else "",
    ]
    return "\n\n".join(b for b in blocks if b)


def _plan_step(step: PlanStep, t: Texts) -> str:
    said = f"**{t['cannot_run']}: {inline(step.infeasible)}**" if step.infeasible else inline(step.preview)
    lines = [f"1. `{step.operation}` `{_params(step.params)}` {said}"]
    lines += [f"   - {inline(c.what)}: {inline(c.before)} -> {inline(c.after)}" for c in step.changes]
    if step.checks:
        lines.append(f"   - {t['preflight']}: {passed(t, step.checks)}")
        lines += [f"     - {_preflight(c, t)}" for c in step.checks if c.status != "ok"]
    return "\n".join(lines)


def _preflight(check: PreflightCheck, t: Texts) -> str:
    status = word(t, "checked", check.status)
    marked = f"**{status}**" if check.status == "failed" else status
    return f"{word(t, 'looked', check.name)}: {marked}: {inline(check.detail)}"


def _blast_radius(radius: BlastRadius | None, t: Texts) -> str:
    if radius is None:
        return ""
    share = radius.request_share
    felt_by = {how: [inline(felt(t, s)) for s in radius.services if s.how == how] for how in FELT}
    lines = [f"- {t[f'reversible_{radius.reversible}']}"]
    lines += [f"- {t[f'felt_{how}']}: {', '.join(names)}" for how, names in felt_by.items() if names]
    lines += [f"- {t['share_unknown'] if share is None else t['request_share'].format(f'{100 * share:.0f}%')}"]
    heads = table_head(t["service_of"], t["servers"], t["utilisation"], t["time_to_answer"], "")
    left = ["", *heads, *(_capacity(c, t) for c in radius.capacity)] if radius.capacity else []
    return "\n".join([f"{t['blast_radius']}:", "", *lines, *left])


def _capacity(left: CapacityEstimate, t: Texts) -> str:
    busy = [f"{100 * u:.0f}%" if u is not None else "-" for u in (left.utilisation_now, left.utilisation_then)]
    return table_row(
        inline(left.service),
        f"{left.servers_now:g} -> {left.servers_then:g}",
        " -> ".join(busy),
        t["as_long"].format(f"{left.wait_then:g}") if left.wait_then is not None else "-",
        inline(left.basis),
    )


def _effect(effect: ExpectedEffect, t: Texts) -> str:
    ref = effect.ref
    target = f"{inline(ref.component)} {inline(ref.metric)} {effect.comparator} {effect.value:g}"
    return t["expected_effect"].format(target, f"{effect.within_minutes:g}")


def _decisions(report: Report, t: Texts) -> str:
    if not report.decisions:
        return ""
    return "\n".join([f"## {t['decisions']}", "", *(_decision(d, t) for d in report.decisions)])


def _decision(decision: DecisionMade, t: Texts) -> str:
    words = decision.hint or decision.note
    return (
        f"- {moment(decision.at)}: {inline(decision.by)} {t['chose']}"
        f" **{chosen(t, decision.choice, decision.steps)}** ({inline('; '.join(around_decision(t, decision)))})"
        + (f": {inline(words)}" if words else "")
    )


def _approvals(report: Report, t: Texts) -> str:
    """Those that wait for another person's."""
    rows = [
        f"- {moment(a.at)}: {inline(a.by)} {t['approved']} **{chosen(t, a.choice, a.steps)}** ({t[f'via_{a.via}']})"
        for a in report.approvals
    ]
    if not rows:
        return ""
    return "\n".join([f"## {t['approvals']}", "", *rows])


def _notes(report: Report, t: Texts) -> str:
    rows = [f"- {moment(n.at)}: {inline(n.by)}: {inline(n.text)}" for n in report.notes]
    return "\n".join([f"## {t['notes']}", "", *rows]) if rows else ""


def _execution(execution: Execution, t: Texts) -> str:
    lines = [f"## {t['execution']}: {inline(execution.title)}", ""]
    lines += [t["puts_back"].format(f"`{execution.undoes}`"), ""] if execution.undoes else []
    lines += [_step(r, todo(t, r.status), t) for r in execution.results]
    lines += [_step(r, todo_undone(t, r.status), t, f" ({t['undone']})") for r in execution.undone]
    return "\n".join([*lines, "", *_verification(execution.verification, t)])


def _step(result: StepResult, what_to_do: str, t: Texts, of: str = "") -> str:
    detail = f": {inline(result.detail)}" if result.detail else ""
    requests = f" ({', '.join(map(inline, result.request_ids))})" if result.request_ids else ""
    advice = f"\n   **{what_to_do}**" if what_to_do else ""
    status = word(t, "step", result.status)
    return f"{result.ordinal}. `{result.operation}` **{status}**{detail}{requests}{of}{advice}"


def _verification(verification: Verification, t: Texts) -> list[str]:
    verdict = word(t, "verdict", verification.verdict)
    lines = [f"{t['verdict']}: **{verdict}**. {inline(verification.detail)}"]
    if verification.control:
        credit = word(t, "credit", verification.credit)
        lines += ["", f"{t['credit']} **{credit}**. {t['compared']}: {inline(verification.control)}"]
    if verification.checks:
        lines += ["", *table_head(t["metric"], t["before"], t["after"], t["expected_value"], "")]
        for c in verification.checks:
            ref = c.effect.ref
            lines.append(
                table_row(
                    f"{inline(ref.component)} {inline(ref.metric)}",
                    figure(c.before),
                    figure(c.after),
                    f"{c.effect.comparator} {c.effect.value:g}",
                    word(t, "effect", c.status),
                )
            )
    return lines


def _history(report: Report, t: Texts) -> str:
    rows = [f"- {e.at:%H:%M:%S} {inline(e.message)}" for e in report.history]
    return "\n".join([f"## {t['history']}", "", *rows]) if rows else ""


def _model_use(report: Report, address: str, t: Texts) -> str:
    if report.model_use is None:
        return ""
    link = link_target(f"{_here(report, address)}/model-calls")
    return f"## {t['model_calls']}\n\n[{t['model_calls']}]({link}): {used(t, report.model_use)}"


def _params(params: Mapping[str, Any]) -> str:
    return " ".join(", ".join(f"{k}={v}" for k, v in params.items()).split()).replace("`", "'")
