"""The simulated Jira for each test that asks for it."""

import time

import httpx
import pytest
from fastapi import FastAPI

from app.clock import VirtualClock
from app.simulator.jira import Jira
from tests.app.notifiers.jira_site import Site, Wire
from tests.app.notifiers.stories import AT


@pytest.fixture
def site() -> Site:
    clock = VirtualClock(AT, time.time(), 200.0)
    jira, app = Jira(clock), FastAPI()
    app.include_router(jira.router())
    made = Site(jira, Wire(httpx.ASGITransport(app=app)), clock, app)
    made.declare()
    return made
