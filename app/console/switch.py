"""The kill switch on every page: a banner while it is pulled, and a way to pull and to lift it."""

from typing import Any, Literal

import gradio as gr

from app import freezing
from app.api.freeze import FreezeBody
from app.console.components import html, on
from app.console.markup import card, moment, notice, text
from app.console.visits import Updates, Visit, Visits
from app.db import Row
from app.report_texts import Texts
from app.security import Caller
from app.store import freeze

Mode = Literal["pull", "lift"]


class KillSwitch:
    """Components and events; whether the caller may is checked by ``freezing``."""

    def __init__(self, visits: Visits) -> None:
        """Within the page's blocks."""
        self.visits = visits
        self.mode = gr.State(None)  # what the panel asks to confirm
        self.banner = html()
        with gr.Row(elem_classes="ap-buttons ap-switch"):
            self.button = gr.Button(visible=False, size="sm", min_width=160, elem_classes="ap-button ap-stop")
        with gr.Column(visible=False, elem_classes="ap-form") as self.panel:
            self.said = html()
            self.reason = gr.Textbox(max_lines=2, max_length=freezing.MAX_REASON)
            with gr.Row():
                self.back = gr.Button()
                self.confirm = gr.Button(elem_classes="ap-confirm")
        self.answer = html()

    @property
    def outputs(self) -> list[Any]:
        """Every component that its events change."""
        return [self.banner, self.button, self.panel, self.said, self.reason, self.back, self.confirm, self.answer]

    def connect(self) -> None:
        """Bind the events."""
        on(self.button.click, self.on_switch, [], [self.mode, *self.outputs])
        on(self.confirm.click, self.on_switch_confirm, [self.mode, self.reason], self.outputs)
        on(self.back.click, self.on_switch_back, [], self.outputs)

    # --- what is shown ---

    def refresh(self, frozen: Row | None, caller: Caller, t: Texts) -> Updates:
        """The button, for those who may press it; ``frozen``: as ``freeze.current`` has it."""
        may = caller.may("admin" if frozen else "responder")
        return {self.button: gr.update(value=t["lift"] if frozen else t["stop_all"], visible=may)}

    def _closed(self) -> Updates:
        return {self.panel: gr.update(visible=False), self.reason: ""}

    # --- events ---

    async def on_switch(self, request: gr.Request) -> Updates:
        """Say what would be stopped, or let go on, before it is."""

        async def ask(visit: Visit, caller: Caller) -> Updates:
            mode: Mode = "lift" if await _frozen(visit) else "pull"
            t = visit.t
            return {
                self.mode: mode,
                self.answer: "",
                self.panel: gr.update(visible=True),
                self.said: card(t[f"{mode}_title"], f"<p>{t[f'{mode}_what']}</p>", "confirm"),
                self.reason: gr.update(value="", label=t["pull_reason"], visible=mode == "pull"),
                self.confirm: gr.update(value=t[f"{mode}_confirm"]),
                self.back: gr.update(value=t["back"]),
            }

        return await self.visits.act(request.request, ask, self.answer)

    async def on_switch_confirm(self, mode: Mode | None, reason: str, request: gr.Request) -> Updates:
        """Do what the panel says."""

        async def settle(visit: Visit, caller: Caller) -> Updates:
            pool, clock = visit.product.pool, visit.product.clock
            if mode == "lift":
                await freezing.lift(pool, clock, caller)
            elif mode == "pull":
                await freezing.pull(pool, clock, caller, FreezeBody(reason=reason).reason)
            frozen = await _frozen(visit)
            done = notice(visit.t["lifted"], "good") if mode == "lift" else ""
            return self.refresh(frozen, caller, visit.t) | {self.banner: banner(frozen, visit.t), self.answer: done}

        return self._closed() | await self.visits.act(request.request, settle, self.answer)

    def on_switch_back(self) -> Updates:
        """Leave it as it is."""
        return self._closed() | {self.answer: ""}


async def _frozen(visit: Visit) -> Row | None:
    async with visit.product.pool.connection() as connection:
        return await freeze.current(connection)


def banner(frozen: Row | None, t: Texts) -> str:
    """Who stopped everything, when and why, and how that ends; nothing where nobody did."""
    if frozen is None:
        return ""
    who = f"<b>{text(frozen['pulled_by'])}</b>, {moment(frozen['pulled_at'])} UTC"
    why = f": {text(frozen['reason'])}" if frozen["reason"] else ""
    return f'<div class="frozen" role="alert"><b>{t["frozen"]}</b> {who}{why}<br>{t["frozen_do"]}</div>'
