"""Which changes came shortly before the trouble, on what, and what they touch."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp

from collectors.base import Change, Telemetry
from graph.ranking.deviation import Deviation, clock_time, excerpt
from graph.ranking.terms import failing_terms, terms
from graph.ranking.topology import ONSET_SLACK_S, Topology
from graph.ranking.windows import Windows

HALF_AN_HOUR_S = 1800.0
"""Faults of a change mostly show within minutes; after half an hour a third of the suspicion is left."""
FOUR_HOURS_S = 14_400.0
"""The same for what fills up slowly: memory, disks, pools and queues take hours from a change to their limit."""
SLOW_CHANNELS = frozenset(["saturation", "backlog"])
KIND: dict[str, float] = {"deploy": 1.0, "configuration": 1.0, "feature_flag": 1.0, "other": 0.5, "scaling": 0.3}
"""New code or settings break things; scaling is more often an answer to trouble than its cause."""
BOOST = 0.5
"""A change at the very moment its own component starts to deviate halves the doubt about that component, no more."""
TOUCHED = 0.5
"""A change that names what fails halves the doubt that is left once more."""
NEIGHBOUR = 0.5
"""A change of something that shows nothing of itself is half as telling for who calls it, or is called: the neighbour
has its own reasons to fail as well."""
MAX_NEIGHBOURS = 3  # that one change is listed for, the most deviating first
SAME_CHANGE_S = 600.0  # a roll-out takes minutes, and its sources tell of its start or of its end
MAX_OPEN = 10  # changes of one component and kind that another may be the same as: more at once are no retelling
MAX_TOUCHED = 3  # words that are named

_ANSWER = re.compile(
    r"\broll(?:ed|ing|s)?\W?(?:\w+\W+){0,3}?back\b|\brevert|\bundo(?:es|ing)\b|\brestor", re.IGNORECASE
)
_HASH = re.compile(r"(?=[0-9a-f]*\d)[0-9a-f]{7,40}")
_REVISION = re.compile(r"[\w-]+:\d+")
MIN_HASH = 7  # letters of a commit's name, as git shortens it


@dataclass(frozen=True, slots=True)
class _Told:
    """One change, with all the sources that told of it."""

    change: Change
    source: str  # whose text it is
    sources: tuple[str, ...]

    @property
    def at_s(self) -> float:
        return self.change.at.timestamp()

    @property
    def is_answer(self) -> bool:
        """Whether it puts something back."""
        return bool(_ANSWER.search(self.change.title))


@dataclass(frozen=True, slots=True)
class _Trouble:
    """What is known of the trouble when changes are judged."""

    deviating: Mapping[str, float]
    onset_s: Mapping[str, float]
    slow: Mapping[str, tuple[float, float]]  # share of its deviation that fills up slowly, and since when
    words: Mapping[str, frozenset[str]]
    topology: Topology | None
    seen: Collection[str] | None
    windows: Windows


def seen(telemetry: Iterable[Telemetry]) -> frozenset[str]:
    """The components of which anything at all is measured, logged or traced."""
    found: set[str] = set()
    for one in telemetry:
        found.update(series.ref.component for series in one.series)
        found.update(line.component for line in one.logs)
        found.update(span.component for span in one.spans)
    return frozenset(found)


def deviations(
    changes: Iterable[tuple[str, Change]],
    deviating: Mapping[str, float],
    onset_s: Mapping[str, float],
    windows: Windows,
    *,
    topology: Topology | None = None,
    found: Sequence[Deviation] = (),
    seen: Collection[str] | None = None,
) -> list[Deviation]:
    """Each change with a strength from its closeness in time and topology, and from what it touches.

    ``deviating`` is each component's own deviation, 0..1, ``onset_s`` when it became visible. A change of a component
    without one has strength 0: it is listed as context, and says nothing against the component. Only if the component
    is not among those ``seen`` in any telemetry (a library, a flag service, a migration), its change counts for the
    deviating components next to it, and less. ``found`` are the signals whose words a change may name. One change
    told by several sources is one.
    """
    trouble = _Trouble(deviating, onset_s, _slow(found), failing_terms(found), topology, seen, windows)
    return [d for told in told_once(changes) for d in _judged(told, trouble)]


def _judged(told: _Told, trouble: _Trouble) -> Iterator[Deviation]:
    neighbours = _neighbours(told.change.component, trouble)
    if not neighbours:
        yield _deviation(told, told.change.component, trouble)
    for neighbour in neighbours:
        yield _deviation(told, neighbour, trouble)


def _neighbours(component: str, trouble: _Trouble) -> list[str]:
    """Deviating components beside one of which nothing can be seen, the most deviating first."""
    if trouble.topology is None or trouble.seen is None or component in trouble.seen or component in trouble.onset_s:
        return []
    beside = {*trouble.topology.callers.get(component, ()), *trouble.topology.callees.get(component, ())}
    visible = [c for c in beside if c in trouble.onset_s and trouble.deviating.get(c, 0.0) > 0]
    return sorted(visible, key=lambda c: (-trouble.deviating[c], c))[:MAX_NEIGHBOURS]


def _deviation(told: _Told, component: str, trouble: _Trouble) -> Deviation:
    """The change as it counts for a component: its own, or one beside it."""
    change = told.change
    own = trouble.deviating.get(component, 0.0) if component in trouble.onset_s else 0.0
    beside = NEIGHBOUR if component != change.component else 1.0
    near, when = _nearness(told, component, trouble)
    touched = _touched(told.change, component, trouble)
    boost = 1.0 - (1.0 - BOOST) * (1.0 - TOUCHED) if touched else BOOST
    return Deviation(
        component=component,
        kind="change",
        channel="change",
        signal=change.title,
        strength=min(boost * KIND[change.kind] * near * own * beside, 1.0),
        at_s=told.at_s,
        summary=_summary(told, component, when, touched),
        excerpt=excerpt(" ".join(p for p in (change.title, change.version, change.author) if p)),
        link=change.link,
        source=told.source,
        worse="neutral",
    )


# --- closeness ------------------------------------------------------------------------------------------------


def closeness(before_s: float, fades_s: float = HALF_AN_HOUR_S) -> float:
    """1 right before the onset, a third after ``fades_s``; 0 for what came after the onset.

    What seems to come after it by less than the clocks' slack stands behind all that came before by as much.
    """
    if before_s < -ONSET_SLACK_S:
        return 0.0
    return exp(-(before_s if before_s >= 0 else ONSET_SLACK_S - before_s) / fades_s)


def _nearness(told: _Told, component: str, trouble: _Trouble) -> tuple[float, str]:
    """How close in time the change came before the component's onset, and that in words."""
    if component not in trouble.onset_s:
        onset = trouble.windows.incident[0]
        return closeness(onset - told.at_s), f"{component} shows nothing unusual"
    before_s = trouble.onset_s[component] - told.at_s
    if before_s < 0 and (told.is_answer or told.change.kind == "scaling"):
        return 0.0, f"{_span(before_s)}: an answer to the trouble, no cause of it"
    share, since = trouble.slow.get(component, (0.0, 0.0))
    quick, slow = closeness(before_s), share * closeness(since - told.at_s, FOUR_HOURS_S)
    if slow > quick:
        return slow, f"{_span(since - told.at_s)}, which grew slowly"
    return quick, _span(before_s)


