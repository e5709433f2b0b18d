"""What a ticket says: the report, and a comment for each event that follows, in Atlassian Document Format. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import JsonValue

from app.markdown import figure, moment
from app.notifiers import _adf as adf
from app.notifiers._adf import Inline, Node
from app.notifiers.base import Event
from app.report import DecisionMade, Report, beside_claims, happened, quotation, retold, summary
from app.report_texts import (
    TEXTS,
    Texts,
    around_decision,
    author,
    came_of,
    chosen,
    confidence,
    needed,
    passed,
    todo,
    todo_undone,
    word,
)
from graph.state import (
    ActionOption,
    Claim,
    Execution,
    Finding,
    Language,
    PlanStep,
    RootCause,
    StepResult,
    Verification,
)

MOST = 30_000  # Jira takes 32,767 characters
MAX_FINDINGS, MAX_EXCERPTS, MAX_EVENTS = 15, 4, 40
MAX_CELL = 300  # characters

ENGLISH: Texts = {
    "incident": "Incident {}",
    "why_told": "Why you hear of this: {}",
    "same_alert": "The same alert as before has come again: incident {}. This ticket is still open, so there is no"
    " second one.",
    "more": "This is not all of it: see {} among the attachments.",
    "pictured": "Attached: {}.",
    "excerpts": "Excerpts",
    "moved": "The ticket was moved to «{}».",
    "not_moved": "The ticket stays in «{}»: {}. Please move it yourself.",
    "none_offered": "its workflow offers no step to where it belongs now",
    "event_decision": "Decided",
    "event_approval": "Approved",
    "event_withdrawal": "Taken back",
    "event_step_finished": "Step done",
    "event_recovered": "Recovered by itself",
    "event_reopened": "It has come back",
    "event_escalation": "Nobody has decided yet",
    "event_expired": "The options are too old to be approved",
    "event_note": "Noted",
    "event_status": "Status",
}
KOREAN: Texts = {
    "incident": "장애 {}",
    "why_told": "이 내용을 받는 이유: {}",
    "same_alert": "같은 알림이 다시 발생했습니다: 장애 {}. 이 티켓이 아직 열려 있어 새로 만들지 않았습니다.",
    "more": "전체 내용이 아닙니다. 첨부 파일 {}에 모두 있습니다.",
    "pictured": "첨부: {}.",
    "excerpts": "발췌",
    "moved": "티켓의 새 상태: «{}».",
    "not_moved": "티켓이 «{}»에 남아 있습니다: {}. 직접 옮겨 주세요.",
    "none_offered": "워크플로에 해당 상태로 가는 전환이 없습니다",
    "event_decision": "결정",
    "event_approval": "승인",
    "event_withdrawal": "철회",
    "event_step_finished": "단계 완료",
    "event_recovered": "저절로 복구됨",
    "event_reopened": "다시 발생함",
    "event_escalation": "아직 아무도 결정하지 않음",
    "event_expired": "조치가 너무 오래되어 승인할 수 없음",
    "event_note": "메모",
    "event_status": "상태",
}
OWN: Mapping[Language, Texts] = {"en": ENGLISH, "ko": KOREAN}


# --- the ticket ---


def headline(report: Report) -> str:
    """The ticket's summary: one line of at most 255 characters."""
    cause = report.root_cause
    return adf.line(f"{report.service}: {cause.title if cause and cause.component else report.title}", 255)


def description(report: Report, *, url: str, why: str, pictures: Sequence[str], rest: str) -> tuple[Node, bool]:
    """The whole report, and whether all of it is there.

    ``pictures``: names of attached pictures; ``rest``: the name of the file that has what does not fit.
    """
    blocks = [*_intro(report, url, why), *_body(report)]
    pictured = [adf.paragraph(adf.text(OWN[report.language]["pictured"].format(", ".join(pictures))))]
    tail = pictured if pictures else []
    return _whole(report, blocks, tail, rest)


def came_again(report: Report, *, url: str, why: str, rest: str) -> tuple[Node, bool]:
    """The comment on a ticket that is open already, for the same alert; the second as of ``description``."""
    said = adf.text(OWN[report.language]["same_alert"].format(report.incident_id), "strong")
    return _whole(report, [adf.paragraph(said), *_intro(report, url, why), *_body(report)], [], rest)


