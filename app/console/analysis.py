"""What happened and why, as HTML: progress, root cause, impact, evidence, gaps, history. Pure."""

from collections.abc import Sequence

from app.console.markup import (
    address,
    bullets,
    card,
    chip,
    excerpt,
    folded,
    moment,
    notice,
    number,
    outside,
    references,
    text,
)
from app.console.progress import Event, Source, Step, sources, steps
from app.console.texts import counted
from app.report import OUR_ID, AlertOf, DecisionMade, Report, chart, quotation, retold
from app.report import summary as told
from app.report import topology as draw_topology
from app.report_texts import (
    HOLDS,
    Texts,
    around_decision,
    author,
    came_of,
    chosen,
    confidence,
    grounded,
    used,
    word,
    written_in,
)
from graph.confidence import percent
from graph.state import Assessment, Claim, Finding, GroundingCheck, Hop, PastIncident, RootCause

MAX_OPEN = 12  # findings; more are folded away
MAX_CHARTS = 6  # more evidence is read, not looked at; each further chart is a link away


def summary(report: Report, t: Texts) -> str:
    """The incident in one line."""
    told = report.status_reason and not report.waits
    reason = f'<span class="muted">{text(report.status_reason)}</span>' if told else ""
    status = chip("waiting", t["waiting"]) if report.waits else chip(report.status, word(t, "status", report.status))
    severity = chip(report.severity, word(t, "severity", report.severity))
    count = counted(t, report.alert_count, report.flaps)
    alerts = f"{count} · " if count else ""
    here = f"/incidents/{text(report.incident_id)}"
    link = f"{here}/report?format=markdown&amp;language={t['language']}"
    draft = f"{here}/postmortem?format=markdown&amp;download=true&amp;language={t['language']}"
    links = f'<a href="{link}" target="_blank">{t["report"]}</a> · <a href="{draft}" download>{t["postmortem"]}</a>'
    return (
        f'<section class="summary"><h1>{status} {text(report.title)}</h1><p>'
        f"<b>{text(report.service)}</b> · {text(report.environment)} · {severity} · "
        f"{t['occurred']} {moment(report.occurred_at)} · {alerts}<code>{text(report.incident_id)}</code> · "
        f"{links} {reason}</p></section>"
        + (notice(f"{t['not_begun']}\n{report.status_reason}".strip()) if report.waits else "")
    )


def progress(report: Report, events: Sequence[Event], t: Texts) -> str:
    """The six boxes and the collectors ticking in."""
    boxes = '<li class="arrow" aria-hidden="true"></li>'.join(_box(s, t) for s in steps(report, events))
    read = "".join(_source(s, t) for s in sources(events))
    return f'<section class="progress"><ol class="boxes">{boxes}</ol><div class="sources">{read}</div></section>'


def _box(step: Step, t: Texts) -> str:
    return (
        f'<li class="box {step.state}"><b>{step.node}</b><span class="state">{t[step.state]}</span>'
        f'<small title="{text(step.said)}">{text(step.said)}</small></li>'
    )


def _source(source: Source, t: Texts) -> str:
    return (
        f'<span class="source {source.state}" title="{text(source.said)}"><b>{text(source.name)}</b> '
        f"{t[source.state]} <small>{text(source.said)}</small></span>"
    )


def alerts(report: Report, t: Texts) -> str:
    """What was merged into the incident, and why."""
    more = report.alert_count - len(report.alerts)
    rest = f'<p class="muted">{t["more_alerts"].format(more)}</p>' if more > 0 else ""
    shown = max(report.alert_count, len(report.alerts))
    return card(f"{t['alerts']} ({shown})", bullets((_alert(a, t) for a in report.alerts), "results") + rest)


def _alert(alert: AlertOf, t: Texts) -> str:
    score = f" ({t['score']} {number(alert.score)})" if alert.score is not None else ""
    link = outside(alert.url, t["open_source"], "https", "http")
    return (
        f"{chip(alert.state, t[alert.state])} <b>{text(alert.title)}</b> {link}"
        f'<br><small class="muted">{text(alert.service)} · {text(alert.source)} · {t["since"]} {moment(alert.since)}'
        f"</small><br><small>{text(alert.merge_reason or t['opened_it'])}{score}</small>"
    )


