"""PetShop's own normal rows, with faults injected where the published issues have none.

All issues of the part at hand have one root cause. Here any component that others wait for may break: its latency or
availability changes in three or four rows of the recorded history, and so does what its callers see, by the share of
their requests that reach it. Noise, traffic, call graph, missing cells and the callers' own views stay as recorded.
"""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app import petshop
from app.evaluation import Case
from benchmarks.ranking_cases import Judged, Labelled, judged
from benchmarks.results import Table
from collectors.base import Series, Window, utc

EACH = 4  # faults of a component, of each kind
ROWS = 5  # one before the incident, four of it
EARLIEST = 50  # rows of history come first
FELT = 0.01  # share of a caller's requests: what fewer of them bring nobody sees
ALARMING = {"latency": 0.5, "success": 3.0}  # half as slow again; three percent of failures
Points = dict[float, float]
Key = tuple[str, str, str]  # component, what it measures, statistic


@dataclass(frozen=True)
class _Recorded:
    """A scenario's history: a case that lends its graph and alert, and by series its points."""

    case: Case
    series: Mapping[Key, tuple[Series, Points]]
    times: Sequence[float]

    @classmethod
    def read(cls, folder: Path) -> "_Recorded":
        """From the scenario's first issue, less its own rows."""
        issues = sorted((folder / "train").glob("issue_*"))
        case = petshop.Traffic.read(folder).case(issues[0])
        history = case.scope.baseline[-1]
        start, end = history.start.timestamp(), history.end.timestamp()
        series: dict[Key, tuple[Series, Points]] = {}
        for one in case.telemetry[0].series:
            points = {t: v for t, v in zip(one.epoch_s, one.values, strict=True) if start <= t < end}
            series[one.ref.component, one.ref.measures, one.ref.statistic] = (one, points)
        return cls(case, series, sorted({t for _, points in series.values() for t in points}))

    def points(self, component: str, measures: str, statistic: str = "avg") -> Points:
        """Empty if there are none."""
        return self.series.get((component, measures, statistic), (None, Points()))[1]

    def calls(self, component: str, at: float) -> float:
        """Requests in the row."""
        return self.points(component, "requests", "sum").get(at, 0.0)

    def callers(self, component: str) -> list[str]:
        """Those with an edge to it."""
        return sorted(e.caller for e in self.case.scope.edges if e.callee == component)


def table(folder: Path) -> Table:
    """Who is blamed, by kind of fault."""
    cases = [(kind, judged(one)) for kind, one in labelled(folder)]
    rows = [(kind, *_row([case for of, case in cases if of == kind])) for kind in ALARMING]
    return Table(
        "PetShop's normal rows with faults injected anywhere in the graph",
        ("what breaks", "top-1", "top-3", "n"),
        [("all", *_row([case for _, case in cases])), *rows],
        "Recorded rows of normal operation; the fault and what its callers see of it are made up, by the share of their"
        " requests. Only faults that the alerted service would be alarmed by.",
    )


def labelled(folder: Path) -> Iterator[tuple[str, Labelled]]:
    """Every case, with the kind of its fault; none where the data is not here."""
    for scenario in petshop.SCENARIOS:
        if (folder / scenario / "train").is_dir():
            recorded = _Recorded.read(folder / scenario)
            components = sorted({end for e in recorded.case.scope.edges for end in (e.caller, e.callee)})
            for component in components:
                for kind in ALARMING:
                    rngs = (random.Random(f"{scenario} {component} {kind} {n}") for n in range(EACH))
                    cases = (_case(recorded, component, kind, rng) for rng in rngs)
                    yield from ((kind, Labelled(case, ((component,),))) for case in cases if case)


def _case(recorded: _Recorded, component: str, kind: str, rng: random.Random) -> Case | None:
    """None if the alerted service would not be alarmed, or nobody called the component then."""
    alerted = recorded.case.alert.service
    first = rng.randrange(EARLIEST, len(recorded.times) - ROWS)
    rows = recorded.times[first : first + ROWS]
    size = rng.choice((0.5, 1.0, 2.0, 4.0) if kind == "latency" else (10.0, 30.0, 60.0, 100.0))
    felt = {at: _felt(recorded, component, size, at) for at in rows[rng.choice((1, 1, 2)) :]}
    usual = recorded.points(alerted, kind).get(rows[0])
    if component == alerted or usual is None or not all(recorded.calls(component, at) for at in rows[1:]):
        return None
    least = ALARMING[kind] * (usual if kind == "latency" else 1.0)
    if min(by.get(alerted, 0.0) for by in felt.values()) < least:
        return None
    return _told(recorded, kind, felt, rows)


def _felt(recorded: _Recorded, component: str, size: float, at: float) -> dict[str, float]:
    """By component what it feels of the fault, passed on from callee to caller."""
    felt, queue = {component: size}, [component]
    while queue:
        here = queue.pop(0)
        callers = recorded.callers(here)
        for caller in callers:
            calls = recorded.calls(caller, at)
            share = min(1.0, recorded.calls(here, at) / calls) / len(callers) if calls else 0.0
            if caller not in felt and share > FELT:
                felt[caller] = felt[here] * share
                queue.append(caller)
    return felt


def _told(recorded: _Recorded, kind: str, felt: Mapping[float, Mapping[str, float]], rows: Sequence[float]) -> Case:
    series = []
    for (component, measures, _), (one, points) in sorted(recorded.series.items()):
        changed = dict(points)
        for at, by in felt.items() if measures == kind else ():
            if at in changed and component in by:
                changed[at] = _worse(kind, changed[at], by[component])
        if changed:
            times = sorted(changed)
            series.append(replace(one, epoch_s=times, values=[changed[at] for at in times]))
    before, start, end = rows[0], rows[1], rows[-1] + petshop.STEP_S
    earlier, later = Window(start=utc(recorded.times[0]), end=utc(before)), recorded.case.scope.baseline[-1].end
    baseline = (Window(start=utc(before), end=utc(start)), earlier, Window(start=utc(end), end=max(later, utc(end))))
    told = {"incident": Window(start=utc(start), end=utc(end)), "baseline": baseline, "occurred_at": utc(rows[2])}
    telemetry = recorded.case.telemetry[0].model_copy(update={"series": tuple(series)})
    return Case((telemetry,), recorded.case.scope.model_copy(update=told), recorded.case.alert)


def _worse(kind: str, value: float, by: float) -> float:
    return value + by if kind == "latency" else value * (1.0 - min(by / 100.0, 1.0))


def _row(cases: Sequence[Judged]) -> tuple[str, str, str]:
    hits = Counter(first=sum(one.first for one in cases), third=sum(one.third for one in cases))
    of = max(len(cases), 1)
    return f"{hits['first'] / of:.1%}", f"{hits['third'] / of:.1%}", str(len(cases))