def _whole(report: Report, blocks: Sequence[Node], tail: Sequence[Node], rest: str) -> tuple[Node, bool]:
    """All blocks, or those that fit and a hint at the file that has the rest."""
    more = adf.paragraph(adf.text(OWN[report.language]["more"].format(rest), "strong"))
    kept, complete = adf.fitted(blocks, MOST - adf.size(adf.document([*tail, more])))
    return adf.document([*kept, *([] if complete else [more]), *tail]), complete


def _intro(report: Report, url: str, why: str) -> Iterator[Node]:
    t, own = TEXTS[report.language], OWN[report.language]
    status = word(t, "status", report.status)
    yield adf.paragraph(
        adf.link(own["incident"].format(report.incident_id), url),
        adf.text(
            f"· {report.service} · {report.environment} · {word(t, 'severity', report.severity)} · {status}."
            f" {t['occurred_at'].format(moment(report.occurred_at))}"
        ),
    )
    if why:
        yield adf.paragraph(adf.text(own["why_told"].format(why), "em"))


def _body(report: Report) -> Iterator[Node]:
    """Most important first: what does not fit is left out from the end."""
    t = TEXTS[report.language]
    yield from _root_cause(report, t)
    yield from _impact(report, t)
    yield from _evidence(report, t)
    yield from _options(report, t)
    yield from _titled(t["decisions"], adf.bullets(_decision(d, t) for d in report.decisions))
    for execution in report.executions:
        yield from _execution(execution, t)
    yield from _titled(t["notes"], adf.bullets(_timed(n.at, f"{n.by}: {n.text}") for n in report.notes))
    yield from _titled(OWN[report.language]["excerpts"], list(_excerpts(report)))
    yield from _titled(t["gaps"], adf.bullets(map(adf.text, _gaps(report, t))))
    yield from _similar(report, t)
    yield from _titled(t["runbooks"], adf.bullets(_runbooks(report)))
    yield from _titled(t["history"], adf.bullets(_timed(e.at, e.message) for e in report.history[-MAX_EVENTS:]))


def _titled(title: str, blocks: Sequence[Node]) -> list[Node]:
    return [adf.heading(2, title), *blocks] if blocks else []


def _timed(at: object, said: str) -> Inline:
    return adf.text(f"{at:%Y-%m-%d %H:%M:%S} {said}")


# --- cause and evidence ---


def _root_cause(report: Report, t: Texts) -> Iterator[Node]:
    yield adf.heading(2, t["root_cause"])
    cause = report.root_cause
    if cause is None:
        yield adf.paragraph(adf.text(t["not_analysed"]))
        return
    yield from _verdict(cause, t)
    if cause.contradicts:
        yield adf.paragraph(adf.text(f"{t['contradicts']}:", "strong"), adf.text(cause.contradicts))
    if told := beside_claims(cause):
        yield adf.paragraph(adf.text(told))
    links = {f.id: f.link for f in report.evidence}
    yield from adf.bullets(_claim(c, links, t) for c in cause.claims)
    if report.path:
        path = "; ".join(f"{h.cause} -> {h.effect}" for h in report.path)
        yield adf.paragraph(adf.text(f"{t['causal_path']}: {path}"))
    if report.open_questions:
        yield adf.paragraph(adf.text(f"{t['unknowns']}:"))
        yield from adf.bullets(map(adf.text, report.open_questions))


def _verdict(cause: RootCause, t: Texts) -> Iterator[Node]:
    yield adf.paragraph(adf.text(cause.title, "strong"))
    yield adf.paragraph(
        adf.text(f"{confidence(t, cause)} · {t['engine']} {author(t, cause.engine)}. {cause.engine_note}")
    )


def _claim(claim: Claim, links: Mapping[str, str | None], t: Texts) -> Inline:
    """With its quotation and its evidence, each linked to its source."""
    words = quotation(claim)
    cited = [adf.link(f"[{eid}]", links.get(eid)) for eid in claim.evidence]
    doubt = () if claim.verified else adf.text(f"{t['not_verified']}: {claim.complaint}", "strong")
    return adf.joined(adf.text(claim.text), adf.text(f"“{words}”" if words else ""), *cited, doubt)


def _impact(report: Report, t: Texts) -> list[Node]:
    rows = [
        [
            adf.text(retold(report, i.name)),
            adf.text(f"{i.value:,.6g} {i.unit}"),
            adf.text(retold(report, i.window)),
            adf.text(", ".join(i.evidence) or "-"),
        ]
        for i in report.impact
    ]
    return _titled(t["impact"], adf.table([t["what"], t["how_much"], t["when"], t["evidence"]], rows))


