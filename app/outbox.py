"""Messages leave from here: who hears of an event is decided once, and what they are told is tried until it arrived.

The event and its row in the outbox are of one transaction, and so are the messages made of it and the job that sends
them. An attempt is committed before the call: whoever dies after it leaves a message that may have arrived, and the
next one asks the other side first. An incident waits for none of this.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from math import isfinite
from random import SystemRandom
from time import monotonic

from pydantic import JsonValue

from app.db import DATABASE_AWAY, Connection, Row, transaction
from app.notifiers.base import Event, Receipt, Reference, Telling, TryAgain, Undeliverable
from app.queue import enqueue_send_all
from app.routing import PROGRAMS, Happened, Hearer, Routes
from app.store import incidents
from app.store import outbox as store
from app.stored_report import load_report
from app.wiring import Product
from graph.policy import Messages
from graph.state import storable

log = logging.getLogger(__name__)

AT_ONCE_OF_A_TARGET = 2  # jobs: a target that hangs takes no more places than these
AT_ONCE_OF_A_NOTIFIER = 6  # and a notifier of which all do
EVENTS_AT_ONCE = 200
CONVERSATIONS_AT_ONCE = 50  # that a job looks up together
JOB_S = 60.0  # then a job begins no more attempts, and what is still due is given another
READS_S = 5.0  # what an attempt needs of the database; a slower one is put off
ATTEMPT_S = 50.0  # looking up, and delivering; with READS_S below store.SENDING_S
LONGEST_BACKOFF_S = 300.0
LONGEST_PATIENCE_S = 3600.0  # whatever a target asks for: it may have meant something else
SPARED_S = 15.0  # the longest that a target without an answer is told nothing else, unless it asks for more
TRIED_S = 86_400.0
WORTH_TELLING_S = 300.0  # whoever hears that much too late is missed in the timeline before the day is over
OTHERS_S = 3600.0  # what processes with other notifiers left undone for so long is anybody's
LASTING_S = 60.0  # a recovery after a relapse is told when it has lasted this long, for each relapse there was
MOST_LASTING_S = 600.0
LOOK_EVERY_S = 1.0
MAX_DETAIL = 1000  # characters
_random = SystemRandom()


# --- who hears ---


async def dispatch_for_ever(product: Product) -> None:
    """Beside the worker: at once when something was written, and each second for what falls due by itself."""
    while True:
        try:
            await _listen_and_dispatch(product)
        except DATABASE_AWAY as error:
            log.warning("messages wait for the database: %s", error)
        except Exception:  # the loop must outlive whatever ended one of its rounds
            log.exception("deciding who hears failed; it is tried again")
        await asyncio.sleep(LOOK_EVERY_S)


async def _listen_and_dispatch(product: Product) -> None:
    async with product.pool.connection() as connection:
        try:
            await connection.execute(f"listen {store.CHANNEL}".encode())
            while True:
                while await dispatch(product) == EVENTS_AT_ONCE:
                    pass
                async for _ in connection.notifies(timeout=LOOK_EVERY_S, stop_after=1):
                    pass
        except BaseException:
            await connection.close()  # it listens: it must not go back to the pool
            raise


async def dispatch(product: Product) -> int:
    """Make messages of the events that wait, and give each conversation that is due a job; how many events.

    One process does it at a time, so events go through it in their order. One without notifiers leaves them to those
    that have some, unless nobody takes them.
    """
    async with transaction(product.pool) as connection:
        if not await store.take_turn(connection):
            return 0
        events = await store.take(connection, EVENTS_AT_ONCE, 0.0 if product.notifiers else OTHERS_S)
        if product.notifiers:
            await _tell(product, connection, events)
            names = sorted(product.notifiers)
            due = await store.due(connection, names, AT_ONCE_OF_A_TARGET, AT_ONCE_OF_A_NOTIFIER, OTHERS_S)
            await enqueue_send_all(product.queue, connection, due)
    return len(events)


async def _tell(product: Product, connection: Connection, events: Sequence[Row]) -> None:
    """Make messages of these; an event of which none can be made is left out, and holds up no others."""
    try:
        async with connection.transaction():
            await _make_messages(product, connection, events)
    except DATABASE_AWAY:
        raise
    except Exception:  # whatever it is, it would come again with the same event
        if len(events) == 1:
            log.exception("nobody is told of event %s of %s", events[0]["id"], events[0]["incident_id"])
            return
        for event in events:
            await _tell(product, connection, [event])


async def _make_messages(product: Product, connection: Connection, events: Sequence[Row]) -> None:
    desk = product.desk
    routes = Routes(desk.catalogue, desk.policy.messages, tuple(product.notifiers))
    rows = await store.hearers(connection, sorted({event["incident_id"] for event in events}))
    heard: dict[str, list[Hearer]] = {}
    for row in rows:
        heard.setdefault(row.pop("incident_id"), []).append(Hearer(**row))
    messages: list[store.NewMessage] = []
    for event in events:
        happened = Happened(**{name: event[name] for name in Happened.__dataclass_fields__})
        known = heard.setdefault(event["incident_id"], [])
        hearers = routes.hearers(happened, known)
        known += [hearer for hearer in hearers if hearer not in known]
        if happened.kind == "reopened":  # whoever was not told yet that it recovered need not hear that it came back
            await store.insert(connection, messages)
            messages = []
            spared = await store.take_back(connection, event["incident_id"], "recovered")
            hearers = [h for h in hearers if {"notifier": h.notifier, "target": h.target} not in spared]
        held = _held_until(desk.policy.messages, happened, event["flaps"])
        messages += [
            store.NewMessage(event["incident_id"], event["id"], *hearer, None if hearer.notifier in PROGRAMS else held)
            for hearer in hearers
        ]
    await store.insert(connection, messages)


def _held_until(policy: Messages, happened: Happened, flaps: int) -> datetime | None:
    """When people may be told of it; None: now."""
    now = datetime.now(UTC)
    held = None if happened.lacks_people else policy.held_until(happened.severity, now)
    if happened.kind == "recovered" and flaps:
        return max(held or now, now + timedelta(seconds=min(LASTING_S * flaps, MOST_LASTING_S)))
    return held


# --- sending ---


async def send_due(product: Product, incident_id: str, notifier: str, target: str) -> None:
    """Tell a target all that is due, this incident first; until nothing is, or the target asks for patience."""
    waiting, until = [incident_id], monotonic() + JOB_S
    while waiting:
        for one in waiting:
            if not await _send_conversation(product, one, notifier, target, until):
                return
        async with product.pool.connection() as connection:
            waiting = await store.due_of(connection, notifier, target, CONVERSATIONS_AT_ONCE)


async def _send_conversation(product: Product, incident_id: str, notifier: str, target: str, until: float) -> bool:
    """All that is due of it, one after the other; what fails for good stops nothing. False: not now."""
    while monotonic() < until:
        async with transaction(product.pool) as connection:
            message = await store.claim(connection, incident_id, notifier, target)
        if message is None:
            return True
        if not await _send(product, message):
            return False
    return False


async def _send(product: Product, message: Row) -> bool:
    """Whether the target may be told more now."""
    try:
        receipt = await _deliver(product, message)
    except Undeliverable as refusal:
        await _give_up(product, message, refusal.detail, refusal.reference)
    except TryAgain as error:
        await _later(product, message, error)
        return not error.of_target
    else:
        async with transaction(product.pool) as connection:
            await store.sent(connection, message, storable(dict(receipt.reference)), _detail(receipt.detail))
    return True


async def _deliver(product: Product, message: Row) -> Receipt:
    """Raises TryAgain, Undeliverable, and what the database raises when it is away."""
    name, begun = message["notifier"], monotonic()
    notifier = product.notifiers.get(name)
    if notifier is None:
        raise TryAgain(f"AUTOPILOT_NOTIFIERS does not list {name}, where this worker runs", of_target=False)
    telling = await _known_telling(product, message)
    if telling.event.kind == "not_delivered" and await _arrived(product, telling.event):
        return Receipt(detail="nothing to say: it was delivered meanwhile")
    if monotonic() - begun > READS_S:
        raise TryAgain("the database is too slow to tell it in time", of_target=False)
    try:
        async with asyncio.timeout(ATTEMPT_S):
            found = await notifier.look_up(telling) if telling.maybe_sent else None
            return found or await notifier.deliver(telling)
    except (TryAgain, Undeliverable):
        raise
    except TimeoutError:
        raise TryAgain(f"{name} did not answer within {ATTEMPT_S:g} s", ambiguous=True) from None
    except Exception as error:  # one notifier's defect must not cost the others their messages
        log.exception("the notifier %s failed", name)
        raise TryAgain(f"{name} failed: {type(error).__name__}", ambiguous=True, of_target=False) from error


async def _arrived(product: Product, event: Event) -> bool:
    """Whether what could not be delivered was, by now."""
    async with product.pool.connection() as connection:
        return await store.has_arrived(connection, str(event.data["message"]))


async def _known_telling(product: Product, message: Row) -> Telling:
    """Raises TryAgain, and what the database raises when it is away."""
    try:
        return await _telling(product, message)
    except DATABASE_AWAY:
        raise
    except Exception as error:  # a report that cannot be built must not be tried for ever, nor hold up the others
        log.exception("incident %s cannot be told of", message["incident_id"])
        raise TryAgain(f"its report cannot be built: {type(error).__name__}", of_target=False) from error


async def _telling(product: Product, message: Row) -> Telling:
    incident_id, at = message["incident_id"], (message["incident_id"], message["notifier"], message["target"])
    team = product.desk.catalogue.teams.get(message["team"])
    report = await load_report(product.pool, incident_id, team.language if team else None)
    async with product.pool.connection() as connection:
        event = await store.event(connection, message["event_id"])
        conversation = await store.conversation(connection, *at)
        earlier = await store.earlier(connection, *at)
        since = await store.first_written(connection, *at)
    return Telling(
        id=message["id"],
        incident_id=incident_id,
        event=Event(**event),
        report=report,
        target=message["target"],
        why=message["why"],
        conversation=conversation,
        earlier=earlier,
        maybe_sent=message["was_maybe_sent"],
        language=report.language,
        url=product.settings.incident_url(incident_id),
        team=message["team"],
        since=since,
    )


async def _later(product: Product, message: Row, error: TryAgain) -> None:
    if message["tried_for_s"] > TRIED_S:
        await _give_up(product, message, f"{error.detail}; it was tried for a day", error.reference)
        return
    asked_s = _bounded(error.after_s)
    wait_s = max(backoff_s(message["attempts"]), asked_s)
    maybe_sent = message["was_maybe_sent"] or error.ambiguous
    reference, detail = storable(dict(error.reference)), _detail(error.detail)
    log.warning("%s is told later of %s: %s", message["notifier"], message["incident_id"], error.detail)
    async with transaction(product.pool) as connection:
        if not await store.try_later(connection, message, wait_s, detail, reference, maybe_sent=maybe_sent):
            return
        if error.of_target:
            spared_s = max(min(wait_s, SPARED_S), asked_s)
            await store.spare(connection, message["notifier"], message["target"], spared_s)
        if message["tried_for_s"] + wait_s >= WORTH_TELLING_S:
            key = f"delayed:{message['notifier']}:{message['target']}"
            await _say(product, connection, message, key, "could not be told yet", detail)


def _bounded(asked_s: float | None) -> float:
    """What the other side asked to wait, if it is a time that can be meant."""
    if asked_s is None or asked_s <= 0:
        return 0.0
    return min(asked_s, LONGEST_PATIENCE_S) if isfinite(asked_s) else LONGEST_PATIENCE_S


def backoff_s(attempts: int) -> float:
    """2, 4, … at most 300 seconds, each between half and all of it: what failed together is not tried together."""
    return min(2.0 ** min(attempts, 10), LONGEST_BACKOFF_S) * _random.uniform(0.5, 1.0)


async def _give_up(product: Product, message: Row, why: str, reference: Reference) -> None:
    """It will not arrive: in the timeline, and in the channel of all, which is all that is left to tell."""
    async with transaction(product.pool) as connection:
        if await store.failed(connection, message, _detail(why), storable(dict(reference))):
            await _say(product, connection, message, f"not_delivered:{message['id']}", "could not be told", why)


async def _say(product: Product, connection: Connection, message: Row, key: str, said: str, why: str) -> None:
    told = f"{message['notifier']} {said} ({message['target']}): {_detail(why)}"
    log.error("incident %s: %s", message["incident_id"], told)
    data: Mapping[str, JsonValue] = {
        "message": str(message["id"]),
        "notifier": message["notifier"],
        "target": message["target"],
    }
    now = product.clock.now()
    await incidents.add_event(connection, message["incident_id"], key, now, "not_delivered", storable(told), data=data)


def _detail(text: str) -> str:
    kept: str = storable(text)[:MAX_DETAIL]
    return kept
