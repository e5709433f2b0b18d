"""``autopilot connect``: what all senders need to be set up, and the wait until their first delivery is here.

What has to be pasted into a vendor's console is printed; what can be done by its API is done where there are
credentials. Deliveries are seen in the database, so that ``autopilot serve`` may run in any other process.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Protocol
from urllib.parse import urlsplit

from rich.console import Console

from app.db import Connection, Pool, Row, create_pool, migrate, running_database, transaction
from app.settings import Settings
from app.store import arrivals

POLL_S = 1.0

Say = Callable[[str], None]


class ConnectError(Exception):
    """It is not connected; the text says what is wrong and what to do."""


class Connector(Protocol):
    """One kind of sender."""

    async def set_up(self) -> None:
        """Say what to paste, or do it by the vendor's API. Raises ConnectError."""

    async def wait(self, watch: "Watch") -> None:
        """Return once it is proven that deliveries arrive. Raises ConnectError."""


@dataclass(frozen=True)
class Watch:
    """Sees what has arrived in the database since a moment."""

    pool: Pool
    since: datetime
    give_up_at: float  # monotonic
    say: Say

    async def until(self, find: Callable[[Connection], Awaitable[Row | None]], otherwise: str) -> Row:
        """What ``find`` finds. Raises ConnectError with the sentence ``otherwise`` if the time is over."""
        with Console(stderr=True).status("Waiting …"):
            while True:
                async with transaction(self.pool) as connection:
                    row = await find(connection)
                if row:
                    return row
                if time.monotonic() > self.give_up_at:
                    raise ConnectError(otherwise)
                await asyncio.sleep(POLL_S)

    async def first(self, senders: Sequence[str], otherwise: str, *, holding: Sequence[str] = ()) -> Row:
        """See app.store.arrivals.first. Raises ConnectError."""
        return await self.until(
            lambda connection: arrivals.first(connection, senders, self.since, holding=holding), otherwise
        )

    async def tell_first(self, senders: Sequence[str], otherwise: str) -> None:
        """Say what came first. Raises ConnectError."""
        self.say(told(await self.first(senders, otherwise)))


def told(row: Row) -> str:
    """A delivery in words."""
    came = f"It came: {row['sender']}, {row['received_at']:%Y-%m-%d %H:%M:%S} UTC"
    if row["parse_error"]:
        return f"{came}, but it is a dead letter: {row['parse_error']}\nAfter mending: autopilot replay --dead-letter"
    if row["incident_id"]:
        return f"{came}: {row['title']}, incident {row['incident_id']}"
    return f"{came}: {row['title'] or row['note'] or 'no alert in it'}; it opens no incident"


def connect(settings: Settings, connector: Connector, wait_s: float, say: Say) -> None:
    """Set up, and wait until it works; ``wait_s`` 0 does not wait and needs no database. Raises ConnectError."""
    if not wait_s:
        asyncio.run(connector.set_up())
        return
    with running_database(settings) as url:
        migrate(url)
        asyncio.run(_connect_and_wait(url, connector, wait_s, say))


async def _connect_and_wait(url: str, connector: Connector, wait_s: float, say: Say) -> None:
    async with create_pool(url, min_size=1, max_size=1) as pool:
        async with transaction(pool) as connection:
            since = await arrivals.now(connection)
        await connector.set_up()
        say(f"\nWaiting up to {wait_s:g} s for the first delivery; `autopilot serve` must be running.")
        await connector.wait(Watch(pool, since, time.monotonic() + wait_s, say))


# --- our own address ---


def webhook_url(public_url: str, path: str) -> str:
    """Where a vendor delivers."""
    return f"{public_url.rstrip('/')}/webhooks/{path}"


def doubts(public_url: str) -> str:
    """Why a vendor may not reach this address; empty if it may."""
    there = urlsplit(public_url)
    if there.scheme == "https" and not _is_private(there.hostname or ""):
        return ""
    return (
        f"Warning: {public_url} cannot be reached from outside by https, and vendors deliver to public https"
        " addresses only. Give the public one with --url, or set AUTOPILOT_PUBLIC_URL."
    )


def _is_private(host: str) -> bool:
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal")) or "." not in host
