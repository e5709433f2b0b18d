"""The one entry point: ``rank``."""

import gc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, islice

from collectors.base import Document, Edge, Gap, Scope, Series, SeriesRef, Span, Telemetry
from graph.ranking import changes, findings, impact, knowledge, llm, logs, metrics, statuses, traces
from graph.ranking.assessment import assess, causes_among, comparable
from graph.ranking.deviation import Deviation
from graph.ranking.encodable import encodable
from graph.ranking.fuse import Ranked, Symptom, order, passed_on, rank_components, residuals
from graph.ranking.queries import Asked
from graph.ranking.topology import Topology, causal_path
from graph.ranking.windows import Windows
from graph.state import Alert, Assessment, Evidence, Finding, LookedAt, Suspect

MAX_SUSPECTS = 10  # nobody reads on; the cause is hardly ever further down
MAX_PASSAGE = 2_000  # characters of a runbook's section
MAX_DOCUMENTS = 6  # sources give theirs best first
MAX_CITED = 8  # findings named with a suspect; the rest of them are in the list all the same
MAX_AFFECTED = 20
MAX_EDGES = 80  # of the picture: more cannot be read
CLEAR = 0.2
"""From this strength on a deviation counts as visible: it dates a component's onset and its part in a causal path."""
_CONTEXT = ("change", "knowledge", "topology")  # what is no trouble that was seen in the component itself


def rank(
    telemetry: Sequence[Telemetry],
    scope: Scope,
    alert: Alert,
    digests: Mapping[str, str] | None = None,
) -> Evidence:
    """Findings, suspects in a total order, checked paths and impact, from what the collectors saw.

    ``digests`` are the sha256 of the raw snapshots by source. The same telemetry gives the same evidence, in whatever
    order it comes. No suspect at all means: nothing departs from normal far enough to accuse anybody;
    ``Evidence.assessment`` says whether the first one is to be believed.
    """
    with _collector_paused():
        return _rank(telemetry, scope, alert, digests or {})


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No search for cycles meanwhile: there are none, and each would walk through a million rows of telemetry.

    That is a quarter of the time (``benchmarks/ranking_speed.py``). What other threads leave is found right after.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _rank(telemetry: Sequence[Telemetry], scope: Scope, alert: Alert, digests: Mapping[str, str]) -> Evidence:
    incident = _Incident.of(telemetry, scope, alert)
    found, ranked = incident.found, incident.ranked
    kept = findings.select(found, ranked, incident.alerted)
    numbered = findings.number(kept, digests, Asked.of(telemetry, scope.targets))
    ids = {f.ref: f.id for f in reversed(numbered.values()) if f.ref is not None}
    suspects = tuple(incident.suspect(r, numbered) for r in ranked)
    series = (s for t in telemetry for s in t.series)
    gaps = tuple(gap for t in telemetry for gap in t.gaps)
    evidence = Evidence(
        digest=sha256("\n".join(sorted(digests.values())).encode()).hexdigest(),
        findings=tuple(numbered.values()),
        suspects=suspects,
        impact=impact.figures(series, incident.alerted, incident.windows, ids, incident.topology),
        gaps=gaps,
        documents=tuple(islice((_cut(d) for t in telemetry for d in t.documents), MAX_DOCUMENTS)),
        looked_at=LookedAt(incident=scope.incident, baseline=scope.baseline, seasonal=scope.seasonal),
        assessment=incident.assessment(gaps, comparable=comparable(telemetry, incident.windows)),
        causes=causes_among(ranked, incident.topology),
        unlisted=len(found) - len(kept),
        edges=incident.edges(suspects),
        readable=findings.readable((s.ref for t in telemetry for s in t.series), incident.nearest),
    )
    return encodable(evidence)


def _cut(document: Document) -> Document:
    return document.model_copy(update={"text": document.text[:MAX_PASSAGE]})


