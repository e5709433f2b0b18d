"""The page: Gradio components, and what each event does.

Its state is the address: ?incident=, ?before=, ?view=, ?lang=.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import gradio as gr
from fastapi import FastAPI
from psycopg import OperationalError

from app import decisions
from app.api.incidents import OpenIncident, open_incident
from app.api.messages import shown
from app.console import actions, analysis, oversight, overview
from app.console.components import html, on
from app.console.deciding import DecisionPanel, Incident
from app.console.feedback import FeedbackPanel
from app.console.markup import heading, notice
from app.console.messages import messages
from app.console.results import results
from app.console.switch import KillSwitch, banner
from app.console.visits import Shown, Updates, Visit, Visits
from app.desk import NotFound, require
from app.incidents import investigate_now
from app.report import Report
from app.security import Caller
from app.store import audit, freeze, ledger, outbox
from app.store import decisions as decision_store
from app.store import incidents as store
from app.stored_report import load_report
from app.wiring import Product
from graph.state import Language

TICK_S = 0.5
IDLE_TICK_S = 2.0  # while a person thinks, it waits for its turn, and while the database is away
PAGE_SIZE = 25
FATIGUE_DAYS = 28
AUDIT_ROWS = 20
FIRST = ("results", "assessment", "root_cause", "topology", "impact", "options", "standing")  # before the decision

OPEN_INCIDENT_JS = """(id) => {
  if (!id) return;
  const here = new URL(window.location);
  here.searchParams.delete("before");
  here.searchParams.set("incident", id);
  window.location = here;
}"""
EVIDENCE_JS = "element.addEventListener('evidence', (e) => trigger('select', { id: e.detail }))"  # see console.js


class Page:
    """Builds the blocks once; every event looks up the product and its caller anew."""

    def __init__(self, app: FastAPI) -> None:
        self.visits = Visits(app)
        with gr.Blocks(title="AIOps Auto Pilot", analytics_enabled=False, fill_width=True) as self.blocks:
            self.shown = gr.State(Shown())
            self.header = html()
            self.switch = KillSwitch(self.visits)
            self.message = html()
            self._build_home()
            self._build_incident()
            self.timer = gr.Timer(TICK_S, active=False)
            self._connect()

    def _build_home(self) -> None:
        with gr.Column(visible=False) as self.home:
            with gr.Column(elem_classes="ap-form", visible=False) as self.start_form:
                self.start_title = html()
                with gr.Row(equal_height=False):
                    self.service = gr.Dropdown([], value=None, allow_custom_value=False, scale=2, min_width=180)
                    self.time = gr.Textbox(max_lines=1, max_length=40, scale=2, min_width=180)
                    self.note = gr.Textbox(max_lines=1, max_length=500, scale=3, min_width=180)
                self.start = gr.Button(variant="primary", min_width=120, elem_classes="ap-button")
            self.opened = gr.Textbox(visible=False)
            self.list = html()

    def _build_incident(self) -> None:
        self.parts: dict[str, Any] = {"banner": self.switch.banner}
        with gr.Column(visible=False) as self.detail:
            self.parts["summary"] = html()
            self.begin = gr.Button(visible=False, variant="primary", min_width=120, elem_classes="ap-button")
            self.parts["progress"] = html()
            with gr.Row():
                with gr.Column(scale=3, min_width=320):
                    self.parts |= {name: html() for name in FIRST}
                    self.deciding = DecisionPanel(self.visits)
                    self.parts |= {name: html() for name in ("similar", "runbooks", "gaps")}
                with gr.Column(scale=2, min_width=320):
                    self.parts["alerts"] = html()
                    self.parts["evidence"] = html(EVIDENCE_JS)
                    self.parts["messages"] = html()
                    self.parts["history"] = html()
                    self.deciding.build_notes()
                    self.feedback = FeedbackPanel(self.visits)

    def _connect(self) -> None:
        everything = [
            *(self.shown, self.header, self.message, self.home, self.start_form, self.service, self.time, self.note),
            *(self.start, self.start_title, self.list, self.detail, self.begin, *self.parts.values(), self.timer),
        ]
        others = [c for c in self.switch.outputs if c is not self.switch.banner]
        outputs = [*everything, *others, *self.deciding.outputs, *self.feedback.outputs]
        on(self.blocks.load, self.on_load, [], outputs)
        on(self.timer.tick, self.on_tick, [self.shown], outputs)
        opened = on(self.start.click, self.on_start, [self.service, self.time, self.note], [self.message, self.opened])
        opened.then(None, [self.opened], None, js=OPEN_INCIDENT_JS)
        on(self.begin.click, self.on_begin, [], [self.begin, self.message])
        on(self.parts["evidence"].select, self.on_evidence, [], [self.message])
        self.deciding.connect(self.shown)
        self.feedback.connect()
        self.switch.connect()

    # --- events ---

    async def on_load(self, request: gr.Request) -> Updates:
        """The page is opened: the start card and the list, one incident, or how people decide."""
        visit = self.visits.asked(request.request)
        frame = self._labels(visit)
        try:
            visit = await self.visits.visit(request.request)
            frame[self.header] = overview.header(visit.caller, visit.lang, visit.incident_id)
            if visit.caller is None:
                return frame | {self.message: notice(visit.t["signed_out"], "bad")}
            if visit.incident_id is None:
                return frame | await self._front(visit, visit.caller)
            return frame | {self.detail: gr.update(visible=True)} | await self._refresh(visit, visit.caller, Shown())
        except OperationalError:
            return frame | self._away(visit)

    async def on_tick(self, shown: Shown, request: gr.Request) -> Updates:
        """Show what has changed since."""
        try:
            visit = await self.visits.visit(request.request)
            if visit.caller is None:
                return {self.message: notice(visit.t["signed_out"], "bad"), self.timer: gr.Timer(active=False)}
            if shown.version == "":  # the database was away when the page was opened
                return await self.on_load(request)
            back = {self.message: ""} if shown.away else {}
            if visit.incident_id is None:
                return back | await self._switched(visit, visit.caller, replace(shown, away=False))
            seen = replace(shown, version="away") if shown.away else shown
            return back | await self._refresh(visit, visit.caller, seen)
        except OperationalError:
            return self._away(self.visits.asked(request.request)) | {self.shown: replace(shown, away=True)}

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

        return {self.opened: ""} | await self.visits.act(request.request, start, self.message)

    async def on_begin(self, request: gr.Request) -> Updates:
        """Investigate an incident now that waits."""

        async def begin(visit: Visit, caller: Caller) -> Updates:
            await investigate_now(visit.product.desk, visit.incident_id or "", caller)
            return {self.begin: gr.update(visible=False), self.message: ""}

        return await self.visits.act(request.request, begin, self.message)

    async def on_evidence(self, request: gr.Request, event: gr.EventData) -> Updates:
        """Note that the caller opened a piece of evidence."""

        async def opened(visit: Visit, caller: Caller) -> Updates:
            incident_id = visit.incident_id or ""
            known = {finding.id for finding in (await load_report(visit.product.pool, incident_id)).evidence}
            if event.id in known:
                await decisions.shown(visit.product.desk, incident_id, caller, f"evidence:{event.id}", "console")
            return {self.message: gr.skip()}

        return await self.visits.act(request.request, opened, self.message)

    # --- what they are made of ---

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
            self.begin: gr.update(value=t["investigate_now"]),
            **self.deciding.labels(t),
            **self.feedback.labels(t),
        }

    async def _front(self, visit: Visit, caller: Caller) -> Updates:
        """A page that is not one incident's; only the kill switch changes on it by itself."""
        updates = await (self._oversight if visit.view == "oversight" else self._home)(visit, caller)
        timer = {self.timer: gr.Timer(IDLE_TICK_S, active=True)}
        return updates | timer | await self._switched(visit, caller, Shown())

    async def _switched(self, visit: Visit, caller: Caller, seen: Shown) -> Updates:
        async with visit.product.pool.connection() as connection:
            frozen = await freeze.current(connection)
        version = f"frozen {frozen['id'] if frozen else None}"
        if version == seen.version:
            return {self.shown: seen}
        said = {self.switch.banner: banner(frozen, visit.t), self.shown: replace(seen, version=version)}
        return said | self.switch.refresh(frozen, caller, visit.t)

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
        }

    async def _oversight(self, visit: Visit, caller: Caller) -> Updates:
        async def read(visit: Visit, caller: Caller) -> Updates:
            require(caller, "admin", "see how people decide, and the audit log")
            desk, t = visit.product.desk, visit.t
            decided = await decisions.figures(desk, FATIGUE_DAYS, "UTC")
            async with visit.product.pool.connection() as connection:
                last = (await audit.head(connection))["seq"]
                rows = await audit.page(connection, last - AUDIT_ROWS, AUDIT_ROWS)
            drawn = oversight.fatigue(decided, FATIGUE_DAYS, t) + oversight.audit_log(rows, visit.lang, t)
            return {self.home: gr.update(visible=True), self.list: drawn}

        return await self.visits.do(visit, caller, read, self.message)

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
        async with visit.product.pool.connection() as connection:
            frozen = await freeze.current(connection)
        drawn = {"banner": banner(frozen, visit.t), **_draw(incident, visit)}
        blocks = {name: hash(drawing) for name, drawing in drawn.items()}
        steps = actions.step_labels(incident.report)
        now = Shown(version, last_event, blocks, incident.report.plan_revision, steps, incident.form)
        updates: Updates = {
            self.parts[name]: drawing for name, drawing in drawn.items() if shown.blocks.get(name) != blocks[name]
        }
        updates |= {self.shown: now, self.timer: _pace(incident.report)}
        updates[self.begin] = gr.update(
            value=visit.t["investigate_now"], visible=incident.report.waits and caller.may("responder")
        )
        updates |= self.switch.refresh(frozen, caller, visit.t)
        updates |= self.deciding.refresh(incident, visit, caller, shown)
        return updates | await self.feedback.refresh(incident.report, visit, caller, shown)


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
        plan = await decision_store.expiry(connection, incident_id, product.desk.policy.waiting.ttl_minutes)
        frozen = await freeze.current(connection)
        told = await outbox.changed(connection, incident_id)
    # What holds a waiting incident back, what recovers again and again, a plan's end and the kill switch change without
    # a line of their own.
    held = f"{row['status_reason']} {row['admitted_at']} {row['flaps']} {alerts} {plan['expired']}"
    held += f" {frozen['id'] if frozen else ''} {told}"
    last = events[-1]["id"] if events else after
    finished = sum(1 for s in steps if s["finished_at"])
    return f"{row['updated_at'].isoformat()} {last} {len(steps)} {finished} {held}", last


