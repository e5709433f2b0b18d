"""Whether the confidence shown with an answer is earned: over made-up incidents, and analysts of different honesty.

``python -m benchmarks.confidence --cases 220`` runs it alone.
"""

import argparse
import asyncio
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean

from app.evaluation import Case
from app.scenarios import read
from benchmarks.ranking_calibration import brier
from benchmarks.ranking_cases import DISTURBANCES, FAULTS, PROFILES, Drawn
from benchmarks.results import Table
from benchmarks.setting import Setting
from graph.confidence import confident
from graph.grounding import ground, known_components
from graph.llms.base import AnalysisRequest
from graph.llms.rules import RulesAnalyst
from graph.state import Claim, Evidence, RootCause
from tests import processes
from tests.conftest import ROOT

CASES = 440
SEED = 70_000  # the constants were chosen on 60,000 and up
SIZES = (12, 20, 30)
BINS = (0.0, 0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 1.0)
SCENARIOS = ROOT / "tests" / "scenarios"
Tell = Callable[[str], None]
Script = Callable[[Evidence, random.Random], RootCause | None]


@dataclass(frozen=True)
class Answered:
    """What an analyst said of a case: how sure we are of it, how sure ranking is of its own, and the truth."""

    analyst: str
    certainty: float
    ranking: float
    word: str
    right: bool


def measure(setting: Setting) -> list[Table]:
    """Reliability, Brier scores and words, by analyst."""
    return tables(answers(CASES, setting.tell))


def answers(count: int, tell: Tell) -> list[Answered]:
    """All analysts on so many made-up incidents, and the rules engine on the recorded ones."""
    drawn = [_drawn(number) for number in range(count)]
    found: list[Answered] = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=processes.context) as pool:
        for number, some in enumerate(pool.map(_answered_draw, drawn), 1):
            found += some
            tell(f"confidence: {number} of {count} made-up incidents")
    return found + _recorded()


def tables(found: Sequence[Answered]) -> list[Table]:
    """The tables of these answers; inconclusive ones claim nothing and are not among them."""
    by_analyst = {
        name: [one for one in found if one.analyst == name] for name in dict.fromkeys(a.analyst for a in found)
    }
    return [_reliability(by_analyst), _scores(by_analyst), _words(by_analyst)]


# --- cases and analysts ---


