"""Numbers the deviations: the bounded list of evidence that later steps may cite."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from collectors.base import SeriesRef
from graph.ranking.deviation import Deviation
from graph.ranking.fuse import Ranked, order
from graph.ranking.queries import Asked
from graph.ranking.semantics import IMPORTANCE, meaning_of
from graph.ranking.windows import moment
from graph.state import Finding

MAX_FINDINGS = 40  # what a person can scan, and what fits a model's prompt
MAX_PER_COMPONENT = 20  # half the list, so that one loud component does not push the others off
MAX_CHANGES = 8  # changes are listed even if harmless: a person will ask for them
MIN_STRENGTH = 0.05  # duller ones fill pages and convince nobody
ALERTED = 0.5  # what happens at the alerted service interests a person even if it is no suspect
REPEATED = 0.85  # what a second signal of the same kind and component is worth, after the first
UNSUSPECTED = 0.2  # what healthy-looking components show comes last, but comes
MAX_SIGNAL, MAX_SUMMARY = 200, 400  # characters
MAX_QUERY = 2_000  # characters
MAX_READABLE = 40  # metrics that an analyst may ask for: as many as there are findings
METRICS_IN_TURN = 4  # of one component before the next one has its turn: one with hundreds keeps nobody off the list
MAX_EFFECT = 1e9  # beyond any real one; JSON has no infinity


def select(deviations: Sequence[Deviation], ranked: Sequence[Ranked], alerted: str) -> list[Deviation]:
    """The deviations worth listing, most informative first: strong ones, of components under suspicion."""
    interest = {r.component: r.score for r in ranked}
    interest[alerted] = max(interest.get(alerted, 0.0), ALERTED)
    ordered = _most_informative(deviations, interest)
    # a suspect without a finding would be a bare claim, and impact is computed from what is listed
    needed = {r.evidence[0] for r in ranked} | {d for d in deviations if d.channel == "loss"}
    needed.update(sorted((d for d in deviations if d.kind == "change"), key=_latest)[:MAX_CHANGES])
    kept: list[Deviation] = []
    per_component: Counter[str] = Counter()
    seen: set[str] = set()
    for d in sorted(ordered, key=lambda d: d not in needed):
        wanted = d.strength >= MIN_STRENGTH or d in needed
        fits = len(kept) < MAX_FINDINGS and per_component[d.component] < MAX_PER_COMPONENT
        # an edge's trouble is charged to both its ends: it is listed once
        if wanted and fits and (d.summary not in seen or d in needed):
            kept.append(d)
            seen.add(d.summary)
            per_component[d.component] += 1
    place = {d: i for i, d in enumerate(ordered)}
    return sorted(kept, key=lambda d: place[d])


def _latest(change: Deviation) -> tuple[float, float, str]:
    """The changes that matter first, then the latest."""
    return -change.strength, -change.at_s, change.summary


def _most_informative(deviations: Sequence[Deviation], interest: Mapping[str, float]) -> list[Deviation]:
    """By strength and interest in the component; each further one of the same kind of signal tells less."""
    repeats: Counter[tuple[str, str]] = Counter()
    worth: dict[Deviation, float] = {}
    for d in sorted(deviations, key=order):
        alike = (d.component, d.channel)
        worth[d] = d.strength * (UNSUSPECTED + interest.get(d.component, 0.0)) * REPEATED ** repeats[alike]
        repeats[alike] += 1
    return sorted(deviations, key=lambda d: (-worth[d], order(d)))


def readable(refs: Iterable[SeriesRef], components: Sequence[str]) -> tuple[SeriesRef, ...]:
    """Metrics of these components, some of each in the order given, those that say most about a fault first."""
    mine: dict[str, set[SeriesRef]] = {component: set() for component in components}
    for ref in refs:
        if ref.component in mine:
            mine[ref.component].add(ref)
    turns = [
        (nth // METRICS_IN_TURN, place, nth, ref)
        for place, component in enumerate(components)
        for nth, ref in enumerate(sorted(mine[component], key=_telling))
    ]
    return tuple(ref for *_, ref in sorted(turns, key=lambda turn: turn[:3])[:MAX_READABLE])


def _telling(ref: SeriesRef) -> tuple[float, str, str, str, str, str, str]:
    role = meaning_of(ref).role
    return -IMPORTANCE[role], ref.metric, ref.statistic, ref.source, ref.query, ref.unit, ref.measures


def number(kept: Sequence[Deviation], digests: Mapping[str, str], asked: Asked) -> dict[Deviation, Finding]:
    """E1 … En in the given order, each with the query that it came from."""
    return {d: _finding(f"E{i}", d, digests, asked) for i, d in enumerate(kept, start=1)}


def _finding(eid: str, d: Deviation, digests: Mapping[str, str], asked: Asked) -> Finding:
    query = asked.exactly(d.source, d.ref.query) if d.ref else asked.for_(d.source, d.kind, d.component)
    return Finding(
        id=eid,
        kind=d.kind,
        component=d.component,
        signal=d.signal[:MAX_SIGNAL],
        at=moment(d.at_s),
        observed=d.observed,
        baseline=d.baseline,
        unit=d.unit,
        effect=min(max(round(d.effect, 3), 0.0), MAX_EFFECT),
        summary=d.summary[:MAX_SUMMARY],
        excerpt=d.excerpt,
        link=d.link or (query.link if query else None),
        source=d.source,
        sha256=digests.get(d.source, ""),
        ref=d.ref,
        worse=d.worse,
        points=d.points,
        band=d.band,
        query=(d.query or (query.text if query else ""))[:MAX_QUERY],
        instance=d.instance,
    )