def assessment(report: Report, t: Texts) -> str:
    """Is anything wrong at all, and how far the first suspect can be believed: computed, before any model."""
    said = report.assessment
    if said is None:
        return ""
    tones = {"incident": "bad", "recovered": "good", "no_incident": "good", "not_enough_data": "warn"}
    body = [
        f'<p><span class="chip {tones[said.state]}">{t[f"state_{said.state}"]}</span> {_chances(report, said, t)}</p>',
        notice(t["not_sure"]) if said.abstains else "",
        f"<p>{text(retold(report, said.why))}</p>" if said.why else "",
        _components(t["together"], [s.component for s in report.blamed]) if len(report.blamed) > 1 else "",
        _components(t["affected"], report.affected),
    ]
    return card(t["assessment"], "".join(body))


def _chances(report: Report, said: Assessment, t: Texts) -> str:
    chances = [f"<b>{percent(said.trouble)}</b> {t['trouble']}"]
    if report.suspects:
        chances.append(
            f"<b>{percent(said.certainty)}</b> {t['certainty']}: <b>{text(report.suspects[0].component)}</b>"
        )
    return f'<span class="muted">{" · ".join(chances)}</span>'


def _components(title: str, names: Sequence[str]) -> str:
    shown = "".join(f'<span class="component">{text(name)}</span>' for name in names)
    return f'<h3>{title}</h3><div class="path">{shown}</div>' if names else ""


def topology(report: Report, t: Texts) -> str:
    """Who calls whom, and how the failure spread, as a picture."""
    drawn = draw_topology(report, language=t["language"], inline=True)
    return card(
        t["topology"],
        f'<div class="topology" role="group" aria-label="{t["topology"]}" tabindex="0">{drawn}</div>' if drawn else "",
    )


def root_cause(report: Report, t: Texts) -> str:
    """Title, confidence and why, who wrote it, mechanism, claims, causal path, rivals, unknowns, grounding table."""
    cause = report.root_cause
    if cause is None:
        return card(t["root_cause"], f'<p class="muted">{t["not_analysed"]}</p>')
    body = [
        f'<p class="headline">{text(cause.title)}</p><p>{_confidence(cause, t)}</p>',
        f'<div class="notice" role="note"><b>{t["contradicts"]}.</b> {text(cause.contradicts)}</div>'
        if cause.contradicts
        else "",
        f"<p>{text(cause.mechanism)}</p>",
        _titled(t["changed"], bullets(map(text, cause.changed))),
        _titled(t["claims"], bullets((_claim(c, t) for c in cause.claims), "claims")),
        _titled(t["who_notices"], f"<p>{text(cause.impact)}</p>" if cause.impact else ""),
        _path(report.path, t),
        _titled(t["certainty_why"], bullets(map(text, cause.certainty_why))),
        _rivals(cause, t),
        _titled(t["unknowns"], bullets(map(text, cause.unknowns))),
        _grounding(cause, t),
        _model_use(report, t),
    ]
    return card(t["root_cause"], "".join(body))


def _titled(title: str, body: str) -> str:
    return f"<h3>{title}</h3>{body}" if body else ""


def _confidence(cause: RootCause, t: Texts) -> str:
    tones = {"high": "high confidence", "medium": "medium", "low": "high", "inconclusive": "high"}
    note = f' <span class="muted">{text(cause.engine_note)}</span>' if cause.engine_note else ""
    spoken = written_in(t, cause.language)
    return (
        chip(tones[cause.confidence], confidence(t, cause))
        + f' <span class="muted">{t["engine"]}</span> <b>{text(author(t, cause.engine))}</b>{note}'
        + (f' <span class="muted">{spoken}</span>' if spoken else "")
    )


def _claim(claim: Claim, t: Texts) -> str:
    mark = f'<span class="tick" title="{t["verified"]}">✓</span>'
    if not claim.verified:
        mark = chip("warning", t["not_verified"]) + f' <span class="muted">{text(claim.complaint)}</span>'
    words = quotation(claim)
    quoted = f' <span class="quote">“{text(words)}”</span>' if words else ""
    doubted = "" if claim.verified else ' class="doubted"'
    return f"<span{doubted}>{text(claim.text)}</span>{quoted} {references(claim.evidence)} {mark}"