def _drawn(number: int) -> Drawn:
    """Faults in turn; every second incident is disturbed in one of the ways."""
    disturbances = list(DISTURBANCES)
    disturbance = disturbances[0] if number % 2 else disturbances[number // 2 % len(disturbances)]
    fault, size, profile = FAULTS[number % len(FAULTS)], SIZES[number % 3], PROFILES[number % len(PROFILES)]
    return Drawn(SEED + number, fault, size, profile, disturbance)


def _answered_draw(drawn: Drawn) -> list[Answered]:
    """For a process of its own; nothing where no system feels the fault."""
    try:
        labelled = drawn.labelled()
    except ValueError:
        return []
    right = {component for cause in labelled.causes for component in cause}
    return list(_answered(labelled.case, right, drawn.seed))


def _answered(case: Case, right: set[str], seed: int) -> Iterator[Answered]:
    evidence, scope = case.ranked(), case.scope
    rules = asyncio.run(RulesAnalyst().analyze(AnalysisRequest(case.alert, scope, evidence))).root_cause
    answers = {"rules engine": rules, **{n: script(evidence, random.Random(seed)) for n, script in _SCRIPTS.items()}}
    for name, answer in answers.items():
        if answer is None or answer.component is None:
            continue
        shown = confident(ground(answer, evidence, known_components(scope, evidence)), evidence)
        if shown.certainty is not None:
            sure = evidence.assessment.certainty if evidence.assessment else 0.0
            yield Answered(name, shown.certainty, sure, shown.confidence, shown.component in right)


def _recorded() -> list[Answered]:
    """The rules engine on the scenarios; those where nobody is to blame count as wrong wherever it blames."""
    found = []
    for folder in sorted(path for path in SCENARIOS.iterdir() if path.is_dir()):
        scenario = read(folder.name, folder)
        answered = _answered(Case.of(scenario.bundle), set(scenario.expected.culprits), 0)
        found += [one for one in answered if one.analyst == "rules engine"]
    return [Answered("rules engine, scenarios", a.certainty, a.ranking, a.word, a.right) for a in found]


def _saying(component: str, evidence: Evidence, *, lies: bool = False) -> RootCause:
    """An answer in the evidence's own sentences; of a liar, every second one with a number that is not in it."""
    own = [f for f in evidence.findings if f.component == component][:4] or list(evidence.findings[:4])
    claims = (Claim(text=f.summary, evidence=(f.id,)) for f in own)
    told = (
        claim.model_copy(update={"text": f"{claim.text} That is 987654321 in all."}) if lies and n % 2 else claim
        for n, claim in enumerate(claims, 1)
    )
    return RootCause(
        component=component,
        category="unknown",
        title=component,
        mechanism="",
        claims=tuple(told),
        path=next((s.path for s in evidence.suspects if s.component == component), ()),
        confidence="high",
        engine="scripted",
    )


def _first(evidence: Evidence, _: random.Random) -> RootCause | None:
    return _saying(evidence.suspects[0].component, evidence) if evidence.suspects else None


def _second(evidence: Evidence, _: random.Random) -> RootCause | None:
    return _saying(evidence.suspects[1].component, evidence) if len(evidence.suspects) > 1 else None


def _anybody(evidence: Evidence, rng: random.Random) -> RootCause | None:
    known = {f.component for f in evidence.findings} | {end for e in evidence.edges for end in (e.caller, e.callee)}
    return _saying(rng.choice(sorted(known)), evidence) if known else None


def _half_lies(evidence: Evidence, _: random.Random) -> RootCause | None:
    return _saying(evidence.suspects[0].component, evidence, lies=True) if evidence.suspects else None


_SCRIPTS: Mapping[str, Script] = {
    "agrees with ranking": _first,
    "second suspect": _second,
    "anybody": _anybody,
    "agrees, half of its claims false": _half_lies,
}


# --- tables ---


def _reliability(by_analyst: Mapping[str, Sequence[Answered]]) -> Table:
    rows = []
    for low, high in pairwise(BINS):
        cells = [
            _bin([a for a in some if low <= a.certainty < high or a.certainty == high == 1.0])
            for some in by_analyst.values()
        ]
        rows.append((f"{low:.2f} to {high:.2f}", *cells))
    return Table(
        "Reliability of the certainty shown, by analyst",
        ("said", *by_analyst),
        rows,
        "Mean of what was said, the share whose component was right, and how many answers. The scripted analysts name a"
        " component even where ranking abstains, and where nothing happened.",
    )


def _bin(some: Sequence[Answered]) -> str:
    if not some:
        return "-"
    return f"{mean(a.certainty for a in some):.2f}: {mean(a.right for a in some):.2f} ({len(some)})"


def _scores(by_analyst: Mapping[str, Sequence[Answered]]) -> Table:
    everybody = [a for name, some in by_analyst.items() if name in _SCRIPTS for a in some]
    rows = []
    for name, some in {**by_analyst, "all scripted": everybody}.items():
        if some:
            rate = mean(a.right for a in some)
            shown, ranking = ([(said(a), a.right) for a in some] for said in (_shown, _of_ranking))
            scores = f"{brier(shown):.3f}", f"{brier(ranking):.3f}", f"{rate * (1 - rate):.3f}"
            rows.append((name, f"{rate:.0%} of {len(some)}", *scores))
    return Table(
        "Brier score of «the component is right»",
        ("analyst", "right", "certainty shown", "ranking's certainty alone", "always the share that is right"),
        rows,
        "0 is best. Ranking's certainty alone does not know whom the analyst named, nor what held of it.",
    )


def _shown(answered: Answered) -> float:
    return answered.certainty


def _of_ranking(answered: Answered) -> float:
    return answered.ranking


def _words(by_analyst: Mapping[str, Sequence[Answered]]) -> Table:
    rows = []
    for word in ("high", "medium", "low"):
        cells = [[a.right for a in some if a.word == word] for some in by_analyst.values()]
        rows.append((word, *(f"{mean(c):.0%} of {len(c)}" if c else "-" for c in cells)))
    return Table("How often each word is right", ("confidence", *by_analyst), rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.confidence", description=__doc__)
    parser.add_argument("--cases", type=int, default=CASES)
    for table in tables(answers(parser.parse_args().cases, lambda _: None)):
        print(table.markdown(), end="\n\n")


if __name__ == "__main__":
    main()
