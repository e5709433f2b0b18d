"""The page: Gradio components, and what each event does. Its state is the address: ?incident=, ?before=, ?lang=."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import gradio as gr
from fastapi import FastAPI, HTTPException, Request
from psycopg import OperationalError
from pydantic import ValidationError

from app.api.decisions import DecisionBody, get_actions
from app.api.incidents import OpenIncident, load_report, open_incident
from app.console import actions, analysis, overview
from app.console.gate import signed_in
from app.console.markup import heading, notice
from app.console.progress import Event
from app.console.texts import TEXTS, language
from app.desk import Conflict, NotAllowed, NotFound, Unusable
from app.incidents import decide, investigate_now
from app.report import Report
from app.report_texts import Texts
from app.security import Caller
from app.store import incidents as store
from app.store import ledger
from app.wiring import Product
from graph.state import Choice, Language

TICK_S = 0.5
IDLE_TICK_S = 2.0  # while a person thinks, it waits for its turn, and while the database is away
PAGE_SIZE = 25
FIRST = ("results", "assessment", "root_cause", "topology", "impact", "options")  # before the decision
Updates = dict[Any, Any]  # Gradio component -> its new value or properties

OPEN_INCIDENT_JS = """(id) => {
  if (!id) return;
  const here = new URL(window.location);
  here.searchParams.delete("before");
  here.searchParams.set("incident", id);
  window.location = here;
}"""


@dataclass(frozen=True)
class Visit:
    """Who asks, for what, in which language."""

    product: Product
    caller: Caller | None
    incident_id: str | None
    before: str | None
    lang: Language

    @property
    def t(self) -> Texts:
        """The labels."""
        return TEXTS[self.lang]


@dataclass(frozen=True)
class Incident:
    """All that is shown of one incident."""

    report: Report
    events: list[Event]
    steps: list[Mapping[str, Any]]
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Shown:
    """What this browser tab shows now: so that only what changed is sent."""

    version: str = ""
    last_event: int = 0
    blocks: Mapping[str, int] = field(default_factory=dict)
    plan_revision: str | None = None
    away: bool = False  # it says that the database does not answer


class Page:
    """Builds the blocks once; every event looks up the product and its caller anew."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        with gr.Blocks(title="AIOps Auto Pilot", analytics_enabled=False, fill_width=True) as self.blocks:
            self.shown = gr.State(Shown())
            self.reviewed = gr.State(None)  # the DecisionBody that the confirmation shows
            self.header = _html()
            self.message = _html()
            self._build_home()
            self._build_incident()
            self.timer = gr.Timer(TICK_S, active=False)
            self._connect()

    def _build_home(self) -> None:
        with gr.Column(visible=False) as self.home:
            with gr.Column(elem_classes="ap-form", visible=False) as self.start_form:
                self.start_title = _html()
                with gr.Row(equal_height=False):
                    self.service = gr.Dropdown([], value=None, allow_custom_value=False, scale=2, min_width=180)
                    self.time = gr.Textbox(max_lines=1, max_length=40, scale=2, min_width=180)
                    self.note = gr.Textbox(max_lines=1, max_length=500, scale=3, min_width=180)
                self.start = gr.Button(variant="primary", min_width=120, elem_classes="ap-button")
            self.opened = gr.Textbox(visible=False)
            self.list = _html()

    def _build_incident(self) -> None:
        self.parts: dict[str, Any] = {}
        with gr.Column(visible=False) as self.detail:
            self.parts["summary"] = _html()
            self.begin = gr.Button(visible=False, variant="primary", min_width=120, elem_classes="ap-button")
            self.parts["progress"] = _html()
            with gr.Row():
                with gr.Column(scale=3, min_width=320):
                    self.parts |= {name: _html() for name in FIRST}
                    self._build_decision()
                    self.parts |= {name: _html() for name in ("runbooks", "gaps")}
                with gr.Column(scale=2, min_width=320):
                    self.parts |= {name: _html() for name in ("alerts", "evidence", "history")}

    def _build_decision(self) -> None:
        self.answer = _html()
        with gr.Column(visible=False, elem_classes="ap-form") as self.decision:
            self.choice = gr.Radio([], value=None)
            self.hint = gr.Textbox(lines=1, max_lines=4, max_length=2000)
            self.execute = gr.Button(variant="primary", elem_classes="ap-button")
        with gr.Column(visible=False, elem_classes="ap-form") as self.confirming:
            self.confirmation = _html()
            with gr.Row():
                self.back = gr.Button()
                self.confirm = gr.Button(elem_classes="ap-confirm")

    def _connect(self) -> None:
        everything = [
            *(self.shown, self.header, self.message, self.home, self.start_form, self.service, self.time, self.note),
            *(self.start, self.start_title, self.list, self.detail, self.begin, *self.parts.values(), self.timer),
        ]
        deciding = [self.decision, self.choice, self.hint, self.execute, self.confirming, self.confirmation]
        deciding += [self.back, self.confirm, self.answer]
        outputs = everything + deciding
        _on(self.blocks.load, self.on_load, [], outputs)
        _on(self.timer.tick, self.on_tick, [self.shown], outputs)
        opened = _on(self.start.click, self.on_start, [self.service, self.time, self.note], [self.message, self.opened])
        opened.then(None, [self.opened], None, js=OPEN_INCIDENT_JS)
        asked = [self.choice, self.hint, self.shown]
        _on(self.execute.click, self.on_execute, asked, [self.reviewed, *deciding])
        _on(self.confirm.click, self.on_confirm, [self.reviewed], deciding)
        _on(self.back.click, self.on_back, [], deciding)
        _on(self.begin.click, self.on_begin, [], [self.begin, self.message])

    # --- events ---

    async def on_load(self, request: gr.Request) -> Updates:
        """The page is opened: the start card and the list, or one incident."""
        visit = self._asked(request.request, None)
        frame = self._labels(visit)
        try:
            visit = await self._visit(request.request)
            frame[self.header] = overview.header(visit.caller, visit.lang, visit.incident_id)
            if visit.caller is None:
                return frame | {self.message: notice(visit.t["signed_out"], "bad")}
            if visit.incident_id is None:
                return frame | await self._home(visit, visit.caller)
            return frame | {self.detail: gr.update(visible=True)} | await self._refresh(visit, visit.caller, Shown())
        except OperationalError:
            return frame | self._away(visit)

    async def on_tick(self, shown: Shown, request: gr.Request) -> Updates:
        """Show what has changed since."""
        try:
            visit = await self._visit(request.request)
            if visit.caller is None:
                return {self.message: notice(visit.t["signed_out"], "bad"), self.timer: gr.Timer(active=False)}
            if shown.version == "":  # the database was away when the page was opened
                return await self.on_load(request)
            if shown.away:
                return {self.message: ""} | await self._refresh(visit, visit.caller, replace(shown, version="away"))
            return await self._refresh(visit, visit.caller, shown)
        except OperationalError:
            return self._away(self._asked(request.request, None)) | {self.shown: replace(shown, away=True)}

    async def on_start(self, service: str | None, at: str, note: str, request: gr.Request) -> Updates:
        """Open an incident; the browser then goes there."""

        async def start(visit: Visit, caller: Caller) -> Updates:
            if not service:
                return {self.message: notice(visit.t["choose_service"])}
            try:
                body = OpenIncident(service=service, occurred_at=parse_time(at), title=note or "", language=visit.lang)
            except ValueError:
                return {self.message: notice(visit.t["bad_time"])}
            opened = await open_incident(body, visit.product, caller, None)
            return {self.message: "", self.opened: opened.incident_id}

        return {self.opened: ""} | await self._act(request.request, start, self.message)

    async def on_execute(self, choice: Choice | None, hint: str, shown: Shown, request: gr.Request) -> Updates:
        """Show exactly what would happen, before it does."""

        async def review(visit: Visit, _: Caller) -> Updates:
            if not choice:
                return {self.answer: notice(visit.t["choose_first"])}
            report = await load_report(visit.product, visit.incident_id or "", visit.lang)
            if report.plan_revision is None or report.plan_revision != shown.plan_revision:
                return {self.answer: notice(visit.t["plan_changed"])}
            words = {"hint": hint, "language": visit.lang} if choice == "re_analyze" else {"note": hint}
            body = {"plan_revision": report.plan_revision, "choice": choice, **words}
            return {
                self.answer: "",
                self.reviewed: DecisionBody.model_validate(body),
                self.confirmation: actions.confirmation(report, choice, hint, visit.t),
                self.confirming: gr.update(visible=True),
                self.decision: gr.update(visible=False),
            }

        return await self._act(request.request, review, self.answer)

    async def on_confirm(self, reviewed: DecisionBody | None, request: gr.Request) -> Updates:
        """Decide exactly what the confirmation shows."""

        async def settle(visit: Visit, caller: Caller) -> Updates:
            if reviewed is None:
                return {self.answer: notice(visit.t["choose_first"])}
            await decide(
                visit.product.desk,
                visit.incident_id or "",
                reviewed.plan_revision,
                reviewed.choice,
                caller,
                hint=reviewed.hint,
                note=reviewed.note,
                language=reviewed.language,
            )
            return self._undecided(form=False) | {self.answer: notice(visit.t["decided"], "good")}

        return self._undecided(form=True) | await self._act(request.request, settle, self.answer)

    async def on_begin(self, request: gr.Request) -> Updates:
        """Investigate an incident now that waits."""

        async def begin(visit: Visit, caller: Caller) -> Updates:
            await investigate_now(visit.product.desk, visit.incident_id or "", caller)
            return {self.begin: gr.update(visible=False), self.message: ""}

        return await self._act(request.request, begin, self.message)

    def on_back(self) -> Updates:
        """Think again."""
        return {self.answer: ""} | self._undecided(form=True)

    # --- what they are made of ---

    async def _act(self, request: Request, act: Callable[[Visit, Caller], Any], where: Any) -> Updates:
        """Do it for the signed-in caller; whatever stands in the way is said ``where`` they look."""
        visit = self._asked(request, None)
        try:
            visit = await self._visit(request)
            if visit.caller is None:
                return {where: notice(visit.t["signed_out"], "bad")}
            updates: Updates = await act(visit, visit.caller)
            return updates
        except NotFound as error:
            return {where: notice(f"{visit.t['not_found']} {error}", "bad")}
        except (Conflict, NotAllowed, Unusable) as error:
            return {where: notice(str(error), "bad")}
        except HTTPException as error:
            return {where: notice(error.detail, "bad")}
        except ValidationError as error:
            return {where: notice(error.errors()[0]["msg"], "bad")}
        except OperationalError:
            return {where: notice(visit.t["database_away"], "bad")}

    def _asked(self, request: Request, caller: Caller | None) -> Visit:
        asked = request.query_params
        product: Product = self.app.state.product
        spoken = language(asked.get("lang"), product.settings.language)
        return Visit(product, caller, asked.get("incident"), asked.get("before"), spoken)

    async def _visit(self, request: Request) -> Visit:
        return self._asked(request, await signed_in(self.app.state.product, request))

    def _away(self, visit: Visit) -> Updates:
        return {
            self.message: notice(visit.t["database_away"], "bad"),
            self.timer: gr.Timer(IDLE_TICK_S, active=True),
        }

    def _labels(self, visit: Visit) -> Updates:
        t = visit.t
        return {
            self.message: "",
            self.service: gr.update(label=t["start_service"]),
            self.time: gr.update(label=t["start_time"], placeholder=t["start_time_hint"]),
            self.note: gr.update(label=t["start_note"]),
            self.start: gr.update(value=t["start"]),
            self.start_title: heading(t["start_title"]),
            self.choice: gr.update(label=t["choose"]),
            self.hint: gr.update(label=t["hint"]),
            self.execute: gr.update(value=t["execute"]),
            self.confirm: gr.update(value=t["confirm"]),
            self.back: gr.update(value=t["back"]),
            self.begin: gr.update(value=t["investigate_now"]),
        }

    async def _home(self, visit: Visit, caller: Caller) -> Updates:
        t = visit.t
        async with visit.product.pool.connection() as connection:
            before = overview.position(visit.before)
            rows = await store.page(connection, store.Filter(), PAGE_SIZE + 1, before)
            counts = await store.count_alerts(connection, [row["id"] for row in rows[:PAGE_SIZE]])
        older = overview.cursor(rows[PAGE_SIZE - 1]) if len(rows) > PAGE_SIZE else None
        services = sorted(visit.product.desk.catalogue.services)
        may_start = caller.may("responder")
        hindrance = "" if may_start else t["start_viewer"]
        return {
            self.shown: Shown("home"),
            self.home: gr.update(visible=True),
            self.start_form: gr.update(visible=may_start and bool(services)),
            self.message: notice(hindrance or t["no_services"], "busy") if hindrance or not services else "",
            self.service: gr.update(
                label=t["start_service"], choices=services, value=services[0] if len(services) == 1 else None
            ),
            self.time: gr.update(
                label=t["start_time"],
                placeholder=t["start_time_hint"],
                value=f"{visit.product.clock.now():%Y-%m-%d %H:%M:%S}",
            ),
            self.list: overview.incident_list(
                rows[:PAGE_SIZE], visit.lang, older=older, paged=before is not None, alerts=counts
            ),
            self.timer: gr.Timer(active=False),
        }

    async def _refresh(self, visit: Visit, caller: Caller, shown: Shown) -> Updates:
        """The incident's blocks that differ from what is shown."""
        incident_id = visit.incident_id or ""
        try:
            version, last_event = await _version(visit.product, incident_id, shown.last_event)
            if version == shown.version:
                return {self.timer: gr.skip()}
            incident = await _load(visit.product, incident_id, caller, visit.lang)
        except NotFound:
            missing = notice(f"{visit.t['not_found']} {incident_id[:100]}", "bad")
            return {self.message: missing, self.timer: gr.Timer(active=False), self.shown: Shown("missing")}
        drawn = _draw(incident, visit)
        blocks = {name: hash(html) for name, html in drawn.items()}
        now = Shown(version, last_event, blocks, incident.report.plan_revision)
        updates: Updates = {
            self.parts[name]: html for name, html in drawn.items() if shown.blocks.get(name) != blocks[name]
        }
        updates |= {self.shown: now, self.timer: _pace(incident.report)}
        updates[self.begin] = gr.update(
            value=visit.t["investigate_now"], visible=incident.report.waits and caller.may("responder")
        )
        if not shown.blocks or now.plan_revision != shown.plan_revision:
            updates |= self._decision_form(incident, visit)
        return updates

    def _decision_form(self, incident: Incident, visit: Visit) -> Updates:
        labels = [(actions.choice_label(c, incident.report, visit.t), c) for c in incident.choices]
        updates = self._undecided(form=bool(labels))
        if incident.report.plan_revision:
            updates[self.answer] = ""
        updates[self.choice] = gr.update(label=visit.t["choose"], choices=labels, value=None)
        if incident.report.plan_revision and not labels:
            updates[self.answer] = notice(visit.t["viewer"], "busy")
        return updates

    def _undecided(self, *, form: bool) -> Updates:
        return {
            self.decision: gr.update(visible=form),
            self.confirming: gr.update(visible=False),
            self.confirmation: "",
        }


