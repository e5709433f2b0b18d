"""What can be done, as HTML: options with all that is known of them, what stands in the way, confirmation. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from app.console.markup import (
    bullets,
    card,
    chip,
    folded,
    meter,
    moment,
    notice,
    number,
    parameters,
    references,
    refusal,
    table,
    text,
)
from app.decision_checks import OPTIONS, Admissible, Verdict
from app.decisions import Offer, Offers
from app.report import Report
from app.report_texts import FELT, Texts, amount, author, chosen, felt, needed, passed, word
from executors.base import Change, PreflightCheck, Risk
from graph.state import ActionOption, BlastRadius, CapacityEstimate, Choice, ExpectedEffect, PlanStep

PLAIN: tuple[Choice, ...] = ("manual", "re_analyze", "re_plan")  # choices of the form that run nothing


@dataclass(frozen=True)
class PutBack:
    """A step that undo would put back; ``changes`` from what it is now to what it was."""

    step: PlanStep
    changes: tuple[Change, ...]


# --- options ---


def options(report: Report, offers: Offers, t: Texts) -> str:
    """At most three cards, exactly as a decision on this revision will run them."""
    note = "".join(f"<p>{text(line)}</p>" for line in report.plan_note.splitlines())
    if not report.options:
        return card(t["actions"], note) if note else ""
    cards = "".join(_option(n, o, offers, t) for n, o in enumerate(report.options, 1))
    return card(t["actions"], f'{note}<div class="options">{cards}</div>{revision(report.plan_revision, t)}')


def _option(place: int, option: ActionOption, offers: Offers, t: Texts) -> str:
    broken = any(s.infeasible for s in option.steps)
    record = f"<p>{t['track_record']}: {text(option.track_record)}</p>" if option.track_record else ""
    engine = f"{t['proposed_by']} {text(author(t, option.engine))} {text(option.engine_note)}"
    return (
        f'<article class="option{" broken" if broken else ""}"><h3>{place}. {text(option.title)}</h3>'
        f'<p class="facts">{" ".join(_facts(option, t))}</p><p>{text(option.description)}</p>'
        f'<div class="sides"><div><h4>{t["tools"]}</h4>{_plan_steps(enumerate(option.steps, 1), t)}</div>'
        f"<div>{_blast_radius(option.blast_radius, t)}{_effects(option.expected, t)}</div></div>"
        + record
        + _approval(place, option, offers, t)
        + f'<p class="muted">{t["undo"]}: {text(option.undo or t["no_undo"])}<br>{t["because"]}'
        f" {references(option.why) or '-'} · {engine}</p></article>"
    )


def _facts(option: ActionOption, t: Texts) -> list[str]:
    chips = [chip("running", t[f"intent_{option.intent}"])] if option.intent else []
    risk = f"{t['risk']}: {word(t, 'risk', option.risk)}"
    chips += [chip(_risk_tone(option.risk), risk), f"~{option.minutes:g} {t['minutes']}"]
    if option.needs.dry_run:
        chips.append(chip("dry_run", word(t, "step", "dry_run")))
    if option.tried:
        chips.append(chip(option.tried, f"{t['tried']}: {word(t, 'verdict', option.tried)}"))
    if any(s.infeasible for s in option.steps):
        chips.append(chip("failed", t["cannot_run"]))
    return chips


def _risk_tone(risk: Risk) -> str:
    return {"none": "calm", "low": "done", "medium": "medium", "high": "high"}[risk]


# --- steps ---


def _plan_steps(steps: Iterable[tuple[int, PlanStep]], t: Texts) -> str:
    rows = "".join(f'<li value="{n}">{operation_line(s.operation, s.params)}{_preview(s, t)}</li>' for n, s in steps)
    return f'<ol class="steps">{rows}</ol>'


def operation_line(operation: str, params: Mapping[str, JsonValue]) -> str:
    """An operation with its parameters, exactly as it runs."""
    return f'<code class="operation">{text(operation)}</code> {parameters(params)}'


def _preview(step: PlanStep, t: Texts) -> str:
    broken = f'<div class="broken">{chip("failed", t["cannot_run"])} {text(step.infeasible)}</div>'
    said = f"<div>{text(step.preview or step.summary)}</div>"
    return (broken if step.infeasible else said) + _changes(step.changes, t) + _checks(step.checks, t)


def _changes(changes: Iterable[Change], t: Texts) -> str:
    rows = ((text(c.what), f"<del>{text(c.before)}</del>", f"<ins>{text(c.after)}</ins>") for c in changes)
    return table(("", t["before"], t["after"]), rows, "changes")


def _checks(checks: Sequence[PreflightCheck], t: Texts) -> str:
    """Those that are a reason to think twice; behind a line, the rest."""
    if not checks:
        return ""
    doubts = [c for c in checks if c.status in ("failed", "warning")]
    rest = bullets((_check(c, t) for c in checks if c not in doubts), "preflight")
    said = f"{t['preflight']}: {passed(t, checks)}"
    return folded(said, rest, is_open=False, kind="checked") + bullets((_check(c, t) for c in doubts), "preflight")


def _check(check: PreflightCheck, t: Texts) -> str:
    status = chip(check.status, word(t, "checked", check.status))
    return f'{status} {word(t, "looked", check.name)} <span class="muted">{text(check.detail)}</span>'


# --- blast radius ---


def _blast_radius(radius: BlastRadius | None, t: Texts) -> str:
    if radius is None:
        return ""
    tones = {"all": "all", "partly": "partly", "no": "failed"}
    body = f"<p>{chip(tones[radius.reversible], t[f'reversible_{radius.reversible}'])}</p>"
    for how in FELT:
        if named := [text(felt(t, s)) for s in radius.services if s.how == how]:
            body += f'<p><span class="muted">{t[f"felt_{how}"]}</span> {", ".join(named)}</p>'
    return f"<h4>{t['blast_radius']}</h4>{body}{_share(radius.request_share, t)}{_capacity(radius.capacity, t)}"


def _share(share: float | None, t: Texts) -> str:
    if share is None:
        return f'<p class="muted">{t["share_unknown"]}</p>'
    return f'<p class="share">{meter(share)} {text(t["request_share"].format(f"{100 * share:.0f}%"))}</p>'


def _capacity(estimates: Sequence[CapacityEstimate], t: Texts) -> str:
    heads = (t["service"], t["servers"], t["utilisation"], t["time_to_answer"])
    bases = "; ".join(dict.fromkeys(e.basis for e in estimates if e.basis))
    told = f'<small class="muted">{text(bases)}</small>' if bases else ""
    return table(heads, (_left(e, t) for e in estimates), "capacity") + told


def _left(left: CapacityEstimate, t: Texts) -> tuple[str, str, str, str]:
    waits = t["as_long"].format(f"{left.wait_then:g}") if left.wait_then is not None else "-"
    servers = f"{left.servers_now:g} → {left.servers_then:g}"
    busy = f"{_busy(left.utilisation_now)} → {_busy(left.utilisation_then)}"
    if left.utilisation_now is not None and left.utilisation_then is not None:
        full = "full" if left.utilisation_then >= 1 else ""
        busy += meter(left.utilisation_now) + meter(left.utilisation_then, full)
    return text(left.service), servers, busy, text(waits)


def _busy(utilisation: float | None) -> str:
    return "-" if utilisation is None else f"{100 * utilisation:.0f}%"


# --- what it should do ---


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


# --- who must approve it, and who did ---


def _approval(place: int, option: ActionOption, offers: Offers, t: Texts) -> str:
    """What the policy asks for as of now, who approved already, and why this caller may not."""
    offer = next((o for o in offers.offers if o.choice == str(place)), None)
    needs = offer.needs if offer and offer.needs else option.needs
    return (
        f"<p>{t['takes']}: <b>{text(needed(t, needs))}</b></p>"
        + _approvals(str(place), needs.approvals, offers, t)
        + (_refused(offer, offers, t) if offer else "")
    )


def _approvals(choice: str, people: int, offers: Offers, t: Texts) -> str:
    """By the steps that were approved: only for the same ones do they count together."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for waiting in offers.approvals:
        if waiting.choice == choice:
            said = f"<b>{text(waiting.by)}</b> {t['approved']} ({t[f'via_{waiting.via}']}, {moment(waiting.at)})"
            groups.setdefault(waiting.steps, []).append(said)
    return "".join(
        f'<div class="notice busy">{", ".join(said)}{_only(steps, t)}: '
        f"{amount(t, max(people - len(said), 1), 'more_people')}</div>"
        for steps, said in groups.items()
    )


