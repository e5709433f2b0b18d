"""The doors through which people decide, for tests that want the same answer from each of them."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

import gradio
import httpx
import uvicorn
from fastapi import FastAPI, Request
from typer.testing import CliRunner, Result

from app.api.access import SESSION_COOKIE
from app.catalogue import Operator
from app.cli import app as command_line
from app.clock import SystemClock
from app.console.deciding import DecisionPanel
from app.console.page import Page
from app.db import transaction
from app.decision_checks import Verdict
from app.intake.base import Directory, Sender
from app.intake.slack import Settings as SlackSettings
from app.intake.slack import Slack
from app.main import create_app
from app.reception import Reception
from app.security import Caller, issue
from app.slack_texts import KOREAN_REASONS
from app.wiring import Product
from graph.state import Door as Via
from tests.app.clicking import SlackOffice, slack_id
from tests.app.deciding import ANN, BOB, KIM, VERA, Office
from tests.app.listening import listening
from tests.app.served import SECRETS


class Answer(NamedTuple):
    """Whether a decision was taken, and the word for why not."""

    accepted: bool
    reason: str = ""


class Door(Protocol):
    """One way in."""

    via: Via

    async def decide(
        self, incident: str, plan_revision: str, choice: str, caller: Caller, steps: Sequence[int] = ()
    ) -> Answer:
        """Try to decide as this person."""


OpenDoor = Callable[[Office], AbstractAsyncContextManager[Door]]
"""A door into an office, as tests are given it."""


def product_of(office: Office, senders: Mapping[str, Sender] | None = None) -> Product:
    """What a process that serves this office holds."""
    desk = office.desk
    return Product(
        settings=desk.settings,
        clock=desk.clock,  # type: ignore[arg-type]  # an office has the system's
        pool=office.pool,
        queue=office.queue,
        desk=desk,
        deps=office.deps,
        senders=senders or {},
        directory=Directory(desk.catalogue),
        reception=Reception(desk),
    )


def api_of(product: Product) -> FastAPI:
    """Its API."""
    app = create_app(product.settings, "postgresql://unused", worker=False)
    app.state.product = product
    return app


@asynccontextmanager
async def client_of(office: Office, product: Product | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Calls the API of an office; without a key."""
    transport = httpx.ASGITransport(api_of(product or product_of(office)), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://office") as client:
        yield client


async def key_of(office: Office, caller: Caller) -> dict[str, str]:
    """A header with an API key of this person."""
    async with transaction(office.pool) as connection:
        key = await issue(connection, "key", caller.name, caller.role)
    return {"Authorization": f"Bearer {key}"}


class RestDoor:
    """``POST /incidents/{id}/decision``."""

    via: Via = "rest"

    def __init__(self, office: Office, client: httpx.AsyncClient) -> None:
        self.office, self.client = office, client

    async def decide(
        self, incident: str, plan_revision: str, choice: str, caller: Caller, steps: Sequence[int] = ()
    ) -> Answer:
        """With an API key of the person."""
        body = {"plan_revision": plan_revision, "choice": choice, "steps": list(steps)}
        headers = await key_of(self.office, caller)
        answer = await self.client.post(f"/incidents/{incident}/decision", json=body, headers=headers)
        return Answer(answer.status_code == 202, answer.json().get("reason", ""))


@asynccontextmanager
async def rest(office: Office) -> AsyncIterator[Door]:
    """The API."""
    async with client_of(office) as client:
        yield RestDoor(office, client)


OPERATORS = {c.name: Operator(role=c.role, slack=(slack_id(c),)) for c in (KIM, ANN, BOB, VERA)}


class SlackDoor:
    """A click on a button. What is answered is what the person reads, in the language of the incident."""

    via: Via = "slack"

    def __init__(self, slack: SlackOffice) -> None:
        self.slack = slack

    async def decide(
        self, incident: str, plan_revision: str, choice: str, caller: Caller, steps: Sequence[int] = ()
    ) -> Answer:
        """As the operator who has the Slack id."""
        await self.slack.office.sql("update incident set language = 'ko'")
        only = f":{','.join(map(str, steps))}" if steps else ""
        answer = await self.slack.click(f"{incident}:{plan_revision}:{choice}{only}", slack_id(caller))
        assert (answer.status_code, answer.content) == (200, b"")
        await self.slack.work()
        said = self.slack.hook.posts[-1]["text"]
        reasons = [reason for reason, sentence in KOREAN_REASONS.items() if sentence in said]
        return Answer("거절" not in said, reasons[0] if reasons else "")


@asynccontextmanager
async def slack_office(office: Office) -> AsyncIterator[SlackOffice]:
    """The office with Slack's app turned on, and a Slack that takes answers."""
    with listening() as hook:
        settings = SlackSettings(signing_secrets=SECRETS, response_url_base=hook.url)
        product = product_of(office, {"slack": Slack(settings, SystemClock())})
        async with client_of(office, product) as client:
            yield SlackOffice(office, product, client, hook)


@asynccontextmanager
async def slack(office: Office) -> AsyncIterator[Door]:
    """Slack's interactivity; everybody is an operator."""
    korean = office.desk.settings.model_copy(update={"language": "ko"})
    desk = replace(office.desk, operators=OPERATORS, settings=korean)
    async with slack_office(replace(office, desk=desk)) as made:
        yield SlackDoor(made)


class CliDoor:
    """``autopilot decide``."""

    via: Via = "cli"

    def __init__(self, office: Office, url: str) -> None:
        self.office, self.url = office, url

    async def decide(
        self, incident: str, plan_revision: str, choice: str, caller: Caller, steps: Sequence[int] = ()
    ) -> Answer:
        """With an API key of the person."""
        only = ("--steps", ",".join(map(str, steps))) if steps else ()
        arguments = ("decide", incident, choice, "--revision", plan_revision, *only, "--yes", "--json")
        result = await autopilot(self.office, self.url, caller, *arguments)
        assert result.exit_code in (0, 1), result.output
        return Answer(result.exit_code == 0, json.loads(result.stdout).get("reason", ""))


async def autopilot(office: Office, url: str, caller: Caller, *arguments: str, typed: str = "") -> Result:
    """The command line, with an API key of this person."""
    key = (await key_of(office, caller))["Authorization"].removeprefix("Bearer ")
    environment = {"AUTOPILOT_API_KEY": key, "AUTOPILOT_PUBLIC_URL": url}
    return await asyncio.to_thread(CliRunner().invoke, command_line, arguments, input=typed, env=environment)


@asynccontextmanager
async def served(product: Product) -> AsyncIterator[str]:
    """A product's API at a port; its URL."""
    server = uvicorn.Server(uvicorn.Config(api_of(product), lifespan="off", log_level="warning"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@asynccontextmanager
async def cli(office: Office) -> AsyncIterator[Door]:
    """The command line, against the API at a port."""
    async with served(product_of(office)) as url:
        yield CliDoor(office, url)


class ConsoleDoor:
    """The button that confirms, with the session of a person; what it confirms may be older than what waits now."""

    via: Via = "console"

    def __init__(self, office: Office, panel: DecisionPanel) -> None:
        self.office, self.panel = office, panel

    async def decide(
        self, incident: str, plan_revision: str, choice: str, caller: Caller, steps: Sequence[int] = ()
    ) -> Answer:
        """In a tab of the person."""
        verdict = Verdict.model_validate({"plan_revision": plan_revision, "choice": choice, "steps": tuple(steps)})
        async with transaction(self.office.pool) as connection:
            session = await issue(connection, "session", caller.name, caller.role)
        updates = await self.panel.on_confirm(verdict, tab_of(session, incident))
        said = updates[self.panel.answer]
        refused = re.search('data-reason="([a-z_]*)"', said)
        return Answer(refused is None, refused[1] if refused else "")


def tab_of(session: str, incident: str) -> gradio.Request:
    """What Gradio hands to an event of a tab that shows this incident."""
    headers = [(b"cookie", f"{SESSION_COOKIE}={session}".encode())]
    scope = {"type": "http", "headers": headers, "query_string": urlencode({"incident": incident}).encode()}
    return gradio.Request(Request(scope))


@asynccontextmanager
async def console(office: Office) -> AsyncIterator[Door]:
    """The Gradio page's own handler."""
    app = FastAPI()
    app.state.product = product_of(office)
    yield ConsoleDoor(office, Page(app).deciding)


DOORS: dict[str, OpenDoor] = {"rest": rest, "slack": slack, "cli": cli, "console": console}