def parse_time(words: str) -> datetime:
    """ISO 8601 or ``YYYY-MM-DD HH:MM:SS``; without an offset it is UTC. Raises ValueError."""
    at = datetime.fromisoformat(words.strip())
    return at if at.tzinfo else at.replace(tzinfo=UTC)


async def _version(product: Product, incident_id: str, after: int) -> tuple[str, int]:
    """A word that changes whenever anything shown does, from a few cheap queries. Raises NotFound."""
    async with product.pool.connection() as connection:
        row = await store.get(connection, incident_id)
        if row is None:
            raise NotFound(incident_id)
        events = await store.events(connection, incident_id, after)
        steps = await ledger.steps(connection, incident_id)
        alerts = await store.alerts_changed(connection, incident_id)
    # What holds a waiting incident back, and what recovers again and again, changes without a line of its own.
    held = f"{row['status_reason']} {row['admitted_at']} {row['flaps']} {alerts}"
    last = events[-1]["id"] if events else after
    finished = sum(1 for s in steps if s["finished_at"])
    return f"{row['updated_at'].isoformat()} {last} {len(steps)} {finished} {held}", last


async def _load(product: Product, incident_id: str, caller: Caller, lang: Language) -> Incident:
    report = await load_report(product, incident_id, lang)
    offered = await get_actions(incident_id, product, caller)
    async with product.pool.connection() as connection:
        events = await store.events(connection, incident_id)
        steps = await ledger.steps(connection, incident_id)
    same_plan = offered.plan_revision == report.plan_revision
    return Incident(report, list(events), list(steps), offered.choices if same_plan else ())


