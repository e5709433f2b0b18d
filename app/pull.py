"""What the webhooks missed: every few minutes the sources are asked what is alerting."""

import asyncio
import logging
from collections.abc import Sequence

from pydantic import TypeAdapter

from app.alerts import Delivery, accept
from app.intake.base import Parsed, digest_key
from app.store import alerts
from app.wiring import Product
from graph.state import Alert

log = logging.getLogger(__name__)

ONE_SOURCE_WITHIN_S = 60.0
_ALERTS: TypeAdapter[tuple[Alert, ...]] = TypeAdapter(tuple[Alert, ...])


async def pull_for_ever(product: Product) -> None:
    """At once, and then every ``AUTOPILOT_PULL_EVERY_S``; every worker may do it, what one opens the next one knows."""
    while product.settings.pull_every_s:
        await asyncio.gather(*(pull(product, name) for name in product.senders))
        await asyncio.sleep(product.settings.pull_every_s)


async def pull(product: Product, name: str) -> int:
    """Ask one source; how many alerts nobody had told us of. What goes wrong is logged."""
    try:
        async with asyncio.timeout(ONE_SOURCE_WITHIN_S):
            found = await product.senders[name].missed(product.directory)
        return await _open_missed(product, name, found) if found else 0
    except Exception as error:  # noqa: BLE001  one source's fault must not cost the others, nor end the loop
        log.warning("%s could not be asked for missed alerts: %s: %s", name, type(error).__name__, error)
        return 0


async def _open_missed(product: Product, name: str, found: Parsed) -> int:
    if found.note:
        log.info("%s: %s", name, found.note)
    async with product.pool.connection() as connection:
        missed = await alerts.unheard(connection, found.alerts)
    if missed:
        log.warning("%s: %d alerts came by no webhook: %s", name, len(missed), ", ".join(a.title for a in missed[:5]))
        await accept(product.desk, [_delivery(name, missed)])
    return len(missed)


def _delivery(name: str, missed: Sequence[Alert]) -> Delivery:
    told = sorted(f"{a.cycle_key} {a.changed_at or a.occurred_at}" for a in missed)
    parsed = Parsed(tuple(missed), delivery_key=f"pull:{digest_key(*told)}", note="read at its source")
    return Delivery(name, {}, _ALERTS.dump_json(parsed.alerts), parsed, part="pull")