def _span(before_s: float) -> str:
    size = abs(before_s)
    told = f"{size / 3600.0:.1f} hours" if size >= 7200.0 else f"{size / 60.0:.1f} minutes"
    return f"{told} {'before' if before_s >= 0 else 'after'} its first deviation"


def _slow(found: Iterable[Deviation]) -> dict[str, tuple[float, float]]:
    """By component which share of its strongest deviation its strongest slow one has, and since when that shows."""
    strongest: defaultdict[str, float] = defaultdict(float)
    slow: dict[str, tuple[float, float]] = {}
    for d in found:
        if d.kind in ("change", "knowledge"):
            continue
        strongest[d.component] = max(strongest[d.component], d.strength)
        if d.channel in SLOW_CHANNELS:
            slow[d.component] = max(slow.get(d.component, (0.0, 0.0)), (d.strength, -d.at_s))
    return {c: (strength / strongest[c], -at_s) for c, (strength, at_s) in slow.items() if strongest[c] > 0}


# --- what it touches ------------------------------------------------------------------------------------------


def _touched(change: Change, component: str, trouble: _Trouble) -> tuple[str, ...]:
    """Words of the change that the failing signals say as well, longest and so most telling first."""
    own = terms(change.component) | terms(component) | terms(change.author)
    shared = (terms(change.title) & trouble.words.get(component, frozenset())) - own
    return tuple(sorted(shared, key=lambda word: (-len(word), word))[:MAX_TOUCHED])


def _summary(told: _Told, component: str, when: str, touched: Sequence[str]) -> str:
    change = told.change
    version = f" ({change.version[:60]})" if change.version else ""
    sources = f", told by {' and '.join(told.sources)}" if len(told.sources) > 1 else ""
    about = "" if component == change.component else f"; nothing is measured there, {component} beside it deviates"
    names = f"; what fails names it too: {', '.join(touched)}" if touched else ""
    at = clock_time(told.at_s)
    return f"{change.component}: {change.kind} “{change.title[:120]}”{version} at {at}{sources}{about}; {when}{names}."