def _evidence(report: Report, t: Texts) -> list[Node]:
    rows = [
        [
            adf.link(f.id, f.link),
            adf.text(f"{f.at:%H:%M:%S}"),
            adf.text(summary(report, f), most=MAX_CELL),
        ]
        for f in report.evidence[:MAX_FINDINGS]
    ]
    shown = adf.table(["", t["since"], t["what"]], rows, widths=(60, 100, 600))
    left = len(report.evidence) - len(rows) + report.unlisted
    more = [adf.paragraph(adf.text(t["unlisted"].format(left)))] if left and rows else []
    return _titled(t["evidence"], [*shown, *more])


def _similar(report: Report, t: Texts) -> list[Node]:
    """Earlier incidents that looked like it, and what came of them."""
    items = [
        adf.joined(
            adf.text(f"{past.incident_id} ({past.at}): {past.title}", "strong"),
            adf.text("; ".join((*past.reasons, *came_of(t, past)))),
        )
        for past in report.similar
    ]
    note = [adf.paragraph(adf.text(t["similar_note"]))] if items else []
    return _titled(t["similar"], [*note, *adf.bullets(items)])


def _excerpts(report: Report) -> Iterator[Node]:
    """Verbatim, of the most informative findings."""
    quoted: list[Finding] = [f for f in report.evidence if f.excerpt.strip()][:MAX_EXCERPTS]
    for finding in quoted:
        yield adf.paragraph(adf.link(finding.id, finding.link), adf.text(f"{finding.component}: {finding.source}"))
        yield from adf.code(finding.excerpt, 6)


def _gaps(report: Report, t: Texts) -> Iterator[str]:
    for gap in report.gaps:
        yield f"{gap.source}: {word(t, 'gap', gap.reason)}: {gap.detail}" + (f" ({gap.mend})" if gap.mend else "")


def _runbooks(report: Report) -> Iterator[Inline]:
    for found in report.documents:
        yield adf.joined(adf.link(found.title or "-", found.link), adf.text(f"{found.section} {found.why}"))


# --- options, and what came of them ---


def _options(report: Report, t: Texts) -> list[Node]:
    blocks = [adf.paragraph(adf.text(line)) for line in report.plan_note.splitlines() if line.strip()]
    for number, option in enumerate(report.options, 1):
        blocks += _option(number, option, t)
    return _titled(t["options"], blocks)


def _option(number: int, option: ActionOption, t: Texts) -> Iterator[Node]:
    tried = f" - {t['tried']}: {word(t, 'verdict', option.tried)}" if option.tried else ""
    facts = [
        f"{t['risk']}: {word(t, 'risk', option.risk)}",
        t["about_minutes"].format(f"{option.minutes:g}"),
        f"{t['because']} {', '.join(option.why) or '-'}",
        f"{t['undo']}: {option.undo or t['no_undo']}",
        f"{t['takes']}: {needed(t, option.needs)}",
        *([f"{t['track_record']}: {option.track_record}"] if option.track_record else []),
    ]
    yield adf.heading(3, f"{number}. {option.title}{tried}")
    if option.description:
        yield adf.paragraph(adf.text(option.description))
    yield adf.paragraph(adf.text(" · ".join(facts)))
    yield from adf.numbered(_plan_step(s, t) for s in option.steps)
    if option.needs.refused:
        yield adf.paragraph(adf.text(f"{t['policy_refuses']}:", "strong"), adf.text("; ".join(option.needs.refused)))


def _plan_step(step: PlanStep, t: Texts) -> Inline:
    said = f"{t['cannot_run']}: {step.infeasible}" if step.infeasible else step.preview
    checks = f"({t['preflight']}: {passed(t, step.checks)})" if step.checks else ""
    return adf.joined(adf.text(f"{step.operation} {_params(step.params)}", "code"), adf.text(said), adf.text(checks))


def _params(params: Mapping[str, JsonValue]) -> str:
    return ", ".join(f"{name}={value}" for name, value in params.items())


def _decision(decision: DecisionMade, t: Texts) -> Inline:
    words = decision.hint or decision.note
    return adf.joined(
        _timed(decision.at, f"{decision.by} {t['chose']}"),
        adf.text(chosen(t, decision.choice, decision.steps), "strong"),
        adf.text(f"({'; '.join(around_decision(t, decision))})" + (f": {words}" if words else "")),
    )