def _draw(incident: Incident, visit: Visit) -> dict[str, str]:
    report, events, t = incident.report, incident.events, visit.t
    return {
        "summary": analysis.summary(report, t),
        "progress": analysis.progress(report, events, t),
        "assessment": analysis.assessment(report, t),
        "root_cause": analysis.root_cause(report, t),
        "topology": analysis.topology(report, t),
        "impact": analysis.impact(report, t),
        "options": actions.options(report, visit.product.desk.roles, t),
        "results": actions.results(report, incident.steps, events, t),
        "alerts": analysis.alerts(report, t),
        "evidence": analysis.evidence(report, t),
        "runbooks": analysis.runbooks(report, t),
        "gaps": analysis.gaps(report, t),
        "history": analysis.history(report, t),
    }


def _pace(report: Report) -> Any:
    if report.status in store.CLOSED:
        return gr.Timer(active=False)
    return gr.Timer(IDLE_TICK_S if report.plan_revision or report.waits else TICK_S, active=True)


def _html() -> Any:
    return gr.HTML(elem_classes="ap", js_on_load=None, apply_default_css=False)


def _on(event: Callable[..., Any], act: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> Any:
    """One listener: no spinner over what is being read, no entry in an API listing, any number at once."""
    return event(
        act,
        inputs,
        outputs,
        show_progress="hidden",
        api_visibility="private",
        concurrency_limit=None,
    )
