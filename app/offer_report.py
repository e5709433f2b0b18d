"""What ``autopilot actions`` and its siblings show of incidents and decisions: tables for a terminal."""

import json
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from app.api.incidents import IncidentSummary
from app.decisions import DecisionNow, Figures, Offer, Offers
from app.feedback import Overview
from app.markdown import moment
from app.opinions import subject
from app.terminal import printable
from graph.state import ActionOption, BlastRadius, CapacityEstimate, Needs, PlanStep

CHANCES = ("under_10s", "without_evidence", "approved", "at_night")


def offer_parts(offers: Offers) -> Iterator[RenderableType]:
    """One after the other: where the incident stands, each option with its steps, the choices, who approved."""
    yield _text(f"{offers.incident_id}: {offers.status.replace('_', ' ')}{_plan(offers)}", "bold")
    if offers.note:
        yield _text(offers.note)
    for number, option in enumerate(offers.options, 1):
        yield _text(f"\n{number}. {option.title}", "bold")
        yield from (Padding(part, (0, 0, 0, 3)) for part in _option(option))
    if offers.offers:
        yield _text("")
        yield _choices(offers.offers)
    for waiting in offers.approvals:
        yield _text(
            f"{waiting.by} ({waiting.role}) approved {waiting.choice}{_only(waiting.steps)} at {moment(waiting.at)}"
        )
    if offers.decision:
        yield _text(_decision(offers.decision))


def incident_table(incidents: Iterable[IncidentSummary]) -> Table:
    """One line each."""
    table = _table("id", "status", "severity", "service", "opened (UTC)", "title")
    for one in incidents:
        status = one.status.replace("_", " ")
        row = (one.id, status, one.severity, one.service, f"{one.opened_at:%Y-%m-%d %H:%M}", one.title)
        table.add_row(*map(_text, row))
    return table


def figure_table(figures: Iterable[Figures]) -> Table:
    """One line for each team and person."""
    table = _table(
        "", "who", "decisions", "a week", "median", "p90", "< 10 s", "unread", "approved", "night", "refused"
    )
    for one in figures:
        shares = (_or_nothing(getattr(one, name), "{:.0%}") for name in CHANCES)
        times = (_or_nothing(seconds, "{:.0f} s") for seconds in (one.median_s, one.p90_s))
        row = (one.of, one.name or "(no owner)", str(one.decisions), f"{one.per_week:.1f}", *times, *shares)
        table.add_row(*map(_text, (*row, str(one.refusals))))
    return table


# --- what people said ---


def feedback_parts(overview: Overview) -> Iterator[RenderableType]:
    """What is believed of the cause, and one line for each thing that somebody said, with what counts."""
    cause = ", ".join(filter(None, (overview.component, overview.category)))
    yield _text(f"{overview.incident_id}: the cause, as it is known best: {cause or 'nobody knows it'}", "bold")
    if overview.helped:
        yield _text(f"What helped: {overview.helped}")
    if not overview.feedback:
        yield _text("Nobody said anything yet.")
        return
    table = _table("about", "verdict", "by", "at", "cause", "helped", "note", "counts")
    for said in overview.feedback:
        named = " ".join(filter(None, (said.component, said.category)))
        counts = "yes" if said in overview.standing else ""
        who = f"{said.by} ({said.role})"
        row = (subject(said), said.verdict, who, moment(said.at), named, said.helped, said.note, counts)
        table.add_row(*map(_text, row))
    yield table


# --- an option ---


def _plan(offers: Offers) -> str:
    if not offers.plan_revision:
        return "; no decision is awaited"
    if offers.expired:
        return f"; plan {offers.plan_revision} is too old to be approved: choose re_plan"
    until = f", can be approved until {moment(offers.expires_at)}" if offers.expires_at else ""
    return f"; plan {offers.plan_revision}{until}"


def _option(option: ActionOption) -> Iterator[RenderableType]:
    if option.description:
        yield _text(option.description)
    yield _text(f"risk {option.risk}, about {option.minutes:g} min; undo: {option.undo or 'it cannot be undone'}")
    if option.blast_radius:
        yield from map(_text, _blast_radius(option.blast_radius))
    if option.track_record or option.tried:
        yield _text("; ".join(filter(None, (option.track_record, option.tried and f"tried before: {option.tried}"))))
    yield _steps(option.steps)


def _blast_radius(radius: BlastRadius) -> Iterator[str]:
    touched = ", ".join(
        f"{s.service} ({s.how}{f', {s.hops} calls away' if s.hops > 1 else ''})" for s in radius.services
    )
    share = "not measured" if radius.request_share is None else f"{radius.request_share:.0%}"
    yield f"touches {touched or 'nothing'}; share of the requests: {share}; reversible: {radius.reversible}"
    yield from map(_capacity, radius.capacity)


def _capacity(left: CapacityEstimate) -> str:
    used = [_or_nothing(share, "{:.0%}") or "not measured" for share in (left.utilisation_now, left.utilisation_then)]
    return f"capacity of {left.service}: {left.servers_now:g} -> {left.servers_then:g}, used {used[0]} -> {used[1]}"


def _steps(steps: Sequence[PlanStep]) -> Table:
    table = _table("step", "operation", "what it changes", "checks")
    for ordinal, step in enumerate(steps, 1):
        table.add_row(
            str(ordinal), _text(_call(step)), _text("\n".join(_effect(step))), _text("\n".join(_checks(step)))
        )
    return table


def _call(step: PlanStep) -> str:
    return "\n".join((step.operation, *(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in step.params.items())))


def _effect(step: PlanStep) -> Iterator[str]:
    if step.infeasible:
        yield f"cannot run now: {step.infeasible}"
    yield from (f"{c.what}: {c.before} -> {c.after}" for c in step.changes)
    if not step.changes and (step.preview or step.summary):
        yield step.preview or step.summary


def _checks(step: PlanStep) -> Iterator[str]:
    """Those that are fine by name alone."""
    if fine := [check.name for check in step.checks if check.status == "ok"]:
        yield f"ok: {', '.join(fine)}"
    yield from (f"{check.status}: {check.name}: {check.detail}" for check in step.checks if check.status != "ok")


# --- choices and decisions ---


def _choices(offers: Sequence[Offer]) -> Table:
    table = _table("choice", "you", "it takes")
    for offer in offers:
        mine = f"may not: {offer.refused.detail}" if offer.refused else "may choose it"
        table.add_row(offer.choice, _text(mine), _text(_takes(offer.needs, offer) if offer.needs else ""))
    return table


def _takes(needs: Needs, offer: Offer) -> str:
    people = f"{needs.approvals} people" if needs.approvals > 1 else "1 person"
    said = f"{needs.role}, {people}"
    if offer.missing:
        said += f", {offer.missing} more after you"
    dry = ("dry run: nothing is changed",) if needs.dry_run else ()
    return "; ".join((said, *dry, *needs.why))


def _decision(decision: DecisionNow) -> str:
    said = f"{decision.by} chose {decision.choice}{_only(decision.steps)} at {moment(decision.at)} by {decision.via}"
    if decision.withdrawn_by:
        return f"{said}; withdrawn by {decision.withdrawn_by}"
    return said + ("; it has begun" if decision.started else "") + ("; you may withdraw it" * decision.may_withdraw)


def _only(steps: Sequence[int]) -> str:
    return f" (only step {', '.join(map(str, steps))})" if steps else ""


# --- cells ---


def _or_nothing(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name in ("id", "choice"), overflow="fold")
    return table


def _text(text: str, style: str = "") -> Text:
    """Never read as markup: it holds words of strangers."""
    return Text(printable(text), style=style)