def _execution(execution: Execution, t: Texts) -> Iterator[Node]:
    yield adf.heading(2, f"{t['execution']}: {execution.title}")
    yield from adf.bullets(_step(r, todo(t, r.status), t) for r in execution.results)
    yield from adf.bullets(_step(r, todo_undone(t, r.status), t, f"({t['undone']})") for r in execution.undone)
    yield from _verification(execution.verification, t)


def _step(result: StepResult, what_to_do: str, t: Texts, of: str = "") -> Inline:
    return adf.joined(
        adf.text(f"{result.ordinal}."),
        adf.text(result.operation, "code"),
        adf.text(word(t, "step", result.status), "strong"),
        adf.text(f"{result.detail} {of}"),
        adf.text(what_to_do, "strong"),
    )


def _verification(verification: Verification, t: Texts) -> Iterator[Node]:
    verdict = word(t, "verdict", verification.verdict)
    yield adf.paragraph(adf.text(f"{t['verdict']}:"), adf.text(verdict, "strong"), adf.text(verification.detail))
    if verification.control:
        credit = word(t, "credit", verification.credit)
        yield adf.paragraph(adf.text(f"{t['credit']} {credit}. {t['compared']}: {verification.control}"))
    rows = [
        [
            adf.text(f"{c.effect.ref.component} {c.effect.ref.metric}", most=MAX_CELL),
            adf.text(figure(c.before)),
            adf.text(figure(c.after)),
            adf.text(f"{c.effect.comparator} {c.effect.value:g}"),
            adf.text(word(t, "effect", c.status)),
        ]
        for c in verification.checks
    ]
    yield from adf.table([t["metric"], t["before"], t["after"], t["expected_value"], ""], rows)


# --- comments ---


def moved(report: Report, status: str) -> str:
    """That the ticket is there now."""
    return OWN[report.language]["moved"].format(status)


def not_moved(report: Report, status: str, why: str = "") -> str:
    """That it is where it was; without a reason: no step leads on."""
    own = OWN[report.language]
    return own["not_moved"].format(status, why.rstrip(".") or own["none_offered"])


def comment(report: Report, event: Event, *, url: str, moved: str) -> Node:
    """One event, and what became of the ticket's own status by it; empty: nothing."""
    own = OWN[report.language]
    head = adf.paragraph(
        adf.text(f"{moment(event.at)}:"),
        adf.text(own.get(f"event_{event.kind}", event.kind.replace("_", " ")), "strong"),
        adf.link(f"({own['incident'].format(report.incident_id)})", url),
    )
    tail = [adf.paragraph(adf.text(moved, "em"))] if moved else []
    kept, _ = adf.fitted([head, *_told(report, event)], MOST - adf.size(adf.document(tail)))
    return adf.document([*kept, *tail])


def _told(report: Report, event: Event) -> Iterable[Node]:
    """In words of the report's language where the report knows of it, else in those of the timeline."""
    t = TEXTS[report.language]
    if event.kind == "decision" and (made := [d for d in report.decisions if d.at == event.at]):
        return adf.bullets([_decision(made[-1], t)])
    if event.kind == "step_finished":
        return [adf.paragraph(*_finished(report, event, t))]
    if event.kind == "status":
        return _status(report, event, t)
    return [adf.paragraph(adf.text(happened(report, event.kind, event.message)))]


def _status(report: Report, event: Event, t: Texts) -> Iterator[Node]:
    """With what came of the decision before; where the next one is awaited, also the cause and what can be done."""
    status = str(event.data.get("status", ""))
    reason = retold(report, event.message.partition(": ")[2])
    yield adf.paragraph(adf.text(word(t, "status", status), "strong"), adf.text(reason))
    last, made = report.decisions[-1:], report.executions[-1:]
    if last and made and last[0].plan_revision == made[0].plan_revision:
        yield from _verification(made[0].verification, t)
    if status == "awaiting_decision":
        yield from _verdict(report.root_cause, t) if report.root_cause else ()
        yield from adf.numbered(adf.text(o.title) for o in report.options)


def _finished(report: Report, event: Event, t: Texts) -> Iterator[Inline]:
    operation, status = str(event.data.get("operation", "")), str(event.data.get("status", ""))
    yield adf.text(operation, "code")
    yield adf.text(word(t, "step", status), "strong")
    yield adf.text(retold(report, event.message.removeprefix(f"{operation}: {status}").removeprefix(" - ")))
    yield adf.text(todo(t, status), "strong")
