"""The simulated Jira with trouble on the way there, and an outbox in short."""

from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from fastapi import FastAPI
from pydantic import SecretStr

from app.catalogue import AutopilotYaml
from app.clock import VirtualClock
from app.notifiers.base import Receipt, Telling, TryAgain
from app.notifiers.jira import JiraNotifier, Settings
from app.simulator.jira import API_TOKEN, EMAIL, Issue, Jira
from tests.app.notifiers.stories import MANUAL, decided, report, telling

URL = "http://localhost/jira"
Answer = httpx.Response | Exception


class Wire(httpx.AsyncBaseTransport):
    """To the simulated site; ``before`` is answered instead of a call, ``after`` once it took effect."""

    def __init__(self, site: httpx.AsyncBaseTransport) -> None:
        self.site = site
        self.before: dict[tuple[str, str], list[Answer]] = {}
        self.after: dict[tuple[str, str], list[Answer]] = {}
        self.calls: list[tuple[str, str]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = (request.method, request.url.path.removeprefix("/jira/rest/api/3"))
        self.calls.append(call)
        if self.before.get(call):
            return _given(self.before[call].pop(0), request)
        answer = await self.site.handle_async_request(request)
        if self.after.get(call):
            await answer.aread()
            return _given(self.after[call].pop(0), request)
        return answer

    def writes(self) -> list[tuple[str, str]]:
        asks = ("/search/jql", "/comment/list")
        return [(method, path) for method, path in self.calls if method != "GET" and path not in asks]


def _given(answer: Answer, request: httpx.Request) -> httpx.Response:
    if isinstance(answer, Exception):
        raise answer
    answer.request = request
    return answer


@dataclass
class Site:
    """The simulated site, the way there, and its rules."""

    jira: Jira
    wire: Wire
    clock: VirtualClock
    app: FastAPI
    file: AutopilotYaml = field(default_factory=AutopilotYaml)

    def notifier(self, *, token: str = API_TOKEN, **changes: Any) -> JiraNotifier:
        settings = Settings(url=URL, email=EMAIL, api_token=SecretStr(token), **changes)
        return JiraNotifier(settings, self.file, self.clock, self.wire)

    def declare(self, *, tickets_on: tuple[str, ...] = ("manual",), **jira: str) -> None:
        where = {"project": "OPS", "component": "payments", **jira}
        self.file = AutopilotYaml.model_validate(
            {"teams": {"payments": {"jira": where}}, "policy": {"messages": {"tickets_on": tickets_on}}}
        )

    async def set(self, **rules: Any) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url="http://localhost") as door:
            (await door.patch("/_shop/jira", json=rules)).raise_for_status()

    @property
    def issues(self) -> list[Issue]:
        return list(self.jira._issues.values())


LOST: tuple[Answer, ...] = (
    httpx.ReadTimeout("silent"),
    httpx.RemoteProtocolError("cut"),
    httpx.Response(500),
    httpx.Response(201, text="<"),
)


async def send(notifier: JiraNotifier, told: Telling) -> Receipt:
    """As the outbox does it: again after TryAgain, looked for first if it may have arrived."""
    for _ in range(6):
        try:
            receipt = await notifier.look_up(told) if told.maybe_sent else None
            return receipt or await notifier.deliver(told)
        except TryAgain as error:
            known = {**told.conversation, **error.reference}
            told = replace(told, conversation=known, maybe_sent=error.ambiguous or told.maybe_sent)
    raise AssertionError("it never arrives")


def by_hand(**changes: object) -> Telling:
    return telling(MANUAL, report().model_copy(update={"decisions": (decided("manual"),)}), **changes)