def _grounding(cause: RootCause, t: Texts) -> str:
    """The grounding table, folded away while there is nothing in it to doubt."""
    if not cause.checks:
        return ""
    opened = "" if all(c.verdict in HOLDS for c in cause.checks) else " open"
    heads = "".join(f"<th>{t[k]}</th>" for k in ("what", "said_text", "evidence", "verdict_of"))
    rows = "".join(_check(c, t) for c in cause.checks)
    return (
        f"<details{opened}><summary>{t['grounding']} ({grounded(t, cause)})</summary>"
        f'<table class="grounding"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></details>'
    )


def _check(check: GroundingCheck, t: Texts) -> str:
    tones = {"verified": "met", "repaired": "met", "not_verified": "warning", "dropped": "not_met"}
    verdict = chip(tones[check.verdict], word(t, "check", check.verdict))
    complaint = f'<small class="muted">{text(check.complaint)}</small>' if check.complaint else ""
    return (
        f"<tr><td>{word(t, 'about', check.about)}</td><td>{text(check.text)}{complaint}</td>"
        f"<td>{references(check.evidence)}</td><td>{verdict}</td></tr>"
    )


def _model_use(report: Report, t: Texts) -> str:
    """What the model was asked and what that cost, and where each call is; nothing where none was."""
    if report.model_use is None:
        return ""
    link = f"/incidents/{text(report.incident_id)}/model-calls"
    said = text(used(t, report.model_use))
    return f'<p class="muted"><a href="{link}" target="_blank">{t["model_calls"]}</a>: {said}</p>'


def _path(path: Sequence[Hop], t: Texts) -> str:
    if not path:
        return ""
    hops = "".join(
        f'<span class="hop" title="{_checks(h, t)}">→<small>{_checks(h, t)}</small></span>'
        f'<span class="component">{text(h.effect)}</span>'
        for h in path
    )
    first = f'<span class="component">{text(path[0].cause)}</span>'
    return f'<h3>{t["causal_path"]}</h3><div class="path">{first}{hops}</div>'


def _checks(hop: Hop, t: Texts) -> str:
    held = [t[name] for name in ("structural", "statistical", "temporal") if getattr(hop, name)]
    return ", ".join(held) or t["no_check"]


def _rivals(cause: RootCause, t: Texts) -> str:
    rows = bullets(
        f'<b>{text(r.component)}</b> <span class="muted">{t["rival_for"]}:</span> {text(r.for_ or "-")} '
        f'<span class="muted">{t["rival_against"]}:</span> {text(r.against or "-")}'
        for r in cause.rivals
    )
    return f"<h3>{t['rivals']}</h3>{rows}" if rows else ""


def impact(report: Report, t: Texts) -> str:
    """The figures, each with the evidence it was computed from."""
    tiles = "".join(
        f'<div class="tile"><b>{number(i.value, i.unit)}</b><span>{text(retold(report, i.name))}</span>'
        f"<small>{text(retold(report, i.window))} {references(i.evidence)}</small></div>"
        for i in report.impact
    )
    return card(t["impact"], f'<div class="tiles">{tiles}</div>' if tiles else "")


def evidence(report: Report, t: Texts) -> str:
    """The numbered findings with what was observed, the baseline, and the verbatim excerpt."""
    if not report.evidence:
        return ""
    charted = {f.id for f in report.charted[:MAX_CHARTS]}
    rows = [_finding(report, f, _chart(report, f, t, shown=f.id in charted), t) for f in report.evidence]
    further = rows[MAX_OPEN:]
    folded = f"<details><summary>{t['further'].format(len(further))}</summary>{_table(further)}</details>"
    more = f'<p class="muted">{t["unlisted"].format(report.unlisted)}</p>' if report.unlisted else ""
    digest = f'<p class="muted">{t["digest"]} <code>{text(report.evidence_digest)}</code></p>'
    return card(t["evidence"], _table(rows[:MAX_OPEN]) + (folded if further else "") + more + digest)


def _table(rows: Sequence[str]) -> str:
    return f'<table class="evidence"><tbody>{"".join(rows)}</tbody></table>'


