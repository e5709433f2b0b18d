"""Whether the ranking knows how far it can be believed."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from benchmarks.ranking_cases import Judged
from benchmarks.results import Table

BINS = 10
THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MEASURES: Mapping[str, Callable[[Judged], float]] = {
    "certainty": lambda one: one.certainty,
    "score of the first suspect": lambda one: one.score,
}


def tables(sets: Mapping[str, Sequence[Judged]]) -> list[Table]:
    """Reliability and Brier score of each measure on each set, and what abstention would cost on the first."""
    reliability = [_reliability(name, judge, sets) for name, judge in MEASURES.items()]
    return [*reliability, _brier(sets), _risk_coverage(next(iter(sets.values())))]


def _reliability(name: str, judge: Callable[[Judged], float], sets: Mapping[str, Sequence[Judged]]) -> Table:
    rows = []
    for k in range(BINS):
        cells = [
            _bin([one for one in cases if min(BINS - 1, int(judge(one) * BINS)) == k], judge) for cases in sets.values()
        ]
        rows.append((f"{k / BINS:.1f} to {(k + 1) / BINS:.1f}", *cells))
    return Table(
        f"Reliability of the {name}",
        ("said", *sets),
        rows,
        "Mean of what was said, the share whose first suspect was right, and how many cases. Where nothing happened,"
        " no suspect is right.",
    )


def _bin(cases: Sequence[Judged], judge: Callable[[Judged], float]) -> str:
    if not cases:
        return "-"
    return f"{mean(map(judge, cases)):.2f}: {mean(one.first for one in cases):.2f} ({len(cases)})"


def brier(pairs: Sequence[tuple[float, bool]]) -> float:
    """Mean squared difference of what was said and what was true; 0 is best, always saying a half scores 0.25."""
    return mean((said - true) ** 2 for said, true in pairs)


def _brier(sets: Mapping[str, Sequence[Judged]]) -> Table:
    rows = []
    for name, judge in MEASURES.items():
        rows.append((name, *(f"{brier([(judge(one), one.first) for one in cases]):.3f}" for cases in sets.values())))
    rates = [mean(one.first for one in cases) for cases in sets.values()]
    rows.append(("always the share that is right", *(f"{rate * (1 - rate):.3f}" for rate in rates)))
    return Table("Brier score of «the first suspect is right»", ("said by", *sets), rows)


def _risk_coverage(cases: Sequence[Judged]) -> Table:
    rows = []
    for threshold in THRESHOLDS:
        answered = [one for one in cases if one.state == "incident" and one.certainty >= threshold]
        wrong = sum(not one.first for one in answered)
        risk = f"{wrong / len(answered):.1%} ({wrong}/{len(answered)})" if answered else "-"
        rows.append((f"{threshold:.2f}", f"{len(answered) / len(cases):.1%}", risk))
    return Table(
        "Risk and coverage: naming a cause only from a certainty on, on the synthetic set",
        ("certainty from", "answered", "of these wrong"),
        rows,
        "Wrong: the first suspect is no cause, or nothing had happened. The threshold below which the ranking abstains"
        " is to be read here.",
    )