async def _load(product: Product, incident_id: str, caller: Caller, lang: Language) -> Incident:
    report = await load_report(product.pool, incident_id, lang)
    offers = await decisions.actions_for(product.desk, incident_id, caller, "console")
    if offers.plan_revision != report.plan_revision:  # it moved on between the two
        offers = offers.model_copy(update={"choices": (), "offers": ()})
    async with product.pool.connection() as connection:
        events = await store.events(connection, incident_id)
        steps = await ledger.steps(connection, incident_id)
        told = [shown(row) for row in await outbox.page(connection, incident_id)]
    return Incident(report, list(events), list(steps), offers, told)


def _draw(incident: Incident, visit: Visit) -> Mapping[str, str]:
    report, events, t = incident.report, incident.events, visit.t
    return {
        "summary": analysis.summary(report, t),
        "progress": analysis.progress(report, events, t),
        "assessment": analysis.assessment(report, t),
        "root_cause": analysis.root_cause(report, t),
        "topology": analysis.topology(report, t),
        "impact": analysis.impact(report, t),
        "options": actions.options(report, incident.offers, t),
        "standing": actions.standing(incident.offers, t),
        "results": results(report, incident.steps, events, t),
        "alerts": analysis.alerts(report, t),
        "evidence": analysis.evidence(report, t),
        "similar": analysis.similar(report, t),
        "runbooks": analysis.runbooks(report, t),
        "gaps": analysis.gaps(report, t),
        "messages": messages(incident.messages, t),
        "history": analysis.history(report, t),
    }


def _pace(report: Report) -> Any:
    if report.status in store.CLOSED:
        return gr.Timer(active=False)
    return gr.Timer(IDLE_TICK_S if report.plan_revision or report.waits else TICK_S, active=True)
