"""How far earlier runs bear out that an operation resolves a kind of failure. Pure.

Every run is a trial that resolved the incident or did not; what is known of the chance that it does is a Beta
distribution. Runs on the component at fault count in full. Those on other components are what is expected of this one
before it is known: they count for less, and all together for a few runs at most (a power prior that is bounded, so that
a hundred runs elsewhere do not outvote four here). What is long ago counts for less, for systems change.

Operations that were run together are known as a whole, under all of their names; of each of them by itself that tells
little, for nobody knows which of them did it: they share the run.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from graph.llms.base import Counted, TrackRecord

HALF_LIFE = timedelta(days=180)
"""After which a run counts for half: half a year of releases, at a guess."""
ELSEWHERE = 0.5
"""What a run on another component of the same category counts for, beside one on the component itself."""
ELSEWHERE_AT_MOST = 4.0
"""Runs that all of them together count for at most."""
OPINION = 0.5
"""What is told of an option that was not run here counts for: a person's judgement, or another's trial, not ours."""
LEVEL = 0.9
JEFFREYS = 0.5
"""Added to successes and failures: the prior whose intervals cover what they say (Brown, Cai, DasGupta 2001)."""
_STEPS, _PRECISION = 300, 1e-12


@dataclass(frozen=True)
class Outcome:
    """What came of one option in one incident of a category."""

    resolved: Mapping[str, float]
    """0..1 by operation: as measured, or as people say who know better."""
    here: bool  # ours, on the component that is asked about, in its environment
    worse: bool
    at: datetime
    done: bool = True  # False: not run here: a person judged the option, or it was imported


@dataclass(frozen=True)
class _Trial:
    """What an outcome says of one operation, or of several together."""

    outcome: Outcome
    resolved: float
    share: float  # of the run
    whole: bool  # all that was run


def together(operations: Iterable[str]) -> str:
    """What operations that are run together are known as; one by itself as what it is called."""
    return " + ".join(sorted(set(operations)))


def track_records(outcomes: Iterable[Outcome], now: datetime) -> dict[str, TrackRecord]:
    """By operation, and by operations that were run together, as of ``now``."""
    trials: dict[str, list[_Trial]] = defaultdict(list)
    for outcome in outcomes:
        for name, trial in _trials(outcome):
            trials[name].append(trial)
    return {name: _record(of, now) for name, of in trials.items()}


def _trials(outcome: Outcome) -> Iterator[tuple[str, _Trial]]:
    each = outcome.resolved
    yield together(each), _Trial(outcome, max(each.values()), 1.0, whole=True)
    if len(each) > 1:
        for operation, resolved in each.items():
            yield operation, _Trial(outcome, resolved, 1.0 / len(each), whole=False)


def _record(trials: Iterable[_Trial], now: datetime) -> TrackRecord:
    there: tuple[list[_Trial], list[_Trial]] = [], []
    for trial in trials:
        there[not trial.outcome.here].append(trial)
    here, elsewhere = (_weighed(side, now) for side in there)
    share = min(ELSEWHERE, ELSEWHERE_AT_MOST / elsewhere.runs) if elsewhere.runs else 0.0
    runs, resolved = here.runs + share * elsewhere.runs, here.resolved + share * elsewhere.resolved
    low, high = beta_interval(resolved, runs - resolved)
    return TrackRecord(
        runs=runs,
        resolved=resolved,
        worse=here.worse + share * elsewhere.worse,
        low=low,
        high=high,
        here=_counted(there[0]),
        elsewhere=_counted(there[1]),
    )


def _weighed(trials: Iterable[_Trial], now: datetime) -> TrackRecord:
    """As they count today."""
    weighed = [(_weight(trial, now), trial) for trial in trials]
    return TrackRecord(
        runs=sum(weight for weight, _ in weighed),
        resolved=sum(weight * trial.resolved for weight, trial in weighed),
        worse=sum(weight * trial.outcome.worse for weight, trial in weighed),
    )


def _weight(trial: _Trial, now: datetime) -> float:
    age = max(now - trial.outcome.at, timedelta())
    return trial.share * math.exp2(-age / HALF_LIFE) * (1.0 if trial.outcome.done else OPINION)


def _counted(trials: Iterable[_Trial]) -> Counted:
    """As they happened; what was run with others is counted where all of it is."""
    done = [trial for trial in trials if trial.outcome.done and trial.whole]
    return Counted(len(done), sum(trial.resolved for trial in done), sum(trial.outcome.worse for trial in done))


# --- the Beta distribution ---


def beta_interval(successes: float, failures: float, level: float = LEVEL) -> tuple[float, float]:
    """The equal-tailed interval in which the chance of success lies with probability ``level``, after these trials.

    Trials may be fractions. After none it is nearly all of 0..1.
    """
    a, b, tail = successes + JEFFREYS, failures + JEFFREYS, (1.0 - level) / 2.0
    return beta_quantile(tail, a, b), beta_quantile(1.0 - tail, a, b)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The value that a Beta(a, b) variable stays below with that probability; a and b are above 0."""
    low, high = 0.0, 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2.0
        if middle in (low, high):
            break
        low, high = (middle, high) if beta_cdf(middle, a, b) < probability else (low, middle)
    return (low + high) / 2.0


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    if x > (a + 1.0) / (a + b + 2.0):  # there the fraction converges slowly
        return 1.0 - beta_cdf(1.0 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(log_front) / a / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + …)), by Lentz's method."""
    value, c, d = 1.0, 1.0, 0.0
    for step in range(1, _STEPS):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / (1.0 + term * d)
        c = 1.0 + term / c
        value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return value