# --- one change, several sources ------------------------------------------------------------------------------


def told_once(changes: Iterable[tuple[str, Change]]) -> list[_Told]:
    """Changes that several sources tell of, as one each: the fuller text, the earlier time.

    The same component and kind within ten minutes, and versions that do not contradict each other.
    """
    open_: defaultdict[tuple[str, str, bool], list[list[tuple[str, Change]]]] = defaultdict(list)
    groups: list[list[tuple[str, Change]]] = []
    for source, change in sorted(changes, key=_place):
        alike = open_[change.component, change.kind, bool(_ANSWER.search(change.title))]
        group = next((g for g in reversed(alike[-MAX_OPEN:]) if _same(g, source, change)), None)
        if group is None:
            group = []
            alike.append(group)
            groups.append(group)
        group.append((source, change))
    return [_merged(group) for group in groups]


def _place(told: tuple[str, Change]) -> tuple[str, ...]:
    source, c = told
    return f"{c.at.timestamp():020.6f}", c.component, c.kind, c.title, c.version, source, c.author, c.link or ""


def _same(group: Sequence[tuple[str, Change]], source: str, change: Change) -> bool:
    if (change.at - group[0][1].at).total_seconds() > SAME_CHANGE_S:
        return False
    return all(_one_and_the_same(other, told, source, change) for other, told in group[:MAX_OPEN])


def _one_and_the_same(other: str, told: Change, source: str, change: Change) -> bool:
    """Whether two tellings can be of one change.

    One source tells a deployment twice only with the same version, or with one that is counted otherwise: a recording
    holds what several sources told. Two settings or flags of one moment are two changes, unless two sources tell of
    them with a word in common.
    """
    known = bool(told.version and change.version) and _comparable(told.version, change.version)
    if known and not _agree(told.version, change.version):
        return False
    if other == source:
        again = (told.title, told.at, told.version) == (change.title, change.at, change.version)
        return again or (bool(told.version and change.version) and change.kind == "deploy")
    return change.kind == "deploy" or bool(terms(told.title) & terms(change.title) - terms(change.component))


def _comparable(one: str, other: str) -> bool:
    """Whether both are counted the same way: a commit, a task definition's revision and a release never agree."""
    return _scheme(one) == _scheme(other) or _agree(one, other)


def _scheme(version: str) -> str:
    plain = version.lower()
    if _HASH.fullmatch(plain):
        return "commit"
    return "revision" if _REVISION.fullmatch(plain) else "release"


def _agree(one: str, other: str) -> bool:
    """Equal, or one contains the other as a whole: ``2.4.0`` in ``shop/pay:v2.4.0``; a commit's name by its head."""
    short, long = sorted((one.lower().removeprefix("v"), other.lower().removeprefix("v")), key=lambda v: (len(v), v))
    if _HASH.fullmatch(short) and len(short) >= MIN_HASH and _HASH.fullmatch(long):
        return long.startswith(short)
    return short == long or _holds(long, short)


def _holds(long: str, short: str) -> bool:
    """Whether a version stands in a longer text as a whole: ``1.4`` in ``pay:v1.4``, not in ``1.41`` or ``1.4.2``."""
    before, found, after = long.rpartition(short)
    starts = before.removesuffix("v")[-1:]
    ends = after[1:2] if after.startswith(".") else after[:1]
    return bool(short and found) and not starts.isalnum() and starts != "." and not ends.isalnum()


def _merged(group: Sequence[tuple[str, Change]]) -> _Told:
    source, fullest = max(group, key=lambda told: (len(told[1].title), *_place(told)))
    changes = [change for _, change in group]
    authors = sorted({c.author for c in changes} - {""})
    links = sorted({c.link for c in changes if c.link})
    return _Told(
        change=fullest.model_copy(
            update={
                "at": changes[0].at,
                "version": _versions({c.version for c in changes} - {""}),
                "author": fullest.author or next(iter(authors), ""),
                "link": fullest.link or next(iter(links), None),
            }
        ),
        source=source,
        sources=tuple(sorted({source for source, _ in group})),
    )


def _versions(told: Collection[str]) -> str:
    """Each version once: a commit, a release and a task definition's revision may all name the same deployment."""
    kept: list[str] = []
    for version in sorted(told, key=lambda v: (-len(v), v)):
        if not any(_agree(version, other) for other in kept):
            kept.append(version)
    return ", ".join(kept)