def _only(steps: Sequence[int], t: Texts) -> str:
    return f", {t['only_steps'].format(', '.join(map(str, steps)))}" if steps else ""


def _refused(offer: Offer, offers: Offers, t: Texts) -> str:
    """Nothing where a person may decide nothing at all, or the steps say already why it cannot run."""
    if offer.refused is None or offer.refused.reason == "infeasible" or only_looks(offers):
        return ""
    reason = offer.refused.reason
    return refusal(reason, t[f"refused_{reason}"], offer.refused.detail)


def only_looks(offers: Offers) -> bool:
    """Whether this caller may see everything and decide nothing."""
    return all(o.refused and o.refused.reason == "not_allowed" for o in offers.offers)


# --- the form ---


def standing(offers: Offers, t: Texts) -> str:
    """How long the plan may be approved, and why other choices than the options cannot be made."""
    if offers.expired:
        when = moment(offers.expires_at) if offers.expires_at else ""
        until = (
            f'<div class="notice warn" role="status"><b>{t["plan_expired"]}</b> {when}\n{t["plan_expired_do"]}</div>'
        )
    elif offers.expires_at and offers.offers:
        until = f'<p class="muted">{t["plan_until"]} {moment(offers.expires_at)} UTC</p>'
    else:
        until = ""
    refused = [] if only_looks(offers) else [o for o in offers.offers if o.choice in PLAIN and o.refused]
    return until + bullets(f"<b>{o.choice}</b>: {text(o.refused.detail)}" for o in refused if o.refused)


