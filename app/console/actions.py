"""What can be done and what was done, as HTML: options, confirmation, results. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from app.console.markup import bullets, card, chip, notice, number, parameters, references, text
from app.report import DecisionMade, Report
from app.report_texts import Texts, author, word
from app.security import Role
from executors.base import Risk
from graph.state import ActionOption, Choice, EffectCheck, Execution, ExpectedEffect, PlanStep, Verification

LedgerRow = Mapping[str, Any]


def options(report: Report, roles: Mapping[Risk, Role], t: Texts) -> str:
    """At most three cards, exactly as a decision on this revision will run them."""
    note = "".join(f"<p>{text(line)}</p>" for line in report.plan_note.splitlines())
    if not report.options:
        return card(t["actions"], note) if note else ""
    cards = "".join(_option(number_, o, roles, t) for number_, o in enumerate(report.options, 1))
    return card(t["actions"], f'{note}<div class="options">{cards}</div>{_revision(report.plan_revision, t)}')


def _option(number_: int, option: ActionOption, roles: Mapping[Risk, Role], t: Texts) -> str:
    broken = any(s.infeasible for s in option.steps)
    chips = [chip("running", t[f"intent_{option.intent}"])] if option.intent else []
    risk = f"{t['risk']}: {word(t, 'risk', option.risk)}"
    chips += [chip(_risk_tone(option.risk), risk), f"~{option.minutes:g} {t['minutes']}"]
    if roles.get(option.risk) == "admin":
        chips.append(chip("calm", f"{t['takes_role']} admin"))
    if option.tried:
        chips.append(chip(option.tried, f"{t['tried']}: {word(t, 'verdict', option.tried)}"))
    if broken:
        chips.append(chip("failed", t["cannot_run"]))
    record = f"<p>{t['track_record']}: {text(option.track_record)}</p>" if option.track_record else ""
    engine = f"{t['proposed_by']} {text(author(t, option.engine))} {text(option.engine_note)}"
    return (
        f'<article class="option{" broken" if broken else ""}"><h3>{number_}. {text(option.title)}</h3>'
        f'<p class="facts">{" ".join(chips)}</p><p>{text(option.description)}</p>'
        f"<h4>{t['tools']}</h4>{_plan_steps(option.steps, t)}"
        + _effects(option.expected, t)
        + record
        + f'<p class="muted">{t["undo"]}: {text(option.undo or t["no_undo"])}<br>{t["because"]}'
        f" {references(option.why) or '-'} · {engine}</p></article>"
    )


def _risk_tone(risk: Risk) -> str:
    return {"none": "calm", "low": "done", "medium": "medium", "high": "high"}[risk]


def _plan_steps(steps: Sequence[PlanStep], t: Texts) -> str:
    rows = "".join(f"<li>{_operation(s.operation, s.params)}{_preview(s, t)}</li>" for s in steps)
    return f'<ol class="steps">{rows}</ol>'


def _operation(operation: str, params: Mapping[str, JsonValue]) -> str:
    return f'<code class="operation">{text(operation)}</code> {parameters(params)}'


def _preview(step: PlanStep, t: Texts) -> str:
    if step.infeasible:
        return f'<div class="broken">{chip("failed", t["cannot_run"])} {text(step.infeasible)}</div>'
    return f"<div>{text(step.preview or step.summary)}</div>"


def _effects(effects: Sequence[ExpectedEffect], t: Texts) -> str:
    """One line each, by component and time: they mostly share both."""
    groups: dict[tuple[str, float], list[ExpectedEffect]] = {}
    for effect in effects:
        groups.setdefault((effect.ref.component, effect.within_minutes), []).append(effect)
    return "".join(
        f"<h4>{t['expected']}: {text(component)}, {t['within'].format(f'{minutes:g}')}</h4>"
        + bullets(_effect(e, t) for e in group)
        for (component, minutes), group in groups.items()
    )


def _effect(effect: ExpectedEffect, t: Texts) -> str:
    now = f", {t['now']} {number(effect.observed, effect.ref.unit)}" if effect.observed is not None else ""
    value = number(effect.value, effect.ref.unit)
    return f'<b>{text(effect.ref.metric)}</b> {text(effect.comparator)} {value}<span class="muted">{now}</span>'


def _revision(revision: str | None, t: Texts) -> str:
    return f'<p class="muted">{t["revision"]} <code>{text(revision)}</code></p>' if revision else ""


def choice_label(choice: Choice, report: Report, t: Texts) -> str:
    """One line of the radio group; plain text."""
    if choice in ("1", "2", "3"):
        option = report.options[int(choice) - 1]
        risk = f"{t['risk']}: {word(t, 'risk', option.risk)}"
        return f"{choice}. {option.title} ({risk}, ~{option.minutes:g} {t['minutes']})"
    return t[choice]


def confirmation(report: Report, choice: Choice, hint: str, t: Texts) -> str:
    """Every operation with its parameters, and the revision it is bound to."""
    if choice == "manual":
        body = f"<p>{t['confirm_manual']}</p>"
    elif choice == "re_analyze":
        spoken = t[f"written_{t['language']}"]  # in the language that this page is read in
        body = f"<p>{t['confirm_re_analyze']} <b>{text(hint or t['no_hint'])}</b></p><p>{spoken}</p>"
    else:
        option = report.options[int(choice) - 1]
        body = f'<p class="headline">{choice}. {text(option.title)}</p>{_plan_steps(option.steps, t)}'
    return card(t["confirm_title"], body + _revision(report.plan_revision, t), "confirm")


def results(report: Report, ledger: Sequence[LedgerRow], events: Sequence[LedgerRow], t: Texts) -> str:
    """Newest first: what is running now, then every finished execution."""
    running = _under_way(report)
    now = _running(report, running, ledger, events, t) if running else ""
    return now + "".join(_execution(e, t) for e in reversed(report.executions))


def _under_way(report: Report) -> DecisionMade | None:
    """The decision that is being carried out, if one is."""
    if not report.decisions or report.status not in ("executing", "verifying", "needs_attention"):
        return None
    last = report.decisions[-1]
    finished = {e.plan_revision for e in report.executions}
    runs = last.choice in ("1", "2", "3") and int(last.choice) <= len(report.options)
    return last if runs and last.plan_revision not in finished else None


def _running(
    report: Report, decision: DecisionMade, ledger: Sequence[LedgerRow], events: Sequence[LedgerRow], t: Texts
) -> str:
    option = report.options[int(decision.choice) - 1]
    rows = {r["ordinal"]: r for r in ledger if r["plan_revision"] == decision.plan_revision and not r["undo"]}
    steps = "".join(_live_step(i, s, rows.get(i), t) for i, s in enumerate(option.steps, 1))
    measured = next((e for e in reversed(events) if e["kind"] == "verification" and e["at"] >= decision.at), None)
    watched = ""
    if measured:
        checks = bullets(text(c) for c in measured["data"].get("checks", []) if c)
        watched = notice(measured["message"], "busy") + checks
    return card(f"{t['results']}: {option.title}", f'<ol class="results">{steps}</ol>{watched}', "live")


def _live_step(ordinal: int, step: PlanStep, row: LedgerRow | None, t: Texts) -> str:
    if row is None:
        return _result(ordinal, step.operation, "waiting", "", step.params, (), t)
    result = row["result"]
    if result is None:
        return _result(ordinal, step.operation, "running", "", step.params, (), t)
    return _result(ordinal, step.operation, result["status"], result["detail"], step.params, result["request_ids"], t)


def _result(
    ordinal: int,
    operation: str,
    status: str,
    detail: str,
    params: Mapping[str, JsonValue],
    request_ids: Sequence[str],
    t: Texts,
) -> str:
    requests = f'<small class="muted">{t["requests"]}: {text(", ".join(request_ids))}</small>' if request_ids else ""
    shown = chip(status, t.get(f"step_{status}", t.get(status, "")))
    return (
        f'<li class="{text(status)}">{shown} {ordinal}. {_operation(operation, params)}'
        f"<div>{text(detail)}</div>{requests}</li>"
    )


def _execution(execution: Execution, t: Texts) -> str:
    done = "".join(
        _result(r.ordinal, r.operation, r.status, r.detail, r.params, r.request_ids, t) for r in execution.results
    )
    undone = "".join(
        _result(r.ordinal, r.operation, r.status, r.detail, r.params, r.request_ids, t) for r in execution.undone
    )
    return card(
        f"{t['results']}: {execution.title}",
        _verdict(execution.verification, t)
        + f'<ol class="results">{done}</ol>'
        + (f'<h3>{t["undone"]}</h3><ol class="results">{undone}</ol>' if undone else "")
        + _revision(execution.plan_revision, t),
    )


def _verdict(verification: Verification, t: Texts) -> str:
    verdict = chip(verification.verdict, word(t, "verdict", verification.verdict))
    said = f'<p class="headline">{t["verdict"]}: {verdict} <span class="muted">{text(verification.detail)}</span></p>'
    if not verification.checks:
        return said
    heads = "".join(f"<th>{text(h)}</th>" for h in ("", t["metric"], t["before"], t["after"], t["expected_value"]))
    rows = "".join(_check(c, t) for c in verification.checks)
    return f'{said}<table class="checks"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'


def _check(check: EffectCheck, t: Texts) -> str:
    effect, status = check.effect, chip(check.status, word(t, "effect", check.status))
    return (
        f"<tr><td>{status}</td><td>{text(effect.ref.component)} <b>{text(effect.ref.metric)}</b>"
        f'<small class="muted">{text(check.detail)}</small></td><td>{number(check.before, effect.ref.unit)}</td>'
        f"<td>{number(check.after, effect.ref.unit)}</td>"
        f"<td>{text(effect.comparator)} {number(effect.value, effect.ref.unit)}</td></tr>"
    )
