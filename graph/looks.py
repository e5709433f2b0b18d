"""What one source answers, and what is known of all of them after a second look, further back than the first."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence

from collectors.base import USUAL_MEND, CollectorError, Gap, GapReason, Telemetry

RESERVE_S = 1.0  # what a source needs to hand over what it has read
log = logging.getLogger(__name__)


async def answered(source: str, asking: Awaitable[Telemetry], limit_s: float, *, late: str) -> Telemetry:
    """What the source answers within so many seconds; a failure, whatever it is, becomes a Gap.

    ``late``: what to do where the seconds were too few.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await asking
    except CollectorError as error:
        mend = error.mend or USUAL_MEND[error.reason]
        gap = Gap(source=source, reason=error.reason, detail=error.detail, mend=mend)
    except TimeoutError:
        detail = f"{source} did not answer within {limit_s:.3g} s"
        gap = Gap(source=source, reason=GapReason.TIMEOUT, detail=detail, mend=late)
    except Exception as error:
        log.exception("collector %s", source)
        detail = f"{type(error).__name__}: {error}"[:500]
        gap = Gap(source=source, reason=GapReason.FAILED, detail=detail, mend="report this defect, with the log")
    return Telemetry(source=source, gaps=(gap,))


def measured(looks: Sequence[Telemetry]) -> bool:
    """Whether there is anything that can be compared with what was normal; without it a look says nothing."""
    return any(t.series or t.logs or t.spans for t in looks)


def together(first: Sequence[Telemetry], second: Sequence[Telemetry]) -> list[Telemetry]:
    """One answer of each source, all for the same windows: the second look's if ``measured``, else the first's.

    The first look read nothing of what is the baseline of the second: of a source that failed the second time its
    metrics, logs and spans are left out, as all of them would look new, and a Gap says so. Gaps of both looks are kept.
    """
    joined = _later if measured(second) else _earlier
    return [joined(a, b) for a, b in zip(first, second, strict=True)]


def _earlier(first: Telemetry, second: Telemetry) -> Telemetry:
    return _with_gaps(first, (*first.gaps, *second.gaps))


def _later(first: Telemetry, second: Telemetry) -> Telemetry:
    if not second.rows:
        bare = first.model_copy(update={"series": (), "logs": (), "spans": ()})
        second = _with_gaps(bare, (*first.gaps, *second.gaps))
    if not measured([first]) or measured([second]):
        return second
    gap = Gap(
        source=first.source,
        reason=GapReason.TRUNCATED,
        detail="metrics, logs and spans were read the first time only, not further back, and are left out",
        mend="ask for a re-analysis; raise AUTOPILOT_COLLECT_S if it was the time",
    )
    return _with_gaps(second, (*second.gaps, gap))


def _with_gaps(telemetry: Telemetry, gaps: Sequence[Gap]) -> Telemetry:
    return telemetry.model_copy(update={"gaps": tuple(dict.fromkeys(gaps))}) if gaps else telemetry
