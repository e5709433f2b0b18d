"""What was done and what came of it, as HTML: live from the ledger, then every finished execution. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import JsonValue

from app.console.actions import operation_line, revision
from app.console.markup import bullets, card, chip, notice, number, table, text
from app.decision_checks import OPTIONS, RUNS
from app.report import DecisionMade, Report
from app.report_texts import Texts, todo, todo_undone, word
from graph.state import EffectCheck, Execution, PlanStep, StepResult, Verification

LedgerRow = Mapping[str, Any]
CREDIT = {"remedy": "met", "unclear": "unclear", "by_itself": "calm"}


def results(report: Report, ledger: Sequence[LedgerRow], events: Sequence[LedgerRow], t: Texts) -> str:
    """Newest first: what is running now, then every finished execution."""
    running = _under_way(report)
    now = _running(report, running, ledger, events, t) if running else ""
    return now + "".join(_execution(e, t) for e in reversed(report.executions))


# --- live ---


def _under_way(report: Report) -> DecisionMade | None:
    """The decision that is being carried out, if one is."""
    if not report.decisions or report.status not in ("executing", "verifying", "needs_attention"):
        return None
    last = report.decisions[-1]
    finished = {e.plan_revision for e in report.executions}
    known = last.choice == "undo" or (last.choice in OPTIONS and int(last.choice) <= len(report.options))
    runs = last.choice in RUNS and known and not last.withdrawn_by
    return last if runs and last.plan_revision not in finished else None


def _running(
    report: Report, decision: DecisionMade, ledger: Sequence[LedgerRow], events: Sequence[LedgerRow], t: Texts
) -> str:
    rows = [r for r in ledger if r["plan_revision"] == decision.plan_revision]
    if decision.choice == "undo":
        return card(t["undo_running"], _list(_live_undo(r, t) for r in rows if r["undo"]) or _wait(t), "live")
    option = report.options[int(decision.choice) - 1]
    claimed = {r["ordinal"]: r for r in rows if not r["undo"]}
    steps = _list(_live_step(i, s, claimed.get(i), decision, t) for i, s in enumerate(option.steps, 1))
    undone = _list(_live_undo(r, t) for r in rows if r["undo"])
    back = f"<h3>{t['undone']}</h3>{undone}" if undone else ""
    return card(f"{t['results']}: {option.title}", steps + _watched(decision, events, t) + back, "live")


def _wait(t: Texts) -> str:
    return f'<p class="muted">{t["waiting"]}</p>'


def _watched(decision: DecisionMade, events: Sequence[LedgerRow], t: Texts) -> str:
    """What was measured last."""
    measured = next((e for e in reversed(events) if e["kind"] == "verification" and e["at"] >= decision.at), None)
    if measured is None:
        return ""
    return notice(measured["message"], "busy") + bullets(text(c) for c in measured["data"].get("checks", []) if c)


def _live_step(ordinal: int, step: PlanStep, row: LedgerRow | None, decision: DecisionMade, t: Texts) -> str:
    if row and row["result"]:
        return _result(StepResult.model_validate(row["result"]), t)
    if decision.steps and ordinal not in decision.steps:
        return _line(ordinal, step.operation, step.params, "skipped", t["not_approved"], t)
    return _line(ordinal, step.operation, step.params, "running" if row else "waiting", "", t)


def _live_undo(row: LedgerRow, t: Texts) -> str:
    if row["result"]:
        return _undone(StepResult.model_validate(row["result"]), t)
    return _line(row["ordinal"], row["operation"], row["params"], "running", "", t)


# --- finished ---


def _execution(execution: Execution, t: Texts) -> str:
    undone = _list(_undone(r, t) for r in execution.undone)
    puts_back = text(t["puts_back"].format(execution.undoes))
    return card(
        f"{t['results']}: {execution.title}",
        _verdict(execution, t)
        + (f'<p class="muted">{puts_back}</p>' if execution.undoes else "")
        + _list(_result(r, t) for r in execution.results)
        + (f"<h3>{t['undone']}</h3>{undone}" if undone else "")
        + revision(execution.plan_revision, t),
    )


def _list(items: Iterable[str]) -> str:
    inner = "".join(items)
    return f'<ol class="results">{inner}</ol>' if inner else ""


def _result(result: StepResult, t: Texts) -> str:
    return _told(result, todo(t, result.status), t)


def _undone(result: StepResult, t: Texts) -> str:
    return _told(result, todo_undone(t, result.status), t)


def _told(result: StepResult, advice: str, t: Texts) -> str:
    requests = f'<small class="muted">{t["requests"]}: {text(", ".join(result.request_ids))}</small>'
    more = requests if result.request_ids else ""
    more += notice(advice, "warn" if result.status == "dry_run" else "bad") if advice else ""
    return _line(result.ordinal, result.operation, result.params, result.status, result.detail, t, more)


def _line(
    ordinal: int, operation: str, params: Mapping[str, JsonValue], status: str, detail: str, t: Texts, more: str = ""
) -> str:
    shown = chip(status, t.get(f"step_{status}", t.get(status, "")))
    return (
        f'<li class="{text(status)}">{shown} {ordinal}. {operation_line(operation, params)}'
        f"<div>{text(detail)}</div>{more}</li>"
    )


def _verdict(execution: Execution, t: Texts) -> str:
    verification = execution.verification
    detail = f'<span class="muted">{text(verification.detail)}</span>'
    if execution.choice == "undo":  # nothing is measured of it
        return f"<p>{detail}</p>"
    verdict = chip(verification.verdict, word(t, "verdict", verification.verdict))
    said = f'<p class="headline">{t["verdict"]}: {verdict} {detail}</p>{_credit(verification, t)}'
    heads = ("", t["metric"], t["before"], t["after"], t["expected_value"])
    return said + table(heads, (_check(c, t) for c in verification.checks), "checks")


def _credit(verification: Verification, t: Texts) -> str:
    if not verification.control:
        return ""
    credit = chip(CREDIT[verification.credit], word(t, "credit", verification.credit))
    control = f'<span class="muted">{t["compared"]}: {text(verification.control)}</span>'
    return f"<p>{t['credit']} {credit} {control}</p>"


def _check(check: EffectCheck, t: Texts) -> tuple[str, ...]:
    effect = check.effect
    return (
        chip(check.status, word(t, "effect", check.status)),
        f"{text(effect.ref.component)} <b>{text(effect.ref.metric)}</b>"
        f'<small class="muted">{text(check.detail)}</small>',
        number(check.before, effect.ref.unit),
        number(check.after, effect.ref.unit),
        f"{text(effect.comparator)} {number(effect.value, effect.ref.unit)}",
    )
