"""The one entry point: ``rank``."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain, islice

from collectors.base import Document, Scope, Span, Telemetry
from graph.ranking import changes, findings, impact, logs, metrics, statuses, traces
from graph.ranking.deviation import Deviation
from graph.ranking.fuse import Ranked, order, rank_components, residuals
from graph.ranking.topology import Topology, causal_path
from graph.ranking.windows import Windows
from graph.state import Alert, Evidence, Finding, LookedAt, Suspect

MAX_SUSPECTS = 10
MAX_PASSAGE = 2_000  # characters of a runbook's section
MAX_DOCUMENTS = 6  # sources give theirs best first
MAX_CITED = 8  # findings named with a suspect; the rest of them are in the list all the same
CLEAR = 0.2
"""From this strength on a deviation counts as visible: it dates a component's onset and its part in a causal path."""


def rank(
    telemetry: Sequence[Telemetry],
    scope: Scope,
    alert: Alert,
    digests: Mapping[str, str] | None = None,
) -> Evidence:
    """Findings, suspects in a total order, checked paths and impact, from what the collectors saw.

    ``digests`` are the sha256 of the raw snapshots by source. The same telemetry gives the same evidence, in whatever
    order it comes. No suspect at all means: nothing departs from normal far enough to accuse anybody.
    """
    digests = digests or {}
    windows = Windows.of(scope)
    spans: list[Span] = [s for t in telemetry for s in t.spans]
    topology = Topology.of(chain(scope.edges, *(t.edges for t in telemetry)), spans)
    found = _deviations(telemetry, spans, topology, windows)
    alerted = alert.service or scope.service
    ranked = rank_components(found, topology, alerted)[:MAX_SUSPECTS]
    numbered = findings.number(findings.select(found, ranked, alerted), digests)
    ids = {f.ref: f.id for f in reversed(numbered.values()) if f.ref is not None}
    return Evidence(
        digest=sha256("\n".join(sorted(digests.values())).encode()).hexdigest(),
        findings=tuple(numbered.values()),
        suspects=_suspects(ranked, numbered, found, topology, alerted),
        impact=impact.figures((s for t in telemetry for s in t.series), alerted, windows, ids),
        gaps=tuple(gap for t in telemetry for gap in t.gaps),
        documents=tuple(islice((_cut(d) for t in telemetry for d in t.documents), MAX_DOCUMENTS)),
        looked_at=LookedAt(incident=scope.incident, baseline=scope.baseline, seasonal=scope.seasonal),
    )


def _cut(document: Document) -> Document:
    return document.model_copy(update={"text": document.text[:MAX_PASSAGE]})


def _deviations(
    telemetry: Sequence[Telemetry], spans: Sequence[Span], topology: Topology, windows: Windows
) -> list[Deviation]:
    found = [
        *metrics.deviations(((t.source, s) for t in telemetry for s in t.series), windows),
        *logs.deviations(((t.source, line) for t in telemetry for line in t.logs), spans, windows),
        *traces.deviations(((t.source, s) for t in telemetry for s in t.spans), windows),
        *statuses.deviations((t.source, s) for t in telemetry for s in t.statuses),
    ]
    own = {c: max(channels.values()) for c, channels in residuals(found, topology).items()}
    changed = ((t.source, c) for t in telemetry for c in t.changes)
    return sorted({*found, *changes.deviations(changed, own, _onsets(found), windows)}, key=order)


def _onsets(deviations: Iterable[Deviation]) -> dict[str, float]:
    """When each visibly deviating component began to."""
    onsets: dict[str, float] = {}
    for d in deviations:
        if d.strength >= CLEAR and d.kind in ("metric", "log", "trace"):
            onsets[d.component] = min(onsets.get(d.component, d.at_s), d.at_s)
    return onsets


def _suspects(
    ranked: Sequence[Ranked],
    numbered: Mapping[Deviation, Finding],
    found: Sequence[Deviation],
    topology: Topology,
    alerted: str,
) -> tuple[Suspect, ...]:
    strength: dict[str, float] = {}
    for d in found:
        if d.kind != "change" and d.strength >= CLEAR:
            strength[d.component] = max(strength.get(d.component, 0.0), d.strength)
    onsets = _onsets(found)
    suspects = []
    for r in ranked:
        cited = [f for d, f in numbered.items() if d.component == r.component and d.strength > 0][:MAX_CITED]
        suspects.append(
            Suspect(
                component=r.component,
                score=round(r.score, 4),
                findings=tuple(f.id for f in cited),
                path=causal_path(topology, r.component, alerted, strength, onsets),
                why=" ".join(f.summary for f in cited[:3]),
            )
        )
    return tuple(suspects)
