"""What the tests of messages share: a notifier of their own, and tellings."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from app import outbox
from app.alerts import Delivery, accept
from app.intake.base import Parsed
from app.notifiers.base import Event, Receipt, Telling
from app.report import Report
from app.runner import Runner
from app.wiring import Product
from graph.catalogue import Catalogue, Service, Team
from graph.policy import Messages, Policy
from graph.state import Alert, RootCause, Severity
from tests.app.test_runner import Office

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@dataclass
class Board:
    """A notifier whose other side is a list: what hangs there arrived, whatever we know of it."""

    name: str = "board"
    posts: list[Telling] = field(default_factory=list)
    raises: list[Exception] = field(default_factory=list)  # one for each of the next attempts, before it arrives
    silent: bool = False  # takes it, and never answers
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    answers: asyncio.Event = field(default_factory=asyncio.Event)  # of a silent one
    looked_up: list[UUID] = field(default_factory=list)
    searchable: bool = True

    async def deliver(self, telling: Telling) -> Receipt:
        """Hang it up."""
        if self.raises:
            raise self.raises.pop(0)
        self.posts.append(telling)
        self.reached.set()
        if self.silent:
            await self.answers.wait()
        return Receipt(
            {"first": str(telling.conversation.get("first", telling.id)), "last": str(telling.id)}, "hung up"
        )

    async def look_up(self, telling: Telling) -> Receipt | None:
        """Whether it hangs there."""
        self.looked_up.append(telling.id)
        if self.searchable and any(post.id == telling.id for post in self.posts):
            return Receipt({"last": str(telling.id)}, "it hangs there")
        return None

    async def check(self) -> Sequence[str]:
        """Nothing."""
        return ()

    async def aclose(self) -> None:
        """Nothing."""

    def said(self, incident_id: str | None = None) -> list[str]:
        """The kinds of what hangs there, in their order."""
        return [kind_of(p) for p in self.posts if incident_id in (None, p.incident_id)]


def kind_of(telling: Telling) -> str:
    """The event's kind, or the status it tells."""
    kind = telling.event.kind
    return str(telling.event.data["status"]) if kind == "status" else kind


def told_by(office: Office, *notifiers: Any) -> Product:
    """The office's product with these notifiers."""
    return replace(office.product, notifiers={one.name: one for one in notifiers})


def telling(kind: str = "opened", data: Mapping[str, Any] | None = None, **more: Any) -> Telling:
    """Of an incident; ``more``: fields of the report, and of the telling as ``of_…``."""
    own = {name.removeprefix("of_"): more.pop(name) for name in list(more) if name.startswith("of_")}
    told = {
        "incident_id": "inc_1",
        "title": "p95 latency of checkout",
        "service": "checkout",
        "environment": "production",
        "severity": "critical",
        "status": "received",
        "occurred_at": NOON,
        "opened_at": NOON,
    }
    report = Report.model_validate(told | more)
    event = Event(7, f"{kind}:1", NOON, kind, "", f"what happened: {kind}", dict(data or {}))
    filled: dict[str, Any] = {
        "target": "default",
        "why": "payments owns checkout, which alerted",
        "conversation": {},
        "earlier": {},
        "maybe_sent": False,
        "url": "https://autopilot.example/ui/?incident=inc_1",
        "team": "payments",
    }
    return Telling(
        id=uuid4(), incident_id="inc_1", event=event, report=report, language=report.language, **(filled | own)
    )


CAUSE = RootCause(
    component="payment-service",
    category="connection_pool_exhaustion",
    title="The connection pool is exhausted",
    mechanism="Each request waits for a connection.",
    confidence="high",
)


# --- an office whose messages go out ---

OPENED = ["opened", "awaiting_decision"]


def owned(office: Office, messages: Messages | None = None) -> None:
    """The shop has an owner from now on."""
    catalogue = Catalogue(services={"shop": Service(owner="shop")}, teams={"shop": Team(), "ops": Team()})
    policy = Policy(messages=messages or Messages())
    office.desk = replace(office.desk, catalogue=catalogue, policy=policy)


@pytest.fixture
def board(office: Office) -> Board:
    """A notifier; the shop's owner is told."""
    owned(office)
    return Board()


async def deliver_all(product: Product) -> None:
    """What workers would do until nothing is due: dispatch, and the jobs it enqueued."""
    while True:
        await outbox.dispatch(product)
        async with product.pool.connection() as connection:
            query = "delete from procrastinate_jobs where task_name = 'send' returning args"
            jobs = await (await connection.execute(query)).fetchall()
        if not jobs:
            return
        for job in jobs:
            await outbox.send_due(product, **job["args"])


async def later(office: Office) -> None:
    """The time passes that messages wait for."""
    await office.execute("update message set due_at = clock_timestamp() where sent_at is null and failed_at is null")
    await office.execute("delete from patience")


async def rows(office: Office) -> list[dict[str, Any]]:
    """All messages, oldest first."""
    return await office.execute(
        "select m.*, e.kind from message m join event e on e.id = m.event_id order by event_id, notifier, target"
    )


async def planned(office: Office, key: str = "c") -> str:
    """An incident that waits for a decision."""
    incident = await office.open(key)
    await Runner(office.pool, office.deps).advance(incident)
    return incident


def alert(key: str = "c", transition: Any = "firing", severity: Severity = "warning", minutes: float = 0) -> Alert:
    """One of the shop."""
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    return Alert(
        source="t",
        title=f"alert {key}",
        service="shop",
        severity=severity,
        occurred_at=at,
        changed_at=at,
        fingerprint=key,
        cycle_key=key,
        transition=transition,
    )


async def arrives(office: Office, *alerts: Alert) -> str:
    """A delivery; the incident."""
    outcome = (await accept(office.desk, [Delivery("t", {}, b"{}", Parsed(alerts=alerts))]))[0]
    assert outcome.incident_id
    return outcome.incident_id
