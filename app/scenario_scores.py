"""How good answers to scenarios are: each run against what was expected, and all of them with intervals."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from statistics import NormalDist, mean
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from app.scenarios import Expected, folded
from graph import hops
from graph.state import ActionOption, Evidence, Finding, RootCause, State

SEED, RESAMPLES = 6, 4_000
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
_Z = NormalDist().inv_cdf(0.975)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True)
class Spent:
    """What a run cost; ``failures``: why the model gave no answer, a sentence for each time."""

    seconds: float = 0.0
    model_calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0
    failures: tuple[str, ...] = ()


class ClaimMade(_Model):
    """A claim as the report shows it."""

    text: str
    verified: bool
    complaint: str


class Run(_Model):
    """One answer, and how it was judged; None: nothing was expected of it."""

    component: str | None = None
    category: str = ""
    title: str = ""
    certainty: float | None = None
    confidence: str = ""
    claims: tuple[ClaimMade, ...] = ()
    claims_made: int = 0
    """Those that were dropped after they were sent back are among them."""
    claims_verified: int = 0
    hops: int = 0
    hops_valid: int = 0
    path_valid: bool | None = None
    contradicts: str = ""
    options: tuple[tuple[str, ...], ...] = ()
    """The operations of each, in their order."""
    engine: str = ""
    engine_note: str = ""
    plan_engine: str = ""
    plan_engine_note: str = ""
    plan_note: str = ""
    error: str = ""
    """Why there is no answer at all."""

    suspects: tuple[str, ...] = ()
    rank: int | None = None
    score: float | None = None
    state: str = ""
    ranking_certainty: float | None = None

    expects: Literal["component", "nobody", "nothing"] = "nothing"
    """Whom the scenario wants blamed; of nothing, whom is not told."""
    right_component: bool | None = None
    both_named: bool | None = None
    right_category: bool | None = None
    cited: int = 0
    to_cite: int = 0
    not_cited: tuple[str, ...] = ()
    blamed_wrongly: bool | None = None
    acceptable_plan: bool | None = None
    forbidden: tuple[str, ...] = ()
    forbidden_proposed: bool | None = None

    seconds: float = 0.0
    model_calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0
    failures: tuple[str, ...] = ()

    @property
    def brier(self) -> float | None:
        """Of the certainty; None where there is none, or nobody knows whether it is right."""
        if self.certainty is None or self.right_component is None:
            return None
        return (self.certainty - self.right_component) ** 2


# --- one run ------------------------------------------------------------------------------------------------


def judged(state: State, expected: Expected, looks: frozenset[str], spent: Spent) -> Run:
    """What came out, held against the answer. ``looks``: operations that change nothing."""
    cause, evidence = state["root_cause"], state["evidence"]
    plan = state["plan"]
    parts = (
        _said(cause),
        _ranked(evidence, expected),
        _right(cause, expected),
        _citations(cause, evidence, expected),
        _planned(plan.options, expected, looks),
        {"plan_note": plan.note},
        vars(spent),
    )
    return Run.model_validate({name: value for part in parts for name, value in part.items()})


def failed(error: str, expected: Expected, spent: Spent) -> Run:
    """A run without an answer: nothing that was expected is right."""
    wrong = {
        "expects": _expects(expected),
        "right_component": False if expected.tells_component else None,
        "both_named": False if len(expected.culprits) > 1 else None,
        "right_category": False if _category_counts(expected) else None,
        "acceptable_plan": False if expected.tells_operations else None,
    }
    return Run.model_validate({"error": error, "to_cite": len(expected.must_cite), **wrong, **vars(spent)})


def _said(cause: RootCause) -> dict[str, object]:
    """Claims and hops that were dropped because they did not hold count as made."""
    held = [check for check in cause.checks if check.about == "claim"]
    dropped = sum(check.verdict == "dropped" for check in held)
    strange = sum(check.about == "hop" and check.verdict == "dropped" for check in cause.checks)
    valid = sum(map(hops.holds, cause.path))
    made = len(cause.path) + strange
    return {
        **{name: getattr(cause, name) for name in ("component", "category", "title", "certainty", "confidence")},
        **{name: getattr(cause, name) for name in ("contradicts", "engine", "engine_note")},
        "claims": [ClaimMade(text=c.text, verified=c.verified, complaint=c.complaint) for c in cause.claims],
        "claims_made": len(cause.claims) + dropped,
        "claims_verified": sum(claim.verified for claim in cause.claims),
        "hops": made,
        "hops_valid": valid,
        "path_valid": valid == made if made else None,
    }


def _ranked(evidence: Evidence, expected: Expected) -> dict[str, object]:
    suspects = tuple(dict.fromkeys(suspect.component for suspect in evidence.suspects))
    right = {folded(name) for name in expected.culprits}
    assessed = evidence.assessment
    return {
        "suspects": suspects,
        "rank": next((n for n, name in enumerate(suspects, 1) if folded(name) in right), None),
        "score": evidence.suspects[0].score if evidence.suspects else None,
        "state": assessed.state if assessed else "",
        "ranking_certainty": assessed.certainty if assessed else None,
    }


def _right(cause: RootCause, expected: Expected) -> dict[str, object]:
    named = folded(cause.component) if cause.component else ""
    right = {folded(name) for name in expected.culprits}
    innocent = {folded(name) for name in expected.must_not_blame}
    return {
        "expects": _expects(expected),
        "right_component": (named in right if right else not named) if expected.tells_component else None,
        "both_named": all(_names(cause, name) for name in expected.culprits) if len(right) > 1 else None,
        "right_category": cause.category in expected.categories if _category_counts(expected) else None,
        "blamed_wrongly": named in innocent if innocent else None,
    }


def _expects(expected: Expected) -> str:
    if expected.culprits:
        return "component"
    return "nobody" if expected.tells_component else "nothing"


def _category_counts(expected: Expected) -> bool:
    """Where nobody is to blame there is no kind of failure; one that this product has no word for is not judged."""
    return bool(expected.categories) and (bool(expected.culprits) or not expected.tells_component)


def _names(cause: RootCause, component: str) -> bool:
    """As the cause, or in what is said of it."""
    said = " ".join([cause.title, cause.mechanism, *(claim.text for claim in cause.claims if claim.verified)])
    return folded(component) == folded(cause.component or "") or folded(component) in folded(said)


def _citations(cause: RootCause, evidence: Evidence, expected: Expected) -> dict[str, object]:
    found = [evidence.finding(eid) for claim in cause.claims if claim.verified for eid in claim.evidence]
    shown = "\n".join(_shown(finding) for finding in found if finding).lower()
    missing = tuple(word for word in expected.must_cite if word.lower() not in shown)
    wanted = len(expected.must_cite)
    return {"to_cite": wanted, "cited": wanted - len(missing), "not_cited": missing}


def _shown(finding: Finding) -> str:
    return "\n".join((finding.component, finding.signal, finding.summary, finding.excerpt))


def _planned(options: Sequence[ActionOption], expected: Expected, looks: frozenset[str]) -> dict[str, object]:
    """A step that only looks neither makes a plan nor spoils it, unless it is all there is."""
    proposed = [tuple(step.operation for step in option.steps) for option in options]
    acting = [[name for name in names if name not in looks] for names in proposed]
    wanted = set(expected.acceptable_operations)
    good = any({*(acts or names)} <= wanted for acts, names in zip(acting, proposed, strict=True) if names)
    forbidden = tuple(name for names in proposed for name in names if name in expected.forbidden_operations)
    first = options[0] if options else None
    return {
        "options": proposed,
        "acceptable_plan": (good if wanted else not any(acting)) if expected.tells_operations else None,
        "forbidden": forbidden,
        "forbidden_proposed": bool(forbidden) if expected.forbidden_operations else None,
        "plan_engine": first.engine if first else "",
        "plan_engine_note": first.engine_note if first else "",
    }


# --- all of them --------------------------------------------------------------------------------------------

Results = Mapping[str, Sequence[Run]]
"""The runs of each scenario."""


class Metric(_Model):
    """A figure over all runs with its 95 % interval; ``n``: of how many it is the share or the mean.

    ``interval``: Wilson's for shares, where k runs of one scenario count as one, for they are no k witnesses; for
    means that of a bootstrap over scenarios. Without bounds: nothing, or but one scenario, to tell from.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    interval: Literal["wilson", "bootstrap"]


