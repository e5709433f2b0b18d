"""Slack as these tests need it: people who click, and the response_url at which they are answered."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from app.intake.slack import DECIDE
from app.queue import SLACK_ANSWER, SLACK_DECISION
from app.security import Caller
from app.slack_decisions import answer_click, decide_click
from app.wiring import Product
from tests.app.deciding import Office
from tests.app.listening import Listener
from tests.app.served import form, slack_headers


def slack_id(caller: Caller) -> str:
    """Of this person."""
    return f"U0{caller.name.upper()}"


def block_actions(value: str, user: str, response_url: str, moment: str) -> dict[str, Any]:
    """What Slack sends when a button was pressed."""
    return {
        "type": "block_actions",
        "team": {"id": "T0001"},
        "user": {"id": user},
        "container": {"type": "message", "message_ts": "1721.01"},
        "trigger_id": f"1.2.{moment}",
        "response_url": response_url,
        "actions": [{"type": "button", "action_id": f"{DECIDE}:1", "value": value, "action_ts": moment}],
    }


def view_submission(value: str, user: str, hint: str, response_url: str) -> dict[str, Any]:
    """What Slack sends when our modal was submitted."""
    return {
        "type": "view_submission",
        "team": {"id": "T0001"},
        "user": {"id": user},
        "trigger_id": "1.2.4",
        "view": {
            "callback_id": DECIDE,
            "private_metadata": value,
            "state": {"values": {"b1": {"hint": {"type": "plain_text_input", "value": hint}}}},
        },
        "response_urls": [{"response_url": response_url, "channel_id": "C0"}],
    }


@dataclass
class SlackOffice:
    """An office whose Slack app is turned on; ``hook`` is where Slack takes answers."""

    office: Office
    product: Product
    client: httpx.AsyncClient
    hook: Listener
    clicks: int = field(default=0)

    async def click(self, value: str, user: str) -> httpx.Response:
        """A button with this value is pressed; each time anew."""
        self.clicks += 1
        return await self.send(block_actions(value, user, self.hook.url, f"1721.{self.clicks}"))

    async def send(
        self, payload: Mapping[str, Any], *, secret: str | None = None, at: float | None = None
    ) -> httpx.Response:
        """As Slack sends it; ``secret`` and ``at`` make a signature that Slack did not."""
        body = form(payload=json.dumps(payload))
        signed = {"secret": secret} if secret else {}
        headers = slack_headers(body, at=at or time.time(), **signed)
        return await self.client.post("/webhooks/slack/actions", content=body, headers=headers)

    async def jobs(self) -> list[dict[str, Any]]:
        """Those of clicks that wait, oldest first."""
        return await self.office.sql(
            "select id, task_name, args from procrastinate_jobs"
            " where task_name = any(%s) and status = 'todo' order by id",
            [SLACK_DECISION, SLACK_ANSWER],
        )

    async def work(self) -> None:
        """Do what a worker would do with clicks, and nothing else."""
        while jobs := await self.jobs():
            for job in jobs:
                if not await self.office.sql("delete from procrastinate_jobs where id = %s returning id", job["id"]):
                    continue  # somebody else works too
                raw_id = UUID(job["args"]["raw_id"])
                if job["task_name"] == SLACK_DECISION:
                    await decide_click(self.product, raw_id)
                else:
                    await answer_click(self.product, raw_id, job["args"]["text"], last_time=False)
