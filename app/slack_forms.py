"""The form for a hint, which a button in Slack opens. What is written into it decides as a click does."""

import asyncio
import logging

from pydantic import ValidationError

from app.db import DATABASE_AWAY
from app.intake._slack_text import escaped
from app.intake.slack import FormAsked
from app.notifiers._slack_api import Settings, call, client_of
from app.notifiers._slack_plan import hint_form
from app.notifiers.base import TryAgain, Undeliverable
from app.slack_decisions import NotTold, language_of, link_to, post_answer, slack_of
from app.slack_texts import TEXTS
from app.wiring import Product
from graph.state import Language

log = logging.getLogger(__name__)

LANGUAGE_WITHIN_S = 0.5  # Slack takes a trigger for three seconds after the click
OPENS_WITHIN_S = 2


async def open_form(product: Product, asked: FormAsked) -> None:
    """Open it while Slack still takes the trigger; else tell who clicked. Raises nothing that can be told.

    Not a job: another process would come too late.
    """
    view = hint_form(TEXTS[await _language(product, asked.incident_id)], f"{asked.value} {asked.answer_to}")
    try:
        client = client_of(Settings(), timeout_s=OPENS_WITHIN_S)
        # to its end: whoever gave up earlier would tell of a failure, and the form might still open
        await asyncio.to_thread(call, client.views_open, trigger_id=asked.trigger_id, view=view)
    except (TryAgain, Undeliverable) as error:
        await _tell_not_opened(product, asked, error.detail)
    except ValidationError as error:
        named = ", ".join(f"AUTOPILOT_SLACK_{'_'.join(map(str, e['loc'])).upper()}" for e in error.errors())
        await _tell_not_opened(product, asked, f"{named}: autopilot doctor")


async def _language(product: Product, incident_id: str) -> Language:
    """Of the incident; of the installation where the database does not say in time."""
    try:
        async with asyncio.timeout(LANGUAGE_WITHIN_S):
            return await language_of(product.desk, incident_id)
    except DATABASE_AWAY as error:
        log.warning("incident %s: its language is not known: %s", incident_id, error)
        return product.settings.language


async def _tell_not_opened(product: Product, asked: FormAsked, why: str) -> None:
    log.warning("incident %s: the form for a hint was not opened: %s", asked.incident_id, why)
    if not slack_of(product).may_answer(asked.answer_to):
        return
    t = TEXTS[product.settings.language]
    text = f"{t['modal_failed'].format(escaped(why))}\n{link_to(product.desk, asked.incident_id, t)}"
    try:
        await post_answer(asked.answer_to, text)
    except NotTold as failure:
        log.warning("incident %s: nor could who clicked be told: Slack %s", asked.incident_id, failure)