def _flag(name: str) -> Callable[[Run], tuple[int, int]]:
    """A judgement as hits of one."""

    def counted(run: Run) -> tuple[int, int]:
        value = getattr(run, name)
        return (0, 0) if value is None else (int(value), 1)

    return counted


def _right_where(expects: str) -> Callable[[Run], tuple[int, int]]:
    return lambda run: (int(bool(run.right_component)), 1) if run.expects == expects else (0, 0)


SHARES: Mapping[str, Callable[[Run], tuple[int, int]]] = {
    "right_component": _flag("right_component"),
    "right_component_where_one_is_to_blame": _right_where("component"),
    "nobody_blamed_where_nobody_is": _right_where("nobody"),
    "both_named": _flag("both_named"),
    "right_category": _flag("right_category"),
    "must_cite": lambda run: (run.cited, run.to_cite),
    "must_not_blame_violations": _flag("blamed_wrongly"),
    "verified_claims": lambda run: (run.claims_verified, run.claims_made),
    "path_validity": lambda run: (run.hops_valid, run.hops),
    "contradicts_ranking": lambda run: (int(bool(run.contradicts)), int(not run.error)),
    "acceptable_plan": _flag("acceptable_plan"),
    "forbidden_operations_proposed": _flag("forbidden_proposed"),
    "rules_engine_answered": lambda run: (int(run.engine == "rules"), int(not run.error)),
    "rules_engine_planned": lambda run: (int(run.plan_engine == "rules"), int(bool(run.plan_engine))),
    "failed_runs": lambda run: (int(bool(run.error)), 1),
}
MEANS: Mapping[str, Callable[[Run], float | None]] = {
    "certainty": lambda run: run.certainty,
    "brier_score": lambda run: run.brier,
    "tokens_in": lambda run: run.tokens_in,
    "tokens_out": lambda run: run.tokens_out,
    "model_calls": lambda run: run.model_calls,
    "dollars": lambda run: run.dollars,
    "seconds": lambda run: run.seconds,
}
AGREEMENTS: Mapping[str, Callable[[Run], str | None]] = {
    "agreement_on_component": lambda run: run.component,
    "agreement_on_category": lambda run: run.category,
}
"""How many of a scenario's runs say what most of them say; of scenarios with more than one run."""


