"""Where people decide on the page: form, confirmation, withdrawal, undo, notes. All go through ``decisions``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app import decisions
from app.api.decisions import DecisionBody, NoteBody
from app.console import actions
from app.console.components import html, on
from app.console.markup import notice
from app.console.progress import Event
from app.console.visits import Shown, Updates, Visit, Visits
from app.db import Row
from app.decision_checks import Admissible, Verdict, check, load
from app.decisions import Offers, Outcome
from app.report import Report
from app.report_texts import Texts, amount
from app.security import Caller
from app.stored_report import load_report
from executors.base import AnyOperation, Change, ExecutorError
from graph.aftermath import left_in_place
from graph.state import Choice, Execution, PlanStep, StepResult


@dataclass(frozen=True)
class Incident:
    """All that is shown of one incident."""

    report: Report
    events: list[Event]
    steps: list[Mapping[str, Any]]
    offers: Offers
    messages: Sequence[Row] = ()  # of app.api.messages.shown

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Of the form; undo has a button of its own, by what it would put back."""
        return tuple(c for c in self.offers.choices if c != "undo")

    @property
    def form(self) -> int:
        """Another one where the form must start anew."""
        return hash((self.report.plan_revision, self.choices))


class DecisionPanel:
    """Components and events; the caller is looked up anew and checked for each of them."""

    def __init__(self, visits: Visits) -> None:
        """Within the page's blocks."""
        self.visits = visits
        self.reviewed = gr.State(None)  # the Verdict that the confirmation shows
        self.answer = html()
        self.anew = gr.Button(visible=False, variant="primary", elem_classes="ap-button")
        with gr.Column(visible=False, elem_classes="ap-form") as self.form:
            self.choice = gr.Radio([], value=None)
            self.steps = gr.CheckboxGroup([], value=[], visible=False)
            self.hint = gr.Textbox(lines=1, max_lines=4, max_length=2000)
            self.execute = gr.Button(variant="primary", elem_classes="ap-button")
        with gr.Column(visible=False, elem_classes="ap-form") as self.confirming:
            self.confirmation = html()
            with gr.Row():
                self.back = gr.Button()
                self.confirm = gr.Button(elem_classes="ap-confirm")
        with gr.Row(elem_classes="ap-buttons"):
            self.undo = gr.Button(visible=False, min_width=160, elem_classes="ap-button")
            self.withdraw = gr.Button(visible=False, min_width=160, elem_classes="ap-button")

    def build_notes(self) -> None:
        """Where people note what they did by hand; also after closing."""
        with gr.Column(visible=False, elem_classes="ap-form ap-notes") as self.notes:
            self.note = gr.Textbox(lines=2, max_lines=8, max_length=4000)
            self.store_note = gr.Button(elem_classes="ap-button")
            self.noted = html()

    @property
    def outputs(self) -> list[Any]:
        """Every component that its events change."""
        return [
            *(self.answer, self.anew, self.form, self.choice, self.steps, self.hint, self.execute, self.confirming),
            *(self.confirmation, self.back, self.confirm, self.undo, self.withdraw),
            *(self.notes, self.note, self.store_note, self.noted),
        ]

    def connect(self, shown: gr.State) -> None:
        """Bind the events; ``shown`` is the state of the tab."""
        on(self.choice.change, self.on_choose, [self.choice, shown], [self.steps])
        asked = [self.choice, self.steps, self.hint, shown]
        on(self.execute.click, self.on_execute, asked, [self.reviewed, *self.outputs])
        on(self.undo.click, self.on_undo, [shown], [self.reviewed, *self.outputs])
        on(self.confirm.click, self.on_confirm, [self.reviewed], self.outputs)
        on(self.back.click, self.on_back, [], self.outputs)
        on(self.anew.click, self.on_anew, [shown], self.outputs)
        on(self.withdraw.click, self.on_withdraw, [], self.outputs)
        on(self.store_note.click, self.on_note, [self.note], self.outputs)

    # --- what is shown ---

    def labels(self, t: Texts) -> Updates:
        """In the language of the visit."""
        return {
            self.choice: gr.update(label=t["choose"]),
            self.hint: gr.update(label=t["hint"]),
            self.execute: gr.update(value=t["execute"]),
            self.confirm: gr.update(value=t["confirm"]),
            self.back: gr.update(value=t["back"]),
            self.note: gr.update(label=t["note_label"]),
            self.store_note: gr.update(value=t["note_button"]),
        }

    def refresh(self, incident: Incident, visit: Visit, caller: Caller, shown: Shown) -> Updates:
        """What the caller may do now; the form stays as it is while it offers the same."""
        offers, t = incident.offers, visit.t
        updates: Updates = {
            self.anew: gr.update(value=t["plan_anew"], visible=offers.expired and "re_plan" in offers.choices),
            self.undo: gr.update(value=t["undo_button"], visible="undo" in offers.choices),
            self.withdraw: gr.update(value=t["withdraw_button"], visible=_may_withdraw(offers, caller)),
            self.notes: gr.update(visible=caller.may("responder")),
        }
        if shown.blocks and incident.form == shown.form:
            return updates
        if incident.report.plan_revision != shown.plan_revision and incident.report.plan_revision:
            updates[self.answer] = "" if incident.choices else notice(t["viewer"], "busy")
        labels = [(actions.choice_label(c, incident.report, t), c) for c in incident.choices]
        updates[self.choice] = gr.update(label=t["choose"], choices=labels, value=None)
        updates[self.steps] = gr.update(visible=False, value=[])
        return updates | self._undecided(form=bool(labels))

    def _undecided(self, *, form: bool) -> Updates:
        return {
            self.form: gr.update(visible=form),
            self.confirming: gr.update(visible=False),
            self.confirmation: "",
        }

    # --- events ---

    def on_choose(self, choice: Choice | None, shown: Shown, request: gr.Request) -> Updates:
        """Offer the steps of an option that may be approved in part."""
        steps = shown.steps.get(choice or "", ())
        every = list(range(1, len(steps) + 1))
        choices = list(zip(steps, every, strict=True))
        label = self.visits.asked(request.request).t["choose_steps"]
        return {self.steps: gr.update(label=label, choices=choices, value=every, visible=bool(steps))}

    async def on_execute(
        self, choice: Choice | None, steps: list[int], hint: str, shown: Shown, request: gr.Request
    ) -> Updates:
        """Show exactly what would happen, before it does."""

        async def review(visit: Visit, caller: Caller) -> Updates:
            if not choice:
                return {self.answer: notice(visit.t["choose_first"])}
            possible = shown.steps.get(choice, ())
            if possible and not steps:
                return {self.answer: notice(visit.t["choose_a_step"])}
            words = {"hint": hint, "language": visit.lang} if choice == "re_analyze" else {"note": hint}
            only = {"steps": tuple(steps)} if len(steps) < len(possible) else {}
            return await self._review(visit, caller, shown, {"choice": choice, **words, **only})

        return await self.visits.act(request.request, review, self.answer)

    async def on_undo(self, shown: Shown, request: gr.Request) -> Updates:
        """Show what would be put back, before it is."""

        async def review(visit: Visit, caller: Caller) -> Updates:
            return await self._review(visit, caller, shown, {"choice": "undo"})

        return await self.visits.act(request.request, review, self.answer)

    async def on_confirm(self, reviewed: Verdict | None, request: gr.Request) -> Updates:
        """Decide exactly what the confirmation shows."""

        async def settle(visit: Visit, caller: Caller) -> Updates:
            if reviewed is None:
                return {self.answer: notice(visit.t["choose_first"])}
            return await self._decide(visit, caller, reviewed)

        return self._undecided(form=True) | await self.visits.act(request.request, settle, self.answer)

    async def on_anew(self, shown: Shown, request: gr.Request) -> Updates:
        """Make the plan anew: it runs nothing, so it is not confirmed."""

        async def ask(visit: Visit, caller: Caller) -> Updates:
            verdict = Verdict(plan_revision=shown.plan_revision or "", choice="re_plan")
            return await self._decide(visit, caller, verdict) | {self.anew: gr.update(visible=False)}

        return await self.visits.act(request.request, ask, self.answer)

    async def on_withdraw(self, request: gr.Request) -> Updates:
        """Take back what has not begun."""

        async def take_back(visit: Visit, caller: Caller) -> Updates:
            taken = await decisions.withdraw(visit.product.desk, visit.incident_id or "", caller, "console")
            return {
                self.answer: notice(visit.t[f"withdrew_{taken.what}"], "good"),
                self.withdraw: gr.update(visible=False),
            }

        return await self.visits.act(request.request, take_back, self.answer)

    async def on_note(self, text: str, request: gr.Request) -> Updates:
        """Store what was done by hand."""

        async def store(visit: Visit, caller: Caller) -> Updates:
            if not text.strip():
                return {self.noted: notice(visit.t["note_empty"])}
            body = NoteBody(text=text.strip())
            await decisions.note(visit.product.desk, visit.incident_id or "", caller, body.text, "console")
            return {self.note: "", self.noted: notice(visit.t["note_stored"], "good")}

        return await self.visits.act(request.request, store, self.noted)

    def on_back(self) -> Updates:
        """Think again."""
        return {self.answer: ""} | self._undecided(form=True)

    # --- what they are made of ---

    async def _review(self, visit: Visit, caller: Caller, shown: Shown, asked: Mapping[str, object]) -> Updates:
        report = await load_report(visit.product.pool, visit.incident_id or "", visit.lang)
        if report.plan_revision is None or report.plan_revision != shown.plan_revision:
            return {self.answer: notice(visit.t["plan_changed"])}
        verdict = DecisionBody.model_validate({"plan_revision": report.plan_revision, **asked}).verdict()
        admissible = await _checked(visit, caller, verdict)
        put_back = list(would_put_back(visit.product.desk.operations, report.executions))
        return {
            self.answer: "",
            self.reviewed: verdict,
            self.confirmation: actions.confirmation(report, verdict, admissible, visit.t, put_back=put_back),
            self.confirming: gr.update(visible=True),
            self.form: gr.update(visible=False),
        }

    async def _decide(self, visit: Visit, caller: Caller, verdict: Verdict) -> Updates:
        outcome = await decisions.decide(visit.product.desk, visit.incident_id or "", verdict, caller, "console")
        return self._undecided(form=False) | {self.answer: _told(outcome, visit.t)}


