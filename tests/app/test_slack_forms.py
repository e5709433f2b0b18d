"""Buttons in Slack from the message to the decision: what the notifier posts is what the intake understands."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.catalogue import AutopilotYaml, Operator
from app.clock import SystemClock
from app.db import create_pool
from app.intake.slack import DECIDE, HINT, Slack, form_asked
from app.intake.slack import Settings as SlackSettings
from app.notifiers.base import Event, Receipt
from app.notifiers.slack import Settings, SlackNotifier
from app.stored_report import load_report
from app.wiring import Product
from tests.app import doors
from tests.app.clicking import SlackOffice
from tests.app.deciding import Office, offices
from tests.app.doors import product_of
from tests.app.listening import Listener
from tests.app.served import form
from tests.app.slack_stories import Life, investigated
from tests.simulator.conftest import served

SECRET = "shop-signing-secret"  # of the shop's Slack app
MINJI, SAM = "U0MINJI", "U0SAM"  # an operator; somebody who only works there
CHANNEL = "C0PAYMENTS"


@dataclass
class Room:
    """The product at a port, and the shop's Slack, which has its address."""

    office: Office
    product: Product
    slack: httpx.AsyncClient
    notifier: SlackNotifier
    reference: Any

    async def tell(self, incident: str, kind: str = "status") -> Receipt:
        """As the outbox does, of the newest event."""
        report = await load_report(self.product.pool, incident)
        told = report.history[-1]
        event = Event(told.id, f"k:{told.id}", told.at, kind, told.node, told.message, {})
        telling = Life(investigated("001-black-friday")).telling(self.reference, number=told.id)
        receipt = await self.notifier.deliver(replace(telling, incident_id=incident, event=event, report=report))
        self.reference = receipt.reference
        return receipt

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.slack.get("/_shop/slack/state")).json()
        return found

    async def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.state())["channels"]["payments-oncall"]["messages"]
        return found

    async def press(self, action_id: str, user: str = MINJI) -> dict[str, Any]:
        """Where there is such a button; Slack's view of our answer."""
        pressable = {b["action_id"]: m["ts"] for m in await self.messages() for b in m["buttons"]}
        body = {"channel": CHANNEL, "ts": pressable[action_id], "action_id": action_id, "user": user}
        answer: dict[str, Any] = (await self.slack.post("/_shop/slack/press", json=body)).json()
        return answer

    async def modal(self) -> dict[str, Any]:
        """The one that is open, once it is."""
        return (await self._once("modals"))[0]

    async def whispered(self) -> list[tuple[str, str]]:
        """Who was told what, and nobody else."""
        return [(w["user"], w["text"]) for w in await self._once("ephemerals")]

    async def _once(self, kind: str) -> list[dict[str, Any]]:
        """What Slack has of it, once it has any: it is told of after the click is answered."""
        async with asyncio.timeout(20):
            while True:
                if found := (await self.state())[kind]:
                    return list(found)
                await asyncio.sleep(0.05)

    async def work(self) -> None:
        """Do the jobs of clicks."""
        await SlackOffice(self.office, self.product, httpx.AsyncClient(), Listener("http://unused")).work()

    async def decisions(self) -> list[dict[str, Any]]:
        return await self.office.sql("select * from decision")