@dataclass(frozen=True)
class _Incident:
    """What departs from normal, and who is suspected of it."""

    alerted: str
    windows: Windows
    topology: Topology
    found: Sequence[Deviation]
    symptom: Symptom
    ranked: Sequence[Ranked]
    onsets: Mapping[str, float]
    visible: Mapping[str, float]  # by component that deviates clearly, how much
    over: bool  # the alerted component's metrics are back where they were

    @classmethod
    def of(cls, telemetry: Sequence[Telemetry], scope: Scope, alert: Alert) -> "_Incident":
        windows = Windows.of(scope)
        spans: list[Span] = [s for t in telemetry for s in t.spans]
        topology = Topology.of(chain(scope.edges, *(t.edges for t in telemetry)), spans)
        alert = alert if alert.service else alert.model_copy(update={"service": scope.service})
        alerted = alert.service
        found = _deviations(telemetry, spans, topology, windows, alert)
        mine = [(t.source, s) for t in telemetry for s in t.series if s.ref.component == alerted]
        symptom = Symptom.of(alerted, [one for _, one in mine], windows)
        return cls(
            alerted=alerted,
            windows=windows,
            topology=topology,
            found=found,
            symptom=symptom,
            ranked=rank_components(found, topology, symptom)[:MAX_SUSPECTS],
            onsets=_onsets(found),
            visible=_visible(found),
            over=metrics.focused(mine, windows) != windows,
        )

    def assessment(self, gaps: Sequence[Gap], *, comparable: bool) -> Assessment:
        own = [d for d in self.found if d.component == self.alerted]
        return assess(own, self.ranked, gaps, comparable=comparable, over=self.over)

    def suspect(self, ranked: Ranked, numbered: Mapping[Deviation, Finding]) -> Suspect:
        component = ranked.component
        cited = [(d, f) for d, f in numbered.items() if d.component == component and d.strength > 0][:MAX_CITED]
        changed = [f.id for d, f in cited if d.kind == "change"]
        return Suspect(
            component=component,
            score=round(ranked.score, 4),
            findings=tuple(f.id for _, f in cited),
            path=causal_path(self.topology, component, self.alerted, self.visible, self.onsets),
            why=" ".join(f.summary for _, f in cited[:3]),
            kind=self.topology.kinds.get(component, ""),
            instances=_instances(d for d, _ in cited),
            change=changed[0] if changed else None,
            affected=self._affected(component),
            reasons=tuple(part.told() for part in ranked.parts),
        )

    def _affected(self, component: str) -> tuple[str, ...]:
        above = self.topology.above(component)
        hit = [name for name in above if name != component and name in self.visible]
        return tuple(sorted(hit, key=lambda name: (above[name], name))[:MAX_AFFECTED])

    @property
    def nearest(self) -> Sequence[str]:
        """Components that are worth a closer look: the suspects, the alerted one, and what these call or are called by.

        The most telling first.
        """
        near = dict.fromkeys((*(r.component for r in self.ranked), self.alerted))
        known = (self.topology.callees, self.topology.callers)
        return list(dict.fromkeys((*near, *(name for one in near for graph in known for name in graph.get(one, ())))))

    def edges(self, suspects: Sequence[Suspect]) -> tuple[Edge, ...]:
        """Who calls whom: the paths first, then among those concerned, then their neighbours."""
        hops = {(hop.effect, hop.cause) for s in suspects for hop in s.path if hop.structural}
        concerned = {self.alerted, *(s.component for s in suspects), *(a for s in suspects for a in s.affected)}

        def distance(pair: tuple[str, str]) -> tuple[int, tuple[str, str]]:
            return (0 if pair in hops else 3 - len(concerned.intersection(pair)), pair)

        pairs = ((caller, callee) for caller, callees in self.topology.callees.items() for callee in callees)
        near = sorted(p for p in map(distance, pairs) if p[0] < 3)[:MAX_EDGES]
        return tuple(
            Edge(
                caller=caller,
                callee=callee,
                source="topology",
                asynchronous=(caller, callee) in self.topology.asynchronous,
            )
            for _, (caller, callee) in near
        )


def _deviations(
    telemetry: Sequence[Telemetry], spans: Sequence[Span], topology: Topology, windows: Windows, alert: Alert
) -> list[Deviation]:
    series = _joined(telemetry)
    lines = list(chain.from_iterable(t.logs for t in telemetry))
    states = ((t.source, s) for t in telemetry for s in t.statuses)
    found = [
        *metrics.deviations(series, windows, alert.service),
        *logs.deviations(((t.source, line) for t in telemetry for line in t.logs), spans, windows),
        *traces.deviations(((t.source, s) for t in telemetry for s in t.spans), windows),
        *statuses.deviations(states, windows, rule=alert.rule, title=alert.title),
        *llm.deviations(series, windows, spans, lines),
    ]
    seen = changes.seen(telemetry)
    found += passed_on(found, topology, alert.service, seen)
    own = {c: max(channels.values()) for c, channels in residuals(found, topology).items()}
    changed = ((t.source, c) for t in telemetry for c in t.changes)
    found += changes.deviations(changed, own, _onsets(found), windows, topology=topology, found=found, seen=seen)
    found += knowledge.deviations(((t.source, d) for t in telemetry for d in t.documents), found)
    return sorted(set(found), key=order)


def _joined(telemetry: Iterable[Telemetry]) -> list[tuple[str, Series]]:
    """Each series once: what a source gives in several answers is one."""
    pieces: dict[tuple[str, SeriesRef], list[Series]] = {}
    for t in telemetry:
        for one in t.series:
            pieces.setdefault((t.source, one.ref), []).append(one)
    return [(source, found[0] if len(found) == 1 else _join(found)) for (source, _), found in pieces.items()]


def _join(pieces: Sequence[Series]) -> Series:
    points = sorted({p for one in pieces for p in zip(one.epoch_s, one.values, strict=False)})
    return Series(ref=pieces[0].ref, epoch_s=tuple(t for t, _ in points), values=tuple(v for _, v in points))


def _visible(deviations: Iterable[Deviation]) -> dict[str, float]:
    """How much each component deviates that does so clearly."""
    visible: dict[str, float] = {}
    for d in deviations:
        if d.kind not in _CONTEXT and d.strength >= CLEAR:
            visible[d.component] = max(visible.get(d.component, 0.0), d.strength)
    return visible


def _onsets(deviations: Iterable[Deviation]) -> dict[str, float]:
    """When each visibly deviating component began to."""
    onsets: dict[str, float] = {}
    for d in deviations:
        if d.strength >= CLEAR and d.kind in ("metric", "log", "trace"):
            onsets[d.component] = min(onsets.get(d.component, d.at_s), d.at_s)
    return onsets


def _instances(cited: Iterable[Deviation]) -> tuple[str, ...]:
    return tuple(sorted({d.instance for d in cited if d.instance}))