def _told(outcome: Outcome, t: Texts) -> str:
    if outcome.status == "decided":
        return notice(t["decided"], "good")
    return notice(f"{t['approval_stored']} {amount(t, outcome.missing, 'more_people')}.", "busy")


def _may_withdraw(offers: Offers, caller: Caller) -> bool:
    """A decision of which nothing began, or a yes that waits; an admin those of others too."""
    waiting = any(a.by == caller.name or caller.may("admin") for a in offers.approvals)
    return waiting or bool(offers.decision and offers.decision.may_withdraw)


async def _checked(visit: Visit, caller: Caller, verdict: Verdict) -> Admissible:
    """What ``decide`` would check now, but the targets. Raises UseCaseError."""
    desk = visit.product.desk
    async with desk.pool.connection() as connection:
        case = await load(desk, connection, visit.incident_id or "", verdict.plan_revision)
    return check(desk, case, verdict, caller)


def would_put_back(
    operations: Mapping[str, AnyOperation], executions: Sequence[Execution]
) -> Iterable[actions.PutBack]:
    """What undo would put back, last first."""
    left = left_in_place(executions, operations)
    for result in left.results if left else ():
        step = PlanStep(operation=result.operation, params=result.params)
        yield actions.PutBack(step, _back(operations[result.operation], result))


def _back(operation: AnyOperation, result: StepResult) -> tuple[Change, ...]:
    try:
        made = operation.changes(operation.params.model_validate(result.params), dict(result.before))
    except (ExecutorError, LookupError, ValueError):  # a state as an older version wrote it
        return ()
    return tuple(Change(what=c.what, before=c.after, after=c.before) for c in made)