@pytest.fixture
async def room(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    with served("bad-deploy", 5) as shop:
        monkeypatch.setenv("AUTOPILOT_SLACK_BOT_TOKEN", "xoxb-shop")
        monkeypatch.setenv("AUTOPILOT_SLACK_API_URL", f"{shop.url}/slack/api/")
        async with offices(database_url) as plain, httpx.AsyncClient(base_url=shop.url, timeout=20) as slack:
            desk = replace(plain.desk, operators={"minji": Operator(slack=(MINJI,))})
            office = replace(plain, desk=desk)
            intake = SlackSettings(signing_secrets=(SecretStr(SECRET),), response_url_base=shop.url)
            product = product_of(office, {"slack": Slack(intake, SystemClock())})
            async with doors.served(product) as url:
                app = {"interactivity_url": f"{url}/webhooks/slack/actions"}
                await slack.patch("/_shop/slack/app", json=app)
                yield Room(office, product, slack, SlackNotifier(Settings(), AutopilotYaml()), {})


async def test_a_button_decides_and_is_gone(room: Room) -> None:
    incident = await room.office.planned()
    await room.tell(incident)
    assert (await room.press(f"{DECIDE}:1"))["status"] == 200
    await room.work()
    [decision] = await room.decisions()
    assert (decision["decided_by"], decision["via"], decision["choice"]) == ("minji", "slack", "1")
    assert (await room.whispered())[0][1].startswith("*minji* chose *1*: it is decided.")
    await room.tell(incident, "decision")
    left = [b["action_id"] for m in await room.messages() for b in m["buttons"]]
    assert left == [f"{DECIDE}:withdraw"]
    await room.office.runner.advance(incident)
    await room.tell(incident)
    offered = {b["action_id"] for m in await room.messages() for b in m["buttons"]}
    assert f"{DECIDE}:withdraw" not in offered  # it has begun


async def test_a_decision_is_taken_back_by_a_button(room: Room) -> None:
    incident = await room.office.planned()
    await room.tell(incident)
    await room.press(f"{DECIDE}:1")
    await room.work()
    await room.tell(incident, "decision")
    await room.press(f"{DECIDE}:withdraw")
    await room.work()
    [decision] = await room.decisions()
    assert decision["withdrawn_by"] == "minji"
    assert "took back the decision *1*" in (await room.whispered())[-1][1]


async def test_who_sees_an_old_button_takes_back_nothing_newer(room: Room) -> None:
    incident = await room.office.planned()
    await room.tell(incident)
    await room.press(f"{DECIDE}:1")
    await room.work()
    await room.tell(incident, "decision")
    await room.office.sql("update decision set plan_revision = 'another'")
    await room.press(f"{DECIDE}:withdraw")
    await room.work()
    assert [d["withdrawn_by"] for d in await room.decisions()] == [None]
    assert "another one by now" in (await room.whispered())[-1][1]


async def test_a_hint_is_asked_for_in_a_form_and_decides(room: Room) -> None:
    incident = await room.office.planned()
    await room.tell(incident)
    await room.press(HINT)
    assert await room.decisions() == []  # the form decides, not the button
    modal = await room.modal()
    assert modal["user"] == MINJI
    typed = {"modal": modal["id"], "values": {"hint": "since 08:40, look at db"}}
    assert (await room.slack.post("/_shop/slack/submit", json=typed)).json()["status"] == 200
    await room.work()
    [decision] = await room.decisions()
    assert (decision["choice"], decision["hint"]) == ("re_analyze", "since 08:40, look at db")
    assert (await room.whispered())[0] == (MINJI, (await room.whispered())[0][1])
    assert "it is decided" in (await room.whispered())[0][1]  # though Slack gave the form no response_url


async def test_a_form_that_does_not_open_is_told(room: Room) -> None:
    incident = await room.office.planned()
    await room.tell(incident)
    trouble = {"path": "/slack/api/views.open", "status": 200, "code": "expired_trigger_id"}
    await room.slack.post("/_shop/fail", json=trouble)
    assert (await room.press(HINT))["status"] == 200
    [(user, text)] = await room.whispered()
    assert user == MINJI
    assert "could not be opened" in text
    assert "expired_trigger_id" in text
    assert f"/ui/?incident={incident}" in text


async def test_a_form_opens_without_the_database(room: Room) -> None:
    """In the installation's language."""
    incident = await room.office.planned()
    await room.tell(incident)
    away = create_pool("postgresql://nobody@127.0.0.1:9/none")  # never opened
    product = replace(room.product, desk=replace(room.product.desk, pool=away))
    async with doors.served(product) as url:
        await room.slack.patch("/_shop/slack/app", json={"interactivity_url": f"{url}/webhooks/slack/actions"})
        assert (await room.press(HINT))["status"] == 200
        assert (await room.modal())["view"]["title"]["text"] == "Analyse again"


async def test_a_setting_that_is_wrong_is_told(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    incident = await room.office.planned()
    await room.tell(incident)
    monkeypatch.setenv("AUTOPILOT_SLACK_TIMEOUT_S", "soon")
    assert (await room.press(HINT))["status"] == 200
    [(_, text)] = await room.whispered()
    assert "could not be opened* (AUTOPILOT_SLACK_TIMEOUT_S" in text


async def test_a_stranger_is_refused_where_only_they_read_it(room: Room) -> None:
    incident = await room.office.planned()
    await room.tell(incident)
    before = len(await room.messages())
    await room.press(f"{DECIDE}:1", SAM)
    await room.work()
    assert await room.decisions() == []
    [(user, text)] = await room.whispered()
    assert user == SAM
    assert "operators:" in text
    assert len(await room.messages()) == before


@pytest.mark.parametrize(
    "payload",
    [
        "{}",
        "no json",
        '{"actions": [{"action_id": "autopilot_hint", "value": "x"}], "trigger_id": "1"}',
        '{"actions": [{"action_id": "autopilot_hint", "value": "inc_1:r:re_analyze"}]}',
        '{"actions": [{"action_id": "autopilot_decide:1", "value": "inc_1:r:1"}], "trigger_id": "1"}',
    ],
)
def test_nothing_else_opens_a_form(payload: str) -> None:
    assert form_asked(form(payload=payload)) is None
    assert form_asked(b"") is None


def test_what_opens_a_form_shows_no_secret() -> None:
    button = '{"action_id": "autopilot_hint", "value": "inc_1:r:re_analyze"}'
    asked = form_asked(form(payload=f'{{"actions": [{button}], "trigger_id": "13.37", "response_url": "https://h/x"}}'))
    assert asked
    assert (asked.value, asked.incident_id, asked.answer_to) == ("inc_1:r:re_analyze", "inc_1", "https://h/x")
    assert "13.37" not in repr(asked)
    assert "https://h/x" not in repr(asked)
