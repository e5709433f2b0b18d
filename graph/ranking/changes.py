"""Which changes came shortly before the trouble, and on what."""

from collections.abc import Iterable, Mapping
from math import exp

from collectors.base import Change
from graph.ranking.deviation import Deviation, excerpt
from graph.ranking.metrics import clock_time
from graph.ranking.topology import ONSET_SLACK_S
from graph.ranking.windows import Windows

HALF_AN_HOUR_S = (
    1800.0  # faults of a change mostly show within minutes; after half an hour a third of the suspicion is left
)
KIND: dict[str, float] = {"deploy": 1.0, "configuration": 1.0, "feature_flag": 1.0, "other": 0.5, "scaling": 0.3}
"""New code or settings break things; scaling is more often an answer to trouble than its cause."""
BOOST = 0.5
"""A change at the very moment its own component starts to deviate halves the doubt about that component, no more."""


def deviations(
    changes: Iterable[tuple[str, Change]],
    deviating: Mapping[str, float],
    onset_s: Mapping[str, float],
    windows: Windows,
) -> list[Deviation]:
    """Each change with a strength from its closeness in time and from how much its own component deviates.

    ``deviating`` is each component's own deviation, 0..1, ``onset_s`` when it became visible. A change of a component
    without one has strength 0: it is listed as context, and says nothing against the component.
    """
    return [_deviation(source, change, deviating, onset_s, windows) for source, change in changes]


def _deviation(
    source: str,
    change: Change,
    deviating: Mapping[str, float],
    onset_s: Mapping[str, float],
    windows: Windows,
) -> Deviation:
    visible = change.component in onset_s
    own = deviating.get(change.component, 0.0) if visible else 0.0
    onset = onset_s.get(change.component, windows.incident[0])
    before_s = onset - change.at.timestamp()
    when = clock_time(change.at.timestamp())
    relation = f"{change.component} shows nothing unusual" if not visible else _relation(before_s)
    version = f" ({change.version})" if change.version else ""
    return Deviation(
        component=change.component,
        kind="change",
        channel="change",
        signal=change.title,
        strength=BOOST * KIND[change.kind] * closeness(before_s) * own,
        at_s=change.at.timestamp(),
        summary=f"{change.component}: {change.kind} “{change.title[:120]}”{version} at {when}; {relation}.",
        excerpt=excerpt(" ".join(p for p in (change.title, change.version, change.author) if p)),
        link=change.link,
        source=source,
        worse="neutral",
    )


def closeness(before_s: float) -> float:
    """1 right before the onset, falling with age; 0 for what came after the onset."""
    if before_s < -ONSET_SLACK_S:
        return 0.0
    return exp(-max(before_s, 0.0) / HALF_AN_HOUR_S)


def _relation(before_s: float) -> str:
    minutes = abs(before_s) / 60.0
    if before_s >= 0:
        return f"{minutes:.1f} minutes before its first deviation"
    return f"{minutes:.1f} minutes after its first deviation"