def _finding(report: Report, finding: Finding, drawn: str, t: Texts) -> str:
    values = ""
    if finding.observed is not None:
        values = (
            f'<small><span class="muted">{t["observed"]}</span> {number(finding.observed, finding.unit)} '
            f'<span class="muted">{t["baseline"]}</span> {number(finding.baseline, finding.unit)}</small>'
        )
    asked = f'<p class="asked">{chip("running", t["asked"])} {text(finding.asked)}</p>' if finding.asked else ""
    return (
        f'<tr data-evidence="{text(finding.id)}"><th scope="row">{text(finding.id)}</th><td>'
        f"<b>{text(finding.component)}</b> {chip('calm', finding.kind)} <small>{moment(finding.at)}"
        f" {text(finding.source)} {outside(finding.link, t['open_source'])}</small>"
        f'{asked}<p title="{text(finding.summary)}">{text(told(report, finding))}</p>{values} {drawn}'
        f"{_verbatim(finding, t)}</td></tr>"
    )


def _verbatim(finding: Finding, t: Texts) -> str:
    """Behind a line: who opens it has looked at the evidence, and that is recorded."""
    return folded(t["verbatim"], excerpt(finding.excerpt), is_open=False) if finding.excerpt else ""


def _chart(report: Report, finding: Finding, t: Texts, *, shown: bool) -> str:
    """The values over time, or where to see them."""
    if shown:
        return chart(report, finding, language=t["language"], inline=True)
    address = f"/incidents/{text(report.incident_id)}/pictures/{text(finding.id)}.svg?lang={t['language']}"
    return f'<a href="{address}" target="_blank">{t["chart"]}</a>' if finding.points else ""


def gaps(report: Report, t: Texts) -> str:
    """What could not be seen, why, and what would mend it."""
    rows = bullets(
        f"{chip('warning', word(t, 'gap', g.reason))} <b>{text(g.source)}</b> {text(g.detail)}"
        + (f' <span class="muted">{text(g.mend)}</span>' if g.mend else "")
        for g in report.gaps
    )
    return card(t["gaps"], rows)


def similar(report: Report, t: Texts) -> str:
    """Earlier incidents that looked like this one: why, what their cause was, and what resolved them or did not."""
    rows = bullets((_past(past, t) for past in report.similar), "results")
    note = f'<p class="muted">{t["similar_note"]}</p>'
    return card(t["similar"], note + rows) if rows else ""


def _past(past: PastIncident, t: Texts) -> str:
    name = text(past.incident_id)
    if OUR_ID.fullmatch(past.incident_id):
        name = f'<a href="{address(incident=past.incident_id, lang=t["language"])}">{name}</a>'
    cause = " · ".join(filter(None, (past.component, past.category.replace("_", " ")))) or "-"
    why = f'<span class="muted">{t["similar_why"]}:</span> {text("; ".join(past.reasons))}<br>' if past.reasons else ""
    return (
        f"<b>{name}</b> {text(past.at)} {text(past.title)} {references([past.evidence])}"
        f'<br><small>{why}<span class="muted">{t["similar_cause"]}:</span> {text(cause)}'
        f'<br><span class="muted">{t["similar_outcome"]}:</span> {text("; ".join(came_of(t, past)))}</small>'
    )


def runbooks(report: Report, t: Texts) -> str:
    """Sections of runbooks that fit the alert."""
    rows = bullets(
        f"<b>{text(d.title)}</b> {text(d.section)} {outside(d.link, t['open_source'])}"
        f' <span class="muted">{text(d.why)}</span>{excerpt(d.text)}'
        for d in report.documents
    )
    return card(t["runbooks"], rows) if report.documents else ""


def history(report: Report, t: Texts) -> str:
    """Decisions and what was done by hand first, then the timeline, newest first."""
    decided = bullets(_decision(d, t) for d in report.decisions)
    noted = bullets(f"{moment(n.at)} <b>{text(n.by)}</b> {text(n.text)}" for n in report.notes)
    lines = bullets(
        (f"{moment(e.at)} <b>{text(e.node)}</b> {text(e.message)}" for e in reversed(report.history)), "timeline"
    )
    return card(t["decisions"], decided) + card(t["notes"], noted) + card(t["history"], lines)


def _decision(made: DecisionMade, t: Texts) -> str:
    around = text(" · ".join(around_decision(t, made)))
    return (
        f"{moment(made.at)} <b>{text(made.by)}</b> {t['chose']} <b>{text(chosen(t, made.choice, made.steps))}</b> "
        f'<span class="muted">{around} {text(made.hint or made.note)}</span> <code>{text(made.plan_revision)}</code>'
    )
