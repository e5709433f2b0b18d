"""Where people say whether report, option and verification were right. It goes through ``app.feedback``."""

from collections.abc import Iterable
from typing import Any, get_args

import gradio as gr

from app import feedback
from app.api.feedback import FeedbackBody
from app.console.components import html, on
from app.console.markup import bullets, card, moment, notice, text
from app.console.visits import Shown, Updates, Visit, Visits
from app.feedback import Given, Overview
from app.opinions import Opinion, Said
from app.report import Report
from app.report_texts import Texts
from app.security import Caller
from graph.llms.playbooks import Category

OPINIONS: tuple[Opinion, ...] = get_args(Opinion)


class FeedbackPanel:
    """Components and events; the caller is looked up anew and checked for each of them."""

    def __init__(self, visits: Visits) -> None:
        """Within the page's blocks."""
        self.visits = visits
        self.said = html()
        with gr.Column(visible=False, elem_classes="ap-form") as self.form:
            self.about = gr.Dropdown([], value=None, allow_custom_value=False)
            self.verdict = gr.Radio([], value=None)
            self.component = gr.Dropdown([], value=None, allow_custom_value=False)
            self.category = gr.Dropdown([], value=None, allow_custom_value=False)
            self.helped = gr.Textbox(lines=1, max_lines=3, max_length=500)
            self.note = gr.Textbox(lines=1, max_lines=6, max_length=2000)
            self.give = gr.Button(elem_classes="ap-button")
            self.answer = html()

    @property
    def outputs(self) -> list[Any]:
        """Every component that its events change."""
        asked = (self.about, self.verdict, self.component, self.category, self.helped, self.note)
        return [self.said, self.form, *asked, self.give, self.answer]

    def connect(self) -> None:
        """Bind the events."""
        asked = [self.about, self.verdict, self.component, self.category, self.helped, self.note]
        on(self.give.click, self.on_give, asked, self.outputs)

    def labels(self, t: Texts) -> Updates:
        """In the language of the visit."""
        verdicts = [(t[f"opinion_{word}"], word) for word in OPINIONS]
        return {
            self.about: gr.update(label=t["feedback_about"]),
            self.verdict: gr.update(label=t["feedback_verdict"], choices=verdicts),
            self.component: gr.update(label=t["feedback_component"]),
            self.category: gr.update(label=t["feedback_category"]),
            self.helped: gr.update(label=t["feedback_helped"], placeholder=t["feedback_helped_hint"]),
            self.note: gr.update(label=t["feedback_note"]),
            self.give: gr.update(value=t["feedback_give"]),
        }

    async def refresh(self, report: Report, visit: Visit, caller: Caller, shown: Shown) -> Updates:
        """What was said; the form keeps what is typed while there is the same to be judged."""
        overview = await feedback.given(visit.product.desk, report.incident_id)
        subjects = list(_subjects(report, visit.t))
        updates: Updates = {
            self.said: standing(overview, visit.t),
            self.form: gr.update(visible=bool(subjects) and caller.may("responder")),
        }
        if shown.blocks and report.plan_revision == shown.plan_revision:
            return updates
        categories = [c.value for c in Category if c is not Category.UNKNOWN]
        return updates | {
            self.about: gr.update(choices=subjects, value=subjects[0][1] if subjects else None),
            self.component: gr.update(choices=["", *overview.nameable]),
            self.category: gr.update(choices=["", *categories]),
        }

    async def on_give(
        self,
        about: str | None,
        verdict: Opinion | None,
        component: str | None,
        category: str | None,
        helped: str,
        note: str,
        request: gr.Request,
    ) -> Updates:
        """Store it; from then on it counts."""

        async def give(visit: Visit, caller: Caller) -> Updates:
            if not about or not verdict:
                return {self.answer: notice(visit.t["feedback_first"])}
            kind, _, option = about.partition(" ")
            body = FeedbackBody.model_validate(
                {
                    "about": kind,
                    "option": int(option or 0),
                    "verdict": verdict,
                    "component": component or "",
                    "category": category or "",
                    "helped": helped.strip(),
                    "note": note.strip(),
                }
            )
            desk, incident_id = visit.product.desk, visit.incident_id or ""
            given = await feedback.give(desk, incident_id, body.feedback(), caller, "console")
            return {
                self.answer: notice(_told(given, visit.t), "good"),
                self.said: standing(await feedback.given(desk, incident_id), visit.t),
                self.verdict: gr.update(value=None),
                self.component: gr.update(value=None),
                self.category: gr.update(value=None),
                self.helped: "",
                self.note: "",
            }

        return await self.visits.act(request.request, give, self.answer)


def _subjects(report: Report, t: Texts) -> Iterable[tuple[str, str]]:
    """What can be judged, each with its word: report, option 2, verification."""
    if report.root_cause:
        yield t["feedback_report"], "report"
    for number, option in enumerate(report.options, 1):
        yield f"{number}. {option.title}", f"option {number}"
    if any(e.choice.isdecimal() for e in report.executions):
        yield t["feedback_verification"], "verification"


def standing(overview: Overview, t: Texts) -> str:
    """All that people say, with the cause as it is known best; what does not count is struck through."""
    if not overview.feedback:
        return card(t["feedback"], f'<p class="muted">{t["feedback_none"]}</p>')
    cause = ", ".join(filter(None, (overview.component, overview.category.replace("_", " "))))
    best = f"<p>{t['feedback_cause']}: <b>{text(cause or '-')}</b></p>"
    helped = f"<p>{t['feedback_helped']}: <b>{text(overview.helped)}</b></p>" if overview.helped else ""
    return card(t["feedback"], best + helped + bullets(_line(s, s in overview.standing, t) for s in overview.feedback))


def _line(said: Said, counts: bool, t: Texts) -> str:
    about = t[f"feedback_{said.about}"] + (f" {said.option}" if said.option else "")
    verdict = text(t[f"opinion_{said.verdict}"])
    word = f"<b>{verdict}</b>" if counts else f"<del>{verdict}</del>"
    named = "; ".join(filter(None, (said.component, said.category.replace("_", " "), said.helped, said.note)))
    who = f'<small class="muted">{text(said.by)} ({text(said.role)}), {moment(said.at)}</small>'
    return f"{text(about)}: {word} {text(named)} {who}"


def _told(given: Given, t: Texts) -> str:
    if given.stands.by == given.said.by:
        return t["feedback_stored"]
    return f"{t['feedback_stored']} {t['feedback_outvoted'].format(given.stands.by)}"