def choice_label(choice: Choice, report: Report, t: Texts) -> str:
    """One line of the radio group; plain text."""
    if choice in OPTIONS:
        option = report.options[int(choice) - 1]
        risk = f"{t['risk']}: {word(t, 'risk', option.risk)}"
        people = f", {amount(t, option.needs.approvals, 'people')}" if option.needs.approvals > 1 else ""
        return f"{choice}. {option.title} ({risk}, ~{option.minutes:g} {t['minutes']}{people})"
    return t[choice]


def step_labels(report: Report) -> dict[str, tuple[str, ...]]:
    """Of each option that may be approved in part: its steps, in order; plain text."""
    return {
        str(n): tuple(f"{i}. {s.operation}: {s.preview or s.summary}".rstrip(": ") for i, s in enumerate(o.steps, 1))
        for n, o in enumerate(report.options, 1)
        if len(o.steps) > 1
    }


# --- confirmation ---


def confirmation(
    report: Report, verdict: Verdict, asked: Admissible, t: Texts, *, put_back: Sequence[PutBack] = ()
) -> str:
    """Exactly what the verdict would run, before and after, and the revision it is bound to."""
    if verdict.choice in OPTIONS:
        body = _confirmed_steps(report.options[int(verdict.choice) - 1], verdict, t)
    elif verdict.choice == "undo":
        body = f"<p>{t['confirm_undo']}</p>{_put_back(put_back, t)}"
    elif verdict.choice == "re_analyze":
        spoken = t[f"written_{t['language']}"]  # in the language that this page is read in
        body = f"<p>{t['confirm_re_analyze']} <b>{text(verdict.hint or t['no_hint'])}</b></p><p>{spoken}</p>"
    else:
        body = f"<p>{t[f'confirm_{verdict.choice}']}</p>"
    noted = f'<p class="muted">{t["noted"]}: {text(verdict.note)}</p>' if verdict.note else ""
    return card(t["confirm_title"], body + _then(asked, t) + noted + revision(verdict.plan_revision, t), "confirm")


def _confirmed_steps(option: ActionOption, verdict: Verdict, t: Texts) -> str:
    every = list(enumerate(option.steps, 1))
    runs = [(n, s) for n, s in every if not verdict.steps or n in verdict.steps]
    left_out = bullets(f"{n}. {operation_line(s.operation, s.params)}" for n, s in every if (n, s) not in runs)
    return (
        f'<p class="headline">{text(chosen(t, verdict.choice, verdict.steps))}. {text(option.title)}</p>'
        + _plan_steps(runs, t)
        + (f"<h4>{t['left_out']}</h4>{left_out}" if left_out else "")
    )


def _put_back(steps: Sequence[PutBack], t: Texts) -> str:
    rows = "".join(
        f"<li>{operation_line(one.step.operation, one.step.params)}{_changes(one.changes, t)}</li>" for one in steps
    )
    return f'<ol class="steps">{rows}</ol>'


def _then(asked: Admissible, t: Texts) -> str:
    """What comes of a yes."""
    if asked.needs.dry_run and asked.approved:
        return notice(t["dry_run_only"])
    if asked.missing:
        return notice(f"{t['nothing_yet']} {amount(t, asked.missing, 'more_people')}.", "busy")
    others = ", ".join(a.by for a in asked.approvals)
    return notice(f"{t['approved_too'].format(others)}.", "busy") if others else ""


def revision(plan_revision: str | None, t: Texts) -> str:
    """What a decision is bound to."""
    return f'<p class="muted">{t["revision"]} <code>{text(plan_revision)}</code></p>' if plan_revision else ""