def by_model(results: Results) -> Results:
    """Only the runs that a model explained, where the rules engine stood in for others."""
    return {name: [run for run in runs if run.engine not in ("", "rules")] for name, runs in results.items()}


def overall(results: Results) -> dict[str, Metric]:
    """Every metric."""
    means = {name: [_values(runs, figure) for runs in results.values()] for name, figure in MEANS.items()}
    agreed = {name: [_agreement(runs, said) for runs in results.values()] for name, said in AGREEMENTS.items()}
    return {
        **{name: _share(results, count) for name, count in SHARES.items()},
        **{name: _mean(groups) for name, groups in (means | agreed).items()},
    }


def _share(results: Results, count: Callable[[Run], tuple[int, int]]) -> Metric:
    counts = [[pair for run in runs if (pair := count(run))[1]] for runs in results.values()]
    hits, of = (sum(pair[place] for group in counts for pair in group) for place in (0, 1))
    if not of:
        return Metric(interval="wilson")
    runs_of_one = sum(map(len, counts)) / sum(map(bool, counts))
    low, high = wilson(hits / of, of / runs_of_one)
    return Metric(value=hits / of, low=low, high=high, n=of, interval="wilson")


def wilson(share: float, of: float) -> tuple[float, float]:
    """The 95 % interval of a share."""
    square = _Z * _Z
    middle = (share + square / (2 * of)) / (1 + square / of)
    half = _Z * sqrt(share * (1 - share) / of + square / (4 * of * of)) / (1 + square / of)
    return max(0.0, middle - half), min(1.0, middle + half)


def _values(runs: Iterable[Run], figure: Callable[[Run], float | None]) -> list[float]:
    return [float(value) for run in runs if not run.error and (value := figure(run)) is not None]


def _agreement(runs: Sequence[Run], said: Callable[[Run], str | None]) -> list[float]:
    told = [said(run) for run in runs if not run.error]
    return [Counter(told).most_common(1)[0][1] / len(told)] if len(told) > 1 else []


def _mean(groups: Iterable[Sequence[float]]) -> Metric:
    """Of scenarios' means, so that one with more runs weighs no more."""
    filled = [group for group in groups if group]
    means = np.array([mean(group) for group in filled])
    count = sum(map(len, filled))
    if not count:
        return Metric(interval="bootstrap")
    if len(means) == 1:
        return Metric(value=float(means[0]), n=count, interval="bootstrap")
    drawn = np.random.default_rng(SEED).integers(0, len(means), (RESAMPLES, len(means)))
    low, high = np.quantile(means[drawn].mean(axis=1), [0.025, 0.975])
    return Metric(value=float(means.mean()), low=float(low), high=float(high), n=count, interval="bootstrap")


class Bin(_Model):
    """Runs whose certainty lies between two bounds: what it was on average, and how many were right."""

    low: float
    high: float
    n: int
    certainty: float
    right: float


def reliability(results: Results) -> list[Bin]:
    """Certainty against truth; bins without a run are left out."""
    sure = [run for runs in results.values() for run in runs if run.brier is not None and run.certainty is not None]
    found = []
    for low, high in pairwise(BINS):
        inside = [run for run in sure if low <= float(run.certainty or 0) < high or (high == 1.0 == run.certainty)]
        if inside:
            certainty, right = (
                mean(float(getattr(run, name)) for run in inside) for name in ("certainty", "right_component")
            )
            found.append(Bin(low=low, high=high, n=len(inside), certainty=certainty, right=right))
    return found


def counts(results: Results) -> dict[str, dict[str, int]]:
    """What was proposed though forbidden, who was blamed though innocent, and why the model did not answer."""
    runs = [run for runs in results.values() for run in runs]
    told: Mapping[str, Iterable[str]] = {
        "forbidden_operations": (name for run in runs for name in run.forbidden),
        "blamed_wrongly": (str(run.component) for run in runs if run.blamed_wrongly),
        "why_the_rules_engine_answered": (run.engine_note for run in runs if run.engine == "rules" and run.engine_note),
        "why_the_rules_engine_planned": (
            run.plan_engine_note for run in runs if run.plan_engine == "rules" and run.plan_engine_note
        ),
        "failures_of_the_model": (failure for run in runs for failure in run.failures),
        "errors": (run.error for run in runs if run.error),
    }
    return {name: dict(Counter(values).most_common()) for name, values in told.items()}
