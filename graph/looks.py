"""What is known of an incident's sources after a second look, further back than the first."""

from collections.abc import Sequence

from collectors.base import Gap, GapReason, Telemetry


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
